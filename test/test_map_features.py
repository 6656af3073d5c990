"""Features on disk, clipping, what tags mean, and surfaces from lines."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, Polygon
from thermalreid_ros.files import shipped
from thermalreid_ros.maps import assembly, tags
from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import (
    Area,
    Building,
    Features,
    FeaturesError,
    Railway,
    Road,
    Tree,
    features_path,
    read_features,
    write_features,
)
from thermalreid_ros.maps.store import SemanticMap

X, Y = 546000.0, 5362000.0


def box(x0, y0, x1, y1) -> Polygon:
    return shapely.box(X + x0, Y + y0, X + x1, Y + y1)


FEATURES = Features(
    "EPSG:32633",
    (Building(box(0, 0, 10, 10), 9.3, 3.1, "gabled", "tiles", "brick", "#aabbcc", "rot", "Käserei", 1),
     Building(box(50, 50, 60, 60).difference(box(52, 52, 58, 58)), 4.0)),
    (Road(LineString([(X, Y), (X + 100, Y + 50)]), "primary", 8.5, 2, True, "asphalt", True, True, False, 1),
     Road(LineString([(X, Y), (X, Y + 70)]), "track", 3.0, 1, False, tunnel=True, layer=-1)),
    (Area(box(-100, -100, 100, 100), "meadow", SemanticClass.VEGETATION), Area(box(0, 0, 5, 5), "pier",
                                                                             SemanticClass.ROAD, 1)),
    (Tree(X + 3.0, Y + 4.0, 12.5, "broadleaved"), Tree(X + 300.0, Y, 8.0)),
    (Railway(LineString([(X, Y), (X + 9, Y)]), 3.5, True, 1),))


def test_features_come_back(tmp_path):
    write_features(tmp_path / "a.geojson.gz", FEATURES)
    read = read_features(tmp_path / "a.geojson.gz")
    assert read.crs == FEATURES.crs
    for name in ("buildings", "roads", "areas", "trees", "railways"):
        assert len(getattr(read, name)) == len(getattr(FEATURES, name))
        for a, b in zip(getattr(read, name), getattr(FEATURES, name)):
            for field in dataclasses.fields(a):
                x, y = getattr(a, field.name), getattr(b, field.name)
                if isinstance(x, shapely.Geometry):
                    assert x.equals_exact(y, tolerance=2e-3)
                else:
                    assert x == (pytest.approx(y, abs=2e-3) if isinstance(y, float) else y) and type(x) is type(y)
    write_features(tmp_path / "b.geojson.gz", FEATURES)
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_no_features_come_back(tmp_path):
    write_features(tmp_path / "a.geojson.gz", Features("EPSG:32633"))
    assert read_features(tmp_path / "a.geojson.gz") == Features("EPSG:32633")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-2e5, 2e5), st.floats(-9e5, 9e5)), min_size=1, max_size=5))
def test_places_are_kept_to_millimetres(tmp_path_factory, places):
    path = tmp_path_factory.getbasetemp() / "places.geojson.gz"
    write_features(path, Features("EPSG:32633", trees=tuple(Tree(5e5 + x, 5e6 + y, 5.0) for x, y in places)))
    read = np.array([(tree.x, tree.y) for tree in read_features(path).trees])
    assert np.abs(read - (np.array(places) + (5e5, 5e6))).max() < 2e-3


@pytest.mark.parametrize("damage", [
    lambda data: data[:-9], lambda data: b"", lambda data: b"noise", lambda data: gzip.compress(b"[]"),
    lambda data: gzip.compress(gzip.decompress(data).replace(b"features 1", b"features 9")),
    lambda data: gzip.compress(gzip.decompress(data).replace(b"32633", b"nowhere")),
    lambda data: gzip.compress(gzip.decompress(data).replace(b'"width_m":8.5', b'"breadth":8.5'))])
def test_damaged_files_are_refused(tmp_path, damage):
    path = tmp_path / "a.geojson.gz"
    write_features(path, FEATURES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FeaturesError, match="a.geojson.gz"):
        read_features(path)


def test_absent_features_name_the_remedy(tmp_path):
    with pytest.raises(FeaturesError, match="map build"):
        read_features(features_path(tmp_path / "m.tif"))


def test_clipped_keeps_what_touches_in_order():
    near = FEATURES.clipped((X + 2, Y + 2, X + 20, Y + 20))
    assert [building.kind for building in near.buildings] == ["Käserei"]
    assert [area.kind for area in near.areas] == ["meadow", "pier"]
    assert [road.kind for road in near.roads] == ["primary"]
    assert len(near.trees) == 1 and near.railways == ()
    hole = FEATURES.clipped((X + 53, Y + 53, X + 57, Y + 57))
    assert hole.buildings == () and len(hole.areas) == 1
    assert FEATURES.clipped((X + 900, Y, X + 901, Y + 1)) == Features("EPSG:32633")


def test_shipped_map_and_its_features():
    path = shipped("config") / "maps" / "krems.tif"
    with SemanticMap.open(path) as semantic_map:
        features = read_features(features_path(path))
        assert features.crs == semantic_map.crs and "ODbL" in semantic_map.attribution
        place = np.array([building.polygon.representative_point().coords[0] for building in features.buildings])
        found = semantic_map.class_at(place[:, 0] - semantic_map.grid.easting_m,
                                      place[:, 1] - semantic_map.grid.northing_m)
        inside = found != 255
        assert inside.sum() > 400 and (found[inside] == SemanticClass.BUILDING).mean() > 0.98
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 400_000


@pytest.mark.parametrize("text, value", [("12", 12.0), ("3.5 m", 3.5), ("3,5", 3.5), ("40'", 12.192),
                                         ("40 ft", 12.192), ("2;3", 2.0),
                                         ("80 cm", 0.8), ("80cm", 0.8), ("6 in", 0.1524), ("3 yards", None), ("", None),
                                         ("wide", None), ("0", None),
                                         ("-3", None), (None, None)])
def test_lengths(text, value):
    assert tags.metres(text) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize("found, footprint_m2, expected", [
    ({"building": "yes", "height": "21.5"}, 100, (21.5, 0.0)),
    ({"building": "yes", "building:levels": "4", "roof:levels": "1"}, 100, (4 * 3.1 + 2.7, 0.0)),
    ({"building": "yes", "building:levels": "2", "roof:height": "3 m"}, 100, (9.2, 0.0)),
    ({"building:part": "yes", "height": "20", "min_height": "8"}, 100, (20.0, 8.0)),
    ({"building:part": "yes", "height": "5", "building:min_level": "3"}, 100, (10.3, pytest.approx(9.3))),
    ({"building": "garage"}, 20, (2.8, 0.0)), ({"building": "yes"}, 12, (2.8, 0.0)),
    ({"building": "yes"}, 150, (7.5, 0.0)), ({"building": "yes", "height": "high"}, 9000, (11.0, 0.0))])
def test_heights(found, footprint_m2, expected):
    height, bottom = tags.building_heights(found, footprint_m2)
    assert height == pytest.approx(expected[0]) and bottom == expected[1]


@pytest.mark.parametrize("found, relation, kind", [
    ({"landuse": "forest"}, False, "forest"), ({"waterway": "river"}, False, None),
    ({"waterway": "river"}, True, "water"),
    ({"barrier": "hedge"}, False, None), ({"barrier": "hedge", "area": "yes"}, False, "hedge"),
    ({"highway": "footway"}, False, None), ({"highway": "footway", "landuse": "grass"}, False, "grass"),
    ({"highway": "pedestrian"}, True, "square"), ({"natural": "water", "tunnel": "culvert"}, False, None),
    ({"amenity": "parking", "parking": "multi-storey"}, False, None), ({"amenity": "parking"}, False, "parking"),
    ({"railway": "platform", "layer": "-1"}, False, None), ({"boundary": "administrative"}, True, None),
    ({"natural": "wetland", "wetland": "tidalflat"}, False, "bare"), ({"leisure": "marina"}, False, None)])
def test_kinds_of_area(found, relation, kind):
    assert (tags.area_kind(found, relation) or (None,))[0] == kind


@pytest.mark.parametrize("found, semantic", [
    ({"leisure": "pitch"}, SemanticClass.VEGETATION), ({"leisure": "pitch", "sport": "tennis"}, SemanticClass.GROUND),
    ({"leisure": "pitch", "sport": "tennis", "surface": "grass"}, SemanticClass.VEGETATION),
    ({"leisure": "pitch", "surface": "asphalt"}, SemanticClass.GROUND)])
def test_pitches_are_green_where_grass_grows(found, semantic):
    assert tags.area_kind(found, False) == ("pitch", semantic)


@pytest.mark.parametrize("found, stands", [
    ({"building": "yes"}, True), ({"building": "no"}, False), ({"building": "no", "building:part": "yes"}, True),
    ({"building": "construction"}, True), ({"building": "ruins"}, True), ({"building": "proposed"}, False),
    ({"building": "demolished"}, False), ({"building": "yes", "layer": "-1"}, False),
    ({"building": "yes", "location": "underground"}, False), ({"building": "yes", "layer": "high"}, True)])
def test_buildings_that_are_not_seen_are_none(found, stands):
    assert tags.is_building(found) == stands


def test_roads_that_are_not_there():
    for found in ({"highway": "proposed"}, {"highway": "construction"}, {"highway": "corridor"}, {"railway": "rail"},
                  {"highway": "footway", "indoor": "yes"}, {"highway": "pedestrian", "area": "yes"}):
        assert tags.road_kind(found) is None
    assert tags.railway_width({"railway": "abandoned"}) is None
    assert tags.road_size("residential", {"oneway": "yes"}) == (4.0, 1, True)
    assert tags.road_size("motorway", {})[2] and tags.road_size("primary", {"junction": "roundabout"})[2]


EXTENT = shapely.box(0, 0, 100, 60)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(5, 25), min_size=5, max_size=20), st.booleans(), st.floats(1e-4, 10))
def test_islands_and_lagoons_have_their_area(radii, island, scale):
    """A closed coast counter-clockwise is an island, clockwise a water; degrees or metres are the same."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    ring = np.column_stack([50 + np.array(radii) * np.cos(angle), 30 + np.array(radii) * np.sin(angle)])
    ring = np.concatenate([ring, ring[:1]]) * scale
    extent = shapely.box(0, 0, 100 * scale, 60 * scale)
    water = shapely.union_all(assembly.sea([ring if island else ring[::-1]], extent))
    inside = Polygon(ring).area
    assert water.area == pytest.approx(extent.area - inside if island else inside, rel=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(5, 55), min_size=2, max_size=12), st.integers(1, 11), st.booleans())
def test_coast_across_the_extent_in_pieces(heights, cut, eastward):
    x = np.linspace(-10, 110, len(heights))
    line = np.column_stack([x, heights])
    cut = min(cut, len(line) - 1)
    pieces = [piece for piece in (line[:cut + 1], line[cut:]) if len(piece) > 1]
    pieces = pieces if eastward else [piece[::-1] for piece in pieces]
    south = Polygon([*line, (110, -10), (-10, -10)]).intersection(EXTENT).area
    water = shapely.union_all(assembly.sea(pieces, EXTENT)).area
    assert water == pytest.approx(south if eastward else EXTENT.area - south, rel=1e-6)


def test_no_coast_no_sea():
    assert assembly.sea([], EXTENT) == [] == assembly.sea([np.array([[200.0, 0], [300, 0]])], EXTENT)


def test_cut_outline_has_two_answers_and_the_fitting_one_is_taken():
    line = np.array([[20.0, -5.0], [20.0, 65.0]])
    for sign, area in ((1, 1200.0), (-1, 4800.0)):
        found = assembly.area_of_cut([line], EXTENT, lambda polygons: sign * sum(p.area for p in polygons))
        assert sum(polygon.area for polygon in found) == pytest.approx(area)
    assert sum(p.area for p in assembly.area_of_cut([line], EXTENT, lambda polygons: 0.0)) == pytest.approx(1200)
    assert assembly.area_of_cut([line + 500], EXTENT, lambda polygons: 0.0) == []
