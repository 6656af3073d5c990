"""What made thermal pictures are worth, against the thermal pictures of the same views (`thermalreid world pairs`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.crops import STORED_MARGIN, square_crop
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import NPZ_FAULTS
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer, SynthesisError

RELATIVE_K = 10.0  # relative temperatures are clipped to it, as the paper's are


def evaluate_synthesis(synthesizer: ProbeSynthesizer, folders: Sequence[Path],
                       progress: Callable = lambda items, **_: items) -> dict[str, Any]:
    """Of the likeliest probe of each photograph, at the photograph's hour and at another, within the true mask: errors
    of the object's mean temperature, RMSE of the temperature relative to it, and SSIM of that over the whole square.

    Raises ThermalReidError where a folder holds no pairs or a damaged file.
    """
    found: dict[str, list[tuple[int, float, float, float]]] = {"first": [], "second": []}
    refused = 0
    paths = [path for folder in folders for path in sessions(folder)]
    for path in progress(paths, description=f"synthesis, {synthesizer.engine.card.name}", unit="session"):
        try:
            with np.load(path) as stored:
                columns = {name: stored[name] for name in ("label", "colour", "mask", "near_first", "near_second",
                                                           "first", "second")}
        except NPZ_FAULTS as error:
            raise ThermalReidError(f"{path}: damaged ({error}); remove it and make it again") from None
        for number, label in enumerate(columns["label"]):
            for when, rows in found.items():
                try:
                    rows.append((int(label), *_compare(synthesizer, columns, number, when)))
                except SynthesisError:
                    refused += 1
    if not found["first"]:
        raise ThermalReidError(f"{', '.join(map(str, folders))}: of no photograph in it a probe can be made")
    figures: dict[str, Any] = {"pairs": len(found["first"]), "refused": refused}
    for when, rows in found.items():
        table = np.array(rows)
        error = np.abs(table[:, 1])
        figures[when] = {
            "mean_median_k": round(float(np.median(error)), 3), "mean_mae_k": round(float(error.mean()), 3),
            "relative_rmse_k": round(float(np.sqrt((table[:, 2] ** 2).mean())), 3),
            "ssim": round(float(table[:, 3].mean()), 4),
            "mean_median_k_by_class": {CLASS_NAMES[int(label)]: round(float(np.median(error[table[:, 0] == label])), 3)
                                       for label in np.unique(table[:, 0])}}
    return figures


def structural_similarity(first: np.ndarray, second: np.ndarray, span: float) -> float:
    """Mean SSIM (Wang et al. 2004; Gaussian window of 1.5 px) of two float pictures whose values span so much."""
    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)

    first, second = first.astype(np.float64), second.astype(np.float64)
    a, b = mean(first), mean(second)
    var_a, var_b, covariance = mean(first**2) - a * a, mean(second**2) - b * b, mean(first * second) - a * b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return float((((2 * a * b + c1) * (2 * covariance + c2)) / ((a * a + b * b + c1) * (var_a + var_b + c2))).mean())


def sessions(folder: Path) -> list[Path]:
    """The files of a set of pairs. ThermalReidError where there are none."""
    paths = sorted((folder / "sessions").glob("*.npz"))
    if not paths:
        raise ThermalReidError(f"{folder}: no pairs in it; make some with `thermalreid world pairs`")
    return paths


def _compare(synthesizer: ProbeSynthesizer, columns: dict[str, np.ndarray], number: int,
             when: str) -> tuple[float, float, float]:
    """(error of the mean, RMSE of the rest, SSIM) of one photograph."""
    hour, air_c, cloud, sine = map(float, columns[when][:4])
    conditions = Conditions(hour, air_c, cloud, float(np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))))
    colour = columns["colour"][number]
    side = colour.shape[0]
    box = (side * (0.5 - 0.5 / STORED_MARGIN),) * 2 + (side * (0.5 + 0.5 / STORED_MARGIN),) * 2
    made = synthesizer.synthesize(colour, conditions, box=box, count=1,
                                  class_name=CLASS_NAMES[int(columns["label"][number])]).squares[0]
    truth = square_crop(columns[f"near_{when}"][number].astype(np.float32) * 0.01 - 273.15, box, len(made))
    mask = square_crop(columns["mask"][number].astype(np.uint8), box, len(made), interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        raise SynthesisError("the mask is empty")
    relative = [np.clip(part - part[mask].mean(), -RELATIVE_K, RELATIVE_K) for part in (made, truth)]
    difference = relative[0] - relative[1]
    return (float(made[mask].mean() - truth[mask].mean()), float(np.sqrt((difference[mask] ** 2).mean())),
            structural_similarity(*relative, 2 * RELATIVE_K))
