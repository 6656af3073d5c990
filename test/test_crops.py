"""Square crops: where each pixel comes from, at what size."""

import numpy as np
import pytest

from thermalreid_ros.camera.crops import CropError, square_crop


def test_a_crop_of_the_same_scale_repeats_the_picture():
    picture = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    crop = square_crop(picture, (20, 10, 40, 30), 20, margin=1.0)
    np.testing.assert_array_equal(crop, picture[10:30, 20:40])
    # A box half as high has the same middle and the same side.
    np.testing.assert_array_equal(square_crop(picture, (20, 15, 40, 25), 20, margin=1.0), crop)


@pytest.mark.parametrize("size_px", [8, 20, 33, 96, 300])
def test_a_ramp_stays_a_ramp_at_any_size(size_px):
    x = np.broadcast_to(np.arange(400, dtype=np.float32) + 0.5, (300, 400))
    crop = square_crop(np.ascontiguousarray(x), (100, 50, 200, 120), size_px, margin=1.5)
    expected = 75.0 + (np.arange(size_px) + 0.5) * 150.0 / size_px
    assert crop.shape == (size_px, size_px)
    # Sides of the averaged picture are whole pixels: half of one at most.
    np.testing.assert_allclose(crop, np.broadcast_to(expected, crop.shape), atol=0.6 * max(1.0, 75.0 / size_px))


def test_shrinking_averages():
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 100, (512, 512)).astype(np.float32)
    crop = square_crop(picture, (0, 0, 512, 512), 16, margin=1.0)
    assert abs(crop.mean() - 50.0) < 1.0 and crop.std() < 3.0


def test_the_edge_is_repeated_outwards():
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:, 0] = (10, 20, 30)
    crop = square_crop(picture, (-10, 5, 0.5, 15.5), 21, margin=1.0)
    assert (crop[:, :10] == (10, 20, 30)).all()


@pytest.mark.parametrize("box", [(0, 0, 2, 2), (0, 0, float("nan"), 9), (5, 5, 4, 20), (30, 30, 50, 50), (0, 9, 9, 9)])
def test_boxes_that_cut_nothing_are_refused(box):
    with pytest.raises(CropError):
        square_crop(np.zeros((20, 20), np.float32), box, 8)
