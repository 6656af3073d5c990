"""Counters and levels, with time under the test's control."""

import time
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from thermalreid_ros.localization.types import LocalizationResult, Verdict
from thermalreid_ros.ros import diagnostics as module
from thermalreid_ros.ros import localization_output
from thermalreid_ros.ros.diagnostics import LOG_EVERY_S, WINDOW_S, Diagnostics
from thermalreid_ros.ros.localization_output import LocalizationOutput

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


@pytest.fixture
def diagnostics(graph, clock):
    diagnostics = Diagnostics(Node("camera_node", namespace="uav1", context=graph.node.context))
    diagnostics.state("active")
    diagnostics.watch("frames", "/uav1/thermal/image_raw", 3.0)
    yield diagnostics
    diagnostics._node.destroy_node()


def pass_frames(diagnostics, count=1):
    for _ in range(count):
        diagnostics.received("frames")
        diagnostics.processed("frames")


def told(diagnostics) -> dict:
    return {item.key: item.value for item in diagnostics.status().values}


def test_fine_as_long_as_frames_pass(diagnostics):
    pass_frames(diagnostics, 5)
    diagnostics.received("frames")
    diagnostics.superseded("frames")
    status = diagnostics.status()
    assert (status.level, status.message, status.name) == (OK, "active", "/uav1/camera_node")
    assert told(diagnostics)["frames_received"] == "6" and told(diagnostics)["frames_superseded"] == "1"


def test_time_at_work_adds_up(diagnostics):
    diagnostics.worked(0.5, 0.25, 0.125)
    diagnostics.worked(1.0, 0.0, 0.5)
    assert [told(diagnostics)[key] for key in ("busy_s", "in_models_s", "own_cpu_s")] == ["1.500", "0.250", "0.625"]


def test_a_lasting_fault_is_a_warning_until_it_is_over_or_its_input_gone(diagnostics):
    pass_frames(diagnostics)
    diagnostics.warning("lens", "a distorted lens")
    diagnostics.warning("altitude", "a roof below")
    assert (diagnostics.status().level, diagnostics.status().message) == (WARN, "a distorted lens; a roof below")
    diagnostics.warning("lens", "")
    assert diagnostics.status().message == "a roof below"
    diagnostics.refused("frames", "cut")
    assert "cut" in diagnostics.status().message  # what has just happened goes before
    diagnostics.unwatch()
    diagnostics.warning("altitude", "")
    diagnostics.warning("lens", "")
    assert "roof" not in diagnostics.status().message


def test_a_map_or_a_prior_that_does_not_fit_is_warned_of_after_ten_seconds(monkeypatch):
    said, clock = {}, SimpleNamespace(now_s=50.0)
    monkeypatch.setattr(localization_output, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    output = object.__new__(LocalizationOutput)
    output._node = SimpleNamespace(diagnostics=SimpleNamespace(warning=said.__setitem__, note=lambda *_: None))
    output._wrong_since_s = None
    for verdict, second, warns in ((Verdict.OFF_MAP, 0, False), (Verdict.INCONSISTENT, 9, False),
                                   (Verdict.OFF_MAP, 11, True), (Verdict.LOCALIZED, 12, False),
                                   (Verdict.OFF_MAP, 13, False), (Verdict.OFF_MAP, 24, True)):
        clock.now_s = 50.0 + second
        output._warn_of(LocalizationResult(1, verdict, "why"))
        assert bool(said["verdict"]) == warns, second
    assert said["verdict"] == "off_map for 11 s: why"
    output.silent()
    output._warn_of(LocalizationResult(1, Verdict.OFF_MAP, "why"))
    assert said["verdict"] == ""


def test_silence_is_a_warning_that_names_topic_and_publishers(diagnostics, clock):
    pass_frames(diagnostics)
    clock.now_s += 2.9
    assert diagnostics.status().level == OK
    clock.now_s += 0.2
    status = diagnostics.status()
    assert (status.level, status.message) == (WARN, "no frames on /uav1/thermal/image_raw for 3 s (0 publishers)")
    pass_frames(diagnostics)
    assert diagnostics.status().level == OK
    diagnostics.unwatch()
    clock.now_s += 100
    assert diagnostics.status().level == OK


def test_a_refusal_warns_for_a_while_and_is_remembered(diagnostics, clock):
    pass_frames(diagnostics)
    diagnostics.refused("frames", "image data is truncated")
    pass_frames(diagnostics)
    status = diagnostics.status()
    assert (status.level, status.message) == (WARN, "/uav1/thermal/image_raw: image data is truncated")
    clock.now_s += WINDOW_S + 0.1
    pass_frames(diagnostics)
    assert diagnostics.status().level == OK
    assert told(diagnostics)["last_refusal"] == "/uav1/thermal/image_raw: image data is truncated"
    assert told(diagnostics)["last_refusal_s"] == "5.1" and told(diagnostics)["frames_refused"] == "1"


def test_nothing_but_refusals_is_an_error(diagnostics, clock):
    for _ in range(3):
        diagnostics.received("frames")
        diagnostics.refused("frames", "units are probably wrong")
    status = diagnostics.status()
    assert status.level == ERROR and status.message.startswith("none of the last frames could be processed: ")
    pass_frames(diagnostics)
    assert diagnostics.status().level == WARN


def test_a_message_that_takes_longer_than_the_window_is_an_error_while_others_come(diagnostics, clock):
    for seconds, received, level in ((0.0, True, OK), (4.9, True, OK), (0.2, False, ERROR), (5.0, False, WARN),
                                     (7.0, True, ERROR)):
        clock.now_s += seconds
        if received:
            diagnostics.received("frames")
        if not seconds:
            diagnostics.works()
        assert diagnostics.status().level == level, clock.now_s
    assert diagnostics.status().message == "busy with one message for 17 s"
    diagnostics.worked(17.1, 0.0, 0.0)
    assert diagnostics.status().level == OK


def test_an_error_tells_the_reason_of_its_own_input(diagnostics):
    diagnostics.refused("frames", "units are probably wrong")
    diagnostics.processed("masks")
    diagnostics.refused("masks", "came without the frame of its stamp")
    assert diagnostics.status().message == \
        "none of the last frames could be processed: /uav1/thermal/image_raw: units are probably wrong"


def test_a_failed_transition_is_an_error_until_one_succeeds(diagnostics):
    diagnostics.state("unconfigured", "configuring failed: model.onnx is missing")
    status = diagnostics.status()
    assert (status.level, status.message) == (ERROR, "configuring failed: model.onnx is missing")
    diagnostics.state("inactive")
    assert diagnostics.status().level == OK


def test_samples_notes_and_published_messages(diagnostics, graph):
    statuses = graph.diagnostics()
    for value in range(1000):
        diagnostics.sample("inference_ms", value)
    diagnostics.note("provider", "cpu")
    assert told(diagnostics)["inference_ms_median"] == "871.50"  # of the last 256: 744 to 999
    assert told(diagnostics)["inference_ms_p99"] == "996.45"
    end_s = time.monotonic() + 10
    while not statuses and time.monotonic() < end_s:
        diagnostics.publish()
        time.sleep(0.1)
    assert statuses[0].data["provider"] == "cpu" and statuses[0].name == "/uav1/camera_node"


def test_alike_refusals_are_logged_once_in_a_while(diagnostics, clock, monkeypatch):
    lines = []
    logger = SimpleNamespace(warning=lines.append, error=lines.append)
    monkeypatch.setattr(diagnostics._node, "get_logger", lambda: logger)
    for size in range(50):
        diagnostics.refused("frames", f"image data is truncated: {size} bytes of 640")
        diagnostics.refused("frames", "unexpected IndexError", "failed")
    assert len(lines) == 2
    clock.now_s += LOG_EVERY_S
    diagnostics.refused("frames", "image data is truncated: 7 bytes of 640")
    assert len(lines) == 3
