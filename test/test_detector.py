"""The detector over an engine that answers as told, and over the shipped model on real frames."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from thermalreid_ros.detection.detector import Detector, suppress
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.engine import EngineError, ModelCard, TensorSpec, load_engine


class FakeEngine:
    """Answers with fixed candidates and keeps what it was given."""

    provider = "cpu"

    def __init__(self, boxes, scores, labels, semantics_stride=0, classes=CLASS_NAMES, semantics_dtype="uint8",
                 extra=None):
        inputs = [TensorSpec("thermal", (1, 1, "height", "width"), "uint8", typical_shape=(1, 1, 512, 640))]
        if semantics_stride:
            inputs.append(TensorSpec("semantics", (1, 1, "rows", "columns"), semantics_dtype,
                                     typical_shape=(1, 1, 512 // semantics_stride, 640 // semantics_stride)))
        self.card = ModelCard("fake", "detection", "none", tuple(inputs), (), "", classes, (32,), extra=extra or {})
        self.out = {"boxes": np.array([boxes], np.float32).reshape(1, -1, 4), "scores": np.array([scores], np.float32),
                    "labels": np.array([labels], np.int64)}
        self.given = None

    def run(self, inputs):
        self.given = {name: array.copy() for name, array in inputs.items()}
        return self.out


def test_detections_are_thresholded_clipped_and_suppressed():
    engine = FakeEngine(
        boxes=[(10, 10, 30, 30), (11, 10, 31, 30), (11, 10, 31, 30), (-5, 90, 20, 130), (50, 50, 60, 60)],
        scores=[0.9, 0.8, 0.7, 0.5, 0.1], labels=[0, 0, 1, 2, 0])
    result = Detector(engine, score_threshold=0.3, iou_threshold=0.6).detect(np.zeros((100, 120), np.uint8))
    assert [d.class_name for d in result.detections] == ["car", "person", "bicycle"]  # the second car is the first one
    assert result.detections[0] == Detection(0, pytest.approx(0.9), 10, 10, 30, 30)
    np.testing.assert_allclose(result.detections[2].box, (0, 90, 20, 100))
    assert result.semantics == "none" and result.inference_ms >= 0


def test_what_lies_in_the_padding_is_no_detection():
    engine = FakeEngine(boxes=[(121, 5, 127, 15), (5, 100.2, 20, 120)], scores=[0.9, 0.8], labels=[0, 0])
    assert Detector(engine).detect(np.zeros((100, 120), np.uint8)).detections == ()


def test_frames_of_any_size_are_padded_by_their_edge():
    engine = FakeEngine([], [], [])
    detector = Detector(engine)
    frame = np.arange(100 * 130, dtype=np.uint32).reshape(100, 130).astype(np.uint8)
    detector.detect(frame)
    given = engine.given["thermal"]
    assert given.shape == (1, 1, 128, 160)
    np.testing.assert_array_equal(given[0, 0, :100, :130], frame)
    np.testing.assert_array_equal(given[0, 0, :100, 130:], np.repeat(frame[:, -1:], 30, 1))
    np.testing.assert_array_equal(given[0, 0, 100:], np.repeat(given[0, 0, 99:100], 28, 0))
    detector.detect(np.zeros((64, 640), np.uint8))  # lower than the heads' candidates need
    assert engine.given["thermal"].shape == (1, 1, 96, 640)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_labelling_is_given_at_the_models_resolution_and_goes_away_again(stride):
    engine = FakeEngine([], [], [], semantics_stride=stride)
    detector = Detector(engine)
    labels = np.zeros((100, 128), np.uint8)
    labels[:48], labels[48:60] = 2, 255
    assert detector.detect(np.zeros((100, 128), np.uint8), labels, "map").semantics == "map"
    given = engine.given["semantics"][0, 0]
    assert given.shape == (128 // stride, 128 // stride) and given.dtype == np.uint8
    rows = np.array([48, 60, 100]) // stride
    for part, value in zip(np.split(given, rows), (2, 255, 0, 255)):  # the last lies in the padding
        assert (part == value).all()
    assert detector.detect(np.zeros((100, 128), np.uint8)).semantics == "none"
    assert (engine.given["semantics"] == 255).all()


def test_a_model_that_wants_planes_is_refused():
    with pytest.raises(EngineError, match="'fake' takes its labelling in another form .*; export it again"):
        Detector(FakeEngine([], [], [], semantics_stride=1, semantics_dtype="float32"))


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(EngineError, match="detects cat, car; a detector's classes are car, person"):
        Detector(FakeEngine([], [], [], classes=("cat", "car")))


boxes_strategy = hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(4)),
                            elements=st.floats(0, 100, width=32)).map(
    lambda a: np.concatenate((a[:, :2], a[:, :2] + a[:, 2:]), 1))


@given(boxes_strategy, st.integers(0, 1), st.floats(0.1, 0.9))
def test_suppression_keeps_a_maximal_set_without_overlaps(boxes, classes, threshold):
    labels = np.arange(len(boxes)) % (classes + 1)
    kept = suppress(boxes, labels, threshold, 100)

    def overlaps(i, j):
        inter = (np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])).clip(0).prod()
        areas = (boxes[[i, j], 2:] - boxes[[i, j], :2]).prod(1)
        return labels[i] == labels[j] and inter > threshold * (areas.sum() - inter)

    assert list(kept) == sorted(kept)
    assert not any(overlaps(i, j) for n, i in enumerate(kept) for j in kept[n + 1:])
    assert all(any(overlaps(i, j) for i in kept if i < j) for j in set(range(len(boxes))) - set(kept))
    assert len(suppress(boxes, labels, threshold, 2)) == min(2, len(kept))


@pytest.fixture(scope="module")
def shipped_detector():
    return Detector(load_engine("yolo_compact", providers=("cpu",)))


def test_the_shipped_model_sees_as_much_in_a_frame_moved_by_its_stride(shipped_detector, shared_data):
    frame = cv2.imread(str(shared_data / "hit-uav/val/1_80_90_0_01343.jpg"), cv2.IMREAD_GRAYSCALE)
    whole = shipped_detector.detect(frame).detections
    moved = shipped_detector.detect(np.ascontiguousarray(frame[32:, 64:])).detections
    inner = [d for d in whole if d.x_min > 128 and d.y_min > 96 and d.score > 0.5]
    assert inner
    for d in inner:
        assert any(m.class_id == d.class_id and np.abs(m.box + (64, 32, 64, 32) - d.box).max() < 4 for m in moved)


def test_other_models_with_the_same_classes_are_no_detectors():
    with pytest.raises(EngineError, match="'reid_embedding' does .*, not detection"):
        Detector(load_engine("reid_embedding"))
