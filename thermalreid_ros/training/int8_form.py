"""The inputs from which a model's int8 form takes its ranges: frames, prepared as the nodes prepare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.engine import load_engine
from thermalreid_ros.engine.int8 import Recorder, write_int8_form
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import grey_frame
from thermalreid_ros.evaluation.segmentation import read_frame, read_mask
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.training.folders import short, spread


def quantise(model: Path, folders: Sequence[Path], frames: int, command: str) -> Path:
    """Write the int8 form of a detector or segmenter from `frames` of each folder, evenly spread; returns its path.

    Where a folder is SET/images/thermal every other frame is given to a detector with its labelling (SET/masks/
    semantic). Raises ThermalReidError for other models and for folders without frames.
    """
    engine = Recorder(load_engine(model, providers=("cpu",)))
    task = engine.card.task
    if task not in ("detection", "segmentation"):
        raise ThermalReidError(f"{model}: a model for {task}; detectors and segmenters have int8 forms")
    used = []
    for folder in folders:
        paths = spread(folder, frames)
        used.append(f"{len(paths)} of {short(folder)}")
        for number, path in enumerate(paths):
            if task == "segmentation":
                Segmenter(engine).segment(read_frame(path))
            else:
                Detector(engine).detect(grey_frame(path, {}), _labels(path) if number % 2 else None)
    engine.close()
    note: dict[str, Any] = {"ranges_from": f"frames: {', '.join(used)}", "command": command}
    return write_int8_form(model, engine.feeds, note)


def _labels(frame: Path) -> np.ndarray | None:
    mask = frame.parent.parent.parent / "masks" / "semantic" / f"{frame.stem}.png"
    return read_mask(mask) if mask.is_file() else None
