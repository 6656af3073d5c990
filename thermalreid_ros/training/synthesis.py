"""Training of probe synthesis: ThermalGAN's two generators and the conditional one, side by side on the same batches.

ThermalGAN (Kniaz et al. 2018) as it is: each generator against a PatchGAN on input and output, GAN loss + 100 L1,
Adam 2e-4, 0.5, 0.999. The mean generator learns pairs of one instant; the relative one also sees the view's other
instant, whose mean map is another, so that other means give other, plausible pictures. The conditional generator
learns both instants, each with its hour and weather, by L1 + SSIM + gradients, lightly adversarial, and, given an
embedding network, by whether its picture is recognised among the batch's pictures from a drone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import write_atomically
from thermalreid_ros.training.course import Course
from thermalreid_ros.training.pairs import (
    Pairs,
    celsius,
    cut,
    middle_squares,
    random_squares,
    soften,
    vary_light,
)
from thermalreid_ros.training.synthesizers import (
    EXCESS_SCALE_K,
    MEAN_SCALE_K,
    RELATIVE_SCALE_K,
    ConditionalGenerator,
    MeanGenerator,
    PatchDiscriminator,
    RelativeGenerator,
    conditions_of,
    edges,
    ssim,
)
from thermalreid_ros.training.weights import Averaged, load_averaged, write_weights

SIZE_PX = 128
#: Quantiles of what the predicted mean temperature lacks, from which several probes are made.
QUANTILES = (0.5, 0.15, 0.85, 0.3, 0.7)


@dataclass(frozen=True)
class SynthesisRecipe:
    """Everything that decides the result besides the data and the time."""

    batch: int = 64
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    l1_weight: float = 100.0
    object_weight: float = 3.0  # of object pixels in L1 terms against their surroundings
    mask_weight: float = 10.0
    conditional_gan: float = 0.1
    matching: float = 0.3
    ema: float = 0.999
    seed: int = 1


class Generators(nn.Module):
    """What is trained and exported."""

    def __init__(self):
        super().__init__()
        self.mean, self.relative, self.conditional = MeanGenerator(), RelativeGenerator(), ConditionalGenerator()


class _Discriminators(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.relative, self.conditional = (PatchDiscriminator(n) for n in (4, 5, 4))


@dataclass(eq=False)
class Batch:
    """colour: (N, 3, S, S), -1 to 1. mask: (N, 1, S, S), 0 to 1. excess: (N, 2, S, S) kelvin over the air at both
    instants. conditions: (N, 2, 5). rows: (N,), of the pairs."""

    colour: torch.Tensor
    mask: torch.Tensor
    excess: torch.Tensor
    conditions: torch.Tensor
    rows: torch.Tensor


def make_batch(pairs: Pairs, rows: torch.Tensor, varied: bool) -> Batch:
    device = rows.device
    squares = random_squares(len(rows), device) if varied else middle_squares(len(rows), device)
    picture = torch.cat((pairs.colour[rows].float() / 255.0, pairs.mask[rows].float(), celsius(pairs.near[rows])), 1)
    picture = cut(picture, squares, SIZE_PX)
    colour, mask, celsius_both = picture[:, :3], picture[:, 3:4], picture[:, 4:]
    if varied:
        colour = vary_light(colour, 0.6)
        blurred = torch.rand(len(rows), device=device) < 0.3
        sides = torch.empty(len(rows), device=device).uniform_(40.0, SIZE_PX)
        colour = soften(colour, torch.where(blurred, sides, torch.full_like(sides, SIZE_PX)))
    given = pairs.conditions[rows]
    return Batch(colour.clamp(0, 1) * 2.0 - 1.0, mask, celsius_both - given[:, :, 1, None, None],
                 torch.stack([conditions_of(*given[:, k, :4].unbind(1)) for k in (0, 1)], 1), rows)


def mean_map(excess: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(map level within the object and around it, each at its mean; the object's mean (N,)) of excesses
    (N, 1, H, W), kelvin."""
    held = excess.clamp(-30.0, 60.0)  # the sky does not tell the ground's temperature
    inside = (held * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1.0)
    outside = (held * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3)).clamp(min=1.0)
    level = mask.round()
    return level * inside.view(-1, 1, 1, 1) + (1 - level) * outside.view(-1, 1, 1, 1), inside


def object_mean(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N,), of a picture (N, 1, H, W) within a soft mask."""
    return (picture * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1.0)


def _weighted_l1(difference: torch.Tensor, mask: torch.Tensor, weight: float) -> torch.Tensor:
    weights = 1.0 + (weight - 1.0) * mask
    return (difference.abs() * weights).sum() / weights.sum()


def _mask_loss(logit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy + 1 - Dice."""
    made = logit.sigmoid()
    dice = (2 * (made * mask).sum((1, 2, 3)) + 1) / (made.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logit, mask) + (1 - dice).mean()


def _real(logit: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logit, torch.ones_like(logit))


def _made(logit: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logit, torch.zeros_like(logit))


class _Trainer:
    """One step for all networks."""

    def __init__(self, recipe: SynthesisRecipe, device: str, embedding: nn.Module | None):
        self.recipe, self.kind, self.embedding = recipe, torch.device(device).type, embedding
        self.generators = Generators().to(device, memory_format=torch.channels_last)
        self.discriminators = _Discriminators().to(device, memory_format=torch.channels_last)
        self.averaged = Averaged(self.generators, recipe.ema)
        fused = self.kind == "cuda"
        self.optimisers = [torch.optim.Adam(net.parameters(), recipe.learning_rate, recipe.betas, fused=fused)
                           for net in (self.generators, self.discriminators)]

    def step(self, pairs: Pairs, batch: Batch, number: int, rate: float) -> dict[str, torch.Tensor]:
        recipe, g, d = self.recipe, self.generators, self.discriminators
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * rate
        half = len(batch.rows) // 2
        # The relative and the conditional generator learn each pair at one of its instants, half and half.
        instant = torch.zeros(len(batch.rows), dtype=torch.long, device=batch.rows.device)
        instant[half:] = 1
        every = torch.arange(len(batch.rows), device=batch.rows.device)
        excess, conditions = batch.excess[every, instant][:, None], batch.conditions[every, instant]
        first_map, _ = mean_map(batch.excess[:, :1], batch.mask)
        own_map, _ = mean_map(excess, batch.mask)
        mean_target = (first_map / MEAN_SCALE_K).clamp(-1, 1)
        level = (own_map / MEAN_SCALE_K).clamp(-1, 1)
        relative_target = ((excess - own_map) / RELATIVE_SCALE_K).clamp(-1, 1)
        target = (excess / EXCESS_SCALE_K).clamp(-1.5, 3.0)

        with torch.autocast(self.kind, torch.bfloat16):
            mean, mean_mask = g.mean(batch.colour)
            relative = g.relative(level, batch.colour)
            made, made_mask = g.conditional(batch.colour, conditions)
            given = torch.cat((level, batch.colour), 1)
            fooled = {"mean": d.mean(batch.colour, mean), "relative": d.relative(given, relative),
                      "conditional": d.conditional(batch.colour, made)}
        terms = {
            "mean_l1": _weighted_l1(mean - mean_target, batch.mask, recipe.object_weight),
            "relative_l1": _weighted_l1(relative - relative_target, batch.mask, recipe.object_weight),
            "l1": _weighted_l1(made - target, batch.mask, recipe.object_weight),
            "ssim": 1.0 - ssim(made, target, 2.0).mean(),
            "gradient": sum(_weighted_l1(a - b, m, recipe.object_weight) for a, b, m in zip(
                edges(made), edges(target), (batch.mask[..., 1:], batch.mask[..., 1:, :]))),
            "mask": _mask_loss(mean_mask, batch.mask) + _mask_loss(made_mask, batch.mask),
        }
        loss = (recipe.l1_weight * (terms["mean_l1"] + terms["relative_l1"])
                + _real(fooled["mean"]) + _real(fooled["relative"])
                + 10.0 * terms["l1"] + terms["ssim"] + 5.0 * terms["gradient"]
                + recipe.conditional_gan * _real(fooled["conditional"]) + recipe.mask_weight * terms["mask"])
        if self.embedding is not None:
            terms["matching"] = self._matching(pairs, batch, made, half)
            loss = loss + recipe.matching * terms["matching"]
        self.optimisers[0].zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(g.parameters(), 1000.0)
        self.optimisers[0].step()
        self.averaged.update(number)

        with torch.autocast(self.kind, torch.bfloat16):
            judged = [(d.mean(batch.colour, mean_target), d.mean(batch.colour, mean.detach())),
                      (d.relative(given, relative_target), d.relative(given, relative.detach())),
                      (d.conditional(batch.colour, target), d.conditional(batch.colour, made.detach()))]
        # Halved, as pix2pix does, so that the discriminator learns slower.
        against = 0.5 * sum(_real(real) + _made(fake) for real, fake in judged)
        self.optimisers[1].zero_grad(set_to_none=True)
        against.backward()
        self.optimisers[1].step()
        return {**terms, "discriminators": against}

    def _matching(self, pairs: Pairs, batch: Batch, made: torch.Tensor, half: int) -> torch.Tensor:
        """Cross-entropy of finding one's own among the batch's identities as a drone sees them at the same instant."""
        rows = batch.rows[half:]
        seen = pairs.drone_px[rows].argmax(1)
        usable = pairs.drone_px[rows].amax(1) > 0
        if int(usable.sum()) < 2:
            return made.new_zeros(())
        rows, seen = rows[usable], seen[usable]
        drone = celsius(pairs.drone[rows, seen])[:, None]
        side = self.embedding.size_px
        drone = cut(drone, middle_squares(len(rows), drone.device), side)
        air = pairs.conditions[rows, 1, 1].view(-1, 1, 1, 1)
        own = F.interpolate(made[half:][usable] * EXCESS_SCALE_K + air, size=(side, side), mode="area")
        with torch.no_grad():
            gallery = self.embedding.thermal(drone)
        likeness = self.embedding.thermal(own) @ gallery.T / self.embedding.nat
        same = pairs.identity[rows][:, None] == pairs.identity[rows]
        likeness = likeness.masked_fill(same & ~torch.eye(len(rows), dtype=torch.bool, device=same.device), -1e4)
        return F.cross_entropy(likeness, torch.arange(len(rows), device=same.device))


def train(recipe: SynthesisRecipe, pairs: Pairs, out: Path, *, minutes: float, steps: int = 10**9,
          embedding: nn.Module | None = None, log: Callable[[str], None] = print, checkpoint_every_s: float = 60.0,
          ) -> Path:
    """Train for so many minutes or steps, going on from `out/checkpoint.pt`; returns the path of `out/weights.pt`,
    the averaged generators at half precision. The learning rate falls to zero in the second half. The identities
    held out (Pairs.held_out) are measured on at the end: `out/metrics.json`.

    ThermalReidError where a checkpoint of another recipe is there.
    """
    device = pairs.colour.device
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    train_rows = torch.nonzero(~pairs.held_out())[:, 0]
    if not len(train_rows):
        raise ThermalReidError("no pairs to train on: all identities are held out; make a larger set")
    trainer = _Trainer(recipe, str(device), embedding)
    parts = {"generators": trainer.generators, "discriminators": trainer.discriminators,
             "averaged": trainer.averaged.model, "optimisers": trainer.optimisers}
    course = Course(out, parts, _plain(recipe), device=device, minutes=minutes, steps=steps, log=log,
                    checkpoint_every_s=checkpoint_every_s)
    trainer.generators.train()
    for step, progress in course:
        rows = train_rows[torch.randint(len(train_rows), (recipe.batch,), device=device)]
        course.note(trainer.step(pairs, make_batch(pairs, rows, True), step, min(1.0, 2.0 * (1.0 - progress))))
    figures = evaluate(trainer.averaged.model, pairs.only(pairs.held_out())) if pairs.held_out().any() else {}
    figures |= {"training": {"pairs": len(train_rows), "identities": int(pairs.identity[train_rows].unique().numel()),
                             "steps": course.step, "images_seen": course.step * recipe.batch, "seed": recipe.seed}}
    write_atomically(out / "metrics.json", json.dumps(figures, indent=1) + "\n")
    log(json.dumps(figures))
    return write_weights(trainer.averaged.model, out, recipe=_plain(recipe), step=course.step, metrics=figures)


def _plain(recipe: SynthesisRecipe) -> dict:
    return json.loads(json.dumps(asdict(recipe)))


@torch.no_grad()
def predict(generators: Generators, batch: Batch, instant: int) -> dict[str, dict[str, torch.Tensor]]:
    """Excess over the air (N, 1, S, S), kelvin, mask (N, 1, S, S) and the object's mean (N,), of ThermalGAN, which
    does not know of instants, and of the conditional generator at one."""
    level, logit = generators.mean(batch.colour)
    mask = logit.sigmoid()
    thermalgan = level * MEAN_SCALE_K + RELATIVE_SCALE_K * generators.relative(level, batch.colour)
    made, made_logit = generators.conditional(batch.colour, batch.conditions[:, instant])
    made, made_mask = EXCESS_SCALE_K * made, made_logit.sigmoid()
    return {"thermalgan": {"excess": thermalgan, "mask": mask, "mean": object_mean(level * MEAN_SCALE_K, mask)},
            "conditional": {"excess": made, "mask": made_mask, "mean": object_mean(made, made_mask)}}


@torch.no_grad()
def evaluate(generators: Generators, pairs: Pairs, batch: int = 128) -> dict:
    """Figures on pairs: per method and instant the error of the object's mean temperature (kelvin; mean and median of
    the absolute), RMSE of relative temperature within the object (kelvin, both clipped to +-10 as in training), SSIM of
    the crop's relative temperature, IoU of the mask; and per method and class the QUANTILES of what the mean at the
    other instant lacks."""
    generators.eval()
    rows = torch.arange(len(pairs), device=pairs.label.device)
    found: dict[str, list[torch.Tensor]] = {}
    for part in rows.split(batch):
        item = make_batch(pairs, part, False)
        for instant, when in enumerate(("first", "second")):
            truth = item.excess[:, instant:instant + 1]
            _, true_mean = mean_map(truth, item.mask)
            relative = (truth - true_mean.view(-1, 1, 1, 1)).clamp(-RELATIVE_SCALE_K, RELATIVE_SCALE_K)
            for name, made in predict(generators, item, instant).items():
                own = (made["excess"] - object_mean(made["excess"], item.mask).view(-1, 1, 1, 1)).clamp(
                    -RELATIVE_SCALE_K, RELATIVE_SCALE_K)
                square = object_mean((own - relative) ** 2, item.mask)
                key = f"{name}/{when}"
                for figure, value in (("error", true_mean - made["mean"]), ("square", square),
                                      ("ssim", ssim(own, relative, 2 * RELATIVE_SCALE_K).mean((1, 2, 3))),
                                      ("iou", _iou(made["mask"], item.mask))):
                    found.setdefault(f"{key}/{figure}", []).append(value.float())
    table = {name: torch.cat(parts) for name, parts in found.items()}
    figures: dict = {}
    for name in ("thermalgan", "conditional"):
        for when in ("first", "second"):
            error = table[f"{name}/{when}/error"]
            own = {"mean_mae_k": error.abs().mean(), "mean_median_k": error.abs().median(),
                   "relative_rmse_k": table[f"{name}/{when}/square"].mean().sqrt(),
                   "ssim": table[f"{name}/{when}/ssim"].mean(), "mask_iou": table[f"{name}/{when}/iou"].mean()}
            own |= {f"mean_median_k_{kind}": error[pairs.label == label].abs().median()
                    for label, kind in enumerate(CLASS_NAMES) if (pairs.label == label).any()}
            figures.setdefault(name, {})[when] = {key: round(float(value), 4) for key, value in own.items()}
        error = table[f"{name}/second/error"]
        levels = torch.tensor(QUANTILES, device=error.device)
        figures[name]["mean_offsets_k"] = {
            kind: [round(v, 3) for v in error[pairs.label == label].quantile(levels).tolist()]
            for label, kind in enumerate(CLASS_NAMES) if (pairs.label == label).any()}
    figures["pairs"] = len(pairs)
    return figures


def _iou(made: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    made, mask = made > 0.5, mask > 0.5
    return (made & mask).sum((1, 2, 3)) / (made | mask).sum((1, 2, 3)).clamp(min=1)


def load_weights(path: Path) -> tuple[Generators, dict]:
    """(averaged generators, what else the file says: recipe, step, metrics). ThermalReidError where it is none."""
    generators = Generators()
    return generators, load_averaged(generators, path, "synthesis")
