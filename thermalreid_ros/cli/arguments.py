"""Arguments that several commands take, and their refusals."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from thermalreid_ros.files import shipped


def positive(kind: type):
    """The argument type of numbers (int, float) above zero."""
    def parse(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value
    parse.__name__ = kind.__name__  # argparse names the type in its own message
    return parse


def share(text: str) -> float:
    """The argument type of numbers from 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def demo_map() -> Path:
    """The map that the package ships: the old town of Krems."""
    return shipped("config") / "maps" / "krems.tif"


def clip_range(text: str) -> tuple[int, int]:
    """FIRST:COUNT, the fields of evaluation.recording.Clip."""
    match = re.fullmatch(r"(\d+):([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:COUNT, e.g. 281:127")
    return int(match[1]), int(match[2])


def add_frame_sets(parser: argparse.ArgumentParser) -> None:
    """--images and --annotations, as evaluation.recording.read_frames takes them."""
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR",
                        help="picture folders, one for each annotation file")
    parser.add_argument("--annotations", type=Path, nargs="+", required=True, metavar="COCO.json")


def frame_sets_command(args: argparse.Namespace) -> list[str]:
    """The same arguments again, as they may be published: paths of this machine reduced to their last part."""
    return ["--images", *(path.name for path in args.images),
            "--annotations", *(path.name for path in args.annotations)]
