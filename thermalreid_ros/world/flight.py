"""Flights: where the camera is and looks at any instant, and what the vehicle's other sensors say of it.

The vehicle follows a rounded course over the area at a height above the ground, its nose turned into the wind; the
gimbal holds the camera's depression and lets a rest of the motion through. All noise is a sum of waves or a random
walk drawn from the seed, so any instant can be asked for by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thermalreid_ros.camera.geometry import BODY_FROM_OPTICAL, Intrinsics, Pose
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.world.paths import Path, rounded

PATTERNS = ("survey", "loop", "orbit")
GRAVITY_M_S2 = 9.80665
_STEP_S = 1e-3  # of numeric derivatives


class FlightError(ThermalReidError):
    """A flight that cannot be flown over an area."""


class Waves:
    """A smooth random signal: waves of a band of frequencies, standard deviation sigma."""

    def __init__(self, rng: np.random.Generator, sigma: float, band_hz: tuple[float, float], count: int = 16):
        self._frequency = 2 * np.pi * np.exp(rng.uniform(*np.log(band_hz), count))
        self._phase = rng.uniform(0.0, 2 * np.pi, count)
        self._amplitude = sigma * np.sqrt(2.0 / count)

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """float64, shape of time_s."""
        return self._amplitude * np.sin(np.multiply.outer(time_s, self._frequency) + self._phase).sum(axis=-1)


@dataclass(frozen=True)
class FlightPlan:
    """What is flown. Angles in radians; None is drawn from the seed.

    pattern: "survey" (parallel legs), "loop" (a round through the area) or "orbit" (around a point, looking at it).
    altitude_m: above the ground below. depression_rad: of the camera below the horizon. speed_m_s: over ground.
    wind_m_s: mean speed at flying height; stronger wind than half of the speed is not flown in, and taken as that.
    """

    duration_s: float
    pattern: str | None = None
    altitude_m: float | None = None
    depression_rad: float | None = None
    speed_m_s: float | None = None
    wind_m_s: float = 3.0


class Trajectory:
    """The camera's way over an area: world metres, z above the world's zero. Yaw is that of the grid.

    plan: the FlightPlan with nothing left open. FlightError where the area is too small to fly over.
    """

    def __init__(self, bounds: tuple[float, float, float, float], height_m, plan: FlightPlan, seed: int):
        """height_m: function of (x (N,), y (N,)) -> z (N,), the ground. bounds: x_min, y_min, x_max, y_max."""
        rng = np.random.default_rng(np.random.SeedSequence([int(seed), 0xF117]))
        drawn = (PATTERNS[int(np.searchsorted((0.5, 0.8), rng.random()))], rng.uniform(60.0, 130.0),
                 np.radians(rng.uniform(45.0, 90.0)), rng.uniform(8.0, 12.0))
        given = (plan.pattern, plan.altitude_m, plan.depression_rad, plan.speed_m_s)
        pattern, altitude_m, depression_rad, speed = (a if a is not None else b for a, b in zip(given, drawn))
        if pattern not in PATTERNS:
            raise FlightError(f"'{pattern}' is no pattern of flight; use one of: {', '.join(PATTERNS)}")
        if not (plan.duration_s > 0 and altitude_m > 0 and 0 < depression_rad <= np.pi / 2 and speed > 0):
            raise FlightError("a flight needs a duration, an altitude and a speed above zero, and a depression "
                              "above 0 and at most 90 degrees")
        wind_m_s = min(plan.wind_m_s, 0.5 * speed)
        self.plan = FlightPlan(plan.duration_s, pattern, altitude_m, depression_rad, speed, wind_m_s)
        self._height_m = height_m
        self._path, self._centre = _course(pattern, bounds, plan.duration_s * speed * 1.2 + 50.0, rng)
        self._start_m = rng.uniform(0.0, self._path.length_m) if self._path.closed else 20.0
        wind_from, band = rng.uniform(0.0, 2 * np.pi), (0.03, 0.3)
        self._wind = wind_m_s * np.array([np.cos(wind_from), np.sin(wind_from)])
        self._gusts = [Waves(rng, 0.2 * wind_m_s, band) for _ in range(2)]
        self._surge, self._heave = Waves(rng, 2.0, (0.02, 0.1)), Waves(rng, 1.5, (0.02, 0.15))
        sway, shake = (0.05, 0.5), (1.5, 8.0)  # what the gimbal lets through, and its own jitter
        self._shake = {name: (Waves(rng, np.radians(low), sway), Waves(rng, np.radians(high), shake))
                       for name, low, high in (("yaw", 0.8, 0.04), ("depression", 0.25, 0.04), ("roll", 0.3, 0.05))}

    def position_m(self, time_s: np.ndarray) -> np.ndarray:
        """float64 (N, 3)."""
        time_s = np.atleast_1d(np.asarray(time_s, np.float64))
        xy = self._path.at(self._way(time_s))
        reach = 40.0  # the autopilot knows the terrain roughly: the mean of five places
        ground = np.mean([self._height_m(xy[:, 0] + dx, xy[:, 1] + dy) for dx, dy in (
            (0, 0), (reach, 0), (-reach, 0), (0, reach), (0, -reach))], axis=0, dtype=np.float64)
        return np.column_stack([xy, ground + self.plan.altitude_m + self._heave.at(time_s)])

    def angles_rad(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(yaw, depression, roll) of the camera as in Pose.looking, float64 (N,)."""
        time_s = np.atleast_1d(np.asarray(time_s, np.float64))
        way = self._way(time_s)
        if self.plan.pattern == "orbit":
            to_centre = self._centre - self._path.at(way)
            yaw = np.arctan2(to_centre[:, 1], to_centre[:, 0])
        else:
            course = self._path.heading_rad(way, 12.0)
            wind = self._wind + np.stack([gust.at(time_s) for gust in self._gusts], axis=-1)
            yaw = np.arctan2(self.plan.speed_m_s * np.sin(course) - wind[:, 1],
                             self.plan.speed_m_s * np.cos(course) - wind[:, 0])
        shaken = {name: sum(wave.at(time_s) for wave in waves) for name, waves in self._shake.items()}
        return yaw + shaken["yaw"], self.plan.depression_rad + shaken["depression"], shaken["roll"]

    def rotations(self, time_s: np.ndarray) -> np.ndarray:
        """Optical axes to world axes, float64 (N, 3, 3), as Pose.rotation."""
        yaw, depression, roll = self.angles_rad(time_s)
        cy, sy, cd, sd = np.cos(yaw), np.sin(yaw), np.cos(depression), np.sin(depression)
        cr, sr = np.cos(roll)[:, None], np.sin(roll)[:, None]
        forward = np.stack([cy * cd, sy * cd, -sd], axis=1)
        right = np.stack([sy, -cy, np.zeros_like(cy)], axis=1)
        down = np.cross(forward, right)
        return np.stack([cr * right + sr * down, cr * down - sr * right, forward], axis=2)

    def pose(self, time_s: float) -> Pose:
        return Pose(self.position_m(time_s)[0], self.rotations(time_s)[0])

    def height_above_ground_m(self, time_s: np.ndarray) -> np.ndarray:
        """Height of the camera above the ground right below it, float64 (N,)."""
        x, y, z = self.position_m(time_s).T
        return z - self._height_m(x, y)

    def aim_m(self, time_s: float) -> np.ndarray:
        """Where the line of sight meets the ground, about: float64 (3,). At most ten altitudes away."""
        pose = self.pose(time_s)
        forward = pose.rotation[:, 2]
        reach = min(self.plan.altitude_m / max(-forward[2], 1e-3), 10.0 * self.plan.altitude_m)
        return pose.position_m + reach * forward

    def image_motion_px_s(self, time_s: float, intrinsics: Intrinsics) -> tuple[float, float]:
        """Velocity of the ground's picture in the middle of the image."""
        point = self.aim_m(time_s)[None]
        before, after = (intrinsics.project(self.pose(time_s + h).to_camera(point))[0] for h in (-0.01, 0.01))
        motion = (after - before) / 0.02
        return float(motion[0]), float(motion[1])

    def _way(self, time_s: np.ndarray) -> np.ndarray:
        return self._start_m + self.plan.speed_m_s * time_s + self._surge.at(time_s) - self._surge.at(np.zeros(1))


def _course(pattern: str, bounds, length_m: float, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """A course of at least a length, or a closed one, within the inner part of the bounds; and its middle."""
    low, high = np.array(bounds[:2], np.float64), np.array(bounds[2:], np.float64)
    margin = np.minimum(0.2 * (high - low), 200.0)
    low, high = low + margin, high - margin
    size = high - low
    if size.min() < 60.0:
        raise FlightError(f"an area of {(bounds[2] - bounds[0]):.0f} x {(bounds[3] - bounds[1]):.0f} m is too small "
                          "for a flight; give at least 100 x 100 m")
    if pattern == "orbit":
        radius = min(rng.uniform(80.0, 180.0), 0.5 * size.min())
        centre = low + radius + rng.random(2) * (size - 2 * radius)
        angle = np.linspace(0.0, 2 * np.pi, 181)[::int(rng.choice([-1, 1]))]
        circle = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        circle[-1] = circle[0]
        return Path.timed(circle, 1.0, closed=True), centre
    if pattern == "loop":
        count = 6
        angle = np.sort(np.arange(count) + rng.uniform(-0.25, 0.25, count)) * 2 * np.pi / count
        span = np.minimum(size, max(0.35 * length_m, 150.0)) * 0.5
        centre = low + span + rng.random(2) * (size - 2 * span)
        radius = rng.uniform(0.6, 1.0, count)[:, None]
        corners = centre + radius * span * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        smooth, _ = rounded(corners[::int(rng.choice([-1, 1]))], 40.0, closed=True)
        return Path.timed(smooth, 1.0, closed=True), centre
    # Parallel legs, as many as the flight takes, then the same way back in between them.
    spacing = rng.uniform(60.0, 100.0)
    leg = min(rng.uniform(250.0, 450.0), size.max())
    along = int(np.argmax(size)) if rng.random() < 0.7 or size.min() < leg else int(np.argmin(size))
    leg = min(leg, size[along])
    legs = max(min(int(np.ceil(length_m / (leg + spacing))) + 1, int(size[1 - along] // spacing) + 1), 2)
    spacing = min(spacing, size[1 - along] / (legs - 1))
    extent = np.empty(2)
    extent[along], extent[1 - along] = leg, spacing * (legs - 1)
    corner = low + rng.random(2) * (size - extent)
    rows = np.repeat(np.arange(legs), 2)
    columns = np.tile([0, 1, 1, 0], legs)[:2 * legs]
    points = np.empty((2 * legs, 2))
    points[:, along] = corner[along] + leg * columns
    points[:, 1 - along] = corner[1 - along] + spacing * rows
    if rng.random() < 0.5:
        points = points[::-1]
    smooth, _ = rounded(points, 0.45 * spacing, closed=True)
    return Path.timed(smooth, 1.0, closed=True), corner + 0.5 * extent


@dataclass(frozen=True, eq=False)
class ImuReadings:
    """Of an IMU on the camera, axes x forward (line of sight), y left, z up; N rows, float64.

    orientation: (N, 3, 3), those axes in true east, north, up. gyro_rad_s, accel_m_s2: (N, 3), specific force.
    """

    time_s: np.ndarray
    orientation: np.ndarray
    gyro_rad_s: np.ndarray
    accel_m_s2: np.ndarray


#: Standard deviations of the IMU's roll and pitch, and of its compass.
IMU_TILT_RAD = np.radians(0.7)
IMU_YAW_RAD = np.radians(2.0)
IMU_GYRO_RAD_S = np.radians(0.1)
IMU_ACCEL_M_S2 = 0.05


def imu_readings(trajectory: Trajectory, time_s: np.ndarray, convergence_rad: float,
                 rng: np.random.Generator) -> ImuReadings:
    """What an attitude reference says at rising times (N,): constant errors of mounting and compass, slow drift,
    noise. convergence_rad: of the grid (LocalGrid.convergence_rad)."""
    h = _STEP_S
    true_north = _about_z(np.array([-convergence_rad]))[0]
    before, here, after = (trajectory.rotations(time_s + shift) @ BODY_FROM_OPTICAL.T for shift in (-h, 0.0, h))
    turn = np.einsum("nji,njk->nik", here, (after - before) / (2 * h))  # R^T dR/dt is skew
    gyro = 0.5 * np.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]],
                          axis=1)
    wide = 0.05  # positions are rounded to a millimetre or so by the relief
    low, mid, up = (trajectory.position_m(time_s + shift) for shift in (-wide, 0.0, wide))
    force = (low - 2 * mid + up) / wide ** 2 + np.array([0.0, 0.0, GRAVITY_M_S2])
    accel = np.einsum("nji,nj->ni", here, force)
    sigma = np.array([IMU_TILT_RAD, IMU_TILT_RAD, IMU_YAW_RAD])
    constant, drift = rng.normal(0.0, 0.9 * sigma), [Waves(rng, 0.4 * s, (0.005, 0.05)) for s in sigma]
    error = constant + np.stack([wave.at(time_s) for wave in drift], axis=1)
    orientation = _rotations_of(error) @ true_north @ here
    gyro += rng.normal(0.0, 0.5 * IMU_GYRO_RAD_S, 3) + rng.normal(0.0, IMU_GYRO_RAD_S, gyro.shape)
    accel += rng.normal(0.0, IMU_ACCEL_M_S2, 3) + rng.normal(0.0, IMU_ACCEL_M_S2, accel.shape)
    return ImuReadings(time_s, orientation, gyro, accel)


@dataclass(frozen=True, eq=False)
class OdometryReadings:
    """Dead reckoning from the start, N rows, float64. position_m: (N, 3), in a frame at the start, about east, north,
    up. yaw_rad: (N,), of the camera in that frame. velocity_m_s: (N, 3), in the frame of the vehicle (x forward)."""

    time_s: np.ndarray
    position_m: np.ndarray
    yaw_rad: np.ndarray
    velocity_m_s: np.ndarray
    travelled_m: np.ndarray


def odometry_readings(trajectory: Trajectory, time_s: np.ndarray, convergence_rad: float, rng: np.random.Generator,
                      drift: float = 0.02) -> OdometryReadings:
    """What odometry says at rising times (N,). drift: standard deviation of its error over the way flown, shared
    between a wrong scale and a wrong heading, which wanders."""
    share = drift / np.sqrt(2.0)
    step_s = np.diff(time_s, prepend=time_s[0])
    wander = np.cumsum(rng.normal(0.0, 1.0, len(time_s)) * np.sqrt(step_s)) * share / np.sqrt(120.0)
    heading_error = rng.normal(0.0, 0.8 * share) + wander
    scale = 1.0 + rng.normal(0.0, share)
    step = np.diff(trajectory.position_m(time_s), axis=0, prepend=trajectory.position_m(time_s[:1]))
    turn = _about_z(heading_error - convergence_rad)
    position = np.cumsum(scale * np.einsum("nij,nj->ni", turn, step), axis=0)
    yaw = trajectory.angles_rad(time_s)[0] - convergence_rad + heading_error
    velocity = (trajectory.position_m(time_s + 0.05) - trajectory.position_m(time_s - 0.05)) / 0.1
    velocity = scale * np.einsum("nij,nj->ni", turn, velocity) + rng.normal(0.0, 0.05, velocity.shape)
    velocity = np.einsum("nji,nj->ni", _about_z(yaw), velocity)
    way = np.cumsum(np.linalg.norm(step, axis=1))
    return OdometryReadings(time_s, position, np.angle(np.exp(1j * yaw)), velocity, way)


def altitude_readings(trajectory: Trajectory, time_s: np.ndarray, rng: np.random.Generator,
                      error: float = 0.02) -> np.ndarray:
    """Height above the ground below as the vehicle knows it, float64 (N,): wrong by a constant share and noise."""
    height = trajectory.height_above_ground_m(time_s)
    return height * (1.0 + rng.normal(0.0, error)) + rng.normal(0.0, 0.2, len(height))


def prior_positions(trajectory: Trajectory, time_s: np.ndarray, rng: np.random.Generator,
                    sigma_m: float = 300.0) -> np.ndarray:
    """A rough idea of the position, float64 (N, 3), grid metres: its horizontal error, sigma_m on each axis, is the
    same all flight long but for a slow wander of a twentieth, so that averaging does not help."""
    wander = np.stack([Waves(rng, 0.05 * sigma_m, (0.002, 0.01)).at(time_s) for _ in range(2)], axis=1)
    position = trajectory.position_m(time_s)
    position[:, :2] += rng.normal(0.0, sigma_m, 2) + wander
    position[:, 2] += rng.normal(0.0, 5.0)
    return position


def _about_z(angle_rad: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) about the z axis."""
    c, s, zero = np.cos(angle_rad), np.sin(angle_rad), np.zeros_like(angle_rad)
    return np.stack([np.stack([c, -s, zero], 1), np.stack([s, c, zero], 1), np.stack([zero, zero, zero + 1], 1)], 1)


def _rotations_of(vector: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) of rotation vectors (N, 3): Rodrigues' formula."""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    x, y, z = (vector / np.maximum(angle[:, 0], 1e-12)).T
    zero = np.zeros_like(x)
    skew = np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1), np.stack([-y, x, zero], 1)], 1)
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * (skew @ skew)
