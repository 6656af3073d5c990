"""The map as a camera sees it: buildings lean away from the point below it and hide the ground behind them.

A ray that meets the ground at offset d from the point below a camera H high passes height h at d * (1 - h / H): it
shows a building where one stands there and is at least h high. Looking at the map's heights about that point, reduced
by 1 - h / H, for some heights h tells which rays do. Over the distances that matter here 3 m of height are fine enough.
"""

from __future__ import annotations

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
    classes = semantic_map.window(x + east, y + north, _NORTH_UP, metres_per_pixel, size_px)
    # Buildings that reach into the view stand in it or nearer.
    margin = tuple(int(size + abs(0.5 * reach) / metres_per_pixel) for size, reach in zip(size_px, (north, east)))
    highest = semantic_map.heights(x + 0.75 * east, y + 0.75 * north, _NORTH_UP, metres_per_pixel, margin).max()
    for h in np.arange(0.5 * step_m, min(float(highest), CLOSEST * height_m) + 0.5 * step_m, step_m):
        nearer = 1.0 - h / height_m
        pixel = metres_per_pixel if same_direction else metres_per_pixel * nearer
        heights = semantic_map.heights(x + nearer * east, y + nearer * north, _NORTH_UP, pixel, size_px)
        classes[heights >= h] = SemanticClass.BUILDING
    return classes
