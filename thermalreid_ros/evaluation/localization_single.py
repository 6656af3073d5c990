"""Single frames, each localized by itself, by each method, from a rough position up to 256 m away.

| method | what it does |
|---|---|
| nearest_tile | the paper's: the tile of the map closest to the labelling by the distance that MobileNetV2 learnt |
| tile_refined | refinement within 64 m of the place that the nearest tile gives |
| refined | refinement alone, within 256 m of the rough position |

A frame is accepted where refinement finds a place better than all places more than 25 m away by ACCEPT_MARGIN nats, on
the map, and shows more than one class; the paper's method cannot tell, so all its answers count as accepted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.localization import FlightRun, View, error_figures, is_uniform
from thermalreid_ros.localization.evidence import EvidenceField, evidence_table
from thermalreid_ros.localization.ground import GroundPatch, rectify, sample
from thermalreid_ros.localization.refinement import UNIFORM_SHARE, dominance, refine
from thermalreid_ros.localization.tile_search import TileSearch, describe_map
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, Tiles, TilesError

SEARCH_M = 256.0
AROUND_TILE_M = 64.0
ACCEPT_MARGIN = 3.0
TILE_MODEL = "tile_distance"
_CELL_M = 4.0  # of score maps


@dataclass(frozen=True)
class Answer:
    """What a method says of one frame: how far it is off, and how long it took."""

    error_m: float
    accepted: bool
    nees: float
    milliseconds: float
    uniform: bool


class SingleFrames:
    """Collects answers of all methods over the views of several flights. seed: of the rough positions.
    engine_options: for load_engine. progress: cli.progress.progress or like it.

    The tiles of a map are described once, by the network TILE_MODEL, in a file beside the map.
    """

    def __init__(self, seed: int, engine_options: Mapping[str, Any], progress: Callable[..., Any]):
        self._progress = progress
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 0x51]))
        self._engine = load_engine(TILE_MODEL, **engine_options)
        self.answers: dict[str, list[Answer]] = defaultdict(list)

    def add(self, run: FlightRun, semantic_map: SemanticMap, confusion: np.ndarray | None) -> None:
        """Ask all methods for all views of a flight."""
        tiles = self._tiles(semantic_map)
        for view in run.views:
            angle, radius = self._rng.uniform(0.0, 2.0 * np.pi), SEARCH_M * np.sqrt(self._rng.random())
            rough = view.true_m + radius * np.array([np.cos(angle), np.sin(angle)])
            for method, answer in self._ask(view, rough, semantic_map, tiles, confusion).items():
                self.answers[method].append(answer)

    def _tiles(self, semantic_map: SemanticMap) -> TileSearch:
        try:
            return TileSearch.open(semantic_map, self._engine)
        except TilesError:
            count = len(Tiles(semantic_map, LOCALIZATION_TILING))
            with self._progress(total=count, description=f"tiles of {semantic_map.path.name}", unit="tile") as bar:
                return TileSearch(describe_map(semantic_map, self._engine, bar.update), self._engine)

    def _ask(self, view: View, rough: np.ndarray, semantic_map: SemanticMap, tiles: TileSearch,
             confusion: np.ndarray | None) -> dict[str, Answer]:
        began = time.perf_counter()
        square = rectify(view.mask, view.intrinsics, view.rotation, view.height_m, LOCALIZATION_TILING.metres_per_pixel,
                         LOCALIZATION_TILING.size_px)
        found = tiles.search(square.labels, *(rough + square.centre_offset_m), SEARCH_M, 1)
        place = found.camera_places(square.centre_offset_m)[0] if len(found) else rough
        tile_ms, uniform = 1e3 * (time.perf_counter() - began), is_uniform(view.mask)
        error_m = float(np.hypot(*(place - view.true_m)))
        answers = {"nearest_tile": Answer(error_m, True, float("nan"), tile_ms, uniform)}
        patch = rectify(view.mask, view.intrinsics, view.rotation, view.height_m, 1.0, None)
        starts = {"tile_refined": (place, AROUND_TILE_M, tile_ms), "refined": (rough, SEARCH_M, 0.0)}
        for method, (start, radius_m, before_ms) in starts.items():
            began = time.perf_counter()
            error_m, accepted, nees = _refined(patch, view, semantic_map, start, radius_m, confusion)
            answers[method] = Answer(error_m, accepted, nees, before_ms + 1e3 * (time.perf_counter() - began), uniform)
        return answers

    def figures(self, method: str) -> dict[str, Any] | None:
        """The keys of the filter's figures for the accepted answers of one method, and under `methods` what each
        method gives; None without frames."""
        if not self.answers:
            return None
        answers = self.answers[method]
        accepted = [answer for answer in answers if answer.accepted]
        nees = [answer.nees for answer in accepted if np.isfinite(answer.nees)]
        return {
            **error_figures([answer.error_m for answer in accepted]),
            "fixes": len(accepted), "frames": len(answers), "rejected": len(answers) - len(accepted),
            "seconds_to_first_fix": None, "nees": float(np.mean(nees)) if nees else None,
            "median_ms": float(np.median([answer.milliseconds for answer in answers])),
            "method": method, "methods": {name: _method_figures(found) for name, found in self.answers.items()},
        }

    def errors(self) -> dict[str, tuple[list[float], int]]:
        """Errors and number of frames of each method, and of refinement's accepted answers, for plots."""
        found = {name.replace("_", " "): ([answer.error_m for answer in answers], len(answers))
                 for name, answers in self.answers.items()}
        accepted = [answer.error_m for answer in self.answers.get("refined", ()) if answer.accepted]
        return {**found, "refined, accepted": (accepted, len(accepted))}


def score_map(view: View, semantic_map: SemanticMap, confusion: np.ndarray | None, doubt: float = 0.2
              ) -> tuple[np.ndarray, tuple[float, float, float, float], np.ndarray, np.ndarray]:
    """How well a frame fits at places within SEARCH_M of the truth: (score in nats a point, float32 (n, n), row 0
    north; west, east, south, north; the true place; the best), as localization_plots.plot_ambiguity takes them."""
    points = sample(view.mask, view.intrinsics, view.rotation, view.height_m, 600)
    x, y = view.true_m
    field = EvidenceField(semantic_map, evidence_table(confusion, doubt), x, y, SEARCH_M + 300.0, 2.0, 3.0, 0.1)
    steps = np.arange(-SEARCH_M, SEARCH_M + 0.5 * _CELL_M, _CELL_M, dtype=np.float32)
    east, north = np.meshgrid(steps, steps[::-1])
    score = np.zeros(east.shape, np.float32)
    for (dx, dy), label in zip(points.offsets_m, points.labels):
        score += field.at(np.array(label), np.float32(x) + east + dx, np.float32(y) + north + dy)
    score /= max(len(points.labels), 1)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    half = 0.5 * _CELL_M
    extent = (x + steps[0] - half, x + steps[-1] + half, y + steps[0] - half, y + steps[-1] + half)
    return score, extent, view.true_m, np.array([x + east[row, column], y + north[row, column]])


def _refined(patch: GroundPatch, view: View, semantic_map: SemanticMap, start: np.ndarray, radius_m: float,
             confusion: np.ndarray | None) -> tuple[float, bool, float]:
    """(error, whether accepted, squared error in units of the covariance); an error without end where the frame shows
    no ground."""
    try:
        found = refine(patch, semantic_map, *start, radius_m, confusion)
    except ThermalReidError:
        return float("inf"), False, float("nan")
    error = np.array([found.x, found.y]) - view.true_m
    accepted = found.margin >= ACCEPT_MARGIN and found.mapped_share >= 0.5 and dominance(patch) <= UNIFORM_SHARE
    return float(np.hypot(*error)), bool(accepted), float(error @ np.linalg.solve(found.covariance_m2, error))


def _method_figures(answers: list[Answer]) -> dict[str, Any]:
    """Over all frames; over those that are not uniform; and over those accepted."""
    accepted = [answer.error_m for answer in answers if answer.accepted]
    plain = [answer.error_m for answer in answers if not answer.uniform]
    return {
        "frames": len(answers), **error_figures([answer.error_m for answer in answers]),
        "without_uniform": {"frames": len(plain), **error_figures(plain)},
        "accepted": len(accepted), **{f"accepted_{key}": value for key, value in error_figures(accepted).items()},
        "median_ms": float(np.median([answer.milliseconds for answer in answers])),
    }
