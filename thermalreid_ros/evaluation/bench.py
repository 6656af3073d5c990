"""Speed: of each model alone, from topic to topic through the nodes, and of the transport between processes.

Times are milliseconds. Of a frame on its way from the camera's stamp to the arrival of its result, `latency`
is all, `inference` the time inside the network as the node reports it, and `overhead` the rest: transport,
conversion, waiting, pre- and post-processing.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera import ThermalUnits
from thermalreid_ros.engine import DEFAULT_PROVIDERS, load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation import bench_camera
from thermalreid_ros.ros.supervisor import Process, Supervisor

CAMERA_RATE_HZ = 30.0
# Of the rate the node can keep up with; faster, and what is measured is frames waiting for the one before.
PACED_SHARE = 0.6
WARM_UP_RUNS = 5
START_LIMIT_S = 60.0  # for a node to load its model; TensorRT engines are built ahead of it

Tick = Callable[[float], None]  # seconds of measuring done


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and interquartile range; NaN without samples."""
    if not len(samples):
        return {"median": float("nan"), "p99": float("nan"), "iqr": float("nan")}
    quarter, median, three_quarters, p99 = np.percentile(samples, (25, 50, 75, 99))
    return {"median": float(median), "p99": float(p99), "iqr": float(three_quarters - quarter)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import onnxruntime

    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "load_1min": os.getloadavg()[0],
            "python": platform.python_version(), "onnxruntime": onnxruntime.__version__}


def time_model(model: str | Path, *, runs: int = 100, threads: int = 0, providers: Sequence[str] = DEFAULT_PROVIDERS,
               tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """One model by itself, on a 640x512 frame where it is a detector, else on zeros of the card's shape.

    For detectors median_ms, p99_ms and iqr_ms are of the whole call, frame to boxes, and `parts` splits its
    median. Of what runs in 8-bit integers float_median_ms is that of floating point, measured after it, and
    int8_speedup the ratio.
    Raises EngineError as load_engine.
    """
    engine = load_engine(model, threads=threads, providers=providers, log=lambda line: None)
    result = {"provider": engine.provider, "threads": engine.threads if engine.on_cpu else None,
              "first_ms": engine.warm_up_ms, "warm_up_runs": WARM_UP_RUNS, "runs": runs}
    if engine.card.task == "detection":
        call, parts = _detector_call(engine)
    elif engine.warm_up_ms is None:
        raise ThermalReidError(f"model '{engine.card.name}' leaves sizes free; "
                               f"give typical_shape in its card")
    else:
        call, parts = engine.warm_up, {}
    for _ in range(WARM_UP_RUNS):
        call()
    for samples in parts.values():
        samples.clear()
    total_ms = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        total_ms.append(1e3 * (time.perf_counter() - began))
        tick()
    engine.close()
    result |= {f"{name}_ms": value for name, value in summary(total_ms).items()}
    if engine.provider == "cpu_int8" and "cpu" in providers:
        whole = time_model(model, runs=runs, threads=threads, providers=("cpu",))
        result |= {"float_median_ms": whole["median_ms"], "int8_speedup": whole["median_ms"] / result["median_ms"]}
    if parts:
        result["parts"] = {f"{name}_ms": summary(samples)["median"] for name, samples in parts.items()}
    return result


def measure_transport(seconds: float, *, rate_hz: float = CAMERA_RATE_HZ, units: str = "centikelvin",
                      tick: Tick = lambda seconds: None) -> dict[str, Any]:
    """640x512 frames from one process to another: how many are lost, and how old they are on arrival.

    The listener is best effort as the nodes are, but queues a few frames: one that it has no time for is not
    lost on the way.
    """
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    with _isolated_graph() as probe:
        queueing = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        arrivals = probe.listen(Image, bench_camera.TOPIC, queueing)
        sent = _film(probe, seconds, rate_hz, units, tick)
    received = len({arrival.stamp_ns for arrival in arrivals})
    return {"rate_hz": rate_hz, "seconds": seconds, "units": units,
            "frames_sent": sent, "frames_received": received, "frames_lost": sent - received,
            "latency_ms": summary([arrival.age_ms for arrival in arrivals])}


def measure_topics(model: str, seconds: float, *, rate_hz: float = CAMERA_RATE_HZ, units: str = "centikelvin",
                   parameters: Mapping[str, Any] | None = None, command: Sequence[str] | None = None,
                   reid: bool = False, tick: Tick = lambda seconds: None) -> dict[str, Any]:
    """The nodes between a camera and a listener, each a process of its own, in a ROS domain of their own.

    `full_rate`, at the camera's rate, where the detection node leaves out the frames it has no time for,
    shows the age of the frames it works on. `paced`, at a rate the node keeps up with, shows latency,
    overhead, and the ways the overhead takes (medians). `reid`, where asked for, adds the reid node and a
    probe to the paced pass: its latency is from the camera to the matches, `reid_ms` the part of it after
    the detections.
    parameters: of the detection node, besides model and units. command: of its process, for another
    implementation.
    Raises ThermalReidError, with the node's last line, when a node does not come up or does not answer.
    """
    from thermalreid_ros.ros.environment import node_command

    detection = [*(command or node_command("detection")), "--ros-args",
                 *_parameters({"model": model, "thermal_units": units, **(parameters or {})})]
    full_rate = _topics_pass(detection, seconds, rate_hz, units, tick)
    paced_hz = min(rate_hz, PACED_SHARE * 1e3 / full_rate["latency_ms"]["median"])
    results = {"model": model, "units": units, "full_rate": full_rate,
               "paced": _topics_pass(detection, seconds, paced_hz, units, tick)}
    if reid:
        results["reid"] = _reid_pass(detection, seconds, paced_hz, units, tick)
    return results


def _topics_pass(command: Sequence[str], seconds: float, rate_hz: float, units: str,
                 tick: Tick) -> dict[str, Any]:
    with _isolated_graph() as probe:
        arrivals, sent = _film_detections(probe, command, seconds, rate_hz, units, tick)
        age_ms, processing_ms, latency_ms = (
            {name: probe.diagnostic("detection", f"frames_{key}_ms_{name}") for name in ("median", "p99")}
            for key in ("age", "processing", "latency"))
    inference_ms = summary([arrival.message.inference_ms for arrival in arrivals])
    arrival_ms = summary([arrival.age_ms for arrival in arrivals])
    return {
        "rate_hz": rate_hz, "frames_sent": sent, "frames_detected": len(arrivals),
        "frames_dropped": sent - len(arrivals),
        "detections_per_frame": float(np.mean([len(arrival.message.detections) for arrival in arrivals])),
        "latency_ms": arrival_ms, "inference_ms": inference_ms,
        "overhead_ms": summary([arrival.age_ms - arrival.message.inference_ms for arrival in arrivals]),
        "age_when_taken_up_ms": age_ms,
        "ways_ms": {"camera to node": age_ms["median"],
                    "in the node, around inference": processing_ms["median"] - inference_ms["median"],
                    "node to listener": arrival_ms["median"] - latency_ms["median"]},
    }


def _reid_pass(detection: Sequence[str], seconds: float, rate_hz: float, units: str,
               tick: Tick) -> dict[str, Any]:
    from std_msgs.msg import Header

    from thermalreid_ros.msg import MatchArray, ThermalProbe
    from thermalreid_ros.ros import qos
    from thermalreid_ros.ros.convert import array_to_image
    from thermalreid_ros.ros.environment import node_command

    with _isolated_graph() as probe:
        node = probe.start("reid", [*node_command("reid"), "--ros-args",
                                    *_parameters({"thermal_units": units})])
        matches = probe.listen(MatchArray, "reid/matches", qos.RESULTS)
        # A ThermalProbe is in grey or degrees Celsius, whatever the unit of the frames.
        crop_units = ThermalUnits.AGC8 if units == ThermalUnits.AGC8.value else ThermalUnits.CELSIUS_F32
        crop, encoding = bench_camera.in_units(bench_camera.probe_crop(), crop_units)
        probe.node.create_publisher(ThermalProbe, "probe/thermal", qos.LATCHED).publish(ThermalProbe(
            probe_id="bench", units=crop_units.value, images=[array_to_image(crop, encoding, Header())]))
        probe.wait_for(lambda: probe.node.count_subscribers("detections"), node)
        arrivals, sent = _film_detections(probe, detection, seconds, rate_hz, units, tick, subscribers=2)
        if not matches:
            raise ThermalReidError(f"the reid node ranked none of {len(arrivals)} frames; "
                                   f"its last line: {last_line(node)}")
    detected_ms = {arrival.stamp_ns: arrival.age_ms for arrival in arrivals}
    return {
        "rate_hz": rate_hz, "frames_sent": sent, "frames_detected": len(arrivals),
        "frames_ranked": len({match.stamp_ns for match in matches}),
        "matches_per_frame": float(np.mean([len(match.message.matches) for match in matches])),
        "latency_ms": summary([match.age_ms for match in matches]),
        "reid_ms": summary([match.age_ms - detected_ms[match.stamp_ns] for match in matches
                            if match.stamp_ns in detected_ms]),
    }


def _film_detections(probe: _Probe, command: Sequence[str], seconds: float, rate_hz: float, units: str,
                     tick: Tick, subscribers: int = 1) -> tuple[list[_Arrival], int]:
    """Start the detection node and film; what it answered, and the number of frames sent."""
    from thermalreid_ros.msg import DetectionArray
    from thermalreid_ros.ros import qos

    node = probe.start("detection", command)
    arrivals = probe.listen(DetectionArray, "detections", qos.RESULTS)
    probe.wait_for(lambda: probe.node.count_subscribers(bench_camera.TOPIC) >= subscribers, node)
    sent = _film(probe, seconds, rate_hz, units, tick, node, subscribers)
    if not arrivals:
        raise ThermalReidError(f"the detection node answered none of {sent} frames; "
                               f"its last line: {last_line(node)}")
    return arrivals, sent


def _parameters(values: Mapping[str, Any]) -> list[str]:
    texts = {name: f"[{', '.join(value)}]" if isinstance(value, (list, tuple)) else value
             for name, value in values.items()}
    return [word for name, text in texts.items() for word in ("-p", f"{name}:={text}")]


def _detector_call(engine) -> tuple[Callable[[], Any], dict[str, list[float]]]:
    """One call of the detector on a frame, and the parts of its time that each call appends to."""
    from thermalreid_ros.detection.detector import Detector

    parts: dict[str, list[float]] = {"preprocessing": [], "inference": [], "postprocessing": []}
    run = engine.run

    def timed_run(inputs):
        began = time.perf_counter()
        outputs = run(inputs)
        marks.extend((began, time.perf_counter()))
        return outputs

    engine.run = timed_run
    detector = Detector(engine)
    frames = cycle(bench_camera.grey_frames())
    marks: list[float] = []

    def call() -> None:
        grey = next(frames)
        marks.clear()
        began = time.perf_counter()
        detector.detect(grey)
        marks.append(time.perf_counter())
        for samples, from_s, to_s in zip(parts.values(), (began, *marks), marks, strict=False):
            samples.append(1e3 * (to_s - from_s))

    return call, parts


class _Arrival:
    __slots__ = ("message", "stamp_ns", "age_ms")

    def __init__(self, message: Any, arrived_ns: int):
        self.message = message
        self.stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.age_ms = (arrived_ns - self.stamp_ns) / 1e6


class _Probe:
    """The listener: a node of this process, and the other processes of the graph."""

    def __init__(self, stack: ExitStack):
        from diagnostic_msgs.msg import DiagnosticArray

        from thermalreid_ros.ros import qos
        from thermalreid_ros.ros.environment import process_environment
        from thermalreid_ros.ros.listener import Listener

        listener = Listener("bench")
        stack.callback(listener.close)
        self.node = listener.node
        self._diagnostics: dict[tuple[str, str], str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._note, qos.DIAGNOSTICS)
        self._supervisor = stack.enter_context(Supervisor(process_environment()))

    def listen(self, message_type: type, topic: str, profile) -> list[_Arrival]:
        arrivals: list[_Arrival] = []
        self.node.create_subscription(
            message_type, topic, lambda message: arrivals.append(_Arrival(message, time.time_ns())), profile)
        return arrivals

    def start(self, name: str, command: Sequence[str]) -> Process:
        return self._supervisor.start(name, command)

    def wait_for(self, condition: Callable[[], Any], process: Process) -> None:
        limit_s = time.monotonic() + START_LIMIT_S
        while not condition():
            if process.exit_code is not None:
                raise ThermalReidError(f"{process.name} ended at once: {last_line(process)}")
            if time.monotonic() > limit_s:
                raise ThermalReidError(f"{process.name} did not come up within {START_LIMIT_S:.0f} s; "
                                       f"its last line: {last_line(process)}")
            time.sleep(0.05)

    def diagnostic(self, node: str, key: str) -> float:
        """The newest value that a node reported under a key, NaN when it did not."""
        return float(self._diagnostics.get((node, key), "nan"))

    def _note(self, message) -> None:
        for status in message.status:
            node = status.name.rpartition("/")[2]
            self._diagnostics |= {(node, item.key): item.value for item in status.values}


@contextmanager
def _isolated_graph() -> Iterator[_Probe]:
    """A ROS domain that a running vehicle on this machine is not in; ends all it started."""
    before = {name: os.environ.get(name) for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")}
    domain = random.choice([number for number in range(1, 102) if str(number) != before["ROS_DOMAIN_ID"]])
    os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    try:
        with ExitStack() as stack:
            yield _Probe(stack)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _film(probe: _Probe, seconds: float, rate_hz: float, units: str, tick: Tick, node: Process | None = None,
          subscribers: int = 1) -> int:
    """Let the camera publish for this long; the number of frames it sent."""
    frames = max(1, round(seconds * rate_hz))
    camera = probe.start("camera", [
        sys.executable, "-m", bench_camera.__name__, "--frames", str(frames), "--rate-hz", str(rate_hz),
        "--units", units, "--subscribers", str(subscribers)])
    began_s, ticked_s = time.monotonic(), 0.0
    while camera.exit_code is None:
        if node is not None and node.exit_code is not None:
            raise ThermalReidError(f"{node.name} ended while frames came: {last_line(node)}")
        if time.monotonic() - began_s > seconds + START_LIMIT_S:
            raise ThermalReidError(f"the benchmark's camera did not end; its last line: {last_line(camera)}")
        time.sleep(0.1)
        done_s = min(time.monotonic() - began_s, seconds)
        tick(done_s - ticked_s)
        ticked_s = done_s
    if camera.exit_code:
        raise ThermalReidError(f"the benchmark's camera failed: {last_line(camera)}")
    tick(seconds - ticked_s)
    return frames


def last_line(process: Process) -> str:
    """The last thing a process said."""
    if process.exit_code is not None:
        process.death()  # reads its output to the end
    return process.lines[-1] if process.lines else "(none)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.machine())
