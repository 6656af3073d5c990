"""Who is in the city: cars, persons, bicycles and dogs, each in its place at any instant.

Parked cars stand on the city's parking spots; moving ones drive round trips through its streets on the right.
Persons walk along footways, alone or in groups, or stand about; dogs go with them or roam; bicycles lean beside the
streets or are ridden. All that moves follows a closed path at known times, so that any instant is found at once,
and no one appears or vanishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.world.actors import CLASSES, HeatState, Identity, make_identity
from thermalreid_ros.world.paths import Net, Path, Street

if TYPE_CHECKING:
    from thermalreid_ros.world.city import City

_SPEED_M_S = {"motorway": 28.0, "trunk": 22.0, "primary": 14.0, "secondary": 13.0, "tertiary": 12.0,
              "residential": 8.0, "living_street": 4.0, "service": 5.0, "track": 5.0}
_FAST = ("motorway", "motorway_link", "trunk", "trunk_link")  # no one walks or parks beside these
PHASES = 32  # gaits and postures go in steps, so that poses can be kept
_GAIT_M = {"person": 1.45, "bicycle": 5.0, "dog": 0.9, "car": 2.0}  # way for one cycle of phase
_WHEELBASE_M = {"car": 2.7, "bicycle": 1.1, "person": 0.6, "dog": 0.6}
_CLEARANCE_M = {"car": 2.6, "person": 0.45, "bicycle": 0.9, "dog": 0.6}


@dataclass(frozen=True)
class Placed:
    """One identity in its place. World metres (x east, y north, z up) of the point on the ground below its middle.

    yaw_rad: where its front points, 0 = east, counter-clockwise. phase: 0..1, the instant of its gait or of its
    pedals; at rest it picks the posture. moving: travels now. ridden: a bicycle that carries its rider.
    """

    identity: Identity
    x: float
    y: float
    z: float
    yaw_rad: float
    phase: float
    state: HeatState
    moving: bool
    ridden: bool = False


@dataclass(frozen=True)
class Density:
    """How many are about. Shares of parking spots, counts per kilometre of street or footway, and per hectare of
    open ground. The defaults are those of a town by day."""

    parked_cars: float = 0.6  # of the parking spots
    moving_cars_km: float = 4.0
    walkers_km: float = 10.0
    standing_km: float = 3.0
    parked_bicycles_km: float = 5.0
    ridden_bicycles_km: float = 2.0
    dogs_km: float = 1.2  # on a walk with a person
    persons_ha: float = 5.0
    dogs_ha: float = 0.5  # roaming

    @classmethod
    def at_hour(cls, hour: float) -> Density:
        """Of a solar hour 0..24: at four in the morning a tenth of the noon's are about, and more cars are parked."""
        awake = 0.1 + 0.9 * (0.5 - 0.5 * np.cos(2 * np.pi * (hour - 3.0) / 24.0)) ** 0.7
        day = cls()
        return replace(day, parked_cars=0.75 - 0.15 * awake,
                       **{name: getattr(day, name) * awake for name in (
                           "moving_cars_km", "walkers_km", "standing_km", "ridden_bicycles_km", "dogs_km",
                           "persons_ha", "dogs_ha")})

    @classmethod
    def dense(cls) -> Density:
        """Of training sets: crowded at any hour, the rare classes above all."""
        return cls(0.8, 8.0, 30.0, 20.0, 25.0, 20.0, 14.0, 8.0, 4.0)


@dataclass(frozen=True, eq=False)
class _Standing:
    """Rows of what keeps its place: float64 (N,)."""

    x: np.ndarray
    y: np.ndarray
    yaw_rad: np.ndarray


@dataclass(frozen=True, eq=False)
class _Moving:
    """Rows of what follows a path: index of the path, head start, and place beside it, (N,)."""

    path: np.ndarray
    start_s: np.ndarray
    ahead_m: np.ndarray
    left_m: np.ndarray


class Population:
    """Everyone in a city. Equal arguments give equal populations, and `at` the same answer whenever it is asked.

    seed: of the identities and, unless another is given as layout, of their places, ways and states. numbers: for
    each class the identity numbers to be used first, others follow on; room is made for all of them. By default
    0, 1, 2, ..., those below `pool` in a random order.
    """

    def __init__(self, city: City, seed: int, density: Density | None = None,
                 numbers: Mapping[str, Sequence[int]] | None = None, layout: int | None = None, pool: int = 0):
        self.city, self.seed, self.density = city, int(seed), density or Density()
        self._layout = self.seed if layout is None else int(layout)
        wanted = {name: list((numbers or {}).get(name, ())) for name in CLASSES}
        self._streets, self._ways = Net(_streets(city)), Net(_footways(city))
        self._paths: list[Path] = []
        self._standing: dict[str, _Standing] = {}
        self._moving: dict[str, _Moving] = {}
        moving = {name: [] for name in CLASSES}
        self._drive(moving)
        self._walk(moving)
        self._moving = {name: _Moving(*(np.concatenate([np.zeros(0, kind)] + [np.atleast_1d(row[k]) for row in rows])
                                        for k, kind in enumerate((np.int64, float, float, float))))
                        for name, rows in moving.items()}
        self._stand(wanted)
        self._identities, self._states, self._phases = {}, {}, {}
        for label, name in enumerate(CLASSES):
            count = len(self._standing[name].x) + len(self._moving[name].path)
            order = self._rng(7, label).permutation(count)
            given = (wanted[name] or self._rng(10, label).permutation(pool).tolist())[:count]
            following = max([*given, pool - 1]) + 1
            in_order = np.array(given + list(range(following, following + count - len(given))), np.int64)
            self._identities[name] = np.empty(count, np.int64)
            self._identities[name][order] = in_order
            self._phases[name] = self._rng(8, label).random(count)

    def counts(self) -> dict[str, int]:
        """Of each class in the whole area."""
        return {name: len(numbers) for name, numbers in self._identities.items()}

    def at(self, time_s: float, around: tuple[float, float] | None = None,
           radius_m: float = np.inf, classes: Sequence[str] = CLASSES) -> list[Placed]:
        """Who is where, by class and place: all of them, or those nearer than radius_m to a point (x, y)."""
        found = []
        for name in classes:
            x, y, yaw, phase = self._places(name, time_s, around, radius_m)
            near = np.arange(len(x)) if around is None else np.flatnonzero(
                np.hypot(x - around[0], y - around[1]) < radius_m)
            inside = _inside(self.city.bounds, x[near], y[near])
            near = near[inside]
            z = self.city.relief.height_m(x[near], y[near])
            first_moving = len(self._standing[name].x)
            for k, height in zip(near, z):
                moving = bool(k >= first_moving)
                identity = make_identity(name, int(self._identities[name][k]), self.seed)
                found.append(Placed(identity, float(x[k]), float(y[k]), float(height), float(yaw[k]), float(phase[k]),
                                    self._state(name, int(k), identity, moving), moving, moving and name == "bicycle"))
        return found

    def where(self, identity: Identity, time_s: float) -> Placed | None:
        """The place of one identity; None where it is not in the area."""
        name = identity.class_name
        x, y, _, _ = self._places(name, time_s)
        for k in np.flatnonzero(self._identities[name] == identity.number):
            near = self.at(time_s, (float(x[k]), float(y[k])), 1e-6, (name,))
            return next((placed for placed in near if placed.identity.name == identity.name), None)
        return None

    def _places(self, name: str, time_s: float, around: tuple[float, float] | None = None,
                radius_m: float = np.inf) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(x, y, yaw_rad, phase) of a class, float64 (N,): what stands, then what moves. x is infinite where a path
        stays away from a place."""
        standing, moving = self._standing[name], self._moving[name]
        x, y, yaw = (np.concatenate([column, np.zeros(len(moving.path))]) for column in (
            standing.x, standing.y, standing.yaw_rad))
        phase, first = self._phases[name].copy(), len(standing.x)
        for index, rows in self._riders[name]:
            path = self._paths[index]
            if around is not None and not path.comes_near(around, radius_m + 5.0):
                x[first + rows] = np.inf
                continue
            way = path.travelled_m(time_s + moving.start_s[rows]) + moving.ahead_m[rows]
            heading = path.heading_rad(way, _WHEELBASE_M[name])
            place = path.at(way)
            at = first + rows
            x[at] = place[:, 0] - np.sin(heading) * moving.left_m[rows]
            y[at] = place[:, 1] + np.cos(heading) * moving.left_m[rows]
            yaw[at] = heading
            phase[at] = np.mod(phase[at] + way / _GAIT_M[name], 1.0)
        return x, y, yaw, np.floor(phase * PHASES) / PHASES

    @cached_property
    def _riders(self) -> dict[str, list[tuple[int, np.ndarray]]]:
        """Of each class: (path, rows of _Moving that follow it)."""
        return {name: [(int(index), np.flatnonzero(moving.path == index)) for index in np.unique(moving.path)]
                for name, moving in self._moving.items()}

    def _state(self, name: str, k: int, identity: Identity, moving: bool) -> HeatState:
        if (name, k) not in self._states:
            self._states[name, k] = identity.typical_state(self._rng(9, CLASSES.index(name), k), moving)
        return self._states[name, k]

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self._layout, 0x909, *key]))

    def _drive(self, moving: dict[str, list]) -> None:
        """Cars and ridden bicycles on the streets; several follow each path, one behind the other."""
        rng = self._rng(1)
        for name, per_km, right_m, radius_m, speed in (("car", self.density.moving_cars_km, 1.6, 5.0, 1.0),
                                                       ("bicycle", self.density.ridden_bicycles_km, 2.6, 2.5, None)):
            length_m = self._streets.lengths_m()
            count = rng.poisson(per_km * length_m.sum() / 1000.0)
            while count > 0:
                trip = self._trip(self._streets, length_m, rng, 1200.0)
                if trip is None:
                    break
                path = self._streets.path(trip, right_m, False, radius_m, speed or 1.0)
                if speed is None:  # cyclists keep their own pace
                    pace = np.minimum(np.diff(path.distance_m) / np.diff(path.times_s), rng.uniform(3.5, 6.5))
                    path = Path.timed(path.points, pace, closed=True)
                self._paths.append(path)
                here = min(count, int(rng.integers(1, 6)), max(int(path.duration_s / 4.0), 1))
                slots = rng.choice(max(int(path.duration_s / 3.0), here), here, replace=False)
                moving[name].append((np.full(here, len(self._paths) - 1), slots * 3.0 + rng.uniform(0, 1, here),
                                     np.zeros(here), np.zeros(here)))
                count -= here

    def _walk(self, moving: dict[str, list]) -> None:
        """Persons on foot, a quarter of the parties being groups, and dogs beside some of them."""
        rng = self._rng(2)
        length_m = self._ways.lengths_m()
        walkers = rng.poisson(self.density.walkers_km * length_m.sum() / 1000.0)
        dogs = rng.poisson(self.density.dogs_km * length_m.sum() / 1000.0)
        while walkers > 0 or dogs > 0:
            trip = self._trip(self._ways, length_m, rng, 500.0)
            if trip is None:
                break
            self._paths.append(self._ways.path(trip, rng.uniform(0.3, 0.9), True, 0.8, rng.uniform(0.8, 1.2)))
            path = self._paths[-1]
            for _ in range(rng.integers(1, 4)):  # parties
                size = int(rng.integers(2, 5)) if rng.random() < 0.25 else 1
                start = np.full(size, rng.uniform(0.0, path.duration_s))
                moving["person"].append((np.full(size, len(self._paths) - 1), start, rng.normal(0.0, 0.4, size),
                                         (np.arange(size) % 2) * rng.uniform(0.55, 0.8) - 0.3
                                         + 0.1 * rng.standard_normal(size)))
                if size > 2:  # the third and fourth walk behind
                    moving["person"][-1][2][2:] -= 1.2
                walkers -= size
                if dogs > 0 and rng.random() < 0.5 * dogs / max(walkers + dogs, 1) + 0.1:
                    moving["dog"].append((len(self._paths) - 1, start[0], rng.uniform(-0.3, 1.4),
                                          -1.0 - rng.uniform(0.0, 0.4)))
                    dogs -= 1
                if walkers <= 0:
                    dogs = 0

    def _trip(self, net: Net, length_m: np.ndarray, rng: np.random.Generator, way_m: float) -> list[int] | None:
        if not len(length_m):
            return None
        for _ in range(20):
            street = int(np.searchsorted(np.cumsum(length_m), rng.random() * length_m.sum(), side="right"))
            trip = net.round_trip(min(street, len(length_m) - 1), rng.uniform(0.5, 1.5) * way_m, rng)
            if trip is not None:
                return trip
        return None

    def _stand(self, wanted: Mapping[str, Sequence[int]]) -> None:
        """Parked cars on their spots; persons, bicycles and dogs beside streets and on open ground."""
        d, rng = self.density, self._rng(3)
        spots = np.asarray(self.city.parking_spots, np.float64).reshape(-1, 3)
        missing = {name: len(wanted[name]) - len(self._moving[name].path) for name in CLASSES}
        share = max(d.parked_cars, missing["car"] / max(len(spots), 1))
        chosen = spots[rng.random(len(spots)) < share]
        turned = np.where(rng.random(len(chosen)) < 0.5, np.pi, 0.0)  # parked forwards or backwards
        cars = chosen + np.stack([rng.normal(0, 0.12, len(chosen)), rng.normal(0, 0.12, len(chosen)),
                                  turned + rng.normal(0, 0.02, len(chosen))], axis=1)
        taken = _Taken()
        taken.add(cars, _CLEARANCE_M["car"])
        km = self._ways.lengths_m().sum() / 1000.0
        hectares = sum(area for _, area in self._open_ground) / 1e4
        extra = self._beside(self._rng(4), missing["car"] - len(cars), "car", taken)
        self._standing["car"] = _Standing(*np.concatenate([cars, extra]).T)
        for label, (name, per_km, per_ha) in enumerate((("person", d.standing_km, d.persons_ha),
                                                        ("bicycle", d.parked_bicycles_km, 0.0),
                                                        ("dog", 0.0, d.dogs_ha))):
            rng = self._rng(5, label)
            beside, on_open = rng.poisson(per_km * km), rng.poisson(per_ha * hectares)
            places = [self._in_the_open(rng, on_open, name, taken)]
            beside = max(beside, missing[name] - len(places[0]))
            places.append(self._beside(rng, beside, name, taken))
            self._standing[name] = _Standing(*np.concatenate(places).T)

    def _beside(self, rng: np.random.Generator, count: int, name: str, taken: _Taken) -> np.ndarray:
        """Free places beside streets or footways, float64 (N, 3): x, y, yaw."""
        net = self._streets if name == "car" else self._ways
        length_m = net.lengths_m()
        if count <= 0 or not len(length_m):
            return np.zeros((0, 3))
        found = []
        for _ in range(40):
            n = 2 * count + 8
            streets = np.searchsorted(np.cumsum(length_m), rng.random(n) * length_m.sum(), side="right")
            part, side, gap = rng.random(n), rng.choice([-1.0, 1.0], n), rng.random(n)
            twist, swing = rng.random(n), rng.standard_normal(n)
            rows = np.empty((n, 3))
            for k, index in enumerate(np.minimum(streets, len(length_m) - 1)):
                street = net.streets[index]
                line = Path.timed(street.points, 1.0, closed=False)
                way = part[k] * line.length_m
                heading = float(line.heading_rad(way, 2.0))
                if name == "car":
                    right, yaw = street.half_width_m + 1.1, heading + np.pi * (side[k] < 0)
                elif name == "bicycle":  # along the wall or across the pavement, in rows
                    right, yaw = street.half_width_m + 0.5 + 2.0 * gap[k], heading + (twist[k] < 0.6) * np.pi / 2
                    yaw += 0.15 * swing[k]
                else:
                    right, yaw = street.half_width_m + 0.4 + 1.6 * gap[k], 2 * np.pi * twist[k]
                x, y = line.at(way)
                rows[k] = (x + np.sin(heading) * right * side[k], y - np.cos(heading) * right * side[k], yaw)
            found.append(taken.accept(rows[self._free(rows, name)], _CLEARANCE_M[name], count - sum(map(len, found))))
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)

    def _in_the_open(self, rng: np.random.Generator, count: int, name: str, taken: _Taken) -> np.ndarray:
        """Free places on open ground, persons often in company; float64 (N, 3)."""
        import shapely

        if count <= 0 or not self._open_ground:
            return np.zeros((0, 3))
        polygons, areas = zip(*self._open_ground)
        found = []
        for _ in range(40):
            chosen = rng.choice(len(polygons), count, p=np.array(areas) / sum(areas))
            low, high = np.split(shapely.bounds(np.array(polygons, object))[chosen], 2, axis=1)
            xy = low + rng.random((count, 2)) * (high - low)
            company = rng.random(count) < (0.5 if name == "person" else 0.0)
            friends = xy + rng.normal(0, 0.7, (count, 2)) + 0.5
            xy = np.concatenate([xy, friends[company]])
            rows = np.column_stack([xy, rng.uniform(0, 2 * np.pi, len(xy))])
            within = shapely.contains_xy(np.array(polygons, object)[np.concatenate([chosen, chosen[company]])], xy)
            rows = rows[within]
            found.append(taken.accept(rows[self._free(rows, name)], _CLEARANCE_M[name], count - sum(map(len, found))))
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)

    @cached_property
    def _open_ground(self) -> list[tuple]:
        return [(polygon, polygon.area) for polygon in self.city.open_areas if polygon.area > 20.0]

    def _free(self, rows: np.ndarray, name: str) -> np.ndarray:
        """Whether places (N, 3) are within the area and on dry ground, clear of walls; bool (N,)."""
        reach = 0.8 * _CLEARANCE_M[name]
        free = _inside(self.city.bounds, rows[:, 0], rows[:, 1])
        for dx, dy in ((0, 0), (reach, 0), (-reach, 0), (0, reach), (0, -reach)):
            cover = self.city.plan.semantic[self.city.plan.cells(rows[:, 0] + dx, rows[:, 1] + dy)]
            free &= (cover != SemanticClass.BUILDING) & (cover != SemanticClass.WATER)
        return free


class _Taken:
    """Places that are taken, in cells of three metres."""

    def __init__(self):
        self._cells: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def add(self, rows: np.ndarray, radius_m: float) -> None:
        for x, y in rows[:, :2]:
            self._cells.setdefault((int(x // 3), int(y // 3)), []).append((x, y, radius_m))

    def accept(self, rows: np.ndarray, radius_m: float, count: int) -> np.ndarray:
        """The first `count` of the rows (N, 3) that are free, which are taken then."""
        kept = []
        for row in rows:
            if len(kept) >= count:
                break
            x, y = float(row[0]), float(row[1])
            i, j, reach = int(x // 3), int(y // 3), 1 + int(radius_m // 2)
            if all((x - a) ** 2 + (y - b) ** 2 > (radius_m + r) ** 2
                   for di in range(-reach, reach + 1) for dj in range(-reach, reach + 1)
                   for a, b, r in self._cells.get((i + di, j + dj), ())):
                self._cells.setdefault((i, j), []).append((x, y, radius_m))
                kept.append(row)
        return np.array(kept).reshape(-1, 3)


def _inside(bounds: tuple[float, float, float, float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x > bounds[0]) & (y > bounds[1]) & (x < bounds[2]) & (y < bounds[3])


def _streets(city: City) -> list[Street]:
    """Where cars drive."""
    return [Street(np.asarray(road.line, np.float64)[:, :2], 0.5 * road.width_m,
                   _SPEED_M_S.get(road.kind.removesuffix("_link"), 8.0), road.oneway) for road in city.roads]


def _footways(city: City) -> list[Street]:
    """Where persons walk: footways and pavements, and beside the carriageway of small streets."""
    ways = [Street(np.asarray(line, np.float64)[:, :2], 0.0, 1.35) for line in city.footways]
    return ways + [Street(np.asarray(road.line, np.float64)[:, :2], 0.5 * road.width_m, 1.35) for road in city.roads
                   if road.kind not in _FAST]
