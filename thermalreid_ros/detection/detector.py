"""From a grey thermal frame to detections: padding, inference, non-maximum suppression."""

from __future__ import annotations

import time

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES, Detection, DetectionResult
from thermalreid_ros.engine import Engine, EngineError

MIN_SIDE_PX = 96  # smaller inputs have fewer cells than the networks' heads return candidates


class Detector:
    """Runs a detection model. One caller at a time: the input buffers are reused.

    The model takes `thermal` uint8 (1, 1, H, W) and, where it was built for it, `semantics` float32
    (1, K, H, W); it returns its best candidates by falling score: `boxes` (1, n, 4) pixel edges, `scores` (1, n),
    `labels` (1, n). Both YOLO-Semantic and yolo_compact are exported in this form (training/export.py).
    """

    def __init__(self, engine: Engine, score_threshold: float = 0.3, iou_threshold: float = 0.6,
                 max_detections: int = 100):
        if engine.card.classes != CLASS_NAMES:
            raise EngineError(f"model '{engine.card.name}' detects {', '.join(engine.card.classes) or 'nothing'}; "
                              f"a detector's classes are {', '.join(CLASS_NAMES)}")
        self.engine = engine
        self.score_threshold, self.iou_threshold, self.max_detections = score_threshold, iou_threshold, max_detections
        self._multiple = max(engine.card.strides, default=32)
        semantics = [spec for spec in engine.card.inputs if spec.name == "semantics"]
        self._semantic_classes = int(semantics[0].shape[1]) if semantics else 0
        self._padded: np.ndarray | None = None
        self._one_hot: np.ndarray | None = None
        self._labelled = False  # whether _one_hot holds a mask: a blank one stays blank at no cost

    @property
    def takes_semantics(self) -> bool:
        return self._semantic_classes > 0

    def detect(self, gray8: np.ndarray, mask: np.ndarray | None = None, source: str = "predicted") -> DetectionResult:
        """Detect in one frame.

        gray8: (H, W) uint8, white-hot. mask: (H, W) uint8 semantic labels of the same frame, where there is one; labels
        the model does not know count as unknown. source: where the mask came from, for the result. A model without
        semantic input ignores the mask, and the result says "none".
        """
        height, width = gray8.shape
        inputs = {"thermal": self._pad(gray8)[None, None]}
        if self.takes_semantics:
            inputs["semantics"] = self._semantics(mask, inputs["thermal"].shape[2:])
        started = time.perf_counter()
        out = self.engine.run(inputs)
        inference_ms = 1e3 * (time.perf_counter() - started)
        scores = out["scores"][0]
        count = int(np.searchsorted(-scores, -self.score_threshold, side="right"))  # scores fall
        boxes, labels, scores = out["boxes"][0, :count], out["labels"][0, :count], scores[:count]
        boxes = np.clip(boxes, 0.0, (width, height, width, height))
        keep = suppress(boxes, labels, self.iou_threshold, self.max_detections)
        keep = keep[(boxes[keep, 2:] - boxes[keep, :2] > 1.0).all(1)]  # what lies in the padding, or is no area
        detections = tuple(Detection(int(labels[i]), float(scores[i]), *map(float, boxes[i])) for i in keep)
        used = source if mask is not None and self.takes_semantics else "none"
        return DetectionResult(detections, inference_ms, used)

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

    def _semantics(self, mask: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
        if self._one_hot is None or self._one_hot.shape[2:] != shape:
            self._one_hot = np.zeros((1, self._semantic_classes, *shape), np.float32)
        elif self._labelled:
            self._one_hot[...] = 0.0
        self._labelled = mask is not None
        if mask is not None:
            height, width = mask.shape
            for label, plane in enumerate(self._one_hot[0]):
                np.equal(mask, label, out=plane[:height, :width], casting="unsafe")
        return self._one_hot


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
