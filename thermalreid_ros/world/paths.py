"""Ways through a plane: rounded polylines walked at known times, and round trips through a net of streets."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_SNAP_M = 0.2  # ends of lines closer than this are one junction


@dataclass(frozen=True, eq=False)
class Path:
    """A polyline with the time at each of its points.

    points: float64 (N, 2), metres, without repetition. times_s: float64 (N,), rising from 0. closed: after its
    last point, which equals the first, it begins again; an open path is left at its end.
    """

    points: np.ndarray
    times_s: np.ndarray
    closed: bool

    @classmethod
    def timed(cls, points: np.ndarray, speed_m_s: np.ndarray | float, closed: bool) -> Path:
        """speed_m_s: of each segment, (N - 1,) or one for all."""
        points = np.asarray(points, np.float64)
        length = np.hypot(*np.diff(points, axis=0).T)
        speed = np.broadcast_to(speed_m_s, length.shape)[length > 1e-6]
        points = points[np.concatenate([[True], length > 1e-6])]
        return cls(points, np.concatenate([[0.0], np.cumsum(length[length > 1e-6] / speed)]), closed)

    @cached_property
    def distance_m(self) -> np.ndarray:
        """Way to each point, float64 (N,)."""
        return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.points, axis=0).T))])

    @property
    def length_m(self) -> float:
        return float(self.distance_m[-1])

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1])

    def comes_near(self, place: tuple[float, float], distance_m: float) -> bool:
        """Whether the box around the path, enlarged by a distance, holds a place."""
        low, high = self._box
        return bool((low <= np.add(place, distance_m)).all() and (high >= np.subtract(place, distance_m)).all())

    @cached_property
    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        return self.points.min(axis=0), self.points.max(axis=0)

    def travelled_m(self, time_s: np.ndarray | float) -> np.ndarray:
        """Way since time 0, over all rounds."""
        rounds, rest = np.divmod(time_s, self.duration_s)
        return rounds * self.length_m + np.interp(rest, self.times_s, self.distance_m)

    def at(self, distance_m: np.ndarray | float) -> np.ndarray:
        """Points, float64 (..., 2), so far along the path; beyond the ends of an open one, its ends."""
        s = np.mod(distance_m, self.length_m) if self.closed else distance_m
        return np.stack([np.interp(s, self.distance_m, column) for column in self.points.T], axis=-1)

    def heading_rad(self, distance_m: np.ndarray | float, base_m: float) -> np.ndarray:
        """Direction of the chord of length base_m around a point, as that of a vehicle with such a wheelbase."""
        ahead, behind = (np.asarray(distance_m) + side * 0.5 * base_m for side in (1, -1))
        if not self.closed:
            ahead = np.clip(ahead, 1e-3, self.length_m)
            behind = np.clip(behind, 0.0, self.length_m - 1e-3)
        dx, dy = np.moveaxis(self.at(ahead) - self.at(behind), -1, 0)
        return np.arctan2(dy, dx)


def rounded(points: np.ndarray, radius_m: float, closed: bool = False,
            step_rad: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """The polyline (N, 2) with its corners replaced by arcs of a radius, or of the largest that fits into half
    the shorter neighbouring segment; and which corner each of the new points stands for, int (M,).

    No two neighbouring points may be equal. closed: the last point is followed by the first (it is not given
    twice), and the new one ends where it begins.
    """
    p = np.asarray(points, np.float64)
    steps = np.roll(p, -1, axis=0) - p
    length = np.hypot(*steps.T)
    direction = steps / np.maximum(length, 1e-12)[:, None]
    u, v = np.roll(direction, 1, axis=0), direction  # arriving and leaving
    cosine, sine = (u * v).sum(axis=1), u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    sweep = np.arctan2(sine, cosine)  # of the turn, left positive
    tangent = np.tan(0.5 * np.abs(sweep))
    reach = np.minimum(radius_m * tangent, 0.5 * np.minimum(length, np.roll(length, 1)))
    sharp = (np.abs(sweep) > 1e-3) & (np.abs(sweep) < np.pi - 1e-3)
    if not closed:
        sharp[[0, -1]] = False
    new, corner = [], []
    for k in range(len(p)):
        if not sharp[k]:
            arc = p[k:k + 1]
        else:
            angle = np.linspace(0.0, np.abs(sweep[k]), int(np.ceil(np.abs(sweep[k]) / step_rad)) + 1)[:, None]
            left = np.sign(sweep[k]) * np.array([-u[k, 1], u[k, 0]])
            arc = p[k] - reach[k] * u[k] + reach[k] / tangent[k] * (np.sin(angle) * u[k] + (1 - np.cos(angle)) * left)
        new.append(arc)
        corner.append(np.full(len(arc), k))
    if closed:
        new.append(new[0][:1])
        corner.append(corner[0][:1])
    return np.concatenate(new), np.concatenate(corner)


def beside(points: np.ndarray, right_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closed polyline (N, 2) moved to its right by an amount for each of its segments, (N,), corners mitred,
    ends of blind alleys walked around; and the segment that leaves each of its new points, int (M,)."""
    p = np.asarray(points, np.float64)
    direction = np.roll(p, -1, axis=0) - p
    direction /= np.maximum(np.hypot(*direction.T), 1e-12)[:, None]
    normal = np.stack([direction[:, 1], -direction[:, 0]], axis=1)
    before, right_before = np.roll(normal, 1, axis=0), np.roll(right_m, 1)
    back = (normal * before).sum(axis=1) < -0.7
    middle = normal + before
    mitre = p + (0.5 * (right_m + right_before) * 2.0
                 / np.maximum((middle * middle).sum(axis=1), 0.5))[:, None] * middle
    first = np.where(back[:, None], p + right_before[:, None] * before, mitre)
    second = np.where(back[:, None], p + right_m[:, None] * normal, mitre)
    keep = np.stack([np.ones(len(p), bool), back], axis=1).ravel()
    return (np.stack([first, second], axis=1).reshape(-1, 2)[keep],
            np.stack([np.arange(len(p)), np.arange(len(p))], axis=1).ravel()[keep])


@dataclass(frozen=True, eq=False)
class Street:
    """An edge of a net from one junction to another. points: float64 (N, 2). half_width_m: from the middle line
    to the kerb. speed_m_s: usual there. oneway: along its points only."""

    points: np.ndarray
    half_width_m: float
    speed_m_s: float
    oneway: bool = False

    @cached_property
    def length_m(self) -> float:
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


class Net:
    """Lines joined where their ends, or points within them, meet."""

    def __init__(self, streets: Sequence[Street]):
        self.streets: list[Street] = []
        self._ends: list[tuple[int, int]] = []  # junctions of each street
        keys = [np.round(street.points / _SNAP_M).astype(np.int64) for street in streets]
        if not keys:
            return
        nodes, index = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
        index, uses, place = index.ravel(), np.zeros(len(nodes), np.int64), 0
        for key in keys:  # a junction: any end, or a point that several lines share
            own = index[place:place + len(key)]
            np.add.at(uses, own, 1)
            uses[own[[0, -1]]] += 2
            place += len(key)
        place = 0
        for street, key in zip(streets, keys):
            own = index[place:place + len(key)]
            place += len(key)
            cuts = np.flatnonzero(uses[own] > 1)
            for a, b in zip(cuts[:-1], cuts[1:]):
                piece = Street(street.points[a:b + 1], street.half_width_m, street.speed_m_s, street.oneway)
                if piece.length_m > 0.5:
                    self.streets.append(piece)
                    self._ends.append((int(own[a]), int(own[b])))
        # Directed edge 2 k runs along street k, 2 k + 1 against it.
        self._out: dict[int, list[int]] = {}
        for k, (a, b) in enumerate(self._ends):
            self._out.setdefault(a, []).append(2 * k)
            if not self.streets[k].oneway:
                self._out.setdefault(b, []).append(2 * k + 1)

    def lengths_m(self) -> np.ndarray:
        """Of the streets, float64 (S,)."""
        return np.array([street.length_m for street in self.streets])

    def round_trip(self, street: int, length_m: float, rng: np.random.Generator) -> list[int] | None:
        """Directed edges of a trip that starts on a street, wanders about so far, and comes back the shortest way.

        Edge 2 k runs along street k, 2 k + 1 against it. None where one-way streets allow no way back.
        """
        edge = 2 * street + int(not self.streets[street].oneway and rng.random() < 0.5)
        trip, way = [edge], self.streets[street].length_m
        while way < length_m:
            choices = [e for e in self._out.get(self._head(trip[-1]), []) if e != trip[-1] ^ 1]
            if not choices:
                break
            arriving = self._direction(trip[-1], -1)
            weight = np.array([1.2 + float(arriving @ self._direction(e, 0)) for e in choices]) + 0.05
            trip.append(choices[int(np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), side="right"))])
            way += self.streets[trip[-1] >> 1].length_m
        back = self._shortest(self._head(trip[-1]), self._tail(trip[0]))
        return None if back is None else trip + back

    def path(self, trip: Sequence[int], right_m: float, kerb: bool, radius_m: float, speed: float = 1.0) -> Path:
        """The closed path of a round trip: right_m to the right of the middle line or, with kerb, of the right
        kerb. On the road it stays within its lane; one-way streets are used near their middle.

        radius_m: of turns. speed: factor on the streets' own; turns are taken slowly.
        """
        points, right, pace = [], [], []
        for edge in trip:
            street = self.streets[edge >> 1]
            line = (street.points[::-1] if edge & 1 else street.points)[:-1]  # its end is the start of the next
            if kerb:
                lane = street.half_width_m + right_m
            elif street.oneway:
                lane = max(right_m, 0.0) * 0.3
            else:
                lane = min(right_m, 0.5 * street.half_width_m)
            points.append(line)
            right.append(np.full(len(line), lane))
            pace.append(np.full(len(line), street.speed_m_s * speed))
        points, right, pace = np.concatenate(points), np.concatenate(right), np.concatenate(pace)
        apart = np.hypot(*(np.roll(points, -1, axis=0) - points).T) > 1e-3
        corners, segment = beside(points[apart], right[apart])
        apart_too = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T) > 1e-3
        smooth, corner = rounded(corners[apart_too], radius_m, closed=True)
        return Path.timed(smooth, np.minimum(pace[apart][segment[apart_too]][corner[:-1]], _bearable(smooth)),
                          closed=True)

    def _head(self, edge: int) -> int:
        return self._ends[edge >> 1][1 - (edge & 1)]

    def _tail(self, edge: int) -> int:
        return self._ends[edge >> 1][edge & 1]

    def _direction(self, edge: int, end: int) -> np.ndarray:
        """Unit vector of travel at the start (0) or end (-1) of a directed edge."""
        points = self.streets[edge >> 1].points
        points = points[::-1] if edge & 1 else points
        d = points[1] - points[0] if end == 0 else points[-1] - points[-2]
        return d / max(np.hypot(*d), 1e-9)

    def _shortest(self, start: int, goal: int) -> list[int] | None:
        reached, queue = {start: (0.0, -1)}, [(0.0, start)]
        while queue:
            way, node = heapq.heappop(queue)
            if node == goal:
                break
            if way > reached[node][0]:
                continue
            for edge in self._out.get(node, []):
                further, head = way + self.streets[edge >> 1].length_m, self._head(edge)
                if head not in reached or further < reached[head][0]:
                    reached[head] = (further, edge)
                    heapq.heappush(queue, (further, head))
        if goal not in reached:
            return None
        edges, node = [], goal
        while node != start:
            edges.append(reached[node][1])
            node = self._tail(edges[-1])
        return edges[::-1]


def _bearable(points: np.ndarray) -> np.ndarray:
    """Speed on each segment of a closed polyline (N, 2) that keeps its turns below 2.5 m/s2, float64 (N - 1,)."""
    step = np.diff(points, axis=0)
    length, heading = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    turn = np.abs(np.angle(np.exp(1j * (heading - np.roll(heading, 1)))))
    curvature = np.maximum(turn, np.roll(turn, -1)) / np.maximum(length, 0.3)
    return np.sqrt(2.5 / np.maximum(curvature, 1e-4))
