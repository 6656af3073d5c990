"""Runs the nodes on a recording, as processes of their own, and measures what comes out of them.

All that is measured is seen from outside, by a recorder that hears the same topics as anybody would. Times are of
its steady clock: latency is from the arrival of a frame at the recorder to the arrival of what the nodes made of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from thermalreid_ros.camera.pixels import picture_of
from thermalreid_ros.camera.thermal import UnitsError, make_frame
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.boxes import MATCH_IOU, comparable, iou
from thermalreid_ros.evaluation.recording import FRAME_TOPIC, Truth, read_truth, read_units
from thermalreid_ros.evaluation.replay_load import MemoryWatch, memory_figures, node_figures, percentiles
from thermalreid_ros.evaluation.replay_passes import Passes, repeated
from thermalreid_ros.evaluation.replay_places import PlaceRecord, TargetRecord, place_figures, target_figures
from thermalreid_ros.evaluation.replay_probe import camera_units, own_card, probe_parameters, recorded_weather
from thermalreid_ros.files import shipped
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.reid.length import USUAL_ERROR
from thermalreid_ros.ros.bag import Bag
from thermalreid_ros.ros.environment import node_command, process_environment
from thermalreid_ros.ros.supervisor import Supervisor

NODES = ("detection", "reid")
LOCALIZATION = "geo_localization"  # with a map
SYNTHESIS = "probe_synthesis"  # with a photograph
PLAYER = "bag_player"
ACTIVE_WITHIN_S = 60.0
FIRST_FRAME_WITHIN_S = 30.0
ANSWER_S = 2.0
PAUSE_NS = 10_000_000_000  # between two passes of a recording, in the stamps of the records
QUIET_S = 1.5  # without news after the end of the recording, the nodes have worked off what they had
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ALONE_WITHIN_S = 1.5  # what runs on a busy machine takes as long to be discovered
#: What each of the nodes says, and what they are searching for: a recording of an earlier flight has it, too.
RESULTS = {"detection": ("/detections", "/detections/*"), "reid": ("/reid/*",), SYNTHESIS: ("/probe/*",),
           LOCALIZATION: ("/localization/*", "/semantics/*")}
#: Keys of the detection node's diagnostics that count frames it did not work on.
DROPS = {"frames_superseded": "overtaken by a newer frame", "frames_too_old": "too old",
         "frames_out_of_order": "out of order", "frames_refused": "refused", "frames_failed": "failed"}
#: Keys of its diagnostics, where it was to be told of the ground.
SEMANTICS = ("frames_with_semantics", "frames_without_semantics")


_COUNTED = ("_received", "_processed", "_superseded", "_too_old", "_out_of_order", "_refused", "_failed")
_SUMMED = ("busy_s", "in_models_s", "own_cpu_s")


class ReplayError(ThermalReidError):
    """A replay that could not be run; the message names what failed and what to do."""


@dataclass(frozen=True)
class MatchRecord:
    """One gallery track as ranked against the probe. What is not known is NaN."""

    rank: int
    track_id: int
    track_length: int
    detection: Detection
    distance: float
    distance_histogram: float
    distance_mser: float
    distance_embedding: float = float("nan")
    size_m: float = float("nan")
    probability: float = float("nan")


@dataclass
class FrameRecord:
    """One frame, by its capture stamp; times are seconds of the recorder's clock, None for what never came."""

    stamp_ns: int
    arrived_s: float | None = None
    detected_s: float | None = None
    matched_s: float | None = None
    inference_ms: float | None = None
    detections: tuple[Detection, ...] = ()
    matches: tuple[MatchRecord, ...] = ()

    @property
    def latency_ms(self) -> float | None:
        if self.detected_s is None or self.arrived_s is None:
            return None
        return 1000.0 * max(self.detected_s - self.arrived_s, 0.0)

    @property
    def match_latency_ms(self) -> float | None:
        if self.matched_s is None or self.arrived_s is None:
            return None
        return 1000.0 * max(self.matched_s - self.arrived_s, 0.0)


@dataclass
class Replay:
    """What a replay gave. frames: by rising stamp, those that the recorder saw in any topic. map: its file, None where
    nothing was localized. places, targets: by the stamp of the frame. thermal_probes: float32 (h, w), degrees Celsius,
    those that were made of a photograph. memory: by process, see replay_load. loops: how often the recording was
    played; stamps go on from one to the next by period_ns, here and in truth. own: as replay_probe.own_card has it.
    damage: as Bag has it. in_doubt: whether pixels were not in the units that they were taken to be in, as nobody had
    said which."""

    bag: Path
    probe: Path | None
    rate: float
    frames_in: int
    frames: list[FrameRecord]
    diagnostics: dict[str, dict[str, str]]  # by node
    truth: Truth
    custom: dict[str, str]
    beta_h: float | None = None
    method: str = ""
    wall_s: float = 0.0
    exit_codes: dict[str, int] = field(default_factory=dict)
    map: Path | None = None
    places: dict[int, PlaceRecord] = field(default_factory=dict)
    targets: dict[int, TargetRecord] = field(default_factory=dict)
    thermal_probes: tuple[np.ndarray, ...] = ()
    accept_probability: float = float("nan")
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    loops: int = 1
    period_ns: int = 0
    own: dict[str, Any] | None = None
    damage: str | None = None
    in_doubt: bool = False

    @property
    def dropped(self) -> dict[str, int]:
        """Frames that the detection node did not work on, by reason; those it never received are "lost on the way"."""
        counts = self.diagnostics.get("detection", {})
        drops = {reason: int(counts.get(key, 0)) for key, reason in DROPS.items()}
        drops["lost on the way"] = self.frames_in - int(counts.get("frames_received", self.frames_in))
        return {reason: count for reason, count in drops.items() if count > 0}

    def figures(self) -> dict[str, Any]:
        """The contract of `thermalreid replay --json`; a figure that cannot be had is None, with its reason.

        Both are taken over the frames that the nodes worked on; those dropped stand in frames_dropped.
        map50: mean of AP50 over the classes in the truth, of detections above the node's threshold. Boxes are compared
        as evaluation.boxes.comparable has it.
        reid_r1: share of the frames with the probe's true object in them (reid_frames; the probe's own frame is left
        out) in which the track ranked first overlaps that object, IoU at least 0.5. An object that was not detected
        counts as not ranked first. reid_guessing: what a random order of the tracks ranked in them reaches.
        fix_median_m, target_median_m and what belongs to them, with a map: see replay_places.
        latency_ms, match_latency_ms: from a frame's arrival to that of its detections, and of its matches.
        frames_per_s: detected, by the recorder's clock. nodes, memory_mb: see replay_load. overhead_share: of the
        median latency (to the matches, without a probe to the detections), the nodes' overhead_ms in all.
        own_cpu_share: likewise their own_cpu_ms.
        """
        detected = [frame for frame in self.frames if frame.detected_s is not None]
        latency = [frame.latency_ms for frame in detected if frame.latency_ms is not None]
        match_latency = [frame.match_latency_ms for frame in self.frames if frame.match_latency_ms is not None]
        nodes = node_figures(self.diagnostics, self.frames_in)
        reasons: dict[str, str] = {}
        figures = {
            "damage": self.damage,
            "frames_in": self.frames_in,
            "frames_detected": len(detected),
            "frames_dropped": self.dropped,
            **{key: int(count) for key, count in self.diagnostics.get("detection", {}).items() if key in SEMANTICS},
            "frames_matched": sum(frame.matched_s is not None for frame in self.frames),
            "rate": self.rate,
            "loops": self.loops,
            "frames_per_s": self._frames_per_s(detected),
            "latency_ms": percentiles(latency),
            "match_latency_ms": percentiles(match_latency),
            "inference_ms": percentiles([frame.inference_ms for frame in detected]),
            "nodes": nodes,
            "overhead_ms": sum(node["overhead_ms"] for node in nodes.values()),
            "overhead_share": self._share_of_latency("overhead_ms", nodes, match_latency or latency),
            "own_cpu_share": self._share_of_latency("own_cpu_ms", nodes, match_latency or latency),
            "memory_mb": memory_figures(self.memory),
            "map50": self._map50(reasons),
            "reid_r1": self._reid_r1(reasons),
            "reid_frames": len(self.target_frames()),
            "reid_guessing": self._reid_guessing(),
            **self._place_figures(reasons),
            **self._target_figures(reasons),
        }
        reasons |= {f"{name} refused": said["last_refusal"] for name, said in self.diagnostics.items()
                    if said.get("last_refusal") and int(said.get("frames_refused", 0))}
        return {**figures, "reasons": reasons}

    @property
    def refused(self) -> str:
        """Why the nodes that see the camera worked on none of its frames; "" where one of them did on some."""
        eyes = [said for name, said in self.diagnostics.items() if name in ("detection", LOCALIZATION)]
        if not eyes or any(int(said.get("frames_processed", 0)) for said in eyes):
            return ""
        return next((said["last_refusal"] for said in eyes if said.get("last_refusal")), "")

    def _frames_per_s(self, detected: list[FrameRecord]) -> float | None:
        arrived_s = [frame.arrived_s for frame in self.frames if frame.arrived_s is not None]
        if len(arrived_s) < 2 or max(arrived_s) == min(arrived_s):
            return None
        return len(detected) / ((max(arrived_s) - min(arrived_s)) * len(arrived_s) / (len(arrived_s) - 1))

    @staticmethod
    def _share_of_latency(key: str, nodes: dict[str, dict[str, float]], latency: list[float]) -> float | None:
        if not (nodes and latency):
            return None
        return sum(node[key] for node in nodes.values()) / float(np.median(latency))

    def true_rank(self, frame: FrameRecord) -> int | None:
        """The rank of the probe's true object in a frame; None where the recording does not know it or it was not
        ranked."""
        return next((match.rank for match in frame.matches if self.is_true(match, frame.stamp_ns)), None)

    def is_true(self, match: MatchRecord, stamp_ns: int) -> bool:
        """Whether a match is of the probe's true object, where the recording knows that."""
        target = self.truth.target.get(stamp_ns)
        return target is not None and iou(comparable(match.detection, self.truth.tight_in), target) >= MATCH_IOU

    def target_frames(self) -> list[FrameRecord]:
        """Frames over which reid_r1 is measured; empty where the probe is not the one that the truth speaks of."""
        if self.own is None:
            return []
        by_stamp = {frame.stamp_ns: frame for frame in self.frames}
        return [by_stamp[stamp_ns] for stamp_ns in sorted(self.truth.target)
                if not self._is_own(stamp_ns, self.own.get("stamp_ns")) and stamp_ns in by_stamp
                and by_stamp[stamp_ns].matched_s is not None]

    def _is_own(self, stamp_ns: int, own_ns: int | None) -> bool:
        """Whether a frame is the one that the probe was cut from, in any of the loops."""
        return own_ns is not None and stamp_ns - own_ns in (k * self.period_ns for k in range(self.loops))

    def _place_figures(self, reasons: dict[str, str]) -> dict[str, Any]:
        if self.map is None:
            reasons["fix_median_m"] = "no map was given"
            return {"fix_median_m": None}
        arrived_s = {frame.stamp_ns: frame.arrived_s for frame in self.frames if frame.arrived_s is not None}
        return place_figures(self.places, arrived_s, self.truth.places, reasons)

    def _target_figures(self, reasons: dict[str, str]) -> dict[str, Any]:
        if self.probe is None or self.map is None:
            reasons["target_median_m"] = "no probe was given" if self.probe is None else "no map was given"
            return {"target_median_m": None}
        figures = target_figures(self.targets, {} if self.own is None else self.truth.target_places, reasons)
        if not self.targets and "none: " in (said := self.diagnostics.get("reid", {}).get("target", "")):
            reasons["target_median_m"] += f"; at the end, {said}"
        return figures

    def _reid_r1(self, reasons: dict[str, str]) -> float | None:
        if self.probe is None:
            reasons["reid_r1"] = "no probe was given"
            return None
        made = self.diagnostics.get(SYNTHESIS, {}).get("probe", "")
        if made.startswith("none"):
            reasons["reid_r1"] = f"no probe was made of the photograph, {made}"
            return None
        frames = self.target_frames()
        if not frames:
            reasons["reid_r1"] = "the recording does not know which object this probe shows" if self.own is None \
                else "no frame with the probe's object in it was ranked"
            return None
        return sum(self.true_rank(frame) == 1 for frame in frames) / len(frames)

    def _reid_guessing(self) -> float | None:
        """Of a frame with n tracks ranked, the object's among them, 1 / n."""
        frames = self.target_frames() if self.probe is not None else []
        return sum((self.true_rank(frame) is not None) / max(len(frame.matches), 1) for frame in frames) / len(frames) \
            if frames else None

    def _map50(self, reasons: dict[str, str]) -> float | None:
        if not any(self.truth.objects.values()):
            reasons["map50"] = "the recording holds no annotated objects"
            return None
        try:
            import faster_coco_eval  # noqa: F401
        except ModuleNotFoundError:
            reasons["map50"] = "faster-coco-eval is missing; pip install faster-coco-eval"
            return None
        figure = _map50(self.truth, {frame.stamp_ns: frame.detections for frame in self.frames
                                     if frame.detected_s is not None})
        if figure is None:
            reasons["map50"] = "none of the annotated frames was detected"
        return figure


def run_replay(bag_path: str | Path, *, probe: str | Path | None = None, probe_class: str = "",
               probe_length_m: float = 0.0, probe_length_error: float = USUAL_ERROR, rate: float = 1.0,
               params_file: str | Path | None = None, model: str | None = None, domain_id: int | None = None,
               map_path: str | Path | None = None, segmenter: str | None = None, detect: bool = True,
               semantics: str | None = None, method: str | None = None, embedding: str | None = None,
               loops: int = 1, running: bool = False, progress: Callable[..., Any] | None = None,
               say: Callable[[str], None] = lambda line: None) -> Replay:
    """Start the nodes, play the recording to them, collect what they say, end them.

    probe: thermal crop of the object to be found, or a colour photograph of it, see replay_probe, as probe_length_m and
    probe_length_error, its longest side where that is known. map_path: of the
    ground below; without, nothing is localized.
    model, segmenter: of detection and localization, instead of those in the parameter file. detect: whether to start
    detection and reid at all, which cost most. semantics: parameter of detection, likewise; all but "none" need a map.
    method, embedding: parameters of reid, likewise. loops: how often the recording is played, one after the other.
    running: the nodes run already, started by `ros2 launch` for example, and go on afterwards. Their parameters are
    their own: none may be given here; map_path and probe tell what they were given. Their memory is not looked at.
    domain_id: ROS domain of their own, by default the environment's.
    progress: makes a tqdm-like bar, called with total= and description=. say: told what happens, line by line.
    Raises ReplayError, ThermalReidError of the inputs, and ProcessDied where a node ends early. All processes have
    ended when this returns or raises, KeyboardInterrupt included.
    """
    if not detect and (map_path is None or probe is not None):
        raise ReplayError("without detection there is nothing to run but localization: give a map, and no probe")
    if semantics not in (None, "none") and map_path is None:
        raise ReplayError(f"semantics {semantics} come from the localization, which needs a map; give one")
    if running and any(value is not None for value in (params_file, model, segmenter, semantics, method, embedding)):
        raise ReplayError("nodes that run already have parameters of their own; leave out what changes them here")
    own_parameters = params_file is not None
    params_file = Path(params_file or shipped("config") / "thermalreid.yaml")
    if not params_file.is_file():
        raise ReplayError(f"{params_file}: no such parameter file")
    with Bag(bag_path) as bag:
        frames_topic = frame_topic(bag)
        stamps_ns = [message.stamp_ns for message in bag.messages([frames_topic])]
        if not stamps_ns:
            raise ReplayError(f"{bag.damage or bag.path}: holds no message of {frames_topic}; record the flight again")
        frames_in, lead_s = len(stamps_ns), (stamps_ns[0] - bag.start_ns) / 1e9
        topics = sorted(bag.topics)
        # Other cameras' pictures, and the same ones compressed: nobody listens to them.
        others = [topic for topic in sorted(_camera_topics(bag)) if topic != frames_topic]
        truth, custom, bag_file = read_truth(bag), bag.custom, bag.path
        units = None if own_parameters else read_units(bag)
        in_doubt = not (units or own_parameters or running) and _misread(bag, frames_topic, params_file)
        damage = bag.damage
        passes = Passes(bag.end_ns - bag.start_ns + PAUSE_NS if loops > 1 else 0)
    # A recording may say what its pixels mean; whoever gives parameters knows better.
    common = {} if units is None else {"thermal_units": units}
    of_probe = {"reid": {}} if probe is None else probe_parameters(
        Path(probe), probe_class, camera_units(params_file, common),
        {} if own_parameters else recorded_weather(bag_file, custom, truth), probe_length_m, probe_length_error)
    if map_path is not None:
        with SemanticMap.open(map_path) as semantic_map:  # a fault in it is said now, not by a node
            _check_place(semantic_map, bag_file, truth, custom)
    if domain_id is not None:
        os.environ["ROS_DOMAIN_ID"] = str(domain_id)
    frames_in *= loops
    replay = Replay(bag_file, None if probe is None else Path(probe), rate, frames_in, [], {},
                    repeated(truth, loops, passes.period_ns), custom, map=None if map_path is None else Path(map_path),
                    loops=loops, period_ns=passes.period_ns,
                    own=own_card(bag_file, None if probe is None else Path(probe), custom), damage=damage,
                    in_doubt=in_doubt)
    arguments = {}
    if detect:
        arguments["detection"] = common | {
            name: value for name, value in (("model", model), ("semantics", semantics)) if value is not None}
        arguments["reid"] = common | of_probe.pop("reid") | {
            name: value for name, value in (("method", method), ("embedding", embedding), (
                "map", None if map_path is None else str(Path(map_path).absolute()))) if value is not None}
        if embedding is not None and SYNTHESIS in of_probe:
            of_probe[SYNTHESIS]["embedding"] = embedding
        arguments |= of_probe
    if map_path is not None:
        arguments[LOCALIZATION] = common | {"map": str(Path(map_path).absolute())} | \
            ({} if segmenter is None else {"model": segmenter})
    if rate > 1.0:  # /clock, by which messages age, is as much faster
        for name, given in arguments.items():
            if (limit_s := _max_age_s(params_file, name)) is not None:
                given["max_age_s"] = rate * limit_s
    patterns = ["/diagnostics", *(pattern for name in arguments for pattern in RESULTS.get(name, ())),
                *(RESULTS[SYNTHESIS] if probe is not None else ())]
    results = [topic for topic in topics if any(fnmatch(topic, pattern) for pattern in patterns)]
    played = {"topics": [topic for topic in topics if topic not in (*results, *others)]} if results or others else {}
    recorder, memory, before = _Recorder(tuple(arguments), passes), MemoryWatch(), {}
    try:
        if not running:
            recorder.check_alone()
        with Supervisor(process_environment()) as supervisor:
            say(("awaiting " if running else "starting ") + ", ".join(arguments))
            for name in () if running else arguments:
                supervisor.start(name, _command(name, params_file, use_sim_time=True, **arguments[name]))
            _wait_until_active(recorder, supervisor)
            if running:  # they have counted since they began
                recorder.await_diagnostics()
                before = {name: dict(said) for name, said in recorder.diagnostics.items()}
            say(f"playing {frames_in} frames at {rate:g} times the recorded rate"
                f"{', without what nodes said in an earlier run: ' + ', '.join(results) if results else ''}")
            began_s = time.monotonic()
            supervisor.start(PLAYER, [*_command(PLAYER, params_file, bag=str(bag_file.absolute()), rate=float(rate),
                                                decompress=True, loop=loops > 1, **played,
                                                wait_for_subscribers=len(arguments.keys() - {SYNTHESIS}) + 1),
                                      *_renamed(frames_topic, topics)])
            _watch(recorder, supervisor, memory, loops, frames_in, lead_s / rate, progress)
            replay.wall_s = time.monotonic() - began_s
            replay.exit_codes = supervisor.stop()
    finally:
        recorder.close()
    replay.frames = recorder.result()
    replay.diagnostics = {name: _since(before.get(name, {}), said) for name, said in recorder.diagnostics.items()}
    replay.places, replay.targets, replay.thermal_probes = recorder.places, recorder.targets, recorder.thermal_probes
    replay.beta_h, replay.method = recorder.beta_h, recorder.method
    replay.accept_probability, replay.memory = recorder.accept_probability, memory.samples
    return replay


def _misread(bag: Bag, topic: str, params_file: Path) -> bool:
    """Whether the first frame of use cannot be in the units that the parameter file gives."""
    for message in bag.messages([topic]):
        try:
            make_frame(*picture_of(bag.decode(message)), camera_units(params_file, {}), message.stamp_ns, "")
            return False
        except UnitsError:
            return True
        except ThermalReidError:  # a damaged one
            continue
    return False


def _check_place(semantic_map: SemanticMap, bag: Path, truth: Truth, custom: Mapping[str, str]) -> None:
    """ReplayError where the recording tells where it was flown, and that is nowhere on the map."""
    if not truth.places:
        return
    latitude, longitude = np.array(list(truth.places.values()), np.float64)[:, :2].T
    if not semantic_map.holds_any(np.column_stack(semantic_map.grid.from_geographic(latitude, longitude))):
        raise ReplayError(f"{bag}: was not flown over {semantic_map.path}; give the map of that place "
                          f"({custom.get('map', 'its name is not recorded')})")


def _max_age_s(params_file: Path, node: str) -> float | None:
    """What the parameter file says, or the nodes' default; None of what is no number, which is the node's to refuse."""
    from thermalreid_ros.ros.lifecycle import COMMON_PARAMETERS
    from thermalreid_ros.ros.parameters import in_file

    said = in_file(params_file, node, "max_age_s")
    if said is None:
        return float(COMMON_PARAMETERS["max_age_s"].default)
    return said if isinstance(said, float) else None


def _since(before: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """What a node says, its counters and times from when it said what it did before."""
    found = dict(said)
    for key in before.keys() & said.keys():
        if key in SEMANTICS or key.endswith(_COUNTED):
            found[key] = str(int(said[key]) - int(before[key]))
        elif key in _SUMMED:
            found[key] = f"{float(said[key]) - float(before[key]):.3f}"
    return found


def _renamed(frames_topic: str, topics: Sequence[str]) -> list[str]:
    """Arguments of the player by which another camera's name becomes the one that nodes listen to."""
    picture, wanted = frames_topic.removesuffix("/compressed"), FRAME_TOPIC.removesuffix("/compressed")
    if picture == wanted:
        return []
    info, wanted_info = (f"{name.rpartition('/')[0]}/camera_info" for name in (picture, wanted))
    renamed = ["-r", f"{picture}:={wanted}"]
    return [*renamed, "-r", f"{info}:={wanted_info}"] if info in topics and wanted_info not in topics else renamed


def _camera_topics(bag: Bag) -> list[str]:
    """Of images that are no truth."""
    return [topic for topic, type_name in bag.topics.items()
            if type_name in IMAGE_TYPES and "truth" not in topic.split("/")]


def frame_topic(bag: Bag) -> str:
    """The topic of the thermal camera's frames: thermal/image_raw, if need be compressed, else the first one of images
    that is no truth. ReplayError where the recording holds none."""
    topics = _camera_topics(bag)
    if not topics:
        raise ReplayError(f"{bag.damage or bag.path}: holds no images; its topics are {', '.join(sorted(bag.topics))}")
    return next((topic for topic in (FRAME_TOPIC.removesuffix("/compressed"), FRAME_TOPIC) if topic in topics),
                topics[0])


def sustainable_rate(bag_path: str | Path, *, model: str | None = None, params_file: str | Path | None = None,
                     margin: float, within_s: float, fastest: float) -> float:
    """The playback rate at which frames come `margin` times as far apart as one detection takes on this machine,
    but one that ends the recording within within_s, and at most fastest.

    Times the detector, in this process, on the first frames of the recording.
    """
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.engine import load_engine

    values = yaml.safe_load(Path(params_file or shipped("config") / "thermalreid.yaml").read_text())
    parameters = values["/**/detection"]["ros__parameters"]
    with Bag(bag_path) as bag:
        messages = [message for message, _ in zip(bag.messages([FRAME_TOPIC]), range(8))]
        pictures = [cv2.imdecode(bag.decode(message).data, cv2.IMREAD_GRAYSCALE) for message in messages]
        recorded_s = (bag.end_ns - bag.start_ns) / 1e9
    period_s = float(np.median(np.diff([message.stamp_ns for message in messages]))) / 1e9
    engine = load_engine(model or parameters["model"], providers=parameters["providers"],
                         threads=parameters["threads"])
    detector, times_s = Detector(engine), []
    for picture in pictures:
        began_s = time.perf_counter()
        detector.detect(picture)
        times_s.append(time.perf_counter() - began_s)
    engine.close()
    wanted = period_s / (margin * float(np.median(times_s)))
    return round(min(max(wanted, recorded_s / within_s), fastest), 1)


def _command(name: str, params_file: Path, **parameters: Any) -> list[str]:
    command = [*node_command(name), "--ros-args", "--params-file", str(params_file)]
    for key, value in parameters.items():
        # "1" is text and stays text.
        is_text = isinstance(value[0] if isinstance(value, list) and value else value, str)
        text = yaml.safe_dump(value, default_style='"' if is_text else None,
                              default_flow_style=True, width=float("inf"))
        command += ["-p", f"{key}:={text.splitlines()[0]}"]
    return command


def _wait_until_active(recorder: _Recorder, supervisor: Supervisor) -> None:
    end_s = time.monotonic() + ACTIVE_WITHIN_S
    while missing := [name for name in recorder.nodes if not recorder.is_active(name)]:
        supervisor.check()
        if time.monotonic() > end_s:
            process = supervisor.processes.get(missing[0])
            said = "were they started in this ROS domain, without a namespace?" if process is None else \
                f"last words: {' | '.join(process.lines) or 'none'}"
            raise ReplayError(f"{', '.join(missing)}: not active within {ACTIVE_WITHIN_S:.0f} s; {said}")
        time.sleep(0.05)


def _watch(recorder: _Recorder, supervisor: Supervisor, memory: MemoryWatch, loops: int, frames_in: int,
           lead_s: float, progress: Callable[..., Any] | None) -> None:
    """Until the recording is played so often and the nodes have worked off what came. lead_s: what the player needs
    until the first frame."""
    pids = {name: process.popen.pid for name, process in supervisor.processes.items()}
    bar = progress(total=frames_in, description="frames", unit="frame") if progress else None
    began_s, shown = time.monotonic(), 0
    try:
        while supervisor.processes[PLAYER].exit_code is None:
            supervisor.check(PLAYER)
            if recorder.seen:
                memory.look(time.monotonic(), pids)
            if loops > 1 and recorder.passes.count == loops:
                recorder.end_loop()
            if not recorder.seen and time.monotonic() - began_s > FIRST_FRAME_WITHIN_S + lead_s:
                raise ReplayError(f"no frame arrived within {FIRST_FRAME_WITHIN_S + lead_s:.0f} s; {PLAYER} says: "
                                  f"{' | '.join(supervisor.processes[PLAYER].lines) or 'nothing'}")
            if bar is not None and (done := recorder.done) > shown:
                bar.update(done - shown)
                shown = done
            time.sleep(0.05)
        supervisor.check(PLAYER)
        recorder.heard_s = time.monotonic()
        while time.monotonic() - recorder.heard_s < QUIET_S and recorder.worked_off < frames_in:
            supervisor.check(PLAYER)
            time.sleep(0.05)
        recorder.await_diagnostics()
    finally:
        if bar is not None:
            bar.update(recorder.done - shown)
            bar.close()


class _Recorder:
    """A node in this process that hears all and keeps what is needed. nodes: those that are to be heard. passes: how
    stamps become those of the records."""

    def __init__(self, nodes: tuple[str, ...], passes: Passes) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import GetState
        from rcl_interfaces.srv import SetParameters
        from sensor_msgs.msg import Image, NavSatFix

        from thermalreid_ros.msg import DetectionArray, LocalizationStatus, MatchArray, Target, ThermalProbe
        from thermalreid_ros.ros import qos
        from thermalreid_ros.ros.listener import Listener

        self.nodes, self.passes = nodes, passes
        self.places: dict[int, PlaceRecord] = {}
        self.targets: dict[int, TargetRecord] = {}
        self.thermal_probes: tuple[np.ndarray, ...] = ()
        self._frames: defaultdict[int, FrameRecord] = defaultdict(lambda: FrameRecord(0))
        self._lock = threading.Lock()
        self.seen = self.detected = self.matched = 0
        self.heard_s = 0.0  # when the nodes last said something
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._heard_s: dict[str, float] = {}
        self.beta_h: float | None = None
        self.method, self.accept_probability = "", float("nan")
        self._listener = Listener("replay_recorder")
        node = self._listener.node
        node.create_subscription(Image, "thermal/image_raw", self._on_frame, qos.RESULTS, raw=True)
        node.create_subscription(DetectionArray, "detections", self._on_detections, qos.RESULTS)
        node.create_subscription(MatchArray, "reid/matches", self._on_matches, qos.RESULTS)
        node.create_subscription(Target, "reid/target", self._on_target, qos.RESULTS)
        if SYNTHESIS in nodes:
            node.create_subscription(ThermalProbe, "probe/thermal", self._on_probe, qos.LATCHED)
        if LOCALIZATION in nodes:
            node.create_subscription(LocalizationStatus, "localization/status", self._on_status, qos.RESULTS)
            node.create_subscription(NavSatFix, "localization/fix", self._on_fix, qos.RESULTS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self._states = {name: node.create_client(GetState, f"{name}/get_state") for name in nodes}
        self._pending: dict[str, tuple[Any, float]] = {}  # answer to come, when it was asked for
        self._state_request = GetState.Request()
        self._parameters = node.create_client(SetParameters, f"{PLAYER}/set_parameters")
        self._asked: Any = None

    def check_alone(self) -> None:
        """ReplayError where nodes or a player run in this domain already, whose messages would be taken for ours."""
        end_s = time.monotonic() + ALONE_WITHIN_S
        while time.monotonic() < end_s:
            there = [name for name, client in self._states.items() if client.service_is_ready()]
            there += ["a publisher of /clock"] * bool(self._listener.node.count_publishers("/clock"))
            if there:
                raise ReplayError(f"{', '.join(there)}: run in this ROS domain already; end them, or wait 20 s where "
                                  "they were killed, or replay in another one with --domain")
            time.sleep(0.05)

    def is_active(self, name: str) -> bool:
        """Whether a node says so; asks without waiting."""
        from lifecycle_msgs.msg import State

        client, (future, asked_s) = self._states[name], self._pending.get(name, (None, 0.0))
        if future is not None and future.done():
            if future.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                return True
            future = None
        # An answer is lost where the node does not know this client yet.
        if (future is None or time.monotonic() - asked_s > ANSWER_S) and client.service_is_ready():
            self._pending[name] = client.call_async(self._state_request), time.monotonic()
        return False

    def end_loop(self) -> None:
        """Ask the player to end with this pass of the recording; once, without waiting."""
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
        from rcl_interfaces.srv import SetParameters

        if self._asked is None and self._parameters.service_is_ready():
            value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
            self._asked = self._parameters.call_async(SetParameters.Request(parameters=[Parameter(
                name="loop", value=value)]))

    @property
    def done(self) -> int:
        """Frames of which the first node has said what came of them."""
        return self.detected if "detection" in self.nodes else len(self.places)

    @property
    def worked_off(self) -> int:
        """Frames of which all nodes have said what came of them, as far as can be told from their number."""
        return min([self.matched] * ("reid" in self.nodes) + [len(self.places)] * (LOCALIZATION in self.nodes))

    def await_diagnostics(self, timeout_s: float = 2.5) -> None:
        """Wait for a status of each that is newer than this call: its counters are then final."""
        since_s = time.monotonic()
        while time.monotonic() - since_s < timeout_s and any(
                self._heard_s.get(name, 0.0) < since_s for name in self.nodes):
            time.sleep(0.02)

    def result(self) -> list[FrameRecord]:
        with self._lock:
            return [self._frames[stamp_ns] for stamp_ns in sorted(self._frames)]

    def close(self) -> None:
        self._listener.close()

    def _on_frame(self, data: bytes) -> None:
        from thermalreid_ros.ros.convert import serialized_stamp_ns

        now_s = time.monotonic()
        with self._lock:
            self._record(self.passes.of_frame(serialized_stamp_ns(data))).arrived_s = now_s
            self.seen += 1

    def _on_detections(self, message: Any) -> None:
        from thermalreid_ros.ros.convert import message_to_detections, stamp_to_ns

        now_s = time.monotonic()
        with self._lock:
            frame = self._frame(stamp_to_ns(message.header.stamp))
            frame.detected_s, frame.inference_ms = now_s, message.inference_ms
            frame.detections = message_to_detections(message)
            self.detected += 1
            self.heard_s = now_s

    def _on_matches(self, message: Any) -> None:
        from thermalreid_ros.ros.convert import message_to_detection, stamp_to_ns

        now_s = time.monotonic()
        with self._lock:
            frame = self._frame(stamp_to_ns(message.header.stamp))
            frame.matched_s = frame.matched_s or now_s  # a probe that comes later is ranked by the same frame
            frame.matches = tuple(MatchRecord(
                m.rank, m.track_id, m.track_length, message_to_detection(m.detection), m.distance, m.distance_histogram,
                m.distance_mser, m.distance_embedding, m.size_m, m.probability) for m in message.matches)
            self.beta_h, self.method = message.beta_h, message.method
            self.accept_probability = message.accept_probability
            self.matched += 1
            self.heard_s = now_s

    def _on_target(self, message: Any) -> None:
        from thermalreid_ros.ros.convert import stamp_to_ns

        with self._lock:
            self.targets[self.passes.of_result(stamp_to_ns(message.header.stamp))] = TargetRecord(
                message.track_id, message.probability, message.sights, (message.latitude, message.longitude),
                tuple(map(float, message.covariance)))
            self.heard_s = time.monotonic()

    def _on_probe(self, message: Any) -> None:
        from thermalreid_ros.ros.convert import image_to_array

        self.thermal_probes = tuple(image_to_array(image).copy() for image in message.images)

    def _on_status(self, message: Any) -> None:
        self._place(message.header, verdict=message.verdict, reason=message.reason, said_s=time.monotonic())

    def _on_fix(self, message: Any) -> None:
        covariance = tuple(float(message.position_covariance[k]) for k in (0, 1, 3, 4))
        self._place(message.header, fix=(message.latitude, message.longitude), covariance_m2=covariance,
                    fixed_s=time.monotonic())

    def _place(self, header: Any, **values: Any) -> None:
        from thermalreid_ros.ros.convert import stamp_to_ns

        with self._lock:
            stamp_ns = self.passes.of_result(stamp_to_ns(header.stamp))
            self.places[stamp_ns] = replace(self.places.get(stamp_ns, PlaceRecord()), **values)
            self.heard_s = time.monotonic()

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            name = status.name.rsplit("/", 1)[-1]
            if name in self.nodes:
                self.diagnostics[name] = {item.key: item.value for item in status.values}
                self._heard_s[name] = time.monotonic()

    def _frame(self, stamp_ns: int) -> FrameRecord:
        """Of the frame whose stamp a result carries."""
        return self._record(self.passes.of_result(stamp_ns))

    def _record(self, stamp_ns: int) -> FrameRecord:
        frame = self._frames[stamp_ns]
        frame.stamp_ns = stamp_ns
        return frame


def _map50(truth: Truth, detections: dict[int, tuple[Detection, ...]]) -> float | None:
    from thermalreid_ros.evaluation.detection import CocoSet, score

    ids = {stamp_ns: number for number, stamp_ns in enumerate(sorted(truth.objects.keys() & detections.keys()), 1)}
    annotations = []
    for stamp_ns, number in ids.items():
        for box in truth.objects[stamp_ns]:
            annotations.append(_coco(number, box, box.class_id, iscrowd=0))
        for box in truth.ignored.get(stamp_ns, ()):
            annotations += [_coco(number, box, label, iscrowd=1) for label in range(len(CLASS_NAMES))]
    for identity, annotation in enumerate(annotations, 1):
        annotation["id"] = identity
    present = tuple(sorted({box.class_id for stamp_ns in ids for box in truth.objects[stamp_ns]}))
    if not present:
        return None
    images = [{"id": number, "width": 0, "height": 0, "file_name": ""} for number in ids.values()]
    coco = {"info": {}, "images": images, "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASS_NAMES)]}
    results = [{**_coco(ids[stamp_ns], comparable(box, truth.tight_in), box.class_id), "score": box.score}
               for stamp_ns, boxes in detections.items() if stamp_ns in ids for box in boxes]
    return score(results, CocoSet((), coco, present))["map50"]


def _coco(image_id: int, box: Detection, label: int, **more: int) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": label, "bbox": [box.x_min, box.y_min, box.width, box.height],
            "area": box.width * box.height, **more}
