"""How well flights are localized: the filter over whole recordings, and single frames by each method.

Errors are horizontal, metres, of the camera's place as published against the recording's truth.

| term | meaning |
|---|---|
| fix | a frame whose verdict is LOCALIZED: what would be published |
| false lock | a fix more than 50 m wrong; a flight with one counts once |
| converged | from the first fix on that is within 25 m |
| success | a flight that converges, has no false lock and whose last fix is within 25 m |
| NEES | squared error in units of the published covariance: 2 on average where that is honest |
| ellipse95 | share of the fixes whose 95 % ellipse holds the truth |
| uniform | a frame of which one class covers more than 90 %; a flight of which more than half of the frames are so |
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.evaluation.flight_input import (AltitudeEvent, AttitudeEvent, Event, Flight, FlightInputError,
                                                     FrameEvent, OdometryEvent, PriorEvent, damage_of)
from thermalreid_ros.localization.ground import ground_offsets
from thermalreid_ros.localization.localizer import Localizer
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.localization.types import LocalizationResult, SemanticMask, Verdict
from thermalreid_ros.maps.classes import CLASS_COUNT

FALSE_LOCK_M = 50.0
NEAR_M = 25.0
CHI2_95 = 5.991  # of two degrees of freedom
UNIFORM_SHARE = 0.9
MASK_WIDTH = 320  # of true labellings, as wide as the networks'
ERROR_CELL_M = 10.0  # of wrong labels: about a house


class Labelling(Protocol):
    """What labels the frames: a network, or the recording's truth. confusion: P(label | true class), float64 (5, 5),
    rows: true; None where it has not been measured."""

    needs_truth: bool
    confusion: np.ndarray | None

    def label(self, event: FrameEvent) -> SemanticMask: ...


class PredictedLabels:
    """By a network. units: of the recording's frames, camera.thermal.ThermalUnits."""

    needs_truth = False

    def __init__(self, segmenter: Segmenter, units: str):
        self._segmenter, self.confusion = segmenter, segmenter.confusion(ThermalUnits(units).radiometric)

    def label(self, event: FrameEvent) -> SemanticMask:
        return self._segmenter.segment(event.frame)


class TrueLabels:
    """By the recording's truth: the ceiling of what any network can give.

    errors: share of the world that is labelled wrong, in squares of 10 m of level ground that stay where they are: a
    wrong roof is wrong in every frame. seed: of them.
    """

    needs_truth = True

    def __init__(self, flight: Flight, errors: float = 0.0, seed: int = 0):
        if errors > 0.0 and not flight.truth_poses:
            raise FlightInputError("without /truth/pose no label can be wrong in a fixed place; leave out "
                                   "--label-errors")
        self._flight, self._errors, self._seed = flight, errors, seed
        self._ground_m = flight.ground_m() if errors > 0.0 else 0.0
        other = errors / (CLASS_COUNT - 1)
        self.confusion = np.full((CLASS_COUNT, CLASS_COUNT), other) + (1.0 - errors - other) * np.eye(CLASS_COUNT)

    def label(self, event: FrameEvent) -> SemanticMask:
        step = max(event.labels.shape[1] // MASK_WIDTH, 1)
        labels = np.ascontiguousarray(event.labels[step // 2::step, step // 2::step])
        k = self._flight.intrinsics
        if self._errors > 0.0:
            labels = self._spoilt(labels, k, event.stamp_ns)
        confidence = np.where(labels < CLASS_COUNT, 255, 0).astype(np.uint8)
        return SemanticMask(labels, confidence, k.width, k.height, event.stamp_ns)

    def _spoilt(self, labels: np.ndarray, k: Intrinsics, stamp_ns: int) -> np.ndarray:
        z, rotation = self._flight.truth_poses[stamp_ns]
        rows, columns = labels.shape
        u, v = np.meshgrid((np.arange(columns) + 0.5) * k.width / columns, (np.arange(rows) + 0.5) * k.height / rows)
        ground = ground_offsets(k, rotation, z - self._ground_m, np.column_stack([u.ravel(), v.ravel()]))
        ground = np.nan_to_num((ground + self._flight.place(stamp_ns)) / ERROR_CELL_M, nan=-1.0)
        chance, other = _hashed(np.floor(ground).astype(np.int64), self._seed)
        wrong = (chance < self._errors).reshape(labels.shape) & (labels < CLASS_COUNT)
        shifted = (labels + 1 + np.minimum(other * (CLASS_COUNT - 1), CLASS_COUNT - 2).astype(np.uint8).reshape(
            labels.shape)) % CLASS_COUNT
        return np.where(wrong, shifted, labels).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FrameOutcome:
    """One frame. error_m: float64 (2,), true east and north, of its fix; None without. nees: of that error.
    uniform: as at the head of this module. label_ms, localize_ms: on this machine."""

    seconds: float
    result: LocalizationResult
    true_m: np.ndarray
    error_m: np.ndarray | None
    nees: float
    uniform: bool
    label_ms: float
    localize_ms: float

    @property
    def distance_m(self) -> float:
        return float("nan") if self.error_m is None else float(np.hypot(*self.error_m))


@dataclass(frozen=True, eq=False)
class View:
    """A frame by itself, as it is measured: rotation (3, 3), optical axes to grid axes, and the height above ground."""

    mask: SemanticMask
    intrinsics: Intrinsics
    rotation: np.ndarray
    height_m: float
    true_m: np.ndarray


@dataclass(frozen=True, eq=False)
class FlightRun:
    """The filter over one flight. odometry_m: float64 (F, 2), where odometry alone, begun at the true place, has the
    camera at each outcome. prior_m: the first prior. views: some of the frames. frames_without_truth, damage: as Flight
    has them."""

    name: str
    outcomes: tuple[FrameOutcome, ...]
    odometry_m: np.ndarray
    prior_m: np.ndarray
    prior_sigma_m: float
    views: tuple[View, ...] = ()
    frames_without_truth: int = 0
    damage: str | None = None

    @property
    def fixes(self) -> list[FrameOutcome]:
        return [outcome for outcome in self.outcomes if outcome.error_m is not None]


def run_filter(flight: Flight, localizer: Localizer, labelling: Labelling,
               every: int = 0, frame_done: Callable[[], object] = lambda: None) -> FlightRun:
    """Give a flight to a localizer as a vehicle would. every: keep every so many-th frame in `views`, 0 for none.
    frame_done: called after each frame."""
    outcomes, odometry, views, prior = [], [], [], None
    attitude: deque[AttitudeEvent] = deque(maxlen=16)
    altitude: deque[AltitudeEvent] = deque(maxlen=4)
    for event in flight.events(labels=labelling.needs_truth):
        if isinstance(event, FrameEvent):
            outcome, mask = _outcome(flight, localizer, labelling, event)
            if every and len(outcomes) % every == every // 2 and attitude and altitude:
                views.append(View(mask, flight.intrinsics, _nearest(attitude, event).rotation,
                                  _nearest(altitude, event).height_m, outcome.true_m))
            outcomes.append(outcome)
            frame_done()
            continue
        feed(localizer, event)
        if isinstance(event, OdometryEvent):
            odometry.append((event.stamp_ns, *event.position_m[:2]))
        elif isinstance(event, PriorEvent):
            prior = prior or event
        else:
            (attitude if isinstance(event, AttitudeEvent) else altitude).append(event)
    if not outcomes:
        raise FlightInputError("there is no frame of which the true place is known; record the flight again")
    stamps = [outcome.result.stamp_ns for outcome in outcomes]
    return FlightRun(flight.name, tuple(outcomes), dead_reckoning(flight, np.array(odometry), stamps),
                     np.array([prior.x, prior.y]), prior.sigma_m, tuple(views), flight.frames_without_truth,
                     flight.damage)


def _nearest(events: Iterable[Event], frame: FrameEvent) -> Any:
    return min(events, key=lambda event: abs(event.stamp_ns - frame.stamp_ns))


def feed(localizer: Localizer, event: Event) -> None:
    """Tell a localizer what a sensor said."""
    if isinstance(event, AttitudeEvent):
        localizer.add_attitude(event.stamp_ns, event.rotation)
    elif isinstance(event, OdometryEvent):
        localizer.add_odometry(event.stamp_ns, event.position_m)
    elif isinstance(event, AltitudeEvent):
        localizer.add_altitude(event.stamp_ns, event.height_m)
    elif isinstance(event, PriorEvent):
        localizer.set_prior(event.stamp_ns, event.x, event.y, event.sigma_m)


def _outcome(flight: Flight, localizer: Localizer, labelling: Labelling,
             event: FrameEvent) -> tuple[FrameOutcome, SemanticMask]:
    began = time.perf_counter()
    mask = labelling.label(event)
    labelled = time.perf_counter()
    result = localizer.process(mask, flight.intrinsics)
    done = time.perf_counter()
    true_m, error_m, nees = flight.place(event.stamp_ns), None, float("nan")
    if result.verdict is Verdict.LOCALIZED:
        c, s = np.cos(flight.convergence_rad), np.sin(flight.convergence_rad)
        error_m = np.array([[c, s], [-s, c]]) @ (result.fix.x - true_m[0], result.fix.y - true_m[1])
        nees = float(error_m @ np.linalg.solve(result.fix.covariance_m2, error_m))
    return FrameOutcome((event.stamp_ns - flight.stamps_ns[0]) / 1e9, result, true_m, error_m, nees, is_uniform(mask),
                        1e3 * (labelled - began), 1e3 * (done - labelled)), mask


def is_uniform(mask: SemanticMask) -> bool:
    """Whether one class covers nearly all that is labelled."""
    counts = np.bincount(mask.labels[mask.labels < CLASS_COUNT], minlength=CLASS_COUNT)
    return counts.max() > UNIFORM_SHARE * max(counts.sum(), 1)


def dead_reckoning(flight: Flight, odometry: np.ndarray, stamps: Sequence[int]) -> np.ndarray:
    """Where odometry, begun at the true place, has the camera at stamps, float64 (F, 2). odometry: rows of stamp, x, y
    along the axes of the grid."""
    first = stamps[0]
    since, asked = odometry[:, 0] - first, np.array(stamps) - first
    way = np.column_stack([np.interp(asked, since, odometry[:, axis]) for axis in (1, 2)])
    return flight.place(first) + way - way[0]


# --- figures ---------------------------------------------------------------------------------------------------------

def flight_figures(run: FlightRun) -> dict[str, Any]:
    """The contract of `thermalreid evaluate localization --json` for one flight; None for what cannot be had."""
    fixes = run.fixes
    verdicts = Counter(outcome.result.verdict.value for outcome in run.outcomes)
    reasons = Counter(re.sub(r"\d+(\.\d+)?", "…", outcome.result.reason) for outcome in run.outcomes
                      if outcome.error_m is None)
    near = next((outcome.seconds for outcome in fixes if outcome.distance_m <= NEAR_M), None)
    false_locks = sum(outcome.distance_m > FALSE_LOCK_M for outcome in fixes)
    return {
        "flight": run.name, "damage": run.damage, "frames_without_truth": run.frames_without_truth,
        **error_figures([outcome.distance_m for outcome in fixes]),
        "fixes": len(fixes), "frames": len(run.outcomes), "rejected": len(run.outcomes) - len(fixes),
        "seconds_to_first_fix": fixes[0].seconds if fixes else None,
        "seconds_to_converge": near,
        **_honesty([outcome.nees for outcome in fixes]),
        "false_locks": int(false_locks),
        "success": bool(near is not None and not false_locks and fixes[-1].distance_m <= NEAR_M),
        "uniform_share": float(np.mean([outcome.uniform for outcome in run.outcomes])),
        "odometry_alone_m": float(np.hypot(*(run.odometry_m[-1] - run.outcomes[-1].true_m))),
        **_times([outcome.label_ms for outcome in run.outcomes], [outcome.localize_ms for outcome in run.outcomes]),
        "verdicts": dict(verdicts.most_common()), "reasons": dict(reasons.most_common()),
    }


def pooled_figures(runs: Sequence[FlightRun]) -> dict[str, Any]:
    """The same over all fixes of several flights, and the rates over flights; those over ground that mostly looks the
    same are left out under without_uniform. A flight that never converges counts as converging after all others."""
    each = [flight_figures(run) for run in runs]
    fixes = [outcome for run in runs for outcome in run.fixes]
    outcomes = [outcome for run in runs for outcome in run.outcomes]
    first = [f["seconds_to_first_fix"] for f in each if f["seconds_to_first_fix"] is not None]
    verdicts = sum((Counter(f["verdicts"]) for f in each), Counter())
    return {
        "damage": damage_of(runs), "frames_without_truth": sum(run.frames_without_truth for run in runs),
        **error_figures([outcome.distance_m for outcome in fixes]),
        "fixes": len(fixes), "frames": len(outcomes), "rejected": len(outcomes) - len(fixes),
        "seconds_to_first_fix": float(np.median(first)) if first else None,
        **_honesty([outcome.nees for outcome in fixes]),
        **_rates(each), "without_uniform": _rates([f for f in each if f["uniform_share"] <= 0.5]),
        **_times([outcome.label_ms for outcome in outcomes], [outcome.localize_ms for outcome in outcomes]),
        "verdicts": dict(verdicts.most_common()),
    }


def _rates(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of flights, by their figures."""
    return {
        "flights": len(each),
        "success_rate": float(np.mean([f["success"] for f in each])) if each else None,
        "false_lock_rate": float(np.mean([f["false_locks"] > 0 for f in each])) if each else None,
        "seconds_to_converge_50": converged([f["seconds_to_converge"] for f in each], 0.5),
        "seconds_to_converge_90": converged([f["seconds_to_converge"] for f in each], 0.9),
    }


def error_figures(errors_m: Sequence[float]) -> dict[str, float | None]:
    """median_m, p95_m, within_10m and within_25m; None where there is no error."""
    if not len(errors_m):
        return {"median_m": None, "p95_m": None, "within_10m": None, "within_25m": None}
    errors = np.asarray(errors_m, np.float64)
    return {"median_m": float(np.median(errors)), "p95_m": float(np.percentile(errors, 95)),
            "within_10m": float((errors <= 10.0).mean()), "within_25m": float((errors <= NEAR_M).mean())}


def _honesty(nees: Sequence[float]) -> dict[str, float | None]:
    if not len(nees):
        return {"nees": None, "ellipse95": None}
    return {"nees": float(np.mean(nees)), "ellipse95": float((np.asarray(nees) <= CHI2_95).mean())}


def _times(label_ms: Sequence[float], localize_ms: Sequence[float]) -> dict[str, float]:
    return {"median_ms": float(np.median(np.add(label_ms, localize_ms))), "label_ms": float(np.median(label_ms)),
            "localize_ms": float(np.median(localize_ms))}


def converged(seconds: Sequence[float | None], share: float) -> float | None:
    """The time after which so large a share of the flights has converged."""
    known = sorted(value for value in seconds if value is not None)
    needed = int(np.ceil(share * len(seconds)))
    return known[needed - 1] if 0 < needed <= len(known) else None


def _hashed(cells: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers of [0, 1) for each cell (N, 2): always the same, and like chance (splitmix64's finish)."""
    with np.errstate(over="ignore"):
        mixed = cells[:, 0].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += cells[:, 1].astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(32)) / 2.0**32, (mixed & np.uint64(0xFFFFFFFF)) / 2.0**32
