"""Probes, the gallery and its ranking, from crops to matches."""

import cv2
import numpy as np
import pytest
import yaml

from thermalreid_ros.camera.thermal import make_frame
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.reid.calibration import load_beta_h
from thermalreid_ros.reid.gallery import Gallery
from thermalreid_ros.reid.overlay import draw_matches
from thermalreid_ros.reid.probe import ProbeError, load_probe, make_probe
from thermalreid_ros.reid.reidentifier import MAX_PROBES, Reidentifier
from thermalreid_ros.reid.signature import CELSIUS, GREY, SignatureError, compute_signature, signature_distance
from thermalreid_ros.reid.tracks import TrackedDetection

S = 1_000_000_000


def person(grey: int, seed: int = 0, shape=(24, 14)) -> np.ndarray:
    """Crop of a bright figure on a ground of grey 80."""
    rows, columns = np.mgrid[:shape[0], :shape[1]] + 0.5
    inside = ((rows / shape[0] - 0.5) / 0.42) ** 2 + ((columns / shape[1] - 0.5) / 0.3) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 2, shape)
    return np.clip(np.where(inside, grey, 80) + noise, 0, 255).astype(np.uint8)


def signature(grey: int, seed: int = 0):
    return compute_signature(person(grey, seed), GREY)


def tracked(track_id: int, class_id: int = 1, length: int = 1) -> TrackedDetection:
    return TrackedDetection(track_id, length, Detection(class_id, 0.9, 10, 20, 24, 44))


def probe(*greys: int, class_name: str = ""):
    return make_probe([person(grey, 50 + k) for k, grey in enumerate(greys)], "agc8", "p", class_name)


def ranked(gallery: Gallery, wanted, track_ids=None) -> list[int]:
    """Track numbers by Eq. (1)."""
    compared = gallery.compare(wanted, track_ids)
    return [compared.track_ids[n] for n in np.lexsort((compared.track_ids, compared.total))]


def total(gallery: Gallery, wanted, track_id: int) -> float:
    compared = gallery.compare(wanted, [track_id])
    return float(compared.total[0])


def test_the_nearest_track_comes_first_and_terms_add_up():
    gallery = Gallery(0.4)
    for track_id, grey in enumerate((120, 180, 230), 1):
        gallery.add(tracked(track_id, length=track_id), signature(grey, track_id), S)
    compared = gallery.compare(probe(182))
    assert ranked(gallery, probe(182))[0] == 2 and compared.track_ids == (1, 2, 3)
    assert gallery.last_seen(2) == (tracked(2).detection, S, 2)
    assert np.allclose(compared.total, 0.4 * compared.histogram + 0.6 * compared.mser, atol=1e-6)
    assert np.isnan(compared.embedding).all() and np.isnan(compared.class_probability).all()


def test_the_distance_is_the_mean_over_probes_of_the_nearest_sight():
    gallery, sights, wanted = Gallery(0.4), [signature(170, 1), signature(200, 2), signature(230, 3)], probe(205, 150)
    for seen in sights:
        gallery.add(tracked(7), seen, S)
        gallery.add(tracked(8, length=2), sights[0], S)
    nearest = [min((signature_distance(one, seen, 0.4) for seen in sights), key=lambda d: d.total)
               for one in wanted.signatures]
    compared = gallery.compare(wanted)
    row = compared.track_ids.index(7)
    for name in ("total", "histogram", "mser"):
        assert getattr(compared, name)[row] == pytest.approx(np.mean([getattr(d, name) for d in nearest]), abs=1e-5)


def test_terms_are_the_same_whether_tracks_come_one_by_one_or_at_once():
    rng, late, early = np.random.default_rng(4), Gallery(0.3), Gallery(0.3)
    wanted = probe(205, 150, 90)
    for step in range(12):
        item, seen = tracked(int(rng.integers(1, 5))), signature(int(rng.integers(90, 250)), step)
        for gallery in (late, early):
            gallery.add(item, seen, step * S)
        early.compare(wanted)
        early.expire(step * S)
    assert late.compare(wanted).track_ids == early.compare(wanted).track_ids
    assert np.allclose(late.compare(wanted).total, early.compare(wanted).total, atol=1e-6)


def test_the_class_gate_and_the_choice_of_tracks():
    gallery = Gallery(0.5)
    for track_id, class_id in ((1, 0), (2, 1), (3, 1)):
        gallery.add(tracked(track_id, class_id), signature(200, track_id), S)
    assert set(ranked(gallery, probe(200, class_name="person"))) == {2, 3}
    assert set(ranked(gallery, probe(200))) == {1, 2, 3}
    assert set(gallery.compare(probe(200, class_name="person"), of_class=False).track_ids) == {2, 3}
    gallery.describe(1, np.float32((1, 0)), np.float32((1, 0, 0, 0)))  # what it is called matters no longer
    assert set(gallery.compare(probe(200, class_name="person"), of_class=False).track_ids) == {1, 2, 3}
    assert set(ranked(gallery, probe(200), [1, 3, 99])) == {1, 3}
    assert ranked(gallery, probe(200, class_name="dog")) == []


def test_a_gallery_stays_within_its_bounds():
    gallery = Gallery(0.5, max_tracks=3, signatures_per_track=2, max_age_s=10.0)
    for track_id in range(1, 5):
        gallery.add(tracked(track_id), signature(200, track_id), track_id * S)
    gallery.add(tracked(1), signature(90, 1), 5 * S)  # seen again: now 2 is the oldest
    gallery.expire(5 * S)
    assert len(gallery) == 3 and 2 not in gallery and 1 in gallery
    for seed in range(3):
        gallery.add(tracked(1), signature(200, 10 + seed), 6 * S)
    near = min(signature_distance(probe(90).signatures[0], signature(200, 10 + seed), 0.5).total for seed in (1, 2))
    assert total(gallery, probe(90), 1) == pytest.approx(near, abs=1e-5)
    gallery.expire(15 * S)
    assert len(gallery) == 1 and 1 in gallery
    gallery.clear()
    assert ranked(gallery, probe(200)) == []


def test_beta_h_may_change():
    gallery = Gallery(1.0)
    gallery.add(tracked(1), signature(120), S)
    first = gallery.compare(probe(200))
    gallery.beta_h = 0.0
    assert (first.total[0], total(gallery, probe(200), 1)) == (first.histogram[0], first.mser[0])


def unit(*values: float) -> np.ndarray:
    return np.float32(values) / np.linalg.norm(np.float32(values))


def test_descriptors_are_pooled_over_the_track_and_the_probe():
    gallery = Gallery(0.5)
    for track_id in (1, 2, 3):
        gallery.add(tracked(track_id), signature(200, track_id), S)
    for vector, classes in ((unit(1, 0), (0.2, 0.8, 0, 0)), (unit(0, 1), (0.4, 0.6, 0, 0))):
        gallery.describe(1, vector, np.float32(classes))
    gallery.describe(2, unit(1, 0), np.float32((0, 1, 0, 0)))
    wanted = make_probe([person(200)], "agc8", "p", "person", descriptor_model="m",
                        descriptors=np.stack([unit(1, 0), unit(1, 0), unit(0, 1)]))
    assert np.allclose(wanted.photograph, unit(1, 0)) and np.allclose(wanted.descriptor(0.5), (0.5, 0.5))
    assert np.allclose(wanted.descriptor(0.0), unit(1, 0)) and np.allclose(wanted.descriptor(1.0), unit(0, 1))
    compared = gallery.compare(wanted, class_id=1)
    assert np.allclose(compared.embedding[:2], (0.5, 0.5), atol=1e-6) and np.isnan(compared.embedding[2])
    assert np.allclose(compared.class_probability[:2], (0.7, 1.0)) and np.isnan(compared.class_probability[2])


@pytest.mark.parametrize("descriptors", [np.ones(4, np.float32), np.full((1, 4), np.nan, np.float32),
                                         np.ones((1, 4), np.float32)])
def test_descriptors_that_do_not_fit_are_refused(descriptors):
    with pytest.raises(ProbeError, match="do not fit its 2 image"):
        make_probe([person(9), person(20)], "agc8", "p", descriptors=descriptors, descriptor_model="m")


def test_the_first_sights_are_described_and_then_every_fifth():
    gallery, told = Gallery(0.5), []
    for length in range(1, 20):
        gallery.add(tracked(1, length=length), signature(200), length * S)
        if gallery.to_describe([1, 9]):
            gallery.describe(1, unit(1, 0), np.float32((1, 0, 0, 0)))
            told.append(length)
    assert told == [1, 2, 3, 4, 9, 14, 19]
    for track_id in (2, 3, 4):
        gallery.add(tracked(track_id), signature(200), 20 * S)
    gallery.describe(2, unit(1, 0), np.float32((1, 0, 0, 0)))
    assert gallery.to_describe([1, 2, 3, 4]) == [3, 4] and gallery.to_describe([1, 2, 3, 4], most=1) == [3]
    gallery.add(tracked(2, length=2), None, 21 * S)
    assert gallery.to_describe([1, 2, 3, 4]) == [3, 4, 2]


def test_probes_from_files(tmp_path):
    grey, kelvin, celsius = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.tiff"
    cv2.imwrite(str(grey), person(200))
    cv2.imwrite(str(kelvin), (person(200).astype(np.uint16) * 10 + 29315))
    cv2.imwrite(str(celsius), 20 + person(200).astype(np.float32) / 10)
    assert load_probe(grey, "agc8", "person").signatures[0].scale is GREY
    turned = load_probe(grey, "agc8", polarity="black_hot").signatures[0]
    assert signature_distance(turned, load_probe(grey, "agc8").signatures[0], 0.5).total > 0.2
    other_way = make_probe([255 - person(200)], "agc8", "p").signatures[0]
    assert signature_distance(turned, other_way, 0.5).total == 0
    assert load_probe(grey, "agc8").probe_id == "a"
    first = load_probe(kelvin, "centikelvin").signatures[0]
    assert first.scale is CELSIUS
    assert signature_distance(first, load_probe(celsius, "celsius_f32").signatures[0], 0.5).total < 0.1


@pytest.mark.parametrize("pixels, units, complaint", [
    (np.zeros((1, 1), np.uint8), "agc8", "1x1 px is too small"),
    (person(200), "centikelvin", "uint8 pixels are not 'centikelvin'; the units may be agc8"),
    (person(200).astype(np.uint16), "agc8", "uint16 pixels are not 'agc8'; the units may be centikelvin"),
    (person(200).astype(np.uint16), "counts", "'counts' do not fit a probe"),
    (person(200).astype(np.uint16) + 60000, "centikelvin", "units are probably wrong"),
    (np.dstack([person(200), person(90), person(10)]), "agc8", "colour picture"),
])
def test_wrong_probe_files_are_refused_with_their_name(tmp_path, pixels, units, complaint):
    path = tmp_path / "probe.png"
    cv2.imwrite(str(path), pixels)
    with pytest.raises(ProbeError, match=complaint) as error:
        load_probe(path, units)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_unreadable_probe_files_are_refused(tmp_path, content):
    path = tmp_path / "probe.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProbeError, match="probe.png"):
        load_probe(path, "agc8")


def test_probes_without_image_or_of_unknown_class_or_without_temperatures_are_refused():
    for crops, options, complaint in (([], {}, "holds no image"),
                                      ([person(9)], {"class_name": "cat"}, "'cat' is unknown"),
                                      ([person(9), person(9)[:2]], {}, "image 2 of 2")):
        with pytest.raises(ProbeError, match=complaint):
            make_probe(crops, "agc8", "p", **options)
    with pytest.raises(ProbeError, match="more than half"):
        make_probe([np.full((9, 9), np.nan, np.float32)], "celsius_f32", "p")


def scene(*people: tuple[int, int, int]) -> np.ndarray:
    """Frame (200, 300) with a person of a grey level at each (x, y, grey)."""
    frame = (80 + np.random.default_rng(3).normal(0, 2, (200, 300))).astype(np.uint8)
    for x, y, grey in people:
        frame[y:y + 24, x:x + 14] = person(grey, x)
    return frame


def found_in(*people) -> list[Detection]:
    return [Detection(1, 0.9, x, y, x + 14, y + 24) for x, y, _ in people]


def frame_at(second: float, *people):
    return make_frame(scene(*people), "mono8", "agc8", int(second * S), "camera")


def test_the_searched_person_is_found_and_followed():
    reid = Reidentifier("agc8", Gallery(0.4))
    reid.add_probe(probe(200, class_name="person"))
    for step in range(4):
        people = [(20 + 5 * step, 30, 140), (100, 90 + 4 * step, 200), (200 - 5 * step, 150, 240)]
        result = reid.process(frame_at(1 + step, *people), found_in(*people))
        matches = reid.rank("p").matches
        assert [item.track_id for item in result.tracked] == [1, 2, 3] and result.ignored == ()
        assert (matches[0].track_id, matches[0].length, len(matches)) == (2, step + 1, 3)
        assert matches[0].detection == found_in(*people)[1]
    picture = draw_matches(scene(*people), result.tracked, matches, "p")
    assert picture.shape == (200, 300, 3) and (picture == (0, 215, 255)).all(axis=2).any()


def test_remembered_tracks_are_ranked_where_asked_for():
    reid = Reidentifier("agc8", Gallery(0.4))
    reid.add_probe(probe(200))
    reid.process(frame_at(1, (100, 90, 200)), found_in((100, 90, 200)))
    reid.process(frame_at(2, (20, 30, 140)), found_in((20, 30, 140)))
    assert [m.track_id for m in reid.rank("p").matches] == [2]
    reid.visible_only = False
    assert [m.track_id for m in reid.rank("p").matches] == [1, 2]


def test_faulty_detections_are_named_and_the_others_used():
    reid = Reidentifier("agc8", Gallery(0.4))
    wrong = [Detection(1, 0.9, float("nan"), 0, 5, 5), Detection(1, 0.9, 400, 0, 410, 20),
             Detection(9, 0.9, 0, 0, 9, 9)]
    result = reid.process(frame_at(1, (100, 90, 200)), wrong + found_in((100, 90, 200)))
    assert [item.track_id for item in result.tracked] == [1]
    assert len(result.ignored) == 3
    for line, complaint in zip(result.ignored, ("not finite", "covers less", "class 9")):
        assert complaint in line


def test_a_recording_that_starts_anew_is_a_new_gallery():
    reid = Reidentifier("agc8", Gallery(0.4), visible_only=False)
    reid.add_probe(probe(200))
    for second in (1, 2, 1):
        reid.process(frame_at(second, (100, 90, 200)), found_in((100, 90, 200)))
    assert [m.track_id for m in reid.rank("p").matches] == [2] and reid.probe_ids == ("p",)


def test_probes_replace_and_push_out_each_other_and_need_the_scale_of_the_camera():
    reid = Reidentifier("agc8", Gallery(0.4))
    for number in range(MAX_PROBES + 2):
        reid.add_probe(make_probe([person(200)], "agc8", f"p{number}"))
    reid.add_probe(make_probe([person(100)], "agc8", "p5"))
    assert len(reid.probe_ids) == MAX_PROBES and "p1" not in reid.probe_ids and reid.probe_ids[-1] == "p5"
    reid.remove_probe("p5")
    assert "p5" not in reid.probe_ids
    with pytest.raises(ProbeError, match="is in celsius but the camera gives grey"):
        reid.add_probe(make_probe([np.full((9, 9), 21, np.float32)], "celsius_f32", "q"))
    gallery = Gallery(0.4)
    gallery.add(tracked(1), signature(200), S)
    with pytest.raises(SignatureError):
        gallery.compare(make_probe([np.full((9, 9), 21, np.float32)], "celsius_f32", "q"))


def test_the_shipped_calibration_says_how_it_was_made():
    from thermalreid_ros.files import shipped

    beta_h = load_beta_h()
    content = yaml.safe_load((shipped("config") / "reid_calibration.yaml").read_text())
    assert content["beta_h"] == beta_h and content["command"].startswith("thermalreid reid calibrate")
    assert not set(content["data"]["calibration_clips"]) & set(content["data"]["held_out_clips"])
    for kind, figures in content["figures_by_beta_h"]["held_out"].items():
        chosen = figures[str(beta_h)]
        assert chosen["mean"]["r1"] > chosen["guessing"], kind


@pytest.mark.parametrize("content, complaint", [
    (None, "cannot be read"), ("beta_h: 1.5", "not a number from 0 to 1"), ("beta_h: true", "True"), ("[1]", "None"),
    ("a: [", "no YAML"),
])
def test_faulty_calibrations_are_refused(tmp_path, content, complaint):
    path = tmp_path / "calibration.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ThermalReidError, match=complaint) as error:
        load_beta_h(path)
    assert str(path) in str(error.value)


def test_a_track_that_is_known_well_is_signed_now_and_then():
    gallery = Gallery(0.5, signatures_per_track=3)
    wanted = []
    for length in range(1, 13):
        item = tracked(4, length=length)
        wanted.append(4 not in gallery)
        gallery.add(item, signature(200, length) if wanted[-1] else None, length * S)
        assert gallery.last_seen(4)[1:] == (length * S, length)
        if gallery.to_sign([4, 77]):
            wanted[-1] = True
            gallery.sign(4, signature(200, length))
            assert gallery.to_sign([4]) == []  # not twice for one sight
    assert [length for length, wants in enumerate(wanted, 1) if wants] == [1, 2, 3, 6, 9, 12]


def test_of_many_tracks_the_least_known_are_signed_first():
    gallery = Gallery(0.5)
    for track_id in range(1, 7):
        gallery.add(tracked(track_id, length=1), signature(200), S)
        gallery.add(tracked(track_id, length=2), None, 2 * S)
    gallery.sign(2, signature(200))
    gallery.add(tracked(2, length=3), None, 3 * S)
    assert gallery.to_sign(range(1, 7), most=3) == [1, 3, 4]
    assert gallery.to_sign(range(1, 7)) == [1, 3, 4, 5, 6, 2]
