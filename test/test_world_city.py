"""The static city: closed buildings, a plan that is the map, counted differences, places for those who live there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, Polygon, affinity

from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.build import build_map
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import Area, Building, Features, Railway, Road, Tree
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.world.buildings import linear, make_buildings, tagged_colour
from thermalreid_ros.world.city import GROUND, CityError, build_city, city_from_features
from thermalreid_ros.world.differences import alter_buildings, alter_roads, displace, touching
from thermalreid_ros.world.ground import PlanPainter, Relief, code, dashes, find_junctions, make_relief, segments_of
from thermalreid_ros.world.materials import Surface

GRID = LocalGrid("EPSG:32633", 540_000.0, 5_360_000.0)
FLAT_GROUND = Relief(-500.0, -500.0, np.zeros((201, 201), np.float32))
ROOFS = ("flat", "gabled", "hipped", "pyramidal", "skillion", "mansard", "dome", "")


def raised(*buildings: Building, relief: Relief = FLAT_GROUND, seed: int = 3, latitude_deg: float = 48.0):
    return make_buildings(buildings, relief, np.random.default_rng(seed), latitude_deg)


def assert_closed(faces: np.ndarray) -> None:
    """Each edge is run through as often in one direction as in the other."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).astype(np.int64)
    there, back = (np.sort(edges[:, i] << 32 | edges[:, 1 - i]) for i in (0, 1))
    assert (there == back).all()


def volume(mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def seen_area(mesh) -> float:
    """The area of the faces that look up, seen from above."""
    a, b, c = (mesh.vertices[mesh.faces[:, i], :2].astype(np.float64) for i in range(3))
    u, v = b - a, c - a
    return float(np.maximum(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0], 0).sum() / 2)


def town(seed: int = 5, count: int = 60) -> Features:
    """Two streets with houses, a park, a car park, a pond, a railway, a wood and a building with parts and a court."""
    rng = np.random.default_rng(seed)
    x0, y0 = GRID.easting_m, GRID.northing_m
    houses = []
    for i in range(count):
        x, y = x0 - 190 + 13 * (i % 30), y0 + (18 if i < 30 else -18)
        shape = affinity.rotate(shapely.box(x, y - 5, x + 9, y + 5 + rng.uniform(0, 3)), rng.uniform(-3, 3))
        houses.append(Building(shape, float(rng.uniform(3, 15)), kind="house" if i % 3 else "yes"))
    court = shapely.box(x0 + 60, y0 + 60, x0 + 110, y0 + 110).difference(
        shapely.box(x0 + 75, y0 + 75, x0 + 95, y0 + 95))
    tower = shapely.box(x0 + 110, y0 + 60, x0 + 130, y0 + 80)
    houses += [Building(court, 18.0, kind="apartments"), Building(tower, 31.0)]
    streets = [Road(LineString([(x0 - 250, y0), (x0, y0), (x0 + 250, y0)]), "tertiary", 7.0, 2, False, sidewalk=True),
               Road(LineString([(x0, y0 - 250), (x0, y0), (x0, y0 + 250)]), "residential", 6.0, 2, False),
               Road(LineString([(x0 - 250, y0 - 120), (x0 + 250, y0 - 120)]), "footway", 2.0, 0, False),
               Road(LineString([(x0 - 250, y0 + 140), (x0 + 250, y0 + 140)]), "primary", 8.0, 2, False, tunnel=True)]
    areas = [Area(shapely.box(x0 - 200, y0 + 60, x0 - 20, y0 + 200), "park", SemanticClass.VEGETATION),
             Area(shapely.box(x0 - 150, y0 + 100, x0 - 100, y0 + 150), "water", SemanticClass.WATER),
             Area(shapely.box(x0 + 20, y0 + 60, x0 + 55, y0 + 120), "parking", SemanticClass.ROAD),
             Area(shapely.box(x0 - 200, y0 - 240, x0 + 150, y0 - 40), "forest", SemanticClass.VEGETATION)]
    trees = [Tree(x0 - 60 + 10 * i, y0 + 70, 9.0, "broadleaved" if i % 2 else "needleleaved") for i in range(4)]
    return Features(GRID.crs, tuple(houses), tuple(streets), tuple(areas), tuple(trees),
                    (Railway(LineString([(x0 - 250, y0 + 220), (x0 + 250, y0 + 215)]), 3.5),))


@pytest.fixture(scope="module")
def changed():
    return city_from_features(town(), GRID, (400.0, 400.0), 11, 1.0)


@pytest.fixture(scope="module")
def unchanged():
    return city_from_features(town(), GRID, (400.0, 400.0), 11, 0.0)


# Buildings.

def test_a_flat_block_has_its_volume():
    part = raised(Building(shapely.box(10, 20, 18, 25), 9.0, roof_shape="flat"))
    assert_closed(part.mesh.faces)
    assert volume(part.mesh) == pytest.approx(40.0 * 9.3, rel=1e-4)  # its foot reaches 0.3 m into the ground
    assert part.mesh.vertices[:, 2].max() == pytest.approx(9.0)


@pytest.mark.parametrize("turn", [0.0, 31.0])
def test_a_gabled_roof_has_a_ridge_along_the_middle(turn):
    shape = affinity.rotate(shapely.box(-4, -2.5, 4, 2.5), turn, origin=(0, 0))
    part = raised(Building(shape, 9.0, roof_shape="gabled"))
    mesh = part.mesh
    assert_closed(mesh.faces)
    top = mesh.vertices[:, 2].max()
    assert top == pytest.approx(9.0, abs=1e-3)
    ridge = mesh.vertices[mesh.vertices[:, 2] > top - 1e-3]
    assert np.linalg.norm(np.ptp(ridge[:, :2], axis=0)) == pytest.approx(8.0, abs=0.01)
    eaves = np.unique(np.round(mesh.vertices[mesh.vertices[:, 2] > 0, 2], 2))[0]
    assert volume(mesh) == pytest.approx(40.0 * (eaves + 0.3 + 0.5 * (9.0 - eaves)), rel=2e-3)
    roof = mesh.material < Surface.WALL_PLASTER
    slope = np.arctan2(9.0 - eaves, 2.5)
    assert np.allclose(mesh.normals[roof & (mesh.normals[:, 2] > 0), 2], np.cos(slope), atol=0.01)


def test_a_hipped_and_a_pyramidal_roof_have_the_volume_of_their_planes():
    for shape, length, share in (("hipped", 8.0, None), ("pyramidal", 5.0, 1 / 3)):
        mesh = raised(Building(shapely.box(0, 0, length, 5), 8.0, roof_shape=shape)).mesh
        assert_closed(mesh.faces)
        eaves = np.unique(np.round(mesh.vertices[mesh.vertices[:, 2] > 0, 2], 3))[0]
        # A hipped roof: a prism as long as its ridge, and a pyramid over the two ends.
        share = share or ((length - 5) * 0.5 + 5 / 3) / length
        assert volume(mesh) == pytest.approx(5 * length * (eaves + 0.3 + share * (8.0 - eaves)), rel=2e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_building_is_closed_and_covers_its_footprint(seed):
    rng = np.random.default_rng(seed)
    buildings = []
    for i in range(4):
        a, b = rng.uniform(3, 40, 2)
        shape = shapely.box(0, 0, a, b)
        kind = rng.integers(5)
        if kind == 1:  # an L
            shape = shape.difference(shapely.box(a * rng.uniform(0.3, 0.7), b * rng.uniform(0.3, 0.7), a + 1, b + 1))
        elif kind == 2:  # a courtyard
            shape = shape.difference(shapely.box(0.3 * a, 0.3 * b, rng.uniform(0.5, 0.8) * a, 0.7 * b))
        elif kind == 3:  # round
            shape = shapely.Point(0, 0).buffer(a, quad_segs=4)
        elif kind == 4:  # a ragged ring of points
            angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
            shape = Polygon((a * rng.uniform(0.4, 1, 9) * np.array([np.cos(angle), np.sin(angle)])).T).buffer(0)
        shape = affinity.translate(affinity.rotate(shape, rng.uniform(0, 360)), 100.0 * i, 0)
        if shape.geom_type == "Polygon" and shape.area > 6:
            bottom = float(rng.choice((0.0, 0.0, 4.0)))
            buildings.append(Building(shape, bottom + float(rng.uniform(1.5, 60)), bottom,
                                      roof_shape=str(rng.choice(ROOFS)),
                                      kind=str(rng.choice(("yes", "house", "shed")))))
    part = raised(*buildings, seed=seed)
    assert_closed(part.mesh.faces)
    assert len(part.seed) == len(part.base_z) == len(buildings)
    for i, building in enumerate(buildings):
        faces = part.mesh.faces[part.object_id == i]
        mesh = replace(part.mesh, faces=faces)
        z = mesh.vertices[np.unique(faces), 2]
        assert volume(mesh) > 0
        assert seen_area(mesh) >= 0.99 * building.polygon.area - 0.5
        assert z.min() == pytest.approx(building.min_height_m or -0.3, abs=1e-3)
        assert z.max() >= building.height_m - 0.05


def test_buildings_stand_on_the_ground():
    heights = np.tile(np.linspace(0, 20, 201, dtype=np.float32), (201, 1))  # 2 cm a metre up to the east
    relief = Relief(-500.0, -500.0, heights)
    part = raised(Building(shapely.box(0, 0, 20, 5), 9.0, roof_shape="flat"), relief=relief)
    z = part.mesh.vertices[:, 2]
    assert z.min() == pytest.approx(relief.height_m(np.zeros(1), np.zeros(1))[0] - 0.3, abs=1e-3)
    assert part.base_z[0] == pytest.approx(10.2, abs=0.05)
    assert z.max() == pytest.approx(part.base_z[0] + 9.0, abs=2.5)


def test_tags_decide_on_surfaces_and_colours():
    part = raised(Building(shapely.box(0, 0, 6, 5), 9.0, roof_shape="gabled", roof_material="metal", material="brick",
                           colour="#ff0000", roof_colour="white"))
    mesh = part.mesh
    walls = np.abs(mesh.normals[:, 2]) < 0.01
    assert set(mesh.material[walls]) == {Surface.WALL_BRICK}
    assert set(mesh.material[mesh.normals[:, 2] > 0.1]) == {Surface.ROOF_METAL}
    assert mesh.colour[walls][0] == pytest.approx([0.85, 0.02, 0.02])
    assert linear([255, 188, 0]) == pytest.approx([1.0, 0.503, 0.0], abs=1e-3)
    assert tagged_colour("#a52") == pytest.approx(tagged_colour("#AA5522"))
    assert tagged_colour("somewhat blue") is None


def test_a_carport_is_a_roof_in_the_air():
    mesh = raised(Building(shapely.box(0, 0, 6, 5), 2.6, kind="carport", roof_shape="flat")).mesh
    assert (mesh.vertices[:, 2].min(), mesh.vertices[:, 2].max()) == pytest.approx((2.2, 2.6))
    assert volume(mesh) == pytest.approx(30 * 0.4, rel=1e-4)


# Ground.

def test_heights_are_those_of_the_terrain_mesh():
    rng = np.random.default_rng(1)
    relief = Relief(-20.0, -10.0, rng.uniform(0, 5, (5, 9)).astype(np.float32))
    mesh = relief.mesh()
    weights = rng.dirichlet((1, 1, 1), len(mesh.faces))
    points = np.einsum("fk,fkc->fc", weights, mesh.vertices[mesh.faces].astype(np.float64))
    assert relief.height_m(points[:, 0], points[:, 1]) == pytest.approx(points[:, 2], abs=1e-4)
    assert (mesh.normals[:, 2] > 0).all()
    assert relief.height_m(np.array([-99.0]), np.array([-10.0]))[0] == relief.heights[0, 0]


def test_relief_is_gentle_and_water_is_flat():
    pond = shapely.box(-40, -40, 40, 40)
    relief = make_relief((-500, -500, 500, 500), [pond], np.random.default_rng(2), 1.0)
    assert 2.0 < relief.heights.max() <= 4.0 and relief.heights.min() >= 0.0
    x, y = np.meshgrid(np.linspace(-40, 40, 30), np.linspace(-40, 40, 30))
    assert (relief.height_m(x.ravel(), y.ravel()) == 0).all()
    assert np.abs(np.diff(relief.heights, axis=0)).max() / relief.step_m < 0.2
    assert (make_relief((-500, -500, 500, 500), [], np.random.default_rng(2), 0.0).heights == 0).all()


def test_plans_paint_holes_and_parts():
    painter = PlanPainter((0.0, 0.0, 100.0, 100.0))
    ring = shapely.box(10, 10, 50, 50).difference(shapely.box(20, 20, 40, 40))
    comb = shapely.box(60, -50, 95, 95).difference(shapely.box(70, -60, 80, 80))  # two parts once it is clipped
    painter.polygons([ring, comb], [code(Surface.GRASS, 3), code(Surface.WATER, 4)])
    plan = painter.plan()
    share = [np.count_nonzero(plan.semantic == value) * 0.04 for value in (3, 4)]
    assert share[0] == pytest.approx(ring.area, rel=0.02)
    assert share[1] == pytest.approx(comb.intersection(shapely.box(0, 0, 100, 100)).area, rel=0.02)
    assert plan.surface[plan.cells(np.array([15.0]), np.array([30.0]))] == Surface.GRASS
    assert plan.semantic[plan.cells(np.array([65.0]), np.array([1.0]))] == SemanticClass.WATER
    assert plan.cells(np.array([0.1, 1e9]), np.array([99.9, -5.0]))[0].tolist() == [0, 499]


def test_dashes_lie_on_their_line():
    pieces = dashes(np.array([LineString([(0, 0), (60, 0)]), LineString([(0, 9), (2, 9)])], object), 3.0, 6.0)
    assert len(pieces) == 10
    assert np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1) == pytest.approx(3.0)
    assert (pieces[:, :, 1] == 0).all() and pieces[0, 0, 0] == 1.5


def test_junctions_are_where_three_arms_meet():
    junctions = find_junctions(list(town().roads))
    assert junctions.points.tolist() == [[GRID.easting_m, GRID.northing_m]]
    assert junctions.along_m == pytest.approx([250.0, 250.0])


def test_roads_are_drawn_with_markings_and_rails_with_ballast(unchanged):
    plan = unchanged.plan
    x = np.linspace(-190, -20, 600)
    rows = {offset: plan.surface[plan.cells(x, np.full_like(x, offset))] for offset in (0.0, 1.8, 4.1)}
    assert 0.3 < (rows[0.0] == Surface.ROAD_PAINT).mean() < 0.7
    assert (rows[1.8] == Surface.ASPHALT).mean() > 0.9 or (rows[1.8] == Surface.CONCRETE).mean() > 0.9
    assert np.isin(rows[4.1], (Surface.PAVING, Surface.CONCRETE)).mean() > 0.9
    painted = plan.surface == Surface.ROAD_PAINT
    assert (plan.semantic[painted] == SemanticClass.ROAD).all()
    assert not (plan.surface[plan.cells(x, np.full_like(x, 140.0))] == Surface.ASPHALT).any()  # the tunnel


# Differences.

def test_no_difference_is_the_map(unchanged):
    figures = unchanged.differences.as_dict()
    assert json.loads(json.dumps(figures)) == figures
    counted = {"buildings_mapped", "roads", "trees_mapped"}
    assert {name for name, value in figures.items() if value} == counted
    assert (unchanged.relief.heights == 0).all()
    mapped = [shape.polygon for shape in town().buildings]
    covered = np.count_nonzero(unchanged.plan.semantic == SemanticClass.BUILDING) * 0.04
    box = shapely.box(GRID.easting_m - 200, GRID.northing_m - 200, GRID.easting_m + 200, GRID.northing_m + 200)
    assert covered == pytest.approx(shapely.union_all(mapped).intersection(box).area, rel=0.05)


def test_buildings_are_removed_added_and_altered_by_their_shares():
    features = town(count=60)
    count = len(features.buildings)
    far = [Road(LineString([(GRID.easting_m + 400, 0), (GRID.easting_m + 400, 5_500_000)]), "residential", 6, 2, False)]
    box = shapely.box(GRID.easting_m - 300, GRID.northing_m - 300, GRID.easting_m + 300, GRID.northing_m + 300)
    for difference in (0.0, 0.5, 1.0):
        result, counts = alter_buildings(features.buildings, [*features.roads, *far], [], box,
                                         np.random.default_rng(4), difference)
        assert counts["buildings_removed"] == round(0.05 * count * difference)
        assert counts["buildings_altered"] == round(0.1 * count * difference)
        assert counts["buildings_added"] == round(0.05 * count * difference)
        assert counts["height_rms_share"] == pytest.approx(0.1 * difference, rel=0.25)
        same = {b.polygon.wkb for b in features.buildings} & {b.polygon.wkb for b in result}
        assert len(same) == count - counts["buildings_removed"] - counts["buildings_altered"]
        new = [b.polygon for b in result[len(result) - counts["buildings_added"]:]] if difference else []
        assert all(box.contains(shape) for shape in new)
        assert all(shape.distance(b.polygon) > 1.9 for shape in new for b in features.buildings)


def test_displacement_is_smooth_and_of_its_size():
    points = np.random.default_rng(8).uniform(0, 3000, (400, 2))
    houses = tuple(Building(shapely.box(x, y, x + 8, y + 8), 5.0) for x, y in points)
    features = replace(town(), buildings=houses)
    moved, field_m, jitter_m = displace(features, np.random.default_rng(3), 1.0)
    shift = np.array([m.polygon.centroid.coords[0] for m in moved.buildings]) - \
        np.array([b.polygon.centroid.coords[0] for b in houses])
    assert field_m == pytest.approx(1.5, rel=0.3) and jitter_m == pytest.approx(0.5, rel=0.15)
    assert np.sqrt((shift**2).sum(axis=1).mean()) == pytest.approx(np.hypot(field_m, jitter_m), rel=0.1)
    assert displace(features, np.random.default_rng(3), 0.0) == (features, 0.0, 0.0)
    half = displace(features, np.random.default_rng(3), 0.5)
    assert half[1] == pytest.approx(0.5 * field_m, rel=0.01)


def test_touching_buildings_move_together():
    row = [shapely.box(10 * i, 0, 10 * i + 10, 8) for i in range(4)] + [shapely.box(60, 0, 70, 8)]
    assert touching(np.array(row, object)).tolist() == [0, 0, 0, 0, 4]
    features = Features(GRID.crs, tuple(Building(shape, 6.0) for shape in row))
    moved = [b.polygon for b in displace(features, np.random.default_rng(1), 1.0)[0].buildings]
    assert moved[0].distance(moved[3]) == pytest.approx(20, abs=1.0)
    assert all(a.distance(b) < 0.01 for a, b in zip(moved[:3], moved[1:4]))


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_roads_keep_within_a_quarter_of_their_width(difference, seed):
    roads = town().roads
    altered, rms = alter_roads(roads, np.random.default_rng(seed), difference)
    for old, new in zip(roads, altered):
        assert abs(new.width_m / old.width_m - 1) <= 0.25 * difference + 1e-3
    assert rms <= 0.25 * difference


def test_a_street_of_many_ways_has_one_width():
    ways = [Road(LineString([(50 * i, 0), (50 * i + 50, 0)]), "residential", 6.0, 2, False) for i in range(6)]
    ways += [Road(LineString([(100, 0), (100, 80)]), "service", 3.5, 1, False),
             Road(LineString([(900, 0), (950, 0)]), "residential", 6.0, 2, False)]
    widths = [road.width_m for road in alter_roads(ways, np.random.default_rng(6), 1.0)[0]]
    assert len(set(widths[:6])) == 1 and len(set(widths)) == 3


def test_unmapped_ground_is_covered_as_far_as_the_world_differs(changed, unchanged):
    x, y = np.meshgrid(np.arange(22, 178, 1.0), np.arange(132, 198, 1.0))  # nothing is mapped there
    seen = unchanged.plan.semantic[unchanged.plan.cells(x, y)]
    assert (seen == SemanticClass.GROUND).all()
    assert 0.15 < changed.differences.unmapped_ground_covered_share < 0.6
    assert unchanged.differences.unmapped_ground_covered_share == 0


# The city as a whole.

def test_every_face_knows_what_it_is(changed):
    faces = len(changed.mesh.faces)
    assert len(changed.semantic) == len(changed.object_id) == len(changed.mesh.material) == faces
    terrain = changed.semantic == GROUND
    assert (changed.mesh.material[terrain] == GROUND).all() and (changed.object_id[terrain] == -1).all()
    assert changed.object_id.max() < len(changed.object_seed) == len(changed.object_base_z)
    assert (changed.mesh.material[~terrain] < len(Surface)).all()
    assert set(np.unique(changed.semantic)) == {SemanticClass.BUILDING, SemanticClass.VEGETATION, GROUND}
    assert changed.mesh.vertices.dtype == changed.mesh.colour.dtype == np.float32
    assert changed.mesh.faces.dtype == np.int32 and changed.mesh.colour.min() >= 0 and changed.mesh.colour.max() <= 1
    assert changed.differences.trees_unmapped > 10 and changed.differences.trees_mapped == 4


def test_the_wood_stays_open_over_ways_and_closed_at_its_edge(unchanged):
    wood = unchanged.semantic == SemanticClass.VEGETATION
    canopy = wood & (unchanged.object_id == unchanged.object_id.max())
    corners = unchanged.mesh.vertices[unchanged.mesh.faces[canopy]]
    assert corners[..., 2].max() > 10 and corners[..., 2].min() == pytest.approx(-0.2)
    flat = unchanged.mesh.normals[canopy][:, 2] > 0.01
    middles = corners[flat].mean(axis=1)
    assert not (np.abs(middles[:, 1] + 120) < 0.8).any()  # the footway
    floor = np.count_nonzero(unchanged.plan.surface == Surface.FOREST_FLOOR) * 0.04
    assert seen_area(replace(unchanged.mesh, faces=unchanged.mesh.faces[canopy])) == pytest.approx(floor, rel=0.12)


def test_cars_park_clear_of_houses_trees_and_traffic(changed):
    spots = changed.parking_spots
    assert len(spots) > 20
    lower = changed.mesh.vertices[changed.mesh.faces[changed.mesh.material == Surface.BARK]].reshape(-1, 3)[:, :2]
    cars = shapely.points(spots[:, :2])
    assert not len(shapely.STRtree(shapely.points(lower)).query(cars, predicate="dwithin", distance=2.0)[0])
    cover = changed.plan.semantic[changed.plan.cells(spots[:, 0], spots[:, 1])]
    assert (cover == SemanticClass.ROAD).all()
    beds = shapely.buffer([LineString(road.line) for road in changed.roads],
                          [0.5 * road.width_m for road in changed.roads])
    assert not len(shapely.STRtree(beds).query(cars, predicate="intersects")[0])


def test_ways_lead_through_the_city(changed):
    assert {road.kind for road in changed.roads} == {"tertiary", "residential"}
    assert all(np.abs(road.line).max() <= 200 + 1e-6 for road in changed.roads)
    assert sum(np.linalg.norm(np.diff(road.line, axis=0), axis=1).sum() for road in changed.roads) == \
        pytest.approx(800, rel=0.02)
    assert len(changed.footways) >= 3  # the footway and both sidewalks
    assert changed.open_areas and all(area.is_valid and area.area > 60 for area in changed.open_areas)
    assert segments_of(np.array([LineString(line) for line in changed.footways], object)).shape[1:] == (2, 2)


def test_the_same_seed_builds_the_same_city(changed):
    again = city_from_features(town(), GRID, (400.0, 400.0), 11, 1.0)
    other = city_from_features(town(), GRID, (400.0, 400.0), 12, 1.0)
    for name in ("vertices", "faces", "material", "colour"):
        assert getattr(again.mesh, name).tobytes() == getattr(changed.mesh, name).tobytes()
    assert again.plan.surface.tobytes() == changed.plan.surface.tobytes()
    assert again.parking_spots.tobytes() == changed.parking_spots.tobytes()
    assert again.differences == changed.differences
    assert other.plan.surface.tobytes() != changed.plan.surface.tobytes()


def test_a_city_without_features_is_bare_ground():
    city = city_from_features(Features(GRID.crs), GRID, (300.0, 300.0), 1, 1.0)
    assert city.differences.buildings_mapped == 0 and city.roads == ()
    assert city.plan.surface.shape == (1500, 1500)
    assert set(np.unique(city.semantic)) <= {SemanticClass.VEGETATION, GROUND}


@pytest.fixture(scope="module")
def monaco(shared_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("map") / "monaco.tif"
    build_map(shared_data / "osm" / "monaco.osm.pbf", path)
    return path


def test_without_difference_the_plan_agrees_with_the_map(monaco):
    city = build_city(monaco, size_m=1000.0, seed=1, difference=0.0)
    with SemanticMap.open(monaco) as drawn:
        x, y = np.meshgrid(np.arange(-499.9, 500, 1.0), np.arange(-499.9, 500, 1.0))
        dx, dy = city.grid.easting_m - drawn.grid.easting_m, city.grid.northing_m - drawn.grid.northing_m
        mapped = drawn.class_at(x + dx, y + dy)
    seen = city.plan.semantic[city.plan.cells(x, y)]
    assert (mapped == seen)[mapped != NO_DATA].mean() >= 0.97


def test_areas_are_where_they_are_asked_for(monaco):
    city = build_city(monaco, centre=(43.7384, 7.4246), size_m=600.0, seed=2)
    assert city.bounds == (-300.0, -300.0, 300.0, 300.0)
    assert (city.latitude_deg, city.longitude_deg) == pytest.approx((43.7384, 7.4246), abs=2e-5)
    assert city.differences.buildings_removed == round(0.05 * city.differences.buildings_mapped)
    for fault, arguments in (("too small", {"size_m": 200.0}), ("outside", {"centre": (48.0, 16.0)}),
                             ("0 to 1", {"difference": 1.5})):
        with pytest.raises(CityError, match=fault):
            build_city(monaco, seed=1, **arguments)


def test_a_missing_map_is_named(tmp_path):
    with pytest.raises(ThermalReidError, match="nowhere.tif"):
        build_city(tmp_path / "nowhere.tif", seed=1)


def test_the_least_city_lies_within_its_map_though_places_are_drawn_by_cells(monaco, monkeypatch):
    monkeypatch.setattr("thermalreid_ros.world.city._well_built_place", lambda *_: (149.0, 500.0))
    west, south, east, north = build_city(monaco, size_m=300.0, seed=1).bounds
    assert (east - west, north - south) == (300.0, 300.0)
