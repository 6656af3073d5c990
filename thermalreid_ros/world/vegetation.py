"""Trees, woods, scrub and hedges.

Single trees are a trunk and a crown of a few dozen triangles, shaken so that no two are alike. Woods and scrub are
one bumpy canopy over the cells of the plan that they cover, closed down to the ground at its edges: roads and
clearings that the plan shows stay open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import Area, Road, Tree
from thermalreid_ros.world.buildings import Objects, Plans, blocks, footprints, linear, triangulate
from thermalreid_ros.world.ground import (PLAN_RESOLUTION_M, STREET_KINDS, YARD_M, PlanPainter, Relief, along_line,
                                          code)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

CANOPY_STEP_M = 2.5
_CROWN_M = 5.5  # between the crowns of woods
_CANOPY_FACES = 500_000  # at most about as many; larger woods get a coarser canopy
BROADLEAVED, NEEDLELEAVED = 0, 1
# kind -> (lowest, highest) canopy in metres.
CANOPIES = {"forest": (9.0, 19.0), "scrub": (1.2, 3.5), "hedge": (1.2, 2.2)}
# Trees per hectare of areas that have some.
_DENSITY = {"park": 45.0, "garden": 50.0, "cemetery": 35.0, "orchard": 160.0, "grass": 7.0, "meadow": 3.0,
            "wetland": 10.0, "residential": 7.0, "playground": 25.0, "school": 12.0, "parking": 8.0, "square": 6.0}
_YARD_DENSITY = (45.0, 4.0)  # per hectare of unmapped lawn, near buildings and far from them
_AVENUE_SHARE = 0.08  # of streets have a row of trees that the map leaves out
_TREE_HEIGHTS_M = (4.0, 13.0)
_FOLIAGE = linear([(84, 112, 52), (70, 100, 44), (100, 122, 60), (62, 88, 46), (112, 128, 66), (78, 104, 66)])
_NEEDLES = linear([(52, 74, 46), (44, 66, 44), (60, 84, 56)])
_BARK = linear([(96, 80, 64), (116, 100, 82), (80, 68, 56)])


@dataclass(frozen=True, eq=False)
class Trees:
    """Single trees: xy float64 (N, 2), height and crown radius (N,), kind (N,) BROADLEAVED or NEEDLELEAVED."""

    xy: np.ndarray
    height_m: np.ndarray
    radius_m: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, xy: np.ndarray, height_m: np.ndarray, kind: np.ndarray, rng: np.random.Generator) -> Trees:
        """Crowns in proportion to heights: slim where needles grow."""
        share = np.where(kind == NEEDLELEAVED, rng.uniform(0.16, 0.24, len(xy)), rng.uniform(0.26, 0.42, len(xy)))
        return cls(xy, height_m, np.clip(share * height_m, 0.8, 6.5), kind)

    def take(self, chosen: np.ndarray) -> Trees:
        return Trees(self.xy[chosen], self.height_m[chosen], self.radius_m[chosen], self.kind[chosen])


def scattered_trees(areas: list[Area], rng: np.random.Generator) -> np.ndarray:
    """Places (N, 2) of trees that the map leaves out: in parks and gardens, and in the rows of orchards."""
    places = [np.zeros((0, 2))]
    for area in areas:
        if area.kind not in _DENSITY:
            continue
        x_min, y_min, x_max, y_max = area.polygon.bounds
        step = np.sqrt(1e4 / _DENSITY[area.kind])
        jitter = 0.06 if area.kind == "orchard" else 0.5
        x, y = np.meshgrid(np.arange(x_min, x_max, step) + 0.5 * step, np.arange(y_min, y_max, step) + 0.5 * step)
        points = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-jitter, jitter, (x.size, 2)) * step
        shapely.prepare(area.polygon)
        places.append(points[shapely.contains_xy(area.polygon, points[:, 0], points[:, 1])])
    return np.concatenate(places)


def yard_trees(painter: PlanPainter, buildings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places (N, 2) of trees on unmapped lawns and soil: many near buildings, few elsewhere."""
    x_min, y_min, x_max, y_max = painter.bounds
    count = round(_YARD_DENSITY[0] * 1e-4 * (x_max - x_min) * (y_max - y_min))
    points = np.stack([rng.uniform(x_min, x_max, count), rng.uniform(y_min, y_max, count)], axis=1)
    near = np.zeros(count, bool)
    near[np.unique(shapely.STRtree(buildings).query(shapely.points(points), predicate="dwithin",
                                                    distance=YARD_M)[0])] = True
    codes = painter.codes_at(points[:, 0], points[:, 1])
    green = np.isin(codes, [code(surface, SemanticClass.VEGETATION) for surface in (Surface.GRASS, Surface.DRY_GRASS)])
    soil = codes == code(Surface.SOIL, SemanticClass.GROUND)
    draw = rng.random(count)
    share = np.where(near, np.where(green, 1.0, np.where(soil, 0.35, 0.0)),
                     np.where(green | soil, _YARD_DENSITY[1] / _YARD_DENSITY[0], 0.0))
    return points[draw < share]


def avenue_trees(roads: list[Road], sidewalks_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places (N, 2) of rows of trees behind the kerbs of some streets."""
    chosen = np.flatnonzero(np.array([road.kind in STREET_KINDS for road in roads], bool) &
                            (rng.random(len(roads)) < _AVENUE_SHARE))
    if not len(chosen):
        return np.zeros((0, 2))
    lines = np.array([roads[i].line for i in chosen], object)
    spacing = rng.uniform(8.0, 15.0, len(chosen))
    counts = (shapely.length(lines) / spacing).astype(np.int64)
    owner = np.repeat(np.arange(len(chosen)), counts)
    along = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) * spacing[owner]
    here, tangent = along_line(lines[owner], along)
    offset = np.array([0.5 * roads[i].width_m + sidewalks_m[i] + 0.9 for i in chosen])[owner]
    side = np.where(rng.random(len(chosen)) < 0.5, -1.0, 1.0)[owner]
    return here + (side * offset)[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def plant(mapped: Sequence[Tree], wild: np.ndarray, painter: PlanPainter, buildings: np.ndarray, spots: np.ndarray,
          rng: np.random.Generator, latitude_deg: float) -> tuple[Trees, int]:
    """The map's trees, and those at wild places (N, 2) where there is room: (trees, how many of them are wild)."""
    x_min, y_min, x_max, y_max = painter.bounds
    xy = np.concatenate([np.array([(tree.x, tree.y) for tree in mapped]).reshape(-1, 2), wild])
    count = len(xy)
    heights = np.concatenate([np.array([tree.height_m for tree in mapped]), rng.uniform(*_TREE_HEIGHTS_M, len(wild))])
    kind = np.where(rng.random(count) < (0.35 if abs(latitude_deg) > 55.0 else 0.13), NEEDLELEAVED, BROADLEAVED)
    for i, tree in enumerate(mapped):
        kind[i] = {"broadleaved": BROADLEAVED, "needleleaved": NEEDLELEAVED}.get(tree.kind, kind[i])
    trees = Trees.of(xy, heights, kind, rng)
    new = np.arange(count) >= len(mapped)
    codes = painter.codes_at(xy[:, 0], xy[:, 1])
    closed = (codes == code(Surface.WATER, SemanticClass.WATER)) | \
        (new & np.isin(codes, [code(surface, SemanticClass.ROAD) for surface in (Surface.ASPHALT, Surface.ROAD_PAINT)]))
    points = shapely.points(xy)
    near_building, near_spot = (_within(shapes, points, distance)
                                for shapes, distance in ((buildings, 1.2), (shapely.points(spots[:, :2]), 3.0)))
    kept = (xy[:, 0] > x_min + 1) & (xy[:, 0] < x_max - 1) & (xy[:, 1] > y_min + 1) & (xy[:, 1] < y_max - 1) & \
        ~closed & ~near_spot & ~(new & near_building)
    return trees.take(np.flatnonzero(kept)), int((kept & new).sum())


def _within(shapes: np.ndarray, points: np.ndarray, distance_m: float) -> np.ndarray:
    """Which points lie near any of some shapes."""
    result = np.zeros(len(points), bool)
    result[np.unique(shapely.STRtree(shapes).query(points, predicate="dwithin", distance=distance_m)[0])] = True
    return result


def _crowns() -> list[tuple[np.ndarray, np.ndarray]]:
    """Unit crowns by kind, (vertices in z 0..1 and radius 1, faces): rings of vertices between two poles."""
    shapes = []
    for rings in (((0.12, 0.66), (0.42, 1.0), (0.76, 0.78)), ((0.03, 1.0), (0.36, 0.66), (0.68, 0.34))):
        sides = 7
        angle = 2 * np.pi * (np.arange(sides)[None, :] + 0.5 * np.arange(len(rings))[:, None]) / sides
        height, radius = np.array(rings).T
        ring = np.stack([radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle),
                         np.broadcast_to(height[:, None], angle.shape)], axis=2).reshape(-1, 3)
        vertices = np.concatenate([ring, [[0, 0, 0.0], [0, 0, 1.0]]])
        low, high = len(ring), len(ring) + 1
        i = np.arange(sides)
        j = (i + 1) % sides
        faces = [np.stack([j, i, np.full(sides, low)], axis=1)]
        for row in range(len(rings) - 1):
            a, b = row * sides, (row + 1) * sides
            # Odd rings are turned by half a step: the diagonal goes the short way.
            faces += [np.stack([a + i, a + j, b + i], axis=1), np.stack([a + j, b + j, b + i], axis=1)]
        last = (len(rings) - 1) * sides
        faces.append(np.stack([last + i, last + j, np.full(sides, high)], axis=1))
        shapes.append((vertices, np.concatenate(faces)))
    return shapes


def make_trees(trees: Trees, relief: Relief, rng: np.random.Generator) -> Objects:
    """Each tree an object: a five-sided trunk and a crown (49 faces)."""
    count = len(trees.xy)
    ground = relief.height_m(trees.xy[:, 0], trees.xy[:, 1])
    meshes, ids = [], []
    shade = rng.uniform(0.75, 1.25, count)
    pick = rng.random((count, 2))
    for kind, (unit, faces) in enumerate(_crowns()):
        chosen = np.flatnonzero(trees.kind == kind)
        height, radius = trees.height_m[chosen], trees.radius_m[chosen]
        foot = (0.1 if kind == NEEDLELEAVED else 0.3) * height
        shake = 1.0 + rng.uniform(-0.22, 0.22, (len(chosen), len(unit))) * (0.5 if kind == NEEDLELEAVED else 1.0)
        turn = rng.uniform(0, 2 * np.pi, len(chosen))
        c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
        x, y = (unit[:, 0] * c - unit[:, 1] * s) * shake, (unit[:, 0] * s + unit[:, 1] * c) * shake
        lift = unit[:, 2] + (shake - 1.0) * 0.3 * (unit[:, 2] > 0)
        vertices = np.stack([trees.xy[chosen, :1] + radius[:, None] * x, trees.xy[chosen, 1:] + radius[:, None] * y,
                             (ground[chosen] + foot)[:, None] + (height - foot)[:, None] * lift], axis=2)
        colours = (_NEEDLES if kind == NEEDLELEAVED else _FOLIAGE)
        colour = colours[(pick[chosen, 0] * len(colours)).astype(np.int64)] * shade[chosen, None].astype(np.float32)
        meshes.append(_mesh(vertices.reshape(-1, 3), _repeated(faces, len(unit), len(chosen)), Surface.FOLIAGE,
                            np.repeat(colour, len(faces), axis=0)))
        ids.append(np.repeat(chosen, len(faces)))
    angle = 2 * np.pi * np.arange(5) / 5
    thick = np.clip(0.022 * trees.height_m, 0.08, 0.4)
    x = trees.xy[:, :1] + thick[:, None] * np.cos(angle)
    y = trees.xy[:, 1:] + thick[:, None] * np.sin(angle)
    z = np.stack([ground - 0.3, ground + 0.4 * trees.height_m], axis=1)
    vertices = np.stack([np.tile(x, 2), np.tile(y, 2), np.repeat(z, 5, axis=1)], axis=2)
    i = np.arange(5)
    j = (i + 1) % 5
    faces = np.concatenate([np.stack([i, j, j + 5], axis=1), np.stack([i, j + 5, i + 5], axis=1)])
    bark = _BARK[(pick[:, 1] * len(_BARK)).astype(np.int64)]
    meshes.append(_mesh(vertices.reshape(-1, 3), _repeated(faces, 10, count), Surface.BARK,
                        np.repeat(bark, len(faces), axis=0)))
    ids.append(np.repeat(np.arange(count), len(faces)))
    return Objects(Mesh.joined(meshes), np.concatenate(ids).astype(np.int32), ground.astype(np.float32),
                   rng.integers(0, 2**32, count, dtype=np.uint32))


def hedge_lines(borders: np.ndarray, blocked: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Hedges on a share of the borders of lawns, straight pieces (N, 2, 2), clear of what is blocked: polygons."""
    length = np.linalg.norm(borders[:, 1] - borders[:, 0], axis=1)
    chosen = (rng.random(len(borders)) < share) & (length > 4.0) & (length < 25.0)
    hedges = shapely.buffer(shapely.linestrings(borders[chosen]), 0.5, cap_style="flat")
    free = np.ones(len(hedges), bool)
    free[np.unique(shapely.STRtree(blocked).query(hedges, predicate="dwithin", distance=0.5)[0])] = False
    return hedges[free]


def make_hedges(polygons: np.ndarray, relief: Relief, rng: np.random.Generator) -> Objects:
    """Hedges: footprints raised to CANOPIES' height of them, each an object."""
    shapes = footprints(polygons, 0.5)
    plans = Plans.of(shapes[shapely.is_geometry(shapes)])
    count = len(plans.polygons)
    xy, triangles, owner = triangulate(plans, np.zeros(count, np.int64))
    ground = relief.height_m(xy[:, 0], xy[:, 1])
    height = rng.uniform(*CANOPIES["hedge"], count)[owner] * rng.uniform(0.85, 1.15, len(xy))
    vertices, faces, _ = blocks(xy, triangles, ground + height, ground - 0.2)
    face_owner = owner[faces[:, 0] % max(len(xy), 1)]
    tone = _FOLIAGE[rng.integers(0, len(_FOLIAGE), count)][face_owner]
    base = relief.height_m(*plans.middle.T)
    return Objects(_mesh(vertices, faces, Surface.FOLIAGE, tone), face_owner.astype(np.int32), base,
                   rng.integers(0, 2**32, count, dtype=np.uint32))


def make_canopy(areas: list[Area], painter: PlanPainter, relief: Relief, rng: np.random.Generator) -> Objects:
    """Woods and scrub as one object: a height field where the plan shows the floor of a wood."""
    x_min, y_min, x_max, y_max = painter.bounds
    floor = code(Surface.FOREST_FLOOR, SemanticClass.VEGETATION)
    area_m2 = np.count_nonzero(painter.codes == floor) * PLAN_RESOLUTION_M**2
    step = max(CANOPY_STEP_M, float(np.sqrt(2.0 * area_m2 / _CANOPY_FACES)))
    columns, rows = int((x_max - x_min) / step) + 1, int((y_max - y_min) / step) + 1
    x, y = np.meshgrid(x_min + step * np.arange(columns), y_min + step * np.arange(rows))
    jitter = rng.uniform(-0.3, 0.3, (2, rows, columns)) * step
    x, y = x + jitter[0], y + jitter[1]
    grown = painter.codes_at(x, y) == floor
    wooded = np.zeros((rows, columns), bool)
    for area in areas:
        if area.kind == "forest":
            left, lower, right, upper = area.polygon.bounds
            i0, i1 = (int(np.clip((v - x_min) / step + o, 0, columns)) for v, o in ((left, -1), (right, 3)))
            j0, j1 = (int(np.clip((v - y_min) / step + o, 0, rows)) for v, o in ((lower, -1), (upper, 3)))
            shapely.prepare(area.polygon)
            wooded[j0:j1, i0:i1] |= shapely.contains_xy(area.polygon, x[j0:j1, i0:i1], y[j0:j1, i0:i1])
    # A crown in each cell of a coarser grid; the canopy is the highest of those near a vertex.
    cell_rows, cell_columns = (int(n * step / _CROWN_M) + 4 for n in (rows, columns))
    crowns = rng.uniform(0.15, 0.85, (2, cell_rows, cell_columns))
    stand = cv2.resize(rng.random((cell_rows // 8 + 2, cell_columns // 8 + 2)), (cell_columns, cell_rows),
                       interpolation=cv2.INTER_LINEAR)
    vigour = 0.5 * stand + 0.5 * rng.random((cell_rows, cell_columns))
    u, v = (x - x_min) / _CROWN_M + 1.5, (y - y_min) / _CROWN_M + 1.5
    i, j = u.astype(np.int64), v.astype(np.int64)
    low, high = (np.where(wooded, *pair) for pair in zip(CANOPIES["forest"], CANOPIES["scrub"]))
    height, tone = np.zeros((rows, columns)), np.zeros((rows, columns))
    for dj in (-1, 0, 1):
        for di in (-1, 0, 1):
            place = np.clip(j + dj, 0, cell_rows - 1), np.clip(i + di, 0, cell_columns - 1)
            distance = (u - i - di - crowns[0][place])**2 + (v - j - dj - crowns[1][place])**2
            crown = (low + (high - low) * vigour[place]) * np.maximum(1.0 - 0.45 * distance, 0.4)
            tone = np.where(crown > height, crowns[0][place], tone)
            height = np.maximum(height, crown)
    inner = cv2.erode(grown.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    height = np.where(inner, height, 0.75 * height)
    ground = relief.height_m(x.ravel(), y.ravel()).reshape(rows, columns)

    j, i = np.nonzero(grown[:-1, :-1] & grown[:-1, 1:] & grown[1:, :-1] & grown[1:, 1:])
    a, b, c, d = j * columns + i, j * columns + i + 1, (j + 1) * columns + i + 1, (j + 1) * columns + i
    flip = (i + j) % 2 == 0
    faces = np.concatenate([np.stack([a, b, np.where(flip, c, d)], axis=1),
                            np.stack([np.where(flip, a, b), c, d], axis=1)])
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    xy = np.stack([x, y], axis=2).reshape(-1, 2)[used]
    ground, height = ground.ravel()[used], height.ravel()[used]
    vertices, faces, part = blocks(xy, faces, ground + height, ground - 0.2)
    above = part < 2  # nobody sees the underside
    faces = faces[above]
    tone = (0.2 + 0.8 * (tone.ravel()[used][faces[:, 0] % max(len(used), 1)] - 0.15) / 0.7) * (len(_FOLIAGE) - 1)
    colour = 0.5 * (_FOLIAGE[tone.astype(np.int64)] + _FOLIAGE.mean(axis=0))
    return Objects(_mesh(vertices, faces, Surface.FOLIAGE, colour),
                   np.zeros(len(faces), np.int32), np.zeros(1, np.float32),
                   rng.integers(0, 2**32, 1, dtype=np.uint32))


def _repeated(faces: np.ndarray, vertices: int, count: int) -> np.ndarray:
    return (faces[None] + vertices * np.arange(count)[:, None, None]).reshape(-1, 3)


def _mesh(vertices: np.ndarray, faces: np.ndarray, surface: Surface, colour: np.ndarray) -> Mesh:
    return Mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32),
                np.full(len(faces), surface, np.uint8), np.clip(colour, 0.01, 0.9).astype(np.float32),
                np.zeros(len(faces), np.uint8))
