"""Labelled frames of rendered data sets, reduced to the size that the segmentation networks see."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.camera.thermal import ThermalFrame
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.segmentation import read_frame, read_mask
from thermalreid_ros.localization.segmenter import temperature_levels
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA

SIZE_PX = (320, 256)  # width, height


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """Equally sized frames with their labelling.

    thermal: uint8 (n, h, w), grey. labels: uint8 (n, h, w), 255 = not to be judged. colour: uint8 (m, h, w, 3) RGB,
    and colour_of: int64 (m,), which labelling each belongs to. Of radiometric frames: temperature_c, float32 (r, h, w)
    in degrees Celsius, radiometric, uint8 (r, h, w), their grey after our own gain control, and radiometric_of, int64
    (r,).
    """

    thermal: np.ndarray
    labels: np.ndarray
    colour: np.ndarray
    colour_of: np.ndarray
    temperature_c: np.ndarray
    radiometric: np.ndarray
    radiometric_of: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(sets: Sequence[Path], split: str, *, size_px: tuple[int, int] = SIZE_PX, colour: bool = True,
                  limit: int | None = None) -> LabelledFrames:
    """Read a split of data sets as `world dataset` makes them, of unfinished ones the sessions that are there; sets
    without that split are passed over.

    Pictures in the visible band and radiometric ones (images/thermal16) are taken where there are any. limit: at most
    so many frames of each set, evenly spread. Frames larger than size_px (width, height) are reduced, labels by
    majority; a picture may lie there under another suffix than its record says. Raises ThermalReidError naming the file
    at fault.
    """
    jobs: list[tuple[Path, Path, Path | None, Path | None]] = []
    for folder in sets:
        names = _names(Path(folder), split)
        if limit is not None and len(names) > limit:
            names = [names[k] for k in np.linspace(0, len(names) - 1, limit).round().astype(int)]
        for name in names:
            visible = _find(Path(folder) / "images/colour", name, required=False) if colour else None
            jobs.append((_find(Path(folder) / "images/thermal", name), _find(Path(folder) / "masks/semantic", name),
                         visible, _find(Path(folder) / "images/thermal16", name, required=False)))
    width, height = size_px
    with_colour, measured = ([k for k, job in enumerate(jobs) if job[kind] is not None] for kind in (2, 3))
    slot, place = ({k: number for number, k in enumerate(some)} for some in (with_colour, measured))
    frames = LabelledFrames(
        np.empty((len(jobs), height, width), np.uint8), np.empty((len(jobs), height, width), np.uint8),
        np.empty((len(with_colour), height, width, 3), np.uint8), np.array(with_colour, np.int64),
        np.empty((len(measured), height, width), np.float32), np.empty((len(measured), height, width), np.uint8),
        np.array(measured, np.int64))

    def load(k: int) -> None:
        thermal, mask, visible, radiometric = jobs[k]
        frames.thermal[k] = reduce_picture(read_picture(thermal, cv2.IMREAD_GRAYSCALE), size_px)
        frames.labels[k] = reduce_labels(read_mask(mask), size_px)
        if visible is not None:
            frames.colour[slot[k]] = reduce_picture(read_picture(visible, cv2.IMREAD_COLOR), size_px)[..., ::-1]
        if radiometric is not None:
            frame = read_frame(radiometric)
            if not isinstance(frame, ThermalFrame):
                raise ThermalReidError(f"{radiometric}: no picture of 16 bits; render the set again")
            frames.radiometric[place[k]] = reduce_picture(frame.gray8(), size_px)
            frames.temperature_c[place[k]] = reduce_picture(frame.values(), size_px)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for _ in pool.map(load, range(len(jobs))):
            pass
    return frames


def channels(picture: np.ndarray | ThermalFrame, size_px: tuple[int, int]) -> np.ndarray:
    """uint8 (3, h, w): what a network sees of a radiometric frame, of a grey picture or of one in colour (RGB)."""
    if isinstance(picture, ThermalFrame):
        return radiometric_channels(reduce_picture(picture.gray8(), size_px), reduce_picture(picture.values(), size_px))
    small = reduce_picture(picture, size_px)
    return np.ascontiguousarray(np.broadcast_to(small, (3, *small.shape)) if small.ndim == 2 else
                                small.transpose(2, 0, 1))


def radiometric_channels(grey: np.ndarray, temperature_c: np.ndarray) -> np.ndarray:
    """uint8 (3, h, w): what a network sees of a radiometric frame of its size, as Segmenter shows it."""
    return np.concatenate((grey[None], temperature_levels(temperature_c).astype(np.uint8)))


def reduce_picture(image: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """(H, W[, 3]) to the size (width, height): means over areas where it shrinks, which also keeps noise down."""
    if image.shape[1::-1] == tuple(size_px):
        return image
    shrinks = image.shape[1] >= size_px[0] and image.shape[0] >= size_px[1]
    return cv2.resize(image, size_px, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def reduce_labels(labels: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W) labels to the size (width, height): the class of most of the area that a pixel covers."""
    if labels.shape[1::-1] == tuple(size_px):
        return labels
    values = np.array([*range(CLASS_COUNT), NO_DATA], np.uint8)
    shares = np.stack([cv2.resize(np.where(labels == value, np.uint8(255), np.uint8(0)), size_px,
                                  interpolation=cv2.INTER_AREA) for value in values])
    return values[shares.argmax(0)]


def _names(folder: Path, split: str) -> list[str]:
    path = folder / "annotations" / f"{split}.json"
    finished = (folder / "annotations").is_dir()
    parts = [path] * path.exists() if finished else sorted((folder / "sessions").glob("*.json"))
    if not parts and not finished:
        raise ThermalReidError(f"{folder}: no data set (it has neither annotations nor a finished session); make it "
                               "with: thermalreid world dataset")
    names = []
    try:
        for path in parts:
            facts = json.loads(path.read_text())
            if finished or facts["split"] == split:
                names += [record["file_name"] for record in facts["images"]]
        return names
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ThermalReidError(f"{path}: no COCO file of a data set ({type(error).__name__}: {error})") from None


def _find(folder: Path, name: str, required: bool = True) -> Path | None:
    for suffix in (Path(name).suffix, ".png", ".jpg", ".webp"):
        if (path := (folder / name).with_suffix(suffix)).is_file():
            return path
    if required:
        raise ThermalReidError(f"{folder / name}: missing, but listed in the annotations; render the set again")
    return None
