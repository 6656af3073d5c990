"""Detection quality against COCO annotations: AP per class by faster-coco-eval, mean IoU, time per frame."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import GroundView
from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.overlay import CLASS_COLOURS_BGR
from thermalreid_ros.detection.types import CLASS_NAMES, DRAWN_PX, DRAWN_SHARE
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.boxes import comparable
from thermalreid_ros.evaluation.pictures import save_picture, save_plot

#: Below this a candidate can no longer change AP visibly, above it precision-recall curves would be cut short.
SCORE_FLOOR = 0.01
#: Other data sets' names of our classes; a name that is no class here is not an object to be found.
ALIASES = {"people": "person", "pedestrian": "person", "bike": "bicycle", "cyclist": "bicycle"}

IGNORED_NAMES = ("dontcare", "don't care", "ignore", "crowd")


@dataclass(frozen=True)
class CocoSet:
    """Annotations in our classes (ids = index into CLASS_NAMES) and the frames' paths and records. tight: whether boxes
    are, as boxes.comparable has it."""

    paths: tuple[Path, ...]
    coco: dict
    present: tuple[int, ...]
    tight: bool = False

    def tight_in(self, frame: np.ndarray) -> tuple[int, int] | None:
        """What boxes.comparable asks of a frame (H, W)."""
        return frame.shape[::-1] if self.tight else None


def read_coco_set(images: Path, annotations: Path, dates: Sequence[str] = ()) -> CocoSet:
    """Read a COCO file, mapping its categories onto CLASS_NAMES by name.

    "Don't care" regions become crowds of every class: detections in them count neither for nor against. Objects of
    other classes are background: detecting one as ours is an error. dates: only frames of these `date_captured`.
    Frames are numbered anew, from 1: ids may be anything. Raises ThermalReidError naming the file, before any frame is
    read.
    """
    try:
        source = json.loads(annotations.read_text())
        names = {identity: name.lower() for identity, name in category_names(source).items()}
        records = [r for r in source["images"] if not dates or str(r.get("date_captured")) in dates]
        paths = tuple(images / r["file_name"] for r in records)
        kept = {r["id"]: {**r, "id": number} for number, r in enumerate(records, 1)}
        items = [_annotation(a, names, kept[a["image_id"]]) for a in source["annotations"] if a["image_id"] in kept]
    except OSError as error:
        raise ThermalReidError(f"{annotations}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ThermalReidError(f"{annotations}: no COCO detection file ({type(error).__name__}: {error})") from None
    if not records:
        raise ThermalReidError(f"{annotations}: no frames" + (f" of {', '.join(dates)}" if dates else ""))
    if len(kept) < len(records):
        raise ThermalReidError(f"{annotations}: two of its images have one id; what is found would count twice")
    if missing := next((p for p in paths if not p.is_file()), None):
        raise ThermalReidError(f"{missing}: not there, but listed in {annotations}; check --images")
    targets, present = [], set()
    for name, box, crowd in items:
        if name in CLASS_NAMES:
            label = CLASS_NAMES.index(name)
            targets.append({**box, "category_id": label, "iscrowd": crowd})
            present |= set() if crowd else {label}
        elif name in IGNORED_NAMES:
            targets.extend({**box, "category_id": label, "iscrowd": 1} for label in range(len(CLASS_NAMES)))
    if not present:
        raise ThermalReidError(f"{annotations}: no object is a {', a '.join(CLASS_NAMES)}; "
                               f"its categories are {', '.join(names.values())}")
    for number, target in enumerate(targets, 1):
        target["id"] = number
    coco = {"info": {}, "images": list(kept.values()), "annotations": targets,
            "categories": [{"id": i, "name": n} for i, n in enumerate(CLASS_NAMES)]}
    return CocoSet(paths, coco, tuple(sorted(present)), is_tight(source["annotations"]))


def is_tight(annotations: Iterable[dict]) -> bool:
    """Whether a set's boxes end with the outermost pixels of the objects: those of thermalreid world, which alone say
    each object's value in a mask (world.truth.coco_annotation)."""
    return any("instance" in item for item in annotations)


def category_names(coco: dict) -> dict:
    """By id. ValueError where two have one."""
    names = {c["id"]: c["name"].strip() for c in coco["categories"]}
    if len(names) < len(coco["categories"]):
        raise ValueError("two of its categories have one id")
    return names


def said_size(record: dict, otherwise: tuple[float, float] = (math.inf, math.inf)) -> tuple[float, ...]:
    """Width and height that an image record says, px."""
    return tuple(float(record.get(key) or own) for key, own in zip(("width", "height"), otherwise))


def checked_box(item: dict, size_px: Sequence[float]) -> list[float]:
    """x, y, width and height of an annotation. ValueError where no object in a frame of that size has such a box."""
    numbers = item["bbox"]
    if not (isinstance(numbers, list) and len(numbers) == 4 and all(
            isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)):
        raise ValueError(f"annotation {item.get('id')}: bbox {numbers} is not four numbers")
    if not all(0 < side <= 2 * size and -side < low < size  # boxes may end somewhat beyond the frame
               for low, side, size in zip(numbers, numbers[2:], size_px)):
        raise ValueError(f"annotation {item.get('id')}: bbox {numbers} is no box in its frame")
    return numbers


def _annotation(item: dict, names: dict, record: dict) -> tuple[str, dict, int]:
    """(class as this project calls it, the box as COCO has it, whether it is a crowd). ValueError or KeyError where it
    is no annotation of a detection."""
    name, numbers = names[item["category_id"]], checked_box(item, said_size(record))
    box = {"image_id": record["id"], "bbox": numbers, "area": item.get("area") or numbers[2] * numbers[3]}
    return ALIASES.get(name, name), box, int(item.get("iscrowd") or 0)


def run_detector(detector: Detector, data: CocoSet, progress: Callable[[Sequence], Iterable] = iter,
                 labelling: Callable[[int, np.ndarray], np.ndarray] | None = None,
                 views: Sequence[GroundView] | None = None) -> tuple[list[dict], np.ndarray]:
    """Detections of every frame as COCO results, comparable with the set's boxes, and the milliseconds of each whole
    detect() call.

    labelling: what tells the detector of the ground, see evaluation.labellings. views: from where each frame was taken.
    """
    results, times_ms = [], []
    for number, (record, path) in enumerate(zip(progress(data.coco["images"]), data.paths)):
        frame = grey_frame(path, record)
        labels = None if labelling is None else labelling(number, frame)
        started = time.perf_counter()
        found = detector.detect(frame, labels, view=None if views is None else views[number]).detections
        times_ms.append(1e3 * (time.perf_counter() - started))
        results += [{"image_id": record["id"], "category_id": d.class_id, "score": d.score,
                     "bbox": [d.x_min, d.y_min, d.width, d.height]}
                    for d in (comparable(one, data.tight_in(frame)) for one in found)]
    return results, np.array(times_ms)


def grey_frame(path: Path, record: dict) -> np.ndarray:
    """uint8 (H, W). Raises ThermalReidError where it is none, or not of the size that its annotations are in."""
    frame = read_picture(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if frame.dtype != np.uint8:
        raise ThermalReidError(f"{path}: {frame.dtype} pixels; detection is measured on grey frames of 8 bits (of a "
                               "rendered set SET/images/thermal)")
    size = frame.shape[1], frame.shape[0]
    if (said := said_size(record, size)) != size:
        raise ThermalReidError(f"{path}: {size[0]}x{size[1]} px, but its annotations are of {said[0]:g}x{said[1]:g} "
                               "px; check --images")
    return frame


def score(results: list[dict], data: CocoSet) -> dict:
    """ap50 per class (None for classes without objects), map50, map50_95 over the classes that have objects, and
    mean_iou: of the matched pairs, detections of at least 0.3 matched greedily by score at IoU 0.5."""
    precision = _precision(results, data).mean(1)  # (IoU, class)
    ap50: dict[str, float | None] = {name: None for name in CLASS_NAMES}
    for label, value in zip(data.present, precision[0]):
        ap50[CLASS_NAMES[label]] = float(value)
    return {"ap50": ap50, "map50": float(precision[0].mean()), "map50_95": float(precision.mean()),
            "mean_iou": _mean_iou(results, data)}


def _precision(results: list[dict], data: CocoSet) -> np.ndarray:
    """(10 IoU thresholds, 101 recalls, present classes), COCO's interpolation."""
    from faster_coco_eval import COCO, COCOeval_faster

    if not results:
        return np.zeros((10, 101, len(data.present)))
    with redirect_stdout(io.StringIO()):
        truth = COCO(data.coco)
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
        evaluation.params.catIds = list(data.present)
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1].clip(0)  # all areas, up to 300 detections a frame


def _precision_curves(results: list[dict], data: CocoSet) -> dict[int, np.ndarray]:
    return dict(zip(data.present, _precision(results, data)[0].T))


def _mean_iou(results: list[dict], data: CocoSet) -> float | None:
    truth: dict[tuple, list] = {}
    for a in data.coco["annotations"]:
        if not a["iscrowd"]:
            truth.setdefault((a["image_id"], a["category_id"]), []).append(a["bbox"])
    overlaps = []
    for r in sorted((r for r in results if r["score"] >= 0.3), key=lambda r: -r["score"]):
        candidates = truth.get((r["image_id"], r["category_id"]), [])
        if not candidates:
            continue
        x, y, w, h = np.array(candidates, np.float64).T
        bx, by, bw, bh = r["bbox"]
        inter = (np.minimum(x + w, bx + bw) - np.maximum(x, bx)).clip(0) \
            * (np.minimum(y + h, by + bh) - np.maximum(y, by)).clip(0)
        iou = inter / (w * h + bw * bh - inter)
        best = int(iou.argmax())
        if iou[best] >= 0.5:
            overlaps.append(iou[best])
            candidates.pop(best)
    return float(np.mean(overlaps)) if overlaps else None


def evaluate_detection(detector: Detector, data: CocoSet, progress: Callable[[Sequence], Iterable] = iter,
                       labelling: Callable[[int, np.ndarray], np.ndarray] | None = None,
                       views: Sequence[GroundView] | None = None) -> tuple[dict, list]:
    """The figures of `thermalreid evaluate detection`, that is score() and median_ms of whole detect() calls, and the
    COCO results they were computed from. box_margin: pixels, and share of the object's side, that were taken off at
    each edge of the boxes found. perspective: whether scores were weighed by how large things look. labelling, views:
    as for run_detector."""
    results, times_ms = run_detector(detector, data, progress, labelling, views)
    figures = {**score(results, data), "median_ms": float(np.median(times_ms)), "frames": len(times_ms),
               "box_margin": [DRAWN_PX, DRAWN_SHARE] if data.tight else [0.0, 0.0],
               "perspective": views is not None and detector.perspective is not None,
               "model": detector.engine.card.name, "provider": detector.engine.provider}
    return figures, results


def write_plots(folder: Path, results: list[dict], data: CocoSet, figures: dict) -> None:
    """precision_recall.png, and frames.png: the nine frames with most objects, truth thin, detections >= 0.3 bold."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    recall = np.linspace(0, 1, 101)
    figure, axes = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for label, curve in _precision_curves(results, data).items():
        name = CLASS_NAMES[label]
        axes.plot(recall, curve, color=_rgb(label), label=f"{name}  {figures['ap50'][name]:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=f"{figures['model']}, IoU 0.5")
    axes.legend(title="AP50", frameon=False)
    save_plot(folder / "precision_recall.png", figure, dpi=120)
    pyplot.close(figure)

    count = {r["id"]: 0 for r in data.coco["images"]}
    for a in data.coco["annotations"]:
        count[a["image_id"]] += not a["iscrowd"]
    chosen = sorted(zip(data.coco["images"], data.paths), key=lambda pair: -count[pair[0]["id"]])[:9]
    tiles = []
    for record, path in chosen:
        tile = read_picture(path, cv2.IMREAD_COLOR)
        for a in data.coco["annotations"]:
            if a["image_id"] == record["id"]:
                _draw(tile, a["bbox"], (255, 255, 255), 1)
        for r in results:
            if r["image_id"] == record["id"] and r["score"] >= 0.3:
                _draw(tile, r["bbox"], CLASS_COLOURS_BGR[r["category_id"]], 2)
        tiles.append(cv2.resize(tile, (640, 512)))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    rows = [cv2.hconcat(tiles[i:i + 3]) for i in range(0, len(tiles), 3)]
    save_picture(folder / "frames.png", cv2.vconcat(rows))


def _rgb(label: int) -> tuple[float, ...]:
    return tuple(value / 255 for value in CLASS_COLOURS_BGR[label][::-1])


def _draw(image: np.ndarray, xywh: Sequence[float], colour: tuple[int, int, int], thickness: int) -> None:
    x, y, w, h = xywh
    cv2.rectangle(image, (round(x), round(y)), (round(x + w), round(y + h)), colour, thickness)
