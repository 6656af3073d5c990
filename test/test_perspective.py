"""How large things look, as evidence: against what targets are computed by, on cards, in detectors, fitted."""

import json
from dataclasses import replace

import numpy as np
import pytest
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
from thermalreid_ros.evaluation.perspective_fit import Candidates, fit
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
    for label, likely, unlikely in ((CAR, 4.8, 1.2), (PERSON, 1.2, 4.0), (BICYCLE, 1.9, 5.0), (DOG, 0.9, 4.0)):
        boxes = np.stack([box_of(metres, view, label) for metres in (likely, unlikely)])
        good, bad = perspective.evidence(view, boxes, np.full(2, label))
        assert good > bad + 1.0 and abs(good) < 1.0


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
    assert set(model.classes) == {"person"} and len(said) == 3 and "car: fewer than 30" in said[0]
    nats = model.classes["person"].of(drawn.measured)
    assert nats[drawn.right == 1].mean() == pytest.approx(0.0, abs=0.1) and nats[drawn.right == 0].mean() < -0.8
    of = [model.classes["person"].of(np.array([[np.log(metres), 0.0, 0.4, -2.2]]))[0] for metres in (0.5, 1.3, 4.0)]
    assert of[1] > max(of[0], of[2]) + 1.5
    held, = figures["sets"]
    assert held["map50_with_perspective"] > held["map50"] + 0.1 and figures["found"]["person"] == 240


def test_commands_say_what_they_need(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert main(["train", "perspective", "--images", "x", "y", "--annotations", str(tmp_path / "a.json"), "--data",
                 "d"]) == 2
    assert "2 folders, --annotations 1 files" in capsys.readouterr().err
