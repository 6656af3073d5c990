"""What plots and pages draw of localization: the map below tracks, ellipses, and the colours of both."""

from __future__ import annotations

import numpy as np

from thermalreid_ros.evaluation.localization import CHI2_95
from thermalreid_ros.localization.types import Verdict
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB
from thermalreid_ros.maps.store import SemanticMap

TRUTH, ODOMETRY, ESTIMATE, PRIOR = "#111111", "#7a4fd0", "#d62a1e", "#0a7d8c"
VERDICT_COLOURS = {
    Verdict.LOCALIZED: "#1f8a4c", Verdict.SEARCHING: "#d4d2cc", Verdict.AMBIGUOUS: "#e8ad3c",
    Verdict.UNIFORM: "#8fa3c4", Verdict.OFF_MAP: "#5b6ee0", Verdict.INCONSISTENT: "#c23b3b",
    Verdict.NO_INPUT: "#333333", Verdict.REFUSED: "#b04bb0"}
_PALE = 0.55  # share of a class's own colour


def map_picture(semantic_map: SemanticMap, centre: np.ndarray, size_m: tuple[float, float],
                metres_per_pixel: float) -> np.ndarray:
    """The map about a place, uint8 RGB, north up, in pale colours so that tracks stand out; white outside of it."""
    size_px = (max(round(size_m[1] / metres_per_pixel), 1), max(round(size_m[0] / metres_per_pixel), 1))
    classes = semantic_map.window(centre[0], centre[1], np.pi / 2, metres_per_pixel, size_px)
    table = np.full((256, 3), 255, np.uint8)
    table[:len(CLASS_COLOURS_RGB)] = (1.0 - _PALE) * 255 + _PALE * np.array(CLASS_COLOURS_RGB)
    return table[classes]


def covariance_ellipse(covariance: np.ndarray, chi2: float = CHI2_95) -> tuple[float, float, float]:
    """(full width, full height, angle of the width in degrees counter-clockwise from east) of a covariance (2, 2)."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2.0 * np.sqrt(chi2 * values.clip(0.0)[::-1])
    return float(width), float(height), float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
