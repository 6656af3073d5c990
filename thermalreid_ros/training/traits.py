"""What tells identities of a class apart in both bands: proportions, and how surfaces take up and keep heat.

Photographs show them directly, thermal pictures by their effect: dark paint is hot in the sun, a down jacket is cold, a
bonnet that is a quarter of the car is warm. The embedding learns to tell them from either band, freed of their
correlations: in units of the spread of each principal component within the class. Absolute sizes are left out: pictures
show no scale, and who knows it ranks by it besides (reid.fusion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.actors.bicycle import Bicycle
from thermalreid_ros.world.actors.car import Car
from thermalreid_ros.world.actors.dog import Dog
from thermalreid_ros.world.actors.identity import Identity
from thermalreid_ros.world.actors.person import Person
from thermalreid_ros.world.materials import Surface, absorptivity

COMPONENTS = 12  # of each class
_SAMPLE, _SAMPLE_SEED = 800, 0x7A17  # identities that spreads are measured on
_LEAST_SPREAD = 1e-3


def _dark(surface: Surface, colour: tuple[float, float, float]) -> float:
    """Share of the sun's heat that a surface takes up."""
    return float(absorptivity(np.array([surface]), np.float32([colour]))[0])


def _car(car: Car) -> dict[str, float]:
    return {"width": np.log(car.width_m / car.length_m), "height": np.log(car.height_m / car.length_m),
            "cowl": car.cowl, "roof_front": car.roof_front, "roof_rear": car.roof_rear, "deck": car.deck,
            "belt": car.belt_m / car.height_m, "nose": car.nose_m / car.height_m, "tail": car.tail_m / car.height_m,
            "roof_width": car.roof_width_m / car.width_m, "windows": car.side_windows,
            "body": _dark(Surface.CAR_PAINT, car.paint), "roof": _dark(Surface.CAR_PAINT, car.roof_paint),
            "sunroof": car.sunroof, "cladding": car.cladding, "rim": _dark(car.rim.surface, car.rim.colour),
            "bare_rim": car.rim.surface == Surface.BARE_METAL, "rails": car.roof_load == "rails",
            "load": car.roof_load not in ("", "rails"), "pickup": car.style == "pickup"}


def _person(person: Person) -> dict[str, float]:
    warm = person.top in ("jacket", "coat", "down jacket")
    return {"child": person.kind in ("boy", "girl"), "girth": np.log(person.girth), "clo": np.log(person.top_clo),
            "jacket": warm, "coat": person.top == "coat", "down": person.top == "down jacket",
            "bare_arms": person.top in ("T-shirt", "tank top"), "bare_shoulders": person.top == "tank top",
            "shorts": person.bottom == "shorts", "skirt": person.bottom in ("skirt", "dress"),
            "top": _dark(Surface.JACKET if warm else Surface.COTTON, person.top_colour),
            "bottom": _dark(Surface.COTTON, person.bottom_colour), "skin": _dark(Surface.SKIN, person.skin),
            "hair": _dark(Surface.HAIR, person.hair), "long_hair": person.hair_style == "long",
            "bald": person.hair_style == "bald", "headwear": bool(person.headwear),
            "brim": person.headwear in ("hat", "headscarf"), "head": _dark(Surface.COTTON, person.headwear_colour) *
            bool(person.headwear), "backpack": person.bag == "backpack", "bag": person.bag == "shoulder bag",
            "bag_colour": _dark(Surface.COTTON, person.bag_colour) * bool(person.bag)}


def _bicycle(bicycle: Bicycle) -> dict[str, float]:
    rider = {name: value for name, value in _person(bicycle.rider).items() if name not in ("child", "coat", "skirt")}
    return {**{f"rider_{name}": value for name, value in rider.items()}, "lean": bicycle.lean_rad,
            "bar": bicycle.handlebar_width_m, "wheel": bicycle.wheel_radius_m, "tyre": bicycle.tyre_radius_m,
            "frame": _dark(Surface.CAR_PAINT, bicycle.paint), "bare": bicycle.bare_frame,
            "step_through": bicycle.step_through, "guards": bool(bicycle.mudguards), "rack": bicycle.rack,
            "basket": bicycle.load == "basket", "panniers": bicycle.load == "panniers",
            "seat": bicycle.load in ("child seat", "crate")}


def _dog(dog: Dog) -> dict[str, float]:
    return {"trunk": np.log(dog.length_ratio), "girth": np.log(dog.girth), "muzzle": dog.muzzle_ratio,
            "hair": np.log(dog.hair_mm), "hanging": dog.ears == "hanging",
            "tail": {"up": 1.0, "level": 0.5, "low": 0.0, "stub": 0.3}[dog.tail], "stub": dog.tail == "stub",
            "coat": _dark(Surface.FUR, dog.base),
            "second": _dark(Surface.FUR, dog.second), "points": dog.pattern in ("white points", "tan points"),
            "patches": dog.pattern == "patches", "saddle": dog.pattern == "saddle", "harness": dog.harness}


_TRAITS: dict[str, Callable[[Identity], dict[str, float]]] = {"car": _car, "person": _person, "bicycle": _bicycle,
                                                              "dog": _dog}


@dataclass(frozen=True, eq=False)
class TraitSpace:
    """The principal components of a class's traits. mean: (T,). components: (COMPONENTS, T), by which they are divided
    into parts of unit spread, the one that says most first."""

    mean: np.ndarray
    components: np.ndarray

    def of(self, traits: np.ndarray) -> np.ndarray:
        """float32 (N, COMPONENTS) of traits (N, T)."""
        return ((traits - self.mean) @ self.components.T).astype(np.float32)


def raw_traits(identity: Identity) -> np.ndarray:
    """float64 (T,), of an identity's class."""
    return np.array(list(_TRAITS[identity.class_name](identity).values()), np.float64)


@cache
def trait_space(class_name: str) -> TraitSpace:
    """Of identities of this class as they are drawn."""
    rows = np.stack([raw_traits(make_identity(class_name, number, _SAMPLE_SEED)) for number in range(_SAMPLE)])
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), _LEAST_SPREAD)
    values, vectors = np.linalg.eigh(np.cov(((rows - mean) / spread).T))
    order = np.argsort(values)[::-1][:COMPONENTS]
    # The sign of an eigenvector is free: its largest part is positive, so that every machine has the same.
    vectors = vectors[:, order].T
    vectors *= np.sign(vectors[np.arange(COMPONENTS), np.abs(vectors).argmax(axis=1)])[:, None]
    return TraitSpace(mean, vectors / spread / np.sqrt(values[order])[:, None])


def traits_of(keys: list[str]) -> np.ndarray:
    """float32 (N, COMPONENTS), of identities SEED/CLASS-NUMBER."""
    by_class: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        by_class.setdefault(key.partition("/")[2].rpartition("-")[0], []).append(row)
    table = np.zeros((len(keys), COMPONENTS), np.float32)
    for name, rows in by_class.items():
        drawn = [make_identity(name, int(keys[row].rpartition("-")[2]), int(keys[row].partition("/")[0]))
                 for row in rows]
        table[rows] = trait_space(name).of(np.stack([raw_traits(identity) for identity in drawn]))
    return table
