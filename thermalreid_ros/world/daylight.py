"""Visible light outdoors: sun, sky, clouds, twilight, moon and street lamps, in linear sRGB.

Unit: the global horizontal irradiance of a clear sky with the sun 60 degrees up is 1 in each channel, so that a
white balance for daylight is none. One unit is about 100 000 lux. Directions are unit vectors, x east, y north,
z up. Irradiance E of a uniform radiance L is pi L; a diffuse surface of reflectance a shows L = a E / pi.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from thermalreid_ros.world.sun import air_mass

# Optical depths at the middle of the sRGB channels. Rayleigh 0.008735 um^-4.08 (Preetham et al. 1999), ozone of
# 350 Dobson units, aerosol by Angstrom's beta 0.05, alpha 1.3: clear air over land.
_WAVELENGTH_UM = np.array([0.612, 0.549, 0.465])
_RAYLEIGH = 0.008735 * _WAVELENGTH_UM ** -4.08
_OZONE = 0.35 * np.array([0.119, 0.085, 0.009])
_AEROSOL = 0.05 * _WAVELENGTH_UM ** -1.3
_LUX = 1e-5  # units of one lux
# Illuminance of the cloudless twilight sky in lux by sun elevation in degrees; after Seidelmann (ed.),
# Explanatory Supplement to the Astronomical Almanac, 1992, section 9.2.
_TWILIGHT_DEG = np.array([-18.0, -15.0, -12.0, -9.0, -6.0, -3.0, 0.0])
_TWILIGHT_LUX = np.array([6.5e-4, 1.5e-3, 8.0e-3, 0.15, 3.4, 70.0, 600.0])
_TWILIGHT_RGB = np.array([0.8, 0.97, 1.5])
_FULL_MOON_LUX = 0.25
_MOON_RGB = np.array([1.05, 1.0, 0.92])
STREET_LAMP_RGB = (12 * _LUX * np.array([1.42, 0.95, 0.46])).astype(np.float32)  # 12 lux of 3000 K on a lit road
TOWN_GLOW_RGB = (0.15 * _LUX * np.array([1.35, 0.95, 0.6])).astype(np.float32)  # sky above a town at night
_GROUND_ALBEDO = 0.16  # of the surroundings that light what does not see the sky

_TABLE = 128  # cells across the sky's disc
_ROW = 1024


@dataclass(frozen=True, eq=False)
class Daylight:
    """The light of one instant.

    sun_direction: (3,) towards the sun, also below the horizon. cloud_cover: 0..1. moonlight: share of the light
    of a high full moon, 0..1. turbidity: haze of the clear sky, 2 very clear .. 6 hazy.
    """

    sun_direction: np.ndarray
    cloud_cover: float = 0.0
    moonlight: float = 0.0
    turbidity: float = 3.0

    @property
    def sun_elevation_rad(self) -> float:
        return float(np.arcsin(np.clip(self.sun_direction[2], -1.0, 1.0)))

    @cached_property
    def sun_rgb(self) -> np.ndarray:
        """Irradiance of the sun on a surface that faces it, float32 (3,): before shadows, after clouds.

        A partly clouded sky dims the sun by its cover: the mean over the clouds that pass.
        """
        return (_clear_sun(self.sun_elevation_rad) * (1.0 - np.clip(self.cloud_cover, 0.0, 1.0))).astype(np.float32)

    @cached_property
    def sky_irradiance_rgb(self) -> np.ndarray:
        """Irradiance of the whole sky on open level ground, float32 (3,)."""
        cover = float(np.clip(self.cloud_cover, 0.0, 1.0))
        sine = max(np.sin(self.sun_elevation_rad), 0.0)
        clear_sun, clear_sky = _clear_sun(self.sun_elevation_rad) * sine, _clear_sky(self.sun_elevation_rad)
        # Kasten & Czeplak 1980: clouds pass 1 - 0.75 N^3.4 of the global irradiance.
        total = (clear_sun + clear_sky) * (1.0 - 0.75 * cover ** 3.4) - clear_sun * (1.0 - cover)
        return (np.maximum(total, (1.0 - 0.85 * cover) * clear_sky) + self._night_rgb).astype(np.float32)

    @cached_property
    def _night_rgb(self) -> np.ndarray:
        """What moon and town add to the sky, alike from everywhere: irradiance on open level ground, (3,)."""
        cover = float(np.clip(self.cloud_cover, 0.0, 1.0))
        moon = self.moonlight * _FULL_MOON_LUX * _LUX * _MOON_RGB * (1.0 - 0.7 * cover)
        return moon + TOWN_GLOW_RGB * (1.0 + 2.0 * cover)

    @property
    def horizontal_rgb(self) -> np.ndarray:
        """Irradiance of sun and sky on open level ground, float32 (3,)."""
        return self.sun_rgb * np.float32(max(np.sin(self.sun_elevation_rad), 0.0)) + self.sky_irradiance_rgb

    def sky_rgb(self, direction: np.ndarray) -> np.ndarray:
        """Radiance of the sky, without the sun's disc, in unit directions float32 (N, 3); float32 (N, 3).

        Below the horizon: the sky above the horizon there.
        """
        direction = np.asarray(direction, np.float32)
        count = len(direction)
        rows = count // _ROW + 1  # OpenCV takes neither rows beyond 32 767 nor none
        place = np.zeros((2, rows * _ROW), np.float32)
        x, y, z = (np.ascontiguousarray(axis) for axis in direction.T)
        radius = np.sqrt(np.float32(1) - np.clip(z, np.float32(0), np.float32(1)))
        radius *= np.float32(0.5 * _TABLE) / np.maximum(np.sqrt(x * x + y * y), np.float32(1e-6))
        np.multiply(x, radius, out=place[0, :count])
        np.multiply(y, radius, out=place[1, :count])
        place += np.float32(0.5 * _TABLE)
        column, row = place.reshape(2, rows, _ROW)
        return cv2.remap(self._sky_table, column, row, cv2.INTER_LINEAR).reshape(-1, 3)[:count]

    def ambient_rgb(self, normal: np.ndarray, sky_view: np.ndarray | float | None = None) -> np.ndarray:
        """Irradiance from sky and surroundings, without the direct sun, on surfaces; float32 (N, 3).

        normal: float32 (N, 3). sky_view: share of the sky in the cosine-weighted hemisphere over the surface,
        (N,): 1 for open level ground, 0.5 for an open wall; by default that of open ground, (1 + n_z) / 2.
        What is not sky is taken for surroundings in the open that reflect a sixth of the light.
        Source: Ramamoorthi & Hanrahan 2001, irradiance as a quadratic of the normal.
        """
        x, y, z = (np.ascontiguousarray(axis) for axis in np.asarray(normal, np.float32).T)
        open_view = np.float32(0.5) + np.float32(0.5) * z
        view = open_view if sky_view is None else np.broadcast_to(np.asarray(sky_view, np.float32), x.shape)
        # The harmonics hold an unobstructed sky; what hides a part of it hides light in proportion.
        share = np.minimum(view / np.maximum(open_view, np.float32(0.02)), np.float32(2))
        irradiance = np.empty((3, len(x)), np.float32)
        for (c, cx, cy, cz, cxy, cyz, cxz, cxx, czz), around, out in zip(self._sky_harmonics.T, self.surroundings_rgb,
                                                                        irradiance):
            np.multiply(x, cxx, out=out)
            out += cxy * y + cxz * z + cx
            out *= x
            out += y * (cyz * z - cxx * y + cy)
            out += z * (czz * z + cz) + c
            np.maximum(out, np.float32(0), out=out)
            out *= share
            out += around * (np.float32(1) - view)
        return np.ascontiguousarray(irradiance.T)

    @cached_property
    def surroundings_rgb(self) -> np.ndarray:
        """Irradiance on a surface that sees no sky but sunlit and shaded ground and walls, float32 (3,)."""
        return np.float32(_GROUND_ALBEDO) * self.horizontal_rgb * np.array([1.06, 1.0, 0.88], np.float32)

    @cached_property
    def _sky_table(self) -> np.ndarray:
        """Radiance over Lambert's equal-area disc of the upper hemisphere, float32 (_TABLE + 1, _TABLE + 1, 3)."""
        y, x = np.meshgrid(*2 * (np.linspace(-1.0, 1.0, _TABLE + 1),), indexing="ij")
        squared = np.minimum(x * x + y * y, 1.0)
        up = 1.0 - squared
        radius = np.sqrt(np.maximum(1.0 - up * up, 0.0)) / np.maximum(np.hypot(x, y), 1e-9)
        direction = np.stack([x * radius, y * radius, up], axis=-1).reshape(-1, 3)
        inside = (x * x + y * y <= 1.0).ravel()
        cover = float(np.clip(self.cloud_cover, 0.0, 1.0))
        clear = _perez_rgb(direction, np.asarray(self.sun_direction, np.float64), self.turbidity)
        overcast = (1.0 + 2.0 * direction[:, 2:]) / 3.0 * np.ones(3)  # CIE standard overcast sky
        cosine = np.where(inside, direction[:, 2], 0.0)
        # Cells of the disc have equal solid angle: 2 pi over their count.
        cell = 2.0 * np.pi / inside.sum()
        clear_rgb = (1.0 - cover) * _clear_sky(self.sun_elevation_rad)
        cloud_rgb = self.sky_irradiance_rgb - self._night_rgb - clear_rgb
        table = self._night_rgb / np.pi + sum(
            sky * (share / (cell * cosine @ sky)) for sky, share in ((clear, clear_rgb), (overcast, cloud_rgb)))
        return np.float32(table).reshape(_TABLE + 1, _TABLE + 1, 3)

    @cached_property
    def _sky_harmonics(self) -> np.ndarray:
        """Coefficients (9, 3) of irradiance by normal: least squares over normals, horizontal exactly."""
        count = 4096
        k = np.arange(count) + 0.5
        up, turn = k / count, k * np.pi * (3.0 - np.sqrt(5.0))  # Fibonacci lattice of equal solid angles
        flat = np.sqrt(1.0 - up * up)
        direction = np.stack([flat * np.cos(turn), flat * np.sin(turn), up], axis=1)
        radiance = self.sky_rgb(direction).astype(np.float64) * (2.0 * np.pi / count)
        low = 1.0 - 2.0 * np.arange(0.5, 300) / 300
        turn = np.arange(300) * np.pi * (3.0 - np.sqrt(5.0))
        normal = np.stack([np.sqrt(1 - low * low) * np.cos(turn), np.sqrt(1 - low * low) * np.sin(turn), low], axis=1)
        normal = np.concatenate([normal, np.tile([[0.0, 0.0, 1.0]], (60, 1))])
        irradiance = np.maximum(normal @ direction.T, 0.0) @ radiance
        x, y, z = normal.T
        basis = np.stack([np.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, z * z], axis=1)
        return np.linalg.lstsq(basis, irradiance, rcond=None)[0].astype(np.float32)


def _clear_components(elevation_rad: float) -> tuple[np.ndarray, np.ndarray]:
    """Sun on a facing surface and sky on level ground, (3,) each, per unit of extraterrestrial irradiance."""
    mass = float(air_mass(np.sin(elevation_rad)))
    scattered = 1.0 - np.exp(-mass * (_RAYLEIGH + 0.9 * _AEROSOL))
    direct = np.exp(-mass * (_RAYLEIGH + _OZONE + _AEROSOL))
    # Half of what Rayleigh scatters, and most of what aerosol does, comes down.
    down = (0.5 * _RAYLEIGH + 0.8 * 0.9 * _AEROSOL) / (_RAYLEIGH + 0.9 * _AEROSOL)
    sky = max(np.sin(elevation_rad), 0.0) * np.exp(-mass * _OZONE) * scattered * down
    return direct, sky


def _unit() -> np.ndarray:
    direct, sky = _clear_components(np.radians(60.0))
    return 1.0 / (direct * np.sin(np.radians(60.0)) + sky)


_SUN_OUTSIDE = _unit()  # extraterrestrial irradiance in this module's white


def _clear_sun(elevation_rad: float) -> np.ndarray:
    # The disc, half a degree wide, and refraction at the horizon: gone at -0.8 degrees.
    visible = np.clip((np.degrees(elevation_rad) + 0.83) / 0.53, 0.0, 1.0)
    return visible * _SUN_OUTSIDE * _clear_components(elevation_rad)[0]


def _clear_sky(elevation_rad: float) -> np.ndarray:
    lux = np.exp(np.interp(min(np.degrees(elevation_rad), 0.0), _TWILIGHT_DEG, np.log(_TWILIGHT_LUX)))
    return _SUN_OUTSIDE * _clear_components(elevation_rad)[1] + lux * _LUX * _TWILIGHT_RGB


def _perez_rgb(direction: np.ndarray, sun: np.ndarray, turbidity: float) -> np.ndarray:
    """Relative radiance of the clear sky, linear sRGB (N, 3).

    Source: Preetham, Shirley & Smits, A practical analytic model for daylight, SIGGRAPH 1999. A sun lower than
    3 degrees keeps its azimuth and counts as 3 degrees high, where the model ends.
    """
    elevation = max(np.arcsin(np.clip(sun[2], -1.0, 1.0)), np.radians(3.0))
    flat = max(np.hypot(sun[0], sun[1]), 1e-9)
    sun = np.array([sun[0] / flat * np.cos(elevation), sun[1] / flat * np.cos(elevation), np.sin(elevation)])
    t, zenith = turbidity, 0.5 * np.pi - elevation
    slope, offset = np.array([  # rows: Y, x, y; columns: A..E
        [0.1787, -0.3554, -0.0227, 0.1206, -0.0670], [-0.0193, -0.0665, -0.0004, -0.0641, -0.0033],
        [-0.0167, -0.0950, -0.0079, -0.0441, -0.0109]]), np.array([
            [-1.4630, 0.4275, 5.3251, -2.5771, 0.3703], [-0.2592, 0.0008, 0.2125, -0.8989, 0.0452],
            [-0.2608, 0.0092, 0.2102, -1.6537, 0.0529]])
    a, b, c, d, e = (slope * t + offset).T[:, :, None]
    # By the horizon the model's colours turn pink; they stop 7 degrees above it.
    cosine = np.maximum(direction[:, 2], np.array([[0.02], [0.12], [0.12]]))
    from_sun = np.clip(direction @ sun, -1.0, 1.0)
    gamma = np.arccos(from_sun)

    def perez(cosine, gamma, from_sun):
        return (1.0 + a * np.exp(b / cosine)) * (1.0 + c * np.exp(d * gamma) + e * from_sun ** 2)

    relative = perez(cosine, gamma, from_sun) / perez(1.0, zenith, np.cos(zenith))
    powers = zenith ** np.array([3, 2, 1, 0])
    x = np.array([t * t, t, 1.0]) @ np.array([[0.00166, -0.00375, 0.00209, 0.0], [-0.02903, 0.06377, -0.03202, 0.00394],
                                              [0.11693, -0.21196, 0.06052, 0.25886]]) @ powers * relative[1]
    y = np.array([t * t, t, 1.0]) @ np.array([[0.00275, -0.00610, 0.00317, 0.0], [-0.04214, 0.08970, -0.04153, 0.00516],
                                              [0.15346, -0.26756, 0.06670, 0.26688]]) @ powers * relative[2]
    luminance = np.maximum(relative[0], 0.02)
    xyz = np.stack([x / y, np.ones_like(x), (1.0 - x - y) / y]) * luminance
    rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]) @ xyz
    return np.maximum(rgb, 0.02 * luminance).T
