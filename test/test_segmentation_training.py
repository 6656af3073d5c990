"""Networks, losses, variation and training of segmentation: small, on the CPU, with numbers."""

import json
import math

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.evaluation.segmentation import read_frame  # noqa: E402
from thermalreid_ros.localization.segmenter import (  # noqa: E402
    ABSOLUTE_LEVELS_PER_K,
    COLDEST_C,
    CONTRAST_LEVELS_PER_K,
    Segmenter,
    temperature_levels,
)
from thermalreid_ros.maps.classes import CLASS_NAMES, NO_DATA  # noqa: E402
from thermalreid_ros.training import segmentation  # noqa: E402
from thermalreid_ros.training.augmentation import Augmentation  # noqa: E402
from thermalreid_ros.training.export_segmenter import export_segmenter  # noqa: E402
from thermalreid_ros.training.labellings import LabelledFrames, channels, read_labelled, reduce_labels  # noqa: E402
from thermalreid_ros.training.segmentation import evaluate, load_weights, recipe_for, train  # noqa: E402
from thermalreid_ros.training.segmentation_losses import (  # noqa: E402
    boundary_loss,
    class_weights,
    compact_loss,
    dice_loss,
    one_hot,
    softened_truth,
    weighted_cross_entropy,
)
from thermalreid_ros.training.segmenters import NETWORKS, PatchDiscriminator  # noqa: E402

LEVELS = np.array([90, 30, 220, 150, 5], np.uint8)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def patches(count: int, size: int = 64, seed: int = 0) -> LabelledFrames:
    """Frames of rectangles whose class their level tells, with a little noise; every other one in colour too, and every
    third radiometric: a tenth of the level in degrees Celsius."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, size, size), np.uint8)
    for mask in labels:
        for label in (3, 1, 2, 4):
            x, y = rng.integers(0, size - 16, 2)
            mask[y:y + 24, x:x + 24] = label
    thermal = (LEVELS[labels] + rng.normal(0, 3, labels.shape)).clip(0, 255).astype(np.uint8)
    labels[:, :2] = NO_DATA
    visible, measured = np.arange(0, count, 2), np.arange(0, count, 3)
    temperature_c = np.round(0.1 * thermal[measured], 1).astype(np.float32)
    return LabelledFrames(thermal, labels, np.repeat(thermal[visible][..., None], 3, 3), visible, temperature_c,
                          thermal[measured], measured)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_any_multiple_of_their_stride_and_stay_small(name):
    network = NETWORKS[name]().eval()
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 2e6
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, len(CLASS_NAMES), 64, 96)


def test_the_discriminator_judges_patches_of_70_pixels():
    discriminator = PatchDiscriminator().eval()
    image = torch.zeros(1, 3, 128, 128, requires_grad=True)
    verdicts = discriminator(image, torch.zeros(1, len(CLASS_NAMES), 128, 128))
    assert verdicts.shape == (1, 1, 14, 14)
    verdicts[0, 0, 7, 7].backward()
    touched = torch.nonzero(image.grad[0].abs().sum(0))
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [70, 70]


def test_losses_of_known_labellings():
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, :, 4:] = 2
    labels[:, 0] = NO_DATA
    truth, judged = one_hot(labels), (labels != NO_DATA).float()[:, None]
    assert truth.sum() == 56 and truth[0, 2, 1:, 4:].all()
    assert dice_loss(truth, truth).item() == pytest.approx(0, abs=1e-6)
    wrong = one_hot(torch.where(labels == NO_DATA, labels, 2 - labels))
    assert dice_loss(wrong, truth).item() == pytest.approx(1 - 1 / 57, abs=1e-6)
    assert boundary_loss(truth, truth, judged).item() < 0.15 < 0.9 < boundary_loss(0 * truth, truth, judged).item()
    logits = torch.zeros(1, 5, 8, 8)
    weights = torch.tensor([1.0, 1, 3, 1, 1])
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(math.log(5), abs=1e-6)
    logits[:, 2] = 10  # half of the pixels are right, and weigh three quarters
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(10 / 4, abs=1e-2)
    nothing = compact_loss(logits, torch.full_like(labels, NO_DATA), weights)
    assert all(torch.isfinite(value) and value <= 1 for value in nothing.values())
    found, without = (compact_loss(logits, labels, weights, outlines) for outlines in (0.3, 0.0))
    assert "boundary" not in without
    assert (found["loss"] - without["loss"]).item() == pytest.approx(0.3 * found["boundary"].item())


def test_weights_raise_the_rare_and_keep_the_mean():
    shares = torch.tensor([0.5, 0.2, 0.2, 0.1, 0.0])
    weights = class_weights(shares)
    assert (weights * shares).sum().item() == pytest.approx(1)
    assert weights[1] > weights[0] and weights[4] <= 4 * weights.min() + 1e-6


def test_softened_truth_is_no_telltale():
    labels = torch.tensor([[[2, NO_DATA]]], dtype=torch.uint8)
    probabilities = torch.tensor([0.1, 0.1, 0.6, 0.2, 0.0]).view(1, 5, 1, 1).repeat(1, 1, 1, 2)
    soft = softened_truth(labels, probabilities)
    np.testing.assert_allclose(soft[0, :, 0, 0], (0.025, 0.025, 0.9, 0.05, 0), atol=1e-6)
    assert not soft[..., 1].any()


def test_variation_moves_labels_with_the_image_and_repeats_itself():
    frames = patches(8)
    generator = torch.Generator()
    augmentation = Augmentation(generator)
    images = torch.from_numpy(frames.thermal)[:, None].float() / 255
    labels = torch.from_numpy(np.where(frames.labels == NO_DATA, 0, frames.labels))
    images = torch.from_numpy(LEVELS)[labels.long()][:, None].float() / 255
    generator.manual_seed(1)
    moved, moved_labels = augmentation.warp(images, labels)
    expected = torch.from_numpy(LEVELS)[moved_labels.long()].float() / 255
    assert ((moved[:, 0] - expected).abs() < 0.02).float().mean() > 0.85  # the rest are edges
    assert (moved_labels != labels).any()
    results = []
    for _ in range(2):
        generator.manual_seed(7)
        results.append(augmentation(images, labels, thermal=True))
    assert all(torch.equal(a, b) for a, b in zip(*results))
    varied, _ = results[0]
    assert varied.shape == (8, 3, 64, 64) and 0 <= varied.min() and varied.max() <= 255
    assert torch.equal(varied, varied.round()) and torch.equal(varied[:, 0], varied[:, 2])
    colour, _ = augmentation(images.repeat(1, 3, 1, 1), labels, thermal=False)
    assert not torch.equal(colour[:, 0], colour[:, 2])


def test_variation_of_radiometric_frames_keeps_what_temperatures_mean():
    labels = torch.zeros(16, 64, 64, dtype=torch.uint8)
    labels[:, :, :24] = 1
    temperature_c = torch.where(labels == 1, 16.0, 12.0)[:, None]
    generator = torch.Generator()
    generator.manual_seed(3)
    images, labels = Augmentation(generator).radiometric(torch.full_like(temperature_c, 0.5), temperature_c, labels)
    assert images.shape == (16, 3, 64, 64) and torch.equal(images, images.round()) and 0 <= images.min()
    sure = torch.stack([image[1:, (mask == 1)].median(1).values - image[1:, (mask == 0)].median(1).values
                        for image, mask in zip(images, labels)])  # the warmer class against the cooler, in levels
    assert (sure[:, 0] / (CONTRAST_LEVELS_PER_K * 4.0)).numpy() == pytest.approx(np.ones(16), abs=0.45)
    assert (sure[:, 1] / (ABSOLUTE_LEVELS_PER_K * 4.0)).numpy() == pytest.approx(np.ones(16), abs=0.45)
    cool = torch.stack([image[2, mask == 0].median() for image, mask in zip(images, labels)])
    assert cool.median().item() == pytest.approx(ABSOLUTE_LEVELS_PER_K * (12.0 - COLDEST_C), abs=4)
    assert cool.std() > 1  # cameras err as a whole


def test_labels_are_reduced_by_majority():
    mask = np.full((4, 8), 1, np.uint8)
    mask[:2, :2] = [[2, 2], [2, 3]]
    mask[2:, 6:] = NO_DATA
    assert reduce_labels(mask, (4, 2)).tolist() == [[2, 1, 1, 1], [1, 1, 1, NO_DATA]]


def data_set(folder, frames: LabelledFrames, split: str = "train"):
    for part in ("images/thermal", "images/thermal16", "images/colour", "masks/semantic", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k, (image, mask) in enumerate(zip(frames.thermal, frames.labels)):
        cv2.imwrite(str(folder / f"images/thermal/{split}{k}.png"), image)
        cv2.imwrite(str(folder / f"masks/semantic/{split}{k}.png"), mask)
    for k, image in zip(frames.colour_of, frames.colour):
        cv2.imwrite(str(folder / f"images/colour/{split}{k}.jpg"), image)
    for k, temperature_c in zip(frames.radiometric_of, frames.temperature_c):
        cv2.imwrite(str(folder / f"images/thermal16/{split}{k}.png"), (100 * temperature_c + 27315.5).astype(np.uint16))
    records = [{"id": k, "file_name": f"{split}{k}.png"} for k in range(len(frames))]
    (folder / f"annotations/{split}.json").write_text(json.dumps({"images": records}))
    return folder


def test_sets_are_read_whole_and_reduced(tmp_path):
    frames = patches(5)
    data_set(tmp_path, frames)
    again = read_labelled([tmp_path], "train", size_px=(64, 64))
    assert (again.thermal == frames.thermal).all() and (again.labels == frames.labels).all()
    assert again.colour_of.tolist() == [0, 2, 4] and again.colour.shape == (3, 64, 64, 3)
    assert again.radiometric_of.tolist() == [0, 3]
    np.testing.assert_allclose(again.temperature_c, frames.temperature_c, atol=0.006)
    assert np.corrcoef(again.radiometric.ravel(), frames.radiometric.ravel())[0, 1] > 0.9  # another gain control
    seen = channels(read_frame(tmp_path / "images/thermal16/train3.png"), (64, 64))
    assert (seen[0] == again.radiometric[1]).all()
    assert (seen[1:] == temperature_levels(again.temperature_c[1])).all()
    small = read_labelled([tmp_path, tmp_path], "train", size_px=(32, 32), colour=False, limit=2)
    assert small.thermal.shape == (4, 32, 32) and not len(small.colour) and small.temperature_c.shape == (2, 32, 32)
    assert len(read_labelled([tmp_path], "val")) == 0
    finished = json.loads((tmp_path / "annotations/train.json").read_text())["images"]
    (tmp_path / "unfinished/sessions").mkdir(parents=True)
    for kind in ("images", "masks"):
        (tmp_path / "unfinished" / kind).symlink_to(tmp_path / kind)
    for number, (split, some) in enumerate((("train", finished[:2]), ("val", finished[2:3]))):
        (tmp_path / f"unfinished/sessions/{number:05d}.json").write_text(json.dumps({"split": split, "images": some}))
    assert [len(read_labelled([tmp_path / "unfinished"], split)) for split in ("train", "val")] == [2, 1]
    cv2.imwrite(str(tmp_path / "images/thermal16/train0.png"), frames.thermal[0])
    with pytest.raises(ThermalReidError, match="thermal16/train0.png: no picture of 16 bits"):
        read_labelled([tmp_path], "train")
    (tmp_path / "images/thermal16/train0.png").unlink()
    (tmp_path / "masks/semantic/train3.png").unlink()
    with pytest.raises(ThermalReidError, match="train3.png: missing"):
        read_labelled([tmp_path], "train")
    with pytest.raises(ThermalReidError, match="neither annotations nor a finished session"):
        read_labelled([tmp_path / "images"], "train")


@pytest.mark.parametrize("name", NETWORKS)
def test_training_learns_resumes_and_exports(name, tmp_path):
    frames, lines = patches(12), []
    rate = {"learning_rate": 3e-3, "batch": 4, "warmup": 2}
    first = recipe_for(name, steps=2, **rate)
    train(first, frames, tmp_path, log=lines.append)
    begun = train(first, frames, tmp_path / "after", start=tmp_path / "weights.pt", log=lines.append)
    assert f"begun with the weights of {tmp_path / 'weights.pt'}, 2 steps" in lines
    assert begun.is_file()
    other = next(item for item in NETWORKS if item != name)
    with pytest.raises(ThermalReidError, match=f"weights.pt: holds {name}, not {other}"):
        train(recipe_for(other, steps=2, **rate), frames, tmp_path / "other", start=begun, log=lines.append)
    begin = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    weights = train(recipe_for(name, steps=30, minutes=30.0, **rate), frames, tmp_path, log=lines.append,
                    validation=patches(4, seed=1))
    assert any("resumed at step 2" in line for line in lines)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 30 and last["cross_entropy"] < 0.9 * begin["cross_entropy"]
    with pytest.raises(ThermalReidError, match="another recipe .seed differ"):
        train(recipe_for(name, steps=40, seed=2, **rate), frames, tmp_path, log=lines.append)

    network, facts = load_weights(weights)
    assert facts["step"] == 30 and facts["evaluation"]["thermal"]["frames"] == 4
    assert facts["evaluation"]["radiometric"]["frames"] == 2
    whole, _ = load_weights(tmp_path / "checkpoint.pt")
    for mine, theirs in zip(network.state_dict().values(), whole.state_dict().values()):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    noise = [np.random.default_rng(2).integers(0, 255, (128, 160, 3), dtype=np.uint8)]
    found = export_segmenter(network, tmp_path / "tiny.onnx", frames=noise, frames_from="noise", size_px=(96, 64),
                             training={"data": "patches", "radiometric": 4}, evaluation=facts["evaluation"])
    assert found["max_abs_difference"] <= 1e-3 and found["labels_agreement"] > 0.999

    from thermalreid_ros.engine import load_engine

    segmenter = Segmenter(load_engine(tmp_path / "tiny.onnx", providers=("cpu",)))
    mask = segmenter.segment(noise[0], stamp_ns=5)
    assert mask.labels.shape == (64, 96) and (mask.width, mask.height, mask.stamp_ns) == (160, 128, 5)
    with torch.no_grad():
        small = cv2.resize(noise[0], (96, 64), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)[None]
        probability, label = network(torch.from_numpy(small).float()).softmax(1).max(1)
    assert (label[0].numpy() == mask.labels).mean() > 0.99
    assert np.abs(255 * probability[0].numpy() - mask.confidence).max() < 4
    for radiometric, band in ((False, "thermal"), (True, "radiometric")):
        assert segmenter.confusion(radiometric).tolist() == facts["evaluation"][band]["confusion"]


def test_dropout_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def run(folder, log=lambda line: None):
        train(recipe_for("geogan", steps=3, batch=2), patches(2, 32), tmp_path / folder, log=log,
              checkpoint_seconds=0.0)
        return load_weights(tmp_path / folder / "checkpoint.pt")[0].state_dict()

    def interrupt(line):
        if line.startswith("step 2"):
            raise KeyboardInterrupt

    monkeypatch.setattr(segmentation, "LOG_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        run("b", interrupt)
    for mine, theirs in zip(run("b").values(), run("a").values(), strict=True):
        assert torch.equal(mine, theirs)


def test_training_ends_in_time_and_needs_an_end(tmp_path):
    lines = []
    train(recipe_for("segmenter_compact", minutes=0.02, batch=2), patches(2, 32), tmp_path, log=lines.append)
    seconds = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    assert 1.2 <= seconds < 10
    with pytest.raises(ThermalReidError, match="--steps, --minutes or both"):
        recipe_for("geogan")
    with pytest.raises(ThermalReidError, match="is unknown"):
        recipe_for("pidnet", steps=1)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "weights.pt").read_bytes()[:500])
    with pytest.raises(ThermalReidError, match="cut.pt: not readable as a checkpoint"):
        load_weights(tmp_path / "cut.pt")


def test_evaluation_counts_each_band():
    class Levels(torch.nn.Module):
        def forward(self, image):
            levels = torch.from_numpy(LEVELS).float().view(1, -1, 1, 1)
            return -(image.mean(1, keepdim=True) - levels).abs()

    found = evaluate(Levels(), patches(6), batch=4)
    assert found["thermal"]["frames"] == 6 and found["visible"]["frames"] == 3
    assert found["thermal"]["miou"] > 0.99 and np.trace(found["thermal"]["confusion"]) > 4.9
