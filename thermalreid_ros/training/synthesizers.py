"""Networks that make thermal pictures of colour ones: ThermalGAN's two generators, and a conditional one.

All take square crops of crops.MARGIN around an object, RGB float32 (N, 3, 128, 128) from -1 to 1. Temperatures in
networks are excesses over the air's, in units of a scale: MEAN_SCALE_K (of mean temperatures, in both directions the
same), RELATIVE_SCALE_K (of a pixel against the mean) and EXCESS_SCALE_K (of the conditional generator).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

MEAN_SCALE_K = 40.0
RELATIVE_SCALE_K = 10.0
EXCESS_SCALE_K = 20.0
#: Inputs of the conditional generator beside the picture.
CONDITIONS = ("sin_solar_hour", "cos_solar_hour", "air_temperature", "cloud_cover", "sin_sun_elevation")
AIR_MIDDLE_C, AIR_SCALE_K = 10.0, 15.0
_WIDTHS = (16, 32, 64, 96, 128)


def conditions_of(solar_hour: torch.Tensor, air_c: torch.Tensor, cloud_cover: torch.Tensor,
                  sin_sun_elevation: torch.Tensor) -> torch.Tensor:
    """float32 (N, 5), columns as CONDITIONS."""
    angle = solar_hour * (2.0 * torch.pi / 24.0)
    return torch.stack([torch.sin(angle), torch.cos(angle), (air_c - AIR_MIDDLE_C) / AIR_SCALE_K, cloud_cover,
                        sin_sun_elevation], dim=1)


def _down(c_in: int, c_out: int, normalised: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 4, 2, 1, bias=not normalised),
                         nn.BatchNorm2d(c_out) if normalised else nn.Identity(), nn.LeakyReLU(0.2))


class _Up(nn.Module):
    """Enlarge, join what was seen at this size, filter, and let conditions scale and shift the channels."""

    def __init__(self, c_in: int, c_skip: int, c_out: int, modulations: int = 0):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(c_in + c_skip, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.modulation = nn.Linear(modulations, 2 * c_out) if modulations else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, skip: torch.Tensor, code: torch.Tensor | None = None) -> torch.Tensor:
        x = self.conv(torch.cat((F.interpolate(x, scale_factor=2.0, mode="nearest"), skip), 1))
        if self.modulation is not None:
            scale, shift = self.modulation(code)[:, :, None, None].chunk(2, 1)
            x = x * (1.0 + scale) + shift
        return F.relu(x)


class UNet(nn.Module):
    """U-Net with skip connections (pix2pix, Isola et al. 2017), narrow: (N, inputs, H, W) -> (N, outputs, H, W), not
    squashed; H and W divisible by 32. With `conditions` > 0 it takes so many numbers beside (FiLM, Perez et al. 2018).
    """

    def __init__(self, inputs: int, outputs: int, conditions: int = 0, widths: Sequence[int] = _WIDTHS):
        super().__init__()
        sizes = (inputs, *widths)
        self.down = nn.ModuleList(_down(a, b, k > 0) for k, (a, b) in enumerate(zip(sizes, sizes[1:])))
        code = 64 if conditions else 0
        self.code = nn.Sequential(nn.Linear(conditions, code), nn.ReLU(), nn.Linear(code, code), nn.ReLU()) \
            if conditions else None
        up, c_in = [], widths[-1]
        for skip, c_out in zip((*widths[-2::-1], inputs), (*widths[-2::-1], widths[0])):
            up.append(_Up(c_in, skip, c_out, code))
            c_in = c_out
        self.up = nn.ModuleList(up)
        self.out = nn.Conv2d(c_in, outputs, 3, 1, 1)

    def forward(self, picture: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        seen, x = [picture], picture
        for down in self.down:
            x = down(x)
            seen.append(x)
        code = self.code(conditions) if self.code is not None else None
        x = seen.pop()
        for up in self.up:
            x = up(x, seen.pop(), code)
        return self.out(x)


class MeanGenerator(nn.Module):
    """ThermalGAN's first generator: colour -> mean temperature per object, and where the object is.

    Out: excess of the mean over the air's temperature / MEAN_SCALE_K, -1 to 1, and logit of the object's mask, both
    (N, 1, H, W). The map is level within the object and within its surroundings, each at its mean.
    """

    def __init__(self, widths: Sequence[int] = _WIDTHS):
        super().__init__()
        self.net = UNet(3, 2, widths=widths)

    def forward(self, colour: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level, mask = self.net(colour).float().chunk(2, 1)
        return torch.tanh(level), mask


class RelativeGenerator(nn.Module):
    """ThermalGAN's second generator: (mean-temperature map, colour) -> (T - mean) / RELATIVE_SCALE_K, -1 to 1."""

    def __init__(self, widths: Sequence[int] = _WIDTHS):
        super().__init__()
        self.net = UNet(4, 1, widths=widths)

    def forward(self, level: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(torch.cat((level, colour), 1)).float())


class ConditionalGenerator(nn.Module):
    """Colour and CONDITIONS -> excess over the air's temperature / EXCESS_SCALE_K, and logit of the object's mask."""

    def __init__(self, widths: Sequence[int] = _WIDTHS):
        super().__init__()
        self.net = UNet(3, 2, len(CONDITIONS), widths)

    def forward(self, colour: torch.Tensor, conditions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.net(colour, conditions).float().chunk(2, 1)


class PatchDiscriminator(nn.Module):
    """PatchGAN on input and output together: a logit for each patch of 70 px."""

    def __init__(self, inputs: int, width: int = 32):
        super().__init__()
        self.net = nn.Sequential(
            _down(inputs, width, False), _down(width, 2 * width), _down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 8 * width, 4, 1, 1, bias=False), nn.BatchNorm2d(8 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, given: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat((given, made), 1)).float()


def ssim(first: torch.Tensor, second: torch.Tensor, span: float) -> torch.Tensor:
    """Structural similarity map (Wang et al. 2004), Gaussian window of 1.5 px, of pictures (N, 1, H, W) whose values
    span so much."""
    offsets = torch.arange(-5, 6, device=first.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel = kernel / kernel.sum()

    def mean(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (5, 5, 5, 5), mode="reflect")
        return F.conv2d(F.conv2d(x, kernel[None, None, None]), kernel[None, None, :, None])

    first, second = first.float(), second.float()
    a, b = mean(first), mean(second)
    var_a, var_b = mean(first * first) - a * a, mean(second * second) - b * b
    covariance = mean(first * second) - a * b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return ((2 * a * b + c1) * (2 * covariance + c2)) / ((a * a + b * b + c1) * (var_a + var_b + c2))


def edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbours, along rows and along columns."""
    return picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]
