"""A small piece of the shipped map as a city, for tests."""

from functools import lru_cache

from thermalreid_ros.files import shipped
from thermalreid_ros.world.city import City, build_city
from thermalreid_ros.world.film import solar_time
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.weather import Weather

MAP = shipped("config") / "maps" / "krems.tif"
CENTRE = (48.4095, 15.6055)


@lru_cache(maxsize=2)
def small_town(size_m: float = 320.0) -> City:
    return build_city(MAP, centre=CENTRE, size_m=size_m, seed=1)


@lru_cache(maxsize=1)
def small_town_renderer() -> Renderer:
    city = small_town()
    when = solar_time("2025-07-15", 12.0, city.longitude_deg)
    renderer = Renderer(city, Weather.clear())
    renderer.set_time(when)
    return renderer
