"""The parts of the filter: fields of evidence, ground that counts once, the wide search, particles."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from osm_files import OsmFile, opened_map

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.localization.evidence import (DEFAULT_CONFUSION, Evidence, EvidenceField, GroundSeen, LearnedTable,
                                                   evidence_table)
from thermalreid_ros.localization.filter import GridSearch, Particles, ParticleSettings, SearchSettings
from thermalreid_ros.localization.ground import ground_offsets
from thermalreid_ros.localization.types import SemanticMask
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
FLAT = np.zeros(5)
TABLE = evidence_table(None, 0.2)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    osm = OsmFile(800, 800)
    osm.scatter(100, (770, 770), (12, 40), (10, 30), seed=5)
    with opened_map(osm, tmp_path_factory.mktemp("map")) as opened:
        yield opened


def seen_from(town, x, y, rng=None, count=800, yaw_error=0.0):
    """Evidence of the ground within 60 m, as the map has it, with the attitude turned by yaw_error."""
    rng = rng or np.random.default_rng(1)
    true = rng.uniform(-60, 60, (count, 2))
    c, s = np.cos(yaw_error), np.sin(yaw_error)
    offsets = true @ np.array([[c, s], [-s, c]])
    return Evidence(np.zeros((count, 2), np.float32), offsets.astype(np.float32), town.class_at(*(true + (x, y)).T),
                    np.full(count, 0.06, np.float32), np.full(count, 80.0, np.float32))


def test_the_table_is_pessimistic_and_its_rows_are_probabilities():
    np.testing.assert_allclose(TABLE.sum(axis=1), 1.0)
    assert (np.diag(TABLE) < np.diag(evidence_table(None, 0.0))).all() and (TABLE > 0.01).all()
    assert evidence_table(np.eye(5)[[0, 1, 2, 3, 0]], 0.0)[:, 4] == pytest.approx(1e-4)  # water is never predicted
    assert (np.diag(evidence_table(np.eye(5), 0.0)) > np.diag(evidence_table(DEFAULT_CONFUSION, 0.0))).all()


def learned(shares, labels, points, table_points=100.0, most_points=1000.0):
    """The table after so many points, spread over labels like that."""
    table = LearnedTable(None, 0.2, table_points, most_points)
    table.shares = np.array(shares, np.float64)
    asked = [table.add(np.arange(5, dtype=np.uint8), 10.0 * np.array(labels)) for _ in range(round(points / 10.0))]
    return table.table, asked


def test_a_table_learns_what_the_map_lacks():
    """Half of what is in view is vegetation and hardly anything a building, where the map knows bare ground."""
    shares, labels = (0.8, 0.1, 0.0, 0.1, 0.0), (0.4, 0.08, 0.01, 0.5, 0.01)
    before, _ = learned(shares, labels, 0)
    after, asked = learned(shares, labels, 600)
    np.testing.assert_allclose(after.sum(axis=1), 1.0)
    ground, vegetation, building = (int(c) for c in (SemanticClass.GROUND, SemanticClass.VEGETATION,
                                                     SemanticClass.BUILDING))
    assert before[ground, vegetation] < 0.3 and 0.4 < after[ground, vegetation] < 0.55
    np.testing.assert_allclose(np.array(shares) @ after, labels, atol=0.04)  # as often as they are seen
    ratio = [table[building, building] / table[ground, building] for table in (before, after)]
    assert ratio[1] > 2.0 * ratio[0]  # what is rare here tells more
    # Labels as the table would have them change nothing; nor is the table asked for at every frame.
    np.testing.assert_allclose(learned(shares, np.array(shares) @ before, 600)[0], before, atol=0.01)
    assert any(asked[:2]) and 10 < sum(asked) < 40


@given(st.lists(st.floats(0.0, 1.0), min_size=10, max_size=10), st.floats(0.0, 3000.0))
def test_tables_hold_probabilities_whatever_is_seen(numbers, points):
    assume(sum(numbers[:5]) > 1e-3)
    shares, labels = (np.array(part) / max(sum(part), 1e-6) for part in (numbers[:5], numbers[5:]))
    table, _ = learned(shares, labels, points)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-9)
    assert (table > 0.0).all()


def test_a_table_remembers_so_much_and_no_more():
    once, _ = learned((1, 0, 0, 0, 0), (0.9, 0.0, 0.0, 0.1, 0.0), 500, most_points=500.0)
    table = LearnedTable(None, 0.2, 100.0, 500.0)
    table.shares = np.array([1.0, 0, 0, 0, 0])
    for labels in 20 * [(0.1, 0.0, 0.0, 0.9, 0.0)] + 300 * [(0.9, 0.0, 0.0, 0.1, 0.0)]:
        table.add(np.arange(5, dtype=np.uint8), 10.0 * np.array(labels))
    np.testing.assert_allclose(table.table, once, atol=0.005)


def test_a_field_takes_another_table(town):
    field, other = (EvidenceField(town, table, 400.0, 400.0, 200.0, 2.0, 3.0, 0.1) for table in (
        TABLE, evidence_table(None, 0.5)))
    held = field.log_likelihood
    field.take(evidence_table(None, 0.5))
    assert field.log_likelihood is held
    np.testing.assert_allclose(held, other.log_likelihood, atol=1e-6)
    np.testing.assert_allclose(field.log_marginal, other.log_marginal)


def test_the_field_says_how_likely_labels_are(town):
    field = EvidenceField(town, TABLE, 400.0, 400.0, 200.0, 1.0, 0.3, 0.1)
    x, y = np.random.default_rng(0).uniform(220, 580, (2, 4000))
    truth, label = town.class_at(x, y), np.full(4000, SemanticClass.BUILDING)
    said = field.at(label, x, y)
    for c in np.unique(truth):
        # Hardly blurred: most places say what the table says of their class.
        assert np.median(said[truth == c]) == pytest.approx(np.log(TABLE[c, SemanticClass.BUILDING]), abs=0.02)
    assert field.covers(400, 400, 190) and not field.covers(400, 400, 210) and not field.covers(560, 400, 50)
    assert field.seen_at(np.array([400.0]), np.array([400.0])) == pytest.approx(1.0, abs=1e-5)


def test_gains_are_likelihoods_less_what_an_average_place_gives(town):
    field = EvidenceField(town, TABLE, 400.0, 400.0, 200.0, 2.0, 3.0, 0.1)
    x, y = np.random.default_rng(2).uniform(220, 580, (2, 3000)).astype(np.float32)
    gains = field.gains_at(x, y)
    label = np.arange(3000) % 5
    said = field.at(label, x, y) - field.log_marginal[label]
    np.testing.assert_allclose(gains[label, np.arange(3000)], said, atol=1e-6)
    # Whatever is seen, no class gains over all places.
    np.testing.assert_allclose(np.exp(gains).mean(axis=1), 1.0, atol=0.1)


def test_outside_of_the_map_every_label_is_an_average_one_less_the_penalty(town):
    field = EvidenceField(town, TABLE, 0.0, 400.0, 200.0, 2.0, 3.0, 0.25)
    for label in range(5):
        said = field.at(np.array([label]), np.array([-150.0]), np.array([400.0]))
        assert said[0] == pytest.approx(field.log_marginal[label] - 0.25, abs=1e-5)
    assert field.seen_at(np.array([-150.0]), np.array([400.0])) == 0.0
    assert np.exp(field.log_marginal).sum() == pytest.approx(1.0)


def mask_of(rotation, height, place, world):
    u, v = np.meshgrid(np.arange(80) * 8 + 4.0, np.arange(64) * 8 + 4.0)
    offsets = ground_offsets(CAMERA, rotation, height, np.column_stack([u.ravel(), v.ravel()]))
    labels = world(*(offsets + place).T).astype(np.uint8).reshape(64, 80)
    return SemanticMask(labels, np.full_like(labels, 255), 640, 512)


def test_ground_counts_once_until_the_vehicle_has_flown_on():
    ground, rotation = GroundSeen(2.0, 300.0), Pose.looking([0, 0, 0], 0.0, np.pi / 2).rotation

    def look(x, travelled):
        place = np.array([x, 0.0])
        mask = mask_of(rotation, 90.0, place, lambda east, north: (east > 0) * SemanticClass.WATER)
        return ground.look(mask, CAMERA, rotation, 90.0, place, travelled, FLAT, 100.0, 200.0)

    evidence, new = look(0.0, 0.0)
    # 74.6 x 59.6 m, flown with the top of the picture to the east.
    assert new.all() and evidence.weights.sum() == pytest.approx(74.6 * 59.6 / 100.0, rel=0.05)
    assert (evidence.labels == np.where(evidence.offsets_m[:, 0] > 0, SemanticClass.WATER, SemanticClass.GROUND)
            )[np.abs(evidence.offsets_m[:, 0]) > 2.0].all()
    assert not look(0.0, 100.0)[1].any()
    evidence, new = look(20.0, 120.0)
    assert new.mean() == pytest.approx(20.0 / 59.6, rel=0.08)
    assert look(0.0, 300.0)[1].mean() == pytest.approx(1.0)
    # A turn of the store away, long after: new again.
    assert look(2048.0, 2400.0)[1].all()


def test_what_stands_is_drawn_nearer():
    rotation = Pose.looking([0, 0, 0], 0.0, 0.9).rotation
    tall = np.array([0.0, 0.0, 9.0, 0.0, 0.0])
    mask = mask_of(rotation, 90.0, np.zeros(2), lambda x, y: np.full(x.shape, SemanticClass.BUILDING))
    both = [GroundSeen(2.0, 300.0).look(mask, CAMERA, rotation, 90.0, np.zeros(2), 0.0, lean, 100.0, 200.0)[0]
            for lean in (FLAT, tall)]
    np.testing.assert_allclose(both[1].offsets_m, 0.9 * both[0].offsets_m, rtol=1e-5)
    assert (both[1].heights_m == 90.0).all()


def test_a_frame_without_ground_is_no_evidence():
    up = Pose.looking([0, 0, 0], 0.0, np.pi / 2).rotation @ np.diag([1.0, -1.0, -1.0])
    labels = np.zeros((64, 80), np.uint8)
    args = (90.0, np.zeros(2), 0.0, FLAT, 100.0, 200.0)
    assert GroundSeen(2.0, 300.0).look(SemanticMask(labels, labels, 640, 512), CAMERA, up, *args) is None
    down = Pose.looking([0, 0, 0], 0.0, np.pi / 2).rotation
    nothing = np.full_like(labels, NO_DATA)
    assert GroundSeen(2.0, 300.0).look(SemanticMask(nothing, labels, 640, 512), CAMERA, down, *args) is None


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 300), keep=st.integers(1, 300), seed=st.integers(0, 9))
def test_thinning_keeps_what_the_evidence_is_worth(count, keep, seed):
    rng = np.random.default_rng(seed)
    evidence = Evidence(np.zeros((count, 2), np.float32), rng.normal(size=(count, 2)).astype(np.float32),
                        rng.integers(0, 5, count).astype(np.uint8), rng.uniform(0.1, 1, count).astype(np.float32),
                        np.full(count, 80.0, np.float32))
    thin = evidence.thinned(keep, rng)
    assert len(thin) == min(count, keep)
    assert thin.weights.sum() == pytest.approx(evidence.weights.sum(), rel=1e-4)
    assert len(Evidence.joined([evidence, thin])) == len(evidence) + len(thin)


def test_an_odometry_that_counts_from_far_away_moves_points_as_one_from_near(town):
    """As one in UTM does, where single precision tells half metres."""
    cloud = Particles(300.0, 420.0, 5.0, 0.0, ParticleSettings(count=50), np.random.default_rng(0))
    seen, places = seen_from(town, 300.0, 420.0), []
    for far in (np.zeros(2), np.array([544412.37, 5362500.61])):
        evidence = replace(seen, camera_m=np.broadcast_to(far, seen.offsets_m.shape))
        places.append(cloud.places(evidence, far + (12.3, -4.7)))
    np.testing.assert_allclose(places[1], places[0], atol=1e-3)


@pytest.mark.parametrize("place, camera, yaw", [((300.0, 420.0), (0.0, 0.0), 0.0), ((250.0, 300.0), (57.0, -33.0), 0.0),
                                                ((480.0, 350.0), (-10.0, 20.0), np.radians(4.0))])
def test_the_search_finds_where_the_odometry_starts(town, place, camera, yaw):
    """place: of the vehicle; camera: what its odometry says meanwhile."""
    search = GridSearch(380.0, 380.0, 250.0, 150.0, SearchSettings())
    assert np.exp(search.logp).sum() == pytest.approx(1.0, rel=1e-4)
    coarse = EvidenceField(town, TABLE, 380.0, 380.0, 450.0, 6.0, 3.0, 0.1)
    seen = seen_from(town, *place, yaw_error=yaw)
    evidence = Evidence(np.broadcast_to(np.float32(camera), seen.offsets_m.shape), seen.offsets_m, seen.labels,
                        seen.weights, seen.heights_m)
    search.begin(evidence, coarse, 0.0)
    steps = 0
    while not search.step():
        assert search.busy
        steps += 1
    assert steps == len(SearchSettings().yaw_steps_rad) - 1 and not search.busy
    assert np.exp(search.logp).sum() == pytest.approx(1.0, rel=1e-3)
    x, y, found_yaw, share, _ = search.places()[0]
    assert np.hypot(x + camera[0] - place[0], y + camera[1] - place[1]) < 6.0
    assert share > 0.6 and -np.radians(1.5) < found_yaw < yaw + np.radians(1.5)
    others = np.array([(a, b) for a, b, *_ in search.places()])
    gaps = np.hypot(*(others[:, None] - others[None]).transpose(2, 0, 1)) + np.eye(len(others)) * 1e3
    assert gaps.min() > SearchSettings().nearby_m - SearchSettings().cell_m


def test_uniform_ground_leaves_the_search_where_it_was(town):
    search = GridSearch(380.0, 380.0, 250.0, 150.0, SearchSettings())
    field = EvidenceField(town, TABLE, 4000.0, 380.0, 450.0, 6.0, 3.0, 0.1)  # nothing but off the map
    before = search.logp.copy()
    search.begin(seen_from(town, 380.0, 380.0), field, 0.0)
    while not search.step():
        pass
    np.testing.assert_allclose(search.logp, before, atol=2e-3)


def test_what_is_ruled_out_stays_possible_a_little_and_blurs_with_the_way(town):
    settings_ = SearchSettings()
    search = GridSearch(380.0, 380.0, 250.0, 150.0, settings_)
    coarse = EvidenceField(town, TABLE, 380.0, 380.0, 450.0, 6.0, 3.0, 0.1)
    for k in range(4):
        search.begin(seen_from(town, 300.0, 420.0, np.random.default_rng(k)), coarse, 0.0)
        while not search.step():
            pass
    floor = np.log(settings_.floor) + search._prior.min() + search._yaw_prior.min()
    assert search.logp.min() >= floor - 0.1
    sharp = search.places()[0][4]
    search.begin(seen_from(town, 300.0, 420.0, count=1), coarse, 2000.0)
    while not search.step():
        pass
    assert search.places()[0][4] < sharp - 0.5


def cloud(x=300.0, y=420.0, spread=8.0, seed=0, **options):
    return Particles(x, y, spread, 0.0, ParticleSettings(**options), np.random.default_rng(seed))


def test_particles_follow_the_odometry_and_spread_by_its_error():
    particles = cloud(spread=0.1, way_sigma=0.02, walk_m=0.0)
    for _ in range(50):
        particles.move(np.array([0.0, 10.0]), 1.0)
    mean, covariance = particles.mean, particles.covariance
    np.testing.assert_allclose(mean[:2], (300.0, 920.0), atol=1.5)
    assert np.sqrt(covariance[1, 1]) == pytest.approx(10.0, rel=0.15)  # 2 % of 500 m
    assert np.sqrt(covariance[0, 0]) > 8.0


def test_particles_close_in_on_the_place_and_the_yaw(town):
    field = EvidenceField(town, TABLE, 300.0, 420.0, 300.0, 1.0, 3.0, 0.1)
    particles, yaw = cloud(306.0, 413.0), np.radians(2.5)
    before = np.sqrt(np.trace(particles.covariance[:2, :2]))
    for k in range(6):
        particles.weigh(seen_from(town, 300.0, 420.0, np.random.default_rng(k), yaw_error=yaw), np.zeros(2), field)
    assert np.hypot(*(particles.mean[:2] - (300.0, 420.0))) < 2.5
    assert np.sqrt(np.trace(particles.covariance[:2, :2])) < 0.5 * before
    sigma = np.sqrt(particles.covariance[Particles.YAW, Particles.YAW])
    assert 0.2 * yaw < particles.mean[Particles.YAW] < yaw + 2.0 * sigma and sigma < np.radians(1.0)
    assert particles.weights.sum() == pytest.approx(1.0)


def test_resampling_keeps_mean_and_covariance():
    particles = cloud(count=4000)
    particles.weights = np.random.default_rng(2).uniform(0, 1, 4000)
    particles.weights /= particles.weights.sum()
    mean, sigma = particles.mean, np.sqrt(np.diag(particles.covariance))
    particles.resample()
    np.testing.assert_allclose(particles.mean, mean, atol=0.1 * sigma.max(), rtol=0)
    assert (np.abs(particles.mean - mean) < 0.1 * sigma).all()
    np.testing.assert_allclose(np.sqrt(np.diag(particles.covariance)), sigma, rtol=0.08)


@settings(max_examples=30, deadline=None)
@given(yaw=st.floats(-0.06, 0.06), tilt_x=st.floats(-0.02, 0.02), tilt_y=st.floats(-0.02, 0.02),
       scale=st.floats(-0.04, 0.04), heading=st.floats(-3.1, 3.1), depression=st.floats(0.8, 1.5))
def test_the_state_puts_right_what_the_sensors_got_wrong(yaw, tilt_x, tilt_y, scale, heading, depression):
    """Points laid on the ground with a wrong attitude and height come to lie where they are."""
    true = Pose.looking([0, 0, 0], heading, depression).rotation
    height, pixels = 90.0, np.random.default_rng(0).uniform((0, 0), (640, 512), (50, 2))
    particles = cloud(50.0, 60.0, count=3)
    state = np.array([50.0, 60.0, yaw, scale, 0.0, 0.0, tilt_x, tilt_y])
    particles.state, particles.weights = state[None].repeat(3, 0), np.full(3, 1 / 3)
    wrong = particles.correction().T @ true
    offsets = ground_offsets(CAMERA, wrong, height * np.exp(-scale), pixels)
    evidence = Evidence(np.zeros((50, 2), np.float32), offsets.astype(np.float32), np.zeros(50, np.uint8),
                        np.ones(50, np.float32), np.full(50, height * np.exp(-scale), np.float32))
    (x,), (y,) = particles.places(evidence, np.zeros(2), state[None])
    expected = ground_offsets(CAMERA, true, height, pixels) + (50.0, 60.0)
    # To first order: the square of a degree of tilt, 130 m away.
    np.testing.assert_allclose(np.column_stack([x, y]), expected, atol=0.6)
