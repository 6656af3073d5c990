"""The renderer: rays, temperatures, shadows and truth in a small town made by hand."""

from datetime import datetime, timezone

import cv2
import numpy as np
import pytest
import shapely

from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid, Pose
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.features import Area, Building, Features
from thermalreid_ros.world.actors import HeatState, make_identity
from thermalreid_ros.world.city import city_from_features
from thermalreid_ros.world.materials import Surface, material_arrays
from thermalreid_ros.world.mesh import Mesh
from thermalreid_ros.world.population import Placed
from thermalreid_ros.world.radiometry import brightness_temperature
from thermalreid_ros.world.raycast import Scene, hemisphere
from thermalreid_ros.world.render import RenderError, Renderer
from thermalreid_ros.world.thermal import HISTORY_EDGES_H
from thermalreid_ros.world.weather import Weather

GRID = LocalGrid("EPSG:32633", 500_000.0, 5_360_000.0)  # Lower Austria
CAMERA = Intrinsics.from_field_of_view(320, 256, np.radians(24.0))
NOON = datetime(2024, 6, 20, 11, 0, tzinfo=timezone.utc)
NIGHT = datetime(2024, 6, 20, 23, 30, tzinfo=timezone.utc)


def square(x0, y0, x1, y1):
    return shapely.box(GRID.easting_m + x0, GRID.northing_m + y0, GRID.easting_m + x1, GRID.northing_m + y1)


@pytest.fixture(scope="module")
def renderer():
    """A car park in the west, a meadow in the east, a 12 m block with a flat roof in the north."""
    features = Features(GRID.crs, (Building(square(-20, 60, 20, 90), 12.0, roof_shape="flat"),), (),
                        (Area(square(-150, -150, 0, 150), "parking", SemanticClass.ROAD),
                         Area(square(0, -150, 150, 150), "meadow", SemanticClass.VEGETATION)), (), ())
    city = city_from_features(features, GRID, (300.0, 300.0), seed=1, difference=0.0)
    return Renderer(city, Weather.clear())


def from_above(x, y, height_m=80.0):
    return Pose.looking([x, y, height_m], np.pi / 2, np.pi / 2)


def parked(identity, x, y, yaw_rad=0.0, hours=100.0):
    return Placed(identity, x, y, 0.0, yaw_rad, 0.0, HeatState(parked_s=3600.0 * hours), False)


def box_mesh(x0, y0, z0, x1, y1, z1):
    corners = np.array([(x, y, z) for z in (z0, z1) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], np.float32)
    sides = [(i, (i + 1) % 4, (i + 1) % 4 + 4) for i in range(4)] + [(i, (i + 1) % 4 + 4, i + 4) for i in range(4)]
    faces = np.array([*sides, (4, 5, 6), (4, 6, 7), (0, 2, 1), (0, 3, 2)], np.int32)
    return Mesh(corners, faces, np.zeros(12, np.uint8), np.full((12, 3), 0.3, np.float32), np.zeros(12, np.uint8))


def test_rays_find_distance_face_and_shadow():
    scene = Scene(box_mesh(0, 0, 0, 2, 2, 3))
    origins = np.float32([[1, 1, 10], [1, 1, 10], [9, 9, 10]])
    down = np.float32([[0, 0, -1], [0, 0, -2], [0, 0, -1]])
    distance, face = scene.nearest(origins, down)
    assert distance[:2] == pytest.approx([7.0, 3.5], abs=1e-5)
    assert not np.isfinite(distance[2]) and face[2] == -1 and face[0] in (8, 9)
    assert scene.occluded(origins, np.float32([0, 0, -1])).tolist() == [True, True, False]
    sun = np.float32([0, 0.6, 0.8])
    up = np.float32([[0, 0, 1]] * 2)
    assert scene.sunlit(np.float32([[1, -1, 0], [1, 6, 0]]), up, sun).tolist() == [False, True]
    assert not scene.sunlit(np.float32([[1, 6, 0]]), -up[:1], sun).any()  # faces away


def test_an_empty_scene_hides_nothing():
    scene = Scene(Mesh.joined([]))
    distance, face = scene.nearest(np.zeros((1, 3)), np.float32([[0, 0, 1]]))
    assert np.isinf(distance).all() and (face == -1).all()
    assert not scene.occluded(np.zeros((1, 3)), np.float32([[0, 0, 1]])).any()


def test_the_sky_is_whole_on_a_plain_half_at_a_long_wall():
    directions = hemisphere(400)
    assert directions.mean(axis=0) == pytest.approx([0, 0, 0.5], abs=0.01)
    scene = Scene(box_mesh(0, -500, 0, 1, 500, 500))
    points = np.float32([[-0.5, 0, 0], [-4000, 0, 0], [0, 0, 250]])
    normals = np.float32([[0, 0, 1], [0, 0, 1], [-1, 0, 0]])
    assert scene.sky_view(points, normals, directions) == pytest.approx([0.5, 1.0, 0.5], abs=0.03)


def test_depth_and_classes_of_a_view_from_above(renderer):
    renderer.set_time(NOON)
    capture = renderer.capture(from_above(0.0, 60.0), CAMERA, ())
    assert capture.depth_m[200, 20] == pytest.approx(80.0, abs=0.05)
    assert capture.depth_m[60, 160] == pytest.approx(68.0, abs=0.7)  # the roof, or what stands on it
    assert capture.semantic[60, 160] == SemanticClass.BUILDING
    assert capture.semantic[200, 20] == SemanticClass.ROAD
    assert capture.semantic[200, 300] == SemanticClass.VEGETATION
    assert capture.instance.max() == 0 and capture.boxes == ()
    assert (capture.radiance.dtype, capture.colour.dtype, capture.colour.shape) == (np.float32,) * 2 + ((256, 320, 3),)


def test_open_ground_has_the_temperature_of_the_energy_balance(renderer):
    renderer.set_time(NOON)
    capture = renderer.capture(from_above(-80.0, -60.0, 60.0), CAMERA, (), colour=False)
    assert capture.colour is None
    asphalt = np.uint8([Surface.ASPHALT])
    kelvin = renderer._day.temperature_k(asphalt, material_arrays().albedo_rgb[asphalt], np.float32([[0, 0, 1]]),
                                         np.ones(1, np.float32), np.ones((1, len(HISTORY_EDGES_H) - 1), np.float32))[0]
    radiance = renderer._air.apparent_radiance(asphalt, np.float32([kelvin]), np.ones(1), np.ones(1),
                                               np.float32([60.0]), np.ones(1))
    expected = brightness_temperature(radiance)[0]
    assert np.median(brightness_temperature(capture.radiance)) == pytest.approx(expected, abs=0.6)


def test_asphalt_is_warmer_than_grass_by_day_and_by_night_which_is_darker(renderer):
    light = []
    for when, least_k in ((NOON, 10.0), (NIGHT, 1.0)):
        renderer.set_time(when)
        capture = renderer.capture(from_above(0.0, -60.0), CAMERA, ())
        kelvin = brightness_temperature(capture.radiance)
        assert np.median(kelvin[:, :120]) > np.median(kelvin[:, 200:]) + least_k
        light.append(capture.colour.mean())
    assert 0 < light[1] < 1e-3 * light[0]


def test_the_sun_casts_the_block_s_shadow_to_the_north_at_noon(renderer):
    renderer.set_time(NOON)
    colour = renderer.capture(from_above(0.0, 92.0, 60.0), CAMERA, ()).colour.mean(axis=2)
    shaded, sunny = colour[118:124, 60:100], colour[20:40, 60:100]  # 90.5-92 m and 103 m north
    assert np.median(shaded) < 0.4 * np.median(sunny)


def test_what_stands_behind_the_block_is_seen_in_part_or_not_at_all(renderer):
    renderer.set_time(NOON)
    pose = Pose.looking([0.0, -40.0, 25.0], np.pi / 2, np.radians(10.0))
    shares = {}
    for y in (100.0, 118.0, 50.0):
        capture = renderer.capture(pose, CAMERA, [parked(make_identity("car", 1, 5), 0.0, y)], colour=False)
        shares[y] = capture.boxes[0].visible_share if capture.boxes else 0.0
    assert shares[50.0] == 1.0 and shares[100.0] == 0.0


def test_one_actor_hides_another_and_depth_tells(renderer):
    renderer.set_time(NOON)
    van, person = make_identity("car", 4, 5), make_identity("person", 1, 5)
    pose = Pose.looking([-60.0, -80.0, 1.5], np.pi / 2, 0.0)
    capture = renderer.capture(pose, CAMERA, [parked(van, -60.0, -60.0), parked(person, -60.0, -50.0)], colour=False)
    share = {box.actor: box.visible_share for box in capture.boxes}
    assert share[0] == 1.0 and share.get(1, 0.0) < 0.7
    assert np.median(capture.depth_m[capture.instance == 1]) == pytest.approx(20.0, abs=1.5)


def test_a_car_that_stood_all_morning_leaves_a_cool_shadow_a_fresh_one_does_not(renderer):
    renderer.set_time(NOON)
    pose, car = from_above(-60.0, -40.0, 60.0), make_identity("car", 2, 5)
    kelvin = {}
    for name, actors in {"none": [], "hours": [parked(car, -60.0, -40.0, hours=6.0)],
                         "minute": [parked(car, -60.0, -40.0, hours=0.01)]}.items():
        capture = renderer.capture(pose, CAMERA, actors, colour=True)
        kelvin[name] = brightness_temperature(capture.radiance)
        if name == "hours":
            lit = renderer.capture(pose, CAMERA, []).colour.mean(axis=2)
            shadow = (capture.colour.mean(axis=2) < 0.5 * lit) & (cv2.dilate(capture.instance, np.ones((5, 5))) == 0)
    assert shadow.sum() > 20
    fall = {name: np.median((kelvin["none"] - kelvin[name])[shadow]) for name in ("hours", "minute")}
    assert fall["hours"] > 3.0 and abs(fall["minute"]) < 1.0


def test_dark_cars_in_the_sun_are_hotter_than_white_ones(renderer):
    cars = [make_identity("car", number, 5) for number in range(60)]
    paint = np.array([np.median(car.mesh().colour[car.mesh().material == Surface.CAR_PAINT].mean(axis=1))
                      for car in cars])
    dark, white = cars[int(paint.argmin())], cars[int(paint.argmax())]
    renderer.set_time(NOON)
    capture = renderer.capture(from_above(-60.0, -40.0, 40.0), CAMERA,
                               [parked(dark, -64.0, -40.0), parked(white, -56.0, -40.0)], colour=False)
    kelvin = brightness_temperature(capture.radiance)
    assert np.median(kelvin[capture.instance == 1]) > np.median(kelvin[capture.instance == 2]) + 8.0


def test_a_person_is_warmer_than_grass_at_night(renderer):
    renderer.set_time(NIGHT)
    capture = renderer.capture(from_above(60.0, -40.0, 40.0), CAMERA,
                               [parked(make_identity("person", 2, 5), 60.0, -40.0)], colour=False)
    kelvin = brightness_temperature(capture.radiance)
    assert kelvin[capture.instance == 1].max() > np.median(kelvin[capture.instance == 0]) + 4.0


def test_small_actors_are_mixed_with_their_background_by_the_area_they_cover(renderer):
    renderer.set_time(NIGHT)
    wide = Intrinsics.from_field_of_view(320, 256, np.radians(60.0))
    person = [parked(make_identity("person", 2, 5), 60.0, -40.0)]
    sums = []
    for supersample in (1, 5):
        picture = renderer.capture(from_above(60.0, -40.0, 90.0), wide, person, colour=False, supersample=supersample)
        empty = renderer.capture(from_above(60.0, -40.0, 90.0), wide, [], colour=False)
        sums.append((picture.radiance.astype(np.float64) - empty.radiance).sum())
    finest = renderer.capture(from_above(60.0, -40.0, 90.0), wide, person, colour=False, supersample=9)
    exact = (finest.radiance.astype(np.float64) - empty.radiance).sum()
    assert sums[1] == pytest.approx(exact, rel=0.15)


def test_beyond_the_area_lies_a_plain_without_a_class(renderer):
    renderer.set_time(NOON)
    capture = renderer.capture(Pose.looking([140.0, 0.0, 60.0], 0.0, np.radians(5.0)), CAMERA, ())
    assert (capture.semantic == NO_DATA).mean() > 0.9
    assert np.isinf(capture.depth_m[0]).all() and np.isfinite(capture.depth_m[-1]).all()
    assert np.isfinite(capture.radiance).all() and np.isfinite(capture.colour).all()


def test_the_same_picture_comes_out_again(renderer):
    actors = [parked(make_identity("car", 1, 5), -60.0, -40.0), parked(make_identity("dog", 1, 5), -55.0, -40.0)]
    renderer.set_time(NOON)
    first = renderer.capture(from_above(-58.0, -40.0), CAMERA, actors)
    renderer.set_time(NIGHT)
    renderer.capture(from_above(0.0, 0.0), CAMERA, actors[::-1])
    renderer.set_time(NOON)
    second = renderer.capture(from_above(-58.0, -40.0), CAMERA, actors)
    for name in ("radiance", "colour", "semantic", "instance", "depth_m"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.boxes == second.boxes


def test_an_even_supersampling_is_refused(renderer):
    renderer.set_time(NOON)
    with pytest.raises(RenderError, match="odd"):
        renderer.capture(from_above(0.0, 0.0), CAMERA, (), supersample=2)
