"""Figures in words."""

from __future__ import annotations

from typing import Any


def as_text(value: Any, unknown: str = "-") -> str:
    """A cell of a table: floats to three significant digits, whole from 100 on; None as `unknown`."""
    if value is None:
        return unknown
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
