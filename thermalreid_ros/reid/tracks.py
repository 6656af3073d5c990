"""Tracks: an object seen again in the next frames of a moving camera keeps its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.reid.motion import STILL, CameraMotion, CameraMotionEstimator

_MIN_OBJECT_PX = 8.0


@dataclass(frozen=True)
class TrackerConfig:
    """Lengths in units of the object's size, sqrt(width * height); times in frames, so that 1 Hz and 30 Hz
    recordings are tracked alike: a frame is the median interval of the last stamps.

    high_score: detections from here on may begin a track; weaker ones only carry one on (ByteTrack).
    max_lost_frames: a track not seen for longer ends. position_sigma: of a detection's centre. speed_sigma:
    of a new track, per frame. acceleration_sigma: per frame². gate: squared Mahalanobis distance (2 degrees
    of freedom, 1 %). max_size_ratio: of the sides' geometric means, between a track and its next detection.
    max_gap_s: after a longer silence all tracks end.
    """

    high_score: float = 0.4
    max_lost_frames: int = 3
    position_sigma: float = 0.3
    speed_sigma: float = 0.4
    acceleration_sigma: float = 0.3
    gate: float = 9.21
    max_size_ratio: float = 2.5
    max_gap_s: float = 5.0


@dataclass(frozen=True)
class TrackedDetection:
    """A detection with the number of its track. length: frames that showed it, this one included."""

    track_id: int
    length: int
    detection: Detection


@dataclass(eq=False)
class _Track:
    track_id: int
    class_id: int
    state: np.ndarray  # x, y of the centre in pixels, and their change per frame
    covariance: np.ndarray
    size_px: float
    length: int = 1
    lost_frames: float = 0.0


@dataclass
class TrackerStatistics:
    """Counts since the tracker was made. last_reset: why all tracks last ended, empty when they never did."""

    frames: int = 0
    tracks: int = 0
    cuts: int = 0
    resets: int = 0
    last_reset: str = ""


@dataclass
class _Clock:
    """Turns stamps into frames by the median of the last intervals."""

    stamp_ns: int | None = None
    intervals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=15))

    def advance(self, stamp_ns: int) -> float:
        interval = stamp_ns - self.stamp_ns
        self.stamp_ns = stamp_ns
        self.intervals_ns.append(interval)
        return interval / float(np.median(self.intervals_ns))


class Tracker:
    """Constant-velocity Kalman filters on box centres, moved along with the camera, matched class by class.

    Track numbers grow from 1 and are never used again, also not after a reset.
    """

    def __init__(self, config: TrackerConfig = TrackerConfig()):
        self.config = config
        self.statistics = TrackerStatistics()
        self._tracks: list[_Track] = []
        self._motion = CameraMotionEstimator()
        self._clock = _Clock()
        self._shape: tuple[int, ...] | None = None  # of the frames

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the last frame; None before the first and after a reset."""
        return self._clock.stamp_ns

    def reset(self, reason: str) -> None:
        """End all tracks and forget the last frame."""
        self.statistics.resets += 1
        self.statistics.last_reset = reason
        self._tracks.clear()
        self._motion.reset()
        self._clock, self._shape = _Clock(), None

    def update(self, detections: Sequence[Detection], stamp_ns: int,
               gray8: np.ndarray | None = None) -> tuple[TrackedDetection, ...]:
        """Number the detections of one frame, in their order; weak ones that carry no track on are left out.

        stamp_ns: capture time; a stamp not later than the last one (a recording that starts anew) and a gap
        of more than max_gap_s reset the tracker, as frames of another size do. gray8: (H, W) uint8, the frame;
        without it the camera is taken to stand still. Boxes must be finite.
        """
        before_ns = self._clock.stamp_ns
        if before_ns is not None and stamp_ns <= before_ns:
            self.reset(f"time went back by {(before_ns - stamp_ns) * 1e-9:.3f} s")
        elif before_ns is not None and stamp_ns - before_ns > self.config.max_gap_s * 1e9:
            self.reset(f"no frame for {(stamp_ns - before_ns) * 1e-9:.1f} s")
        elif gray8 is not None and self._shape not in (None, gray8.shape):
            self.reset(f"frames of {gray8.shape[1]}x{gray8.shape[0]} px after {self._shape[1]}x{self._shape[0]}")
        self._shape = self._shape if gray8 is None else gray8.shape
        self.statistics.frames += 1
        motion = STILL if gray8 is None else self._camera_motion(gray8, detections)
        if self._clock.stamp_ns is None:
            self._clock.stamp_ns = stamp_ns
        else:
            self._predict(self._clock.advance(stamp_ns), motion.matrix)
        if motion.is_cut:
            self.statistics.cuts += 1
            self._tracks.clear()
        return self._associate(detections)

    def _camera_motion(self, gray8: np.ndarray, detections: Sequence[Detection]) -> CameraMotion:
        """Features cost more than all else here: where no track is to be moved and none can begin, none are sought."""
        if self._tracks:
            return self._motion.update(gray8)
        if any(detection.score >= self.config.high_score for detection in detections):
            self._motion.begin(gray8)
        else:
            self._motion.reset()
        return STILL

    def _predict(self, frames: float, matrix: np.ndarray) -> None:
        rotation = np.kron(np.eye(2), matrix[:, :2])  # of position and of speed
        transition = rotation @ np.block([[np.eye(2), frames * np.eye(2)], [np.zeros((2, 2)), np.eye(2)]])
        # A white acceleration, constant over the interval.
        push = np.vstack((0.5 * frames * frames * np.eye(2), frames * np.eye(2)))
        push = push @ push.T
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        for track in self._tracks:
            track.size_px *= scale
            track.state = transition @ track.state
            track.state[:2] += matrix[:, 2]
            noise = push * (self.config.acceleration_sigma * max(track.size_px, _MIN_OBJECT_PX)) ** 2
            track.covariance = transition @ track.covariance @ transition.T + noise
            track.lost_frames += frames

    def _associate(self, detections: Sequence[Detection]) -> tuple[TrackedDetection, ...]:
        owner: dict[int, _Track] = {}
        # Frames that did not come count like those that did not show it. The half forgives jitter of the stamps.
        longest = self.config.max_lost_frames + 0.5
        self._tracks = [track for track in self._tracks if track.lost_frames <= longest + 1.0]
        high = [i for i, detection in enumerate(detections) if detection.score >= self.config.high_score]
        low = [i for i, detection in enumerate(detections) if detection.score < self.config.high_score]
        free = self._match(detections, high, self._tracks, owner)
        self._match(detections, low, free, owner)
        for index in high:
            if index not in owner:
                owner[index] = self._begin(detections[index])
        self._tracks = [track for track in self._tracks if track.lost_frames <= longest]
        return tuple(TrackedDetection(owner[i].track_id, owner[i].length, detection)
                     for i, detection in enumerate(detections) if i in owner)

    def _match(self, detections: Sequence[Detection], indices: list[int], tracks: list[_Track],
               owner: dict[int, _Track]) -> list[_Track]:
        """Give detections to tracks, surest first; returns the tracks that got none."""
        if not indices or not tracks:
            return tracks
        measured = np.array([_measurement(detections[i]) for i in indices])
        predicted = np.array([(*track.state[:2], track.size_px) for track in tracks])
        noise = (self.config.position_sigma * np.maximum(predicted[:, 2], _MIN_OBJECT_PX)) ** 2
        covariance = noise[:, None, None] * np.eye(2) + [track.covariance[:2, :2] for track in tracks]
        offset = measured[None, :, :2] - predicted[:, None, :2]
        distance = np.einsum("tdi,tij,tdj->td", offset, np.linalg.inv(covariance), offset)
        ratio = np.abs(np.log(measured[None, :, 2] / predicted[:, None, 2]))
        ratio /= np.log(self.config.max_size_ratio)
        classes = np.array([detections[i].class_id for i in indices])
        same_class = np.array([track.class_id for track in tracks])[:, None] == classes
        # The log-determinant makes the cost a likelihood: a track long lost must not win by its wide gate.
        cost = distance + np.log(np.linalg.det(covariance))[:, None] + ratio**2
        cost[~same_class | (distance > self.config.gate) | (ratio > 1.0)] = np.inf
        free = set(range(len(tracks)))
        for flat in np.argsort(cost, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(indices))
            if not np.isfinite(cost[row, column]):
                break
            if row in free and indices[column] not in owner:
                free.remove(row)
                owner[indices[column]] = tracks[row]
                self._correct(tracks[row], measured[column], noise[row])
        return [tracks[row] for row in sorted(free)]

    def _begin(self, detection: Detection) -> _Track:
        self.statistics.tracks += 1
        x, y, size = _measurement(detection)
        scale = max(size, _MIN_OBJECT_PX)
        sigmas = np.repeat((self.config.position_sigma * scale, self.config.speed_sigma * scale), 2)
        track = _Track(self.statistics.tracks, detection.class_id, np.array((x, y, 0.0, 0.0)),
                       np.diag(sigmas**2), size)
        self._tracks.append(track)
        return track

    @staticmethod
    def _correct(track: _Track, measured: np.ndarray, noise: float) -> None:
        gain = track.covariance[:, :2] @ np.linalg.inv(track.covariance[:2, :2] + noise * np.eye(2))
        track.state = track.state + gain @ (measured[:2] - track.state[:2])
        track.covariance = track.covariance - gain @ track.covariance[:2]
        track.size_px += 0.5 * (measured[2] - track.size_px)
        track.length += 1
        track.lost_frames = 0.0


def _measurement(detection: Detection) -> tuple[float, float, float]:
    """Centre x, y and size sqrt(width * height), pixels."""
    return (0.5 * (detection.x_min + detection.x_max), 0.5 * (detection.y_min + detection.y_max),
            max(1.0, (detection.width * detection.height) ** 0.5))
