"""Data sets of the virtual city: frames with boxes and masks, split by place.

Maps are cut into square districts with a strip between them; a district belongs to one split, and its pictures show
nothing of another. A session is one district, day and weather, with some pictures from as many heights and
directions; it is rendered by one process and kept whole, so that an interrupted data set is resumed.

| folder | holds |
|---|---|
| `images/thermal` | mono8 after gain control |
| `images/thermal16` | mono16, centikelvin, on request |
| `images/colour` | the same view in the visible band |
| `masks/semantic` | mono8, SemanticClass, 255 outside of the area |
| `masks/instance` | mono16, `instance` of the annotations, 0 for none |
| `annotations` | COCO, one file a split |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from rasterio.errors import RasterioError

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid, Pose
from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.files import write_atomically
from thermalreid_ros.maps.classes import CLASS_NAMES, NO_DATA, SemanticClass
from thermalreid_ros.maps.store import ATTRIBUTION
from thermalreid_ros.maps.features import features_path
from thermalreid_ros.world.actors import CLASSES
from thermalreid_ros.world.city import City, build_city
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.film import claim_folder, in_view, liveliness, solar_time
from thermalreid_ros.world.ground import GroundPlan
from thermalreid_ros.world.population import Density, Placed, Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.sensor import GainControl, ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.sun import sun_direction
from thermalreid_ros.world.truth import camera_angles_deg, coco_annotation, coco_image, true_objects, write_coco
from thermalreid_ros.world.weather import Weather
from thermalreid_ros.world.workers import run_missing

SPLITS = ("train", "val")
_DEGREE_M = 111_320.0  # of latitude
_STRIP_M = 80.0  # between districts
_LARGEST_M, _SMALLEST_M = 900.0, 320.0  # of districts
_AIMED_AT = {"car": 0.3, "person": 0.3, "bicycle": 0.27, "dog": 0.13}
_NIGHT_BELOW, _DAY_ABOVE = np.sin(np.radians(-4.0)), np.sin(np.radians(4.0))  # of the sun
_POOL = 400  # identities of each class that sessions share, others come in where more are needed
_LEAST_COVER = 0.005  # of a district, of what pictures shall look at
_FROM_EDGE_M, _COARSE_M = 30.0, 2.0  # how far from the edge of its ground a picture looks, and the grid it is sought on
_ASIDE_M, _ASIDE_SHARE = 8.0, 0.34  # of whom it is aimed at: metres, share of the view's width
_NEAREST_M = 15.0  # to anything, else the camera is inside of it


@dataclass(frozen=True)
class DatasetPlan:
    """images: in all. val_share: of images. night_share: of sessions. session_size: pictures of a session.
    altitude_m, depression_deg, fov_deg: ranges. black_hot_share: of sessions. aimed_at: classes of objects or of the
    ground near one of which, each as often, a picture looks; none: at all objects, at those that are rare less often.
    """

    maps: tuple[Path, ...]
    seed: int
    images: int
    val_share: float = 0.2
    night_share: float = 0.5
    session_size: int = 25
    size_px: tuple[int, int] = (640, 512)
    altitude_m: tuple[float, float] = (60.0, 130.0)
    depression_deg: tuple[float, float] = (30.0, 90.0)
    fov_deg: tuple[float, float] = (22.0, 45.0)
    black_hot_share: float = 0.1
    difference: float = 1.0
    thermal16: bool = False
    colour: bool = True
    supersample: int = 3
    aimed_at: tuple[str, ...] = ()


@dataclass(frozen=True)
class District:
    """A square of a map. centre: (latitude_deg, longitude_deg). cover: share of its area by SemanticClass."""

    map_path: Path
    centre: tuple[float, float]
    size_m: float
    cover: tuple[float, ...]

    def overlaps(self, other: District) -> bool:
        """Whether both show some of the same ground, be it of two maps."""
        north_m = _DEGREE_M * (self.centre[0] - other.centre[0])
        east_m = _DEGREE_M * (self.centre[1] - other.centre[1]) * math.cos(math.radians(self.centre[0]))
        return max(abs(north_m), abs(east_m)) < 0.5 * (self.size_m + other.size_m)

    @property
    def built_share(self) -> float:
        return self.cover[SemanticClass.ROAD] + self.cover[SemanticClass.BUILDING]


@dataclass(frozen=True)
class _Session:
    number: int
    split: str
    district: District
    first: int  # number of its first image
    count: int


def make_dataset(plan: DatasetPlan, out: Path, arguments: Mapping[str, Any], workers: int) -> Iterator[int]:
    """Make the data set, or go on with an unfinished one of the same arguments (which must tell all of the plan):
    an iterator that yields after each session the number of its images. At the end annotations/ says what is there.

    Raises ThermalReidError where `out` holds a finished set or something else, and where the maps are too small.
    """
    if (out / "annotations").exists():
        raise ThermalReidError(f"{out}: holds a finished data set already; remove it or choose another place")
    sessions = plan_sessions(plan)
    claim_folder(out, arguments)
    folders = ["images/thermal", "masks/semantic", "masks/instance", "sessions"]
    folders += ["images/thermal16"] * plan.thermal16 + ["images/colour"] * plan.colour
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    return _rendered(plan, out, sessions, arguments, workers)


def _rendered(plan: DatasetPlan, out: Path, sessions: list[_Session], arguments: Mapping[str, Any],
              workers: int) -> Iterator[int]:
    for session in run_missing(_SessionRenderer, (plan, out), sessions,
                               lambda session: _session_path(out, session).exists(), workers):
        yield session.count
    _write_annotations(plan, out, sessions, arguments)


def plan_sessions(plan: DatasetPlan) -> list[_Session]:
    """What is to be rendered: sessions of both splits, each in a district of its split."""
    if not (plan.images > 0 and plan.session_size > 0 and 0 <= plan.val_share < 1 and 0 <= plan.night_share <= 1):
        raise ThermalReidError("a data set needs images, and shares between 0 and 1")
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0xDA7A]))
    places = [district for path in plan.maps for district in districts(path)]
    if plan.val_share:  # a map named twice is no more ground to be split
        places = list({(place.centre, place.size_m): place for place in places}.values())
    places = [places[k] for k in rng.permutation(len(places))]
    if plan.aimed_at and not set(plan.aimed_at) & set(CLASSES):
        wanted = [CLASS_NAMES.index(name) for name in plan.aimed_at]
        places = [place for place in places if any(place.cover[k] > _LEAST_COVER for k in wanted)]
        if not places:
            raise ThermalReidError(f"{', '.join(path.name for path in plan.maps)}: no district has as much as "
                                   f"{_LEAST_COVER:.1%} of {' or '.join(plan.aimed_at)} to be aimed at; take other "
                                   "maps")
    counts = {"val": round(plan.val_share * plan.images)}
    counts["train"] = plan.images - counts["val"]
    held_back = int(np.clip(round(plan.val_share * len(places)), 1, len(places))) if counts["val"] else 0
    own = {"val": places[:held_back]}
    # Maps may overlap, or be named twice: what is held back is held back.
    own["train"] = [place for place in places[held_back:] if not any(map(place.overlaps, own["val"]))]
    if not own["train"]:
        raise ThermalReidError(f"{', '.join(path.name for path in plan.maps)}: too small to be split by place; give "
                               "larger or more maps, or no validation split (--val-share 0)")
    sessions, first = [], 0
    for split in SPLITS:
        weight = np.array([0.1 + place.built_share for place in own[split]])
        left = counts[split]
        while left > 0:
            district = own[split][int(rng.choice(len(weight), p=weight / weight.sum()))]
            size = min(left, plan.session_size)
            sessions.append(_Session(len(sessions), split, district, first, size))
            first, left = first + size, left - size
    return sessions


def districts(map_path: Path) -> list[District]:
    """The districts of a map that hold enough of a town, by rows from the south-west."""
    try:
        with rasterio.open(map_path) as raster:
            left, bottom, right, top = raster.bounds
            crs = raster.crs.to_string()
            step = max(1.0, 4.0 / raster.res[0])
            cover = raster.read(1, out_shape=(max(1, round(raster.height / step)), max(1, round(raster.width / step))))
    except (RasterioError, AttributeError) as error:
        raise ThermalReidError(f"{map_path}: cannot be read as a map ({first_line(error)}); build it with: "
                               "thermalreid map build") from None
    if not features_path(map_path).is_file():
        raise ThermalReidError(f"{features_path(map_path)}: no features beside the map; build it with: thermalreid map "
                               "build")
    width, height = right - left, top - bottom
    size = min(_LARGEST_M, 0.5 * (max(width, height) - _STRIP_M), min(width, height))
    if size < _SMALLEST_M:
        size = min(width, height, _LARGEST_M)  # a single one
    if size < _SMALLEST_M:
        raise ThermalReidError(f"{map_path}: {width:.0f} x {height:.0f} m is too small for a data set; "
                               f"{_SMALLEST_M:.0f} m each way is the least")
    columns, rows = (int((extent + _STRIP_M + 1e-6) // (size + _STRIP_M)) for extent in (width, height))
    grid, found = LocalGrid(crs, 0.0, 0.0), []
    for row in range(rows):
        for column in range(columns):
            x = left + 0.5 * (width - columns * size - (columns - 1) * _STRIP_M) + column * (size + _STRIP_M)
            y = bottom + 0.5 * (height - rows * size - (rows - 1) * _STRIP_M) + row * (size + _STRIP_M)
            to_row, to_column = cover.shape[0] / height, cover.shape[1] / width
            part = cover[round((top - y - size) * to_row):round((top - y) * to_row),
                         round((x - left) * to_column):round((x + size - left) * to_column)]
            latitude, longitude = grid.to_geographic(x + 0.5 * size, y + 0.5 * size)
            district = District(map_path, (float(latitude), float(longitude)), size,
                                tuple(float((part == k).mean()) for k in SemanticClass))
            if district.built_share > 0.03 and (part == NO_DATA).mean() < 0.3 and \
                    district.cover[SemanticClass.WATER] < 0.6:
                found.append(district)
    if not found:
        raise ThermalReidError(f"{map_path}: no part of it is built up enough for a data set; take another map")
    return found


class _SessionRenderer:
    def __init__(self, plan: DatasetPlan, out: Path):
        self._plan, self._out = plan, out
        self._city: tuple[District, City] | None = None

    def __call__(self, session: _Session) -> int:
        plan = self._plan
        rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x5E55, session.number]))
        if self._city is None or self._city[0] != session.district:
            self._city = session.district, build_city(
                session.district.map_path, centre=session.district.centre, size_m=session.district.size_m,
                seed=plan.seed, difference=plan.difference)
        city = self._city[1]
        when, hour = _instant(city, rng, rng.random() < plan.night_share)
        sun = sun_direction(city.latitude_deg, city.longitude_deg, when)[2]
        weather = Weather.typical(city.latitude_deg, when, int(rng.integers(2**31)))
        renderer = Renderer(city, weather)
        renderer.set_time(when)
        density = Density.dense() if rng.random() < 0.8 else Density.at_hour(hour)
        population = Population(city, plan.seed, density, layout=int(rng.integers(2**31)), pool=_POOL)
        sensor = ThermalSensorParameters().varied(rng)
        gain = replace(GainControl().varied(rng), black_hot=bool(rng.random() < plan.black_hot_share))
        camera = ColourCameraParameters().varied(rng)
        fov = np.radians(rng.uniform(*plan.fov_deg))
        intrinsics = Intrinsics.from_field_of_view(*plan.size_px, fov)
        seed = int(rng.integers(2**31))
        images, annotations = [], []
        for k in range(session.count):
            number, stamp_ns = session.first + k, int(when.timestamp()) * 1_000_000_000 + k * 10**9
            rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x1, session.number, k]))
            pose, actors, capture = self._take(renderer, population, intrinsics, rng)
            frame = ThermalSensor(sensor, intrinsics, seed).capture(capture.radiance, stamp_ns)
            name = f"{number:06d}"
            self._write(f"images/thermal/{name}.png", gain.grey(frame))
            if plan.thermal16:
                self._write(f"images/thermal16/{name}.png", frame)
            if plan.colour:
                picture = ColourCamera(camera, intrinsics, seed).capture(capture.colour, stamp_ns)
                self._write(f"images/colour/{name}.jpg", picture[..., ::-1])
            self._write(f"masks/semantic/{name}.png", capture.semantic)
            self._write(f"masks/instance/{name}.png", capture.instance)
            yaw, depression, roll = camera_angles_deg(pose)
            x, y, z = pose.position_m
            ground = float(city.relief.height_m(np.array([x]), np.array([y]))[0])
            latitude, longitude = city.grid.to_geographic(x, y)
            images.append(coco_image(
                number, f"{name}.png", intrinsics.width, intrinsics.height, session=session.number,
                map=session.district.map_path.name, latitude=round(float(latitude), 7),
                longitude=round(float(longitude), 7), altitude_m=round(z - ground, 2), yaw_deg=round(yaw, 2),
                depression_deg=round(depression, 2), roll_deg=round(roll, 2), fx=round(intrinsics.fx, 3),
                time=when.isoformat(), hour=round(hour, 3), night=bool(sun < 0),
                black_hot=gain.black_hot, air_k=round(float(weather.air_temperature_k(hour)), 2),
                cloud_cover=round(weather.cloud_cover, 3)))
            annotations += [coco_annotation(0, number, item) for item in true_objects(capture, actors, city.grid)]
        facts = {"split": session.split, "images": images, "annotations": annotations, "weather": asdict(weather),
                 "differences": city.differences.as_dict()}
        write_atomically(_session_path(self._out, session), json.dumps(facts))
        return session.count

    def _take(self, renderer: Renderer, population: Population, intrinsics: Intrinsics, rng: np.random.Generator):
        plan, city = self._plan, population.city
        for _ in range(20):
            time_s = float(rng.uniform(0.0, 1800.0))
            pose = _aimed(population, plan, intrinsics, time_s, rng)
            actors = _apart(in_view(population, pose, intrinsics, time_s))
            capture = renderer.capture(pose, intrinsics, actors, colour=plan.colour, supersample=plan.supersample)
            if capture.depth_m.min() > _NEAREST_M and (capture.semantic == NO_DATA).mean() < 0.1:
                return pose, actors, capture
        raise ThermalReidError(f"no picture can be taken in the district around {city.latitude_deg:.4f}, "
                               f"{city.longitude_deg:.4f}: buildings are too high or the area is too small; "
                               "choose another map")

    def _write(self, name: str, pixels: np.ndarray) -> None:
        path = self._out / name
        _, data = cv2.imencode(path.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix == ".jpg" else [])
        write_atomically(path, data.tobytes())


def _instant(city: City, rng: np.random.Generator, night: bool) -> tuple[datetime, float]:
    """(when, solar hour) of some day of the year, by night or by day."""
    while True:
        day, hour = date(2025, 1, 1) + timedelta(days=int(rng.integers(365))), float(rng.uniform(0.0, 24.0))
        when = solar_time(day.isoformat(), hour, city.longitude_deg)
        height = sun_direction(city.latitude_deg, city.longitude_deg, when)[2]
        if (height < _NIGHT_BELOW) if night else (height > _DAY_ABOVE):
            return when, hour


def _aimed(population: Population, plan: DatasetPlan, intrinsics: Intrinsics, time_s: float,
           rng: np.random.Generator) -> Pose:
    """A camera that looks near someone or something of a class and not over the edge of the area, if it can be; of
    three of these the one that shows most objects."""
    bounds, relief = population.city.bounds, population.city.relief
    name = str(rng.choice(plan.aimed_at)) if plan.aimed_at else \
        str(rng.choice(CLASSES, p=[_AIMED_AT[c] for c in CLASSES]))
    some = np.array([(one.x, one.y) for one in population.at(time_s, classes=(name,))]) if name in CLASSES else \
        _some_ground(population.city.plan, CLASS_NAMES.index(name), rng)
    half = 0.5 * np.array([bounds[2] - bounds[0], bounds[3] - bounds[1]])
    middle = np.array(bounds[:2]) + half
    corners = intrinsics.rays(np.array([[0, 0], [intrinsics.width, 0], [0, intrinsics.height],
                                        [intrinsics.width, intrinsics.height]], np.float64)).astype(np.float64)
    drawn = []
    for _ in range(12):
        if len(some):
            chosen = some[int(rng.integers(len(some)))]
            aside = rng.normal(0.0, 1.0, 2)
        else:
            aim = middle + half * rng.uniform(-0.7, 0.7, 2)
        altitude, depression = rng.uniform(*plan.altitude_m), np.radians(rng.uniform(*plan.depression_deg))
        if len(some):  # no farther aside than a narrow view is wide
            width = intrinsics.width / intrinsics.fx * altitude / np.sin(depression)
            aim = chosen + min(_ASIDE_M, _ASIDE_SHARE * width) * aside
        yaw, roll = rng.uniform(0.0, 2 * np.pi), np.radians(rng.normal(0.0, 1.0))
        eye = aim - altitude / np.tan(depression) * np.array([np.cos(yaw), np.sin(yaw)])
        pose = Pose.looking([*eye, float(relief.height_m(aim[:1], aim[1:])[0]) + altitude], yaw, depression, roll)
        away = pose.to_world(corners)
        reach = altitude / np.maximum(-away[:, 2], 0.02)
        ground = np.concatenate([pose.position_m[:2] + reach[:, None] * away[:, :2], eye[None]])
        beyond = np.maximum(np.abs(ground - middle) - half, 0.0).max()
        drawn.append((beyond, pose))
        if sum(out == 0.0 for out, _ in drawn) == 3:
            break
    within = [pose for out, pose in drawn if out == 0.0] or [min(drawn, key=lambda item: item[0])[1]]
    return max(within, key=lambda pose: liveliness(in_view(population, pose, intrinsics, time_s)))


def _some_ground(plan: GroundPlan, kind: int, rng: np.random.Generator) -> np.ndarray:
    """Places of a class of the ground, not far from where it ends, float64 (N, 2), N <= 64; none where there is none:
    amid a lake there is nothing to see."""
    step = max(1, round(_COARSE_M / plan.resolution_m))
    there = (plan.semantic[step // 2::step, step // 2::step] == kind).astype(np.uint8)
    inside_m = cv2.distanceTransform(there, cv2.DIST_L2, 3) * step * plan.resolution_m
    rows, columns = np.nonzero((there > 0) & (inside_m < _FROM_EDGE_M))
    chosen = rng.integers(len(rows), size=min(len(rows), 64)) if len(rows) else np.zeros(0, np.int64)
    right, down = (step * np.stack([columns, rows])[:, chosen] + step // 2 + 0.5) * plan.resolution_m
    return np.stack([plan.bounds[0] + right, plan.bounds[3] - down], axis=1)


def _apart(actors: Sequence[Placed]) -> list[Placed]:
    """Without those who move through others: paths cross, and a picture may show nobody inside of another."""
    kept: list[Placed] = []
    reach = {"car": 1.9, "person": 0.25, "bicycle": 0.6, "dog": 0.3}
    for actor in actors:
        if actor.moving and any(
                (actor.x - other.x) ** 2 + (actor.y - other.y) ** 2
                < (reach[actor.identity.class_name] + reach[other.identity.class_name]) ** 2 for other in kept):
            continue
        kept.append(actor)
    return kept


def _write_annotations(plan: DatasetPlan, out: Path, sessions: Sequence[_Session], arguments) -> None:
    images: dict[str, list] = {split: [] for split in SPLITS}
    annotations: dict[str, list] = {split: [] for split in SPLITS}
    conditions = []
    for session in sessions:
        facts = json.loads(_session_path(out, session).read_text())
        images[session.split] += facts["images"]
        for annotation in facts["annotations"]:
            annotations[session.split].append({**annotation, "id": len(annotations[session.split]) + 1})
        conditions.append({"session": session.number, "split": session.split,
                           "map": session.district.map_path.name, "centre": session.district.centre,
                           "size_m": session.district.size_m, "weather": facts["weather"],
                           "differences": facts["differences"]})
    info = {"description": "Rendered by thermalreid world dataset", "attribution": ATTRIBUTION,
            "arguments": json.loads(json.dumps(dict(arguments), default=str))}
    write_atomically(out / "sessions.json", json.dumps(conditions, indent=1) + "\n")
    unfinished = out / "annotations.part"
    unfinished.mkdir(exist_ok=True)
    for split in SPLITS:
        if images[split]:
            write_coco(unfinished / f"{split}.json", info, images[split], annotations[split])
    unfinished.rename(out / "annotations")
    for session in sessions:
        _session_path(out, session).unlink()
    (out / "sessions").rmdir()


def summary(out: Path) -> dict[str, Any]:
    """Counts of a finished data set: images by split, objects (crowd left out) by class."""
    images, objects = {}, dict.fromkeys(CLASSES, 0)
    for split in SPLITS:
        path = out / "annotations" / f"{split}.json"
        if path.exists():
            document = json.loads(path.read_text())
            images[split] = len(document["images"])
            for annotation in document["annotations"]:
                objects[CLASSES[annotation["category_id"]]] += not annotation["iscrowd"]
    return {"images": images, "objects": objects}


def _session_path(out: Path, session: _Session) -> Path:
    return out / "sessions" / f"{session.number:05d}.json"
