"""Speed: of each model alone, from topic to topic through the nodes, and of the transport between processes.

Times are milliseconds. Of a frame on its way from the camera's stamp to the arrival of its result, `latency`
is all, `inference` the time inside the network as the node reports it, and `overhead` the rest: transport,
conversion, waiting, pre- and post-processing.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera import ThermalUnits
from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation import synthetic_camera

CAMERA_RATE_HZ = 30.0
# Of the rate the node can keep up with; faster, and what is measured is frames waiting for the one before.
PACED_SHARE = 0.6
WARM_UP_RUNS = 5
START_LIMIT_S = 60.0  # for a node to load its model; TensorRT engines are built ahead of it
STOP_LIMIT_S = 5.0

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


def time_model(model: str | Path, *, runs: int = 100, threads: int = 0, providers: Sequence[str] = ("cpu",),
               tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """One model by itself, on a 640x512 frame where it is a detector, else on zeros of the card's shape.

    For detectors median_ms, p99_ms and iqr_ms are of the whole call, frame to boxes, and `parts` splits its
    median.
    Raises EngineError as load_engine.
    """
    engine = load_engine(model, threads=threads, providers=providers, log=lambda line: None)
    result = {"provider": engine.provider, "threads": engine.threads if engine.provider == "cpu" else None,
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
    if parts:
        result["parts"] = {f"{name}_ms": summary(samples)["median"] for name, samples in parts.items()}
    return result


def measure_transport(seconds: float, *, rate_hz: float = CAMERA_RATE_HZ, units: str = "centikelvin",
                      tick: Tick = lambda seconds: None) -> dict[str, Any]:
    """640x512 frames from one process to another: how many are lost, and how old they are on arrival."""
    from sensor_msgs.msg import Image

    from thermalreid_ros.ros import qos

    with _isolated_graph() as probe:
        arrivals = probe.listen(Image, synthetic_camera.TOPIC, qos.CAMERA_IN)
        sent = _film(probe, seconds, rate_hz, units, tick)
    received = len({arrival.stamp_ns for arrival in arrivals})
    _, encoding = synthetic_camera.pixels(ThermalUnits(units))
    return {"rate_hz": rate_hz, "seconds": seconds, "encoding": encoding,
            "frames_sent": sent, "frames_received": received, "frames_lost": sent - received,
            "latency_ms": summary([arrival.age_ms for arrival in arrivals])}


def measure_topics(model: str, seconds: float, *, rate_hz: float = CAMERA_RATE_HZ, units: str = "centikelvin",
                   parameters: Mapping[str, Any] | None = None, command: Sequence[str] | None = None,
                   tick: Tick = lambda seconds: None) -> dict[str, Any]:
    """The detection node between a camera and a listener, three processes in a ROS domain of their own.

    Two passes. `full_rate`, at the camera's rate, where the node leaves out the frames it has no time for,
    shows the age of the frames it works on. `paced`, at a rate the node keeps up with, shows latency,
    overhead, and the ways the overhead takes (medians).
    parameters: of the node, besides model and units. command: of the node's process, for another
    implementation.
    Raises ThermalReidError, with the node's last line, when the node does not come up or does not answer.
    """
    from thermalreid_ros.ros.environment import node_command

    words = list(command or node_command("detection")) + ["--ros-args"]
    for name, value in {"model": model, "thermal_units": units, **(parameters or {})}.items():
        words += ["-p", f"{name}:={value}"]
    full_rate = _topics_pass(words, seconds, rate_hz, units, tick)
    paced_hz = min(rate_hz, PACED_SHARE * 1e3 / full_rate["latency_ms"]["median"])
    return {"model": model, "units": units, "paced": _topics_pass(words, seconds, paced_hz, units, tick),
            "full_rate": full_rate}


def _topics_pass(command: Sequence[str], seconds: float, rate_hz: float, units: str,
                 tick: Tick) -> dict[str, Any]:
    from thermalreid_ros.msg import DetectionArray
    from thermalreid_ros.ros import qos

    with _isolated_graph() as probe:
        node = probe.start(command)
        arrivals = probe.listen(DetectionArray, "detections", qos.RESULTS)
        probe.wait_for(lambda: probe.node.count_subscribers(synthetic_camera.TOPIC), node)
        sent = _film(probe, seconds, rate_hz, units, tick, node)
        if not arrivals:
            raise ThermalReidError(f"the detection node answered none of {sent} frames; "
                                   f"its last line: {probe.last_line(node)}")
        age_ms, processing_ms, latency_ms = (
            {name: probe.diagnostic(f"frames_{key}_ms_{name}") for name in ("median", "p99")}
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
    gray, _ = synthetic_camera.pixels(ThermalUnits.AGC8)
    marks: list[float] = []

    def call() -> None:
        marks.clear()
        began = time.perf_counter()
        detector.detect(gray)
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
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        from rclpy.node import Node

        from thermalreid_ros.ros import qos
        from thermalreid_ros.ros.environment import prepare_process

        prepare_process()
        self._stack = stack
        self._logs: dict[int, Path] = {}
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = Context()
        rclpy.init(context=context)
        self.node = Node("bench", context=context)
        self._diagnostics: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._note, qos.DIAGNOSTICS)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(self.node)

        def spin() -> None:
            with suppress(ExternalShutdownException):
                executor.spin()

        thread = threading.Thread(target=spin, daemon=True)
        thread.start()

        def close() -> None:
            context.try_shutdown()
            thread.join(STOP_LIMIT_S)
            self.node.destroy_node()

        stack.callback(close)

    def listen(self, message_type: type, topic: str, profile) -> list[_Arrival]:
        arrivals: list[_Arrival] = []
        self.node.create_subscription(
            message_type, topic, lambda message: arrivals.append(_Arrival(message, time.time_ns())), profile)
        return arrivals

    def start(self, command: Sequence[str]) -> subprocess.Popen:
        from thermalreid_ros.ros.environment import process_environment

        log = self._folder / f"{len(self._logs)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                list(command), env=process_environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True)
        self._logs[process.pid] = log
        self._stack.callback(_stop, process)
        return process

    def last_line(self, process: subprocess.Popen) -> str:
        lines = self._logs[process.pid].read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(none)"

    def wait_for(self, condition: Callable[[], Any], process: subprocess.Popen) -> None:
        limit_s = time.monotonic() + START_LIMIT_S
        while not condition():
            if process.poll() is not None:
                raise ThermalReidError(f"a node ended at once: {self.last_line(process)}")
            if time.monotonic() > limit_s:
                raise ThermalReidError(f"a node did not come up within {START_LIMIT_S:.0f} s; "
                                       f"its last line: {self.last_line(process)}")
            time.sleep(0.05)

    def diagnostic(self, key: str) -> float:
        """The newest value that a node reported under this key, NaN when none did."""
        return float(self._diagnostics.get(key, "nan"))

    def _note(self, message) -> None:
        for status in message.status:
            self._diagnostics |= {item.key: item.value for item in status.values}


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


def _film(probe: _Probe, seconds: float, rate_hz: float, units: str, tick: Tick,
          node: subprocess.Popen | None = None) -> int:
    """Let the camera publish for this long; the number of frames it sent."""
    frames = max(1, round(seconds * rate_hz))
    camera = probe.start([sys.executable, "-m", synthetic_camera.__name__, "--frames", str(frames),
                          "--rate-hz", str(rate_hz), "--units", units])
    began_s, ticked_s = time.monotonic(), 0.0
    limit_s = seconds + START_LIMIT_S
    while camera.poll() is None:
        if node is not None and node.poll() is not None:
            raise ThermalReidError(f"the detection node ended with code {node.returncode}: "
                                   f"{probe.last_line(node)}")
        if time.monotonic() - began_s > limit_s:
            raise ThermalReidError(f"the benchmark's camera did not end; "
                                   f"its last line: {probe.last_line(camera)}")
        time.sleep(0.1)
        done_s = min(time.monotonic() - began_s, seconds)
        tick(done_s - ticked_s)
        ticked_s = done_s
    if camera.returncode:
        raise ThermalReidError(f"the benchmark's camera failed: {probe.last_line(camera)}")
    tick(seconds - ticked_s)
    return frames


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.machine())
