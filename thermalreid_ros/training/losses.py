"""Losses of the two detectors. Nothing in them waits for the accelerator: every shape is known beforehand.

Targets: `boxes` (B, M, 4) pixel edges x_min, y_min, x_max, y_max; `labels` (B, M) int64, -1 for padding,
-2 for regions whose content is not to be judged (neither object nor background). `trained_classes` (C,) or (B, C) 0/1:
classes that nobody looked for, in all of the images or in some of them, are left untouched there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

PADDING, IGNORE = -1, -2


_EPS = 1e-7


def plain_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of boxes (..., 4), broadcast."""
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    areas = ((box[..., 2:] - box[..., :2]).clamp(min=_EPS).prod(-1) for box in (a, b))
    return inter / (next(areas) + next(areas) - inter + _EPS)


def complete_iou(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and CIoU (Zheng et al. 2020) of boxes (..., 4), broadcast."""
    iou = plain_iou(a, b)
    wh_a, wh_b = (a[..., 2:] - a[..., :2]).clamp(min=_EPS), (b[..., 2:] - b[..., :2]).clamp(min=_EPS)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    centre = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    aspect = (4 / math.pi**2) * (torch.atan(wh_a[..., 0] / wh_a[..., 1]) - torch.atan(wh_b[..., 0] / wh_b[..., 1])) ** 2
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + _EPS)
    return iou, iou - centre / (hull.square().sum(-1) + _EPS) - weight * aspect


def trust_loss(ground: torch.Tensor, trust: torch.Tensor, labelling: torch.Tensor, true: torch.Tensor, *,
               classes: int, least_right: float = 0.5) -> dict:
    """Of LabellingBranch's judgement: ground_loss, cross-entropy of the ground as it is seen, logits (B, K, h, w), by
    the shares of the true classes in its cells; trust_loss, that of the trust, logits (B, 1, 1, 1), in a labelling of
    which more than least_right is true. labelling, true: (B, 1, H, W), anything but a class is not to be judged."""
    cell = true.shape[-1] // ground.shape[-1]
    kinds = torch.arange(classes, device=true.device).view(1, -1, 1, 1)
    share = F.avg_pool2d((true == kinds).float(), cell)
    ground_loss = -(ground.float().log_softmax(1) * share).sum() / share.sum().clamp(min=1.0)
    judged = (labelling < classes) & (true < classes)
    number = judged.sum((1, 2, 3))
    right = (judged & (labelling == true)).sum((1, 2, 3)) / number.clamp(min=1)
    each = F.binary_cross_entropy_with_logits(trust.flatten().float(), (right > least_right).float(), reduction="none")
    given = (number > 0).float()
    return {"ground_loss": ground_loss, "trust_loss": (each * given).sum() / given.sum().clamp(min=1.0)}


def cell_centres(height: int, width: int, stride: int, device) -> torch.Tensor:
    """(H * W, 2) x, y in pixels of the cells of a feature map, row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return (torch.stack((x, y), -1).reshape(-1, 2).float() + 0.5) * stride


def compact_loss(out: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, *, stride: int,
                 trained_classes: torch.Tensor, topk: int = 10, alpha: float = 0.5, beta: float = 6.0) -> dict:
    """Task-aligned assignment (Feng et al. 2021) with binary cross-entropy on soft targets and CIoU.

    out (B, C + 4, h, w) as YoloCompact gives it. A cell is a candidate for an object if its centre lies in the
    box, grown to at least three cells so that a person of 7 px has candidates too. Returns loss, class_loss, box_loss,
    positives, mean_iou.
    """
    b, channels, h, w = out.shape
    classes = channels - 4
    centres = cell_centres(h, w, stride, out.device)
    flat = out.flatten(2).transpose(1, 2).float()
    logits, ltrb = flat[..., :classes], flat[..., classes:] * stride
    predicted = torch.cat((centres - ltrb[..., :2], centres + ltrb[..., 2:]), -1)  # (B, N, 4)

    with torch.no_grad():
        real = labels >= 0
        middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
        reach = half.clamp(min=1.5 * stride)
        inside = ((centres[None, None] - middle[:, :, None]).abs() < reach[:, :, None]).all(-1) & real[..., None]
        iou = plain_iou(boxes[:, :, None], predicted[:, None])  # (B, M, N)
        score = logits.sigmoid().gather(2, labels.clamp(min=0)[:, None].expand(-1, h * w, -1)).transpose(1, 2)
        alignment = torch.where(inside, score**alpha * iou.clamp(min=1e-3) ** beta, 0)
        threshold = alignment.topk(min(topk, h * w), -1).values[..., -1:]
        chosen = inside & (alignment >= threshold) & (alignment > 0)
        # a cell wanted by several objects goes to the one it overlaps most
        owner = torch.where(chosen, iou + 1e-6, 0).argmax(1)  # (B, N)
        positive = chosen.any(1)
        chosen = chosen & (owner[:, None] == torch.arange(boxes.shape[1], device=out.device)[None, :, None])
        aligned = torch.where(chosen, alignment, 0)
        normalised = aligned / aligned.amax(-1, keepdim=True).clamp(min=1e-12)
        best_iou = torch.where(chosen, iou, 0).amax(-1, keepdim=True)
        quality = (normalised * best_iou).amax(1)  # (B, N)
        target = torch.zeros_like(logits)
        owner_label = labels.clamp(min=0).gather(1, owner)
        target.scatter_(2, owner_label[..., None], torch.where(positive, quality, 0)[..., None])
        low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
        covered = ((centres > low) & (centres < high)).all(-1)
        judged = ~((covered & (labels == IGNORE)[..., None]).any(1) & ~positive)
        weight = judged[..., None] * _of_images(trained_classes, 1)
        matched = boxes.gather(1, owner[..., None].expand(-1, -1, 4))

    class_loss = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum()
    quality = torch.where(positive, quality, 0)
    total, count = quality.sum().clamp(min=1.0), positive.sum()
    iou, ciou = complete_iou(predicted, matched)
    box_loss = torch.where(positive, (1 - ciou) * quality.clamp(min=0.05), 0).sum()
    mean_iou = torch.where(positive, iou.detach(), 0).sum() / count.clamp(min=1)
    return {"loss": (class_loss + 5.0 * box_loss) / total, "class_loss": class_loss.detach() / total,
            "box_loss": box_loss.detach() / total, "positives": count, "mean_iou": mean_iou}


def _of_images(trained_classes: torch.Tensor, inner: int) -> torch.Tensor:
    """(C,) or (B, C) made to broadcast over (B, ..., C) with `inner` axes between."""
    return trained_classes.reshape(*trained_classes.shape[:-1], *(1,) * inner, trained_classes.shape[-1])


def decode_yolo(out: torch.Tensor, anchors: torch.Tensor, stride: int) -> tuple[torch.Tensor, ...]:
    """YOLOv3 head (B, 3 * (5 + C), h, w) -> boxes (B, 3, h, w, 4) px, objectness and class logits.

    Centre and size in the bounded form of Scaled-YOLOv4 (2 sigma - 0.5, (2 sigma)^2), which lets a cell claim a
    neighbour's object and cannot overflow.
    """
    b, _, h, w = out.shape
    t = out.view(b, len(anchors), -1, h, w).permute(0, 1, 3, 4, 2)
    corner = cell_centres(h, w, stride, out.device).view(h, w, 2) - stride / 2
    xy = (t[..., :2].sigmoid() * 2 - 0.5) * stride + corner
    wh = (t[..., 2:4].sigmoid() * 2).square() * anchors[:, None, None]
    return torch.cat((xy - wh / 2, xy + wh / 2), -1), t[..., 4], t[..., 5:]


def semantic_loss(outs: list[torch.Tensor], boxes: torch.Tensor, labels: torch.Tensor, *, strides, anchors,
                  trained_classes: torch.Tensor, ratio: float = 3.0) -> dict:
    """YOLOv3's objectness, class and box terms, with CIoU for the box and IoU as the objectness target.

    An anchor answers for an object if their sides differ by less than `ratio`; besides the cell that holds the
    centre its nearest horizontal and vertical neighbour answer too. Returns what compact_loss returns.
    """
    device, batch = outs[0].device, len(labels)
    real = labels >= 0
    wh, xy = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3), (boxes[..., 2:] + boxes[..., :2]) / 2
    one_hot = F.one_hot(labels.clamp(min=0), trained_classes.shape[-1]).float()[:, :, None, None]
    first = torch.arange(batch, device=device)[:, None, None, None]
    which = torch.arange(3, device=device)[None, None, :, None]
    object_loss = class_loss = box_loss = outs[0].new_zeros((), dtype=torch.float32)
    positives, iou_sum = 0, torch.zeros((), device=device)
    for out, stride, anchor, balance in zip(outs, strides, anchors, (4.0, 1.0, 0.4)):
        size = torch.as_tensor(anchor, dtype=torch.float32, device=device)
        predicted, objectness, class_logits = decode_yolo(out.float(), size, stride)
        h, w = out.shape[-2:]
        # (B, M, anchors, cells): who answers for whom
        sides = wh[:, :, None] / size
        suits = real[..., None] & (torch.maximum(sides, 1 / sides).amax(-1) < ratio)
        position = xy / stride
        cell = position.floor()
        beside = torch.where(position - cell < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(beside[..., 0])
        x, y = (torch.stack((c, c + a, c + b), -1).long()[:, :, None] for c, a, b in (
            (cell[..., 0], beside[..., 0], zero), (cell[..., 1], zero, beside[..., 1])))
        chosen = suits[..., None] & (x >= 0) & (x < w) & (y >= 0) & (y < h)
        x, y = x.clamp(0, w - 1).expand(chosen.shape), y.clamp(0, h - 1).expand(chosen.shape)
        where = (first.expand(chosen.shape), which.expand(chosen.shape), y, x)
        iou, ciou = complete_iou(predicted[where], boxes[:, :, None, None])
        count = chosen.sum()
        box_loss = box_loss + torch.where(chosen, 1 - ciou, 0).sum() / count.clamp(min=1)
        bce = F.binary_cross_entropy_with_logits(class_logits[where], one_hot.expand(*chosen.shape, -1),
                                                 reduction="none")
        bce = (bce * _of_images(trained_classes, 3)).sum(-1)
        class_loss = class_loss + torch.where(chosen, bce, 0).sum() / count.clamp(min=1)
        with torch.no_grad():
            # where two objects meet in a cell the better one is meant
            flat = ((where[0] * 3 + where[1]) * h + y) * w + x
            target = torch.zeros(objectness.numel(), device=device).scatter_reduce_(
                0, flat.flatten(), torch.where(chosen, iou.clamp(min=0.1), 0).flatten(), "amax").view_as(objectness)
            centres = cell_centres(h, w, stride, device)[None, None]
            ignored = ((centres > boxes[:, :, None, :2]) & (centres < boxes[:, :, None, 2:])).all(-1)
            ignored = (ignored & (labels == IGNORE)[..., None]).any(1).view(batch, 1, h, w)
            weight = (~ignored | (target > 0)).float()
            positives, iou_sum = positives + count, iou_sum + torch.where(chosen, iou, 0).sum()
        object_loss = object_loss + balance * (
            F.binary_cross_entropy_with_logits(objectness, target, reduction="none") * weight).mean()
    return {"loss": 20.0 * object_loss + 0.5 * class_loss + 2.0 * box_loss, "class_loss": class_loss.detach(),
            "box_loss": box_loss.detach(), "positives": positives, "mean_iou": iou_sum / positives.clamp(min=1)}
