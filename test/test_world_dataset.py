"""Data sets and re-identification sets: split by place, the same for any number of workers, resumed, refused."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_town import CENTRE, MAP

from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.cli import main
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import read_coco_set
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import features_path
from thermalreid_ros.world import dataset as dataset_module
from thermalreid_ros.world.dataset import DatasetPlan, districts, plan_sessions

DATASET = ["world", "dataset", "--map", str(MAP), "--images", "6", "--seed", "4", "--session-size", "2",
           "--image-size", "160x128", "--val-share", "0.34", "--thermal16"]
REID = ["world", "reid-set", "--map", str(MAP), "--seed", "4", "--identities", "5", "--probes", "1", "--gallery", "2",
        "--size", "320", "--centre", f"{CENTRE[0]},{CENTRE[1]}"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert main([*DATASET, "--out", str(folder / "set"), "--workers", "2", "--json", str(folder / "n.json")]) == 0
    figures = json.loads((folder / "n.json").read_text())
    assert figures["images"] == {"train": 4, "val": 2} and sum(figures["objects"].values()) > 5
    return folder / "set"


@pytest.fixture(scope="module")
def reid(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reid") / "set"
    assert main([*REID, "--out", str(out), "--workers", "2"]) == 0
    return out


# --- places ----------------------------------------------------------------------------------------------------------

def test_districts_lie_apart_within_the_map():
    found = districts(MAP)
    assert len(found) >= 2
    grid = LocalGrid("EPSG:32633", 0.0, 0.0)
    middles = np.array([np.array(grid.from_geographic(*d.centre)) for d in found])
    for i, j in product(range(len(found)), repeat=2):
        if i < j:
            assert np.abs(middles[i] - middles[j]).max() >= found[i].size_m + 79
    assert all(0.03 < d.built_share < 1 and d.size_m >= 300 for d in found)


def test_sessions_share_out_the_images_and_keep_places_apart():
    plan = DatasetPlan((MAP,), 1, 103, val_share=0.2, session_size=10)
    sessions = plan_sessions(plan)
    assert sum(s.count for s in sessions) == 103
    assert sum(s.count for s in sessions if s.split == "val") == 21
    assert [s.first for s in sessions] == list(np.cumsum([0] + [s.count for s in sessions[:-1]]))
    places = {split: {s.district.centre for s in sessions if s.split == split} for split in ("train", "val")}
    assert places["train"] and places["val"] and not places["train"] & places["val"]
    assert plan_sessions(plan) == sessions
    assert {s.split for s in plan_sessions(DatasetPlan((MAP,), 1, 20, val_share=0.0))} == {"train"}


def test_ground_of_one_split_is_in_no_other_though_maps_overlap(tmp_path):
    for path in (MAP, features_path(MAP)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for maps in ((MAP, MAP), (MAP, tmp_path / MAP.name)):
        sessions = plan_sessions(DatasetPlan(maps, 1, 400, val_share=0.4, session_size=2))
        train, val = ({s.district for s in sessions if s.split == split} for split in ("train", "val"))
        assert train and val and not any(a.overlaps(b) for a in train for b in val)


def test_districts_without_what_is_looked_at_are_passed_over(monkeypatch):
    wet, dry = districts(MAP)[0], replace(districts(MAP)[1], cover=(0.7, 0.1, 0.1, 0.1, 0.0))
    monkeypatch.setattr(dataset_module, "districts", lambda path: [wet, dry])

    def places(*aimed_at):
        plan = DatasetPlan((MAP,), 1, 40, val_share=0.0, session_size=2, aimed_at=aimed_at)
        return {session.district for session in plan_sessions(plan)}

    assert places("water") == {wet} and places("water", "road") == places("water", "car") == places() == {wet, dry}
    monkeypatch.setattr(dataset_module, "districts", lambda path: [dry])
    with pytest.raises(ThermalReidError, match="no district has as much as 0.5% of water to be aimed at"):
        places("water")


def test_pictures_may_look_at_a_class_of_the_ground(tmp_path):
    assert main(["world", "dataset", "--map", str(MAP), "--images", "4", "--seed", "4", "--session-size", "4",
                 "--image-size", "160x128", "--val-share", "0", "--no-colour", "--aim", "water", "--out",
                 str(tmp_path / "set"), "--workers", "1"]) == 0
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (tmp_path / "set/masks/semantic").iterdir()]
    assert len(masks) == 4
    for mask in masks:
        assert (mask == SemanticClass.WATER).mean() > 0.05
        assert (mask != SemanticClass.WATER).mean() > 0.05  # and where it ends


# --- data sets -------------------------------------------------------------------------------------------------------

def test_images_masks_and_boxes_agree(data):
    for split in ("train", "val"):
        coco = json.loads((data / "annotations" / f"{split}.json").read_text())
        assert [c["name"] for c in coco["categories"]] == list(CLASS_NAMES) and "ODbL" in coco["info"]["attribution"]
        for image in coco["images"]:
            own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            stem = Path(image["file_name"]).stem
            grey = cv2.imread(str(data / "images" / "thermal" / image["file_name"]), cv2.IMREAD_UNCHANGED)
            raw = cv2.imread(str(data / "images" / "thermal16" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
            colour = cv2.imread(str(data / "images" / "colour" / f"{stem}.jpg"))
            semantic, instance = (cv2.imread(str(data / "masks" / kind / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
                                  for kind in ("semantic", "instance"))
            assert grey.shape == raw.shape == semantic.shape == instance.shape == colour.shape[:2] == (128, 160)
            assert (grey.dtype, raw.dtype, instance.dtype) == (np.uint8, np.uint16, np.uint16)
            assert 220 < np.median(raw) / 100 < 340 and set(np.unique(semantic)) <= {0, 1, 2, 3, 4, NO_DATA}
            assert (semantic == NO_DATA).mean() < 0.1
            assert set(np.unique(instance)) - {0} == {a["instance"] for a in own}
            for a in own:
                mask = instance == a["instance"]
                assert list(cv2.boundingRect(mask.astype(np.uint8))) == a["bbox"] and mask.sum() == a["area"]
                assert a["identity"].startswith(CLASS_NAMES[a["category_id"]]) and 0 < a["visible_share"] <= 1.001
            assert 55 < image["altitude_m"] < 140 and 29 < image["depression_deg"] <= 90
            assert image["night"] in (True, False) and 0 <= image["hour"] <= 24


def test_annotations_are_read_by_the_evaluation(data):
    read = read_coco_set(data / "images" / "thermal", data / "annotations" / "train.json")
    written = json.loads((data / "annotations" / "train.json").read_text())["annotations"]
    assert read.tight and [a["bbox"] for a in read.coco["annotations"]] == [a["bbox"] for a in written] != []


def test_sessions_share_place_and_time(data):
    images = {split: json.loads((data / "annotations" / f"{split}.json").read_text())["images"]
              for split in ("train", "val")}
    by_session: dict[int, list] = {}
    for image in images["train"] + images["val"]:
        by_session.setdefault(image["session"], []).append(image)
    assert all(len(group) == 2 and len({i["time"] for i in group}) == 1 for group in by_session.values())
    assert len(json.loads((data / "sessions.json").read_text())) == len(by_session)


def test_an_interrupted_data_set_goes_on_to_the_same_bytes(data, tmp_path, monkeypatch, capsys):
    command = [*DATASET, "--out", str(tmp_path / "set"), "--workers", "1"]
    original, calls = dataset_module._SessionRenderer.__call__, []

    def interrupted(self, session):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(session.number)
        return original(self, session)

    with monkeypatch.context() as patched:
        patched.setattr(dataset_module._SessionRenderer, "__call__", interrupted)
        assert main(command) == 130
    assert not (tmp_path / "set" / "annotations").exists()
    assert main([*command, "--night-share", "0.1"]) == 2
    assert "night_share" in capsys.readouterr().err.strip().splitlines()[-1]

    def counted(self, session):
        calls.append(session.number)
        return original(self, session)

    monkeypatch.setattr(dataset_module._SessionRenderer, "__call__", counted)
    assert main(command) == 0
    assert calls == [0, 1, 2]
    assert contents(tmp_path / "set") == contents(data)


def test_faults_are_one_line(data, tmp_path, capsys):
    def fault(*arguments) -> str:
        try:
            assert main(list(arguments)) == 2
        except SystemExit as end:
            assert end.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1, lines
        return lines[0]

    base = ["world", "dataset", "--images", "4", "--seed", "1", "--out", str(tmp_path / "x")]
    assert "finished" in fault(*DATASET, "--out", str(data))
    assert "missing.tif" in fault(*base, "--map", str(tmp_path / "missing.tif"))
    assert "LOW:HIGH" in fault(*base, "--map", str(MAP), "--altitude", "60-130")
    assert "640x512" in fault(*base, "--map", str(MAP), "--image-size", "big")
    alone = tmp_path / "alone.tif"
    alone.write_bytes(MAP.read_bytes())
    assert "thermalreid map build" in fault(*base, "--map", str(alone), "--workers", "1")
    with pytest.raises(ThermalReidError, match="split by place"):
        plan_sessions(DatasetPlan((MAP,), 1, 10, val_share=0.9))


# --- re-identification sets ------------------------------------------------------------------------------------------

def test_identities_are_photographed_and_found_again(reid):
    index = json.loads((reid / "index.json").read_text())
    names = [e["identity"] for e in index["identities"]]
    assert names == ["car-0000", "car-0001", "person-0000", "bicycle-0000", "dog-0000"]
    assert len(index["probes"]) >= 4 and len(index["gallery"]) >= 8
    for entry in index["gallery"]:
        raw, mask = (cv2.imread(str(reid / entry[name]), cv2.IMREAD_UNCHANGED) for name in ("file", "mask"))
        assert raw.dtype == np.uint16 and raw.shape == mask.shape and 230 < np.median(raw) / 100 < 340
        x, y, w, h = cv2.boundingRect(mask)
        assert [x, y, x + w, y + h] == entry["box"] and np.count_nonzero(mask) >= 20
        assert 60 <= entry["distance_m"] < 300 and 50 < entry["height_m"] < 135
        # Its size in pixels is that of its size in metres.
        assert max(w, h) * entry["metres_per_pixel"] < 1.15 * np.linalg.norm(entry["size_m"]) + 0.3
    for entry in index["probes"]:
        picture = cv2.imread(str(reid / entry["file"]))
        assert picture.shape == (360, 480, 3) and 9 <= entry["hour"] <= 16 and entry["distance_m"] < 21
        x_min, y_min, x_max, y_max = entry["box"]
        assert max(x_max - x_min, y_max - y_min) > 45
    hours = sorted({e["hour"] for e in index["gallery"]})
    assert len(hours) == 2 and hours[0] < 12 < hours[1]
    assert not (reid / "sessions").exists()


def test_the_number_of_workers_does_not_matter(reid, tmp_path):
    assert main([*REID, "--out", str(tmp_path / "set"), "--workers", "1"]) == 0
    assert contents(tmp_path / "set") == contents(reid)


def test_too_few_identities_are_refused(tmp_path, capsys, reid):
    assert main([*REID[:REID.index("--identities") + 1], "3", "--out", str(tmp_path / "x")]) == 2
    assert "identities" in capsys.readouterr().err
    assert main([*REID, "--out", str(reid)]) == 2
    assert "finished" in capsys.readouterr().err


# --- a picture to look at --------------------------------------------------------------------------------------------

def test_every_band_is_shown_by_day_and_by_night(tmp_path):
    out = tmp_path / "view.png"
    assert main(["world", "render", "--map", str(MAP), "--seed", "1", "--size", "320", "--centre",
                 f"{CENTRE[0]},{CENTRE[1]}", "--image-size", "160x128", "--out", str(out)]) == 0
    sheet = cv2.imread(str(out))
    rows, columns = sheet.shape[0] // 2, 480
    assert sheet.shape == (2 * (384 + 26), 6 * 480, 3)
    day, night = sheet[30:rows, :columns].mean(), sheet[rows + 30:, :columns].mean()
    assert day > night + 15  # the colour pictures
    semantic = [sheet[top + 30:top + rows, 3 * columns:4 * columns] for top in (0, rows)]
    assert np.abs(semantic[0].astype(int) - semantic[1]).mean() < 1.0  # the same place


def test_a_picture_needs_the_name_of_one(tmp_path, capsys):
    assert main(["world", "render", "--map", str(MAP), "--seed", "1", "--out", str(tmp_path / "view.tiff")]) == 2
    assert ".png" in capsys.readouterr().err
