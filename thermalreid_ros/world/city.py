"""The static city: what a map says, as it stands, grows and lies there, with the errors that maps have.

World metres: x east, y north, z up, on the map's grid, with the origin in the middle of the area.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import shapely

from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import Features, features_path, read_features
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.world.buildings import Objects, make_buildings, underside
from thermalreid_ros.world.differences import (WorldDifferences, alter_areas, alter_buildings, alter_roads, displace)
from thermalreid_ros.world.ground import (GROUND, GroundPlan, PlanPainter, Relief, code, find_junctions, make_relief,
                                          paint_areas, paint_driveways, paint_markings, paint_railways,
                                          paint_roads, paint_unmapped)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh
from thermalreid_ros.world.streets import RoadLine, car_parks, draw_sidewalks, foot_lines, kerbside, road_lines
from thermalreid_ros.world.vegetation import (avenue_trees, hedge_lines, make_canopy, make_hedges, make_trees, plant,
                                              scattered_trees, yard_trees)

__all__ = ["GROUND", "City", "CityError", "build_city", "city_from_features"]

MIN_SIZE_M = 300.0
_OVERVIEW_PX = 1500  # of the map that places are chosen on
_STEP_M = 10.0  # sides of areas are whole multiples of it
_MARGIN_M = 30.0  # of features around an area
_DRIVEWAY_SHARE = 0.4  # of houses whose way to the street the map leaves out
_HEDGED_SHARE = 0.1  # of the borders of unmapped lawns
_OPEN_KINDS = frozenset({"square", "park", "grass", "pitch", "playground", "garden", "meadow", "sand", "school"})


class CityError(ThermalReidError):
    """An area that no city can be built on."""


@dataclass(frozen=True, eq=False)
class City:
    """A town that stands still, to be seen and populated.

    grid: where on the map's grid the origin lies. bounds: (x_min, y_min, x_max, y_max) of the area.
    mesh: all triangles; those of the terrain have material GROUND, and plan says what covers them. semantic: uint8
    (F,), SemanticClass of each face, GROUND (255) on the terrain. object_id: int32 (F,), the building, tree or
    wood of each face, -1 on the terrain; object_base_z: float32 (O,), the ground that it stands on; object_seed:
    uint32 (O,). relief: the terrain's heights. roads, footways: lines for traffic and persons. parking_spots:
    float64 (P, 3) of x, y, yaw_rad. open_areas: polygons where persons and dogs roam. differences: what is not as
    in the map.
    """

    grid: LocalGrid
    bounds: tuple[float, float, float, float]
    seed: int
    latitude_deg: float
    longitude_deg: float
    mesh: Mesh
    semantic: np.ndarray
    object_id: np.ndarray
    object_base_z: np.ndarray
    object_seed: np.ndarray
    plan: GroundPlan
    relief: Relief
    roads: tuple[RoadLine, ...]
    footways: tuple[np.ndarray, ...]
    parking_spots: np.ndarray
    open_areas: tuple[shapely.Polygon, ...]
    differences: WorldDifferences


def build_city(map_path: str | Path, *, centre: tuple[float, float] | None = None, size_m: float = 2000.0, seed: int,
               difference: float = 1.0) -> City:
    """The city on a square of a map, clipped to the map.

    centre: (latitude_deg, longitude_deg) of the square; None picks one of the map's well built places by the seed.
    difference: 0 (the map as it is) to 1 (the amounts in differences.py). Raises CityError where the area is too
    small or outside of the map, MapError or FeaturesError where the map cannot be read.
    """
    if not 0.0 <= difference <= 1.0:
        raise CityError(f"a difference of {difference:g} from the map; it goes from 0 to 1")
    if not size_m >= MIN_SIZE_M:
        raise CityError(f"an area of {size_m:g} m is too small for a city; ask for {MIN_SIZE_M:g} m or more")
    with SemanticMap.open(map_path) as town:
        grid, (_, _, right_m, upper_m) = town.grid, town.bounds
        classes, _ = town.overview(_OVERVIEW_PX) if centre is None else (None, None)
    features = read_features(features_path(map_path))
    if classes is not None:
        houses = shapely.centroid(np.array([building.polygon for building in features.buildings], object))
        places = shapely.get_coordinates(houses) - (grid.easting_m, grid.northing_m)
        x, y = _well_built_place(classes == NO_DATA, places, (right_m, upper_m), size_m,
                                 np.random.default_rng(np.random.SeedSequence([seed, 0])))
        half = 0.5 * size_m  # places are drawn by cells, so that a part of one may lie outside
        if min(min(v + half, end) - max(v - half, 0.0) for v, end in ((x, right_m), (y, upper_m))) < MIN_SIZE_M:
            x, y = (float(np.clip(v, half, max(end - half, half))) for v, end in ((x, right_m), (y, upper_m)))
    else:
        x, y = (float(v) for v in grid.from_geographic(*centre))
        if not (0 <= x <= right_m and 0 <= y <= upper_m):
            raise CityError(f"{centre[0]:.5f}, {centre[1]:.5f} is outside of {map_path}; choose a centre within it")
    left, right = max(x - 0.5 * size_m, 0.0), min(x + 0.5 * size_m, right_m)
    lower, upper = max(y - 0.5 * size_m, 0.0), min(y + 0.5 * size_m, upper_m)
    width, height = (float(np.floor((b - a) / _STEP_M + 1e-6) * _STEP_M) for a, b in ((left, right), (lower, upper)))
    if min(width, height) < MIN_SIZE_M:
        raise CityError(f"{map_path}: only {right - left:.0f} x {upper - lower:.0f} m lie within {0.5 * size_m:.0f} m "
                        f"of the centre; a city needs {MIN_SIZE_M:g} m each way: move the centre or take a larger map")
    origin = LocalGrid(grid.crs, grid.easting_m + round(0.5 * (left + right)),
                       grid.northing_m + round(0.5 * (lower + upper)))
    return city_from_features(features, origin, (width, height), seed, difference)


def _well_built_place(unmapped: np.ndarray, houses: np.ndarray, map_size_m: tuple[float, float], size_m: float,
                      rng: np.random.Generator) -> tuple[float, float]:
    """The middle, in metres from the map's lower left corner, of a square with hardly any unmapped cells and many
    houses, drawn among the best. unmapped: bool, the whole map, row 0 in the north; houses: their places (N, 2)."""
    rows, columns = unmapped.shape
    cell_x, cell_y = map_size_m[0] / columns, map_size_m[1] / rows
    wide, high = min(columns, round(size_m / cell_x)), min(rows, round(size_m / cell_y))
    count = np.zeros((rows, columns))
    np.add.at(count, (np.clip(rows - 1 - (houses[:, 1] // cell_y).astype(np.int64), 0, rows - 1),
                      np.clip((houses[:, 0] // cell_x).astype(np.int64), 0, columns - 1)), 1.0)
    sums = (cv2.integral(cells.astype(np.float64)) for cells in (unmapped, count))
    missing, built = (s[high:, wide:] - s[:-high, wide:] - s[high:, :-wide] + s[:-high, :-wide] for s in sums)
    score = np.where(missing <= missing.min() + 0.01 * wide * high, built, -1.0)
    r, c = np.nonzero(score >= 0.75 * score.max())
    pick = int(rng.integers(len(r)))
    return (c[pick] + 0.5 * wide) * cell_x, map_size_m[1] - (r[pick] + 0.5 * high) * cell_y


def city_from_features(features: Features, grid: LocalGrid, size_m: tuple[float, float], seed: int,
                       difference: float) -> City:
    """The city of features in map metres, on an area of size_m (east, north) about the origin of a grid."""
    bounds = (-0.5 * size_m[0], -0.5 * size_m[1], 0.5 * size_m[0], 0.5 * size_m[1])
    box = shapely.box(*bounds)
    streams = (np.random.default_rng(child) for child in np.random.SeedSequence([seed, 1]).spawn(16))
    latitude, longitude = (float(v) for v in grid.to_geographic(0.0, 0.0))
    around = tuple(b + s * _MARGIN_M + o for b, s, o in
                   zip(bounds, (-1, -1, 1, 1), (grid.easting_m, grid.northing_m) * 2))
    features, field_rms, jitter_rms = displace(_shifted(features.clipped(around), grid), next(streams), difference)

    water = [area.polygon for area in features.areas if area.semantic == SemanticClass.WATER]
    areas, areas_changed = alter_areas(features.areas, next(streams), difference)
    roads, width_rms = alter_roads([road for road in features.roads if not road.tunnel], next(streams), difference)
    rails = [railway.line.buffer(railway.width_m) for railway in features.railways]
    mapped = [building for building in features.buildings if box.intersects(building.polygon)]
    buildings, counts = alter_buildings(mapped, roads, [*water, *rails], box, next(streams), difference)
    shapes = np.array([building.polygon for building in buildings], object)
    relief = make_relief(bounds, water, next(streams), difference)
    sidewalks_m = draw_sidewalks(roads, shapes, next(streams), difference)
    junctions = find_junctions(roads)
    beds = shapely.buffer(np.array([road.line for road in roads], object),
                          [0.5 * road.width_m for road in roads], quad_segs=4)
    bays, bay_marks = car_parks(areas, shapes, beds)
    rng = next(streams)
    kerb, strips = kerbside(roads, junctions, np.concatenate([shapes, np.array([*water, *rails], object)]), rng) \
        if difference > 0 else (np.zeros((0, 3)), np.zeros(0, object))
    spots = np.concatenate([bays, kerb])

    painter = PlanPainter(bounds)
    covered, borders = _paint_layers(painter, features, areas, roads, sidewalks_m, shapes, strips, next(streams),
                                     difference)
    paint_markings(painter, roads, junctions, next(streams))
    painter.segments(bay_marks, code(Surface.ROAD_PAINT, SemanticClass.ROAD))
    rng = next(streams)
    wild = np.concatenate([scattered_trees(areas, rng), yard_trees(painter, shapes, rng),
                           avenue_trees(roads, sidewalks_m, rng)])
    standing = [building.polygon for building in buildings if underside(building) < 1.5]
    painter.polygons(standing, code(Surface.CONCRETE, SemanticClass.BUILDING))
    trees, trees_unmapped = plant(features.trees, wild[rng.random(len(wild)) < difference], painter, shapes, spots,
                                  rng, latitude)
    hedges = hedge_lines(borders, np.concatenate([shapes, beds, strips]), rng, _HEDGED_SHARE * difference)
    mapped_hedges = np.array([area.polygon for area in areas if area.kind == "hedge"], object)
    parts = [make_buildings(buildings, relief, next(streams), latitude), make_trees(trees, relief, next(streams)),
             make_hedges(np.concatenate([mapped_hedges, hedges]), relief, next(streams)),
             make_canopy(areas, painter, relief, next(streams))]
    classes = (SemanticClass.BUILDING, *(SemanticClass.VEGETATION,) * 3)
    mesh, semantic, object_id, base_z, object_seed = _joined(relief.mesh(), parts, classes)
    spots = spots[(np.abs(spots[:, 0]) < bounds[2] - 3) & (np.abs(spots[:, 1]) < bounds[3] - 3)]
    open_areas = shapely.intersection(np.array([area.polygon for area in areas if area.kind in _OPEN_KINDS], object),
                                      shapely.buffer(box, -2.0))
    open_areas = tuple(p for p in shapely.get_parts(open_areas) if p.geom_type == "Polygon" and p.area > 60.0)
    return City(grid, bounds, seed, latitude, longitude, mesh, semantic, object_id, base_z, object_seed,
                painter.plan(), relief, tuple(road_lines(roads, box)),
                tuple(foot_lines(roads, sidewalks_m, box)), spots, open_areas,
                WorldDifferences(difference=float(difference), **counts, displacement_rms_m=field_rms,
                                 jitter_rms_m=jitter_rms, roads=len(roads), road_width_rms_share=width_rms,
                                 areas_changed=areas_changed, trees_mapped=len(trees.xy) - trees_unmapped,
                                 trees_unmapped=trees_unmapped, hedges_unmapped=len(hedges),
                                 unmapped_ground_covered_share=covered,
                                 relief_m=float(relief.heights.max())))


def _paint_layers(painter: PlanPainter, features: Features, areas: list, roads: list, sidewalks_m: np.ndarray,
                  buildings: np.ndarray, strips: np.ndarray, rng: np.random.Generator,
                  difference: float) -> tuple[float, np.ndarray]:
    """Draw ground, rails and roads layer by layer, as the map is drawn. Returns what paint_unmapped does."""
    levels = [np.array([max(item.layer, 0) for item in items], np.int64)
              for items in (areas, features.railways, roads)]
    found = 0.0, np.zeros((0, 2, 2))
    for level in np.unique(np.concatenate([*levels, [0]])):
        on_areas, on_rails, on_roads = (np.flatnonzero(of == level) for of in levels)
        paint_areas(painter, [areas[i] for i in on_areas], rng)
        if level == 0:
            found = paint_unmapped(painter, buildings, rng, difference)
            paint_driveways(painter, buildings, roads, rng, _DRIVEWAY_SHARE * difference)
        paint_railways(painter, [features.railways[i] for i in on_rails])
        paint_roads(painter, [roads[i] for i in on_roads], sidewalks_m[on_roads],
                    strips if level == 0 else strips[:0], rng)
    return found


def _shifted(features: Features, grid: LocalGrid) -> Features:
    """Features in world metres, to the millimetre."""
    origin = np.array([grid.easting_m, grid.northing_m])

    def moved(name: str, attribute: str) -> tuple:
        items = getattr(features, name)
        shapes = shapely.transform(np.array([getattr(item, attribute) for item in items], object),
                                   lambda p: np.round(p - origin, 3))
        return tuple(replace(item, **{attribute: shape}) for item, shape in zip(items, shapes))

    return Features(features.crs, moved("buildings", "polygon"), moved("roads", "line"), moved("areas", "polygon"),
                    tuple(replace(tree, x=round(tree.x - origin[0], 3), y=round(tree.y - origin[1], 3))
                          for tree in features.trees), moved("railways", "line"))


def _joined(terrain: Mesh, parts: list[Objects], classes: tuple[SemanticClass, ...]) -> tuple:
    count = len(terrain.faces)
    semantic, ids, first = [np.full(count, GROUND, np.uint8)], [np.full(count, -1, np.int32)], 0
    for part, value in zip(parts, classes):
        semantic.append(np.full(len(part.object_id), value, np.uint8))
        ids.append(part.object_id + np.int32(first))
        first += len(part.base_z)
    return (Mesh.joined([terrain, *(part.mesh for part in parts)]), np.concatenate(semantic), np.concatenate(ids),
            np.concatenate([part.base_z for part in parts]), np.concatenate([part.seed for part in parts]))

