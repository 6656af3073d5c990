"""The hour and the weather that a thermal probe is made for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone

from thermalreid_ros.errors import ThermalReidError


class ConditionsError(ThermalReidError):
    """Numbers that no hour and no weather on Earth has."""


@dataclass(frozen=True)
class Conditions:
    """solar_hour: mean solar time, 0 to 24. air_c: temperature of the air. cloud_cover: 0 to 1. sun_elevation_deg:
    above the horizon, negative at night."""

    solar_hour: float
    air_c: float
    cloud_cover: float
    sun_elevation_deg: float

    def __post_init__(self) -> None:
        for name, low, high in (("solar_hour", 0, 24), ("air_c", -60, 60), ("cloud_cover", 0, 1),
                                ("sun_elevation_deg", -90, 90)):
            if not low <= getattr(self, name) <= high:  # also where it is NaN
                raise ConditionsError(f"conditions: {name} is {getattr(self, name):g}; give {low} to {high}")

    @classmethod
    def at(cls, when: datetime, latitude_deg: float, longitude_deg: float, air_c: float,
           cloud_cover: float = 0.4, solar_hour: float | None = None) -> Conditions:
        """Of an aware instant at a place. The sun's declination follows from the day alone, within half a degree.

        solar_hour: another hour of that day. ConditionsError for a time without a zone.
        """
        if when.tzinfo is None:
            raise ConditionsError(f"{when.isoformat()} names no time zone; say UTC, as in {when.isoformat()}+00:00")
        utc = when.astimezone(timezone.utc)
        if solar_hour is None:
            solar_hour = (utc.hour + utc.minute / 60.0 + utc.second / 3600.0 + longitude_deg / 15.0) % 24.0
        declination = math.radians(-23.44) * math.cos(2.0 * math.pi * (utc.timetuple().tm_yday + 9) / 365.25)
        latitude, angle = math.radians(latitude_deg), math.radians(15.0 * (solar_hour - 12.0))
        sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(angle)
        return cls(solar_hour, air_c, cloud_cover, math.degrees(math.asin(max(-1.0, min(1.0, sine)))))
