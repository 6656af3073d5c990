"""Training of the detection networks: one loop for both, resumable, on a CPU or an accelerator."""

from __future__ import annotations

import copy
import json
import math
import os
import queue
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.memory import M_MMAP_MAX, M_TOP_PAD, M_TRIM_THRESHOLD, tune_malloc
from thermalreid_ros.training.detectors import NETWORKS, YoloCompact
from thermalreid_ros.training.frames import AnnotatedFrames, CropSampler
from thermalreid_ros.training.losses import compact_loss, semantic_loss


@dataclass(frozen=True)
class DetectionRecipe:
    """Everything that decides the result besides the data."""

    network: str
    steps: int
    batch: int = 16
    crop_px: int = 192
    learning_rate: float = 1.5e-3
    backbone_rate: float = 0.3  # share of the learning rate for pretrained layers
    weight_decay: float = 0.02
    ema: float = 0.998
    seed: int = 1
    warmup: int = 200
    frozen_blocks: int = 2  # first layers of a pretrained backbone that keep their weights


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of giving it back: a step on the CPU is 1.5-2x faster.

    Activations are large enough that each would be mapped, zeroed page by page and unmapped again.
    Elsewhere than on glibc this does nothing.
    """
    tune_malloc({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28})


class Averaged:
    """Exponential moving average of the weights, with a short memory at the start."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs.to(mine.dtype), 1 - keep)
            else:
                mine.copy_(theirs)


class Batches:
    """Batches made ahead in a thread; batch number i is the same in every run (seed, index)."""

    def __init__(self, sampler: CropSampler, batch: int, first_step: int, ahead: int = 4):
        self._queue: queue.Queue = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sampler, batch, first_step), daemon=True)
        self._thread.start()

    def _run(self, sampler: CropSampler, batch: int, step: int) -> None:
        while not self._stop.is_set():
            crops, boxes, labels = zip(*(sampler(step * batch + i) for i in range(batch)))
            item = (torch.from_numpy(np.stack(crops))[:, None], torch.from_numpy(np.stack(boxes)),
                    torch.from_numpy(np.stack(labels)))
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.5)
                    break
                except queue.Full:
                    continue
            step += 1

    def __next__(self):
        return self._queue.get()

    def close(self) -> None:
        self._stop.set()


def build(name: str, backbone_weights: Path | None = None) -> torch.nn.Module:
    """A fresh network; `backbone_weights`: ImageNet weights of MobileNetV2 for yolo_compact."""
    if name not in NETWORKS:
        raise ThermalReidError(f"network {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    model = NETWORKS[name]()
    if backbone_weights is not None and isinstance(model, YoloCompact):
        model.backbone.load_imagenet(backbone_weights)
    return model


def train(recipe: DetectionRecipe, frames: AnnotatedFrames, out: Path, *, backbone_weights: Path | None = None,
          device: str = "cpu", log=print, checkpoint_every: int = 250) -> Path:
    """Train, resuming from `out/checkpoint.pt` if it is there; returns the path of the checkpoint.

    A checkpoint of another recipe is refused, except that `steps` may change (the schedule is then
    stretched). One line a hundred steps goes to `log` and as JSON to `out/log.jsonl`.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    cv2.setNumThreads(0)
    model = build(recipe.network, backbone_weights).to(device, memory_format=torch.channels_last)
    averaged = Averaged(model, recipe.ema)
    pretrained = []
    if backbone_weights is not None:
        for block in model.backbone.features[: recipe.frozen_blocks]:
            block.requires_grad_(False)
        pretrained = [p for p in model.backbone.parameters() if p.requires_grad]
    known = {id(p) for p in model.backbone.parameters()} if backbone_weights is not None else set()
    fresh = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": [p for p in group if (p.ndim > 1) == decayed], "scale": scale,
               "weight_decay": recipe.weight_decay if decayed else 0.0}
              for group, scale in ((fresh, 1.0), (pretrained, recipe.backbone_rate)) for decayed in (True, False)]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, betas=(0.9, 0.999))
    step, seconds = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        ours, theirs = asdict(recipe) | {"steps": 0}, state["recipe"] | {"steps": 0}
        if ours != theirs:
            changed = ", ".join(k for k in ours if ours[k] != theirs.get(k))
            raise ThermalReidError(f"{path}: made with another recipe ({changed} differ); choose another --out")
        model.load_state_dict(state["model"])
        averaged.model.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds = state["step"], state["seconds"]
        log(f"resumed at step {step} of {recipe.steps}")

    present = {int(c) for own in frames.labels for c in own if c >= 0}
    trained = torch.tensor([float(c in present) for c in range(len(CLASS_NAMES))], device=device)
    sampler = CropSampler(frames, recipe.crop_px, recipe.seed)
    batches = Batches(sampler, recipe.batch, step)
    sums: dict[str, float] = {}
    begun, logged = time.monotonic() - seconds, step
    model.train()
    try:
        while step < recipe.steps:
            progress = step / recipe.steps
            rate = min(1.0, (step + 1) / recipe.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * group["scale"] * rate
            crops, boxes, labels = (t.to(device, non_blocking=True) for t in next(batches))
            thermal = crops.float().to(memory_format=torch.channels_last)
            # a batch holds few objects: cut the padding to the fullest crop
            slots = max(1, int((labels != -1).sum(1).max()))
            boxes, labels = boxes[:, :slots], labels[:, :slots]
            with torch.autocast(device, torch.bfloat16):
                output = model(thermal)
            if isinstance(model, YoloCompact):
                terms = compact_loss(output, boxes, labels, stride=model.stride, trained_classes=trained)
            else:
                terms = semantic_loss(output, boxes, labels, strides=model.strides, anchors=model.anchors,
                                      trained_classes=trained)
            optimiser.zero_grad(set_to_none=True)
            terms["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            averaged.update(model, step)
            step += 1
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            if step % 100 == 0 or step == recipe.steps:
                seconds = time.monotonic() - begun
                line = {k: round(v / (step - logged), 4) for k, v in sums.items()}
                sums, logged = {}, step
                left = seconds / step * (recipe.steps - step)
                log(f"step {step}/{recipe.steps}  {line}  {recipe.batch * step / seconds:.1f} crops/s  "
                    f"{left / 60:.0f} min left")
                with (out / "log.jsonl").open("a") as f:
                    f.write(json.dumps({"step": step, "seconds": round(seconds), **line}) + "\n")
            if step % checkpoint_every == 0 or step == recipe.steps:
                state = {"recipe": asdict(recipe), "model": model.state_dict(), "averaged": averaged.model.state_dict(),
                         "optimiser": optimiser.state_dict(), "step": step, "seconds": time.monotonic() - begun}
                torch.save(state, path.with_suffix(".tmp"))
                os.replace(path.with_suffix(".tmp"), path)
    finally:
        batches.close()
    return path


def load_checkpoint(path: Path) -> tuple[torch.nn.Module, dict, int]:
    """The averaged network of a checkpoint, its recipe, and the steps it was trained for."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = build(state["recipe"]["network"])
        model.load_state_dict(state["averaged"])
    except (OSError, KeyError, RuntimeError) as error:
        raise ThermalReidError(f"{path}: no checkpoint of this version ({str(error).splitlines()[0]})") from None
    return model.eval(), state["recipe"], state["step"]
