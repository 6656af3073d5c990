"""The paper's localization: the tile of the map that is closest to a labelling, by a distance that MobileNetV2 learnt.

A network turns labellings of 128 x 128 m, north up, into unit vectors; the distance of two is 1 minus their dot
product, 0 to 2. Those of a map's tiles are computed once (`describe_map`) and lie beside the map; a search is a matrix
product over the tiles near the rough position, without approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.engine import Engine
from thermalreid_ros.localization.types import LocalizationError
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.maps.tiles import (
    LOCALIZATION_TILING,
    TileDescriptors,
    Tiles,
    read_descriptors,
    write_descriptors,
)

_BATCH = 32


@dataclass(frozen=True, eq=False)
class TileMatches:
    """The closest tiles, best first. rows: int64 (K,). centres: float64 (K, 2). distances: float32 (K,), 0 to 2."""

    rows: np.ndarray
    centres: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def camera_places(self, centre_offset_m: np.ndarray) -> np.ndarray:
        """Where the camera is if its labelling shows these tiles: float64 (K, 2). centre_offset_m: the middle of the
        labelling from the point below the camera, as in `ground.GroundPatch`."""
        return self.centres - np.asarray(centre_offset_m, np.float64)


class TileSearch:
    """Searches the descriptors of one map with the network that made them; one caller at a time.

    engine may be None where only `nearest` is called. Descriptors of the area searched last stay in memory as float32.
    """

    def __init__(self, descriptors: TileDescriptors, engine: Engine | None):
        self._tiles, self._rows, self._engine = descriptors.tiles, descriptors.rows, engine
        self._held: dict[tuple[int, int], _Run] = {}

    @classmethod
    def open(cls, semantic_map: SemanticMap, engine: Engine) -> TileSearch:
        """With the descriptors beside a map; TilesError, naming the file, where they are missing or another
        network's."""
        return cls(read_descriptors(semantic_map, LOCALIZATION_TILING, engine.card.sha256), engine)

    def search(self, labels: np.ndarray, x: float, y: float, radius_m: float, count: int = 10) -> TileMatches:
        """The `count` tiles closest to a labelling among those whose centres are within radius_m of (x, y); fewer where
        there are fewer. labels: uint8 (128, 128) north up at 1 m/px, SemanticClass or 255 where not seen."""
        return self.nearest(self.describe(labels), x, y, radius_m, count)

    def describe(self, labels: np.ndarray) -> np.ndarray:
        """The descriptor of a labelling, float32 (D,)."""
        size = LOCALIZATION_TILING.size_px
        if labels.dtype != np.uint8 or labels.shape != (size, size):
            raise LocalizationError(f"a labelling of {labels.dtype} {labels.shape}: tiles are uint8 ({size}, {size})")
        return self._engine.run({"labels": labels[None]})["descriptor"][0]

    def nearest(self, descriptor: np.ndarray, x: float, y: float, radius_m: float, count: int = 10) -> TileMatches:
        """`search` for a descriptor, float32 (D,)."""
        if descriptor.shape != self._rows.shape[1:]:
            raise LocalizationError(f"a descriptor of {descriptor.shape} for tiles of {self._rows.shape[1:]}; compute "
                                    "the map's again")
        runs = self._tiles.runs_near(x, y, radius_m)
        self._held = {key: self._held.get(key) or self._read(*key) for key in ((run.start, run.stop) for run in runs)}
        rows, distances = np.zeros(0, np.int64), np.zeros(0, np.float32)
        worst = np.inf  # of the best so far: most tiles need no second look
        for (start, _), run in self._held.items():
            distance = 1.0 - descriptor.astype(np.float32, copy=False) @ run.descriptors
            close = np.flatnonzero(distance <= worst)
            close = close[(run.x[close] - x) ** 2 + (run.y[close] - y) ** 2 <= radius_m ** 2]
            rows, distances = np.concatenate([rows, start + close]), np.concatenate([distances, distance[close]])
            if len(rows) > count:
                best = np.argpartition(distances, count - 1)[:count]
                rows, distances = rows[best], distances[best]
                worst = distances.max()
        best = np.lexsort((rows, distances))
        return TileMatches(rows[best], self._tiles.centres[rows[best]], distances[best])

    def _read(self, start: int, stop: int) -> _Run:
        rows, centres = self._rows[start:stop], self._tiles.centres[start:stop]
        return _Run(np.ascontiguousarray(rows.T).astype(np.float32, copy=False), *np.ascontiguousarray(centres.T))


@dataclass(frozen=True, eq=False)
class _Run:
    """Neighbouring tiles, n of them. Products with a vector are fastest on a matrix of columns: (D, n)."""

    descriptors: np.ndarray
    x: np.ndarray
    y: np.ndarray


def describe_map(semantic_map: SemanticMap, engine: Engine, tick: Callable[[int], object] = lambda count: None
                 ) -> TileDescriptors:
    """Compute the descriptors of all tiles of a map and write them beside it, whole or not at all.

    tick: told how many tiles have been done since it was last told.
    """

    def batches() -> Iterator[np.ndarray]:
        for labels in Tiles(semantic_map, LOCALIZATION_TILING).batches(_BATCH):
            yield engine.run({"labels": labels})["descriptor"]
            tick(len(labels))

    return write_descriptors(semantic_map, LOCALIZATION_TILING, engine.card.sha256, batches())
