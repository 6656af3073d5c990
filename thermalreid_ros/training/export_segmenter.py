"""Segmenters to ONNX: labels and confidence come out of the graph, parity with torch is measured on frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thermalreid_ros.camera.thermal import ThermalFrame
from thermalreid_ros.engine import load_engine
from thermalreid_ros.maps.classes import CLASS_NAMES
from thermalreid_ros.training.labellings import SIZE_PX, channels
from thermalreid_ros.training.onnx_file import export_onnx
from thermalreid_ros.training.segmenters import LEVEL_MEAN, LEVEL_STD

MAX_DIFFERENCE = 1e-3  # share of a frame's pixels


class SegmenterExport(nn.Module):
    """A segmenter as it flies: uint8 RGB in; each pixel's most probable class and that probability x 255 out."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # by planes: softmax and argmax over the second axis take several times as long on a CPU
        planes = self.network(image.float()).unbind(1)
        best, label = planes[0], torch.zeros_like(planes[0])
        for number, plane in enumerate(planes[1:], 1):
            label = torch.maximum(label, number * (plane > best).float())  # a later winner has the larger number
            best = torch.maximum(best, plane)
        total = sum(torch.exp(plane - best) for plane in planes)
        return label.to(torch.uint8), (255.0 / total).round().to(torch.uint8)


def export_segmenter(network: nn.Module, out: Path, *, frames: Iterable[np.ndarray | ThermalFrame], frames_from: str,
                     training: Mapping[str, Any], evaluation: Mapping[str, Any],
                     size_px: tuple[int, int] = SIZE_PX, int8: bool = False) -> dict[str, float]:
    """Write out (.onnx) and its card; returns what `parity` found.

    frames: as evaluation.segmentation.read_frame gives them, to compare on, from a place `frames_from` names; they are
    reduced to size_px. int8: as of export_onnx. evaluation: as training.segmentation.evaluate gives it, may be empty;
    the card's `confusion` is that of grey thermal frames, `confusion_radiometric` that of radiometric ones, which the
    card then says that the network was trained on (`radiometric`). Raises ThermalReidError, and leaves no file, where
    more than MAX_DIFFERENCE of a frame's pixels differ.
    """
    pictures = [channels(frame, size_px)[None] for frame in frames]
    width, height = size_px
    card = {
        "task": "segmentation", "architecture": type(network).__name__,
        "inputs": [{"name": "image", "shape": [1, 3, "height", "width"], "dtype": "uint8", "layout": "NCHW",
                    "mean": [LEVEL_MEAN] * 3, "std": [LEVEL_STD] * 3,
                    "channels": ["red", "green", "blue; of thermal frames grey thrice, or, if radiometric, grey, 8 "
                                 "levels per K above the median, 2 per K above -40 C; normalised in the graph"],
                    "typical_shape": [1, 3, height, width]}],
        "outputs": [
            {"name": "labels", "shape": [1, "height", "width"], "dtype": "uint8", "meaning": "index into classes"},
            {"name": "confidence", "shape": [1, "height", "width"], "dtype": "uint8",
             "meaning": "probability of the label, 255 = 1"}],
        "classes": list(CLASS_NAMES), "strides": [network.stride_multiple], "training": dict(training),
        "metrics": _metrics(evaluation, training),
        "radiometric": bool(training.get("radiometric")),
        **{key: evaluation[band]["confusion"] for key, band in (
            ("confusion", "thermal"), ("confusion_radiometric", "radiometric")) if band in evaluation},
    }
    return export_onnx(
        SegmenterExport(network), out, arguments=(torch.zeros(1, 3, height, width, dtype=torch.uint8),), card=card,
        int8=int8, limit=MAX_DIFFERENCE, unit=" of a frame's pixels", compared_on=frames_from,
        compare=lambda module, model: parity(module, model, pictures),
        meaning="max_abs_difference: largest share of a frame's pixels with another label, or confidence more than one "
                "level away")


def parity(wrapped: SegmenterExport, model: Path, pictures: Iterable[np.ndarray]) -> dict[str, float]:
    """Torch against ONNX Runtime on the CPU over pictures (1, 3, H, W) uint8. max_abs_difference: the largest share of
    a picture's pixels whose label differs or whose confidence differs by more than one level; labels_agreement: share
    of all pixels; confidence_difference: the largest, 0 to 1."""
    engine = load_engine(model, providers=("cpu",))
    worst, largest, agreeing = 0.0, 0, []
    for picture in pictures:
        out = engine.run({"image": picture})
        with torch.no_grad():
            labels, confidence = (t.numpy() for t in wrapped(torch.from_numpy(picture)))
        same = labels == out["labels"]
        gap = np.abs(confidence.astype(np.int16) - out["confidence"])
        worst = max(worst, float((~same | (gap > 1)).mean()))
        largest = max(largest, int(gap.max()))
        agreeing.append(float(same.mean()))
    return {"max_abs_difference": worst, "labels_agreement": float(np.mean(agreeing)),
            "confidence_difference": largest / 255}


def _metrics(evaluation: Mapping[str, Any], training: Mapping[str, Any]) -> list[dict[str, Any]]:
    metrics = []
    for band, found in evaluation.items():
        facts = {"data": f"val split of the training data, other districts, {found['frames']} {band} frames reduced to "
                         "the network's size", "command": training.get("command", "")}
        values = {f"IoU {name}": value for name, value in found["iou"].items() if value is not None}
        metrics += [{"name": f"{name}, {band}", "value": round(value, 4), **facts}
                    for name, value in {**values, "mIoU": found["miou"]}.items()]
    return metrics
