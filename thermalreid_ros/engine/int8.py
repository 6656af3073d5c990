"""Models for processors with 8-bit dot products: the same network, computed in integers, in a file of its own.

`NAME.int8` beside `NAME.onnx` is an ONNX graph whose activations, too, are quantised: convolutions are sums of 8-bit
products, twice as fast as in floating point. Accelerators run NAME.onnx. The large weights, which lie as bytes in that
file already, are not repeated: the graph refers to their place there, and the card binds both files by their sums.
What is left of it, names and scales, is stored compressed (xz), in two thirds of the space.

Needs the `onnx` package (extra `training`); running models does not.
"""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.engine.card import EngineError, sha256_of
from thermalreid_ros.engine.engine import INT8_SUFFIX, Engine, open_model
from thermalreid_ros.engine.packing import shorten_names, write_card
from thermalreid_ros.errors import first_line
from thermalreid_ros.files import write_atomically

_QUANTISED = ("Conv", "Add", "Concat", "Resize", "Clip", "Relu", "Slice", "MaxPool")
_SHARED_FROM = 256  # bytes: smaller weights are repeated


class Recorder:
    """An Engine that keeps what it was run on: wrap it around another to gather a preprocessor's true inputs."""

    def __init__(self, engine: Engine):
        self.card, self.provider, self.feeds = engine.card, engine.provider, []
        self._engine = engine

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.feeds.append({name: np.array(array) for name, array in inputs.items()})
        return self._engine.run(inputs)

    def close(self) -> None:
        self._engine.close()


def write_int8_form(model: str | Path, feeds: Sequence[Mapping[str, np.ndarray]], note: Mapping[str, Any]) -> Path:
    """Write NAME.int8 beside NAME.onnx and note it on the card, as `int8`; returns its path.

    feeds: inputs from which the range of every activation is taken, some dozens that are like those met in flight.
    note: for the card: what they were, and the command. Weights are signed, symmetric, with a scale an output channel;
    activations unsigned, from least to largest. Floating point stays what lies behind the last convolution of any
    path, with that convolution, for 8 bits are too coarse for a box of 7 pixels (a detector lost 0.08 of mean AP50 by
    them), and what comes before the second (0.015 on frames with small persons).
    Raises EngineError where the model cannot be read or has nothing to quantise.
    """
    path, card = open_model(model)
    if not feeds:
        raise EngineError(f"{path}: no inputs to take the ranges of activations from")
    with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "quantised.onnx"
        _unpack(path, plain)
        _quantise(path, plain, quantised, feeds)
        target = _share_weights(quantised, path)
    facts = {"sha256": sha256_of(target), **note}
    extra = {key: value for key, value in card.to_mapping().items() if key != "int8"}
    write_card(path, {**extra, "int8": facts})
    return target


def _unpack(path: Path, out: Path) -> None:
    """The model with whole weights and named nodes: what the session itself makes of it before it runs."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(out), 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(out))
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    onnx.save(model, str(out))


def _quantise(path: Path, plain: Path, out: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._feeds = iter(feeds)

        def get_next(self):
            return next(self._feeds, None)

    nodes = onnx.load(str(plain)).graph.node
    kept = _before_second_convolution(nodes) | _behind_last_convolution(nodes)
    if not any(node.op_type == "Conv" and node.name not in kept for node in nodes):
        raise EngineError(f"{path}: no convolutions to quantise")
    try:
        quantize_static(str(plain), str(out), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        op_types_to_quantize=list(_QUANTISED), nodes_to_exclude=sorted(kept))
    except Exception as error:  # onnxruntime's and onnx's errors share no base class
        raise EngineError(f"{path}: cannot be quantised ({first_line(error)})") from None


def _before_second_convolution(nodes) -> set[str]:
    """Names of the nodes that come before any path's second convolution, not counting those channel by channel."""
    depth: dict[str, int] = {}  # of tensors
    kept = set()
    for node in nodes:
        so_far = max((depth.get(name, 0) for name in node.input), default=0)
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        so_far += node.op_type == "Conv" and groups == 1
        depth.update(dict.fromkeys(node.output, so_far))
        if so_far < 2:
            kept.add(node.name)
    return kept


def _behind_last_convolution(nodes) -> set[str]:
    """Names of the nodes from which no convolution is reached; nodes: in topological order, as ONNX has them."""
    feeds_convolution: set[str] = set()  # tensors
    kept = set()
    for node in reversed(nodes):
        if not feeds_convolution.intersection(node.output):
            kept.add(node.name)
        if node.op_type == "Conv" or node.name not in kept:
            feeds_convolution.update(node.input)
    return kept


def _merge_equal(graph) -> None:
    """One tensor for all of equal content: every convolution comes with zeros of its own."""
    first, names, kept = {}, {}, []
    for tensor in graph.initializer:
        content = (tensor.data_type, tuple(tensor.dims), _raw(tensor))
        names[tensor.name] = first.setdefault(content, tensor.name)
        if names[tensor.name] == tensor.name:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _raw(tensor) -> bytes:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor).tobytes()


def _share_weights(quantised: Path, path: Path) -> Path:
    """Write path.int8: the quantised graph, its weights left where path has the same bytes."""
    import onnx

    model, stored = onnx.load(str(quantised)), path.read_bytes()
    _merge_equal(model.graph)
    shorten_names(model.graph)
    used = {node.domain for node in model.graph.node}
    imports = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    for tensor in model.graph.initializer:
        raw = _raw(tensor)
        place = stored.find(raw) if len(raw) >= _SHARED_FROM else -1
        if place < 0:
            continue
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", place), ("length", len(raw))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    return write_atomically(path.with_suffix(INT8_SUFFIX), compressed(model.SerializeToString(deterministic=True)))


def compressed(graph: bytes) -> bytes:
    """As the engine reads it; the same bytes of the same graph."""
    return lzma.compress(graph, check=lzma.CHECK_CRC32, preset=9 | lzma.PRESET_EXTREME)
