"""The progress bar of long commands: on stderr, with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable[Any] | None = None, *, total: float | None = None, description: str = "",
             unit: str = "it", delay: float = 0.5, **options: Any) -> tqdm:
    """tqdm with the project's settings; a log instead of a terminal gets a line every ten seconds. Shown once a step
    has ended and `delay` seconds are over, so that what is refused at the first step leaves one line and no bar."""
    return tqdm(iterable, total=total, desc=description or None, unit=unit, file=sys.stderr,
                dynamic_ncols=True, delay=delay, mininterval=0.1 if sys.stderr.isatty() else 10.0, **options)
