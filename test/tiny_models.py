"""Small real ONNX models with cards, made where a test needs them."""

from pathlib import Path

import numpy as np
import pytest

from thermalreid_ros.engine.packing import write_card


def convolution(path: Path, *, height=32, width=40, channels=16, seed=0, card=None) -> Path:
    """NAME.onnx and NAME.yaml: image (1, 1, H, W) -> 3x3 convolution -> relu -> features (1, C, H, W).

    height, width: sizes, or names of free ones.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(seed).normal(0, 0.3, (channels, 1, 3, 3)).astype(np.float32)
    deep = np.random.default_rng(seed + 1).normal(0, 0.1, (channels, channels, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights"], ["first"], pads=[1, 1, 1, 1]),
         helper.make_node("Relu", ["first"], ["active"]),
         helper.make_node("Conv", ["active", "deep"], ["features"], pads=[1, 1, 1, 1])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, height, width])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, channels, height, width])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(deep, "deep")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    write_card(path, {**convolution_facts(height, width, channels), **(card or {})})
    return path


def convolution_facts(height=32, width=40, channels=16) -> dict:
    return {
        "task": "features", "architecture": "two convolutions",
        "inputs": [{"name": "image", "shape": [1, 1, height, width], "layout": "NCHW", "mean": [0.0],
                    "std": [255.0], "channels": ["thermal"]}],
        "outputs": [{"name": "features", "shape": [1, channels, height, width], "meaning": "activations"}],
        "opset": 17, "training": {"data": "none", "licence": "Apache-2.0"},
    }
