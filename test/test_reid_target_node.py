"""The node `reid` on the live graph with poses of the camera: targets on the ground, and why there is none."""

import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from conftest import wait_until
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String
from test_reid_node import PEOPLE, person, scene
from tiny_models import shapes_alone

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.detection.types import DetectionResult
from thermalreid_ros.files import shipped
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.msg import DetectionArray, MatchArray, Target, ThermalProbe, Verdict
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.target import BUILDS
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image, detections_to_message, ns_to_stamp, stamp_to_ns
from thermalreid_ros.ros.places import grid_to_text

MAP = shipped("config") / "maps" / "krems.tif"
CAMERA = Intrinsics.from_field_of_view(300, 200, np.radians(20.0))
HEIGHT_M, PLACE = 80.0, (900.0, 700.0)
MS = 1_000_000


def celsius(grey: np.ndarray) -> np.ndarray:
    return (10.0 + grey / 10.0).astype(np.float32)


@pytest.fixture
def accepting(tmp_path):
    """A fusion that accepts nearly all, so that what it was fitted to does not matter here."""
    path = tmp_path / "fusion.yaml"
    path.write_text(yaml.safe_dump({**FusedModel.load().to_mapping(), "accept_probability": 1e-9,
                                    "descriptor_model": ""}))
    return path


class Flight:
    """Camera, detector, localization and operator, played by the test."""

    def __init__(self, graph):
        self.matches: list[MatchArray] = graph.collect(MatchArray, "reid/matches", qos.RESULTS)
        self.targets: list[Target] = graph.collect(Target, "reid/target", qos.RESULTS)
        self.statuses = graph.diagnostics()
        self._graph = graph
        self._camera = graph.publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)
        self._info = graph.publisher(CameraInfo, "thermal/camera_info", qos.CAMERA_OUT)
        self._detector = graph.publisher(DetectionArray, "detections", qos.RESULTS)
        self._poses = graph.publisher(PoseWithCovarianceStamped, "localization/pose", qos.RESULTS)
        self._probes = graph.publisher(ThermalProbe, "probe/thermal", qos.LATCHED)
        graph.wait_for_publisher("reid/target")
        self.pose_of = Pose.looking((*PLACE, HEIGHT_M), 0.4, np.pi / 2)

    def now_ns(self) -> int:
        return self._graph.node.get_clock().now().nanoseconds

    def frame(self) -> int:
        """A frame with its detections, while something is searched; returns its stamp."""
        stamp_ns = self.now_ns()
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id="thermal")
        grey, found = scene()
        self._info.publish(CameraInfo(header=header, width=300, height=200, k=CAMERA.k.ravel()))
        self._camera.publish(array_to_image(celsius(grey), "32FC1", header))
        self._detector.publish(detections_to_message(DetectionResult(tuple(found), 1.0), header, grey.shape, "test"))
        wait_until(lambda: any(stamp_to_ns(m.header.stamp) == stamp_ns for m in self.matches), 10.0, "matches")
        return stamp_ns

    def search(self, probe_id: str, grey: int, **more) -> None:
        self._probes.publish(ThermalProbe(probe_id=probe_id, class_name="person", units="celsius_f32", images=[
            array_to_image(celsius(person(grey, 70)), "32FC1", Header())], **more))

    def pose(self, stamp_ns: int, *, sigma_m: float = 2.0, frame_id: str = "map") -> None:
        message = PoseWithCovarianceStamped(header=Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id))
        p, q = message.pose.pose.position, message.pose.pose.orientation
        p.x, p.y, p.z = map(float, self.pose_of.position_m)
        q.x, q.y, q.z, q.w = map(float, self.pose_of.quaternion)
        message.pose.covariance = np.diag((sigma_m, sigma_m, 1.0, 0.01, 0.01, 0.01)).astype(float).ravel() ** 2
        self._poses.publish(message)

    def says(self, text: str, key: str = "target") -> None:
        wait_until(lambda: any(text in status.data.get(key, "") for status in self.statuses), 10.0,
                   f"'{text}' in {key} of the diagnostics")


def ground(pose: Pose, column: float, row: float) -> np.ndarray:
    """Where a person stands whose box has its middle at a pixel, (2,)."""
    ray = pose.rotation @ ((column - CAMERA.cx) / CAMERA.fx, (row - CAMERA.cy) / CAMERA.fy, 1.0)
    return np.array(PLACE) + (HEIGHT_M - 0.5 * BUILDS["person"].height_m) * ray[:2] / -ray[2]


def start(start_node, accepting, *more):
    return start_node("reid", "-p", "thermal_units:=celsius_f32", "-p", f"fusion:={accepting}", "-p", f"map:={MAP}",
                      "-p", "method:=thermal_signature", "-p", "embedding:=''", *more)


def test_the_found_object_is_published_with_its_place(graph, start_node, accepting):
    node = start(start_node, accepting)
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    stamps = [flight.frame() for _ in range(3)]
    for stamp_ns in stamps:
        flight.pose(stamp_ns)
    wait_until(lambda: len(flight.targets) >= 3, 10.0, "three targets")
    target, (x, y, _) = flight.targets[-1], PEOPLE[2]
    assert [stamp_to_ns(t.header.stamp) for t in flight.targets] == stamps
    assert (target.probe_id, target.class_name, target.header.frame_id, target.sights) == ("warm", "person", "map", 3)
    wanted = ground(flight.pose_of, x + 7, y + 12)
    assert np.hypot(target.x - wanted[0], target.y - wanted[1]) < 0.05
    with SemanticMap.open(MAP) as semantic_map:
        assert np.allclose(semantic_map.grid.from_geographic(target.latitude, target.longitude), wanted, atol=0.05)
    covariance = np.reshape(target.covariance, (2, 2))
    # Position, tilt at 80 m and yaw: of three sights as of one.
    assert np.sqrt(np.trace(covariance)) == pytest.approx(np.sqrt(2 * (4.0 + 0.64)), rel=0.05)
    assert target.size_m == pytest.approx(22 / 1.12 * HEIGHT_M / CAMERA.fx, rel=0.05)
    assert 0.0 < target.probability <= 1.0
    # A probe that comes now is ranked, and its object is placed, by what has been seen.
    flight.search("cool", 140)
    wait_until(lambda: any(t.probe_id == "cool" for t in flight.targets), 10.0, "the new probe's target")
    cool = next(t for t in flight.targets if t.probe_id == "cool")
    wanted = ground(flight.pose_of, PEOPLE[0][0] + 7, PEOPLE[0][1] + 12)
    assert np.hypot(cool.x - wanted[0], cool.y - wanted[1]) < 0.05
    flight.says("'warm': track 3")
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output


def test_an_operator_decides_and_the_place_follows(graph, start_node, accepting):
    node = start(start_node, accepting, "-p", "accept_probability:=1.0")
    flight = Flight(graph)
    verdicts = graph.publisher(Verdict, "reid/verdict", qos.RESULTS)
    flight.search("warm", 250)
    time.sleep(0.5)
    stamp_ns = flight.frame()
    flight.pose(stamp_ns)
    flight.says("not here")
    ranked = [m.track_id for m in flight.matches[-1].matches]
    assert len(ranked) == 3 and not flight.targets

    def judge(track_id: int, verdict: int, probe_id: str = "warm") -> None:
        verdicts.publish(Verdict(probe_id=probe_id, track_id=track_id, verdict=verdict))

    judge(ranked[0], Verdict.OTHER)
    wait_until(lambda: [m.track_id for m in flight.matches[-1].matches] == ranked[1:], 10.0, "the others alone")
    judge(ranked[2], Verdict.SAME)  # ranked at once, by what has been seen
    wait_until(lambda: flight.targets, 10.0, "the place of what was chosen")
    target, best = flight.targets[-1], flight.matches[-1].matches[0]
    assert (target.track_id, target.probability, best.track_id, best.probability) == (ranked[2], 1.0, ranked[2], 1.0)
    for message, words in (((99, Verdict.SAME), "no track 99"), ((ranked[1], 7), "verdict 7 is none of 0, 1, 2"),
                           ((ranked[1], Verdict.SAME, "cold"), "no probe 'cold'")):
        judge(*message)
        flight.says(words, "last_refusal")
    stamp_ns = flight.frame()
    flight.pose(stamp_ns)
    wait_until(lambda: stamp_to_ns(flight.targets[-1].header.stamp) == stamp_ns, 10.0, "it is followed")
    judge(ranked[2], Verdict.UNSURE)
    flight.says("not here")
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output


def test_places_on_another_map_than_its_own_are_no_targets(graph, start_node, accepting):
    start(start_node, accepting)
    flight = Flight(graph)
    tables = graph.publisher(String, "localization/map", qos.LATCHED)
    with SemanticMap.open(MAP) as semantic_map:
        grid = semantic_map.grid
    tables.publish(String(data=grid_to_text(replace(grid, easting_m=grid.easting_m + 250.0), "cut.tif")))
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.pose(flight.frame())
    flight.says("none: localization is on another map (cut.tif: EPSG:32633, 544662.5")
    assert not flight.targets
    tables.publish(String(data=grid_to_text(grid, "krems.tif")))
    time.sleep(0.5)
    flight.pose(flight.frame())
    wait_until(lambda: flight.targets, 10.0, "a target")


def test_without_a_pose_there_is_no_target_but_its_reason(graph, start_node, accepting):
    start(start_node, accepting)
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.frame()
    flight.says("none: where the camera is is not known: no localization/pose yet")
    stamp_ns = flight.frame()
    flight.pose(stamp_ns, frame_id="odom")
    flight.says("the pose is in frame 'odom', not in 'map'", "last_refusal")
    assert not flight.targets
    flight.pose(stamp_ns + MS)
    flight.says("'warm': none")
    assert not flight.targets and flight.matches


def test_an_old_pose_places_nothing_any_more(graph, start_node, accepting):
    start(start_node, accepting, "-p", "max_pose_age_s:=0.5")
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.pose(flight.frame())
    wait_until(lambda: flight.targets, 10.0, "a target")
    time.sleep(0.8)
    flight.frame()
    flight.says("s old")
    assert len(flight.targets) == 1
    flight.pose(flight.now_ns() - 5_000 * MS)
    flight.says("s before that of the one before", "last_refusal")


def test_a_place_that_is_hardly_known_is_not_published(graph, start_node, accepting):
    start(start_node, accepting)
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.pose(flight.frame(), sigma_m=200.0)
    flight.says("its place is known to within 492 m only, max_target_error_m is 30")
    assert not flight.targets


def test_what_is_not_here_has_no_place(graph, start_node, accepting):
    accepting.write_text(accepting.read_text().replace("1.0e-09", "0.999999"))
    start(start_node, accepting)
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.pose(flight.frame())
    flight.says("not here: the best match is it with")
    assert not flight.targets and flight.matches[-1].accept_probability == pytest.approx(0.999999)


def test_a_length_that_is_told_is_weighed_and_one_that_cannot_be_is_refused(graph, start_node, accepting):
    """From 36 m above boxes of 14 by 24 px are as large as adults seem, so that no child of 0.9 m is there."""
    node = start(start_node, accepting, "-p", "method:=fused")
    flight = Flight(graph)
    flight.pose_of = Pose.looking((*PLACE, 36.0), 0.4, np.pi / 2)
    flight.search("anybody", 250)
    time.sleep(0.5)
    flight.pose(flight.frame())
    flight.says("'anybody': track")
    flight.search("adult", 250, length_m=1.7)
    flight.search("child", 250, length_m=0.9, length_error=0.1)
    flight.search("giant", 250, length_m=40.0)
    flight.says("a length of 40 m: a person is 0.5 to 2.3 m long", "last_refusal")
    node.wait_for_line("searching for 'child', person, 0.9 m long (within 10.0%)")
    stamp_ns = flight.frame()
    wait_until(lambda: {m.probe_id for m in flight.matches if stamp_to_ns(m.header.stamp) == stamp_ns} ==
               {"anybody", "adult", "child"}, 10.0, "all rankings")
    last = {m.probe_id: m for m in flight.matches}
    probability = {name: m.matches[0].probability for name, m in last.items()}
    assert probability["child"] < 0.7 * probability["anybody"] < 0.7 * probability["adult"]
    assert last["child"].accept_probability == pytest.approx(
        FusedModel.load().least_probability(ToldLength(0.9, 0.1)))
    assert last["anybody"].accept_probability == pytest.approx(1e-9)
    assert node.process.poll() is None and "Traceback" not in node.output


def test_without_a_map_or_with_a_camera_that_does_not_measure_it_says_so(graph, start_node, accepting):
    start_node("reid", "-p", "thermal_units:=celsius_f32", "-p", f"fusion:={accepting}", "-p", "embedding:=''")
    flight = Flight(graph)
    flight.search("warm", 250)
    time.sleep(0.5)
    flight.pose(flight.frame())
    flight.says("no map is given")
    flight.says("thermal_signature", "method")
    assert not flight.targets


def test_embedding_and_fusion_rank_what_has_descriptors(graph, start_node, accepting, tmp_path):
    pytest.importorskip("onnx")
    model = shapes_alone(tmp_path / "shapes.onnx")
    start_node("reid", "-p", "thermal_units:=celsius_f32", "-p", f"fusion:={accepting}", "-p", f"embedding:={model}",
               "-p", "method:=cross_modal_embedding", "-p", "threads:=1")
    flight = Flight(graph)
    flight.says("shapes on cpu", "embedding")
    flight.search("bare", 250)
    time.sleep(0.5)
    flight.frame()
    assert flight.matches[-1].method == "thermal_signature"
    flight.says("probe 'bare' has no descriptors", "instead")
    vector = np.ones(64, np.float32) / 8.0
    flight.search("described", 250, descriptors=np.tile(vector, 2), descriptor_size=64, descriptor_model="shapes")
    wait_until(lambda: any(m.probe_id == "described" for m in flight.matches), 10.0, "matches of the described one")
    last = next(m for m in flight.matches if m.probe_id == "described")
    distances = [match.distance_embedding for match in last.matches]
    assert last.method == "cross_modal_embedding" and np.isfinite(distances).all() and distances == sorted(distances)
    assert [match.distance for match in last.matches] == pytest.approx(distances)
    flight.search("other", 250, descriptors=np.tile(vector, 2), descriptor_size=64, descriptor_model="another")
    flight.says("was described by 'another' but tracks are by 'shapes'", "last_refusal")
    flight.search("torn", 250, descriptors=vector[:60], descriptor_size=64, descriptor_model="shapes")
    flight.says("do not fit its 1 image", "last_refusal")


def test_an_embedding_that_is_needed_and_not_there_ends_the_start(start_node):
    node = start_node("reid", "-p", "thermal_units:=celsius_f32", "-p", "embedding:=/absent/model.onnx",
                      "-p", "method:=cross_modal_embedding")
    assert node.wait() == 2 and "/absent/model.onnx" in node.output and "Traceback" not in node.output
    node = start_node("reid", "-p", "map:=/absent/map.tif")
    assert node.wait() == 2 and "/absent/map.tif: no such map" in node.output
