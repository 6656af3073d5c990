"""Re-identification measured: rankings of galleries of one picture (or track) an identity, drawn several times.

In each draw every identity is in the gallery with one thermal picture, chosen at random for each photograph among those
of other hours of the day; every photograph is a probe. Galleries hold all classes (mixed) or the probe's alone. The
measures are those of evaluation.cmc and evaluation.reid_open_set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.evaluation.cmc import CmcFigures, cmc_curve, cmc_figures, over_draws, true_rank
from thermalreid_ros.evaluation.reid_open_set import Searches
from thermalreid_ros.evaluation.reid_terms import Evidence, SetTerms
from thermalreid_ros.reid.fusion import FusedModel, PairTerms

#: Embeddings of the paper's comparison: as it used them, learned on photographs alone, and learned across bands.
BASELINES = ("vrai", "bot_bs", "vrai_retrained", "bot_bs_retrained")
#: Of the ThermalReID paper's Table 2, on its LAERT set, which is not public: CMC at 1, 5, 10, 15, 20 and nAUC, percent.
PAPER = {"VRAI": (12.11, 22.71, 32.66, 39.86, 41.53, 33.23), "BoT-BS": (14.12, 21.21, 29.12, 34.55, 38.98, 31.17),
         "ThermalReID": (18.21, 32.43, 41.56, 44.31, 46.34, 39.11)}

#: (photograph, candidates as Evidence.of takes them, index of the true candidate) -> distances (I,).
Distance = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Gallery:
    """What one photograph is searched in. pictures: (I, N), of each identity its N pictures. label: (I,), classes.
    true: index of the photograph's own identity."""

    photograph: int
    pictures: np.ndarray
    label: np.ndarray
    true: int


def draw_galleries(terms: SetTerms, track: int, rng: np.random.Generator) -> Iterator[Gallery]:
    """For each photograph whose identity has a picture of another hour, its gallery. track: pictures of an identity;
    where there are fewer, they are repeated."""
    who, whom = terms.identity
    label = terms.label[1]
    order = rng.permutation(len(whom))
    members = [order[whom[order] == identity] for identity in range(int(whom.max()) + 1)]
    allowed = terms.allowed
    for photograph, identity in enumerate(who):
        chosen = [own[allowed[photograph, own]][:track] for own in members]
        there = [number for number, own in enumerate(chosen) if len(own)]
        if identity not in there:
            continue
        pictures = np.stack([np.resize(chosen[number], track) for number in there])
        yield Gallery(photograph, pictures, label[pictures[:, 0]], there.index(identity))


def fused_distance(evidence: Evidence, model: FusedModel, without: Sequence[str] = ()) -> Distance:
    """Minus the log-odds."""
    names = [picture.class_name for picture in evidence.terms.photographs]
    return lambda photograph, pictures: -model.score(evidence.of(photograph, pictures).without(*without),
                                                     names[photograph])


def term_distance(evidence: Evidence, combine: Callable[[PairTerms], np.ndarray]) -> Distance:
    """Of the terms of each pair; what is not known comes last."""
    def distance(photograph: int, pictures: np.ndarray) -> np.ndarray:
        values = combine(evidence.of(photograph, pictures))
        return np.where(np.isfinite(values), values, np.inf)
    return distance


def matrix_distance(matrix: np.ndarray) -> Distance:
    """Of a (P, G) matrix; the mean over a track's pictures."""
    return lambda photograph, pictures: matrix[photograph][pictures].mean(axis=1)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Of one method and D draws. ranks, sizes: a list each per draw, of the probes (n,), in the order of `label`."""

    ranks: tuple[np.ndarray, ...]
    sizes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def figures(self, label: int | None = None) -> tuple[CmcFigures, CmcFigures] | None:
        """Mean and spread over the draws, of probes of one class or of all; None without probes."""
        drawn = []
        for ranks, sizes, labels in zip(self.ranks, self.sizes, self.labels):
            chosen = np.ones(len(labels), bool) if label is None else labels == label
            if chosen.any():
                drawn.append(cmc_figures(ranks[chosen], sizes[chosen]))
        return over_draws(drawn) if drawn else None

    def curve(self, length: int) -> np.ndarray:
        return np.mean([cmc_curve(ranks, length) for ranks in self.ranks], axis=0)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of one method: mixed and same-class galleries, searches in the mixed ones, and the best and worst cases."""

    mixed: Ranked
    same_class: Ranked
    searches: Searches
    photographs: np.ndarray  # (S,), which photograph each search was of


def rank(galleries: Sequence[Sequence[Gallery]], distance: Distance, labels: np.ndarray) -> Outcome:
    """All probes of all draws by one method. labels: (P,), classes of the photographs."""
    mixed, same, sizes, same_sizes = ([[] for _ in galleries] for _ in range(4))
    own, other, photographs = [], [], []
    for number, draw in enumerate(galleries):
        for gallery in draw:
            distances = distance(gallery.photograph, gallery.pictures)
            mixed[number].append(true_rank(distances, gallery.true))
            sizes[number].append(len(distances))
            alike = gallery.label == labels[gallery.photograph]
            same[number].append(true_rank(distances[alike], int(alike[:gallery.true].sum())))
            same_sizes[number].append(int(alike.sum()))
            own.append(-distances[gallery.true])
            other.append(-np.delete(distances, gallery.true).min(initial=np.inf))
            photographs.append(gallery.photograph)
    label = tuple(labels[[gallery.photograph for gallery in draw]] for draw in galleries)

    def ranked(ranks: list[list[int]], of: list[list[int]]) -> Ranked:
        return Ranked(tuple(map(np.array, ranks)), tuple(map(np.array, of)), label)

    return Outcome(ranked(mixed, sizes), ranked(same, same_sizes), Searches(np.array(own), np.array(other)),
                   np.array(photographs))


def random_guessing(galleries: Sequence[Sequence[Gallery]], labels: np.ndarray, same_class: bool,
                    label: int | None = None) -> CmcFigures:
    """What a random order reaches on average: CMC(r) = r / n."""
    sizes = np.array([(gallery.label == labels[gallery.photograph]).sum() if same_class else len(gallery.label)
                      for draw in galleries for gallery in draw if label in (None, labels[gallery.photograph])])
    curve = np.minimum(np.arange(1, 21) / sizes[:, None], 1.0).mean(axis=0)
    return CmcFigures(*(float(curve[r - 1]) for r in (1, 5, 10, 15, 20)), float(curve.mean()),
                      float(((sizes + 1) / (2.0 * sizes)).mean()))
