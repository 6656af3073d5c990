"""What every training does with a network's weights: averages them, writes them whole, reads them again."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.files import write_atomically


class Averaged:
    """Exponential moving average of a model's weights and statistics, with a short memory at the start."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Their memory stays the models' own, also when states are loaded.
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values()))
        self._mine, self._theirs = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(self._mine, self._theirs, 1 - min(self.decay, (1 + step) / (10 + step)))
        for mine, theirs in self._counts:
            mine.copy_(theirs)


def decayed(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """An optimiser's groups: kernels and matrices decay; shifts, scales and single numbers do not."""
    parameters = list(parameters)
    return [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]


def scaled(parts: Iterable[tuple[Iterable[torch.nn.Parameter], float]], weight_decay: float) -> list[dict[str, Any]]:
    """The groups of `decayed` of several parts of a network, each with its `scale`, the share of the learning rate that
    set_rate gives it."""
    return [{**group, "scale": scale} for parameters, scale in parts for group in decayed(parameters, weight_decay)]


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of an optimiser's next step, whose groups are of `scaled`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def write_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, whole or not at all."""
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def whole(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that were stored at half precision, as float32."""
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


WEIGHTS = "weights.pt"


def write_weights(model: torch.nn.Module, out: Path, **facts: Any) -> Path:
    """The file `weights.pt` of a folder: an averaged model at half precision under the key `averaged`, and plain facts
    beside it. Returns its path."""
    halved = {name: value.half() if value.dtype.is_floating_point else value
              for name, value in model.state_dict().items()}
    write_state({"averaged": halved, **facts}, out / WEIGHTS)
    return out / WEIGHTS


def read_state(path: Path, what: str) -> dict[str, Any]:
    """What a file of torch.save holds, on the CPU.

    what: the file is called in the ThermalReidError that says it is none of them.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise KeyError("averaged")
        return state
    except Exception as error:  # zip's, pickle's and torch's own errors share no base class
        raise ThermalReidError(f"{path}: no weights of {what} ({first_line(error)})") from None


def load_averaged(model: torch.nn.Module, path: Path, what: str) -> dict[str, Any]:
    """Load the key `averaged` of a file into a model, ready to be used; returns what else the file says.

    what, and the ThermalReidError: as of read_state.
    """
    state = read_state(path, what)
    try:
        model.load_state_dict(whole(state["averaged"]))
    except Exception as error:  # whatever the file holds instead
        raise ThermalReidError(f"{path}: no weights of {what} ({first_line(error)})") from None
    model.eval()
    return {name: value for name, value in state.items() if name != "averaged"}
