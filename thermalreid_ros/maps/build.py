"""Semantic maps from features: drawn in windows, written as a cloud-optimised GeoTIFF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from rasterio._err import CPLE_BaseError  # rasterio lets GDAL's own errors through where it copies
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely import Point, Polygon, STRtree

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import Features, features_path, write_features
from thermalreid_ros.maps.osm import read_osm
from thermalreid_ros.maps.store import ATTRIBUTION, CLASS_TABLE, FORMAT
from thermalreid_ros.maps.tags import SIDEWALK_M

HEIGHT_CAP_M = 254
_WINDOW_PX = 4096
_WIDEST_PX = 2_000_000
_COG = {"driver": "COG", "compress": "deflate", "level": 6, "blocksize": 512, "overview_resampling": "mode",
        "resampling": "nearest", "bigtiff": "if_safer"}


class MapBuildError(ThermalReidError):
    """A map that cannot be drawn or written as asked."""


def build_map(osm_path: str | Path, map_path: str | Path, *, bbox: tuple[float, float, float, float] | None = None,
              resolution_m: float = 0.5, progress: Callable[[str, float], object] = lambda *_: None) -> None:
    """Draw the semantic map of an OpenStreetMap file, or of its part in bbox (west, south, east, north; degrees).

    Writes map_path (band 1 classes, band 2 building heights in metres) and its features beside it, both whole or
    not at all. progress(stage, share done) is called as the work goes on. Raises OsmError or MapBuildError, which
    name the file and the fault.
    """
    map_path = Path(map_path)
    if map_path.suffix.lower() not in (".tif", ".tiff"):
        raise MapBuildError(f"{map_path}: a map is a GeoTIFF; name it something.tif")
    if not map_path.absolute().parent.is_dir():
        raise MapBuildError(f"{map_path.absolute().parent}: no such folder for the map; make it first")
    if map_path.is_dir():
        raise MapBuildError(f"{map_path}: is a folder; name a file")
    progress("reading", 0.0)
    data = read_osm(osm_path, bbox, lambda count: progress(f"reading, {count / 1e6:.2f} M ways", 0.0))
    features = data.features
    grid = _Grid.around(data.frame, resolution_m)
    if max(grid.width, grid.height) > _WIDEST_PX:
        raise MapBuildError(f"{map_path}: {grid.width} x {grid.height} px at {resolution_m:g} m; a map is at most "
                            f"{_WIDEST_PX} px wide and high: choose a coarser resolution or a smaller bbox")
    try:
        with tempfile.TemporaryDirectory(dir=map_path.absolute().parent, prefix=f".{map_path.name}.") as folder:
            plain, cog = Path(folder) / "plain.tif", Path(folder) / "map.tif"
            painter = _Painter(features, data.extent)
            windows = list(grid.windows())
            with rasterio.open(plain, "w", driver="GTiff", width=grid.width, height=grid.height, count=2,
                               dtype="uint8", crs=features.crs, transform=grid.transform, nodata=NO_DATA, tiled=True,
                               blockxsize=512, blockysize=512, compress="deflate", zlevel=1,
                               bigtiff="if_safer") as raster:
                raster.descriptions = ("class", "building height in metres")
                for number, window in enumerate(windows):
                    progress("drawing", 0.1 + 0.5 * number / len(windows))
                    raster.write(np.stack(painter.draw(grid, window)), window=window)
                raster.update_tags(FORMAT=FORMAT, CLASSES=CLASS_TABLE, ATTRIBUTION=ATTRIBUTION,
                                   OSM_TIMESTAMP=data.timestamp, SOFTWARE="thermalreid map build")
            progress("writing", 0.6)
            rasterio.shutil.copy(plain, cog, **_COG)
            try:
                write_features(features_path(cog), features)
            except ThermalReidError as error:  # which names a file of the folder
                raise OSError(str(error).rpartition("(")[2].rstrip(")")) from None
            os.replace(features_path(cog), features_path(map_path))
            os.replace(cog, map_path)
    except (OSError, RasterioError, CPLE_BaseError) as error:
        detail = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MapBuildError(f"{map_path}: cannot be written ({detail})") from None
    progress("done", 1.0)


@dataclass(frozen=True)
class _Grid:
    left: float
    top: float
    width: int
    height: int
    resolution_m: float

    @classmethod
    def around(cls, bounds: tuple[float, float, float, float], resolution_m: float) -> _Grid:
        """The smallest grid of whole multiples of the resolution that holds (x_min, y_min, x_max, y_max)."""
        x_min, y_min, x_max, y_max = np.array(bounds) / resolution_m
        left, top = np.floor(x_min), np.ceil(y_max)
        return cls(left * resolution_m, top * resolution_m, int(np.ceil(x_max) - left), int(top - np.floor(y_min)),
                   resolution_m)

    @property
    def transform(self) -> Affine:
        return Affine(self.resolution_m, 0, self.left, 0, -self.resolution_m, self.top)

    def windows(self) -> Iterator[Window]:
        for row in range(0, self.height, _WINDOW_PX):
            for column in range(0, self.width, _WINDOW_PX):
                yield Window(column, row, min(_WINDOW_PX, self.width - column), min(_WINDOW_PX, self.height - row))


class _Painter:
    """Draws features over each other, from the lowest layer up; in a layer land, water, decks, rails, roads, trees,
    buildings."""

    def __init__(self, features: Features, extent: Polygon):
        shapes: list[tuple[tuple[int, int], shapely.Geometry, int, int]] = []  # (layer, rank), shape, class, height
        for area in features.areas:
            shapes.append(((area.layer, 0), area.polygon, area.semantic, 0))
        for railway in features.railways:
            shapes.append(((max(railway.layer, 0), 1), _strip(railway.line, railway.width_m), SemanticClass.GROUND, 0))
        for road in features.roads:
            if not road.tunnel:
                width = road.width_m + (2 * SIDEWALK_M if road.sidewalk else 0.0)
                shapes.append(((max(road.layer, 0), 2), _strip(road.line, width), SemanticClass.ROAD, 0))
        for tree in features.trees:
            crown = Point(tree.x, tree.y).buffer(tree.crown_radius_m, quad_segs=4)
            shapes.append(((0, 3), crown, SemanticClass.VEGETATION, 0))
        for building in features.buildings:
            height = int(min(max(round(building.height_m), 1), HEIGHT_CAP_M))
            shapes.append(((building.layer, 4), building.polygon, SemanticClass.BUILDING, height))
        order = sorted(range(len(shapes)), key=lambda i: shapes[i][0])
        self._shapes = [shapes[i][1] for i in order]
        self._values = np.array([shapes[i][2:] for i in order], np.uint8).reshape(-1, 2)
        self._tree = STRtree(self._shapes)
        self._extent = extent

    def draw(self, grid: _Grid, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """(classes, heights), uint8 (rows, columns), of a window; a pixel is what covers its centre."""
        step = grid.resolution_m
        x, y = grid.left + window.col_off * step, grid.top - window.row_off * step
        transform = Affine(step, 0, x, 0, -step, y)
        box = shapely.box(x, y - window.height * step, x + window.width * step, y)
        hits = np.sort(self._tree.query(box, predicate="intersects"))
        size = (int(window.height), int(window.width))
        bands = []
        for band in range(2):
            image = np.zeros(size, np.uint8)
            shapes = [(self._shapes[i], int(self._values[i, band])) for i in hits]
            if shapes:
                rasterize(shapes, out=image, transform=transform)
            bands.append(image)
        if not self._extent.contains(box):
            inside = rasterize([self._extent], out_shape=size, transform=transform, default_value=1, dtype="uint8")
            bands = [np.where(inside, image, np.uint8(fill)) for image, fill in zip(bands, (NO_DATA, 0))]
        return bands[0], bands[1]


def _strip(line: shapely.LineString, width_m: float) -> Polygon:
    return line.buffer(width_m / 2, quad_segs=4)
