"""The labelling of a frame laid on the ground: where pixels meet it, as a picture north up, and as even samples.

Offsets are metres east and north (axes of the map's grid) from the point of the ground right below the camera. The
ground is a plane: what stands on it leans away from that point, so that what is seen at distance d and is h high of
the camera's H shows as if it lay at d / (1 - h / H). `rotation` turns optical axes into axes of the grid, as
`camera.geometry.Pose.rotation`; `height_m` is the camera's above the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, check_view
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA

# Beyond it a degree of tilt moves the ground by more than 10 m at usual heights, and a house hides the next one.
MAX_RANGE_M = 250.0
_SIDE = 24  # steps along each side of a frame at which its footprint is looked at
_STEEPEST = 1e-4  # of a ray below the horizon, as a tangent: what is flatter never meets the ground
# Steps of the two-dimensional golden ratio, whose sequence fills a square evenly from the start:
# M. Roberts, The unreasonable effectiveness of quasirandom sequences, 2018.
_GOLDEN = 1.0 / 1.32471795724474602596 ** np.arange(1, 3)


@dataclass(frozen=True, eq=False)
class GroundPatch:
    """A labelling laid on the ground, north up: row 0 is the north edge, column 0 the west one.

    labels: uint8 (h, w), SemanticClass, NO_DATA where the ground was not seen. confidence: uint8 (h, w), 0 there.
    centre_offset_m: float64 (2,), of the middle of the picture from the point below the camera. height_m: of the
    camera above the ground, as it was taken.
    """

    labels: np.ndarray
    confidence: np.ndarray
    centre_offset_m: np.ndarray
    metres_per_pixel: float
    height_m: float

    @property
    def seen(self) -> np.ndarray:
        """Bool (h, w): where there is a label."""
        return self.labels < CLASS_COUNT


@dataclass(frozen=True, eq=False)
class GroundSamples:
    """Points spread evenly over the ground that a frame shows; any number of the first ones is spread evenly too.

    offsets_m: float32 (K, 2). labels, confidence: uint8 (K,). pixels: float32 (K, 2), their places in the frame.
    """

    offsets_m: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    pixels: np.ndarray


def ground_offsets(intrinsics: Intrinsics, rotation: np.ndarray, height_m: float, pixels: np.ndarray | None = None,
                   max_range_m: float = np.inf) -> np.ndarray:
    """Where the rays of pixels (N, 2), or of all pixel centres in row order, meet the ground: float64 (N, 2).

    NaN at and above the horizon and beyond max_range_m from the point below the camera.
    """
    return _met(view_directions(intrinsics, rotation, height_m, pixels), height_m, max_range_m)


def _met(directions: np.ndarray, height_m: float, max_range_m: float) -> np.ndarray:
    """ground_offsets of view_directions."""
    below = -directions[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        offsets = directions[:, :2] * (height_m / below)[:, None]
        seen = (below > _STEEPEST * np.hypot(*directions[:, :2].T)) & (np.hypot(*offsets.T) <= max_range_m)
    return np.where(seen[:, None], offsets, np.nan)


def ground_pixels(intrinsics: Intrinsics, rotation: np.ndarray, height_m: float, offsets_m: np.ndarray) -> np.ndarray:
    """The pixels, float64 (N, 2), that show points of the ground (N, 2); NaN for points behind the camera. They may
    lie outside of the frame."""
    check_view(rotation, height_m)
    offsets_m = np.asarray(offsets_m, np.float64)
    points = np.column_stack([offsets_m, np.full(len(offsets_m), -float(height_m))])
    return intrinsics.project(points @ np.asarray(rotation, np.float64))


def footprint_centre(intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
                     max_range_m: float = MAX_RANGE_M) -> np.ndarray | None:
    """The offset, float64 (2,), of the centroid of the ground that a frame shows; None where it shows none."""
    directions = view_directions(intrinsics, rotation, height_m, _lattice(intrinsics.width, intrinsics.height))
    offsets = _met(directions, height_m, max_range_m)
    seen = np.isfinite(offsets[:, 0])
    if not seen.any():
        return None
    # A pixel covers ground as 1 / (how steeply it looks)^3: the functional determinant of the projection.
    area = -directions[seen, 2] ** -3.0
    return area @ offsets[seen] / area.sum()


def rectify(mask: SemanticMask, intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
            metres_per_pixel: float = 1.0, size_px: int | tuple[int, int] | None = 128,
            max_range_m: float = MAX_RANGE_M, centre_offset_m: np.ndarray | None = None) -> GroundPatch:
    """The labelling seen from above, size_px or (height, width) pixels about centre_offset_m, which is the footprint's
    centre by default; the whole footprint where size_px is None. A frame without ground gives a patch without labels.
    """
    check_mask(mask, intrinsics)
    if not metres_per_pixel > 0:
        raise LocalizationError(f"no patch of the ground has pixels of {metres_per_pixel:g} m")
    centre = None if centre_offset_m is None else np.asarray(centre_offset_m, np.float64)
    if size_px is None:
        box = footprint_box(intrinsics, rotation, height_m, max_range_m)
        low, high = (np.zeros(2), np.zeros(2)) if box is None else box
        if centre is None:
            centre = 0.5 * (low + high)
        reach = np.maximum(high - centre, centre - low)
        width, height = (int(v) for v in 2 * np.ceil(reach / metres_per_pixel).astype(int) + 2)
    else:
        height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if not (height > 0 and width > 0):
        raise LocalizationError(f"no patch of the ground has {width}x{height} px")
    if centre is None:
        centre = footprint_centre(intrinsics, rotation, height_m, max_range_m)
    if centre is None:
        nothing = np.full((height, width), NO_DATA, np.uint8)
        return GroundPatch(nothing, np.zeros_like(nothing), np.zeros(2), float(metres_per_pixel), float(height_m))
    east = centre[0] + (np.arange(width) + 0.5 - 0.5 * width) * metres_per_pixel
    north = centre[1] + (0.5 * height - 0.5 - np.arange(height)) * metres_per_pixel
    # Ground (column, row, 1) of the patch to pixels of the mask, as a homography; OpenCV counts from pixel centres.
    to_ground = np.array([[metres_per_pixel, 0, east[0]], [0, -metres_per_pixel, north[0]], [0, 0, -float(height_m)]])
    to_camera = np.asarray(rotation, np.float64).T @ to_ground
    to_mask = intrinsics.scaled(*mask.labels.shape[::-1]).k @ to_camera
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    labels = cv2.warpPerspective(mask.labels, to_mask, (width, height), flags=flags, borderValue=NO_DATA)
    confidence = cv2.warpPerspective(mask.confidence, to_mask, (width, height), flags=flags, borderValue=0)
    across, down, once = to_camera[2]
    unseen = across * np.arange(width)[None] + down * np.arange(height)[:, None] + once <= 0  # behind the camera
    unseen |= ((east**2)[None] + (north**2)[:, None] > max_range_m**2) | (labels >= CLASS_COUNT)
    labels[unseen], confidence[unseen] = NO_DATA, 0
    return GroundPatch(labels, confidence, centre, float(metres_per_pixel), float(height_m))


def sample(mask: SemanticMask, intrinsics: Intrinsics, rotation: np.ndarray, height_m: float, count: int = 400,
           max_range_m: float = MAX_RANGE_M) -> GroundSamples:
    """At most `count` points of the ground and what the labelling says of them; the same for the same arguments.

    Points without a label (NO_DATA) are left out. A frame without ground gives none.
    """
    check_mask(mask, intrinsics)
    if count < 1:
        raise LocalizationError(f"{count} samples of the ground: ask for one or more")
    box = footprint_box(intrinsics, rotation, height_m, max_range_m)
    offsets, pixels = np.zeros((0, 2)), np.zeros((0, 2))
    start, tried = 0, 4 * count
    while box is not None and len(offsets) < count and tried <= 256 * count:
        points = box[0] + (box[1] - box[0]) * ((0.5 + np.arange(start + 1, tried + 1)[:, None] * _GOLDEN) % 1.0)
        at = ground_pixels(intrinsics, rotation, height_m, points)
        inside = ((at >= 0) & (at < (intrinsics.width, intrinsics.height))).all(axis=1)
        inside &= np.hypot(*points.T) <= max_range_m
        offsets, pixels = np.vstack([offsets, points[inside]]), np.vstack([pixels, at[inside]])
        start, tried = tried, 4 * tried
    offsets, pixels = offsets[:count], pixels[:count]
    column = np.minimum((pixels[:, 0] * (mask.labels.shape[1] / mask.width)).astype(int), mask.labels.shape[1] - 1)
    row = np.minimum((pixels[:, 1] * (mask.labels.shape[0] / mask.height)).astype(int), mask.labels.shape[0] - 1)
    labelled = mask.labels[row, column] < CLASS_COUNT
    row, column = row[labelled], column[labelled]
    return GroundSamples(offsets[labelled].astype(np.float32), mask.labels[row, column], mask.confidence[row, column],
                         pixels[labelled].astype(np.float32))


@lru_cache(maxsize=8)
def _lattice(width: int, height: int) -> np.ndarray:
    """Places all over a frame, its edges included, (N, 2)."""
    u, v = np.meshgrid(np.linspace(0, width, _SIDE + 1), np.linspace(0, height, _SIDE + 1))
    return np.column_stack([u.ravel(), v.ravel()])


def footprint_box(intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
                  max_range_m: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The corners (low, high), offsets, of a box about the ground within range that a frame shows; None if none."""
    directions = view_directions(intrinsics, rotation, height_m, _lattice(intrinsics.width, intrinsics.height))
    away = np.hypot(directions[:, 0], directions[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(-directions[:, 2] > _STEEPEST * away, height_m * away / -directions[:, 2], np.inf)
        if not (reach <= max_range_m).any():
            return None
        # What looks further is cut where the range ends.
        points = np.where(away > 0, np.minimum(reach, max_range_m) / away, 0.0)[:, None] * directions[:, :2]
    return points.min(axis=0), points.max(axis=0)


def view_directions(intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
                    pixels: np.ndarray | None = None) -> np.ndarray:
    """Directions on the grid of pixels (N, 2), or of all pixel centres in row order: float64 (N, 3), of length 1 along
    the optical axis."""
    check_view(rotation, height_m)
    if pixels is None:
        u, v = np.meshgrid(np.arange(intrinsics.width) + 0.5, np.arange(intrinsics.height) + 0.5)
    else:
        u, v = np.asarray(pixels, np.float64).reshape(-1, 2).T
    x, y = (u.ravel() - intrinsics.cx) / intrinsics.fx, (v.ravel() - intrinsics.cy) / intrinsics.fy
    # By hand: a product of matrices would wake all cores for it, and wait long for one that others keep busy.
    return np.stack([row[0] * x + row[1] * y + row[2] for row in np.asarray(rotation, np.float64)], axis=1)


def check_mask(mask: SemanticMask, intrinsics: Intrinsics) -> None:
    """LocalizationError where this is no labelling, or not of this camera's frame."""
    if mask.labels.ndim != 2 or mask.labels.shape != mask.confidence.shape or not mask.labels.size:
        raise LocalizationError(f"a labelling of {mask.labels.shape} with confidences of {mask.confidence.shape}")
    if (mask.width, mask.height) != (intrinsics.width, intrinsics.height):
        raise LocalizationError(f"a labelling of a frame of {mask.width}x{mask.height} px for a camera of "
                                f"{intrinsics.width}x{intrinsics.height} px; use the camera_info of the same camera")
