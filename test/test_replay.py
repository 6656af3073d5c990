"""`thermalreid replay`: the real nodes on a piece of the shipped recording, and their deaths."""

import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, wait_until
from thermalreid_ros.cli import main
from thermalreid_ros.cli.replay import summary
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.evaluation import replay as replay_module
from thermalreid_ros.evaluation.recording import Truth
from thermalreid_ros.evaluation.replay import (
    FrameRecord, MatchRecord, Replay, ReplayError, _check_place, _max_age_s, _misread, frame_topic, run_replay)
from thermalreid_ros.evaluation.replay_places import PlaceRecord, TargetRecord, errors_m
from thermalreid_ros.files import shipped
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.ros.bag import Bag, message_types, write_bag

NIGHT = shipped("config") / "recordings" / "hit_uav_night"
LIMIT_S = 90.0
PERSON = Detection(1, 0.9, 100.0, 100.0, 112.0, 130.0)
ELSEWHERE = Detection(1, 0.8, 300.0, 100.0, 312.0, 130.0)


def match(rank: int, box: Detection) -> MatchRecord:
    return MatchRecord(rank, rank, 1, box, 0.1 * rank, 0.1, 0.1)


def made_up_replay(tmp_path: Path) -> Replay:
    """Ten frames at 2 Hz; a person in each, whose probe was cut from the first. The third is dropped."""
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "probe.png").write_bytes(b"the probe")
    stamps = [10**9 + n * 500_000_000 for n in range(10)]
    frames = []
    for n, stamp_ns in enumerate(stamps):
        matches = (match(1, PERSON), match(2, ELSEWHERE)) if n % 2 else (match(1, ELSEWHERE), match(2, PERSON))
        frames.append(FrameRecord(stamp_ns, n, n + 0.020 + 0.001 * n, n + 0.05, 10.0, (PERSON, ELSEWHERE), matches))
    frames[2] = FrameRecord(stamps[2], 2.0)
    truth = Truth({stamp_ns: (PERSON, ELSEWHERE) for stamp_ns in stamps}, {}, dict.fromkeys(stamps, PERSON))
    return Replay(bag, bag / "probe.png", 1.0, 10, frames, {"detection": {"frames_superseded": "1",
                                                                        "frames_received": "10"}}, truth, {},
                  own={"stamp_ns": 10**9})


def test_figures_of_a_known_run(tmp_path: Path):
    pytest.importorskip("faster_coco_eval")
    replay = made_up_replay(tmp_path)
    figures = replay.figures()
    assert (figures["frames_in"], figures["frames_detected"]) == (10, 9)
    assert figures["frames_dropped"] == {"overtaken by a newer frame": 1}
    latencies = sorted(20.0 + n for n in range(10) if n != 2)
    assert figures["latency_ms"]["median"] == pytest.approx(latencies[4])
    assert figures["latency_ms"]["p99"] == pytest.approx(latencies[-2] + 0.92 * (latencies[-1] - latencies[-2]))
    assert figures["match_latency_ms"]["median"] == pytest.approx(50.0)
    assert figures["frames_per_s"] == pytest.approx(0.9)  # ten in ten seconds, one of them dropped
    assert figures["overhead_share"] is None and figures["memory_mb"] == {}
    replay.diagnostics["detection"] |= {"busy_s": "0.27", "in_models_s": "0.09", "own_cpu_s": "0.045",
                                        "frames_processed": "9"}
    assert replay.figures()["overhead_share"] == pytest.approx(0.02 / 0.05)
    assert replay.figures()["own_cpu_share"] == pytest.approx(0.005 / 0.05)
    assert figures["map50"] == pytest.approx(1.0)
    # Frame 0 is the probe's own, frame 2 was dropped; of the eight others, the five odd ones have it first.
    assert figures["reid_frames"] == 8 and figures["reid_r1"] == pytest.approx(5 / 8)
    assert figures["reid_guessing"] == pytest.approx(1 / 2)  # of two tracks
    assert figures["reasons"] == {"fix_median_m": "no map was given", "target_median_m": "no map was given"}


def test_tight_truth_is_compared_with_what_boxes_hold(tmp_path: Path):
    """The detector's margin is taken off before: in rendered flights alone."""
    pytest.importorskip("faster_coco_eval")
    replay = made_up_replay(tmp_path)
    small = {box: replace(box, x_max=box.x_min + 8.0, y_max=box.y_min + 10.0) for box in (PERSON, ELSEWHERE)}
    for frame in replay.frames:
        frame.detections = tuple(small[box] for box in frame.detections)
        frame.matches = tuple(replace(match, detection=small[match.detection]) for match in frame.matches)
    inner = [box.tight((640, 512)) for box in small.values()]
    objects, target = ({stamp_ns: value for stamp_ns in replay.truth.target} for value in (tuple(inner), inner[0]))
    replay.truth = Truth(objects, {}, target, tight_in=(640, 512))
    figures = replay.figures()
    assert figures["map50"] == pytest.approx(1.0) and figures["reid_r1"] == pytest.approx(5 / 8)
    replay.truth = Truth(objects, {}, target)
    figures = replay.figures()
    assert figures["map50"] == pytest.approx(0.0) and figures["reid_r1"] == 0.0


def test_frames_with_and_without_semantics_are_told_where_they_were_asked_for(tmp_path: Path):
    replay = made_up_replay(tmp_path)
    assert "frames_with_semantics" not in replay.figures()
    replay.diagnostics["detection"] |= {"frames_with_semantics": "7", "frames_without_semantics": "2"}
    figures = replay.figures()
    assert (figures["frames_with_semantics"], figures["frames_without_semantics"]) == (7, 2)
    with pytest.raises(ReplayError, match="needs a map"):
        run_replay(tmp_path / "bag", semantics="predicted")


def test_missed_objects_and_false_alarms_lower_the_figures(tmp_path: Path):
    pytest.importorskip("faster_coco_eval")
    replay = made_up_replay(tmp_path)
    for frame in replay.frames:
        frame.detections, frame.matches = frame.detections[:1], ()  # one of two objects found, nothing ranked
    figures = replay.figures()
    assert figures["map50"] == pytest.approx(51 / 101)  # precision 1 up to recall 0.5, of 101 recalls
    assert figures["reid_r1"] == 0.0


def test_what_cannot_be_measured_is_null_with_its_reason(tmp_path: Path):
    replay = made_up_replay(tmp_path)
    replay.truth = Truth({}, {}, {})
    replay.probe, replay.damage = None, "bag: the recording ends early"
    figures = replay.figures()
    assert figures["damage"] == replay.damage and summary(figures).endswith(f"\n{replay.damage}")
    assert figures["map50"] is None and figures["reid_r1"] is None
    assert figures["reasons"] == {"map50": "the recording holds no annotated objects", "reid_r1": "no probe was given",
                                  "fix_median_m": "no map was given", "target_median_m": "no probe was given"}
    replay.probe, replay.own = tmp_path / "other.png", None
    assert "does not know which object" in replay.figures()["reasons"]["reid_r1"]


def test_fixes_against_the_truth(tmp_path: Path):
    """At 48 degrees north 0.0001 degrees are 11.1 m to the north and 7.4 m to the east."""
    replay = made_up_replay(tmp_path)
    replay.map = tmp_path / "map.tif"
    stamps = [frame.stamp_ns for frame in replay.frames]
    replay.truth = replace(replay.truth, places={stamp_ns: (48.0, 16.0) for stamp_ns in stamps})
    said = [PlaceRecord("searching", "too little yet", said_s=k + 0.1) for k in range(4)]
    fixed = [PlaceRecord("localized", "", k + 0.2, (48.0 + north, 16.0 + east), (4.0, 0.0, 0.0, 4.0), k + 0.25)
             for k, (north, east) in zip(range(4, 9), ((1e-4, 0.0), (0.0, 1e-4), (3e-4, 0.0), (0.0, 0.0), (0.0, 1e-4)))]
    replay.places = dict(zip(stamps, [*said, *fixed]))  # of the last frame nothing was heard
    figures = replay.figures()
    assert (figures["fixes"], figures["rejected"], figures["false_fixes"]) == (5, 4, 0)
    assert figures["fix_median_m"] == pytest.approx(7.46, abs=0.05) and figures["within_25m"] == pytest.approx(0.8)
    assert figures["seconds_to_first_fix"] == pytest.approx(2.0)
    assert figures["fix_latency_ms"]["median"] == pytest.approx(250.0)
    assert figures["verdicts"] == {"localized": 5, "searching": 4}
    assert errors_m(replay.places, replay.truth.places)[stamps[6]] == pytest.approx(33.36, abs=0.1)
    replay.places[stamps[6]] = replace(replay.places[stamps[6]], fix=(48.0005, 16.0))
    assert replay.figures()["false_fixes"] == 1
    replay.truth = replace(replay.truth, places={})
    assert "does not know where" in replay.figures()["reasons"]["fix_median_m"]
    replay.places = dict(zip(stamps, said))
    figures = replay.figures()
    assert figures["fix_median_m"] is None and figures["seconds_to_first_fix"] is None and figures["fixes"] == 0
    assert figures["reasons"]["fix_median_m"] == "no frame was localized"


def test_targets_against_the_truth(tmp_path: Path):
    """The object is driving north; the third target is another object, the last comes when it is out of view."""
    replay = made_up_replay(tmp_path)
    replay.map = tmp_path / "map.tif"
    stamps = [frame.stamp_ns for frame in replay.frames]
    there = {stamp_ns: (48.0 + 1e-5 * n, 16.0) for n, stamp_ns in enumerate(stamps[:9])}
    replay.truth = replace(replay.truth, target_places=there)
    off = ((0.0, 0.0), (1e-5, 0.0), (1e-3, 0.0), (0.0, 2e-5))
    said = TargetRecord(3, 0.9, 5, (48.0, 16.0), (1.0, 0.0, 0.0, 0.16))
    replay.targets = {stamp_ns: replace(said, place=(there[stamp_ns][0] + north, 16.0 + east))
                      for stamp_ns, (north, east) in zip(stamps, off)}
    replay.targets[stamps[9]] = said
    figures = replay.figures()
    assert figures["targets"] == 5 and figures["target_right"] == pytest.approx(3 / 5)
    assert figures["target_median_m"] == pytest.approx(0.5 * (1.11 + 1.49), abs=0.02)
    assert figures["target_ellipse95"] == pytest.approx(2 / 3)  # 1.1 m north is too far, 1.5 m east is not
    replay.targets = {}
    replay.diagnostics["reid"] = {"target": "'p': none: not here"}
    assert replay.figures()["reasons"]["target_median_m"] == "no target was published; at the end, 'p': none: not here"


def piece_of_the_night(folder: Path, frames: int) -> Path:
    """The first frames of the shipped recording, as a recording."""
    with Bag(NIGHT) as bag:
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m, _ in zip(bag.messages(), range(5 * frames))]
    path = write_bag(folder / "piece", messages, {})
    for name in ("probe.png", "probe.yaml"):
        (path / name).write_bytes((NIGHT / name).read_bytes())
    return path


@pytest.fixture
def start_replay(start_process, tmp_path: Path):
    def start(*arguments: str | Path):
        code = "import sys; from thermalreid_ros.cli import main; sys.exit(main())"
        return start_process(sys.executable, "-c", code, "replay", *arguments,
                             PYTHONPATH=os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return start


def children(pid: int) -> dict[str, int]:
    """Process ids of the nodes that a process has started, by name."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found |= {Path(word).name: int(folder.name) for word in command if "lib/thermalreid_ros/" in word}
    return found


def still_there(nodes: dict[str, int]) -> dict[str, str]:
    """States of those processes that have not ended, by name."""
    return {name: (Path("/proc") / str(pid) / "status").read_text().split("State:")[1].split("\n")[0].strip()
            for name, pid in nodes.items() if Path(f"/proc/{pid}").exists()}


def test_replays_with_the_real_nodes(start_replay, tmp_path: Path):
    pytest.importorskip("faster_coco_eval")
    bag = piece_of_the_night(tmp_path, 12)
    replay = start_replay(bag, "--probe", bag / "probe.png", "--probe-class", "person", "--rate", "0.5",
                          "--json", tmp_path / "figures.json", "--report", tmp_path / "report")
    assert replay.wait(LIMIT_S) == 0, replay.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames_in"] == figures["frames_detected"] == figures["frames_matched"] == 12
    assert figures["frames_dropped"] == {}
    assert 0.0 < figures["inference_ms"]["median"] <= figures["latency_ms"]["median"] <= figures["latency_ms"]["p99"]
    assert figures["map50"] > 0.3 and 0.0 <= figures["reid_r1"] <= 1.0 and figures["reid_frames"] == 11
    assert "Traceback" not in replay.output
    page = (tmp_path / "report" / "index.html").read_text()
    assert "12 / 12" in page and str(tmp_path) not in page


def test_what_nodes_said_in_an_earlier_run_is_not_taken_for_theirs(ros_domain, tmp_path: Path):
    """As `ros2 bag record --all` has it in flight: after each frame what was detected, here nothing."""
    pytest.importorskip("faster_coco_eval")
    types = message_types().types
    with Bag(piece_of_the_night(tmp_path, 6)) as bag:
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages()]
    messages += [("/detections", stamp_ns + 400_000_000, types["thermalreid_ros/msg/DetectionArray"](
        message.header, 640, 512, "earlier", "none", 1.0, [])) for topic, stamp_ns, message in messages
        if topic == "/thermal/image_raw/compressed"]
    said: list[str] = []
    figures = run_replay(write_bag(tmp_path / "all", sorted(messages, key=lambda m: m[1]), {}), rate=0.5,
                         say=said.append).figures()
    assert any("without what nodes said in an earlier run: /detections" in line for line in said)
    assert figures["frames_in"] == figures["frames_detected"] == 6 and figures["map50"] > 0.3


def test_another_cameras_name_and_pictures_beside_it_do_not_keep_the_player_waiting(ros_domain, tmp_path: Path):
    """A thermal camera of its own name, and `record --all` of a second one and of a probe searched for in flight."""
    types = message_types().types
    with Bag(piece_of_the_night(tmp_path, 5)) as bag:
        messages = [(m.topic.replace("/thermal/", "/boson/"), m.stamp_ns, bag.decode(m)) for m in bag.messages()]
    picture, stamp_ns, message = next(m for m in messages if m[0] == "/boson/image_raw/compressed")
    messages.append(("/rgb/image_raw/compressed", stamp_ns + 1, message))
    messages.append(("/probe/thermal", stamp_ns, types["thermalreid_ros/msg/ThermalProbe"](
        header=message.header, probe_id="earlier", class_name="person", units="agc8", images=[], descriptors=np.zeros(
            0, np.float32), descriptor_size=0, descriptor_model="", length_m=0.0, length_error=0.0)))
    path = write_bag(tmp_path / "boson", sorted(messages, key=lambda m: m[1]), {"thermal": "boson"})
    said: list[str] = []
    figures = run_replay(path, probe=NIGHT / "probe.png", probe_class="person", rate=0.5, say=said.append).figures()
    assert figures["frames_in"] == figures["frames_detected"] == figures["frames_matched"] == 5
    assert any("earlier run: /probe/thermal" in line for line in said)


def test_counters_of_nodes_that_ran_before_begin_with_the_replay():
    before = {"frames_received": "100", "frames_superseded": "5", "busy_s": "9.500", "frames_with_semantics": "90",
              "frames_age_ms_median": "3.00", "model": "yolo_compact"}
    after = {**before, "frames_received": "215", "frames_superseded": "25", "busy_s": "12.250",
             "frames_with_semantics": "154", "frames_age_ms_median": "4.00", "frames_refused": "1"}
    assert replay_module._since(before, after) == {
        **after, "frames_received": "115", "frames_superseded": "20", "busy_s": "2.750", "frames_with_semantics": "64"}


def test_a_replay_is_alone_in_its_domain(start_node, ros_domain):
    start_node("detection", "-p", "thermal_units:=agc8")
    with pytest.raises(ReplayError, match="detection: run in this ROS domain already; end them, or .* --domain"):
        run_replay(NIGHT)


def test_a_recording_without_frames_is_refused(tmp_path: Path):
    """The camera was announced, and never said anything."""
    with Bag(piece_of_the_night(tmp_path, 2)) as bag:
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages()]
    path = write_bag(tmp_path / "none", messages, {}, storage="sqlite3")
    with closing(sqlite3.connect(path / "none.db3")) as database:
        database.execute("DELETE FROM messages WHERE topic_id = (SELECT id FROM topics WHERE name LIKE '%image_raw%')")
        database.commit()
    with pytest.raises(ReplayError, match="holds no message of /thermal/image_raw/compressed; record the flight again"):
        run_replay(path)


def test_nodes_that_run_already_are_measured_and_go_on(start_replay, start_node, tmp_path: Path):
    bag = piece_of_the_night(tmp_path, 8)
    nodes = [start_node(name, "-p", "use_sim_time:=true", "-p", "thermal_units:=agc8",
                        *(() if name == "detection" else ("-p", f"probe_file:={bag / 'probe.png'}")))
             for name in ("detection", "reid")]
    replay = start_replay(bag, "--probe", bag / "probe.png", "--rate", "0.5", "--running",
                          "--json", tmp_path / "figures.json")
    assert replay.wait(LIMIT_S) == 0, replay.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames_in"] == figures["frames_detected"] == figures["frames_matched"] == 8, figures
    assert figures["reid_frames"] == 7 and figures["memory_mb"].keys() == {"bag_player"}
    assert [node.process.poll() for node in nodes] == [None, None]
    assert [node.stop(signal.SIGINT) for node in nodes] == [0, 0]


def test_nodes_that_do_not_run_are_named(ros_domain, monkeypatch):
    monkeypatch.setattr(replay_module, "ACTIVE_WITHIN_S", 0.2)
    with pytest.raises(ReplayError, match="detection, reid: not active .* started in this ROS domain"):
        run_replay(NIGHT, running=True)


def test_kill_9_of_a_node_is_said_and_all_ends(start_replay, tmp_path: Path):
    replay = start_replay(NIGHT, "--rate", "1")
    replay.wait_for_line("playing 16 frames", LIMIT_S)
    wait_until(lambda: len(children(replay.process.pid)) == 3, 20, "three nodes")
    nodes = children(replay.process.pid)
    os.kill(nodes["detection"], signal.SIGKILL)
    assert replay.wait(30.0) == 2, replay.output
    assert "detection was ended by SIGKILL" in replay.output and "Traceback" not in replay.output
    assert still_there(nodes) == {}, replay.output


def test_ctrl_c_ends_all_processes(start_replay):
    replay = start_replay(NIGHT, "--rate", "1")
    replay.wait_for_line("playing 16 frames", LIMIT_S)
    wait_until(lambda: len(children(replay.process.pid)) == 3, 20, "three nodes")
    nodes = children(replay.process.pid)
    assert replay.stop(signal.SIGINT, 30.0) == 130, replay.output
    assert still_there(nodes) == {}, replay.output
    assert "Traceback" not in replay.output


def test_a_node_that_cannot_start_is_named_with_its_reason(start_replay):
    replay = start_replay(NIGHT, "--model", "/absent/model.onnx")
    assert replay.wait(LIMIT_S) == 2, replay.output
    assert "detection ended with exit code 2" in replay.output and "/absent/model.onnx" in replay.output
    assert "Traceback" not in replay.output


@pytest.mark.parametrize("arguments, fault", [
    ({"bag_path": "/absent"}, "/absent: no such recording"),
    ({"bag_path": NIGHT, "probe": "/absent.png"}, "/absent.png: the probe cannot be read"),
    ({"bag_path": NIGHT, "params_file": "/absent.yaml"}, "/absent.yaml: no such parameter file"),
    ({"bag_path": NIGHT, "map_path": "/absent.tif"}, "/absent.tif: no such map"),
    ({"bag_path": NIGHT, "detect": False}, "give a map"),
    ({"bag_path": NIGHT, "running": True, "model": "yolo_semantic"}, "parameters of their own"),
])
def test_faults_of_inputs_come_before_any_process(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        run_replay(**arguments)


def test_what_needs_a_probe_is_not_passed_over_without_one(capsys):
    for option in (["--probe-length", "4.3"], ["--method", "fused"], ["--embedding", "x"], ["--probe-class", "car"]):
        assert main(["replay", str(NIGHT), *option]) == 2
        assert f"{option[0]} is of the object to be found" in capsys.readouterr().err


def test_a_map_of_another_place_is_refused_before_any_process(tmp_path: Path):
    krems = shipped("config") / "maps" / "krems.tif"
    with SemanticMap.open(krems) as semantic_map:
        here = tuple(map(float, semantic_map.grid.to_geographic(700.0, 700.0)))
        _check_place(semantic_map, tmp_path / "bag", Truth({}, {}, {}, {1: here}), {})
        _check_place(semantic_map, tmp_path / "bag", Truth({}, {}, {}), {})  # it does not tell
        with pytest.raises(ReplayError, match=r"bag: was not flown over .*krems.tif; give the map .*\(moscow.tif\)"):
            _check_place(semantic_map, tmp_path / "bag", Truth({}, {}, {}, {1: (55.7, 37.6)}), {"map": "moscow.tif"})


def test_frames_that_were_all_refused_are_a_fault_with_its_reason(tmp_path: Path):
    replay = made_up_replay(tmp_path)
    said = {"frames_refused": "9", "last_refusal": "units are probably wrong"}
    replay.diagnostics = {"detection": {"frames_processed": "1", **said}}
    assert replay.refused == "" and replay.figures()["reasons"]["detection refused"] == "units are probably wrong"
    replay.diagnostics = {"detection": {"frames_processed": "0", **said}}
    assert replay.refused == "units are probably wrong"
    replay.diagnostics["geo_localization"] = {"frames_processed": "4"}
    assert replay.refused == ""


@pytest.mark.parametrize("size, damaged, in_doubt", [(40, False, True), (40, True, True), (16, False, False)])
def test_units_that_nobody_said_are_in_doubt_where_frames_are_not_in_them(tmp_path, size, damaged, in_doubt):
    types = message_types().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "camera")
    data = np.full(2 * size**2, 80, np.uint8)
    image = types["sensor_msgs/msg/Image"](header, size, size, "mono16", 0, 2 * size, data)
    frames = [replace(image, data=data[:9])] * damaged + [image if in_doubt else replace(
        image, encoding="mono8", step=size)]
    with Bag(write_bag(tmp_path / "bag", [("/c/image_raw", k, one) for k, one in enumerate(frames)], {})) as bag:
        assert _misread(bag, "/c/image_raw", shipped("config") / "thermalreid.yaml") is in_doubt


def test_a_page_of_several_loops_is_refused(tmp_path: Path, capsys):
    assert main(["replay", str(NIGHT), "--loops", "2", "--report", str(tmp_path)]) == 2
    assert "leave out --loops or --report" in capsys.readouterr().err


def test_messages_age_with_the_rate_by_the_limit_of_the_parameter_file(tmp_path: Path):
    file = tmp_path / "own.yaml"
    file.write_text("/**/reid:\n  ros__parameters:\n    max_age_s: 0.5\n")
    assert (_max_age_s(file, "reid"), _max_age_s(file, "detection")) == (0.5, 2.0)


def test_a_recording_without_images_is_refused(tmp_path: Path):
    with Bag(NIGHT) as bag:
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages(["/truth/target"])]
    with pytest.raises(ReplayError, match="holds no images; its topics are /truth/target"):
        run_replay(write_bag(tmp_path / "bag", messages, {}))


def test_the_camera_s_frames_are_told_from_other_pictures(tmp_path):
    types = message_types().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "camera")
    image = types["sensor_msgs/msg/Image"](header, 2, 2, "mono8", 0, 2, np.zeros(4, np.uint8))
    topics = ("/truth/semantics", "/thermal/image_raw")
    path = write_bag(tmp_path / "flight", [(topic, 1, image) for topic in topics], {})
    with Bag(path) as bag:
        assert frame_topic(bag) == "/thermal/image_raw"
    for topic, message in (("/h", header), ("/truth/semantics", image)):
        with Bag(write_bag(tmp_path / topic[1:2], [(topic, 1, message)], {})) as bag, \
                pytest.raises(ReplayError, match=f"holds no images.*{topic}"):
            frame_topic(bag)
