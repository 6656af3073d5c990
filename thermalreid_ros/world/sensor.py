"""The thermal camera: from in-band radiance to radiometric 16-bit frames and the 8-bit grey of its gain control.

Radiance images are float32 (H, W), W m^-2 sr^-1 within 8-14 um. Frames are uint16 centikelvin of apparent
(black-body) temperature. Temperature noise is given in kelvin at 300 K and enters as radiance, so a cold scene is
noisier in kelvin, as in nature. All that is random follows from the seed and the time stamp alone: a frame taken
by a new sensor is the same whatever was taken before; only lag and the frozen frames of a shutter event look back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.camera.thermal import plateau_agc
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.world.radiometry import brightness_temperature, radiance as black_body_radiance

REFERENCE_K = 300.0  # scene temperature that noise is stated at
_KNOTS = 2  # steps of the pattern's random walk between two shutter events
_SHUTTER_AVERAGE = 8  # frames that the camera averages over its shutter


class SensorError(ThermalReidError):
    """A radiance image or parameters that no sensor can take."""


@dataclass(frozen=True)
class ThermalSensorParameters:
    """An uncooled microbolometer camera; the defaults are those of a good 640x512 core behind an f/1 lens.

    netd_k: standard deviation of temporal noise at 300 K. psf_sigma_px: of optics and pixel aperture, Gaussian.
    time_constant_s: of the bolometers, first order. vignetting: share of the light lost in the corners that the
    factory calibration leaves uncorrected, cos^4 law; the warm barrel shines in its place.
    row_pattern_k, column_pattern_k, pixel_pattern_k: fixed pattern just before a shutter event, standard deviation
    at 300 K; it grows as a random walk from the noise of the shutter picture. shutter_period_s, shutter_s: interval
    between shutter events and time for which the picture then stands still.
    dead_share: of all pixels. dead_pixels: "repaired" (mean of living neighbours), "zero" or "stuck".
    offset_k: error of the radiometric calibration.
    """

    netd_k: float = 0.045
    psf_sigma_px: float = 0.8
    time_constant_s: float = 0.010
    vignetting: float = 0.03
    housing_temperature_k: float = 308.0
    row_pattern_k: float = 0.03
    column_pattern_k: float = 0.05
    pixel_pattern_k: float = 0.05
    shutter_period_s: float = 120.0
    shutter_s: float = 0.4
    dead_share: float = 2e-4
    dead_pixels: str = "repaired"
    offset_k: float = 0.0

    def __post_init__(self):
        if self.dead_pixels not in ("repaired", "zero", "stuck"):
            raise SensorError(f"dead_pixels '{self.dead_pixels}' is unknown; use one of: repaired, zero, stuck")
        if min(self.netd_k, self.psf_sigma_px, self.dead_share, self.row_pattern_k, self.column_pattern_k,
               self.pixel_pattern_k, self.shutter_s) < 0 or min(self.time_constant_s, self.shutter_period_s) <= 0:
            raise SensorError("noise, blur, shares and durations of a thermal sensor cannot be negative, "
                              "its time constant and shutter period not zero")

    def varied(self, rng: np.random.Generator) -> ThermalSensorParameters:
        """Another camera of the same kind: NETD 30-60 mK, blur 0.5-1.3 px, lag 8-12 ms and so on. Recorded frames are
        as soft as the upper half of that: lenses lose focus in the heat and the cold."""
        return replace(
            self, netd_k=rng.uniform(0.030, 0.060), psf_sigma_px=rng.uniform(0.5, 1.3),
            time_constant_s=rng.uniform(0.008, 0.012), vignetting=rng.uniform(0.0, 0.06),
            housing_temperature_k=rng.uniform(295.0, 320.0), row_pattern_k=rng.uniform(0.01, 0.05),
            column_pattern_k=rng.uniform(0.02, 0.08), pixel_pattern_k=rng.uniform(0.02, 0.08),
            dead_share=rng.uniform(0.0, 4e-4), offset_k=rng.normal(0.0, 1.0))


class ThermalSensor:
    """One camera; captures must come in the order of their stamps for lag and shutter events to look back."""

    def __init__(self, parameters: ThermalSensorParameters, intrinsics: Intrinsics, seed: int):
        self.parameters, self.intrinsics, self.seed = parameters, intrinsics, int(seed)
        self._gain = float(black_body_radiance(np.array([REFERENCE_K + 0.5]))[0]
                           - black_body_radiance(np.array([REFERENCE_K - 0.5]))[0])  # radiance per kelvin
        self._kernel = gaussian_kernel(parameters.psf_sigma_px)
        self._pattern_event, self._pattern_knots = None, []
        self.reset()

    def reset(self) -> None:
        """Forget the frames before: the next one is a picture on its own."""
        self._stamp_ns, self._state, self._frame = None, None, None

    def capture(self, radiance: np.ndarray, stamp_ns: int,
                image_motion_px_s: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """The frame of an instant: uint16 (H, W) in centikelvin; 0 where a pixel is dead and left so.

        radiance: what the scene sends to each pixel at that instant, float32 (H, W).
        stamp_ns: time of capture. image_motion_px_s: (x, y) velocity of the picture's content across the sensor;
        the bolometers trail behind it within the frame interval.
        SensorError when the image does not have the size of the intrinsics or holds values that are no radiance.
        """
        p, size = self.parameters, (self.intrinsics.height, self.intrinsics.width)
        if radiance.shape != size:
            raise SensorError(f"a radiance image of shape {radiance.shape} does not fit a sensor of "
                              f"{size[1]}x{size[0]} px")
        _, since_s = self.shutter_event(stamp_ns)
        signal = self._optics(np.asarray(radiance, np.float32))
        if not np.isfinite(signal.sum(dtype=np.float64)):
            raise SensorError("the radiance image holds NaN or infinite values")
        signal = self._lag(signal, stamp_ns, image_motion_px_s)
        if since_s < p.shutter_s and self._frame is not None:
            return self._frame.copy()

        noise = self._rng(1, stamp_ns).standard_normal(size, dtype=np.float32)
        noise *= np.float32(p.netd_k * self._gain)
        noise += signal
        noise += self.pattern(stamp_ns)
        temperature = brightness_temperature(np.maximum(noise, np.float32(1e-3)))
        self._frame = self._dead(np.clip((temperature + p.offset_k) * 100.0 + 0.5, 1.0, 65535.0).astype(np.uint16))
        return self._frame.copy()

    def shutter_event(self, stamp_ns: int) -> tuple[int, float]:
        """Number of the last shutter event and the seconds since."""
        period_ns = int(round(self.parameters.shutter_period_s * 1e9))
        phase_ns = int(self._rng(2).integers(period_ns))
        event, since_ns = divmod(int(stamp_ns) + phase_ns, period_ns)
        return event, since_ns * 1e-9

    def pattern(self, stamp_ns: int) -> np.ndarray:
        """The fixed pattern at an instant, float32 (H, W), radiance."""
        p = self.parameters
        height, width = self.intrinsics.height, self.intrinsics.width
        event, since_s = self.shutter_event(stamp_ns)
        if event != self._pattern_event:
            rng = self._rng(3, event)
            step = np.float32(self._gain / np.sqrt(_KNOTS))
            start = rng.standard_normal((height, width), dtype=np.float32)
            start *= np.float32(p.netd_k * self._gain / np.sqrt(_SHUTTER_AVERAGE))
            knots = [start]
            for _ in range(_KNOTS):
                walk = rng.standard_normal((height, width), dtype=np.float32)
                walk *= np.float32(p.pixel_pattern_k) * step
                walk += rng.standard_normal((height, 1), dtype=np.float32) * np.float32(p.row_pattern_k) * step
                walk += rng.standard_normal((1, width), dtype=np.float32) * np.float32(p.column_pattern_k) * step
                knots.append(knots[-1] + walk)
            self._pattern_event, self._pattern_knots = event, knots
        place = min(since_s / p.shutter_period_s, 1.0) * _KNOTS
        knot = min(int(place), _KNOTS - 1)
        part = np.float32(place - knot)
        return (np.float32(1) - part) * self._pattern_knots[knot] + part * self._pattern_knots[knot + 1]

    @cached_property
    def dead_mask(self) -> np.ndarray:
        """Where pixels are dead, bool (H, W): the nearest whole number to dead_share of all."""
        size = (self.intrinsics.height, self.intrinsics.width)
        mask = np.zeros(size[0] * size[1], bool)
        mask[self._rng(4).choice(mask.size, round(self.parameters.dead_share * mask.size), replace=False)] = True
        return mask.reshape(size)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, *(value % (1 << 64) for value in key)]))

    @cached_property
    def _transmission(self) -> np.ndarray:
        k = self.intrinsics
        x = (np.arange(k.width) + 0.5 - k.cx) / k.fx
        y = (np.arange(k.height) + 0.5 - k.cy) / k.fy
        loss = 1.0 - (1.0 + x ** 2 + y[:, None] ** 2) ** -2.0  # 1 - cos^4 of the angle to the axis
        return (1.0 - self.parameters.vignetting * loss / max(loss.max(), 1e-12)).astype(np.float32)

    def _optics(self, radiance: np.ndarray) -> np.ndarray:
        signal = cv2.sepFilter2D(radiance, cv2.CV_32F, self._kernel, self._kernel, borderType=cv2.BORDER_REPLICATE)
        if self.parameters.vignetting:
            barrel = np.float32(black_body_radiance(np.array([self.parameters.housing_temperature_k]))[0])
            signal -= barrel
            signal *= self._transmission
            signal += barrel
        return signal

    def _lag(self, signal: np.ndarray, stamp_ns: int, motion_px_s: tuple[float, float]) -> np.ndarray:
        """s(t) = integral over ages a < dt of the moving picture, weighed exp(-a / tau), and what is left of s."""
        tau = self.parameters.time_constant_s
        dt = None if self._stamp_ns is None else (int(stamp_ns) - self._stamp_ns) * 1e-9
        if dt is not None and dt <= 0.0:
            raise SensorError(f"frames must come in the order of their stamps; this one is {-dt:.3f} s early; "
                              f"reset the sensor before another recording")
        longest = 6.0 * tau if dt is None else min(dt, 6.0 * tau)
        signal = smear(signal, np.asarray(motion_px_s, np.float64) * tau, longest / tau)
        if dt is not None and dt < 12.0 * tau:
            kept = np.float32(np.exp(-dt / tau))
            signal += kept * (self._state - signal)
        self._stamp_ns, self._state = int(stamp_ns), signal
        return signal

    def _dead(self, frame: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(self.dead_mask)
        if self.parameters.dead_pixels == "zero":
            frame[rows, columns] = 0
        elif self.parameters.dead_pixels == "stuck":
            frame[rows, columns] = self._rng(5).integers(20000, 45000, rows.size)
        elif rows.size:
            window = np.arange(-1, 2)
            near = (np.clip(rows[:, None, None] + window[:, None], 0, frame.shape[0] - 1),
                    np.clip(columns[:, None, None] + window, 0, frame.shape[1] - 1))
            lives = ~self.dead_mask[near]
            total = np.where(lives, frame[near], 0).sum(axis=(1, 2), dtype=np.int64)
            count = lives.sum(axis=(1, 2))
            frame[rows, columns] = np.where(count, total / np.maximum(count, 1) + 0.5, np.median(frame))
        return frame


@dataclass(frozen=True)
class GainControl:
    """How a camera turns 16-bit frames into 8-bit grey.

    mode: "plateau" (histogram equalisation, camera.thermal.plateau_agc) or "linear" (stretch between the tails).
    plateau, linear_share, tail_share: as in plateau_agc. max_gain_per_k: most grey levels per kelvin.
    denoising: grey levels that an edge-preserving (bilateral) filter takes for noise, 0 none. sharpening and
    local_contrast: gain of detail below some 2 px and 20 px, 0 none (digital detail enhancement). black_hot: hotter is
    darker.
    jpeg_quality: of a lossy link, 1..100, or 0 for none.
    """

    mode: str = "plateau"
    plateau: float = 2.0
    linear_share: float = 0.5
    tail_share: float = 1e-4
    max_gain_per_k: float = 40.0
    denoising: float = 0.0
    sharpening: float = 0.0
    local_contrast: float = 0.0
    black_hot: bool = False
    jpeg_quality: int = 0

    def __post_init__(self):
        if self.mode not in ("plateau", "linear"):
            raise SensorError(f"gain control '{self.mode}' is unknown; use one of: plateau, linear")

    def varied(self, rng: np.random.Generator) -> GainControl:
        """Another camera's settings, always white-hot."""
        return replace(self, mode=str(rng.choice(["plateau", "linear"], p=[0.7, 0.3])),
                       plateau=rng.uniform(1.5, 6.0), linear_share=rng.uniform(0.2, 0.7),
                       tail_share=float(10 ** rng.uniform(-4.0, -2.0)),
                       max_gain_per_k=float(np.exp(rng.uniform(2.5, 4.5))),
                       denoising=max(rng.uniform(-5.0, 20.0), 0.0), sharpening=max(rng.uniform(-0.3, 1.2), 0.0),
                       local_contrast=max(rng.uniform(-0.4, 0.6), 0.0),
                       jpeg_quality=int(rng.choice([0, rng.integers(60, 96)])))

    def grey(self, frame: np.ndarray) -> np.ndarray:
        """uint8 (H, W) of a centikelvin frame, uint16 (H, W)."""
        gain = self.max_gain_per_k * 0.01  # per centikelvin
        if self.mode == "plateau":
            grey = plateau_agc(frame, plateau=self.plateau, linear_share=self.linear_share,
                               tail_share=self.tail_share, max_gain=gain)
        else:
            low, high = np.quantile(frame[::2, ::2], [self.tail_share, 1.0 - self.tail_share])
            slope = min(255.0 / max(high - low, 1.0), gain)
            grey = np.clip((frame - np.float32(0.5 * (low + high))) * np.float32(slope) + np.float32(128.0), 0, 255)
            grey = grey.astype(np.uint8)
        if self.denoising:
            grey = cv2.bilateralFilter(grey, 7, self.denoising, 2.0)
        for strength, radius_px in ((self.local_contrast, 20.0), (self.sharpening, 1.5)):
            if strength:
                grey = cv2.addWeighted(grey, 1.0 + strength, _smooth(grey, radius_px), -strength, 0.0)
        if self.black_hot:
            grey = 255 - grey
        if self.jpeg_quality:
            _, coded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            grey = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
        return grey


def gaussian_kernel(sigma_px: float) -> np.ndarray:
    """Taps of a Gaussian whose variance, taken over the taps, is sigma_px squared; float32 (2 r + 1,)."""
    radius = max(int(np.ceil(4.0 * sigma_px)), 1)
    offsets = np.arange(-radius, radius + 1)

    def taps(exponent):
        weights = np.exp(-0.5 * offsets ** 2 * exponent)
        return weights / weights.sum()

    if sigma_px < 0.05:
        return (offsets == 0).astype(np.float32)
    low, high = 1e-6, 1e4  # sampling narrows or widens a small Gaussian: bisect for its exponent
    for _ in range(80):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if (taps(middle) * offsets ** 2).sum() > sigma_px ** 2 else (low, middle)
    return taps(middle).astype(np.float32)


def _smooth(grey: np.ndarray, radius_px: float) -> np.ndarray:
    """Gaussian average, uint8; a wide one by way of a smaller picture."""
    step = max(int(radius_px / 4.0), 1)
    if step == 1:
        return cv2.GaussianBlur(grey, (0, 0), radius_px)
    height, width = grey.shape
    small = cv2.resize(grey, (max(width // step, 1), max(height // step, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), radius_px / step)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def smear(image: np.ndarray, trail_px: np.ndarray, longest: float) -> np.ndarray:
    """Average of an image over its own past, weighed exp(-age) up to an age of `longest`.

    image: float32 (H, W). trail_px: (x, y) motion of its content per unit of age. The content then trails on the
    side it comes from; what came from outside repeats the border.
    """
    reach = np.abs(trail_px) * longest
    if reach.max() < 0.02:
        return image.copy()
    count = int(np.ceil(8.0 * reach.max())) + 1
    edges = np.linspace(0.0, longest, count + 1)
    weights = np.diff(-np.exp(-edges)) / -np.expm1(-longest)
    age = (edges[:-1] * np.exp(-edges[:-1]) - edges[1:] * np.exp(-edges[1:])
           + np.exp(-edges[:-1]) - np.exp(-edges[1:])) / np.diff(-np.exp(-edges))  # mean age of each step
    x, y = age * trail_px[0], age * trail_px[1]
    radius = int(np.ceil(reach.max())) + 2
    places = np.arange(-radius, radius + 1)
    # Each age falls between pixels: bicubic weights, which do not blur as bilinear ones would.
    kernel = np.einsum("a,ai,aj->ij", weights, _cubic(y[:, None] - places), _cubic(x[:, None] - places))
    # filter2D correlates: the tap at +v a reads what the present picture shows v a further on, where the pixel's
    # own past content now is.
    return cv2.filter2D(image, cv2.CV_32F, kernel.astype(np.float32), borderType=cv2.BORDER_REPLICATE)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' interpolation kernel (1981), a = -1/2."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1.0, ((2.5 - 0.5 * d) * d - 4.0) * d + 2.0
    return np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))
