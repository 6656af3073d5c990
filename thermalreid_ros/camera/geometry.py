"""Cameras in the world: intrinsics, poses, attitude and the metric grid that maps and scenes are drawn in.

Conventions. World: x east, y north, z up, metres, on the grid of a map (a UTM zone) shifted to a local origin.
Yaw: 0 = east, counter-clockwise (REP 103). Camera optical frame: x right, y down, z forward (REP 103).
Pixels: the image covers [0, width] x [0, height], the centre of its first pixel is (0.5, 0.5), as boxes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from thermalreid_ros.errors import ThermalReidError

_OFF_MIDDLE = 0.2  # of a frame's side: no principal point is nearer to its edge
#: Axes of a camera's body frame (x along the line of sight, y left, z up) from those of its optical frame.
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class GeometryError(ThermalReidError):
    """Numbers that describe no camera or no place."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion. (cx, cy) is the principal point in this project's pixel convention;
    `k` and `from_k` convert to and from sensor_msgs/CameraInfo, where pixel centres are whole numbers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal_fov_rad: float) -> Intrinsics:
        """Square pixels, the principal point in the middle. GeometryError unless 0 < fov < pi."""
        if not (width > 0 and height > 0 and 0.0 < horizontal_fov_rad < np.pi):
            raise GeometryError(f"no camera has {width}x{height} px and a field of view of "
                                f"{np.degrees(horizontal_fov_rad):.0f} degrees")
        focal_px = 0.5 * width / np.tan(0.5 * horizontal_fov_rad)
        return cls(width, height, focal_px, focal_px, 0.5 * width, 0.5 * height)

    @classmethod
    def from_k(cls, width: int, height: int, k: np.ndarray) -> Intrinsics:
        """k: the nine numbers of CameraInfo, row by row. GeometryError where they describe no camera, which one whose
        principal point is far from the middle of its frame is not: drivers leave it at 0 where nobody calibrated."""
        k = np.asarray(k, np.float64).reshape(3, 3)
        if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0 and width > 0 and height > 0):
            raise GeometryError("the camera matrix K has no positive focal lengths; calibrate the camera")
        if not all(_OFF_MIDDLE * side <= centre <= (1.0 - _OFF_MIDDLE) * side
                   for centre, side in zip(k[:2, 2], (width, height))):
            raise GeometryError(f"the camera matrix K has its principal point at ({k[0, 2]:g}, {k[1, 2]:g}), far from "
                                f"the middle of a frame of {width}x{height}; calibrate the camera")
        return cls(int(width), int(height), k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)

    @property
    def k(self) -> np.ndarray:
        """CameraInfo's camera matrix, float64 (3, 3)."""
        return np.array([[self.fx, 0, self.cx - 0.5], [0, self.fy, self.cy - 0.5], [0, 0, 1]])

    def scaled(self, width: int, height: int) -> Intrinsics:
        """Of the same frames, resampled to another size."""
        x, y = width / self.width, height / self.height
        return Intrinsics(width, height, x * self.fx, y * self.fy, x * self.cx, y * self.cy)

    def rays(self, pixels: np.ndarray | None = None) -> np.ndarray:
        """Unit directions in the optical frame, float32 (N, 3), of pixels (N, 2) or of all pixel centres in
        row order."""
        if pixels is None:
            u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        else:
            u, v = np.asarray(pixels, np.float64).T
        rays = np.stack([(u.ravel() - self.cx) / self.fx, (v.ravel() - self.cy) / self.fy, np.ones(u.size)], axis=1)
        return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels, float64 (N, 2), of points (N, 3) in the optical frame; NaN for those not in front."""
        points = np.asarray(points, np.float64)
        depth = np.where(points[:, 2] > 1e-9, points[:, 2], np.nan)
        return np.stack([self.fx * points[:, 0] / depth + self.cx, self.fy * points[:, 1] / depth + self.cy], axis=1)


@dataclass(frozen=True, eq=False)
class Pose:
    """A camera in the world. position_m: float64 (3,). rotation: float64 (3, 3), optical axes to world axes."""

    position_m: np.ndarray
    rotation: np.ndarray

    @classmethod
    def looking(cls, position_m, yaw_rad: float, depression_rad: float, roll_rad: float = 0.0) -> Pose:
        """A camera that looks along yaw_rad and depression_rad below the horizon (pi/2: straight down, with the
        top of the picture towards yaw), its right side lowered by roll_rad about the line of sight."""
        cy, sy = np.cos(yaw_rad), np.sin(yaw_rad)
        cd, sd = np.cos(depression_rad), np.sin(depression_rad)
        forward = np.array([cy * cd, sy * cd, -sd])
        right = np.array([sy, -cy, 0.0])
        down = np.cross(forward, right)
        cr, sr = np.cos(roll_rad), np.sin(roll_rad)
        rotation = np.stack([cr * right + sr * down, cr * down - sr * right, forward], axis=1)
        return cls(np.asarray(position_m, np.float64), rotation)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) in the optical frame, float64."""
        return (np.asarray(points, np.float64) - self.position_m) @ self.rotation

    def to_world(self, directions: np.ndarray) -> np.ndarray:
        """Optical directions (N, 3) as world directions, in the same precision."""
        return directions @ self.rotation.T.astype(directions.dtype)

    @property
    def quaternion(self) -> np.ndarray:
        """(x, y, z, w) of the rotation, w >= 0, as geometry_msgs/Quaternion."""
        return quaternion_of(self.rotation)


@dataclass(frozen=True, eq=False)
class GroundView:
    """A camera above plane ground, wherever that is. rotation: float64 (3, 3), optical axes to axes of which z points
    up. height_m: above the ground right below. GeometryError where these are no such view."""

    intrinsics: Intrinsics
    rotation: np.ndarray
    height_m: float

    def __post_init__(self) -> None:
        check_view(self.rotation, self.height_m)


def check_view(rotation: np.ndarray, height_m: float) -> None:
    """GeometryError where these are no attitude, or no height above the ground."""
    check_attitude(rotation)
    check_height(height_m)


def check_attitude(rotation: np.ndarray) -> None:
    """GeometryError where this is no camera's attitude."""
    if np.shape(rotation) != (3, 3) or not np.isfinite(rotation).all():
        raise GeometryError("the camera's attitude is no rotation matrix of 3 x 3 finite numbers")


def check_height(height_m: float) -> None:
    """GeometryError where this is no height of a camera above the ground."""
    if not 0.0 < height_m < np.inf:
        raise GeometryError(f"a camera {height_m:g} m above the ground sees none of it; check the altitude")


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """(x, y, z, w), float64, w >= 0, of a rotation matrix (3, 3)."""
    m = np.asarray(rotation, np.float64)
    # The eigenvector of the largest eigenvalue: no case distinctions, best even for inexact matrices
    # (I. Y. Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, JGCD 23(6), 2000).
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]]])
    q = np.linalg.eigh(k)[1][:, -1]
    return -q if q[3] < 0 else q


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix, float64 (3, 3), of (x, y, z, w). GeometryError where it is not near unit length."""
    q = np.asarray(quaternion, np.float64)
    norm = np.linalg.norm(q)
    if not 0.9 < norm < 1.1:
        raise GeometryError(f"a quaternion of length {norm:.3g} is no attitude")
    x, y, z, w = q / norm
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                     [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                     [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])


def rotation_of_rpy(roll_rad: float, pitch_rad: float, yaw_rad: float) -> np.ndarray:
    """Rotation matrix, float64 (3, 3), of turns about the fixed axes x, y and z in that order, as in URDF."""
    (cr, cp, cy), (sr, sp, sy) = np.cos((roll_rad, pitch_rad, yaw_rad)), np.sin((roll_rad, pitch_rad, yaw_rad))
    return (np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
            @ np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
            @ np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]]))


@dataclass(frozen=True)
class LocalGrid:
    """A metric grid: a projected CRS shifted so that (easting_m, northing_m) is its origin. x east, y north."""

    crs: str  # e.g. "EPSG:32632"
    easting_m: float
    northing_m: float

    def to_geographic(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(latitude_deg, longitude_deg) on WGS84 of grid metres."""
        longitude, latitude = self._transformer.transform(np.asarray(x) + self.easting_m,
                                                          np.asarray(y) + self.northing_m)
        return latitude, longitude

    def from_geographic(self, latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) in grid metres of WGS84 coordinates."""
        easting, northing = self._transformer.transform(longitude_deg, latitude_deg, direction="INVERSE")
        return np.asarray(easting) - self.easting_m, np.asarray(northing) - self.northing_m

    def convergence_rad(self, x: float, y: float) -> float:
        """The angle by which grid north lies clockwise of true north at a place: true ENU yaw = grid yaw minus it."""
        latitude, longitude = self.to_geographic(np.array([x, x]), np.array([y - 50.0, y + 50.0]))
        turned = (longitude[1] - longitude[0] + 180.0) % 360.0 - 180.0  # across the 180th meridian, too
        east = np.radians(turned) * np.cos(np.radians(latitude.mean()))
        return float(np.arctan2(east, np.radians(latitude[1] - latitude[0])))

    def to_true(self, x: float, y: float) -> np.ndarray:
        """The turn, float64 (2, 2), of axes of the grid at a place to true east and north."""
        return rotation_of_rpy(0.0, 0.0, -self.convergence_rad(x, y))[:2, :2]

    @cached_property
    def _transformer(self) -> Transformer:
        try:
            return Transformer.from_crs(CRS.from_user_input(self.crs), CRS.from_epsg(4326), always_xy=True)
        except CRSError:
            raise GeometryError(f"'{self.crs}' is no coordinate reference system; a UTM zone is EPSG:326NN "
                                "(north) or EPSG:327NN (south)") from None


def utm_zone(latitude_deg: float, longitude_deg: float) -> str:
    """The UTM zone of a place as an EPSG code, without the exceptions around Norway and Svalbard."""
    zone = int((longitude_deg + 180.0) // 6.0) % 60 + 1
    return f"EPSG:{32600 + zone if latitude_deg >= 0 else 32700 + zone}"
