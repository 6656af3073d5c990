"""What surfaces are made of: how they look, how they take the sun's heat, how they hold it and how they radiate.

Sources. Conductivity, density, heat capacity: F. P. Incropera et al., Fundamentals of Heat and Mass Transfer, app. A;
EN ISO 10456. Emissivity 8-14 um: T. R. Oke, Boundary Layer Climates, 1987, table 8.1; S. K. Meerdink et al., The
ECOSTRESS spectral library, Remote Sensing of Environment 230, 2019. Moisture, backs and noises are our choices, checked
against measured temperatures in docs/thermal_physics.md. Leaves over soil: fresh mass of 0.4 to 2 kg/m2, over 2 to 4 cm
of still air and the exchange of radiation through it; on clear nights they fall below bare soil (R. Brugge, Contrasts
between air and grass minimum temperatures, Weather 66, 2011). Their patches are tufts, those of soil are its moisture.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np


class Surface(IntEnum):
    """Materials by name; values index MATERIALS and are stored in meshes and ground plans."""

    ASPHALT = 0
    CONCRETE = 1
    PAVING = 2
    GRAVEL = 3
    SOIL = 4
    SAND = 5
    GRASS = 6
    DRY_GRASS = 7
    CROP = 8
    WATER = 9
    ROAD_PAINT = 10
    BALLAST = 11
    FOREST_FLOOR = 12
    ARTIFICIAL_TURF = 13
    ROOF_TILES = 14
    ROOF_BITUMEN = 15
    ROOF_GRAVEL = 16
    ROOF_METAL = 17  # bare: galvanised steel, zinc, aluminium
    ROOF_METAL_PAINTED = 18
    ROOF_CONCRETE = 19
    WALL_PLASTER = 20
    WALL_BRICK = 21
    WALL_CONCRETE = 22
    WALL_WOOD = 23
    WALL_METAL = 24
    WINDOW = 25
    FOLIAGE = 26
    BARK = 27
    CAR_PAINT = 28
    CAR_GLASS = 29
    RUBBER = 30
    PLASTIC = 31
    BARE_METAL = 32  # chrome, rims, spokes
    SKIN = 33
    HAIR = 34
    COTTON = 35  # light clothing, close to the body
    JACKET = 36  # insulating clothing
    LEATHER = 37  # shoes, bags, saddles
    FUR = 38
    PAINTED_TUBE = 39  # bicycle frames
    LAMP_GLASS = 40


BACKS = ("adiabatic", "ground", "interior", "air", "cabin", "body", "water")  # what lies behind the last layer
BODY_K = 306.5  # skin under clothes, and of bare hands and faces in mild air


@dataclass(frozen=True)
class Material:
    """One surface.

    albedo_rgb: linear sRGB reflectance, the default colour. nir_offset: reflectance of the near infrared less that of
    the visible. transmits: share of the sun's heat that passes through. emissivity: 8-14 um, along the normal.
    thickness_m: of the layer that stores heat, down to `back` (one of BACKS), which it meets through back_w_m2k.
    evaporation: 0 dry .. 1 as open water, by day. moved_air: convection against that of a smooth plate. mirror: share
    of the reflection in the thermal band that is a mirror's. roughness: 0 mirror .. 1 matt, visible. visible_noise:
    standard deviation of the texture, relative; thermal_noise_k: the same of the temperature; noise_scale_m: size of
    the patches. canopy_j_m2k, canopy_w_m2k: heat capacity of the leaves above, which the sun meets and a camera sees,
    and their conductance to the soil below, through still air; 0 for bare surfaces.
    """

    name: str
    albedo_rgb: tuple[float, float, float]
    nir_offset: float
    emissivity: float
    conductivity_w_mk: float
    density_kg_m3: float
    heat_capacity_j_kgk: float
    thickness_m: float
    back: str = "ground"
    back_w_m2k: float = 1.0
    evaporation: float = 0.0
    mirror: float = 0.0
    roughness: float = 1.0
    moved_air: float = 1.0
    transmits: float = 0.0
    visible_noise: float = 0.1
    thermal_noise_k: float = 0.3
    noise_scale_m: float = 1.0
    canopy_j_m2k: float = 0.0
    canopy_w_m2k: float = 0.0


MATERIALS: tuple[Material, ...] = (
    Material("asphalt", (0.085, 0.083, 0.08), 0.03, 0.95, 1.2, 2300, 920, 0.6, moved_air=1.0, visible_noise=0.15,
             thermal_noise_k=0.5, noise_scale_m=3.0),
    Material("concrete", (0.31, 0.30, 0.28), 0.05, 0.94, 1.6, 2300, 900, 0.6, visible_noise=0.1, thermal_noise_k=0.4,
             noise_scale_m=2.0),
    Material("paving", (0.26, 0.25, 0.23), 0.05, 0.94, 1.3, 2200, 900, 0.6, visible_noise=0.12, thermal_noise_k=0.5,
             noise_scale_m=0.6),
    Material("gravel", (0.27, 0.25, 0.22), 0.06, 0.93, 0.7, 1700, 850, 0.6, moved_air=1.3, visible_noise=0.2,
             thermal_noise_k=0.8, noise_scale_m=0.5),
    Material("soil", (0.16, 0.11, 0.075), 0.12, 0.95, 0.8, 1500, 1200, 0.6, evaporation=0.15, moved_air=1.3,
             visible_noise=0.2, thermal_noise_k=0.8, noise_scale_m=3.0),
    Material("sand", (0.42, 0.35, 0.25), 0.1, 0.93, 0.4, 1550, 850, 0.6, evaporation=0.03, moved_air=1.1,
             visible_noise=0.1, thermal_noise_k=0.6, noise_scale_m=1.5),
    Material("grass", (0.06, 0.11, 0.035), 0.33, 0.98, 0.7, 1400, 1300, 0.6, evaporation=0.55, moved_air=2.2,
             visible_noise=0.2, thermal_noise_k=0.8, noise_scale_m=0.8, canopy_j_m2k=4000, canopy_w_m2k=7.0),
    Material("dry grass", (0.23, 0.19, 0.1), 0.2, 0.97, 0.5, 1400, 1000, 0.6, evaporation=0.1, moved_air=2.0,
             visible_noise=0.2, thermal_noise_k=1.0, noise_scale_m=0.8, canopy_j_m2k=1500, canopy_w_m2k=5.0),
    Material("crop", (0.08, 0.12, 0.04), 0.33, 0.98, 0.7, 1400, 1300, 0.6, evaporation=0.55, moved_air=2.6,
             visible_noise=0.18, thermal_noise_k=0.7, noise_scale_m=1.0, canopy_j_m2k=8000, canopy_w_m2k=6.0),
    Material("water", (0.02, 0.035, 0.04), -0.01, 0.985, 500.0, 1000, 4186, 1.2, back="water", back_w_m2k=20.0,
             evaporation=1.0, mirror=0.9, roughness=0.05, visible_noise=0.05, thermal_noise_k=0.1, noise_scale_m=6.0),
    Material("road paint", (0.7, 0.7, 0.67), 0.0, 0.93, 1.2, 2300, 920, 0.6, visible_noise=0.12, thermal_noise_k=0.4,
             noise_scale_m=0.5),
    Material("ballast", (0.16, 0.145, 0.13), 0.04, 0.94, 0.6, 1600, 850, 0.6, moved_air=1.6, visible_noise=0.25,
             thermal_noise_k=1.0, noise_scale_m=0.3),
    Material("forest floor", (0.09, 0.07, 0.04), 0.12, 0.97, 0.5, 1100, 1500, 0.6, evaporation=0.35, moved_air=1.2,
             visible_noise=0.25, thermal_noise_k=0.8, noise_scale_m=0.8, canopy_j_m2k=3000, canopy_w_m2k=6.0),
    Material("artificial turf", (0.05, 0.1, 0.04), 0.06, 0.95, 0.15, 500, 1500, 0.3, moved_air=1.2, visible_noise=0.06,
             thermal_noise_k=0.6, noise_scale_m=2.0),
    Material("roof tiles", (0.30, 0.13, 0.08), 0.12, 0.93, 0.9, 1900, 880, 0.018, "air", 3.0, evaporation=0.02,
             moved_air=1.1, visible_noise=0.15, thermal_noise_k=0.6, noise_scale_m=0.8),
    Material("roof bitumen", (0.09, 0.09, 0.09), 0.02, 0.93, 0.2, 1100, 1300, 0.008, "interior", 0.4,
             visible_noise=0.12, thermal_noise_k=0.6, noise_scale_m=3.0),
    Material("roof gravel", (0.26, 0.25, 0.23), 0.05, 0.93, 0.5, 1700, 850, 0.05, "interior", 0.4, moved_air=1.3,
             visible_noise=0.2, thermal_noise_k=0.6, noise_scale_m=1.0),
    Material("bare metal roof", (0.48, 0.49, 0.5), 0.06, 0.25, 50.0, 7500, 470, 0.0012, "interior", 0.5, mirror=0.85,
             roughness=0.35, visible_noise=0.06, thermal_noise_k=0.2, noise_scale_m=2.0),
    Material("painted metal roof", (0.25, 0.27, 0.29), 0.05, 0.9, 50.0, 7800, 470, 0.0012, "interior", 0.5, mirror=0.15,
             roughness=0.4, visible_noise=0.05, thermal_noise_k=0.3, noise_scale_m=2.0),
    Material("roof concrete", (0.28, 0.27, 0.25), 0.05, 0.94, 1.4, 2200, 900, 0.06, "interior", 0.5, visible_noise=0.12,
             thermal_noise_k=0.5, noise_scale_m=2.0),
    Material("plaster wall", (0.55, 0.5, 0.42), 0.06, 0.93, 0.7, 1600, 900, 0.2, "interior", 0.8, visible_noise=0.06,
             thermal_noise_k=0.3, noise_scale_m=3.0),
    Material("brick wall", (0.3, 0.14, 0.09), 0.14, 0.93, 0.75, 1800, 850, 0.24, "interior", 0.8, visible_noise=0.15,
             thermal_noise_k=0.3, noise_scale_m=0.3),
    Material("concrete wall", (0.33, 0.32, 0.3), 0.05, 0.94, 1.6, 2300, 900, 0.2, "interior", 1.2, visible_noise=0.08,
             thermal_noise_k=0.3, noise_scale_m=2.0),
    Material("wooden wall", (0.28, 0.17, 0.09), 0.2, 0.92, 0.14, 550, 1700, 0.025, "interior", 0.6, visible_noise=0.18,
             thermal_noise_k=0.4, noise_scale_m=0.2),
    Material("metal wall", (0.4, 0.42, 0.44), 0.05, 0.88, 50.0, 7800, 470, 0.001, "interior", 0.5, mirror=0.2,
             roughness=0.4, visible_noise=0.04, thermal_noise_k=0.2, noise_scale_m=1.0),
    Material("window", (0.06, 0.07, 0.08), 0.1, 0.86, 1.0, 2500, 840, 0.006, "interior", 3.0, mirror=0.95,
             roughness=0.03, transmits=0.6, visible_noise=0.03, thermal_noise_k=0.2, noise_scale_m=1.0),
    Material("foliage", (0.05, 0.09, 0.03), 0.36, 0.98, 0.3, 300, 3000, 0.003, "air", 14.0, evaporation=0.4,
             moved_air=3.0, visible_noise=0.25, thermal_noise_k=0.6, noise_scale_m=0.5),
    Material("bark", (0.12, 0.09, 0.065), 0.12, 0.95, 0.15, 500, 1700, 0.05, "adiabatic", 0.0, moved_air=1.5,
             visible_noise=0.2, thermal_noise_k=0.4, noise_scale_m=0.1),
    Material("car paint", (0.2, 0.2, 0.2), -0.08, 0.93, 50.0, 7800, 470, 0.0008, "cabin", 2.0, mirror=0.5,
             roughness=0.1, visible_noise=0.01, thermal_noise_k=0.1, noise_scale_m=0.3),
    Material("car glass", (0.05, 0.06, 0.06), 0.1, 0.86, 1.0, 2500, 840, 0.004, "cabin", 5.0, mirror=0.95,
             roughness=0.02, transmits=0.45, visible_noise=0.01, thermal_noise_k=0.1, noise_scale_m=0.3),
    Material("rubber", (0.03, 0.03, 0.03), 0.01, 0.95, 0.2, 1150, 1700, 0.012, "adiabatic", 0.0, visible_noise=0.05,
             thermal_noise_k=0.3, noise_scale_m=0.1),
    Material("plastic", (0.06, 0.06, 0.06), 0.05, 0.93, 0.2, 1050, 1500, 0.003, "air", 4.0, mirror=0.2, roughness=0.4,
             visible_noise=0.03, thermal_noise_k=0.2, noise_scale_m=0.1),
    Material("bare metal", (0.6, 0.6, 0.6), 0.03, 0.2, 100.0, 5000, 600, 0.003, "adiabatic", 0.0, mirror=0.8,
             roughness=0.15, visible_noise=0.02, thermal_noise_k=0.1, noise_scale_m=0.1),
    Material("skin", (0.45, 0.27, 0.19), 0.15, 0.98, 0.37, 1050, 3500, 0.002, "body", 40.0, evaporation=0.1,
             roughness=0.6, moved_air=1.8, visible_noise=0.05, thermal_noise_k=0.4, noise_scale_m=0.1),
    Material("hair", (0.06, 0.04, 0.03), 0.1, 0.97, 0.05, 300, 1500, 0.01, "body", 8.0, roughness=0.7,
             moved_air=1.8, visible_noise=0.1, thermal_noise_k=0.4, noise_scale_m=0.05),
    Material("cotton", (0.3, 0.3, 0.3), 0.2, 0.95, 0.06, 350, 1300, 0.002, "body", 12.0, moved_air=1.8,
             visible_noise=0.08, thermal_noise_k=0.6, noise_scale_m=0.1),
    Material("jacket", (0.1, 0.1, 0.12), 0.2, 0.94, 0.05, 150, 1300, 0.004, "body", 4.0, roughness=0.8,
             moved_air=1.8, visible_noise=0.08, thermal_noise_k=0.6, noise_scale_m=0.12),
    Material("leather", (0.08, 0.06, 0.05), 0.15, 0.95, 0.16, 900, 1500, 0.003, "body", 5.0, roughness=0.5,
             moved_air=1.8, visible_noise=0.05, thermal_noise_k=0.3, noise_scale_m=0.05),
    Material("fur", (0.15, 0.11, 0.07), 0.15, 0.98, 0.05, 60, 1500, 0.01, "body", 3.5,
             moved_air=1.8, visible_noise=0.15, thermal_noise_k=0.5, noise_scale_m=0.05),
    Material("painted tube", (0.2, 0.2, 0.2), 0.04, 0.92, 50.0, 7800, 470, 0.0015, "adiabatic", 0.0, mirror=0.3,
             roughness=0.2, moved_air=2.5, visible_noise=0.01, thermal_noise_k=0.1, noise_scale_m=0.1),
    Material("lamp glass", (0.4, 0.4, 0.4), 0.1, 0.88, 1.0, 2500, 840, 0.003, "air", 3.0, mirror=0.9, roughness=0.05,
             transmits=0.5, visible_noise=0.01, thermal_noise_k=0.1, noise_scale_m=0.1),
)


@dataclass(frozen=True, eq=False)
class MaterialArrays:
    """MATERIALS as arrays indexed by Surface; float32 but for back (index into BACKS)."""

    albedo_rgb: np.ndarray  # (M, 3)
    nir_offset: np.ndarray
    emissivity: np.ndarray
    conductivity_w_mk: np.ndarray
    density_kg_m3: np.ndarray
    heat_capacity_j_kgk: np.ndarray
    thickness_m: np.ndarray
    back: np.ndarray
    back_w_m2k: np.ndarray
    evaporation: np.ndarray
    mirror: np.ndarray
    roughness: np.ndarray
    moved_air: np.ndarray
    transmits: np.ndarray
    visible_noise: np.ndarray
    thermal_noise_k: np.ndarray
    noise_scale_m: np.ndarray
    canopy_j_m2k: np.ndarray
    canopy_w_m2k: np.ndarray


@cache
def material_arrays() -> MaterialArrays:
    """The table in columns, for vectorised look-up by surface."""
    columns = {name: np.array([getattr(material, name) for material in MATERIALS], np.float32)
               for name in MaterialArrays.__dataclass_fields__ if name != "back"}
    for column in columns.values():
        column.setflags(write=False)
    back = np.array([BACKS.index(material.back) for material in MATERIALS], np.uint8)
    return MaterialArrays(back=back, **columns)


def absorptivity(surface: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Share of the sun's heat that is absorbed, float32 (N,), of surfaces (N,) with colours (N, 3), linear reflectance.

    The sun's energy is about half visible, half near infrared; the near infrared reflectance is the visible one
    shifted by the material's nir_offset. The channels count evenly: by energy, not by what the eye sees.
    """
    table, colour = material_arrays(), np.asarray(colour, np.float32)
    visible = (colour[:, 0] + colour[:, 1] + colour[:, 2]) * np.float32(1 / 3)
    near_infrared = np.clip(visible + table.nir_offset[surface], np.float32(0.02), np.float32(0.95))
    return (np.float32(1) - np.float32(0.5) * (visible + near_infrared)) * (np.float32(1) - table.transmits[surface])
