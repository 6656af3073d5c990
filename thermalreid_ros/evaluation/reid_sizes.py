"""Fits what reid.fusion knows of sizes: what a view makes of them, and what a photograph tells of them.

A photograph shows no scale, but what kind of thing it is: a van or a hatchback, a shepherd or a dachshund. That takes
more photographs than a calibration set holds; they may come from sets of photographs alone, whose true sizes are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.camera.crops import CropError
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.evaluation.reid_sets import Picture
from thermalreid_ros.evaluation.reid_terms import Progress, SetTerms
from thermalreid_ros.reid.embedding import Embedder
from thermalreid_ros.reid.fusion import ANY, VIEW_FEATURES, SizeRegression, view_features
from thermalreid_ros.synthesis import SynthesisError

_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_VIEW_RIDGE = 0.01


@dataclass(frozen=True, eq=False)
class Sized:
    """Photographs of objects of known size. label: (n,), class. descriptors: (n, D). log_size: (n, 3), ln of length,
    width and height in metres."""

    label: np.ndarray
    descriptors: np.ndarray
    log_size: np.ndarray


def describe(photographs: Sequence[Picture], embedder: Embedder, progress: Progress) -> Sized:
    """Photographs that no probe can be made of are left out."""
    label, descriptors, sizes = [], [], []
    for picture in progress(photographs, description="sizes", unit="photograph"):
        try:
            square = embedder.photograph_square(picture.photograph(), picture.box)
        except (SynthesisError, CropError):
            continue
        label.append(CLASS_NAMES.index(picture.class_name))
        descriptors.append(embedder.embed(square[None], mirrored=True)[0])
        sizes.append(np.log(picture.size_m))
    return Sized(np.array(label), np.array(descriptors, np.float64), np.array(sizes))


def fit_views(terms: SetTerms) -> dict[str, np.ndarray]:
    """(6,) of each class and ANY, by how much the size seen depends on the view: from differences between the pictures
    of one identity, so that what identities differ by is not taken for it."""
    whom, kind = terms.identity[1], terms.label[1]
    size, columns = less_view(terms.views, np.zeros(VIEW_FEATURES)), view_features(terms.views)
    for identity in np.unique(whom):
        own = whom == identity
        size[own] -= size[own].mean()
        columns[own] -= columns[own].mean(axis=0)
    views = {}
    for name, own in [*((name, kind == k) for k, name in enumerate(CLASS_NAMES)), (ANY, np.ones(len(kind), bool))]:
        square = columns[own].T @ columns[own] + _VIEW_RIDGE * np.eye(VIEW_FEATURES)
        views[name] = np.linalg.solve(square, columns[own].T @ size[own])
    return views


def less_view(views: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As FusedModel.seen_size, with these weights."""
    return np.log(np.hypot(views[:, 0], views[:, 1])) - view_features(views) @ weights


def fit_sizes(terms: SetTerms, views: dict[str, np.ndarray], fold_of: np.ndarray, folds: int,
              sized: Sized | None) -> tuple[dict[str, SizeRegression], np.ndarray]:
    """(regression of each class and ANY, (P,) sizes expected of the photographs' objects by those of their class that
    did not see them). fold_of: fold of each identity number."""
    who, whom = terms.identity
    label, kind = terms.label
    fold = fold_of[who]
    true = np.log([picture.size_m for picture in terms.gallery])
    descriptors = None if terms.embedding is None else terms.embedding.photographs.astype(np.float64)
    sizes, expected = {}, np.zeros(len(who))
    for name in (*(CLASS_NAMES[k] for k in np.unique(label)), ANY):
        own, seen_own = (np.ones(len(part), bool) if name == ANY else part == CLASS_NAMES.index(name)
                         for part in (label, kind))
        seen = less_view(terms.views, views[name])
        photograph, picture = np.nonzero((who[:, None] == whom) & own[:, None] & seen_own)
        mean, spread = float(seen[picture].mean()), float(seen[picture].std())
        if descriptors is None:
            sizes[name] = SizeRegression(mean, spread, spread, mean, np.zeros(0), views[name])
            expected[own] = mean
            continue
        # What size is seen of an object of known length, width and height; then a photograph's descriptor to that.
        to_seen = _regress(true[seen_own], seen[seen_own], 1e-3)
        targets = np.log([p.size_m for p in terms.photographs]) @ to_seen[1] + to_seen[0]
        more = np.zeros(0, bool)
        if sized is not None:
            more = np.ones(len(sized.label), bool) if name == ANY else sized.label == CLASS_NAMES.index(name)
        columns, values = descriptors, targets
        if more.any():
            columns = np.concatenate([descriptors, sized.descriptors[more]])
            values = np.concatenate([targets, sized.log_size[more] @ to_seen[1] + to_seen[0]])
        trained = np.concatenate([own, np.ones(int(more.sum()), bool)])
        folds_of = np.concatenate([fold, np.full(int(more.sum()), -1)])
        errors = {}
        for ridge in _RIDGES:
            held = np.zeros(len(who))
            for number in range(folds):
                use, unseen = trained & (folds_of != number), own & (fold == number)
                if unseen.any():
                    offset, weights = _regress(columns[use], values[use], ridge / columns.shape[1])
                    held[unseen] = descriptors[unseen] @ weights + offset
            errors[ridge] = float(np.sqrt(np.mean((held[photograph] - seen[picture]) ** 2))), held
        ridge = min(errors, key=lambda key: errors[key][0])
        if name != ANY:
            expected[own] = errors[ridge][1][own]
        offset, weights = _regress(columns[trained], values[trained], ridge / columns.shape[1])
        sizes[name] = SizeRegression(mean, spread, errors[ridge][0], offset, weights, views[name])
    return sizes, expected


def _regress(columns: np.ndarray, values: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """(offset, weights), the offset free of the ridge."""
    if not len(values):
        return 0.0, np.zeros(columns.shape[1])
    centre, mean = columns.mean(axis=0), float(values.mean())
    columns = columns - centre
    weights = np.linalg.solve(columns.T @ columns + ridge * np.eye(columns.shape[1]), columns.T @ (values - mean))
    return mean - float(weights @ centre), weights
