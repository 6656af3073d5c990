"""Boxes as detectors draw them and as they are in truth."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from thermalreid_ros.detection.types import EDGE_PX, DRAWN_PX, DRAWN_SHARE, Detection, drawn_side, tight_side
from thermalreid_ros.evaluation.boxes import comparable, iou


@given(st.floats(0.01, 2000.0))
def test_margins_come_off_as_they_were_put_on(side):
    assert tight_side(float(drawn_side(np.float64(side)))) == pytest.approx(side)
    assert 0.5 * side <= tight_side(side) < side


def test_a_margin_is_so_many_pixels_and_such_a_share_at_each_edge():
    assert drawn_side(np.array([20.0])) == pytest.approx([20.0 + 2 * (DRAWN_PX + DRAWN_SHARE * 20.0)])
    box = Detection(2, 0.7, 100.0, 50.0, 124.4, 61.0)
    inner = box.tight((640, 512))
    assert (inner.class_id, inner.score) == (2, 0.7) and inner.centre == pytest.approx(box.centre)
    assert (inner.width, inner.height) == pytest.approx((20.0, 9.0 / 1.12))


@given(st.floats(0.0, 300.0), st.floats(3.0, 340.0), st.floats(0.0, 200.0), st.floats(3.0, 312.0))
def test_what_is_drawn_within_a_frame_holds_the_object_again(x, width, y, height):
    """Objects that the frame cuts, on one side or on both, too; but for a margin that hardly fits beside its edge."""
    sides = np.array([width, height])
    first, last = np.array([x, y]), np.minimum(np.array([x, y]) + sides, (640.0, 512.0))
    margin = DRAWN_PX + DRAWN_SHARE * (last - first)
    room = np.stack([first, (640.0, 512.0) - last])
    assume(((room == 0.0) | (room > margin + EDGE_PX)).all())
    low, high = np.maximum(first - margin, 0.0), np.minimum(last + margin, (640.0, 512.0))
    inner = Detection(0, 0.9, *map(float, low), *map(float, high)).tight((640, 512))
    assert inner.box == pytest.approx(np.concatenate([first, last]), abs=1e-3)


def test_boxes_are_compared_as_the_truth_is_drawn():
    truth = Detection(1, 1.0, 100.0, 100.0, 105.0, 106.0)
    drawn = Detection(1, 0.9, 98.7, 98.64, 106.3, 107.36)
    assert iou(comparable(drawn, tight_in=(640, 512)), truth) == pytest.approx(1.0)
    assert iou(comparable(drawn, tight_in=None), truth) == pytest.approx(30 / (7.6 * 8.72))


def test_iou():
    first = Detection(0, 1.0, 0.0, 0.0, 2.0, 2.0)
    assert iou(first, first) == 1.0 and iou(first, Detection(0, 1.0, 2.0, 0.0, 4.0, 2.0)) == 0.0
    assert iou(first, Detection(0, 1.0, 1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)


def test_tight_boxes_are_plain_numbers():
    """Pages and files are written of them."""
    tight = Detection(1, 0.5, 10.0, 20.0, 40.0, 60.0).tight((640, 512))
    assert {type(value) for value in (tight.x_min, tight.y_min, tight.x_max, tight.y_max)} == {float}
