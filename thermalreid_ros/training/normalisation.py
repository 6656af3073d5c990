"""Batch normalisation of networks that are taken up again: set to other pictures without changing what is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

LAYERS = nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d
_LEAST_SPREAD = 1e-4  # of what a convolution gives: channels that give less are left as large as they are


def normalised(network: nn.Module) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """The convolutions that a batch normalisation follows, with it."""
    return {layers[i]: layers[i + 1] for layers in network.modules() if isinstance(layers, nn.Sequential)
            for i in range(len(layers) - 1)
            if isinstance(layers[i], nn.Conv2d) and isinstance(layers[i + 1], nn.BatchNorm2d)}


@torch.no_grad()
def renormalise(network: nn.Module, show: Sequence[Callable[[], object]]) -> None:
    """Give the network, in eval mode and in place, the statistics of what is shown to it (each call of `show` runs it
    on pictures), and let scales, shifts and kernels make up for it: in eval mode it computes what it did before, and
    in training, on batches of such pictures, nearly that. Layers that none of it runs stay as they are.

    Convolutions then give a spread of 1, as those of fresh networks do about: normalisation takes their scale away, but
    a step of Adam is as long for small kernels as for large ones, and would undo what small ones know.
    """
    pairs = normalised(network)
    sums: dict[nn.Module, torch.Tensor] = {}

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            values = inputs[0].double()
            total = values.sum((0, 2, 3))
            number = torch.full_like(total, values.numel() / layer.num_features)
            sums[layer] = sums.get(layer, 0.0) + torch.stack((total, values.square().sum((0, 2, 3)), number))

    with hooked(network, count):
        for one in show:
            one()
    for conv, after in pairs.items():
        if after not in sums:
            continue
        total, square, number = sums[after]
        mean = total / number
        variance = (square / number - mean.square()).clamp(min=0.0)
        shrink = torch.where(variance > _LEAST_SPREAD**2, variance.rsqrt(), 1.0)
        slope = after.weight.double() / (after.running_var.double() + after.eps).sqrt()
        after.bias.copy_(after.bias.double() + slope * (mean - after.running_mean))
        after.running_mean.copy_(mean * shrink)
        after.running_var.copy_(variance * shrink.square())
        after.weight.copy_(slope / shrink * (after.running_var.double() + after.eps).sqrt())
        conv.weight.mul_(shrink.view(-1, 1, 1, 1).to(conv.weight.dtype))
        if conv.bias is not None:
            conv.bias.mul_(shrink.to(conv.bias.dtype))


@contextmanager
def hooked(network: nn.Module, hook: Callable) -> Iterator[None]:
    """While the context lasts, the network's layers with parameters call hook(layer, inputs, output)."""
    handles = [layer.register_forward_hook(hook) for layer in network.modules() if isinstance(layer, LAYERS)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
