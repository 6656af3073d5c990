"""Training crops for detection, from thermal frames with COCO annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.training.losses import IGNORE, PADDING


@dataclass(frozen=True)
class AnnotatedFrames:
    """Frames (N, H, W) uint8, and per frame its boxes (n, 4) pixel edges float32 and labels (n,) int64.

    A label is an index into CLASS_NAMES; what is none of these classes (another vehicle, a crowd, "don't
    care") is IGNORE: neither object nor background.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    labels: list[np.ndarray]


def read_coco(images: Path, annotations: Path, *, exclude_dates: tuple[str, ...] = (),
              margin: tuple[float, float] = (0.0, 0.0)) -> AnnotatedFrames:
    """Read a COCO detection set of equally sized grey frames, without those captured on `exclude_dates`.

    margin: (pixels, share of the box's own side) by which each side of a box is moved outwards, within the frame:
    people draw boxes looser than a renderer does.
    Raises ThermalReidError naming the file at fault.
    """
    try:
        coco = json.loads(Path(annotations).read_text())
        names = {c["id"]: c["name"].lower() for c in coco["categories"]}
        records = [r for r in coco["images"] if r.get("date_captured") not in exclude_dates]
    except (OSError, ValueError, KeyError) as error:
        raise ThermalReidError(f"{annotations}: not a readable COCO file ({error})") from None
    by_image: dict[int, list] = {}
    for a in coco["annotations"]:
        by_image.setdefault(a["image_id"], []).append(a)
    frames, boxes, labels = [], [], []
    for record in records:
        path = Path(images) / record["file_name"]
        frame = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if frame is None:
            raise ThermalReidError(f"{path}: missing or not an image; check --images against the annotations")
        if frames and frame.shape != frames[0].shape:
            raise ThermalReidError(f"{path}: {frame.shape[::-1]} px, but the set began with {frames[0].shape[::-1]} px")
        frames.append(frame)
        own = by_image.get(record["id"], [])
        xywh = np.array([a["bbox"] for a in own], np.float32).reshape(-1, 4)
        around = np.float32(margin[0]) + np.float32(margin[1]) * xywh[:, 2:]
        boxes.append(np.concatenate((np.maximum(xywh[:, :2] - around, 0), np.minimum(
            xywh[:, :2] + xywh[:, 2:] + around, np.float32(frame.shape[::-1]))), 1))
        labels.append(np.array([_label(names[a["category_id"]], a) for a in own], np.int64))
    return AnnotatedFrames(np.stack(frames), boxes, labels)


def _label(name: str, annotation: dict) -> int:
    return IGNORE if name not in CLASS_NAMES or annotation.get("iscrowd") else CLASS_NAMES.index(name)


class CropSampler:
    """Random crops around objects, geometrically and radiometrically varied; deterministic from (seed, index).

    Classes are drawn equally often, so that the rarer ones are not forgotten; one crop in ten is taken
    anywhere. A box of which less than 45 % is left by the crop's edge becomes IGNORE, under 15 % it is dropped.
    Radiometry: gain, offset, gamma, noise, blur, and inverted polarity (a camera set to black-hot).
    """

    max_objects = 48

    def __init__(self, frames: AnnotatedFrames, size_px: int, seed: int, inversion: float = 0.15):
        self.frames, self.size_px, self.seed, self.inversion = frames, size_px, seed, inversion
        per_class = [[(i, j) for i, own in enumerate(frames.labels) for j in np.flatnonzero(own == c)]
                     for c in range(len(CLASS_NAMES))]
        self._per_class = [np.array(p) for p in per_class if p]

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Crop (S, S) uint8, boxes (max_objects, 4) float32, labels (max_objects,) int64."""
        rng = np.random.default_rng((self.seed, index))
        size = self.size_px
        height, width = self.frames.images.shape[1:]
        scale = float(np.exp(rng.uniform(np.log(0.75), np.log(1.45))))
        if rng.random() < 0.1:
            frame = int(rng.integers(len(self.frames.images)))
            centre = rng.uniform((0, 0), (width, height))
        else:
            own = self._per_class[rng.integers(len(self._per_class))]
            frame, box = own[rng.integers(len(own))]
            x0, y0, x1, y1 = self.frames.boxes[frame][box]
            centre = np.array(((x0 + x1) / 2, (y0 + y1) / 2)) + rng.uniform(-0.4, 0.4, 2) * size / scale
        half = size / scale / 2
        centre = np.clip(centre, (min(half, width / 2), min(half, height / 2)),
                         (max(width - half, width / 2), max(height - half, height / 2)))

        affine = np.array(((scale, 0, size / 2 - scale * centre[0]), (0, scale, size / 2 - scale * centre[1])))
        flip_x, flip_y, transpose = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.25
        if flip_x:
            affine[0] = (-affine[0, 0], 0, size - affine[0, 2])
        if flip_y:
            affine[1] = (0, -affine[1, 1], size - affine[1, 2])
        if transpose:
            affine = affine[::-1].copy()
        # warpAffine maps pixel centres, our boxes are edges: shift by half a pixel on both sides
        centred = affine.copy()
        centred[:, 2] += affine[:, :2] @ (0.5, 0.5) - 0.5
        crop = cv2.warpAffine(self.frames.images[frame], centred, (size, size), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REFLECT_101)
        boxes, labels = self._transform(frame, affine)
        return self._radiometry(crop, rng), boxes, labels

    def _transform(self, frame: int, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.zeros((self.max_objects, 4), np.float32)
        labels = np.full(self.max_objects, PADDING, np.int64)
        own = self.frames.boxes[frame]
        if len(own):
            a = own[:, :2] @ affine[:, :2].T + affine[:, 2]
            b = own[:, 2:] @ affine[:, :2].T + affine[:, 2]
            moved = np.concatenate((np.minimum(a, b), np.maximum(a, b)), 1)
            clipped = moved.clip(0, self.size_px)
            share = (clipped[:, 2:] - clipped[:, :2]).prod(1) / np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1e-6)
            keep = np.flatnonzero(share >= 0.15)[: self.max_objects]
            boxes[: len(keep)] = clipped[keep]
            labels[: len(keep)] = np.where(share[keep] < 0.45, IGNORE, self.frames.labels[frame][keep])
        return boxes, labels

    def _radiometry(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.1:
            crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.0))
        grey = np.arange(256, dtype=np.float32)
        if rng.random() < self.inversion:
            grey = 255 - grey
        grey = 255 * (grey / 255) ** np.exp(rng.uniform(-0.3, 0.3))
        grey = (grey - 127.5) * np.exp(rng.uniform(-0.35, 0.25)) + 127.5 + rng.uniform(-25, 25)
        crop = cv2.LUT(crop, grey.clip(0, 255).astype(np.uint8))
        if rng.random() < 0.3:
            noise = rng.integers(0, 256, crop.shape, dtype=np.uint8).astype(np.int16) - 128
            crop = (crop + noise * (rng.uniform(1, 6) / 74)).clip(0, 255).astype(np.uint8)  # uniform: sigma 74
        return np.ascontiguousarray(crop)
