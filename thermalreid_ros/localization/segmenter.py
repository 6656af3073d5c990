"""From a thermal or colour frame to its labelling: reduced, labelled by a network, with confidence."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np

from thermalreid_ros.engine import Engine, EngineError
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import CLASS_COUNT, CLASS_NAMES

MIN_SIDE_PX = 32


class Segmenter:
    """Runs a segmentation model. One caller at a time: the input buffers are reused; masks are the caller's to keep.

    The model takes `image` uint8 (1, 3, h, w) RGB and gives `labels` and `confidence`, uint8 (1, h, w)
    (training/export_segmenter.py). Frames are reduced to about the number of pixels that the card calls typical, each
    side a multiple of the network's stride; smaller ones are not enlarged beyond the next multiple.
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
        self._small = np.empty((0, 0), np.uint8)

    @property
    def confusion(self) -> np.ndarray:
        """float64 (5, 5): share of a true class (row) that the network labels as each class, as its card says."""
        rows = np.array(self.engine.card.extra.get("confusion", ()), np.float64)
        if rows.shape != (CLASS_COUNT, CLASS_COUNT) or not np.allclose(rows.sum(1), 1, atol=1e-3):
            raise EngineError(f"model '{self.engine.card.name}': the card holds no confusion of {CLASS_COUNT} classes; "
                              "measure it with: thermalreid evaluate segmentation --card")
        return rows

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a frame of this size is reduced to."""
        scale = min(1.0, math.sqrt(self._pixels / (height * width)))
        rows, columns = (max(MIN_SIDE_PX, self._multiple * round(side * scale / self._multiple))
                         for side in (height, width))
        return rows, columns

    def segment(self, image: np.ndarray, stamp_ns: int = 0) -> SemanticMask:
        """Label one frame: uint8 (H, W), grey levels of a thermal frame, or (H, W, 3) RGB.

        Raises LocalizationError for anything else.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
            raise LocalizationError(f"a frame of {image.dtype} {list(image.shape)} cannot be labelled; give uint8 "
                                    "(H, W) grey or (H, W, 3) RGB")
        height, width = image.shape[:2]
        rows, columns = self.network_size(height, width)
        if self._input.shape[2:] != (rows, columns):
            self._input = np.empty((1, 3, rows, columns), np.uint8)
        small = image
        if (height, width) != (rows, columns):
            if self._small.shape != (rows, columns, *image.shape[2:]):
                self._small = np.empty((rows, columns, *image.shape[2:]), np.uint8)
            shrinks = height >= rows and width >= columns
            small = cv2.resize(image, (columns, rows), dst=self._small,
                               interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        self._input[0] = small if small.ndim == 2 else small.transpose(2, 0, 1)
        started = time.perf_counter()
        out = self.engine.run({"image": self._input})
        inference_ms = 1e3 * (time.perf_counter() - started)
        return SemanticMask(out["labels"][0], out["confidence"][0], width, height, stamp_ns, inference_ms)
