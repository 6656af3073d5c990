"""Pairs for synthesis and matching: identities near by in colour and thermal, and thermal from a drone at another time.

A session is one group of identities in one layout of the city. At a first instant, by day, each is photographed near
by, in both bands from the same camera; at a second, in other weather at any hour and in another state of heat, the
same view is taken in thermal again, and so is the identity from a drone. Every group has several sessions, its views,
so that each identity is seen in other places, from other sides, at other hours. A session is one file
(sessions/GROUP_VIEW.npz) of equally sized square crops; a set that was broken off is used as far as it goes.

Without a drone, sets hold photographs alone, each with its object's size and nobody else in them: a fraction of the
time, for what is learned of many identities and needs no second instant.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.crops import STORED_MARGIN, square_crop
from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.store import ATTRIBUTION
from thermalreid_ros.world.actors import CLASSES, Identity, make_identity
from thermalreid_ros.world.city import City, build_city
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.film import claim_folder, refuse_finished, solar_time, stored_session
from thermalreid_ros.world.population import Placed, Population
from thermalreid_ros.world.radiometry import brightness_temperature
from thermalreid_ros.world.reid_set import PROBE_HOURS, density_of_pictures
from thermalreid_ros.world.render import Capture, Renderer
from thermalreid_ros.world.sensor import ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.sun import sun_direction
from thermalreid_ros.world.truth import box_of
from thermalreid_ros.world.views import View, find_view, from_drone, near_by
from thermalreid_ros.world.weather import Weather
from thermalreid_ros.world.workers import run_missing

NEAR_PX = 128
DRONE_PX = 96
_RENDERED_PX = 192  # of the views near by, averaged to NEAR_PX: the city is sampled once per pixel
_TRIES, _LEAST_SHARE = 24, 0.85  # of views in which nobody else is, as find_view has them
_CROWD_M = 60.0  # beyond which others are specks in a view near by, and too many
#: What the weather and the sun were, columns of the arrays `first` and `second`.
CONDITIONS = ("solar_hour", "air_c", "cloud_cover", "sin_sun_elevation", "wind_m_s", "wetness")


@dataclass(frozen=True)
class PairsPlan:
    """identities: of all classes together, in equal shares. views: sessions of each group. drone: pictures from a
    drone in each session; 0: photographs alone. group: identities that share their sessions. fov_rad: horizontal, of
    the drone's camera of size_px."""

    map_path: Path
    seed: int
    identities: int
    views: int = 4
    drone: int = 2
    group: int = 48
    size_m: float = 500.0
    centre: tuple[float, float] | None = None
    difference: float = 1.0
    fov_rad: float = np.radians(32.0)
    size_px: tuple[int, int] = (640, 512)

    def groups(self) -> list[list[tuple[str, int]]]:
        """The (class, number) of each group's identities."""
        return groups_of(CLASSES, self.identities, self.group)


def groups_of(classes: Sequence[str], identities: int, group: int) -> list[list[tuple[str, int]]]:
    """(class, number) of so many identities, of all classes in equal shares, in groups of so many."""
    everyone = [(classes[k % len(classes)], k // len(classes)) for k in range(identities)]
    return [everyone[first:first + group] for first in range(0, len(everyone), group)]


def window(k: Intrinsics, pixels: np.ndarray, size_px: int) -> Intrinsics:
    """The square of STORED_MARGIN around pixels (N, 2) of a picture, as a camera of size_px x size_px."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    zoom = size_px / (STORED_MARGIN * (high - low).max())
    left, top = 0.5 * (low + high) - 0.5 * size_px / zoom
    return Intrinsics(size_px, size_px, zoom * k.fx, zoom * k.fy, zoom * (k.cx - left), zoom * (k.cy - top))


def make_pairs(plan: PairsPlan, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    """Make the set, or go on with an unfinished one of the same arguments: yields after each session the number of
    its pairs. At the end index.json says what is there.

    Raises ThermalReidError where `out` holds a finished set or something else.
    """
    refuse_finished(out)
    city = build_city(plan.map_path, centre=plan.centre, size_m=plan.size_m, seed=plan.seed,
                      difference=plan.difference)
    claim_folder(out, arguments)
    (out / "sessions").mkdir(exist_ok=True)
    return _rendered(plan, city, out, arguments, workers)


def _rendered(plan: PairsPlan, city: City, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    sessions = [(group, view) for group in range(len(plan.groups())) for view in range(plan.views)]
    counts = {}
    for session in run_missing(_SessionRenderer, (plan, city, out), sessions,
                               lambda session: _path(out, *session).exists(), workers):
        path = _path(out, *session)
        counts[path.name] = rows_in(path)
        yield counts[path.name]
    write_atomically(out / "index.json", json.dumps({
        "attribution": ATTRIBUTION, "map": plan.map_path.name, "seed": plan.seed, "arguments": dict(arguments),
        "pairs": sum(counts.values()), "sessions": counts}, indent=1, default=str) + "\n")


def rows_in(session: Path) -> int:
    """Of a stored session. Raises ResumeError, naming it, where it is damaged."""
    with stored_session(session) as stored:
        return len(stored["label"])


def _path(out: Path, group: int, view: int) -> Path:
    return out / "sessions" / f"{group:03d}_{view:02d}.npz"


@dataclass(frozen=True)
class _Instant:
    when: datetime
    weather: Weather

    @classmethod
    def drawn(cls, city: City, hours: tuple[float, float], rng: np.random.Generator) -> _Instant:
        day = date(2025, 1, 1) + timedelta(days=int(rng.integers(365)))
        when = solar_time(day.isoformat(), float(rng.uniform(*hours)), city.longitude_deg)
        return cls(when, Weather.typical(city.latitude_deg, when, int(rng.integers(2**31))))

    def conditions(self, city: City, hour: float) -> list[float]:
        """In the order of CONDITIONS."""
        sun = sun_direction(city.latitude_deg, city.longitude_deg, self.when)
        return [hour, float(self.weather.air_temperature_k(hour)) - 273.15, self.weather.cloud_cover, float(sun[2]),
                float(self.weather.wind_at(hour)), self.weather.wetness]

    def hour(self, city: City) -> float:
        at = self.when.hour + self.when.minute / 60.0 + self.when.second / 3600.0
        return (at + city.longitude_deg / 15.0) % 24.0


class _SessionRenderer:
    """Renders sessions; made once in each process, which keeps the city's geometry."""

    def __init__(self, plan: PairsPlan, city: City, out: Path):
        self._plan, self._city, self._out = plan, city, out
        self._groups = plan.groups()
        self._drone = Intrinsics.from_field_of_view(*plan.size_px, plan.fov_rad)
        self._renderer: Renderer | None = None

    def __call__(self, session: tuple[int, int]) -> int:
        plan, city = self._plan, self._city
        key = [plan.seed, 0x9A1, *session]
        rng = np.random.default_rng(np.random.SeedSequence(key))
        first, second = _Instant.drawn(city, PROBE_HOURS, rng), _Instant.drawn(city, (0.0, 24.0), rng)
        hours = first.hour(city), second.hour(city)
        numbers = {name: [number for kind, number in self._groups[session[0]] if kind == name] for name in CLASSES}
        population = _Still(Population(city, plan.seed, density_of_pictures(hours[0]), numbers,
                                       layout=int(rng.integers(2**31))), float(rng.uniform(0.0, 600.0)))
        camera, sensor = ColourCameraParameters().varied(rng), ThermalSensorParameters().varied(rng)
        if self._renderer is None:
            self._renderer = Renderer(city, first.weather)
        renderer = self._renderer
        renderer.set_time(first.when, first.weather)
        shots = []
        for name, number in self._groups[session[0]]:
            own = np.random.default_rng(np.random.SeedSequence([*key, CLASSES.index(name), number]))
            shot = (self._near if plan.drone else self._alone)(population, make_identity(name, number, plan.seed),
                                                               camera, own)
            if shot is not None:
                shots.append((shot, own))
        if plan.drone:
            renderer.set_time(second.when, second.weather)
            for shot, own in shots:
                self._again(population, shot, sensor, int(second.when.timestamp()) * 1_000_000_000, own)
        rows = [shot.row for shot, _ in shots]
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
        buffer = io.BytesIO()
        np.savez(buffer, **{"label": np.zeros(0, np.int64), **columns},
                 identity=np.array([shot.identity.name for shot, _ in shots]), seed=plan.seed,
                 first=np.float32(first.conditions(city, hours[0])),
                 second=np.float32(second.conditions(city, hours[1])))
        write_atomically(_path(self._out, *session), buffer.getvalue())
        return len(rows)

    def _near(self, population: _Still, identity: Identity, camera: ColourCameraParameters,
              rng: np.random.Generator) -> _Shot | None:
        renderer = self._renderer
        view = find_view(renderer, population.within(_CROWD_M), identity, population.time_s, near_by(), rng)
        if view is None:
            return None
        view = self._window(view, _RENDERED_PX)
        capture = renderer.capture(view.pose, view.intrinsics, view.actors)
        if view.seen(capture) is None:
            return None
        return self._shot(identity, view, capture, camera, rng)

    def _alone(self, population: _Still, identity: Identity, camera: ColourCameraParameters,
               rng: np.random.Generator) -> _Shot | None:
        """The same without anybody else in the picture, and one ray for each pixel of it."""
        renderer, target = self._renderer, population.where(identity, population.time_s)
        if target is None:
            return None
        draw = near_by()
        for _ in range(_TRIES):
            view = self._window(View(*draw(target, rng), [target], 0), NEAR_PX)
            if not renderer.sees(view.pose, box_of(target)[0]):
                continue
            capture = renderer.capture(view.pose, view.intrinsics, view.actors)
            seen = view.seen(capture)
            if seen is not None and seen.visible_share > _LEAST_SHARE:
                return self._shot(identity, view, capture, camera, rng)
        return None

    @staticmethod
    def _shot(identity: Identity, view: View, capture: Capture, camera: ColourCameraParameters,
              rng: np.random.Generator) -> _Shot:
        colour = ColourCamera(camera, view.intrinsics, int(rng.integers(2**31))).capture(
            capture.colour, int(capture.when.timestamp()) * 1_000_000_000)
        mask = (capture.instance == view.target + 1).astype(np.uint8)
        row = {"label": np.int64(CLASSES.index(identity.class_name)), "colour": _smaller(colour),
               "mask": (_smaller(255 * mask) > 127).astype(np.uint8), "near_first": _centikelvin(capture.radiance),
               "size_m": np.float32(identity.size_m)}
        return _Shot(identity, view, row)

    def _window(self, view: View, size_px: int) -> View:
        """The view cut to the square of STORED_MARGIN around its target, in so many pixels."""
        actor, k = view.actors[view.target], view.intrinsics
        c, s = np.cos(actor.yaw_rad), np.sin(actor.yaw_rad)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        corners = self._renderer.body(actor).mesh.vertices @ turn.T + (actor.x, actor.y, actor.z)
        return replace(view, intrinsics=window(k, k.project(view.pose.to_camera(corners)), size_px))

    def _again(self, population: _Still, shot: _Shot, sensor: ThermalSensorParameters, stamp_ns: int,
               rng: np.random.Generator) -> None:
        renderer, actors = self._renderer, list(shot.view.actors)
        target = actors[shot.view.target]
        state = shot.identity.typical_state(rng, target.moving)
        actors[shot.view.target] = replace(target, state=state)
        capture = renderer.capture(shot.view.pose, shot.view.intrinsics, actors, colour=False)
        shot.row["near_second"] = _centikelvin(capture.radiance)
        count = self._plan.drone
        drone = np.zeros((count, DRONE_PX, DRONE_PX), np.uint16)
        masks, pixels = np.zeros((count, DRONE_PX, DRONE_PX), np.uint8), np.zeros(count, np.float32)
        for k in range(count):
            view = find_view(renderer, population, shot.identity, population.time_s, from_drone(self._drone), rng, 0.8)
            if view is None:
                continue
            capture = renderer.capture(view.pose, view.intrinsics, _with_state(view, state), colour=False)
            seen = view.seen(capture)
            if seen is None:
                continue
            frame = ThermalSensor(sensor, view.intrinsics, int(rng.integers(2**31))).capture(capture.radiance, stamp_ns)
            mask = (capture.instance == view.target + 1).astype(np.uint8)
            drone[k] = square_crop(frame, seen.box, DRONE_PX, STORED_MARGIN)
            masks[k] = square_crop(mask, seen.box, DRONE_PX, STORED_MARGIN, cv2.INTER_NEAREST)
            pixels[k] = max(seen.box[2] - seen.box[0], seen.box[3] - seen.box[1])
        shot.row |= {"drone": drone, "drone_mask": masks, "drone_px": pixels}


class _Still:
    """A population at one instant: what find_view asks of one, answered from a list."""

    def __init__(self, population: Population, time_s: float):
        self.time_s, self._farthest_m = time_s, np.inf
        self._everyone = population.at(time_s)
        self._places = np.array([(actor.x, actor.y) for actor in self._everyone]).reshape(-1, 2)
        self._by_name = {actor.identity.name: actor for actor in self._everyone}

    def within(self, farthest_m: float) -> _Still:
        """The same, blind to who is farther from the camera than so."""
        nearer = copy.copy(self)
        nearer._farthest_m = farthest_m
        return nearer

    def at(self, time_s: float, around: tuple[float, float], radius_m: float) -> list[Placed]:
        near = np.hypot(*(self._places - around).T) < min(radius_m, self._farthest_m)
        return [self._everyone[k] for k in np.flatnonzero(near)]

    def where(self, identity: Identity, time_s: float) -> Placed | None:
        return self._by_name.get(identity.name)


@dataclass(eq=False)
class _Shot:
    identity: Identity
    view: View
    row: dict[str, np.ndarray]


def _with_state(view: View, state) -> list[Placed]:
    actors = list(view.actors)
    actors[view.target] = replace(actors[view.target], state=state)
    return actors


def _smaller(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (NEAR_PX, NEAR_PX), interpolation=cv2.INTER_AREA)


def _centikelvin(radiance: np.ndarray) -> np.ndarray:
    """Apparent temperature without a sensor's noise, uint16 (NEAR_PX, NEAR_PX)."""
    return np.rint(_smaller(brightness_temperature(radiance).astype(np.float32)) * 100.0).astype(np.uint16)
