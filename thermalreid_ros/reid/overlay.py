"""Pictures of tracks and ranks, for people."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

from thermalreid_ros.detection.overlay import CLASS_COLOURS_BGR
from thermalreid_ros.reid.gallery import Match
from thermalreid_ros.reid.tracks import TrackedDetection

BEST_BGR = (0, 215, 255)


def draw_matches(gray8: np.ndarray, tracked: Iterable[TrackedDetection], matches: Iterable[Match] = (),
                 probe_id: str = "") -> np.ndarray:
    """(H, W, 3) uint8 BGR: boxes with track numbers; where ranked, `#rank` and the probability, or the distance where
    that is not known; the best one framed twice."""
    picture = cv2.cvtColor(gray8, cv2.COLOR_GRAY2BGR)
    by_track = {match.track_id: match for match in matches}
    for item in tracked:
        box, match = item.detection, by_track.get(item.track_id)
        best = match is not None and match.rank == 1
        colour = BEST_BGR if best else CLASS_COLOURS_BGR[box.class_id]
        corner, opposite = (round(box.x_min), round(box.y_min)), (round(box.x_max), round(box.y_max))
        cv2.rectangle(picture, corner, opposite, colour, 1)
        if best:
            cv2.rectangle(picture, (corner[0] - 3, corner[1] - 3), (opposite[0] + 3, opposite[1] + 3),
                          colour, 1)
        text = str(item.track_id)
        if match is not None:
            text += f" #{match.rank} " + (f"{match.score:.2f}" if math.isnan(match.probability) else
                                          f"{match.probability:.0%}")
        cv2.putText(picture, text, (corner[0], max(8, corner[1] - 5)), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour,
                    1, cv2.LINE_AA)
    if probe_id:
        cv2.putText(picture, f"probe: {probe_id}", (4, picture.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                    BEST_BGR, 1, cv2.LINE_AA)
    return picture
