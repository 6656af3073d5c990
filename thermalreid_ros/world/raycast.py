"""Ray casting: Embree behind three questions (what is hit first, what is hidden, how much sky is seen).

Rays are float32 (N, 3) pairs of origin and direction. A direction need not have unit length: distances are
multiples of it, so that directions with a depth of one give depths.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore import EmbreeDevice
from embreex.rtcore_scene import EmbreeScene

from thermalreid_ros.world.mesh import Mesh

OFFSET_M = 0.02  # by which rays that leave a surface start above it


class Scene:
    """A mesh made ready for rays. Not to be shared between processes: build one in each."""

    def __init__(self, mesh: Mesh):
        self._scene = EmbreeScene(_device())
        self._faces = len(mesh.faces)
        if self._faces:
            TriangleMesh(self._scene, np.ascontiguousarray(mesh.vertices[mesh.faces], np.float32))

    def nearest(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(distance, face) of the first hit of each ray, float32 and int32 (N,); infinity and -1 for none."""
        if not self._faces or not len(directions):
            return np.full(len(directions), np.inf, np.float32), np.full(len(directions), -1, np.int32)
        origins = np.ascontiguousarray(np.broadcast_to(np.float32(origins), directions.shape))
        hits = self._scene.run(origins, np.ascontiguousarray(directions), output=1)
        return np.where(hits["primID"] >= 0, hits["tfar"], np.float32(np.inf)), hits["primID"]

    def occluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether anything lies on each ray, bool (N,). Origins and directions are broadcast."""
        origins, directions = np.broadcast_arrays(np.float32(origins), np.float32(directions))
        if not self._faces or not len(directions):
            return np.zeros(len(directions), bool)
        origins, directions = np.ascontiguousarray(origins), np.ascontiguousarray(directions)
        return self._scene.run(origins, directions, query="OCCLUDED") >= 0

    def sunlit(self, points: np.ndarray, normals: np.ndarray, sun: np.ndarray) -> np.ndarray:
        """Whether the sun, in direction sun (3,), reaches points (N, 3) with outward normals (N, 3), bool (N,)."""
        facing = np.einsum("ij,j->i", normals, np.float32(sun)) > 0
        reached = np.zeros(len(points), bool)
        if sun[2] > 0:
            chosen = np.flatnonzero(facing)
            reached[chosen] = ~self.occluded(points[chosen] + OFFSET_M * normals[chosen], np.float32(sun))
        return reached

    def sky_view(self, points: np.ndarray, normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """The sky's share, 0..1, of what points (N, 3) with outward normals (N, 3) receive from all around, by
        rays along directions (K, 3), which cover the upper half of the sphere evenly. float32 (N,)."""
        seen, weight = np.zeros(len(points), np.float32), np.zeros(len(points), np.float32)
        starts = points + OFFSET_M * normals
        for direction in np.float32(directions):
            cosine = np.maximum(np.einsum("ij,j->i", normals, direction), 0)
            chosen = np.flatnonzero(cosine > 0)
            free = ~self.occluded(starts[chosen], direction)
            seen[chosen] += cosine[chosen] * free
            weight += cosine
        # A tilted surface sees the ground with the rest of its half-space.
        tilt_share = 0.5 * (1.0 + normals[:, 2])
        return seen / np.maximum(weight, 1e-6) * tilt_share


@cache
def _device() -> EmbreeDevice:
    """One for all scenes of a process: each device takes threads, and a thousand are too many."""
    return EmbreeDevice()


def hemisphere(count: int) -> np.ndarray:
    """Unit directions that cover the upper half of the sphere evenly, float32 (count, 3): a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z = index / count
    azimuth = index * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt(1.0 - z * z)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1).astype(np.float32)

