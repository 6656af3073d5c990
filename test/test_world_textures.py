"""Procedural textures: strength, scale, seamlessness, fading detail and windows that keep to their lattice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from thermalreid_ros.world.materials import Surface, material_arrays
from thermalreid_ros.world.textures import WAVELENGTHS_M, facade, texture

UP = np.float32([0, 0, 1])
GROUND = (Surface.ASPHALT, Surface.CONCRETE, Surface.GRAVEL, Surface.SOIL, Surface.GRASS, Surface.CROP, Surface.WATER)


def plane(side=256, step_m=0.15, origin=(0.0, 0.0)) -> np.ndarray:
    y, x = np.mgrid[:side, :side].astype(np.float32) * np.float32(step_m)
    return np.stack([x.ravel() + np.float32(origin[0]), y.ravel() + np.float32(origin[1]), 0 * x.ravel()], axis=1)


def on(surface, position, footprint_m=0.0, normal=UP, seed=0):
    count = len(position)
    return texture(np.full(count, surface, np.uint8), position, np.broadcast_to(normal, (count, 3)),
                   np.full(count, seed), footprint_m)


@pytest.mark.parametrize("surface", list(Surface))
def test_every_surface_has_a_texture_of_the_strength_of_its_material(surface):
    normal = np.float32([0, -1, 0]) if surface.name.startswith(("WALL", "WINDOW")) else UP
    position = plane(origin=(310, 120))
    if normal is not UP:
        position = np.ascontiguousarray(position[:, [0, 2, 1]])
    result = on(surface, position, 0.01, normal)
    factor, offset = result.albedo_factor, result.thermal_offset_k
    assert factor.dtype == offset.dtype == np.float32 and factor.min() >= 0.1
    assert abs(factor.mean() - 1) < 0.13 and abs(offset.mean()) < 1.3
    table = material_arrays()
    if surface < Surface.CAR_PAINT:
        assert 0.35 * table.visible_noise[surface] < factor.std() < 2.2 * table.visible_noise[surface] + 0.03
        assert 0.3 * table.thermal_noise_k[surface] < offset.std() < 2.0 * table.thermal_noise_k[surface] + 0.1


def test_textures_are_the_same_from_every_view_and_in_any_grouping():
    rng = np.random.default_rng(1)
    count = 5000
    surface = rng.integers(0, len(Surface), count).astype(np.uint8)
    position = rng.uniform(-900, 900, (count, 3)).astype(np.float32)
    normal = rng.normal(size=(count, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    seed, footprint = rng.integers(-1, 2 ** 31, count), rng.uniform(0, 2, count).astype(np.float32)
    whole = texture(surface, position, normal, seed, footprint)
    order = rng.permutation(count)
    for part in np.array_split(order, 9):
        again = texture(surface[part], position[part], normal[part], seed[part], footprint[part])
        np.testing.assert_array_equal(again.albedo_factor, whole.albedo_factor[part])
        np.testing.assert_array_equal(again.thermal_offset_k, whole.thermal_offset_k[part])


@pytest.mark.parametrize("surface", [Surface.ASPHALT, Surface.GRASS, Surface.SOIL, Surface.ROOF_GRAVEL])
def test_ground_is_continuous(surface):
    line = np.zeros((20001, 3), np.float32)
    line[:, 0] = np.arange(20001) * 0.01
    factor = on(surface, line).albedo_factor
    jumps = np.abs(np.diff(factor))
    assert np.quantile(jumps, 0.999) < 0.1 and factor.std() > 0.05


def test_detail_finer_than_two_pixels_fades_out():
    position = plane(side=200, step_m=0.05)
    fine = on(Surface.GRAVEL, position, 0.02).albedo_factor
    for footprint_m in (0.2, 0.8, 3.1):
        coarse = on(Surface.GRAVEL, position, footprint_m).albedo_factor.reshape(200, 200)
        assert coarse.std() < fine.std()
        kept = [w for w in WAVELENGTHS_M if w > 2 * footprint_m]
        # Steps between neighbours tell the finest wavelength left.
        assert np.abs(np.diff(coarse)).mean() < 0.05 * 8 * coarse.std() / min(kept)
    assert np.ptp(on(Surface.GRAVEL, position, 20.0).albedo_factor) == 0
    per_pixel = np.linspace(0.02, 4, len(position)).astype(np.float32)
    mixed = on(Surface.GRAVEL, position, per_pixel).albedo_factor
    assert mixed[:4000].std() > 3 * mixed[-4000:].std()


def test_tiles_of_noise_do_not_repeat_in_sight():
    here, there = plane(origin=(0, 0)), plane(origin=(96, 0))  # 512 texels of the second band are 384 m
    for surface in (Surface.SOIL, Surface.GRASS):
        a, b = on(surface, here).albedo_factor, on(surface, there).albedo_factor
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.25


def test_roof_courses_follow_the_slope():
    normal = np.float32([0, -0.6, 0.8])
    steps = np.arange(0, 8, 0.02, dtype=np.float32)
    zero = np.zeros_like(steps)
    up_slope = np.stack([zero + 5, 10 + 0.8 * steps, 3 + 0.6 * steps], axis=1)
    factor = on(Surface.ROOF_TILES, up_slope, 0.01, normal).thermal_offset_k
    spectrum = np.abs(np.fft.rfft(factor - factor.mean()))
    peak = np.fft.rfftfreq(len(steps), 0.02)[8:][spectrum[8:].argmax()]
    assert 1 / peak == pytest.approx(0.33, rel=0.05)


def test_crop_rows_have_their_spacing_and_parcels_their_directions():
    directions = []
    for x in range(0, 1200, 150):
        field = on(Surface.CROP, plane(256, 0.1, (x, 300)), 0.01).albedo_factor.reshape(256, 256)
        window = np.hanning(256)[:, None] * np.hanning(256)
        power = np.abs(np.fft.fftshift(np.fft.fft2((field - field.mean()) * window)))
        frequency = np.fft.fftshift(np.fft.fftfreq(256, 0.1))
        fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
        power[np.abs(np.hypot(fx, fy) - 1 / 0.75) > 0.5] = 0
        peak = np.unravel_index(power.argmax(), power.shape)
        assert np.hypot(fx[peak], fy[peak]) == pytest.approx(1 / 0.75, abs=0.06)
        directions.append(np.degrees(np.arctan2(fy[peak], fx[peak])) % 180)
    assert np.std(directions) > 15


def wall(seeds, width_m=40.0, height_m=20.0, step_m=0.1, normal=(0.0, -1.0, 0.0), base=0.0):
    z, x = np.mgrid[0:height_m:step_m, 0:width_m:step_m].astype(np.float32) + np.float32(step_m / 2)
    position = np.stack([x.ravel(), 0 * x.ravel(), z.ravel() + np.float32(base)], axis=1)
    count = len(position)
    for seed in seeds:
        yield z.shape, facade(position, np.broadcast_to(np.float32(normal), (count, 3)), np.full(count, base),
                              np.full(count, seed), np.full(count, height_m))


def test_windows_cover_a_believable_share_and_some_walls_are_blank():
    shares = np.array([result.window.mean() for _, result in wall(range(60))])
    blank = (shares == 0).mean()
    assert 0.05 < blank < 0.3
    assert 0.10 < shares[shares > 0].mean() < 0.25 and shares.max() < 0.4


def test_windows_are_whole_and_keep_to_their_lattice():
    for shape, result in wall(range(12)):
        window = result.window.reshape(shape)
        if not window.any():
            continue
        floors = result.floor.reshape(shape)
        assert floors.min() >= 0 and 3 <= floors.max() <= 7
        cells = {}
        for floor, column in set(zip(result.floor[result.window], result.column[result.window])):
            inside = window & (floors == floor) & (result.column.reshape(shape) == column)
            rows, columns = np.nonzero(inside)
            if columns.min() == 0 or columns.max() == shape[1] - 1:
                continue  # cut by the end of this wall
            assert inside[rows.min():rows.max() + 1, columns.min():columns.max() + 1].all()
            cells[floor, column] = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(np.unique(result.number.reshape(shape)[inside])) == 1
        sizes = np.array(list(cells.values()))
        assert (np.ptp(sizes, axis=0) <= 1).all()  # all alike, to a pixel
        assert (sizes.min(axis=0) >= [10, 6]).all() and (sizes.max(axis=0) <= [18, 25]).all()


def test_no_windows_in_slopes_below_the_ground_or_by_the_eaves():
    assert not any(result.window.any() for _, result in wall(range(8), normal=(0.0, -0.6, 0.8)))
    for shape, result in wall(range(20), height_m=9.0):
        window = result.window.reshape(shape)
        assert not window[-2:].any() and not window[:7].any()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 6.28), st.floats(-50, 300), st.integers(-1, 2 ** 31))
def test_facades_do_not_depend_on_the_height_of_the_ground(turn, base, seed):
    z = np.linspace(0.05, 12, 300).astype(np.float32)
    position = np.stack([7 + 0 * z, 3 + 0 * z, z], axis=1)
    normal = np.broadcast_to(np.float32([np.cos(turn), np.sin(turn), 0]), (300, 3))
    low = facade(position, normal, np.zeros(300), np.full(300, seed))
    high = facade(position + np.float32([0, 0, base]), normal, np.full(300, base), np.full(300, seed))
    assert (low.window != high.window).mean() < 0.05  # float32 at window edges
