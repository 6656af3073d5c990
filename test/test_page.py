"""The page: whole, self-contained, true to the replay that it shows."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_replay import made_up_replay
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.page import page, write_page
from thermalreid_ros.evaluation.replay import Replay


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    replay = made_up_replay(tmp_path)
    cv2.imwrite(str(replay.probe), np.full((30, 12), 200, np.uint8))
    return replay


def pictures(replay: Replay) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(1)
    return {frame.stamp_ns: rng.integers(0, 255, (512, 640)).astype(np.uint8) for frame in replay.frames}


def data_of(text: str) -> list[dict]:
    return json.loads(re.search(r"const frames = (\[.*?\]), classes = ", text, re.S)[1])


def test_needs_nothing_from_elsewhere(replay: Replay):
    text = page(replay, pictures(replay), command="thermalreid replay bag <&>")
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", text)
    assert "@import" not in text and "fetch(" not in text and "<link" not in text
    assert "thermalreid replay bag &lt;&amp;&gt;" in text and "$$" not in text.split("<script>")[0]
    assert text.count("<script>") == text.count("</script>") == 1


def test_shows_the_frames_and_figures_of_the_replay(replay: Replay):
    text = page(replay, pictures(replay), command="x")
    frames = data_of(text)
    assert len(frames) == 10 and [frame["seen"] for frame in frames].count(False) == 1
    assert all(frame["picture"].startswith("data:image/webp;base64,") for frame in frames)
    assert [frame["rank"] for frame in frames] == [2, 1, None, 1, 2, 1, 2, 1, 2, 1]
    assert frames[1]["matches"][0]["true"] and not frames[1]["matches"][1]["true"]
    assert frames[1]["target"] == [100.0, 100.0, 112.0, 130.0]
    assert "9 / 10" in text and "overtaken by a newer frame" in text
    assert "62%" in text  # five of eight frames


def test_stays_small_however_long_the_recording_is(replay: Replay):
    """Noise is the worst that a picture can hold."""
    base = replay.frames[1]
    many = {10**9 + n: picture for n, picture in enumerate(list(pictures(replay).values()) * 30)}
    replay.frames = [type(base)(stamp_ns, 0.0, 0.1, 0.1, 5.0) for stamp_ns in many]
    small = {stamp_ns: cv2.resize(picture, (160, 128)) for stamp_ns, picture in many.items()}
    assert len(page(replay, small, command="x")) < 6e6


def test_without_probe_truth_or_detections(replay: Replay, tmp_path: Path):
    replay.probe = None
    replay.truth = type(replay.truth)({}, {}, {})
    for frame in replay.frames:
        frame.detected_s = frame.matched_s = None
        frame.detections = frame.matches = ()
    text = page(replay, pictures(replay), command="x")
    assert "No probe was given" in text and "No frame was detected" in text
    assert not any(frame["seen"] for frame in data_of(text))


def test_says_what_the_probe_is_and_by_what_it_was_ranked(replay: Replay):
    replay.beta_h, replay.method = 0.4, "thermal_signature"
    text = page(replay, pictures(replay), command="x")
    assert "12 × 30 pixels of the object" in text and "d = 0.4·histogram + 0.6·blobs" in text
    assert "One small crop without colour" in text
    cv2.imwrite(str(replay.probe), np.random.default_rng(1).integers(0, 255, (30, 12, 3)))
    replay.method = "cross_modal_embedding"
    text = page(replay, pictures(replay), command="x")
    assert "A photograph of the object" in text and "cross modal embedding" in text and "·histogram" not in text
    assert "without colour" not in text


def test_a_recording_without_pictures_is_told(replay: Replay, tmp_path: Path):
    from test_bag import messages
    from thermalreid_ros.ros.bag import write_bag

    colour = list(messages(3))[::2]
    for _, _, message in colour:
        message.encoding = "bgr8"
    replay.bag = write_bag(tmp_path / "images", colour, {})
    with pytest.raises(ThermalReidError, match="no picture"):
        write_page(tmp_path / "index.html", replay, command="x")
    assert not (tmp_path / "index.html").exists()


def test_a_write_makes_its_folder(replay: Replay, tmp_path: Path):
    from test_bag import messages
    from thermalreid_ros.ros.bag import write_bag

    replay.bag = write_bag(tmp_path / "images", messages(3, size=64), {})
    path = write_page(tmp_path / "a" / "b" / "index.html", replay, command="x")
    assert path.is_file() and len(data_of(path.read_text())) == 3
