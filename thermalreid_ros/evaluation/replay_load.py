"""What a replay asks of the machine: the frames' latency, where the nodes' time goes, and their memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

MEMORY_PERIOD_S = 1.0
SETTLED_S = 60.0  # after this long a process has allocated what it needs
LAST_S = 10.0  # the memory at the end is the median of these
#: The count in a node's diagnostics of the frames that it worked on, where it is not that of its frames.
WORKED_ON = {"reid": "detections_processed"}


class MemoryWatch:
    """Resident memory of processes over time. samples: by name, (seconds since the first look, MB)."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self._began_s: float | None = None
        self._looked_s = -np.inf

    def look(self, now_s: float, processes: Mapping[str, int]) -> None:
        """Take a sample of each process, by its id, unless the last look was just now."""
        self._began_s = now_s if self._began_s is None else self._began_s
        if now_s - self._looked_s < MEMORY_PERIOD_S:
            return
        self._looked_s = now_s
        for name, pid in processes.items():
            if (memory_mb := resident_mb(pid)) is not None:
                self.samples.setdefault(name, []).append((now_s - self._began_s, memory_mb))


def resident_mb(pid: int) -> float | None:
    """Of a process, in units of 10^6 bytes; None where it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_figures(samples: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, dict[str, float | None]]:
    """By process, MB: at the `start` of the recording, after one `minute`, at the `end`, and the `most` after that
    minute; `growth`: end over minute, less 1. What a replay is too short for is None."""
    figures = {}
    for name, series in samples.items():
        times_s, memory_mb = np.array(series).T
        settled = memory_mb[times_s >= SETTLED_S]
        minute = memory_mb[(times_s >= SETTLED_S) & (times_s < SETTLED_S + LAST_S)]
        end = float(np.median(memory_mb[times_s >= times_s[-1] - LAST_S]))
        long = len(minute) > 0 and times_s[-1] >= SETTLED_S + 2 * LAST_S
        figures[name] = {"start": float(memory_mb[0]), "minute": float(np.median(minute)) if long else None,
                         "end": end, "most": float(settled.max()) if long else None,
                         "growth": end / float(np.median(minute)) - 1.0 if long else None}
    return figures


def node_figures(diagnostics: Mapping[str, Mapping[str, str]], frames_in: int) -> dict[str, dict[str, float]]:
    """By node, milliseconds a frame that its worker thread spent in models, and with all else (`overhead_ms`):
    conversion, what comes before and after the models, the localization's filter, tracks, ranking, publishing, and
    waiting for a core. own_cpu_ms: processor time of the same, in which there is no waiting.

    A node is asked for the frames that it worked on; one that works on none, the synthesis, for all that were played.
    """
    figures = {}
    for name, values in diagnostics.items():
        if "busy_s" not in values:
            continue
        frames = int(values.get(WORKED_ON.get(name, "frames_processed"), 0)) or frames_in
        busy_s, in_models_s = float(values["busy_s"]), float(values["in_models_s"])
        figures[name] = {"in_models_ms": 1e3 * in_models_s / max(frames, 1),
                         "overhead_ms": 1e3 * (busy_s - in_models_s) / max(frames, 1),
                         "own_cpu_ms": 1e3 * float(values["own_cpu_s"]) / max(frames, 1)}
    return figures


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Median and p99; None without values."""
    median, p99 = np.percentile(values, (50, 99)) if len(values) else (None, None)
    return {"median": None if median is None else float(median), "p99": None if p99 is None else float(p99)}
