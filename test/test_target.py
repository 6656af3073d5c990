"""Target position: the box's middle through the pose to the ground, its covariance, and the track's filter."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid, Pose, rotation_of_rpy
from thermalreid_ros.detection.types import CLASS_NAMES, Detection, drawn_side, tight_side
from thermalreid_ros.reid.target import (
    BUILDS, CameraPose, Sight, TargetError, Targets, TargetTrack, freed, sight)

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(32.0))
S = 1_000_000_000
CHI2_95 = 5.991
SIGMAS = np.array((2.0, 1.5, 2.0, np.radians(1.0), np.radians(1.0), np.radians(1.5)))
DEPRESSIONS = st.floats(35.0, 90.0)


def pose(depression_deg=60.0, yaw_deg=30.0, height_m=100.0, covariance=None, stamp_ns=S) -> CameraPose:
    camera = Pose.looking((500.0, 300.0, height_m), np.radians(yaw_deg), np.radians(depression_deg))
    return CameraPose(stamp_ns, camera.position_m[:2], height_m, camera.rotation,
                      np.diag(SIGMAS**2) if covariance is None else covariance)


def cuboid(place, size_m, yaw_rad) -> np.ndarray:
    """Corners (8, 3) of an object that stands at a place (2,)."""
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (0, 2)], np.float64) / 2.0
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    along, across, up = (signs * size_m).T
    return np.column_stack([place[0] + c * along - s * across, place[1] + s * along + c * across, up])


def seen(camera: CameraPose, corners: np.ndarray, class_name: str) -> Detection:
    at = CAMERA.project((corners - (*camera.position_m, camera.height_m)) @ camera.rotation)
    return Detection(CLASS_NAMES.index(class_name), 0.9, *at.min(axis=0), *at.max(axis=0))


def test_views_are_freed_of_what_detectors_add_to_boxes():
    """64.8 by 32.4 px of 0.1 m as a detector draws them are 57 by 27 px; a box of 2 px keeps one."""
    free, sigma = freed(np.array([[0.1 * tight_side(64.8), 0.1 * tight_side(32.4), 0.1, 1.0]]))
    assert free[0] == pytest.approx([5.7, 2.7, 0.1, 1.0])
    assert sigma[0] == pytest.approx(3.0 * 0.1 / np.hypot(5.7, 2.7))
    small, unsure = freed(np.array([[0.5, 0.5, 0.1, 1.0], [0.5, 0.5, 0.1, 1.0]]))
    assert small[:, :2] == pytest.approx(np.full((2, 2), 0.1 * (5 * 1.12 + 2) / 1.08 - 0.3))
    assert (unsure > 5 * sigma).all()
    assert freed(np.array([[0.2, 0.2, 0.1, 1.0]]))[0][0, :2] == pytest.approx([0.1, 0.1])


def below(camera: CameraPose, pixel=(320.0, 256.0)) -> np.ndarray:
    """The ground at a pixel, (2,)."""
    ray = camera.rotation @ ((pixel[0] - CAMERA.cx) / CAMERA.fx, (pixel[1] - CAMERA.cy) / CAMERA.fy, 1.0)
    return camera.position_m + camera.height_m * ray[:2] / -ray[2]


@settings(max_examples=40, deadline=None)
@given(DEPRESSIONS, st.floats(-180, 180), st.floats(0, np.pi), st.sampled_from(CLASS_NAMES), st.floats(100, 540),
       st.floats(80, 430))
def test_an_object_of_its_classs_height_is_found_where_it_stands(depression, yaw, heading, name, u, v):
    camera = pose(depression, yaw, covariance=np.zeros((6, 6)))
    place = below(camera, (u, v))
    length = {"car": 4.5, "person": 0.6, "bicycle": 1.8, "dog": 0.9}[name]
    box = seen(camera, cuboid(place, (length, 0.5 * length, BUILDS[name].height_m), heading), name)
    # What is left is perspective: the near half of a car shows larger than the far one.
    assert np.hypot(*(sight(CAMERA, camera, box).position_m - place)) < 0.02 * length + 0.01


@pytest.mark.parametrize("pixel", [(320.0, 256.0), (600.0, 256.0), (320.0, 470.0), (600.0, 470.0), (40.0, 40.0)])
@pytest.mark.parametrize("depression", [60.0, 90.0])
def test_a_ball_is_as_large_in_the_corner_of_a_wide_picture_as_in_its_middle(depression, pixel):
    """Pictures on a plane grow outwards: by 15 % at 28 degrees from the axis."""
    wide = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
    camera = pose(depression, covariance=np.zeros((6, 6)))
    directions = np.random.default_rng(1).normal(size=(5000, 3))
    ball = 2.0 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    ray = camera.rotation @ ((pixel[0] - wide.cx) / wide.fx, (pixel[1] - wide.cy) / wide.fy, 1.0)
    middle = ray * (camera.height_m - 0.5 * BUILDS["car"].height_m) / -ray[2]
    at = wide.project((middle + ball) @ camera.rotation)
    half, centre = 0.5 * drawn_side(np.ptp(at, axis=0)), 0.5 * (at.min(axis=0) + at.max(axis=0))
    view = sight(wide, camera, Detection(0, 0.9, *(centre - half), *(centre + half))).view
    assert np.hypot(*view[:2]) == pytest.approx(np.hypot(4.0, 4.0), rel=0.01)


def test_the_bottom_edge_of_a_box_would_miss_a_car_by_its_half():
    camera = pose(60.0)
    place = below(camera)
    box = seen(camera, cuboid(place, (4.5, 1.8, 1.6), np.radians(30.0)), "car")
    bottom = below(camera, (box.centre[0], box.y_max))
    assert np.hypot(*(bottom - place)) > 1.5
    assert np.hypot(*(sight(CAMERA, camera, box).position_m - place)) < 0.05


@settings(max_examples=5, deadline=None)
@given(st.floats(40.0, 90.0), st.floats(-180, 180), st.floats(60, 580), st.floats(60, 450))
def test_the_covariance_is_that_of_drawn_errors(depression, yaw, u, v):
    camera = pose(depression, yaw)
    place = below(camera, (u, v))
    size = (4.5, 1.8, BUILDS["car"].height_m)
    box = seen(camera, cuboid(place, size, 0.4), "car")
    found = sight(CAMERA, camera, box)
    rng, middle = np.random.default_rng(1), below(camera, (u, v))
    draws = []
    for errors in rng.normal(0.0, SIGMAS, (1500, 6)):
        turned = rotation_of_rpy(*errors[3:]) @ camera.rotation
        wrong = CameraPose(S, camera.position_m + errors[:2], camera.height_m + errors[2], turned, np.zeros((6, 6)))
        draws.append(sight(CAMERA, wrong, box).position_m)
    by_pose = found.common[:, :6] @ found.common[:, :6].T
    drawn = np.cov(np.array(draws).T)
    assert np.sqrt(np.trace(drawn)) == pytest.approx(np.sqrt(np.trace(by_pose)), rel=0.08)
    away = np.array(draws) - found.position_m
    held = (np.einsum("ni,ij,nj->n", away, np.linalg.inv(by_pose), away) <= CHI2_95).mean()
    assert 0.925 < held < 0.975
    # Heights and boxes: numbers against differences.
    own = found.own_m2 - 0.01 * by_pose
    moved = Detection(0, 0.9, box.x_min + 1, box.y_min, box.x_max + 1, box.y_max)
    step = sight(CAMERA, camera, moved).position_m - found.position_m
    assert np.linalg.eigvalsh(own)[0] > 0 and np.hypot(*step) == pytest.approx(
        0.155 / np.sin(np.radians(depression)), rel=0.6)
    assert np.hypot(*(middle - found.position_m)) < 0.2


def test_errors_of_the_pose_do_not_average_out_and_those_of_the_box_do():
    camera = pose(covariance=np.zeros((6, 6)))
    place = below(camera)
    box = seen(camera, cuboid(place, (4.5, 1.8, 1.6), 0.0), "car")
    sure, unsure = sight(CAMERA, camera, box), sight(CAMERA, pose(), box)
    tracks = [TargetTrack("car", S, first) for first in (sure, unsure)]
    for step in range(1, 100):
        for track, one in zip(tracks, (sure, unsure)):
            track.add(S + step * S // 5, one)
    alone = unsure.common @ unsure.common.T
    after = [track.at(track.stamp_ns)[1] for track in tracks]
    shared = sure.common @ sure.common.T
    assert np.trace(after[0] - shared) < 0.7 * np.trace(sure.own_m2)  # it may accelerate
    assert np.trace(after[1]) > 0.97 * np.trace(alone)
    assert np.linalg.eigvalsh(after[1] - alone + 0.03 * np.eye(2) * np.trace(alone))[0] > 0


@pytest.mark.parametrize("name, speed_m_s", [("car", 0.0), ("car", 9.0), ("person", 1.3), ("bicycle", 5.0)])
def test_the_ellipse_holds_the_object_over_tracks_that_stand_and_move(name, speed_m_s):
    """Errors drawn once for a track and anew for each sight, as the model says."""
    rng, held, errors, count = np.random.default_rng(7), [], [], 200
    for _ in range(count):
        heading = rng.uniform(0, 2 * np.pi)
        velocity = speed_m_s * np.array((np.cos(heading), np.sin(heading)))
        place = np.array((10.0, 20.0))
        common = rng.normal(0.0, 1.0, (2, 9)) * 0.6
        own = np.diag(rng.uniform(0.05, 0.5, 2))
        shared, track = common @ rng.normal(0.0, 1.0, 9), None
        for step in range(15):
            at = place + velocity * 0.2 * step
            one = Sight(at + shared + rng.multivariate_normal(np.zeros(2), own), own, common, np.ones(4))
            if track is None:
                track = TargetTrack(name, S, one)
            else:
                track.add(S + step * S // 5, one)
        position, covariance = track.at(track.stamp_ns)
        away = position - at
        held.append(away @ np.linalg.solve(covariance, away) <= CHI2_95)
        errors.append(np.hypot(*away))
    assert 0.90 <= np.mean(held) <= 0.99 and np.median(errors) < 3.0


def test_a_sight_far_off_is_left_out_and_a_second_one_begins_anew():
    near = Sight(np.zeros(2), 0.1 * np.eye(2), np.zeros((2, 9)), np.array((4.0, 2.0, 0.1, 1.0)))
    far = Sight(np.array((60.0, 0.0)), 0.1 * np.eye(2), np.zeros((2, 9)), np.array((8.0, 2.0, 0.1, 1.0)))
    track = TargetTrack("person", S, near)
    for step in range(1, 6):
        track.add(S + step * S // 5, near)
    track.add(S + 6 * S // 5, far)
    assert np.hypot(*track.at(track.stamp_ns)[0]) < 0.5 and track.sights == 6 and track.size_m == 4.0
    track.add(S + 7 * S // 5, far)
    assert track.at(track.stamp_ns)[0][0] == pytest.approx(60.0) and track.sights == 1 and track.size_m == 8.0


def test_a_target_has_geographic_coordinates_and_true_axes():
    grid = LocalGrid("EPSG:32633", 500_000.0 + 200_000.0, 5_360_000.0)  # far east in its zone: it converges
    camera = pose(90.0)
    targets = Targets()
    box = seen(camera, cuboid(camera.position_m, (4.5, 1.8, 1.6), 0.0), "car")
    targets.add(CAMERA, camera, 3, box)
    target = targets.target(3, S, grid)
    assert np.allclose(grid.from_geographic(target.latitude_deg, target.longitude_deg), target.position_m, atol=1e-6)
    angle = grid.convergence_rad(*target.position_m)
    assert abs(angle) > np.radians(1.5)
    turn = rotation_of_rpy(0.0, 0.0, -angle)[:2, :2]
    assert np.allclose(target.covariance_m2, turn @ targets.get(3).at(S)[1] @ turn.T)
    assert target.reach_m > 2.0 and target.size_m == pytest.approx(4.7 / 1.12, abs=0.4)
    assert targets.target(4, S, grid) is None
    width, height, pixel, depression = targets.get(3).views[0]
    assert (width, height, depression) == pytest.approx(
        (tight_side(box.width) * pixel, tight_side(box.height) * pixel, np.pi / 2), rel=1e-3)
    targets.keep(())
    assert targets.get(3) is None


def test_a_box_cut_by_the_edge_of_the_frame_is_worth_little():
    camera = pose(90.0, covariance=np.zeros((6, 6)))
    whole, cut = (sight(CAMERA, camera, Detection(0, 0.9, x, 200, x + 30, 212)) for x in (300, 0))
    assert np.trace(cut.covariance_m2) > 3 * np.trace(whole.covariance_m2) and np.isnan(cut.view).all()
    track = TargetTrack("car", S, cut)
    assert np.isnan(track.size_m) and track.views.shape == (0, 4)
    track.add(S + S // 5, replace(cut, view=whole.view))
    assert track.size_m == pytest.approx(whole.view[0])


def test_sizes_are_those_of_what_the_box_holds():
    found = sight(CAMERA, pose(90.0), Detection(0, 0.9, 300, 200, 300 + 13.2, 200 + 6.48))
    assert found.view[:2] == pytest.approx([10.0 * found.view[2], 4.0 * found.view[2]])


def test_sizes_are_of_metres_where_pixels_are_not_square():
    """What two cameras see of one square thing below them, one of half the vertical focal length."""
    half = replace(CAMERA, fy=0.5 * CAMERA.fy)
    below = pose(90.0)
    across, along = CAMERA.cx, CAMERA.cy
    for camera, side_y in ((CAMERA, 40.0), (half, 20.0)):
        box = Detection(0, 0.9, across - 0.5 * drawn_side(40.0), along - 0.5 * drawn_side(side_y),
                        across + 0.5 * drawn_side(40.0), along + 0.5 * drawn_side(side_y))
        assert sight(camera, below, box).view[0] == pytest.approx(sight(camera, below, box).view[1])


@pytest.mark.parametrize("changed, complaint", [
    ({"depression_deg": 2.0}, "near the horizon"), ({"height_m": 0.5}, "no higher than the object"),
    ({"height_m": -3.0}, "sees none of it"), ({"covariance": np.full((6, 6), np.nan)}, "not finite"),
    ({"covariance": -np.eye(6)}, "covariance of the camera's pose is none"),
])
def test_poses_that_give_no_place_are_refused(changed, complaint):
    with pytest.raises(TargetError, match=complaint) as error:
        sight(CAMERA, pose(**changed), Detection(0, 0.9, 300, 250, 330, 262))
    assert "\n" not in str(error.value)


def test_a_box_that_is_not_finite_is_refused():
    with pytest.raises(TargetError, match="not finite"):
        sight(CAMERA, pose(), Detection(0, 0.9, float("nan"), 250, 330, 262))


def test_of_many_sights_a_second_a_track_takes_some():
    targets, counts = Targets(), []
    for n in range(1, 41):
        camera = pose(stamp_ns=n * S // 10)
        targets.add(CAMERA, camera, 1, seen(camera, cuboid(below(camera), (4.5, 1.8, 1.6), 0.3), "car"))
        counts.append(targets.get(1).sights)
    assert counts[:5] == [1, 2, 3, 4, 5] and counts[-1] == 5 + 17  # then every second one
    assert targets.get(1).stamp_ns >= 3.9 * S
