"""Photographs of sets of `thermalreid world pairs` and `sketches` on the training device, each with its object's size
and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import NPZ_FAULTS
from thermalreid_ros.training.pairs import HELD_OUT_EVERY
from thermalreid_ros.world.actors import make_identity

_COLUMNS = ("label", "colour", "size_m")
_KINDS = {"car": "style", "person": "kind", "bicycle": "style", "dog": "breed"}


@dataclass(eq=False)
class Photographs:
    """N photographs, tensors on one device. colour: uint8 (N, 3, 128, 128), RGB. label: (N,), class. log_size: float32
    (N, 3), ln of length, width and height in metres. kind: (N,), what a passer-by calls it, a number of `kinds`: body
    styles, breeds, men and children. identity: (N,), whose. number: (N,), of that within its class. kinds: CLASS:KIND.
    """

    colour: torch.Tensor
    label: torch.Tensor
    log_size: torch.Tensor
    kind: torch.Tensor
    identity: torch.Tensor
    number: torch.Tensor
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def identities(self) -> int:
        return len(torch.unique(self.identity))

    def only(self, chosen: torch.Tensor) -> Photographs:
        """Those of a bool mask (N,)."""
        return Photographs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__ if name != "kinds"),
                           self.kinds)

    @classmethod
    def joined(cls, parts: Sequence[Photographs]) -> Photographs:
        """Of sets of other identities each."""
        kinds = tuple(sorted({name for part in parts for name in part.kinds}))
        columns = {name: torch.cat([getattr(part, name) for part in parts])
                   for name in ("colour", "label", "log_size", "number")}
        kind = torch.cat([torch.tensor([kinds.index(name) for name in part.kinds])[part.kind.cpu()].to(part.kind.device)
                          for part in parts])
        first = np.cumsum([0, *(int(part.identity.max()) + 1 for part in parts)])
        identity = torch.cat([part.identity + int(shift) for part, shift in zip(parts, first)])
        return cls(**columns, kind=kind, identity=identity, kinds=kinds)

    def held_out(self) -> torch.Tensor:
        """bool (N,): those of the identities kept for validation, the same as of pairs."""
        return self.number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def read_photographs(folders: Sequence[Path], device: str = "cpu") -> Photographs:
    """Of all finished sessions of sets, also of unfinished ones. ThermalReidError where a folder holds none or a
    damaged one, or one made before sizes were kept."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*_COLUMNS, "key")}
    for folder in folders:
        paths = sorted((Path(folder) / "sessions").glob("*.npz"))
        if not paths:
            raise ThermalReidError(f"{folder}: no photographs in it; make some with `thermalreid world pairs` or "
                                   "`thermalreid world sketches`")
        for path in paths:
            try:
                with np.load(path) as stored:
                    if not len(stored["label"]):
                        continue
                    for name in _COLUMNS:
                        columns[name].append(stored[name])
                    columns["key"].append(np.array([f"{stored['seed']}/{name}" for name in stored["identity"]]))
            except NPZ_FAULTS as error:
                raise ThermalReidError(f"{path}: damaged, or of before sizes were kept ({error}); remove it and make "
                                       "it again") from None
    if not columns["label"]:
        raise ThermalReidError(f"{', '.join(map(str, folders))}: nothing was seen in any session")
    table = {name: np.concatenate(parts) for name, parts in columns.items()}

    kinds, kind = np.unique([_kind(key) for key in table["key"]], return_inverse=True)

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Photographs(put(table["colour"].transpose(0, 3, 1, 2)), put(table["label"].astype(np.int64)),
                       put(np.log(table["size_m"].astype(np.float32))), put(kind.astype(np.int64)),
                       put(np.unique(table["key"], return_inverse=True)[1].astype(np.int64)),
                       put(np.array([int(key.rsplit("-", 1)[1]) for key in table["key"]])), tuple(map(str, kinds)))


def _kind(key: str) -> str:
    """CLASS:KIND of an identity SEED/CLASS-NUMBER."""
    seed, _, name = key.partition("/")
    class_name, _, number = name.rpartition("-")
    return f"{class_name}:{getattr(make_identity(class_name, int(number), int(seed)), _KINDS[class_name])}"
