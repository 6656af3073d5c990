"""What sensors said in the last seconds, to be read at the capture time of a frame."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

_SECOND = 1_000_000_000
_BREAKS = 32  # that are remembered
_MOVING_M_S = 1.0  # no vehicle stops dead from more


class History:
    """The last values of one input by their stamps, in any order of arrival."""

    def __init__(self, name: str, age_s: float, keep_s: float):
        self.name, self._age_ns, self._keep_ns = name, int(age_s * _SECOND), int(keep_s * _SECOND)
        self._stamps: list[int] = []
        self._values: list[np.ndarray] = []
        self._held_ns: int | None = None  # since when it has said the same, of those that note it

    @property
    def newest_ns(self) -> int | None:
        return self._stamps[-1] if self._stamps else None

    @property
    def first(self) -> tuple[int, np.ndarray]:
        """(stamp, value) of the oldest that is kept."""
        return self._stamps[0], self._values[0]

    def add(self, stamp_ns: int, value: np.ndarray) -> None:
        index = bisect_left(self._stamps, stamp_ns)
        if index < len(self._stamps) and self._stamps[index] == stamp_ns:
            self._values[index] = value
            return
        self._stamps.insert(index, stamp_ns)
        self._values.insert(index, value)
        drop = bisect_left(self._stamps, self._stamps[-1] - self._keep_ns)
        if drop > 256:  # seldom, for lists are slow at their front
            del self._stamps[:drop], self._values[:drop]

    def _note(self, same: bool) -> None:
        """Whether a new value, which is about to be added, is the newest one again."""
        if not same:
            self._held_ns = None
        elif self._held_ns is None:
            self._held_ns = self.newest_ns

    def at_or_after(self, stamp_ns: int) -> np.ndarray:
        """The next value from a time on, or the newest, however far; there must be one."""
        return self._values[min(bisect_left(self._stamps, stamp_ns), len(self._stamps) - 1)]

    def forget_after(self, stamp_ns: int) -> None:
        keep = bisect_left(self._stamps, stamp_ns)
        del self._stamps[keep:], self._values[keep:]
        if self._held_ns is not None and self._held_ns >= stamp_ns:
            self._held_ns = None

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Between its neighbours in a straight line, or the nearest one; None where none is near enough."""
        index = bisect_left(self._stamps, stamp_ns)
        before = index - 1 if index > 0 and stamp_ns - self._stamps[index - 1] <= self._age_ns else None
        after = index if index < len(self._stamps) and self._stamps[index] - stamp_ns <= self._age_ns else None
        if before is None or after is None:
            near = before if after is None else after
            return None if near is None else self._values[near]
        return self._between(before, after, stamp_ns)

    def about(self, stamp_ns: int) -> np.ndarray | None:
        """As at(), however far the neighbours are; None before the first and after the last that are kept."""
        after = bisect_left(self._stamps, stamp_ns)
        if after == len(self._stamps) or after == 0 and self._stamps[0] != stamp_ns:
            return None
        return self._values[after] if self._stamps[after] == stamp_ns else self._between(after - 1, after, stamp_ns)

    def _between(self, before: int, after: int, stamp_ns: int) -> np.ndarray:
        share = (stamp_ns - self._stamps[before]) / (self._stamps[after] - self._stamps[before])
        return (1.0 - share) * self._values[before] + share * self._values[after]


class Attitude(History):
    """Rotations, (3, 3), that notices where they stand still: of a sensor at work two readings differ in their last
    digits at least."""

    def __init__(self, age_s: float, keep_s: float):
        super().__init__("attitude", age_s, keep_s)

    def add(self, stamp_ns: int, value: np.ndarray) -> None:
        if self.newest_ns is not None and stamp_ns > self.newest_ns:
            self._note(np.array_equal(value, self._values[-1]))
        super().add(stamp_ns, value)

    def held_since_ns(self, stamp_ns: int) -> int:
        """From when on it has said one and the same until then."""
        return stamp_ns if self._held_ns is None else min(self._held_ns, stamp_ns)


@dataclass
class _Break:
    """Where odometry did not go on. offset_m: of before it."""

    stamp_ns: int
    jumped: bool
    offset_m: np.ndarray
    told: bool = False


class Odometry(History):
    """Positions by dead reckoning, (3,), that notices where they do not go on.

    From a jump on they are moved so that they do, by offset_m: what was known of places before it still holds, but for
    how far the vehicle went meanwhile. Silence for more than gap_s is a break, too: it may have begun anew near where
    it was. So is one and the same position for as long, where the vehicle was moving: what has lost its way says again
    what it said last. speed_limit_m_s, jump_m: what is farther than that speed allows, or half as much again as the
    last second's, has jumped, if by jump_m at least.
    """

    def __init__(self, age_s: float, keep_s: float, speed_limit_m_s: float, jump_m: float, gap_s: float):
        super().__init__("odometry", age_s, keep_s)
        self._speed_limit_m_s, self._jump_m, self._gap_ns = speed_limit_m_s, jump_m, int(gap_s * _SECOND)
        self._breaks: list[_Break] = []
        self.offset_m = np.zeros(3)
        self.begun_ns: int | None = None  # its first stamp
        self._held_m_s = 0.0  # the speed just before it began to say the same

    def add(self, stamp_ns: int, value: np.ndarray) -> None:
        newest_ns, moved = self.newest_ns, value - self.offset_m
        self.begun_ns = stamp_ns if self.begun_ns is None else min(self.begun_ns, stamp_ns)
        if newest_ns is not None and stamp_ns > newest_ns:
            since_ns, speed_m_s = newest_ns, self._speed_m_s()
            step = moved - self._values[-1]
            same = not step.any()
            if same and self._held_ns is None:
                self._held_m_s = self._last_speed_m_s()
            elif not same and self.frozen_s(newest_ns):
                since_ns, speed_m_s = self._held_ns, self._held_m_s
            self._note(same)
            allowed_m = min(allowed_speed_m_s(speed_m_s), self._speed_limit_m_s) * (stamp_ns - since_ns) / _SECOND
            jumped = bool(np.hypot(*step[:2]) > max(allowed_m, self._jump_m))
            if jumped or stamp_ns - since_ns > self._gap_ns:
                self._breaks = [*self._breaks[1 - _BREAKS:], _Break(stamp_ns, jumped, self.offset_m)]
            if jumped:
                self.offset_m, moved = self.offset_m + step, self._values[-1]
        elif self.jumped_since(stamp_ns):
            return  # late, and from before the jump
        super().add(stamp_ns, moved)

    @property
    def last(self) -> np.ndarray | None:
        """What it itself said last."""
        return self._values[-1] + self.offset_m if self._values else None

    def frozen_s(self, stamp_ns: int) -> float:
        """Seconds for which it has said one and the same position until then although the vehicle was moving, once
        that is longer than gap_s; else 0."""
        held_ns = 0 if self._held_ns is None or self._held_m_s < _MOVING_M_S else stamp_ns - self._held_ns
        return held_ns / _SECOND if held_ns > self._gap_ns else 0.0

    def forget_after(self, stamp_ns: int) -> None:
        super().forget_after(stamp_ns)
        while self._breaks and self._breaks[-1].stamp_ns >= stamp_ns:
            self.offset_m = self._breaks.pop().offset_m

    def jumped_since(self, stamp_ns: int) -> bool:
        return any(item.jumped and item.stamp_ns > stamp_ns for item in self._breaks)

    def broken(self, until_ns: int) -> tuple[bool, bool]:
        """(whether it has jumped, whether it was silent) before what at() may give for a time, each break told once."""
        new = [item for item in self._breaks if not item.told and item.stamp_ns - self._age_ns <= until_ns]
        for item in new:
            item.told = True
        return any(item.jumped for item in new), any(not item.jumped for item in new)

    def _last_speed_m_s(self) -> float:
        """Over the last readings, a third of a second of them at least, for one that brakes to a hover stops before it
        stands; 0 where that is not known."""
        first = min(bisect_left(self._stamps, self._stamps[-1] - _SECOND // 3), len(self._stamps) - 2)
        return 0.0 if first < 0 else self._speed_since(first)

    def _speed_m_s(self) -> float:
        """Over about the last second; infinite where that is not known."""
        first = bisect_left(self._stamps, self._stamps[-1] - _SECOND)
        return self._speed_since(first) if first < len(self._stamps) - 1 else np.inf

    def _speed_since(self, first: int) -> float:
        """From the reading of that number, which is not the last, to the last."""
        seconds = (self._stamps[-1] - self._stamps[first]) / _SECOND
        return float(np.hypot(*(self._values[-1] - self._values[first])[:2])) / seconds


class HeightGate:
    """Heights above the ground, told from steps of what is below: a roof, a wood, an echo.

    The odometry knows by how much the vehicle climbed, so the level of the ground, height less climb, goes on from one
    reading to the next. Where a reading leaves it by more than step_m and step_share of the height, the ground goes on
    as it was for up to hold_s; what lasts longer is taken for the ground. The level before that is remembered until it
    comes back, so that a wide roof costs one such while, and its end none. A climb of climb_m_s is believed whatever
    the odometry says, of which the height may stand still or be set anew.
    """

    def __init__(self, hold_s: float, step_m: float, step_share: float, climb_m_s: float):
        self._hold_ns, self._step_m, self._step_share = int(hold_s * _SECOND), step_m, step_share
        self._climb_m_s = climb_m_s
        self._last: tuple[int, float, float | None] | None = None  # stamp, height, climb of the last one believed
        self._before: float | None = None  # height less climb, of the ground before the last step
        self._doubt_ns: int | None = None
        self.fault = ""  # why the last reading was not believed

    def height_m(self, stamp_ns: int, height_m: float, climb_m: float | None) -> float:
        """The height to believe. climb_m: by the odometry, from anywhere; None where it is not known."""
        self.fault = ""
        if self._last is None or abs(stamp_ns - self._last[0]) > self._hold_ns:
            self._doubt_ns, self._before = None, None
            return self._believe(stamp_ns, height_m, climb_m)
        last_ns, last_m, last_climb_m = self._last
        usual_m = self._climb_m_s * abs(stamp_ns - last_ns) / _SECOND
        climbed_m = 0.0 if climb_m is None or last_climb_m is None else climb_m - last_climb_m
        allowed_m = max(self._step_m, self._step_share * last_m)
        if abs(height_m - last_m - climbed_m) <= allowed_m or abs(height_m - last_m) <= allowed_m + usual_m:
            self._doubt_ns = None
            return self._believe(stamp_ns, height_m, climb_m)
        known = climb_m is not None and last_climb_m is not None
        if abs(climbed_m) > self._step_m + usual_m:  # its own height was set anew
            climbed_m, known, self._before = 0.0, False, None
        expected_m = max(last_m + climbed_m, 1.0)
        back = self._before is not None and known and abs(height_m - climb_m - self._before) <= allowed_m
        if self._doubt_ns is None:
            self._doubt_ns = stamp_ns
        if back or stamp_ns - self._doubt_ns >= self._hold_ns:
            self._doubt_ns, self._before = None, last_m - last_climb_m if known and not back else None
            return self._believe(stamp_ns, height_m, climb_m)
        self.fault = (f"an altitude of {height_m:.1f} m where {expected_m:.1f} m were expected, a roof below or an "
                      f"echo: not believed unless it lasts for {self._hold_ns / _SECOND:.0f} s")
        if stamp_ns > last_ns:
            self._last = stamp_ns, expected_m, last_climb_m if climb_m is None else climb_m
        return expected_m

    def _believe(self, stamp_ns: int, height_m: float, climb_m: float | None) -> float:
        if self._last is None or stamp_ns > self._last[0] or self._last[0] - stamp_ns > self._hold_ns:
            self._last = stamp_ns, height_m, climb_m
        return height_m


def allowed_speed_m_s(before_m_s: float) -> float:
    """What a vehicle may have sped up to while nobody looked."""
    return 1.5 * before_m_s + 3.0
