"""Where the time of a flight's frames goes: all that the nodes do with a frame, in one process and on one thread.

Times are milliseconds of processor time, which other work on the machine hardly changes. What is between the nodes,
their messages and the waiting for each other, is not in them: `thermalreid replay` measures that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.engine import load_engine, seconds_in_models
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.flight_input import Flight, FrameEvent
from thermalreid_ros.evaluation.localization import feed
from thermalreid_ros.localization.localizer import Localizer
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.reid.loading import load_reidentifier
from thermalreid_ros.reid.probe import make_probe
from thermalreid_ros.reid.signature import crop_box

#: Of the parts, those that a frame passes through one after the other with predicted semantics; the filter runs beside,
#: and what a frame tells of known objects is learned after its ranking.
PATH = ("grey", "labelling", "mask", "detection", "tracks", "ranking")
PARTS = (*PATH, "filter", "learning")
GREY_BY = 3  # nodes make the grey picture, each for itself
WARM_UP = 8  # frames that are detected before those that are measured


class _Clock:
    """Processor time of each part, in models and in all else, over the frames."""

    def __init__(self) -> None:
        self.spent_ms: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}

    def time(self, part: str, action: Callable[[], Any]) -> Any:
        began_s, models_s = time.thread_time(), seconds_in_models(cpu=True)
        result = action()
        in_models_s = seconds_in_models(cpu=True) - models_s
        self.spent_ms[part].append((1e3 * in_models_s, 1e3 * (time.thread_time() - began_s - in_models_s)))
        return result


def measure_flight(bag: str | Path, map_path: str | Path, *, frames: int = 60, detector: str = "yolo_compact",
                   segmenter: str = "segmenter_compact", tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The last frames of a recorded flight; those before are flown, so that the place is known, and not measured.

    Gives per part of PARTS the mean in_models_ms and overhead_ms (all else), of the path both sums, latency_ms, and
    overhead_share: of the latency, the overhead of all parts, those beside the path included. grey is counted once for
    each node that makes it, in the path and in the overhead. objects: detected, on average. tick: called for each
    frame. Raises ThermalReidError where the recording is no flight over the map.
    """
    on_one = {"threads": 1, "providers": ("cpu_int8", "cpu"), "log": lambda line: None}
    clock, objects, localized = _Clock(), [], 0
    with ExitStack() as held:
        semantic_map = held.enter_context(SemanticMap.open(map_path))
        flight = held.enter_context(Flight(bag, semantic_map))
        engines = [load_engine(name, **on_one) for name in (segmenter, detector)]
        for engine in engines:
            held.callback(engine.close)
        label, detect = Segmenter(engines[0]), Detector(engines[1])
        localizer = Localizer(semantic_map, confusion=label.confusion(ThermalUnits(flight.units).radiometric))
        reid, _ = load_reidentifier(flight.units, **on_one)
        held.callback(reid.close)
        first = max(len(flight.seconds) - frames, 0)
        number = 0
        for event in flight.events():
            if not isinstance(event, FrameEvent):
                feed(localizer, event)
            else:
                timed = clock if number >= first else _Clock()
                grey = timed.time("grey", event.frame.gray8)
                mask = timed.time("labelling", lambda: label.segment(event.frame))
                result = timed.time("filter", lambda: localizer.process(mask, flight.intrinsics))
                if number >= first - WARM_UP:
                    labels = timed.time("mask", lambda: cv2.resize(mask.labels, grey.shape[::-1],
                                                                   interpolation=cv2.INTER_NEAREST_EXACT))
                    found = timed.time("detection", lambda: detect.detect(grey, labels)).detections
                    timed.time("tracks", lambda: reid.process(event.frame, found, learn=False))
                    if found and not reid.probe_ids:
                        reid.add_probe(_probe(event.frame, found))
                    timed.time("ranking", reid.rank_all)
                    timed.time("learning", reid.learn)
                if timed is clock:
                    objects.append(len(found))
                    localized += result.fix is not None
                number += 1
                tick()
    if not objects:
        raise ThermalReidError(f"{bag}: holds no frames; give the recording of a flight")
    return {"frames": len(objects), "localized": localized, "objects": float(np.mean(objects)), **_shares(clock)}


def _probe(frame: Any, found: Any) -> Any:
    """A crop of the frame's largest object."""
    box = max(found, key=lambda detection: detection.width * detection.height)
    crop = crop_box(frame.values(), box)
    units = "celsius_f32" if frame.is_radiometric else "agc8"
    return make_probe([crop if frame.is_radiometric else crop.astype(np.uint8)], units, "largest", box.class_name)


def _shares(clock: _Clock) -> dict[str, Any]:
    parts = {}
    for part, spent in clock.spent_ms.items():
        in_models_ms, overhead_ms = np.mean(spent, axis=0) * (GREY_BY if part == "grey" else 1)
        parts[part] = {"in_models_ms": float(in_models_ms), "overhead_ms": float(overhead_ms)}
    latency_ms = sum(parts[part][key] for part in PATH for key in ("in_models_ms", "overhead_ms"))
    overhead_ms = sum(part["overhead_ms"] for part in parts.values())
    return {"parts": parts, "latency_ms": latency_ms, "overhead_ms": overhead_ms,
            "overhead_share": overhead_ms / latency_ms}
