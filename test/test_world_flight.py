"""Flights: the camera's way, what the other sensors say of it, and the recording with its truth."""

import json
import multiprocessing
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from small_town import CENTRE, MAP, small_town, small_town_renderer

from thermalreid_ros.camera.geometry import Intrinsics, Pose, rotation_of
from thermalreid_ros.cli import main
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation import flight_bag
from thermalreid_ros.ros.bag import Bag
from thermalreid_ros.world import film as film_module
from thermalreid_ros.world import workers
from thermalreid_ros.world.actors import make_identity
from thermalreid_ros.world.film import claim_folder, clear_flight, in_view, solar_time
from thermalreid_ros.world.flight import (PATTERNS, FlightError, FlightPlan, Trajectory, altitude_readings,
                                          imu_readings, odometry_readings, prior_positions)
from thermalreid_ros.world.population import Density, Population
from thermalreid_ros.world.truth import (box_of, camera_angles_deg, objects_as_json, objects_from_json, true_objects)
from thermalreid_ros.world.workers import WorkerError, run_in_order

BOUNDS = (-600.0, -600.0, 600.0, 600.0)


def level(x, y):
    return np.zeros(np.shape(x), np.float32)


def flight(seed: int, **plan) -> Trajectory:
    return Trajectory(BOUNDS, level, FlightPlan(**{"duration_s": 120.0, **plan}), seed)


# --- the camera's way ------------------------------------------------------------------------------------------------

@given(st.integers(0, 1000), st.sampled_from(PATTERNS))
@settings(max_examples=25, deadline=None)
def test_flights_keep_to_area_altitude_speed_and_depression(seed, pattern):
    trajectory = flight(seed, pattern=pattern)
    t = np.arange(0, 120, 0.1)
    position, (yaw, depression, roll) = trajectory.position_m(t), trajectory.angles_rad(t)
    assert np.abs(position[:, :2]).max() < 600
    assert 60 <= trajectory.plan.altitude_m <= 130 and np.abs(position[:, 2] - trajectory.plan.altitude_m).max() < 8
    speed = np.linalg.norm(np.diff(position[:, :2], axis=0), axis=1) / 0.1
    assert 7 < np.median(speed) < 13 and speed.max() < 18
    assert np.abs(np.degrees(depression - trajectory.plan.depression_rad)).max() < 2.5
    assert np.abs(np.degrees(roll)).max() < 2.5
    turn = np.degrees(np.abs(np.angle(np.exp(1j * np.diff(yaw)))))
    assert turn.max() < 8  # within 0.1 s


def test_any_instant_can_be_asked_by_itself():
    trajectory, again = flight(5), flight(5)
    all_of_them = trajectory.rotations(np.array([1.0, 7.3, 50.0]))
    assert np.array_equal(again.rotations(np.array([7.3]))[0], all_of_them[1])
    pose = trajectory.pose(7.3)
    yaw, depression, roll = (float(v[0]) for v in trajectory.angles_rad(7.3))
    expected = Pose.looking(trajectory.position_m(7.3)[0], yaw, depression, roll)
    assert np.allclose(pose.rotation, expected.rotation, atol=1e-12)
    angles = camera_angles_deg(pose)
    assert np.allclose(np.exp(1j * np.radians(angles)), np.exp(1j * np.array([yaw, depression, roll])), atol=1e-9)


def test_the_nose_turns_into_the_wind():
    t = np.arange(0, 100, 0.5)
    calm, windy = (flight(8, pattern="survey", speed_m_s=10.0, wind_m_s=wind) for wind in (0.0, 9.0))
    assert windy.plan.wind_m_s == 5.0
    course = calm._path.heading_rad(calm._way(t), 12.0)
    crab = [np.degrees(np.angle(np.exp(1j * (tr.angles_rad(t)[0] - course)))) for tr in (calm, windy)]
    assert np.abs(crab[0]).max() < 3.5
    assert 10 < np.abs(crab[1]).max() < 60


def test_image_motion_is_that_of_the_ground():
    trajectory = flight(3, pattern="survey", depression_rad=np.pi / 2, altitude_m=100.0, speed_m_s=10.0)
    k = Intrinsics.from_field_of_view(640, 512, np.radians(45))
    motion = np.array([trajectory.image_motion_px_s(t, k) for t in np.arange(0, 60, 1.0)])
    speed = 10.0 / 100.0 * k.fx
    assert np.median(np.hypot(*motion.T)) == pytest.approx(speed, rel=0.25)


@pytest.mark.parametrize("plan, bounds, fault", [
    ({"duration_s": 0.0}, BOUNDS, "duration"), ({"altitude_m": -5.0}, BOUNDS, "altitude"),
    ({"depression_rad": 2.0}, BOUNDS, "depression"), ({"pattern": "zigzag"}, BOUNDS, "survey"),
    ({}, (0.0, 0.0, 70.0, 70.0), "too small")])
def test_impossible_flights_are_refused(plan, bounds, fault):
    with pytest.raises(FlightError, match=fault):
        Trajectory(bounds, level, FlightPlan(**{"duration_s": 10.0, **plan}), 1)


def test_flights_stay_clear_of_roofs():
    city = small_town()
    population = Population(city, 1)
    trajectory = clear_flight(population, FlightPlan(30.0, altitude_m=60.0), 2)
    top = city.mesh.vertices[:, 2].max()
    assert trajectory.position_m(np.arange(0, 30, 1.0))[:, 2].min() > min(top, 40)
    with pytest.raises(FlightError, match="fly higher"):
        clear_flight(population, FlightPlan(30.0, altitude_m=10.0), 2)


# --- the other sensors -----------------------------------------------------------------------------------------------

def test_the_imu_feels_gravity_and_turns():
    trajectory, t = flight(4, pattern="survey"), np.arange(0, 60, 0.01)
    imu = imu_readings(trajectory, t, 0.02, np.random.default_rng(1))
    assert np.median(np.linalg.norm(imu.accel_m_s2, axis=1)) == pytest.approx(9.81, abs=0.25)
    body = trajectory.rotations(t) @ np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]])
    # Up in the body: what an accelerometer at rest would say.
    felt = imu.accel_m_s2.mean(axis=0)
    assert np.allclose(felt, 9.81 * body[:, 2].mean(axis=0), atol=0.6)
    # The gyro's turns add up to the rotation.
    turned = np.eye(3)
    for rate in imu.gyro_rad_s[:200]:
        turned = turned @ cv2.Rodrigues(rate * 0.01)[0]
    rest = turned.T @ (body[0].T @ body[200])
    assert np.degrees(np.linalg.norm(cv2.Rodrigues(rest)[0])) < 1.0
    # The attitude is wrong by a few degrees, about true north.
    grid_to_north = cv2.Rodrigues(np.array([0, 0, -0.02]))[0]
    error = [np.degrees(np.linalg.norm(cv2.Rodrigues(grid_to_north @ body[k] @ imu.orientation[k].T)[0]))
             for k in range(0, len(t), 500)]
    assert 0.1 < max(error) < 8.0


def test_odometry_drifts_by_two_percent_of_the_way():
    shares = []
    for seed in range(60):
        trajectory, t = flight(seed, pattern="survey"), np.arange(0, 60, 0.05)
        odometry = odometry_readings(trajectory, t, 0.0, np.random.default_rng(seed))
        position = trajectory.position_m(t)
        k = np.argmax(np.linalg.norm(position - position[0], axis=1))  # legs come back: errors of scale cancel
        moved = position[k] - position[0]
        shares.append(np.linalg.norm((odometry.position_m[k] - moved)[:2]) / np.linalg.norm(moved))
    assert 0.013 < np.sqrt(np.mean(np.square(shares))) < 0.027
    assert np.allclose(odometry.position_m[0], 0)
    assert odometry.velocity_m_s[:, 0].mean() == pytest.approx(trajectory.plan.speed_m_s, rel=0.25)


def test_altitude_and_prior_are_as_rough_as_they_say():
    trajectory, t = flight(9, altitude_m=100.0), np.arange(0, 60, 1.0)
    heights = np.array([altitude_readings(trajectory, t, np.random.default_rng(s)).mean() for s in range(200)])
    true = trajectory.height_above_ground_m(t).mean()
    assert heights.mean() == pytest.approx(true, abs=0.6) and heights.std() == pytest.approx(2.0, rel=0.2)
    errors = np.array([(prior_positions(trajectory, t, np.random.default_rng(s)) - trajectory.position_m(t))[:, :2]
                       for s in range(200)])
    assert errors.std() == pytest.approx(300.0, rel=0.1)
    assert np.median(errors.std(axis=1)) < 30  # the same error all flight long


# --- truth -----------------------------------------------------------------------------------------------------------

def test_true_shapes_land_on_their_masks():
    """Meshes made anew from the truth of a picture cover the pixels of the instance mask."""
    city, renderer = small_town(), small_town_renderer()
    population = Population(city, 1, Density.dense())
    k = Intrinsics.from_field_of_view(640, 512, np.radians(12))  # near enough to count pixels
    overlaps = {name: [] for name in CLASS_NAMES}
    everyone = population.at(3.0)
    rng = np.random.default_rng(2)
    for name in CLASS_NAMES:
        of_class = [a for a in everyone if a.identity.class_name == name]
        for actor in (of_class[int(i)] for i in rng.choice(len(of_class), 3, replace=False)):
            pose = Pose.looking([actor.x - 60.0, actor.y, actor.z + 70.0], 0.0, np.arctan2(70.0, 60.0))
            actors = in_view(population, pose, k, 3.0)
            capture = renderer.capture(pose, k, actors, colour=False, supersample=1)
            for item in true_objects(capture, actors, city.grid):
                x_min, y_min, x_max, y_max = item.whole_box
                if item.visible_share < 0.995 or min(x_min, y_min) < 1 or x_max > 639 or y_max > 511:
                    continue
                placed = actors[item.instance - 1]
                who = make_identity(item.class_name, int(item.identity.rpartition("-")[2]), population.seed)
                mesh = who.mesh(item.phase, item.moving).placed(placed.x, placed.y, placed.z, item.yaw_rad)
                left, top, right, bottom = (int(v) for v in item.whole_box)
                pixels = k.project(pose.to_camera(mesh.vertices)) - (left - 2, top - 2)
                fine = np.zeros((16 * (bottom - top + 4), 16 * (right - left + 4)), np.uint8)
                for face in mesh.faces:
                    cv2.fillConvexPoly(fine, np.round((16 * pixels[face] - 0.5) * 16).astype(np.int32), 1, shift=4)
                drawn, own = fine[8::16, 8::16] > 0, capture.instance == item.instance
                mask = own[top - 2:bottom + 2, left - 2:right + 2]
                if mask.shape == drawn.shape:
                    overlaps[item.class_name].append((mask & drawn).sum() / (mask | drawn).sum())
                centre, size = box_of(placed)
                assert np.allclose(centre, (item.x, item.y, item.z)) and np.allclose(size, item.size_m)
                low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
                assert low[2] == pytest.approx(item.z - 0.5 * size[2], abs=0.02) and (low[:2] < centre[:2]).all() \
                    and (high[:2] > centre[:2]).all()
                seen = cv2.boundingRect(own.astype(np.uint8))
                assert (seen[0], seen[1], seen[0] + seen[2], seen[1] + seen[3]) == item.box == item.whole_box
    assert all(len(overlaps[name]) > 2 for name in CLASS_NAMES)
    for name in CLASS_NAMES:
        assert min(overlaps[name]) >= 0.9, name


def test_truth_survives_json():
    city, renderer = small_town(), small_town_renderer()
    k = Intrinsics.from_field_of_view(160, 128, np.radians(40))
    pose = Pose.looking([0.0, 0.0, 90.0], 0.0, np.pi / 2)
    actors = in_view(Population(city, 1, Density.dense()), pose, k, 3.0)
    objects = true_objects(renderer.capture(pose, k, actors, colour=False, supersample=1), actors, city.grid)
    assert objects and objects_from_json(objects_as_json(objects)) == objects


def test_those_in_view_are_all_that_can_be_seen():
    city, renderer = small_town(), small_town_renderer()
    population = Population(city, 1, Density.dense())
    k = Intrinsics.from_field_of_view(160, 128, np.radians(40))
    for yaw, depression in ((0.5, 0.6), (2.0, 0.9), (4.0, 0.7)):
        pose = Pose.looking([10.0, -20.0, 80.0], yaw, depression)
        some, everyone = in_view(population, pose, k, 3.0), population.at(3.0)
        seen = [{group[box.actor].identity.name for box in renderer.capture(
            pose, k, group, colour=False, supersample=1).boxes} for group in (some, everyone)]
        assert len(some) < len(everyone) and seen[0] == seen[1] and seen[0]


# --- work shared among processes -------------------------------------------------------------------------------------

class Squares:
    def __init__(self, fault: int):
        self.fault = fault

    def __call__(self, number: int) -> int:
        if number == self.fault:
            raise ThermalReidError(f"{number} is no number")
        if number == -1:
            import os

            os._exit(9)
        time.sleep(0.02 * (number % 3))
        return number ** 2


def test_results_come_in_order_whatever_the_number_of_workers():
    jobs = list(range(12))
    assert list(run_in_order(Squares, (99,), jobs, 1)) == list(run_in_order(Squares, (99,), jobs, 3)) == [
        n * n for n in jobs]
    assert list(run_in_order(Squares, (99,), [], 2)) == []


def test_faults_of_workers_are_told():
    with pytest.raises(ThermalReidError, match="3 is no number"):
        list(run_in_order(Squares, (3,), list(range(6)), 2))
    with pytest.raises(WorkerError, match="killed"):
        list(run_in_order(Squares, (99,), [1, -1, 2, 3], 2))


def test_workers_end_quietly_where_who_asked_was_killed(monkeypatch):
    monkeypatch.setattr(workers.signal, "signal", lambda *_: None)  # they run in this process here
    for fault in (None, ThermalReidError("no number"), ValueError("a defect")):
        ours, theirs = multiprocessing.Pipe()

        def work(number: int) -> int:
            ours.close()
            if fault is not None:
                raise fault
            return number

        ours.send(3)
        workers._serve(theirs, lambda: work, ())
        theirs.close()


# --- the recording ---------------------------------------------------------------------------------------------------

FLY = ["world", "fly", "--map", str(MAP), "--seed", "3", "--seconds", "1.2", "--rate", "5", "--size", "320",
       "--centre", f"{CENTRE[0]},{CENTRE[1]}", "--image-size", "128x96", "--dense", "--depth", "--agc", "--probes", "1",
       "--altitude", "70", "--depression", "60"]


@pytest.fixture(scope="module")
def flown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flight")
    assert main([*FLY, "--out", str(folder / "bag"), "--workers", "1", "--json", str(folder / "figures.json")]) == 0
    return folder


def test_a_flight_is_recorded_with_truth_and_probes(flown):
    figures = json.loads((flown / "figures.json").read_text())
    assert figures["frames"] == 6 and figures["identities"] > 3 and figures["fps"] > 0
    with Bag(flown / "bag") as bag:
        assert {"/thermal/image_raw", "/thermal/image_agc", "/thermal/camera_info", "/imu/data", "/odom", "/prior/fix",
                "/altitude", "/truth/pose", "/truth/fix", "/truth/semantics", "/truth/instances", "/truth/depth",
                "/truth/objects", "/truth/detections", "/truth/ignored", "/truth/target"} == set(bag.topics)
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages()]
        custom = bag.custom
    assert [s for _, s, _ in messages] == sorted(s for _, s, _ in messages)
    assert custom["units"] == "centikelvin" and "ODbL" in custom["attribution"] and "/" not in custom["command"]
    assert "--compact 0" not in custom["command"]
    of = {topic: [m for t, _, m in messages if t == topic] for topic in {t for t, _, _ in messages}}
    raw = of["/thermal/image_raw"]
    assert len(raw) == 6 and raw[0].encoding == "mono16" and (raw[0].width, raw[0].height) == (128, 96)
    kelvin = raw[0].data.view(np.uint16) / 100.0
    assert 270 < np.median(kelvin) < 340
    k = Intrinsics.from_k(128, 96, of["/thermal/camera_info"][0].k)
    assert k.fx == pytest.approx(Intrinsics.from_field_of_view(128, 96, np.radians(45)).fx)
    assert len(of["/imu/data"]) == 101 and len(of["/odom"]) == 21  # 0 to 1 s
    names = {o.identity for m in of["/truth/objects"] for o in m.objects}
    probe = json.loads((flown / "probes" / "probe.json").read_text())
    assert probe["identity"] == figures["target"] in names and probe["class_name"] in CLASS_NAMES
    assert sum(len(m.detections) for m in of["/truth/target"]) == figures["target_frames"] > 0
    picture = cv2.imread(str(flown / "probes" / probe["pictures"][0]["file"]))
    assert picture.shape == (360, 480, 3) and picture.std() > 10
    assert not (flown / "bag.part").exists()


def test_recorded_truth_is_consistent(flown):
    """Objects at their places in the map frame, through the recorded pose and camera, land on their masks."""
    with Bag(flown / "bag") as bag:
        of: dict[str, list] = {}
        for m in bag.messages():
            of.setdefault(m.topic, []).append(bag.decode(m))
    k = Intrinsics.from_k(128, 96, of["/thermal/camera_info"][0].k)
    checked = 0
    for pose_message, objects, instances, depth, fix in zip(
            of["/truth/pose"], of["/truth/objects"], of["/truth/instances"], of["/truth/depth"], of["/truth/fix"]):
        p, q = pose_message.pose.position, pose_message.pose.orientation
        pose = Pose(np.array([p.x, p.y, p.z]), rotation_of(np.array([q.x, q.y, q.z, q.w])))
        mask, depth = instances.data.view(np.uint16).reshape(96, 128), depth.data.view(np.float32).reshape(96, 128)
        grid = small_town().grid
        x, y = grid.from_geographic(fix.latitude, fix.longitude)
        assert np.allclose((x, y), (p.x, p.y), atol=0.01)
        for o in objects.objects:
            x, y = grid.from_geographic(o.latitude, o.longitude)
            assert np.allclose((x, y), (o.x, o.y), atol=0.01)
            if o.visible_share < 0.99 or min(o.x_min, o.y_min) < 1 or o.x_max > 127 or o.y_max > 95:
                continue
            own = mask == o.instance
            assert own.sum() == o.pixels
            camera = pose.to_camera(np.array([[o.x, o.y, o.z]]))
            u, v = k.project(camera)[0]
            margin = 2.0
            assert o.x_min - margin < u < o.x_max + margin and o.y_min - margin < v < o.y_max + margin
            assert np.median(depth[own]) == pytest.approx(camera[0, 2], abs=0.6 * max(o.length, o.height) + 0.1)
            checked += 1
    assert checked > 10


def test_other_readers_open_the_recording(flown):
    with open(flown / "bag" / "bag.mcap", "rb") as file:
        counts = {}
        for _, channel, _ in make_reader(file).iter_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
    with AnyReader([flown / "bag"]) as reader:
        assert {c.topic: c.msgcount for c in reader.connections} == counts
        connection = next(c for c in reader.connections if c.topic == "/truth/objects")
        _, _, data = next(reader.messages([connection]))
        assert reader.deserialize(data, connection.msgtype).objects


def test_two_workers_write_the_same_bytes_and_interrupted_flights_go_on(flown, tmp_path, monkeypatch, capsys):
    command = [*FLY, "--out", str(tmp_path / "bag"), "--workers", "2"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(flight_bag, "record_flight", interrupt)
        assert main(command) == 130
    frames = sorted((tmp_path / "bag.part").glob("*.npz"))
    assert len(frames) == 6 and not (tmp_path / "bag").exists()
    frames[2].unlink()
    kept = {file.name: file.stat().st_mtime_ns for file in frames if file.exists()}

    assert main([*command, "--fov", "30"]) == 2
    assert "fov" in (line := capsys.readouterr().err.strip().splitlines()[-1]) and "bag.part" in line

    touched = {}
    original = film_module.read_frame
    monkeypatch.setattr(flight_bag, "read_frame", lambda folder, number: (
        touched.update({f.name: f.stat().st_mtime_ns for f in folder.glob("*.npz")}), original(folder, number))[1])
    assert main(command) == 0
    assert {name: touched[name] for name in kept} == kept  # only the missing frame was rendered
    for name in ("bag/bag.mcap", "probes/probe.json", "probes/view_1.png"):
        assert (tmp_path / name).read_bytes() == (flown / name).read_bytes(), name


def test_faults_of_the_user_are_one_line(flown, tmp_path, capsys):
    alone = tmp_path / "alone.tif"
    alone.write_bytes(MAP.read_bytes())
    broken = tmp_path / "broken.tif"
    broken.write_text("no map")
    out = ["--out", str(tmp_path / "bag")]

    def fault(*arguments) -> str:
        try:
            assert main(list(arguments)) == 2
        except SystemExit as end:
            assert end.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1, lines
        return lines[0]

    def other(**replaced) -> list[str]:
        arguments = [*FLY]
        for name, value in replaced.items():
            if f"--{name}" in arguments:
                arguments[arguments.index(f"--{name}") + 1] = str(value)
            else:
                arguments += [f"--{name}", str(value)]
        return arguments

    assert "bag" in fault(*FLY, "--out", str(flown / "bag")) and (flown / "bag" / "bag.mcap").exists()
    assert "probes" in fault(*FLY, "--out", str(flown / "other"))
    assert "thermalreid map build" in fault(*other(map=alone), *out)
    assert "broken.tif" in fault(*other(map=broken), *out)
    assert "missing.tif" in fault(*other(map=tmp_path / "missing.tif"), *out)
    assert "300" in fault(*other(size=100), *out)
    assert "centre" in fault(*other(centre="10,10"), *out)
    assert "car" in fault(*FLY, *out, "--target-class", "boat")
    assert "date" in fault(*FLY, *out, "--date", "yesterday")
    assert "hour" in fault(*FLY, *out, "--hour", "25")
    assert "higher" in fault(*other(altitude=8), *out)
    assert not list(tmp_path.glob("bag*"))


def test_solar_time_is_local():
    assert solar_time("2025-03-20", 12.0, 15.0).isoformat() == "2025-03-20T11:00:00+00:00"
    with pytest.raises(ThermalReidError, match="2025-07-15"):
        solar_time("15.7.2025", 12.0, 0.0)
    for year in ("0001", "1970", "2038", "9999"):  # of which a stamp holds a part at most
        with pytest.raises(ThermalReidError, match="1971 to 2037"):
            solar_time(f"{year}-01-01", 0.0, 179.0)
    for date, hour, longitude_deg in (("1971-01-01", 0.0, 180.0), ("2037-12-31", 24.0, -180.0)):
        assert 0 < solar_time(date, hour, longitude_deg).timestamp() < 2**31


def test_probes_of_another_flight_are_left_alone(flown, tmp_path, monkeypatch, capsys):
    """One flight is interrupted, another flown into the same folder, and the first goes on."""
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    command = [*FLY, "--out", str(tmp_path / "first")]
    with monkeypatch.context() as patched:
        patched.setattr(flight_bag, "record_flight", interrupt)
        assert main(command) == 130
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "probe.json").write_text("another's")
    assert main(command) == 2 and "probes: exists already" in capsys.readouterr().err
    assert (tmp_path / "probes" / "probe.json").read_text() == "another's" and (tmp_path / "first.part").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ThermalReidError, match="no unfinished work"):
        claim_folder(tmp_path, {"seed": 1})
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ThermalReidError, match="no unfinished work"):
        claim_folder(tmp_path, {"seed": 1})


def test_a_full_disk_at_the_begin_does_not_keep_the_command_from_being_repeated(tmp_path, monkeypatch):
    def full(path, content):
        raise ThermalReidError(f"{path}: cannot be written (No space left on device)")

    folder = tmp_path / "flight.part"
    with monkeypatch.context() as patched, pytest.raises(ThermalReidError, match="No space"):
        patched.setattr("thermalreid_ros.world.film.write_atomically", full)
        claim_folder(folder, {"seed": 1})
    claim_folder(folder, {"seed": 1})
    with pytest.raises(ThermalReidError, match="other arguments"):
        claim_folder(folder, {"seed": 2})
