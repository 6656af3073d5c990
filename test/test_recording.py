"""The recording made of HIT-UAV frames: order, stamps, truth and the followed target."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from thermalreid_ros.cli import main
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.recording import FRAME_TOPIC, Clip, follow, read_frames, read_truth
from thermalreid_ros.files import shipped
from thermalreid_ros.reid.motion import CameraMotionEstimator
from thermalreid_ros.ros.bag import Bag

NIGHT = shipped("config") / "recordings" / "hit_uav_night"


def test_filming_order_is_that_of_names_sorted_as_strings():
    frames = Clip(first=281, count=127).frames()
    assert [frames[index] for index in (281, 282, 283, 284, 293, 294, 312)] == [0, 1, 10, 100, 109, 11, 126]
    assert sorted(frames.values()) == list(range(127))


INDEX = {frame: index for index, frame in Clip(500, 14).frames().items()}


def made_up_set(folder: Path, count: int = 14, split: str = "made up") -> tuple[Path, Path]:
    """A textured ground under a panning camera (3 px right, 2 px down a frame), one walker going left on it, another
    standing, a bicycle, and one DontCare region."""
    rng = np.random.default_rng(3)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (700, 900)).astype(np.uint8), (0, 0), 3)
    ground = cv2.normalize(ground, None, 40, 160, cv2.NORM_MINMAX)
    images, annotations = [], []
    for index, frame in sorted(Clip(500, count).frames().items()):
        picture = ground[2 * frame:2 * frame + 512, 3 * frame:3 * frame + 640].copy()
        walker, stander = (400 - 8 * frame - 3 * frame, 300 - 2 * frame), (330 - 3 * frame, 330 - 2 * frame)
        for x, y in (walker, stander):
            picture[y:y + 20, x:x + 10] = 230
        name = f"1_60_50_0_{index:05d}.png"
        cv2.imwrite(str(folder / name), picture)
        images.append({"id": index, "file_name": name, "width": "640", "height": 512, "date_captured": 20201217})
        for category, (x, y) in ((0, stander), (0, walker), (2, (50, 60)), (4, (500, 100))):
            annotations.append({"id": len(annotations), "image_id": index, "category_id": category,
                                "bbox": [x, y, 10, 20], "area": 200, "iscrowd": 0})
    names = ("Person", "Car", "Bicycle", "OtherVehicle", "DontCare")
    file = folder / "annotations.json"
    file.write_text(json.dumps({"info": {"description": split}, "images": images, "annotations": annotations,
                                "categories": [{"id": i, "name": name} for i, name in enumerate(names)]}))
    return folder, file


def test_make_writes_frames_truth_target_and_probe(tmp_path: Path, capsys):
    folder, file = made_up_set(tmp_path)
    out = tmp_path / "bag"
    index = INDEX[3]
    arguments = ["recording", "make", "--images", str(folder), "--annotations", str(file), "--clip", "500:14",
                 "--target", f"1_60_50_0_{index:05d}:{400 - 33 + 5},{300 - 6 + 5}", "--out", str(out)]
    assert main(arguments) == 0
    assert "14 frames, 42 annotated objects, target seen in 14 frames" in capsys.readouterr().out
    with Bag(out) as bag:
        truth = read_truth(bag)
        frames = [bag.decode(message) for message in bag.messages([FRAME_TOPIC])]
        assert bag.custom["source"] == "HIT-UAV: 14 frames of made up" and "CC BY 4.0" in bag.custom["licence"]
    stamps = [frame.header.stamp.sec * 10**9 + frame.header.stamp.nanosec for frame in frames]
    assert stamps == [1608206400 * 10**9 + n * 500_000_000 for n in range(14)]  # 2020-12-17 12:00 UTC, 2 Hz
    for n, (stamp_ns, frame) in enumerate(zip(stamps, frames)):
        original = folder / f"1_60_50_0_{INDEX[n]:05d}.png"
        assert frame.format == "png" and frame.data.tobytes() == original.read_bytes()
        assert [d.class_name for d in truth.objects[stamp_ns]] == ["person", "person", "bicycle"]
        assert truth.ignored[stamp_ns][0].class_id == 255
        assert (truth.target[stamp_ns].x_min, truth.target[stamp_ns].y_min) == (400 - 11 * n, 300 - 2 * n)
    probe = cv2.imread(str(out / "probe.png"), cv2.IMREAD_UNCHANGED)
    assert probe.shape == (20, 10) and (probe == 230).all()
    assert yaml.safe_load((out / "probe.yaml").read_text())["class_name"] == "person"
    assert "Scientific Data 10, 227" in (out / "ATTRIBUTION.md").read_text()
    assert main(arguments) == 2 and "exists already" in capsys.readouterr().err


def test_missing_frames_leave_gaps_in_the_stamps_and_the_target_is_found_again(tmp_path: Path):
    folder, file = made_up_set(tmp_path)
    coco = json.loads(file.read_text())
    gone = {INDEX[frame] for frame in (5, 6)}
    coco["images"] = [image for image in coco["images"] if image["id"] not in gone]
    coco["annotations"] = [item for item in coco["annotations"] if item["image_id"] not in gone]
    file.write_text(json.dumps(coco))
    frames = read_frames([folder], [file], [Clip(500, 14)], rate_hz=2.0, clip_gap_s=5.0)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4, *range(7, 14)]
    assert frames[5].stamp_ns - frames[4].stamp_ns == 1_500_000_000
    followed = follow(frames, frames[0].path.name, (405, 310))
    assert [frame.target.x_min for frame in followed] == [400 - 11 * frame.number for frame in frames]


@pytest.mark.parametrize("clip, target, fault", [
    ((900, 3), ("1_60_50_0_00500", (1, 1)), "no annotated picture has such an index"),
    ((500, 14), ("1_60_50_0_00777", (1, 1)), "not among the frames"),
    ((500, 14), ("1_60_50_0_00500", (1, 1)), "no annotated object at pixel 1,1"),
])
def test_refusals(tmp_path: Path, clip, target, fault):
    folder, file = made_up_set(tmp_path)
    with pytest.raises(ThermalReidError, match=fault):
        follow(read_frames([folder], [file], [Clip(*clip)], rate_hz=2.0, clip_gap_s=5.0), *target)


def test_annotations_of_another_form_are_refused(tmp_path: Path):
    for text in ("{", "[" * 10**5, "[]", '{"images": [{}], "categories": [], "annotations": []}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ThermalReidError, match="a.json: not HIT-UAV annotations"):
            read_frames([tmp_path], [tmp_path / "a.json"], [Clip(0, 3)], rate_hz=2.0, clip_gap_s=5.0)


def test_shipped_recording_is_what_its_command_makes(shared_data: Path, tmp_path: Path):
    data = shared_data / "hit-uav"
    assert main(["recording", "make", "--images", str(data / "train"), str(data / "val"), "--annotations",
                 str(data / "annotations/train.json"), str(data / "annotations/val.json"), "--clip", "281:127",
                 "--max-frames", "16", "--target", "1_60_50_0_00282:530,336",
                 "--out", str(tmp_path / "hit_uav_night")]) == 0
    for file in NIGHT.iterdir():
        if file.suffix != ".mcap":  # its header names the release of the library that wrote it
            assert (tmp_path / "hit_uav_night" / file.name).read_bytes() == file.read_bytes(), file.name
    with Bag(NIGHT) as shipped_bag, Bag(tmp_path / "hit_uav_night") as made:
        for one, other in zip(shipped_bag.messages(), made.messages(), strict=True):
            assert one == other


def test_shipped_recording_is_small_and_continuous():
    assert sum(file.stat().st_size for file in NIGHT.iterdir()) < 6e5
    with Bag(NIGHT) as bag:
        truth = read_truth(bag)
        frames = [bag.decode(message) for message in bag.messages([FRAME_TOPIC])]
    assert len(frames) == 16 == len(truth.objects)
    assert sum(map(len, truth.objects.values())) == 118
    assert len(truth.target) == 16
    pictures = [cv2.imdecode(frame.data, cv2.IMREAD_GRAYSCALE) for frame in frames]
    assert {picture.shape for picture in pictures} == {(512, 640)}
    camera = CameraMotionEstimator()
    motions = [camera.update(picture) for picture in pictures]
    shifts = [np.linalg.norm(motion.matrix @ (320, 256, 1) - (320, 256)) for motion in motions[1:]]
    assert np.median(shifts) < 20 and max(shifts) < 100  # neighbours: a seventh of the picture apart at most
    assert not any(motion.is_cut for motion in motions[1:])
