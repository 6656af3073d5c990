"""How well objects are placed on the ground: every object that a detector finds in recorded flights, against the truth.

Tracks are by the truth's identities, so that what is measured is the place alone. Twice: by the camera's true pose, and
by what localization makes of the recording, through the covariances that node `geo_localization` publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.evaluation.boxes import MATCH_IOU, iou
from thermalreid_ros.evaluation.flight_input import TRUE_POSE, Flight, FlightInputError, FrameEvent, stamp_of
from thermalreid_ros.evaluation.localization import CHI2_95, PredictedLabels, feed
from thermalreid_ros.localization.localizer import Localizer
from thermalreid_ros.localization.pose import pose_covariance
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.reid.target import CameraPose, Sight, TargetError, TargetTrack, sight
from thermalreid_ros.ros.bag import Bag
from thermalreid_ros.world.truth import LEAST_PIXELS, LEAST_VISIBLE_SHARE

TRUE, LOCALIZED = "true_pose", "localized_pose"
HEIGHT_ERROR_SHARE = 0.02  # of an altimeter that says no more, as node geo_localization takes it


@dataclass(frozen=True, eq=False)
class Placed:
    """One sight of one object. error_m: float64 (2,), of the track's place on the grid. nees: of that error."""

    identity: str
    class_name: str
    error_m: np.ndarray
    nees: float
    sights: int
    height_m: float


@dataclass(eq=False)
class Placements:
    """Of one flight, by TRUE and LOCALIZED. shown: sights of objects that a detector should find. frames_without_truth,
    damage: as Flight has them."""

    name: str
    shown: int = 0
    placed: dict[str, list[Placed]] = field(default_factory=lambda: {TRUE: [], LOCALIZED: []})
    frames_without_truth: int = 0
    damage: str | None = None


def place_objects(path: Path, semantic_map: SemanticMap, detector: Detector, segmenter: Segmenter,
                  progress: Callable[..., Any]) -> Placements:
    """Detect and place the objects of a flight's recording. progress: cli.progress.progress or like it. Raises
    FlightInputError and BagError."""
    with Flight(path, semantic_map) as flight:
        if not flight.truth_poses:
            raise FlightInputError(f"{flight.damage or path}: no message on {TRUE_POSE}; record the flight again")
        bar = iter(progress(range(len(flight.stamps_ns)), description=flight.name, unit="frame"))
        labelling = PredictedLabels(segmenter, flight.units)
        placed = _place(flight, _truth(path, semantic_map.grid), detector,
                        Localizer(semantic_map, confusion=labelling.confusion), labelling, lambda: next(bar, None))
        next(bar, None)
    return placed


def _place(flight: Flight, truth: dict[int, list[_Shown]], detector: Detector, localizer: Localizer,
           labelling: PredictedLabels, frame_done: Callable[[], object]) -> Placements:
    result = Placements(flight.name)
    tracks: dict[str, dict[str, TargetTrack]] = {TRUE: {}, LOCALIZED: {}}
    for event in flight.events():
        if not isinstance(event, FrameEvent):
            feed(localizer, event)
            continue
        fix = localizer.process(labelling.label(event), flight.intrinsics).fix
        objects = truth.get(event.stamp_ns, [])
        result.shown += len(objects)
        found = _assigned(objects, detector.detect(event.frame.gray8()).detections,
                          (flight.intrinsics.width, flight.intrinsics.height))
        z, rotation = flight.truth_poses[event.stamp_ns]
        ground = float(np.median([item.ground_m for item in objects])) if objects else 0.0
        poses = {TRUE: CameraPose(event.stamp_ns, flight.place(event.stamp_ns), z - ground, rotation, np.zeros((6, 6)))}
        if fix is not None:
            poses[LOCALIZED] = CameraPose(fix.stamp_ns, np.array((fix.x, fix.y)), fix.height_m, fix.rotation,
                                          pose_covariance(fix, flight.convergence_rad,
                                                          HEIGHT_ERROR_SHARE * fix.height_m))
        for kind, pose in poses.items():
            for item, box in found:
                try:
                    seen = sight(flight.intrinsics, pose, box)
                except TargetError:
                    continue
                result.placed[kind].append(_placed(tracks[kind], item, seen, pose))
        frame_done()
    result.frames_without_truth, result.damage = flight.frames_without_truth, flight.damage
    return result


def target_figures(flights: Sequence[Placements]) -> dict[str, Any]:
    """For TRUE and LOCALIZED: median_m, p95_m, nees (2 where honest), ellipse95, sights, tracks; by_class of medians;
    each flight's by its name. None where nothing was placed."""
    return {kind: {**_figures([one for flight in flights for one in flight.placed[kind]], len(flights)),
                   "flights": {flight.name: _figures(flight.placed[kind]) for flight in flights}}
            for kind in (TRUE, LOCALIZED)}


@dataclass(frozen=True, eq=False)
class _Shown:
    identity: str
    class_name: str
    box: Detection
    place_m: np.ndarray
    ground_m: float


def _truth(path: Path, grid: LocalGrid) -> dict[int, list[_Shown]]:
    """Objects that a detector should find, by the stamp of the frame; places on the map's grid."""
    found: dict[int, list[_Shown]] = {}
    with Bag(path) as bag:
        for array in map(bag.decode, bag.messages(["/truth/objects"])):
            found[stamp_of(array)] = [
                _Shown(item.identity, item.class_name, Detection(CLASS_NAMES.index(item.class_name), 1.0, item.x_min,
                                                                item.y_min, item.x_max, item.y_max),
                       np.array([float(v) for v in grid.from_geographic(item.latitude, item.longitude)]),
                       item.z - 0.5 * item.height)
                for item in array.objects
                if item.pixels >= LEAST_PIXELS and item.visible_share >= LEAST_VISIBLE_SHARE]
    return found


def _assigned(objects: Sequence[_Shown], detections: Sequence[Detection],
              frame_size: tuple[int, int]) -> list[tuple[_Shown, Detection]]:
    """Objects with the detection of their class that overlaps most, by half or more."""
    pairs, drawn = [], [(box, box.tight(frame_size)) for box in detections]
    for item in objects:
        same = [(iou(tight, item.box), box) for box, tight in drawn if box.class_name == item.class_name]
        overlap, best = max(same, key=lambda pair: pair[0], default=(0.0, None))
        if overlap >= MATCH_IOU:
            pairs.append((item, best))
    return pairs


def _placed(tracks: dict[str, TargetTrack], item: _Shown, seen: Sight, pose: CameraPose) -> Placed:
    track = tracks.get(item.identity)
    if track is None:
        track = tracks[item.identity] = TargetTrack(item.class_name, pose.stamp_ns, seen)
    else:
        track.add(pose.stamp_ns, seen)
    position, covariance = track.at(pose.stamp_ns)
    error = position - item.place_m
    return Placed(item.identity, item.class_name, error, float(error @ np.linalg.solve(covariance, error)),
                  track.sights, pose.height_m)


def _figures(placed: Sequence[Placed], flights: int = 1) -> dict[str, Any]:
    if not placed:
        return {"median_m": None, "p95_m": None, "nees": None, "ellipse95": None, "sights": 0, "tracks": 0,
                "height_m": None, "by_class": {}}
    errors = np.array([np.hypot(*one.error_m) for one in placed])
    nees = np.array([one.nees for one in placed])
    return {"median_m": float(np.median(errors)), "p95_m": float(np.percentile(errors, 95)),
            "nees": float(nees.mean()), "ellipse95": float((nees <= CHI2_95).mean()), "sights": len(placed),
            "tracks": len({one.identity for one in placed}) if flights == 1 else None,
            "height_m": float(np.median([one.height_m for one in placed])),
            "by_class": {name: float(np.median(errors[own])) for name in CLASS_NAMES
                         if (own := np.array([one.class_name == name for one in placed])).any()}}
