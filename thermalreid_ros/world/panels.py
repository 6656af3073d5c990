"""Pictures to look at: every band and every truth of one view, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB, NO_DATA
from thermalreid_ros.world.actors import CLASSES
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.film import in_view, liveliness
from thermalreid_ros.world.population import Placed, Population
from thermalreid_ros.world.radiometry import brightness_temperature
from thermalreid_ros.world.render import Capture
from thermalreid_ros.world.sensor import GainControl, ThermalSensor, ThermalSensorParameters

ACTOR_COLOURS_RGB = ((230, 60, 50), (250, 220, 60), (60, 200, 250), (220, 110, 250))  # in the order of CLASSES
_LABEL_PX = 26


def panels(capture: Capture, actors: Sequence[Placed], seed: int) -> dict[str, np.ndarray]:
    """uint8 (H, W, 3) RGB by title: colour, thermal, temperature, semantic, instances and depth."""
    stamp_ns, k = int(capture.when.timestamp()) * 1_000_000_000, capture.intrinsics
    grey = GainControl().grey(ThermalSensor(ThermalSensorParameters(), k, seed).capture(capture.radiance, stamp_ns))
    kelvin = brightness_temperature(capture.radiance)
    low, high = np.quantile(kelvin, [0.01, 0.995])
    depth = np.where(np.isfinite(capture.depth_m), capture.depth_m, np.float32(0))
    seen = depth > 0
    nearest, farthest = np.quantile(depth[seen], [0.005, 0.995]) if seen.any() else (0.0, 1.0)
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(CLASS_COLOURS_RGB)] = CLASS_COLOURS_RGB
    colours[NO_DATA] = 20
    owners = np.zeros((len(actors) + 1, 3), np.uint8)
    owners[0] = 40
    for number, actor in enumerate(actors, 1):
        shade = 0.6 + 0.4 * (number * 0.618034 % 1.0)
        owners[number] = np.array(ACTOR_COLOURS_RGB[CLASSES.index(actor.identity.class_name)]) * shade
    found = {} if capture.colour is None else {
        "colour": ColourCamera(ColourCameraParameters(), k, seed).capture(capture.colour, stamp_ns)}
    return found | {
        "thermal, gain-controlled": np.repeat(grey[..., None], 3, axis=2),
        f"{low - 273.15:.0f} to {high - 273.15:.0f} deg C": _graded((kelvin - low) / max(high - low, 1e-3),
                                                                   cv2.COLORMAP_INFERNO),
        "semantic": colours[capture.semantic],
        "instances": owners[capture.instance],
        f"depth {nearest:.0f} to {farthest:.0f} m": _graded(
            1.0 - (depth - nearest) / max(farthest - nearest, 1e-3), cv2.COLORMAP_VIRIDIS) * seen[..., None],
    }


def sheet(rows: Sequence[tuple[str, dict[str, np.ndarray]]], width_px: int = 480) -> np.ndarray:
    """Rows of labelled panels, uint8 RGB: (title of the row, its panels)."""
    drawn = []
    for title, pictures in rows:
        cells = []
        for name, picture in pictures.items():
            height = round(picture.shape[0] * width_px / picture.shape[1])
            cell = np.full((height + _LABEL_PX, width_px, 3), 255, np.uint8)
            cell[_LABEL_PX:] = cv2.resize(np.ascontiguousarray(picture), (width_px, height),
                                          interpolation=cv2.INTER_AREA)
            cv2.putText(cell, f"{title}: {name}" if title else name, (6, _LABEL_PX - 8), cv2.FONT_HERSHEY_SIMPLEX,
                        0.5, (30, 30, 30), 1, cv2.LINE_AA)
            cells.append(cell)
        drawn.append(np.hstack(cells))
    widest = max(row.shape[1] for row in drawn)
    return np.vstack([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in drawn])


def lively_view(population: Population, intrinsics: Intrinsics, altitude_m: float, depression_rad: float,
                seed: int, time_s: float = 0.0) -> Pose:
    """Of some views drawn by the seed the one with most going on in it, all classes counting alike."""
    rng = np.random.default_rng(np.random.SeedSequence([int(seed), 0x71E3]))
    bounds, best, most = population.city.bounds, None, -1.0
    middle = np.array([bounds[0] + bounds[2], bounds[1] + bounds[3]]) / 2
    everyone = population.at(time_s) or [None]
    for _ in range(40):
        chosen = everyone[int(rng.integers(len(everyone)))]
        aim = np.array([chosen.x, chosen.y]) if chosen is not None else middle
        to_middle = middle - aim
        yaw = np.arctan2(to_middle[1], to_middle[0]) + rng.uniform(-0.8, 0.8)
        back = altitude_m / np.tan(depression_rad)
        eye = aim - back * np.array([np.cos(yaw), np.sin(yaw)])
        ground = float(population.city.relief.height_m(eye[:1], eye[1:])[0])
        pose = Pose.looking([*eye, ground + altitude_m], yaw, depression_rad)
        actors = in_view(population, pose, intrinsics, time_s)
        if (lively := liveliness(actors)) > most:
            best, most = pose, lively
    return best


def _graded(share: np.ndarray, colour_map: int) -> np.ndarray:
    grey = np.clip(share * 255.0, 0, 255).astype(np.uint8)
    return cv2.applyColorMap(grey, colour_map)[..., ::-1]
