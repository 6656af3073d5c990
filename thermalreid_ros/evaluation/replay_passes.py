"""A recording that is played over and over: the same stamps each time, told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from thermalreid_ros.evaluation.recording import Truth

Value = TypeVar("Value")


class Passes:
    """Makes stamps of the recording into stamps that go on from pass to pass, by period_ns each time.

    count: passes that have begun, 1 before the first frame. A pass begins with a frame that is older than the one
    before it; a result belongs to the newest pass that has had its frame.
    """

    def __init__(self, period_ns: int):
        self.period_ns = period_ns
        self.count = 1
        self._newest_ns: int | None = None

    def of_frame(self, stamp_ns: int) -> int:
        if self.period_ns and self._newest_ns is not None and stamp_ns < self._newest_ns:
            self.count += 1
        self._newest_ns = stamp_ns
        return stamp_ns + (self.count - 1) * self.period_ns

    def of_result(self, stamp_ns: int) -> int:
        late = self.count > 1 and stamp_ns > self._newest_ns
        return stamp_ns + (self.count - 1 - late) * self.period_ns


def repeated(truth: Truth, passes: int, period_ns: int) -> Truth:
    """The truth of so many passes."""
    def again(values: Mapping[int, Value]) -> dict[int, Value]:
        return {stamp_ns + k * period_ns: value for k in range(passes) for stamp_ns, value in values.items()}

    return Truth(again(truth.objects), again(truth.ignored), again(truth.target), again(truth.places),
                 again(truth.target_places), truth.tight_in)
