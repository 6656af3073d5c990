"""Sketches: many identities photographed near by, on a plain ground before a wall, by day; and, where asked for, seen
by a drone's thermal camera at another time, in other weather and another state of heat. Alone, or beside others.

The same bodies, paints, light and heat as in the city, without the city: a hundred times as fast, for what must be
learned of very many identities. Crops are those of `pairs`, and so are the sets: one file a session.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.crops import STORED_MARGIN, square_crop
from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.files import write_atomically
from thermalreid_ros.world.actors import CLASSES, HeatState, Identity, make_identity
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.daylight import Daylight
from thermalreid_ros.world.film import claim_folder, refuse_finished, solar_time
from thermalreid_ros.world.materials import Surface, material_arrays
from thermalreid_ros.world.mesh import Mesh
from thermalreid_ros.world.pairs import DRONE_PX, NEAR_PX, groups_of, rows_in, window
from thermalreid_ros.world.population import Placed
from thermalreid_ros.world.radiometry import Atmosphere
from thermalreid_ros.world.raycast import OFFSET_M, Scene
from thermalreid_ros.world.render import HISTORY, STROLLING, share_stayed, stay_h, sunny_blocks
from thermalreid_ros.world.sensor import ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.textures import texture
from thermalreid_ros.world.thermal import ThermalDay
from thermalreid_ros.world.views import from_drone, near_by
from thermalreid_ros.world.weather import Weather
from thermalreid_ros.world.workers import run_missing

_LIGHTS = 12  # of a session, and as many hours for the drone
_LATITUDES_DEG = 35.0, 62.0
_IN_THE_OPEN = 0.6  # share of the places that nothing shades; of the others each past hour is in the sun or is not
_FINE = 2  # rays per pixel and axis on the object
_LEAST_PIXELS, _TRIES = 30, 16  # of an object from a drone, as find_view has them, and views that are drawn for that
_LEAST_SHARE = 0.8  # of an object that others may not hide
#: Who is beside whom, how far from each other's boxes; and how many there are of each class to choose from.
_COMPANY = {"car": {"car": 0.8, "person": 0.2}, "person": {"person": 0.6, "dog": 0.2, "bicycle": 0.2},
            "bicycle": {"bicycle": 0.5, "person": 0.5}, "dog": {"person": 0.8, "dog": 0.2}}
_GAP_M = 0.3, 1.6
_STRANGERS = 100_000
_GROUNDS = (Surface.ASPHALT, Surface.PAVING, Surface.CONCRETE, Surface.GRAVEL, Surface.GRASS, Surface.DRY_GRASS,
            Surface.SOIL)
_WALLS = (Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_CONCRETE, Surface.GRASS)


@dataclass(frozen=True)
class SketchPlan:
    """identities: of all these classes together, in equal shares. views: of each identity. drone: pictures from a
    drone with each view; 0: photographs alone. company: share of the pictures in which others are beside the identity.
    group: identities in a session, which share some lights and hours. fov_rad: horizontal, of the drone's camera of
    size_px."""

    seed: int
    identities: int
    classes: tuple[str, ...] = CLASSES
    views: int = 4
    drone: int = 0
    company: float = 0.0
    group: int = 96
    fov_rad: float = np.radians(32.0)
    size_px: tuple[int, int] = (640, 512)

    def groups(self) -> list[list[tuple[str, int]]]:
        """The (class, number) of each group's identities."""
        return groups_of(self.classes, self.identities, self.group)


def make_sketches(plan: SketchPlan, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    """Make the set, or go on with an unfinished one of the same arguments: yields after each session the number of
    its sketches. At the end index.json says what is there.

    Raises ThermalReidError where `out` holds a finished set or something else.
    """
    refuse_finished(out)
    claim_folder(out, arguments)
    (out / "sessions").mkdir(exist_ok=True)
    return _drawn(plan, out, arguments, workers)


def _drawn(plan: SketchPlan, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    sessions = range(len(plan.groups()))
    total = 0
    for session in run_missing(_Sketcher, (plan, out), sessions, lambda session: _path(out, session).exists(), workers):
        count = rows_in(_path(out, session))
        total += count
        yield count
    write_atomically(out / "index.json", json.dumps({"seed": plan.seed, "arguments": dict(arguments),
                                                     "sketches": total}, indent=1, default=str) + "\n")


def _path(out: Path, session: int) -> Path:
    return out / "sessions" / f"{session:04d}.npz"


class _Sketcher:
    def __init__(self, plan: SketchPlan, out: Path):
        self._plan, self._out, self._groups = plan, out, plan.groups()
        self._drone = Intrinsics.from_field_of_view(*plan.size_px, plan.fov_rad)

    def __call__(self, session: int) -> int:
        plan = self._plan
        rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x5CE, session]))
        lights = [light_of(rng) for _ in range(_LIGHTS)]
        days = [day_of(rng) for _ in range(_LIGHTS if plan.drone else 0)]
        rows = []
        for name, number in self._groups[session]:
            identity = make_identity(name, number, plan.seed)
            moving, phase = bool(rng.random() < 0.5), float(rng.random())
            alone = Body(identity, phase, moving)
            for _ in range(plan.views):
                body = self._with_others(alone, rng)
                row = {"label": CLASSES.index(name), "colour": body.sketch(lights[rng.integers(_LIGHTS)], rng),
                       "size_m": np.float32(identity.size_m), "identity": identity.name}
                if plan.drone:
                    row |= self._seen(identity, days, rng)
                rows.append(row)
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.stack([row[name] for row in rows]) for name in rows[0]}, seed=plan.seed)
        write_atomically(_path(self._out, session), buffer.getvalue())
        return len(rows)

    def _seen(self, identity: Identity, days: list[ThermalDay], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """drone (D, DRONE_PX, DRONE_PX), uint16 centikelvin, and drone_px (D,), the object's longest side there before
        it was enlarged, 0 where it is too small."""
        crops, pixels = np.zeros((self._plan.drone, DRONE_PX, DRONE_PX), np.uint16), np.zeros(self._plan.drone)
        for k in range(self._plan.drone):
            body = self._with_others(Body(identity, float(rng.random()), bool(rng.random() < 0.5)), rng)
            seen = body.from_above(days[rng.integers(len(days))], self._drone, rng)
            if seen is not None:
                frame, box = seen
                crops[k] = square_crop(frame, box, DRONE_PX, STORED_MARGIN)
                pixels[k] = max(box[2] - box[0], box[3] - box[1])
        return {"drone": crops, "drone_px": pixels.astype(np.float32)}

    def _with_others(self, body: Body, rng: np.random.Generator) -> Body:
        if not self._plan.company or rng.random() >= self._plan.company:
            return body
        return body.beside(company(body.actor, self._plan.seed, rng))


def company(actor: Placed, seed: int, rng: np.random.Generator) -> list[Placed]:
    """One or two others of this seed's identities beside an actor at the origin, as streets have them: cars parked in a
    row or side by side, people who walk together, with a dog or a bicycle. Two are not kept out of each other."""
    others: list[Placed] = []
    for _ in range(1 + int(rng.random() < 0.3)):
        kinds, shares = zip(*_COMPANY[actor.identity.class_name].items())
        identity = make_identity(str(rng.choice(kinds, p=shares)), int(rng.integers(_STRANGERS)), seed)
        parked = identity.class_name == actor.identity.class_name == "car"
        if parked:  # ahead, behind, or at either side
            bearing = 0.5 * np.pi * int(rng.integers(4)) + rng.normal(0.0, 0.05)
            yaw = np.pi * int(rng.integers(2)) + rng.normal(0.0, 0.03)
        else:
            bearing, yaw = rng.uniform(-np.pi, np.pi), rng.uniform(-np.pi, np.pi)
        far = _reach(actor.identity, bearing) + _reach(identity, bearing - yaw) + rng.uniform(*_GAP_M)
        moving = not parked and bool(rng.random() < 0.5)
        others.append(Placed(identity, far * np.cos(bearing), far * np.sin(bearing), 0.0, yaw, float(rng.random()),
                             HeatState(), moving, moving))
    return others


def _reach(identity: Identity, bearing_rad: float) -> float:
    """Metres from the middle of an identity to where the box around it ends, in this direction of its own."""
    length, width, _ = identity.size_m
    return 0.5 * float(abs(length * np.cos(bearing_rad)) + abs(width * np.sin(bearing_rad)))


class Body:
    """An identity in one pose, on the ground at the origin, and others beside it. moving, phase: as of Placed; a
    bicycle that moves is ridden."""

    def __init__(self, identity: Identity, phase: float, moving: bool):
        self.actor = Placed(identity, 0.0, 0.0, 0.0, 0.0, phase, HeatState(), moving, moving)
        self._own = identity.mesh(phase, moving)
        self._alone = Scene(self._own)
        self._show([self.actor], [self._own], self._alone)

    def _show(self, actors: list[Placed], meshes: list[Mesh], scene: Scene | None = None) -> Body:
        self._actors, self._mesh = actors, Mesh.joined(meshes)
        self._owner = np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes])  # of each face
        self._numbers = np.uint32([actor.identity.number for actor in actors])[self._owner]
        self._scene, self._normals = scene or Scene(self._mesh), self._mesh.normals
        return self

    def beside(self, others: Sequence[Placed]) -> Body:
        """The same with others, whose meshes must not reach into it."""
        placed = [other.identity.mesh(other.phase, other.moving).placed(other.x, other.y, other.z, other.yaw_rad)
                  for other in others]
        return copy.copy(self)._show([self.actor, *others], [self._own, *placed])

    @property
    def _has_company(self) -> bool:
        return len(self._actors) > 1

    def sketch(self, light: Daylight, rng: np.random.Generator) -> np.ndarray:
        """uint8 (NEAR_PX, NEAR_PX, 3), RGB: the square of STORED_MARGIN around it, from a camera of views.near_by that
        sees most of it; where none does, without the others."""
        for _ in range(_TRIES if self._has_company else 1):
            pose, intrinsics = near_by()(self.actor, rng)
            corners = pose.to_camera(self._own.vertices)
            k = window(intrinsics, intrinsics.project(corners), NEAR_PX)
            if self._shows(pose, k):
                break
        else:
            return copy.copy(self)._show([self.actor], [self._own], self._alone).sketch(light, rng)
        scene = self._surroundings(pose, k, light, rng).reshape(NEAR_PX, NEAR_PX, 3)
        pixels = k.project(corners)
        low, high = np.floor(pixels.min(axis=0)).astype(int), np.ceil(pixels.max(axis=0)).astype(int)
        if self._has_company:
            low, high = np.zeros(2, int), np.full(2, NEAR_PX)
        self._lay_over(scene, pose, k, light, low, high)
        camera = ColourCamera(ColourCameraParameters().varied(rng), k, int(rng.integers(2**31)))
        return camera.capture(scene, 0)

    def _shows(self, pose: Pose, k: Intrinsics) -> bool:
        """Whether others hide little of it, and nobody stands at the camera."""
        if not self._has_company:
            return True
        eye = pose.position_m.astype(np.float32)
        rays = _rays(pose, k, np.arange(0.5, k.width), np.arange(0.5, k.height))
        depth, face = self._scene.nearest(eye, rays)
        whole = np.count_nonzero(self._alone.nearest(eye, rays)[1] >= 0)
        shown = np.count_nonzero(self._owner[face[face >= 0]] == 0)
        return shown >= _LEAST_SHARE * whole and float(depth.min()) > 1.0

    def from_above(self, day: ThermalDay, camera: Intrinsics, rng: np.random.Generator
                   ) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
        """(frame, uint16 (H, W) centikelvin, of views.from_drone; box of the object in it, pixel edges), in a heat
        state such as one meets, in the open or where something shades it. None where it shows too few pixels."""
        actors = [replace(actor, state=actor.identity.typical_state(rng, actor.moving)) for actor in self._actors]
        draw = from_drone(camera)
        for _ in range(_TRIES):
            pose, k = draw(actors[0], rng)
            eye = pose.position_m.astype(np.float32)
            parts = [(np.arange(_FINE * side) + 0.5) / _FINE for side in (k.width, k.height)]
            rays = _rays(pose, k, *parts)
            depth, face = self._scene.nearest(eye, rays)
            hit = np.flatnonzero(face >= 0)
            if np.count_nonzero(self._owner[face[hit]] == 0) >= _LEAST_PIXELS * _FINE**2 and self._shows(pose, k):
                break
        else:
            return None
        shaded = (rng.random(HISTORY) < 0.5) & (rng.random() > _IN_THE_OPEN)
        place, sky_view = 1.0 - shaded.astype(np.float32), np.float32(rng.uniform(0.6, 1.0))
        stays = [[float(share_stayed(stay_h(actor), block)) for block in range(HISTORY)] for actor in actors]
        air = day.atmosphere()
        radiance = self._warm_ground(pose, k, day, air, place, stays[0], sky_view, rng)
        used, inverse = np.unique(face[hit], return_inverse=True)
        kelvin, view = self._kelvin(actors, stays, used, day, place, sky_view)
        kelvin = kelvin[inverse]
        rays, surface = rays[hit], self._mesh.material[face[hit]]
        points, normal = eye + depth[hit, None] * rays, self._normals[face[hit]]
        grain = texture(surface, points, normal, self._numbers[face[hit]], depth[hit] / np.float32(k.fx))
        kelvin = kelvin + np.abs(day.blotches) * grain.thermal_offset_k
        samples = _apparent(air, surface, kelvin, normal, view[inverse], rays, depth[hit])
        row, column = np.divmod(hit, _FINE * k.width)
        pixel = row // _FINE * k.width + column // _FINE
        cover = np.bincount(pixel, minlength=len(radiance)) / _FINE**2
        radiance = radiance * (1.0 - cover) + np.bincount(pixel, samples, len(radiance)) / _FINE**2
        sensor = ThermalSensor(ThermalSensorParameters().varied(rng), k, int(rng.integers(2**31)))
        frame = sensor.capture(radiance.reshape(k.height, k.width).astype(np.float32),
                               int(day.when.timestamp()) * 1_000_000_000)
        own = np.bincount(pixel[self._owner[face[hit]] == 0], minlength=len(radiance)) / _FINE**2
        rows, columns = np.divmod(np.flatnonzero(own >= 0.5), k.width)
        return frame, (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))

    def _kelvin(self, actors: Sequence[Placed], stays: Sequence[Sequence[float]], faces: np.ndarray, day: ThermalDay,
                place: np.ndarray, sky_view: np.float32) -> tuple[np.ndarray, np.ndarray]:
        """(temperatures, shares of sky in view), float32 (F,), of faces, each by the state of whose it is and by how
        long that has been there. place: as of _warm_ground; stays: likewise, of each actor."""
        outward, kelvin = self._normals[faces], np.empty(len(faces), np.float32)
        view = 0.5 * (1.0 + outward[:, 2]) * sky_view
        for number, actor in enumerate(actors):
            own = np.flatnonzero(self._owner[faces] == number)
            sunlit = STROLLING + np.float32(stays[number]) * (place - STROLLING)
            state = replace(actor.state, solar_w_m2=day.recent_sun_w_m2(sunlit))
            back_k, back = actor.identity.heat(state, day.air_temperature_k)
            zone = self._mesh.zone[faces[own]]
            kelvin[own] = day.temperature_k(
                self._mesh.material[faces[own]], self._mesh.colour[faces[own]], outward[own], view[own],
                np.broadcast_to(sunlit, (len(own), HISTORY)), back_k[zone], back[zone])
        return kelvin, view

    def _warm_ground(self, pose: Pose, k: Intrinsics, day: ThermalDay, air: Atmosphere, place: np.ndarray,
                     stays: Sequence[float], sky_view: np.float32, rng: np.random.Generator) -> np.ndarray:
        """In-band radiance, float32 (N,), of ground of two kinds, cool where the object has shaded it. place, stays:
        shares of each past block (7,) in which the sun shone there, and in which the object has been there."""
        rays = _rays(pose, k, np.arange(k.width) + 0.5, np.arange(k.height) + 0.5)
        eye = pose.position_m.astype(np.float32)
        depth = -eye[2] / rays[:, 2]
        points = eye + depth[:, None] * rays
        away = rng.normal(size=2).astype(np.float32)
        kinds = rng.choice(len(_GROUNDS), 2)
        beyond = points[:, :2] @ (away / np.linalg.norm(away)) > rng.normal(0.0, 3.0)
        surface = np.where(beyond, _GROUNDS[kinds[0]], _GROUNDS[kinds[1]]).astype(np.uint8)
        sunlit = np.repeat(place[None], len(points), axis=0)
        for block, sun in sunny_blocks(day):
            if stays[block] > 0.0 and place[block] > 0.0:
                sunlit[:, block] -= stays[block] * self._scene.occluded(points + np.float32([0.0, 0.0, OFFSET_M]), sun)
        up = np.broadcast_to(np.float32([0.0, 0.0, 1.0]), points.shape)
        kelvin = day.temperature_k(surface, material_arrays().albedo_rgb[surface], up, np.full(len(points), sky_view),
                                   np.maximum(sunlit, 0.0))
        grain = texture(surface, points + np.float32([*rng.uniform(-500.0, 500.0, 2), 0.0]), up,
                        np.zeros(len(points), np.uint32), depth / np.float32(k.fx))
        kelvin = kelvin + day.blotches * grain.thermal_offset_k
        return _apparent(air, surface, kelvin, up, np.full(len(points), sky_view), rays, depth)

    def _surroundings(self, pose: Pose, k: Intrinsics, light: Daylight, rng: np.random.Generator) -> np.ndarray:
        """Linear radiance float32 (N, 3): sky, one wall, ground of two kinds with the object's shadow."""
        eye = pose.position_m.astype(np.float32)
        rays = _rays(pose, k, np.arange(NEAR_PX) + 0.5, np.arange(NEAR_PX) + 0.5)
        radiance = light.sky_rgb(rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            ground = np.where(rays[:, 2] < -1e-4, -eye[2] / rays[:, 2], np.inf)
            away = pose.rotation[:2, 2] / max(np.linalg.norm(pose.rotation[:2, 2]), 1e-6)
            turn = rng.normal(0.0, 0.4)
            facing = np.float32([away[0] * np.cos(turn) - away[1] * np.sin(turn),
                                 away[0] * np.sin(turn) + away[1] * np.cos(turn), 0.0])
            offset = np.float32(0.75 * max(np.ptp(self._own.vertices[:, :2], axis=0)) + rng.exponential(6.0))
            wall = (offset - eye @ facing) / (rays @ facing)
        wall = np.where((wall > 0.0) & (eye[2] + wall * rays[:, 2] < rng.uniform(0.0, 12.0)), wall, np.inf)
        for depth, other, normal, kinds in ((ground, wall, np.float32([0.0, 0.0, 1.0]), _GROUNDS),
                                            (wall, ground, -facing, _WALLS)):
            seen = np.flatnonzero((depth < other) & (depth < 1e3))
            if not len(seen):
                continue
            points = eye + depth[seen, None].astype(np.float32) * rays[seen]
            border = rng.normal(size=3).astype(np.float32)
            border /= np.linalg.norm(border)
            first, second = rng.choice(len(kinds), 2)
            surface = np.where(points @ border < rng.normal(0.0, 2.0), kinds[first], kinds[second]).astype(np.uint8)
            albedo = material_arrays().albedo_rgb[surface] * np.float32(np.exp(rng.normal(0.0, 0.2)))
            grain = texture(surface, points, np.broadcast_to(normal, points.shape), np.zeros(len(seen), np.uint32),
                            depth[seen].astype(np.float32) / np.float32(k.fx))
            albedo = np.clip(albedo * grain.albedo_factor[:, None], 0.0, 0.95)
            lit = ~self._scene.occluded(points + np.float32(0.005) * normal, light.sun_direction)
            direct = max(float(normal @ light.sun_direction), 0.0) * lit[:, None] * light.sun_rgb
            sky = light.ambient_rgb(np.broadcast_to(normal, points.shape), np.full(len(seen), 0.5 + 0.5 * normal[2],
                                                                                   np.float32))
            radiance[seen] = albedo * (direct + sky) / np.pi
        return radiance

    def _lay_over(self, scene: np.ndarray, pose: Pose, k: Intrinsics, light: Daylight, low: np.ndarray,
                  high: np.ndarray) -> None:
        """Put the object over a picture, in place, as render.Renderer shades it."""
        (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, NEAR_PX)
        part = (np.arange(_FINE) + 0.5) / _FINE
        columns, rows = ((np.arange(a, b)[:, None] + part).ravel() for a, b in ((left, right), (top, bottom)))
        rays = _rays(pose, k, columns, rows)
        eye = pose.position_m.astype(np.float32)
        depth, face = self._scene.nearest(eye, rays)
        hit = np.flatnonzero(face >= 0)
        face, rays, depth = face[hit], rays[hit], depth[hit]
        direction = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        normal, points = self._normals[face], eye + depth[:, None] * rays
        surface = self._mesh.material[face]
        grain = texture(surface, points, normal, self._numbers[face], depth / np.float32(k.fx))
        albedo = np.clip(self._mesh.colour[face] * grain.albedo_factor[:, None], 0.0, 0.95)
        lit = self._scene.sunlit(points, normal, light.sun_direction)
        normal = np.where((normal * direction).sum(axis=1, keepdims=True) > 0, -normal, normal)
        shade = light.ambient_rgb(normal, 0.5 + 0.5 * normal[:, 2])
        shade = shade + (np.maximum(normal @ light.sun_direction, 0.0) * lit)[:, None] * light.sun_rgb
        colour = albedo * shade / np.pi
        glossy = np.flatnonzero(material_arrays().roughness[surface] < 0.25)
        if len(glossy):
            along = (normal[glossy] * direction[glossy]).sum(axis=1)
            mirrored = direction[glossy] - 2.0 * along[:, None] * normal[glossy]
            seen = np.where(mirrored[:, 2:] > 0, light.sky_rgb(mirrored), light.surroundings_rgb / np.pi)
            first = np.where((surface[glossy] == Surface.BARE_METAL)[:, None], 0.5 * albedo[glossy], 0.04)
            share = first + (1.0 - first) * ((1.0 - np.clip(-along, 0.0, 1.0)) ** 5)[:, None]
            colour[glossy] = colour[glossy] * (1.0 - share) + share * seen
        fine = np.zeros((len(rows) * len(columns), 4), np.float32)
        fine[hit, :3], fine[hit, 3] = colour, 1.0
        fine = fine.reshape(bottom - top, _FINE, right - left, _FINE, 4).mean(axis=(1, 3))
        scene[top:bottom, left:right] = scene[top:bottom, left:right] * (1.0 - fine[..., 3:]) + fine[..., :3]


def light_of(rng: np.random.Generator) -> Daylight:
    """Of a sun 8 to 60 degrees up, from any side, in any weather."""
    elevation, bearing = np.radians(rng.uniform(8.0, 60.0)), rng.uniform(0.0, 2.0 * np.pi)
    sun = np.float32([np.cos(elevation) * np.cos(bearing), np.cos(elevation) * np.sin(bearing), np.sin(elevation)])
    return Daylight(sun, float(rng.choice([0.0, 0.3, 0.7, 1.0])))


def day_of(rng: np.random.Generator) -> ThermalDay:
    """Of any hour of any day somewhere in Europe, in weather as it may well be then."""
    day = date(2025, 1, 1) + timedelta(days=int(rng.integers(365)))
    when, latitude_deg = solar_time(day.isoformat(), float(rng.uniform(0.0, 24.0)), 0.0), rng.uniform(*_LATITUDES_DEG)
    return ThermalDay(latitude_deg, 0.0, when, Weather.typical(latitude_deg, when, int(rng.integers(2**31))))


def _apparent(air: Atmosphere, surface: np.ndarray, kelvin: np.ndarray, normal: np.ndarray, sky_view: np.ndarray,
              rays: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """In-band radiance at the camera of what rays of a depth of one meet, float32 (N,)."""
    length = np.linalg.norm(rays, axis=1)
    direction = rays / length[:, None]
    along = np.einsum("ij,ij->i", normal, direction)
    normal, along = np.where(along[:, None] > 0, -normal, normal), -np.abs(along)
    return air.apparent_radiance(surface, kelvin, -along, sky_view, depth * length,
                                 direction[:, 2] - 2.0 * along * normal[:, 2])


def _rays(pose: Pose, k: Intrinsics, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """World directions through these places of the picture, row by row, with a depth of one; float32 (N, 3)."""
    right, down, forward = pose.rotation.T.astype(np.float32)
    x, y = ((columns - k.cx) / k.fx).astype(np.float32), ((rows - k.cy) / k.fy).astype(np.float32)
    return ((y[:, None] * down + forward)[:, None] + x[:, None] * right).reshape(-1, 3)
