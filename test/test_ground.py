"""The labelling on the ground: rays there and back, windows of a synthetic scene, evenness of samples."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thermalreid_ros.camera.geometry import GeometryError, Intrinsics, Pose
from thermalreid_ros.localization.ground import footprint_centre, ground_offsets, ground_pixels, rectify, sample
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import NO_DATA

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
POSES = st.tuples(st.floats(-7, 7), st.floats(0.5, np.pi / 2), st.floats(-0.2, 0.2), st.floats(40, 150))


def scene(x, y):
    """A ground of classes that never repeats within a view, fields of some 12 m."""
    return ((np.sin(x / 11.0) + np.cos(y / 9.0) + np.sin((x + 1.7 * y) / 17.0) + 3.0) / 6.0 * 4.999).astype(np.uint8)


def labelled(rotation, height_m, shape=(256, 320), camera=CAMERA):
    """The labelling that a camera at the origin sees of the scene."""
    rows, columns = shape
    u, v = np.meshgrid((np.arange(columns) + 0.5) * (camera.width / columns),
                       (np.arange(rows) + 0.5) * (camera.height / rows))
    offsets = ground_offsets(camera, rotation, height_m, np.column_stack([u.ravel(), v.ravel()]))
    seen = np.isfinite(offsets[:, 0])
    labels = np.full(rows * columns, NO_DATA, np.uint8)
    labels[seen] = scene(*offsets[seen].T)
    labels = labels.reshape(shape)
    return SemanticMask(labels, np.full(shape, 200, np.uint8), camera.width, camera.height)


@given(POSES, st.floats(-150, 150), st.floats(-150, 150))
def test_a_ground_point_projected_and_cast_back_is_the_point(pose, east, north):
    yaw, depression, roll, height = pose
    camera = Pose.looking([1000.0, 2000.0, height], yaw, depression, roll)
    pixel = CAMERA.project(camera.to_camera(np.array([[1000.0 + east, 2000.0 + north, 0.0]])))
    assume(np.isfinite(pixel).all() and (np.abs(pixel) < 3000).all())
    assert ground_offsets(CAMERA, camera.rotation, height, pixel)[0] == pytest.approx([east, north], abs=1e-6)
    assert ground_pixels(CAMERA, camera.rotation, height, np.array([[east, north]])) == pytest.approx(pixel, abs=1e-6)


def test_rays_at_and_above_the_horizon_meet_nothing():
    level = Pose.looking([0, 0, 0], 0.3, 0.0).rotation
    offsets = ground_offsets(CAMERA, level, 100.0, np.array([[320.0, 256.0], [320.0, 10.0], [320.0, 512.0]]))
    assert np.isnan(offsets[:2]).all() and np.isfinite(offsets[2]).all()
    assert np.isnan(ground_offsets(CAMERA, level, 100.0, np.array([[320.0, 512.0]]), max_range_m=100.0)).all()
    assert ground_offsets(CAMERA, level, 100.0).shape == (640 * 512, 2)


@pytest.mark.parametrize("yaw, depression", [(np.pi / 2, np.pi / 2), (0.4, np.pi / 2), (2.5, 0.9), (-1.2, 0.5)])
def test_rectified_is_the_window_of_the_scene(yaw, depression):
    rotation = Pose.looking([0, 0, 0], yaw, depression, 0.05).rotation
    patch = rectify(labelled(rotation, 90.0), CAMERA, rotation, 90.0, 0.5, (300, 280))
    assert patch.labels.shape == (300, 280) and patch.seen.mean() > 0.1
    x = patch.centre_offset_m[0] + (np.arange(280) - 139.5) * 0.5
    y = patch.centre_offset_m[1] + (149.5 - np.arange(300)) * 0.5
    x, y = np.meshgrid(x, y)
    near = patch.seen & (np.hypot(x, y) < 150)  # beyond, a pixel of the labelling covers a metre and more
    assert (patch.labels[near] == scene(x[near], y[near])).mean() > 0.97
    assert (patch.confidence == np.where(patch.seen, 200, 0)).all()
    assert not patch.seen[np.hypot(x, y) > 250].any()


def test_a_patch_of_no_given_size_holds_the_whole_footprint():
    rotation = Pose.looking([0, 0, 0], 2.2, 0.9).rotation
    mask = labelled(rotation, 70.0)
    whole = rectify(mask, CAMERA, rotation, 70.0, 1.0, None)
    wide = rectify(mask, CAMERA, rotation, 70.0, 1.0, 700)
    assert whole.seen.sum() == pytest.approx(wide.seen.sum(), rel=0.01)
    rows, columns = np.nonzero(whole.seen)
    assert np.ptp(rows) > 0.9 * whole.labels.shape[0] and np.ptp(columns) > 0.9 * whole.labels.shape[1]


def test_north_is_up_and_east_is_right():
    rotation = Pose.looking([0, 0, 0], 1.1, np.pi / 2).rotation
    mask = labelled(rotation, 100.0)
    column, row = ground_pixels(CAMERA, rotation, 100.0, np.array([[20.0, 10.0]]))[0].astype(int) // 2
    marked = mask.labels.copy()
    marked[:] = 0
    marked[row - 3:row + 4, column - 3:column + 4] = 4
    patch = rectify(SemanticMask(marked, mask.confidence, 640, 512), CAMERA, rotation, 100.0, 1.0, 129,
                    centre_offset_m=np.zeros(2))
    rows, columns = np.nonzero(patch.labels == 4)
    assert (columns.mean() - 64, 64 - rows.mean()) == pytest.approx((20, 10), abs=0.8)


@settings(max_examples=20, deadline=None)
@given(POSES)
def test_samples_lie_evenly_within_range_and_say_what_is_there(pose):
    yaw, depression, roll, height = pose
    rotation = Pose.looking([0, 0, 0], yaw, depression, roll).rotation
    mask = labelled(rotation, height, (192, 240))
    found = sample(mask, CAMERA, rotation, height, 400, 200.0)
    assert len(found.offsets_m) == 400 and found.offsets_m.dtype == np.float32
    assert (np.hypot(*found.offsets_m.T) <= 200.01).all()
    assert ground_offsets(CAMERA, rotation, height, found.pixels) == pytest.approx(found.offsets_m, abs=0.05)
    assert (found.labels == scene(*found.offsets_m.T)).mean() > 0.9
    again = sample(mask, CAMERA, rotation, height, 400, 200.0)
    assert (again.offsets_m == found.offsets_m).all()
    # Evenness: each of many fine samples of the ground has one of the 400 within some mean distances.
    fine = ground_offsets(CAMERA, rotation, height, np.random.default_rng(1).uniform(0, (640, 512), (300, 2)), 200.0)
    fine = fine[np.isfinite(fine[:, 0])]
    nearest = np.linalg.norm(fine[:, None] - found.offsets_m, axis=2).min(axis=1)
    assert nearest.max() < 3.0 * np.sqrt(np.prod(np.ptp(fine, axis=0)) / 400) + 2.0
    # The first quarter is spread as widely as all of them.
    assert found.offsets_m[:100].mean(axis=0) == pytest.approx(
        found.offsets_m.mean(axis=0), abs=0.1 * float(np.ptp(found.offsets_m)))


def test_the_centre_is_that_of_the_ground_and_not_of_the_pixels():
    rotation = Pose.looking([0, 0, 0], np.pi / 2, np.radians(50)).rotation
    even = sample(labelled(rotation, 80.0), CAMERA, rotation, 80.0, 2000)
    assert footprint_centre(CAMERA, rotation, 80.0) == pytest.approx(even.offsets_m.mean(axis=0), abs=3.0)
    nadir = Pose.looking([0, 0, 0], 0.3, np.pi / 2).rotation
    assert footprint_centre(CAMERA, nadir, 80.0) == pytest.approx([0, 0], abs=1e-6)


def test_a_view_of_the_sky_has_no_ground():
    rotation = Pose.looking([0, 0, 0], 0.0, -1.0).rotation
    mask = labelled(rotation, 100.0)
    assert footprint_centre(CAMERA, rotation, 100.0) is None
    patch = rectify(mask, CAMERA, rotation, 100.0, 1.0, 64)
    assert not patch.seen.any() and (patch.confidence == 0).all()
    assert len(sample(mask, CAMERA, rotation, 100.0).labels) == 0
    # The ground is seen, but none of it near enough.
    slanted = Pose.looking([0, 0, 0], 0.0, 0.3).rotation
    assert len(sample(labelled(slanted, 100.0), CAMERA, slanted, 100.0, 50, max_range_m=60.0).labels) == 0
    assert not rectify(labelled(slanted, 100.0), CAMERA, slanted, 100.0, 1.0, None, 60.0).seen.any()


def test_points_without_a_label_are_left_out():
    rotation = Pose.looking([0, 0, 0], 0.0, np.pi / 2).rotation
    mask = labelled(rotation, 100.0)
    mask.labels[:, :160] = NO_DATA
    found = sample(mask, CAMERA, rotation, 100.0, 400)
    assert 150 < len(found.labels) < 250 and (found.pixels[:, 0] >= 320).all()


def test_what_is_no_view_is_refused():
    rotation = Pose.looking([0, 0, 0], 0.0, 1.0).rotation
    mask = labelled(rotation, 100.0)
    for height in (0.0, -5.0, np.nan):
        with pytest.raises(GeometryError, match="altitude"):
            rectify(mask, CAMERA, rotation, height)
    with pytest.raises(GeometryError, match="rotation matrix"):
        sample(mask, CAMERA, rotation[:2], 50.0)
    with pytest.raises(LocalizationError, match="camera_info"):
        sample(mask, Intrinsics.from_field_of_view(320, 256, 0.8), rotation, 50.0)
    with pytest.raises(LocalizationError, match="samples"):
        sample(mask, CAMERA, rotation, 50.0, 0)
    with pytest.raises(LocalizationError, match="no patch"):
        rectify(mask, CAMERA, rotation, 50.0, -1.0)
    with pytest.raises(LocalizationError, match="confidences"):
        rectify(SemanticMask(mask.labels, mask.confidence[:3], 640, 512), CAMERA, rotation, 50.0)
