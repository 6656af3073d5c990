"""`thermalreid evaluate target`: how well detected objects are placed on the ground."""

from __future__ import annotations

import argparse
from pathlib import Path

from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json


def add_parser(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("target", help="places of detected objects on recorded flights", description=__doc__)
    parser.add_argument("--bag", type=Path, nargs="+", required=True, metavar="BAG", dest="bags",
                        help="recordings as thermalreid world fly makes them")
    parser.add_argument("--map", type=Path, nargs="+", required=True, metavar="MAP.tif", dest="maps",
                        help="one, or those of all towns: a recording says which it was flown over")
    parser.add_argument("--model", default="yolo_compact", help="detector (default yolo_compact)")
    parser.add_argument("--segmenter", default="segmenter_compact", metavar="MODEL",
                        help="of the localization (default segmenter_compact)")
    add_provider_options(parser)
    add_json_option(parser)
    parser.set_defaults(part=_run)


def _run(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.detection.detector import Detector
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.flight_input import damage_of
    from thermalreid_ros.evaluation.localization_runs import maps_by_name
    from thermalreid_ros.evaluation.targets import place_objects, target_figures
    from thermalreid_ros.localization.segmenter import Segmenter
    from thermalreid_ros.maps.store import SemanticMap

    map_of = maps_by_name(args.maps)
    detector = Detector(load_engine(args.model, **provider_options(args)))
    segmenter = Segmenter(load_engine(args.segmenter, **provider_options(args)))
    flights = []
    for bag in args.bags:
        with SemanticMap.open(map_of(bag)) as semantic_map:
            flights.append(place_objects(bag, semantic_map, detector, segmenter, progress))
        if flights[-1].damage:
            print(flights[-1].damage)
    figures = target_figures(flights)
    columns = ("median_m", "p95_m", "ellipse95", "nees", "sights")
    rows = [(f"{name}, {kind.replace('_', ' ')}", row) for kind, of in figures.items()
            for name, row in (*of["flights"].items(), ("all", of))]
    print(table(["", *columns], [[name, *(row[key] for key in columns)] for name, row in rows]))
    write_json(args.json, {**figures, "damage": damage_of(flights), "frames_without_truth": sum(
        flight.frames_without_truth for flight in flights), "detector": args.model, "segmenter": args.segmenter})
    return 0
