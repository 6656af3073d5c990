"""`thermalreid recording make`: a data set's neighbouring frames as a rosbag2 recording with its truth."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from thermalreid_ros.cli.arguments import add_frame_sets, clip_range, frame_sets_command, not_negative, positive


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("recording", help="make rosbag2 recordings of data set frames")
    make = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "make", help="write a bag, its truth and a probe", description=__doc__)
    add_frame_sets(make)
    make.add_argument("--clip", type=clip_range, action="append", required=True, metavar="FIRST:COUNT", dest="clips",
                      help="running index of a clip's first picture and its number of pictures, those missing in "
                           "these splits included; may be given several times")
    make.add_argument("--max-frames", type=positive(int), metavar="N", help="take the first N frames of the clips only")
    make.add_argument("--target", type=_target, required=True, metavar="FILE:X,Y",
                      help="the annotated object at a pixel of a picture; it becomes the probe and is followed")
    make.add_argument("--rate-hz", type=positive(float), default=2.0,
                      help="assumed frames a second of the film (default 2)")
    make.add_argument("--clip-gap-s", type=not_negative(float), default=5.0,
                      help="assumed time between two clips (default 5)")
    make.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder to be made")


def run(args: argparse.Namespace) -> int:
    from thermalreid_ros.evaluation.recording import Clip, follow, read_frames, write_recording

    frames = read_frames(args.images, args.annotations, [Clip(*clip) for clip in args.clips], rate_hz=args.rate_hz,
                         clip_gap_s=args.clip_gap_s)[:args.max_frames]
    file_name, point_px = args.target
    frames = follow(frames, file_name, point_px)
    write_recording(args.out, frames, probe_file=file_name, command=_command(args), rate_hz=args.rate_hz,
                    clip_gap_s=args.clip_gap_s)
    size_mb = sum(file.stat().st_size for file in args.out.iterdir()) / 1e6
    seen = sum(frame.target is not None for frame in frames)
    print(f"{args.out}: {len(frames)} frames, {sum(len(frame.objects) for frame in frames)} annotated objects, "
          f"target seen in {seen} frames, {size_mb:.1f} MB")
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command as it may be published: paths of this machine reduced to their last part."""
    parts = ["thermalreid", "recording", "make", *frame_sets_command(args)]
    for first, count in args.clips:
        parts += ["--clip", f"{first}:{count}"]
    if args.max_frames:
        parts += ["--max-frames", str(args.max_frames)]
    file_name, (x, y) = args.target
    parts += ["--target", f"{file_name}:{x:g},{y:g}", "--rate-hz", f"{args.rate_hz:g}",
              "--clip-gap-s", f"{args.clip_gap_s:g}", "--out", args.out.name]
    return shlex.join(parts)


def _target(text: str) -> tuple[str, tuple[float, float]]:
    match = re.fullmatch(r"(.+):([\d.]+),([\d.]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not FILE:X,Y, e.g. 1_60_50_0_00281:529,338")
    return match[1], (float(match[2]), float(match[3]))
