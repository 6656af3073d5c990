"""`thermalreid bench`: speed per model, topic to topic, of transport, tile search, re-identification and rendering."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import thermalreid_ros.nodes  # noqa: F401  linear algebra on one thread, as they do it
from thermalreid_ros.cli.arguments import demo_map, positive
from thermalreid_ros.cli.engine import add_provider_options, provider_options
from thermalreid_ros.cli.output import add_json_option, table, write_json

PARTS = ("models", "topics", "transport", "tiles", "reid", "flight", "world")
DEFAULT_PARTS = PARTS[:5]  # a flight takes a minute, world needs the extra of that name
OVERHEAD_TARGET_MS = {"median": 5.0, "p99": 15.0}


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "bench", help="measure speed: per model, topic to topic, transport, tile search, matching, a flight",
        description="Nodes run in a ROS domain of their own: a vehicle on this machine feels only the load.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=DEFAULT_PARTS, metavar="PART",
                        help="of: models topics transport tiles reid flight world; default: all but the last two")
    parser.add_argument("--model", nargs="+", metavar="NAME",
                        help="names or .onnx files, the first detector goes topic to topic; default: all")
    parser.add_argument("--runs", type=positive(int), default=100, metavar="N", help="of each model (100)")
    parser.add_argument("--seconds", type=positive(float), default=15.0, metavar="S",
                        help="of each of the three topic-to-topic passes (15)")
    parser.add_argument("--transport-seconds", type=positive(float), default=60.0, metavar="S",
                        help="of the transport alone (60)")
    parser.add_argument("--rate", type=positive(float), default=30.0, metavar="HZ",
                        help="of the camera (30)")
    parser.add_argument("--units", choices=("centikelvin", "celsius_f32", "agc8"), default="centikelvin",
                        help="of the camera's frames; default: centikelvin, 16 bit")
    parser.add_argument("--map", type=Path, metavar="MAP.tif",
                        help="of the world's city and of the flight; default: the shipped map")
    parser.add_argument("--bag", type=Path, metavar="BAG", help="the flight; default: the shipped one")
    parser.add_argument("--flight-frames", type=positive(int), default=60, metavar="N",
                        help="of the flight's end that are measured (60)")
    parser.add_argument("--size", type=positive(float), default=2000.0, metavar="M", help="of the city (2000)")
    parser.add_argument("--frames", type=positive(int), default=20, metavar="N", help="to render (20)")
    add_provider_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    from thermalreid_ros.evaluation import bench

    results: dict[str, Any] = {"machine": bench.machine()}
    models = args.model or _shipped()
    if "models" in args.parts:
        results["models"] = _models(args, models)
    if "topics" in args.parts:
        results["topic_to_topic"] = _topics(args, models)
    if "transport" in args.parts:
        results["transport"] = _transport(args)
    if "tiles" in args.parts:
        results["tiles"] = _tiles(args)
    if "reid" in args.parts:
        results["reid"] = _reid(args)
    if "flight" in args.parts:
        results["flight"] = _flight(args)
    if "world" in args.parts:
        results["world"] = _world(args)
    write_json(args.json, results)
    return 0


def _models(args: argparse.Namespace, models: list[str]) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation import bench

    timed = {}
    with progress(total=len(models) * args.runs, description="models", unit="run", delay=0.0) as bar:
        for model in models:
            bar.set_postfix_str(str(model))
            timed[Path(model).stem] = bench.time_model(model, runs=args.runs, tick=lambda: bar.update(1),
                                                   **provider_options(args))
    keys = ("provider", "threads", "first_ms", "median_ms", "p99_ms", "iqr_ms", "int8_speedup")
    parts = ("preprocessing_ms", "inference_ms", "postprocessing_ms")
    rows = [[name, *(row.get(key) for key in keys), *(row.get("parts", {}).get(part) for part in parts)]
            for name, row in timed.items()]
    print(table(("model", *keys, *parts), rows))
    return timed


def _topics(args: argparse.Namespace, models: list[str]) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.engine import EngineError
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.evaluation import bench

    detector = next((model for model in models if open_model(model)[1].task == "detection"), None)
    if detector is None:
        raise EngineError("no detector among the models; name one with --model")
    with progress(total=3 * args.seconds, description="topic to topic", unit="s", bar_format=_SECONDS) as bar:
        measured = bench.measure_topics(
            detector, args.seconds, rate_hz=args.rate, units=args.units, reid=True, tick=bar.update,
            parameters=provider_options(args))
    passes = {"paced": measured["paced"], "full rate": measured["full_rate"]}
    times = ("latency_ms", "inference_ms", "overhead_ms", "age_when_taken_up_ms")
    print(table(
        ("pass", "rate_hz", "sent", "detected", *(head for key in times for head in (key, "p99"))),
        [[name, row["rate_hz"], row["frames_sent"], row["frames_detected"],
          *(row[key][part] for key in times for part in ("median", "p99"))] for name, row in passes.items()]))
    overhead_ms = measured["paced"]["overhead_ms"]
    print("overhead of the paced pass: "
          + ", ".join(f"{way} {value:.1f} ms" for way, value in measured["paced"]["ways_ms"].items()))
    reid = measured["reid"]
    print(f"with the reid node: {reid['frames_ranked']} of {reid['frames_detected']} frames ranked; "
          + "; ".join(f"{text} median {reid[key]['median']:.1f} ms, p99 {reid[key]['p99']:.1f} ms"
                      for text, key in (("camera to matches", "latency_ms"),
                                        ("after the detections", "reid_ms"))))
    met = all(overhead_ms[key] <= limit for key, limit in OVERHEAD_TARGET_MS.items())
    full_rate = measured["full_rate"]
    in_time = full_rate["age_when_taken_up_ms"]["p99"] <= full_rate["inference_ms"]["p99"]
    print(f"at full rate, the frame worked on is older than one inference: {'no' if in_time else 'yes'}")
    limits = " and ".join(f"{key} <= {limit:g} ms" for key, limit in OVERHEAD_TARGET_MS.items())
    print(f"overhead target, {limits}: {'met' if met else 'not met'}")
    return {**measured, "latency_ms": measured["paced"]["latency_ms"], "overhead_ms": overhead_ms,
            "target_met": met, "age_within_one_inference": in_time}


def _transport(args: argparse.Namespace) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation import bench

    seconds = args.transport_seconds
    with progress(total=seconds, description="transport", unit="s", bar_format=_SECONDS) as bar:
        measured = bench.measure_transport(seconds, rate_hz=args.rate, units=args.units, tick=bar.update)
    print(table(("frames sent", "lost", "latency_ms", "p99"),
                [[measured["frames_sent"], measured["frames_lost"], measured["latency_ms"]["median"],
                  measured["latency_ms"]["p99"]]]))
    return measured


def _tiles(args: argparse.Namespace) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.bench_tiles import COUNTS, RADII_M, time_tile_search

    with progress(total=len(COUNTS) * len(RADII_M) * (args.runs + 1), description="tiles", unit="search") as bar:
        measured = time_tile_search(runs=args.runs, tick=lambda: bar.update(1))
    print(table(("tiles", "file MB", "within m", "searched", "median_ms", "p99_ms", "processor_ms", "first_ms",
                 "memory MB"),
                [[row["tiles"], row["megabytes"], radius, found["searched"], found["median_ms"], found["p99_ms"],
                  found["processor_ms"], found["first_ms"], row["resident_mb"]]
                 for row in measured.values() for radius, found in row["radius_m"].items()]))
    return measured


def _reid(args: argparse.Namespace) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation import bench_reid

    probes = max(args.runs // 10, 1)
    with progress(total=args.runs + probes, description="re-identification", unit="run") as bar:
        matching = bench_reid.time_matching(args.runs, tick=lambda: bar.update(1))
        probe = bench_reid.time_probe(probes, tick=lambda: bar.update(1), **provider_options(args))
    print(table(("", "median_ms", "p99_ms", "iqr_ms"), [[name, *times.values()] for name, times in (
        (f"{matching['candidates']} tracks seen anew against {matching['probes']} probes", matching["new_ms"]),
        ("the same again", matching["known_ms"]), ("photograph to probe", probe["ready_ms"]),
        ("photograph and box to probe", probe["boxed_ms"]))]))
    met = {"matching": matching["new_ms"]["median"] <= bench_reid.MATCHING_TARGET_MS,
           "probe": probe["ready_ms"]["median"] <= bench_reid.READY_TARGET_MS}
    print(f"targets, matching <= {bench_reid.MATCHING_TARGET_MS:g} ms and probe <= {bench_reid.READY_TARGET_MS:g} ms: "
          + ("met" if all(met.values()) else "not met: " + ", ".join(name for name, well in met.items() if not well)))
    return {"matching": matching, "probe": probe, "target_met": met}


def _flight(args: argparse.Namespace) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.bench_flight import measure_flight
    from thermalreid_ros.evaluation.replay import frame_topic
    from thermalreid_ros.files import shipped
    from thermalreid_ros.ros.bag import Bag

    path = args.bag or shipped("config") / "recordings" / "krems_day"
    with Bag(path) as bag:
        count = sum(1 for _ in bag.messages([frame_topic(bag)]))
    with progress(total=count, description="flight", unit="frame") as bar:
        measured = measure_flight(path, args.map or demo_map(), frames=args.flight_frames, tick=lambda: bar.update(1))
    print(table(("", "in_models_ms", "overhead_ms"), [[name, *part.values()]
                                                      for name, part in measured["parts"].items()]))
    print(f"{measured['frames']} frames, {measured['localized']} localized, {measured['objects']:.1f} objects each; on "
          f"one thread a frame takes {measured['latency_ms']:.0f} ms to its matches; {measured['overhead_ms']:.0f} ms, "
          f"{measured['overhead_share']:.0%} of that, are not in models")
    return measured


def _world(args: argparse.Namespace) -> dict[str, Any]:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.evaluation.bench_world import time_world

    with progress(total=args.frames + 1, description="world", unit="frame") as bar:
        measured = time_world(args.map or demo_map(), size_m=args.size, frames=args.frames,
                              tick=lambda: bar.update(1))
    print(table(("city m", "faces", "frames/s, all bands", "frames/s, thermal", "build s", "prepare s", "memory MB"),
                [["x".join(f"{side:.0f}" for side in measured["size_m"]), measured["faces"], measured["frames_per_s"],
                  measured["thermal_frames_per_s"], *measured["seconds"].values(), measured["memory_mb"]]]))
    return measured


_SECONDS = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


def _shipped() -> list[str]:
    from thermalreid_ros.engine.engine import shipped_models

    return list(shipped_models())
