"""The semantic map at run time: windows of it around a position, in any rotation and scale.

Coordinates are metres on the map's own grid, `SemanticMap.grid`: the UTM zone of the map, its origin in the lower
left corner of the map, x east, y north. Yaw 0 = east, counter-clockwise.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import CLASS_COUNT, CLASS_NAMES, NO_DATA

FORMAT = "thermalreid semantic map 1"
ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0, https://www.openstreetmap.org/copyright"
CLASS_TABLE = json.dumps(dict(enumerate(CLASS_NAMES)))
_CLASSES, _HEIGHTS = 1, 2  # bands
_BLOCK_PX = 512  # as the file has them; one that was saved again may have others, or strips of one row


class MapError(ThermalReidError):
    """A file that is no semantic map of this program."""


class SemanticMap:
    """A map on disk of which only the blocks last used are in memory. Not for use by several threads at once."""

    def __init__(self, path: Path, levels: list[rasterio.DatasetReader], cache_blocks: int):
        base = levels[0]
        tags = base.tags()
        self.path = path
        self.crs: str = base.crs.to_string()
        self.resolution_m: float = base.res[0]
        self.bounds: tuple[float, float, float, float] = (0.0, 0.0, base.width * base.res[0],
                                                          base.height * base.res[0])
        self.grid = LocalGrid(self.crs, base.bounds.left, base.bounds.bottom)
        self.width_px, self.height_px = base.width, base.height
        self.osm_timestamp: str = tags.get("OSM_TIMESTAMP", "")
        self.attribution: str = tags.get("ATTRIBUTION", "")
        self._levels = levels
        self._blocks: OrderedDict[tuple[int, int, int, int], np.ndarray] = OrderedDict()
        self._cache_blocks = cache_blocks

    @classmethod
    def open(cls, path: str | Path, cache_blocks: int = 512) -> SemanticMap:
        """Open a map made by `thermalreid map build`. MapError, naming the file, for anything else.

        cache_blocks: how many blocks of 512 x 512 px (256 kB) may stay in memory.
        """
        path = Path(path)
        remedy = "make one with: thermalreid map build"
        if not path.is_file():
            raise MapError(f"{path}: no such map; {remedy}")
        try:
            with warnings.catch_warnings():  # a picture without a place on earth is refused below, in our words
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                base = rasterio.open(path)
            if base.tags().get("FORMAT") != FORMAT:
                raise MapError(f"{path}: a picture, not a semantic map of this program; {remedy}")
            if base.tags().get("CLASSES") != CLASS_TABLE:
                raise MapError(f"{path}: its class table {base.tags().get('CLASSES')} is not {CLASS_TABLE}; {remedy}")
            if base.count != 2 or set(base.dtypes) != {"uint8"} or not _is_upright_utm(base):
                raise MapError(f"{path}: its bands or its grid have been changed since it was built; a map lies north "
                               f"up in a UTM zone, its pixels square; {remedy}")
            levels = [base, *(rasterio.open(path, overview_level=i) for i in range(len(base.overviews(1))))]
            base.read(window=Window(base.width - 1, base.height - 1, 1, 1))  # what a file cut short lacks
        except (RasterioError, OSError):
            raise MapError(f"{path}: not a whole GeoTIFF; {remedy}") from None
        return cls(path, levels, cache_blocks)

    def close(self) -> None:
        for level in self._levels:
            level.close()

    def __enter__(self) -> SemanticMap:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @cached_property
    def pixel_counts(self) -> dict[str, int]:
        """Of each class, counted: a part cut out of a map keeps the notes of the whole."""
        counts = np.zeros(CLASS_COUNT, np.int64)
        for row in range(-(-self.height_px // _BLOCK_PX)):
            for column in range(-(-self.width_px // _BLOCK_PX)):
                block = self._block(_CLASSES, 0, row, column)
                counts += np.bincount(block[block != NO_DATA], minlength=CLASS_COUNT)
        return dict(zip(CLASS_NAMES, counts.tolist()))

    @property
    def shares(self) -> dict[str, float]:
        """Each class's share of the mapped area."""
        total = max(sum(self.pixel_counts.values()), 1)
        return {name: count / total for name, count in self.pixel_counts.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file: the same map, the same digest."""
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def holds_any(self, places_m: np.ndarray) -> bool:
        """Whether one of places (n, 2) on the grid lies within the map."""
        west, south, east, north = self.bounds
        return bool(((places_m > (west, south)) & (places_m < (east, north))).all(axis=1).any())

    def window(self, x: float, y: float, yaw_rad: float, metres_per_pixel: float,
               size_px: int | tuple[int, int]) -> np.ndarray:
        """Classes, uint8 (height, width), around (x, y), the top of the picture towards yaw_rad (pi/2: north up).

        A pixel is what lies under its centre, NO_DATA outside of the map. From 2 x the map's resolution on, pixels
        come from reduced copies of the map, in which each is what most of its four predecessors are: what is
        narrower than a pixel disappears, and does not flicker.
        """
        return self._warped(_CLASSES, x, y, yaw_rad, metres_per_pixel, size_px)

    def heights(self, x: float, y: float, yaw_rad: float, metres_per_pixel: float,
                size_px: int | tuple[int, int]) -> np.ndarray:
        """Heights of buildings in metres, uint8, as `window`; 0 where there is none and outside of the map."""
        return self._warped(_HEIGHTS, x, y, yaw_rad, metres_per_pixel, size_px)

    def class_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The classes under points, uint8 of their shape, NO_DATA outside of the map."""
        return self._at(_CLASSES, x, y)

    def height_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The heights of buildings under points in metres, uint8 of their shape."""
        return self._at(_HEIGHTS, x, y)

    def overview(self, longest_px: int) -> tuple[np.ndarray, np.ndarray]:
        """(classes, heights) of the whole map, north up, its longer side at most longest_px."""
        level = next((level for level in self._levels if max(level.shape) <= 2 * longest_px), self._levels[-1])
        scale = min(1.0, longest_px / max(level.shape))
        shape = (2, max(1, round(level.height * scale)), max(1, round(level.width * scale)))
        try:
            classes, heights = level.read(out_shape=shape, resampling=Resampling.mode)
        except RasterioError:
            raise self._broken() from None
        return classes, heights

    def _warped(self, band: int, x: float, y: float, yaw_rad: float, metres_per_pixel: float,
                size_px: int | tuple[int, int]) -> np.ndarray:
        height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
        index = int(np.clip(np.floor(np.log2(metres_per_pixel / self.resolution_m) + 1e-9), 0, len(self._levels) - 1))
        level = self._levels[index]
        # Pixels of the level per metre: its size is rounded, so that x and y differ a little.
        per_x, per_y = level.width / self.bounds[2], level.height / self.bounds[3]
        c, s = np.cos(yaw_rad) * metres_per_pixel, np.sin(yaw_rad) * metres_per_pixel
        # One pixel to the right is (s, -c) metres, one down is (-c, -s).
        matrix = np.array([[s * per_x, -c * per_x], [c * per_y, s * per_y]])
        middle = np.array([x * per_x, (self.bounds[3] - y) * per_y])
        corner = middle - matrix @ (width / 2, height / 2)  # of the picture, in the level's pixels
        reach = np.abs(matrix) @ (width / 2, height / 2)
        # What lies outside of the map is border, which need not be held.
        size = np.array([level.width, level.height])
        left, top = np.clip(np.floor(middle - reach) - 1, -1, size).astype(int)
        right, bottom = np.clip(np.ceil(middle + reach) + 1, 0, size + 1).astype(int)
        source = self._region(band, index, left, top, right, bottom)
        # OpenCV counts from the centres of pixels.
        offset = corner - (left, top) + matrix @ (0.5, 0.5) - 0.5
        return cv2.warpAffine(source, np.column_stack([matrix, offset]), (width, height),
                              flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT,
                              borderValue=_outside(band))

    def _region(self, band: int, index: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """A level's pixels [top, bottom) x [left, right), which may reach one pixel out of it."""
        level, step = self._levels[index], _BLOCK_PX
        region = np.full((bottom - top, right - left), _outside(band), np.uint8)
        for row in range(max(top, 0) // step, -(-min(bottom, level.height) // step)):
            for column in range(max(left, 0) // step, -(-min(right, level.width) // step)):
                block = self._block(band, index, row, column)
                y, x = row * step, column * step
                y0, y1 = max(top, y), min(bottom, y + block.shape[0])
                x0, x1 = max(left, x), min(right, x + block.shape[1])
                if y0 < y1 and x0 < x1:
                    region[y0 - top:y1 - top, x0 - left:x1 - left] = block[y0 - y:y1 - y, x0 - x:x1 - x]
        return region

    def _block(self, band: int, index: int, row: int, column: int) -> np.ndarray:
        key = (band, index, row, column)
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
            return block
        level, step = self._levels[index], _BLOCK_PX
        window = Window(column * step, row * step, min(step, level.width - column * step),
                        min(step, level.height - row * step))
        try:
            block = level.read(band, window=window)
        except RasterioError:
            raise self._broken() from None
        if band == _CLASSES and (unknown := (block >= CLASS_COUNT) & (block != NO_DATA)).any():
            raise MapError(f"{self.path}: holds pixels of the value {block[unknown][0]}, which is no class; make one "
                           "with: thermalreid map build")
        self._blocks[key] = block
        if len(self._blocks) > self._cache_blocks:
            self._blocks.popitem(last=False)
        return block

    def _broken(self) -> MapError:
        return MapError(f"{self.path}: broken off or changed while in use; build the map again")

    def _at(self, band: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        column = np.floor(x.ravel() / self.resolution_m)
        row = np.floor((self.bounds[3] - y.ravel()) / self.resolution_m)
        inside = (column >= 0) & (column < self.width_px) & (row >= 0) & (row < self.height_px)
        values = np.full(x.size, _outside(band), np.uint8)
        column, row = column[inside].astype(int), row[inside].astype(int)
        step = _BLOCK_PX
        found = np.empty(len(row), np.uint8)
        numbers = row // step * (self.width_px // step + 1) + column // step
        order = np.argsort(numbers, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(here):
                block_row, block_column = row[here[0]] // step, column[here[0]] // step
                block = self._block(band, 0, int(block_row), int(block_column))
                found[here] = block[row[here] - block_row * step, column[here] - block_column * step]
        values[inside] = found
        return values.reshape(x.shape)


def _is_upright_utm(raster: rasterio.DatasetReader) -> bool:
    """Degrees, and the metres of web maps, which shrink with the cosine of the latitude, would pass for metres."""
    zone = (raster.crs and raster.crs.to_epsg() or 0) - 32600
    step = raster.transform
    return zone in (*range(1, 61), *range(101, 161)) and step.b == step.d == 0.0 and step.a == -step.e > 0.0


def _outside(band: int) -> int:
    return NO_DATA if band == _CLASSES else 0
