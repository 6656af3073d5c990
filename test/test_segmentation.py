"""The segmenter at run time, and its measurement as a user calls it; networks are tiny and by hand."""

import json

import cv2
import numpy as np
import pytest
from thermalreid_ros.camera.thermal import make_frame
from thermalreid_ros.cli import main
from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.engine.engine import open_model
from thermalreid_ros.engine.packing import write_card
from thermalreid_ros.evaluation.confusion import UNSEEN_KEPT, count_pixels, figures, mean_over_towns, row_shares
from thermalreid_ros.localization.segmenter import CONTRAST_LEVELS_PER_K, Segmenter, temperature_levels
from thermalreid_ros.localization.types import LocalizationError
from thermalreid_ros.maps.classes import CLASS_NAMES, NO_DATA


def by_level(path, **card):
    """A segmenter whose label is red // 50 and whose confidence is green."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def channel(number, name):
        return helper.make_node("Gather", ["image", f"index{number}"], [name], axis=1)

    graph = helper.make_graph(
        [channel(0, "red"), helper.make_node("Div", ["red", "fifty"], ["labels"]), channel(1, "confidence")], "levels",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, "height", "width"])
         for name in ("labels", "confidence")],
        [numpy_helper.from_array(np.array(0), "index0"), numpy_helper.from_array(np.array(1), "index1"),
         numpy_helper.from_array(np.array(50, np.uint8), "fifty")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString(deterministic=True))
    outputs = [{"name": name, "shape": [1, "height", "width"], "dtype": "uint8"} for name in ("labels", "confidence")]
    write_card(path, {
        "task": "segmentation", "architecture": "levels", "classes": list(CLASS_NAMES), "strides": [32],
        "inputs": [{"name": "image", "shape": [1, 3, "height", "width"], "dtype": "uint8",
                    "typical_shape": [1, 3, 256, 320]}], "outputs": outputs, **card})
    return path


@pytest.fixture
def segmenter(tmp_path):
    return Segmenter(load_engine(by_level(tmp_path / "levels.onnx"), providers=("cpu",)))


def test_a_thermal_frame_is_reduced_and_labelled(segmenter):
    frame = np.zeros((512, 640), np.uint8)
    frame[:, 320:] = 110
    frame[256:, 480:] = 160
    mask = segmenter.segment(frame, stamp_ns=3)
    assert mask.labels.shape == mask.confidence.shape == (256, 320) and mask.labels.dtype == np.uint8
    assert (mask.width, mask.height, mask.stamp_ns) == (640, 512, 3) and mask.inference_ms > 0
    assert (mask.labels[:, :160] == 0).all() and (mask.labels[:128, 160:] == 2).all()
    assert (mask.labels[128:, 240:] == 3).all() and (mask.confidence[128:, 240:] == 160).all()
    kept = mask.labels.copy()
    segmenter.segment(255 - frame)  # buffers are reused, masks are not
    assert (mask.labels == kept).all()


def test_a_colour_frame_goes_in_as_red_green_blue(segmenter):
    frame = np.zeros((512, 640, 3), np.uint8)
    frame[...] = (120, 77, 3)
    mask = segmenter.segment(frame)
    assert (mask.labels == 2).all() and (mask.confidence == 77).all()
    assert (segmenter.segment(frame[..., 0]).confidence == 120).all()


@pytest.mark.parametrize("radiometric", (True, False))
def test_a_radiometric_frame_shows_its_temperatures_to_networks_that_know_them(tmp_path, radiometric):
    segmenter = Segmenter(load_engine(by_level(tmp_path / "levels.onnx", radiometric=radiometric), providers=("cpu",)))
    raw = np.full((512, 640), 28815, np.uint16)  # 15 C
    raw[:, 400:] = 29115  # 3 K more
    raw[100, 100] = 0  # dead
    frame = make_frame(raw, "mono16", "centikelvin", 7, "camera")
    mask = segmenter.segment(frame)
    assert mask.stamp_ns == 7 and mask.labels[0, 0] == frame.gray8()[0, 0] // 50
    cool, warm = (int(mask.confidence[200, column]) for column in (20, 300))  # green
    if radiometric:
        assert (cool, warm) == (128, 128 + 3 * CONTRAST_LEVELS_PER_K)
        assert (mask.confidence[:, :195] == cool).all()
    else:
        assert (cool, warm) == (frame.gray8()[0, 0], frame.gray8()[0, 639])
    assert segmenter.segment(make_frame(raw, "mono16", "counts", 8, "camera")).confidence[0, 300] == \
        segmenter.segment(make_frame(raw, "mono16", "counts", 8, "camera").gray8()).confidence[0, 300]


def test_levels_of_temperatures():
    cells = np.array([[-60.0, 10.0, 10.0], [10.0, 12.5, 200.0]], np.float32)
    levels = temperature_levels(cells.repeat(9, 0).repeat(9, 1))
    assert levels.dtype == np.float32 and levels.shape == (2, 18, 27)
    assert levels[:, 0, [0, 9]].T.tolist() == [[0, 0], [128, 100]]
    assert levels[:, 17, [9, 18]].T.tolist() == [[148, 105], [255, 255]]


@pytest.mark.parametrize("height,width,expected", [
    (512, 640, (256, 320)), (1080, 1920, (224, 384)), (256, 320, (256, 320)), (120, 160, (128, 160)),
    (480, 640, (256, 320)), (20, 20, (32, 32))])
def test_sizes_suit_the_network(segmenter, height, width, expected):
    assert segmenter.network_size(height, width) == expected
    assert segmenter.segment(np.zeros((height, width), np.uint8)).labels.shape == expected


def test_other_frames_and_models_are_refused(segmenter, tmp_path):
    for frame in (np.zeros((8, 8), np.float32), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8)):
        with pytest.raises(LocalizationError, match="cannot be labelled"):
            segmenter.segment(frame)
    for damaged in ({}, {"confusion": [[0.9], [0.1, 0.9]]}, {"confusion": "unknown"}):
        object.__setattr__(segmenter.engine.card, "extra", damaged)
        with pytest.raises(EngineError, match="holds no confusion"):
            segmenter.confusion(radiometric=False)
    with pytest.raises(EngineError, match="is for detection of car"):
        Segmenter(load_engine(by_level(tmp_path / "other.onnx", task="detection", classes=["car"]), providers=("cpu",)))


def test_figures_of_counted_pixels():
    truth = np.array([[0, 0, 1, 1], [2, 2, NO_DATA, 3]], np.uint8)
    predicted = np.array([[0, 1, 1, 1], [2, 0, 4, 3]], np.uint8)
    counts = count_pixels(truth, predicted)
    assert counts.sum() == 7 and counts[0, 1] == counts[2, 0] == 1 and counts[1, 1] == 2
    found = figures(counts)
    assert found["iou"] == {"ground": pytest.approx(1 / 3), "road": pytest.approx(2 / 3), "building": 0.5,
                            "vegetation": 1.0, "water": None}
    assert found["miou"] == pytest.approx((1 / 3 + 2 / 3 + 0.5 + 1) / 4) and found["accuracy"] == pytest.approx(5 / 7)
    shares = row_shares(counts)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares[4, 4] == UNSEEN_KEPT and shares[0].tolist() == [0.5, 0.5, 0, 0, 0]


@pytest.fixture
def data(tmp_path):
    """Two frames, one by night, whose level tells the class but for a corner; the upper rows are not judged."""
    folder = tmp_path / "set"
    for part in ("images/thermal", "masks/semantic", "annotations"):
        (folder / part).mkdir(parents=True)
    truth = np.zeros((128, 160), np.uint8)
    truth[:, 80:] = 1
    frame = np.where(truth == 1, 60, 10).astype(np.uint8)
    frame[64:, 120:] = 110
    truth[:32] = NO_DATA
    for k in range(2):
        cv2.imwrite(str(folder / f"images/thermal/{k}.png"), frame)
        cv2.imwrite(str(folder / f"masks/semantic/{k}.png"), truth)
    records = [{"id": k, "file_name": f"{k}.png", "night": bool(k)} for k in range(2)]
    (folder / "annotations/val.json").write_text(json.dumps({"images": records, "annotations": [], "categories": []}))
    return folder


def test_towns_count_alike_however_large_they_are():
    easy, hard = np.zeros((5, 5), np.int64), np.zeros((5, 5), np.int64)
    easy[0], hard[0] = (900_000, 100_000, 0, 0, 0), (12_000, 6_000, 0, 2_000, 0)
    easy[1], hard[1] = (0, 50_000, 0, 0, 0), (0, 10, 90, 0, 0)  # too few to say what the hard one's roads are like
    table = mean_over_towns([easy, hard])
    np.testing.assert_allclose(table[0], (0.75, 0.2, 0, 0.05, 0))
    np.testing.assert_allclose(table[1], (0, 1, 0, 0, 0))
    assert table[4, 4] == UNSEEN_KEPT
    np.testing.assert_allclose(mean_over_towns([easy + 1]), row_shares(easy + 1))
    np.testing.assert_allclose(table.sum(1), 1)


def test_radiometric_frames_are_measured_and_noted_apart(data, tmp_path):
    model = by_level(tmp_path / "levels.onnx", radiometric=True)
    (data / "images/thermal16").mkdir()
    for k in range(2):
        grey = cv2.imread(str(data / f"images/thermal/{k}.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(data / f"images/thermal16/{k}.png"), 28000 + 10 * grey.astype(np.uint16))
    command = ["evaluate", "segmentation", "--annotations", str(data / "annotations/val.json"), "--model", str(model),
               "--card", "two frames", "--images"]
    assert main([*command, str(data / "images/thermal16"), "--plots", str(tmp_path / "plots")]) == 0
    _, card = open_model(model)
    assert np.shape(card.extra["confusion_radiometric"]) == (5, 5) and "confusion" not in card.extra
    assert main([*command, str(data / "images/thermal"), "--providers", "cpu"]) == 0
    _, card = open_model(model)
    assert [metric["command"].endswith(" --providers cpu") for metric in card.metrics if metric["name"] == "mIoU"] == \
        [False, True]  # what is measured otherwise than by default says so
    assert {"confusion", "confusion_radiometric"} <= card.extra.keys()
    assert sum(metric["name"] == "mIoU" for metric in card.metrics) == 2
    cv2.imwrite(str(data / "images/thermal16/1.png"), np.zeros((128, 160), np.uint16))
    assert main([*command, str(data / "images/thermal16")]) == 2


def test_the_command_measures_draws_and_notes(data, tmp_path):
    model = by_level(tmp_path / "levels.onnx")
    assert main(["evaluate", "segmentation", "--images", str(data / "images/thermal"), "--annotations",
                 str(data / "annotations/val.json"), "--model", str(model), "--json", str(tmp_path / "out.json"),
                 "--card", "two frames", "--plots", str(tmp_path / "plots")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["iou"]["ground"] == 1.0 and found["iou"]["road"] == pytest.approx(2 / 3, abs=0.01)
    assert found["iou"]["building"] == 0.0 and found["miou"] == pytest.approx(5 / 6, abs=0.01)
    assert found["night"] == {"miou": found["miou"], "frames": 1} and found["median_ms"] > 0
    _, card = open_model(model)
    noted = {metric["name"]: metric for metric in card.metrics}
    assert noted["mIoU"]["data"] == "two frames, 2 frames" and noted["mIoU"]["value"] == round(found["miou"], 4)
    assert noted["mIoU"]["command"].endswith(
        f"--images {data.name}/images/thermal --annotations {data.name}/annotations/val.json")
    confusion = Segmenter(load_engine(model, providers=("cpu",))).confusion(radiometric=False)
    np.testing.assert_allclose(confusion[1], (0, 2 / 3, 1 / 3, 0, 0), atol=0.01)
    assert confusion[4, 4] == UNSEEN_KEPT
    assert "confusion_radiometric" not in card.extra
    for name in ("frames.png", "iou.png"):
        assert cv2.imread(str(tmp_path / "plots" / name)).std() > 1


def test_faults_are_one_line_that_names_the_file(data, tmp_path, capsys):
    model = by_level(tmp_path / "levels.onnx")

    def refused(*more):
        assert main(["evaluate", "segmentation", "--images", str(data / "images/thermal"), "--annotations",
                     str(data / "annotations/val.json"), "--model", str(model), *map(str, more)]) == 2
        line, = [line for line in capsys.readouterr().err.splitlines() if "frame/s" not in line and line.strip()]
        return line

    assert "0.png: not there" in refused("--masks", tmp_path)
    cv2.imwrite(str(data / "masks/semantic/1.png"), np.zeros((64, 80), np.uint8))
    assert "1.png: 80x64 px, its frame 160x128" in refused()
    (data / "annotations/val.json").write_text('{"images": []}')
    assert "val.json: no frames" in refused()
    (data / "annotations/val.json").write_text("{")
    assert "val.json: no COCO file" in refused()
