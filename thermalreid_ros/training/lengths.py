"""Training of what tells an object's length by its photograph: is it a van or a hatchback, a shepherd or a dachshund.

A photograph shows no scale, but it shows the kind, and kinds have their sizes. The network says, for each class, were
the object of it, the ln of its longest side and the standard deviation of that (Kendall & Gal 2017; the likelihood
weighed by its own variance to a power, so that what is hard is not given up: Seitzer et al. 2022, beta-NLL). Length,
width and height are learned beside it, and what a passer-by would call the object: they say more of the shape than the
longest side does, and only the training asks for them.
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
from thermalreid_ros.training.course import Course, warm_cosine
from thermalreid_ros.training.detection import keep_freed_memory
from thermalreid_ros.training.mobilenet import IMAGENET_MEAN, IMAGENET_STD, MobileNetV2
from thermalreid_ros.training.pairs import cut, middle_squares, random_squares, vary_light
from thermalreid_ros.training.photographs import Photographs
from thermalreid_ros.training.weights import Averaged, load_averaged, read_state, scaled, set_rate, write_weights

SIZE_PX = 96
_BLOCKS = 11  # of MobileNetV2: 64 channels at stride 16
_FROZEN = 3  # first ones that keep their pretrained weights
_LEAST_LOG_SD = -2.5  # of what the class's own spread is 1 of: no photograph tells more
_SCALES = 0.5, 4.0  # standard deviations are corrected by no more than this
_GREY = 0.15  # share of the photographs that are shown without colours
_CLASSES = len(CLASS_NAMES)


@dataclass(frozen=True)
class LengthRecipe:
    """Everything that decides the result besides the data and the time. shares: of each class of CLASS_NAMES in a
    batch; bicycles are nearly all of one length. backbone_rate: share of the learning rate for pretrained layers."""

    batch: int = 64
    shares: tuple[float, ...] = (0.4, 0.2, 0.1, 0.3)
    learning_rate: float = 2e-3
    backbone_rate: float = 0.5
    weight_decay: float = 0.02
    dropout: float = 0.2
    beta: float = 0.5
    sides: float = 0.5  # weight of length, width and height
    kind: float = 0.5  # weight of what it is called
    warmup: int = 100
    ema: float = 0.998
    seed: int = 1


class LengthNetwork(nn.Module):
    """Photographs (N, 3, 96, 96), RGB from 0 to 255, to (N, C, 2): for each class, were it of this one, ln of the
    longest side in metres and ln of the standard deviation of that."""

    size_px = SIZE_PX

    def __init__(self, kinds: int, dropout: float = 0.0):
        super().__init__()
        backbone = MobileNetV2(inputs=3)
        self.features = backbone.features[:_BLOCKS]
        self.mix = nn.Sequential(nn.Conv2d(64, 192, 1, bias=False), nn.BatchNorm2d(192), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.longest = nn.Linear(384, 2 * _CLASSES)
        # For the training alone:
        self.sides, self.kind = nn.Linear(384, 3 * _CLASSES), nn.Linear(384, kinds)
        self.register_buffer("grey", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("contrast", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        # Of each class, in units of whose spread all is said. scale: by how much errors are larger than said.
        for name, value in (("mean", torch.zeros(_CLASSES)), ("spread", torch.ones(_CLASSES)),
                            ("scale", torch.ones(_CLASSES)), ("side_mean", torch.zeros(_CLASSES, 3)),
                            ("side_spread", torch.ones(_CLASSES, 3))):
            self.register_buffer(name, value)

    def load_imagenet(self, path: Path) -> None:
        """Begin with ImageNet weights of MobileNetV2, a state dict with keys features.N..."""
        whole = MobileNetV2(inputs=3)
        whole.load_imagenet(path)
        self.features.load_state_dict(whole.features[:_BLOCKS].state_dict())

    def set_spreads(self, photographs: Photographs) -> None:
        for label in torch.unique(photographs.label).tolist():
            own = photographs.log_size[photographs.label == label]
            longest = own.amax(1)
            self.mean[label], self.spread[label] = longest.mean(), longest.std().clamp(min=1e-3)
            self.side_mean[label], self.side_spread[label] = own.mean(0), own.std(0).clamp(min=1e-3)

    def train(self, mode: bool = True):
        """Statistics of the pretrained layers stay as they are: batches are small."""
        super().train(mode)
        for module in self.features.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def described(self, colour: torch.Tensor) -> torch.Tensor:
        """float32 (N, 384) of photographs."""
        x = (colour - self.grey) / self.contrast
        for block in self.features:
            x = block(x)
        x = self.mix(x).float()
        return self.dropout(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    def standard(self, described: torch.Tensor) -> torch.Tensor:
        """(N, C, 2), mean and ln of the standard deviation in units of the class's spread."""
        mean, log_sd = self.longest(described).view(-1, _CLASSES, 2).unbind(2)
        return torch.stack([mean, log_sd.clamp(_LEAST_LOG_SD, 1.0)], 2)

    def forward(self, colour: torch.Tensor) -> torch.Tensor:
        mean, log_sd = self.standard(self.described(colour)).unbind(2)
        return torch.stack([self.mean + self.spread * mean, log_sd + (self.spread * self.scale).log()], 2)


def length_losses(network: LengthNetwork, described: torch.Tensor, photographs: Photographs, rows: torch.Tensor,
                  possible: torch.Tensor, beta: float) -> dict[str, torch.Tensor]:
    """Of what the network says of photographs (N,) that it `described`, in units of the spread of each class: beta-NLL
    of the longest side, absolute errors of all three, cross-entropy of the kind among those of its class. possible:
    bool (C, kinds)."""
    label, log_size = photographs.label[rows], photographs.log_size[rows]
    each = torch.arange(len(label), device=label.device)
    mean, log_sd = network.standard(described)[each, label].unbind(1)
    target = (log_size.amax(1) - network.mean[label]) / network.spread[label]
    likelihood = 0.5 * ((target - mean) * (-log_sd).exp()) ** 2 + log_sd
    wanted = (log_size - network.side_mean[label]) / network.side_spread[label]
    return {"longest": (likelihood * (2.0 * beta * log_sd).exp().detach()).mean(),
            "sides": F.smooth_l1_loss(network.sides(described).view(len(label), -1, 3)[each, label], wanted),
            "kind": F.cross_entropy(network.kind(described).masked_fill(~possible[label], -1e4),
                                    photographs.kind[rows])}


def train(recipe: LengthRecipe, photographs: Photographs, out: Path, *, sketches: Photographs | None = None,
          backbone_weights: Path | None = None, minutes: float, steps: int = 10**9,
          log: Callable[[str], None] = print, checkpoint_every_s: float = 60.0) -> Path:
    """Train for so many minutes or steps, going on from `out/checkpoint.pt`; returns the path of `out/weights.pt`, the
    averaged network at half precision. The photographs of identities held out are measured on at the end:
    `out/metrics.json`; and by them two numbers of each class are put right, how far it is believed (trust_less) and how
    large its errors are.
    sketches: learned from beside the photographs. backbone_weights: of ImageNet, see LengthNetwork.load_imagenet;
    without, the first layers are trained, too.

    ThermalReidError where a checkpoint of another recipe is there.
    """
    keep_freed_memory()
    device = photographs.colour.device
    torch.manual_seed(recipe.seed)
    true = photographs.only(~photographs.held_out())
    training = true if sketches is None else Photographs.joined([true, sketches])
    network = LengthNetwork(len(training.kinds), recipe.dropout)
    if backbone_weights is not None:
        network.load_imagenet(backbone_weights)
        network.features[:_FROZEN].requires_grad_(False)
    network = network.to(device, memory_format=torch.channels_last).train()
    network.set_spreads(training)
    averaged = Averaged(network, recipe.ema)
    backbone = [parameter for parameter in network.features.parameters() if parameter.requires_grad]
    fresh = [parameter for name, parameter in network.named_parameters() if not name.startswith("features.")]
    rate = 1.0 if backbone_weights is None else recipe.backbone_rate
    optimiser = torch.optim.AdamW(scaled(((fresh, 1.0), (backbone, rate)), recipe.weight_decay),
                                  lr=recipe.learning_rate)
    facts = {**asdict(recipe), "shares": list(recipe.shares), "kinds": len(training.kinds),
             "pretrained": backbone_weights is not None}
    course = Course(out, {"network": network, "averaged": averaged.model, "optimiser": optimiser}, facts, device=device,
                    minutes=minutes, steps=steps, log=log, checkpoint_every_s=checkpoint_every_s)
    pools = [(torch.nonzero(training.label == label)[:, 0], max(1, round(recipe.batch * share)))
             for label, share in enumerate(recipe.shares)]
    pools = [(rows, count) for rows, count in pools if len(rows)]
    possible = torch.tensor([[kind.startswith(f"{name}:") for kind in training.kinds] for name in CLASS_NAMES],
                            device=device)
    # On CPUs the gradients of depthwise convolutions are several times slower at half precision.
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    for step, progress in course:
        set_rate(optimiser, recipe.learning_rate * warm_cosine(step, recipe.warmup, progress))
        rows = torch.cat([pool[torch.randint(len(pool), (count,), device=device)] for pool, count in pools])
        squares = random_squares(len(rows), device, turn_deg=6.0, shift=0.06, stretch=0.02)
        colour = _varied(cut(training.colour[rows].float(), squares, SIZE_PX))
        with half:
            described = network.described(colour.contiguous(memory_format=torch.channels_last))
        terms = length_losses(network, described, training, rows, possible, recipe.beta)
        optimiser.zero_grad(set_to_none=True)
        (terms["longest"] + recipe.sides * terms["sides"] + recipe.kind * terms["kind"]).backward()
        nn.utils.clip_grad_norm_([*fresh, *backbone], 10.0)
        optimiser.step()
        averaged.update(step)
        course.note(terms)
    held_out = photographs.only(photographs.held_out())
    averaged.model.scale.fill_(1.0)
    if len(held_out):
        trust_less(averaged.model, held_out)
    figures = evaluate(averaged.model, held_out) if len(held_out) else {}
    for name, own in figures.items():
        averaged.model.scale[CLASS_NAMES.index(name)] = min(max(own["error_in_sigmas"], _SCALES[0]), _SCALES[1])
    metrics = {"held_out": figures,
               "training": {"photographs": len(true), "sketches": 0 if sketches is None else len(sketches),
                            "identities": training.identities, "steps": course.step,
                            "images_seen": course.step * sum(count for _, count in pools), "seed": recipe.seed,
                            "losses": course.losses()}}
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    log(json.dumps(metrics))
    return write_weights(averaged.model, out, recipe=facts, step=course.step, metrics=metrics)


def _varied(colour: torch.Tensor) -> torch.Tensor:
    """Photographs (N, 3, S, S), 0 to 255, in other light, some of them grey."""
    colour = vary_light(colour / 255.0)
    grey = torch.rand(len(colour), 1, 1, 1, device=colour.device) < _GREY
    return 255.0 * torch.where(grey, colour.mean(1, keepdim=True), colour)


@torch.no_grad()
def said_of(network: LengthNetwork, photographs: Photographs, batch: int = 128) -> torch.Tensor:
    """(N, 2) on the CPU, as of LengthNetwork for the photographs' own classes, means of the crop and its mirror
    image."""
    said = []
    for rows in torch.arange(len(photographs), device=photographs.label.device).split(batch):
        colour = cut(photographs.colour[rows].float(), middle_squares(len(rows), rows.device), SIZE_PX)
        both = [network(picture) for picture in (colour, colour.flip(3))]
        said.append((0.5 * (both[0] + both[1]))[torch.arange(len(rows), device=rows.device),
                                                photographs.label[rows]].cpu())
    return torch.cat(said)


@torch.no_grad()
def trust_less(network: LengthNetwork, photographs: Photographs) -> None:
    """Draw what is said towards the mean of its class, in place, by the share that fits these photographs best: of a
    class whose kinds it learned by heart it says too much."""
    network.eval()
    said, truth, label = said_of(network, photographs)[:, 0], photographs.log_size.amax(1).cpu(), \
        photographs.label.cpu()
    for number in torch.unique(label).tolist():
        own, mean = label == number, network.mean[number].cpu()
        told = said[own] - mean
        share = float((told @ (truth[own] - mean)) / told.square().sum().clamp(min=1e-12))
        for parameter in (network.longest.weight, network.longest.bias):
            parameter[2 * number] *= min(max(share, 0.0), 1.0)


def evaluate(network: LengthNetwork, photographs: Photographs) -> dict:
    """Of each class: spread of ln of the longest side, root mean square of what is said of it less the truth, and that
    in units of the standard deviation that was said (1 where it is honest)."""
    network.eval()
    said, truth, label = said_of(network, photographs), photographs.log_size.amax(1).cpu(), photographs.label.cpu()
    error = said[:, 0] - truth
    figures = {}
    for number in torch.unique(label).tolist():
        own = label == number
        figures[CLASS_NAMES[number]] = {
            "photographs": int(own.sum()), "spread": round(float(truth[own].std()), 4),
            "error": round(float(error[own].square().mean().sqrt()), 4),
            "error_in_sigmas": round(float((error[own] / said[own, 1].exp()).square().mean().sqrt()), 3)}
    return figures


def load_weights(path: Path) -> tuple[LengthNetwork, dict]:
    """(averaged network, what else the file says). ThermalReidError where it is none."""
    state = read_state(path, "a length network")
    try:
        network = LengthNetwork(state["recipe"]["kinds"])
    except (KeyError, TypeError):
        raise ThermalReidError(f"{path}: no weights of a length network") from None
    return network, load_averaged(network, path, "a length network")
