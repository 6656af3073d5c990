"""Bicycles, parked or ridden. A ridden one carries its rider, whose warmth is most of what a thermal camera sees.

Every identity has a rider of its own, whose legs the frame fits; `mesh(phase, moving=True)` shows both, and the class
of the pair stays 'bicycle' with a box around both (as HIT-UAV labels them). Geometry after common frames: wheels of
622 mm and 559 mm rims (ISO 5775) or 20 inches, wheelbases of 0.98 to 1.15 m, saddle height 0.88 of the inseam.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from thermalreid_ros.world.actors.identity import HeatState, Identity, heat_table, pick, shade
from thermalreid_ros.world.actors.parts import (Coat, Colour, Rig, bend, box, grey, loft, moved, ovals, painted, torus,
                                                tube)
from thermalreid_ros.world.actors.person import (ANKLE, FOREARM_LENGTH, HIP_HALF, SHIN_LENGTH, THIGH_LENGTH,
                                                 UPPER_ARM_LENGTH, Person)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

FRAME, REAR_WHEEL, FRONT_WHEEL, CRANK, STAND = range(5)
CRANK_M = 0.17

#: Weight, outer radius of the wheels, radius of the tyre, wheelbase, bottom bracket height, trunk lean that the bars
#: are set for (rad), handlebar width.
_STYLES = {
    "city bicycle": (0.45, 0.345, 0.020, 1.08, 0.29, 0.25, 0.60),
    "road bicycle": (0.15, 0.335, 0.013, 0.99, 0.27, 0.85, 0.42),
    "mountain bicycle": (0.20, 0.350, 0.028, 1.11, 0.32, 0.55, 0.72),
    "trekking bicycle": (0.15, 0.345, 0.019, 1.06, 0.29, 0.42, 0.60),
    "small-wheeled bicycle": (0.05, 0.255, 0.022, 1.02, 0.29, 0.30, 0.56),
}

_FRAMES = {"black": (0.3, (0.015, 0.015, 0.015)), "white": (0.1, (0.7, 0.7, 0.7)), "grey": (0.13, (0.16, 0.16, 0.17)),
           "silver": (0.1, (0.45, 0.45, 0.45)), "red": (0.1, (0.42, 0.03, 0.03)), "blue": (0.12, (0.04, 0.14, 0.42)),
           "green": (0.07, (0.05, 0.22, 0.09)), "yellow": (0.03, (0.65, 0.45, 0.04)),
           "orange": (0.03, (0.6, 0.18, 0.03)), "turquoise": (0.02, (0.1, 0.45, 0.45))}


@dataclass(frozen=True)
class Bicycle(Identity):
    class_name: ClassVar[str] = "bicycle"
    #: The rider's zones, in the order of Person.zones, then those of the bicycle.
    zones: ClassVar[tuple[str, ...]] = (*Person.zones, "tyre", "saddle")

    style: str
    rider: Person
    wheel_radius_m: float
    tyre_radius_m: float
    wheelbase_m: float
    bracket_height_m: float
    handlebar_width_m: float
    lean_rad: float
    step_through: bool
    colour: str
    paint: Colour
    bare_frame: bool
    rim: Colour
    saddle: Colour
    mudguards: str  # '', 'painted', 'black'
    kickstand: bool
    rack: bool
    load: str  # '', 'basket', 'panniers', 'child seat', 'crate'
    load_colour: Colour

    @classmethod
    def drawn(cls, number: int, seed: int, rng: np.random.Generator) -> Bicycle:
        style = pick(rng, {name: values[0] for name, values in _STYLES.items()})
        _, wheel, tyre, wheelbase, bracket, lean, bar = _STYLES[style]
        rider = Person.drawn(number, seed, rng, rider=True)
        size = (rider.stature_m - 1.72) * 0.22
        city = style in ("city bicycle", "small-wheeled bicycle")
        colour = pick(rng, {name: weight for name, (weight, _) in _FRAMES.items()})
        guarded = 0.95 if city else 0.85 if style == "trekking bicycle" else 0.1
        guards = pick(rng, {"": 1 - guarded, "painted": 0.65 * guarded, "black": 0.35 * guarded})
        rack = rng.random() < (0.8 if city or style == "trekking bicycle" else 0.05)
        load = pick(rng, {"": 0.55, "basket": 0.3 * city, "panniers": 0.2 * rack, "child seat": 0.06 * rack,
                          "crate": 0.06 * rack})
        return cls(
            number, seed, style, rider, wheel + float(rng.normal(0, 0.003)), tyre * float(rng.uniform(0.9, 1.15)),
            wheelbase + size + float(rng.normal(0, 0.012)), bracket + float(rng.normal(0, 0.005)),
            bar * float(rng.uniform(0.94, 1.06)), lean + float(rng.normal(0, 0.05)),
            city and rng.random() < (0.75 if rider.kind == "woman" else 0.3), colour,
            shade(rng, _FRAMES[colour][1], 0.15), colour == "silver" and rng.random() < 0.5,
            grey(float(rng.choice([0.5, 0.45, 0.03], p=[0.5, 0.2, 0.3]))),
            shade(rng, (0.12, 0.06, 0.03) if rng.random() < 0.2 else grey(0.02), 0.2), guards,
            style not in ("road bicycle", "mountain bicycle"), rack, load,
            shade(rng, pick(rng, {(0.25, 0.15, 0.07): 0.4, grey(0.03): 0.35, (0.3, 0.05, 0.04): 0.15,
                                  (0.04, 0.1, 0.3): 0.1}), 0.2))

    @property
    def description(self) -> str:
        load = {"": "", "basket": " with a basket", "panniers": " with panniers", "child seat": " with a child seat",
                "crate": " with a crate"}[self.load]
        return f"{self.colour} {self.style}{load}; its rider: {self.rider.description}"

    # Places in the plane of the frame, x forward, z up; origin below the middle of the wheelbase.

    @cached_property
    def _points(self) -> dict[str, np.ndarray]:
        r, base, h = self.wheel_radius_m, self.wheelbase_m, self.rider.stature_m
        rear, front = np.array([-0.5 * base, 0, r]), np.array([0.5 * base, 0, r])
        bracket = rear + (0.43 if base > 1.03 else 0.41, 0, self.bracket_height_m - r)
        # The hip joint stands above the pedal at its lowest by a nearly stretched leg.
        seat_angle = np.radians(72.5)
        hip_above = 0.955 * (THIGH_LENGTH + SHIN_LENGTH) * h + ANKLE * h - CRANK_M + 0.02
        hips = bracket + hip_above * np.array([-np.cos(seat_angle), 0, np.sin(seat_angle)])
        saddle = hips - (0.0, 0, 0.058 * h * self.rider.girth)
        seat_top = bracket + (saddle - bracket) * 0.72
        low_head = front + np.array([-0.02 - 0.11 * (r / 0.345), 0, r + 0.065])
        slope = np.array([-np.cos(np.radians(72)), 0, np.sin(np.radians(72))])
        high_head = low_head + slope * max(0.10, saddle[2] - low_head[2] - (0.08 if self.lean_rad > 0.7 else 0.02))
        upright = 0.08 if self.lean_rad < 0.4 else 0.03 if self.lean_rad < 0.7 else -0.02
        stem = high_head + (0.02 if self.lean_rad < 0.4 else 0.08, 0, upright)
        return dict(rear=rear, front=front, bracket=bracket, hips=hips, saddle=saddle, seat_top=seat_top,
                    low_head=low_head, high_head=high_head, stem=stem)

    @cached_property
    def _grips(self) -> np.ndarray:
        """Where the hands lie, left and right (2, 3)."""
        half = 0.5 * self.handlebar_width_m
        back = {"city bicycle": -0.16, "road bicycle": 0.09, "mountain bicycle": 0.0, "trekking bicycle": -0.06,
                "small-wheeled bicycle": -0.10}[self.style]
        return self._points["stem"] + np.array([[back, half - 0.04, 0.0], [back, -half + 0.04, 0.0]])

    @cached_property
    def rig(self) -> Rig:
        at = self._points
        frame = Coat(Surface.BARE_METAL if self.bare_frame else Surface.PAINTED_TUBE, self.paint)
        black, metal = Coat(Surface.PLASTIC, grey(0.02)), Coat(Surface.BARE_METAL, grey(0.45))
        rubber = Coat(Surface.RUBBER, grey(0.03), self.zones.index("tyre"))
        rim = Coat(Surface.BARE_METAL if self.rim[0] > 0.1 else Surface.PAINTED_TUBE, self.rim)
        thick = 0.019 if self.style != "mountain bicycle" else 0.023
        low_seat = at["bracket"] + (at["seat_top"] - at["bracket"]) * 0.35
        top_from = low_seat if self.step_through else at["seat_top"]
        apart = np.array([0, 0.055, 0])
        bars = [((at["bracket"], at["seat_top"]), thick, frame), ((at["bracket"], at["low_head"]), thick, frame),
                ((top_from, at["low_head"] + 0.75 * (at["high_head"] - at["low_head"]) * (not self.step_through)
                  + (0, 0, 0.04 * self.step_through)), thick, frame),
                ((at["low_head"], at["high_head"]), thick, frame), ((at["seat_top"], at["saddle"]), 0.014, metal),
                ((at["high_head"], at["stem"]), 0.016, metal)]
        for side in (1, -1):
            bars += [((at["bracket"], at["rear"] + side * apart), 0.009, frame),
                     ((at["seat_top"] - (0, 0, 0.04), at["rear"] + side * apart), 0.008, frame),
                     ((at["low_head"] + 0.6 * side * apart, at["front"] + side * apart), 0.012, frame)]
        parts = [(FRAME, painted(tube(points, radius), coat)) for points, radius, coat in bars]
        parts += [(FRAME, mesh) for mesh in self._handlebar()]
        leather = Coat(Surface.LEATHER, self.saddle, self.zones.index("saddle"))
        saddle = loft(ovals((-0.035, -0.012, 0.0), (0.10, 0.135, 0.12), (0.045, 0.075, 0.06), 8))
        saddle[0][:, 1] *= np.where(saddle[0][:, 0] > 0.02, 0.4, 1.0)
        parts.append((FRAME, painted(moved(saddle, at["saddle"]), leather)))
        r = self.wheel_radius_m
        wheel = torus(r, self.tyre_radius_m, 18)
        rim_face = np.tile([False, True, True, False], 18).repeat(2)
        spokes = [tube([(0.0, 0.02 * (-1) ** k, 0.0), ((r - 0.02) * np.cos(angle), 0.0, (r - 0.02) * np.sin(angle))],
                       0.0025, 3) for k, angle in enumerate(np.arange(8) * np.pi / 4)]
        for bone in (REAR_WHEEL, FRONT_WHEEL):
            parts.append((bone, painted(wheel, [rubber, rim], rim_face.astype(int))))
            parts += [(bone, painted(spoke, metal)) for spoke in spokes]
            parts.append((bone, painted(tube([(0, -0.05, 0), (0, 0.05, 0)], 0.022, 5), metal)))
        parts.append((CRANK, painted(tube([(0, -0.055, 0), (0, -0.045, 0)], 0.095, 10), metal)))  # chain ring
        for side in (1, -1):
            end = np.array([side * CRANK_M, side * 0.075, 0])
            parts.append((CRANK, painted(tube([(0, side * 0.06, 0), end], 0.012, 4), metal)))
            middle = end + (0, 0.03 * side, 0)
            parts.append((CRANK, painted(box(middle - (0.045, 0.03, 0.012), middle + (0.045, 0.03, 0.012)), black)))
        if self.kickstand:
            parts.append((STAND, painted(tube([(0, 0, 0), (-0.03, 0.13, 0.004 - at["bracket"][2])], 0.008), metal)))
        if self.mudguards:
            for centre, start, stop in ((at["rear"], 0.30, 1.12), (at["front"], 0.22, 0.85)):
                angle = np.pi * np.linspace(start, stop, 7)
                reach = r + 0.012
                inner = np.stack([reach * np.cos(angle), 0 * angle, reach * np.sin(angle)], axis=-1)
                arc = np.stack([inner - (0, 0.026, 0), 1.03 * inner, inner + (0, 0.026, 0)], axis=1)
                parts.append((FRAME, painted(moved(loft(arc), centre), black if self.mudguards == "black" else frame)))
        if self.rack:
            deck = at["rear"] + (-0.02, 0, r + 0.05)
            struts = [(deck + (-0.2, y, 0), deck + (0.2, y, 0)) for y in (-0.05, 0.0, 0.05)]
            struts += [(deck + (0, y, 0), at["rear"] + (0, y, 0)) for y in (-0.06, 0.06)]
            parts += [(FRAME, painted(tube(strut, 0.006, 4), metal)) for strut in struts]
        parts += [(FRAME, mesh) for mesh in self._load()]
        return Rig.of(parts)

    def _handlebar(self) -> list[Mesh]:
        stem, half = self._points["stem"], 0.5 * self.handlebar_width_m
        metal, black = Coat(Surface.BARE_METAL, grey(0.4)), Coat(Surface.PLASTIC, grey(0.02))
        meshes = []
        for side, grip in zip((1, -1), self._grips):
            tip = np.array([grip[0], side * half, grip[2]])
            if self.style == "road bicycle":
                drop = [stem + (0, side * half, 0), tip, tip - (0.02, 0, 0.1), stem + (-0.04, side * half, -0.13)]
                meshes += [painted(tube(points, 0.015, 5), black) for points in ((stem, drop[0]), drop)]
                continue
            swept = 0.06 * (grip[0] < stem[0] - 0.05)
            meshes.append(painted(tube([stem, 0.5 * (stem + grip) + (swept, 0, 0.01), grip], 0.012, 5), metal))
            inward = (grip - tip) * 1.2
            meshes.append(painted(tube([tip + inward + ((stem - grip) * (0.35, 0, 0)), tip], 0.017, 5), black))
        return meshes

    def _load(self) -> list[Mesh]:
        at, r = self._points, self.wheel_radius_m
        deck = at["rear"] + (-0.02, 0, r + 0.06)
        if self.load == "basket":
            floor = np.array([at["front"][0] - 0.02, 0, max(at["high_head"][2] - 0.12, 2 * r + 0.03)])
            sizes = np.array([0.12, 0.16, 0.15, 0.11])
            shape = loft(ovals((0.0, 0.24, 0.24, 0.02), sizes, sizes * 1.25, 8, roundness=0.5))
            return [painted(moved(shape, floor), Coat(Surface.PLASTIC, self.load_colour))]
        if self.load == "panniers":
            return [painted(box(deck + (-0.17, y - 0.07, -0.36), deck + (0.15, y + 0.07, -0.02)),
                            Coat(Surface.PLASTIC, self.load_colour)) for y in (0.14, -0.14)]
        if self.load == "child seat":
            coat = Coat(Surface.PLASTIC, self.load_colour)
            return [painted(box(deck + (-0.2, -0.15, 0.0), deck + (0.14, 0.15, 0.12)), coat),
                    painted(box(deck + (-0.24, -0.15, 0.1), deck + (-0.17, 0.15, 0.44)), coat)]
        if self.load == "crate":
            sizes = np.array([0.18, 0.2, 0.185, 0.17])
            shape = loft(ovals((0.0, 0.22, 0.22, 0.015), sizes, 0.8 * sizes, 8, roundness=0.3))
            return [painted(moved(shape, deck), Coat(Surface.PLASTIC, self.load_colour))]
        return []

    def mesh(self, pose_phase: float = 0.0, moving: bool = False) -> Mesh:
        """moving: ridden, pedals at `pose_phase` of a turn. At rest it stands upright, without its rider."""
        angle = 2 * np.pi * pose_phase
        at = self._points
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        folded = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        # Turning wheels look the same, and unturned ones keep a vertex of their tyres on the ground.
        rotation = np.stack([np.eye(3), np.eye(3), np.eye(3), turn, folded if moving else np.eye(3)])
        origin = np.stack([np.zeros(3), at["rear"], at["front"], at["bracket"], at["bracket"] - (0.05, 0, 0)])
        bicycle = self.rig.posed(rotation, origin, grounded=False)
        return Mesh.joined([bicycle, self._seated(angle)]) if moving else bicycle

    def _seated(self, angle: float) -> Mesh:
        rider, h = self.rider, self.rider.stature_m
        hips = self._points["hips"]
        reach = (UPPER_ARM_LENGTH + FOREARM_LENGTH) * h
        grips = self._grips + (0.0, 0.0, 0.03)
        # Hands hang beyond the wrists.
        lean = min(np.linspace(0.05, 1.15, 23), key=lambda lean: abs(
            np.linalg.norm(rider.trunk(hips, lean)[1][0] - grips[0]) - 0.93 * reach))
        joints = np.zeros((8, 2, 3))
        joints[0, 0] = hips
        joints[1, 0], joints[2] = rider.trunk(hips, lean)
        joints[5] = rider.hip_joints(hips)
        for side, sign in enumerate((1, -1)):
            shoulder = joints[2, side]
            wrist = grips[side] + 0.05 * h * (shoulder - grips[side]) / np.linalg.norm(shoulder - grips[side])
            joints[3, side] = bend(shoulder, wrist, UPPER_ARM_LENGTH * h, FOREARM_LENGTH * h, (-0.4, 0.8 * sign, -0.6))
            joints[4, side] = wrist
            pedal = self._points["bracket"] + sign * CRANK_M * np.array([np.cos(angle), 0, -np.sin(angle)])
            ankle = pedal + (-0.055 * h, sign * HIP_HALF * h * 1.6, (ANKLE + 0.012) * h)
            joints[6, side] = bend(joints[5, side], ankle, THIGH_LENGTH * h, SHIN_LENGTH * h, (1.0, 0.12 * sign, 0.2))
            joints[7, side] = ankle
        tilt = -0.15 + 0.15 * np.sin(angle + np.array([0.0, np.pi]))
        return rider.posed(joints, lean, np.stack([np.sin(tilt), 0 * tilt, -np.cos(tilt)], axis=-1), grounded=False)

    def typical_state(self, rng: np.random.Generator, moving: bool) -> HeatState:
        """Riders work at 4 to 8 met (Compendium of Physical Activities, cycling at 10 to 22 km/h)."""
        if moving:
            return HeatState(running=True, parked_s=0.0, activity_met=float(rng.uniform(4.0, 8.0)))
        return HeatState(parked_s=float(np.exp(rng.uniform(np.log(120), np.log(172800)))))

    def heat(self, state: HeatState, air_temperature_k: float) -> tuple[np.ndarray, np.ndarray]:
        temperature, conductance = self.rider.heat(state, air_temperature_k)
        parked_s = 0.0 if state.running else state.parked_s
        # Tyres warm by a few kelvin; a saddle just left shows who sat on it for minutes.
        tyre, saddle = air_temperature_k + np.array([4.0, 9.0]) * np.exp(-parked_s / np.array([600.0, 240.0]))
        return heat_table([*temperature[1:], tyre, saddle], [*conductance[1:], 15.0, 8.0])
