"""Labellings of the frames of a data set, right and wrong ones, as a detector is given them.

A Labelling takes the number of a frame in its set and the frame, uint8 (H, W), and gives uint8 (H, W), SemanticClass or
NO_DATA. Those that draw lots draw the same for a frame each time, whatever else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import GeometryError, GroundView, Intrinsics, Pose
from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.camera.thermal import ThermalFrame
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import CocoSet
from thermalreid_ros.evaluation.segmentation import at_frame_size, read_frame, read_mask
from thermalreid_ros.localization.alignment import align
from thermalreid_ros.localization.ground import view_directions
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.maps.classes import NO_DATA
from thermalreid_ros.maps.store import SemanticMap

Labelling = Callable[[int, np.ndarray], np.ndarray]
_LEAST_DROP = 0.02  # of a ray to its length along the optical axis, to meet ground that can be told


def true_labels(data: CocoSet, folder: Path) -> Labelling:
    """The masks of `folder`, named as the frames are, .png."""
    if not folder.is_dir():
        raise ThermalReidError(f"{folder}: no such folder of masks; true labellings are there for rendered sets only "
                               "(SET/masks/semantic of SET/images/thermal)")

    def labels(number: int, frame: np.ndarray) -> np.ndarray:
        path = (folder / data.coco["images"][number]["file_name"]).with_suffix(".png")
        mask = read_mask(path)
        if mask.shape != frame.shape:
            raise ThermalReidError(f"{path}: no mask of {data.paths[number]}, which has another size")
        return mask

    return labels


def predicted_labels(data: CocoSet, segmenter: Segmenter) -> Labelling:
    """What a network makes of the frame alone, by its temperatures where the set holds them."""
    return lambda number, frame: at_frame_size(segmenter.segment(_measured(data.paths[number], frame)))


def map_labels(data: CocoSet, maps: Sequence[Path], segmenter: Segmenter, fix_error_m: float, seed: int) -> Labelling:
    """The map as the camera sees it, drawn onto the predicted labelling: what node geo_localization would publish at a
    fix with an error of fix_error_m (standard deviation on each axis). Attitude and height are the recorded ones."""
    for record in data.coco["images"]:
        recorded_view(record)
        if not (isinstance(record.get("map"), str) and all(
                isinstance(record.get(key), (int, float)) and abs(record[key]) <= most for key, most in (
                    ("latitude", 90.0), ("longitude", 180.0)))):
            raise ThermalReidError(f"{record['file_name']}: the annotations do not tell where it was taken; the map "
                                   "can be projected for sets of thermalreid world dataset only")
    needed = {record["map"] for record in data.coco["images"]}
    if missing := needed - {path.name for path in maps}:
        raise ThermalReidError(f"the frames were taken over {', '.join(sorted(missing))}; give it with --map")
    opened = {path.name: SemanticMap.open(path) for path in maps if path.name in needed}

    def labels(number: int, frame: np.ndarray) -> np.ndarray:
        record = data.coco["images"][number]
        view = recorded_view(record)
        semantic_map = opened[record["map"]]
        x, y = map(float, semantic_map.grid.from_geographic(record["latitude"], record["longitude"]))
        east, north = fix_error_m * _rng(seed, "map", number).standard_normal(2)
        mask = segmenter.segment(_measured(data.paths[number], frame))
        aligned = align(semantic_map, mask, view.intrinsics, view.rotation, view.height_m, x + east, y + north)
        return at_frame_size(aligned.told(mask))

    return labels


def shifted_labels(data: CocoSet, given: Labelling, metres: float, seed: int) -> Labelling:
    """Another labelling, displaced by so many metres over the ground; a frame's direction is the same for any distance.
    """
    def labels(number: int, frame: np.ndarray) -> np.ndarray:
        angle = _rng(seed, "shift", number).uniform(0.0, 2.0 * np.pi)
        offset_m = metres * np.array([np.cos(angle), np.sin(angle)])
        return shift(given(number, frame), recorded_view(data.coco["images"][number]), offset_m)

    return labels


def shuffled_labels(data: CocoSet, given: Labelling, seed: int) -> Labelling:
    """Another labelling, of another frame, each frame's being used once."""
    order = _rng(seed, "shuffle", 0).permutation(len(data.paths))
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist()))

    def labels(number: int, frame: np.ndarray) -> np.ndarray:
        taken = read_picture(data.paths[other[number]], cv2.IMREAD_GRAYSCALE)
        return cv2.resize(given(other[number], taken), frame.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    return labels


def recorded_view(record: dict) -> GroundView:
    """From where a frame was taken, from its image record in the annotations."""
    try:
        focal_px, altitude_m = float(record["fx"]), float(record["altitude_m"])
        angles = [np.radians(float(record[key])) for key in ("yaw_deg", "depression_deg", "roll_deg")]
        name, *size = record["file_name"], int(record["width"]), int(record["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ThermalReidError(f"{record.get('file_name')}: the annotations do not tell how it was taken (fx, "
                               "altitude_m, yaw_deg, depression_deg, roll_deg); they do in sets of thermalreid world "
                               "dataset") from None
    return _view(name, size, focal_px, angles, altitude_m)


def named_view(record: dict, focal_px: float) -> GroundView:
    """From where a frame of HIT-UAV was taken: its name tells altitude (m) and angle below the horizon (degrees), as in
    0_100_30_0_03306.jpg; the focal length is not published."""
    name = Path(record["file_name"]).stem.split("_")
    try:
        altitude_m, angles = float(name[1]), (0.0, np.radians(float(name[2])), 0.0)
        size = int(record["width"]), int(record["height"])
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        raise ThermalReidError(f"{record['file_name']}: the name does not tell altitude and angle as those of HIT-UAV "
                               "do (0_100_30_0_03306.jpg), or the annotations no size; leave out --focal-px") from None
    return _view(record["file_name"], size, focal_px, angles, altitude_m)


def _view(name: str, size: Sequence[int], focal_px: float, angles_rad: Sequence[float],
          altitude_m: float) -> GroundView:
    """angles_rad: yaw, depression, roll. ThermalReidError where there is no such view."""
    width, height = size
    try:
        intrinsics = Intrinsics.from_k(width, height, (focal_px, 0.0, 0.5 * width - 0.5, 0.0, focal_px,
                                                       0.5 * height - 0.5, 0.0, 0.0, 1.0))
        return GroundView(intrinsics, Pose.looking(np.zeros(3), *angles_rad).rotation, altitude_m)
    except GeometryError as error:
        raise ThermalReidError(f"{name}: {error}") from None


def shift(labels: np.ndarray, view: GroundView, offset_m: np.ndarray) -> np.ndarray:
    """A labelling displaced by offset_m = (east, north) of the grid over plane ground, uint8 (H, W).

    What comes in from beyond the picture is mirrored at its edge, so that the labelling is no less complete for being
    wrong. Pixels at or above the horizon stay; unknown is what was behind the camera.
    """
    intrinsics, height_m = view.intrinsics, view.height_m
    rays = view_directions(intrinsics, view.rotation, height_m, None)
    on_ground = -rays[:, 2] > _LEAST_DROP
    scale = height_m / np.where(on_ground, -rays[:, 2], 1.0)
    ground = np.column_stack([rays[:, :2] * scale[:, None] - offset_m, np.full(len(rays), -height_m)])
    seen = ground @ view.rotation  # in the optical frame
    ahead = seen[:, 2] > _LEAST_DROP * height_m
    depth = np.where(ahead, seen[:, 2], 1.0)
    source = np.stack([intrinsics.fx * seen[:, 0] / depth + intrinsics.cx - 0.5,
                       intrinsics.fy * seen[:, 1] / depth + intrinsics.cy - 0.5], axis=1)
    rows, columns = np.indices(labels.shape)
    source[~on_ground] = np.column_stack([columns.ravel(), rows.ravel()])[~on_ground]
    source = _mirrored(np.rint(source).astype(np.int64), (intrinsics.width, intrinsics.height))
    moved = labels[source[:, 1], source[:, 0]]
    moved[on_ground & ~ahead] = NO_DATA
    return moved.reshape(labels.shape)


def _measured(path: Path, grey: np.ndarray) -> np.ndarray | ThermalFrame:
    """The radiometric frame beside the grey one of SET/images/thermal; that one itself where there is none."""
    measured = path.parent.parent / "thermal16" / f"{path.stem}.png"
    return read_frame(measured) if path.parent.name == "thermal" and measured.is_file() else grey


def _mirrored(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    period = 2 * np.array(size)
    places = places % period
    return np.where(places < size, places, period - 1 - places)


def _rng(seed: int, purpose: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode(), number])
