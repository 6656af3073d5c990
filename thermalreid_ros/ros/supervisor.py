"""Starts and ends the processes of a graph where there is no `launch`."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.ros.shared_memory import remove_abandoned

LAST_LINES = 12
#: Signals by rising force, and how long each is given to work.
STOP_STEPS = ((signal.SIGINT, 6.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0))  # a busy machine buries slowly
_PR_SET_PDEATHSIG = 1


class ProcessDied(ThermalReidError):
    """A process ended that should have gone on; the message names it and gives its last lines."""


@dataclass(eq=False)
class Process:
    """A started process; its output is read as it comes, and its end kept."""

    name: str
    popen: subprocess.Popen
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, name=f"{self.name} output", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N where signal N ended it."""
        return self.popen.poll()

    def death(self) -> str:
        """One line on how it ended, and its last lines."""
        self._reader.join(1.0)
        code = self.popen.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = "".join(f"\n    {line}" for line in self.lines) or " without a word"
        return f"{self.name} {how}{':' if self.lines else ''}{said}"

    def _read(self) -> None:
        for line in self.popen.stdout:
            self.lines.append(line.rstrip())


class Supervisor:
    """Context of processes that end with it: first asked by SIGINT, then by SIGTERM, at last by SIGKILL.

    They get sessions of their own, so Ctrl-C at the terminal reaches this process alone, which then ends them; where
    this process is killed, the kernel ends them. SIGTERM leaves the context with SystemExit. Must be used from the
    main thread.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._environment = dict(environment, PYTHONUNBUFFERED="1")
        self.processes: dict[str, Process] = {}

    def __enter__(self) -> Supervisor:
        self._on_sigterm = signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def start(self, name: str, command: Sequence[str]) -> Process:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C must not come between birth and entry
        try:
            popen = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
                                     preexec_fn=end_with_parent)
            self.processes[name] = Process(name, popen)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self.processes[name]

    def check(self, *may_end: str) -> None:
        """Raises ProcessDied for the first process that has ended, other than those named that ended well."""
        for name, process in self.processes.items():
            code = process.exit_code
            if code is not None and not (name in may_end and code == 0):
                raise ProcessDied(process.death())

    def stop(self) -> dict[str, int]:
        """End all, in reverse order of their start; the exit codes by name. May be called again.

        Ctrl-C and SIGTERM meanwhile are force sooner, and raised only when all have ended.
        """
        asked_again: BaseException | None = None
        for number, limit_s in STOP_STEPS:
            try:
                self._signal(number, limit_s)
            except (KeyboardInterrupt, SystemExit) as interrupt:
                asked_again = interrupt
        codes = {name: process.exit_code for name, process in self.processes.items()}
        if any(code is None or code < 0 for code in codes.values()):
            remove_abandoned()
        if asked_again is not None:
            raise asked_again
        return codes

    def _signal(self, number: signal.Signals, limit_s: float) -> None:
        """Send a signal to all that run, and wait until they have ended."""
        running = [process for process in reversed(self.processes.values()) if process.exit_code is None]
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, number)
        end_s = time.monotonic() + limit_s
        while any(process.exit_code is None for process in running) and time.monotonic() < end_s:
            time.sleep(0.02)


def _leave(number: int, _: object) -> None:
    """Handler of SIGTERM: out of all contexts, with the exit code that a shell gives to who is ended by it."""
    raise SystemExit(128 + number)


def end_with_parent() -> None:
    """In the child: Ctrl-C as usual, and SIGTERM from the kernel when the parent has gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
