"""Lengths of searched objects as somebody might tell them, and the fit of what they foretell of the sizes seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.reid_sets import Picture
from thermalreid_ros.evaluation.reid_sizes import LEAST_SIGMA, less_view
from thermalreid_ros.evaluation.reid_terms import SetTerms
from thermalreid_ros.reid.fusion import ANY, LengthRow
from thermalreid_ros.reid.length import ERRORS, ToldLength


def drawn_lengths(terms: SetTerms, error: float, seed: int) -> tuple[ToldLength, ...]:
    """For each photograph the true longest side of its object, off by a lognormal error that is told as it is (but not
    as smaller than can be told). Raises ThermalReidError where a set does not tell sizes."""
    true = _true_lengths(terms.photographs)
    drawn = true * np.exp(error * np.random.default_rng([seed, 0x1E6]).standard_normal(len(true)))
    return tuple(ToldLength(float(metres), max(error, ERRORS[0])) for metres in drawn)


def fit_lengths(terms: SetTerms, views: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, LengthRow]:
    """What true lengths foretell of the chosen thermal pictures, bool (G,), of each class there is and of ANY.

    views: as reid_sizes.fit_views gives them. The size seen is proportional to the true one, so an offset is all that
    is fitted beside the noise. Raises ThermalReidError where a set does not tell sizes.
    """
    length, kind = np.log(_true_lengths(terms.gallery)), terms.label[1]
    rows = {}
    for name, own in [*((CLASS_NAMES[k], kind == k) for k in np.unique(kind)), (ANY, np.ones(len(kind), bool))]:
        own = own & chosen
        left = less_view(terms.views[own], views[name]) - length[own]
        if len(left) > 1:
            rows[name] = LengthRow(float(left.mean()), max(float(left.std()), LEAST_SIGMA))
    return rows


def _true_lengths(pictures: Sequence[Picture]) -> np.ndarray:
    lengths = np.array([picture.length_m for picture in pictures])
    if not np.isfinite(lengths).all():
        raise ThermalReidError(f"{pictures[int(np.argmax(~np.isfinite(lengths)))].path}: its set does not tell how "
                               "large its identities are; render it anew with `thermalreid world reid-set`")
    return lengths
