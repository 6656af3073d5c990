"""Losses of the segmentation networks.

logits float32 (B, C, H, W); labels uint8 (B, H, W), 255 = not to be judged. Sums run over the whole batch, as a frame
may lack a class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA


def class_weights(shares: torch.Tensor, power: float = 0.3, emphasis: tuple[float, ...] = (1, 1.2, 1.2, 1, 1)
                  ) -> torch.Tensor:
    """(C,) weights of classes that fill these shares of the ground: share ** -power, at most 4 times the least, times
    an emphasis (roads and buildings, by which a place is known); their mean over pixels is 1."""
    weight = shares.clamp(min=1e-4) ** -power
    weight = weight.clamp(max=4 * float(weight.min())) * torch.tensor(emphasis, dtype=shares.dtype)
    return weight / (weight * shares).sum()


def weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over judged pixels, each with its class's weight."""
    target = labels.long()
    each = F.cross_entropy(logits, target, weight=weights, ignore_index=NO_DATA, reduction="none")
    total = F.pad(weights, (0, NO_DATA + 1 - len(weights)))[target].sum()
    return each.sum() / total.clamp(min=1.0)


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    """float32 (B, C, H, W); pixels not to be judged are 0 in every class."""
    classes = torch.arange(CLASS_COUNT, device=labels.device, dtype=labels.dtype).view(1, -1, 1, 1)
    return (labels[:, None] == classes).float()


def dice_loss(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - Dice, the mean over the classes there; both (B, C, H, W), 0 where nothing is to be judged."""
    common, both = (probabilities * truth).sum((0, 2, 3)), (probabilities + truth).sum((0, 2, 3))
    return _mean_of_present(1 - (2 * common + 1) / (both + 1), truth)


def boundary_loss(probabilities: torch.Tensor, truth: torch.Tensor, judged: torch.Tensor, reach_px: int = 2
                  ) -> torch.Tensor:
    """1 - F1 of the outlines of the classes, matched within reach_px (Bokhovkin & Burnaev 2019); arguments as for
    dice_loss and judged (B, 1, H, W), 1 or 0. No outline runs along what is not judged."""
    within = 1 - F.max_pool2d(1 - judged, 3, 1, 1)
    mine, true = (_outline(x) * within for x in (probabilities, truth))
    width = 2 * reach_px + 1
    precision = (mine * F.max_pool2d(true, width, 1, reach_px)).sum((0, 2, 3)) / (mine.sum((0, 2, 3)) + 1)
    recall = (true * F.max_pool2d(mine, width, 1, reach_px)).sum((0, 2, 3)) / (true.sum((0, 2, 3)) + 1)
    return _mean_of_present(1 - 2 * precision * recall / (precision + recall + 1e-3), truth)


def compact_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor,
                 outlines: float = 0.3) -> dict[str, torch.Tensor]:
    """Cross-entropy, Dice and outlines, and their sum as `loss`. Cross-entropy weighs most: the filter of localization
    reads the probabilities. outlines: weight of theirs; at 0 they are not computed, which takes CPUs as long as all
    else."""
    judged = (labels != NO_DATA).float()[:, None]
    probabilities, truth = logits.softmax(1) * judged, one_hot(labels)
    terms = {"cross_entropy": weighted_cross_entropy(logits, labels, weights),
             "dice": dice_loss(probabilities, truth)}
    loss = terms["cross_entropy"] + 0.5 * terms["dice"]
    if outlines:
        terms["boundary"] = boundary_loss(probabilities, truth, judged)
        loss = loss + outlines * terms["boundary"]
    return {"loss": loss, **terms}


def softened_truth(labels: torch.Tensor, probabilities: torch.Tensor, floor: float = 0.9) -> torch.Tensor:
    """The true labelling for a discriminator, which would else know it by its ones and zeros: the true class has its
    predicted probability, at least `floor`, the others share the rest as predicted (Luc et al. 2016)."""
    truth = one_hot(labels)
    own = (probabilities * truth).sum(1, keepdim=True)
    kept = own.clamp(min=floor)
    others = probabilities * (1 - truth) * (1 - kept) / (1 - own).clamp(min=1e-4)
    return (kept * truth + others) * (labels != NO_DATA)[:, None]


def adversarial_loss(verdicts: torch.Tensor, real: bool) -> torch.Tensor:
    """Binary cross-entropy of the discriminator's verdicts (logits) on each patch."""
    return F.softplus(-verdicts.float() if real else verdicts.float()).mean()


def _outline(x: torch.Tensor) -> torch.Tensor:
    """1 at the pixels of a class that touch another, in (B, C, H, W) shares."""
    inverse = 1 - x
    return F.max_pool2d(inverse, 3, 1, 1) - inverse


def _mean_of_present(losses: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    present = (truth.sum((0, 2, 3)) > 0).float()
    return (losses * present).sum() / present.sum().clamp(min=1)
