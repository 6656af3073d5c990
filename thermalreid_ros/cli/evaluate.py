"""`thermalreid evaluate`: quality on annotated data."""

from __future__ import annotations

import argparse
from pathlib import Path

from thermalreid_ros.cli.output import add_json_option, table, write_json


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("evaluate", help="measure quality on annotated data")
    parts = parser.add_subparsers(metavar="part", required=True)
    detection = parts.add_parser("detection", help="average precision of a detection model on a COCO set")
    detection.add_argument("--images", type=Path, required=True, help="folder of the frames")
    detection.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    detection.add_argument("--model", default="yolo_compact", help="a shipped model's name, or an .onnx file")
    detection.add_argument("--semantics", choices=("none",), default="none",
                           help="semantic labelling given to the model (none yet: maps come with localization)")
    detection.add_argument("--dates", nargs="+", default=(), metavar="YYYYMMDD",
                           help="only frames captured on these dates (date_captured)")
    detection.add_argument("--plots", type=Path, metavar="DIR", help="write precision-recall curves and frames there")
    detection.add_argument("--threads", type=int, default=0, help="of the CPU provider; 0: all cores")
    detection.add_argument("--card", metavar="DATA", help="note AP50 on the model's card, measured on this data "
                           "(words for people: 'HIT-UAV val')")
    add_json_option(detection)
    detection.set_defaults(part=_detection)
    realism = parts.add_parser("realism", help="how like real thermal frames rendered ones are")
    realism.add_argument("--images", type=Path, required=True, help="folder of the rendered frames")
    realism.add_argument("--annotations", type=Path, required=True, metavar="COCO.json")
    realism.add_argument("--real-images", type=Path, required=True, help="folder of the real frames")
    realism.add_argument("--real-annotations", type=Path, required=True, metavar="COCO.json")
    realism.add_argument("--out", type=Path, required=True, metavar="DIR", help="for plots and a sheet of frames")
    add_json_option(realism)
    realism.set_defaults(part=_realism)


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _detection(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.detection import SCORE_FLOOR, evaluate_detection, read_coco_set, write_plots

    data = read_coco_set(args.images, args.annotations, args.dates)
    engine = load_engine(args.model, threads=args.threads)
    detector = Detector(engine, score_threshold=SCORE_FLOOR, max_detections=300)
    figures, results = evaluate_detection(
        detector, data, lambda records: progress(records, description=engine.card.name, unit="frame"))
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


def _realism(args: argparse.Namespace) -> int:
    import cv2

    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.detection import read_coco_set
    from thermalreid_ros.evaluation.realism import compare, figures, plot, sheet
    from thermalreid_ros.files import write_atomically

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
    write_atomically(args.out / "frames.jpg", cv2.imencode(".jpg", sheet(paths))[1].tobytes())
    print(f"plots and frames in {args.out}")
    write_json(args.json, {"groups": rows})
    return 0


def _note_on_card(args: argparse.Namespace, figures: dict) -> None:
    """Replace the card's metrics on this data; of paths the last two parts are kept, the rest differs from place to
    place."""
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.engine.packing import write_card

    path, card = open_model(args.model)
    short = [str(Path(*item.parts[-2:])) for item in (args.images, args.annotations)]
    command = f"thermalreid evaluate detection --model {path.stem} --images {short[0]} --annotations {short[1]}"
    if args.dates:
        command += f" --dates {' '.join(args.dates)}"
    values = {f"AP50 {name}": value for name, value in figures["ap50"].items() if value is not None}
    values |= {"mean AP50": figures["map50"], "mean AP50:95": figures["map50_95"]}
    noted = [{"name": name, "value": round(value, 4), "data": f"{args.card}, {figures['frames']} frames",
              "command": command} for name, value in values.items()]
    kept = [dict(metric) for metric in card.metrics if metric["command"] != command]
    write_card(path, {**card.to_mapping(), "metrics": kept + noted})
    print(f"noted on {path.with_suffix('.yaml')}")
