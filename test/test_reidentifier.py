"""The Reidentifier: methods, what falls back to which, sizes from poses, acceptance."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid, Pose
from thermalreid_ros.camera.thermal import make_frame
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.engine import EngineError
from thermalreid_ros.reid import loading
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.gallery import Gallery
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.loading import load_embedder, load_length_teller
from thermalreid_ros.reid.probe import ProbeError, make_probe
from thermalreid_ros.reid.reidentifier import EMBEDDING, FUSED, SIGNATURE, MethodError, Reidentifier, VerdictError
from thermalreid_ros.reid.target import CameraPose

S = 1_000_000_000
CAMERA = Intrinsics.from_field_of_view(320, 256, np.radians(30.0))
GRID = LocalGrid("EPSG:32633", 500_000.0, 5_360_000.0)
FUSION = replace(FusedModel.load(), descriptor_model="")


class SeesPlaces:
    """An embedding to which a crop is where it is hottest: left or right of its middle."""

    engine = SimpleNamespace(card=SimpleNamespace(name="places"), close=lambda: None)
    dimensions = 2

    def __init__(self):
        self.described = 0

    def thermal_squares(self, celsius, boxes):
        return np.stack([celsius[int(box[1]):int(box[3]), int(box[0]):int(box[2])][:10, :20] for box in boxes])

    def describe(self, squares):
        self.described += len(squares)
        left = squares[:, :, :10].mean(axis=(1, 2)) > squares[:, :, 10:].mean(axis=(1, 2))
        vectors = np.where(left[:, None], (1.0, 0.0), (0.0, 1.0)).astype(np.float32)
        return vectors, np.tile(np.float32((0.97, 0.01, 0.01, 0.01)), (len(squares), 1))

    def close(self):
        self.engine.close()


def frame(second: float, *boxes: Detection, hot_left: tuple[bool, ...] = ()):
    celsius = np.full((256, 320), 15.0, np.float32) + np.random.default_rng(3).normal(0, 0.1, (256, 320)).astype("f")
    for number, box in enumerate(boxes):
        x, y, right, bottom = (int(edge) for edge in (box.x_min, box.y_min, box.x_max, box.y_max))
        celsius[y:bottom, x:right] = 20.0
        middle = (x + right) // 2
        left = hot_left[number] if hot_left else True
        celsius[y:bottom, x:middle] += 6.0 * left
        celsius[y:bottom, middle:right] += 6.0 * (not left)
    return make_frame(celsius, "32FC1", "celsius_f32", int(second * S), "camera")


def car(x: float, y: float, width: float = 20.0, height: float = 10.0) -> Detection:
    return Detection(0, 0.9, x, y, x + width, y + height)


def probe(descriptors=None, name: str = "", class_name: str = "car"):
    crop = np.full((10, 20), 20.0, np.float32)
    crop[:, :10] += 6.0
    return make_probe([crop], "celsius_f32", "p", class_name, descriptors=descriptors, descriptor_model=name)


def pose(second: float, height_m: float = 100.0) -> CameraPose:
    camera = Pose.looking((0.0, 0.0, height_m), 0.3, np.pi / 2)
    return CameraPose(int(second * S), np.array((500.0, 400.0)), height_m, camera.rotation, np.eye(6) * 1e-4)


def test_descriptors_tell_apart_what_signatures_do_not():
    boxes = (car(40, 40), car(200, 150))
    embedder = SeesPlaces()
    for method in (EMBEDDING, FUSED):
        reid = Reidentifier("celsius_f32", Gallery(0.5), method=method, fusion=FUSION, embedder=embedder)
        reid.add_probe(probe(np.float32([[0, 1], [0, 1]]), "places"))
        reid.process(frame(1, *boxes, hot_left=(True, False)), boxes)
        ranking = reid.rank("p")
        assert ranking.method == method and ranking.why == ""
        best, other = ranking.matches
        assert best.track_id == 2 and best.embedding == pytest.approx(0.0) and other.embedding == pytest.approx(1.0)
        assert 1.0 >= best.probability > other.probability >= 0.0
        assert best.score == pytest.approx(best.embedding if method == EMBEDDING else 1.0 - best.probability)
        assert reid.accept_probability == FUSION.accept_probability
        reid.accept_probability = 1e-9
        assert reid.rank("p").accepted is not None
        reid.accept_probability = 0.0
        assert best.accepted == (best.probability >= reid.accept_probability) == (ranking.accepted is best)
    assert embedder.described == 4
    with pytest.raises(ProbeError, match="described by 'another' but tracks are by 'places'"):
        reid.add_probe(probe(np.float32([[0, 1], [0, 1]]), "another"))


@pytest.mark.parametrize("embedder", [SeesPlaces(), None])
def test_a_probe_of_another_version_of_the_embedding_is_refused_and_the_others_are_ranked_on(embedder):
    """It would end every ranking, those of all other probes, too."""
    name, fitted = ("places", "") if embedder else ("fitted", "fitted")
    fusion = replace(FUSION, descriptor_model=fitted)
    known = np.zeros((2, 2 if embedder else fusion.descriptor_size), np.float32)
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=fusion, embedder=embedder)
    reid.add_probe(replace(probe(known, name), probe_id="known"))
    with pytest.raises(ProbeError, match="'p': its descriptors are of 5 numbers, those of .* here of"):
        reid.add_probe(probe(np.ones((2, 5), np.float32), name))
    reid.process(frame(1, car(40, 40)), (car(40, 40),))
    assert [ranking.probe_id for ranking in reid.rank_all()] == ["known"]


def warmer(seen, box: Detection):
    """The frame with one object warmer by 9 K, and the crop of it."""
    celsius, place = seen.values().copy(), np.s_[int(box.y_min):int(box.y_max), int(box.x_min):int(box.x_max)]
    celsius[place] += 9.0
    crop = np.ascontiguousarray(celsius[place])
    return make_frame(celsius, "32FC1", "celsius_f32", seen.stamp_ns, "camera"), make_probe(
        [crop], "celsius_f32", "crop", "car")


@pytest.mark.parametrize("method", [EMBEDDING, FUSED])
def test_a_thermal_crop_is_ranked_by_equation_1_beside_photographs_that_are_not(method):
    boxes = (car(40, 40), car(200, 150), car(120, 200))
    reid = Reidentifier("celsius_f32", Gallery(0.4), method=method, fusion=FUSION, embedder=SeesPlaces())
    seen, crop = warmer(frame(1, *boxes), boxes[1])
    reid.add_probe(crop)
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places"))
    reid.process(seen, boxes)
    by_crop, by_photograph = reid.rank("crop"), reid.rank("p")
    assert by_crop.method == SIGNATURE and by_crop.why == "probe 'crop' has no descriptors"
    assert by_crop.matches[0].track_id == 2
    assert by_photograph.method == method and not by_photograph.why


def test_where_nothing_fitted_tells_tracks_apart_equation_1_does():
    """No embedding, no pose, and weights that say nothing of how alike they look."""
    nothing = {"without_embedding": {"any": replace(FUSION.weights["without_embedding"]["any"], weights=(0.0,) * 5)}}
    boxes = (car(40, 40), car(200, 150))
    reid = Reidentifier("celsius_f32", Gallery(0.4), method=FUSED, fusion=replace(FUSION, weights=nothing))
    seen, crop = warmer(frame(1, *boxes), boxes[1])
    reid.add_probe(crop)
    reid.process(seen, boxes)
    first, second = reid.rank("crop").matches
    assert first.score == pytest.approx(second.score) and first.track_id == 2


def test_a_size_that_is_known_counts():
    """Both look alike; one is as long as a bus. Before there is a pose nobody can tell."""
    boxes = (car(40, 40, 60.0, 30.0), car(200, 150, 20.0, 10.0))
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=FUSION)
    reid.add_probe(probe())
    reid.process(frame(1, *boxes), boxes)
    assert all(np.isnan(match.size_m) for match in reid.rank("p").matches)
    assert not reid.add_pose(CAMERA, pose(7)) and reid.add_pose(CAMERA, pose(1))
    best, other = reid.rank("p").matches
    assert best.track_id == 2 and best.size_m == pytest.approx(18 / 1.12 * 100 / CAMERA.fx, rel=0.03)
    assert best.probability > other.probability
    target = reid.target(best, GRID)
    assert target.sights == 1 and target.stamp_ns == S
    # A pose that came before its frame serves as well.
    reid.add_pose(CAMERA, pose(2))
    reid.process(frame(2, *boxes), boxes)
    assert reid.target(reid.rank("p").matches[0], GRID).sights == 2
    reid.process(frame(1, *boxes), boxes)  # the recording starts over
    assert all(reid.target(match, GRID) is None for match in reid.rank("p").matches)


def test_a_length_that_was_told_counts_among_those_of_a_class():
    """Both look alike, one is a third longer."""
    boxes = (car(40, 40, 63.0, 31.5), car(200, 150, 83.0, 41.5))
    crop = np.full((10, 20), 20.0, np.float32)
    crop[:, :10] += 6.0
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=FUSION)
    for name, length in (("untold", None), ("short", ToldLength(3.6)), ("long", ToldLength(4.8)),
                         ("rough", ToldLength(4.8, 0.3))):
        reid.add_probe(make_probe([crop], "celsius_f32", name, "car", length=length))
    reid.process(frame(1, *boxes), boxes)
    before = reid.rank("long").matches
    assert before[0].probability == pytest.approx(reid.rank("untold").matches[0].probability)  # no pose, no size
    reid.add_pose(CAMERA, pose(1, 40.0))
    found = {name: {match.track_id: match for match in reid.rank(name).matches} for name in reid.probe_ids}
    for name, own, other in (("short", 1, 2), ("long", 2, 1)):
        assert found[name][own].probability > 1.3 * found["untold"][own].probability
        assert found[name][other].probability < 0.5 * found["untold"][other].probability
        assert reid.rank(name).accept_probability == FUSION.least_probability(ToldLength(3.6))
    assert found["untold"][2].probability < found["rough"][2].probability < found["long"][2].probability
    assert reid.rank("untold").accept_probability == reid.accept_probability == FUSION.accept_probability
    reid.accept_probability = 0.3
    assert reid.rank("long").accept_probability == reid.rank("untold").accept_probability == 0.3


@pytest.mark.parametrize("method", [SIGNATURE, EMBEDDING, FUSED])
def test_a_persons_word_goes_before_what_is_measured(method):
    boxes = (car(40, 40), car(200, 150), car(120, 200))
    reid = Reidentifier("celsius_f32", Gallery(0.4), method=method, fusion=FUSION, embedder=SeesPlaces())
    for name in ("p", "q"):
        reid.add_probe(replace(probe(np.float32([[1, 0], [1, 0]]), "places"), probe_id=name))
    reid.process(frame(1, *boxes, hot_left=(True, False, True)), boxes)
    before = reid.rank("p").matches
    assert sorted(m.track_id for m in before) == [1, 2, 3]
    first, last = before[0].track_id, before[-1].track_id
    reid.judge("p", first, False)
    assert [m.track_id for m in reid.rank("p").matches] == [m.track_id for m in before[1:]]
    reid.judge("p", last, True)
    best, other = reid.rank("p").matches
    assert (best.rank, best.track_id, best.probability, best.accepted) == (1, last, 1.0, True)
    reid.accept_probability = 1e-9
    assert not reid.rank("p").matches[1].accepted  # the object is found: it is no other
    assert best.distance == before[-1].distance and best.embedding == before[-1].embedding
    assert best.score == (0.0 if method == FUSED else before[-1].score)
    assert [m.track_id for m in reid.rank("q").matches] == [m.track_id for m in before]  # said of one probe alone
    reid.add_probe(replace(probe(np.float32([[1, 0], [1, 0]]), "places"), probe_id="p"))  # made anew, at another hour
    assert reid.rank("p").accepted.track_id == last
    reid.judge("p", other.track_id, True)  # there is one such object
    assert [m.track_id for m in reid.rank("p").matches if m.accepted] == [other.track_id]
    for track_id in (1, 2, 3):
        reid.judge("p", track_id, None)
    assert [m.track_id for m in reid.rank("p").matches] == [m.track_id for m in before]


def test_a_word_lives_as_long_as_its_track_and_is_of_what_is_there():
    reid = Reidentifier("celsius_f32", Gallery(0.5, max_age_s=5.0), fusion=FUSION)
    reid.add_probe(probe())
    for probe_id, track_id, words in (("x", 1, "no probe 'x' is searched, but p"), ("p", 9, "no track 9")):
        with pytest.raises(VerdictError, match=words):
            reid.judge(probe_id, track_id, True)
    reid.process(frame(1, car(40, 40)), [car(40, 40)])
    reid.judge("p", 1, True)
    assert reid.rank("p").accepted is not None
    reid.process(frame(9, car(200, 150)), [car(200, 150)])  # the first is forgotten
    assert [m.accepted for m in reid.rank("p").matches] == [False] and "track 1 looked" in reid.rank("p").why
    with pytest.raises(VerdictError, match="no track 1"):
        reid.judge("p", 1, True)
    reid.judge("p", 1, None)  # what was said of it may be taken back none the less
    assert reid.rank("p").why == ""
    with pytest.raises(VerdictError, match="no track 1"):
        reid.judge("p", 1, None)
    track_id = reid.rank("p").matches[0].track_id
    reid.judge("p", track_id, True)
    reid.process(frame(2, car(200, 150)), [car(200, 150)])  # the recording starts over
    assert not any(m.accepted for m in reid.rank("p").matches) and reid.rank("p").why == ""
    reid.judge("p", reid.rank("p").matches[0].track_id, True)
    reid.remove_probe("p")
    reid.add_probe(probe())
    assert reid.rank("p").accepted is None and reid.rank("p").why == ""


def test_what_was_chosen_is_known_again_by_its_looks():
    """The photograph's descriptor prefers another; the object comes back as a new track, as warm as it was."""
    def seen(second: float, **cars: float):
        celsius = np.full((256, 320), 15.0, np.float32) + np.random.default_rng(3).normal(0, 0.1, (256, 320))
        boxes = [car(*{"a": (40, 40), "b": (200, 150), "c": (120, 200)}[name]) for name in cars]
        for box, warmer_k in zip(boxes, cars.values()):
            x, y, right, bottom = (int(edge) for edge in (box.x_min, box.y_min, box.x_max, box.y_max))
            celsius[y:bottom, x:right] = 20.0
            celsius[y:bottom, (x + right) // 2:right] += warmer_k  # to the right: not as the probe's descriptor has it
        return make_frame(celsius.astype(np.float32), "32FC1", "celsius_f32", int(second * S), "camera"), boxes

    reid = Reidentifier("celsius_f32", Gallery(0.4, max_age_s=5.0), method=EMBEDDING, fusion=FUSION,
                        embedder=SeesPlaces())
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places"))
    reid.process(*seen(1, a=3.0, b=14.0))
    reid.judge("p", 2, True)
    assert reid.rank("p").accepted.track_id == 2
    reid.process(*seen(2, a=3.0))  # out of sight, and not forgotten: it is no other
    away = reid.rank("p")
    assert (away.method, away.accepted) == (SIGNATURE, None) and "how track 2 looked" in away.why
    reid.process(*seen(3, a=3.0, b=14.0))  # back in time: the same track or a new one
    reid.process(*seen(20, a=3.0, c=14.0))  # both tracks are forgotten by now
    again = reid.rank("p")
    warm, cool = again.matches
    assert warm.detection.x_min == 120 and warm.distance.total < 0.5 * cool.distance.total
    assert again.method == SIGNATURE and np.isnan(warm.probability) and not warm.accepted
    assert reid.rank("p").matches[0].score == warm.score  # the same again, from what is known
    reid.judge("p", warm.track_id, True)
    assert reid.rank("p").method == EMBEDDING and reid.rank("p").accepted.track_id == warm.track_id
    reid.judge("p", warm.track_id, None)  # nothing is known of it any more but the photograph
    assert reid.rank("p").method == EMBEDDING and reid.rank("p").accepted is None


@pytest.mark.parametrize("embedder", [SeesPlaces(), None])
def test_a_word_is_of_one_object_and_not_of_the_next_of_the_same_name(embedder):
    boxes = (car(40, 40), replace(car(200, 150), class_id=2))
    reid = Reidentifier("celsius_f32", Gallery(0.4), method=FUSED, fusion=FUSION, embedder=embedder)
    reid.accept_probability = 1e-9
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places"))
    reid.process(frame(1, *boxes), boxes)
    reid.judge("p", 1, True)
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places"))  # of the same class: made anew
    assert reid.rank("p").accepted.track_id == 1
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places", class_name="bicycle"))
    bicycle = {match.track_id: match for match in reid.rank("p").matches}[2]
    assert bicycle.accepted and reid.rank("p").why == ""  # nothing keeps it from being accepted by what is measured
    assert all(match.accepted == (match.probability >= 1e-9) for match in reid.rank("p").matches)


@pytest.mark.parametrize("method, embedder", [(SIGNATURE, SeesPlaces()), (EMBEDDING, SeesPlaces()),
                                              (FUSED, SeesPlaces()), (SIGNATURE, None), (FUSED, None)])
def test_a_word_goes_before_the_detectors_class(method, embedder):
    boxes = (car(40, 40), replace(car(200, 150), class_id=2))
    reid = Reidentifier("celsius_f32", Gallery(0.4, max_age_s=5.0), method=method, fusion=FUSION, embedder=embedder)
    reid.add_probe(probe(np.float32([[1, 0], [1, 0]]), "places"))
    reid.process(frame(1, *boxes), boxes)
    reid.judge("p", 2, True)
    best = reid.rank("p").matches[0]
    assert (best.track_id, best.probability, best.accepted, best.detection.class_name) == (2, 1.0, True, "bicycle")
    boxes = (car(40, 40), replace(car(120, 200), class_id=2))
    reid.process(frame(20, *boxes), boxes)  # forgotten; who looks like it is sought whatever it is called
    assert {match.detection.class_name for match in reid.rank("p").matches} == {"car", "bicycle"}


def test_a_word_serves_cameras_that_do_not_measure():
    grey = make_frame(np.random.default_rng(1).integers(60, 90, (256, 320)).astype(np.uint8), "mono8", "agc8", S, "c")
    reid = Reidentifier("agc8", Gallery(0.5), method=FUSED, fusion=FUSION, embedder=SeesPlaces())
    reid.add_probe(make_probe([np.full((10, 20), 80, np.uint8)], "agc8", "p"))
    reid.process(grey, [car(40, 40), car(200, 150)])
    reid.judge("p", 2, True)
    best, other = reid.rank("p").matches
    assert (best.track_id, best.probability, best.accepted, other.accepted) == (2, 1.0, True, False)
    assert np.isnan(other.probability)


def test_what_cannot_be_done_is_replaced_and_said():
    grey = make_frame(np.random.default_rng(1).integers(60, 90, (256, 320)).astype(np.uint8), "mono8", "agc8", S, "c")
    reid = Reidentifier("agc8", Gallery(0.5), method=FUSED, fusion=FUSION, embedder=SeesPlaces())
    reid.add_probe(make_probe([np.full((10, 20), 80, np.uint8)], "agc8", "p"))
    reid.process(grey, [car(40, 40)])
    ranking = reid.rank("p")
    assert ranking.method == SIGNATURE and "does not measure temperatures" in ranking.why
    assert np.isnan(ranking.matches[0].probability) and ranking.accepted is None and np.isnan(reid.accept_probability)
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=EMBEDDING, fusion=FUSION, embedder=SeesPlaces())
    reid.add_probe(probe())
    reid.process(frame(1, car(40, 40)), [car(40, 40)])
    assert (reid.rank("p").method, reid.rank("p").why) == (SIGNATURE, "probe 'p' has no descriptors")
    assert np.isfinite(reid.rank("p").matches[0].probability)  # by what else is known


def test_an_object_at_the_horizon_has_no_place_and_the_reason_is_kept():
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=FUSION)
    reid.add_probe(probe())
    reid.process(frame(1, car(40, 40)), [car(40, 40)])
    level = Pose.looking((0.0, 0.0, 50.0), 0.0, 0.0)
    reid.add_pose(CAMERA, CameraPose(S, np.zeros(2), 50.0, level.rotation, np.eye(6) * 1e-4))
    assert reid.target(reid.rank("p").matches[0], GRID) is None and "horizon" in reid.unplaced[1]


def test_all_probes_at_once_rank_as_each_alone():
    boxes = (car(40, 40), car(200, 150), car(120, 200))
    reid = Reidentifier("celsius_f32", Gallery(0.4), fusion=FUSION)
    for name in "abc":
        reid.add_probe(replace(probe(), probe_id=name))
    reid.process(frame(1, *boxes, hot_left=(True, False, True)), boxes)
    together = reid.rank_all()
    assert [ranking.probe_id for ranking in together] == ["a", "b", "c"]
    for ranking in together:
        alone = reid.rank(ranking.probe_id)
        assert [m.track_id for m in ranking.matches] == [m.track_id for m in alone.matches]
        assert [m.score for m in ranking.matches] == pytest.approx([m.score for m in alone.matches])


@pytest.mark.parametrize("options, complaint", [
    ({"method": "guess"}, "'guess' is unknown"), ({"method": EMBEDDING, "fusion": FUSION}, "needs an embedding"),
    ({"method": FUSED}, "needs a fusion"),
    ({"method": FUSED, "fusion": replace(FUSION, descriptor_model="old"), "embedder": SeesPlaces()},
     "fitted with the embedding 'old', not with 'places'"),
    ({"method": FUSED, "fusion": replace(FUSION, descriptor_model="places"), "embedder": SeesPlaces()},
     f"fitted with descriptors of {FUSION.descriptor_size} numbers, 'places' gives 2"),
])
def test_methods_that_lack_what_they_need_are_refused(options, complaint):
    with pytest.raises(MethodError, match=complaint):
        Reidentifier("celsius_f32", Gallery(0.5), **options)


def test_what_a_frame_tells_of_known_tracks_may_be_learned_after_its_ranking():
    boxes, embedder = (car(40, 40), car(200, 150)), SeesPlaces()
    reid = Reidentifier("celsius_f32", Gallery(0.5), method=FUSED, fusion=FUSION, embedder=embedder)
    reid.add_probe(probe(np.float32([[0, 1], [0, 1]]), "places"))
    reid.process(frame(1, *boxes, hot_left=(True, False)), boxes, learn=False)
    first = reid.rank("p").matches
    assert embedder.described == 2 and all(np.isfinite(match.distance.total) for match in first)  # they are new
    assert {match.track_id: match.embedding for match in first} == pytest.approx({1: 1.0, 2: 0.0})
    reid.learn()
    assert embedder.described == 2  # once a sight
    reid.process(frame(2, *boxes, hot_left=(True, False)), boxes, learn=False)
    assert embedder.described == 2 and [match.embedding for match in reid.rank("p").matches] == [0.0, 1.0]
    reid.learn()
    assert embedder.described == 4
    reid.learn()
    assert embedder.described == 4


@pytest.mark.parametrize("hz, most", [(2.0, 15), (10.0, 3), (30.0, 3)])
def test_the_more_frames_a_second_the_fewer_tracks_are_learned_of_one(hz, most):
    boxes = tuple(car(30 + 25 * (n % 10), 40 + 60 * (n // 10), 20.0, 10.0) for n in range(30))
    reid, signed = Reidentifier("celsius_f32", Gallery(0.5), fusion=FUSION), []
    reid.gallery.sign = lambda track_id, signature: signed.append(track_id)
    reid.process(frame(1, *boxes), boxes)
    signed.clear()
    reid.process(frame(1 + 1 / hz, *boxes), boxes)
    assert len(signed) == most


def test_a_model_that_somebody_names_is_not_done_without(monkeypatch):
    for load in (load_embedder, load_length_teller):
        assert load("")[0] is None
        with pytest.raises(EngineError, match="nope"):
            load("nope")
    monkeypatch.setattr(loading, "shipped_models", lambda: {})
    assert load_embedder("reid_embedding") == (None, "none: no model 'reid_embedding'")
