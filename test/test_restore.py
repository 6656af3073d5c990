"""Shipped models as weights to go on from."""

import copy

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from thermalreid_ros.engine import load_engine  # noqa: E402
from thermalreid_ros.engine.engine import open_model  # noqa: E402
from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.training import baselines, detection, embedding, segmentation  # noqa: E402
from thermalreid_ros.training.export import DetectorExport  # noqa: E402
from thermalreid_ros.training.normalisation import normalised, renormalise  # noqa: E402
from thermalreid_ros.training.pairs import Pairs  # noqa: E402
from thermalreid_ros.training.restore import restore, restore_embedding, unfold  # noqa: E402


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Four grey frames with structure on several scales."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(7)
    for number in range(4):
        picture = sum(cv2.resize(rng.normal(0, 30, (128 // s, 160 // s)).astype(np.float32), (160, 128),
                                 interpolation=cv2.INTER_CUBIC) for s in (1, 4, 16))
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(126 + picture, 0, 255).astype(np.uint8))
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize("name", ["segmenter_compact", "geogan"])
def test_a_restored_segmenter_computes_what_the_model_does(name, frames, tmp_path):
    assert restore(name, frames, tmp_path / "weights.pt") < 2e-3
    network, facts = segmentation.load_weights(tmp_path / "weights.pt")
    assert facts["network"] == name and facts["step"] > 0
    picture = np.repeat(cv2.resize(cv2.imread(str(frames[0]), 0), (320, 256))[None, None], 3, 1)
    labels = load_engine(name, providers=("cpu",)).run({"image": picture})["labels"]
    with torch.no_grad():
        mine = network(torch.from_numpy(picture).float()).argmax(1).numpy()
    assert (mine == labels).mean() > 0.998


@pytest.mark.parametrize("name", ["yolo_compact", "yolo_semantic"])
def test_a_restored_detector_computes_what_the_model_does(name, frames, tmp_path):
    assert restore(name, frames, tmp_path / "weights.pt") < 1e-4
    network, recipe, steps = detection.load_checkpoint(tmp_path / "weights.pt")
    assert recipe["network"] == name and steps > 0
    grey = cv2.imread(str(frames[1]), 0)[None, None]
    stride = network.semantics_stride
    labels = np.full((1, 1, 128 // stride, 160 // stride), 1, np.uint8)
    theirs = load_engine(name, providers=("cpu",)).run({"thermal": grey, "semantics": labels})["scores"]
    with torch.no_grad():
        mine = DetectorExport(network)(torch.from_numpy(grey), torch.from_numpy(labels))[1].numpy()
    assert np.abs(mine - theirs).max() < 1e-4


def test_in_training_a_restored_network_goes_on_where_the_model_is(frames, tmp_path):
    """Normalised by the statistics of the pictures it was restored with, it computes nearly what it did in eval mode;
    with statistics that were merely undone (mean 0, variance 1) it would compute something else."""
    restore("segmenter_compact", frames, tmp_path / "weights.pt")
    network, _ = segmentation.load_weights(tmp_path / "weights.pt")
    pictures = np.stack([np.repeat(cv2.resize(cv2.imread(str(frame), 0), (320, 256))[None], 3, 0) for frame in frames])
    batch = torch.from_numpy(pictures).float()
    with torch.no_grad():
        before, during = network(batch), network.train()(batch)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.bias -= layer.running_mean
                layer.weight.fill_(1.0)
        other = network(batch)
    spread = float(before.std())
    assert float((during - before).abs().mean()) < 0.05 * spread
    assert float((other - before).abs().mean()) > 0.5 * spread


def test_another_network_is_refused(frames, tmp_path):
    network = segmentation.NETWORKS["geogan"]()
    path = open_model("segmenter_compact")[0]
    with pytest.raises(ThermalReidError, match="Conv are not the .* of GeoGan"):
        unfold(network, path, [lambda: network(torch.zeros(1, 3, 64, 64))])
    with pytest.raises(ThermalReidError, match="vrai.*neither a detector nor a segmenter.*--pairs"):
        restore("vrai", frames, tmp_path / "weights.pt")
    with pytest.raises(ThermalReidError, match="geogan.*no embedding and no baseline.*--images"):
        restore_embedding("geogan", pairs_of_noise(2), tmp_path / "weights.pt")
    unseen = pairs_of_noise(2)
    unseen.drone_px[:] = 0
    with pytest.raises(ThermalReidError, match="no object of these pairs was seen by a drone"):
        restore_embedding("vrai", unseen, tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())


def pairs_of_noise(count: int) -> Pairs:
    rng = np.random.default_rng(5)

    def smooth(size: int, channels: int, mean: float, spread: float) -> torch.Tensor:
        pictures = [[sum(cv2.resize(rng.normal(0, spread, (size // s, size // s)).astype(np.float32), (size, size),
                                    interpolation=cv2.INTER_CUBIC) for s in (2, 8)) for _ in range(channels)]
                    for _ in range(count)]
        return torch.from_numpy(mean + np.array(pictures))

    none = torch.zeros(count, 0)
    return Pairs(smooth(128, 3, 126, 30).clamp(0, 255).to(torch.uint8), none, none, smooth(96, 1, 29000, 300).int(),
                 torch.full((count, 1), 40.0), none, torch.zeros(count, dtype=torch.int64),
                 torch.arange(count), torch.arange(count), none)


@pytest.mark.parametrize("name, load", [("reid_embedding", embedding.load_weights), ("vrai", baselines.load_weights),
                                        ("bot_bs_retrained", baselines.load_weights)])
def test_a_restored_embedding_computes_what_the_model_does(name, load, tmp_path):
    pairs = pairs_of_noise(4)
    assert restore_embedding(name, pairs, tmp_path / "weights.pt") < 5e-3
    network, facts = load(tmp_path / "weights.pt")
    assert facts["step"] > 0
    rng = np.random.default_rng(6)
    pictures = np.repeat(rng.uniform(0, 30, (2, 1, network.size_px, network.size_px)).astype(np.float32), 3, 1)
    hot = np.array([0, 1], np.float32)
    theirs = load_engine(name, providers=("cpu",)).run({"pictures": pictures, "thermal": hot})
    with torch.no_grad():
        mine = network.flown(torch.from_numpy(pictures), torch.from_numpy(hot))
    assert np.abs(mine[0].numpy() - theirs["embedding"]).max() < 5e-3
    assert np.abs(mine[1].numpy() - theirs["classes"]).max() < 5e-3


def test_a_network_is_set_to_other_pictures_and_computes_what_it_did(frames, tmp_path):
    """Whole frames gave the statistics, small bright crops are to be trained on: in training it then computes of them
    what it does in eval mode, which without it would be something else."""
    restore("yolo_semantic", frames, tmp_path / "weights.pt")
    network, _, _ = detection.load_checkpoint(tmp_path / "weights.pt")
    other = copy.deepcopy(network)
    grey = np.stack([cv2.imread(str(frame), 0)[32:96, 32:96] for frame in frames])[:, None]
    crops = torch.from_numpy(np.clip(1.6 * grey.astype(np.float32) - 20, 0, 255))
    labels = torch.full((len(crops), 1, 64, 64), 1, dtype=torch.uint8)
    renormalise(other, [lambda: other(crops, labels)])
    spreads = [float(after.running_var.max()) for after in normalised(other).values()]
    assert len(spreads) > 20 and max(spreads) < 1.001
    with torch.no_grad():
        before, after = network(crops, labels), other(crops, labels)
        trained, unset = other.train()(crops, labels), network.train()(crops, labels)
    for was, now, during, without in zip(before, after, trained, unset, strict=True):
        spread = float(was.std())
        assert float((now - was).abs().max()) < 1e-3 * spread
        assert float((during - was).abs().mean()) < 0.05 * spread < float((without - was).abs().mean())


def test_layers_that_are_not_shown_anything_stay_as_they_are():
    network = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
                                  for _ in range(2)).eval()
    before = copy.deepcopy(network.state_dict())
    renormalise(network, [lambda: network[0](torch.randn(2, 1, 8, 8))])
    after = network.state_dict()
    assert {name[0] for name in before if not torch.equal(after[name], before[name])} == {"0"}
