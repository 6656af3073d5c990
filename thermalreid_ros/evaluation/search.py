"""A search from end to end over the virtual city, in this process: a photograph goes in, the place of its object comes
out, with the truth to compare with. For demonstrations.

All is what the nodes do, but for two things: nothing is localized, the camera's pose is the true one with errors drawn
as large as a fix has them; and frames are as far apart as the film's, whatever the machine takes for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose, rotation_of_rpy
from thermalreid_ros.camera.thermal import ThermalFrame, make_frame
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.boxes import MATCH_IOU, iou
from thermalreid_ros.reid.embedding import describe_probe
from thermalreid_ros.reid.loading import load_embedder, load_length_teller, load_reidentifier
from thermalreid_ros.reid.probe import make_probe
from thermalreid_ros.reid.reidentifier import Ranking
from thermalreid_ros.reid.target import CameraPose, Target
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.city import City
from thermalreid_ros.world.colour_camera import ColourCameraParameters
from thermalreid_ros.world.film import Film, clear_flight, solar_time
from thermalreid_ros.world.flight import FlightPlan
from thermalreid_ros.world.population import Density, Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.sensor import ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.truth import TrueObject, true_objects
from thermalreid_ros.world.views import find_view, near_by, photograph
from thermalreid_ros.world.weather import Weather

RATE_HZ = 2.0
#: Standard deviations of the pose's errors, constant over the flight: x, y and height in metres, turns in radians.
POSE_SIGMAS = (1.5, 1.5, 1.5, np.radians(0.7), np.radians(0.7), np.radians(1.0))


@dataclass(frozen=True)
class SearchPlan:
    """hour, photograph_hour: solar, of the flight and of the photograph, which is taken some days before elsewhere."""

    seed: int
    date: str
    hour: float
    photograph_hour: float
    frames: int = 12
    altitude_m: float = 80.0
    depression_rad: float = np.radians(60.0)
    class_name: str = "car"
    intrinsics: Intrinsics = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))


@dataclass(frozen=True, eq=False)
class SearchFrame:
    """gray8: uint8 (H, W). true_box: of the object sought, None where it is not seen. place: where the first match is,
    accepted or not; true_m: where the object is, (2,), metres of the city's grid."""

    gray8: np.ndarray
    ranking: Ranking
    true_box: Detection | None
    place: Target | None
    true_m: np.ndarray | None

    @property
    def target(self) -> Target | None:
        """Where the object is said to be: of an accepted match alone."""
        return None if self.ranking.accepted is None else self.place

    def is_true(self, rank: int) -> bool:
        """Whether a match is of the object sought."""
        box = self.ranking.matches[rank - 1].detection
        return self.true_box is not None and iou(box.tight(self.gray8.shape[::-1]), self.true_box) >= MATCH_IOU


@dataclass(frozen=True, eq=False)
class Search:
    """photograph: uint8 (H, W, 3) RGB; box: of the object in it. probes: float32 (h, w), degrees Celsius."""

    description: str
    photograph: np.ndarray
    box: tuple[float, ...]
    probes: tuple[np.ndarray, ...]
    accept_probability: float
    frames: tuple[SearchFrame, ...]

    @property
    def shown(self) -> int:
        """The frame to look at: of those that truly show the object, if there are, the last one that ended as most of
        them did: found, missed or mistaken."""
        numbers = [n for n, frame in enumerate(self.frames) if frame.true_box is not None] or range(len(self.frames))
        ends = {n: (self.frames[n].ranking.accepted is not None, bool(self.frames[n].ranking.matches)
                    and self.frames[n].is_true(1)) for n in numbers}
        usual = Counter(ends.values()).most_common(1)[0][0]
        return [n for n, end in ends.items() if end == usual][-1]


def search(city: City, plan: SearchPlan, *, detector: str = "yolo_compact", progress=lambda items: items) -> Search:
    """Fly, photograph and find. progress: wraps the sequence of frame numbers. Raises ThermalReidError where the flight
    sees no object of the class, or nothing can be made of its photograph."""
    when = solar_time(plan.date, plan.hour, city.longitude_deg)
    weather = Weather.typical(city.latitude_deg, when, plan.seed)
    population = Population(city, plan.seed, Density.at_hour(max(plan.hour, 7.0)))
    course = clear_flight(population, FlightPlan(plan.frames / RATE_HZ, "orbit", plan.altitude_m, plan.depression_rad),
                          plan.seed, choices=3)
    film = Film(city, population, weather, course, plan.intrinsics, when, RATE_HZ, plan.frames)
    frames, poses, seen = _fly(film, plan.seed, progress)
    identity = _sought(seen, plan.class_name, population.seed)
    picture, box = _photograph(city, population, identity, plan)
    engine = load_engine("thermal_synthesis", log=lambda line: None)
    conditions = Conditions.at(when, city.latitude_deg, city.longitude_deg, _air_c(weather, when, city),
                               weather.cloud_cover)
    made = ProbeSynthesizer(engine).synthesize(picture, conditions, box=box, class_name=plan.class_name)
    reid, _ = load_reidentifier("centikelvin")
    embedder, _ = load_embedder("reid_embedding")
    teller, _ = load_length_teller("photograph_length")
    reid.add_probe(make_probe(
        made.crops, "celsius_f32", "photograph", plan.class_name,
        descriptors=None if embedder is None else describe_probe(embedder, [(picture, box)], made.squares),
        descriptor_model="" if embedder is None else embedder.engine.card.name,
        length=None if teller is None else teller.tell([(picture, box)], plan.class_name)))
    finder, found = Detector(load_engine(detector, log=lambda line: None)), []
    for frame, pose, objects in zip(frames, poses, seen):
        reid.add_pose(plan.intrinsics, pose)
        reid.process(frame, finder.detect(frame.gray8()).detections)
        ranking = reid.rank("photograph")
        true = next((item for item in objects if item.identity == identity), None)
        place = reid.target(ranking.matches[0], city.grid) if ranking.matches else None
        found.append(SearchFrame(frame.gray8(), ranking, None if true is None or true.crowd else _box(true), place,
                                 None if true is None else np.array((true.x, true.y))))
    label, _, number = identity.rpartition("-")
    return Search(make_identity(label, int(number), population.seed).description, picture, box, made.crops,
                  found[0].ranking.accept_probability, tuple(found))


def _fly(film: Film, seed: int,
         progress) -> tuple[list[ThermalFrame], list[CameraPose], list[list[TrueObject]]]:
    """Of each frame: what the camera gives, where it is said to be, and what it sees."""
    renderer = Renderer(film.city, film.weather)
    renderer.set_time(film.when)
    sensor = ThermalSensor(ThermalSensorParameters(), film.intrinsics, seed)
    errors = np.random.default_rng(np.random.SeedSequence([seed, 0x5EA])).normal(0.0, POSE_SIGMAS)
    frames, poses, seen = [], [], []
    for number in progress(range(film.count)):
        time_s = film.time_s(number)
        stamp_ns, pose, actors = film.stamp_ns(time_s), film.trajectory.pose(time_s), film.actors(number)
        capture = renderer.capture(pose, film.intrinsics, actors, colour=False)
        raw = sensor.capture(capture.radiance, stamp_ns, film.trajectory.image_motion_px_s(time_s, film.intrinsics))
        frames.append(make_frame(raw, "mono16", "centikelvin", stamp_ns, "camera"))
        poses.append(_said(pose, float(film.trajectory.height_above_ground_m(time_s)[0]), errors, stamp_ns))
        seen.append(true_objects(capture, actors, film.city.grid))
    return frames, poses, seen


def _said(pose: Pose, height_m: float, errors: np.ndarray, stamp_ns: int) -> CameraPose:
    return CameraPose(stamp_ns, pose.position_m[:2] + errors[:2], height_m + float(errors[2]),
                      rotation_of_rpy(*errors[3:]) @ pose.rotation, np.diag(np.square(POSE_SIGMAS)))


def _sought(seen: Iterable[Sequence[TrueObject]], class_name: str, seed: int) -> str:
    """One of those of a class that are seen most."""
    counts = Counter(item.identity for objects in seen for item in objects
                     if item.class_name == class_name and not item.crowd)
    often = [name for name, count in counts.most_common() if 2 * count >= counts.most_common(1)[0][1]]
    if not often:
        raise ThermalReidError(f"the flight sees no {class_name}; take another seed, or a larger city")
    return sorted(often)[int(np.random.default_rng(seed).integers(len(often)))]


def _photograph(city: City, population: Population, identity: str,
                plan: SearchPlan) -> tuple[np.ndarray, tuple[float, ...]]:
    label, _, number = identity.rpartition("-")
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0xF07]))
    day = datetime.fromisoformat(plan.date) - timedelta(days=9)
    when = solar_time(day.date().isoformat(), plan.photograph_hour, city.longitude_deg)
    renderer = Renderer(city, Weather.typical(city.latitude_deg, when, plan.seed + 1))
    renderer.set_time(when)
    who = make_identity(label, int(number), population.seed)
    for attempt in range(8):
        elsewhere = Population(city, population.seed, Density.at_hour(plan.photograph_hour), {label: [int(number)]},
                               layout=plan.seed + (1 + attempt << 32))
        view = find_view(renderer, elsewhere, who, float(attempt), near_by(), rng)
        if view is not None:
            picture, seen = photograph(renderer, view, ColourCameraParameters(), plan.seed)
            if seen is not None:
                return picture, tuple(map(float, seen.box))
    raise ThermalReidError(f"{identity} cannot be photographed in this city; take another seed")


def _air_c(weather: Weather, when: datetime, city: City) -> float:
    hour = (when.hour + when.minute / 60.0 + city.longitude_deg / 15.0) % 24.0
    return float(weather.air_temperature_k(hour)) - 273.15


def _box(item: TrueObject) -> Detection:
    return Detection(CLASS_NAMES.index(item.class_name), 1.0, *item.box)
