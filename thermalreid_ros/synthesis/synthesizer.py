"""Thermal probes from one photograph: find the object, make its thermal pictures, cut them as a detector would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from thermalreid_ros.camera.crops import MARGIN, CropError, square_crop
from thermalreid_ros.engine import Engine, EngineError
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.synthesis.conditions import Conditions

TASK = "synthesis"
LEAST_SIDE_PX, MOST_SIDE_PX = 24, 8192
_LEAST_CONTRAST = 3.0  # grey levels, standard deviation: less is a wall or a lens cap
_LEAST_OBJECT = 0.01  # share of the crop that a found object covers
_LEAST_INSIDE = 0.7  # share of a given box that lies in the photograph: less is meant for one of another size
_LOOKS, _LEAST_OVERLAP = 3, 0.5  # docs/probes.md says what these sort out
_NOT_FOUND = "photograph: no car, person, bicycle or dog was found in it; give a box"
_ANY = "any"


class SynthesisError(ThermalReidError):
    """A photograph that no probe can be made of; the message says why."""


@dataclass(frozen=True, eq=False)
class ThermalProbes:
    """K thermal pictures of one object, the likeliest first.

    crops: float32 (h, w), degrees Celsius, of one size, cut at the object's box. mask: bool (h, w), the object. mean_c:
    its mean temperature in each. box: where it was found in the photograph, pixel edges. photograph: uint8
    (S, S, 3), the square of the photograph that the network saw. squares: float32 (K, S, S), what it made of it, that
    the crops are cut from: the squares of crops.MARGIN that an embedding is shown, at its own size.
    """

    crops: tuple[np.ndarray, ...]
    mask: np.ndarray
    mean_c: tuple[float, ...]
    box: tuple[float, float, float, float]
    photograph: np.ndarray
    squares: np.ndarray


class ProbeSynthesizer:
    """Runs a synthesis model. One caller at a time.

    The model takes `colour` uint8 (1, 3, S, S) RGB, the square of crops.MARGIN around an object; `conditions` float32
    (K, 4): solar hour, air temperature in degrees Celsius, cloud cover, sine of the sun's elevation; and `offset`
    float32 (K,), kelvin that the object's mean is moved by. It returns `temperature` (K, S, S), degrees Celsius, and
    `mask` (K, S, S), 0 to 1. ThermalGAN reads of the conditions the air's temperature alone. Its card's
    mean_offsets_k says, for each class, by how much means typically differ from the predicted one.
    """

    def __init__(self, engine: Engine):
        if engine.card.task != TASK:
            raise EngineError(f"model '{engine.card.name}' does {engine.card.task}, not {TASK}")
        self.engine = engine
        self.size_px = engine.card.tensor("colour", 2).shape[-1]
        try:
            self.offsets_k = {name: tuple(map(float, values))
                              for name, values in (engine.card.extra.get("mean_offsets_k") or {}).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise EngineError(f"model '{engine.card.name}': mean_offsets_k of its card are no lists of kelvin by class "
                              f"({error})") from None

    @property
    def most(self) -> int:
        """How many probes it makes at most."""
        return min((len(values) for values in self.offsets_k.values()), default=1)

    def synthesize(self, photograph: np.ndarray, conditions: Conditions, *, box: Sequence[float] | None = None,
                   mask: np.ndarray | None = None, count: int = 5, class_name: str = "") -> ThermalProbes:
        """Probes of the object in a photograph, uint8 (H, W, 3) RGB.

        box: pixel edges around the object; mask: bool (H, W) of it; with neither, the object is sought in the whole
        picture. count: as many probes, or as many as the model makes. class_name: "" where it is not known.
        Raises SynthesisError.
        """
        self._check(photograph)
        if mask is not None:
            box = _box_of(mask, photograph.shape[:2])
        elif box is not None:
            _check_box(box, photograph.shape[:2])
        if box is None:
            box = self._find(photograph, conditions)
        offsets = (self.offsets_k.get(class_name) or self.offsets_k.get(_ANY) or (0.0,))[:max(count, 1)]
        try:
            square = square_crop(photograph, box, self.size_px)
        except CropError as error:
            raise SynthesisError(f"photograph: {error}") from None
        temperature, made = self._run(square, conditions, offsets)
        if mask is not None:
            made = square_crop(np.asarray(mask, np.uint8), box, self.size_px, interpolation=cv2.INTER_NEAREST) > 0
        rows, columns = self._window(box)
        crops = tuple(np.ascontiguousarray(picture[rows, columns]) for picture in temperature)
        inside = made[rows, columns]
        if inside.mean() < _LEAST_OBJECT:
            raise SynthesisError("photograph: nothing in the box looks like an object; give another box or photograph")
        return ThermalProbes(crops, inside, tuple(float(crop[inside].mean()) for crop in crops),
                             tuple(map(float, box)), square, temperature)

    def _check(self, photograph: np.ndarray) -> None:
        if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype != np.uint8:
            raise SynthesisError(f"photograph: {photograph.dtype} {list(photograph.shape)} is no colour picture; "
                                 "give uint8 (H, W, 3) RGB")
        height, width = photograph.shape[:2]
        if min(height, width) < LEAST_SIDE_PX or max(height, width) > MOST_SIDE_PX:
            raise SynthesisError(f"photograph: {width}x{height} px; sides of {LEAST_SIDE_PX} to {MOST_SIDE_PX} px "
                                 "can be used")
        if float(photograph[::2, ::2].std()) < _LEAST_CONTRAST:
            raise SynthesisError("photograph: it shows nothing, all of it is of one colour")

    def _find(self, photograph: np.ndarray, conditions: Conditions) -> tuple[float, float, float, float]:
        """The box of the likeliest object: the largest piece of the mask that the network sees in the whole picture,
        looked at again and again within its own square. What is no object is seen elsewhere when looked at closer."""
        height, width = photograph.shape[:2]
        longest = max(height, width)
        # The whole picture as if its middle were the object: a square of the picture's longest side.
        box = np.array([0.5 * (width - longest / MARGIN), 0.5 * (height - longest / MARGIN),
                        0.5 * (width + longest / MARGIN), 0.5 * (height + longest / MARGIN)])
        for _ in range(_LOOKS):
            side = MARGIN * max(box[2] - box[0], box[3] - box[1])
            try:
                square = square_crop(photograph, box, self.size_px)
            except CropError:  # what the last look found has hardly a pixel
                raise SynthesisError(_NOT_FOUND) from None
            _, mask = self._run(square, conditions, (0.0,))
            count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            if count < 2 or stats[1:, cv2.CC_STAT_AREA].max() < _LEAST_OBJECT * mask.size:
                raise SynthesisError(_NOT_FOUND)
            x, y, w, h = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), :4]
            corner = 0.5 * (box[:2] + box[2:]) - 0.5 * side
            low = np.maximum(corner + np.array([x, y]) * side / self.size_px, 0.0)
            high = np.minimum(corner + np.array([x + w, y + h]) * side / self.size_px, (width, height))
            if (high - low).min() <= 0:
                raise SynthesisError(_NOT_FOUND)
            before, box = box, np.concatenate([low, high])
        if _overlap(before, box) < _LEAST_OVERLAP:
            raise SynthesisError(_NOT_FOUND)
        return tuple(map(float, box))

    def _run(self, square: np.ndarray, conditions: Conditions,
             offsets: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """(temperature float32 (K, S, S), mask bool (S, S))."""
        row = (conditions.solar_hour, conditions.air_c, conditions.cloud_cover,
               np.sin(np.radians(conditions.sun_elevation_deg)))
        out = self.engine.run({
            "colour": np.ascontiguousarray(square.transpose(2, 0, 1))[None],
            "conditions": np.repeat(np.float32(row)[None], len(offsets), axis=0),
            "offset": np.float32(offsets)})
        return out["temperature"], out["mask"][0] > 0.5

    def _window(self, box: Sequence[float]) -> tuple[slice, slice]:
        """Rows and columns of the square that the box covers."""
        width, height = box[2] - box[0], box[3] - box[1]
        scale = self.size_px / (MARGIN * max(width, height))
        spans = []
        for extent in (height, width):
            half = 0.5 * extent * scale
            spans.append(slice(max(int(np.floor(0.5 * self.size_px - half)), 0),
                               min(int(np.ceil(0.5 * self.size_px + half)), self.size_px)))
        return spans[0], spans[1]


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Of two boxes, intersection over union."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = float(np.prod(np.maximum(high - low, 0.0)))
    return common / float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - common)


def lies_within(box: Sequence[float], shape: tuple[int, int]) -> bool:
    """Whether most of a box is in a picture of (height, width)."""
    x_min, y_min, x_max, y_max = map(float, box)
    inside = max(min(x_max, shape[1]) - max(x_min, 0.0), 0.0) * max(min(y_max, shape[0]) - max(y_min, 0.0), 0.0)
    return inside >= _LEAST_INSIDE * (x_max - x_min) * (y_max - y_min)


def _check_box(box: Sequence[float], shape: tuple[int, int]) -> None:
    """What square_crop does not refuse, which repeats the edges of a picture: a box that lies beyond them."""
    if not lies_within(box, shape):
        height, width = shape
        raise SynthesisError(f"photograph: box {tuple(round(float(edge), 1) for edge in box)} lies beyond the "
                             f"{width}x{height} picture, for a third and more; give pixels of this very picture")


def _box_of(mask: np.ndarray, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    if mask.shape != shape:
        raise SynthesisError(f"mask: {list(mask.shape)} does not fit a photograph of {list(shape)}")
    x, y, w, h = cv2.boundingRect(np.asarray(mask, np.uint8))
    if not w or not h:
        raise SynthesisError("mask: it marks nothing")
    return (float(x), float(y), float(x + w), float(y + h))
