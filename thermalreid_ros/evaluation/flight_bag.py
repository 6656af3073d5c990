"""A rendered flight as a rosbag2 recording, with its truth on topics of its own: docs/world.md lists them.

`/truth/pose` is of the optical axes in `map`, the grid of the map, `/imu/data` of the axes of `thermal_frame` (x along
the line of sight, y left, z up) in true east, north, up. A compact recording has pictures after gain control instead of
the camera's own, labels a quarter as wide and high, no instances, and slower IMU and odometry.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import quaternion_of
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.evaluation.pictures import save_picture
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.store import ATTRIBUTION
from thermalreid_ros.ros.bag import message_types, write_bag
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.colour_camera import ColourCameraParameters
from thermalreid_ros.world.film import Film, FilmFrame, ResumeError, WorkFolder, read_frame, read_objects, solar_time
from thermalreid_ros.world.flight import (IMU_ACCEL_M_S2, IMU_GYRO_RAD_S, IMU_TILT_RAD, IMU_YAW_RAD,
                                          altitude_readings, imu_readings, odometry_readings, prior_positions)
from thermalreid_ros.world.population import Density, Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.sensor import GainControl, ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.truth import TrueObject
from thermalreid_ros.world.views import find_view, near_by, photograph
from thermalreid_ros.world.weather import Weather

CAMERA_FRAME, OPTICAL_FRAME = "thermal_frame", "thermal_optical_frame"
MAP_FRAME, ODOM_FRAME = "map", "odom"
IMU_HZ, ODOM_HZ, PRIOR_HZ, ALTITUDE_HZ = 100.0, 20.0, 1.0, 10.0
COMPACT_IMU_HZ, COMPACT_ODOM_HZ = 20.0, 10.0
_LOSSLESS = 101  # quality of WebP


def _plain(frames, **_):
    return frames


@dataclass(frozen=True)
class Recorder:
    """How a film is recorded. target: name of the identity to be found, "" for none. agc, depth: whether to
    record the gain-controlled pictures and the depth. prior_error_m: standard deviation on each axis. compact: 0, or
    the quality, 1 to 100, of WebP pictures after gain control in place of the camera's own (see the head of this
    module)."""

    seed: int
    target: str = ""
    sensor: ThermalSensorParameters = ThermalSensorParameters()
    gain: GainControl = GainControl()
    agc: bool = False
    depth: bool = False
    prior_error_m: float = 300.0
    compact: int = 0


def record_flight(out: Path, film: Film, folder: WorkFolder, recorder: Recorder, custom: Mapping[str, str], *,
                  target_class: str | None = None, probes: int = 4, progress=_plain) -> dict[str, Any]:
    """Write the recording of a film whose frames are all there (film.render_film) and, beside it, probes/: colour
    photographs of an identity that the flight sees, taken elsewhere on another day. The folder of frames is removed.

    target_class: of that identity; None for any. progress: cli.progress.progress or like it.
    """
    seen = _sightings(film, folder.path)
    target = _choose(seen, target_class, recorder.seed)
    recorder = replace(recorder, target=target or "")
    probes_path = out.parent / "probes"
    if target:
        _photograph(film, folder.path / "probes", target, probes, custom["command"])
        made = folder.beside(probes_path.name)
        if probes_path.exists() and not made.exists():  # another flight has put its own there meanwhile
            raise ResumeError(f"{probes_path}: exists already; remove it or choose another place")
        made.touch()
        shutil.rmtree(probes_path, ignore_errors=True)
        os.replace(folder.path / "probes", probes_path)
    plan = film.trajectory.plan
    custom = {**custom, "target": recorder.target,
              "units": "agc8" if recorder.compact else "centikelvin", "attribution": ATTRIBUTION,
              "time": film.when.isoformat(), "weather": json.dumps(asdict(film.weather)),
              "flight": json.dumps(asdict(plan)), "map_frame": json.dumps(asdict(film.city.grid)),
              "sensor": json.dumps(asdict(recorder.sensor)),
              "differences": json.dumps(film.city.differences.as_dict())}
    write_flight(out, film, folder.path, recorder, custom,
                 lambda frames: progress(frames, description="recording", unit="frame"))
    shutil.rmtree(folder.path)
    return {"frames": film.count, "rate_hz": film.rate_hz, "identities": len(seen), "target": target,
            "target_frames": seen[target] if target else 0, "altitude_m": plan.altitude_m,
            "depression_deg": float(np.degrees(plan.depression_rad)), "pattern": plan.pattern,
            "size_mb": sum(file.stat().st_size for file in out.iterdir()) / 1e6}


def _sightings(film: Film, folder: Path) -> dict[str, int]:
    """In how many frames each identity is well seen, by name."""
    counts: dict[str, int] = {}
    for number in range(film.count):
        for item in read_objects(folder, number):
            counts[item.identity] = counts.get(item.identity, 0) + (not item.crowd)
    return dict(sorted(counts.items()))


def _choose(seen: Mapping[str, int], target_class: str | None, seed: int) -> str | None:
    """An identity to be found: of a class drawn from those that are seen nearly as often as any, one of the five
    that are seen most."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x7A6]))
    best: dict[str, list[str]] = {}
    for name in sorted((n for n in seen if seen[n]), key=lambda n: (-seen[n], n)):
        best.setdefault(name.rpartition("-")[0], []).append(name)
    if target_class is not None:
        best = {name: names for name, names in best.items() if name == target_class}
    if not best:
        return None
    most = max(seen[names[0]] for names in best.values())
    best = {name: names for name, names in best.items() if seen[names[0]] >= 0.5 * most}
    names = best[sorted(best)[int(rng.integers(len(best)))]]
    often = [name for name in names[:5] if seen[name] >= 0.3 * seen[names[0]]]
    return often[int(rng.integers(len(often)))]


def _photograph(film: Film, folder: Path, target: str, count: int, command: str) -> None:
    """Photographs of an identity by day, two in each of some places, and probe.json, which names it."""
    folder.mkdir(exist_ok=True)
    class_name, _, number = target.rpartition("-")
    seed, city = film.population.seed, film.city
    identity = make_identity(class_name, int(number), seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xF07]))
    day = date.fromisoformat(film.when.date().isoformat()) - timedelta(days=int(rng.integers(1, 30)))
    hour = float(rng.uniform(9.5, 15.5))
    when = solar_time(day.isoformat(), hour, city.longitude_deg)
    weather = Weather.typical(city.latitude_deg, when, int(rng.integers(2**31)))
    renderer = Renderer(city, weather)
    renderer.set_time(when)
    camera, pictures = ColourCameraParameters().varied(rng), []
    for attempt in range(6 * count):
        if len(pictures) == count:
            break
        population = Population(city, seed, Density.at_hour(hour), {class_name: [int(number)]},
                                layout=seed + (1 + (attempt // 2) << 32))
        view = find_view(renderer, population, identity, float(attempt), near_by(), rng)
        if view is None:
            continue
        picture, seen = photograph(renderer, view, camera, seed + attempt)
        name = f"view_{len(pictures) + 1}.png"
        save_picture(folder / name, picture[..., ::-1])
        pictures.append({"file": name, "box": list(seen.box), "visible_share": round(seen.visible_share, 3)})
    write_atomically(folder / "probe.json", json.dumps({
        "identity": target, "class_name": class_name, "description": identity.description, "pictures": pictures,
        "time": when.isoformat(), "command": command, "attribution": ATTRIBUTION}, indent=1) + "\n")


def write_flight(out: Path, film: Film, folder: Path, recorder: Recorder, custom: Mapping[str, str],
                 progress=lambda frames: frames) -> Path:
    """Write the recording alone. progress: wraps the iterable of frame numbers. Raises BagError where `out` exists."""
    streams = (_frames(film, folder, recorder, progress), _inertial(film, recorder), _odometry(film, recorder),
               _prior(film, recorder), _altitude(film, recorder), _poses(film))
    return write_bag(out, heapq.merge(*streams, key=lambda item: item[1]), custom, compress=True)


class _Types:
    """Messages by their short names: `_Types()("sensor_msgs", "Image")(...)`."""

    def __init__(self):
        self._types = message_types().types

    def __call__(self, package: str, name: str) -> type:
        return self._types[f"{package}/msg/{name}"]

    def header(self, stamp_ns: int, frame: str) -> Any:
        return self("std_msgs", "Header")(self("builtin_interfaces", "Time")(*divmod(stamp_ns, 1_000_000_000)), frame)

    # In single precision, as sensors have them: the digits beyond it fill half of a compressed recording.

    def vector(self, values) -> Any:
        return self("geometry_msgs", "Vector3")(*np.float32(values).tolist())

    def point(self, values) -> Any:
        return self("geometry_msgs", "Point")(*np.float32(values).tolist())

    def quaternion(self, values) -> Any:
        return self("geometry_msgs", "Quaternion")(*np.float32(values).tolist())

    def image(self, stamp_ns: int, pixels: np.ndarray, encoding: str) -> Any:
        height, width = pixels.shape
        data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
        return self("sensor_msgs", "Image")(self.header(stamp_ns, OPTICAL_FRAME), height, width, encoding, 0,
                                            width * pixels.itemsize, data)

    def compressed(self, stamp_ns: int, pixels: np.ndarray, form: str, options: tuple[int, int]) -> Any:
        """pixels: uint8 (H, W)."""
        data = cv2.imencode(f".{form}", np.ascontiguousarray(pixels), options)[1].ravel()
        return self("sensor_msgs", "CompressedImage")(self.header(stamp_ns, OPTICAL_FRAME), form, data)

    def fix(self, stamp_ns: int, frame: str, latitude_deg, longitude_deg, altitude_m, covariance) -> Any:
        kind = self("sensor_msgs", "NavSatFix")
        status = self("sensor_msgs", "NavSatStatus")(0, 0)
        return kind(self.header(stamp_ns, frame), status, float(latitude_deg), float(longitude_deg), float(altitude_m),
                    np.diag(covariance).astype(np.float64).ravel(), kind.COVARIANCE_TYPE_DIAGONAL_KNOWN)


_Stream = Iterator[tuple[str, int, Any]]


def _frames(film: Film, folder: Path, recorder: Recorder, progress) -> _Stream:
    types, k = _Types(), film.intrinsics
    sensor = ThermalSensor(recorder.sensor, k, recorder.seed)
    info = types("sensor_msgs", "CameraInfo")
    roi = types("sensor_msgs", "RegionOfInterest")(0, 0, 0, 0, False)
    p = np.hstack([k.k, np.zeros((3, 1))])
    for number in progress(range(film.count)):
        frame, time_s = read_frame(folder, number), film.time_s(number)
        stamp_ns = film.stamp_ns(time_s)
        raw = sensor.capture(frame.radiance, stamp_ns, film.trajectory.image_motion_px_s(time_s, k))
        if recorder.compact:
            yield "/thermal/image_raw/compressed", stamp_ns, types.compressed(
                stamp_ns, recorder.gain.grey(raw), "webp", (cv2.IMWRITE_WEBP_QUALITY, recorder.compact))
        else:
            yield "/thermal/image_raw", stamp_ns, types.image(stamp_ns, raw, "mono16")
        if recorder.agc:
            yield "/thermal/image_agc", stamp_ns, types.image(stamp_ns, recorder.gain.grey(raw), "mono8")
        yield "/thermal/camera_info", stamp_ns, info(
            types.header(stamp_ns, OPTICAL_FRAME), k.height, k.width, "plumb_bob", np.zeros(5), k.k.ravel(),
            np.eye(3).ravel(), p.ravel(), 0, 0, roi)
        yield from _truth(types, film, recorder, frame, stamp_ns)


def _truth(types: _Types, film: Film, recorder: Recorder, frame: FilmFrame, stamp_ns: int) -> _Stream:
    if recorder.compact:
        yield "/truth/semantics/compressed", stamp_ns, types.compressed(
            stamp_ns, frame.semantic[2::4, 2::4], "webp", (cv2.IMWRITE_WEBP_QUALITY, _LOSSLESS))
    else:
        yield "/truth/semantics", stamp_ns, types.image(stamp_ns, frame.semantic, "mono8")
        yield "/truth/instances", stamp_ns, types.image(stamp_ns, frame.instance, "mono16")
    if recorder.depth:
        yield "/truth/depth", stamp_ns, types.image(stamp_ns, frame.depth_m.astype(np.float32), "32FC1")
    kind = types("thermalreid_ros", "TruthObject")
    yield "/truth/objects", stamp_ns, types("thermalreid_ros", "TruthObjectArray")(
        types.header(stamp_ns, OPTICAL_FRAME),
        [kind(o.identity, o.class_name, o.instance, *o.box, o.pixels, o.visible_share, o.moving, o.x, o.y, o.z,
              o.yaw_rad, *o.size_m, o.phase, o.latitude_deg, o.longitude_deg) for o in frame.objects])
    for topic, objects in (("detections", [o for o in frame.objects if not o.crowd]),
                           ("ignored", [o for o in frame.objects if o.crowd]),
                           ("target", [o for o in frame.objects if o.identity == recorder.target and not o.crowd])):
        yield f"/truth/{topic}", stamp_ns, _detections(types, film, objects, stamp_ns)


def _detections(types: _Types, film: Film, objects: list[TrueObject], stamp_ns: int) -> Any:
    kind = types("thermalreid_ros", "Detection")
    return types("thermalreid_ros", "DetectionArray")(
        types.header(stamp_ns, OPTICAL_FRAME), film.intrinsics.width, film.intrinsics.height, "truth", "none", 0.0,
        [kind(CLASS_NAMES.index(o.class_name), o.class_name, 1.0, *o.box) for o in objects])


def _poses(film: Film) -> _Stream:
    types, grid = _Types(), film.city.grid
    for number in range(film.count):
        time_s = film.time_s(number)
        stamp_ns, pose = film.stamp_ns(time_s), film.trajectory.pose(time_s)
        yield "/truth/pose", stamp_ns, types("geometry_msgs", "PoseStamped")(
            types.header(stamp_ns, MAP_FRAME),
            types("geometry_msgs", "Pose")(types.point(pose.position_m), types.quaternion(pose.quaternion)))
        x, y, z = pose.position_m
        yield "/truth/fix", stamp_ns, types.fix(stamp_ns, OPTICAL_FRAME, *grid.to_geographic(x, y), z, np.zeros(3))


def _times(film: Film, rate_hz: float) -> np.ndarray:
    return np.arange(int(np.floor(film.time_s(film.count - 1) * rate_hz + 1e-9)) + 1) / rate_hz


def _convergence(film: Film) -> float:
    x, y, _ = film.trajectory.position_m(np.zeros(1))[0]
    return film.city.grid.convergence_rad(x, y)


def _rng(recorder: Recorder, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([recorder.seed, 0xBA6, stream]))


def _inertial(film: Film, recorder: Recorder) -> _Stream:
    types = _Types()
    imu = imu_readings(film.trajectory, _times(film, COMPACT_IMU_HZ if recorder.compact else IMU_HZ),
                       _convergence(film), _rng(recorder, 1))
    covariances = [np.diag(np.array(sigma) ** 2).astype(np.float64).ravel() for sigma in (
        (IMU_TILT_RAD, IMU_TILT_RAD, IMU_YAW_RAD), (IMU_GYRO_RAD_S,) * 3, (IMU_ACCEL_M_S2,) * 3)]
    for k, time_s in enumerate(imu.time_s):
        stamp_ns = film.stamp_ns(time_s)
        yield "/imu/data", stamp_ns, types("sensor_msgs", "Imu")(
            types.header(stamp_ns, CAMERA_FRAME), types.quaternion(quaternion_of(imu.orientation[k])), covariances[0],
            types.vector(imu.gyro_rad_s[k]), covariances[1], types.vector(imu.accel_m_s2[k]), covariances[2])


def _odometry(film: Film, recorder: Recorder) -> _Stream:
    types = _Types()
    odometry = odometry_readings(film.trajectory, _times(film, COMPACT_ODOM_HZ if recorder.compact else ODOM_HZ),
                                 _convergence(film), _rng(recorder, 2))
    twist_covariance = np.diag([0.05**2] * 3 + [IMU_GYRO_RAD_S**2] * 3).ravel()
    for k, time_s in enumerate(odometry.time_s):
        stamp_ns = film.stamp_ns(time_s)
        sigma = 0.02 * odometry.travelled_m[k] + 0.05
        turn = types.quaternion((0.0, 0.0, np.sin(0.5 * odometry.yaw_rad[k]), np.cos(0.5 * odometry.yaw_rad[k])))
        pose = types("geometry_msgs", "PoseWithCovariance")(
            types("geometry_msgs", "Pose")(types.point(odometry.position_m[k]), turn),
            np.diag([float(np.float32(sigma**2))] * 3 + [0.01**2, 0.01**2, 0.02**2]).ravel())
        twist = types("geometry_msgs", "TwistWithCovariance")(
            types("geometry_msgs", "Twist")(types.vector(odometry.velocity_m_s[k]), types.vector(np.zeros(3))),
            twist_covariance)
        yield "/odom", stamp_ns, types("nav_msgs", "Odometry")(
            types.header(stamp_ns, ODOM_FRAME), "base_link", pose, twist)


def _prior(film: Film, recorder: Recorder) -> _Stream:
    types, times = _Types(), _times(film, PRIOR_HZ)
    positions = prior_positions(film.trajectory, times, _rng(recorder, 3), recorder.prior_error_m)
    covariance = np.array([recorder.prior_error_m, recorder.prior_error_m, 5.0]) ** 2
    for time_s, (x, y, z) in zip(times, positions):
        stamp_ns = film.stamp_ns(time_s)
        yield "/prior/fix", stamp_ns, types.fix(stamp_ns, "base_link", *film.city.grid.to_geographic(x, y), z,
                                                covariance)


def _altitude(film: Film, recorder: Recorder) -> _Stream:
    types, times = _Types(), _times(film, ALTITUDE_HZ)
    kind = types("sensor_msgs", "Range")
    for time_s, height in zip(times, altitude_readings(film.trajectory, times, _rng(recorder, 4))):
        stamp_ns = film.stamp_ns(time_s)
        yield "/altitude", stamp_ns, kind(types.header(stamp_ns, "base_link"), kind.INFRARED, 0.01, 0.5, 500.0,
                                          float(height), float((0.02 * height) ** 2))
