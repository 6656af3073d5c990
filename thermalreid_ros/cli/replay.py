"""`thermalreid replay BAG`: the nodes as processes of their own, on a recording, without `launch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from thermalreid_ros.cli import arguments
from thermalreid_ros.cli.output import add_json_option, table, write_json
from thermalreid_ros.reid.length import USUAL_ERROR

PLACE_KEYS = ("fix_median_m", "within_25m", "false_fixes", "fixes", "rejected", "seconds_to_first_fix", "targets",
              "target_median_m", "target_right", "target_ellipse95")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("replay", help="run the nodes on a recording", description=__doc__)
    parser.add_argument("bag", type=Path, metavar="BAG", help="a rosbag2 folder, or one .mcap or .db3 file")
    parser.add_argument("--probe", type=Path, metavar="IMAGE",
                        help="thermal crop or colour photograph of the object to be found")
    parser.add_argument("--probe-class", default="", choices=("", "car", "person", "bicycle", "dog"), metavar="CLASS",
                        help="its class; by default what a probe.json beside the photograph says, else any")
    parser.add_argument("--probe-length", type=float, default=0.0, metavar="M", help="its longest side in metres, "
                        "where that is known: the ranking fused then goes by the size of what is seen, too")
    parser.add_argument("--probe-length-error", type=float, default=USUAL_ERROR, metavar="SHARE",
                        help=f"by which that may be off, a standard deviation (default {USUAL_ERROR:g})")
    parser.add_argument("--map", type=Path, metavar="MAP.tif", help="semantic map of the ground below: localize, too")
    parser.add_argument("--rate", type=positive, default=1.0, help="speed; 2: twice as fast as recorded (default 1)")
    parser.add_argument("--loops", type=arguments.positive(int), default=1, metavar="N",
                        help="play it so often, one after the other (default 1)")
    parser.add_argument("--model", help="detector, instead of the one in the parameter file")
    parser.add_argument("--segmenter", metavar="MODEL", help="of the localization, likewise")
    parser.add_argument("--semantics", choices=("none", "predicted", "map"), help="what tells the detector of the "
                        "ground, instead of what the parameter file says; needs --map")
    parser.add_argument("--method", choices=("thermal_signature", "cross_modal_embedding", "fused"), help="of the "
                        "ranking, instead of what the parameter file says")
    parser.add_argument("--embedding", metavar="MODEL", help="of the ranking, likewise")
    parser.add_argument("--no-detection", dest="detect", action="store_false",
                        help="localize alone, on a machine too slow for all nodes at once")
    parser.add_argument("--running", action="store_true", help="measure nodes that run already, e.g. by `ros2 launch "
                        "thermalreid_ros thermalreid.launch.py use_sim_time:=true`, as they are; --map and --probe say "
                        "what they were given")
    parser.add_argument("--params", type=Path, metavar="FILE", help="parameters of the nodes (default: the shipped)")
    parser.add_argument("--domain", type=domain, metavar="ID", help="ROS domain (default: that of the environment)")
    parser.add_argument("--report", type=arguments.output_folder, metavar="DIR",
                        help="write a page of what they saw to DIR/index.html")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.replay import ReplayError, run_replay

    given = {"--probe-length": args.probe_length, "--method": args.method, "--embedding": args.embedding,
             "--probe-class": args.probe_class}
    if args.probe is None and not args.running and (idle := [option for option, value in given.items() if value]):
        raise ReplayError(f"{idle[0]} is of the object to be found; give a picture of it with --probe, or leave it out")
    if args.report is not None and args.loops > 1:
        raise ReplayError("a page shows a recording that was played once; leave out --loops or --report")
    replay = run_replay(args.bag, probe=args.probe, probe_class=args.probe_class, probe_length_m=args.probe_length,
                        probe_length_error=args.probe_length_error, rate=args.rate, model=args.model, map_path=args.map,
                        segmenter=args.segmenter, detect=args.detect, semantics=args.semantics,
                        params_file=args.params, method=args.method, embedding=args.embedding,
                        loops=args.loops, running=args.running, domain_id=args.domain, progress=progress, say=print)
    figures = replay.figures()
    print(summary(figures))
    write_json(args.json, figures)
    if replay.refused:
        raise ReplayError(f"{args.bag}: not one of its frames was of use: {replay.refused}"
                          + "; metadata.yaml does not say in what units they are: set thermal_units in a file for "
                            "--params" * replay.in_doubt)
    if args.report is not None:
        from thermalreid_ros.evaluation.page import write_page

        print(write_page(args.report / "index.html", replay, command=command(args)))
    return 0


def summary(figures: dict[str, Any]) -> str:
    """The figures as a table, reasons in place of those that are missing."""
    rows = [["frames played", figures["frames_in"]], ["frames detected", figures["frames_detected"]],
            ["frames ranked", figures["frames_matched"]], ["frames detected per second", figures["frames_per_s"]],
            *([key.replace("_", " "), figures[key]] for key in ("frames_with_semantics", "frames_without_semantics")
              if key in figures),
            *([f"frames {reason}", count] for reason, count in figures["frames_dropped"].items()),
            *([f"{key} {part}", value] for key in ("latency_ms", "match_latency_ms", "inference_ms", "fix_latency_ms")
              if key in figures for part, value in figures[key].items()),
            *([f"{name} {key}", value] for name, node in figures["nodes"].items() for key, value in node.items()),
            *([key, figures[key]] for key in ("overhead_ms", "overhead_share", "own_cpu_share")),
            *([f"{name} memory_mb {key}", value] for name, memory in figures["memory_mb"].items()
              for key, value in memory.items()),
            *([key, figures[key]] for key in ("map50", "reid_r1", "reid_guessing")),
            *([key.replace("_", " "), figures[key]] for key in PLACE_KEYS if key in figures),
            *([f"frames {verdict.replace('_', ' ')}", count] for verdict, count in figures.get("verdicts", {}).items())]
    notes = "".join(f"\n{key}: {reason}" for key, reason in figures["reasons"].items())
    return table(["", "value"], rows) + notes + (f"\n{figures['damage']}" if figures["damage"] else "")


def command(args: argparse.Namespace) -> str:
    """The command as the page shows it, without paths of this machine."""
    parts = ["thermalreid replay", args.bag.name]
    parts += [f"--probe {args.probe.name}"] if args.probe else []
    parts += [f"--probe-class {args.probe_class}"] if args.probe_class else []
    if args.probe_length:
        parts += [f"--probe-length {args.probe_length:g}", f"--probe-length-error {args.probe_length_error:g}"]
    parts += [f"--map {args.map.name}"] if args.map else []
    parts += [f"--rate {args.rate:g}"] + ([f"--model {args.model}"] if args.model else [])
    parts += [f"--semantics {args.semantics}"] if args.semantics else []
    parts += [f"--method {args.method}"] if args.method else []
    parts += ([] if args.detect else ["--no-detection"]) + (["--running"] if args.running else [])
    return " ".join(parts)


def domain(text: str) -> int:
    """The argument type of ROS domains, of which Fast DDS has ports for so many."""
    return arguments.bounded(text, int, 0, 232, f"'{text}' is no ROS domain from 0 to 232")


def positive(text: str) -> float:
    return arguments.bounded(text, float, 0.01, 1000.0, f"'{text}' is no speed from 0.01 to 1000")
