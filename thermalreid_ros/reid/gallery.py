"""The gallery: what the tracks looked like, and its ranking against a probe."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.reid.probe import Probe
from thermalreid_ros.reid.signature import SignatureDistance, ThermalSignature, signature_distance
from thermalreid_ros.reid.tracks import TrackedDetection


@dataclass(frozen=True)
class Match:
    """One track compared with a probe. rank: 1 is best. length: frames in which the track was seen.

    detection, stamp_ns: where and when the track was seen last.
    """

    rank: int
    track_id: int
    length: int
    detection: Detection
    stamp_ns: int
    distance: SignatureDistance


@dataclass(eq=False)
class _Entry:
    signatures: deque[ThermalSignature]
    detection: Detection
    length: int
    stamp_ns: int


class Gallery:
    """Keeps the last `signatures_per_track` signatures of at most `max_tracks` tracks, for `max_age_s` after
    their last sight; when full, the track unseen for longest goes.

    beta_h: weight of the histogram in Eq. (1); may be changed at any time.
    """

    def __init__(self, beta_h: float, *, max_tracks: int = 256, signatures_per_track: int = 5,
                 max_age_s: float = 60.0):
        self.beta_h = beta_h
        self.max_tracks = max_tracks
        self.max_age_s = max_age_s
        self._signatures_per_track = signatures_per_track
        self._entries: dict[int, _Entry] = {}  # unseen for longest first
        # Signatures live on from frame to frame: of the terms only those of a new one must be computed.
        self._terms = lru_cache(maxsize=16384)(lambda first, second: signature_distance(first, second, 1.0))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, track_id: int) -> bool:
        return track_id in self._entries

    def add(self, tracked: TrackedDetection, signature: ThermalSignature, stamp_ns: int) -> None:
        """Remember how a track looks in the frame of this stamp."""
        entry = self._entries.pop(tracked.track_id, None)
        signatures = entry.signatures if entry else deque(maxlen=self._signatures_per_track)
        signatures.append(signature)
        self._entries[tracked.track_id] = _Entry(signatures, tracked.detection, tracked.length, stamp_ns)

    def expire(self, now_ns: int) -> None:
        """Drop tracks that are too old by max_age_s, and the oldest beyond max_tracks."""
        horizon_ns = now_ns - int(self.max_age_s * 1e9)
        for track_id in [t for t, entry in self._entries.items() if entry.stamp_ns < horizon_ns]:
            del self._entries[track_id]
        while len(self._entries) > self.max_tracks:
            del self._entries[next(iter(self._entries))]

    def clear(self) -> None:
        """Forget all tracks."""
        self._entries.clear()
        self._terms.cache_clear()

    def rank(self, probe: Probe, track_ids: Collection[int] | None = None) -> tuple[Match, ...]:
        """Tracks of the probe's class by rising distance; equal distances by track number.

        track_ids: rank these alone, e.g. those of the newest frame; unknown ones are passed over.
        Distance: for each of the K probe signatures the most alike of the track's, and the mean over the K.
        On HIT-UAV (5 signatures a track, K up to 3, 4 draws) the true person comes first in 79 % by this
        rule, 80 % by the smallest of all pairs, 62 % by their mean and 60 % by the newest signature alone;
        cars 88, 85, 91, 65 %.
        Raises SignatureError when probe and tracks are of different units.
        """
        chosen = self._entries if track_ids is None else [t for t in track_ids if t in self._entries]
        ranked = sorted((self._distance(probe, self._entries[track_id]), track_id) for track_id in chosen
                        if probe.class_name in ("", self._entries[track_id].detection.class_name))
        return tuple(
            Match(rank, track_id, entry.length, entry.detection, entry.stamp_ns, SignatureDistance(*distance))
            for rank, (distance, track_id) in enumerate(ranked, 1) for entry in (self._entries[track_id],))

    def _distance(self, probe: Probe, entry: _Entry) -> tuple[float, float, float]:
        nearest = [min(self._weighted(wanted, seen) for seen in entry.signatures)
                   for wanted in probe.signatures]
        total, histogram, mser = np.mean(nearest, axis=0)
        return float(total), float(histogram), float(mser)

    def _weighted(self, wanted: ThermalSignature, seen: ThermalSignature) -> tuple[float, float, float]:
        terms = self._terms(wanted, seen)
        return (self.beta_h * terms.histogram + (1.0 - self.beta_h) * terms.mser, terms.histogram, terms.mser)
