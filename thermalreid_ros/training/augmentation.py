"""Variation of labelled frames in whole batches, on the device that trains.

Images are float32 (B, C, H, W), 0 to 1; labels uint8 (B, H, W), 255 = not to be judged. Everything is drawn per frame
from one generator, without waiting for the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from thermalreid_ros.localization.segmenter import ABSOLUTE_LEVELS_PER_K, COLDEST_C, CONTRAST_LEVELS_PER_K
from thermalreid_ros.maps.classes import NO_DATA

#: What disturbs the grey levels fully disturbs the levels of contrast and of temperature (localization/segmenter.py)
#: so much: gain control stretches a few kelvin over the whole scale.
_DISTURBED = (1.0, 0.2, 0.05)


class Augmentation:
    """Random views of frames. Equal generator states give equal batches on the same device.

    Geometry: scale 0.6 to 1.6, any rotation for three frames in ten and a little for the others, mirrored for half of
    them. Radiometry of thermal frames imitates what gain controls and temperatures do: polarity, equalisation, any
    monotone curve, gain, offset, gamma, local contrast; then shading, blur or sharpening, noise, stripes, dead lines.
    Radiometric frames come from our own gain control, so their grey varies less; their temperatures err by some kelvin
    as a whole and by a quarter in contrast. Visible frames get light, white balance and saturation instead, one in
    seven without colour.
    """

    def __init__(self, generator: torch.Generator, inversion: float = 0.15):
        self.generator, self.device, self.inversion = generator, generator.device, inversion
        taps = torch.exp(-torch.arange(-3.0, 4.0, device=self.device) ** 2 / (2 * 1.3**2))
        self._taps = taps / taps.sum()

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, *,
                 thermal: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """images: (B, 1, H, W) where thermal, else (B, 3, H, W). Returns them as whole levels, 0 to 255, of three
        channels, and the labels that go with them."""
        images, labels = self.warp(images, labels)
        images = self.thermal_radiometry(images) if thermal else self.visible_radiometry(images)
        images, labels = self.cut_out(self.camera(images, lines=thermal), labels)
        return (255 * images.clamp(0, 1)).round().expand(-1, 3, -1, -1), labels

    def radiometric(self, grey: torch.Tensor, temperature_c: torch.Tensor,
                    labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """grey (0 to 1) and temperature_c, both (B, 1, H, W), as images of whole levels, (B, 3, H, W), and the labels
        that go with them."""
        both, labels = self.warp(torch.cat((grey, temperature_c), 1), labels)
        grey, temperature_c = both.split(1, 1)
        b = len(grey)
        grey = torch.where(self._chance(b, 0.25), self._curved(grey), grey)
        grey = grey.clamp(1e-3, 1) ** self._uniform(b, -0.2, 0.2).exp()
        grey = (grey - 0.5) * self._uniform(b, -0.3, 0.15).exp() + 0.5 + self._uniform(b, -0.1, 0.1)
        contrast = temperature_c - temperature_c.flatten(1).median(1).values.view(b, 1, 1, 1)
        varied = contrast * self._uniform(b, -0.25, 0.25).exp()
        absolute = temperature_c + varied - contrast + 2.0 * self._normal(b) - COLDEST_C
        levels = torch.cat((grey, 0.5 + CONTRAST_LEVELS_PER_K / 255 * varied,
                            ABSOLUTE_LEVELS_PER_K / 255 * absolute), 1)
        disturbed = torch.tensor(_DISTURBED, device=self.device).view(1, 3, 1, 1)
        images, labels = self.cut_out(self.camera(levels, lines=True, disturbed=disturbed), labels)
        return (255 * images.clamp(0, 1)).round(), labels

    def warp(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b, _, height, width = images.shape
        turn = torch.where(self._chance(b, 0.3), self._uniform(b, -math.pi, math.pi), 0.15 * self._normal(b)).view(b)
        scale = self._uniform(b, math.log(0.6), math.log(1.6)).exp().view(b)
        stretch = (0.06 * self._normal(b)).exp().view(b)
        mirror = torch.where(self._chance(b, 0.5), -1.0, 1.0).view(b)
        cos, sin = turn.cos() / scale, turn.sin() / scale
        reach = (1 - 1 / scale).abs() + 0.1  # how far the view may slide, in halves of the frame
        slide = reach[:, None] * (2 * torch.rand(b, 2, generator=self.generator, device=self.device) - 1)
        # from places in the new frame to places in the old one, both -1 to 1, turned in pixels
        theta = torch.stack((
            torch.stack((mirror * cos * stretch, -sin / stretch * (height / width), slide[:, 0]), 1),
            torch.stack((mirror * sin * stretch * (width / height), cos / stretch, slide[:, 1]), 1)), 1)
        grid = F.affine_grid(theta, [b, 1, height, width], align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        # what lies outside is the frame mirrored, and is judged too: a frame scaled down would else teach little
        labels = F.grid_sample(labels.float()[:, None], grid, mode="nearest", padding_mode="reflection",
                               align_corners=False)
        return moved, labels[:, 0].round().to(torch.uint8)

    def thermal_radiometry(self, x: torch.Tensor) -> torch.Tensor:
        b = len(x)
        x = torch.where(self._chance(b, self.inversion), 1 - x, x)
        x = torch.where(self._chance(b, 0.25), torch.lerp(x, self._equalised(x), self._uniform(b, 0.3, 1.0)), x)
        x = torch.where(self._chance(b, 0.5), self._curved(x), x)
        x = x.clamp(1e-3, 1) ** self._uniform(b, -0.4, 0.4).exp()
        x = torch.where(self._chance(b, 0.2), x - self._uniform(b, 0.3, 0.9) * (_surroundings(x) - 0.5), x)
        return (x - 0.5) * self._uniform(b, -0.6, 0.35).exp() + 0.5 + self._uniform(b, -0.2, 0.2)

    def visible_radiometry(self, x: torch.Tensor) -> torch.Tensor:
        b = len(x)
        grey = x.mean(1, keepdim=True)
        saturation = torch.where(self._chance(b, 0.15), 0.0, self._uniform(b, 0.4, 1.4))
        x = grey + saturation * (x - grey)
        x = x * (0.08 * torch.randn(b, 3, 1, 1, generator=self.generator, device=self.device)).exp()
        x = x.clamp(1e-3, 1) ** self._uniform(b, -0.4, 0.4).exp()
        return (x - 0.5) * self._uniform(b, -0.5, 0.3).exp() + 0.5 + self._uniform(b, -0.15, 0.15)

    def camera(self, x: torch.Tensor, *, lines: bool, disturbed: torch.Tensor | float = 1.0) -> torch.Tensor:
        """Shading, optics and noise; lines: stripes and dead lines too. disturbed: factor of what is added."""
        b, _, height, width = x.shape
        shading = torch.randn(b, 1, 4, 5, generator=self.generator, device=self.device)
        shading = F.interpolate(shading, (height, width), mode="bicubic", align_corners=False)
        x = x + torch.where(self._chance(b, 0.3), self._uniform(b, 0.02, 0.12), 0.0) * shading * disturbed
        x = x + torch.where(self._chance(b, 0.4), self._uniform(b, -0.8, 1.0), 0.0) * (self._blurred(x) - x)
        noise = torch.randn(x.shape, generator=self.generator, device=self.device)
        x = x + torch.where(self._chance(b, 0.5), self._uniform(b, 0.0, 0.04), 0.0) * noise * disturbed
        if lines:
            for shape in ((b, 1, height, 1), (b, 1, 1, width)):
                stripes = torch.randn(shape, generator=self.generator, device=self.device)
                x = x + torch.where(self._chance(b, 0.15), self._uniform(b, 0.0, 0.03), 0.0) * stripes * disturbed
                dead = torch.rand(shape, generator=self.generator, device=self.device) < 0.01
                x = torch.where(dead & self._chance(b, 0.1), self._uniform(b, 0.0, 1.0), x)
        return x

    def cut_out(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A plain rectangle in a fifth of the frames, which is not judged."""
        b, _, height, width = x.shape
        rows = torch.arange(height, device=self.device).view(1, 1, height, 1) / height
        columns = torch.arange(width, device=self.device).view(1, 1, 1, width) / width
        inside = (((rows - self._uniform(b, 0, 1)).abs() < self._uniform(b, 0.03, 0.15))
                  & ((columns - self._uniform(b, 0, 1)).abs() < self._uniform(b, 0.03, 0.15)) & self._chance(b, 0.2))
        return (torch.where(inside, self._uniform(b, 0, 1), x),
                torch.where(inside[:, 0], torch.full_like(labels, NO_DATA), labels))

    def _equalised(self, x: torch.Tensor) -> torch.Tensor:
        """Ranks of the levels among 1024 pixels of the frame: histogram equalisation."""
        flat = x.flatten(1)
        chosen = torch.randint(flat.shape[1], (1024,), generator=self.generator, device=self.device)
        samples = flat[:, chosen].sort(1).values
        return (torch.searchsorted(samples, flat) / 1024.0).view_as(x)

    def _curved(self, x: torch.Tensor, pieces: int = 8) -> torch.Tensor:
        """A rising curve of straight pieces, from 0 to 1."""
        b = len(x)
        rises = (0.8 * torch.randn(b, pieces, generator=self.generator, device=self.device)).exp()
        knots = F.pad(rises.cumsum(1) / rises.sum(1, keepdim=True), (1, 0))
        place = x.flatten(1).clamp(0, 1) * pieces
        left = place.floor().clamp(max=pieces - 1).long()
        low, high = knots.gather(1, left), knots.gather(1, left + 1)
        return (low + (place - left) * (high - low)).view_as(x)

    def _blurred(self, x: torch.Tensor) -> torch.Tensor:
        channels, half = x.shape[1], len(self._taps) // 2
        kernel = self._taps.expand(channels, 1, 1, -1)
        x = F.conv2d(F.pad(x, (half, half, 0, 0), mode="reflect"), kernel, groups=channels)
        return F.conv2d(F.pad(x, (0, 0, half, half), mode="reflect"), kernel.transpose(2, 3), groups=channels)

    def _uniform(self, b: int, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, generator=self.generator, device=self.device)

    def _normal(self, b: int) -> torch.Tensor:
        return torch.randn(b, 1, 1, 1, generator=self.generator, device=self.device)

    def _chance(self, b: int, share: float) -> torch.Tensor:
        return torch.rand(b, 1, 1, 1, generator=self.generator, device=self.device) < share


def _surroundings(x: torch.Tensor) -> torch.Tensor:
    """The mean of what is around, over some tens of pixels."""
    coarse = F.avg_pool2d(F.avg_pool2d(x, 16, 16, ceil_mode=True), 3, 1, 1, count_include_pad=False)
    return F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
