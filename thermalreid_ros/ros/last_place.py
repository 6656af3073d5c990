"""The last place of a localization, kept beside the process: a node that died goes on where it was."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import write_atomically
from thermalreid_ros.localization.localizer import Handover

PERIOD_S = 1.0  # between two writes
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LastPlace:
    """A file in the user's runtime directory, one for each node and ROS domain; it ends with the machine's uptime.

    node: its full name. map_name: on whose grid places are. max_age_s: of what load() gives, by a steady clock.
    warn: told once where nothing can be kept, which harms nothing yet.
    """

    def __init__(self, node: str, map_name: str, max_age_s: float, warn: Callable[[str], object]):
        folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        domain = os.environ.get("ROS_DOMAIN_ID") or "0"
        name = node.strip("/").replace("/", "-")
        self.path = folder / f"thermalreid-{os.getuid()}-{domain}-{name}.json"
        self._map_name, self._max_age_s, self._warn = map_name, max_age_s, warn
        self._written, self._written_s = False, -PERIOD_S

    def keep(self, place: Handover | None) -> None:
        """Write it down, unless that was done just now; None: what this process wrote down holds no more."""
        now_s = time.monotonic()
        if place is None:
            if self._written:
                self._written, self._written_s = False, -PERIOD_S
                with suppress(OSError):  # whoever takes it up checks it
                    self.path.unlink()
            return
        if self._max_age_s <= 0.0 or now_s - self._written_s < PERIOD_S:
            return
        try:
            told = {"map": self._map_name, "boot": _boot(), "monotonic_s": now_s, "place": asdict(place)}
            write_atomically(self.path, json.dumps(told), through=False)
            self._written, self._written_s = True, now_s
        except (OSError, ThermalReidError) as error:
            self._max_age_s = 0.0
            self._warn(f"{error}: after a restart the place must be searched for")

    def load(self) -> Handover | None:
        """What was kept last, by this process or one before it; None where that is too old, of another map, or cannot
        be read: a start without it is but slower."""
        try:
            if self.path.stat().st_uid != os.getuid():  # the directory may be everybody's
                return None
            kept = json.loads(self.path.read_text())
            age_s = time.monotonic() - kept["monotonic_s"]
            if (kept["map"], kept["boot"]) != (self._map_name, _boot()) or not 0.0 <= age_s <= self._max_age_s:
                return None
            return Handover(**kept["place"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _boot() -> str:
    return BOOT_ID.read_text().strip()
