"""The map projected into a camera and drawn onto a labelling: known motions are found, other places are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files import OsmFile, opened_map

from thermalreid_ros.camera.geometry import GeometryError, Intrinsics, Pose
from thermalreid_ros.localization.alignment import align, align_labels, filled, project
from thermalreid_ros.localization.ground import ground_offsets, ground_pixels
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
SIZE = (256, 320)


@pytest.fixture(scope="module")
def semantic_map(tmp_path_factory):
    """A town of 600 x 500 m, flat but for a tower of 30 m on a meadow in its east."""
    osm = OsmFile(600, 500)
    osm.scatter(70, (350, 470), (10, 35), (10, 25), height="1")
    osm.box(395.0, 0.0, 600.0, 500.0, {"landuse": "meadow"})
    osm.box(500.0, 250.0, 512.0, 262.0, {"building": "yes", "height": "30"})
    with opened_map(osm, tmp_path_factory.mktemp("map")) as opened:
        yield opened


def pixels():
    u, v = np.meshgrid(np.arange(SIZE[1]) * 2 + 1.0, np.arange(SIZE[0]) * 2 + 1.0)
    return np.column_stack([u.ravel(), v.ravel()])


@pytest.mark.parametrize("yaw, depression", [(1.0, np.pi / 2), (2.5, 0.9), (-2.0, 0.6)])
def test_flat_ground_is_seen_where_its_rays_meet_the_map(semantic_map, yaw, depression):
    pose = Pose.looking([180.0, 250.0, 80.0], yaw, depression, 0.05)
    found = project(semantic_map, CAMERA, pose.rotation, 80.0, 180.0, 250.0, SIZE)
    offsets = ground_offsets(CAMERA, pose.rotation, 80.0, pixels(), 400.0)
    seen = np.isfinite(offsets[:, 0])
    expected = np.full(len(offsets), NO_DATA, np.uint8)
    expected[seen] = semantic_map.class_at(*(offsets[seen] + (180.0, 250.0)).T)
    assert (found.ravel() == expected).mean() > 0.965  # the far ground is drawn from pixels of a metre
    assert ((found == NO_DATA) == (expected == NO_DATA).reshape(SIZE)).mean() > 0.995


def test_a_tower_stands_in_the_picture(semantic_map):
    x, y = np.meshgrid(np.arange(450, 580, 0.5), np.arange(200, 300, 0.5))
    tower = semantic_map.height_at(x, y) == 30
    foot, top = np.array([x[tower].min(), y[tower].mean()]), x[tower].max()
    camera = foot - (70.0, 0.0)
    pose = Pose.looking([*camera, 100.0], 0.0, 0.8)
    building = project(semantic_map, CAMERA, pose.rotation, 100.0, *camera, SIZE) == SemanticClass.BUILDING
    # From the near foot to the far edge of the roof, which hides the ground 10 / 7 as far away.
    near, far = ground_pixels(CAMERA, pose.rotation, 100.0, np.array([[70.0, 0], [(top - camera[0]) / 0.7, 0]])) / 2
    rows = np.nonzero(building[:, 155:165].all(axis=1))[0]
    assert (rows.max(), rows.min()) == pytest.approx((near[1], far[1]), abs=4)
    assert len(rows) == rows.max() - rows.min() + 1


def test_what_is_not_ground_or_not_map_has_no_label(semantic_map):
    up = Pose.looking([200, 200, 80], 0.0, -0.6).rotation
    assert (project(semantic_map, CAMERA, up, 80.0, 200.0, 200.0, SIZE) == NO_DATA).all()
    level = Pose.looking([200, 200, 80], np.pi / 2, 0.1).rotation
    seen = project(semantic_map, CAMERA, level, 80.0, 200.0, 200.0, SIZE) != NO_DATA
    assert not seen[:90].any() and seen[-1].any()
    away = project(semantic_map, CAMERA, Pose.looking([0, 0, 80], 0.0, 1.2).rotation, 80.0, -2000.0, 0.0, SIZE)
    assert (away == NO_DATA).all()


@settings(max_examples=12, deadline=None)
@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0), st.floats(-0.03, 0.03), st.floats(0.98, 1.02), st.integers(0, 99))
def test_an_error_of_the_pose_is_taken_out(semantic_map, dx, dy, yaw, scale, seed):
    x, y = 180.0 + seed % 10 * 5, 200.0 + seed // 10 * 10
    truth = project(semantic_map, CAMERA, Pose.looking([0, 0, 1], 1.3, 1.2).rotation, 90.0, x, y, SIZE)
    rotation = Pose.looking([0, 0, 1], 1.3 + yaw, 1.2).rotation
    mask = SemanticMask(truth, np.full(SIZE, 255, np.uint8), 640, 512)
    found = align(semantic_map, mask, CAMERA, rotation, 90.0 * scale, x + dx, y + dy)
    agreement = (found.labels == truth).mean()
    assert agreement >= found.agreement_projected and agreement == pytest.approx(found.agreement, abs=0.02)
    assert agreement > 0.9 or agreement > 1 - 0.45 * (1 - found.agreement_projected)


def test_wrong_labels_do_not_pull(semantic_map):
    rotation = Pose.looking([0, 0, 1], 1.3, 1.2).rotation
    truth = project(semantic_map, CAMERA, rotation, 90.0, 200.0, 250.0, SIZE)
    labels, rng = truth.copy(), np.random.default_rng(2)
    for _ in range(12):
        row, column = rng.integers(0, (216, 270))
        labels[row:row + 40, column:column + 50] = rng.integers(0, 4)
    assert (labels != truth).mean() > 0.1
    mask = SemanticMask(labels, np.full(SIZE, 255, np.uint8), 640, 512)
    found = align(semantic_map, mask, CAMERA, rotation, 90.0, 203.0, 248.0)
    assert (found.projected == truth).mean() < 0.9 and (found.labels == truth).mean() > 0.95
    assert found.reason == "" and np.abs(found.flow_px).max() < 60


def test_the_flow_says_where_each_label_came_from():
    rng = np.random.default_rng(4)
    big = np.kron(rng.integers(0, 4, (20, 24)), np.ones((15, 15))).astype(np.uint8)
    projected, labels = big[20:276, 20:340], big[14:270, 28:348]
    found = align_labels(projected, labels)
    assert np.median(found.flow_px, axis=(0, 1)) == pytest.approx((8, -6), abs=1.0)
    row, column = np.mgrid[60:200, 60:260]
    flow = found.flow_px[60:200, 60:260]
    taken = projected[np.rint(row + flow[..., 1]).astype(int), np.rint(column + flow[..., 0]).astype(int)]
    assert (found.labels[60:200, 60:260] == taken).mean() > 0.99
    assert found.agreement > 0.95 > 0.6 > found.agreement_projected


def test_equal_labellings_stay():
    labels = np.kron(np.random.default_rng(4).integers(0, 4, (16, 20)), np.ones((16, 16))).astype(np.uint8)
    found = align_labels(labels, labels)
    assert (found.labels == labels).all() and not found.flow_px.any() and found.agreement == 1.0
    assert "no closer" in found.reason


def test_a_reason_is_given_where_nothing_is_moved():
    nothing = np.full(SIZE, NO_DATA, np.uint8)
    town = np.kron(np.random.default_rng(4).integers(0, 4, (16, 20)), np.ones((16, 16))).astype(np.uint8)
    found = align_labels(nothing, town)
    assert found.reason == "no map in the picture" and (found.labels == NO_DATA).all() and found.agreement == 0.0
    stripes = np.zeros(SIZE, np.uint8)
    stripes[:, :100] = SemanticClass.WATER
    far = np.zeros(SIZE, np.uint8)
    far[:, :220] = SemanticClass.WATER
    found = align_labels(stripes, far)
    assert found.agreement >= found.agreement_projected
    assert np.hypot(*np.moveaxis(found.flow_px, 2, 0)).mean() <= 0.15 * 320


def test_what_is_no_pose_is_refused(semantic_map):
    mask = SemanticMask(np.zeros(SIZE, np.uint8), np.full(SIZE, 255, np.uint8), 640, 512)
    rotation = Pose.looking([0, 0, 1], 1.3, 1.2).rotation
    with pytest.raises(LocalizationError, match="camera_info"):
        align(semantic_map, mask, Intrinsics.from_field_of_view(320, 256, 0.8), rotation, 90.0, 0.0, 0.0)
    with pytest.raises(GeometryError, match="altitude"):
        align(semantic_map, mask, CAMERA, rotation, -1.0, 0.0, 0.0)
    with pytest.raises(LocalizationError, match="no map is seen"):
        align(semantic_map, mask, CAMERA, rotation, 90.0, np.nan, 0.0)


def test_where_nothing_is_mapped_the_frame_tells_of_roads_and_vegetation():
    ground, road, building, vegetation, water = SemanticClass
    aligned = np.uint8([[ground, ground, ground, ground, ground, road, building, NO_DATA]])
    shown = np.uint8([[road, vegetation, building, water, NO_DATA, vegetation, road, road]])
    assert filled(aligned, shown).tolist() == [[road, vegetation, ground, ground, ground, road, building, NO_DATA]]
