"""The two detection networks: the paper's YOLO-Semantic and our yolo_compact.

Both take a thermal image (B, 1, H, W) in grey levels 0..255 (float32, raw: the network normalises), with H and W
divisible by `stride_multiple`, and a labelling (B, 1, H / s, W / s), s = `semantics_stride`: SemanticClass by cell, any
other value or None where nothing is known. `forward` gives what the loss wants; `DetectorExport` (export.py) turns that
into boxes and scores. Box convention: pixel edges, see detection/types.py.

What is known of the ground only ever adds to what the thermal image says, through convolutions without bias: where
nothing is known nothing is added, whatever the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.training.mobilenet import MobileNetV2

#: Mean and standard deviation of HIT-UAV's training frames, grey levels.
GREY_MEAN, GREY_STD = 126.4, 41.2


def conv_bn_act(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, slope: float | None = 0.0) -> nn.Sequential:
    """Convolution, batch normalisation, leaky ReLU of `slope` (0: ReLU; None: no activation)."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03)]
    if slope is not None:
        layers.append(nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def planes(labelling: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, K, h, w) float32, one plane a class, of (B, 1, h, w); zeros where the value is no class."""
    return (labelling.float() == torch.arange(classes, device=labelling.device).view(1, -1, 1, 1)).float()


class CrossStage(nn.Module):
    """Cross-stage partial block: half of the channels pass, half go through `repeats` residual 3x3 pairs."""

    def __init__(self, c_in: int, c_out: int, repeats: int = 1):
        super().__init__()
        half = c_out // 2
        self.enter = conv_bn_act(c_in, c_out, 1)
        self.steps = nn.ModuleList(
            nn.Sequential(conv_bn_act(half, half), conv_bn_act(half, half)) for _ in range(repeats))
        self.leave = conv_bn_act(half * (2 + repeats), c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class LabellingBranch(nn.Module):
    """What a labelling at stride 4 says to a pyramid of `width` channels, at strides 4 and 8, so far as it is trusted.

    What the pyramid itself sees of the ground at stride 16, where it has not met the labelling yet, tells how likely
    the labels are. One of another place, or far out of its own, is unlikely all over the frame, and hardly anything of
    it is let through. What is begins at zero: an untrained branch changes nothing. Learning to see the ground does not
    change what is seen.
    """

    cell = 4  # cells of the labelling to a side of those at stride 16
    surest = 0.98  # as sure of a class as a cell may be: one that is surely wrong would else outweigh all others

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.fine = nn.Conv2d(classes, 24, 3, 1, 1, bias=False)
        self.coarse = nn.Conv2d(24, 32, 3, 2, 1, bias=False)
        self.out = nn.ModuleList((nn.Conv2d(24, width, 1, bias=False), nn.Conv2d(32, width, 1, bias=False)))
        for out in self.out:
            nn.init.zeros_(out.weight)
        self.ground = nn.Sequential(nn.Conv2d(width, 32, 1), nn.ReLU(), nn.Conv2d(32, classes, 1))
        self.trust = nn.Conv2d(2, 1, 1)  # of how likely the labels are, and how much likelier here than over the frame
        self.trust.weight.data = torch.tensor([4.0, 14.0]).view(1, 2, 1, 1)
        nn.init.constant_(self.trust.bias, 6.0)

    def forward(self, labelling: torch.Tensor,
                seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """labelling: planes (B, K, H / 4, W / 4). seen: (B, width, H / 16, W / 16). Gives what to add at strides 4 and
        8, the logits (B, K, H / 16, W / 16) of the ground as it is seen, and (B, 1, 1, 1) of the trust."""
        ground = self.ground(seen.detach())
        told = F.avg_pool2d(labelling, self.cell)
        likely = self.surest * ground.softmax(1) + (1 - self.surest) / ground.shape[1]
        here, anywhere = likely.log(), likely.mean((2, 3), keepdim=True).log()
        each = torch.cat([(evidence * told).sum((1, 2, 3), keepdim=True) for evidence in (here, here - anywhere)], 1)
        trust = self.trust(each / told.sum((1, 2, 3), keepdim=True).clamp(min=1.0))
        share, fine = trust.sigmoid(), F.relu(self.fine(labelling))
        return self.out[0](fine) * share, self.out[1](F.relu(self.coarse(fine))) * share, ground, trust


class YoloCompact(nn.Module):
    """Anchor-free detector for objects of 10 x 20 px: one head at stride 4 over a MobileNetV2 pyramid.

    Cars seen from 60-130 m span 20-110 px, persons 7-25 px: one fine level covers both once the deep
    features have been brought down to it, and a single level needs no rule for which level owns an object.
    The labelling joins the pyramid on its way down, at strides 8 and 4.

    Out: (B, C + 4, H / 4, W / 4): class logits, then distances left, top, right, bottom from the cell
    centre in units of the stride (positive, through softplus).
    """

    stride = 4
    stride_multiple = 32
    semantics_stride = 4

    def __init__(self, width: int = 64, semantic_classes: int = CLASS_COUNT):
        super().__init__()
        self.semantic_classes = semantic_classes
        self.labelling = LabellingBranch(semantic_classes, width)
        self.backbone = MobileNetV2()
        c4, c8, c16, c32 = self.backbone.channels
        self.lateral = nn.ModuleList(conv_bn_act(c, width, 1, slope=None) for c in (c4, c8, c16, c32))
        self.merge = nn.ModuleList((CrossStage(width, width), CrossStage(width, width), CrossStage(width, width)))
        self.class_branch = conv_bn_act(width, width // 2)
        self.box_branch = conv_bn_act(width, width // 2)
        self.class_out = nn.Conv2d(width // 2, len(CLASS_NAMES), 1)
        self.box_out = nn.Conv2d(width // 2, 4, 1)
        nn.init.normal_(self.class_out.weight, std=0.01)
        nn.init.constant_(self.class_out.bias, -4.6)  # prior probability 0.01: few cells hold an object
        nn.init.normal_(self.box_out.weight, std=0.01)
        nn.init.constant_(self.box_out.bias, 2.0)  # 2 cells = 8 px to each side, a person's scale

    def forward(self, thermal: torch.Tensor, semantics: torch.Tensor | None = None) -> torch.Tensor:
        return self.judging(thermal, semantics)[0]

    def judging(self, thermal: torch.Tensor, semantics: torch.Tensor | None = None) -> tuple[torch.Tensor | None, ...]:
        """The output, and what LabellingBranch makes of ground and labelling, None without one."""
        f4, f8, f16, f32 = self.backbone((thermal - GREY_MEAN) / GREY_STD)
        x = self._merged(0, f16, self.lateral[3](f32))
        known4, known8, ground, trust = (0.0, 0.0, None, None) if semantics is None else \
            self.labelling(planes(semantics, self.semantic_classes), x)
        x = self._merged(2, f4, self._merged(1, f8, x, known8), known4)
        out = torch.cat((self.class_out(self.class_branch(x)), F.softplus(self.box_out(self.box_branch(x)))), 1)
        return out, ground, trust

    def _merged(self, level: int, fine: torch.Tensor, coarse: torch.Tensor,
                known: torch.Tensor | float = 0.0) -> torch.Tensor:
        """The pyramid at the level's stride, 16, 8 or 4, from the backbone's features there and the pyramid above."""
        return self.merge[level](self.lateral[2 - level](fine) +
                                 F.interpolate(coarse, scale_factor=2.0, mode="nearest") + known)


class Residual(nn.Module):
    """Darknet residual: 1x1 to half the channels, 3x3 back, plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_act(channels, channels // 2, 1, slope=0.1), conv_bn_act(channels // 2, channels, 3, slope=0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SemanticStem(nn.Module):
    """First convolution of the paper's table 1 on 1 + K channels, thermal image and one-hot labelling.

    A convolution over concatenated inputs is the sum of one convolution each, so the labelling's share can
    be left out (`semantics=None`) at no cost. It starts at zero: an untrained labelling changes nothing.
    """

    def __init__(self, semantic_classes: int, c_out: int):
        super().__init__()
        self.thermal = nn.Conv2d(1, c_out, 3, 1, 1, bias=False)
        self.semantics = nn.Conv2d(semantic_classes, c_out, 3, 1, 1, bias=False)
        nn.init.zeros_(self.semantics.weight)
        self.rest = nn.Sequential(nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03), nn.LeakyReLU(0.1, inplace=True))

    def forward(self, thermal: torch.Tensor, semantics: torch.Tensor | None) -> torch.Tensor:
        x = self.thermal(thermal)
        return self.rest(x if semantics is None else x + self.semantics(semantics))


class Darknet53(nn.Module):
    """Table 1 of the paper: two convolutions, then 1/2/8/8/4 residual blocks of 64...1024 filters.

    `width` scales every filter count (1.0 = the paper). Out: features at strides 8, 16, 32.
    """

    def __init__(self, semantic_classes: int, width: float):
        super().__init__()
        filters = [max(8, int(round(n * width / 8)) * 8) for n in (32, 64, 128, 256, 512, 1024)]
        self.stem = SemanticStem(semantic_classes, filters[0])
        self.stages = nn.ModuleList(
            nn.Sequential(conv_bn_act(c_in, c_out, 3, 2, slope=0.1), *(Residual(c_out) for _ in range(repeats)))
            for c_in, c_out, repeats in zip(filters, filters[1:], (1, 2, 8, 8, 4)))
        self.channels = tuple(filters[3:])

    def forward(self, thermal: torch.Tensor, semantics: torch.Tensor | None) -> list[torch.Tensor]:
        x = self.stem(thermal, semantics)
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out[2:]


class YoloSemantic(nn.Module):
    """YOLO-Semantic (paper, section 3.3 and table 1): Darknet-53 over thermal + labelling, YOLOv3 heads.

    Out: per stride 8, 16, 32 a tensor T (B, 3 * (5 + C), U, V) as in YOLOv3:
    tx, ty, tw, th, objectness, class logits for each of three anchors.
    """

    strides = (8, 16, 32)
    stride_multiple = 32
    semantics_stride = 1
    #: width, height in pixels: k-means (k = 9, distance 1 - IoU) over the boxes of HIT-UAV train, by area.
    anchors = (
        ((10, 14), (9, 19), (18, 17)),
        ((14, 25), (21, 28), (33, 21)),
        ((37, 34), (46, 58), (82, 82)),
    )

    def __init__(self, semantic_classes: int = CLASS_COUNT, width: float = 3 / 16):
        super().__init__()
        self.semantic_classes = semantic_classes
        self.backbone = Darknet53(semantic_classes, width)
        c8, c16, c32 = self.backbone.channels
        self.neck = nn.ModuleList((self._five(c32, c32 // 2), self._five(c16 + c16 // 2, c16 // 2),
                                   self._five(c8 + c8 // 2, c8 // 2)))
        self.reduce = nn.ModuleList((conv_bn_act(c32 // 2, c16 // 2, 1, slope=0.1),
                                     conv_bn_act(c16 // 2, c8 // 2, 1, slope=0.1)))
        outputs = 3 * (5 + len(CLASS_NAMES))
        self.heads = nn.ModuleList(
            nn.Sequential(conv_bn_act(c // 2, c, 3, slope=0.1), nn.Conv2d(c, outputs, 1)) for c in (c8, c16, c32))
        for head in self.heads:
            bias = head[-1].bias.data.view(3, -1)
            bias[:, 4] = -4.6
            bias[:, 5:] = -1.0

    @staticmethod
    def _five(c_in: int, c: int) -> nn.Sequential:
        return nn.Sequential(
            conv_bn_act(c_in, c, 1, slope=0.1), conv_bn_act(c, 2 * c, 3, slope=0.1),
            conv_bn_act(2 * c, c, 1, slope=0.1), conv_bn_act(c, 2 * c, 3, slope=0.1),
            conv_bn_act(2 * c, c, 1, slope=0.1))

    def forward(self, thermal: torch.Tensor, semantics: torch.Tensor | None = None) -> list[torch.Tensor]:
        known = None if semantics is None else planes(semantics, self.semantic_classes)
        f8, f16, f32 = self.backbone((thermal - GREY_MEAN) / GREY_STD, known)
        n32 = self.neck[0](f32)
        n16 = self.neck[1](torch.cat((F.interpolate(self.reduce[0](n32), scale_factor=2.0), f16), 1))
        n8 = self.neck[2](torch.cat((F.interpolate(self.reduce[1](n16), scale_factor=2.0), f8), 1))
        return [head(n) for head, n in zip(self.heads, (n8, n16, n32))]


NETWORKS = {"yolo_compact": YoloCompact, "yolo_semantic": YoloSemantic}
