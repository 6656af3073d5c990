"""Pictures of positions on the map, for people."""

from __future__ import annotations

import cv2
import numpy as np

from thermalreid_ros.localization.types import LocalizationResult, PositionFix, Verdict
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB, NO_DATA
from thermalreid_ros.maps.store import SemanticMap

SIZE_PX = 512
_OUTSIDE_BGR, _INK_BGR, _FIX_BGR, _PLACE_BGR = (40, 40, 40), (20, 20, 20), (20, 20, 220), (200, 60, 160)
_CHI2_95 = 5.991  # of two degrees of freedom
_MOST_PLACES = 10


def draw_result(semantic_map: SemanticMap, result: LocalizationResult, centre: tuple[float, float],
                metres_per_pixel: float = 1.0) -> np.ndarray:
    """(512, 512, 3) uint8 BGR: the map around a place (x, y) of its grid, north up, with the fix, its 95 % ellipse and
    where the camera looks, or else the places that fit, as large as their share; the verdict in words."""
    colours = np.full((256, 3), _OUTSIDE_BGR, np.uint8)
    colours[:len(CLASS_COLOURS_RGB)] = np.array(CLASS_COLOURS_RGB)[:, ::-1]
    colours[NO_DATA] = _OUTSIDE_BGR
    picture = colours[semantic_map.window(*centre, 0.5 * np.pi, metres_per_pixel, SIZE_PX)]

    def pixel(x: float, y: float) -> tuple[int, int]:
        return (round(SIZE_PX / 2 + (x - centre[0]) / metres_per_pixel),
                round(SIZE_PX / 2 - (y - centre[1]) / metres_per_pixel))

    for place in result.candidates[:_MOST_PLACES] if result.fix is None else ():
        cv2.circle(picture, pixel(place.x, place.y), 3 + round(12.0 * place.share), _PLACE_BGR, 2, cv2.LINE_AA)
    if result.fix is not None:
        _draw_fix(picture, result.fix, pixel, metres_per_pixel, semantic_map.grid.convergence_rad(*centre))
    words = [result.verdict.value + (f", {result.spread_m:.1f} m" if result.verdict is Verdict.LOCALIZED else ""),
             result.reason]
    for row, line in enumerate(word for word in words if word):
        (width, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        cv2.rectangle(picture, (4, 5 + 18 * row), (14 + width, 25 + 18 * row), (255, 255, 255), cv2.FILLED)
        cv2.putText(picture, line, (8, 20 + 18 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK_BGR, 1, cv2.LINE_AA)
    return picture


def _draw_fix(picture: np.ndarray, fix: PositionFix, pixel, metres_per_pixel: float, convergence_rad: float) -> None:
    values, axes = np.linalg.eigh(fix.covariance_m2)
    half = np.maximum(np.sqrt(_CHI2_95 * np.maximum(values, 0.0)) / metres_per_pixel, 1.0)
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]) + convergence_rad)  # of the long axis; in pictures y is down
    cv2.ellipse(picture, pixel(fix.x, fix.y), (round(half[1]), round(half[0])), -angle, 0, 360, _FIX_BGR, 2,
                cv2.LINE_AA)
    ahead = fix.rotation[:2, 2] if np.hypot(*fix.rotation[:2, 2]) > 0.3 else -fix.rotation[:2, 1]  # else looks down
    ahead = 30.0 * metres_per_pixel * ahead / max(np.hypot(*ahead), 1e-9)
    cv2.arrowedLine(picture, pixel(fix.x, fix.y), pixel(fix.x + ahead[0], fix.y + ahead[1]), _FIX_BGR, 2, cv2.LINE_AA)
