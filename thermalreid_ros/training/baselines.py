"""The two baselines of the paper, VRAI and BoT-BS, on the data, the budget and the crops of the cross-modal embedding.

**BoT-BS** (Luo et al. 2019, "Bag of tricks and a strong baseline for deep person re-identification"): ResNet-50 with
last stride 1, its averaged features before a batch normalisation without shift (BNNeck) trained by hardest triplets of
margin 0.3 and by centre loss at 0.0005, those behind it by identity softmax with labels smoothed by 0.1; random
erasing; a learning rate that warms up. Behind the neck features are compared by their cosine. `classes` is read out of
finished features and teaches them nothing.

**VRAI** (Wang et al. 2019, "Vehicle re-identification in aerial imagery"): the same ResNet-50 with two branches. One
averages the features and is trained for several tasks: identity, hardest triplets, and attributes, of which our data
have the class. The other pools them with weights, 1 on the ground and PART_WEIGHT on discriminative parts, and is
trained by identity and triplets. Both together are the feature. What stands for the authors' labels and detector: their
parts were marked by hand and found by a YOLOv2 trained on these marks. Nobody has marked ours. Here one convolution on
the feature map weighs each cell; on photographs it is told where the object is, from its mask: no part lies off the
object, at least one lies on it; which, is left to identity. In thermal crops it is taught by identity alone.

`visible` learns both on colour photographs only, as the paper used them; a thermal crop is then shown as the grey
picture that an 8-bit camera would make of it. `cross` retrains them across bands: photographs and thermal crops of an
identity share the batch, each band has a first convolution and a neck of its own (as AGW, Ye et al. 2021, made of
BoT-BS), sees temperatures as our own embedding does, and is augmented as there (CAJ's channels); identity is learned
over both bands, hardest triplets are taken across them, of unit vectors behind the necks. In either case identity (and
class) have the first fifth of the training to themselves: hardest triplets of features that mean nothing yet draw all
of them to one point, across bands even more so.

All channels are 5/32 of ResNet-50's by default, which makes about as many parameters as our own embedding has. Nothing
is pretrained, as ours is not: ImageNet weights of this width do not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import write_atomically
from thermalreid_ros.training.course import Course, multiplies_bfloat16, warm_cosine
from thermalreid_ros.training.detection import keep_freed_memory
from thermalreid_ros.training.embedding import (
    IdentitySampler,
    ThermalView,
    colour_squares,
    embed_pairs,
    evaluate,
    hardest_gap,
    ranked,
    share_across,
    thermal_batch,
    varied_colour_batch,
)
from thermalreid_ros.training.pairs import Pairs, cut
from thermalreid_ros.training.weights import Averaged, decayed, load_averaged, read_state, write_weights

NETWORKS = ("vrai", "bot_bs")
BANDS = ("visible", "cross")
SIZE_PX = 128
PART_WEIGHT = 10.0
_BRANCH = 128  # numbers of each of VRAI's two branches
_BLOCKS = (3, 4, 6, 3)
_GREY_REACH = 2.5  # standard deviations of a crop that a grey picture of it shows, either way


@dataclass(frozen=True)
class BaselineRecipe:
    """Everything that decides the result besides the data and the time. identities: in a batch, each with `each`
    photographs and as many thermal pictures, or twice as many photographs."""

    network: str
    bands: str
    width: float = 5 / 32  # of ResNet-50's channels
    identities: int = 64
    each: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    smoothing: float = 0.1
    margin: float = 0.3
    centre_weight: float = 5e-4
    centre_rate: float = 0.5
    near_share: float = 0.3  # of thermal pictures that are taken near by
    pairs_share: float = 0.3  # of the identities in a batch, those of pairs where there are sketches, too
    warmup: int = 100  # steps until the full learning rate
    alone: float = 0.2  # share of the training that identity and class have to themselves
    ema: float = 0.998
    seed: int = 1

    def __post_init__(self):
        if self.network not in NETWORKS:
            raise ThermalReidError(f"baseline {self.network!r} is unknown; choose one of {', '.join(NETWORKS)}")
        if self.bands not in BANDS:
            raise ThermalReidError(f"bands {self.bands!r} are unknown; choose one of {', '.join(BANDS)}")


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out)]


class Bottleneck(nn.Module):
    """1x1 narrow, 3x3, 1x1 wide, around them the identity or a 1x1 (He et al. 2016)."""

    def __init__(self, c_in: int, channels: int, stride: int):
        super().__init__()
        c_out = 4 * channels
        self.conv = nn.Sequential(*_conv_bn(c_in, channels, 1), nn.ReLU(inplace=True),
                                  *_conv_bn(channels, channels, 3, stride), nn.ReLU(inplace=True),
                                  *_conv_bn(channels, c_out, 1))
        self.skip = nn.Sequential(*(_conv_bn(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.skip(x) + self.conv(x))


def grey_picture(thermal: torch.Tensor) -> torch.Tensor:
    """Degrees Celsius (N, 1, S, S) as the grey picture thrice, 0 to 255, that a camera of 8 bits makes: white is hot,
    the range is the crop's own."""
    mean = thermal.mean((2, 3), keepdim=True)
    spread = ((thermal - mean) ** 2).mean((2, 3), keepdim=True).sqrt()
    level = ((thermal - mean) / (_GREY_REACH * spread + 0.1)).clamp(-1.0, 1.0)
    return (127.5 + 127.5 * level).expand(-1, 3, -1, -1)


class BaselineNetwork(nn.Module):
    """Pictures (N, 3, 128, 128) to unit vectors (N, dimensions), with what of an EmbeddingNetwork others use.

    colour: RGB, 0 to 255. thermal: degrees Celsius in one channel (N, 1, ...). stems, necks: one each for `visible`,
    one of each band, thermal last, for `cross`. branches: how many of the dimensions belong to which branch.
    """

    def __init__(self, network: str, bands: str, width: float = 5 / 32):
        super().__init__()
        self.size_px = SIZE_PX
        base = round(64 * width)
        wide, count = 32 * base, BANDS.index(bands) + 1
        self.stems = nn.ModuleList(nn.Sequential(*_conv_bn(3, base, 7, 2), nn.ReLU(inplace=True)) for _ in range(count))
        blocks, c_in = [nn.MaxPool2d(3, 2, 1)], base
        for stage, (repeats, stride) in enumerate(zip(_BLOCKS, (1, 2, 2, 1))):
            for i in range(repeats):
                blocks.append(Bottleneck(c_in, base << stage, stride if i == 0 else 1))
                c_in = 4 * (base << stage)
        self.features = nn.Sequential(*blocks)
        self.branches = (_BRANCH, _BRANCH) if network == "vrai" else (wide,)
        self.dimensions = sum(self.branches)
        self.parts = nn.Conv2d(wide, 1, 1) if network == "vrai" else None
        self.reduce = nn.ModuleList(nn.Linear(wide, _BRANCH, bias=False) for _ in range(2 * (network == "vrai")))
        self.necks = nn.ModuleList(nn.BatchNorm1d(self.dimensions) for _ in range(count))
        for neck in self.necks:
            neck.bias.requires_grad_(False)
        self.classes = nn.Linear(self.dimensions, len(CLASS_NAMES))
        self._view = ThermalView(SIZE_PX) if bands == "cross" else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.conv[-1].weight)  # each begins as its skip, which makes deep ones easy to train
        if self.parts is not None:
            nn.init.normal_(self.parts.weight, std=0.01)  # all cells alike at first: guesses would outweigh the rest

    def colour_channels(self, colour: torch.Tensor) -> torch.Tensor:
        return colour / 127.5 - 1.0

    def thermal_channels(self, thermal: torch.Tensor) -> torch.Tensor:
        return self.colour_channels(grey_picture(thermal)) if self._view is None else self._view(thermal)

    def pooled_with_parts(self, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, dimensions) before the necks, of what a stem made, and the parts' logits (N, 1, h, w), if there are."""
        seen = self.features(first).float()
        with torch.autocast(first.device.type, enabled=False):
            average = seen.mean((2, 3))
            if self.parts is None:
                return average, None
            logits = self.parts(seen)
            weight = 1.0 + (PART_WEIGHT - 1.0) * logits.sigmoid()
            weighted = (seen * weight).sum((2, 3)) / weight.sum((2, 3))
            return torch.cat([reduce(x) for reduce, x in zip(self.reduce, (average, weighted))], 1), logits

    def pooled(self, first: torch.Tensor) -> torch.Tensor:
        return self.pooled_with_parts(first)[0]

    def colour(self, colour: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.necks[0](self.pooled(self.stems[0](self.colour_channels(colour)))))

    def thermal(self, thermal: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.necks[-1](self.pooled(self.stems[-1](self.thermal_channels(thermal)))))

    def recognised(self, colour: torch.Tensor) -> torch.Tensor:
        """(N,), numbers of the likeliest classes of photographs."""
        return self.classes(self.necks[0](self.pooled(self.stems[0](self.colour_channels(colour))))).argmax(1)

    def flown(self, pictures: torch.Tensor, thermal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(unit vectors, probabilities of classes) of pictures (N, 3, S, S), of which thermal (N,) tells the band:
        first convolution and neck of both run, be they the same or not: they cost little, and one graph serves both."""
        hot = thermal.view(-1, 1) > 0.5
        pooled = self.pooled(torch.where(hot[..., None, None], self.stems[-1](self.thermal_channels(pictures[:, :1])),
                                         self.stems[0](self.colour_channels(pictures))))
        neck = torch.where(hot, self.necks[-1](pooled), self.necks[0](pooled))
        return F.normalize(neck), self.classes(neck).softmax(1)


class _Centres(nn.Module):
    """Centre loss (Wen et al. 2016): each identity's centre follows its features, and they are drawn to it."""

    def __init__(self, identities: int, dimensions: int, rate: float):
        super().__init__()
        self.register_buffer("place", torch.randn(identities, dimensions))
        self._rate = rate

    def forward(self, features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        away = features - self.place[identity]
        with torch.no_grad():  # a step of gradient descent on the mean of the squared distances
            self.place.index_add_(0, identity, away * (2.0 * self._rate / len(identity)))
        return away.square().sum(1).mean()


def part_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """No part off the object, at least one on it. logits: (N, 1, h, w). mask: (N, 1, S, S), 0 to 1."""
    inside = F.interpolate(mask, size=logits.shape[2:], mode="area").flatten(1)
    logits = logits.flatten(1)
    off = ((1.0 - inside) * F.softplus(logits)).mean(1)
    best = torch.where(inside >= inside.amax(1, keepdim=True).clamp(max=0.5), logits, -torch.inf).amax(1)
    return (off + F.softplus(-best)).mean()


class _Trainer:
    """A baseline with all that training changes."""

    def __init__(self, recipe: BaselineRecipe, pairs: Pairs):
        self.recipe, self.pairs, self.device = recipe, pairs, pairs.colour.device
        model = BaselineNetwork(recipe.network, recipe.bands, recipe.width)
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.heads = nn.ModuleList(nn.Linear(size, pairs.identities, bias=False) for size in model.branches)
        for head in self.heads.to(self.device):
            nn.init.normal_(head.weight, std=0.01)
        self.centres = _Centres(pairs.identities, model.dimensions, recipe.centre_rate).to(self.device)
        self.averaged = Averaged(self.model, recipe.ema)
        self.parameters = [p for p in (*self.model.parameters(), *self.heads.parameters()) if p.requires_grad]
        self.optimiser = torch.optim.AdamW(decayed(self.parameters, recipe.weight_decay), lr=recipe.learning_rate,
                                           fused=self.device.type == "cuda")

    def begin_with(self, weights: Path) -> None:
        """Take the network of a baseline that was trained before. ThermalReidError where it is another one."""
        network, state = load_weights(weights)
        own, other = ({name: recipe[name] for name in ("network", "bands", "width")}
                      for recipe in (asdict(self.recipe), state["recipe"]))
        if own != other:
            raise ThermalReidError(f"{weights}: weights of {other}; this is a training of {own}")
        for model in (self.model, self.averaged.model):
            model.load_state_dict(network.state_dict())

    def parts(self) -> dict:
        """What a checkpoint holds."""
        return {"model": self.model, "heads": self.heads, "centres": self.centres, "averaged": self.averaged.model,
                "optimiser": self.optimiser}

    def step(self, rows: torch.Tensor, number: int, progress: float) -> dict[str, torch.Tensor]:
        """One step on rows (2, P, K) of the pairs; the terms of the loss, on the device."""
        recipe, model = self.recipe, self.model
        rate = warm_cosine(number, recipe.warmup, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate
        photographs = rows.flatten() if recipe.bands == "visible" else rows[0].flatten()
        squares = colour_squares(len(photographs), self.device)
        colour = varied_colour_batch(self.pairs, photographs, squares, SIZE_PX, one_channel=recipe.bands == "cross")
        shown = [model.colour_channels(colour)]
        if recipe.bands == "cross":
            shown.append(model.thermal_channels(
                thermal_batch(self.pairs, rows[1].flatten(), recipe.near_share, SIZE_PX)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=multiplies_bfloat16(self.device.type)):
            first = torch.cat([stem(picture.contiguous(memory_format=torch.channels_last))
                               for stem, picture in zip(model.stems, shown)])
            pooled, logits = model.pooled_with_parts(first)
        behind = torch.cat([neck(band) for neck, band in zip(model.necks, pooled.chunk(len(model.necks)))])
        identity, label = (column[rows.flatten()] for column in (self.pairs.identity, self.pairs.label))
        terms = {"identity": sum(F.cross_entropy(head(part), identity, label_smoothing=recipe.smoothing)
                                 for head, part in zip(self.heads, behind.split(model.branches, 1))),
                 "triplet": self._triplets(pooled, behind, identity),
                 "class": F.cross_entropy(
                     model.classes(behind if recipe.network == "vrai" else behind.detach()), label)}
        share = share_across(progress, recipe.alone)
        loss = terms["identity"] + terms["class"] + share * terms["triplet"]
        if recipe.network == "bot_bs":
            terms["centre"] = self.centres(pooled, identity)
            loss = loss + share * recipe.centre_weight * terms["centre"]
        else:
            masked = torch.nonzero(photographs < len(self.pairs.mask))[:, 0]  # of sketches there are no masks
            mask = cut(self.pairs.mask[photographs[masked]].float(), squares[masked], SIZE_PX)
            terms["parts"] = part_loss(logits[masked], mask)
            loss = loss + terms["parts"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self.optimiser.step()
        self.averaged.update(number)
        return terms

    def _triplets(self, pooled: torch.Tensor, behind: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Of every branch: among all photographs before the neck, or across bands behind the necks."""
        own = identity if self.recipe.bands == "visible" else identity.chunk(2)[0]
        same, gaps = own[:, None] == own, []
        for before, after in zip(pooled.split(self.model.branches, 1), behind.split(self.model.branches, 1)):
            if self.recipe.bands == "visible":
                gaps.append(hardest_gap(torch.cdist(before, before), same))
            else:
                colour, thermal = F.normalize(after).chunk(2)
                across = torch.cdist(colour, thermal)
                gaps += [hardest_gap(across, same), hardest_gap(across.T, same)]
        return sum(F.relu(self.recipe.margin + gap).mean() for gap in gaps) / len(self.model.branches)


def train(recipe: BaselineRecipe, pairs: Pairs, out: Path, *, sketches: Pairs | None = None,
          start: Path | None = None, minutes: float, steps: int = 10**9,
          log: Callable[[str], None] = print, checkpoint_every_s: float = 60.0) -> Path:
    """Train for so many minutes or steps, going on from `out/checkpoint.pt`; returns the path of `out/weights.pt`,
    the averaged network at half precision. The identities held out (Pairs.held_out) are measured on at the end:
    `out/metrics.json`, figures of embedding.evaluate, and for photographs among photographs under "visible".
    sketches: learned from beside the pairs. start: weights of such a baseline to begin with, in place of chance.

    ThermalReidError where a checkpoint of another recipe is there.
    """
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    training = pairs.only(~pairs.held_out())
    if sketches is not None:
        training = training.with_sketches(sketches)
    sampler, trainer = IdentitySampler(training, recipe), _Trainer(recipe, training)
    if start is not None:
        trainer.begin_with(start)
    facts = {**asdict(recipe), "sketches": sketches is not None, "start": start is not None}
    course = Course(out, trainer.parts(), facts, device=trainer.device, minutes=minutes, steps=steps, log=log,
                    checkpoint_every_s=checkpoint_every_s)
    for step, progress in course:
        rows = torch.from_numpy(np.stack(sampler(step))).to(trainer.device, non_blocking=True)
        course.note(trainer.step(rows, step, progress))
    model, held_out = trainer.averaged.model, pairs.only(pairs.held_out())
    figures: dict = {}
    if len(held_out):
        colour = embed_pairs(model, held_out)[0]
        figures["visible"] = ranked(1.0 - (colour @ colour.T).numpy(), np.arange(len(colour)), held_out)
        figures |= evaluate(model, held_out)
    figures |= {"training": {"pairs": int((~pairs.held_out()).sum()), "sketches": 0 if sketches is None else
                             len(sketches), "identities": training.identities, "steps": course.step,
                             "images_seen": 2 * course.step * recipe.identities * recipe.each, "seed": recipe.seed,
                             "losses": course.losses()}}
    write_atomically(out / "metrics.json", json.dumps(figures, indent=1) + "\n")
    log(json.dumps(figures))
    return write_weights(model, out, recipe=facts, step=course.step, metrics=figures)


def load_weights(path: Path) -> tuple[BaselineNetwork, dict]:
    """(averaged network, what else the file says). ThermalReidError where it is none."""
    recipe = read_state(path, "a baseline").get("recipe", {})
    try:
        model = BaselineNetwork(recipe["network"], recipe["bands"], recipe["width"])
    except (KeyError, TypeError, ValueError):
        raise ThermalReidError(f"{path}: no weights of a baseline (its recipe names none)") from None
    return model, load_averaged(model, path, "a baseline")
