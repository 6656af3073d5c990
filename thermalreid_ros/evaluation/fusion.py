"""What a labelling of the ground gives to detection, and what a wrong one costs: the ablation of semantic fusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from thermalreid_ros.camera.geometry import GroundView
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.overlay import CLASS_COLOURS_BGR
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import CocoSet, evaluate_detection, score
from thermalreid_ros.evaluation.labellings import Labelling, map_labels, predicted_labels, shifted_labels, \
    shuffled_labels
from thermalreid_ros.evaluation.pictures import save_plot
from thermalreid_ros.localization.segmenter import Segmenter

GROUPS = 12  # of frames that follow one another, of which each is left out once
MAP, TRUE = "map, aligned", "true"
#: Which labellings are also given together with the camera's view, and what is added to their names then.
WITH_VIEW, IN_PERSPECTIVE = ("none", MAP, TRUE), ", in perspective"


def conditions(data: CocoSet, truth: Labelling, segmenters: Sequence[Segmenter], maps: Sequence[Path],
               fix_error_m: float, shifts_m: Sequence[float], seed: int) -> dict[str, Labelling | None]:
    """The labellings to compare, by name. The map is drawn onto the last segmenter's labelling."""
    chosen: dict[str, Labelling | None] = {"none": None}
    chosen |= {f"predicted by {item.engine.card.name}": predicted_labels(data, item) for item in segmenters}
    if maps:
        if not segmenters:
            raise ThermalReidError("the map is aligned with a predicted labelling; name a segmenter")
        chosen[MAP] = map_labels(data, maps, segmenters[-1], fix_error_m, seed)
    chosen[TRUE] = truth
    chosen |= {f"true, shifted {metres:g} m": shifted_labels(data, truth, metres, seed) for metres in shifts_m}
    return {**chosen, "another frame's": shuffled_labels(data, truth, seed)}


def compare(detector: Detector, data: CocoSet, truth: Labelling, chosen: dict[str, Labelling | None],
            progress: Callable[[Sequence, str], Iterable] = lambda items, name: items,
            views: Sequence[GroundView] | None = None) -> dict[str, dict]:
    """The figures of evaluate_detection with each labelling, and where views tell from where each frame was taken, once
    more for those in WITH_VIEW; beside them

    agreement: share of the pixels that have the true label. gain: of map50 over the first condition. gain_error: its
    standard error by the jackknife over GROUPS of frames, paired, None with fewer frames. progress(records, name).
    """
    if not detector.takes_semantics:
        raise ThermalReidError(f"model '{detector.engine.card.name}' takes no labelling: there is nothing to compare")
    rows = [(name, labelling, None) for name, labelling in chosen.items()]
    if views is not None and detector.perspective is not None:
        rows += [(name + IN_PERSPECTIVE, chosen[name], views) for name in WITH_VIEW if name in chosen]
    figures, means = {}, {}
    for name, labelling, seen_from in rows:
        counts = np.zeros(2, np.int64)

        def counted(number: int, frame: np.ndarray) -> np.ndarray:
            labels = labelling(number, frame)
            counts[:] += (labels == truth(number, frame)).sum(), labels.size
            return labels

        figures[name], results = evaluate_detection(
            detector, data, lambda records: progress(records, name), None if labelling is None else counted, seen_from)
        figures[name]["agreement"] = float(counts[0] / counts[1]) if counts[1] else None
        means[name] = _leaving_out(results, data)
    first = next(iter(chosen))
    for name, values in figures.items():
        values["gain"] = values["map50"] - figures[first]["map50"]
        gains = np.subtract(means[name], means[first])
        values["gain_error"] = float(np.sqrt((len(gains) - 1) * gains.var())) if len(gains) else None
    return figures


def _leaving_out(results: list[dict], data: CocoSet) -> list[float]:
    """map50 without each group of frames."""
    ids = [record["id"] for record in data.coco["images"]]
    if len(ids) < 2 * GROUPS:
        return []
    means = []
    for group in np.array_split(np.array(ids), GROUPS):
        gone = set(group.tolist())
        coco = {**data.coco, "images": [r for r in data.coco["images"] if r["id"] not in gone],
                "annotations": [a for a in data.coco["annotations"] if a["image_id"] not in gone]}
        present = tuple(sorted({a["category_id"] for a in coco["annotations"] if not a["iscrowd"]}))
        if present:  # a rare class may have been in that group alone
            means.append(score([r for r in results if r["image_id"] not in gone],
                               replace(data, coco=coco, present=present))["map50"])
    return means


def plot(path: Path, figures: dict[str, dict], title: str) -> None:
    """A bar for each labelling: mean AP50, the error of its gain, each class as a mark; a line where none is given."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(figures)
    drawing, axes = pyplot.subplots(figsize=(7, 0.42 * len(names) + 1.4), layout="constrained")
    rows = np.arange(len(names))[::-1]
    axes.barh(rows, [100 * figures[name]["map50"] for name in names], 0.6, color="#9db4c8", zorder=1,
              xerr=[100 * (figures[name]["gain_error"] or 0.0) for name in names], ecolor="#33475b")
    for label, name in enumerate(CLASS_NAMES):
        values = [figures[key]["ap50"][name] for key in names]
        if None not in values:
            axes.scatter(100 * np.array(values), rows, 18, label=name, zorder=3,
                         color=[part / 255 for part in CLASS_COLOURS_BGR[label][::-1]], edgecolors="black",
                         linewidths=0.4)
    axes.axvline(100 * figures[names[0]]["map50"], color="#33475b", linewidth=0.8, linestyle=":", zorder=2)
    axes.set(yticks=rows, yticklabels=names, xlim=(0, 100), xlabel="AP50, per cent (bar: mean of the classes)",
             title=title)
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.18))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_plot(path, drawing, dpi=120)
    pyplot.close(drawing)
