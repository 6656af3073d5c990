"""The calibrated weight of Eq. (1), as `thermalreid reid calibrate` writes it."""

from __future__ import annotations

from pathlib import Path

import yaml

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import shipped

FILE_NAME = "reid_calibration.yaml"


def load_beta_h(path: str | Path | None = None) -> float:
    """beta_h of a calibration file, by default the shipped one.

    Raises ThermalReidError when the file is missing or unreadable, or beta_h is no number in [0, 1].
    """
    path = Path(path) if path else shipped("config") / FILE_NAME
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ThermalReidError(f"{path}: the calibration cannot be read ({error.strerror}); "
                               f"make one with `thermalreid reid calibrate`") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ThermalReidError(f"{path}: this is no YAML; "
                               f"make it anew with `thermalreid reid calibrate`") from None
    beta_h = content.get("beta_h") if isinstance(content, dict) else None
    if isinstance(beta_h, bool) or not isinstance(beta_h, (int, float)) or not 0.0 <= beta_h <= 1.0:
        raise ThermalReidError(f"{path}: beta_h is {beta_h!r}, not a number from 0 to 1; "
                               f"make the file anew with `thermalreid reid calibrate`")
    return float(beta_h)
