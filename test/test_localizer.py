"""The localizer over a small made-up town: finds the place, says when it cannot, and survives its inputs."""

from dataclasses import replace

import numpy as np
import pytest
from osm_files import OsmFile, opened_map

from thermalreid_ros.camera.geometry import Intrinsics, Pose
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.localization.ground import ground_offsets
from thermalreid_ros.localization.history import Odometry
from thermalreid_ros.localization.localizer import Localizer, LocalizerConfig
from thermalreid_ros.localization.types import LocalizationError, SemanticMask, Verdict
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass

CAMERA = Intrinsics.from_field_of_view(640, 512, np.radians(45.0))
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
HEIGHT_M = 90.0
CONFIG = LocalizerConfig(vegetation_m=0.0)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """1400 x 900 m, everything flat and nowhere alike in its west; one meadow in the east."""
    osm = OsmFile(1400, 900)
    osm.scatter(160, (850, 870), (12, 40), (10, 30), height="0.5")
    osm.box(900.0, 0.0, 1400.0, 900.0, {"landuse": "meadow"})
    with opened_map(osm, tmp_path_factory.mktemp("map")) as opened:
        yield opened


class Flight:
    """East along a line at 10 m/s, one frame a second, looking down and ahead; the world is the map."""

    def __init__(self, town, start=(200.0, 450.0), velocity=(10.0, 0.0), yaw_error=0.03, scale_error=0.02):
        self.town, self.start, self.velocity = town, np.array(start), np.array(velocity)
        self.rotation = Pose.looking([0, 0, 0], 0.4, 1.3).rotation
        self._yaw_error, self._readings = yaw_error, 0
        self.height_said_m = HEIGHT_M * (1 + scale_error)

    @property
    def said(self):
        """The attitude, of which two readings differ in their last digits."""
        self._readings += 1
        yaw = self._yaw_error + 1e-9 * self._readings
        c, s = np.cos(yaw), np.sin(yaw)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ self.rotation

    def place(self, k):
        return self.start + k * self.velocity

    def mask(self, k, labels=None):
        if labels is None:
            u, v = np.meshgrid(np.arange(80) * 8 + 4.0, np.arange(64) * 8 + 4.0)
            offsets = ground_offsets(CAMERA, self.rotation, HEIGHT_M, np.column_stack([u.ravel(), v.ravel()]))
            x, y = (offsets + self.place(k)).T
            inside = (x > 0) & (y > 0) & (x < self.town.bounds[2]) & (y < self.town.bounds[3])
            labels = np.where(inside, self.town.class_at(x, y), SemanticClass.GROUND).astype(np.uint8).reshape(64, 80)
        return SemanticMask(labels, np.full_like(labels, 255), 640, 512, START_NS + k * SECOND)

    def feed(self, localizer, k, skip=(), jump=(0.0, 0.0)):
        stamp = START_NS + k * SECOND
        if "attitude" not in skip:
            localizer.add_attitude(stamp, self.said)
        if "odometry" not in skip:
            localizer.add_odometry(stamp, np.array([*(k * self.velocity + jump), 0.0]))
        if "altitude" not in skip:
            localizer.add_altitude(stamp, self.height_said_m)

    def fly(self, localizer, frames, labels=None):
        results = []
        for k in frames:
            self.feed(localizer, k)
            results.append(localizer.process(self.mask(k, labels), CAMERA))
        return results


def started(town, x=260.0, y=380.0, sigma=100.0, config=CONFIG):
    localizer = Localizer(town, config)
    localizer.set_prior(START_NS, x, y, sigma)
    return localizer


def test_the_place_is_found_and_kept_and_the_errors_of_the_sensors_with_it(town):
    flight = Flight(town)
    results = flight.fly(started(town), range(45))
    fixes = [(k, r.fix) for k, r in enumerate(results) if r.verdict is Verdict.LOCALIZED]
    assert len(fixes) > 25 and fixes[0][0] < 20
    for k, fix in fixes:
        error = np.array([fix.x, fix.y]) - flight.place(k)
        assert np.hypot(*error) < 8.0
        assert fix.stamp_ns == START_NS + k * SECOND
        assert np.linalg.eigvalsh(fix.covariance_m2).min() >= CONFIG.floor_m ** 2 - 1e-9
    fix = fixes[-1][1]
    assert np.hypot(*(np.array([fix.x, fix.y]) - flight.place(44))) < 4.0
    turned = np.arccos(np.clip((np.trace(fix.rotation.T @ flight.rotation) - 1) / 2, -1, 1))
    assert turned < 0.02 + 2 * fix.yaw_sigma_rad
    assert fix.height_m == pytest.approx(HEIGHT_M, rel=0.02)
    latitude, longitude = town.grid.to_geographic(np.array([fix.x]), np.array([fix.y]))
    assert (fix.latitude_deg, fix.longitude_deg) == (latitude[0], longitude[0])
    last = results[-1]
    assert last.margin > 5.0 and last.score > 0.0 and last.spread_m < 10.0
    assert last.candidates[0].share > 0.9


def test_a_place_that_the_search_is_less_sure_of_needs_more_proof(town):
    def first_fix(**settings):
        results = Flight(town).fly(started(town, config=replace(CONFIG, **settings)), range(30))
        return next((k for k, r in enumerate(results) if r.fix), None), results[-1]

    sure, _ = first_fix(proof_nats=np.inf)
    proven, _ = first_fix(sure_share=np.inf)
    first, _ = first_fix()
    assert first == min(sure, proven) and max(sure, proven) < 20
    none, last = first_fix(proof_nats=np.inf, sure_share=np.inf)
    assert none is None and last.verdict is Verdict.SEARCHING and "checked against new ground" in last.reason


@pytest.mark.parametrize("proven", [True, False])
def test_the_search_begins_anew_around_a_place_near_its_edge_once_that_is_proven(town, proven):
    """Around a wrong place it would never find the right one."""
    config = CONFIG if proven else replace(CONFIG, proof_nats=np.inf, sure_share=np.inf)
    flight, localizer = Flight(town), started(town, x=350.0, y=450.0, sigma=60.0, config=config)
    results = flight.fly(localizer, range(30))
    assert any(r.fix for r in results) == proven and len(localizer.belief().particles)
    west, _, east, _ = localizer.belief().bounds
    moved = 29 * flight.velocity[0]
    assert 0.5 * (west + east) - moved == pytest.approx(200.0 if proven else 350.0, abs=20.0)


def test_the_belief_can_be_looked_at(town):
    flight, localizer = Flight(town), started(town)
    assert localizer.belief() is None
    flight.fly(localizer, range(1))
    assert len(localizer.belief().particles) == 0
    flight.fly(localizer, range(1, 20))
    belief, (x, y) = localizer.belief(), flight.place(19)
    assert belief.probability.sum() == pytest.approx(1.0, rel=1e-3)
    west, south, east, north = belief.bounds
    row, column = np.unravel_index(belief.probability.argmax(), belief.probability.shape)
    best = west + (column + 0.5) * (east - west) / belief.probability.shape[1], \
        south + (row + 0.5) * (north - south) / belief.probability.shape[0]
    assert np.hypot(best[0] - x, best[1] - y) < 12.0
    assert np.hypot(*(belief.particles[:, :2].mean(axis=0) - (x, y))) < 8.0


def test_equal_inputs_give_equal_results_and_the_order_of_arrival_does_not_matter(town):
    flight = Flight(town)
    in_order = flight.fly(started(town), range(20))
    localizer = started(town)
    for k in reversed(range(4)):
        flight.feed(localizer, k)
    mixed = [localizer.process(flight.mask(k), CAMERA) for k in range(4)]
    mixed += flight.fly(localizer, range(4, 20))
    for a, b in zip(in_order, mixed):
        assert (a.verdict, a.reason, a.spread_m) == (b.verdict, b.reason, b.spread_m) or np.isnan(a.spread_m)
        assert (a.fix is None) == (b.fix is None)
        if a.fix is not None:
            assert (a.fix.x, a.fix.y) == (b.fix.x, b.fix.y)


def test_over_ground_with_nothing_to_see_there_is_no_fix_and_the_reason(town):
    flight = Flight(town, start=(1000.0, 300.0), velocity=(5.0, 5.0))
    results = flight.fly(started(town, 1050.0, 330.0), range(25))
    assert all(r.fix is None for r in results)
    assert {r.verdict for r in results} == {Verdict.UNIFORM}
    assert "of one class" in results[-1].reason


def test_a_town_that_the_map_does_not_show_gives_no_fix(town):
    rng = np.random.default_rng(0)
    localizer, flight = started(town, sigma=200.0), Flight(town)
    for k in range(40):
        flight.feed(localizer, k)
        blobs = np.kron(rng.integers(0, 4, (8, 10)), np.ones((8, 8))).astype(np.uint8)
        assert localizer.process(flight.mask(k, blobs), CAMERA).fix is None


def test_off_the_map(town):
    far = Flight(town, start=(9000.0, 9000.0))
    results = far.fly(started(town, 9000.0, 9000.0), range(3))
    assert {r.verdict for r in results} == {Verdict.OFF_MAP} and "mapped" in results[0].reason
    # Over the edge of the map, westwards.
    flight = Flight(town, start=(300.0, 450.0), velocity=(-10.0, 0.0))
    results = flight.fly(started(town, 330.0, 420.0), range(60))
    assert any(r.verdict is Verdict.LOCALIZED for r in results[:30])
    assert all(r.fix is None for r in results[45:])
    assert any(r.verdict is Verdict.OFF_MAP for r in results[35:])


def test_a_search_that_would_begin_anew_off_the_map_says_so(town):
    flight, localizer = Flight(town, start=(300.0, 450.0), velocity=(-20.0, 0.0)), started(town, 330.0, 420.0, 60.0)
    flight.fly(localizer, range(36))  # to where nothing within the search's 200 m is mapped
    localizer._search.logp[:] = np.log(1.0 / localizer._search.logp.size)  # it has lost all that it knew
    localizer._particles.state[:, 1] += 130.0  # near the edge of the search, for the odometry drifts
    blobs = np.random.default_rng(1).integers(0, 4, (64, 80)).astype(np.uint8)
    assert {r.verdict for r in flight.fly(localizer, range(36, 40), blobs)} == {Verdict.OFF_MAP}


@pytest.mark.parametrize("missing", ["attitude", "odometry", "altitude"])
def test_what_is_missing_is_named(town, missing):
    flight, localizer = Flight(town), started(town)
    flight.feed(localizer, 0, skip=(missing,))
    result = localizer.process(flight.mask(0), CAMERA)
    assert result.verdict is Verdict.NO_INPUT and result.reason == f"no {missing} yet"
    flight.feed(localizer, 0)
    flight.feed(localizer, 3, skip=(missing,))
    result = localizer.process(flight.mask(3), CAMERA)
    assert result.verdict is Verdict.NO_INPUT
    assert result.reason == f"no {missing} near the frame: the newest is 3.00 s older"


def test_without_a_prior_nothing_is_searched(town):
    localizer = Localizer(town, CONFIG)
    result = Flight(town).fly(localizer, range(1))[0]
    assert result.verdict is Verdict.NO_INPUT and "prior" in result.reason


def test_late_and_repeated_frames_are_refused(town):
    flight, localizer = Flight(town), started(town)
    flight.fly(localizer, range(3))
    repeated, late = (localizer.process(flight.mask(k), CAMERA) for k in (2, 1))
    assert repeated.verdict is Verdict.REFUSED and "already" in repeated.reason
    assert late.verdict is Verdict.REFUSED and "1.00 s older" in late.reason


def test_a_clock_set_back_starts_anew(town):
    flight, localizer = Flight(town), started(town)
    for k in range(100, 120):
        flight.feed(localizer, k)
        localizer.process(flight.mask(k), CAMERA)
    results = flight.fly(localizer, range(25))  # a recording starts over: the prior of its beginning is right again
    assert results[0].fix is None and any(r.fix is not None for r in results)
    localizer.set_prior(START_NS + 24 * SECOND, *flight.place(24), 50.0)
    flight.feed(localizer, 0)
    assert localizer.process(flight.mask(0), CAMERA).reason == "no prior position yet"  # that one is of later


@pytest.mark.parametrize("frame_first", [True, False])
def test_a_clock_set_back_in_flight_leaves_the_rough_position(town, frame_first):
    """It was given once, 200 m ago, and moves on with the odometry, which goes on."""
    flight, localizer = Flight(town), started(town, sigma=60.0)
    flight.fly(localizer, range(20))
    results = []
    for k in range(20, 50):
        stamp_ns = START_NS + (k - 8) * SECOND
        mask = replace(flight.mask(k), stamp_ns=stamp_ns)
        if frame_first and k == 20:
            localizer.process(mask, CAMERA)
        localizer.add_attitude(stamp_ns, flight.said)
        localizer.add_odometry(stamp_ns, np.array([*(k * flight.velocity), 0.0]))
        localizer.add_altitude(stamp_ns, flight.height_said_m)
        results.append((k, localizer.process(mask, CAMERA)))
    fixes = [(k, r.fix) for k, r in results if r.fix is not None]
    assert len(fixes) > 5
    assert all(np.hypot(*((fix.x, fix.y) - flight.place(k))) < 8.0 for k, fix in fixes)


def frozen(flight, localizer, k, since, hz=10):
    """Feed a second of odometry that from `since` on says the same again and again."""
    flight.feed(localizer, k, skip=("odometry",))
    for j in range(1 - hz, 1):
        t = min(k + j / hz, since)
        localizer.add_odometry(START_NS + k * SECOND + j * SECOND // hz, np.array([*(t * flight.velocity), 0.0]))


def test_an_odometry_that_says_one_position_of_a_moving_vehicle_is_lost(town):
    flight, localizer, results = Flight(town), started(town), []
    for k in range(60):
        frozen(flight, localizer, k, since=24.0)
        results.append(localizer.process(flight.mask(k), CAMERA))
    assert results[24].fix is not None
    assert all(r.fix is None and "has said one position for" in r.reason for r in results[26:])
    errors = [np.hypot(*(np.array((r.fix.x, r.fix.y)) - flight.place(k))) for k, r in enumerate(results) if r.fix]
    assert max(errors) < 15.0  # half a second of flight more than else
    for k in range(60, 100):  # it goes on from there: the place is looked for again, and no wrong one is published
        flight.feed(localizer, k, skip=("odometry",))
        for j in range(-9, 1):
            t = k - 36 + j / 10
            localizer.add_odometry(START_NS + k * SECOND + j * SECOND // 10, np.array([*(t * flight.velocity), 0.0]))
        result = localizer.process(flight.mask(k), CAMERA)
        assert result.fix is None or np.hypot(*(np.array((result.fix.x, result.fix.y)) - flight.place(k))) < 15.0


def test_a_vehicle_that_hovers_or_stands_is_no_lost_odometry(town):
    odometry = Odometry(0.3, 20.0, 80.0, 8.0, 1.0)
    for k in range(50):
        odometry.add(k * SECOND // 10, np.zeros(3))  # on the ground
    assert odometry.frozen_s(5 * SECOND) == 0.0
    place = 0.0
    for k in range(50, 150):  # flies off, slows down and hovers
        place += 0.1 * (5.0 if k < 140 else max(0.0, 5.0 - 0.5 * (k - 139)))  # brakes by 5 m/s2
        odometry.add(k * SECOND // 10, np.array([place, 0.0, 0.0]))
    for k in range(150, 200):
        odometry.add(k * SECOND // 10, np.array([place, 0.0, 0.0]))
    assert odometry.frozen_s(20 * SECOND) == 0.0 and odometry.broken(20 * SECOND) == (False, False)


@pytest.mark.parametrize("since", [0, 24])
def test_an_attitude_that_never_changes_in_flight_is_lost(town, since):
    """A sensor that has died says with new stamps what it said last, while the vehicle turns."""
    flight, localizer, results = Flight(town), started(town), []
    stuck = flight.said
    for k in range(60):
        flight.feed(localizer, k, skip=("attitude",) if since <= k < 40 else ())
        if since <= k < 40:
            localizer.add_attitude(START_NS + k * SECOND, stuck)
        results.append(localizer.process(flight.mask(k), CAMERA))
    assert all(r.fix is None and "same to the last digit" in r.reason for r in results[since + 4:40])
    assert results[59].fix is not None and "last digit" not in results[40].reason
    hovering = Flight(town, velocity=(0.0, 0.0))
    localizer, stuck = started(town, x=hovering.start[0], y=hovering.start[1], sigma=20.0), hovering.said
    for k in range(30):  # on a stand, or in a simulation without noise
        hovering.feed(localizer, k, skip=("attitude",))
        localizer.add_attitude(START_NS + k * SECOND, stuck)
        assert "last digit" not in localizer.process(hovering.mask(k), CAMERA).reason


def test_without_new_ground_a_place_must_be_shown_by_what_is_in_view(town):
    """Odometry that has lost its way without a sign of it: it creeps while the vehicle flies on."""
    flight, localizer, results = Flight(town), started(town), []
    for k in range(60):
        flight.feed(localizer, k, skip=("odometry",))
        for j in range(-9, 1):
            t = k + j / 10
            moved = t if t < 24 else 24 + 0.002 * (t - 24)
            stamp_ns = START_NS + k * SECOND + j * SECOND // 10
            localizer.add_odometry(stamp_ns, np.array([*(moved * flight.velocity), 0.0]))
        results.append(localizer.process(flight.mask(k), CAMERA))
    wrong = [k for k, r in enumerate(results) if r.fix and
             np.hypot(*(np.array((r.fix.x, r.fix.y)) - flight.place(k))) > 25.0]
    assert results[24].fix is not None and len(wrong) <= 3
    still = Flight(town, velocity=(0.0, 0.0))  # while one that hovers over ground that fits keeps its place
    flight, localizer = Flight(town), started(town)
    flight.fly(localizer, range(24))
    still.start = flight.place(24)
    hovering = []
    for k in range(24, 40):
        still.feed(localizer, k, jump=23 * flight.velocity + (10.0 + 0.01 * (k % 2), 0.0))
        hovering.append(localizer.process(still.mask(k), CAMERA))
    assert all(r.fix is not None for r in hovering)


@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_a_rough_position_is_less_sure_the_farther_the_odometry_has_moved_it(town, sigma):
    """Of the take-off, 5 km ago, by an odometry that is 2 % long."""
    flight, localizer = Flight(town, start=(300.0, 450.0), velocity=(5.0, 0.0)), Localizer(town, CONFIG)
    begun_ns = START_NS - 600 * SECOND
    localizer.add_odometry(begun_ns, np.zeros(3))
    localizer.set_prior(begun_ns, flight.start[0] - 5000.0, 450.0, sigma)
    for q in range(1, 600):
        localizer.add_odometry(begun_ns + q * SECOND, np.array([5100.0 * q / 600, 0.0, 0.0]))
    fixes = []
    for k in range(60):
        flight.feed(localizer, k, jump=(5100.0, 0.0))
        if (fix := localizer.process(flight.mask(k), CAMERA).fix) is not None:
            fixes.append(np.hypot(*(np.array((fix.x, fix.y)) - flight.place(k))))
    assert fixes and max(fixes) < 10.0


def test_after_a_restart_the_place_itself_serves_as_rough_position(town):
    flight, first = Flight(town), started(town)
    flight.fly(first, range(25))
    again = Localizer(town, CONFIG)
    again.resume(first.handover())
    results = flight.fly(again, range(28, 45))
    fixes = [(k, r.fix) for k, r in enumerate(results, 28) if r.fix is not None]
    assert len(fixes) > 10 and all(np.hypot(*((fix.x, fix.y) - flight.place(k))) < 8.0 for k, fix in fixes)
    late = Localizer(town, CONFIG)
    late.resume(first.handover())
    assert flight.fly(late, [60])[0].reason == "no prior position yet"


def test_a_better_rough_position_moves_a_search_that_has_not_found_the_place(town):
    flight, localizer = Flight(town, start=(100.0, 450.0), velocity=(6.0, 0.0)), started(town, 700.0, 150.0, 30.0)
    results = flight.fly(localizer, range(5))
    for k in range(5, 40):
        localizer.set_prior(START_NS + k * SECOND, *flight.place(k), 5.0)
        results += flight.fly(localizer, [k])
    fixes = [(k, r.fix) for k, r in enumerate(results) if r.fix is not None]
    assert fixes and fixes[0][0] < 30
    assert all(np.hypot(*((fix.x, fix.y) - flight.place(k))) < 8.0 for k, fix in fixes)
    wide, narrow = started(town, 400.0, 300.0, 300.0), flight.place(3)
    flight.fly(wide, range(3))
    wide.set_prior(START_NS + 3 * SECOND, *narrow, 20.0)  # no contradiction, but much surer
    flight.fly(wide, [3])
    west, _, east, _ = wide.belief().bounds
    assert east - west < 450.0 and 0.5 * (west + east) == pytest.approx(narrow[0], abs=10.0)


def test_two_rough_positions_that_contradict_each_other_do_not_keep_the_search_from_coming_to_an_end(town):
    flight, localizer, results = Flight(town), started(town, sigma=30.0), []
    for k in range(60):
        localizer.set_prior(START_NS + k * SECOND, *(flight.place(k) + (0.0, 300.0 * (k % 2))), 30.0)
        results += flight.fly(localizer, [k])
    assert any(r.fix is not None for r in results)


def test_late_and_repeated_rough_positions_are_passed_over(town):
    flight, localizer = Flight(town), started(town, sigma=30.0)
    results = flight.fly(localizer, range(25))
    localizer.set_prior(START_NS + 25 * SECOND, *flight.place(25), 30.0)
    localizer.set_prior(START_NS + 15 * SECOND, *flight.place(15), 30.0)  # right for its stamp, ten seconds late
    results += flight.fly(localizer, range(25, 30))
    assert all(r.fix is not None for r in results[-6:])


def test_a_rough_position_repeated_with_its_old_stamp_is_moved_on_as_if_given_once(town):
    flight, localizer = Flight(town, start=(60.0, 450.0), velocity=(7.0, 0.0)), Localizer(town, CONFIG)
    for k in range(60):
        for j in range(5):
            t = k + j / 5
            localizer.add_odometry(START_NS + int(t * SECOND), np.array([*(t * flight.velocity), 0.0]))
        localizer.set_prior(START_NS, *flight.start, 5.0)
    flight.fly(localizer, [60])
    west, _, east, _ = localizer.belief().bounds
    assert 0.5 * (west + east) == pytest.approx(flight.place(60)[0], abs=15.0)
    anew = Localizer(town, CONFIG)  # and one that comes when the way since is forgotten is refused
    for k in range(400):
        anew.add_odometry(START_NS + k * SECOND // 5, np.array([1.4 * k, 0.0, 0.0]))
    with pytest.raises(LocalizationError, match="prior of 80 s ago is older than the odometry"):
        anew.set_prior(START_NS, *flight.start, 5.0)


def test_a_prior_that_has_jumped_is_given_its_time_however_seldom_it_comes(town):
    flight, localizer = Flight(town, start=(60.0, 450.0), velocity=(8.0, 0.0)), started(town, 80.0, 440.0, 20.0)
    results = []
    for k in range(70):
        if k and k % 4 == 0:
            localizer.set_prior(START_NS + k * SECOND, *(flight.place(k) + (0.0, 0.0 if k < 25 else 300.0)), 20.0)
        results += flight.fly(localizer, [k])
    assert results[27].fix is not None
    assert all(r.fix is None for r in results[28:57]) and "prior has jumped" in results[40].reason
    assert all(r.verdict is Verdict.SEARCHING for r in results[62:])  # anew, where it stays


@pytest.mark.parametrize("begun", [True, False])
def test_a_stamp_from_the_future_is_not_a_clock_that_was_set_back(town, begun):
    flight, localizer = Flight(town), started(town)
    results = flight.fly(localizer, range(20)) if begun else []
    ahead = START_NS + 3600 * SECOND
    localizer.add_attitude(ahead, flight.said)
    localizer.add_odometry(ahead, np.zeros(3))
    localizer.add_altitude(ahead, HEIGHT_M)
    results += flight.fly(localizer, range(len(results), 25))
    assert all(result.fix is not None for result in results[-5:])
    localizer.set_prior(ahead, *flight.place(24), 100.0)
    localizer.set_prior(START_NS + 24 * SECOND, *flight.place(24), 100.0)
    assert all(result.fix is not None for result in flight.fly(localizer, range(25, 28)))


@pytest.mark.parametrize("begun", [True, False])
def test_a_prior_of_a_clock_that_was_ahead_is_moved_by_the_odometry_or_followed_by_a_newer_one(town, begun):
    flight, localizer, ahead = Flight(town), Localizer(town, CONFIG), START_NS + 3600 * SECOND
    if begun:
        localizer.add_odometry(ahead, np.zeros(3))
    localizer.set_prior(ahead, *(flight.place(0) + (0.0, -300.0 if begun else 0.0)), 20.0)
    for k in range(30):
        flight.feed(localizer, k)
    if begun:
        localizer.set_prior(START_NS + 29 * SECOND, *flight.place(29), 20.0)
    assert any(result.fix is not None for result in flight.fly(localizer, range(30, 55)))


def test_a_frame_awaits_only_what_is_on_its_way(town):
    flight, localizer, no_prior = Flight(town), started(town), Localizer(town, CONFIG)
    flight.feed(localizer, 0, skip=("odometry",))
    flight.feed(no_prior, 0)
    assert not any(item.awaits(START_NS + SECOND // 5, 0.3) for item in (localizer, no_prior))
    flight.feed(localizer, 0)
    localizer.add_attitude(START_NS + SECOND, flight.said)  # the odometry is behind it
    assert [localizer.awaits(START_NS + tenths * SECOND // 10, 0.3) for tenths in (-1, 0, 2, 4, 5)] == \
        [False, False, True, True, False]


def test_inputs_between_frames_are_interpolated(town):
    flight, localizer = Flight(town), started(town)
    for k in range(0, 30):
        stamp, said = START_NS + k * SECOND, flight.said.copy()
        for shift in (-50_000_000, 50_000_000):
            localizer.add_attitude(stamp + shift, said)
            localizer.add_odometry(stamp + shift, np.array([10.0 * (k + shift / SECOND), 0.0, 0.0]))
        localizer.add_altitude(stamp - 300_000_000, flight.height_said_m)
        said[:] = 0.0  # a buffer of the caller's
        result = localizer.process(flight.mask(k), CAMERA)
    assert result.verdict is Verdict.LOCALIZED
    assert np.hypot(*(np.array([result.fix.x, result.fix.y]) - flight.place(29))) < 5.0


def test_when_the_odometry_jumps_or_the_place_is_lost_it_is_found_again(town):
    flight, localizer = Flight(town, start=(150.0, 300.0)), started(town, 200.0, 350.0, 150.0)
    assert flight.fly(localizer, range(23))[-1].verdict is Verdict.LOCALIZED
    moved = Flight(town, start=(150.0, 520.0))  # carried 220 m north without the odometry's knowing
    results = moved.fly(localizer, range(23, 74))
    wrong = [r.fix for k, r in enumerate(results, 23) if r.fix is not None and abs(r.fix.y - 520.0) > 50.0]
    assert len(wrong) <= 4
    found = results[-1].fix
    assert found is not None and np.hypot(*(np.array([found.x, found.y]) - moved.place(73))) < 8.0
    moved.feed(localizer, 74, jump=(5000.0, 0.0))
    assert localizer.process(moved.mask(74), CAMERA).verdict in (Verdict.SEARCHING, Verdict.AMBIGUOUS)


def test_a_place_outlives_a_camera_that_was_silent_for_longer_than_it_may_not_fit(town):
    flight, localizer = Flight(town, start=(150.0, 450.0), velocity=(5.0, 0.0)), started(town, 180.0, 430.0, 60.0)
    flight.fly(localizer, range(25))
    for k in range(25, 95):
        flight.feed(localizer, k)
    water = np.full((64, 80), SemanticClass.WATER, np.uint8)
    water[:, ::7] = SemanticClass.BUILDING
    assert flight.fly(localizer, [95], water)[0].verdict is Verdict.INCONSISTENT
    assert flight.fly(localizer, [96])[0].fix is not None


def fly_broken(town, localizer, flight, seconds, broken_s, silent_s, jump_m, rate_hz=1):
    """[(seconds, result)]; the odometry speaks 10 times a second, then is silent, and then somewhere else."""
    results = []
    for k in range(seconds * rate_hz):
        for t in k / rate_hz + np.arange(1, 11) / (10.0 * rate_hz) - 1 / rate_hz + 0.05:
            if not broken_s < t < broken_s + silent_s:
                jump = np.array(jump_m) * (t > broken_s)
                localizer.add_odometry(START_NS + round(t * SECOND), np.array([*(t * flight.velocity + jump), 0.0]))
        stamp = START_NS + k * SECOND // rate_hz
        localizer.add_attitude(stamp, flight.said)
        localizer.add_altitude(stamp, flight.height_said_m)
        results.append((k / rate_hz, localizer.process(replace(flight.mask(k / rate_hz), stamp_ns=stamp), CAMERA)))
    return results


@pytest.mark.parametrize("silent_s, jump_m", [(0.0, (0.0, 35.0)), (2.0, (0.0, 20.0)), (2.0, (-100.0, 0.0)),
                                              (2.0, (0.0, 0.0))])
def test_where_the_odometry_does_not_go_on_a_place_is_proven_again(town, silent_s, jump_m):
    flight = Flight(town, start=(60.0, 450.0))
    results = fly_broken(town, started(town, 100.0, 420.0), flight, 36, 25.0, silent_s, jump_m)
    errors = {k: float(np.hypot(*((r.fix.x, r.fix.y) - flight.place(k)))) for k, r in results if r.fix is not None}
    assert 24 in errors and 27 not in errors and 28 not in errors
    assert max(errors.values()) < 15.0
    if not any(jump_m):
        assert {30, 31, 32} <= set(errors)


def test_after_a_jump_between_two_readings_about_a_frame_the_search_goes_on_where_it_was(town):
    flight, localizer = Flight(town, start=(60.0, 450.0)), started(town, 140.0, 380.0)
    results = fly_broken(town, localizer, flight, 26, 23.0, 0.0, (700.0, -900.0))
    assert results[22][1].fix is not None and results[-1][1].fix is None
    west, south, east, north = localizer.belief().bounds
    assert np.hypot(*(0.5 * np.array([west + east, south + north]) - flight.place(25))) < 25.0


def test_a_jump_while_the_place_is_searched_does_not_take_the_search_back_to_the_prior(town):
    flight, localizer = Flight(town, start=(60.0, 450.0), velocity=(25.0, 0.0)), started(town, 70.0, 440.0)
    results = fly_broken(town, localizer, flight, 6, 4.4, 0.0, (5000.0, 0.0))
    assert not any(result.fix for _, result in results)
    west, south, east, north = localizer.belief().bounds
    assert np.hypot(*(0.5 * np.array([west + east, south + north]) - flight.place(5))) < 40.0


@pytest.mark.parametrize("begins_s", [0.0, 20.0])
def test_a_prior_given_once_and_long_ago_is_moved_on_by_the_odometry(town, begins_s):
    """By that which began after it, too: before, nothing flew."""
    flight, localizer = Flight(town, start=(-400.0, 450.0)), Localizer(town, CONFIG)
    localizer.set_prior(START_NS, *(flight.place(begins_s) + (30.0, -30.0)), 60.0)
    for t in np.arange(begins_s, 60.0, 0.1):
        localizer.add_odometry(START_NS + round(t * SECOND), np.array([*((t - begins_s) * flight.velocity), 0.0]))
    flight.velocity = np.array([10.0, 0.0])
    for k in range(60, 85):
        stamp = START_NS + k * SECOND
        localizer.add_attitude(stamp, flight.said)
        localizer.add_altitude(stamp, flight.height_said_m)
        localizer.add_odometry(stamp, np.array([*((k - begins_s) * flight.velocity), 0.0]))
        result = localizer.process(flight.mask(k), CAMERA)
    assert np.hypot(*((result.fix.x, result.fix.y) - flight.place(84))) < 8.0


def test_a_prior_as_good_as_a_satellite_fix_agrees_with_the_place_of_its_own_time(town):
    flight, localizer = Flight(town, start=(60.0, 450.0), velocity=(20.0, 0.0)), Localizer(town, CONFIG)
    results = []
    for k in range(50):
        stamp, t = START_NS + k * SECOND // 2, 0.5 * k
        localizer.add_odometry(stamp, np.array([*(t * flight.velocity), 0.0]))
        localizer.add_attitude(stamp, flight.said)
        localizer.add_altitude(stamp, flight.height_said_m)
        if k % 2 == 0:
            localizer.set_prior(stamp, *(flight.place(t) + (0.0, 4.0)), 1.0)  # the map lies some metres off
        results.append(localizer.process(replace(flight.mask(t), stamp_ns=stamp), CAMERA))
    first = next(k for k, result in enumerate(results) if result.fix is not None)
    assert first < 20 and all(result.fix is not None for result in results[first:38])


def test_a_later_prior_that_contradicts_the_fix_starts_the_search_anew(town):
    flight, localizer = Flight(town), started(town)
    assert flight.fly(localizer, range(20))[-1].fix is not None
    localizer.set_prior(START_NS + 20 * SECOND, 420.0, 820.0, 60.0)
    flight.feed(localizer, 20)
    assert localizer.process(flight.mask(20), CAMERA).fix is None


@pytest.mark.parametrize("frames", [5, 40])
def test_while_the_prior_is_a_kilometre_off_nothing_is_published_and_then_the_place_is_still_known(town, frames):
    flight, localizer = Flight(town, start=(60.0, 450.0)), Localizer(town, CONFIG)
    results = []
    for k in range(30 + frames):
        x, y = flight.place(k) + (60.0, -70.0)
        x += 1000.0 if 20 <= k < 20 + frames else 0.0
        localizer.set_prior(START_NS + k * SECOND, x, y, 100.0)
        results += flight.fly(localizer, range(k, k + 1))
    assert results[19].fix is not None
    meanwhile, after = results[20:20 + frames], results[20 + frames:]
    assert not any(result.fix for result in meanwhile)
    assert meanwhile[0].verdict is Verdict.INCONSISTENT and "prior has jumped to 1" in meanwhile[0].reason
    if frames < CONFIG.prior_doubt_s:
        assert [result.verdict for result in after] == [Verdict.LOCALIZED] * 10
    else:  # it was believed at last, and that is a place where nothing fits
        assert meanwhile[-1].verdict is not Verdict.INCONSISTENT
    for k, result in enumerate(results):
        assert result.fix is None or np.hypot(*((result.fix.x, result.fix.y) - flight.place(k))) < 8.0


def test_a_place_is_handed_over_to_the_localizer_that_comes_next(town):
    flight, first = Flight(town), started(town)
    assert first.handover() is None
    flight.fly(first, range(20))
    handed = first.handover()
    assert handed.stamp_ns == START_NS + 19 * SECOND
    assert np.hypot(*((handed.x, handed.y) - flight.place(19))) < 8.0 and handed.spread_m < 10.0
    flight.fly(first, [19 + 1 / 60])  # the next frame of a fast camera
    assert first.handover().speed_m_s == pytest.approx(handed.speed_m_s) == pytest.approx(10.0)
    results = {}
    for name, gap, changed in (("handed", 6, {}), ("wrong", 6, {"y": handed.y + 120.0}), ("old", 40, {}),
                               ("odometry anew", 6, {"camera_y": 150.0})):
        localizer = started(town)
        localizer.resume(replace(handed, **changed))
        results[name] = flight.fly(localizer, range(19 + gap, 26 + gap))
        assert all(np.hypot(*((r.fix.x, r.fix.y) - flight.place(k))) < 8.0
                   for k, r in enumerate(results[name], 19 + gap) if r.fix is not None)
    assert [result.fix is not None for result in results["handed"]] == [False] * 2 + [True] * 5  # new ground first
    assert not any(result.fix for name in ("wrong", "old", "odometry anew") for result in results[name])
    assert results["handed"][0].reason == "a place is found, and checked against new ground"
    assert all("evidence so far" in results[name][0].reason for name in ("old", "odometry anew"))


def test_a_prior_of_before_the_odometry_serves_where_the_vehicle_stood_and_not_where_it_flew(town):
    """A node that is started in flight, and a relay that repeats the prior of the take-off."""
    flight, results = Flight(town), {}
    for name, ago_s in (("stood", 600), ("flew", 600), ("lately", 1)):
        localizer = Localizer(town, CONFIG)
        localizer.set_prior(START_NS - ago_s * SECOND, *flight.place(0), 60.0)
        for second in np.arange(-7.0, 0.0, 0.2) if name == "stood" else ():  # on the ground, then 2 m/s2
            x = max(second + 5.0, 0.0) ** 2 - 25.0
            localizer.add_odometry(START_NS + round(second * SECOND), np.array([x, 0.0, 0.0]))
        results[name] = flight.fly(localizer, range(30))
    assert any(result.fix for result in results["stood"]) and any(result.fix for result in results["lately"])
    first, *later = (result.reason for result in results["flew"])
    assert first.endswith("a second of that will tell whether the vehicle had stood until then")
    assert set(later) == {"the prior is from 600 s before the odometry began, and the vehicle was moving then; give "
                          "one of now"}


def test_a_vehicle_that_stands_keeps_its_prior_however_old_though_its_odometry_wanders(town):
    rng, localizer = np.random.default_rng(3), Localizer(town, CONFIG)
    localizer.set_prior(START_NS - 3600 * SECOND, 200.0, 450.0, 60.0)
    for k in range(-30, 1):
        localizer.add_odometry(START_NS + k * SECOND // 10, np.array([*rng.normal(0.0, 0.2, 2), 0.0]))
    localizer.add_attitude(START_NS, np.diag((1.0, -1.0, -1.0)))
    localizer.add_altitude(START_NS, HEIGHT_M)
    assert localizer._prior_sigma_m(localizer._frame(START_NS)) == pytest.approx(60.0, abs=0.1)


def test_a_prior_is_less_sure_by_the_way_flown_since_though_it_ends_where_it_began(town):
    flight, localizer, frame = Flight(town), started(town, sigma=10.0), None
    for k in range(101):
        x = 15.0 * (k if k <= 50 else 100 - k)
        localizer.add_odometry(START_NS + k * SECOND, np.array([x, 0.0, 0.0]))
        localizer.add_attitude(START_NS + k * SECOND, flight.said)
        localizer.add_altitude(START_NS + k * SECOND, HEIGHT_M)
        frame = localizer._frame(START_NS + k * SECOND)
        localizer._moved(frame)
    assert localizer._prior_sigma_m(frame) == pytest.approx(np.hypot(10.0, CONFIG.prior_drift * 1500.0))
    # The clock is set back, and the odometry goes on: so does the way.
    back_ns = START_NS + 92 * SECOND
    localizer.add_odometry(back_ns, np.array([0.0, 0.0, 0.0]))
    localizer.add_attitude(back_ns, flight.said)
    localizer.add_altitude(back_ns, HEIGHT_M)
    assert localizer._prior_sigma_m(localizer._frame(back_ns)) == pytest.approx(
        np.hypot(10.0, CONFIG.prior_drift * 1500.0))


@pytest.mark.parametrize("frames, believed", [(1, False), (4, False), (15, True)])
def test_an_altitude_over_a_roof_is_not_believed_at_once(town, frames, believed):
    flight, localizer = Flight(town, scale_error=0.0), started(town)
    flight.fly(localizer, range(25))
    told, faults = flight.height_said_m, []
    for k in range(25, 25 + frames):
        flight.height_said_m = told - 25.0
        result, = flight.fly(localizer, range(k, k + 1))
        faults.append(localizer.altitude_fault)
        if k < 35:
            assert result.fix is None or result.fix.height_m == pytest.approx(told, rel=0.05)
    assert all("a roof below or an echo" in fault for fault in faults[:10]) and bool(faults[-1]) == (not believed)
    flight.height_said_m = told  # and its end is believed at once
    result, = flight.fly(localizer, range(25 + frames, 26 + frames))
    assert not localizer.altitude_fault


@pytest.mark.parametrize("call, words", [
    (lambda loc: loc.set_prior(0, np.nan, 0.0, 10.0), "prior"), (lambda loc: loc.set_prior(0, 0.0, 0.0, 0.0), "prior"),
    (lambda loc: loc.add_attitude(0, np.eye(2)), "attitude"), (lambda loc: loc.add_odometry(0, [0.0, 1.0]), "odometry"),
    (lambda loc: loc.add_altitude(0, -1.0), "altitude"), (lambda loc: Localizer(loc.map, confusion=np.ones((5, 5))),
                                                          "confusion")])
def test_nonsense_is_refused_in_one_line(town, call, words):
    with pytest.raises(ThermalReidError, match=words) as caught:
        call(Localizer(town))
    assert "\n" not in str(caught.value)


def test_a_mask_without_labels_says_so(town):
    localizer, flight = started(town), Flight(town)
    flight.feed(localizer, 0)
    empty = np.full((64, 80), NO_DATA, np.uint8)
    assert localizer.process(flight.mask(0, empty), CAMERA).verdict is Verdict.UNIFORM


def test_the_seed_is_a_setting(town):
    flight = Flight(town)
    a, b = (flight.fly(started(town, config=replace(CONFIG, seed=seed)), range(20))[-1].fix for seed in (1, 2))
    assert (a.x, a.y) != (b.x, b.y) and np.hypot(a.x - b.x, a.y - b.y) < 4.0
