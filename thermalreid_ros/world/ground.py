"""The ground of the city: its relief, and a plan of what covers it, drawn from the features of the map.

Plans are rasters, row 0 in the north. They are drawn at 0.2 m: lane markings are one cell wide. What OpenStreetMap
leaves unmapped is cut into parcels of lawn, gravel, paving and soil, for no yard is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
import shapely
from shapely import STRtree

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.maps.features import Area, Railway, Road
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

PLAN_RESOLUTION_M = 0.2
TERRAIN_STEP_M = 5.0
GROUND = 255  # the material and the class of terrain faces: the plan knows them
RELIEF_M = 4.0  # the height of the highest hills at difference 1, over waves of 200 to 400 m
SHORE_M = 60.0  # over which relief fades out towards water
FOOT_KINDS = frozenset({"footway", "path", "pedestrian", "cycleway", "steps", "bridleway"})
MAJOR_KINDS = frozenset({"motorway", "trunk", "primary", "secondary", "tertiary", "motorway_link", "trunk_link",
                         "primary_link", "secondary_link", "tertiary_link"})
STREET_KINDS = frozenset({"primary", "secondary", "tertiary", "unclassified", "residential", "living_street"})
_SURFACES = len(Surface)
UNMAPPED = 255  # while a plan is drawn
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


class Relief:
    """Heights of the ground: a square grid of TERRAIN_STEP_M, each cell two flat triangles, as in the terrain mesh."""

    def __init__(self, x_min: float, y_min: float, heights: np.ndarray, step_m: float = TERRAIN_STEP_M):
        """heights: float32 (R, C), row 0 in the south, column 0 in the west, at (x_min, y_min)."""
        self.x_min, self.y_min, self.step_m, self.heights = x_min, y_min, step_m, heights

    def height_m(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z, float32 (N,), of the terrain mesh at (x, y); outside of it, at the nearest place of its edge."""
        rows, columns = self.heights.shape
        u = np.clip((np.asarray(x, np.float64) - self.x_min) / self.step_m, 0, columns - 1)
        v = np.clip((np.asarray(y, np.float64) - self.y_min) / self.step_m, 0, rows - 1)
        i = np.minimum(u.astype(np.int64), columns - 2)
        j = np.minimum(v.astype(np.int64), rows - 2)
        u, v = u - i, v - j
        z00, z10 = self.heights[j, i], self.heights[j, i + 1]
        z01, z11 = self.heights[j + 1, i], self.heights[j + 1, i + 1]
        below = z00 + u * (z10 - z00) + v * (z11 - z10)  # the triangle south-east of the diagonal
        above = z00 + u * (z11 - z01) + v * (z01 - z00)
        return np.where(u >= v, below, above).astype(np.float32)

    def mesh(self) -> Mesh:
        """The terrain: material GROUND everywhere."""
        rows, columns = self.heights.shape
        x, y = np.meshgrid(self.x_min + self.step_m * np.arange(columns), self.y_min + self.step_m * np.arange(rows))
        vertices = np.stack([x, y, self.heights], axis=2).reshape(-1, 3).astype(np.float32)
        a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
        b, c, d = a + 1, a + columns + 1, a + columns
        faces = np.stack([a, b, c, a, c, d], axis=1).reshape(-1, 3).astype(np.int32)
        count = len(faces)
        return Mesh(vertices, faces, np.full(count, GROUND, np.uint8), np.zeros((count, 3), np.float32),
                    np.zeros(count, np.uint8))


def waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, wavelengths_m: tuple[float, float],
          count: int = 24) -> np.ndarray:
    """A smooth random field with zero mean and unit variance at points: plane waves, float64, shape of x."""
    length = rng.uniform(*wavelengths_m, count)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count))
    kx, ky = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)
    field = np.zeros(np.shape(x))
    for wave in range(count):  # few waves, many points
        field += np.cos(kx[wave] * x + ky[wave] * y + phase[wave])
    return field * np.sqrt(2.0 / count)


def make_relief(bounds: tuple[float, float, float, float], water: list, rng: np.random.Generator,
                difference: float) -> Relief:
    """Gentle hills, RELIEF_M * difference high at most; all water, and so its shore, lies at z = 0."""
    x_min, y_min, x_max, y_max = bounds
    columns = int(np.ceil((x_max - x_min) / TERRAIN_STEP_M)) + 1
    rows = int(np.ceil((y_max - y_min) / TERRAIN_STEP_M)) + 1
    x, y = np.meshgrid(x_min + TERRAIN_STEP_M * np.arange(columns), y_min + TERRAIN_STEP_M * np.arange(rows))
    hills = np.clip(0.5 + 0.25 * waves(rng, x, y, (200.0, 400.0)), 0, 1)
    wet = np.zeros((rows, columns), np.uint8)
    _fill(wet, shapely.buffer(np.array(water, object), TERRAIN_STEP_M), x_min - 0.5 * TERRAIN_STEP_M,
          y_min - 0.5 * TERRAIN_STEP_M, TERRAIN_STEP_M, np.ones(len(water), np.uint8), upwards=True)
    far = np.full((rows, columns), SHORE_M, np.float32)
    if wet.any():
        far = np.minimum(cv2.distanceTransform(1 - wet, cv2.DIST_L2, 5) * np.float32(TERRAIN_STEP_M), SHORE_M)
    share = far.astype(np.float64) / SHORE_M
    heights = RELIEF_M * difference * hills * share * share * (3 - 2 * share)
    return Relief(x_min, y_min, np.round(heights, 3).astype(np.float32))


@dataclass(frozen=True, eq=False)
class GroundPlan:
    """What covers the ground. bounds: (x_min, y_min, x_max, y_max), world metres.

    surface: uint8 (H, W), materials.Surface. semantic: uint8 (H, W), SemanticClass; BUILDING below buildings.
    Row 0 is the northernmost; cell (r, c) covers x_min + [c, c + 1] * resolution_m, y_max - [r, r + 1] * resolution_m.
    """

    bounds: tuple[float, float, float, float]
    resolution_m: float
    surface: np.ndarray
    semantic: np.ndarray

    def cells(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns), int64 (N,), of places; those outside belong to the nearest cell of the edge."""
        rows, columns = self.surface.shape
        r = np.floor((self.bounds[3] - np.asarray(y)) / self.resolution_m).astype(np.int64)
        c = np.floor((np.asarray(x) - self.bounds[0]) / self.resolution_m).astype(np.int64)
        return np.clip(r, 0, rows - 1), np.clip(c, 0, columns - 1)


def _fill(raster: np.ndarray, geometries: np.ndarray, x_min: float, y_edge: float, resolution_m: float,
          values: np.ndarray, upwards: bool = False) -> None:
    """Paint polygons (and multipolygons), in order, each with its value. y_edge: the top edge of row 0, or its
    bottom edge if rows go upwards."""
    parts, part_owner = shapely.get_parts(geometries, return_index=True)
    rings, owner = shapely.get_rings(parts, return_index=True)
    if not len(rings):
        return
    owner = part_owner[owner]
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    row = (coordinates[:, 1] - y_edge) if upwards else (y_edge - coordinates[:, 1])
    pixels = np.stack([coordinates[:, 0] - x_min, row], axis=1) / resolution_m - 0.5
    pixels = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
    contours = np.split(pixels, np.flatnonzero(np.diff(ring)) + 1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(owner)) + 1, [len(owner)]])
    for first, last in zip(starts[:-1], starts[1:]):
        cv2.fillPoly(raster, contours[first:last], int(values[owner[first]]), shift=_SHIFT)


class PlanPainter:
    """Draws a plan from the bottom to the top. A cell holds surface + 41 * class while it is drawn."""

    def __init__(self, bounds: tuple[float, float, float, float]):
        self.bounds = bounds
        x_min, y_min, x_max, y_max = bounds
        self.codes = np.zeros((round((y_max - y_min) / PLAN_RESOLUTION_M), round((x_max - x_min) / PLAN_RESOLUTION_M)),
                              np.uint8)
        self.codes[:] = UNMAPPED
        margin = 2 * PLAN_RESOLUTION_M
        self._box = (x_min - margin, y_min - margin, x_max + margin, y_max + margin)

    def polygons(self, geometries, codes) -> None:
        """Polygons in order, each with its code (or one code for all)."""
        geometries = np.asarray(geometries, object)
        if len(geometries):
            codes = np.broadcast_to(np.asarray(codes, np.uint8), geometries.shape)
            _fill(self.codes, shapely.clip_by_rect(geometries, *self._box), self.bounds[0], self.bounds[3],
                  PLAN_RESOLUTION_M, codes)

    def segments(self, ends: np.ndarray, value: int, width_m: float = PLAN_RESOLUTION_M) -> None:
        """Straight strokes, float64 (N, 2, 2), of whole cells' width."""
        x_min, y_min, x_max, y_max = self._box
        inside = ((ends[:, :, 0] > x_min) & (ends[:, :, 0] < x_max) &
                  (ends[:, :, 1] > y_min) & (ends[:, :, 1] < y_max)).all(axis=1)
        pixels = np.stack([ends[inside, :, 0] - self.bounds[0], self.bounds[3] - ends[inside, :, 1]], axis=2)
        pixels = np.round((pixels / PLAN_RESOLUTION_M - 0.5) * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(self.codes, list(pixels), False, int(value), max(1, round(width_m / PLAN_RESOLUTION_M)),
                      cv2.LINE_8, _SHIFT)

    def codes_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Codes (N,) at places; those outside are read at the edge."""
        rows, columns = self.codes.shape
        r = np.clip(np.floor((self.bounds[3] - np.asarray(y)) / PLAN_RESOLUTION_M).astype(np.int64), 0, rows - 1)
        c = np.clip(np.floor((np.asarray(x) - self.bounds[0]) / PLAN_RESOLUTION_M).astype(np.int64), 0, columns - 1)
        return self.codes[r, c]

    def plan(self) -> GroundPlan:
        table = np.arange(256, dtype=np.int64)
        return GroundPlan(self.bounds, PLAN_RESOLUTION_M, cv2.LUT(self.codes, (table % _SURFACES).astype(np.uint8)),
                          cv2.LUT(self.codes, (table // _SURFACES).astype(np.uint8)))


def code(surface: Surface, semantic: SemanticClass) -> int:
    """The value of a cell while a plan is drawn."""
    return int(surface) + _SURFACES * int(semantic)


_G, _R, _V = SemanticClass.GROUND, SemanticClass.ROAD, SemanticClass.VEGETATION
# Parcels of unmapped ground near buildings: (surface, class, share).
_YARDS = ((Surface.GRASS, _V, 0.22), (Surface.DRY_GRASS, _V, 0.06), (Surface.PAVING, _R, 0.05),
          (Surface.CONCRETE, _R, 0.02), (Surface.GRAVEL, _G, 0.25), (Surface.SOIL, _G, 0.40))
_FIELDS = ((Surface.SOIL, _G, 0.65), (Surface.CROP, _V, 0.25), (Surface.DRY_GRASS, _V, 0.10))
YARD_M = 30.0  # how far from buildings yards reach
FARM_M = 200.0  # from buildings to the first fields
_PARCEL_M, _FIELD_M = 14.0, 120.0
_WILD_GREEN_SHARE = 0.35  # of unmapped ground far from buildings, at difference 1


def paint_unmapped(painter: PlanPainter, buildings: np.ndarray, rng: np.random.Generator, difference: float
                   ) -> tuple[float, np.ndarray]:
    """Cover what is UNMAPPED: near buildings with parcels of lawn, gravel, paving and soil, far from them with fields,
    in between with patches of grass, soil and gravel.

    Without difference all of it is soil or gravel, the class the map gives it. Returns the share of unmapped ground
    that is of another class, and the borders of the lawns near buildings, straight pieces (N, 2, 2).
    """
    x_min, y_min, x_max, y_max = painter.bounds
    below = PlanPainter(painter.bounds)
    _paint_wild(below, rng, difference)
    tree = STRtree(buildings)
    for table, size_m, distance_m, near in ((_FIELDS, _FIELD_M, FARM_M, False), (_YARDS, _PARCEL_M, YARD_M, True)):
        x, y = np.meshgrid(np.arange(x_min - size_m, x_max + size_m, size_m),
                           np.arange(y_min - size_m, y_max + size_m, size_m))
        points = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-0.45, 0.45, (x.size, 2)) * size_m
        kinds = rng.choice(len(table), len(points), p=[share for *_, share in table])
        bare, kept = rng.random(len(points)) < 0.6, rng.random(len(points)) < difference
        codes = np.array([code(*row[:2]) for row in table], np.uint8)[kinds]
        codes = np.where(kept | (codes < _SURFACES), codes,
                         np.where(bare, code(Surface.SOIL, _G), code(Surface.GRAVEL, _G))).astype(np.uint8)
        chosen = np.full(len(points), not near)
        chosen[np.unique(tree.query(shapely.points(points), predicate="dwithin", distance=distance_m)[0])] = near
        cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points), ordered=True))[chosen]
        below.polygons(cells, codes[chosen])
    lawns = cells[codes[chosen] == code(Surface.GRASS, _V)]
    unmapped = painter.codes == UNMAPPED
    np.copyto(painter.codes, below.codes, where=unmapped)
    area = np.count_nonzero(unmapped)
    others = np.count_nonzero(unmapped & (below.codes >= _SURFACES))
    return others / max(area, 1), segments_of(shapely.boundary(lawns))


def _paint_wild(painter: PlanPainter, rng: np.random.Generator, difference: float) -> None:
    """Patches without straight borders: levels of a smooth random field, drawn some rows at a time."""
    step = 10 * PLAN_RESOLUTION_M
    rows, columns = painter.codes.shape
    x, y = np.meshgrid(np.arange(-1, columns // 10 + 3) * step, np.arange(-1, rows // 10 + 3) * step)
    green = (0.9 * waves(rng, x, y, (70.0, 250.0)) + 0.44 * waves(rng, x, y, (12.0, 50.0))).astype(np.float32)
    stony = (0.9 * waves(rng, x, y, (60.0, 200.0)) + 0.44 * waves(rng, x, y, (12.0, 40.0))).astype(np.float32)

    def level(share: float) -> float:  # that a normal variable exceeds with this probability
        return NormalDist().inv_cdf(min(max(1.0 - share, 1e-9), 1.0 - 1e-9))

    gravel, grown = level(0.25), level(_WILD_GREEN_SHARE * difference)
    for top in range(0, rows, 500):
        count = min(500, rows - top)
        tiles = [cv2.resize(field[top // 10:top // 10 + -(-count // 10) + 3], None, fx=10, fy=10,
                            interpolation=cv2.INTER_LINEAR)[10:10 + count, 10:10 + columns] for field in (green, stony)]
        codes = np.where(tiles[1] > gravel, np.uint8(code(Surface.GRAVEL, _G)), np.uint8(code(Surface.SOIL, _G)))
        lush = np.where(tiles[1] > 0.0, np.uint8(code(Surface.DRY_GRASS, _V)), np.uint8(code(Surface.GRASS, _V)))
        np.copyto(codes, lush, where=tiles[0] > grown)
        painter.codes[top:top + count] = codes


def paint_driveways(painter: PlanPainter, buildings: np.ndarray, roads: list[Road], rng: np.random.Generator,
                    share: float) -> None:
    """Ways from houses to the nearest road, where it is 3 to 25 m away, for a share of them."""
    draws = rng.random((len(buildings), 3))
    lines = np.array([road.line for road in roads if road.kind not in FOOT_KINDS and not road.bridge], object)
    area = shapely.area(buildings)
    chosen = np.flatnonzero((draws[:, 0] < share) & (area > 40) & (area < 500))
    if not (len(lines) and len(chosen)):
        return
    house, road = STRtree(lines).query_nearest(buildings[chosen], max_distance=30.0, all_matches=False)
    chosen = chosen[house]
    ways = shapely.shortest_line(buildings[chosen], lines[road])
    long = shapely.length(ways)
    fits = (long > 4.0) & (long < 28.0)
    kinds = ((Surface.PAVING, _R), (Surface.ASPHALT, _R), (Surface.GRAVEL, _G))
    ways, chosen = ways[fits], chosen[fits]
    painter.polygons(shapely.buffer(ways, 1.3 + 0.5 * draws[chosen, 1], cap_style="flat"),
                     [code(*kinds[int(3 * draw)]) for draw in draws[chosen, 2]])


_AREA_SURFACES = {
    "forest": Surface.FOREST_FLOOR, "scrub": Surface.FOREST_FLOOR, "hedge": Surface.FOREST_FLOOR,
    "farmland": Surface.CROP, "meadow": Surface.GRASS, "vineyard": Surface.SOIL, "orchard": Surface.GRASS,
    "sand": Surface.SAND, "bare": Surface.GRAVEL, "railway": Surface.BALLAST, "parking": Surface.ASPHALT,
    "bridge": Surface.CONCRETE, "pier": Surface.CONCRETE, "platform": Surface.PAVING, "square": Surface.PAVING,
    "playground": Surface.SAND, "industrial": Surface.CONCRETE, "school": Surface.PAVING}
_USUAL_SURFACES = (Surface.GRAVEL, Surface.PAVING, Surface.CONCRETE, Surface.GRASS, Surface.WATER)
# Land uses of which only parts are of one cover: their parcels show.
PATCHWORK = frozenset({"residential", "commercial", "industrial", "school", "farmyard", "sports"})


def paint_areas(painter: PlanPainter, areas: list[Area], rng: np.random.Generator) -> None:
    """Areas in their order. Pitches become hard courts or turf, some meadows dry; a PATCHWORK stays UNMAPPED."""
    draws = rng.random((len(areas), 2))
    codes = []
    for area, (first, second) in zip(areas, draws):
        surface = _AREA_SURFACES.get(area.kind, _USUAL_SURFACES[area.semantic])
        if area.kind == "pitch":
            surface = ((Surface.ARTIFICIAL_TURF if first < 0.3 else Surface.GRASS) if area.semantic == _V else
                       (Surface.ASPHALT if first < 0.4 else Surface.SAND if first < 0.7 else Surface.CONCRETE))
        elif area.kind in ("meadow", "grass", "wetland") and first < 0.25:
            surface = Surface.DRY_GRASS
        elif area.kind == "square" and first < 0.3:
            surface = Surface.ASPHALT if second < 0.5 else Surface.CONCRETE
        codes.append(UNMAPPED if area.kind in PATCHWORK and area.semantic == _G else code(surface, area.semantic))
    painter.polygons([area.polygon for area in areas], codes)


_ROAD_SURFACES = {
    "asphalt": Surface.ASPHALT, "concrete": Surface.CONCRETE, "concrete:plates": Surface.CONCRETE,
    "concrete:lanes": Surface.CONCRETE, "paving_stones": Surface.PAVING, "sett": Surface.PAVING,
    "cobblestone": Surface.PAVING, "unhewn_cobblestone": Surface.PAVING, "paved": Surface.ASPHALT,
    "gravel": Surface.GRAVEL, "fine_gravel": Surface.GRAVEL, "compacted": Surface.GRAVEL, "unpaved": Surface.GRAVEL,
    "pebblestone": Surface.GRAVEL, "ground": Surface.SOIL, "dirt": Surface.SOIL, "earth": Surface.SOIL,
    "mud": Surface.SOIL, "grass": Surface.GRASS, "sand": Surface.SAND, "wood": Surface.WALL_WOOD,
    "metal": Surface.BARE_METAL}


def road_surface(road: Road, draw: float) -> Surface:
    """What a road is covered with: its tag, else what is usual for its kind; draw is uniform in [0, 1)."""
    if road.surface in _ROAD_SURFACES:
        return _ROAD_SURFACES[road.surface]
    if road.kind in ("track", "path", "bridleway"):
        return Surface.GRAVEL if draw < 0.6 else Surface.SOIL
    if road.kind in ("footway", "pedestrian", "steps", "living_street"):
        return Surface.PAVING if draw < 0.55 else Surface.ASPHALT if draw < 0.85 else Surface.CONCRETE
    return Surface.CONCRETE if draw < 0.04 else Surface.ASPHALT


def paint_roads(painter: PlanPainter, roads: list[Road], sidewalks_m: np.ndarray, strips: np.ndarray,
                rng: np.random.Generator) -> None:
    """Roads of one layer: sidewalks, strips of parking with paving behind them, footways, carriageways, the wider on
    top."""
    draws = rng.random((len(roads), 2))
    lines = np.array([road.line for road in roads], object)
    widths = np.array([road.width_m for road in roads])
    foot = np.array([road.kind in FOOT_KINDS for road in roads], bool)
    beside = np.flatnonzero(sidewalks_m > 0)
    painter.polygons(shapely.buffer(lines[beside], 0.5 * widths[beside] + sidewalks_m[beside], quad_segs=4),
                     [code(Surface.PAVING if draws[i, 1] < 0.6 else Surface.CONCRETE, _R) for i in beside])
    painter.polygons(shapely.buffer(strips, 1.4, join_style="mitre"), code(Surface.PAVING, _R))
    painter.polygons(strips, code(Surface.ASPHALT, _R))
    for on_foot in (True, False):
        chosen = np.flatnonzero(foot == on_foot)
        chosen = chosen[np.argsort(widths[chosen], kind="stable")]
        painter.polygons(shapely.buffer(lines[chosen], 0.5 * widths[chosen], quad_segs=4),
                         [code(road_surface(roads[i], draws[i, 0]), _R) for i in chosen])


def paint_railways(painter: PlanPainter, railways: list[Railway]) -> None:
    """Ballast and two rails 1.435 m apart; trams and mountain railways (narrow beds) have rails only."""
    broad = [railway for railway in railways if railway.width_m >= 3.0]
    painter.polygons(shapely.buffer(np.array([r.line for r in broad], object), [0.5 * r.width_m for r in broad],
                                    cap_style="flat"), code(Surface.BALLAST, _G))
    lines = np.array([r.line for r in railways], object)
    for side in (-0.7175, 0.7175):
        rails = shapely.get_parts(shapely.offset_curve(lines, side)) if len(lines) else lines
        under = painter.codes_at(*_middles(segments_of(rails))) // _SURFACES
        for semantic in (SemanticClass.GROUND, SemanticClass.ROAD):  # rails in a street do not unmake the street
            painter.segments(segments_of(rails)[under == semantic], code(Surface.BARE_METAL, semantic))


def segments_of(lines: np.ndarray) -> np.ndarray:
    """The straight pieces of lines, float64 (N, 2, 2)."""
    coordinates, owner = shapely.get_coordinates(np.asarray(lines, object), return_index=True)
    joined = owner[1:] == owner[:-1]
    return np.stack([coordinates[:-1], coordinates[1:]], axis=1)[joined]


def _middles(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return segments[:, :, 0].mean(axis=1), segments[:, :, 1].mean(axis=1)


@dataclass(frozen=True, eq=False)
class Junctions:
    """Where roads for cars meet. points: float64 (J, 2); radius_m: (J,), to the end of the widest road's kerb.
    members: (M, 3) floats (road, junction, distance along the road)."""

    points: np.ndarray
    radius_m: np.ndarray
    road: np.ndarray
    junction: np.ndarray
    along_m: np.ndarray


def find_junctions(roads: list[Road]) -> Junctions:
    """Vertices that three or more ends of carriageways share."""
    lines = np.array([road.line for road in roads], object)
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    widths = np.array([road.width_m for road in roads])
    driven = np.array([road.kind not in FOOT_KINDS for road in roads], bool)
    kept = driven[owner] if len(owner) else np.zeros(0, bool)
    coordinates, owner = coordinates[kept], owner[kept]
    first = np.concatenate([[True], owner[1:] != owner[:-1]])[:len(owner)]
    last = np.concatenate([owner[1:] != owner[:-1], [True]])[:len(owner)]
    keys, inverse = np.unique(np.round(coordinates * 100).astype(np.int64), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    arms = np.bincount(inverse, weights=np.where(first | last, 1, 2), minlength=len(keys))
    radius = np.zeros(len(keys))
    np.maximum.at(radius, inverse, 0.5 * widths[owner])
    chosen = arms >= 3
    number = np.cumsum(chosen) - 1
    member = chosen[inverse]
    junction = number[inverse[member]]
    along = shapely.line_locate_point(lines[owner[member]], shapely.points(coordinates[member]))
    return Junctions(keys[chosen] / 100.0, radius[chosen] + 1.5, owner[member], junction, along)


def paint_markings(painter: PlanPainter, roads: list[Road], junctions: Junctions, rng: np.random.Generator) -> None:
    """Dashed centre lines, edge lines of major roads, and zebra crossings where streets meet."""
    paint = code(Surface.ROAD_PAINT, _R)
    draws = rng.random(len(roads))
    paved = [road.surface in ("", "asphalt", "concrete", "paved") for road in roads]
    centre = [i for i, road in enumerate(roads) if paved[i] and road.width_m >= 5.0 and road.lanes >= 2 and
              (road.kind in MAJOR_KINDS or road.kind == "unclassified" or
               (road.kind == "residential" and draws[i] < 0.25))]
    edged = [i for i, road in enumerate(roads) if paved[i] and road.width_m >= 5.5 and
             road.kind in ("motorway", "trunk", "primary", "secondary")]
    discs = STRtree(shapely.buffer(shapely.points(junctions.points), junctions.radius_m + 1.0))

    def open_stretches(chosen: list[int], offset_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lines = np.array([roads[i].line for i in chosen], object)
        if not len(lines):
            return lines, np.zeros(0, np.int64)
        which, disc = discs.query(lines, predicate="intersects")
        for line in np.unique(which):
            lines[line] = shapely.difference(lines[line],
                                             shapely.union_all(discs.geometries.take(disc[which == line])))
        lines = shapely.offset_curve(lines, offset_m)
        parts, owner = shapely.get_parts(lines, return_index=True)
        straight = shapely.length(parts) > 1.0
        return parts[straight], owner[straight]

    # Lane by lane: between lanes dashes, along the edges unbroken lines.
    lanes = np.array([max(2, min(roads[i].lanes, 6)) for i in centre])
    for lane in range(1, 6):
        chosen = [i for i, count in zip(centre, lanes) if lane < count]
        offsets = np.array([roads[i].width_m * (lane / count - 0.5) for i, count in zip(centre, lanes)
                            if lane < count])
        parts, _ = open_stretches(chosen, offsets)
        painter.segments(dashes(parts, 3.0, 6.0), paint)
    for side in (-0.5, 0.5):
        parts, _ = open_stretches(edged, np.array([side * roads[i].width_m - np.sign(side) * 0.3 for i in edged]))
        painter.segments(segments_of(parts), paint)
    painter.segments(_zebra_stripes(roads, junctions, rng), paint, 2 * PLAN_RESOLUTION_M)


def dashes(lines: np.ndarray, dash_m: float, period_m: float) -> np.ndarray:
    """Dashes along lines as straight pieces, float64 (N, 2, 2)."""
    counts = np.floor(shapely.length(lines) / period_m).astype(np.int64) if len(lines) else np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(lines)), counts)
    starts = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) * period_m + 0.5 * dash_m
    ends = [shapely.get_coordinates(shapely.line_interpolate_point(lines[owner], starts + shift))
            for shift in (0.0, dash_m)]
    return np.stack(ends, axis=1).reshape(-1, 2, 2)


def _zebra_stripes(roads: list[Road], junctions: Junctions, rng: np.random.Generator) -> np.ndarray:
    """Stripes 3.6 m long along the road, one each metre across it, before a share of the junctions of streets."""
    street = np.array([road.kind in STREET_KINDS and road.width_m >= 4.0 for road in roads], bool)
    marked = rng.random(len(junctions.points)) < 0.3
    lengths = np.array([road.line.length for road in roads])
    stripes = []
    for direction in (-1.0, 1.0):
        place = junctions.along_m + direction * (junctions.radius_m[junctions.junction] + 2.5)
        chosen = street[junctions.road] & marked[junctions.junction] & \
            (place > 3) & (place < lengths[junctions.road] - 3)
        road, along = junctions.road[chosen], place[chosen]
        widths = np.array([roads[i].width_m for i in road])
        counts = np.maximum(np.floor(widths).astype(np.int64), 1)
        owner = np.repeat(np.arange(len(road)), counts)
        across = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) - 0.5 * (counts[owner] - 1)
        middle, tangent = along_line(np.array([roads[i].line for i in road], object)[owner], along[owner])
        middle = middle + across[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        stripes.append(np.stack([middle - 1.8 * tangent, middle + 1.8 * tangent], axis=1))
    return np.concatenate(stripes).reshape(-1, 2, 2)


def along_line(lines: np.ndarray, along_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) and unit tangents (N, 2) on lines (N,) at distances along them."""
    behind, here, ahead = (shapely.get_coordinates(shapely.line_interpolate_point(lines, np.maximum(along_m + s, 0)))
                           .reshape(-1, 2) for s in (-0.5, 0.0, 0.5))
    tangent = ahead - behind
    return here, tangent / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
