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
from thermalreid_ros.synthesis.synthesizer import ProbeSynthesizer, SynthesisError, ThermalProbes

MOST_PHOTOGRAPHS = 8
# Networks see an object in fewer than 200 px, and eight photographs of 48 megapixels would fill 1.2 GiB.
_KEPT_SIDE_PX, _KEPT_BOX_PX = 2048, 512


@dataclass(frozen=True, eq=False)
class Photograph:
    """pixels: uint8 (H, W, 3) RGB. box: pixel edges around the object, None where it is to be found. Both are kept
    reduced where the photograph is larger than is of use."""

    name: str
    pixels: np.ndarray
    box: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_photograph(self.pixels, self.name)
        height, width = self.pixels.shape[:2]
        times = -(-max(height, width) // _KEPT_SIDE_PX)
        if self.box is not None:
            x_min, y_min, x_max, y_max = self.box
            side_px = max(x_max - x_min, y_max - y_min)
            times = min(times, int(side_px // _KEPT_BOX_PX)) if math.isfinite(side_px) else 1
        if times > 1:
            size = width // times, height // times
            object.__setattr__(self, "pixels", cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA))
            if self.box is not None:
                object.__setattr__(self, "box", tuple(edge * size[n % 2] / (width, height)[n % 2]
                                                      for n, edge in enumerate(self.box)))


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
