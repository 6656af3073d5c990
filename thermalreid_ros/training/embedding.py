"""Training of the cross-modal embedding: one network for colour photographs and thermal crops.

After CAJ (Ye et al. 2021, channel augmented joint learning) and AGW: batches of P identities with photographs and
thermal pictures of each, identity softmax on a batch-normalised neck (BNNeck, Luo et al. 2019), hardest triplets across
bands, and centres of both bands drawn together (hetero-centre triplet, Liu et al. 2020). Colour is augmented by
channels: one channel or grey in place of three, so that no colour can be trusted alone. The photographs and the
thermal pictures of an identity in a batch come from different places and times, as in the field: from one session the
background alone would tell. Thermal pictures of the near view are the modality between.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.cmc import cmc_figures, guessing, over_draws, true_rank
from thermalreid_ros.files import write_atomically
from thermalreid_ros.training.course import Course, warm_cosine
from thermalreid_ros.training.mobilenet import InvertedResidual
from thermalreid_ros.training.pairs import (
    Pairs,
    celsius,
    cut,
    middle_squares,
    random_squares,
    soften,
    vary_light,
)
from thermalreid_ros.training.weights import Averaged, decayed, load_averaged, write_weights

SIZE_PX = 96
DIMENSIONS = 128
#: expansion, channels, repeats, stride: MobileNetV2 at width 0.5 with finer features at its end, where thermal objects
#: of 20 px still have some.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 48, 3, 1), (6, 64, 3, 2), (6, 96, 2, 1))
_RING = 0.12  # share of the crop's side that counts as surroundings, at each edge


@dataclass(frozen=True)
class EmbeddingRecipe:
    """Everything that decides the result besides the data and the time. identities: in a batch, each with `each`
    photographs and as many thermal pictures."""

    identities: int = 64
    each: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    margin: float = 0.3
    temperature: float = 0.1
    near_share: float = 0.3  # of thermal pictures that are taken near by
    warmup: int = 100  # steps until the full learning rate
    alone: float = 0.2  # share of the training that identity and class have to themselves
    ema: float = 0.998
    seed: int = 1


class ThermalView(nn.Module):
    """Degrees Celsius (N, 1, S, S) as three channels, all against the mean of the edge, the object's surroundings: a
    few kelvin, tens of kelvin, and in units of the crop's own contrast. The absolute temperature is lost on purpose:
    it tells the hour, not the object."""

    def __init__(self, size_px: int):
        super().__init__()
        ring = torch.zeros(1, 1, size_px, size_px)
        width = round(_RING * size_px)
        ring[..., :width, :], ring[..., -width:, :], ring[..., :width], ring[..., -width:] = 1.0, 1.0, 1.0, 1.0
        self.register_buffer("ring", ring / ring.sum(), persistent=False)

    def forward(self, thermal: torch.Tensor) -> torch.Tensor:
        against = thermal - (thermal * self.ring).sum((2, 3), keepdim=True)
        contrast = (against * against).mean((2, 3), keepdim=True).sqrt()
        return torch.cat([torch.tanh(against / 4.0), torch.tanh(against / 16.0),
                          torch.tanh(0.5 * against / (contrast + 0.3))], 1)


class EmbeddingNetwork(nn.Module):
    """Pictures (N, 3, 96, 96) to unit vectors (N, 128). Each band has a first convolution of its own.

    colour: RGB, 0 to 255. thermal: degrees Celsius in one channel (N, 1, ...), seen as ThermalView shows them.
    """

    dimensions = DIMENSIONS

    def __init__(self):
        super().__init__()
        self.size_px = SIZE_PX
        self.stems = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
            for _ in range(2))
        blocks, c_in = [], 16
        for expansion, channels, repeats, stride in _STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(c_in, channels, stride if i == 0 else 1, expansion))
                c_in = channels
        blocks += [nn.Conv2d(c_in, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.power = nn.Parameter(torch.tensor(3.0))
        self.reduce = nn.Linear(320, DIMENSIONS, bias=False)
        # Without scale and shift, and of each band by itself: a common one can be shrunk until all crops are one point,
        # or spent on telling the bands apart, and both please triplets that are not solved yet.
        self.necks = nn.ModuleList(nn.BatchNorm1d(DIMENSIONS, affine=False) for _ in range(2))
        self.classes = nn.Linear(DIMENSIONS, len(CLASS_NAMES))
        self.thermal_channels = ThermalView(self.size_px)

    def colour_channels(self, colour: torch.Tensor) -> torch.Tensor:
        return colour / 127.5 - 1.0

    def pooled(self, first: torch.Tensor) -> torch.Tensor:
        """(N, 128) before the necks, of what a stem made."""
        seen = self.features(first).float().clamp(min=1e-4)
        power = self.power.clamp(1.0, 8.0)
        with torch.autocast(first.device.type, enabled=False):
            return self.reduce(seen.pow(power).mean((2, 3)).pow(1.0 / power))

    def colour(self, colour: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.necks[0](self.pooled(self.stems[0](self.colour_channels(colour)))))

    def thermal(self, thermal: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.necks[1](self.pooled(self.stems[1](self.thermal_channels(thermal)))))

    def both(self, colour: torch.Tensor, thermal: torch.Tensor) -> torch.Tensor:
        """(2, N, 128) behind the necks, of as many crops of either band: they share the normalisation between."""
        first = torch.cat([self.stems[0](self.colour_channels(colour)), self.stems[1](self.thermal_channels(thermal))])
        return torch.stack([neck(half) for neck, half in zip(self.necks, self.pooled(first).chunk(2))])


class IdentitySampler:
    """Batches of identities: rows of the pairs for photographs and for thermal pictures, never of one session.

    recipe: says how many `identities` and how many pictures of `each`, and the `seed`.
    """

    def __init__(self, pairs: Pairs, recipe: Any):
        identity, label = pairs.identity.cpu().numpy(), pairs.label.cpu().numpy()
        rows = [np.flatnonzero(identity == number) for number in range(pairs.identities)]
        self._rows = [own for own in rows if len(own) >= 2]
        if len(self._rows) < 2:
            raise ThermalReidError("no two identities were seen in two places each; make a larger set of pairs")
        kinds = np.array([label[own[0]] for own in self._rows])
        self._by_class = [np.flatnonzero(kinds == k) for k in np.unique(kinds)]
        self._recipe = recipe

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows of photographs (P, K), rows of thermal pictures (P, K)), of all classes alike: in a batch of one class,
        normalisation takes away what the class has in common, which no flight does. The same step, the same batch."""
        recipe, rng = self._recipe, np.random.default_rng((self._recipe.seed, step))
        share = -(-recipe.identities // len(self._by_class))
        chosen = rng.permutation(np.concatenate([rng.choice(pool, min(share, len(pool)), replace=False)
                                                 for pool in self._by_class]))[:recipe.identities]
        colour, thermal = [], []
        for number in chosen:
            own = rng.permutation(self._rows[number])
            split = rng.integers(1, len(own)) if len(own) < 4 else len(own) // 2
            colour.append(rng.choice(own[:split], recipe.each))
            thermal.append(rng.choice(own[split:], recipe.each))
        return np.stack(colour), np.stack(thermal)


def colour_squares(count: int, device: torch.device) -> torch.Tensor:
    """The maps (N, 2, 3), drawn by chance, that photographs are cut by in training."""
    return random_squares(count, device, turn_deg=10.0, stretch=0.05)


def colour_batch(pairs: Pairs, rows: torch.Tensor, size_px: int) -> torch.Tensor:
    """float32 (N, 3, S, S), 0 to 255: photographs as they are shown in flight."""
    return 255.0 * cut(pairs.colour[rows].float() / 255.0, middle_squares(len(rows), rows.device), size_px)


def varied_colour_batch(pairs: Pairs, rows: torch.Tensor, squares: torch.Tensor, size_px: int, *,
                        one_channel: bool = True) -> torch.Tensor:
    """The same cut by `squares`, in other light, some of them softened, with parts erased, and, where one_channel
    allows it, with one channel or grey in place of colours."""
    device, count = rows.device, len(rows)
    colour = vary_light(cut(pairs.colour[rows].float() / 255.0, squares, size_px))
    blurred = torch.rand(count, device=device) < 0.3
    sides = torch.empty(count, device=device).uniform_(20.0, size_px)
    colour = soften(colour, torch.where(blurred, sides, torch.full_like(sides, size_px)))
    if one_channel:
        colour = _one_channel(colour)
    return 255.0 * _erase(colour).clamp(0.0, 1.0)


def _one_channel(colour: torch.Tensor) -> torch.Tensor:
    """CAJ's channel augmentation: as it is, red, green or blue alone, or grey, in equal shares."""
    count = len(colour)
    grey = torch.tensor([0.299, 0.587, 0.114], device=colour.device)
    weights = torch.cat([torch.eye(3, device=colour.device), grey[None]])[
        torch.randint(4, (count,), device=colour.device)]
    single = (colour * weights[:, :, None, None]).sum(1, keepdim=True).expand_as(colour)
    keep = (torch.rand(count, device=colour.device) < 0.2).view(-1, 1, 1, 1)
    return torch.where(keep, colour, single)


def _erase(pictures: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """Rectangles of some pictures set to the picture's mean."""
    count, _, height, width = pictures.shape
    device = pictures.device
    area = torch.empty(count, device=device).uniform_(0.03, 0.2)
    aspect = torch.exp(torch.empty(count, device=device).uniform_(-1.0, 1.0))
    tall, wide = (area * aspect).sqrt() * height, (area / aspect).sqrt() * width
    y, x = (torch.rand(count, device=device) * side for side in (height, width))
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    inside = ((rows[None] - y[:, None]).abs() < 0.5 * tall[:, None])[:, None, :, None] & (
        (columns[None] - x[:, None]).abs() < 0.5 * wide[:, None])[:, None, None, :]
    inside = inside & (torch.rand(count, device=device) < share).view(-1, 1, 1, 1)
    return torch.where(inside, pictures.mean((2, 3), keepdim=True), pictures)


def thermal_batch(pairs: Pairs, rows: torch.Tensor, near_share: float, size_px: int) -> torch.Tensor:
    """float32 (N, 1, S, S), degrees Celsius: from a drone, or near by, softened as if from one, varied."""
    device, count = rows.device, len(rows)
    views = pairs.drone_px.shape[1]
    view = torch.randint(views, (count,), device=device)
    view = torch.where(pairs.drone_px[rows, view] > 0, view, pairs.drone_px[rows].argmax(1))
    near = (torch.rand(count, device=device) < near_share) | (pairs.drone_px[rows, view] <= 0)
    squares = random_squares(count, device, turn_deg=15.0, stretch=0.08, shift=0.12)
    drone = cut(celsius(pairs.drone[rows, view])[:, None], squares, size_px)
    instant = torch.randint(2, (count,), device=device)
    close = cut(celsius(pairs.near[rows, instant])[:, None], squares, size_px)
    close = soften(close, torch.empty(count, device=device).uniform_(14.0, size_px))
    thermal = torch.where(near.view(-1, 1, 1, 1), close, drone)
    blurred = torch.rand(count, device=device) < 0.3
    thermal = soften(thermal, torch.where(blurred, torch.empty(count, device=device).uniform_(24.0, size_px),
                                          torch.full((count,), float(size_px), device=device)))
    middle = thermal.mean((2, 3), keepdim=True)
    gain = torch.exp(0.25 * torch.randn(count, 1, 1, 1, device=device))
    noise = torch.empty(count, 1, 1, 1, device=device).uniform_(0.0, 0.12)
    return _erase(middle + gain * (thermal - middle) + noise * torch.randn_like(thermal), 0.3)


def hardest_gap(distance: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """(N,) of distances (N, M): how much farther the farthest of its own is than the nearest of the others. same:
    whose they are, bool, symmetric under exchange of the two bands."""
    return distance.masked_fill(~same, -math.inf).amax(1) - distance.masked_fill(same, math.inf).amin(1)


def embedding_losses(colour: torch.Tensor, thermal: torch.Tensor, recipe: EmbeddingRecipe) -> dict[str, torch.Tensor]:
    """Hardest triplets across bands, centre triplets, and cross-entropy over likenesses, of what comes out of the
    necks, float32 (P, K, D) of both bands. All are of unit vectors: hardest distances of free ones outweigh the other
    losses by far at the start, when they tell nothing."""
    p, k, _ = colour.shape
    colour, thermal = F.normalize(colour, dim=2), F.normalize(thermal, dim=2)
    each = torch.arange(p, device=colour.device).repeat_interleave(k)
    same = each[:, None] == each
    distance = torch.cdist(colour.flatten(0, 1), thermal.flatten(0, 1))
    hard = sum(F.softplus(hardest_gap(table, same)).mean() for table in (distance, distance.T))
    centres = F.normalize(torch.cat([colour.mean(1), thermal.mean(1)]))
    between = torch.cdist(centres, centres)
    who = torch.arange(p, device=colour.device).repeat(2)
    other_band = torch.cat([torch.diagonal(between[:p, p:]), torch.diagonal(between[p:, :p])])
    nearest = between.masked_fill(who[:, None] == who, math.inf).amin(1)
    centre = F.relu(recipe.margin + other_band - nearest).mean()
    likeness = colour.flatten(0, 1) @ thermal.flatten(0, 1).T / recipe.temperature
    target = same.float() / k
    contrast = -0.5 * ((F.log_softmax(likeness, 1) * target).sum(1).mean()
                       + (F.log_softmax(likeness.T, 1) * target).sum(1).mean())
    return {"triplet": hard, "centre": centre, "contrast": contrast}


def share_across(progress: float, alone: float) -> float:
    """Weight, 0 to 1, of the losses across bands; identity and class are alone for such a share of the training. From
    the start at full weight these losses keep identity and class from being learned at all: as long as features mean
    nothing, their gradients are large and point anywhere."""
    return min(max(progress / alone - 1.0, 0.0), 1.0)


def train(recipe: EmbeddingRecipe, pairs: Pairs, out: Path, *, minutes: float, steps: int = 10**9,
          log: Callable[[str], None] = print, checkpoint_every_s: float = 60.0) -> Path:
    """Train for so many minutes or steps, going on from `out/checkpoint.pt`; returns the path of `out/weights.pt`,
    the averaged network at half precision. The identities held out (Pairs.held_out) are measured on at the end:
    `out/metrics.json`.

    ThermalReidError where a checkpoint of another recipe is there.
    """
    device = pairs.colour.device
    kind = device.type
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    training = pairs.only(~pairs.held_out())
    sampler = IdentitySampler(training, recipe)
    model = EmbeddingNetwork().to(device, memory_format=torch.channels_last).train()
    heads = nn.Linear(DIMENSIONS, training.identities, bias=False).to(device)
    nn.init.normal_(heads.weight, std=0.01)
    averaged = Averaged(model, recipe.ema)
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(decayed(parameters, recipe.weight_decay), lr=recipe.learning_rate,
                                  fused=kind == "cuda")
    course = Course(out, {"model": model, "heads": heads, "averaged": averaged.model, "optimiser": optimiser},
                    asdict(recipe), device=device, minutes=minutes, steps=steps, log=log,
                    checkpoint_every_s=checkpoint_every_s)
    for step, progress in course:
        rate = warm_cosine(step, recipe.warmup, progress)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate
        rows = torch.from_numpy(np.stack(sampler(step))).to(device, non_blocking=True)
        p, k = rows.shape[1:]
        colour = varied_colour_batch(training, rows[0].flatten(), colour_squares(p * k, device), SIZE_PX)
        colour = colour.contiguous(memory_format=torch.channels_last)
        thermal = thermal_batch(training, rows[1].flatten(), recipe.near_share, SIZE_PX)
        with torch.autocast(kind, torch.bfloat16):
            both = model.both(colour, thermal)
        neck = both.float().flatten(0, 1)
        identity, label = (column[rows.flatten()] for column in (training.identity, training.label))
        terms = {"identity": F.cross_entropy(heads(neck), identity, label_smoothing=0.1),
                 "class": F.cross_entropy(model.classes(neck), label)}
        terms |= embedding_losses(*neck.view(2, p, k, -1), recipe)
        loss = terms["identity"] + terms["class"] + share_across(progress, recipe.alone) * (
            0.5 * terms["triplet"] + terms["centre"] + terms["contrast"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        averaged.update(step)
        course.note(terms)
    figures = evaluate(averaged.model, pairs.only(pairs.held_out())) if pairs.held_out().any() else {}
    figures |= {"training": {"pairs": len(training), "identities": training.identities, "steps": course.step,
                             "images_seen": 2 * course.step * recipe.identities * recipe.each, "seed": recipe.seed,
                             "losses": course.losses()}}
    write_atomically(out / "metrics.json", json.dumps(figures, indent=1) + "\n")
    log(json.dumps(figures))
    return write_weights(averaged.model, out, recipe=asdict(recipe), step=course.step, metrics=figures)


@torch.no_grad()
def embed_pairs(model: nn.Module, pairs: Pairs, batch: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """(colour (N, dimensions), drone (N, D, dimensions)) on the CPU, each the mean of the crop and its mirror image, by
    an EmbeddingNetwork or what has its `colour`, `thermal`, `size_px` and `dimensions`."""
    model.eval()
    colour, drone = [], []
    for rows in torch.arange(len(pairs), device=pairs.label.device).split(batch):
        picture = colour_batch(pairs, rows, model.size_px)
        colour.append(F.normalize(model.colour(picture) + model.colour(picture.flip(3))).cpu())
        seen = celsius(pairs.drone[rows]).flatten(0, 1)[:, None]
        seen = cut(seen, middle_squares(len(seen), seen.device), model.size_px)
        both = F.normalize(model.thermal(seen) + model.thermal(seen.flip(3)))
        drone.append(both.view(len(rows), -1, model.dimensions).cpu())
    return torch.cat(colour), torch.cat(drone)


def evaluate(model: nn.Module, pairs: Pairs, draws: int = 20) -> dict:
    """The figures of `ranked` for photographs against pictures from a drone. Also the share of photographs whose class
    is recognised. model: as of embed_pairs, with `classes`."""
    colour, drone = embed_pairs(model, pairs)
    with torch.no_grad():
        recognised = (model.cpu().classes(colour * model.dimensions**0.5).argmax(1) == pairs.label.cpu()).float().mean()
    present = (pairs.drone_px > 0).cpu().numpy()
    columns = np.flatnonzero(present.ravel())
    distance = 1.0 - (colour @ drone.flatten(0, 1).T).numpy()[:, columns]
    return {"class_recognised": round(float(recognised), 4)} | ranked(
        distance, columns // present.shape[1], pairs, draws)


def ranked(distance: np.ndarray, of_row: np.ndarray, pairs: Pairs, draws: int = 20) -> dict:
    """CMC of the pairs' photographs against pictures, one of each identity, drawn anew so many times, of another
    session than the photograph's; against all classes and against the own class alone; per class too.

    distance: (N, M) of photographs to pictures. of_row: (M,), the pair that a picture belongs to.
    """
    identity, label = pairs.identity.cpu().numpy(), pairs.label.cpu().numpy()
    of_identity = identity[of_row]
    rng = np.random.default_rng(1)
    figures: dict[str, list] = {}
    sizes: dict[str, list] = {}
    for _ in range(draws):
        order = rng.permutation(len(of_row))
        found: dict[str, list[tuple[int, int]]] = {}
        for row in range(len(identity)):
            allowed = order[of_row[order] != row]
            who, first = np.unique(of_identity[allowed], return_index=True)
            if identity[row] not in who:
                continue
            gallery = allowed[first]
            own = distance[row, gallery]
            found.setdefault("mixed", []).append((true_rank(own, int(np.searchsorted(who, identity[row]))), len(own)))
            alike = label[of_row[gallery]] == label[row]
            own, who = own[alike], who[alike]
            rank = (true_rank(own, int(np.searchsorted(who, identity[row]))), len(own))
            found.setdefault("same_class", []).append(rank)
            found.setdefault(f"same_class_{CLASS_NAMES[label[row]]}", []).append(rank)
        for name, ranks in found.items():
            table = np.array(ranks)
            figures.setdefault(name, []).append(cmc_figures(table[:, 0], table[:, 1]))
            sizes[name] = table[:, 1]
    result: dict = {}
    for name, drawn in figures.items():
        mean, spread = over_draws(drawn)
        result[name] = {key: round(value, 4) for key, value in mean.as_dict().items()} | {
            "r1_spread": round(spread.r1, 4), "probes": len(sizes[name]), "gallery": float(np.mean(sizes[name])),
            "r1_of_guessing": round(guessing(sizes[name]), 4)}
    return result


def load_weights(path: Path) -> tuple[EmbeddingNetwork, dict]:
    """(averaged network, what else the file says). ThermalReidError where it is none."""
    model = EmbeddingNetwork()
    return model, load_averaged(model, path, "an embedding")
