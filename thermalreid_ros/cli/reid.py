"""`thermalreid reid calibrate`: the weight of the two terms of Eq. (1), from annotated frames; and `fit-fusion`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from thermalreid_ros.cli import reid_fusion
from thermalreid_ros.cli.arguments import add_frame_sets, clip_range, frame_sets_command, output_file, seed


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    from thermalreid_ros.cli.output import add_json_option

    parser = subparsers.add_parser("reid", help="calibrate re-identification")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    reid_fusion.add_parser(actions)
    calibrate = actions.add_parser("calibrate", help="find the weight beta_h of the histogram term",
                                   description="The weight of the two terms of Eq. (1), from annotated frames.")
    add_frame_sets(calibrate)
    calibrate.add_argument("--clip", type=clip_range, action="append", required=True, metavar="FIRST:COUNT",
                           dest="clips", help="a clip to calibrate on, as for `recording make`; repeatable")
    calibrate.add_argument("--held-out-clip", type=clip_range, action="append", required=True,
                           metavar="FIRST:COUNT", dest="held_out", help="a clip to report on; repeatable")
    calibrate.add_argument("--min-gap", type=int, default=3,
                           help="frames between probe and gallery (default 3)")
    calibrate.add_argument("--min-gallery", type=int, default=4, help="objects in a gallery (default 4)")
    calibrate.add_argument("--draws", type=int, default=20, help="random draws of the frames (default 20)")
    calibrate.add_argument("--seed", type=seed, default=0)
    calibrate.add_argument("--steps", type=int, default=20, help="weights tried between 0 and 1 (default 20)")
    calibrate.add_argument("--out", type=output_file, required=True, metavar="YAML",
                           help="the calibration file to write")
    calibrate.add_argument("--plot", type=output_file, metavar="PNG", help="picture of CMC(1) against the weight")
    add_json_option(calibrate)


def run(args: argparse.Namespace) -> int:
    if args.action == "fit-fusion":
        return reid_fusion.run(args)
    import numpy as np
    import yaml

    from thermalreid_ros.cli.output import table, write_json
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.evaluation.recording import LICENCE
    from thermalreid_ros.evaluation.reid_tracks import best_beta_h, classes_in, evaluate
    from thermalreid_ros.files import write_atomically

    if min(args.draws, args.steps, args.min_gap, args.min_gallery) < 1:
        raise ThermalReidError("--draws, --steps, --min-gap and --min-gallery must be 1 or more")
    if both := set(args.clips) & set(args.held_out):
        raise ThermalReidError(f"clip {_text(both.pop())} is to be calibrated and reported on; give it once")
    calibration, held_out = _draws(args, args.clips), _draws(args, args.held_out)
    grid = [float(beta) for beta in np.linspace(0.0, 1.0, args.steps + 1).round(6)]
    beta_h = best_beta_h(calibration, grid)
    shown = dict.fromkeys((beta_h, 0.0, 1.0))
    results = {name: {kind: {str(beta): _figures(evaluate(draws, beta, kind)) for beta in shown}
                      for kind in classes_in(draws)}
               for name, draws in (("calibration", calibration), ("held_out", held_out))}
    document = {
        "beta_h": beta_h,
        "chosen_by": "highest nAUC on the calibration clips, mean over classes",
        "data": {"source": "HIT-UAV", "licence": LICENCE,
                 "identities": "followed through the annotations where nothing else can be meant",
                 "calibration_clips": [_text(clip) for clip in args.clips],
                 "held_out_clips": [_text(clip) for clip in args.held_out]},
        "seed": args.seed, "draws": args.draws, "min_gap_frames": args.min_gap,
        "min_gallery": args.min_gallery,
        "command": _command(args),
        "figures_by_beta_h": results,
    }
    write_atomically(args.out, yaml.safe_dump(document, sort_keys=False, width=110))
    write_json(args.json, document)
    if args.plot:
        _plot(args.plot, grid, beta_h, {"calibration": calibration, "held out": held_out})
    rows = [(name, kind, f["probes"], f["gallery_size"], f["guessing"], float(beta), f["mean"]["r1"],
             f["std"]["r1"], f["mean"]["r5"], f["mean"]["nauc20"], f["mean"]["nauc"])
            for name, kinds in results.items() for kind, betas in kinds.items() for beta, f in betas.items()]
    print(table(("clips", "class", "probes", "gallery", "guessing", "beta_h", "r1", "+-", "r5", "nAUC@20",
                 "nAUC"), rows))
    print(f"beta_h = {beta_h:g}, written to {args.out}")
    return 0


def _draws(args: argparse.Namespace, clips: list[tuple[int, int]]) -> list:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.recording import Clip, read_frames
    from thermalreid_ros.evaluation.reid_tracks import draw_trials, see

    frames = read_frames(args.images, args.annotations, [Clip(*clip) for clip in clips], rate_hz=2.0,
                         clip_gap_s=5.0)
    seen = see(frames, lambda items: progress(items, description="signatures", unit="frame"))
    return draw_trials(seen, draws=args.draws, seed=args.seed, min_gap=args.min_gap,
                       min_gallery=args.min_gallery)


def _figures(evaluation) -> dict[str, Any]:
    rounded = {name: {key: round(value, 4) for key, value in getattr(evaluation, name).as_dict().items()}
               for name in ("mean", "std")}
    return rounded | {"probes": evaluation.probes, "gallery_size": round(evaluation.gallery_size, 2),
                      "guessing": round(evaluation.guessing, 4)}


def _plot(path: Path, grid: list[float], beta_h: float, sets: dict[str, list]) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    from thermalreid_ros.detection.types import CLASS_NAMES
    from thermalreid_ros.evaluation.pictures import save_plot
    from thermalreid_ros.evaluation.reid_tracks import MIN_PROBES, classes_in, evaluate

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, (name, draws) in zip(figure.subplots(1, len(sets), sharey=True), sets.items()):
        for kind in classes_in(draws):
            results = [evaluate(draws, beta, kind) for beta in grid]
            if results[0].probes < MIN_PROBES:
                continue
            mean, std = (np.array([getattr(result, part).r1 for result in results])
                         for part in ("mean", "std"))
            color = f"C{CLASS_NAMES.index(kind)}"
            axes.plot(grid, mean, color=color,
                      label=f"{kind}: {results[0].probes:.0f} probes among {results[0].gallery_size:.0f}")
            axes.fill_between(grid, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
            axes.axhline(results[0].guessing, color=color, linestyle=":")
        axes.axvline(beta_h, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=name, xlabel="beta_h, weight of the histogram", ylim=(0, 1))
        if axes.lines[:-1]:  # the last is the chosen weight
            axes.legend(loc="lower center", fontsize=8)
    figure.axes[0].set_ylabel("CMC(1), mean ± std over draws")
    save_plot(path, figure, dpi=90)


def _text(clip: tuple[int, int]) -> str:
    return f"{clip[0]}:{clip[1]}"


def _command(args: argparse.Namespace) -> str:
    """The command as it may be published: paths of this machine reduced to their last part."""
    parts = ["thermalreid", "reid", "calibrate", *frame_sets_command(args)]
    for option, clips in (("--clip", args.clips), ("--held-out-clip", args.held_out)):
        for clip in clips:
            parts += [option, _text(clip)]
    for option in ("min_gap", "min_gallery", "draws", "seed", "steps"):
        parts += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    return shlex.join([*parts, "--out", args.out.name])
