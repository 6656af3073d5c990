"""The distance between labellings: a MobileNetV2 that turns them into unit vectors, learnt from maps alone.

Both branches are the same network (Siamese); a view and the tile around it are drawn together, other tiles of the batch
pushed away, most of which lie near it on the same map.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING
from thermalreid_ros.training.detection import keep_freed_memory
from thermalreid_ros.training.mobilenet import MobileNetV2
from thermalreid_ros.training.tile_views import PLACE_STEP_M, MapAtlas, ViewRecipe, ViewSampler
from thermalreid_ros.training.weights import Averaged, decayed, whole, write_state

RADII_M = (300.0, 800.0)  # of the rough position, at which recall is measured
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.pt"
_VALIDATION_BATCH = 10**9  # numbers that no training reaches
_CHUNK = 256
_LOG_S, _CHECKPOINT_S = 10.0, 60.0


@dataclass(frozen=True)
class TileRecipe:
    """Everything that decides the result besides the maps and the time."""

    batch: int = 512  # places, each a tile and a view
    group: int = 64  # places of a batch that lie near each other
    width: float = 0.5
    dimension: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    ema: float = 0.999
    warmup: float = 0.03  # share of the time
    seed: int = 1
    views: ViewRecipe = field(default_factory=ViewRecipe)


class TileDescriptor(nn.Module):
    """Labels uint8 (N, 128, 128) to unit vectors (N, dimension).

    One channel a class; what is not seen is 0 in all of them. Where things lie matters, so that the 4 x 4 cells of the
    last features are read together instead of averaged.
    """

    def __init__(self, width: float = 0.5, dimension: int = 64):
        super().__init__()
        self.backbone = MobileNetV2(CLASS_COUNT, width, fixed_statistics=False)
        channels, cells = self.backbone.channels[-1], LOCALIZATION_TILING.size_px // 32
        self.reduce = nn.Sequential(nn.Conv2d(channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6(inplace=True))
        self.head = nn.Linear(64 * cells * cells, dimension)
        self.register_buffer("classes", torch.arange(CLASS_COUNT, dtype=torch.int32)[None, :, None, None],
                             persistent=False)

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        planes = (labels.int()[:, None] == self.classes).float()
        return F.normalize(self.head(self.reduce(self.backbone(planes)[-1]).flatten(1)).float(), dim=1)


def contrastive_loss(tiles: torch.Tensor, views: torch.Tensor, near: torch.Tensor,
                     sharpness: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, share of views whose own tile is the closest of the batch). InfoNCE both ways (van den Oord et al. 2018).

    tiles, views: unit vectors (B, D), row i belongs to row i. near: bool (B, B), pairs that are not told apart.
    """
    logits = (sharpness * views @ tiles.T).masked_fill(near, -math.inf)
    own = torch.arange(len(tiles), device=tiles.device)
    loss = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
    return loss, (logits.detach().argmax(1) == own).float().mean()


def train(recipe: TileRecipe, maps: list[Path], out: Path, *, minutes: float, device: str = "cpu",
          queries: int = 2048, log: Callable[[str], object] = print) -> Path:
    """Train for so many minutes in all, resuming from `out/checkpoint.pt`; returns `out/weights.pt`.

    The learning rate falls with the share of the time that has passed. weights.pt holds the averaged network as
    float16 and, at the end, recall on the part of each map that was held out (queries: views for that, 0 for none).
    A checkpoint of another recipe or other maps is refused; minutes may change. Both files are written every minute,
    and on Ctrl-C.
    """
    out.mkdir(parents=True, exist_ok=True)
    if recipe.batch % recipe.group:
        raise ThermalReidError(f"a batch of {recipe.batch} places is no whole number of groups of {recipe.group}")
    path = out / CHECKPOINT
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    atlas = MapAtlas(maps, device)
    log(f"{len(maps)} maps, {len(atlas.places)} places, {int(atlas.usable.sum())} to learn from, "
        f"{int(atlas.held_out.sum())} held out")
    run = _Run(recipe, atlas, device)
    if path.exists():
        log(run.resume(path))
    sampler = ViewSampler(atlas, recipe.views, recipe.seed, recipe.group)
    limit_s = 60.0 * minutes
    begun = time.monotonic() - run.seconds
    logged_step, logged_s, saved_s = run.step, run.seconds, run.seconds
    sums = torch.zeros(2, device=device)
    try:
        while (seconds := time.monotonic() - begun) < limit_s:
            sums += run.update(sampler.batch(run.step, recipe.batch // recipe.group), seconds / limit_s)
            run.seconds = time.monotonic() - begun
            if run.seconds - logged_s >= _LOG_S or run.step == 1:
                loss, closest = (sums / (run.step - logged_step)).tolist()
                run.seconds = time.monotonic() - begun  # the device has caught up
                rate = recipe.batch * (run.step - logged_step) / (run.seconds - logged_s)
                line = {"step": run.step, "seconds": round(run.seconds), "loss": round(loss, 4),
                        "own_tile_closest": round(closest, 4), "places_per_s": round(rate)}
                log(f"{line}  {(limit_s - run.seconds) / 60:.1f} min left")
                with (out / "log.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                logged_step, logged_s = run.step, run.seconds
                sums.zero_()
            if run.seconds - saved_s >= _CHECKPOINT_S:
                run.save(out)
                saved_s = run.seconds
    finally:
        run.save(out)
    if queries:
        metrics = validate(run.averaged.model, sampler, queries)
        log(json.dumps(metrics))
        run.save_weights(out, metrics)
    return out / WEIGHTS


class _Run:
    """What training changes, and how it is kept."""

    def __init__(self, recipe: TileRecipe, atlas: MapAtlas, device: str):
        self.recipe, self.device, self.maps = recipe, device, list(atlas.names)
        self.model = TileDescriptor(recipe.width, recipe.dimension).to(device, memory_format=torch.channels_last)
        self.averaged = Averaged(self.model, recipe.ema)
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0), device=device))
        self.optimiser = torch.optim.AdamW(
            decayed([*self.model.parameters(), self.sharpness], recipe.weight_decay), lr=recipe.learning_rate,
            fused=device != "cpu")
        self.step, self.seconds = 0, 0.0
        self.model.train()

    def update(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], progress: float) -> torch.Tensor:
        """One step; (loss, share of views closest to their own tile) on the device."""
        tiles, views, near = batch
        rate = min(1.0, 0.01 + progress / self.recipe.warmup) * 0.5 * (1.01 + 0.99 * math.cos(math.pi * progress))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * rate
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device != "cpu"):
            descriptors = self.model(torch.cat([tiles, views]))
        loss, closest = contrastive_loss(*descriptors.chunk(2), near, self.sharpness.exp().clamp(max=60.0))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        return torch.stack([loss.detach(), closest])

    def save(self, out: Path) -> None:
        self.save_weights(out, {})
        write_state({"recipe": asdict(self.recipe), "maps": self.maps, "model": self.model.state_dict(),
                     "averaged": self.averaged.model.state_dict(), "sharpness": self.sharpness.detach(),
                     "optimiser": self.optimiser.state_dict(), "step": self.step, "seconds": self.seconds},
                    out / CHECKPOINT)

    def save_weights(self, out: Path, metrics: dict) -> None:
        state = {key: value.half() if value.is_floating_point() else value
                 for key, value in self.averaged.model.state_dict().items()}
        write_state({"recipe": asdict(self.recipe), "maps": self.maps, "model": state, "step": self.step,
                     "seconds": self.seconds, "metrics": metrics}, out / WEIGHTS)

    def resume(self, path: Path) -> str:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            ours, theirs = {**asdict(self.recipe), "maps": self.maps}, {**state["recipe"], "maps": state["maps"]}
            if ours != theirs:
                changed = ", ".join(key for key in ours if ours[key] != theirs.get(key))
                raise ThermalReidError(f"{path}: made with another recipe ({changed} differ); choose another --out")
            self.model.load_state_dict(state["model"])
            self.averaged.model.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            with torch.no_grad():
                self.sharpness.copy_(state["sharpness"])
            self.step, self.seconds = state["step"], state["seconds"]
        except ThermalReidError:
            raise
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise ThermalReidError(f"{path}: no whole checkpoint of this version ({first_line(error)}); choose another "
                                   "--out") from None
        return f"resumed at step {self.step}, after {self.seconds / 60:.1f} min"


def load_weights(path: Path) -> tuple[TileDescriptor, dict[str, Any]]:
    """The network of a weights.pt, ready to be used, and what else is in the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = TileDescriptor(state["recipe"]["width"], state["recipe"]["dimension"])
        model.load_state_dict(whole(state.pop("model")))
    except Exception as error:  # as above
        raise ThermalReidError(f"{path}: no weights of a tile distance ({first_line(error)})") from None
    return model.eval(), state


@torch.no_grad()
def validate(model: TileDescriptor, sampler: ViewSampler, queries: int, radii_m: tuple[float, ...] = RADII_M,
             seed: int = 0) -> dict[str, dict[str, float]]:
    """How often the right tile is found, for views of places in the held-out quarters, by the radius of the search.

    The rough position is evenly drawn from the disc of that radius around the truth; searched are all tiles within it,
    wherever they lie. Right is a tile whose centre is within one step (32 m) of the view's middle. Keys of each
    radius: recall1, recall5 (right tile first, among the first five), median_m (of the first), tiles (searched).
    """
    atlas, model = sampler.atlas, model.eval()
    rng = np.random.default_rng(seed)
    held_out = torch.nonzero(atlas.held_out).squeeze(1)
    chosen = held_out[torch.from_numpy(rng.integers(len(held_out), size=queries)).to(atlas.device)]
    maps = atlas.place_maps[chosen]
    jitter = torch.from_numpy(rng.uniform(-0.5, 0.5, (queries, 2)).astype(np.float32) * PLACE_STEP_M)
    points = atlas.places[chosen] + jitter.to(atlas.device)
    views = []
    for number, part in enumerate(torch.arange(queries, device=atlas.device).split(_CHUNK)):
        chance = sampler.seed(_VALIDATION_BATCH + number)
        views.append(model(sampler.views(maps[part], points[part], None, 0.0, chance)))
    views = torch.cat(views)
    results = {radius_m: [] for radius_m in radii_m}
    for number, centres in enumerate(atlas.tile_centres):
        mine = torch.nonzero(maps == number).squeeze(1)
        if not len(mine):
            continue
        reach = 2 * max(radii_m)
        low, high = points[mine].amin(0) - reach, points[mine].amax(0) + reach
        centres = centres[((centres >= low) & (centres <= high)).all(1)]
        own = torch.full((len(centres),), number, device=atlas.device)
        tiles = torch.cat([model(sampler.tiles(own[part], centres[part]))
                           for part in torch.arange(len(centres), device=atlas.device).split(_CHUNK)])
        right = torch.cdist(points[mine], centres, compute_mode="donot_use_mm_for_euclid_dist")
        similarity = views[mine] @ tiles.T
        for radius_m in radii_m:
            turn, away = rng.uniform(0, 2 * np.pi, len(mine)), radius_m * np.sqrt(rng.uniform(0, 1, len(mine)))
            prior = points[mine] + torch.from_numpy(np.column_stack([np.cos(turn), np.sin(turn)]) * away[:, None]).to(
                points)
            inside = torch.cdist(prior, centres, compute_mode="donot_use_mm_for_euclid_dist") <= radius_m
            order = similarity.masked_fill(~inside, -2.0).topk(5, 1).indices
            error = right.gather(1, order)
            results[radius_m].append(torch.stack([error[:, 0], error.amin(1), inside.sum(1)], 1))
    summary = {}
    for radius_m, rows in results.items():
        first, best, tiles = torch.cat(rows).cpu().numpy().T
        step_m = LOCALIZATION_TILING.step_m
        summary[f"{radius_m:g}"] = {"recall1": float((first <= step_m).mean()),
                                    "recall5": float((best <= step_m).mean()), "median_m": float(np.median(first)),
                                    "tiles": float(tiles.mean())}
    return summary
