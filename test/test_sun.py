"""Where the sun stands and what it gives."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermalreid_ros.world.sun import WhenError, air_mass, irradiance, solar_hour, sun_direction
from thermalreid_ros.world.weather import Weather, WeatherError, dew_point_k, saturation_pressure_hpa


def _angles(direction):
    return np.degrees(np.arcsin(direction[2])), np.degrees(np.arctan2(direction[0], direction[1])) % 360.0


def test_the_sun_of_the_nrel_example():
    # I. Reda and A. Andreas, Solar Position Algorithm, NREL/TP-560-34302, A.5: elevation without refraction.
    when = datetime(2003, 10, 17, 12, 30, 30, tzinfo=timezone(timedelta(hours=-7)))
    elevation, azimuth = _angles(sun_direction(39.742476, -105.1786, when))
    assert elevation == pytest.approx(39.872046, abs=0.01)
    assert azimuth == pytest.approx(194.340241, abs=0.02)


def test_the_declination_of_the_example_in_meeus():
    # J. Meeus, Astronomical Algorithms, example 25.a, 1992 October 13.0 TD: from the pole the sun stands that high.
    elevation, _ = _angles(sun_direction(90.0, 0.0, datetime(1992, 10, 13, tzinfo=timezone.utc)))
    assert elevation == pytest.approx(-7.78507, abs=0.01)


def test_hours_run_along_with_the_clock():
    when = datetime(2024, 6, 1, 3, tzinfo=timezone.utc)
    path = sun_direction(45.0, 10.0, when, np.array([0.0, 6.5]))
    np.testing.assert_allclose(path[1], sun_direction(45.0, 10.0, when + timedelta(hours=6.5)), atol=1e-12)
    assert float(solar_hour(15.0, when, 2.0)) == pytest.approx(6.0)


@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 2_000_000_000))
def test_directions_are_unit_vectors_and_night_is_dark(latitude, longitude, second):
    when = datetime.fromtimestamp(second, timezone.utc)
    direction = sun_direction(latitude, longitude, when)
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-12)
    direct, diffuse = irradiance(direction[2], 0.3, 3.5, 100)
    assert (direct == 0 and diffuse == 0) if direction[2] <= 0 else (0 <= direct < 1200 and 0 <= diffuse < 500)


def test_a_time_needs_a_zone():
    with pytest.raises(WhenError, match="names no time zone"):
        sun_direction(0.0, 0.0, datetime(2024, 1, 1))


def test_air_mass_by_kasten_and_young():
    # Their table: 1.9939 at 30 degrees, 5.5803 at 10, 37.92 at the horizon.
    np.testing.assert_allclose(air_mass(np.sin(np.radians([90.0, 30.0, 10.0, 0.0]))), [1.0, 1.994, 5.58, 37.92],
                               rtol=2e-3)


def test_clear_noon_and_clouds():
    direct, diffuse = irradiance(np.sin(np.radians(65.0)), 0.0, 3.5, 180)
    total = direct * np.sin(np.radians(65.0)) + diffuse
    assert 750 < direct < 900 and 80 < diffuse < 160 and 850 < total < 980
    shaded, grey = irradiance(np.sin(np.radians(65.0)), 1.0, 3.5, 180)
    assert shaded == pytest.approx(0.0, abs=1e-6)
    assert grey == pytest.approx(0.25 * total, rel=1e-6)  # Kasten and Czeplak: an overcast sky passes a quarter


def test_weather_by_the_hour():
    weather = Weather.clear(295.0, 6.0)
    hours = np.linspace(0.0, 24.0, 97)
    air = weather.air_temperature_k(hours)
    assert air.mean() == pytest.approx(295.0, abs=0.1)
    assert np.ptp(air) == pytest.approx(12.0, rel=0.1)
    assert 4 <= hours[air.argmin()] <= 6 and 14 <= hours[air.argmax()] <= 16
    assert weather.wind_at(hours).mean() == pytest.approx(2.0, rel=0.02)
    assert weather.wind_at(14.0) > 2 * weather.wind_at(2.0)
    assert weather.cloud_base_k(14.0) < weather.air_temperature_k(14.0) - 5.0


def test_the_sky_radiates_more_when_it_is_humid_or_clouded():
    sigma_air = 5.670374e-8 * Weather.clear().air_temperature_k(12.0) ** 4
    # Clear skies radiate 70..85 % of a black body at air temperature, overcast ones above 95 %.
    assert 0.74 < Weather.clear().sky_irradiance_w_m2(12.0) / sigma_air < 0.85
    dry = Weather.clear(vapour_pressure_hpa=4.0).sky_irradiance_w_m2(12.0)
    humid = Weather.clear(vapour_pressure_hpa=22.0).sky_irradiance_w_m2(12.0)
    assert dry < 0.77 * sigma_air < 0.82 * sigma_air < humid
    overcast = Weather(295.0, 3.0, 18.0, cloud_cover=1.0)
    assert overcast.sky_irradiance_w_m2(12.0) > 0.95 * 5.670374e-8 * overcast.air_temperature_k(12.0) ** 4


def test_vapour_pressure_and_dew_point():
    # Saturation, hPa, after the Smithsonian Meteorological Tables: 6.11 at 0 C, 23.37 at 20 C, 42.43 at 30 C.
    np.testing.assert_allclose(saturation_pressure_hpa(np.array([273.15, 293.15, 303.15])), [6.11, 23.37, 42.43],
                               rtol=2e-3)
    assert dew_point_k(saturation_pressure_hpa(285.0)) == pytest.approx(285.0, abs=1e-9)
    assert Weather.clear(vapour_pressure_hpa=13.0).absolute_humidity_g_m3(12.0) == pytest.approx(9.4, abs=0.2)


def test_typical_weather_is_varied_plausible_and_repeatable():
    july, january = (datetime(2024, month, 15, tzinfo=timezone.utc) for month in (7, 1))
    assert Weather.typical(48.0, july, 7) == Weather.typical(48.0, july, 7) != Weather.typical(48.0, july, 8)
    summer = [Weather.typical(48.0, july, seed) for seed in range(200)]
    mean = np.mean([weather.air_mean_k for weather in summer])
    assert 288 < mean < 297  # Paris, Munich, Vienna: 18..22 C
    assert 268 < np.mean([Weather.typical(48.0, january, seed).air_mean_k for seed in range(200)]) < 277
    assert abs(np.mean([Weather.typical(-48.0, january, seed).air_mean_k for seed in range(200)]) - mean) < 2
    clouds, winds = ([getattr(weather, name) for weather in summer] for name in ("cloud_cover", "wind_m_s"))
    assert np.quantile(clouds, 0.15) < 0.1 and np.quantile(clouds, 0.85) > 0.9
    assert min(winds) < 0.6 and 1.5 < np.median(winds) < 3.5 and max(winds) > 7
    amplitude = np.array([weather.air_amplitude_k for weather in summer])
    assert np.corrcoef(amplitude, clouds)[0, 1] < -0.7
    assert 0.05 < np.mean([weather.wetness > 0 for weather in summer]) < 0.3
    for latitude in range(-80, 81, 20):
        for month in range(1, 13):
            Weather.typical(latitude, datetime(2024, month, 1, tzinfo=timezone.utc), month)  # none is refused


def test_impossible_weather_is_refused():
    with pytest.raises(WeatherError, match="cloud_cover is 1.5; give 0 to 1"):
        Weather(290.0, 5.0, 10.0, cloud_cover=1.5)
    with pytest.raises(WeatherError, match="air_mean_k is 20; give 210 to 325"):
        Weather(20.0, 5.0, 10.0)
    with pytest.raises(WeatherError, match="wind_m_s is nan"):
        Weather(290.0, 5.0, 10.0, wind_m_s=float("nan"))
