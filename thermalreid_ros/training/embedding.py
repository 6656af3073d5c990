"""Training of the cross-modal embedding: one network for colour photographs and thermal crops.

Both bands share the network but for a first convolution and a last layer of their own. It learns to tell what shows of
an object in both, its traits (training/traits.py), from either band. What it tells of two pictures is compared as the
log-likelihood ratio of two noisy measurements of one normal variable (the two-covariance model of Ioffe 2006, PLDA),
which identity across bands then sharpens: cross-entropy over the likenesses of a batch, hardest triplets, and centres
of both bands (hetero-centre triplets, Liu et al. 2020), as AGW and CAJ have them (Ye et al. 2021). Colour is augmented
by channels (CAJ): one channel or grey in place of three, so that no colour can be trusted alone. The photographs and
the thermal pictures of an identity in a batch come from different places and times, as in the field: from one session
the background alone would tell. Thermal pictures of the near view are the modality between. Identities are learned by
the thousand from sketches, what a street does to their pictures from pairs.
"""

from __future__ import annotations

import copy
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
from thermalreid_ros.training.detection import keep_freed_memory
from thermalreid_ros.training.lengths import load_weights as load_length
from thermalreid_ros.training.mobilenet import IMAGENET_MEAN, IMAGENET_STD, MobileNetV2
from thermalreid_ros.training.pairs import (
    Pairs,
    celsius,
    cut,
    middle_squares,
    random_squares,
    soften,
    vary_light,
)
from thermalreid_ros.training.traits import COMPONENTS
from thermalreid_ros.training.weights import Averaged, load_averaged, scaled, set_rate, write_weights

SIZE_PX = 96
_BLOCKS = 11  # of MobileNetV2: 64 channels at stride 16
_FROZEN = 3  # of those behind the first convolution, which keep their pretrained weights as it does
_RING = 0.12  # share of the crop's side that counts as surroundings, at each edge
_CLASSES = len(CLASS_NAMES)
_MOST_TOLD = 4.0  # length of a vector of traits that is told at most, in spreads
_BESIDE = 0.24, 0.46  # of a crop's side, from its middle to where another object's picture begins; objects end at 0.33
#: Of the unit vectors: what equal classes are alike by, likeness of a nat, what the parts of one picture alone are
#: multiplied by. They leave something of the unit for the last component, whatever is told.
_CLASS_SHARE, _NAT, _CONSTANT = 0.06, 0.01, 0.35


@dataclass(frozen=True)
class EmbeddingRecipe:
    """Everything that decides the result besides the data and the time. identities: in a batch, each with `each`
    photographs and as many thermal pictures. pairs_share: of the identities in a batch, those of pairs where there are
    sketches, too. backbone_rate: share of the learning rate for pretrained layers."""

    identities: int = 64
    each: int = 1
    learning_rate: float = 2e-3
    backbone_rate: float = 0.5
    weight_decay: float = 0.02
    dropout: float = 0.1
    margin: float = 1.0
    near_share: float = 0.15  # of thermal pictures that are taken near by
    pairs_share: float = 0.3
    traits: float = 0.3  # weight of their squared error
    warmup: int = 100  # steps until the full learning rate
    alone: float = 0.1  # share of the training that traits and class have to themselves
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


@dataclass(frozen=True, eq=False)
class Told:
    """What is told of N pictures: logits (N, C) of classes, traits (N, C, COMPONENTS), were they of each class: the
    mean of what is believed, near 0 where the picture shows little."""

    logits: torch.Tensor
    traits: torch.Tensor


class EmbeddingNetwork(nn.Module):
    """Pictures (N, 3, 96, 96) to unit vectors (N, dimensions), whose products across bands are likenesses.

    colour: RGB, 0 to 255. thermal: degrees Celsius in one channel (N, 1, ...), seen as ThermalView shows them.

    A log-likelihood ratio of traits x of a photograph and y of a thermal picture, each the mean of a normal belief, is
    sum(c x y - a x^2 / 2 - b y^2 / 2) but for a constant; a, b, c follow from how much of the traits' variance either
    band explains, and are learned. Vectors hold probabilities of classes, sqrt(c) x for each class, the squares once
    against a constant of the other band, and what is missing to the unit in a component of the band's own.
    """

    dimensions = _CLASSES * (1 + COMPONENTS) + 4
    nat = _NAT

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.size_px, self._pretrained = SIZE_PX, False
        backbone = MobileNetV2(inputs=3).features[:_BLOCKS]
        self.stems = nn.ModuleList([backbone[0], copy.deepcopy(backbone[0])])
        self.features = backbone[1:]
        self.mix = nn.Sequential(nn.Conv2d(64, 192, 1, bias=False), nn.BatchNorm2d(192), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(384, _CLASSES * (1 + COMPONENTS)) for _ in range(2))
        # ln of a, b and c: as if photographs explained 0.6 of the variance and thermal pictures 0.3.
        start = torch.tensor([0.3, 0.6, 1.0]).log() - math.log(1.0 - 0.3 * 0.6)
        self.ratio = nn.Parameter(start.view(3, 1, 1).repeat(1, _CLASSES, COMPONENTS))
        self.thermal_channels = ThermalView(self.size_px)
        for name, values in (("grey", IMAGENET_MEAN), ("contrast", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def load_length(self, path: Path) -> None:
        """Begin with the layers of a network that was trained to tell lengths by photographs (lengths.LengthNetwork):
        it knows kinds by their shapes already."""
        length = load_length(path)[0]
        for stem in self.stems:
            stem.load_state_dict(length.features[0].state_dict())
        self.features.load_state_dict(length.features[1:].state_dict())
        self.mix.load_state_dict(length.mix.state_dict())
        self._pretrained = True

    def load_weights(self, path: Path) -> None:
        """Begin with all of an embedding that was trained before."""
        self.load_state_dict(load_weights(path)[0].state_dict())
        self._pretrained = True

    def train(self, mode: bool = True):
        """Statistics of pretrained layers stay as they are: batches are small, and of two bands."""
        super().train(mode)
        for module in (*self.stems.modules(), *self.features.modules()) if self._pretrained else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def colour_channels(self, colour: torch.Tensor) -> torch.Tensor:
        return (colour - self.grey) / self.contrast

    def described(self, first: torch.Tensor) -> torch.Tensor:
        """float32 (N, 384) of what a stem made."""
        for block in self.features:
            first = block(first)
        seen = self.mix(first).float()
        return self.dropout(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))

    def told(self, described: torch.Tensor, band: int) -> Told:
        """band: 0 colour, 1 thermal."""
        with torch.autocast(described.device.type, enabled=False):
            logits, traits = self.heads[band](described).split((_CLASSES, _CLASSES * COMPONENTS), 1)
        traits = traits.view(-1, _CLASSES, COMPONENTS)
        length = traits.square().sum(2, keepdim=True)
        return Told(logits, traits / (1.0 + length / _MOST_TOLD**2).sqrt())

    def vectors(self, told: Told, band: int) -> torch.Tensor:
        """(N, dimensions) of what was told of pictures of a band."""
        probability = told.logits.softmax(1)
        own, common = self.ratio[band].exp(), self.ratio[2].exp()
        squares = 0.5 * _NAT * (probability * (own * told.traits.square()).sum(2)).sum(1, keepdim=True)
        parts = [_CLASS_SHARE**0.5 * probability,
                 (probability[..., None] * (_NAT * common).sqrt() * told.traits).flatten(1)]
        constant = torch.full_like(squares, _CONSTANT)
        alone = [constant, -squares / _CONSTANT]
        parts += alone if band == 0 else alone[::-1]
        given = torch.cat(parts, 1)
        # What is told is bounded so that the unit is enough; were it not, the vector would be a little shorter.
        given = given / given.square().sum(1, keepdim=True).clamp(min=1.0).sqrt()
        missing = (1.0 - given.square().sum(1, keepdim=True)).clamp(min=0.0).sqrt()
        none = torch.zeros_like(missing)
        return torch.cat([given, *((missing, none) if band == 0 else (none, missing))], 1)

    def seen(self, pictures: torch.Tensor, band: int) -> Told:
        channels = self.colour_channels if band == 0 else self.thermal_channels
        return self.told(self.described(self.stems[band](channels(pictures))), band)

    def colour(self, colour: torch.Tensor) -> torch.Tensor:
        return self.vectors(self.seen(colour, 0), 0)

    def thermal(self, thermal: torch.Tensor) -> torch.Tensor:
        return self.vectors(self.seen(thermal, 1), 1)

    def recognised(self, colour: torch.Tensor) -> torch.Tensor:
        """(N,), numbers of the likeliest classes of photographs."""
        return self.seen(colour, 0).logits.argmax(1)

    def flown(self, pictures: torch.Tensor, thermal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(unit vectors, probabilities of classes) of pictures (N, 3, S, S), of which thermal (N,) tells the band:
        first and last layers of both run, they cost little, and one graph serves both."""
        hot = thermal.view(-1, 1) > 0.5
        first = torch.where(hot[..., None, None], self.stems[1](self.thermal_channels(pictures[:, :1])),
                            self.stems[0](self.colour_channels(pictures)))
        described = self.described(first)
        told = [self.told(described, band) for band in (0, 1)]
        return (torch.where(hot, self.vectors(told[1], 1), self.vectors(told[0], 0)),
                torch.where(hot, told[1].logits, told[0].logits).softmax(1))

    def both(self, colour: torch.Tensor, thermal: torch.Tensor) -> tuple[Told, Told]:
        """Of as many crops of either band, in one run of the shared layers."""
        first = torch.cat([self.stems[0](self.colour_channels(colour)), self.stems[1](self.thermal_channels(thermal))])
        halves = self.described(first).chunk(2)
        return self.told(halves[0], 0), self.told(halves[1], 1)


class IdentitySampler:
    """Batches of identities: rows of the pairs for photographs and for thermal pictures, never of one session.

    recipe: says how many `identities` and how many pictures of `each`, and the `seed`; where sketches have been joined
    to the pairs, also the `pairs_share`.
    """

    def __init__(self, pairs: Pairs, recipe: Any):
        identity, label = pairs.identity.cpu().numpy(), pairs.label.cpu().numpy()
        order = np.argsort(identity, kind="stable")
        rows = np.split(order, np.flatnonzero(np.diff(identity[order])) + 1)
        self._rows = [own for own in rows if len(own) >= 2]
        if len(self._rows) < 2:
            raise ThermalReidError("no two identities were seen in two places each; make a larger set of pairs")
        kinds = np.array([label[own[0]] for own in self._rows])
        drawn = np.array([own[0] >= len(pairs.near) for own in self._rows])  # sketches
        share = recipe.pairs_share if drawn.any() else 1.0
        self._pools = [[(np.flatnonzero((kinds == k) & (drawn == sketched)), part)
                        for sketched, part in ((False, share), (True, 1.0 - share)) if part > 0.0]
                       for k in np.unique(kinds)]
        self._recipe = recipe

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows of photographs (P, K), rows of thermal pictures (P, K)), of all classes alike: in a batch of one class,
        normalisation takes away what the class has in common, which no flight does. The same step, the same batch."""
        recipe, rng = self._recipe, np.random.default_rng((self._recipe.seed, step))
        share = -(-recipe.identities // len(self._pools))
        chosen = rng.permutation(np.concatenate([rng.choice(pool, min(round(part * share), len(pool)), replace=False)
                                                 for pools in self._pools for pool, part in pools]))
        colour, thermal = [], []
        for number in chosen[:recipe.identities]:
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
    colour = beside(colour)
    if one_channel:
        colour = _one_channel(colour)
    return 255.0 * _erase(colour).clamp(0.0, 1.0)


def _one_channel(colour: torch.Tensor, as_it_is: float = 0.5) -> torch.Tensor:
    """CAJ's channel augmentation: red, green or blue alone, or grey, in equal shares, but for some as they are."""
    count = len(colour)
    grey = torch.tensor([0.299, 0.587, 0.114], device=colour.device)
    weights = torch.cat([torch.eye(3, device=colour.device), grey[None]])[
        torch.randint(4, (count,), device=colour.device)]
    single = (colour * weights[:, :, None, None]).sum(1, keepdim=True).expand_as(colour)
    keep = (torch.rand(count, device=colour.device) < as_it_is).view(-1, 1, 1, 1)
    return torch.where(keep, colour, single)


def beside(pictures: torch.Tensor, share: float = 0.4) -> torch.Tensor:
    """Pictures (N, C, S, S) of which about this share shows, from some line at one side on, a piece of another one,
    brought to the same level at the edges: in streets objects stand beside each other, and hide each other's ends."""
    size, device = pictures.shape[-1], pictures.device
    chosen = torch.nonzero(torch.rand(len(pictures), device=device) < share)[:, 0]
    other = torch.randint(len(pictures), (len(chosen),), device=device)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(len(chosen), 1, device=device).uniform_(low, high)

    angle, line = uniform(-math.pi, math.pi), uniform(*_BESIDE)
    places = (torch.arange(size, device=device) + 0.5) / size - 0.5
    along = (torch.cos(angle), torch.sin(angle))  # of columns, of rows
    there = (along[0] * places)[:, None, :] + (along[1] * places)[:, :, None] > line[..., None]
    far = line + uniform(0.1, 0.35)  # to the middle of the other, in sides
    columns, rows = ((torch.arange(size, device=device) - (size * far * part).round().long()).clamp(0, size - 1)
                     for part in along)
    pieces = pictures[other[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    edge = torch.ones(size, size, dtype=torch.bool, device=device)
    edge[4:-4, 4:-4] = False
    levels = [pictures[numbers][..., edge].mean(2)[..., None, None] for numbers in (chosen, other)]
    return pictures.index_copy(0, chosen, torch.where(there[:, None], pieces + levels[0] - levels[1],
                                                      pictures[chosen]))


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
    near = ((torch.rand(count, device=device) < near_share) | (pairs.drone_px[rows, view] <= 0)) & (
        rows < len(pairs.near))  # sketches have none, and are all seen by a drone
    squares = random_squares(count, device, turn_deg=15.0, stretch=0.08, shift=0.12)
    drone = cut(celsius(pairs.drone[rows, view])[:, None], squares, size_px)
    instant = torch.randint(2, (count,), device=device)
    close = cut(celsius(pairs.near[rows.clamp(max=len(pairs.near) - 1), instant])[:, None], squares, size_px)
    close = soften(close, torch.empty(count, device=device).uniform_(14.0, size_px))
    thermal = beside(torch.where(near.view(-1, 1, 1, 1), close, drone))
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


def log_ratios(colour: torch.Tensor, thermal: torch.Tensor, label: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """(N, M) log-likelihood ratios, but for a constant, of traits (N, K) of photographs and (M, K) of thermal pictures;
    row n is that of label[n]'s class. ratio: as of EmbeddingNetwork."""
    of_colour, of_thermal, common = ratio.exp()[:, label]  # (3, N, K)
    return (colour * common) @ thermal.T - 0.5 * (of_colour * colour.square()).sum(1, keepdim=True) \
        - 0.5 * of_thermal @ thermal.square().T


def embedding_losses(colour: torch.Tensor, thermal: torch.Tensor, label: torch.Tensor, ratio: torch.Tensor,
                     margin: float) -> dict[str, torch.Tensor]:
    """Cross-entropy over likenesses, hardest triplets across bands and centre triplets, of the traits (P, K, D) that
    were told of K pictures of each of P identities in either band, each as of its own class. Likenesses are log_ratios;
    identities are compared with those of their class, label (P,)."""
    p, k, _ = colour.shape
    device = colour.device
    each = torch.arange(p, device=device).repeat_interleave(k)
    same = each[:, None] == each
    rivals = label[each][:, None] == label[each]
    likeness = log_ratios(colour.flatten(0, 1), thermal.flatten(0, 1), label[each], ratio)
    tables = [likeness.masked_fill(~rivals, -math.inf), likeness.T.masked_fill(~rivals, -math.inf)]
    contrast = -0.5 * sum((F.log_softmax(table, 1).masked_fill(~same, 0.0)).sum(1).mean() / k for table in tables)
    hard = sum(F.softplus(hardest_gap(-table, same)).mean() for table in tables)
    centres = log_ratios(colour.mean(1), thermal.mean(1), label, ratio)
    apart = (label[:, None] != label) | torch.eye(p, dtype=torch.bool, device=device)
    centre = sum(F.relu(margin + table.masked_fill(apart, -math.inf).amax(1) - torch.diagonal(centres)).mean()
                 for table in (centres, centres.T))
    return {"triplet": hard, "centre": centre, "contrast": contrast}


def share_across(progress: float, alone: float) -> float:
    """Weight, 0 to 1, of the losses across bands; traits and class are alone for such a share of the training. From
    the start at full weight these losses keep them from being learned at all: as long as features mean nothing, their
    gradients are large and point anywhere."""
    return min(max(progress / alone - 1.0, 0.0), 1.0)


def train(recipe: EmbeddingRecipe, pairs: Pairs, out: Path, *, sketches: Pairs | None = None,
          length: Path | None = None, start: Path | None = None, minutes: float, steps: int = 10**9,
          log: Callable[[str], None] = print, checkpoint_every_s: float = 60.0) -> Path:
    """Train for so many minutes or steps, going on from `out/checkpoint.pt`; returns the path of `out/weights.pt`,
    the averaged network at half precision. The identities held out (Pairs.held_out) are measured on at the end:
    `out/metrics.json`.
    pairs: with their traits. sketches: learned from beside them. length: weights to begin with, see
    EmbeddingNetwork.load_length. start: of an embedding trained before, in their place. Without either the first layers
    are trained, too.

    ThermalReidError where a checkpoint of another recipe is there.
    """
    keep_freed_memory()
    device = pairs.colour.device
    kind = device.type
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    training = pairs.only(~pairs.held_out())
    if sketches is not None:
        training = training.with_sketches(sketches)
    sampler = IdentitySampler(training, recipe)
    model = EmbeddingNetwork(recipe.dropout)
    pretrained = length is not None or start is not None
    if start is not None:
        model.load_weights(start)
    elif length is not None:
        model.load_length(length)
    if pretrained:
        for part in (*model.stems, *model.features[:_FROZEN]):
            part.requires_grad_(False)
    model = model.to(device, memory_format=torch.channels_last).train()
    averaged = Averaged(model, recipe.ema)
    backbone = [parameter for part in (model.stems, model.features) for parameter in part.parameters()
                if parameter.requires_grad]
    fresh = [parameter for name, parameter in model.named_parameters() if not name.startswith(("stems.", "features."))]
    rate = recipe.backbone_rate if pretrained else 1.0
    optimiser = torch.optim.AdamW(scaled(((fresh, 1.0), (backbone, rate)), recipe.weight_decay),
                                  lr=recipe.learning_rate, fused=kind == "cuda")
    facts = {**asdict(recipe), "sketches": sketches is not None, "pretrained": pretrained,
             "start": start is not None}
    course = Course(out, {"model": model, "averaged": averaged.model, "optimiser": optimiser}, facts, device=device,
                    minutes=minutes, steps=steps, log=log, checkpoint_every_s=checkpoint_every_s)
    # On CPUs the gradients of depthwise convolutions are several times slower at half precision.
    half = torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")
    for step, progress in course:
        set_rate(optimiser, recipe.learning_rate * warm_cosine(step, recipe.warmup, progress))
        rows = torch.from_numpy(np.stack(sampler(step))).to(device, non_blocking=True)
        p, k = rows.shape[1:]
        colour = varied_colour_batch(training, rows[0].flatten(), colour_squares(p * k, device), SIZE_PX)
        colour = colour.contiguous(memory_format=torch.channels_last)
        thermal = thermal_batch(training, rows[1].flatten(), recipe.near_share, SIZE_PX)
        with half:
            told = model.both(colour, thermal)
        each = torch.arange(p * k, device=device)
        own, terms = [], {"traits": 0.0, "class": 0.0}
        for one, numbers in zip(told, rows.flatten(1)):
            label = training.label[numbers]
            own.append(one.traits[each, label])
            terms["traits"] = terms["traits"] + 0.5 * (own[-1] - training.traits[numbers]).square().sum(1).mean()
            terms["class"] = terms["class"] + F.cross_entropy(one.logits, label)
        terms |= embedding_losses(*(part.view(p, k, -1) for part in own), training.label[rows[0, :, 0]], model.ratio,
                                  recipe.margin)
        loss = recipe.traits * terms["traits"] + terms["class"] + share_across(progress, recipe.alone) * (
            0.1 * terms["triplet"] + 0.1 * terms["centre"] + terms["contrast"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*fresh, *backbone], 10.0)
        optimiser.step()
        averaged.update(step)
        course.note(terms)
    figures = evaluate(averaged.model, pairs.only(pairs.held_out())) if pairs.held_out().any() else {}
    figures |= {"training": {"pairs": int((~pairs.held_out()).sum()), "sketches": 0 if sketches is None else
                             len(sketches), "identities": training.identities, "steps": course.step,
                             "images_seen": 2 * course.step * recipe.identities * recipe.each, "seed": recipe.seed,
                             "losses": course.losses()}}
    write_atomically(out / "metrics.json", json.dumps(figures, indent=1) + "\n")
    log(json.dumps(figures))
    return write_weights(averaged.model, out, recipe=facts, step=course.step, metrics=figures)


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
    is recognised. model: as of embed_pairs, with `recognised`."""
    colour, drone = embed_pairs(model, pairs)
    with torch.no_grad():
        everyone = torch.arange(len(pairs), device=pairs.label.device)
        found = torch.cat([model.recognised(colour_batch(pairs, rows, model.size_px)) for rows in everyone.split(256)])
        recognised = (found == pairs.label).float().mean()
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
