"""Sub-tile refinement: where on the map one labelling, laid on the ground, fits best, to metres, and how surely.

The score of a place is the mean log-likelihood of the labels under P(predicted | class on the map), for every shift at
once by Fourier transforms, for some errors of yaw and height: coarsely over the whole search area, then with the map as
it leans when seen from the best places, then finely about the best of those. Neighbouring pixels are wrong together, so
the labels count as a few independent points (`area_per_point_m2`); the covariance follows from the score so tempered.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from thermalreid_ros.localization.evidence import evidence_table
from thermalreid_ros.localization.ground import GroundPatch
from thermalreid_ros.localization.lean import seen_window
from thermalreid_ros.localization.types import Candidate, LocalizationError
from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.maps.store import SemanticMap

UNIFORM_SHARE = 0.97  # of one class: such a patch looks the same in too many places


@dataclass(frozen=True)
class RefinementSettings:
    """coarse_m, fine_m: pixels of the two stages. blur_m: of the map. doubt: see evidence_table. off_map: nats that a
    label outside of the map is worth less than on average ground. yaw_sigma_rad, scale_sigma, tilt_sigma_rad: errors to
    expect of yaw, height (as a share) and roll or pitch; yaw and height are searched to three times theirs.
    area_per_point_m2: seen ground that counts as one independent point; max_points: all of it at most. floor_m: the
    standard deviation that errors of the map leave. apart_m: from where on a place is another one. places: how many are
    looked at as seen from there; fine_places: how many of them finely."""

    coarse_m: float = 4.0
    fine_m: float = 2.0
    blur_m: float = 2.0
    doubt: float = 0.15
    off_map: float = 0.7
    yaw_sigma_rad: float = np.radians(2.0)
    scale_sigma: float = 0.02
    tilt_sigma_rad: float = np.radians(1.0)
    area_per_point_m2: float = 100.0
    max_points: float = 120.0
    floor_m: float = 1.5
    apart_m: float = 25.0
    places: int = 8
    fine_places: int = 3


@dataclass(frozen=True, eq=False)
class Refinement:
    """Where a labelling fits best. (x, y): of the camera. yaw_error_rad: by how much the attitude that the patch was
    laid out with is turned too far; scale_error: by which share its height was too large. covariance_m2: float64
    (2, 2), grid axes, of errors about this place. score: mean log-likelihood, nats a label. margin: how much better it
    is than the best place more than `apart_m` away, nats of all its independent points together; infinite where the
    area holds no other place. mapped_share: of the patch, on the map. candidates: the places that fit, best first."""

    x: float
    y: float
    yaw_error_rad: float
    scale_error: float
    covariance_m2: np.ndarray
    score: float
    margin: float
    effective_points: float
    mapped_share: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class _Place:
    """A peak of the score. x, y: of the camera."""

    score: float
    x: float
    y: float
    yaw: float
    scale: float


def dominance(patch: GroundPatch) -> float:
    """The share of the most frequent class in what a patch shows, 1 where it shows nothing. Above UNIFORM_SHARE it
    cannot be placed."""
    counts = np.bincount(patch.labels.ravel(), minlength=256)[:CLASS_COUNT]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


def refine(patch: GroundPatch, semantic_map: SemanticMap, x: float, y: float, radius_m: float,
           confusion: np.ndarray | None = None, settings: RefinementSettings | None = None) -> Refinement:
    """Look for the camera of a patch within radius_m of (x, y).

    confusion: the segmenter's P(predicted | true class), rows: true. LocalizationError where the patch shows no ground.
    """
    settings = settings or RefinementSettings()
    if not (np.isfinite([x, y]).all() and 0 < radius_m < np.inf):
        raise LocalizationError(f"no place is within {radius_m:g} m of {x:g}, {y:g}")
    if not patch.seen.any():
        raise LocalizationError("a patch that shows no ground has no place")
    table = _log_table(evidence_table(confusion, settings.doubt), settings.off_map)
    template = _Template(patch, settings)
    places = _coarse(template, semantic_map, x, y, radius_m, table, settings)
    near = (template, semantic_map, table, settings)
    places = sorted((_about(place, *near, settings.coarse_m)[0] for place in places), key=lambda place: -place.score)
    fine = sorted((_about(place, *near, settings.fine_m, (-1, -0.5, 0, 0.5, 1), (-1, 0, 1))
                   for place in places[:settings.fine_places]), key=lambda found: -found[0].score)
    best, volume = fine[0]
    places = [place for place, _ in fine] + places[settings.fine_places:]
    rivals = [place.score for place in places if np.hypot(place.x - best.x, place.y - best.y) > settings.apart_m]
    margin = best.score - max(rivals) if rivals else np.inf
    points = template.points
    shares = np.exp(points * (np.array([place.score for place in places]) - best.score))
    candidates = tuple(Candidate(place.x, place.y, place.yaw, float(share))
                       for place, share in zip(places, shares / shares.sum()))
    return Refinement(best.x, best.y, best.yaw, best.scale, _covariance(volume, template, settings), best.score,
                      float(points * margin), points, template.mapped(semantic_map, best), candidates)


class _Template:
    """A patch as weights of each class, to be turned, scaled and reduced."""

    def __init__(self, patch: GroundPatch, settings: RefinementSettings):
        seen = patch.seen
        rows, columns = np.nonzero(seen)
        self.patch = patch
        self.height_m = patch.height_m
        middle = np.array([columns.mean() + 0.5 - 0.5 * seen.shape[1], 0.5 * seen.shape[0] - 0.5 - rows.mean()])
        self.offset_m = patch.centre_offset_m + middle * patch.metres_per_pixel
        corners = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]], np.float64)
        reach = np.abs(corners - (columns.mean() + 0.5, rows.mean() + 0.5)).max() * patch.metres_per_pixel
        turned = 3.0 * max(settings.yaw_sigma_rad, settings.scale_sigma) * (reach + np.hypot(*self.offset_m))
        self._reach_m = reach + turned
        self.points = min(seen.sum() * patch.metres_per_pixel**2 / settings.area_per_point_m2, settings.max_points)
        weight = np.where(seen, patch.confidence, 0).astype(np.float32)
        if not weight.any():
            raise LocalizationError("a labelling without any confidence has no place")
        self._classes = [c for c in range(CLASS_COUNT) if (patch.labels == c).any()]
        self._weights = [np.where(patch.labels == c, weight, 0) for c in self._classes]
        self._reduced: dict[float, tuple[int, list[np.ndarray]]] = {}
        self._turned: dict[tuple[float, float, float], np.ndarray] = {}

    @property
    def classes(self) -> list[int]:
        """Those that the patch shows."""
        return self._classes

    def side_px(self, pixel_m: float) -> int:
        return 2 * int(np.ceil(self._reach_m / pixel_m)) + 1

    def at(self, yaw: float, scale: float, pixel_m: float) -> np.ndarray:
        """Weights, float32 (classes, n, n), that sum to 1, about `offset_m`, with errors of yaw and height out."""
        key = (yaw, scale, pixel_m)
        if key not in self._turned:
            self._turned[key] = self._turn(*key)
        return self._turned[key]

    def _turn(self, yaw: float, scale: float, pixel_m: float) -> np.ndarray:
        factor, channels = self._at_resolution(pixel_m)
        patch, n = self.patch, self.side_px(pixel_m)
        c, s = (1.0 + scale) * np.cos(yaw) * pixel_m, (1.0 + scale) * np.sin(yaw) * pixel_m
        # One pixel to the right is (c, s) metres of the patch as it was laid out, one down is (s, -c).
        corner = (1.0 + scale) * np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]) @ self.offset_m
        corner = corner - 0.5 * (n - 1) * np.array([c + s, s - c]) - patch.centre_offset_m
        per_pixel = 1.0 / patch.metres_per_pixel
        column = corner[0] * per_pixel + 0.5 * patch.labels.shape[1]
        row = 0.5 * patch.labels.shape[0] - corner[1] * per_pixel
        matrix = np.array([[c * per_pixel, s * per_pixel, column], [-s * per_pixel, c * per_pixel, row]]) / factor
        matrix[:, 2] -= 0.5  # OpenCV counts from the centres of pixels
        turned = np.stack([cv2.warpAffine(channel, matrix, (n, n), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
                           for channel in channels])
        return turned / turned.sum()

    def _at_resolution(self, pixel_m: float) -> tuple[int, list[np.ndarray]]:
        if pixel_m not in self._reduced:
            factor = max(1, round(pixel_m / self.patch.metres_per_pixel))
            height, width = (-(-side // factor) * factor for side in self.patch.labels.shape)
            pad = (0, height - self.patch.labels.shape[0], 0, width - self.patch.labels.shape[1])
            self._reduced[pixel_m] = factor, [
                cv2.resize(cv2.copyMakeBorder(channel, *pad, cv2.BORDER_CONSTANT, value=0),
                           (width // factor, height // factor), interpolation=cv2.INTER_AREA)
                for channel in self._weights]
        return self._reduced[pixel_m]

    def mapped(self, semantic_map: SemanticMap, place: _Place, pixel_m: float = 4.0) -> float:
        """The share of the patch that lies on the map."""
        n = self.side_px(pixel_m)
        classes = semantic_map.window(place.x + self.offset_m[0], place.y + self.offset_m[1], 0.5 * np.pi, pixel_m, n)
        return float(self.at(place.yaw, place.scale, pixel_m).sum(axis=0)[classes < CLASS_COUNT].sum())


def _log_table(table: np.ndarray, off_map: float) -> np.ndarray:
    """Log P(predicted | map class), float32 (predicted, map); the last of the map's is outside of it."""
    outside = table.mean(axis=0) * np.exp(-off_map)
    return np.log(np.vstack([table, outside])).T.astype(np.float32)


def _fields(classes: np.ndarray, chosen: list[int], log_table: np.ndarray, blur_px: float) -> list[np.ndarray]:
    """Log-likelihoods, float32 (h / 2, w / 2), of each chosen label over a window, blurred: what is narrower than
    the pixels of the score still weighs there."""
    index = np.minimum(classes, CLASS_COUNT)
    likelihood = np.exp(log_table)
    fields = []
    for c in chosen:
        field = cv2.GaussianBlur(likelihood[c].take(index), (0, 0), blur_px)
        fields.append(cv2.log(cv2.resize(field, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)))
    return fields


class _Correlator:
    """Scores of all shifts of templates over fields of log-likelihood."""

    def __init__(self, fields: list[np.ndarray]):
        self._shape = fields[0].shape
        self._size = tuple(cv2.getOptimalDFTSize(side) for side in self._shape)
        self._spectra = [cv2.dft(self._padded(field)) for field in fields]

    def scores(self, template: np.ndarray) -> np.ndarray:
        """float32 (h - n + 1, w - n + 1): the sum of template (classes, n, n) times fields, from each corner on."""
        total = None
        for channel, spectrum in zip(template, self._spectra):
            product_ = cv2.mulSpectrums(spectrum, cv2.dft(self._padded(channel)), 0, conjB=True)
            total = product_ if total is None else total + product_
        n = template.shape[1]
        found = cv2.dft(total, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
        return found[:self._shape[0] - n + 1, :self._shape[1] - n + 1]

    def _padded(self, picture: np.ndarray) -> np.ndarray:
        return cv2.copyMakeBorder(picture, 0, self._size[0] - picture.shape[0], 0, self._size[1] - picture.shape[1],
                                  cv2.BORDER_CONSTANT, value=0)


def _steps(middle: float, sigma: float, steps: tuple[float, ...]) -> list[float]:
    """Errors to try, in steps of sigma about a middle, within three sigma."""
    return sorted({float(np.clip(middle + step * sigma, -3 * sigma, 3 * sigma)) for step in steps})


def _prior(yaw: float, scale: float, settings: RefinementSettings) -> float:
    return -0.5 * ((yaw / settings.yaw_sigma_rad) ** 2 + (scale / settings.scale_sigma) ** 2)


def _coarse(template: _Template, semantic_map: SemanticMap, x: float, y: float, radius_m: float,
            log_table: np.ndarray, settings: RefinementSettings) -> list[_Place]:
    """The best places within the radius, best first, at least apart_m from each other."""
    pixel = settings.coarse_m
    reach, n = int(np.ceil(radius_m / pixel)), template.side_px(pixel)
    side = 2 * reach + n
    classes = seen_window(semantic_map, x, y, template.offset_m, template.height_m, 0.5 * pixel, (2 * side, 2 * side),
                          1.5 * pixel, same_direction=True)
    correlator = _Correlator(_fields(classes, template.classes, log_table, settings.blur_m / (0.5 * pixel)))
    errors = list(product(_steps(0.0, settings.yaw_sigma_rad, (-2, 0, 2)),
                          _steps(0.0, settings.scale_sigma, (-2, 0, 2))))
    volume = np.stack([correlator.scores(template.at(yaw, scale, pixel))
                       + np.float32(_prior(yaw, scale, settings) / template.points) for yaw, scale in errors])
    best = volume.max(axis=0)
    steps = (np.arange(2 * reach + 1) - reach) * pixel
    best[steps[:, None] ** 2 + steps**2 > max(radius_m, pixel) ** 2] = -np.inf
    places = []
    while len(places) < settings.places and np.isfinite(best).any():
        row, column = np.unravel_index(int(best.argmax()), best.shape)
        yaw, scale = errors[int(volume[:, row, column].argmax())]
        places.append(_Place(float(best[row, column]), x + steps[column], y - steps[row], yaw, scale))
        best[(steps[:, None] - steps[row]) ** 2 + (steps - steps[column]) ** 2 <= settings.apart_m ** 2] = -np.inf
    return places


def _about(near: _Place, template: _Template, semantic_map: SemanticMap, log_table: np.ndarray,
           settings: RefinementSettings, pixel: float, yaws: tuple[float, ...] = (0,),
           scales: tuple[float, ...] = (0,)) -> tuple[_Place, np.ndarray]:
    """(the best place about a coarse one, the scores there, float32 (errors, k, k)), with the map as seen from there.

    yaws, scales: further errors to try, in sigmas.
    """
    reach, n = int(np.ceil(4.0 * settings.coarse_m / pixel)), template.side_px(pixel)
    side = 2 * reach + n
    classes = seen_window(semantic_map, near.x, near.y, template.offset_m, template.height_m, 0.5 * pixel,
                          (2 * side, 2 * side), 2.0 * pixel)
    correlator = _Correlator(_fields(classes, template.classes, log_table, settings.blur_m / (0.5 * pixel)))
    errors = list(product(_steps(near.yaw, settings.yaw_sigma_rad, yaws),
                          _steps(near.scale, settings.scale_sigma, scales)))
    volume = np.stack([correlator.scores(template.at(yaw, scale, pixel))
                       + np.float32(_prior(yaw, scale, settings) / template.points) for yaw, scale in errors])
    which, row, column = np.unravel_index(int(volume.argmax()), volume.shape)
    surface = volume[which]
    down, right = _peak(surface, row, column)
    place = _Place(float(surface[row, column]), near.x + (column + right - reach) * pixel,
                   near.y - (row + down - reach) * pixel, *errors[which])
    return place, volume


def _peak(surface: np.ndarray, row: int, column: int) -> tuple[float, float]:
    """How far, in rows and columns, the top of the parabolas through a maximum lies from it; 0 at an edge."""
    shift = []
    for line, index in ((surface[:, column], row), (surface[row], column)):
        if not 0 < index < len(line) - 1:
            shift.append(0.0)
            continue
        before, here, after = (float(v) for v in line[index - 1:index + 2])
        bend = before - 2.0 * here + after
        shift.append(float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
    return shift[0], shift[1]


def _covariance(volume: np.ndarray, template: _Template, settings: RefinementSettings) -> np.ndarray:
    """Of the place, about the maximum of the scores: their spread once tempered, errors of tilt, errors of the map."""
    probability = np.exp(template.points * (volume - volume.max())).sum(axis=0).astype(np.float64)
    probability /= probability.sum()
    which, row, column = np.unravel_index(int(volume.argmax()), volume.shape)
    north = (row - np.arange(volume.shape[1])) * settings.fine_m
    east = (np.arange(volume.shape[2]) - column) * settings.fine_m
    across, down = probability.sum(axis=0), probability.sum(axis=1)
    mixed = float(north @ probability @ east)
    spread = np.array([[across @ east**2, mixed], [mixed, down @ north**2]])
    # A degree of tilt moves the ground seen at distance d by H + d^2 / H along that direction and by H across.
    distance, height = float(np.hypot(*template.offset_m)), template.height_m
    along = template.offset_m / distance if distance > 1.0 else np.array([1.0, 0.0])
    axes = np.column_stack([along, (-along[1], along[0])])
    tilt = axes @ np.diag((settings.tilt_sigma_rad * np.array([height + distance**2 / height, height])) ** 2) @ axes.T
    return spread + tilt + settings.floor_m**2 * np.eye(2)
