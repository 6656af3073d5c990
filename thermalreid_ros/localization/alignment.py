"""The map in the picture: projected into the camera at a pose, then drawn onto the frame's labelling by optical flow.

This is the paper's S_G. The map's classes are projected as they are seen from the pose, buildings with their heights.
What is left of the errors of pose, map and plane ground is taken out by differential optical flow between the two
labellings, as soft pictures of each class: first the motion of a plane (eight parameters), then a smooth field on top,
both by Lucas and Kanade's normal equations from coarse to fine. Labels that are simply wrong pull in no direction for
long: what differs much after the motion so far counts little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.localization.ground import check_mask, footprint_box, view_directions
from thermalreid_ros.localization.lean import CLOSEST, STEP_M
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA, SemanticClass
from thermalreid_ros.maps.store import SemanticMap

MAX_RANGE_M = 400.0  # of what is projected
_FINE_WINDOW_M = 300.0  # up to which a footprint is drawn from the map's finest pixels
_SLIGHTLY = 1e-4  # below the horizon
_FIELD_STEP = 4  # pixels of the finest level to one of the smooth field
# The motion of a picture of a plane to the right and down: (parameter, its powers of x and y).
_RIGHT = ((0, 0, 0), (1, 1, 0), (2, 0, 1), (6, 2, 0), (7, 1, 1))
_DOWN = ((3, 0, 0), (4, 1, 0), (5, 0, 1), (6, 1, 1), (7, 0, 2))
# Pictures of all classes but the first, which is what they leave; no class at all for NO_DATA.
_ONE_HOT = np.eye(256, CLASS_COUNT, dtype=np.float32)[:, 1:].copy()


@dataclass(frozen=True)
class FlowSettings:
    """levels: (width that the labelling is reduced to, blur there in pixels, steps) from coarse to fine. field_steps:
    of the smooth field, on the last level. tolerance: difference of soft labels at which a pixel counts a quarter.
    points: how many independent ones all pixels together are worth. shift, turn, bend: what to expect (standard
    deviations) of the plane's motion, its linear and its perspective part, in widths of the picture. smooth, field:
    reach and size of the field, in widths. max_motion: mean motion, in widths, from which on it is another place."""

    levels: tuple[tuple[int, float, int], ...] = ((80, 4.0, 4), (80, 2.0, 4), (160, 2.0, 1))
    field_steps: int = 2
    tolerance: float = 0.35
    points: float = 300.0
    shift: float = 0.05
    turn: float = 0.04
    bend: float = 0.02
    smooth: float = 0.10
    field: float = 0.01
    max_motion: float = 0.15


@dataclass(frozen=True, eq=False)
class Alignment:
    """The map as this frame sees it. labels: uint8 (h, w), SemanticClass, NO_DATA where there is no map or no ground.

    projected: the same before the flow. flow_px: float32 (h, w, 2), labels[p] = projected[p + flow_px[p]] (x, y).
    agreement, agreement_projected: the share of pixels that labels and projected have in common with the labelling.
    reason: "" where the flow was applied, else why not; labels is projected then.
    """

    labels: np.ndarray
    projected: np.ndarray
    flow_px: np.ndarray
    agreement: float
    agreement_projected: float
    reason: str

    def told(self, mask: SemanticMask) -> SemanticMask:
        """What a detector is told of the ground, given the frame's own labelling: see filled()."""
        return replace(mask, labels=filled(self.labels, mask.labels))


def project(semantic_map: SemanticMap, intrinsics: Intrinsics, rotation: np.ndarray, height_m: float, x: float,
            y: float, size: tuple[int, int], max_range_m: float = MAX_RANGE_M) -> np.ndarray:
    """The map as a camera height_m above (x, y) sees it, uint8 of size (height, width), NO_DATA outside of the map,
    above the horizon and beyond max_range_m."""
    height, width = size
    box = footprint_box(intrinsics, rotation, height_m, max_range_m)
    if box is None:
        return np.full(size, NO_DATA, np.uint8)
    # Towards the point below the camera, from where buildings lean into the picture.
    low, high = np.minimum(box[0], 0.5 * box[0]) - 2.0, np.maximum(box[1], 0.5 * box[1]) + 2.0
    metre = semantic_map.resolution_m * (1 if (high - low).max() <= _FINE_WINDOW_M else 2)
    columns, rows = (int(v) for v in np.ceil((high - low) / metre))
    middle = 0.5 * (low + high)
    window = (x + middle[0], y + middle[1], 0.5 * np.pi, metre, (rows, columns))
    classes, heights = semantic_map.window(*window), semantic_map.heights(*window)
    # Pixels of the window on a plane `below` metres under the camera to pixels of the picture, from centre to centre.
    camera = intrinsics.scaled(width, height)
    east, north = middle + 0.5 * metre * np.array([1 - columns, rows - 1])

    def seen(picture: np.ndarray, below: float, outside: int) -> np.ndarray:
        plane = np.array([[metre, 0, east], [0, -metre, north], [0, 0, -below]])
        return cv2.warpPerspective(picture, camera.k @ np.asarray(rotation, np.float64).T @ plane, (width, height),
                                   flags=cv2.INTER_NEAREST, borderValue=outside)

    labels = seen(classes, height_m, NO_DATA)
    for h in np.arange(0.5 * STEP_M, min(float(heights.max()), CLOSEST * height_m) + 0.5 * STEP_M, STEP_M):
        labels[seen(heights, height_m - h, 0) >= h] = SemanticClass.BUILDING
    directions = view_directions(camera, rotation, height_m)
    away = np.hypot(directions[:, 0], directions[:, 1])
    hidden = -directions[:, 2] * max_range_m <= np.maximum(height_m * away, _SLIGHTLY)
    labels[hidden.reshape(size)] = NO_DATA
    return labels


def align(semantic_map: SemanticMap, mask: SemanticMask, intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
          x: float, y: float, settings: FlowSettings | None = None) -> Alignment:
    """The map at a pose, aligned with the labelling of the frame that was taken there, in the labelling's size.

    rotation, height_m, x, y: as in PositionFix. LocalizationError where they are no pose or not this camera's frame.
    """
    check_mask(mask, intrinsics)
    if not np.isfinite([x, y]).all():
        raise LocalizationError(f"no map is seen from {x:g}, {y:g}")
    projected = project(semantic_map, intrinsics, rotation, height_m, x, y, mask.labels.shape)
    return align_labels(projected, mask.labels, mask.confidence, settings)


def align_labels(projected: np.ndarray, labels: np.ndarray, confidence: np.ndarray | None = None,
                 settings: FlowSettings | None = None) -> Alignment:
    """Draw a projected map onto a labelling of the same size, uint8 (h, w) both; see Alignment."""
    settings = settings or FlowSettings()
    height, width = labels.shape
    before = _agreement(projected, labels)
    still = np.zeros((height, width, 2), np.float32)
    if not ((projected < CLASS_COUNT) & (labels < CLASS_COUNT)).any():
        return Alignment(projected, projected, still, before, before, "no map in the picture")
    flow = _flow(projected, labels, confidence, settings)
    motion = float(np.hypot(flow[..., 0], flow[..., 1]).mean())
    if not motion <= settings.max_motion * width:
        return Alignment(projected, projected, still, before, before,
                         f"the map would have to move by {motion:.0f} px of {width}: it shows another place")
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    # What the flow draws in from beyond the edge of the picture is like the edge.
    moved = cv2.remap(projected, column + flow[..., 0], row + flow[..., 1], cv2.INTER_NEAREST,
                      borderMode=cv2.BORDER_REPLICATE)
    after = _agreement(moved, labels)
    if after <= before:
        return Alignment(projected, projected, still, before, before, "moving the map brings it no closer")
    return Alignment(moved, projected, flow, after, before, "")


def filled(aligned: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The aligned map, and where it says `ground`, that is, where nothing is mapped, the roads and the vegetation that
    the frame's own labelling shows: maps know neither lawns nor yards. uint8 (h, w), as both given are."""
    shown = (labels == SemanticClass.ROAD) | (labels == SemanticClass.VEGETATION)
    return np.where((aligned == SemanticClass.GROUND) & shown, labels, aligned)


def _agreement(projected: np.ndarray, labels: np.ndarray) -> float:
    both = (projected < CLASS_COUNT) & (labels < CLASS_COUNT)
    return float((projected[both] == labels[both]).mean()) if both.any() else 0.0


def _flow(projected: np.ndarray, labels: np.ndarray, confidence: np.ndarray | None,
          settings: FlowSettings) -> np.ndarray:
    """float32 (h, w, 2), pixels of the labelling: where in `projected` each pixel's label is found."""
    height, width = labels.shape
    plane = np.zeros(8)  # of the motion, in widths of the picture, about its middle
    expected = np.array([settings.shift, settings.turn, settings.turn] * 2 + [settings.bend] * 2)
    both = (projected < CLASS_COUNT) & (labels < CLASS_COUNT)
    trust = both.astype(np.float32) if confidence is None else np.where(both, confidence, 0).astype(np.float32) / 255.0
    classes = [_ONE_HOT.take(picture, axis=0) for picture in (projected, labels)]
    for columns, blur_px, steps in settings.levels:
        size = (columns, max(1, round(columns * height / width)))
        source, target = (cv2.GaussianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (0, 0), blur_px)
                          for picture in classes)
        weight = cv2.resize(trust, size, interpolation=cv2.INTER_AREA)
        # Differences of soft labels as those of `points` independent ones.
        weight *= settings.points / (size[0] * size[1] * settings.tolerance**2)
        for _ in range(steps):
            flow = _plane_flow(plane, size)
            tensor, pull = _equations(source, target, weight, flow, settings.tolerance)
            matrix, right = _summed(tensor, pull)
            plane += np.linalg.solve(matrix + np.diag(expected**-2.0), right - plane / expected**2)
    base = _plane_flow(plane, size)
    # Each place of the field hears what its neighbourhood asks for and its own inertia; it is smooth, so few places do.
    sigma, field = settings.smooth * size[0], np.zeros_like(base)
    inertia = np.float32(1.0 / (2.0 * np.pi * (sigma * settings.field * size[0]) ** 2))
    few = tuple(max(1, side // _FIELD_STEP) for side in size)
    for _ in range(settings.field_steps):
        tensor, pull = (cv2.GaussianBlur(cv2.resize(part, few, interpolation=cv2.INTER_AREA), (0, 0),
                                         sigma / _FIELD_STEP)
                        for part in _equations(source, target, weight, base + field, settings.tolerance))
        xx, xy, yy = tensor[..., 0] + inertia, tensor[..., 1], tensor[..., 2] + inertia
        pull -= inertia * cv2.resize(field, few, interpolation=cv2.INTER_AREA)
        step = np.dstack([yy * pull[..., 0] - xy * pull[..., 1], xx * pull[..., 1] - xy * pull[..., 0]])
        field += cv2.resize(step / (xx * yy - xy * xy)[..., None], size, interpolation=cv2.INTER_LINEAR)
    return cv2.resize((base + field) * np.float32(width / size[0]), (width, height), interpolation=cv2.INTER_LINEAR)


def _equations(source: np.ndarray, target: np.ndarray, weight: np.ndarray, flow: np.ndarray,
               tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's normal equations of a further motion: (tensor (h, w, 3) of xx, xy, yy, right side (h, w, 2))."""
    height, width = weight.shape
    column, row = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(source, column + flow[..., 0], row + flow[..., 1], cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)
    # The mean of both pictures' gradients converges faster than that of one.
    mean, differs = moved + target, target - moved
    gx = cv2.Sobel(mean, cv2.CV_32F, 1, 0, ksize=3, scale=0.0625)
    gy = cv2.Sobel(mean, cv2.CV_32F, 0, 1, ksize=3, scale=0.0625)
    robust = weight / (1.0 + _summed_channels(differs * differs) / np.float32(tolerance**2)) ** 2
    tensor = np.dstack([_summed_channels(a * b) * robust for a, b in ((gx, gx), (gx, gy), (gy, gy))])
    pull = np.dstack([_summed_channels(g * differs) * robust for g in (gx, gy)])
    return tensor, pull


def _summed_channels(picture: np.ndarray) -> np.ndarray:
    return cv2.transform(picture, np.ones((1, picture.shape[2]), np.float32))


def _powers(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The first five powers, float32 (w, 5) and (h, 5), of x and y: widths of the picture from its middle."""
    width, height = size
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5 - 0.5 * height) / width
    return tuple(np.vander(axis, 5, increasing=True).astype(np.float32) for axis in (x, y))


def _plane_flow(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The motion, float32 (h, w, 2), in pixels, of a plane's eight parameters."""
    x, y = _powers(size)
    flow = []
    for terms in (_RIGHT, _DOWN):
        factors = np.zeros((3, 3), np.float32)
        for parameter, across, down in terms:
            factors[down, across] = plane[parameter] * size[0]
        flow.append(y[:, :3] @ factors @ x[:, :3].T)
    return np.dstack(flow)


def _summed(tensor: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normal equations of the plane's further motion, (8, 8) and (8,), from those of all pixels."""
    height, width, _ = tensor.shape
    x, y = _powers((width, height))
    # All that they need of the pixels are moments: sums of each entry times powers of y and x.
    xx, xy, yy = (y.T @ tensor[..., k] @ x * np.float32(width) ** 2 for k in range(3))
    asked = [y.T @ pull[..., k] @ x * np.float32(width) for k in range(2)]
    matrix, right = np.zeros((8, 8)), np.zeros(8)
    for k, (mine, own) in enumerate(((_RIGHT, xx), (_DOWN, yy))):
        for i, a, b in mine:
            right[i] += asked[k][b, a]
            for j, c, d in mine:
                matrix[i, j] += own[b + d, a + c]
            for j, c, d in (_DOWN, _RIGHT)[k]:
                matrix[i, j] += xy[b + d, a + c]
    return matrix, right
