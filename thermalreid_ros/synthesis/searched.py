"""The object that is searched: its photographs, and its thermal probes at one hour."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from thermalreid_ros.synthesis.conditions import Conditions
from thermalreid_ros.synthesis.photograph import check_photograph, load_photograph
from thermalreid_ros.synthesis.synthesizer import ProbeSynthesizer, SynthesisError, ThermalProbes, lies_within

MOST_PHOTOGRAPHS = 8
# Networks see an object in fewer than 200 px, and eight photographs of 48 megapixels would fill 1.2 GiB.
_KEPT_SIDE_PX, _KEPT_BOX_PX = 2048, 512
_KEPT_AROUND = 3.0  # sides of the box: twice what networks see


@dataclass(frozen=True, eq=False)
class Photograph:
    """pixels: uint8 (H, W, 3) RGB. box: pixel edges around the object, None where it is to be found. Where the
    photograph is larger than is of use, what is kept of both is reduced, and of a box what is around it."""

    name: str
    pixels: np.ndarray
    box: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_photograph(self.pixels, self.name)
        times = -(-max(self.pixels.shape[:2]) // _KEPT_SIDE_PX)
        if times > 1 and self.box is not None:
            if not all(map(math.isfinite, self.box)) or not lies_within(self.box, self.pixels.shape[:2]):
                return  # said where the box is used, in pixels of the whole photograph
            side_px = max(self.box[2] - self.box[0], self.box[3] - self.box[1])
            self._cut(int(max(_KEPT_AROUND * side_px, _KEPT_BOX_PX)))
            times = min(-(-max(self.pixels.shape[:2]) // _KEPT_SIDE_PX), int(side_px // _KEPT_BOX_PX))
        if times > 1:
            height, width = self.pixels.shape[:2]
            size = width // times, height // times
            self._keep(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA),
                       self.box and tuple(edge * size[n % 2] / (width, height)[n % 2] for n, edge in
                                          enumerate(self.box)))

    def _cut(self, side_px: int) -> None:
        """Leave what is farther from the box than any network looks, where the box is in the photograph at all."""
        corner, size = [], []
        for low, high, length in zip(self.box[:2], self.box[2:], self.pixels.shape[1::-1]):
            first = min(max(int(0.5 * (low + high)) - side_px // 2, 0), length)
            last = min(max(int(0.5 * (low + high)) + side_px // 2, 0), length)
            corner.append(first)
            size.append(last - first)
        if min(size) >= min(_KEPT_BOX_PX, *self.pixels.shape[:2]) // 2:
            (x, y), (width, height) = corner, size
            self._keep(self.pixels[y:y + height, x:x + width].copy(),
                       tuple(edge - corner[n % 2] for n, edge in enumerate(self.box)))

    def _keep(self, pixels: np.ndarray, box: tuple[float, ...] | None) -> None:
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "box", box)


@dataclass(frozen=True, eq=False)
class Made:
    """What came of the photographs. served: those that probes were made of. probes: of each of them. faults: why there
    are none of others, a line each that begins with the photograph's name, by photograph."""

    served: tuple[Photograph, ...]
    probes: tuple[ThermalProbes, ...]
    faults: dict[Photograph, str]

    @property
    def crops(self) -> tuple[np.ndarray, ...]:
        """float32 (h, w), degrees Celsius; photograph by photograph, the likeliest of each first."""
        return tuple(crop for probes in self.probes for crop in probes.crops)

    @property
    def mean_c(self) -> tuple[float, ...]:
        """Of the object in each crop."""
        return tuple(mean for probes in self.probes for mean in probes.mean_c)


class SearchedObject:
    """Photographs of one object, those of files and those that were shown later; of the latter the newest are kept."""

    def __init__(self, synthesizer: ProbeSynthesizer):
        self._synthesizer = synthesizer
        self._files: tuple[Photograph, ...] = ()
        self._shown: deque[Photograph] = deque(maxlen=MOST_PHOTOGRAPHS)

    @property
    def photographs(self) -> tuple[Photograph, ...]:
        return *self._files, *self._shown

    def read(self, paths: Sequence[str], boxes: Sequence[tuple[float, ...] | None]) -> None:
        """Take these files instead of those before. SynthesisError leaves those."""
        if len(paths) > MOST_PHOTOGRAPHS:
            raise SynthesisError(f"{len(paths)} photographs of one object are too many; {MOST_PHOTOGRAPHS} can be used")
        self._files = tuple(Photograph(path, load_photograph(path), box)
                            for path, box in zip(paths, boxes, strict=True))

    def show(self, photograph: Photograph) -> None:
        """Add one more, which may push out the oldest that was shown."""
        self._shown.append(photograph)

    def forget(self, photograph: Photograph) -> None:
        """Of those that were shown, this one."""
        if photograph in self._shown:
            self._shown.remove(photograph)

    def forget_shown(self) -> None:
        """Another object is searched now."""
        self._shown.clear()

    def make(self, conditions: Conditions, class_name: str, count: int) -> Made:
        """`count` probes of every photograph. One shown that no probe can be made of is forgotten."""
        served, made, faults = [], [], {}
        for photograph in self.photographs:
            try:
                made.append(self._synthesizer.synthesize(photograph.pixels, conditions, box=photograph.box, count=count,
                                                         class_name=class_name))
                served.append(photograph)
            except SynthesisError as error:
                faults[photograph] = f"{photograph.name}: {str(error).removeprefix('photograph: ')}"
        for photograph in faults:
            self.forget(photograph)
        return Made(tuple(served), tuple(made), faults)


def boxes_of(numbers: Sequence[float], count: int) -> list[tuple[float, ...] | None]:
    """For each of `count` photographs its box, from a list of numbers: four for each, or four for all. All zero: None,
    the object is to be found. SynthesisError for another number of them."""
    if len(numbers) not in (4, 4 * count):
        raise SynthesisError(f"box holds {len(numbers)} numbers for {count} photographs; give x_min, y_min, x_max, "
                             "y_max in pixels, once or for each of them")
    boxes = [tuple(map(float, numbers[start:start + 4])) for start in range(0, len(numbers), 4)]
    if len(boxes) != count:
        boxes *= count
    return [box if any(box) else None for box in boxes]
