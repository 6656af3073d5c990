"""`thermalreid demo`: the shipped recordings through the nodes, a search in the virtual city, and a page of it all."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from thermalreid_ros.cli.arguments import demo_map, output_folder
from thermalreid_ros.cli.output import add_json_option, write_json
from thermalreid_ros.cli.replay import positive, summary

RECORDING, FLIGHT = "hit_uav_night", "krems_day"
REPLAY_WITHIN_S, FLIGHT_WITHIN_S = 15.0, 40.0  # so that the whole demonstration takes little more than a minute
FASTEST, FASTEST_FLIGHT = 1.0, 4.0
CITY_SEED, CITY_SIZE_M, CITY_DATE, CITY_HOURS = 1, 600.0, "2025-07-15", (13.0, 1.0)
SEARCH_SEED, SEARCH_HOUR, PHOTOGRAPH_HOUR = 2, 21.0, 11.0
MARGIN = 1.5  # of the time between frames over that of one detection: the other nodes need the machine, too
FLIGHT_MARGIN = 3.0  # likewise over that of one labelling: the search for the place takes about as long


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("demo", help="replay the shipped recordings and write a page", description=__doc__)
    parser.add_argument("--out", type=output_folder, default=Path("out/demo"), metavar="DIR",
                        help="where the page goes (default out/demo)")
    parser.add_argument("--rate", type=positive, help="speed; by default what this machine keeps up with, but at "
                        f"least what ends within {REPLAY_WITHIN_S:.0f} s, the flight within {FLIGHT_WITHIN_S:.0f} s")
    parser.add_argument("--model", help="detector, instead of the one in the parameter file")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    import yaml

    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.page import write_page
    from thermalreid_ros.evaluation.page_flight import flight_section_of
    from thermalreid_ros.evaluation.replay import run_replay, sustainable_rate
    from thermalreid_ros.files import shipped

    recording = shipped("config") / "recordings" / RECORDING
    card = yaml.safe_load((recording / "probe.yaml").read_text())
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rate = args.rate or sustainable_rate(recording, model=args.model, margin=MARGIN, within_s=REPLAY_WITHIN_S,
                                         fastest=FASTEST)
    replay = run_replay(recording, probe=recording / "probe.png", probe_class=card["class_name"], rate=rate,
                        model=args.model, domain_id=1 + os.getpid() % 101, progress=progress, say=print)
    figures = replay.figures()
    print(summary(figures))
    flight = shipped("config") / "recordings" / FLIGHT
    flown = run_replay(flight, map_path=demo_map(), rate=args.rate or _flight_rate(flight), detect=False,
                       domain_id=1 + os.getpid() % 101, progress=progress, say=print)
    figures["flight"] = flown.figures()
    print(_flown(figures["flight"]))
    write_json(args.json, figures)
    print("building the virtual city")
    city = _city()
    searched = _search(city, args.model)
    print("rendering it by day and by night")
    path = write_page(args.out / "index.html", replay, command="thermalreid demo", city=_views(city),
                      flight=flight_section_of(flown), search=searched)
    print(f"\nlook at {path}")
    return 0


def _flight_rate(recording: Path) -> float:
    """The speed at which this machine labels and places the frames of a flight in time, as replay.sustainable_rate."""
    import time
    from itertools import islice

    import numpy as np

    from thermalreid_ros.engine import load_engine
    from thermalreid_ros.evaluation.flight_input import Flight
    from thermalreid_ros.localization.segmenter import Segmenter
    from thermalreid_ros.maps.store import SemanticMap

    with SemanticMap.open(demo_map()) as semantic_map, Flight(recording, semantic_map) as flight:
        frames = list(islice(flight.frames(), 8))
        period_s, recorded_s = float(np.median(np.diff(flight.seconds))), float(flight.seconds[-1])
    segmenter, times_s = Segmenter(load_engine("segmenter_compact")), []
    for frame in frames:
        began_s = time.perf_counter()
        segmenter.segment(frame)
        times_s.append(time.perf_counter() - began_s)
    wanted = period_s / (FLIGHT_MARGIN * float(np.median(times_s)))
    return round(min(max(wanted, recorded_s / FLIGHT_WITHIN_S), FASTEST_FLIGHT), 1)


def _flown(figures: dict) -> str:
    if not figures["fixes"]:
        return f"no fix in {figures['frames_in']} frames"
    return (f"{figures['fixes']} fixes in {figures['frames_in']} frames, the first after "
            f"{figures['seconds_to_first_fix']:.0f} s; median error {figures['fix_median_m']:.1f} m")


def _city():
    """The shipped map's city."""
    from thermalreid_ros.world.city import build_city

    return build_city(demo_map(), size_m=CITY_SIZE_M, seed=CITY_SEED)


def _search(city, model: str | None) -> str:
    """The page's part about a search in it."""
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.page_search import search_section
    from thermalreid_ros.evaluation.search import SearchPlan, search
    from thermalreid_ros.maps.store import SemanticMap

    plan = SearchPlan(SEARCH_SEED, CITY_DATE, SEARCH_HOUR, PHOTOGRAPH_HOUR)
    found = search(city, plan, **({} if model is None else {"detector": model}),
                   progress=lambda frames: progress(frames, description="search", unit="frame"))
    with SemanticMap.open(demo_map()) as semantic_map:
        return search_section(found, city.grid, semantic_map, photographed=f"at {PHOTOGRAPH_HOUR:g} o’clock",
                              flown=f"at {SEARCH_HOUR:g} o’clock (solar time)")


def _views(city):
    """A view of it in both bands, uint8 RGB."""
    import numpy as np

    from thermalreid_ros.camera.geometry import Intrinsics
    from thermalreid_ros.world.strip import strip

    return strip(city, seed=CITY_SEED, date=CITY_DATE, hours=CITY_HOURS,
                 intrinsics=Intrinsics.from_field_of_view(640, 512, np.radians(45.0)))[0]
