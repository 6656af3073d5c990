"""The fused ranking: its arithmetic, what it does not know, its file, and the fit that makes it."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.evaluation.logistic import fit_log_odds
from thermalreid_ros.evaluation.reid_fit import fit_logistic
from thermalreid_ros.evaluation.reid_open_set import calibration_error
from thermalreid_ros.reid.fusion import (
    FEATURES,
    METHODS,
    FusedModel,
    FusionError,
    LengthRow,
    PairTerms,
    SizeRegression,
    Weights,
    features,
    pooled,
    probability_of,
    probe_descriptor,
    view_features,
)
from thermalreid_ros.reid.length import USUAL_ERROR, LengthError, ToldLength, told_length

NAN = float("nan")


def model(**changes) -> FusedModel:
    """Weights 1 to 5 with an embedding, 2 for the histogram without; sizes with a standard deviation of 0.2."""
    own = {"means": np.array([0.5, 0.25, 0.5, 0.0, 0.0]), "scales": np.array([0.5, 0.25, 0.5, 1.0, 1.0]),
           "weights": {"with_embedding": {"any": Weights(-3.0, (1.0, 2.0, 3.0, 4.0, 5.0))},
                       "without_embedding": {"any": Weights(-2.0, (2.0, 0.0, 0.0, 0.0, 0.0)),
                                             "dog": Weights(-1.0, (0.0, 0.0, 0.0, 0.0, 0.0))}},
           "sizes": {"any": SizeRegression(0.5, 0.7, 0.2, 0.1, np.array([1.0, -2.0]), np.array([0.5, 0, 0, 0, 0, 1])),
                     "dog": SizeRegression(-0.2, 0.3, 0.3, -0.2, np.zeros(0), np.zeros(6))},
           "lengths": {"any": LengthRow(0.1, 0.3), "dog": LengthRow(0.0, 0.1)},
           "accept_probability": 0.8, "accept_probability_told": {0.02: 0.9, 0.2: 0.7}, "candidates_per_true": 20.0,
           "descriptor_model": "an_embedding", "synthetic_share": 0.25}
    return FusedModel(**{**own, **changes})


def pair(histogram=NAN, mser=NAN, embedding=NAN, class_probability=NAN, size_log_ratio=NAN, length_ratio=NAN):
    return PairTerms(histogram, mser, embedding, class_probability, size_log_ratio, length_ratio)


def test_the_log_odds_of_a_pair_computed_by_hand():
    terms = pair(1.0, 0.5, 0.75, 0.5, -0.6)  # features less means over scales: 1, 1, 0.5, 0, 0.36
    assert model().score(terms) == pytest.approx(-3.0 - (1 * 1 + 2 * 1 + 3 * 0.5 + 4 * 0 + 5 * 0.36))
    assert model().score(pair(1.0, 0.5, NAN, 0.5, -0.6)) == pytest.approx(-2.0 - 2.0)
    assert probability_of(model().score(pair(0.5), "car")) == pytest.approx(1.0 / (1.0 + np.exp(2.0)))


def test_features_are_oriented_and_bounded():
    table = features(pair(0.2, 0.1, 0.3, 1.0, -0.9))
    assert table[0] == pytest.approx([0.2, 0.1, 0.3, np.log(0.001 / 0.999), 0.81])
    assert features(pair(size_log_ratio=9.0))[0, 4] == 2.25
    assert np.isnan(features(pair())).all() and table.shape == (1, len(FEATURES))


def test_what_is_not_known_speaks_neither_for_nor_against():
    own = model()
    assert own.score(PairTerms.unknown(3)) == pytest.approx(-2.0)
    everything = pair(0.5, 0.25, 0.5, 0.5, 0.0)  # all at their means
    assert own.score(everything) == pytest.approx(-3.0)
    assert own.score(everything.without("histogram", "size_log_ratio")) == pytest.approx(-3.0)


def test_each_class_has_its_weights_and_others_those_of_any():
    assert model().score(pair(1.0), "dog") == pytest.approx(-1.0)
    assert model().score(pair(1.0), "car") == model().score(pair(1.0), "") == pytest.approx(-4.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), st.floats(-2.0, 2.0), st.sampled_from((0, 1, 2)),
       st.floats(0.0, 0.5), st.sampled_from(("", *CLASS_NAMES)))
def test_more_distance_never_speaks_for_a_candidate(values, size, which, more, class_name):
    shipped = FusedModel.load()
    terms = [*values, size]
    farther = list(terms)
    farther[which] += more
    assert shipped.score(PairTerms(*farther), class_name) <= shipped.score(PairTerms(*terms), class_name) + 1e-6
    surer = [*values[:3], min(values[3] + more, 1.0), size]
    assert shipped.score(PairTerms(*surer), class_name) >= shipped.score(PairTerms(*terms), class_name) - 1e-6
    assert 0.0 <= probability_of(shipped.score(PairTerms(*terms), class_name)) <= 1.0


def test_probabilities_of_any_log_odds_are_finite():
    assert probability_of(np.array([-1e4, 0.0, 1e4])) == pytest.approx([0.0, 0.5, 1.0])


def test_terms_of_different_lengths_are_refused():
    with pytest.raises(FusionError, match="one length"):
        PairTerms(np.zeros(2), np.zeros(3), np.zeros(2), np.zeros(2), np.zeros(2))


def test_the_expected_size_of_a_photograph_and_of_a_class():
    own = model()
    assert own.expected_size(np.array([0.6, 0.1]), "car") == pytest.approx(0.1 + 0.6 - 0.2)
    assert own.expected_size(None, "car") == 0.5
    assert own.expected_size(np.array([0.6, 0.1]), "dog") == -0.2  # fitted without descriptors
    with pytest.raises(FusionError, match="an_embedding"):
        own.expected_size(np.zeros(3), "car")


def normal(value: float, variance: float) -> float:
    return np.exp(-0.5 * value**2 / variance) / variance**0.5


def test_the_likelihood_ratio_of_a_told_length_computed_by_hand():
    """A dog of 1.2 m is told, of a class seen as -0.2 ± 0.3 with a noise of 0.1: their lengths are -0.2 ± 0.283, and of
    one in twenty -0.2 ± 0.9."""
    seen, length = 0.1, ToldLength(1.2, 0.05)
    own, told, another = 0.0, 0.0, 0.0
    for share, variance in ((0.95, 0.3**2 - 0.1**2), (0.05, 0.9**2)):
        said = np.log(1.2) + 0.2
        likely = share * normal(said, variance + 0.05**2)
        believed = variance / (variance + 0.05**2)
        own += likely * normal(seen + 0.2 - believed * said, believed * 0.05**2 + 0.1**2)
        told += likely
        another += share * normal(seen + 0.2, variance + 0.1**2)
    expected = np.log(0.95 * own / told / another + 0.05)
    assert model().length_ratio(np.array([seen]), length, "dog") == pytest.approx([expected])
    terms = pair(0.5, length_ratio=expected)
    assert model().score(terms, "dog") == pytest.approx(model().score(pair(0.5), "dog") + expected)


def test_the_size_seen_speaks_for_the_told_object_the_more_the_rarer_it_is():
    own = model()
    seen = np.array([0.3, 0.1, -0.2, -0.8, 9.0, NAN])
    rare = own.length_ratio(seen, ToldLength(np.exp(0.3)), "dog")
    assert rare[0] > rare[1] > 0.0 > rare[2] > rare[3] >= np.log(0.05) and np.isnan(rare[5])
    assert rare[4] == pytest.approx(np.log(0.05), abs=0.01)  # as large as nothing is
    assert rare[0] > own.length_ratio(np.array([-0.2]), ToldLength(np.exp(-0.2)), "dog")[0] > 0.5
    vague = own.length_ratio(seen[:4], ToldLength(np.exp(0.3), 0.5), "dog")
    assert np.abs(vague).max() < 0.5 * np.abs(rare[:4]).max()
    assert np.isnan(own.length_ratio(seen, None, "dog")).all()
    assert own.length_ratio(seen, ToldLength(2.0), "car") == pytest.approx(
        own.length_ratio(seen, ToldLength(2.0), ""), nan_ok=True)


def test_what_lengths_can_be_told():
    assert told_length(0.0, 0.05, "dog") is None
    assert told_length(np.float32(0.45), np.float32(0.005), "dog") == ToldLength(0.45, 0.005)
    assert told_length(4.3, 0.0, "car").error == USUAL_ERROR and told_length(12, 0.1).log == pytest.approx(np.log(12))
    for arguments, complaint in (((40.0, 0.05, "dog"), "a length of 40 m: a dog is 0.2 to 2 m long"),
                                 ((40.0,), "what is searched is 0.2 to 20 m long"),
                                 ((-4.3, 0.05, "car"), "a length of -4.3 m: a car is 2 to 20 m long"),
                                 ((NAN, 0.05, "car"), "a length of nan m"),
                                 ((4.3, 0.05, "tree"), "a length of 'tree', a class that is unknown"),
                                 ((4.3, 5.0, "car"), "an error of 5 of the length: give it as a share"),
                                 ((4.3, NAN, "car"), "an error of nan"), ((4.3, -0.1, "car"), "an error of -0.1")):
        with pytest.raises(LengthError, match=complaint):
            told_length(*arguments)


def test_the_size_seen_is_the_diagonal_less_what_the_view_makes_of_it():
    """3 m by 4 m, a pixel of 0.1 m, seen from 60 degrees above: cos 60 deg is 0.5, a pixel 0.02 of the diagonal."""
    view = np.array([3.0, 4.0, 0.1, np.radians(60.0)])
    slender = np.log(4.0 / 3.0)
    assert view_features(view) == pytest.approx([0.5, 0.25, slender, slender**2, 0.5 * slender, 0.02])
    assert model().seen_size(view, "dog") == pytest.approx(np.log(5.0))
    assert model().seen_size(np.stack([view, view])) == pytest.approx([np.log(5.0) - 0.5 * 0.5 - 0.02] * 2)


def test_descriptors_are_pooled_and_mixed_so_that_distances_are_means():
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert pooled(np.stack([east, north])) == pytest.approx([0.5, 0.5])
    assert probe_descriptor(east, north, 0.25) == pytest.approx([0.75, 0.25])
    assert probe_descriptor(east, north, 0.0) == pytest.approx(east)
    assert probe_descriptor(east, None, 0.5) is east
    assert probe_descriptor(east, np.array([NAN, 0.0]), 0.5) is east


def test_the_shipped_file_is_whole():
    shipped = FusedModel.load()
    assert METHODS == ("thermal_signature", "cross_modal_embedding", "fused")
    assert set(CLASS_NAMES) <= shipped.sizes.keys() and 0.0 < shipped.accept_probability < 1.0
    assert all(min(row.weights) >= 0 for rows in shipped.weights.values() for row in rows.values())
    assert 3.0 < np.exp(shipped.expected_size(None, "car")) < 7.0
    assert set(CLASS_NAMES) <= shipped.lengths.keys() and shipped.least_probability(
        ToldLength(4.0, 0.02)) > shipped.accept_probability
    golf = shipped.lengths["car"].offset + np.log([3.6, 4.3, 5.2])  # as they are seen
    assert np.argmax(shipped.length_ratio(golf, ToldLength(4.3, 0.02), "car")) == 1


def test_the_rougher_a_length_is_told_the_less_must_be_certain():
    own = model()
    assert own.least_probability(None) == 0.8
    assert own.least_probability(ToldLength(4.0, 0.02)) == own.least_probability(ToldLength(4.0, 0.01)) == 0.9
    assert own.least_probability(ToldLength(4.0, 0.02 * 10**0.5)) == pytest.approx(0.8)
    assert own.least_probability(ToldLength(4.0, 0.4)) == 0.7


def test_the_file_says_what_the_model_does(tmp_path):
    own, path = model(), tmp_path / "fusion.yaml"
    path.write_text(yaml.safe_dump(own.to_mapping()))
    again = FusedModel.load(path)
    terms = pair(0.9, 0.3, 0.4, 0.8, 0.3)
    assert again.score(terms) == pytest.approx(own.score(terms)) and again.synthetic_share == 0.25
    assert again.lengths == own.lengths and again.accept_probability_told == {0.02: 0.9, 0.2: 0.7}
    assert again.expected_size(np.array([0.6, 0.1])) == pytest.approx(own.expected_size(np.array([0.6, 0.1])))


@pytest.mark.parametrize("change, complaint", [
    (lambda content: content.pop("weights"), "weights"),
    (lambda content: content["weights"]["without_embedding"].pop("any"), "class 'any'"),
    (lambda content: content["features"]["mser"].update(scale=0.0), "above 0"),
    (lambda content: content["weights"]["with_embedding"]["any"].update(bias=NAN), "finite"),
    (lambda content: content.update(accept_probability=1.5), "acceptance"),
    (lambda content: content.update(sizes="large"), "damaged"),
    (lambda content: content["sizes"]["dog"].update(view=[1.0]), "6 numbers"),
    (lambda content: content["sizes"]["dog"].update(sigma=0.0), "sigma"),
    (lambda content: content.pop("lengths"), "lengths"),
    (lambda content: content["lengths"]["dog"].update(noise=0.0), "noise"),
    (lambda content: content["lengths"].pop("any"), "class 'any'"),
    (lambda content: content.update(accept_probability_told={0.02: 0.0}), "acceptance"),
    (lambda content: content["sizes"]["dog"].update(mean=NAN), "finite"),
    (lambda content: content["sizes"]["any"]["weights"].__setitem__(0, NAN), "finite"),
    (lambda content: content["sizes"]["dog"].update(weights=[1.0, 2.0, 3.0]), "several embeddings"),
    (lambda content: content["weights"]["with_embedding"]["any"].update(embedding=-1.0), "weights below 0"),
    (lambda content: content.update(synthetic_share=NAN), "synthetic_share"),
    (lambda content: content.update(candidates_per_true=0.0), "candidates_per_true"),
])
def test_a_damaged_file_is_named_in_one_line(tmp_path, change, complaint):
    content = yaml.safe_load(yaml.safe_dump(model().to_mapping()))
    change(content)
    path = tmp_path / "fusion.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(FusionError) as caught:
        FusedModel.load(path)
    assert complaint in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(FusionError, match="cannot be read"):
        FusedModel.load(tmp_path / "nothing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(FusionError, match="no YAML"):
        FusedModel.load(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(FusionError, match="damaged"):
        FusedModel.load(tmp_path / "list.yaml")


def known_odds(count: int = 30_000) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose log-odds are -2 - 1.5 x0 - 0.5 x1 + 1 x2; x2 is of the sign that no feature has."""
    rng = np.random.default_rng(5)
    columns = rng.normal(size=(count, 4))
    true = rng.random(count) < probability_of(-2.0 - 1.5 * columns[:, 0] - 0.5 * columns[:, 1] + columns[:, 2])
    return columns, true


def test_the_fit_recovers_known_odds():
    columns, true = known_odds()
    bias, weights = fit_logistic(columns, true, np.ones(len(true)), 1e-3)
    alone = fit_logistic(columns[:, :2], true, np.ones(len(true)), 1e-3)
    assert weights[2] == 0.0 and weights[3] == pytest.approx(0.0, abs=0.05)
    assert (bias, *weights[:2]) == pytest.approx((alone[0], *alone[1]), abs=0.05)
    rng = np.random.default_rng(6)
    flat = rng.random(len(true)) < probability_of(-2.0 - 1.5 * columns[:, 0] - 0.5 * columns[:, 1])
    bias, weights = fit_logistic(columns, flat, np.ones(len(true)), 1e-3)
    assert (bias, *weights) == pytest.approx((-2.0, 1.5, 0.5, 0.0, 0.0), abs=0.08)
    assert calibration_error(probability_of(bias - columns @ weights), flat) < 0.01


def test_the_fit_may_give_weights_of_either_sign():
    columns, true = known_odds()
    design, nothing = np.column_stack([np.ones(len(true)), columns]), np.zeros(5)
    free = fit_log_odds(design, true, np.ones(len(true)), pull=nothing, towards=nothing, positive=nothing > 0,
                        start=nothing)
    assert free == pytest.approx((-2.0, -1.5, -0.5, 1.0, 0.0), abs=0.08)
    held = fit_log_odds(design, true, np.ones(len(true)), pull=nothing, towards=nothing,
                        positive=np.array([False, True, False, True, True]), start=nothing)
    assert held[1] == 0.0 and held[2] < -0.3 and held[3] > 0.7 and held[4] >= 0.0


def test_weights_of_pairs_set_the_prior():
    """Where each true pair stands for ten, the bias rises by ln 10 and the weights stay."""
    columns, true = known_odds()
    bias, weights = fit_logistic(columns[:, :2], true, np.ones(len(true)), 1e-3)
    more = fit_logistic(columns[:, :2], true, np.where(true, 10.0, 1.0), 1e-3)
    assert more[0] - bias == pytest.approx(np.log(10.0), abs=0.1)
    assert more[1] == pytest.approx(weights, abs=0.1)


def test_a_strong_ridge_leaves_what_it_pulls_towards():
    columns, true = known_odds(2000)
    towards = np.array([0.3, 0.2, 0.1, 0.0])
    assert fit_logistic(columns, true, np.ones(len(true)), 1e9, towards)[1] == pytest.approx(towards, abs=1e-3)


def test_pairs_that_are_told_apart_without_error_do_not_run_away():
    columns = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    bias, weights = fit_logistic(columns, np.array([True, True, False, False]), np.ones(4), 0.1)
    assert np.isfinite([bias, *weights]).all() and 0.0 < weights[0] < 10.0
