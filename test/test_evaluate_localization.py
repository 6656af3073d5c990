"""Evaluation of localization: recordings read as a vehicle senses, honest figures, plots and the page's part."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from small_town import CENTRE, MAP

from thermalreid_ros.cli import main
from thermalreid_ros.evaluation import flight_input, localization, localization_plots, page_flight
from thermalreid_ros.evaluation.flight_input import (AltitudeEvent, AttitudeEvent, Flight, FlightInputError, FrameEvent,
                                                     OdometryEvent, PriorEvent)
from thermalreid_ros.evaluation.localization import (FlightRun, FrameOutcome, TrueLabels, flight_figures,
                                                     pooled_figures, run_filter)
from thermalreid_ros.evaluation.localization_drawing import covariance_ellipse, map_picture
from thermalreid_ros.evaluation.replay_places import PlaceRecord
from thermalreid_ros.files import shipped
from thermalreid_ros.evaluation.localization_single import SingleFrames
from thermalreid_ros.localization.types import LocalizationResult, PositionFix, Verdict
from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.ros.bag import Bag, message_types, write_bag

FLY = ["world", "fly", "--map", str(MAP), "--seed", "4", "--seconds", "3", "--rate", "2", "--size", "400", "--centre",
       f"{CENTRE[0]},{CENTRE[1]}", "--image-size", "128x96", "--probes", "1", "--depression", "60", "--altitude",
       "80.00001", "--prior-error", "40", "--compact", "--workers", "1"]


@pytest.fixture(scope="module")
def town():
    with SemanticMap.open(MAP) as semantic_map:
        yield semantic_map


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flight") / "bag"
    assert main([*FLY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def flight(recording, town):
    with Flight(recording, town, prior_error_m=50.0, seed=1) as flight:
        yield flight


# --- recordings ------------------------------------------------------------------------------------------------------

def test_a_compact_recording_is_small_and_complete(recording):
    with Bag(recording) as bag:
        assert {"/thermal/image_raw/compressed", "/truth/semantics/compressed", "/truth/fix", "/truth/pose",
                "/imu/data", "/odom", "/prior/fix", "/altitude", "/thermal/camera_info"} <= set(bag.topics)
        assert "/truth/instances" not in bag.topics and "/thermal/image_raw" not in bag.topics
        assert bag.custom["units"] == "agc8" and {"--compact", "80.00001"} <= {*bag.custom["command"].split()}
        imu = [message.stamp_ns for message in bag.messages(["/imu/data"])]
    assert np.allclose(np.diff(imu), 50e6)
    assert sum(file.stat().st_size for file in recording.iterdir()) < 150e3


def test_events_come_in_time_and_frames_after_what_was_sensed_then(flight):
    events = list(flight.events())
    kinds = {kind: [event for event in events if isinstance(event, kind)] for kind in (
        FrameEvent, AttitudeEvent, OdometryEvent, AltitudeEvent, PriorEvent)}
    assert len(kinds[FrameEvent]) == 6 and all(len(found) > 2 for found in kinds.values())
    for found in kinds.values():
        stamps = [event.stamp_ns for event in found]
        assert stamps == sorted(stamps)
    for frame in kinds[FrameEvent][:-1]:
        before = [event for event in events[:events.index(frame)] if isinstance(event, OdometryEvent)]
        assert before[-1].stamp_ns >= frame.stamp_ns
        assert frame.frame.raw.shape == (96, 128) and frame.frame.raw.dtype == np.uint8
    labelled = [event for event in flight.events(labels=True) if isinstance(event, FrameEvent)]
    assert [event.stamp_ns for event in labelled] == [event.stamp_ns for event in kinds[FrameEvent]]
    assert labelled[0].labels.shape == (24, 32) and labelled[0].frame is None


def test_what_is_sensed_is_the_truth_but_for_the_sensors_errors(flight, town):
    attitude, odometry, frames = {}, {}, []
    for event in flight.events(labels=True):
        if isinstance(event, AttitudeEvent):
            attitude[event.stamp_ns] = event.rotation
        elif isinstance(event, OdometryEvent):
            odometry[event.stamp_ns] = event.position_m
        elif isinstance(event, AltitudeEvent):
            assert 60 < event.height_m < 100
        elif isinstance(event, FrameEvent):
            frames.append(event)
        else:
            away = np.array([event.x, event.y]) - flight.place(event.stamp_ns)
            assert event.sigma_m == 50.0 and 0.1 < np.hypot(*away) < 250
    agree = []
    for frame in frames:
        height_m, true = flight.truth_poses[frame.stamp_ns]
        angle = np.arccos(0.5 * (np.trace(attitude[frame.stamp_ns] @ true.T) - 1.0))
        assert np.degrees(angle) < 8.0
        rows, columns = np.mgrid[0:24:2, 0:32:2]
        pixels = np.column_stack([4.0 * columns.ravel() + 2.5, 4.0 * rows.ravel() + 2.5])
        ground = localization.ground_offsets(flight.intrinsics, true, height_m, pixels) + flight.place(frame.stamp_ns)
        agree.append(np.mean(town.class_at(*ground.T) == frame.labels[rows.ravel(), columns.ravel()]))
    assert np.mean(agree) > 0.45  # turned by 180 degrees, or 50 m off, it would be a third
    first, last = (int(flight.stamps_ns[k]) for k in (0, -1))
    assert np.allclose((odometry[last] - odometry[first])[:2], flight.place(last) - flight.place(first), atol=4.0)


def test_the_prior_s_error_is_one_for_the_flight_and_follows_from_the_seed(recording, town):
    def errors(seed):
        with Flight(recording, town, prior_error_m=100.0, seed=seed) as flight:
            return [np.array([event.x, event.y]) - flight.place(event.stamp_ns) for event in flight.events()
                    if isinstance(event, PriorEvent)]

    one, again, other = errors(1), errors(1), errors(2)
    assert np.allclose(one, one[0], atol=1e-6) and np.allclose(one, again) and not np.allclose(one[0], other[0])
    drawn = np.array([errors(seed)[0] for seed in range(3, 33)])
    assert 70 < drawn.std() < 130
    with Flight(recording, town) as flight:  # the recording's own
        priors = [e for e in flight.events() if isinstance(e, PriorEvent)]
        assert priors[0].sigma_m == pytest.approx(40.0)


def test_recordings_of_something_else_are_refused(recording, town, tmp_path):
    with pytest.raises(FlightInputError, match="no /imu/data, /odom, .*not the recording of a flight"):
        Flight(shipped("config") / "recordings" / "hit_uav_night", town)
    other = tmp_path / "other.tif"
    with rasterio.open(MAP) as source:
        profile, bands, tags = source.profile, source.read(), source.tags()
    profile["transform"] = rasterio.Affine(0.5, 0.0, 600000.0, 0.0, -0.5, 5400000.0)
    with rasterio.open(other, "w", **{**profile, "driver": "GTiff"}) as file:
        file.write(bands)
        file.update_tags(**tags)
    with SemanticMap.open(other) as elsewhere, pytest.raises(FlightInputError, match=r"km off .*other.tif.*krems.tif"):
        Flight(recording, elsewhere)


@pytest.mark.parametrize("topic", ["/thermal/image_raw/compressed", "/thermal/camera_info", "/imu/data", "/odom",
                                   "/prior/fix", "/altitude", "/truth/fix"])
def test_a_topic_on_which_nothing_was_said_is_named(recording, town, tmp_path, topic):
    """ros2 bag record notes the topics that it listened to in vain, too."""
    with Bag(recording) as bag, Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {name: writer.add_connection(name, kind, typestore=message_types()) for name, kind in
                  bag.topics.items()}
        for message in bag.messages(set(bag.topics) - {topic}):
            writer.write(topics[message.topic], message.stamp_ns, message.data)
    with pytest.raises(FlightInputError, match=f"no message on {topic}; record"):
        Flight(tmp_path / "bag", town)


@pytest.mark.parametrize("command", [["target"], ["localization", "--semantics", "true", "--label-errors", "0.1",
                                                  "--single-frame-every", "0"]])
def test_a_recording_that_was_cut_is_measured_and_told(recording, tmp_path, capsys, command):
    with Bag(recording) as bag:
        messages = [(message.topic, message.stamp_ns, bag.decode(message)) for message in bag.messages()]
        while messages[-1][0] != "/truth/semantics/compressed":  # the true pose at the last frame is lost
            messages.pop()
        file = write_bag(tmp_path / "bag", messages, bag.custom) / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-20])
    told = f"{tmp_path / 'bag'}: the recording ends early, at message {len(messages)} of {len(messages)} ("
    assert main(["evaluate", *command, "--bag", str(tmp_path / "bag"), "--map", str(MAP), "--json",
                 str(tmp_path / "f.json")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["damage"].startswith(told) and told in capsys.readouterr().out
    assert figures["frames_without_truth"] == 1 and figures.get("frames", 5) == 5


@pytest.mark.parametrize("topic, change, words", [
    ("/prior/fix", {"latitude": np.nan}, r"a prior of \(nan"),
    ("/thermal/camera_info", {"k": np.zeros(9)}, "focal lengths")])
def test_what_is_wrong_in_a_recording_names_it(recording, tmp_path, capsys, topic, change, words):
    with Bag(recording) as bag:
        messages = [(message.topic, message.stamp_ns, bag.decode(message)) for message in bag.messages()]
    path = write_bag(tmp_path / "bag", [(name, stamp_ns, replace(message, **change) if name == topic else message)
                                        for name, stamp_ns, message in messages], {"units": "agc8"})
    for command in (["target"], ["localization", "--semantics", "true"]):
        assert main(["evaluate", *command, "--bag", str(path), "--map", str(MAP)]) == 2
        assert re.match(f"thermalreid: {path}: .*{words}", capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("error, words", [("UnitsError", "no units in metadata.yaml: its.*give the folder"),
                                          ("FrameError", "bag.mcap: the frame of")])
def test_only_what_units_explain_is_laid_to_them(recording, town, monkeypatch, error, words):
    def refuse(*_):
        raise getattr(flight_input, error)("no")

    monkeypatch.setattr(flight_input, "make_frame", refuse)
    with pytest.raises(FlightInputError, match=words), Flight(recording / "bag.mcap", town) as flight:
        next(flight.frames())


def test_units_that_are_not_known_are_said(recording, town):
    with pytest.raises(FlightInputError, match="no units in metadata.yaml: its.*give the folder"), \
            Flight(recording / "bag.mcap", town) as flight:
        next(flight.frames())


# --- labels ----------------------------------------------------------------------------------------------------------

@given(st.integers(0, 2**31), st.floats(0.05, 0.6))
@settings(max_examples=25, deadline=None)
def test_wrong_labels_are_as_frequent_as_asked_and_fixed_to_the_world(seed, share):
    cells = np.stack(np.meshgrid(np.arange(-60, 60), np.arange(-60, 60)), -1).reshape(-1, 2)
    chance, other = localization._hashed(cells, seed)
    assert abs((chance < share).mean() - share) < 0.03
    assert np.corrcoef(chance, other)[0, 1] < 0.05 and 0 <= other.min() and other.max() < 1
    assert np.array_equal(localization._hashed(cells[::-1], seed)[0][::-1], chance)


def test_true_labels_are_the_recording_s(flight):
    frames = [event for event in flight.events(labels=True) if isinstance(event, FrameEvent)]
    plain, spoilt = TrueLabels(flight), TrueLabels(flight, errors=0.3, seed=2)
    masks = [plain.label(frame) for frame in frames]
    assert all(np.array_equal(mask.labels, frame.labels) for mask, frame in zip(masks, frames))
    assert (masks[0].width, masks[0].height) == (128, 96) and masks[0].stamp_ns == frames[0].stamp_ns
    wrong = [np.mean(spoilt.label(frame).labels != frame.labels) for frame in frames]
    assert 0.1 < np.mean(wrong) < 0.5
    assert max(spoilt.label(frame).labels.max() for frame in frames) < CLASS_COUNT
    assert 0.0 < (ground_m := flight.ground_m()) < 4.0  # as high as hills are
    before = [spoilt.label(frame).labels for frame in frames]
    flight.truth_poses = {stamp: (z + 25.0, turn) for stamp, (z, turn) in flight.truth_poses.items()}
    flight.ground_m = lambda: ground_m + 25.0  # the same squares, whatever height is called zero
    assert all(np.array_equal(TrueLabels(flight, errors=0.3, seed=2).label(frame).labels, old)
               for frame, old in zip(frames, before))
    assert np.allclose(spoilt.confusion.sum(axis=1), 1.0) and spoilt.confusion[0, 0] == pytest.approx(0.7)


# --- figures ---------------------------------------------------------------------------------------------------------

def outcome(seconds, error=None, sigma=3.0, verdict=Verdict.SEARCHING, true=(100.0, 200.0), reason="7 points so far"):
    true = np.array(true)
    if error is None:
        result = LocalizationResult(int(seconds * 1e9), verdict, reason, spread_m=99.0)
        return FrameOutcome(seconds, result, true, None, float("nan"), False, 10.0, 20.0)
    error = np.array(error, np.float64)
    fix = PositionFix(int(seconds * 1e9), 48.4, 15.6, *(true + error), sigma**2 * np.eye(2), np.eye(3), 80.0, 0.01)
    result = LocalizationResult(int(seconds * 1e9), Verdict.LOCALIZED, "", fix, spread_m=sigma)
    return FrameOutcome(seconds, result, true, error, float(error @ error) / sigma**2, False, 10.0, 22.0)


def run_of(*outcomes, name="flight"):
    odometry = np.array([o.true_m + (3.0, 4.0) for o in outcomes])
    return FlightRun(name, outcomes, odometry, np.array([140.0, 230.0]), 50.0)


def test_figures_of_a_flight_are_those_of_its_fixes():
    errors = [(3.0, 4.0), (0.0, 10.0), (0.0, -20.0), (6.0, 8.0)]
    run = run_of(outcome(0.0), outcome(0.5, reason="12 points so far"), *(
        outcome(1.0 + k, error) for k, error in enumerate(errors)))
    figures = flight_figures(run)
    assert (figures["fixes"], figures["frames"], figures["rejected"]) == (4, 6, 2)
    assert figures["median_m"] == 10.0 and figures["within_10m"] == 0.75 and figures["within_25m"] == 1.0
    assert figures["p95_m"] == pytest.approx(18.5)
    assert figures["seconds_to_first_fix"] == figures["seconds_to_converge"] == 1.0
    assert figures["nees"] == pytest.approx((25 + 100 + 400 + 100) / 9 / 4) and figures["ellipse95"] == 0.25
    assert figures["success"] and figures["false_locks"] == 0 and figures["odometry_alone_m"] == 5.0
    assert figures["median_ms"] == 32.0 and figures["label_ms"] == 10.0
    assert figures["verdicts"] == {"localized": 4, "searching": 2} and figures["reasons"] == {"… points so far": 2}


def test_flights_without_fixes_false_locks_and_rates():
    never = run_of(*(outcome(k) for k in range(4)))
    false = run_of(outcome(0.0, (60.0, 0.0)), outcome(5.0, (1.0, 0.0)))
    good = [run_of(outcome(0.0), outcome(start, (1.0, 1.0))) for start in (10.0, 20.0)]
    assert flight_figures(never)["median_m"] is None and flight_figures(never)["seconds_to_first_fix"] is None
    assert flight_figures(false)["false_locks"] == 1 and not flight_figures(false)["success"]
    assert flight_figures(false)["seconds_to_first_fix"] == 0.0 and flight_figures(false)["seconds_to_converge"] == 5.0
    pooled = pooled_figures([never, false, *good])
    assert pooled["flights"] == 4 and pooled["success_rate"] == 0.5 and pooled["false_lock_rate"] == 0.25
    assert pooled["seconds_to_converge_50"] == 10.0 and pooled["seconds_to_converge_90"] is None
    assert pooled["without_uniform"] == {key: pooled[key] for key in pooled["without_uniform"]}
    assert pooled["fixes"] == 4 and pooled["rejected"] == 6 and pooled["within_25m"] == 0.75


class Told:
    """A localizer that is told everything and always answers with the truth, a little off."""

    def __init__(self, flight):
        self.flight, self.heard = flight, []

    def __getattr__(self, name):
        return lambda stamp_ns, *values: self.heard.append((name, stamp_ns))

    def process(self, mask, intrinsics):
        x, y = self.flight.place(mask.stamp_ns) + (1.0, 0.0)
        fix = PositionFix(mask.stamp_ns, 0.0, 0.0, x, y, np.eye(2), np.eye(3), 80.0, 0.0)
        return LocalizationResult(mask.stamp_ns, Verdict.LOCALIZED, "", fix)


def test_the_filter_is_fed_all_that_is_sensed_and_measured_against_the_truth(flight):
    told = Told(flight)
    run = run_filter(flight, told, TrueLabels(flight), every=2)
    assert {name for name, _ in told.heard} == {"add_attitude", "add_odometry", "add_altitude", "set_prior"}
    assert len(run.outcomes) == 6 and len(run.views) == 3
    figures = flight_figures(run)
    assert figures["median_m"] == pytest.approx(1.0) and figures["nees"] == pytest.approx(1.0)
    assert run.outcomes[0].error_m[1] == pytest.approx(-np.sin(flight.convergence_rad), abs=1e-9)  # true axes
    assert np.allclose(run.odometry_m[0], run.outcomes[0].true_m) and figures["odometry_alone_m"] < 4.0
    height_m, true = flight.truth_poses[run.views[0].mask.stamp_ns]
    assert abs(run.views[0].height_m - height_m) < 12 and np.trace(run.views[0].rotation @ true.T) > 2.95


def test_the_command_writes_its_contract(recording, tmp_path, capsys):
    own_map = tmp_path / MAP.name  # its tiles are described beside it
    own_map.write_bytes(MAP.read_bytes())
    assert main(["evaluate", "localization", "--bag", str(recording), "--map", str(own_map), "--prior-error", "20",
                 "--semantics", "true", "--single-frame-every", "3", "--json", str(tmp_path / "figures.json"),
                 "--plots", str(tmp_path / "plots")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    keys = {"median_m", "p95_m", "within_25m", "fixes", "frames", "rejected", "seconds_to_first_fix", "nees",
            "median_ms"}
    assert keys <= set(figures) and keys <= set(figures["single_frame"]) and figures["frames"] == 6
    methods = figures["single_frame"]["methods"]
    assert set(methods) == {"nearest_tile", "tile_refined", "refined"}
    assert all(method["frames"] == 2 for method in methods.values()) and methods["nearest_tile"]["accepted"] == 2
    assert len(figures["flights_each"]) == 1
    pictures = {path.name.rpartition("_")[2] for path in (tmp_path / "plots").iterdir()}
    assert pictures == {"track.png", "errors.png", "ambiguity.png", "recall.png"}
    assert "frames" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, fault", [
    (["--map", "/absent.tif"], "/absent.tif: no such map"),
    (["--map", str(MAP), "--prior-error", "-1"], "--prior-error: -1 is not positive"),
    (["--map", str(MAP), "--label-errors", "2"], "--label-errors: 2 is not from 0 to 1"),
    (["--map", str(MAP), "--label-errors", "0.2", "--semantics", "predicted"], "give --semantics true"),
])
def test_faults_of_the_user_are_one_line(arguments, fault, recording, capsys):
    try:
        code = main(["evaluate", "localization", "--bag", str(recording), "--semantics", "true", *arguments])
    except SystemExit as end:  # argparse's own way
        code = end.code
    said = capsys.readouterr().err
    assert code == 2 and fault in said and said.count("\n") == 1


# --- pictures --------------------------------------------------------------------------------------------------------

@given(st.floats(0.5, 30.0), st.floats(0.5, 30.0), st.floats(-3.0, 3.0))
@settings(max_examples=50, deadline=None)
def test_ellipses_are_those_of_their_covariances(long, short, angle):
    long, short = max(long, short) + 0.1, min(long, short)
    axis = np.array([np.cos(angle), np.sin(angle)])
    covariance = long**2 * np.outer(axis, axis) + short**2 * (np.eye(2) - np.outer(axis, axis))
    width, height, degrees = covariance_ellipse(covariance, chi2=1.0)
    assert (width, height) == (pytest.approx(2 * long), pytest.approx(2 * short))
    assert abs(axis @ (np.cos(np.radians(degrees)), np.sin(np.radians(degrees)))) == pytest.approx(1.0, abs=1e-3)


def test_the_map_below_tracks_is_north_up(town):
    west, south, east, north = town.bounds
    picture = map_picture(town, np.array([0.0, north]), (200.0, 100.0), 2.0)
    assert picture.shape == (50, 100, 3) and (picture[:25] == 255).all() and (picture[:, :50] == 255).all()
    assert (picture[25:, 50:] < 255).any(axis=2).mean() > 0.9


def test_plots_are_drawn_with_and_without_fixes(town, tmp_path):
    for name, run in (("some", run_of(outcome(0.0), outcome(1.0, (1.0, 2.0)), outcome(2.0, (2.0, 2.0)))),
                      ("none", run_of(outcome(0.0), outcome(1.0)))):
        localization_plots.plot_track(tmp_path / f"{name}_track.png", run, town)
        localization_plots.plot_errors(tmp_path / f"{name}_errors.png", run)
    localization_plots.plot_recall(tmp_path / "recall.png", {"refined": ([1.0, 20.0], 3), "nothing": ([], 3)})
    assert len(list(tmp_path.iterdir())) == 5 and all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_the_page_shows_what_was_published(flight, town):
    stamps = [int(stamp_ns) for stamp_ns in flight.stamps_ns]
    places = {stamps[0]: PlaceRecord("searching", "3 points <of> evidence", 1.0)}
    for stamp_ns in stamps[1:-1]:
        latitude, longitude = town.grid.to_geographic(*(flight.place(stamp_ns) + (3.0, 4.0)))
        places[stamp_ns] = PlaceRecord("localized", "", 1.0, (float(latitude), float(longitude)), (16.0, 0.0, 0.0, 9.0),
                                       1.0)
    shown = page_flight.shown_flight(flight, town, places)
    assert [frame.error_m is None for frame in shown.frames] == [True, False, False, False, False, True]
    assert shown.frames[1].error_m == pytest.approx(5.0, abs=1e-3) and shown.frames[1].held
    assert shown.frames[-1].verdict == "overtaken"
    text = page_flight.flight_section(shown, town)
    data = json.loads(re.search(r"const frames = (\[.*?\]), reach = ", text, re.S)[1])
    assert len(data) == 6 and data[1]["error"] == 5.0 and data[0]["fix"] is None
    assert all(item["picture"].startswith("data:image/webp;base64,") for item in data)
    scale = np.hypot(*np.subtract(data[1]["fix"], data[1]["true"])) / 5.0  # pixels a metre
    assert data[1]["fix"][0] > data[1]["true"][0] and data[1]["fix"][1] < data[1]["true"][1]  # north is up
    assert data[1]["ellipse"][0] == pytest.approx(4.0 * np.sqrt(localization.CHI2_95) * scale, rel=0.05)
    assert "4 / 6" in text and "5.0 m" in text and "$" not in re.sub(r"\$\{", "", text.split("<script>")[0])
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", text)
    assert text.count("<script>") == text.count("</script>") == 1


def test_flight_input_keeps_attitude_at_fifty_hertz_at_most(flight):
    stamps = [event.stamp_ns for event in flight.events() if isinstance(event, AttitudeEvent)]
    assert min(np.diff(stamps)) >= flight_input.ATTITUDE_PERIOD_NS


def test_the_shipped_flight_is_whole_and_small(town):
    folder = shipped("config") / "recordings" / "krems_day"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.5e6
    with Flight(folder, town) as flight:
        assert len(flight.stamps_ns) == 120 and flight.seconds[-1] == pytest.approx(59.5)
        assert all(flight.on_map(place) for place in flight.truth_m) and "ODbL" in flight.custom["attribution"]
        assert sum(1 for _ in flight.pictures()) == 120


def test_plots_of_no_single_frame_make_no_figures_of_it():
    single = SingleFrames(0, {"threads": 1}, None)
    assert single.errors() == {"refined, accepted": ([], 0)} and single.figures("refined") is None
