"""`thermalreid evaluate fusion`, and the labellings that `evaluate detection` gives to a detector."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thermalreid_ros.cli.arguments import not_negative, output_folder, positive, seed
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json

if TYPE_CHECKING:
    from thermalreid_ros.camera.geometry import GroundView
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.evaluation.detection import CocoSet
    from thermalreid_ros.evaluation.labellings import Labelling

FIX_ERROR_M = 5.0


def add_parser(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("fusion", help="what labellings of the ground, right and wrong, make of detection",
                              description="Detection with no labelling, a predicted one, the map, the true one, and "
                              "wrong ones, on a set of thermalreid world dataset; with none, the map and the true one "
                              "in perspective, too.")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR",
                        help="SET/images/thermal; the true labellings are in SET/masks/semantic")
    parser.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    parser.add_argument("--model", default="yolo_compact", help="a shipped model's name, or an .onnx file")
    parser.add_argument("--segmenters", nargs="*", default=("geogan", "segmenter_compact"), metavar="MODEL",
                        help="that predict a labelling each (default: geogan segmenter_compact); the map is aligned "
                        "with that of the last")
    add_map_options(parser)
    parser.add_argument("--shifts", type=positive(float), nargs="*", default=(5.0, 10.0, 20.0), metavar="M",
                        help="of the true labelling over the ground (default: 5 10 20)")
    parser.add_argument("--plots", type=output_folder, metavar="DIR", help="write fusion_MODEL.png there")
    add_provider_options(parser)
    add_json_option(parser)
    parser.set_defaults(part=_fusion)


def add_map_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--map", type=Path, nargs="+", default=(), metavar="MAP.tif", dest="maps",
                        help="those that the frames were rendered over, to project them into the frames")
    parser.add_argument("--fix-error", type=not_negative(float), default=FIX_ERROR_M, metavar="M",
                        help="the map is projected from a place with an error of this standard deviation on each axis, "
                        f"as a fix has it (default {FIX_ERROR_M:g})")
    parser.add_argument("--seed", type=seed, default=0, help="of these errors, and of all that is drawn (default 0)")


def add_labelling_options(parser: argparse.ArgumentParser) -> None:
    """--semantics and what belongs to it."""
    parser.add_argument("--semantics", choices=("none", "predicted", "map", "true"), default="none",
                        help="labelling given to the model: none; predicted, by --segmenter; map, --map projected into "
                        "the frame and aligned with the predicted one, which takes the pose of each frame: sets of "
                        "thermalreid world dataset have it, others are measured on flights; true, that of rendered "
                        "frames (SET/masks/semantic of SET/images/thermal)")
    parser.add_argument("--segmenter", default="segmenter_compact", metavar="MODEL",
                        help="segmenter_compact (default), geogan, or an .onnx file")
    parser.add_argument("--perspective", action=argparse.BooleanOptionalAction, help="weigh scores by how large things "
                        "look from where each frame was taken, as the node does wherever that is known; for sets of "
                        "thermalreid world dataset (default: with --semantics map, for who can project a map knows it)")
    parser.add_argument("--focal-px", type=positive(float), metavar="PX", help="of HIT-UAV's camera, for --perspective "
                        "(which it implies): its frames tell altitude and angle in their names, but no focal length")
    add_map_options(parser)


def chosen_views(args: argparse.Namespace, detector: Detector, data: CocoSet) -> list[GroundView] | None:
    """From where each frame was taken, where scores are to be weighed by it."""
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.evaluation.labellings import named_view, recorded_view

    if args.perspective is False and args.focal_px is not None:
        raise ThermalReidError("--focal-px is for --perspective; leave out one of --focal-px and --no-perspective")
    wanted = args.perspective
    if wanted is None:
        wanted = args.semantics == "map" or args.focal_px is not None
    if not wanted:
        return None
    if (args.perspective or args.focal_px) and detector.perspective is None:
        raise ThermalReidError(f"model '{detector.engine.card.name}' was not told how large things look; fit that with "
                               "`thermalreid train perspective`, or leave out --perspective and --focal-px")
    return [recorded_view(record) if args.focal_px is None else named_view(record, args.focal_px)
            for record in data.coco["images"]]


def chosen_labelling(args: argparse.Namespace, detector: Detector, data: CocoSet) -> Labelling | None:
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.evaluation.labellings import map_labels, predicted_labels, true_labels

    if args.semantics == "none":
        return None
    if not detector.takes_semantics:
        raise ThermalReidError(f"model '{detector.engine.card.name}' takes no labelling; use --semantics none")
    if args.semantics == "true":
        return true_labels(data, mask_folder(args.images))
    segmenter = _segmenter(args.segmenter, args)
    if args.semantics == "predicted":
        return predicted_labels(data, segmenter)
    return map_labels(data, args.maps, segmenter, args.fix_error, args.seed)


def mask_folder(images: Path) -> Path:
    return images.resolve().parent.parent / "masks" / "semantic"


def _recorded_views(data: CocoSet) -> list[GroundView] | None:
    """None for sets that do not tell; one frame that does not among others that do is refused."""
    from thermalreid_ros.evaluation.labellings import recorded_view

    records = data.coco["images"]
    return [recorded_view(record) for record in records] if any("fx" in record for record in records) else None


def _segmenter(model: str, args: argparse.Namespace):
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.localization.segmenter import Segmenter

    return Segmenter(load_engine(model, **provider_options(args)))


def _fusion(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.detection.types import CLASS_NAMES
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.detection import SCORE_FLOOR, read_coco_set
    from thermalreid_ros.evaluation.fusion import compare, conditions, plot
    from thermalreid_ros.evaluation.labellings import true_labels

    data = read_coco_set(args.images, args.annotations)
    truth = true_labels(data, mask_folder(args.images))
    engine = load_engine(args.model, **provider_options(args))
    detector = Detector(engine, score_threshold=SCORE_FLOOR, max_detections=300)
    chosen = conditions(data, truth, [_segmenter(model, args) for model in args.segmenters], args.maps,
                        args.fix_error, args.shifts, args.seed)
    figures = compare(detector, data, truth, chosen,
                      lambda records, name: progress(records, description=name, unit="frame"),
                      _recorded_views(data) if detector.perspective else None)
    print(table(["labelling", "right", *CLASS_NAMES, "mean AP50", "gain, points", "+-", "mean IoU"],
                [[name, item["agreement"], *(item["ap50"][part] for part in CLASS_NAMES), item["map50"],
                  *(None if item[key] is None else round(100 * item[key], 2) + 0.0 for key in ("gain", "gain_error")),
                  item["mean_iou"]] for name, item in figures.items()]))
    model = engine.card.name
    if args.plots:
        plot(args.plots / f"fusion_{model}.png", figures, f"{model}, {len(data.paths)} frames")
        print(f"plot in {args.plots}")
    write_json(args.json, {"model": model, "frames": len(data.paths), "seed": args.seed, "labellings": figures,
                           "fix_error_m": args.fix_error if args.maps else None})
    return 0
