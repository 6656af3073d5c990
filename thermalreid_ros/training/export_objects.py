"""Synthesis, embedding, baselines to ONNX with their cards: raw pictures go in, degrees and unit vectors come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thermalreid_ros.camera.crops import MARGIN
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.training.baselines import load_weights as load_baseline
from thermalreid_ros.training.embedding import colour_batch
from thermalreid_ros.training.embedding import load_weights as load_embedding
from thermalreid_ros.training.lengths import LengthNetwork
from thermalreid_ros.training.lengths import load_weights as load_length
from thermalreid_ros.training.onnx_file import export_onnx
from thermalreid_ros.training.pairs import Pairs, celsius, cut, middle_squares
from thermalreid_ros.training.synthesis import SIZE_PX, Generators, make_batch
from thermalreid_ros.training.synthesis import load_weights as load_generators
from thermalreid_ros.training.synthesizers import EXCESS_SCALE_K, MEAN_SCALE_K, RELATIVE_SCALE_K, conditions_of

MAX_DIFFERENCE = 1e-3  # ONNX against torch, in units of the outputs' scales
_LEAST_TOLD = 1 / 3  # share of the variance of a class's lengths: where less is told, over other towns it misleads
_EMBEDDING = "MobileNetV2 to its tenth block, first convolution and last layer of each band; traits as in PLDA"
_BASELINES = {
    "vrai": "VRAI: ResNet-50 of width {width:g}, features averaged and pooled by weighted parts, a BNNeck for both, ",
    "bot_bs": "BoT-BS: ResNet-50 of width {width:g}, last stride 1, averaged features, BNNeck, "}
_BANDS = {"visible": "learned on photographs alone; thermal crops as grey pictures",
          "cross": "learned across bands, with one first convolution and one neck for each"}


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
    """An EmbeddingNetwork or BaselineNetwork as it flies: see reid.embedding.Embedder for its inputs and outputs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor, thermal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network.flown(pictures, thermal)


class LengthExport(nn.Module):
    """A LengthNetwork as it flies: see reid.photograph_length.LengthTeller."""

    def __init__(self, network: LengthNetwork):
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(pictures),)


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


def export_embedding(network: nn.Module, out: Path, *, photographs: Iterable[np.ndarray],
                     thermal: Iterable[np.ndarray], architecture: str = _EMBEDDING, **facts: Any) -> float:
    """Write a model for reid.embedding.Embedder and its card; returns the largest difference from torch.

    photographs: uint8 (S, S, 3); thermal: float32 (S, S) degrees Celsius; squares to compare on.
    """
    size = network.size_px
    card = {
        "task": "embedding", "architecture": architecture,
        "inputs": [{"name": "pictures", "shape": ["count", 3, size, size], "layout": "NCHW",
                    "typical_shape": [8, 3, size, size],
                    "channels": ["RGB, 0 to 255, or degrees Celsius thrice; normalised in the graph"]},
                   {"name": "thermal", "shape": ["count"], "typical_shape": [8]}],
        "outputs": [{"name": "embedding", "shape": ["count", network.dimensions],
                     "meaning": "unit vectors; distance = 1 - dot"},
                    {"name": "classes", "shape": ["count", len(CLASS_NAMES)], "meaning": "probabilities of classes"}],
        "classes": list(CLASS_NAMES), "crop_margin": MARGIN,
    }
    return _export(EmbeddingExport(network), out, embedding_inputs(photographs, thermal), card, **facts)


def embedding_inputs(photographs: Iterable[np.ndarray], thermal: Iterable[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Each picture, as of export_embedding, as an EmbeddingExport and its model take it."""
    return [{"pictures": np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32)),
             "thermal": np.zeros(1, np.float32)} for picture in photographs] + [
            {"pictures": np.repeat(np.float32(crop)[None, None], 3, axis=1), "thermal": np.ones(1, np.float32)}
            for crop in thermal]


def export_length(network: LengthNetwork, out: Path, *, photographs: Iterable[np.ndarray],
                  told: Iterable[str] = CLASS_NAMES, **facts: Any) -> float:
    """Write a model for reid.photograph_length.LengthTeller and its card; returns the largest difference from torch.

    photographs: uint8 (S, S, 3); squares to compare on. told: classes whose lengths it tells.
    """
    size = network.size_px
    card = {
        "task": "length", "architecture": "MobileNetV2 to its tenth block, mean and maximum, one layer",
        "inputs": [{"name": "pictures", "shape": ["count", 3, size, size], "layout": "NCHW",
                    "typical_shape": [2, 3, size, size], "channels": ["RGB, 0 to 255; normalised in the graph"]}],
        "outputs": [{"name": "length", "shape": ["count", len(CLASS_NAMES), 2], "meaning": "for each class, were the "
                     "object of it: ln of the longest side in metres, ln of the standard deviation of that"}],
        "classes": list(CLASS_NAMES), "crop_margin": MARGIN,
        "lengths": {name: {"mean": round(float(network.mean[k]), 4), "spread": round(float(network.spread[k]), 4)}
                    for k, name in enumerate(CLASS_NAMES) if name in told},
    }
    inputs = [{"pictures": np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32))}
              for picture in photographs]
    return _export(LengthExport(network), out, inputs, card, **facts)


def export_trained(pairs: Pairs, out: Path, *, synthesis: Path | None, embedding: Path | None,
                   length: Path | None = None, about: Mapping[str, Any], data_from: str,
                   int8: bool = False) -> dict[Path, float]:
    """Export what `train synthesis`, `train embedding` and `train length` left in weights.pt, with the figures measured
    there, to models in the folder out: {model: largest difference from torch}. pairs: to compare on, from a set that
    data_from names. about: data, licence and command, for the cards. int8: store the large weights so."""
    rows = seen_from_above(pairs)
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
        photographs, thermal = crops_of(pairs, rows, network.size_px)
        written[out / "reid_embedding.onnx"] = export_embedding(
            network, out / "reid_embedding.onnx", photographs=photographs, thermal=thermal, int8=int8,
            **_facts(state, about, _ranks(state), f"{len(rows)} crops of each band of {data_from}"))
    if length is not None:
        network, state = load_length(length)
        told = [name for name, own in state["metrics"]["held_out"].items()
                if own["error"] ** 2 <= (1.0 - _LEAST_TOLD) * own["spread"] ** 2]
        shares = [{"name": f"{figure} of ln of the length, {name}", "value": own[figure]}
                  for name, own in state["metrics"]["held_out"].items() for figure in ("spread", "error")]
        written[out / "photograph_length.onnx"] = export_length(
            network, out / "photograph_length.onnx", photographs=crops_of(pairs, rows, network.size_px)[0], int8=int8,
            told=told, **_facts(state, about, shares, f"{len(rows)} photographs of {data_from}"))
    return written


def export_baseline(weights: Path, pairs: Pairs, out: Path, *, about: Mapping[str, Any], data_from: str,
                    int8: bool = False) -> float:
    """Export what `train baseline` left in weights.pt to a model out (.onnx) that Embedder runs; returns the largest
    difference from torch. pairs, about, data_from, int8: as of export_trained."""
    network, state = load_baseline(weights)
    recipe, rows = state["recipe"], seen_from_above(pairs)
    photographs, thermal = crops_of(pairs, rows, network.size_px)
    return export_embedding(
        network, out, photographs=photographs, thermal=thermal, int8=int8,
        architecture=_BASELINES[recipe["network"]].format(width=recipe["width"]) + _BANDS[recipe["bands"]],
        **_facts(state, about, _ranks(state), f"{len(rows)} crops of each band of {data_from}"))


def seen_from_above(pairs: Pairs, most: int = 8) -> torch.Tensor:
    """Numbers of the first pairs whose object a drone saw: of an empty crop the contrast, which the networks see, is
    rounding alone. ThermalReidError where it saw none."""
    seen = torch.nonzero(pairs.drone_px[:, :1] > 0)[:most, 0]
    if not len(seen):
        raise ThermalReidError("no object of these pairs was seen by a drone; make some with `thermalreid world pairs` "
                               "without --drone 0")
    return seen


def crops_of(pairs: Pairs, rows: torch.Tensor, size_px: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photographs and thermal crops of some pairs, as export_embedding takes them."""
    seen = cut(celsius(pairs.drone[rows, 0])[:, None], middle_squares(len(rows), rows.device), size_px)
    return [_picture(picture) for picture in colour_batch(pairs, rows, size_px)], list(seen[:, 0].numpy())


def _ranks(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"{figure}, {gallery}", "value": state["metrics"][gallery][figure]}
            for gallery in ("mixed", "same_class") if gallery in state["metrics"] for figure in ("r1", "r5", "nauc20")]


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

    training, metrics: of the card. extra: further facts on it. int8, and the ThermalReidError where ONNX differs by
    more than MAX_DIFFERENCE: as of export_onnx.
    """
    arguments = [torch.from_numpy(inputs[0][spec["name"]]) for spec in card["inputs"]]
    return export_onnx(
        module, out, arguments=arguments, int8=int8, limit=MAX_DIFFERENCE, compared_on=data_from,
        card={**card, "training": dict(training), "metrics": list(metrics), **(extra or {})},
        compare=lambda own, model: {"max_abs_difference": difference(own, model, inputs, [
            spec["name"] for spec in card["outputs"]])},
    )["max_abs_difference"]


def difference(module: nn.Module, model: Path, inputs: list[dict[str, np.ndarray]], outputs: Sequence[str]) -> float:
    """Largest difference of any of a model's outputs from those of a module, temperatures in units of MEAN_SCALE_K.
    inputs: each by name, in the module's order."""
    engine, worst = load_engine(model, providers=("cpu",)), 0.0
    for feed in inputs:
        out = engine.run(feed)
        with torch.no_grad():
            expected = module(*map(torch.from_numpy, feed.values()))
        for name, values in zip(outputs, expected):
            scale = MEAN_SCALE_K if name == "temperature" else 1.0
            worst = max(worst, float(np.abs(out[name] - values.numpy()).max()) / scale)
    return worst
