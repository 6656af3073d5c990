"""Fits how large things look (detection.perspective) on rendered sets, which tell from where each frame was taken.

For each class a logistic regression says whether a detection is right, by its score and by TERMS of what its box
measures; what the score says is then divided out. Frames are not those that figures are given of, and their towns not
the detector's own: of frames that it was trained on its scores say more than they do in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import GroundView
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.perspective import MEASURES, Perspective, SizeEvidence, log_odds, measures, terms, \
    weighed
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.boxes import MATCH_IOU, comparable
from thermalreid_ros.evaluation.detection import CocoSet, grey_frame, score
from thermalreid_ros.evaluation.logistic import fit_log_odds
from thermalreid_ros.evaluation.pictures import save_plot

FOLDS = 5
#: Pull of the standardised weights towards 0, as so many detections.
RIDGE = 10.0
_LEAST_RIGHT = 30  # detections of a class that are right, to fit the weights on
_WITHIN = (0.2, 99.8)  # percentiles of the measures between which the evidence is taken to hold
_TICKS_M = (0.3, 1, 3, 10)  # of the plot


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a detector finds in a set. measured: (n, 4), MEASURES. label, score: (n,). right: (n,), 1 a hit, 0 a false
    alarm, -1 neither. frame: (n,), number in the set. results: as COCO has them."""

    data: CocoSet
    measured: np.ndarray
    label: np.ndarray
    score: np.ndarray
    right: np.ndarray
    frame: np.ndarray
    results: list[dict]


def candidates(detector: Detector, data: CocoSet, views: Sequence[GroundView],
               progress: Callable[[Sequence], Iterable] = iter) -> Candidates:
    """Detect in every frame, without a labelling and without its view."""
    measured, label, scores, right, frames, results = [], [], [], [], [], []
    for number, (record, path, view) in enumerate(zip(progress(data.coco["images"]), data.paths, views)):
        frame = grey_frame(path, record)
        found = detector.detect(frame).detections
        if not found:
            continue
        classes = np.array([one.class_id for one in found])
        measured.append(measures(view, np.stack([one.box for one in found]), classes))
        compared = [comparable(one, data.tight_in(frame)) for one in found]
        right.append(_right(compared, [a for a in data.coco["annotations"] if a["image_id"] == record["id"]]))
        label.append(classes)
        scores.append([one.score for one in found])
        frames.append(np.full(len(found), number))
        results += [{"image_id": record["id"], "category_id": one.class_id, "bbox": [one.x_min, one.y_min, one.width,
                                                                                       one.height]} for one in compared]
    if not results:
        raise ThermalReidError(f"{data.paths[0].parent}: nothing is detected in any frame; check --images and --model")
    return Candidates(data, np.concatenate(measured), np.concatenate(label), np.concatenate(scores),
                      np.concatenate(right), np.concatenate(frames), results)


def _right(found: Sequence[Detection], annotations: Sequence[dict]) -> np.ndarray:
    """(n,), as COCO matches detections, best first, at MATCH_IOU."""
    right = np.zeros(len(found), int)
    boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    labels = np.array([a["category_id"] for a in annotations], int)
    crowd = np.array([a["iscrowd"] for a in annotations], bool)
    free = np.ones(len(annotations), bool)
    for n, one in enumerate(found):
        x, y, w, h = boxes.T
        common = (np.minimum(x + w, one.x_max) - np.maximum(x, one.x_min)).clip(0) \
            * (np.minimum(y + h, one.y_max) - np.maximum(y, one.y_min)).clip(0)
        area = one.width * one.height
        overlap = np.where(labels == one.class_id, common / np.where(crowd, area, w * h + area - common), 0.0)
        hit = np.where(free & ~crowd, overlap, 0.0)
        if len(hit) and hit.max() >= MATCH_IOU:
            free[hit.argmax()] = False
            right[n] = 1
        elif (overlap[crowd] >= MATCH_IOU).any():
            right[n] = -1
    return right


def fit(sets: Sequence[Candidates], progress: Callable[[str], None] = lambda line: None) -> tuple[Perspective, dict]:
    """(what size says, figures). Figures are of frames held out: mean AP50 of each set by the scores alone and with the
    evidence that the other frames gave, in FOLDS runs of frames that follow one another."""
    every = [np.ones(len(item.score), bool) for item in sets]
    model = _fit(sets, every, progress)
    if not model.classes:
        raise ThermalReidError("too few objects are found to say how large they are; give more frames "
                               "(thermalreid world dataset)")
    figures: dict[str, Any] = {"found": {name: int(sum((item.right[item.label == label] == 1).sum() for item in sets))
                                         for label, name in enumerate(CLASS_NAMES)}, "sets": []}
    folds = [item.frame * FOLDS // len(item.data.paths) for item in sets]
    held = [item.score.copy() for item in sets]
    for fold in range(FOLDS):
        others = _fit(sets, [of != fold for of in folds])
        for item, of, scores in zip(sets, folds, held):
            own = of == fold
            scores[own] = weighed(item.score[own], others.of(item.measured[own], item.label[own]))
    for item, scores in zip(sets, held):
        before, after = (score([{**one, "score": float(value)} for one, value in zip(item.results, values)], item.data)
                         for values in (item.score, scores))
        figures["sets"].append({"frames": len(item.data.paths), "map50": round(before["map50"], 4),
                                "map50_with_perspective": round(after["map50"], 4)})
    return model, figures


def _fit(sets: Sequence[Candidates], chosen: Sequence[np.ndarray],
         progress: Callable[[str], None] = lambda line: None) -> Perspective:
    measured, label, scores, right = (np.concatenate([getattr(item, part)[own] for item, own in zip(sets, chosen)])
                                     for part in ("measured", "label", "score", "right"))
    classes = {}
    for number, name in enumerate(CLASS_NAMES):
        own = (label == number) & (right >= 0) & np.isfinite(measured).all(axis=1)
        true = right[own] == 1
        if true.sum() < _LEAST_RIGHT or true.all():
            progress(f"{name}: {true.sum()} right detections of known size, {(~true).sum()} false alarms; at least "
                     f"{_LEAST_RIGHT} and one are needed, so its size says nothing")
            continue
        low, high = np.percentile(measured[own], _WITHIN, axis=0)
        within = terms(np.clip(measured[own], low, high))
        mean, spread = within.mean(axis=0), np.maximum(within.std(axis=0), 1e-9)
        standard = (within - mean) / spread
        slope, weights = _logistic(log_odds(scores[own]), standard, true)
        if slope <= 0.0:
            progress(f"{name}: its scores tell nothing, so that sizes cannot be weighed against them")
            continue
        # Divided by the slope it is on the scale of the scores; less its mean over what is right these keep theirs.
        weights = weights / spread / slope
        classes[name] = SizeEvidence(float(-(within[true] @ weights).mean()), weights, low, high)
    return Perspective(classes)


def _logistic(evidence: np.ndarray, standard: np.ndarray, true: np.ndarray) -> tuple[float, np.ndarray]:
    """(slope, weights (F,)) of log-odds = bias + slope * evidence + standard @ weights, the weights drawn towards 0."""
    design = np.column_stack([np.ones(len(true)), evidence, standard])
    nothing = np.zeros(design.shape[1])
    solution = fit_log_odds(design, true, np.ones(len(true)),
                            pull=np.concatenate([[1e-9, 1e-9], np.full(standard.shape[1], RIDGE)]), towards=nothing,
                            positive=nothing > 0.0, start=nothing)
    return float(solution[1]), solution[2:]


def plot(path: Path, model: Perspective, sets: Sequence[Candidates], title: str) -> None:
    """For each class: size and evidence of what is right and of false alarms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, len(CLASS_NAMES), figsize=(12, 3), layout="constrained", sharey=True)
    for label, (axis, name) in enumerate(zip(axes, CLASS_NAMES)):
        for value, colour, words in ((0, "#c8c8c8", "false alarms"), (1, "#33475b", "right")):
            measured = np.concatenate([item.measured[(item.label == label) & (item.right == value)] for item in sets])
            if name in model.classes and len(measured):
                axis.scatter(np.exp(measured[:, MEASURES.index("size")]), model.classes[name].of(measured), 2, c=colour,
                             label=words, rasterized=True)
        axis.set(title=name, xscale="log", xlabel="diagonal of the box, m")
        axis.set_xticks(_TICKS_M, map(str, _TICKS_M))
        axis.minorticks_off()  # their labels would lie upon each other
    axes[0].set_ylabel("evidence, nats")
    axes[0].legend(frameon=False)
    drawing.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_plot(path, drawing, dpi=120)
    pyplot.close(drawing)
