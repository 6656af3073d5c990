"""Types that travel out of the detection room."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

#: Order of the class scores in every detector's output, and of `class_id` in every message.
CLASS_NAMES = ("car", "person", "bicycle", "dog")
#: Mean height of a class, metres: from the virtual city's population, where cars are hatchbacks to vans and bicycles
#: stand or are ridden.
CLASS_HEIGHTS_M = (1.6, 1.6, 1.3, 0.57)
#: A box that ends this close to the edge of the frame may be cut by it.
EDGE_PX = 2.0
#: Sine of the angle below the horizon down to which a box is laid on the ground: at 8 degrees one degree of attitude
#: moves the place by a seventh of its distance, and the errors are no longer small turns.
LEAST_SLOPE = float(np.sin(np.radians(8.0)))
#: Detectors draw boxes as people do who annotate, around what is seen: at each edge so many pixels and such a share of
#: the object's own side outside of it. HIT-UAV's annotations are so, and training gives rendered objects the same.
DRAWN_PX, DRAWN_SHARE = 1.0, 0.06


def tight_side(drawn: float | np.ndarray, margins: int = 2) -> float | np.ndarray:
    """Of what a side of a detector's box holds, pixels; at least half of it. margins: at how many of its two ends."""
    return np.maximum((drawn - margins * DRAWN_PX) / (1.0 + margins * DRAWN_SHARE), 0.5 * drawn)


def drawn_side(tight: np.ndarray) -> np.ndarray:
    """What a detector draws around such sides, pixels: the inverse of tight_side."""
    return np.minimum((1.0 + 2.0 * DRAWN_SHARE) * tight + 2.0 * DRAWN_PX, 2.0 * tight)


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

    def tight(self, frame_size: tuple[int, int]) -> Detection:
        """The same without the margin that detectors draw: as the truth of rendered frames has it, whose boxes end with
        the outermost pixels of an object. frame_size: (width, height), pixels."""
        x_min, x_max = _tight_ends(self.x_min, self.x_max, frame_size[0])
        y_min, y_max = _tight_ends(self.y_min, self.y_max, frame_size[1])
        return replace(self, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)

    @property
    def box(self) -> np.ndarray:
        """(x_min, y_min, x_max, y_max), float32, shape (4,)."""
        return np.array((self.x_min, self.y_min, self.x_max, self.y_max), np.float32)


def _tight_ends(low: float, high: float, limit: int) -> tuple[float, float]:
    first, last = low > EDGE_PX, high < limit - EDGE_PX
    margins = first + last
    margin = (high - low - float(tight_side(high - low, margins))) / max(margins, 1)
    return low + first * margin, high - last * margin


@dataclass(frozen=True)
class DetectionResult:
    """What one frame gave: detections by falling score, and the time spent inside the network alone. semantics: what
    told of the ground. perspective: whether scores were weighed by how large things look from where the camera was."""

    detections: tuple[Detection, ...]
    inference_ms: float
    semantics: str = "none"
    perspective: bool = False
