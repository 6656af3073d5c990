"""Who is in the city: paths, round trips, and a population that is the same whenever it is asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_town import small_town

from thermalreid_ros.maps.classes import SemanticClass
from thermalreid_ros.world.actors import CLASSES
from thermalreid_ros.world.paths import Net, Path, Street, beside, rounded
from thermalreid_ros.world.population import PHASES, Density, Population


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(small_town(), 3, Density.dense())


def cover(x, y) -> np.ndarray:
    plan = small_town().plan
    return plan.semantic[plan.cells(np.array(x), np.array(y))]


def apart(a, b) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


# --- paths -----------------------------------------------------------------------------------------------------------

corners = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=8, unique=True)


@given(corners, st.floats(0.5, 30.0))
@settings(max_examples=60, deadline=None)
def test_rounded_corners_turn_gently_and_stay_near_the_polyline(points, radius):
    points = np.array(points, float)
    smooth, corner = rounded(points, radius, closed=True)
    assert np.allclose(smooth[0], smooth[-1]) and len(smooth) == len(corner)
    # An arc lies within the triangle of its corner and the middles of the two segments that meet there.
    step = np.roll(points, -1, axis=0) - points
    half = 0.5 * np.maximum(np.hypot(*step.T), np.hypot(*np.roll(step, 1, axis=0).T))
    assert (np.hypot(*(smooth - points[corner]).T) <= half[corner] + 1e-6).all()


def test_an_arc_has_its_radius():
    smooth, _ = rounded(np.array([[0, 0], [40, 0], [40, 40.0]]), 10.0)
    arc = smooth[1:-1]
    assert np.allclose(np.hypot(*(arc - (30, 10)).T), 10.0) and np.allclose(smooth[[0, -1]], [[0, 0], [40, 40]])


def test_a_path_is_walked_at_its_speeds():
    path = Path.timed(np.array([[0, 0], [10, 0], [10, 20.0], [0, 0]]), [2.0, 4.0, 1.0], closed=True)
    assert path.duration_s == pytest.approx(5.0 + 5.0 + np.hypot(10, 20))
    assert np.allclose(path.at(path.travelled_m(np.array([2.5, 7.5, path.duration_s + 2.5]))),
                       [[5, 0], [10, 10], [5, 0]])
    assert path.travelled_m(3 * path.duration_s) == pytest.approx(3 * path.length_m)
    assert path.heading_rad(20.0, 1.0) == pytest.approx(np.pi / 2)


def test_beside_a_line_is_on_its_right_and_around_its_end():
    points = np.array([[0, 0], [10, 0]], float)  # there and back again
    moved, segment = beside(points, np.array([2.0, 2.0]))
    assert {tuple(p) for p in moved.round(6).tolist()} == {(0, -2), (10, -2), (10, 2), (0, 2)}
    assert len(segment) == 4


def grid_of_streets(oneway: bool = False) -> list[Street]:
    lines = [[(0, y), (60, y), (120, y)] for y in (0, 60, 120)] + [[(x, 0), (x, 60), (x, 120)] for x in (0, 60, 120)]
    return [Street(np.array(line, float), 3.0, 10.0, oneway and k == 1) for k, line in enumerate(lines)]


def test_streets_are_joined_where_they_meet():
    net = Net(grid_of_streets())
    assert len(net.streets) == 12 and net.lengths_m().sum() == pytest.approx(720)


@pytest.mark.parametrize("seed", range(8))
def test_a_round_trip_comes_back_and_heeds_oneway_streets(seed):
    net, rng = Net(grid_of_streets(oneway=True)), np.random.default_rng(seed)
    trip = net.round_trip(int(rng.integers(12)), 400.0, rng)
    ends = [net.streets[e >> 1].points[[0, -1]] if e % 2 == 0 else net.streets[e >> 1].points[[-1, 0]] for e in trip]
    assert all(np.allclose(a[1], b[0]) for a, b in zip(ends, ends[1:] + ends[:1]))
    assert not any(net.streets[e >> 1].oneway and e % 2 for e in trip)
    path = net.path(trip, 1.6, kerb=False, radius_m=5.0)
    middle = np.concatenate([street.points for street in net.streets])
    assert path.length_m > 300 and np.abs(path.points).max() < np.abs(middle).max() + 5
    on_kerb = net.path(trip, 0.5, kerb=True, radius_m=1.0)
    places = on_kerb.at(np.linspace(0, on_kerb.length_m, 400))
    nearest = np.abs(np.mod(places + 30.0, 60.0) - 30.0).min(axis=1)  # to a street's middle line
    assert np.median(nearest) == pytest.approx(3.5, abs=0.1)


def test_a_street_with_no_way_back_has_no_round_trip():
    net = Net([Street(np.array([[0, 0], [50, 0.0]]), 3.0, 10.0, oneway=True)])
    assert net.round_trip(0, 100.0, np.random.default_rng(0)) is None


# --- population ------------------------------------------------------------------------------------------------------

def test_any_time_in_any_order_gives_the_same(population):
    again = Population(small_town(), 3, Density.dense())
    later = again.at(80.0)
    assert again.at(10.0) == population.at(10.0) and population.at(80.0) == later
    assert Population(small_town(), 4, Density.dense()).at(10.0) != population.at(10.0)


def test_around_a_place_are_those_of_all_who_are_near(population):
    near = population.at(20.0, around=(30.0, -20.0), radius_m=60.0)
    assert near and near == [a for a in population.at(20.0) if np.hypot(a.x - 30, a.y + 20) < 60.0]


def test_everyone_is_there_once_and_on_the_ground(population):
    placed = population.at(5.0)
    names = [a.identity.name for a in placed]
    assert len(set(names)) == len(names) and {a.identity.class_name for a in placed} == set(CLASSES)
    height = small_town().relief.height_m(np.array([a.x for a in placed]), np.array([a.y for a in placed]))
    assert np.allclose(height, [a.z for a in placed], atol=1e-6)
    assert all(a.phase * PHASES == int(a.phase * PHASES) and 0 <= a.phase < 1 for a in placed)
    assert all(a.ridden == (a.moving and a.identity.class_name == "bicycle") for a in placed)


def test_no_one_jumps(population):
    for name in CLASSES:
        here, there = ({a.identity.name: a for a in population.at(t, classes=(name,))} for t in (30.0, 30.1))
        for who in here.keys() & there.keys():
            a, b = here[who], there[who]
            assert apart(a, b) < (2.9 if a.moving else 1e-9)
            if a.moving and apart(a, b) > 0.3:  # vehicles travel where their front points
                along = np.cos(a.yaw_rad) * (b.x - a.x) + np.sin(a.yaw_rad) * (b.y - a.y)
                assert along > 0.8 * apart(a, b)


def test_traffic_is_on_roads_and_no_one_stands_in_a_wall(population):
    placed = population.at(12.0)
    cars = [a for a in placed if a.moving and a.identity.class_name == "car"]
    assert len(cars) > 5
    assert (cover([a.x for a in cars], [a.y for a in cars]) == SemanticClass.ROAD).mean() > 0.85
    still = [a for a in placed if not a.moving and a.identity.class_name != "car"]
    assert not np.isin(cover([a.x for a in still], [a.y for a in still]),
                       (SemanticClass.BUILDING, SemanticClass.WATER)).any()


def test_dogs_on_a_walk_have_company(population):
    placed = population.at(40.0)
    persons = [a for a in placed if a.identity.class_name == "person" and a.moving]
    dogs = [a for a in placed if a.identity.class_name == "dog" and a.moving]
    alone = [dog for dog in dogs if min(apart(dog, person) for person in persons) > 3.0]
    assert dogs and len(alone) <= 0.1 * len(dogs)  # whose owner is just beyond the edge of the area


def test_parked_cars_do_not_overlap_bystanders(population):
    placed = [a for a in population.at(0.0) if not a.moving]
    cars = np.array([(a.x, a.y) for a in placed if a.identity.class_name == "car"])
    others = np.array([(a.x, a.y) for a in placed if a.identity.class_name != "car"])
    assert np.hypot(*(cars[:, None] - others).T).min() > 2.0


def test_the_hour_and_the_density_tell_how_many_are_about():
    noon, night, dense = (Population(small_town(), 1, d).counts() for d in (
        Density.at_hour(13.0), Density.at_hour(3.0), Density.dense()))
    assert night["person"] < 0.5 * noon["person"] and noon["person"] < 0.5 * dense["person"]


def test_a_pool_is_drawn_from_without_making_room():
    night = Density.at_hour(3.0)
    plain, pooled = Population(small_town(), 5, night), Population(small_town(), 5, night, pool=5000)
    assert plain.counts() == pooled.counts()
    numbers = [a.identity.number for a in pooled.at(0.0) if a.identity.class_name == "car"]
    assert len(set(numbers)) == len(numbers) and 1000 < np.mean(numbers) < 4000 and max(numbers) < 5000


def test_room_is_made_for_wanted_identities():
    numbers = {name: list(range(40)) for name in CLASSES}
    population = Population(small_town(), 5, Density.at_hour(3.0), numbers, layout=77)
    placed = population.at(0.0)
    for name in CLASSES:
        there = {a.identity.number for a in placed if a.identity.class_name == name}
        assert len(there & set(range(40))) >= 36  # the others are just outside of the area
    other = Population(small_town(), 5, Density.at_hour(3.0), numbers, layout=78)
    who = next(a for a in placed if a.identity.class_name == "car" and not a.moving)
    assert population.where(who.identity, 0.0) == who
    there = other.where(who.identity, 0.0)
    assert there is None or (there.identity == who.identity and apart(there, who) > 1.0)
