"""Brings the detections of a frame and the frame itself together again, by their stamp."""

from __future__ import annotations

from typing import Generic, TypeVar

Frame = TypeVar("Frame")
Detections = TypeVar("Detections")


class StampPairing(Generic[Frame, Detections]):
    """Keeps the last `capacity` frames for detections to come, and detections that came before their frame.

    hold_ns: as long as frames are kept at least, up to four times as many: those of a fast camera follow each other
    sooner than the detections of the first one come.
    misses: detections given up, because `capacity` newer ones wait or a later pair was complete. Work goes
    forward in time only: what is left of the past would be refused by those who follow objects through it.
    """

    def __init__(self, capacity: int = 16, hold_ns: int = 0):
        self.misses = 0
        self._capacity, self._hold_ns = capacity, hold_ns
        self._frames: dict[int, Frame] = {}
        self._waiting: dict[int, Detections] = {}

    def add_frame(self, stamp_ns: int, frame: Frame) -> Detections | None:
        """The detections that waited for this frame, if any."""
        if stamp_ns in self._waiting:
            return self._complete(stamp_ns)
        self._frames.pop(stamp_ns, None)
        self._frames[stamp_ns] = frame
        while len(self._frames) > self._capacity:
            oldest_ns = next(iter(self._frames))
            if 0 <= stamp_ns - oldest_ns < self._hold_ns and len(self._frames) <= 4 * self._capacity:
                break
            del self._frames[oldest_ns]
        return None

    def add_detections(self, stamp_ns: int, detections: Detections) -> Frame | None:
        """The frame of these detections, if it is here; else they wait for it."""
        if stamp_ns in self._frames:
            frame = self._frames.pop(stamp_ns)
            self._complete(stamp_ns)
            return frame
        self._waiting[stamp_ns] = detections
        if len(self._waiting) > self._capacity:
            del self._waiting[next(iter(self._waiting))]
            self.misses += 1
        return None

    def _complete(self, stamp_ns: int) -> Detections | None:
        detections = self._waiting.pop(stamp_ns, None)
        for past in [stamp for stamp in self._waiting if stamp < stamp_ns]:
            del self._waiting[past]
            self.misses += 1
        return detections
