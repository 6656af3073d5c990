"""Frames that await their labelling: which one to detect next, with what, and for how long the others wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from thermalreid_ros.errors import ThermalReidError

Frame = TypeVar("Frame")
Labels = TypeVar("Labels")

PATIENCE = 3  # frames in a row that may wait in vain
_REMEMBERED = 256  # frames whose labelling may still come: stamps alone


class LateLabelling(ThermalReidError):
    """A labelling of a frame that could not wait for it any longer."""


@dataclass(frozen=True)
class Job(Generic[Frame, Labels]):
    """What to detect next. labels: None where they did not come in time. waited_s: since the frame came."""

    stamp_ns: int
    frame: Frame
    labels: Labels | None
    waited_s: float


class AwaitedLabels(Generic[Frame, Labels]):
    """Pairs frames with labellings by their stamp. Times are seconds of any one clock that does not jump.

    A frame is ready with its labelling, or without once `wait_s` are over. The newest ready frame is next and all older
    ones are given up: nothing queues, and work goes forward in time only. A newer frame that still waits does not
    displace an older one that is ready: where frames come faster than labellings, none would ever be ready.

    A source that is dead, or later than wait_s, must not delay each frame: after PATIENCE frames in vain they are ready
    as they come, until a labelling comes within wait_s of its frame again. Labellings of frames that never came say
    nothing of that, and frames between two that are labelled in time are not in vain.

    More than `capacity` frames do not wait: where a camera brings more within wait_s, they are thinned evenly, so that
    the oldest is still there when its time is over.

    superseded: frames given up. strays: labellings given up whose frame never came.
    """

    def __init__(self, wait_s: float, capacity: int = 64):
        self.wait_s = wait_s
        self.superseded = self.strays = 0
        self._capacity = capacity
        self._frames: dict[int, Frame] = {}  # by rising stamp
        self._labels: dict[int, Labels] = {}
        self._arrived_s: dict[int, float] = {}  # of the last frames, detected or not
        self._in_vain = 0
        self._heard_s = -math.inf  # when a labelling came in time

    @property
    def due_s(self) -> float | None:
        """When next() will give the next frame without a labelling; None where no frame waits."""
        return min(map(self._ready_s, self._frames), default=None)

    def add_frame(self, stamp_ns: int, frame: Frame, now_s: float) -> None:
        """A stamp before that of the frame before begins anew (a recording starts over)."""
        if self._arrived_s and stamp_ns < next(reversed(self._arrived_s)):
            self.superseded += len(self._frames)
            self._frames.clear()
            self._arrived_s.clear()
            self._labels = {stamp: labels for stamp, labels in self._labels.items() if stamp <= stamp_ns}
        self._frames[stamp_ns] = frame
        self._arrived_s[stamp_ns] = now_s
        if len(self._frames) > self._capacity:
            del self._frames[self._closest()]
            self.superseded += 1
        if len(self._arrived_s) > _REMEMBERED:
            del self._arrived_s[next(stamp for stamp in self._arrived_s if stamp not in self._frames)]

    def add_labels(self, stamp_ns: int, labels: Labels, now_s: float) -> None:
        """Raises LateLabelling where the frame was detected without, having waited."""
        arrived_s = self._arrived_s.get(stamp_ns)
        in_time = arrived_s is not None and now_s - arrived_s <= self.wait_s
        if in_time:
            self._in_vain, self._heard_s = 0, now_s
        if stamp_ns in self._frames or arrived_s is None:
            self._labels[stamp_ns] = labels
            if len(self._labels) > self._capacity:
                self._give_up(next(iter(self._labels)))
        elif not in_time:
            raise LateLabelling(f"came {now_s - arrived_s:.2f} s after its frame, which waits for {self.wait_s:g} s at "
                                "most; raise semantics_wait_s, or relieve the processor")

    def next(self, now_s: float) -> Job[Frame, Labels] | None:
        """The newest frame that is ready; it and all older ones are held no longer."""
        ready = [stamp for stamp in self._frames if stamp in self._labels or self._ready_s(stamp) <= now_s]
        if not ready:
            return None
        stamp_ns = ready[-1]
        frame, labels = self._frames.pop(stamp_ns), self._labels.pop(stamp_ns, None)
        for past in [stamp for stamp in self._frames if stamp < stamp_ns]:
            del self._frames[past]
            self.superseded += 1
        for past in [stamp for stamp in self._labels if stamp < stamp_ns]:
            self._give_up(past)
        if labels is not None:
            self._in_vain = 0
        elif now_s - self._heard_s >= self.wait_s:
            self._in_vain += 1
        return Job(stamp_ns, frame, labels, now_s - self._arrived_s[stamp_ns])

    def _closest(self) -> int:
        """Of the frames between the oldest and the newest the one that is missed least: those around it came closest
        together. One that has its labelling is ready, and stays if there is another."""
        stamps = list(self._frames)
        return stamps[min(range(1, len(stamps) - 1), key=lambda k: (
            stamps[k] in self._labels, self._arrived_s[stamps[k + 1]] - self._arrived_s[stamps[k - 1]]))]

    def _ready_s(self, stamp_ns: int) -> float:
        wait_s = self.wait_s if self._in_vain < PATIENCE else 0.0
        return self._arrived_s[stamp_ns] + wait_s

    def _give_up(self, stamp_ns: int) -> None:
        del self._labels[stamp_ns]
        self.strays += stamp_ns not in self._arrived_s
