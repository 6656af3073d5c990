"""Statistics of frames, and the command that compares rendered frames with real ones."""

import json

import cv2
import numpy as np
import pytest

from thermalreid_ros.cli import main
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.realism import figures, group_of, measure


def power_law(slope, rng, size=512):
    """A picture whose power falls as frequency to the power of slope."""
    cycles = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(*np.meshgrid(cycles, cycles))
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) * radius ** (slope / 2)
    picture = np.fft.ifft2(spectrum).real
    return np.clip(127.5 + 40.0 * picture / picture.std(), 0, 255).astype(np.uint8)


def test_an_even_picture_has_one_grey_level_and_no_gradient():
    found = measure([np.full((256, 320), 100, np.uint8)])
    assert found.grey[25] == 1.0 and found.gradient[0] == 1.0
    assert found.spread == found.sharpness == 0.0


def test_a_ramp_has_its_slope_as_gradient():
    ramp = np.tile(np.arange(0, 240, 0.75).astype(np.uint8), (256, 1))
    assert measure([ramp]).sharpness == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("slope", [-2.0, -3.0])
def test_the_slope_of_a_known_spectrum_is_found(slope):
    rng = np.random.default_rng(1)
    assert measure([power_law(slope, rng) for _ in range(4)]).slope == pytest.approx(slope, abs=0.15)


def test_frames_are_grouped_by_record_or_by_name():
    assert group_of({"file_name": "1_130_30_0_00001.jpg"}) == ("night", "above 115 m")
    assert group_of({"file_name": "x.png", "altitude_m": 61.0, "night": False}) == ("day", "below 75 m")
    for altitude_m in ("high", float("nan"), -1.0, 1e4, None):
        with pytest.raises(ThermalReidError, match=f"x.png: altitude_m {altitude_m!r} is no height"):
            group_of({"file_name": "x.png", "altitude_m": altitude_m, "night": False})
    with pytest.raises(ThermalReidError, match="at what altitude"):
        group_of({"file_name": "x.png"})


def test_small_frames_and_empty_sets_are_refused():
    with pytest.raises(ThermalReidError, match="too small"):
        measure([np.zeros((100, 300), np.uint8)])
    with pytest.raises(ThermalReidError, match="no frames"):
        measure([])


def test_a_set_differs_from_itself_by_nothing_from_another_by_something():
    rng = np.random.default_rng(2)
    a, b = measure([power_law(-3.0, rng)]), measure([power_law(-1.0, rng) // 2])
    row, = figures({("day", "below 75 m"): {"real": a, "rendered": a}}, "real", "rendered")
    assert row["grey_distance"] == row["gradient_distance"] == 0.0
    row, = figures({("day", "below 75 m"): {"real": a, "rendered": b}}, "real", "rendered")
    assert row["grey_distance"] > 0.4 and row["gradient_distance"] > 0.3


def _set(folder, names, slope, rng):
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), power_law(slope, rng))
    records = [{"id": i, "file_name": name, "width": 512, "height": 512} for i, name in enumerate(names)]
    box = {"id": 1, "image_id": 0, "category_id": 0, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    (folder / "coco.json").write_text(json.dumps({"images": records, "annotations": [box],
                                                  "categories": [{"id": 0, "name": "car"}]}))
    return ["--images", str(folder), "--annotations", str(folder / "coco.json")]


def test_the_command_writes_figures_plot_and_frames(tmp_path):
    rng = np.random.default_rng(3)
    real = _set(tmp_path / "real", ["0_60_90_0_1.png", "0_60_90_0_2.png", "1_60_90_0_3.png"], -3.0, rng)
    rendered = _set(tmp_path / "rendered", ["0_70_90_0_1.png", "1_130_90_0_2.png"], -2.0, rng)
    out = tmp_path / "out"
    assert main(["evaluate", "realism", *rendered, "--real-images", real[1], "--real-annotations", real[3],
                 "--out", str(out), "--json", str(tmp_path / "r.json")]) == 0
    row, = json.loads((tmp_path / "r.json").read_text())["groups"]
    assert (row["light"], row["altitude"], row["frames"]) == ("day", "below 75 m", [2, 1])
    assert row["spectral_slope"][0] < row["spectral_slope"][1] - 0.5
    assert cv2.imread(str(out / "realism.png")) is not None and cv2.imread(str(out / "frames.jpg")) is not None
