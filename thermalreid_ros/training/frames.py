"""Training crops for detection, from thermal frames with COCO annotations and, where there are any, labellings.

Geometry is drawn on the host, so that boxes and their number are known without asking the accelerator; pixels are
moved and varied on the device of the training, a batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.detection.types import CLASS_NAMES, DRAWN_PX, DRAWN_SHARE
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import category_names, checked_box, is_tight, said_size
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA, SemanticClass
from thermalreid_ros.training.losses import IGNORE, PADDING

_PIXELS_PER_METRE = 8.0  # where a frame's record does not tell: HIT-UAV's at 80 m
_HALVED_BELOW = 0.6  # scale under which a frame is averaged 2 x 2 before it is sampled, against aliasing
_COARSE = 6  # cells a side of the noise that wrong patches and drifting temperatures are made of
_GHOSTS = 2  # cool or warm rectangles of a crop that are no objects
_BLUR_REACH = 3


@dataclass(frozen=True)
class AnnotatedFrames:
    """Frames (N, H, W) uint8, and per frame its boxes (n, 4) pixel edges float32 and labels (n,) int64.

    A label is an index into CLASS_NAMES; what is none of these classes (another vehicle, a crowd, "don't
    care") is IGNORE: neither object nor background. annotated: the classes that were looked for. labellings: (N, H, W)
    uint8, SemanticClass or NO_DATA, None where the set has none. pixels_per_metre: (N,), on the ground amid the frame.
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    annotated: tuple[int, ...] = tuple(range(len(CLASS_NAMES)))
    labellings: np.ndarray | None = None
    pixels_per_metre: np.ndarray | None = None


@dataclass(frozen=True)
class TrainingSet:
    """share: of the crops of a batch. scale: range of their magnification."""

    frames: AnnotatedFrames
    share: float = 1.0
    scale: tuple[float, float] = (0.75, 1.45)


@dataclass(frozen=True)
class Crops:
    """A batch on its device: thermal (B, 1, S, S) float32 grey levels, boxes (B, M, 4), labels (B, M) as in losses.py,
    trained (B, C) 0/1: classes that the crop's set annotates; semantics (B, 1, s, s) uint8, None where nothing is known
    of any; ground: the true one, likewise, for crops that are not given it, too."""

    thermal: torch.Tensor
    boxes: torch.Tensor
    labels: torch.Tensor
    trained: torch.Tensor
    semantics: torch.Tensor | None
    ground: torch.Tensor | None


def read_coco(images: Path, annotations: Path, *, exclude_dates: tuple[str, ...] = (),
              margin: tuple[float, float] | None = None, labellings: Path | None = None) -> AnnotatedFrames:
    """Read a COCO detection set of equally sized grey frames, without those captured on `exclude_dates`.

    margin: (pixels, share of the box's own side) by which each side of a box is moved outwards, within the frame; by
    default the one that detectors draw, for the tight boxes of rendered sets, and none for others. labellings: folder
    of masks named as the frames are, .png.
    Raises ThermalReidError naming the file at fault.
    """
    try:
        coco = json.loads(Path(annotations).read_text())
        names = {identity: name.lower() for identity, name in category_names(coco).items()}
        records = [r for r in coco["images"] if str(r.get("date_captured")) not in exclude_dates]
        sizes_px = {record["id"]: said_size(record) for record in records}
        if len(sizes_px) < len(records):
            raise ValueError("two of its images have one id")
        paths = [Path(images) / record["file_name"] for record in records]
        resolution = np.array([_resolution(record) for record in records])
        by_image: dict[Any, list[tuple[list[float], int]]] = {identity: [] for identity in sizes_px}
        for a in coco["annotations"]:
            if size_px := sizes_px.get(a["image_id"]):
                by_image[a["image_id"]].append((checked_box(a, size_px), _label(names[a["category_id"]], a)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ThermalReidError(f"{annotations}: not a readable COCO file ({type(error).__name__}: {error})") from None
    if not records:
        raise ThermalReidError(f"{annotations}: no frames to train on")
    if margin is None:
        margin = (DRAWN_PX, DRAWN_SHARE) if is_tight(coco["annotations"]) else (0.0, 0.0)
    frames = _read_all(paths)
    masks = None
    if labellings is not None:
        masks = _read_all([(labellings / record["file_name"]).with_suffix(".png") for record in records])
        if masks.shape != frames.shape:
            raise ThermalReidError(f"{labellings}: masks of another size than the frames in {images}")
    boxes, labels = [], []
    for record in records:
        own = by_image[record["id"]]
        xywh = np.array([box for box, _ in own], np.float32).reshape(-1, 4)
        around = np.float32(margin[0]) + np.float32(margin[1]) * xywh[:, 2:]
        boxes.append(np.concatenate((np.maximum(xywh[:, :2] - around, 0), np.minimum(
            xywh[:, :2] + xywh[:, 2:] + around, np.float32(frames.shape[:0:-1]))), 1))
        labels.append(np.array([label for _, label in own], np.int64))
    annotated = tuple(c for c, name in enumerate(CLASS_NAMES) if name in names.values())
    return AnnotatedFrames(frames, boxes, labels, annotated, masks, resolution)


def _read_all(paths: Sequence[Path]) -> np.ndarray:
    with ThreadPoolExecutor() as pool:  # decoding lets go of the interpreter
        first = None
        for i, frame in enumerate(pool.map(lambda path: read_picture(path, cv2.IMREAD_GRAYSCALE), paths)):
            if first is None:
                first = np.empty((len(paths), *frame.shape), np.uint8)
            if frame.shape != first.shape[1:]:
                raise ThermalReidError(f"{paths[i]}: {frame.shape[::-1]} px, but the set began with "
                                       f"{first.shape[:0:-1]} px")
            first[i] = frame
    return first


def _label(name: str, annotation: dict) -> int:
    return IGNORE if name not in CLASS_NAMES or annotation.get("iscrowd") else CLASS_NAMES.index(name)


def _resolution(record: dict) -> float:
    """Pixels per metre on the ground amid a frame. ValueError or TypeError where its record is damaged."""
    if not {"fx", "depression_deg", "altitude_m"} <= record.keys():
        return _PIXELS_PER_METRE
    found = record["fx"] * np.sin(np.radians(record["depression_deg"])) / max(record["altitude_m"], 1e-9)
    if not 0.0 < found < 1e6:
        raise ValueError(f"image {record['id']}: {found:.3g} pixels per metre")
    return found


class CropSampler:
    """Random crops around objects, geometrically and radiometrically varied; deterministic from (seed, step) on a
    device of one kind.

    Classes of a set are drawn equally often, so that the rarer ones are not forgotten; one crop in ten is taken
    anywhere. A box of which less than 45 % is left by the crop's edge becomes IGNORE, under 15 % it is dropped.
    Beyond a frame its edge is repeated. Radiometry: gain, offset, gamma, noise, blur, inverted polarity (a camera set
    to black-hot), temperatures that drift over the crop, and vague rectangles such as departed cars leave behind;
    `variation` widens all of it.

    semantics_stride: pixels of the crop to a cell of the labelling, 0 for none. With labellings a share `known_true` of
    the crops has the true one, a share `known_wrong` one that is wrong as maps and predictions are: up to 20 m out of
    place, patches of other classes or none, ground taken for vegetation, details lost, or, a share `elsewhere` of
    these, another frame's. The rest has none, nor have those of sets without.
    """

    max_objects = 100

    def __init__(self, sets: Sequence[TrainingSet], size_px: int, seed: int, *, inversion: float = 0.15,
                 variation: float = 1.0, semantics_stride: int = 0, known_true: float = 1 / 3,
                 known_wrong: float = 1 / 3, elsewhere: float = 0.1, device: str = "cpu"):
        self.size_px, self.seed, self.inversion, self.variation = size_px, seed, inversion, variation
        self.semantics_stride = semantics_stride if any(s.frames.labellings is not None for s in sets) else 0
        self.known_true, self.known_wrong, self.elsewhere = known_true, known_wrong, elsewhere
        self.device = torch.device(device)
        self._sets = [_Placed(s, self.device) for s in sets]
        self._shares = np.array([s.share for s in sets]) / sum(s.share for s in sets)
        self._generator = torch.Generator(self.device)

    def __call__(self, step: int, batch: int) -> Crops:
        rng = np.random.default_rng((self.seed, step))
        self._generator.manual_seed(self.seed * 1_000_003 + step)
        edges = np.floor(np.concatenate(((0.0,), self._shares.cumsum())) * batch + rng.random()).astype(int)
        edges[0], edges[-1] = 0, batch  # a share of half a crop is one crop in every other batch
        thermal, boxes, labels, trained, semantics, ground = [], [], [], [], [], []
        for own, count in zip(self._sets, np.diff(edges)):
            if count == 0:
                continue
            geometry = own.draw(count, self.size_px, rng)
            thermal.append(self._pixels(own, geometry))
            moved, kinds = own.objects(geometry, self.size_px, self.max_objects)
            boxes.append(moved)
            labels.append(kinds)
            trained.append(np.broadcast_to(own.trained, (count, len(CLASS_NAMES))))
            if self.semantics_stride:
                for of_all, own_part in zip((semantics, ground), self._labelling(own, geometry, rng)):
                    of_all.append(own_part)
        slots = max(1, max(kinds.shape[1] for kinds in labels))
        boxes = np.concatenate([np.pad(b, ((0, 0), (0, slots - b.shape[1]), (0, 0))) for b in boxes])
        labels = np.concatenate([np.pad(k, ((0, 0), (0, slots - k.shape[1])), constant_values=PADDING) for k in labels])
        return Crops(self._radiometry(torch.cat(thermal), rng), self._send(boxes), self._send(labels),
                     self._send(np.concatenate(trained)),
                     *((torch.cat(semantics), torch.cat(ground)) if semantics else (None, None)))

    def _send(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _column(self, values: np.ndarray) -> torch.Tensor:
        """(B, ...) as (B, 1, 1, 1, ...)."""
        return self._send(np.asarray(values, np.float32))[:, None, None, None]

    def _pixels(self, own: _Placed, geometry: _Geometry) -> torch.Tensor:
        size, parts = self.size_px, []
        halved = int((geometry.scale < _HALVED_BELOW).sum())  # they come first
        theta = self._send(geometry.theta(own.size, size))
        for part, shrink in ((slice(0, halved), True), (slice(halved, None), False)):
            if not len(geometry.frame[part]):
                continue
            frames = self._send(geometry.frame[part])
            pixels = own.images[frames][:, None].float()
            if shrink:
                pixels = F.avg_pool2d(pixels, 2)
            grid = F.affine_grid(theta[part], (len(frames), 1, size, size), align_corners=False)
            parts.append(F.grid_sample(pixels, grid, padding_mode="border", align_corners=False))
        return torch.cat(parts)

    def _labelling(self, own: _Placed, geometry: _Geometry,
                   rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops.semantics and Crops.ground."""
        count, size = len(geometry.frame), self.size_px // self.semantics_stride
        out = torch.full((count, 1, size, size), NO_DATA, dtype=torch.uint8, device=self.device)
        if own.labellings is None:
            return out, out
        theta = geometry.theta(own.size, self.size_px)
        true = self._cells(own.labellings[self._send(geometry.frame)], theta, size)
        kind = rng.random(count)
        given = np.flatnonzero(kind < self.known_true + self.known_wrong)
        if not len(given):
            return out, true
        wrong = kind[given] < self.known_wrong
        some = len(given)

        def hit(share: float) -> np.ndarray:
            return wrong & (rng.random(some) < share)

        away, course = hit(0.7) * rng.uniform(0.0, 20.0, some), rng.uniform(0.0, 2 * np.pi, some)
        frame = np.where(hit(self.elsewhere), rng.integers(0, len(own.labellings), some), geometry.frame[given])
        shift = (away * own.pixels_per_metre[frame])[:, None] * np.stack((np.cos(course), np.sin(course)), 1)
        theta = theta[given]
        theta[:, :, 2] += 2 * shift / own.size
        labels = self._cells(own.labellings[self._send(frame)], theta, size)

        swapped, lost = self._column(hit(0.25)) > 0, self._column(hit(0.4)) > 0
        ground, green = labels == SemanticClass.GROUND, labels == SemanticClass.VEGETATION
        labels = torch.where(swapped & ground, int(SemanticClass.VEGETATION),
                             torch.where(swapped & green, int(SemanticClass.GROUND), labels)).to(torch.uint8)
        planes = (labels == torch.arange(CLASS_COUNT, device=self.device, dtype=torch.uint8)[:, None, None]).float()
        window = max(3, 28 // self.semantics_stride | 1)
        share, common = F.avg_pool2d(planes, window, 1, window // 2).max(1, keepdim=True)
        labels = torch.where(lost & (share > 0.2), common.to(torch.uint8), labels)
        noise = self._noise(some, _COARSE)
        others = torch.randint(0, CLASS_COUNT + 1, noise.shape, generator=self._generator, device=self.device)
        others = torch.where(others == CLASS_COUNT, NO_DATA, others).float()
        limit = self._column(np.where(hit(0.5), rng.uniform(0.2, 1.2, some), np.inf))
        patch = F.interpolate(noise, (size, size), mode="bilinear") > limit
        labels = torch.where(patch, F.interpolate(others, (size, size)).to(torch.uint8), labels)
        out[self._send(given)] = labels
        return out, true

    def _cells(self, labellings: torch.Tensor, theta: np.ndarray, size: int) -> torch.Tensor:
        """Labellings (n, H, W) where theta puts the cells of a crop, uint8 (n, 1, size, size), NO_DATA beyond them."""
        grid = F.affine_grid(self._send(theta.astype(np.float32)), (len(theta), 1, size, size), align_corners=False)
        # one more than the label, so that what is beyond the frame reads as nothing known
        cells = F.grid_sample(labellings[:, None].float() + 1, grid, mode="nearest", padding_mode="zeros",
                              align_corners=False)
        return (cells - 1).remainder(256).to(torch.uint8)

    def _radiometry(self, crops: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        count, size, wide = len(crops), self.size_px, self.variation

        def some(share: float, low: float, high: float) -> np.ndarray:
            return np.where(rng.random(count) < share, rng.uniform(low, high, count), 0.0)

        blurred = some(min(0.1 * wide, 0.5), 0.4, 0.4 + 0.6 * wide)
        chosen = np.flatnonzero(blurred)
        if len(chosen):
            reach = np.arange(-_BLUR_REACH, _BLUR_REACH + 1)
            taps = np.exp(-0.5 * (reach / blurred[chosen, None]) ** 2)
            taps = self._column(taps / taps.sum(1, keepdims=True))
            index = self._send(chosen)
            pixels = F.pad(crops[index], (_BLUR_REACH,) * 4, mode="reflect")
            pixels = sum(pixels[..., i:i + size] * taps[..., i] for i in range(len(reach)))
            crops[index] = sum(pixels[..., i:i + size, :] * taps[..., i] for i in range(len(reach)))
        for _ in range(_GHOSTS):
            level = wide * some(0.12, 5.0, 20.0) * rng.choice((-1.0, -1.0, 1.0), count)
            self._add(crops, level, lambda marked: self._ghosts(marked, rng))
        inverted = rng.random(count) < self.inversion
        grey = self._column(np.where(inverted, 255.0, 0.0)) + self._column(np.where(inverted, -1.0, 1.0)) * crops
        grey = 255 * (grey / 255).clamp(1e-4, 1).pow(self._column(np.exp(rng.uniform(-0.3, 0.3, count) * wide)))
        gain = np.exp(rng.uniform(-0.35, 0.25, count) * wide)
        grey = (grey - 127.5) * self._column(gain) + self._column(127.5 + rng.uniform(-25, 25, count) * wide)
        self._add(grey, wide * some(0.3, 2.0, 12.0), lambda marked: F.interpolate(
            self._noise(marked, _COARSE), (size, size), mode="bicubic"))
        self._add(grey, wide * some(0.3, 1.0, 6.0), lambda marked: self._noise(marked, size))
        return grey.round().clamp(0, 255)

    def _add(self, crops: torch.Tensor, level: np.ndarray, pattern: Callable[[int], torch.Tensor]) -> None:
        """In place, level x pattern(number of them) to those crops whose level is not 0."""
        chosen = np.flatnonzero(level)
        if len(chosen):
            crops.index_add_(0, self._send(chosen), pattern(len(chosen)) * self._column(level[chosen]))

    def _noise(self, count: int, size: int) -> torch.Tensor:
        return torch.randn((count, 1, size, size), generator=self._generator, device=self.device)

    def _ghosts(self, count: int, rng: np.random.Generator) -> torch.Tensor:
        """(B, 1, S, S), 0 to 1: one soft rectangle of a car's proportions in each."""
        size = self.size_px
        x0, y0 = self._column(rng.uniform(0, size, count)), self._column(rng.uniform(0, size, count))
        turn, length = rng.uniform(0, np.pi, count), rng.uniform(20, 90, count)
        cos, sin = self._column(np.cos(turn)), self._column(np.sin(turn))
        axis = torch.arange(size, device=self.device, dtype=torch.float32) + 0.5
        x, y = axis[None, None, None] - x0, axis[None, None, :, None] - y0
        along, across = (x * cos + y * sin).abs(), (y * cos - x * sin).abs()
        half, soft = self._column(length / 2), self._column(rng.uniform(0.7, 4.0, count))
        return torch.sigmoid((half - along) / soft) * torch.sigmoid((half * 0.45 - across) / soft)


@dataclass(frozen=True)
class _Geometry:
    """Of a batch: frame (n,), scale (n,) rising, to_crop (n, 2, 3): from pixel edges of the frame to those of the
    crop."""

    frame: np.ndarray
    scale: np.ndarray
    to_crop: np.ndarray

    def theta(self, frame_size: np.ndarray, crop_px: int) -> np.ndarray:
        """(n, 2, 3) float32 for affine_grid: from crop to frame, both from -1 to 1 between their outer edges."""
        back = np.linalg.inv(self.to_crop[:, :, :2])
        start = -(back @ self.to_crop[:, :, 2:])[..., 0]
        half = crop_px / 2
        linear = back * half * 2 / frame_size[:, None]
        middle = (back.sum(2) * half + start) * 2 / frame_size - 1
        return np.concatenate((linear, middle[..., None]), 2).astype(np.float32)


class _Placed:
    """A training set with its pixels on the device and its objects in arrays that are as wide as its fullest frame."""

    def __init__(self, source: TrainingSet, device: torch.device):
        frames = source.frames
        self.images = torch.from_numpy(frames.images).to(device)
        self.labellings = None if frames.labellings is None else torch.from_numpy(frames.labellings).to(device)
        count = len(frames.images)
        self.pixels_per_metre = np.full(count, _PIXELS_PER_METRE) if frames.pixels_per_metre is None \
            else frames.pixels_per_metre
        self.size = np.array(frames.images.shape[:0:-1], np.float64)  # width, height
        self.trained = np.array([c in frames.annotated for c in range(len(CLASS_NAMES))], np.float32)
        self._log_scale = np.log(source.scale)
        most = max(1, max(map(len, frames.labels)))
        self._boxes = np.zeros((count, most, 4), np.float32)
        self._labels = np.full((count, most), PADDING, np.int64)
        for i, (boxes, labels) in enumerate(zip(frames.boxes, frames.labels)):
            self._boxes[i, :len(boxes)], self._labels[i, :len(labels)] = boxes, labels
        per_class = [np.argwhere(self._labels == c) for c in range(len(CLASS_NAMES))]
        self._per_class = [places for places in per_class if len(places)]

    def draw(self, count: int, size_px: int, rng: np.random.Generator) -> _Geometry:
        scale = np.sort(np.exp(rng.uniform(*self._log_scale, count)))
        frame = rng.integers(0, len(self._boxes), count)
        centre = rng.uniform(0, 1, (count, 2)) * self.size
        around = rng.random(count) >= 0.1
        kind, chance = rng.integers(0, max(1, len(self._per_class)), count), rng.random(count)
        wander = rng.uniform(-0.4, 0.4, (count, 2)) * size_px / scale[:, None]
        if self._per_class:
            places = np.array([self._per_class[k][int(c * len(self._per_class[k]))] for k, c in zip(kind, chance)])
            box = self._boxes[places[:, 0], places[:, 1]]
            frame = np.where(around, places[:, 0], frame)
            centre = np.where(around[:, None], (box[:, :2] + box[:, 2:]) / 2 + wander, centre)
        half = (size_px / scale / 2)[:, None]
        centre = np.clip(centre, np.minimum(half, self.size / 2), np.maximum(self.size - half, self.size / 2))
        to_crop = np.zeros((count, 2, 3))
        for axis, flipped in ((0, rng.random(count) < 0.5), (1, rng.random(count) < 0.3)):
            factor = np.where(flipped, -scale, scale)
            to_crop[:, axis, axis], to_crop[:, axis, 2] = factor, size_px / 2 - factor * centre[:, axis]
        turned = rng.random(count) < 0.25
        to_crop[turned] = to_crop[turned, ::-1]
        return _Geometry(frame, scale, to_crop)

    def objects(self, geometry: _Geometry, size_px: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, m, 4) and labels (n, m) within the crops, m as many as the fullest crop has, up to `most`."""
        boxes, labels = self._boxes[geometry.frame], self._labels[geometry.frame].copy()
        linear, start = geometry.to_crop[:, :, :2].swapaxes(1, 2), geometry.to_crop[:, None, :, 2]
        a, b = boxes[..., :2] @ linear + start, boxes[..., 2:] @ linear + start
        moved = np.concatenate((np.minimum(a, b), np.maximum(a, b)), 2)
        clipped = moved.clip(0, size_px)
        share = (clipped[..., 2:] - clipped[..., :2]).prod(2) / np.maximum(
            (moved[..., 2:] - moved[..., :2]).prod(2), 1e-6)
        labels[(share < 0.45) & (labels != PADDING)] = IGNORE
        labels[share < 0.15] = PADDING
        order = np.argsort(np.where(labels < 0, labels + 3, 0), axis=1, kind="stable")  # objects, IGNORE, PADDING
        order = order[:, :min(most, int((labels != PADDING).sum(1).max()))]
        labels = np.take_along_axis(labels, order, 1)
        boxes = np.take_along_axis(clipped, order[..., None], 1)
        boxes[labels == PADDING] = 0.0
        return boxes.astype(np.float32), labels
