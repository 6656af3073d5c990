"""Fits what reid.fusion knows of sizes: what a view makes of them, and what a photograph tells of them."""

from __future__ import annotations

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.evaluation.reid_terms import SetTerms
from thermalreid_ros.reid.fusion import ANY, VIEW_FEATURES, SizeRegression, view_features

_RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, np.inf)
_VIEW_RIDGE = 0.01
LEAST_SIGMA = 0.02  # no box is drawn with less of an error


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


def fit_sizes(terms: SetTerms, views: dict[str, np.ndarray], fold_of: np.ndarray,
              folds: int) -> tuple[dict[str, SizeRegression], np.ndarray]:
    """(regression of each class and ANY, (P,) sizes expected of the photographs' objects by those of their class that
    did not see them). fold_of: fold of each identity number. Where descriptors foretell no size of identities held out
    better than the mean does, they are not asked."""
    who, whom = terms.identity
    label = terms.label[0]
    descriptors = None if terms.embedding is None else terms.embedding.photographs.astype(np.float64)
    photograph, picture = np.nonzero(who[:, None] == whom)
    fold = fold_of[who[photograph]]
    sizes, expected = {}, np.zeros(len(who))
    for name in (*(CLASS_NAMES[k] for k in np.unique(label)), ANY):
        own = np.ones(len(photograph), bool) if name == ANY else label[photograph] == CLASS_NAMES.index(name)
        seen = less_view(terms.views[picture], views[name])
        errors = {}
        for ridge in (np.inf,) if descriptors is None else _RIDGES:
            held = np.zeros(len(photograph))
            for number in range(folds):
                use, unseen = own & (fold != number), own & (fold == number)
                if use.any() and unseen.any():
                    offset, weights = _regress(descriptors, photograph[use], seen[use], ridge)
                    held[unseen] = offset + (descriptors[photograph[unseen]] @ weights if len(weights) else 0.0)
            errors[ridge] = max(float(np.sqrt(np.mean((held[own] - seen[own]) ** 2))), LEAST_SIGMA), held
        ridge = min(errors, key=lambda key: errors[key][0])
        sigma, held = errors[ridge]
        if name != ANY:
            expected[photograph[own]] = held[own]
        offset, weights = _regress(descriptors, photograph[own], seen[own], ridge)
        sizes[name] = SizeRegression(float(seen[own].mean()), float(seen[own].std()), sigma, offset, weights,
                                     views[name])
    return sizes, expected


def _regress(descriptors: np.ndarray | None, photograph: np.ndarray, size: np.ndarray,
             ridge: float) -> tuple[float, np.ndarray]:
    """(offset, weights), the offset free of the ridge; no weights where it is infinite."""
    mean = float(size.mean())
    if np.isinf(ridge):
        return mean, np.zeros(0)
    columns = descriptors[photograph]
    centre = columns.mean(axis=0)
    columns = columns - centre
    # Unit vectors of D numbers: a ridge of 1 is about as strong as one pair.
    weights = np.linalg.solve(columns.T @ columns + ridge * np.eye(columns.shape[1]) / columns.shape[1],
                              columns.T @ (size - mean))
    return mean - float(weights @ centre), weights
