"""How large things look, as evidence: against what targets are computed by, on cards, in detectors, fitted."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_detector import FakeEngine

from thermalreid_ros.camera.geometry import GeometryError, GroundView, Intrinsics, Pose
from thermalreid_ros.cli import main
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.perspective import LIMIT, MEASURES, TERMS, Perspective, SizeEvidence, measures, \
    metric_views, terms, weighed
from thermalreid_ros.detection.types import CLASS_NAMES, Detection, drawn_side
from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.evaluation.detection import CocoSet
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.labellings import named_view, recorded_view
from thermalreid_ros.evaluation.perspective_fit import Candidates, _right, fit
from thermalreid_ros.files import shipped
from thermalreid_ros.reid.target import CameraPose, TargetError, sight

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(32.0))
CAR, PERSON, BICYCLE, DOG = range(4)


def looking(depression_deg=90.0, height_m=100.0, yaw_deg=30.0, camera=CAMERA) -> GroundView:
    rotation = Pose.looking(np.zeros(3), *np.radians((yaw_deg, depression_deg))).rotation
    return GroundView(camera, rotation, height_m)


def box_of(metres, view: GroundView, label: int, aspect=1.0, at=(320.0, 256.0)) -> np.ndarray:
    """The box that a detector draws, seen from straight above, around what has a diagonal of so many metres."""
    pixel_m = (view.height_m - 0.5 * (1.6, 1.6, 1.3, 0.57)[label]) / view.intrinsics.fx
    half = 0.5 * drawn_side(metres / pixel_m / np.hypot(1.0, aspect) * np.array((1.0, aspect)))
    return np.concatenate([at - half, at + half])


def size_alone(metres: float, nats: float = 1.0, sharp: float = 8.0) -> dict:
    """A card's block by which a person's diagonal is so many metres."""
    weights = {term: 0.0 for term, _ in TERMS}
    middle = np.log(metres)
    weights["size"], weights["size^2"] = 2 * sharp * middle, -sharp
    return {"classes": {"person": {"bias": nats - sharp * middle**2, "weights": weights,
                                   "within": {name: [-6.0, 6.0] for name in MEASURES}}}}


@settings(max_examples=60, deadline=None)
@given(st.floats(10.0, 90.0), st.floats(-180, 180), st.floats(20.0, 300.0), st.sampled_from(range(4)),
       st.floats(0, 640), st.floats(0, 512), st.floats(2, 120), st.floats(2, 120))
def test_boxes_measure_what_targets_are_told_to(depression, yaw, height, label, u, v, wide, tall):
    view = looking(depression, height, yaw)
    box = (u - wide / 2, v - tall / 2, u + wide / 2, v + tall / 2)
    measured = metric_views(view, np.array([box]), np.array([label]))[0]
    try:
        expected = sight(CAMERA, CameraPose(1, np.zeros(2), height, view.rotation, np.eye(6)),
                         Detection(label, 0.9, *box)).view
    except TargetError:
        expected = np.full(4, np.nan)
    np.testing.assert_allclose(measured, expected, rtol=1e-9)


def test_a_diagonal_is_that_of_the_object_from_any_height():
    for height in (40.0, 80.0, 160.0):
        view = looking(height_m=height)
        size, slender, flat, pixel = measures(view, box_of(5.0, view, CAR, 0.4)[None], np.array([CAR]))[0]
        assert np.exp(size) == pytest.approx(5.0) and np.exp(slender) == pytest.approx(0.4)
        assert flat == pytest.approx(0.0, abs=1e-6) and np.exp(pixel) == pytest.approx((height - 0.8) / CAMERA.fx)


def test_evidence_is_of_its_class_within_limits_and_none_where_nothing_is_known():
    perspective = Perspective.of_card(load_card({"perspective": size_alone(1.3)}))
    view = looking()
    boxes = np.stack([box_of(metres, view, PERSON) for metres in (1.3, 1.3, 40.0, 0.02)]
                     + [box_of(1.3, view, PERSON, at=(2.0, 256.0))])
    nats = perspective.evidence(view, boxes, np.array([PERSON, CAR, PERSON, PERSON, PERSON]))
    assert nats == pytest.approx([1.0, 0.0, -LIMIT, -LIMIT, 0.0], abs=1e-3)
    level = looking(depression_deg=2.0)
    assert (perspective.evidence(level, boxes, np.full(5, PERSON)) == 0.0).all()
    assert perspective.evidence(view, np.zeros((0, 4)), np.zeros(0, int)).shape == (0,)


def test_beyond_what_was_fitted_the_evidence_stays_as_at_its_edge():
    row = SizeEvidence(0.0, np.array([1.0 if term == "size^3" else 0.0 for term, _ in TERMS]),
                       np.array([-1.0, -1.0, 0.0, -4.0]), np.array([1.0, 1.0, 1.0, -1.0]))
    measured = np.array([[0.5, 0, 0, -2], [1.0, 0, 0, -2], [1.2, 3, 7, 9], [-9.0, 0, 0, -2], [np.nan, 0, 0, -2]])
    assert row.of(measured) == pytest.approx([0.125, 1.0, 1.0, -1.0, 0.0])


def test_terms_are_products_of_measures():
    assert terms(np.array([[2.0, 3.0, 5.0, 7.0]]))[0] == pytest.approx([2, 4, 8, 10, 14, 3, 9, 15, 5, 7, 49])


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(-LIMIT, LIMIT)), min_size=1, max_size=30))
def test_weighed_scores_are_scores_and_evidence_can_be_taken_back(pairs):
    scores, nats = np.array(pairs, np.float32).T
    out = weighed(scores, nats)
    assert out.dtype == np.float32 and (out >= 0).all() and (out <= 1).all()
    inside = (scores > 1e-5) & (scores < 1 - 1e-5)
    assert ((out > scores) == (nats > 0))[inside & (np.abs(nats) > 1e-2)].all()
    np.testing.assert_allclose(weighed(out, -nats)[inside], scores[inside], rtol=1e-2)
    np.testing.assert_allclose(weighed(scores, 0 * nats)[inside], scores[inside], rtol=1e-5)


def load_card(extra: dict):
    return FakeEngine([], [], [], extra=extra).card


def test_cards_tell_it_or_say_what_is_damaged():
    assert Perspective.of_card(load_card({})) is None
    block = size_alone(1.3)
    person = block["classes"]["person"]
    again = Perspective.of_card(load_card({"perspective": block})).to_mapping()
    assert Perspective.of_card(load_card({"perspective": again})).to_mapping() == again
    for damage in ({"classes": 3}, {"classes": {"person": {}}}, {}, 7, {"classes": {"lorry": person}},
                   {"classes": {"person": {**person, "bias": float("nan")}}},
                   {"classes": {"person": {**person, "within": {name: [1.0, -1.0] for name in MEASURES}}}},
                   {"classes": {"person": {**person, "within": {name: [1.0] for name in MEASURES}}}}):
        with pytest.raises(EngineError, match="perspective is damaged"):
            Perspective.of_card(load_card({"perspective": damage}))


@pytest.mark.parametrize("rotation, height", [(np.eye(2), 10.0), (np.full((3, 3), np.nan), 10.0), (np.eye(3), 0.0),
                                              (np.eye(3), np.inf), (np.eye(3), np.nan)])
def test_a_view_without_height_or_attitude_is_none(rotation, height):
    with pytest.raises(GeometryError):
        GroundView(CAMERA, rotation, height)


def test_a_detector_weighs_before_its_threshold_and_orders_anew():
    view = looking()
    right, large, beside = (box_of(m, view, PERSON, at=at) for m, at in (
        (1.3, (100.0, 100.0)), (5.0, (300.0, 300.0)), (5.0, (500.0, 400.0))))
    engine = FakeEngine([beside, large, right], [0.9, 0.5, 0.2], [CAR, PERSON, PERSON],
                        extra={"perspective": size_alone(1.3)})
    detector, frame = Detector(engine, score_threshold=0.3), np.zeros((512, 640), np.uint8)
    plain = detector.detect(frame)
    assert not plain.perspective and [d.class_id for d in plain.detections] == [CAR, PERSON]
    seen = detector.detect(frame, view=view)
    assert seen.perspective and [d.class_id for d in seen.detections] == [CAR, PERSON]  # the large one went, 0.2 came
    assert seen.detections[1].score == pytest.approx(0.2 * np.e / (0.8 + 0.2 * np.e), abs=1e-3)
    assert seen.detections[1].x_min == pytest.approx(right[0], abs=1e-3)
    assert seen.detections[0].score == pytest.approx(0.9)  # nothing is known of cars' sizes
    assert detector.detect(frame) == replace(plain, inference_ms=pytest.approx(0.0, abs=1e3))
    unaware = Detector(FakeEngine([large], [0.5], [PERSON]))
    assert not unaware.detect(frame, view=view).perspective


@pytest.mark.parametrize("name", ["yolo_compact", "yolo_semantic"])
def test_shipped_detectors_know_sizes(name):
    perspective = Detector(load_engine(name)).perspective
    assert set(perspective.classes) == set(CLASS_NAMES)
    view = looking(60.0, 90.0)
    for label, likely, unlikely in ((CAR, 4.8, 10.0), (PERSON, 1.2, 4.0), (BICYCLE, 1.9, 5.0), (DOG, 0.9, 4.0)):
        boxes = np.stack([box_of(metres, view, label) for metres in (likely, unlikely)])
        good, bad = perspective.evidence(view, boxes, np.full(2, label))
        assert good > bad + 0.5 and abs(good) < 1.0


def drawn_set(rng, frames=60) -> Candidates:
    """Persons of 1.3 m, and as many false alarms of any size with the same scores; a few dogs."""
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(frames)]
    annotations, results, rows = [], [], []
    for n in range(frames):
        for k in range(8):
            true = k % 2 == 0
            size = rng.normal(np.log(1.3), 0.1) if true else rng.uniform(-1.5, 2.0)
            box = [20.0 * k, 10.0, 9.0, 9.0]
            if true:
                annotations.append({"id": len(annotations) + 1, "image_id": n, "category_id": PERSON, "iscrowd": 0,
                                    "area": 81.0, "bbox": box})
            score = float(np.clip(rng.normal(0.5, 0.15) + (0.1 if true else 0.0), 0.02, 0.98))
            results.append({"image_id": n, "category_id": PERSON, "bbox": box})
            rows.append((size, rng.normal(0, 0.3), rng.uniform(0, 0.8), rng.uniform(-3, -1.5), score, true, n))
    table = np.array(rows)
    coco = {"info": {}, "images": images, "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES)]}
    data = CocoSet(tuple(f"{n}.png" for n in range(frames)), coco, (PERSON,), True)
    return Candidates(data, table[:, :4], np.full(len(table), PERSON), table[:, 4], table[:, 5].astype(int),
                      table[:, 6].astype(int), results)


def test_fitted_evidence_finds_the_size_and_keeps_right_scores_on_the_average():
    drawn = drawn_set(np.random.default_rng(5))
    said = []
    model, figures = fit([drawn], said.append)
    assert set(model.classes) == {"person"} and len(said) == 3 and said[0].startswith("car: 0 right detections")
    nats = model.classes["person"].of(drawn.measured)
    assert nats[drawn.right == 1].mean() == pytest.approx(0.0, abs=0.1) and nats[drawn.right == 0].mean() < -0.8
    of = [model.classes["person"].of(np.array([[np.log(metres), 0.0, 0.4, -2.2]]))[0] for metres in (0.5, 1.3, 4.0)]
    assert of[1] > max(of[0], of[2]) + 1.5
    held, = figures["sets"]
    assert held["map50_with_perspective"] > held["map50"] + 0.1 and figures["found"]["person"] == 240


def test_held_out_figures_are_of_frames_that_were_not_fitted_on():
    """In each fifth of the frames persons have a size of their own: what the others tell is of no use there."""
    drawn = drawn_set(np.random.default_rng(6))
    own_m = np.array([0.3, 0.6, 1.2, 2.4, 4.8])[drawn.frame * 5 // 60]
    measured = drawn.measured.copy()
    measured[:, 0] = np.where(drawn.right == 1, np.log(own_m), np.random.default_rng(7).uniform(-1.5, 2.0, len(own_m)))
    _, figures = fit([replace(drawn, measured=measured)])
    held, = figures["sets"]
    assert held["map50_with_perspective"] < held["map50"]


def test_scores_of_one_and_objects_that_nobody_finds_spoil_no_card():
    drawn = drawn_set(np.random.default_rng(5))
    certain = replace(drawn, score=np.where(np.arange(len(drawn.score)) % 7, drawn.score, 1.0))
    model, _ = fit([certain])
    Perspective.of_card(load_card({"perspective": model.to_mapping()}))  # finite
    with pytest.raises(ThermalReidError, match="too few objects"):
        fit([replace(drawn, right=np.zeros_like(drawn.right))])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_hits_are_those_that_coco_counts(seed):
    """Random boxes of two classes, a third of them crowds, against COCOeval's own matches at an IoU of 0.5."""
    from faster_coco_eval import COCO, COCOeval_faster

    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 60, (8, 2)).round()
    annotations = [{"id": n + 1, "image_id": 1, "category_id": int(rng.integers(2)), "iscrowd": int(rng.random() < 0.3),
                    "area": 400.0, "bbox": [*xy, 20.0, 20.0]} for n, xy in enumerate(place.tolist())]
    found = [Detection(int(rng.integers(2)), score, x, y, x + 20.0, y + 20.0) for score, (x, y) in zip(
        np.sort(rng.uniform(0.1, 1.0, 12))[::-1], (place[rng.integers(8, size=12)] + rng.integers(-6, 7, (12, 2))))]
    truth = COCO({"info": {}, "images": [{"id": 1, "width": 99, "height": 99}], "annotations": annotations,
                  "categories": [{"id": n, "name": str(n)} for n in range(4)]})
    results = [{"image_id": 1, "category_id": one.class_id, "score": float(one.score),
                "bbox": [float(one.x_min), float(one.y_min), 20.0, 20.0]} for one in found]
    right = _right(found, annotations)
    for label in range(2):
        if not any(a["category_id"] == label and not a["iscrowd"] for a in annotations):
            continue
        own = [n for n, one in enumerate(found) if one.class_id == label]
        hits = int((right[own] == 1).sum())
        false = int((right[own] == 0).sum())
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=lambda *words: None)
        evaluation.params.catIds, evaluation.params.iouThrs = [label], np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
        real = sum(a["category_id"] == label and not a["iscrowd"] for a in annotations)
        recall = float(evaluation.eval["recall"][0, 0, 0, -1])
        assert max(recall, 0.0) == pytest.approx(hits / real)
        if hits + false:  # precision at the recall that all detections reach, which no interpolation raises
            last = evaluation.eval["precision"][0, :, 0, 0, -1]
            assert last[last > 0].min(initial=1.0) >= hits / (hits + false) - 1e-9


def test_commands_say_what_they_need(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert main(["train", "perspective", "--images", "x", "y", "--annotations", str(tmp_path / "a.json"), "--data",
                 "d"]) == 2
    assert "2 folders, --annotations 1 files" in capsys.readouterr().err
    drawn = drawn_set(np.random.default_rng(5), frames=2)
    (tmp_path / "a.json").write_text(json.dumps(drawn.data.coco))
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(b"")
    assert main(["evaluate", "detection", "--images", str(tmp_path), "--annotations", str(tmp_path / "a.json"),
                 "--no-perspective", "--focal-px", "1800"]) == 2
    assert "leave out one of --focal-px and --no-perspective" in capsys.readouterr().err


@pytest.mark.parametrize("changes, words", [
    ({"fx": 0.0}, "no positive focal lengths"), ({"fx": float("nan")}, "no positive focal lengths"),
    ({"altitude_m": -5.0}, "-5 m above the ground"), ({"width": float("nan")}, "do not tell how"),
    ({"width": None}, "do not tell how"), ({"yaw_deg": "north"}, "do not tell how"), ({"fx": None}, "do not tell how")])
def test_records_without_a_view_are_refused_by_name(changes, words):
    record = {"file_name": "7.png", "width": 640, "height": 512, "fx": 1000.0, "altitude_m": 90.0, "yaw_deg": 10.0,
              "depression_deg": 60.0, "roll_deg": 1.0}
    view = recorded_view(record)
    assert (view.intrinsics.fx, view.intrinsics.cx, view.height_m) == (1000.0, 320.0, 90.0)
    with pytest.raises(ThermalReidError, match=f"^7.png: .*{words}"):
        recorded_view({**record, **changes})


def test_names_of_hit_uav_tell_altitude_and_angle():
    record = {"file_name": "0_100_30_0_03306.jpg", "width": 640, "height": 512}
    view = named_view(record, 1800.0)
    assert view.height_m == 100.0 and view.intrinsics.fx == 1800.0
    assert -view.rotation[2, 2] == pytest.approx(np.sin(np.radians(30.0)))  # the line of sight, below the horizon
    for changes in ({"file_name": "frame7.jpg"}, {"file_name": "0_x_30_0_1.jpg"}, {"width": None}):
        with pytest.raises(ThermalReidError, match="leave out --focal-px"):
            named_view({**record, **changes}, 1800.0)


@pytest.fixture
def real_set(shared_data, tmp_path):
    """Forty frames of HIT-UAV with much to find, as a set that tells from where each was taken."""
    content = json.loads((shared_data / "hit-uav/annotations/val.json").read_text())
    count = {r["id"]: sum(a["image_id"] == r["id"] for a in content["annotations"]) for r in content["images"]}
    records = sorted(content["images"], key=lambda r: -count[r["id"]])[:40]
    kept = {r["id"] for r in records}
    annotations = [a for a in content["annotations"] if a["image_id"] in kept]
    named = {**content, "images": records, "annotations": annotations}
    (tmp_path / "named.json").write_text(json.dumps(named))
    told = [{**r, "fx": 1800.0, "altitude_m": float(r["file_name"].split("_")[1]), "yaw_deg": 0.0,
             "depression_deg": float(r["file_name"].split("_")[2]), "roll_deg": 0.0} for r in records]
    (tmp_path / "told.json").write_text(json.dumps({**named, "images": told}))
    return shared_data / "hit-uav/val", tmp_path


def test_sizes_are_fitted_noted_on_the_card_and_used(real_set, capsys):
    images, folder = real_set
    for suffix in (".onnx", ".yaml", ".int8"):
        shutil.copy(shipped("models") / f"yolo_compact{suffix}", folder / f"mine{suffix}")
    card = yaml.safe_load((folder / "mine.yaml").read_text()) | {"name": "mine"}
    del card["perspective"]
    (folder / "mine.yaml").write_text(yaml.safe_dump(card))
    model, told = ["--model", str(folder / "mine.onnx")], ["--images", str(images), "--annotations",
                                                            str(folder / "told.json")]
    detect = ["evaluate", "detection", *model, "--images", str(images)]

    def measured(*words: str) -> dict:
        assert main([*detect, *words, "--json", str(folder / "out.json")]) == 0
        return json.loads((folder / "out.json").read_text())

    assert main([*detect, "--annotations", str(folder / "told.json"), "--perspective"]) == 2
    assert "was not told how large things look" in capsys.readouterr().err
    assert main(["train", "perspective", *model, *told, "--data", "a test", "--plots", str(folder / "plots"), "--json",
                 str(folder / "fit.json")]) == 0
    assert "dog: 0 right detections" in capsys.readouterr().out
    after = yaml.safe_load((folder / "mine.yaml").read_text())
    block = after.pop("perspective")
    assert after == {**card, "sha256": after["sha256"]} and set(block["classes"]) == {"car", "person", "bicycle"}
    assert "--annotations" in block["fitted"]["command"] and (folder / "plots/perspective_mine.png").is_file()
    fitted = json.loads((folder / "fit.json").read_text())
    assert fitted["classes"] == ["car", "person", "bicycle"] and fitted["found"]["person"] > 100
    plain = measured("--annotations", str(folder / "told.json"))
    seen = measured("--annotations", str(folder / "told.json"), "--perspective")
    by_name = measured("--annotations", str(folder / "named.json"), "--focal-px", "1800")
    assert (plain["perspective"], seen["perspective"], by_name["perspective"]) == (False, True, True)
    assert seen["ap50"] != plain["ap50"] and seen["ap50"] == by_name["ap50"]
    assert seen["map50"] > plain["map50"] - 0.005
    # Fewer frames tell less: what the card knows is not lost, and a damaged one can be mended.
    few = json.loads((folder / "told.json").read_text())
    (folder / "few.json").write_text(json.dumps({**few, "images": few["images"][:1]}))
    before = (folder / "mine.yaml").read_bytes()
    assert main(["train", "perspective", *model, "--images", str(images), "--annotations", str(folder / "few.json"),
                 "--data", "x"]) == 2
    assert (folder / "mine.yaml").read_bytes() == before
    (folder / "mine.yaml").write_text(yaml.safe_dump({**card, "perspective": {"classes": 7}}))
    assert main([*detect, "--annotations", str(folder / "told.json")]) == 2
    assert main(["train", "perspective", *model, *told, "--data", "a test"]) == 0
    assert yaml.safe_load((folder / "mine.yaml").read_text())["perspective"]["classes"] == block["classes"]
