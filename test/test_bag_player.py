"""The bag player on a live graph: what arrives is what was recorded, in its order and time."""

import time
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mcap.writer import Writer as McapWriter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from test_bag import TYPES, image
from thermalreid_ros.files import shipped
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.bag import Bag, write_bag
from thermalreid_ros.ros.convert import image_to_array, stamp_to_ns
from thermalreid_ros.ros.playback import RecordedTime

NIGHT = shipped("config") / "recordings" / "hit_uav_night"
EXIT_LIMIT_S = 20.0


def stamped(count: int, rate_hz: float, size: int = 64):
    """Images with ascending stamps, and a text after each."""
    header, time_type = TYPES["std_msgs/msg/Header"], TYPES["builtin_interfaces/msg/Time"]
    for number in range(count):
        stamp_ns = 1_600_000_000 * 10**9 + round(number / rate_hz * 1e9)
        message = image(number, size)
        message.header = header(time_type(*divmod(stamp_ns, 10**9)), "camera")
        yield "/thermal/image_raw", stamp_ns, message
        yield "/note", stamp_ns, TYPES["std_msgs/msg/String"](f"frame {number}")


def recorded_frames(from_s: float) -> int:
    with Bag(NIGHT) as bag:
        return sum(1 for _ in bag.messages(["/thermal/image_raw/compressed"], bag.stamp_at(from_s)))


def test_recorded_time_never_runs_ahead_and_makes_delays_good():
    wall = iter((0.0, 1.0, 2.0, 2.5, 2.55, 7.0, 7.0)).__next__
    recorded = RecordedTime(0, wall)
    assert recorded.pass_until(4 * 10**9, rate=2.0) == pytest.approx(1.0)  # 2 of 4 s have passed
    assert recorded.pass_until(3 * 10**9, rate=2.0) == 0.0 and recorded.now_ns == 3 * 10**9  # not beyond the message
    assert recorded.pass_until(4 * 10**9, rate=2.0) == 0.0  # 0.1 s of the delay is remembered, 0.5 s have passed
    assert recorded.pass_until(9 * 10**9, rate=2.0) == pytest.approx(2.35)  # 0.2 s remembered, 0.1 s passed
    assert recorded.pass_until(9 * 10**9, rate=2.0, paused=True) == pytest.approx(2.35)
    assert recorded.pass_until(9 * 10**9, rate=2.0) == pytest.approx(2.35)  # a pause does not count


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_plays_all_in_order_with_its_clock_and_ends(graph, start_node, tmp_path: Path, storage: str):
    path = write_bag(tmp_path / "bag", stamped(60, rate_hz=10.0), {}, storage=storage)
    frames = graph.collect(Image, "thermal/image_raw", qos.RESULTS)
    notes = graph.collect(String, "note", qos.RESULTS)
    arrivals, clocks = [], []
    graph.node.create_subscription(Image, "thermal/image_raw", lambda _: arrivals.append(time.monotonic()),
                                   qos.RESULTS)
    graph.node.create_subscription(Clock, "/clock", lambda m: clocks.append(stamp_to_ns(m.clock)), qos.CLOCK)
    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "rate:=2.0", "-p", "wait_for_subscribers:=2")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert "played 120 messages in" in player.output
    originals = [(stamp_ns, m) for topic, stamp_ns, m in stamped(60, 10.0) if topic == "/thermal/image_raw"]
    assert [stamp_to_ns(m.header.stamp) for m in frames] == [stamp_ns for stamp_ns, _ in originals]
    for frame, (_, original) in zip(frames, originals):
        np.testing.assert_array_equal(image_to_array(frame).ravel(), original.data)
    assert [note.data for note in notes] == [f"frame {n}" for n in range(60)]
    assert 2.6 < arrivals[-1] - arrivals[0] < 4.5  # 5.9 s recorded, played twice as fast
    assert clocks == sorted(clocks) and len(clocks) > 100
    assert originals[0][0] <= clocks[0] and clocks[-1] == originals[-1][0]


def test_decompresses_and_plays_own_messages_in_a_namespace(graph, start_node):
    frames = graph.collect(Image, "uav1/thermal/image_raw", qos.RESULTS)
    infos = graph.collect(CameraInfo, "uav1/thermal/camera_info", qos.RESULTS)
    truth = graph.collect(DetectionArray, "uav1/truth/detections", qos.RESULTS)
    player = start_node("bag_player", "-r", "__ns:=/uav1", "-p", f"bag:={NIGHT}", "-p", "rate:=50.0",
                        "-p", "start_offset_s:=6.0",
                        "-p", "topics:=[/thermal/*, /truth/detections]")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    stamps = [stamp_to_ns(message.header.stamp) for message in frames]
    assert len(frames) == len(infos) == len(truth) == recorded_frames(from_s=6.0)
    assert stamps == [stamp_to_ns(message.header.stamp) for message in truth]
    assert min(stamps) >= 1608206400 * 10**9 + 6 * 10**9
    assert {(frame.encoding, frame.height, frame.width) for frame in frames} == {("mono8", 512, 640)}
    assert infos[0].k[0] == pytest.approx(1470.6, abs=0.1)
    # The annotated people are hotter than the ground beside them.
    hotter = [image_to_array(frame)[int(d.y_min):int(d.y_max), int(d.x_min):int(d.x_max)].max() -
              np.median(image_to_array(frame)).astype(int)
              for frame, boxes in zip(frames, truth) for d in boxes.detections if d.class_name == "person"]
    assert np.median(hotter) > 50


def test_compressed_frames_are_passed_on_as_recorded(graph, start_node):
    frames = graph.collect(CompressedImage, "thermal/image_raw/compressed", qos.RESULTS)
    player = start_node("bag_player", "-p", f"bag:={NIGHT}", "-p", "rate:=100.0", "-p", "start_offset_s:=6.0",
                        "-p", "decompress:=false")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert len(frames) == recorded_frames(from_s=6.0) and {frame.format for frame in frames} == {"webp", "jpeg"}


def test_loops_with_stamps_and_clock_together_until_it_is_stopped(graph, start_node, tmp_path: Path):
    path = write_bag(tmp_path / "bag", stamped(10, rate_hz=20.0), {})
    events = []
    graph.node.create_subscription(Image, "thermal/image_raw",
                                   lambda m: events.append(("frame", stamp_to_ns(m.header.stamp))), qos.RESULTS)
    graph.node.create_subscription(Clock, "/clock", lambda m: events.append(("clock", stamp_to_ns(m.clock))),
                                   qos.CLOCK)
    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "loop:=true")
    player.wait_for_line("starts over")
    time.sleep(1.0)
    assert player.stop() == 0, player.output
    stamps = [stamp for kind, stamp in events if kind == "frame"]
    assert len(stamps) > 12
    first = [1_600_000_000 * 10**9 + n * 50_000_000 for n in range(10)]
    assert stamps == (first * len(stamps))[:len(stamps)]
    clocks = [stamp for kind, stamp in events if kind == "clock"]
    jumps = [before - after for before, after in zip(clocks, clocks[1:]) if after < before]
    assert len(jumps) == (len(stamps) - 1) // 10 and min(jumps) > 300_000_000


def test_restamped_frames_carry_the_present(graph, start_node, tmp_path: Path):
    path = write_bag(tmp_path / "bag", stamped(10, rate_hz=50.0), {})
    delays_s = []
    graph.node.create_subscription(
        Image, "thermal/image_raw", lambda m: delays_s.append(time.time() - stamp_to_ns(m.header.stamp) / 1e9),
        qos.RESULTS)
    clocks = graph.collect(Clock, "/clock", qos.CLOCK)
    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "restamp:=true")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert len(delays_s) == 10 and -0.01 < min(delays_s) and max(delays_s) < 1.0
    assert clocks == []


def test_starts_when_activated_and_pauses_when_deactivated(graph, start_node, tmp_path: Path):
    path = write_bag(tmp_path / "bag", stamped(40, rate_hz=20.0), {})
    frames = graph.collect(Image, "thermal/image_raw", qos.RESULTS)

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return graph.call(ChangeState, "bag_player/change_state", request).success

    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "autostart:=false")
    assert change(Transition.TRANSITION_CONFIGURE)
    time.sleep(1.0)
    assert frames == []
    assert change(Transition.TRANSITION_ACTIVATE)
    time.sleep(1.0)
    assert change(Transition.TRANSITION_DEACTIVATE)
    time.sleep(0.3)
    paused_at = len(frames)
    assert 3 <= paused_at <= 36
    time.sleep(1.0)
    assert len(frames) == paused_at
    assert change(Transition.TRANSITION_ACTIVATE)
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert len(frames) == 40


def test_cut_bag_plays_what_is_whole_and_says_where_it_ends(graph, start_node, tmp_path: Path):
    path = write_bag(tmp_path / "bag", stamped(40, rate_hz=20.0, size=512), {})
    storage = path / "bag.mcap"
    storage.write_bytes(storage.read_bytes()[:6_000_000])
    frames = graph.collect(Image, "thermal/image_raw", qos.RESULTS)
    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "rate:=4.0")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert 18 <= len(frames) <= 23
    lines = [line for line in player.output.splitlines() if "the recording ends early, at message" in line]
    assert len(lines) == 1 and "of 80" in lines[0]
    assert "Traceback" not in player.output


def test_unknown_types_are_left_out_with_one_line(graph, start_node, tmp_path: Path):
    path = tmp_path / "bag.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros2", library="test")
        schemas = [writer.register_schema(name, "ros2msg", b"string data") for name in
                   ("std_msgs/msg/String", "foo_msgs/msg/Bar")]
        known, unknown = (writer.register_channel(topic, "cdr", schema) for topic, schema in
                          (("/note", schemas[0]), ("/bar", schemas[1])))
        for n in range(5):
            for channel in (known, unknown):
                writer.add_message(channel, 10**9 + n * 10**8, b"\0\1\0\0\6\0\0\0hello\0", 10**9 + n * 10**8)
        writer.finish()
    notes = graph.collect(String, "note", qos.RESULTS)
    player = start_node("bag_player", "-p", f"bag:={path}", "-p", "rate:=1.0")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert "/bar: type foo_msgs/msg/Bar is not installed here, so it is not played" in player.output
    assert [note.data for note in notes] == ["hello"] * 5


def test_there_is_one_clock_where_that_of_a_simulator_was_recorded_too(graph, start_node, tmp_path: Path):
    def recorded():
        for topic, stamp_ns, message in stamped(10, 20.0):
            yield topic, stamp_ns, message
            yield "/clock", stamp_ns, TYPES["rosgraph_msgs/msg/Clock"](TYPES["builtin_interfaces/msg/Time"](100, 0))

    frames = graph.collect(Image, "thermal/image_raw", qos.RESULTS)
    clocks = graph.collect(Clock, "/clock", qos.CLOCK)
    player = start_node("bag_player", "-p", f"bag:={write_bag(tmp_path / 'bag', recorded(), {})}")
    assert player.wait(EXIT_LIMIT_S) == 0, player.output
    assert len(frames) == 10 and len(clocks) > 5 and min(stamp_to_ns(m.clock) for m in clocks) >= 1_600_000_000 * 10**9


@pytest.mark.parametrize("arguments, fault", [
    ((), "no recording given"),
    (("-p", "bag:=/absent/bag"), "/absent/bag: no such recording"),
    (("-p", f"bag:={NIGHT}", "-p", "topics:=[/nothing]"), "can play none of its topics"),
    (("-p", f"bag:={NIGHT}", "-p", "start_offset_s:=1000.0"), "beyond its 7.5 s"),
    (("-p", f"bag:={NIGHT}", "-p", "rate:=0.0"), "parameter 'rate' is 0.0"),
])
def test_refusals_are_one_line_and_exit_code_2(start_node, arguments, fault):
    player = start_node("bag_player", *arguments)
    assert player.wait(EXIT_LIMIT_S) == 2, player.output
    lines = [line for line in player.output.splitlines() if "[FATAL]" in line]
    assert len(lines) == 1 and fault in lines[0]
    assert "Traceback" not in player.output
