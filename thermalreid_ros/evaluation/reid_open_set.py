"""Open-set figures: when the object searched for may not be there, and what probabilities are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True, eq=False)
class Searches:
    """S searches twice each: with the true candidate in the gallery, and with it taken away.

    true: (S,), score of the true candidate, higher is likelier. best_other: (S,), the highest of all others.
    """

    true: np.ndarray
    best_other: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """bool (S,), the true candidate comes first, alone."""
        return self.true > self.best_other


def threshold_for(false_alarms: float, best_other: np.ndarray) -> float:
    """The lowest threshold that at most this share of the searches without a true candidate reach."""
    ordered = np.sort(best_other)[::-1]
    allowed = int(np.floor(false_alarms * len(ordered) + 1e-9))
    return -np.inf if allowed >= len(ordered) else float(np.nextafter(ordered[allowed], np.inf))


def detection_and_identification(searches: Searches, threshold: float) -> tuple[float, float]:
    """(share of searches whose true candidate comes first and reaches the threshold, false alarms: share of those
    without a true candidate in which another reaches it)."""
    return (float((searches.found & (searches.true >= threshold)).mean()),
            float((searches.best_other >= threshold).mean()))


def open_set_curve(searches: Searches, rates: np.ndarray) -> np.ndarray:
    """Detection-and-identification rate at each rate of false alarms."""
    return np.array([detection_and_identification(searches, threshold_for(rate, searches.best_other))[0]
                     for rate in rates])


def calibration_table(probability: np.ndarray, true: np.ndarray, weight: np.ndarray | None = None,
                      bins: int = BINS) -> np.ndarray:
    """(bins, 3): of probabilities in bins of equal width the weight's share, their mean and the share that is true."""
    weight = np.ones(len(true)) if weight is None else weight
    which = np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
    total = np.bincount(which, weight, bins)
    sums = [np.bincount(which, weight * values, bins) / np.where(total > 0, total, 1.0)
            for values in (probability, true)]
    return np.column_stack([total / weight.sum(), *sums])


def calibration_error(probability: np.ndarray, true: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Expected calibration error over ten bins: how far, on average, probabilities are from what comes true."""
    table = calibration_table(probability, true, weight)
    return float(table[:, 0] @ np.abs(table[:, 1] - table[:, 2]))


def area_under_roc(scores: np.ndarray, true: np.ndarray, weight: np.ndarray | None = None) -> float:
    """That a true pair has a higher score than a false one; equal scores count half. NaN without pairs of both."""
    if np.all(true) or not np.any(true):
        return float("nan")
    weight = np.ones(len(true)) if weight is None else weight
    _, place = np.unique(scores, return_inverse=True)
    counts = [np.bincount(place, weight * chosen, int(place.max()) + 1) for chosen in (true, ~np.asarray(true, bool))]
    below = np.cumsum(counts[1]) - counts[1]
    return float(counts[0] @ (below + 0.5 * counts[1]) / (counts[0].sum() * counts[1].sum()))
