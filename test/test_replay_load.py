"""What a replay asks of the machine, and recordings that are played over and over."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.evaluation.recording import Truth
from thermalreid_ros.evaluation.replay_load import (
    MemoryWatch, memory_figures, node_figures, percentiles, resident_mb)
from thermalreid_ros.evaluation.replay_passes import Passes, repeated

SECOND = 1_000_000_000


def test_memory_is_that_of_the_process_and_a_process_that_has_gone_has_none():
    watch = MemoryWatch()
    for now_s in (100.0, 100.4, 101.0, 102.5):
        watch.look(now_s, {"here": os.getpid(), "gone": 2**22 + 1})
    assert list(watch.samples) == ["here"]
    assert [since_s for since_s, _ in watch.samples["here"]] == [0.0, 1.0, 2.5]
    # A process of its own: this one may hold what earlier tests freed.
    other = subprocess.Popen([sys.executable, "-uc", "print(); input(); held = b'x' * 40_000_000; print(); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    before_mb = resident_mb(other.pid)
    other.stdin.write(b"\n")
    other.stdin.flush()
    other.stdout.readline()
    assert resident_mb(other.pid) - before_mb == pytest.approx(40.0, abs=4.0)
    other.communicate(b"\n", timeout=10)


def test_growth_is_from_the_first_minute_to_the_end():
    leaking = [(float(s), 100.0 + s if s < 60 else 160.0 + 0.1 * (s - 60)) for s in range(601)]
    short = [(float(s), 50.0) for s in range(70)]
    figures = memory_figures({"leaking": leaking, "short": short})
    assert figures["leaking"] == pytest.approx(
        {"start": 100.0, "minute": 160.45, "end": 213.5, "most": 214.0, "growth": 213.5 / 160.45 - 1.0})
    assert figures["short"] == {"start": 50.0, "minute": None, "end": 50.0, "most": None, "growth": None}


def test_time_of_a_node_is_shared_among_the_frames_that_it_worked_on():
    figures = node_figures({
        "detection": {"busy_s": "3.0", "in_models_s": "2.0", "own_cpu_s": "0.4", "frames_processed": "20"},
        "reid": {"busy_s": "0.4", "in_models_s": "0.1", "own_cpu_s": "0.2", "frames_processed": "40",
                 "detections_processed": "20"},
        "probe_synthesis": {"busy_s": "1.5", "in_models_s": "0.5", "own_cpu_s": "0.5"},
        "of an older version": {}}, frames_in=50)
    assert figures == {
        name: pytest.approx({"in_models_ms": models, "overhead_ms": rest, "own_cpu_ms": own})
        for name, models, rest, own in (("detection", 100.0, 50.0, 20.0), ("reid", 5.0, 15.0, 10.0),
                                        ("probe_synthesis", 10.0, 20.0, 10.0))}
    assert percentiles([]) == {"median": None, "p99": None}
    assert percentiles([1.0, 2.0, 3.0]) == pytest.approx({"median": 2.0, "p99": 2.98})


@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 3))
def test_stamps_of_passes_go_on_and_results_belong_to_their_frames(frames, loops, delay):
    """Results come some frames after theirs, across the end of a pass, too."""
    delay = min(delay, frames - 2)
    passes, period_ns = Passes(1000 * SECOND), 1000 * SECOND
    stamps = [SECOND * (5 + n) for n in range(frames)]
    due, expected, got = [], [], []
    for k in range(loops):
        for stamp_ns in stamps:
            assert passes.of_frame(stamp_ns) == stamp_ns + k * period_ns
            assert passes.count == k + 1
            due.append((stamp_ns, stamp_ns + k * period_ns))
            if len(due) > delay:
                stamp, true = due.pop(0)
                got.append(passes.of_result(stamp))
                expected.append(true)
    assert got == expected == sorted(got)


def test_a_recording_that_is_played_once_keeps_its_stamps():
    passes = Passes(0)
    assert [passes.of_frame(stamp) for stamp in (5, 7, 6)] == [5, 7, 6] and passes.count == 1
    assert passes.of_result(9) == 9


def test_truth_of_each_pass():
    box = Detection(1, 1.0, 0.0, 0.0, 4.0, 4.0)
    truth = repeated(Truth({1: (box,)}, {2: ()}, {1: box}, {1: (48.0, 16.0)}, {2: (48.0, 16.1)}), 3, 10)
    assert truth.objects == {stamp: (box,) for stamp in (1, 11, 21)} and list(truth.ignored) == [2, 12, 22]
    assert truth.target == dict.fromkeys((1, 11, 21), box)
    assert truth.places[21] == (48.0, 16.0) and truth.target_places[12] == (48.0, 16.1)
