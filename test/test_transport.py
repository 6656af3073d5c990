"""Large frames between two processes."""

import re
import sys
from pathlib import Path

import pytest

PROCESSES = Path(__file__).parent / "processes"


def carry(start_process, start_node, frames: int) -> tuple[int, float, float]:
    """Frames that arrived, and the median and p99 of their age on arrival in ms."""
    sink = start_node(PROCESSES / "sink.py")
    camera = start_process(sys.executable, PROCESSES / "camera.py", frames)
    camera.wait_for_line(f"published {frames}", timeout_s=frames / 30 + 30)
    assert sink.stop() == 0, sink.output
    found = re.search(r"arrived (\d+) median_ms (\S+) p99_ms (\S+)", sink.output)
    assert found, sink.output
    return int(found[1]), float(found[2]), float(found[3])


@pytest.mark.parametrize("frames", [180, pytest.param(1800, marks=pytest.mark.slow)])
def test_no_frame_is_lost_with_the_shipped_profile(start_process, start_node, frames):
    arrived, median_ms, p99_ms = carry(start_process, start_node, frames)
    print(f"{arrived} of {frames} frames, median {median_ms} ms, p99 {p99_ms} ms")
    assert arrived == frames
    assert median_ms < 1000 / 30
