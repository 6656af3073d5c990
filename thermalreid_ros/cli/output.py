"""What commands write: JSON files, whole or absent, and tables on the terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thermalreid_ros.cli.arguments import output_file
from thermalreid_ros.evaluation.wording import as_text
from thermalreid_ros.files import write_atomically


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json FILE, refused before the work begins where the file could not be written."""
    parser.add_argument("--json", type=output_file, metavar="FILE",
                        help="write the results to this file too")


def write_json(path: str | Path | None, values: Any) -> None:
    """Write the results where --json asks for it; not at all for None. NaN and infinity become null."""
    if path is not None:
        write_atomically(path, json.dumps(_finite(values), indent=2) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns set flush, numbers to the right; floats to three significant digits, None as a dash."""
    cells = [list(header)] + [[as_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(isinstance(row[column], (int, float, type(None))) for row in rows)
             for column in range(len(header))]
    return "\n".join("  ".join(cell.rjust(width) if flush else cell.ljust(width)
                               for cell, width, flush in zip(row, widths, right, strict=True)).rstrip()
                     for row in cells)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # numpy's scalars
        value = value.item()
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
