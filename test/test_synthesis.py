"""Probe synthesis: what the wrapper asks of a model, what it makes of the answer, and what it refuses."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from thermalreid_ros.engine import EngineError, ModelCard
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer, SynthesisError
from thermalreid_ros.synthesis.conditions import ConditionsError
from thermalreid_ros.world.sun import sun_direction

S = 64
NOON = Conditions(12.0, 20.0, 0.1, 55.0)


class RedIsWarm:
    """Stands in for a model: red pixels are the object, 10 K above the air, moved by the offset."""

    provider = "cpu"
    card = ModelCard.from_mapping({
        "name": "red", "task": "synthesis", "architecture": "threshold", "sha256": "0",
        "inputs": [{"name": "colour", "shape": [1, 3, S, S], "dtype": "uint8"},
                   {"name": "conditions", "shape": ["count", 4]}, {"name": "offset", "shape": ["count"]}],
        "outputs": [{"name": "temperature", "shape": ["count", S, S]}, {"name": "mask", "shape": [1, S, S]}],
        "mean_offsets_k": {"car": [0.0, -3.0, 5.0], "any": [1.0, -6.0, 6.0]}})

    def __init__(self):
        self.asked = []

    def run(self, inputs):
        self.asked.append(inputs)
        red = inputs["colour"][0].astype(int)
        mask = ((red[0] > 150) & (red[1] < 100)).astype(np.float32)
        air = inputs["conditions"][:, 1, None, None]
        return {"temperature": (air + mask * (10.0 + inputs["offset"][:, None, None])).astype(np.float32),
                "mask": mask[None]}


def street(box=(120, 60, 180, 90)) -> np.ndarray:
    picture = np.random.default_rng(0).integers(90, 140, (200, 300, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    picture[y0:y1, x0:x1] = (220, 30, 30)
    return picture


def test_probes_are_cut_at_the_box_and_moved_by_the_offsets_of_the_class():
    engine = RedIsWarm()
    probes = ProbeSynthesizer(engine).synthesize(street(), NOON, box=(120, 60, 180, 90), class_name="car")
    assert [round(mean, 2) for mean in probes.mean_c] == [30.0, 27.0, 35.0]
    # 60x30 px at S / 90 px a pixel.
    assert {crop.shape for crop in probes.crops} == {(22, 44)}
    assert probes.crops[0].dtype == np.float32 and probes.mask.shape == (22, 44)
    assert probes.mask.mean() > 0.9
    asked = engine.asked[0]
    np.testing.assert_allclose(asked["conditions"], np.repeat([[12.0, 20.0, 0.1, np.sin(np.radians(55.0))]], 3, 0),
                               rtol=1e-6)
    assert asked["colour"].dtype == np.uint8 and asked["colour"].shape == (1, 3, S, S)


def test_an_unknown_class_takes_the_offsets_of_any_and_fewer_may_be_asked_for():
    synthesizer = ProbeSynthesizer(RedIsWarm())
    assert synthesizer.most == 3
    probes = synthesizer.synthesize(street(), NOON, box=(120, 60, 180, 90), count=2)
    assert [round(mean, 2) for mean in probes.mean_c] == [31.0, 24.0]


@pytest.mark.parametrize("box", [(120, 60, 180, 90), (20, 20, 60, 120), (200, 120, 290, 190)])
def test_the_object_is_found_where_no_box_is_given(box):
    probes = ProbeSynthesizer(RedIsWarm()).synthesize(street(box), NOON)
    np.testing.assert_allclose(probes.box, box, atol=4.0)


class Restless(RedIsWarm):
    """Sees an object in every picture, each time in another corner."""

    def run(self, inputs):
        made = super().run(inputs)
        corner = S // 2 * (len(self.asked) % 2)
        made["mask"] = np.zeros((1, S, S), np.float32)
        made["mask"][0, corner:corner + S // 4, corner:corner + S // 4] = 1.0
        return made


def test_what_is_seen_elsewhere_when_looked_at_closer_is_no_object():
    with pytest.raises(SynthesisError, match="was found in it; give a box"):
        ProbeSynthesizer(Restless()).synthesize(street(), NOON)


def test_a_mask_gives_the_box_and_the_object():
    mask = np.zeros((200, 300), bool)
    mask[60:90, 120:150] = True
    probes = ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, mask=mask)
    assert probes.box == (120.0, 60.0, 150.0, 90.0)
    assert probes.mask[1:-1, 1:-1].all()
    with pytest.raises(SynthesisError, match="marks nothing"):
        ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, mask=np.zeros((200, 300), bool))
    with pytest.raises(SynthesisError, match="does not fit"):
        ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, mask=mask[1:])


@pytest.mark.parametrize("photograph,reason", [
    (np.zeros((100, 100), np.uint8), "no colour picture"),
    (np.zeros((100, 100, 3), np.float32), "no colour picture"),
    (np.zeros((10, 100, 3), np.uint8), "100x10 px"),
    (np.zeros((24, 9000, 3), np.uint8), "9000x24 px"),
    (np.full((100, 100, 3), 77, np.uint8), "of one colour"),
    (np.random.default_rng(1).integers(0, 90, (100, 100, 3), dtype=np.uint8), "give a box"),
])
def test_what_is_no_photograph_of_an_object_is_refused_with_the_reason(photograph, reason):
    with pytest.raises(SynthesisError, match=reason):
        ProbeSynthesizer(RedIsWarm()).synthesize(photograph, NOON)


def test_an_empty_box_is_refused():
    with pytest.raises(SynthesisError, match="nothing in the box"):
        ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, box=(10, 120, 60, 170))
    with pytest.raises(SynthesisError, match="smaller than"):
        ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, box=(10, 10, 11, 11))


@pytest.mark.parametrize("box", [(170.0, 80.0, 900.0, 700.0), (0.0, 0.0, 1e5, 1e5), (-200.0, 60.0, 180.0, 90.0)])
def test_a_box_of_another_size_of_the_photograph_is_refused(box):
    with pytest.raises(SynthesisError, match="lies beyond the .* picture, for a third and more") as error:
        ProbeSynthesizer(RedIsWarm()).synthesize(street(), NOON, box=box)
    assert "\n" not in str(error.value)


def test_a_box_with_some_slack_over_the_edge_serves():
    height, width = street().shape[:2]
    picture = street((width - 60, 60, width, 90))
    made = ProbeSynthesizer(RedIsWarm()).synthesize(picture, NOON, box=(width - 62.0, 58.0, width + 6.0, 92.0))
    assert made.mask.any()


def test_a_model_of_another_task_is_refused():
    engine = RedIsWarm()
    engine.card = ModelCard.from_mapping({**RedIsWarm.card.to_mapping(), "task": "detection"})
    with pytest.raises(EngineError, match="detection"):
        ProbeSynthesizer(engine)


@pytest.mark.parametrize("offsets", [[1.0, 2.0], {"car": 1.0}, {"car": "ab"}, {"car": [None]}])
def test_a_card_with_other_offsets_is_refused(offsets):
    engine = RedIsWarm()
    engine.card = ModelCard.from_mapping({**RedIsWarm.card.to_mapping(), "mean_offsets_k": offsets})
    with pytest.raises(EngineError, match="model 'red': mean_offsets_k"):
        ProbeSynthesizer(engine)


def test_the_sun_stands_where_almanacs_have_it():
    # Krems, 48.41 N 15.6 E. Solar noon of the solstice: 90 - 48.41 + 23.44.
    noon = Conditions.at(datetime(2025, 6, 21, 10, 57, 36, tzinfo=timezone.utc), 48.41, 15.6, 25.0)
    assert abs(noon.solar_hour - 12.0) < 1e-6 and abs(noon.sun_elevation_deg - 65.03) < 0.2
    equinox = Conditions.at(datetime(2025, 3, 20, 18, 0, tzinfo=timezone.utc), 0.0, 0.0, 25.0)
    assert abs(equinox.sun_elevation_deg - 1.86) < 0.3  # it sets at 18:07: the sun is late in March
    assert Conditions.at(datetime(2025, 6, 21, tzinfo=timezone.utc), 48.41, 0.0, 10.0).sun_elevation_deg < -15.0


def test_the_sun_is_that_of_the_virtual_city():
    """Whose pictures the synthesis has learned from."""
    for day in range(0, 365, 7):
        when = datetime(2025, 1, 1, 13, 20, tzinfo=timezone.utc) + timedelta(days=day, hours=day % 24)
        _, _, up = sun_direction(48.4, 15.6, when)
        said = Conditions.at(when, 48.4, 15.6, 10.0).sun_elevation_deg
        assert said == pytest.approx(np.degrees(np.arcsin(up)), abs=0.5)


def test_conditions_of_no_place_are_refused():
    with pytest.raises(ConditionsError, match="time zone"):
        Conditions.at(datetime(2025, 6, 21), 48.0, 15.0, 20.0)
    for values in ((25.0, 20.0, 0.0, 0.0), (12.0, float("nan"), 0.0, 0.0), (12.0, 20.0, 1.5, 0.0)):
        with pytest.raises(ConditionsError):
            Conditions(*values)
