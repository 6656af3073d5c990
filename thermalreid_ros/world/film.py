"""A flight as frames: rendered by several processes into a folder, so that it can be resumed, and read in order."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import NPZ_FAULTS, write_atomically
from thermalreid_ros.world.actors import CLASSES
from thermalreid_ros.world.city import City
from thermalreid_ros.world.flight import FlightError, FlightPlan, Trajectory
from thermalreid_ros.world.population import Placed, Population
from thermalreid_ros.world.raycast import Scene
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.truth import TrueObject, objects_as_json, objects_from_json, true_objects
from thermalreid_ros.world.weather import Weather
from thermalreid_ros.world.workers import run_in_order

FARTHEST_M = 600.0  # beyond which persons are below a pixel and cars a few
_MANIFEST = "manifest.json"
_YEARS = (1971, 2037)  # that a recording's stamps hold at any longitude


class ResumeError(ThermalReidError):
    """A folder of unfinished work that does not belong to what is asked for."""


@dataclass(frozen=True, eq=False)
class Film:
    """All that the frames of a flight follow from. when: of its first frame, aware. Frame k is rate_hz ** -1 * k
    later."""

    city: City
    population: Population
    weather: Weather
    trajectory: Trajectory
    intrinsics: Intrinsics
    when: datetime
    rate_hz: float
    count: int
    supersample: int = 3

    def time_s(self, frame: int) -> float:
        return frame / self.rate_hz

    def stamp_ns(self, time_s: float) -> int:
        """Nanoseconds since the Unix epoch, so many seconds after the first frame."""
        return int(self.when.timestamp()) * 1_000_000_000 + round(time_s * 1e9)

    def actors(self, frame: int) -> list[Placed]:
        """Those who may be seen in a frame."""
        time_s = self.time_s(frame)
        return in_view(self.population, self.trajectory.pose(time_s), self.intrinsics, time_s)


@dataclass(frozen=True, eq=False)
class FilmFrame:
    """One rendered frame. Arrays as in render.Capture."""

    number: int
    radiance: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    depth_m: np.ndarray
    objects: list[TrueObject]


def in_view(population: Population, pose: Pose, intrinsics: Intrinsics, time_s: float) -> list[Placed]:
    """Those of a population whose place, or shadow, may lie within a picture."""
    flattest = float(-pose.to_world(_corner_rays(intrinsics))[:, 2].max())  # sine of its angle below the horizon
    height = max(float(pose.position_m[2]), 2.0)
    reach = FARTHEST_M if flattest < 0.02 else min(1.1 * height / flattest + 40.0, FARTHEST_M)
    x, y = pose.position_m[:2]
    near = population.at(time_s, around=(float(x), float(y)), radius_m=reach)
    if not near:
        return []
    camera = pose.to_camera(np.array([[a.x, a.y, a.z + 1.0] for a in near]))
    margin_px = intrinsics.fx * 6.0 / np.maximum(camera[:, 2], 0.1) + 8.0
    pixel = intrinsics.project(camera)
    inside = ((camera[:, 2] > 0.1) & (pixel[:, 0] > -margin_px) & (pixel[:, 0] < intrinsics.width + margin_px)
              & (pixel[:, 1] > -margin_px) & (pixel[:, 1] < intrinsics.height + margin_px))
    return [actor for actor, seen in zip(near, inside) if seen]


def liveliness(actors: Sequence[Placed]) -> float:
    """How much there is to see, all classes counting alike."""
    return float(np.log1p([sum(actor.identity.class_name == name for actor in actors) for name in CLASSES]).sum())


def clear_flight(population: Population, plan: FlightPlan, seed: int, choices: int = 6) -> Trajectory:
    """A flight over a city that keeps 15 m above roofs and trees: of the first such courses the liveliest, so that
    there is something to be found.

    FlightError where none keeps clear.
    """
    city, best, most = population.city, None, -1.0
    scene, reach = Scene(city.mesh), 8.0
    everyone = population.at(0.0)
    places = np.array([[a.x, a.y] for a in everyone]).reshape(-1, 2)
    down = np.float32([0, 0, -1])
    for attempt in range(30):
        trajectory = Trajectory(city.bounds, city.relief.height_m, plan, seed + (attempt << 32))
        time_s = np.arange(0.0, plan.duration_s + 0.5, 0.5)
        above = np.concatenate([trajectory.position_m(time_s) + (dx, dy, 500.0) for dx, dy in (
            (0, 0), (reach, 0), (-reach, 0), (0, reach), (0, -reach))]).astype(np.float32)
        clear, _ = scene.nearest(above, np.broadcast_to(down, above.shape))
        if clear.min() <= 515.0:
            continue
        aims = np.array([trajectory.aim_m(t)[:2] for t in time_s[::2]])
        passed = (np.hypot(*(places[:, None] - aims).transpose(2, 0, 1)) < 0.3 * trajectory.plan.altitude_m).any(axis=1)
        lively = liveliness([actor for actor, near in zip(everyone, passed) if near])
        if lively > most:
            best, most = trajectory, lively
        choices -= 1
        if not choices:
            break
    if best is None:
        raise FlightError(f"no course {trajectory.plan.altitude_m:.0f} m above the ground is clear of the buildings; "
                          "fly higher")
    return best


def render_film(film: Film, folder: Path, workers: int) -> Iterator[int]:
    """Render the frames that the folder lacks; yields the number of each that is there, in order."""
    missing = [number for number in range(film.count) if not _frame_path(folder, number).is_file()]
    rendered = run_in_order(_FrameRenderer, (film, folder), missing, workers)
    lacking = set(missing)
    for number in range(film.count):
        if number in lacking:
            next(rendered)
        yield number


def read_frame(folder: Path, number: int) -> FilmFrame:
    """A frame of render_film. ResumeError where its file is damaged."""
    with stored_session(_frame_path(folder, number)) as stored:
        shape = stored["radiance"].shape
        return FilmFrame(number, stored["radiance"], *(
            np.frombuffer(zlib.decompress(stored[name].tobytes()), kind).reshape(shape)
            for name, kind in (("semantic", np.uint8), ("instance", np.uint16), ("depth_m", np.float16))),
            objects_from_json(stored["objects"].tobytes().decode()))


def read_objects(folder: Path, number: int) -> list[TrueObject]:
    """The objects of a frame of render_film alone. ResumeError where its file is damaged."""
    with stored_session(_frame_path(folder, number)) as stored:
        return objects_from_json(stored["objects"].tobytes().decode())


@contextmanager
def stored_session(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """What an .npz file of unfinished work holds. ResumeError, naming it, where it is damaged."""
    try:
        with np.load(path) as stored:
            yield stored
    except NPZ_FAULTS as error:
        raise ResumeError(f"{path}: damaged ({error}); remove it and repeat the command") from None


@dataclass(frozen=True)
class WorkFolder:
    """Where a flight's frames wait until its recording is written: `.part` beside it."""

    path: Path

    def claim(self, arguments: Mapping[str, Any]) -> None:
        claim_folder(self.path, arguments)

    def beside(self, name: str) -> Path:
        """A file that says that `name` beside the recording is of this work."""
        return self.path / f"{name}.made"

    def frames(self) -> int:
        """How many are there."""
        return len(list(self.path.glob("[0-9]*.npz")))


def unfinished(out: Path, beside: Sequence[str]) -> WorkFolder:
    """The folder of unfinished work of a recording. ResumeError where the recording exists, or one of the names
    beside it does and is not of this unfinished work."""
    folder = WorkFolder(out.with_name(f"{out.name}.part"))
    for path in (out, *(out.parent / name for name in beside if not folder.beside(name).exists())):
        if path.exists():
            raise ResumeError(f"{path}: exists already; remove it or choose another place")
    return folder


def refuse_finished(folder: Path) -> None:
    """ThermalReidError where a set lies there already, whose index.json was written last of all."""
    if (folder / "index.json").exists():
        raise ThermalReidError(f"{folder}: holds a finished set already; remove it or choose another place")


def claim_folder(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Make a folder for unfinished work, or take one that the same arguments began, or an empty one, as a disk that is
    full leaves it. ResumeError otherwise."""
    manifest = folder / _MANIFEST
    arguments = json.loads(json.dumps(dict(arguments), default=str))
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResumeError(f"{folder}: cannot be made ({error.strerror})") from None
        write_atomically(manifest, json.dumps(arguments, indent=2) + "\n")
        return
    try:
        begun = dict(json.loads(manifest.read_text()).items())
    except (OSError, ValueError, AttributeError):
        raise ResumeError(f"{folder}: exists, but is no unfinished work of this command; remove it or choose another "
                          "place") from None
    other = sorted(name for name in begun.keys() | arguments.keys() if begun.get(name) != arguments.get(name))
    if other:
        raise ResumeError(f"{folder}: unfinished work of other arguments ({', '.join(other)}); repeat those, remove "
                          "the folder, or choose another place")


class _FrameRenderer:
    """Renders frames of a film into a folder; made once in each process."""

    def __init__(self, film: Film, folder: Path):
        self._film, self._folder = film, folder
        self._renderer = Renderer(film.city, film.weather)
        self._renderer.set_time(film.when + timedelta(seconds=0.5 * film.time_s(film.count)))

    def __call__(self, number: int) -> int:
        film, actors = self._film, self._film.actors(number)
        capture = self._renderer.capture(film.trajectory.pose(film.time_s(number)), film.intrinsics, actors,
                                         colour=False, supersample=film.supersample)
        packed = {name: np.frombuffer(zlib.compress(np.ascontiguousarray(value), 1), np.uint8) for name, value in (
            ("semantic", capture.semantic), ("instance", capture.instance),
            ("depth_m", capture.depth_m.astype(np.float16)))}
        objects = objects_as_json(true_objects(capture, actors, film.city.grid)).encode()
        buffer = io.BytesIO()
        np.savez(buffer, radiance=capture.radiance, objects=np.frombuffer(objects, np.uint8), **packed)
        write_atomically(_frame_path(self._folder, number), buffer.getvalue())
        return number


def _frame_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _corner_rays(intrinsics: Intrinsics) -> np.ndarray:
    w, h = intrinsics.width, intrinsics.height
    return intrinsics.rays(np.array([[0, 0], [w, 0], [0, h], [w, h]], np.float64))


def solar_time(date: str, hour: float, longitude_deg: float) -> datetime:
    """The instant, in whole seconds of UTC, of a mean solar hour (0..24) of a day (YYYY-MM-DD) at a longitude.

    ThermalReidError where the date is none, or of a year that the stamps of a recording (32 bits of seconds, none of
    them negative) do not hold whole.
    """
    try:
        day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ThermalReidError(f"'{date}' is no date; write it as 2025-07-15") from None
    if not _YEARS[0] <= day.year <= _YEARS[1]:
        raise ThermalReidError(f"'{date}': stamps of recordings hold the years {_YEARS[0]} to {_YEARS[1]} alone")
    return day + timedelta(seconds=round(3600.0 * (hour - longitude_deg / 15.0)))


def default_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
