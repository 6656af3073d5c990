"""Thermal signatures of objects and their distance, Eq. (1) of the ThermalReID paper.

A signature is a temperature histogram and a set of blobs (maximally stable extremal regions), both taken from
the crop that a box cuts out of a thermal frame. Distances lie in [0, 1], are symmetric, and d(x, x) = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.errors import ThermalReidError

MIN_CROP_SIDE_PX = 3

#: Side that blob positions and areas refer to: a crop is stretched so that y runs from 0 to this height; 64
#: px tell no more apart and take a third longer.
CANONICAL_HEIGHT_PX = 48
#: Outliers among blobs: a smallest distance above mean + this many standard deviations.
OUTLIER_SIGMAS = 3.5
#: Weights of position and temperature in the blob distance (Farenzena 2010).
WEIGHT_Y, WEIGHT_VALUE = 0.4, 0.6

_MAX_CANONICAL_AREA_PX = 48 * 72
_DUPLICATE_RADIUS_PX = 10.0
_DUPLICATE_AREA_RATIO = (0.6, 1.4)
# At the corners of a crop the weight falls to exp(-3): boxes are loose, their corners mostly background.
_CENTRE_WEIGHT = 1.5


class SignatureError(ThermalReidError):
    """A crop without a signature, or two signatures that cannot be compared; the message says why."""


@dataclass(frozen=True)
class ValueScale:
    """How values of one kind are binned.

    lower, upper: range of the histogram; values beyond it count in the end bins. smoothing_bins: standard
    deviation of the Gaussian that spreads each value over neighbouring bins, so that a smaller drift does not
    part two histograms. min_contrast: a crop flatter than this is not stretched further when blobs are sought.
    like: difference of values up to which two blobs may be the same.
    """

    name: str
    lower: float
    upper: float
    bins: int
    smoothing_bins: float
    min_contrast: float
    like: float


#: Temperatures in degrees Celsius, 1 K bins: -20 is frozen ground, 108 a hot engine.
CELSIUS = ValueScale("celsius", -20.0, 108.0, 128, 1.0, 1.0, 1.0)
#: Grey levels after gain control, 4 levels a bin, as the camera gave them. Subtracting the surroundings was
#: tried against the drift of the gain: no gain for persons and a loss for cars, which differ in absolute
#: grey.
GREY = ValueScale("grey", 0.0, 256.0, 64, 2.0, 8.0, 12.0)


def scale_for(units: ThermalUnits | str) -> ValueScale:
    """The scale on which `ThermalFrame.values()` of a frame in these units is measured."""
    return GREY if ThermalUnits(units) in (ThermalUnits.AGC8, ThermalUnits.COUNTS) else CELSIUS


@dataclass(frozen=True, eq=False)
class Blobs:
    """N stable regions of a crop, largest first; all arrays are float64 (N,).

    x, y: centroid in canonical pixels, y in [0, 48] downwards. area: canonical pixels². value: mean of the
    region's values, in the unit of the scale.
    """

    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class ThermalSignature:
    """histogram: float64 (scale.bins,), sums to 1. blobs: stable regions, possibly none."""

    histogram: np.ndarray
    blobs: Blobs
    scale: ValueScale


@dataclass(frozen=True)
class SignatureDistance:
    """Eq. (1) and its two terms, each in [0, 1]."""

    total: float
    histogram: float
    mser: float


def crop_box(values: np.ndarray, detection: Detection) -> np.ndarray:
    """View of `values` (H, W) under a detection's box, cut at the frame's edges.

    Raises SignatureError when the box is not finite or covers less than 3x3 px of the frame.
    """
    box = (detection.x_min, detection.y_min, detection.x_max, detection.y_max)
    if not np.isfinite(box).all():
        raise SignatureError(f"box {box} is not finite; the detection is ignored")
    height, width = values.shape
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if min(right - left, bottom - top) < MIN_CROP_SIDE_PX:
        raise SignatureError(f"box {tuple(round(float(edge), 1) for edge in box)} covers less than "
                             f"{MIN_CROP_SIDE_PX}x{MIN_CROP_SIDE_PX} px of a {width}x{height} frame")
    return values[top:bottom, left:right]


def compute_signature(values: np.ndarray, scale: ValueScale) -> ThermalSignature:
    """Signature of one crop.

    values: (h, w), float, rows downwards, in the unit of the scale.
    Raises SignatureError when the crop is smaller than 3x3 px or holds values that are not finite.
    """
    if values.ndim != 2 or min(values.shape) < MIN_CROP_SIDE_PX:
        raise SignatureError(f"a crop of shape {values.shape} is too small; it needs "
                             f"{MIN_CROP_SIDE_PX}x{MIN_CROP_SIDE_PX} px or more")
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise SignatureError("a crop holds values that are not finite; repair dead pixels first")
    return ThermalSignature(temperature_histogram(values, scale), find_blobs(values, scale), scale)


def temperature_histogram(values: np.ndarray, scale: ValueScale) -> np.ndarray:
    """Normalised histogram (scale.bins,) of a crop, pixels weighted by a Gaussian around its centre.

    The weight stands for a mask of the object: boxes of 10x20 px are too small to be segmented, and
    thresholding them (Otsu) identified fewer objects than no mask at all.
    """
    height, width = values.shape
    weight = np.multiply.outer(_centre_weight(height), _centre_weight(width))
    index = (values - scale.lower) * (scale.bins / (scale.upper - scale.lower))
    index = np.clip(index, 0, scale.bins - 1).astype(np.intp)
    histogram = np.bincount(index.ravel(), weight.ravel(), minlength=scale.bins)
    reach = int(np.ceil(3 * scale.smoothing_bins))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale.smoothing_bins) ** 2)
    histogram = np.convolve(histogram, kernel, mode="same")
    return histogram / histogram.sum()


def find_blobs(values: np.ndarray, scale: ValueScale) -> Blobs:
    """Stable regions of a crop, brighter and darker than what surrounds them, duplicates removed.

    The crop is resized to the canonical height, and its contrast stretched to the full grey range, so that
    neither the object's size in the frame nor the camera's gain decides what is found; the values of the
    regions are those of the crop. Source: Matas et al. 2002; the rule for duplicates is that of Farenzena et
    al. 2010.
    """
    height, width = values.shape
    zoom = CANONICAL_HEIGHT_PX / height
    shrink = min(1.0, float(np.sqrt(_MAX_CANONICAL_AREA_PX / (CANONICAL_HEIGHT_PX * width * zoom))))
    size = (max(8, round(width * zoom * shrink)), max(8, round(CANONICAL_HEIGHT_PX * shrink)))
    canonical = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
    lowest, highest, _, _ = cv2.minMaxLoc(canonical)
    gain = 255.0 / max(highest - lowest, scale.min_contrast)
    grey = cv2.convertScaleAbs(canonical, alpha=gain, beta=-lowest * gain)
    area = size[0] * size[1]
    # delta, min_area, max_area, max_variation, min_diversity. Diversity stays off: OpenCV's test drops the
    # whole nest of regions around a plain bright object, and with it the object; the rule for duplicates
    # thins the nest.
    regions, _ = cv2.MSER_create(5, max(4, area // 100), int(0.6 * area), 0.5, 0.0).detectRegions(grey)
    if not regions:
        return Blobs(*np.empty((4, 0)))
    pixels = np.concatenate(regions)
    count = np.array([len(region) for region in regions])
    starts = np.cumsum(count) - count
    unit = CANONICAL_HEIGHT_PX / size[1]
    centre = (np.add.reduceat(pixels, starts, axis=0) / count[:, None] + 0.5) * unit
    value = np.add.reduceat(canonical[pixels[:, 1], pixels[:, 0]].astype(np.float64), starts) / count
    order = np.argsort(-count, kind="stable")
    x, y, value, area = centre[order, 0], centre[order, 1], value[order], count[order] * (unit * unit)
    kept = _without_duplicates(x, y, value, area, scale.like)
    return Blobs(x[kept], y[kept], value[kept], area[kept])


def bhattacharyya_distance(first: np.ndarray, second: np.ndarray) -> float:
    """sqrt(1 - sum_i sqrt(h_i q_i)) of two histograms of one length, each of sum 1; in [0, 1].

    Computed as sqrt(sum_i (sqrt(h_i) - sqrt(q_i))² / 2), the same number for such histograms, without the
    cancellation that makes the first form 1e-8 instead of 0 for equal ones.
    """
    difference = np.sqrt(first) - np.sqrt(second)
    return min(1.0, float(np.sqrt(0.5 * (difference @ difference))))


def mser_distance(first: Blobs, second: Blobs) -> float:
    """Distance of two sets of blobs, in [0, 1], after the MSCR distance of Farenzena 2010 and Cheng 2011.

    For all pairs d_y = |y_a - y_b| and d_c = |T_a - T_b|. Blobs of the larger set whose smallest d_y or d_c
    exceeds mean + 3.5 sigma (sample standard deviation) of those minima are dropped; d_y and d_c are divided
    by their maxima over the rest; each blob left is matched to the nearest of the smaller set by 0.4 d_y +
    0.6 d_c, and the distance is the mean over the matches. Sets of equal size are matched both ways and
    averaged: neither is the larger, and the distance is symmetric. Two empty sets are equal (0): neither
    object shows structure. An empty set and another have nothing in common (1).
    """
    if len(first) == 0 or len(second) == 0:
        return float(len(first) != len(second))
    if len(first) == len(second):
        return 0.5 * (_match_larger(first, second) + _match_larger(second, first))
    return _match_larger(first, second) if len(first) > len(second) else _match_larger(second, first)


def check_comparable(first: ThermalSignature, second: ThermalSignature) -> None:
    """Raises SignatureError when one signature is of temperatures and the other of grey levels."""
    if first.scale != second.scale:
        raise SignatureError(f"a signature of {first.scale.name} cannot be compared with one of "
                             f"{second.scale.name}; take the probe in the camera's units")


def signature_distance(first: ThermalSignature, second: ThermalSignature, beta_h: float) -> SignatureDistance:
    """Eq. (1): beta_h * d_H + (1 - beta_h) * d_MSER.

    Raises SignatureError when one signature is of temperatures and the other of grey levels.
    """
    check_comparable(first, second)
    histogram = bhattacharyya_distance(first.histogram, second.histogram)
    mser = mser_distance(first.blobs, second.blobs)
    return SignatureDistance(beta_h * histogram + (1.0 - beta_h) * mser, histogram, mser)


def _centre_weight(length: int) -> np.ndarray:
    return np.exp(-_CENTRE_WEIGHT * ((np.arange(length) + 0.5) / length * 2.0 - 1.0) ** 2)


def _without_duplicates(x: np.ndarray, y: np.ndarray, value: np.ndarray, area: np.ndarray,
                        like: float) -> list[int]:
    """Indices of the blobs, largest first, less those that repeat one already taken."""
    low, high = _DUPLICATE_AREA_RATIO
    ratio = area[:, None] / area
    near = np.hypot(x[:, None] - x, y[:, None] - y) < _DUPLICATE_RADIUS_PX
    same = near & (ratio >= low) & (ratio <= high) & (np.abs(value[:, None] - value) <= like)
    kept, repeats = [], np.zeros(len(x), bool)
    for index in range(len(x)):
        if not repeats[index]:
            kept.append(index)
            repeats |= same[:, index]
    return kept


def _match_larger(larger: Blobs, smaller: Blobs) -> float:
    d_y = np.abs(larger.y[:, None] - smaller.y)
    d_value = np.abs(larger.value[:, None] - smaller.value)
    inlier = _inliers(d_y) & _inliers(d_value)
    total = WEIGHT_Y * _by_maximum(d_y[inlier]) + WEIGHT_VALUE * _by_maximum(d_value[inlier])
    return float(total.min(axis=1).mean())


def _inliers(distance: np.ndarray) -> np.ndarray:
    nearest = distance.min(axis=1)
    if len(nearest) < 2:
        return np.ones(1, bool)
    # The margin is for minima that are all equal: their mean may be rounded to below them.
    return nearest <= nearest.mean() * (1.0 + 1e-12) + OUTLIER_SIGMAS * nearest.std(ddof=1)


def _by_maximum(distance: np.ndarray) -> np.ndarray:
    maximum = distance.max()
    return distance / maximum if maximum > 0 else distance
