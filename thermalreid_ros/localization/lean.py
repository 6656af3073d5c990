"""The map as a camera sees it: buildings lean away from the point below it and hide the ground behind them.

A ray that meets the ground at offset d from the point below a camera H high passes height h at d * (1 - h / H): it
shows a building where one stands there and is at least h high. Looking at the map's heights about that point, reduced
by 1 - h / H, for some heights h tells which rays do. Over the distances that matter here 3 m of height are fine enough.
"""

from __future__ import annotations

import cv2
import numpy as np

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.store import SemanticMap

STEP_M = 3.0
_NORTH_UP = 0.5 * np.pi
CLOSEST = 0.8  # of the camera's height: what is as high as that would fill the view


def seen_window(semantic_map: SemanticMap, x: float, y: float, offset_m: np.ndarray, height_m: float,
                metres_per_pixel: float, size_px: tuple[int, int], step_m: float = STEP_M,
                same_direction: bool = False) -> np.ndarray:
    """Classes, uint8 (height, width), as `SemanticMap.window` north up about (x, y) + offset_m, but of what a camera
    height_m above (x, y) sees where the ground lies.

    same_direction: all of the window is seen in the direction of its middle, as over an area that a camera is
    looked for in: only then the window does not depend on the place.
    """
    east, north = (float(v) for v in offset_m)
    height, width = size_px
    classes = semantic_map.window(x + east, y + north, _NORTH_UP, metres_per_pixel, size_px)
    # Buildings that reach into the view stand in it or nearer, down to half of the distance.
    high = height + int(abs(0.5 * north) / metres_per_pixel)
    wide = width + int(abs(0.5 * east) / metres_per_pixel)
    heights = semantic_map.heights(x + 0.75 * east, y + 0.75 * north, _NORTH_UP, metres_per_pixel, (high, wide))
    for h in np.arange(0.5 * step_m, min(float(heights.max()), CLOSEST * height_m) + 0.5 * step_m, step_m):
        nearer = 1.0 - h / height_m
        # Of the window's middle in the picture of heights, pixels right and down from its middle.
        middle = np.array([east, -north]) * (nearer - 0.75) / metres_per_pixel
        scale = 1.0 if same_direction else nearer
        corner = middle + 0.5 * np.array([wide - 1, high - 1]) - 0.5 * scale * np.array([width - 1, height - 1])
        matrix = np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]])
        there = cv2.warpAffine(heights, matrix, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        classes[there >= h] = SemanticClass.BUILDING
    return classes
