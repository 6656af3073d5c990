"""Cars, persons, bicycles and dogs as identities: shape, size, colours, materials and heat of their own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.world.actors.bicycle import Bicycle
from thermalreid_ros.world.actors.car import Car
from thermalreid_ros.world.actors.dog import Dog
from thermalreid_ros.world.actors.identity import HeatState, Identity
from thermalreid_ros.world.actors.person import Person

__all__ = ["CLASSES", "ActorError", "Bicycle", "Car", "Dog", "HeatState", "Identity", "Person", "make_identity",
           "typical_state"]

CLASSES = CLASS_NAMES

_KINDS = {kind.class_name: kind for kind in (Car, Person, Bicycle, Dog)}


class ActorError(ThermalReidError):
    """An actor of no known class or number."""


@lru_cache(maxsize=4096)
def make_identity(class_name: str, number: int, seed: int) -> Identity:
    """Identity `number` (0, 1, ...) of a class in the world of a seed: the same everywhere.

    ActorError for an unknown class or a negative number or seed.
    """
    if class_name not in _KINDS:
        raise ActorError(f"no actor is a '{class_name}'; choose one of {', '.join(CLASSES)}")
    if number < 0 or seed < 0:
        raise ActorError(f"number {number} and seed {seed} of an actor must not be negative")
    rng = np.random.default_rng(np.random.SeedSequence([seed, CLASSES.index(class_name), number, 0xAC708]))
    return _KINDS[class_name].drawn(number, seed, rng)


def typical_state(identity: Identity, rng: np.random.Generator, moving: bool) -> HeatState:
    """A heat state such as one meets in the street: engines driven or parked since when, effort of bodies."""
    return identity.typical_state(rng, moving)
