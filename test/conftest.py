"""Fixtures: the shared data, a ROS domain of one's own, processes of nodes, and a node to talk to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):
    import hypothesis

    hypothesis.settings.register_profile("busy", deadline=None)  # a busy machine may take long for any example
    hypothesis.settings.load_profile("busy")

REPOSITORY = Path(__file__).resolve().parents[1]
SAFE_DOMAINS = range(1, 102)  # higher ones use ports that Linux hands out to anybody
END_S = 10.0  # for the processes of a test, once it is over
DISCOVERY_S = 30.0  # 0 to 3 s alone; a busy machine takes long to start a process


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are not in the repository; skips where it is absent."""
    folder = Path(os.environ.get("THERMALREID_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}: set THERMALREID_SHARED_DATA")
    return folder


@contextlib.contextmanager
def reserved_domain() -> Iterator[dict[str, str]]:
    """Environment of a ROS domain that nobody else uses, no other test run either, for as long as it is held."""
    for domain in random.sample(SAFE_DOMAINS, len(SAFE_DOMAINS)):
        with contextlib.ExitStack() as held:
            lock = held.enter_context(open(Path(tempfile.gettempdir()) / f"ros_domain_{domain}.lock", "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", 7410 + 250 * domain))  # the DDS port of a domain's first participant
            except OSError:
                continue
            yield {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
            return
    pytest.fail("all ROS domains are taken")


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A ROS_DOMAIN_ID of the test's own, set in the environment."""
    with reserved_domain() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # what nodes leave for those that come next
        yield int(environment["ROS_DOMAIN_ID"])


class NodeProcess:
    """A process whose output is kept and which is certain to end."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path):
        self.log = log
        with open(log, "w") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_line(self, text: str, timeout_s: float = 20.0) -> str:
        """The first line of output that contains text."""
        found: list[str] = []

        def look() -> bool:
            found.extend(line for line in self.output.splitlines() if text in line)
            return bool(found) or self.process.poll() is not None

        wait_until(look, timeout_s, f"'{text}' in the output")
        assert found, f"ended with {self.process.returncode} without '{text}':\n{self.output}"
        return found[0]

    def wait(self, timeout_s: float = 20.0) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout_s} s:\n{self.output}")

    def stop(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 20.0) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """As `kill -9`, the children included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_process(ros_domain: int, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """start_process(*command) starts it in the domain of the test with the package's environment."""
    from thermalreid_ros.ros.environment import process_environment
    from thermalreid_ros.ros.shared_memory import remove_abandoned

    started: list[NodeProcess] = []

    def start(*command: str | Path, **environment: str) -> NodeProcess:
        full = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **process_environment(), **environment}
        process = NodeProcess([str(word) for word in command], full, tmp_path / f"process_{len(started)}.log")
        started.append(process)
        return process

    yield start
    for process in started:  # a node that is killed leaves its shared memory
        process.process.send_signal(signal.SIGINT)
    end_s = time.monotonic() + END_S
    for process in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(max(end_s - time.monotonic(), 0.0))
        process.kill()
    remove_abandoned()


@pytest.fixture
def start_node(start_process) -> Callable[..., NodeProcess]:
    """start_node("detection", "-p", "model:=...") starts a node's executable; a path of a script works as well."""
    from thermalreid_ros.ros.environment import node_command

    def start(node: str | Path, *ros_arguments: str, **environment: str) -> NodeProcess:
        command = [sys.executable, str(node)] if isinstance(node, Path) else node_command(node)
        return start_process(*command, "--ros-args", *ros_arguments, **environment)

    return start


class Graph:
    """The test's own node, spun by a thread."""

    def __init__(self) -> None:
        from thermalreid_ros.ros.listener import Listener

        self._listener = Listener("test")
        self.node, self.close = self._listener.node, self._listener.close

    def collect(self, message_type: type, topic: str, profile) -> list:
        """A list to which each message of the topic is appended."""
        messages: list = []
        self.node.create_subscription(message_type, topic, messages.append, profile)
        return messages

    def publisher(self, message_type: type, topic: str, profile, subscribers: int = 1):
        """A publisher that is already connected, in both directions as far as can be known."""
        publisher = self.node.create_publisher(message_type, topic, profile)
        wait_until(lambda: publisher.get_subscription_count() >= subscribers, DISCOVERY_S, f"a subscriber of {topic}")
        time.sleep(0.5)  # subscribers do not tell when they know the publisher, and best effort would lose the first
        return publisher

    def wait_for_publisher(self, topic: str) -> None:
        wait_until(lambda: self.node.count_publishers(topic) > 0, DISCOVERY_S, f"a publisher of {topic}")

    def call(self, service_type: type, name: str, request, timeout_s: float = 10.0):
        """The response of a service. A question is asked again: while a server does not know the client yet, its answer
        goes nowhere."""
        client = self.node.create_client(service_type, name)
        assert client.wait_for_service(timeout_s), f"no service {name}"
        future = client.call_async(request)
        if service_type.__name__.startswith("Get"):
            asked_s = time.monotonic()
            while not future.done() and time.monotonic() < asked_s + timeout_s / 3:
                time.sleep(0.01)
            future = future if future.done() else client.call_async(request)
        wait_until(future.done, timeout_s, f"a response of {name}")
        return future.result()

    def diagnostics(self) -> list:
        """The statuses published from now on, each with `.data`, its values as a dictionary."""
        from diagnostic_msgs.msg import DiagnosticArray
        from thermalreid_ros.ros import qos

        statuses: list = []

        class Status:
            def __init__(self, status):
                self.level, self.name, self.message = status.level, status.name, status.message
                self.data = {item.key: item.value for item in status.values}

        self.node.create_subscription(
            DiagnosticArray, "/diagnostics",
            lambda message: statuses.extend(Status(status) for status in message.status), qos.DIAGNOSTICS)
        return statuses


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll a condition; fails the test, naming what it waited for."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"no {what} within {timeout_s} s")
        time.sleep(0.02)
