"""Sketches: identities alone on plain ground, as photographs of the city show them."""

import json

import numpy as np
import pytest

from thermalreid_ros.cli import main
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.daylight import Daylight
from thermalreid_ros.world.sketches import Body, SketchPlan

SUN = np.float32([0.6, 0.0, 0.8])


def test_groups_hold_the_classes_asked_for():
    groups = SketchPlan(1, 5, ("car", "dog"), group=4).groups()
    assert groups == [[("car", 0), ("dog", 0), ("car", 1), ("dog", 1)], [("car", 2)]]


def test_the_object_fills_the_middle_and_wears_its_colours():
    """A red car is red in the middle and not around it; the mean of some views, whatever stands behind."""
    number = next(n for n in range(200) if make_identity("car", n, 3).colour == "red")
    body, light = Body(make_identity("car", number, 3), 0.0, False), Daylight(SUN)
    pictures = np.stack([body.sketch(light, np.random.default_rng(seed)) for seed in range(6)]).astype(float)
    assert pictures.shape == (6, 128, 128, 3) and 30 < pictures.mean() < 200
    redness = pictures[..., 0] / pictures.sum(axis=3).clip(1.0)
    assert redness[:, 54:74, 54:74].mean() > redness[:, :12].mean() + 0.05
    again = body.sketch(light, np.random.default_rng(0))
    assert (again == pictures[0]).all()


def test_the_shadow_lies_away_from_the_sun():
    body = Body(make_identity("person", 1, 3), 0.1, False)
    clear, dull = (body.sketch(Daylight(SUN, cover), np.random.default_rng(5)).astype(float) for cover in (0.0, 1.0))
    assert np.abs(clear / clear.mean() - dull / dull.mean()).max() > 0.2


def test_a_set_is_made_resumed_and_not_made_again(tmp_path, capsys):
    out, told = tmp_path / "set", tmp_path / "n.json"
    command = ["world", "sketches", "--seed", "4", "--identities", "3", "--classes", "car", "dog", "--views", "2",
               "--workers", "1", "--out", str(out), "--json", str(told)]
    assert main(command) == 0
    assert json.loads(told.read_text()) == {"identities": 3, "sketches": 6}
    with np.load(out / "sessions" / "0000.npz") as stored:
        assert stored["label"].tolist() == [0, 0, 3, 3, 0, 0] and stored["colour"].shape == (6, 128, 128, 3)
        assert stored["identity"][2] == "dog-0000" and int(stored["seed"]) == 4
        np.testing.assert_allclose(stored["size_m"][0], make_identity("car", 0, 4).size_m, rtol=1e-5)
    assert main(command) == 2 and "finished" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command[:-4], "--classes", "cat", "--out", str(tmp_path / "x")])
    assert "--classes: invalid choice: 'cat'" in capsys.readouterr().err
