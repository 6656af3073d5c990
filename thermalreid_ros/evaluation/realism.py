"""How like real thermal frames rendered ones are: grey levels, gradients and spatial spectra, side by side.

Frames are compared in groups of altitude and of day or night, for both change the picture more than anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.pictures import save_plot

ALTITUDES_M = ((0, 75), (75, 95), (95, 115), (115, 1000))  # HIT-UAV flew at 60, 70, ... 130 m
_HIT_UAV_NAME = re.compile(r"(?P<night>[01])_(?P<altitude>\d+)_(?P<depression>\d+)_\d+_\d+\.")
_GREY_BINS = 64
_GRADIENT_EDGES = np.concatenate([[0.0], np.geomspace(0.5, 256.0, 37)])
_SPECTRUM_PX = 256


@dataclass(frozen=True)
class Statistics:
    """Means over the frames of a group. grey: share of pixels in 64 bins. gradient: share of pixels by magnitude
    (Sobel / 8, grey levels per pixel) between _GRADIENT_EDGES. spectrum: power of the frame, mean removed, by spatial
    frequency, 1 .. 128 cycles per 256 px, azimuthal mean. spread, sharpness: medians over frames of the grey levels'
    standard deviation and of the mean gradient. slope: of log power over log frequency between 4 and 64 cycles."""

    frames: int
    grey: np.ndarray
    gradient: np.ndarray
    spectrum: np.ndarray
    spread: float
    sharpness: float
    slope: float


def group_of(record: dict) -> tuple[str, str]:
    """("day" or "night", altitude band such as "75-95 m") of a COCO image record: from its altitude_m and night, or
    from a file name of HIT-UAV's."""
    if "altitude_m" in record and "night" in record:
        night, altitude_m = bool(record["night"]), record["altitude_m"]
    elif match := _HIT_UAV_NAME.match(record["file_name"]):
        night, altitude_m = match["night"] == "1", float(match["altitude"])
    else:
        raise ThermalReidError(f"{record['file_name']}: neither the record (altitude_m, night) nor the name says at "
                               "what altitude and hour it was taken")
    if not (isinstance(altitude_m, (int, float)) and 0 <= altitude_m < ALTITUDES_M[-1][1]):
        raise ThermalReidError(f"{record['file_name']}: altitude_m {altitude_m!r} is no height of up to "
                               f"{ALTITUDES_M[-1][1]} m; correct its record in the annotations")
    low, high = next(band for band in ALTITUDES_M if band[0] <= altitude_m < band[1])
    label = f"above {low} m" if high >= 1000 else f"below {high} m" if low == 0 else f"{low}-{high} m"
    return ("night" if night else "day"), label


def measure(frames: Iterable[np.ndarray]) -> Statistics:
    """Statistics of grey frames, uint8 (H, W), at least 256 px on each side."""
    grey, gradient = np.zeros(_GREY_BINS), np.zeros(len(_GRADIENT_EDGES) - 1)
    power, spreads, sharpness, count = np.zeros((_SPECTRUM_PX, _SPECTRUM_PX)), [], [], 0
    window = np.outer(np.hanning(_SPECTRUM_PX), np.hanning(_SPECTRUM_PX))
    for frame in frames:
        if min(frame.shape) < _SPECTRUM_PX:
            raise ThermalReidError(f"a frame of {frame.shape[1]}x{frame.shape[0]} px is too small to compare; "
                                   f"both sides must be at least {_SPECTRUM_PX} px")
        grey += np.bincount(frame.ravel() >> 2, minlength=_GREY_BINS) / frame.size
        magnitude = np.hypot(cv2.Sobel(frame, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(frame, cv2.CV_32F, 0, 1,
                                                                                         scale=0.125))
        gradient += np.histogram(magnitude, _GRADIENT_EDGES)[0] / frame.size
        top, left = (frame.shape[0] - _SPECTRUM_PX) // 2, (frame.shape[1] - _SPECTRUM_PX) // 2
        middle = frame[top:top + _SPECTRUM_PX, left:left + _SPECTRUM_PX].astype(np.float64)
        power += np.abs(np.fft.fft2((middle - middle.mean()) * window)) ** 2
        spreads.append(float(frame.std()))
        sharpness.append(float(magnitude.mean()))
        count += 1
    if not count:
        raise ThermalReidError("no frames to compare")
    cycles = np.fft.fftfreq(_SPECTRUM_PX, 1.0 / _SPECTRUM_PX)
    radius = np.rint(np.hypot(*np.meshgrid(cycles, cycles))).astype(int)
    spectrum = (np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel()))[1:_SPECTRUM_PX // 2 + 1]
    spectrum /= count * (window**2).sum()
    inner = np.arange(4, 65)
    slope = float(np.polyfit(np.log(inner), np.log(spectrum[inner - 1] + 1e-12), 1)[0])
    return Statistics(count, grey / count, gradient / count, spectrum, float(np.median(spreads)),
                      float(np.median(sharpness)), slope)


def compare(paths: dict[str, Sequence[Path]], records: dict[str, Sequence[dict]], per_group: int = 60,
            progress: Callable[[Iterable], Iterable] = iter) -> dict[tuple[str, str], dict[str, Statistics]]:
    """Statistics of each source in each group that both sources have. paths and records: by source, in step.

    Of each group at most per_group frames are read, spread evenly over the set.
    """
    members: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for source in paths:
        for path, record in zip(paths[source], records[source], strict=True):
            members.setdefault(group_of(record), {}).setdefault(source, []).append(path)
    common = sorted(group for group, sources in members.items() if len(sources) == len(paths))
    if not common:
        raise ThermalReidError("the sets have no altitude and time of day in common")
    return {group: {source: measure(_frames(_spread(chosen, per_group)))
                    for source, chosen in sorted(members[group].items())} for group in progress(common)}


def figures(groups: dict[tuple[str, str], dict[str, Statistics]], reference: str, other: str) -> list[dict]:
    """One row a group. grey_distance, gradient_distance: total variation between the histograms, 0 equal .. 1
    disjoint; the other columns: of the reference, then of the other."""
    rows = []
    for (light, altitude), sources in groups.items():
        a, b = sources[reference], sources[other]
        rows.append({"light": light, "altitude": altitude, "frames": [a.frames, b.frames],
                     "grey_distance": float(0.5 * np.abs(a.grey - b.grey).sum()),
                     "gradient_distance": float(0.5 * np.abs(a.gradient - b.gradient).sum()),
                     "spread": [a.spread, b.spread], "sharpness": [a.sharpness, b.sharpness],
                     "spectral_slope": [a.slope, b.slope]})
    return rows


def plot(path: Path, groups: dict[tuple[str, str], dict[str, Statistics]]) -> None:
    """Histograms, gradients and spectra of all groups, one row each, to a picture."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(groups), 3, figsize=(12, 2.6 * len(groups)), squeeze=False)
    for row, (group, sources) in zip(axes, groups.items()):
        for source, values in sources.items():
            label = f"{source} ({values.frames})"
            row[0].plot(np.arange(_GREY_BINS) * 4 + 2, values.grey, label=label)
            centres = 0.5 * (_GRADIENT_EDGES[1:] + _GRADIENT_EDGES[:-1])
            row[1].loglog(centres, values.gradient + 1e-7, label=label)
            row[2].loglog(np.arange(1, len(values.spectrum) + 1), values.spectrum, label=label)
        row[0].set_ylabel(" ".join(group))
        row[0].legend(fontsize=7)
    for axis, title in zip(axes[0], ("share of pixels by grey level", "share of pixels by gradient",
                                     "power by cycles per 256 px")):
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    save_plot(path, figure, dpi=80)
    pyplot.close(figure)


def sheet(groups: dict[str, Sequence[Path]], columns: int = 6, width_px: int = 320) -> np.ndarray:
    """Frames of each source in rows, to look at: uint8 (H, W)."""
    rows = []
    for paths in groups.values():
        frames = [cv2.resize(frame, (width_px, width_px * frame.shape[0] // frame.shape[1]),
                             interpolation=cv2.INTER_AREA) for frame in _frames(_spread(list(paths), columns))]
        rows.append(np.hstack(frames))
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 4), (0, width - row.shape[1]))) for row in rows])


def _spread(paths: list[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return paths
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]


def _frames(paths: Iterable[Path]):
    for path in paths:
        yield read_picture(path, cv2.IMREAD_GRAYSCALE)
