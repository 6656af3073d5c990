"""What a camera for 8-14 um receives: black bodies, the sky, the air between, surfaces that mirror.

Radiance is in-band, W m-2 sr-1. L = tau(R) [eps(theta) B(T) + (1 - eps) L_reflected] + (1 - tau(R)) B(T_air).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from thermalreid_ros.world.materials import material_arrays
from thermalreid_ros.world.sun import air_mass
from thermalreid_ros.world.weather import STEFAN_BOLTZMANN, Weather

BAND_M = (8e-6, 14e-6)
SECOND_RADIATION_CONSTANT_M_K = 1.438776877e-2  # CODATA 2018
TEMPERATURE_RANGE_K = (150.0, 1000.0)  # of the tables; colder and hotter are clipped
_STEP_K = 0.25
_INVERSE_STEP = 1.0 / 512.0  # of the square root of radiance
_DIFFUSIVITY = 1.66  # W. M. Elsasser 1942: a hemisphere is as opaque as 1.66 zeniths
_RANGE_STEP_M = 4.0
_RANGES = 2048
_COSINES = 256
_CHUNK = 1 << 14  # pixels whose temporaries stay in the second-level cache


def band_fraction(wavelength_temperature_m_k: np.ndarray) -> np.ndarray:
    """F(0 - lambda T): the share of a black body's radiation below a wavelength, float64.

    S. L. Chang and K. T. Rhee, Int. Comm. Heat Mass Transfer 11, 1984; tabulated in F. P. Incropera et al.,
    Fundamentals of Heat and Mass Transfer, table 12.1, and J. R. Howell et al., Thermal Radiation Heat Transfer.
    """
    x = SECOND_RADIATION_CONSTANT_M_K / np.asarray(wavelength_temperature_m_k, np.float64)[..., None]
    n = np.arange(1, 41)
    terms = np.exp(-n * x) / n * (x**3 + 3 * x**2 / n + 6 * x / n**2 + 6 / n**3)
    return 15.0 / np.pi**4 * terms.sum(axis=-1)


def exact_radiance(temperature_k: np.ndarray) -> np.ndarray:
    """In-band radiance of black bodies from the series, float64; slow, for tables and tests."""
    temperature_k = np.asarray(temperature_k, np.float64)
    share = band_fraction(BAND_M[1] * temperature_k) - band_fraction(BAND_M[0] * temperature_k)
    return STEFAN_BOLTZMANN / np.pi * temperature_k**4 * share


def radiance(temperature_k: np.ndarray) -> np.ndarray:
    """In-band radiance of black bodies, float32, by table: within 1e-5 of exact_radiance."""
    values, slopes = _forward()
    position = (np.asarray(temperature_k, np.float32) - np.float32(TEMPERATURE_RANGE_K[0])) * np.float32(1 / _STEP_K)
    position = np.clip(position, np.float32(0), np.float32(len(values) - 1))
    index = position.astype(np.int32)
    return values[index] + (position - index.astype(np.float32)) * slopes[index]


def brightness_temperature(in_band_radiance: np.ndarray) -> np.ndarray:
    """Temperature, float32 kelvin, of the black body of a radiance: the inverse of `radiance` within 1 mK."""
    values, slopes, first = _inverse()
    root = np.sqrt(np.maximum(np.asarray(in_band_radiance, np.float32), np.float32(0)))
    position = np.clip((root - first) * np.float32(1 / _INVERSE_STEP), np.float32(0), np.float32(len(values) - 1))
    index = position.astype(np.int32)
    return values[index] + (position - index.astype(np.float32)) * slopes[index]


def window_clear_sky_emissivity(air_temperature_k: float, vapour_pressure_hpa: float) -> float:
    """Of a cloudless hemisphere within 8-14 um, against a black body at air temperature: far colder than the
    broadband sky (S. B. Idso, Water Resources Research 17(2), 1981). Capped at 0.9: in the vapour of the tropics the
    fit, a square, runs away."""
    return float(min(0.24 + 2.98e-8 * vapour_pressure_hpa**2 * np.exp(3000.0 / air_temperature_k), 0.9))


def transmission(range_m: np.ndarray, absolute_humidity_g_m3: float) -> np.ndarray:
    """Share of in-band radiance that passes range_m of air near the ground, float64.

    The two-term model of W. Minkina and S. Dudzik, Infrared Thermography: Errors and Uncertainties, Wiley 2009,
    eq. 2.25, as used by makers of cameras; never rising with range, where the fit itself ends.
    """
    root_range = np.sqrt(np.asarray(range_m, np.float64))
    root_water = np.sqrt(absolute_humidity_g_m3)
    return np.clip(1.9 * np.exp(-root_range * (0.0066 - 0.0023 * root_water))
                   - 0.9 * np.exp(-root_range * (0.0126 - 0.0067 * root_water)), 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Atmosphere:
    """The air and the sky of one instant, in band. Build with `Atmosphere.of`."""

    air_temperature_k: float
    surroundings_temperature_k: float
    sky_table: np.ndarray  # float32, by sine of elevation, 0..1
    transmission_table: np.ndarray  # float32, by range

    @classmethod
    def of(cls, weather: Weather, solar_hour: float, surroundings_temperature_k: float | None = None) -> Atmosphere:
        """surroundings_temperature_k: of what walls and streets see of each other; the air's where not given."""
        air = float(weather.air_temperature_k(solar_hour))
        emissivity = window_clear_sky_emissivity(air, weather.vapour_pressure_hpa)
        zenith_log = np.log1p(-emissivity) / _DIFFUSIVITY
        clear = -np.expm1(zenith_log * air_mass(np.linspace(0.0, 1.0, 1025)))
        cloud = weather.cloud_cover * (1.0 - clear)
        sky = clear * exact_radiance(air) + cloud * exact_radiance(weather.cloud_base_k(solar_hour))
        passes = np.minimum.accumulate(transmission(np.arange(_RANGES) * _RANGE_STEP_M,
                                                    weather.absolute_humidity_g_m3(solar_hour)))
        return cls(air, air if surroundings_temperature_k is None else float(surroundings_temperature_k),
                   sky.astype(np.float32), passes.astype(np.float32))

    def sky_radiance(self, sin_elevation: np.ndarray) -> np.ndarray:
        """In-band radiance of the sky towards an elevation, float32; below the horizon that of the horizon."""
        last = len(self.sky_table) - 1
        index = (np.clip(sin_elevation, 0.0, 1.0) * np.float32(last) + np.float32(0.5)).astype(np.int32)
        return self.sky_table[index]

    @property
    def hemisphere_radiance(self) -> float:
        """The sky's mean radiance on a horizontal plane: its irradiance over pi."""
        sine = np.linspace(0.0, 1.0, len(self.sky_table))
        return float(np.average(self.sky_table.astype(np.float64), weights=sine))

    def transmission(self, range_m: np.ndarray) -> np.ndarray:
        """Share that passes range_m, float32; beyond 8 km as at 8 km."""
        position = np.clip(np.asarray(range_m, np.float32) * np.float32(1 / _RANGE_STEP_M), 0, _RANGES - 1)
        index = np.minimum(position.astype(np.int32), _RANGES - 2)
        low = self.transmission_table[index]
        return low + (position - index.astype(np.float32)) * (self.transmission_table[index + 1] - low)

    def apparent_radiance(self, surface: np.ndarray, temperature_k: np.ndarray, cos_view: np.ndarray,
                          sky_view: np.ndarray, range_m: np.ndarray, mirrored_sin_elevation: np.ndarray) -> np.ndarray:
        """In-band radiance at the camera, float32 (N,).

        surface: uint8. cos_view: cosine between the outward normal and the way to the camera. sky_view: 0..1.
        mirrored_sin_elevation: z of the unit direction from which a mirror here would take its light (the line of
        sight reflected at the surface); below 0 the mirror sees the surroundings.
        """
        surface, out = np.asarray(surface), np.empty(len(surface), np.float32)
        inputs = [np.asarray(a, np.float32) for a in (temperature_k, cos_view, sky_view, range_m,
                                                      mirrored_sin_elevation)]
        for start in range(0, len(surface), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = self._apparent(surface[part], *(a[part] for a in inputs))
        return out

    def _apparent(self, surface, temperature_k, cos_view, sky_view, range_m, mirrored_sin_elevation) -> np.ndarray:
        table = material_arrays()
        mirror = table.mirror[surface]
        reflects = np.float32(1) - directional_emissivity(surface, cos_view)
        surroundings = np.float32(exact_radiance(self.surroundings_temperature_k))
        diffuse = surroundings + sky_view * np.float32(self.hemisphere_radiance - float(surroundings))
        mirrored = np.where(mirrored_sin_elevation > 0, self.sky_radiance(mirrored_sin_elevation), surroundings)
        own = radiance(temperature_k)
        leaves = own + reflects * (diffuse + mirror * (mirrored - diffuse) - own)
        air = np.float32(exact_radiance(self.air_temperature_k))
        return air + self.transmission(range_m) * (leaves - air)


def directional_emissivity(surface: np.ndarray, cos_view: np.ndarray) -> np.ndarray:
    """Emissivity in band towards the camera, float32: 1 - reflectance.

    Smooth surfaces follow Fresnel's equations for the refractive index that their emissivity along the normal tells;
    rough ones show their own flanks at grazing and lose little, as J. A. Sobrino and J. Cuenca measured (Applied Optics
    38(18), 1999): a mirror's share of the fall, and 15 % of the rest.
    """
    table = _emissivity_table()
    cosine = np.clip(cos_view, np.float32(0), np.float32(1))
    index = (cosine * np.float32(_COSINES - 1) + np.float32(0.5)).astype(np.intp)
    return table[np.asarray(surface, np.intp) * _COSINES + index]


@cache
def _emissivity_table() -> np.ndarray:
    """Emissivity by surface and cosine, flat."""
    table = material_arrays()
    normal = 1.0 - table.emissivity.astype(np.float64)[:, None]
    refractive = (1.0 + np.sqrt(normal)) / (1.0 - np.sqrt(normal))
    cos_in = np.linspace(0.0, 1.0, _COSINES)
    cos_out = np.sqrt(1.0 - (1.0 - cos_in**2) / refractive**2)
    across = ((cos_in - refractive * cos_out) / (cos_in + refractive * cos_out)) ** 2
    along = ((refractive * cos_in - cos_out) / (refractive * cos_in + cos_out)) ** 2
    smooth = 0.15 + 0.85 * table.mirror.astype(np.float64)[:, None]
    return (1.0 - normal - smooth * (0.5 * (across + along) - normal)).astype(np.float32).ravel()


@cache
def _forward() -> tuple[np.ndarray, np.ndarray]:
    temperatures = np.arange(*TEMPERATURE_RANGE_K, _STEP_K)
    values = exact_radiance(np.append(temperatures, TEMPERATURE_RANGE_K[1]))
    return values.astype(np.float32), np.append(np.diff(values), 0.0).astype(np.float32)


@cache
def _inverse() -> tuple[np.ndarray, np.ndarray, np.float32]:
    first, last = np.sqrt(exact_radiance(np.array(TEMPERATURE_RANGE_K)))
    roots = first + np.arange(int((last - first) / _INVERSE_STEP) + 2) * _INVERSE_STEP
    temperatures = np.linspace(*TEMPERATURE_RANGE_K, 1701)
    temperatures = np.append(temperatures, 2 * temperatures[-1] - temperatures[-2])
    values = np.interp(roots, np.sqrt(exact_radiance(temperatures)), temperatures)
    for _ in range(2):  # Newton on the series
        slope = (exact_radiance(values + 0.01) - exact_radiance(values - 0.01)) / 0.02
        values = values - (exact_radiance(values) - roots**2) / slope
    return values.astype(np.float32), np.append(np.diff(values), 0.0).astype(np.float32), np.float32(first)
