"""The node `probe_synthesis` on the live graph: photographs by topic, file and parameter, hours, and faults.

Its model calls red the object: 10 K above the air and an eighth of the solar hour more, see tiny_models.red_is_warm.
"""

import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, wait_until
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, NavSatFix
from std_msgs.msg import Header
from test_reid_node import Flight, scene
from test_synthesis import street
from tiny_models import red_is_warm, shapes_alone, tells_lengths

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.msg import ThermalProbe
from thermalreid_ros.nodes.probe_synthesis import LOOK_AT_CLOCK_S
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.photograph_length import freed
from thermalreid_ros.reid.probe import make_probe
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image, image_to_array, ns_to_stamp
from thermalreid_ros.ros.reid_output import message_to_probe

NOON_NS = 1_752_580_800_000_000_000  # 2025-07-15T12:00:00Z
HOUR_NS = 3_600_000_000_000
AT_NOON = ("-p", "solar_hour:=12.0", "-p", "latitude_deg:=48.0", "-p", "longitude_deg:=0.0", "-p", "air_c:=20.0")
CAR = ("-p", "probe_class:=car")
MEANS_C = [31.5, 28.5, 36.5]  # of a car at noon in air of 20 C


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return red_is_warm(tmp_path_factory.mktemp("model") / "red.onnx")


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two photographs of one car."""
    paths = [tmp_path / "front.png", tmp_path / "side.jpg"]
    for path, box in zip(paths, ((120, 60, 180, 90), (40, 100, 100, 160))):
        cv2.imwrite(str(path), street(box)[..., ::-1])
    return [str(path) for path in paths]


class Operator:
    """Shows photographs, hears probes and diagnostics."""

    def __init__(self, graph):
        self._graph = graph
        self.probes: list[ThermalProbe] = graph.collect(ThermalProbe, "probe/thermal", qos.PROBES_IN)
        self.statuses = graph.diagnostics()

    def show(self, picture: np.ndarray, encoding: str = "rgb8") -> None:
        self._publish(Image, "probe/image", array_to_image(picture, encoding, Header()))

    def show_bytes(self, data: bytes) -> None:
        self._publish(CompressedImage, "probe/image/compressed", CompressedImage(format="jpeg", data=data))

    def set(self, **values):
        """All parameters in one call of the node's own service; the response."""
        return self._graph.call(SetParametersAtomically, "/probe_synthesis/set_parameters_atomically",
                                SetParametersAtomically.Request(parameters=[
                                    Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]))

    def probe(self, count: int) -> ThermalProbe:
        """The count-th one."""
        wait_until(lambda: len(self.probes) >= count, 10.0, f"probe {count}")
        return self.probes[count - 1]

    def wait_for(self, key: str, text: str) -> None:
        wait_until(lambda: any(text in status.data.get(key, "") for status in self.statuses), 10.0,
                   f"'{text}' in {key} of the diagnostics")

    def _publish(self, kind: type, topic: str, message) -> None:
        name = f"_{kind.__name__}"
        if name not in self.__dict__:
            self.__dict__[name] = self._graph.publisher(kind, topic, qos.RESULTS)
        self.__dict__[name].publish(message)


def hottest(probe: ThermalProbe) -> list[float]:
    """Of each image, the object's degrees Celsius; edges mix with the air."""
    return [round(float(image_to_array(image).max()), 3) for image in probe.images]


def test_files_become_one_probe_for_latecomers_too(graph, start_node, model, files):
    node = start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", f"probe_files:={files}",
                      "-p", "probe_id:=red car")
    node.wait_for_line("probe made")
    operator = Operator(graph)  # after it was published
    probe = operator.probe(1)
    assert (probe.probe_id, probe.class_name, probe.units) == ("red car", "car", "celsius_f32")
    assert hottest(probe) == MEANS_C * 2
    assert {image.encoding for image in probe.images} == {"32FC1"} and probe.header.stamp.sec > 0
    used = make_probe([image_to_array(image) for image in probe.images], probe.units, probe.probe_id, probe.class_name)
    assert len(used.signatures) == 6  # what the reid node makes of it
    operator.wait_for("probe", "6 of 2 photograph(s), at solar hour 12.0")
    operator.wait_for("model", "red")
    assert node.stop(signal.SIGINT) == 0 and "Traceback" not in node.output


def test_probes_are_described_where_there_is_an_embedding(graph, start_node, model, files, tmp_path):
    embedding = shapes_alone(tmp_path / "shapes.onnx")
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", f"probe_files:={files}",
               "-p", f"embedding:={embedding}")
    operator = Operator(graph)
    message = operator.probe(1)
    assert (message.descriptor_model, message.descriptor_size, len(message.descriptors)) == ("shapes", 64, 8 * 64)
    probe = message_to_probe(message)  # as the reid node reads it
    assert probe.descriptors.shape == (2 + 6, 64)
    lengths = np.linalg.norm(probe.descriptors, axis=1)  # each the mean of a picture's and its mirror image's
    assert 0.5 < lengths.min() <= lengths.max() < 1.0 + 1e-5
    # To this embedding a photograph and what is made of it are one shape.
    vectors = [vector / np.linalg.norm(vector) for vector in (probe.photograph, probe.descriptor(1.0))]
    assert vectors[0] @ vectors[1] > 0.9
    operator.wait_for("embedding", "shapes on cpu")


def test_a_length_that_is_told_travels_with_the_probe(graph, start_node, model, files):
    node = start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", f"probe_files:={files}",
                      "-p", "count:=1", "-p", "probe_length_m:=4.3", "-p", "length_model:=''")
    operator = Operator(graph)
    message = operator.probe(1)
    assert (message.length_m, message.length_error) == pytest.approx((4.3, 0.05))
    assert message_to_probe(message).length == ToldLength(4.3, 0.05)
    assert operator.set(probe_length_m=12.0, probe_length_error=0.1).result.successful
    assert message_to_probe(operator.probe(2)).length == ToldLength(12.0, 0.1)
    assert operator.set(probe_length_m=40.0).result.successful  # judged later, on the worker thread
    operator.wait_for("last_refusal", "a length of 40 m: a car is 2 to 20 m long; give its longest side in metres")
    assert not operator.set(probe_length_error=0.9).result.successful
    assert operator.set(probe_length_m=0.0).result.successful
    assert message_to_probe(operator.probe(3)).length is None and len(operator.probes) == 3
    # An impossible length keeps nothing from the object that is named with it: what is shown then is of that one.
    assert operator.set(probe_id="next", probe_length_m=40.0).result.successful
    operator.show(street())
    operator.wait_for("last_refusal", "probe/image: a length of 40 m")
    assert operator.set(probe_length_m=0.0).result.successful
    assert len(operator.probe(4).images) == 1 + len(operator.probe(3).images)
    assert node.process.poll() is None and "Traceback" not in node.output


def test_photographs_tell_the_length_that_nobody_tells(graph, start_node, model, files, tmp_path):
    known = float(np.log(4.4)), 0.08
    teller = tells_lengths(tmp_path / "teller.onnx", 4.8, 0.04, known=known)
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", f"probe_files:={files}", "-p",
               "count:=1", "-p", f"length_model:={teller}")
    operator = Operator(graph)
    told = message_to_probe(operator.probe(1)).length
    expected = freed(np.log(4.8), 0.04, *known, "car")
    assert (told.metres, told.error) == pytest.approx((expected.metres, expected.error), rel=1e-4)
    operator.wait_for("length_model", "teller on cpu")
    operator.wait_for("probe", f"'photograph', car, about {expected.metres:.1f} m long: 2 of 2")
    assert operator.set(probe_length_m=3.9).result.successful
    assert message_to_probe(operator.probe(2)).length == ToldLength(3.9, 0.05)
    assert operator.set(probe_length_m=0.0, probe_class="any").result.successful
    assert message_to_probe(operator.probe(3)).length is None


def test_a_class_that_is_not_given_is_recognised(graph, start_node, model, tmp_path):
    embedding = shapes_alone(tmp_path / "shapes.onnx", sure_of="bicycle")
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, "-p", "count:=1", "-p", f"embedding:={embedding}")
    operator = Operator(graph)
    operator.show(street())
    assert operator.probe(1).class_name == "bicycle"
    operator.wait_for("recognised", "bicycle, probability 0.999")
    operator.wait_for("probe", "'photograph', bicycle: 1 of 1 photograph(s)")
    operator.show(np.random.default_rng(1).integers((0, 100, 0), (40, 140, 40), (99, 99, 3), dtype=np.uint8))
    operator.wait_for("last_refusal", "photograph 2: no car, person, bicycle or dog was found in it")


def test_photographs_shown_join_those_before_and_a_new_name_begins_another_object(graph, start_node, model):
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", "count:=1")
    operator = Operator(graph)
    operator.show(street())
    assert hottest(operator.probe(1)) == MEANS_C[:1]
    operator.show(np.ascontiguousarray(street((40, 100, 100, 160))[..., ::-1]), "bgr8")
    assert hottest(operator.probe(2)) == MEANS_C[:1] * 2
    operator.show_bytes(cv2.imencode(".jpg", street()[..., ::-1])[1].tobytes())
    assert hottest(operator.probe(3)) == MEANS_C[:1] * 3
    assert operator.set(probe_id="bicycle", probe_class="any", air_c=10.0, count=3).result.successful
    operator.show(street((20, 20, 60, 120)))
    probe = operator.probe(4)
    assert (probe.probe_id, probe.class_name) == ("bicycle", "")
    assert hottest(probe) == [22.5, 15.5, 27.5]  # by the offsets of any class


def test_the_probe_is_made_again_when_the_hour_changes(graph, start_node, model, files):
    """Hour and place come from /clock and prior/fix. The place lies at 15 degrees east: an hour ahead of UTC."""
    start_node("probe_synthesis", "-p", f"model:={model}", *CAR, "-p", "count:=1", "-p", "air_c:=20.0",
               "-p", f"probe_files:=['{files[0]}']", "-p", "use_sim_time:=true")
    operator = Operator(graph)
    operator.wait_for("probe", "none yet: the node's clock does not run")
    clock = graph.publisher(Clock, "/clock", qos.CLOCK)
    clock.publish(Clock(clock=ns_to_stamp(NOON_NS)))
    operator.wait_for("probe", "none yet: the sun needs a place")
    assert not operator.probes
    prior = graph.publisher(NavSatFix, "prior/fix", qos.RESULTS)
    prior.publish(NavSatFix(latitude=48.0, longitude=15.0))
    assert hottest(operator.probe(1)) == [30.0 + 13.0 / 8]
    for passed_ns in (HOUR_NS // 4, HOUR_NS // 2):  # nothing new within the hour
        clock.publish(Clock(clock=ns_to_stamp(NOON_NS + passed_ns)))
        prior.publish(NavSatFix(latitude=48.0, longitude=15.0))
    clock.publish(Clock(clock=ns_to_stamp(NOON_NS + 3 * HOUR_NS)))
    assert hottest(operator.probe(2)) == [30.0 + 16.0 / 8]
    assert operator.probes[1].header.stamp.sec == (NOON_NS + 3 * HOUR_NS) // 10**9
    clock.publish(Clock(clock=ns_to_stamp(NOON_NS)))  # the recording starts over
    prior.publish(NavSatFix(latitude=48.0, longitude=15.0))
    assert hottest(operator.probe(3)) == [30.0 + 13.0 / 8] and len(operator.probes) == 3


def test_faulty_photographs_are_named_and_the_good_one_stays(graph, start_node, model, files, tmp_path):
    embedding = shapes_alone(tmp_path / "shapes.onnx")
    node = start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, "-p", "count:=1", "-p",
                      f"embedding:={embedding}")
    operator = Operator(graph)
    operator.show(street())
    operator.wait_for("last_refusal", "no class is given, and the photograph is car with a probability of 0.250 only; "
                      "set probe_class to car, person, bicycle, dog, or any")
    assert not operator.probes
    assert operator.set(probe_class="car").result.successful
    operator.show(street())
    operator.probe(1)

    lawn = np.random.default_rng(1).integers((0, 100, 0), (40, 140, 40), (99, 99, 3), dtype=np.uint8)
    for picture, encoding, complaint in (
            (lawn, "rgb8", "no car, person, bicycle or dog was found in it"),
            (street()[..., 0].copy(), "mono8", "no colours"),
            (np.repeat(street()[..., :1], 3, 2), "bgr8", "no colours"),
            (street()[:9, :9].copy(), "rgb8", "9x9 px"),
            (np.zeros((2, 9000, 3), np.uint8), "rgb8", "9000x2 px")):
        operator.show(picture, encoding)
        operator.wait_for("last_refusal", complaint)
    jpeg = cv2.imencode(".jpg", street()[..., ::-1])[1].tobytes()
    for data, complaint in ((jpeg[:4000], "cut or corrupt"), (b"nothing", "this is no photograph")):
        operator.show_bytes(data)
        operator.wait_for("last_refusal", complaint)
    for values, complaint in (({"probe_files": [str(tmp_path / "absent.jpg")]}, "absent.jpg: the photograph cannot"),
                              ({"probe_files": files, "box": [1.0, 2.0, 3.0]}, "box holds 3 numbers"),
                              ({"probe_files": files, "box": [5.0, 5.0, 6.0, 6.0]}, "smaller than 3 px")):
        assert operator.set(**values).result.successful  # judged later, on the worker thread
        operator.wait_for("last_refusal", complaint)
    assert not operator.set(probe_class="horse").result.successful

    assert operator.set(probe_files=files, box=[120.0, 60.0, 180.0, 90.0, 0.0, 0.0, 0.0, 0.0]).result.successful
    wait_until(lambda: operator.probes and len(operator.probes[-1].images) == 3, 10, "the probe of three photographs")
    assert hottest(operator.probes[-1]) == MEANS_C[:1] * 3
    assert node.process.poll() is None and "Traceback" not in node.output


def test_photographs_of_another_object_do_not_go_out_under_a_new_name(graph, start_node, model, files, tmp_path):
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", "count:=1",
               "-p", f"probe_files:={files}")
    operator = Operator(graph)
    operator.probe(1)
    absent = str(tmp_path / "absent.jpg")
    assert operator.set(probe_id="anna", probe_class="person", probe_files=[absent]).result.successful
    operator.wait_for("last_refusal", "absent.jpg: the photograph cannot")
    time.sleep(LOOK_AT_CLOCK_S + 1.0)  # when it looks at the clock
    assert {probe.probe_id for probe in operator.probes} == {"photograph"}
    assert operator.set(probe_files=files[:1]).result.successful
    wait_until(lambda: operator.probes[-1].probe_id == "anna", 10.0, "the probe of the photographs that are there")
    assert (operator.probes[-1].class_name, len(operator.probes[-1].images)) == ("person", 1)


def test_photographs_are_not_kept_where_class_and_files_are_set_one_after_the_other(graph, start_node, model, files,
                                                                                    tmp_path):
    """The two commands of docs/probes.md, the second with a name that is wrong."""
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", "count:=1",
               "-p", f"probe_files:={files}", "-p", "box:=[120.0, 60.0, 180.0, 90.0, 120.0, 60.0, 180.0, 90.0]")
    operator = Operator(graph)
    operator.probe(1)
    assert operator.set(probe_class="bicycle").result.successful
    operator.probe(2)
    assert operator.set(probe_files=[str(tmp_path / "absent.jpg")]).result.successful
    operator.wait_for("last_refusal", "8 numbers for 1 photographs")
    time.sleep(LOOK_AT_CLOCK_S + 1.0)
    assert operator.set(solar_hour=15.0).result.successful  # another hour: what there were would be made again
    assert operator.set(probe_files=[""]).result.successful  # which no box must prevent
    time.sleep(1.0)
    assert len(operator.probes) == 2


def test_a_told_length_must_be_one_of_the_class_that_is_recognised(graph, start_node, model, tmp_path):
    embedding = shapes_alone(tmp_path / "shapes.onnx", sure_of="dog")
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, "-p", "count:=1", "-p", f"embedding:={embedding}",
               "-p", "probe_length_m:=4.28")
    operator = Operator(graph)
    operator.show(street())
    operator.wait_for("last_refusal", "4.28")
    assert not operator.probes
    assert operator.set(probe_length_m=0.8).result.successful
    operator.show(street())
    assert (operator.probe(1).class_name, operator.probe(1).length_m) == ("dog", pytest.approx(0.8))


@pytest.mark.parametrize("options, complaint", [
    (("-p", "probe_files:=['/absent.png']", *CAR), "/absent.png: the photograph cannot be read"),
    (("-p", f"probe_files:=['{REPOSITORY / 'config' / 'recordings' / 'hit_uav_night' / 'probe.png'}']", *CAR), "px"),
    (("-p", "probe_files:=['/any.png']", "-p", "embedding:=''"), "no class is given, and there is no embedding"),
    (("-p", "model:=yolo_compact"), "'yolo_compact' does detection, not synthesis"),
])
def test_a_faulty_start_ends_with_one_line(start_node, model, options, complaint):
    node = start_node("probe_synthesis", *(() if "model" in options[1] else ("-p", f"model:={model}")), *options)
    assert node.wait() == 2
    assert complaint in node.output and "Traceback" not in node.output


def test_the_searched_object_is_found_by_its_made_probes(graph, start_node, model, files):
    """Of people at 23, 31.5 and 42 C, before 20 C, the one that is as warm as the model says comes first by Eq. (1)."""
    start_node("reid", "-p", f"thermal_units:={ThermalUnits.CENTIKELVIN.value}", "-p", "method:=thermal_signature")
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, "-p", "probe_class:=person", "-p", "count:=1",
               "-p", f"probe_files:=['{files[0]}']")
    flight = Flight(graph)
    grey, found = scene(((20, 30, 100), (100, 90, 162), (240, 150, 240)))
    frame = (29315 + 14.0 * (grey.astype(float) - 80)).astype(np.uint16)
    wait_until(lambda: flight.send(frame, found, encoding="mono16") and any(m.matches for m in flight.matches), 15,
               "matches")
    last = flight.matches[-1]
    assert (last.probe_id, len(last.matches)) == ("photograph", 3)
    assert last.matches[0].detection.x_min == 100.0


def test_a_camera_that_does_not_measure_refuses_it_with_the_reason(graph, start_node, model, files):
    start_node("reid")
    flight = Flight(graph)
    start_node("probe_synthesis", "-p", f"model:={model}", *AT_NOON, *CAR, "-p", f"probe_files:={files}")
    flight.wait_for_refusal("probe 'photograph' is in celsius but the camera gives grey")
