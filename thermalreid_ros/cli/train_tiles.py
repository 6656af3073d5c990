"""`thermalreid train tile-distance` and its export: the distance between labellings, learnt from maps."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from thermalreid_ros.cli.arguments import check_device, output_file, output_folder, positive, seed


def add_parsers(parts) -> None:
    """Add both to the parts of `thermalreid train`."""
    train = parts.add_parser("tile-distance", help="the distance between labellings and tiles, on maps alone")
    train.add_argument("--maps", type=Path, nargs="+", required=True, metavar="MAP.tif",
                       help="towns to learn from; the eastern quarter of each is held out")
    train.add_argument("--minutes", type=positive(float), default=60.0, metavar="M", help="of training in all (60)")
    train.add_argument("--batch", type=positive(int), default=512, metavar="N", help="places a step (512)")
    train.add_argument("--group", type=positive(int), default=64, metavar="N",
                       help="places of a batch that lie near each other (64)")
    train.add_argument("--dimension", type=positive(int, 4096), default=64, metavar="D",
                       help="numbers of a descriptor: a search reads D for each tile (64)")
    train.add_argument("--learning-rate", type=positive(float), default=2e-3)
    train.add_argument("--queries", type=positive(int), default=2048, metavar="N", help="views to validate with (2048)")
    train.add_argument("--seed", type=seed, default=1)
    train.add_argument("--device", default="cpu", help="cpu or cuda")
    train.add_argument("--out", type=output_folder, required=True,
                       help="folder of checkpoint, log and weights.pt; a checkpoint in it is resumed")
    train.set_defaults(part=_train)
    export = parts.add_parser("export-tile-distance", help="its weights to models/tile_distance.onnx and its card")
    export.add_argument("--weights", type=Path, required=True, metavar="weights.pt")
    export.add_argument("--map", type=Path, required=True, metavar="MAP.tif", help="to measure the parity on")
    export.add_argument("--data", required=True, help="what it was trained on, for the card")
    export.add_argument("--licence", required=True, help="of that data, for the card")
    export.add_argument("--command", required=True, help="the training command, for the card")
    export.add_argument("--int8", action="store_true", help="store the large weights in half the space of the others")
    export.add_argument("--out", type=output_file, required=True, metavar="NAME.onnx")
    export.set_defaults(part=_export)


def _train(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.tile_distance import TileRecipe, train

    check_device(args.device)
    recipe = TileRecipe(args.batch, args.group, dimension=args.dimension, learning_rate=args.learning_rate,
                        seed=args.seed)
    print(shlex.join(["thermalreid", *sys.argv[1:]]), flush=True)
    weights = train(recipe, args.maps, args.out, minutes=args.minutes, device=args.device, queries=args.queries,
                    log=lambda line: print(line, flush=True))
    print(f"trained: {weights}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.export_tiles import export_tile_distance

    difference = export_tile_distance(args.weights, args.out, map_path=args.map, data=args.data, licence=args.licence,
                                      command=args.command, int8=args.int8)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, differs from torch by {difference:.1e} at most")
    return 0
