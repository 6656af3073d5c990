"""`thermalreid evaluate`: quality on annotated data."""

from __future__ import annotations

import argparse
from pathlib import Path

from thermalreid_ros.cli import evaluate_all, evaluate_fusion, evaluate_reid, evaluate_target
from thermalreid_ros.cli.arguments import count, not_negative, output_folder, positive, seed, share
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json
from thermalreid_ros.engine import DEFAULT_PROVIDERS


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("evaluate", help="measure quality on annotated data")
    parts = parser.add_subparsers(metavar="part", required=True)
    detection = parts.add_parser("detection", help="average precision of a detection model on a COCO set")
    detection.add_argument("--images", type=Path, required=True, help="folder of the frames")
    detection.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    detection.add_argument("--model", default="yolo_compact", help="a shipped model's name, or an .onnx file")
    evaluate_fusion.add_labelling_options(detection)
    detection.add_argument("--dates", nargs="+", default=(), metavar="YYYYMMDD",
                           help="only frames captured on these dates (date_captured)")
    detection.add_argument("--plots", type=output_folder, metavar="DIR",
                           help="write precision-recall curves and frames there")
    add_provider_options(detection)
    detection.add_argument("--card", metavar="DATA", help="note AP50 on the model's card, measured on this data "
                           "(words for people: 'HIT-UAV val')")
    add_json_option(detection)
    detection.set_defaults(part=_detection)
    evaluate_fusion.add_parser(parts)
    evaluate_reid.add_parser(parts)
    evaluate_target.add_parser(parts)
    localization = parts.add_parser("localization", help="the filter and single frames on recorded flights")
    localization.add_argument("--bag", type=Path, nargs="+", required=True, metavar="BAG", dest="bags",
                              help="recordings as thermalreid world fly makes them")
    localization.add_argument("--map", type=Path, nargs="+", required=True, metavar="MAP.tif", dest="maps",
                              help="one, or those of all towns: a recording says which it was flown over")
    localization.add_argument("--prior-error", type=positive(float, 1e5), metavar="M",
                              help="the rough position is the truth with one error of this standard deviation on each "
                                   "axis (default: the recording's own prior)")
    localization.add_argument("--seed", type=seed, default=0, help="of that error and all that is drawn (default 0)")
    localization.add_argument("--model", default="segmenter_compact", help="segmenter: a shipped model's name, or an "
                              ".onnx file (default segmenter_compact)")
    localization.add_argument("--semantics", choices=("predicted", "true"), default="predicted",
                              help="true: the recording's own labels, the ceiling of any segmenter")
    localization.add_argument("--label-errors", type=share, default=0.0, metavar="SHARE",
                              help="with --semantics true: share of the world whose labels are wrong in every frame")
    localization.add_argument("--single-frame-every", type=not_negative(int), default=8, metavar="N",
                              help="single frames: every Nth by each method (default 8), 0 for none")
    localization.add_argument("--plots", type=output_folder, metavar="DIR",
                              help="write tracks, errors, recall and score maps")
    add_provider_options(localization)
    add_json_option(localization)
    localization.set_defaults(part=_localization)
    simulated = parts.add_parser("localization-simulated", help="the filter on many flights whose labels are simulated")
    simulated.add_argument("--map", type=Path, nargs="+", required=True, metavar="MAP.tif", dest="maps",
                           help="cities are built on them in turn, ten flights each")
    simulated.add_argument("--flights", type=count, default=60, metavar="N", help="in all (default 60)")
    simulated.add_argument("--seconds", type=positive(float, 7200), default=180.0, metavar="S",
                           help="each (default 180)")
    simulated.add_argument("--rate", type=positive(float, 100), default=2.0, metavar="HZ", help="of frames (default 2)")
    simulated.add_argument("--label-errors", type=share, default=0.15, metavar="SHARE",
                           help="of the world whose labels are wrong in every frame (default 0.15)")
    simulated.add_argument("--prior-error", type=positive(float, 1e5), default=300.0, metavar="M",
                           help="of the rough position, standard deviation on each axis (default 300)")
    simulated.add_argument("--seed", type=seed, default=0, help="of cities, courses and errors (default 0)")
    add_json_option(simulated)
    simulated.set_defaults(part=_localization_simulated)
    segmentation = parts.add_parser("segmentation", help="IoU of a segmentation model on a rendered data set")
    segmentation.add_argument("--images", type=Path, required=True, metavar="DIR",
                              help="folder of the frames: SET/images/thermal (grey), thermal16 (radiometric) or colour")
    segmentation.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    segmentation.add_argument("--masks", type=Path, metavar="DIR", help="default: SET/masks/semantic")
    segmentation.add_argument("--model", default="segmenter_compact", help="a shipped model's name, or an .onnx file")
    segmentation.add_argument("--plots", type=output_folder, metavar="DIR",
                              help="write frames with their labelling and IoU there")
    add_provider_options(segmentation)
    segmentation.add_argument("--card", metavar="DATA", help="note IoU and, of thermal frames, the confusion on the "
                              "model's card, measured on this data (words for people)")
    add_json_option(segmentation)
    segmentation.set_defaults(part=_segmentation)
    realism = parts.add_parser("realism", help="how like real thermal frames rendered ones are")
    realism.add_argument("--images", type=Path, required=True, help="folder of the rendered frames")
    realism.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    realism.add_argument("--real-images", type=Path, required=True, help="folder of the real frames")
    realism.add_argument("--real-annotations", type=Path, required=True, metavar="COCO.json")
    realism.add_argument("--out", type=output_folder, required=True, metavar="DIR",
                         help="for plots and a sheet of frames")
    add_json_option(realism)
    realism.set_defaults(part=_realism)
    evaluate_all.add_parser(parts)


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _detection(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.detection import SCORE_FLOOR, evaluate_detection, read_coco_set, write_plots

    data = read_coco_set(args.images, args.annotations, args.dates)
    engine = load_engine(args.model, **provider_options(args))
    detector = Detector(engine, score_threshold=SCORE_FLOOR, max_detections=300)
    figures, results = evaluate_detection(
        detector, data, lambda records: progress(records, description=engine.card.name, unit="frame"),
        evaluate_fusion.chosen_labelling(args, detector, data), evaluate_fusion.chosen_views(args, detector, data))
    print(table(["class", "AP50"], [*figures["ap50"].items(), ("mean", figures["map50"])]))
    print(table(["frames", "AP50:95", "mean IoU", "median ms"],
                [[figures["frames"], figures["map50_95"], figures["mean_iou"], figures["median_ms"]]]))
    if args.plots:
        write_plots(args.plots, results, data, figures)
        print(f"plots in {args.plots}")
    write_json(args.json, figures)
    if args.card:
        _note_on_card(args, figures)
    return 0


def _localization(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.localization_runs import LocalizationRuns

    runs = LocalizationRuns(args.maps, progress, prior_error_m=args.prior_error, seed=args.seed, plots=args.plots,
                            model=None if args.semantics == "true" else args.model, label_errors=args.label_errors,
                            every=args.single_frame_every, engine_options=provider_options(args))
    for bag in args.bags:
        run = runs.add(bag)
        print(f"{run.name}: {runs.line(run)}")
    figures = runs.figures()
    print(table(["", "flights" if len(args.bags) > 1 else "flight"], runs.rows(figures)))
    if figures["single_frame"]:
        print(table(["single frame", "frames", "<= 10 m", "<= 25 m", "median m", "accepted", "their median m", "ms"],
                    [[name.replace("_", " "), method["frames"], method["within_10m"], method["within_25m"],
                      method["median_m"], method["accepted"], method["accepted_median_m"], method["median_ms"]]
                     for name, method in figures["single_frame"]["methods"].items()]))
    if args.plots:
        print(f"plots in {args.plots}")
    write_json(args.json, figures)
    return 0


def _localization_simulated(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.localization_simulation import Conditions, figures, simulate
    from thermalreid_ros.localization.localizer import LocalizerConfig

    conditions = Conditions(label_error=args.label_errors, prior_error_m=args.prior_error, duration_s=args.seconds,
                            rate_hz=args.rate)
    outcomes = []
    for flight in progress(simulate(args.maps, args.flights, args.seed, conditions, LocalizerConfig(seed=args.seed)),
                           total=args.flights, description="flights", unit="flight"):
        outcomes.append(flight)
        if flight.false_lock:
            print(f"{flight.name}: FALSE LOCK, {flight.errors_m.max():.0f} m")
    result = figures(outcomes)
    parts = [name for name in ("varied", "uniform") if result[name]]
    print(table(["over ground that is", *parts],
                [[key.replace("_", " "), *(result[name][key] for name in parts)] for key in result[parts[0]]]))
    write_json(args.json, {**result, "label_errors": args.label_errors, "prior_error_m": args.prior_error,
                           "seconds": args.seconds, "rate_hz": args.rate, "seed": args.seed,
                           "maps": [path.name for path in args.maps]})
    return 0


def _segmentation(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.segmentation import evaluate_segmentation, read_labelled_set, write_plots
    from thermalreid_ros.localization.segmenter import Segmenter

    data = read_labelled_set(args.images, args.annotations, args.masks)
    engine = load_engine(args.model, **provider_options(args))
    segmenter = Segmenter(engine)
    figures = evaluate_segmentation(
        segmenter, data, lambda records: progress(records, description=engine.card.name, unit="frame"))
    print(table(["class", "IoU", *(f"as {name}" for name in engine.card.classes)],
                [[name, value, *row] for (name, value), row in zip(figures["iou"].items(), figures["confusion"])]))
    print(table(["frames", "mIoU", "accuracy", "median ms", *(f"mIoU {part}" for part in ("day", "night") if part in
                                                               figures)],
                [[figures["frames"], figures["miou"], figures["accuracy"], figures["median_ms"],
                  *(figures[part]["miou"] for part in ("day", "night") if part in figures)]]))
    if args.plots:
        write_plots(args.plots, segmenter, data, figures)
        print(f"plots in {args.plots}")
    write_json(args.json, figures)
    if args.card:
        _note_segmentation(args, figures)
    return 0


def _realism(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.detection import read_coco_set
    from thermalreid_ros.evaluation.pictures import save_picture
    from thermalreid_ros.evaluation.realism import compare, figures, plot, sheet

    sets = {"real": read_coco_set(args.real_images, args.real_annotations),
            "rendered": read_coco_set(args.images, args.annotations)}
    paths = {source: data.paths for source, data in sets.items()}
    groups = compare(paths, {source: data.coco["images"] for source, data in sets.items()},
                     progress=lambda todo: progress(todo, description="realism", unit="group"))
    rows = figures(groups, "real", "rendered")
    print(table(["light", "altitude", "frames", "grey distance", "gradient distance", "spread", "sharpness", "slope"],
                [[row["light"], row["altitude"], *(" / ".join(f"{value:.3g}" for value in row[key]) if isinstance(
                    row[key], list) else row[key] for key in ("frames", "grey_distance", "gradient_distance", "spread",
                                                              "sharpness", "spectral_slope"))] for row in rows]))
    args.out.mkdir(parents=True, exist_ok=True)
    plot(args.out / "realism.png", groups)
    save_picture(args.out / "frames.jpg", sheet(paths))
    print(f"plots and frames in {args.out}")
    write_json(args.json, {"groups": rows})
    return 0


def _note_on_card(args: argparse.Namespace, figures: dict) -> None:
    """Replace the card's metrics on this data; of paths the last two or three parts are kept, the rest differs from
    place to place."""
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.engine.packing import write_card

    path, card = open_model(args.model)
    command = _short_command("detection", path, args)
    if args.dates:
        command += f" --dates {' '.join(args.dates)}"
    if args.semantics != "none":
        command += f" --semantics {args.semantics}"
        if args.semantics in ("predicted", "map"):
            command += f" --segmenter {args.segmenter}"
        if args.semantics == "map":
            command += f" --map {' '.join(path.name for path in args.maps)} --fix-error {args.fix_error:g}"
    if figures["perspective"] != (args.semantics == "map"):
        command += " --perspective" if figures["perspective"] else " --no-perspective"
    if args.focal_px is not None and figures["perspective"]:
        command += f" --focal-px {args.focal_px:g}"
    values = {f"AP50 {name}": value for name, value in figures["ap50"].items() if value is not None}
    values |= {"mean AP50": figures["map50"], "mean AP50:95": figures["map50_95"]}
    write_card(path, {**card.to_mapping(), "metrics": _with_noted(card, values, args, figures, command)})
    print(f"noted on {path.with_suffix('.yaml')}")


def _note_segmentation(args: argparse.Namespace, figures: dict) -> None:
    """Replace the card's metrics on this data, and the confusion of that kind of frames where they are thermal."""
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.engine.packing import write_card

    path, card = open_model(args.model)
    values = {f"IoU {name}": value for name, value in figures["iou"].items() if value is not None}
    values["mIoU"] = figures["miou"]
    metrics = _with_noted(card, values, args, figures, _short_command("segmentation", path, args))
    key = {"thermal16": "confusion_radiometric", "colour": None}.get(args.images.name, "confusion")
    write_card(path, {**card.to_mapping(), "metrics": metrics, **({key: figures["confusion_of_towns"]} if key else {})})
    print(f"noted on {path.with_suffix('.yaml')}")


def _short_command(part: str, model: Path, args: argparse.Namespace) -> str:
    kept = 3 if args.images.absolute().parent.name == "images" else 2  # SET/images/KIND, else FOLDER/NAME
    short = ["/".join(item.absolute().parts[-kept:]) for item in (args.images, args.annotations)]
    by = "" if args.providers == DEFAULT_PROVIDERS else f" --providers {','.join(args.providers)}"
    return f"thermalreid evaluate {part} --model {model.stem} --images {short[0]} --annotations {short[1]}{by}"


def _with_noted(card, values: dict[str, float], args: argparse.Namespace, figures: dict, command: str) -> list[dict]:
    noted = [{"name": name, "value": round(value, 4), "data": f"{args.card}, {figures['frames']} frames",
              "command": command} for name, value in values.items()]
    return [dict(metric) for metric in card.metrics if metric["command"] != command] + noted
