"""`thermalreid reid calibrate` on real clips, and the making of trials."""

import json

import numpy as np
import pytest
import yaml

from thermalreid_ros.cli import main
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.reid_tracks import Seen, Trial, best_beta_h, draw_trials, evaluate
from thermalreid_ros.reid.signature import GREY, compute_signature


def arguments(shared_data, out, *more: str) -> list[str]:
    folder = shared_data / "hit-uav"
    return ["reid", "calibrate", "--images", *(str(folder / split) for split in ("train", "val")),
            "--annotations", *(str(folder / "annotations" / f"{split}.json") for split in ("train", "val")),
            "--draws", "10", "--out", str(out), *more]


def test_two_short_clips_are_calibrated_and_reported(shared_data, tmp_path, capsys):
    out, plot, results = tmp_path / "c.yaml", tmp_path / "c.png", tmp_path / "c.json"
    assert main(arguments(shared_data, out, "--clip", "7124:32", "--held-out-clip", "4008:41", "--plot", str(plot),
                          "--json", str(results))) == 0
    content = yaml.safe_load(out.read_text())
    assert 0.0 <= content["beta_h"] <= 1.0 and f"beta_h = {content['beta_h']:g}" in capsys.readouterr().out
    assert (content["draws"], content["data"]["calibration_clips"]) == (10, ["7124:32"])
    assert "/" not in content["command"]  # no path of this machine
    cars = content["figures_by_beta_h"]["calibration"]["car"][str(content["beta_h"])]
    assert cars["mean"]["r1"] > 2 * cars["guessing"] and cars["probes"] >= 5
    assert json.loads(results.read_text()) == content
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("more, complaint", [
    (("--clip", "7124:32", "--held-out-clip", "7124:32"), "7124:32"),
    (("--clip", "999999:5", "--held-out-clip", "4008:41"), "999999:5"),
    (("--clip", "7124:32", "--held-out-clip", "4008:41", "--min-gap", "500"), "500 frames apart"),
    (("--clip", "7124:32", "--held-out-clip", "4008:41", "--draws", "0"), "1 or more"),
])
def test_what_cannot_be_calibrated_is_one_line(shared_data, tmp_path, capsys, more, complaint):
    assert main(arguments(shared_data, tmp_path / "c.yaml", *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in error and error.startswith("thermalreid: ")
    assert not (tmp_path / "c.yaml").exists()


def seen(identity: int, grey: int, class_name: str = "car") -> Seen:
    crop = np.full((12, 12), 60.0)
    crop[3:9, 3:9] = grey
    return Seen(identity, class_name, compute_signature(crop, GREY))


def test_trials_keep_their_distance_in_time_and_their_class():
    frames = {(0, frame): [seen(k, 100 + 30 * k) for k in range(4)] + [seen(9, 150, "person")] for frame in range(5)}
    draws = draw_trials(frames, draws=3, seed=0, min_gap=4, min_gallery=4)
    assert [len(draw) for draw in draws] == [4, 4, 4]  # the only person has no rivals
    for trial in draws[0]:
        assert (trial.class_name, len(trial.histogram), trial.rank(0.5)) == ("car", 4, 1)
    result = evaluate(draws, 0.5)
    assert (result.mean.r1, result.std.r1, result.probes, result.guessing) == (1.0, 0.0, 4, 0.25)
    with pytest.raises(ThermalReidError, match="5 frames apart"):
        draw_trials(frames, draws=1, seed=0, min_gap=5, min_gallery=4)


def test_the_weight_that_ranks_best_is_chosen():
    """The histogram is right for the first probe, the blobs for the second; only 0.3 to 0.7 ranks both
    first."""
    first = Trial("car", np.array([0.1, 0.4]), np.array([0.4, 0.3]), 0)
    second = Trial("car", np.array([0.4, 0.3]), np.array([0.1, 0.4]), 0)
    assert best_beta_h([[first, second]], [0.0, 0.5, 1.0]) == 0.5
    assert evaluate([[first, second]], 1.0).mean.r1 == 0.5
