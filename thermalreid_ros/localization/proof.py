"""Whether a place explains ground that it was not chosen for."""

from __future__ import annotations

from math import exp

import numpy as np

from thermalreid_ros.maps.classes import CLASS_COUNT


class Proof:
    """Evidence from ground that came into view after a place was taken up; of the last window_points, about.

    points: independent ones, all of them. gain: nats by which the map at the place explains them better than an
    average place does. pattern: nats by which it does so better than if the same labels, of about block_points, lay in
    another order over the same ground. nats: the lesser of both.

    A place that was picked out of thousands because it fits does not go on gaining, unless it is the right one, or all
    ground there is of the class that is seen. Such ground shows no pattern. Where a wrong place has one, it fits as
    often as not, and loses against the average place whenever it does not; it is forgotten lest chance adds up.
    """

    def __init__(self, window_points: float = 60.0, block_points: float = 20.0):
        self._window_points, self._block_points = window_points, block_points
        self.points = self.gain = self._done = 0.0
        self._begin()

    def _begin(self) -> None:
        self._block = self._block_gain = 0.0
        self._labels = np.zeros(CLASS_COUNT)
        self._gains = np.zeros(CLASS_COUNT)

    def add(self, labels: np.ndarray, weights: np.ndarray, gains: np.ndarray) -> None:
        """labels: uint8 (K,), of points worth weights (K,). gains: (5, K), nats that each class would gain there."""
        if self._block >= self._block_points:
            self._done = self.pattern
            self._begin()
        worth, gain = float(weights.sum()), float(weights @ gains[labels, np.arange(len(labels))])
        keep = exp(-worth / self._window_points)
        self.gain, self._done = keep * self.gain + gain, keep * self._done
        self.points, self._block, self._block_gain = self.points + worth, self._block + worth, self._block_gain + gain
        self._labels += np.bincount(labels, weights, CLASS_COUNT)
        self._gains += gains @ weights

    @property
    def pattern(self) -> float:
        return self._done + self._block_gain - float(self._labels @ self._gains) / max(self._block, 1e-9)

    @property
    def nats(self) -> float:
        return min(self.gain, self.pattern)
