"""The shipped flight through nodes that `ros2 launch` has started, measured from outside; needs ros2 on the path."""

import json
import shutil
import signal
import sys

import pytest

from thermalreid_ros.files import shipped

RECORDING = shipped("config") / "recordings" / "krems_day"
MAP = shipped("config") / "maps" / "krems.tif"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ros2") is None, reason="ros2 comes with a ROS installation")
def test_a_launched_flight_finds_its_place_and_one_interrupt_ends_it(start_process, tmp_path):
    launched = start_process("ros2", "launch", "thermalreid_ros", "thermalreid.launch.py", "use_sim_time:=true",
                             f"map:={MAP}", "thermal_units:=agc8", "semantics:=map")
    code = "import sys; from thermalreid_ros.cli import main; sys.exit(main())"
    replay = start_process(sys.executable, "-c", code, "replay", RECORDING, "--map", MAP, "--running",
                           "--json", tmp_path / "figures.json")
    assert replay.wait(240.0) == 0, replay.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames_in"] == 120 and not figures["false_fixes"], figures
    assert launched.stop(signal.SIGINT, 60.0) == 0, launched.output
    assert launched.output.count("process has finished cleanly") == 4 and "Traceback" not in launched.output
    if figures["frames_detected"] < 100:
        pytest.skip(f"the machine was too busy for two frames a second: {figures['frames_dropped']}")
    assert figures["frames_with_semantics"] > 0 and figures["map50"] > 0.1, figures
    assert figures["fixes"] > 60 and figures["fix_median_m"] < 6.0, figures
