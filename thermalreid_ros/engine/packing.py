"""Shipping models: half-size files that run at full precision, and the cards bound to them.

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
MIN_ELEMENTS = 256


@dataclass(frozen=True)
class Packing:
    """What pack_fp16_initializers did. max_relative_error: of any packed weight, to the largest of its
    tensor."""

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
    import onnx
    from onnx import numpy_helper

    path = Path(path)
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise EngineError(f"{path}: not an ONNX model ({type(error).__name__})") from None
    graph = model.graph
    kept, casts, worst = [], [], 0.0
    graph_inputs = {value.name for value in graph.input}  # these may be overridden by the caller
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        limit = np.finfo(np.float16).max
        if tensor.data_type != onnx.TensorProto.FLOAT or values.size < MIN_ELEMENTS \
                or tensor.name in graph_inputs or np.abs(values).max() > limit:
            kept.append(tensor)
            continue
        half = values.astype(np.float16)
        error = np.abs(half.astype(np.float32) - values).max()
        worst = max(worst, float(error / (np.abs(values).max() or 1.0)))
        packed_name = f"{tensor.name}_fp16"
        kept.append(numpy_helper.from_array(half, packed_name))
        casts.append(onnx.helper.make_node("Cast", [packed_name], [tensor.name], to=onnx.TensorProto.FLOAT,
                                           name=f"{tensor.name}_unpack"))
    nodes = [*casts, *graph.node]
    for field, values in ((graph.initializer, kept), (graph.node, nodes)):
        del field[:]
        field.extend(values)
    bytes_before = path.stat().st_size
    target = write_atomically(out or path, model.SerializeToString(deterministic=True))
    return Packing(bytes_before, target.stat().st_size, len(casts), worst)


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
    text = yaml.safe_dump(card.to_mapping(), sort_keys=False, allow_unicode=True, width=100,
                          default_flow_style=None)
    return write_atomically(path.with_suffix(".yaml"), text)
