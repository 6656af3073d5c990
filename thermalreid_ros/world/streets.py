"""Where traffic goes and stands: carriageways, footways, sidewalks, parking places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from thermalreid_ros.maps.features import Area, Road
from thermalreid_ros.world.ground import FOOT_KINDS, STREET_KINDS, Junctions, along_line

SIDEWALK_M = 1.5  # where the map says that a road has sidewalks
BAY_M = (2.5, 5.0)  # width and length of a bay in a car park
KERB_BAY_M = (2.1, 6.0)  # width of a kerbside strip, and its length for each car


@dataclass(frozen=True, eq=False)
class RoadLine:
    """A carriageway along its middle line, float64 (N, 2), in the direction of oneway traffic. width_m: between
    kerbs. kind: highway=*. bridge: passes over what it crosses."""

    line: np.ndarray
    width_m: float
    lanes: int
    kind: str
    oneway: bool
    bridge: bool


def road_lines(roads: Sequence[Road], box: shapely.Polygon) -> list[RoadLine]:
    """The carriageways within a box, cut where they leave it; without tunnels and footways."""
    chosen = [road for road in roads if road.kind not in FOOT_KINDS]
    return [RoadLine(shapely.get_coordinates(piece), road.width_m, road.lanes, road.kind, road.oneway, road.bridge)
            for road, piece in _pieces(chosen, [road.line for road in chosen], box)]


def foot_lines(roads: Sequence[Road], sidewalks_m: np.ndarray, box: shapely.Polygon) -> list[np.ndarray]:
    """Lines for persons, float64 (N, 2): footways, paths, and the middle of each sidewalk."""
    ways = [road.line for road in roads if road.kind in FOOT_KINDS]
    beside = [(road.line, 0.5 * (road.width_m + wide)) for road, wide in zip(roads, sidewalks_m) if wide > 0]
    lines = np.array([line for line, _ in beside], object)
    shift = np.array([offset for _, offset in beside])
    walks = [part for side in (-1.0, 1.0) if len(lines)
             for part in shapely.get_parts(shapely.offset_curve(lines, side * shift))]
    return [shapely.get_coordinates(piece) for _, piece in _pieces(ways + walks, ways + walks, box)]


def _pieces(owners: Sequence, lines: Sequence, box: shapely.Polygon) -> list[tuple]:
    cut = shapely.intersection(np.array(lines, object), box)
    parts, owner = shapely.get_parts(cut, return_index=True)
    keep = (shapely.get_type_id(parts) == 1) & (shapely.length(parts) > 2.0)
    return [(owners[i], part) for i, part in zip(owner[keep], parts[keep])]


def draw_sidewalks(roads: Sequence[Road], buildings: np.ndarray, rng: np.random.Generator,
                   difference: float) -> np.ndarray:
    """The width of the sidewalks of each road in metres, 0 for none: the map's, and on most streets between houses
    ones that the map leaves out."""
    draw = rng.random((len(roads), 2))
    lines = np.array([road.line for road in roads], object)
    urban = np.zeros(len(roads), bool)
    if len(buildings) and len(roads):
        urban[np.unique(shapely.STRtree(buildings).query(lines, predicate="dwithin", distance=20.0)[0])] = True
    widths = np.zeros(len(roads))
    for i, road in enumerate(roads):
        if road.kind in FOOT_KINDS:
            continue
        if road.sidewalk:
            widths[i] = SIDEWALK_M
        elif road.kind in STREET_KINDS and urban[i] and draw[i, 0] < 0.55 * difference:
            widths[i] = 1.3 + 0.9 * draw[i, 1]
    return widths


def _rectangles(middle: np.ndarray, axis: np.ndarray, length_m, width_m) -> np.ndarray:
    """Rectangles about points (N, 2), length along axis (N, 2)."""
    u, v = axis * 0.5 * length_m, np.stack([-axis[:, 1], axis[:, 0]], axis=1) * 0.5 * width_m
    return shapely.polygons(np.stack([middle - u - v, middle + u - v, middle + u + v, middle - u + v], axis=1))


def car_parks(areas: Sequence[Area], obstacles: np.ndarray, aisles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bays in rows of car parks: (spots float64 (P, 3) of x, y, yaw; the lines painted between them (M, 2, 2)).

    obstacles: buildings; aisles: carriageways of roads that cross car parks.
    """
    parks = np.array([area.polygon for area in areas if area.kind == "parking" and area.layer <= 0], object)
    spots, marks = [np.zeros((0, 3))], [np.zeros((0, 2, 2))]
    trees = [shapely.STRtree(shapes) for shapes in (obstacles, aisles)]
    for park in parks:
        corners = shapely.get_coordinates(shapely.oriented_envelope(park))
        if len(corners) != 5:
            continue
        edges = np.diff(corners[:3], axis=0)
        sides = np.linalg.norm(edges, axis=1)
        long = int(np.argmax(sides))
        axis, length, width = edges[long] / sides[long], sides[long], sides[1 - long]
        across = np.array([-axis[1], axis[0]])
        middle = corners[:4].mean(axis=0)
        if park.area < 22.0:  # bays that are mapped one by one
            s, t, facing = np.zeros(1), np.zeros(1), axis
        else:
            rows = np.arange(0, 60)
            rows = 0.3 + 0.5 * BAY_M[1] + 16.0 * (rows // 2) + 11.0 * (rows % 2)
            rows = rows[rows < width - 0.5 * BAY_M[1] + 0.2] - 0.5 * width
            columns = np.arange(0.3 + 0.5 * BAY_M[0], length - 0.5 * BAY_M[0], BAY_M[0]) - 0.5 * length
            s, t = (v.ravel() for v in np.meshgrid(columns, rows))
            facing = across
        places = middle + s[:, None] * axis + t[:, None] * across
        bays = _rectangles(places, np.broadcast_to(facing, places.shape), BAY_M[1], BAY_M[0])
        free = shapely.covers(shapely.buffer(park, 0.4), bays)
        for tree, distance in zip(trees, (0.5, 0.0)):
            free[np.unique(tree.query(bays, predicate="dwithin", distance=distance)[0])] = False
        if park.area >= 22.0 and free.any():
            u, v = 0.5 * BAY_M[0] * axis, 0.5 * BAY_M[1] * across
            left, right = places[free] - u, places[free] + u
            marks += [np.stack([edge - v, edge + v], axis=1) for edge in (left, right)]
        yaw = np.arctan2(facing[1], facing[0]) + np.where(np.arange(len(places)) % 3 == 0, np.pi, 0.0)
        spots.append(np.column_stack([places, yaw])[free])
    return np.concatenate(spots), np.concatenate(marks)


def kerbside(roads: Sequence[Road], junctions: Junctions, obstacles: np.ndarray, rng: np.random.Generator
             ) -> tuple[np.ndarray, np.ndarray]:
    """Parking along the kerbs of streets: (spots float64 (P, 3) of x, y, yaw; the strips they stand on).

    A strip lies beside the carriageway and ends before junctions; it is left out where an obstacle (a building,
    another carriageway, water, rails) is in its way.
    """
    streets = [i for i, road in enumerate(roads) if road.kind in ("residential", "tertiary", "unclassified",
                                                                  "secondary", "living_street")
               and not road.bridge and road.line.length > 25.0]
    used = rng.random((len(streets), 2)) < 0.45
    places, axes, owners = [np.zeros((0, 2))], [np.zeros((0, 2))], [np.zeros(0, np.int64)]
    for (side, column) in ((-1.0, 0), (1.0, 1)):
        chosen = np.array([i for i, use in zip(streets, used[:, column]) if use], np.int64)
        lines = np.array([roads[i].line for i in chosen], object)
        counts = np.floor((shapely.length(lines) - 8.0) / KERB_BAY_M[1]).astype(np.int64) if len(chosen) else \
            np.zeros(0, np.int64)
        owner = np.repeat(np.arange(len(chosen)), counts)
        if not len(owner):
            continue
        along = 4.0 + KERB_BAY_M[1] * (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5)
        here, tangent = along_line(lines[owner], along)
        offset = np.array([0.5 * (roads[i].width_m + KERB_BAY_M[0]) for i in chosen])[owner]
        # Right-hand traffic: cars face along the road on its right side, and against it on its left.
        places.append(here + side * offset[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1))
        axes.append(-side * tangent)
        owners.append(chosen[owner])
    place, axis, owner = np.concatenate(places), np.concatenate(axes), np.concatenate(owners)
    strips = _rectangles(place, axis, KERB_BAY_M[1] + 0.05, KERB_BAY_M[0])
    free = np.ones(len(place), bool)
    if len(obstacles) and len(strips):
        free[np.unique(shapely.STRtree(obstacles).query(strips, predicate="dwithin", distance=0.6)[0])] = False
    carriageways = shapely.buffer(np.array([road.line for road in roads], object),
                                  [0.5 * road.width_m - 0.1 for road in roads], quad_segs=4)
    if len(strips):
        inner = _rectangles(place, axis, KERB_BAY_M[1] - 0.2, KERB_BAY_M[0] - 0.4)
        mine, other = shapely.STRtree(carriageways).query(inner, predicate="intersects")
        free[mine[(other >= 0)]] = False
        corners = shapely.buffer(shapely.points(junctions.points), junctions.radius_m + 4.0, quad_segs=4)
        free[np.unique(shapely.STRtree(corners).query(strips, predicate="intersects")[0])] = False
    spots = np.column_stack([place, np.arctan2(axis[:, 1], axis[:, 0])])
    return spots[free], strips[free]
