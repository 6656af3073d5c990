"""What stands, lies and grows in a mapped area, as shapes: kept beside the map for whatever needs more than its raster.

Shapes are in metres on the grid of the map (its CRS, not shifted to a local origin). On disk they are GeoJSON in
WGS84, gzipped, one feature a line, `MAP.features.geojson.gz` beside `MAP.tif`.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from pyproj.exceptions import CRSError
from shapely import LineString, Point, Polygon, STRtree

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.classes import SemanticClass

FORMAT = "thermalreid features 1"
_DECIMALS = 8  # of degrees: about a millimetre


class FeaturesError(ThermalReidError):
    """A file of features that cannot be read."""


@dataclass(frozen=True)
class Building:
    """A block of one height: a building, a part of one, or what its parts leave of it."""

    polygon: Polygon
    height_m: float  # of the top, above the ground
    min_height_m: float = 0.0  # of the underside: above 0 where it stands on something else or in the air
    roof_shape: str = ""  # roof:shape: flat, gabled, hipped, pyramidal, skillion, dome...; '' is unknown
    roof_material: str = ""
    material: str = ""
    colour: str = ""
    roof_colour: str = ""
    kind: str = "yes"  # the value of building=* or building:part=*
    layer: int = 0


@dataclass(frozen=True)
class Road:
    """A way for traffic, along its middle line in the direction of its way."""

    line: LineString
    kind: str  # the value of highway=*; runway and taxiway are roads too
    width_m: float
    lanes: int
    oneway: bool
    surface: str = ""
    sidewalk: bool = False
    bridge: bool = False
    tunnel: bool = False  # of the kind that hides it from above; the map leaves it out
    layer: int = 0


@dataclass(frozen=True)
class Area:
    """A piece of ground of one cover."""

    polygon: Polygon
    kind: str  # normalised, see tags.AREAS: forest, grass, water, parking...
    semantic: SemanticClass
    layer: int = 0  # above 0 for decks that lie over roads


@dataclass(frozen=True)
class Tree:
    x: float
    y: float
    height_m: float
    kind: str = ""  # broadleaved, needleleaved or unknown

    @property
    def crown_radius_m(self) -> float:
        """As wide as trees in towns are for their height; the map draws this much of them."""
        return 0.28 * self.height_m


@dataclass(frozen=True)
class Railway:
    line: LineString
    width_m: float
    bridge: bool = False
    layer: int = 0


@dataclass(frozen=True)
class Features:
    """All features of an area. Areas lie on each other in their order, the last on top; roads by layer."""

    crs: str  # e.g. "EPSG:32632"
    buildings: tuple[Building, ...] = ()
    roads: tuple[Road, ...] = ()
    areas: tuple[Area, ...] = ()
    trees: tuple[Tree, ...] = ()
    railways: tuple[Railway, ...] = ()

    def clipped(self, bounds: tuple[float, float, float, float]) -> Features:
        """The features, whole, that touch (x_min, y_min, x_max, y_max), in their order."""
        box = shapely.box(*bounds)
        picked = {name: tuple(getattr(self, name)[i] for i in np.sort(tree.query(box, predicate="intersects")))
                  for name, tree in self._trees.items()}
        return Features(self.crs, **picked)

    @cached_property
    def _trees(self) -> dict[str, STRtree]:
        return {name: STRtree([_geometry(feature) for feature in getattr(self, name)]) for name in _KINDS}


_KINDS = {"buildings": Building, "roads": Road, "areas": Area, "trees": Tree, "railways": Railway}


def features_path(map_path: str | Path) -> Path:
    """Where the features of a map lie: MAP.features.geojson.gz beside MAP.tif."""
    return Path(map_path).with_suffix(".features.geojson.gz")


def write_features(path: str | Path, features: Features) -> None:
    """Write features to a file, whole or not at all; the same features make the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0, filename="") as packed:
        for line in _lines(features):
            packed.write(line.encode())
    write_atomically(path, buffer.getvalue())


def read_features(path: str | Path) -> Features:
    """Features from a file of write_features. FeaturesError, naming the file, for anything else."""
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            document = json.load(file)
        header = document["thermalreid"]
        if header["format"] != FORMAT:
            raise KeyError
        geometries = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in document["features"]])
        transformer = Transformer.from_crs("EPSG:4326", header["crs"], always_xy=True)
        geometries = shapely.transform(
            geometries, lambda lonlat: np.column_stack(transformer.transform(lonlat[:, 0], lonlat[:, 1])))
        found: dict[str, list] = {name: [] for name in _KINDS}
        for feature, geometry in zip(document["features"], np.atleast_1d(geometries)):
            values = dict(feature["properties"])
            found[values.pop("feature")].append((geometry, values))
        return Features(header["crs"], **{name: tuple(_feature(_KINDS[name], geometry, values)
                                                      for geometry, values in items)
                                          for name, items in found.items()})
    except FileNotFoundError:
        raise FeaturesError(f"{path}: no features beside the map; build it with: thermalreid map build") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, shapely.GEOSException, CRSError):
        raise FeaturesError(f"{path}: not a whole file of map features; build the map again with: "
                            "thermalreid map build") from None


def _lines(features: Features) -> Iterator[str]:
    transformer = Transformer.from_crs(features.crs, "EPSG:4326", always_xy=True)
    items = [(name, feature) for name in _KINDS for feature in getattr(features, name)]
    geometries = np.array([_geometry(feature) for _, feature in items], object)
    geometries = shapely.transform(geometries, lambda xy: np.round(
        np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])), _DECIMALS))
    header = json.dumps({"format": FORMAT, "crs": features.crs})
    yield f'{{"type": "FeatureCollection", "thermalreid": {header}, "features": [\n'
    for number, ((name, feature), geometry) in enumerate(zip(items, geometries)):
        shape = {"type": geometry.geom_type, "coordinates": _coordinates(geometry)}
        line = json.dumps({"type": "Feature", "geometry": shape, "properties": {"feature": name, **_values(feature)}},
                          ensure_ascii=False, separators=(",", ":"))
        yield line + (",\n" if number + 1 < len(items) else "\n")
    yield "]}\n"


def _coordinates(geometry: Polygon | LineString | Point) -> list:
    if isinstance(geometry, Polygon):
        return [shapely.get_coordinates(ring).tolist() for ring in (geometry.exterior, *geometry.interiors)]
    coordinates = shapely.get_coordinates(geometry).tolist()
    return coordinates[0] if isinstance(geometry, Point) else coordinates


def _geometry(feature: Any) -> Polygon | LineString | Point:
    if isinstance(feature, Tree):
        return Point(feature.x, feature.y)
    return feature.line if isinstance(feature, (Road, Railway)) else feature.polygon


def _values(feature: Any) -> dict[str, Any]:
    """The properties that differ from their defaults."""
    values = {}
    for field in dataclasses.fields(feature):
        value = getattr(feature, field.name)
        if field.name in ("polygon", "line", "x", "y") or value == field.default:
            continue
        values[field.name] = round(value, 3) if isinstance(value, float) else value
    return values


def _feature(kind: type, geometry: Polygon | LineString | Point, values: dict[str, Any]) -> Any:
    if kind is Tree:
        return Tree(geometry.x, geometry.y, **values)
    if kind is Area:
        values["semantic"] = SemanticClass(values["semantic"])
    return kind(geometry, **values)
