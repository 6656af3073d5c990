"""How sure a fix is of the camera's whole pose: place, height and attitude, and how their errors hang together."""

from __future__ import annotations

import math

import numpy as np

from thermalreid_ros.camera.geometry import rotation_of_rpy
from thermalreid_ros.localization.types import PositionFix

TILT_SIGMA_RAD = math.radians(1.0)
#: How much of what attitude and height are wrong by a fix makes good in what the view shows: on three rendered flights
#: (towns that figures are not measured on) 96 % of the 95 % ellipses of objects on the ground then hold them.
FITTED_SHARE = 0.8


def pose_covariance(fix: PositionFix, convergence_rad: float, height_sigma_m: float) -> np.ndarray:
    """float64 (6, 6), of x, y, height and turns about x, y, z of the grid, metres and radians.

    convergence_rad: of the grid. A fix is where the view fits the map, so that an error of attitude or height moves the
    camera one way and the ground that it sees the other way. Covariances between them say so: the ground in the middle
    of the view is known better than the camera's place.
    """
    turn = rotation_of_rpy(0.0, 0.0, convergence_rad)[:2, :2]
    covariance = np.zeros((6, 6))
    covariance[:2, :2] = turn @ fix.covariance_m2 @ turn.T
    covariance[2, 2] = height_sigma_m ** 2
    covariance[3, 3] = covariance[4, 4] = TILT_SIGMA_RAD ** 2
    covariance[5, 5] = fix.yaw_sigma_rad ** 2
    covariance[:2, 2:] = _fitted_to_ground(covariance, fix.rotation[:, 2], fix.height_m)
    covariance[2:, :2] = covariance[:2, 2:].T
    return covariance


def _fitted_to_ground(covariance: np.ndarray, view: np.ndarray, height_m: float) -> np.ndarray:
    """(2, 4), covariances of x and y with height and turns. covariance: (6, 6), without them. view: (3,), the optical
    axis on the grid."""
    if view[2] > -0.1 or not np.isfinite(covariance).all():  # no ground in the middle of the view, no known height
        return np.zeros((2, 4))
    lean = view[:2] / -view[2]
    x, y, z = height_m * np.array((*lean, -1.0))  # to the ground that is seen
    by_view = np.column_stack([np.eye(2), lean])
    moved = np.column_stack([lean, by_view @ np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])])
    spread = moved @ covariance[2:, 2:]
    # A fix that is surer than attitude and height allow cannot have made good as much.
    room = np.linalg.eigvals(np.linalg.solve(covariance[:2, :2], spread @ moved.T)).real.max()
    return -min(FITTED_SHARE, 0.95 / math.sqrt(max(room, 1e-12))) * spread
