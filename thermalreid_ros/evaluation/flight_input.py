"""The recording of a flight as what localization is given, in the order in which a vehicle would give it, without ROS.

Topics as in docs/world.md, pictures compressed or not. Places and axes are those of the map's grid: attitude and
odometry, which the sensors give in true east and north, are turned by the grid's convergence.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from thermalreid_ros.camera.geometry import BODY_FROM_OPTICAL, Intrinsics, rotation_of
from thermalreid_ros.camera.pixels import picture_of
from thermalreid_ros.camera.thermal import FrameError, ThermalFrame, UnitsError, make_frame
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.recording import read_units
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.ros.bag import Bag, BagMessage

FRAMES, CAMERA, ATTITUDE, ODOMETRY = "/thermal/image_raw", "/thermal/camera_info", "/imu/data", "/odom"
PRIOR, ALTITUDE, TRUE_FIX, TRUE_POSE = "/prior/fix", "/altitude", "/truth/fix", "/truth/pose"
TRUE_LABELS, TRUE_OBJECTS = "/truth/semantics", "/truth/objects"
#: A frame is given that long after its capture, about when its labelling would be there: by then the other sensors have
#: spoken of times before and after it.
FRAME_DELAY_NS = 100_000_000
ATTITUDE_PERIOD_NS = 20_000_000  # attitude is read no more often


class FlightInputError(ThermalReidError):
    """A recording that is no flight over this map; the message names it, the fault and the remedy."""


@dataclass(frozen=True, eq=False)
class FrameEvent:
    """frame: None where labels are asked for. labels: uint8 (h, w), the recording's truth, NO_DATA for none."""

    stamp_ns: int
    frame: ThermalFrame | None
    labels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class AttitudeEvent:
    """rotation: float64 (3, 3), optical axes to axes of the grid, as measured."""

    stamp_ns: int
    rotation: np.ndarray


@dataclass(frozen=True, eq=False)
class OdometryEvent:
    """position_m: float64 (3,), from a place that is not known, along the axes of the grid."""

    stamp_ns: int
    position_m: np.ndarray


@dataclass(frozen=True)
class AltitudeEvent:
    stamp_ns: int
    height_m: float


@dataclass(frozen=True)
class PriorEvent:
    stamp_ns: int
    x: float
    y: float
    sigma_m: float


Event = FrameEvent | AttitudeEvent | OdometryEvent | AltitudeEvent | PriorEvent


class Flight:
    """A recorded flight over a map; to be closed.

    stamps_ns: int64 (F,), of the frames of which the truth is known. truth_m: float64 (F, 2), the camera's place then.
    truth_poses: {stamp: (z above the world's zero, rotation as Pose.rotation)}. convergence_rad: of the grid there.
    frames_without_truth: that events left out so far. damage: as Bag has it.
    prior_error_m: replaces the recorded prior by the truth with an error that is constant for the flight, of that
    standard deviation on each axis, drawn from seed and the recording's own name, map and seed.
    Raises ThermalReidError that names the recording; so do those raised within `with`.
    """

    def __init__(self, path: str | Path, semantic_map: SemanticMap, *, prior_error_m: float | None = None,
                 seed: int = 0):
        self._map, self._bag = semantic_map, Bag(path)
        try:
            self._read_truth(prior_error_m, seed)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def _read_truth(self, prior_error_m: float | None, seed: int) -> None:
        bag = self._bag
        self.name = bag.path.parent.name if bag.path.name == "bag" else bag.path.stem
        self._frames = self._picture_topic(FRAMES)
        needed = (CAMERA, ATTITUDE, ODOMETRY, PRIOR, ALTITUDE, TRUE_FIX)
        if missing := [topic for topic in needed if topic not in bag.topics]:
            raise FlightInputError(f"{bag.damage or bag.path}: no {', '.join(missing)}: not the recording of a flight; "
                                   "make one with thermalreid world fly")
        if silent := [topic for topic in (self._frames, *needed) if self._first(topic) is None]:
            raise FlightInputError(f"{bag.damage or bag.path}: no message on {', '.join(silent)}; record the flight "
                                   "again")
        self.custom, self.units = bag.custom, read_units(bag) or "centikelvin"
        info = bag.decode(self._first(CAMERA))
        self.intrinsics = Intrinsics.from_k(info.width, info.height, info.k)
        fixes = [(stamp_of(fix), fix.latitude, fix.longitude) for fix in map(bag.decode, bag.messages([TRUE_FIX]))]
        stamps, latitude, longitude = (np.array(column) for column in zip(*fixes))
        self.stamps_ns = stamps.astype(np.int64)
        self.truth_m = np.column_stack(self._map.grid.from_geographic(latitude, longitude))
        if not self._map.holds_any(self.truth_m):
            raise FlightInputError(f"{bag.path}: was flown {self._miss_km():.0f} km off {self._map.path}; give the map "
                                   f"of that place ({self.custom.get('map', 'its name is not recorded')})")
        self.convergence_rad = self._map.grid.convergence_rad(*self.truth_m[0])
        self.truth_poses = {stamp_of(message): (message.pose.position.z, rotation_of(_xyzw(message.pose.orientation)))
                            for message in map(bag.decode, bag.messages([TRUE_POSE]))}
        self.frames_without_truth = 0
        self._prior = None
        if prior_error_m is not None:
            name = crc32(json.dumps([self.name, self.custom.get("map", ""), self.custom.get("seed", "")]).encode())
            rng = np.random.default_rng(np.random.SeedSequence([seed, name, 0xF1]))
            self._prior = rng.normal(0.0, 1.0, 2) * prior_error_m, float(prior_error_m)

    def close(self) -> None:
        self._bag.close()

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, ThermalReidError) and str(self._bag.path) not in str(error):
            raise FlightInputError(f"{self._bag.path}: {error}") from None

    @property
    def damage(self) -> str | None:
        return self._bag.damage

    @property
    def seconds(self) -> np.ndarray:
        """Of stamps_ns, since the first."""
        return (self.stamps_ns - self.stamps_ns[0]) / 1e9

    def place(self, stamp_ns: int) -> np.ndarray:
        """Where the camera truly was, float64 (2,)."""
        return np.array([np.interp(float(stamp_ns - self.stamps_ns[0]), (self.stamps_ns - self.stamps_ns[0]), axis)
                         for axis in self.truth_m.T])

    def ground_m(self) -> float:
        """How high the ground is above the world's zero: the median of where objects stand, 0 where none is shown."""
        arrays = map(self._bag.decode, self._bag.messages([TRUE_OBJECTS]))
        feet = [item.z - 0.5 * item.height for array in arrays for item in array.objects]
        return float(np.median(feet)) if feet else 0.0

    def on_map(self, true: np.ndarray) -> bool:
        west, south, east, north = self._map.bounds
        return bool(west <= true[0] < east and south <= true[1] < north)

    def events(self, *, labels: bool = False) -> Iterator[Event]:
        """All that the vehicle senses, without frames whose true place or, where others' is known, pose is not, as the
        last ones of a recording that was cut. labels: frames come as their true labelling, not as pictures."""
        pictures = self._picture_topic(TRUE_LABELS) if labels else self._frames
        waiting: deque[FrameEvent] = deque()
        attitude_ns = 0
        for message in self._bag.messages([pictures, ATTITUDE, ODOMETRY, PRIOR, ALTITUDE]):
            while waiting and message.stamp_ns > waiting[0].stamp_ns + FRAME_DELAY_NS:
                yield waiting.popleft()
            if message.topic == ATTITUDE:
                if message.stamp_ns - attitude_ns < ATTITUDE_PERIOD_NS:
                    continue
                attitude_ns = message.stamp_ns
            content = self._bag.decode(message)
            if message.topic == pictures:
                stamp_ns = stamp_of(content)
                placed = self.stamps_ns[0] <= stamp_ns <= self.stamps_ns[-1]
                if not placed or self.truth_poses and stamp_ns not in self.truth_poses:
                    self.frames_without_truth += 1
                    continue
                waiting.append(self._frame(content, labels))
            else:
                yield self._sensed(message.topic, content)
        yield from waiting

    def frames(self, from_ns: int = 0) -> Iterator[ThermalFrame]:
        """The camera's frames recorded from a time on, without their truth."""
        for message in self._bag.messages([self._frames], start_ns=from_ns):
            yield self._frame(self._bag.decode(message), labels=False).frame

    def pictures(self, from_ns: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(stamp, white-hot grey, uint8 (H, W)) of the frames recorded from a time on."""
        return ((frame.stamp_ns, frame.gray8()) for frame in self.frames(from_ns))

    def _sensed(self, topic: str, content: Any) -> Event:
        stamp_ns = stamp_of(content)
        if topic == ATTITUDE:
            return AttitudeEvent(stamp_ns, self._to_grid @ rotation_of(_xyzw(content.orientation)) @ BODY_FROM_OPTICAL)
        if topic == ODOMETRY:
            place = content.pose.pose.position
            return OdometryEvent(stamp_ns, self._to_grid @ (place.x, place.y, place.z))
        if topic == ALTITUDE:
            return AltitudeEvent(stamp_ns, float(content.range))
        if self._prior is not None:
            error_m, sigma_m = self._prior
            return PriorEvent(stamp_ns, *(float(v) for v in self.place(stamp_ns) + error_m), sigma_m)
        x, y = self._map.grid.from_geographic(content.latitude, content.longitude)
        variance = np.asarray(content.position_covariance, np.float64)
        return PriorEvent(stamp_ns, float(x), float(y), float(np.sqrt(0.5 * (variance[0] + variance[4]))))

    @property
    def _to_grid(self) -> np.ndarray:
        c, s = np.cos(self.convergence_rad), np.sin(self.convergence_rad)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def _frame(self, content: Any, labels: bool) -> FrameEvent:
        stamp_ns = stamp_of(content)
        try:
            pixels, encoding = picture_of(content)
            if labels:
                return FrameEvent(stamp_ns, None, np.ascontiguousarray(pixels))
            return FrameEvent(stamp_ns, make_frame(pixels, encoding, self.units, stamp_ns, content.header.frame_id))
        except FrameError as error:
            if isinstance(error, UnitsError) and "units" not in self.custom:
                raise FlightInputError(f"{self._bag.damage or f'{self._bag.path}: no units in metadata.yaml'}: its "
                                       f"frames cannot be in {self.units} ({error}); give the folder that holds the "
                                       "metadata.yaml recorded with it") from None
            raise FlightInputError(f"{self._bag.path}: the frame of {stamp_ns} ns: {error}") from None

    def _picture_topic(self, topic: str) -> str:
        found = next((name for name in (topic, topic + "/compressed") if name in self._bag.topics), None)
        if found is None:
            raise FlightInputError(f"{self._bag.path}: holds no {topic}; its topics are "
                                   f"{', '.join(sorted(self._bag.topics))}")
        return found

    def _first(self, topic: str) -> BagMessage | None:
        return next(self._bag.messages([topic]), None)

    def _miss_km(self) -> float:
        low, high = np.array(self._map.bounds[:2]), np.array(self._map.bounds[2:])
        return float(np.linalg.norm(self.truth_m[0] - np.clip(self.truth_m[0], low, high))) / 1000.0


def damage_of(flights: Iterable[Any]) -> str | None:
    """What is damaged in the recordings of all of them, by their own `damage`; None where all are whole."""
    return "; ".join(flight.damage for flight in flights if flight.damage) or None


def stamp_of(message: Any) -> int:
    """The capture time in a message's header, ns."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def _xyzw(quaternion: Any) -> tuple[float, float, float, float]:
    return quaternion.x, quaternion.y, quaternion.z, quaternion.w
