"""The probe of a replay: crop or photograph, what fits a recording, and what the recording knows of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_synthesis import street
from tiny_models import red_is_warm

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.recording import Truth, read_units
from thermalreid_ros.evaluation.replay import run_replay
from thermalreid_ros.evaluation.replay_probe import camera_units, own_card, probe_parameters, recorded_weather
from thermalreid_ros.ros.bag import message_types, write_bag

START_NS = 1_752_580_800_000_000_000  # 2025-07-15T12:00:00Z
WEATHER = {"air_mean_k": 293.0, "air_amplitude_k": 6.0, "vapour_pressure_hpa": 13.0, "cloud_cover": 0.25}


@pytest.fixture
def photograph(tmp_path) -> Path:
    (tmp_path / "probes").mkdir()
    path = tmp_path / "probes" / "red car.png"
    cv2.imwrite(str(path), street()[..., ::-1])
    return path


def test_a_photograph_goes_to_the_synthesis_and_a_crop_to_reid(photograph, tmp_path):
    parameters = probe_parameters(photograph, "car", "centikelvin", {"air_c": 21.0})
    assert parameters == {"reid": {}, "probe_synthesis": {"probe_files": [str(photograph)], "probe_class": "car",
                                                          "probe_id": "red car", "air_c": 21.0}}
    assert probe_parameters(photograph, "", "celsius_f32", {})["probe_synthesis"]["probe_class"] == "any"
    for units, crop in (("agc8", street()[..., 0]), ("centikelvin", street()[..., 0].astype(np.uint16) + 29000)):
        cv2.imwrite(str(tmp_path / "crop.png"), crop)
        assert probe_parameters(tmp_path / "crop.png", "", units, {}) == \
            {"reid": {"probe_file": str(tmp_path / "crop.png"), "probe_class": ""}}


def test_a_length_goes_where_the_probe_goes_and_one_that_cannot_be_is_refused(photograph, tmp_path):
    told = probe_parameters(photograph, "car", "centikelvin", {}, 4.3, 0.02)["probe_synthesis"]
    assert (told["probe_length_m"], told["probe_length_error"]) == (4.3, 0.02)
    cv2.imwrite(str(tmp_path / "crop.png"), street()[..., 0])
    told = probe_parameters(tmp_path / "crop.png", "dog", "agc8", {}, 0.6)["reid"]
    assert (told["probe_length_m"], told["probe_length_error"]) == (0.6, 0.05)
    for probe, class_name in ((tmp_path / "crop.png", "dog"), (photograph, "dog")):
        with pytest.raises(ThermalReidError, match="a length of 40 m: a dog is 0.2 to 2 m long"):
            probe_parameters(probe, class_name, "celsius_f32" if probe is photograph else "agc8", {}, 40.0)


def test_what_does_not_fit_the_recording_is_refused(photograph, tmp_path):
    for units in ("agc8", "counts"):
        with pytest.raises(ThermalReidError, match=f"red car.png: .*gives '{units}'; give a thermal crop"):
            probe_parameters(photograph, "car", units, {})
    cv2.imwrite(str(tmp_path / "tiny.png"), street()[60:70, 120:130, ::-1])
    with pytest.raises(ThermalReidError, match="tiny.png: 10x10 px"):
        probe_parameters(tmp_path / "tiny.png", "car", "centikelvin", {})


def test_the_weather_is_that_of_the_flight():
    """Krems at 11:00 UTC is at solar noon, not yet at the day's warmest, of mean + 2 x amplitude x 0.44."""
    custom = {"weather": json.dumps(WEATHER), "time": "2025-07-15T11:00:00+00:00"}
    truth = Truth({}, {}, {}, {1: (48.4, 15.6)})
    told = recorded_weather(Path("bag"), custom, truth)
    assert told["cloud_cover"] == 0.25 and 19.85 + 2.0 < told["air_c"] < 19.85 + 12.0 * 0.45
    assert recorded_weather(Path("bag"), {}, truth) == {}
    assert recorded_weather(Path("bag"), custom, Truth({}, {}, {})) == {}
    for damage in ({"weather": '{"foo": 1}'}, {"weather": "{"}, {"weather": "[]"}, {"time": "yesterday"}):
        with pytest.raises(ThermalReidError, match="^bag: its custom data tell no weather"):
            recorded_weather(Path("bag"), custom | damage, truth)


def test_units_are_told_by_recording_or_parameters(tmp_path):
    (tmp_path / "own.yaml").write_text("/**/reid:\n  ros__parameters:\n    thermal_units: optris\n")
    (tmp_path / "none.yaml").write_text("/**/detection:\n  ros__parameters: {}\n")
    assert camera_units(tmp_path / "own.yaml", {"thermal_units": "centikelvin"}) == "centikelvin"
    assert camera_units(tmp_path / "own.yaml", {}) == "optris" and camera_units(tmp_path / "none.yaml", {}) == "agc8"
    (tmp_path / "all.yaml").write_text("/**:\n  ros__parameters: {thermal_units: decikelvin}\n")
    assert camera_units(tmp_path / "all.yaml", {}) == "decikelvin"


def test_the_recording_knows_its_own_photographs(photograph, tmp_path):
    card = {"identity": "car-0007", "class_name": "car", "pictures": [{"file": photograph.name, "box": [1, 2, 3, 4]}]}
    (photograph.parent / "probe.json").write_text(json.dumps(card))
    assert own_card(tmp_path / "bag", photograph, {"target": "car-0007"}) == card
    assert own_card(tmp_path / "bag", photograph, {"target": "car-0008"}) is None
    told = probe_parameters(photograph, "", "celsius_f32", {})["probe_synthesis"]
    assert (told["probe_class"], told["box"]) == ("car", [1.0, 2.0, 3.0, 4.0])
    assert probe_parameters(photograph, "dog", "celsius_f32", {})["probe_synthesis"]["probe_class"] == "dog"
    (tmp_path / "copy.png").write_bytes(photograph.read_bytes())
    (tmp_path / "other.png").write_bytes(b"another")
    assert own_card(tmp_path / "bag", tmp_path / "copy.png", {"target": "car-0007"}) == card
    assert own_card(tmp_path / "bag", tmp_path / "other.png", {"target": "car-0007"}) is None
    assert own_card(tmp_path / "bag", None, {}) is None
    card["pictures"].insert(0, {"file": "gone.png"})
    (photograph.parent / "probe.json").write_text(json.dumps(card))
    assert own_card(tmp_path / "bag", photograph, {"target": "car-0007"}) == card


@pytest.mark.parametrize("text", ["{{{", "[]", '{"pictures": 1}', "stamp_ns: x"])
def test_a_damaged_card_is_told_before_the_flight(photograph, text):
    probe = photograph.rename(photograph.with_name("probe.png"))
    for bag, card in ((probe.parent.parent / "bag", "probe.json"), (probe.parent, "probe.yaml")):
        probe.with_name(card).write_text(text)
        with pytest.raises(ThermalReidError, match=rf"^\S*{card}: no card of probes \([^\n]*$"):
            own_card(bag, probe, {})


def test_units_that_no_camera_has_are_told_of_the_recording():
    with pytest.raises(ThermalReidError, match="bag: its custom data say units 'kelvinish'; say one of centikelvin"):
        read_units(SimpleNamespace(path="bag", custom={"units": "kelvinish"}))


def test_a_photograph_is_searched_in_a_recording(photograph, tmp_path, ros_domain):
    """The nodes as processes; the detector sees nothing, but each frame is ranked against the probe once it is made."""
    types = message_types().types
    messages = []
    for number in range(8):
        stamp_ns = START_NS + number * 500_000_000
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), "camera")
        frame = np.random.default_rng(number).integers(29300, 29340, (256, 320)).astype(np.uint16)
        messages.append(("/thermal/image_raw", stamp_ns, types["sensor_msgs/msg/Image"](
            header, 256, 320, "mono16", 0, 640, frame.view(np.uint8).ravel())))
        status = types["sensor_msgs/msg/NavSatStatus"](0, 1)
        messages.append(("/prior/fix", stamp_ns, types["sensor_msgs/msg/NavSatFix"](
            header, status, 48.0, 0.0, 0.0, np.zeros(9), 0)))
    bag = write_bag(tmp_path / "bag", messages, {})
    model = red_is_warm(tmp_path / "red.onnx")
    parameters = {"reid": "thermal_units: centikelvin", "detection": "thermal_units: centikelvin",
                  "probe_synthesis": f"model: {model}\n    air_c: 20.0"}
    (tmp_path / "own.yaml").write_text("".join(f"/**/{node}:\n  ros__parameters:\n    {lines}\n"
                                               for node, lines in parameters.items()))
    replay = run_replay(bag, probe=photograph, probe_class="car", rate=0.5, params_file=tmp_path / "own.yaml")
    assert replay.diagnostics["probe_synthesis"]["probe"].startswith(
        "'red car', car: 3 of 1 photograph(s), at solar hour 12.0")
    figures = replay.figures()
    assert figures["frames_in"] == 8 and 1 <= figures["frames_matched"] <= 8
    assert figures["reasons"]["reid_r1"] == "the recording does not know which object this probe shows"
    assert set(replay.exit_codes.values()) == {0}
