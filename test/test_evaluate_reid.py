"""`thermalreid evaluate reid` and `reid fit-fusion`: rankings from numbers set by hand, and both on a drawn set."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny_models

from thermalreid_ros.cli import main
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.reid import (
    Gallery,
    draw_galleries,
    matrix_distance,
    random_guessing,
    rank,
    term_distance,
)
from thermalreid_ros.evaluation.reid_fit import cautious_threshold
from thermalreid_ros.evaluation.reid_lengths import drawn_lengths, fit_lengths
from thermalreid_ros.evaluation.reid_open_set import (
    Searches,
    area_under_roc,
    calibration_error,
    calibration_table,
    detection_and_identification,
    open_set_curve,
    threshold_for,
)
from thermalreid_ros.evaluation.reid_sets import Picture, read_sets
from thermalreid_ros.evaluation.reid_sizes import fit_sizes, fit_views, less_view
from thermalreid_ros.evaluation.reid_terms import EmbeddingTerms, Evidence, SetTerms, SignatureTerms
from thermalreid_ros.evaluation.synthesis import evaluate_synthesis, structural_similarity
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.gallery import Gallery as FlownGallery
from thermalreid_ros.reid.probe import make_probe
from thermalreid_ros.reid.tracks import TrackedDetection
from thermalreid_ros.synthesis import Conditions, ProbeSynthesizer
from thermalreid_ros.world.weather import Weather

NAN = float("nan")


# --- rankings and measures, from numbers set by hand ---


def test_ranks_of_mixed_and_same_class_galleries():
    """Photographs 0 (car) and 1 (dog) among two cars and two dogs."""
    label = np.array([0, 0, 3, 3])
    galleries = [[Gallery(0, np.arange(4)[:, None], label, 1), Gallery(1, np.arange(4)[:, None], label, 2)]]
    distance = matrix_distance(np.array([[0.3, 0.2, 0.1, 0.9], [0.1, 0.2, 0.4, 0.4]]))
    outcome = rank(galleries, distance, np.array([0, 3]))
    assert outcome.mixed.ranks[0].tolist() == [2, 4] and outcome.same_class.ranks[0].tolist() == [1, 2]
    assert outcome.same_class.sizes[0].tolist() == [2, 2]
    assert outcome.searches.true == pytest.approx([-0.2, -0.4])
    assert outcome.searches.best_other == pytest.approx([-0.1, -0.1])
    assert outcome.mixed.figures()[0].r1 == 0.0 and outcome.same_class.figures(0)[0].r1 == 1.0
    assert outcome.mixed.figures(1) is None  # no probe is a person
    assert outcome.mixed.curve(4) == pytest.approx([0.0, 0.5, 0.5, 1.0])


def test_guessing_in_a_gallery_of_forty():
    galleries = [[Gallery(0, np.arange(40)[:, None], np.zeros(40, int), 0)]]
    figures = random_guessing(galleries, np.array([0]), False)
    assert (figures.r1, figures.r20) == pytest.approx((1 / 40, 0.5))
    assert figures.nauc20 == pytest.approx(np.arange(1, 21).mean() / 40) and figures.nauc == pytest.approx(41 / 80)


def test_open_set_rates_computed_by_hand():
    """Of ten searches the true candidate comes first in eight; the highest of the others is 0.0, 0.1, ... 0.9."""
    searches = Searches(np.array([0.95] * 8 + [0.05] * 2), np.arange(10) / 10)
    threshold = threshold_for(0.1, searches.best_other)  # one alarm in ten: 0.9 may pass, 0.8 not
    assert 0.8 < threshold <= 0.9
    assert detection_and_identification(searches, threshold) == pytest.approx((0.8, 0.1))
    assert detection_and_identification(searches, threshold_for(0.0, searches.best_other)) == pytest.approx((0.8, 0.0))
    assert detection_and_identification(searches, threshold_for(1.0, searches.best_other)) == pytest.approx((0.8, 1.0))
    assert detection_and_identification(searches, 0.96)[0] == 0.0
    assert open_set_curve(searches, np.array([0.0, 0.1, 1.0])) == pytest.approx([0.8, 0.8, 0.8])


def test_the_threshold_of_acceptance_is_enough_for_other_identities():
    """Searches of one identity are alike: of a hundred identities the hundredth search is that of one or two, and of
    others it would be another. What 1 % of these reach is passed by more of others in half of the cases."""
    rng = np.random.default_rng(7)

    def searches(identities: int) -> list[np.ndarray]:
        return list((rng.normal(-2.0, 0.5, (identities, 1)) + rng.normal(0.0, 0.2, (identities, 100))).clip(max=0.0))

    everyone = np.sort(np.concatenate(searches(20_000)))
    cautious, plain = np.array([[1.0 - np.searchsorted(everyone, threshold) / len(everyone) for threshold in (
        cautious_threshold(found, rng), threshold_for(0.01, np.concatenate(found)))]
        for found in (searches(100) for _ in range(80))]).T
    assert (plain <= cautious).sum() == 0 and (plain <= 0.01).mean() < 0.65
    assert (cautious <= 0.01).mean() > 0.75 and np.median(cautious) > 0.002


def test_the_area_under_the_curve_counts_ties_as_half():
    assert area_under_roc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])) == 0.875
    assert area_under_roc(np.array([1.0, 0.0, 0.0]), np.array([True, True, False]), np.array([3.0, 1.0, 5.0])) == 0.875


def test_calibration_of_probabilities_computed_by_hand():
    probability = np.array([0.05, 0.05, 0.85, 0.85, 0.85, 0.85])
    true = np.array([False, False, True, True, False, False])
    assert calibration_error(probability, true) == pytest.approx((2 * 0.05 + 4 * 0.35) / 6)
    table = calibration_table(np.array([1.0]), np.array([True]))
    assert table[9] == pytest.approx([1.0, 1.0, 1.0]) and table[:9].sum() == 0


def picture(identity: str, class_name: str, session: int, hour: float, tmp="nowhere") -> Picture:
    return Picture(tmp, identity, class_name, f"0/{session}", (0.0, 0.0, 20.0, 10.0), hour, 0.1, 60.0,
                   Conditions(hour, 10.0, 0.2, 20.0))


@pytest.fixture
def terms() -> SetTerms:
    """Two cars and a dog; three thermal pictures of the first car (of which one at the photographs' hour), one of each
    other; two probes."""
    photographs = tuple(picture(name, kind, 0, 12.0) for name, kind in (("a", "car"), ("b", "car"), ("c", "dog")))
    gallery = tuple(picture(name, kind, session, hour) for name, kind, session, hour in (
        ("a", "car", 0, 12.5), ("a", "car", 1, 20.0), ("a", "car", 2, 3.0), ("b", "car", 1, 20.0),
        ("c", "dog", 2, 3.0)))
    rng = np.random.default_rng(0)
    histogram, mser = rng.random((2, 3, 5, 2)).astype(np.float32)
    vectors = rng.normal(size=(8, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embedding = EmbeddingTerms(vectors[:3], np.repeat(vectors[:3, None], 3, axis=1), vectors[3:],
                               np.full((5, 4), 0.25, np.float32))
    signatures = {"made": SignatureTerms(histogram, mser)}
    return SetTerms(photographs, gallery, (), signatures, SignatureTerms(histogram[..., :1], mser[..., :1]), embedding,
                    {}, np.array([p.view for p in gallery]))


def test_pictures_of_the_photographs_hour_are_not_in_its_gallery(terms):
    for track in (1, 2, 3):
        galleries = list(draw_galleries(terms, track, np.random.default_rng(1)))
        assert [gallery.photograph for gallery in galleries] == [0, 1, 2]
        for gallery in galleries:
            assert gallery.pictures.shape == (3, track) and gallery.label.tolist() == [0, 0, 3]
            assert 0 not in gallery.pictures and set(gallery.pictures[0]) <= {1, 2}
            assert gallery.true == gallery.photograph
        if track > 1:
            assert set(galleries[0].pictures[0]) == {1, 2} and set(galleries[0].pictures[1]) == {3}  # repeated


def test_a_photograph_without_a_picture_of_another_hour_is_no_probe(terms):
    early = replace(terms, gallery=tuple(replace(p, hour=12.9) if p.identity == "c" else p for p in terms.gallery))
    galleries = list(draw_galleries(early, 1, np.random.default_rng(1)))
    assert [gallery.photograph for gallery in galleries] == [0, 1]
    assert all(len(gallery.label) == 2 for gallery in galleries)


def test_hours_are_apart_around_midnight(terms):
    late = replace(terms, photographs=tuple(replace(p, hour=23.9) for p in terms.photographs),
                   gallery=tuple(replace(p, hour=0.5) for p in terms.gallery))
    assert not late.allowed.any()


def test_a_track_is_pooled_as_in_flight(terms):
    """For each probe the most alike of the track's pictures by Eq. (1), their mean; descriptors pooled by the
    gallery of the node."""
    evidence = Evidence(terms, "made", 0.4, 0.0, np.log([1.0, 2.0, 4.0]), np.log(np.full((4, 5), 2.0)))
    found = evidence.of(0, np.array([[1, 2], [3, 3]]))
    both = 0.4 * terms.signatures["made"].histogram[0] + 0.6 * terms.signatures["made"].mser[0]
    nearest = [(1, 2)[int(both[2, k] < both[1, k])] for k in range(2)]
    expected = np.mean([terms.signatures["made"].histogram[0, nearest[k], k] for k in range(2)])
    assert found.histogram[0] == pytest.approx(expected)
    crop = np.random.default_rng(1).normal(20.0, 3.0, (20, 20)).astype(np.float32)
    probe = make_probe([crop], "celsius_f32", "a", descriptors=terms.embedding.photographs[[0, 0]])
    flown = FlownGallery(0.4)
    for number in (1, 2):
        flown.add(TrackedDetection(7, number, Detection(0, 0.9, 0, 0, 20, 20)), probe.signatures[0], number)
        flown.describe(7, terms.embedding.gallery[number], np.full(4, 0.25))
    assert found.embedding[0] == pytest.approx(flown.compare(probe).embedding[0], abs=1e-6)
    assert found.size_log_ratio == pytest.approx([np.log(2.0)] * 2)
    assert found.histogram[1] == pytest.approx(terms.signatures["made"].histogram[0, 3].mean())


def test_a_photograph_that_gave_no_probe_comes_last_by_its_signature_and_is_known_by_the_rest(terms):
    nothing = SignatureTerms(*(np.full_like(part, NAN) for part in (terms.signatures["made"].histogram,) * 2))
    own = replace(terms, signatures={"made": nothing}, embedding=replace(
        terms.embedding, probes=np.full_like(terms.embedding.probes, NAN)))
    evidence = Evidence(own, "made", 0.4, 0.5, np.zeros(3), np.zeros((4, 5)))
    pictures = np.array([[1], [3], [4]])
    assert np.isinf(term_distance(evidence, lambda found: found.histogram)(0, pictures)).all()
    assert np.isfinite(evidence.of(0, pictures).embedding).all()
    assert np.isfinite(FusedModel.load().score(evidence.of(0, pictures), "car")).all()


def sized_terms(descriptors: np.ndarray, size: np.ndarray) -> SetTerms:
    """One photograph and six thermal pictures of each identity, whose diagonals are exp(size + 0.5 cos depression)."""
    rng = np.random.default_rng(4)
    photographs = tuple(picture(f"{n:03d}", "car", 0, 12.0) for n in range(len(size)))
    gallery = tuple(picture(f"{n:03d}", "car", k, 3.0 * k) for n in range(len(size)) for k in range(6))
    depression, slender = rng.uniform(0.5, 1.5, len(gallery)), rng.uniform(0.4, 1.1, len(gallery))
    diagonal = np.exp(np.repeat(size, 6) + 0.5 * np.cos(depression) + rng.normal(0.0, 0.01, len(gallery)))
    views = np.column_stack([diagonal * np.cos(slender), diagonal * np.sin(slender), np.full(len(gallery), 0.1),
                             depression])
    nothing = np.full((len(size), len(gallery), 1), NAN, np.float32)
    return SetTerms(photographs, gallery, (), {}, SignatureTerms(nothing, nothing),
                    EmbeddingTerms(descriptors.astype(np.float32), None, np.zeros((len(gallery), 8), np.float32),
                                   np.zeros((len(gallery), 4), np.float32)), {}, views)


def test_sizes_are_freed_of_the_view_and_expected_where_descriptors_foretell_them():
    rng = np.random.default_rng(0)
    size = rng.normal(1.5, 0.1, 40)
    noise = rng.normal(size=(40, 8)) * 0.1
    fold_of = np.arange(40) % 5
    telling = noise.copy()
    telling[:, 3] = size - 1.5
    terms = sized_terms(telling, size)
    views = fit_views(terms)
    raw, freed = (less_view(terms.views, view).reshape(40, 6).std(axis=1).mean()
                  for view in (np.zeros(6), views["car"]))
    assert freed < 0.02 < 0.05 < raw
    sizes, expected = fit_sizes(terms, views, fold_of, 5)
    assert sizes["car"].sigma < 0.4 * sizes["car"].spread and len(sizes["car"].weights) == 8
    assert np.corrcoef(expected, size)[0, 1] > 0.9
    sizes, expected = fit_sizes(sized_terms(noise, size), views, fold_of, 5)
    assert len(sizes["car"].weights) == 0 and sizes["car"].offset == pytest.approx(sizes["car"].mean)
    assert expected == pytest.approx(np.full(40, sizes["car"].mean), abs=0.05)


def test_lengths_are_drawn_about_the_truth_and_foretell_the_sizes_seen():
    """Sizes are seen half as large as they are, with an error of 0.01 that the fit takes for 0.02 at least."""
    size = np.random.default_rng(0).normal(1.5, 0.1, 40)
    terms = sized_terms(np.zeros((40, 8)), size)
    with pytest.raises(ThermalReidError, match="does not tell how large"):
        drawn_lengths(terms, 0.05, 1)
    known = {f"{n:03d}": 2.0 * np.exp(value) for n, value in enumerate(size)}
    terms = replace(terms, **{kind: tuple(replace(one, length_m=known[one.identity]) for one in getattr(terms, kind))
                              for kind in ("photographs", "gallery")})
    told = drawn_lengths(terms, 0.1, 1)
    errors = np.array([length.log for length in told]) - size - np.log(2.0)
    assert np.std(errors) == pytest.approx(0.1, rel=0.3) and {length.error for length in told} == {0.1}
    assert told == drawn_lengths(terms, 0.1, 1) != drawn_lengths(terms, 0.1, 2)
    exact = drawn_lengths(terms, 0.0, 1)
    assert [length.log for length in exact] == pytest.approx(size + np.log(2.0)) and exact[0].error == 0.005
    rows = fit_lengths(terms, fit_views(terms), np.arange(240) < 180)
    assert rows.keys() == {"car", "any"} and rows["car"] == rows["any"]
    assert rows["car"].noise == 0.02
    views = fit_views(terms)["car"]
    seen = less_view(terms.views, views)  # whose own offset is what the view's weights make of a usual view
    assert rows["car"].offset == pytest.approx((seen - np.repeat(size, 6) - np.log(2.0))[:180].mean(), abs=1e-6)
    half = np.arange(240) >= 180
    assert fit_lengths(terms, {"car": views, "any": views}, half)["car"].offset == pytest.approx(
        rows["car"].offset, abs=0.01)


# --- sets on disk ---


@pytest.fixture(autouse=True)
def no_shipped_models(monkeypatch):
    """The baselines and the embedding of the package are not at hand, whether it ships them or not."""
    monkeypatch.setattr("thermalreid_ros.reid.loading.shipped_models", lambda: ())


def draw_set(folder, count: int = 12, sessions: int = 3, seed: int = 3):
    """Identities are patterns of 3x3 cells: red on a photograph, warm on thermal pictures."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(32)
    for kind in ("probes", "gallery"):
        (folder / kind).mkdir(parents=True)
    weather = {name: value for name, value in vars(Weather.clear()).items()}
    index = {"latitude_deg": 48.0, "identities": [], "probes": [], "gallery": []}
    for number in range(count):
        name = CLASS_NAMES[number % 4]
        cells = np.ones((3, 3), bool)  # its corners stay, so that every pattern fills its box
        cells.flat[1::2], cells[1, 1] = codes[number] >> np.arange(4) & 1, codes[number] >> 4
        facts = {"identity": f"{name}-{number:04d}", "class": name, "weather": weather}
        index["identities"].append({"identity": facts["identity"], "size_m": [3.0 + 0.3 * (number % 4), 1.0, 1.0]})
        shape = np.kron(cells, np.ones((20, 20))) > 0
        photograph = rng.integers(90, 120, (120, 160, 3), dtype=np.uint8)
        photograph[30:90, 50:110][shape] = (30, 40, 220)  # BGR
        path = f"probes/{facts['identity']}.png"
        cv2.imwrite(str(folder / path), photograph)
        index["probes"].append({**facts, "file": path, "session": 0, "box": [50, 30, 110, 90], "hour": 11.0,
                                "time": "2025-06-01T11:00:00+00:00", "metres_per_pixel": 0.02, "depression_deg": 20.0})
        for session in range(sessions):
            thermal = rng.normal(10.0, 0.2, (48, 48))
            thermal[9:39, 9:39][np.kron(cells, np.ones((10, 10))) > 0] += 8.0 + rng.normal()
            path = f"gallery/{facts['identity']}_{session}.png"
            cv2.imwrite(str(folder / path), np.round((thermal + 273.15) * 100).astype(np.uint16))
            index["gallery"].append({**facts, "file": path, "session": session, "box": [9, 9, 39, 39],
                                     "hour": 2.0 + 5.0 * session, "time": f"2025-06-0{2 + session}T00:00:00+00:00",
                                     "metres_per_pixel": 0.1 + 0.01 * (number % 4), "depression_deg": 60.0})
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def drawn(tmp_path):
    return draw_set(tmp_path / "set")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {"synthesis": str(tiny_models.red_is_warm(folder / "red.onnx")),
            "embedding": str(tiny_models.shapes_alone(folder / "shapes.onnx"))}


def options(models, embedding: bool = True) -> list[str]:
    return ["--synthesis", models["synthesis"], "--threads", "1", "--embedding",
            models["embedding"] if embedding else ""]


def test_a_set_is_read_with_its_hours_and_conditions(drawn):
    sets = read_sets([drawn])
    assert (len(sets.identities), len(sets.photographs), len(sets.gallery)) == (12, 12, 36)
    first = sets.gallery[0]
    assert (first.class_name, first.hour, first.conditions.solar_hour) == ("car", 2.0, 2.0)
    assert first.conditions.sun_elevation_deg < 0 < sets.photographs[0].conditions.sun_elevation_deg
    assert first.thermal().values().mean() == pytest.approx(12.0, abs=3.0)


def test_two_sets_share_no_identity(drawn, tmp_path):
    other = draw_set(tmp_path / "other", count=4)
    sets = read_sets([drawn, other])
    assert len(sets.identities) == 16 and len({p.session for p in sets.gallery}) == 6
    with pytest.raises(ThermalReidError, match="twice"):
        read_sets([drawn, drawn])


@pytest.mark.parametrize("content, complaint", [
    (None, "no finished re-identification set"), ("{", "no index"), ("[]", "no index"),
    ('{"probes": [{}], "gallery": []}', "probes are damaged"),
    ('{"probes": [], "gallery": []}', "0 identities")])
def test_faulty_sets_are_named_in_one_line(tmp_path, content, complaint, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    if content is not None:
        (folder / "index.json").write_text(content)
    assert main(["evaluate", "reid", "--set", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error and str(folder) in error and "\n" not in error


@pytest.mark.parametrize("kind, complaint", [("gallery", "16-bit"), ("probes", "corrupt")])
def test_damaged_pictures_are_named(drawn, models, kind, complaint, capsys):
    victim = sorted((drawn / kind).glob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:200])
    assert main(["evaluate", "reid", "--set", str(drawn), "--paper-synthesis", models["synthesis"],
                 *options(models)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("thermalreid")]
    assert len(error) == 1 and victim.name in error[0] and complaint in error[0]


def test_a_photograph_without_colours_is_left_out(drawn, models, capsys):
    victim = sorted((drawn / "probes").glob("*.png"))[0]
    cv2.imwrite(str(victim), cv2.cvtColor(cv2.imread(str(victim)), cv2.COLOR_BGR2GRAY))
    assert main(["evaluate", "reid", "--set", str(drawn), "--paper-synthesis", models["synthesis"], "--draws", "1",
                 *options(models, embedding=False)]) == 0
    printed = capsys.readouterr().out
    assert "1 pictures were of no use" in printed and "no colours" in printed and "11 photographs" in printed


def test_a_photograph_of_whose_object_no_thermal_picture_is_left_is_nobody_elses(drawn, models, capsys):
    index = json.loads((drawn / "index.json").read_text())
    lost = index["gallery"][0]["identity"]
    for picture in index["gallery"]:
        if picture["identity"] == lost:
            x, y, *_ = picture["box"]
            picture["box"] = [x, y, x + 1, y + 1]
    (drawn / "index.json").write_text(json.dumps(index))
    assert main(["evaluate", "reid", "--set", str(drawn), "--paper-synthesis", models["synthesis"], "--draws", "1",
                 *options(models, embedding=False)]) == 0
    printed = capsys.readouterr().out
    assert "11 photographs" in printed and "4 pictures were of no use" in printed


def test_too_few_identities_to_fit_on(tmp_path, models, capsys):
    folder = draw_set(tmp_path / "small", count=4)
    assert main(["reid", "fit-fusion", "--set", str(folder), *options(models), "--out", str(tmp_path / "f.yaml")]) == 2
    assert "4 identities are too few" in capsys.readouterr().err and not (tmp_path / "f.yaml").exists()


def test_fitted_and_evaluated_on_a_drawn_set(drawn, models, tmp_path, capsys):
    """Shapes tell all identities apart but for chance; sizes, three of each, tell a little."""
    fusion, results, plots = tmp_path / "fusion.yaml", tmp_path / "r.json", tmp_path / "plots"
    calibration = draw_set(tmp_path / "calibration", count=16, seed=8)
    assert main(["reid", "fit-fusion", "--set", str(calibration), *options(models), "--out", str(fusion)]) == 0
    model = FusedModel.load(fusion)
    assert model.descriptor_model == "shapes" and "/" not in fusion.read_text().split("command:")[1]
    assert model.weights["with_embedding"]["any"].weights[2] > 0
    assert main(["evaluate", "reid", "--set", str(drawn), *options(models), "--paper-synthesis", models["synthesis"],
                 "--fusion", str(fusion), "--draws", "3", "--track", "2", "--plots", str(plots),
                 "--json", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "ThermalReID (LAERT, as printed)" in printed and "vrai: not measured, there is no model" in printed
    figures = json.loads(results.read_text())
    assert figures["methods"].keys() == {"thermal_signature", "cross_modal_embedding", "fused", "vrai", "bot_bs",
                                         "vrai_retrained", "bot_bs_retrained"}
    assert figures["methods"]["fused"].keys() == {"r1", "r5", "r10", "r15", "r20", "nauc20", "nauc"}
    assert figures["methods"]["vrai"] is None and "vrai" in figures["missing"]
    assert figures["guessing"]["r1"] == pytest.approx(1 / 12, abs=1e-4)
    assert figures["methods"]["cross_modal_embedding"]["r1"] > 0.7 < figures["methods"]["fused"]["r1"]
    assert figures["same_class"]["classes"]["car"]["gallery_size"] == 3.0
    assert figures["track"]["pictures"] == 2 and figures["ablation"]["fused without size"]["r1"] > 0.7
    assert 0.0 <= figures["open_set"]["ece"] < 0.3 and figures["told_length"] is None
    assert (plots / "reid_curves.png").stat().st_size < 80_000 > (plots / "reid_ranked.jpg").stat().st_size


def test_lengths_told_are_weighed_in_an_evaluation(drawn, models, tmp_path, capsys):
    told = ["evaluate", "reid", "--set", str(drawn), *options(models, embedding=False), "--paper-synthesis",
            models["synthesis"], "--draws", "1", "--json", str(tmp_path / "r.json"), "--told-length"]
    assert main([*told, "0.05"]) == 0
    assert "fused is told how long the object is, to within 5.0%" in capsys.readouterr().out
    figures = json.loads((tmp_path / "r.json").read_text())
    shipped = FusedModel.load()
    assert figures["told_length"] == 0.05
    accepted = figures["open_set"]["shipped_threshold"]["accept_probability_told"]
    assert {float(error): value for error, value in accepted.items()} == shipped.accept_probability_told
    assert figures["ablation"].keys() >= {"fused", "fused without the length told", "fused without size"}
    with pytest.raises(SystemExit):
        main([*told, "5"])
    assert "5 is not from 0 to 1" in capsys.readouterr().err
    index = json.loads((drawn / "index.json").read_text())
    (drawn / "index.json").write_text(json.dumps({**index, "identities": []}))
    assert main([*told, "0.05"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("thermalreid")]
    assert len(error) == 1 and "does not tell how large its identities are" in error[0]


def test_without_an_embedding_its_rows_are_null_and_fused_lives(drawn, models, tmp_path, capsys):
    results = tmp_path / "r.json"
    assert main(["evaluate", "reid", "--set", str(drawn), *options(models, embedding=False), "--paper-synthesis",
                 models["synthesis"], "--draws", "2", "--json", str(results)]) == 0
    assert "cross_modal_embedding: not measured, there is no embedding model" in capsys.readouterr().out
    figures = json.loads(results.read_text())
    assert figures["methods"]["cross_modal_embedding"] is None
    assert figures["ablation"]["fused without embedding"] is None
    assert figures["methods"]["fused"]["r1"] is not None and figures["methods"]["thermal_signature"] is not None
    assert main(["evaluate", "reid", "--set", str(drawn), "--embedding", "nope"]) == 2
    assert "nope" in capsys.readouterr().err


# --- what made pictures are worth ---


class Knowing:
    """Stands in for a synthesis model: air everywhere, the object in the middle 10 K warmer."""

    from thermalreid_ros.engine import ModelCard

    provider = "cpu"
    card = ModelCard.from_mapping({
        "name": "knowing", "task": "synthesis", "architecture": "none", "sha256": "0",
        "inputs": [{"name": "colour", "shape": [1, 3, 64, 64], "dtype": "uint8"},
                   {"name": "conditions", "shape": ["count", 4]}, {"name": "offset", "shape": ["count"]}],
        "outputs": [{"name": "temperature", "shape": ["count", 64, 64]}, {"name": "mask", "shape": [1, 64, 64]}]})

    def run(self, inputs):
        mask = np.zeros((1, 64, 64), np.float32)
        mask[:, 16:48, 16:48] = 1.0
        return {"temperature": inputs["conditions"][:, 1, None, None] + 10.0 * mask, "mask": mask}


def test_made_pictures_are_compared_with_the_true_ones(tmp_path):
    """The truth is 2 K warmer at the first instant, 3 K colder at the second, and alike otherwise."""
    (tmp_path / "sessions").mkdir()
    side = 128
    half = side / 1.8 / 2  # of the object, whose square of 1.5 is what is made
    edge = slice(round(side / 2 - half / 1.5 * 1.125), round(side / 2 + half / 1.5 * 1.125))
    mask = np.zeros((2, side, side), np.uint8)
    mask[:, 50:78, 50:78] = 1
    colour = np.random.default_rng(0).integers(0, 255, (2, side, side, 3), dtype=np.uint8)
    truth = np.full((2, side, side), 15.0)
    truth[:, edge, edge] += 10.0
    near = {name: np.round((truth + more + 273.15) * 100).astype(np.uint16) for name, more in (("near_first", 2.0),
                                                                                                 ("near_second", -3.0))}
    conditions = np.float32([12.0, 15.0, 0.2, 0.5, 1.0, 0.0])
    np.savez(tmp_path / "sessions" / "000_00.npz", label=np.array([0, 1]), colour=colour, mask=mask, first=conditions,
             second=conditions, **near)
    figures = evaluate_synthesis(ProbeSynthesizer(Knowing()), [tmp_path])
    assert figures["pairs"] == 2 and figures["refused"] == 0
    assert figures["first"]["mean_median_k"] == pytest.approx(2.0, abs=0.05)
    assert figures["second"]["mean_median_k"] == pytest.approx(3.0, abs=0.05)
    assert figures["first"]["relative_rmse_k"] < 0.1 and figures["first"]["ssim"] > 0.9
    assert figures["second"]["mean_median_k_by_class"].keys() == {"car", "person"}
    whole = (tmp_path / "sessions" / "000_00.npz").read_bytes()
    for length in (0, 5, 2000, len(whole) - 9):
        (tmp_path / "sessions" / "000_01.npz").write_bytes(whole[:length])
        with pytest.raises(ThermalReidError, match="000_01.npz: damaged"):
            evaluate_synthesis(ProbeSynthesizer(Knowing()), [tmp_path])
    with pytest.raises(ThermalReidError, match="no pairs"):
        evaluate_synthesis(ProbeSynthesizer(Knowing()), [tmp_path / "sessions"])


def test_structural_similarity_of_pictures_alike_and_opposite():
    picture = np.random.default_rng(2).normal(size=(40, 40))
    assert structural_similarity(picture, picture, 2.0) == pytest.approx(1.0)
    assert structural_similarity(5.0 + picture, 5.0 - picture, 2.0) < 0.0
