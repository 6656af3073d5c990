"""What is true of a picture: the objects in it, for messages and for COCO files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import LocalGrid, Pose
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.files import write_atomically
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.population import Placed
from thermalreid_ros.world.render import Capture

#: Objects with fewer visible pixels or a smaller visible share are marked as crowd: neither hit nor false alarm.
LEAST_PIXELS = 12
LEAST_VISIBLE_SHARE = 0.2


@dataclass(frozen=True)
class TrueObject:
    """An identity in a picture.

    identity: its name, such as "car-0042", which with the world's seed makes its shape again. instance: its value
    in the instance mask. box: pixel edges of its visible pixels (x_min, y_min, x_max, y_max); whole_box: of all of
    them. pixels: visible ones in the mask. visible_share: of its area within the picture. x, y, z: world metres of
    the middle of the 3-D box around its posed mesh, whose size_m is (length, width, height) along its own axes;
    yaw_rad: of its front, 0 = east on the grid. latitude_deg, longitude_deg: of that middle.
    """

    identity: str
    class_name: str
    instance: int
    box: tuple[float, float, float, float]
    whole_box: tuple[float, float, float, float]
    pixels: int
    visible_share: float
    x: float
    y: float
    z: float
    yaw_rad: float
    size_m: tuple[float, float, float]
    phase: float
    moving: bool
    distance_m: float
    latitude_deg: float
    longitude_deg: float

    @property
    def crowd(self) -> bool:
        """Too little of it is seen to ask a detector for it."""
        return self.pixels < LEAST_PIXELS or self.visible_share < LEAST_VISIBLE_SHARE


def true_objects(capture: Capture, actors: Sequence[Placed], grid: LocalGrid) -> list[TrueObject]:
    """The objects of which something is visible, in the order of the instance mask's values."""
    pixels = np.bincount(capture.instance.ravel(), minlength=len(actors) + 1)
    found = []
    for seen in capture.boxes:
        actor = actors[seen.actor]
        centre, size = box_of(actor)
        latitude, longitude = grid.to_geographic(centre[0], centre[1])
        found.append(TrueObject(
            actor.identity.name, actor.identity.class_name, seen.actor + 1, tuple(map(float, seen.box)),
            tuple(map(float, seen.whole_box)), int(pixels[seen.actor + 1]), float(seen.visible_share),
            *map(float, centre), actor.yaw_rad, tuple(map(float, size)), actor.phase, actor.moving,
            float(np.linalg.norm(centre - capture.pose.position_m)), float(latitude), float(longitude)))
    return found


def box_of(actor: Placed) -> tuple[np.ndarray, np.ndarray]:
    """(middle in the world (3,), length, width and height (3,)), float64, of the box around a posed actor."""
    who = actor.identity
    low, high = _extent(who.class_name, who.number, who.seed, actor.phase, actor.moving)
    middle, c, s = 0.5 * (low + high), np.cos(actor.yaw_rad), np.sin(actor.yaw_rad)
    return np.array([actor.x + c * middle[0] - s * middle[1], actor.y + s * middle[0] + c * middle[1],
                     actor.z + middle[2]]), high - low


@lru_cache(maxsize=8192)
def _extent(class_name: str, number: int, seed: int, phase: float, moving: bool) -> tuple[np.ndarray, np.ndarray]:
    vertices = make_identity(class_name, number, seed).mesh(phase, moving).vertices
    return vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)


def objects_as_json(objects: Iterable[TrueObject]) -> str:
    return json.dumps([asdict(item) for item in objects], separators=(",", ":"))


def objects_from_json(text: str) -> list[TrueObject]:
    return [TrueObject(**{name: tuple(value) if isinstance(value, list) else value for name, value in item.items()})
            for item in json.loads(text)]


def coco_image(number: int, file_name: str, width: int, height: int, **facts: Any) -> dict[str, Any]:
    """An image record; facts: further fields."""
    return {"id": number, "file_name": file_name, "width": width, "height": height, **facts}


def coco_annotation(number: int, image: int, item: TrueObject) -> dict[str, Any]:
    """An annotation; beside COCO's fields: identity, instance (value in the mask), visible_share, distance_m."""
    x_min, y_min, x_max, y_max = item.box
    return {"id": number, "image_id": image, "category_id": CLASS_NAMES.index(item.class_name),
            "bbox": [x_min, y_min, x_max - x_min, y_max - y_min], "area": item.pixels, "iscrowd": int(item.crowd),
            "identity": item.identity, "instance": item.instance, "visible_share": round(item.visible_share, 4),
            "distance_m": round(item.distance_m, 2), "moving": item.moving}


def write_coco(path: str | Path, info: Mapping[str, Any], images: Sequence[dict], annotations: Sequence[dict]) -> None:
    """One COCO file with the categories in the project's order, their ids starting at 0."""
    document = {"info": dict(info), "images": list(images), "annotations": list(annotations),
                "categories": [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES)]}
    write_atomically(path, json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n")


def camera_angles_deg(pose: Pose) -> tuple[float, float, float]:
    """(yaw, depression, roll) as in Pose.looking, degrees."""
    right, _, forward = pose.rotation.T
    depression = np.arcsin(np.clip(-forward[2], -1.0, 1.0))
    # Looking straight down, right and not forward tells the yaw: level right is (sin yaw, -cos yaw).
    down = pose.rotation[:, 1]
    roll = np.arctan2(-right[2], -down[2]) if np.hypot(right[2], down[2]) > 1e-6 else 0.0
    level = np.cos(roll) * right - np.sin(roll) * down
    return float(np.degrees(np.arctan2(level[0], -level[1]))), float(np.degrees(depression)), float(np.degrees(roll))
