"""Sets of `thermalreid world pairs` and `sketches` on the training device, and batches of them, varied there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from thermalreid_ros.camera.crops import MARGIN, STORED_MARGIN
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import NPZ_FAULTS
from thermalreid_ros.training.traits import traits_of
from thermalreid_ros.world.pairs import CONDITIONS, NEAR_PX

#: Every so many identity numbers of a class are held out for validation.
HELD_OUT_EVERY = 8
_OF_ALL, _STORED_OF_PAIRS = ("label", "colour", "drone", "drone_px"), ("mask", "near_first", "near_second")
_OF_PAIRS = "mask", "near", "conditions"  # fields that sketches have no rows of


@dataclass(eq=False)
class Pairs:
    """N pairs, tensors on one device.

    colour: uint8 (N, 3, 128, 128), RGB. mask: uint8 (N, 1, 128, 128), of the object. near: int32 centikelvin
    (N, 2, 128, 128), the same view at the photograph's instant and at another. drone: int32 (N, D, 96, 96) at that
    other instant; drone_px: (N, D), longest side of the object there before it was enlarged, 0 where there is none.
    conditions: float32 (N, 2, 6) of the two instants, columns as world.pairs.CONDITIONS. label: (N,), class.
    identity: (N,), 0 to identities - 1. number: (N,), of the identity within its class. traits: float32
    (N, traits.COMPONENTS), or (N, 0) where they were not asked for.

    Of sketches there are no masks, near views and conditions: where they have been joined to pairs, those have fewer
    rows, which are the first.
    """

    colour: torch.Tensor
    mask: torch.Tensor
    near: torch.Tensor
    drone: torch.Tensor
    drone_px: torch.Tensor
    conditions: torch.Tensor
    label: torch.Tensor
    identity: torch.Tensor
    number: torch.Tensor
    traits: torch.Tensor

    def __len__(self) -> int:
        return len(self.label)

    @property
    def identities(self) -> int:
        return int(self.identity.max()) + 1 if len(self) else 0

    def only(self, chosen: torch.Tensor) -> Pairs:
        """Those of a bool mask (N,), identities numbered anew."""
        rows = {name: (column := getattr(self, name))[chosen[:len(column)]] for name in self.__dataclass_fields__}
        rows["identity"] = torch.unique(rows["identity"], return_inverse=True)[1]
        return Pairs(**rows)

    def with_sketches(self, sketches: Pairs) -> Pairs:
        """These, then the sketches, whose identities are others; as many views from a drone as either have. Traits of
        both must have been told."""
        views = min(self.drone.shape[1], sketches.drone.shape[1])
        parts = [{name: getattr(part, name) for name in part.__dataclass_fields__} |
                 {"drone": part.drone[:, :views], "drone_px": part.drone_px[:, :views]} for part in (self, sketches)]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name not in _OF_PAIRS}
        columns["identity"][len(self):] += self.identities
        return Pairs(**columns, **{name: getattr(self, name) for name in _OF_PAIRS})

    def held_out(self) -> torch.Tensor:
        """bool (N,): pairs of the identities kept for validation."""
        return self.number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def read_pairs(folders: Sequence[Path], device: str = "cpu", *, traits: bool = False) -> Pairs:
    """All finished sessions of sets, also of unfinished ones. traits: tell them, too, which takes seconds.
    ThermalReidError where a folder holds none or a damaged one."""
    return _read(folders, device, traits, sketches=False)


def read_sketches(folders: Sequence[Path], device: str = "cpu") -> Pairs:
    """Those of sets of `thermalreid world sketches --drone N` whose object a drone saw, with their traits. Errors as of
    read_pairs."""
    return _read(folders, device, traits=True, sketches=True)


def _read(folders: Sequence[Path], device: str, traits: bool, sketches: bool) -> Pairs:
    names, maker = (_OF_ALL, "sketches --drone 2") if sketches else (_OF_ALL + _STORED_OF_PAIRS, "pairs")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "conditions", "key")}
    for folder in folders:
        paths = sorted((Path(folder) / "sessions").glob("*.npz"))
        if not paths:
            raise ThermalReidError(f"{folder}: no pairs in it; make some with `thermalreid world {maker}`")
        for path in paths:
            try:
                with np.load(path) as stored:
                    seen = np.arange(len(stored["label"]))
                    if sketches:
                        seen = seen[(stored["drone_px"] > 0).any(axis=1)]
                    if not len(seen):
                        continue
                    for name in names:
                        columns[name].append(stored[name][seen])
                    columns["conditions"].append(
                        np.zeros((0, 2, len(CONDITIONS)), np.float32) if sketches else
                        np.repeat(np.stack([stored["first"], stored["second"]])[None], len(seen), axis=0))
                    columns["key"].append(np.array([f"{stored['seed']}/{name}" for name in stored["identity"][seen]]))
            except NPZ_FAULTS as error:
                raise ThermalReidError(f"{path}: damaged, or of another kind of set ({error}); make it with "
                                       f"`thermalreid world {maker}`") from None
    if not columns["label"]:
        raise ThermalReidError(f"{', '.join(map(str, folders))}: nothing was seen in any session")
    views = min(array.shape[1] for array in columns["drone"])
    columns["drone"] = [array[:, :views] for array in columns["drone"]]
    columns["drone_px"] = [array[:, :views] for array in columns["drone_px"]]
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    keys, identity = np.unique(table["key"], return_inverse=True)
    number = np.array([int(key.rsplit("-", 1)[1]) for key in table["key"]])
    if sketches:
        near, mask = np.zeros((0, 2, NEAR_PX, NEAR_PX)), np.zeros((0, NEAR_PX, NEAR_PX), np.uint8)
    else:
        near, mask = np.stack([table["near_first"], table["near_second"]], axis=1), table["mask"]

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Pairs(put(table["colour"]).permute(0, 3, 1, 2).contiguous(), put(mask)[:, None],
                 put(near.astype(np.int32)), put(table["drone"].astype(np.int32)), put(table["drone_px"]),
                 put(table["conditions"].astype(np.float32)), put(table["label"].astype(np.int64)),
                 put(identity.astype(np.int64)), put(number),
                 put(traits_of(keys.tolist())[identity] if traits else np.zeros((len(number), 0), np.float32)))


def celsius(centikelvin: torch.Tensor) -> torch.Tensor:
    return centikelvin.float() * 0.01 - 273.15


def random_squares(count: int, device: torch.device, *, margin: tuple[float, float] = (1.3, 1.75),
                   shift: float = 0.08, turn_deg: float = 0.0, stretch: float = 0.0) -> torch.Tensor:
    """Affine maps (N, 2, 3) for F.affine_grid that cut squares out of stored crops: other margins, displaced boxes,
    mirrored half of the time."""
    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count, device=device).uniform_(low, high)

    zoom = uniform(*margin) / STORED_MARGIN
    angle = uniform(-1.0, 1.0) * math.radians(turn_deg)
    mirrored = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    wide, tall = (zoom * torch.exp(uniform(-stretch, stretch)) for _ in range(2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (mirrored * wide * cos, -tall * sin, shift * uniform(-1.0, 1.0),
            mirrored * wide * sin, tall * cos, shift * uniform(-1.0, 1.0))
    return torch.stack(rows, dim=1).view(count, 2, 3)


def middle_squares(count: int, device: torch.device) -> torch.Tensor:
    """The same maps without chance: the square of crops.MARGIN that flies."""
    zoom = MARGIN / STORED_MARGIN
    return torch.tensor([[zoom, 0.0, 0.0], [0.0, zoom, 0.0]], device=device).expand(count, 2, 3)


def cut(pictures: torch.Tensor, squares: torch.Tensor, size_px: int) -> torch.Tensor:
    """float32 (N, C, size_px, size_px) of float pictures (N, C, H, W); the edge is repeated outwards."""
    grid = F.affine_grid(squares, (len(pictures), 1, size_px, size_px), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def vary_light(colour: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Other exposure, contrast, saturation and white balance of pictures (N, 3, H, W), 0 to 1."""
    count, device = len(colour), colour.device

    def factor(spread: float, *shape: int) -> torch.Tensor:
        return torch.exp(torch.randn(count, *shape, device=device) * spread * strength)

    colour = colour * factor(0.2, 1, 1, 1) * factor(0.05, 3, 1, 1)
    grey = colour.mean(dim=1, keepdim=True)
    colour = grey + (colour - grey) * factor(0.2, 1, 1, 1)
    middle = grey.mean(dim=(2, 3), keepdim=True)
    colour = middle + (colour - middle) * factor(0.15, 1, 1, 1)
    return (colour + 0.01 * strength * torch.randn_like(colour)).clamp(0.0, 1.0)


def soften(pictures: torch.Tensor, longest_px: torch.Tensor) -> torch.Tensor:
    """Pictures (N, C, S, S) as if they had been taken with so few pixels (N,) and enlarged: a Gaussian blur of about
    that footprint, separable, one kernel each."""
    count, channels, size = pictures.shape[:3]
    sigma = 0.5 * (size / longest_px.clamp(min=2.0) - 1.0).clamp(min=0.05)
    reach = 8
    offsets = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = F.pad(pictures.reshape(1, count * channels, size, size), (reach, reach, reach, reach), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return flat.view(count, channels, size, size)
