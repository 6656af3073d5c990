"""Positions, attitudes and what localization finds: ROS messages to and from numpy, and the last gate of a fix.

Conventions. Messages speak true east, north, up (REP 103, REP 105); the rooms speak axes of the map's grid. Grid yaw =
true yaw + LocalGrid.convergence_rad. What a message says that nobody can use is refused with a LocalizationError of
one line.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import cv2
import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix, NavSatStatus, Range
from std_msgs.msg import Header

from thermalreid_ros.camera.geometry import BODY_FROM_OPTICAL, GroundView, Intrinsics, LocalGrid, check_view, \
    quaternion_of, rotation_of, rotation_of_rpy
from thermalreid_ros.localization.pose import pose_covariance
from thermalreid_ros.localization.types import LocalizationError, LocalizationResult, PositionFix, SemanticMask
from thermalreid_ros.msg import LocalizationCandidate, LocalizationStatus
from thermalreid_ros.ros.convert import array_to_image

# Where a message does not say how good it is.
HEIGHT_ERROR_SHARE = 0.02
#: Variance of an altitude that is not known, m^2: a consumer that overlooks NaN gives it no weight.
UNKNOWN_ALTITUDE_M2 = 1.0e6
ROUNDING = 1e-6  # of a covariance, as a share of its trace


def message_to_prior(message: NavSatFix) -> tuple[float, float, float | None]:
    """(latitude_deg, longitude_deg, sigma_m): the standard deviation along the worst axis, None where the message does
    not say."""
    latitude, longitude = message.latitude, message.longitude
    if message.status.status == NavSatStatus.STATUS_NO_FIX:
        raise LocalizationError("the prior says of itself that it is no fix (STATUS_NO_FIX)")
    if not (abs(latitude) <= 90.0 and abs(longitude) <= 180.0):  # NaN as well
        raise LocalizationError(f"the prior's latitude {latitude:g} and longitude {longitude:g} are no place on earth")
    covariance = np.reshape(message.position_covariance, (3, 3))[:2, :2]
    if message.position_covariance_type == NavSatFix.COVARIANCE_TYPE_UNKNOWN:
        return latitude, longitude, None
    if not (np.isfinite(covariance).all() and np.diag(covariance).min() >= 0.0):
        raise LocalizationError("the prior's covariance is no covariance; COVARIANCE_TYPE_UNKNOWN says that there is "
                                "none")
    variance = float(np.linalg.eigvalsh(0.5 * (covariance + covariance.T))[-1])
    return latitude, longitude, math.sqrt(variance) if variance > 0.0 else None


def message_to_attitude(message: Imu) -> np.ndarray:
    """Axes of the IMU to true east, north, up: float64 (3, 3)."""
    if message.orientation_covariance[0] == -1.0:
        raise LocalizationError("the IMU says that it has no orientation (covariance -1); an attitude estimate is "
                                "needed, as from the autopilot")
    return message_to_rotation(message.orientation)


def message_to_rotation(message: Quaternion) -> np.ndarray:
    """float64 (3, 3). Raises GeometryError where it is no rotation."""
    return rotation_of(np.array((message.x, message.y, message.z, message.w)))


def message_to_position(message: Odometry) -> np.ndarray:
    """metres in the odometry's own frame, float64 (3,)."""
    p = message.pose.pose.position
    if not np.isfinite(position := np.array((p.x, p.y, p.z))).all():
        raise LocalizationError("the odometry's position is not finite")
    return position


def message_to_height(message: Range) -> tuple[float, float]:
    """(metres above the ground, standard deviation)."""
    height = message.range
    if not (math.isfinite(height) and height > 0.0):
        raise LocalizationError(f"a height of {height:g} m above the ground is none: out of the sensor's range?")
    if message.min_range < message.max_range and not message.min_range <= height <= message.max_range:
        raise LocalizationError(f"a height of {height:.1f} m is out of the sensor's own range, "
                                f"{message.min_range:g} to {message.max_range:g} m")
    variance = getattr(message, "variance", 0.0)  # since Iron
    return height, math.sqrt(variance) if 0.0 < variance < math.inf else HEIGHT_ERROR_SHARE * height


def grid_to_text(grid: LocalGrid, map_name: str) -> str:
    """What localization/map says: JSON, on which grid poses in the map's frame are."""
    return json.dumps({"map": map_name, "crs": grid.crs, "easting_m": grid.easting_m, "northing_m": grid.northing_m})


def grid_fault(text: str, grid: LocalGrid) -> str:
    """Why places on the grid that localization/map tells are none on this one, or ""."""
    try:
        said = json.loads(text)
        other = LocalGrid(str(said["crs"]), float(said["easting_m"]), float(said["northing_m"]))
    except (ValueError, KeyError, TypeError):
        raise LocalizationError("localization/map is no JSON with crs, easting_m and northing_m") from None
    if other == grid:
        return ""
    return (f"localization is on another map ({said.get('map', 'unnamed')}: {other.crs}, {other.easting_m}, "
            f"{other.northing_m}) than the parameter map ({grid.crs}, {grid.easting_m}, {grid.northing_m})")


def message_to_intrinsics(message: CameraInfo) -> Intrinsics:
    """The pinhole; lens distortion is not applied. Raises GeometryError for a camera that is not calibrated."""
    return Intrinsics.from_k(message.width, message.height, message.k)


def lens_fault(message: CameraInfo) -> str:
    """What is wrong with a lens that is not a pinhole's, or ""."""
    return "thermal/camera_info tells of a distorted lens: give rectified frames, and a camera_info without d" if any(
        abs(coefficient) > 1e-9 for coefficient in message.d) else ""


class CameraMount:
    """How the camera sits on the IMU, and how true axes lie in the grid.

    rpy_rad: how the camera's body (x along the line of sight, y left, z up) is turned in the axes of the IMU: roll,
    pitch, yaw as in URDF. A camera that looks straight down from an IMU with x forward and z up, the top of the
    picture forward: (0, pi/2, 0).
    """

    def __init__(self, rpy_rad: tuple[float, float, float], convergence_rad: float):
        self._grid_from_true = rotation_of_rpy(0.0, 0.0, convergence_rad)
        self._imu_from_optical = rotation_of_rpy(*rpy_rad) @ BODY_FROM_OPTICAL

    def rotation(self, attitude: np.ndarray) -> np.ndarray:
        """The camera's optical axes to axes of the grid, as camera.geometry.Pose.rotation. attitude: as of
        message_to_attitude."""
        return self._grid_from_true @ attitude @ self._imu_from_optical


class FixGate:
    """The last gate before a fix leaves the node: numbers finite, covariance sound and not too small, stamps rising,
    not too old. What does not pass is not published; nothing is repeated or mended but the covariance's floor."""

    def __init__(self, min_sigma_m: float):
        self.min_sigma_m = min_sigma_m
        self._last_ns: int | None = None

    def reset(self) -> None:
        """Stamps may start over."""
        self._last_ns = None

    def check(self, fix: PositionFix, age_s: float, max_age_s: float) -> PositionFix:
        """The fix with its covariance raised to the floor along each axis. max_age_s: 0 for any age.

        Raises LocalizationError with the reason.
        """
        covariance = np.asarray(fix.covariance_m2, np.float64)
        numbers = np.concatenate([np.ravel(part) for part in (
            fix.latitude_deg, fix.longitude_deg, fix.x, fix.y, fix.height_m, fix.yaw_sigma_rad, fix.rotation,
            covariance)])
        if not np.isfinite(numbers).all():
            raise LocalizationError("the fix holds numbers that are not finite; it is not published")
        values, axes = np.linalg.eigh(0.5 * (covariance + covariance.T))
        if min(values[0], -abs(covariance[0, 1] - covariance[1, 0])) < -ROUNDING * max(values.sum(), 0.0):
            raise LocalizationError("the fix's covariance is none; it is not published")
        if self._last_ns is not None and fix.stamp_ns <= self._last_ns:
            raise LocalizationError(f"the fix's stamp is {(self._last_ns - fix.stamp_ns) / 1e9:.3f} s before that of "
                                    "the last one; it is not published")
        if 0.0 < max_age_s < age_s:
            raise LocalizationError(f"the fix is {age_s:.1f} s old, more than max_age_s = {max_age_s:g}; it is not "
                                    "published")
        self._last_ns = fix.stamp_ns
        floored = axes @ np.diag(np.maximum(values, self.min_sigma_m ** 2)) @ axes.T
        return replace(fix, covariance_m2=floored)


def fix_to_message(fix: PositionFix, header: Header, altitude_m: float = math.nan,
                   altitude_sigma_m: float = math.nan) -> NavSatFix:
    """header: the frame's own. altitude_m: of the camera above the WGS84 ellipsoid, NaN where it is not known, which
    then has a variance of UNKNOWN_ALTITUDE_M2."""
    covariance = np.zeros((3, 3))  # east, north, up, row by row
    covariance[:2, :2] = fix.covariance_m2
    covariance[2, 2] = altitude_sigma_m ** 2 if math.isfinite(altitude_m) else UNKNOWN_ALTITUDE_M2
    return NavSatFix(header=header, status=NavSatStatus(status=NavSatStatus.STATUS_FIX, service=0),
                     latitude=float(fix.latitude_deg), longitude=float(fix.longitude_deg), altitude=float(altitude_m),
                     position_covariance=covariance.ravel(),
                     position_covariance_type=NavSatFix.COVARIANCE_TYPE_KNOWN)


def fix_to_pose(fix: PositionFix, header: Header, map_frame: str, convergence_rad: float,
                height_sigma_m: float) -> PoseWithCovarianceStamped:
    """The camera's optical frame in the map's: the grid of the map, z above the ground below.

    Covariances are those of localization.pose.pose_covariance.
    """
    covariance = pose_covariance(fix, convergence_rad, height_sigma_m)
    x, y, z, w = map(float, quaternion_of(fix.rotation))
    pose = Pose(position=Point(x=float(fix.x), y=float(fix.y), z=float(fix.height_m)),
                orientation=Quaternion(x=x, y=y, z=z, w=w))
    return PoseWithCovarianceStamped(header=Header(stamp=header.stamp, frame_id=map_frame),
                                     pose=PoseWithCovariance(pose=pose, covariance=covariance.ravel()))


def view_to_pose(view: GroundView, header: Header, map_frame: str) -> PoseStamped:
    """The camera's optical frame above the ground right below it, along the axes of the map's grid: frame
    MAP_FRAME_below. header: the frame's own."""
    x, y, z, w = map(float, quaternion_of(view.rotation))
    return PoseStamped(header=Header(stamp=header.stamp, frame_id=f"{map_frame}_below"), pose=Pose(
        position=Point(x=0.0, y=0.0, z=float(view.height_m)), orientation=Quaternion(x=x, y=y, z=z, w=w)))


def message_to_view(message: PoseStamped) -> tuple[np.ndarray, float]:
    """(rotation, height_m) of view_to_pose, as camera.geometry.GroundView takes them. Raises GeometryError where they
    are of no view of the ground."""
    rotation, height_m = message_to_rotation(message.pose.orientation), float(message.pose.position.z)
    check_view(rotation, height_m)
    return rotation, height_m


def result_to_message(result: LocalizationResult, header: Header, grid: LocalGrid, *, inference_ms: float = 0.0,
                      model: str = "", map_name: str = "") -> LocalizationStatus:
    """header: the frame's own. grid: that of the map."""
    candidates = []
    for item in result.candidates:
        latitude, longitude = map(float, grid.to_geographic(item.x, item.y))
        candidates.append(LocalizationCandidate(latitude=latitude, longitude=longitude, share=float(item.share),
                                                yaw_error=float(item.yaw_error_rad)))
    return LocalizationStatus(header=header, verdict=result.verdict.value, reason=result.reason,
                              score=float(result.score), margin=float(result.margin), spread_m=float(result.spread_m),
                              effective_points=float(result.effective_points), inference_ms=float(inference_ms),
                              model=model, map=map_name, candidates=candidates)


def mask_to_image(mask: SemanticMask, header: Header) -> Image:
    """The labels, mono8, in the size of the frame: each of its pixels has the label of the mask's that covers its
    centre."""
    labels = mask.labels
    if labels.shape != (mask.height, mask.width):
        labels = cv2.resize(labels, (mask.width, mask.height), interpolation=cv2.INTER_NEAREST_EXACT)
    return array_to_image(labels, "mono8", header)
