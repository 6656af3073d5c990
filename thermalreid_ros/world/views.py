"""Points of view: cameras from which one actor is seen well, near by or from a drone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.world.actors import Identity
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.film import in_view
from thermalreid_ros.world.population import Placed, Population
from thermalreid_ros.world.render import Capture, Renderer, TruthBox
from thermalreid_ros.world.truth import box_of

PHOTOGRAPH_PX = (480, 360)
_TRIES = 24


@dataclass(frozen=True, eq=False)
class View:
    """A camera that sees an actor, and who else is about. target: index into actors."""

    pose: Pose
    intrinsics: Intrinsics
    actors: Sequence[Placed]
    target: int

    def seen(self, capture: Capture) -> TruthBox | None:
        """The target in a picture of this view."""
        return next((box for box in capture.boxes if box.actor == self.target), None)


Draw = Callable[[Placed, np.random.Generator], tuple[Pose, Intrinsics]]


def find_view(renderer: Renderer, population: Population, identity: Identity, time_s: float, draw: Draw,
              rng: np.random.Generator, least_share: float = 0.85, least_pixels: int = 30) -> View | None:
    """The first of some cameras drawn that sees the identity whole, little hidden and not too small; None where none
    does."""
    target = population.where(identity, time_s)
    if target is None:
        return None
    for _ in range(_TRIES):
        pose, intrinsics = draw(target, rng)
        actors = in_view(population, pose, intrinsics, time_s)
        index = next((k for k, actor in enumerate(actors) if actor.identity.name == identity.name), None)
        if index is None:
            continue
        view = View(pose, _small(intrinsics), actors, index)
        capture = renderer.capture(pose, view.intrinsics, actors, colour=False, supersample=1)
        seen = view.seen(capture)
        enlarged = (intrinsics.width / view.intrinsics.width) ** 2
        if seen is None or seen.visible_share < least_share or \
                np.count_nonzero(capture.instance == index + 1) * enlarged < least_pixels:
            continue
        x_min, y_min, x_max, y_max = seen.whole_box
        if x_min > 0 and y_min > 0 and x_max < view.intrinsics.width and y_max < view.intrinsics.height:
            return replace(view, intrinsics=intrinsics)
    return None


def near_by(distance_m: tuple[float, float] = (5.0, 20.0), elevation_deg: tuple[float, float] = (3.0, 45.0)) -> Draw:
    """Photographs from so far away, from a passer-by's height to a balcony's; the actor fills about half of them."""
    def draw(target: Placed, rng: np.random.Generator) -> tuple[Pose, Intrinsics]:
        centre, size = box_of(target)
        distance, elevation = rng.uniform(*distance_m), np.radians(rng.uniform(*elevation_deg))
        elevation = max(elevation, np.arcsin(np.clip((target.z + 1.3 - centre[2]) / distance, -0.9, 0.9)))
        width, height = PHOTOGRAPH_PX
        fill = rng.uniform(0.4, 0.6) * height / max(np.linalg.norm(size[:2]), size[2])  # pixels per metre
        focal = max(fill * distance, 0.7 * width)
        return (_towards(centre, rng.uniform(0, 2 * np.pi), elevation, distance, rng.normal(0.0, 0.02)),
                Intrinsics(width, height, focal, focal, 0.5 * width, 0.5 * height))
    return draw


def from_drone(intrinsics: Intrinsics, altitude_m: tuple[float, float] = (60.0, 130.0),
               depression_deg: tuple[float, float] = (30.0, 88.0)) -> Draw:
    """A drone's camera, cut to a window around the actor, with some of what surrounds it."""
    def draw(target: Placed, rng: np.random.Generator) -> tuple[Pose, Intrinsics]:
        centre, size = box_of(target)
        altitude, depression = rng.uniform(*altitude_m), np.radians(rng.uniform(*depression_deg))
        distance = altitude / np.sin(depression)
        pose = _towards(centre, rng.uniform(0, 2 * np.pi), depression, distance, rng.normal(0.0, 0.01))
        half = 0.5 * np.linalg.norm(size) / distance * intrinsics.fx
        side = int(2 * np.ceil(max(1.5 * half, half + 4.0)))
        left, top = (int(round(c - 0.5 * side)) for c in (intrinsics.cx, intrinsics.cy))
        return pose, Intrinsics(side, side, intrinsics.fx, intrinsics.fy, intrinsics.cx - left, intrinsics.cy - top)
    return draw


def photograph(renderer: Renderer, view: View, camera: ColourCameraParameters,
               seed: int) -> tuple[np.ndarray, TruthBox | None]:
    """(picture, uint8 (H, W, 3) RGB; where the target is in it)."""
    capture = renderer.capture(view.pose, view.intrinsics, view.actors)
    picture = ColourCamera(camera, view.intrinsics, seed).capture(
        capture.colour, int(capture.when.timestamp()) * 1_000_000_000)
    return picture, view.seen(capture)


def _towards(centre: np.ndarray, from_rad: float, elevation_rad: float, distance_m: float, roll_rad: float) -> Pose:
    """A camera at a bearing, an elevation and a distance from a point, looking at it."""
    away = np.array([np.cos(from_rad) * np.cos(elevation_rad), np.sin(from_rad) * np.cos(elevation_rad),
                     np.sin(elevation_rad)])
    return Pose.looking(centre + distance_m * away, from_rad + np.pi, elevation_rad, roll_rad)


def _small(k: Intrinsics, longest_px: int = 160) -> Intrinsics:
    """The same camera with fewer pixels."""
    share = min(longest_px / max(k.width, k.height), 1.0)
    return k.scaled(round(k.width * share), round(k.height * share))
