"""The process supervisor: deaths are noticed and named, everything ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import wait_until
from thermalreid_ros.ros import supervisor as module
from thermalreid_ros.ros.supervisor import ProcessDied, Supervisor

POLITE = "import time; print('up', flush=True)\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('bye')"
STUBBORN = ("import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_up(process) -> bool:
    return "up" in process.lines


def test_a_killed_process_is_named_with_its_last_lines():
    with Supervisor(os.environ) as supervisor:
        process = supervisor.start("detection", python("print('loading'); " + POLITE))
        supervisor.start("reid", python(POLITE))
        wait_until(lambda: is_up(process), 10, "start")
        supervisor.check()
        process.popen.send_signal(signal.SIGKILL)
        wait_until(lambda: process.exit_code is not None, 5, "end")
        with pytest.raises(ProcessDied) as error:
            supervisor.check()
        assert str(error.value) == "detection was ended by SIGKILL:\n    loading\n    up"


def test_an_end_with_a_fault_is_told_from_a_good_one():
    with Supervisor(os.environ) as supervisor:
        good = supervisor.start("bag_player", python("pass"))
        wait_until(lambda: good.exit_code is not None, 10, "end")
        supervisor.check("bag_player")
        with pytest.raises(ProcessDied, match="bag_player ended with exit code 0 without a word"):
            supervisor.check()
        bad = supervisor.start("bag_player", python("import sys; print('no such recording'); sys.exit(2)"))
        wait_until(lambda: bad.exit_code is not None, 10, "end")
        with pytest.raises(ProcessDied, match="bag_player ended with exit code 2:\n    no such recording"):
            supervisor.check("bag_player")


def test_stop_is_clean_and_rises_in_force_only_where_needed(monkeypatch):
    monkeypatch.setattr(module, "STOP_STEPS", ((signal.SIGINT, 2.0), (signal.SIGTERM, 0.5), (signal.SIGKILL, 2.0)))
    supervisor = Supervisor(os.environ)
    polite, stubborn = supervisor.start("polite", python(POLITE)), supervisor.start("stubborn", python(STUBBORN))
    wait_until(lambda: is_up(polite) and is_up(stubborn), 10, "start")
    began_s = time.monotonic()
    assert supervisor.stop() == {"polite": 0, "stubborn": -signal.SIGKILL}
    assert time.monotonic() - began_s < 5.0
    assert polite.death().endswith("bye") and supervisor.stop() == {"polite": 0, "stubborn": -signal.SIGKILL}


def test_sigterm_leaves_the_context_and_ctrl_c_meanwhile_is_force_sooner():
    parent = subprocess.Popen(python(textwrap.dedent(f"""
        import os, sys, time
        from thermalreid_ros.ros.supervisor import Supervisor
        with Supervisor(os.environ) as supervisor:
            child = supervisor.start("child", [sys.executable, "-c", {STUBBORN!r}])
            while "up" not in child.lines:
                time.sleep(0.01)
            try:
                print("up", flush=True)
                time.sleep(60)
            finally:
                print("leaving", flush=True)""")), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout.readline() == "up\n"
    parent.terminate()
    assert parent.stdout.readline() == "leaving\n"
    for number in (signal.SIGTERM, signal.SIGINT):  # else it would be 9 s to SIGKILL
        time.sleep(0.5)
        parent.send_signal(number)
    assert parent.wait(3.0) == -signal.SIGINT  # as Python ends where nobody catches KeyboardInterrupt


def test_the_handler_of_sigterm_is_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with Supervisor(os.environ) as supervisor, pytest.raises(SystemExit) as left:
        process = supervisor.start("polite", python(POLITE))
        wait_until(lambda: is_up(process), 10, "start")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5.0)
    assert left.value.code == 143 and process.exit_code == 0 and signal.getsignal(signal.SIGTERM) == before


def test_output_is_kept_to_its_last_lines():
    with Supervisor(os.environ) as supervisor:
        process = supervisor.start("talker", python("for n in range(10000): print('line', n)"))
        wait_until(lambda: process.exit_code is not None, 10, "end")
        process.death()
        assert list(process.lines) == [f"line {n}" for n in range(10000 - module.LAST_LINES, 10000)]


def test_children_end_with_a_parent_that_was_killed():
    parent = subprocess.Popen(python(textwrap.dedent("""
        import os, sys, time
        from thermalreid_ros.ros.supervisor import Supervisor
        child = Supervisor(os.environ).start("child", [sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.popen.pid, flush=True)
        time.sleep(60)""")), stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            with open(f"/proc/{child}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, 10, "end of the child")
