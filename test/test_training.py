"""Networks, losses, crops and the training loop: small, on the CPU, with numbers."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.cli import main  # noqa: E402
from thermalreid_ros.detection.detector import Detector  # noqa: E402
from thermalreid_ros.engine import load_engine  # noqa: E402
from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.training.detection import DetectionRecipe, build, load_checkpoint, train  # noqa: E402
from thermalreid_ros.training.detectors import Darknet53, SemanticStem, YoloSemantic  # noqa: E402
from thermalreid_ros.training.export import DetectorExport, export_detector  # noqa: E402
from thermalreid_ros.training.frames import AnnotatedFrames, CropSampler, TrainingSet, read_coco  # noqa: E402
from thermalreid_ros.training.weights import load_averaged  # noqa: E402
from thermalreid_ros.training.losses import (  # noqa: E402
    IGNORE,
    PADDING,
    compact_loss,
    complete_iou,
    decode_yolo,
    semantic_loss,
    trust_loss,
)


@pytest.fixture(scope="module")
def squares() -> AnnotatedFrames:
    """Noise with bright squares that are cars and bright bars that are persons."""
    rng = np.random.default_rng(0)
    images, boxes, labels = rng.integers(60, 100, (6, 160, 192), dtype=np.uint8), [], []
    for image in images:
        own, kinds = [], []
        for n, (x, y) in enumerate(((20, 30), (110, 20), (60, 100), (140, 110))):
            w, h = ((24, 24), (8, 18))[n % 2]
            image[y:y + h, x:x + w] = 220
            own.append((x, y, x + w, y + h))
            kinds.append(n % 2)
        boxes.append(np.array(own, np.float32))
        labels.append(np.array(kinds))
    return AnnotatedFrames(images, boxes, labels)


def test_darknet_is_table_1_of_the_paper():
    network = Darknet53(semantic_classes=5, width=1.0)
    counts = [sum(type(m).__name__ == "Residual" for m in stage) for stage in network.stages]
    assert counts == [1, 2, 8, 8, 4]
    assert [stage[0][0].out_channels for stage in network.stages] == [64, 128, 256, 512, 1024]
    convolutions = [m for m in network.stages.modules() if isinstance(m, torch.nn.Conv2d)]
    assert 1 + len(convolutions) == 52  # and the classifier's connected layer is the 53rd
    features = network(torch.zeros(1, 1, 64, 64), None)
    assert [tuple(f.shape[1:]) for f in features] == [(256, 8, 8), (512, 4, 4), (1024, 2, 2)]


def test_the_stem_is_a_convolution_over_thermal_and_labelling_together():
    torch.manual_seed(0)
    stem = SemanticStem(3, 8).eval()
    torch.nn.init.normal_(stem.semantics.weight)
    thermal, semantics = torch.randn(1, 1, 9, 9), torch.randn(1, 3, 9, 9)
    weight = torch.cat((stem.thermal.weight, stem.semantics.weight), 1)
    together = torch.nn.functional.conv2d(torch.cat((thermal, semantics), 1), weight, padding=1)
    torch.testing.assert_close(stem(thermal, semantics), stem.rest(together), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name,most", [("yolo_compact", 4.0e6), ("yolo_semantic", 5.0e6)])
def test_networks_take_any_multiple_of_their_stride_and_stay_small(name, most):
    network = build(name).eval()
    assert sum(p.numel() for p in network.parameters()) <= most
    boxes, scores, labels = DetectorExport(network)(torch.zeros(1, 1, 96, 160, dtype=torch.uint8))
    assert boxes.shape == (1, 300, 4) and (scores.diff() <= 0).all() and labels.dtype == torch.int64


def test_iou_and_ciou_of_known_boxes():
    a = torch.tensor([[0.0, 0, 10, 10]])
    iou, ciou = complete_iou(a, torch.tensor([[5.0, 0, 15, 10]]))
    assert iou.item() == pytest.approx(1 / 3, abs=1e-6)
    assert ciou.item() == pytest.approx(1 / 3 - 25 / (15**2 + 10**2), abs=1e-6)  # like shapes: no aspect term
    iou, ciou = complete_iou(a, a)
    assert iou.item() == pytest.approx(1, abs=1e-5) and ciou.item() == pytest.approx(1, abs=1e-5)


def test_a_yolo_cell_that_says_nothing_is_its_anchor():
    out = torch.zeros(1, 3 * 9, 2, 2)
    boxes, _, _ = decode_yolo(out, torch.tensor(((10.0, 20.0), (4, 4), (30, 8))), stride=8)
    np.testing.assert_allclose(boxes[0, 0, 0, 1], (12 - 5, 4 - 10, 12 + 5, 4 + 10))
    np.testing.assert_allclose(boxes[0, 2, 1, 0], (4 - 15, 12 - 4, 4 + 15, 12 + 4))


def test_compact_loss_wants_confidence_where_the_object_is_and_is_silent_where_not_to_judge():
    boxes = torch.tensor([[[8.0, 8, 24, 24], [32, 32, 60, 60]]])
    labels = torch.tensor([[1, IGNORE]])
    out = torch.zeros(1, 8, 16, 16)
    out[:, 4:] = 2.0  # every cell proposes 16 x 16 px
    out.requires_grad_()
    terms = compact_loss(out, boxes, labels, stride=4, trained_classes=torch.tensor([1.0, 1, 1, 0]))
    terms["loss"].backward()
    gradient = out.grad[0]
    assert 10 <= terms["positives"] <= 16  # the ten best of its cells, and what ties with the tenth
    assert gradient[1, 3:5, 3:5].max() < 0 < gradient[1, 0, 0]  # more person in the middle, less elsewhere
    assert (gradient[0] >= 0).all()  # no car anywhere
    assert not gradient[:4, 8:15, 8:15].any()  # what is not to be judged
    assert not gradient[3].any()  # dogs have no examples
    nothing = compact_loss(out, boxes, torch.full((1, 2), PADDING), stride=4, trained_classes=torch.ones(4))
    assert torch.isfinite(nothing["loss"]) and nothing["positives"] == 0


def test_what_an_image_was_not_searched_for_is_not_punished_there():
    boxes, labels = torch.tensor([[[8.0, 8, 24, 24]]] * 2), torch.tensor([[1]] * 2)
    trained = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 0]])
    out = torch.zeros(2, 8, 16, 16, requires_grad=True)
    compact_loss(out, boxes, labels, stride=4, trained_classes=trained)["loss"].backward()
    assert (out.grad[0, 3] > 0).all() and not out.grad[1, 3].any() and (out.grad[1, 0] > 0).all()
    anchors = YoloSemantic.anchors
    outs = [torch.zeros(2, 27, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)]
    semantic_loss(outs, boxes, labels, strides=(8, 16, 32), anchors=anchors, trained_classes=trained)["loss"].backward()
    dogs = outs[0].grad.view(2, 3, 9, 8, 8)[:, :, 8]
    assert dogs[0].max() > 0 and not dogs[1].any()


def test_semantic_loss_wants_the_anchors_that_suit_and_is_silent_where_not_to_judge():
    boxes = torch.tensor([[[8.0, 8, 22, 33], [36, 36, 62, 62], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, IGNORE, PADDING]])
    outs = [torch.zeros(1, 27, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)]
    terms = semantic_loss(outs, boxes, labels, strides=(8, 16, 32), anchors=YoloSemantic.anchors,
                          trained_classes=torch.ones(4))
    terms["loss"].backward()
    # 14 x 25 px suits, within a factor of 3, three anchors of stride 8, three of stride 16 and one of stride 32, where
    # of the three cells one lies outside
    assert terms["positives"] == 9 + 9 + 2
    objectness = outs[0].grad.view(3, 9, 8, 8)[:, 4]
    assert (objectness[:, 2, 1] < objectness[:, 0, 7]).all()  # cell (1, 2) holds the centre (15, 20.5)
    assert not objectness[:, 5:7, 5:7].any() and (objectness[:, 0, 5:] > 0).all()
    nothing = semantic_loss([o.detach().requires_grad_() for o in outs], boxes, torch.full((1, 3), PADDING),
                            strides=(8, 16, 32), anchors=YoloSemantic.anchors, trained_classes=torch.ones(4))
    assert torch.isfinite(nothing["loss"]) and nothing["positives"] == 0 and nothing["box_loss"] == 0


def test_crops_are_the_same_for_the_same_step_and_boxes_stay_on_their_objects(squares):
    sets = [TrainingSet(squares, scale=(0.5, 1.45))]
    sampler = CropSampler(sets, 96, seed=3, inversion=0.0)
    seen = 0
    for step in range(12):
        crops, again = sampler(step, 6), sampler(step, 6)
        assert all(torch.equal(getattr(crops, key), getattr(again, key)) for key in ("thermal", "boxes", "labels"))
        assert crops.thermal.shape == (6, 1, 96, 96) and crops.semantics is None
        assert crops.labels.shape[1] <= sampler.max_objects
        for crop, boxes, labels in zip(crops.thermal[:, 0].numpy(), crops.boxes.numpy(), crops.labels.numpy()):
            assert 0 <= crop.min() and crop.max() <= 255
            for (x0, y0, x1, y1), label in zip(boxes, labels):
                if label < 0:
                    continue
                assert 0 <= x0 < x1 <= 96 and 0 <= y0 < y1 <= 96
                inside = crop[int(np.ceil(y0 + 1)):int(y1 - 1), int(np.ceil(x0 + 1)):int(x1 - 1)]
                if inside.size:
                    seen += 1
                    assert inside.mean() > np.median(crop) + 20, (step, x0, y0)
    assert seen > 100
    assert not torch.equal(CropSampler(sets, 96, seed=4)(0, 6).thermal, sampler(0, 6).thermal)


def test_what_a_crop_cuts_is_ignored_and_little_rests_are_dropped():
    corner = AnnotatedFrames(np.zeros((1, 64, 64), np.uint8),
                             [np.array([[0, 0, 20, 20], [30, 30, 64, 64]], np.float32)], [np.array([0, 1])])
    sampler = CropSampler([TrainingSet(corner, scale=(1.0, 1.0))], 32, seed=1)
    shares = []
    for step in range(20):
        crops = sampler(step, 8)
        for boxes, labels in zip(crops.boxes.numpy(), crops.labels.numpy()):
            for box, label in zip(boxes, labels):
                if label == PADDING:
                    assert not box.any()
                else:
                    area = (box[2:] - box[:2]).prod()
                    assert area >= 0.15 * 400 - 0.1
                    shares.append((label, area / (400, 34 * 34)[label] if label >= 0 else area))
    assert min(share for label, share in shares if label >= 0) >= 0.45
    assert any(label == IGNORE for label, _ in shares)


def test_sets_make_their_share_of_a_batch_and_say_what_they_know(squares):
    mask = np.zeros(squares.images.shape, np.uint8)
    mask[:, :, 96:] = 2
    bright = AnnotatedFrames(np.full_like(squares.images, 255), squares.boxes, squares.labels, (0, 1, 2, 3), mask,
                             np.full(6, 2.0))
    dark = AnnotatedFrames(np.zeros_like(squares.images), squares.boxes, squares.labels, (0, 1))
    sampler = CropSampler([TrainingSet(dark, 0.75), TrainingSet(bright, 0.25)], 96, seed=1, inversion=0.0,
                          semantics_stride=4)
    dogs, known = 0, 0
    for step in range(40):
        crops = sampler(step, 10)
        from_bright = crops.thermal.mean((1, 2, 3)) > 127
        assert torch.equal(crops.trained[:, 3] == 1, from_bright) and crops.trained[:, :2].all()
        assert crops.semantics.shape == (10, 1, 24, 24) and crops.semantics.dtype == torch.uint8
        assert (crops.semantics[~from_bright] == 255).all()
        dogs += int(from_bright.sum())
        known += int((crops.semantics != 255).flatten(1).any(1).sum())
    assert 85 <= dogs <= 115 and 0.5 * dogs <= known <= 0.83 * dogs


def test_a_true_labelling_lies_on_what_it_labels():
    rng = np.random.default_rng(2)
    image = np.kron(rng.integers(0, 2, (8, 10)), np.ones((20, 20))).astype(np.uint8)
    frames = AnnotatedFrames(255 * image[None], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)],
                             labellings=2 * image[None], pixels_per_metre=np.array([1.0]))
    sampler = CropSampler([TrainingSet(frames, scale=(0.8, 1.4))], 96, seed=1, inversion=0.0, variation=0.0,
                          semantics_stride=4)
    exact = []
    for step in range(8):
        crops = sampler(step, 8)
        cells = torch.nn.functional.avg_pool2d(crops.thermal, 4)
        for grey, labels in zip(cells, crops.semantics):
            if (labels == 255).all():
                continue
            plain = (labels != 255) & ((grey - grey.mean()).abs() > 80)
            exact.append(((grey > grey.mean()) == (labels == 2))[plain].float().mean().item())
    assert sum(share > 0.98 for share in exact) >= 0.4 * len(exact) >= 12  # the true ones
    assert sum(share < 0.9 for share in exact) >= 0.2 * len(exact)  # and those that are meant to be wrong


@pytest.mark.parametrize("name", ["yolo_compact", "yolo_semantic"])
def test_an_untrained_labelling_changes_nothing_and_an_unknown_one_never_does(name):
    torch.manual_seed(0)
    network = build(name).eval()
    thermal = 255 * torch.rand(1, 1, 64, 96)
    size = 64 // network.semantics_stride, 96 // network.semantics_stride
    labels = torch.randint(0, 5, (1, 1, *size), dtype=torch.uint8)

    def answer(semantics):
        out = network(thermal, semantics)
        return out if name == "yolo_compact" else torch.cat([o.flatten() for o in out])

    without = answer(None)
    assert torch.equal(answer(labels), without)
    for module in (network.labelling.out if name == "yolo_compact" else [network.backbone.stem.semantics]):
        torch.nn.init.normal_(module.weight)
    assert torch.equal(answer(torch.full_like(labels, 255)), without)
    assert not torch.allclose(answer(labels), without)


def test_of_a_labelling_of_another_place_nothing_is_let_through():
    torch.manual_seed(0)
    network = build("yolo_compact").eval()
    branch, roads = network.labelling, torch.ones(1, 1, 16, 24, dtype=torch.uint8)
    for out in branch.out:
        torch.nn.init.normal_(out.weight)
    torch.nn.init.zeros_(branch.ground[2].weight)
    branch.ground[2].bias.data = torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0])  # all of it looks like a road
    branch.trust.weight.data = torch.tensor([20.0, 0.0]).view(1, 2, 1, 1)
    torch.nn.init.constant_(branch.trust.bias, 20.0)
    thermal, half = 255 * torch.rand(1, 1, 64, 96), roads.clone()
    half[..., :12] = 3
    unknown = torch.where(half == 3, 255, half).to(torch.uint8)  # what is not known is not held against the rest

    @torch.no_grad()
    def judged(labelling):
        out, ground, trust = network.judging(thermal, labelling)
        assert ground.shape == (1, 5, 4, 6) and trust.shape == (1, 1, 1, 1)
        return float((out - network(thermal)).abs().mean()), float((trust - 20.0) / 20.0)

    surely, never = np.log(0.98 + 0.004), np.log(0.004)
    for labelling, likely in ((roads, surely), (torch.full_like(roads, 2), never), (half, (surely + never) / 2),
                              (unknown, surely)):
        effect, found = judged(labelling)
        assert found == pytest.approx(likely, abs=0.05)
        assert effect > 1e-4 if likely == surely else effect < 1e-7
    branch.trust.weight.data = torch.tensor([0.0, 20.0]).view(1, 2, 1, 1)
    assert judged(roads)[1] == pytest.approx(0.0, abs=1e-5)  # likely here, and as likely all over the frame
    assert network.judging(thermal)[1:] == (None, None)


def test_a_labelling_is_trusted_where_its_classes_are_seen_and_not_where_they_are_seen_elsewhere():
    branch = build("yolo_compact").labelling.eval()
    torch.nn.init.zeros_(branch.ground[0].weight)
    branch.ground[0].weight.data[:2, :2, 0, 0] = torch.eye(2)  # the first two channels are the first two classes
    torch.nn.init.zeros_(branch.ground[0].bias)
    torch.nn.init.zeros_(branch.ground[2].weight)
    branch.ground[2].weight.data[:2, :2, 0, 0] = 4.0 * torch.eye(2)
    torch.nn.init.zeros_(branch.ground[2].bias)
    seen = torch.zeros(1, 64, 4, 6)
    seen[:, 0, :, :3], seen[:, 1, :, 3:] = 1.0, 1.0
    told = torch.zeros(1, 5, 16, 24)
    told[:, 0, :, :12], told[:, 1, :, 12:] = 1.0, 1.0
    with torch.no_grad():
        here, mirrored = (branch(planes, seen)[3].item() for planes in (told, told.flip(3)))
        half = told.clone()
        half[:, :, :, 12:] = 0.0  # of half of it nothing is told
        of_half = branch(half, seen)[3].item()
    share = 0.98 * np.exp(4) / (np.exp(4) + 4) + 0.004, 0.98 / (np.exp(4) + 4) + 0.004
    anywhere = sum(share) / 2
    assert here == pytest.approx(6 + 4 * np.log(share[0]) + 14 * np.log(share[0] / anywhere), abs=1e-3)
    assert mirrored == pytest.approx(6 + 4 * np.log(share[1]) + 14 * np.log(share[1] / anywhere), abs=1e-3)
    assert of_half == pytest.approx(here, abs=1e-4) and here > 5 > -20 > mirrored


def test_the_loss_of_the_judgement_is_of_what_is_known():
    true = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    true[0, ..., :4, :4], true[0, ..., :4, 4:6], true[0, ..., :4, 6:] = 1, 1, 0  # two cells, one of two classes
    ground = torch.zeros(2, 3, 2, 2)
    ground[0, 1, 0] = 2.0
    sure, other = np.log1p(2 * np.exp(-2.0)), 2.0 + np.log1p(2 * np.exp(-2.0))
    trust = torch.tensor([3.0, -7.0]).view(2, 1, 1, 1)
    labelling = torch.ones_like(true)
    terms = trust_loss(ground, trust, labelling, true, classes=3)
    assert terms["ground_loss"].item() == pytest.approx((sure + 0.5 * sure + 0.5 * other) / 2, rel=1e-5)
    assert terms["trust_loss"].item() == pytest.approx(np.log1p(np.exp(-3.0)), rel=1e-5)  # of the second none is known
    labelling[0, ..., :3] = 2  # now 3 of 8 columns are wrong, and 2 more in any case
    assert trust_loss(ground, trust, labelling, true, classes=3)["trust_loss"].item() == pytest.approx(
        3.0 + np.log1p(np.exp(-3.0)), rel=1e-5)
    nothing = trust_loss(ground, trust, labelling, torch.full_like(true, 255), classes=3)
    assert nothing["ground_loss"].item() == nothing["trust_loss"].item() == 0.0


def labelled(squares: AnnotatedFrames) -> AnnotatedFrames:
    """The squares on a ground of random blocks."""
    blocks = np.random.default_rng(1).integers(0, 5, (6, 10, 12)).astype(np.uint8)
    return replace(squares, labellings=np.kron(blocks, np.ones((16, 16), np.uint8)), pixels_per_metre=np.full(6, 2.0))


def test_crops_tell_the_ground_and_how_much_of_what_is_told_is_true(squares):
    sets = [TrainingSet(labelled(squares), 0.5, (1.0, 1.0)), TrainingSet(squares, 0.5)]

    def drawn(known_true, known_wrong, elsewhere=0.1):
        """Shares of the first set's crops that are told something, and of what they are told that is true."""
        sampler = CropSampler(sets, 96, seed=2, semantics_stride=4, known_true=known_true, known_wrong=known_wrong,
                              elsewhere=elsewhere)
        crops = sampler(0, 40)
        assert (crops.ground[20:] == 255).all() and (crops.ground[:20] != 255).float().mean() > 0.5
        told, ground = crops.semantics[:20], crops.ground[:20]
        judged = (told != 255) & (ground != 255)
        return (told != 255).flatten(1).any(1).float().mean().item(), (told == ground)[judged].float().mean().item()

    assert drawn(1.0, 0.0) == (1.0, 1.0)
    assert drawn(0.0, 0.0)[0] == 0.0
    share, of_wrong = drawn(0.0, 1.0, 0.0)
    assert share == 1.0 and 0.3 < of_wrong < 0.9
    share, of_others = drawn(0.0, 1.0, 1.0)
    assert share == 1.0 and of_others < of_wrong - 0.1


def test_trust_in_labellings_is_trained_alone(squares, tmp_path):
    recipe = DetectionRecipe("yolo_compact", steps=2, batch=2, crop_px=96, warmup=1, ema=0.0)
    start = train(recipe, [TrainingSet(squares)], tmp_path / "run", log=lambda line: None).with_name("checkpoint.pt")
    alone = replace(recipe, steps=12, only_trust=True, known_true=0.5, known_wrong=0.5, learning_rate=0.05)
    path = train(alone, [TrainingSet(labelled(squares))], tmp_path / "alone", start=start, log=lambda line: None)
    log = [json.loads(line) for line in (tmp_path / "alone/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] > 0 and log[-1]["trust_loss"] > 0
    assert log[-1]["loss"] == pytest.approx(log[-1]["ground_loss"] + log[-1]["trust_loss"], abs=2e-4)
    before, after = (load_checkpoint(file)[0].state_dict() for file in (start, path))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key.rsplit(".", 1)[0] for key in changed} == {"labelling.ground.0", "labelling.ground.2", "labelling.trust"}
    thermal = torch.from_numpy(squares.images[:1, None, :96]).float()
    was, now = load_checkpoint(start)[0], load_checkpoint(path)[0]
    with torch.no_grad():
        assert torch.equal(was(thermal), now(thermal))
    for sets, network, begun in (([TrainingSet(squares)], "yolo_compact", start), (
            [TrainingSet(labelled(squares))], "yolo_compact", None), ([TrainingSet(labelled(squares))], "yolo_semantic",
                                                                      None)):
        with pytest.raises(ThermalReidError, match="is trained alone of a yolo_compact that has learned the rest"):
            train(replace(alone, network=network), sets, tmp_path / "refused", start=begun, log=lambda line: None)


def test_training_learns_resumes_and_exports(squares, tmp_path):
    recipe = DetectionRecipe("yolo_compact", steps=4, batch=2, crop_px=96, warmup=1, ema=0.5)
    lines, sets = [], [TrainingSet(squares)]
    train(recipe, sets, tmp_path / "run", log=lines.append)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4 and np.isfinite(log[-1]["loss"])
    longer = replace(recipe, steps=20)
    train(longer, sets, tmp_path / "run", log=lines.append)
    assert "resumed at step 4 of 20" in lines
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.95 * log[0]["loss"]
    with pytest.raises(ThermalReidError, match="another recipe .batch differ"):
        train(replace(longer, batch=3), sets, tmp_path / "run", log=lines.append)

    averaged, half = (load_checkpoint(tmp_path / "run" / name)[0] for name in ("checkpoint.pt", "weights.pt"))
    for a, b in zip(averaged.state_dict().values(), half.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    assert (tmp_path / "run/weights.pt").stat().st_size < 5e6
    detector, kept, step = load_checkpoint(tmp_path / "run/checkpoint.pt")
    assert step == 20 and kept["batch"] == 2
    difference = export_detector(detector, tmp_path / "tiny.onnx", frames=squares.images[:2], frames_from="squares",
                                 training={"data": "squares"})
    assert difference <= 1e-3 and (tmp_path / "tiny.yaml").is_file()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "run/checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ThermalReidError, match="cut.pt: no checkpoint"):
        load_checkpoint(tmp_path / "cut.pt")


def test_training_begins_with_the_network_of_an_earlier_one(squares, tmp_path):
    recipe = DetectionRecipe("yolo_compact", steps=2, batch=1, crop_px=96, warmup=10**6)
    lines, sets = [], [TrainingSet(squares)]
    start = train(recipe, sets, tmp_path / "run", log=lines.append).with_name("weights.pt")
    train(recipe, sets, tmp_path / "on", start=start, log=lines.append)
    assert f"begun with the weights of {start}, 2 steps" in lines
    begun, on, fresh = (load_checkpoint(start)[0], load_checkpoint(tmp_path / "on/weights.pt")[0],
                        build("yolo_compact").eval())
    picture = torch.from_numpy(squares.images[:1, None, :96, :96]).float()
    with torch.no_grad():
        was, now, other = (network(picture, None)[0] for network in (begun, on, fresh))
    assert (now - was).abs().mean() < 0.02 * (other - was).abs().mean()  # at this rate a network hardly moves
    with pytest.raises(ThermalReidError, match="weights.pt: holds yolo_compact, not yolo_semantic"):
        train(replace(recipe, network="yolo_semantic"), sets, tmp_path / "other", start=start, log=lines.append)


def test_the_command_line_decides_the_recipe(squares, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), squares.images[0])
    x_min, y_min, x_max, y_max = map(float, squares.boxes[0][0])
    coco = {"images": [{"id": 0, "file_name": "a.png"}], "categories": [{"id": 0, "name": "Car"}],
            "annotations": [{"image_id": 0, "category_id": 0, "bbox": [x_min, y_min, x_max - x_min, y_max - y_min]}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    assert main(["train", "detector", "--images", str(tmp_path), "--annotations", str(tmp_path / "coco.json"),
                 "--steps", "1", "--batch", "1", "--crop-px", "96", "--ema", "0.5", "--backbone-rate", "0.25",
                 "--frozen-blocks", "0", "--out", str(tmp_path / "run")]) == 0
    recipe = load_checkpoint(tmp_path / "run/weights.pt")[1]
    assert (recipe["ema"], recipe["backbone_rate"], recipe["frozen_blocks"]) == (0.5, 0.25, 0)
    assert "trained: " in capsys.readouterr().out


@pytest.mark.parametrize("content", ["junk", "", [1, 2], {"recipe": 3, "averaged": 4}, {"features.0.0.weight": 1}])
def test_files_of_something_else_are_told_by_name(squares, tmp_path, content):
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_text(content) if isinstance(content, str) else torch.save(content, path)
    recipe = DetectionRecipe("yolo_compact", steps=1, batch=1, crop_px=96)
    with pytest.raises(ThermalReidError, match="checkpoint.pt: no checkpoint of this version"):
        load_checkpoint(path)
    with pytest.raises(ThermalReidError, match="checkpoint.pt: no checkpoint of this training .*another --out"):
        train(recipe, [TrainingSet(squares)], path.parent, log=lambda line: None)
    with pytest.raises(ThermalReidError, match="checkpoint.pt: no weights of MobileNetV2"):
        build("yolo_compact", path)
    with pytest.raises(ThermalReidError, match="checkpoint.pt: no weights of a thing"):
        load_averaged(torch.nn.Linear(1, 1), path, "a thing")


def test_minutes_end_a_training_before_its_steps(squares, tmp_path):
    recipe = DetectionRecipe("yolo_compact", steps=10**6, minutes=1 / 60, batch=1, crop_px=96)
    assert recipe.progress(10, 0.25) == pytest.approx(0.25) and recipe.progress(10**6, 0.0) == 1.0
    train(recipe, [TrainingSet(squares)], tmp_path, log=lambda line: None)
    _, kept, step = load_checkpoint(tmp_path / "weights.pt")
    assert 0 < step < 1000 and kept["minutes"] == 1 / 60


@pytest.mark.parametrize("name,stride", [("yolo_compact", 4), ("yolo_semantic", 1)])
def test_detectors_export_with_their_semantic_input(tmp_path, name, stride):
    torch.manual_seed(1)
    network = build(name).eval()
    for module in (network.labelling.out if name == "yolo_compact" else [network.backbone.stem.semantics]):
        torch.nn.init.normal_(module.weight, std=0.1)
    frames = [np.random.default_rng(0).integers(0, 255, (128, 160), dtype=np.uint8)]
    out = tmp_path / "a.onnx"
    # the comparison is made with a labelling and without
    assert export_detector(network, out, frames=frames, frames_from="noise", training={}) <= 1e-3
    engine = load_engine(out, providers=("cpu",))
    spec = engine.card.inputs[1]
    assert (spec.name, spec.dtype, spec.typical_shape) == ("semantics", "uint8", (1, 1, 512 // stride, 640 // stride))
    detector = Detector(engine, score_threshold=0.0)
    assert detector.semantics_stride == stride
    labels = np.random.default_rng(1).integers(0, 5, (128, 160), dtype=np.uint8)
    plain, known = detector.detect(frames[0]), detector.detect(frames[0], labels)
    assert (plain.semantics, known.semantics) == ("none", "predicted")
    assert plain.detections != known.detections
    assert detector.detect(frames[0], np.full_like(labels, 255)).detections == plain.detections


def test_coco_faults_name_the_file(tmp_path):
    with pytest.raises(ThermalReidError, match="none.json: not a readable COCO"):
        read_coco(tmp_path, tmp_path / "none.json")
    whole = {"categories": [{"id": 0, "name": "car"}], "images": [{"id": 1, "file_name": "a.png"}],
             "annotations": [{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4]}]}
    for other in ([], {"categories": []}, {**whole, "images": [{"id": 1}]}, {**whole, "annotations": [{"image_id": 1}]},
                  {**whole, "annotations": [{**whole["annotations"][0], "category_id": 7}]},
                  {**whole, "annotations": [{**whole["annotations"][0], "bbox": [1, 2]}]},
                  {**whole, "annotations": [{**whole["annotations"][0], "bbox": [1, 2, -3, 4]}]},
                  {**whole, "categories": 2 * whole["categories"]}, "[" * 10**5,
                  {**whole, "images": 2 * whole["images"]},
                  *({**whole, "images": [{**whole["images"][0], "fx": fx, "depression_deg": 60, "altitude_m": high}]}
                    for fx, high in ((None, 80), (800, 0), (800, -80)))):
        (tmp_path / "other.json").write_text(other if isinstance(other, str) else json.dumps(other))
        with pytest.raises(ThermalReidError, match="other.json: not a readable COCO"):
            read_coco(tmp_path, tmp_path / "other.json")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((32, 48), np.uint8))
    (tmp_path / "c.json").write_text(json.dumps({
        "categories": [], "annotations": [],
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]}))
    with pytest.raises(ThermalReidError, match=r"b.png: \(48, 32\) px, but the set began with \(32, 32\) px"):
        read_coco(tmp_path, tmp_path / "c.json")


def test_boxes_are_widened_within_the_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 80), np.uint8))
    (tmp_path / "c.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 0, "name": "car"}],
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [10, 20, 20, 10]},
                        {"image_id": 1, "category_id": 0, "bbox": [1, 1, 78, 62]}]}))
    boxes, = read_coco(tmp_path, tmp_path / "c.json", margin=(1.0, 0.1)).boxes
    assert boxes.tolist() == [[7, 18, 33, 32], [0, 0, 80, 64]]
    boxes, = read_coco(tmp_path, tmp_path / "c.json").boxes
    assert boxes.tolist() == [[10, 20, 30, 30], [1, 1, 79, 63]]
    content = json.loads((tmp_path / "c.json").read_text())
    content["annotations"][0]["instance"] = 3  # a rendered set, with tight boxes
    (tmp_path / "c.json").write_text(json.dumps(content))
    boxes, = read_coco(tmp_path, tmp_path / "c.json").boxes
    assert boxes[0] == pytest.approx([7.8, 18.4, 32.2, 31.6])
