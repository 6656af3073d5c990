"""Evidence for a place from ground that it was not chosen for."""

import numpy as np
import pytest

from thermalreid_ros.localization.proof import Proof
from thermalreid_ros.maps.classes import CLASS_COUNT


def gains_of(true_class, right=0.5, wrong=-1.0):
    """(5, K): what each class would gain where the map shows true_class."""
    gains = np.full((CLASS_COUNT, len(true_class)), wrong)
    gains[true_class, np.arange(len(true_class))] = right
    return gains


def test_a_pattern_that_fits_counts_as_much_as_it_gains():
    proof, shown = Proof(1e9), np.array([0, 1, 2, 3], np.uint8)
    assert proof.nats == proof.points == 0.0
    proof.add(shown, np.full(4, 2.0), gains_of(shown))
    assert proof.points == 8.0 and proof.gain == pytest.approx(4.0)
    # In any other order it would have lost: 8 x (0.25 x 0.5 - 0.75 x 1) = -5.
    assert proof.pattern == pytest.approx(9.0) and proof.nats == pytest.approx(4.0)


def test_ground_of_one_class_counts_for_nothing_however_much_it_gains():
    proof, meadow = Proof(1e9), np.full(50, 3, np.uint8)
    for _ in range(20):
        proof.add(meadow, np.ones(50), gains_of(meadow))
    assert proof.gain == pytest.approx(500.0)
    assert proof.nats == pytest.approx(0.0)


def test_one_border_does_not_prove_all_that_went_before_it():
    """Frames of one class and then of another: together they are a pattern only where one block holds both."""
    apart, together = Proof(1e9, block_points=20.0), Proof(1e9, block_points=40.0)
    for k in (1, 1, 3, 3):
        for proof in (apart, together):
            proof.add(np.full(10, k, np.uint8), np.ones(10), gains_of(np.full(10, k), right=0.5, wrong=-0.3))
    assert apart.gain == together.gain == pytest.approx(20.0)
    assert apart.nats == pytest.approx(0.0)
    # Shuffled, half of the labels would be right: 40 x (0.5 x 0.5 - 0.5 x 0.3) = 4.
    assert together.nats == pytest.approx(16.0)


def test_labels_that_do_not_fit_count_against_it():
    proof, shown = Proof(1e9), np.array([0, 1, 2, 3], np.uint8)
    proof.add((shown + 1) % 4, np.ones(4), gains_of(shown))
    assert proof.nats == proof.gain == pytest.approx(-4.0)


def test_what_is_long_past_is_forgotten():
    proof, shown, nothing = Proof(50.0, block_points=4.0), np.array([0, 1, 2, 3], np.uint8), np.zeros((CLASS_COUNT, 4))
    proof.add(shown, np.ones(4), gains_of(shown, 4.0, -2.0))
    assert proof.nats == pytest.approx(16.0)
    for _ in range(25):
        proof.add(shown, np.ones(4), nothing)
    assert proof.points == 104.0 and proof.nats == pytest.approx(16.0 * np.exp(-2.0))
