"""Training of the detection networks: one loop for both, resumable, on a CPU or an accelerator."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import torch

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.memory import M_MMAP_MAX, M_TOP_PAD, M_TRIM_THRESHOLD, tune_malloc
from thermalreid_ros.training.course import warm_cosine
from thermalreid_ros.training.detectors import NETWORKS, YoloCompact
from thermalreid_ros.training.frames import CropSampler, TrainingSet
from thermalreid_ros.training.losses import compact_loss, semantic_loss, trust_loss
from thermalreid_ros.training.normalisation import renormalise
from thermalreid_ros.training.weights import Averaged, scaled, set_rate, write_state

_HALVED_FROM = 256  # weights.pt: tensors of fewer elements stay as they are
_SHOWN, _BEFORE = 24, 10**9  # batches of crops that statistics are taken from, and the number of the first


@dataclass(frozen=True)
class DetectionRecipe:
    """Everything that decides the result besides the data."""

    network: str
    steps: int
    minutes: float | None = None  # of training at most; the schedule follows whichever ends first
    batch: int = 16
    crop_px: int = 192
    learning_rate: float = 1.5e-3
    backbone_rate: float = 0.3  # share of the learning rate for the layers of a pretrained backbone
    weight_decay: float = 0.02
    ema: float = 0.998
    seed: int = 1
    warmup: int = 200
    frozen_blocks: int = 2  # first layers of a pretrained backbone that keep their weights
    inversion: float = 0.15  # share of crops of inverted polarity
    variation: float = 1.0  # of radiometry, see CropSampler
    semantics: bool = True  # learn from labellings where a set has them
    known_true: float = 1 / 3  # share of crops with the true labelling, and with a wrong one, see CropSampler
    known_wrong: float = 1 / 3
    elsewhere: float = 0.1  # of the wrong ones, another frame's
    only_trust: bool = False  # in labellings: all else of yolo_compact stays as it is

    def progress(self, step: int, seconds: float) -> float:
        """0 at the begin, 1 where training ends."""
        return min(1.0, max(step / self.steps, seconds / (60 * self.minutes) if self.minutes else 0.0))


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of giving it back: a step on the CPU is 1.5-2x faster.

    Activations are large enough that each would be mapped, zeroed page by page and unmapped again.
    Elsewhere than on glibc this does nothing.
    """
    tune_malloc({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28})


def build(name: str, backbone_weights: Path | None = None) -> torch.nn.Module:
    """A fresh network; `backbone_weights`: ImageNet weights of MobileNetV2 for yolo_compact."""
    if name not in NETWORKS:
        raise ThermalReidError(f"network {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    model = NETWORKS[name]()
    if backbone_weights is not None and isinstance(model, YoloCompact):
        model.backbone.load_imagenet(backbone_weights)
    return model


def train(recipe: DetectionRecipe, sets: Sequence[TrainingSet], out: Path, *, backbone_weights: Path | None = None,
          start: Path | None = None, device: str = "cpu", log=print, checkpoint_every_s: float = 60.0) -> Path:
    """Train, resuming from `out/checkpoint.pt` if it is there, else from the network of `start` (a weights.pt or
    checkpoint.pt of an earlier training, whose normalisation is set to this one's crops, see
    normalisation.renormalise, unless only_trust leaves it alone), else from nothing but `backbone_weights`; returns
    the path of the checkpoint.

    A checkpoint of another recipe is refused, except that `steps` and `minutes` may change (the schedule is then
    stretched). One line a hundred steps goes to `log` and as JSON to `out/log.jsonl`. Beside the checkpoint lies
    `weights.pt`, the averaged network alone at half precision, which is all that export needs. The same seed gives the
    same run on one machine where `minutes` does not end it.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    cv2.setNumThreads(0)
    kind = torch.device(device).type
    torch.backends.cudnn.benchmark = True  # all batches are of one size
    model = build(recipe.network, backbone_weights).to(device, memory_format=torch.channels_last)
    sampler = CropSampler(sets, recipe.crop_px, recipe.seed, inversion=recipe.inversion, variation=recipe.variation,
                          semantics_stride=model.semantics_stride if recipe.semantics else 0,
                          known_true=recipe.known_true, known_wrong=recipe.known_wrong, elsewhere=recipe.elsewhere,
                          device=device)
    if recipe.only_trust and (start is None or not isinstance(model, YoloCompact) or not sampler.semantics_stride):
        raise ThermalReidError("trust in labellings is trained alone of a yolo_compact that has learned the rest, on "
                               "sets with labellings: give --start and frames in SET/images/thermal")
    if start is not None and not path.exists():
        begun_with, told, steps = load_checkpoint(start)
        if told["network"] != recipe.network:
            raise ThermalReidError(f"{start}: holds {told['network']}, not {recipe.network}")
        model.load_state_dict(begun_with.state_dict())
        # Crops around objects are not what whole frames are, from which a restored network has its statistics.
        if not recipe.only_trust:
            renormalise(model.eval(),
                        [partial(_shown, model, sampler, _BEFORE + k, recipe.batch) for k in range(_SHOWN)])
        log(f"begun with the weights of {start}, {steps} steps")
    averaged = Averaged(model, recipe.ema)
    pretrained = []
    if recipe.only_trust:
        model.requires_grad_(False)
        for part in (model.labelling.ground, model.labelling.trust):
            part.requires_grad_(True)
    elif (backbone_weights is not None or start is not None) and isinstance(model, YoloCompact):
        for block in model.backbone.features[: recipe.frozen_blocks]:
            block.requires_grad_(False)
        pretrained = [p for p in model.backbone.parameters() if p.requires_grad]
    known = {id(p) for p in pretrained}
    fresh = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = scaled(((fresh, 1.0), (pretrained, recipe.backbone_rate)), recipe.weight_decay)
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, betas=(0.9, 0.999),
                                  fused=kind == "cuda")
    step, seconds = 0, 0.0
    if path.exists():
        free = {"steps": 0, "minutes": None}
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            ours, theirs = asdict(recipe) | free, state["recipe"] | free
            if ours == theirs:
                model.load_state_dict(state["model"])
                averaged.model.load_state_dict(state["averaged"])
                optimiser.load_state_dict(state["optimiser"])
                step, seconds = state["step"], state["seconds"]
        except Exception as error:  # zip's, pickle's and torch's own errors share no base class
            raise ThermalReidError(f"{path}: no checkpoint of this training ({first_line(error)}); choose another "
                                   "--out") from None
        if ours != theirs:
            changed = ", ".join(k for k in ours if ours[k] != theirs.get(k))
            raise ThermalReidError(f"{path}: made with another recipe ({changed} differ); choose another --out")
        log(f"resumed at step {step} of {recipe.steps}")

    if not isinstance(model, YoloCompact):
        anchors = torch.tensor(model.anchors, dtype=torch.float32, device=device)
    sums: dict[str, torch.Tensor] = {}
    begun, logged = time.monotonic() - seconds, step
    saved = time.monotonic()
    model.train(not recipe.only_trust)  # which has no normalisation of its own
    ends = recipe.progress(step, seconds) >= 1.0
    while not ends:
        progress = recipe.progress(step, time.monotonic() - begun)
        rate = warm_cosine(step, recipe.warmup, progress)
        set_rate(optimiser, recipe.learning_rate * rate)
        crops = sampler(step, recipe.batch)
        thermal = crops.thermal.contiguous(memory_format=torch.channels_last)
        if isinstance(model, YoloCompact):
            with torch.autocast(kind, torch.bfloat16):
                output, ground, trust = model.judging(thermal, crops.semantics)
            terms = {"loss": 0.0} if recipe.only_trust else compact_loss(
                output, crops.boxes, crops.labels, stride=model.stride, trained_classes=crops.trained)
            if trust is not None:
                terms |= trust_loss(ground, trust, crops.semantics, crops.ground, classes=model.semantic_classes)
                terms["loss"] = terms["loss"] + terms["ground_loss"] + terms["trust_loss"]
        else:
            with torch.autocast(kind, torch.bfloat16):
                output = model(thermal, crops.semantics)
            terms = semantic_loss(output, crops.boxes, crops.labels, strides=model.strides, anchors=anchors,
                                  trained_classes=crops.trained)
        optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        averaged.update(step)
        step += 1
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + value.detach()
        ends = recipe.progress(step, time.monotonic() - begun) >= 1.0
        if step % 100 == 0 or ends:
            line = {k: round(float(v) / (step - logged), 4) for k, v in sums.items()}  # waits for the accelerator
            seconds = time.monotonic() - begun
            sums, logged = {}, step
            left = seconds * (1 / recipe.progress(step, seconds) - 1)
            log(f"step {step}/{recipe.steps}  {line}  {recipe.batch * step / seconds:.1f} crops/s  "
                f"{left / 60:.1f} min left")
            with (out / "log.jsonl").open("a") as f:
                f.write(json.dumps({"step": step, "seconds": round(seconds), **line}) + "\n")
        if ends or time.monotonic() - saved > checkpoint_every_s:
            _save(path, recipe, model, averaged.model, optimiser, step, time.monotonic() - begun)
            saved = time.monotonic()
    return path


def _shown(model: torch.nn.Module, sampler: CropSampler, step: int, batch: int) -> None:
    crops = sampler(step, batch)
    model(crops.thermal, crops.semantics)


def _save(path: Path, recipe: DetectionRecipe, model, averaged, optimiser, step: int, seconds: float) -> None:
    facts = {"recipe": asdict(recipe), "step": step, "seconds": seconds}
    weights = {k: v.half() if v.dtype == torch.float32 and v.numel() >= _HALVED_FROM and v.ndim > 1 else v
               for k, v in averaged.state_dict().items()}
    for target, content in ((path, {"model": model.state_dict(), "averaged": averaged.state_dict(),
                                    "optimiser": optimiser.state_dict()}),
                            (path.with_name("weights.pt"), {"averaged": weights})):
        write_state(facts | content, target)


def load_checkpoint(path: Path) -> tuple[torch.nn.Module, dict, int]:
    """The averaged network of a checkpoint or of weights.pt, its recipe, and the steps it was trained for."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = build(state["recipe"]["network"])
        model.load_state_dict(state["averaged"])
    except Exception as error:  # zip's, pickle's and torch's own errors share no base class
        raise ThermalReidError(f"{path}: no checkpoint of this version ({first_line(error)})") from None
    return model.eval(), state["recipe"], state["step"]
