"""Figures of places on the ground, and what counts as a detected object."""

import numpy as np
import pytest

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.evaluation.targets import LOCALIZED, TRUE, Placed, Placements, _assigned, _Shown, target_figures


def placed(identity: str, error: tuple[float, float], sigma_m: float, name: str = "car") -> Placed:
    error = np.array(error)
    return Placed(identity, name, error, float(error @ error) / sigma_m**2, 1, 100.0)


def test_figures_of_known_errors():
    first = Placements("a", 5, {TRUE: [placed("car-1", (0.3, 0.4), 1.0), placed("car-1", (3.0, 4.0), 1.0),
                                       placed("dog-7", (1.0, 0.0), 1.0, "dog")], LOCALIZED: []})
    second = Placements("b", 1, {TRUE: [], LOCALIZED: [placed("car-2", (0.0, 2.0), 1.0)]})
    figures = target_figures([first, second])
    assert figures[TRUE]["median_m"] == pytest.approx(1.0) and figures[TRUE]["ellipse95"] == pytest.approx(2 / 3)
    assert figures[TRUE]["nees"] == pytest.approx((0.25 + 25.0 + 1.0) / 3)
    assert figures[TRUE]["by_class"] == {"car": pytest.approx(2.75), "dog": pytest.approx(1.0)}
    assert (figures[TRUE]["flights"]["a"]["tracks"], figures[TRUE]["flights"]["b"]["median_m"]) == (2, None)
    assert figures[LOCALIZED]["median_m"] == pytest.approx(2.0) and figures[LOCALIZED]["ellipse95"] == 1.0


def test_an_object_is_detected_by_its_own_class_and_half_of_its_box():
    def shown(name: str, class_id: int, *box: float) -> _Shown:
        return _Shown(name, ("car", "person")[class_id], Detection(class_id, 1.0, *box), np.zeros(2), 0.0)

    objects = [shown("car-1", 0, 0, 0, 20, 10), shown("person-1", 1, 100, 0, 110, 20),
               shown("car-2", 0, 200, 0, 220, 10)]
    boxes = [Detection(0, 0.9, 1, 0, 21, 10), Detection(0, 0.5, 4, 0, 24, 10), Detection(0, 0.8, 100, 0, 110, 20),
             Detection(0, 0.8, 214, 0, 234, 10)]
    assert [(item.identity, box.x_min) for item, box in _assigned(objects, boxes, (640, 512))] == [("car-1", 1)]
