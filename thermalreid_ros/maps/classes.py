"""The one table of semantic classes: of maps, masks, labellings and the networks' semantic channels."""

from __future__ import annotations

from enum import IntEnum


class SemanticClass(IntEnum):
    """What the ground is covered with, seen from above. Values are pixel values."""

    GROUND = 0  # bare or unknown ground: yards, soil, sand, gravel
    ROAD = 1  # paved surfaces for traffic: carriageways, paths, squares, car parks
    BUILDING = 2
    VEGETATION = 3  # grass, crops, shrubs, trees
    WATER = 4


CLASS_COUNT = len(SemanticClass)
NO_DATA = 255  # outside of the mapped area; never a class of the world
CLASS_NAMES = tuple(member.name.lower() for member in SemanticClass)
# RGB, of previews and overlays.
CLASS_COLOURS_RGB = ((222, 214, 196), (105, 105, 112), (196, 78, 62), (104, 158, 84), (70, 130, 190))
