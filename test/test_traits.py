"""Traits: what of an identity shows in both bands."""

import numpy as np
import pytest

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.world.actors import make_identity

pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.training.traits import COMPONENTS, raw_traits, trait_space, traits_of  # noqa: E402


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_components_are_uncorrelated_and_of_unit_spread(name):
    table = traits_of([f"9/{name}-{number:04d}" for number in range(400)])
    assert table.shape == (400, COMPONENTS) and np.abs(table.mean(axis=0)).max() < 0.25
    np.testing.assert_allclose(np.cov(table.T), np.eye(COMPONENTS), atol=0.35)


def test_the_first_component_of_cars_tells_saloons_from_vans():
    first = {}
    for number in range(300):
        car = make_identity("car", number, 5)
        first.setdefault(car.style, []).append(traits_of([f"5/car-{number:04d}"])[0])
    saloons, vans = np.array(first["saloon"]), np.array(first["van"])
    apart = np.abs(saloons.mean(axis=0) - vans.mean(axis=0))
    assert apart.max() > 2.0 and saloons[:, apart.argmax()].std() < 1.0


def test_rows_are_those_of_their_keys():
    keys = ["3/car-0001", "3/dog-0002", "3/car-0001"]
    table = traits_of(keys)
    assert (table[0] == table[2]).all()
    expected = trait_space("dog").of(raw_traits(make_identity("dog", 2, 3))[None])[0]
    np.testing.assert_allclose(table[1], expected)
