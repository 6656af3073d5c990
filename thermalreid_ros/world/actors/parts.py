"""Shapes that actors are put together from: lofts, tubes, ellipsoids, tori, and rigs of rigid bones.

A shape is (vertices float (V, 3), faces int (F, 3)), metres, faces counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

Shape = tuple[np.ndarray, np.ndarray]
Colour = tuple[float, float, float]


class Coat(NamedTuple):
    """What a face is made of: its surface, its colour (linear sRGB reflectance) and its heat zone."""

    surface: Surface
    colour: Colour
    zone: int = 0


def grey(value: float) -> Colour:
    return value, value, value


def loft(rings: np.ndarray, start: Sequence[float] | None = None, end: Sequence[float] | None = None,
         wrap: bool = False) -> Shape:
    """A skin over rings (R, K, 3), closed at both ends by fans to the points `start` and `end` (middles of the
    outer rings unless given), or with the last ring joined to the first (`wrap`).

    Each ring runs counter-clockwise for who looks back from the last ring. Faces in order: two for each cell
    (ring, segment), then K of the start, then K of the end.
    """
    rings = np.asarray(rings, np.float64)
    count, sides = rings.shape[:2]
    here = np.arange(count * sides).reshape(count, sides)
    above = np.roll(here, -1, axis=0)
    if not wrap:
        here, above = here[:-1], above[:-1]
    a, b, c, d = here, np.roll(here, -1, axis=1), np.roll(above, -1, axis=1), above
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    vertices = rings.reshape(-1, 3)
    if wrap:
        return vertices, faces
    tips = np.stack([rings[0].mean(axis=0) if start is None else np.asarray(start, np.float64),
                     rings[-1].mean(axis=0) if end is None else np.asarray(end, np.float64)])
    first = np.arange(sides)
    last, following = first + (count - 1) * sides, np.roll(first, -1)
    n = len(vertices)
    start_fan = np.stack([following, first, np.full(sides, n)], axis=1)
    end_fan = np.stack([last, following + (count - 1) * sides, np.full(sides, n + 1)], axis=1)
    return np.concatenate([vertices, tips]), np.concatenate([faces, start_fan, end_fan])


def cell_labels(cells: np.ndarray, start: int = 0, end: int = 0) -> np.ndarray:
    """A label for each face of a loft from labels of its cells (rings - 1, segments) and of its ends."""
    cells = np.asarray(cells)
    sides = cells.shape[1]
    return np.concatenate([np.repeat(cells.ravel(), 2), np.full(sides, start), np.full(sides, end)])


def ovals(z: Sequence[float], half_x: Sequence[float], half_y: Sequence[float], sides: int,
          centre_x: Sequence[float] | float = 0.0, roundness: float = 1.0) -> np.ndarray:
    """Level rings (R, sides, 3) at heights z. `roundness` 1 gives ellipses, towards 0 rectangles."""
    angle = (np.arange(sides) + 0.5) * (2 * np.pi / sides)
    cos, sin = np.cos(angle), np.sin(angle)
    cos, sin = np.sign(cos) * np.abs(cos) ** roundness, np.sign(sin) * np.abs(sin) ** roundness
    half_x, half_y, z = (np.asarray(values, np.float64)[:, None] for values in (half_x, half_y, z))
    shift = np.broadcast_to(np.asarray(centre_x, np.float64), (len(z),))[:, None]
    return np.stack([shift + half_x * cos, half_y * sin, z + 0 * cos], axis=-1)


def ellipsoid(centre: Sequence[float], radii: Sequence[float], rings: int = 4, sides: int = 8) -> Shape:
    """Axes along x, y, z; vertices lie on the ellipsoid."""
    centre, radii = np.asarray(centre, np.float64), np.asarray(radii, np.float64)
    polar = np.pi * np.arange(1, rings + 1) / (rings + 1)
    shape = ovals(-np.cos(polar), np.sin(polar), np.sin(polar), sides)
    return loft(centre + radii * shape, centre - radii * (0, 0, 1), centre + radii * (0, 0, 1))


def box(lower: Sequence[float], upper: Sequence[float]) -> Shape:
    (x0, y0, z0), (x1, y1, z1) = lower, upper
    outline = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return loft(np.stack([np.column_stack([outline, np.full(4, z)]) for z in (z0, z1)]))


def limb(length: float, radius_top: float, radius_bottom: float, sides: int = 5, bulge: float = 1.0) -> Shape:
    """A tapering rounded limb that hangs from the origin to (0, 0, -length); `bulge` widens its upper third."""
    z = np.array([-length, -0.35 * length, -0.3 * radius_top])
    radius = radius_top + (radius_bottom - radius_top) * np.array([1.0, 0.35, 0.0])
    radius[1] *= bulge
    return loft(ovals(z, radius, radius, sides), (0, 0, -length - 0.4 * radius_bottom), (0, 0, 0.6 * radius_top))


def frames(direction: np.ndarray, side: Sequence[float] = (0.0, 1.0, 0.0)) -> np.ndarray:
    """Rotations (..., 3, 3) that turn -z into a direction (..., 3) and keep y towards `side`: how bones aim."""
    z = -np.asarray(direction, np.float64)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    side = np.asarray(side, np.float64)
    y = side - (side * z).sum(-1, keepdims=True) * z
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([np.cross(y, z), y, z], axis=-1)


def tube(points: Sequence[Sequence[float]], radius: float | Sequence[float], sides: int = 4) -> Shape:
    """A bar along a polyline (P, 3), flat at its ends."""
    points = np.asarray(points, np.float64)
    radius = np.broadcast_to(np.asarray(radius, np.float64), (len(points),))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    # One side for all rings, as far from the bar's direction as can be, so that the skin does not twist.
    rotation = frames(-along, np.eye(3)[np.abs(along).max(axis=0).argmin()])
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    return loft(points[:, None] + radius[:, None, None] * np.einsum("rij,kj->rki", rotation, ring))


def torus(radius: float, tube_radius: float, segments: int = 18, sides: int = 4) -> Shape:
    """A ring in the x-z plane about the origin, with a vertex at (0, 0, -radius), its lowest. The first and the last
    segment of each cross-section face outwards, the middle ones inwards."""
    around = np.arange(segments) * (2 * np.pi / segments) - 0.5 * np.pi
    angle = np.arange(sides) * (2 * np.pi / sides)
    reach = radius - tube_radius + tube_radius * np.cos(angle)
    rings = np.stack([np.cos(around)[:, None] * reach, np.tile(tube_radius * np.sin(angle), (segments, 1)),
                      np.sin(around)[:, None] * reach], axis=-1)
    return loft(rings, wrap=True)


def moved(shape: Shape, offset: Sequence[float], rotation: np.ndarray | None = None) -> Shape:
    vertices = shape[0] if rotation is None else shape[0] @ np.asarray(rotation).T
    return vertices + np.asarray(offset, np.float64), shape[1]


def painted(shape: Shape, coats: Coat | Sequence[Coat], label: np.ndarray | int = 0) -> Mesh:
    """A mesh of a shape; `label` (F,) picks the coat of each face."""
    coats = [coats] if isinstance(coats, Coat) else coats
    label = np.broadcast_to(label, (len(shape[1]),))
    return Mesh(np.ascontiguousarray(shape[0], np.float32), np.ascontiguousarray(shape[1], np.int32),
                np.array([coat.surface for coat in coats], np.uint8)[label],
                np.array([coat.colour for coat in coats], np.float32)[label],
                np.array([coat.zone for coat in coats], np.uint8)[label])


def bend(root: np.ndarray, tip: np.ndarray, upper: float, lower: float, towards: Sequence[float]) -> np.ndarray:
    """Where the joint of a limb of two bones lies when it reaches from root to tip (or as far as it can), bent
    `towards` a direction: the knee or elbow, (3,)."""
    span = np.asarray(tip, np.float64) - root
    distance = np.linalg.norm(span)
    along = span / distance
    distance = np.clip(distance, abs(upper - lower) * 1.001, (upper + lower) * 0.9995)
    forward = (upper**2 - lower**2 + distance**2) / (2 * distance)
    side = np.asarray(towards, np.float64) - np.dot(towards, along) * along
    return root + along * forward + side / np.linalg.norm(side) * np.sqrt(max(upper**2 - forward**2, 0.0))


@dataclass(frozen=True, eq=False)
class Rig:
    """A mesh of rigid bones: vertices in the coordinates of their bone. bone: int (V,)."""

    mesh: Mesh
    bone: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[tuple[int, Mesh]]) -> Rig:
        return cls(Mesh.joined([mesh for _, mesh in parts]),
                   np.repeat([bone for bone, _ in parts], [len(mesh.vertices) for _, mesh in parts]))

    def posed(self, rotation: np.ndarray, origin: np.ndarray, grounded: bool = True) -> Mesh:
        """The mesh with each bone turned (B, 3, 3) and put in place (B, 3); its lowest vertex on z = 0 if
        `grounded`."""
        vertices = np.einsum("vij,vj->vi", rotation[self.bone], self.mesh.vertices) + origin[self.bone]
        if grounded:
            vertices[:, 2] -= vertices[:, 2].min()
        mesh = self.mesh
        return Mesh(vertices.astype(np.float32), mesh.faces, mesh.material, mesh.colour, mesh.zone)
