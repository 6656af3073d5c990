"""`thermalreid map`: semantic maps from OpenStreetMap."""

from __future__ import annotations

import argparse
from pathlib import Path

from thermalreid_ros.cli.arguments import positive
from thermalreid_ros.cli.output import add_json_option, table, write_json


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("map", help="semantic maps from OpenStreetMap")
    parts = parser.add_subparsers(metavar="part", required=True)
    build = parts.add_parser("build", help="draw the map of an OpenStreetMap extract")
    build.add_argument("--osm", type=Path, required=True, metavar="FILE", help=".osm.pbf, .osm or .osm.gz")
    build.add_argument("--out", type=Path, required=True, metavar="MAP.tif")
    build.add_argument("--bbox", type=_bbox, metavar="W,S,E,N", help="only this part; degrees, WGS84")
    build.add_argument("--resolution", type=positive(float), default=0.5, metavar="M", help="metres per pixel")
    add_json_option(build)
    build.set_defaults(part=_build)


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _bbox(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not W,S,E,N, e.g. 15.59,48.40,15.61,48.41") from None
    if not (-180 <= west < east <= 180 and -80 <= south < north <= 84):
        raise argparse.ArgumentTypeError(f"'{text}': W,S,E,N are degrees with W < E and S < N, between 80 south "
                                         "and 84 north (where UTM ends)")
    return west, south, east, north


def _build(args: argparse.Namespace) -> int:
    from thermalreid_ros.maps.build import build_map

    summary = build_map(args.osm, args.out, bbox=args.bbox, resolution_m=args.resolution)
    print(table(("class", "share"), list(summary.shares.items())))
    print(f"{args.out}: {summary.width_m:.0f} x {summary.height_m:.0f} m, {summary.crs}")
    write_json(args.json, {"classes": summary.shares, "width_m": summary.width_m, "height_m": summary.height_m,
                           "crs": summary.crs})
    return 0
