"""Average precision against hand-computed cases, and the command as a user calls it."""

import json
import shutil

import cv2
import numpy as np
import pytest
from thermalreid_ros.cli import main
from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.engine.engine import open_model
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import read_coco_set, run_detector, score
from thermalreid_ros.files import shipped


@pytest.fixture
def coco(tmp_path):
    """Two frames: one with two cars and a region not to judge, one with a person."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((128, 160), np.uint8))
    boxes = [(1, 2, (10, 10, 20, 20)), (1, 2, (60, 60, 20, 20)), (1, 9, (100, 10, 40, 40)), (2, 1, (50, 50, 10, 20)),
             (2, 7, (5, 5, 30, 30))]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "date_captured": "1"},
                   {"id": 2, "file_name": "b.png", "date_captured": 2}],
        "categories": [{"id": 1, "name": "Person"}, {"id": 2, "name": "Car"}, {"id": 9, "name": "DontCare"},
                       {"id": 7, "name": "OtherVehicle"}],
        "annotations": [{"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
                        for n, (i, c, b) in enumerate(boxes, 1)]}
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


def test_rendered_sets_are_compared_without_the_margin_that_detectors_draw(coco):
    """Their boxes are tight; annotations of people have that margin, too."""
    found = Detection(0, 0.9, 10.0, 10.0, 18.0, 18.0)

    class Drawing:
        def detect(self, frame, labels, view=None):
            return DetectionResult((found,), 1.0)

    results, _ = run_detector(Drawing(), read_coco_set(coco.parent, coco))
    assert results[0]["bbox"] == [10.0, 10.0, 8.0, 8.0]
    content = json.loads(coco.read_text())
    for annotation in content["annotations"]:
        annotation["instance"] = 1
    coco.write_text(json.dumps(content))
    data = read_coco_set(coco.parent, coco)
    results, _ = run_detector(Drawing(), data)
    assert data.tight and results[0]["bbox"] == pytest.approx([14 - 3 / 1.12, 14 - 3 / 1.12, 6 / 1.12, 6 / 1.12])


def _result(image, label, box, confidence):
    return {"image_id": image, "category_id": label, "bbox": list(box), "score": confidence}


def test_perfect_detections_score_one(coco):
    data = read_coco_set(coco.parent, coco)
    found = [_result(1, 0, (10, 10, 20, 20), 0.9), _result(1, 0, (60, 60, 20, 20), 0.8),
             _result(2, 1, (50, 50, 10, 20), 0.7)]
    figures = score(found, data)
    assert figures["ap50"] == {"car": 1.0, "person": 1.0, "bicycle": None, "dog": None}
    assert figures["map50"] == figures["map50_95"] == figures["mean_iou"] == 1.0


def test_what_lies_in_a_region_not_to_judge_costs_nothing_but_another_vehicle_does(coco):
    data = read_coco_set(coco.parent, coco)
    found = [_result(1, 0, (105, 15, 20, 20), 0.95), _result(1, 0, (10, 10, 20, 20), 0.9),
             _result(1, 0, (60, 60, 20, 20), 0.8), _result(2, 1, (50, 50, 10, 20), 0.7)]
    assert score(found, data)["ap50"]["car"] == 1.0
    # a false car ahead of both true ones: precision 1/2 up to recall 1/2, then 2/3, made monotone: 2/3 throughout
    found[0] = _result(2, 0, (5, 5, 30, 30), 0.95)
    assert score(found, data)["ap50"]["car"] == pytest.approx(2 / 3, abs=1e-6)


def test_half_of_the_cars_is_half_the_precision_and_overlap_is_counted(coco):
    data = read_coco_set(coco.parent, coco)
    figures = score([_result(1, 0, (10, 10, 20, 16), 0.9)], data)  # IoU 0.8
    assert figures["ap50"]["car"] == pytest.approx(51 / 101)  # 101 recalls from 0, of which 0..0.5 are reached
    assert figures["ap50"]["person"] == 0.0
    assert figures["mean_iou"] == pytest.approx(0.8)
    # IoU 0.5 to 0.8 in steps of 0.05 are 7 of 10 thresholds
    assert figures["map50_95"] == pytest.approx(51 / 101 * 7 / 10 / 2)


def test_no_detections_at_all_is_zero(coco):
    figures = score([], read_coco_set(coco.parent, coco))
    assert figures["map50"] == 0.0 and figures["mean_iou"] is None


def test_dates_choose_frames(coco):
    data = read_coco_set(coco.parent, coco, dates=("2",))
    assert [path.name for path in data.paths] == ["b.png"] and data.present == (1,)
    with pytest.raises(ThermalReidError, match="no frames of 20991231"):
        read_coco_set(coco.parent, coco, dates=("20991231",))


@pytest.mark.parametrize("part, changed", [
    ("annotations", {"bbox": None}), ("annotations", {"bbox": [1, 2, 3]}), ("annotations", {"bbox": ["a", 2, 3, 4]}),
    ("annotations", {"bbox": [float("nan"), 2, 3, 4]}), ("annotations", {"category_id": 99}),
    ("annotations", {"image_id": ...}), ("annotations", {"bbox": ...}), ("categories", {"name": None}),
    ("images", {"file_name": ...}), ("images", {"file_name": None}), ("images", {"id": ...}), ("images", {"id": 2}),
    ("categories", {"id": 2}), ("annotations", {"bbox": [10, 10, -5, 5]})])
def test_damaged_annotations_are_refused(coco, part, changed):
    """... takes a key away."""
    content = json.loads(coco.read_text())
    item = {**content[part][0], **changed}
    content[part][0] = {key: value for key, value in item.items() if value is not ...}
    coco.write_text(json.dumps(content))
    with pytest.raises(ThermalReidError, match="^[^\n]*coco.json: (no COCO|two of its images have one id)[^\n]*$"):
        read_coco_set(coco.parent, coco)


@pytest.mark.parametrize("box", [[160, 0, 5, 5], [-5, 0, 5, 5], [0, 0, 1e300, 5], [0, 0, 10**400, 5]])
def test_boxes_beyond_their_frame_are_refused(coco, box):
    content = json.loads(coco.read_text())
    content["images"][0] |= {"width": "160", "height": 128}
    coco.write_text(json.dumps(content))
    assert read_coco_set(coco.parent, coco)
    content["annotations"][0]["bbox"] = box
    coco.write_text(json.dumps(content))
    with pytest.raises(ThermalReidError, match="coco.json: no COCO"):
        read_coco_set(coco.parent, coco)


@pytest.mark.parametrize("identity", ['"2029"', "2029.5", f"{2**70}"])
def test_ids_of_frames_may_be_anything(coco, identity):
    coco.write_text(coco.read_text().replace('"id": 1, "file', f'"id": {identity}, "file').replace(
        '"image_id": 1,', f'"image_id": {identity},'))
    assert score([_result(1, 0, (10, 10, 20, 20), 0.9)], read_coco_set(coco.parent, coco))["mean_iou"] == 1.0


def test_crowds_and_areas_may_be_null(coco):
    content = json.loads(coco.read_text())
    content["annotations"][0] |= {"iscrowd": None, "area": None}
    coco.write_text(json.dumps(content))
    assert read_coco_set(coco.parent, coco).coco["annotations"][0]["area"] == 400


def test_frames_that_are_not_those_annotated_are_refused(coco, capsys):
    """Both would be measured as they are, and hardly anything found."""
    def complaint():
        assert main(["evaluate", "detection", "--images", str(coco.parent), "--annotations", str(coco)]) == 2
        return capsys.readouterr().err

    content = json.loads(coco.read_text())
    content["images"][0] |= {"width": "320", "height": 256}
    coco.write_text(json.dumps(content))
    assert "a.png: 160x128 px, but its annotations are of 320x256 px" in complaint()
    cv2.imwrite(str(coco.parent / "a.png"), np.full((128, 160), 29000, np.uint16))
    assert "a.png: uint16 pixels" in complaint()


def test_faults_are_one_line_that_names_the_file(coco, tmp_path, capsys):
    def refused(*arguments):
        assert main(["evaluate", "detection", "--model", "yolo_compact", *map(str, arguments)]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "frame/s" not in line and line.strip()]
        assert len(lines) == 1  # besides the progress bar
        return lines[0]

    assert "nowhere.json: cannot be read" in refused("--images", tmp_path, "--annotations", tmp_path / "nowhere.json")
    for text in ('{"images": [', "[" * 10**5):
        (tmp_path / "broken.json").write_text(text)
        assert "broken.json: no COCO" in refused("--images", tmp_path, "--annotations", tmp_path / "broken.json")
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    assert "a.png: not there" in refused("--images", tmp_path, "--annotations", coco)
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert "a.png: not a readable image" in refused("--images", tmp_path, "--annotations", coco)


def test_the_command_writes_the_keys_that_others_measure(shared_data, tmp_path):
    everything = json.loads((shared_data / "hit-uav/annotations/val.json").read_text())
    few = sorted(everything["images"], key=lambda record: record["file_name"])[::15]
    (tmp_path / "few.json").write_text(json.dumps({**everything, "images": few}))
    for suffix in (".onnx", ".yaml"):
        shutil.copy(shipped("models") / f"yolo_compact{suffix}", tmp_path)
    assert main(["evaluate", "detection", "--images", str(shared_data / "hit-uav/val"), "--annotations",
                 str(tmp_path / "few.json"), "--model", str(tmp_path / "yolo_compact.onnx"), "--card", "a few frames",
                 "--json", str(tmp_path / "out.json"),
                 "--plots", str(tmp_path / "plots")]) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert {"ap50", "map50", "map50_95", "mean_iou", "median_ms"} <= figures.keys()
    assert figures["ap50"].keys() == {"person", "car", "bicycle", "dog"}
    assert figures["frames"] == 20 and figures["map50"] > 0.7 and figures["mean_iou"] > 0.7
    _, card = open_model(tmp_path / "yolo_compact.onnx")
    noted = {metric["name"]: metric for metric in card.metrics if metric["data"] == "a few frames, 20 frames"}
    assert noted["mean AP50"]["value"] == pytest.approx(figures["map50"], abs=1e-4)
    assert " --model yolo_compact --images hit-uav/val " in noted["mean AP50"]["command"]
    for name in ("precision_recall.png", "frames.png"):
        assert cv2.imread(str(tmp_path / "plots" / name)).std() > 1
