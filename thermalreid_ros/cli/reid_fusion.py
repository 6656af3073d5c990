"""`thermalreid reid fit-fusion`: the weights of the fused ranking, from a set that nothing else is measured on."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from thermalreid_ros.cli.arguments import output_file, seed
from thermalreid_ros.cli.evaluate_reid import add_set_options, gather_terms

SHARES = (0.0, 0.25, 0.5, 0.75)


def add_parser(actions: argparse._SubParsersAction) -> None:
    from thermalreid_ros.cli.output import add_json_option

    parser = actions.add_parser("fit-fusion", help="fit the fused ranking and its probabilities", description=__doc__)
    add_set_options(parser)
    parser.add_argument("--seed", type=seed, default=0, help="of the folds of identities (default 0)")
    parser.add_argument("--out", type=output_file, required=True, metavar="YAML", help="the fusion file to write")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    import yaml

    from thermalreid_ros.cli.output import table, write_json
    from thermalreid_ros.evaluation.reid_fit import fit
    from thermalreid_ros.files import write_atomically
    from thermalreid_ros.reid.calibration import load_beta_h
    from thermalreid_ros.reid.fusion import SAME_CLASS_SHARE

    beta_h = load_beta_h(args.calibration)
    terms, models = gather_terms(args, (args.synthesis,))
    name = "" if models.embedder is None else models.embedder.engine.card.name
    if not name:
        print(f"no model '{args.embedding}': fitted without an embedding")
    fits = {share: fit(terms, args.synthesis, beta_h, share, name, args.seed)
            for share in (SHARES if name else (0.0,))}
    share = min(fits, key=lambda key: fits[key].figures["log_loss"])
    chosen = fits[share]
    document = {
        **chosen.model.to_mapping(),
        "fitted": {
            "data": {"sets": [path.name for path in args.sets], "photographs": len(terms.photographs),
                     "thermal_pictures": len(terms.gallery), "synthesis": Path(args.synthesis).name, "beta_h": beta_h,
                     "licence": "maps ODbL (© OpenStreetMap contributors), rendered by this project"},
            "prior": f"one true candidate among {chosen.model.candidates_per_true:g}, {SAME_CLASS_SHARE:.0%} of them "
                     "of its class; classes of probes in equal shares",
            "held_out": rounded(chosen.figures),
            "log_loss_by_synthetic_share": {share: round(found.figures["log_loss"], 4)
                                            for share, found in fits.items()},
            "command": _command(args)}}
    write_atomically(args.out, yaml.safe_dump(document, sort_keys=False, width=118, default_flow_style=None,
                                              allow_unicode=True))
    write_json(args.json, document)
    held = chosen.figures
    print(table(["identities held out", "true pairs", "AUC", *(f"{kind}, same class"
                                                               for kind in held["auc_same_class"]), "ECE",
                 "accept from", "true accepted"],
                [[held["identities"], held["true_pairs"], held["auc"], *held["auc_same_class"].values(), held["ece"],
                  held["accept_probability"], held["true_accepted"]]]))
    told = held["length_told"]
    print(table(["length told", "log-loss", *(f"AUC {kind}, same class" for kind in held["auc_same_class"]),
                 "ECE"], [["none", held["log_loss"], *held["auc_same_class"].values(), held["ece"]],
                          *([name, row["log_loss"], *row["auc_same_class"].values(), row["ece"]]
                            for name, row in told.items() if name != "accept_probability")]))
    print(table(["share of thermal probes in the descriptor", "log-loss"],
                [[share, found.figures["log_loss"]] for share, found in fits.items()]))
    print(f"synthetic share {share:g}, ridge {held['ridge']:g}; written to {args.out}")
    return 0


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _command(args: argparse.Namespace) -> str:
    """As it may be published: paths reduced to their last part."""
    parts = ["thermalreid", "reid", "fit-fusion"]
    for path in args.sets:
        parts += ["--set", path.name]
    if args.photographs:
        parts += ["--photographs", str(args.photographs)]
    return shlex.join([*parts, "--synthesis", Path(args.synthesis).name, "--embedding", Path(args.embedding).name,
                       "--seed", str(args.seed), "--out", args.out.name])
