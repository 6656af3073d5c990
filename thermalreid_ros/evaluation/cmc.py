"""Cumulative matching characteristic (CMC) of re-identification, one gallery image per identity.

CMC(r) is the share of probes whose true match is among the r nearest of the gallery. nAUC@20 is the mean of
CMC(1) to CMC(20), the measure that fits the figures printed in the ThermalReID paper; nAUC is the mean over
all ranks of the gallery. A gallery smaller than a rank counts as found at that rank, so figures are
comparable only between galleries of like size: publish the size, and what guessing reaches, beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RANKS = (1, 5, 10, 15, 20)


@dataclass(frozen=True)
class CmcFigures:
    """Shares in [0, 1]: CMC at ranks 1, 5, 10, 15 and 20, nauc20 and nauc as in the module's text."""

    r1: float
    r5: float
    r10: float
    r15: float
    r20: float
    nauc20: float
    nauc: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def true_rank(distances: np.ndarray, true_index: int) -> int:
    """Rank, from 1, of the true match in a gallery (n,); it stands behind all that are equally distant, so
    that a distance which tells nothing apart earns nothing."""
    return int(np.count_nonzero(distances <= distances[true_index]))


def cmc_curve(ranks: np.ndarray, length: int) -> np.ndarray:
    """CMC(1) to CMC(length), float64, of the true ranks (n,)."""
    return (np.asarray(ranks)[:, None] <= np.arange(1, length + 1)).mean(axis=0)


def cmc_figures(ranks: np.ndarray, gallery_sizes: np.ndarray) -> CmcFigures:
    """Figures of one draw. ranks: (n,) true ranks from 1. gallery_sizes: (n,), of each probe's gallery.

    Raises ValueError without probes, and where a rank lies outside its gallery.
    """
    ranks, gallery_sizes = np.asarray(ranks), np.asarray(gallery_sizes)
    if not len(ranks) or (ranks < 1).any() or (ranks > gallery_sizes).any():
        raise ValueError("ranks must lie between 1 and the size of the gallery, and there must be some")
    curve = cmc_curve(ranks, max(RANKS))
    # The mean of a probe's CMC over the n ranks of its gallery: it is 1 from its rank on.
    nauc = ((gallery_sizes - ranks + 1) / gallery_sizes).mean()
    return CmcFigures(*(float(curve[rank - 1]) for rank in RANKS), float(curve.mean()), float(nauc))


def guessing(gallery_sizes: np.ndarray) -> float:
    """The CMC(1) that a random order of the gallery reaches."""
    return float((1.0 / np.asarray(gallery_sizes)).mean())


def over_draws(draws: Sequence[CmcFigures]) -> tuple[CmcFigures, CmcFigures]:
    """Mean and standard deviation (of the draws themselves, n in the denominator) of each figure."""
    table = np.array([list(draw.as_dict().values()) for draw in draws])
    return CmcFigures(*map(float, table.mean(axis=0))), CmcFigures(*map(float, table.std(axis=0)))
