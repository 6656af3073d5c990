"""Pictures of detections, for people."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from thermalreid_ros.detection.types import Detection

#: Of class i in every picture of the project, B, G, R.
CLASS_COLOURS_BGR = ((255, 144, 30), (60, 60, 235), (60, 190, 60), (200, 80, 200))


def draw_detections(gray8: np.ndarray, detections: Iterable[Detection]) -> np.ndarray:
    """(H, W, 3) uint8 BGR: the frame with a box, the class and the score of each detection."""
    picture = cv2.cvtColor(gray8, cv2.COLOR_GRAY2BGR)
    for detection in detections:
        colour = CLASS_COLOURS_BGR[detection.class_id]
        corner = (round(detection.x_min), round(detection.y_min))
        cv2.rectangle(picture, corner, (round(detection.x_max), round(detection.y_max)), colour, 1)
        cv2.putText(picture, f"{detection.class_name} {detection.score:.2f}", (corner[0], max(8, corner[1] - 3)),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)
    return picture
