"""`thermalreid evaluate reid`: rankings of thermal pictures for photographs, by every method, in many ways."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from thermalreid_ros.cli.arguments import not_negative, output_folder, positive, seed, share
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json

if TYPE_CHECKING:
    from thermalreid_ros.engine import Engine
    from thermalreid_ros.evaluation.reid_terms import Models, SetTerms

_Kind = TypeVar("_Kind")
EMBEDDING, LENGTH = "reid_embedding", "photograph_length"
PAPER, FLOWN = "thermalgan", "thermal_synthesis"
_KEYS = ("r1", "r5", "r10", "r15", "r20", "nauc20", "nauc")


def add_parser(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("reid", help="photographs searched among thermal pictures of other hours",
                              description="Rankings by every method on sets of thermalreid world reid-set.")
    add_set_options(parser)
    parser.add_argument("--draws", type=positive(int), default=10, help="of the gallery's pictures (default 10)")
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (default 0)")
    parser.add_argument("--track", type=positive(int), default=1, metavar="N",
                        help="measure galleries of N pictures of each identity, pooled as a track's, too")
    parser.add_argument("--told-length", type=share, metavar="ERROR", help="tell fused how long the object of each "
                        "photograph is, off by a lognormal error of this standard deviation, e.g. 0.05")
    parser.add_argument("--paper-synthesis", default=PAPER, metavar="MODEL",
                        help=f"of the row thermal_signature (default {PAPER})")
    parser.add_argument("--fusion", type=Path, metavar="YAML", help="of `thermalreid reid fit-fusion` (default: the "
                        "shipped one)")
    parser.add_argument("--pairs", type=Path, nargs="+", default=(), metavar="DIR",
                        help="sets of thermalreid world pairs, to measure the made pictures on")
    parser.add_argument("--plots", type=output_folder, metavar="DIR",
                        help="write reid_curves.png and reid_ranked.jpg there")
    add_json_option(parser)
    parser.set_defaults(part=_run)


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """--set and what the terms of its pictures are made with."""
    parser.add_argument("--set", type=Path, action="append", required=True, metavar="DIR", dest="sets",
                        help="of thermalreid world reid-set; repeatable, all make one gallery")
    parser.add_argument("--photographs", type=not_negative(int), default=0, metavar="N",
                        help="of each identity at most (default 0: all)")
    parser.add_argument("--synthesis", default=FLOWN, metavar="MODEL",
                        help=f"makes the thermal probes that are fused (default {FLOWN})")
    parser.add_argument("--embedding", default=EMBEDDING, metavar="MODEL",
                        help=f"a shipped model's name or an .onnx file; '': none (default {EMBEDDING})")
    parser.add_argument("--length-model", default=LENGTH, metavar="MODEL",
                        help=f"tells lengths by photographs, likewise (default {LENGTH})")
    parser.add_argument("--calibration", type=Path, metavar="YAML",
                        help="beta_h of Eq. (1) (default: the shipped one)")
    add_provider_options(parser)


def gather_terms(args: argparse.Namespace, synthesizers: tuple[str, ...],
                 baselines: tuple[str, ...] = ()) -> tuple[SetTerms, Models]:
    """The terms of the sets of add_set_options. synthesizers: names; the embedding is shown --synthesis."""
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.reid_sets import read_sets
    from thermalreid_ros.evaluation.reid_terms import Models, gather
    from thermalreid_ros.reid.embedding import Embedder
    from thermalreid_ros.reid.photograph_length import LengthTeller
    from thermalreid_ros.synthesis import ProbeSynthesizer

    sets = read_sets(args.sets, args.photographs)
    models = Models({name: ProbeSynthesizer(load_engine(name, **provider_options(args)))
                     for name in dict.fromkeys(synthesizers)}, args.synthesis,
                    _optional(Embedder, args.embedding, args),
                    {name: _optional(Embedder, name, args) for name in baselines},
                    _optional(LengthTeller, args.length_model, args))
    terms = gather(sets, models, progress)
    if terms.left_out:
        print(f"{len(terms.left_out)} pictures were of no use; the first: {terms.left_out[0]}")
    return terms, models


def _optional(kind: Callable[[Engine], _Kind], model: str, args: argparse.Namespace) -> _Kind | None:
    """What runs a model; None where no name is given, or one that is usually shipped was taken away."""
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.reid import BASELINES
    from thermalreid_ros.reid.loading import why_none

    return None if why_none(model, EMBEDDING, LENGTH, *BASELINES) else kind(
        load_engine(model, **provider_options(args)))


def _run(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.reid import BASELINES
    from thermalreid_ros.evaluation.reid_figures import Setup, measure
    from thermalreid_ros.evaluation.synthesis import evaluate_synthesis, sessions
    from thermalreid_ros.reid.calibration import load_beta_h
    from thermalreid_ros.reid.fusion import FusedModel

    setup = Setup(FusedModel.load(args.fusion), load_beta_h(args.calibration), args.paper_synthesis, args.synthesis,
                  args.track, args.draws, args.seed, args.told_length)
    for folder in args.pairs or ():
        sessions(folder)  # a wrong one is said now, not after all else
    terms, models = gather_terms(args, (args.paper_synthesis, args.synthesis), BASELINES)
    measured = measure(terms, setup, progress)
    figures = {"sets": [path.name for path in args.sets], **measured.figures}
    if args.pairs:
        figures["synthesis_figures"] = {name: evaluate_synthesis(synthesizer, args.pairs, progress)
                                        for name, synthesizer in models.synthesizers.items()}
    _print(figures)
    if args.plots:
        from thermalreid_ros.evaluation.reid_plots import plot_curves, plot_ranked

        plot_curves(args.plots / "reid_curves.png", measured)
        plot_ranked(args.plots / "reid_ranked.jpg", terms, measured, models.synthesizers[args.synthesis])
        print(f"plots in {args.plots}")
    write_json(args.json, figures)
    return 0


def _print(figures: dict[str, Any]) -> None:
    print(f"{figures['identities']} identities, {figures['photographs']} photographs, {figures['gallery_pictures']} "
          f"thermal pictures; {figures['draws']} draws of one picture an identity; percent, mean +- spread over draws")
    if figures["told_length"] is not None:
        print(f"fused is told how long the object is, to within {figures['told_length']:.1%}")
    elif figures["lengths_by_photograph"]:
        print(f"{figures['lengths_by_photograph']} photographs tell how long the object is")
    _print_methods(figures, f"mixed gallery of {figures['gallery_size']:.0f}", paper=True)
    same = figures["same_class"]
    _print_methods(same, f"same class, gallery of {same['gallery_size']:.0f}")
    print(table(["r1 by class of the probe", *(f"{name}, {part}" for name in same["classes"]
                                               for part in ("mixed", "same"))],
                [[method, *(_percent(part["classes"][name]["guessing" if method == "guessing" else "methods"], method)
                            for name in same["classes"] for part in (figures, same))]
                 for method in (*figures["methods"], "guessing")]))
    if "track" in figures:
        track = figures["track"]
        _print_methods(track, f"{track['pictures']} pictures an identity, pooled; mixed gallery")
        _print_methods(track["same_class"], f"{track['pictures']} pictures an identity, pooled; same class")
    print(table(["ablation", "r1", "+-", "nAUC@20", "same class r1", "+-", "nAUC"],
                [[name, *(None if row is None else round(100 * row[key], 1) for key in (
                    "r1", "r1_spread", "nauc20", "same_class_r1", "same_class_r1_spread", "same_class_nauc"))]
                 for name, row in figures["ablation"].items()]))
    open_set = figures["open_set"]
    print(table(["open set", f"detected and identified at {open_set['false_alarms']:.0%} false alarms"],
                [[name, value] for name, value in open_set["detection_and_identification"].items()]))
    shipped = open_set["shipped_threshold"]
    told = ", ".join(f"{value:.3f} where the length is told to within {float(error):.0%}"
                     for error, value in shipped["accept_probability_told"].items())
    print(f"fused, among {shipped['candidates']} candidates, accepting from probability "
          f"{shipped['accept_probability']:.3f} ({told}): "
          f"{shipped['detection_and_identification']:.3f} found, "
          f"{shipped['false_alarms']:.3f} false alarms; ECE {open_set['ece']:.3f}, of the best candidate "
          f"{open_set['ece_of_the_best']:.3f}")
    for name, parts in figures.get("synthesis_figures", {}).items():
        print(table([name, "pairs", "mean, median error K", "relative RMSE K", "SSIM"],
                    [[f"{when} instant", parts["pairs"], *(parts[when][key] for key in (
                        "mean_median_k", "relative_rmse_k", "ssim"))] for when in ("first", "second")]))
    for name, reason in figures["missing"].items():
        print(f"{name}: not measured, {reason}")


def _print_methods(figures: dict[str, Any], title: str, paper: bool = False) -> None:
    from thermalreid_ros.evaluation.reid import PAPER as PRINTED

    rows = [[f"{name} (LAERT, as printed)", *(f"{value:.2f}" for value in values), "-"]
            for name, values in PRINTED.items()] if paper else []
    for name, row in [*figures["methods"].items(), ("guessing", figures["guessing"])]:
        spread = figures["spread"].get(name)
        rows.append([name, *("-" if row is None else f"{100 * row[key]:.2f}" + (
            f" +- {100 * spread[key]:.2f}" if spread and key in ("r1", "nauc20") else "") for key in _KEYS)])
    print(table([title, "r1", "r5", "r10", "r15", "r20", "nAUC@20", "nAUC"], rows))


def _percent(row: dict[str, Any], method: str) -> float | None:
    values = row if method == "guessing" else row[method]
    return None if values is None else round(100 * values["r1"], 1)
