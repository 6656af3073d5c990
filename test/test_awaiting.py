"""Frames and labellings that come in time, late, in other order, or not at all; seconds are the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.detection.awaiting import PATIENCE, AwaitedLabels, LateLabelling


def detected(awaited, now_s):
    job = awaited.next(now_s)
    return None if job is None else (job.frame, job.labels)


def test_a_frame_waits_for_its_labelling_and_no_longer_than_stated():
    awaited = AwaitedLabels(0.3)
    awaited.add_frame(1, "f1", 10.0)
    assert detected(awaited, 10.1) is None and awaited.due_s == pytest.approx(10.3)
    awaited.add_labels(1, "l1", 10.2)
    job = awaited.next(10.2)
    assert (job.frame, job.labels) == ("f1", "l1") and job.waited_s == pytest.approx(0.2)
    awaited.add_frame(2, "f2", 11.0)
    assert detected(awaited, 11.29) is None
    assert detected(awaited, 11.3) == ("f2", None)
    assert awaited.due_s is None and awaited.superseded == awaited.strays == 0


def test_a_labelling_that_came_first_is_kept_for_its_frame():
    awaited = AwaitedLabels(0.3)
    awaited.add_labels(1, "l1", 9.9)
    awaited.add_frame(1, "f1", 10.0)
    assert detected(awaited, 10.0) == ("f1", "l1")


def test_where_labellings_come_slower_than_frames_their_frames_are_chosen_and_the_rest_is_dropped():
    """10 Hz, a labelling every 0.2 s, 0.15 s late: each labelled frame is detected, as soon as it can be."""
    awaited, found = AwaitedLabels(0.3), []
    for tick in range(100):  # 10 ms
        now_s = 0.01 * tick
        if tick % 10 == 0:
            awaited.add_frame(tick, f"f{tick}", now_s)
        if tick >= 15 and (tick - 15) % 20 == 0:
            awaited.add_labels(tick - 15, f"l{tick - 15}", now_s)
        if (job := awaited.next(now_s)) is not None:
            found.append((job.frame, job.labels, tick))
    assert found == [(f"f{k}", f"l{k}", k + 15) for k in range(0, 81, 20)]
    assert awaited.superseded == 4  # 10, 30, 50, 70; 90 still waits


def test_of_several_that_are_ready_the_newest_is_next():
    awaited = AwaitedLabels(0.3)
    for stamp in range(1, 5):
        awaited.add_frame(stamp, f"f{stamp}", 0.01 * stamp)
    awaited.add_labels(1, "l1", 0.1)
    awaited.add_labels(3, "l3", 0.1)
    assert detected(awaited, 0.1) == ("f3", "l3") and awaited.superseded == 2 and awaited.strays == 0
    assert detected(awaited, 0.4) == ("f4", None)


def test_a_dead_source_is_not_waited_for_until_it_is_back():
    awaited, delays = AwaitedLabels(0.3), []
    for stamp in range(1, 6):
        awaited.add_frame(stamp, "f", float(stamp))
        delays.append(awaited.due_s - stamp)
        assert detected(awaited, awaited.due_s) == ("f", None)
    assert delays == pytest.approx([0.3] * PATIENCE + [0.0] * (5 - PATIENCE))
    with pytest.raises(LateLabelling, match="0.40 s after its frame"):
        awaited.add_labels(4, "l", 4.4)  # later than is waited for: no reason to wait again
    awaited.add_frame(6, "f", 6.0)
    assert awaited.due_s == 6.0 and detected(awaited, 6.0) == ("f", None)
    awaited.add_labels(6, "l", 6.1)  # its frame is gone, but the source is alive
    awaited.add_frame(7, "f", 7.0)
    assert awaited.due_s == pytest.approx(7.3)


@pytest.mark.parametrize("every, delay_s", [(6, 0.2), (6, 0.22), (9, 0.18), (12, 0.2), (12, 0.28)])
def test_of_a_fast_camera_the_frames_that_are_labelled_are_the_ones_detected_with_it(every, delay_s):
    """60 Hz, every sixth, ninth or twelfth frame is labelled."""
    awaited, found, told = AwaitedLabels(0.3), 0, 0
    late = round(delay_s * 60)
    for number in range(1200):
        now_s = number / 60
        awaited.add_frame(number, "f", now_s)
        if number >= late and (number - late) % every == 0:
            told += 1
            try:
                awaited.add_labels(number - late, "l", now_s + 0.001)
            except LateLabelling:
                pass
        job = awaited.next(now_s + 0.001)
        found += job is not None and job.labels is not None
    assert found >= 0.95 * told


@pytest.mark.parametrize("rate_hz, wait_s", [(60, 0.3), (50, 0.33), (30, 0.6), (9, 2.0), (200, 2.0)])
def test_however_fast_the_camera_a_dead_source_costs_three_waits_and_no_more(rate_hz, wait_s):
    awaited, found = AwaitedLabels(wait_s), []
    for number in range(20 * rate_hz):
        now_s = number / rate_hz
        awaited.add_frame(number, "f", now_s)
        if (job := awaited.next(now_s)) is not None:
            found.append(job)
    assert len(found) > 20 * rate_hz - PATIENCE * (wait_s * rate_hz + 2)
    assert all(job.labels is None for job in found)
    assert sum(job.waited_s > 0 for job in found) == PATIENCE and max(job.waited_s for job in found) < wait_s + 0.2


def test_where_more_frames_wait_than_are_kept_labellings_still_find_theirs():
    """60 Hz, each labelling 0.28 s late: 17 frames wait, of which 16 are kept."""
    awaited, found = AwaitedLabels(0.3, capacity=16), 0
    for number in range(1200):
        now_s = number / 60
        awaited.add_frame(number, "f", now_s)
        if number >= 17:
            try:
                awaited.add_labels(number - 17, "l", now_s)
            except LateLabelling:
                pass
        job = awaited.next(now_s)
        found += job is not None and job.labels is not None
    assert found > 600


def test_labellings_whose_stamps_fit_no_frame_do_not_keep_frames_waiting():
    awaited, waited = AwaitedLabels(0.3), []
    for number in range(100):
        now_s = 0.1 * number
        awaited.add_frame(1000 * number, "f", now_s)
        awaited.add_labels(1000 * number + 1, "l", now_s)  # a bridge that rounds
        while (job := awaited.next(now_s)) is not None:
            waited.append(job.waited_s)
    assert len(waited) > 90 and sum(wait_s > 0 for wait_s in waited) == PATIENCE


def test_labellings_of_another_camera_are_given_up_and_counted():
    awaited = AwaitedLabels(0.0)
    for stamp in range(10, 100, 10):
        awaited.add_labels(stamp + 1, "l", stamp)
        awaited.add_frame(stamp, "f", stamp)
        assert detected(awaited, stamp) == ("f", None)
    assert awaited.strays == 8  # the last may still be early


def test_a_recording_that_starts_over_begins_anew():
    awaited = AwaitedLabels(0.3)
    awaited.add_frame(1000, "old", 0.0)
    awaited.add_labels(1001, "old", 0.0)
    awaited.add_frame(1, "new", 0.1)
    awaited.add_labels(1, "new", 0.2)
    assert detected(awaited, 0.2) == ("new", "new")
    assert detected(awaited, 9.0) is None


@given(st.lists(st.tuples(st.sampled_from("flw"), st.integers(1, 60), st.floats(0, 0.2)), max_size=80))
def test_whatever_comes_work_goes_forward_every_frame_is_accounted_for_and_little_is_kept(events):
    awaited, now_s, stamp, done, frames = AwaitedLabels(0.3, capacity=4), 0.0, 0, [], 0
    for kind, number, pause_s in events:
        now_s += pause_s
        if kind == "f":
            stamp += 1
            frames += 1
            awaited.add_frame(stamp, stamp, now_s)
        elif kind == "l":
            try:
                awaited.add_labels(number, number, now_s)
            except LateLabelling:
                assert number <= stamp
        elif (job := awaited.next(now_s)) is not None:
            assert job.labels in (None, job.stamp_ns)
            done.append(job.stamp_ns)
        assert len(awaited._frames) <= 4 and len(awaited._labels) <= 4
    assert done == sorted(set(done))
    assert len(done) + awaited.superseded + len(awaited._frames) == frames
