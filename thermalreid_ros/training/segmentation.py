"""Training of the segmentation networks: one loop for both, within a number of steps or minutes, resumable.

All frames lie on the device from the beginning, and batches are drawn and varied there: nothing waits for the host.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.evaluation.confusion import figures
from thermalreid_ros.maps.classes import CLASS_COUNT, CLASS_NAMES, NO_DATA
from thermalreid_ros.training.augmentation import Augmentation
from thermalreid_ros.training.course import multiplies_bfloat16, warm_cosine
from thermalreid_ros.training.detection import keep_freed_memory
from thermalreid_ros.training.labellings import LabelledFrames, radiometric_channels
from thermalreid_ros.training.segmentation_losses import (
    adversarial_loss,
    class_weights,
    compact_loss,
    softened_truth,
    weighted_cross_entropy,
)
from thermalreid_ros.training.segmenters import NETWORKS, PatchDiscriminator
from thermalreid_ros.training.weights import Averaged, decayed, whole, write_state

LOG_EVERY = 100  # steps
_HALVED_FROM = 256  # elements: smaller tensors (normalisation, biases) are kept whole


@dataclass(frozen=True)
class SegmentationRecipe:
    """Everything that decides the result besides the data and where it starts from. steps, minutes: 0 = no limit; the
    rates follow the one that is used up sooner, and the time begins with the first step. cross_entropy: its weight
    against the adversarial loss, as pix2pix's 100 of L1. visible_share: of a batch, where there are visible frames.
    radiometric_share: of the others, where there are frames with temperatures. outlines: as in compact_loss."""

    network: str
    steps: int = 0
    minutes: float = 0.0
    batch: int = 96
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.02
    ema: float = 0.998
    warmup: int = 200
    cross_entropy: float = 100.0
    visible_share: float = 0.25
    radiometric_share: float = 0.6
    outlines: float = 0.3
    seed: int = 1


#: What differs from SegmentationRecipe's own values; GeoGAN's are the paper's.
RECIPES = {
    "geogan": {"batch": 32, "learning_rate": 2e-4, "betas": (0.5, 0.999), "weight_decay": 0.0, "ema": 0.999},
    "segmenter_compact": {},
}


def recipe_for(network: str, **changes) -> SegmentationRecipe:
    """The network's recipe with some values changed; None leaves a value as it is."""
    if network not in NETWORKS:
        raise ThermalReidError(f"network {network!r} is unknown; choose one of {', '.join(NETWORKS)}")
    recipe = SegmentationRecipe(network, **RECIPES[network] | {k: v for k, v in changes.items() if v is not None})
    if recipe.steps <= 0 and recipe.minutes <= 0:
        raise ThermalReidError("training needs an end: give --steps, --minutes or both")
    return recipe


class FrameStore:
    """Labelled frames on a device; draws varied batches of all kinds."""

    def __init__(self, frames: LabelledFrames, device: str):
        self.device = torch.device(device)
        self.labels = torch.from_numpy(frames.labels).to(self.device)
        self.thermal, self.radiometric, self.temperature_c = (
            torch.from_numpy(planes)[:, None].to(self.device)
            for planes in (frames.thermal, frames.radiometric, frames.temperature_c))
        self.colour = torch.from_numpy(frames.colour).permute(0, 3, 1, 2).contiguous().to(self.device)
        self.colour_of, self.radiometric_of = (torch.from_numpy(of).to(self.device)
                                               for of in (frames.colour_of, frames.radiometric_of))

    def batch(self, recipe: SegmentationRecipe, augmentation: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
        """(images float32 (B, 3, H, W) in levels, labels uint8 (B, H, W)): grey frames, then radiometric, then visible
        ones."""
        visible = round(recipe.batch * recipe.visible_share) if len(self.colour) else 0
        radiometric = round((recipe.batch - visible) * recipe.radiometric_share) if len(self.radiometric) else 0
        parts = []
        if grey := recipe.batch - visible - radiometric:
            chosen = self._draw(len(self.thermal), grey, augmentation.generator)
            parts.append(augmentation(self.thermal[chosen].float() / 255, self.labels[chosen], thermal=True))
        if radiometric:
            chosen = self._draw(len(self.radiometric), radiometric, augmentation.generator)
            parts.append(augmentation.radiometric(self.radiometric[chosen].float() / 255, self.temperature_c[chosen],
                                                  self.labels[self.radiometric_of[chosen]]))
        if visible:
            chosen = self._draw(len(self.colour), visible, augmentation.generator)
            parts.append(augmentation(self.colour[chosen].float() / 255, self.labels[self.colour_of[chosen]],
                                      thermal=False))
        images, labels = (torch.cat(some) for some in zip(*parts))
        return images.contiguous(memory_format=torch.channels_last), labels

    def shares(self) -> torch.Tensor:
        """(C,) share of each class among the judged pixels, on the CPU."""
        counts = torch.zeros(NO_DATA + 1, dtype=torch.int64)
        for part in self.labels.split(256):
            counts += torch.bincount(part.flatten(), minlength=NO_DATA + 1).cpu()
        return counts[:CLASS_COUNT].double() / counts[:CLASS_COUNT].sum().clamp(min=1)

    def _draw(self, among: int, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(among, (count,), generator=generator, device=self.device)


def train(recipe: SegmentationRecipe, frames: LabelledFrames, out: Path, *, validation: LabelledFrames | None = None,
          start: Path | None = None, device: str = "cpu", data: dict | None = None, log: Callable[[str], None] = print,
          checkpoint_seconds: float = 60.0) -> Path:
    """Train, resuming from `out/checkpoint.pt` if it is there, else from the network of `start` (a weights.pt of an
    earlier training), else from nothing; returns the path of `out/weights.pt`.

    A checkpoint of another recipe is refused, except that `steps` and `minutes` may change (the schedule is then
    stretched). One line a hundred steps goes to `log` and as JSON to `out/log.jsonl`. At the end the averaged network
    is measured on `validation`. weights.pt holds that network alone, in half precision, with its recipe, `data` (what
    it was trained on) and figures; it is renewed with each checkpoint.
    """
    if not len(frames):
        raise ThermalReidError("the data sets hold no frames to train on")
    out.mkdir(parents=True, exist_ok=True)
    path, weights_path = out / "checkpoint.pt", out / "weights.pt"
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()
    torch.manual_seed(recipe.seed)
    trainer = _Trainer(recipe, device)
    if start is not None and not path.exists():
        network, told = load_weights(start)
        if told["network"] != recipe.network:
            raise ThermalReidError(f"{start}: holds {told['network']}, not {recipe.network}")
        trainer.network.load_state_dict(network.state_dict())
        log(f"begun with the weights of {start}, {told['step']} steps")
    averaged = Averaged(trainer.network, recipe.ema)
    step, earlier = 0, 0.0
    if path.exists():
        state = _load(path)
        ours, theirs = _comparable(asdict(recipe)), _comparable(state["recipe"])
        if ours != theirs:
            changed = ", ".join(k for k in ours if ours[k] != theirs.get(k))
            raise ThermalReidError(f"{path}: made with another recipe ({changed} differ); choose another --out")
        trainer.load_state_dict(state["trainer"])
        averaged.model.load_state_dict(state["averaged"])
        step, earlier = state["step"], state["seconds"]
        log(f"resumed at step {step}, after {earlier:.0f} s")
    store = FrameStore(frames, device)
    shares = store.shares()
    trainer.weights = class_weights(shares).float().to(device)
    log("shares of the ground: " + ", ".join(f"{name} {share:.3f}" for name, share in zip(CLASS_NAMES, shares)))
    generator = torch.Generator(device)
    augmentation = Augmentation(generator)
    facts = {"network": recipe.network, "recipe": asdict(recipe), "data": data or {}}

    def save(evaluation: dict | None = None) -> None:
        now = {**facts, "step": step, "seconds": seconds, "evaluation": evaluation or {}}
        write_state({**now, "trainer": trainer.state_dict(), "averaged": averaged.model.state_dict()}, path)
        write_state({**now, "weights": _halved(averaged.model.state_dict())}, weights_path)

    sums: dict[str, torch.Tensor] = {}
    begun, logged, saved = time.monotonic(), step, time.monotonic()
    seconds = earlier
    while (progress := _progress(recipe, step, seconds)) < 1:
        for source in (torch, generator):  # batch and dropout of step number i are the same in every run
            source.manual_seed(recipe.seed * 1_000_003 + step)
        images, labels = store.batch(recipe, augmentation)
        rate = warm_cosine(step, recipe.warmup, progress)
        for key, value in trainer.step(images, labels, recipe.learning_rate * rate).items():
            sums[key] = sums[key] + value if key in sums else value
        averaged.update(step)
        step += 1
        seconds = earlier + time.monotonic() - begun
        last = _progress(recipe, step, seconds) >= 1
        if step % LOG_EVERY == 0 or last:
            means = {k: round(float(v) / (step - logged), 4) for k, v in sums.items()}
            seconds = earlier + time.monotonic() - begun  # the reading above has waited for the device
            if not all(math.isfinite(value) for value in means.values()):
                raise ThermalReidError(f"training diverged before step {step} ({means}); {path} holds the state "
                                       "before, choose a lower --learning-rate")
            sums, logged = {}, step
            log(f"step {step}  {100 * _progress(recipe, step, seconds):.0f} %  {means}  rate {rate:.3f}  "
                f"{seconds:.0f} s  {recipe.batch * step / seconds:.0f} frames/s")
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **means}) + "\n")
            if time.monotonic() - saved > checkpoint_seconds and not last:
                save()
                saved = time.monotonic()
    save()
    if validation is not None and len(validation):
        evaluation = evaluate(averaged.model, validation, device)
        save(evaluation)
        for band, found in evaluation.items():
            log(f"{band}: mIoU {found['miou']:.4f} over {found['frames']} frames; " + ", ".join(
                f"{name} {value:.3f}" for name, value in found["iou"].items() if value is not None))
            for name, row in zip(CLASS_NAMES, found["confusion"]):
                log(f"  {name:>10} labelled as " + " ".join(f"{share:.3f}" for share in row))
    return weights_path


class _Trainer:
    """A network with its optimiser, and for GeoGAN the discriminator with its own."""

    def __init__(self, recipe: SegmentationRecipe, device: str):
        self.recipe, self.device_type = recipe, torch.device(device).type
        self.network = NETWORKS[recipe.network]().to(device, memory_format=torch.channels_last).train()
        self.optimiser = self._optimiser(self.network)
        self.discriminator = self.discriminator_optimiser = None
        if recipe.network == "geogan":
            self.discriminator = PatchDiscriminator().to(device, memory_format=torch.channels_last).train()
            self.discriminator_optimiser = self._optimiser(self.discriminator)
        self.weights = torch.ones(CLASS_COUNT, device=device)

    def _optimiser(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        groups = decayed(network.parameters(), self.recipe.weight_decay)
        return torch.optim.AdamW(groups, lr=self.recipe.learning_rate, betas=self.recipe.betas)

    def step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> dict[str, torch.Tensor]:
        """One step; the terms of the loss, on the device."""
        with self._autocast():
            logits = self.network(images)
        logits = logits.float()
        if self.discriminator is None:
            terms = compact_loss(logits, labels, self.weights, self.recipe.outlines)
        else:
            terms = self._adversarial(images, labels, logits, rate)
        scale = 1.0 if self.discriminator is None else self.recipe.cross_entropy
        self._descend(self.network, self.optimiser, terms["loss"], rate, 10.0 * scale)
        return {key: value.detach() for key, value in terms.items()}

    def _adversarial(self, images: torch.Tensor, labels: torch.Tensor, logits: torch.Tensor,
                     rate: float) -> dict[str, torch.Tensor]:
        judged = (labels != NO_DATA)[:, None]
        fake = logits.softmax(1) * judged
        real = softened_truth(labels, fake.detach())
        self.discriminator.requires_grad_(True)
        with self._autocast():
            on_real, on_fake = self.discriminator(images, real), self.discriminator(images, fake.detach())
        discriminator = 0.5 * (adversarial_loss(on_real, True) + adversarial_loss(on_fake, False))
        self._descend(self.discriminator, self.discriminator_optimiser, discriminator, rate)
        self.discriminator.requires_grad_(False)
        with self._autocast():
            verdicts = self.discriminator(images, fake)
        deceit = adversarial_loss(verdicts, True)
        cross_entropy = weighted_cross_entropy(logits, labels, self.weights)
        return {"loss": deceit + self.recipe.cross_entropy * cross_entropy, "cross_entropy": cross_entropy,
                "deceit": deceit, "discriminator": discriminator}

    @staticmethod
    def _descend(network: torch.nn.Module, optimiser: torch.optim.Optimizer, loss: torch.Tensor, rate: float,
                 longest: float = 10.0) -> None:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), longest)
        optimiser.step()

    def _autocast(self):
        return torch.autocast(self.device_type, torch.bfloat16, enabled=multiplies_bfloat16(self.device_type))

    def state_dict(self) -> dict:
        return {key: part.state_dict() for key, part in vars(self).items() if hasattr(part, "state_dict")}

    def load_state_dict(self, state: dict) -> None:
        for key, part in state.items():
            getattr(self, key).load_state_dict(part)


@torch.no_grad()
def evaluate(network: torch.nn.Module, frames: LabelledFrames, device: str = "cpu", batch: int = 32) -> dict:
    """Figures of evaluation.confusion by band ("thermal": grey, "radiometric", "visible"), with `frames` and the
    pixels' `counts`."""
    network = network.to(device).eval()
    bands = {"thermal": (frames.thermal, np.arange(len(frames)), lambda part: np.repeat(part[:, None], 3, 1)),
             "radiometric": (frames.radiometric, frames.radiometric_of, None),
             "visible": (frames.colour, frames.colour_of, lambda part: part.transpose(0, 3, 1, 2))}
    found = {}
    for band, (pictures, labelling, planes) in bands.items():
        counts = torch.zeros(CLASS_COUNT**2 + 1, dtype=torch.int64)
        for first in range(0, len(pictures), batch):
            some = slice(first, first + batch)
            part = planes(pictures[some]) if planes else np.stack(
                [radiometric_channels(*one) for one in zip(pictures[some], frames.temperature_c[some])])
            part = torch.from_numpy(part).to(device).float().contiguous(memory_format=torch.channels_last)
            truth = torch.from_numpy(frames.labels[labelling[some]]).to(device).long()
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda"):
                predicted = network(part).argmax(1)
            pairs = torch.where(truth < CLASS_COUNT, CLASS_COUNT * truth + predicted, CLASS_COUNT**2)
            counts += torch.bincount(pairs.flatten(), minlength=CLASS_COUNT**2 + 1).cpu()
        if len(pictures):
            square = counts[:-1].view(CLASS_COUNT, CLASS_COUNT).numpy()
            found[band] = {**figures(square), "counts": square.tolist(), "frames": len(pictures)}
    return found


def load_weights(path: Path) -> tuple[torch.nn.Module, dict]:
    """The averaged network of a weights.pt or checkpoint.pt, and what the file says besides: network, recipe, data,
    step, seconds, evaluation."""
    state = _load(path)
    try:
        network = NETWORKS[state["network"]]()
        weights = state.pop("weights", None) or state.pop("averaged")
        network.load_state_dict(whole(weights))
        return network.eval(), {key: state[key] for key in ("network", "recipe", "data", "step", "seconds",
                                                            "evaluation")}
    except (KeyError, RuntimeError) as error:
        raise ThermalReidError(f"{path}: no segmenter of this version ({first_line(error)})") from None


def _progress(recipe: SegmentationRecipe, step: int, seconds: float) -> float:
    """Share of the training that is done, 0 to 1, by the limit that is used up sooner."""
    done = (step / recipe.steps if recipe.steps else 0.0, seconds / (60 * recipe.minutes) if recipe.minutes else 0.0)
    return min(1.0, max(done))


def _comparable(recipe: dict) -> dict:
    return json.loads(json.dumps({key: value for key, value in recipe.items() if key not in ("steps", "minutes")}))


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: (value.half() if value.dtype.is_floating_point and value.numel() >= _HALVED_FROM else value).cpu()
            for key, value in weights.items()}


def _load(path: Path) -> dict:
    """On the CPU: load_state_dict takes each tensor to its place, and an optimiser's step counts belong there."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip's, pickle's and torch's own errors share no base class
        raise ThermalReidError(f"{path}: not readable as a checkpoint ({type(error).__name__}); take another or train "
                               "again") from None
