"""Maps built from hand-written and from real OpenStreetMap files: areas in square metres, sides, faults."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from conftest import REPOSITORY
from osm_files import GRID, OsmFile
from thermalreid_ros.cli import main
from thermalreid_ros.maps import build
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import features_path, read_features
from thermalreid_ros.maps.store import SemanticMap

GROUND, ROAD, BUILDING, VEGETATION, WATER = SemanticClass


@pytest.fixture
def built(tmp_path):
    """built(osm_file, **options) builds a map and gives (map, features)."""
    maps = []

    def run(osm: OsmFile, **options):
        path = tmp_path / f"map{len(maps)}.tif"
        build.build_map(osm.write(tmp_path / f"area{len(maps)}.osm"), path, **options)
        maps.append(SemanticMap.open(path))
        return maps[-1], read_features(features_path(path))
    yield run
    for semantic_map in maps:
        semantic_map.close()


def classes(semantic_map: SemanticMap, x0=0.0, y0=0.0, x1=400.0, y1=300.0, step=0.5) -> np.ndarray:
    """The classes, every half metre, in a box of the file's metres."""
    x, y = np.meshgrid(np.arange(x0 + step / 2, x1, step), np.arange(y0 + step / 2, y1, step))
    return semantic_map.class_at(*shifted(semantic_map, x, y))


def shifted(semantic_map: SemanticMap, x, y):
    return x + GRID.easting_m - semantic_map.grid.easting_m, y + GRID.northing_m - semantic_map.grid.northing_m


def area_m2(semantic_map: SemanticMap, semantic: SemanticClass, *box) -> float:
    return float((classes(semantic_map, *box) == semantic).sum()) * 0.25


def test_building_has_its_area_and_height(built):
    osm = OsmFile()
    osm.box(100, 100, 120, 110, {"building": "yes", "building:levels": "3"})
    osm.box(200, 100, 210, 110, {"building": "house", "height": "4,2 m"})
    osm.box(300, 100, 330, 130, {"building": "tower", "height": "900"})
    semantic_map, features = built(osm)
    assert area_m2(semantic_map, BUILDING, 90, 90, 130, 120) == pytest.approx(200, rel=0.03)
    x, y = np.array([110.0, 205.0, 315.0, 50.0]), np.array([105.0, 105.0, 115.0, 50.0])
    heights = semantic_map.height_at(*shifted(semantic_map, x, y))
    assert heights.tolist() == [9, 4, 254, 0]
    assert [round(b.height_m, 2) for b in features.buildings] == [9.3, 4.2, 900.0]
    assert semantic_map.crs == "EPSG:32633" and semantic_map.osm_timestamp == "2020-02-03T04:05:06Z"
    assert sum(semantic_map.shares.values()) == pytest.approx(1.0)


def test_multipolygons_have_holes_and_pieces(built):
    osm = OsmFile()
    outer = [osm.way([(100, 100), (160, 100), (160, 160)]), osm.way([(160, 160), (100, 160), (100, 100)])]
    osm.multipolygon([*((way, "outer") for way in outer), (osm.box(120, 120, 140, 140), "inner")],
                     {"building": "yes", "height": "12"})
    lake = osm.box(200, 100, 300, 200)
    osm.multipolygon([(lake, "outer"), (osm.box(240, 140, 260, 160, {"landuse": "forest"}), "inner")],
                     {"natural": "water"})
    semantic_map, features = built(osm)
    assert area_m2(semantic_map, BUILDING) == pytest.approx(3600 - 400, rel=0.02)
    assert area_m2(semantic_map, GROUND, 120, 120, 140, 140) == pytest.approx(400, rel=0.05)
    assert area_m2(semantic_map, WATER) == pytest.approx(10000 - 400, rel=0.01)
    assert area_m2(semantic_map, VEGETATION) == pytest.approx(400, rel=0.05)
    assert features.buildings[0].polygon.area == pytest.approx(3200, rel=0.001)


def test_holes_side_by_side_and_holes_mapped_twice_are_holes(built):
    osm = OsmFile()
    holes = [osm.box(120, 120, 140, 140), osm.way([(140, 140), (140, 120), (160, 120), (160, 140), (140, 140)]),
             osm.box(170, 170, 180, 180), osm.way([(180, 180), (170, 180), (170, 170), (180, 170), (180, 180)])]
    osm.multipolygon([(osm.box(100, 100, 200, 200), "outer"), *((hole, "inner") for hole in holes)],
                     {"natural": "wood"})
    left, right = osm.box(250, 100, 270, 120), osm.box(270, 100, 290, 120)
    osm.multipolygon([(left, "outer"), (right, "outer")], {"natural": "water"})
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, VEGETATION) == pytest.approx(10000 - 800 - 100, rel=0.01)
    assert area_m2(semantic_map, GROUND, 120, 120, 160, 140) == pytest.approx(800, rel=0.05)
    assert area_m2(semantic_map, WATER) == pytest.approx(800, rel=0.05)


def test_old_multipolygons_take_the_tags_of_their_outer_way(built):
    osm = OsmFile()
    outer = osm.box(100, 100, 200, 200, {"landuse": "forest"})
    osm.multipolygon([(outer, "outer"), (osm.box(120, 120, 180, 180), "inner")], {})
    assert area_m2(built(osm)[0], VEGETATION) == pytest.approx(10000 - 3600, rel=0.01)


def test_outer_way_that_repeats_its_relations_tags_does_not_fill_the_hole(built):
    osm = OsmFile()
    outer = osm.box(100, 100, 200, 200, {"natural": "water"})
    osm.multipolygon([(outer, "outer"), (osm.box(120, 120, 180, 180), "inner")], {"natural": "water"})
    assert area_m2(built(osm)[0], WATER) == pytest.approx(10000 - 3600, rel=0.01)


@pytest.mark.parametrize("form", [{"reverse": True}, {"drafts": True}])
def test_order_and_numbers_of_objects_do_not_matter(tmp_path, form):
    osm = OsmFile()
    outer = [osm.way([(100, 100), (160, 100), (160, 160)]), osm.way([(160, 160), (100, 160), (100, 100)])]
    osm.multipolygon([(way, "outer") for way in outer], {"building": "yes", "height": "12"})
    osm.way([(0, 30), (400, 50)], {"highway": "primary"})
    for name, options in (("a", {}), ("b", form)):
        build.build_map(osm.write(tmp_path / f"{name}.osm", **options), tmp_path / f"{name}.tif")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with SemanticMap.open(tmp_path / "a.tif") as semantic_map:
        assert area_m2(semantic_map, BUILDING) == pytest.approx(3600, rel=0.02)


@pytest.mark.parametrize("tags, width", [({"width": "6"}, 6.0), ({"lanes": "4"}, 4 * 2.75 + 0.5),
                                         ({"est_width": "10 m"}, 10.0), ({}, 5.5),
                                         ({"width": "6", "sidewalk": "both"}, 9.0)])
def test_road_has_the_width_its_tags_say(built, tags, width):
    osm = OsmFile()
    osm.way([(-50, 100), (450, 100)], {"highway": "residential", **tags})
    semantic_map, features = built(osm)
    assert area_m2(semantic_map, ROAD, 100, 50, 300, 150) == pytest.approx(200 * width, rel=0.06)
    assert features.roads[0].width_m == pytest.approx(width - 3.0 * features.roads[0].sidewalk)


def test_bridges_cross_water_and_tunnels_are_not_seen(built):
    osm = OsmFile()
    osm.box(0, 100, 400, 200, {"natural": "water"})
    osm.way([(100, 50), (100, 250)], {"highway": "primary", "width": "10", "bridge": "yes", "layer": "1"})
    osm.way([(200, 50), (200, 250)], {"highway": "primary", "width": "10", "tunnel": "yes", "layer": "-1"})
    osm.way([(300, 50), (300, 250)], {"railway": "rail", "tunnel": "yes"})
    osm.way([(20, 10), (380, 10)], {"waterway": "stream", "tunnel": "culvert", "width": "8"})
    semantic_map, features = built(osm)
    assert area_m2(semantic_map, ROAD, 0, 100, 400, 200) == pytest.approx(1000, rel=0.03)
    assert area_m2(semantic_map, WATER) == pytest.approx(39000, rel=0.01)
    assert sorted((road.bridge, road.tunnel) for road in features.roads) == [(False, True), (True, False)]
    assert features.railways == ()


def test_what_lies_underground_is_not_drawn_and_layers_are(built):
    osm = OsmFile()
    osm.box(10, 10, 60, 60, {"building": "yes", "location": "underground"})
    osm.box(70, 10, 120, 60, {"building": "yes", "layer": "-2"})
    osm.box(130, 10, 180, 60, {"amenity": "parking", "parking": "underground"})
    osm.box(200, 10, 300, 60, {"building": "yes"})
    osm.way([(200, 35), (300, 35)], {"highway": "service", "width": "6"})  # in front: under the building
    osm.way([(250, -20), (250, 100)], {"highway": "primary", "width": "10", "bridge": "yes", "layer": "2"})
    semantic_map, _ = built(osm)
    assert (classes(semantic_map, 5, 5, 185, 65) == GROUND).all()
    assert area_m2(semantic_map, ROAD, 200, 10, 300, 60) == pytest.approx(500, rel=0.03)


def test_parts_replace_the_building_they_stand_on(built):
    osm = OsmFile()
    osm.box(100, 100, 140, 120, {"building": "church", "height": "12"})
    osm.box(100, 100, 110, 120, {"building:part": "tower", "height": "40", "roof:shape": "pyramidal"})
    semantic_map, features = built(osm)
    assert sorted((round(b.polygon.area), b.height_m, b.roof_shape) for b in features.buildings) == [
        (200, 40.0, "pyramidal"), (600, 12.0, "")]
    assert semantic_map.height_at(*shifted(semantic_map, np.array([105.0, 130.0]), np.array([110.0, 110.0]))).tolist() \
        == [40, 12]


def test_areas_take_their_class_and_the_smaller_lies_on_top(built):
    osm = OsmFile()
    osm.box(0, 0, 400, 300, {"landuse": "residential"})
    osm.box(10, 10, 110, 110, {"leisure": "park"})
    osm.box(30, 30, 50, 50, {"amenity": "parking"})
    osm.box(60, 30, 80, 50, {"highway": "pedestrian", "area": "yes"})
    osm.box(30, 60, 50, 80, {"leisure": "swimming_pool"})
    osm.box(60, 60, 80, 80, {"leisure": "pitch", "sport": "tennis"})
    osm.way([(210, 10), (230, 10), (230, 30), (210, 30), (210, 10)], {"highway": "pedestrian", "width": "2"})
    osm.node(300, 100, natural="tree", height="20")
    osm.way([(300, 200), (335, 200)], {"natural": "tree_row", "leaf_type": "needleleaved"})
    semantic_map, features = built(osm)
    box = area_m2(semantic_map, VEGETATION, 10, 10, 110, 110)
    assert box == pytest.approx(10000 - 4 * 400, rel=0.01)
    assert area_m2(semantic_map, ROAD, 30, 30, 50, 50) == pytest.approx(400, rel=0.05)
    assert area_m2(semantic_map, ROAD, 60, 30, 80, 50) == pytest.approx(400, rel=0.05)
    assert area_m2(semantic_map, WATER) == pytest.approx(400, rel=0.05)
    assert area_m2(semantic_map, GROUND, 60, 60, 80, 80) == pytest.approx(400, rel=0.05)
    assert (classes(semantic_map, 213, 13, 227, 27) == GROUND).all()  # a closed way is no square by itself
    assert area_m2(semantic_map, VEGETATION, 290, 90, 310, 110) == pytest.approx(np.pi * (0.28 * 20) ** 2, rel=0.1)
    assert len(features.trees) == 1 + 6 and features.trees[0].kind == "needleleaved"
    assert [area.kind for area in features.areas][:2] == ["residential", "park"]


def test_sea_lies_to_the_right_of_the_coast(built):
    osm = OsmFile()
    osm.way([(-100, 120), (200, 120), (500, 120)], {"natural": "coastline"})  # eastward: sea to the south
    semantic_map, _ = built(osm)
    assert (classes(semantic_map, 5, 5, 395, 118) == WATER).all()
    assert (classes(semantic_map, 5, 122, 395, 295) == GROUND).all()
    osm = OsmFile()
    osm.way([(500, 120), (200, 120), (-100, 120)], {"natural": "coastline"})
    semantic_map, _ = built(osm)
    assert (classes(semantic_map, 5, 5, 395, 118) == GROUND).all()
    assert (classes(semantic_map, 5, 122, 395, 295) == WATER).all()


def test_island_in_the_sea(built):
    osm = OsmFile()
    osm.way([(100, 100), (200, 100), (200, 200), (100, 200), (100, 100)], {"natural": "coastline"})
    semantic_map, features = built(osm)
    assert area_m2(semantic_map, GROUND, 1, 1, 399, 299) == pytest.approx(10000, rel=0.01)
    assert len(features.areas) == 1 and len(features.areas[0].polygon.interiors) == 1


def test_coast_that_the_extract_has_cut_goes_on_to_the_nearest_edge(built):
    osm = OsmFile()
    osm.way([(10, 150), (200, 150)], {"natural": "coastline"})
    osm.way([(200, 150), (380, 150)], {"natural": "coastline"})
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, WATER, 1, 1, 399, 149) == pytest.approx(398 * 148, rel=0.01)
    assert area_m2(semantic_map, WATER, 1, 151, 399, 299) == 0


def test_bbox_far_from_the_coast_is_still_sea(built):
    osm = OsmFile()
    osm.way([(-100, 280), (500, 280)], {"natural": "coastline"})
    south, west = GRID.to_geographic(100.0, 50.0)
    north, east = GRID.to_geographic(200.0, 120.0)
    semantic_map, features = built(osm, bbox=(west, south, east, north))
    assert semantic_map.shares["water"] == 1.0
    assert semantic_map.bounds[2] == pytest.approx(101, abs=2) and len(features.areas) == 1


def test_river_of_which_the_extract_holds_one_bank_per_side(built):
    osm = OsmFile()
    north = osm.way([(500, 200), (200, 190), (-100, 200)])
    south = osm.way([(-100, 100), (200, 110), (500, 100)])
    away = osm.way([(500, 100), (900, 150), (500, 200)], written=False)  # the rest, not in the extract
    osm.multipolygon([(north, "outer"), (south, "outer"), (away, "outer")], {"natural": "water", "water": "river"})
    osm.way([(-100, 150), (500, 150)], {"waterway": "river"})
    for x in (20, 120, 260):
        osm.box(x, 20, x + 30, 40, {"building": "yes"})
        osm.box(x, 240, x + 30, 260, {"building": "yes"})
    semantic_map, _ = built(osm)
    assert (classes(semantic_map, 5, 112, 395, 188) == WATER).all()
    assert area_m2(semantic_map, WATER, 1, 1, 399, 95) == area_m2(semantic_map, WATER, 1, 205, 399, 299) == 0


def test_rings_of_a_multipolygon_are_kept_where_others_are_missing(built):
    osm = OsmFile()
    rings = [osm.box(100, 100, 150, 150), osm.box(110, 110, 120, 120), osm.box(300, 100, 310, 110)]
    away = osm.way([(500, 0), (600, 0), (600, 90), (500, 0)], written=False)
    osm.multipolygon([(rings[0], "outer"), (rings[1], "inner"), (away, "outer")], {"landuse": "forest"})
    osm.multipolygon([(away, "outer"), (rings[2], "inner")], {"natural": "water"})  # an island, no lake
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, VEGETATION, 1, 1, 399, 299) == pytest.approx(2500 - 100, rel=0.03)
    assert area_m2(semantic_map, WATER, 1, 1, 399, 299) == 0


def test_wood_whose_corner_nodes_are_missing(built):
    osm = OsmFile()
    osm.way([(300, -50), (500, -50), (500, 100), (380, 100), (300, 100), (300, -50)], {"natural": "wood"},
            missing=(1, 2))
    osm.box(20, 20, 60, 60, {"building": "yes"})
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, VEGETATION, 1, 1, 399, 299) == pytest.approx(99 * 99, rel=0.03)


def test_what_is_outside_of_the_data_is_not_mapped(built):
    osm = OsmFile(width_m=2000, height_m=2000)  # the box of the file is straight in degrees, not in metres
    semantic_map, _ = built(osm)
    whole = classes(semantic_map, 0, 0, 2000, 2000, step=2.0)
    assert 0 < (whole == NO_DATA).mean() < 0.02
    assert set(np.unique(whole)) == {GROUND, NO_DATA}
    south, west = GRID.to_geographic(500.0, 500.0)
    north, east = GRID.to_geographic(1500.0, 1500.0)
    inner, _ = built(osm, bbox=(west, south, east, north))
    assert inner.pixel_counts["ground"] == inner.width_px * inner.height_px  # data all around: nothing is missing
    assert inner.grid.easting_m % 0.5 == inner.grid.northing_m % 0.5 == 0


def test_extent_without_header_ignores_far_nodes(built):
    osm = OsmFile(header=False)
    for x in range(0, 401, 20):
        osm.box(x, 0, x + 10, 10, {"building": "yes"})
        osm.box(x, 280, x + 10, 300, {"building": "yes"})
    osm.way([(0, 150), (40000, 150)], {"highway": "motorway"})
    assert built(osm)[0].bounds[2] < 650


def test_car_park_with_a_kiosk_cut_by_the_edge_does_not_flood_the_town(built):
    osm = OsmFile()
    osm.way([(350, 200), (450, 200), (450, 240), (350, 240), (350, 200)], {"amenity": "parking"}, missing=(1, 2))
    osm.box(360, 210, 364, 214, {"building": "kiosk"})
    for x in (20, 120, 260):
        osm.box(x, 20, x + 30, 40, {"building": "yes"})
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, ROAD, 1, 1, 399, 190) == 0
    assert area_m2(semantic_map, ROAD, 345, 195, 399, 245) == pytest.approx(50 * 40 - 16, rel=0.03)


def test_same_file_same_bytes_however_it_is_cut(tmp_path, monkeypatch):
    osm = OsmFile()
    osm.way([(-100, 120), (133, 141), (500, 95)], {"natural": "coastline"})
    osm.way([(0, 0), (391, 288)], {"highway": "primary"})
    osm.box(100.3, 180.7, 160.2, 220.4, {"building": "yes"})
    path = osm.write(tmp_path / "a.osm")
    files = []
    for name, window_px in (("a", 4096), ("b", 4096), ("c", 97)):
        monkeypatch.setattr(build, "_WINDOW_PX", window_px)
        build.build_map(path, tmp_path / f"{name}.tif")
        with rasterio.open(tmp_path / f"{name}.tif") as raster:
            pixels = raster.read()
        files.append(((tmp_path / f"{name}.tif").read_bytes(), features_path(tmp_path / f"{name}.tif").read_bytes(),
                      pixels))
    assert files[0][:2] == files[1][:2]
    assert (files[0][2] == files[2][2]).all() and files[0][1] == files[2][1]


def test_interrupt_leaves_nothing(tmp_path, monkeypatch):
    osm = OsmFile()
    osm.box(100, 100, 120, 110, {"building": "yes"})
    path = osm.write(tmp_path / "a.osm")

    def interrupt(*_):
        raise KeyboardInterrupt
    for owner, name in ((build._Painter, "draw"), (build, "write_features")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            assert main(["map", "build", "--osm", str(path), "--out", str(tmp_path / "m.tif")]) == 130
        assert [file.name for file in tmp_path.iterdir()] == ["a.osm"]


@pytest.mark.parametrize("limit", [1000, 10000, 20000])
def test_full_disk_is_named_and_leaves_nothing(tmp_path, limit):
    """A limit on the size of files stands in for a full disk, at several moments of writing."""
    osm, rng = OsmFile(), np.random.default_rng(3)
    for x, y in rng.uniform(0, 300, (400, 2)):
        osm.box(x, y, x + rng.uniform(3, 9), y + rng.uniform(3, 9), {"building": "yes"})
    path = osm.write(tmp_path / "a.osm")
    done = subprocess.run(
        [sys.executable, "-c", f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
         "from thermalreid_ros.cli import main; sys.exit(main(sys.argv[1:]))", "map", "build", "--osm", str(path),
         "--out", str(tmp_path / "m.tif")], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2 and "m.tif: cannot be written" in done.stderr.splitlines()[-1], done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["a.osm"]


XML = '<osm version="0.6">{}<node id="1" lat="48.405" lon="15.601" version="1"/>' \
      '<node id="2" lat="48.405" lon="15.619" version="1"/><node id="3" lat="48.405" lon="15.619" version="1"/>' \
      '<way id="1" version="1"><nd ref="{}"/><nd ref="2"/><tag k="highway" v="residential"/></way>' \
      '<way id="2" version="1"><nd ref="1"/><nd ref="2"/><tag k="highway" v="primary"/></way></osm>'


def bounds(*boxes) -> str:
    return "".join(f'<bounds minlat="{s}" minlon="{w}" maxlat="{n}" maxlon="{e}"/>' for w, s, e, n in boxes)


def test_a_way_whose_nodes_lie_upon_each_other_makes_no_line(tmp_path):
    (tmp_path / "a.osm").write_text(XML.format(bounds((15.6, 48.4, 15.62, 48.41)), 3))
    build.build_map(tmp_path / "a.osm", tmp_path / "a.tif")
    road, = read_features(features_path(tmp_path / "a.tif")).roads
    assert road.kind == "primary" and road.line.length > 1000.0


@pytest.mark.parametrize("suffix", ["osm", "osm.gz"])
def test_a_file_of_several_boxes_is_mapped_in_all_of_them_or_refused(tmp_path, capsys, suffix):
    pack = gzip.compress if suffix.endswith("gz") else bytes
    path = tmp_path / f"editor.{suffix}"
    path.write_bytes(pack(XML.format(bounds((15.6, 48.4, 15.61, 48.41), (15.61, 48.4, 15.62, 48.41)), 1).encode()))
    build.build_map(path, tmp_path / "a.tif")
    with SemanticMap.open(tmp_path / "a.tif") as semantic_map:
        assert semantic_map.bounds[2] > 1450.0  # metres: two hundredths of a degree
    path.write_bytes(pack(XML.format(bounds((15.6, 48.4, 15.605, 48.41), (15.61, 48.4, 15.62, 48.41)), 1).encode()))
    command = ["map", "build", "--osm", str(path), "--out", str(tmp_path / "b.tif")]
    assert main(command) == 2
    assert "2 boxes with nothing between them; give --bbox within one: 15.60000,48.40000" in capsys.readouterr().err
    assert main([*command, "--bbox", "15.602,48.4,15.618,48.41"]) == 2  # over the gap
    assert "2 boxes" in capsys.readouterr().err
    assert main([*command, "--bbox", "15.61,48.4,15.62,48.41"]) == 0


def test_an_area_that_ends_at_the_180th_meridian_holds_its_roads(tmp_path):
    (tmp_path / "a.osm").write_text(
        '<osm version="0.6"><bounds minlat="-17" minlon="179.99" maxlat="-16.99" maxlon="180"/>'
        '<node id="1" lat="-16.995" lon="179.991" version="1"/><node id="2" lat="-16.995" lon="179.999" version="1"/>'
        '<way id="1" version="1"><nd ref="1"/><nd ref="2"/><tag k="highway" v="primary"/></way></osm>')
    build.build_map(tmp_path / "a.osm", tmp_path / "a.tif")
    with SemanticMap.open(tmp_path / "a.tif") as semantic_map:
        assert semantic_map.pixel_counts["road"] > 0.25 * 800 * 6 / 0.25


def test_a_hedge_measured_in_centimetres_is_a_hedge(built):
    osm = OsmFile()
    osm.way([(50, 100), (350, 100)], {"barrier": "hedge", "width": "80 cm"})
    osm.way([(50, 200), (350, 200)], {"barrier": "hedge", "width": "1500"})
    semantic_map, _ = built(osm)
    assert area_m2(semantic_map, VEGETATION, 0, 50, 400, 140) == pytest.approx(300 * 0.8, rel=0.35)
    assert area_m2(semantic_map, VEGETATION, 0, 140, 400, 300) < 400 * 55


@pytest.mark.parametrize("west", ["-71.35,41.48,-71.33,41.5", "-.5,-33.9,.5,-33.8"])
def test_west_and_south_are_values_and_no_options(tmp_path, capsys, west):
    path = OsmFile().write(tmp_path / "a.osm")
    assert main(["map", "build", "--osm", str(path), "--out", str(tmp_path / "m.tif"), "--bbox", west]) == 2
    assert "outside of its data" in capsys.readouterr().err


def test_a_build_that_is_terminated_leaves_nothing(tmp_path):
    osm, rng = OsmFile(4000.0, 3000.0), np.random.default_rng(3)
    for x, y in rng.uniform(0, 3000, (3000, 2)):
        osm.box(x, y, x + rng.uniform(3, 9), y + rng.uniform(3, 9), {"building": "yes"})
    path = osm.write(tmp_path / "a.osm")
    command = subprocess.Popen(
        [sys.executable, "-c", "import sys; from thermalreid_ros.cli import main; sys.exit(main(sys.argv[1:]))", "map",
         "build", "--osm", str(path), "--out", str(tmp_path / "m.tif"), "--resolution", "0.1"], cwd=REPOSITORY,
        stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60.0
    while not list(tmp_path.glob(".m.tif.*")):
        assert command.poll() is None and time.monotonic() < deadline, command.stderr.read()
        time.sleep(0.02)
    command.terminate()
    assert command.wait(timeout=60) == 143
    assert [file.name for file in tmp_path.iterdir()] == ["a.osm"]


@pytest.mark.parametrize("name, content, words", [
    ("absent.osm", None, "no such file"), ("empty.osm", b"", "broken"), ("empty.osm.pbf", b"", "broken"),
    ("cut.osm", b"<osm version='0.6'><node id='1' lat='48", "broken"),
    ("noise.osm.pbf", b"\x12\x91\xff" * 99, "broken"),
    ("nothing.osm", b"<osm version='0.6'></osm>", "no nodes"),
    ("point.osm", b"<osm version='0.6'><node id='1' lat='48.4' lon='15.6' version='1'/></osm>", "no area"),
    ("far.osm", b"<osm version='0.6'><node id='1' lat='999' lon='15.6' version='1'/></osm>", "broken"),
    ("meridian.osm", b"<osm version='0.6'><node id='1' lat='-17' lon='179.995' version='1'/><node id='2' lat='-16.99' "
                     b"lon='-179.995' version='1'/></osm>", "180th meridian"),
    ("pole.osm", b"<osm version='0.6'><bounds minlat='85.4' minlon='15.6' maxlat='85.41' maxlon='15.61'/></osm>",
     "84 north"),
    ("bounds.osm", b"<osm version='0.6'><bounds minlat='48.4' minlon='15.6' maxlat='48.41' maxlon='15.61'/></osm>",
     "tells of an area, but holds no nodes"), ("area.shp", b"x", "not a known kind"),
    ("noise.osm.gz", b"\x1f\x8bnoise", "broken"), ("cut.osm.gz", gzip.compress(b"<osm version='0.6'>" * 99)[:30],
                                                   "broken")])
def test_bad_files_are_refused_in_one_line(tmp_path, capsys, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    out.mkdir()
    assert main(["map", "build", "--osm", str(tmp_path / name), "--out", str(out / "m.tif")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert name in error and words in error
    assert list(out.iterdir()) == []


def test_bad_arguments_are_refused_in_one_line(tmp_path, capsys):
    path = OsmFile().write(tmp_path / "a.osm")
    (tmp_path / "f.tif").mkdir()
    for arguments, words in ((["--out", "m.png"], "GeoTIFF"), (["--out", "absent/m.tif"], "no such folder"),
                             (["--out", "m.tif", "--bbox", "1,2,3,4"], "outside of its data"),
                             (["--out", "m.tif", "--bbox", "3,2,1,4"], "W < E"),
                             (["--out", "m.tif", "--bbox", "north"], "W,S,E,N"),
                             (["--out", "m.tif", "--resolution", "-1"], "0.1 to 5"),
                             (["--out", "m.tif", "--resolution", "5000"], "0.1 to 5"),
                             (["--out", "f.tif"], "a folder")):
        arguments[1] = str(tmp_path / arguments[1])
        try:
            code = main(["map", "build", "--osm", str(path), *arguments])
        except SystemExit as end:
            code = end.code
        assert code == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.osm", "f.tif"]


# Shares as measured; places whose cover is known, (latitude, longitude).
EXTRACTS = {
    "monaco.osm.pbf": ({"water": 0.504, "building": 0.071}, 3236, {
        (43.7280, 7.4400): WATER, (43.7347, 7.4255): WATER, (43.7314, 7.4197): BUILDING,
        (43.7297, 7.4209): WATER, (43.7276, 7.4155): VEGETATION}),
    "krems.osm.gz": ({"water": 0.170, "vegetation": 0.240}, 5324, {
        (48.4032, 15.6103): WATER, (48.4045, 15.6458): WATER, (48.3962, 15.6342): WATER,
        (48.3881, 15.6592): WATER}),
    "small-town-finland.osm.pbf": ({"building": 0.071, "road": 0.069}, 2198, {}),
}


@pytest.mark.parametrize("name", EXTRACTS)
def test_real_extracts(shared_data, tmp_path, capsys, name):
    shares, width_m, places = EXTRACTS[name]
    start_s = time.process_time()
    assert main(["map", "build", "--osm", str(shared_data / "osm" / name), "--out", str(tmp_path / "m.tif"),
                 "--json", str(tmp_path / "m.json")]) == 0
    assert name != "monaco.osm.pbf" or time.process_time() - start_s < 10.0
    values = json.loads((tmp_path / "m.json").read_text())
    assert values["width_m"] == pytest.approx(width_m, abs=1) and values["crs"].startswith("EPSG:326")
    assert {key: values["classes"][key] for key in shares} == pytest.approx(shares, abs=0.005)
    assert sum(values["classes"].values()) == pytest.approx(1.0)
    with SemanticMap.open(tmp_path / "m.tif") as semantic_map:
        for (latitude, longitude), semantic in places.items():
            x, y = semantic_map.grid.from_geographic(latitude, longitude)
            assert semantic_map.class_at(x, y) == semantic, (latitude, longitude)
    assert main(["map", "preview", str(tmp_path / "m.tif"), "--out", str(tmp_path / "m.png")]) == 0
    assert main(["map", "info", str(tmp_path / "m.tif")]) == 0
    assert "OpenStreetMap" in capsys.readouterr().out
