"""Visible light against published levels, and the tables against the integrals that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from thermalreid_ros.world.daylight import STREET_LAMP_RGB, Daylight

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def at(elevation_deg, cloud_cover=0.0, azimuth_deg=200.0, **more) -> Daylight:
    elevation, turn = np.radians([elevation_deg, 90.0 - azimuth_deg])
    return Daylight(np.array([np.cos(elevation) * np.cos(turn), np.cos(elevation) * np.sin(turn),
                              np.sin(elevation)]), cloud_cover, **more)


def hemisphere(count=20000) -> np.ndarray:
    """Directions of equal solid angle over the upper hemisphere, float32 (count, 3)."""
    up = (np.arange(count) + 0.5) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - up * up)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), up], axis=1).astype(np.float32)


def test_the_unit_is_a_clear_sky_with_the_sun_at_60_degrees():
    np.testing.assert_allclose(at(60).horizontal_rgb, 1.0, atol=0.015)


@pytest.mark.parametrize("elevation_deg, lux", [  # IES daylight availability, clear sky, direct and diffuse, +- 30 %
    (10, 13e3), (20, 31e3), (30, 50e3), (45, 76e3), (60, 98e3), (90, 118e3)])
def test_illuminance_of_a_clear_day(elevation_deg, lux):
    assert at(elevation_deg).horizontal_rgb @ LUMINANCE * 1e5 == pytest.approx(lux, rel=0.3)


@pytest.mark.parametrize("elevation_deg, lux", [(0, 600), (-6, 3.4), (-12, 0.008 + 0.15), (-18, 0.00065 + 0.15)])
def test_illuminance_of_twilight_and_of_a_town_at_night(elevation_deg, lux):
    assert at(elevation_deg).horizontal_rgb @ LUMINANCE * 1e5 == pytest.approx(lux, rel=0.15)


def test_the_low_sun_is_red_and_shadows_are_blue():
    high, low = at(60).sun_rgb, at(5).sun_rgb
    assert 1.0 < high[0] / high[2] < 1.25 and 3.0 < low[0] / low[2] < 8.0
    assert 1.5 < at(40).sky_irradiance_rgb[2] / at(40).sky_irradiance_rgb[0] < 2.5
    share = at(60).sky_irradiance_rgb @ LUMINANCE / (at(60).horizontal_rgb @ LUMINANCE)
    assert 0.10 < share < 0.22  # diffuse of global in clear air


def test_light_never_jumps_while_the_sun_sets():
    levels = np.array([at(e).horizontal_rgb for e in np.arange(-20, 90, 0.25)])
    assert (np.diff(levels @ LUMINANCE) > -1e-9).all()
    steps = np.diff(np.log(levels @ LUMINANCE))
    assert steps.max() < 0.35  # less than a third of a stop in a minute


def test_clouds_take_the_sun_and_dim_and_grey_the_light():
    clear, overcast = at(45), at(45, 1.0)
    assert not overcast.sun_rgb.any()
    ratio = overcast.horizontal_rgb @ LUMINANCE / (clear.horizontal_rgb @ LUMINANCE)
    assert ratio == pytest.approx(0.25, abs=0.02)  # Kasten and Czeplak
    assert np.ptp(overcast.sky_irradiance_rgb) < 0.03 * overcast.sky_irradiance_rgb.mean()
    zenith, low = overcast.sky_rgb(np.float32([[0, 0, 1], [0, 0.99995, 0.01]]))
    assert zenith[1] / low[1] == pytest.approx(3.0, rel=0.06)  # CIE overcast sky


@settings(max_examples=25, deadline=None)
@given(st.floats(-18, 90), st.floats(0, 1), st.floats(0, 360), st.floats(0, 1))
def test_the_sky_adds_up_to_its_irradiance(elevation_deg, cloud_cover, azimuth_deg, moonlight):
    light = at(elevation_deg, cloud_cover, azimuth_deg, moonlight=moonlight)
    directions = hemisphere()
    radiance = light.sky_rgb(directions)
    assert np.isfinite(radiance).all() and (radiance >= 0).all()
    total = (radiance * directions[:, 2:]).mean(axis=0) * 2 * np.pi
    np.testing.assert_allclose(total, light.sky_irradiance_rgb, rtol=0.03)


@pytest.mark.parametrize("elevation_deg, cloud_cover", [(60, 0), (25, 0), (5, 0), (-4, 0), (40, 0.5), (40, 1)])
def test_ambient_light_is_the_integral_over_the_sky(elevation_deg, cloud_cover):
    light, directions = at(elevation_deg, cloud_cover), hemisphere()
    normals = np.float32([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0.6, 0, 0.8], [0, -0.6, 0.8]])
    cosine = np.maximum(normals @ directions.T, 0)
    sky = cosine @ light.sky_rgb(directions) * (2 * np.pi / len(directions))
    expected = sky + 0.5 * (1 - normals[:, 2:]) * light.surroundings_rgb
    tolerance = 0.09 * light.sky_irradiance_rgb.max()  # the sun's aureole is sharper than a quadratic
    np.testing.assert_allclose(light.ambient_rgb(normals), expected, atol=tolerance)
    np.testing.assert_allclose(light.ambient_rgb(normals[:1])[0], light.sky_irradiance_rgb, rtol=0.03)


def test_what_sees_no_sky_is_lit_by_its_surroundings():
    light, up = at(40), np.float32([[0, 0, 1]])
    np.testing.assert_allclose(light.ambient_rgb(up, np.zeros(1)), [light.surroundings_rgb], rtol=1e-5)
    half = light.ambient_rgb(up, np.full(1, 0.5))[0]
    np.testing.assert_allclose(half, 0.5 * light.ambient_rgb(up)[0] + 0.5 * light.surroundings_rgb, rtol=1e-5)


def test_the_sky_is_brightest_by_the_sun_and_continuous():
    light = at(35)
    directions = hemisphere()
    radiance = light.sky_rgb(directions) @ LUMINANCE
    assert directions[radiance.argmax()] @ light.sun_direction > 0.98
    turn = np.linspace(0, 2 * np.pi, 721)
    ring = np.stack([np.cos(turn) * 0.9, np.sin(turn) * 0.9, np.full(721, np.sqrt(0.19))], axis=1).astype(np.float32)
    levels = light.sky_rgb(ring) @ LUMINANCE
    assert np.abs(np.diff(levels)).max() < 0.05 * levels.mean()
    below = light.sky_rgb(np.float32([[0.6, 0, -0.8], [1, 0, 0]]))
    np.testing.assert_allclose(below[0], below[1], rtol=1e-4)


def test_results_do_not_depend_on_how_points_are_grouped():
    light, directions = at(20, 0.3), hemisphere(3000)
    for function in (light.sky_rgb, light.ambient_rgb):
        whole = function(directions)
        parts = np.concatenate([function(part) for part in np.array_split(directions, 7)])
        np.testing.assert_array_equal(whole, parts)
        assert whole.dtype == np.float32 and function(directions[:0]).shape == (0, 3)


def test_the_moon_and_lamps_light_the_night():
    dark, moon = at(-30), at(-30, moonlight=1.0)
    assert (moon.sky_irradiance_rgb - dark.sky_irradiance_rgb) @ LUMINANCE * 1e5 == pytest.approx(0.25, rel=0.05)
    assert STREET_LAMP_RGB @ LUMINANCE * 1e5 == pytest.approx(12, rel=0.05)
