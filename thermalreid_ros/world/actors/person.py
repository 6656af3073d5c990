"""Persons: children and adults, walking, standing or sitting, in what they wear.

Segment lengths are shares of stature after Drillis & Contini (1964), as tabled in Winter, Biomechanics and Motor
Control of Human Movement (2009); statures after NCD-RisC (eLife 5, 2016). Gait angles follow Winter's averages.

Heat. The body core is held at 310 K. From there to the skin, tissue conducts 5.3 W/m2K plus 1.16 for each
L/(m2 h) of skin blood flow (two-node model of Gagge, Stolwijk & Nishi, ASHRAE Trans. 77, 1971); cold closes the
vessels of hands and limbs but not those of the face. Clothing adds 0.155 m2K/W for each clo; local values of
garments are their ISO 9920 whole-body values divided by the share of the body they cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from thermalreid_ros.world.actors.identity import HeatState, Identity, heat_table, pick, shade
from thermalreid_ros.world.actors.parts import Coat, Colour, Rig, box, ellipsoid, frames, limb, loft, ovals, painted
from thermalreid_ros.world.materials import Surface
from thermalreid_ros.world.mesh import Mesh

CORE_K = 310.0
CLO_M2K_W = 0.155

#: Bones; those of the left side come first of each pair.
PELVIS, TORSO, HEAD, UPPER_ARM, FOREARM, THIGH, SHIN, FOOT = 0, 1, 2, (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)
BONES = 13

# Shares of stature (Drillis & Contini).
HIP_HALF, HIP, WAIST, SHOULDER, NECK, SHOULDER_HALF = 0.052, 0.530, 0.600, 0.804, 0.835, 0.106
UPPER_ARM_LENGTH, FOREARM_LENGTH, THIGH_LENGTH, SHIN_LENGTH, ANKLE = 0.186, 0.150, 0.245, 0.246, 0.039

_CLOTH = {
    "white": (0.70, 0.70, 0.68), "black": (0.015, 0.015, 0.016), "grey": (0.20, 0.20, 0.21),
    "navy": (0.02, 0.03, 0.09), "blue": (0.05, 0.14, 0.42), "light blue": (0.32, 0.46, 0.62),
    "red": (0.45, 0.03, 0.03), "green": (0.05, 0.20, 0.07), "olive": (0.11, 0.12, 0.05),
    "yellow": (0.68, 0.48, 0.05), "orange": (0.62, 0.20, 0.03), "pink": (0.62, 0.26, 0.32),
    "beige": (0.45, 0.37, 0.26), "brown": (0.10, 0.055, 0.03), "purple": (0.15, 0.05, 0.24),
}
_TOP_WEIGHTS = {"white": 0.15, "black": 0.2, "grey": 0.13, "navy": 0.09, "blue": 0.07, "light blue": 0.05, "red": 0.07,
                "green": 0.04, "olive": 0.04, "yellow": 0.03, "orange": 0.02, "pink": 0.04, "beige": 0.05,
                "brown": 0.02, "purple": 0.02}
_BOTTOM_WEIGHTS = {"navy": 0.28, "black": 0.25, "blue": 0.15, "grey": 0.1, "beige": 0.1, "olive": 0.04, "white": 0.03,
                   "brown": 0.04, "light blue": 0.05}
_SKIN = {"pale": (0.58, 0.39, 0.30), "fair": (0.50, 0.32, 0.23), "tanned": (0.36, 0.21, 0.13),
         "brown": (0.20, 0.10, 0.06), "dark": (0.08, 0.042, 0.027)}
_HAIR = {"black": (0.012, 0.01, 0.009), "brown": (0.05, 0.03, 0.018), "light brown": (0.14, 0.09, 0.05),
         "blond": (0.38, 0.27, 0.13), "red": (0.22, 0.07, 0.02), "grey": (0.32, 0.32, 0.31)}

#: Garment for the trunk: weight, local insulation in clo, loose fit in metres, long sleeves, insulating.
_TOPS = {"tank top": (0.06, 0.3, 0.004, False, False), "T-shirt": (0.34, 0.4, 0.006, False, False),
         "shirt": (0.17, 0.6, 0.008, True, False), "hoodie": (0.14, 1.0, 0.014, True, False),
         "jacket": (0.14, 1.6, 0.022, True, True), "coat": (0.08, 2.0, 0.026, True, True),
         "down jacket": (0.07, 2.8, 0.038, True, True)}


@dataclass(frozen=True)
class Person(Identity):
    class_name: ClassVar[str] = "person"
    zones: ClassVar[tuple[str, ...]] = ("passive", "face", "limbs", "hands", "top", "bottom", "hair", "headwear",
                                        "shoes", "bag")

    kind: str  # man, woman, boy, girl
    stature_m: float
    girth: float  # 1 is average
    skin: Colour
    hair: Colour
    hair_style: str  # bald, short, long, bun
    headwear: str  # '', cap, beanie, hat, headscarf, helmet
    headwear_colour: Colour
    top: str
    top_colour_name: str
    top_colour: Colour
    bottom: str  # trousers, shorts, skirt, dress
    bottom_colour_name: str
    bottom_colour: Colour
    shoe_colour: Colour
    bag: str  # '', backpack, shoulder bag
    bag_colour: Colour
    top_clo: float
    bottom_clo: float
    stride: float  # amplitude of the thigh's swing, rad

    @classmethod
    def drawn(cls, number: int, seed: int, rng: np.random.Generator, rider: bool = False) -> Person:
        """rider: dressed for a bicycle: no skirts, hats or coats; a helmet more often than not."""
        kind = pick(rng, {"man": 0.42, "woman": 0.42, "boy": 0.08, "girl": 0.08} if not rider else
                    {"man": 0.55, "woman": 0.45})
        adult, female = kind in ("man", "woman"), kind in ("woman", "girl")
        stature = (float(np.clip(rng.normal(1.64 if female else 1.77, 0.065), 1.48, 1.96)) if adult else
                   float(rng.uniform(1.10, 1.55)))
        girth = float(np.clip(rng.lognormal(0.0, 0.12), 0.82, 1.4)) * (1.0 if adult else 0.97)
        weights = {name: values[0] for name, values in _TOPS.items()}
        if rider:
            del weights["coat"]
        top = pick(rng, weights)
        warm = _TOPS[top][4]
        if warm:
            bottoms = {"trousers": 0.92, "skirt": 0.08 if female and not rider else 0.0}
        elif rider or not female:
            bottoms = {"trousers": 0.6, "shorts": 0.4}
        else:
            bottoms = {"trousers": 0.45, "shorts": 0.2, "skirt": 0.17, "dress": 0.18}
        bottom = pick(rng, bottoms)
        top_colour = pick(rng, _TOP_WEIGHTS)
        top_rgb = shade(rng, _CLOTH[top_colour], 0.2)
        bottom_colour = top_colour if bottom == "dress" else pick(rng, _BOTTOM_WEIGHTS)
        bottom_rgb = top_rgb if bottom == "dress" else shade(rng, _CLOTH[bottom_colour], 0.2)
        style = pick(rng, {"short": 0.2, "long": 0.6, "bun": 0.2} if female else
                     {"short": 0.85, "bald": 0.1 if adult else 0.0, "long": 0.05})
        heads = {"": 0.4, "helmet": 0.6} if rider else {
            "": 0.74, "cap": 0.11, "beanie": 0.16 if warm else 0.01, "hat": 0.05 if not warm else 0.01,
            "headscarf": 0.05 if female and adult else 0.0}
        headwear = pick(rng, heads)
        bag = pick(rng, {"": 0.6, "backpack": 0.25, "shoulder bag": (0.2 if female else 0.05) * (not rider)})
        return cls(
            number, seed, kind, stature, girth, shade(rng, _SKIN[pick(rng, {"pale": 0.25, "fair": 0.4, "tanned": 0.17,
                                                                           "brown": 0.1, "dark": 0.08})], 0.08),
            shade(rng, _HAIR[pick(rng, {"black": 0.25, "brown": 0.34, "light brown": 0.15, "blond": 0.1, "red": 0.03,
                                        "grey": 0.13 if adult else 0.0})], 0.15),
            style, headwear, shade(rng, _CLOTH[pick(rng, _TOP_WEIGHTS)], 0.2), top, top_colour, top_rgb, bottom,
            bottom_colour, bottom_rgb, shade(rng, _CLOTH[pick(rng, {"black": 0.45, "white": 0.25, "brown": 0.2,
                                                                    "grey": 0.1})], 0.2),
            bag, shade(rng, _CLOTH[pick(rng, _TOP_WEIGHTS)], 0.2), _TOPS[top][1] * float(rng.uniform(0.8, 1.25)),
            {"trousers": 0.6, "shorts": 0.45, "skirt": 0.5, "dress": 0.4}[bottom] * float(rng.uniform(0.8, 1.25)),
            float(rng.uniform(0.30, 0.42)))

    @property
    def description(self) -> str:
        below = f"{self.bottom_colour_name} {self.bottom}"
        if self.bottom in ("skirt", "dress"):
            below = f"{'an' if below[0] == 'o' else 'a'} {below}"
        clothes = "dress" if self.bottom == "dress" and not _TOPS[self.top][4] else f"{self.top} and {below}"
        extras = "".join(f", a {item}" for item in (self.headwear, self.bag) if item)
        article = "an" if self.top_colour_name[0] == "o" else "a"
        return f"{self.kind} of {self.stature_m:.2f} m in {article} {self.top_colour_name} {clothes}{extras}"

    @cached_property
    def rig(self) -> Rig:
        """The body in its clothes, as bones that hang from their joints."""
        h = self.stature_m
        child = self.kind in ("boy", "girl")
        female = self.kind == "woman"
        _, _, loose, long_sleeves, insulating = _TOPS[self.top]
        g = self.girth
        skin, limbs, hands = (Coat(Surface.SKIN, self.skin, zone) for zone in (1, 2, 3))
        top = Coat(Surface.JACKET if insulating else Surface.COTTON, self.top_colour, 4)
        bottom = Coat(Surface.COTTON, self.bottom_colour, 5)
        hair = Coat(Surface.HAIR, self.hair, 6)
        shoes = Coat(Surface.LEATHER, self.shoe_colour, 8)
        parts = []
        # Trunk: half-widths (y) and half-depths (x) as shares of stature.
        hips_wide = np.array([0.060, 0.100, 0.088, 0.070] if female else [0.058, 0.092, 0.084, 0.074])
        hips_deep = np.array([0.045, 0.066, 0.060, 0.048])
        hips = ovals(np.array([-0.055, -0.015, 0.045, 0.09]) * h, hips_deep * g * h + 0.004,
                     hips_wide * g * h + 0.004, 8, roundness=0.85)
        parts.append((PELVIS, painted(loft(hips), bottom)))
        depth = np.array([0.058, 0.060, 0.068, 0.060, 0.038]) * g * h + loose
        wide = np.array([0.082, 0.083, 0.097, 0.100, 0.054] if female else [0.085, 0.092, 0.106, 0.109, 0.060])
        wide = wide * g**0.8 * h + loose
        trunk = ovals(np.array([-0.035, 0.05, 0.13, 0.18, 0.218]) * h, depth, wide, 8, roundness=0.85)
        parts.append((TORSO, painted(loft(trunk, end=(0, 0, 0.24 * h)), top)))
        # Neck and head; children's heads are nearly as large as adults'.
        head = (0.165 if child else 0.128) * 0.5 * h
        neck = np.array([0.031, 0.029]) * h
        parts.append((HEAD, painted(loft(ovals((-0.03 * h, 0.05 * h), neck, neck, 6)), skin)))
        centre = (0.012 * h, 0.0, (1.0 - NECK) * h - head)
        skull = ellipsoid(centre, (0.80 * head, 0.66 * head, head), 4, 8)
        normal = skull[0][skull[1]].mean(axis=1) - centre
        normal /= (0.80 * head, 0.66 * head, head)
        hairy = normal[:, 2] + 0.55 * (-normal[:, 0]) > (0.1 if self.hair_style != "bald" else 9)
        parts.append((HEAD, painted(skull, [skin, hair], hairy.astype(int))))
        if self.hair_style == "long":
            parts.append((HEAD, painted(ellipsoid((centre[0] - 0.45 * head, 0, centre[2] - 0.65 * head),
                                                  (0.5 * head, 0.72 * head, 1.15 * head), 3, 8), hair)))
        elif self.hair_style == "bun":
            parts.append((HEAD, painted(ellipsoid((centre[0] - 0.8 * head, 0, centre[2] + 0.45 * head),
                                                  np.full(3, 0.42 * head), 3, 6), hair)))
        parts += [(HEAD, mesh) for mesh in self._headwear(centre, head)]
        # Arms and legs.
        sleeve = loose
        lower_sleeve = top if long_sleeves else limbs
        for side in (0, 1):
            upper = limb(UPPER_ARM_LENGTH * h, 0.029 * g * h + sleeve, 0.025 * g * h + sleeve)
            parts.append((UPPER_ARM[side], painted(upper, limbs if self.top == "tank top" else top)))
            thick = sleeve if long_sleeves else 0.0
            fore = limb(FOREARM_LENGTH * h, 0.025 * g * h + thick, 0.018 * g * h + thick)
            parts.append((FOREARM[side], painted(fore, lower_sleeve)))
            hand = ellipsoid((0.005 * h, 0, -(FOREARM_LENGTH + 0.045) * h), (0.026 * h, 0.014 * h, 0.055 * h), 2, 5)
            parts.append((FOREARM[side], painted(hand, hands)))
            covered = self.bottom == "trousers"
            cloth = 0.008 if covered else 0.0
            thigh = limb(THIGH_LENGTH * h, 0.051 * g * h + cloth, 0.037 * g * h + cloth)
            wide = 0.012 if self.bottom == "shorts" else 0.0
            thigh = (thigh[0] * (1 + wide / (0.05 * h), 1 + wide / (0.05 * h), 1), thigh[1])
            parts.append((THIGH[side], painted(thigh, bottom if self.bottom in ("trousers", "shorts") else limbs)))
            shin = limb(SHIN_LENGTH * h, 0.036 * g * h + cloth, 0.022 * g * h + 1.5 * cloth, bulge=1.15)
            parts.append((SHIN[side], painted(shin, bottom if covered else limbs)))
            foot = loft(ovals(np.array([-ANKLE * h, -0.5 * ANKLE * h, 0.2 * ANKLE * h]),
                              np.array([0.076, 0.074, 0.03]) * h, np.array([0.027, 0.027, 0.02]) * h, 6,
                              np.array([0.033, 0.031, 0.0]) * h, 0.8))
            parts.append((FOOT[side], painted(foot, shoes)))
        if self.bottom in ("skirt", "dress"):
            cone = ovals(np.array([-0.20, -0.08, 0.03, 0.09]) * h, np.array([0.125, 0.10, 0.07, 0.058]) * g * h + 0.005,
                         np.array([0.135, 0.118, 0.10, 0.082]) * g * h + 0.005, 8)
            parts.append((PELVIS, painted(loft(cone), bottom)))
        if self.top in ("coat", "hoodie", "down jacket", "jacket", "shirt"):
            # The hem of the garment over the hips; a coat's reaches the thighs.
            reach = -0.17 if self.top == "coat" else -0.035
            low_deep, low_wide = (0.088, 0.108) if self.top == "coat" else (0.070, 0.099)
            hem = ovals(np.array([reach, 0.5 * reach, 0.04, 0.085]) * h,
                        np.array([low_deep, 0.075, 0.065, 0.052]) * g * h + loose,
                        np.array([low_wide, 0.104, 0.093, 0.076]) * g * h + loose, 8, roundness=0.85)
            parts.append((PELVIS, painted(loft(hem), top)))
        if self.bag == "backpack":
            back = -(0.066 * g * h + loose)
            pack = loft(ovals(np.array([-0.01, 0.03, 0.15, 0.20]) * h, np.array([0.044, 0.058, 0.052, 0.033]) * h,
                              np.array([0.075, 0.085, 0.08, 0.055]) * h, 8, back - 0.03 * h, 0.6))
            parts.append((TORSO, painted(pack, Coat(Surface.COTTON, self.bag_colour, 9))))
        elif self.bag == "shoulder bag":
            y = 0.115 * g * h + loose
            parts.append((PELVIS, painted(box((-0.10 * h, y, -0.07 * h), (0.09 * h, y + 0.05 * h, 0.08 * h)),
                                          Coat(Surface.LEATHER, self.bag_colour, 9))))
        return Rig.of(parts)

    def _headwear(self, centre: tuple[float, float, float], head: float) -> list[Mesh]:
        coat = Coat(Surface.PLASTIC if self.headwear == "helmet" else Surface.COTTON, self.headwear_colour, 7)
        x, y, z = centre

        def crown(low: float, grow: float, tall: float) -> np.ndarray:
            level = np.array([low, 0.45, 0.8])
            radius = np.sqrt(1 - level**2) * grow
            return ovals(z + level * head * tall, 0.82 * head * radius, 0.70 * head * radius, 8, x)

        if not self.headwear:
            return []
        if self.headwear == "headscarf":
            hood = ellipsoid((x - 0.12 * head, y, z - 0.06 * head), np.array([0.80, 0.80, 1.08]) * head, 4, 8)
            return [painted(hood, coat), painted(loft(ovals((z - 1.7 * head, z - 0.7 * head), (0.75 * head, 0.6 * head),
                                                               (0.95 * head, 0.6 * head), 8, x - 0.1 * head)), coat)]
        grow, tall, low = {"cap": (1.06, 1.05, 0.25), "beanie": (1.10, 1.12, -0.05), "hat": (1.06, 1.08, 0.25),
                           "helmet": (1.22, 1.16, 0.15)}[self.headwear]
        meshes = [painted(loft(crown(low, grow, tall), end=(x, y, z + head * tall)), coat)]
        if self.headwear == "cap":
            meshes.append(painted(loft(ovals((z + 0.25 * head, z + 0.31 * head), np.full(2, 0.62 * head),
                                             np.full(2, 0.55 * head), 8, x + 0.75 * head)), coat))
        elif self.headwear == "hat":
            meshes.append(painted(loft(ovals((z + 0.25 * head, z + 0.31 * head), np.full(2, 1.55 * head),
                                             np.full(2, 1.45 * head), 10, x)), coat))
        return meshes

    def mesh(self, pose_phase: float = 0.0, moving: bool = False) -> Mesh:
        """Walking when moving. At rest a phase below 0.9 stands (shifting weight), one from there on sits on the
        ground, unless dressed in a skirt or a coat."""
        if not moving and pose_phase >= 0.9 and self.bottom not in ("skirt", "dress") and self.top != "coat":
            return self.posed(*self._sitting())
        return self.posed(*(self._walking(pose_phase) if moving else self._standing(pose_phase)))

    def posed(self, joints: np.ndarray, lean: float, feet: np.ndarray, grounded: bool = True) -> Mesh:
        """The mesh with joints at given places: [hips centre, neck, shoulder, elbow, wrist, hip, knee, ankle] and
        (but for the first two) left and right: (8, 2, 3), the first two in column 0. lean: of the trunk, forwards,
        rad. feet: (2, 3), the directions in which the soles look."""
        rotation, origin = np.empty((BONES, 3, 3)), np.empty((BONES, 3))
        hips, neck = joints[0, 0], joints[1, 0]
        tilt = lean * np.array([0.4, 1.0, 0.3])
        upright = frames(np.stack([-np.sin(tilt), 0 * tilt, -np.cos(tilt)], axis=-1))
        rotation[[PELVIS, TORSO, HEAD]] = upright
        origin[PELVIS], origin[HEAD] = hips, neck
        origin[TORSO] = neck - upright[1] @ (0, 0, (NECK - WAIST) * self.stature_m)
        shoulder, elbow, wrist, hip, knee, ankle = joints[2:]
        for bones, root, tip in ((UPPER_ARM, shoulder, elbow), (FOREARM, elbow, wrist), (THIGH, hip, knee),
                                 (SHIN, knee, ankle)):
            bones = list(bones)
            rotation[bones], origin[bones] = frames(tip - root), root
        rotation[list(FOOT)], origin[list(FOOT)] = frames(feet), ankle
        return self.rig.posed(rotation, origin, grounded)

    def trunk(self, hips: np.ndarray, lean: float) -> tuple[np.ndarray, np.ndarray]:
        """Neck (3,) and shoulders (2, 3) above the middle of the hips when the trunk leans forwards."""
        h = self.stature_m
        bend_m = (WAIST - HIP) * h
        waist = hips + bend_m * np.array([np.sin(0.4 * lean), 0, np.cos(0.4 * lean)])
        up = np.array([np.sin(lean), 0, np.cos(lean)])
        wide = SHOULDER_HALF * h * self.girth**0.8 * (0.93 if self.kind == "woman" else 1.0)
        shoulder = waist + (SHOULDER - WAIST) * h * up + np.array([[0, wide, 0], [0, -wide, 0]])
        return waist + (NECK - WAIST) * h * up, shoulder

    def hip_joints(self, hips: np.ndarray) -> np.ndarray:
        return hips + np.array([[0, 1, 0], [0, -1, 0]]) * HIP_HALF * self.stature_m

    def _swung(self, thigh: np.ndarray, knee: np.ndarray, arm: np.ndarray, elbow: np.ndarray, lean: float,
               foot: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Joints from angles (2,) in the plane of motion: forward swing of thighs and arms, flexion of knees and
        elbows, all in rad."""
        h = self.stature_m
        hips = np.array([0.0, 0.0, HIP * h])
        joints = np.zeros((8, 2, 3))
        joints[0, 0] = hips
        joints[1, 0], joints[2] = self.trunk(hips, lean)

        def down(angle: np.ndarray) -> np.ndarray:
            return np.stack([np.sin(angle), 0 * angle, -np.cos(angle)], axis=-1)

        out = np.array([[0, 1, 0], [0, -1, 0]]) * (0.10 + 0.25 * max(self.girth - 1, 0))
        joints[3] = joints[2] + UPPER_ARM_LENGTH * h * (down(arm) + out)
        joints[4] = joints[3] + FOREARM_LENGTH * h * (down(arm + elbow) + 0.3 * out)
        joints[5] = self.hip_joints(hips)
        joints[6] = joints[5] + THIGH_LENGTH * h * down(thigh)
        joints[7] = joints[6] + SHIN_LENGTH * h * down(thigh - knee)
        return joints, lean, down(foot)

    def _walking(self, phase: float) -> tuple[np.ndarray, float, np.ndarray]:
        angle = 2 * np.pi * phase + np.array([0.0, np.pi])
        thigh = 0.05 + self.stride * np.cos(angle)
        knee = 0.12 + 0.80 * np.maximum(np.sin(angle - 0.96 * np.pi), 0) * self.stride / 0.38
        foot = np.where(thigh - knee < -0.25, 0.7 * (thigh - knee + 0.25), 0.5 * np.maximum(thigh - 0.15, 0))
        return self._swung(thigh, knee, -0.75 * self.stride * np.cos(angle), np.array([0.35, 0.35]), 0.06, foot)

    def _standing(self, phase: float) -> tuple[np.ndarray, float, np.ndarray]:
        shift = 0.06 * np.sin(2 * np.pi * phase)
        thigh, knee = np.array([0.03 + shift, 0.03 - shift]), np.array([0.04, 0.04]) + max(shift, 0)
        # Some hold a phone or a bag before them.
        elbow = np.where(phase > 0.6, np.array([0.3, 1.5]), np.array([0.2, 0.2]))
        return self._swung(thigh, knee, np.array([-0.02, 0.04]), elbow, 0.03, np.zeros(2))

    def _sitting(self) -> tuple[np.ndarray, float, np.ndarray]:
        thigh, knee = np.array([2.25, 1.9]), np.array([2.2, 1.55])
        return self._swung(thigh, knee, np.array([0.75, -0.35]), np.array([0.5, 0.15]), -0.1, thigh - knee + 0.25)

    def typical_state(self, rng: np.random.Generator, moving: bool) -> HeatState:
        """Standing 1.2-1.6 met, walking 2.4-3.8 met (ISO 8996)."""
        return HeatState(activity_met=float(rng.uniform(2.4, 3.8) if moving else rng.uniform(1.0, 1.6)))

    def heat(self, state: HeatState, air_temperature_k: float) -> tuple[np.ndarray, np.ndarray]:
        celsius, effort = air_temperature_k - 273.15, max(state.activity_met - 1.0, 0.0)
        # Skin blood flow, L/(m2 h): 6.3 at rest and comfort (Gagge), falling in the cold, rising with heat and work.
        flow = np.clip(6.3 * np.exp(0.11 * (celsius - 24.0)) * (1 + 0.35 * effort), 0.5, 60.0)
        limbs = 5.28 + 1.163 * flow
        hands = 3.0 + 1.163 * flow * 1.4
        face = max(limbs, 22.0 + 2.0 * effort)
        under_top = 5.28 + 1.163 * max(flow, 4.0)  # a dressed trunk stays supplied

        def dressed(tissue: float, clo: float) -> float:
            return 1.0 / (1.0 / tissue + CLO_M2K_W * clo)

        head_clo = {"": 0.0, "cap": 0.5, "beanie": 1.2, "hat": 0.6, "headscarf": 0.6, "helmet": 1.6}[self.headwear]
        hair_clo = {"bald": 0.0, "short": 0.5, "long": 0.9, "bun": 0.9}[self.hair_style]
        # A bag's outside gets the warmth of the wearer through clothes and contents of some 4 clo.
        return heat_table([CORE_K] * 9, [
            face, limbs, hands, dressed(under_top, self.top_clo), dressed(limbs, self.bottom_clo),
            dressed(face, hair_clo), dressed(face, hair_clo + head_clo), dressed(hands, 1.0),
            dressed(under_top, self.top_clo + 4.0)])
