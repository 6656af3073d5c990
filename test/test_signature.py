"""The thermal signature and Eq. (1)."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.reid.signature import (CELSIUS, GREY, Blobs, SignatureError, ThermalSignature,
                                            bhattacharyya_distance, compute_signature, crop_box, find_blobs,
                                            mser_distance, scale_for, signature_distance, temperature_histogram)


def blobs(y, value) -> Blobs:
    y, value = np.array(y, float), np.array(value, float)
    return Blobs(np.zeros_like(y), y, value, np.full_like(y, 50.0))


def disc(size: tuple[int, int], radius: float, inside: float, outside: float, at=(0.5, 0.5)) -> np.ndarray:
    rows, columns = np.mgrid[:size[0], :size[1]]
    near = np.hypot(rows - at[1] * (size[0] - 1), columns - at[0] * (size[1] - 1)) <= radius
    return cv2.GaussianBlur(np.where(near, inside, outside).astype(np.float32), (0, 0), 0.8)


histograms = hnp.arrays(np.float64, 16, elements=st.floats(0, 1)).filter(lambda h: h.sum() > 1e-3).map(
    lambda h: h / h.sum())
blob_sets = st.lists(st.tuples(st.floats(0, 48), st.floats(-20, 100)), max_size=25).map(
    lambda rows: blobs([row[0] for row in rows], [row[1] for row in rows]))


def test_equation_1_on_an_example_computed_by_hand():
    """d_H: sqrt(1 - sqrt(0.25 * 1)). d_MSER: maxima of |dy| and |dT| are 38 and 18; the three blobs match at
    0.4*2/38 + 0.6*2/18, 0.4*10/38 + 0.6*6/18 and 0.4*10/38 + 0.6*4/18, whose mean is 4/19."""
    first = ThermalSignature(np.full(4, 0.25), blobs([10, 30, 50], [20, 30, 40]), CELSIUS)
    second = ThermalSignature(np.array([1.0, 0, 0, 0]), blobs([12, 40], [22, 36]), CELSIUS)
    for one, other in ((first, second), (second, first)):
        distance = signature_distance(one, other, beta_h=0.4)
        assert distance.histogram == pytest.approx(0.7071067811865476, abs=1e-9)
        assert distance.mser == pytest.approx(0.21052631578947367, abs=1e-9)
        assert distance.total == pytest.approx(0.40915850, abs=1e-6)


def test_blobs_of_sets_of_one_size_are_matched_both_ways():
    """Maxima 40 and 10. One way 0, 0.4*15/40 + 0.6*0; the other 0, 0.4*15/40 + 0.6*0 from the nearest of
    equal value, or from the other 0.4*25/40 + 0.6*10/10: the first is nearer."""
    assert mser_distance(blobs([0, 40], [0, 10]), blobs([0, 25], [0, 10])) == pytest.approx(0.5 * 0.4 * 15 / 40)


def test_an_outlier_blob_is_dropped():
    y, value = np.linspace(0, 19, 20), np.linspace(20, 30, 20)
    few = blobs([0, 10, 19], [20, 25, 30])
    clean = mser_distance(blobs(y, value), few)
    assert mser_distance(blobs([*y, 500.0], [*value, 25.0]), few) == pytest.approx(clean, abs=1e-12)
    assert mser_distance(blobs([*y, 20.0], [*value, 25.0]), few) != pytest.approx(clean, abs=1e-6)


def test_empty_sets_of_blobs():
    none, some = blobs([], []), blobs([3, 9], [1, 2])
    assert mser_distance(none, none) == 0.0
    assert mser_distance(none, some) == mser_distance(some, none) == 1.0


def test_two_histograms_without_overlap_are_one_apart():
    assert bhattacharyya_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0, abs=1e-12)


@given(histograms, histograms, histograms)
def test_bhattacharyya_is_a_metric_and_equals_its_definition(h, q, other):
    distance = bhattacharyya_distance(h, q)
    assert bhattacharyya_distance(h, h) == 0.0
    assert distance == bhattacharyya_distance(q, h)
    assert 0.0 <= distance <= 1.0
    assert distance**2 == pytest.approx(1.0 - np.sqrt(h * q).sum(), abs=1e-9)
    assert distance <= bhattacharyya_distance(h, other) + bhattacharyya_distance(other, q) + 1e-12


@given(blob_sets, blob_sets)
def test_mser_distance_is_symmetric_bounded_and_zero_for_equals(first, second):
    distance = mser_distance(first, second)
    assert distance == pytest.approx(mser_distance(second, first), abs=1e-12)
    assert 0.0 <= distance <= 1.0 + 1e-12
    assert mser_distance(first, first) == 0.0


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(3, 40), st.integers(3, 40))), st.sampled_from([GREY, CELSIUS]))
def test_any_crop_has_a_signature_at_no_distance_from_itself(pixels, scale):
    first, second = (compute_signature(pixels.astype(np.float32), scale) for _ in range(2))
    assert first.histogram.shape == (scale.bins,)
    assert first.histogram.sum() == pytest.approx(1.0, abs=1e-12)
    assert len(first.blobs) == 0 or (0 <= first.blobs.y.min() and first.blobs.y.max() <= 48)
    for beta_h in (0.0, 0.4, 1.0):
        assert signature_distance(first, second, beta_h).total == 0.0


def test_the_histogram_sits_at_the_temperature_and_its_ends_hold_what_is_beyond():
    histogram = temperature_histogram(np.full((8, 8), 30.5, np.float32), CELSIUS)
    assert histogram.argmax() == 50  # (30.5 + 20) / 1 K
    assert histogram[47:54].sum() == pytest.approx(1.0, abs=1e-3)
    assert temperature_histogram(np.full((8, 8), 500.0, np.float32), CELSIUS).argmax() == CELSIUS.bins - 1
    assert temperature_histogram(np.full((8, 8), -90.0, np.float32), CELSIUS).argmax() == 0


def test_the_centre_of_a_crop_weighs_more_than_its_corners():
    crop = np.full((20, 20), 10.0, np.float32)
    crop[7:13, 7:13] = 40.0
    histogram = temperature_histogram(crop, CELSIUS)
    assert histogram[55:66].sum() > 1.7 * 36 / 400  # more than its share of the pixels


@pytest.mark.parametrize("inside, outside", [(200.0, 60.0), (30.0, 120.0)])
def test_one_disc_is_found_where_it_is_bright_or_dark(inside, outside):
    found = find_blobs(disc((24, 24), 5, inside, outside, at=(0.5, 0.7)), GREY)
    like = np.abs(found.value - inside) < 25
    assert like.any()
    assert np.abs(found.y[like] / 48 - 0.7).min() < 0.05 and np.abs(found.x[like] / 48 - 0.5).min() < 0.05


def test_size_in_the_frame_and_a_drift_of_the_camera_hardly_matter_to_blobs():
    small, large = disc((20, 14), 4, 35.0, 20.0), disc((60, 42), 12, 35.0, 20.0)
    other = disc((20, 14), 2, 24.0, 35.0, at=(0.3, 0.2))
    near, far = (mser_distance(find_blobs(small, CELSIUS), find_blobs(crop, CELSIUS)) for crop in (large, other))
    assert near < 0.5 * far
    low, high = find_blobs(disc((24, 24), 6, 90, 60), GREY), find_blobs(disc((24, 24), 6, 150, 120), GREY)
    assert np.allclose(low.y, high.y, atol=0.5) and np.allclose(low.value + 60, high.value, atol=0.5)


def test_a_flat_crop_has_no_blobs():
    assert len(find_blobs(np.full((20, 10), 21.0, np.float32), CELSIUS)) == 0


def test_signatures_of_temperatures_and_grey_levels_are_not_compared():
    crop = disc((12, 12), 3, 60, 20)
    with pytest.raises(SignatureError, match="celsius cannot be compared with one of grey"):
        signature_distance(compute_signature(crop, CELSIUS), compute_signature(crop, GREY), 0.5)


def test_the_scale_follows_the_units():
    assert {units for units in ThermalUnits if scale_for(units) is GREY} == {ThermalUnits.AGC8, ThermalUnits.COUNTS}


@pytest.mark.parametrize("crop, complaint", [
    (np.zeros((1, 1), np.float32), "too small"),
    (np.zeros((2, 9), np.float32), "too small"),
    (np.full((9, 9), np.nan, np.float32), "not finite"),
])
def test_crops_without_a_signature_are_refused(crop, complaint):
    with pytest.raises(SignatureError, match=complaint):
        compute_signature(crop, GREY)


def test_a_box_is_cut_at_the_edges_of_the_frame():
    values = np.arange(80, dtype=np.float32).reshape(8, 10)
    assert np.array_equal(crop_box(values, Detection(0, 1.0, -5, 2.2, 3.5, 20)), values[2:8, 0:4])
    assert crop_box(values, Detection(0, 1.0, 0, 0, 10, 8)).base is not None


@pytest.mark.parametrize("box", [(np.nan, 0, 5, 5), (0, 0, np.inf, 5), (20, 20, 30, 30), (9, 0, 30, 8),
                                 (5, 5, 2, 2)])
def test_boxes_that_hold_nothing_are_refused(box):
    with pytest.raises(SignatureError):
        crop_box(np.zeros((8, 10), np.float32), Detection(0, 1.0, *box))


def test_a_real_object_is_nearer_to_itself_in_the_next_frame_than_to_most_others(shared_data):
    """Two neighbouring frames of a hovering camera; who is who is known by the place, of those who stand
    alone."""
    folder = shared_data / "hit-uav"
    coco = json.loads((folder / "annotations" / "train.json").read_text())
    images = {image["file_name"]: image["id"] for image in coco["images"]}
    sights = []
    for name in ("1_60_30_0_00030.webp", "1_60_30_0_00031.webp"):
        pixels = cv2.imread(str(folder / "train" / name), cv2.IMREAD_GRAYSCALE)
        if name not in images or pixels is None:
            pytest.skip(f"{name} is not in this copy of the data")
        boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == images[name] and a["category_id"] == 0]
        sights.append([(np.array((x + w / 2, y + h / 2)),
                        compute_signature(crop_box(pixels, Detection(1, 1.0, x, y, x + w, y + h)), GREY))
                       for x, y, w, h in boxes])
    places = []
    for centre, signature in sights[0]:
        apart = [np.linalg.norm(centre - other) for other, _ in sights[1]]
        if sorted(apart)[0] < 12 and sorted(apart)[1] > 40:  # nobody else near
            distances = [signature_distance(signature, other, 0.4).total for _, other in sights[1]]
            places.append(sorted(distances).index(distances[int(np.argmin(apart))]) / (len(distances) - 1))
    assert len(places) >= 4
    assert np.median(places) <= 0.2  # 0.5 is guessing
