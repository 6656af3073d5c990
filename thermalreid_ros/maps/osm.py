"""OpenStreetMap files (.osm.pbf, .osm, .osm.gz) as features on a metric grid."""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import osmium
import shapely
from pyproj import Transformer
from shapely import LineString, Polygon, STRtree

from thermalreid_ros.camera.geometry import utm_zone
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps import assembly
from thermalreid_ros.maps import tags as tagging
from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import Area, Building, Features, Railway, Road, Tree

SUFFIXES = (".osm.pbf", ".osm", ".osm.gz")
_WAY_KEYS = ("building", "building:part", "area:highway", "highway", *tagging.AREAS)
_LINE_KEYS = ("highway", "railway", "waterway", "natural", "aeroway", "barrier", "man_made")
_TREE_ROW_STEP_M = 7.0
_MARGIN_DEG = 0.0005
_REGION_DEG = 0.5
_HEAD_BYTES = 1 << 18  # of an XML file, before its first node
_WIDEST_DEG = 6.0  # as wide as a UTM zone
_EDGE_STEP_DEG = 0.002  # of edges that are straight in degrees and not in metres


class OsmError(ThermalReidError):
    """A file that is no OpenStreetMap data, or that holds nothing of the wanted area."""


@dataclass(frozen=True)
class OsmData:
    """The content of a file. Shapes are in metres on the grid `features.crs`."""

    features: Features
    extent: Polygon  # where the file has data
    frame: tuple[float, float, float, float]  # (x_min, y_min, x_max, y_max) of what was asked for
    timestamp: str  # of the newest data, ISO 8601


@dataclass
class _Way:
    runs: list[np.ndarray]  # degrees (N, 2); more than one where an extract has left out nodes
    whole: bool
    closed: bool
    tags: dict[str, str]


@dataclass
class _Raw:
    """What a file holds of an area, in degrees (longitude, latitude)."""

    areas: list[tuple[shapely.Geometry, dict[str, str], bool]] = field(default_factory=list)  # tags, from a relation
    lines: list[tuple[np.ndarray, dict[str, str], bool]] = field(default_factory=list)  # tags, closed
    trees: list[tuple[float, float, dict[str, str]]] = field(default_factory=list)
    coastlines: list[np.ndarray] = field(default_factory=list)


def read_osm(path: str | Path, bbox: tuple[float, float, float, float] | None = None,
             progress: Callable[[int], object] = lambda count: None) -> OsmData:
    """Read a file, or the part of it in bbox = (west, south, east, north), degrees, with all that reaches into it.

    progress is called now and then with the number of ways read. Raises OsmError, naming the file, where it is
    absent, broken, empty, or has nothing in bbox.
    """
    path = Path(path)
    if not path.is_file():
        raise OsmError(f"{path}: no such file of OpenStreetMap data")
    if not path.name.endswith(SUFFIXES):
        raise OsmError(f"{path}: not a known kind of OpenStreetMap file; use {', '.join(SUFFIXES)}")
    try:
        box, timestamp = _survey(path, bbox)
        if box is None:
            raise OsmError(f"{path}: holds no nodes; export the area again, with its data")
        wanted = box if bbox is None else (max(box[0], bbox[0]), max(box[1], bbox[1]),
                                           min(box[2], bbox[2]), min(box[3], bbox[3]))
        if bbox is None and not (wanted[0] < wanted[2] and wanted[1] < wanted[3]):
            raise OsmError(f"{path}: its nodes span no area; export the area again, with its data")
        if not (wanted[0] < wanted[2] and wanted[1] < wanted[3]):
            raise OsmError(f"{path}: bbox {','.join(f'{value:g}' for value in bbox)} lies outside of its data, which "
                           f"reach from {box[0]:.5f},{box[1]:.5f} to {box[2]:.5f},{box[3]:.5f} (longitude,latitude)")
        if max(wanted[2] - wanted[0], wanted[3] - wanted[1]) > _WIDEST_DEG or wanted[1] < -80.0 or wanted[3] > 84.0:
            raise OsmError(f"{path}: reaches from {wanted[0]:.5f},{wanted[1]:.5f} to {wanted[2]:.5f},{wanted[3]:.5f} "
                           f"(longitude,latitude); a map is at most {_WIDEST_DEG:g} degrees wide and high, on one side "
                           "of the 180th meridian, and between 80 south and 84 north: give --bbox")
        crs = utm_zone((wanted[1] + wanted[3]) / 2, (wanted[0] + wanted[2]) / 2)
        transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)

        def project(lonlat: np.ndarray) -> np.ndarray:
            return np.column_stack(transformer.transform(lonlat[:, 0], lonlat[:, 1]))

        def outline(degrees: tuple[float, float, float, float]) -> Polygon:
            return shapely.segmentize(shapely.box(*degrees), _EDGE_STEP_DEG)

        # North of the grid is not true north: the upright rectangle around bbox reaches out of it, by a pixel more.
        frame = shapely.transform(outline(wanted), project).bounds
        west, south, east, north = transformer.transform_bounds(*frame, direction="INVERSE")
        if west > east:  # it looks over the 180th meridian, beyond which there is nothing of this side
            west, east = (west, 180.0) if wanted[2] > 0.0 else (-180.0, east)
        reach = (max(west - _MARGIN_DEG, box[0]), max(south - _MARGIN_DEG, box[1]),
                 min(east + _MARGIN_DEG, box[2]), min(north + _MARGIN_DEG, box[3]))
        # Coasts and cut outlines farther away do not matter.
        region = (max(reach[0] - _REGION_DEG, box[0]), max(reach[1] - _REGION_DEG, box[1]),
                  min(reach[2] + _REGION_DEG, box[2]), min(reach[3] + _REGION_DEG, box[3]))
        raw = _read(path, region, reach, progress)
        if not (raw.areas or raw.lines or raw.trees or raw.coastlines) and not any(_pass(path, osmium.osm.NODE)):
            raise OsmError(f"{path}: tells of an area, but holds no nodes; export it again, with its data")
    except (RuntimeError, ValueError, OSError, osmium.InvalidLocationError) as error:
        if isinstance(error, ThermalReidError):
            raise
        detail = " ".join(str(error).split())
        raise OsmError(f"{path}: broken or no OpenStreetMap data ({detail}); fetch it again") from None
    water = shapely.union_all(assembly.sea(raw.coastlines, shapely.box(*region))).intersection(outline(reach))
    raw.areas.insert(0, (shapely.segmentize(water, _EDGE_STEP_DEG), {"natural": "water"}, True))
    return OsmData(_features(raw, crs, project), shapely.transform(outline(reach), project), frame, timestamp)


def _survey(path: Path, bbox: tuple[float, float, float, float] | None) -> tuple[
        tuple[float, float, float, float] | None, str]:
    """(the box of the data, the time of the newest): from the header, else from the data, without far outliers. What is
    wanted of it, bbox or all, must be full of data."""
    with osmium.io.Reader(str(path), osmium.osm.osm_entity_bits.NOTHING) as reader:
        header = reader.header()
        box, stamp = header.box(), header.get("osmosis_replication_timestamp")
    corners = None
    if box.valid():
        corners = (box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)
        boxes = _boxes(path) if _is_xml(path) else []
        if len(boxes) > 1:  # editors write one for each part that they fetched; osmium tells the first
            union = shapely.union_all([shapely.box(*part) for part in boxes])
            corners = union.bounds
            wanted = shapely.box(*corners) if bbox is None else shapely.box(*corners).intersection(shapely.box(*bbox))
            if union.intersection(wanted).area < 0.999 * wanted.area:
                told = "; ".join(",".join(f"{edge:.5f}" for edge in part) for part in boxes[:4])
                raise OsmError(f"{path}: holds {len(boxes)} boxes with nothing between them; give --bbox within one: "
                               f"{told}{' ...' * (len(boxes) > 4)} (longitude,latitude)")
    if corners is not None and stamp:
        return corners, stamp
    lonlat, newest = [], ""
    for entity in osmium.FileProcessor(str(path)):
        newest = max(newest, entity.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"))
        if corners is None and entity.is_node() and entity.location.valid():
            lonlat.append((entity.lon, entity.lat))
    if corners is None and lonlat:
        # Ways and relations that reach far out of an extract bring their nodes with them.
        nodes = np.array(lonlat)
        low, high = np.quantile(nodes, (0.01, 0.99), axis=0)
        near = nodes[(np.abs(nodes - (low + high) / 2) <= 0.75 * (high - low)).all(axis=1)]
        corners = (*near.min(axis=0).tolist(), *near.max(axis=0).tolist()) if len(near) else None
    return corners, stamp or ("" if newest.startswith("1970") else newest)  # 1970: a file without times


def _boxes(path: Path) -> list[tuple[float, float, float, float]]:
    """All that the head of an XML file says of where its data are: (west, south, east, north)."""
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
        head = re.split(rb"<(?:node|way|relation)\b", file.read(_HEAD_BYTES), maxsplit=1)[0].decode(errors="replace")
    boxes = []
    for element in re.findall(r"<bounds\b[^>]*>", head):
        said = dict(re.findall(r"(\w+)=[\"']([-+.\deE]+)[\"']", element))
        if {"minlon", "minlat", "maxlon", "maxlat"} <= said.keys():
            boxes.append(tuple(float(said[key]) for key in ("minlon", "minlat", "maxlon", "maxlat")))
    return boxes


def _read(path: Path, region: tuple[float, float, float, float], wanted: tuple[float, float, float, float],
          progress: Callable[[int], object]) -> _Raw:
    """The part of a file that touches `wanted`, and the coastlines of `region`, which the data fill."""
    relations = []
    for relation in _pass(path, osmium.osm.RELATION):
        if relation.tags.get("type") == "multipolygon":
            tags, members = dict(relation.tags), [(m.ref, m.role) for m in relation.members if m.type == "w"]
            if _meaning(tags, True) or not any(key in tags for key in ("boundary", "admin_level", "place", "route")):
                relations.append((tags, members))
    member_ids = {ref for _, members in relations for ref, _ in members}
    raw, ways = _Raw(), {}
    # Nodes before ways, in passes of their own: files of Overpass have them the other way round, and unsorted.
    nodes = _pass(path, osmium.osm.NODE).with_locations("sparse_mem_map" if _is_xml(path) else "flex_mem")
    drafts: dict[int, tuple[float, float]] = {}  # nodes of editors that were never uploaded have negative numbers
    for node in nodes if _is_xml(path) else nodes.with_filter(osmium.filter.KeyFilter("natural")):
        if not node.location.valid():
            continue
        if node.id < 0:
            drafts[node.id] = (node.lon, node.lat)
        if node.tags.get("natural") == "tree" and \
                wanted[0] <= node.lon <= wanted[2] and wanted[1] <= node.lat <= wanted[3]:
            raw.trees.append((node.lon, node.lat, dict(node.tags)))
    locations = osmium.NodeLocationsForWays(nodes.node_location_storage)
    locations.ignore_errors()
    for count, entity in enumerate(_pass(path, osmium.osm.WAY).with_filter(locations)):
        if count % 20000 == 0:
            progress(count)
        if entity.id in member_ids or any(key in entity.tags for key in _WAY_KEYS):
            way = _way(entity, drafts)
            if way.tags.get("natural") == "coastline" and _touches(way.runs, region):
                raw.coastlines.extend(way.runs)
            if entity.id in member_ids or _touches(way.runs, wanted):
                ways[entity.id] = way
    _assemble(raw, relations, ways, region, wanted)
    return raw


def _pass(path: Path, kind: osmium.osm.osm_entity_bits) -> osmium.FileProcessor:
    """All objects of a kind. Reading only that kind is faster, but ends early in XML that is not in the usual order."""
    if _is_xml(path):
        return osmium.FileProcessor(str(path)).with_filter(osmium.filter.EntityFilter(kind))
    return osmium.FileProcessor(str(path), kind)


def _is_xml(path: Path) -> bool:
    return not path.name.endswith(".pbf")


def _way(entity: osmium.osm.Way, drafts: dict[int, tuple[float, float]]) -> _Way:
    nodes = list(entity.nodes)
    lonlat = np.array([(node.location.lon_without_check(), node.location.lat_without_check())
                       if node.location.valid() else drafts.get(node.ref, (np.nan, np.nan)) for node in nodes],
                      np.float64).reshape(-1, 2)
    good = np.isfinite(lonlat[:, 0])
    runs = np.split(lonlat, np.flatnonzero(np.diff(good)) + 1) if not good.all() else [lonlat]
    runs = [run for run in runs if len(run) > 1 and np.isfinite(run[0, 0])]
    return _Way(runs, bool(good.all()), len(nodes) > 3 and nodes[0].ref == nodes[-1].ref, dict(entity.tags))


def _touches(runs: list[np.ndarray], box: tuple[float, float, float, float]) -> bool:
    low, high = zip(*((run.min(axis=0), run.max(axis=0)) for run in runs)) if runs else ((), ())
    return any(a[0] <= box[2] and b[0] >= box[0] and a[1] <= box[3] and b[1] >= box[1] for a, b in zip(low, high))


def _assemble(raw: _Raw, relations: list[tuple[dict[str, str], list[tuple[int, str]]]], ways: dict[int, _Way],
              region: tuple[float, float, float, float], wanted: tuple[float, float, float, float]) -> None:
    """Fill raw.areas and raw.lines from ways and multipolygons."""
    drawn: set[int] = set()  # ways whose area a relation has drawn: with the same tags, perhaps instead of it
    cut: list[tuple[list[np.ndarray], dict[str, str], bool]] = []
    for tags, members in relations:
        present = {ref: role for ref, role in members if ref in ways}
        outers = [ref for ref, role in present.items() if role != "inner"]
        meaning = _meaning(tags, True)
        if meaning is None:  # before 2017 the tags of a multipolygon stood on its outer ways
            tagged = [ways[ref].tags for ref in outers if _meaning(ways[ref].tags, True)]
            if not tagged:
                continue
            tags, meaning = tagged[0], _meaning(tagged[0], True)
        drawn.update(ref for ref in outers if _meaning(ways[ref].tags, True) == meaning)
        runs = [run for ref in sorted(present) for run in ways[ref].runs]
        if not runs or not _touches([np.concatenate(runs)], wanted):
            continue
        complete = len(present) == len({ref for ref, _ in members}) and all(ways[ref].whole for ref in present)
        if complete or not assembly.is_closed(runs):
            shape = assembly.area_of(runs) if complete else Polygon()
        else:  # whole rings, but not all of them: those left out may lie elsewhere
            shape = assembly.area_of([run for ref in outers for run in ways[ref].runs])
            shape = shape.difference(assembly.area_of([run for ref in sorted(set(present) - set(outers))
                                                       for run in ways[ref].runs]))
        if not shape.is_empty:
            raw.areas.append((shape, tags, True))
        elif meaning[0] != "building" and not assembly.is_closed(runs):  # nothing is known of half a building
            cut.append((runs, tags, True))
    for ref, way in ways.items():
        meaning = _meaning(way.tags, False) if way.closed and way.tags.get("area") != "no" else None
        if meaning is not None and ref not in drawn:
            if way.whole:
                raw.areas.append((Polygon(way.runs[0]), way.tags, False))
            elif meaning[0] != "building":
                cut.append((way.runs, way.tags, False))
            elif len(corners := np.concatenate([np.zeros((0, 2)), *way.runs])) > 2:
                raw.areas.append((Polygon(corners), way.tags, False))
        if any(key in way.tags for key in _LINE_KEYS):
            raw.lines.extend((run, way.tags, way.closed) for run in way.runs)
    if cut:
        evidence, extent = _Evidence(raw), shapely.box(*region)
        for runs, tags, from_relation in cut:
            polygons = assembly.area_of_cut(runs, extent, evidence.misfit(tags, from_relation))
            raw.areas.extend((polygon, tags, from_relation) for polygon in polygons)
    shapes = shapely.make_valid(np.array([shape for shape, _, _ in raw.areas], object))
    raw.areas = [(shape, *rest) for shape, (_, *rest), near in
                 zip(shapes, raw.areas, shapely.intersects(shapes, shapely.box(*wanted))) if near]
    raw.lines = [line for line in raw.lines if _touches([line[0]], wanted)]


def _meaning(tags: dict[str, str], from_relation: bool) -> tuple | None:
    """What an area with these tags is drawn as; None where it is not."""
    if tagging.is_building(tags):
        return ("building", tagging.is_set(tags, "building"))
    return tagging.area_kind(tags, from_relation)


class _Evidence:
    """Tells on which side of a cut outline its area lies: houses stand in settlements, not in woods and on squares."""

    def __init__(self, raw: _Raw):
        built = [shape.centroid.coords[0] for shape, tags, _ in raw.areas if tagging.is_building(tags)]
        roads = [run for run, tags, _ in raw.lines if tagging.road_kind(tags) and tagging.layer_of(tags) == 0]
        rivers = [run for run, tags, _ in raw.lines if tagging.waterway_width(tags)]
        self._built = shapely.points(np.array(built).reshape(-1, 2))
        self._roads = shapely.points(np.concatenate([*roads, np.zeros((0, 2))]))
        self._rivers = shapely.points(np.concatenate([*rivers, np.zeros((0, 2))]))

    def misfit(self, tags: dict[str, str], from_relation: bool) -> Callable[[list[Polygon]], float]:
        kind, semantic = tagging.area_kind(tags, from_relation)

        def misfit(polygons: list[Polygon]) -> float:
            shape = shapely.union_all(polygons)
            shapely.prepare(shape)
            built, roads, rivers = (float(shapely.contains(shape, points).sum()) / max(len(points), 1)
                                    for points in (self._built, self._roads, self._rivers))
            if semantic == SemanticClass.WATER:
                return built + roads - rivers
            # A settlement is the denser side, however small; all else is the side with the fewer houses.
            return -built / max(shape.area, 1e-12) if kind in tagging.SETTLEMENTS else built
        return misfit


def _features(raw: _Raw, crs: str, project: Callable[[np.ndarray], np.ndarray]) -> Features:
    buildings, parts, areas = [], [], []
    shapes = shapely.make_valid(shapely.transform(np.array([item[0] for item in raw.areas], object), project))
    for shape, (_, tags, from_relation) in zip(shapes, raw.areas):
        polygons = _polygons(shape)
        if tagging.is_building(tags):
            group = buildings if tagging.is_set(tags, "building") else parts
            group.extend(_building(polygon, tags) for polygon in polygons)
        else:
            kind, semantic = tagging.area_kind(tags, from_relation)
            layer = max(tagging.layer_of(tags), 0) if kind in tagging.ON_WATER else 0
            areas.extend(Area(polygon, kind, semantic, layer) for polygon in polygons)
    roads, railways, trees = [], [], []
    nodes = project(np.concatenate([np.zeros((0, 2)), *(line for line, _, _ in raw.lines)]))
    ends = np.cumsum([len(line) for line, _, _ in raw.lines])
    for points, (_, tags, closed) in zip(np.split(nodes, ends), raw.lines):
        line = LineString(points)
        if not line.length > 0.0:  # nodes upon each other
            continue
        if (kind := tagging.road_kind(tags)) is not None:
            width, lanes, oneway = tagging.road_size(kind, tags)
            roads.append(Road(line.reverse() if tags.get("oneway") == "-1" else line, kind, width, lanes, oneway,
                              tags.get("surface", ""), tagging.has_sidewalk(tags), tagging.is_set(tags, "bridge"),
                              tagging.is_tunnel(tags), tagging.layer_of(tags)))
        elif (width := tagging.railway_width(tags)) is not None:
            railways.append(Railway(line, width, tagging.is_set(tags, "bridge"), tagging.layer_of(tags)))
        elif tags.get("natural") == "tree_row":
            count = int(line.length // _TREE_ROW_STEP_M) + 1
            places = shapely.line_interpolate_point(line, (np.arange(count) + 0.5) / count, normalized=True)
            trees.extend(Tree(place.x, place.y, tagging.tree_height(tags), tagging.tree_kind(tags))
                         for place in places)
        elif (found := tagging.strip(tags, closed)) is not None:
            width, kind, semantic = found
            areas.extend(Area(polygon, kind, semantic) for polygon in _polygons(line.buffer(width / 2)))
    points = project(np.array([item[:2] for item in raw.trees])) if raw.trees else ()
    trees.extend(Tree(float(x), float(y), tagging.tree_height(tags), tagging.tree_kind(tags))
                 for (x, y), (_, _, tags) in zip(points, raw.trees))
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
        result.extend(dataclasses.replace(building, polygon=polygon) for polygon in _polygons(rest)
                      if polygon.buffer(-0.25).area > 1.0)
    return result + parts


def _stacked(areas: list[Area]) -> list[Area]:
    """Bottom to top: land, then water, then what stands in water; within these the larger below the smaller."""
    def rank(area: Area) -> tuple[int, int, float]:
        wet = area.semantic == SemanticClass.WATER or area.kind == "wetland"  # reeds stand in lakes
        group = 2 if area.kind in tagging.ON_WATER else 1 if wet else 0
        return area.layer, group, -area.polygon.area
    return sorted(areas, key=rank)


def _polygons(shape: shapely.Geometry) -> list[Polygon]:
    """The polygons of a shape in metres, without slivers."""
    parts = shapely.get_parts(shapely.get_parts([shape]))  # a collection may hold multipolygons
    return [part for part in parts if isinstance(part, Polygon) and part.area > 0.05]
