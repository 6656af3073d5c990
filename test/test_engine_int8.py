"""The int8 form of a model: what is quantised, how near it comes, what it shares, and what is refused."""

import lzma
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from tiny_models import convolution, convolution_facts

from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.engine.engine import shipped_models
from thermalreid_ros.engine.providers import has_int8_dot_products, probe_machine
from thermalreid_ros.files import shipped

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
#: As if this processor had the instructions: without, results may differ a little, and are slower.
MACHINE = replace(probe_machine(), missing={})
RNG = np.random.default_rng(5)


@pytest.fixture
def model(tmp_path):
    """Five convolutions with relus between: image -> 24 channels, four times, -> 2 channels; large weights as bytes."""
    from onnx import TensorProto, helper, numpy_helper

    from thermalreid_ros.engine.packing import pack_int8_initializers, write_card

    path = tmp_path / "deep.onnx"
    rng = np.random.default_rng(1)
    weights = [rng.normal(0, 0.3, (24, 1, 3, 3))] + [
        rng.normal(0, 0.1, (wide, 24, 3, 3)) for wide in (24, 24, 24, 2)]
    nodes, tensor = [], "image"
    for i in range(5):
        out = "features" if i == 4 else f"sum{i}"
        nodes.append(helper.make_node("Conv", [tensor, f"w{i}"], [out], pads=[1, 1, 1, 1]))
        if i < 4:
            nodes.append(helper.make_node("Relu", [out], [f"active{i}"]))
        tensor = f"active{i}"
    graph = helper.make_graph(
        nodes, "deep", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 32, 40])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 2, 32, 40])],
        [numpy_helper.from_array(value.astype(np.float32), f"w{i}") for i, value in enumerate(weights)])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
                     .SerializeToString())
    pack_int8_initializers(path)
    write_card(path, convolution_facts(channels=2))
    return path


def feeds(count=12):
    return [{"image": RNG.random((1, 1, 32, 40), dtype=np.float32)} for _ in range(count)]


def quantised(model, **note):
    from thermalreid_ros.engine.int8 import write_int8_form

    return write_int8_form(model, feeds(), {"ranges_from": "noise", "command": "none", **note})


def test_it_comes_near_and_runs_where_the_processor_can(model):
    form = quantised(model)
    assert form == model.with_name("deep.int8")
    lines = []
    engine = load_engine(model, machine=MACHINE, log=lines.append)
    assert engine.provider == "cpu_int8" and engine.on_cpu and lines[0].startswith("model deep runs on cpu_int8 (")
    whole = load_engine(model, providers=("cpu",))
    (image,) = feeds(1)
    found, expected = engine.run(image)["features"], whole.run(image)["features"]
    assert found.shape == expected.shape and not np.array_equal(found, expected)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    lines.clear()
    assert load_engine(model, machine=replace(MACHINE, missing={"cpu_int8": "8-bit dot products of the processor"}),
                       log=lines.append).provider == "cpu"
    assert "cpu_int8 asked, not available: 8-bit dot products of the processor missing" in lines[0]


def test_first_and_last_convolutions_stay_and_weights_are_shared(model):
    graph = onnx.load_model_from_string(lzma.decompress(quantised(model).read_bytes())).graph
    stored = model.read_bytes()
    inner = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL
             and tuple(tensor.dims) == (24, 24, 3, 3)]
    assert len(inner) == 3
    for tensor in inner:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        assert facts["location"] == "deep.onnx" and int(facts["offset"]) + int(facts["length"]) <= len(stored)
    made = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    fed_by_bytes = [made.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert fed_by_bytes == [False, True, True, True, False]
    assert model.with_suffix(".int8").stat().st_size < 0.4 * len(stored)


def test_the_same_inputs_make_the_same_bytes_and_the_card_says_what_they_were(model):
    from thermalreid_ros.engine.int8 import write_int8_form

    same = feeds()
    first = write_int8_form(model, same, {"ranges_from": "noise"}).read_bytes()
    card = model.with_suffix(".yaml").read_text()
    assert write_int8_form(model, same, {"ranges_from": "noise"}).read_bytes() == first
    assert model.with_suffix(".yaml").read_text() == card
    assert yaml.safe_load(card)["int8"]["ranges_from"] == "noise"


def test_a_form_that_is_missing_or_another_model_s_is_not_run(model, caplog):
    form, lines = quantised(model), []
    form.write_bytes(form.read_bytes()[:-1] + b"?")
    assert load_engine(model, machine=MACHINE, log=lines.append).provider == "cpu"
    assert "cpu_int8 asked, failed: " in lines[0] and "not the one that its card names" in lines[0]
    load_engine(model, machine=MACHINE)
    assert caplog.messages[-1].startswith("model deep: cpu_int8 asked, failed: ")
    form.unlink()
    assert load_engine(model, machine=MACHINE, log=lines.append).provider == "cpu"
    assert "deep.int8 is missing" in lines[1]
    with pytest.raises(EngineError, match="no provider left to run on: cpu_int8 asked"):
        load_engine(model, machine=MACHINE, providers=("cpu_int8",))


def test_a_model_without_one_says_so_only_where_it_is_asked_for(tmp_path):
    tiny = convolution(tmp_path / "tiny.onnx")
    with pytest.raises(EngineError, match="the model has no int8 form"):
        load_engine(tiny, machine=MACHINE, providers=("cpu_int8",))
    lines = []
    load_engine(tiny, machine=MACHINE, providers=("cpu", "cpu_int8"), log=lines.append)
    assert len(lines) == 1 and "int8" not in lines[0]


def test_what_cannot_be_quantised_is_refused_and_nothing_is_written(tmp_path, model):
    from thermalreid_ros.engine.int8 import write_int8_form

    with pytest.raises(EngineError, match="no inputs to take the ranges"):
        write_int8_form(model, [], {})
    shallow = convolution(tmp_path / "shallow.onnx", channels=4)
    with pytest.raises(EngineError, match="no convolutions to quantise"):
        write_int8_form(shallow, feeds(2), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep.onnx", "deep.yaml", "shallow.onnx",
                                                                "shallow.yaml"]


@pytest.mark.skipif(not has_int8_dot_products(), reason="this processor has no 8-bit dot products")
@pytest.mark.parametrize("name", ["yolo_compact", "segmenter_compact", "geogan"])
def test_shipped_forms_agree_with_their_models(name):
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.evaluation.recording import FRAME_TOPIC
    from thermalreid_ros.localization.segmenter import Segmenter
    from thermalreid_ros.ros.bag import Bag

    assert name in shipped_models() and (shipped("models") / f"{name}.int8").is_file()
    engines = [load_engine(name, providers=(provider,), threads=1) for provider in ("cpu_int8", "cpu")]
    with Bag(shipped("config") / "recordings" / "hit_uav_night") as bag:
        frames = [cv2.imdecode(bag.decode(message).data, cv2.IMREAD_GRAYSCALE)
                  for message, _ in zip(bag.messages([FRAME_TOPIC]), range(4))]
    agreement = []
    for frame in frames:
        if name == "yolo_compact":
            found, expected = (sorted(Detector(engine, score_threshold=0.4).detect(frame).detections,
                                      key=lambda one: (one.class_id, one.x_min, one.y_min)) for engine in engines)
            assert expected and abs(len(found) - len(expected)) <= 1
            if len(found) == len(expected):
                for one, other in zip(found, expected):
                    assert one.class_id == other.class_id and abs(one.score - other.score) < 0.1
                    assert abs(one.x_min - other.x_min) < 2 and abs(one.y_max - other.y_max) < 2
        else:
            found, expected = (Segmenter(engine).segment(frame) for engine in engines)
            agreement.append((found.labels == expected.labels).mean())
    # Of real frames, which segmenters never saw: where ground and grass are as likely, roundings decide.
    assert not agreement or (np.mean(agreement) > 0.92 and min(agreement) > 0.88)


def test_a_form_is_made_from_frames_by_one_command(tmp_path, capsys):
    pytest.importorskip("torch")  # the command is one of training
    from thermalreid_ros.cli import main

    for suffix in (".onnx", ".yaml"):
        shutil.copy(shipped("models") / f"geogan{suffix}", tmp_path)
    frames = tmp_path / "town" / "images" / "thermal"
    frames.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(frames / f"{number}.png"), cv2.blur(RNG.integers(0, 255, (256, 320), np.uint8), (9, 9)))
    arguments = ["train", "int8", "--model", str(tmp_path / "geogan.onnx"), "--images", str(frames), "--frames", "2"]
    assert main(arguments) == 0 and "and the weights of geogan.onnx" in capsys.readouterr().out
    facts = yaml.safe_load((tmp_path / "geogan.yaml").read_text())["int8"]
    assert facts["ranges_from"] == "frames: 2 of town/images/thermal" and str(tmp_path) not in facts["command"]
    assert load_engine(tmp_path / "geogan.onnx", machine=MACHINE).provider == "cpu_int8"

    for wrong, says in (({"--images": str(tmp_path)}, "no frames"), ({"--model": "absent.onnx"}, "no such model file")):
        changed = list(arguments)
        for option, value in wrong.items():
            changed[changed.index(option) + 1] = value
        assert main(changed) == 2
        error = capsys.readouterr().err
        assert says in error and "Traceback" not in error
