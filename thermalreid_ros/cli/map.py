"""`thermalreid map`: semantic maps from OpenStreetMap."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from thermalreid_ros.cli.arguments import bounded, output_file
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("map", help="semantic maps from OpenStreetMap")
    parts = parser.add_subparsers(metavar="part", required=True)
    build = parts.add_parser("build", help="draw the map of an OpenStreetMap extract")
    build.add_argument("--osm", type=Path, required=True, metavar="FILE", help=".osm.pbf, .osm or .osm.gz")
    build.add_argument("--out", type=Path, required=True, metavar="MAP.tif")
    build.add_argument("--bbox", type=_bbox, metavar="W,S,E,N", help="only this part; degrees, WGS84")
    build.add_argument("--resolution", type=_resolution, default=0.5, metavar="M",
                       help="metres per pixel, 0.1 to 5 (default 0.5)")
    add_json_option(build)
    build.set_defaults(part=_build)
    info = parts.add_parser("info", help="what a map holds")
    info.add_argument("map", type=Path, metavar="MAP.tif")
    add_json_option(info)
    info.set_defaults(part=_info)
    preview = parts.add_parser("preview", help="a picture of a map, with its legend")
    preview.add_argument("map", type=Path, metavar="MAP.tif")
    preview.add_argument("--out", type=output_file, required=True, metavar="PNG")
    preview.set_defaults(part=_preview)
    describe = parts.add_parser("describe", help="compute the descriptors of its tiles, which localization searches")
    describe.add_argument("map", type=Path, metavar="MAP.tif")
    describe.add_argument("--model", default="tile_distance", metavar="NAME", help="name or .onnx file (tile_distance)")
    add_provider_options(describe)
    describe.set_defaults(part=_describe)


def _resolution(text: str) -> float:
    return bounded(text, float, 0.1, 5.0, f"{text} m per pixel are no map to find a place on: 0.1 to 5")


def run(args: argparse.Namespace) -> int:
    return args.part(args)


def _bbox(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not W,S,E,N, e.g. 15.59,48.40,15.61,48.41") from None
    if not (-180 <= west < east <= 180 and -80 <= south < north <= 84):
        raise argparse.ArgumentTypeError(f"'{text}': W,S,E,N are degrees with W < E and S < N, between 80 south "
                                         "and 84 north, where UTM ends")
    return west, south, east, north


def _build(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.maps.build import build_map

    with progress(total=1.0, description="map", bar_format="{desc}{percentage:3.0f}%|{bar}| "
                                                           "[{elapsed}<{remaining}]") as bar:
        def show(stage: str, share: float) -> None:
            bar.set_description(stage, refresh=sys.stderr.isatty())
            bar.update(share - bar.n)

        build_map(args.osm, args.out, bbox=args.bbox, resolution_m=args.resolution, progress=show)
    return _report(args.out, args.json)


def _info(args: argparse.Namespace) -> int:
    return _report(args.map, args.json)


def _report(path: Path, json_path: Path | None) -> int:
    from thermalreid_ros.maps.store import SemanticMap

    with SemanticMap.open(path) as semantic_map:
        south_west, north_east = (semantic_map.grid.to_geographic(x, y) for x, y in
                                  (semantic_map.bounds[:2], semantic_map.bounds[2:]))
        values = {"classes": semantic_map.shares, "width_m": semantic_map.bounds[2],
                  "height_m": semantic_map.bounds[3], "crs": semantic_map.crs,
                  "resolution_m": semantic_map.resolution_m,
                  "mapped_km2": sum(semantic_map.pixel_counts.values()) * semantic_map.resolution_m ** 2 / 1e6,
                  "bbox": [float(value) for value in (*south_west[::-1], *north_east[::-1])],
                  "osm_timestamp": semantic_map.osm_timestamp, "attribution": semantic_map.attribution}
    print(table(("class", "share"), [(name, f"{100 * share:.2f} %") for name, share in values["classes"].items()]))
    print(f"{path}: {values['width_m']:.0f} x {values['height_m']:.0f} m, {values['mapped_km2']:.3g} km2 mapped, "
          f"{values['crs']}, {values['resolution_m']:g} m/px, data of {values['osm_timestamp'] or 'unknown date'}\n"
          f"{values['attribution']}")
    write_json(json_path, values)
    return 0


def _preview(args: argparse.Namespace) -> int:
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.evaluation.pictures import save_picture
    from thermalreid_ros.maps.preview import preview
    from thermalreid_ros.maps.store import SemanticMap

    if args.out.suffix.lower() != ".png":
        raise ThermalReidError(f"{args.out}: a preview is a PNG; name it something.png")
    with SemanticMap.open(args.map) as semantic_map:
        save_picture(args.out, preview(semantic_map)[..., ::-1])
    return 0


def _describe(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.localization.tile_search import describe_map
    from thermalreid_ros.maps.store import SemanticMap
    from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, Tiles, descriptors_path

    with SemanticMap.open(args.map) as semantic_map:
        count = len(Tiles(semantic_map, LOCALIZATION_TILING))
        engine = load_engine(args.model, **provider_options(args))
        with progress(total=count, description="tiles", unit="tile") as bar:
            written = describe_map(semantic_map, engine, bar.update)
        path = descriptors_path(args.map)
        print(f"{path}: {count} tiles, {written.rows.shape[1]} numbers each, {path.stat().st_size / 1e6:.1f} MB, for "
              f"{engine.card.name}")
    return 0
