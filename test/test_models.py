"""What every shipped model must bring along."""

import pytest

from thermalreid_ros.engine.engine import open_model, shipped_models


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_says_where_it_comes_from_and_how_good_it_is(name):
    path, card = open_model(name)
    assert path.stat().st_size <= 16 * 2**20
    assert {"data", "licence", "command", "seed", "images_seen"} <= card.training.keys()
    assert card.parity["max_abs_difference"] <= 1e-3 and card.parity["data"]
    assert card.metrics
    for metric in card.metrics:
        assert {"name", "value", "data", "command"} <= metric.keys()
        assert 0.0 <= metric["value"] <= 1.0


def test_the_detectors_the_documentation_names_are_shipped():
    assert {"yolo_compact", "yolo_semantic"} <= set(shipped_models())
