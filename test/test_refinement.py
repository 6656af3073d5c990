"""Places of labellings found on a small map: exactly where the world is the map, honestly where it is not."""

import numpy as np
import pytest
from osm_files import OsmFile, opened_map

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.localization.ground import GroundPatch, ground_offsets, rectify
from thermalreid_ros.localization.lean import seen_window
from thermalreid_ros.localization.refinement import RefinementSettings, dominance, refine
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))


@pytest.fixture(scope="module")
def semantic_map(tmp_path_factory):
    """A town of 800 x 600 m that repeats nowhere, flat but for a tower of 30 m in a wood in its east."""
    osm = OsmFile(800, 600)
    osm.scatter(90, (560, 570), (10, 35), (10, 25), height="1")
    osm.box(610.0, 100.0, 800.0, 600.0, {"landuse": "forest"})
    osm.box(700.0, 300.0, 715.0, 315.0, {"building": "yes", "height": "30"})
    with opened_map(osm, tmp_path_factory.mktemp("map")) as opened:
        yield opened


def look(semantic_map, x, y, height_m, yaw=1.0, depression=1.2):
    """What a camera sees of the map where it is flat: (labelling, rotation)."""
    rotation = Pose.looking([x, y, height_m], yaw, depression).rotation
    u, v = np.meshgrid(np.arange(320) * 2 + 1.0, np.arange(256) * 2 + 1.0)
    offsets = ground_offsets(CAMERA, rotation, height_m, np.column_stack([u.ravel(), v.ravel()]))
    labels = np.full(len(offsets), NO_DATA, np.uint8)
    seen = np.isfinite(offsets[:, 0])
    labels[seen] = semantic_map.class_at(*(offsets[seen] + (x, y)).T)
    labels = labels.reshape(256, 320)
    return SemanticMask(labels, np.full_like(labels, 255), 640, 512), rotation


def turned(rotation, yaw_rad):
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation


@pytest.mark.parametrize("place, depression", [((250.0, 300.0), np.pi / 2), ((330.0, 260.0), 1.0),
                                               ((180.0, 330.0), 0.9)])
@pytest.mark.parametrize("yaw_error, scale_error", [(0.0, 0.0), (0.045, -0.03), (-0.06, 0.03)])
def test_a_view_of_the_map_is_found_where_it_was_taken(semantic_map, place, depression, yaw_error, scale_error):
    mask, rotation = look(semantic_map, *place, 90.0, 2.0, depression)
    patch = rectify(mask, CAMERA, turned(rotation, yaw_error), 90.0 * (1 + scale_error), 1.0, None)
    settings = RefinementSettings(yaw_sigma_rad=np.radians(4 if yaw_error else 0.2),
                                  scale_sigma=abs(scale_error) + 0.01)
    found = refine(patch, semantic_map, place[0] + 60, place[1] - 80, 128.0, settings=settings)
    error = np.array([found.x, found.y]) - place
    # A few points of evidence, blurred, do not outweigh what is expected of the attitude: part of its error remains.
    assert np.hypot(*error) < (4.0 if yaw_error else 0.8)
    assert found.yaw_error_rad == pytest.approx(yaw_error, abs=0.03 if yaw_error else 0.01)
    assert abs(found.scale_error) <= 0.04
    assert error @ np.linalg.solve(found.covariance_m2, error) < 9.2
    assert found.margin > 1.5 and found.mapped_share > 0.99
    assert found.candidates[0].share > 0.7
    assert np.hypot(found.candidates[0].x - found.x, found.candidates[0].y - found.y) == 0.0


def test_the_same_call_gives_the_same_answer(semantic_map):
    mask, rotation = look(semantic_map, 250.0, 300.0, 90.0)
    patch = rectify(mask, CAMERA, rotation, 90.0, 1.0, None)
    one, two = (refine(patch, semantic_map, 280.0, 280.0, 64.0) for _ in range(2))
    assert (one.x, one.y, one.score, one.margin) == (two.x, two.y, two.score, two.margin)


def test_wrong_labels_cost_score_and_margin_but_not_the_place(semantic_map):
    mask, rotation = look(semantic_map, 330.0, 260.0, 90.0)
    right = refine(rectify(mask, CAMERA, rotation, 90.0, 1.0, None), semantic_map, 330.0, 260.0, 100.0)
    rng = np.random.default_rng(1)
    labels = mask.labels.copy()
    for _ in range(30):
        row, column = rng.integers(0, (216, 270))
        labels[row:row + 40, column:column + 50] = rng.integers(0, 4)
    wrong = SemanticMask(labels, mask.confidence, 640, 512)
    found = refine(rectify(wrong, CAMERA, rotation, 90.0, 1.0, None), semantic_map, 330.0, 260.0, 100.0)
    assert np.hypot(found.x - 330.0, found.y - 260.0) < 6.0
    assert found.score < right.score - 0.1 and found.margin < right.margin


def test_confident_labels_count_more(semantic_map):
    mask, rotation = look(semantic_map, 330.0, 260.0, 90.0)
    labels, confidence = mask.labels.copy(), mask.confidence.copy()
    labels[:, :130], confidence[:, :130] = SemanticClass.WATER, 10
    doubted = refine(rectify(SemanticMask(labels, confidence, 640, 512), CAMERA, rotation, 90.0, 1.0, None),
                     semantic_map, 330.0, 260.0, 100.0)
    trusted = refine(rectify(SemanticMask(labels, mask.confidence, 640, 512), CAMERA, rotation, 90.0, 1.0, None),
                     semantic_map, 330.0, 260.0, 100.0)
    assert doubted.score > trusted.score + 0.3 and np.hypot(doubted.x - 330.0, doubted.y - 260.0) < 4.0


def test_a_uniform_patch_is_named_and_has_no_margin(semantic_map):
    mask, rotation = look(semantic_map, 740.0, 450.0, 60.0, depression=np.pi / 2)
    patch = rectify(mask, CAMERA, rotation, 60.0, 1.0, None)
    assert dominance(patch) > 0.97
    found = refine(patch, semantic_map, 705.0, 420.0, 60.0)
    assert found.margin < 1.0
    assert np.sqrt(np.linalg.eigvalsh(found.covariance_m2)[1]) > 5.0
    town, rotation = look(semantic_map, 330.0, 260.0, 90.0)
    assert dominance(rectify(town, CAMERA, rotation, 90.0, 1.0, None)) < 0.9


def test_outside_of_the_map_little_is_mapped(semantic_map):
    mask, rotation = look(semantic_map, 250.0, 300.0, 90.0)
    found = refine(rectify(mask, CAMERA, rotation, 90.0, 1.0, None), semantic_map, -900.0, 300.0, 64.0)
    assert found.mapped_share == 0.0 and found.margin < 0.5


def test_at_the_edge_the_mapped_part_decides(semantic_map):
    mask, rotation = look(semantic_map, 30.0, 300.0, 90.0, depression=np.pi / 2)
    assert 0.6 < (mask.labels != NO_DATA).mean() < 0.95
    labels = np.where(mask.labels == NO_DATA, SemanticClass.WATER, mask.labels).astype(np.uint8)
    patch = rectify(SemanticMask(labels, mask.confidence, 640, 512), CAMERA, rotation, 90.0, 1.0, None)
    found = refine(patch, semantic_map, 60.0, 280.0, 80.0)
    assert np.hypot(found.x - 30.0, found.y - 300.0) < 4.0 and 0.6 < found.mapped_share < 0.95


def test_buildings_lean_away_from_the_camera(semantic_map):
    """A tower of 30 m, 60 to 75 m to the east of a camera 90 m high, hides what lies at up to 1.5 times that."""
    x, y = np.meshgrid(np.arange(600, 800, 0.5), np.arange(200, 400, 0.5))
    tower = semantic_map.height_at(x, y) == 30
    west, middle = x[tower].min(), y[tower].mean()
    assert np.ptp(x[tower]) == pytest.approx(15, abs=0.6)
    offset, east = np.array([67.5, 0.0]), 67.5 + np.arange(201) - 100
    views = (seen_window(semantic_map, west - 60, middle, offset, 90.0, 1.0, (101, 201), same_direction=same)[50]
             == SemanticClass.BUILDING for same in (False, True))
    exact, same = ((east[row].min(), east[row].max(), row.sum()) for row in views)
    # Heights are looked at from 1.5 m on in steps of 3 m.
    assert exact == pytest.approx((60, 75 / (1 - 28.5 / 90), 50), abs=2.1)
    # Seen in the direction of the middle all over: as far as 67.5 * 28.5 / 90 m behind the tower.
    assert same == pytest.approx((60, 75 + 67.5 * 28.5 / 90, 37), abs=2.1)
    below = seen_window(semantic_map, west + 7.5, middle, np.zeros(2), 90.0, 1.0, (101, 101)) == SemanticClass.BUILDING
    assert np.sqrt(below.sum()) == pytest.approx(1.5 * 15, abs=1.5)


def test_the_covariance_is_long_where_the_map_says_little(semantic_map):
    """Along the straight edge of the wood, seen without anything else, a place is only known across it."""
    labels = np.full((120, 120), SemanticClass.GROUND, np.uint8)
    labels[:, 60:] = SemanticClass.VEGETATION
    patch = GroundPatch(labels, np.full_like(labels, 255), np.zeros(2), 1.0, 100.0)
    found = refine(patch, semantic_map, 600.0, 480.0, 40.0)
    x = np.arange(590.0, 640.0, 0.5)
    edge = x[semantic_map.class_at(x, np.full(len(x), 480.0)) == SemanticClass.VEGETATION].min()
    assert abs(found.x - edge) < 2.0
    assert found.covariance_m2[1, 1] > 2.0 * found.covariance_m2[0, 0] > 2.0 * 1.5**2


def test_what_has_no_place_is_refused(semantic_map):
    empty = GroundPatch(np.full((50, 50), NO_DATA, np.uint8), np.zeros((50, 50), np.uint8), np.zeros(2), 1.0, 80.0)
    assert dominance(empty) == 1.0
    with pytest.raises(LocalizationError, match="no ground"):
        refine(empty, semantic_map, 300.0, 300.0, 50.0)
    doubted = GroundPatch(np.zeros((50, 50), np.uint8), np.zeros((50, 50), np.uint8), np.zeros(2), 1.0, 80.0)
    with pytest.raises(LocalizationError, match="confidence"):
        refine(doubted, semantic_map, 300.0, 300.0, 50.0)
    with pytest.raises(LocalizationError, match="no place"):
        refine(doubted, semantic_map, np.nan, 300.0, 50.0)
    with pytest.raises(LocalizationError, match="confusion"):
        refine(GroundPatch(doubted.labels, doubted.confidence + 9, np.zeros(2), 1.0, 80.0), semantic_map, 300.0, 300.0,
               50.0, np.ones((5, 5)))
