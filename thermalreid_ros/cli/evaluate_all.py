"""`thermalreid evaluate all`: everything that is measured, and the page of results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from thermalreid_ros.cli.arguments import count, output_folder, positive, seed

_RUN = "import sys; from thermalreid_ros.cli import main; sys.exit(main())"
_ENDS_WITHIN_S = 30.0  # after Ctrl-C, with its workers and nodes


def add_parser(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("all", help="everything, and the page of results",
                              description="Makes rendered frames, flights and identities, measures everything on them "
                                          "and writes DIR/results.md. Takes hours; what is done is not done again, so "
                                          "that the same command goes on where it was interrupted.")
    parser.add_argument("--map", type=Path, nargs="+", required=True, metavar="MAP.tif", dest="maps",
                        help="of towns that nothing was trained on")
    parser.add_argument("--hit-uav", type=Path, metavar="DIR", help="HIT-UAV, with val/ and annotations/val.json")
    parser.add_argument("--out", type=output_folder, required=True, metavar="DIR")
    for name, number, what in (("images", 240, "rendered frames"), ("flights", 20, "rendered flights"),
                              ("simulated", 60, "simulated flights"), ("identities", 240, "to be searched")):
        parser.add_argument(f"--{name}", type=count, default=number, metavar="N", help=f"{what} ({number})")
    parser.add_argument("--seed", type=seed, default=1)
    parser.add_argument("--only", nargs="+", metavar="PART", help="some of: segmentation, detection, localization, "
                        "simulation, reid, mission")
    parser.add_argument("--workers", type=positive(int, 1024), default=0, metavar="N",
                        help="processes that render (default: one for each core)")
    parser.set_defaults(part=_run)


def _run(args: argparse.Namespace) -> int:
    import os
    import platform
    import sys

    from thermalreid_ros.evaluation.results import PARTS, ResultsPlan, Step, run_steps, write_results

    plan = ResultsPlan(tuple(args.maps), args.out, args.hit_uav, args.images, args.flights, args.simulated,
                       args.identities, args.seed, args.workers)
    steps = plan.steps(args.only or PARTS)
    (args.out / "plots").mkdir(parents=True, exist_ok=True)
    plan.claim()

    def start(step: Step) -> int:
        step.prepare()
        return run_command([sys.executable, "-c", _RUN, *step.arguments])

    failed = run_steps(steps, start, lambda line: print(line, flush=True))
    path = write_results(plan, f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}")
    print(f"look at {path}")
    for line in failed:
        print(f"not measured: {line}")
    return 1 if failed else 0


def run_command(command: Sequence[str]) -> int:
    """Run a command to its end; its exit code. Ctrl-C, which reaches it too, is raised once it has ended what it began;
    `subprocess.run` would kill it after a quarter of a second. By SIGTERM it ends with this process."""
    import subprocess
    import time

    from thermalreid_ros.ros.supervisor import end_with_parent

    process = subprocess.Popen(command, preexec_fn=end_with_parent)
    interrupt, end_s = None, 0.0
    while True:
        try:
            code = process.wait(None if interrupt is None else max(end_s - time.monotonic(), 0.0))
            break
        except KeyboardInterrupt as asked:
            interrupt, end_s = asked, time.monotonic() + _ENDS_WITHIN_S
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            break
    if interrupt is not None:
        raise interrupt
    return code
