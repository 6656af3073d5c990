"""Plots and pictures as files that are whole or absent; ThermalReidError where they cannot be written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from thermalreid_ros.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_plot(path: Path, figure: Figure, dpi: int) -> None:
    """As a PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    write_atomically(path, drawn.getvalue())


def save_picture(path: Path, picture: np.ndarray) -> None:
    """uint8 (H, W) or (H, W, 3) BGR, as its suffix says."""
    write_atomically(path, cv2.imencode(path.suffix, picture)[1].tobytes())
