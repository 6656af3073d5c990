"""Trees, woods, scrub and hedges.

Single trees are a trunk and a crown of a few dozen triangles, shaken so that no two are alike. Woods, scrub and
hedges are one bumpy canopy over the cells of the plan that they cover, closed down to the ground at its edges:
roads and clearings that the plan shows stay open.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely

from thermalreid_ros.maps.features import Area
from thermalreid_ros.world.buildings import Objects, linear
from thermalreid_ros.world.ground import PLAN_RESOLUTION_M, PlanPainter, Relief, code
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

CANOPY_STEP_M = 2.5
_CANOPY_FACES = 500_000  # at most about as many; larger woods get a coarser canopy
BROADLEAVED, NEEDLELEAVED = 0, 1
# kind -> (lowest, highest) canopy in metres.
CANOPIES = {"forest": (9.0, 19.0), "scrub": (1.2, 3.5), "hedge": (1.2, 2.2)}
# Trees per hectare of areas that have some.
_DENSITY = {"park": 45.0, "garden": 50.0, "cemetery": 35.0, "orchard": 160.0, "grass": 7.0, "meadow": 3.0,
            "wetland": 10.0, "residential": 7.0, "playground": 25.0, "school": 12.0, "parking": 8.0, "square": 6.0}
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
    chosen = [area for area in areas if area.kind in _DENSITY]
    places = [np.zeros((0, 2))]
    for area in chosen:
        x_min, y_min, x_max, y_max = area.polygon.bounds
        step = np.sqrt(1e4 / _DENSITY[area.kind])
        jitter = 0.06 if area.kind == "orchard" else 0.5
        x, y = np.meshgrid(np.arange(x_min, x_max, step) + 0.5 * step, np.arange(y_min, y_max, step) + 0.5 * step)
        points = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-jitter, jitter, (x.size, 2)) * step
        shapely.prepare(area.polygon)
        places.append(points[shapely.contains_xy(area.polygon, points[:, 0], points[:, 1])])
    return np.concatenate(places)


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


def make_canopy(areas: list[Area], painter: PlanPainter, relief: Relief, rng: np.random.Generator) -> Objects:
    """Woods, scrub and hedges as one object: a height field where the plan shows the floor of a wood."""
    x_min, y_min, x_max, y_max = painter.bounds
    floor = sum(code(Surface.FOREST_FLOOR, semantic) == painter.codes for semantic in (3,))
    area_m2 = np.count_nonzero(floor) * PLAN_RESOLUTION_M**2
    step = max(CANOPY_STEP_M, float(np.sqrt(2.0 * area_m2 / _CANOPY_FACES)))
    columns, rows = int((x_max - x_min) / step) + 1, int((y_max - y_min) / step) + 1
    x, y = np.meshgrid(x_min + step * np.arange(columns), y_min + step * np.arange(rows))
    jitter = rng.uniform(-0.3, 0.3, (2, rows, columns)) * step
    x, y = x + jitter[0], y + jitter[1]
    grown = painter.codes_at(x, y) == code(Surface.FOREST_FLOOR, 3)
    low, high = np.full((rows, columns), 1.2), np.full((rows, columns), 3.0)
    for kind, (lowest, highest) in CANOPIES.items():
        within = np.zeros((rows, columns), bool)
        for area in areas:
            if area.kind == kind:
                a, b, c, d = area.polygon.bounds
                i0, i1 = (int(np.clip((v - x_min) / step + o, 0, columns)) for v, o in ((a, -1), (c, 3)))
                j0, j1 = (int(np.clip((v - y_min) / step + o, 0, rows)) for v, o in ((b, -1), (d, 3)))
                window = np.s_[j0:j1, i0:i1]
                shapely.prepare(area.polygon)
                within[window] |= shapely.contains_xy(area.polygon, x[window], y[window])
        low[within], high[within] = lowest, highest
    # A crown each few metres: heights fall away from its middle.
    stand = cv2.resize(rng.random((rows // 12 + 2, columns // 12 + 2)).astype(np.float32), (columns, rows),
                       interpolation=cv2.INTER_LINEAR)
    crown = rng.random((rows, columns))
    height = low + (high - low) * (0.45 * stand + 0.55 * crown)
    edge = cv2.erode(grown.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    height = np.where(edge, 0.72 * height, height)
    ground = relief.height_m(x.ravel(), y.ravel()).reshape(rows, columns)

    square = grown[:-1, :-1] & grown[:-1, 1:] & grown[1:, :-1] & grown[1:, 1:]
    j, i = np.nonzero(square)
    a, b, c, d = j * columns + i, j * columns + i + 1, (j + 1) * columns + i + 1, (j + 1) * columns + i
    flip = (i + j) % 2 == 0
    faces = np.concatenate([np.stack([a, b, np.where(flip, c, d)], axis=1),
                            np.stack([np.where(flip, a, b), c, d], axis=1)])
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    total = rows * columns
    p, q = edges[~np.isin(edges[:, 0] * total + edges[:, 1], edges[:, 1] * total + edges[:, 0])].T
    curtain = np.stack([q, p, p + total, q, p + total, q + total], axis=1).reshape(-1, 3)
    faces = np.concatenate([faces, curtain])
    vertices = np.concatenate([np.stack([x, y, ground + height], axis=2).reshape(-1, 3),
                               np.stack([x, y, ground - 0.2], axis=2).reshape(-1, 3)])
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    tone = (0.5 * stand + 0.5 * rng.random((rows, columns))).ravel()[used[faces[:, 0]] % total]
    colour = _FOLIAGE[np.minimum((tone * len(_FOLIAGE)).astype(np.int64), len(_FOLIAGE) - 1)]
    mesh = _mesh(vertices[used], faces, Surface.FOLIAGE, colour)
    return Objects(mesh, np.zeros(len(faces), np.int32), np.zeros(1, np.float32),
                   rng.integers(0, 2**32, 1, dtype=np.uint32))


def _repeated(faces: np.ndarray, vertices: int, count: int) -> np.ndarray:
    return (faces[None] + vertices * np.arange(count)[:, None, None]).reshape(-1, 3)


def _mesh(vertices: np.ndarray, faces: np.ndarray, surface: Surface, colour: np.ndarray) -> Mesh:
    return Mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32),
                np.full(len(faces), surface, np.uint8), np.clip(colour, 0.01, 0.9).astype(np.float32),
                np.zeros(len(faces), np.uint8))
