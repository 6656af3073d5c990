"""Learning the distance between labellings and tiles: what is drawn, the loss, the loop and the export."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from osm_files import OsmFile  # noqa: E402
from thermalreid_ros import cli  # noqa: E402
from thermalreid_ros.engine import load_engine  # noqa: E402
from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.localization.tile_search import TileSearch  # noqa: E402
from thermalreid_ros.maps.build import build_map  # noqa: E402
from thermalreid_ros.maps.store import SemanticMap  # noqa: E402
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, Tiles  # noqa: E402
from thermalreid_ros.training.tile_distance import TileRecipe, contrastive_loss, load_weights, train  # noqa: E402
from thermalreid_ros.training.tile_views import MapAtlas, ViewRecipe, ViewSampler  # noqa: E402

EXACT = ViewRecipe(offset_m=0.0, yaw_rad=0.0, scale=0.0, lawns=0.0, paving=0.0, mown=0.0, crowns=0.0, blobs=0.0,
                   holes=0.0, displaced_m=0.0, jitter_m=0.0, removed=0.0, added=0.0)
SMALL = TileRecipe(batch=4, group=4, width=0.25, dimension=8)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """1.2 km x 0.8 km of houses, fields and roads."""
    folder, osm, rng = tmp_path_factory.mktemp("town"), OsmFile(1200, 800), np.random.default_rng(5)
    for x, y, w, h in rng.uniform((0, 0, 60, 60), (1100, 700, 150, 150), (14, 4)):
        osm.box(x, y, x + w, y + h, {"landuse": "farmland"})
    for x in range(40, 1180, 120):
        osm.way([(x, 5), (x + 30, 795)], {"highway": "residential"})
    for x, y, w, h in rng.uniform((5, 5, 8, 8), (1150, 750, 30, 25), (220, 4)):
        osm.box(x, y, x + w, y + h, {"building": "yes", "height": "6"})
    build_map(osm.write(folder / "town.osm"), folder / "town.tif")
    return folder / "town.tif"


@pytest.fixture(scope="module")
def atlas(town):
    return MapAtlas([town], "cpu")


def sampler_of(atlas, **changes) -> ViewSampler:
    return ViewSampler(atlas, replace(EXACT, **changes), seed=1, group=4)


def test_tiles_are_those_of_the_map(town, atlas):
    with SemanticMap.open(town) as semantic_map:
        tiles = Tiles(semantic_map, LOCALIZATION_TILING)
        rows = np.arange(0, len(tiles), 37)
        centres = torch.from_numpy(tiles.centres[rows].astype(np.float32))
        drawn = sampler_of(atlas).tiles(torch.zeros(len(rows), dtype=torch.long), centres).numpy()
        assert (drawn == np.stack([tiles.window(row) for row in rows])).all()
        np.testing.assert_array_equal(atlas.tile_centres[0].numpy(), tiles.centres.astype(np.float32))


def test_the_held_out_quarter_is_never_drawn(atlas):
    x = atlas.places[:, 0]
    assert 0.2 < atlas.held_out.float().mean() < 0.3
    border = x[atlas.held_out].min()
    assert x[atlas.usable].max() < border - 150
    sampler = sampler_of(atlas)
    for number in range(20):
        sampler.seed(number)
        _, points = sampler._draw_places(2)
        assert points[:, 0].max() < border - 150 + 8 and len(points) == 8


def test_batches_repeat_and_differ(atlas):
    sampler = ViewSampler(atlas, ViewRecipe(), seed=1, group=4)
    first, again, other = sampler.batch(5, 2), sampler.batch(5, 2), sampler.batch(4, 2)
    assert all((a == b).all() for a, b in zip(first, again)) and (first[1] != other[1]).any()
    tiles, views, near = first
    assert tiles.shape == views.shape == (8, 128, 128) and tiles.dtype == views.dtype == torch.uint8
    assert set(views.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    assert (near == near.T).all() and not near.diagonal().any()


def test_a_view_without_errors_is_its_tile_where_it_is_seen(atlas):
    down = (np.pi / 2 - 1e-4, np.pi / 2)
    sampler = sampler_of(atlas, altitude_m=(400.0, 400.0), field_of_view_rad=(0.15, 0.3), depression_rad=down)
    tiles, views, _ = sampler.batch(0, 4)
    seen = views != 255
    assert 0.1 < seen.float().mean() < 0.7
    assert (views == tiles)[seen].float().mean() > 0.985  # houses of 6 m lean by less than a metre
    share = seen.float().mean((1, 2))
    assert share.min() >= (2 * 400 * np.tan(0.075)) ** 2 * 0.8 / 128**2 * 0.95


def test_houses_lean_away_from_the_camera(atlas):
    slanted = (np.pi / 4, np.pi / 4 + 1e-4)
    sampler = sampler_of(atlas, altitude_m=(60.0, 60.0), field_of_view_rad=(1.0, 1.0), depression_rad=slanted)
    tiles, views, _ = sampler.batch(0, 4)
    seen = views != 255
    assert ((views == 2) & seen).sum() > 1.1 * ((tiles == 2) & seen).sum()
    assert ((views == 2) | (tiles != 2) | ~seen).float().mean() > 0.999  # and hide nothing of themselves


def test_errors_come_in_the_shares_asked_for(atlas):
    sampler = sampler_of(atlas, removed=0.4)
    tiles, views, _ = sampler.batch(1, 16)
    built = (tiles == 2) & (views != 255)
    assert 0.2 < ((views == 0) & built).sum() / built.sum() < 0.5  # some of them hidden behind others
    sampler = sampler_of(atlas, lawns=0.3)
    tiles, views, _ = sampler.batch(1, 32)
    ground = (tiles == 0) & (views != 255) & (views != 2)
    assert 0.2 < ((views == 3) & ground).sum() / ground.sum() < 0.4


def test_the_loss_pulls_pairs_together_and_leaves_neighbours_alone():
    vectors = torch.nn.functional.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    nowhere = torch.zeros(6, 6, dtype=torch.bool)
    good, closest = contrastive_loss(vectors, vectors, nowhere, torch.tensor(30.0))
    bad, mistaken = contrastive_loss(vectors, vectors.roll(1, 0), nowhere, torch.tensor(30.0))
    assert good < 0.05 < 5 < bad and closest == 1 and mistaken == 0
    twins = vectors.clone()
    twins[1] = twins[0]
    near = nowhere.clone()
    near[0, 1] = near[1, 0] = True
    told_apart, _ = contrastive_loss(twins, twins, nowhere, torch.tensor(30.0))
    left_alone, _ = contrastive_loss(twins, twins, near, torch.tensor(30.0))
    assert left_alone < 0.05 < 0.2 < told_apart


def test_training_resumes_exports_and_describes_a_map(town, tmp_path, capsys):
    lines = []
    out = tmp_path / "run"
    train(SMALL, [town], out, minutes=1e-6, queries=0, log=lines.append)
    assert not any("resumed" in line for line in lines)
    begun = load_weights(out / "weights.pt")[1]
    assert begun["step"] == 1  # the time is looked at after each step
    train(SMALL, [town], out, minutes=begun["seconds"] / 60 + 0.03, queries=8, log=lines.append)
    assert any(line.startswith("resumed at step 1, ") for line in lines)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 1 and np.isfinite(log[0]["loss"])
    _, state = load_weights(out / "weights.pt")
    assert state["step"] >= 2 and state["seconds"] >= begun["seconds"] + 1.8
    for values in state["metrics"].values():
        assert 0 <= values["recall1"] <= values["recall5"] <= 1 and values["tiles"] > 5
    with pytest.raises(ThermalReidError, match="another recipe .batch, group differ"):
        train(replace(SMALL, batch=6, group=6), [town], out, minutes=1.0)
    with pytest.raises(ThermalReidError, match="no whole number of groups"):
        train(replace(SMALL, batch=6), [town], tmp_path / "other", minutes=1.0)
    (tmp_path / "cut.pt").write_bytes((out / "weights.pt").read_bytes()[:3000])
    with pytest.raises(ThermalReidError, match="cut.pt: no weights of a tile distance"):
        load_weights(tmp_path / "cut.pt")

    onnx = tmp_path / "tile_distance.onnx"
    assert cli.main(["train", "export-tile-distance", "--weights", str(out / "weights.pt"), "--map", str(town),
                     "--data", "a town", "--licence", "none", "--command", "thermalreid train", "--out",
                     str(onnx)]) == 0
    engine = load_engine(onnx, providers=("cpu",))
    assert engine.card.parity["max_abs_difference"] <= 1e-3 and len(engine.card.metrics) == 4
    assert cli.main(["map", "describe", str(town), "--model", str(onnx), "--providers", "cpu"]) == 0
    assert "tiles, 8 numbers each" in capsys.readouterr().out
    with SemanticMap.open(town) as semantic_map:
        search, tiles = TileSearch.open(semantic_map, engine), Tiles(semantic_map, LOCALIZATION_TILING)
        row = len(tiles) // 2
        found = search.search(tiles.window(row), *tiles.centres[row], 100.0, 1)
        np.testing.assert_allclose(found.distances, 0.0, atol=2e-3)
        assert np.linalg.norm(search.describe(tiles.window(row))) == pytest.approx(1.0, abs=1e-5)


def test_a_map_of_nothing_is_refused(tmp_path):
    build_map(OsmFile(600, 600).write(tmp_path / "empty.osm"), tmp_path / "empty.tif", resolution_m=2.0)
    with pytest.raises(ThermalReidError, match="empty.tif: too small or too uniform"):
        MapAtlas([tmp_path / "empty.tif"], "cpu")
