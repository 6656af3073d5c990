"""The physics of the virtual city, shown: days of temperatures, what a camera makes of them, how exact it all is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from thermalreid_ros.files import write_atomically
from thermalreid_ros.world.materials import MATERIALS, Surface, absorptivity, material_arrays
from thermalreid_ros.world.radiometry import (
    BAND_M, Atmosphere, band_fraction, brightness_temperature, directional_emissivity, exact_radiance, radiance)
from thermalreid_ros.world.thermal import ThermalDay
from thermalreid_ros.world.weather import STEFAN_BOLTZMANN, Weather

LATITUDE_DEG = 48.0
SUMMER = datetime(2024, 7, 1, tzinfo=timezone.utc)
WINTER = datetime(2024, 1, 10, tzinfo=timezone.utc)
CLEAR_SUMMER = Weather.clear()
CLOUDY_WINTER = Weather(air_mean_k=276.0, air_amplitude_k=2.0, vapour_pressure_hpa=6.0, cloud_cover=0.95, wind_m_s=4.0,
                        ground_k=280.0, water_k=279.0, indoor_k=293.0)
#: F(0 - lambda T) as printed in Incropera et al., table 12.1, by lambda T in um K.
PUBLISHED_FRACTION = {1600: 0.019718, 2000: 0.066728, 2400: 0.140256, 2800: 0.227897, 3200: 0.318102, 3600: 0.403607,
                      4000: 0.480877, 4200: 0.516014, 5600: 0.701046, 7000: 0.808109}
_KELVIN = 273.15


@dataclass(frozen=True)
class Facet:
    """A free plane to be followed through a day; colour None: the material's own."""

    name: str
    surface: Surface
    colour: float | None = None
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)


GROUNDS = (Facet("asphalt", Surface.ASPHALT), Facet("concrete", Surface.CONCRETE), Facet("grass", Surface.GRASS),
           Facet("water", Surface.WATER), Facet("roof tiles", Surface.ROOF_TILES),
           Facet("roof bitumen", Surface.ROOF_BITUMEN), Facet("bare metal roof", Surface.ROOF_METAL))
WALLS = tuple(Facet(f"wall {name}", Surface.WALL_PLASTER, None, normal) for name, normal in (
    ("east", (1.0, 0.0, 0.0)), ("south", (0.0, -1.0, 0.0)), ("west", (-1.0, 0.0, 0.0)), ("north", (0.0, 1.0, 0.0))))
CARS = (Facet("black car roof", Surface.CAR_PAINT, 0.03), Facet("white car roof", Surface.CAR_PAINT, 0.72),
        Facet("windscreen", Surface.CAR_GLASS, None, (0.7071, 0.0, 0.7071)))


@dataclass(frozen=True, eq=False)
class Day:
    """Facets by the hour, degrees Celsius. surface_c, and apparent_c, what a camera 100 m above reads as if of black
    bodies: (H, F); air_c: (H,)."""

    hours: np.ndarray
    air_c: np.ndarray
    surface_c: np.ndarray
    apparent_c: np.ndarray


def follow(facets: Sequence[Facet], weather: Weather, midnight: datetime, step_h: float = 1.0) -> Day:
    """Facets under a free sky through 24 h from midnight, solar time, at longitude 0."""
    surface = np.array([facet.surface for facet in facets], np.uint8)
    own = material_arrays().albedo_rgb[surface]
    colour = np.array([own[i] if facet.colour is None else [facet.colour] * 3 for i, facet in enumerate(facets)])
    normal = np.array([facet.normal for facet in facets])
    sky_view = 0.5 * (1.0 + normal[:, 2])
    sunlit = np.ones((len(facets), 7))
    hours = np.arange(0.0, 24.0 + step_h / 2, step_h)
    air, inside, outside = [], [], []
    for hour in hours:
        day = ThermalDay(LATITUDE_DEG, 0.0, midnight + timedelta(hours=float(hour)), weather)
        temperature = day.temperature_k(surface, colour, normal, sky_view, sunlit)
        # Seen from straight above, walls from 45 degrees.
        seen_along = np.where(normal[:, 2] > 0.1, normal[:, 2], 0.7071)
        mirrored = np.where(normal[:, 2] > 0.1, 2.0 * normal[:, 2] ** 2 - 1.0, -0.7071)
        seen = day.atmosphere().apparent_radiance(surface, temperature, seen_along, sky_view,
                                                  np.full(len(facets), 100.0), mirrored)
        air.append(day.air_temperature_k)
        inside.append(temperature)
        outside.append(brightness_temperature(seen))
    return Day(hours, np.array(air) - _KELVIN, np.array(inside) - _KELVIN, np.array(outside) - _KELVIN)


def band_radiance_error() -> float:
    """Largest relative error of in-band radiance, 200 to 500 K, against the published table of band fractions."""
    errors = []
    for temperature_k in (200.0, 250.0, 300.0, 400.0, 500.0):
        low, high = (round(edge * 1e6 * temperature_k) for edge in BAND_M)
        published = (PUBLISHED_FRACTION[high] - PUBLISHED_FRACTION[low]) if high in PUBLISHED_FRACTION else (
            band_fraction(np.array(high * 1e-6)) - PUBLISHED_FRACTION[low])
        reference = STEFAN_BOLTZMANN / np.pi * temperature_k**4 * float(published)
        errors.append(abs(float(radiance(np.array([temperature_k]))[0]) / reference - 1.0))
    return max(errors)


def response_errors(seed: int = 1, situations: int = 12) -> np.ndarray:
    """Temperatures by superposition less those of the full march, kelvin, (situations, materials, 8): places, days,
    weathers, colours, attitudes and shadows at random."""
    random = np.random.default_rng(np.random.SeedSequence([seed, 0x9415]))
    count = len(MATERIALS)
    surface = np.repeat(np.arange(count, dtype=np.uint8), 8)
    level = np.isin(surface, np.arange(Surface.ROOF_TILES))
    upright = np.isin(surface, np.arange(Surface.WALL_PLASTER, Surface.FOLIAGE))
    errors = []
    for situation in range(situations):
        latitude_deg = float(random.uniform(-40.0, 60.0))
        when = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=int(random.integers(0, 366 * 1440)))
        weather = (Weather.typical(latitude_deg, when, situation) if situation % 2
                   else Weather.clear(wind_m_s=float(random.uniform(0.3, 6.0))))
        normal = random.normal(size=(len(surface), 3))
        normal[:, 2] = np.where(upright, 0.0, np.abs(normal[:, 2]))
        normal[level] = (0.0, 0.0, 1.0)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        sky_view = random.uniform(0.4, 1.0, len(surface)) * np.where(upright, 0.5, 1.0)
        painted = np.isin(surface, [Surface.CAR_PAINT, Surface.COTTON, Surface.JACKET, Surface.PAINTED_TUBE,
                                    Surface.WALL_PLASTER, Surface.WALL_METAL])
        colour = np.where(painted[:, None], random.uniform(0.02, 0.8, (len(surface), 1)),
                          material_arrays().albedo_rgb[surface]
                          * np.exp(random.normal(0.0, 0.3, (len(surface), 1)))).clip(0.0, 0.9)
        sunlit = np.where(random.random((len(surface), 1)) < 0.5, 1.0, random.uniform(0.0, 1.0, (len(surface), 7)))
        facets = (surface, colour, normal, sky_view, sunlit)
        day = ThermalDay(latitude_deg, 0.0, when, weather)
        errors.append(day.temperature_k(*facets) - day.solved_temperature_k(*facets))
    return np.array(errors).reshape(situations, count, 8)


def material_table() -> str:
    """The materials as the Markdown table of docs/thermal_physics.md."""
    absorbed = absorptivity(np.arange(len(MATERIALS)), material_arrays().albedo_rgb)
    lines = ["| surface | absorbs sun | emits 8–14 µm | mirror | k W/mK | depth mm | ρc MJ/m³K "
             "| behind, W/m²K | leaves above, kJ/m²K and W/m²K | evaporates |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for material, share in zip(MATERIALS, absorbed):
        behind = material.back + (f" {material.back_w_m2k:g}" if material.back_w_m2k else "")
        numbers = (share, material.emissivity, material.mirror, material.conductivity_w_mk, 1000 * material.thickness_m)
        heat = f"{1e-6 * material.density_kg_m3 * material.heat_capacity_j_kgk:.2f}"
        leaves = f"{1e-3 * material.canopy_j_m2k:g}, {material.canopy_w_m2k:g}" if material.canopy_w_m2k else ""
        cells = [material.name, *(f"{float(number):.3g}" for number in numbers), heat, behind, leaves,
                 f"{material.evaporation:g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_physics_report(out_dir: str | Path) -> dict:
    """Draw the plots of docs/thermal_physics.md into out_dir, which is made, and return the figures they show."""
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    summer, winter = follow(GROUNDS, CLEAR_SUMMER, SUMMER, 0.5), follow(GROUNDS, CLOUDY_WINTER, WINTER)
    walls = follow((*WALLS, *CARS), CLEAR_SUMMER, SUMMER, 0.5)
    errors = response_errors()
    plots = (("thermal_day.png", _draw_day, (summer, winter)), ("thermal_orientation.png", _draw_walls, (walls,)),
             ("thermal_radiometry.png", _draw_radiometry, (errors,)))
    for name, draw, data in plots:
        _save(out_dir / name, draw, data)
    temperatures = np.linspace(200.0, 500.0, 30_001)
    index = {facet.name: i for i, facet in enumerate(GROUNDS)}
    return {
        "band_radiance_relative_error": band_radiance_error(),
        "inverse_error_k": float(np.abs(brightness_temperature(exact_radiance(temperatures)) - temperatures).max()),
        "summer_c": _extremes(GROUNDS, summer), "winter_c": _extremes(GROUNDS, winter),
        "walls_and_cars_c": _extremes((*WALLS, *CARS), walls),
        "inversions_h": {
            f"{a} - {b}": _crossings(summer.hours, summer.apparent_c[:, index[a]] - summer.apparent_c[:, index[b]])
            for a, b in (("asphalt", "roof tiles"), ("asphalt", "roof bitumen"), ("asphalt", "water"),
                         ("grass", "water"))},
        "superposition_rms_k": float(np.sqrt((errors**2).mean())),
        "superposition_max_k": float(np.abs(errors).max()),
        "plots": [name for name, _, _ in plots],
    }


def _extremes(facets: Sequence[Facet], day: Day) -> dict:
    return {facet.name: {"max": round(float(day.surface_c[:, i].max()), 2),
                         "max_at_h": float(day.hours[day.surface_c[:, i].argmax()]),
                         "min": round(float(day.surface_c[:, i].min()), 2),
                         "apparent_max": round(float(day.apparent_c[:, i].max()), 2),
                         "apparent_min": round(float(day.apparent_c[:, i].min()), 2)}
            for i, facet in enumerate(facets)}


def _crossings(hours: np.ndarray, difference: np.ndarray) -> list[float]:
    """Hours at which difference changes its sign."""
    before = np.flatnonzero(np.sign(difference[:-1]) != np.sign(difference[1:]))
    part = difference[before] / (difference[before] - difference[before + 1])
    return [round(float(hour), 2) for hour in hours[before] + part * (hours[before + 1] - hours[before])]


def _save(path: Path, draw, data: tuple) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy, and only here
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(9.6, 3.9), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure, *data)
    canvas.draw()
    content = io.BytesIO()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture.quantize(128, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    write_atomically(path, content.getvalue())


_COLOURS = {"asphalt": "black", "concrete": "grey", "grass": "limegreen", "water": "royalblue",
            "roof tiles": "firebrick", "roof bitumen": "darkorange", "bare metal roof": "deepskyblue",
            "wall east": "goldenrod", "wall south": "firebrick", "wall west": "purple", "wall north": "steelblue",
            "black car roof": "black", "white car roof": "silver", "windscreen": "teal"}


def _curves(axes, facets: Sequence[Facet], hours: np.ndarray, values: np.ndarray, air_c: np.ndarray,
            title: str) -> None:
    for i, facet in enumerate(facets):
        axes.plot(hours, values[:, i], color=_COLOURS[facet.name], label=facet.name, linewidth=1.5)
    axes.plot(hours, air_c, color="black", linestyle=":", label="air", linewidth=1.2)
    axes.set(title=title, xlabel="solar hour", xlim=(0, 24), xticks=range(0, 25, 4))
    axes.grid(alpha=0.3)


def _draw_day(figure, summer: Day, winter: Day) -> None:
    left, middle, right = figure.subplots(1, 3)
    _curves(left, GROUNDS, summer.hours, summer.surface_c, summer.air_c, "clear summer day: surfaces")
    _curves(middle, GROUNDS, summer.hours, summer.apparent_c, summer.air_c, "the same, as a camera reads them")
    _curves(right, GROUNDS, winter.hours, winter.surface_c, winter.air_c, "overcast winter day: surfaces")
    left.set_ylabel("°C")
    roof = [facet.name for facet in GROUNDS].index("roof bitumen")
    for hour in _crossings(summer.hours, summer.surface_c[:, 0] - summer.surface_c[:, roof]):
        left.axvline(hour, color="darkorange", linestyle="--", linewidth=0.8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=9, fontsize=7.5, frameon=False)


def _draw_walls(figure, day: Day) -> None:
    left, right = figure.subplots(1, 2)
    _curves(left, WALLS, day.hours, day.surface_c[:, :len(WALLS)], day.air_c, "plastered walls, clear summer day")
    _curves(right, CARS, day.hours, day.surface_c[:, len(WALLS):], day.air_c, "a parked car, clear summer day")
    left.set_ylabel("°C")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)


def _draw_radiometry(figure, errors: np.ndarray) -> None:
    sky, air, angle, error = figure.subplots(1, 4)
    elevation_deg = np.linspace(1.0, 90.0, 90)
    kilometres = np.linspace(0.0, 1.0, 101)
    for name, weather, colour in (
            ("dry, 4 hPa", Weather.clear(280.0, 5.0, 4.0), "royalblue"), ("clear, 13 hPa", CLEAR_SUMMER, "black"),
            ("humid, 28 hPa", Weather.clear(301.0, 4.0, 28.0), "firebrick"),
            ("overcast, 6 hPa", CLOUDY_WINTER, "grey")):
        atmosphere = Atmosphere.of(weather, 12.0)
        seen = brightness_temperature(atmosphere.sky_radiance(np.sin(np.radians(elevation_deg))))
        sky.plot(elevation_deg, seen - _KELVIN, color=colour, label=name)
        air.plot(kilometres, atmosphere.transmission(kilometres * 1000.0), color=colour)
    sky.set(title="sky, 8–14 µm", xlabel="elevation, degrees", ylabel="°C of a black body")
    sky.legend(fontsize=7, frameon=False)
    air.set(title="air, 8–14 µm", xlabel="km", ylabel="transmission")
    degrees = np.linspace(0.0, 89.0, 90)
    for surface, colour in ((Surface.ASPHALT, "black"), (Surface.WATER, "royalblue"), (Surface.CAR_GLASS, "teal"),
                            (Surface.ROOF_METAL, "deepskyblue")):
        seen = directional_emissivity(np.full(len(degrees), surface), np.cos(np.radians(degrees)).astype(np.float32))
        angle.plot(degrees, seen, color=colour, label=MATERIALS[surface].name)
    angle.set(title="emissivity", xlabel="from the normal, degrees", ylim=(0, 1))
    angle.legend(fontsize=7, frameon=False)
    error.hist(errors.ravel(), bins=np.linspace(-2.0, 2.0, 81), color="black", log=True)
    error.set(title="superposition − full march", xlabel="K", ylabel="facets")
    for axes in (sky, air, angle, error):
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(9)
