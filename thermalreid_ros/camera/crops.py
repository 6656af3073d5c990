"""Square crops of objects: what networks are shown of a picture, the same in training and in flight."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from thermalreid_ros.errors import ThermalReidError

#: Side of the square that networks see, in longest sides of the box: some of the surroundings belong to it.
MARGIN = 1.5
#: Side of the crops that training sets hold, from which training cuts at random.
STORED_MARGIN = 1.8
LEAST_BOX_PX = 3.0


class CropError(ThermalReidError):
    """A box that cuts nothing out of a picture."""


def square_crop(picture: np.ndarray, box: Sequence[float], size_px: int, margin: float = MARGIN,
                interpolation: int | None = None) -> np.ndarray:
    """The square around the middle of a box, `margin` times its longest side, resampled to (size_px, size_px[, 3]).

    picture: (H, W) or (H, W, 3), uint8, uint16 or float32. box: pixel edges (x_min, y_min, x_max, y_max). Beyond the
    picture its edge is repeated. Shrinking averages, enlarging interpolates bilinearly, unless another interpolation
    is given. Raises CropError where the box is not finite, smaller than 3 px on its longest side or off the picture.
    """
    x_min, y_min, x_max, y_max = (float(edge) for edge in box)
    height, width = picture.shape[:2]
    longest = max(x_max - x_min, y_max - y_min)
    if not np.isfinite([x_min, y_min, x_max, y_max]).all() or longest < LEAST_BOX_PX or min(
            x_max - x_min, y_max - y_min) <= 0:
        raise CropError(f"{_named(box)} is smaller than {LEAST_BOX_PX:.0f} px or not finite")
    if x_max <= 0 or y_max <= 0 or x_min >= width or y_min >= height:
        raise CropError(f"{_named(box)} lies off a {width}x{height} picture")
    side = margin * longest
    left, top = 0.5 * (x_min + x_max) - 0.5 * side, 0.5 * (y_min + y_max) - 0.5 * side
    zoom = size_px / side
    # Far smaller pictures are averaged first to about twice the size: a bilinear sample sees four pixels only.
    if interpolation is None and zoom < 0.5:
        margin_px = int(np.ceil(1.0 / zoom)) + 1
        x0, y0 = max(int(left) - margin_px, 0), max(int(top) - margin_px, 0)
        x1, y1 = min(int(left + side) + margin_px, width), min(int(top + side) + margin_px, height)
        part = picture[y0:y1, x0:x1]
        size = (max(round(2.0 * zoom * part.shape[1]), 1), max(round(2.0 * zoom * part.shape[0]), 1))
        scale_x, scale_y = size[0] / part.shape[1], size[1] / part.shape[0]
        picture = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        left, top = (left - x0) * scale_x, (top - y0) * scale_y
        step_x, step_y = side * scale_x / size_px, side * scale_y / size_px
    else:
        step_x = step_y = 1.0 / zoom
    # warpAffine maps pixel centres, boxes are edges: half a pixel on both sides.
    inverse = np.array([[step_x, 0.0, left + 0.5 * step_x - 0.5], [0.0, step_y, top + 0.5 * step_y - 0.5]])
    flags = cv2.INTER_LINEAR if interpolation is None else interpolation
    return cv2.warpAffine(picture, inverse, (size_px, size_px), flags=flags | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)


def _named(box: Sequence[float]) -> str:
    return f"box {tuple(round(float(edge), 1) for edge in box)}"
