"""The closest tiles: exact, near the rough position, with the descriptors that belong to the map."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files import OsmFile
from thermalreid_ros import cli
from thermalreid_ros.evaluation.bench_tiles import time_tile_search
from thermalreid_ros.localization.tile_search import TileMatches, TileSearch, describe_map
from thermalreid_ros.localization.types import LocalizationError
from thermalreid_ros.maps.build import build_map
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, TileDescriptors, Tiles, TilesError, descriptors_path

RNG = np.random.default_rng(3)
TILES = Tiles(SimpleNamespace(bounds=(0.0, 0.0, 2100.0, 1300.0)), LOCALIZATION_TILING)
VECTORS = RNG.standard_normal((len(TILES), 16)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


class PooledEngine:
    """A descriptor that needs no learning: how much of each class lies in each of 8 x 8 cells."""

    def __init__(self, sha256: str = "pooled"):
        self.card = SimpleNamespace(sha256=sha256)

    def run(self, inputs):
        labels = inputs["labels"]
        cells = labels.reshape(len(labels), 8, 16, 8, 16)
        values = np.stack([(cells == value).mean(axis=(2, 4)) for value in range(5)], -1).reshape(len(labels), -1)
        return {"descriptor": (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)}


@pytest.fixture
def town(tmp_path):
    osm, rng = OsmFile(900, 700), np.random.default_rng(5)
    for x, y, w, h in rng.uniform((0, 0, 8, 8), (880, 680, 40, 30), (120, 4)):
        osm.box(x, y, x + w, y + h, {"building": "yes"})
    osm.box(300, 0, 420, 700, {"natural": "water"})
    build_map(osm.write(tmp_path / "town.osm"), tmp_path / "town.tif")
    with SemanticMap.open(tmp_path / "town.tif") as semantic_map:
        yield semantic_map


def brute_force(vectors, query, x, y, radius_m, count):
    near = np.flatnonzero(((TILES.centres - (x, y)) ** 2).sum(axis=1) <= radius_m ** 2)
    distance = 1 - vectors[near].astype(np.float32) @ query
    order = np.argsort(distance, kind="stable")[:count]
    return near[order], distance[order]


@settings(max_examples=60, deadline=None)
@given(x=st.floats(-800, 3000), y=st.floats(-800, 2000), radius_m=st.floats(0, 4000), count=st.integers(1, 40),
       half=st.booleans(), seed=st.integers(0, 1000))
def test_the_search_is_exact(x, y, radius_m, count, half, seed):
    vectors = VECTORS.astype(np.float16) if half else VECTORS
    query = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    query /= np.linalg.norm(query)
    found = TileSearch(TileDescriptors(TILES, vectors), None).nearest(query, x, y, radius_m, count)
    rows, distances = brute_force(vectors, query, x, y, radius_m, count)
    np.testing.assert_allclose(found.distances, distances, atol=2e-6)
    assert (np.diff(found.distances) >= 0).all() and len(found) == len(rows)
    # Rows may only differ where distances do not.
    assert (found.rows == rows).mean() > 0.9 if len(rows) else not len(found)
    np.testing.assert_array_equal(found.centres, TILES.centres[found.rows])


def test_a_search_that_moves_finds_what_a_fresh_one_finds():
    moving = TileSearch(TileDescriptors(TILES, VECTORS.astype(np.float16)), None)
    for x in range(0, 2200, 150):
        query = VECTORS[(7 * x) % len(TILES)]
        fresh = TileSearch(TileDescriptors(TILES, VECTORS.astype(np.float16)), None).nearest(query, x, 600.0, 350.0)
        found = moving.nearest(query, x, 600.0, 350.0)
        assert found.rows.tolist() == fresh.rows.tolist() and (found.distances == fresh.distances).all()
        assert sum(run.x.size for run in moving._held.values()) <= 3 * 3 * 256  # what it passed is given back


def test_the_best_tile_says_where_the_camera_is():
    matches = TileMatches(np.array([4, 9]), np.array([[500.0, 300.0], [532.0, 300.0]]), np.array([0.1, 0.2]))
    assert matches.camera_places(np.array([40.0, -25.0])).tolist() == [[460.0, 325.0], [492.0, 325.0]]


def test_a_map_is_described_and_each_tile_finds_itself(town):
    engine, told = PooledEngine(), []
    written = describe_map(town, engine, told.append)
    tiles = Tiles(town, LOCALIZATION_TILING)
    assert sum(told) == len(tiles) == len(written.rows) and written.rows.dtype == np.float16
    search = TileSearch.open(town, engine)
    for row in range(0, len(tiles), 23):
        if len(np.unique(tiles.window(row))) < 3:
            continue
        found = search.search(tiles.window(row), *(tiles.centres[row] + (40.0, -60.0)), 200.0, 3)
        assert found.rows[0] == row and found.distances[0] < 1e-3 < found.distances[1]


def test_descriptors_that_are_not_there_or_another_networks_are_refused(town):
    with pytest.raises(TilesError, match="compute them first"):
        TileSearch.open(town, PooledEngine())
    describe_map(town, PooledEngine())
    with pytest.raises(TilesError, match="another model"):
        TileSearch.open(town, PooledEngine("newer"))


def test_an_interrupted_description_leaves_the_old_one(town):
    describe_map(town, PooledEngine())
    before = descriptors_path(town.path).read_bytes()

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        describe_map(town, PooledEngine("newer"), interrupt)
    assert descriptors_path(town.path).read_bytes() == before
    assert sorted(path.suffix for path in town.path.parent.iterdir()) == [".gz", ".osm", ".tif", ".tiles"]


@pytest.mark.parametrize("labels", [np.zeros((128, 128)), np.zeros((64, 64), np.uint8), np.zeros(128, np.uint8)])
def test_what_is_no_labelling_is_refused(labels):
    with pytest.raises(LocalizationError, match="uint8 .128, 128."):
        TileSearch(TileDescriptors(TILES, VECTORS), PooledEngine()).search(labels, 0.0, 0.0, 100.0)


def test_a_descriptor_of_another_length_is_refused():
    with pytest.raises(LocalizationError, match="compute the map's again"):
        TileSearch(TileDescriptors(TILES, VECTORS), None).nearest(np.ones(5, np.float32), 0.0, 0.0, 100.0)


def test_the_benchmark_measures_growth(monkeypatch, tmp_path, capsys):
    measured = time_tile_search((100, 900), dimension=8, runs=3)
    assert [row["tiles"] for row in measured.values()] == [100, 900]
    for row in measured.values():
        assert row["radius_m"]["all"]["searched"] == row["tiles"] and row["megabytes"] == row["tiles"] * 16 / 1e6
        assert all(0 < found["median_ms"] <= found["p99_ms"] for found in row["radius_m"].values())
    assert measured["900"]["radius_m"]["300"]["searched"] < 300
    monkeypatch.setattr("thermalreid_ros.evaluation.bench_tiles.COUNTS", (100,))
    assert cli.main(["bench", "--parts", "tiles", "--runs", "2", "--json", str(tmp_path / "out.json")]) == 0
    assert "processor_ms" in capsys.readouterr().out and (tmp_path / "out.json").is_file()
