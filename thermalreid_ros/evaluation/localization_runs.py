"""Several recorded flights one after the other: the filter, single frames by each method, figures and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.flight_input import Flight
from thermalreid_ros.evaluation.localization import (FlightRun, PredictedLabels, TrueLabels, flight_figures,
                                                     pooled_figures, run_filter)
from thermalreid_ros.evaluation.localization_single import SingleFrames, score_map
from thermalreid_ros.localization.localizer import Localizer, LocalizerConfig
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.ros.bag import Bag

#: Of single_frame's own keys in the JSON: the method that they are of.
SINGLE_FRAME_METHOD = "refined"


def maps_by_name(maps: Sequence[Path]) -> Callable[[Path], Path]:
    """What gives the map that a recording was flown over, of one map or those of all towns. Raises MapError, and
    ThermalReidError where names do not tell them apart, as does what is returned."""
    named = {path.name: path for path in maps}
    if len(named) < len(maps):
        raise ThermalReidError("two of the maps have the same name; recordings tell them apart by it")
    for path in maps:
        SemanticMap.open(path).close()

    def of(bag: Path) -> Path:
        if len(named) == 1:
            return maps[0]
        with Bag(bag) as opened:
            name = opened.custom.get("map", "")
        if name not in named:
            raise ThermalReidError(f"{bag}: was flown over {name or 'a map that it does not name'}, which is not "
                                   f"among the maps given: {', '.join(sorted(named))}")
        return named[name]

    return of


class LocalizationRuns:
    """maps: of all the towns. model: segmenter, None for the recordings' truth with label_errors. every: of the frames
    that are looked at by themselves, 0 for none. plots: a folder for pictures. engine_options: for load_engine.
    progress: cli.progress.progress or like it."""

    def __init__(self, maps: Sequence[Path], progress: Callable[..., Any], *, prior_error_m: float | None, seed: int,
                 model: str | None, label_errors: float = 0.0, every: int = 8, plots: Path | None = None,
                 engine_options: Mapping[str, Any] | None = None):
        options = engine_options or {}
        if label_errors and model is not None:
            raise ThermalReidError("labels can only be made wrong where they are the recording's own: give "
                                   "--semantics true with --label-errors")
        self._map_of = maps_by_name(maps)
        self._prior_error_m, self._seed, self._label_errors = prior_error_m, seed, label_errors
        self._every, self._plots, self._progress = every, plots, progress
        self._engine = None if model is None else load_engine(model, **options)
        self._segmenter = None if self._engine is None else Segmenter(self._engine)
        self.runs: list[FlightRun] = []
        self.single = SingleFrames(seed, options, progress) if every else None

    def add(self, bag: Path) -> FlightRun:
        """Run one recording."""
        with SemanticMap.open(self._map_of(bag)) as semantic_map, Flight(
                bag, semantic_map, prior_error_m=self._prior_error_m, seed=self._seed) as flight:
            labelling = TrueLabels(flight, self._label_errors, self._seed) if self._segmenter is None else \
                PredictedLabels(self._segmenter, flight.units)
            localizer = Localizer(semantic_map, LocalizerConfig(seed=self._seed), labelling.confusion)
            bar = iter(self._progress(range(len(flight.stamps_ns)), description=flight.name, unit="frame"))
            run = run_filter(flight, localizer, labelling, every=self._every, frame_done=lambda: next(bar, None))
            next(bar, None)
            self.runs.append(run)
            if self.single is not None:
                self.single.add(run, semantic_map, labelling.confusion)
            if self._plots is not None:
                self._plot(run, flight, semantic_map, labelling.confusion)
        return run

    def figures(self) -> dict[str, Any]:
        """The contract of `thermalreid evaluate localization --json`: pooled_figures, single_frame (of the method
        SINGLE_FRAME_METHOD, all of them under methods) and flights."""
        if self._plots is not None and self.single is not None:
            from thermalreid_ros.evaluation.localization_plots import plot_recall

            plot_recall(self._plots / "recall.png", self.single.errors())
        return {**pooled_figures(self.runs), "single_frame": self.single and self.single.figures(SINGLE_FRAME_METHOD),
                "labels": "true" if self._engine is None else self._engine.card.name,
                "label_errors": self._label_errors if self._engine is None else None,
                "prior_error_m": self._prior_error_m, "seed": self._seed,
                "flights_each": [flight_figures(run) for run in self.runs]}

    @staticmethod
    def line(run: FlightRun) -> str:
        """A flight in one line."""
        f = flight_figures(run)
        damage = f"; {run.damage}" if run.damage else ""
        if not f["fixes"]:
            reason = next(iter(f["reasons"]), "no frames")
            return f"no fix in {f['frames']} frames: {reason}{damage}"
        return (f"{f['fixes']} fixes in {f['frames']} frames from {f['seconds_to_first_fix']:.0f} s on, median "
                f"{f['median_m']:.1f} m, 95 % {f['p95_m']:.1f} m"
                + (f", FALSE LOCK in {f['false_locks']} frames" if f["false_locks"] else "") + damage)

    @staticmethod
    def rows(figures: dict[str, Any]) -> list[list[Any]]:
        keys = ("median_m", "p95_m", "within_10m", "within_25m", "fixes", "frames", "rejected", "seconds_to_first_fix",
                "seconds_to_converge_50", "seconds_to_converge_90", "success_rate", "false_lock_rate", "nees",
                "ellipse95", "median_ms", "label_ms", "localize_ms")
        return [[key.replace("_", " "), figures[key]] for key in keys] + [
            [f"frames {verdict}", count] for verdict, count in figures["verdicts"].items()]

    def _plot(self, run: FlightRun, flight: Flight, semantic_map: SemanticMap, confusion: np.ndarray | None) -> None:
        from thermalreid_ros.evaluation import localization_plots as plots

        plots.plot_track(self._plots / f"{run.name}_track.png", run, semantic_map)
        plots.plot_errors(self._plots / f"{run.name}_errors.png", run)
        if run.views:
            view = max(run.views[len(run.views) // 3:][:8], key=lambda view: len(np.unique(view.mask.labels)))
            score = score_map(view, semantic_map, confusion)
            plots.plot_ambiguity(self._plots / f"{run.name}_ambiguity.png", *score, next(flight.pictures(
                view.mask.stamp_ns))[1], view.mask.labels, f"{run.name}: how well one frame fits")
