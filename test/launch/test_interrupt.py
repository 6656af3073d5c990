"""`ros2 launch` at a terminal; needs ros2 on the path."""

import os
import shutil
import signal

import pytest
from conftest import wait_until

from thermalreid_ros.files import shipped
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.ros import qos

RECORDING = shipped("config") / "recordings" / "hit_uav_night"
END_WITHIN_S = 60.0  # 5 s are launch's default, after which it asks harder; a busy machine needs longer
needs_ros2 = pytest.mark.skipif(shutil.which("ros2") is None, reason="ros2 comes with a ROS installation")


@needs_ros2
@pytest.mark.parametrize("to_all", (True, False), ids=("from the terminal", "to ros2 launch alone"))
def test_one_interrupt_ends_all(graph, start_process, to_all):
    detections = graph.collect(DetectionArray, "/detections", qos.RESULTS)
    launched = start_process("ros2", "launch", "thermalreid_ros", "replay.launch.py", f"bag:={RECORDING}",
                             "loop:=true", f"sigterm_timeout:={END_WITHIN_S:.0f}")
    wait_until(lambda: len(detections) >= 3 or launched.process.poll() is not None, 60, "detections")
    (os.killpg if to_all else os.kill)(launched.process.pid, signal.SIGINT)
    assert launched.wait(END_WITHIN_S) == 0, launched.output
    assert launched.output.count("process has finished cleanly") == 4, launched.output
    assert "escalating" not in launched.output and "Traceback" not in launched.output


@needs_ros2
def test_a_recording_that_is_absent_ends_all_with_one_fatal_line(start_process):
    launched = start_process("ros2", "launch", "thermalreid_ros", "replay.launch.py", "bag:=/absent")
    launched.wait(60)
    fatal = [line for line in launched.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and "/absent" in fatal[0], launched.output
    assert "Traceback" not in launched.output


@needs_ros2
def test_a_wrong_argument_is_named(start_process):
    launched = start_process("ros2", "launch", "thermalreid_ros", "thermalreid.launch.py", "autostart:=maybe")
    assert launched.wait(60) != 0
    assert 'Argument "autostart" provided value "maybe" is not valid' in launched.output
