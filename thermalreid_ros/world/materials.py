"""What surfaces are made of."""

from __future__ import annotations

from enum import IntEnum


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
