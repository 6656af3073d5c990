"""Sketches: many identities photographed near by, each alone on a plain ground before a wall, by day.

The same bodies, paints and light as in the city, without the city: a hundred times as fast, for what must be learned
of very many identities. Crops are those of `pairs`, and so are the sets: one file a session.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.files import write_atomically
from thermalreid_ros.world.actors import CLASSES, HeatState, Identity, make_identity
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.daylight import Daylight
from thermalreid_ros.world.film import claim_folder, refuse_finished
from thermalreid_ros.world.materials import Surface, material_arrays
from thermalreid_ros.world.pairs import NEAR_PX, groups_of, window
from thermalreid_ros.world.population import Placed
from thermalreid_ros.world.raycast import Scene
from thermalreid_ros.world.textures import texture
from thermalreid_ros.world.views import near_by
from thermalreid_ros.world.workers import run_missing

_LIGHTS = 12  # of a session
_FINE = 2  # rays per pixel and axis on the object
_GROUNDS = (Surface.ASPHALT, Surface.PAVING, Surface.CONCRETE, Surface.GRAVEL, Surface.GRASS, Surface.DRY_GRASS,
            Surface.SOIL)
_WALLS = (Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_CONCRETE, Surface.GRASS)


@dataclass(frozen=True)
class SketchPlan:
    """identities: of all these classes together, in equal shares. views: of each identity. group: identities in a
    session, which share some lights."""

    seed: int
    identities: int
    classes: tuple[str, ...] = CLASSES
    views: int = 4
    group: int = 96

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
        with np.load(_path(out, session)) as stored:
            count = len(stored["label"])
        total += count
        yield count
    write_atomically(out / "index.json", json.dumps({"seed": plan.seed, "arguments": dict(arguments),
                                                     "sketches": total}, indent=1, default=str) + "\n")


def _path(out: Path, session: int) -> Path:
    return out / "sessions" / f"{session:04d}.npz"


class _Sketcher:
    def __init__(self, plan: SketchPlan, out: Path):
        self._plan, self._out, self._groups = plan, out, plan.groups()

    def __call__(self, session: int) -> int:
        rng = np.random.default_rng(np.random.SeedSequence([self._plan.seed, 0x5CE, session]))
        lights = [light_of(rng) for _ in range(_LIGHTS)]
        rows = []
        for name, number in self._groups[session]:
            identity = make_identity(name, number, self._plan.seed)
            moving, phase = bool(rng.random() < 0.5), float(rng.random())
            body = Body(identity, phase, moving)
            for _ in range(self._plan.views):
                rows.append((CLASSES.index(name), body.sketch(lights[rng.integers(_LIGHTS)], rng),
                             np.float32(identity.size_m), identity.name))
        label, colour, size_m, names = zip(*rows)
        buffer = io.BytesIO()
        np.savez(buffer, label=np.array(label), colour=np.stack(colour), size_m=np.stack(size_m),
                 identity=np.array(names), seed=self._plan.seed)
        write_atomically(_path(self._out, session), buffer.getvalue())
        return len(rows)


class Body:
    """An identity in one pose, on the ground at the origin. moving, phase: as of Placed; a bicycle that moves is
    ridden."""

    def __init__(self, identity: Identity, phase: float, moving: bool):
        self._actor = Placed(identity, 0.0, 0.0, 0.0, 0.0, phase, HeatState(), moving, moving)
        self._mesh = identity.mesh(phase, moving)
        self._scene, self._normals = Scene(self._mesh), self._mesh.normals

    def sketch(self, light: Daylight, rng: np.random.Generator) -> np.ndarray:
        """uint8 (NEAR_PX, NEAR_PX, 3), RGB: the square of STORED_MARGIN around it, from a camera of views.near_by."""
        pose, intrinsics = near_by()(self._actor, rng)
        corners = pose.to_camera(self._mesh.vertices)
        k = window(intrinsics, intrinsics.project(corners), NEAR_PX)
        scene = self._surroundings(pose, k, light, rng).reshape(NEAR_PX, NEAR_PX, 3)
        pixels = k.project(corners)
        self._lay_over(scene, pose, k, light, np.floor(pixels.min(axis=0)).astype(int),
                       np.ceil(pixels.max(axis=0)).astype(int))
        camera = ColourCamera(ColourCameraParameters().varied(rng), k, int(rng.integers(2**31)))
        return camera.capture(scene, 0)

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
            offset = np.float32(0.75 * max(np.ptp(self._mesh.vertices[:, :2], axis=0)) + rng.exponential(6.0))
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
        grain = texture(surface, points, normal, np.full(len(hit), self._actor.identity.number, np.uint32),
                        depth / np.float32(k.fx))
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


def _rays(pose: Pose, k: Intrinsics, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """World directions through these places of the picture, row by row, with a depth of one; float32 (N, 3)."""
    right, down, forward = pose.rotation.T.astype(np.float32)
    x, y = ((columns - k.cx) / k.fx).astype(np.float32), ((rows - k.cy) / k.fy).astype(np.float32)
    return ((y[:, None] * down + forward)[:, None] + x[:, None] * right).reshape(-1, 3)
