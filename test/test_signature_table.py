"""Many signatures at once: the same distances as pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.reid import signature_table
from thermalreid_ros.reid.signature import CELSIUS, GREY, Blobs, ThermalSignature, bhattacharyya_distance, mser_distance
from thermalreid_ros.reid.signature_table import SignatureTable, histogram_distances, mser_distances


def signature(rng: np.random.Generator, blobs: int, levels: int = 1000, scale=CELSIUS) -> ThermalSignature:
    """levels: of the blobs' values; with few, many distances are equal."""
    histogram = rng.random(scale.bins) ** 8
    y, value = rng.integers(0, levels, (2, blobs)) * (48.0 / levels)
    return ThermalSignature(histogram / histogram.sum(), Blobs(y, y, value, np.ones(blobs)), scale)


def counts(most: int):
    return st.lists(st.integers(0, most), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(counts(7), counts(40), st.sampled_from((2, 5, 1000)), st.integers(0, 10**6))
def test_the_table_says_what_pairs_say(few, many, levels, seed):
    rng = np.random.default_rng(seed)
    first, second = ([signature(rng, count, levels) for count in part] for part in (few, many))
    tables = SignatureTable.of(first), SignatureTable.of(second)
    expected = [[mser_distance(one.blobs, other.blobs) for other in second] for one in first]
    assert np.allclose(mser_distances(*tables), expected, atol=1e-5)
    assert np.allclose(mser_distances(*tables[::-1]).T, expected, atol=1e-5)
    expected = [[bhattacharyya_distance(one.histogram, other.histogram) for other in second] for one in first]
    assert np.allclose(histogram_distances(*tables), expected, atol=1e-5)


def test_a_gallery_too_large_for_one_go_is_gone_through_row_by_row(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = (SignatureTable.of([signature(rng, 5 + n % 3) for n in range(count)]) for count in (4, 30))
    expected = mser_distances(first, second)
    monkeypatch.setattr(signature_table, "_AT_ONCE", 1)
    assert np.array_equal(mser_distances(first, second), expected)


def test_signatures_of_two_scales_are_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="one scale"):
        SignatureTable.of([signature(rng, 3), signature(rng, 3, scale=GREY)])
    with pytest.raises(ValueError, match="one at least"):
        SignatureTable.of([])
