"""The node `reid` on the live graph: matches on real frames, and what it makes of faulty input."""

import signal
import time

import cv2
import numpy as np
import pytest
from conftest import wait_until
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.msg import DetectionArray, MatchArray, ThermalProbe
from thermalreid_ros.reid.signature import crop_box
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image, detections_to_message, ns_to_stamp, stamp_to_ns

S = 1_000_000_000
NS_PER_MS = 1_000_000
PEOPLE = ((20, 30, 140), (100, 90, 200), (240, 150, 250))  # x, y, grey


def person(grey: int, seed: int) -> np.ndarray:
    rows, columns = np.mgrid[:24, :14] + 0.5
    inside = ((rows / 24 - 0.5) / 0.42) ** 2 + ((columns / 14 - 0.5) / 0.3) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 2, (24, 14))
    return np.clip(np.where(inside, grey, 80) + noise, 0, 255).astype(np.uint8)


def scene(people=PEOPLE) -> tuple[np.ndarray, list[Detection]]:
    frame = (80 + np.random.default_rng(3).normal(0, 2, (200, 300))).astype(np.uint8)
    for x, y, grey in people:
        frame[y:y + 24, x:x + 14] = person(grey, x)
    return frame, [Detection(1, 0.9, x, y, x + 14, y + 24) for x, y, _ in people]


class Flight:
    """The camera and the detector, played by the test; stamps are the present time unless given."""

    def __init__(self, graph):
        self.matches: list[MatchArray] = graph.collect(MatchArray, "reid/matches", qos.RESULTS)
        self.statuses = graph.diagnostics()
        self._graph = graph
        self._camera = graph.publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)
        self._detector = graph.publisher(DetectionArray, "detections", qos.RESULTS)
        self._probes = None
        graph.wait_for_publisher("reid/matches")
        self.stamp_ns = graph.node.get_clock().now().nanoseconds

    def send(self, frame=None, detections=None, *, with_frame: bool = True, encoding: str = "mono8",
             stamp_ns: int | None = None) -> int:
        """One frame with its detections; returns its stamp."""
        if frame is None:
            frame, found = scene()
            detections = found if detections is None else detections
        if stamp_ns is None:
            self.stamp_ns = max(self.stamp_ns + NS_PER_MS, self._graph.node.get_clock().now().nanoseconds)
            stamp_ns = self.stamp_ns
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id="thermal")
        if with_frame:
            self._camera.publish(array_to_image(frame, encoding, header))
        self._detector.publish(detections_to_message(DetectionResult(tuple(detections), 1.0), header,
                                                     frame.shape, "test"))
        time.sleep(0.05)
        return stamp_ns

    def search(self, probe_id: str, *crops: np.ndarray, class_name: str = "person", units: str = "agc8"):
        if self._probes is None:
            self._probes = self._graph.publisher(ThermalProbe, "probe/thermal", qos.LATCHED)
        encoding = {"uint8": "mono8", "float32": "32FC1", "uint16": "mono16"}
        self._probes.publish(ThermalProbe(
            probe_id=probe_id, class_name=class_name, units=units,
            images=[array_to_image(crop, encoding[crop.dtype.name], Header()) for crop in crops]))

    def ranking(self, stamp_ns: int, probe_id: str) -> MatchArray:
        """The matches of a frame, once they are there."""
        def of_frame() -> list[MatchArray]:
            return [m for m in self.matches if stamp_to_ns(m.header.stamp) == stamp_ns and m.probe_id == probe_id]

        wait_until(of_frame, 10.0, f"matches of {probe_id} at {stamp_ns}")
        return of_frame()[-1]

    def wait_for_refusal(self, text: str) -> None:
        wait_until(lambda: any(text in s.data.get("last_refusal", "") for s in self.statuses), 10.0,
                   f"'{text}' in the diagnostics")


@pytest.fixture
def probe_file(tmp_path):
    path = tmp_path / "probe.png"
    cv2.imwrite(str(path), person(198, 77))
    return path


def test_the_searched_object_comes_first_with_its_terms(graph, start_node, probe_file):
    node = start_node("reid", "-p", f"probe_file:={probe_file}", "-p", "probe_class:=person")
    flight = Flight(graph)
    for _ in range(3):
        stamp = flight.send()
    result = flight.ranking(stamp, "probe_file")
    best = result.matches[0]
    assert (result.method, result.header.frame_id) == ("thermal_signature", "thermal")
    assert [match.rank for match in result.matches] == [1, 2, 3]
    assert (best.detection.x_min, best.detection.y_min, best.track_length) == (100.0, 90.0, 3)
    for match in result.matches:
        assert match.distance == pytest.approx(result.beta_h * match.distance_histogram
                                               + (1 - result.beta_h) * match.distance_mser, abs=1e-6)
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output


def test_several_probes_and_a_new_one_is_ranked_at_once(graph, start_node):
    start_node("reid")
    flight = Flight(graph)
    stamp = flight.send()
    time.sleep(0.5)
    flight.search("warm", person(252, 1), person(248, 2))
    assert flight.ranking(stamp, "warm").matches[0].detection.x_min == 240.0  # no newer frame has come
    flight.search("cool", person(141, 3), class_name="")
    assert flight.ranking(stamp, "cool").matches[0].detection.x_min == 20.0
    flight.search("cars", person(141, 3), class_name="car")
    stamp = flight.send()
    assert [flight.ranking(stamp, name).matches[0].detection.x_min for name in ("warm", "cool")] == [240.0, 20.0]
    assert len(flight.ranking(stamp, "cars").matches) == 0


def test_a_probe_file_may_be_changed_in_flight_and_a_wrong_one_is_refused(graph, start_node, probe_file, tmp_path):
    node = start_node("reid")
    flight = Flight(graph)
    stamp = flight.send()
    time.sleep(0.5)
    statuses = graph.diagnostics()
    for path in (tmp_path / "missing.png", probe_file, tmp_path / "missing.png"):
        request = SetParameters.Request(parameters=[Parameter("probe_file", value=str(path)).to_parameter_msg()])
        assert graph.call(SetParameters, "/reid/set_parameters", request).results[0].successful
        if path == probe_file:
            assert flight.ranking(stamp, "probe_file").matches[0].detection.x_min == 100.0
    node.wait_for_line("missing.png: the probe cannot be read")
    # The object before is not searched for under the name of one that cannot be read.
    wait_until(lambda: statuses and statuses[-1].data.get("probes") == "", 10.0, "that nothing is searched for")
    again = flight.send()
    time.sleep(1.0)
    assert not [m for m in flight.matches if m.header.stamp == ns_to_stamp(again) and m.probe_id == "probe_file"]


@pytest.mark.parametrize("name, value", [("probe_class", "person"), ("probe_length_m", 40.0)])
def test_what_parameters_do_not_name_any_more_is_not_searched_for(graph, start_node, probe_file, name, value):
    node = start_node("reid", "-p", f"probe_file:={probe_file}", "-p", "probe_class:=car", "-p", "probe_length_m:=4.0")
    node.wait_for_line("searching for 'probe_file'")
    statuses, before = graph.diagnostics(), {"probe_class": "car", "probe_length_m": 4.0}[name]
    for given, probes in ((value, ""), (before, "probe_file"), (value, "")):
        request = SetParameters.Request(parameters=[Parameter(name, value=given).to_parameter_msg()])
        assert graph.call(SetParameters, "/reid/set_parameters", request).results[0].successful
        wait_until(lambda: statuses and statuses[-1].data.get("probes") == probes, 10.0, f"'{probes}' searched for")
    node.wait_for_line(" m long; give its longest side")


@pytest.mark.parametrize("content, options, complaint", [
    (None, (), "probe.png: the probe cannot be read"),
    (b"nothing", (), "probe.png: this is no readable picture"),
    (np.zeros((1, 1), np.uint8), (), "1x1 px is too small"),
    (person(200, 1).astype(np.uint16), (), "uint16 pixels are not 'agc8'"),
    (person(200, 1), ("-p", "thermal_units:=centikelvin"), "uint8 pixels are not 'centikelvin'"),
    (person(200, 1), ("-p", "thermal_units:=centikelvin", "-p", "probe_units:=agc8"), "camera gives celsius"),
    (person(200, 1), ("-p", "probe_class:=dog", "-p", "probe_length_m:=40.0"), "a dog is 0.2 to 2 m long"),
])
def test_a_wrong_probe_file_ends_the_start_with_one_line(start_node, tmp_path, content, options, complaint):
    path = tmp_path / "probe.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        cv2.imwrite(str(path), content)
    node = start_node("reid", "-p", f"probe_file:={path}", *options)
    assert node.wait() == 2
    assert complaint in node.output and "Traceback" not in node.output


def test_faulty_input_is_named_and_no_good_frame_is_lost(graph, start_node, probe_file):
    node = start_node("reid", "-p", f"probe_file:={probe_file}")
    flight = Flight(graph)
    flight.ranking(flight.send(), "probe_file")

    frame, found = scene()
    nan = Detection(1, 0.9, float("nan"), 10.0, 20.0, 30.0)
    assert len(flight.ranking(flight.send(frame, [nan, *found]), "probe_file").matches) == 3
    flight.wait_for_refusal("not finite")

    flight.send(with_frame=False)
    stamp_ns = flight.send(with_frame=False)  # whose frame comes late
    flight._camera.publish(array_to_image(frame, "mono8", Header(stamp=ns_to_stamp(stamp_ns))))
    assert flight.ranking(stamp_ns, "probe_file").matches[0].track_length >= 3
    flight.wait_for_refusal("without the frame of their stamp")

    flight.send(np.zeros((200, 300), np.uint16), found, encoding="mono16")
    flight.wait_for_refusal("'mono16' cannot hold units 'agc8'")
    flight.send(np.zeros((1, 1), np.uint8), [])
    flight.wait_for_refusal("1x1 px is too small")

    for crops, options, complaint in (((np.zeros((1, 1), np.uint8),), {}, "1x1 px is too small"),
                                      ((np.full((9, 9), 21.0, np.float32),), {"units": "celsius_f32"},
                                       "camera gives grey"),
                                      ((person(9, 9),), {"units": "celsius_f32"}, "uint8 pixels are not"),
                                      ((), {}, "holds no image")):
        flight.search("wrong", *crops, **options)
        flight.wait_for_refusal(complaint)

    assert flight.ranking(flight.send(), "probe_file").matches[0].detection.x_min == 100.0
    assert node.process.poll() is None and "Traceback" not in node.output


def test_a_recording_that_starts_over_begins_new_tracks(graph, start_node, probe_file):
    node = start_node("reid", "-p", f"probe_file:={probe_file}", "-p", "max_age_s:=0.0")
    flight = Flight(graph)
    start_ns = flight.stamp_ns
    for _ in range(4):
        stamp = flight.send()
    before = {match.track_id for match in flight.ranking(stamp, "probe_file").matches}
    for step in range(1, 5):
        stamp = flight.send(stamp_ns=start_ns - 60 * S + step * 100 * NS_PER_MS)
    result = flight.ranking(stamp, "probe_file")
    assert len(result.matches) == 3 and not before & {match.track_id for match in result.matches}
    node.wait_for_line("time went back")


def test_the_picture_is_drawn_while_it_is_watched(graph, start_node, probe_file):
    start_node("reid", "-p", f"probe_file:={probe_file}")
    flight = Flight(graph)
    pictures = graph.collect(Image, "reid/image", qos.OVERLAY)
    wait_until(lambda: graph.node.count_subscribers("reid/image") == 1, 5, "the subscription")
    wait_until(lambda: flight.send() and pictures, 10, "a picture")
    picture = np.frombuffer(pictures[0].data, np.uint8).reshape(200, 300, 3)
    assert pictures[0].encoding == "bgr8" and (picture == (0, 215, 255)).all(axis=2).any()


def test_a_person_of_a_real_flight_is_found_again(graph, start_node, shared_data, tmp_path):
    """The probe is cut from one frame; ten frames later the track that the person then has is among the
    nearest."""
    from thermalreid_ros.evaluation.recording import Clip, follow, read_frames

    folder = shared_data / "hit-uav"
    frames = read_frames([folder / "train", folder / "val"],
                         [folder / "annotations" / f"{split}.json" for split in ("train", "val")],
                         [Clip(281, 127)], rate_hz=2.0, clip_gap_s=5.0)
    frames = [f for f in follow(frames, "1_60_50_0_00282", (530, 336)) if f.target is not None][:25]
    probe = next(f for f in frames if f.path.stem == "1_60_50_0_00282")
    cv2.imwrite(str(tmp_path / "person.png"), crop_box(probe.gray8(), probe.target))
    start_node("reid", "-p", f"probe_file:={tmp_path / 'person.png'}", "-p", "probe_class:=person")
    flight = Flight(graph)
    ranks, guesses = [], []
    for frame in frames:
        stamp = flight.send(frame.gray8(), frame.objects)
        matches = flight.ranking(stamp, "probe_file").matches
        assert len(matches) == sum(item.class_name == "person" for item in frame.objects)
        ranks += [match.rank for match in matches if match.detection.x_min == frame.target.x_min
                  and match.detection.y_min == frame.target.y_min]
        guesses.append((len(matches) + 1) / 2)
    assert len(ranks) == len(frames) >= 20
    assert np.mean(ranks) < 0.6 * np.mean(guesses)
