"""The two segmentation networks: the paper's GeoGAN and our light SegmenterCompact.

Both take images (B, 3, H, W) RGB in levels 0..255 (float32, raw: the network normalises; a thermal frame is its grey
levels thrice), H and W divisible by `stride_multiple`, and give logits (B, classes, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.training.detectors import CrossStage, conv_bn_act

#: What is subtracted from levels and what divides them: the middle of the scale and half of its half.
LEVEL_MEAN, LEVEL_STD = 127.5, 63.75


def _normalised(image: torch.Tensor) -> torch.Tensor:
    return (image - LEVEL_MEAN) / LEVEL_STD


def _down(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out),
                         nn.LeakyReLU(0.2, inplace=True))


class ResidualPair(nn.Module):
    """Two 3x3 convolutions plus their input."""

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.body = nn.Sequential(conv_bn_act(channels, channels), nn.Dropout2d(dropout),
                                  conv_bn_act(channels, channels, slope=None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class GeoGan(nn.Module):
    """Generator of the paper's conditional GAN: a narrow U-Net after pix2pix (Isola et al. 2017).

    Five 4x4 convolutions of stride 2 down and skip connections on the way up, as there. Two things differ. pix2pix
    goes down to a single cell, which ties it to one frame size; here two residual pairs at stride 32 see the
    surroundings. And it goes up by transposed convolutions, which take CPUs three times as long as a convolution
    before each doubling does; the last doubling is a pixel shuffle.
    """

    stride_multiple = 32
    widths = (24, 48, 96, 128, 128)  # at strides 2, 4, 8, 16, 32

    def __init__(self, classes: int = CLASS_COUNT):
        super().__init__()
        w = self.widths
        self.down = nn.ModuleList(_down(c_in, c_out) for c_in, c_out in zip((3, *w[:-1]), w))
        self.bottom = nn.Sequential(ResidualPair(w[4], 0.2), ResidualPair(w[4], 0.2))
        self.up = nn.ModuleList(conv_bn_act(c_in, c_out) for c_in, c_out in
                                zip((w[4], 2 * w[3], 2 * w[2], 2 * w[1]), w[-2::-1]))
        self.last = conv_bn_act(2 * w[0], w[0])
        self.out = nn.Conv2d(w[0], 4 * classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x, skips = _normalised(image), []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.bottom(skips.pop())
        for up, skip in zip(self.up, reversed(skips)):
            x = torch.cat((F.interpolate(up(x), scale_factor=2.0, mode="nearest"), skip), 1)
        return F.pixel_shuffle(self.out(self.last(x)), 2)


class PatchDiscriminator(nn.Module):
    """PatchGAN: says of each 70 x 70 px of (image, labelling) whether the labelling is the true one; logits.

    In: images as the networks take them, and labellings (B, classes, H, W) as probabilities.
    """

    def __init__(self, classes: int = CLASS_COUNT, width: int = 32):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3 + classes, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True))
        self.rest = nn.Sequential(
            _down(width, 2 * width), _down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 8 * width, 4, 1, 1, bias=False), nn.BatchNorm2d(8 * width),
            nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, image: torch.Tensor, labelling: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(torch.cat((_normalised(image), labelling), 1)))


class ContextPool(nn.Module):
    """What is around: maxima over growing windows (5, 9, 13 cells) and the mean of the whole frame."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.enter = conv_bn_act(channels, half, 1)
        self.whole = nn.Conv2d(half, half, 1)
        self.leave = conv_bn_act(4 * half, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        parts = [x + self.whole(x.mean((2, 3), keepdim=True))]
        for _ in range(3):
            x = F.max_pool2d(x, 5, 1, 2)
            parts.append(x)
        return self.leave(torch.cat(parts, 1))


class SegmenterCompact(nn.Module):
    """Cross-stage partial encoder to stride 32, a pooling pyramid for context, and a light decoder up to stride 2.

    Dense 3x3 convolutions on few channels: on CPUs with vector units they take less time than depthwise ones of as
    many operations. The last doubling is a pixel shuffle.
    """

    stride_multiple = 32
    widths = (24, 48, 80, 144, 192)  # at strides 2, 4, 8, 16, 32

    def __init__(self, classes: int = CLASS_COUNT, width: int = 80):
        super().__init__()
        w = self.widths
        self.stem = conv_bn_act(3, w[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_bn_act(c_in, c_out, 3, 2), CrossStage(c_out, c_out, repeats))
            for c_in, c_out, repeats in zip(w[:-1], w[1:], (1, 2, 3, 2)))
        self.context = ContextPool(w[4])
        self.lateral = nn.ModuleList(conv_bn_act(c, width, 1, slope=None) for c in (w[4], w[3], w[2], w[1]))
        self.merge = nn.ModuleList(CrossStage(width, width) for _ in range(3))
        self.narrow = conv_bn_act(width, w[0], 1)
        self.fine = conv_bn_act(2 * w[0], 24)
        self.out = nn.Conv2d(24, 4 * classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        f2 = self.stem(_normalised(image))
        features, x = [], f2
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = self.lateral[0](self.context(features.pop()))
        for lateral, merge, fine in zip(self.lateral[1:], self.merge, reversed(features)):
            x = merge(lateral(fine) + F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return F.pixel_shuffle(self.out(self.fine(torch.cat((x, f2), 1))), 2)


NETWORKS = {"geogan": GeoGan, "segmenter_compact": SegmenterCompact}
