"""Shipped models as weights to go on from."""

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from thermalreid_ros.engine import load_engine  # noqa: E402
from thermalreid_ros.engine.engine import open_model  # noqa: E402
from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.training import detection, segmentation  # noqa: E402
from thermalreid_ros.training.export import DetectorExport  # noqa: E402
from thermalreid_ros.training.restore import restore, unfold  # noqa: E402


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
    with pytest.raises(ThermalReidError, match="vrai.*neither a detector nor a segmenter"):
        restore("vrai", frames, tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())
