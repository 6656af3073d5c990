"""Segmentation quality against rendered masks: IoU per class, confusion, time per frame."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.camera.thermal import FrameError, ThermalFrame, ThermalUnits, make_frame
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.confusion import count_pixels, figures, mean_over_towns
from thermalreid_ros.evaluation.pictures import save_picture, save_plot
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.localization.types import SemanticMask
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB, CLASS_COUNT, CLASS_NAMES

_SHOWN = 6  # frames of the picture


@dataclass(frozen=True)
class LabelledSet:
    """Frames (thermal grey, radiometric or colour), their masks and records, in the annotations' order."""

    frames: tuple[Path, ...]
    masks: tuple[Path, ...]
    records: tuple[dict, ...]


def read_labelled_set(images: Path, annotations: Path, masks: Path | None = None) -> LabelledSet:
    """A split of a data set. masks: where its masks lie, by default masks/semantic beside the folder of `images`
    (SET/images/thermal, thermal16 or colour). Raises ThermalReidError naming the file, before any frame is read."""
    masks = masks or images.parent.parent / "masks" / "semantic"
    try:
        records = tuple(json.loads(annotations.read_text())["images"])
        names = [Path(record["file_name"]) for record in records]
    except OSError as error:
        raise ThermalReidError(f"{annotations}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ThermalReidError(f"{annotations}: no COCO file ({type(error).__name__}: {error})") from None
    if not records:
        raise ThermalReidError(f"{annotations}: no frames")
    found = {}
    for kind, folder in (("frame", images), ("mask", masks)):
        found[kind] = [
            next((path for suffix in (name.suffix, ".png", ".jpg", ".webp")
                  if (path := folder / name.with_suffix(suffix)).is_file()), folder / name) for name in names]
        if missing := next((path for path in found[kind] if not path.is_file()), None):
            raise ThermalReidError(f"{missing}: not there, but listed in {annotations}; check "
                                   f"--{'images' if kind == 'frame' else 'masks'}")
    return LabelledSet(tuple(found["frame"]), tuple(found["mask"]), records)


def read_frame(path: Path) -> np.ndarray | ThermalFrame:
    """A picture of a data set: of 8 bits as uint8 (H, W) or, in colour, (H, W, 3) RGB; of 16 bits (images/thermal16) as
    the radiometric frame that it is, in centikelvin."""
    image = read_picture(path)
    if image.dtype == np.uint16 and image.ndim == 2:
        try:
            return make_frame(image, "mono16", ThermalUnits.CENTIKELVIN, 0, "")
        except FrameError as error:
            raise ThermalReidError(f"{path}: {error}") from None
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)):
        raise ThermalReidError(f"{path}: not an image of 8 bits, grey or colour, or of 16 bits, grey")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])


def read_mask(path: Path) -> np.ndarray:
    """uint8 (H, W), SemanticClass, 255 = not to be judged."""
    mask = read_picture(path)
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ThermalReidError(f"{path}: not a mask of one 8-bit channel")
    return mask


def at_frame_size(mask: SemanticMask) -> np.ndarray:
    """The labelling enlarged to its frame, (height, width)."""
    return cv2.resize(mask.labels, (mask.width, mask.height), interpolation=cv2.INTER_NEAREST_EXACT)


def evaluate_segmentation(segmenter: Segmenter, data: LabelledSet,
                          progress: Callable[[Sequence], Iterable] = iter) -> dict:
    """evaluation.confusion.figures over all pixels of the frames at their own size; confusion_of_towns: mean_over_towns
    by the records' `map`; median_ms of whole segment() calls; `night` and `day`: mIoU and frames of either, where the
    records tell them apart."""
    counts = np.zeros((2, CLASS_COUNT, CLASS_COUNT), np.int64)
    of_town: dict[str, np.ndarray] = {}
    times_ms, frames = [], [0, 0]
    for k in progress(range(len(data.frames))):
        frame, truth = read_frame(data.frames[k]), read_mask(data.masks[k])
        if truth.shape != (size := (frame.raw if isinstance(frame, ThermalFrame) else frame).shape[:2]):
            raise ThermalReidError(f"{data.masks[k]}: {truth.shape[1]}x{truth.shape[0]} px, its frame "
                                   f"{size[1]}x{size[0]}; check --masks")
        started = time.perf_counter()
        mask = segmenter.segment(frame)
        times_ms.append(1e3 * (time.perf_counter() - started))
        night = int(bool(data.records[k].get("night")))
        own = count_pixels(truth, at_frame_size(mask))
        counts[night] += own
        town = str(data.records[k].get("map"))
        of_town[town] = of_town.get(town, 0) + own
        frames[night] += 1
    found = {**figures(counts.sum(0)), "confusion_of_towns": np.round(mean_over_towns([*of_town.values()]), 5).tolist(),
             "frames": len(times_ms), "median_ms": float(np.median(times_ms)),
             "model": segmenter.engine.card.name, "provider": segmenter.engine.provider}
    for night, name in enumerate(("day", "night")):
        if all(frames):
            found[name] = {"miou": figures(counts[night])["miou"], "frames": frames[night]}
    return found


def write_plots(folder: Path, segmenter: Segmenter, data: LabelledSet, found: dict) -> None:
    """frames.png: frames, their truth and their labelling, one below the other; iou.png: IoU by class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[:CLASS_COUNT] = CLASS_COLOURS_RGB
    columns = []
    for k in np.unique(np.linspace(0, len(data.frames) - 1, _SHOWN).round().astype(int)):
        frame = read_frame(data.frames[k])
        grey = frame.gray8() if isinstance(frame, ThermalFrame) else frame
        shown = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, 2)
        parts = (shown, palette[read_mask(data.masks[k])], palette[at_frame_size(segmenter.segment(frame))])
        columns.append(np.vstack([cv2.resize(part, (320, 256), interpolation=cv2.INTER_AREA) for part in parts]))
    save_picture(folder / "frames.png", np.ascontiguousarray(np.hstack(columns)[..., ::-1]))

    names = [name for name in CLASS_NAMES if found["iou"][name] is not None]
    values = [found["iou"][name] for name in names]
    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    bars = axes.bar(names, values, color=[np.array(CLASS_COLOURS_RGB[CLASS_NAMES.index(name)]) / 255 for name in names])
    axes.bar_label(bars, fmt="%.2f")
    axes.axhline(found["miou"], color="0.3", linewidth=1)
    axes.set(ylim=(0, 1.05), ylabel="IoU",
             title=f"{found['model']}: mIoU {found['miou']:.3f}, {found['frames']} frames")
    save_plot(folder / "iou.png", figure, dpi=120)
    pyplot.close(figure)
