"""Arguments that several commands take, and their refusals."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.files import shipped

MOST = 1e6  # of what is counted: more is a slip


def positive(kind: type, most: float = math.inf):
    """The argument type of finite numbers (int, float) above zero, up to most."""
    def parse(text: str):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not positive" + (" and finite" if value > 0 else ""))
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most:g}")
        return value
    parse.__name__ = kind.__name__  # argparse names the type in its own message
    return parse


def not_negative(kind: type, most: float = math.inf):
    """Likewise of zero and above."""
    def parse(text: str):
        value = kind(text)
        if not 0 <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is " + ("less than 0" if value < 0 else "not finite"))
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most:g}")
        return value
    parse.__name__ = kind.__name__
    return parse


def count(text: str) -> int:
    """The argument type of how many there are to be, of whatever is rendered, flown or drawn."""
    return positive(int, MOST)(text)


def bounded(text: str, kind: type, low: float, high: float, refusal: str):
    """The number (int, float) that a text says; refused with these words where it says none from low to high."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(refusal)
    return value


def seed(text: str) -> int:
    """The argument type of seeds, which numpy takes from zero on."""
    return bounded(text, int, 0, 2**31 - 1, f"{text} is no whole number from 0 to {2**31 - 1}")


def output_file(text: str) -> Path:
    """The argument type of files to be written: refused before the work begins where that could not be."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{folder} does not exist; make the folder first")
    written = path if path.exists() and not path.is_file() else folder  # a pipe or device is written into
    if not os.access(written, os.W_OK):
        raise argparse.ArgumentTypeError(f"{written} cannot be written")
    return path


def check_json(args: argparse.Namespace) -> None:
    """ThermalReidError where --json names a file that another argument names, too: it would be written over."""
    if getattr(args, "json", None) is None:
        return
    named = [value for key, given in vars(args).items() if key != "json"
             for value in (given if isinstance(given, (list, tuple)) else [given])]
    files = [Path(value) for value in named if isinstance(value, Path) or str(value).endswith(".onnx")]
    files += [path.with_suffix(".yaml") for path in files if path.suffix == ".onnx"]  # its card
    if os.path.realpath(args.json) in map(os.path.realpath, files):
        raise ThermalReidError(f"--json: {args.json} is named by another argument, too; name a file of its own")


def output_folder(text: str) -> Path:
    """The argument type of folders to be filled, and made where they are not there: refused likewise."""
    path = Path(text)
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is a file; name a folder")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{there} cannot be written")
    return path


def share(text: str) -> float:
    """The argument type of numbers from 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def check_device(device: str) -> str:
    """The name of a device to train on, as it was given. ThermalReidError where torch does not find it here."""
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by its name, and by how torch was built
        raise ThermalReidError(f"--device {device}: torch finds none here ({first_line(error)}); use --device "
                               "cpu") from None
    return device


def demo_map() -> Path:
    """The map that the package ships: the old town of Krems."""
    return shipped("config") / "maps" / "krems.tif"


def clip_range(text: str) -> tuple[int, int]:
    """FIRST:COUNT, the fields of evaluation.recording.Clip."""
    match = re.fullmatch(r"(\d+):([1-9]\d*)", text)
    if not match or int(match[2]) > MOST:
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
