"""The localization node on the live graph: a flight over a small map, and each fault that a flight may bring.

The camera looks straight down, so that what it sees is a window of the map; a model tells classes by grey levels.
"""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from conftest import DISCOVERY_S, wait_until
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, Quaternion, TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from osm_files import OsmFile
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix, Range
from std_msgs.msg import Header, String
from tiny_models import grey_segmenter

from thermalreid_ros.camera.geometry import Intrinsics, Pose, quaternion_of, rotation_of, rotation_of_rpy
from thermalreid_ros.evaluation.replay import run_replay
from thermalreid_ros.maps.build import build_map
from thermalreid_ros.maps.classes import CLASS_NAMES, NO_DATA
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.msg import LocalizationStatus
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.bag import message_types, write_bag
from thermalreid_ros.ros.convert import array_to_image, image_to_array, ns_to_stamp, stamp_to_ns
from thermalreid_ros.ros.places import grid_fault, message_to_rotation

STEP = 51  # grey levels of a class
HEIGHT_M, SPEED_M_S, PERIOD_S = 90.0, 12.0, 0.5
CAMERA = Intrinsics.from_field_of_view(320, 256, np.radians(57.0))
START_NS = 1_700_000_000_000_000_000
TOPICS = {Image: "thermal/image_raw", CameraInfo: "thermal/camera_info", Imu: "imu/data", Odometry: "odom",
          Range: "altitude", NavSatFix: "prior/fix"}
ANY_AGE = ("-p", "max_age_s:=0.0")


@pytest.fixture(scope="module")
def map_path(tmp_path_factory):
    osm, rng = OsmFile(900, 800), np.random.default_rng(3)
    for kind, count in (({"landuse": "forest"}, 60), ({"natural": "water"}, 12), ({"amenity": "parking"}, 40)):
        for _ in range(count):
            x, y, w, h = rng.uniform((0, 0, 20, 20), (840, 740, 80, 60)).round(1)
            osm.box(x, y, x + w, y + h, kind)
    folder = tmp_path_factory.mktemp("map")
    build_map(osm.write(folder / "area.osm"), folder / "map.tif")
    return folder / "map.tif"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return grey_segmenter(tmp_path_factory.mktemp("model") / "grey.onnx")


class Course:
    """Straight over the map, towards the north-east, and what the vehicle's sensors say; `say` takes it.

    All that it says is right but the prior, which is 60 m off, and the odometry's origin.
    """

    def __init__(self, map_path):
        self.map = SemanticMap.open(map_path)
        self.yaw = np.radians(40.0)  # of the grid
        self.course = np.array((np.cos(self.yaw), np.sin(self.yaw)))
        self.convergence = self.map.grid.convergence_rad(450.0, 400.0)
        self.number, self.start_ns, self._readings = 0, START_NS, 0

    def say(self, message) -> None:
        raise NotImplementedError

    def place(self, stamp_ns: int) -> np.ndarray:
        return np.array((180.0, 160.0)) + self.course * SPEED_M_S * (stamp_ns - self.start_ns) / 1e9

    def rotation(self) -> np.ndarray:
        return Pose.looking(np.zeros(3), self.yaw, np.pi / 2).rotation

    def picture(self, stamp_ns: int, camera: Intrinsics = CAMERA) -> np.ndarray:
        classes = self.map.window(*self.place(stamp_ns), self.yaw, HEIGHT_M / camera.fx, (camera.height, camera.width))
        return (np.where(classes == NO_DATA, 0, classes) * STEP + STEP // 2).astype(np.uint8)

    def header(self, stamp_ns: int, frame_id: str = "thermal_optical_frame") -> Header:
        return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)

    def camera_info(self, stamp_ns: int, camera: Intrinsics = CAMERA) -> None:
        self.say(CameraInfo(header=self.header(stamp_ns), width=camera.width, height=camera.height,
                            k=camera.k.ravel()))

    def attitude(self, stamp_ns: int) -> None:
        self._readings += 1  # no two of a sensor are the same
        turned = 1e-9 * self._readings - self.convergence
        optical = rotation_of_rpy(0.0, 0.0, turned) @ self.rotation()  # in true east, north, up
        body = np.stack([optical[:, 2], -optical[:, 0], -optical[:, 1]], axis=1)
        x, y, z, w = map(float, quaternion_of(body))
        self.say(Imu(header=self.header(stamp_ns, "imu"), orientation=Quaternion(x=x, y=y, z=z, w=w)))

    def odometry(self, stamp_ns: int) -> None:
        way = rotation_of_rpy(0.0, 0.0, -self.convergence)[:2, :2] @ (self.place(stamp_ns) - self.place(self.start_ns))
        message = Odometry(header=self.header(stamp_ns, "odom"))
        message.pose.pose.position.x, message.pose.pose.position.y = map(float, way + (7.0, -3.0))
        self.say(message)

    def height(self, stamp_ns: int) -> None:
        self.say(Range(header=self.header(stamp_ns), range=HEIGHT_M, min_range=0.5, max_range=500.0))

    def prior(self, stamp_ns: int, error_m=(50.0, -33.0), **changes) -> None:
        latitude, longitude = map(float, self.map.grid.to_geographic(*(self.place(stamp_ns) + error_m)))
        covariance = np.diag((2500.0, 2500.0, 1.0)).ravel()
        values = dict(latitude=latitude, longitude=longitude, position_covariance=covariance,
                      position_covariance_type=NavSatFix.COVARIANCE_TYPE_DIAGONAL_KNOWN)
        self.say(NavSatFix(header=self.header(stamp_ns), **{**values, **changes}))

    def sensors(self, stamp_ns: int, without: tuple[str, ...] = ()) -> None:
        """What comes in around a frame, some of it after it was captured."""
        for name in ("camera_info", "prior"):
            if name not in without:
                getattr(self, name)(stamp_ns)
        self.readings(stamp_ns, (-60, -20, 20), without)

    def readings(self, stamp_ns: int, steps_ms: tuple[int, ...], without: tuple[str, ...] = ()) -> None:
        for step in steps_ms:
            for name in ("attitude", "odometry", "height"):
                if name not in without:
                    getattr(self, name)(stamp_ns + step * 1_000_000)

    def send(self, pixels: np.ndarray, stamp_ns: int, **fields) -> None:
        message = array_to_image(pixels, "mono8", self.header(stamp_ns))
        for name, value in fields.items():
            setattr(message, name, value)
        self.say(message)

    def next_stamp(self) -> int:
        self.number += 1
        return self.start_ns + round(self.number * PERIOD_S * 1e9)


class Flight(Course):
    """Sends what the sensors say to the node, and waits for the outcome."""

    def __init__(self, graph, start_node, map_path, model, *arguments: str, **environment: str):
        super().__init__(map_path)
        self.graph = graph
        self.status = graph.collect(LocalizationStatus, "localization/status", qos.RESULTS)
        self.fixes = graph.collect(NavSatFix, "localization/fix", qos.RESULTS)
        self.poses = graph.collect(PoseWithCovarianceStamped, "localization/pose", qos.RESULTS)
        self.masks = graph.collect(Image, "semantics/mask", qos.CAMERA_OUT)
        self._start = lambda: start_node("geo_localization", "-p", f"map:={map_path}", "-p", f"model:={model}",
                                         "-p", "threads:=1", *ANY_AGE, *arguments, **environment)
        self.node = self._start()
        self._out = {kind: graph.publisher(kind, topic, qos.CAMERA_OUT if kind is Image else qos.RESULTS)
                     for kind, topic in TOPICS.items()}

    def say(self, message) -> None:
        self._out[type(message)].publish(message)

    def sensors(self, stamp_ns: int, without: tuple[str, ...] = ()) -> None:
        super().sensors(stamp_ns, without)
        time.sleep(0.05)  # on other topics: nothing else says that they have come before the frame

    def outcome(self, stamp_ns: int, words: str = "") -> LocalizationStatus:
        """The status of a frame, the first whose reason holds these words."""
        found: list[LocalizationStatus] = []

        def look() -> bool:
            found.extend(s for s in self.status if stamp_to_ns(s.header.stamp) == stamp_ns and words in s.reason)
            return bool(found)

        wait_until(look, 15.0, f"status of frame {stamp_ns} that says '{words}'; "
                   f"the last: {self.status[-1].reason if self.status else 'none'}")
        return found[0]

    def see(self, without: tuple[str, ...] = ()) -> LocalizationStatus:
        """The next frame with what comes around it; its status."""
        stamp_ns = self.next_stamp()
        self.sensors(stamp_ns, without)
        self.send(self.picture(stamp_ns), stamp_ns)
        return self.outcome(stamp_ns)

    def restart(self) -> None:
        """Start the node anew; returns once it has seen a frame."""
        self.node = self._start()
        self.await_frame()

    def await_frame(self) -> None:
        said = len(self.status)
        end_s = time.monotonic() + DISCOVERY_S
        while len(self.status) == said:
            assert time.monotonic() < end_s, self.node.output
            stamp_ns = self.next_stamp()
            self.number -= 1  # the clock stands still meanwhile
            self.sensors(stamp_ns)
            self.send(self.picture(stamp_ns), stamp_ns)
            time.sleep(0.2)

    def fly(self, fixes: int, frames: int = 90) -> None:
        """Until there are so many fixes more."""
        wanted = len(self.fixes) + fixes
        for _ in range(frames):
            self.see()
            if len(self.fixes) >= wanted and len(self.poses) >= wanted:
                return
        pytest.fail(f"{len(self.fixes)} fixes of {wanted} in {frames} frames; the last: {self.status[-1].verdict}, "
                    f"{self.status[-1].reason}")


class Recording(Course):
    """Writes it all into a recording, with the truth."""

    def __init__(self, map_path):
        super().__init__(map_path)
        self._messages = []

    def say(self, message, topic: str = "") -> None:
        self._messages.append((topic or TOPICS[type(message)], stamp_to_ns(message.header.stamp), message))

    def write(self, path, frames: int):
        for _ in range(frames):
            stamp_ns = self.next_stamp()
            self.sensors(stamp_ns)
            self.send(self.picture(stamp_ns), stamp_ns)
            latitude, longitude = map(float, self.map.grid.to_geographic(*self.place(stamp_ns)))
            self.say(NavSatFix(header=self.header(stamp_ns), latitude=latitude, longitude=longitude), "truth/fix")
        store = message_types()
        decoded = [(f"/{topic}", stamp_ns, store.deserialize_cdr(serialize_message(message), name_of(type(message))))
                   for topic, stamp_ns, message in sorted(self._messages, key=lambda item: item[1])]
        return write_bag(path, decoded, {"units": "agc8"})


def name_of(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


@pytest.fixture
def flight(graph, start_node, map_path, model):
    flown = []

    def start(*arguments: str, **environment: str) -> Flight:
        path = environment.pop("path", map_path)
        flown.append(Flight(graph, start_node, path, model, *arguments, **environment))
        return flown[0]

    yield start
    for one in flown:
        one.map.close()


def test_where_the_camera_looks_is_told_without_a_fix(flight, graph):
    views = graph.collect(PoseStamped, "localization/view", qos.RESULTS)
    flown = flight("-p", "map_frame:=grid")
    for _ in range(40):  # until the node has found all topics
        status = flown.see(without=("prior", "odometry"))
        if views:
            break
        time.sleep(0.2)
    assert status.verdict == "no_input" and not flown.fixes
    assert stamp_to_ns(views[0].header.stamp) in {stamp_to_ns(s.header.stamp) for s in flown.status}
    assert views[0].header.frame_id == "grid_below" and views[0].pose.position.z == pytest.approx(HEIGHT_M, rel=1e-6)
    assert message_to_rotation(views[0].pose.orientation)[2, 2] < -0.999  # straight down
    seen = len(views)
    flown.see(without=("prior", "odometry", "height", "attitude"))  # what came before is too old for this frame
    flown.see(without=("prior", "odometry"))
    wait_until(lambda: len(views) > seen, 10.0, "the next view")
    assert len(views) == seen + 1


def test_a_flight_is_localized_and_every_message_is_of_its_frame(flight, graph):
    tables = graph.collect(String, "semantics/labels", qos.LATCHED)
    grids = graph.collect(String, "localization/map", qos.LATCHED)
    flown = flight()
    flown.fly(fixes=8)
    frames = {START_NS + round(number * PERIOD_S * 1e9) for number in range(1, flown.number + 1)}
    assert {stamp_to_ns(s.header.stamp) for s in flown.status} == frames and len(flown.status) == len(frames)
    assert json.loads(tables[0].data) == {str(k): name for k, name in enumerate(CLASS_NAMES)}
    assert grid_fault(grids[0].data, flown.map.grid) == "" and json.loads(grids[0].data)["map"] == "map.tif"
    localized = {stamp_to_ns(s.header.stamp): s for s in flown.status if s.verdict == "localized"}
    wait_until(lambda: len(flown.poses) >= len(localized) and len(flown.fixes) >= len(localized), 5.0, "the last fix")
    assert [stamp_to_ns(f.header.stamp) for f in flown.fixes] == sorted(localized)
    for fix, pose in zip(flown.fixes, flown.poses):
        stamp_ns = stamp_to_ns(fix.header.stamp)
        assert stamp_to_ns(pose.header.stamp) == stamp_ns and fix.header.frame_id == "thermal_optical_frame"
        away = flown.map.grid.from_geographic(fix.latitude, fix.longitude) - flown.place(stamp_ns)
        assert np.hypot(*away) < 6.0
        covariance = np.reshape(fix.position_covariance, (3, 3))[:2, :2]
        assert 1.4 ** 2 <= np.linalg.eigvalsh(covariance)[0] and np.linalg.eigvalsh(covariance)[1] < 20.0 ** 2
        assert np.isnan(fix.altitude) and fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_KNOWN
        p, q = pose.pose.pose.position, pose.pose.pose.orientation
        assert pose.header.frame_id == "map"
        np.testing.assert_allclose(flown.map.grid.to_geographic(p.x, p.y), (fix.latitude, fix.longitude), atol=1e-7)
        assert p.z == pytest.approx(HEIGHT_M, rel=0.1)
        np.testing.assert_allclose(rotation_of(np.array((q.x, q.y, q.z, q.w))), flown.rotation(), atol=0.1)
    status = localized[max(localized)]
    assert (status.model, status.map) == ("grey", "map.tif") and status.inference_ms > 0 and status.spread_m < 20
    mask = next(m for m in flown.masks if stamp_to_ns(m.header.stamp) in localized)
    seen = image_to_array(mask)
    assert seen.shape == (256, 320)
    assert (seen == flown.picture(stamp_to_ns(mask.header.stamp)) // STEP).mean() > 0.99
    pictures = graph.collect(Image, "localization/image", qos.OVERLAY)
    maps = graph.collect(Image, "semantics/map", qos.CAMERA_OUT)
    wait_until(lambda: flown.see() and pictures and maps, 20.0, "pictures")
    stamp_ns = stamp_to_ns(maps[0].header.stamp)
    assert stamp_ns in {stamp_to_ns(f.header.stamp) for f in flown.fixes} and maps[0].encoding == "mono8"
    assert (image_to_array(maps[0]) == flown.picture(stamp_ns) // STEP).mean() > 0.9
    assert (pictures[0].encoding, pictures[0].width, pictures[0].height) == ("bgr8", 512, 512)


def test_what_is_missing_or_faulty_is_said_and_nothing_is_published(flight, graph):
    flown = flight()
    statuses = graph.diagnostics()

    def refusal(words: str) -> None:
        wait_until(lambda: any(words in s.data.get("last_refusal", "") for s in statuses), 10.0, f"'{words}' said")

    assert flown.see(without=("camera_info", "prior")).reason == "no thermal/camera_info yet"
    status = flown.see(without=("prior",))
    assert (status.verdict, status.reason) == ("no_input", "no prior position yet")
    refusal("fixes: no prior position yet")
    flown.prior(START_NS, latitude=float("nan"))
    refusal("no place on earth")
    assert flown.see(without=("prior",)).verdict == "no_input"
    assert "no attitude" in flown.see(without=("attitude",)).reason
    assert flown.see().verdict not in ("no_input", "refused")
    flown.number += 8  # seconds later: what is known of the attitude is old
    status = flown.see(without=("attitude",))
    assert status.verdict == "no_input" and "no attitude near the frame" in status.reason
    stamp_ns = flown.next_stamp()
    flown.sensors(stamp_ns)
    small = Intrinsics.from_field_of_view(160, 128, np.radians(57.0))
    flown.send(flown.picture(stamp_ns, small), stamp_ns)
    status = flown.outcome(stamp_ns)
    assert status.verdict == "refused" and "160x128" in status.reason and "320x256" in status.reason
    stamp_ns = flown.next_stamp()
    flown.sensors(stamp_ns)
    flown.send(flown.picture(stamp_ns), stamp_ns, data=b"cut")
    assert flown.outcome(stamp_ns).verdict == "refused" and "truncated" in flown.outcome(stamp_ns).reason
    last = flown.see()
    for late_ns in (stamp_to_ns(last.header.stamp), stamp_to_ns(last.header.stamp) - 200_000_000):
        flown.send(flown.picture(late_ns), late_ns)
        assert flown.outcome(late_ns, "before that of the one before").verdict == "refused"
        assert flown.see().verdict not in ("no_input", "refused")
    assert not [f for f in flown.fixes if stamp_to_ns(f.header.stamp) not in
                {stamp_to_ns(s.header.stamp) for s in flown.status if s.verdict == "localized"}]
    assert len({stamp_to_ns(f.header.stamp) for f in flown.fixes}) == len(flown.fixes)


def test_frames_wait_for_readings_that_come_after_them_and_not_for_ever(flight, graph):
    flown = flight("-p", "sensor_wait_s:=1.0")
    flown.see()

    def send(*steps_ms: int) -> tuple[list[int], float]:
        """Frames whose readings end 0.15 s before; their stamps, and when the first was sent."""
        start_ns, began_s = flown.next_stamp(), time.monotonic()
        flown.readings(start_ns, (-200, -150))
        for step in steps_ms:
            time.sleep(0.1)
            flown.send(flown.picture(start_ns + step * 1_000_000), start_ns + step * 1_000_000)
        return [start_ns + step * 1_000_000 for step in steps_ms], began_s + 0.1

    stamps, _ = send(0, 30, 60)
    flown.readings(stamps[0], (-50, 0, 50, 100))
    assert [flown.outcome(stamp_ns).verdict for stamp_ns in stamps] == ["searching"] * 3
    (stamp_ns,), sent_s = send(0)
    assert flown.outcome(stamp_ns).reason.startswith("no attitude near the frame: the newest is 0.15 s older")
    assert 1.0 <= time.monotonic() - sent_s < 5.0
    (held_ns,), _ = send(0)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call(ChangeState, "/geo_localization/change_state", request).success
    flown.await_frame()
    flown.number += 1
    assert held_ns not in {stamp_to_ns(status.header.stamp) for status in flown.status}
    request = SetParameters.Request(parameters=[Parameter("sensor_wait_s", value=0.0).to_parameter_msg()])
    assert graph.call(SetParameters, "/geo_localization/set_parameters", request).results[0].successful
    (stamp_ns,), _ = send(0)
    assert flown.outcome(stamp_ns).verdict == "no_input"


def test_nothing_is_localized_where_the_prior_is_off_the_map(flight):
    flown = flight()
    for _ in range(3):
        stamp_ns = flown.next_stamp()
        flown.prior(stamp_ns, error_m=(9000.0, 0.0))
        flown.sensors(stamp_ns, without=("prior",))
        flown.send(flown.picture(stamp_ns), stamp_ns)
        assert flown.outcome(stamp_ns).verdict == "off_map"
    assert not flown.fixes


def test_a_prior_of_the_future_is_refused_and_what_is_wrong_for_long_is_warned_of(flight, graph):
    flown = flight("-p", "max_age_s:=1.0e8")  # START_NS is 9.6e7 s ago, and more
    statuses = graph.diagnostics()
    stamp_ns = flown.next_stamp()
    latitude, longitude = map(float, flown.map.grid.to_geographic(*flown.place(stamp_ns)))
    flown.prior(time.time_ns() + 120_000_000 * 10**9, latitude=latitude, longitude=longitude)
    wait_until(lambda: any("of the future says nothing of now" in s.data.get("last_refusal", "") for s in statuses),
               10.0, "the prior's refusal")
    assert flown.see(without=("prior",)).reason == "no prior position yet"
    flown.say(CameraInfo(header=flown.header(flown.next_stamp()), width=320, height=256, k=CAMERA.k.ravel(),
                         d=[-0.2, 0.1]))
    wait_until(lambda: statuses[-1].data.get("lens", "").startswith("thermal/camera_info tells of a distorted lens"),
               10.0, "the lens in the diagnostics")


def test_a_prior_without_a_covariance_is_as_rough_as_the_parameter_says(flight):
    flown = flight("-p", "prior_sigma_m:=20.0")
    stamp_ns = flown.next_stamp()
    flown.prior(stamp_ns, position_covariance_type=NavSatFix.COVARIANCE_TYPE_UNKNOWN)
    flown.sensors(stamp_ns, without=("prior",))
    flown.send(flown.picture(stamp_ns), stamp_ns)
    assert flown.outcome(stamp_ns).verdict in ("searching", "ambiguous")


def test_a_recording_that_starts_over_is_localized_again(flight):
    flown = flight()
    flown.fly(fixes=2)
    flown.start_ns, flown.number = START_NS - 3600 * 10**9, 0
    flown.fly(fixes=2)
    again = [stamp_ns for f in flown.fixes if (stamp_ns := stamp_to_ns(f.header.stamp)) < START_NS]
    assert len(again) >= 2 and again == sorted(again)


def test_a_node_that_is_killed_goes_on_where_it_was(flight):
    """Within five seconds of flight; from the rough position alone it takes three times as long."""
    flown = flight()
    flown.fly(fixes=3)
    flown.node.kill()
    before = len(flown.status)
    flown.restart()
    flown.number += 8
    begun_ns, fixes = flown.next_stamp(), len(flown.fixes)
    flown.fly(fixes=3, frames=16)
    first, *_ = new = flown.fixes[fixes:]
    assert stamp_to_ns(first.header.stamp) - begun_ns < 5_000_000_000
    told = next(status for status in flown.status[before:] if status.verdict != "no_input")  # the IMU may come after it
    assert told.verdict == "searching" and "checked against new ground" in told.reason
    for fix in new:
        away = flown.map.grid.from_geographic(fix.latitude, fix.longitude) - flown.place(stamp_to_ns(fix.header.stamp))
        assert np.hypot(*away) < 8.0


def test_time_set_back_while_it_was_inactive_does_not_silence_it(flight, graph):
    flown = flight()
    flown.fly(fixes=2)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call(ChangeState, "/geo_localization/change_state", request).success
    flown.start_ns, flown.number = START_NS - 1000 * 10**9, 0
    flown.await_frame()
    flown.fly(fixes=2)
    assert stamp_to_ns(flown.fixes[-1].header.stamp) < START_NS


def test_a_map_removed_in_flight_is_still_in_hand(flight, map_path, tmp_path):
    copy = tmp_path / "copy.tif"
    shutil.copy(map_path, copy)
    flown = flight(path=copy)
    assert flown.see().verdict == "searching"
    copy.unlink()
    flown.fly(fixes=2)
    assert flown.node.process.poll() is None


@pytest.mark.parametrize("what, words", [
    ("none given", "no map given"), ("missing", "no such map"), ("cut", "not a whole GeoTIFF"),
    ("no map", "not a whole GeoTIFF")])
def test_a_map_that_cannot_be_used_is_one_fatal_line(start_node, map_path, model, tmp_path, what, words):
    path = tmp_path / "map.tif"
    if what == "cut":
        path.write_bytes(map_path.read_bytes()[:3000])
    elif what == "no map":
        path.write_text("no picture")
    given = () if what == "none given" else ("-p", f"map:={path}")
    node = start_node("geo_localization", *given, "-p", f"model:={model}")
    assert node.wait() == 2
    fatal = [line for line in node.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and words in fatal[0] and "Traceback" not in node.output, node.output


def test_a_model_that_is_no_segmenter_is_refused(start_node, map_path):
    node = start_node("geo_localization", "-p", f"map:={map_path}", "-p", "model:=yolo_compact")
    assert node.wait() == 2
    assert "a segmenter's classes are" in node.output and "Traceback" not in node.output


def test_without_a_map_the_node_stays_unconfigured_and_can_be_asked_again(graph, start_node, map_path, model, tmp_path):
    path = tmp_path / "late.tif"
    start_node("geo_localization", "-p", "autostart:=false", "-p", f"map:={path}", "-p", f"model:={model}")

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return graph.call(ChangeState, "/geo_localization/change_state", request).success

    assert not change(Transition.TRANSITION_CONFIGURE)
    assert graph.call(GetState, "/geo_localization/get_state", GetState.Request()).current_state.label == "unconfigured"
    shutil.copy(map_path, path)
    assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)


def test_a_replay_with_a_map_is_measured_against_the_truth(ros_domain, map_path, model, tmp_path):
    bag = Recording(map_path).write(tmp_path / "bag", frames=50)
    replay = run_replay(bag, map_path=map_path, segmenter=str(model), detect=False, rate=1.0)
    figures = replay.figures()
    assert figures["frames_in"] == 50 and set(replay.exit_codes.values()) == {0}
    assert figures["fixes"] >= 2 and figures["rejected"] >= 2  # the rest was overtaken
    assert figures["fix_median_m"] < 5.0 and figures["within_25m"] == 1.0
    assert 0.0 < figures["seconds_to_first_fix"] < 25.0 and figures["fix_latency_ms"]["median"] > 0.0
    stamps = {START_NS + round(number * PERIOD_S * 1e9) for number in range(1, 51)}
    assert replay.places.keys() <= stamps and sum(figures["verdicts"].values()) == len(replay.places)
    assert all(place.verdict == "localized" for place in replay.places.values() if place.fix is not None)


@pytest.fixture
def with_tf(tmp_path) -> str:
    """PYTHONPATH with a stand-in for tf2_ros, which has no wheel: transforms go to the topic tf_told."""
    (tmp_path / "tf2_ros.py").write_text(
        "from geometry_msgs.msg import TransformStamped\n"
        "class TransformBroadcaster:\n"
        "    def __init__(self, node): self.pub_tf = node.create_publisher(TransformStamped, 'tf_told', 10)\n"
        "    def sendTransform(self, transform): self.pub_tf.publish(transform)\n")
    from thermalreid_ros.ros.environment import process_environment

    return f"{tmp_path}:{process_environment().get('PYTHONPATH', '')}"


def test_an_odometry_in_the_maps_frame_is_no_child_of_it_and_that_is_said(flight, graph, with_tf):
    """That of MAVROS is in `map`; tf2 refuses a frame that is its own parent."""
    told, statuses = graph.collect(TransformStamped, "tf_told", qos.RESULTS), graph.diagnostics()
    flown = flight("-p", "map_frame:=odom", PYTHONPATH=with_tf)
    flown.fly(fixes=2)
    wait_until(lambda: statuses and "set map_frame to another name" in statuses[-1].data["tf"], 5.0, "the reason")
    assert not told and flown.node.output.count("set map_frame to another name") == 1


def test_map_to_odom_is_broadcast_where_tf2_is_installed(flight, graph, with_tf):
    told = graph.collect(TransformStamped, "tf_told", qos.RESULTS)
    flown = flight("-p", "map_frame:=town", PYTHONPATH=with_tf)
    flown.fly(fixes=2)
    wait_until(lambda: told, 5.0, "a transform")
    message, fix = told[0], flown.fixes[0]
    assert (message.header.frame_id, message.child_frame_id) == ("town", "odom") and message.header == Header(
        stamp=fix.header.stamp, frame_id="town")
    place = flown.place(stamp_to_ns(fix.header.stamp))
    t, q = message.transform.translation, message.transform.rotation
    # The odometry began 7 m east and 3 m south of its own origin.
    way = rotation_of_rpy(0.0, 0.0, -flown.convergence)[:2, :2] @ (place - flown.place(START_NS)) + (7.0, -3.0)
    found = rotation_of(np.array((q.x, q.y, q.z, q.w))) @ (*way, 0.0) + (t.x, t.y, t.z)
    assert np.hypot(*(found[:2] - place)) < 6.0
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert graph.call(ChangeState, "/geo_localization/change_state", request).success
    wait_until(lambda: graph.node.count_publishers("tf_told") == 0, 5.0, "end of the publisher")
