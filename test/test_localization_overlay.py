"""Pictures of positions: where the ellipse lies and how it is turned, where places are drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.camera.geometry import Pose
from thermalreid_ros.localization.overlay import draw_result
from thermalreid_ros.localization.types import Candidate, LocalizationResult, PositionFix, Verdict
from thermalreid_ros.maps.classes import CLASS_COLOURS_RGB, NO_DATA


class Everywhere:
    """A map of vegetation with nothing to its west, on a grid that is turned by an angle."""

    def __init__(self, convergence_rad: float = 0.0):
        self._convergence_rad = convergence_rad
        self.grid = self

    def convergence_rad(self, x: float, y: float) -> float:
        return self._convergence_rad

    def window(self, x, y, yaw_rad, metres_per_pixel, size_px):
        assert yaw_rad == pytest.approx(np.pi / 2)  # north up
        classes = np.full((size_px, size_px), 3, np.uint8)
        classes[:, :20] = NO_DATA
        return classes


def red(picture: np.ndarray) -> np.ndarray:
    """Places (east, north) of red pixels from the middle, in pixels."""
    rows, columns = np.nonzero((picture[..., 2] > 180) & (picture[..., 0] < 80) & (picture[..., 1] < 80))
    return np.column_stack([columns + 0.5 - 256, 256 - rows - 0.5])


@settings(max_examples=30, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(-0.1, 0.1), st.floats(-60, 60), st.floats(-60, 60))
def test_the_ellipse_is_that_of_the_covariance(angle, convergence, x, y):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = turn @ np.diag((400.0, 25.0)) @ turn.T  # along true axes
    down = Pose.looking(np.zeros(3), 0.3, np.pi / 2).rotation
    fix = PositionFix(1, 48.0, 16.0, x, y, covariance, down, 90.0, 0.02)
    picture = draw_result(Everywhere(convergence), LocalizationResult(1, Verdict.LOCALIZED, "", fix), (0.0, 0.0))
    found = red(picture) - (x, y)
    grid = angle + convergence
    along = found @ (np.cos(grid), np.sin(grid))
    across = found @ (-np.sin(grid), np.cos(grid))
    assert np.sqrt(5.991 * 400.0) == pytest.approx(np.abs(along).max(), abs=4.0)
    assert max(np.sqrt(5.991 * 25.0), 30.0) + 8.0 > np.abs(across).max() > np.sqrt(5.991 * 25.0) - 4.0


def test_places_are_drawn_where_they_are_and_as_large_as_they_are_likely():
    places = (Candidate(100.0, 50.0, 0.0, 0.9), Candidate(-80.0, -120.0, 0.0, 0.05))
    result = LocalizationResult(1, Verdict.AMBIGUOUS, "two places fit", candidates=places)
    picture = draw_result(Everywhere(), result, (0.0, 0.0))
    plain = np.array(CLASS_COLOURS_RGB[3])[::-1]
    for place, radius in zip(places, (14, 4)):
        row, column = round(256 - place.y), round(256 + place.x)
        assert (picture[row, column] == plain).all() and (picture[row, column + radius] != plain).any()
    assert (picture[300, 5] == (40, 40, 40)).all()  # off the map
    assert (picture[256, 256] == plain).all() and len(red(picture)) == 0
