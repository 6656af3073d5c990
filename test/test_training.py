"""Networks, losses, crops and the training loop: small, on the CPU, with numbers."""

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed")

from thermalreid_ros.errors import ThermalReidError  # noqa: E402
from thermalreid_ros.training.detection import DetectionRecipe, build, load_checkpoint, train  # noqa: E402
from thermalreid_ros.training.detectors import Darknet53, SemanticStem, YoloSemantic  # noqa: E402
from thermalreid_ros.training.export import DetectorExport, export_detector, parity  # noqa: E402
from thermalreid_ros.training.frames import AnnotatedFrames, CropSampler, read_coco  # noqa: E402
from thermalreid_ros.training.losses import IGNORE, PADDING, compact_loss, complete_iou, decode_yolo  # noqa: E402


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


def test_crops_are_the_same_for_the_same_index_and_boxes_stay_on_their_objects(squares):
    sampler = CropSampler(squares, 96, seed=3, inversion=0.0)
    for index in range(40):
        crop, boxes, labels = sampler(index)
        again = sampler(index)
        assert all((a == b).all() for a, b in zip((crop, boxes, labels), again))
        assert crop.shape == (96, 96) and crop.dtype == np.uint8
        for box, label in zip(boxes, labels):
            if label < 0:
                continue
            x0, y0, x1, y1 = box
            assert 0 <= x0 < x1 <= 96 and 0 <= y0 < y1 <= 96
            inside = crop[int(np.ceil(y0 + 1)):int(y1 - 1), int(np.ceil(x0 + 1)):int(x1 - 1)]
            around = np.median(crop)
            if inside.size:
                assert inside.mean() > around + 20, (index, box)
    assert (CropSampler(squares, 96, seed=4)(0)[0] != sampler(0)[0]).any()


def test_training_learns_resumes_and_exports(squares, tmp_path):
    recipe = DetectionRecipe("yolo_compact", steps=4, batch=2, crop_px=96, warmup=1, ema=0.5)
    lines = []
    train(recipe, squares, tmp_path / "run", log=lines.append)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 4 and np.isfinite(log[-1]["loss"])
    longer = DetectionRecipe("yolo_compact", steps=20, batch=2, crop_px=96, warmup=1, ema=0.5)
    train(longer, squares, tmp_path / "run", log=lines.append)
    assert "resumed at step 4 of 20" in lines
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.95 * log[0]["loss"]
    other = DetectionRecipe("yolo_compact", steps=20, batch=3, crop_px=96, warmup=1, ema=0.5)
    with pytest.raises(ThermalReidError, match="another recipe .batch differ"):
        train(other, squares, tmp_path / "run", log=lines.append)

    detector, kept, step = load_checkpoint(tmp_path / "run/checkpoint.pt")
    assert step == 20 and kept["batch"] == 2
    difference = export_detector(detector, tmp_path / "tiny.onnx", frames=squares.images[:2], frames_from="squares",
                                 training={"data": "squares"})
    assert difference <= 1e-3 and (tmp_path / "tiny.yaml").is_file()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "run/checkpoint.pt").read_bytes()[:1000])
    with pytest.raises(ThermalReidError, match="cut.pt: no checkpoint"):
        load_checkpoint(tmp_path / "cut.pt")


def test_yolo_semantic_exports_with_its_semantic_input(tmp_path):
    torch.manual_seed(1)
    network = YoloSemantic(semantic_classes=5, width=0.25).eval()
    frames = [np.random.default_rng(0).integers(0, 255, (128, 160), dtype=np.uint8)]
    assert export_detector(network, tmp_path / "semantic.onnx", frames=frames, frames_from="noise", training={}) <= 1e-3
    torch.nn.init.normal_(network.backbone.stem.semantics.weight)
    # a blank labelling adds nothing
    assert parity(DetectorExport(network), tmp_path / "semantic.onnx", frames, 5) <= 0.02


def test_coco_faults_name_the_file(tmp_path):
    with pytest.raises(ThermalReidError, match="none.json: not a readable COCO"):
        read_coco(tmp_path, tmp_path / "none.json")
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
