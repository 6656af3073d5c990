"""What sensors said, read between their readings; odometry that notices where it does not go on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.localization.history import HeightGate, History, Odometry

SECOND = 1_000_000_000


def odometry(rate_hz=20.0, seconds=3.0, speed=10.0):
    made = Odometry(0.3, 20.0, speed_limit_m_s=80.0, jump_m=8.0, gap_s=1.0)
    for k in range(round(seconds * rate_hz) + 1):
        made.add(round(k / rate_hz * SECOND), np.array([speed * k / rate_hz, 0.0, 50.0]))
    return made


def test_values_are_read_between_their_neighbours_or_near_one_and_nowhere_else():
    history = History("x", age_s=0.3, keep_s=20.0)
    for k in (2, 0, 1):
        history.add(k * SECOND // 2, np.array([float(k)]))
    assert history.at(SECOND // 4) == pytest.approx(0.5) and history.at(SECOND) == 2.0
    assert history.at(int(1.2 * SECOND)) == 2.0 and history.at(int(1.4 * SECOND)) is None
    assert history.first[0] == 0 and history.newest_ns == SECOND


@settings(max_examples=40, deadline=None)
@given(x=st.floats(-500, 500), y=st.floats(-500, 500), speed=st.floats(0.0, 25.0))
def test_a_jump_is_told_once_and_places_go_on_across_it(x, y, speed):
    made, away = odometry(speed=speed), np.array([x, y, 3.0])
    for k in range(1, 10):
        made.add(3 * SECOND + k * SECOND // 20, np.array([speed * (3.0 + k / 20), 0.0, 50.0]) + away)
    way = np.hypot(speed / 20 + x, y)
    jumped, silent = made.broken(4 * SECOND)
    assert jumped == (way > 8.0) and not silent and made.broken(4 * SECOND) == (False, False)
    assert made.jumped_since(3 * SECOND) == jumped
    place = made.at(3 * SECOND + 9 * SECOND // 20)
    assert np.hypot(*(place - (speed * 3.45, 0.0, 0.0))[:2]) <= (speed / 20 + 1e-9 if jumped else np.hypot(x, y) + 1e-9)
    made.add(2 * SECOND + 1, np.array([1e4, 0.0, 0.0]))  # late
    assert made.at(2 * SECOND + 1)[0] == pytest.approx(2 * speed if jumped else 1e4, abs=1e-6)


@pytest.mark.parametrize("silent_s, way_m, expected", [
    (0.5, 8.0, (False, False)), (0.9, 15.0, (False, False)), (0.9, 20.0, (True, False)),
    (2.0, 20.0, (False, True)), (2.0, 35.0, (False, True)), (2.0, 40.0, (True, False)), (30.0, 400.0, (False, True)),
    (30.0, 600.0, (True, False))])
def test_after_silence_it_may_have_begun_anew_or_has_where_no_vehicle_flies_so_fast(silent_s, way_m, expected):
    made = odometry()
    made.add(3 * SECOND + round(silent_s * SECOND), np.array([30.0 + way_m, 0.0, 50.0]))
    assert made.broken(3 * SECOND + round((silent_s - 0.31) * SECOND)) == (False, False)
    assert made.broken(60 * SECOND) == expected


def test_a_reading_that_is_forgotten_leaves_nothing_behind():
    made = odometry()
    made.add(3600 * SECOND, np.array([1e6, 0.0, 0.0]))
    made.forget_after(4 * SECOND)
    made.add(3 * SECOND + SECOND // 20, np.array([30.5, 0.0, 50.0]))
    assert made.broken(3600 * SECOND) == (False, False) and not made.offset_m.any()
    assert made.at(3 * SECOND + SECOND // 20)[0] == pytest.approx(30.5)


def test_climbs_are_believed_and_steps_of_the_ground_wait():
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    for k in range(60):  # 3 m/s up, as the odometry says, over ground that rises by 5 %
        height, climb = 60.0 + 3.0 * k - 0.5 * k, 3.0 * k
        assert gate.height_m(k * SECOND, height, climb) == height and not gate.fault
    assert gate.height_m(60 * SECOND, 100.0, 180.0) == pytest.approx(60.0 + 2.5 * 59 + 3.0) and "a roof" in gate.fault
    assert gate.height_m(61 * SECOND, 60.0 + 2.5 * 61, 183.0) == 60.0 + 2.5 * 61 and not gate.fault


def test_a_wide_roof_is_believed_after_a_while_and_its_end_at_once():
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    heights = [100.0] * 20 + [70.0] * 30 + [100.0] * 20
    believed = [gate.height_m(k * SECOND, height, 0.0) for k, height in enumerate(heights)]
    assert believed == [100.0] * 30 + [70.0] * 20 + [100.0] * 20


def test_after_a_wide_roof_the_next_one_waits_as_well():
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    heights = [100.0] * 20 + [85.0] * 15 + [100.0] * 10 + [85.0] * 4 + [100.0] * 5
    believed = [gate.height_m(k * SECOND, height, 0.0) for k, height in enumerate(heights)]
    assert believed == [100.0] * 30 + [85.0] * 5 + [100.0] * 19


@pytest.mark.parametrize("speed_m_s, told", [(-12.0, True), (4.5, False), (12.0, True)])
def test_fast_climbs_and_slow_altimeters_are_believed(speed_m_s, told):
    """1 Hz; an odometry that does not know heights says 0."""
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    heights = [200.0 + speed_m_s * k for k in range(12)]
    assert [gate.height_m(k * SECOND, height, speed_m_s * k if told else 0.0) for k, height in enumerate(heights)] == \
        heights


def test_an_odometry_whose_height_is_set_anew_moves_no_height():
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    for k in range(40):  # at 10 Hz; autopilots set the origin of their heights anew in flight
        assert gate.height_m(k * SECOND // 10, 90.0, 90.0 if k < 20 else 0.0) == 90.0 and not gate.fault
    assert gate.height_m(4 * SECOND, 60.0, -40.0) == 90.0 and gate.fault  # and a roof at that very moment
    assert gate.height_m(4 * SECOND + SECOND // 10, 90.5, -39.5) == 90.5 and not gate.fault


@pytest.mark.parametrize("climb", [None, 0.0])
def test_after_a_silence_and_at_another_time_the_height_is_what_is_said(climb):
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    assert gate.height_m(100 * SECOND, 100.0, climb) == 100.0
    assert gate.height_m(111 * SECOND, 40.0, climb) == 40.0
    assert gate.height_m(50 * SECOND, 80.0, climb) == 80.0  # a recording that starts over
    assert gate.height_m(51 * SECOND, 40.0, climb) == 80.0


def test_without_odometry_a_vehicle_may_climb():
    gate = HeightGate(10.0, 5.0, 0.08, 5.0)
    assert [gate.height_m(k * SECOND, 100.0 + 4.0 * k, None) for k in range(50)] == [100.0 + 4.0 * k for k in range(50)]
    gate.height_m(50 * SECOND, 240.0, None)
    assert gate.fault


@given(st.lists(st.tuples(st.integers(1, 3 * SECOND), st.floats(1.0, 500.0), st.none() | st.floats(-300.0, 300.0)),
                max_size=40))
def test_whatever_is_said_a_height_is_positive_and_not_held_for_longer_than_told(readings):
    gate, stamp_ns, since_ns = HeightGate(10.0, 5.0, 0.08, 5.0), 0, None
    for step_ns, height_m, climb_m in readings:
        stamp_ns += step_ns
        believed_m = gate.height_m(stamp_ns, height_m, climb_m)
        assert believed_m > 0.0
        if gate.fault:
            since_ns = stamp_ns if since_ns is None else since_ns
            assert stamp_ns - since_ns < 10 * SECOND
        else:
            assert believed_m == height_m
            since_ns = None
