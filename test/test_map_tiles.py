"""Tiles of a map and the file of their descriptors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files import OsmFile
from thermalreid_ros.maps.build import build_map
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.maps.tiles import (
    CELL_M,
    Tiles,
    TilesError,
    Tiling,
    descriptors_path,
    read_descriptors,
    write_descriptors,
)

TILING = Tiling(100.0, 64, 0.5)


@pytest.fixture
def semantic_map(tmp_path):
    osm = OsmFile(1800, 1200)
    osm.box(0, 0, 900, 1200, {"natural": "water"})
    build_map(osm.write(tmp_path / "area.osm"), tmp_path / "map.tif", resolution_m=2.0)
    with SemanticMap.open(tmp_path / "map.tif") as semantic_map:
        yield semantic_map


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    build_map(OsmFile(1800, 1200).write(folder / "area.osm"), folder / "map.tif", resolution_m=2.0)
    with SemanticMap.open(folder / "map.tif") as semantic_map:
        yield Tiles(semantic_map, TILING)


def test_tiles_cover_the_map_once_per_step(tiles):
    width, height = tiles._map.bounds[2:]
    columns, rows = np.unique(tiles.centres[:, 0]), np.unique(tiles.centres[:, 1])
    assert len(tiles) == len(columns) * len(rows) == len(np.unique(tiles.centres, axis=0))
    assert (np.diff(columns) == 50.0).all() and (np.diff(rows) == 50.0).all()
    assert columns[0] == rows[0] == 50.0
    assert 0 <= columns[-1] + 50 - width < 50 and 0 <= rows[-1] + 50 - height < 50


def test_rows_go_cell_by_cell(tiles):
    cells = (tiles.centres // CELL_M).astype(int)
    numbers = cells[:, 1] * 100 + cells[:, 0]
    assert (np.diff(numbers) >= 0).all()


@settings(max_examples=80, deadline=None)
@given(st.floats(-1500, 3500), st.floats(-1500, 3500), st.floats(0, 2500))
def test_runs_hold_all_tiles_within_a_radius(tiles, x, y, radius_m):
    runs = tiles.runs_near(x, y, radius_m)
    rows = np.concatenate([np.zeros(0, int), *(np.arange(run.start, run.stop) for run in runs)])
    near = np.flatnonzero(((tiles.centres - (x, y)) ** 2).sum(axis=1) <= radius_m ** 2)
    assert np.isin(near, rows).all() and (np.diff(rows) > 0).all()
    assert len(runs) <= int(2 * radius_m / CELL_M) + 2
    assert not len(rows) or np.abs(tiles.centres[rows] - (x, y)).max() <= radius_m + CELL_M


def test_windows_of_tiles(semantic_map):
    tiles = Tiles(semantic_map, TILING)
    stack = np.concatenate(list(tiles.batches(50)))
    assert stack.shape == (len(tiles), 64, 64)
    west = tiles.centres[:, 0] + 50 < 850
    inside = (np.abs(tiles.centres - np.array(semantic_map.bounds[2:]) / 2) < np.array([800, 500])).all(axis=1)
    assert (stack[west & inside] == 4).all() and (stack[~west & inside & (tiles.centres[:, 0] > 1000)] == 0).all()
    assert (stack[7] == tiles.window(7)).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_descriptors_come_back(semantic_map, dtype):
    tiles = Tiles(semantic_map, TILING)
    values = np.random.default_rng(1).standard_normal((len(tiles), 16)).astype(dtype)
    written = write_descriptors(semantic_map, TILING, "model-1", np.array_split(values, 9), dtype)
    read = read_descriptors(semantic_map, TILING, "model-1")
    assert read.rows.dtype == np.dtype(dtype) and (read.rows == values).all() and (written.rows == values).all()
    with pytest.raises(ValueError):
        read.rows[0, 0] = 1.0
    first = descriptors_path(semantic_map.path).read_bytes()
    write_descriptors(semantic_map, TILING, "model-1", [values], dtype)
    assert descriptors_path(semantic_map.path).read_bytes() == first


def test_descriptors_of_something_else_are_refused(semantic_map, tmp_path):
    count = len(Tiles(semantic_map, TILING))
    with pytest.raises(TilesError, match="compute them first"):
        read_descriptors(semantic_map, TILING, "model-1")
    write_descriptors(semantic_map, TILING, "model-1", [np.ones((count, 4))])
    with pytest.raises(TilesError, match="another model"):
        read_descriptors(semantic_map, TILING, "model-2")
    with pytest.raises(TilesError, match="another tiling"):
        read_descriptors(semantic_map, Tiling(100.0, 64, 0.25), "model-1")
    osm = OsmFile(1800, 1200)
    osm.box(0, 0, 901, 1200, {"natural": "water"})
    build_map(osm.write(tmp_path / "area.osm"), tmp_path / "map.tif", resolution_m=2.0)
    with SemanticMap.open(tmp_path / "map.tif") as newer, pytest.raises(TilesError, match="another map"):
        read_descriptors(newer, TILING, "model-1")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"x" + data,
                                    lambda data: data[:40], lambda data: b"", lambda data: data[:26] + b"[]\n"])
def test_damaged_descriptors_are_refused(semantic_map, damage):
    path = descriptors_path(semantic_map.path)
    write_descriptors(semantic_map, TILING, "model-1", [np.ones((len(Tiles(semantic_map, TILING)), 4))])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TilesError, match="compute them again"):
        read_descriptors(semantic_map, TILING, "model-1")


def test_failed_writing_leaves_the_old_file(semantic_map, tmp_path):
    count = len(Tiles(semantic_map, TILING))
    write_descriptors(semantic_map, TILING, "model-1", [np.ones((count, 4))])
    before = sorted(file.name for file in tmp_path.iterdir())
    for batches, words in (([np.ones((count - 1, 4))], "descriptors for"), ([np.full((count, 4), 1e9)], "finite"),
                           ([np.ones((1, 4)), np.ones((count - 1, 5))], "one length"), ([], "0 descriptors"),
                           ([np.ones(4)], "one length")):
        with pytest.raises(TilesError, match=words), np.errstate(over="ignore"):
            write_descriptors(semantic_map, TILING, "model-2", batches)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (read_descriptors(semantic_map, TILING, "model-1").rows == 1).all()


@pytest.mark.parametrize("values", [(0.0, 64, 0.5), (100.0, 0, 0.5), (100.0, 64, 1.0), (float("nan"), 64, 0.5),
                                    (100.0, 64, -0.1)])
def test_impossible_tilings(values):
    with pytest.raises(TilesError):
        Tiling(*values)


def test_a_map_of_one_cell_has_no_rows_above_it(tmp_path):
    build_map(OsmFile(300, 300).write(tmp_path / "area.osm"), tmp_path / "map.tif", resolution_m=2.0)
    with SemanticMap.open(tmp_path / "map.tif") as small:
        tiles = Tiles(small, TILING)
        assert tiles.runs_near(150.0, 150.0, 2000.0) == [slice(0, len(tiles))]
