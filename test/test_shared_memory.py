"""What nodes hold of the machine's shared memory is free once they have ended, however they end."""

import fcntl
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import wait_until

from thermalreid_ros.ros.environment import prepare_process
from thermalreid_ros.ros.listener import Listener
from thermalreid_ros.ros.shared_memory import BYTES_A_PROCESS, FOLDER, SETTLED_S, remove_abandoned

SAMPLE = Path(__file__).parent / "processes" / "sample_node.py"
OLD_S = 2.0 * SETTLED_S


def segments(pid: int | str) -> set[Path]:
    """Those that a process has mapped; of one without a peer, its own."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {Path(name) for name in re.findall(rf"{FOLDER}/fast(?:rtps|dds)_[0-9a-f]{{16}}(?=\n)", maps)}


def left(found: set[Path]) -> list[Path]:
    return [path for segment in found for path in (segment, Path(f"{segment}_el")) if path.exists()]


def running(start_node):
    """A node by itself, and its segments."""
    node = start_node(SAMPLE)
    wait_until(lambda: len(segments(node.process.pid)) == 2, 20, "two segments")
    own = segments(node.process.pid)
    assert 0.9 * BYTES_A_PROCESS < sum(segment.stat().st_size for segment in own) < BYTES_A_PROCESS
    return node, own


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT],
                                     [signal.SIGINT, signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]])
@pytest.mark.parametrize("apart_s", [0.0, 0.05])
def test_an_orderly_end_frees_all(start_node, signals, apart_s):
    node, own = running(start_node)
    for number in signals:
        node.process.send_signal(number)
        time.sleep(apart_s)
    assert node.wait() == 0 and left(own) == []


def test_a_listener_frees_all_when_it_is_closed(ros_domain):
    before = segments("self")
    listeners = [Listener("first"), Listener("second")]
    own = segments("self") - before
    assert len(own) >= 4 and len(left(own)) == 2 * len(own)
    for listener in listeners:
        listener.close()
    assert left(own) == []


FAULTY = """
import sys
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.ros.lifecycle import ThermalNode, run
class Faulty(ThermalNode):
    NAME = "faulty"
    def __init__(self):
        super().__init__()
        self.fail("init")
    def configure(self):
        self.fail("configure")
    def fail(self, here):
        if here == "PLACE":
            print(*(line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/fast" in line), flush=True)
            raise EXCEPTION("lost")
code = run(Faulty)
print("free", *(line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/fast" in line), flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize("place", ["init", "configure"])
@pytest.mark.parametrize("exception, code", [("ThermalReidError", 2), ("KeyError", 1), ("KeyboardInterrupt", 0)])
def test_a_fault_at_start_frees_all(start_process, place, exception, code):
    node = start_process(sys.executable, "-c", FAULTY.replace("PLACE", place).replace("EXCEPTION", exception))
    assert node.wait() == code
    own = set(re.findall(rf"{FOLDER}/fast(?:rtps|dds)_[0-9a-f]{{16}}\b", node.output))
    assert len(own) == 2 and left({Path(segment) for segment in own}) == []
    assert node.output.splitlines()[-1] == "free"  # before the interpreter ends, where signals would break in


def test_what_a_killed_node_leaves_goes_with_the_next_start(start_node):
    node, own = running(start_node)
    node.kill()
    assert len(left(own)) == 4
    for path in left(own):
        os.utime(path, (time.time() - OLD_S,) * 2)
    running(start_node)
    assert left(own) == []


def make(folder: Path, name: str, age_s: float, size: int = 0) -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_only_segments_without_an_owner_are_removed(tmp_path):
    dead, newer, torn, owned, young = (f"fastrtps_{k:016x}" for k in range(0xabc, 0xac1))
    newer = newer.replace("rtps", "dds")
    for name, age_s in ((dead, OLD_S), (newer, OLD_S), (owned, OLD_S), (young, 0.0)):
        make(tmp_path, name, age_s, 4096)
        make(tmp_path, f"{name}_el", age_s)
    make(tmp_path, torn, OLD_S, 4096)
    make(tmp_path, lock_alone := "fastrtps_0123456789abcdef_el", OLD_S)
    others = {make(tmp_path, name, OLD_S, 52).name for name in (
        "fastrtps_port7412", "fastrtps_port7412_el", "sem.fastrtps_port7412_mutex", "fastrtps_notahexnumber00",
        "fastrtps_0123456789abcdef0", "psm_1234")}
    with open(tmp_path / f"{owned}_el") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_abandoned(folder=tmp_path) == 3 * 4096
        assert {path.name for path in tmp_path.iterdir()} == others | {
            owned, f"{owned}_el", young, f"{young}_el"} and lock_alone not in others
    assert remove_abandoned(folder=tmp_path, settled_s=0.0) == 2 * 4096  # both have no owner any more
    assert {path.name for path in tmp_path.iterdir()} == others
    assert remove_abandoned(folder=tmp_path / "absent") == 0


def test_what_may_not_be_removed_is_left(tmp_path, monkeypatch):
    segment = make(tmp_path, "fastrtps_0123456789abcdef", OLD_S, 4096)

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert remove_abandoned(folder=tmp_path) == 0 and segment.exists()


def test_too_little_room_is_one_line_that_says_what_to_do(monkeypatch, capfd):
    for size_mib, free_mib, lacks in ((64, 60, False), (64, 8, True), (32, 32, True)):  # Docker's default is 64
        room = SimpleNamespace(f_frsize=4096, f_blocks=size_mib * 256, f_bavail=free_mib * 256)
        monkeypatch.setattr(os, "statvfs", lambda _, room=room: room)
        prepare_process()
        said = capfd.readouterr().err.splitlines()
        assert len(said) == lacks and all("--shm-size=256m" in line and "[WARN]" in line for line in said), said
