"""How warm surfaces are: their energy balance with sun, sky, air, ground and what lies behind them.

`energy_balance` is the reference: heat conduction into the depth with a nonlinear balance at the surface, marched
through three days. `ThermalDay` runs it once per material for one place, instant and weather, together with its
adjoint: how much warmer the surface is now for every joule absorbed at every earlier moment. Temperatures of facets in
any colour, attitude and history of shadow follow by superposition, bent where losses grow with temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from thermalreid_ros.world.materials import BACKS, BODY_K, MATERIALS, Surface, absorptivity, material_arrays
from thermalreid_ros.world.radiometry import Atmosphere
from thermalreid_ros.world.sun import irradiance, solar_hour, sun_direction, utc
from thermalreid_ros.world.weather import STEFAN_BOLTZMANN, Weather, saturation_pressure_hpa

HISTORY_EDGES_H = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 24.0)  # blocks of the past, from now on back
_SAMPLES = (1, 1, 1, 2, 4, 8, 16)  # of the sun within each block
_STEPS_H = ((72.0, 24.0, 0.5), (24.0, 2.0, 0.25), (2.0, 0.0, 0.05))  # from, to, length: finer towards now
_LAYERS = 12
_START_K_PER_W_M2 = 0.045
_PSYCHROMETRIC_HPA_K = 0.66
_SURROUNDINGS_REFLECTANCE = 0.18
_SURROUNDINGS = (Surface.ASPHALT, Surface.GRASS, Surface.CONCRETE)  # what walls and streets see of each other
_CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Forcing:
    """What a day does to surfaces, in the middle of time steps; float64 (S,)."""

    step_s: np.ndarray
    age_h: np.ndarray  # until now
    sun: np.ndarray  # (S, 3), east-north-up
    direct_w_m2: np.ndarray
    diffuse_w_m2: np.ndarray
    global_w_m2: np.ndarray
    air_k: np.ndarray
    vapour_hpa: np.ndarray
    wind_m_s: np.ndarray
    sky_w_m2: np.ndarray

    @classmethod
    def of(cls, latitude_deg: float, longitude_deg: float, when: datetime, weather: Weather) -> Forcing:
        """The three days before `when`, each with the same weather."""
        edges = np.concatenate([np.arange(round((a - b) / d)) * -d + a for a, b, d in _STEPS_H] + [np.zeros(1)])
        age_h = 0.5 * (edges[:-1] + edges[1:])
        sun = sun_direction(latitude_deg, longitude_deg, when, -age_h)
        direct, diffuse = irradiance(sun[:, 2], weather.cloud_cover, weather.linke_turbidity,
                                     utc(when).timetuple().tm_yday)
        hour = solar_hour(longitude_deg, when, -age_h)
        return cls(-np.diff(edges) * 3600.0, age_h, sun, direct, diffuse, diffuse + direct * np.maximum(sun[:, 2], 0.0),
                   weather.air_temperature_k(hour), weather.vapour_pressure_at(hour), weather.wind_at(hour),
                   weather.sky_irradiance_w_m2(hour))


@dataclass(frozen=True, eq=False)
class Balance:
    """The march of N surfaces through S steps. temperature_k: float64 (S, N), after each step; sensitivity: float64
    (S, N), kelvin now per W/m2 absorbed throughout a step, or None."""

    temperature_k: np.ndarray
    sensitivity: np.ndarray | None


def energy_balance(forcing: Forcing, weather: Weather, surface: np.ndarray, absorbed_w_m2: np.ndarray,
                   sky_view: np.ndarray, surroundings_k: np.ndarray, *, source_k: np.ndarray | None = None,
                   source_w_m2k: np.ndarray | None = None, adjoint: bool = False) -> Balance:
    """March N surfaces: implicit finite volumes in depth, Newton's method at the surface.

    absorbed_w_m2: of the sun, (S, N). sky_view: (N,) share of sky in what the surface faces; the rest is at
    surroundings_k (S,). source_k, source_w_m2k: (N,), a source of heat and its conductance to the outer surface, all
    layers between included; where it is not NaN it takes the place of the material's own back.
    At the surface: absorbed + eps (L_down - sigma T^4) - h (T - T_air) - LE = conduction into the depth.
    """
    table = material_arrays()
    surface = np.asarray(surface)
    steps, count = len(forcing.step_s), len(surface)
    emissivity = table.emissivity[surface].astype(np.float64)
    backs, back_conductance = _backs(forcing, weather, surface)
    held = _BACK_HELD[table.back[surface]]
    to_source, from_source = np.zeros(count), np.zeros(count)
    if source_k is not None:
        given = ~np.isnan(source_k)
        back_conductance = np.where(given, 0.0, back_conductance)
        held = held & ~given
        to_source = np.where(given, source_w_m2k, 0.0)
        from_source = np.where(given, to_source * source_k, 0.0)
    capacity, conductance = _layers(surface)
    last = back_conductance / (1.0 + 0.5 * back_conductance / conductance[-1])
    sky_view = np.asarray(sky_view, np.float64)
    long_wave = emissivity * (sky_view * forcing.sky_w_m2[:, None]
                              + (1.0 - sky_view) * STEFAN_BOLTZMANN * surroundings_k[:, None] ** 4)
    evaporation = _evaporation(forcing, weather, surface)
    rough = _forced_convection(forcing, surface)

    # Three days do not warm a metre of ground: start from about where the mean of the day leads.
    share = np.where(forcing.age_h < 24.0, forcing.step_s, 0.0) / 86400.0
    start_per_w_m2 = np.where(held, 0.0, _START_K_PER_W_M2)
    start = (np.where(held, backs[0], forcing.air_k.mean())
             + start_per_w_m2 * (share[:, None] * absorbed_w_m2).sum(axis=0))
    layers = np.repeat(start[None], _LAYERS, axis=0)
    temperature, slopes = np.empty((steps, count)), np.empty((steps, count))
    matrices = {step_s: _matrix(capacity / step_s, conductance, last) for step_s in sorted(set(forcing.step_s))}
    for step in range(steps):
        storage, pivot, ratio = matrices[forcing.step_s[step]]
        rhs = storage * layers
        rhs[-1] += last * backs[step]
        _eliminate(rhs, ratio)
        # What is left is one equation in the surface temperature.
        now = layers[0]
        gained = rhs[0] + absorbed_w_m2[step] + long_wave[step] + from_source
        kept = pivot[0] + to_source
        for _ in range(3):
            loss, slope = _surface_loss(now, emissivity, forcing.air_k[step], forcing.vapour_hpa[step], rough[step],
                                        evaporation[step])
            now = now - (kept * now + loss - gained) / (kept + slope)
        layers = _substitute(now, rhs, pivot, conductance)
        temperature[step], slopes[step] = now, slope
    if not adjoint:
        return Balance(temperature, None)

    # The matrix of a step is symmetric, so that its adjoint is solved as the step itself.
    sensitivity = np.empty((steps, count))
    weight = np.zeros_like(layers)  # of each layer's temperature before a step in that of the surface now
    weight[0] = 1.0
    for step in range(steps - 1, -1, -1):
        storage, pivot, ratio = matrices[forcing.step_s[step]]
        _eliminate(weight, ratio)
        sensitivity[step] = weight[0] / (pivot[0] + to_source + slopes[step])
        weight = storage * _substitute(sensitivity[step], weight, pivot, conductance)
    return Balance(temperature, sensitivity + share[:, None] * (start_per_w_m2 * weight.sum(axis=0)))


class ThermalDay:
    """Surface temperatures at one place and instant, in one weather.

    history_sun: float32 (7, 3), unit vectors towards which the caller casts its shadow rays, one for each block of
    HISTORY_EDGES_H. history_irradiance: float32 (7,), mean direct light of the block, W/m2, on a plane that faces the
    sun; 0 where the block is night and no ray is needed. surroundings_k: what walls and streets see of each other.
    """

    def __init__(self, latitude_deg: float, longitude_deg: float, when: datetime, weather: Weather) -> None:
        self.weather, self.when = weather, when
        self.solar_hour = float(solar_hour(longitude_deg, when))
        self.forcing = forcing = Forcing.of(latitude_deg, longitude_deg, when, weather)
        self.air_temperature_k = float(weather.air_temperature_k(self.solar_hour))
        self._surroundings = _surroundings(forcing, weather)
        self.surroundings_k = float(self._surroundings[-1])
        self._tables()

    def atmosphere(self) -> Atmosphere:
        """The air and the sky of the same instant, in the camera's band."""
        return Atmosphere.of(self.weather, self.solar_hour, self.surroundings_k)

    @property
    def blotches(self) -> np.float32:
        """What a texture's thermal offset is multiplied by: blotches come from unequal absorption and evaporation, and
        what the sun warms most cools most at night."""
        cover = self.weather.cloud_cover
        recent = float(np.dot(self.history_irradiance[:4], (0.25, 0.25, 0.5, 1.0)) / 2.0)
        return np.float32(0.2 * cover + (1.0 - cover) * (1.35 * min(recent / 500.0, 1.0) - 0.35))

    def recent_sun_w_m2(self, sunlit: np.ndarray) -> float:
        """Direct light on level ground over the last hour, of whose blocks these shares (7,) were in the sun: it warms
        the cabins of cars."""
        recent = float(np.dot(sunlit[:3], self.history_irradiance[:3] * (1, 1, 2)) / 4.0)
        return recent * max(float(self.history_sun[2, 2]), 0.0)

    def _tables(self) -> None:
        forcing, count = self.forcing, len(MATERIALS)
        # Rows 0..M-1: materials on their own backs; M..2M-1: with nothing behind, for sources that the caller gives.
        surface = np.tile(np.arange(count), 2)
        source_k = np.where(np.arange(2 * count) < count, np.nan, 0.0)
        colours = material_arrays().albedo_rgb[surface]
        reference_absorptivity = absorptivity(surface, colours).astype(np.float64)
        vertical = _VERTICAL[surface]
        sky_view = np.where(vertical, 0.5, 1.0)
        shine = np.where(vertical, 0.25 * forcing.direct_w_m2[:, None],
                         0.5 * forcing.direct_w_m2[:, None] * np.maximum(forcing.sun[:, 2:], 0.0))
        ground = _SURROUNDINGS_REFLECTANCE * forcing.global_w_m2[:, None]
        absorbed = reference_absorptivity * (shine + sky_view * forcing.diffuse_w_m2[:, None]
                                             + (1.0 - sky_view) * ground)
        balance = energy_balance(forcing, self.weather, surface, absorbed, sky_view, self._surroundings,
                                 source_k=source_k, source_w_m2k=np.zeros(2 * count), adjoint=True)
        gain = balance.sensitivity
        emissivity = material_arrays().emissivity[surface].astype(np.float64)
        sky_excess = forcing.sky_w_m2 - STEFAN_BOLTZMANN * self._surroundings**4
        per_view = emissivity * (gain * sky_excess[:, None]).sum(axis=0)
        self._reference = balance.temperature_k[-1].astype(np.float32)
        self._base = (balance.temperature_k[-1] - (gain * absorbed).sum(axis=0) - sky_view * per_view
                      ).astype(np.float32)
        self._per_sky_view = per_view.astype(np.float32)
        self._per_diffuse = (gain * forcing.diffuse_w_m2[:, None]).sum(axis=0).astype(np.float32)
        self._per_ground = (gain * ground).sum(axis=0).astype(np.float32)
        # How fast losses grow with temperature, against what a kelvin costs: bends the linear response.
        self._state = (emissivity, forcing.air_k[-1], forcing.vapour_hpa[-1],
                       _forced_convection(forcing, surface)[-1], _evaporation(forcing, self.weather, surface)[-1])
        warm = balance.temperature_k[-1]
        curvature = (_surface_loss(warm + 15.0, *self._state)[1] - _surface_loss(warm, *self._state)[1]) / 15.0
        self._bend = (curvature * (gain * (forcing.age_h < 2.0)[:, None]).sum(axis=0)).astype(np.float32)

        age_h = np.mod(forcing.age_h, 24.0)  # the days before had the same shadows
        suns, weights, blocks = [], [], []
        history_sun, history_irradiance = np.zeros((len(_SAMPLES), 3)), np.zeros(len(_SAMPLES))
        for block, samples in enumerate(_SAMPLES):
            young, old = HISTORY_EDGES_H[block:block + 2]
            edges = np.linspace(young, old, samples + 1)
            inside = (age_h >= young) & (age_h < old)
            beam = forcing.direct_w_m2 * inside * forcing.step_s
            history_irradiance[block] = (beam * (forcing.age_h < 24.0)).sum() / (3600.0 * (old - young))
            mean = (beam[:, None] * forcing.sun).sum(axis=0)
            history_sun[block] = mean / np.linalg.norm(mean) if beam.any() else (0.0, 0.0, 1.0)
            for low, high in zip(edges[:-1], edges[1:]):
                part = beam * ((age_h >= low) & (age_h < high))
                if part.any():
                    mean = (part[:, None] * forcing.sun).sum(axis=0)
                    suns.append(mean / np.linalg.norm(mean))
                    weights.append((gain * (forcing.direct_w_m2 * (part > 0))[:, None]).sum(axis=0))
                    blocks.append(block)
        self.history_sun = history_sun.astype(np.float32)
        self.history_irradiance = history_irradiance.astype(np.float32)
        self._suns = np.array(suns, np.float32).reshape(-1, 3)
        self._weights = np.array(weights, np.float32).reshape(-1, 2 * count)
        self._blocks = blocks

    def temperature_k(self, surface: np.ndarray, colour: np.ndarray, normal: np.ndarray, sky_view: np.ndarray,
                      sunlit: np.ndarray, back_temperature_k: np.ndarray | None = None,
                      back_conductance_w_m2k: np.ndarray | None = None) -> np.ndarray:
        """Temperatures of N facets, float32 (N,).

        surface: uint8 (N,). colour: (N, 3) linear reflectance. normal: (N, 3). sky_view: (N,), 0..1, share of sky in
        what the facet faces (a free wall: 0.5). sunlit: (N, 7), share of each past block in which the sun was not
        hidden by something else; facets turned away are taken care of here. back_temperature_k with
        back_conductance_w_m2k: (N,), heat from behind (a body, an engine bay) in place of the material's own back;
        NaN: its own.
        """
        surface = np.asarray(surface)
        count = len(surface)
        out = np.empty(count, np.float32)
        for start in range(0, count, _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = self._temperature(
                surface[part], np.asarray(colour[part], np.float32), np.asarray(normal[part], np.float32),
                np.asarray(sky_view[part], np.float32), np.asarray(sunlit[part], np.float32),
                None if back_temperature_k is None else np.asarray(back_temperature_k[part], np.float32),
                None if back_temperature_k is None else np.asarray(back_conductance_w_m2k[part], np.float32))
        return out

    def solved_temperature_k(self, surface: np.ndarray, colour: np.ndarray, normal: np.ndarray, sky_view: np.ndarray,
                             sunlit: np.ndarray, back_temperature_k: np.ndarray | None = None,
                             back_conductance_w_m2k: np.ndarray | None = None) -> np.ndarray:
        """temperature_k by the full nonlinear march of every facet, float64 (N,): what superposition is measured by.
        A thousand times slower."""
        forcing, sky_view = self.forcing, np.asarray(sky_view, np.float64)
        block = np.searchsorted(HISTORY_EDGES_H, np.mod(forcing.age_h, 24.0), side="right") - 1
        facing = np.maximum(forcing.sun @ np.asarray(normal, np.float64).T, 0.0)
        incident = (facing * forcing.direct_w_m2[:, None] * np.asarray(sunlit).T[block]
                    + sky_view * forcing.diffuse_w_m2[:, None]
                    + (1.0 - sky_view) * _SURROUNDINGS_REFLECTANCE * forcing.global_w_m2[:, None])
        return energy_balance(forcing, self.weather, surface, absorptivity(surface, colour) * incident, sky_view,
                              self._surroundings, source_k=back_temperature_k,
                              source_w_m2k=back_conductance_w_m2k).temperature_k[-1]

    def _temperature(self, surface, colour, normal, sky_view, sunlit, back_k, back_w_m2k) -> np.ndarray:
        row = surface.astype(np.intp)
        if back_k is not None:
            row = row + np.where(np.isnan(back_k), 0, len(MATERIALS))
        rise = sky_view * self._per_diffuse[row] + (np.float32(1) - sky_view) * self._per_ground[row]
        x, y, z = np.ascontiguousarray(normal.T)
        shadow = np.ascontiguousarray(sunlit.T)
        for sun, weight, block in zip(self._suns, self._weights, self._blocks):
            facing = np.maximum(x * sun[0] + y * sun[1] + z * sun[2], np.float32(0))
            rise += facing * shadow[block] * weight[row]
        reference = self._reference[row]
        excess = (self._base[row] + sky_view * self._per_sky_view[row] + absorptivity(surface, colour) * rise
                  - reference)
        # excess = x + bend x^2 / 2, solved for x: warmer surfaces lose more for each kelvin.
        bent = np.maximum(np.float32(1) + np.float32(2) * self._bend[row] * excess, np.float32(0.2))
        temperature = reference + np.float32(2) * excess / (np.float32(1) + np.sqrt(bent))
        if back_k is None:
            return temperature
        # Thin skins over a source of heat settle within minutes: what the source brings leaves as additional loss.
        heated = np.flatnonzero(~np.isnan(back_k))
        emissivity, air_k, vapour_hpa, forced, evaporation = self._state
        state = (emissivity[row[heated]], air_k, vapour_hpa, forced[row[heated]], evaporation[row[heated]])
        conductance = back_w_m2k[heated].astype(np.float64)
        passive = temperature[heated].astype(np.float64)
        passive_loss, slope = _surface_loss(passive, *state)
        warm = passive + (back_k[heated] - passive) * conductance / (conductance + slope)
        for _ in range(3):
            loss, slope = _surface_loss(warm, *state)
            warm = warm - (loss - passive_loss - conductance * (back_k[heated] - warm)) / (slope + conductance)
        temperature[heated] = warm
        return temperature


def _matrix(storage: np.ndarray, conductance: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(storage, pivots, ratios) of a step's tridiagonal matrix, eliminated from the back to the surface."""
    pivot, ratio = np.empty_like(storage), np.empty_like(storage[:-1])
    pivot[-1] = storage[-1] + conductance[-2] + last
    for i in range(_LAYERS - 2, -1, -1):
        ratio[i] = conductance[i] / pivot[i + 1]
        pivot[i] = storage[i] + conductance[i] * (1.0 - ratio[i]) + (conductance[i - 1] if i else 0.0)
    return storage, pivot, ratio


def _eliminate(rhs: np.ndarray, ratio: np.ndarray) -> None:
    """Carry the right-hand side from the back to the surface, in place."""
    for i in range(_LAYERS - 2, -1, -1):
        rhs[i] += ratio[i] * rhs[i + 1]


def _substitute(top: np.ndarray, rhs: np.ndarray, pivot: np.ndarray, conductance: np.ndarray) -> np.ndarray:
    """All layers, from that of the surface."""
    layers = np.empty_like(rhs)
    layers[0] = top
    for i in range(1, _LAYERS):
        layers[i] = (rhs[i] + conductance[i - 1] * layers[i - 1]) / pivot[i]
    return layers


def _surroundings(forcing: Forcing, weather: Weather) -> np.ndarray:
    """Temperature (S,) of an average of streets and greens under an open sky."""
    surface = np.array(_SURROUNDINGS)
    share = absorptivity(surface, material_arrays().albedo_rgb[surface]).astype(np.float64)
    absorbed = 0.7 * share * forcing.global_w_m2[:, None]  # some of it lies in shadow
    balance = energy_balance(forcing, weather, surface, absorbed, np.full(len(surface), 0.8), forcing.air_k)
    return balance.temperature_k.mean(axis=1)


def _surface_loss(now, emissivity, air_k, vapour_hpa, forced, evaporation):
    """(W/m2 that leave the surface by radiation, convection and evaporation, their derivative)."""
    excess = now - air_k
    # Natural and forced convection combine as in DOE-2 (EnergyPlus Engineering Reference, outside convection).
    natural = 1.3 * np.cbrt(np.abs(excess) + 0.05)
    convection = np.sqrt(forced * forced + natural * natural)
    bend = natural * natural / (3.0 * convection * (np.abs(excess) + 0.05)) * np.sign(excess)
    deficit = saturation_pressure_hpa(now) - vapour_hpa
    wet = np.where(deficit > 0.0, evaporation, 1.0) / _PSYCHROMETRIC_HPA_K
    celsius = now - 273.15
    deficit_slope = (deficit + vapour_hpa) * 17.625 * 243.04 / (celsius + 243.04) ** 2
    loss = emissivity * STEFAN_BOLTZMANN * now**4 + convection * (excess + wet * deficit)
    slope = (4.0 * emissivity * STEFAN_BOLTZMANN * now**3 + convection * (1.0 + wet * deficit_slope)
             + bend * (excess + wet * deficit))
    return loss, slope


def _forced_convection(forcing: Forcing, surface: np.ndarray) -> np.ndarray:
    """W/m2K, (S, N), by wind over plates (M. Yazdanian and J. H. Klems, ASHRAE Transactions 100(1), 1994)."""
    return material_arrays().moved_air[surface] * 3.4 * forcing.wind_m_s[:, None] ** 0.75


def _evaporation(forcing: Forcing, weather: Weather, surface: np.ndarray) -> np.ndarray:
    """Share of open water's evaporation, (S, N): plants close their stomata in the dark, wetness dries nowhere."""
    own = material_arrays().evaporation[surface].astype(np.float64)
    light = np.clip(forcing.global_w_m2[:, None] / 150.0, 0.1, 1.0)
    own = np.where(_PLANT[surface], own * light, own)
    return np.maximum(own, _HOLDS_RAIN[surface] * weather.wetness)


def _backs(forcing: Forcing, weather: Weather, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(temperature (S, N) behind the last layer, conductance (N,) to it)."""
    cabin = forcing.air_k + 0.02 * forcing.global_w_m2  # a closed car in the sun
    by_back = {"adiabatic": forcing.air_k, "ground": weather.ground_k, "interior": weather.indoor_k,
               "air": forcing.air_k, "cabin": cabin, "body": BODY_K, "water": weather.water_k}
    columns = np.stack([np.broadcast_to(by_back[name], forcing.air_k.shape) for name in BACKS], axis=1)
    table = material_arrays()
    return columns[:, table.back[surface]], table.back_w_m2k[surface].astype(np.float64)


def _layers(surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(capacity J/m2K (L, N), conductance W/m2K (L, N)): of each layer, and between it and the next; the last is that
    across the last layer itself. Layers grow downwards; the first node lies at the surface, or is the leaves above."""
    table = material_arrays()
    growth = 1.35 ** np.arange(_LAYERS)
    size = table.thickness_m[surface].astype(np.float64) * (growth / growth.sum())[:, None]
    capacity = table.density_kg_m3[surface] * table.heat_capacity_j_kgk[surface] * size
    distance = size.copy()
    distance[:-1] = 0.5 * (size[:-1] + size[1:])
    distance[0] += 0.5 * size[0]
    conductance = table.conductivity_w_mk[surface] / distance
    leafy = table.canopy_w_m2k[surface] > 0.0
    capacity[0] = np.where(leafy, table.canopy_j_m2k[surface], capacity[0])
    conductance[0] = np.where(leafy, table.canopy_w_m2k[surface], conductance[0])
    return capacity, conductance


def _flags(surfaces: Sequence[Surface]) -> np.ndarray:
    return np.isin(np.arange(len(MATERIALS)), [int(surface) for surface in surfaces])


_BACK_HELD = np.isin(np.arange(len(BACKS)), [BACKS.index("water"), BACKS.index("body")])
_VERTICAL = _flags([Surface.WALL_PLASTER, Surface.WALL_BRICK, Surface.WALL_CONCRETE, Surface.WALL_WOOD,
                    Surface.WALL_METAL, Surface.WINDOW, Surface.BARK])
_PLANT = _flags([Surface.GRASS, Surface.DRY_GRASS, Surface.CROP, Surface.FOLIAGE])
_HOLDS_RAIN = np.where(_flags([Surface.WATER, Surface.WINDOW, Surface.CAR_GLASS, Surface.SKIN, Surface.HAIR]), 0.0, 0.5)
