"""Simulated flights: labels as a camera would see them, wrong where the world is, and the figures made of them."""

from dataclasses import replace

import numpy as np
import pytest
from small_town import MAP, small_town

from thermalreid_ros.evaluation.localization_simulation import (Conditions, FlightOutcome, SimulatedWorld, figures, fly,
                                                                outcome, summary)
from thermalreid_ros.localization.ground import ground_offsets
from thermalreid_ros.localization.localizer import Localizer
from thermalreid_ros.localization.types import LocalizationResult, PositionFix, Verdict
from thermalreid_ros.maps.store import SemanticMap

FLAWLESS = Conditions(label_error=0.0, boundary_px=0.0, duration_s=6.0, rate_hz=1.0)


@pytest.fixture(scope="module")
def world():
    with SemanticMap.open(MAP) as semantic_map:
        return SimulatedWorld(small_town(), semantic_map.grid)


def test_labels_are_of_what_is_in_view(world):
    flight = world.flight(3, FLAWLESS)
    assert flight.labels.shape == (6, 64, 80) and flight.labels.dtype == np.uint8
    u, v = np.meshgrid(np.arange(80) * 8 + 4.0, np.arange(64) * 8 + 4.0)
    plan, agree = world.city.plan, []
    for k in range(6):
        height = float(np.interp(flight.stamps_ns[k], flight.altitude_ns, flight.altitude_m))
        rotation = flight.attitude[np.searchsorted(flight.attitude_ns, flight.stamps_ns[k])]
        offsets = ground_offsets(flight.intrinsics, rotation, height, np.column_stack([u.ravel(), v.ravel()]))
        places = offsets + flight.truth_m[k, :2] - world.offset_m
        agree.append(np.mean(plan.semantic[plan.cells(*places.T)] == flight.labels[k].ravel()))
    # Trees, leaning houses and the sensors' errors take the rest.
    assert np.mean(agree) > 0.6


def test_flights_follow_from_the_seed_and_wrong_labels_from_the_conditions(world):
    conditions = replace(FLAWLESS, label_error=0.3)
    a, b = world.flight(3, conditions), world.flight(3, conditions)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.odometry_m, b.odometry_m)
    right = world.flight(3, FLAWLESS)
    seen = right.labels < 5
    assert np.mean(a.labels[seen] != right.labels[seen]) == pytest.approx(0.3, abs=0.12)
    assert (a.prior_m != world.flight(4, conditions).prior_m).all()


def test_the_sensors_err_as_they_should(world):
    flight = world.flight(5, replace(FLAWLESS, duration_s=20.0))
    steps = np.diff(np.column_stack([np.interp(flight.stamps_ns, flight.odometry_ns, flight.odometry_m[:, k])
                                     for k in range(2)]), axis=0)
    true = np.diff(flight.truth_m[:, :2], axis=0)
    assert np.abs(np.hypot(*steps.T) / np.hypot(*true.T) - 1).max() < 0.08
    assert 0 < np.abs(flight.truth_yaw_error_rad).max() < np.radians(8)
    assert np.hypot(*(flight.prior_m - flight.truth_m[0, :2])) < 5 * 300.0


def test_a_flight_is_played_to_the_localizer(world):
    with SemanticMap.open(MAP) as semantic_map:
        flight = world.flight(3, FLAWLESS)
        results = fly(Localizer(semantic_map), flight)
    assert [r.stamp_ns for r in results] == list(flight.stamps_ns)
    assert {r.verdict for r in results} <= {Verdict.SEARCHING, Verdict.AMBIGUOUS, Verdict.LOCALIZED, Verdict.UNIFORM}
    assert outcome(flight, results).frames == 6


def test_outcomes_compare_fixes_with_the_truth(world):
    flight = world.flight(3, FLAWLESS)
    rotations = dict(zip(flight.attitude_ns.tolist(), flight.attitude))
    results = []
    for k, stamp in enumerate(flight.stamps_ns.tolist()):
        x, y = flight.truth_m[k, :2] + (3.0, 4.0)
        fix = PositionFix(stamp, 0.0, 0.0, x, y, 25.0 * np.eye(2), rotations[stamp], 90.0, 0.01)
        results.append(LocalizationResult(stamp, Verdict.LOCALIZED, "", fix) if k >= 2 else
                       LocalizationResult(stamp, Verdict.SEARCHING, "too little"))
    found = outcome(flight, results)
    np.testing.assert_allclose(found.errors_m, 5.0)
    assert (found.first_fix_s, found.converged_s, found.inside) == (2.0, 2.0, 1.0)
    assert (found.false_lock, found.success) == (False, True)
    assert found.nees == pytest.approx(1.0)
    assert found.verdicts == {"searching": 2, "localized": 4}
    np.testing.assert_allclose(found.yaw_errors_deg, np.degrees(flight.truth_yaw_error_rad[2:]), atol=0.05)


def made_up(errors, first, uniform=0.0):
    near = first if min(errors, default=99.0) <= 25.0 else None
    return FlightOutcome("f", 10, np.array(errors, float), first, near, 1.0 if errors else np.nan,
                         2.0 if errors else np.nan, uniform, np.zeros(len(errors)))


@pytest.mark.parametrize("errors, near, success", [([30.0, 5.0], 1.0, True), ([5.0, 30.0], 0.0, False),
                                                   ([40.0, 45.0], None, False), ([5.0, 60.0, 5.0], 0.0, False)])
def test_a_place_is_got_and_kept_as_in_recorded_flights(world, errors, near, success):
    """A fix within 25 m, the last one, too, and none that is 50 m wrong; at frames between two readings of attitude."""
    flight = world.flight(3, replace(FLAWLESS, rate_hz=1.0))
    flight = replace(flight, stamps_ns=flight.stamps_ns + 13_000_000)
    results = [LocalizationResult(stamp, Verdict.LOCALIZED, "", PositionFix(
        stamp, 0.0, 0.0, flight.truth_m[k, 0] + error, flight.truth_m[k, 1], 25.0 * np.eye(2), np.eye(3), 90.0, 0.01))
        for k, (stamp, error) in enumerate(zip(flight.stamps_ns.tolist(), errors))]
    found = outcome(flight, results)
    assert (found.first_fix_s, found.converged_s, found.success) == (0.0, near, success)


def test_figures_count_flights_and_set_uniform_ground_apart():
    flights = [made_up([3.0, 5.0], 20.0), made_up([4.0, 60.0], 30.0), made_up([], None), made_up([2.0], 10.0),
               made_up([], None, uniform=0.8)]
    result = figures(flights)
    varied = result["varied"]
    assert (varied["flights"], varied["false_locks"], varied["success"]) == (4, 1, 0.5)
    assert (varied["seconds_50"], varied["seconds_90"]) == (20.0, None)
    assert varied["median_m"] == 4.0 and varied["fix_share"] == pytest.approx(5 / 40)
    assert result["uniform"]["flights"] == 1 and result["uniform"]["median_m"] is None
    assert summary(flights[:1])["seconds_90"] == 20.0
    assert figures(flights[4:])["varied"]["success"] is None  # all over uniform ground
