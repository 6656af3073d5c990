"""Pictures of the virtual city: what each pixel sees, how warm it is, and how both bands show it.

One ray through the centre of each pixel finds the city; actors, which are small in the picture, are sampled
several times per pixel. The thermal band adds emission, reflections and the air between (radiometry.py); the
visible band adds sun, sky, lamps and shadows (daylight.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import NO_DATA
from thermalreid_ros.world.city import GROUND, City
from thermalreid_ros.world.daylight import STREET_LAMP_RGB, Daylight
from thermalreid_ros.world.materials import Surface, material_arrays
from thermalreid_ros.world.mesh import Mesh
from thermalreid_ros.world.population import Placed
from thermalreid_ros.world.raycast import OFFSET_M, Scene, hemisphere
from thermalreid_ros.world.sun import sun_direction
from thermalreid_ros.world.textures import facade, texture
from thermalreid_ros.world.thermal import HISTORY_EDGES_H, ThermalDay
from thermalreid_ros.world.weather import Weather

HISTORY = len(HISTORY_EDGES_H) - 1
_GRID_M = 2.0  # of the ground's light and warmth
_SKY_GRID_M = 4.0
_SKY_LEVELS = 11
_NEAR_M = 0.1
_BODIES = 2000  # actors' meshes kept ready for rays
_bodies: dict[tuple, _Body] = {}
_SKY_DIRECTIONS = hemisphere(24)
_CONTACT_DIRECTIONS = hemisphere(8)  # for the darker, at night warmer ground beside actors
_NO_OBJECT = np.uint32(0xFFFFFFFF)  # the ground's textures go on across it
_WALLS = (Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_CONCRETE, Surface.WALL_WOOD, Surface.WALL_METAL)
_BEYOND = Surface.DRY_GRASS  # what the ground outside of the area is taken for
_LAMP_SPACING_M = 30.0
_LAMP_REACH_M = 9.0
_LONGEST_SHADOW_M = 12.0  # of actors; longer ones, of a sun low in the sky, are cut
STROLLING = 0.5  # share of the past in which what moves was in the sun


class RenderError(ThermalReidError):
    """A picture that cannot be taken."""


@dataclass(frozen=True)
class TruthBox:
    """An actor in a picture. Pixel edges.

    actor: index into the actors given. box: of its visible pixels, (x_min, y_min, x_max, y_max). whole_box: of
    all its pixels, were nothing in front of it; both end at the picture's edge. visible_share: of its area
    within the picture.
    """

    actor: int
    box: tuple[float, float, float, float]
    whole_box: tuple[float, float, float, float]
    visible_share: float


@dataclass(frozen=True, eq=False)
class Capture:
    """One picture of everything, arrays (H, W) by rows from the top.

    radiance: float32, in-band (8-14 um) W m-2 sr-1 that reaches the camera. colour: float32 (H, W, 3), linear
    sRGB radiance in the units of daylight.py; None where not asked for. semantic: uint8, SemanticClass, actors
    being what they stand on; NO_DATA outside of the area. instance: uint16, 0 or the actor's index + 1.
    depth_m: float32, along the optical axis; infinity in the sky. boxes: actors of which something is visible.
    """

    radiance: np.ndarray
    colour: np.ndarray | None
    semantic: np.ndarray
    instance: np.ndarray
    depth_m: np.ndarray
    boxes: tuple[TruthBox, ...]
    pose: Pose
    intrinsics: Intrinsics
    when: datetime


@dataclass
class _Hits:
    """What N rays see. lit: share of the direct sun, 0..1, visible band only."""

    position: np.ndarray  # (N, 3)
    normal: np.ndarray  # (N, 3)
    direction: np.ndarray  # (N, 3), unit, away from the camera
    range_m: np.ndarray
    surface: np.ndarray
    albedo: np.ndarray  # (N, 3)
    temperature_k: np.ndarray
    sky_view: np.ndarray
    ambient: np.ndarray  # (N, 3), irradiance
    lamp: np.ndarray  # (N,), share of a lit street's light
    lit: np.ndarray


class Renderer:
    """Takes pictures of a city. One for each process: Embree's scenes are not shared.

    Call set_time before capture; pictures within some minutes of each other may share it.
    The sun's direction is that of true north, the city's that of its grid: they differ by the convergence of the
    map, three degrees at most in a zone's own six, five at the edges of a map as wide as maps may be.
    """

    def __init__(self, city: City, weather: Weather):
        self.city, self.weather = city, weather
        mesh = city.mesh
        self._scene = Scene(mesh)
        self._patches = _Patches(city)
        self._ground = _Ground(city, self._scene)
        self._sky_view = self._patches.sky_view(self._scene)
        self._lamps = _street_lamps(city, self._ground)

    def set_time(self, when: datetime, weather: Weather | None = None) -> None:
        """Let the sun and the weather have warmed everything up to an instant (aware datetime). weather: of another
        day, kept from then on."""
        city, patches = self.city, self._patches
        self.when, self.weather = when, weather or self.weather
        self._day = day = ThermalDay(city.latitude_deg, city.longitude_deg, when, self.weather)
        self._sun = sun_direction(city.latitude_deg, city.longitude_deg, when).astype(np.float32)
        self._daylight = Daylight(self._sun, self.weather.cloud_cover)
        self._air = day.atmosphere()
        self._grain = day.blotches
        self._lamps_on = self._sun[2] < np.sin(np.radians(-1.0))

        sunlit = np.zeros((patches.count, HISTORY), np.float32)
        for block, sun in sunny_blocks(day):
            sunlit[:, block] = patches.sunlit(self._scene, sun)
        self._patch_k = day.temperature_k(patches.surface, patches.colour, patches.normal, self._sky_view, sunlit)
        walls = patches.walls
        self._window_k = self._patch_k.copy()
        self._window_k[walls] = day.temperature_k(
            np.full(len(walls), Surface.WINDOW, np.uint8), _default_colour(np.full(len(walls), Surface.WINDOW)),
            patches.normal[walls], self._sky_view[walls], sunlit[walls])
        self._patch_ambient = self._daylight.ambient_rgb(patches.normal, self._sky_view)
        self._ground.warm(day, self._scene)

    def capture(self, pose: Pose, intrinsics: Intrinsics, actors: Sequence[Placed], *, colour: bool = True,
                supersample: int = 3) -> Capture:
        """One picture.

        supersample: rays per pixel and axis on actors, odd, since the middle one makes the masks; RenderError
        otherwise.
        """
        if supersample < 1 or supersample % 2 == 0:
            raise RenderError(f"supersample is {supersample}; an odd number has a ray through the middle of a pixel")
        shape = (intrinsics.height, intrinsics.width)
        eye = pose.position_m.astype(np.float32)
        directions = _picture_rays(intrinsics, pose)
        depth, face = self._scene.nearest(eye, directions)
        # Beyond the area lies a plain.
        beyond = np.flatnonzero((face < 0) & (directions[:, 2] < -1e-3))
        depth[beyond] = (self._ground.level - eye[2]) / directions[beyond, 2]
        scale = np.linalg.norm(directions, axis=1)
        sky = np.flatnonzero(~np.isfinite(depth))
        near = depth.copy()
        near[sky] = 1.0

        hits, semantic = self._city_hits(eye, directions, near, face, scale, intrinsics)
        view = _View(self, pose, intrinsics, actors, depth, supersample)
        view.shade(hits, face, colour)
        if colour and self._sun[2] > 0 and self._daylight.sun_rgb.any():
            open_air = np.flatnonzero(hits.lit > 0)
            hits.lit[open_air] = self._scene.sunlit(hits.position[open_air], hits.normal[open_air], self._sun)

        radiance = self._radiance(hits)
        picture = self._colour(hits) if colour else None
        if len(sky):
            radiance[sky] = self._air.sky_radiance(hits.direction[sky, 2])
            semantic[sky] = NO_DATA
            if colour:
                picture[sky] = self._daylight.sky_rgb(hits.direction[sky])
        if len(view.pixel):
            samples = view.hits(colour)
            view.blend(radiance, self._radiance(samples))
            if colour:
                view.blend(picture, self._colour(samples))
        instance, boxes = view.truth(depth)
        return Capture(radiance.reshape(shape), None if picture is None else picture.reshape(*shape, 3),
                       semantic.reshape(shape), instance, depth.reshape(shape), boxes, pose, intrinsics, self.when)

    def sees(self, pose: Pose, point_m: np.ndarray) -> bool:
        """Whether nothing of the city stands between a camera and a point."""
        eye = pose.position_m.astype(np.float32)
        depth, _ = self._scene.nearest(eye, (np.asarray(point_m, np.float32) - eye)[None])
        return bool(depth[0] > 1.0)

    def body(self, actor: Placed) -> _Body:
        """The actor's mesh in its pose; gaits move in steps of a thirty-second of a cycle. All renderers of a process
        share them: sessions of a data set meet the same identities again and again."""
        phase = round(actor.phase * 32) % 32 / 32
        key = (type(actor.identity), actor.identity.number, actor.identity.seed, phase, actor.moving or actor.ridden)
        if key not in _bodies:
            if len(_bodies) >= _BODIES:
                _bodies.clear()
            mesh = actor.identity.mesh(phase, actor.moving or actor.ridden)
            box = np.stack([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)]).astype(np.float64)
            _bodies[key] = _Body(Scene(mesh), mesh, mesh.normals, box)
        return _bodies[key]

    def _city_hits(self, eye, directions, depth, face, scale, intrinsics) -> tuple[_Hits, np.ndarray]:
        city, patches, ground = self.city, self._patches, self._ground
        position = directions * depth[:, None]
        position += eye
        direction = directions / scale[:, None]
        range_m = depth * scale
        on_ground = np.flatnonzero((face < 0) | patches.is_terrain[face])
        built = np.flatnonzero((face >= 0) & ~patches.is_terrain[face])

        count = len(face)
        normal, albedo, ambient = (np.empty((count, 3), np.float32) for _ in range(3))
        surface, semantic, seed = np.empty(count, np.uint8), np.empty(count, np.uint8), np.full(count, _NO_OBJECT)
        temperature_k, sky_view = np.empty(count, np.float32), np.empty(count, np.float32)

        own = patches.of_face[face[built]]
        faces = face[built]
        surface[built] = city.mesh.material[faces]
        semantic[built] = city.semantic[faces]
        normal[built], albedo[built] = patches.normal[own], city.mesh.colour[faces]
        temperature_k[built], sky_view[built] = self._patch_k[own], self._sky_view[own]
        ambient[built] = self._patch_ambient[own]
        things = city.object_id[faces]
        seed[built] = city.object_seed[things]

        walls = built[patches.is_wall[own]]
        if len(walls):
            own, things = patches.of_face[face[walls]], city.object_id[face[walls]]
            base_z = city.object_base_z[things]
            panes = facade(position[walls], normal[walls], base_z, seed[walls], patches.top_z[own] - base_z)
            glass = walls[panes.window]
            surface[glass] = Surface.WINDOW
            albedo[glass] = _default_colour(surface[glass])
            temperature_k[glass] = self._window_k[own[panes.window]]

        places = position[on_ground]
        cells = ground.surfaces(places, face[on_ground] >= 0)
        surface[on_ground], semantic[on_ground] = cells
        normal[on_ground] = (0.0, 0.0, 1.0)
        albedo[on_ground] = _default_colour(surface[on_ground])
        temperature_k[on_ground], sky_view[on_ground] = ground.temperature_k(places, surface[on_ground])
        up = self._daylight.sky_irradiance_rgb
        around = self._daylight.surroundings_rgb
        ambient[on_ground] = around + sky_view[on_ground, None] * (up - around)

        cosine = np.maximum(-np.einsum("ij,ij->i", normal, direction), np.float32(0.15))
        footprint = range_m / (np.float32(intrinsics.fx) * cosine)
        grain = texture(surface, position, normal, seed, footprint)
        albedo *= grain.albedo_factor[:, None]
        np.clip(albedo, 0.0, 0.95, out=albedo)
        temperature_k += self._grain * grain.thermal_offset_k
        lamp = ground.sample(self._lamps, position) if self._lamps_on else np.zeros(count, np.float32)
        return _Hits(position, normal, direction, range_m, surface, albedo, temperature_k, sky_view, ambient, lamp,
                     np.ones(count, np.float32)), semantic

    def _radiance(self, hits: _Hits) -> np.ndarray:
        """In-band radiance at the camera, float32 (N,)."""
        along = np.einsum("ij,ij->i", hits.normal, hits.direction)
        mirrored = hits.direction[:, 2] - 2.0 * along * hits.normal[:, 2]
        return self._air.apparent_radiance(hits.surface, hits.temperature_k, -along, hits.sky_view, hits.range_m,
                                           mirrored)

    def _colour(self, hits: _Hits) -> np.ndarray:
        """Linear radiance at the camera, float32 (N, 3)."""
        light = hits.ambient.copy()
        facing = np.maximum(np.einsum("ij,j->i", hits.normal, self._sun), np.float32(0)) * hits.lit
        light += facing[:, None] * self._daylight.sun_rgb
        if self._lamps_on:
            light += hits.lamp[:, None] * STREET_LAMP_RGB
        light *= hits.albedo
        light *= np.float32(1 / np.pi)
        glossy = np.flatnonzero(material_arrays().roughness[hits.surface] < 0.25)
        if len(glossy):
            normal, direction = hits.normal[glossy], hits.direction[glossy]
            along = np.einsum("ij,ij->i", normal, direction)
            mirrored = direction - 2.0 * along[:, None] * normal
            # What mirrors the street below it shows its mean light.
            seen = np.where(mirrored[:, 2:] > 0, self._daylight.sky_rgb(mirrored),
                            self._daylight.surroundings_rgb * np.float32(1 / np.pi))
            surface = hits.surface[glossy]
            metal = (surface == Surface.BARE_METAL)[:, None]
            first = np.where(metal, 0.5 * hits.albedo[glossy], np.float32(0.04))
            away = (1.0 - np.clip(-along, 0.0, 1.0)) ** 5
            share = first + (1.0 - first) * away[:, None]
            light[glossy] = light[glossy] * (1.0 - share) + share * seen
        return light


class _Patches:
    """Faces of one object that look the same way and are made of the same: they share a temperature and their light,
    the mean over their faces by area. Foliage is spared the shadow rays: its leaves stay near the air's temperature."""

    def __init__(self, city: City):
        mesh = city.mesh
        normals = mesh.normals
        self.is_terrain = mesh.material == GROUND
        a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
        self.centres = ((a + b + c) / 3.0).astype(np.float32)
        area = (0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)).astype(np.float64)
        facing = np.round(normals * 32.0).astype(np.int64) + 32
        key = (facing[:, 0] * 65 + facing[:, 1]) * 65 + facing[:, 2]
        key = (key * 64 + np.minimum(mesh.material, 63)) * (int(city.object_id.max(initial=0)) + 2) + city.object_id + 1
        key[self.is_terrain] = -1
        _, first, self.of_face = np.unique(key, return_index=True, return_inverse=True)
        self.of_face = self.of_face.astype(np.int32)
        self.count = len(first)
        self.surface = np.where(self.is_terrain[first], Surface.GRASS, mesh.material[first]).astype(np.uint8)
        self.colour = mesh.colour[first]
        self.normal = normals[first]
        # Leaves hang at all angles: a crown is lit far more evenly than its hull.
        foliage = self.surface == Surface.FOLIAGE
        self.normal[foliage] = self.normal[foliage] * np.float32(0.45) + np.float32([0, 0, 0.55])
        self.normal[foliage] /= np.linalg.norm(self.normal[foliage], axis=1, keepdims=True)
        self.is_wall = np.isin(self.surface, _WALLS)
        self.walls = np.flatnonzero(self.is_wall)
        self.top_z = np.full(self.count, -np.inf, np.float32)
        np.maximum.at(self.top_z, self.of_face, np.maximum(np.maximum(a[:, 2], b[:, 2]), c[:, 2]))
        leaves = (self.surface == Surface.FOLIAGE) | (self.surface == Surface.BARK) | self.is_terrain[first]
        self._shadowed = np.flatnonzero(~leaves[self.of_face])
        self._normals = normals[self._shadowed]
        self._weight = area[self._shadowed]
        self._owner = self.of_face[self._shadowed]
        self._total = np.maximum(np.bincount(self._owner, self._weight, self.count), 1e-12)
        self._leaves = np.flatnonzero(leaves)

    def sunlit(self, scene: Scene, sun: np.ndarray) -> np.ndarray:
        """Share of each patch that the sun reaches, float32 (P,)."""
        lit = scene.sunlit(self.centres[self._shadowed], self._normals, sun)
        share = (np.bincount(self._owner, self._weight * lit, self.count) / self._total).astype(np.float32)
        share[self._leaves] = 0.7
        return share

    def sky_view(self, scene: Scene) -> np.ndarray:
        """Share of sky in what each patch faces, float32 (P,)."""
        seen = scene.sky_view(self.centres[self._shadowed], self._normals, _SKY_DIRECTIONS)
        view = (np.bincount(self._owner, self._weight * seen, self.count) / self._total).astype(np.float32)
        view[self._leaves] = 0.5 * (1.0 + self.normal[self._leaves, 2]) * 0.8 + 0.1
        return view


class _Ground:
    """The ground's surfaces, light and warmth on grids over the area; rows from the south, columns from the west."""

    def __init__(self, city: City, scene: Scene):
        self.city = city
        x_min, y_min, x_max, y_max = city.bounds
        self.origin = np.array([x_min, y_min], np.float32)
        self.level = np.float32(np.median(city.relief.heights))
        self.points = self._points(_GRID_M)
        self._up = np.broadcast_to(np.float32([0, 0, 1]), self.points.reshape(-1, 3).shape)
        coarse = self._points(_SKY_GRID_M)
        flat = coarse.reshape(-1, 3)
        view = scene.sky_view(flat, np.broadcast_to(np.float32([0, 0, 1]), flat.shape), _SKY_DIRECTIONS)
        rows, columns = self.points.shape[:2]
        self.sky = cv2.resize(view.reshape(coarse.shape[:2]), (columns, rows), interpolation=cv2.INTER_LINEAR)
        self.present = np.unique(city.plan.surface)
        if _BEYOND not in self.present:
            self.present = np.append(self.present, np.uint8(_BEYOND))
        self._slot = np.zeros(256, np.int32)
        self._slot[self.present] = np.arange(len(self.present))

    def _points(self, step_m: float) -> np.ndarray:
        x_min, y_min, x_max, y_max = self.city.bounds
        x, y = np.arange(x_min + step_m / 2, x_max, step_m), np.arange(y_min + step_m / 2, y_max, step_m)
        x, y = np.meshgrid(x, y)
        z = self.city.relief.height_m(x.ravel(), y.ravel()).reshape(x.shape)
        return np.ascontiguousarray(np.stack([x, y, z], axis=-1), np.float32)

    def warm(self, day: ThermalDay, scene: Scene) -> None:
        """Temperatures of every surface present, in every cell."""
        points = self.points.reshape(-1, 3)
        # A bit for each block of the past in which the sun reached the cell.
        self.sunlit = np.zeros(self.sky.shape, np.uint8)
        for block, sun in sunny_blocks(day):
            self.sunlit |= (scene.sunlit(points, self._up, sun).reshape(self.sky.shape) << block).astype(np.uint8)
        kinds, patterns = len(self.present), 1 << HISTORY
        bits = (np.arange(patterns)[:, None] >> np.arange(HISTORY)) & 1
        surface, pattern, level = (grid.ravel() for grid in np.meshgrid(
            self.present, np.arange(patterns), np.linspace(0.0, 1.0, _SKY_LEVELS), indexing="ij"))
        up = np.broadcast_to(np.float32([0, 0, 1]), (len(surface), 3))
        self._table = day.temperature_k(surface, _default_colour(surface), up, level.astype(np.float32),
                                        bits[pattern].astype(np.float32)).reshape(kinds, patterns, _SKY_LEVELS)
        low, part = self._level(self.sky)
        self._kelvin = np.empty((kinds, *self.sky.shape), np.float32)
        for kind, table in enumerate(self._table):
            self._kelvin[kind] = table[self.sunlit, low] * (1 - part) + table[self.sunlit, low + 1] * part

    def shadow_k(self, position: np.ndarray, surface: np.ndarray, dark: np.ndarray) -> np.ndarray:
        """How much a shadow changes the temperature of points on the ground, kelvin, (N,). dark: a bit for each block
        of the past that the shadow has lasted through."""
        cell = self.cells(position)
        kind, sunlit = self._slot[surface], self.sunlit.ravel()[cell]
        level = np.rint(self.sky.ravel()[cell] * (_SKY_LEVELS - 1)).astype(np.int32)
        return self._table[kind, sunlit & ~dark, level] - self._table[kind, sunlit, level]

    @staticmethod
    def _level(sky_view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position = np.clip(sky_view, 0.0, 1.0) * np.float32(_SKY_LEVELS - 1)
        low = np.minimum(position.astype(np.int32), _SKY_LEVELS - 2)
        return low, position - low

    def surfaces(self, position: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(surface, semantic class), uint8 (N,), of points on the ground; outside of the area _BEYOND and NO_DATA."""
        plan = self.city.plan
        x_min, _, _, y_max = self.city.bounds
        rows, columns = plan.surface.shape
        scale = np.float32(1 / plan.resolution_m)
        u = np.clip((position[:, 0] - np.float32(x_min)) * scale - np.float32(0.5), 0, columns - 1.001)
        v = np.clip((np.float32(y_max) - position[:, 1]) * scale - np.float32(0.5), 0, rows - 1.001)
        column, row = u.astype(np.int32), v.astype(np.int32)
        first = row * np.int32(columns) + column
        cells = plan.surface.ravel()
        around = [cells.take(first + offset) for offset in (0, 1, columns, columns + 1)]
        chosen = first.copy()
        edge = np.flatnonzero((around[0] != around[1]) | (around[0] != around[2]) | (around[0] != around[3]))
        if len(edge):
            # Between cells that differ the heaviest surface wins, bilinearly: borders run straight, not in steps.
            a, b = u[edge] - column[edge], v[edge] - row[edge]
            weights = np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])
            kinds = np.stack([kind[edge] for kind in around])
            votes = ((kinds[:, None] == kinds[None]) * weights[None]).sum(axis=1)
            best = votes.argmax(axis=0)
            chosen[edge] += np.array([0, 1, columns, columns + 1], np.int32)[best]
        surface, semantic = cells.take(chosen), plan.semantic.ravel().take(chosen)
        surface[~inside], semantic[~inside] = _BEYOND, NO_DATA
        return surface, semantic

    def temperature_k(self, position: np.ndarray, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(temperature, sky view), float32 (N,), bilinear, of points on the ground."""
        (first, columns), weights = self._corners(position)
        kind = self._slot[surface].astype(np.int64) * self.sky.size
        kelvin, sky = self._kelvin.ravel(), self.sky.ravel()
        temperature_k, view = np.zeros(len(surface), np.float32), np.zeros(len(surface), np.float32)
        for offset, weight in zip((0, 1, columns, columns + 1), weights):
            temperature_k += weight * kelvin.take(kind + (first + offset))
            view += weight * sky.take(first + offset)
        return temperature_k, view

    def sample(self, grid: np.ndarray, position: np.ndarray) -> np.ndarray:
        """A grid's values below points, float32 (N,), bilinear."""
        (first, columns), weights = self._corners(position)
        values = grid.ravel()
        return sum(weight * values.take(first + offset)
                   for offset, weight in zip((0, 1, columns, columns + 1), weights))

    def cells(self, position: np.ndarray) -> np.ndarray:
        """Index of the nearest cell of the raveled grids, (N,)."""
        rows, columns = self.sky.shape
        column, row = ((position[:, :2] - self.origin) * np.float32(1 / _GRID_M)).astype(np.int32).T
        return np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)

    def _corners(self, position: np.ndarray):
        rows, columns = self.sky.shape
        x = np.clip((position[:, 0] - self.origin[0]) * np.float32(1 / _GRID_M) - np.float32(0.5), 0, columns - 1.001)
        y = np.clip((position[:, 1] - self.origin[1]) * np.float32(1 / _GRID_M) - np.float32(0.5), 0, rows - 1.001)
        column, row = x.astype(np.int32), y.astype(np.int32)
        a, b = x - column, y - row
        return (row * np.int32(columns) + column, columns), ((1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b)


@dataclass(frozen=True, eq=False)
class _Body:
    """An actor's mesh in its own frame, ready for rays."""

    scene: Scene
    mesh: Mesh
    normals: np.ndarray
    box: np.ndarray  # (2, 3), lowest and highest corner


class _View:
    """The actors as one camera sees them.

    Samples, hits of the finer rays that reach the camera: pixel (S,), index into the raveled picture; actor (S,);
    depth (S,); central (S,), whether the ray runs through the middle of its pixel.
    """

    def __init__(self, renderer: Renderer, pose: Pose, intrinsics: Intrinsics, actors: Sequence[Placed],
                 depth: np.ndarray, supersample: int):
        self.renderer, self.pose, self.intrinsics, self.actors = renderer, pose, intrinsics, actors
        self.supersample = supersample
        self.seen: list[tuple[int, _Body, np.ndarray, tuple[int, int, int, int]]] = []
        per_pixel = supersample * supersample
        found: list[tuple[np.ndarray, ...]] = []
        self.whole: dict[int, tuple[int, tuple[float, float, float, float]]] = {}
        # Ground and actor meet in one pixel: within two pixels' width the actor is in front.
        limit = depth * np.float32(1.0 + 2.0 / intrinsics.fx)
        for number, actor in enumerate(actors):
            rect = self._rectangle(_world_box(actor, renderer.body(actor)))
            if rect is None:
                continue
            body = renderer.body(actor)
            to_body = _turn(-actor.yaw_rad)
            eye = to_body @ (pose.position_m - (actor.x, actor.y, actor.z))
            pixel, part, rays = self._fine_rays(rect, (to_body @ pose.rotation))
            distance, face = body.scene.nearest(eye.astype(np.float32), rays)
            hit = np.flatnonzero(face >= 0)
            self.seen.append((number, body, to_body, rect))
            if not len(hit):
                continue
            pixel, part, distance, face = pixel[hit], part[hit], distance[hit], face[hit]
            self.whole[number] = (len(hit), self._box(pixel[part == per_pixel // 2]))
            free = np.flatnonzero(distance < limit[pixel])
            found.append((pixel[free] * per_pixel + part[free], distance[free], face[free],
                          np.full(len(free), number, np.int32), rays[hit[free]]))
        empty = (np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32),
                 np.zeros((0, 3), np.float32))
        place, distance, face, actor, local = (np.concatenate(columns) for columns in zip(*(found or [empty])))
        order = np.lexsort((distance, place))
        order = order[np.diff(place[order], prepend=-1) > 0]  # the nearest on each ray
        self.depth, self.face, self.actor, self._local = distance[order], face[order], actor[order], local[order]
        self.pixel, part = np.divmod(place[order], per_pixel)
        self.central = part == per_pixel // 2

    def hits(self, colour: bool) -> _Hits:
        """What the samples see."""
        renderer, count = self.renderer, len(self.pixel)
        normal, position, albedo = (np.empty((count, 3), np.float32) for _ in range(3))
        surface, temperature_k = np.empty(count, np.uint8), np.empty(count, np.float32)
        sky_view = np.empty(count, np.float32)
        lit = np.ones(count, np.float32)
        order = np.argsort(self.actor, kind="stable")
        edges = np.searchsorted(self.actor[order], np.arange(len(self.actors) + 1))
        place = np.array([(a.x, a.y, a.z) for a in self.actors], np.float32)
        ground_view = renderer._ground.sample(renderer._ground.sky, place)
        sunlit = self._history(place)
        for number, body, to_body, _ in self.seen:
            own = order[edges[number]:edges[number + 1]]
            if not len(own):
                continue
            actor, mesh, faces = self.actors[number], body.mesh, self.face[own]
            to_world = to_body.T.astype(np.float32)
            used, inverse = np.unique(faces, return_inverse=True)
            outward = body.normals[used] @ to_world.T
            view = 0.5 * (1.0 + outward[:, 2]) * ground_view[number]
            air_k = renderer._day.air_temperature_k
            back_k, back = actor.identity.heat(self._state(actor, sunlit[number]), air_k)
            zone = mesh.zone[used]
            kelvin = renderer._day.temperature_k(
                mesh.material[used], mesh.colour[used], outward, view,
                np.broadcast_to(sunlit[number], (len(used), HISTORY)), back_k[zone], back[zone])
            surface[own], albedo[own] = mesh.material[faces], mesh.colour[faces]
            normal[own], sky_view[own], temperature_k[own] = outward[inverse], view[inverse], kelvin[inverse]
            eye = to_body @ (self.pose.position_m - (actor.x, actor.y, actor.z))
            local = eye.astype(np.float32) + self._local[own] * self.depth[own, None]
            position[own] = local @ to_world.T + place[number]
            grain = texture(surface[own], local, body.normals[faces], np.full(len(own), actor.identity.number),
                            self.depth[own] / np.float32(self.intrinsics.fx))
            albedo[own] = np.clip(albedo[own] * grain.albedo_factor[:, None], 0.0, 0.95)
            temperature_k[own] += np.abs(renderer._grain) * grain.thermal_offset_k
            if colour and renderer._sun[2] > 0:
                sun = (to_body @ renderer._sun).astype(np.float32)
                lit[own] = body.scene.sunlit(local, body.normals[faces], sun)
        direction = position - self.pose.position_m.astype(np.float32)
        range_m = np.linalg.norm(direction, axis=1)
        direction /= np.maximum(range_m, 1e-6)[:, None]
        if colour and renderer._sun[2] > 0:
            bright = np.flatnonzero(lit > 0)
            lit[bright] = renderer._scene.sunlit(position[bright], normal[bright], renderer._sun)
        # A face turned away from the camera shows its back: thin parts have one surface for both sides.
        away = np.einsum("ij,ij->i", normal, direction) > 0
        normal[away] *= -1.0
        ambient = renderer._daylight.ambient_rgb(normal, sky_view)
        lamp = renderer._ground.sample(renderer._lamps, position) if renderer._lamps_on else np.zeros(count, np.float32)
        return _Hits(position, normal, direction, range_m, surface, albedo, temperature_k, sky_view, ambient, lamp, lit)

    def shade(self, hits: _Hits, face: np.ndarray, colour: bool) -> None:
        """Let the actors stand in the light of the city: shadows now, the coolness of shadows that stayed, and the
        smaller sky beside them."""
        renderer = self.renderer
        ground = renderer._ground
        terrain = (face >= 0) & renderer._patches.is_terrain[face]
        for number, body, to_body, _ in self.seen:
            actor = self.actors[number]
            corners = _world_box(actor, body)
            reach = corners.copy()
            if renderer._sun[2] > 0.02:
                cast = renderer._sun[:2] / renderer._sun[2] * (corners[:, 2:] - actor.z)
                length = np.maximum(np.linalg.norm(cast, axis=1, keepdims=True), 1e-6)
                reach[:, :2] -= cast * np.minimum(1.0, _LONGEST_SHADOW_M / length)
                reach[:, 2] = actor.z
            rect = self._rectangle(np.concatenate([corners, reach]), margin_m=0.6)
            if rect is None:
                continue
            pixel = self._pixels(rect)
            pixel = pixel[terrain[pixel]]
            if not len(pixel):
                continue
            local = ((hits.position[pixel] - np.float32([actor.x, actor.y, actor.z])) @ to_body.T.astype(np.float32))
            local[:, 2] += OFFSET_M
            near = np.flatnonzero((np.abs(local[:, :2]) < np.abs(body.box[:, :2]).max(axis=0) + 0.6).all(axis=1))
            if len(near):
                hidden = np.zeros(len(near), np.float32)
                for direction in _CONTACT_DIRECTIONS:
                    hidden += direction[2] * body.scene.occluded(local[near], direction)
                share = 1.0 - hidden / _CONTACT_DIRECTIONS[:, 2].sum()
                hits.sky_view[pixel[near]] *= share
                hits.ambient[pixel[near]] *= share[:, None]
            if colour and renderer._sun[2] > 0:
                sun = (to_body @ renderer._sun).astype(np.float32)
                hits.lit[pixel[body.scene.occluded(local, sun)]] = 0.0
            stays_h = stay_h(actor)
            dark = np.zeros(len(pixel), np.uint8)
            for block, sun in sunny_blocks(renderer._day):
                if stays_h > 0.5 * (HISTORY_EDGES_H[block] + HISTORY_EDGES_H[block + 1]):
                    hidden = body.scene.occluded(local, (to_body @ sun).astype(np.float32))
                    dark |= (hidden << block).astype(np.uint8)
            if dark.any():
                hits.temperature_k[pixel] += ground.shadow_k(hits.position[pixel], hits.surface[pixel], dark)

    def blend(self, picture: np.ndarray, samples: np.ndarray) -> None:
        """Lay the samples over a raveled picture, (N,) or (N, 3), by the share of each pixel that they cover."""
        touched, slot = np.unique(self.pixel, return_inverse=True)
        per_pixel = float(self.supersample**2)
        left = 1.0 - np.bincount(slot, minlength=len(touched)) / per_pixel
        columns = picture.reshape(len(picture), -1)
        for channel, values in enumerate(samples.reshape(len(samples), -1).T):
            mixed = columns[touched, channel] * left + np.bincount(slot, values, len(touched)) / per_pixel
            columns[touched, channel] = mixed

    def truth(self, depth: np.ndarray) -> tuple[np.ndarray, tuple[TruthBox, ...]]:
        """(instance mask, boxes); puts the actors into the raveled depth."""
        shape = (self.intrinsics.height, self.intrinsics.width)
        instance = np.zeros(shape[0] * shape[1], np.uint16)
        middle = np.flatnonzero(self.central)
        instance[self.pixel[middle]] = self.actor[middle] + 1
        depth[self.pixel[middle]] = self.depth[middle]
        visible = np.bincount(self.actor, minlength=len(self.actors))
        boxes = []
        owner = self.actor[middle]
        for number, (whole, whole_box) in sorted(self.whole.items()):
            pixels = self.pixel[middle[owner == number]]
            if len(pixels):
                boxes.append(TruthBox(number, self._box(pixels), whole_box, float(visible[number] / whole)))
        return instance.reshape(shape), tuple(boxes)

    def _history(self, place: np.ndarray) -> np.ndarray:
        """Share of each past block that each actor spent in the sun, float32 (A, 7)."""
        renderer = self.renderer
        sunlit = np.full((len(self.actors), HISTORY), STROLLING, np.float32)
        stays_h = np.array([stay_h(a) for a in self.actors])
        points = place.copy()
        for number, body, _, _ in self.seen:
            points[number, 2] += np.float32(0.7 * body.box[1, 2])
        for block, sun in sunny_blocks(renderer._day):
            lit = ~renderer._scene.occluded(points, sun)
            sunlit[:, block] += share_stayed(stays_h, block) * (lit - np.float32(STROLLING))
        return sunlit

    def _state(self, actor: Placed, sunlit: np.ndarray):
        """The actor's heat state with the sun it stands in, which heats the cabins of cars."""
        return replace(actor.state, solar_w_m2=self.renderer._day.recent_sun_w_m2(sunlit))

    def _rectangle(self, points: np.ndarray, margin_m: float = 0.0) -> tuple[int, int, int, int] | None:
        """Columns and rows (left, right, top, bottom) of the picture that may show world points; None for none."""
        camera = self.pose.to_camera(points)
        front = camera[:, 2] > _NEAR_M
        if not front.any():
            return None
        if not front.all():
            # Of what reaches behind the camera, the part in front ends where lines from front to back cross.
            ahead, behind = camera[front][:, None], camera[~front][None]
            share = (ahead[..., 2:] - _NEAR_M) / (ahead[..., 2:] - behind[..., 2:])
            crossing = (ahead + share * (behind - ahead)).reshape(-1, 3)
            crossing[:, 2] = _NEAR_M
            camera = np.concatenate([camera[front], crossing])
        width, height = self.intrinsics.width, self.intrinsics.height
        pixels = self.intrinsics.project(camera)
        margin = 1.0 + margin_m * self.intrinsics.fx / camera[:, 2].min()
        low, high = np.floor(pixels.min(axis=0) - margin), np.ceil(pixels.max(axis=0) + margin)
        left, top = np.clip(low, 0, (width, height)).astype(int)
        right, bottom = np.clip(high, 0, (width, height)).astype(int)
        return (left, right, top, bottom) if left < right and top < bottom else None

    def _pixels(self, rect: tuple[int, int, int, int]) -> np.ndarray:
        left, right, top, bottom = rect
        return (np.arange(top, bottom)[:, None] * self.intrinsics.width + np.arange(left, right)).ravel()

    def _fine_rays(self, rect, rotation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pixel, part of the pixel, direction with a depth of one) of all fine rays of a rectangle."""
        left, right, top, bottom = rect
        s, k = self.supersample, self.intrinsics
        u, v = np.arange(left * s, right * s), np.arange(top * s, bottom * s)
        x = ((u + 0.5) / s - k.cx) / k.fx
        y = ((v + 0.5) / s - k.cy) / k.fy
        pixel = (v // s)[:, None] * k.width + (u // s)
        part = (v % s)[:, None] * s + u % s
        rays = np.empty((len(v), len(u), 3), np.float32)
        rays[..., 0], rays[..., 1], rays[..., 2] = x, y[:, None], 1.0
        rays = rays.reshape(-1, 3) @ rotation.T.astype(np.float32)
        return pixel.ravel(), part.ravel(), rays

    def _box(self, pixels: np.ndarray) -> tuple[float, float, float, float]:
        if not len(pixels):
            return (0.0, 0.0, 0.0, 0.0)
        row, column = np.divmod(pixels, self.intrinsics.width)
        return (float(column.min()), float(row.min()), float(column.max() + 1), float(row.max() + 1))


def _picture_rays(intrinsics: Intrinsics, pose: Pose) -> np.ndarray:
    """World directions through all pixel centres, with a depth of one; float32 (N, 3)."""
    right, down, forward = pose.rotation.T.astype(np.float32)
    x = ((np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx).astype(np.float32)
    y = ((np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy).astype(np.float32)
    rays = (y[:, None] * down + forward)[:, None] + x[:, None] * right
    return rays.reshape(-1, 3)


def sunny_blocks(day: ThermalDay) -> Iterator[tuple[int, np.ndarray]]:
    """(number, direction to the sun) of those blocks of the past in which the sun shone."""
    for block in range(HISTORY):
        if day.history_irradiance[block] > 0.0 and day.history_sun[block, 2] > 0.0:
            yield block, day.history_sun[block]


def stay_h(actor: Placed) -> float:
    """For how many hours an actor has been where it is."""
    return 0.0 if actor.moving else min(actor.state.parked_s / 3600.0, 48.0)


def share_stayed(stays_h: np.ndarray | float, block: int) -> np.ndarray:
    """float32, the share of a block of the past (ThermalDay) that those have been here who came stays_h ago."""
    young, old = HISTORY_EDGES_H[block:block + 2]
    return np.clip((stays_h - young) / (old - young), 0.0, 1.0).astype(np.float32)


def _default_colour(surface: np.ndarray) -> np.ndarray:
    return material_arrays().albedo_rgb[surface]


def _turn(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _world_box(actor: Placed, body: _Body) -> np.ndarray:
    """Corners of the actor's box, (8, 3), world."""
    corners = np.stack(np.meshgrid(*body.box.T, indexing="ij"), axis=-1).reshape(-1, 3)
    return corners @ _turn(actor.yaw_rad).T + (actor.x, actor.y, actor.z)


def _street_lamps(city: City, ground: _Ground) -> np.ndarray:
    """Light of street lamps on the ground's grid, 1 below a lamp: one each 30 m along roads, on changing sides."""
    light = np.zeros(ground.sky.shape, np.float32)
    rows, columns = light.shape
    reach = int(3 * _LAMP_REACH_M / _GRID_M)
    window = np.arange(-reach, reach + 1)
    spot = np.exp(-0.5 * (window[:, None] ** 2 + window**2) * (_GRID_M / _LAMP_REACH_M) ** 2).astype(np.float32)
    padded = np.zeros((rows + 2 * reach, columns + 2 * reach), np.float32)
    for road in city.roads:
        line = np.asarray(road.line, np.float64)[:, :2]
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        places = np.arange(0.5 * _LAMP_SPACING_M, along[-1], _LAMP_SPACING_M)
        x, y = np.interp(places, along, line[:, 0]), np.interp(places, along, line[:, 1])
        column = ((x - ground.origin[0]) / _GRID_M).astype(int)
        row = ((y - ground.origin[1]) / _GRID_M).astype(int)
        for i, j in zip(row, column):
            if 0 <= i < rows and 0 <= j < columns:
                padded[i:i + 2 * reach + 1, j:j + 2 * reach + 1] += spot
    light = padded[reach:-reach, reach:-reach]
    return np.ascontiguousarray(np.minimum(light, 1.5))
