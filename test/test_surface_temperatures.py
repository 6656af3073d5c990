"""How warm surfaces are."""

import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from thermalreid_ros.evaluation.physics import (
    CARS, CLEAR_SUMMER, CLOUDY_WINTER, GROUNDS, LATITUDE_DEG, SUMMER, WALLS, WINTER, follow, response_errors)
from thermalreid_ros.world.materials import MATERIALS, Surface, material_arrays
from thermalreid_ros.world.thermal import HISTORY_EDGES_H, Forcing, ThermalDay, energy_balance
from thermalreid_ros.world.weather import STEFAN_BOLTZMANN, Weather

FACETS = (*GROUNDS, *WALLS, *CARS)
INDEX = {facet.name: i for i, facet in enumerate(FACETS)}


@pytest.fixture(scope="module")
def summer():
    return follow(FACETS, CLEAR_SUMMER, SUMMER)


@pytest.fixture(scope="module")
def noon():
    return ThermalDay(LATITUDE_DEG, 0.0, SUMMER + timedelta(hours=12), CLEAR_SUMMER)


def _facets(surfaces, **changed):
    surface = np.array(surfaces, np.uint8)
    count = len(surface)
    facets = {"surface": surface, "colour": material_arrays().albedo_rgb[surface],
              "normal": np.tile(np.float32([0, 0, 1]), (count, 1)), "sky_view": np.ones(count, np.float32),
              "sunlit": np.ones((count, 7), np.float32)}
    return facets | changed


def _one(day, surface, **changed):
    return float(day.temperature_k(**_facets([surface], **changed))[0])


def test_a_clear_summer_day_warms_surfaces_as_measured(summer):
    peak = {name: summer.surface_c[:, i].max() for name, i in INDEX.items()}
    dawn = {name: summer.surface_c[4, i] for name, i in INDEX.items()}
    assert 50 < peak["asphalt"] < 60
    assert 40 < peak["concrete"] < peak["asphalt"] - 5
    assert 50 < peak["roof tiles"] < 65 and 65 < peak["roof bitumen"] < 80
    assert abs(peak["grass"] - summer.air_c.max()) < 5
    water = summer.surface_c[:, INDEX["water"]]
    assert 1 < np.ptp(water) < 7 and np.ptp(summer.surface_c[:, INDEX["asphalt"]]) > 30
    # Roofs store little and face the sky: they fall below the air; roads and water stay above it.
    for name in ("roof tiles", "roof bitumen", "grass", "black car roof"):
        assert dawn[name] < summer.air_c[4] - 1.5, name
        assert dawn[name] > summer.air_c[4] - 9, name
    for name in ("asphalt", "concrete", "water"):
        assert dawn[name] > summer.air_c[4] + 2, name
    # Thin roofs are warmest near noon, heavy ground later.
    when = {name: summer.hours[summer.surface_c[:, i].argmax()] for name, i in INDEX.items()}
    assert 12 <= when["roof bitumen"] <= 13 < when["asphalt"] <= 15


def test_ranks_turn_over_between_day_and_night(summer):
    seen = {name: summer.apparent_c[:, i] for name, i in INDEX.items()}
    assert seen["roof bitumen"][12] > seen["asphalt"][12] + 5 and seen["roof bitumen"][0] < seen["asphalt"][0] - 5
    assert seen["water"][13] < seen["asphalt"][13] - 15 and seen["water"][4] > seen["asphalt"][4]
    assert seen["grass"][13] > seen["water"][13] and seen["grass"][4] < seen["water"][4] - 3
    ground = ("asphalt", "concrete", "grass", "water", "roof tiles", "roof bitumen", "bare metal roof")
    assert max(ground, key=lambda name: seen[name][4]) == "water"
    assert max(ground, key=lambda name: seen[name][22]) == "asphalt"


def test_bare_metal_is_hot_and_looks_cold(summer):
    metal = INDEX["bare metal roof"]
    assert summer.surface_c[12, metal] > 45 and summer.apparent_c[12, metal] < 10
    assert summer.apparent_c[0, metal] < -10


def test_a_winter_day_under_clouds_has_no_contrast():
    day = follow(GROUNDS, CLOUDY_WINTER, WINTER, 3.0)
    solid = [INDEX[name] for name in ("asphalt", "concrete", "grass", "roof tiles", "roof bitumen")]
    assert np.ptp(day.apparent_c[:, solid], axis=1).max() < 6
    assert np.abs(day.surface_c[0, solid] - day.air_c[0]).max() < 2.5


def test_walls_peak_when_the_sun_faces_them(summer):
    hour = {name: summer.hours[summer.surface_c[:, INDEX[name]].argmax()] for name in INDEX if "wall" in name}
    assert 8 <= hour["wall east"] <= 11 and 12 <= hour["wall south"] <= 15 and 16 <= hour["wall west"] <= 18
    peak = {name: summer.surface_c[:, INDEX[name]].max() for name in hour}
    assert peak["wall west"] > peak["wall east"] > peak["wall north"] + 3  # by the afternoon the air is warm, too


def test_dark_cars_burn_and_all_cars_cool_below_the_air(summer):
    black, white, glass = (summer.surface_c[:, INDEX[facet.name]] for facet in CARS)
    assert 65 < black.max() < 76 and 38 < white.max() < 50 and 40 < glass.max() < 60
    assert black[2] < summer.air_c[2] - 2 and abs(black[2] - white[2]) < 0.5


def test_superposition_equals_the_full_march():
    errors = response_errors(seed=2, situations=4)
    assert np.sqrt((errors**2).mean()) < 0.6 and np.abs(errors).max() < 4.0
    assert abs(errors.mean()) < 0.2


@pytest.mark.parametrize("source_k, conductance", [(306.5, 12.0), (350.0, 8.0), (310.0, 2.0), (480.0, 40.0)])
def test_sources_of_heat_equal_the_full_march(noon, source_k, conductance):
    facets = _facets([Surface.SKIN, Surface.COTTON, Surface.JACKET, Surface.FUR, Surface.CAR_PAINT, Surface.BARE_METAL])
    source = np.full(6, source_k), np.full(6, conductance)
    errors = noon.temperature_k(**facets, back_temperature_k=source[0], back_conductance_w_m2k=source[1]) \
        - noon.solved_temperature_k(**facets, back_temperature_k=source[0], back_conductance_w_m2k=source[1])
    assert np.abs(errors).max() < 2.0


def test_bodies_and_engines_at_night():
    night = ThermalDay(LATITUDE_DEG, 0.0, SUMMER + timedelta(hours=2), Weather.clear(283.0, 5.0, 8.0))
    air = night.air_temperature_k

    def warm(surface, source_k, conductance):
        return _one(night, surface, sky_view=np.array([0.5]), back_temperature_k=np.array([source_k]),
                    back_conductance_w_m2k=np.array([conductance]))

    skin, shirt = warm(Surface.SKIN, 306.5, 40.0), warm(Surface.COTTON, 306.5, 10.0)
    jacket, fur = warm(Surface.JACKET, 306.5, 3.0), warm(Surface.FUR, 309.0, 2.5)
    assert 296 < skin < 304 > shirt > jacket > air + 1
    assert skin - jacket > 8 and air < fur < jacket + 3
    bonnet, cold = warm(Surface.CAR_PAINT, 350.0, 8.0), _one(night, Surface.CAR_PAINT)
    assert bonnet > air + 15 and cold < air
    assert warm(Surface.BARE_METAL, 500.0, 1000.0) == pytest.approx(500.0, abs=6.0)  # an exhaust pipe
    own = night.temperature_k(**_facets([Surface.CAR_PAINT]), back_temperature_k=np.array([np.nan]),
                              back_conductance_w_m2k=np.array([np.nan]))
    assert own[0] == np.float32(cold)


def test_thin_things_follow_the_sun_in_minutes_and_roads_in_hours(noon):
    shade, now = np.zeros((1, 7)), np.eye(7)[:1]
    for surface, low, high in ((Surface.CAR_PAINT, 0.6, 1.0), (Surface.JACKET, 0.6, 1.0),
                               (Surface.ASPHALT, 0.1, 0.4), (Surface.WATER, 0.0, 0.1)):
        dark, quarter, day = (_one(noon, surface, sunlit=lit) for lit in (shade, now, np.ones((1, 7))))
        assert low < (quarter - dark) / (day - dark) < high, Surface(surface).name
    # A parked car has left its cool shadow on the road: the block of the last hours counts.
    covered = np.float32([[1, 0, 0, 0, 1, 1, 1]])
    assert _one(noon, Surface.ASPHALT, sunlit=covered) < _one(noon, Surface.ASPHALT) - 5


def test_less_sky_is_warmer_by_night():
    night = ThermalDay(LATITUDE_DEG, 0.0, SUMMER, CLEAR_SUMMER)
    open_, street = (_one(night, Surface.ROOF_METAL_PAINTED, sky_view=np.array([view])) for view in (1.0, 0.4))
    assert 3 < street - open_ < 15


def test_rain_wind_and_clouds_lower_contrasts():
    when = SUMMER + timedelta(hours=13)
    surfaces = [Surface.ASPHALT, Surface.CONCRETE, Surface.GRASS, Surface.ROOF_BITUMEN, Surface.SAND]

    def spread(**changed):
        weather = Weather(295.0, 6.5, 13.0, ground_k=292.0, water_k=293.0, **changed)
        return np.ptp(ThermalDay(LATITUDE_DEG, 0.0, when, weather).temperature_k(**_facets(surfaces)))

    clear = spread()
    assert spread(wetness=1.0) < 0.8 * clear
    assert spread(wind_m_s=8.0) < 0.75 * clear
    assert spread(cloud_cover=1.0) < 0.5 * clear


def test_history_tells_where_to_cast_shadow_rays(noon):
    assert noon.history_sun.shape == (len(HISTORY_EDGES_H) - 1, 3)
    np.testing.assert_allclose(np.linalg.norm(noon.history_sun, axis=1), 1.0, atol=1e-6)
    assert 700 < noon.history_irradiance[0] < 900
    assert noon.history_sun[4, 0] > 0.3  # two to four hours before noon it stood in the east
    night = ThermalDay(LATITUDE_DEG, 0.0, SUMMER, CLEAR_SUMMER)
    assert (night.history_irradiance[:5] == 0).all() and night.history_irradiance[6] > 100


def test_facets_do_not_depend_on_their_neighbours(noon):
    random = np.random.default_rng(3)
    count = 20_000
    normal = random.normal(size=(count, 3))
    facets = dict(surface=random.integers(0, len(MATERIALS), count).astype(np.uint8),
                  colour=random.uniform(0, 0.9, (count, 3)),
                  normal=normal / np.linalg.norm(normal, axis=1, keepdims=True),
                  sky_view=random.uniform(0, 1, count), sunlit=random.uniform(0, 1, (count, 7)),
                  back_temperature_k=np.where(random.random(count) < 0.2, 320.0, np.nan),
                  back_conductance_w_m2k=np.full(count, 9.0))
    whole = noon.temperature_k(**facets)
    parts = [noon.temperature_k(**{name: values[i:i + 999] for name, values in facets.items()})
             for i in range(0, count, 999)]
    assert whole.dtype == np.float32 and 270 < whole.min() and whole.max() < 400
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    again = ThermalDay(LATITUDE_DEG, 0.0, SUMMER + timedelta(hours=12), CLEAR_SUMMER)
    np.testing.assert_array_equal(whole, again.temperature_k(**facets))


def test_every_place_and_season_gives_finite_temperatures():
    surfaces = list(range(len(MATERIALS)))
    for latitude in (-65.0, 0.0, 69.0):
        for month in (1, 6):
            when = datetime(2025, month, 21, 15, tzinfo=timezone.utc)
            weather = Weather.typical(latitude, when, month)
            temperature = ThermalDay(latitude, 120.0, when, weather).temperature_k(**_facets(surfaces))
            assert np.isfinite(temperature).all()
            assert np.abs(temperature - weather.air_mean_k).max() < 70


def _steady(air_k=290.0, sky_w_m2=300.0):
    shape = Forcing.of(0.0, 0.0, SUMMER, CLEAR_SUMMER)
    constant = np.ones(len(shape.step_s))
    return Forcing(shape.step_s, shape.age_h, shape.sun, 0 * constant, 0 * constant, 0 * constant, air_k * constant,
                   0.01 * constant, 2.0 * constant, sky_w_m2 * constant)


def test_a_steady_state_balances():
    """Under constant conditions a thin plate settles where gains equal losses."""
    forcing = _steady()
    count = len(forcing.step_s)
    absorbed = np.full((count, 1), 400.0)
    plate = energy_balance(forcing, CLEAR_SUMMER, np.array([Surface.PAINTED_TUBE]), absorbed, np.ones(1), forcing.air_k)
    warm = plate.temperature_k[-1, 0]
    material = MATERIALS[Surface.PAINTED_TUBE]
    forced = 3.4 * 2.0**0.75 * material.moved_air
    convection = math.hypot(forced, 1.3 * abs(warm - 290.0) ** (1 / 3))
    lost = material.emissivity * (STEFAN_BOLTZMANN * warm**4 - 300.0) + convection * (warm - 290.0)
    assert lost == pytest.approx(400.0, rel=0.01)


def test_heat_sinks_into_the_depth_as_carslaw_and_jaeger_say():
    """A half-space with surface conductance h warms by (1 - exp(b^2 t) erfc(b sqrt t)) / h for each W/m2, with
    b = h / sqrt(k rho c) (Conduction of Heat in Solids, 2.7)."""
    forcing = _steady()
    march = energy_balance(forcing, CLEAR_SUMMER, np.array([Surface.ASPHALT]), np.full((len(forcing.step_s), 1), 100.0),
                           np.ones(1), forcing.air_k, adjoint=True)
    asphalt = MATERIALS[Surface.ASPHALT]
    effusivity = math.sqrt(asphalt.conductivity_w_mk * asphalt.density_kg_m3 * asphalt.heat_capacity_j_kgk)
    warm = march.temperature_k[-1, 0]
    natural = 1.3 * abs(warm - 290.0) ** (1 / 3)
    convection = math.hypot(3.4 * 2.0**0.75, natural)
    loss = (convection + natural**2 / (3 * convection) + 4 * asphalt.emissivity * STEFAN_BOLTZMANN * warm**3)
    for hours in (0.5, 2.0, 6.0):
        b_root_t = loss / effusivity * math.sqrt(hours * 3600.0)
        exact = (1.0 - math.exp(b_root_t**2) * math.erfc(b_root_t)) / loss
        assert march.sensitivity[forcing.age_h < hours, 0].sum() == pytest.approx(exact, rel=0.05), hours


def test_sensitivities_are_those_of_the_march():
    """The adjoint against a small change of the sun at one moment."""
    forcing = Forcing.of(LATITUDE_DEG, 0.0, SUMMER + timedelta(hours=12), CLEAR_SUMMER)
    surfaces = np.array([Surface.ASPHALT, Surface.GRASS, Surface.ROOF_TILES, Surface.WATER, Surface.WALL_BRICK])
    absorbed = np.full((len(forcing.step_s), len(surfaces)), 150.0)
    arguments = (CLEAR_SUMMER, surfaces)
    base = energy_balance(forcing, *arguments, absorbed, np.ones(5), forcing.air_k, adjoint=True)
    for step in (len(forcing.step_s) - 1, len(forcing.step_s) - 30, 120):
        more = absorbed.copy()
        more[step] += 1.0
        changed = energy_balance(forcing, *arguments, more, np.ones(5), forcing.air_k)
        np.testing.assert_allclose(changed.temperature_k[-1] - base.temperature_k[-1], base.sensitivity[step],
                                   rtol=0.02, atol=2e-6)


def test_the_table_of_materials_in_the_documentation():
    from thermalreid_ros.evaluation.physics import material_table

    page = (Path(__file__).parents[1] / "docs" / "thermal_physics.md").read_text()
    assert material_table() in page, "docs/thermal_physics.md: put the output of material_table() into it"
