"""The paper's two baselines: what they are, that they learn, resume, and fly as they were trained."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.cli import main
from thermalreid_ros.engine import load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.reid.embedding import Embedder

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.training import baselines  # noqa: E402
from thermalreid_ros.training.baselines import BaselineNetwork, BaselineRecipe  # noqa: E402
from thermalreid_ros.training.embedding import embed_pairs, ranked  # noqa: E402
from thermalreid_ros.training.pairs import read_pairs  # noqa: E402

NAMES = ("car", "person", "bicycle", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """16 identities, 4 of each class, each seen in 3 sessions in other light and heat: a class is a shape, its members
    are turned and filled differently. The fourth of each is numbered to be held out."""
    out = tmp_path_factory.mktemp("pairs")
    (out / "sessions").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] - 63.5
    plain = [(abs(y) < 20) & (abs(x) < 48), abs(np.hypot(y, x) - 34) < 12, (abs(y - x) < 16) & (abs(x) < 42),
             (abs(y) + abs(x) < 50) & (abs(y) > 8)]
    pictures = np.stack([mask * inner for inner in (1.0, np.where(x > 0, 1.0, 0.2), np.where(y > 0, 1.0, 0.2),
                                                    np.where(np.hypot(y, x) < 28, 1.0, 0.2)) for mask in plain])
    names = [f"{kind}-{number:04d}" for number in (0, 1, 2, 7) for kind in NAMES]
    for view in range(3):
        bright = rng.uniform(80, 150, (16, 1, 1, 1)) * pictures[..., None] * rng.uniform(0.9, 1.1, (16, 1, 1, 3))
        near = 28000 + pictures * rng.uniform(600, 1500, (16, 1, 1)) + rng.normal(0, 20, pictures.shape)
        near = near.astype(np.uint16)
        np.savez(out / "sessions" / f"000_{view:02d}.npz", label=np.tile(np.arange(4), 4),
                 colour=(bright + rng.integers(50, 80, bright.shape)).astype(np.uint8),
                 mask=(pictures > 0).astype(np.uint8), near_first=near, near_second=near,
                 drone=near[:, None, 16:112, 16:112], drone_px=np.full((16, 1), 80, np.float32),
                 identity=np.array(names), seed=7, first=np.float32([12, 6.85, 0, 0.5, 2, 0]),
                 second=np.float32([3, 6.85, 0, -0.5, 2, 0]))
    return out


@pytest.fixture
def small(monkeypatch):
    """Pictures of 32 px: a sixteenth of the work."""
    monkeypatch.setattr(baselines, "SIZE_PX", 32)


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_it_is_resnet50_with_last_stride_one():
    whole = BaselineNetwork("bot_bs", "visible", width=1.0)
    assert count(whole.stems, whole.features) == 23_508_032  # published ResNet-50 without its classifier
    assert whole.features(torch.zeros(1, 64, 64, 64)).shape == (1, 2048, 8, 8)


@pytest.mark.parametrize("bands", baselines.BANDS)
@pytest.mark.parametrize("network, dimensions", [("bot_bs", 320), ("vrai", 256)])
def test_networks_are_small_and_give_unit_vectors(network, dimensions, bands):
    torch.manual_seed(0)
    model = BaselineNetwork(network, bands).eval()
    assert 0.55e6 < count(model) < 0.7e6
    with torch.no_grad():
        for vectors in (model.colour(255 * torch.rand(2, 3, 128, 128)), model.thermal(torch.randn(2, 1, 128, 128))):
            assert vectors.shape == (2, dimensions) == (2, model.dimensions)
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        parts = model.pooled_with_parts(model.stems[0](torch.zeros(2, 3, 128, 128)))[1]
    assert parts is None if network == "bot_bs" else parts.shape == (2, 1, 8, 8)


@given(gain=st.floats(1.0, 20.0), offset=st.floats(-40.0, 60.0), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_grey_picture_has_the_range_of_its_crop(gain, offset, seed):
    crop = 3.0 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    grey, other = baselines.grey_picture(crop), baselines.grey_picture(gain * crop + offset)
    assert grey.shape == (1, 3, 16, 16) and float(grey.min()) >= 0 and float(grey.max()) <= 255
    assert float((grey - other).abs().max()) < 2.0  # levels of 255; the floor against noise makes the difference
    assert grey.flatten()[crop.argmax()] == grey.amax()


def test_parts_belong_on_the_object():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1.0
    place = torch.full((1, 1, 8, 8), -6.0)
    on, off = place.clone(), place.clone()
    on[..., 3, 3] = off[..., 0, 0] = 6.0
    good, nowhere, bad = (float(baselines.part_loss(logits, mask)) for logits in (on, place, off))
    assert good < 0.05 < nowhere < bad
    assert np.isfinite(float(baselines.part_loss(place, torch.zeros(1, 1, 64, 64))))


def test_centres_follow_their_features():
    torch.manual_seed(0)
    centres, features = baselines._Centres(3, 4, rate=0.5), torch.randn(3, 4)
    identity = torch.tensor([0, 1, 1])
    untouched = centres.place[2].clone()
    losses = [float(centres(features, identity)) for _ in range(40)]
    torch.testing.assert_close(centres.place[0], features[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(centres.place[1], features[1:].mean(0), atol=1e-3, rtol=0)
    assert losses[-1] < losses[0] and torch.equal(centres.place[2], untouched)


@pytest.mark.parametrize("network, bands", [("bot_bs", "visible"), ("vrai", "cross")])
def test_identities_come_apart(folder, tmp_path, small, network, bands):
    """No collapse: photographs are told apart well above chance, 1 in 12, and across bands where that was learned."""
    recipe = BaselineRecipe(network, bands, identities=12, each=2, warmup=5, ema=0.9)
    pairs = read_pairs([folder])
    lines = []
    path = baselines.train(recipe, pairs, tmp_path / "run", minutes=60, steps=70, log=lines.append)
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert figures["training"]["identities"] == 12 and figures["training"]["images_seen"] == 70 * 48
    assert figures["mixed"]["gallery"] == figures["visible"]["mixed"]["gallery"] == 4
    branches = 2 if network == "vrai" else 1
    assert figures["training"]["losses"]["identity"] < 0.8 * branches * np.log(12)
    model, facts = baselines.load_weights(path)
    assert facts["recipe"]["network"] == network
    training = pairs.only(~pairs.held_out())
    colour, drone = embed_pairs(model, training)
    found = {"visible": ranked(1 - (colour @ colour.T).numpy(), np.arange(len(colour)), training),
             "cross": ranked(1 - (colour @ drone[:, 0].T).numpy(), np.arange(len(colour)), training)}
    assert found[bands]["mixed"]["r1"] > 3 / 12
    assert found[bands]["mixed"]["r1_of_guessing"] == pytest.approx(1 / 12, abs=1e-3)


def test_an_interrupted_training_ends_as_one_that_was_not(folder, tmp_path, small, monkeypatch):
    recipe = BaselineRecipe("bot_bs", "cross", identities=4, each=2)
    pairs = read_pairs([folder])

    class Interrupted(baselines.IdentitySampler):
        def __call__(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return super().__call__(step)

    def train(name):
        return baselines.train(recipe, pairs, tmp_path / name, minutes=60, steps=5, log=lines.append,
                               checkpoint_every_s=0)

    lines = []
    whole = torch.load(train("whole"), weights_only=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(baselines, "IdentitySampler", Interrupted)
        train("parts")
    assert not (tmp_path / "parts" / "weights.pt").exists()
    resumed = torch.load(train("parts"), weights_only=True)
    assert any(line.startswith("resumed at step 3") for line in lines) and resumed["step"] == 5
    for name, value in whole["averaged"].items():
        torch.testing.assert_close(resumed["averaged"][name], value, msg=name)


def test_a_training_begins_with_another_of_its_kind(folder, tmp_path, small, capsys):
    command = ["train", "baseline", "--network", "vrai", "--bands", "cross", "--pairs", str(folder), "--steps", "1",
               "--batch", "4", "--learning-rate", "1e-9"]
    assert main([*command, "--out", str(tmp_path / "first")]) == 0
    weights = tmp_path / "first" / "weights.pt"
    assert main([*command, "--start", str(weights), "--seed", "5", "--out", str(tmp_path / "second")]) == 0
    first, second = (baselines.load_weights(tmp_path / name / "weights.pt")[0] for name in ("first", "second"))
    torch.testing.assert_close(second.reduce[0].weight, first.reduce[0].weight, atol=1e-4, rtol=1e-2)
    command[command.index("vrai")] = "bot_bs"
    assert main([*command, "--start", str(weights), "--out", str(tmp_path / "third")]) == 2
    assert "weights of {'network': 'vrai'" in capsys.readouterr().err


@pytest.mark.parametrize("network, bands", [("bot_bs", "cross"), ("vrai", "visible")])
def test_baselines_fly_as_they_were_trained(folder, tmp_path, small, network, bands, capsys):
    run, out = tmp_path / "run", tmp_path / f"{network}.onnx"
    assert main(["train", "baseline", "--network", network, "--bands", bands, "--pairs", str(folder), "--steps", "2",
                 "--batch", "4", "--out", str(run)]) == 0
    facts = ["--pairs", str(folder), "--data", "shapes", "--licence", "Apache-2.0", "--command", "none"]
    assert main(["train", "export-baseline", "--weights", str(run / "weights.pt"), *facts, "--out", str(out)]) == 0
    assert "differs from torch by" in capsys.readouterr().out
    embedder, (model, _) = Embedder(load_engine(out, providers=("cpu",))), baselines.load_weights(run / "weights.pt")
    card = embedder.engine.card
    assert embedder.size_px == 32 and card.task == "embedding" and card.parity["max_abs_difference"] < 1e-4
    assert network.split("_")[0] in card.architecture.lower()
    rng = np.random.default_rng(1)
    colour, thermal = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), rng.normal(9, 4, (2, 32, 32))
    thermal = thermal.astype(np.float32)
    with torch.no_grad():
        expected = (model.colour(torch.from_numpy(colour).permute(0, 3, 1, 2).float()),
                    model.thermal(torch.from_numpy(thermal)[:, None]))
    for crops, vectors in zip((colour, thermal), expected):
        np.testing.assert_allclose(embedder.embed(crops), vectors.numpy(), atol=1e-2)
    np.testing.assert_allclose(embedder.describe(thermal)[1].sum(axis=1), 1.0, atol=1e-5)
    assert main(["train", "export-baseline", "--weights", str(run / "weights.pt"), *facts,
                 "--int8", "--out", str(tmp_path / "int8.onnx")]) == 0
    assert (tmp_path / "int8.onnx").stat().st_size < 0.7 * out.stat().st_size


def test_faults_are_named_in_one_line(folder, tmp_path, small, capsys):
    def fails(*arguments: str) -> str:
        assert main(["train", *arguments]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    baseline = ("baseline", "--bands", "cross", "--batch", "4", "--out", str(tmp_path / "run"))
    assert "bot_bs" in fails(*baseline, "--network", "resnet", "--pairs", str(folder))
    assert "world pairs" in fails(*baseline, "--network", "vrai", "--pairs", str(tmp_path))
    with pytest.raises(ThermalReidError, match="visible"):
        BaselineRecipe("vrai", "infrared")
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"no")
    assert "checkpoint" in fails(*baseline, "--network", "vrai", "--pairs", str(folder))
    torch.save({"averaged": {}, "recipe": {"identities": 64}}, tmp_path / "other.pt")
    export = ("export-baseline", "--pairs", str(folder), "--data", "-", "--licence", "-", "--command", "-")
    assert "no weights of a baseline" in fails(*export, "--weights", str(tmp_path / "other.pt"), "--out",
                                               str(tmp_path / "x.onnx"))
    assert "no weights of a baseline" in fails(*export, "--weights", str(tmp_path / "none.pt"), "--out",
                                               str(tmp_path / "x.onnx"))
    assert "NAME.onnx" in fails(*export, "--weights", str(tmp_path / "other.pt"), "--out", str(tmp_path))
    assert not list(tmp_path.glob("*.onnx"))
