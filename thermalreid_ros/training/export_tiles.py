"""The tile distance to ONNX, with its card; parity with torch is measured on tiles and views of a map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from thermalreid_ros.engine import load_engine
from thermalreid_ros.maps.classes import CLASS_NAMES
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING
from thermalreid_ros.training.onnx_file import export_onnx
from thermalreid_ros.training.tile_distance import TileDescriptor, load_weights
from thermalreid_ros.training.tile_views import MapAtlas, ViewRecipe, ViewSampler

MAX_DIFFERENCE = 1e-3  # of any number of a unit vector
_PARITY_PLACES = 32


def export_tile_distance(weights: Path, out: Path, *, map_path: Path, data: str, licence: str, command: str,
                         int8: bool = False) -> float:
    """Write out (.onnx) and its card from a weights.pt; returns the largest difference from torch over tiles of a map
    and views of them. int8: store the large weights so.

    Raises ThermalReidError, and leaves no file, where the difference exceeds MAX_DIFFERENCE.
    """
    model, state = load_weights(weights)
    labels = _labels(map_path)
    size, recipe = LOCALIZATION_TILING.size_px, state["recipe"]
    card = {
        "task": "tile distance",
        "architecture": f"MobileNetV2, width {recipe['width']:g}, its last 4 x 4 cells read together",
        "inputs": [{"name": "labels", "shape": ["count", size, size], "dtype": "uint8", "layout": "NHW",
                    "typical_shape": [1, size, size],
                    "channels": ["index into classes, 255 where not seen; north up, 1 m/px"]}],
        "outputs": [{"name": "descriptor", "shape": ["count", recipe["dimension"]],
                     "meaning": "unit vector; distance = 1 - dot product"}],
        "classes": list(CLASS_NAMES),
        "training": {"data": data, "licence": licence, "command": command, "seed": recipe["seed"],
                     "steps": state["step"], "images_seen": 2 * state["step"] * recipe["batch"],
                     "minutes": round(state["seconds"] / 60, 1), "recipe": _plain(recipe)},
        "metrics": _metrics(state["metrics"], state["maps"], command),
    }
    return export_onnx(
        model, out, arguments=(torch.zeros(2, size, size, dtype=torch.uint8),), card=card, limit=MAX_DIFFERENCE,
        int8=int8,
        compare=lambda module, onnx: {"max_abs_difference": parity(module, onnx, labels)},
        compared_on=f"{len(labels)} tiles and views of {map_path.name}")["max_abs_difference"]


def parity(model: TileDescriptor, onnx: Path, labels: np.ndarray) -> float:
    """Largest absolute difference of any number of the descriptors, torch against ONNX Runtime on the CPU."""
    found = load_engine(onnx, providers=("cpu",)).run({"labels": labels})["descriptor"]
    with torch.no_grad():
        return float(np.abs(model(torch.from_numpy(labels)).numpy() - found).max())


def _labels(map_path: Path) -> np.ndarray:
    sampler = ViewSampler(MapAtlas([map_path], "cpu"), ViewRecipe(), seed=0, group=_PARITY_PLACES)
    tiles, views, _ = sampler.batch(0, 1)
    return torch.cat([tiles, views]).numpy()


def _metrics(metrics: dict, maps: list[str], command: str) -> list[dict]:
    data = f"views of the eastern quarters of {', '.join(maps)}, not trained on, with errors as in training"
    return [{"name": f"recall@{rank} within {radius_m} m", "value": round(values[f"recall{rank}"], 4), "data": data,
             "command": command, "tiles": round(values["tiles"])} for radius_m, values in metrics.items()
            for rank in (1, 5)]


def _plain(value):
    """The same without tuples, which YAML would write as objects of Python."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, (tuple, list)) else value
