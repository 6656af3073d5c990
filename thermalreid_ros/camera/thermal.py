"""Thermal frames: units, temperatures in degrees Celsius and the 8-bit grey picture detectors are trained on.

Images are (H, W), rows downwards. Grey pictures are always white-hot: hotter is brighter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import cv2
import numpy as np

from thermalreid_ros.errors import ThermalReidError


class FrameError(ThermalReidError):
    """A frame that cannot be used; the message names the fault and the remedy."""


class UnitsError(FrameError):
    """A frame that is not in the units that it is said to be in."""


class ThermalUnits(str, Enum):
    """What a pixel value means."""

    CENTIKELVIN = "centikelvin"  # uint16, K x 100: FLIR Lepton and Boson TLinear, FLIR A series at 10 mK
    DECIKELVIN = "decikelvin"  # uint16, K x 10: FLIR A series at 100 mK
    OPTRIS = "optris"  # uint16, T_C = (value - 1000) / 10
    CELSIUS_F32 = "celsius_f32"  # float32, degrees Celsius
    COUNTS = "counts"  # uint16, uncalibrated detector counts, monotone in temperature
    AGC8 = "agc8"  # uint8, grey after the camera's own gain control

    @property
    def radiometric(self) -> bool:
        """Whether pixel values are temperatures."""
        return self not in (ThermalUnits.COUNTS, ThermalUnits.AGC8)


class Polarity(str, Enum):
    """How a camera that does not measure temperature shows heat."""

    WHITE_HOT = "white_hot"
    BLACK_HOT = "black_hot"


MIN_SIDE_PX = 32
# Of a whole outdoor scene: wider than any weather, yet decikelvin above -40 C read as Optris fall outside.
PLAUSIBLE_MEDIAN_C = (-60.0, 130.0)
MAX_DEAD_SHARE = 0.5

_ENCODING_DTYPES = {
    "mono8": np.uint8, "8UC1": np.uint8, "rgb8": np.uint8, "bgr8": np.uint8, "8UC3": np.uint8,
    "mono16": np.uint16, "16UC1": np.uint16,
    "32FC1": np.float32,
}
_THREE_CHANNELS = ("rgb8", "bgr8", "8UC3")
_UNIT_ENCODINGS = {
    ThermalUnits.AGC8: ("mono8", "8UC1", *_THREE_CHANNELS),
    ThermalUnits.CELSIUS_F32: ("32FC1",),
    ThermalUnits.CENTIKELVIN: ("mono16", "16UC1"),
    ThermalUnits.DECIKELVIN: ("mono16", "16UC1"),
    ThermalUnits.OPTRIS: ("mono16", "16UC1"),
    ThermalUnits.COUNTS: ("mono16", "16UC1"),
}
# T_C = (value - offset) * kelvin per count: the offset is exact in float32, so only the product rounds.
_LINEAR = {
    ThermalUnits.CENTIKELVIN: (27315.0, 0.01),
    ThermalUnits.DECIKELVIN: (2731.5, 0.1),
    ThermalUnits.OPTRIS: (1000.0, 0.1),
}
_WIDE_TABLES = int(cv2.__version__.partition(".")[0]) >= 5  # cv2.LUT takes 16 bits, in half the time of numpy
MAX_GAIN_PER_K = 40.0  # grey levels; holds 50 mK of sensor noise at 2 grey levels in a scene without contrast


@dataclass(frozen=True, eq=False)
class ThermalFrame:
    """One frame with the meaning of its numbers; build it with make_frame, which checks them.

    raw: (H, W), C-contiguous and read-only; uint8 (agc8), uint16 (centikelvin, decikelvin, optris, counts) or
    float32 (celsius_f32). Dead pixels are NaN or infinite in float32 and 0 in uint16 temperatures (absolute
    zero, or -100 C for optris).
    stamp_ns: capture time. frame_id: the camera's optical frame (REP 105).
    All pictures derived from it are computed once, shared and read-only.
    """

    raw: np.ndarray
    units: ThermalUnits
    stamp_ns: int
    frame_id: str
    polarity: Polarity = Polarity.WHITE_HOT

    @property
    def is_radiometric(self) -> bool:
        """True when pixel values are temperatures."""
        return self.units.radiometric

    @property
    def height(self) -> int:
        return self.raw.shape[0]

    @property
    def width(self) -> int:
        return self.raw.shape[1]

    def temperature_c(self) -> np.ndarray:
        """Degrees Celsius, float32 (H, W), NaN where a pixel is dead; FrameError when not radiometric."""
        return self._temperature_c

    def gray8(self) -> np.ndarray:
        """White-hot grey, uint8 (H, W): the camera's own for agc8, plateau_agc of the temperatures or counts
        otherwise; dead pixels take the mean of their living neighbours."""
        return self._gray8

    def values(self) -> np.ndarray:
        """Float32 (H, W) without NaN: degrees Celsius if radiometric, else white-hot grey levels 0..255."""
        return self._values

    @cached_property
    def _dead(self) -> np.ndarray | None:
        """Mask of the dead pixels of a radiometric frame; None, found without a mask, when all live."""
        if self.units is ThermalUnits.CELSIUS_F32:
            lives = np.isfinite(self.raw.min()) and np.isfinite(self.raw.max())
            return None if lives else ~np.isfinite(self.raw)
        return None if self.raw.all() else self.raw == 0

    @cached_property
    def _temperature_c(self) -> np.ndarray:
        if not self.is_radiometric:
            raise FrameError(f"a frame in '{self.units.value}' holds no temperatures; "
                             f"set the units parameter to what the camera measures")
        temperature_c = _celsius(self.raw, self.units)
        if self._dead is not None:
            temperature_c = np.where(self._dead, np.float32(np.nan), temperature_c)
        return _read_only(temperature_c)

    @cached_property
    def _values(self) -> np.ndarray:
        if not self.is_radiometric:
            return _read_only(self._gray8.astype(np.float32))
        if self._dead is None:
            return self._temperature_c
        return _read_only(_repair(self._temperature_c, self._dead))

    @cached_property
    def _gray8(self) -> np.ndarray:
        if self.units is ThermalUnits.AGC8:
            gray = self.raw
        elif self.units is ThermalUnits.COUNTS:
            gray = plateau_agc(self.raw)
        else:
            # In the unit's own steps: finer ones would leave empty levels between the occupied.
            offset, scale = _LINEAR.get(self.units, _LINEAR[ThermalUnits.CENTIKELVIN])
            levels = self.raw
            if self.units is ThermalUnits.CELSIUS_F32 or self._dead is not None:
                levels = np.clip(self._values / np.float32(scale) + np.float32(offset + 0.5), 0, 65535)
            gray = plateau_agc(levels.astype(np.uint16, copy=False), max_gain=MAX_GAIN_PER_K * scale)
        return _read_only(255 - gray if self.polarity is Polarity.BLACK_HOT else gray)


def make_frame(array: np.ndarray, encoding: str, units: ThermalUnits | str, stamp_ns: int, frame_id: str,
               polarity: Polarity | str = Polarity.WHITE_HOT) -> ThermalFrame:
    """Check an image and bind it to its units; the array is viewed, not copied, where it is C-contiguous.

    array: (H, W), or (H, W, 3) for grey pictures in rgb8, bgr8 or 8UC3, of the dtype that the ROS image
    encoding names, in native byte order. units, polarity: members or their names.
    Raises UnitsError when encoding and units do not fit or the median temperature is implausible, FrameError when the
    array is not what the encoding says, a side is shorter than 32 px, or more than half of the pixels are dead.
    """
    units = _member(ThermalUnits, units, "units")
    polarity = _member(Polarity, polarity, "polarity")
    if encoding not in _UNIT_ENCODINGS[units]:
        fitting = [u.value for u, encodings in _UNIT_ENCODINGS.items() if encoding in encodings]
        remedy = f"set units to one of: {', '.join(fitting)}" if fitting else \
            f"thermal images are {', '.join(_ENCODING_DTYPES)}"
        raise UnitsError(f"encoding '{encoding}' cannot hold units '{units.value}'; {remedy}")
    if polarity is Polarity.BLACK_HOT and units not in (ThermalUnits.COUNTS, ThermalUnits.AGC8):
        raise FrameError(f"polarity 'black_hot' does not fit temperatures ({units.value}); use 'white_hot'")
    dtype = np.dtype(_ENCODING_DTYPES[encoding])
    dimensions = 3 if encoding in _THREE_CHANNELS else 2
    if array.dtype != dtype or array.ndim != dimensions or (dimensions == 3 and array.shape[2] != 3):
        raise FrameError(f"an image of dtype {array.dtype} and shape {array.shape} is not '{encoding}'")
    if min(array.shape[:2]) < MIN_SIDE_PX:
        raise FrameError(f"a frame of {array.shape[1]}x{array.shape[0]} px is too small; "
                         f"both sides must be at least {MIN_SIDE_PX} px")
    if dimensions == 3:
        array = _grey_channel(array, encoding)

    frame = ThermalFrame(_read_only(np.ascontiguousarray(array)), units, int(stamp_ns), frame_id, polarity)
    if frame.is_radiometric:
        _check_temperatures(frame)
    return frame


def plateau_agc(levels: np.ndarray, *, plateau: float = 2.0, linear_share: float = 0.5,
                tail_share: float = 1e-4, max_gain: float = 1.0) -> np.ndarray:
    """Grey picture by plateau histogram equalisation, the gain control thermal cameras use themselves.

    levels: uint16 (H, W), hotter is larger. Returns uint8 (H, W), monotone in levels, unchanged when a
    constant is added to all levels.
    Each level gets a slope proportional to its share of the pixels, cut at `plateau` times the mean share so
    that a large uniform area does not take all the contrast; `linear_share` of the range is spread evenly so
    that the few hot pixels of an object keep contrast among themselves; no slope exceeds `max_gain` grey
    levels per level, and what then remains of the range is left around the median, which goes to mid-grey.
    `tail_share` of the pixels at either end is clipped: stuck pixels must not stretch the range.
    Source: V. E. Vickers, Plateau equalization algorithm for real-time display of high-quality infrared
    imagery, Optical Engineering 35(7), 1996.
    """
    counts = np.bincount(levels[::2].ravel())  # every other row tells the same of a scene in half the time
    cumulative = np.cumsum(counts)
    total = int(cumulative[-1])
    tail = int(tail_share * total)
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, total - tail, side="left"))
    median = int(np.searchsorted(cumulative, total // 2, side="right"))
    steps = high - low
    if steps <= 0:
        return np.full(levels.shape, 128, np.uint8)

    share = np.minimum(counts[low + 1:high + 1].astype(np.float64), plateau * total / steps)
    slope = 255.0 * ((1.0 - linear_share) * share / max(share.sum(), 1.0) + linear_share / steps)
    curve = np.concatenate(([0.0], np.cumsum(np.minimum(slope, max_gain))))
    spare = max(255.0 - curve[-1], 0.0)
    curve += np.clip(127.5 - curve[median - low], 0.0, spare)

    table = np.empty(65536, np.uint8)
    table[low:high + 1] = np.clip(curve + 0.5, 0.0, 255.0)
    table[:low] = table[low]
    table[high + 1:] = table[high]
    return cv2.LUT(levels, table) if _WIDE_TABLES else np.take(table, levels)


def _member(kind: type[Enum], value, name: str):
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(member.value for member in kind)
        raise FrameError(f"{name} '{value}' is unknown; use one of: {names}") from None


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _grey_channel(array: np.ndarray, encoding: str) -> np.ndarray:
    sample = array[::8, ::8].astype(np.int16)
    # Lossy compression moves channels apart by a few levels, a palette by far more.
    if np.ptp(sample, axis=2).max() > 16:
        raise FrameError(f"a colour picture in '{encoding}' is no thermal frame; switch the camera from its "
                         f"false-colour palette to white-hot grey")
    return array[..., 1]


def _celsius(raw: np.ndarray, units: ThermalUnits) -> np.ndarray:
    if units is ThermalUnits.CELSIUS_F32:
        return raw
    offset, scale = _LINEAR[units]
    celsius = np.subtract(raw, np.float32(offset), dtype=np.float32)
    celsius *= np.float32(scale)
    return celsius


def _check_temperatures(frame: ThermalFrame) -> None:
    dead, sample = frame._dead, frame.raw[::8, ::8]
    if dead is not None:
        if (share := dead.mean()) > MAX_DEAD_SHARE:
            raise FrameError(f"{share:.0%} of the pixels hold no temperature (NaN or 0); "
                             f"check the camera and the units '{frame.units.value}'")
        sample = frame.raw[~dead][::16]
    median_c = float(np.median(_celsius(sample, frame.units)))
    low_c, high_c = PLAUSIBLE_MEDIAN_C
    if not low_c <= median_c <= high_c:
        raise UnitsError(f"units are probably wrong: a median of {median_c:.1f} C as '{frame.units.value}'"
                         + _fitting_units(sample, frame.units))


def _fitting_units(sample: np.ndarray, units: ThermalUnits) -> str:
    if units is ThermalUnits.CELSIUS_F32:
        return "; convert the camera's values to degrees Celsius"
    low_c, high_c = PLAUSIBLE_MEDIAN_C
    fitting = [other.value for other in _LINEAR if low_c <= np.median(_celsius(sample, other)) <= high_c]
    return f"; the values would fit {' or '.join(fitting) or 'counts'}"


def _repair(values: np.ndarray, dead: np.ndarray, radius_px: int = 2) -> np.ndarray:
    """Give dead pixels the mean of the living within radius_px, or else the frame's median."""
    rows, columns = np.nonzero(dead)
    padded = np.pad(values, radius_px, constant_values=np.nan)
    offsets = np.arange(2 * radius_px + 1)
    around = padded[rows[:, None, None] + offsets[:, None], columns[:, None, None] + offsets]
    lives = ~np.isnan(around)
    count = lives.sum(axis=(1, 2))
    mean = np.where(lives, around, 0.0).sum(axis=(1, 2), dtype=np.float64) / np.maximum(count, 1)
    if not count.all():
        mean[count == 0] = np.median(values[~dead])
    repaired = values.copy()
    repaired[rows, columns] = mean
    return repaired
