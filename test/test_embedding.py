"""The embedding's wrapper, and the networks' export: torch and ONNX Runtime give the same numbers."""

import numpy as np
import pytest
import yaml
from tiny_models import shapes_alone

from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.reid.embedding import Embedder
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.training.embedding import EmbeddingNetwork, Told, log_ratios  # noqa: E402
from thermalreid_ros.training.export_objects import (  # noqa: E402
    export_conditional,
    export_embedding,
    export_thermalgan,
)
from thermalreid_ros.training.synthesis import Generators  # noqa: E402
from thermalreid_ros.training.traits import COMPONENTS  # noqa: E402

FACTS = {"data_from": "noise", "training": {"data": "none", "licence": "Apache-2.0"}}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> EmbeddingNetwork:
    torch.manual_seed(0)
    return EmbeddingNetwork().eval()


@pytest.fixture(scope="module")
def embedder(network, tmp_path_factory) -> Embedder:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    thermal = np.random.default_rng(1).normal(20.0, 3.0, (96, 96)).astype(np.float32)
    assert export_embedding(network, path, photographs=[noise(96, 96, 3)], thermal=[thermal], **FACTS) < 1e-4
    return Embedder(load_engine(path, providers=("cpu",)), batch=4)


def test_the_network_is_small_and_gives_unit_vectors(network):
    assert sum(p.numel() for p in network.parameters()) < 1e6
    with torch.no_grad():
        vector = network.thermal(torch.randn(2, 1, 96, 96) * 3 + 15)
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(2))


def test_likenesses_are_log_likelihood_ratios(network):
    """Products of vectors across bands, in nats, are those of the traits of one class, and equal classes add 0.06."""
    torch.manual_seed(1)
    logits = torch.full((5, 4), -40.0)
    logits[:, 2] = 40.0
    told = [Told(logits, torch.randn(5, 4, COMPONENTS)) for _ in range(2)]
    vectors = [network.vectors(one, band) for band, one in enumerate(told)]
    for vector in vectors:
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(5))
    likeness = (vectors[0] @ vectors[1].T - 0.06) / network.nat
    expected = log_ratios(told[0].traits[:, 2], told[1].traits[:, 2], torch.full((5,), 2), network.ratio)
    torch.testing.assert_close(likeness, expected, atol=2e-3, rtol=1e-3)
    # As of two normal measurements that explain 0.6 and 0.3 of a unit variance.
    x, y, rho2 = told[0].traits[0, 2], told[1].traits[1, 2], 0.6 * 0.3
    joint = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[0.6, rho2], [rho2, 0.3]]))
    apart = torch.distributions.Normal(0.0, torch.tensor([0.6, 0.3]).sqrt())
    pairs = torch.stack([x, y], 1)
    ratio = joint.log_prob(pairs) - apart.log_prob(pairs).sum(1) + 0.5 * np.log(1 - rho2)
    assert float(ratio.sum()) == pytest.approx(float(expected[0, 1].detach()), abs=1e-3)


def test_other_classes_are_unlike(network):
    logits = torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0]])
    told = Told(logits, torch.randn(2, 4, COMPONENTS))
    likeness = network.vectors(told, 0) @ network.vectors(told, 1).T
    assert float(likeness.detach().diagonal().min()) > float(likeness.detach()[0, 1]) + 0.03


def test_the_absolute_temperature_is_lost_on_purpose(network):
    crop = torch.randn(1, 1, 96, 96)
    torch.testing.assert_close(network.thermal_channels(crop + 40.0), network.thermal_channels(crop), atol=1e-4,
                               rtol=1e-4)


def test_both_bands_fly_as_they_were_trained(network, embedder):
    colour = noise(6, 96, 96, 3)
    thermal = np.random.default_rng(2).normal(10.0, 4.0, (5, 96, 96)).astype(np.float32)
    with torch.no_grad():
        expected = (network.colour(torch.from_numpy(colour).permute(0, 3, 1, 2).float()),
                    network.thermal(torch.from_numpy(thermal)[:, None]))
    for crops, vectors in zip((colour, thermal), expected):
        np.testing.assert_allclose(embedder.embed(crops), vectors.numpy(), atol=5e-3)
    mirrored = embedder.embed(thermal, mirrored=True)
    np.testing.assert_allclose(mirrored, embedder.embed(thermal[:, :, ::-1], mirrored=True), atol=1e-4)
    turned = embedder.embed(np.ascontiguousarray(thermal[:, :, ::-1]))
    np.testing.assert_allclose(mirrored, 0.5 * (embedder.embed(thermal) + turned), atol=1e-5)
    np.testing.assert_allclose(embedder.describe(colour)[1].sum(axis=1), 1.0, atol=1e-5)


def test_nothing_is_embedded_as_nothing(embedder):
    frame = np.random.default_rng(2).normal(10.0, 4.0, (100, 120)).astype(np.float32)
    assert embedder.embed(embedder.thermal_squares(frame, [])).shape == (0, EmbeddingNetwork.dimensions)
    assert embedder.thermal_squares(frame, [(10, 20, 30, 60), (-5, -5, 12, 9)]).shape == (2, 96, 96)


@pytest.mark.parametrize("crops", [
    np.zeros((1, 96, 96), np.uint8), np.zeros((1, 64, 64), np.float32), np.zeros((1, 96, 96, 3), np.float32),
    np.full((1, 96, 96), np.nan, np.float32)])
def test_other_crops_are_refused(embedder, crops):
    with pytest.raises(EngineError):
        embedder.embed(crops)


@pytest.mark.parametrize("classes", [["person", "car", "bicycle", "dog"], []])
def test_classes_in_another_order_are_refused(tmp_path, classes):
    path = shapes_alone(tmp_path / "shapes.onnx")
    card = path.with_suffix(".yaml")
    card.write_text(yaml.safe_dump({**yaml.safe_load(card.read_text()), "classes": classes}))
    with pytest.raises(EngineError, match="an embedding's classes are car, person, bicycle, dog"):
        Embedder(load_engine(path, providers=("cpu",)))


def test_the_generators_fly_as_they_were_trained(tmp_path):
    torch.manual_seed(0)
    generators = Generators().eval()
    with torch.no_grad():  # an untrained mask is empty or full: let the bias decide
        generators.conditional.net.out.bias[1] = generators.mean.net.out.bias[1] = 3.0
    offsets = {"mean_offsets_k": {"any": [0.0, -4.0, 4.0]}}
    photograph = noise(128, 128, 3)
    for export, name in ((export_thermalgan, "gan"), (export_conditional, "conditional")):
        path = tmp_path / f"{name}.onnx"
        assert export(generators, path, photographs=[photograph], extra=offsets, **FACTS) < 1e-4
        assert sum(p.numel() for p in generators.conditional.parameters()) < 1e6
        synthesizer = ProbeSynthesizer(load_engine(path, providers=("cpu",)))
        probes = synthesizer.synthesize(photograph, Conditions(13.0, 18.0, 0.3, 50.0), box=(20, 20, 100, 100))
        assert len(probes.crops) == 3 and probes.crops[0].shape == (86, 86)
        low, middle, high = probes.mean_c[1], probes.mean_c[0], probes.mean_c[2]
        assert low < middle < high and 2.0 < high - middle < 6.0 and -30 < middle < 60
