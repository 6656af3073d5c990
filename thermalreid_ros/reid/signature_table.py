"""Both terms of Eq. (1) between many signatures at once, where pair by pair would take hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.reid.signature import OUTLIER_SIGMAS, WEIGHT_VALUE, WEIGHT_Y, ThermalSignature


@dataclass(frozen=True, eq=False)
class SignatureTable:
    """N signatures of one scale. root: float32 (N, bins), square roots of their histograms. y, value: float32 (N, B),
    of their blobs, NaN beyond count (N,)."""

    root: np.ndarray
    y: np.ndarray
    value: np.ndarray
    count: np.ndarray

    def __len__(self) -> int:
        return len(self.count)

    @classmethod
    def of(cls, signatures: Sequence[ThermalSignature]) -> SignatureTable:
        """ValueError where scales differ, or there is none."""
        if len({signature.scale for signature in signatures}) != 1:
            raise ValueError("signatures of one scale are needed, one at least")
        count = np.array([len(signature.blobs) for signature in signatures])
        blobs = np.full((2, len(count), max(int(count.max()), 1)), np.nan, np.float32)
        for row, signature in enumerate(signatures):
            blobs[:, row, :count[row]] = signature.blobs.y, signature.blobs.value
        return cls(np.sqrt(np.stack([s.histogram for s in signatures])).astype(np.float32), *blobs, count)

    def only(self, rows: np.ndarray) -> SignatureTable:
        return SignatureTable(self.root[rows], self.y[rows], self.value[rows], self.count[rows])


def histogram_distances(first: SignatureTable, second: SignatureTable) -> np.ndarray:
    """float32 (N, M), as signature.bhattacharyya_distance, to about 1e-3 where it is near 0."""
    return np.sqrt(np.clip(1.0 - first.root @ second.root.T, 0.0, 1.0))


def mser_distances(first: SignatureTable, second: SignatureTable) -> np.ndarray:
    """float32 (N, M), as signature.mser_distance."""
    distances = np.empty((len(first), len(second)), np.float32)
    for row, count in enumerate(first.count):
        if count == 0:
            distances[row] = second.count != 0
            continue
        d_y = np.abs(first.y[row, :count, None] - second.y[:, None, :])
        d_value = np.abs(first.value[row, :count, None] - second.value[:, None, :])
        forth, back = second.count <= count, second.count >= count
        own = np.full((2, len(second)), np.nan, np.float32)
        own[0, forth] = _match_larger(d_y[forth], d_value[forth])
        own[1, back] = _match_larger(d_y[back].transpose(0, 2, 1), d_value[back].transpose(0, 2, 1))
        distances[row] = np.where(second.count == 0, 1.0, np.where(
            forth & back, 0.5 * (own[0] + own[1]), np.where(forth, own[0], own[1])))
    return distances


def _match_larger(d_y: np.ndarray, d_value: np.ndarray) -> np.ndarray:
    """(M,), of distances (M, blobs of the larger, of the smaller set), NaN where there is no blob."""
    there = ~np.isnan(d_y)
    rows = there.any(axis=2)
    total, inlier = np.zeros(d_y.shape, np.float32), rows.copy()
    parts = [np.where(there, part, np.float32(np.inf)) for part in (d_y, d_value)]
    for part in parts:
        inlier &= _inliers(part.min(axis=2, initial=np.inf), rows)
    used = there & inlier[..., None]
    for part, weight in zip(parts, (WEIGHT_Y, WEIGHT_VALUE)):
        largest = np.where(used, part, 0.0).max(axis=(1, 2), initial=0.0)
        total += np.float32(weight) * (part / np.where(largest > 0, largest, 1.0)[:, None, None])
    nearest = np.where(inlier, total.min(axis=2, initial=np.inf), 0.0)
    return nearest.sum(axis=1) / np.maximum(inlier.sum(axis=1), 1)


def _inliers(nearest: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bool (M, blobs): smallest distances up to mean + 3.5 sigma of those that there are."""
    count = rows.sum(axis=1)
    values = np.where(rows, nearest, 0.0).astype(np.float64)
    mean = values.sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(rows, values - mean[:, None], 0.0) ** 2).sum(axis=1)
    limit = mean * (1.0 + 1e-6) + OUTLIER_SIGMAS * np.sqrt(squares / np.maximum(count - 1, 1))
    return rows & ((nearest <= limit[:, None]) | (count < 2)[:, None])
