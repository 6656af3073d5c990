"""`thermalreid train`: train a network, resume where it stopped, export it with its card."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from thermalreid_ros.errors import ThermalReidError


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("train", help="train networks and export them")
    parts = parser.add_subparsers(metavar="part", required=True)
    detector = parts.add_parser("detector", help="a detection network on annotated thermal frames")
    detector.add_argument("--network", choices=("yolo_compact", "yolo_semantic"), default="yolo_compact")
    detector.add_argument("--images", type=Path, required=True, help="folder of the frames")
    detector.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    detector.add_argument("--exclude-dates", nargs="+", default=(), metavar="YYYYMMDD",
                          help="leave out frames captured on these dates, to be measured on later")
    detector.add_argument("--box-margin", type=float, nargs=2, default=(0.0, 0.0), metavar=("PX", "SHARE"),
                          help="move each side of a box outwards by so many pixels and by this share of its length: "
                          "rendered boxes are tighter than those that people draw (1 0.06 fits HIT-UAV's)")
    detector.add_argument("--backbone-weights", type=Path, metavar="FILE",
                          help="ImageNet weights of MobileNetV2 (state dict with keys features.*), for yolo_compact")
    detector.add_argument("--steps", type=int, default=10000)
    detector.add_argument("--batch", type=int, default=16)
    detector.add_argument("--crop-px", type=int, default=192)
    detector.add_argument("--learning-rate", type=float, default=1.5e-3)
    detector.add_argument("--seed", type=int, default=1)
    detector.add_argument("--device", default="cpu", help="cpu or cuda")
    detector.add_argument("--out", type=Path, required=True,
                          help="folder of checkpoint and log; a checkpoint in it is resumed")
    detector.set_defaults(part=_detector)
    export = parts.add_parser("export", help="a trained checkpoint to models/NAME.onnx and its card")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--images", type=Path, required=True, help="real frames to measure the parity on")
    export.add_argument("--data", required=True, help="what it was trained on, for the card")
    export.add_argument("--licence", required=True, help="of that data, for the card")
    export.add_argument("--remark", default="", help="what else the card should say of the training")
    export.add_argument("--command", required=True, help="the training command, for the card")
    export.add_argument("--out", type=Path, required=True, metavar="NAME.onnx")
    export.set_defaults(part=_export)


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _detector(args: argparse.Namespace) -> int:
    import torch

    from thermalreid_ros.training.detection import DetectionRecipe, train
    from thermalreid_ros.training.frames import read_coco

    if args.device != "cpu" and not torch.cuda.is_available():
        raise ThermalReidError(f"--device {args.device}: torch sees no accelerator here; use --device cpu")
    if args.backbone_weights is not None and not args.backbone_weights.is_file():
        raise ThermalReidError(f"{args.backbone_weights}: no such file of backbone weights")
    frames = read_coco(args.images, args.annotations, exclude_dates=tuple(args.exclude_dates),
                       margin=tuple(args.box_margin))
    recipe = DetectionRecipe(args.network, args.steps, args.batch, args.crop_px, args.learning_rate, seed=args.seed)
    print(f"{len(frames.images)} frames; {shlex.join(['thermalreid', *sys.argv[1:]])}", flush=True)
    checkpoint = train(recipe, frames, args.out, backbone_weights=args.backbone_weights, device=args.device,
                       log=lambda line: print(line, flush=True))
    print(f"trained: {checkpoint}")
    return 0


def _export(args: argparse.Namespace) -> int:
    import cv2

    from thermalreid_ros.training.detection import load_checkpoint
    from thermalreid_ros.training.export import export_detector

    detector, recipe, step = load_checkpoint(args.checkpoint)
    paths = sorted(path for path in args.images.iterdir() if path.suffix in (".jpg", ".png", ".webp"))[::30][:10]
    frames = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    if not frames:
        raise ThermalReidError(f"{args.images}: no frames (.jpg, .png, .webp) to measure the parity on")
    training = {"data": args.data, "licence": args.licence, "command": args.command, "seed": recipe["seed"],
                "steps": step, "images_seen": step * recipe["batch"], "recipe": recipe}
    if args.remark:
        training["remark"] = args.remark
    difference = export_detector(detector, args.out, frames=frames, training=training,
                                 frames_from=f"{len(frames)} frames, {paths[0].name} to {paths[-1].name}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, differs from torch by {difference:.1e} at most")
    return 0
