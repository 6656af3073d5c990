"""The fused ranking: all that is known of a probe and a candidate, as one calibrated probability.

A log-linear model: the log-odds that the candidate is the probe's object are those of a candidate drawn at random, plus
a weighted sum of what the terms say. Weights are of one sign each (more distance never speaks for a candidate) and
differ by class; there is a second set of them for systems without an embedding, where Eq. (1) must carry more. Where
somebody tells how long the object is, the log-likelihood ratio of the size seen is added. Made by
`thermalreid reid fit-fusion`, which holds the fitting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import shipped
from thermalreid_ros.reid.length import ToldLength

FILE_NAME = "reid_fusion.yaml"
METHODS = ("thermal_signature", "cross_modal_embedding", "fused")
#: Weights for a probe whose class is not known.
ANY = "any"
#: Of evidence, oriented so that more of it speaks against the candidate: class_doubt is -ln(p / (1 - p)), size_gap r^2
#: of the size's log-ratio r, by which things of another kind are told. Within a class a size is evidence where a length
#: is known, by its likelihood ratio; against the class's mean it would only favour what is of average size.
FEATURES = ("histogram", "mser", "embedding", "class_doubt", "size_gap")
WITH_EMBEDDING, WITHOUT_EMBEDDING = "with_embedding", "without_embedding"

VIEW_FEATURES = 6
#: Share of the candidates that are of the probe's class, where probabilities hold: streets show mostly cars and people.
SAME_CLASS_SHARE = 0.5

_LEAST_PROBABILITY = 1e-3  # of a class: networks are surer than they are right
_MOST_GAP = 1.5
_ASTRAY = 0.05  # share of sizes, seen or told, that say nothing; and of objects that are unusual in their class
_WIDE = 3.0  # times the spread of a class: that of the unusual ones


class FusionError(ThermalReidError):
    """A fusion file that cannot be used, or terms that do not belong together."""


@dataclass(frozen=True, eq=False)
class PairTerms:
    """What N candidates have in common with one probe: float32 (N,), NaN where it is not known.

    histogram, mser: the terms of Eq. (1), pooled over the probe's K synthetic pictures and the track's crops as Gallery
    does. embedding: 1 - cosine of the pooled descriptors. class_probability: that the candidate is of the probe's
    class. size_log_ratio: the candidate's FusedModel.seen_size less the one expected of the probe's object.
    length_ratio: FusedModel.length_ratio of that size, by default not known.
    """

    histogram: np.ndarray
    mser: np.ndarray
    embedding: np.ndarray
    class_probability: np.ndarray
    size_log_ratio: np.ndarray
    length_ratio: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.length_ratio is None:
            object.__setattr__(self, "length_ratio", np.full(np.shape(self.histogram), np.nan))
        for field in fields(self):
            object.__setattr__(self, field.name, np.atleast_1d(np.asarray(getattr(self, field.name), np.float32)))
        if len({getattr(self, field.name).shape for field in fields(self)}) != 1 or self.histogram.ndim != 1:
            raise FusionError("the terms of pairs must be of one length each")

    def __len__(self) -> int:
        return len(self.histogram)

    @classmethod
    def unknown(cls, count: int) -> PairTerms:
        """Of which nothing is known."""
        return cls(*(np.full(count, np.nan, np.float32) for _ in fields(cls)))

    def only(self, chosen: np.ndarray) -> PairTerms:
        """Those of a mask or of numbers."""
        return PairTerms(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def without(self, *names: str) -> PairTerms:
        """The same, these terms not known."""
        return replace(self, **{name: np.full(len(self), np.nan, np.float32) for name in names})


def features(terms: PairTerms) -> np.ndarray:
    """float64 (N, 5), columns as FEATURES, NaN where the term is."""
    probability = np.clip(terms.class_probability.astype(np.float64), _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    size = terms.size_log_ratio.astype(np.float64)
    return np.column_stack([terms.histogram, terms.mser, terms.embedding, np.log1p(-probability) - np.log(probability),
                            np.minimum(np.abs(size), _MOST_GAP) ** 2])


@dataclass(frozen=True)
class Weights:
    """bias: log-odds of an average pair. weights: (5,), none negative, of the features less their means over scales."""

    bias: float
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SizeRegression:
    """ln of an object's size: offset + weights @ descriptor of its photograph, with standard deviation sigma; without a
    descriptor, mean and spread of the class. view: (6,), by how much the size seen depends on view_features."""

    mean: float
    spread: float
    sigma: float
    offset: float
    weights: np.ndarray
    view: np.ndarray


@dataclass(frozen=True)
class LengthRow:
    """What a length foretells of the size seen of a class: offset + ln of the metres, from which one sight differs with
    standard deviation noise."""

    offset: float
    noise: float

    def ratio(self, seen: np.ndarray, length: ToldLength, of_class: SizeRegression,
              box_sigma: float | np.ndarray = 0.0) -> np.ndarray:
        """Log-likelihood ratio of sizes seen (ln): as of the object whose length was told, against as another's of its
        class. box_sigma: of the error that boxes add to the noise.

        The class's lengths are of two Gaussians, a narrow and a wide one; what is told and what is seen err about the
        object's own. So a length told roughly is believed to be nearer to the class's mean than it was told to be, and
        one that is rare in the class says more than a common one.
        """
        # All about the class's mean, in ln.
        seen, told = np.asarray(seen, np.float64) - of_class.mean, length.log + self.offset - of_class.mean
        own, another, heard = [], [], []
        noise = self.noise**2 + np.square(box_sigma)
        narrow = max(of_class.spread**2 - self.noise**2, self.noise**2)  # of the lengths alone
        for share, variance in ((1.0 - _ASTRAY, narrow), (_ASTRAY, (_WIDE * of_class.spread) ** 2)):
            believed = variance / (variance + length.error**2)
            heard.append(np.log(share) + _log_normal(told, variance + length.error**2))
            own.append(heard[-1] + _log_normal(seen - believed * told, believed * length.error**2 + noise))
            another.append(np.log(share) + _log_normal(seen, variance + noise))
        with np.errstate(invalid="ignore"):  # what is not known stays so
            ratio = np.logaddexp(*own) - np.logaddexp(*heard) - np.logaddexp(*another)
            return np.logaddexp(np.log1p(-_ASTRAY) + ratio, np.log(_ASTRAY))


def _log_normal(value: np.ndarray, variance: float | np.ndarray) -> np.ndarray:
    return -0.5 * (value**2 / variance + np.log(variance))


@dataclass(frozen=True, eq=False)
class FusedModel:
    """means, scales: (5,), of the features over as many true pairs as false ones, so that an unknown term in the place
    of its mean speaks neither for nor against. weights: by WITH_EMBEDDING or WITHOUT_EMBEDDING and class or ANY.
    lengths: by class or ANY. accept_probability: at which one search in a hundred among candidates_per_true others
    accepts a wrong one; accept_probability_told: where the length is told, by the error that it is told with.
    candidates_per_true: the prior, one true candidate among so many, of which SAME_CLASS_SHARE are of its class.
    descriptor_model: the embedding that the sizes and weights belong to, "" where it had none. synthetic_share: of the
    thermal probes in a probe's descriptor, see probe_descriptor.
    """

    means: np.ndarray
    scales: np.ndarray
    weights: Mapping[str, Mapping[str, Weights]]
    sizes: Mapping[str, SizeRegression]
    lengths: Mapping[str, LengthRow]
    accept_probability: float
    accept_probability_told: Mapping[float, float]
    candidates_per_true: float
    descriptor_model: str = ""
    synthetic_share: float = 0.5

    @classmethod
    def load(cls, path: str | Path | None = None) -> FusedModel:
        """Of a file of `thermalreid reid fit-fusion`, by default the shipped one. Raises FusionError."""
        path = Path(path) if path else shipped("config") / FILE_NAME
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise FusionError(f"{path}: the fusion cannot be read ({error.strerror}); make one with "
                              "`thermalreid reid fit-fusion`") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise FusionError(f"{path}: this is no YAML; make it anew with `thermalreid reid fit-fusion`") from None
        try:
            return cls.from_mapping(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FusionError(f"{path}: damaged ({error}); make it anew with `thermalreid reid fit-fusion`") from None

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> FusedModel:
        table = [content["features"][name] for name in FEATURES]
        weights = {kind: {name: Weights(float(row["bias"]), tuple(float(row[feature]) for feature in FEATURES))
                          for name, row in rows.items()} for kind, rows in content["weights"].items()}
        sizes = {name: SizeRegression(*(float(row[key]) for key in ("mean", "spread", "sigma", "offset")),
                                      *(np.asarray(row[key], np.float64) for key in ("weights", "view")))
                 for name, row in content["sizes"].items()}
        lengths = {name: LengthRow(float(row["offset"]), float(row["noise"]))
                   for name, row in content["lengths"].items()}
        if ANY not in weights[WITHOUT_EMBEDDING] or ANY not in sizes or ANY not in lengths:
            raise ValueError(f"no weights, sizes or lengths for class '{ANY}'")
        if any(row.view.shape != (VIEW_FEATURES,) or not row.sigma > 0.0 for row in sizes.values()):
            raise ValueError(f"sizes whose view is not {VIEW_FEATURES} numbers, or whose sigma is not above 0")
        model = cls(np.array([float(row["mean"]) for row in table]), np.array([float(row["scale"]) for row in table]),
                    weights, sizes, lengths, float(content["accept_probability"]),
                    {float(error): float(value) for error, value in content["accept_probability_told"].items()},
                    float(content["candidates_per_true"]),
                    str(content.get("descriptor_model") or ""), float(content.get("synthetic_share", 0.5)))
        numbers = [*model.means, *model.scales, *(number for rows in weights.values() for row in rows.values()
                                                  for number in (row.bias, *row.weights)),
                   *(number for row in lengths.values() for number in astuple(row)),
                   *(number for row in sizes.values() for number in (row.mean, row.spread, row.sigma, row.offset,
                                                                     *row.weights, *row.view))]
        accepted = (model.accept_probability, *model.accept_probability_told.values())
        if not model.accept_probability_told or min(model.accept_probability_told) <= 0.0:
            raise ValueError("no acceptance where lengths are told, or one of errors that are not above 0")
        if not np.isfinite(numbers).all() or (model.scales <= 0).any() or not 0.0 < min(accepted) <= max(accepted) <= 1:
            raise ValueError("numbers that are not finite, scales that are not above 0, or no acceptance from 0 to 1")
        if any(row.noise <= 0.0 for row in lengths.values()):
            raise ValueError("lengths whose noise is not above 0")
        if min(number for rows in weights.values() for row in rows.values() for number in row.weights) < 0.0:
            raise ValueError("weights below 0, by which more distance speaks for a candidate")
        if len({len(row.weights) for row in sizes.values() if len(row.weights)}) > 1:
            raise ValueError("sizes by descriptors of several embeddings")
        if not (0.0 <= model.synthetic_share <= 1.0 and model.candidates_per_true >= 1.0):
            raise ValueError("a synthetic_share that is not from 0 to 1, or candidates_per_true below 1")
        return model

    def to_mapping(self) -> dict[str, Any]:
        """What from_mapping reads, plain numbers that YAML can hold."""
        def rounded(value: float) -> float:
            return float(f"{value:.5g}")

        return {
            "candidates_per_true": self.candidates_per_true,
            "accept_probability": rounded(self.accept_probability),
            "accept_probability_told": {error: rounded(value) for error, value in self.accept_probability_told.items()},
            "descriptor_model": self.descriptor_model,
            "synthetic_share": self.synthetic_share,
            "features": {name: {"mean": rounded(mean), "scale": rounded(scale)}
                         for name, mean, scale in zip(FEATURES, self.means, self.scales)},
            "weights": {kind: {name: {"bias": rounded(row.bias), **dict(zip(FEATURES, map(rounded, row.weights)))}
                               for name, row in rows.items()} for kind, rows in self.weights.items()},
            "sizes": {name: {**{key: rounded(getattr(row, key)) for key in ("mean", "spread", "sigma", "offset")},
                             "view": [rounded(v) for v in row.view],
                             "weights": [round(float(v), 4) for v in row.weights]}
                      for name, row in self.sizes.items()},
            "lengths": {name: {"offset": rounded(row.offset), "noise": rounded(row.noise)}
                        for name, row in self.lengths.items()}}

    @property
    def descriptor_size(self) -> int:
        """Numbers in a descriptor of the embedding that it was fitted with; 0 where its sizes ask for none."""
        return max(len(row.weights) for row in self.sizes.values())

    def least_probability(self, length: ToldLength | None) -> float:
        """From which on a match is accepted: lengths told roughly leave fewer candidates that come close to certain, by
        the logarithm of the error between those that were fitted, and as for the last of them beyond."""
        if length is None:
            return self.accept_probability
        errors = sorted(self.accept_probability_told)
        return float(np.interp(np.log(length.error), np.log(errors), [self.accept_probability_told[e] for e in errors]))

    def score(self, terms: PairTerms, class_name: str = "") -> np.ndarray:
        """float64 (N,), log-odds that each candidate is the probe's object, calibrated for one true candidate among
        candidates_per_true. class_name: of the probe, "" unknown."""
        columns = features(terms)
        standard = np.where(np.isfinite(columns), (columns - self.means) / self.scales, 0.0)
        scores = np.empty(len(terms))
        for kind, chosen in ((WITH_EMBEDDING, np.isfinite(terms.embedding)),
                             (WITHOUT_EMBEDDING, ~np.isfinite(terms.embedding))):
            if not chosen.any():
                continue
            rows = self.weights.get(kind) or self.weights[WITHOUT_EMBEDDING]
            row = rows.get(class_name) or rows[ANY]
            scores[chosen] = row.bias - standard[chosen] @ np.asarray(row.weights)
        return scores + np.nan_to_num(terms.length_ratio.astype(np.float64))

    def seen_size(self, views: np.ndarray, class_name: str = "") -> np.ndarray:
        """ln of the size of an object of this class, of each view (..., 4) of it as view_features takes them: of the
        diagonal of its box in metres, less what foreshortening and direction usually make of it."""
        row = self.sizes.get(class_name) or self.sizes[ANY]
        return np.log(np.hypot(views[..., 0], views[..., 1])) - view_features(views) @ row.view

    def expected_size(self, descriptor: np.ndarray | None, class_name: str = "") -> float:
        """The mean of seen_size, ln of metres, of candidates that are the object.

        descriptor: (D,), of the photograph; None: that of the class. Raises FusionError for one of another length than
        the model was fitted with.
        """
        row = self.sizes.get(class_name) or self.sizes[ANY]
        if descriptor is None or not len(row.weights):
            return row.mean
        descriptor = np.asarray(descriptor, np.float64)
        if descriptor.shape != row.weights.shape:
            raise FusionError(f"a descriptor of {list(descriptor.shape)} is not of the embedding that the fusion was "
                              f"fitted with ({self.descriptor_model}); fit it anew with `thermalreid reid fit-fusion`")
        return row.offset + float(row.weights @ descriptor)

    def length_ratio(self, seen: np.ndarray, length: ToldLength | None, class_name: str = "",
                     box_sigma: float | np.ndarray = 0.0) -> np.ndarray:
        """(N,) for PairTerms: LengthRow.ratio of what seen_size says of N candidates, NaN where that is; all NaN where
        no length is told. box_sigma: of each or of all, 0 where boxes are those of the truth, as the fit had them."""
        if length is None:
            return np.full(np.shape(seen), np.nan)
        name = class_name if class_name in self.lengths and class_name in self.sizes else ANY
        return self.lengths[name].ratio(seen, length, self.sizes[name], box_sigma)


def probability_of(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), for any x."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(log_odds, np.float64)))


def view_features(views: np.ndarray) -> np.ndarray:
    """(..., 6), what the size of a box depends on beside the object's own. views: (..., 4), width and height of the box
    and of a pixel, in metres across the line of sight at the object's distance, and radians that it is seen from above.
    """
    width, height, pixel, depression = np.moveaxis(np.asarray(views, np.float64), -1, 0)
    flat, slender = np.cos(depression), np.log(height / width)
    return np.stack([flat, flat**2, slender, slender**2, flat * slender, pixel / np.hypot(width, height)], axis=-1)


def pooled(descriptors: np.ndarray) -> np.ndarray:
    """(D,), the mean of unit vectors (n, D), of the photographs of a probe, or the crops of a track: distances from it
    are the means of theirs."""
    return np.asarray(descriptors, np.float32).mean(axis=0)


def probe_descriptor(photograph: np.ndarray, probes: np.ndarray | None, synthetic_share: float) -> np.ndarray:
    """(D,), the descriptor that a probe is searched by: of its photographs, pooled, mixed with that of the thermal
    probes made of them, pooled; of the photographs alone where there are none, or they are not finite."""
    if probes is None or not np.isfinite(probes).all():
        return photograph
    return (1.0 - synthetic_share) * photograph + synthetic_share * probes
