"""Sets of `thermalreid world reid-set`, read to be measured on: photographs, and thermal pictures of other times."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.camera.thermal import ThermalFrame, ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.synthesis import Conditions, SynthesisError, load_photograph
from thermalreid_ros.world.weather import Weather

#: Sun's height of sets that do not tell their latitude (made before they did): a town of middle latitudes.
_ASSUMED_LATITUDE_DEG = 48.0


class DamagedPicture(ThermalReidError):
    """A file of a set that is not what the index says."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph or a thermal picture of an identity. identity, session: unique among all sets; pictures of
    one session share hour and weather. metres_per_pixel: at the object's distance. depression_deg: from above.
    length_m: longest side of the object at rest, NaN where the set does not tell it."""

    path: Path
    identity: str
    class_name: str
    session: str
    box: tuple[float, float, float, float]
    hour: float
    metres_per_pixel: float
    depression_deg: float
    conditions: Conditions
    length_m: float = math.nan

    @property
    def view(self) -> np.ndarray:
        """(4,), as fusion.view_features takes it."""
        pixel = self.metres_per_pixel
        return np.array([(self.box[2] - self.box[0]) * pixel, (self.box[3] - self.box[1]) * pixel, pixel,
                         np.radians(self.depression_deg)])

    def photograph(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB. SynthesisError where no probe can be made of it, DamagedPicture where it is none."""
        try:
            return load_photograph(self.path)
        except SynthesisError as error:
            if self._decoded() is None:
                raise DamagedPicture(str(error)) from None
            raise

    def _decoded(self) -> np.ndarray | None:
        try:
            return read_picture(self.path)
        except ThermalReidError:
            return None

    def thermal(self) -> ThermalFrame:
        """DamagedPicture where it is none."""
        pixels = self._decoded()
        if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint16:
            raise DamagedPicture(f"{self.path}: this is no 16-bit thermal picture; render the set again")
        return ThermalFrame(pixels, ThermalUnits.CENTIKELVIN, 0, "")


@dataclass(frozen=True)
class ReidSets:
    """photographs, gallery: of all sets, identities that have both alone."""

    names: tuple[str, ...]
    photographs: tuple[Picture, ...]
    gallery: tuple[Picture, ...]

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(sorted({picture.identity for picture in self.gallery}))


def read_sets(folders: Sequence[Path], most_photographs: int = 0) -> ReidSets:
    """Read the sets' indices; pictures are read later.

    most_photographs: of each identity, the first ones; 0 takes all. Raises ThermalReidError for a folder that is no
    finished set, one given twice, and where fewer than two identities have a photograph and a thermal picture.
    """
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise ThermalReidError("a set is given twice; give each once")
    photographs: list[Picture] = []
    gallery: list[Picture] = []
    for number, folder in enumerate(folders):
        index = _index(folder)
        photographs += _pictures(folder, number, index, "probes")
        gallery += _pictures(folder, number, index, "gallery")
    both = {p.identity for p in photographs} & {p.identity for p in gallery}
    if len(both) < 2:
        raise ThermalReidError(f"{', '.join(map(str, folders))}: {len(both)} identities have a photograph and a "
                               "thermal picture; two at least are needed, so render more")
    taken: dict[str, int] = {}
    chosen = []
    for picture in photographs:
        taken[picture.identity] = taken.get(picture.identity, 0) + 1
        if picture.identity in both and not 0 < most_photographs < taken[picture.identity]:
            chosen.append(picture)
    return ReidSets(tuple(folder.name for folder in folders), tuple(chosen),
                    tuple(picture for picture in gallery if picture.identity in both))


def _pictures(folder: Path, number: int, index: Mapping[str, Any], kind: str) -> list[Picture]:
    try:
        lengths = {entry["identity"]: max(map(float, entry["size_m"])) for entry in index.get("identities", ())}
        return [_picture(folder, number, entry, index, lengths) for entry in index[kind]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ThermalReidError(f"{folder / 'index.json'}: {kind} are damaged ({type(error).__name__}: {error}); render "
                               "the set again") from None


def _index(folder: Path) -> Mapping[str, Any]:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text())
    except OSError:
        raise ThermalReidError(f"{folder}: no finished re-identification set (there is no index.json); make one "
                               "with `thermalreid world reid-set`; it also goes on with an unfinished one") from None
    except ValueError:
        index = None
    if not isinstance(index, dict) or not {"probes", "gallery"} <= index.keys():
        raise ThermalReidError(f"{path}: this is no index of a re-identification set; render the set again")
    return index


def _picture(folder: Path, number: int, entry: Mapping[str, Any], index: Mapping[str, Any],
             lengths: Mapping[str, float]) -> Picture:
    if entry["class"] not in CLASS_NAMES:
        raise ValueError(f"class '{entry['class']}'")
    when, hour = datetime.fromisoformat(entry["time"]), float(entry["hour"])
    weather = Weather(**entry["weather"])
    conditions = Conditions.at(when, float(index.get("latitude_deg", _ASSUMED_LATITUDE_DEG)), 0.0,
                               float(weather.air_temperature_k(hour)) - 273.15, weather.cloud_cover, solar_hour=hour)
    box = tuple(map(float, entry["box"]))
    if len(box) != 4:
        raise ValueError(f"a box of {len(box)} numbers")
    return Picture(folder / entry["file"], f"{number}/{entry['identity']}", entry["class"],
                   f"{number}/{entry['session']}", box, hour, float(entry["metres_per_pixel"]),
                   float(entry["depression_deg"]), conditions, lengths.get(entry["identity"], math.nan))
