"""Detectors to ONNX: boxes and scores come out of the graph, parity with torch is measured on real frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import load_engine
from thermalreid_ros.maps.classes import CLASS_NAMES as GROUND_NAMES
from thermalreid_ros.maps.classes import NO_DATA
from thermalreid_ros.training.detectors import GREY_MEAN, GREY_STD, YoloCompact
from thermalreid_ros.training.losses import cell_centres, decode_yolo
from thermalreid_ros.training.onnx_file import export_onnx

MAX_CANDIDATES = 300
MAX_DIFFERENCE = 1e-3  # ONNX against torch: scores, and boxes in pixels relative to the frame's width


class DetectorExport(nn.Module):
    """A detector as it flies: uint8 frame and labelling in, the MAX_CANDIDATES best boxes out, by falling score.

    A cell may be of several classes, a candidate each: where a person is likelier than a dog, it may be a dog still.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, thermal: torch.Tensor, semantics: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        grey = thermal.float()
        out = self.detector(grey, semantics)
        compact = isinstance(self.detector, YoloCompact)
        boxes, scores = self._compact(out) if compact else self._semantic(out)
        # Only cells whose best class is among the best can be among them: sorting those is a quarter of the work.
        _, cell = scores.amax(-1).topk(MAX_CANDIDATES, 1)
        scores = scores.gather(1, cell[..., None].expand(-1, -1, len(CLASS_NAMES)))
        scores, index = scores.flatten(1).topk(MAX_CANDIDATES, 1)
        cell, labels = cell.gather(1, index // len(CLASS_NAMES)), index % len(CLASS_NAMES)
        return (boxes.gather(1, cell[..., None].expand(-1, -1, 4)), scores.sigmoid() if compact else scores, labels)

    def _compact(self, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (B, N, 4) and logits of classes (B, N, C)."""
        stride = self.detector.stride
        centres = cell_centres(out.shape[2], out.shape[3], stride, out.device)
        flat = out.flatten(2).transpose(1, 2)
        ltrb = flat[..., len(CLASS_NAMES):] * stride
        return torch.cat((centres - ltrb[..., :2], centres + ltrb[..., 2:]), -1), flat[..., :len(CLASS_NAMES)]

    def _semantic(self, outs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for out, stride, anchor in zip(outs, self.detector.strides, self.detector.anchors):
            boxes, objectness, logits = decode_yolo(out, torch.tensor(anchor, dtype=torch.float32), stride)
            scores = objectness[..., None].sigmoid() * logits.sigmoid()
            parts.append((boxes.flatten(1, 3), scores.flatten(1, 3)))
        return tuple(torch.cat(part, 1) for part in zip(*parts))


def export_detector(detector: nn.Module, out: Path, *, frames: Iterable[np.ndarray], frames_from: str,
                    training: Mapping[str, Any], metrics: Iterable[Mapping[str, Any]] = (),
                    size: tuple[int, int] = (512, 640), int8: bool = False) -> float:
    """Write out (.onnx) and its card; returns the largest difference from torch over the frames.

    frames: (H, W) uint8 real frames to compare on, from a place `frames_from` names. int8, and the ThermalReidError
    where the difference exceeds MAX_DIFFERENCE: as of export_onnx. The comparison is made without a labelling and with
    one of patches.
    """
    frames, stride = list(frames), detector.semantics_stride
    arguments = (torch.zeros(1, 1, *size, dtype=torch.uint8),
                 torch.full((1, 1, *(side // stride for side in size)), NO_DATA, dtype=torch.uint8))
    card = {
        "task": "detection", "architecture": type(detector).__name__,
        "inputs": [
            {"name": "thermal", "shape": [1, 1, "height", "width"], "dtype": "uint8", "layout": "NCHW",
             "mean": [GREY_MEAN], "std": [GREY_STD], "channels": ["grey, white-hot; normalised in the graph"],
             "typical_shape": [1, 1, *size]},
            {"name": "semantics", "shape": [1, 1, "rows", "columns"], "dtype": "uint8", "layout": "NCHW",
             "channels": [f"class of the ground, one value to {stride} x {stride} pixels: "
                          f"{', '.join(f'{i} {name}' for i, name in enumerate(GROUND_NAMES))}; {NO_DATA} unknown"],
             "typical_shape": list(arguments[1].shape)},
        ],
        "outputs": [
            {"name": "boxes", "shape": [1, MAX_CANDIDATES, 4],
             "meaning": "x_min, y_min, x_max, y_max in pixels, edges; best first"},
            {"name": "scores", "shape": [1, MAX_CANDIDATES], "meaning": "0 to 1, falling"},
            {"name": "labels", "shape": [1, MAX_CANDIDATES], "dtype": "int64", "meaning": "index into classes"},
        ],
        "classes": list(CLASS_NAMES), "strides": [detector.stride_multiple], "training": dict(training),
        "metrics": list(metrics),
    }
    return export_onnx(
        DetectorExport(detector), out, arguments=arguments, card=card, int8=int8, limit=MAX_DIFFERENCE,
        compare=lambda module, model: {"max_abs_difference": parity(module, model, frames)}, compared_on=frames_from,
    )["max_abs_difference"]


def patches(size: tuple[int, int], stride: int, known: bool) -> np.ndarray:
    """A labelling of a frame of that (height, width) to measure with, uint8 (1, 1, rows, columns): patches of every
    class and of none, or nothing known."""
    labels = np.full((1, 1, *(side // stride for side in size)), NO_DATA, np.uint8)
    if known:
        rows, columns = np.indices(labels.shape[2:]) * stride // 48
        labels[0, 0] = (rows + 2 * columns) % (len(GROUND_NAMES) + 1)  # the last is no class: unknown
    return labels


def parity(wrapped: DetectorExport, model: Path, frames: Iterable[np.ndarray]) -> float:
    """Largest absolute difference, torch against ONNX Runtime on the CPU, over scores and over box edges as shares
    of the frame's width; each frame once with nothing known of the ground and once with patches of every class.

    Candidates are paired by class, then nearest, since equal scores may be listed in either order; those that score
    under 0.01, or nearly as little as the last listed, are not compared, as the two lists may end differently.
    """
    engine = load_engine(model, providers=("cpu",))
    stride, worst = wrapped.detector.semantics_stride, 0.0
    for frame, known in product(frames, (False, True)):
        inputs = {"thermal": np.ascontiguousarray(frame)[None, None], "semantics": patches(frame.shape, stride, known)}
        out = engine.run(inputs)
        with torch.no_grad():
            expected = [t.numpy() for t in wrapped(*(torch.from_numpy(array) for array in inputs.values()))]
        boxes, scores, labels = (array[0] for array in expected)
        for i in np.flatnonzero(scores > max(0.01, scores[-1] + 0.02)):
            gap = np.maximum(np.abs(out["boxes"][0] - boxes[i]).max(1) / frame.shape[1],
                             np.abs(out["scores"][0] - scores[i]))
            gap[out["labels"][0] != labels[i]] = 1.0
            worst = max(worst, float(gap.min()))
    return worst
