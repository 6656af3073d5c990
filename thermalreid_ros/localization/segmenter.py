"""From a thermal or colour frame to its labelling: reduced, labelled by a network, with confidence."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np

from thermalreid_ros.camera.thermal import ThermalFrame
from thermalreid_ros.engine import Engine, EngineError
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import CLASS_COUNT, CLASS_NAMES

MIN_SIDE_PX = 32
#: What a network that was trained on temperatures sees in place of green and blue: how much warmer than the frame's
#: median a pixel is, at 8 levels a kelvin around the middle of the scale, and its temperature, at 2 levels a degree
#: from -40 C on. Gain control takes both away, and what lawn and gravel differ by at night is little else.
CONTRAST_LEVELS_PER_K, ABSOLUTE_LEVELS_PER_K, COLDEST_C = 8.0, 2.0, -40.0
_MEDIAN_STEP = 3  # of pixels, each way: a ninth of them has the same median


def temperature_levels(temperature_c: np.ndarray) -> np.ndarray:
    """The second and third channel of a radiometric frame, float32 (2, H, W), whole levels 0 to 255.

    temperature_c: float32 (H, W), degrees Celsius, without NaN, of the size that the network sees."""
    median_c = float(np.median(temperature_c[::_MEDIAN_STEP, ::_MEDIAN_STEP]))
    levels = np.stack((127.5 + CONTRAST_LEVELS_PER_K * (temperature_c - median_c),
                       ABSOLUTE_LEVELS_PER_K * (temperature_c - COLDEST_C)))
    return np.rint(levels, out=levels).clip(0.0, 255.0, out=levels)


class Segmenter:
    """Runs a segmentation model. One caller at a time: the input buffers are reused; masks are the caller's to keep.

    The model takes `image` uint8 (1, 3, h, w) and gives `labels` and `confidence`, uint8 (1, h, w)
    (training/export_segmenter.py). The three channels are red, green and blue; of a thermal frame its grey levels
    thrice, or grey and temperature_levels where the frame is radiometric and the card says `radiometric: true`.
    Frames are reduced to about the number of pixels that the card calls typical, each side a multiple of the network's
    stride; smaller ones are not enlarged beyond the next multiple.
    """

    def __init__(self, engine: Engine):
        card = engine.card
        if card.task != "segmentation" or card.classes != CLASS_NAMES:
            raise EngineError(f"model '{card.name}' is for {card.task} of {', '.join(card.classes) or 'nothing'}; a "
                              f"segmenter's classes are {', '.join(CLASS_NAMES)}")
        self.engine = engine
        self._multiple = max(card.strides, default=32)
        typical = card.inputs[0].typical_shape or (1, 3, 256, 320)
        self._pixels = typical[2] * typical[3]
        self._input = np.empty((0, 0, 0, 0), np.uint8)
        self._small: dict[str, np.ndarray] = {}

    @property
    def sees_temperatures(self) -> bool:
        """Whether the network was trained on radiometric frames."""
        return self.engine.card.extra.get("radiometric") is True

    def confusion(self, radiometric: bool) -> np.ndarray:
        """float64 (5, 5): share of a true class (row) that the network labels as each class, as its card says.

        radiometric: of frames that hold temperatures; where the network does not see these, as of grey ones."""
        key = "confusion_radiometric" if radiometric and self.sees_temperatures else "confusion"
        try:
            rows = np.array(self.engine.card.extra.get(key, ()), np.float64)
        except (TypeError, ValueError):
            rows = np.zeros(0)
        if rows.shape != (CLASS_COUNT, CLASS_COUNT) or not np.allclose(rows.sum(1), 1, atol=1e-3):
            raise EngineError(f"model '{self.engine.card.name}': the card holds no {key} of {CLASS_COUNT} classes; "
                              "measure it with: thermalreid evaluate segmentation --card")
        return rows

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a frame of this size is reduced to."""
        scale = min(1.0, math.sqrt(self._pixels / (height * width)))
        rows, columns = (max(MIN_SIDE_PX, self._multiple * round(side * scale / self._multiple))
                         for side in (height, width))
        return rows, columns

    def segment(self, picture: np.ndarray | ThermalFrame, stamp_ns: int = 0) -> SemanticMask:
        """Label a thermal frame by all that it holds, or a picture: uint8 (H, W), grey levels of a thermal frame, or
        (H, W, 3) RGB, taken at stamp_ns.

        Raises LocalizationError for anything else.
        """
        if isinstance(picture, ThermalFrame):
            temperature_c = picture.values() if picture.is_radiometric and self.sees_temperatures else None
            return self._label(picture.gray8(), temperature_c, picture.stamp_ns)
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)) \
                or not picture.size:
            raise LocalizationError(f"a frame of {picture.dtype} {list(picture.shape)} cannot be labelled; give uint8 "
                                    "(H, W) grey or (H, W, 3) RGB")
        return self._label(picture, None, stamp_ns)

    def _label(self, image: np.ndarray, temperature_c: np.ndarray | None, stamp_ns: int) -> SemanticMask:
        height, width = image.shape[:2]
        rows, columns = self.network_size(height, width)
        if self._input.shape[2:] != (rows, columns):
            self._input = np.empty((1, 3, rows, columns), np.uint8)
        small = self._reduced("picture", image, rows, columns)
        if temperature_c is not None:
            self._input[0, 0] = small
            self._input[0, 1:] = temperature_levels(self._reduced("temperature", temperature_c, rows, columns))
        else:
            self._input[0] = small if small.ndim == 2 else small.transpose(2, 0, 1)
        started = time.perf_counter()
        out = self.engine.run({"image": self._input})
        inference_ms = 1e3 * (time.perf_counter() - started)
        return SemanticMask(out["labels"][0], out["confidence"][0], width, height, stamp_ns, inference_ms)

    def _reduced(self, name: str, image: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Of the size given, in a buffer of that name; the image itself where it has that size."""
        height, width = image.shape[:2]
        if (height, width) == (rows, columns):
            return image
        shape = (rows, columns, *image.shape[2:])
        if (small := self._small.get(name)) is None or small.shape != shape:
            small = self._small[name] = np.empty(shape, image.dtype)
        shrinks = height >= rows and width >= columns
        return cv2.resize(image, (columns, rows), dst=small,
                          interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
