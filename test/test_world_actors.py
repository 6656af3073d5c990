"""Actors: closed outward meshes of true size on the ground, each identity its own, heat that follows its causes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.world.actors import CLASSES, ActorError, HeatState, make_identity, typical_state
from thermalreid_ros.world.actors.parts import (bend, box, cell_labels, ellipsoid, frames, limb, loft, ovals, torus,
                                                tube)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

SEED = 11
classes = pytest.mark.parametrize("class_name", CLASSES)


def pieces(mesh: Mesh) -> np.ndarray:
    """The number of the connected piece that each face belongs to."""
    label = np.arange(len(mesh.vertices))
    while True:
        before = label.copy()
        np.minimum.at(label, mesh.faces, label[mesh.faces].min(axis=1)[:, None])
        if np.array_equal(before, label):
            return np.unique(label[mesh.faces[:, 0]], return_inverse=True)[1]


def volumes(mesh: Mesh) -> np.ndarray:
    """Signed volume of each piece, by the divergence theorem."""
    piece = pieces(mesh)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    centre = np.stack([np.bincount(piece, corners.mean(axis=1)[:, i]) for i in range(3)], axis=1)
    centre /= np.bincount(piece)[:, None]
    a, b, c = (corners[:, i] - centre[piece] for i in range(3))
    return np.bincount(piece, np.einsum("fi,fi->f", a, np.cross(b, c)) / 6)


def volume(shape: tuple[np.ndarray, np.ndarray]) -> float:
    a, b, c = (shape[0][shape[1][:, i]] for i in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def test_shapes_have_the_volume_of_their_formula():
    assert volume(box((1, 2, 3), (2, 4, 6))) == pytest.approx(6.0)
    assert volume(ellipsoid((5, 0, 1), (1, 2, 3), 40, 80)) == pytest.approx(4 / 3 * np.pi * 6, rel=0.01)
    assert volume(tube([(0, 0, 0), (0, 3, 0)], 0.5, 60)) == pytest.approx(0.25 * np.pi * 3, rel=0.01)
    assert volume(torus(1.0, 0.1, 80, 40)) == pytest.approx(2 * np.pi**2 * 0.9 * 0.01, rel=0.01)
    assert volume(loft(ovals((0, 1), (1, 1), (2, 2), 64))) == pytest.approx(2 * np.pi, rel=0.01)
    assert volume(limb(1.0, 0.1, 0.1, 60)) == pytest.approx(np.pi * 0.01, rel=0.08)


def test_loft_labels_follow_its_faces():
    rings = ovals((0, 1, 2), (1, 1, 1), (1, 1, 1), 4)
    vertices, faces = loft(rings)
    label = cell_labels([[0, 0, 0, 0], [1, 1, 1, 1]], start=2, end=3)
    height = vertices[faces].mean(axis=1)[:, 2]
    assert len(label) == len(faces)
    assert (height[label == 0] < 1).all() and (height[label == 1] > 1).all()
    assert np.allclose(height[label == 2], 0) and np.allclose(height[label == 3], 2)


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: v[0] ** 2 + v[2] ** 2 > 0.01))
def test_frames_aim_and_stay_rotations(direction):
    rotation = frames(np.array(direction))
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(rotation) > 0.99
    assert np.allclose(rotation @ (0, 0, -1), np.array(direction) / np.linalg.norm(direction))


@given(st.floats(0.05, 0.85), st.floats(-3, 3))
def test_a_bent_limb_keeps_its_lengths(distance, angle):
    tip = distance * np.array([np.cos(angle), 0.1, np.sin(angle)])
    joint = bend(np.zeros(3), tip, 0.45, 0.42, (0.3, 1.0, 0.2))
    assert np.linalg.norm(joint) == pytest.approx(0.45, abs=1e-6)
    if np.linalg.norm(tip) < 0.86:
        assert np.linalg.norm(tip - joint) == pytest.approx(0.42, abs=1e-6)


def test_classes_are_those_of_the_detector():
    assert CLASSES == CLASS_NAMES


@classes
def test_meshes_are_closed_outward_and_well_formed(class_name):
    for number in range(16):
        identity = make_identity(class_name, number, SEED)
        for moving in (False, True):
            mesh = identity.mesh(number / 16, moving)
            edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
            directed = np.unique(edges, axis=0)
            assert len(directed) == len(edges), "an edge is used twice in one direction"
            assert np.array_equal(directed, np.unique(directed[:, ::-1], axis=0)), "the surface is open"
            assert volumes(mesh).min() > 0
            assert (mesh.vertices.dtype, mesh.faces.dtype, mesh.material.dtype, mesh.colour.dtype, mesh.zone.dtype) == (
                np.float32, np.int32, np.uint8, np.float32, np.uint8)
            assert np.isfinite(mesh.vertices).all()
            assert mesh.colour.shape == (len(mesh.faces), 3) and 0 <= mesh.colour.min() <= mesh.colour.max() <= 1
            assert set(mesh.material.tolist()) <= set(Surface) and mesh.zone.max() < len(identity.zones)


@classes
@settings(max_examples=30, deadline=None)
@given(number=st.integers(0, 200), phase=st.floats(0, 1), moving=st.booleans())
def test_actors_stand_on_the_ground_about_the_origin(class_name, number, phase, moving):
    vertices = make_identity(class_name, number, SEED).mesh(phase, moving).vertices
    assert abs(vertices[:, 2].min()) < 0.002
    assert (np.abs(vertices[:, :2].mean(axis=0)) < 0.3 * np.ptp(vertices[:, :2], axis=0) + 0.05).all()


def test_cars_measure_what_their_papers_say():
    styles = set()
    for number in range(150):
        car = make_identity("car", number, SEED)
        mesh = car.mesh()
        length, width, height = np.ptp(mesh.vertices, axis=0)
        tyres = np.unique(mesh.faces[mesh.material == Surface.RUBBER])
        assert length == pytest.approx(car.length_m, abs=0.01) and 3.5 <= length <= 5.6
        assert np.ptp(mesh.vertices[tyres, 1]) == pytest.approx(car.width_m, abs=0.03)
        assert car.width_m < width < car.width_m + 0.32, "mirrors"
        if not car.roof_load:
            assert height == pytest.approx(car.height_m, abs=0.01)
        assert car.size_m == pytest.approx((length, width, height))
        assert 500 <= len(mesh.faces) <= 1100
        styles.add(car.style)
    assert styles == {"hatchback", "saloon", "estate car", "SUV", "people carrier", "van", "pickup", "coupé"}


def test_persons_are_as_tall_as_they_say():
    for number in range(80):
        person = make_identity("person", number, SEED)
        if not person.headwear and person.hair_style != "bun":
            assert person.size_m[2] == pytest.approx(person.stature_m, abs=0.015)
        assert 1.1 <= person.stature_m <= 1.96
        resting = np.ptp(person.mesh(0.95).vertices, axis=0)[2]
        if person.bottom in ("skirt", "dress") or person.top == "coat":
            assert resting > 0.97 * person.stature_m
        else:
            assert 0.45 * person.stature_m < resting < 0.72 * person.size_m[2]


def test_walking_is_smooth_and_comes_round():
    person = make_identity("person", 3, SEED)
    phases = np.linspace(0, 1, 61)
    vertices = np.stack([person.mesh(phase, moving=True).vertices for phase in phases])
    assert np.abs(vertices[0] - vertices[-1]).max() < 1e-4
    assert np.linalg.norm(np.diff(vertices, axis=0), axis=2).max() < 0.12 * person.stature_m
    stride = np.ptp(vertices[..., 0], axis=1)
    assert stride.max() > 0.35 * person.stature_m > stride.min()


def test_riders_hold_the_bars_and_turn_the_pedals():
    hands_zone, shoes_zone = (make_identity("bicycle", 0, SEED).zones.index(name) for name in ("hands", "shoes"))
    for number in range(20):
        bicycle = make_identity("bicycle", number, SEED)
        alone = bicycle.mesh(0.0)
        heights = []
        for phase in (0.0, 0.25, 0.5, 0.75):
            mesh = bicycle.mesh(phase, moving=True)
            corners = mesh.vertices[mesh.faces]
            hands = corners[mesh.zone == hands_zone].reshape(-1, 3)
            bars = alone.vertices[(alone.vertices[:, 0] > 0) & (alone.vertices[:, 2] > 0.7)]
            gap = np.linalg.norm(hands[:, None] - bars[None], axis=2).min()
            assert gap < 0.08, f"{bicycle.name}: hands {gap:.2f} m from the bars"
            shoes = corners[mesh.zone == shoes_zone].reshape(-1, 3)
            heights.append(shoes[shoes[:, 1] > 0, 2].mean() - shoes[shoes[:, 1] < 0, 2].mean())
        assert heights[1] == pytest.approx(-0.34, abs=0.06) and heights[3] == pytest.approx(0.34, abs=0.06)
        ridden, parked = np.ptp(bicycle.mesh(0.0, True).vertices, axis=0), np.asarray(bicycle.size_m)
        assert 1.4 < parked[0] < 2.0 and 0.35 < parked[1] < 0.85 and 0.8 < parked[2] < 1.35
        assert 1.25 < ridden[2] < 2.1


def test_dogs_postures_differ_in_height():
    for number in range(40):
        dog = make_identity("dog", number, SEED)
        standing, sitting, lying = (dog.mesh(phase) for phase in (0.1, 0.7, 0.9))
        back = standing.vertices[np.unique(standing.faces[standing.zone == dog.zones.index("coat")])]
        withers = back[np.abs(back[:, 0] - 0.22 * dog.trunk_m) < 0.05 * dog.trunk_m, 2].max()
        assert withers == pytest.approx(dog.withers_m, abs=0.12 * dog.withers_m)
        assert np.ptp(lying.vertices[:, 2]) < 0.85 * np.ptp(standing.vertices[:, 2])
        assert np.ptp(sitting.vertices[:, 0]) < np.ptp(standing.vertices[:, 0])


@classes
def test_identities_are_repeatable_and_their_own(class_name):
    again = make_identity.__wrapped__(class_name, 17, SEED)
    identity = make_identity(class_name, 17, SEED)
    assert again is not identity and again == identity and again.description == identity.description
    for field in ("vertices", "faces", "material", "colour", "zone"):
        assert np.array_equal(getattr(again.mesh(0.3, True), field), getattr(identity.mesh(0.3, True), field))
    assert make_identity(class_name, 17, SEED + 1) != identity
    looks = {(identity.size_m, identity.mesh().vertices.tobytes(), identity.mesh().colour.tobytes())
             for identity in (make_identity.__wrapped__(class_name, number, SEED) for number in range(300))}
    assert len(looks) == 300
    assert identity.name == f"{class_name}-0017"


@classes
@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, 60), draw=st.integers(0, 1000), moving=st.booleans(), air_k=st.floats(245, 318))
def test_heat_tables_are_physical(class_name, number, draw, moving, air_k):
    identity = make_identity(class_name, number, SEED)
    state = typical_state(identity, np.random.default_rng(draw), moving)
    assert state == typical_state(identity, np.random.default_rng(draw), moving)
    temperature, conductance = identity.heat(state, air_k)
    assert temperature.dtype == conductance.dtype == np.float32
    assert temperature.shape == conductance.shape == (len(identity.zones),)
    assert np.isnan(temperature[0]) and np.isnan(conductance[0])
    assert np.isfinite(temperature[1:]).all() and (temperature[1:] > 240).all() and (temperature[1:] < 400).all()
    assert (conductance[1:] > 0.2).all() and (conductance[1:] < 130).all()


def zone(identity, name, state=None, air_k=283.0) -> tuple[float, float]:
    temperature, conductance = identity.heat(state or HeatState(), air_k)
    at = identity.zones.index(name)
    return float(temperature[at]), float(conductance[at])


def test_engines_cool_over_an_hour_or_more():
    car = make_identity("car", 5, SEED)
    excess = [zone(car, "bonnet", HeatState(running_s=3600, parked_s=hours * 3600))[0] - 283.0 for hours in (0, 1, 2)]
    assert 50 < excess[0] < 65
    assert excess[1] / excess[0] == pytest.approx(excess[2] / excess[1], rel=1e-3), "exponential"
    hours = -1 / np.log(excess[1] / excess[0])
    assert 0.9 < hours < 1.6
    assert zone(car, "bonnet", HeatState(parked_s=np.inf))[0] == 283.0
    assert zone(car, "tyre", HeatState(running=True))[0] > zone(car, "tyre")[0] + 10
    cold_start = HeatState(running=True, running_s=60)
    assert 283 < zone(car, "bonnet", cold_start)[0] < 295


def test_cabins_warm_in_the_sun_and_are_kept_when_running():
    car = make_identity("car", 5, SEED)
    parked = HeatState(solar_w_m2=900.0)
    assert zone(car, "glass", parked, 300.0)[0] - 300.0 == pytest.approx(25.2, abs=0.1)
    assert zone(car, "glass", replace(parked, running=True), 305.0)[0] < 305.0
    assert zone(car, "glass", HeatState(running=True), 268.0)[0] > 285.0


def test_clothes_insulate_and_cold_closes_vessels():
    person = make_identity("person", 2, SEED)
    thin, thick = replace(person, top_clo=0.4), replace(person, top_clo=2.4)
    assert 1 / zone(thick, "top")[1] - 1 / zone(thin, "top")[1] == pytest.approx(2.0 * 0.155, rel=1e-5)
    assert zone(person, "hands", air_k=303.0)[1] > 2 * zone(person, "hands", air_k=275.0)[1]
    assert zone(person, "face", air_k=275.0)[1] > 2 * zone(person, "limbs", air_k=275.0)[1]
    assert zone(person, "limbs", HeatState(activity_met=6.0))[1] > zone(person, "limbs")[1]
    bald, hairy = replace(person, hair_style="bald", headwear=""), replace(person, hair_style="long", headwear="")
    assert zone(bald, "hair")[1] > zone(hairy, "hair")[1] > zone(replace(hairy, headwear="beanie"), "headwear")[1]


def test_garments_show_as_their_material():
    jacket = next(p for p in (make_identity("person", n, SEED) for n in range(200)) if p.top == "down jacket")
    shorts = next(p for p in (make_identity("person", n, SEED) for n in range(200)) if p.bottom == "shorts")
    mesh = jacket.mesh()
    assert (mesh.material[mesh.zone == jacket.zones.index("top")] == Surface.JACKET).all()
    mesh = shorts.mesh()
    bare = (mesh.material == Surface.SKIN) & (mesh.zone == shorts.zones.index("limbs"))
    assert mesh.vertices[mesh.faces[bare], 2].min() < 0.15 * shorts.stature_m, "shins are bare"


def test_long_coats_keep_dogs_cool_outside():
    dog = make_identity("dog", 4, SEED)
    short, long = replace(dog, hair_mm=6.0), replace(dog, hair_mm=50.0)
    assert zone(short, "coat")[1] > 2 * zone(long, "coat")[1]
    assert zone(long, "muzzle")[1] > 2 * zone(long, "coat")[1]
    assert 0.8 < zone(long, "coat")[1] < 3.0


def test_a_bicycle_carries_the_heat_of_its_rider():
    bicycle = make_identity("bicycle", 8, SEED)
    state = HeatState(running=True, activity_met=6.0)
    ridden, rider = bicycle.heat(state, 283.0), bicycle.rider.heat(state, 283.0)
    count = len(bicycle.rider.zones)
    for mine, theirs in zip(ridden, rider):
        assert np.array_equal(mine[:count], theirs, equal_nan=True)
    assert zone(bicycle, "saddle", HeatState(parked_s=60))[0] > zone(bicycle, "saddle", HeatState(parked_s=3600))[0] + 3
    assert len(bicycle.mesh(0.2, True).faces) == len(bicycle.mesh(0.2).faces) + len(bicycle.rider.mesh().faces)


@pytest.mark.parametrize("arguments, words", [(("horse", 0, 0), "horse"), (("car", -1, 0), "negative"),
                                              (("dog", 1, -2), "negative")])
def test_wrong_identities_are_refused(arguments, words):
    with pytest.raises(ActorError, match=words):
        make_identity(*arguments)
