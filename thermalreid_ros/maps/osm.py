"""OpenStreetMap files (.osm.pbf, .osm, .osm.gz) as features on a metric grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import osmium
import shapely
from pyproj import Transformer
from shapely import LineString, Polygon, STRtree

from thermalreid_ros.camera.geometry import utm_zone
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps import tags as tagging
from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import Area, Building, Features, Railway, Road, Tree

SUFFIXES = (".osm.pbf", ".osm", ".osm.gz")
_AREA_KEYS = ("building", "building:part", "area:highway", "highway", *tagging.AREAS)
_TREE_ROW_STEP_M = 7.0


class OsmError(ThermalReidError):
    """A file that is no OpenStreetMap data, or that holds nothing of the wanted area."""


@dataclass
class OsmData:
    """The content of a file. Degrees are WGS84, shapes metres on the grid `features.crs`."""

    features: Features
    extent: Polygon  # where the file has data, metres
    timestamp: str  # of the newest data, ISO 8601
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class _Raw:
    """Shapes in degrees with the tags they had."""

    areas: list[tuple[bytes, dict[str, str], bool]] = field(default_factory=list)
    lines: list[tuple[np.ndarray, dict[str, str]]] = field(default_factory=list)
    points: list[tuple[float, float, dict[str, str]]] = field(default_factory=list)
    coastlines: list[np.ndarray] = field(default_factory=list)


def read_osm(path: str | Path, bbox: tuple[float, float, float, float] | None = None,
             progress: Callable[[int], object] = lambda count: None) -> OsmData:
    """Read a file, or the part of it in bbox = (west, south, east, north), degrees, with all that reaches into it.

    progress is called with the number of objects read since its last call. Raises OsmError, naming the file, where
    it is absent, broken, empty, or has nothing in bbox.
    """
    path = Path(path)
    if not path.is_file():
        raise OsmError(f"{path}: no such file of OpenStreetMap data")
    if not path.name.endswith(SUFFIXES):
        raise OsmError(f"{path}: not a known kind of OpenStreetMap file; use {', '.join(SUFFIXES)}")
    try:
        box, newest = _survey(path)
        if box is None:
            raise OsmError(f"{path}: holds no nodes; export the area again, with its data")
        wanted = box if bbox is None else (max(box[0], bbox[0]), max(box[1], bbox[1]),
                                           min(box[2], bbox[2]), min(box[3], bbox[3]))
        if not (wanted[0] < wanted[2] and wanted[1] < wanted[3]):
            raise OsmError(f"{path}: bbox {','.join(f'{value:g}' for value in bbox)} lies outside of its data, which "
                           f"reach from {box[0]:.5f},{box[1]:.5f} to {box[2]:.5f},{box[3]:.5f} (longitude,latitude)")
        raw = _read_raw(path, wanted if bbox is not None else None, progress)
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, ThermalReidError):
            raise
        detail = " ".join(str(error).split())
        raise OsmError(f"{path}: broken or no OpenStreetMap data ({detail}); fetch it again") from None
    crs = utm_zone((wanted[1] + wanted[3]) / 2, (wanted[0] + wanted[2]) / 2)
    transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)

    def project(lonlat: np.ndarray) -> np.ndarray:
        return np.column_stack(transformer.transform(lonlat[:, 0], lonlat[:, 1]))

    extent = shapely.transform(shapely.segmentize(shapely.box(*wanted), 0.002), project)
    return OsmData(_features(raw, crs, project), extent, newest)


def _survey(path: Path) -> tuple[tuple[float, float, float, float] | None, str]:
    """(the box of the data, the time of the newest): from the header, else from the nodes without far outliers."""
    with osmium.io.Reader(str(path), osmium.osm.osm_entity_bits.NOTHING) as reader:
        header = reader.header()
        box, stamp = header.box(), header.get("osmosis_replication_timestamp")
    corners = None
    if box.valid():
        corners = (box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)
    if corners is not None and stamp:
        return corners, stamp
    lonlat, newest = [], None
    for node in osmium.FileProcessor(str(path), osmium.osm.NODE):
        if corners is None and node.location.valid():
            lonlat.append((node.location.lon_without_check(), node.location.lat_without_check()))
        newest = node.timestamp if newest is None else max(newest, node.timestamp)
    stamp = stamp or (newest.strftime("%Y-%m-%dT%H:%M:%SZ") if newest is not None else "")
    if corners is None and lonlat:
        # Ways and relations that reach far out of an extract bring their nodes with them.
        nodes = np.array(lonlat)
        low, high = np.quantile(nodes, (0.01, 0.99), axis=0)
        near = (np.abs(nodes - (low + high) / 2) <= 0.75 * (high - low)).all(axis=1)
        corners = (*nodes[near].min(axis=0), *nodes[near].max(axis=0)) if near.any() else None
    return corners, stamp


def _read_raw(path: Path, bbox: tuple[float, float, float, float] | None, progress: Callable[[int], object]) -> _Raw:
    raw, wkb = _Raw(), osmium.geom.WKBFactory()
    inside = None if bbox is None else shapely.box(*bbox)
    entities = osmium.FileProcessor(str(path)).with_areas(osmium.filter.KeyFilter(*_AREA_KEYS))
    for count, entity in enumerate(entities.with_filter(osmium.filter.EmptyTagFilter())):
        if count % 4096 == 0:
            progress(4096)
        if entity.is_node():
            if entity.tags.get("natural") == "tree" and entity.location.valid():
                raw.points.append((entity.lon, entity.lat, dict(entity.tags)))
        elif entity.is_way():
            if any(key in entity.tags for key in ("highway", "railway", "waterway", "natural", "aeroway", "man_made",
                                                  "barrier")):
                tags = dict(entity.tags)
                for line in _runs(entity):
                    (raw.coastlines.append(line) if tags.get("natural") == "coastline"
                     else raw.lines.append((line, tags)))
        elif entity.is_area():
            tags = dict(entity.tags)
            if tagging.is_building(tags) or tagging.area_kind(tags, not entity.from_way()):
                try:
                    raw.areas.append((wkb.create_multipolygon(entity), tags, not entity.from_way()))
                except (RuntimeError, osmium.InvalidLocationError):
                    continue  # a ring without all its nodes is no shape
    if inside is not None:
        west, south, east, north = bbox
        raw.points = [item for item in raw.points if west <= item[0] <= east and south <= item[1] <= north]
        raw.lines = [item for item in raw.lines if _touches(item[0], bbox)]
        raw.coastlines = [line for line in raw.coastlines if _touches(line, bbox)]
        if raw.areas:
            near = shapely.intersects(shapely.from_wkb([item[0] for item in raw.areas]), inside)
            raw.areas = [item for item, hit in zip(raw.areas, near) if hit]
    return raw


def _runs(way: osmium.osm.Way) -> list[np.ndarray]:
    """The way's nodes in degrees (N, 2), cut where an extract has left some out."""
    lonlat = np.array([(node.location.lon_without_check(), node.location.lat_without_check())
                       if node.location.valid() else (np.nan, np.nan) for node in way.nodes], np.float64)
    if not len(lonlat):
        return []
    good = np.isfinite(lonlat[:, 0])
    if not good.all():
        edges = np.flatnonzero(np.diff(good)) + 1
        return [run for run in np.split(lonlat, edges) if np.isfinite(run[0, 0]) and len(run) > 1]
    return [lonlat] if len(lonlat) > 1 else []


def _touches(line: np.ndarray, bbox: tuple[float, float, float, float]) -> bool:
    low, high = line.min(axis=0), line.max(axis=0)
    return low[0] <= bbox[2] and high[0] >= bbox[0] and low[1] <= bbox[3] and high[1] >= bbox[1]


def _features(raw: _Raw, crs: str, project: Callable[[np.ndarray], np.ndarray]) -> Features:
    buildings, parts, areas = [], [], []
    shapes = shapely.from_wkb([item[0] for item in raw.areas]) if raw.areas else np.array([], object)
    shapes = shapely.make_valid(shapely.transform(shapes, project))
    for shape, (_, tags, from_relation) in zip(shapes, raw.areas):
        polygons = _polygons([shape])
        if tagging.is_building(tags):
            for polygon in polygons:
                (parts if not tagging.is_set(tags, "building") else buildings).append(_building(polygon, tags))
        elif found := tagging.area_kind(tags, from_relation):
            layer = max(tagging.layer_of(tags), 0) if found[0] in tagging.ON_WATER else 0
            areas.extend(Area(polygon, *found, layer=layer) for polygon in polygons)
    roads, railways, trees = [], [], []
    for lonlat, tags in raw.lines:
        line = LineString(project(lonlat))
        closed = len(lonlat) > 3 and (lonlat[0] == lonlat[-1]).all()
        if (kind := tagging.road_kind(tags)) is not None:
            width, lanes, oneway = tagging.road_size(kind, tags)
            roads.append(Road(line.reverse() if tags.get("oneway") == "-1" else line, kind, width, lanes, oneway,
                              tags.get("surface", ""), tagging.has_sidewalk(tags), tagging.is_set(tags, "bridge"),
                              tagging.is_tunnel(tags), tagging.layer_of(tags)))
        elif (width := tagging.railway_width(tags)) is not None:
            railways.append(Railway(line, width, tagging.is_set(tags, "bridge"), tagging.layer_of(tags)))
        elif (width := tagging.waterway_width(tags)) is not None:
            areas.extend(Area(polygon, "water", SemanticClass.WATER) for polygon in _polygons([line.buffer(width / 2)]))
        elif tags.get("natural") == "tree_row":
            count = int(line.length // _TREE_ROW_STEP_M) + 1
            trees.extend(Tree(point.x, point.y, tagging.tree_height(tags), tagging.tree_kind(tags))
                         for point in (line.interpolate((i + 0.5) / count, normalized=True) for i in range(count)))
        elif not (closed and tags.get("area") != "no") or tags.get("barrier") == "hedge":
            for key, value, width, kind, semantic in (
                    ("barrier", "hedge", 1.5, "hedge", SemanticClass.VEGETATION),
                    ("man_made", "pier", 4.0, "pier", SemanticClass.ROAD),
                    ("man_made", "breakwater", 6.0, "bare", SemanticClass.GROUND),
                    ("man_made", "groyne", 4.0, "bare", SemanticClass.GROUND)):
                if tags.get(key) == value:
                    areas.extend(Area(polygon, kind, semantic) for polygon in _polygons([line.buffer(width / 2)]))
    points = project(np.array([item[:2] for item in raw.points])) if raw.points else ()
    trees.extend(Tree(float(x), float(y), tagging.tree_height(tags), tagging.tree_kind(tags))
                 for (x, y), (_, _, tags) in zip(points, raw.points))
    roads.sort(key=lambda road: road.layer)
    railways.sort(key=lambda railway: railway.layer)
    return Features(crs, tuple(_without_parts(buildings, parts)), tuple(roads), tuple(_stacked(areas)), tuple(trees),
                    tuple(railways))


def _building(polygon: Polygon, tags: dict[str, str]) -> Building:
    height, bottom = tagging.building_heights(tags, polygon.area)
    kind = tags["building"] if tagging.is_set(tags, "building") else tags["building:part"]
    return Building(polygon, height, bottom, tags.get("roof:shape", ""), tags.get("roof:material", ""),
                    tags.get("building:material", ""), tags.get("building:colour", ""), tags.get("roof:colour", ""),
                    kind, max(tagging.layer_of({"layer": tags.get("layer", "0")}), 0))


def _without_parts(buildings: list[Building], parts: list[Building]) -> list[Building]:
    """Buildings, each without the ground that its parts stand on (Simple 3D Buildings), and the parts."""
    if not parts:
        return buildings
    tree, result = STRtree([part.polygon for part in parts]), []
    for building in buildings:
        hits = np.sort(tree.query(building.polygon, predicate="intersects"))
        if not len(hits):
            result.append(building)
            continue
        rest = building.polygon.difference(shapely.union_all([parts[i].polygon for i in hits]))
        result.extend(dataclasses.replace(building, polygon=polygon) for polygon in _polygons([rest])
                      if polygon.buffer(-0.25).area > 1.0)
    return result + parts


def _stacked(areas: list[Area]) -> list[Area]:
    """Bottom to top: land, then water, then what stands in water; within these the larger below the smaller."""
    def rank(area: Area) -> tuple[int, int, float]:
        group = 1 if area.semantic == SemanticClass.WATER else 2 if area.kind in tagging.ON_WATER else 0
        return area.layer, group, -area.polygon.area
    return sorted(areas, key=rank)


def _polygons(shapes: Iterable[shapely.Geometry]) -> list[Polygon]:
    """The polygons of shapes, without slivers."""
    flat = shapely.get_parts(shapely.get_parts(list(shapes)))
    return [shape for shape in flat if isinstance(shape, Polygon) and shape.area > 0.05]
