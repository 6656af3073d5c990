"""The detection node on the live graph: real frames, and each fault that a flight may bring."""

import json
import shutil
import time
from dataclasses import replace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import yaml
from conftest import wait_until
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tiny_models import convolution

from thermalreid_ros.camera.geometry import GroundView, Intrinsics, Pose
from thermalreid_ros.detection.awaiting import AwaitedLabels
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import load_engine
from thermalreid_ros.files import shipped
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.nodes.detection import DetectionNode
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image, ns_to_stamp, stamp_to_ns
from thermalreid_ros.ros.places import view_to_pose

ONE_THREAD = ("-p", "threads:=1")
WAIT_S = 1.0  # for a labelling, in these tests: more than a busy machine takes to pass a message
PATIENT = ("-p", f"semantics_wait_s:={WAIT_S}", "-p", "max_age_s:=0.0")


@pytest.fixture(scope="module")
def frame(shared_data) -> np.ndarray:
    """A real night frame full of persons, bicycles and cars."""
    records = json.loads((shared_data / "hit-uav/annotations/val.json").read_text())["images"]
    name = next(r["file_name"] for r in records if r["file_name"].startswith("0_"))
    return cv2.imread(str(shared_data / "hit-uav/val" / name), cv2.IMREAD_GRAYSCALE)


class Camera:
    """Sends pictures to the node and waits for what comes of them."""

    def __init__(self, graph, results: list):
        self.graph, self.results = graph, results
        self.publisher = graph.publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)

    def send(self, pixels: np.ndarray, encoding: str = "mono8", stamp_ns: int | None = None, **fields) -> int:
        stamp_ns = stamp_ns or self.graph.node.get_clock().now().nanoseconds
        message = array_to_image(pixels, encoding, Header(stamp=ns_to_stamp(stamp_ns), frame_id="thermal_optical"))
        for name, value in fields.items():
            setattr(message, name, value)
        self.publisher.publish(message)
        return stamp_ns

    def see(self, pixels: np.ndarray, encoding: str = "mono8") -> DetectionArray:
        """Send one frame; its detections."""
        return self.of(self.send(pixels, encoding))

    def of(self, stamp_ns: int) -> DetectionArray:
        """The detections of a frame that was sent."""
        found: list[DetectionArray] = []

        def look() -> bool:
            found.extend(r for r in self.results if stamp_to_ns(r.header.stamp) == stamp_ns)
            return bool(found)

        wait_until(look, 15.0, f"detections of the frame of {stamp_ns}")
        return found[0]


def start(graph, start_node, *arguments) -> Camera:
    results = graph.collect(DetectionArray, "detections", qos.RESULTS)
    start_node("detection", *ONE_THREAD, *arguments)
    return Camera(graph, results)


def test_the_node_says_what_the_detector_says_and_keeps_the_header(graph, start_node, frame):
    pictures: list[Image] = []
    camera = start(graph, start_node)
    message = camera.see(frame)
    expected = Detector(load_engine("yolo_compact")).detect(frame)
    assert (message.width, message.height, message.model, message.semantics) == (640, 512, "yolo_compact", "none")
    assert message.header.frame_id == "thermal_optical" and message.inference_ms > 0
    assert len(message.detections) == len(expected.detections) > 3
    for got, want in zip(message.detections, expected.detections):
        assert got.class_name == want.class_name and got.score == pytest.approx(want.score, abs=1e-4)
        np.testing.assert_allclose((got.x_min, got.y_min, got.x_max, got.y_max), want.box, atol=1e-2)
    pictures = graph.collect(Image, "detections/image", qos.OVERLAY)  # drawn from the moment somebody watches
    wait_until(lambda: camera.see(frame) and pictures, 20.0, "a picture of the detections")
    assert (pictures[0].encoding, pictures[0].width) == ("bgr8", 640)


def test_what_understands_vision_msgs_is_told_the_same(graph, start_node, frame):
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    camera = start(graph, start_node)
    statuses, arrays = graph.diagnostics(), graph.collect(vision.Detection2DArray, "detections/vision", qos.RESULTS)
    labels = graph.collect(vision.LabelInfo, "detections/label_info", qos.LATCHED)
    ours: list[DetectionArray] = []
    wait_until(lambda: ours.append(camera.see(frame)) or arrays, 20.0, "detections as vision_msgs")
    theirs = arrays[0]
    own = next(message for message in ours if message.header.stamp == theirs.header.stamp)
    assert theirs.header == own.header and len(theirs.detections) == len(own.detections) > 3
    wait_until(lambda: bool(labels), 5.0, "names of the classes")
    names = {str(item.class_id): item.class_name for item in labels[0].class_map}
    assert list(names.values()) == list(CLASS_NAMES) and labels[0].threshold == pytest.approx(0.3)
    for got, want in zip(theirs.detections, own.detections):
        hypothesis, box = got.results[0].hypothesis, got.bbox
        assert names[hypothesis.class_id] == want.class_name and hypothesis.score == pytest.approx(want.score)
        assert (box.center.position.x - box.size_x / 2, box.center.position.y + box.size_y / 2) == \
            pytest.approx((want.x_min, want.y_max), abs=1e-3)
    request = SetParameters.Request(parameters=[Parameter("score_threshold", value=0.5).to_parameter_msg()])
    assert graph.call(SetParameters, "/detection/set_parameters", request).results[0].successful
    wait_until(lambda: labels[-1].threshold == pytest.approx(0.5), 5.0, "the new threshold")
    wait_until(lambda: statuses and statuses[-1].data["vision_msgs"] == "installed", 5.0, "diagnostics")


def test_scores_are_weighed_by_how_large_things_look_while_that_is_known(graph, start_node, frame):
    camera = start(graph, start_node, "-p", "view_max_age_s:=0.5", "-p", "max_age_s:=0.0")
    statuses = graph.diagnostics()
    infos = graph.publisher(CameraInfo, "thermal/camera_info", qos.CAMERA_OUT)
    views = graph.publisher(PoseStamped, "localization/view", qos.RESULTS)
    intrinsics = Intrinsics(640, 512, 1800.0, 1800.0, 320.0, 256.0)
    view = GroundView(intrinsics, Pose.looking(np.zeros(3), 0.4, np.radians(60.0)).rotation, 80.0)
    detector = Detector(load_engine("yolo_compact"))
    plain, weighed = detector.detect(frame), detector.detect(frame, view=view)
    assert [d.score for d in plain.detections] != [d.score for d in weighed.detections]

    def scores(stamp_ns: int) -> list[float]:
        return [d.score for d in camera.of(camera.send(frame, stamp_ns=stamp_ns)).detections]

    def say(stamp_ns: int, told: GroundView = view) -> None:
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id="thermal_optical")
        infos.publish(CameraInfo(header=header, width=640, height=512, k=intrinsics.k.ravel()))
        views.publish(view_to_pose(told, header, "map"))

    start_ns = 1_000_000_000_000
    assert scores(start_ns) == pytest.approx([d.score for d in plain.detections], abs=1e-4)
    found: list[list[float]] = []
    low = replace(view, height_m=20.0)
    for number in range(1, 60):  # until the node has found the two topics
        now_ns = start_ns + number * 100_000_000
        for earlier_ns in (90_000_000, 60_000_000, 30_000_000):  # more views than frames: the nearest is taken
            say(now_ns - earlier_ns, low)
        say(now_ns)
        found.append(scores(now_ns + 1))
        if found[-1] == pytest.approx([d.score for d in weighed.detections], abs=1e-4):
            break
        time.sleep(0.3)
    else:
        pytest.fail(f"scores were never weighed: {found[-1]}, {statuses[-1].data}")
    wait_until(lambda: statuses and statuses[-1].data.get("perspective") == "used", 10.0, "that it is used is said")
    late_ns = start_ns + 100_000_000_000  # the view is long past
    assert scores(late_ns) == pytest.approx([d.score for d in plain.detections], abs=1e-4)
    upside_down = view_to_pose(view, Header(stamp=ns_to_stamp(late_ns)), "map")
    upside_down.pose.position.z = -5.0
    views.publish(upside_down)
    wait_until(lambda: "-5 m above the ground" in statuses[-1].data.get("last_refusal", ""), 10.0, "the refusal")
    assert scores(late_ns + 1) == pytest.approx([d.score for d in plain.detections], abs=1e-4)
    wait_until(lambda: statuses and statuses[-1].data.get("perspective") == "no view", 10.0, "none is said")


def test_a_parameter_file_may_speak_to_all_nodes(graph, start_node, frame, tmp_path):
    (tmp_path / "all.yaml").write_text("/**:\n  ros__parameters: {thermal_units: agc8, prior_sigma_m: 5.0}\n")
    camera = start(graph, start_node, "--params-file", str(tmp_path / "all.yaml"))
    assert len(camera.see(frame).detections) > 3
    node = start_node("detection", "-p", "score_treshold:=0.5")
    assert node.wait() == 2 and "did you mean 'score_threshold'?" in node.output


def test_views_without_a_calibration_are_no_fault_and_may_be_left_unused(graph, start_node, frame):
    camera = start(graph, start_node, "-p", "perspective:=false")
    statuses = graph.diagnostics()
    views = graph.publisher(PoseStamped, "localization/view", qos.RESULTS)
    rotation = Pose.looking(np.zeros(3), 0.0, 1.0).rotation
    view = GroundView(Intrinsics(640, 512, 1800.0, 1800.0, 320.0, 256.0), rotation, 80.0)
    for _ in range(6):
        stamp_ns = camera.send(frame)
        views.publish(view_to_pose(view, Header(stamp=ns_to_stamp(stamp_ns)), "map"))
        camera.of(stamp_ns)
    wait_until(lambda: statuses and statuses[-1].data.get("perspective") == "off", 10.0, "that it is off is said")
    assert not statuses[-1].data.get("views_refused", "0").strip("0") and "last_refusal" not in statuses[-1].data


def test_faulty_frames_are_refused_in_words_and_no_good_frame_is_lost(graph, start_node, frame):
    camera = start(graph, start_node)
    statuses = graph.diagnostics()

    def reason(words: str) -> None:
        wait_until(lambda: any(words in s.data.get("last_refusal", "") for s in statuses), 10.0, f"'{words}' said")

    camera.see(frame)
    sixteen = frame.astype(np.uint16) * 100
    camera.send(sixteen, "mono16")
    reason("mono16")
    camera.see(frame)
    camera.send(frame, height=700)
    reason("truncated")
    camera.see(frame)
    camera.send(frame[:1, :1])
    reason("1x1")
    camera.see(frame)
    last_ns = camera.send(frame)
    time.sleep(0.5)
    camera.send(frame, stamp_ns=last_ns - 5_000_000_000)
    reason("before that of the one before")
    camera.see(frame)
    wait_until(lambda: statuses and statuses[-1].data.get("frames_processed") == "6", 5.0, "six good frames counted")
    assert statuses[-1].data["frames_refused"] == "3" and statuses[-1].data["frames_out_of_order"] == "1"


def test_temperatures_without_meaning_are_refused_and_single_dead_pixels_are_not(graph, start_node, frame):
    camera = start(graph, start_node, "-p", "thermal_units:=celsius_f32")
    statuses = graph.diagnostics()
    celsius = frame.astype(np.float32) / 16.0
    clean = camera.see(celsius, "32FC1")
    dead = celsius.copy()
    dead[::97, ::89] = np.nan
    assert abs(len(camera.see(dead, "32FC1").detections) - len(clean.detections)) <= 3
    camera.send(np.full_like(celsius, np.nan), "32FC1")
    wait_until(lambda: any("last_refusal" in s.data for s in statuses), 10.0, "the refusal")
    assert statuses[-1].data["frames_refused"] == "1"
    camera.see(celsius, "32FC1")


def _spoilt(folder, what: str):
    for suffix in (".onnx", ".yaml"):
        shutil.copy(shipped("models") / f"yolo_compact{suffix}", folder / f"m{suffix}")
    model, card = folder / "m.onnx", folder / "m.yaml"
    if what == "cut":
        from thermalreid_ros.engine.packing import write_card

        model.write_bytes(model.read_bytes()[:10000])
        write_card(model, yaml.safe_load(card.read_text()))
    elif what == "other sum":
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
    elif what == "no card":
        card.unlink()
    elif what == "missing":
        model.unlink()
    return model


@pytest.mark.parametrize("what,words", [
    ("cut", "cannot load it"), ("other sum", "sha256 is"), ("no card", "no model card"), ("missing", "no such model")])
def test_a_model_that_cannot_be_used_is_one_fatal_line(start_node, tmp_path, what, words):
    node = start_node("detection", "-p", f"model:={_spoilt(tmp_path, what)}")
    assert node.wait() == 2
    lines = [line for line in node.output.splitlines() if line.strip()]
    assert len(lines) == 1 and "[FATAL]" in lines[0] and words in lines[0], node.output


def test_an_unknown_parameter_is_refused_with_the_name_that_was_meant(start_node):
    node = start_node("detection", "-p", "score_treshold:=0.5")
    assert node.wait() == 2
    assert "did you mean 'score_threshold'?" in node.output


def test_a_killed_node_is_replaced_and_the_graph_goes_on(graph, start_node, frame):
    results = graph.collect(DetectionArray, "detections", qos.RESULTS)
    first = start_node("detection", *ONE_THREAD)
    camera = Camera(graph, results)
    camera.see(frame)
    first.kill()
    camera.send(frame)  # nobody there: lost, and nothing else
    second = start_node("detection", *ONE_THREAD)
    second.wait_for_line("runs on cpu")
    wait_until(lambda: graph.node.count_subscribers("thermal/image_raw") >= 1, 10.0, "the new node's subscription")
    before = len(results)
    wait_until(lambda: camera.send(frame) and (time.sleep(0.5) or len(results) > before), 20.0, "detections again")
    assert camera.see(frame).detections


class Localizer:
    """Labels frames, played by the test."""

    def __init__(self, graph, topic: str = "semantics/mask"):
        self.publisher = graph.publisher(Image, topic, qos.CAMERA_OUT)

    def send(self, labels: np.ndarray, stamp_ns: int, encoding: str = "mono8") -> None:
        self.publisher.publish(array_to_image(labels, encoding, Header(stamp=ns_to_stamp(stamp_ns))))


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.kron(np.arange(20).reshape(4, 5) % 5, np.ones((128, 128))).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(frame, labels) -> dict[str, list]:
    """Scores in the frame with and without the labelling, which makes a difference."""
    detector = Detector(load_engine("yolo_compact"))
    found = {source: [d.score for d in detector.detect(frame, given).detections]
             for source, given in (("predicted", labels), ("none", None))}
    assert found["predicted"] != pytest.approx(found["none"], abs=1e-3)
    return {**found, "map": found["predicted"]}


def check(message: DetectionArray, source: str, expected: dict[str, list]) -> None:
    assert message.semantics == source
    assert [d.score for d in message.detections] == pytest.approx(expected[source], abs=1e-4)


def test_a_labelling_is_used_when_it_is_one_and_in_time_and_its_frame_is_detected_anyway(
        graph, start_node, frame, labels, expected):
    camera = start(graph, start_node, "-p", "semantics:=predicted", *PATIENT)
    localizer, statuses = Localizer(graph), graph.diagnostics()

    def labelled(picture: np.ndarray, encoding: str = "mono8", **when) -> DetectionArray:
        stamp_ns = camera.send(frame)
        time.sleep(when.get("after_s", 0.0))
        localizer.send(picture, stamp_ns + when.get("off_ns", 0), encoding)
        return camera.of(stamp_ns)

    def reason(words: str) -> None:
        wait_until(lambda: any(words in s.data.get("last_refusal", "") for s in statuses), 10.0, f"'{words}' said")

    check(labelled(labels), "predicted", expected)
    check(labelled(labels[:256]), "none", expected)
    reason("semantics/mask: 640x256 came for a frame of 640x512")
    wrong = labels.copy()
    wrong[7, 9] = 9
    check(labelled(wrong), "none", expected)
    reason("9 is no class of the ground")
    check(labelled(labels), "predicted", expected)
    check(labelled(np.dstack([labels] * 3), "rgb8"), "none", expected)
    reason("is mono8, not rgb8")
    check(labelled(labels, after_s=WAIT_S + 0.5), "none", expected)
    reason(f"after its frame, which waits for {WAIT_S:g} s")
    check(labelled(labels, off_ns=-1_000_000), "none", expected)
    reason("came without the frame of its stamp")
    wait_until(lambda: statuses and statuses[-1].data.get("frames_processed") == "7", 5.0, "all frames counted")
    data = statuses[-1].data
    assert (data["frames_with_semantics"], data["frames_without_semantics"]) == ("2", "5")
    assert (data["masks_refused"], data["frames_received"]) == ("5", "7")
    assert data.get("frames_superseded", "0") == data.get("frames_refused", "0") == "0"


def test_a_dead_localizer_holds_up_three_frames_and_one_that_is_back_is_used_again(
        graph, start_node, frame, labels, expected):
    camera = start(graph, start_node, "-p", "semantics:=map", *PATIENT)
    statuses, took_s = graph.diagnostics(), []
    for _ in range(5):
        began_s = time.monotonic()
        check(camera.see(frame), "none", expected)
        took_s.append(time.monotonic() - began_s)
    assert min(took_s[:3]) >= WAIT_S and max(took_s[3:]) < WAIT_S
    wait_until(lambda: any("no masks on /semantics/map" in s.message for s in statuses), 10.0, "the silence said")
    localizer = Localizer(graph, "semantics/map")
    stamp_ns = camera.send(frame)
    localizer.send(labels, stamp_ns)
    camera.of(stamp_ns)  # with or without: it does not wait
    time.sleep(0.2)  # until the labelling is there
    stamp_ns = camera.send(frame)
    time.sleep(0.3)
    localizer.send(labels, stamp_ns)
    check(camera.of(stamp_ns), "map", expected)
    wait_until(lambda: statuses and statuses[-1].data.get("frames_processed") == "7", 5.0, "all frames counted")


def test_frames_that_come_faster_than_labellings_are_dropped_not_queued(graph, start_node, frame, labels):
    camera = start(graph, start_node, "-p", "semantics:=predicted", *PATIENT)
    localizer, statuses = Localizer(graph), graph.diagnostics()
    stamps = []
    for number in range(12):
        stamps.append(camera.send(frame))
        time.sleep(0.1)
        if number % 4 == 3:
            localizer.send(labels, stamps[-2])  # of the last but one
    wait_until(lambda: any(stamp_to_ns(r.header.stamp) == stamps[-2] for r in camera.results), 10.0, "the last")
    seen = [(stamp_to_ns(r.header.stamp), r.semantics) for r in camera.results]
    assert seen == [(stamp, "predicted") for stamp in stamps[2::4]]
    assert camera.of(stamps[-1]).semantics == "none"  # the one that came after it waited in vain
    wait_until(lambda: statuses and statuses[-1].data.get("frames_superseded") == "8", 5.0, "the others counted")


def test_a_model_that_takes_no_labelling_says_so(start_node, tmp_path):
    model = convolution(tmp_path / "tiny.onnx", card={"classes": list(CLASS_NAMES), "task": "detection"})
    node = start_node("detection", "-p", f"model:={model}", "-p", "semantics:=map")
    assert node.wait() == 2
    assert "model 'tiny' takes no labelling; set semantics to none" in node.output


def test_frames_given_up_while_others_wait_are_counted():
    node = Mock(_awaited=AwaitedLabels(9.0, capacity=3), _told=(0, 0))
    for stamp_ns in (1, 2, 3, 4, 5, 1):  # of a fast camera; then its recording starts over
        node._awaited.add_frame(stamp_ns, None, time.monotonic())
    DetectionNode._detect_next(node)
    assert node.diagnostics.superseded.call_count == 5
