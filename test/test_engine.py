"""Models: cards, sums, inputs, and the one line each fault gives."""

import numpy as np
import pytest
import yaml
from tiny_models import convolution, convolution_facts

from thermalreid_ros.engine import EngineError, ModelCard, load_engine
from thermalreid_ros.engine.packing import pack_fp16_initializers, pack_int8_initializers, stored, write_card

onnxruntime = pytest.importorskip("onnxruntime")
IMAGE = np.random.default_rng(3).random((1, 1, 32, 40), dtype=np.float32)


@pytest.fixture
def model(tmp_path):
    return convolution(tmp_path / "tiny.onnx")


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(EngineError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite_card(model, **changes):
    card = model.with_suffix(".yaml")
    values = {**yaml.safe_load(card.read_text()), **changes}
    card.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))


def test_runs_what_the_model_computes(model):
    lines = []
    engine = load_engine(model, providers=("cpu",), threads=1, log=lines.append)
    features = engine.run({"image": IMAGE})["features"]
    reference = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(features, reference.run(None, {"image": IMAGE})[0])
    assert features.shape == (1, 16, 32, 40) and features.std() > 0.01
    assert lines == ["model tiny runs on cpu (1 thread)"]
    assert engine.provider == "cpu" and engine.on_cpu
    assert engine.card.name == "tiny" and engine.card.inputs[0].std == (255.0,)
    engine.close()
    assert "closed" in refused(engine.run, {"image": IMAGE})


def test_log_says_why_faster_providers_are_not_used(model):
    lines = []
    engine = load_engine(str(model), log=lines.append)
    assert engine.provider == "cpu" and len(lines) == 1
    assert lines[0].startswith("model tiny runs on cpu (")
    assert "tensorrt asked, not available: " in lines[0] and "cuda asked, not available: " in lines[0]


def test_no_silent_fallback_to_a_provider_that_was_not_asked(model):
    assert "no provider left to run on: tensorrt" in refused(load_engine, model, providers=("tensorrt",))
    assert "providers: gpu; choose from" in refused(load_engine, model, providers=("gpu",))
    assert "precision 'int4' is unknown" in refused(load_engine, model, precision="int4")


@pytest.mark.parametrize("inputs, says", [
    ({}, "takes inputs image, not none"),
    ({"picture": IMAGE}, "takes inputs image, not picture"),
    ({"image": IMAGE.astype(np.float64)}, "takes float32 [1, 1, 32, 40], not float64 [1, 1, 32, 40]"),
    ({"image": IMAGE[:, :, :16]}, "takes float32 [1, 1, 32, 40], not float32 [1, 1, 16, 40]"),
    ({"image": IMAGE[0]}, "not float32 [1, 32, 40]"),
])
def test_wrong_inputs_are_named(model, inputs, says):
    assert says in refused(load_engine(model, providers=("cpu",)).run, inputs)


def test_inputs_of_any_memory_layout(model):
    engine = load_engine(model, providers=("cpu",))
    turned = np.asfortranarray(IMAGE)
    turned.flags.writeable = False  # as frames are
    np.testing.assert_array_equal(engine.run({"image": turned})["features"],
                                  engine.run({"image": IMAGE})["features"])


def test_results_stay_when_the_engine_runs_again(model):
    engine = load_engine(model, providers=("cpu",))
    first = engine.run({"image": IMAGE})["features"]
    kept = first.copy()
    engine.run({"image": 1 - IMAGE})
    np.testing.assert_array_equal(first, kept)


def test_free_sizes_take_any_frame(tmp_path):
    model = convolution(tmp_path / "free.onnx", height="height", width="width")
    engine = load_engine(model, providers=("cpu",))
    for shape in ((1, 1, 32, 40), (1, 1, 64, 48)):
        assert engine.run({"image": np.ones(shape, np.float32)})["features"].shape == (1, 16, *shape[2:])
    two_channels = np.ones((1, 2, 64, 48), np.float32)
    assert "takes float32 [1, 1, 'height', 'width']" in refused(engine.run, {"image": two_channels})


def test_a_missing_model_names_what_there_is(tmp_path):
    assert "no such model file" in refused(load_engine, tmp_path / "absent.onnx")
    assert "no such model; the package ships:" in refused(load_engine, "absent")


def test_a_missing_card(model):
    model.with_suffix(".yaml").unlink()
    assert "tiny.yaml: no model card" in refused(load_engine, model)


def test_a_corrupt_file_does_not_match_its_sum(model):
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0xFF
    model.write_bytes(data)
    line = refused(load_engine, model)
    assert "tiny.onnx: sha256 is " in line and "its card says " in line


def test_a_truncated_file_does_not_match_its_sum(model):
    model.write_bytes(model.read_bytes()[:-100])
    assert "sha256" in refused(load_engine, model)


def test_a_file_that_is_no_model_though_its_sum_is_right(tmp_path):
    path = tmp_path / "noise.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    write_card(path, convolution_facts())
    line = refused(load_engine, path)
    assert "noise.onnx: onnxruntime cannot load it (INVALID_PROTOBUF" in line


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_threads_that_no_machine_has_are_refused(model, threads):
    assert f"threads: {threads}; give 1 to" in refused(load_engine, model, threads=threads)


@pytest.mark.parametrize("changes, says", [
    ({"inputs": [{"name": "picture", "shape": [1, 1, 32, 40]}]}, "inputs are image, its card says picture"),
    ({"inputs": [{"name": "image", "shape": [1, 3, 32, 40]}]}, "'image' is float32 [1, 1, 32, 40], its card"),
    ({"inputs": [{"name": "image", "shape": [1, 1, 32, 40], "dtype": "uint8"}]}, "its card says uint8"),
    ({"outputs": [{"name": "features", "shape": [1, 8, 32, 40]}]}, "'features' is float32 [1, 16, 32, 40]"),
    ({"outputs": [{"name": "boxes", "shape": [1, 8]}]}, "outputs are features, its card says boxes"),
    ({"inputs": None}, "tiny.yaml: the model card lacks inputs"),
    ({"sha256": None, "task": None}, "tiny.yaml: the model card lacks task, sha256"),
    ({"inputs": [{"shape": [1]}]}, "every input and output needs a name and a shape"),
    ({"opset": "seventeen"}, "tiny.yaml: the model card has a wrong value"),
    ({"strides": [8, 0]}, "tiny.yaml: the model card has a wrong value (strides [8, 0])"),
    ({"sha256": "0" * 64}, "its card says 000000000000..."),
])
def test_a_card_that_does_not_belong_to_the_model(model, changes, says):
    rewrite_card(model, **changes)
    assert says in refused(load_engine, model, providers=("cpu",))


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "a: [unclosed", "a: b: c", "\x00\x01"])
def test_a_card_that_is_no_card(model, text):
    model.with_suffix(".yaml").write_text(text)
    assert "tiny.yaml" in refused(load_engine, model)


def test_a_model_with_other_inputs_than_are_asked_for_is_refused(model):
    card = ModelCard.read(model.with_suffix(".yaml"))
    assert card.tensor("image", 4).shape == (1, 1, 32, 40) and card.tensor("features").shape[1] == 16
    for name, dimensions in (("pictures", 0), ("image", 5)):
        assert f"no input or output '{name}'" in refused(card.tensor, name, dimensions)


def test_card_keeps_what_it_does_not_know_and_writes_the_same_bytes(model):
    facts = {**convolution_facts(), "classes": ["car", "person"], "strides": [4, 8],
             "metrics": [{"name": "AP50", "value": 0.5, "data": "val", "command": "thermalreid evaluate"}],
             "parity": {"data": "real"}, "field_of_view_deg": 57.0}
    path = write_card(model, facts)
    first = path.read_bytes()
    card = ModelCard.read(path)
    assert card.extra == {"field_of_view_deg": 57.0} and card.classes == ("car", "person")
    assert card.strides == (4, 8) and card.metrics[0]["value"] == 0.5
    assert card.inputs[0].channels == ("thermal",)
    write_card(model, card.to_mapping())
    assert path.read_bytes() == first
    assert "no such model file" in refused(write_card, model.with_name("absent.onnx"), facts)


def test_packing_halves_the_file_and_keeps_the_results(tmp_path):
    model = convolution(tmp_path / "wide.onnx", channels=48)
    before = load_engine(model, providers=("cpu",)).run({"image": IMAGE})["features"]
    original = model.read_bytes()
    packing = pack_fp16_initializers(model)
    write_card(model, convolution_facts(channels=48))
    assert packing.bytes_before == len(original) and packing.bytes_after == model.stat().st_size
    assert packing.bytes_after < 0.53 * packing.bytes_before
    assert packing.packed == 2 and 0 < packing.max_relative_error < 2 ** -11
    after = load_engine(model, providers=("cpu",)).run({"image": IMAGE})["features"]
    assert 0 < np.abs(after - before).max() < 2e-3 * np.abs(before).max()

    again = model.read_bytes()
    assert pack_fp16_initializers(model).packed == 0 and model.read_bytes() == again


def test_packed_casts_are_folded_at_load(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = convolution(tmp_path / "wide.onnx", channels=48)
    pack_fp16_initializers(model)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(tmp_path / "optimised.onnx")).graph.node
    assert "Cast" not in {node.op_type for node in nodes} and "Conv" in {node.op_type for node in nodes}


def test_bytes_with_a_scale_a_channel_are_folded_at_load_as_well(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = convolution(tmp_path / "wide.onnx", channels=48)
    whole = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(model)).graph.initializer}
    before = load_engine(model, providers=("cpu",)).run({"image": IMAGE})["features"]
    packing = pack_int8_initializers(model)
    write_card(model, convolution_facts(channels=48))
    assert packing.packed == 2 and packing.bytes_after < 0.3 * packing.bytes_before
    kinds = {tuple(tensor.dims): tensor.data_type for tensor in onnx.load(str(model)).graph.initializer}
    assert kinds[whole["deep"].shape] == onnx.TensorProto.INT8
    assert kinds[whole["weights"].shape] == onnx.TensorProto.FLOAT16  # nine weights a channel
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(tmp_path / "optimised.onnx")).graph
    assert not {"Cast", "Mul"} & {node.op_type for node in graph.node}
    folded = next(value for value in map(onnx.numpy_helper.to_array, graph.initializer)
                  if value.shape == whole["deep"].shape)
    np.testing.assert_array_equal(folded, stored(whole["deep"], int8=True))
    step = np.abs(whole["deep"]).max((1, 2, 3), keepdims=True) / 127
    assert (np.abs(folded - whole["deep"]) <= 0.5001 * step).all()
    after = load_engine(model, providers=("cpu",)).run({"image": IMAGE})["features"]
    assert 0 < np.abs(after - before).max() < 2e-2 * np.abs(before).max()
    again = model.read_bytes()
    assert pack_int8_initializers(model).packed == 0 and model.read_bytes() == again


def test_packing_leaves_values_beyond_half_precision(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = convolution(tmp_path / "large.onnx", channels=48)
    model = onnx.load(str(path))
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.name == "deep":
            huge = onnx.numpy_helper.to_array(tensor) * np.float32(1e6)
            model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(huge, "deep"))
    path.write_bytes(model.SerializeToString())
    assert pack_fp16_initializers(path).packed == 1
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(b"\xff" * 100)
    assert "not an ONNX model" in refused(pack_fp16_initializers, noise)
    assert noise.read_bytes() == b"\xff" * 100
