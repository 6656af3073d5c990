"""Small real ONNX models with cards, made where a test needs them."""

from pathlib import Path

import numpy as np
import pytest

from thermalreid_ros.detection.types import CLASS_NAMES
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


def grey_segmenter(path: Path, *, step: int = 51) -> Path:
    """NAME.onnx and NAME.yaml: a segmenter whose label is the grey level divided by `step`, sure of itself."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from thermalreid_ros.maps.classes import CLASS_NAMES

    numbers = {"first": np.array([0]), "last": np.array([1]), "axis": np.array([1])}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["image", "first", "last", "axis"], ["channel"]),
         helper.make_node("Squeeze", ["channel", "axis"], ["grey"]),
         helper.make_node("Div", ["grey", "step"], ["labels"]),
         helper.make_node("Mul", ["labels", "nothing"], ["zeros"]),
         helper.make_node("Add", ["zeros", "sure"], ["confidence"])],
        "grey_segmenter",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "height", "width"])
         for name in ("labels", "confidence")],
        [numpy_helper.from_array(value.astype(np.int64), name) for name, value in numbers.items()]
        + [numpy_helper.from_array(np.uint8(value), name)
           for name, value in (("step", step), ("nothing", 0), ("sure", 240))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    outputs = [{"name": name, "shape": [1, "height", "width"], "dtype": "uint8"} for name in ("labels", "confidence")]
    write_card(path, {
        "task": "segmentation", "architecture": "grey levels", "classes": list(CLASS_NAMES), "strides": [32],
        "inputs": [{"name": "image", "shape": [1, 3, "height", "width"], "dtype": "uint8", "layout": "NCHW",
                    "typical_shape": [1, 3, 256, 320]}],
        "outputs": outputs, "opset": 17, "training": {"data": "none", "licence": "Apache-2.0"},
        "confusion": (0.9 * np.eye(5) + 0.02).tolist()})
    return path


def red_is_warm(path: Path, *, size_px: int = 64) -> Path:
    """NAME.onnx and NAME.yaml: a synthesis model to which red is the object, 10 K above the air, an eighth of the solar
    hour more, moved by the offset."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    integers = {"zero": [0], "one": [1], "two": [2], "rows": [-1, 1, 1]}
    numbers = {"bright": 150.0, "dull": 100.0, "warmer": 10.0, "hourly": 0.125}
    graph = helper.make_graph(
        [helper.make_node("Cast", ["colour"], ["seen"], to=TensorProto.FLOAT),
         helper.make_node("Slice", ["seen", "zero", "one", "one"], ["red"]),
         helper.make_node("Slice", ["seen", "one", "two", "one"], ["green"]),
         helper.make_node("Greater", ["red", "bright"], ["is_red"]),
         helper.make_node("Less", ["green", "dull"], ["no_green"]),
         helper.make_node("And", ["is_red", "no_green"], ["is_object"]),
         helper.make_node("Squeeze", ["is_object", "one"], ["flat"]),
         helper.make_node("Cast", ["flat"], ["mask"], to=TensorProto.FLOAT),
         helper.make_node("Slice", ["conditions", "zero", "one", "one"], ["hour_column"]),
         helper.make_node("Slice", ["conditions", "one", "two", "one"], ["air_column"]),
         helper.make_node("Reshape", ["hour_column", "rows"], ["hour"]),
         helper.make_node("Reshape", ["air_column", "rows"], ["air"]),
         helper.make_node("Reshape", ["offset", "rows"], ["moved"]),
         helper.make_node("Mul", ["hour", "hourly"], ["of_hour"]),
         helper.make_node("Sum", ["moved", "of_hour", "warmer"], ["excess"]),
         helper.make_node("Mul", ["mask", "excess"], ["of_object"]),
         helper.make_node("Add", ["air", "of_object"], ["temperature"])],
        "red_is_warm",
        [helper.make_tensor_value_info("colour", TensorProto.UINT8, [1, 3, size_px, size_px]),
         helper.make_tensor_value_info("conditions", TensorProto.FLOAT, ["count", 4]),
         helper.make_tensor_value_info("offset", TensorProto.FLOAT, ["count"])],
        [helper.make_tensor_value_info("temperature", TensorProto.FLOAT, ["count", size_px, size_px]),
         helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, size_px, size_px])],
        [numpy_helper.from_array(np.int64(value), name) for name, value in integers.items()]
        + [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    write_card(path, {
        "task": "synthesis", "architecture": "threshold",
        "inputs": [{"name": "colour", "shape": [1, 3, size_px, size_px], "dtype": "uint8", "layout": "NCHW"},
                   {"name": "conditions", "shape": ["count", 4], "typical_shape": [3, 4]},
                   {"name": "offset", "shape": ["count"], "typical_shape": [3]}],
        "outputs": [{"name": "temperature", "shape": ["count", size_px, size_px]},
                    {"name": "mask", "shape": [1, size_px, size_px]}],
        "opset": 17, "training": {"data": "none", "licence": "Apache-2.0"},
        "mean_offsets_k": {"car": [0.0, -3.0, 5.0], "any": [1.0, -6.0, 6.0]}})
    return path


def shapes_alone(path: Path, *, size_px: int = 32, cells: int = 8, sure_of: str = "") -> Path:
    """NAME.onnx and NAME.yaml: an embedding of silhouettes: where a photograph is red, where a thermal crop is warmer
    than its mean, averaged over cells. It knows no classes, or takes everything for one of this class."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    integers = {"zero": [0], "one": [1], "two": [2], "rows": [-1, 1, 1, 1]}
    nodes = [helper.make_node("Slice", ["pictures", "zero", "one", "one"], ["red"]),
             helper.make_node("Slice", ["pictures", "one", "two", "one"], ["green"]),
             helper.make_node("Sub", ["red", "green"], ["redder"]),
             helper.make_node("Reshape", ["thermal", "rows"], ["is_thermal"]),
             helper.make_node("Greater", ["is_thermal", "half"], ["which"]),
             helper.make_node("Where", ["which", "red", "redder"], ["seen"]),
             helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[2, 3]),
             helper.make_node("Sub", ["seen", "mean"], ["excess"]),
             helper.make_node("AveragePool", ["excess"], ["pooled"], kernel_shape=[size_px // cells] * 2,
                              strides=[size_px // cells] * 2),
             helper.make_node("Flatten", ["pooled"], ["flat"]),
             helper.make_node("LpNormalization", ["flat"], ["embedding"], axis=1),
             helper.make_node("Slice", ["flat", "zero", "four", "one"], ["some"]),
             helper.make_node("Mul", ["some", "nothing"], ["none"]),
             helper.make_node("Add", ["none", "prejudice"], ["logits"]),
             helper.make_node("Softmax", ["logits"], ["classes"], axis=1)]
    prejudice = [8.0 * (name == sure_of) for name in CLASS_NAMES]
    graph = helper.make_graph(
        nodes, "shapes_alone",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["count", 3, size_px, size_px]),
         helper.make_tensor_value_info("thermal", TensorProto.FLOAT, ["count"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["count", cells * cells]),
         helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["count", 4])],
        [numpy_helper.from_array(np.int64(value), name) for name, value in {**integers, "four": [4]}.items()]
        + [numpy_helper.from_array(np.float32(value), name) for name, value in (("half", 0.5), ("nothing", 0.0),
                                                                             ("prejudice", prejudice))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    write_card(path, {
        "task": "embedding", "architecture": "averages", "classes": ["car", "person", "bicycle", "dog"],
        "inputs": [{"name": "pictures", "shape": ["count", 3, size_px, size_px], "layout": "NCHW",
                    "typical_shape": [2, 3, size_px, size_px]},
                   {"name": "thermal", "shape": ["count"], "typical_shape": [2]}],
        "outputs": [{"name": "embedding", "shape": ["count", cells * cells]},
                    {"name": "classes", "shape": ["count", 4]}],
        "opset": 17, "training": {"data": "none", "licence": "Apache-2.0"}})
    return path


def tells_lengths(path: Path, metres: float, sigma: float, *, known: tuple[float, float], size_px: int = 32) -> Path:
    """NAME.onnx and NAME.yaml: says of every photograph that its object is so long, of whatever class. known: mean and
    spread of ln of the lengths of all classes."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    said = np.tile(np.log(np.float32([metres, sigma])), (1, 4, 1))
    nodes = [helper.make_node("ReduceMean", ["pictures"], ["mean"], axes=[2, 3], keepdims=0),
             helper.make_node("Slice", ["mean", "zero", "one", "one"], ["red"]),
             helper.make_node("Mul", ["red", "nothing"], ["none"]),
             helper.make_node("Unsqueeze", ["none", "two"], ["row"]),
             helper.make_node("Add", ["row", "said"], ["length"])]
    graph = helper.make_graph(
        nodes, "tells_lengths",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["count", 3, size_px, size_px])],
        [helper.make_tensor_value_info("length", TensorProto.FLOAT, ["count", 4, 2])],
        [numpy_helper.from_array(np.int64(value), name) for name, value in (("zero", [0]), ("one", [1]), ("two", [2]))]
        + [numpy_helper.from_array(np.float32(0.0), "nothing"), numpy_helper.from_array(said, "said")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    write_card(path, {
        "task": "length", "architecture": "a constant", "classes": list(CLASS_NAMES),
        "inputs": [{"name": "pictures", "shape": ["count", 3, size_px, size_px], "layout": "NCHW",
                    "typical_shape": [2, 3, size_px, size_px]}],
        "outputs": [{"name": "length", "shape": ["count", 4, 2]}],
        "lengths": {name: dict(zip(("mean", "spread"), known)) for name in CLASS_NAMES},
        "opset": 17, "training": {"data": "none", "licence": "Apache-2.0"}})
    return path
