"""The figures of re-identification against cases computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.evaluation.cmc import cmc_curve, cmc_figures, guessing, over_draws, true_rank


def test_the_rank_counts_what_is_nearer_and_as_near():
    distances = np.array([0.3, 0.1, 0.2, 0.3])
    assert [true_rank(distances, index) for index in range(4)] == [4, 1, 2, 4]
    assert true_rank(np.zeros(7), 0) == 7  # a distance that tells nothing apart earns nothing


def test_figures_of_three_probes():
    """Ranks 1, 2 and 10 in galleries of 10: CMC is 1/3 at 1, 2/3 from 2 to 9, 1 from 10 on."""
    figures = cmc_figures([1, 2, 10], [10, 10, 10])
    assert (figures.r1, figures.r5, figures.r10, figures.r15, figures.r20) == pytest.approx((1 / 3, 2 / 3, 1, 1, 1))
    assert figures.nauc20 == pytest.approx((1 / 3 + 8 * 2 / 3 + 11) / 20)
    assert figures.nauc == pytest.approx((1 / 3 + 8 * 2 / 3 + 1) / 10)


def test_the_curve():
    assert cmc_curve(np.array([1, 3, 3, 5]), 5) == pytest.approx([0.25, 0.25, 0.75, 0.75, 1.0])


def test_galleries_of_different_size():
    figures = cmc_figures([1, 30], [2, 60])
    assert figures.nauc == pytest.approx((1.0 + 31 / 60) / 2)
    assert (figures.r20, guessing(np.array([2, 60]))) == pytest.approx((0.5, (1 / 2 + 1 / 60) / 2))


def test_mean_and_spread_over_draws():
    mean, std = over_draws([cmc_figures([1, 1], [4, 4]), cmc_figures([1, 3], [4, 4])])
    assert (mean.r1, std.r1) == pytest.approx((0.75, 0.25))


@pytest.mark.parametrize("ranks, sizes", [([], []), ([0], [3]), ([4], [3])])
def test_impossible_ranks_are_refused(ranks, sizes):
    with pytest.raises(ValueError):
        cmc_figures(ranks, sizes)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_figures_rise_with_the_rank_and_stay_between_0_and_1(ranks):
    figures = cmc_figures(ranks, [40] * len(ranks))
    values = [figures.r1, figures.r5, figures.r10, figures.r15, figures.r20]
    assert values == sorted(values) and 0.0 <= values[0] and values[-1] <= 1.0
    assert figures.r1 - 1e-12 <= figures.nauc20 <= figures.r20 + 1e-12
    assert figures.nauc == pytest.approx(cmc_curve(np.array(ranks), 40).mean())
