"""The course of a training: taken up where it stopped, until time or steps are over, with a line now and then."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.training.weights import write_state

CHECKPOINT = "checkpoint.pt"
_LOG_EVERY_S = 15.0
_LAST_STEPS = 20  # whose losses are kept beside the figures


def warm_cosine(step: int, warmup: int, progress: float) -> float:
    """Share of the full learning rate: it rises over the first steps and falls by a cosine, to a hundredth, as the
    training goes on."""
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def multiplies_bfloat16(device_type: str) -> bool:
    """Whether half the digits are faster by half at least: on accelerators, and on CPUs that multiply them in vectors
    (AVX-512) or tiles (AMX)."""
    return device_type == "cuda" or (device_type == "cpu" and torch.cpu._is_avx512_bf16_supported())


class Course:
    """Iterate over it for the steps that are left: (number of the step, share of the training that is done, 0 to 1).

    Every step begins with torch's generators seeded by recipe and step, so that a training which was interrupted makes
    the batches that an uninterrupted one makes. Between steps a line is logged every 15 s and a checkpoint is written
    now and then; the last is written at the end.
    """

    def __init__(self, out: Path, parts: Mapping[str, Any], recipe: Mapping[str, Any], *, device: str | torch.device,
                 minutes: float, steps: int = 10**9, log: Callable[[str], None] = print,
                 checkpoint_every_s: float = 60.0):
        """parts: what training changes, by name: all that has state_dict and load_state_dict, or sequences of such.
        recipe: plain facts, among them the `seed`. ThermalReidError where the folder out holds a checkpoint that does
        not fit them."""
        out.mkdir(parents=True, exist_ok=True)
        self.step, self.seconds = 0, 0.0
        self._path, self._parts, self._recipe = out / CHECKPOINT, parts, dict(recipe)
        self._minutes, self._steps, self._log, self._checkpoint_every_s = minutes, steps, log, checkpoint_every_s
        self._sums: dict[str, torch.Tensor] = {}
        self._last: deque[dict[str, torch.Tensor]] = deque(maxlen=_LAST_STEPS)
        if self._path.exists():
            self._resume(device)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        begun = time.monotonic() - self.seconds
        saved = spoken = time.monotonic()
        logged = self.step
        while (progress := max(self.seconds / (60.0 * self._minutes), self.step / self._steps)) < 1.0:
            torch.manual_seed(self._recipe["seed"] * 1_000_003 + self.step)
            yield self.step, progress
            self.step += 1
            self.seconds = time.monotonic() - begun
            if time.monotonic() - spoken > _LOG_EVERY_S:
                line = {name: round(float(value) / (self.step - logged), 4) for name, value in self._sums.items()}
                self._log(f"step {self.step}  {100 * progress:.0f} %  {self.step / self.seconds:.1f} steps/s  {line}")
                self._sums, logged, spoken = {}, self.step, time.monotonic()
            if time.monotonic() - saved > self._checkpoint_every_s:
                self._save()
                saved = time.monotonic()
        self._save()

    def note(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Keep the terms of a step's loss for the log and for `losses`; does not wait for the device."""
        self._last.append({name: value.detach() for name, value in terms.items()})
        for name, value in self._last[-1].items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def losses(self) -> dict[str, float]:
        """Means of the terms over the last steps."""
        return {name: round(float(sum(terms[name] for terms in self._last)) / len(self._last), 4)
                for name in (self._last[-1] if self._last else ())}

    def _save(self) -> None:
        state = {name: [one.state_dict() for one in part] if isinstance(part, Sequence) else part.state_dict()
                 for name, part in self._parts.items()}
        write_state({"recipe": self._recipe, "step": self.step, "seconds": self.seconds, **state}, self._path)

    def _resume(self, device: str | torch.device) -> None:
        try:
            state = torch.load(self._path, map_location=device, weights_only=True)
            fits = state["recipe"] == self._recipe
            for name, part in self._parts.items() if fits else ():
                if isinstance(part, Sequence):
                    for one, own in zip(part, state[name], strict=True):
                        one.load_state_dict(own)
                else:
                    part.load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]
        except Exception as error:  # zip's, pickle's and torch's own errors share no base class
            raise ThermalReidError(f"{self._path}: no checkpoint of this training ({first_line(error)}); "
                                   "choose another --out") from None
        if not fits:
            raise ThermalReidError(f"{self._path}: made with another recipe; choose another --out")
        self._log(f"resumed at step {self.step}, after {self.seconds:.0f} s")
