"""Cameras, poses and the metric grid: hand examples and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.camera.geometry import (
    GeometryError, Intrinsics, LocalGrid, Pose, quaternion_of, rotation_of, utm_zone)

ANGLES = st.floats(-3.1, 3.1)
CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))


def test_a_field_of_view_gives_the_focal_length():
    assert CAMERA.fx == pytest.approx(320 / np.tan(np.radians(22.5)))
    assert (CAMERA.cx, CAMERA.cy) == (320.0, 256.0)
    with pytest.raises(GeometryError, match="200 degrees"):
        Intrinsics.from_field_of_view(640, 512, np.radians(200.0))


def test_camera_info_counts_pixel_centres_from_zero():
    assert CAMERA.k[0, 2] == 319.5
    assert Intrinsics.from_k(640, 512, CAMERA.k.ravel()) == CAMERA
    with pytest.raises(GeometryError, match="calibrate"):
        Intrinsics.from_k(640, 512, np.zeros(9))


@pytest.mark.parametrize("cx, cy", [(0.0, 0.0), (0.0, 255.5), (319.5, 0.0), (319.5, 511.0), (np.nan, 255.5)])
def test_a_principal_point_that_nobody_calibrated_is_refused(cx, cy):
    """A camera that is turned by as much as its picture is off would be placed tens of metres away."""
    with pytest.raises(GeometryError, match="calibrate"):
        Intrinsics.from_k(640, 512, np.array((700.0, 0, cx, 0, 700.0, cy, 0, 0, 1)))


@given(st.floats(0.5, 639.5), st.floats(0.5, 511.5), st.floats(0.1, 500.0))
def test_rays_and_projection_are_inverse(u, v, distance_m):
    ray = CAMERA.rays(np.array([[u, v]]))
    assert np.linalg.norm(ray) == pytest.approx(1.0, abs=1e-6)
    assert CAMERA.project(ray * distance_m)[0] == pytest.approx([u, v], abs=1e-3)


def test_all_rays_run_by_rows_through_pixel_centres():
    rays = CAMERA.rays()
    assert CAMERA.project(rays[640 * 3 + 5:][:1])[0] == pytest.approx([5.5, 3.5], abs=1e-3)


def test_points_behind_the_camera_have_no_pixel():
    assert np.isnan(CAMERA.project(np.array([[0.0, 0.0, -5.0]]))).all()


def test_looking_down_with_the_picture_top_to_the_north():
    pose = Pose.looking([10.0, 20.0, 100.0], np.pi / 2, np.pi / 2)
    north_east = np.array([[15.0, 30.0, 0.0]])
    assert pose.to_camera(north_east)[0] == pytest.approx([5.0, -10.0, 100.0], abs=1e-9)


def test_looking_east_and_down_by_30_degrees():
    pose = Pose.looking([0.0, 0.0, 50.0], 0.0, np.radians(30.0))
    seen = pose.to_camera(np.array([[50.0 / np.tan(np.radians(30.0)), 0.0, 0.0], [100.0, -10.0, 50.0]]))
    assert seen[0] == pytest.approx([0.0, 0.0, 100.0], abs=1e-9)  # the axis meets the ground
    assert seen[1, 0] == pytest.approx(10.0)  # south is on the right
    assert seen[1, 1] < 0  # the horizon is above


def test_roll_lowers_the_right_side():
    pose = Pose.looking([0.0, 0.0, 0.0], 0.0, 0.0, np.radians(10.0))
    right = pose.rotation[:, 0]
    assert right == pytest.approx([0.0, -np.cos(np.radians(10)), -np.sin(np.radians(10))])


@given(ANGLES, st.floats(-1.5, 1.6), ANGLES)
def test_poses_are_rotations_and_survive_quaternions(yaw_rad, depression_rad, roll_rad):
    rotation = Pose.looking([0, 0, 0], yaw_rad, depression_rad, roll_rad).rotation
    assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert rotation_of(quaternion_of(rotation)) == pytest.approx(rotation, abs=1e-9)


def test_a_quaternion_of_zeros_is_refused():
    with pytest.raises(GeometryError, match="no attitude"):
        rotation_of(np.zeros(4))


@given(st.floats(-60.0, 75.0), st.floats(-179.0, 179.0), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_grid_metres_and_coordinates_are_inverse(latitude_deg, longitude_deg, x, y):
    crs = utm_zone(latitude_deg, longitude_deg)
    easting_m, northing_m = LocalGrid(crs, 0.0, 0.0).from_geographic(latitude_deg, longitude_deg)
    grid = LocalGrid(crs, float(easting_m), float(northing_m))
    assert grid.from_geographic(*grid.to_geographic(x, y)) == pytest.approx((x, y), abs=1e-3)


def test_monaco_lies_in_zone_32_and_grid_north_west_of_north_there():
    assert utm_zone(43.738, 7.42) == "EPSG:32632"
    grid = LocalGrid("EPSG:32632", 372_800.0, 4_843_900.0)
    latitude_deg, longitude_deg = grid.to_geographic(0.0, 0.0)
    # Meridian convergence: (longitude - central meridian) * sin(latitude), counted clockwise.
    expected = np.radians((longitude_deg - 9.0) * np.sin(np.radians(latitude_deg)))
    assert grid.convergence_rad(0.0, 0.0) == pytest.approx(expected, abs=1e-4)


def test_the_grid_s_north_does_not_turn_at_the_180th_meridian():
    grid = LocalGrid("EPSG:32760", 0.0, 0.0)
    x, y = map(float, grid.from_geographic(-17.0, 180.0))
    angles = [grid.convergence_rad(x + way, y) for way in np.linspace(-2.0, 2.0, 41)]
    assert angles == pytest.approx([np.radians(3.0 * np.sin(np.radians(-17.0)))] * 41, abs=1e-3)


def test_an_unknown_grid_is_refused():
    with pytest.raises(GeometryError, match="EPSG:326NN"):
        LocalGrid("EPSG:123456789", 0.0, 0.0).to_geographic(0.0, 0.0)
