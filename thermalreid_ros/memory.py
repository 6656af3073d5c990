"""The C library's memory: by default it gives large buffers back at once, and maps and zeroes them anew each time."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # malloc.h


def tune_malloc(options: dict[int, int]) -> None:
    """Set options of glibc's malloc for this process, in their order; does nothing where there is no glibc."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, value in options.items():
            mallopt(option, value)
