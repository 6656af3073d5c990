"""The base of all nodes: a lifecycle node that starts itself, works on the newest message and does not die.

    class DetectionNode(ThermalNode):
        NAME = "detection"
        PARAMETERS = Schema(Parameter("model", "yolo_compact", "...", read_only=True), ...)

        def configure(self):                      # loads what takes long; a ThermalReidError is the user's fault
            self._detector = Detector(load_engine(self.values.model))
            self._results = self.publisher(DetectionArray, "detections", qos.RESULTS)

        def activate(self):                       # opens the inputs
            self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self._detect)

        def _detect(self, message):               # on the worker thread, never two at a time
            ...                                   # a ThermalReidError here is a counted refusal, not the end

        def release(self):                        # frees what configure made, publishers aside
            self._detector.close()

    def main():
        return run(DetectionNode)

Threads. The executor's thread takes serialized messages off the topics and runs services; one worker thread per node
deserializes and processes them in order of arrival, so a node's own state needs no locks. An input holds at most
`depth` messages: what overflows is the oldest, counted as superseded and never even deserialized. Inputs with many
messages a second are better `polled`: the executor's thread, which needs about a millisecond a message, leaves them
where they are, and the worker takes all that wait whenever it has nothing else to do or catches up.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import ROSInterruptException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.qos import HistoryPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from thermalreid_ros.engine import seconds_in_models
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.ros.convert import NS_PER_S, serialized_stamp_ns, stamp_to_ns
from thermalreid_ros.ros.diagnostics import Diagnostics
from thermalreid_ros.ros.environment import prepare_process
from thermalreid_ros.ros.parameters import Parameter, ParameterError, Schema

EXIT_USER_FAULT = 2
STOP_WITHIN_S = 3.0  # launch asks again, harder, after 5 s
POLL_S = 0.2
FAULTS_IN_A_ROW = 10  # of the executor, that a node outlives
HELD = object()  # what a node returns for a message that it is not done with; it calls finish() then

COMMON_PARAMETERS = Schema(
    Parameter("autostart", True, "configure and activate at start, without a lifecycle manager", read_only=True),
    Parameter("max_age_s", 2.0, "messages older than this by the node's clock, or as far ahead of it, are dropped; 0: "
              "none are",
              unit="s", minimum=0.0),
)


class ThermalNode(LifecycleNode):
    """See the module's docstring. Subclasses define NAME and PARAMETERS, and what they need of configure, activate,
    deactivate, release and parameters_changed."""

    NAME: str
    PARAMETERS: Schema = Schema()

    def __init__(self, **options: Any):
        super().__init__(self.NAME, **options)
        self.schema = self.PARAMETERS + COMMON_PARAMETERS
        self.schema.declare(self)
        self.values = self.schema.values(self)  # an immutable snapshot, replaced as a whole when parameters change
        self.add_on_set_parameters_callback(self.schema.validate)
        self.add_post_set_parameters_callback(lambda _: self._apply_parameters())
        self.diagnostics = Diagnostics(self)
        self.fault: Exception | None = None  # why the last transition failed
        self._worker: _Worker | None = None
        self._subscriptions_open: list[Subscription] = []
        self._publishers_open: list[LifecyclePublisher] = []
        self._timers_open: list[Timer] = []
        self._configured = self._starting = False
        self._taken = self.values  # those that parameters_changed, or configure, has seen
        self._rclpy_change_state = self._service_change_state.callback
        self._service_change_state.callback = self._change_state

    # what a node fills in

    def configure(self) -> None:
        """Load models, create publishers. Whatever is raised leaves the node unconfigured."""

    def activate(self) -> None:
        """Open the inputs with receive()."""

    def deactivate(self) -> None:
        """After the inputs have been closed and the worker has stopped."""

    def release(self) -> None:
        """Free what configure made; called after a failed configure too, so it may be half made."""

    def parameters_changed(self) -> None:
        """Take over self.values; runs on the worker thread while active."""

    def time_set_back(self) -> None:
        """Stamps of an input start over (a recording is looped): forget what depends on the past; on the worker
        thread, once for each input."""

    # what a node uses

    def publisher(self, message_type: type, topic: str, profile: QoSProfile) -> LifecyclePublisher:
        """A publisher that is silent unless active and goes away on cleanup; for configure."""
        publisher = self.create_lifecycle_publisher(message_type, topic, profile)
        self._publishers_open.append(publisher)
        return publisher

    def receive(self, name: str, message_type: type, topic: str, profile: QoSProfile,
                process: Callable[[Any], object], *, depth: int = 1, silent_limit_s: float | None = 3.0,
                ordered: bool = True, polled: bool = False, spacing_s: float = 0.0,
                refused: Callable[[Any, str], None] | None = None) -> None:
        """Process the messages of a topic on the worker thread; for activate.

        name: of the input in the diagnostics, a plural ("frames"). depth: messages that may wait; 1 is newest only,
        a larger one deepens the profile's queue too.
        silent_limit_s: silence that becomes a warning, None for topics that are silent by nature.
        ordered: drop messages whose header stamp is not after the one before, or farther from now than max_age_s; False
        for messages without header and for latched ones.
        polled: for inputs with many messages a second that another one leads: they wait unread for catch_up, or POLL_S.
        spacing_s: of polled inputs whose messages begin with a header: what is stamped sooner after the last one taken
        is left unread, and counted as superseded.
        refused: told, on the worker thread, of each message that is dropped after it was deserialized, and why.
        """
        entry = _Input(name, message_type, process, depth, StampGate() if ordered else None, refused,
                       round(spacing_s * NS_PER_S))
        profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=max(depth, profile.depth),
                             reliability=profile.reliability, durability=profile.durability)
        subscription = self.create_subscription(
            message_type, topic, lambda data: self._worker.put(entry, data), profile, raw=True,
            callback_group=_NotExecuted() if polled else None)
        self._subscriptions_open.append(subscription)
        if polled:
            self._worker.poll(entry, subscription)
        self.diagnostics.watch(name, subscription.topic_name, silent_limit_s)

    def every(self, period_s: float, action: Callable[[], None]) -> None:
        """Run something on the worker thread, now and then after each so many seconds of the node's clock; for
        activate."""
        self._timers_open.append(self.create_timer(period_s, lambda: self._worker.call(action)))
        self._worker.call(action)

    def catch_up(self, *names: str) -> None:
        """Process now what has arrived of other inputs; for use while a message is processed, after what takes long
        and before what needs their newest."""
        self._worker.catch_up(names)

    def later(self, name: str, at_s: float, action: Callable[[], None]) -> None:
        """Run something on the worker thread, once, from a time of time.monotonic() on and only when no message
        waits; on the worker thread. name: of the input that its faults are counted for. There is one such action: the
        last one asked for."""
        self._worker.later = (at_s, name, action)

    def finish(self, name: str, stamp_ns: int) -> None:
        """Count a message as processed whose callback returned HELD; stamp_ns: its own."""
        self.diagnostics.sample(f"{name}_latency_ms", self.age_ms(stamp_ns))
        self.diagnostics.processed(name)

    def age_ms(self, stamp_ns: int) -> float:
        """Milliseconds from a stamp to now on the node's clock."""
        return (self.get_clock().now().nanoseconds - stamp_ns) / 1e6

    def ahead(self, stamp_ns: int) -> str | None:
        """Why a stamp is too far ahead of the node's clock, or None. A clock at 0 has not started yet."""
        ahead_s, limit_s = -self.age_ms(stamp_ns) / 1e3, self.values.max_age_s
        if not 0.0 < limit_s < ahead_s or not self.get_clock().now().nanoseconds:
            return None
        return (f"its stamp is {ahead_s:.1f} s ahead of the node's clock, more than max_age_s = {limit_s}: synchronise "
                "the clocks, or use_sim_time where a recording is played")

    # lifecycle

    def autostart(self) -> bool:
        """Configure and activate, where the parameter asks for it; False when that failed (see self.fault)."""
        if not self.values.autostart:
            return True
        self._starting, success = True, TransitionCallbackReturn.SUCCESS
        try:
            return self.trigger_configure() == success and self.trigger_activate() == success
        finally:
            self._starting = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configuring", "inactive", "unconfigured", self._configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("activating", "active", "inactive", self._activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivating", "inactive", "active", self._deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("cleaning up", "unconfigured", "inactive", self._cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shutting down", "finalized", "finalized", self.stop, state)

    def stop(self, state: LifecycleState | None = None) -> None:
        """Close the inputs, stop the worker, free the rest; in any state, more than once too. What a worker may still
        use is left to the end of the process."""
        self._close_inputs()
        if not self._at_work:
            self._release(state)

    def destroy_node(self) -> None:
        """As any node's; with it goes its participant, whose shared memory would outlive a process that is killed."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()  # rclpy leaves it, which holds the node, to the garbage collector

    def _change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        """The service's answer: a transition that there is not from this state is refused. rclpy raises what would end
        the node, for a manager that configures a node which has started itself."""
        _, state = self._state_machine.current_state
        try:
            return self._rclpy_change_state(request, response)
        except _rclpy.RCLError:
            asked = request.transition.label or request.transition.id
            self.get_logger().warning(f"transition {asked} is refused: there is none from state {state}")
            response.success = False
            return response

    def _transition(self, during: str, success: str, failure: str, action: Callable[[LifecycleState], None],
                    state: LifecycleState) -> TransitionCallbackReturn:
        self.diagnostics.state(during)
        try:
            action(state)
        except Exception as error:  # rclpy would swallow it without a word
            self.fault = error
            reason = describe(error)
            self.get_logger().debug(traceback.format_exc())
            if not self._starting:  # else run() says it, as the last thing
                self.get_logger().error(f"{during} failed: {reason}")
            self.diagnostics.state(failure, f"{during} failed: {reason}")
            return TransitionCallbackReturn.FAILURE
        self.fault = None
        self.diagnostics.state(success)
        return TransitionCallbackReturn.SUCCESS

    def _configure(self, state: LifecycleState) -> None:
        try:
            self._configured, self._taken = True, self.values
            self.configure()
        except BaseException:
            self._release(state)
            raise

    def _activate(self, state: LifecycleState) -> None:
        self._refuse_while_at_work()
        self._worker = _Worker(self)
        try:
            super().on_activate(state)  # enables the publishers
            if self._taken is not self.values:  # a change that the worker before this one was stopped ahead of
                self._take_parameters_calmly()
            self.activate()
        except BaseException:
            self._close_inputs()
            super().on_deactivate(state)
            raise

    def _deactivate(self, state: LifecycleState) -> None:
        self._close_inputs()
        self.deactivate()
        super().on_deactivate(state)

    def _cleanup(self, state: LifecycleState) -> None:
        self._refuse_while_at_work()
        self._release(state)

    def _release(self, state: LifecycleState) -> None:
        if self._configured:
            self._configured = False
            self.release()
        while self._publishers_open:
            self.destroy_lifecycle_publisher(self._publishers_open.pop())

    def _close_inputs(self) -> None:
        while self._timers_open:
            self.destroy_timer(self._timers_open.pop())
        while self._subscriptions_open:
            self.destroy_subscription(self._subscriptions_open.pop())
        if self._worker is not None and self._worker.stop():
            self._worker = None
        self.diagnostics.unwatch()  # after the last message, which may warn of something

    @property
    def _at_work(self) -> bool:
        """Whether there is a worker, be it one that was stopped and is still at a message."""
        return self._worker is not None and self._worker.alive

    def _refuse_while_at_work(self) -> None:
        """The worker before may still be at a message, with what a new one would share, or what would be freed."""
        if self._at_work:
            raise ThermalReidError("the message at hand when it was deactivated is still being processed: try again "
                                   "when that has ended, or start the node anew")

    def _apply_parameters(self) -> None:
        values = self.schema.values(self)
        if values == self.values:
            return
        self.values = values
        if self._at_work:
            self._worker.call(self._take_parameters)
        elif self._configured:
            self._take_parameters_calmly()

    def _take_parameters(self) -> None:
        self._taken = self.values
        self.parameters_changed()

    def _take_parameters_calmly(self) -> None:
        try:
            self._take_parameters()
        except Exception as error:  # on the executor's thread it would end the node
            self.get_logger().debug(traceback.format_exc())
            self.diagnostics.refused("parameters", describe(error), kind_of(error))


class StampGate:
    """Lets stamps pass that go forward in time.

    A stamp that is not after the last one is refused, alone; when the next one is still in the past but after the
    refused one, time itself was set back (a recording starts over) and the gate follows.
    """

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._refused_ns: int | None = None
        self.set_back = False  # whether the stamp that passed last set time back

    def fault(self, stamp_ns: int) -> str | None:
        """Why the stamp is refused, or None."""
        if stamp_ns <= 0:
            return "its stamp is zero: the camera driver must set it to the time of capture"
        went_back = self._last_ns is not None and stamp_ns <= self._last_ns
        if went_back and (self._refused_ns is None or stamp_ns <= self._refused_ns):
            self._refused_ns = stamp_ns
            return f"its stamp is {(self._last_ns - stamp_ns) / NS_PER_S:.3f} s before that of the one before"
        self._last_ns, self._refused_ns, self.set_back = stamp_ns, None, went_back
        return None


def describe(error: BaseException) -> str:
    """One line: the message of a user's fault, or type, message and place of a defect."""
    if isinstance(error, ThermalReidError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(where[-1].filename)}:{where[-1].lineno})" if where else ""
    return " ".join(f"unexpected {type(error).__name__}: {error}{place}".split())


def kind_of(error: BaseException) -> str:
    """The kind of drop that it makes, as Diagnostics.refused takes it: a user's fault or a defect."""
    return "refused" if isinstance(error, ThermalReidError) else "failed"


@dataclass(eq=False)
class _Input:
    name: str
    message_type: type
    process: Callable[[Any], object]
    depth: int
    gate: StampGate | None
    refused: Callable[[Any, str], None] | None = None
    spacing_ns: int = 0
    waiting: int = field(default=0, init=False)
    taken_ns: int | None = field(default=None, init=False)  # stamp of the last one taken, where they are spaced

    def too_soon(self, data: bytes) -> bool:
        """Whether a serialized message is one to leave unread."""
        if not self.spacing_ns:
            return False
        stamp_ns = serialized_stamp_ns(data)
        if self.taken_ns is not None and 0 < stamp_ns - self.taken_ns < self.spacing_ns:
            return True
        self.taken_ns = stamp_ns
        return False


class _NotExecuted(CallbackGroup):
    """Of subscriptions that the executor leaves alone."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class _Worker:
    """One thread that processes what the executor's thread puts in, in order of arrival."""

    def __init__(self, node: ThermalNode):
        self._node = node
        self._pending: deque[tuple[_Input | None, Any]] = deque()
        self._polled: list[tuple[_Input, Subscription]] = []
        self._condition = threading.Condition()
        self._stopping = False
        self.later: tuple[float, str, Callable[[], None]] | None = None  # see ThermalNode.later
        self._thread = threading.Thread(target=self._run, name=f"{node.get_name()} worker", daemon=True)
        self._thread.start()

    def put(self, entry: _Input, data: bytes) -> None:
        self._node.diagnostics.received(entry.name)
        with self._condition:
            overflow = entry.waiting == entry.depth
            oldest = next(i for i, (other, _) in enumerate(self._pending) if other is entry) if overflow else None
            if overflow and entry.depth == 1:  # in its place: at the end, others could keep it waiting for ever
                self._pending[oldest] = entry, data
            else:
                if overflow:
                    del self._pending[oldest]
                else:
                    entry.waiting += 1
                self._pending.append((entry, data))
            self._condition.notify()
        if overflow:
            self._node.diagnostics.superseded(entry.name)

    def call(self, action: Callable[[], None]) -> None:
        """Run something between two messages."""
        with self._condition:
            self._pending.append((None, action))
            self._condition.notify()

    def poll(self, entry: _Input, subscription: Subscription) -> None:
        """Take the messages of a subscription that the executor does not know of, from now on."""
        with self._condition:
            self._polled.append((entry, subscription))
            self._condition.notify()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> bool:
        """Finish the message at hand, forget the rest; whether that was done in time."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(STOP_WITHIN_S)
        if self.alive:
            self._node.get_logger().warning(f"a message is still being processed after {STOP_WITHIN_S:.0f} s: "
                                            "not waiting for it")
        return not self.alive

    def _run(self) -> None:
        while True:
            with self._condition:
                waits_s = [POLL_S] if self._polled else []
                waits_s += [] if self.later is None else [max(self.later[0] - time.monotonic(), 0.0)]
                if not (self._pending or self._stopping):
                    self._condition.wait(min(waits_s, default=None))
                arrived = bool(self._pending)
                if self._stopping:
                    return
                if arrived:
                    entry, item = self._pending.popleft()
                    if entry is not None:
                        entry.waiting -= 1
            self._node.diagnostics.works()
            began_s, in_models_s = time.perf_counter(), seconds_in_models()
            own_cpu_s = time.thread_time() - seconds_in_models(cpu=True)
            if arrived:
                self._work(entry, item)
            elif self.later is None or self.later[0] > time.monotonic():
                self._work(None, self._take_polled)
            else:
                (_, name, action), self.later = self.later, None
                self._work(None, action, name)
            self._node.diagnostics.worked(time.perf_counter() - began_s, seconds_in_models() - in_models_s,
                                          time.thread_time() - seconds_in_models(cpu=True) - own_cpu_s)

    def catch_up(self, names: tuple[str, ...]) -> None:
        """Process what waits of these inputs; on the worker thread."""
        with self._condition:
            chosen = [(entry, data) for entry, data in self._pending if entry is not None and entry.name in names]
            rest = [(entry, data) for entry, data in self._pending if entry is None or entry.name not in names]
            self._pending = deque(rest)
            for entry, _ in chosen:
                entry.waiting -= 1
        for entry, data in chosen:
            self._work(entry, data)
        self._take_polled(names)

    def _take_polled(self, names: tuple[str, ...] | None = None) -> None:
        """Process what waits of the polled inputs, of all by default."""
        for entry, subscription in tuple(self._polled):
            for _ in range(entry.depth if names is None or entry.name in names else 0):
                if self._stopping or (data := _take(subscription)) is None:
                    break
                self._node.diagnostics.received(entry.name)
                if entry.too_soon(data):
                    self._node.diagnostics.superseded(entry.name)
                else:
                    self._work(entry, data)

    def _work(self, entry: _Input | None, item: Any, name: str = "parameters") -> None:
        """Process a message, or run what was to be called; its faults are counted for that name."""
        message = None
        try:
            if entry is None:
                return item()
            message = deserialize_message(item, entry.message_type)
            if (drop := self._process(entry, message)) is None:
                return
            reason, kind = drop
        except Exception as error:  # a node outlives its worst message
            if not self._node.context.ok():
                return  # publishing fails once the process is told to end
            self._node.get_logger().debug(traceback.format_exc())
            reason, kind = describe(error), kind_of(error)
        self._node.diagnostics.refused(name if entry is None else entry.name, reason, kind)
        if message is None or entry.refused is None:
            return
        try:
            entry.refused(message, reason)
        except Exception as error:
            if self._node.context.ok():
                self._node.diagnostics.refused(entry.name, describe(error), "failed")

    def _process(self, entry: _Input, message: Any) -> tuple[str, str] | None:
        """None, or why the message was dropped and what kind of drop that is."""
        node, diagnostics, name = self._node, self._node.diagnostics, entry.name
        stamp_ns = None
        if entry.gate is not None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            age_ms, limit_ms = node.age_ms(stamp_ns), 1000.0 * node.values.max_age_s
            # The gate must not see it, for all that comes later would be of its past.
            if (fault := node.ahead(stamp_ns)) is not None:
                return fault, "out_of_order"
            if (fault := entry.gate.fault(stamp_ns)) is not None:
                return fault, "out_of_order"
            if entry.gate.set_back:
                node.get_logger().info(f"{name}: stamps start over; the past is forgotten")
                node.time_set_back()
            diagnostics.sample(f"{name}_age_ms", age_ms)
            if 0.0 < limit_ms < age_ms:
                return (f"it is {age_ms / 1000.0:.1f} s old by the node's clock, more than max_age_s = "
                        f"{node.values.max_age_s} (a recording needs use_sim_time)", "too_old")
        began_s = time.perf_counter()
        if entry.process(message) is HELD:
            return None
        diagnostics.sample(f"{name}_processing_ms", (time.perf_counter() - began_s) * 1000.0)
        if stamp_ns is not None:
            diagnostics.sample(f"{name}_latency_ms", node.age_ms(stamp_ns))
        diagnostics.processed(name)
        return None


def _take(subscription: Subscription) -> bytes | None:
    """The oldest message that waits in a subscription; None where none does, or it has been destroyed."""
    try:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, True)
    except _rclpy.InvalidHandle:
        return None
    return None if taken is None else taken[0]


def run(node_class: type[ThermalNode], args: list[str] | None = None) -> int:
    """The main function of a node's executable; returns the exit code.

    0: ended by SIGINT, SIGTERM or shutdown. 2: the user's fault (parameters, model), one FATAL line. 1: a defect.
    """
    prepare_process()
    interrupt = _Interrupt()
    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = _of_destructors
    node, code, began = None, 0, False
    try:
        _init(args)
        began = True
        node = node_class()
        if not node.autostart():
            raise node.fault
        interrupt.raises = False  # one that is broken off half made complains when it is collected
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not interrupt.came:  # rclpy's own handler wakes the executor
            _spin_once(executor, node)
    except (KeyboardInterrupt, ExternalShutdownException, ROSInterruptException):
        pass
    except Exception as error:
        if not interrupt.came and (rclpy.ok() or not began):  # else it came of being told to end
            get_logger(node_class.NAME).fatal(describe(error))
            code = EXIT_USER_FAULT if isinstance(error, ThermalReidError) else 1
    finally:
        interrupt.raises = False
        if node is not None:
            node.stop()
            node.destroy_node()
        else:
            gc.collect()  # one that failed half made holds a participant, too
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter, while it ends, restores the default
        sys.stdout.flush()
    return code


def _spin_once(executor: SingleThreadedExecutor, node: ThermalNode) -> None:
    """Serve one request or message; rclpy raises here what it makes of a malformed request, too. Raises what comes
    time after time."""
    for _ in range(FAULTS_IN_A_ROW - 1):
        try:
            return executor.spin_once()
        except (ExternalShutdownException, ROSInterruptException):
            raise
        except Exception as error:
            if not rclpy.ok():
                raise
            node.get_logger().debug(traceback.format_exc())
            node.get_logger().error(describe(error))
    executor.spin_once()


def _of_destructors(fault: Any) -> None:
    """Says what went wrong where nothing can be raised, but not what rclpy's destructors find when an interrupt has
    shut the context down while something was being made: it has ended as it was told."""
    if rclpy.ok():
        sys.__unraisablehook__(fault)


def _init(args: list[str] | None) -> None:
    try:
        rclpy.init(args=args)
    except (_rclpy.RCLError, _rclpy.UnknownROSArgsError) as error:
        # e.g. a parameter file that is absent or no YAML; what follows is the place in the C sources
        raise ParameterError(f"command line: {str(error).partition(', at /')[0]}") from error


class _Interrupt:
    """Handler of SIGINT: breaks off what takes long at start; later it is only noted.

    A KeyboardInterrupt within rclpy's C++ would come out as some other error, or not at all, and one within the
    cleaning up would spoil it: a terminal's Ctrl-C comes twice, from the terminal and from the supervisor.
    """

    def __init__(self) -> None:
        self.came, self.raises = False, True

    def __call__(self, *_: object) -> None:
        first, self.came = not self.came, True
        if first and self.raises:
            raise KeyboardInterrupt
