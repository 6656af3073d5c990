"""Flights over the virtual city whose frames are labelled by casting rays and corrupting what they hit.

Cheap enough for hundreds of flights, and hard where it matters: the city differs from its map as `world.differences`
says, buildings lean and hide what is behind them, trees that no map knows stand about, the sensors err as those of
rendered flights do, and wrong labels are fixed to the world: a roof that is taken for a road is taken for one in every
frame that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid
from thermalreid_ros.evaluation.localization import CHI2_95, FALSE_LOCK_M, NEAR_M, converged
from thermalreid_ros.localization.localizer import Localizer, LocalizerConfig
from thermalreid_ros.localization.types import LocalizationResult, SemanticMask, Verdict
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.world.city import GROUND, City, build_city
from thermalreid_ros.world.flight import (FlightError, FlightPlan, Trajectory, altitude_readings, imu_readings,
                                          odometry_readings, prior_positions)
from thermalreid_ros.world.raycast import Scene

MASK_WIDTH, MASK_HEIGHT = 80, 64
_BODY_OF_OPTICAL = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]).T
_BLOB_CELL_M = 2.0
_CLEARANCE_M = 15.0
_EPOCH_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Conditions:
    """What is flown and what is wrong. label_error: share of the world whose labels are wrong. blob_m: how wide a
    patch of wrong labels is. boundary_px: how far labels run over at their borders, differently in every frame.
    prior_error_m: standard deviation on each axis. drift: of the odometry, share of the way. altitude_error: share."""

    label_error: float = 0.15
    blob_m: float = 10.0
    boundary_px: float = 1.0
    prior_error_m: float = 300.0
    drift: float = 0.02
    altitude_error: float = 0.02
    duration_s: float = 180.0
    rate_hz: float = 2.0
    fov_deg: float = 45.0


@dataclass(frozen=True, eq=False)
class SimulatedFlight:
    """What a vehicle's sensors say, and where it was. Places are on the grid of the map.

    stamps_ns: int64 (F,), of the frames. labels: uint8 (F, MASK_HEIGHT, MASK_WIDTH), 255 where nothing is hit.
    attitude_ns (A,), attitude (A, 3, 3), optical axes to grid axes. odometry_ns (O,), odometry_m (O, 3), axes of the
    grid, from the start. altitude_ns (H,), altitude_m (H,). prior_m: (2,), at the first frame. truth_m: (F, 3), z
    above the world's zero. truth_yaw_error_rad: (F,), how far the attitude is turned counter-clockwise. uniform_share:
    of the frames of which one class truly covers more than 90 %.
    """

    name: str
    intrinsics: Intrinsics
    stamps_ns: np.ndarray
    labels: np.ndarray
    attitude_ns: np.ndarray
    attitude: np.ndarray
    odometry_ns: np.ndarray
    odometry_m: np.ndarray
    altitude_ns: np.ndarray
    altitude_m: np.ndarray
    prior_m: np.ndarray
    prior_error_m: float
    truth_m: np.ndarray
    truth_yaw_error_rad: np.ndarray
    depression_rad: float
    height_m: float
    pattern: str
    uniform_share: float


class SimulatedWorld:
    """A city made ready to be labelled. map_grid: the grid of the map, on which all places are given."""

    def __init__(self, city: City, map_grid: LocalGrid):
        self.city = city
        self.offset_m = np.array([city.grid.easting_m - map_grid.easting_m, city.grid.northing_m - map_grid.northing_m])
        self._scene = Scene(city.mesh)

    def flight(self, seed: int, conditions: Conditions, name: str = "") -> SimulatedFlight:
        """A course and its sensors' errors drawn from the seed; FlightError where none keeps clear of the roofs."""
        plan = FlightPlan(conditions.duration_s)
        trajectory = next((t for t in (Trajectory(self.city.bounds, self.city.relief.height_m, plan, seed + (k << 32))
                                       for k in range(30)) if self._clear(t)), None)
        if trajectory is None:
            raise FlightError("no course over this city keeps clear of its roofs")
        streams = [np.random.default_rng(np.random.SeedSequence([seed, 0x51A, k])) for k in range(5)]
        frame_s = np.arange(0.0, conditions.duration_s, 1.0 / conditions.rate_hz)
        end = frame_s[-1] + 0.11
        attitude_s, odometry_s, altitude_s = (np.arange(0.0, end, step) for step in (0.05, 0.05, 0.1))
        imu = imu_readings(trajectory, attitude_s, 0.0, streams[0])
        odometry = odometry_readings(trajectory, odometry_s, 0.0, streams[1], conditions.drift)
        altitude = altitude_readings(trajectory, altitude_s, streams[2], conditions.altitude_error)
        prior = prior_positions(trajectory, frame_s[:1], streams[3], conditions.prior_error_m)
        attitude = imu.orientation @ _BODY_OF_OPTICAL
        intrinsics = Intrinsics.from_field_of_view(640, 512, np.radians(conditions.fov_deg))
        labels, uniform_share = self._labels(trajectory, frame_s, intrinsics, conditions, streams[4])
        truth = trajectory.position_m(frame_s) + (*self.offset_m, 0.0)
        turned = attitude @ trajectory.rotations(attitude_s).transpose(0, 2, 1)
        error = np.arctan2(turned[:, 1, 0] - turned[:, 0, 1], turned[:, 0, 0] + turned[:, 1, 1])
        return SimulatedFlight(
            name, intrinsics, _stamps(frame_s), labels, _stamps(attitude_s), attitude, _stamps(odometry_s),
            odometry.position_m, _stamps(altitude_s), altitude, prior[0, :2] + self.offset_m, conditions.prior_error_m,
            truth, np.interp(frame_s, attitude_s, error), trajectory.plan.depression_rad, trajectory.plan.altitude_m,
            trajectory.plan.pattern, uniform_share)

    def _clear(self, trajectory: Trajectory) -> bool:
        way = trajectory.position_m(np.arange(0.0, trajectory.plan.duration_s, 0.5))
        above = (way + (0, 0, 500)).astype(np.float32)
        distance, _ = self._scene.nearest(above, np.broadcast_to(np.float32([0, 0, -1]), above.shape))
        return bool(distance.min() > 500.0 + _CLEARANCE_M)

    def _labels(self, trajectory: Trajectory, frame_s: np.ndarray, intrinsics: Intrinsics, conditions: Conditions,
                rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """(labels of the frames, the share of them that truly show hardly more than one class)."""
        wrong, instead = self._blobs(conditions, rng)
        u, v = np.meshgrid((np.arange(MASK_WIDTH) + 0.5) * intrinsics.width / MASK_WIDTH,
                           (np.arange(MASK_HEIGHT) + 0.5) * intrinsics.height / MASK_HEIGHT)
        rays = intrinsics.rays(np.column_stack([u.ravel(), v.ravel()]))
        frames = np.empty((len(frame_s), MASK_HEIGHT, MASK_WIDTH), np.uint8)
        uniform = 0
        for k, time_s in enumerate(frame_s):
            pose = trajectory.pose(time_s)
            true, place = self._seen(pose, rays)
            counts = np.bincount(true[true < CLASS_COUNT], minlength=CLASS_COUNT)
            uniform += counts.max() > 0.9 * counts.sum()
            row = np.clip(((place[:, 1] - self.city.bounds[1]) / _BLOB_CELL_M).astype(int), 0, wrong.shape[0] - 1)
            column = np.clip(((place[:, 0] - self.city.bounds[0]) / _BLOB_CELL_M).astype(int), 0, wrong.shape[1] - 1)
            change = wrong[row, column] & (true != NO_DATA) & (instead[row, column] != true)
            labels = np.where(change, instead[row, column], true).reshape(MASK_HEIGHT, MASK_WIDTH)
            shift = rng.normal(0.0, 1.0, (2, MASK_HEIGHT, MASK_WIDTH)).astype(np.float32)
            shift = np.stack([cv2.GaussianBlur(s, (0, 0), 2.0) for s in shift])
            shift *= conditions.boundary_px / max(float(shift.std()), 1e-6)
            x, y = np.meshgrid(np.arange(MASK_WIDTH, dtype=np.float32), np.arange(MASK_HEIGHT, dtype=np.float32))
            frames[k] = cv2.remap(labels, x + shift[0], y + shift[1], cv2.INTER_NEAREST,
                                  borderMode=cv2.BORDER_REPLICATE)
        return frames, float(uniform / len(frame_s))

    def _seen(self, pose, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(classes (N,), places (N, 2)) of what rays in the optical frame meet first."""
        directions = pose.to_world(rays)
        distance, face = self._scene.nearest(np.float32(pose.position_m), directions)
        hit = face >= 0
        place = pose.position_m[:2] + np.where(hit, distance, 0.0)[:, None] * directions[:, :2]
        classes = np.where(hit, self.city.semantic[face], NO_DATA)
        ground = hit & (classes == GROUND)
        classes[ground] = self.city.plan.semantic[self.city.plan.cells(*place[ground].T)]
        return classes.astype(np.uint8), place

    def _blobs(self, conditions: Conditions, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(where labels are wrong, what they are instead): cells of 2 m, row 0 in the south. What they are instead is
        as frequent as it is in this city, and the share is of labels that differ from the truth."""
        plan = self.city.plan.semantic[::-10, ::10]  # 2 m, as coarse as the cells
        counts = np.bincount(plan[plan < CLASS_COUNT].ravel(), minlength=CLASS_COUNT) + 0.02 * plan.size
        rough = cv2.GaussianBlur(rng.normal(size=plan.shape), (0, 0), 0.35 * conditions.blob_m / _BLOB_CELL_M)
        choice = [cv2.GaussianBlur(rng.normal(size=plan.shape), (0, 0), conditions.blob_m / _BLOB_CELL_M)
                  for _ in range(2)]
        angle = np.angle(choice[0] + 1j * choice[1]) / (2 * np.pi) + 0.5  # evenly spread, smooth
        instead = np.searchsorted(np.cumsum(counts / counts.sum())[:-1], angle).astype(np.uint8)
        differs = np.mean(instead != plan)
        wrong = rough > np.quantile(rough, 1.0 - min(conditions.label_error / max(differs, 1e-6), 1.0))
        return wrong, instead


def _stamps(time_s: np.ndarray) -> np.ndarray:
    return _EPOCH_NS + np.round(time_s * 1e9).astype(np.int64)


def fly(localizer: Localizer, flight: SimulatedFlight) -> list[LocalizationResult]:
    """Play a flight to a Localizer, inputs before the frames that they belong to, and the prior at the start."""
    localizer.set_prior(int(flight.stamps_ns[0]), *map(float, flight.prior_m), flight.prior_error_m)
    results, heads = [], [0, 0, 0]
    streams = ((flight.attitude_ns, flight.attitude, localizer.add_attitude),
               (flight.odometry_ns, flight.odometry_m, localizer.add_odometry),
               (flight.altitude_ns, flight.altitude_m, localizer.add_altitude))
    full = np.full(flight.labels.shape[1:], 255, np.uint8)
    for stamp_ns, labels in zip(flight.stamps_ns, flight.labels):
        for k, (stamps, values, add) in enumerate(streams):
            while heads[k] < len(stamps) and stamps[heads[k]] <= stamp_ns + 100_000_000:
                add(int(stamps[heads[k]]), values[heads[k]])
                heads[k] += 1
        mask = SemanticMask(labels, full, flight.intrinsics.width, flight.intrinsics.height, int(stamp_ns))
        results.append(localizer.process(mask, flight.intrinsics))
    return results


@dataclass(frozen=True)
class FlightOutcome:
    """One flight in numbers. errors_m: of its fixes, in order. first_fix_s: None without a fix. converged_s: until the
    first one within NEAR_M, likewise. inside: share of fixes within their 95 % ellipse. verdicts: how many frames got
    each."""

    name: str
    frames: int
    errors_m: np.ndarray
    first_fix_s: float | None
    converged_s: float | None
    inside: float
    nees: float
    uniform_share: float
    yaw_errors_deg: np.ndarray
    verdicts: dict[str, int] = field(default_factory=dict)

    @property
    def false_lock(self) -> bool:
        """Whether a published fix was more than FALSE_LOCK_M wrong."""
        return bool(len(self.errors_m) and self.errors_m.max() > FALSE_LOCK_M)

    @property
    def success(self) -> bool:
        """As evaluation.localization has it of recorded flights."""
        return bool(self.converged_s is not None and not self.false_lock and self.errors_m[-1] <= NEAR_M)


def outcome(flight: SimulatedFlight, results: Sequence[LocalizationResult]) -> FlightOutcome:
    """Compare the fixes of a flight with its truth (grid axes taken for true ones: 2 degrees do not matter here)."""
    errors, nees, yaw, first, near = [], [], [], None, None
    verdicts: dict[str, int] = {}
    for k, result in enumerate(results):
        verdicts[result.verdict.value] = verdicts.get(result.verdict.value, 0) + 1
        if result.verdict is not Verdict.LOCALIZED:
            continue
        fix = result.fix
        error = np.array([fix.x, fix.y]) - flight.truth_m[k, :2]
        errors.append(float(np.hypot(*error)))
        nees.append(float(error @ np.linalg.solve(fix.covariance_m2, error)))
        turned = fix.rotation @ flight.attitude[np.abs(flight.attitude_ns - flight.stamps_ns[k]).argmin()].T
        corrected = np.arctan2(turned[1, 0] - turned[0, 1], turned[0, 0] + turned[1, 1])
        yaw.append(float(np.degrees(flight.truth_yaw_error_rad[k] + corrected)))
        seconds = (int(flight.stamps_ns[k]) - int(flight.stamps_ns[0])) * 1e-9
        first = seconds if first is None else first
        near = seconds if near is None and errors[-1] <= NEAR_M else near
    return FlightOutcome(flight.name, len(results), np.array(errors), first, near,
                         float(np.mean(np.array(nees) <= CHI2_95)) if nees else float("nan"),
                         float(np.mean(nees)) if nees else float("nan"), flight.uniform_share, np.array(yaw), verdicts)


def summary(outcomes: Sequence[FlightOutcome]) -> dict[str, float | int | None]:
    """Rates over flights and figures over all of their fixes."""
    errors = np.concatenate([o.errors_m for o in outcomes]) if outcomes else np.zeros(0)
    yaw = np.concatenate([o.yaw_errors_deg for o in outcomes]) if outcomes else np.zeros(0)
    fixes = np.array([len(o.errors_m) for o in outcomes])
    inside = np.array([o.inside for o in outcomes])
    nees = np.array([o.nees for o in outcomes])
    near = [o.converged_s for o in outcomes]
    some = fixes > 0
    return {"flights": len(outcomes), "success": float(np.mean([o.success for o in outcomes])) if outcomes else None,
            "false_locks": int(sum(o.false_lock for o in outcomes)),
            "median_m": float(np.median(errors)) if len(errors) else None,
            "p95_m": float(np.percentile(errors, 95)) if len(errors) else None,
            "seconds_50": converged(near, 0.5), "seconds_90": converged(near, 0.9),
            "inside_95": float((inside[some] * fixes[some]).sum() / fixes.sum()) if some.any() else None,
            "nees": float((nees[some] * fixes[some]).sum() / fixes.sum()) if some.any() else None,
            "yaw_error_deg": float(np.median(np.abs(yaw))) if len(yaw) else None,
            "fix_share": float(fixes.sum() / max(sum(o.frames for o in outcomes), 1))}


def simulated_flights(maps: Sequence[Path], count: int, seed: int, conditions: Conditions,
                      flights_a_city: int = 10) -> Iterator[tuple[Path, SimulatedFlight]]:
    """Flights in turn over cities built on the maps, a new city after every flights_a_city of them."""
    for city_number in range(-(-count // flights_a_city)):
        path = maps[city_number % len(maps)]
        with SemanticMap.open(path) as semantic_map:
            grid = semantic_map.grid
        city_seed = seed + 1000 * city_number
        world = SimulatedWorld(build_city(path, seed=city_seed), grid)
        for number in range(min(flights_a_city, count - city_number * flights_a_city)):
            flight_seed = city_seed + 1 + number
            yield path, world.flight(flight_seed, conditions, f"{path.stem} {flight_seed}")


def simulate(maps: Sequence[Path], count: int, seed: int, conditions: Conditions,
             config: LocalizerConfig) -> Iterator[FlightOutcome]:
    """Fly them all, each with a Localizer of its own that knows nothing of the segmenter."""
    for path, flight in simulated_flights(maps, count, seed, conditions):
        with SemanticMap.open(path) as semantic_map:
            yield outcome(flight, fly(Localizer(semantic_map, config), flight))


def figures(outcomes: Sequence[FlightOutcome]) -> dict[str, Any]:
    """summary() of the flights over ground with something to see (`varied`) and of the others (`uniform`: of which
    more than half of the frames show nearly one class alone), and each flight."""
    each = [{"name": o.name, "first_fix_s": o.first_fix_s, "converged_s": o.converged_s,
             "fixes": len(o.errors_m), "frames": o.frames,
             "median_m": float(np.median(o.errors_m)) if len(o.errors_m) else None,
             "worst_m": float(o.errors_m.max()) if len(o.errors_m) else None, "uniform_share": o.uniform_share,
             "verdicts": o.verdicts} for o in outcomes]
    uniform = [o for o in outcomes if o.uniform_share > 0.5]
    return {"varied": summary([o for o in outcomes if o.uniform_share <= 0.5]),
            "uniform": summary(uniform) if uniform else None, "flights_each": each}
