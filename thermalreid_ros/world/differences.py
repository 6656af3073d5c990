"""How a world differs from the map it was made from: seeded, documented amounts, and what was done.

Maps are out of date and out of place, and their errors stay where they are. At difference 1 a world has the
amounts below; they scale with it, and at 0 the world is the map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import Area, Building, Features, Road
from thermalreid_ros.world.ground import FOOT_KINDS, along_line, waves

REMOVED_SHARE = 0.05  # of the buildings
ADDED_SHARE = 0.05
ALTERED_SHARE = 0.10  # extended or cut back
DISPLACEMENT_RMS_M = 1.5  # of a smooth field, per place; features move together
DISPLACEMENT_WAVELENGTH_M = (150.0, 300.0)
JITTER_RMS_M = 0.5  # of each group of touching buildings, on top
HEIGHT_RMS_SHARE = 0.10  # of the heights of buildings without parts on parts
ROAD_WIDTH_SHARE = 0.25  # road widths are 1 - this .. 1 + this of the map's
RECOVERED_SHARE = 0.10  # of meadows, fields and lawns bear something else


@dataclass(frozen=True)
class WorldDifferences:
    """What was done to one area. difference: 0..1. Counts are of features that touch the area; rms in metres."""

    difference: float
    buildings_mapped: int = 0
    buildings_removed: int = 0
    buildings_added: int = 0
    buildings_altered: int = 0
    height_rms_share: float = 0.0
    displacement_rms_m: float = 0.0
    jitter_rms_m: float = 0.0
    roads: int = 0
    road_width_rms_share: float = 0.0
    areas_changed: int = 0
    trees_mapped: int = 0
    trees_unmapped: int = 0
    hedges_unmapped: int = 0
    unmapped_ground_covered_share: float = 0.0
    relief_m: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Numbers by name, for JSON."""
        return {name: round(float(value), 4) if isinstance(value, float) else int(value)
                for name, value in dataclasses.asdict(self).items()}


def displace(features: Features, rng: np.random.Generator, difference: float) -> tuple[Features, float, float]:
    """Shift all features by one smooth field, and each group of touching buildings a little more.

    Returns the features and the rms of both shifts, of buildings, in metres.
    """
    if difference == 0:
        return features, 0.0, 0.0
    seeds = rng.integers(0, 2**63, 2)
    scale = DISPLACEMENT_RMS_M / np.sqrt(2.0) * difference

    def moved(points: np.ndarray) -> np.ndarray:
        shift = np.stack([waves(np.random.default_rng(seed), points[:, 0], points[:, 1], DISPLACEMENT_WAVELENGTH_M)
                          for seed in seeds], axis=1)
        return np.round(points + scale * shift, 3)

    def shapes(values: Sequence, densify: bool = True) -> np.ndarray:
        geometries = np.array(values, object)
        return shapely.transform(shapely.segmentize(geometries, 20.0) if densify else geometries, moved)

    # Maps of before may hold lines without a length, of which no segments can be made.
    features = dataclasses.replace(features, roads=[road for road in features.roads if road.line.length > 0.0],
                                   railways=[railway for railway in features.railways if railway.line.length > 0.0])
    roads = shapes([road.line for road in features.roads])
    areas = shapes([area.polygon for area in features.areas])
    railways = shapes([railway.line for railway in features.railways])
    points = np.array([(tree.x, tree.y) for tree in features.trees]).reshape(-1, 2)
    footprints = np.array([building.polygon for building in features.buildings], object)
    group = touching(footprints)
    shifts = np.round(rng.normal(0.0, JITTER_RMS_M / np.sqrt(2.0) * difference, (len(footprints), 2)), 3)[group]
    before, owner = shapely.get_coordinates(footprints, return_index=True)
    after = moved(before)
    field = np.sqrt(np.mean(np.sum((after - before) ** 2, axis=1))) if len(before) else 0.0
    footprints = shapely.set_coordinates(footprints.copy(), after + shifts[owner])
    areas = _mended(areas)
    footprints = np.array([max(shapely.get_parts(shape), key=shapely.area, default=shapely.Polygon())
                           for shape in _mended(footprints)], object)
    return Features(
        features.crs,
        tuple(dataclasses.replace(b, polygon=p) for b, p in zip(features.buildings, footprints)),
        tuple(dataclasses.replace(r, line=line) for r, line in zip(features.roads, roads)),
        tuple(dataclasses.replace(a, polygon=p) for a, p in zip(features.areas, areas)),
        tuple(dataclasses.replace(t, x=float(x), y=float(y)) for t, (x, y) in zip(features.trees, moved(points))),
        tuple(dataclasses.replace(r, line=line) for r, line in zip(features.railways, railways)),
    ), float(field), float(np.sqrt(np.mean(np.sum(shifts**2, axis=1)))) if len(shifts) else 0.0


def _mended(shapes: np.ndarray) -> np.ndarray:
    """Polygons (multipolygons where a narrow place has closed) again, after their vertices were moved."""
    for i in np.flatnonzero(~shapely.is_valid(shapes)):
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapes[i])))
        shapes[i] = shapely.multipolygons(parts[shapely.get_type_id(parts) == 3])
    return shapes


def touching(polygons: np.ndarray, distance_m: float = 0.2) -> np.ndarray:
    """For each polygon the lowest index among those it is joined to by touching neighbours, int64 (N,)."""
    return _lowest(len(polygons), *shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=distance_m))


def _lowest(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The lowest index of the connected component of each of count nodes; edges lead from a to b and back."""
    group = np.arange(count)
    while True:
        lower = group.copy()
        np.minimum.at(lower, a, group[b])
        lower = lower[lower]
        if (lower == group).all():
            return group
        group = lower


def alter_buildings(buildings: Sequence[Building], roads: Sequence[Road], closed: Sequence, box: shapely.Polygon,
                    rng: np.random.Generator, difference: float) -> tuple[list[Building], dict[str, float]]:
    """Buildings with some missing, some extended or cut back, all of slightly other heights, and some new within a box
    beside roads, off closed land (water, rails); and the figures of WorldDifferences."""
    count = len(buildings)
    draw, order = rng.random(count), rng.permutation(count)
    gone, wanted = round(count * REMOVED_SHARE * difference), round(count * ALTERED_SHARE * difference)
    group = touching(np.array([b.polygon for b in buildings], object), 0.01)
    joined = np.bincount(group, minlength=count)[group] > 1
    stacked = np.bincount(group, [b.min_height_m > 0 for b in buildings], count)[group] > 0
    stretch = np.where(stacked, 1.0, 1.0 + HEIGHT_RMS_SHARE * difference * np.clip(rng.standard_normal(count), -2, 2))
    tree = shapely.STRtree([b.polygon for b in buildings])
    changed: dict[int, shapely.Polygon] = {}
    for i in order[gone:]:
        if len(changed) == wanted:
            break
        shape = _altered(buildings[i].polygon, tree, i, draw[i], joined[i], rng)
        if shape is not None:
            changed[i] = shape
    removed = set(order[:gone].tolist())
    result = [dataclasses.replace(b, polygon=changed.get(i, b.polygon), height_m=round(b.height_m * stretch[i], 3))
              for i, b in enumerate(buildings) if i not in removed]
    new = _new_buildings(buildings, roads, closed, box, rng, round(count * ADDED_SHARE * difference))
    return result + new, {"buildings_mapped": count, "buildings_removed": gone,
                          "buildings_added": len(new), "buildings_altered": len(changed),
                          "height_rms_share": float(np.sqrt(np.mean((stretch - 1) ** 2))) if count else 0.0}


def _altered(polygon: shapely.Polygon, tree: shapely.STRtree, index: int, draw: float, joined: bool,
             rng: np.random.Generator) -> shapely.Polygon | None:
    """An annex on one side (four of ten: a piece cut off an end); None where there is no room for it."""
    ring = shapely.get_coordinates(polygon.exterior)
    edges = np.diff(ring, axis=0)
    lengths = np.linalg.norm(edges, axis=1)
    sides = rng.random((4, 3))
    if draw < 0.4:
        corners = shapely.get_coordinates(shapely.oriented_envelope(polygon))
        if len(corners) == 5:
            side = int(sides[0, 0] * 4)
            a, b, c = corners[side], corners[side + 1], corners[(side + 2) % 4]
            depth = (0.12 + 0.2 * sides[0, 1]) * (c - b)
            cut = polygon.difference(shapely.Polygon([a, b, b + depth, a + depth]).buffer(0.01, join_style="mitre"))
            return cut if cut.geom_type == "Polygon" and cut.area > 12.0 else None
        return None
    others = tree.geometries
    for first, second, third in sides:
        edge = int(np.searchsorted(np.cumsum(lengths), first * lengths.sum()))
        if lengths[edge] < 3.0:
            continue
        along = edges[edge] / lengths[edge]
        out = np.array([along[1], -along[0]]) * (1 if polygon.exterior.is_ccw else -1)
        width = min(lengths[edge], 3.0 + 5.0 * second)
        a = ring[edge] + along * (lengths[edge] - width) * third
        annex = shapely.Polygon([a - 0.05 * out, a + along * width - 0.05 * out,
                                 a + along * width + (2.5 + 3.5 * second) * out, a + (2.5 + 3.5 * second) * out])
        near = tree.query(annex, predicate="dwithin", distance=0.0 if joined else 1.0)
        if any(other != index and others[other].intersection(annex).area > 0.01 for other in near):
            continue
        merged = polygon.union(annex, grid_size=1e-3)
        if merged.geom_type == "Polygon":
            return merged
    return None


def _new_buildings(buildings: Sequence[Building], roads: Sequence[Road], closed: Sequence, box: shapely.Polygon,
                   rng: np.random.Generator, wanted: int) -> list[Building]:
    """Copies of the area's own detached houses, set along roads where there is room."""
    models = [b for b in buildings if 40.0 < b.polygon.area < 600.0 and b.min_height_m == 0 and
              not b.polygon.interiors]
    streets = [road for road in roads if road.kind not in FOOT_KINDS and not road.bridge and
               road.line.length > 10.0 and road.line.intersects(box)]
    if not (wanted and models and streets):
        return []
    lines = np.array([road.line for road in streets], object)
    lengths = shapely.length(lines)
    tries = 30 * wanted
    street = rng.choice(len(streets), tries, p=lengths / lengths.sum())
    here, tangent = along_line(lines[street], rng.uniform(0, lengths[street]))
    side, gap = rng.choice((-1.0, 1.0), tries), rng.uniform(3.0, 15.0, tries)
    model = rng.integers(0, len(models), tries)
    blocked = [b.polygon for b in buildings] + [road.line.buffer(0.5 * road.width_m + 1.0) for road in roads] + \
        list(closed)
    tree = shapely.STRtree(blocked)
    result: list[Building] = []
    for i in range(tries):
        if len(result) == wanted:
            break
        shape = models[model[i]].polygon
        corners = shapely.get_coordinates(shapely.oriented_envelope(shape))
        along = corners[1] - corners[0]
        c, s = (tangent[i] @ along, along[0] * tangent[i, 1] - along[1] * tangent[i, 0]) / np.linalg.norm(along)
        turned = shapely.transform(shape, lambda p: (p - corners[:4].mean(axis=0)) @ np.array([[c, s], [-s, c]]))
        depth = np.abs(shapely.get_coordinates(turned) @ np.array([-tangent[i, 1], tangent[i, 0]])).max()
        offset = side[i] * (0.5 * streets[street[i]].width_m + gap[i] + depth)
        middle = here[i] + offset * np.array([-tangent[i, 1], tangent[i, 0]])
        placed = shapely.transform(turned, lambda p: np.round(p + middle, 3))
        if not box.contains(placed) or len(tree.query(placed, predicate="dwithin", distance=2.0)) or \
                any(placed.distance(other.polygon) < 3.0 for other in result):
            continue
        result.append(dataclasses.replace(models[model[i]], polygon=placed))
    return result


def alter_roads(roads: Sequence[Road], rng: np.random.Generator, difference: float) -> tuple[list[Road], float]:
    """Roads of other widths, one factor along each road; and the rms of the factors' distance from 1."""
    factors = 1.0 + difference * rng.uniform(-ROAD_WIDTH_SHARE, ROAD_WIDTH_SHARE, len(roads))[_chains(roads)]
    rms = float(np.sqrt(np.mean((factors - 1) ** 2))) if len(roads) else 0.0
    return [dataclasses.replace(road, width_m=round(road.width_m * factor, 3))
            for road, factor in zip(roads, factors)], rms


def _chains(roads: Sequence[Road]) -> np.ndarray:
    """For each road the lowest index among those it runs on into, int64 (N,): ways of its kind and width, at ends where
    no other of them ends. OpenStreetMap cuts streets wherever a tag changes."""
    sorts = sorted({(road.kind, road.width_m) for road in roads})
    rows = [(*end, sorts.index((road.kind, road.width_m))) for road in roads
            for end in (road.line.coords[0], road.line.coords[-1])]
    _, place, count = np.unique(np.round(np.array(rows).reshape(-1, 3) * 100).astype(np.int64), axis=0,
                                return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    ends = np.argsort(place, kind="stable")
    a, b = (ends[count[place[ends]] == 2] // 2).reshape(-1, 2).T
    return _lowest(len(roads), np.concatenate([a, b]), np.concatenate([b, a]))


_SUCCESSORS = {"meadow": ("farmland", "scrub", "bare"), "farmland": ("bare", "meadow"), "grass": ("bare", "scrub"),
               "scrub": ("meadow", "forest"), "forest": ("scrub",), "garden": ("grass", "bare"),
               "orchard": ("meadow",), "vineyard": ("meadow",)}


def alter_areas(areas: Sequence[Area], rng: np.random.Generator, difference: float) -> tuple[list[Area], int]:
    """Areas, some of which bear something else by now (fields lie bare, meadows grow over); and how many."""
    draw = rng.random((len(areas), 2))
    result, changed = [], 0
    for area, (first, second) in zip(areas, draw):
        options = _SUCCESSORS.get(area.kind, ())
        if options and first < RECOVERED_SHARE * difference:
            kind = options[int(second * len(options))]
            area = dataclasses.replace(area, kind=kind, semantic=SemanticClass.GROUND if kind == "bare"
                                       else SemanticClass.VEGETATION)
            changed += 1
        result.append(area)
    return result, changed
