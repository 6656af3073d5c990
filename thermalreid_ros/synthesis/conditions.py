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
        """Of an aware instant at a place. The sun's elevation is right within half a degree.

        solar_hour: another hour of that day. ConditionsError for a time without a zone.
        """
        if when.tzinfo is None:
            raise ConditionsError(f"{when.isoformat()} names no time zone; say UTC, as in {when.isoformat()}+00:00")
        utc = when.astimezone(timezone.utc)
        if solar_hour is None:
            solar_hour = (utc.hour + utc.minute / 60.0 + utc.second / 3600.0 + longitude_deg / 15.0) % 24.0
        year = 2.0 * math.pi * (utc.timetuple().tm_yday - 1 + utc.hour / 24.0) / 365.25
        s1, c1, s2, c2 = math.sin(year), math.cos(year), math.sin(2.0 * year), math.cos(2.0 * year)
        # Series of Spencer (1971): declination, and by what angle apparent solar time is ahead of the mean; radians.
        declination = 0.006918 - 0.399912 * c1 + 0.070257 * s1 - 0.006758 * c2 + 0.000907 * s2 \
            - 0.002697 * math.cos(3.0 * year) + 0.00148 * math.sin(3.0 * year)
        ahead = 0.000075 + 0.001868 * c1 - 0.032077 * s1 - 0.014615 * c2 - 0.040849 * s2
        latitude, angle = math.radians(latitude_deg), math.radians(15.0 * (solar_hour - 12.0)) + ahead
        sine = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(angle)
        return cls(solar_hour, air_c, cloud_cover, math.degrees(math.asin(max(-1.0, min(1.0, sine)))))
