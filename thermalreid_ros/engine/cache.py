"""Built TensorRT engines on disk: one folder for each EngineKey, whole or absent.

$XDG_CACHE_HOME/thermalreid/engines/NAME-DIGEST/ holds the engine, its context model and key.json. A folder
appears under its name only when it is complete; an engine for other conditions has another name and is never
reused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

from thermalreid_ros.engine.card import EngineError
from thermalreid_ros.engine.providers import EngineKey
from thermalreid_ros.files import cache_home, umask, write_atomically

_KEY_FILE = "key.json"
_LEFT_S = 86400.0  # no engine takes so long to build


@dataclass(frozen=True)
class CachedEngine:
    """One finished folder of the cache."""

    folder: Path
    key: EngineKey
    bytes: int


class EngineCache:
    def __init__(self, root: str | Path | None = None):
        self.root = Path(root) if root else cache_home() / "engines"

    @property
    def timing_cache(self) -> Path:
        """Folder of TensorRT's kernel timings, shared by all engines: it makes rebuilding faster."""
        return self.root / "timing"

    def find(self, key: EngineKey) -> Path | None:
        """The finished folder for exactly this key, or None; a folder whose key.json says otherwise is removed. Raises
        EngineError where another user's folder cannot be read."""
        folder = self.root / key.folder
        if not folder.is_dir():
            return None
        if not os.access(folder, os.R_OK | os.X_OK):
            raise EngineError(f"{folder}: built by another user, and not readable; make it so, or set XDG_CACHE_HOME "
                              "to a place of your own")
        if _read_key(folder) == key:
            return folder
        if (grave := self._take_away(folder)) is None:
            return None
        whole = _read_key(grave) == key  # another process finished it since it was looked at
        if whole:
            with suppress(OSError):  # and a third one has put its own there by now
                os.replace(grave, folder)
        shutil.rmtree(grave, ignore_errors=True)
        return folder if whole else None

    @contextmanager
    def building(self, key: EngineKey) -> Iterator[Path]:
        """A private folder to build in, moved to its name when the block succeeds, removed when it fails.

        Of two processes that build the same engine at once, the one that finishes later replaces the other's.
        """
        try:
            self.timing_cache.mkdir(parents=True, exist_ok=True)
            self._clear_leftovers()
            private = Path(tempfile.mkdtemp(prefix=f".building-{key.folder}-", dir=self.root))
        except OSError as error:
            raise EngineError(f"{self.root}: the engine cache cannot be written ({error.strerror}); "
                              f"set XDG_CACHE_HOME to a writable place") from None
        try:
            yield private
            write_atomically(private / _KEY_FILE, json.dumps(asdict(key), indent=1))
            private.chmod(0o777 & ~umask())  # mkdtemp's is for its owner alone
            final = self.root / key.folder
            self.discard(final)
            with suppress(OSError):  # another process put the same engine there a moment ago
                os.replace(private, final)
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """What processes that were killed left half built or half removed."""
        for folder in (*self.root.glob(".building-*"), *self.root.glob(".removed-*")):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def discard(self, folder: Path) -> None:
        """Remove an engine; it disappears from its name at once. One that another process removes is none the less
        gone."""
        if (grave := self._take_away(folder)) is not None:
            shutil.rmtree(grave, ignore_errors=True)

    def _take_away(self, folder: Path) -> Path | None:
        """The folder under another name, at once; None where it is gone."""
        if not folder.exists():
            return None
        grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
        try:
            os.replace(folder, grave)
        except FileNotFoundError:
            grave.rmdir()
            return None
        return grave

    def engines(self) -> tuple[CachedEngine, ...]:
        """All finished engines, by name."""
        found = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if not folder.name.startswith(".") and (key := _read_key(folder)):
                with suppress(FileNotFoundError):  # another process removes it just now
                    found.append(CachedEngine(folder, key, sum(file.stat().st_size for file in folder.iterdir())))
        return tuple(found)

    def discard_superseded(self, key: EngineKey) -> tuple[Path, ...]:
        """Remove engines that serve the same purpose, built from another file or by other versions. For a person who
        builds ahead of flight: two vehicles' nodes, each with a model of its own, would take each other's away."""
        purpose = attrgetter("model", "gpu", "precision", "shapes")
        old = tuple(engine.folder for engine in self.engines()
                    if engine.key != key and purpose(engine.key) == purpose(key))
        for folder in old:
            self.discard(folder)
        return old


def _read_key(folder: Path) -> EngineKey | None:
    try:
        return EngineKey(**json.loads((folder / _KEY_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
