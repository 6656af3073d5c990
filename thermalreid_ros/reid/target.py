"""Where on the ground a detected object stands, and how large it is: its box through the pose of the camera.

Conventions are those of camera.geometry and localization: places are metres on the grid of a map (x east, y north),
heights are above the ground, which is taken to be a plane, errors of attitude are small turns about the grid's axes.

**Which point of a box.** Seen from far away, what is symmetric about its own middle (a box, a cylinder, a rider with a
bicycle nearly) shows symmetrically about the picture of that middle; so the middle of the box around its picture *is*
the picture of its middle, which is half the object's height above the ground, whatever way it is turned and from
whatever side it is seen. The place of the object is where the ray through the box's middle comes to that height. The
bottom edge is the foot only for a level view: seen from above it is a side of the object.

**Errors.** Of one sight, those of the box are the sight's own. Those of the pose (position, height, attitude), of the
object's height, of the ground's and of the detector's habits are the same or nearly in all sights of a track: looking
longer does not average them out. TargetTrack keeps the two kinds apart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid
from thermalreid_ros.detection.types import CLASS_HEIGHTS_M, CLASS_NAMES, EDGE_PX, LEAST_SLOPE, Detection, drawn_side, \
    tight_side
from thermalreid_ros.errors import ThermalReidError

#: What the ground at the object differs in height from that below the camera, per metre between them.
RELIEF_SHARE = 0.01
#: Error of the middle of a detector's box along each axis: of every sight anew, and the same in all of a track; pixels
#: and shares of the side of the box.
BOX_OWN_PX, BOX_OWN_SHARE = 1.0, 0.04
BOX_HABIT_PX, BOX_HABIT_SHARE = 0.7, 0.03
#: Where lengths are compared, what the shipped detectors really draw is taken off, a little more than
#: detection.types.tight_side: sides are box / FREED_SLACK - FREED_PX, and the diagonal is wrong by BOX_SIZE_PX. By the
#: true sides of 1 900 boxes of cars in three rendered flights over towns that nothing is tested on.
FREED_SLACK, FREED_PX, BOX_SIZE_PX = 1.08, 3.0, 3.0
#: After so many sights of a track, one is taken in so many seconds: half of those of ten frames a second.
FIRST_SIGHTS, SIGHT_PERIOD_S = 5, 0.15
#: Share of the pose's standard deviations that is a sight's own: what positions jitter by from frame to frame.
POSE_OWN_SHARE = 0.1


class TargetError(ThermalReidError):
    """A box or a pose that gives no place on the ground; the message says why."""


@dataclass(frozen=True)
class Build:
    """How objects of a class are built and move: mean height and its standard deviation; standard deviations of the
    speed of one newly seen, and of its acceleration (white, per root of a second)."""

    height_m: float
    height_sigma_m: float
    speed_m_s: float
    acceleration: float


#: From the virtual city's population.
BUILDS = {name: Build(height_m, *others) for name, height_m, others in zip(
    CLASS_NAMES, CLASS_HEIGHTS_M, ((0.2, 6.0, 1.0), (0.2, 1.2, 0.4), (0.35, 3.0, 0.7), (0.18, 1.5, 0.8)))}


@dataclass(frozen=True, eq=False)
class CameraPose:
    """Where the camera was at a frame's capture.

    position_m: float64 (2,). height_m: above the ground. rotation: float64 (3, 3), optical axes to axes of the grid.
    covariance: float64 (6, 6) of x, y, height and turns about x, y, z of the grid, metres and radians.
    Raises TargetError where these are no pose.
    """

    stamp_ns: int
    position_m: np.ndarray
    height_m: float
    rotation: np.ndarray
    covariance: np.ndarray

    @cached_property
    def root(self) -> np.ndarray:
        """float64 (6, 6), what unit errors make of the pose: covariance = root @ root.T."""
        return _root(self.covariance)

    def __post_init__(self) -> None:
        numbers = np.concatenate([np.ravel(part) for part in (self.position_m, self.height_m, self.rotation,
                                                              self.covariance)])
        if numbers.shape != (48,) or not np.isfinite(numbers).all():
            raise TargetError("the camera's pose holds numbers that are not finite")
        if not self.height_m > 0.0:
            raise TargetError(f"a camera {self.height_m:g} m above the ground sees none of it; check the altitude")
        sigmas = np.diag(self.covariance)
        if sigmas.min() < 0.0 or np.linalg.eigvalsh(0.5 * (self.covariance + self.covariance.T))[0] < \
                -1e-6 * max(float(sigmas.max()), 1e-12):
            raise TargetError("the covariance of the camera's pose is none")


@dataclass(frozen=True, eq=False)
class Sight:
    """An object on the ground as one frame shows it.

    position_m: float64 (2,). own_m2: float64 (2, 2), covariance of the errors of this sight alone. common: float64
    (2, 9), metres by which unit errors that all sights of a track share move it: six of the pose, one of heights, two
    of the box. view: float64 (4,), as fusion.view_features takes it, NaN where the frame cuts the box.
    """

    position_m: np.ndarray
    own_m2: np.ndarray
    common: np.ndarray
    view: np.ndarray

    @property
    def covariance_m2(self) -> np.ndarray:
        """float64 (2, 2), of all errors."""
        return self.own_m2 + self.common @ self.common.T


def sight(intrinsics: Intrinsics, pose: CameraPose, detection: Detection) -> Sight:
    """The object of a detection on the ground. Raises TargetError where the view meets no ground at it, or the box is
    not finite."""
    # Plain numbers where they do: a frame may hold forty objects, and small arrays cost more than what is done in them.
    box = (detection.x_min, detection.y_min, detection.x_max, detection.y_max)
    if not all(map(math.isfinite, box)):
        raise TargetError("the box is not finite")
    build, rotation = BUILDS[detection.class_name], np.asarray(pose.rotation, np.float64)
    ray = rotation @ _optical(intrinsics, *detection.centre)
    ray_x, ray_y, ray_z = ray.tolist()
    level, length = math.hypot(ray_x, ray_y), math.hypot(ray_x, ray_y, ray_z)
    if -ray_z < LEAST_SLOPE * length:
        raise TargetError("it is seen at or near the horizon, where the ground is not to be told")
    drop_m = pose.height_m - 0.5 * build.height_m
    if drop_m <= 0.0:
        raise TargetError("the camera is no higher than the object")
    depth_m = drop_m / -ray_z  # along the optical axis
    shift = np.zeros((2, 6))  # metres for unit errors of x, y, height and of turns about x, y, z
    shift[0, 0] = shift[1, 1] = 1.0
    shift[:, 2] = ray_x / -ray_z, ray_y / -ray_z  # metres along the ground per metre of height
    by_ray = depth_m * shift[:, :3]
    shift[:, 3:] = by_ray @ -_cross(ray)
    common = np.empty((2, 9))
    common[:, :6] = shift @ pose.root
    common[:, 6] = math.hypot(0.5 * build.height_sigma_m, RELIEF_SHARE * drop_m * level / -ray_z) * shift[:, 2]
    by_pixel = by_ray @ rotation[:, :2] / (intrinsics.fx, intrinsics.fy)
    width, height = detection.width, detection.height
    own_px = [math.hypot(BOX_OWN_PX, BOX_OWN_SHARE * side) for side in (width, height)]
    common[:, 7:] = by_pixel * [math.hypot(BOX_HABIT_PX, BOX_HABIT_SHARE * side) for side in (width, height)]
    # Beside the optical axis a pixel shows less: by cos^2 of the angle outwards, by cos across; by cos^1.5 on average.
    pixel_m = depth_m / math.sqrt(length) / intrinsics.fx
    view = (tight_side(width) * pixel_m, tight_side(height) * pixel_m * intrinsics.fx / intrinsics.fy, pixel_m,
            math.atan2(-ray_z, level))
    cut = (min(box[0], intrinsics.width - box[2]) < EDGE_PX, min(box[1], intrinsics.height - box[3]) < EDGE_PX)
    if any(cut):  # what lies beyond the edge is not known: up to as much as is seen, at least of a usual object
        longest = max(width, height)
        own_px = [math.hypot(px, 0.5 * longest) if out else px for px, out in zip(own_px, cut)]
        view = (math.nan,) * 4
    own, by_pose = by_pixel * own_px, POSE_OWN_SHARE * common[:, :6]
    return Sight(pose.position_m + drop_m * shift[:, 2], own @ own.T + by_pose @ by_pose.T, common, np.array(view))


def freed(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(views (n, 4) of tracks as tight boxes would have them, standard deviation (n,) of ln of their size: all views of
    a track err together)."""
    pixel = views[:, 2:3]
    sides = np.maximum(drawn_side(views[:, :2] / pixel) / FREED_SLACK - FREED_PX, 1.0) * pixel
    return np.concatenate([sides, views[:, 2:]], axis=1), BOX_SIZE_PX * views[:, 2] / np.hypot(*sides.T)


@dataclass(frozen=True, eq=False)
class Target:
    """Where an object is at stamp_ns. position_m: float64 (2,), on the grid. covariance_m2: float64 (2, 2), true east
    and north. sights: frames it was taken from. size_m: the longest side of its boxes at their distance."""

    stamp_ns: int
    position_m: np.ndarray
    latitude_deg: float
    longitude_deg: float
    covariance_m2: np.ndarray
    sights: int
    size_m: float

    @property
    def reach_m(self) -> float:
        """Half the longest axis of the ellipse that holds the object with 95 %."""
        return float(np.sqrt(5.991 * np.linalg.eigvalsh(self.covariance_m2)[-1]))


class TargetTrack:
    """Position and velocity of one object over the sights of its track.

    A Kalman filter that considers the common errors without estimating them (Schmidt 1966): it carries how far they
    have gone into the state (`_leaked`), so that many sights shrink the part that is their own, and never the part
    they share. The object moves at a nearly constant velocity, with the class's white acceleration.
    """

    GATE = 18.4  # squared Mahalanobis distance of a sight, 0.01 %: beyond, the track has taken up another object
    VIEWS = 15  # of the last sights that are kept

    def __init__(self, class_name: str, stamp_ns: int, first: Sight):
        self._build = BUILDS[class_name]
        self._begin(stamp_ns, first)

    def _begin(self, stamp_ns: int, first: Sight) -> None:
        self.stamp_ns, self.sights, self._missed = stamp_ns, 1, 0
        self._views: deque[np.ndarray] = deque(maxlen=self.VIEWS)
        self._view(first)
        self._state = np.concatenate([first.position_m, np.zeros(2)])
        self._covariance = np.zeros((4, 4))
        self._covariance[:2, :2] = first.covariance_m2
        self._covariance[2:, 2:] = self._build.speed_m_s**2 * np.eye(2)
        self._leaked = np.vstack([first.common, np.zeros_like(first.common)])

    def _view(self, seen: Sight) -> None:
        """views: float64 (n, 4), those of the last sights that show the object whole. size_m: the longest side of its
        boxes, at their distance, on the average; NaN where it was never seen whole."""
        self._views.append(seen.view)
        views = np.stack(self._views)
        self.views = views[np.isfinite(views[:, 0])]
        self.size_m = float(np.median(self.views[:, :2].max(axis=1))) if len(self.views) else math.nan

    def add(self, stamp_ns: int, seen: Sight) -> None:
        """One more sight, later than the last. One that is far off is left out; the second in a row begins anew."""
        state, covariance, leaked = self._predicted(stamp_ns)
        offset = seen.position_m - state[:2]
        # Of e = estimate - truth, a unit common error u and the sight's own v: the offset is u's part + v - e.
        shared, seen_m2 = leaked @ seen.common.T, seen.covariance_m2
        with_offset = covariance[:, :2] - shared
        spread = covariance[:2, :2] + seen_m2 - shared[:2] - shared[:2].T
        (a, b), (_, d) = spread.tolist()
        inverse = np.array([[d, -b], [-b, a]]) / (a * d - b * b)
        if float(offset @ inverse @ offset) > self.GATE:
            self._missed += 1
            if self._missed > 1:
                self._begin(stamp_ns, seen)
            return
        gain = with_offset @ inverse
        keep = np.eye(4)
        keep[:, :2] -= gain
        kept, taken = keep @ leaked, gain @ seen.common
        mixed = kept @ taken.T
        self._covariance = keep @ covariance @ keep.T + gain @ seen_m2 @ gain.T + mixed + mixed.T
        self._state, self._leaked = state + gain @ offset, kept + taken
        self._view(seen)
        self.stamp_ns, self.sights, self._missed = stamp_ns, self.sights + 1, 0

    def at(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """(position (2,), covariance (2, 2)) on the grid at a time not before the last sight."""
        state, covariance, _ = self._predicted(stamp_ns)
        return state[:2], covariance[:2, :2]

    def _predicted(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seconds = max(stamp_ns - self.stamp_ns, 0) / 1e9
        state, covariance, leaked = self._state.copy(), self._covariance.copy(), self._leaked.copy()
        state[:2] += seconds * state[2:]
        covariance[:2] += seconds * covariance[2:]
        covariance[:, :2] += seconds * covariance[:, 2:]
        leaked[:2] += seconds * leaked[2:]
        white = self._build.acceleration**2
        for axis in (0, 1):
            covariance[axis, axis] += white * seconds**3 / 3
            covariance[axis, axis + 2] += white * seconds**2 / 2
            covariance[axis + 2, axis] += white * seconds**2 / 2
            covariance[axis + 2, axis + 2] += white * seconds
        return state, covariance, leaked


class Targets:
    """The places of all tracks of a camera."""

    def __init__(self) -> None:
        self._tracks: dict[int, TargetTrack] = {}

    def add(self, intrinsics: Intrinsics, pose: CameraPose, track_id: int, detection: Detection) -> None:
        """What the frame of this pose shows of a track; frames must come in order. After the first sights those are
        left out that follow the last so soon that they show the same. Raises TargetError as `sight`."""
        track = self._tracks.get(track_id)
        if track is None:
            first = sight(intrinsics, pose, detection)
            self._tracks[track_id] = TargetTrack(detection.class_name, pose.stamp_ns, first)
        elif pose.stamp_ns - track.stamp_ns > (0.0 if track.sights < FIRST_SIGHTS else SIGHT_PERIOD_S * 1e9):
            track.add(pose.stamp_ns, sight(intrinsics, pose, detection))

    def get(self, track_id: int) -> TargetTrack | None:
        return self._tracks.get(track_id)

    def keep(self, track_ids: Collection[int]) -> None:
        """Forget all other tracks."""
        for track_id in self._tracks.keys() - set(track_ids):
            del self._tracks[track_id]

    def target(self, track_id: int, stamp_ns: int, grid: LocalGrid) -> Target | None:
        """Where a track's object is at a time, None where it was never seen from a known place."""
        track = self._tracks.get(track_id)
        if track is None:
            return None
        position, covariance = track.at(stamp_ns)
        x, y = map(float, position)
        latitude, longitude = map(float, grid.to_geographic(x, y))
        turn = grid.to_true(x, y)
        return Target(stamp_ns, position, latitude, longitude, turn @ covariance @ turn.T, track.sights, track.size_m)


def _optical(intrinsics: Intrinsics, u: float, v: float) -> np.ndarray:
    """The ray of a pixel, of length 1 along the optical axis."""
    return np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, 1.0])


def _cross(vector: np.ndarray) -> np.ndarray:
    """The matrix of the product vector x."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _root(covariance: np.ndarray) -> np.ndarray:
    """A square root that changes little where the covariance does: that of the correlations, scaled. A unit error then
    means the same in one frame as in the next."""
    sigmas = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale = np.where(sigmas > 0.0, sigmas, 1.0)
    values, axes = np.linalg.eigh(0.5 * (covariance + covariance.T) / np.outer(scale, scale))
    return sigmas[:, None] * (axes * np.sqrt(np.maximum(values, 0.0)) @ axes.T)
