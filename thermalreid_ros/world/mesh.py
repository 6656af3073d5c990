"""Triangle meshes whose faces know what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle soup with a surface for each face. Metres; faces are counter-clockwise seen from outside.

    vertices: float32 (V, 3). faces: int32 (F, 3).
    material: uint8 (F,), index into materials.MATERIALS.
    colour: float32 (F, 3), linear sRGB reflectance 0..1: what the eye sees; the sun's heat follows from it.
    zone: uint8 (F,), for actors: index into the heat zones of their identity; 0 is "no heat of its own".
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    colour: np.ndarray
    zone: np.ndarray

    @classmethod
    def joined(cls, meshes: Sequence[Mesh]) -> Mesh:
        """All meshes as one, in order; an empty mesh for none."""
        offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
        if not meshes:
            return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.uint8),
                       np.zeros((0, 3), np.float32), np.zeros(0, np.uint8))
        return cls(np.concatenate([mesh.vertices for mesh in meshes]),
                   np.concatenate([mesh.faces + np.int32(offset) for mesh, offset in zip(meshes, offsets[:-1])]),
                   *(np.concatenate([getattr(mesh, name) for mesh in meshes])
                     for name in ("material", "colour", "zone")))

    def placed(self, x: float, y: float, z: float, yaw_rad: float) -> Mesh:
        """The mesh turned about its z axis and moved to a place in the world."""
        c, s = np.float32(np.cos(yaw_rad)), np.float32(np.sin(yaw_rad))
        vx, vy, vz = self.vertices.T
        vertices = np.stack([c * vx - s * vy + np.float32(x), s * vx + c * vy + np.float32(y), vz + np.float32(z)],
                            axis=1)
        return Mesh(vertices, self.faces, self.material, self.colour, self.zone)

    @property
    def normals(self) -> np.ndarray:
        """Outward unit normals, float32 (F, 3); (0, 0, 1) for faces without area."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), np.float32([0, 0, 1])).astype(np.float32)
