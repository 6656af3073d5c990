"""MobileNetV2: inverted residual blocks (Sandler et al. 2018, table 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.training.weights import read_state

#: Of RGB from 0 to 255, as published ImageNet weights want it normalised.
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: expansion, channels, repeats, stride of the first repeat (Sandler et al. 2018, table 2)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)]


def _scaled(channels: int, width: float) -> int:
    """The multiple of 8 next to channels * width, not under nine tenths of it, as published networks round."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter each channel with 3x3, project back with a linear 1x1."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int):
        super().__init__()
        hidden = c_in * expansion
        expand = [] if expansion == 1 else [*_conv_bn(c_in, hidden, 1), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(
            *expand,
            *_conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True),
            *_conv_bn(hidden, c_out, 1),
        )
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = folded(self.conv, x) if self.training else self.conv(x)
        return x + seen if self.skip else seen


def folded(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """What layers make of x; normalisation with fixed statistics is done to the weights of the convolution before it,
    not to its pictures, which is the same and takes a third less time to train."""
    layers = list(layers)
    for layer, following in zip(layers, [*layers[1:], None]):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d) and not following.training:
            scale = following.weight * (following.running_var + following.eps).rsqrt()
            x = layer._conv_forward(x, layer.weight * scale.view(-1, 1, 1, 1),
                                    following.bias - following.running_mean * scale)
        elif not isinstance(layer, nn.BatchNorm2d) or layer.training:
            x = layer(x)
    return x


class MobileNetV2(nn.Module):
    """Feature pyramid of MobileNetV2, by default for a thermal image.

    In: (B, inputs, H, W), a grey image roughly of zero mean and unit variance. Out: features at strides 4, 8, 16, 32
    with `channels` channels. Layers are numbered as in the common `features.N.conv.M` naming, so that
    published ImageNet weights load; their RGB stem is summed over colour, which is what a grey image would give.

    width: factor of all channels, which stay multiples of 8. fixed_statistics: normalisation statistics stay at their
    pretrained values (`train()` leaves them alone): the batches that fit on a CPU are small, and fixed statistics let
    the compiler fold them into the convolutions.
    """

    _taps = (3, 6, 13, 17)

    def __init__(self, inputs: int = 1, width: float = 1.0, fixed_statistics: bool = True):
        super().__init__()
        self.fixed_statistics = fixed_statistics
        c_in = _scaled(32, width)
        blocks: list[nn.Module] = [nn.Sequential(*_conv_bn(inputs, c_in, 3, 2), nn.ReLU6(inplace=True))]
        sizes = [c_in]
        for expansion, channels, repeats, stride in _STAGES:
            for i in range(repeats):
                c_out = _scaled(channels, width)
                blocks.append(InvertedResidual(c_in, c_out, stride if i == 0 else 1, expansion))
                sizes.append(c_in := c_out)
        self.features = nn.ModuleList(blocks)
        self.channels = tuple(sizes[tap] for tap in self._taps)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        out = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in self._taps:
                out.append(x)
        return out

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.modules() if self.fixed_statistics else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_imagenet(self, path: Path) -> None:
        """Load ImageNet weights with keys `features.N...`; the classifier is ignored.

        The stem saw (RGB / 255 - mean) / std, which it still wants where `inputs` is 3. A grey image normalised to zero
        mean and unit variance is the same thing in all three channels, so there the three kernels add up.
        ThermalReidError where the file holds something else.
        """
        weights = read_state(path, "MobileNetV2")
        weights = {k: v for k, v in weights.items() if k.startswith("features.") and not k.startswith("features.18.")}
        try:
            if self.features[0][0].in_channels == 1:
                weights["features.0.0.weight"] = weights["features.0.0.weight"].sum(1, keepdim=True)
            self.load_state_dict(weights)
        except Exception as error:  # whatever the file holds instead
            raise ThermalReidError(f"{path}: no weights of MobileNetV2 ({first_line(error)})") from None
