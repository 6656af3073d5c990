"""Every figure of `thermalreid evaluate reid`: methods compared, ingredients taken away, objects that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.evaluation.cmc import CmcFigures
from thermalreid_ros.evaluation.reid import (
    BASELINES,
    Distance,
    Gallery,
    Outcome,
    draw_galleries,
    fused_distance,
    matrix_distance,
    random_guessing,
    rank,
    term_distance,
)
from thermalreid_ros.evaluation.reid_lengths import drawn_lengths
from thermalreid_ros.evaluation.reid_open_set import (
    calibration_error,
    calibration_table,
    detection_and_identification,
    threshold_for,
)
from thermalreid_ros.evaluation.reid_terms import Evidence, SetTerms
from thermalreid_ros.reid.fusion import METHODS, SAME_CLASS_SHARE, FusedModel, probability_of
from thermalreid_ros.reid.length import ToldLength

FALSE_ALARMS = 0.01
SIGNATURE, EMBEDDING, FUSED = METHODS
_DIGITS = 4


@dataclass(frozen=True)
class Setup:
    """beta_h: of Eq. (1). paper: synthesis of the row thermal_signature. flown: that of fused, as it was fitted. track:
    thermal pictures of each identity in a gallery. told_length: error of the lengths that somebody tells, see
    drawn_lengths; None: nobody does."""

    model: FusedModel
    beta_h: float
    paper: str
    flown: str
    track: int = 1
    draws: int = 10
    seed: int = 0
    told_length: float | None = None

    def told(self, terms: SetTerms) -> tuple[ToldLength | None, ...] | None:
        """Lengths of the photographs' objects: as somebody tells them, else as the photographs do."""
        return terms.lengths if self.told_length is None else drawn_lengths(terms, self.told_length, self.seed)


@dataclass(frozen=True, eq=False)
class Measured:
    """figures: as they are written. outcomes: by method, what there is. galleries: of each draw. reliability: what
    calibration_table says of fused."""

    figures: dict[str, Any]
    outcomes: Mapping[str, Outcome]
    galleries: Sequence[Sequence[Gallery]]
    distances: Mapping[str, Distance]
    reliability: np.ndarray


def measure(terms: SetTerms, setup: Setup, progress: Callable = lambda items, **_: items) -> Measured:
    """All figures. Methods without their model are null, in `missing` with the reason."""
    labels = terms.label[0]
    distances, missing = methods(terms, setup)
    ablations = _ablations(terms, setup)
    galleries = _galleries(terms, setup, 1)
    outcomes = {name: rank(galleries, distance, labels)
                for name, distance in progress([*distances.items()], description="rankings", unit="method")}
    figures = {"photographs": len(terms.photographs), "gallery_pictures": len(terms.gallery),
               "identities": len({picture.identity for picture in terms.gallery}), "left_out": len(terms.left_out),
               "draws": setup.draws, "seed": setup.seed, "beta_h": setup.beta_h, "told_length": setup.told_length,
               "lengths_by_photograph": sum(length is not None for length in terms.lengths or ()),
               "synthesis": {SIGNATURE: setup.paper, FUSED: setup.flown},
               **_compared(outcomes, galleries, labels, False), "missing": missing,
               "same_class": _compared(outcomes, galleries, labels, True)}
    open_set, reliability = _open_set(terms, setup, outcomes, galleries, distances.get(FUSED))
    figures["open_set"] = open_set
    if setup.track > 1:
        pooled_galleries = _galleries(terms, setup, setup.track)
        pooled = {name: rank(pooled_galleries, distance, labels)
                  for name, distance in progress([*distances.items()], description="tracks", unit="method")}
        figures["track"] = {"pictures": setup.track, **_compared(pooled, pooled_galleries, labels, False),
                            "same_class": _compared(pooled, pooled_galleries, labels, True)}
    figures["ablation"] = {name: _short(rank(galleries, distance, labels)) if distance is not None else None
                           for name, distance in progress([*ablations.items()], description="ablation", unit="row")}
    return Measured(figures, outcomes, galleries, distances, reliability)


def methods(terms: SetTerms, setup: Setup) -> tuple[dict[str, Distance], dict[str, str]]:
    """(distances by method, reasons why others have none)."""
    distances, missing = {SIGNATURE: _eq1(_evidence(terms, setup, setup.paper), setup.beta_h)}, {}
    fused = _evidence(terms, setup, setup.flown)
    if terms.embedding is not None:
        distances[EMBEDDING] = term_distance(fused, lambda found: found.embedding)
    else:
        missing[EMBEDDING] = "there is no embedding model"
    distances[FUSED] = fused_distance(fused, setup.model)
    for name in BASELINES:
        if (matrix := terms.baselines.get(name)) is not None:
            distances[name] = matrix_distance(matrix)
        else:
            missing[name] = f"there is no model '{name}'"
    return distances, missing


def _evidence(terms: SetTerms, setup: Setup, synthesis: str, share: float | None = None,
              foretold: bool = True) -> Evidence:
    """foretold: sizes are expected by the embedding of the photograph, not by the class alone."""
    described = None if terms.embedding is None or not foretold else terms.embedding.photographs
    expected = np.array([setup.model.expected_size(None if described is None else described[number], picture.class_name)
                         for number, picture in enumerate(terms.photographs)])
    seen = np.stack([setup.model.seen_size(terms.views, name) for name in CLASS_NAMES])
    ratio = None
    if (told := setup.told(terms)) is not None:
        def ratio(photograph: int, sizes: np.ndarray) -> np.ndarray:
            return setup.model.length_ratio(sizes, told[photograph], terms.photographs[photograph].class_name)

    return Evidence(terms, synthesis, setup.beta_h, setup.model.synthetic_share if share is None else share, expected,
                    seen, ratio)


def _eq1(evidence: Evidence, beta_h: float) -> Distance:
    if beta_h == 1.0:  # whatever the other term may be
        return term_distance(evidence, lambda found: found.histogram)
    return term_distance(evidence, lambda found: beta_h * found.histogram + (1.0 - beta_h) * found.mser)


def _ablations(terms: SetTerms, setup: Setup) -> dict[str, Distance | None]:
    fused, paper = _evidence(terms, setup, setup.flown), _evidence(terms, setup, setup.paper)
    photograph_alone = _evidence(terms, setup, setup.flown, 0.0)
    rows: dict[str, Distance | None] = {
        "fused": fused_distance(fused, setup.model),
        "fused without synthesis": fused_distance(photograph_alone, setup.model, ("histogram", "mser")),
        "fused without MSER": fused_distance(fused, setup.model, ("mser",)),
        "fused without Eq. (1)": fused_distance(fused, setup.model, ("histogram", "mser")),
        "fused without embedding": fused_distance(_evidence(terms, setup, setup.flown, foretold=False), setup.model,
                                                  ("embedding", "class_probability")),
        "fused without class": fused_distance(fused, setup.model, ("class_probability",)),
        "fused without size": fused_distance(fused, setup.model, ("size_log_ratio", "length_ratio")),
        "embedding without synthesis": term_distance(photograph_alone, lambda found: found.embedding),
        "embedding of synthesis alone": term_distance(_evidence(terms, setup, setup.flown, 1.0),
                                                      lambda found: found.embedding),
        f"Eq. (1), {setup.paper}": _eq1(paper, setup.beta_h),
        f"Eq. (1), {setup.paper}, without MSER": _eq1(paper, 1.0),
        f"Eq. (1), {setup.paper}, without histogram": _eq1(paper, 0.0),
        f"Eq. (1), {setup.flown}": _eq1(fused, setup.beta_h),
        "Eq. (1) without synthesis, grey values": _eq1(_evidence(terms, setup, ""), setup.beta_h)}
    if setup.told(terms) is not None:
        rows["fused without the length told"] = fused_distance(fused, setup.model, ("length_ratio",))
    if terms.embedding is None:
        rows.update(dict.fromkeys([name for name in rows if "embedding" in name or name == "fused without class"]))
    return rows


def _galleries(terms: SetTerms, setup: Setup, track: int) -> list[list[Gallery]]:
    rng = np.random.default_rng(setup.seed)
    return [list(draw_galleries(terms, track, rng)) for _ in range(setup.draws)]


def _compared(outcomes: Mapping[str, Outcome], galleries: Sequence[Sequence[Gallery]], labels: np.ndarray,
              same_class: bool) -> dict[str, Any]:
    """Figures of mixed or same-class galleries, over all probes and by class."""
    def part(label: int | None) -> dict[str, Any]:
        drawn = {name: None if name not in outcomes else
                 (outcomes[name].same_class if same_class else outcomes[name].mixed).figures(label)
                 for name in (*METHODS, *BASELINES)}
        sizes = [(gallery.label == labels[gallery.photograph]).sum() if same_class else len(gallery.label)
                 for draw in galleries for gallery in draw if label in (None, labels[gallery.photograph])]
        return {"methods": {name: pair and _rounded(pair[0]) for name, pair in drawn.items()},
                "spread": {name: pair and _rounded(pair[1]) for name, pair in drawn.items()},
                "guessing": _rounded(random_guessing(galleries, labels, same_class, label)),
                "probes": round(len(sizes) / len(galleries), 1), "gallery_size": round(float(np.mean(sizes)), 1)}

    present = np.unique([labels[gallery.photograph] for gallery in galleries[0]])
    return {**part(None), "classes": {CLASS_NAMES[label]: part(int(label)) for label in present}}


def _short(outcome: Outcome) -> dict[str, float]:
    mixed, same = outcome.mixed.figures(), outcome.same_class.figures()
    return {"r1": round(mixed[0].r1, _DIGITS), "r1_spread": round(mixed[1].r1, _DIGITS),
            "nauc20": round(mixed[0].nauc20, _DIGITS), "nauc": round(mixed[0].nauc, _DIGITS),
            "same_class_r1": round(same[0].r1, _DIGITS), "same_class_r1_spread": round(same[1].r1, _DIGITS),
            "same_class_nauc": round(same[0].nauc, _DIGITS)}


def _open_set(terms: SetTerms, setup: Setup, outcomes: Mapping[str, Outcome], galleries: Sequence[Sequence[Gallery]],
              fused: Distance) -> tuple[dict[str, Any], np.ndarray]:
    """The rates of each method at its own threshold; and of fused, among as many candidates as it was fitted for, what
    its shipped threshold does and what its probabilities are worth."""
    rates = {name: detection_and_identification(outcome.searches, threshold_for(FALSE_ALARMS,
                                                                                outcome.searches.best_other))[0]
             for name, outcome in outcomes.items()}
    rng = np.random.default_rng(setup.seed)
    told = setup.told(terms) or (None,) * len(terms.photographs)
    count = int(setup.model.candidates_per_true)
    same_class = round(SAME_CLASS_SHARE * count)
    probabilities, truths, best, right = [], [], [], []
    found, alarms, searches = 0, 0, 0
    for draw in galleries:
        for gallery in draw:
            others = rng.permutation(np.delete(np.arange(len(gallery.label)), gallery.true))
            alike = gallery.label[others] == gallery.label[gallery.true]
            # The last is of the same class: it stands in for the true one where that is taken away.
            others = np.concatenate([others[~alike][:count - same_class], others[alike][:same_class]])
            chosen = np.concatenate([[gallery.true], others])
            own, *rest = probability_of(-fused(gallery.photograph, gallery.pictures[chosen]))
            rest = np.array(rest)
            with_true = rest[:-1]  # as many candidates with the true one as without it
            probabilities.append(np.concatenate([[own], with_true]))
            truths.append(np.arange(len(with_true) + 1) == 0)
            best += [max(own, with_true.max(initial=0.0)), rest.max(initial=0.0)]
            right += [own > with_true.max(initial=0.0), False]
            searches += 1
            least = setup.model.least_probability(told[gallery.photograph])
            found += own >= least and own > with_true.max(initial=0.0)
            alarms += rest.max(initial=0.0) >= least
    probability, truth = np.concatenate(probabilities), np.concatenate(truths)
    figures = {
        "false_alarms": FALSE_ALARMS,
        "detection_and_identification": {name: round(value, _DIGITS) for name, value in rates.items()},
        "shipped_threshold": {
            "candidates": count, "accept_probability": setup.model.accept_probability,
            "accept_probability_told": {str(error): value for error, value in
                                        setup.model.accept_probability_told.items()},
            "detection_and_identification": round(found / searches, _DIGITS),
            "false_alarms": round(alarms / searches, _DIGITS)},
        "ece": round(calibration_error(probability, truth), _DIGITS),
        "ece_of_the_best": round(calibration_error(np.array(best), np.array(right)), _DIGITS)}
    return figures, calibration_table(np.array(best), np.array(right))


def _rounded(figures: CmcFigures) -> dict[str, float]:
    return {key: round(value, _DIGITS) for key, value in figures.as_dict().items()}
