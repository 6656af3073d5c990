"""Training of synthesis and embedding: small, on the CPU, with numbers."""

import json

import numpy as np
import pytest

from thermalreid_ros.cli import main
from thermalreid_ros.errors import ThermalReidError

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.training import embedding, synthesis  # noqa: E402
from thermalreid_ros.training.lengths import LengthNetwork  # noqa: E402
from thermalreid_ros.training.pairs import (  # noqa: E402
    cut,
    middle_squares,
    random_squares,
    read_pairs,
    read_sketches,
    soften,
)
from thermalreid_ros.training.synthesizers import UNet, conditions_of, ssim  # noqa: E402
from thermalreid_ros.training.weights import write_weights  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """36 identities, 9 of each class, seen in 2 sessions: bright squares, the warmer the redder."""
    out = tmp_path_factory.mktemp("pairs")
    (out / "sessions").mkdir()
    rng = np.random.default_rng(0)
    names = [f"{kind}-{number:04d}" for number in range(9) for kind in ("car", "person", "bicycle", "dog")]
    for view in range(2):
        colour = rng.integers(60, 90, (36, 128, 128, 3), dtype=np.uint8)
        mask = np.zeros((36, 128, 128), np.uint8)
        mask[:, 40:88, 30:98] = 1
        heat = np.linspace(0, 20, 36)[:, None, None]
        colour[..., 0] += (mask * (40 + 5 * heat)).astype(np.uint8)
        near = (28000 + 100 * mask * heat + rng.normal(0, 20, mask.shape)).astype(np.uint16)
        drone = np.stack([picture[16:112, 16:112] for picture in near])[:, None]
        np.savez(out / "sessions" / f"000_{view:02d}.npz", label=np.tile(np.arange(4), 9), colour=colour, mask=mask,
                 near_first=near, near_second=near, drone=drone, drone_px=np.full((36, 1), 40, np.float32),
                 identity=np.array(names), seed=7, first=np.float32([12, 6.85, 0, 0.5, 2, 0]),
                 second=np.float32([3, 6.85, 0, -0.5, 2, 0]))
    return out


def test_sets_are_read_and_split_by_identity(folder):
    pairs = read_pairs([folder])
    assert len(pairs) == 72 and pairs.identities == 36
    assert int(pairs.held_out().sum()) == 8  # number 7 of each class, twice
    rest = pairs.only(~pairs.held_out())
    assert rest.identities == 32 and rest.colour.shape == (64, 3, 128, 128)
    with pytest.raises(ThermalReidError, match="world pairs"):
        read_pairs([folder / "sessions"])


def test_the_middle_square_is_the_middle():
    ramp = torch.arange(128.0).add(0.5).expand(1, 1, 128, 128)
    crop = cut(ramp, middle_squares(1, ramp.device), 96)
    side = 128 * 1.5 / 1.8
    expected = 64 - side / 2 + (torch.arange(96) + 0.5) * side / 96
    torch.testing.assert_close(crop[0, 0, 5], expected, atol=1e-3, rtol=0)
    torch.manual_seed(0)
    squares = random_squares(4000, ramp.device, margin=(1.3, 1.75))
    assert abs(float((squares[:, 0, 0] < 0).float().mean()) - 0.5) < 0.05
    assert 1.3 / 1.8 <= float(squares[:, 0, 0].abs().min()) and float(squares[:, 0, 0].abs().max()) <= 1.75 / 1.8


def test_softening_keeps_the_mean_and_takes_the_detail():
    torch.manual_seed(0)
    noise = torch.randn(3, 2, 64, 64)
    soft = soften(noise, torch.tensor([64.0, 32.0, 12.0]))
    torch.testing.assert_close(soft[0], noise[0], atol=1e-3, rtol=0)
    assert float(soft[1].std()) < 0.7 and float(soft[2].std()) < 0.25
    torch.testing.assert_close(soften(torch.full((1, 1, 64, 64), 5.0), torch.tensor([10.0])),
                               torch.full((1, 1, 64, 64), 5.0))


def test_similarity_is_one_for_equals_and_falls_with_noise():
    torch.manual_seed(0)
    picture = torch.randn(1, 1, 32, 32).cumsum(2)
    assert float(ssim(picture, picture, 10.0).mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(ssim(picture, picture + torch.randn_like(picture) * 3, 10.0).mean()) < 0.8


def test_mean_maps_are_level_on_the_object_and_around_it():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    excess = 3.0 + 4.0 * mask
    level, mean = synthesis.mean_map(excess, mask)
    torch.testing.assert_close(level, excess)
    assert float(mean) == pytest.approx(7.0)


def test_conditions_change_what_the_generator_makes():
    torch.manual_seed(0)
    net = UNet(3, 2, conditions=5, widths=(4, 8, 8, 8, 8)).eval()
    for up in net.up:
        torch.nn.init.normal_(up.modulation.weight)
    picture = torch.randn(1, 3, 32, 32)
    noon, night = (conditions_of(*(torch.tensor([v]) for v in values)) for values in ((12., 20., 0., .8),
                                                                                     (0., 5., 1., -.5)))
    assert net(picture, noon).shape == (1, 2, 32, 32)
    assert float((net(picture, noon) - net(picture, night)).detach().abs().max()) > 1e-3


def test_losses_fall_as_the_bands_agree():
    torch.manual_seed(0)
    size, ratio = embedding.COMPONENTS, embedding.EmbeddingNetwork().ratio.detach()
    centres, label = torch.randn(6, 1, size), torch.tensor([0, 0, 0, 3, 3, 3])
    near = [embedding.embedding_losses(centres + noise * torch.randn(6, 4, size),
                                       centres + noise * torch.randn(6, 4, size), label, ratio, 1.0)
            for noise in (0.01, 3.0)]
    for name in ("triplet", "centre", "contrast"):
        assert float(near[0][name]) < float(near[1][name]) - 0.2
    # K equal pictures share the likelihood, and nobody of another class does.
    assert np.log(4) < float(near[0]["contrast"]) < np.log(4) + 0.2


def test_photographs_and_thermal_pictures_of_a_batch_are_of_different_sessions(folder):
    pairs = read_pairs([folder])
    sampler = embedding.IdentitySampler(pairs, embedding.EmbeddingRecipe(identities=6, each=3))
    for step in range(20):
        colour, thermal = sampler(step)
        assert colour.shape[1:] == (3,) and not set(colour.ravel()) & set(thermal.ravel())
        assert (pairs.identity[colour] == pairs.identity[thermal]).all()


def test_batches_hold_all_classes_alike(folder):
    pairs = read_pairs([folder])
    sampler = embedding.IdentitySampler(pairs, embedding.EmbeddingRecipe(identities=8, each=1))
    for step in range(5):
        colour, _ = sampler(step)
        assert np.bincount(pairs.label[colour[:, 0]], minlength=4).tolist() == [2, 2, 2, 2]
        assert len(np.unique(pairs.identity[colour[:, 0]])) == 8


@pytest.mark.parametrize("part", ["synthesis", "embedding"])
def test_training_goes_on_where_it_stopped_and_is_exported(folder, tmp_path, capsys, part):
    command = ["train", part, "--pairs", str(folder), "--batch", "4", "--out", str(tmp_path / "run")]
    assert main([*command, "--steps", "1"]) == 0
    assert main([*command, "--steps", "2"]) == 0
    assert "resumed at step 1" in capsys.readouterr().out
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["training"]["steps"] == 2
    if part == "embedding":
        assert figures["mixed"]["probes"] == 8 and figures["mixed"]["gallery"] == 4
        assert figures["training"]["identities"] == 32
    else:
        assert len(figures["conditional"]["mean_offsets_k"]["car"]) == len(synthesis.QUANTILES)
        assert figures["thermalgan"]["second"]["mean_mae_k"] < 40
    assert main([*command, "--learning-rate", "0.5", "--steps", "3"]) == 2
    assert "another recipe" in capsys.readouterr().err
    assert main(["train", "export-objects", f"--{part}", str(tmp_path / "run" / "weights.pt"), "--pairs", str(folder),
                 "--data", "squares", "--licence", "Apache-2.0", "--command", "none", "--out", str(tmp_path)]) == 0
    wanted = {"synthesis": ["thermal_synthesis", "thermalgan"], "embedding": ["reid_embedding"]}[part]
    assert sorted(path.stem for path in tmp_path.glob("*.onnx")) == wanted


def test_shapes_are_learned_in_a_few_steps(tmp_path, monkeypatch):
    """Four shapes, of other colours and temperatures in each of two sessions: from chance, ln 4, to well below."""
    monkeypatch.setattr(embedding, "SIZE_PX", 32)
    rng = np.random.default_rng(0)
    (tmp_path / "sessions").mkdir()
    y, x = np.mgrid[:128, :128] - 63.5
    shapes = np.uint8([(abs(y) < 18) & (abs(x) < 45), (abs(x) < 12) & (abs(y) < 48), abs(np.hypot(y, x) - 35) < 10,
                       (abs(y - x) < 14) & (abs(x) < 40)])
    label = np.tile(np.arange(4), 8)
    mask = shapes[label]
    names = [f"{kind}-{number:04d}" for number in range(8) for kind in ("car", "person", "bicycle", "dog")]
    for view in range(2):
        colour = rng.integers(60, 90, (32, 128, 128, 3)) + mask[..., None] * rng.integers(60, 150, (32, 1, 1, 3))
        near = np.uint16(28000 + mask * rng.uniform(300, 1500, (32, 1, 1)) + rng.normal(0, 20, mask.shape))
        np.savez(tmp_path / "sessions" / f"000_{view:02d}.npz", label=label, colour=np.uint8(colour), mask=mask,
                 near_first=near, near_second=near, drone=near[:, None, 16:112, 16:112],
                 drone_px=np.full((32, 1), 40, np.float32), identity=np.array(names), seed=7,
                 first=np.float32([12, 6.85, 0, 0.5, 2, 0]), second=np.float32([3, 6.85, 0, -0.5, 2, 0]))
    recipe = embedding.EmbeddingRecipe(identities=12, each=1, warmup=5, seed=2)
    embedding.train(recipe, read_pairs([tmp_path], traits=True), tmp_path / "run", minutes=60, steps=60,
                    log=lambda line: None)
    losses = json.loads((tmp_path / "run" / "metrics.json").read_text())["training"]["losses"]
    assert losses["class"] < 2 * 0.6 * np.log(4)  # of both bands


@pytest.fixture(scope="module")
def sketches(tmp_path_factory):
    """12 cars in 2 views each, of which the last is never seen from above."""
    out, rng = tmp_path_factory.mktemp("sketches"), np.random.default_rng(0)
    (out / "sessions").mkdir()
    names = [f"car-{number // 2:04d}" for number in range(24)]
    pixels = np.full((24, 2), 40, np.float32)
    pixels[22:] = 0
    np.savez(out / "sessions" / "0000.npz", label=np.zeros(24, np.int64), identity=np.array(names), seed=8,
             colour=rng.integers(60, 90, (24, 128, 128, 3), dtype=np.uint8), drone_px=pixels,
             drone=rng.integers(28000, 29000, (24, 2, 96, 96), dtype=np.uint16), size_m=np.ones((24, 3), np.float32))
    return out


def test_sketches_are_learned_from_beside_pairs(folder, sketches):
    pairs, drawn = read_pairs([folder], traits=True), read_sketches([sketches])
    assert len(drawn) == 22 and drawn.identities == 11 and len(drawn.near) == 0
    both = pairs.with_sketches(drawn)
    assert len(both) == 94 and both.identities == 47 and len(both.near) == len(both.mask) == 72
    assert (both.traits[72:] == drawn.traits).all() and int(both.identity[72:].min()) == 36
    cars = both.only(both.label == 0)
    assert len(cars) == 18 + 22 and len(cars.near) == 18 and cars.identities == 20
    sampler = embedding.IdentitySampler(both, embedding.EmbeddingRecipe(identities=16, each=1, pairs_share=0.5))
    for step in range(5):
        colour, thermal = sampler(step)
        assert ((colour >= 72) == (thermal >= 72)).all() and int((colour >= 72).sum()) == 2  # half of the cars
    torch.manual_seed(0)
    crops = embedding.thermal_batch(both, torch.tensor([0, 80, 90]), 1.0, 96)
    assert crops.shape == (3, 1, 96, 96) and float(crops.mean()) < 40.0
    with pytest.raises(ThermalReidError, match="world sketches --drone"):
        read_sketches([folder / "sessions"])


def test_a_piece_of_another_picture_comes_in_from_one_side():
    torch.manual_seed(0)
    levels = 10.0 * torch.arange(12.0).view(12, 1, 1, 1)
    pictures = levels + torch.rand(12, 3, 96, 96)
    assert torch.equal(embedding.beside(pictures, 0.0), pictures)
    shown = embedding.beside(pictures, 1.0)
    changed = (shown != pictures).any(1)
    assert not changed[:, 28:68, 28:68].any()  # nearer to the middle than a quarter of the side
    share = changed.float().mean((1, 2))
    assert share.max() < 0.35 and (share > 0).sum() >= 8  # of itself a picture may show a piece that is the same
    assert (shown - levels).abs().max() < 1.6  # at the level of the picture that it comes into


def test_what_tells_lengths_is_begun_with(folder, sketches, tmp_path, capsys):
    torch.manual_seed(3)
    length = LengthNetwork(3)
    (tmp_path / "length").mkdir()
    weights = write_weights(length, tmp_path / "length", recipe={"kinds": 3}, step=0, metrics={})
    network = embedding.EmbeddingNetwork()
    network.load_length(weights)
    picture = torch.randint(0, 256, (2, 3, 96, 96)).float()
    network.eval(), length.eval()
    with torch.no_grad():
        begun = network.described(network.stems[0](network.colour_channels(picture)))
        torch.testing.assert_close(begun, length.described(picture), atol=1e-2, rtol=1e-2)
    command = ["train", "embedding", "--pairs", str(folder), "--sketches", str(sketches), "--length", str(weights),
               "--batch", "8", "--steps", "1", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert "22 sketches of 11 identities" in capsys.readouterr().out
    trained = embedding.load_weights(tmp_path / "run" / "weights.pt")[0]
    torch.testing.assert_close(trained.stems[0][1].running_var, network.stems[0][1].running_var)
    begun = command[:]
    begun[begun.index("--length"):begun.index(str(weights)) + 1] = ["--start", str(tmp_path / "run" / "weights.pt")]
    assert main([*begun[:-1], str(tmp_path / "on")]) == 0
    again = embedding.load_weights(tmp_path / "on" / "weights.pt")[0]
    torch.testing.assert_close(again.heads[1].weight, trained.heads[1].weight, atol=5e-3, rtol=0)
    assert main([*begun, "--length", str(weights)]) == 2
    assert "--length and --start" in capsys.readouterr().err
    command[command.index(str(weights))] = str(folder / "sessions" / "000_00.npz")
    assert main([*command[:-1], str(tmp_path / "other")]) == 2
    assert "000_00.npz" in capsys.readouterr().err


def test_faults_are_named_in_one_line(folder, tmp_path, capsys):
    assert main(["train", "embedding", "--pairs", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "world pairs" in capsys.readouterr().err
    assert main(["train", "export-objects", "--pairs", str(folder), "--data", "-", "--licence", "-", "--command", "-",
                 "--out", str(tmp_path)]) == 2
    (tmp_path / "weights.pt").write_bytes(b"no")
    assert main(["train", "export-objects", "--embedding", str(tmp_path / "weights.pt"), "--pairs", str(folder),
                 "--data", "-", "--licence", "-", "--command", "-", "--out", str(tmp_path)]) == 2
    assert "weights.pt" in capsys.readouterr().err
