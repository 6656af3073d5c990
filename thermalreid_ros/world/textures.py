"""What surfaces look like close by: blotches, rows, courses, joints and windows, from the place alone.

Textures are functions of the position in metres: no images, no seams between views, the same for ever. Each material
has noise of the strength and scale that materials.py gives it, in four bands of wavelengths, in the visible (share of
the albedo) and in the thermal band (kelvin), fed by the same tiles; some surfaces add a pattern of their own. Detail
finer than two pixels fades out instead of flickering.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from thermalreid_ros.world.materials import Surface, material_arrays

_SIZE, _TEXELS = 512, 8  # a tile of noise, and its texels per wavelength
# Wavelengths of the bands in metres; each holds two octaves, so that four reach from decimetres to fields.
WAVELENGTHS_M = (24.0, 6.0, 1.5, 0.375)
# Turns of the bands' axes keep the tiles' repetition from lining up.
_TURNS = tuple((np.float32(np.cos(a)), np.float32(np.sin(a))) for a in (0.4, 1.3, 2.6, 3.9))

_BAND_OCTAVES = 3.5  # spread of a material's noise about its scale
# Where growth, moisture and wear show, what is paler is drier and warmer; elsewhere the two bands differ, as dirt,
# damp and the layers below do not show alike.
_LIVING = (Surface.SOIL, Surface.SAND, Surface.GRASS, Surface.DRY_GRASS, Surface.CROP, Surface.FOREST_FLOOR,
           Surface.FOLIAGE)
_THERMAL_SIGNS = (1.0, -1.0, 1.0, -1.0)
_WALLS = (Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_CONCRETE, Surface.WALL_WOOD, Surface.WALL_METAL)
_UPRIGHT = (*_WALLS, Surface.WINDOW, Surface.ROOF_TILES, Surface.ROOF_METAL, Surface.ROOF_METAL_PAINTED)


@dataclass(frozen=True, eq=False)
class Texture:
    """albedo_factor: float32 (N,), about 1, at least 0.1. thermal_offset_k: float32 (N,), about 0."""

    albedo_factor: np.ndarray
    thermal_offset_k: np.ndarray


@dataclass(frozen=True, eq=False)
class Facade:
    """window: bool (N,), where glass is. floor, column: int32 (N,), the window's cell above base_z and along the
    wall, 0 outside of windows. number: uint32 (N,), random but fixed for each cell: who is at home, what is lit."""

    window: np.ndarray
    floor: np.ndarray
    column: np.ndarray
    number: np.ndarray


def texture(surface: np.ndarray, position: np.ndarray, normal: np.ndarray, object_seed: np.ndarray,
            footprint_m: np.ndarray | float = 0.0) -> Texture:
    """Texture of N points.

    surface: uint8 (N,). position: float32 (N, 3), metres: of the world, or of the body for what moves. normal:
    float32 (N, 3). object_seed: integers (N,), one for each object; the same for all ground, which has no seams.
    footprint_m: width of a pixel on the surface, (N,) or one for all; 0 gives all detail.
    The thermal offset is that of a clear noon: less sun, less of it; a clear night turns about a third of it over.
    """
    surface = np.asarray(surface)
    seed = np.asarray(object_seed).astype(np.uint32)
    footprint = np.broadcast_to(np.asarray(footprint_m, np.float32), surface.shape)
    u, v = _plane(surface, position, normal)
    visible, thermal = _spectra()
    factor, offset = np.ones(surface.shape, np.float32), np.zeros(surface.shape, np.float32)
    shift = (seed & np.uint32(0xFFF)).astype(np.float32)  # objects side by side do not continue each other
    for band, (wavelength, (c, s)) in enumerate(zip(WAVELENGTHS_M, _TURNS)):
        fade = _fade(footprint, wavelength)
        if not fade.any():
            break
        scale = np.float32(_TEXELS / wavelength)
        noise = _lookup(band, (c * u + s * v) * scale + shift, (c * v - s * u) * scale)
        noise *= fade
        factor += visible[:, band].take(surface) * noise
        offset += thermal[:, band].take(surface) * noise
    for kind, pattern in _PATTERNS.items():
        here = np.flatnonzero(surface == kind)
        if here.size:
            bright, warm = pattern(u[here], v[here], seed[here], footprint[here])
            factor[here] *= bright
            offset[here] += warm
    return Texture(np.clip(factor, np.float32(0.1), np.float32(2.5)), offset)


def facade(position: np.ndarray, normal: np.ndarray, base_z: np.ndarray, object_seed: np.ndarray,
           height_m: np.ndarray | None = None) -> Facade:
    """Windows of N points on walls.

    position, normal: float32 (N, 3). base_z: height of the building's foot, (N,). object_seed: integers (N,).
    height_m: of the wall, (N,): no window is cut by the eaves. Floors are 2.7-3.5 m, columns 2.2-3.8 m apart, as
    the building's seed has it; one wall in six is blank, and none has windows that does not stand upright.
    """
    position, normal = np.asarray(position, np.float32), np.asarray(normal, np.float32)
    seed = np.asarray(object_seed).astype(np.uint32)
    along = position[:, 1] * normal[:, 0] - position[:, 0] * normal[:, 1]
    above = position[:, 2] - np.asarray(base_z, np.float32)
    own = _hash(seed)
    storey = np.float32(2.7) + np.float32(0.8) * _share(own, 0)
    pitch = np.float32(2.2) + np.float32(1.6) * _share(own, 1)
    width = pitch * (np.float32(0.32) + np.float32(0.3) * _share(own, 2))
    glass = np.float32(1.1) + np.float32(0.6) * _share(own, 3)
    sill = np.float32(0.75) + np.float32(0.25) * _share(_hash(own), 0)
    floor, column = np.floor(above / storey), np.floor(along / pitch)
    y, x = above - floor * storey - sill, along - (column + np.float32(0.5)) * pitch
    # Walls of one building face few ways: their direction in steps of 10 degrees tells them apart.
    # The odd shift keeps the steps' borders from right angles and diagonals.
    facing = np.floor(np.arctan2(normal[:, 1], normal[:, 0]) * np.float32(18 / np.pi) + 0.37).astype(np.int32) % 36
    wall = _hash(own ^ (facing.astype(np.uint32) + np.uint32(1)) * np.uint32(0x9E3779B1))
    floor, column = floor.astype(np.int32), column.astype(np.int32)
    number = _hash(wall ^ floor.astype(np.uint32) * np.uint32(0x85EBCA6B) ^ column.astype(np.uint32)
                   * np.uint32(0xC2B2AE35))
    window = (np.abs(x) < np.float32(0.5) * width) & (y > 0) & (y < glass) & (floor >= 0)
    window &= np.abs(normal[:, 2]) < np.float32(0.2)
    window &= (wall % np.uint32(6) != 0) & (number % np.uint32(11) != 0)
    if height_m is not None:
        window &= floor * storey + sill + glass < np.asarray(height_m, np.float32) - np.float32(0.2)
    return Facade(window, np.where(window, floor, 0), np.where(window, column, 0), number)


@cache
def _tile(number: int) -> np.ndarray:
    """Tileable noise of zero mean and unit variance, float32 (_SIZE^2,), rows of v: two octaves of
    wavelengths about _TEXELS, made in the frequency domain."""
    rng = np.random.default_rng(np.random.SeedSequence([20210726, number]))
    spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE)))
    frequency = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)) * _TEXELS
    octaves = np.log2(np.maximum(frequency, 1e-9))
    spectrum *= np.exp(-0.5 * (octaves / 0.9) ** 2) / np.maximum(frequency, 1e-9)
    noise = np.fft.irfft2(spectrum, (_SIZE, _SIZE))
    noise -= noise.mean()
    return np.ascontiguousarray(noise / noise.std(), np.float32).ravel()


def _lookup(number: int, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The tile at real coordinates in texels, bilinear."""
    i, j = np.floor(row), np.floor(column)
    b, a = row - i, column - j
    i, j = i.astype(np.int32), j.astype(np.int32)
    mask = np.int32(_SIZE - 1)
    top, bottom = (i & mask) * np.int32(_SIZE), ((i + np.int32(1)) & mask) * np.int32(_SIZE)
    left, right = j & mask, (j + np.int32(1)) & mask
    tile = _tile(number)
    upper, lower = tile.take(top + left), tile.take(bottom + left)
    upper += a * (tile.take(top + right) - upper)
    lower += a * (tile.take(bottom + right) - lower)
    upper += b * (lower - upper)
    return upper


@cache
def _spectra() -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes by surface and band, float32 (256, 4) each: visible (share of albedo) and thermal (kelvin)."""
    materials = material_arrays()
    # The material's noise falls on all bands there are, 6 km to 2 mm; four of them are drawn.
    bands = WAVELENGTHS_M[0] * 4.0 ** np.arange(4, -7, -1)
    octaves = np.log2(bands / materials.noise_scale_m[:, None])
    weights = np.exp(-0.5 * (octaves / _BAND_OCTAVES) ** 2)
    weights = (weights / np.sqrt((weights ** 2).sum(axis=1, keepdims=True)))[:, 4:8]
    signs = np.tile(_THERMAL_SIGNS, (len(weights), 1))
    signs[list(_LIVING)] = 1.0
    tables = np.zeros((2, 256, len(WAVELENGTHS_M)), np.float32)
    tables[0, :len(weights)] = materials.visible_noise[:, None] * weights
    tables[1, :len(weights)] = materials.thermal_noise_k[:, None] * weights * signs
    return tables[0], tables[1]


def _fade(footprint: np.ndarray, wavelength: float) -> np.ndarray:
    """1 where a wavelength spans four pixels and more, 0 below two."""
    return np.clip(np.float32(2) - np.float32(4.0 / wavelength) * footprint, np.float32(0), np.float32(1))


def _plane(surface: np.ndarray, position: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres along the level line and up the slope on walls and roofs; east and north elsewhere, on leaves sheared
    by height so that the sides of a crown are not streaked."""
    position, normal = np.asarray(position, np.float32), np.asarray(normal, np.float32)
    u, v = np.ascontiguousarray(position[:, 0]), np.ascontiguousarray(position[:, 1])
    upright = np.zeros(256, bool)
    upright[list(_UPRIGHT)] = True
    leaves = np.flatnonzero(surface == Surface.FOLIAGE)
    u[leaves] += np.float32(0.7) * position[leaves, 2]
    v[leaves] -= np.float32(0.7) * position[leaves, 2]
    nx, ny, nz = normal.T
    flat = nx * nx + ny * ny
    tilted = np.flatnonzero(upright.take(surface) & (flat > np.float32(1e-3)))
    if tilted.size:
        length = np.sqrt(flat[tilted])
        tx, ty, up = -ny[tilted] / length, nx[tilted] / length, nz[tilted]
        x, y, z = position[tilted].T
        u[tilted] = x * tx + y * ty
        v[tilted] = up * (tx * y - ty * x) + length * z
    return u, v


def _hash(value: np.ndarray) -> np.ndarray:
    """uint32 to uint32, every bit depends on all (Wellons' lowbias32)."""
    value = value ^ (value >> np.uint32(16))
    value = value * np.uint32(0x7FEB352D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x846CA68B)
    value ^= value >> np.uint32(16)
    return value


def _share(value: np.ndarray, byte: int) -> np.ndarray:
    """One byte of a hash as a number 0..1, float32."""
    return ((value >> np.uint32(8 * byte)) & np.uint32(255)).astype(np.float32) * np.float32(1 / 255)


def _cell(u: np.ndarray, v: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Hash of the cell of a unit lattice that a point lies in."""
    i, j = np.floor(u).astype(np.int32).astype(np.uint32), np.floor(v).astype(np.int32).astype(np.uint32)
    return _hash(_hash(i * np.uint32(0x9E3779B1) ^ seed) ^ j * np.uint32(0x85EBCA6B))


def _groove(place: np.ndarray, period: float, width: float, footprint: np.ndarray) -> np.ndarray:
    """Share of a pixel that lies in grooves `width` wide, one each period; level where pixels outgrow periods."""
    distance = np.abs(place - np.float32(period) * np.round(place * np.float32(1 / period)))
    pixel = np.maximum(footprint, np.float32(0.02))
    line = np.clip((np.float32(0.5 * width) + np.float32(0.5) * pixel - distance) / pixel, np.float32(0),
                   np.float32(1)) * np.minimum(np.float32(width) / pixel, np.float32(1))
    fade = _fade(footprint, period)
    return fade * line + (np.float32(1) - fade) * np.float32(width / period)


def _asphalt(u, v, seed, footprint):
    """Mended rectangles, newer and darker or older and paler, and cracks sealed with bitumen."""
    wobble = _lookup(12, u * np.float32(0.9), v * np.float32(0.9))
    c, s = np.float32(np.cos(0.35)), np.float32(np.sin(0.35))
    x, y = c * u + s * v, c * v - s * u
    cell = _cell(x * np.float32(1 / 11), y * np.float32(1 / 7), np.uint32(17))
    inside = (np.abs(x * np.float32(1 / 11) % 1 - np.float32(0.5)) < np.float32(0.15) + np.float32(0.3)
              * _share(cell, 0)) & (np.abs(y * np.float32(1 / 7) % 1 - np.float32(0.5)) < np.float32(0.1)
                                    + np.float32(0.3) * _share(cell, 1))
    patch = (inside & (_share(cell, 2) < np.float32(0.16))) * (_share(cell, 3) - np.float32(0.7)) * np.float32(0.5)
    crack = np.maximum(np.float32(1) - np.abs(wobble) * np.float32(14), np.float32(0)) * _fade(footprint, 0.6)
    return np.float32(1) + patch - np.float32(0.18) * crack, -patch * np.float32(3) + crack * np.float32(0.3)


def _paving(u, v, seed, footprint):
    """Slabs of half a metre with joints, each a little of its own."""
    joint = np.maximum(_groove(u, 0.5, 0.02, footprint), _groove(v, 0.5, 0.02, footprint))
    slab = (_share(_cell(u * 2, v * 2, np.uint32(5)), 0) - np.float32(0.5)) * _fade(footprint, 0.5)
    return np.float32(1) + np.float32(0.16) * slab - np.float32(0.45) * joint, np.float32(-0.5) * joint


def _crop(u, v, seed, footprint):
    """Rows 0.75 m apart, parcels of some 90 m by 140 m, each with a direction, tint and moisture of its own."""
    wobble = _lookup(13, u * np.float32(0.12), v * np.float32(0.12)) * np.float32(4)
    cell = _cell((u + wobble) * np.float32(1 / 90), (v + wobble) * np.float32(1 / 140), np.uint32(11))
    turn = _share(cell, 0) * np.float32(np.pi)
    row = np.cos(turn) * u + np.sin(turn) * v
    wave = np.cos(row * np.float32(2 * np.pi / 0.75)) * _fade(footprint, 0.75)
    tram = _groove(row, 18.0, 0.9, footprint)  # lanes of the tractor
    tint = (_share(cell, 1) - np.float32(0.5)) * np.float32(0.4)
    wet = (_share(cell, 2) - np.float32(0.5)) * np.float32(2.5)
    return (np.float32(1) + tint + np.float32(0.22) * wave - np.float32(0.2) * tram,
            wet - np.float32(0.7) * wave + np.float32(1.2) * tram)


def _lawn(u, v, seed, footprint):
    """Worn and dry spots where two slow noises agree."""
    spots = _lookup(14, u * np.float32(1.1), v * np.float32(1.1))
    spots += _lookup(15, v * np.float32(0.25), u * np.float32(0.25))
    dry = np.clip(spots - np.float32(1.6), np.float32(0), np.float32(1))
    return np.float32(1) + np.float32(0.35) * dry, np.float32(2.0) * dry


def _tiles(u, v, seed, footprint):
    """Courses 0.33 m up the slope and tiles 0.28 m wide, some replaced by newer ones."""
    course = v * np.float32(1 / 0.33)
    shade = (np.float32(0.5) - (course - np.floor(course))) * _fade(footprint, 0.33)
    seam = _groove(u, 0.28, 0.04, footprint)
    single = (_share(_cell(u * np.float32(1 / 0.28), course, seed), 0) - np.float32(0.5)) * _fade(footprint, 0.3)
    return (np.float32(1) + np.float32(0.2) * shade - np.float32(0.2) * seam + np.float32(0.18) * single,
            np.float32(0.6) * shade + np.float32(0.3) * single)


def _seams(pitch: float, width: float, depth: float, warm: float):
    """Standing seams, planks or sheets: grooves up the slope, one each pitch."""
    def pattern(u, v, seed, footprint):
        groove = _groove(u, pitch, width, footprint)
        sheet = (_share(_cell(u * np.float32(1 / pitch), np.float32(0) * v, seed), 0) - np.float32(0.5))
        sheet *= _fade(footprint, pitch)
        return (np.float32(1) + np.float32(0.08) * sheet - np.float32(depth) * groove,
                np.float32(warm) * groove + np.float32(0.3) * sheet)
    return pattern


def _felt(u, v, seed, footprint):
    """Strips of roofing felt a metre wide with lapped seams, and stains of ponds that dried."""
    groove = _groove(u, 1.0, 0.08, footprint)
    stain = _lookup(16, u * np.float32(1.3), v * np.float32(1.3))
    pond = np.clip(stain - np.float32(1), np.float32(0), np.float32(1))
    return np.float32(1) - np.float32(0.2) * groove + np.float32(0.3) * pond, np.float32(-0.8) * pond


def _brick(u, v, seed, footprint):
    """Running bond of 0.25 by 0.075 m with pale joints; what is left of it from afar is the noise of the courses."""
    course = np.floor(v * np.float32(1 / 0.075))
    joint = np.maximum(_groove(v, 0.075, 0.01, footprint),
                       _groove(u + np.float32(0.125) * (course % 2), 0.25, 0.01, footprint))
    single = _share(_cell(u * 4, course, seed), 0) - np.float32(0.5)
    single *= _fade(footprint, 0.25)
    return (np.float32(0.94) + np.float32(0.35) * joint + np.float32(0.25) * single, np.float32(-0.2) * joint)


def _stains(u, v, seed, footprint):
    """Streaks that rain washes down a wall, one each few decimetres, metres long."""
    streak = _lookup(17, u * np.float32(14), v * np.float32(1.2)) * _fade(footprint, 0.6)
    dirt = np.clip(streak - np.float32(0.6), np.float32(0), np.float32(1.5))
    return np.float32(1) - np.float32(0.12) * dirt, np.float32(0.2) * dirt


_PATTERNS = {
    Surface.ASPHALT: _asphalt, Surface.PAVING: _paving, Surface.CROP: _crop, Surface.GRASS: _lawn,
    Surface.ROOF_TILES: _tiles, Surface.ROOF_METAL: _seams(0.6, 0.05, 0.3, -0.5),
    Surface.ROOF_METAL_PAINTED: _seams(0.5, 0.06, 0.3, -0.4), Surface.WALL_METAL: _seams(0.3, 0.06, 0.25, -0.3),
    Surface.WALL_WOOD: _seams(0.15, 0.02, 0.35, -0.2), Surface.ROOF_BITUMEN: _felt, Surface.WALL_BRICK: _brick,
    Surface.WALL_PLASTER: _stains, Surface.WALL_CONCRETE: _stains,
}
