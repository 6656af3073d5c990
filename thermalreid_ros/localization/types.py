"""What travels into and out of localization.

Conventions. Places are metres on the grid of the map, `SemanticMap.grid`: x east, y north. Rotations turn the camera's
optical axes (x right, y down, z forward) into axes of that grid, as `camera.geometry.Pose.rotation`. Yaw 0 = east,
counter-clockwise. Covariances are of true east and north. Heights are above the ground right below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from thermalreid_ros.errors import ThermalReidError


class LocalizationError(ThermalReidError):
    """An input that localization cannot use; the message names the fault and the remedy."""


@dataclass(frozen=True, eq=False)
class SemanticMask:
    """The labelling of one frame, at the network's resolution.

    labels: uint8 (h, w), SemanticClass. confidence: uint8 (h, w), probability of the label, 255 = 1.
    width, height: of the frame in pixels; mask pixel (row, column) covers the frame from
    (column * width / w, row * height / h) on.
    """

    labels: np.ndarray
    confidence: np.ndarray
    width: int
    height: int
    stamp_ns: int = 0
    inference_ms: float = 0.0


class Verdict(str, Enum):
    """What came of one frame."""

    LOCALIZED = "localized"  # a fix
    SEARCHING = "searching"  # evidence is gathered, the place is not known yet
    AMBIGUOUS = "ambiguous"  # several places fit
    UNIFORM = "uniform"  # the view shows too little to tell places apart
    OFF_MAP = "off_map"  # the view, or the search area, lies outside of the map
    INCONSISTENT = "inconsistent"  # nothing on the map fits what is seen
    NO_INPUT = "no_input"  # attitude, altitude, prior or odometry are missing or too old
    REFUSED = "refused"  # the frame is late, repeated or of another size


@dataclass(frozen=True)
class Candidate:
    """A place that fits. share: of the probability, 0 to 1."""

    x: float
    y: float
    yaw_error_rad: float
    share: float


@dataclass(frozen=True, eq=False)
class PositionFix:
    """Where the camera is at stamp_ns, the capture time of the frame.

    covariance_m2: float64 (2, 2), true east and north. rotation: float64 (3, 3), the attitude with the estimated
    errors of yaw and tilt taken out. height_m: above the ground, with the estimated scale error taken out.
    """

    stamp_ns: int
    latitude_deg: float
    longitude_deg: float
    x: float
    y: float
    covariance_m2: np.ndarray
    rotation: np.ndarray
    height_m: float
    yaw_sigma_rad: float


@dataclass(frozen=True, eq=False)
class LocalizationResult:
    """One frame's outcome; fix is None unless the verdict is LOCALIZED.

    score: nats a point by which the map at the place has lately explained what is in view better than an average place
    would; NaN before a place is taken up. margin: how much more probable the search's best place is than the next, more
    than 25 m away, nats. spread_m: standard deviation of the position. effective_points: independent pieces of
    evidence that the frame gave.
    """

    stamp_ns: int
    verdict: Verdict
    reason: str
    fix: PositionFix | None = None
    score: float = float("nan")
    margin: float = float("nan")
    spread_m: float = float("nan")
    effective_points: float = 0.0
    candidates: tuple[Candidate, ...] = field(default=())
