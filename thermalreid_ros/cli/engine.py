"""`thermalreid engine`: prepare models for this machine ahead of flight, and list what is prepared."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from thermalreid_ros.cli.output import add_json_option, table, write_json
from thermalreid_ros.engine import DEFAULT_PROVIDERS

TIMED_RUNS = 10


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("engine", help="prepare models for this machine ahead of flight")
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)

    build = actions.add_parser("build", help="check and time every model; build its TensorRT engine where "
                                             "there is TensorRT")
    build.add_argument("--model", nargs="+", metavar="NAME", help="names or .onnx files; default: all")
    build.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of TensorRT engines")
    add_provider_options(build)

    listing = actions.add_parser("list", help="show the TensorRT engines in the cache")
    for action in (build, listing):
        action.add_argument("--cache", type=Path, metavar="DIR",
                            help="of built engines; default: $XDG_CACHE_HOME/thermalreid/engines")
        add_json_option(action)


def add_provider_options(parser: argparse.ArgumentParser) -> None:
    """--providers and --threads, for every command that runs models itself."""
    parser.add_argument("--providers", type=lambda text: tuple(text.split(",")), metavar="LIST",
                        default=DEFAULT_PROVIDERS,
                        help=f"in order of preference; default: {','.join(DEFAULT_PROVIDERS)}")
    parser.add_argument("--threads", type=int, default=0, metavar="N",
                        help="of the CPU provider; default: one for each core")


def provider_options(args: argparse.Namespace) -> dict[str, Any]:
    """What add_provider_options has read, for load_engine."""
    return {"providers": args.providers, "threads": args.threads}


def run(args: argparse.Namespace) -> int:
    return _build(args) if args.action == "build" else _list(args)


def _build(args: argparse.Namespace) -> int:
    from thermalreid_ros.cli.progress import progress
    from thermalreid_ros.engine import EngineError, load_engine
    from thermalreid_ros.engine.cache import EngineCache
    from thermalreid_ros.engine.engine import shipped_models

    prepared, faults = [], []
    with progress(args.model or shipped_models(), description="engines", unit="model", delay=0.0) as bar:
        for model in bar:
            bar.set_postfix_str(Path(model).stem)
            started = time.perf_counter()
            try:
                engine = load_engine(model, providers=args.providers, precision=args.precision,
                                     threads=args.threads, cache_dir=args.cache, supersede=True, log=bar.write)
            except EngineError as error:
                faults.append(str(error))
                continue
            prepared.append({
                "model": engine.card.name, "provider": engine.provider,
                "threads": engine.threads if engine.on_cpu else None,
                "load_s": time.perf_counter() - started, "first_ms": engine.warm_up_ms,
                "median_ms": _median_ms(engine), "fallbacks": engine.fallbacks,
            })
            engine.close()

    if prepared:
        columns = ("model", "provider", "threads", "load_s", "first_ms", "median_ms")
        print(table(columns, [[row[column] for column in columns] for row in prepared]))
    on_tensorrt = [row for row in prepared if row["provider"] == "tensorrt"]
    if on_tensorrt:
        print(f"TensorRT engines are ready in {EngineCache(args.cache).root}")
    for reason in dict.fromkeys(reason for row in prepared for reason in row["fallbacks"]):
        built = "No TensorRT engine was built: " if reason.startswith("tensorrt") else ""
        print(f"{built}{reason}")
    for fault in faults:
        print(f"thermalreid: {fault}", file=sys.stderr)
    write_json(args.json, {"models": prepared, "faults": faults})
    return 2 if faults else 0


def _median_ms(engine) -> float | None:
    if engine.warm_up_ms is None:
        return None
    return statistics.median(engine.warm_up() for _ in range(TIMED_RUNS))


def _list(args: argparse.Namespace) -> int:
    from thermalreid_ros.engine import EngineError
    from thermalreid_ros.engine.cache import EngineCache
    from thermalreid_ros.engine.engine import open_model
    from thermalreid_ros.engine.providers import probe_machine

    cache, machine, rows = EngineCache(args.cache), probe_machine(), []
    for engine in cache.engines():
        key = engine.key
        try:
            _, card = open_model(key.model)
            fits = (key.onnx_sha256, key.tensorrt, key.gpu, key.onnxruntime) == \
                (card.sha256, machine.tensorrt, machine.gpu, machine.onnxruntime)
        except EngineError:
            fits = False
        rows.append({"model": key.model, "precision": key.precision, "shapes": key.shapes,
                     "tensorrt": key.tensorrt, "gpu": key.gpu, "megabytes": engine.bytes / 1e6,
                     "fits_this_machine": fits, "folder": str(engine.folder)})
    if rows:
        columns = ("model", "precision", "shapes", "tensorrt", "gpu", "megabytes", "fits_this_machine")
        print(table(columns, [[row[column] for column in columns] for row in rows]))
    else:
        print(f"no TensorRT engines in {cache.root}")
    write_json(args.json, {"cache": str(cache.root), "engines": rows})
    return 0
