"""What a camera for 8-14 um receives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.evaluation.physics import PUBLISHED_FRACTION, band_radiance_error
from thermalreid_ros.world.materials import MATERIALS, Surface, absorptivity, material_arrays
from thermalreid_ros.world.radiometry import (
    Atmosphere, band_fraction, brightness_temperature, directional_emissivity, exact_radiance, radiance, transmission,
    window_clear_sky_emissivity)
from thermalreid_ros.world.weather import Weather

ALL = np.arange(len(MATERIALS), dtype=np.uint8)


@pytest.fixture(scope="module")
def clear():
    return Atmosphere.of(Weather.clear(), 14.0)


def test_band_fractions_as_published():
    wavelength_temperature = np.array(list(PUBLISHED_FRACTION)) * 1e-6
    np.testing.assert_allclose(band_fraction(wavelength_temperature), list(PUBLISHED_FRACTION.values()), rtol=3e-4)
    assert band_radiance_error() < 1e-3
    # 8-14 um at 300 K by the table: 146.18 W/m2sr times 0.375758.
    assert float(radiance(np.array([300.0]))[0]) == pytest.approx(5.670374e-8 * 300**4 / np.pi * 0.375758, rel=1e-3)


def test_band_radiance_by_integrating_planck():
    wavelength = np.linspace(8e-6, 14e-6, 6001)
    for temperature_k in (180.0, 220.0, 300.0, 500.0, 900.0):
        spectral = 1.191042972e-16 / wavelength**5 / np.expm1(1.438776877e-2 / (wavelength * temperature_k))
        simpson = np.ones(6001)
        simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
        integral = (simpson * spectral).sum() * (wavelength[1] - wavelength[0]) / 3.0
        assert float(radiance(np.array([temperature_k]))[0]) == pytest.approx(integral, rel=2e-5)


def test_the_inverse_is_exact_to_a_millikelvin():
    temperature_k = np.linspace(180.0, 900.0, 72_001)
    assert np.abs(brightness_temperature(exact_radiance(temperature_k)) - temperature_k).max() < 1e-3
    assert np.abs(brightness_temperature(radiance(temperature_k)) - temperature_k).max() < 1e-3
    assert radiance(temperature_k).dtype == brightness_temperature(np.ones(3)).dtype == np.float32


@given(st.floats(160.0, 990.0), st.floats(0.01, 5.0))
def test_warmer_is_brighter(temperature_k, more):
    cold, warm = radiance(np.array([temperature_k, temperature_k + more]))
    assert warm > cold > 0


def test_beyond_the_table_is_clipped():
    np.testing.assert_allclose(brightness_temperature(radiance(np.array([20.0, 5000.0]))), [150.0, 1000.0], atol=0.01)
    assert np.isfinite(brightness_temperature(np.array([-1.0, 0.0]))).all()


def test_the_clear_sky_is_coldest_overhead(clear):
    elevation = np.sin(np.radians([90.0, 45.0, 20.0, 5.0, 0.0]))
    sky_c = brightness_temperature(clear.sky_radiance(elevation)) - 273.15
    assert (np.diff(sky_c) > 0).all()
    assert -60 < sky_c[0] < -35  # thermal cameras read -40 and below
    assert sky_c[-1] == pytest.approx(clear.air_temperature_k - 273.15, abs=0.5)
    assert clear.sky_radiance(np.array([-0.3])) == clear.sky_radiance(np.array([0.0]))
    # Its mean over the hemisphere is Idso's.
    emissivity = window_clear_sky_emissivity(clear.air_temperature_k, 13.0)
    assert emissivity == pytest.approx(0.346, abs=0.002)
    assert clear.hemisphere_radiance == pytest.approx(emissivity * exact_radiance(clear.air_temperature_k), rel=0.03)


def test_clouds_and_vapour_warm_the_sky(clear):
    def zenith(weather):
        return float(brightness_temperature(Atmosphere.of(weather, 14.0).sky_radiance(np.array([1.0])))[0])

    overcast = Weather(295.0, 6.5, 13.0, cloud_cover=1.0)
    assert zenith(Weather.clear(vapour_pressure_hpa=5.0)) < zenith(Weather.clear()) - 10
    assert zenith(overcast) > overcast.cloud_base_k(14.0) - 0.5
    half = Weather(295.0, 6.5, 13.0, cloud_cover=0.5)
    assert zenith(Weather.clear()) < zenith(half) < zenith(overcast)


def test_air_dims_with_range_and_vapour():
    # Minkina and Dudzik, eq. 2.25, for 20 C and 50 %: 8.56 g/m3.
    np.testing.assert_allclose(transmission(np.array([0.0, 100.0, 1000.0]), 8.56), [1.0, 0.937, 0.785], atol=0.002)
    for vapour_hpa in (2.0, 13.0, 30.0):
        atmosphere = Atmosphere.of(Weather.clear(300.0, 5.0, vapour_hpa), 12.0)
        passes = atmosphere.transmission(np.linspace(0.0, 20_000.0, 4001))
        assert passes[0] == 1.0 and (np.diff(passes) <= 0).all() and passes.min() >= 0.0
    dry, humid = (Atmosphere.of(Weather.clear(300.0, 5.0, vapour_hpa), 12.0).transmission(np.array([300.0]))
                  for vapour_hpa in (5.0, 30.0))
    assert 0.8 > humid and dry > 0.9


def test_an_oven_shows_no_surfaces():
    """Where sky, surroundings, air and surfaces share one temperature, everything is a black body."""
    temperature_k = 290.0
    level = np.full(1025, exact_radiance(temperature_k), np.float32)
    oven = Atmosphere(temperature_k, temperature_k, level, np.linspace(1.0, 0.2, 2048, dtype=np.float32))
    for cosine in (1.0, 0.4, 0.05):
        seen = oven.apparent_radiance(ALL, np.full(len(ALL), temperature_k), np.full(len(ALL), cosine),
                                      np.linspace(0, 1, len(ALL)), np.full(len(ALL), 777.0), np.full(len(ALL), 0.4))
        np.testing.assert_allclose(brightness_temperature(seen), temperature_k, atol=2e-3)


def test_metal_mirrors_the_cold_sky_and_asphalt_does_not(clear):
    surface = np.array([Surface.ROOF_METAL, Surface.ASPHALT, Surface.CAR_GLASS, Surface.CAR_PAINT], np.uint8)
    count = len(surface)
    seen = clear.apparent_radiance(surface, np.full(count, 310.0), np.ones(count), np.ones(count), np.zeros(count),
                                   np.ones(count))
    metal, asphalt, glass, paint = brightness_temperature(seen)
    assert metal < 270 and 305 < asphalt < 310 and 298 < glass < 305 < paint < 309
    walled = clear.apparent_radiance(surface[:1], np.array([310.0]), np.ones(1), np.zeros(1), np.zeros(1), -np.ones(1))
    assert brightness_temperature(walled)[0] > 300  # among walls it mirrors walls


def test_range_draws_everything_towards_the_air(clear):
    surface, one = np.full(3, Surface.ASPHALT, np.uint8), np.ones(3)
    seen = clear.apparent_radiance(surface, np.full(3, 330.0), one, one, np.array([0.0, 200.0, 1000.0]), one)
    warm = brightness_temperature(seen)
    assert warm[0] - warm[1] > 1.5 and warm[1] - warm[2] > 2.5 and warm[2] > clear.air_temperature_k


def test_smooth_surfaces_mirror_at_grazing():
    def emissivity(surface, degrees):
        return float(directional_emissivity(np.array([surface]), np.cos(np.radians([degrees])))[0])

    # Fresnel for water, n about 1.28: 0.83 at 75 degrees for a flat surface.
    assert emissivity(Surface.WATER, 0.0) == pytest.approx(0.985, abs=1e-3)
    assert emissivity(Surface.WATER, 75.0) == pytest.approx(0.82, abs=0.02)
    assert emissivity(Surface.WATER, 88.0) < 0.4
    assert emissivity(Surface.ASPHALT, 60.0) > 0.94 and emissivity(Surface.ASPHALT, 80.0) > 0.88
    table = directional_emissivity(np.repeat(ALL, 91), np.tile(np.cos(np.radians(np.arange(91.0))), len(ALL)))
    assert table.min() >= 0 and table.max() <= 1


def test_pixels_do_not_depend_on_their_neighbours(clear):
    random = np.random.default_rng(5)
    count = 40_000
    inputs = (random.integers(0, len(MATERIALS), count).astype(np.uint8), random.uniform(260, 330, count),
              random.uniform(-0.1, 1, count), random.uniform(0, 1, count), random.uniform(0, 900, count),
              random.uniform(-1, 1, count))
    whole = clear.apparent_radiance(*inputs)
    parts = [clear.apparent_radiance(*(a[i:i + 777] for a in inputs)) for i in range(0, count, 777)]
    assert whole.dtype == np.float32 and np.isfinite(whole).all()
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_every_surface_has_a_material():
    assert len(MATERIALS) == len(Surface)
    assert [material.name.split()[0] for material in MATERIALS[:3]] == ["asphalt", "concrete", "paving"]
    for surface, material in zip(Surface, MATERIALS):
        words = set(surface.name.lower().replace("wooden", "wood").split("_")) & {
            "roof", "wall", "car", "water", "grass", "skin", "metal", "glass", "fur"}
        assert words <= set(material.name.split()), (surface, material.name)
        assert 0.1 <= material.emissivity <= 0.99 and 0 <= material.mirror <= 1 and 0 <= material.evaporation <= 1
        stirred = surface == Surface.WATER
        assert 0.02 <= material.conductivity_w_mk <= (500 if stirred else 250)
        assert 20 <= material.density_kg_m3 <= 9000
        assert 0 < material.thickness_m <= 3 and all(0 <= channel <= 1 for channel in material.albedo_rgb)
    table = material_arrays()
    assert table.emissivity[Surface.ROOF_METAL] == np.float32(0.25) and table.albedo_rgb.shape == (len(Surface), 3)
    with pytest.raises(ValueError, match="read-only"):
        table.emissivity[0] = 1.0


def test_colour_tells_the_heat_of_the_sun():
    paint = np.full(2, Surface.CAR_PAINT, np.uint8)
    black, white = absorptivity(paint, np.array([[0.03] * 3, [0.72] * 3]))
    assert 0.93 < black < 0.99 and 0.28 < white < 0.4
    own = absorptivity(ALL, material_arrays().albedo_rgb)
    assert 0.88 < own[Surface.ASPHALT] < 0.95  # albedo 0.05..0.12
    assert 0.70 < own[Surface.GRASS] < 0.82  # albedo 0.2..0.25
    assert 0.6 < own[Surface.CONCRETE] < 0.75
    assert own[Surface.WINDOW] < 0.4  # most of it passes
