"""The command `thermalreid`: one module a command, imported only when that command is called.

A command's module offers add_parser(subparsers), which adds its parser, and run(args) -> exit code. Exit
codes: 0 done, 2 a fault of the user's (one line on stderr), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence

from thermalreid_ros.cli.arguments import check_json
from thermalreid_ros.errors import ThermalReidError

COMMANDS = {
    "demo": "replay the shipped recording through the nodes and write a page of what they saw",
    "replay": "run the nodes on a recording",
    "bench": "measure speed: per model, topic to topic, transport",
    "evaluate": "measure quality on annotated data",
    "reid": "calibrate re-identification",
    "map": "semantic maps from OpenStreetMap",
    "engine": "prepare models for this machine ahead of flight",
    "world": "render the virtual city: pictures, data sets, flights",
    "recording": "make a recording of annotated frames",
    "train": "train networks and export them",
}
#: Of modules that only some commands need, or that no ROS machine installs by itself: what pip calls them.
_PIP_NAMES = {"torch": "torch", "onnx": "onnx", "osmium": "osmium", "shapely": "shapely", "embreex": "embreex",
              "faster_coco_eval": "faster-coco-eval", "matplotlib": "matplotlib", "onnxruntime": "onnxruntime",
              "rosbags": "rosbags", "mcap": "mcap"}


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        # What argparse takes for a value although it begins with a minus: west and south of 0, too, as in -3.2,51.5.
        self._negative_number_matcher = re.compile(r"^-\.?\d[-\d.,:e]*$")

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        from xml.etree import ElementTree

        from thermalreid_ros.files import shipped

        package = shipped("config").with_name("package.xml")
        print("thermalreid", ElementTree.parse(package).findtext("version"))
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        parser = _Parser(prog="thermalreid", description="Detection and re-identification in thermal frames.")
        parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
        subparsers = parser.add_subparsers(metavar="command", required=True)
        module = importlib.import_module(f"thermalreid_ros.cli.{command}") if command in COMMANDS else None
        for name, summary in COMMANDS.items():
            if name == command:
                module.add_parser(subparsers)
            else:
                subparsers.add_parser(name, help=summary, add_help=False)
        args = parser.parse_args(arguments)  # ends here unless a known command was given
        check_json(args)
        code = module.run(args)
        sys.stdout.flush()
        return code
    except ThermalReidError as error:
        print(f"thermalreid: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PIP_NAMES:
            raise
        print(f"thermalreid {command}: the package {package} is missing; install it with: pip install "
              f"{_PIP_NAMES[package]}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output has gone: `thermalreid ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("thermalreid: interrupted", file=sys.stderr)
        return 130
    return 2


def _terminated(number: int, _) -> None:
    """End as after Ctrl-C, so that what is half done is taken away: timeout, systemd and docker ask by SIGTERM."""
    signal.signal(number, signal.SIG_DFL)  # who asks again does not wait for that
    raise SystemExit(128 + number)
