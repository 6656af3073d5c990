"""Passenger cars, vans and pickups.

Bodies are two lofts along x: the lower body with bonnet and boot, and the greenhouse with its glass. Dimensions
follow new registrations in Europe (ICCT European Vehicle Market Statistics 2022/23); the mix of styles lies between
those of Europe, with its hatchbacks, and of Asia and America, with their saloons; colours follow the BASF Color
Report for Automotive OEM Coatings 2022. Mirrors come on top of `width_m`, roof loads on top of `height_m`, as in
registration papers.

Heat. The bay of a warm engine holds about 60 K above the air (Mahmoud et al., Int. J. Thermal Sci. 2007: underhood
air of 60-90 degrees C); after it stops, excess warmth decays exponentially: the block's time constant is an hour or
more, that of thin exhausts, brakes and tyres well below. Rolling tyres run 10-25 K above the air. A closed parked
cabin in full sun settles about 25 K above the air (McLaren et al., Pediatrics 116, 2005; Dadour et al., Forensic Sci.
Int. 207, 2011); that of a running car is kept near 294 K.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from thermalreid_ros.world.actors.identity import HeatState, Identity, heat_table, pick, shade
from thermalreid_ros.world.actors.parts import (Coat, Colour, box, cell_labels, ellipsoid, grey, loft, moved, ovals,
                                                painted, tube)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh


@dataclass(frozen=True)
class _Style:
    """Means of a body style. Positions are shares of the length from the front, heights shares of the height."""

    weight: float
    length_m: float
    length_sd_m: float
    width_m: float
    height_m: float
    cowl: float  # foot of the windscreen
    roof_front: float
    roof_rear: float
    deck: float  # foot of the rear window
    belt: float
    nose: float
    tail: float
    roof_width: float  # share of the width
    clearance_m: float
    wheel_m: float  # radius


_STYLES = {
    "hatchback": _Style(0.24, 4.10, 0.18, 1.76, 1.48, 0.26, 0.44, 0.87, 0.965, 0.62, 0.50, 0.60, 0.68, 0.18, 0.31),
    "saloon": _Style(0.24, 4.70, 0.16, 1.83, 1.45, 0.28, 0.44, 0.70, 0.84, 0.63, 0.50, 0.62, 0.66, 0.17, 0.33),
    "estate car": _Style(0.10, 4.68, 0.14, 1.83, 1.48, 0.27, 0.42, 0.90, 0.97, 0.62, 0.50, 0.61, 0.67, 0.17, 0.33),
    "SUV": _Style(0.27, 4.45, 0.20, 1.85, 1.66, 0.27, 0.42, 0.89, 0.965, 0.63, 0.56, 0.61, 0.70, 0.22, 0.36),
    "people carrier": _Style(0.04, 4.55, 0.15, 1.83, 1.66, 0.19, 0.39, 0.91, 0.975, 0.60, 0.50, 0.58, 0.72, 0.18, 0.33),
    "van": _Style(0.07, 5.05, 0.25, 1.96, 1.97, 0.14, 0.27, 0.97, 0.985, 0.55, 0.47, 0.54, 0.84, 0.20, 0.34),
    "pickup": _Style(0.02, 5.33, 0.10, 1.87, 1.81, 0.27, 0.40, 0.60, 0.635, 0.61, 0.57, 0.58, 0.70, 0.24, 0.39),
    "coupé": _Style(0.02, 4.45, 0.14, 1.84, 1.36, 0.31, 0.48, 0.66, 0.88, 0.64, 0.52, 0.64, 0.62, 0.14, 0.34),
}

#: Weight and linear reflectance of paints.
_PAINTS = {
    "white": (0.25, (0.74, 0.75, 0.74)), "black": (0.20, (0.012, 0.012, 0.014)),
    "dark grey": (0.15, (0.07, 0.075, 0.08)), "grey": (0.09, (0.19, 0.20, 0.21)),
    "silver": (0.09, (0.45, 0.46, 0.47)), "dark blue": (0.07, (0.015, 0.03, 0.10)),
    "blue": (0.04, (0.03, 0.12, 0.36)), "red": (0.055, (0.38, 0.02, 0.02)), "dark green": (0.02, (0.02, 0.07, 0.035)),
    "beige": (0.02, (0.42, 0.36, 0.26)), "brown": (0.015, (0.10, 0.055, 0.03)), "orange": (0.01, (0.60, 0.16, 0.02)),
    "yellow": (0.01, (0.68, 0.48, 0.03)), "light green": (0.01, (0.25, 0.45, 0.16)),
}

_BLACK = grey(0.02)


@dataclass(frozen=True)
class Car(Identity):
    """A car. Positions along the length are shares of it from the front, heights above ground in metres."""

    class_name: ClassVar[str] = "car"
    zones: ClassVar[tuple[str, ...]] = ("passive", "bonnet", "front", "underbody", "tyre", "rim", "glass", "roof")

    style: str
    length_m: float
    width_m: float
    height_m: float
    cowl: float
    roof_front: float
    roof_rear: float
    deck: float
    belt_m: float
    nose_m: float
    tail_m: float
    roof_width_m: float
    clearance_m: float
    wheel_radius_m: float
    wheelbase_m: float
    front_overhang_m: float
    colour: str
    paint: Colour
    roof_paint: Colour
    rim: Coat
    bumpers_painted: bool
    cladding: bool
    side_windows: int
    sunroof: bool
    glass_tint: float
    roof_load: str  # '', 'rails', 'box', 'rack', 'taxi sign'
    load_colour: Colour

    @classmethod
    def drawn(cls, number: int, seed: int, rng: np.random.Generator) -> Car:
        style = pick(rng, {name: style.weight for name, style in _STYLES.items()})
        mean = _STYLES[style]
        length = float(np.clip(rng.normal(mean.length_m, mean.length_sd_m), 3.5, 5.6))
        stretch = length / mean.length_m
        width = mean.width_m * stretch**0.4 + float(np.clip(rng.normal(0, 0.025), -0.05, 0.05))
        height = mean.height_m * stretch**0.15 + float(np.clip(rng.normal(0, 0.035), -0.08, 0.08))
        if style == "van" and rng.random() < 0.25:
            height += 0.35

        def vary(value: float, spread: float) -> float:
            return float(value + np.clip(rng.normal(0, spread), -2 * spread, 2 * spread))

        colours = {name: weight for name, (weight, _) in _PAINTS.items()}
        if style == "van":
            colours["white"] = 1.2
        colour = pick(rng, colours)
        paint = shade(rng, _PAINTS[colour][1], 0.12, 0.012)
        two_tone = rng.random() < {"hatchback": 0.09, "SUV": 0.09}.get(style, 0.0)
        roof = (_BLACK if colour != "black" else grey(0.7)) if two_tone else paint
        alloy = rng.random() < 0.75
        rim = (Coat(Surface.BARE_METAL, shade(rng, grey(0.5), 0.1, 0.01), 5) if alloy and rng.random() < 0.75 else
               Coat(Surface.CAR_PAINT, shade(rng, grey(0.03), 0.3, 0.01), 5) if alloy else
               Coat(Surface.PLASTIC, shade(rng, grey(0.35), 0.2, 0.01), 5))
        loads = {"": 0.9, "box": 0.02, "taxi sign": 0.015}
        if style in ("estate car", "SUV", "people carrier"):
            loads["rails"] = 0.7
        if style == "van":
            loads = {"": 0.8, "rack": 0.25}
        load = pick(rng, {"": 1.0} if style in ("coupé", "pickup") else loads)
        return cls(
            number, seed, style, length, width, height, vary(mean.cowl, 0.012), vary(mean.roof_front, 0.012),
            vary(mean.roof_rear, 0.012), vary(mean.deck, 0.005), height * vary(mean.belt, 0.012),
            height * vary(mean.nose, 0.015), height * vary(mean.tail, 0.015), width * vary(mean.roof_width, 0.015),
            vary(mean.clearance_m, 0.015), vary(mean.wheel_m * stretch**0.5, 0.012), length * vary(0.595, 0.012),
            length * vary(0.185, 0.01), colour, paint, roof, rim,
            bumpers_painted=rng.random() < (0.5 if style == "van" else 0.9),
            cladding=rng.random() < (0.7 if style == "SUV" else 0.15),
            side_windows=(1 if rng.random() < 0.65 else 3) if style == "van" else 1 if style == "coupé" else 2,
            sunroof=style not in ("van", "pickup", "coupé") and rng.random() < 0.18,
            glass_tint=float(rng.uniform(0.015, 0.05)), roof_load=load,
            load_colour=grey(float(rng.choice([0.02, 0.05, 0.4]))))

    @property
    def description(self) -> str:
        roof = ("" if self.roof_paint == self.paint else " with a black roof" if self.roof_paint == _BLACK else
                " with a white roof")
        load = {"": "", "rails": "", "box": " and a roof box", "rack": " and a roof rack",
                "taxi sign": " and a taxi sign"}[self.roof_load]
        return f"{self.colour} {self.style}{roof}{load if roof else load.replace(' and', ' with', 1)}"

    def mesh(self, pose_phase: float = 0.0, moving: bool = False) -> Mesh:
        return self._mesh

    @cached_property
    def _mesh(self) -> Mesh:
        return Mesh.joined([self._lower_body(), self._greenhouse(), *self._wheels(), *self._details()])

    def _x(self, share: np.ndarray | float) -> np.ndarray | float:
        return (self.length_m - 0.02) * (0.5 - share)  # plates stand out by a centimetre

    def _lower_body(self) -> Mesh:
        body, bonnet, bumper, under, head, tail, grille, bed, sill = range(9)
        pickup = self.style == "pickup"
        half, belt, low = 0.5 * self.width_m - 0.012, self.belt_m, self.clearance_m
        # Stations from the tail to the nose: place, width, lower edge, upper edge.
        rear = [(1.0, 0.84, low + 0.12, self.tail_m - 0.10), (0.988, 0.94, low + 0.05, self.tail_m - 0.02),
                (0.95, 0.99, low, self.tail_m)]
        middle = [(self.deck, 1.0, low, belt), (0.5 * (self.deck + self.cowl), 1.0, low, belt),
                  (self.cowl, 1.0, low, belt - 0.01)]
        if pickup:
            bed_front = self.deck + 0.015
            rear[2:] = [(0.97, 0.99, low, self.tail_m), (0.965, 0.995, low, self.tail_m),
                        (bed_front + 0.004, 1.0, low, self.tail_m), (bed_front, 1.0, low, self.tail_m)]
        elif self.deck > 0.93:
            rear[2] = (0.978, 0.98, low, belt - 0.03)
        front = [(0.55 * self.cowl + 0.03, 1.0, low, belt + 0.45 * (self.nose_m - belt)),
                 (0.065, 0.985, low, self.nose_m), (0.02, 0.92, low + 0.02, self.nose_m - 0.06),
                 (0.0, 0.76, low + 0.08, self.nose_m - 0.17)]
        x, width, bottom, top = np.array([*rear, *middle, *front]).T
        side = np.array([0.84, 0.975, 1.0, 0.985, 0.925, 0.84])
        tall = top - bottom
        rise = np.stack([0 * x, np.minimum(0.11, 0.3 * tall), 0.48 * tall, tall - np.minimum(0.14, 0.3 * tall),
                         tall - 0.015, tall], axis=1)
        y, z = half * width[:, None] * side, bottom[:, None] + rise
        crown = top + 0.025
        if pickup:
            z[3:5, 5] = crown[3:5] = low + 0.32
            y[3:5, 5] *= 0.985
        rings = np.empty((len(x), 13, 3))
        rings[..., 0] = self._x(x)[:, None]
        rings[:, :6, 1], rings[:, 6, 1], rings[:, 7:, 1] = y, 0.0, -y[:, ::-1]
        rings[:, :6, 2], rings[:, 6, 2], rings[:, 7:, 2] = z, crown, z[:, ::-1]
        cells = np.full((len(x) - 1, 13), body)
        cells[:, [0, 11]] = sill
        cells[:, 12] = under
        cells[:2, [0, 1, 10, 11]] = cells[-2:, [0, 1, 10, 11]] = bumper
        cells[-2, [2, 9]] = cells[-1, [2, 9]] = head
        cells[:2, [2, 9]] = tail
        cells[-4:-1, 3:9] = bonnet
        if pickup:
            cells[2:5, 5:7] = cells[2:5, 4] = cells[2:5, 8] = bed
        paint = Coat(Surface.CAR_PAINT, self.paint)
        plastic = Coat(Surface.PLASTIC, grey(0.035))
        coats = [paint, paint._replace(zone=1), paint if self.bumpers_painted else plastic,
                 Coat(Surface.PLASTIC, _BLACK, 3), Coat(Surface.LAMP_GLASS, grey(0.62)),
                 Coat(Surface.LAMP_GLASS, (0.25, 0.01, 0.01)), Coat(Surface.PLASTIC, grey(0.03), 2), plastic,
                 plastic if self.cladding else paint]
        return painted(loft(rings), coats, cell_labels(cells, start=bumper, end=grille))

    def _greenhouse(self) -> Mesh:
        shell, roof, glass, pillar = range(4)
        half, belt, top = 0.5 * self.width_m - 0.012, self.belt_m - 0.02, self.height_m - 0.02
        front, rear = self.roof_front, self.roof_rear
        last = rear - (0.02 if self.style in ("estate car", "SUV", "people carrier", "hatchback") else 0.005)
        # The pillar behind the front doors; the one behind the rear doors stands 3 % of the length before the last.
        middle = front + (0.21 if self.style == "van" else (0.50 if self.side_windows == 1 else 0.42) * (rear - front))
        middle = min(middle, last - 0.085)
        bounds = [rear, last - 0.03, last - 0.06, middle + 0.02, middle, front]
        x = self._x(np.array([self.deck, *bounds, self.cowl]))
        roof_half = 0.5 * self.roof_width_m
        y_roof = np.array([0.90 * half, 0.93 * roof_half + 0.07 * half * 0.9, roof_half, 0.88 * roof_half])
        y_base = 0.90 * half * np.array([1.0, 0.985, 0.96, 0.86])
        z_roof = belt + (top - belt) * np.array([0.0, 0.84, 0.955, 0.99])
        z_base = belt + np.array([0.0, 0.004, 0.008, 0.012])
        y = np.stack([y_base, *[y_roof] * len(bounds), y_base])
        z = np.stack([z_base, *[z_roof] * len(bounds), z_base])
        crown = np.array([belt + 0.03, *np.full(len(bounds), self.height_m), belt + 0.03])
        z[[1, -2], 1:] -= 0.025
        crown[[1, -2]] -= 0.03
        rings = np.empty((len(x), 9, 3))
        rings[..., 0] = x[:, None]
        rings[:, :4, 1], rings[:, 4, 1], rings[:, 5:, 1] = y, 0.0, -y[:, ::-1]
        rings[:, :4, 2], rings[:, 4, 2], rings[:, 5:, 2] = z, crown, z[:, ::-1]
        rings[-1, 3:6, 0] += 0.04  # the windscreen bulges
        cells = np.full((len(x) - 1, 9), shell)
        cells[:, 3:5] = roof
        cells[:, [2, 6]] = roof
        cells[0] = cells[-1] = shell
        cells[0, [3, 4]] = cells[-1, [3, 4]] = glass
        cells[1:7, [0, 7]] = [[shell], [pillar], [glass], [pillar], [glass], [glass]]
        if self.style == "van" and self.side_windows == 1:
            cells[1:5, [0, 7]] = shell
            cells[0, [3, 4]] = shell
        if self.style in ("estate car", "SUV", "people carrier") or self.side_windows == 3:
            cells[1, [0, 7]] = glass
        if self.sunroof:
            cells[3:5, 3:5] = glass
        coats = [Coat(Surface.CAR_PAINT, self.paint, 7), Coat(Surface.CAR_PAINT, self.roof_paint, 7),
                 Coat(Surface.CAR_GLASS, grey(self.glass_tint), 6), Coat(Surface.PLASTIC, _BLACK)]
        return painted(loft(rings), coats, cell_labels(cells, shell, shell))

    def _wheels(self) -> list[Mesh]:
        radius, half, sides = self.wheel_radius_m, 0.5 * self.width_m, 10
        angle = -0.5 * np.pi - np.arange(sides) * (2 * np.pi / sides)
        circle = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=-1)
        rings = np.stack([circle * scale + (0, depth, 0) for scale, depth in
                          ((radius, -0.20), (radius, -0.012), (0.70 * radius, 0.0))])
        labels = cell_labels(np.zeros((2, sides), int), 0, 1)
        wheel = loft(rings, end=(0, -0.03, 0))
        arch_angle = np.linspace(np.pi, 0, 8)
        arch_outline = np.stack([np.cos(arch_angle), 0 * arch_angle, np.sin(arch_angle)], axis=-1) * 1.13 * radius
        arch_outline[[0, -1], 2] = self.clearance_m - radius + 0.01
        arch = loft(np.stack([arch_outline + (0, depth, 0) for depth in (-0.2, -0.008)]))
        tyre = Coat(Surface.RUBBER, grey(0.03), 4)
        dark = Coat(Surface.PLASTIC, grey(0.015))
        meshes = []
        front_axle = 0.5 * self.length_m - self.front_overhang_m
        for x in (front_axle, front_axle - self.wheelbase_m):
            for side in (1, -1):
                turn = np.diag([side, side, 1.0])
                meshes += [painted(moved(wheel, (x, side * half, radius), turn), [tyre, self.rim], labels),
                           painted(moved(arch, (x, side * half, radius), turn), dark)]
        return meshes

    def _details(self) -> list[Mesh]:
        half, length = 0.5 * self.width_m, self.length_m
        meshes = []
        black, paint = Coat(Surface.PLASTIC, _BLACK), Coat(Surface.CAR_PAINT, self.paint)
        plate = Coat(Surface.PLASTIC, grey(0.7))
        z = self.clearance_m + 0.24
        for x, low in ((-0.5 * length, z + 0.1), (0.5 * length - 0.02, z)):
            meshes.append(painted(box((x, -0.26, low), (x + 0.02, 0.26, low + 0.11)), plate))
        x = 0.62 * self._x(self.cowl) + 0.38 * self._x(self.roof_front)
        for side in (1, -1):
            meshes.append(painted(ellipsoid((x, side * half, self.belt_m + 0.05), (0.06, 0.15, 0.075), 2, 6),
                                  paint if self.bumpers_painted else black))
        y = 0.30 * self.width_m
        meshes.append(painted(tube([(-0.5 * length + 0.25, y, self.clearance_m + 0.06),
                                    (-0.5 * length + 0.015, y, self.clearance_m + 0.07)], 0.035, 6),
                              Coat(Surface.BARE_METAL, grey(0.3), 3)))
        roof, ends = self.height_m, (self._x(self.roof_rear) + 0.12, self._x(self.roof_front) - 0.15)
        middle, edge = 0.5 * sum(ends), 0.5 * self.roof_width_m - 0.05
        if self.roof_load == "rails":
            coat = Coat(Surface.BARE_METAL, grey(0.5)) if self.load_colour[0] > 0.1 else black
            x, z = np.array([0.0, 0.12, -0.12, 0.0]) + np.repeat(ends, 2), roof + np.array([-0.05, 0.03, 0.03, -0.05])
            meshes += [painted(tube(np.column_stack([x, np.full(4, y), z]), 0.018, 4), coat) for y in (edge, -edge)]
        elif self.roof_load == "box":
            shape = loft(ovals((0, 0.12, 0.3), (0.9, 1.0, 0.75), (0.36, 0.4, 0.3), 10, roundness=0.5))
            meshes.append(painted(moved(shape, (middle, 0.12, roof + 0.03)), Coat(Surface.PLASTIC, self.load_colour)))
        elif self.roof_load == "rack":
            meshes += [painted(tube([(x, -edge, roof + 0.08), (x, edge, roof + 0.08)], 0.025, 4),
                               Coat(Surface.BARE_METAL, grey(0.45))) for x in np.linspace(*ends, 4)]
            meshes += [painted(tube([(ends[0], s, roof + 0.13), (ends[1], s, roof + 0.13)], 0.03, 4),
                               Coat(Surface.BARE_METAL, grey(0.55))) for s in (0.1, 0.5)]
        elif self.roof_load == "taxi sign":
            meshes.append(painted(box((middle - 0.08, -0.3, roof - 0.01), (middle + 0.08, 0.3, roof + 0.13)),
                                  Coat(Surface.PLASTIC, (0.75, 0.6, 0.1))))
        return meshes

    def typical_state(self, rng: np.random.Generator, moving: bool) -> HeatState:
        driven = float(rng.uniform(300, 3600))
        if moving:
            return HeatState(running=True, running_s=driven, parked_s=0.0)
        # Parked since minutes (shoppers) to days (residents): log-uniform from 5 minutes to 3 days.
        return HeatState(running_s=driven, parked_s=float(np.exp(rng.uniform(np.log(300), np.log(259200)))))

    def heat(self, state: HeatState, air_temperature_k: float) -> tuple[np.ndarray, np.ndarray]:
        parked = 0.0 if state.running else state.parked_s
        air = air_temperature_k

        def left(excess_k: float, warming_s: float, cooling_s: float) -> float:
            return air + excess_k * (1 - np.exp(-state.running_s / warming_s)) * np.exp(-parked / cooling_s)

        # Big engines and closed bays of vans and SUVs cool more slowly than a small hatchback's.
        block_s = 4300.0 * self.length_m / 4.5
        sun_k = 0.028 * state.solar_w_m2
        # Share of the heater or the air conditioner, as opposed to air and sun.
        kept = (1 - np.exp(-state.running_s / 600)) * np.exp(-parked / 1500)
        cabin = kept * (294.0 + 0.15 * sun_k) + (1 - kept) * (air + sun_k)
        temperature = [left(58, 500, block_s), left(62, 400, 0.8 * block_s), left(70, 300, 2000), left(18, 900, 2400),
                       left(35, 500, 1500), cabin, cabin]
        # To the outside: through the lined bonnet, the grille, shields, rubber, rims, glass and the roof's lining.
        return heat_table(temperature, [7.0, 9.0, 9.0, 20.0, 12.0, 7.0, 2.0])
