"""`thermalreid train synthesis | embedding | length | baseline`: networks that know one object from another."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from thermalreid_ros.cli.arguments import check_device, output_folder, positive, seed
from thermalreid_ros.errors import ThermalReidError


def add_parsers(parts: argparse._SubParsersAction) -> None:
    for name, text, run in (
            ("synthesis", "thermal probes from photographs: ThermalGAN and the conditional generator", _synthesis),
            ("embedding", "one space for photographs and thermal crops", _embedding),
            ("baseline", "what the paper compares itself with: VRAI and BoT-BS", _baseline)):
        parser = parts.add_parser(name, help=text)
        parser.add_argument("--pairs", type=Path, nargs="+", required=True, metavar="DIR",
                            help="sets of `thermalreid world pairs`, finished or not")
        parser.add_argument("--batch", type=positive(int), default=64,
                            help="pairs for synthesis, identities for the others (default 64)")
        _add_course_arguments(parser, 2e-4 if name == "synthesis" else 2e-3)
        if name == "synthesis":
            parser.add_argument("--embedding", type=Path, metavar="WEIGHTS.pt",
                                help="of `train embedding`: synthesis then learns to be recognised by it")
        else:
            _add_sketches(parser)
        if name == "embedding":
            parser.add_argument("--length", type=Path, metavar="WEIGHTS.pt",
                                help="of `train length`: begin with what it knows of photographs")
            parser.add_argument("--start", type=Path, metavar="WEIGHTS.pt",
                                help="of an embedding trained before, or restored: begin with all of it")
        elif name == "baseline":
            parser.add_argument("--network", required=True, help="vrai or bot_bs")
            parser.add_argument("--bands", required=True, help="visible: learned on photographs alone, as the paper "
                                "used it; cross: on photographs and thermal crops, as the embedding")
            parser.add_argument("--width", type=positive(float), default=5 / 32, metavar="SHARE",
                                help="of ResNet-50's channels (default 0.15625, 0.6 million parameters)")
            parser.add_argument("--start", type=Path, metavar="WEIGHTS.pt",
                                help="of such a training before: begin with its network")
        parser.set_defaults(part=run)
    length = parts.add_parser("length", help="what tells an object's length by its photograph")
    length.add_argument("--photographs", type=Path, nargs="+", required=True, metavar="DIR",
                        help="sets of `thermalreid world pairs`, finished or not, also of photographs alone")
    _add_sketches(length)
    length.add_argument("--backbone-weights", type=Path, metavar="FILE",
                        help="ImageNet weights of MobileNetV2 (state dict with keys features.*)")
    length.add_argument("--batch", type=positive(int), default=64, help="photographs (default 64)")
    _add_course_arguments(length, 2e-3)
    length.set_defaults(part=_length)
    export = parts.add_parser("export-objects",
                              help="trained synthesis, embedding and length to ONNX models with their cards")
    export.add_argument("--synthesis", type=Path, metavar="WEIGHTS.pt")
    export.add_argument("--embedding", type=Path, metavar="WEIGHTS.pt")
    export.add_argument("--length", type=Path, metavar="WEIGHTS.pt")
    _add_card_arguments(export)
    export.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="gets thermalgan.onnx and thermal_synthesis.onnx, reid_embedding.onnx, "
                        "photograph_length.onnx")
    export.set_defaults(part=_export)
    baseline = parts.add_parser("export-baseline", help="a trained baseline to an ONNX model with its card")
    baseline.add_argument("--weights", type=Path, required=True, metavar="WEIGHTS.pt")
    _add_card_arguments(baseline)
    baseline.add_argument("--out", type=Path, required=True, metavar="NAME.onnx",
                          help="`evaluate reid` takes vrai, bot_bs, vrai_retrained and bot_bs_retrained")
    baseline.set_defaults(part=_export_baseline)


def _add_sketches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sketches", type=Path, nargs="+", default=[], metavar="DIR",
                        help="sets of `thermalreid world sketches`, learned from beside them")


def _add_course_arguments(parser: argparse.ArgumentParser, learning_rate: float) -> None:
    parser.add_argument("--minutes", type=positive(float), default=60.0, help="of training (default 60)")
    parser.add_argument("--steps", type=positive(int), default=10**9, help="of training at most")
    parser.add_argument("--learning-rate", type=positive(float), default=learning_rate)
    parser.add_argument("--seed", type=seed, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=output_folder, required=True,
                        help="folder of checkpoint, weights and metrics; a checkpoint in it is resumed")


def _add_card_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="a set to measure the parity on")
    parser.add_argument("--data", required=True, help="what was trained on, for the card")
    parser.add_argument("--licence", required=True, help="of that data, for the card")
    parser.add_argument("--command", required=True, help="the training command, for the card")
    parser.add_argument("--int8", action="store_true", help="store the large weights in half the space of the others")


def _synthesis(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.embedding import load_weights
    from thermalreid_ros.training.synthesis import SynthesisRecipe, train

    embedding = None
    if args.embedding is not None:
        embedding = load_weights(args.embedding)[0].requires_grad_(False).to(check_device(args.device))
    recipe = SynthesisRecipe(batch=args.batch, learning_rate=args.learning_rate, seed=args.seed)
    weights = train(recipe, _pairs(args), args.out, minutes=args.minutes, steps=args.steps, embedding=embedding,
                    log=_log)
    print(f"trained: {weights}")
    return 0


def _embedding(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.embedding import EmbeddingRecipe, train

    if args.length is not None and args.start is not None:
        raise ThermalReidError("--length and --start both say what to begin with; give one of them")
    recipe = EmbeddingRecipe(identities=args.batch, learning_rate=args.learning_rate, seed=args.seed)
    weights = train(recipe, _pairs(args, traits=True), args.out, sketches=_sketches(args),
                    length=args.length, start=args.start, minutes=args.minutes, steps=args.steps, log=_log)
    print(f"trained: {weights}")
    return 0


def _length(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.lengths import LengthRecipe, train
    from thermalreid_ros.training.photographs import read_photographs

    if args.backbone_weights is not None and not args.backbone_weights.is_file():
        raise ThermalReidError(f"{args.backbone_weights}: no such file of backbone weights")
    device = check_device(args.device)
    photographs = read_photographs(args.photographs, device)
    sketches = read_photographs(args.sketches, device) if args.sketches else None
    _log(shlex.join(["thermalreid", *sys.argv[1:]]))
    _log(f"{len(photographs)} photographs of {photographs.identities} identities, of which "
         f"{int(photographs.held_out().sum())} are held out; {0 if sketches is None else len(sketches)} sketches")
    recipe = LengthRecipe(batch=args.batch, learning_rate=args.learning_rate, seed=args.seed)
    weights = train(recipe, photographs, args.out, sketches=sketches, backbone_weights=args.backbone_weights,
                    minutes=args.minutes, steps=args.steps, log=_log)
    print(f"trained: {weights}")
    return 0


def _baseline(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.baselines import BaselineRecipe, train

    recipe = BaselineRecipe(args.network, args.bands, args.width, identities=args.batch,
                            learning_rate=args.learning_rate, seed=args.seed)
    weights = train(recipe, _pairs(args, traits=bool(args.sketches)), args.out, sketches=_sketches(args),
                    start=args.start, minutes=args.minutes, steps=args.steps, log=_log)
    print(f"trained: {weights}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from thermalreid_ros.training import export_objects
    from thermalreid_ros.training.pairs import read_pairs

    if args.synthesis is None and args.embedding is None and args.length is None:
        raise ThermalReidError("nothing to export: give --synthesis, --embedding or --length")
    if not args.out.is_dir():
        raise ThermalReidError(f"{args.out}: no such folder to export to")
    written = export_objects.export_trained(read_pairs([args.pairs]), args.out, synthesis=args.synthesis,
                                            embedding=args.embedding, length=args.length, **_of_card(args))
    for path, difference in written.items():
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, differs from torch by {difference:.1e} at most")
    return 0


def _export_baseline(args: argparse.Namespace) -> int:
    from thermalreid_ros.training.export_objects import export_baseline
    from thermalreid_ros.training.pairs import read_pairs

    if args.out.suffix != ".onnx" or not args.out.absolute().parent.is_dir():
        raise ThermalReidError(f"{args.out}: not the name of a model (NAME.onnx) in a folder that is there")
    difference = export_baseline(args.weights, read_pairs([args.pairs]), args.out, **_of_card(args))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, differs from torch by {difference:.1e} at most")
    return 0


def _of_card(args: argparse.Namespace) -> dict:
    return {"about": {"data": args.data, "licence": args.licence, "command": args.command},
            "data_from": args.pairs.name, "int8": args.int8}


def _sketches(args: argparse.Namespace):
    from thermalreid_ros.training.pairs import read_sketches

    if not args.sketches:
        return None
    sketches = read_sketches(args.sketches, check_device(args.device))
    _log(f"{len(sketches)} sketches of {sketches.identities} identities")
    return sketches


def _pairs(args: argparse.Namespace, traits: bool = False):
    from thermalreid_ros.training.pairs import read_pairs

    pairs = read_pairs(args.pairs, check_device(args.device), traits=traits)
    _log(shlex.join(["thermalreid", *sys.argv[1:]]))
    _log(f"{len(pairs)} pairs of {pairs.identities} identities; {int(pairs.held_out().sum())} pairs are held out")
    return pairs


def _log(line: str) -> None:
    print(line, flush=True)
