"""The base of the nodes, on the live graph."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, Imu
from std_msgs.msg import Header, String

from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image, ns_to_stamp
from thermalreid_ros.ros.lifecycle import StampGate, _Input

SAMPLE = Path(__file__).parent / "processes" / "sample_node.py"
NS_PER_MS = 1_000_000
UNDISTURBED_S = 0.15  # long enough for a frame to be worked on before the next one supersedes it


class Camera:
    """Publishes frames from the test."""

    def __init__(self, graph):
        self.graph = graph
        self.publisher = graph.publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)

    def send(self, stamp_ns: int | None = None, columns: int = 64, **fields):
        stamp_ns = self.graph.node.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns
        message = array_to_image(np.zeros((48, columns), np.uint8), "mono8", Header(stamp=ns_to_stamp(stamp_ns)))
        for name, value in fields.items():
            setattr(message, name, value)
        self.publisher.publish(message)


def state_of(graph) -> str:
    return graph.call(GetState, "/sample/get_state", GetState.Request()).current_state.label


def change(graph, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return graph.call(ChangeState, "/sample/change_state", request).success


def set_parameter(graph, name: str, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return graph.call(SetParameters, "/sample/set_parameters", request).results[0]


def test_starts_itself_and_works(graph, start_node):
    results = graph.collect(Header, "results", qos.RESULTS)
    node = start_node(SAMPLE)
    camera = Camera(graph)
    graph.wait_for_publisher("results")
    assert state_of(graph) == "active"
    for count in range(1, 11):
        camera.send()
        wait_until(lambda: len(results) == count, 5, f"result {count}")
    assert node.stop(signal.SIGINT) == 0
    assert "Traceback" not in node.output and "released" in node.output


def test_sigterm_and_a_second_interrupt_end_it_cleanly(graph, start_node):
    node = start_node(SAMPLE)
    graph.wait_for_publisher("results")
    assert node.stop(signal.SIGTERM) == 0 and "Traceback" not in node.output
    node = start_node(SAMPLE)
    time.sleep(0.5)
    graph.wait_for_publisher("results")
    node.process.send_signal(signal.SIGINT)
    node.process.send_signal(signal.SIGINT)
    assert node.wait() == 0 and "Traceback" not in node.output


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("-p", "configure_fault:=user"), 2, "model.onnx: its sha256 is not that of its card; fetch both again"),
    (("-p", "activate_fault:=user"), 2, "model.onnx: its sha256 is not that of its card; fetch both again"),
    (("-p", "configure_fault:=defect"), 1, "unexpected KeyError: 'layer' (sample_node.py:"),
    (("-p", "unitz:=agc8"), 2, "there is no parameter 'unitz': did you mean 'units'?"),
    (("-p", "units:=kelvin"), 2, "parameter 'units' is 'kelvin': it must be one of agc8, centikelvin"),
    (("-p", "work_ms:=5"), 2, "parameter 'work_ms' is 5: it must be a double, e.g. 2.0"),
    (("-p", "work_ms:=-5.0"), 2, "parameter 'work_ms' is -5.0: it must be 0.0 to 9000.0 ms"),
    (("--params-file", "/absent.yaml"), 2, "/absent.yaml"),
])
def test_a_fault_at_start_is_one_fatal_line(start_node, arguments, code, words):
    node = start_node(SAMPLE, *arguments)
    assert node.wait() == code
    fatal = [line for line in node.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and words in fatal[0]
    assert "Traceback" not in node.output and "[ERROR] [sample]" not in node.output


def test_a_manager_may_start_it_and_a_failed_configure_leaves_it_alive(graph, start_node):
    start_node(SAMPLE, "-p", "autostart:=false", "-p", "configure_fault:=user")
    statuses = graph.diagnostics()
    assert state_of(graph) == "unconfigured"
    assert not change(graph, Transition.TRANSITION_CONFIGURE)
    assert state_of(graph) == "unconfigured"
    wait_until(lambda: any(s.level == DiagnosticStatus.ERROR and "sha256" in s.message for s in statuses), 5,
               "diagnostic of the failure")
    assert graph.node.count_publishers("results") == 0


def test_a_failed_activate_leaves_it_silent(graph, start_node):
    changes = graph.collect(String, "changes", qos.LATCHED)
    start_node(SAMPLE, "-p", "autostart:=false", "-p", "activate_fault:=user")
    assert change(graph, Transition.TRANSITION_CONFIGURE) and not change(graph, Transition.TRANSITION_ACTIVATE)
    assert state_of(graph) == "inactive" and set_parameter(graph, "work_ms", 3.0).successful
    time.sleep(0.5)
    assert not changes


def test_each_transition_opens_and_closes_what_it_should(graph, start_node):
    results = graph.collect(Header, "results", qos.RESULTS)
    node = start_node(SAMPLE, "-p", "autostart:=false")
    assert state_of(graph) == "unconfigured"
    for _ in range(2):
        assert change(graph, Transition.TRANSITION_CONFIGURE)
        graph.wait_for_publisher("results")
        assert graph.node.count_subscribers("thermal/image_raw") == 0
        for _ in range(2):
            assert change(graph, Transition.TRANSITION_ACTIVATE)
            camera, before = Camera(graph), len(results)
            wait_until(lambda: camera.send() or len(results) > before, 5, "result")
            assert change(graph, Transition.TRANSITION_DEACTIVATE)
            wait_until(lambda: graph.node.count_subscribers("thermal/image_raw") == 0, 5, "closed input")
        assert change(graph, Transition.TRANSITION_CLEANUP)
        wait_until(lambda: graph.node.count_publishers("results") == 0, 5, "closed output")
    assert change(graph, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert node.stop() == 0 and "Traceback" not in node.output


def test_a_transition_that_there_is_not_is_refused_and_ends_nothing(graph, start_node):
    """A lifecycle manager configures each of its nodes, those that have started themselves, too."""
    node = start_node(SAMPLE)
    graph.wait_for_publisher("results")
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP,
                       99):
        assert not change(graph, transition)
    assert state_of(graph) == "active"
    assert change(graph, Transition.TRANSITION_ACTIVE_SHUTDOWN) and state_of(graph) == "finalized"
    for transition in (Transition.TRANSITION_ACTIVE_SHUTDOWN, Transition.TRANSITION_CONFIGURE):
        assert not change(graph, transition)
    assert "transition 1 is refused: there is none from state active" in node.output
    assert node.stop() == 0 and "Traceback" not in node.output


@pytest.mark.parametrize("polled", ("false", "true"))
def test_a_frame_may_catch_up_with_other_inputs_that_came_while_it_was_worked_on(graph, start_node, polled):
    said = graph.collect(String, "said", qos.LATCHED)
    start_node(SAMPLE, "-p", "work_ms:=600.0", "-p", f"polled:={polled}")
    camera, words = Camera(graph), graph.publisher(String, "words", qos.RESULTS)
    camera.send()
    time.sleep(0.2)  # it is being worked on
    for word in ("one", "two", "three"):
        words.publish(String(data=word))
    wait_until(lambda: said, 5, "what was heard")
    assert said[0].data == "heard one two three"


def test_readings_that_follow_too_soon_are_left_unread():
    start_ns = 1_700_000_000_999_000_000  # the second changes on the way

    def taken(spacing_ns: int, *steps_ms: int) -> list[int]:
        entry = _Input("attitudes", Imu, print, 400, None, spacing_ns=spacing_ns)
        return [step for step in steps_ms if not entry.too_soon(serialize_message(
            Imu(header=Header(stamp=ns_to_stamp(start_ns + step * NS_PER_MS), frame_id="imu"))))]

    steps = tuple(range(0, 100, 5))
    assert taken(20 * NS_PER_MS, *steps) == [0, 20, 40, 60, 80]
    assert taken(0, *steps) == list(steps)
    assert taken(20 * NS_PER_MS, 50, 50, 55, 10, 15, 30) == [50, 50, 10, 30]  # repeated, set back: the gate's to judge


def test_polled_inputs_are_taken_without_a_frame_and_closed_with_the_node(graph, start_node):
    node = start_node(SAMPLE, "-p", "polled:=true")
    words, statuses = graph.publisher(String, "words", qos.RESULTS), graph.diagnostics()
    for word in ("one", "two", "three"):
        words.publish(String(data=word))
    wait_until(lambda: statuses and statuses[-1].data.get("words_processed") == "3", 5, "words taken")
    assert change(graph, Transition.TRANSITION_DEACTIVATE) and change(graph, Transition.TRANSITION_ACTIVATE)
    time.sleep(0.5)
    wait_until(lambda: words.publish(String(data="four")) or
               int(statuses[-1].data.get("words_processed", 0)) > 3, 5, "words taken again")
    assert node.stop() == 0 and "Traceback" not in node.output


def test_a_node_may_hear_of_the_messages_that_are_refused(graph, start_node):
    said, results = graph.collect(String, "said", qos.LATCHED), graph.collect(Header, "results", qos.RESULTS)
    start_node(SAMPLE)
    camera = Camera(graph)
    wait_until(lambda: camera.send() or results, 5, "result")
    now_ns = graph.node.get_clock().now().nanoseconds
    for send, words in ((lambda: camera.send(encoding="mono12"), "refused 64x48: image encoding 'mono12'"),
                        (lambda: camera.send(now_ns - 10**9, columns=65), "refused 65x48: its stamp is"),
                        (lambda: camera.send(columns=99), "refused 99x48: unexpected IndexError")):
        time.sleep(UNDISTURBED_S)
        send()
        wait_until(lambda: any(words in message.data for message in said), 5, words)


def test_faulty_frames_are_counted_and_no_good_one_is_lost(graph, start_node):
    results, changes = graph.collect(Header, "results", qos.RESULTS), graph.collect(String, "changes", qos.LATCHED)
    node = start_node(SAMPLE)
    camera, statuses = Camera(graph), graph.diagnostics()
    graph.wait_for_publisher("results")
    now_ns = graph.node.get_clock().now().nanoseconds
    faults = [{"encoding": "mono12"}, {"data": b""}, {"width": 0}, {"width": 1, "height": 1}, {"step": 3},
              {"encoding": "mono16", "width": 32}]
    good = 0
    for fault in [*faults, {"stamp_ns": 0}, {"stamp_ns": now_ns - 500 * NS_PER_MS}, {"columns": 99}]:
        for fields in ({}, fault, {}):
            camera.send(**fields)
            time.sleep(UNDISTURBED_S)
        good += 2
        wait_until(lambda: len(results) == good, 5, f"good frames around {fault}")
    wait_until(lambda: statuses and statuses[-1].data.get("frames_received") == str(3 * good // 2), 5, "diagnostics")
    data = statuses[-1].data
    assert (data["frames_processed"], data["frames_refused"], data["frames_out_of_order"], data["frames_failed"]) == \
        (str(good), str(len(faults)), "2", "1")
    assert statuses[-1].level == DiagnosticStatus.WARN
    assert "unexpected IndexError: a defect of two lines (sample_node.py:" in data["last_refusal"]
    assert not changes
    assert node.stop() == 0 and "Traceback" not in node.output
    for words in ("encoding 'mono12' is not known", "data is truncated", "is empty", "too small", "row step is 3",
                  "cannot hold units", "stamp is zero", "before that of the one before"):
        assert sum(words in line for line in node.output.splitlines()) == 1, words


def test_a_recording_that_starts_over_is_followed(graph, start_node):
    results, changes = graph.collect(Header, "results", qos.RESULTS), graph.collect(String, "changes", qos.LATCHED)
    start_node(SAMPLE, "-p", "max_age_s:=0.0")
    camera = Camera(graph)
    graph.wait_for_publisher("results")
    for _ in range(2):
        for step in range(1, 6):
            camera.send(stamp_ns=step * 100 * NS_PER_MS)
            time.sleep(UNDISTURBED_S)
    wait_until(lambda: len(results) == 9, 5, "all but the first frame after the jump")
    wait_until(lambda: [m.data for m in changes] == ["time set back"], 5, "message of the jump")


def test_old_frames_are_dropped_by_the_nodes_clock(graph, start_node):
    results = graph.collect(Header, "results", qos.RESULTS)
    node = start_node(SAMPLE, "-p", "max_age_s:=0.5")
    camera = Camera(graph)
    graph.wait_for_publisher("results")
    now_ns = graph.node.get_clock().now().nanoseconds
    camera.send(stamp_ns=now_ns - 3000 * NS_PER_MS)
    line = node.wait_for_line("more than max_age_s = 0.5")
    assert "thermal/image_raw: it is 3.0 s old" in line
    camera.send()
    wait_until(lambda: len(results) == 1, 5, "result of the fresh frame")


def test_a_frame_ahead_of_the_nodes_clock_is_dropped_and_forgotten(graph, start_node):
    results, changes = graph.collect(Header, "results", qos.RESULTS), graph.collect(String, "changes", qos.LATCHED)
    node = start_node(SAMPLE)
    camera = Camera(graph)
    graph.wait_for_publisher("results")
    for ahead_s in (0, 3600, 0.5, 0.6):  # half a second is within max_age_s: clocks differ by so much
        camera.send(stamp_ns=graph.node.get_clock().now().nanoseconds + int(ahead_s * 1e9))
        time.sleep(UNDISTURBED_S)
    line = node.wait_for_line("ahead of the node's clock")
    assert "3600.0 s ahead" in line and "synchronise the clocks" in line
    wait_until(lambda: len(results) == 3, 5, "results of the other frames")
    assert not changes  # time was not set back


def test_newest_frame_only(graph, start_node):
    """Frames at 50 Hz, work of 100 ms: each worked on is fresh, all others are counted as superseded."""
    results = graph.collect(Header, "results", qos.RESULTS)
    start_node(SAMPLE, "-p", "work_ms:=100.0")
    camera, statuses = Camera(graph), graph.diagnostics()
    graph.wait_for_publisher("results")
    began_s = time.monotonic()
    for _ in range(100):
        camera.send()
        time.sleep(0.02)
    ages_ms = np.array([float(header.frame_id) for header in results])
    assert 5 <= len(ages_ms) <= (time.monotonic() - began_s) / 0.1 + 1
    assert np.median(ages_ms) < 100 and ages_ms.max() < 500  # in a queue the last would wait for more than 1600 ms
    assert np.median(ages_ms[-3:]) < 200

    def all_accounted_for() -> bool:
        received, processed, superseded = (int(statuses[-1].data.get(f"frames_{key}", 0)) if statuses else -1
                                           for key in ("received", "processed", "superseded"))
        return processed == len(results) and received == processed + superseded

    wait_until(all_accounted_for, 5, "sum of processed and superseded frames that is the number received")
    assert statuses[-1].level == DiagnosticStatus.OK


def test_a_worker_that_hangs_is_an_error(graph, start_node):
    start_node(SAMPLE, "-p", "work_ms:=9000.0")
    camera, statuses = Camera(graph), graph.diagnostics()
    wait_until(lambda: camera.send() or any("busy with one message for" in status.message for status in statuses), 20,
               "error")


def test_no_worker_starts_while_the_one_before_is_at_a_message(graph, start_node):
    results = graph.collect(Header, "results", qos.RESULTS)
    node, camera = start_node(SAMPLE, "-p", "work_ms:=7000.0"), Camera(graph)
    camera.send()
    time.sleep(UNDISTURBED_S)
    assert change(graph, Transition.TRANSITION_DEACTIVATE) and set_parameter(graph, "work_ms", 0.0).successful
    assert not change(graph, Transition.TRANSITION_ACTIVATE) and not change(graph, Transition.TRANSITION_CLEANUP)
    assert state_of(graph) == "inactive"
    for during in ("activating", "cleaning up"):
        assert f"{during} failed: the message at hand when it was deactivated is still being processed" in node.output
    wait_until(lambda: change(graph, Transition.TRANSITION_CLEANUP), 10, "end of the message")
    assert change(graph, Transition.TRANSITION_CONFIGURE) and change(graph, Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: camera.send() or results, 5, "result")
    assert "AttributeError" not in node.output


def test_parameters_change_while_it_runs_or_are_refused_with_a_reason(graph, start_node):
    changes = graph.collect(String, "changes", qos.LATCHED)
    start_node(SAMPLE)
    graph.wait_for_publisher("changes")
    assert set_parameter(graph, "work_ms", 3.0).successful
    wait_until(lambda: [m.data for m in changes] == ["work_ms=3.0"], 5, "change to be taken over")
    for name, value, words in (("units", "kelvin", "it must be one of agc8, centikelvin"),
                               ("work_ms", -1.0, "out of range"), ("work_ms", 1, "Wrong parameter type"),
                               ("configure_fault", "user", "read-only"), ("autostart", False, "read-only")):
        result = set_parameter(graph, name, value)
        assert not result.successful and words in result.reason
    assert len(changes) == 1


def test_a_change_that_cannot_be_taken_over_ends_no_node_that_is_inactive_either(graph, start_node):
    node, statuses = start_node(SAMPLE), graph.diagnostics()
    graph.wait_for_publisher("results")
    for transition in (None, Transition.TRANSITION_DEACTIVATE):
        assert transition is None or change(graph, transition)
        for how, key, words in (("user", "refused", "its sha256 is not"), ("defect", "failed", "KeyError: 'layer'")):
            before = statuses[-1].data.get(f"parameters_{key}", "0") if statuses else "0"
            assert set_parameter(graph, "change_fault", how).successful
            wait_until(lambda: statuses and statuses[-1].data.get(f"parameters_{key}", "0") > before and
                       words in statuses[-1].data["last_refusal"], 5, f"'{words}' said")
    assert state_of(graph) == "inactive"
    assert node.stop() == 0 and "Traceback" not in node.output


def test_a_malformed_request_ends_no_node(graph, start_node):
    node = start_node(SAMPLE)
    graph.wait_for_publisher("results")
    client = graph.node.create_client(SetParameters, "/sample/set_parameters")
    assert client.wait_for_service(10.0)
    client.call_async(SetParameters.Request(parameters=[ParameterMessage(
        name="work_ms", value=ParameterValue(type=99))]))  # rclpy answers it with an exception
    node.wait_for_line("unexpected ValueError: 99 is not a valid Parameter.Type")
    assert set_parameter(graph, "work_ms", 3.0).successful and state_of(graph) == "active"
    assert node.stop() == 0 and "Traceback" not in node.output


@given(st.lists(st.integers(1, 50), max_size=60))
def test_stamps_that_pass_go_forward_except_where_time_is_set_back(stamps):
    gate, passed = StampGate(), []
    for stamp in stamps:
        if gate.fault(stamp) is None:
            assert not passed or (stamp <= passed[-1]) == gate.set_back
            passed.append(stamp)
    assert passed[:1] == stamps[:1]
    assert sum(later <= earlier for earlier, later in zip(passed, passed[1:])) <= (len(stamps) - len(passed))


def test_a_lone_stamp_of_the_past_does_not_set_time_back():
    gate = StampGate()
    assert [gate.fault(stamp) is None for stamp in (10, 11, 5, 12, 5, 13, 0, 14)] == \
        [True, True, False, True, False, True, False, True]
    assert [gate.fault(stamp) is None for stamp in (3, 4, 5)] == [False, True, True]


def test_interrupts_until_it_has_ended_end_it_cleanly(graph, start_node):
    node = start_node(SAMPLE)
    graph.wait_for_publisher("results")
    while node.process.poll() is None:
        node.process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert node.process.returncode == 0 and "Traceback" not in node.output
