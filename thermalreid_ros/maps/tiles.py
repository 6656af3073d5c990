"""The tiled representation of a map: regular, overlapping squares, and a file of one descriptor for each.

Tiles are sorted by cells of 500 m, so that whoever looks around a rough position reads few contiguous runs of
rows. Coordinates are metres on `SemanticMap.grid`, as in maps.store.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.store import SemanticMap

CELL_M = 500.0
_MAGIC = b"thermalreid descriptors 1\n"
_ALIGNMENT = 4096
_NORTH_UP = np.pi / 2


class TilesError(ThermalReidError):
    """A tiling that cannot be, or descriptors that do not belong to a map, model or tiling."""


@dataclass(frozen=True)
class Tiling:
    """How a map is cut. Tiles are squares of side_m and size_px, north up, `overlap` of a side over the next."""

    side_m: float = 128.0
    size_px: int = 256
    overlap: float = 0.5

    def __post_init__(self):
        if not (0 < self.side_m < np.inf and self.size_px > 0 and 0.0 <= self.overlap < 1.0):
            raise TilesError(f"no map is cut into tiles of {self.side_m:g} m and {self.size_px} px that overlap by "
                             f"{self.overlap:g}; sides are above 0 and overlaps from 0 to below 1")

    @property
    def step_m(self) -> float:
        return self.side_m * (1.0 - self.overlap)

    @property
    def metres_per_pixel(self) -> float:
        return self.side_m / self.size_px


#: The tiles that localization searches: whatever is seen is within half a step, 16 m, of one's middle.
LOCALIZATION_TILING = Tiling(side_m=128.0, size_px=128, overlap=0.75)


class Tiles:
    """The tiles of one map. `centres`: float64 (N, 2), in the order of their rows, cell by cell.

    The first tile lies in the lower left corner of the map; the last ones reach over its upper and right edges
    unless the map is a whole number of steps.
    """

    def __init__(self, semantic_map: SemanticMap, tiling: Tiling):
        self.tiling = tiling
        self._map = semantic_map
        counts = [1 + max(0, int(np.ceil((length - tiling.side_m) / tiling.step_m - 1e-9)))
                  for length in semantic_map.bounds[2:]]
        x, y = np.meshgrid(*(tiling.side_m / 2 + tiling.step_m * np.arange(count) for count in counts))
        centres = np.column_stack([x.ravel(), y.ravel()])
        cells = (centres // CELL_M).astype(np.int64)
        self._cell_columns = int(cells[:, 0].max()) + 1
        numbers = cells[:, 1] * self._cell_columns + cells[:, 0]
        order = np.argsort(numbers, kind="stable")
        self.centres = np.ascontiguousarray(centres[order])
        self._starts = np.searchsorted(numbers[order], np.arange((int(cells[:, 1].max()) + 1) * self._cell_columns + 1))

    def __len__(self) -> int:
        return len(self.centres)

    def runs_near(self, x: float, y: float, radius_m: float) -> list[slice]:
        """Runs of rows, ascending, that hold all tiles whose centres are within radius_m of a point, and others."""
        rows = (len(self._starts) - 1) // self._cell_columns
        left, bottom = np.floor((np.array([x, y]) - radius_m) / CELL_M).astype(int)
        right, top = np.floor((np.array([x, y]) + radius_m) / CELL_M).astype(int)
        left, right = max(left, 0), min(right, self._cell_columns - 1)
        if left > right:
            return []
        runs = [slice(int(self._starts[row * self._cell_columns + left]),
                      int(self._starts[row * self._cell_columns + right + 1]))
                for row in range(max(bottom, 0), min(top, rows - 1) + 1)]
        return [run for run in runs if run.stop > run.start]

    def window(self, row: int) -> np.ndarray:
        """The classes of one tile, uint8 (size_px, size_px), north up."""
        return self._map.window(*self.centres[row], _NORTH_UP, self.tiling.metres_per_pixel, self.tiling.size_px)

    def batches(self, size: int = 64) -> Iterator[np.ndarray]:
        """The classes of all tiles in the order of their rows, uint8 (up to `size`, size_px, size_px) at a time."""
        for start in range(0, len(self), size):
            yield np.stack([self.window(row) for row in range(start, min(start + size, len(self)))])


@dataclass(frozen=True, eq=False)
class TileDescriptors:
    """The descriptors of a map's tiles: `rows` is read-only (N, D), float16 or float32, row i that of tile i. They
    stay on disk until they are read."""

    tiles: Tiles
    rows: np.ndarray


def descriptors_path(map_path: str | Path) -> Path:
    """Where the descriptors of a map lie: MAP.tiles beside MAP.tif."""
    return Path(map_path).with_suffix(".tiles")


def write_descriptors(semantic_map: SemanticMap, tiling: Tiling, model_digest: str, batches: Iterable[np.ndarray],
                      dtype: str = "float16") -> TileDescriptors:
    """Write descriptors, batch after batch (n, D) in the order of the tiles, beside the map; whole or not at all.

    model_digest: that of the network that made them. Raises TilesError where they are not one finite row a tile.
    """
    if dtype not in ("float16", "float32"):
        raise TilesError(f"descriptors of {dtype}: use float16 or float32")
    path = descriptors_path(semantic_map.path)
    try:
        _write(path, semantic_map, tiling, model_digest, batches, dtype)
    except OSError as error:
        raise TilesError(f"{path}: cannot be written ({error.strerror})") from None
    return read_descriptors(semantic_map, tiling, model_digest)


def _write(path: Path, semantic_map: SemanticMap, tiling: Tiling, model_digest: str, batches: Iterable[np.ndarray],
           dtype: str) -> None:
    tiles, dimension, count = Tiles(semantic_map, tiling), 0, 0
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
        part = Path(folder) / path.name
        with open(part, "wb") as file:
            for batch in batches:
                batch = np.ascontiguousarray(batch, np.dtype(dtype).newbyteorder("<"))
                if batch.ndim != 2 or batch.shape[1] != (dimension or batch.shape[1]) or not batch.shape[1]:
                    raise TilesError(f"{path}: a batch of shape {batch.shape} is no batch of descriptors of one length")
                if not np.isfinite(batch).all():
                    raise TilesError(f"{path}: descriptors that are not finite in {dtype}; check the network")
                if not dimension:
                    dimension = batch.shape[1]
                    file.write(_header(semantic_map, tiling, model_digest, len(tiles), dimension, dtype))
                file.write(batch.tobytes())
                count += len(batch)
        if count != len(tiles):
            raise TilesError(f"{path}: {count} descriptors for {len(tiles)} tiles")
        os.replace(part, path)


def read_descriptors(semantic_map: SemanticMap, tiling: Tiling, model_digest: str) -> TileDescriptors:
    """The descriptors of a map for a tiling and a network; TilesError, naming the file, where it has none of them."""
    path = descriptors_path(semantic_map.path)
    remedy = "compute them again"
    try:
        with open(path, "rb") as file:
            if file.readline() != _MAGIC:
                raise TilesError(f"{path}: no file of tile descriptors; {remedy}")
            header = json.loads(file.readline())
        for key, value in (("map", semantic_map.digest), ("model", model_digest), ("tiling", _values(tiling))):
            if header[key] != value:
                raise TilesError(f"{path}: descriptors of another {key} ({_short(header[key])}, not {_short(value)}); "
                                 f"{remedy}")
        tiles = Tiles(semantic_map, tiling)
        shape, dtype = (len(tiles), int(header["dimension"])), np.dtype(header["dtype"]).newbyteorder("<")
        if os.path.getsize(path) != _ALIGNMENT + shape[0] * shape[1] * dtype.itemsize:
            raise TilesError(f"{path}: not whole; {remedy}")
        return TileDescriptors(tiles, np.memmap(path, dtype, "r", _ALIGNMENT, shape))
    except FileNotFoundError:
        raise TilesError(f"{path}: no descriptors of the map's tiles; compute them first") from None
    except TilesError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise TilesError(f"{path}: a broken file of tile descriptors; {remedy}") from None


def _header(semantic_map: SemanticMap, tiling: Tiling, model_digest: str, count: int, dimension: int,
            dtype: str) -> bytes:
    values = {"map": semantic_map.digest, "model": model_digest, "tiling": _values(tiling), "count": count,
              "dimension": dimension, "dtype": dtype}
    return (_MAGIC + json.dumps(values).encode() + b"\n").ljust(_ALIGNMENT, b"\0")


def _values(tiling: Tiling) -> dict[str, float]:
    return {"side_m": float(tiling.side_m), "size_px": int(tiling.size_px), "overlap": float(tiling.overlap)}


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
