"""What a shared library of Linux needs, read from its file: to load one to find out would run what is in it."""

from __future__ import annotations

import struct
from pathlib import Path

_HEAD = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_LOADED, _DYNAMIC = 1, 2  # kinds of segments
_NEEDED, _NAMES, _NAMES_SIZE = 1, 5, 10  # tags of dynamic entries


def needed_libraries(path: Path) -> tuple[str, ...]:
    """The names of the libraries that a 64-bit little-endian ELF file is linked against, in their order; none for any
    other file, and for one that cannot be read. Source: System V Application Binary Interface, chapters 4 and 5."""
    try:
        with open(path, "rb") as file:
            def read(start: int, size: int) -> bytes:
                file.seek(start)
                if len(data := file.read(size)) != size:
                    raise ValueError("cut")
                return data

            head = _HEAD.unpack(read(0, _HEAD.size))
            if head[0][:6] != b"\x7fELF\x02\x01":
                return ()
            segments = [_SEGMENT.unpack(read(head[5] + number * head[9], _SEGMENT.size)) for number in range(head[10])]
            entries = [entry for kind, _, start, _, _, size, *_ in segments if kind == _DYNAMIC
                       for entry in _ENTRY.iter_unpack(read(start, size - size % _ENTRY.size))]
            values = dict(entries)
            names = next(read(start + values[_NAMES] - address, values[_NAMES_SIZE])
                         for kind, _, start, address, _, size, *_ in segments
                         if kind == _LOADED and address <= values[_NAMES] < address + size)
            return tuple(names[place:names.index(b"\0", place)].decode() for tag, place in entries if tag == _NEEDED)
    except (OSError, ValueError, KeyError, StopIteration, struct.error):
        return ()
