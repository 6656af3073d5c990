"""Re-identification sets: identities in colour photographs, and in thermal pictures of other times and places.

Every session moves all identities to other places of the city and takes one picture of each. Probes are colour
photographs by day, near by; the gallery is thermal, from a drone, at hours spread over day and night, in the weather
of other days. Folders: probes/ (PNG), gallery/ (16-bit PNG, centikelvin, and a mask of the identity), index.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.store import ATTRIBUTION
from thermalreid_ros.world.actors import CLASSES, make_identity
from thermalreid_ros.world.city import City, build_city
from thermalreid_ros.world.colour_camera import ColourCameraParameters
from thermalreid_ros.world.film import claim_folder, refuse_finished, solar_time
from thermalreid_ros.world.population import Density, Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.sensor import ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.truth import box_of, camera_angles_deg
from thermalreid_ros.world.views import find_view, from_drone, near_by, photograph
from thermalreid_ros.world.weather import Weather
from thermalreid_ros.world.workers import run_missing

PROBE_HOURS = (9.0, 16.0)  # solar


@dataclass(frozen=True)
class ReidSetPlan:
    """identities: of all classes together, in equal shares. probes, gallery: pictures of each, as far as it can be
    seen. fov_rad: horizontal, of the thermal camera of size_px."""

    map_path: Path
    seed: int
    identities: int
    probes: int = 4
    gallery: int = 8
    size_m: float = 1000.0
    centre: tuple[float, float] | None = None
    difference: float = 1.0
    fov_rad: float = np.radians(32.0)
    size_px: tuple[int, int] = (640, 512)

    def numbers(self) -> dict[str, list[int]]:
        """The identity numbers of each class."""
        each, rest = divmod(self.identities, len(CLASSES))
        return {name: list(range(each + (k < rest))) for k, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class _Session:
    kind: str  # "probes" or "gallery"
    number: int

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.number:03d}"


def make_reid_set(plan: ReidSetPlan, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    """Make the set, or go on with an unfinished one of the same arguments (which must tell all of the plan): an
    iterator that yields after each session the number of its pictures. At the end index.json says what is there.

    Raises ThermalReidError where `out` holds a finished set or something else.
    """
    refuse_finished(out)
    if plan.identities < len(CLASSES):
        raise ThermalReidError(f"{plan.identities} identities are too few; give at least one for each of the "
                               f"{len(CLASSES)} classes")
    city = build_city(plan.map_path, centre=plan.centre, size_m=plan.size_m, seed=plan.seed,
                      difference=plan.difference)
    claim_folder(out, arguments)
    for folder in ("probes", "gallery", "sessions"):
        (out / folder).mkdir(exist_ok=True)
    return _rendered(plan, city, out, arguments, workers)


def _rendered(plan: ReidSetPlan, city: City, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    sessions = [_Session(kind, number) for kind, count in (("probes", plan.probes), ("gallery", plan.gallery))
                for number in range(count)]
    entries: dict[str, list] = {"probes": [], "gallery": []}
    for session in run_missing(_SessionRenderer, (plan, city, out), sessions,
                               lambda session: _session_path(out, session).exists(), workers):
        pictures = json.loads(_session_path(out, session).read_text())
        entries[session.kind] += pictures
        yield len(pictures)
    write_atomically(out / "index.json", json.dumps({
        "attribution": ATTRIBUTION, "map": plan.map_path.name, "seed": plan.seed, "arguments": dict(arguments),
        "latitude_deg": round(city.latitude_deg, 4), "longitude_deg": round(city.longitude_deg, 4),
        "differences": city.differences.as_dict(), "identities": _identities(plan, entries), **entries},
        indent=1, default=str) + "\n")
    for session in sessions:
        _session_path(out, session).unlink()
    (out / "sessions").rmdir()


def _identities(plan: ReidSetPlan, entries: Mapping[str, list]) -> list[dict[str, Any]]:
    found = []
    for name, numbers in plan.numbers().items():
        for number in numbers:
            identity = make_identity(name, number, plan.seed)
            found.append({"identity": identity.name, "class": name, "description": identity.description,
                          "size_m": [round(v, 3) for v in identity.size_m],
                          **{kind: sum(e["identity"] == identity.name for e in entries[kind]) for kind in entries}})
    return found


def _session_path(out: Path, session: _Session) -> Path:
    return out / "sessions" / f"{session.name}.json"


class _SessionRenderer:
    def __init__(self, plan: ReidSetPlan, city: City, out: Path):
        self._plan, self._city, self._out = plan, city, out
        self._full = Intrinsics.from_field_of_view(*plan.size_px, plan.fov_rad)

    def __call__(self, session: _Session) -> int:
        plan, city = self._plan, self._city
        gallery = session.kind == "gallery"
        key = [plan.seed, 0x5E7, int(gallery), session.number]
        rng = np.random.default_rng(np.random.SeedSequence(key))
        if gallery:  # strata over the day, in a mixed order
            hours = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x40F])).permutation(plan.gallery)
            hour = float((hours[session.number] + rng.random()) * 24.0 / plan.gallery)
        else:
            hour = float(rng.uniform(*PROBE_HOURS))
        day = date(2025, 1, 1) + timedelta(days=int(rng.integers(365)))
        when = solar_time(day.isoformat(), hour, city.longitude_deg)
        weather = Weather.typical(city.latitude_deg, when, int(rng.integers(2**31)))
        renderer = Renderer(city, weather)
        renderer.set_time(when)
        numbers = plan.numbers()
        population = Population(city, plan.seed, density_of_pictures(hour), numbers, layout=int(rng.integers(2**31)))
        sensor = ThermalSensorParameters().varied(rng)
        camera = ColourCameraParameters().varied(rng)
        draw = from_drone(self._full) if gallery else near_by()
        entries = []
        for label, name in enumerate(CLASSES):
            for number in numbers[name]:
                rng = np.random.default_rng(np.random.SeedSequence([*key, label, number]))
                identity = make_identity(name, number, plan.seed)
                time_s = float(rng.uniform(0.0, 600.0))
                view = find_view(renderer, population, identity, time_s, draw, rng, 0.8)
                if view is None:
                    continue
                path = Path(session.kind) / f"{identity.name}_{session.number:03d}.png"
                facts: dict[str, Any] = {"file": str(path), "identity": identity.name, "class": name,
                                         "session": session.number}
                if gallery:
                    capture = renderer.capture(view.pose, view.intrinsics, view.actors, colour=False)
                    seen = view.seen(capture)
                    if seen is None:
                        continue
                    frame = ThermalSensor(sensor, view.intrinsics, int(rng.integers(2**31))).capture(
                        capture.radiance, int(when.timestamp()) * 1_000_000_000)
                    mask = path.with_name(f"{path.stem}_mask.png")
                    _write_picture(self._out / mask, 255 * (capture.instance == view.target + 1).astype(np.uint8))
                    _write_picture(self._out / path, frame)
                    facts["mask"] = str(mask)
                else:
                    picture, seen = photograph(renderer, view, camera, int(rng.integers(2**31)))
                    if seen is None:
                        continue
                    _write_picture(self._out / path, picture[..., ::-1])
                entries.append({**facts, **self._facts(view, seen, hour, when, weather)})
        write_atomically(_session_path(self._out, session), json.dumps(entries))
        return len(entries)

    def _facts(self, view, seen, hour, when, weather) -> dict[str, Any]:
        target = view.actors[view.target]
        centre, size = box_of(target)
        distance = float(np.linalg.norm(centre - view.pose.position_m))
        yaw, depression, _ = camera_angles_deg(view.pose)
        return {"box": list(seen.box), "visible_share": round(seen.visible_share, 4), "hour": round(hour, 3),
                "time": when.isoformat(), "distance_m": round(distance, 2),
                "metres_per_pixel": round(distance / view.intrinsics.fx, 5), "size_m": [round(v, 3) for v in size],
                "height_m": round(float(view.pose.position_m[2] - target.z), 2),
                "depression_deg": round(depression, 2),
                "aspect_deg": round((np.degrees(target.yaw_rad) - yaw + 180.0) % 360.0 - 180.0, 2),
                "moving": target.moving, "weather": asdict(weather)}


def density_of_pictures(hour: float) -> Density:
    """Who else is about in a set's pictures: as in a town, at night not as few as in one."""
    return Density.at_hour(max(hour, 7.0) if hour < 22.0 else 21.0)


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    done, data = cv2.imencode(path.suffix, pixels)
    if not done:
        raise ThermalReidError(f"{path}: the picture cannot be encoded")
    write_atomically(path, data.tobytes())
