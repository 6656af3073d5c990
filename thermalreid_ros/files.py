"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import os
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path

from thermalreid_ros.errors import ThermalReidError

#: What numpy raises for an .npz file that is cut or damaged.
NPZ_FAULTS = (OSError, ValueError, KeyError, EOFError, NotImplementedError, tokenize.TokenError, zlib.error,
              zipfile.BadZipFile)


def write_atomically(path: str | Path, content: str | bytes, *, through: bool = True) -> Path:
    """Write content (text as UTF-8) to path; a reader sees the old file or the whole new one, never a part.

    through: a link stays, and a pipe or device is written into; else, as in folders of everybody, they are replaced.
    Raises ThermalReidError, naming the path, where it cannot be written.
    """
    path = Path(path)
    place = Path(os.path.realpath(path)) if through else path
    data = content.encode() if isinstance(content, str) else content
    try:
        if through and path.exists() and not path.is_file():
            path.write_bytes(data)
            return path
        descriptor, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    except OSError as error:
        raise ThermalReidError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~umask())  # mkstemp makes files private
        os.replace(temporary, place)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise ThermalReidError(f"{path}: cannot be written ({error.strerror})") from None
        raise
    return path


def cache_home() -> Path:
    """The project's cache, which may not exist yet: $XDG_CACHE_HOME/thermalreid or ~/.cache/thermalreid."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thermalreid"


def shipped(name: str) -> Path:
    """A folder that the package ships (config, launch, models, msg): that of a source checkout, else that in
    share/thermalreid_ros of the prefix it is installed in. ThermalReidError where there is neither."""
    for parent in Path(__file__).parents:
        if (parent / "package.xml").is_file() and (parent / name).is_dir():
            return parent / name
        if (installed := parent / "share" / "thermalreid_ros" / name).is_dir():
            return installed
    raise ThermalReidError(f"the package's {name} folder is missing; install thermalreid_ros again")


def umask() -> int:
    """Of this process; reading it means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
