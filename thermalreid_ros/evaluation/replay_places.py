"""What a replay says of places: the fixes and the targets that came, against the recording's truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import LocalGrid, utm_zone

NEAR_M = 25.0
FALSE_M = 50.0
RIGHT_M = 10.0  # of a target from the object: another one is seldom as near
CHI2_95 = 5.991


@dataclass(frozen=True)
class PlaceRecord:
    """What `geo_localization` said of one frame. fix: latitude, longitude, WGS84 degrees; None where there was none.

    covariance_m2: (4,), east and north, row by row. said_s, fixed_s: when the status and the fix arrived, seconds of
    the recorder's clock.
    """

    verdict: str = ""
    reason: str = ""
    said_s: float | None = None
    fix: tuple[float, float] | None = None
    covariance_m2: tuple[float, ...] = ()
    fixed_s: float | None = None


@dataclass(frozen=True)
class TargetRecord:
    """What `reid` said of where the probe's object is, at the capture of one frame. place: latitude, longitude, WGS84
    degrees. covariance_m2: (4,), east and north, row by row."""

    track_id: int
    probability: float
    sights: int
    place: tuple[float, float]
    covariance_m2: tuple[float, ...]

    def off_m(self, true: tuple[float, float]) -> np.ndarray:
        """Metres east and north of the true place, on the ground, float64 (2,)."""
        grid = LocalGrid(utm_zone(*true), 0.0, 0.0)
        away = np.subtract(grid.from_geographic(*self.place), grid.from_geographic(*true))
        return grid.to_true(*map(float, grid.from_geographic(*true))) @ away

    def holds(self, true: tuple[float, float]) -> bool:
        """Whether the 95 % ellipse holds it."""
        off = self.off_m(true)
        return float(off @ np.linalg.solve(np.reshape(self.covariance_m2, (2, 2)), off)) <= CHI2_95


def target_figures(targets: Mapping[int, TargetRecord], truth: Mapping[int, tuple[float, float]],
                   reasons: dict[str, str]) -> dict[str, Any]:
    """The figures of target positions in the contract of `thermalreid replay --json`.

    truth: of the probe's object, by the stamps of the frames that show it. reasons: as in place_figures.

    targets: published. target_median_m: median error of those at frames that truly show the object, other objects taken
    for it included. target_right: share of all that are within 10 m of it. target_ellipse95: share of the 95 % ellipses
    that hold it, of those right.
    """
    errors = {stamp_ns: float(np.hypot(*target.off_m(truth[stamp_ns]))) for stamp_ns, target in targets.items()
              if stamp_ns in truth}
    right = [stamp_ns for stamp_ns, error in errors.items() if error <= RIGHT_M]
    if not targets:
        reasons["target_median_m"] = "no target was published"
    elif not errors:
        reasons["target_median_m"] = "none of the targets is of a frame that shows the object" if truth else \
            "the recording does not know where the object was"
    return {
        "targets": len(targets),
        "target_median_m": float(np.median(list(errors.values()))) if errors else None,
        "target_right": len(right) / len(targets) if targets and truth else None,
        "target_ellipse95": float(np.mean([targets[s].holds(truth[s]) for s in right])) if right else None,
    }


def errors_m(places: Mapping[int, PlaceRecord], truth: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """How far off each fix is, metres on the ground, by the stamp of its frame; of those whose truth is known."""
    stamps = [stamp_ns for stamp_ns, place in places.items() if place.fix is not None and stamp_ns in truth]
    if not stamps:
        return {}
    fixes, true = (np.array([of[stamp_ns] for stamp_ns in stamps]) for of in (
        {stamp_ns: places[stamp_ns].fix for stamp_ns in stamps}, truth))
    grid = LocalGrid(utm_zone(*true[0]), 0.0, 0.0)
    away = np.subtract(grid.from_geographic(*fixes.T), grid.from_geographic(*true.T))
    return dict(zip(stamps, np.hypot(*away).tolist()))


def place_figures(places: Mapping[int, PlaceRecord], arrived_s: Mapping[int, float],
                  truth: Mapping[int, tuple[float, float]], reasons: dict[str, str]) -> dict[str, Any]:
    """The figures of localization in the contract of `thermalreid replay --json`.

    arrived_s: of all frames that came, by their stamps, seconds of the recorder's clock. reasons: gets those of
    figures that cannot be had, which are None.

    fixes: published. rejected: frames of which the status says why there is no fix. fix_median_m, within_25m: median
    error and share within 25 m, of the fixes. false_fixes: how many are off by more than 50 m. seconds_to_first_fix:
    from the first frame's capture to that of the first frame with a fix. fix_latency_ms: from a frame's arrival to that
    of its fix. verdicts: frames by verdict.
    """
    fixed = sorted(stamp_ns for stamp_ns, place in places.items() if place.fix is not None)
    errors = list(errors_m(places, truth).values())
    if not fixed:
        reasons["fix_median_m"] = "no frame was localized"
    elif not errors:
        reasons["fix_median_m"] = "the recording does not know where the camera was"
    first_ns = min(arrived_s, default=0)
    latency = [1e3 * max(places[stamp_ns].fixed_s - arrived_s[stamp_ns], 0.0) for stamp_ns in fixed
               if stamp_ns in arrived_s]
    return {
        "fix_median_m": float(np.median(errors)) if errors else None,
        "within_25m": float(np.mean(np.array(errors) <= NEAR_M)) if errors else None,
        "false_fixes": int(np.sum(np.array(errors) > FALSE_M)) if errors else None,
        "fixes": len(fixed),
        "rejected": sum(place.said_s is not None and place.fix is None for place in places.values()),
        "seconds_to_first_fix": (fixed[0] - first_ns) / 1e9 if fixed else None,
        "fix_latency_ms": {"median": float(np.percentile(latency, 50)), "p99": float(np.percentile(latency, 99))}
        if latency else {"median": None, "p99": None},
        "verdicts": dict(Counter(place.verdict for place in places.values() if place.said_s is not None).most_common()),
    }
