"""What every actor is: an identity that looks, moves and warms in its own way, the same in any view at any time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np

from thermalreid_ros.world.mesh import Mesh

T = TypeVar("T")


@dataclass(frozen=True)
class HeatState:
    """How warm an actor runs at one moment. Each class reads the fields that concern it.

    running: a car's engine is on, a bicycle is ridden. running_s: for how long it has been (or had been, when parked).
    parked_s: seconds since the engine stopped or the rider got off; inf: cold.
    activity_met: metabolic rate of persons, riders and dogs, 1 met = 58.2 W/m2 at rest.
    solar_w_m2: global irradiance on the ground around a car over the last hour, which warms its cabin.
    """

    running: bool = False
    running_s: float = 1800.0
    parked_s: float = np.inf
    activity_met: float = 1.2
    solar_w_m2: float = 0.0


@dataclass(frozen=True)
class Identity(ABC):
    """One car, person, bicycle or dog. Made by `make_identity`; equal numbers and seeds give equal identities."""

    class_name: ClassVar[str]
    #: Names of the heat zones; a face of zone z takes entry z of `heat`. Zone 0 has no heat of its own.
    zones: ClassVar[tuple[str, ...]]

    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.class_name}-{self.number:04d}"

    @property
    @abstractmethod
    def description(self) -> str:
        """What a passer-by would say, such as "dark blue estate car"."""

    @abstractmethod
    def mesh(self, pose_phase: float = 0.0, moving: bool = False) -> Mesh:
        """The posed mesh: x forward, y left, z up, metres, lowest point on z = 0, origin on the ground below the
        middle (of the wheelbase, the hips, the trunk).

        pose_phase: 0..1, one cycle of steps or pedals when moving; at rest it picks the posture.
        moving: a person or a dog walks, a bicycle is ridden (its rider is part of the mesh). Cars look the same.
        """

    @abstractmethod
    def heat(self, state: HeatState, air_temperature_k: float) -> tuple[np.ndarray, np.ndarray]:
        """(back_temperature_k, back_conductance_w_m2k), float32 (len(zones),): the warmth behind the surface of
        each zone and how well it reaches the surface. NaN in zone 0: passive."""

    @abstractmethod
    def typical_state(self, rng: np.random.Generator, moving: bool) -> HeatState:
        """A heat state such as one meets in the street, drawn from rng."""

    @cached_property
    def size_m(self) -> tuple[float, float, float]:
        """Length (x), width (y) and height of the box around `mesh()`, all attachments included."""
        return tuple(np.ptp(self.mesh().vertices, axis=0).astype(float).tolist())


def heat_table(temperature_k: Sequence[float], conductance_w_m2k: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The answer of `Identity.heat` from the entries of zones 1, 2, ..."""
    return (np.array([np.nan, *temperature_k], np.float32), np.array([np.nan, *conductance_w_m2k], np.float32))


def pick(rng: np.random.Generator, weights: dict[T, float]) -> T:
    """One key, by its weight."""
    share = np.fromiter(weights.values(), np.float64)
    return list(weights)[int(np.searchsorted(np.cumsum(share), rng.random() * share.sum(), side="right"))]


def shade(rng: np.random.Generator, colour: Sequence[float], spread: float = 0.15,
          tint: float = 0.04) -> tuple[float, float, float]:
    """A colour like this one: brightness varies by the share `spread`, its channels on their own by `tint`."""
    factor = np.exp(rng.normal(0.0, spread) + rng.normal(0.0, tint, 3))
    return tuple(np.clip(np.asarray(colour) * factor, 0.005, 0.92).round(4).tolist())
