"""Frames out of folders, evenly spread: to measure an export on, or to take ranges from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from thermalreid_ros.errors import ThermalReidError

SUFFIXES = (".jpg", ".png", ".webp")


def spread(folder: Path, count: int) -> list[Path]:
    """At most so many of the folder's frames, by name. Raises ThermalReidError where there are none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not paths:
        raise ThermalReidError(f"{folder}: no frames ({', '.join(SUFFIXES)})")
    return [paths[k] for k in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]


def short(folder: Path) -> str:
    """A folder of frames as it is called in commands: the set and what is in it."""
    parts = folder.absolute().parts
    return "/".join(parts[-3:] if parts[-2] == "images" else parts[-2:])
