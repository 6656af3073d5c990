"""Speed and memory of the virtual city's rendering: one process, one thread."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.world.city import build_city
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.film import in_view
from thermalreid_ros.world.population import Population
from thermalreid_ros.world.render import Renderer
from thermalreid_ros.world.sensor import GainControl, ThermalSensor, ThermalSensorParameters
from thermalreid_ros.world.truth import true_objects
from thermalreid_ros.world.weather import Weather

_NOON = datetime(2025, 7, 15, 11, tzinfo=timezone.utc)
_SECOND_NS = 1_000_000_000
_FRAMES_A_PLACE = 5


def time_world(map_path: Path, *, size_m: float, frames: int, seed: int = 1,
               tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Build a city of size_m and fly over it: at random places, 60-130 m up, five frames of 640x512 px each, a metre
    apart, as a camera at 10 Hz takes them, in all bands with truth.

    frames_per_s: by the processor's time, which other work on the machine hardly changes, of what a data set needs:
    both bands, both cameras, gain control and truth; thermal_frames_per_s: the thermal band and truth alone.
    seconds: build_city, prepare (shadows, sky, temperatures). memory_mb: the process's peak.
    """
    cv2.setNumThreads(1)
    seconds = {}
    with _Clock(seconds, "build_city"):
        city = build_city(map_path, size_m=size_m, seed=seed)
    with _Clock(seconds, "prepare"):
        renderer = Renderer(city, Weather.clear())
        renderer.set_time(_NOON)
    population = Population(city, seed)
    intrinsics = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
    thermal = ThermalSensor(ThermalSensorParameters(), intrinsics, seed)
    visible = ColourCamera(ColourCameraParameters(), intrinsics, seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xBE7C]))
    x_min, y_min, x_max, y_max = city.bounds
    all_bands, thermal_alone, objects, stamp_ns = [], [], 0, 0
    for number in range(frames + 1):
        if number == 0 or number % _FRAMES_A_PLACE == 1:
            place, yaw = rng.uniform((0.7 * x_min, 0.7 * y_min), (0.7 * x_max, 0.7 * y_max)), rng.uniform(0, 2 * np.pi)
            altitude_m, depression_rad = rng.uniform(60, 130), rng.uniform(0.7, 1.57)
        place = place + np.array([np.cos(yaw), np.sin(yaw)])
        ground = float(city.relief.height_m(place[:1], place[1:])[0])
        pose = Pose.looking([*place, ground + altitude_m], yaw, depression_rad)
        actors = in_view(population, pose, intrinsics, 0.1 * number)
        for colour, times in ((True, all_bands), (False, thermal_alone)):
            start = time.process_time()
            capture = renderer.capture(pose, intrinsics, actors, colour=colour)
            stamp_ns += _SECOND_NS
            frame = thermal.capture(capture.radiance, stamp_ns)
            GainControl().grey(frame)
            if colour:
                visible.capture(capture.colour, stamp_ns)
            found = true_objects(capture, actors, city.grid)
            times.append(time.process_time() - start)
        objects += len(found)
        tick()
    return {"size_m": [x_max - x_min, y_max - y_min], "faces": len(city.mesh.faces), "frames": frames,
            "objects_per_frame": objects / (frames + 1), "seconds": seconds,
            # The first frame makes tables and the sensors' patterns.
            "frames_per_s": frames / sum(all_bands[1:]), "thermal_frames_per_s": frames / sum(thermal_alone[1:]),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0}


class _Clock:
    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.process_time()

    def __exit__(self, *_) -> None:
        self.seconds[self.name] = time.process_time() - self.start
