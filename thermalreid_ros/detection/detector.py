"""From a grey thermal frame to detections: padding, inference, non-maximum suppression."""

from __future__ import annotations

import time

import numpy as np

from thermalreid_ros.camera.geometry import GroundView
from thermalreid_ros.detection.perspective import LIMIT, Perspective, weighed
from thermalreid_ros.detection.types import CLASS_NAMES, Detection, DetectionResult
from thermalreid_ros.engine import Engine, EngineError
from thermalreid_ros.maps.classes import NO_DATA

TASK = "detection"  # on the model's card
MIN_SIDE_PX = 96  # smaller inputs have fewer cells than the networks' heads return candidates


class Detector:
    """Runs a detection model. One caller at a time: the input buffers are reused.

    The model takes `thermal` uint8 (1, 1, H, W) and, where it was built for it, `semantics` uint8 (1, 1, H / s, W / s):
    the class of the ground, one value to s x s pixels, NO_DATA where unknown. It returns its best candidates by falling
    score: `boxes` (1, n, 4) pixel edges, `scores` (1, n), `labels` (1, n). Both YOLO-Semantic and yolo_compact are
    exported in this form (training/export.py).

    perspective: what its card says of how large things look, None where it says nothing.
    """

    def __init__(self, engine: Engine, score_threshold: float = 0.3, iou_threshold: float = 0.6,
                 max_detections: int = 100):
        if engine.card.task != TASK:
            raise EngineError(f"model '{engine.card.name}' does {engine.card.task}, not {TASK}")
        if engine.card.classes != CLASS_NAMES:
            raise EngineError(f"model '{engine.card.name}' detects {', '.join(engine.card.classes) or 'nothing'}; "
                              f"a detector's classes are {', '.join(CLASS_NAMES)}")
        self.engine = engine
        self.score_threshold, self.iou_threshold, self.max_detections = score_threshold, iou_threshold, max_detections
        self.perspective = Perspective.of_card(engine.card)
        self._multiple = max(engine.card.strides, default=32)
        semantics = next((spec for spec in engine.card.inputs if spec.name == "semantics"), None)
        self.semantics_stride = 0  # pixels to a value of the labelling; 0: takes none
        if semantics is not None:
            thermal = engine.card.tensor("thermal")
            if semantics.dtype != "uint8" or not semantics.typical_shape or not thermal.typical_shape:
                raise EngineError(f"model '{engine.card.name}' takes its labelling in another form than this version "
                                  "gives it; export it again")
            self.semantics_stride = thermal.typical_shape[3] // semantics.typical_shape[3]
        self._padded: np.ndarray | None = None
        self._labels: np.ndarray | None = None

    @property
    def takes_semantics(self) -> bool:
        return self.semantics_stride > 0

    def detect(self, gray8: np.ndarray, labels: np.ndarray | None = None, source: str = "predicted",
               view: GroundView | None = None) -> DetectionResult:
        """Detect in one frame.

        gray8: (H, W) uint8, white-hot. labels: (H, W) uint8, SemanticClass of the ground in the same frame, where
        something is known of it; any other value is unknown. source: where they came from, for the result. A model
        without semantic input ignores them, and the result says "none". view: from where the frame was taken, where
        that is known; scores are then weighed by how large things look from there.
        """
        height, width = gray8.shape
        inputs = {"thermal": self._pad(gray8)[None, None]}
        if self.takes_semantics:
            inputs["semantics"] = self._semantics(labels, inputs["thermal"].shape[2:])
        started = time.perf_counter()
        out = self.engine.run(inputs)
        inference_ms = 1e3 * (time.perf_counter() - started)
        boxes, classes, scores = out["boxes"][0], out["labels"][0], out["scores"][0]
        if use_view := view is not None and self.perspective is not None:
            count = _above(scores, weighed(np.array(self.score_threshold), -LIMIT))
            boxes, classes, scores = boxes[:count], classes[:count], scores[:count]
            scores = weighed(scores, self.perspective.evidence(view, boxes, classes))
            order = np.argsort(-scores, kind="stable")
            boxes, classes, scores = boxes[order], classes[order], scores[order]
        count = _above(scores, self.score_threshold)
        boxes, classes, scores = boxes[:count], classes[:count], scores[:count]
        boxes = np.clip(boxes, 0.0, (width, height, width, height))
        keep = suppress(boxes, classes, self.iou_threshold, self.max_detections)
        keep = keep[(boxes[keep, 2:] - boxes[keep, :2] > 1.0).all(1)]  # what lies in the padding, or is no area
        detections = tuple(Detection(int(classes[i]), float(scores[i]), *map(float, boxes[i])) for i in keep)
        used = source if labels is not None and self.takes_semantics else "none"
        return DetectionResult(detections, inference_ms, used, use_view)

    def _pad(self, gray8: np.ndarray) -> np.ndarray:
        """The frame itself where its size suits, else a reused buffer with the edge repeated to the right and below."""
        shape = tuple(max(MIN_SIDE_PX, -(-size // self._multiple) * self._multiple) for size in gray8.shape)
        if shape == gray8.shape:
            return gray8
        if self._padded is None or self._padded.shape != shape:
            self._padded = np.empty(shape, np.uint8)
        height, width = gray8.shape
        self._padded[:height, :width] = gray8
        self._padded[:height, width:] = gray8[:, -1:]
        self._padded[height:] = self._padded[height - 1]
        return self._padded

    def _semantics(self, labels: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
        """The labelling at the model's resolution in a reused buffer, unknown in the padding."""
        stride = self.semantics_stride
        size = (1, 1, shape[0] // stride, shape[1] // stride)
        if self._labels is None or self._labels.shape != size:
            self._labels = np.empty(size, np.uint8)
        self._labels[...] = NO_DATA
        if labels is not None:
            middle = labels[stride // 2::stride, stride // 2::stride]
            self._labels[0, 0, :middle.shape[0], :middle.shape[1]] = middle
        return self._labels


def _above(scores: np.ndarray, threshold: float) -> int:
    """How many of falling scores are at or above a threshold."""
    return int(np.searchsorted(-scores, -threshold, side="right"))


def suppress(boxes: np.ndarray, labels: np.ndarray, iou_threshold: float, limit: int) -> np.ndarray:
    """Greedy non-maximum suppression within each class; indices of the kept boxes, best first.

    boxes: (n, 4) pixel edges by falling score; labels: (n,). At most `limit` are kept.
    """
    top_left, bottom_right = boxes[:, :2], boxes[:, 2:]
    area = (bottom_right - top_left).clip(0).prod(1)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        inter = (np.minimum(bottom_right[i], bottom_right[i + 1:]) - np.maximum(top_left[i], top_left[i + 1:])) \
            .clip(0).prod(1)
        union = area[i] + area[i + 1:] - inter
        alive[i + 1:] &= ~((inter > iou_threshold * union) & (labels[i + 1:] == labels[i]))
    return np.array(kept, np.intp)
