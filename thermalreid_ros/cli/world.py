"""`thermalreid world`: pictures, data sets and flights of the virtual city."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thermalreid_ros.cli.arguments import bounded, count, not_negative, output_file, output_folder, positive, seed
from thermalreid_ros.cli.output import add_json_option, write_json
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.maps.classes import CLASS_NAMES as GROUND_NAMES

DEFAULT_DATE = "2025-07-15"
DAY_HOUR, NIGHT_HOUR = 13.0, 1.0  # solar
MOST_M = 1e4  # above the ground
_PICTURES, _FLOWN = positive(int, 1000), not_negative(int, 1000)  # of an identity
#: Arguments that do not change what is made.
_ASIDE = ("run", "action", "json", "workers", "command")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("world", help="render the virtual city", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    render = actions.add_parser("render", help="one view in every band, by day and by night, to look at")
    _add_world(render)
    _add_time(render)
    _add_camera(render, fov_deg=45.0)
    render.add_argument("--out", type=output_file, required=True, metavar="PNG", help="the picture")
    render.add_argument("--altitude", type=positive(float, MOST_M), default=70.0, metavar="M", help="default 70")
    render.add_argument("--depression", type=_depression, default=40.0, metavar="DEG",
                        help="of the camera below the horizon (default 40)")
    add_json_option(render)

    fly = actions.add_parser("fly", help="a flight as a recording, with truth and probes")
    _add_world(fly)
    _add_time(fly)
    _add_camera(fly, fov_deg=45.0)
    fly.add_argument("--seconds", type=positive(float, 7200), required=True, metavar="S")
    fly.add_argument("--out", type=Path, required=True, metavar="BAG",
                     help="the recording's folder; the photographs of the identity to be found go to probes/ beside it")
    fly.add_argument("--rate", type=positive(float, 100), default=10.0, metavar="HZ",
                     help="frames a second (default 10)")
    fly.add_argument("--pattern", choices=("survey", "loop", "orbit"), help="drawn from the seed by default")
    fly.add_argument("--altitude", type=positive(float, MOST_M), metavar="M", help="drawn from 60 to 130 m by default")
    fly.add_argument("--depression", type=_depression, metavar="DEG", help="drawn from 45 to 90 degrees by default")
    fly.add_argument("--speed", type=positive(float, 100), metavar="M/S", help="drawn from 8 to 12 m/s by default")
    fly.add_argument("--target-class", metavar="CLASS", help="of the identity to be found; any by default")
    fly.add_argument("--probes", type=positive(int, 100), default=4, metavar="N", help="photographs of it (default 4)")
    fly.add_argument("--prior-error", type=positive(float, 1e5), default=300.0, metavar="M",
                     help="standard deviation of the rough position (default 300)")
    fly.add_argument("--agc", action="store_true", help="record thermal/image_agc too")
    fly.add_argument("--depth", action="store_true", help="record truth/depth too")
    fly.add_argument("--compact", type=_quality, nargs="?", const=25, metavar="QUALITY",
                     help="WebP pictures after gain control, no instances: at quality 25, the default, a hundredth of "
                          "the size")
    fly.add_argument("--dense", action="store_true", help="a crowded city")
    _add_workers(fly)
    add_json_option(fly)

    dataset = actions.add_parser("dataset", help="frames with boxes and masks (COCO), split by place")
    dataset.add_argument("--map", type=Path, nargs="+", required=True, metavar="MAP.tif", dest="maps")
    dataset.add_argument("--images", type=count, required=True, metavar="N")
    dataset.add_argument("--seed", type=seed, required=True, metavar="N")
    dataset.add_argument("--out", type=Path, required=True, metavar="DIR")
    dataset.add_argument("--val-share", type=_share, default=0.2, help="of the images (default 0.2)")
    dataset.add_argument("--night-share", type=_share, default=0.5, help="of the sessions (default 0.5)")
    dataset.add_argument("--session-size", type=count, default=25, metavar="N",
                         help="images that share place, day and weather (default 25)")
    dataset.add_argument("--image-size", type=_size, default=(640, 512), metavar="WxH", help="default 640x512")
    dataset.add_argument("--altitude", type=_range(0.0, MOST_M), default=(60.0, 130.0), metavar="LOW:HIGH",
                         help="default 60:130")
    dataset.add_argument("--depression", type=_range(5.0, 90.0), default=(30.0, 90.0), metavar="LOW:HIGH",
                         help="default 30:90")
    dataset.add_argument("--fov", type=_range(1.0, 120.0), default=(22.0, 45.0), metavar="LOW:HIGH",
                         help="horizontal field of view (default 22:45)")
    dataset.add_argument("--aim", choices=(*CLASS_NAMES, *GROUND_NAMES), nargs="+", default=[], metavar="CLASS",
                         help="look near objects of these classes only, each as often as it is named (car, person, "
                         "bicycle, dog; default all, dogs less often), or at ground of these (ground, road, building, "
                         "vegetation, water)")
    dataset.add_argument("--difference", type=_share, default=1.0, help=_DIFFERENCE)
    dataset.add_argument("--thermal16", action="store_true", help="write radiometric 16-bit pictures too")
    dataset.add_argument("--no-colour", action="store_true", help="leave out the visible band: a third faster")
    _add_workers(dataset)
    add_json_option(dataset)

    reid = actions.add_parser("reid-set", help="identities with colour probes and a thermal gallery")
    _add_world(reid, size_m=1000.0)
    _add_camera(reid, fov_deg=32.0)
    reid.add_argument("--identities", type=count, required=True, metavar="N",
                      help="of all classes together, in equal shares")
    reid.add_argument("--out", type=Path, required=True, metavar="DIR")
    reid.add_argument("--probes", type=_PICTURES, default=4, metavar="N", help="of each identity (default 4)")
    reid.add_argument("--gallery", type=_PICTURES, default=8, metavar="N", help="of each identity (default 8)")
    _add_workers(reid)
    add_json_option(reid)

    pairs = actions.add_parser("pairs", help="identities near by in colour and thermal, and from a drone, to train on")
    _add_world(pairs, size_m=500.0)
    _add_camera(pairs, fov_deg=32.0)
    pairs.add_argument("--identities", type=count, required=True, metavar="N",
                       help="of all classes together, in equal shares")
    pairs.add_argument("--out", type=Path, required=True, metavar="DIR")
    pairs.add_argument("--views", type=_PICTURES, default=4, metavar="N",
                       help="places and times that each identity is seen at (default 4)")
    pairs.add_argument("--drone", type=_FLOWN, default=2, metavar="N",
                       help="pictures from a drone at each of them (default 2); 0: photographs alone")
    pairs.add_argument("--group", type=count, default=48, metavar="N",
                       help="identities that share places and times (default 48)")
    _add_workers(pairs)
    add_json_option(pairs)

    sketches = actions.add_parser("sketches", help="photographs of very many identities on plain ground")
    sketches.add_argument("--seed", type=seed, required=True, metavar="N")
    sketches.add_argument("--identities", type=count, required=True, metavar="N",
                          help="of all classes together, in equal shares")
    sketches.add_argument("--classes", nargs="+", choices=CLASS_NAMES, default=list(CLASS_NAMES), metavar="CLASS",
                          help=f"of {', '.join(CLASS_NAMES)} (default all)")
    sketches.add_argument("--views", type=_PICTURES, default=4, metavar="N", help="of each identity (default 4)")
    sketches.add_argument("--drone", type=_FLOWN, default=0, metavar="N",
                          help="thermal pictures from a drone with each view (default 0)")
    sketches.add_argument("--company", type=_share, default=0.0, metavar="SHARE",
                          help="of the pictures in which others are beside the identity, as cars and people are in "
                               "streets (default 0)")
    sketches.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_workers(sketches)
    add_json_option(sketches)

    physics = actions.add_parser("physics", help="measure the thermal band against the literature: a report")
    physics.add_argument("--out", type=output_folder, required=True, metavar="DIR")
    add_json_option(physics)


_DIFFERENCE = "of the world from the map, 0 (the map as it is) to 1 (default 1)"


def _add_world(parser: argparse.ArgumentParser, size_m: float = 2000.0) -> None:
    parser.add_argument("--map", type=Path, required=True, metavar="MAP.tif")
    parser.add_argument("--seed", type=seed, required=True, metavar="N")
    parser.add_argument("--centre", type=_place, metavar="LAT,LON", help="of the area; drawn from the seed by default")
    parser.add_argument("--size", type=positive(float, 1e5), default=size_m, metavar="M",
                        help=f"side of the area (default {size_m:.0f})")
    parser.add_argument("--difference", type=_share, default=1.0, help=_DIFFERENCE)


def _add_time(parser: argparse.ArgumentParser) -> None:
    hour = parser.add_mutually_exclusive_group()
    hour.add_argument("--hour", type=_hour, metavar="H", help="mean solar hour, 0 to 24 (default 13)")
    hour.add_argument("--night", action="store_true", help="at one in the morning")
    parser.add_argument("--date", type=_date, default=DEFAULT_DATE, metavar="YYYY-MM-DD",
                        help=f"default {DEFAULT_DATE}")


def _add_camera(parser: argparse.ArgumentParser, fov_deg: float) -> None:
    parser.add_argument("--image-size", type=_size, default=(640, 512), metavar="WxH", help="default 640x512")
    parser.add_argument("--fov", type=_fov, default=fov_deg, metavar="DEG",
                        help=f"horizontal field of view (default {fov_deg:.0f})")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=positive(int, 1024), metavar="N",
                        help="processes (default: one for each core)")


def run(args: argparse.Namespace) -> int:
    return {"render": _render, "fly": _fly, "dataset": _dataset, "reid-set": _reid_set, "pairs": _pairs,
            "sketches": _sketches, "physics": _physics}[args.action](args)


def _render(args: argparse.Namespace) -> int:
    import cv2
    import numpy as np

    from thermalreid_ros.camera.geometry import Intrinsics
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.files import write_atomically
    from thermalreid_ros.world.strip import strip

    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ThermalReidError(f"{args.out}: a picture's name ends in .png or .jpg")
    city = _city(args)
    hours = [_hour_of(args)] if args.night or args.hour is not None else [DAY_HOUR, NIGHT_HOUR]
    picture, objects = strip(city, seed=args.seed, date=args.date, hours=hours, altitude_m=args.altitude,
                             depression_rad=np.radians(args.depression),
                             intrinsics=Intrinsics.from_field_of_view(*args.image_size, np.radians(args.fov)))
    done, data = cv2.imencode(args.out.suffix.lower(), picture[..., ::-1])
    if not done:
        raise ThermalReidError(f"{args.out}: the picture cannot be encoded")
    write_atomically(args.out, data.tobytes())
    write_json(args.json, {"objects": objects})
    print(f"look at {args.out}")
    return 0


def _fly(args: argparse.Namespace) -> int:
    import numpy as np

    from thermalreid_ros.camera.geometry import Intrinsics
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.evaluation.flight_bag import Recorder, record_flight
    from thermalreid_ros.world.film import Film, clear_flight, default_workers, render_film, solar_time, unfinished
    from thermalreid_ros.world.flight import FlightPlan
    from thermalreid_ros.world.population import Density, Population
    from thermalreid_ros.world.weather import Weather

    if args.target_class not in (None, *CLASS_NAMES):
        raise ThermalReidError(f"no identity is a '{args.target_class}'; choose one of: {', '.join(CLASS_NAMES)}")
    folder = unfinished(args.out, ("probes",))
    city, hour = _city(args), _hour_of(args)
    when = solar_time(args.date, hour, city.longitude_deg)
    weather = Weather.typical(city.latitude_deg, when, args.seed)
    plan = FlightPlan(args.seconds, args.pattern, args.altitude,
                      None if args.depression is None else np.radians(args.depression), args.speed,
                      1.4 * weather.wind_m_s)
    population = Population(city, args.seed, Density.dense() if args.dense else Density.at_hour(hour))
    film = Film(city, population, weather, clear_flight(population, plan, args.seed),
                Intrinsics.from_field_of_view(*args.image_size, np.radians(args.fov)), when, args.rate,
                max(int(args.seconds * args.rate + 1e-6), 1))
    folder.claim(_arguments(args, "map"))
    started, workers = time.monotonic(), args.workers or default_workers()
    fresh = film.count - folder.frames()
    for _ in progress(render_film(film, folder.path, workers), total=film.count, description="frames", unit="frame"):
        pass
    seconds = time.monotonic() - started
    recorder = Recorder(args.seed, agc=args.agc, depth=args.depth, prior_error_m=args.prior_error,
                        compact=args.compact or 0)
    custom = {"map": args.map.name, "seed": str(args.seed), "command": _command(args)}
    figures = record_flight(args.out, film, folder, recorder, custom, target_class=args.target_class,
                            probes=args.probes, progress=progress)
    figures["fps"] = fresh / seconds if fresh else None
    write_json(args.json, figures)
    target = figures["target"]
    print(f"{args.out}: {figures['frames']} frames, {figures['identities']} identities, {figures['size_mb']:.0f} MB"
          + (f"; find {target} in {figures['target_frames']} of them" if target else "; nobody to be found"))
    return 0


def _dataset(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.world.dataset import DatasetPlan, make_dataset, summary
    from thermalreid_ros.world.film import default_workers

    plan = DatasetPlan(tuple(args.maps), args.seed, args.images, args.val_share, args.night_share, args.session_size,
                       args.image_size, args.altitude, args.depression, args.fov, difference=args.difference,
                       thermal16=args.thermal16, colour=not args.no_colour, aimed_at=tuple(args.aim))
    sessions = make_dataset(plan, args.out, _arguments(args, "maps"), args.workers or default_workers())
    with progress(total=args.images, description="images", unit="image") as bar:
        for count in sessions:
            bar.update(count)
    figures = summary(args.out)
    write_json(args.json, figures)
    print(f"{args.out}: " + ", ".join(f"{count} {name}" for name, count in figures["images"].items()) + " images; "
          + ", ".join(f"{count} {name}" for name, count in figures["objects"].items()))
    return 0


def _reid_set(args: argparse.Namespace) -> int:
    import json

    import numpy as np

    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.world.film import default_workers
    from thermalreid_ros.world.reid_set import ReidSetPlan, make_reid_set

    plan = ReidSetPlan(args.map, args.seed, args.identities, args.probes, args.gallery, args.size, args.centre,
                       args.difference, np.radians(args.fov), args.image_size)
    sessions = make_reid_set(plan, args.out, _arguments(args, "map"), args.workers or default_workers())
    for _ in progress(sessions, total=args.probes + args.gallery, description="sessions", unit="session"):
        pass
    index = json.loads((args.out / "index.json").read_text())
    figures = {"identities": len(index["identities"]), "probes": len(index["probes"]),
               "gallery": len(index["gallery"]), "complete": sum(
                   e["probes"] > 0 and e["gallery"] > 1 for e in index["identities"])}
    write_json(args.json, figures)
    print(f"{args.out}: {figures['identities']} identities, {figures['probes']} probes, {figures['gallery']} pictures "
          f"in the gallery; {figures['complete']} identities have a probe and two of the gallery at least")
    return 0


def _pairs(args: argparse.Namespace) -> int:
    import numpy as np

    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.world.film import default_workers
    from thermalreid_ros.world.pairs import PairsPlan, make_pairs

    plan = PairsPlan(args.map, args.seed, args.identities, args.views, args.drone, args.group, args.size, args.centre,
                     args.difference, np.radians(args.fov), args.image_size)
    sessions = make_pairs(plan, args.out, _arguments(args, "map"), args.workers or default_workers())
    count = sum(progress(sessions, total=len(plan.groups()) * args.views, description="sessions", unit="session"))
    write_json(args.json, {"identities": args.identities, "pairs": count})
    print(f"{args.out}: {count} pairs of {args.identities} identities")
    return 0


def _physics(args: argparse.Namespace) -> int:
    from thermalreid_ros.evaluation.physics import write_physics_report

    figures = write_physics_report(args.out)
    write_json(args.json, figures)
    print(f"look at {args.out}")
    return 0


def _city(args: argparse.Namespace) -> Any:
    from thermalreid_ros.world.city import build_city

    return build_city(args.map, centre=args.centre, size_m=args.size, seed=args.seed, difference=args.difference)


def _hour_of(args: argparse.Namespace) -> float:
    return NIGHT_HOUR if args.night else DAY_HOUR if args.hour is None else args.hour


def _sketches(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.world.film import default_workers
    from thermalreid_ros.world.sketches import SketchPlan, make_sketches

    classes = list(dict.fromkeys(args.classes))  # named twice, a class would have each of its identities twice
    plan = SketchPlan(args.seed, args.identities, tuple(classes), args.views, args.drone, args.company)
    sessions = make_sketches(plan, args.out, {"seed": args.seed, "identities": args.identities, "classes": classes,
                                              "views": args.views, "drone": args.drone,
                                              "company": args.company},
                             args.workers or default_workers())
    count = sum(progress(sessions, total=len(plan.groups()), description="sessions", unit="session"))
    write_json(args.json, {"identities": args.identities, "sketches": count})
    print(f"{args.out}: {count} sketches of {args.identities} identities")
    return 0


def _arguments(args: argparse.Namespace, maps: str) -> dict[str, Any]:
    """All that decides what is made, the maps by their content, to know unfinished work by."""
    import hashlib

    from thermalreid_ros.errors import ThermalReidError

    values = {name: value for name, value in sorted(vars(args).items()) if name not in (*_ASIDE, "out", maps)}
    paths = getattr(args, maps)
    try:
        values["maps"] = [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()]
                          for path in (paths if isinstance(paths, list) else [paths])]
    except OSError as error:
        raise ThermalReidError(f"{error.filename}: cannot be read ({error.strerror})") from None
    return values


def _command(args: argparse.Namespace) -> str:
    """The command as it may be published: paths of this machine reduced to their last part."""
    return shlex.join(["thermalreid", "world", args.action, *_options(args)])


def _options(args: argparse.Namespace) -> Iterator[str]:
    for name, value in sorted(vars(args).items()):
        if name in _ASIDE or value is None or value is False:
            continue
        yield f"--{name.replace('_', '-')}"
        if isinstance(value, Path):
            yield value.name
        elif name == "image_size":
            yield "{}x{}".format(*value)
        elif isinstance(value, tuple):
            yield ",".join(f"{part:.12g}" for part in value)
        elif value is not True:
            yield f"{value:.12g}" if isinstance(value, float) else str(value)


def _quality(text: str) -> int:
    return bounded(text, int, 1, 100, f"'{text}' is no quality, 1 to 100")


def _bounded(text: str, low: float, high: float, what: str) -> float:
    return bounded(text, float, low, high, f"'{text}' is no {what}, {low:g} to {high:g}")


def _share(text: str) -> float:
    return _bounded(text, 0.0, 1.0, "share")


def _hour(text: str) -> float:
    return _bounded(text, 0.0, 24.0, "hour")


def _depression(text: str) -> float:
    return _bounded(text, 5.0, 90.0, "angle below the horizon")


def _fov(text: str) -> float:
    return _bounded(text, 1.0, 120.0, "field of view in degrees")


def _place(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is not LAT,LON, e.g. 43.7385,7.4246")
    return _bounded(parts[0], -90.0, 90.0, "latitude"), _bounded(parts[1], -180.0, 180.0, "longitude")


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 16 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no size of 16 to 4096 pixels, e.g. 640x512")
    return int(parts[0]), int(parts[1])


def _range(least: float, most: float):
    """The argument type of LOW:HIGH, above zero and within these bounds."""
    def parse(text: str) -> tuple[float, float]:
        parts = text.split(":")
        try:
            low, high = (float(part) for part in parts)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not LOW:HIGH, e.g. 60:130") from None
        if not 0 < low <= high:
            raise argparse.ArgumentTypeError(f"'{text}' does not rise from above zero")
        if low < least or high > most:
            raise argparse.ArgumentTypeError(f"'{text}' is not within {least:g} to {most:g}")
        return low, high
    return parse


def _date(text: str) -> str:
    from thermalreid_ros.errors import ThermalReidError
    from thermalreid_ros.world.film import solar_time

    try:
        solar_time(text, DAY_HOUR, 0.0)
    except ThermalReidError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
