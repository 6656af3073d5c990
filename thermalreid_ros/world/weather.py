"""The weather of a day: what surfaces feel of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.world.sun import utc

STEFAN_BOLTZMANN = 5.670374419e-8
_LAPSE_K_M = 6.5e-3


class WeatherError(ThermalReidError):
    """Weather that no place on Earth has."""


@dataclass(frozen=True)
class Weather:
    """One day's weather, repeated as long as surfaces remember. Local mean solar hours 0..24.

    air_mean_k: mean of the day. air_amplitude_k: half the difference between its warmest and its coldest.
    wetness: 0 dry .. 1 just rained. ground_k: at 1 m depth. water_k: of water bodies. indoor_k: of rooms.
    """

    air_mean_k: float
    air_amplitude_k: float
    vapour_pressure_hpa: float
    cloud_cover: float = 0.0
    wind_m_s: float = 2.0
    linke_turbidity: float = 3.5
    wetness: float = 0.0
    ground_k: float = 288.0
    water_k: float = 288.0
    indoor_k: float = 294.0

    def __post_init__(self) -> None:
        for name, low, high in (("air_mean_k", 210, 325), ("air_amplitude_k", 0, 20), ("vapour_pressure_hpa", 0.01, 60),
                                ("cloud_cover", 0, 1), ("wind_m_s", 0, 40), ("linke_turbidity", 1.5, 12),
                                ("wetness", 0, 1), ("ground_k", 240, 325), ("water_k", 260, 315),
                                ("indoor_k", 270, 315)):
            if not low <= getattr(self, name) <= high:
                raise WeatherError(f"weather: {name} is {getattr(self, name):g}; give {low} to {high}")

    @classmethod
    def clear(cls, air_mean_k: float = 295.0, air_amplitude_k: float = 6.5, vapour_pressure_hpa: float = 13.0,
              wind_m_s: float = 2.0) -> Weather:
        """A clear, dry day; by default one of summer at middle latitudes."""
        return cls(air_mean_k, air_amplitude_k, vapour_pressure_hpa, 0.0, wind_m_s,
                   ground_k=air_mean_k - 3.0, water_k=max(air_mean_k - 2.0, 273.5))

    @classmethod
    def typical(cls, latitude_deg: float, when: datetime, seed: int) -> Weather:
        """Weather as it may well be at a latitude and season near sea level; another seed, another day."""
        random = np.random.default_rng(np.random.SeedSequence([int(seed), 0x7EA7]))
        day = utc(when).timetuple().tm_yday
        latitude = np.radians(latitude_deg)
        annual = 300.0 - 32.0 * np.sin(latitude) ** 2
        swing = min(1.0 + 0.24 * abs(latitude_deg), 16.0)
        season = -np.cos(2 * np.pi * (day - 25) / 365.25) * (1.0 if latitude_deg >= 0 else -1.0)  # -1 coldest
        cloud = float(random.beta(0.6, 0.6))
        normal = annual + swing * season
        mean = normal + random.normal(0.0, 3.0) - 1.5 * max(season, 0.0) * cloud
        range_k = (1.0 - 0.7 * cloud) * random.uniform(8.0, 16.0) * (0.75 + 0.25 * season)
        wind = float(np.clip(random.gamma(2.2, 1.3), 0.1, 10.0))
        humidity = float(np.clip(random.normal(0.55 + 0.25 * cloud, 0.12), 0.2, 0.97))
        wetness = float(random.uniform(0.2, 1.0) if random.random() < 0.35 * cloud else 0.0)
        mean = float(np.clip(mean, 240.0, 312.0))
        return cls(mean, float(0.5 * range_k), min(float(humidity * saturation_pressure_hpa(mean)), 34.0), cloud, wind,
                   float(np.clip(random.normal(3.5 + 0.7 * season, 0.8), 2.0, 7.0)), wetness,
                   ground_k=float(np.clip(annual + 0.6 * swing * season, 265.0, 308.0)),
                   water_k=float(np.clip(normal - 1.0 + random.normal(0.0, 1.5), 273.3, 304.0)),
                   indoor_k=float(np.clip(294.0 + 0.3 * (mean - 291.0), 292.0, 300.0)))

    def air_temperature_k(self, solar_hour: np.ndarray | float) -> np.ndarray:
        """Coldest at about 5, warmest at about 15 (D. G. Erbs, S. A. Klein, W. A. Beckman, ASHRAE Journal 25(6),
        1983)."""
        t = 2 * np.pi * (np.asarray(solar_hour, np.float64) - 1.0) / 24.0
        shape = (0.4632 * np.cos(t - 3.805) + 0.0984 * np.cos(2 * t - 0.360)
                 + 0.0168 * np.cos(3 * t - 0.822) + 0.0138 * np.cos(4 * t - 3.513))
        return self.air_mean_k + 2.0 * self.air_amplitude_k * shape

    def vapour_pressure_at(self, solar_hour: np.ndarray | float) -> np.ndarray:
        """hPa: the day's, or saturation where the air is colder than its dew point."""
        return np.minimum(self.vapour_pressure_hpa, saturation_pressure_hpa(self.air_temperature_k(solar_hour)))

    def absolute_humidity_g_m3(self, solar_hour: float) -> float:
        """Water vapour in the air."""
        return float(216.7 * self.vapour_pressure_at(solar_hour) / self.air_temperature_k(solar_hour))

    def wind_at(self, solar_hour: np.ndarray | float) -> np.ndarray:
        """m/s: calmer at night than by day, the less so the cloudier; wind_m_s is the mean of the day."""
        swing = 0.4 * (1.0 - self.cloud_cover)
        return self.wind_m_s * (1.0 + swing * np.cos(2 * np.pi * (np.asarray(solar_hour, np.float64) - 14.0) / 24.0))

    def cloud_base_k(self, solar_hour: np.ndarray | float) -> np.ndarray:
        """Temperature of the clouds' lower side: at the height where rising air saturates (125 m per kelvin of dew
        point spread), 300 m at least."""
        air = self.air_temperature_k(solar_hour)
        dew_point = dew_point_k(self.vapour_pressure_at(solar_hour))
        return air - _LAPSE_K_M * np.maximum(125.0 * (air - dew_point), 300.0)

    def sky_irradiance_w_m2(self, solar_hour: np.ndarray | float) -> np.ndarray:
        """Long-wave radiation of the whole sky on an open horizontal plane, all wavelengths."""
        air = self.air_temperature_k(solar_hour)
        clear = broadband_clear_sky_emissivity(air, self.vapour_pressure_at(solar_hour))
        return STEFAN_BOLTZMANN * (clear * air**4
                                   + (1.0 - clear) * self.cloud_cover * self.cloud_base_k(solar_hour) ** 4)


def saturation_pressure_hpa(temperature_k: np.ndarray | float) -> np.ndarray:
    """Over water (O. A. Alduchov and R. E. Eskridge, J. Applied Meteorology 35, 1996)."""
    celsius = np.asarray(temperature_k, np.float64) - 273.15
    return 6.1094 * np.exp(17.625 * celsius / (celsius + 243.04))


def dew_point_k(vapour_pressure_hpa: np.ndarray | float) -> np.ndarray:
    """The inverse of saturation_pressure_hpa."""
    log = np.log(np.asarray(vapour_pressure_hpa, np.float64) / 6.1094)
    return 273.15 + 243.04 * log / (17.625 - log)


def broadband_clear_sky_emissivity(air_temperature_k: np.ndarray, vapour_pressure_hpa: np.ndarray) -> np.ndarray:
    """Of a cloudless sky over all wavelengths (A. J. Prata, Q. J. Royal Meteorological Society 122, 1996)."""
    water = 46.5 * np.asarray(vapour_pressure_hpa, np.float64) / air_temperature_k
    return 1.0 - (1.0 + water) * np.exp(-np.sqrt(1.2 + 3.0 * water))
