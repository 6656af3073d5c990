"""The results page: all that is measured, in one order, each figure with the command that gave it.

A plan is a list of steps, `thermalreid` commands that make data or measure on it. A step is done once what it makes is
there, so that a plan which was interrupted goes on, and one of whose files some were deleted makes these anew. The page
is written from the JSON files alone; what is not there is said to be missing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.localization_runs import maps_by_name
from thermalreid_ros.evaluation.reid import PAPER
from thermalreid_ros.evaluation.wording import as_text
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.classes import CLASS_NAMES as GROUNDS

PARTS = ("segmentation", "detection", "localization", "simulation", "reid", "mission")
#: Of thermal frames: their folder in a data set, and what is added to the names of results.
FRAME_KINDS = {"grey": ("thermal", ""), "radiometric": ("thermal16", "_radiometric")}
SEGMENTERS, DETECTORS = ("segmenter_compact", "geogan"), ("yolo_compact", "yolo_semantic")
#: AP50 in percent of person, car, bicycle on HIT-UAV's test split, which is not ours to measure on:
#: doi:10.1038/s41598-025-07021-6, table 6.
PUBLISHED = {"YOLOv8": (94.4, 96.5, 91.4), "YOLOv11": (91.9, 98.6, 90.1), "RT-DETR": (93.2, 98.5, 89.2),
             "LRDS-YOLO": (92.2, 98.4, 89.8)}
PAGE, PLAN = "results.md", "plan"
FLIGHT_SECONDS, FLIGHT_HZ, MISSIONS = 180, 1, 2
_RANKS = ("r1", "r5", "r10", "r15", "r20", "nauc20", "nauc")


@dataclass(frozen=True)
class Step:
    """A command of `thermalreid`. makes: the file or folder that is there once it is done. title: for people.

    within: the folder that must be there before it begins, by default the one that holds what it makes; another where
    the command makes that one itself.
    """

    part: str
    title: str
    arguments: tuple[str, ...]
    makes: Path
    within: Path | None = None

    def prepare(self) -> None:
        (self.within or self.makes.parent).mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> bool:
        return self.makes.exists()


@dataclass(frozen=True)
class ResultsPlan:
    """maps: of towns that nothing was trained on. out: everything is made there. hit_uav: folder of HIT-UAV with val/
    and annotations/, None to leave it out. images, flights, simulated, identities: how many. Raises ThermalReidError.
    """

    maps: tuple[Path, ...]
    out: Path
    hit_uav: Path | None = None
    images: int = 240
    flights: int = 20
    simulated: int = 60
    identities: int = 240
    seed: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        maps_by_name(self.maps)
        if self.hit_uav is not None and not (self.hit_uav / "annotations" / "val.json").is_file():
            raise ThermalReidError(f"{self.hit_uav}: holds no annotations/val.json; give the folder of HIT-UAV")

    def claim(self) -> None:
        """Note in the folder what its results are made with. Raises ThermalReidError where that was something else:
        what is there would be told as this plan's."""
        told = {"maps": [path.name for path in self.maps], "hit_uav": self.hit_uav is not None} | {
            name: getattr(self, name) for name in ("images", "flights", "simulated", "identities", "seed")}
        before = _read(self, PLAN) or told
        if other := [f"{name} {before.get(name)}" for name in told if before.get(name) != told[name]]:
            raise ThermalReidError(f"{self.out}: holds results of other options ({', '.join(other)}); repeat those, or "
                                   "choose another --out")
        write_atomically(self.out / f"{PLAN}.json", json.dumps(told, indent=1) + "\n")

    def steps(self, parts: Sequence[str] = PARTS) -> list[Step]:
        """In an order in which each finds what it needs. Raises ThermalReidError for a part that is none."""
        if unknown := [part for part in parts if part not in PARTS]:
            raise ThermalReidError(f"part '{unknown[0]}' is unknown; use some of {', '.join(PARTS)}")
        return [step for part in PARTS if part in parts for step in getattr(self, f"_{part}")()]

    def _segmentation(self) -> list[Step]:
        return [self._frames("segmentation"), *(
            self._measure("segmentation", f"labelling of {what} frames by {model}", f"segmentation_{model}{suffix}",
                          "evaluate", "segmentation", *self._frame_options(folder), "--model", model,
                          "--plots", str(self.out / "plots" / f"{model}{suffix}"))
            for model in SEGMENTERS for what, (folder, suffix) in FRAME_KINDS.items())]

    def _detection(self) -> list[Step]:
        steps = [self._frames("detection")]
        steps += [self._measure("detection", f"fusion in {model}", f"fusion_{model}", "evaluate", "fusion",
                                *self._frame_options(), "--map", *map(str, self.maps), "--model", model,
                                "--plots", str(self.out / "plots")) for model in DETECTORS]
        if self.hit_uav is not None:
            steps += [self._measure("detection", f"{model} on HIT-UAV val", f"hit_uav_{model}", "evaluate", "detection",
                                    "--images", str(self.hit_uav / "val"), "--annotations",
                                    str(self.hit_uav / "annotations" / "val.json"), "--model", model)
                      for model in DETECTORS]
        return steps

    def _localization(self) -> list[Step]:
        bags = [self.bag(number) for number in range(self.flights)]
        return [*(self._flight("localization", number) for number in range(self.flights)), *(
            self._measure("localization", f"flights labelled by {model}", f"localization_{model}", "evaluate",
                          "localization", "--bag", *map(str, bags), "--map", *map(str, self.maps), "--prior-error",
                          "300", "--model", model, *(("--plots", str(self.out / "plots" / "flights")) if first else
                                                     ("--single-frame-every", "0")))
            for first, model in zip((True, False), SEGMENTERS))]

    def _simulation(self) -> list[Step]:
        return [self._measure("simulation", "simulated flights", "simulated", "evaluate", "localization-simulated",
                              "--map", *map(str, self.maps), "--flights", str(self.simulated), "--rate", "1",
                              "--seed", str(self.seed))]

    def _reid(self) -> list[Step]:
        each = max(self.identities // len(self.maps), 4)
        sets = [self.out / "reid" / path.stem for path in self.maps]
        made = [Step("reid", f"identities of {path.stem}", (
            "world", "reid-set", "--map", str(path), "--seed", str(self.seed + number), "--identities", str(each),
            "--probes", "2", "--gallery", "6", "--out", str(folder), *self._workers()), folder / "index.json",
            folder.parent)
                for number, (path, folder) in enumerate(zip(self.maps, sets))]
        return [*made, self._measure("reid", "re-identification", "reid", "evaluate", "reid", *(
            part for folder in sets for part in ("--set", str(folder))), "--track", "3", "--plots",
            str(self.out / "plots"))]

    def _mission(self) -> list[Step]:
        numbers = range(min(MISSIONS, self.flights))
        return [*(self._flight("mission", number) for number in numbers), *(
            self._measure("mission", f"the four nodes on flight {number}", f"mission_{number}", "replay",
                          str(self.bag(number)), "--map", str(self._map_of(number)), "--probe",
                          str(self.bag(number).parent / "probes" / "view_1.png"), "--semantics", "map")
            for number in numbers), self._measure(
                "mission", "places of detected objects", "target", "evaluate", "target", "--bag",
                *(str(self.bag(number)) for number in numbers), "--map", *map(str, self.maps))]

    def bag(self, number: int) -> Path:
        """The recording of a flight; every second one is by night."""
        return self.out / "flights" / f"{number:02d}_{'night' if number % 2 else 'day'}" / "bag"

    def _map_of(self, number: int) -> Path:
        return self.maps[number // 2 % len(self.maps)]

    def _flight(self, part: str, number: int) -> Step:
        bag = self.bag(number)
        return Step(part, f"flight {number}", (
            "world", "fly", "--map", str(self._map_of(number)), "--seed", str(100 * self.seed + number), "--seconds",
            str(FLIGHT_SECONDS), "--rate", str(FLIGHT_HZ), "--probes", "1", "--out", str(bag),
            *(("--night",) if number % 2 else ()), *self._workers()), bag)

    def _frames(self, part: str) -> Step:
        folder = self.out / "frames"
        return Step(part, "frames", (
            "world", "dataset", "--map", *map(str, self.maps), "--images", str(self.images), "--val-share", "0.9",
            "--seed", str(self.seed), "--session-size", "6", "--no-colour", "--thermal16", "--out", str(folder),
            *self._workers()), folder / "annotations", folder.parent)

    def _frame_options(self, kind: str = "thermal") -> tuple[str, ...]:
        folder = self.out / "frames"
        return "--images", str(folder / "images" / kind), "--annotations", str(folder / "annotations" / "val.json")

    def _workers(self) -> tuple[str, ...]:
        return ("--workers", str(self.workers)) if self.workers else ()

    def _measure(self, part: str, title: str, name: str, *arguments: str) -> Step:
        path = self.out / f"{name}.json"
        return Step(part, title, (*arguments, "--json", str(path)), path)

    def shown(self, step: Step) -> str:
        """The command as it may be published: files by name, those made on the way by their place in `out`."""
        parts = []
        for argument in step.arguments:
            path = Path(argument)
            if path.is_absolute() or len(path.parts) > 1:
                own = path.absolute().is_relative_to(self.out.absolute())
                argument = str(path.absolute().relative_to(self.out.absolute())) if own else path.name
            parts.append(argument)
        return shlex.join(["thermalreid", *parts])


def write_results(plan: ResultsPlan, machine: str) -> Path:
    """Write the page from what is there; returns its path. machine: what it was measured on, in words."""
    lines = ["# Results", "",
             f"Made by `thermalreid evaluate all` over {', '.join(path.stem for path in plan.maps)}, seed {plan.seed}, "
             f"on {machine}. Every figure stands above the command that gave it; a dash is what was not measured.", ""]
    for title, write in (("Labelling of the ground", _segmentation), ("Detection and fusion", _detection),
                         ("Localization", _localization), ("Re-identification", _reid), ("The mission", _mission)):
        lines += [f"## {title}", "", *write(plan), ""]
    return write_atomically(plan.out / PAGE, "\n".join(lines).rstrip() + "\n")


def _segmentation(plan: ResultsPlan) -> list[str]:
    rows = []
    for model, (what, (_, suffix)) in product(SEGMENTERS, FRAME_KINDS.items()):
        found = _read(plan, f"segmentation_{model}{suffix}")
        rows.append([f"{model}, {what} frames", *(_at(found, "iou", name) for name in GROUNDS), _at(found, "miou"),
                     _at(found, "day", "miou"), _at(found, "night", "miou")])
    return [*_table(["IoU", *GROUNDS, "mean", "by day", "by night"], rows), *_commands(plan, "segmentation")]


def _detection(plan: ResultsPlan) -> list[str]:
    lines = []
    for model in DETECTORS:
        labellings = _at(_read(plan, f"fusion_{model}"), "labellings") or {}
        lines += _table([f"AP50 of {model}, labelling", "right", *CLASS_NAMES, "mean", "gain, points", "mean IoU"], [
            [name, row["agreement"], *(row["ap50"].get(kind) for kind in CLASS_NAMES), row["map50"],
             _gain(row), row["mean_iou"]] for name, row in labellings.items()])
        lines += _picture(plan, f"fusion_{model}.png", f"AP50 of {model} by labelling")
    kinds = ("person", "car", "bicycle")
    ours = [(model, _read(plan, f"hit_uav_{model}")) for model in DETECTORS]
    lines += _table(["HIT-UAV, AP50 in percent", *kinds, "mean"], [
        *([f"{model}, val split", *(_percent(_at(found, "ap50", kind)) for kind in kinds),
           _percent(_at(found, "map50"))] for model, found in ours),
        *([f"{name}, test split, as published", *values, sum(values) / 3] for name, values in PUBLISHED.items())])
    return lines + _commands(plan, "detection")


def _gain(row: dict[str, Any]) -> str | None:
    """In points, with its error where there were frames enough to tell."""
    if row["gain"] is None:
        return None
    return f"{100 * row['gain']:+.2f}" + ("" if row["gain_error"] is None else f" ± {100 * row['gain_error']:.2f}")


def _localization(plan: ResultsPlan) -> list[str]:
    found = {model: _read(plan, f"localization_{model}") for model in SEGMENTERS}
    simulated = _read(plan, "simulated")
    keys = ("median_m", "p95_m", "within_25m", "fixes", "frames", "seconds_to_converge_50", "seconds_to_converge_90",
            "success_rate", "false_lock_rate", "ellipse95", "nees")
    lines = _table(["flights", "median m", "95 % m", "within 25 m", "fixes", "frames", "50 % after s", "90 % after s",
                    "success", "false locks", "ellipses", "NEES"],
                   [[name, *(_at(figures, key) for key in keys)] for name, figures in found.items()]
                   + [_simulated(ground, _at(simulated, ground)) for ground in ("varied", "uniform")])
    methods = _at(found[SEGMENTERS[0]], "single_frame", "methods") or {}
    lines += _table(["single frames", "within 10 m", "within 25 m", "median m", "accepted", "their median m"], [
        [name, *(_at(row, *keys) for keys in (("within_10m",), ("within_25m",), ("median_m",), ("accepted",),
                                              ("accepted_median_m",)))] for name, row in methods.items()])
    return lines + _commands(plan, "localization") + _commands(plan, "simulation")


def _simulated(ground: str, found: Any) -> list[Any]:
    flights = _at(found, "flights")
    false = _at(found, "false_locks") / flights if flights else None
    return [f"{flights or 'no'} simulated over {ground} ground, 15 % wrong labels", _at(found, "median_m"),
            _at(found, "p95_m"), None, None, None, _at(found, "seconds_50"), _at(found, "seconds_90"),
            _at(found, "success"), false, _at(found, "inside_95"), _at(found, "nees")]


def _reid(plan: ResultsPlan) -> list[str]:
    found = _read(plan, "reid")
    rows = [[f"{name} (LAERT, as printed)", *values, None] for name, values in PAPER.items()]
    methods = _at(found, "methods") or {}
    rows += [[name, *(None if row is None else _percent(row[key]) for key in _RANKS)]
             for name, row in (*methods.items(), ("guessing", _at(found, "guessing"))) if row is not None or methods]
    return [*_table(["percent", "r1", "r5", "r10", "r15", "r20", "nAUC@20", "nAUC"], rows),
            *_picture(plan, "reid_curves.png", "CMC by method"), *_commands(plan, "reid")]


def _mission(plan: ResultsPlan) -> list[str]:
    rows = []
    for number in range(min(MISSIONS, plan.flights)):
        found = _read(plan, f"mission_{number}")
        rows.append([plan.bag(number).parent.name, *(_at(found, *keys) for keys in (
            ("frames_in",), ("frames_detected",), ("latency_ms", "median"), ("latency_ms", "p99"), ("fix_median_m",),
            ("map50",), ("reid_r1",), ("target_median_m",)))])
    lines = _table(["flight", "frames", "detected", "latency ms", "p99", "fix m", "mAP50", "r1", "target m"], rows)
    target = _read(plan, "target")
    lines += _table(["detected objects placed by", "median m", "95 % m", "ellipses", "NEES"], [
        [kind.replace("_", " "), *(_at(of, key) for key in ("median_m", "p95_m", "ellipse95", "nees"))]
        for kind, of in (target or {}).items() if isinstance(of, dict)])
    return lines + _commands(plan, "mission")


def _commands(plan: ResultsPlan, part: str) -> list[str]:
    return ["", *(f"    {plan.shown(step)}" for step in plan.steps([part])), ""]


def _picture(plan: ResultsPlan, name: str, words: str) -> list[str]:
    return [f"![{words}](plots/{name})", ""] if (plan.out / "plots" / name).is_file() else []


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header),
            *(f"| {' | '.join(as_text(value, unknown='–') for value in row)} |" for row in rows), ""]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _at(found: Any, *keys: str) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _read(plan: ResultsPlan, name: str) -> dict[str, Any] | None:
    path = plan.out / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ThermalReidError(f"{path}: damaged; remove it and run the same command again") from None


def run_steps(steps: Sequence[Step], start: Callable[[Step], int], say: Callable[[str], object]) -> list[str]:
    """Run what is not done yet, in order; returns a line for each step that failed. start: runs one, returns its exit
    code. A step that failed keeps only those from running that need what it makes."""
    failed, seen, lost = [], set(), set()
    for number, step in enumerate(steps, 1):
        if step.done or step.makes in seen:
            continue
        seen.add(step.makes)
        say(f"[{number}/{len(steps)}] {step.part}: {step.title}")
        if any(Path(argument).is_relative_to(folder) for argument in step.arguments for folder in lost):
            failed.append(f"{step.part}, {step.title}: what it needs could not be made")
        elif code := start(step):
            failed.append(f"{step.part}, {step.title}: ended with exit code {code}")
            lost |= {Path(value) for option, value in zip(step.arguments, step.arguments[1:]) if option == "--out"}
        else:
            continue
        say(failed[-1])
    return failed
