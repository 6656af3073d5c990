"""Both terms of Eq. (1) between many signatures at once, where pair by pair would take hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.reid.signature import OUTLIER_SIGMAS, WEIGHT_VALUE, WEIGHT_Y, ThermalSignature

_AT_ONCE = 1 << 16  # distances between blobs: what a processor's own memory holds of them
_ROUNDING = 1e-6  # of a mean of float32: equal smallest distances must not be outliers


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
    if first.count.sum() * len(second) > second.count.sum() * len(first):  # the distance is symmetric, its cost is not
        return mser_distances(second, first).T
    order = np.argsort(second.count, kind="stable")
    order = order[second.count[order] > 0]
    count = second.count[order]
    there = np.arange(second.y.shape[1]) < count[:, None]
    y, value = second.y[order][there], second.value[order][there]  # of all sets in a row, those of fewest blobs first
    ends = np.cumsum(count)
    starts, owner = ends - count, np.repeat(np.arange(len(count)), count)
    reaches = [(np.minimum.reduceat(place, starts), np.maximum.reduceat(place, starts)) if len(count) else ()
               for place in (y, value)]
    distances = np.ones((len(first), len(second)), np.float32)
    distances[first.count == 0] = second.count != 0
    for blobs in np.unique(first.count[first.count > 0]) if len(count) else ():
        fewer, most = np.searchsorted(count, (blobs, blobs + 1))  # sets of fewer blobs end, of more begin
        alike = np.flatnonzero(first.count == blobs)
        pieces = min(len(alike), -(-len(alike) * int(blobs) * len(y) // _AT_ONCE))
        for rows in np.array_split(alike, pieces):
            own_places = [part[rows, :blobs] for part in (first.y, first.value)]
            parts = [np.abs(own_place[..., None] - place) for own_place, place in zip(own_places, (y, value))]
            own = np.zeros((2, len(rows), len(count)))
            if most:
                stop = ends[most - 1]
                # The farthest of a set is one of its ends: no need to look at all.
                far = [_farthest(own_place[..., None], *(end[:most] for end in reach))
                       for own_place, reach in zip(own_places, reaches)]
                own[0, :, :most] = _match_rows([part[..., :stop] for part in parts], far, starts[:most], owner[:stop])
            if fewer < len(count):
                at = starts[fewer]
                far = [_farthest(place[at:], own_place.min(axis=1)[:, None], own_place.max(axis=1)[:, None])
                       for own_place, place in zip(own_places, (y, value))]
                own[1, :, fewer:] = _match_columns([part[..., at:] for part in parts], far, count[fewer:],
                                                   starts[fewer:] - at, owner[at:] - fewer)
            own[..., fewer:most] *= 0.5  # where neither is the larger, both ways count
            distances[rows[:, None], order] = own[0] + own[1]
    return distances


def _match_rows(parts: Sequence[np.ndarray], farthest: Sequence[np.ndarray], starts: np.ndarray,
                owner: np.ndarray) -> np.ndarray:
    """float (N, M), from each blob of N sets to the nearest of each of M others. parts: of places and of values the
    distances (N, blobs of each of the N, blobs of all of the M in a row); farthest: their maxima in each of the M."""
    inlier = True
    for part in parts:
        nearest = np.minimum.reduceat(part, starts, axis=2).astype(np.float64)
        spread = nearest.std(axis=1, ddof=1) if nearest.shape[1] > 1 else np.inf
        limit = nearest.mean(axis=1) * (1.0 + _ROUNDING) + OUTLIER_SIGMAS * spread
        inlier = inlier & (nearest <= limit[:, None])
    total = 0.0
    for part, far, weight in zip(parts, farthest, (WEIGHT_Y, WEIGHT_VALUE)):
        largest = np.where(inlier, far, 0.0).max(axis=1)
        total = total + part * _over(weight, largest)[:, None, owner]
    nearest = np.where(inlier, np.minimum.reduceat(total, starts, axis=2), 0.0)
    return nearest.sum(axis=1) / np.maximum(inlier.sum(axis=1), 1)


def _match_columns(parts: Sequence[np.ndarray], farthest: Sequence[np.ndarray], count: np.ndarray, starts: np.ndarray,
                   owner: np.ndarray) -> np.ndarray:
    """float (N, M), from each blob of the M sets to the nearest of each of the N, likewise; farthest: maxima over the
    blobs of each of the N."""
    inlier = True
    for part in parts:
        nearest = part.min(axis=1).astype(np.float64)
        mean = np.add.reduceat(nearest, starts, axis=1) / count
        squares = np.add.reduceat((nearest - mean[:, owner]) ** 2, starts, axis=1)
        spread = np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.inf)
        inlier = inlier & (nearest <= (mean * (1.0 + _ROUNDING) + OUTLIER_SIGMAS * spread)[:, owner])
    total = 0.0
    for part, far, weight in zip(parts, farthest, (WEIGHT_Y, WEIGHT_VALUE)):
        largest = np.maximum.reduceat(np.where(inlier, far, 0.0), starts, axis=1)
        total = total + part * _over(weight, largest)[:, None, owner]
    nearest = np.where(inlier, total.min(axis=1), 0.0)
    counted = np.add.reduceat(inlier.astype(np.intp), starts, axis=1)
    return np.add.reduceat(nearest, starts, axis=1) / np.maximum(counted, 1)


def _farthest(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(points - low), np.abs(points - high))


def _over(weight: float, largest: np.ndarray) -> np.ndarray:
    return (weight / np.where(largest > 0, largest, 1.0)).astype(np.float32)
