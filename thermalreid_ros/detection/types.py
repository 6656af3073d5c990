"""Types that travel out of the detection room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Order of the class scores in every detector's output, and of `class_id` in every message.
CLASS_NAMES = ("car", "person", "bicycle", "dog")


@dataclass(frozen=True)
class Detection:
    """One object in one frame.

    Convention: box edges in pixels of the full frame, x right, y down; pixel `i` covers `[i, i + 1)`,
    so a box around exactly the first pixel is (0, 0, 1, 1). `score` is in [0, 1].
    """

    class_id: int
    score: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def class_name(self) -> str:
        return CLASS_NAMES[self.class_id]

    @property
    def width(self) -> float:
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        return self.y_max - self.y_min

    @property
    def centre(self) -> np.ndarray:
        """(x, y), float64, shape (2,)."""
        return np.array(((self.x_min + self.x_max) / 2, (self.y_min + self.y_max) / 2))

    @property
    def box(self) -> np.ndarray:
        """(x_min, y_min, x_max, y_max), float32, shape (4,)."""
        return np.array((self.x_min, self.y_min, self.x_max, self.y_max), np.float32)


@dataclass(frozen=True)
class DetectionResult:
    """What one frame gave: detections by falling score, and the time spent inside the network alone."""

    detections: tuple[Detection, ...]
    inference_ms: float
    semantics: str = "none"
