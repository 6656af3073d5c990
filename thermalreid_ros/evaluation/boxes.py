"""Boxes that detectors draw against boxes that are true."""

from __future__ import annotations

from thermalreid_ros.detection.types import Detection

MATCH_IOU = 0.5


def iou(first: Detection, second: Detection) -> float:
    """Intersection over union of two boxes."""
    width = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    height = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    common = max(width, 0.0) * max(height, 0.0)
    union = first.width * first.height + second.width * second.height - common
    return common / union if union > 0.0 else 0.0


def comparable(drawn: Detection, tight_in: tuple[int, int] | None) -> Detection:
    """A detector's box as true ones are drawn. tight_in: width and height of the frame where these end with the
    outermost pixels of the objects, as those of rendered frames do, and the detector's margin is taken off; None where
    they have it, too, as HIT-UAV's annotations do."""
    return drawn if tight_in is None else drawn.tight(tight_in)
