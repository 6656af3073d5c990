"""What all exporters do: a network to ONNX with its card, or, where the file computes otherwise than torch, no file."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from thermalreid_ros.engine.packing import pack_fp16_initializers, pack_int8_initializers, stored, write_card
from thermalreid_ros.errors import ThermalReidError

OPSET = 17


def export_onnx(module: nn.Module, out: Path, *, arguments: Sequence[torch.Tensor], card: Mapping[str, Any],
                compare: Callable[[nn.Module, Path], Mapping[str, float]], compared_on: str, limit: float,
                int8: bool = False, unit: str = "", meaning: str | None = None) -> dict[str, float]:
    """Write out (.onnx) and its card; returns what `compare` found.

    card: all facts but those of the file. Its inputs and outputs name those of the graph; sizes that are words there
    are free. arguments: one for each input. compare: differences of the ONNX file from a module in torch, of which
    `max_abs_difference`, of this unit, may not exceed the limit; it is measured on what compared_on names, and means
    what `meaning` says, if more than its name. int8: store the large weights so and the rest as float16, not all as
    float16.

    Batch normalisation is folded and weights are rounded to what they are stored as before the comparison, which is
    thus about the arithmetic alone; the card states beside it what folding and rounding change. Raises
    ThermalReidError, and leaves no file, where the difference exceeds the limit.
    """
    trained = copy.deepcopy(module).cpu().eval().to(memory_format=torch.contiguous_format)
    rounded = copy.deepcopy(trained)
    fold_normalisation(rounded)
    with torch.no_grad():
        for weight in (*rounded.parameters(), *rounded.buffers()):
            if weight.is_floating_point():
                weight.copy_(torch.from_numpy(stored(weight.numpy(), int8=int8)))
    free = {spec["name"]: {axis: size for axis, size in enumerate(spec["shape"]) if isinstance(size, str)}
            for spec in (*card["inputs"], *card["outputs"])}
    card = {"name": out.stem, **card, "opset": OPSET,
            "precision": f"fp32, weights stored as {'int8 and ' if int8 else ''}fp16",
            "parameters": sum(p.numel() for p in rounded.parameters())}
    with tempfile.TemporaryDirectory(dir=out.absolute().parent) as folder:
        draft = Path(folder) / out.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's remarks on constant shapes
            torch.onnx.export(rounded, tuple(arguments), str(draft), opset_version=OPSET, dynamo=False,
                              input_names=[spec["name"] for spec in card["inputs"]],
                              output_names=[spec["name"] for spec in card["outputs"]],
                              dynamic_axes={name: axes for name, axes in free.items() if axes})
        (pack_int8_initializers if int8 else pack_fp16_initializers)(draft)
        write_card(draft, card)
        found = dict(compare(rounded, draft))
        if found["max_abs_difference"] > limit:
            raise ThermalReidError(f"{out}: ONNX differs from torch by {found['max_abs_difference']:.1e}{unit}, more "
                                   f"than {limit:.0e}; not written")
        rounding = compare(trained, draft)["max_abs_difference"]
        card["parity"] = {**{name: float(f"{value:.6g}") for name, value in found.items()},
                          "max_abs_difference": float(f"{found['max_abs_difference']:.2e}"), "data": compared_on,
                          **({"meaning": meaning} if meaning else {}), "rounding_difference": float(f"{rounding:.2e}")}
        write_card(draft, card)
        for suffix in (".onnx", ".yaml"):
            os.replace(draft.with_suffix(suffix), out.with_suffix(suffix))
    return found


def fold_normalisation(module: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place."""
    for child in module.children():
        if isinstance(child, nn.Sequential):
            for i in range(len(child) - 1):
                if isinstance(child[i], nn.Conv2d) and isinstance(child[i + 1], nn.BatchNorm2d):
                    child[i] = fuse_conv_bn_eval(child[i], child[i + 1])
                    child[i + 1] = nn.Identity()
        fold_normalisation(child)
