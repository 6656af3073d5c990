"""Camera motion, tracks, and the pairing of frames with detections."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.reid.motion import CameraMotionEstimator, mutual_nearest, signs
from thermalreid_ros.reid.pairing import StampPairing
from thermalreid_ros.reid.tracks import Tracker, TrackerConfig

S = 1_000_000_000
PERSON, CAR = 1, 0


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    """A textured plain, larger than a frame."""
    random = np.random.default_rng(0)
    coarse = cv2.resize(random.integers(0, 256, (60, 75)).astype(np.float32), (1200, 960),
                        interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse, 0, 255).astype(np.uint8)


def view(ground: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.ascontiguousarray(ground[y:y + 512, x:x + 640])


def box(x: float, y: float, class_id: int = PERSON, score: float = 0.9, width: float = 12, height: float = 20):
    return Detection(class_id, score, x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def ids(result) -> list[int]:
    return [item.track_id for item in result]


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (90, 60), (250, -120)])
def test_the_motion_of_the_camera_is_found(ground, shift):
    estimator = CameraMotionEstimator()
    assert np.array_equal(estimator.update(view(ground, 300, 200)).matrix, np.eye(2, 3))
    motion = estimator.update(view(ground, 300 - shift[0], 200 - shift[1]))
    assert not motion.is_cut
    assert motion.matrix @ (320, 256, 1) == pytest.approx((320 + shift[0], 256 + shift[1]), abs=0.7)


def test_a_turn_of_the_camera_is_found_to_the_pixel(ground):
    turn = cv2.getRotationMatrix2D((320, 256), 12.0, 1.1)
    estimator = CameraMotionEstimator()
    estimator.update(view(ground, 300, 200))
    turned = cv2.warpAffine(ground[200:712, 300:940], turn, (640, 512))
    matrix = estimator.update(turned).matrix
    for point in ((320, 256, 1), (150, 120, 1), (500, 400, 1)):
        assert matrix @ point == pytest.approx(turn @ point, abs=1.0)
    for frame in (ground[:512, :512], np.rot90(ground[:512, :512], 2)):  # half a turn: where edges of pixels are tells
        motion = estimator.update(frame)
    assert motion.matrix @ (100, 400, 1) == pytest.approx((412, 112), abs=1.2)


def test_another_scene_is_a_cut_and_featureless_ground_is_not(ground):
    estimator = CameraMotionEstimator()
    estimator.update(view(ground, 0, 0))
    other = cv2.resize(np.random.default_rng(1).integers(0, 256, (50, 60)).astype(np.uint8), (640, 512))
    assert estimator.update(other).is_cut
    plain = np.full((512, 640), 90, np.uint8)
    assert not estimator.update(plain).is_cut and not estimator.update(plain).is_cut
    x, y = np.meshgrid(np.arange(640), np.arange(512))
    pattern = ((3 * x + 5 * y) % 14 * 18).astype(np.uint8)  # a camera's test picture, of which all features are alike
    assert not estimator.update(pattern).is_cut and estimator.update(pattern).is_cut


def test_features_are_matched_as_by_hamming_distances():
    rng = np.random.default_rng(5)
    before = rng.integers(0, 256, (90, 32), np.uint8)
    now = np.concatenate([before[20:], rng.integers(0, 256, (15, 32), np.uint8)])
    now ^= rng.integers(0, 256, now.shape, np.uint8) & rng.integers(0, 256, now.shape, np.uint8)  # a quarter
    theirs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(before, now)
    ours = zip(*(rows.tolist() for rows in mutual_nearest(signs(before) @ signs(now).T)))
    assert sorted(ours) == sorted((pair.queryIdx, pair.trainIdx) for pair in theirs)


def test_an_object_seen_again_is_one_track():
    tracker = Tracker()
    for frame in range(10):
        result = tracker.update([box(100 + 9 * frame, 200), box(400, 100 + 4 * frame)], frame * S)
        assert ids(result) == [1, 2]
        assert [item.length for item in result] == [frame + 1] * 2


def test_a_panning_camera_needs_the_frame(ground):
    """The ground moves by 70 px a frame, further than anybody walks."""
    with_frame, without = Tracker(), Tracker()
    seen = [[], []]
    for frame in range(6):
        x = 500 - 70 * frame
        people = [box(700 - x, 300), box(760 - x, 420)]
        seen[0].append(ids(with_frame.update(people, frame * S, view(ground, x, 200))))
        seen[1].append(ids(without.update(people, frame * S)))
    assert seen[0] == [[1, 2]] * 6
    assert seen[1][-1] != [1, 2]


def test_no_features_are_sought_where_there_is_nothing_to_follow(ground, monkeypatch):
    tracker, sought, begin = Tracker(), [], CameraMotionEstimator.begin
    monkeypatch.setattr(CameraMotionEstimator, "begin", lambda self, gray8: (sought.append(1), begin(self, gray8)))
    for frame in range(6):
        weak = [box(100, 100, score=0.2)] if frame % 2 else []
        assert tracker.update(weak, frame * S, view(ground, 500 - 70 * frame, 200)) == ()
    assert not sought
    for frame in range(6, 10):  # what begins then is followed as if there had been features all the time
        x = 920 - 70 * frame
        assert ids(tracker.update([box(700 - x, 300)], frame * S, view(ground, x, 200))) == [1]
    assert len(sought) == 4


def test_a_cut_ends_all_tracks(ground):
    tracker = Tracker()
    tracker.update([box(100, 100)], 0, view(ground, 0, 0))
    other = cv2.resize(np.random.default_rng(1).integers(0, 256, (50, 60)).astype(np.uint8), (640, 512))
    assert ids(tracker.update([box(100, 100)], S, other)) == [2]
    assert tracker.statistics.cuts == 1


def test_two_who_cross_keep_their_numbers():
    tracker = Tracker()
    for frame in range(12):
        y = 200 + 6 * frame
        result = tracker.update([box(100 + 10 * frame, y), box(210 - 10 * frame, y + 3)], frame * S)
        assert ids(result) == [1, 2]


def test_classes_do_not_mix_and_sizes_must_agree():
    tracker = Tracker()
    tracker.update([box(100, 100, PERSON)], 0)
    assert ids(tracker.update([box(101, 100, CAR)], S)) == [2]
    assert ids(tracker.update([box(101, 100, PERSON, width=40, height=60)], 2 * S)) == [3]


def test_a_weak_detection_carries_a_track_on_but_begins_none():
    tracker = Tracker()
    assert ids(tracker.update([box(100, 100), box(300, 300, score=0.2)], 0)) == [1]
    assert ids(tracker.update([box(103, 100, score=0.2), box(300, 300, score=0.2)], S)) == [1]


@pytest.mark.parametrize("hidden, number", [(3, 1), (4, 2)])
def test_a_track_survives_three_frames_unseen(hidden, number):
    tracker = Tracker(TrackerConfig(max_lost_frames=3))
    for frame in range(5):
        tracker.update([box(100 + 5 * frame, 100)], frame * S)
    for frame in range(5, 5 + hidden):
        tracker.update([], frame * S)
    assert ids(tracker.update([box(100 + 5 * (5 + hidden), 100)], (5 + hidden) * S)) == [number]


def test_missing_frames_count_as_time():
    """The recording lacks two frames: the object has moved on by three steps."""
    tracker = Tracker()
    for frame in (0, 1, 2, 3, 4, 7):
        assert ids(tracker.update([box(100 + 12 * frame, 100)], frame * S)) == [1]


@pytest.mark.parametrize("gap_frames, number", [(1, 1), (3, 1), (4, 2), (8, 2), (30, 2), (120, 2)])
def test_a_track_does_not_outlive_frames_that_did_not_come(gap_frames, number):
    """Its gate widens with time: whoever stands anywhere then would be taken for it."""
    tracker, step = Tracker(TrackerConfig(max_lost_frames=3)), S // 30
    for frame in range(20):
        tracker.update([box(100, 100)], frame * step)
    assert ids(tracker.update([box(100, 100)], (20 + gap_frames) * step)) == [number]
    far = tracker.update([box(460, 100)], (20 + 2 * gap_frames + 1) * step)
    assert ids(far) == [number + 1]


def test_frames_of_another_size_end_all_tracks(ground):
    tracker = Tracker()
    for frame in range(5):
        tracker.update([box(100, 100)], frame * S, view(ground, 0, 0))
    assert ids(tracker.update([box(100, 100)], 5 * S, view(ground, 0, 0)[::2, ::2].copy())) == [2]
    assert "px after" in tracker.statistics.last_reset


@given(st.floats(1.0, 60.0))
def test_tracking_does_not_depend_on_the_frame_rate(rate_hz):
    tracker = Tracker(TrackerConfig(max_gap_s=10.0))
    for frame in range(8):
        result = tracker.update([box(50 + 8 * frame, 100), box(50 + 8 * frame, 160)], int(frame * S / rate_hz) + 1)
    assert ids(result) == [1, 2]


def test_time_going_back_and_long_silence_reset_and_numbers_are_not_used_again():
    tracker = Tracker()
    tracker.update([box(100, 100)], 10 * S)
    assert ids(tracker.update([box(100, 100)], 4 * S)) == [2]
    assert (tracker.statistics.resets, tracker.statistics.last_reset) == (1, "time went back by 6.000 s")
    assert ids(tracker.update([box(100, 100)], 4 * S)) == [3]
    assert ids(tracker.update([box(100, 100)], 60 * S)) == [4]
    assert tracker.statistics.last_reset == "no frame for 56.0 s"


@given(st.lists(st.lists(st.tuples(st.floats(0, 640), st.floats(0, 512), st.integers(0, 3), st.floats(0, 1),
                                   st.floats(0, 90)), max_size=8), max_size=8))
def test_any_detections_give_each_track_to_one_of_them(frames):
    tracker = Tracker()
    for stamp, rows in enumerate(frames):
        detections = [box(x, y, c, s, size, size) for x, y, c, s, size in rows]
        result = tracker.update(detections, (stamp + 1) * S)
        assert len(set(ids(result))) == len(result)
        assert all(item.detection in detections for item in result)
        assert sum(d.score >= tracker.config.high_score for d in detections) <= len(result)


def test_people_of_a_real_film_keep_their_numbers(shared_data):
    """Links that are certain (see evaluation.reid_tracks) are kept; without the camera's motion many are
    not."""
    from thermalreid_ros.evaluation.recording import Clip, read_frames
    from thermalreid_ros.evaluation.reid_tracks import link_identities

    folder = shared_data / "hit-uav"
    frames = read_frames([folder / "train", folder / "val"],
                         [folder / "annotations" / f"{split}.json" for split in ("train", "val")],
                         [Clip(281, 127)], rate_hz=2.0, clip_gap_s=5.0)[:60]
    identities = link_identities(frames)
    kept = {}
    for moving in (True, False):
        tracker, last, links = Tracker(), {}, []
        for frame, own in zip(frames, identities):
            result = tracker.update(frame.objects, frame.stamp_ns, frame.gray8() if moving else None)
            now = dict(zip(own, ids(result)))
            links += [now[i] == last[i] for i in now if i in last]
            last = now
        assert len(links) > 100
        kept[moving] = np.mean(links)
    assert kept[True] >= 0.95 and kept[True] > kept[False] + 0.03


def test_frames_and_detections_meet_in_either_order():
    pairs = StampPairing()
    assert pairs.add_frame(1, "frame 1") is None
    assert pairs.add_detections(1, "detections 1") == "frame 1"
    assert pairs.add_detections(2, "detections 2") is None
    assert pairs.add_frame(2, "frame 2") == "detections 2"
    assert pairs.misses == 0
    assert pairs.add_detections(1, "again") is None  # the frame was used


def test_detections_without_frame_are_counted_once_a_later_pair_is_complete_or_too_many_wait():
    pairs = StampPairing(capacity=2)
    assert [pairs.add_detections(stamp, "d") for stamp in (1, 2)] == [None, None]
    assert pairs.misses == 0
    assert pairs.add_frame(3, "frame") is None and pairs.add_detections(3, "d") == "frame"
    assert pairs.misses == 2
    assert [pairs.add_detections(stamp, "d") for stamp in (4, 5, 6)] == [None] * 3
    assert pairs.misses == 3


def test_frames_of_a_fast_camera_are_kept_until_their_detections_come():
    period_ns = 10**9 // 60
    for hold_ns, late_ns, paired in ((10**9, 900_000_000, True), (0, 300_000_000, False)):
        pairs = StampPairing(hold_ns=hold_ns)
        for number in range(180):
            pairs.add_frame(number * period_ns, number)
        late = 179 - late_ns // period_ns
        assert pairs.add_detections(late * period_ns, "d") == (late if paired else None)
    pairs = StampPairing(hold_ns=10**9)
    for stamp_ns in (*range(10**10, 2 * 10**10, 10**6), 5):  # a kilohertz, and a recording that starts over
        pairs.add_frame(stamp_ns, stamp_ns)
        assert len(pairs._frames) <= 64
    assert len(pairs._frames) == 16 and pairs.add_detections(5, "d") == 5


def test_only_the_last_frames_are_kept():
    pairs = StampPairing(capacity=2)
    for stamp in (1, 2, 3):
        pairs.add_frame(stamp, stamp)
    assert [pairs.add_detections(stamp, "d") for stamp in (3, 1)] == [3, None]
