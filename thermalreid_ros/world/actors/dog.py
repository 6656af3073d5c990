"""Dogs, from small terriers to large shepherds: walking, standing, sitting or lying.

Proportions after breed standards (FCI): trunk a little longer than the withers are high, chest about half as deep.

Heat. Core 311.7 K (38.5 degrees C). Coats conduct 0.04 to 0.05 W/mK through 0.5 to 5 cm of hair, so 1 to 8 W/m2K
(Scholander et al., Biol. Bull. 99, 1950; Young et al., Comp. Biochem. Physiol. A, 2004); muzzle, eyes, ears, paws
and belly carry little hair and show warm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from thermalreid_ros.world.actors.identity import HeatState, Identity, heat_table, pick, shade
from thermalreid_ros.world.actors.parts import (Coat, Colour, Rig, Shape, ellipsoid, frames, grey, limb, loft, ovals,
                                                painted, tube)
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

CORE_K = 311.7
BODY, HEAD, TAIL = 0, 1, 2
UPPER, LOWER = (3, 4, 5, 6), (7, 8, 9, 10)  # left fore, right fore, left hind, right hind

#: Weight, withers height and its spread, trunk length / withers, slenderness, muzzle length / withers, coat lengths
#: in mm, ears ('pricked' or 'hanging'), tail, colours.
_BREEDS = {
    "terrier": (0.22, 0.31, 0.04, 1.05, 1.0, 0.17, (12, 35), "pricked", "up"),
    "dachshund": (0.08, 0.23, 0.02, 1.75, 1.05, 0.26, (6, 30), "hanging", "low"),
    "bulldog": (0.08, 0.34, 0.03, 1.08, 1.35, 0.07, (5, 9), "pricked", "stub"),
    "spaniel": (0.12, 0.41, 0.03, 1.05, 1.0, 0.19, (22, 45), "hanging", "low"),
    "collie": (0.12, 0.53, 0.04, 1.12, 0.98, 0.19, (35, 60), "pricked", "low"),
    "retriever": (0.18, 0.57, 0.03, 1.08, 1.05, 0.18, (20, 45), "hanging", "level"),
    "pointer": (0.08, 0.61, 0.04, 1.03, 0.92, 0.20, (5, 10), "hanging", "level"),
    "shepherd": (0.12, 0.62, 0.04, 1.14, 1.0, 0.20, (28, 50), "pricked", "low"),
}

_COLOURS = {
    "black": (0.2, (0.015, 0.013, 0.012)), "brown": (0.17, (0.09, 0.045, 0.022)), "tan": (0.17, (0.30, 0.17, 0.08)),
    "cream": (0.13, (0.52, 0.42, 0.28)), "white": (0.1, (0.66, 0.63, 0.58)), "grey": (0.1, (0.18, 0.17, 0.17)),
    "red": (0.13, (0.24, 0.10, 0.04)),
}
_WHITE, _TAN = (0.64, 0.61, 0.56), (0.28, 0.15, 0.07)


@dataclass(frozen=True)
class Dog(Identity):
    class_name: ClassVar[str] = "dog"
    zones: ClassVar[tuple[str, ...]] = ("passive", "coat", "legs", "belly", "muzzle", "ears", "paws", "skull")

    breed: str
    withers_m: float
    length_ratio: float
    girth: float
    muzzle_ratio: float
    hair_mm: float
    ears: str
    tail: str
    colour: str
    base: Colour
    pattern: str  # solid, white points, tan points, patches, saddle
    second: Colour
    patch_seed: int
    collar: Colour | None
    harness: bool
    stride: float

    @classmethod
    def drawn(cls, number: int, seed: int, rng: np.random.Generator) -> Dog:
        breed = pick(rng, {name: values[0] for name, values in _BREEDS.items()})
        _, height, spread, length, girth, muzzle, (short, long), ears, tail = _BREEDS[breed]
        colour = pick(rng, {name: weight for name, (weight, _) in _COLOURS.items()})
        dark = colour in ("black", "brown", "grey")
        pattern = pick(rng, {"solid": 0.42, "white points": 0.2, "tan points": 0.12 * dark, "patches": 0.16,
                             "saddle": 0.0 if dark else 0.1 + 0.5 * (breed == "shepherd")})
        base = shade(rng, _COLOURS[colour][1], 0.2)
        second = {"solid": base, "tan points": shade(rng, _TAN, 0.15), "saddle": shade(rng, grey(0.02), 0.2)}.get(
            pattern, shade(rng, _WHITE if colour != "white" else (0.06, 0.04, 0.03), 0.06))
        collar = shade(rng, pick(rng, {(0.4, 0.03, 0.03): 0.3, grey(0.02): 0.3, (0.05, 0.12, 0.4): 0.2,
                                       (0.6, 0.3, 0.03): 0.2}), 0.2)
        return cls(number, seed, breed, float(np.clip(rng.normal(height, spread), 0.20, 0.74)),
                   length * float(rng.uniform(0.95, 1.06)), girth * float(np.clip(rng.lognormal(0, 0.09), 0.85, 1.3)),
                   muzzle * float(rng.uniform(0.88, 1.12)), float(rng.uniform(short, long)), ears, tail, colour, base,
                   pattern, second, int(rng.integers(1 << 30)), collar if rng.random() < 0.75 else None,
                   rng.random() < 0.25, float(rng.uniform(0.35, 0.5)))

    @property
    def description(self) -> str:
        marks = {"solid": "", "white points": " with white points", "tan points": " with tan points",
                 "patches": " with patches", "saddle": " with a black saddle"}[self.pattern]
        coat = "long-haired " if self.hair_mm > 25 else ""
        return f"{coat}{self.colour} {self.breed}{marks}, {100 * self.withers_m:.0f} cm high"

    @property
    def trunk_m(self) -> float:
        return self.length_ratio * self.withers_m

    @cached_property
    def _leg_m(self) -> tuple[float, float]:
        """Lengths of upper and lower legs (the lower one includes the paw)."""
        reach = self.withers_m * (0.70 if self.breed != "dachshund" else 0.52)
        return 0.52 * reach, 0.48 * reach

    @cached_property
    def rig(self) -> Rig:
        h, length, g = self.withers_m, self.trunk_m, self.girth
        hair = 0.001 * self.hair_mm
        fluff = 0.35 * hair
        parts = []
        # The trunk: an oval loft along x, chest deeper than loin; turned from a loft along z.
        along = np.array([-0.50, -0.44, -0.25, -0.02, 0.22, 0.38, 0.46]) * length
        half_z = np.array([0.10, 0.17, 0.165, 0.19, 0.235, 0.20, 0.13]) * h * np.sqrt(g) + fluff
        half_z *= 1.35 if self.breed == "dachshund" else 1.0
        half_y = np.array([0.07, 0.125, 0.125, 0.135, 0.15, 0.14, 0.09]) * h * g + fluff
        top = np.array([-0.05, -0.01, 0.0, -0.01, 0.0, 0.01, 0.02]) * h
        rings = ovals(along, half_z, half_y, 8, centre_x=0.0)
        turned = np.stack([rings[..., 2], rings[..., 1], top[:, None] - half_z[:, None] - rings[..., 0]], axis=-1)
        parts.append((BODY, self._coloured(loft(turned), zone=1, belly=True)))
        # Head: neck, skull, muzzle, ears; the bone's origin is at the shoulders.
        neck = 0.30 * h
        tip = np.array([0.55, 0.0, 0.83]) * neck
        neck_thick = np.array([0.16, 0.125, 0.09]) * h * np.sqrt(g) + fluff
        parts.append((HEAD, self._coloured(tube([(-0.05 * h, 0, -0.10 * h), 0.5 * tip, tip], neck_thick, 8), zone=1)))
        skull = 0.115 * h + 0.012
        centre = tip + (0.06 * h, 0, 0.05 * h)
        parts.append((HEAD, self._coloured(ellipsoid(centre, np.array([1.15, 0.92, 0.95]) * skull, 4, 8), zone=7)))
        muzzle = self.muzzle_ratio * h
        nose = centre + (0.9 * skull + muzzle, 0, -0.42 * skull)
        snout = tube([centre + (0.5 * skull, 0, -0.25 * skull), nose], (0.68 * skull, 0.40 * skull), 6)
        parts.append((HEAD, self._coloured(snout, zone=4)))
        parts.append((HEAD, painted(ellipsoid(nose, np.full(3, 0.2 * skull), 2, 5), Coat(Surface.SKIN, grey(0.02), 4))))
        for side in (1, -1):
            root = centre + (-0.25 * skull, side * 0.62 * skull, 0.55 * skull)
            if self.ears == "pricked":
                tip_of_ear = root + np.array([-0.1, side * 0.25, 1.0]) * skull
                ear = tube([root, tip_of_ear], (0.42 * skull, 0.06 * skull), 4)
            else:
                ear = tube([root, root + (0.0, side * 0.45 * skull, -0.25 * skull),
                            root + (0.05 * skull, side * 0.5 * skull, -1.25 * skull)],
                           (0.15 * skull, 0.36 * skull, 0.3 * skull), 4)
            parts.append((HEAD, self._coloured(ear, zone=5)))
        if self.collar is not None:
            band = tube([0.45 * tip, 0.6 * tip], 0.13 * h * np.sqrt(g) + 1.1 * fluff + 0.004, 8)
            parts.append((HEAD, painted(band, Coat(Surface.LEATHER, self.collar, 1))))
        if self.harness and self.collar is not None:
            at = np.array([0.10, 0.18]) * length
            deep, wide, shift = (np.interp(at, along, values) for values in (half_z, half_y, top - half_z))
            ring = ovals(at, deep + 0.006, wide + 0.006, 8)
            girdle = loft(np.stack([ring[..., 2], ring[..., 1], shift[:, None] - ring[..., 0]], axis=-1))
            parts.append((BODY, painted(girdle, Coat(Surface.COTTON, self.collar, 1))))
        # Tail.
        tail = {"up": 0.38, "low": 0.55, "level": 0.55, "stub": 0.12}[self.tail] * h
        tail_thick = np.array([0.045, 0.035, 0.012]) * h + np.array([0.5, 0.8, 0.25]) * fluff
        parts.append((TAIL, self._coloured(tube([(0.03 * h, 0, 0), (-0.5 * tail, 0, 0), (-tail, 0, 0.12 * tail)],
                                                tail_thick, 5), zone=1)))
        upper, lower = self._leg_m
        for leg in range(4):
            thick = (0.100 if leg > 1 else 0.082) * h * np.sqrt(g) + 0.5 * fluff
            joint, thin = 0.050 * h + 0.4 * fluff, 0.034 * h + 0.25 * fluff
            parts.append((UPPER[leg], self._coloured(limb(upper, thick, joint), zone=2)))
            parts.append((LOWER[leg], self._coloured(limb(lower - 0.045 * h, joint, thin), zone=2, low=True)))
            paw = ellipsoid((0.02 * h, 0, -lower + 0.03 * h), (0.055 * h, 0.042 * h, 0.03 * h), 2, 6)
            parts.append((LOWER[leg], self._coloured(paw, zone=6, low=True)))
        return Rig.of(parts)

    def _coloured(self, shape: Shape, zone: int, belly: bool = False, low: bool = False) -> Mesh:
        """Fur by the pattern of the coat; shapes are in the coordinates of their bones."""
        vertices, faces = shape
        middle = vertices[faces].mean(axis=1)
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        down = normal[:, 2] < -0.75 * np.linalg.norm(normal, axis=1)
        below = down if belly else np.zeros(len(faces), bool)
        if self.pattern == "patches":
            rng = np.random.default_rng(np.random.SeedSequence([self.patch_seed, zone]))
            spots = rng.uniform(vertices.min(axis=0), vertices.max(axis=0), (5, 3))
            near = np.linalg.norm(middle[:, None] - spots, axis=-1).argmin(axis=1)
            second = (near % 2 == 1) | low
        elif self.pattern == "saddle":
            second = (normal[:, 2] > 0.1 * np.linalg.norm(normal, axis=1)) & (zone == 1)
        elif self.pattern in ("white points", "tan points"):
            second = np.full(len(faces), low or zone == 4) | below
        else:
            second = np.zeros(len(faces), bool)
        coats = [Coat(Surface.FUR, colour, place) for place in (zone, 3) for colour in (self.base, self.second)]
        return painted(shape, coats, second.astype(int) + 2 * below.astype(int))

    def mesh(self, pose_phase: float = 0.0, moving: bool = False) -> Mesh:
        """Walking when moving. At rest a phase below 0.6 stands, from there to 0.8 sits, above lies."""
        h, length = self.withers_m, self.trunk_m
        upper, lower = self._leg_m
        posture = "walk" if moving else "stand" if pose_phase < 0.6 else "sit" if pose_phase < 0.8 else "lie"
        angle = 2 * np.pi * (pose_phase + np.array([0.0, 0.5, 0.75, 0.25]))  # lateral sequence walk
        # Forward swing of upper legs, and of lower legs relative to them.
        if posture == "walk":
            swing = self.stride * np.cos(angle) + np.array([-0.1, -0.1, 0.15, 0.15])
            lift = 0.9 * self.stride * 2 * np.maximum(np.sin(angle - 0.75 * np.pi), 0)
            fold = np.array([0.15, 0.15, -0.35, -0.35]) - lift
        elif posture == "stand":
            swing, fold = np.array([-0.1, -0.05, 0.2, 0.15]), np.array([0.1, 0.08, -0.3, -0.35])
        elif posture == "sit":
            swing, fold = np.array([0.05, 0.1, 1.25, 1.25]), np.array([0.0, 0.0, -2.6, -2.6])
        else:
            swing, fold = np.array([0.2, 0.2, 1.35, 1.35]), np.array([1.3, 1.3, -2.7, -2.7])
        # A dog sits with its rump and its forepaws on the ground.
        pitch = np.arcsin(min(0.95 * (upper + lower) / length, 0.9)) if posture == "sit" else 0.0
        raised = np.array([[np.cos(pitch), 0, -np.sin(pitch)], [0, 1, 0], [np.sin(pitch), 0, np.cos(pitch)]])
        rotation, origin = np.empty((11, 3, 3)), np.empty((11, 3))
        rotation[BODY], origin[BODY] = raised, (0, 0, h)
        nod = -0.25 if posture == "walk" else 0.15 * np.sin(2 * np.pi * pose_phase * 3)
        rotation[HEAD] = frames(np.array([np.sin(nod), 0.25 * np.sin(9.0 * pose_phase) * (not moving), -np.cos(nod)]))
        wag = 0.35 * np.sin(4 * np.pi * pose_phase)
        raise_rad = {"up": 1.0, "level": 0.15, "low": -0.9, "stub": 0.2}[self.tail] - 0.5 * (posture in ("sit", "lie"))
        c, s = np.cos(raise_rad), np.sin(raise_rad)
        sideways = np.array([[np.cos(wag), -np.sin(wag), 0], [np.sin(wag), np.cos(wag), 0], [0, 0, 1]])
        rotation[TAIL] = sideways @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        joints = np.array([[0.36, 1.0, -1.0], [0.36, -1.0, -1.0], [-0.38, 0.9, -1.0], [-0.38, -0.9, -1.0]])
        joints = joints * (length, 0.10 * h * self.girth, h - upper - lower)
        origin[list(UPPER)] = (0, 0, h) + joints @ raised.T
        origin[HEAD] = (0, 0, h) + raised @ (0.42 * length, 0, -0.10 * h)
        origin[TAIL] = (0, 0, h) + raised @ (-0.48 * length, 0, -0.10 * h)
        down = np.stack([np.sin(swing), 0 * swing, -np.cos(swing)], axis=-1)
        shank = np.stack([np.sin(swing + fold), 0 * swing, -np.cos(swing + fold)], axis=-1)
        rotation[list(UPPER)] = frames(down)
        rotation[list(LOWER)] = frames(shank)
        origin[list(LOWER)] = origin[list(UPPER)] + upper * down
        return self.rig.posed(rotation, origin)

    def typical_state(self, rng: np.random.Generator, moving: bool) -> HeatState:
        return HeatState(activity_met=float(rng.uniform(2.0, 4.5) if moving else rng.uniform(1.0, 1.5)))

    def heat(self, state: HeatState, air_temperature_k: float) -> tuple[np.ndarray, np.ndarray]:
        celsius, effort = air_temperature_k - 273.15, max(state.activity_met - 1.0, 0.0)
        # Thin hair and vessels of limbs: 5 to 25 W/m2K, as in man.
        tissue = 5.28 + 1.163 * float(np.clip(6.0 * np.exp(0.11 * (celsius - 22.0)) * (1 + 0.3 * effort), 0.5, 30.0))

        def haired(share: float) -> float:
            return 1.0 / (1.0 / (tissue + 4.0) + max(0.5 * share * self.hair_mm, 1.0) * 1e-3 / 0.045)  # hair lies flat

        # Shares of the trunk's hair length: coat, legs, belly, muzzle (with bare nose and eyes), ears, paws, skull.
        hair = [haired(share) for share in (1.0, 0.5, 0.3, 0.12, 0.3, 0.15, 0.4)]
        hair[3] += 4.0
        return heat_table([CORE_K] * 7, hair)
