"""Buildings: footprints raised to watertight blocks with roofs, walls and what stands on roofs.

A roof is a height field over its footprint. Its creases (ridge, hips, rings) are noded with the outline, so that
the cells between them share their vertices; the cells' triangles make the roof, their mirror image the underside,
and each edge of the outline one wall. Roof shapes follow the OSM wiki's Simple 3D Buildings; steep shapes that a
rectangle cannot carry (L shapes, courtyards) rise with the distance from the eaves instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from thermalreid_ros.maps.features import Building
from thermalreid_ros.world.ground import Relief
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

# Roof shapes that are built.
FLAT, PARAPET, GABLED, HIPPED, PYRAMIDAL, SKILLION, SLOPED, DOME = range(8)
_SHAPES = {"flat": FLAT, "gabled": GABLED, "half-hipped": HIPPED, "hipped": HIPPED, "pyramidal": PYRAMIDAL,
           "skillion": SKILLION, "gambrel": GABLED, "mansard": SLOPED, "round": GABLED, "saltbox": GABLED,
           "side_hipped": HIPPED, "cross_gabled": GABLED, "dome": DOME, "onion": DOME, "cone": PYRAMIDAL,
           "lean_to": SKILLION, "sawtooth": SKILLION}
PARAPET_M = 0.5  # above the deck; its top is the building's height
_PARAPET_RINGS_M = (0.30, 0.34)
_SLOPED_RINGS = (0.35, 0.68, 0.94)  # shares of the largest distance from the eaves
_DOME_RINGS = (0.08, 0.25, 0.5, 0.8)
_OUTBUILDINGS = frozenset({"garage", "garages", "shed", "carport", "hut", "kiosk", "roof", "service", "cabin"})
_CANOPIES = frozenset({"roof", "carport"})
_HALLS = frozenset({"industrial", "warehouse", "hangar", "retail", "supermarket", "commercial", "barn", "stable",
                    "farm_auxiliary", "greenhouse", "storage_tank", "silo", "sports_hall", "manufacture"})
_HOUSES = frozenset({"house", "detached", "semidetached_house", "terrace", "bungalow", "residential", "farm", "church",
                     "chapel", "cathedral"})


@dataclass(frozen=True, eq=False)
class Objects:
    """Things of one class: a mesh, the thing (object) of each face, and for each object the height of the ground
    it stands on, float32 (O,), and a seed of its own, uint32 (O,)."""

    mesh: Mesh
    object_id: np.ndarray
    base_z: np.ndarray
    seed: np.ndarray


def linear(rgb: Sequence | np.ndarray) -> np.ndarray:
    """Linear reflectance, float32, of sRGB 0..255 (IEC 61966-2-1)."""
    value = np.asarray(rgb, np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


# Colours as painted, sRGB. Rows are drawn with equal chance.
_PLASTER = linear([(236, 228, 210), (228, 214, 184), (224, 200, 160), (214, 182, 140), (232, 204, 180), (222, 180, 160),
                   (206, 204, 198), (190, 190, 188), (240, 238, 232), (244, 240, 228), (222, 210, 150), (200, 208, 190),
                   (190, 200, 212), (206, 160, 130), (180, 170, 155), (250, 248, 244)])
_BRICK = linear([(150, 78, 60), (136, 66, 52), (165, 98, 74), (120, 70, 58), (176, 120, 92), (186, 160, 130)])
_CONCRETE = linear([(168, 166, 160), (150, 148, 144), (186, 182, 174), (132, 132, 130)])
_WOOD = linear([(140, 50, 40), (176, 140, 90), (214, 190, 120), (120, 84, 56), (90, 74, 62), (220, 216, 204)])
_SHEET = linear([(200, 204, 206), (150, 160, 168), (90, 110, 130), (120, 130, 110), (220, 218, 210), (110, 112, 116)])
_GLASS = linear([(60, 74, 84), (44, 56, 66), (70, 84, 80), (84, 96, 110)])
_TILES = linear([(164, 84, 58), (150, 70, 52), (178, 100, 70), (130, 66, 54), (110, 70, 62), (84, 72, 70),
                 (70, 68, 70), (186, 120, 88)])
_BITUMEN = linear([(62, 62, 64), (80, 78, 76), (98, 96, 94), (50, 50, 54)])
_GRAVEL = linear([(150, 146, 138), (166, 160, 150), (134, 130, 124)])
_ZINC = linear([(160, 164, 168), (176, 178, 180), (140, 146, 150)])
_ROOF_PAINT = linear([(120, 50, 42), (70, 74, 80), (100, 108, 112), (60, 84, 70), (150, 152, 150), (92, 60, 50)])
_PALETTES = {Surface.WALL_PLASTER: _PLASTER, Surface.WALL_BRICK: _BRICK, Surface.WALL_CONCRETE: _CONCRETE,
             Surface.WALL_WOOD: _WOOD, Surface.WALL_METAL: _SHEET, Surface.WINDOW: _GLASS, Surface.ROOF_TILES: _TILES,
             Surface.ROOF_BITUMEN: _BITUMEN, Surface.ROOF_GRAVEL: _GRAVEL, Surface.ROOF_METAL: _ZINC,
             Surface.ROOF_METAL_PAINTED: _ROOF_PAINT, Surface.ROOF_CONCRETE: _CONCRETE}
_WALL_TAGS = {"plaster": Surface.WALL_PLASTER, "stucco": Surface.WALL_PLASTER, "stone": Surface.WALL_CONCRETE,
              "brick": Surface.WALL_BRICK, "concrete": Surface.WALL_CONCRETE, "cement_block": Surface.WALL_CONCRETE,
              "wood": Surface.WALL_WOOD, "timber_framing": Surface.WALL_PLASTER, "metal": Surface.WALL_METAL,
              "steel": Surface.WALL_METAL, "glass": Surface.WINDOW, "mirror": Surface.WINDOW,
              "limestone": Surface.WALL_CONCRETE, "sandstone": Surface.WALL_CONCRETE, "marble": Surface.WALL_CONCRETE}
_ROOF_TAGS = {"roof_tiles": Surface.ROOF_TILES, "tile": Surface.ROOF_TILES, "tiles": Surface.ROOF_TILES,
              "slate": Surface.ROOF_TILES, "tar_paper": Surface.ROOF_BITUMEN, "bitumen": Surface.ROOF_BITUMEN,
              "asphalt": Surface.ROOF_BITUMEN, "gravel": Surface.ROOF_GRAVEL, "concrete": Surface.ROOF_CONCRETE,
              "eternit": Surface.ROOF_CONCRETE, "metal": Surface.ROOF_METAL, "copper": Surface.ROOF_METAL_PAINTED,
              "zinc": Surface.ROOF_METAL, "metal_sheet": Surface.ROOF_METAL_PAINTED, "glass": Surface.WINDOW,
              "grass": Surface.GRASS, "stone": Surface.ROOF_CONCRETE, "wood": Surface.WALL_WOOD}
# CSS names that mappers use; anything else of building:colour is #rgb or #rrggbb.
_NAMES = {"white": "ffffff", "black": "202020", "grey": "808080", "gray": "808080", "lightgrey": "d3d3d3",
          "lightgray": "d3d3d3", "darkgrey": "696969", "darkgray": "696969", "silver": "c0c0c0", "red": "b03028",
          "darkred": "8b0000", "maroon": "800000", "brown": "8b5a3c", "sienna": "a0522d", "orange": "e8963c",
          "yellow": "f0dc78", "gold": "d8b048", "beige": "f5f5dc", "ivory": "fffff0", "cream": "fffdd0",
          "tan": "d2b48c", "pink": "f0b8b8", "salmon": "fa8072", "green": "508c50", "darkgreen": "2c5c34",
          "lightgreen": "a8d8a0", "olive": "808000", "blue": "4468a8", "lightblue": "add8e6", "navy": "202850",
          "teal": "408080", "purple": "704878", "peru": "cd853f", "firebrick": "b22222", "wheat": "f5deb3",
          "khaki": "c8b878", "linen": "faf0e6", "terracotta": "c06848"}


def tagged_colour(text: str) -> np.ndarray | None:
    """Linear reflectance (3,) of a building:colour such as 'red', '#a52' or '#aa5522'; None for anything else."""
    text = _NAMES.get(text.strip().lower(), text.strip().lstrip("#").lower())
    if len(text) == 3:
        text = "".join(2 * letter for letter in text)
    try:
        value = int(text, 16)
    except ValueError:
        return None
    # No paint reflects all or nothing.
    return np.clip(linear([value >> 16, value >> 8 & 255, value & 255]), 0.02, 0.85) if len(text) == 6 else None


@dataclass(frozen=True, eq=False)
class Plans:
    """Footprints with the frames of their smallest rectangles. Arrays by building: middle (N, 2), axis (N, 2) along
    the longer side, length and width, area, share of the rectangle that is filled."""

    polygons: np.ndarray
    middle: np.ndarray
    axis: np.ndarray
    length_m: np.ndarray
    width_m: np.ndarray
    area_m2: np.ndarray
    fill: np.ndarray

    @classmethod
    def of(cls, polygons: np.ndarray) -> Plans:
        corners = shapely.get_coordinates(shapely.oriented_envelope(polygons)).reshape(-1, 5, 2)
        edges = np.diff(corners[:, :3], axis=1)
        sides = np.linalg.norm(edges, axis=2)
        long = np.argmax(sides, axis=1)
        rows = np.arange(len(polygons))
        length, width = sides[rows, long], sides[rows, 1 - long]
        area = shapely.area(polygons)
        return cls(polygons, corners[:, :4].mean(axis=1), edges[rows, long] / length[:, None], length, width, area,
                   area / (length * width))

    def local(self, owner: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(s along, t across) the rectangles of their owners, of points (M, 2)."""
        d, a = points - self.middle[owner], self.axis[owner]
        return d[:, 0] * a[:, 0] + d[:, 1] * a[:, 1], d[:, 1] * a[:, 0] - d[:, 0] * a[:, 1]

    def world(self, owner: np.ndarray, s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Points (M, 2) from the frames of their owners."""
        a = self.axis[owner]
        return self.middle[owner] + np.stack([s * a[:, 0] - t * a[:, 1], s * a[:, 1] + t * a[:, 0]], axis=1)


def footprints(polygons: Sequence[shapely.Polygon], smallest_m2: float = 4.0) -> np.ndarray:
    """Footprints as they are built: valid, in millimetres, without vertices that lie on a line; None where less than
    smallest_m2 is left."""
    shapes = shapely.set_precision(shapely.simplify(np.array(polygons, object), 0.05), 1e-3)
    for i in np.flatnonzero(shapely.get_type_id(shapes) != 3):
        parts = shapely.get_parts(shapes[i])
        parts = parts[shapely.get_type_id(parts) == 3]
        shapes[i] = max(parts, key=shapely.area) if len(parts) else None
    shapes[~(shapely.area(shapes) >= smallest_m2)] = None
    return shapes


def underside(building: Building) -> float:
    """How far above the ground a building begins, in metres; roofs without walls are 0.4 m thick."""
    if building.kind in _CANOPIES and building.min_height_m == 0:
        return max(building.height_m - 0.4, 0.5 * building.height_m)
    return building.min_height_m


def make_buildings(buildings: Sequence[Building], relief: Relief, rng: np.random.Generator,
                   latitude_deg: float) -> Objects:
    """All buildings on the relief. Unknown roofs, materials and colours are drawn by kind, size and latitude."""
    shapes = footprints([building.polygon for building in buildings]) if buildings else np.zeros(0, object)
    kept = np.flatnonzero(shapely.is_geometry(shapes))
    buildings = [buildings[i] for i in kept]
    plans = Plans.of(shapes[kept])
    count = len(buildings)
    seeds = rng.integers(0, 2**32, count, dtype=np.uint32)
    shape, rise = _roofs(buildings, plans, rng)
    walls, roofs, wall_colour, roof_colour = _looks(buildings, plans, shape, rng, latitude_deg)

    points, owner = shapely.get_coordinates(plans.polygons, return_index=True)
    z = relief.height_m(points[:, 0], points[:, 1]).astype(np.float64)
    ground = np.bincount(owner, z, count) / np.maximum(np.bincount(owner, minlength=count), 1)
    lowest = np.full(count, np.inf)
    np.minimum.at(lowest, owner, z)
    height = np.array([building.height_m for building in buildings])
    bottom = np.array([underside(building) for building in buildings])
    base = np.where(bottom > 0, ground + bottom, lowest - 0.3)
    eaves = ground + height - rise

    xy, triangles, owner = triangulate(plans, shape)
    top = eaves[owner] + _roof_height(plans, shape, rise, owner, xy)
    top = np.maximum(top, base[owner] + 0.2)
    vertices, faces, part = blocks(xy, triangles, top, base[owner])
    face_owner = owner[faces[:, 0] % len(xy)] if len(xy) else np.zeros(0, np.int64)
    material = np.where(part == 0, roofs[face_owner], walls[face_owner]).astype(np.uint8)
    colour = np.where((part == 0)[:, None], roof_colour[face_owner], wall_colour[face_owner])
    body = Objects(_mesh(vertices, faces, material, colour), face_owner.astype(np.int32), ground.astype(np.float32),
                   seeds)
    fittings, fitted = _fittings(plans, shape, rise, eaves, base, rng)
    return Objects(Mesh.joined([body.mesh, fittings]), np.concatenate([body.object_id, fitted]), body.base_z, seeds)


def _mesh(vertices: np.ndarray, faces: np.ndarray, material: np.ndarray, colour: np.ndarray) -> Mesh:
    return Mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32), material,
                np.ascontiguousarray(colour, np.float32), np.zeros(len(faces), np.uint8))


def _roofs(buildings: Sequence[Building], plans: Plans, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(shape, rise of the roof in metres) of each building."""
    count = len(buildings)
    draw, pitch = rng.random(count), np.radians(rng.uniform(24.0, 42.0, count))
    shape = np.empty(count, np.int64)
    for i, building in enumerate(buildings):
        known = _SHAPES.get(building.roof_shape)
        if known is None:
            if building.kind in _HALLS:
                known = FLAT if draw[i] < 0.7 or plans.area_m2[i] > 1500 else GABLED
            elif building.kind in _OUTBUILDINGS:
                known = FLAT if draw[i] < 0.6 else SKILLION if draw[i] < 0.8 else GABLED
            elif plans.width_m[i] > 18.0 or building.height_m > 24.0 or building.kind in ("roof", "parking"):
                known = FLAT
            elif building.height_m > 13.0:
                known = FLAT if draw[i] < 0.65 else GABLED if draw[i] < 0.8 else HIPPED
            else:
                flat = 0.15 if building.kind in _HOUSES or plans.area_m2[i] < 250 else 0.35
                known = (FLAT if draw[i] < flat else GABLED if draw[i] < 0.72 else HIPPED if draw[i] < 0.94 else
                         PYRAMIDAL)
        shape[i] = known
    holes = shapely.get_num_interior_rings(plans.polygons) > 0
    steep = np.isin(shape, (GABLED, HIPPED, PYRAMIDAL, SKILLION))
    shape[steep & (holes | (plans.fill < np.where(shape == GABLED, 0.72, 0.85)))] = SLOPED
    long = plans.length_m > 1.35 * plans.width_m
    shape[(shape == PYRAMIDAL) & long] = HIPPED
    shape[(shape == HIPPED) & ~long & (plans.length_m < 1.1 * plans.width_m)] = PYRAMIDAL
    height = np.array([building.height_m - underside(building) for building in buildings])
    wide = (shape == FLAT) & (plans.area_m2 > 80.0) & (height > 4.5) & (draw < 0.6)
    shape[wide] = PARAPET
    inradius = np.zeros(count)
    rings = np.isin(shape, (SLOPED, DOME))
    inradius[rings] = shapely.length(shapely.maximum_inscribed_circle(plans.polygons[rings], tolerance=0.2))
    rise = np.tan(pitch) * np.select([shape == SKILLION, rings], [0.4 * plans.width_m, inradius], 0.5 * plans.width_m)
    rise = np.minimum(rise, np.where(np.isin(shape, (DOME, PYRAMIDAL)), 0.6, 0.45) * height)
    rise = np.where(shape == DOME, np.minimum(inradius, 0.7 * height), np.minimum(rise, 6.0))
    return shape, np.where(np.isin(shape, (FLAT, PARAPET)), 0.0, rise)


def _pick(draw: np.ndarray, table: tuple[tuple[Surface, float], ...]) -> np.ndarray:
    """Surfaces by their shares, of draws in [0, 1)."""
    edges = np.cumsum([share for _, share in table])
    return np.array([surface for surface, _ in table])[np.minimum(np.searchsorted(edges / edges[-1], draw, "right"),
                                                                  len(table) - 1)]


def _looks(buildings: Sequence[Building], plans: Plans, shape: np.ndarray, rng: np.random.Generator,
           latitude_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(wall surface, roof surface, wall colour, roof colour) of each building."""
    count = len(buildings)
    draw = rng.random((count, 6))
    height = np.array([building.height_m for building in buildings])
    halls = np.array([building.kind in _HALLS for building in buildings], bool)
    out = np.array([building.kind in _OUTBUILDINGS for building in buildings], bool)
    north, far_north = abs(latitude_deg) > 47.0, abs(latitude_deg) > 57.0
    plaster, brick, wood, concrete, sheet, glass = (Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_WOOD,
                                                    Surface.WALL_CONCRETE, Surface.WALL_METAL, Surface.WINDOW)
    walls = _pick(draw[:, 0], ((plaster, 0.35 if far_north else 0.8), (brick, 0.15 if north else 0.06),
                               (wood, 0.45 if far_north else 0.05), (concrete, 0.08)))
    walls = np.where(height > 28.0, _pick(draw[:, 0], ((concrete, 0.4), (plaster, 0.4), (glass, 0.2))), walls)
    walls = np.where(halls, _pick(draw[:, 0], ((sheet, 0.5), (concrete, 0.25), (brick, 0.1), (plaster, 0.15))), walls)
    glazed = np.array([building.kind == "greenhouse" for building in buildings], bool)
    walls = np.where(out, _pick(draw[:, 0], ((plaster, 0.4), (wood, 0.3), (sheet, 0.15), (concrete, 0.15))), walls)
    tiles, bitumen, gravel, zinc, paint, slab = (Surface.ROOF_TILES, Surface.ROOF_BITUMEN, Surface.ROOF_GRAVEL,
                                                 Surface.ROOF_METAL, Surface.ROOF_METAL_PAINTED, Surface.ROOF_CONCRETE)
    steep = _pick(draw[:, 1], ((tiles, 0.3 if far_north else 0.82), (paint, 0.45 if far_north else 0.09),
                               (bitumen, 0.2 if far_north else 0.05), (zinc, 0.05)))
    flat = _pick(draw[:, 1], ((gravel, 0.36), (bitumen, 0.34), (slab, 0.22), (zinc, 0.04), (paint, 0.04)))
    sheds = _pick(draw[:, 1], ((bitumen, 0.3), (paint, 0.3), (zinc, 0.2), (gravel, 0.1), (slab, 0.1)))
    roofs = np.where(np.isin(shape, (FLAT, PARAPET)), flat, steep)
    roofs = np.where(halls | out, np.where((shape == GABLED) & (draw[:, 2] < 0.4), tiles, sheds), roofs)
    roofs = np.where(shape == DOME, np.where(draw[:, 1] < 0.5, paint, zinc), roofs)
    walls, roofs = np.where(glazed, glass, walls), np.where(glazed, glass, roofs)
    for surfaces, tags, attribute in ((walls, _WALL_TAGS, "material"), (roofs, _ROOF_TAGS, "roof_material")):
        for i, building in enumerate(buildings):
            surfaces[i] = tags.get(getattr(building, attribute), surfaces[i])

    def colours(surfaces: np.ndarray, which: np.ndarray, shade: np.ndarray, attribute: str) -> np.ndarray:
        result = np.empty((count, 3), np.float32)
        for surface in np.unique(surfaces):
            palette = _PALETTES.get(Surface(surface), _CONCRETE)
            chosen = surfaces == surface
            result[chosen] = palette[(which[chosen] * len(palette)).astype(np.int64)]
        result *= (0.82 + 0.36 * shade)[:, None].astype(np.float32)
        for i, building in enumerate(buildings):
            tagged = tagged_colour(getattr(building, attribute)) if getattr(building, attribute) else None
            if tagged is not None:
                result[i] = tagged
        return np.clip(result, 0.02, 0.9)

    return walls, roofs, colours(walls, draw[:, 2], draw[:, 3], "colour"), \
        colours(roofs, draw[:, 4], draw[:, 5], "roof_colour")


def _creases(plans: Plans, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lines, owner) that roofs are folded along."""
    lines, owners = [], []

    def fold(chosen: np.ndarray, s0, t0, s1, t1) -> None:
        ends = np.stack([plans.world(chosen, s0 + 0 * t0, t0 + 0 * s0), plans.world(chosen, s1 + 0 * t1, t1 + 0 * s1)],
                        axis=1)
        lines.append(shapely.linestrings(ends))
        owners.append(chosen)

    half_l, half_w = 0.5 * plans.length_m, 0.5 * plans.width_m
    chosen = np.flatnonzero(shape == GABLED)
    zero = np.zeros(len(chosen))
    fold(chosen, -half_l[chosen] - 1, zero, half_l[chosen] + 1, zero)
    chosen = np.flatnonzero(shape == HIPPED)
    ridge, w, zero = (half_l - half_w)[chosen], half_w[chosen] + 1, np.zeros(len(chosen))
    fold(chosen, -ridge, zero, ridge, zero)
    for side in (-1.0, 1.0):
        for end in (-1.0, 1.0):
            fold(chosen, end * ridge, zero, end * (ridge + w), side * w)
    chosen = np.flatnonzero(shape == PYRAMIDAL)
    zero = np.zeros(len(chosen))
    for side in (-1.2, 1.2):
        for end in (-1.2, 1.2):
            fold(chosen, zero, zero, end * half_l[chosen], side * half_w[chosen])
    for kind, shares in ((SLOPED, _SLOPED_RINGS), (DOME, _DOME_RINGS)):
        chosen = np.flatnonzero(shape == kind)
        depth = shapely.length(shapely.maximum_inscribed_circle(plans.polygons[chosen], tolerance=0.2))
        for share in shares:
            rings, owner = shapely.get_parts(shapely.boundary(shapely.buffer(
                plans.polygons[chosen], -share * depth, join_style="mitre")), return_index=True)
            lines.append(shapely.simplify(rings, 0.05))
            owners.append(chosen[owner])
    chosen = np.flatnonzero(shape == PARAPET)
    for depth in _PARAPET_RINGS_M:
        rings, owner = shapely.get_parts(shapely.boundary(shapely.buffer(
            plans.polygons[chosen], -depth, join_style="mitre")), return_index=True)
        lines.append(rings)
        owners.append(chosen[owner])
    return np.concatenate(lines), np.concatenate(owners)


def triangulate(plans: Plans, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Footprints cut along the creases of their roofs: (xy float64 (V, 2), triangles int64 (T, 3), counter-clockwise,
    owner int64 (V,)). Triangles of a building share their vertices."""
    cells, cell_owner = plans.polygons, np.arange(len(plans.polygons))
    lines, owner = _creases(plans, shape)
    if len(lines):
        order = np.argsort(owner, kind="stable")
        folded, start = np.unique(owner[order], return_index=True)
        creases = shapely.multilinestrings(lines[order], indices=np.repeat(np.arange(len(folded)),
                                                                          np.diff([*start, len(order)])))
        noded = shapely.union(shapely.boundary(plans.polygons[folded]), creases, grid_size=1e-3)
        pieces, piece_owner = shapely.get_parts(shapely.polygonize(noded[:, None]), return_index=True)
        piece_owner = folded[piece_owner]
        inside = shapely.contains_xy(plans.polygons[piece_owner],
                                     *shapely.get_coordinates(shapely.point_on_surface(pieces)).T)
        pieces, piece_owner = pieces[inside], piece_owner[inside]
        covered = np.bincount(piece_owner, shapely.area(pieces), len(plans.polygons))
        whole = np.abs(covered - plans.area_m2) < 1e-3 * plans.area_m2 + 1e-2
        simple = ~np.isin(cell_owner, folded) | ~whole  # where folding failed, the uncut footprint
        good = whole[piece_owner]
        cells = np.concatenate([cells[simple], pieces[good]])
        cell_owner = np.concatenate([cell_owner[simple], piece_owner[good]])
    triangles, cell = shapely.get_parts(shapely.constrained_delaunay_triangles(cells), return_index=True)
    corners = shapely.get_coordinates(triangles).reshape(-1, 4, 2)[:, :3]
    owner = cell_owner[cell]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    turn = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    corners[turn < 0] = corners[turn < 0][:, ::-1]
    keys = np.column_stack([np.repeat(owner, 3), np.round(corners.reshape(-1, 2) * 1000).astype(np.int64)])
    order = np.lexsort(keys.T[::-1])
    fresh = np.ones(len(keys), bool)
    fresh[1:] = (np.diff(keys[order], axis=0) != 0).any(axis=1)
    index = np.empty(len(keys), np.int64)
    index[order] = np.cumsum(fresh) - 1
    unique = keys[order[fresh]] if len(keys) else keys
    return unique[:, 1:] / 1000.0, index.reshape(-1, 3), unique[:, 0]


def _roof_height(plans: Plans, shape: np.ndarray, rise: np.ndarray, owner: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The height of roofs above their eaves at points, float64 (M,)."""
    s, t = plans.local(owner, xy)
    half_l, half_w = 0.5 * plans.length_m[owner], 0.5 * plans.width_m[owner]
    slope = np.clip(1.0 - np.abs(t) / half_w, 0, 1)
    kind = shape[owner]
    share = np.select([kind == GABLED, kind == HIPPED, kind == PYRAMIDAL, kind == SKILLION],
                      [slope, np.minimum(slope, np.clip((half_l - np.abs(s)) / half_w, 0, 1)),
                       np.minimum(slope, np.clip(1.0 - np.abs(s) / half_l, 0, 1)),
                       np.clip(0.5 + 0.5 * t / half_w, 0, 1)], 0.0)
    ringed = np.flatnonzero(np.isin(kind, (SLOPED, DOME, PARAPET)))
    depth = shapely.distance(shapely.points(xy[ringed]), shapely.boundary(plans.polygons)[owner[ringed]])
    which = owner[ringed]
    deepest = np.zeros(len(shape))
    np.maximum.at(deepest, which, depth)
    part = depth / np.maximum(deepest[which], 1e-6)
    share[ringed] = np.where(shape[which] == DOME, np.sqrt(np.clip(1 - (1 - part) ** 2, 0, 1)), part)
    parapet = shape[which] == PARAPET
    height = share * rise[owner]
    height[ringed[parapet]] = np.where(depth[parapet] > 0.5 * sum(_PARAPET_RINGS_M), -PARAPET_M, 0.0)
    return height


def blocks(xy: np.ndarray, triangles: np.ndarray, top: np.ndarray,
            base: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closed blocks between two height fields over the same triangles: (vertices, faces, part), part 0 on the upper
    side, 1 on walls, 2 on the underside. Vertex i's foot is vertex i + V."""
    count = len(xy)
    vertices = np.concatenate([np.column_stack([xy, top]), np.column_stack([xy, base])])
    edges = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    key, twin = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    a, b = edges[~np.isin(key, twin)].T
    walls = np.stack([b, a, a + count, b, a + count, b + count], axis=1).reshape(-1, 3)
    faces = np.concatenate([triangles, walls, triangles[:, ::-1] + count])
    part = np.repeat([0, 1, 2], [len(triangles), len(walls), len(triangles)])
    return vertices, faces, part


def boxes(middle: np.ndarray, bottom: np.ndarray, top: np.ndarray, length: np.ndarray, width: np.ndarray,
          axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upright boxes: (vertices (8 N, 3), faces (12 N, 3)). middle (N, 2); axis: unit vectors (N, 2) along length."""
    s, t = np.array([-0.5, 0.5, 0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5])
    along, across = s * length[:, None], t * width[:, None]
    x = middle[:, :1] + along * axis[:, :1] - across * axis[:, 1:]
    y = middle[:, 1:] + along * axis[:, 1:] + across * axis[:, :1]
    z = np.stack([bottom, top], axis=1)
    vertices = np.stack([np.tile(x, 2), np.tile(y, 2), np.repeat(z, 4, axis=1)], axis=2).reshape(-1, 3)
    faces = np.array([(4, 5, 6), (4, 6, 7), (0, 2, 1), (0, 3, 2), (0, 1, 5), (0, 5, 4), (1, 2, 6), (1, 6, 5), (2, 3, 7),
                      (2, 7, 6), (3, 0, 4), (3, 4, 7)])
    return vertices, (faces + 8 * np.arange(len(middle))[:, None, None]).reshape(-1, 3)


def _fittings(plans: Plans, shape: np.ndarray, rise: np.ndarray, eaves: np.ndarray, base: np.ndarray,
              rng: np.random.Generator) -> tuple[Mesh, np.ndarray]:
    """Chimneys on steep roofs, housings of lifts, fans and skylights on flat ones: (mesh, object of each face)."""
    steep = ~np.isin(shape, (FLAT, PARAPET, DOME, SKILLION)) & (plans.area_m2 > 45.0)
    flat = np.isin(shape, (FLAT, PARAPET)) & (plans.area_m2 > 120.0) & (eaves - base > 4.0)
    wanted = np.where(steep, rng.integers(0, 3, len(shape)), 0) + \
        np.where(flat, np.minimum((plans.area_m2 / 160.0 * rng.random(len(shape))).astype(np.int64) + 1, 14), 0)
    owner = np.repeat(np.arange(len(shape)), wanted)
    draw = rng.random((len(owner), 6))
    chimney = steep[owner]
    s = (draw[:, 0] - 0.5) * 0.8 * plans.length_m[owner]
    t = (draw[:, 1] - 0.5) * np.where(chimney, 0.35, 0.8) * plans.width_m[owner]
    places = plans.world(owner, s, t)
    room = shapely.distance(shapely.points(places), shapely.boundary(plans.polygons[owner]))
    inside = shapely.contains_xy(plans.polygons[owner], places[:, 0], places[:, 1]) & \
        (room > np.where(chimney, 0.8, 2.5))
    owner, draw, chimney, places = owner[inside], draw[inside], chimney[inside], places[inside]
    skylight = ~chimney & (draw[:, 2] < 0.35)
    length = np.where(chimney, 0.5 + 0.5 * draw[:, 3], 1.2 + np.where(skylight, 0.8, 2.4) * draw[:, 3])
    width = np.where(chimney, 0.5 + 0.2 * draw[:, 4], np.where(skylight, 1.0, 1.0 + 1.6 * draw[:, 4]))
    roof = eaves[owner] + _roof_height(plans, shape, rise, owner, places)
    top = roof + np.where(chimney, 0.8 + 0.7 * draw[:, 5], np.where(skylight, 0.35, 0.7 + 1.8 * draw[:, 5]))
    vertices, faces = boxes(places, roof - 0.4, top, length, width, plans.axis[owner])
    surface = np.select([chimney & (draw[:, 2] < 0.6), chimney, skylight, draw[:, 2] < 0.75],
                        [Surface.WALL_BRICK, Surface.WALL_PLASTER, Surface.WINDOW, Surface.WALL_METAL],
                        Surface.WALL_CONCRETE)
    colour = np.empty((len(owner), 3), np.float32)
    for value in np.unique(surface):
        palette = _PALETTES[Surface(value)]
        chosen = surface == value
        colour[chosen] = palette[(draw[chosen, 5] * len(palette)).astype(np.int64)]
    return _mesh(vertices, faces, np.repeat(surface, 12).astype(np.uint8), np.repeat(colour, 12, axis=0)), \
        np.repeat(owner, 12).astype(np.int32)
