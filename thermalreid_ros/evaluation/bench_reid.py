"""Speed of re-identification, without ROS: how long a search takes to begin, and how long a ranking takes.

Frames are those of the benchmark's camera in degrees Celsius; objects are boxes laid over them in a grid, of the size
that cars have from 100 m. Times are milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera import ThermalUnits, make_frame
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.engine import DEFAULT_PROVIDERS, load_engine
from thermalreid_ros.evaluation import bench_camera
from thermalreid_ros.evaluation.bench import summary
from thermalreid_ros.reid.embedding import describe_probe
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.gallery import Gallery
from thermalreid_ros.reid.loading import load_embedder, load_length_teller
from thermalreid_ros.reid.probe import Probe, make_probe
from thermalreid_ros.reid.reidentifier import FUSED, Reidentifier
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer, SynthesisError

CANDIDATES, PROBES, PICTURES = 100, 5, 5
MATCHING_TARGET_MS, READY_TARGET_MS = 20.0, 2000.0
BOX_PX, PROBE_PX = (28, 22), (86, 60)
DIMENSIONS = 128  # of descriptors, where there is no embedding to make them
WARM_UP_FRAMES = 6  # until a track has all the signatures that are kept
_NOON = datetime(2025, 7, 15, 11, tzinfo=timezone.utc)


def time_matching(runs: int, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Ranking 100 tracks against 5 probes of 5 pictures each, all methods' terms: `new`, where every track has been
    seen anew, as after a frame; `known`, where none has."""
    rng = np.random.default_rng(0)
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=FusedModel.load())
    frames = [bench_camera.in_units(grey, ThermalUnits.CELSIUS_F32)[0] for grey in bench_camera.grey_frames(5)]
    reid.gallery.to_sign = lambda track_ids, **_: list(track_ids)  # the worst that a frame can bring, not the usual
    for number in range(PROBES):
        reid.add_probe(_probe(frames, number, rng))
    boxes, new_ms, known_ms = _boxes(), [], []
    for run in range(WARM_UP_FRAMES + runs):
        frame = make_frame(frames[run % len(frames)], "32FC1", "celsius_f32", (run + 1) * 200_000_000, "camera")
        for item in reid.process(frame, boxes).tracked:
            reid.gallery.describe(item.track_id, _unit(rng, 1)[0], np.full(4, 0.25, np.float32))
        for times_ms in (new_ms, known_ms):
            began_s = time.perf_counter()
            reid.rank_all()
            times_ms.append(1e3 * (time.perf_counter() - began_s))
        if run >= WARM_UP_FRAMES:
            tick()
    return {"candidates": CANDIDATES, "probes": PROBES, "pictures": PICTURES, "runs": runs,
            "new_ms": summary(new_ms[WARM_UP_FRAMES:]), "known_ms": summary(known_ms[WARM_UP_FRAMES:])}


def time_probe(runs: int, *, model: str = "thermal_synthesis", embedding: str = "reid_embedding",
               providers: Sequence[str] = DEFAULT_PROVIDERS, threads: int = 0,
               tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """From a photograph of 640x480 to a probe of 5 pictures with signatures and, where the embedding is there,
    descriptors: `ready`, with the search for the object in the photograph; `boxed`, where a box is given."""
    engine = load_engine(model, providers=providers, threads=threads, log=lambda line: None)
    embedder, told = load_embedder(embedding, providers=providers, threads=threads)
    teller, tells = load_length_teller("photograph_length", providers=providers, threads=threads)
    synthesizer, conditions = ProbeSynthesizer(engine), Conditions.at(_NOON, 48.4, 15.6, 20.0, 0.4, None)
    photograph, box = _photograph(), (180.0, 160.0, 460.0, 320.0)
    boxed_ms, ready_ms = [], []
    for run in range(1 + runs):
        began_s = time.perf_counter()
        try:
            synthesizer.synthesize(photograph, conditions, count=1, class_name="car")
        except SynthesisError:  # it is a drawing: whether it is taken for a car does not matter, only the time
            pass
        found_s = time.perf_counter()
        made = synthesizer.synthesize(photograph, conditions, box=box, count=PICTURES, class_name="car")
        descriptors = None if embedder is None else describe_probe(embedder, [(photograph, box)], made.squares)
        length = None if teller is None else teller.tell([(photograph, box)], "car")
        make_probe(made.crops, "celsius_f32", "bench", "car", descriptors=descriptors, length=length)
        ended_s = time.perf_counter()
        boxed_ms.append(1e3 * (ended_s - found_s))
        ready_ms.append(1e3 * (ended_s - began_s))
        if run:
            tick()
    for loaded in (engine, embedder, teller):
        if loaded is not None:
            loaded.close()
    return {"model": engine.card.name, "embedding": told, "length_model": tells, "pictures": PICTURES, "runs": runs,
            "ready_ms": summary(ready_ms[1:]), "boxed_ms": summary(boxed_ms[1:])}


def _probe(frames: Sequence[np.ndarray], number: int, rng: np.random.Generator) -> Probe:
    width, height = PROBE_PX
    crops = [cv2.resize(frame[100 + 40 * number:][:height // 2, 200:][:, :width // 2], PROBE_PX,
                        interpolation=cv2.INTER_CUBIC) for frame in frames]
    return make_probe(crops, "celsius_f32", f"probe {number}", "car", descriptors=_unit(rng, 1 + len(crops)))


def _boxes() -> list[Detection]:
    width, height = BOX_PX
    corners = [(20 + 60 * (n % 10), 10 + 49 * (n // 10)) for n in range(CANDIDATES)]
    return [Detection(0, 0.9, x, y, x + width, y + height) for x, y in corners]


def _unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _photograph() -> np.ndarray:
    """A red car of sorts on a road, uint8 (480, 640, 3) RGB."""
    picture = np.random.default_rng(1).normal((110, 112, 115), 6, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    cv2.rectangle(picture, (190, 215), (450, 300), (170, 30, 30), -1)
    cv2.rectangle(picture, (240, 170), (400, 215), (60, 70, 90), -1)
    for x in (240, 400):
        cv2.circle(picture, (x, 300), 20, (25, 25, 25), -1)
    return picture
