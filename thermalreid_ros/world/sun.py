"""Where the sun stands and what it gives.

Position: J. Meeus, Astronomical Algorithms, 2nd ed. 1998, ch. 25 (low accuracy, 0.01 degrees), with parallax and
without refraction. Irradiance: the beam of the ESRA clear-sky model (C. Rigollier, O. Bauer, L. Wald, Solar Energy
68(1), 2000), diffuse light after B. Y. H. Liu and R. C. Jordan (Solar Energy 4(3), 1960), clouds after F. Kasten and
G. Czeplak (Solar Energy 24(2), 1980).
"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from thermalreid_ros.errors import ThermalReidError

SOLAR_CONSTANT_W_M2 = 1361.0
_J2000 = datetime(2000, 1, 1, 12, tzinfo=timezone.utc)
_TERRESTRIAL_TIME_S = 69.0  # TT - UTC, 2017 on; a second more or less moves the sun by 0.00001 degrees among the stars


class WhenError(ThermalReidError):
    """A time without a zone."""


def utc(when: datetime) -> datetime:
    """when in UTC. WhenError where it names no zone: a naive time is a different sun in every place."""
    if when.tzinfo is None:
        raise WhenError(f"{when.isoformat()} names no time zone; say UTC, as in {when.isoformat()}+00:00")
    return when.astimezone(timezone.utc)


def sun_direction(latitude_deg: float, longitude_deg: float, when: datetime, hours: np.ndarray | float = 0.0
                  ) -> np.ndarray:
    """Unit vector towards the sun, east-north-up, float64 (3,), or (N, 3) for N `hours` added to `when`."""
    hours = np.asarray(hours, np.float64)
    days = (utc(when) - _J2000).total_seconds() / 86400.0 + hours / 24.0  # UTC; UT1 is within 0.9 s
    centuries = (days + _TERRESTRIAL_TIME_S / 86400.0) / 36525.0
    mean_longitude = 280.46646 + 36000.76983 * centuries + 0.0003032 * centuries**2
    anomaly = np.radians(357.52911 + 35999.05029 * centuries - 0.0001537 * centuries**2)
    centre = ((1.914602 - 0.004817 * centuries) * np.sin(anomaly)
              + (0.019993 - 0.000101 * centuries) * np.sin(2 * anomaly) + 0.000289 * np.sin(3 * anomaly))
    node = np.radians(125.04 - 1934.136 * centuries)
    longitude = np.radians(mean_longitude + centre - 0.00569 - 0.00478 * np.sin(node))  # apparent
    obliquity = np.radians(23.439291 - 0.0130042 * centuries + 0.00256 * np.cos(node))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    sidereal = (280.46061837 + 360.98564736629 * days - 0.00478 * np.sin(node) * np.cos(obliquity))
    hour_angle = np.radians(np.mod(sidereal + longitude_deg, 360.0)) - right_ascension
    latitude = np.radians(latitude_deg)
    east = -np.cos(declination) * np.sin(hour_angle)
    north = np.sin(declination) * np.cos(latitude) - np.cos(declination) * np.cos(hour_angle) * np.sin(latitude)
    up = np.sin(declination) * np.sin(latitude) + np.cos(declination) * np.cos(hour_angle) * np.cos(latitude)
    up = up - 4.26e-5  # parallax: the observer stands on the globe, not at its centre
    direction = np.stack([east, north, up], axis=-1)
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def solar_hour(longitude_deg: float, when: datetime, hours: np.ndarray | float = 0.0) -> np.ndarray:
    """Mean solar time of the place, hours 0..24: 12 is noon, to 16 minutes of the sun's own."""
    when = utc(when)
    clock = when.hour + when.minute / 60.0 + (when.second + when.microsecond * 1e-6) / 3600.0
    return np.mod(clock + np.asarray(hours, np.float64) + longitude_deg / 15.0, 24.0)


def air_mass(sin_elevation: np.ndarray) -> np.ndarray:
    """Relative optical air mass, 1 at the zenith, 38 at and below the horizon (F. Kasten and A. T. Young, Applied
    Optics 28(22), 1989)."""
    sin_elevation = np.clip(np.asarray(sin_elevation, np.float64), 0.0, 1.0)
    elevation_deg = np.degrees(np.arcsin(sin_elevation))
    return 1.0 / (sin_elevation + 0.50572 * (elevation_deg + 6.07995) ** -1.6364)


def irradiance(sin_elevation: np.ndarray, cloud_cover: float, linke_turbidity: float, day_of_year: int
               ) -> tuple[np.ndarray, np.ndarray]:
    """(direct on a plane facing the sun, diffuse on an open horizontal plane), W/m2, 0 while the sun is down.

    cloud_cover: 0..1. linke_turbidity: 2 very clear mountain air, 3..4 clear, 6 and more hazy.
    """
    sin_elevation = np.asarray(sin_elevation, np.float64)
    extra = SOLAR_CONSTANT_W_M2 * (1.0 + 0.033 * np.cos(2 * np.pi * day_of_year / 365.25))
    mass = air_mass(sin_elevation)
    rayleigh = 1.0 / np.where(mass <= 20.0, 6.6296 + mass * (1.7513 + mass * (-0.1202 + mass * (
        0.0065 - 0.00013 * mass))), 10.4 + 0.718 * mass)
    beam_share = np.where(sin_elevation > 0.0, np.exp(-0.8662 * linke_turbidity * mass * rayleigh), 0.0)
    above = np.maximum(sin_elevation, 0.0)
    clear_direct = extra * beam_share
    clear_diffuse = extra * above * np.maximum(0.271 - 0.294 * beam_share, 0.0)
    total = (clear_direct * above + clear_diffuse) * (1.0 - 0.75 * cloud_cover**3.4)
    direct = np.minimum(clear_direct * (1.0 - cloud_cover), total / np.maximum(above, 1e-9))
    return direct, total - direct * above
