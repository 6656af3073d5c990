"""What a node says of itself: counters, ages and latencies on /diagnostics, once a second, in every state.

| level | condition |
|---|---|
| ERROR | a transition failed, or in the last window an input brought messages and none of them could be processed |
| WARN | active and a watched input silent beyond its limit, messages refused in the last window, or a lasting fault |
| OK | otherwise; newer frames overtaking older ones (`superseded`) are the design, not a fault |

A lasting fault is one that no message is refused for: a lens that is not rectified, an altitude that is not believed,
for ten seconds a map or a prior that does not fit.

Keys, INPUT standing for the name of an input, e.g. `frames`:

| key | meaning |
|---|---|
| `state` | of the lifecycle |
| `INPUT_received` | messages taken from the topic |
| `INPUT_processed` | of these, processed to the end |
| `INPUT_superseded` | dropped because a newer one arrived first, or a reading because it followed the last too soon |
| `INPUT_too_old` | dropped because older than `max_age_s` |
| `INPUT_out_of_order` | dropped because their stamp is not after the one before, or `max_age_s` ahead of the clock |
| `INPUT_refused` | dropped because their content is faulty |
| `INPUT_failed` | dropped because processing failed unexpectedly (a defect) |
| `INPUT_silent_s` | seconds since the last message |
| `last_refusal`, `last_refusal_s` | the newest reason of a drop, and seconds since |
| `NAME_median`, `NAME_p99` | of the last 256 samples of a series, see below |
| `busy_s`, `in_models_s` | seconds that the worker thread has been at work, and of these in models |
| `own_cpu_s` | processor time of the rest: without waiting for a core |

Series: `INPUT_age_ms`, the clock minus the stamp as processing begins; `INPUT_latency_ms`, the same as it ends;
`INPUT_processing_ms`, the time between, but of frames that wait for other inputs; and what the node adds, e.g.
`inference_ms`.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from thermalreid_ros.ros import qos

PERIOD_S = 1.0
WINDOW_S = 5.0  # for this long a refusal keeps the level at WARN
LOG_EVERY_S = 10.0  # the same kind of refusal is logged no more often
SAMPLES = 256
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
_DROPS_THAT_WARN = ("too_old", "out_of_order", "refused", "failed")


@dataclass
class _Input:
    topic: str
    silent_limit_s: float | None
    last_s: float


class Diagnostics:
    """Counts what passes through a node and publishes it; all methods may be called from any thread.

    Stamped with the node's clock, but paced by a steady one, so that a node waiting for /clock is heard too.
    """

    def __init__(self, node: Node):
        self._node = node
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SAMPLES))
        self._notes: dict[str, str] = {}
        self._warnings: dict[str, str] = {}
        self._inputs: dict[str, _Input] = {}
        self._busy_s = self._in_models_s = self._own_cpu_s = 0.0
        self._works_since_s: float | None = None
        self._recent: deque[tuple[float, str, bool]] = deque()  # time, input, whether processed
        self._last_refusal: tuple[float, str] | None = None
        self._reasons: dict[str, str] = {}  # of the last refusal of each input
        self._logged_s: dict[str, float] = {}
        self._state, self._fault = "unconfigured", ""
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._timer = node.create_timer(PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def watch(self, name: str, topic: str, silent_limit_s: float | None) -> None:
        """Count an input from now on; silent for longer than the limit, it is a warning (None: never)."""
        with self._lock:
            self._inputs[name] = _Input(topic, silent_limit_s, time.monotonic())

    def unwatch(self) -> None:
        """Inputs are gone, and with them what was wrong with them; their counters stay."""
        with self._lock:
            self._inputs.clear()
            self._warnings.clear()

    def received(self, name: str) -> None:
        with self._lock:
            self._counts[f"{name}_received"] += 1
            if name in self._inputs:
                self._inputs[name].last_s = time.monotonic()

    def processed(self, name: str) -> None:
        with self._lock:
            self._counts[f"{name}_processed"] += 1
            self._recent.append((time.monotonic(), name, True))

    def superseded(self, name: str) -> None:
        with self._lock:
            self._counts[f"{name}_superseded"] += 1

    def refused(self, name: str, reason: str, kind: str = "refused") -> None:
        """A message was dropped; kind: too_old, out_of_order, refused or failed. Logged, but not over and over."""
        assert kind in _DROPS_THAT_WARN, kind
        now_s = time.monotonic()
        with self._lock:
            self._counts[f"{name}_{kind}"] += 1
            self._recent.append((now_s, name, False))
            topic = self._inputs[name].topic if name in self._inputs else name
            line = f"{topic}: {reason}"
            self._last_refusal = (now_s, line)
            self._reasons[name] = line
            alike = re.sub(r"[-\d.]+", "#", line)  # the same reason with other figures
            log = now_s - self._logged_s.get(alike, -LOG_EVERY_S) >= LOG_EVERY_S
            if log:
                if len(self._logged_s) > SAMPLES:
                    self._logged_s.clear()
                self._logged_s[alike] = now_s
        if log and kind == "failed":
            self._node.get_logger().error(line)
        elif log:  # rclpy holds each place that logs to one severity
            self._node.get_logger().warning(line)

    def sample(self, name: str, value: float) -> None:
        """Add to a series whose median and p99 are published; the name carries the unit, e.g. inference_ms."""
        with self._lock:
            self._samples[name].append(float(value))

    def works(self) -> None:
        """The worker thread takes up a message."""
        with self._lock:
            self._works_since_s = time.monotonic()

    def worked(self, seconds: float, in_models_s: float, own_cpu_s: float) -> None:
        """The worker thread was at work for so long, and for so much of it in models; processor time of the rest."""
        with self._lock:
            self._works_since_s = None
            self._busy_s += seconds
            self._in_models_s += in_models_s
            self._own_cpu_s += own_cpu_s

    def note(self, key: str, value: object) -> None:
        """A fact that stays, e.g. the model or the provider it runs on."""
        with self._lock:
            self._notes[key] = str(value)

    def warning(self, key: str, reason: str) -> None:
        """Something that is wrong, though messages are processed, until another reason is given; "": it is over."""
        with self._lock:
            if reason:
                self._warnings[key] = reason
            else:
                self._warnings.pop(key, None)

    def state(self, label: str, fault: str = "") -> None:
        """The lifecycle state; fault: why the last transition failed. Published at once: loading takes a while."""
        with self._lock:
            self._state, self._fault = label, fault
        self.publish()

    def publish(self) -> None:
        message = DiagnosticArray(status=[self.status()])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def status(self) -> DiagnosticStatus:
        now_s = time.monotonic()
        with self._lock:
            level, text = self._judge(now_s)
            values = {"state": self._state, **self._notes, **{key: str(n) for key, n in sorted(self._counts.items())}}
            values |= {"busy_s": f"{self._busy_s:.3f}", "in_models_s": f"{self._in_models_s:.3f}",
                       "own_cpu_s": f"{self._own_cpu_s:.3f}"}
            for name, source in self._inputs.items():
                values[f"{name}_silent_s"] = f"{now_s - source.last_s:.1f}"
            if self._last_refusal is not None:
                values["last_refusal"] = self._last_refusal[1]
                values["last_refusal_s"] = f"{now_s - self._last_refusal[0]:.1f}"
            for name, series in self._samples.items():
                ranked = sorted(series)
                values |= {f"{name}_median": f"{_quantile(ranked, 0.5):.2f}",
                           f"{name}_p99": f"{_quantile(ranked, 0.99):.2f}"}
        return DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=text,
                                hardware_id=self._node.get_namespace(),
                                values=[KeyValue(key=key, value=value) for key, value in values.items()])

    def _judge(self, now_s: float) -> tuple[bytes, str]:
        while self._recent and now_s - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()
        if self._fault:
            return ERROR, self._fault
        busy_s = 0.0 if self._works_since_s is None else now_s - self._works_since_s
        if busy_s > WINDOW_S and any(now_s - source.last_s <= WINDOW_S for source in self._inputs.values()):
            return ERROR, f"busy with one message for {busy_s:.0f} s"
        for name in dict.fromkeys(name for _, name, _ in self._recent):
            if not any(fine for _, other, fine in self._recent if other == name):
                return ERROR, f"none of the last {name} could be processed: {self._reasons[name]}"
        silent = []
        for name, source in self._inputs.items():
            silent_s = now_s - source.last_s
            if source.silent_limit_s is not None and silent_s > source.silent_limit_s:
                publishers = self._node.count_publishers(source.topic)
                silent.append(f"no {name} on {source.topic} for {silent_s:.0f} s "
                              f"({publishers} publisher{'s' * (publishers != 1)})")
        if silent:
            return WARN, "; ".join(silent)
        if self._last_refusal is not None and now_s - self._last_refusal[0] <= WINDOW_S:
            return WARN, self._last_refusal[1]
        if self._warnings:
            return WARN, "; ".join(self._warnings.values())
        return OK, self._state


def _quantile(ranked: list[float], share: float) -> float:
    """As np.percentile, which takes ten times as long for some hundred numbers; they are asked for once a second."""
    place = share * (len(ranked) - 1)
    low = int(place)
    return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])
