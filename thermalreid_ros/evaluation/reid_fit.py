"""Fits the fused ranking (reid.fusion) on sets whose towns, identities and hours nothing else is measured on.

Pairs are weighed so that each identity searched has one true candidate among CANDIDATES_PER_TRUE, SAME_CLASS_SHARE of
them of its class, and each class counts the same. Logistic regression with weights of one sign, pulled towards 0
for all classes together and towards those for each class; how strongly is chosen by cross-validation over identities,
and what is reported comes from identities that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.logistic import fit_log_odds
from thermalreid_ros.evaluation.reid_lengths import drawn_lengths, fit_lengths
from thermalreid_ros.evaluation.reid_open_set import area_under_roc, calibration_error, threshold_for
from thermalreid_ros.evaluation.reid_sizes import fit_sizes, fit_views, less_view
from thermalreid_ros.evaluation.reid_terms import Evidence, SetTerms
from thermalreid_ros.reid.fusion import (
    ANY,
    FEATURES,
    SAME_CLASS_SHARE,
    WITH_EMBEDDING,
    WITHOUT_EMBEDDING,
    FusedModel,
    PairTerms,
    Weights,
    features,
    probability_of,
)
from thermalreid_ros.reid.length import ToldLength

#: A drone over a street or a square sees about so many objects at a time.
CANDIDATES_PER_TRUE = 20.0
FALSE_ALARMS = 0.01
FOLDS = 5
RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
#: Of lengths that are told in trials: by somebody who looked it up, who knows the kind, who guesses.
TOLD_ERRORS = (0.02, 0.05, 0.1, 0.2)
_BY_PHOTOGRAPHS = "by photographs"
_LEAST_IDENTITIES = 2 * FOLDS
_SETS, _SURE = 100, 0.9  # of identities drawn for the threshold of acceptance, and share of them in which it is enough
_SEARCHES = 200  # drawn for each photograph when the threshold of acceptance is sought


def fit_logistic(columns: np.ndarray, true: np.ndarray, weight: np.ndarray, ridge: float,
                 towards: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """(bias, weights (F,)) of log-odds = bias - columns @ weights, no weight negative.

    columns: (N, F), standardised. true: bool (N,). weight: (N,), of the pairs. ridge: pull of the weights towards
    `towards` (default 0), as that many pairs.
    """
    count = columns.shape[1]
    towards = np.concatenate([[0.0], np.zeros(count) if towards is None else towards])
    share = float(np.clip(np.average(true, weights=weight), 1e-9, 1.0 - 1e-9))
    solution = fit_log_odds(np.column_stack([np.ones(len(columns)), -columns]), true, weight,
                            pull=np.concatenate([[0.0], np.full(count, ridge)]), towards=towards,
                            positive=np.arange(1 + count) > 0,
                            start=np.concatenate([[np.log(share / (1.0 - share))], np.maximum(towards[1:], 0.0)]))
    return float(solution[0]), solution[1:]


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs of photographs and thermal pictures. photograph: (N,), its number. label, kind: classes of both. who,
    whom: identities of both. weight: (N,), see the module's text; sums to the number of searched identities times
    CANDIDATES_PER_TRUE."""

    terms: PairTerms
    photograph: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    who: np.ndarray
    whom: np.ndarray
    weight: np.ndarray

    @property
    def true(self) -> np.ndarray:
        return self.who == self.whom

    def only(self, chosen: np.ndarray) -> Pairs:
        """Weighed anew."""
        pairs = Pairs(self.terms.only(chosen), *(getattr(self, name)[chosen] for name in (
            "photograph", "label", "kind", "who", "whom", "weight")))
        return replace(pairs, weight=_weights(pairs))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        terms = PairTerms(*(np.concatenate([getattr(part.terms, name) for part in parts])
                            for name in PairTerms.__dataclass_fields__))
        return cls(terms, *(np.concatenate([getattr(part, name) for part in parts]) for name in (
            "photograph", "label", "kind", "who", "whom", "weight")))


@dataclass(frozen=True, eq=False)
class Fit:
    """model: fitted on everything. figures: on identities held out."""

    model: FusedModel
    figures: dict[str, Any]


def fit(terms: SetTerms, synthesis: str, beta_h: float, synthetic_share: float, descriptor_model: str, seed: int,
        log: Callable[[str], None] = lambda line: None) -> Fit:
    """Fit everything in a fusion file. Raises ThermalReidError where there are too few identities."""
    who, label = terms.identity[0], terms.label[0]
    identities = np.unique(who)
    if len(identities) < _LEAST_IDENTITIES:
        raise ThermalReidError(f"{len(identities)} identities are too few to fit on and to hold out; give a set of "
                               f"{_LEAST_IDENTITIES} or more, some hundred are better")
    fold_of = _folds(identities, {name: label[who == name][0] for name in identities}, seed)
    # Pairs have the sizes expected by regressions that did not see the identity: in flight they have not either.
    views = fit_views(terms)
    seen = np.stack([less_view(terms.views, views[name]) for name in CLASS_NAMES])
    sizes, expected = fit_sizes(terms, views, fold_of, FOLDS)
    lengths = fit_lengths(terms, views, np.ones(len(terms.gallery), bool))
    blank = FusedModel(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), {}, sizes, lengths, 1.0, {},
                       CANDIDATES_PER_TRUE, descriptor_model, synthetic_share)
    pairs = all_pairs(terms, Evidence(terms, synthesis, beta_h, synthetic_share, expected, seen))
    losses, held_scores = {}, {}
    for ridge in RIDGES:
        held_scores[ridge] = _held_out(blank, pairs, fold_of, ridge)
        losses[ridge] = _log_loss(*held_scores[ridge])
        log(f"ridge {ridge:g}: log-loss of identities held out {losses[ridge]:.4f}")
    ridge = min(losses, key=losses.get)
    model = _fit_weights(blank, pairs, ridge)
    held, scores = held_scores[ridge]
    figures = _figures(held, scores, seed)
    # Where lengths are told the others that come close are few, and fewer still within a fold: among all is sought.
    every = _scores(model, pairs)
    ratios = _length_ratios(terms, views, blank, pairs, expected, fold_of, seed)
    thresholds = {error: _threshold(pairs, probability_of(every + ratios[_told_by(error)]), seed)
                  for error in TOLD_ERRORS}
    model = replace(model, accept_probability=figures["accept_probability"], accept_probability_told=thresholds)
    told = _told_figures(model, held, scores, _length_ratios(terms, views, blank, held, expected, fold_of, seed),
                         terms.lengths)
    return Fit(model,
               {"sizes": {name: {"spread": row.spread, "sigma": row.sigma} for name, row in sizes.items()},
                "ridge": ridge, "log_loss": losses[ridge], **figures, "length_told": told})


def all_pairs(terms: SetTerms, evidence: Evidence) -> Pairs:
    """Every photograph with every thermal picture of another hour of the day."""
    (who, whom), (label, kind) = terms.identity, terms.label
    parts = []
    for photograph, allowed in enumerate(terms.allowed):
        columns = np.flatnonzero(allowed)
        same = np.ones(len(columns), int)
        parts.append(Pairs(evidence.of(photograph, columns[:, None]), photograph * same, label[photograph] * same,
                           kind[columns], who[photograph] * same, whom[columns], same.astype(np.float64)))
    pairs = Pairs.joined([part for part in parts if part.true.any()])
    return replace(pairs, weight=_weights(pairs))


def _folds(identities: np.ndarray, label: dict[int, int], seed: int) -> np.ndarray:
    """Fold of each identity number, classes in equal shares."""
    order = np.random.default_rng(seed).permutation(identities)
    order = sorted(order, key=lambda name: label[name])  # stable
    fold_of = np.zeros(int(identities.max()) + 1, int)
    fold_of[order] = np.arange(len(order)) % FOLDS
    return fold_of


def _weights(pairs: Pairs) -> np.ndarray:
    """Classes weigh the same, so do the identities of a class, and true candidates to others as the prior has it."""
    weight, alike = np.zeros(len(pairs.who)), pairs.label == pairs.kind
    same_class = SAME_CLASS_SHARE * CANDIDATES_PER_TRUE
    for label in np.unique(pairs.label):
        names = np.unique(pairs.who[pairs.label == label])
        for name in names:
            mine = pairs.who == name
            for chosen, share in ((mine & pairs.true, 1.0), (mine & ~pairs.true & alike, same_class - 1.0),
                                  (mine & ~alike, CANDIDATES_PER_TRUE - same_class)):
                weight[chosen] = share / max(int(chosen.sum()), 1) / len(names)
    return weight * len(np.unique(pairs.who)) / len(np.unique(pairs.label))


def _fit_weights(blank: FusedModel, pairs: Pairs, ridge: float) -> FusedModel:
    columns = features(pairs.terms)
    true = pairs.true
    with np.errstate(invalid="ignore"):
        halves = [np.nan_to_num(_moments(columns[chosen], pairs.weight[chosen])) for chosen in (true, ~true)]
    mean = 0.5 * (halves[0][0] + halves[1][0])
    scale = np.sqrt(np.maximum(0.5 * (halves[0][1] + halves[1][1]) - mean**2, 0.0))
    scale = np.where(scale > 1e-6, scale, 1.0)
    standard = np.where(np.isfinite(columns), (columns - mean) / scale, 0.0)
    kinds = [WITHOUT_EMBEDDING]
    if np.isfinite(pairs.terms.embedding).any():
        kinds.append(WITH_EMBEDDING)
    weights: dict[str, dict[str, Weights]] = {}
    for kind in kinds:
        used = standard.copy()
        if kind == WITHOUT_EMBEDDING:
            used[:, FEATURES.index("embedding")] = 0.0
        bias, shared = fit_logistic(used, true, pairs.weight, ridge)
        rows = {ANY: Weights(bias, tuple(map(float, shared)))}
        for label in np.unique(pairs.label):
            own = pairs.label == label
            bias, row = fit_logistic(used[own], true[own], pairs.weight[own], 10.0 * ridge, shared)
            rows[CLASS_NAMES[label]] = Weights(bias, tuple(map(float, row)))
        weights[kind] = rows
    return replace(blank, means=mean, scales=scale, weights=weights)


def _moments(columns: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(2, F), mean and mean square of what is known."""
    known = np.isfinite(columns) * weight[:, None]
    values = np.nan_to_num(columns)
    total = np.maximum(known.sum(axis=0), 1e-12)
    return np.stack([(known * values).sum(axis=0), (known * values**2).sum(axis=0)]) / total


def _held_out(blank: FusedModel, pairs: Pairs, fold_of: np.ndarray, ridge: float) -> tuple[Pairs, np.ndarray]:
    """Pairs within each fold, and their scores by models fitted on pairs of the other folds."""
    held, scores = [], []
    for fold in range(FOLDS):
        inside = (fold_of[pairs.who] == fold) & (fold_of[pairs.whom] == fold)
        outside = (fold_of[pairs.who] != fold) & (fold_of[pairs.whom] != fold)
        model = _fit_weights(blank, pairs.only(outside), ridge)
        held.append(pairs.only(inside))
        scores.append(_scores(model, held[-1]))
    return Pairs.joined(held), np.concatenate(scores)


def _scores(model: FusedModel, pairs: Pairs) -> np.ndarray:
    """(N,), log-odds by the weights of each photograph's class."""
    scores = np.empty(len(pairs.who))
    for label in np.unique(pairs.label):
        own = pairs.label == label
        scores[own] = model.score(pairs.terms.only(own), CLASS_NAMES[label])
    return scores


def _log_loss(pairs: Pairs, scores: np.ndarray) -> float:
    """Per true candidate."""
    return float(pairs.weight @ (np.logaddexp(0.0, scores) - pairs.true * scores) / (pairs.weight @ pairs.true))


def _figures(pairs: Pairs, scores: np.ndarray, seed: int) -> dict[str, Any]:
    probability = probability_of(scores)
    accept = _threshold(pairs, probability, seed)
    true = pairs.true
    return {"pairs": len(scores), "true_pairs": int(true.sum()), "identities": len(np.unique(pairs.who)),
            "auc": area_under_roc(scores, true, pairs.weight),
            "auc_same_class": {CLASS_NAMES[label]: _auc_within(pairs, scores, label) for label in
                               np.unique(pairs.label)},
            "ece": calibration_error(probability, true, pairs.weight),
            "accept_probability": accept,
            "true_accepted": float(np.average(probability[true] >= accept, weights=pairs.weight[true]))}


def _length_ratios(terms: SetTerms, views: dict[str, np.ndarray], blank: FusedModel, pairs: Pairs, expected: np.ndarray,
                   fold_of: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """(N,), FusedModel.length_ratio of pairs, were lengths told with each of TOLD_ERRORS, and as photographs tell them;
    by what was fitted on pictures of identities of the other folds than the photograph's."""
    (who, whom), label = terms.identity, terms.label[0]
    seen, ratios = pairs.terms.size_log_ratio + expected[pairs.photograph], {}
    known = [replace(blank, lengths={**blank.lengths, **fit_lengths(terms, views, fold_of[whom] != fold)})
             for fold in range(FOLDS)]
    every = {_told_by(error): drawn_lengths(terms, error, seed) for error in TOLD_ERRORS}
    if terms.lengths is not None:
        every[_BY_PHOTOGRAPHS] = terms.lengths
    for name, told in every.items():
        ratios[name] = np.empty(len(pairs.who))
        for photograph in np.unique(pairs.photograph):
            own = pairs.photograph == photograph
            ratios[name][own] = np.nan_to_num(known[fold_of[who[photograph]]].length_ratio(
                seen[own], told[photograph], CLASS_NAMES[label[photograph]]))
    return ratios


def _told_by(error: float) -> str:
    return f"error {error:g}"


def _told_figures(model: FusedModel, held: Pairs, scores: np.ndarray, ratios: dict[str, np.ndarray],
                  lengths: Sequence[ToldLength | None] | None) -> dict[str, Any]:
    """By who tells them, what lengths are worth on pairs held out. lengths: as photographs tell them."""
    figures: dict[str, Any] = {}
    least: dict[str, float | np.ndarray] = {_told_by(error): p for error, p in model.accept_probability_told.items()}
    if lengths is not None:
        least[_BY_PHOTOGRAPHS] = np.array([model.least_probability(lengths[n]) for n in held.photograph[held.true]])
    for name, ratio in ratios.items():
        probability, true, accept = probability_of(scores + ratio), held.true, least[name]
        figures[name] = {
            "log_loss": _log_loss(held, scores + ratio),
            "auc_same_class": {CLASS_NAMES[label]: _auc_within(held, scores + ratio, label)
                               for label in np.unique(held.label)},
            "ece": calibration_error(probability, true, held.weight),
            "true_accepted": float(np.average(probability[true] >= accept, weights=held.weight[true]))}
    return figures


def _auc_within(pairs: Pairs, scores: np.ndarray, label: int) -> float:
    chosen = (pairs.label == label) & (pairs.kind == label)
    return area_under_roc(scores[chosen], pairs.true[chosen], pairs.weight[chosen])


def _threshold(pairs: Pairs, probability: np.ndarray, seed: int) -> float:
    """cautious_threshold of searches without a true candidate, among as many others as the prior has."""
    rng, highest = np.random.default_rng(seed), {}
    same_class = round(SAME_CLASS_SHARE * CANDIDATES_PER_TRUE)
    for photograph in np.unique(pairs.photograph):
        mine = pairs.photograph == photograph
        others = mine & ~pairs.true
        parts = [rng.choice(probability[others & chosen], (_SEARCHES, count)).max(axis=1) for chosen, count in (
            (pairs.label == pairs.kind, same_class), (pairs.label != pairs.kind, int(CANDIDATES_PER_TRUE) - same_class))
            if (others & chosen).any()]
        if parts:
            highest.setdefault(int(pairs.who[mine][0]), []).append(np.maximum.reduce(parts))
    return cautious_threshold([np.concatenate(own) for own in highest.values()], rng)


def cautious_threshold(best_other: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    """That which one search in a hundred reaches without a true candidate. best_other: the highest probability of each
    such search, of each identity.

    The hundredth search is one of few identities, and of others it would be another: the threshold is one that is high
    enough in nine of ten sets of as many identities, drawn from these.
    """
    enough = [threshold_for(FALSE_ALARMS, np.concatenate([best_other[k] for k in drawn]))
              for drawn in rng.integers(len(best_other), size=(_SETS, len(best_other)))]
    return min(float(np.quantile(enough, _SURE)), 1.0)
