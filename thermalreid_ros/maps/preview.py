"""A picture of a whole map to look at: classes, heights of buildings as shades, scale bar, legend, attribution."""

from __future__ import annotations

import cv2
import numpy as np

from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB, CLASS_NAMES, NO_DATA
from thermalreid_ros.maps.store import SemanticMap

_LONGEST_PX = 1600
_PANEL_PX, _MARGIN_PX = 300, 20
_PAPER, _INK, _UNMAPPED = (250, 250, 248), (40, 40, 40), (232, 232, 232)
_DARKEST_M = 50.0  # buildings this high and higher have the darkest shade
_NOTICE = "OpenStreetMap contributors, ODbL"


def preview(semantic_map: SemanticMap) -> np.ndarray:
    """The map north up with its legend at the right, uint8 (height, width, 3), RGB."""
    classes, heights = semantic_map.overview(_LONGEST_PX)
    palette = np.full((256, 3), _UNMAPPED, np.float32)
    palette[:len(CLASS_COLOURS_RGB)] = CLASS_COLOURS_RGB
    shade = 1.15 - 0.6 * np.minimum(heights.astype(np.float32), _DARKEST_M)[..., None] / _DARKEST_M
    picture = palette[classes] * np.where(heights[..., None] > 0, shade, np.float32(1))
    height = max(len(picture), 520)
    canvas = np.full((height, picture.shape[1] + _PANEL_PX, 3), _PAPER, np.uint8)
    canvas[:len(picture), :picture.shape[1]] = np.clip(picture, 0, 255)
    _legend(canvas[:, picture.shape[1]:], semantic_map, bool((classes == NO_DATA).any()),
            semantic_map.bounds[2] / picture.shape[1])
    return canvas


def _legend(panel: np.ndarray, semantic_map: SemanticMap, unmapped: bool, metres_per_pixel: float) -> None:
    canvas = np.ascontiguousarray(panel)
    x, y = _MARGIN_PX, 2 * _MARGIN_PX
    _text(canvas, semantic_map.path.name, x, y, 0.6)
    _text(canvas, f"{semantic_map.crs}, {semantic_map.resolution_m:g} m/px", x, y + 24)
    _text(canvas, f"{semantic_map.bounds[2]:.0f} x {semantic_map.bounds[3]:.0f} m", x, y + 46)
    _text(canvas, f"data of {semantic_map.osm_timestamp[:10] or 'unknown date'}", x, y + 68)
    y += 104
    rows = [(name, colour, f"{100 * semantic_map.shares[name]:.1f} %")
            for name, colour in zip(CLASS_NAMES, CLASS_COLOURS_RGB)]
    for name, colour, share in rows + [("not mapped", _UNMAPPED, "")] * unmapped:
        cv2.rectangle(canvas, (x, y - 13), (x + 26, y + 3), colour, -1)
        cv2.rectangle(canvas, (x, y - 13), (x + 26, y + 3), _INK, 1)
        _text(canvas, name, x + 38, y)
        _text(canvas, share, x + 170, y)
        y += 28
    _text(canvas, "darker buildings are higher", x, y)
    length_m = _round_length(0.7 * (_PANEL_PX - 2 * _MARGIN_PX) * metres_per_pixel)
    length_px = round(length_m / metres_per_pixel)
    y += 60
    cv2.rectangle(canvas, (x, y), (x + length_px, y + 6), _INK, 1)
    cv2.rectangle(canvas, (x, y), (x + length_px // 2, y + 6), _INK, -1)
    _text(canvas, "0", x, y - 8)
    _text(canvas, f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km", x + length_px - 20, y - 8)
    y += 50
    arrow = np.array([(x + 16, y), (x + 6, y + 40), (x + 16, y + 31), (x + 26, y + 40)], np.int32)
    cv2.fillPoly(canvas, [arrow], _INK, cv2.LINE_AA)
    _text(canvas, "N", x + 34, y + 26, 0.7)
    y = len(canvas) - _MARGIN_PX
    # The Hershey letters know no copyright sign.
    cv2.circle(canvas, (x + 6, y - 5), 7, _INK, 1, cv2.LINE_AA)
    _text(canvas, "c", x + 2, y - 1, 0.42)
    _text(canvas, _NOTICE, x + 18, y, 0.42)
    panel[:] = canvas


def _text(canvas: np.ndarray, text: str, x: int, y: int, size: float = 0.5) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)


def _round_length(longest_m: float) -> float:
    """The longest of 1, 2, 5, 10... metres that is not above longest_m."""
    power = 10.0 ** np.floor(np.log10(longest_m))
    return float(next(factor * power for factor in (5, 2, 1) if factor * power <= longest_m))
