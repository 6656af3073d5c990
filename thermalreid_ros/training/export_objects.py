"""Synthesis and embedding to ONNX with their cards: raw pictures go in, degrees and unit vectors come out."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.camera.crops import MARGIN
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import load_engine
from thermalreid_ros.engine.packing import pack_fp16_initializers, pack_int8_initializers, stored, write_card
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.training.embedding import DIMENSIONS, EmbeddingNetwork, colour_batch
from thermalreid_ros.training.embedding import SIZE_PX as EMBEDDING_PX
from thermalreid_ros.training.embedding import load_weights as load_embedding
from thermalreid_ros.training.export import fold_normalisation
from thermalreid_ros.training.pairs import Pairs, celsius, cut, middle_squares
from thermalreid_ros.training.synthesis import SIZE_PX, Generators, make_batch
from thermalreid_ros.training.synthesis import load_weights as load_generators
from thermalreid_ros.training.synthesizers import EXCESS_SCALE_K, MEAN_SCALE_K, RELATIVE_SCALE_K, conditions_of

OPSET = 17
MAX_DIFFERENCE = 1e-3  # ONNX against torch, in units of the outputs' scales


class ThermalGanExport(nn.Module):
    """ThermalGAN as it flies: see synthesis.ProbeSynthesizer for its inputs and outputs."""

    def __init__(self, generators: Generators):
        super().__init__()
        self.mean, self.relative = generators.mean, generators.relative

    def forward(self, colour: torch.Tensor, conditions: torch.Tensor,
                offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picture = colour.float() / 127.5 - 1.0
        level, logit = self.mean(picture)
        level = (level + offset.view(-1, 1, 1, 1) / MEAN_SCALE_K).clamp(-1.0, 1.0)
        relative = self.relative(level, picture.expand(level.shape[0], -1, -1, -1))
        air = conditions[:, 1].view(-1, 1, 1, 1)
        return (air + MEAN_SCALE_K * level + RELATIVE_SCALE_K * relative)[:, 0], logit.sigmoid()[:, 0]


class ConditionalExport(nn.Module):
    """The conditional generator as it flies: see synthesis.ProbeSynthesizer for its inputs and outputs."""

    def __init__(self, generators: Generators):
        super().__init__()
        self.net = generators.conditional

    def forward(self, colour: torch.Tensor, conditions: torch.Tensor,
                offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picture = (colour.float() / 127.5 - 1.0).expand(conditions.shape[0], -1, -1, -1)
        made, logit = self.net(picture, conditions_of(*conditions.unbind(1)))
        air = conditions[:, 1].view(-1, 1, 1, 1)
        # The object is moved, its surroundings stay.
        mask = logit.sigmoid()
        return (air + EXCESS_SCALE_K * made + mask * offset.view(-1, 1, 1, 1))[:, 0], mask[:1, 0]


class EmbeddingExport(nn.Module):
    """The embedding as it flies: see reid.embedding.Embedder for its inputs and outputs."""

    def __init__(self, network: EmbeddingNetwork):
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor, thermal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        net = self.network
        # Both first convolutions and both necks run: they cost little, and one graph serves both bands.
        hot = thermal.view(-1, 1) > 0.5
        pooled = net.pooled(torch.where(hot[..., None, None], net.stems[1](net.thermal_channels(pictures[:, :1])),
                                        net.stems[0](net.colour_channels(pictures))))
        neck = torch.where(hot, net.necks[1](pooled), net.necks[0](pooled))
        return F.normalize(neck), net.classes(neck).softmax(1)


def export_thermalgan(generators: Generators, out: Path, *, photographs: Iterable[np.ndarray], **facts: Any) -> float:
    """Write thermalgan.onnx and its card; returns the largest difference from torch, in kelvin / 40 and mask.

    photographs: uint8 (S, S, 3), squares to compare on. facts: as of `_export`.
    """
    return _export(ThermalGanExport(generators), out, _synthesis_inputs(photographs), _synthesis_card(
        "ThermalGAN: two U-Net generators, colour to mean temperature and to relative temperature"), **facts)


def export_conditional(generators: Generators, out: Path, *, photographs: Iterable[np.ndarray], **facts: Any) -> float:
    """Write thermal_synthesis.onnx and its card; arguments as of export_thermalgan."""
    return _export(ConditionalExport(generators), out, _synthesis_inputs(photographs), _synthesis_card(
        "U-Net generator with hour and weather as conditions (FiLM)"), **facts)


def export_embedding(network: EmbeddingNetwork, out: Path, *, photographs: Iterable[np.ndarray],
                     thermal: Iterable[np.ndarray], **facts: Any) -> float:
    """Write reid_embedding.onnx and its card; returns the largest difference from torch.

    photographs: uint8 (S, S, 3); thermal: float32 (S, S) degrees Celsius; squares to compare on.
    """
    inputs = [{"pictures": np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32)),
               "thermal": np.zeros(1, np.float32)} for picture in photographs]
    inputs += [{"pictures": np.repeat(np.float32(crop)[None, None], 3, axis=1), "thermal": np.ones(1, np.float32)}
               for crop in thermal]
    card = {
        "task": "embedding",
        "architecture": "MobileNetV2 of width 0.5 with one first convolution per band, GeM pooling, BNNeck",
        "inputs": [{"name": "pictures", "shape": ["count", 3, EMBEDDING_PX, EMBEDDING_PX], "layout": "NCHW",
                    "typical_shape": [8, 3, EMBEDDING_PX, EMBEDDING_PX],
                    "channels": ["RGB, 0 to 255, or degrees Celsius thrice; normalised in the graph"]},
                   {"name": "thermal", "shape": ["count"], "typical_shape": [8]}],
        "outputs": [{"name": "embedding", "shape": ["count", DIMENSIONS],
                     "meaning": "unit vectors; distance = 1 - dot"},
                    {"name": "classes", "shape": ["count", len(CLASS_NAMES)], "meaning": "probabilities of classes"}],
        "classes": list(CLASS_NAMES), "crop_margin": MARGIN,
    }
    return _export(EmbeddingExport(network), out, inputs, card, **facts)


def export_trained(pairs: Pairs, out: Path, *, synthesis: Path | None, embedding: Path | None,
                   about: Mapping[str, Any], data_from: str, int8: bool = False) -> dict[Path, float]:
    """Export what `train synthesis` and `train embedding` left in weights.pt, with the figures measured there, to
    models in the folder out: {model: largest difference from torch}. pairs: to compare on, from a set that data_from
    names. about: data, licence and command, for the cards. int8: store the large weights so."""
    rows = torch.arange(min(len(pairs), 8))
    written: dict[Path, float] = {}
    if synthesis is not None:
        generators, state = load_generators(synthesis)
        colour = make_batch(pairs, rows, False).colour
        photographs = [_picture(picture) for picture in (colour + 1.0) * 127.5]
        for name, key, export in (("thermalgan", "thermalgan", export_thermalgan),
                                  ("thermal_synthesis", "conditional", export_conditional)):
            own = state["metrics"].get(key, {})
            offsets = dict(own.get("mean_offsets_k", {}))
            if offsets:
                offsets["any"] = [round(float(v), 3) for v in np.mean(list(offsets.values()), axis=0)]
            shares = [{"name": f"{figure}, {when} instant", "value": own[when][figure]} for when in ("first", "second")
                      if when in own for figure in ("ssim", "mask_iou")]
            errors = {when: {figure: value for figure, value in own[when].items() if "_k" in figure}
                      for when in ("first", "second") if when in own}
            written[out / f"{name}.onnx"] = export(
                generators, out / f"{name}.onnx", photographs=photographs,
                **_facts(state, about, shares, f"{len(rows)} photographs of {data_from}"),
                int8=int8, extra={"mean_offsets_k": offsets, "errors_k": errors})
    if embedding is not None:
        network, state = load_embedding(embedding)
        photographs = [_picture(picture) for picture in colour_batch(pairs, rows, EMBEDDING_PX)]
        seen = celsius(pairs.drone[rows, 0])[:, None]
        thermal = list(cut(seen, middle_squares(len(rows), seen.device), EMBEDDING_PX)[:, 0].numpy())
        shares = [{"name": f"{figure}, {gallery}", "value": state["metrics"][gallery][figure]}
                  for gallery in ("mixed", "same_class") if gallery in state["metrics"]
                  for figure in ("r1", "r5", "nauc20")]
        written[out / "reid_embedding.onnx"] = export_embedding(
            network, out / "reid_embedding.onnx", photographs=photographs, thermal=thermal, int8=int8,
            **_facts(state, about, shares, f"{len(rows)} crops of each band of {data_from}"))
    return written


def _facts(state: Mapping[str, Any], about: Mapping[str, Any], shares: list[dict[str, Any]],
           data_from: str) -> dict[str, Any]:
    training = state["metrics"].get("training", {})
    held_out = f"identities held out of the training set ({training.get('identities', 0)} trained on)"
    return {"data_from": data_from, "training": {**about, **training, "recipe": state["recipe"]},
            "metrics": [{**share, "data": held_out, "command": about["command"]} for share in shares]}


def _picture(colour: torch.Tensor) -> np.ndarray:
    """uint8 (S, S, 3) of (3, S, S), 0 to 255."""
    return np.ascontiguousarray(colour.round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8).numpy())


def _synthesis_inputs(photographs: Iterable[np.ndarray]) -> list[dict[str, np.ndarray]]:
    conditions = np.float32([[14.0, 24.0, 0.2, 0.7], [2.0, 3.0, 0.6, -0.5]])
    return [{"colour": np.ascontiguousarray(picture.transpose(2, 0, 1)[None]), "conditions": conditions,
             "offset": np.float32([0.0, 4.0])} for picture in photographs]


def _synthesis_card(architecture: str) -> dict[str, Any]:
    return {
        "task": "synthesis", "architecture": architecture,
        "inputs": [{"name": "colour", "shape": [1, 3, SIZE_PX, SIZE_PX], "dtype": "uint8", "layout": "NCHW",
                    "channels": ["red", "green", "blue"]},
                   {"name": "conditions", "shape": ["count", 4], "typical_shape": [5, 4],
                    "channels": ["solar hour", "air temperature in degrees Celsius", "cloud cover, 0 to 1",
                                 "sine of the sun's elevation"]},
                   {"name": "offset", "shape": ["count"], "typical_shape": [5],
                    "channels": ["kelvin that the object's mean temperature is moved by"]}],
        "outputs": [{"name": "temperature", "shape": ["count", SIZE_PX, SIZE_PX], "meaning": "degrees Celsius"},
                    {"name": "mask", "shape": [1, SIZE_PX, SIZE_PX], "meaning": "0 to 1, where the object is"}],
        "crop_margin": MARGIN,
        "scales_k": {"mean": MEAN_SCALE_K, "relative": RELATIVE_SCALE_K, "excess": EXCESS_SCALE_K},
    }


def _export(module: nn.Module, out: Path, inputs: list[dict[str, np.ndarray]], card: Mapping[str, Any], *,
            data_from: str, training: Mapping[str, Any], metrics: Iterable[Mapping[str, Any]] = (),
            extra: Mapping[str, Any] | None = None, int8: bool = False) -> float:
    """Write a network and its card; returns the largest difference from torch over `inputs`, which data_from names.

    training, metrics: of the card. extra: further facts on it. int8: store the large weights so. Raises
    ThermalReidError, and leaves no file, where ONNX differs by more than MAX_DIFFERENCE.
    """
    trained = copy.deepcopy(module).cpu().eval().to(memory_format=torch.contiguous_format)
    module = copy.deepcopy(trained)
    fold_normalisation(module)
    parameters = sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.from_numpy(stored(weight.numpy(), int8=int8)))
    names = [spec["name"] for spec in card["inputs"]]
    made = [spec["name"] for spec in card["outputs"]]
    free = {spec["name"]: {axis: size for axis, size in enumerate(spec["shape"]) if isinstance(size, str)}
            for spec in (*card["inputs"], *card["outputs"])}
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder) / out.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on constant shapes
            torch.onnx.export(module, tuple(torch.from_numpy(inputs[0][name]) for name in names), str(draft),
                              input_names=names, output_names=made, opset_version=OPSET, dynamo=False,
                              dynamic_axes={name: axes for name, axes in free.items() if axes})
        (pack_int8_initializers if int8 else pack_fp16_initializers)(draft)
        card = {"name": out.stem, **card, "opset": OPSET,
                "precision": f"fp32, weights stored as {'int8 and ' if int8 else ''}fp16",
                "training": dict(training), "metrics": list(metrics), "parameters": parameters, **(extra or {})}
        write_card(draft, card)
        difference = _difference(module, draft, inputs, names, made)
        if difference > MAX_DIFFERENCE:
            raise ThermalReidError(f"{out}: ONNX differs from torch by {difference:.1e}, more than "
                                   f"{MAX_DIFFERENCE:.0e}; not written")
        rounding = _difference(trained, draft, inputs, names, made)
        card["parity"] = {"max_abs_difference": float(f"{difference:.2e}"), "data": data_from,
                          "rounding_difference": float(f"{rounding:.2e}")}
        write_card(draft, card)
        for suffix in (".onnx", ".yaml"):
            os.replace(draft.with_suffix(suffix), out.with_suffix(suffix))
    return difference


def _difference(module: Callable, model: Path, inputs: list[dict[str, np.ndarray]], names: list[str],
                made: list[str]) -> float:
    """Largest difference of any output, temperatures in units of MEAN_SCALE_K."""
    engine, worst = load_engine(model, providers=("cpu",)), 0.0
    for feed in inputs:
        out = engine.run(feed)
        with torch.no_grad():
            expected = module(*(torch.from_numpy(feed[name]) for name in names))
        for name, values in zip(made, expected):
            scale = MEAN_SCALE_K if name == "temperature" else 1.0
            worst = max(worst, float(np.abs(out[name] - values.numpy()).max()) / scale)
    return worst
