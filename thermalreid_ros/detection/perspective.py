"""How large things look from where the camera is, as evidence for and against what a detector found.

A detector sees pixels, not metres: a warm spot of ten pixels is a person from 100 m and a chimney from 300. Height and
attitude of the camera tell how many metres a pixel at the foot of a box is, and so how large its object would be; what
that says is added to the detector's own evidence, as log-odds (Hoiem, Efros & Hebert, Putting Objects in Perspective,
IJCV 80, 2008). It is added for each class of its own, so that a place that may be a person or a dog is told by size.

    score' = sigmoid(logit(score) + evidence),   |evidence| <= LIMIT

The evidence is a polynomial of what a box measures, fitted by `thermalreid train perspective`
(evaluation.perspective_fit) and kept on the model's card. It is scaled so that right detections keep their scores on
the average: thresholds mean what they meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import GroundView
from thermalreid_ros.detection.types import CLASS_HEIGHTS_M, CLASS_NAMES, EDGE_PX, LEAST_SLOPE, tight_side
from thermalreid_ros.engine import EngineError, ModelCard

CARD_KEY = "perspective"
#: Most that size says for or against a detection, nats: an altitude that is wrong must not hide what a detector sees.
LIMIT = 2.0
#: Of a box: size, ln of its diagonal when tight, metres; slender, ln of its height over its width; flat, cosine of the
#: angle that it is seen from above; pixel, ln of a pixel's metres.
MEASURES = ("size", "slender", "flat", "pixel")
#: What is made of them, as (weights' name, powers of MEASURES).
TERMS = (("size", (1, 0, 0, 0)), ("size^2", (2, 0, 0, 0)), ("size^3", (3, 0, 0, 0)), ("size*flat", (1, 0, 1, 0)),
         ("size*pixel", (1, 0, 0, 1)), ("slender", (0, 1, 0, 0)), ("slender^2", (0, 2, 0, 0)),
         ("slender*flat", (0, 1, 1, 0)), ("flat", (0, 0, 1, 0)), ("pixel", (0, 0, 0, 1)), ("pixel^2", (0, 0, 0, 2)))


def metric_views(view: GroundView, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What boxes on the ground measure, float64 (n, 4): width and height of what they hold and of a pixel, metres
    across the line of sight, and radians that it is seen from above; as reid.target.sight, whose text says why. NaN
    where the frame may cut the box, and at or above the horizon.

    boxes: (n, 4) pixel edges as detectors draw them. labels: (n,), classes.
    """
    boxes, camera = np.asarray(boxes, np.float64), view.intrinsics
    boxes = np.where(np.isfinite(boxes), boxes, -1.0)  # as if cut by the edge
    x_min, y_min, x_max, y_max = boxes.T
    rays = np.stack([(0.5 * (x_min + x_max) - camera.cx) / camera.fx, (0.5 * (y_min + y_max) - camera.cy) / camera.fy,
                     np.ones(len(boxes))], axis=1) @ np.asarray(view.rotation, np.float64).T
    length = np.linalg.norm(rays, axis=1)
    drop_m = view.height_m - 0.5 * np.take(CLASS_HEIGHTS_M, labels)
    known = (-rays[:, 2] >= LEAST_SLOPE * length) & (drop_m > 0.0)
    known &= (np.minimum(x_min, y_min) >= EDGE_PX) & (camera.width - x_max >= EDGE_PX) & \
        (camera.height - y_max >= EDGE_PX)
    down = np.where(known, -rays[:, 2], np.nan)
    pixel_m = drop_m / down / np.sqrt(length) / camera.fx
    return np.stack([tight_side(x_max - x_min) * pixel_m, tight_side(y_max - y_min) * pixel_m * camera.fx / camera.fy,
                     pixel_m, np.arctan2(down, np.hypot(rays[:, 0], rays[:, 1]))], axis=1)


def measures(view: GroundView, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (n, 4), MEASURES of boxes as metric_views takes them; NaN where these are."""
    width, height, pixel, above = metric_views(view, boxes, labels).T
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area
        return np.stack([np.log(np.hypot(width, height)), np.log(height / width), np.cos(above), np.log(pixel)], axis=1)


def terms(measured: np.ndarray) -> np.ndarray:
    """float64 (n, 11), TERMS of MEASURES (n, 4)."""
    return np.stack([np.prod(measured ** np.array(powers), axis=1) for _, powers in TERMS], axis=1)


@dataclass(frozen=True, eq=False)
class SizeEvidence:
    """Of one class: bias + weights (11,) @ TERMS of MEASURES, which are taken within low and high (4,): beyond them
    nothing was fitted."""

    bias: float
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def of(self, measured: np.ndarray) -> np.ndarray:
        """(n,) nats of MEASURES (n, 4), 0 where they are not known."""
        said = self.bias + terms(np.clip(measured, self.low, self.high)) @ self.weights
        return np.clip(np.where(np.isfinite(said), said, 0.0), -LIMIT, LIMIT)


@dataclass(frozen=True, eq=False)
class Perspective:
    """classes: SizeEvidence by name; a class that is missing is left as it is."""

    classes: Mapping[str, SizeEvidence]

    @classmethod
    def of_card(cls, card: ModelCard) -> Perspective | None:
        """What a model's card says, None where it says nothing. Raises EngineError where that is damaged."""
        if (block := card.extra.get(CARD_KEY)) is None:
            return None
        try:
            classes = {name: SizeEvidence(
                float(row["bias"]), np.array([float(row["weights"][term]) for term, _ in TERMS]),
                *np.array([row["within"][measure] for measure in MEASURES], np.float64).reshape(len(MEASURES), 2).T)
                for name, row in block["classes"].items()}
            for name, row in classes.items():
                if name not in CLASS_NAMES or not np.isfinite([row.bias, *row.weights, *row.low, *row.high]).all() or \
                        (row.low > row.high).any():
                    raise ValueError(f"class '{name}'")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise EngineError(f"model '{card.name}': what its card says of perspective is damaged ({error}); make it "
                              "anew with `thermalreid train perspective`") from None
        return cls(classes)

    def to_mapping(self) -> dict[str, Any]:
        """What of_card reads, plain numbers that YAML can hold."""
        def rounded(value: float) -> float:
            return float(f"{value:.5g}")

        return {"classes": {name: {
            "bias": rounded(item.bias),
            "within": {part: [rounded(low), rounded(high)] for part, low, high in zip(MEASURES, item.low, item.high)},
            "weights": {term: rounded(weight) for (term, _), weight in zip(TERMS, item.weights)}}
            for name, item in self.classes.items()}}

    def evidence(self, view: GroundView, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """float64 (n,), nats for each box (n, 4), as detectors draw them, being of its class (n,)."""
        return self.of(measures(view, boxes, labels), labels)

    def of(self, measured: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The same of their MEASURES (n, 4)."""
        nats = np.zeros(len(labels))
        for name, row in self.classes.items():
            if (own := labels == CLASS_NAMES.index(name)).any():
                nats[own] = row.of(measured[own])
        return nats


def weighed(scores: np.ndarray, nats: np.ndarray) -> np.ndarray:
    """Scores from 0 to 1 with evidence added, in their own precision."""
    odds = np.exp(log_odds(scores) + nats)
    return (odds / (1.0 + odds)).astype(scores.dtype)


def log_odds(scores: np.ndarray) -> np.ndarray:
    """float64, finite for scores of 0 and 1, too."""
    within = np.clip(np.asarray(scores, np.float64), 1e-6, 1.0 - 1e-6)
    return np.log(within / (1.0 - within))
