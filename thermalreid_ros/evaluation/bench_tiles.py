"""Speed of the tile search, and how it grows with the map."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from thermalreid_ros.evaluation.bench import summary
from thermalreid_ros.localization.tile_search import TileSearch
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, TileDescriptors, Tiles

COUNTS = (10_000, 100_000, 1_000_000)
RADII_M = (300.0, 800.0, 2000.0, np.inf)


def time_tile_search(counts: Sequence[int] = COUNTS, *, dimension: int = 64, runs: int = 50, seed: int = 1,
                     tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Search square maps of about so many tiles, with random descriptors on disk, for the ten closest.

    By count: tiles, megabytes (of the file), resident_mb (the process's peak so far), and by radius ("all": no prior):
    searched, median_ms, p99_ms, processor_ms (median of the processor's time, which other work on the machine hardly
    changes), first_ms (the search that reads the area). Without the network, which does not grow.
    """
    rng = np.random.default_rng(seed)
    results = {}
    for count in counts:
        side_m = LOCALIZATION_TILING.side_m + LOCALIZATION_TILING.step_m * (round(np.sqrt(count)) - 1)
        tiles = Tiles(SimpleNamespace(bounds=(0.0, 0.0, side_m, side_m)), LOCALIZATION_TILING)
        with tempfile.TemporaryDirectory() as folder:
            rows = np.memmap(Path(folder) / "rows", np.float16, "w+", shape=(len(tiles), dimension))
            for start in range(0, len(tiles), 1 << 16):
                values = rng.standard_normal((min(1 << 16, len(tiles) - start), dimension), np.float32)
                rows[start:start + len(values)] = values / np.linalg.norm(values, axis=1, keepdims=True)
            row = {"tiles": len(tiles), "megabytes": rows.nbytes / 1e6, "radius_m": {}}
            for radius_m in RADII_M:
                search = TileSearch(TileDescriptors(tiles, rows), None)
                # Without a prior: a circle around the whole map.
                reach_m = min(radius_m, 2 * side_m)
                times, processor = [], []
                for _ in range(runs + 1):
                    query = rows[rng.integers(len(tiles))].astype(np.float32)
                    began, used = time.perf_counter(), time.process_time()
                    search.nearest(query, side_m / 2, side_m / 2, reach_m)
                    processor.append(1e3 * (time.process_time() - used))
                    times.append(1e3 * (time.perf_counter() - began))
                    tick()
                spread = summary(times[1:])
                near = ((tiles.centres - side_m / 2) ** 2).sum(axis=1) <= reach_m ** 2
                row["radius_m"]["all" if np.isinf(radius_m) else f"{radius_m:g}"] = {
                    "searched": int(near.sum()), "median_ms": spread["median"], "p99_ms": spread["p99"],
                    "processor_ms": float(np.median(processor[1:])), "first_ms": times[0]}
            row["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
            results[str(count)] = row
    return results
