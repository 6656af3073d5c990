"""One view of a city at several hours, in every band, with its truth: a picture to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.world.city import City
from thermalreid_ros.world.film import in_view, solar_time
from thermalreid_ros.world.panels import lively_view, panels, sheet
from thermalreid_ros.world.population import Density, Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.weather import Weather


def strip(city: City, *, seed: int, date: str, hours: Sequence[float], intrinsics: Intrinsics,
          altitude_m: float = 70.0, depression_rad: float = np.radians(40.0)) -> tuple[np.ndarray, dict[str, int]]:
    """(picture, uint8 RGB with a row for each solar hour; number of objects seen at each "H h").

    date: YYYY-MM-DD. The view is the same at all hours: of some drawn by the seed the one with most going on.
    """
    population = Population(city, seed, Density.at_hour(hours[0]))
    pose = lively_view(population, intrinsics, altitude_m, depression_rad, seed)
    actors = in_view(population, pose, intrinsics, 0.0)
    rows, objects = [], {}
    for hour in hours:
        when = solar_time(date, hour, city.longitude_deg)
        renderer = Renderer(city, Weather.typical(city.latitude_deg, when, seed))
        renderer.set_time(when)
        capture = renderer.capture(pose, intrinsics, actors)
        rows.append(("{:02d}:{:02d}".format(*divmod(round(60 * hour), 60)), panels(capture, actors, seed)))
        objects[f"{hour:g} h"] = len(capture.boxes)
    return sheet(rows), objects
