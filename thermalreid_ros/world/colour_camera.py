"""The colour camera: from linear scene radiance to the 8-bit sRGB picture of a small daylight camera.

Images of the scene are float32 (H, W, 3), linear sRGB radiance in the units of world.daylight: a white sheet under an
irradiance of 1 has 1 / pi. A frame follows from the seed and the time stamp alone; exposure and white balance are set
anew for each picture. Motion blur is left out: in daylight such cameras expose for less than a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.world.sensor import SensorError, gaussian_kernel

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_STEPS = 4096  # of the tone curve's table


@dataclass(frozen=True)
class ColourCameraParameters:
    """A camera that exposes and balances itself.

    psf_sigma_px: optics and pixel aperture, Gaussian. vignetting: share of the cos^4 fall-off left uncorrected.
    middle_grey: level that the mean luminance of the scene is exposed to, of white = 1. max_exposure: longest
    exposure, the gain from scene units that it gives; max_amplification: further gain at the price of noise;
    a scene that needs more stays dark (a road under 12 lux of street lamps is still seen, fields are not).
    full_well: electrons at white without amplification, read_noise: electrons, both for the some 20 pixels of the
    sensor that make one of the picture.
    balance: 0 leaves colours as daylight shows them, 1 makes the mean of the scene grey.
    saturation: of the picture's colours, 1 is the scene's.
    """

    psf_sigma_px: float = 0.6
    vignetting: float = 0.5
    middle_grey: float = 0.18
    max_exposure: float = 60.0
    max_amplification: float = 64.0
    full_well: float = 60000.0
    read_noise: float = 10.0
    balance: float = 0.5
    saturation: float = 1.0

    def varied(self, rng: np.random.Generator) -> ColourCameraParameters:
        """Another camera or another setting of it."""
        return replace(self, psf_sigma_px=rng.uniform(0.4, 1.0), vignetting=rng.uniform(0.2, 0.8),
                       middle_grey=0.18 * 2.0 ** rng.uniform(-0.6, 0.5), full_well=rng.uniform(20000.0, 100000.0),
                       read_noise=rng.uniform(6.0, 20.0), balance=rng.uniform(0.2, 0.8),
                       saturation=rng.uniform(0.85, 1.2))


class ColourCamera:
    """One camera."""

    def __init__(self, parameters: ColourCameraParameters, intrinsics: Intrinsics, seed: int):
        self.parameters, self.intrinsics, self.seed = parameters, intrinsics, int(seed)
        self._kernel = gaussian_kernel(parameters.psf_sigma_px)
        x = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
        y = (np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
        cos4 = (1.0 + x ** 2 + y[:, None] ** 2) ** -2.0
        self._response = (np.pi * (1.0 - parameters.vignetting * (1.0 - cos4))).astype(np.float32)[..., None]

    def capture(self, scene: np.ndarray, stamp_ns: int) -> np.ndarray:
        """The picture, uint8 (H, W, 3), RGB. SensorError when the image has not the size of the intrinsics."""
        size = (self.intrinsics.height, self.intrinsics.width)
        if scene.shape != (*size, 3):
            raise SensorError(f"an image of shape {scene.shape} does not fit a colour camera of "
                              f"{size[1]}x{size[0]} px")
        p = self.parameters
        light = cv2.sepFilter2D(np.asarray(scene, np.float32), cv2.CV_32F, self._kernel, self._kernel,
                                borderType=cv2.BORDER_REPLICATE)
        light *= self._response
        gain = self._exposure(light)
        amplification = max(gain / p.max_exposure, 1.0)
        light *= np.float32(gain)
        electrons = np.float32(p.full_well / amplification)  # at white
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, int(stamp_ns) % (1 << 64)]))
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        noise *= np.sqrt(np.maximum(light, np.float32(0)) / electrons + np.float32((p.read_noise / electrons) ** 2))
        light += noise
        balance = np.diag(self._white_balance(light))
        light = cv2.transform(light, p.saturation * balance + (1.0 - p.saturation) * (_LUMINANCE @ balance))
        # The table runs over the square root of light, as dense in the shadows as the eye wants it.
        np.clip(light, np.float32(0), np.float32(_WHITE), out=light)
        np.sqrt(light, out=light)
        light *= np.float32((_STEPS - 1) / np.sqrt(_WHITE))
        light += np.float32(0.5)
        return _TONES.take(light.astype(np.uint16))

    def _exposure(self, light: np.ndarray) -> float:
        """Gain from light (a white sheet under irradiance 1 has 1) to the picture's white: mean luminance to middle
        grey, highlights counted as four times the median at most, up to the camera's limits."""
        p = self.parameters
        luminance = cv2.transform(np.ascontiguousarray(light[::4, ::4]), _LUMINANCE[None])
        ceiling = 4.0 * max(float(np.median(luminance)), 1e-9)
        mean = float(np.minimum(luminance, ceiling).mean(dtype=np.float64))
        return min(p.middle_grey / max(mean, 1e-12), p.max_exposure * p.max_amplification)

    def _white_balance(self, light: np.ndarray) -> np.ndarray:
        """Gains per channel, float32 (3,), green unchanged; within half and double as cameras keep them."""
        mean = np.maximum(np.clip(light[::4, ::4], 0.0, 1.0).mean(axis=(0, 1), dtype=np.float64), 1e-9)
        gains = np.clip((mean[1] / mean) ** self.parameters.balance, 0.5, 2.0)
        return gains.astype(np.float32)


_WHITE = 4.0  # light that the tone curve takes to 255: two stops of highlights above white


def _tone_table() -> np.ndarray:
    light = (np.linspace(0.0, 1.0, _STEPS) * np.sqrt(_WHITE)) ** 2
    # Linear up to a knee, then a shoulder with the same slope that reaches 1 at _WHITE (Reinhard extended).
    knee = 0.6
    above = np.maximum(light - knee, 0.0) / (1.0 - knee)
    top = (_WHITE - knee) / (1.0 - knee)
    level = np.where(light < knee, light, knee + (1.0 - knee) * above * (1.0 + above / top ** 2) / (1.0 + above))
    srgb = np.where(level <= 0.0031308, 12.92 * level, 1.055 * np.maximum(level, 1e-9) ** (1 / 2.4) - 0.055)
    return np.clip(255.0 * srgb + 0.5, 0.0, 255.0).astype(np.uint8)


_TONES = _tone_table()
