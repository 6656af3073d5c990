"""What may go wrong in a flight of all four nodes, one fault after another, over the shipped recording.

The recording is flown frame by frame: each waits for what the nodes make of the one before, however busy the machine
is, and times are those of the recording. What must hold: no fix is wrong or repeated, the other nodes go on, the
diagnostics say what happened, and within five seconds of the end of a fault fixes and detections come again.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from conftest import wait_until
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, NavSatFix

from thermalreid_ros.camera.geometry import LocalGrid, utm_zone
from thermalreid_ros.evaluation.recording import FRAME_TOPIC, read_truth
from thermalreid_ros.files import shipped
from thermalreid_ros.msg import DetectionArray, LocalizationStatus, MatchArray
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.bag import Bag
from thermalreid_ros.ros.convert import array_to_image, compressed_to_array, stamp_to_ns
from thermalreid_ros.ros.playback import _message_type

pytestmark = pytest.mark.slow

RECORDING = shipped("config") / "recordings" / "krems_day"
MAP = shipped("config") / "maps" / "krems.tif"
SENSORS = ("/thermal/camera_info", "/imu/data", "/odom", "/altitude", "/prior/fix")
SECOND = 1_000_000_000
AHEAD_NS = 60_000_000  # what other sensors say after a capture comes before the frame is through the network
RECOVERED_S = 5.0
WRONG_M = 25.0
STEP_WITHIN_S = 30.0  # for one frame, by the wall clock; a busy machine takes a second
START_WITHIN_S = 90.0

Change = Callable[[str, bytes], "bytes | None"]


class Flight:
    """The recording, the four nodes, and all that they say. `now_ns`: the capture of the last frame."""

    def __init__(self, graph, start_node, folder):
        self.graph, self.folder, self._start_node = graph, folder, start_node
        self._read()
        self.map = folder / "map.tif"
        shutil.copy(MAP, self.map)
        self.fixes = graph.collect(NavSatFix, "localization/fix", qos.RESULTS)
        self.status = graph.collect(LocalizationStatus, "localization/status", qos.RESULTS)
        self.detections = graph.collect(DetectionArray, "detections", qos.RESULTS)
        self.matches = graph.collect(MatchArray, "reid/matches", qos.RESULTS)
        self.said = graph.diagnostics()
        self.arguments = {
            "geo_localization": (f"map:={self.map}", "resume_s:=600.0"),
            "detection": ("semantics:=predicted", "semantics_wait_s:=2.0"),
            "reid": (f"map:={self.map}", f"probe_file:={self._probe()}", "probe_class:=car"),
            "probe_synthesis": ("probe_class:=car", "solar_hour:=12.0")}
        self.nodes = {name: self.start(name) for name in self.arguments}
        self._out = {topic: graph.node.create_publisher(_message_type(kind), topic.lstrip("/"), qos.RESULTS)
                     for topic, kind in self._types.items()}
        self._frames_out = graph.node.create_publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)
        self.next, self.now_ns = 0, 0
        wait_until(lambda: self._frames_out.get_subscription_count() == 3, START_WITHIN_S,
                   "three nodes that take frames")
        time.sleep(1.0)

    def _read(self) -> None:
        with Bag(RECORDING) as bag:
            self.truth = read_truth(bag)
            self.frames = [(m.stamp_ns, m.data) for m in bag.messages([FRAME_TOPIC])]
            self._sensors = [(m.stamp_ns, m.topic, m.data) for m in bag.messages(SENSORS)]
            self._types = {topic: kind for topic, kind in bag.topics.items() if topic in SENSORS}
        self._sent = 0

    def _probe(self):
        """A crop of the object that the recording follows."""
        stamp_ns, box = next(iter(self.truth.target.items()))
        pixels = compressed_to_array(deserialize_message(dict(self.frames)[stamp_ns], CompressedImage))[0]
        crop = pixels[int(box.y_min):math.ceil(box.y_max), int(box.x_min):math.ceil(box.x_max)]
        cv2.imwrite(str(self.folder / "probe.png"), crop)
        return self.folder / "probe.png"

    def start(self, name: str):
        arguments = [word for argument in (*self.arguments[name], "max_age_s:=0.0") for word in ("-p", argument)]
        if name != "probe_synthesis":
            arguments += ["-p", "threads:=1"]
        return self._start_node(name, "--params-file", str(shipped("config") / "thermalreid.yaml"), *arguments)

    def restart(self, name: str) -> None:
        """Start a node anew; returns when it takes frames."""
        self.nodes[name], since = self.start(name), len(self.said)
        wait_until(lambda: any(s.name == f"/{name}" and s.data.get("state") == "active" for s in self.said[since:]),
                   START_WITHIN_S, f"active {name}")
        time.sleep(1.0)  # discovery

    # one frame

    def sense(self, change: Change = lambda topic, data: data) -> int:
        """What the other sensors say around the next frame; its stamp."""
        stamp_ns = self.frames[self.next][0]
        while self._sent < len(self._sensors) and self._sensors[self._sent][0] <= stamp_ns + AHEAD_NS:
            _, topic, data = self._sensors[self._sent]
            if (changed := change(topic, data)) is not None:
                self._out[topic].publish(changed)
            self._sent += 1
        return stamp_ns

    def skip(self) -> None:
        """The camera gives no frame."""
        self.sense()
        self.next += 1

    def see(self, change: Change = lambda topic, data: data, spoil: Callable[[Image], Image] | None = None,
            without: tuple[str, ...] = ()) -> LocalizationStatus | None:
        """The next frame, spoilt maybe, and what the nodes make of it, other than those that are down; the status."""
        self.now_ns = stamp_ns = self.sense(change)
        compressed = deserialize_message(self.frames[self.next][1], CompressedImage)
        image = array_to_image(*compressed_to_array(compressed), compressed.header)
        self.next += 1
        time.sleep(0.05)  # on other topics: nothing else says that they have come before the frame
        self._frames_out.publish(image if spoil is None else spoil(image))
        awaited = {"geo_localization": self.status} | ({} if spoil else {
            "detection": self.detections} | ({} if "detection" in without else {"reid": self.matches}))
        for name, messages in awaited.items():
            if name not in without:
                wait_until(lambda: of(messages, stamp_ns), STEP_WITHIN_S, f"word of {name} on the frame")
        return None if "geo_localization" in without else of(self.status, stamp_ns)[0]

    def fly(self, seconds: float, **how) -> list[LocalizationStatus]:
        end_ns = self.frames[self.next][0] + round(seconds * SECOND)
        statuses = []
        while self.frames[self.next][0] < end_ns:
            statuses.append(self.see(**how))
        return statuses

    def find(self, fixes: int) -> None:
        """Fly until there are so many fixes more."""
        wanted = len(self.fixes) + fixes
        while len(self.fixes) < wanted:
            assert self.next < len(self.frames), f"{len(self.fixes)} fixes of {wanted}; {self.status[-1].reason}"
            status = self.see()
            wait_until(lambda: status.verdict != "localized" or of(self.fixes, self.now_ns), 5.0, "the fix")

    # what must hold

    def recovered(self, since_ns: int) -> None:
        """A fix of a frame within five seconds."""
        while not (self.fixes and stamp_to_ns(self.fixes[-1].header.stamp) >= since_ns):
            assert self.frames[self.next][0] - since_ns <= RECOVERED_S * SECOND, self.status[-1].reason
            status = self.see()
            wait_until(lambda: status.verdict != "localized" or of(self.fixes, self.now_ns), 5.0, "the fix")

    def was_said(self, node: str, *words: str) -> None:
        """In the diagnostics of a node, in what it says or refuses."""
        def look() -> bool:
            texts = [f"{s.message} {s.data.get('last_refusal', '')} {s.data.get('reason', '')}" for s in self.said
                     if s.name == f"/{node}"]
            return all(any(word in text for text in texts) for word in words)

        wait_until(look, 10.0, f"{words} in the diagnostics of {node}")

    def count(self, node: str, key: str) -> int:
        """A counter in the newest diagnostics of a node."""
        return int(next((s.data.get(key, 0) for s in reversed(self.said) if s.name == f"/{node}"), 0))

    def check(self) -> None:
        """No fix was wrong or repeated, each is of a frame that was localized; every node that was not killed lives."""
        stamps = [stamp_to_ns(fix.header.stamp) for fix in self.fixes]
        assert stamps == sorted(set(stamps))
        localized = {stamp_to_ns(s.header.stamp) for s in self.status if s.verdict == "localized"}
        assert set(stamps) <= localized
        errors = {stamp_ns: self.error_m(fix) for stamp_ns, fix in zip(stamps, self.fixes)}
        assert max(errors.values()) <= WRONG_M, errors
        assert {name: node.process.poll() for name, node in self.nodes.items()} == dict.fromkeys(self.nodes)
        assert not any("Traceback" in node.output for node in self.nodes.values())

    def error_m(self, fix: NavSatFix) -> float:
        true = self.truth.places[stamp_to_ns(fix.header.stamp)]
        grid = LocalGrid(utm_zone(*true), 0.0, 0.0)
        return float(np.hypot(*np.subtract(grid.from_geographic(fix.latitude, fix.longitude),
                                           grid.from_geographic(*true))))


def of(messages: list, stamp_ns: int) -> list:
    return [message for message in messages[-400:] if stamp_to_ns(message.header.stamp) == stamp_ns]


def without_attitude(topic: str, data: bytes) -> bytes | None:
    return None if topic == "/imu/data" else data


def prior_a_kilometre_off(topic: str, data: bytes) -> bytes:
    if topic != "/prior/fix":
        return data
    message = deserialize_message(data, NavSatFix)
    message.longitude += 1000.0 / (111_320.0 * math.cos(math.radians(message.latitude)))
    return serialize_message(message)


def smaller(image: Image) -> Image:
    return Image(header=image.header, width=320, height=256, encoding=image.encoding, step=320,
                 data=bytes(image.data[:320 * 256]))


def of_another_encoding(image: Image) -> Image:
    return Image(header=image.header, width=image.width, height=image.height, encoding="bgr8", step=image.step,
                 data=image.data)


def truncated(image: Image) -> Image:
    return Image(header=image.header, width=image.width, height=image.height, encoding=image.encoding,
                 step=image.step, data=image.data[:1000])


def of_no_size(image: Image) -> Image:
    return Image(header=image.header, encoding=image.encoding)


@pytest.fixture
def flight(graph, start_node, tmp_path):
    return Flight(graph, start_node, tmp_path)


def test_faults_of_the_sensors(flight):
    flight.find(fixes=4)

    # The camera stops for 10 s.
    fixes = len(flight.fixes)
    for _ in range(20):
        flight.skip()
        time.sleep(0.25)  # diagnostics go by the wall clock
    for node in ("geo_localization", "detection", "reid"):
        flight.was_said(node, "no frames on /thermal/image_raw")
    assert len(flight.fixes) == fixes
    flight.recovered(flight.frames[flight.next][0])

    # Half of the frames are corrupt.
    spoilt, whole = defaultdict(list), []
    for spoil in (smaller, of_another_encoding, truncated, of_no_size):
        spoilt[spoil.__name__].append(flight.see(spoil=spoil))
        whole.append(flight.see())
    assert {status.verdict for statuses in spoilt.values() for status in statuses} == {"refused"}
    assert all(status.reason for statuses in spoilt.values() for status in statuses)
    assert not {"refused", "no_input"} & {status.verdict for status in whole}
    bad_ns = {stamp_to_ns(status.header.stamp) for statuses in spoilt.values() for status in statuses}
    assert not bad_ns & {stamp_to_ns(message.header.stamp) for message in [*flight.detections, *flight.matches]}
    for node in ("geo_localization", "detection", "reid"):
        flight.was_said(node, "is empty: check the camera driver")  # the last of them
        wait_until(lambda: flight.count(node, "frames_refused") >= 3, 5.0, f"count of refusals of {node}")
    flight.recovered(flight.frames[flight.next][0])

    # Attitudes are missing for 5 s.
    fixes = len(flight.fixes)
    blind = flight.fly(5.0, change=without_attitude)
    assert {status.verdict for status in blind} == {"no_input"} and "no attitude near" in blind[-1].reason
    assert len(flight.fixes) == fixes
    flight.was_said("geo_localization", "no attitude near the frame")
    flight.recovered(flight.frames[flight.next][0])
    flight.check()


def test_a_prior_that_jumps_and_nodes_that_die(flight):
    flight.find(fixes=4)

    # The rough position is a kilometre off for 5 s: when it comes back the place is known as before.
    doubtful = flight.fly(5.0, change=prior_a_kilometre_off)
    jumped = [status for status in doubtful if "the prior has jumped" in status.reason]
    assert len(jumped) >= 6 and {status.verdict for status in jumped} == {"inconsistent"}
    flight.was_said("geo_localization", "the prior has jumped to ")
    flight.recovered(flight.frames[flight.next][0])

    # The detector is killed: places are found as before, and re-identification says what it lacks.
    flight.nodes["detection"].kill()
    fixes, detections = len(flight.fixes), len(flight.detections)
    flight.fly(3.0, without=("detection",))
    assert len(flight.fixes) > fixes and len(flight.detections) == detections
    time.sleep(3.5)
    flight.was_said("reid", "no detections on /detections")
    flight.restart("detection")
    flight.see()
    assert of(flight.detections, flight.now_ns) and of(flight.matches, flight.now_ns)

    # The map's file is removed: it is still open, so nothing changes.
    flight.map.unlink()
    fixes = len(flight.fixes)
    flight.fly(2.0)
    assert len(flight.fixes) > fixes

    # The localization is killed, and cannot start as long as its map is missing: detection goes on without it.
    flight.nodes["geo_localization"].kill()
    fixes, detections, matches = len(flight.fixes), len(flight.detections), len(flight.matches)
    flight.fly(3.0, without=("geo_localization",))
    assert len(flight.fixes) == fixes and len(flight.detections) == detections + 6 and len(flight.matches) > matches
    failed = flight.start("geo_localization")
    assert failed.wait(START_WITHIN_S) == 2
    fatal = [line for line in failed.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and "no such map" in fatal[0] and "Traceback" not in failed.output

    # With the map, it goes on where it was.
    shutil.copy(MAP, flight.map)
    flight.restart("geo_localization")
    status = flight.see()
    assert status.verdict == "searching" and "checked against new ground" in status.reason
    flight.recovered(stamp_to_ns(status.header.stamp))
    flight.fly(2.0)
    flight.check()
