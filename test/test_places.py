"""Positions and attitudes between ROS and the grid of a map: axes, covariances, what is refused, the gate of fixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from geometry_msgs.msg import Point, Quaternion
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Imu, NavSatFix, NavSatStatus, Range
from std_msgs.msg import Header

from thermalreid_ros.camera.geometry import GeometryError, LocalGrid, Pose, quaternion_of, rotation_of, rotation_of_rpy
from thermalreid_ros.localization.types import (Candidate, LocalizationError, LocalizationResult, PositionFix,
                                                SemanticMask, Verdict)
from thermalreid_ros.ros import places
from thermalreid_ros.ros.convert import image_to_array, ns_to_stamp, stamp_to_ns
from thermalreid_ros.ros.transforms import MapToOdom

STAMP_NS = 1_700_000_000_123_456_789
HEADER = Header(stamp=ns_to_stamp(STAMP_NS), frame_id="thermal_optical_frame")
angles = st.floats(-np.pi, np.pi)
KREMS = LocalGrid("EPSG:32633", 544_000.0, 5_361_000.0)  # a degree east of its zone's middle


def fix(covariance=((9.0, 2.0), (2.0, 4.0)), rotation=None, **changes) -> PositionFix:
    values = dict(stamp_ns=STAMP_NS, latitude_deg=48.4, longitude_deg=15.6, x=120.0, y=340.0,
                  covariance_m2=np.array(covariance), rotation=np.eye(3) if rotation is None else rotation,
                  height_m=90.0, yaw_sigma_rad=0.02)
    return PositionFix(**{**values, **changes})


def imu(rotation: np.ndarray) -> Imu:
    x, y, z, w = map(float, quaternion_of(rotation))
    return Imu(header=HEADER, orientation=Quaternion(x=x, y=y, z=z, w=w))


# Attitude

@given(angles, st.floats(0.05, np.pi / 2), st.floats(-0.5, 0.5), st.floats(-0.05, 0.05))
def test_an_imu_on_the_camera_gives_the_pose_that_looks_there(yaw, depression, roll, convergence):
    """Body axes by their definition (x along the line of sight, y left, z up) in true east, north, up; the pose is of
    the grid, whose yaws are larger by the convergence."""
    optical = Pose.looking(np.zeros(3), yaw, depression, roll).rotation  # columns: right, down, forward
    body = np.stack([optical[:, 2], -optical[:, 0], -optical[:, 1]], axis=1)
    found = places.CameraMount((0.0, 0.0, 0.0), convergence).rotation(places.message_to_attitude(imu(body)))
    wanted = Pose.looking(np.zeros(3), yaw + convergence, depression, roll).rotation
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@given(angles)
def test_a_camera_that_looks_down_from_a_level_autopilot(heading):
    level = rotation_of_rpy(0.0, 0.0, heading)  # x forward, y left, z up
    found = places.CameraMount((0.0, np.pi / 2, 0.0), 0.0).rotation(level)
    np.testing.assert_allclose(found, Pose.looking(np.zeros(3), heading, np.pi / 2).rotation, atol=1e-9)


@given(angles, st.floats(-1.5, 1.5), angles, st.tuples(angles, st.floats(-1.5, 1.5), angles))
def test_a_mounting_is_taken_out_again(roll, pitch, yaw, mounting):
    camera = rotation_of_rpy(roll, pitch, yaw)
    vehicle = camera @ rotation_of_rpy(*mounting).T
    np.testing.assert_allclose(places.CameraMount(mounting, 0.1).rotation(vehicle),
                               places.CameraMount((0.0, 0.0, 0.0), 0.1).rotation(camera), atol=1e-9)


def test_rpy_are_turns_about_fixed_axes_in_that_order():
    east, north, up = np.eye(3)
    turn = rotation_of_rpy(np.pi / 2, 0.0, np.pi / 2)  # y to z, then x to y
    np.testing.assert_allclose(turn @ north, up, atol=1e-12)
    np.testing.assert_allclose(turn @ east, north, atol=1e-12)
    np.testing.assert_allclose(rotation_of_rpy(0.0, np.pi / 2, 0.0) @ east, -up, atol=1e-12)


def test_attitudes_that_are_none():
    no_estimate = imu(np.eye(3))
    no_estimate.orientation_covariance[0] = -1.0
    with pytest.raises(LocalizationError, match="no orientation"):
        places.message_to_attitude(no_estimate)
    for quaternion in (Quaternion(x=0.0, y=0.0, z=0.0, w=0.0), Quaternion(x=float("nan"), w=1.0)):
        with pytest.raises(GeometryError, match="no attitude"):
            places.message_to_attitude(Imu(orientation=quaternion))


# Rough positions, odometry, height, camera

def prior(latitude=48.4, longitude=15.6, east=100.0, north=400.0, kind=NavSatFix.COVARIANCE_TYPE_DIAGONAL_KNOWN,
          status=NavSatStatus.STATUS_FIX) -> NavSatFix:
    return NavSatFix(status=NavSatStatus(status=status), latitude=latitude, longitude=longitude,
                     position_covariance=[east, 0.0, 0.0, 0.0, north, 0.0, 0.0, 0.0, 1e6],
                     position_covariance_type=kind)


def test_a_prior_is_as_rough_as_along_its_worst_axis():
    assert places.message_to_prior(prior()) == (48.4, 15.6, pytest.approx(20.0))
    tilted = prior()
    tilted.position_covariance = [250.0, 150.0, 0.0, 150.0, 250.0, 0.0, 0.0, 0.0, 1.0]
    assert places.message_to_prior(tilted)[2] == pytest.approx(20.0)
    assert places.message_to_prior(prior(kind=NavSatFix.COVARIANCE_TYPE_UNKNOWN))[2] is None
    assert places.message_to_prior(prior(east=0.0, north=0.0))[2] is None
    assert places.message_to_prior(prior(status=NavSatStatus.STATUS_UNKNOWN))[0] == 48.4


@pytest.mark.parametrize("message, words", [
    (prior(latitude=float("nan")), "no place on earth"), (prior(longitude=float("inf")), "no place on earth"),
    (prior(latitude=91.0), "no place on earth"), (prior(status=NavSatStatus.STATUS_NO_FIX), "no fix"),
    (prior(east=float("nan")), "no covariance"), (prior(north=-1.0), "no covariance")])
def test_priors_that_are_none(message, words):
    with pytest.raises(LocalizationError, match=words):
        places.message_to_prior(message)


def test_odometry_is_a_finite_position():
    message = Odometry()
    message.pose.pose.position = Point(x=1.0, y=2.0, z=3.0)
    np.testing.assert_array_equal(places.message_to_position(message), (1.0, 2.0, 3.0))
    message.pose.pose.position.y = float("nan")
    with pytest.raises(LocalizationError, match="not finite"):
        places.message_to_position(message)


def test_height_with_its_error():
    assert places.message_to_height(Range(range=80.0, variance=4.0)) == (80.0, 2.0)
    for unknown in (0.0, -1.0, float("nan"), float("inf")):
        assert places.message_to_height(Range(range=80.0, variance=unknown)) == (80.0, pytest.approx(1.6))
    assert places.message_to_height(Range(range=80.0, min_range=0.5, max_range=100.0))[0] == 80.0
    for value in (float("inf"), float("nan"), 0.0, -3.0):
        with pytest.raises(LocalizationError, match="above the"):
            places.message_to_height(Range(range=value))
    with pytest.raises(LocalizationError, match="out of the sensor's own range"):
        places.message_to_height(Range(range=120.0, min_range=0.5, max_range=100.0))


def test_the_camera_and_its_lens():
    message = CameraInfo(width=640, height=512, k=[500.0, 0.0, 319.5, 0.0, 501.0, 255.5, 0.0, 0.0, 1.0],
                         d=[0.0, 0.0, 0.0, 0.0, 0.0])
    found = places.message_to_intrinsics(message)
    assert (found.width, found.height, found.fx, found.fy, found.cx, found.cy) == (640, 512, 500.0, 501.0, 320.0, 256.0)
    assert places.lens_fault(message) == "" and "rectified" in places.lens_fault(CameraInfo(d=[-0.1, 0.0]))
    with pytest.raises(GeometryError, match="calibrate"):
        places.message_to_intrinsics(CameraInfo(width=640, height=512))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"crs": "EPSG:32633", "easting_m": "west", "northing_m": 0}'])
def test_whether_two_nodes_have_one_map_is_told_by_its_grid(text):
    grid = LocalGrid("EPSG:32633", 544412.5, 5360000.0)
    said = places.grid_to_text(grid, "town.tif")
    assert places.grid_fault(said, grid) == ""
    moved = places.grid_fault(said, LocalGrid("EPSG:32633", 544412.5, 5360100.0))
    assert "town.tif: EPSG:32633, 544412.5, 5360000.0) than the parameter map (EPSG:32633, 544412.5, 5360100.0" in moved
    with pytest.raises(LocalizationError, match="localization/map is no JSON"):
        places.grid_fault(text, grid)


# The gate

@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0), angles, st.floats(0.1, 5.0))
def test_a_fix_is_never_said_to_be_better_than_the_floor(first, second, angle, floor):
    turn = rotation_of_rpy(0.0, 0.0, angle)[:2, :2]
    gate = places.FixGate(floor)
    passed = gate.check(fix(turn @ np.diag((first, second)) @ turn.T), 0.1, 2.0).covariance_m2
    np.testing.assert_allclose(passed, turn @ np.diag(np.maximum((first, second), floor ** 2)) @ turn.T, atol=1e-6)


@pytest.mark.parametrize("bad, words", [
    (fix(x=float("nan")), "not finite"), (fix(latitude_deg=float("inf")), "not finite"),
    (fix(rotation=np.full((3, 3), np.nan)), "not finite"), (fix(((1.0, 0.0), (0.0, np.nan))), "not finite"),
    (fix(((1.0, 5.0), (5.0, 1.0))), "covariance"), (fix(((4.0, 1.0), (0.0, 4.0))), "covariance")])
def test_fixes_that_are_none_do_not_pass(bad, words):
    with pytest.raises(LocalizationError, match=words):
        places.FixGate(1.5).check(bad, 0.1, 2.0)


def test_fixes_pass_once_in_order_and_fresh():
    gate = places.FixGate(1.5)
    gate.check(fix(), 0.1, 2.0)
    for late in (STAMP_NS, STAMP_NS - 1):
        with pytest.raises(LocalizationError, match="before that of the last one"):
            gate.check(fix(stamp_ns=late), 0.1, 2.0)
    with pytest.raises(LocalizationError, match="2.5 s old, more than max_age_s = 2"):
        gate.check(fix(stamp_ns=STAMP_NS + 1), 2.5, 2.0)
    gate.check(fix(stamp_ns=STAMP_NS + 1), 2.5, 0.0)  # any age
    gate.reset()
    gate.check(fix(), 0.1, 2.0)


# What goes out

def test_a_fix_message_holds_east_before_north_and_the_frames_stamp():
    message = places.fix_to_message(fix(), HEADER)
    assert stamp_to_ns(message.header.stamp) == STAMP_NS and message.header.frame_id == "thermal_optical_frame"
    assert (message.latitude, message.longitude) == (48.4, 15.6) and np.isnan(message.altitude)
    np.testing.assert_array_equal(message.position_covariance,
                                  (9.0, 2.0, 0.0, 2.0, 4.0, 0.0, 0.0, 0.0, places.UNKNOWN_ALTITUDE_M2))
    assert message.position_covariance_type == NavSatFix.COVARIANCE_TYPE_KNOWN
    assert message.status.status == NavSatStatus.STATUS_FIX
    known = places.fix_to_message(fix(), HEADER, 310.0, 2.0)
    assert known.altitude == 310.0 and known.position_covariance[8] == 4.0


@given(angles, st.floats(0.1, 1.5), st.floats(-0.05, 0.05))
def test_a_pose_message_is_of_the_grid_covariance_included(yaw, depression, convergence):
    rotation = Pose.looking(np.zeros(3), yaw, depression).rotation
    message = places.fix_to_pose(fix(rotation=rotation), HEADER, "map", convergence, 1.8)
    assert message.header.frame_id == "map" and stamp_to_ns(message.header.stamp) == STAMP_NS
    p, q = message.pose.pose.position, message.pose.pose.orientation
    assert (p.x, p.y, p.z) == (120.0, 340.0, 90.0)
    np.testing.assert_allclose(rotation_of(np.array((q.x, q.y, q.z, q.w))), rotation, atol=1e-9)
    covariance = np.reshape(message.pose.covariance, (6, 6))
    # The same error, seen along true axes and along those of the grid.
    turn = rotation_of_rpy(0.0, 0.0, convergence)[:2, :2]
    along = np.array((np.cos(0.3), np.sin(0.3)))
    assert (turn @ along) @ covariance[:2, :2] @ (turn @ along) == pytest.approx(along @ fix().covariance_m2 @ along)
    np.testing.assert_allclose(np.diag(covariance)[2:], (1.8 ** 2, np.radians(1) ** 2, np.radians(1) ** 2, 0.02 ** 2))
    assert np.linalg.eigvalsh(covariance)[0] >= -1e-12 and not covariance[2:, 2:][~np.eye(4, dtype=bool)].any()


@given(angles, st.floats(0.5, 1.5))
def test_the_ground_in_view_is_known_better_than_a_sum_of_errors_would_be(yaw, depression):
    rotation = Pose.looking(np.zeros(3), yaw, depression).rotation
    message = places.fix_to_pose(fix(rotation=rotation), HEADER, "map", 0.0, 1.8)
    covariance, ray = np.reshape(message.pose.covariance, (6, 6)), 90.0 * rotation[:, 2] / -rotation[2, 2]

    def to_ground(errors):  # of the ground in the middle of the view
        turned = rotation_of_rpy(*errors[3:]) @ ray
        return errors[:2] + turned[:2] * (90.0 + errors[2]) / -turned[2] - ray[:2]

    by = np.stack([to_ground(1e-5 * axis) / 1e-5 for axis in np.eye(6)], axis=1)
    with_them = np.trace(by @ covariance @ by.T)
    alone = np.trace(by @ np.diag(np.diag(covariance)) @ by.T)
    assert 0.0 < with_them < 0.8 * alone
    unknown = places.fix_to_pose(fix(rotation=rotation), HEADER, "map", 0.0, float("nan"))
    assert not np.reshape(unknown.pose.covariance, (6, 6))[:2, 2:].any()


def test_a_status_message_names_places_on_earth():
    result = LocalizationResult(STAMP_NS, Verdict.AMBIGUOUS, "two places fit", score=-1.25, margin=0.5, spread_m=30.0,
                                effective_points=4.5, candidates=(Candidate(100.0, 50.0, 0.02, 0.7),))
    message = places.result_to_message(result, HEADER, KREMS, inference_ms=12.5, model="m", map_name="krems.tif")
    assert (message.verdict, message.reason, message.model, message.map) == ("ambiguous", "two places fit", "m",
                                                                             "krems.tif")
    assert (message.score, message.margin, message.spread_m, message.effective_points, message.inference_ms) == \
        (-1.25, 0.5, 30.0, 4.5, 12.5)
    found = message.candidates[0]
    np.testing.assert_allclose(KREMS.from_geographic(found.latitude, found.longitude), (100.0, 50.0), atol=1e-3)
    assert found.share == pytest.approx(0.7) and found.yaw_error == pytest.approx(0.02)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_a_mask_image_gives_each_pixel_of_the_frame_the_label_over_its_centre(height, width, down, across):
    labels = np.random.default_rng(height * 41 + width).integers(0, 5, (height, width)).astype(np.uint8)
    mask = SemanticMask(labels, np.full_like(labels, 200), width * across - across // 2, height * down - down // 2)
    image = places.mask_to_image(mask, HEADER)
    assert (image.encoding, image.width, image.height) == ("mono8", mask.width, mask.height) and image.header == HEADER
    centres = [(np.arange(size) + 0.5) * count / size for size, count in ((mask.height, height), (mask.width, width))]
    # Where a centre lies on an edge, either side will do.
    wanted = [labels[np.ix_(*(np.clip(np.floor(c + e).astype(int), 0, n - 1)
                              for c, e, n in zip(centres, ends, labels.shape)))]
              for ends in ((-1e-6, -1e-6), (-1e-6, 1e-6), (1e-6, -1e-6), (1e-6, 1e-6))]
    assert (image_to_array(image) == np.array(wanted)).any(axis=0).all()


# map -> odom

@given(angles, st.floats(-500, 500), st.floats(-500, 500), st.floats(0.0, 1.0))
def test_map_to_odom_takes_the_odometrys_place_to_the_fixs(yaw, x, y, share):
    tree = MapToOdom("map", yaw)
    first, last = np.array((x, y, 2.0)), np.array((x + 5.0, y - 3.0, 4.0))
    tree.add(STAMP_NS, "odom", first)
    tree.add(STAMP_NS + 100_000_000, "odom", last)
    stamp_ns = STAMP_NS + round(share * 100_000_000)
    message = tree.transform(replace(fix(), stamp_ns=stamp_ns))
    assert (message.header.frame_id, message.child_frame_id) == ("map", "odom")
    assert stamp_to_ns(message.header.stamp) == stamp_ns
    t, q = message.transform.translation, message.transform.rotation
    place = first + (stamp_ns - STAMP_NS) / 1e8 * (last - first)
    found = rotation_of(np.array((q.x, q.y, q.z, q.w))) @ place + (t.x, t.y, t.z)
    np.testing.assert_allclose(found, (120.0, 340.0, 90.0), atol=1e-6)
    assert np.cos(2 * np.arctan2(q.z, q.w) - yaw) == pytest.approx(1.0)


def test_map_to_odom_needs_odometry_of_that_time():
    tree = MapToOdom("map", 0.0)
    assert tree.transform(fix()) is None
    tree.add(STAMP_NS - 2_000_000_000, "odom", np.zeros(3))
    assert tree.transform(fix()) is None
    tree.add(STAMP_NS - 400_000_000, "odom", np.zeros(3))
    assert tree.transform(fix()).transform.translation.x == 120.0
    tree.add(STAMP_NS - 9_000_000_000, "odom", np.zeros(3))  # time was set back
    assert tree.transform(fix()) is None


@pytest.mark.parametrize("frame_id", ["map", "/map"])
def test_an_odometry_in_the_maps_own_frame_gives_no_transform_but_the_reason(frame_id):
    tree = MapToOdom("map", 0.0)
    tree.add(STAMP_NS, frame_id, np.zeros(3))
    assert tree.transform(fix()) is None and "set map_frame" in tree.fault
    tree.add(STAMP_NS + 1, "odom", np.zeros(3))
    assert tree.transform(fix()).child_frame_id == "odom" and tree.fault == ""
