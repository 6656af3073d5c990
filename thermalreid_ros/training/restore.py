"""A shipped model as weights to train on from: export folds normalisation into the convolutions, this unfolds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from thermalreid_ros.engine.engine import open_model
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import grey_frame
from thermalreid_ros.evaluation.segmentation import read_frame
from thermalreid_ros.training import detectors, export, export_objects, export_segmenter, segmenters
from thermalreid_ros.training.baselines import BaselineNetwork
from thermalreid_ros.training.embedding import EmbeddingNetwork
from thermalreid_ros.training.labellings import SIZE_PX, channels
from thermalreid_ros.training.normalisation import hooked, normalised, renormalise
from thermalreid_ros.training.pairs import Pairs
from thermalreid_ros.training.weights import write_state

MAX_DIFFERENCE = 5e-3  # from the shipped model, as the exporters' parity measures it
_COMPARED = 8  # frames, of those that statistics are taken from
_SHOWN = 64  # crops of either band, for statistics of networks that see objects
_UNPACKING = ("Cast", "Mul", "Identity")  # how engine.packing's weights become floats in the graph
_KINDS = {"Conv": "Conv", "BatchNormalization": "BatchNormalization", "Gemm": "Linear", "MatMul": "Linear",
          "Exp": "Exp"}


def stored_layers(path: Path) -> dict[str, list[list[np.ndarray]]]:
    """The float32 parameters of an .onnx file's nodes in the order of its graph: of "Conv" weight and, where it has
    one, bias; of "BatchNormalization" scale, shift, mean and variance; of "Linear" weight (out, in) and bias; of "Exp"
    what it is taken of, where that is a parameter."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: dict[str, list[list[np.ndarray]]] = {kind: [] for kind in _KINDS.values()}
    for node in graph.node:
        kind = node.op_type
        if kind in _UNPACKING and all(name in known for name in node.input):
            values = [known[name].astype(np.float32) for name in node.input]
            known[node.output[0]] = values[0] * values[1] if kind == "Mul" else values[0]
        elif kind == "Exp":
            found[kind] += [[known[name].astype(np.float32)] for name in node.input if name in known]
        elif kind in _KINDS:
            if missing := [name for name in node.input[1:] if name not in known]:
                raise ThermalReidError(f"{path}: {missing[0]}, of a layer of its own, is computed in the graph")
            parameters = [known[name].astype(np.float32) for name in node.input[1:]]
            if kind == "MatMul" or (kind == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)):
                parameters[0] = parameters[0].T
            found[_KINDS[kind]].append(parameters)
    return found


@torch.no_grad()
def unfold(network: nn.Module, path: Path, show: Sequence[Callable[[], object]]) -> dict[str, list[list[np.ndarray]]]:
    """Give a network, in place, the weights of a model that was exported of one like it; returns its stored_layers.

    Layers are taken in the order in which the network calls them, which is that of the exported graph. Where a
    convolution is followed by batch normalisation, this has to give its bias, with the statistics of what `show` shows
    (normalisation.renormalise; each runs the network on a picture). In eval mode the network then computes what the
    model does; in training, on batches of such pictures, nearly that.

    Raises ThermalReidError where the file holds another network.
    """
    network.eval()
    folded = normalised(network)
    called: list[nn.Module] = []
    with hooked(network, lambda layer, *_: called.append(layer)):
        show[0]()
    mine = {"Conv": [layer for layer in called if isinstance(layer, nn.Conv2d)],
            # Called twice with the same input, as of a baseline with one neck for both bands, it is one node.
            "BatchNormalization": [layer for layer in dict.fromkeys(called) if layer not in folded.values()
                                   and isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))],
            "Linear": [layer for layer in called if isinstance(layer, nn.Linear)]}
    theirs = stored_layers(path)
    for kind, layers in mine.items():
        shapes = [tuple(layer.weight.shape) for layer in layers]
        if shapes != [parameters[0].shape for parameters in theirs[kind]]:
            raise ThermalReidError(f"{path}: its {len(theirs[kind])} layers {kind} are not the {len(shapes)} of "
                                   f"{type(network).__name__} in this version")
    for layer, parameters in zip(mine["BatchNormalization"], theirs["BatchNormalization"]):
        for own, values in zip((layer.weight, layer.bias, layer.running_mean, layer.running_var), parameters):
            own.copy_(torch.from_numpy(values))
    for layer, (weight, *bias) in zip(mine["Conv"] + mine["Linear"], theirs["Conv"] + theirs["Linear"]):
        layer.weight.copy_(torch.from_numpy(weight))
        shift = torch.from_numpy(bias[0]) if bias else torch.zeros(len(weight))
        if layer in folded:
            after = folded[layer]
            after.running_mean.zero_()
            after.running_var.fill_(1 - after.eps)
            after.weight.fill_(1.0)
            after.bias.copy_(shift)
        elif layer.bias is not None:
            layer.bias.copy_(shift)
    renormalise(network, show)  # folded normalisation is an addition now, and becomes one
    return theirs


def restore(model: str | Path, frames: Sequence[Path], out: Path) -> float:
    """Write out (weights.pt) of a shipped detector or segmenter, for --start of its training; returns how much the
    network differs from the model, as its exporter's parity has it, on a few of the frames.

    frames: like those that it will be trained on; a detector sees every other one with nothing known of the ground.
    Raises ThermalReidError, and writes nothing, for other models and where the difference exceeds MAX_DIFFERENCE.
    """
    path, card = open_model(model)
    training = card.training
    named = training.get("recipe", {}).get("network")
    if card.task == "segmentation" and named in segmenters.NETWORKS:
        network = segmenters.NETWORKS[named]()
        pictures = [channels(read_frame(frame), SIZE_PX)[None] for frame in frames]
        inputs = [(torch.from_numpy(picture).float(),) for picture in pictures]
        wrapped, parity = export_segmenter.SegmenterExport(network), export_segmenter.parity
    elif card.task == "detection" and named in detectors.NETWORKS:
        network = detectors.NETWORKS[named]()
        pictures = [grey_frame(frame, {}) for frame in frames]
        inputs = [(torch.from_numpy(picture)[None, None].float(),
                   torch.from_numpy(export.patches(picture.shape, network.semantics_stride, known=number % 2 == 0)))
                  for number, picture in enumerate(pictures)]
        wrapped, parity = export.DetectorExport(network), export.parity
    else:
        raise ThermalReidError(f"{path}: neither a detector nor a segmenter that this version trains; embeddings and "
                               "baselines are restored with pairs (--pairs), others not at all")
    unfold(network, path, [partial(network, *one) for one in inputs])
    found = parity(wrapped, path, pictures[:: -(-len(pictures) // _COMPARED)])
    difference = found if isinstance(found, float) else found["max_abs_difference"]
    _check(path, difference)
    facts = {"recipe": training["recipe"], "step": training["steps"], "seconds": 60.0 * training.get("minutes", 0.0)}
    weights = network.state_dict()
    write_state({**facts, "averaged": weights} if card.task == "detection" else
                {**facts, "weights": weights, "network": named, "data": {}, "evaluation": {}}, out)
    return difference


def restore_embedding(model: str | Path, pairs: Pairs, out: Path) -> float:
    """The same for the embedding and the baselines: write out for --start of `train embedding` or `train baseline`.

    pairs: like those that it will be trained on, some objects of which a drone saw. Errors: as of restore.
    """
    path, card = open_model(model)
    recipe = card.training.get("recipe", {})
    if card.task != "embedding":
        raise ThermalReidError(f"{path}: no embedding and no baseline; others are restored with frames (--images)")
    network = BaselineNetwork(recipe["network"], recipe["bands"], recipe["width"]) if "bands" in recipe else \
        EmbeddingNetwork()
    feeds = export_objects.embedding_inputs(*export_objects.crops_of(
        pairs, export_objects.seen_from_above(pairs, _SHOWN), network.size_px))
    wrapped = export_objects.EmbeddingExport(network)
    stored = unfold(network, path, [partial(wrapped, *map(torch.from_numpy, feed.values())) for feed in feeds])
    if isinstance(network, EmbeddingNetwork):  # of its two bands and both, in the order in which `flown` takes them
        for of, (values,) in zip((1, 2, 0), stored["Exp"], strict=True):
            network.ratio.data[of] = torch.from_numpy(values)
    difference = export_objects.difference(wrapped, path, feeds[:: -(-len(feeds) // _COMPARED)],
                                           [spec.name for spec in card.outputs])
    _check(path, difference)
    write_state({"recipe": recipe, "step": card.training["steps"], "metrics": {}, "averaged": network.state_dict()},
                out)
    return difference


def _check(path: Path, difference: float) -> None:
    if difference > MAX_DIFFERENCE:
        raise ThermalReidError(f"{path}: the network restored of it differs by {difference:.1e}, more than "
                               f"{MAX_DIFFERENCE:.0e}; not written")
