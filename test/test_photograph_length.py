"""What tells lengths by photographs: trained small, exported, and as it is used in flight, with numbers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tells_lengths

from thermalreid_ros.camera.crops import square_crop
from thermalreid_ros.cli import main
from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.length import ERRORS
from thermalreid_ros.reid.photograph_length import LengthTeller, freed
from thermalreid_ros.world.actors import make_identity

NAMES = ("car", "person", "bicycle", "dog")


# --- in flight -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def shipped() -> LengthTeller:
    return LengthTeller(load_engine("photograph_length", providers=("cpu",)))


@pytest.mark.parametrize("mean, sigma", [(1.60, 0.05), (1.44, 0.07), (1.5, 0.02)])
def test_what_is_told_and_what_was_known_make_what_is_believed(mean, sigma):
    known = 1.5, 0.075
    told = freed(mean, sigma, *known, "car")
    shares = np.array([told.error, known[1]]) ** -2.0
    assert np.average([told.log, known[0]], weights=shares) == pytest.approx(mean, abs=1e-9)
    assert shares.sum() ** -0.5 == pytest.approx(sigma, abs=1e-9)


def test_photographs_that_tell_no_more_than_the_class_tell_nothing():
    assert freed(1.5, 0.075, 1.5, 0.075, "car") is None
    assert freed(1.5, 0.09, 1.5, 0.075, "car") is None
    assert freed(0.5, 0.38, 0.0, 0.4, "dog") is None  # would be told with an error of more than half
    assert freed(1.5, 1e-4, 1.5, 0.075, "car").error == ERRORS[0]
    assert freed(5.0, 0.05, 1.5, 0.075, "car").metres == 20.0  # no car is longer


def test_a_van_is_told_from_a_small_car(shipped):
    """By photographs of sketches, whose identities nothing was trained on."""
    pytest.importorskip("embreex", reason="the simulation extra is not installed")
    from thermalreid_ros.world.sketches import Body, light_of

    errors, blind = [], []
    for number in range(40):
        identity = make_identity("car", number, 9001)
        rng = np.random.default_rng(number)
        picture = Body(identity, 0.0, False).sketch(light_of(rng), rng)
        told = shipped.tell([(picture, _box(picture))], "car")
        true, (mean, spread) = math.log(max(identity.size_m)), shipped.engine.card.extra["lengths"]["car"].values()
        blind.append(true - mean)
        believed = 0.0 if told is None else spread**2 / (spread**2 + told.error**2)
        errors.append(true - mean - (0.0 if told is None else believed * (told.log - mean)))
    assert np.std(errors) < 0.9 * np.std(blind)


def _box(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Of a sketch: STORED_MARGIN around the object."""
    side = picture.shape[0] / 1.8
    middle = picture.shape[0] / 2
    return middle - side / 2, middle - side / 2, middle + side / 2, middle + side / 2


def test_several_photographs_are_one_and_their_order_is_nothing(shipped):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(2)]
    box = (20.0, 30.0, 110.0, 100.0)
    there, back = (shipped.tell([(picture, box) for picture in order], "dog") for order in (pictures, pictures[::-1]))
    alone = shipped.tell([(pictures[0], box)], "dog")
    assert (there is None) == (back is None)
    if there is not None:
        assert there.metres == pytest.approx(back.metres, rel=1e-4) and there != alone
    assert shipped.tell([(pictures[0], box)], "") is None
    assert shipped.tell([], "dog") is None


def test_a_model_that_does_something_else_is_refused():
    with pytest.raises(EngineError, match="does embedding, not length"):
        LengthTeller(load_engine("reid_embedding", providers=("cpu",)))


@pytest.mark.parametrize("known", [(1.4, 0.0), (1.4, float("nan")), (float("inf"), 0.1)])
def test_a_card_whose_lengths_are_none_is_refused(tmp_path, known):
    path = tells_lengths(tmp_path / "tells.onnx", 4.0, 0.1, known=known)
    with pytest.raises(EngineError, match="its card tells no lengths"):
        LengthTeller(load_engine(path, providers=("cpu",)))


def test_the_size_that_a_photograph_tells_moves_the_ranking():
    model = FusedModel.load()
    told = freed(math.log(5.4), 0.05, 1.48, 0.08, "car")
    offset = model.lengths["car"].offset
    small, right = model.length_ratio(np.log([3.9, 5.4]) + offset, told, "car")
    assert right > 0.5 > 0.0 > small


# --- training --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """64 identities, 16 of each class: squares, the wider the longer the object."""
    out = tmp_path_factory.mktemp("photographs")
    (out / "sessions").mkdir()
    rng = np.random.default_rng(0)
    names = [f"{kind}-{number:04d}" for number in range(16) for kind in NAMES]
    sizes = np.exp(rng.uniform(0.0, 1.0, 64)).astype(np.float32)
    colour = rng.integers(60, 70, (64, 128, 128, 3), dtype=np.uint8)
    for picture, length in zip(colour, sizes):
        half = int(14 * length)
        picture[52:76, 64 - half:64 + half] = 220
    np.savez(out / "sessions" / "000_00.npz", label=np.tile(np.arange(4), 16), colour=colour, seed=7,
             size_m=np.stack([sizes, 0.4 * sizes, 0.3 * sizes], axis=1), identity=np.array(names))
    return out


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the training extra is not installed")


def test_photographs_are_read_with_sizes_and_kinds(folder, torch):
    from thermalreid_ros.training.photographs import Photographs, read_photographs

    photographs = read_photographs([folder])
    assert len(photographs) == 64 and photographs.identities == 64 and int(photographs.held_out().sum()) == 8
    assert photographs.kinds[int(photographs.kind[3])] == f"dog:{make_identity('dog', 0, 7).breed}"
    np.testing.assert_allclose(photographs.log_size[:, 0] - photographs.log_size[:, 1], -np.log(0.4), rtol=1e-5)
    few = photographs.only(photographs.label == 0)
    both = Photographs.joined([few, photographs])
    assert both.identities == 80 and both.kinds == photographs.kinds
    assert (both.kind == torch.cat([few.kind, photographs.kind])).all()
    with pytest.raises(ThermalReidError, match="world sketches"):
        read_photographs([folder / "sessions"])


def test_sets_of_before_sizes_and_cut_ones_are_refused_with_the_remedy(folder, torch, tmp_path):
    from thermalreid_ros.training.photographs import read_photographs

    (tmp_path / "sessions").mkdir()
    with np.load(folder / "sessions" / "000_00.npz") as stored:
        np.savez(tmp_path / "sessions" / "000_00.npz", **{name: stored[name] for name in stored if name != "size_m"})
    with pytest.raises(ThermalReidError, match="make it again"):
        read_photographs([tmp_path])
    whole = (folder / "sessions" / "000_00.npz").read_bytes()
    for length in (0, 5, len(whole) // 2):
        (tmp_path / "sessions" / "000_00.npz").write_bytes(whole[:length])
        with pytest.raises(ThermalReidError, match="000_00.npz: damaged"):
            read_photographs([tmp_path])


def test_the_likelihood_is_best_where_the_error_is_as_large_as_it_is_said_to_be(folder, torch):
    from thermalreid_ros.training import lengths
    from thermalreid_ros.training.photographs import read_photographs

    photographs = read_photographs([folder])
    network = lengths.LengthNetwork(len(photographs.kinds)).eval()
    network.set_spreads(photographs)
    rows = torch.nonzero(photographs.label == 1)[:, 0]
    possible = torch.ones(4, len(photographs.kinds), dtype=torch.bool)
    target = (photographs.log_size[rows].amax(1) - network.mean[1]) / network.spread[1]
    losses = []
    for log_sd in (-2.0, np.log(0.5), 1.0):
        network.standard = lambda seen, sd=log_sd: torch.stack([target + 0.5, torch.full_like(target, sd)],
                                                               1)[:, None].expand(-1, 4, -1)
        losses.append(float(lengths.length_losses(network, torch.zeros(len(rows), 384), photographs, rows, possible,
                                                  0.0)["longest"]))
    assert losses[1] == pytest.approx(0.5 + np.log(0.5), abs=1e-4) and losses[1] < min(losses[0], losses[2])


def test_trained_exported_and_told(folder, torch, tmp_path):
    from thermalreid_ros.training import lengths
    from thermalreid_ros.training.export_objects import export_length
    from thermalreid_ros.training.photographs import read_photographs

    command = ["train", "length", "--photographs", str(folder), "--sketches", str(folder), "--batch", "16", "--out",
               str(tmp_path / "run")]
    assert main([*command, "--steps", "20"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 20 and metrics["training"]["sketches"] == 64
    assert metrics["held_out"]["car"]["photographs"] == 2
    network, state = lengths.load_weights(tmp_path / "run" / "weights.pt")
    told = [state["metrics"]["held_out"][name]["error_in_sigmas"] for name in NAMES]
    np.testing.assert_allclose(network.scale, np.clip(told, 0.5, 4.0), rtol=1e-3)
    path = tmp_path / "tiny.onnx"
    pictures = read_photographs([folder]).colour[4:6].permute(0, 2, 3, 1).numpy()
    squares = [square_crop(picture, _box(picture), 96) for picture in pictures]
    facts = {"data_from": "squares", "training": {"data": "none", "licence": "Apache-2.0"}}
    assert export_length(network, path, photographs=squares, **facts) < 1e-3
    teller = LengthTeller(load_engine(path, providers=("cpu",)))
    both = np.stack([squares[0], squares[0][:, ::-1]]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        said = network(torch.from_numpy(np.ascontiguousarray(both)).float())[:, 1].mean(0)
    expected = freed(float(said[0]), math.exp(float(said[1])), float(network.mean[1]), float(network.spread[1]),
                     "person")
    found = teller.tell([(pictures[0], _box(pictures[0]))], "person")
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.log == pytest.approx(expected.log, abs=0.05)
    assert export_length(network, path, photographs=squares, told=["car"], **facts) < 1e-3
    of_cars = LengthTeller(load_engine(path, providers=("cpu",)))
    assert of_cars.engine.card.extra["lengths"].keys() == {"car"}
    assert of_cars.tell([(pictures[0], _box(pictures[0]))], "person") is None
    card = teller.engine.card
    lost = replace(card, extra={key: value for key, value in card.extra.items() if key != "lengths"})
    object.__setattr__(teller.engine, "card", lost)
    with pytest.raises(EngineError, match="its card tells no lengths"):
        LengthTeller(teller.engine)


def test_what_says_too_much_is_believed_less(folder, torch):
    from thermalreid_ros.training import lengths
    from thermalreid_ros.training.photographs import read_photographs

    torch.manual_seed(0)
    photographs = read_photographs([folder])
    network = lengths.LengthNetwork(len(photographs.kinds)).eval()
    network.set_spreads(photographs)
    before = lengths.evaluate(network, photographs)
    lengths.trust_less(network, photographs)
    after = lengths.evaluate(network, photographs)
    for name in NAMES:
        assert after[name]["error"] <= before[name]["error"] + 1e-4
    once = lengths.said_of(network, photographs)
    lengths.trust_less(network, photographs)
    torch.testing.assert_close(lengths.said_of(network, photographs), once, rtol=1e-3, atol=1e-3)


def test_a_checkpoint_of_something_else_is_refused(torch, tmp_path):
    from thermalreid_ros.training import lengths

    (tmp_path / "weights.pt").write_bytes(b"no zip")
    with pytest.raises(ThermalReidError, match="a length network"):
        lengths.load_weights(tmp_path / "weights.pt")
