"""Shared memory that outlived its owner, and whether there is enough.

Each participant of Fast DDS, and so each process with a node, sends through segments of its own: files
`/dev/shm/fastrtps_<16 hex digits>` (`fastdds_...` since its version 3), 9.5 MB of memory with the shipped profile. An
orderly end removes them. A process that is killed (SIGKILL, a crash, the out-of-memory killer) leaves them, and only
those that a peer reads from are removed by it. Beside each segment lies `<segment>_el`, on which its owner holds an
exclusive flock while it lives: this, as in `fastdds shm clean`, tells whether it is still owned. Of ports
(`fastrtps_port7412`, 52 kB) there are only so many, and Fast DDS takes those of the dead over: they are left alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
#: Age from which a segment is looked at, in seconds: between the making of its lock file and the flock on it, one that
#: is being made looks abandoned.
SETTLED_S = 5.0
BYTES_A_PROCESS = 9_500_000  # with the shipped profile
PROCESSES = 6  # of a flight: four nodes, and one each that brings the frames and that listens
_SEGMENT = re.compile(r"(fast(?:rtps|dds)_[0-9a-f]{16})(_el)?")


def remove_abandoned(*, settled_s: float = SETTLED_S, folder: Path = FOLDER) -> int:
    """Remove the segments without a living owner, whichever program's they were; the number of bytes set free.

    Segments in use are left alone, as are those of other users that may not be removed. Never raises: where there is
    no such folder, nothing is done.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    freed = 0
    for segment in {found[1] for name in names if (found := _SEGMENT.fullmatch(name))}:
        with suppress(OSError):  # its owner removed it meanwhile, another user's, owned
            freed += _remove(folder / segment, settled_s)
    return freed


def lack_of_room(folder: Path = FOLDER) -> str:
    """Why a process, or the others of a flight, will find too little shared memory, and what to do; or ""."""
    try:
        state = os.statvfs(folder)
    except OSError:  # no such folder
        return ""
    if min(state.f_bavail, state.f_blocks // PROCESSES) * state.f_frsize >= BYTES_A_PROCESS:
        return ""
    free_mb, size_mb = (blocks * state.f_frsize / 1e6 for blocks in (state.f_bavail, state.f_blocks))
    return (f"{folder} has {free_mb:.0f} of {size_mb:.0f} MB free: each of a flight's {PROCESSES} processes needs "
            f"{BYTES_A_PROCESS / 1e6} MB, or frames get lost; start the container with --shm-size=256m, or make room")


def _remove(segment: Path, settled_s: float) -> int:
    """Remove a segment and its lock file; the bytes set free. Raises BlockingIOError where it is owned."""
    lock = segment.with_name(f"{segment.name}_el")
    has_lock = lock.exists()
    if time.time() - (lock if has_lock else segment).stat().st_mtime < settled_s:
        return 0
    if not has_lock:  # made before its segment and removed after it, so there is no owner
        return _unlink(segment)
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = _unlink(segment) if segment.exists() else 0
        lock.unlink()
    finally:
        os.close(descriptor)
    return freed


def _unlink(path: Path) -> int:
    size = path.stat().st_blocks * 512
    path.unlink()
    return size
