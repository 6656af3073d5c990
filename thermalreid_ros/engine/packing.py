"""Shipping models: files a half or a quarter as large that run at full precision, and the cards bound to them.

Needs the `onnx` package (extra `training`); running models does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thermalreid_ros.engine.card import EngineError, ModelCard, sha256_of
from thermalreid_ros.files import write_atomically

# Small constants (scales of Resize, thresholds, axes) save nothing, and some operators insist on true
# constants.
MIN_ELEMENTS = 48
# Bytes pay in large tensors; depthwise filters have a handful of weights a channel, which suffer and save nothing.
INT8_MIN_ELEMENTS, INT8_MIN_PER_CHANNEL = 2048, 32
_SHARED_FROM = 40  # characters of a card's text that stands once


@dataclass(frozen=True)
class Packing:
    """What packing did. packed: tensors. max_relative_error: of any packed weight, to the largest of its tensor."""

    bytes_before: int
    bytes_after: int
    packed: int
    max_relative_error: float


def pack_fp16_initializers(path: str | Path, out: str | Path | None = None) -> Packing:
    """Store large float32 initializers as float16 followed by Cast; the session folds the casts once at load.

    path: an .onnx file, rewritten in place unless `out` is given. Tensors with values beyond float16's range
    stay as they are. Inputs, outputs and arithmetic stay float32.
    Raises EngineError where path is no model.
    """
    return _pack(Path(path), Path(out or path), int8=False)


def pack_int8_initializers(path: str | Path, out: str | Path | None = None) -> Packing:
    """As pack_fp16_initializers, but the large tensors among them as int8 with one float32 scale per output channel,
    followed by Cast and Mul, which the session folds as well.

    What the network loses by it must be measured: its weights move by up to 0.4 % of the largest of their channel.
    """
    return _pack(Path(path), Path(out or path), int8=True)


def stored(values: np.ndarray, *, int8: bool, axis: int = 0) -> np.ndarray:
    """The float32 values that a session will compute with once this weight is packed; axis: of its output channels."""
    parts = _parts(np.asarray(values, np.float32), int8, axis)
    if parts is None:
        return values
    packed, scale = parts
    return packed.astype(np.float32) if scale is None else packed.astype(np.float32) * scale.astype(np.float32)


def _parts(values: np.ndarray, int8: bool, axis: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(int8, scales that broadcast, float16 where they are many), (float16, None), or None for what stays as it is."""
    if values.size < MIN_ELEMENTS or np.abs(values).max() > np.finfo(np.float16).max:
        return None
    if int8 and values.ndim >= 2 and values.size >= max(INT8_MIN_ELEMENTS, INT8_MIN_PER_CHANNEL * values.shape[axis]):
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.abs(values).max(others, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1.0
        if scale.size >= MIN_ELEMENTS and scale.min() >= np.finfo(np.float16).smallest_normal:
            scale = scale.astype(np.float16)
        return np.rint(values / scale.astype(np.float32)).clip(-127, 127).astype(np.int8), scale
    return values.astype(np.float16), None


def _pack(path: Path, out: Path, int8: bool) -> Packing:
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise EngineError(f"{path}: not an ONNX model ({type(error).__name__})") from None
    graph = model.graph
    _gather_constants(graph)
    transposed = {node.input[1] for node in graph.node if node.op_type in ("ConvTranspose", "MatMul")}  # (in, out, ...)
    kept, nodes, packed, worst = [], [], 0, 0.0
    graph_inputs = {value.name for value in graph.input}  # these may be overridden by the caller
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        parts = None
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in graph_inputs:
            parts = _parts(values, int8, axis=int(tensor.name in transposed))
        if parts is None:
            kept.append(tensor)
            continue
        small, scale = parts
        name, packed = f"{tensor.name}_{'fp16' if scale is None else 'int8'}", packed + 1
        kept.append(numpy_helper.from_array(small, name))
        whole = tensor.name if scale is None else f"{tensor.name}_unscaled"
        nodes.append(onnx.helper.make_node("Cast", [name], [whole], to=onnx.TensorProto.FLOAT,
                                           name=f"{tensor.name}_unpack"))
        back = small.astype(np.float32)
        if scale is not None:
            back *= scale.astype(np.float32)
            scales = stored_scales = f"{tensor.name}_scale"
            if scale.dtype == np.float16:
                stored_scales += "_fp16"
                nodes.append(onnx.helper.make_node("Cast", [stored_scales], [scales], to=onnx.TensorProto.FLOAT))
            kept.append(numpy_helper.from_array(scale, stored_scales))
            nodes.append(onnx.helper.make_node("Mul", [whole, scales], [tensor.name], name=f"{tensor.name}_rescale"))
        worst = max(worst, float(np.abs(back - values).max() / (np.abs(values).max() or 1.0)))
    nodes += graph.node
    for field, values in ((graph.initializer, kept), (graph.node, nodes)):
        del field[:]
        field.extend(values)
    shorten_names(graph)
    bytes_before = path.stat().st_size
    target = write_atomically(out, model.SerializeToString(deterministic=True))
    return Packing(bytes_before, target.stat().st_size, packed, worst)


def _gather_constants(graph) -> None:
    """Large tensors of Constant nodes, as exporters leave some, to the other weights."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if value is not None and np.prod(value.dims) >= MIN_ELEMENTS:
            value.name = node.output[0]
            graph.initializer.append(value)
            graph.node.remove(node)


def shorten_names(graph) -> None:
    """Number what lies between a graph's inputs and outputs: the exporter's names are a tenth of a small model."""
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # graphs within graphs share names
    short = {name: name for name in ("", *(value.name for value in (*graph.input, *graph.output)))}

    def shortened(name: str) -> str:
        return short.setdefault(name, f"_{len(short):x}")

    for tensor in graph.initializer:
        tensor.name = shortened(tensor.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [shortened(name) for name in node.input]
        node.output[:] = [shortened(name) for name in node.output]
    del graph.value_info[:]


def write_card(path: str | Path, values: Mapping[str, Any]) -> Path:
    """Write NAME.yaml beside NAME.onnx, with the file's sum as sha256; same facts, same bytes.

    values: a card as in ModelCard; `name` defaults to the file's stem and sha256 is ignored. The card is
    written anew as a whole: read the old one first to keep what it says.
    Raises EngineError where the model is missing or the facts make no card.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f"{path}: no such model file, so no card for it")
    card = ModelCard.from_mapping({"name": path.stem, **values, "sha256": sha256_of(path)}, str(path))
    text = yaml.dump(_shared(card.to_mapping(), {}), Dumper=_CardDumper, sort_keys=False, allow_unicode=True, width=100,
                     default_flow_style=None)
    return write_atomically(path.with_suffix(".yaml"), text)


class _CardDumper(yaml.SafeDumper):
    """Long texts stand once: a card's metrics share data and command, and YAML has references (&id001, *id001)."""

    def ignore_aliases(self, data: Any) -> bool:
        return not isinstance(data, str) or len(data) < _SHARED_FROM


def _shared(value: Any, known: dict[str, str]) -> Any:
    """The same, each long text the same object wherever it stands."""
    if isinstance(value, str):
        return known.setdefault(value, value) if len(value) >= _SHARED_FROM else value
    if isinstance(value, Mapping):
        return {key: _shared(item, known) for key, item in value.items()}
    return [_shared(item, known) for item in value] if isinstance(value, list | tuple) else value
