"""Figures of labellings from counts of (true, predicted) pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thermalreid_ros.maps.classes import CLASS_COUNT, CLASS_NAMES

#: Share of pixels that a class keeps in `row_shares` where no pixel of it was seen, so that nothing is known of it.
UNSEEN_KEPT = 0.6
_LEAST_OF_TOWN = 10_000  # pixels of a class, below which a town says nothing of it


def count_pixels(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """int64 (5, 5): pixels by true class (row) and predicted class (column); both uint8 of equal shape. Pixels whose
    truth is no class (255: outside of the area) are left out."""
    known = truth < CLASS_COUNT
    pairs = CLASS_COUNT * truth[known].astype(np.int64) + predicted[known]
    return np.bincount(pairs, minlength=CLASS_COUNT**2).reshape(CLASS_COUNT, CLASS_COUNT)


def figures(counts: np.ndarray) -> dict:
    """iou: by class name, None where the class is neither there nor predicted; miou: their mean over classes that are
    there; accuracy: share of pixels labelled rightly; confusion: row_shares, rounded."""
    counts = np.asarray(counts, np.float64)
    right, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    union = true + predicted - right
    iou = {name: float(right[k] / union[k]) if union[k] else None for k, name in enumerate(CLASS_NAMES)}
    present = [iou[name] for k, name in enumerate(CLASS_NAMES) if true[k]]
    return {"iou": iou, "miou": float(np.mean(present)) if present else None,
            "accuracy": float(right.sum() / counts.sum()) if counts.sum() else None,
            "confusion": np.round(row_shares(counts), 5).tolist()}


def row_shares(counts: np.ndarray) -> np.ndarray:
    """(5, 5) shares of a true class (row) that are labelled as each class (column); rows sum to 1. A class without a
    pixel gets a cautious row: UNSEEN_KEPT for itself, the rest spread evenly."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(1, keepdims=True)
    unseen = np.full_like(counts, (1 - UNSEEN_KEPT) / (len(counts) - 1))
    np.fill_diagonal(unseen, UNSEEN_KEPT)
    return np.where(total > 0, counts / np.maximum(total, 1), unseen)


def mean_over_towns(counts: Sequence[np.ndarray]) -> np.ndarray:
    """row_shares as the mean over towns, given the counts of each: what to expect over the next one. Of pixels that are
    pooled, a town with many or large easy surfaces would make a segmenter look surer than it is over others. A town
    counts for a class of which it shows enough; where none does, pixels are pooled."""
    table, shares = row_shares(np.sum(counts, axis=0)), np.stack([row_shares(town) for town in counts])
    telling = np.sum(counts, axis=2) >= _LEAST_OF_TOWN
    for row in np.flatnonzero(telling.any(axis=0)):
        table[row] = shares[telling[:, row], row].mean(axis=0)
    return table
