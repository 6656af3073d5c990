"""`thermalreid train`: train a network, resume where it stopped, export it with its card."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from thermalreid_ros.cli import train_objects, train_tiles
from thermalreid_ros.cli.arguments import check_device, not_negative, output_file, output_folder, positive, seed, share
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json
from thermalreid_ros.errors import ThermalReidError


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("train", help="train networks and export them")
    parts = parser.add_subparsers(metavar="part", required=True)
    detector = parts.add_parser("detector", help="a detection network on annotated thermal frames")
    detector.add_argument("--network", choices=("yolo_compact", "yolo_semantic"), default="yolo_compact")
    detector.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR",
                          help="folder of the frames; several sets are trained on together. Where the frames are in "
                          "DIR/images/thermal their semantic labellings are read from DIR/masks/semantic")
    detector.add_argument("--annotations", type=Path, nargs="+", required=True, metavar="COCO.json", help="one a set")
    detector.add_argument("--share", type=positive(float), nargs="+",
                          help="of the crops that a set makes; equal ones by default")
    detector.add_argument("--scale", type=positive(float), nargs="+", default=(0.75, 1.45), metavar="LEAST MOST",
                          help="magnification of the crops: one range for all sets or one a set")
    detector.add_argument("--exclude-dates", nargs="+", default=(), metavar="YYYYMMDD",
                          help="leave out frames captured on these dates, to be measured on later")
    detector.add_argument("--box-margin", type=not_negative(float), nargs="+", metavar="PX SHARE",
                          help="move each side of a box outwards by so many pixels and by this share of its length, "
                          "for all sets or a pair a set (default: 1 0.06 for rendered sets, whose boxes are tight, 0 0 "
                          "for what people annotated)")
    labels = detector.add_mutually_exclusive_group()
    labels.add_argument("--no-semantics", action="store_true", help="leave the labellings alone")
    labels.add_argument("--only-trust", action="store_true", help="train nothing but yolo_compact's judgement whether "
                        "a labelling is of this place (with --start): without one it stays as it is")
    detector.add_argument("--known", type=share, nargs=3, default=(1 / 3, 1 / 3, 0.1), metavar="SHARE",
                          help="of crops that are given the true labelling, of crops that are given a wrong one, and "
                          "of these that are given another frame's (default 1/3 1/3 0.1)")
    detector.add_argument("--inversion", type=share, default=0.15, metavar="SHARE",
                          help="of crops of inverted polarity")
    detector.add_argument("--variation", type=not_negative(float), default=1.0,
                          help="of contrast, noise and blur: 1 for real frames, more where others are to be met")
    detector.add_argument("--backbone-weights", type=Path, metavar="FILE",
                          help="ImageNet weights of MobileNetV2 (state dict with keys features.*), for yolo_compact")
    detector.add_argument("--start", type=Path, metavar="weights.pt", help="begin with the network of an earlier "
                          "training")
    detector.add_argument("--frozen-blocks", type=not_negative(int), default=2, metavar="N",
                          help="first layers of yolo_compact's pretrained backbone that keep their weights "
                          "(default 2); 4 halve the time of a step on CPUs")
    detector.add_argument("--backbone-rate", type=share, default=0.3, metavar="SHARE",
                          help="of the learning rate, for that backbone (default 0.3)")
    detector.add_argument("--ema", type=share, default=0.998, metavar="SHARE",
                          help="of the averaged weights, which are what is kept, that a step leaves (default 0.998)")
    detector.add_argument("--steps", type=positive(int), default=10000)
    detector.add_argument("--minutes", type=positive(float), help="end after so long, if --steps does not come first")
    detector.add_argument("--batch", type=positive(int), default=16)
    detector.add_argument("--crop-px", type=_crop_px, default=192)
    detector.add_argument("--learning-rate", type=positive(float), default=1.5e-3)
    detector.add_argument("--seed", type=seed, default=1)
    detector.add_argument("--device", default="cpu", help="cpu or cuda")
    detector.add_argument("--out", type=output_folder, required=True,
                          help="folder of checkpoint and log; a checkpoint in it is resumed")
    detector.set_defaults(part=_detector)
    export = parts.add_parser("export", help="a trained checkpoint to models/NAME.onnx and its card")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--images", type=Path, required=True, help="real frames to measure the parity on")
    export.add_argument("--data", required=True, help="what it was trained on, for the card")
    export.add_argument("--licence", required=True, help="of that data, for the card")
    export.add_argument("--remark", default="", help="what else the card should say of the training")
    export.add_argument("--command", required=True, help="the training command, for the card")
    export.add_argument("--int8", action="store_true", help="store the large weights in half the space of the others")
    export.add_argument("--out", type=output_file, required=True, metavar="NAME.onnx")
    export.set_defaults(part=_export)
    int8 = parts.add_parser("int8", help="a model's form for processors with 8-bit dot products: NAME.int8 beside it")
    int8.add_argument("--model", type=Path, required=True, metavar="NAME.onnx", help="a detector or segmenter")
    int8.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR",
                      help="folders of frames as they are met in flight, to take the ranges of activations from")
    int8.add_argument("--frames", type=positive(int), default=48, help="of each folder (default 48)")
    int8.set_defaults(part=_int8)
    restore = parts.add_parser("restore", help="a shipped model as weights to go on from",
                               description="Writes a weights.pt that `train detector`, `segmenter`, `embedding` and "
                               "`baseline` begin with (--start): the model's own weights, with the batch normalisation "
                               "that export folded.")
    restore.add_argument("--model", required=True, help="a detector, segmenter, embedding or baseline: a shipped "
                         "model's name, or an .onnx file")
    seen = restore.add_mutually_exclusive_group(required=True)
    seen.add_argument("--images", type=Path, nargs="+", metavar="DIR",
                      help="of a detector or segmenter: folders of frames like those to train on, to measure what "
                      "normalisation needs")
    seen.add_argument("--pairs", type=Path, nargs="+", metavar="DIR",
                      help="of an embedding or baseline: sets of `thermalreid world pairs`")
    restore.add_argument("--frames", type=positive(int), default=64, help="of each folder of --images (default 64)")
    restore.add_argument("--out", type=output_file, required=True, metavar="weights.pt")
    restore.set_defaults(part=_restore)
    perspective = parts.add_parser("perspective", help="how large things look, for a detector's card",
                                   description="Fits what the size of a box says of a detection, where height and "
                                   "attitude of the camera are known, and writes it on the model's card.")
    perspective.add_argument("--model", default="yolo_compact", help="a shipped model's name, or an .onnx file")
    perspective.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR",
                             help="SET/images/thermal of sets of thermalreid world dataset that the detector was not "
                             "trained on and that nothing is measured on")
    perspective.add_argument("--annotations", type=Path, nargs="+", required=True, metavar="COCO.json",
                             help="one for each folder")
    add_provider_options(perspective)
    perspective.add_argument("--data", required=True, help="what these sets are, for the card (words for people)")
    perspective.add_argument("--plots", type=output_folder, metavar="DIR", help="write perspective_MODEL.png there")
    add_json_option(perspective)
    perspective.set_defaults(part=_perspective)
    train_tiles.add_parsers(parts)
    train_objects.add_parsers(parts)
    segmenter = parts.add_parser("segmenter", help="a segmentation network on rendered data sets")
    segmenter.add_argument("--network", choices=("geogan", "segmenter_compact"), default="segmenter_compact")
    segmenter.add_argument("--sets", type=Path, nargs="+", required=True, metavar="DIR",
                           help="data sets as `world dataset` makes them, finished or not; their train split is "
                           "trained on, their val split measured at the end")
    segmenter.add_argument("--start", type=Path, metavar="weights.pt", help="begin with the network of an earlier "
                           "training")
    segmenter.add_argument("--steps", type=positive(int), help="end after so many steps")
    segmenter.add_argument("--minutes", type=positive(float), help="end after so many minutes from the first step; the "
                           "learning rate falls towards the end that comes first")
    segmenter.add_argument("--no-colour", action="store_true", help="leave out frames in the visible band")
    segmenter.add_argument("--limit", type=positive(int), metavar="N",
                           help="take at most N frames of each set and split")
    segmenter.add_argument("--batch", type=positive(int), help="default 32 for geogan, 96 for segmenter_compact")
    segmenter.add_argument("--learning-rate", type=positive(float),
                           help="default 2e-4 for geogan, 2e-3 for segmenter_compact")
    segmenter.add_argument("--outlines", type=not_negative(float), metavar="WEIGHT", help="of outlines in the loss of "
                           "segmenter_compact (default 0.3); 0 halves the time of a step on CPUs")
    segmenter.add_argument("--visible-share", type=share, metavar="SHARE", help="of a batch in the visible band, where "
                           "there are such frames (default 0.25)")
    segmenter.add_argument("--seed", type=seed, default=1)
    segmenter.add_argument("--device", default="cpu", help="cpu or cuda")
    segmenter.add_argument("--out", type=output_folder, required=True,
                           help="folder of checkpoint, weights and log; a checkpoint in it is resumed")
    segmenter.set_defaults(part=_segmenter)
    labelling = parts.add_parser("export-segmenter", help="a trained segmenter to models/NAME.onnx and its card")
    labelling.add_argument("--weights", type=Path, required=True, metavar="weights.pt", help="or a checkpoint.pt")
    labelling.add_argument("--images", type=Path, required=True, help="frames to measure the parity on")
    labelling.add_argument("--data", required=True, help="what it was trained on, for the card")
    labelling.add_argument("--licence", required=True, help="of that data, for the card")
    labelling.add_argument("--remark", default="", help="what else the card should say of the training")
    labelling.add_argument("--command", required=True, help="the training command, for the card")
    labelling.add_argument("--int8", action="store_true",
                           help="store the large weights in half the space of the others")
    labelling.add_argument("--out", type=output_file, required=True, metavar="NAME.onnx")
    labelling.set_defaults(part=_export_segmenter)


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _detector(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.detection import DetectionRecipe, train
    from thermalreid_ros.training.frames import TrainingSet, read_coco

    check_device(args.device)
    if args.backbone_weights is not None and not args.backbone_weights.is_file():
        raise ThermalReidError(f"{args.backbone_weights}: no such file of backbone weights")
    if sum(args.known[:2]) > 1 + 1e-9:
        raise ThermalReidError(f"--known {args.known[0]:g} {args.known[1]:g}: more than all crops have a labelling")
    count = len(args.images)
    if len(args.annotations) != count:
        raise ThermalReidError(f"{count} folders of --images, but {len(args.annotations)} --annotations: one each")
    shares = args.share or [1.0] * count
    if len(shares) != count:
        raise ThermalReidError(f"--share takes a positive number for each of the {count} sets")
    margins = [None] * count if args.box_margin is None else _pairs("--box-margin", args.box_margin, count)
    scales = _pairs("--scale", args.scale, count)
    if falling := [pair for pair in scales if pair[0] > pair[1]]:
        raise ThermalReidError("--scale {:g} {:g}: the least magnification comes first".format(*falling[0]))
    sets = []
    for images, boxes, part, margin, scale in zip(args.images, args.annotations, shares, margins, scales):
        labellings = images.parent.parent / "masks" / "semantic"
        frames = read_coco(images, boxes, exclude_dates=tuple(args.exclude_dates), margin=margin,
                           labellings=labellings if labellings.is_dir() and not args.no_semantics else None)
        sets.append(TrainingSet(frames, part, scale))
        print(f"{images}: {len(frames.images)} frames, {'no ' * (frames.labellings is None)}labellings", flush=True)
    recipe = DetectionRecipe(
        args.network, args.steps, args.minutes, args.batch, args.crop_px, args.learning_rate,
        backbone_rate=args.backbone_rate, ema=args.ema, seed=args.seed, frozen_blocks=args.frozen_blocks,
        inversion=args.inversion, variation=args.variation, semantics=not args.no_semantics,
        known_true=args.known[0], known_wrong=args.known[1], elsewhere=args.known[2], only_trust=args.only_trust)
    print(shlex.join(["thermalreid", *sys.argv[1:]]), flush=True)
    checkpoint = train(recipe, sets, args.out, backbone_weights=args.backbone_weights, start=args.start,
                       device=args.device, log=lambda line: print(line, flush=True))
    print(f"trained: {checkpoint}")
    return 0


def _pairs(option: str, values: Sequence[float], count: int) -> list[tuple[float, float]]:
    """A pair of numbers for each of `count` sets, from one pair or as many."""
    if len(values) == 2:
        values = tuple(values) * count
    if len(values) != 2 * count:
        raise ThermalReidError(f"{option} takes two numbers, or two for each of the {count} sets")
    return list(zip(values[::2], values[1::2]))


def _segmenter(args: argparse.Namespace) -> int:
    import time

    from thermalreid_ros.training.labellings import read_labelled
    from thermalreid_ros.training.segmentation import recipe_for, train

    check_device(args.device)
    recipe = recipe_for(args.network, steps=args.steps, minutes=args.minutes, batch=args.batch,
                        learning_rate=args.learning_rate, outlines=args.outlines, visible_share=args.visible_share,
                        seed=args.seed)
    print(shlex.join(["thermalreid", *sys.argv[1:]]), flush=True)
    begun = time.monotonic()
    frames, validation = (read_labelled(args.sets, split, colour=not args.no_colour, limit=args.limit)
                          for split in ("train", "val"))
    print(f"{len(frames)} frames to train on, {len(frames.colour)} of them in colour, {len(frames.radiometric)} with "
          f"temperatures; {len(validation)} to measure on; read in {time.monotonic() - begun:.0f} s", flush=True)
    data = {"sets": [folder.name for folder in args.sets], "frames": len(frames), "visible": len(frames.colour),
            "radiometric": len(frames.radiometric), "validation": len(validation)}
    weights = train(recipe, frames, args.out, validation=validation, start=args.start, device=args.device, data=data,
                    log=lambda line: print(line, flush=True))
    print(f"trained: {weights}")
    return 0


def _crop_px(text: str) -> int:
    """The argument type of a crop's side, which the networks halve five times."""
    value = positive(int)(text)
    if value % 32:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 32")
    return value


def _export(args: argparse.Namespace) -> int:
    from thermalreid_ros.evaluation.detection import grey_frame
    from thermalreid_ros.training.detection import load_checkpoint
    from thermalreid_ros.training.export import export_detector
    from thermalreid_ros.training.folders import spread

    detector, recipe, step = load_checkpoint(args.checkpoint)
    paths = spread(args.images, 10)
    frames = [grey_frame(path, {}) for path in paths]
    training = {"data": args.data, "licence": args.licence, "command": args.command, "seed": recipe["seed"],
                "steps": step, "images_seen": step * recipe["batch"], "recipe": recipe}
    if args.remark:
        training["remark"] = args.remark
    difference = export_detector(detector, args.out, frames=frames, training=training, int8=args.int8,
                                 frames_from=f"{len(frames)} frames, {paths[0].name} to {paths[-1].name}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, differs from torch by {difference:.1e} at most")
    return 0


def _int8(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.folders import short
    from thermalreid_ros.training.int8_form import quantise

    names = " ".join(map(short, args.images))
    form = quantise(args.model, args.images, args.frames,
                    f"thermalreid train int8 --model {args.model.name} --images {names} --frames {args.frames}")
    print(f"{form}: {form.stat().st_size / 1e3:.0f} kB, and the weights of {args.model.name}")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.folders import spread
    from thermalreid_ros.training.pairs import read_pairs
    from thermalreid_ros.training.restore import restore, restore_embedding

    if args.pairs:
        difference = restore_embedding(args.model, read_pairs(args.pairs), args.out)
    else:
        frames = [path for folder in args.images for path in spread(folder, args.frames)]
        difference = restore(args.model, frames, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, differs from {args.model} by {difference:.1e} at most")
    return 0


def _perspective(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.detection.perspective import CARD_KEY, Perspective
    from thermalreid_ros.engine import EngineError, load_engine
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.engine.packing import write_card
    from thermalreid_ros.evaluation.detection import SCORE_FLOOR, read_coco_set
    from thermalreid_ros.evaluation.labellings import recorded_view
    from thermalreid_ros.evaluation.perspective_fit import candidates, fit, plot
    from thermalreid_ros.training.folders import short

    if len(args.images) != len(args.annotations):
        raise ThermalReidError(f"--images names {len(args.images)} folders, --annotations {len(args.annotations)} "
                               "files; give one file for each folder")
    data = [read_coco_set(*pair) for pair in zip(args.images, args.annotations)]
    views = [[recorded_view(record) for record in item.coco["images"]] for item in data]
    engine = load_engine(args.model, **provider_options(args))
    others = {key: value for key, value in engine.card.extra.items() if key != CARD_KEY}
    engine.card = replace(engine.card, extra=others)  # what is there may be damaged
    detector = Detector(engine, score_threshold=SCORE_FLOOR, max_detections=300)
    found = [candidates(detector, item, seen, lambda records: progress(records, description=short(folder),
                                                                       unit="frame"))
             for item, seen, folder in zip(data, views, args.images)]
    model, figures = fit(found, print)
    print(table(["set", "frames", "mean AP50", "with perspective"],
                [[short(folder), *item.values()] for folder, item in zip(args.images, figures["sets"])]))
    if args.plots:
        plot(args.plots / f"perspective_{detector.engine.card.name}.png", model, found, detector.engine.card.name)
        print(f"plot in {args.plots}")
    path, card = open_model(args.model)
    try:
        known = Perspective.of_card(card)
    except EngineError:
        known = None
    if lost := [name for name in known.classes if name not in model.classes] if known else []:
        raise ThermalReidError(f"the card of '{path.stem}' knows the size of {', '.join(lost)}, which these sets do "
                               "not tell; give more frames, or take perspective off the card first")
    images = " ".join(map(short, args.images))
    annotations = " ".join(f"{short(file.parent)}/{file.name}" for file in args.annotations)
    command = f"thermalreid train perspective --model {path.stem} --images {images} --annotations {annotations} " \
              "--data ..."
    write_card(path, {**card.to_mapping(), CARD_KEY: {**model.to_mapping(), "fitted": {
        "data": args.data, "command": command, "held_out": figures}}})
    print(f"noted on {path.with_suffix('.yaml')}")
    write_json(args.json, {"model": detector.engine.card.name, "classes": list(model.classes), **figures})
    return 0


def _export_segmenter(args: argparse.Namespace) -> int:
    from thermalreid_ros.evaluation.segmentation import read_frame
    from thermalreid_ros.training.export_segmenter import export_segmenter
    from thermalreid_ros.training.folders import spread
    from thermalreid_ros.training.segmentation import load_weights

    network, facts = load_weights(args.weights)
    paths = spread(args.images, 10)
    frames = [read_frame(path) for path in paths]
    training = {"data": args.data, "licence": args.licence, "command": args.command, "seed": facts["recipe"]["seed"],
                "steps": facts["step"], "minutes": round(facts["seconds"] / 60, 1),
                "images_seen": facts["step"] * facts["recipe"]["batch"], **facts["data"], "recipe": facts["recipe"]}
    if args.remark:
        training["remark"] = args.remark
    parity = export_segmenter(network, args.out, frames=frames, training=training, evaluation=facts["evaluation"],
                              int8=args.int8, frames_from=f"{len(frames)} frames, {paths[0].name} to {paths[-1].name}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {100 * parity['labels_agreement']:.4f} % of the labels "
          f"as torch gives them")
    return 0
