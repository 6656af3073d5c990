"""Segmenters to ONNX: labels and confidence come out of the graph, parity with torch is measured on frames."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thermalreid_ros.engine import load_engine
from thermalreid_ros.engine.packing import pack_fp16_initializers, pack_int8_initializers, stored, write_card
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import CLASS_NAMES
from thermalreid_ros.training.export import OPSET, fold_normalisation
from thermalreid_ros.training.labellings import SIZE_PX, reduce_picture
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


def export_segmenter(network: nn.Module, out: Path, *, frames: Iterable[np.ndarray], frames_from: str,
                     training: Mapping[str, Any], evaluation: Mapping[str, Any],
                     size_px: tuple[int, int] = SIZE_PX, int8: bool = False) -> dict[str, float]:
    """Write out (.onnx) and its card; returns what `parity` found.

    frames: (H, W, 3) uint8 RGB to compare on, from a place `frames_from` names; they are reduced to size_px. As in
    export_detector, normalisation is folded and weights are rounded before the comparison, and the card states beside
    it what that changes. int8: store the large weights so. evaluation: as training.segmentation.evaluate gives it, may
    be empty; the card's `confusion` is that of thermal frames. Raises ThermalReidError, and leaves no file, where more
    than MAX_DIFFERENCE of a frame's pixels differ.
    """
    pictures = [np.ascontiguousarray(reduce_picture(frame, size_px).transpose(2, 0, 1)[None]) for frame in frames]
    trained = SegmenterExport(network.cpu().eval().to(memory_format=torch.contiguous_format)).eval()
    rounded = copy.deepcopy(trained)
    fold_normalisation(rounded.network)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(torch.from_numpy(stored(weight.numpy(), int8=int8)))
    width, height = size_px
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / out.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on constant shapes
            torch.onnx.export(rounded, (torch.zeros(1, 3, height, width, dtype=torch.uint8),), str(draft),
                              input_names=["image"], output_names=["labels", "confidence"], opset_version=OPSET,
                              dynamo=False, dynamic_axes={
                                  "image": {2: "height", 3: "width"}, "labels": {1: "height", 2: "width"},
                                  "confidence": {1: "height", 2: "width"}})
        (pack_int8_initializers if int8 else pack_fp16_initializers)(draft)
        card = {
            "name": out.stem, "task": "segmentation", "architecture": type(network).__name__,
            "inputs": [{"name": "image", "shape": [1, 3, "height", "width"], "dtype": "uint8", "layout": "NCHW",
                        "mean": [LEVEL_MEAN] * 3, "std": [LEVEL_STD] * 3,
                        "channels": ["red", "green", "blue; grey thrice for thermal; normalised in the graph"],
                        "typical_shape": [1, 3, height, width]}],
            "outputs": [
                {"name": "labels", "shape": [1, "height", "width"], "dtype": "uint8", "meaning": "index into classes"},
                {"name": "confidence", "shape": [1, "height", "width"], "dtype": "uint8",
                 "meaning": "probability of the label, 255 = 1"}],
            "classes": list(CLASS_NAMES), "strides": [network.stride_multiple], "opset": OPSET,
            "precision": f"fp32, weights stored as {'int8 and ' if int8 else ''}fp16",
            "training": dict(training), "metrics": _metrics(evaluation, training),
            "parameters": sum(p.numel() for p in rounded.parameters()),
        }
        if "thermal" in evaluation:
            card["confusion"] = evaluation["thermal"]["confusion"]
        write_card(draft, card)
        found = parity(rounded, draft, pictures)
        if found["max_abs_difference"] > MAX_DIFFERENCE:
            raise ThermalReidError(f"{out}: {found['max_abs_difference']:.1e} of a frame's pixels differ between ONNX "
                                   f"and torch, more than {MAX_DIFFERENCE:.0e}; not written")
        card["parity"] = {**{key: float(f"{value:.6g}") for key, value in found.items()}, "data": frames_from,
                          "meaning": "max_abs_difference: largest share of a frame's pixels with another label, or "
                                     "confidence more than one level away",
                          "rounding_difference": float(f"{parity(trained, draft, pictures)['max_abs_difference']:.2e}")}
        write_card(draft, card)
        for suffix in (".onnx", ".yaml"):
            os.replace(draft.with_suffix(suffix), out.with_suffix(suffix))
    return found


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
