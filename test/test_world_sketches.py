"""Sketches: identities on plain ground, alone or beside others, as photographs of the city show them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.cli import main
from thermalreid_ros.world import sketches
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.daylight import Daylight
from thermalreid_ros.world.film import solar_time
from thermalreid_ros.world.sketches import Body, SketchPlan, company
from thermalreid_ros.world.thermal import ThermalDay
from thermalreid_ros.world.views import from_drone, near_by
from thermalreid_ros.world.weather import Weather

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


def test_from_above_dark_paint_is_hot_in_the_sun():
    """Of one body in other paint, at noon of a clear day: the difference is that of its thermal picture."""
    camera = Intrinsics.from_field_of_view(640, 512, np.radians(32.0))
    when = solar_time("2025-06-21", 12.5, 0.0)
    day = ThermalDay(45.0, 0.0, when, Weather.clear())
    car = next(car for n in range(200) if (car := make_identity("car", n, 3)).style == "saloon" and not car.sunroof)
    means = []
    for paint in ((0.012, 0.012, 0.014), (0.74, 0.75, 0.74)):
        body = Body(replace(car, paint=paint, roof_paint=paint), 0.0, False)
        frame, box = body.from_above(day, camera, np.random.default_rng(0))
        x0, y0, x1, y1 = (int(edge) for edge in box)
        means.append(frame[y0:y1, x0:x1].mean() / 100.0)
        assert frame.dtype == np.uint16 and 20 < max(x1 - x0, y1 - y0) < 90
        assert 280.0 < np.median(frame) / 100.0 < 340.0
    assert means[0] - means[1] > 5.0
    again = body.from_above(day, camera, np.random.default_rng(0))
    assert (again[0] == frame).all() and again[1] == box


def test_what_shows_too_few_pixels_from_above_is_not_kept():
    far = Intrinsics.from_field_of_view(640, 512, np.radians(110.0))
    night = ThermalDay(45.0, 0.0, solar_time("2025-06-21", 1.0, 0.0), Weather.clear())
    body = Body(make_identity("dog", 0, 3), 0.0, False)
    assert body.from_above(night, far, np.random.default_rng(2)) is None


@pytest.mark.parametrize("name", ["car", "person", "bicycle", "dog"])
def test_others_stand_beside_and_do_not_reach_into_each_other(name):
    actor = Body(make_identity(name, 3, 3), 0.0, False).actor
    rng, kinds = np.random.default_rng(1), set()
    for _ in range(40):
        for other in company(actor, 3, rng):
            kinds.add(other.identity.class_name)
            corners = np.array([(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * other.identity.size_m[:2]
            cos, sin = np.cos(other.yaw_rad), np.sin(other.yaw_rad)
            corners = corners @ np.array([[cos, sin], [-sin, cos]]) + (other.x, other.y)
            towards = np.array([other.x, other.y]) / np.hypot(other.x, other.y)
            own = 0.5 * np.abs(towards) @ actor.identity.size_m[:2]
            assert (corners @ towards).min() > own + 0.25  # a line between both boxes
            assert np.hypot(other.x, other.y) < 8.0
    assert len(kinds) >= 2


def test_others_beside_are_hot_in_the_picture_and_not_in_the_box(monkeypatch):
    """A car from above with another at its side: the box is that of the car alone, as without the other."""
    camera = Intrinsics.from_field_of_view(640, 512, np.radians(32.0))
    day = ThermalDay(45.0, 0.0, solar_time("2025-06-21", 12.5, 0.0), Weather.clear())
    alone = Body(make_identity("car", 5, 3), 0.0, False)
    black = next(car for n in range(200) if (car := make_identity("car", n, 3)).style == "saloon")
    black = replace(black, paint=(0.012, 0.012, 0.014), roof_paint=(0.012, 0.012, 0.014))
    beside = alone.beside([replace(alone.actor, identity=black, y=2.6)])
    view = from_drone(camera)(alone.actor, np.random.default_rng(4))
    monkeypatch.setattr(sketches, "from_drone", lambda camera: lambda actor, rng: view)
    boxes = []
    for body in (alone, beside):
        frame, box = body.from_above(day, camera, np.random.default_rng(4))
        boxes.append(box)
        rest = frame.astype(float) / 100.0
        rest[int(box[1]):int(box[3]), int(box[0]):int(box[2])] = np.nan
        boxes.append(np.nanmax(rest))
    assert np.abs(np.subtract(boxes[0], boxes[2])).max() <= 1.0  # edges that the other covers or shades
    assert boxes[3] > boxes[1] + 3.0
    picture = [body.sketch(Daylight(SUN), np.random.default_rng(4)) for body in (alone, beside)]
    assert (picture[0] != picture[1]).any(2).mean() > 0.02


def test_who_is_hidden_by_others_is_shown_without_them():
    dog, light = Body(make_identity("dog", 1, 3), 0.0, False), Daylight(SUN)
    under = dog.beside([replace(dog.actor, identity=make_identity("car", 2, 3))])
    rng = np.random.default_rng(0)
    for _ in range(16):  # the views that were tried
        near_by()(dog.actor, rng)
    assert (under.sketch(light, np.random.default_rng(0)) == dog.sketch(light, rng)).all()


def test_sketches_with_a_drone_are_read_with_traits(tmp_path, capsys):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from thermalreid_ros.training.pairs import read_sketches

    out = tmp_path / "set"
    command = ["world", "sketches", "--seed", "4", "--identities", "4", "--classes", "car", "--views", "2",
               "--drone", "2", "--company", "0.5", "--workers", "1", "--out", str(out)]
    assert main(command) == 0
    drawn = read_sketches([out])
    assert len(drawn) == 8 and drawn.identities == 4 and not len(drawn.near)
    assert drawn.drone.shape == (8, 2, 96, 96) and drawn.colour.shape == (8, 3, 128, 128)
    assert (drawn.drone_px.amax(1) > 0).all() and 230.0 < float(drawn.drone[0, 0].median()) / 100.0 < 340.0
    # Views of one identity have its traits, others have others.
    assert (drawn.traits[0] == drawn.traits[1]).all() and not (drawn.traits[0] == drawn.traits[4]).all()
    with pytest.raises(SystemExit):
        main([*command[:-2], "--drone", "-1", "--out", str(tmp_path / "x")])
    assert "less than 0" in capsys.readouterr().err


def test_a_class_named_twice_has_no_identity_twice(tmp_path):
    assert main(["world", "sketches", "--seed", "4", "--identities", "4", "--classes", "dog", "car", "dog",
                 "--views", "1", "--workers", "1", "--out", str(tmp_path)]) == 0
    with np.load(next((tmp_path / "sessions").iterdir())) as stored:
        assert len(set(stored["identity"].tolist())) == 4


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
    (out / "index.json").unlink()
    session = out / "sessions" / "0000.npz"
    session.write_bytes(session.read_bytes()[:-100])
    assert main(command) == 2 and "0000.npz: damaged" in capsys.readouterr().err
    session.unlink()
    assert main(command) == 0
    with pytest.raises(SystemExit):
        main([*command[:-4], "--classes", "cat", "--out", str(tmp_path / "x")])
    assert "--classes: invalid choice: 'cat'" in capsys.readouterr().err
