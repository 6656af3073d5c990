"""What the tags of OpenStreetMap mean on the ground: kinds of area, widths, heights. Pure functions of tags.

Tags are dictionaries of strings, as https://wiki.openstreetmap.org/wiki/Map_features defines them; numbers are
metres. What a mapper left out is filled with what is usual for the kind of thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from thermalreid_ros.maps.classes import SemanticClass

Tags = Mapping[str, str]
GROUND, ROAD, _, VEGETATION, WATER = SemanticClass

STOREY_M = 3.1
SIDEWALK_M = 1.5  # the width of a sidewalk; roads tagged with one have one on each side

# key -> value -> (kind, class). The first key of this order that a shape's tags match decides.
AREAS: dict[str, dict[str, tuple[str, SemanticClass]]] = {
    "natural": {
        "water": ("water", WATER), "hot_spring": ("water", WATER),
        "wood": ("forest", VEGETATION), "tree_group": ("forest", VEGETATION), "scrub": ("scrub", VEGETATION),
        "shrubbery": ("scrub", VEGETATION), "heath": ("scrub", VEGETATION), "moor": ("scrub", VEGETATION),
        "grassland": ("grass", VEGETATION), "fell": ("grass", VEGETATION), "wetland": ("wetland", VEGETATION),
        "beach": ("sand", GROUND), "sand": ("sand", GROUND), "dune": ("sand", GROUND), "shoal": ("sand", GROUND),
        "bare_rock": ("bare", GROUND), "rock": ("bare", GROUND), "scree": ("bare", GROUND),
        "shingle": ("bare", GROUND), "mud": ("bare", GROUND), "glacier": ("bare", GROUND)},
    "waterway": {"riverbank": ("water", WATER), "dock": ("water", WATER), "river": ("water", WATER),
                 "canal": ("water", WATER), "stream": ("water", WATER)},
    "landuse": {
        "basin": ("water", WATER), "reservoir": ("water", WATER), "salt_pond": ("water", WATER),
        "aquaculture": ("water", WATER),
        "forest": ("forest", VEGETATION), "grass": ("grass", VEGETATION), "village_green": ("grass", VEGETATION),
        "recreation_ground": ("grass", VEGETATION), "greenfield": ("grass", VEGETATION),
        "cemetery": ("cemetery", VEGETATION), "meadow": ("meadow", VEGETATION), "farmland": ("farmland", VEGETATION),
        "farm": ("farmland", VEGETATION), "orchard": ("orchard", VEGETATION), "vineyard": ("vineyard", VEGETATION),
        "allotments": ("garden", VEGETATION), "flowerbed": ("garden", VEGETATION),
        "plant_nursery": ("garden", VEGETATION),
        "railway": ("railway", GROUND), "quarry": ("bare", GROUND), "landfill": ("bare", GROUND),
        "brownfield": ("bare", GROUND), "construction": ("bare", GROUND),
        "residential": ("residential", GROUND), "commercial": ("commercial", GROUND), "retail": ("commercial", GROUND),
        "industrial": ("industrial", GROUND), "garages": ("industrial", GROUND), "port": ("industrial", GROUND),
        "depot": ("industrial", GROUND), "farmyard": ("farmyard", GROUND),
        "greenhouse_horticulture": ("farmyard", GROUND), "military": ("industrial", GROUND)},
    "leisure": {
        "swimming_pool": ("water", WATER), "park": ("park", VEGETATION), "garden": ("garden", VEGETATION),
        "golf_course": ("grass", VEGETATION), "common": ("grass", VEGETATION), "dog_park": ("grass", VEGETATION),
        "miniature_golf": ("grass", VEGETATION), "pitch": ("pitch", VEGETATION), "track": ("pitch", GROUND),
        "playground": ("playground", GROUND), "sports_centre": ("sports", GROUND), "stadium": ("sports", GROUND),
        "horse_riding": ("sand", GROUND), "beach_resort": ("sand", GROUND)},
    "golf": {"fairway": ("grass", VEGETATION), "green": ("grass", VEGETATION), "tee": ("grass", VEGETATION),
             "rough": ("grass", VEGETATION), "bunker": ("sand", GROUND), "water_hazard": ("water", WATER),
             "lateral_water_hazard": ("water", WATER)},
    "amenity": {
        "parking": ("parking", ROAD), "motorcycle_parking": ("parking", ROAD), "bicycle_parking": ("parking", ROAD),
        "parking_space": ("parking", ROAD), "taxi": ("parking", ROAD), "bus_station": ("square", ROAD),
        "fuel": ("square", ROAD), "marketplace": ("square", ROAD), "fountain": ("water", WATER),
        "grave_yard": ("cemetery", VEGETATION), "school": ("school", GROUND)},
    "place": {"square": ("square", ROAD)},
    "aeroway": {"aerodrome": ("grass", VEGETATION), "apron": ("square", ROAD), "helipad": ("square", ROAD),
                "runway": ("square", ROAD),
                "taxiway": ("square", ROAD)},
    "man_made": {"bridge": ("bridge", ROAD), "pier": ("pier", ROAD), "quay": ("pier", ROAD),
                 "breakwater": ("breakwater", GROUND), "groyne": ("breakwater", GROUND)},
    "railway": {"platform": ("platform", ROAD)},
    "public_transport": {"platform": ("platform", ROAD)},
    "barrier": {"hedge": ("hedge", VEGETATION)},
    "tourism": {"camp_site": ("grass", VEGETATION), "caravan_site": ("grass", VEGETATION)},
}
ON_WATER = frozenset({"bridge", "pier", "breakwater"})  # drawn over water; other areas under it
SETTLEMENTS = frozenset({"residential", "commercial", "industrial", "farmyard", "school"})  # where houses stand
_HARD_COURTS = frozenset({"tennis", "basketball", "multi", "skateboard", "volleyball", "handball", "netball", "padel",
                          "boules", "petanque", "beachvolleyball", "roller_skating", "bmx", "athletics", "equestrian",
                          "shooting", "running"})
_LINES = frozenset({"hedge", "river", "canal", "stream"})  # areas only where they say so: else closed lines
_SOFT = frozenset({"grass", "artificial_turf"})

# highway value -> (usual width, usual lanes, width of a lane).
ROADS: dict[str, tuple[float, int, float]] = {
    "motorway": (11.0, 2, 3.75), "motorway_link": (6.0, 1, 3.75), "trunk": (8.5, 2, 3.5), "trunk_link": (5.5, 1, 3.5),
    "primary": (8.0, 2, 3.5), "primary_link": (5.0, 1, 3.5), "secondary": (7.0, 2, 3.25),
    "secondary_link": (5.0, 1, 3.25), "tertiary": (6.5, 2, 3.25), "tertiary_link": (4.5, 1, 3.25),
    "unclassified": (5.5, 2, 2.75), "residential": (5.5, 2, 2.75), "living_street": (5.0, 2, 2.75),
    "road": (5.0, 2, 2.75), "busway": (6.5, 2, 3.25), "bus_guideway": (6.5, 2, 3.25), "raceway": (10.0, 1, 10.0),
    "service": (3.5, 1, 3.0), "pedestrian": (5.0, 0, 3.0), "track": (3.0, 1, 2.75), "escape": (4.0, 1, 4.0),
    "footway": (2.0, 0, 2.0), "cycleway": (2.5, 0, 1.5), "path": (1.5, 0, 1.5), "bridleway": (2.0, 0, 2.0),
    "steps": (2.0, 0, 2.0), "runway": (45.0, 0, 45.0), "taxiway": (18.0, 0, 18.0)}
_MARGIN_M = {"motorway": 3.5, "trunk": 1.5}  # hard shoulders and edge strips beside the lanes
_WATERWAYS_M = {"river": 12.0, "canal": 8.0, "stream": 2.0, "ditch": 1.0, "drain": 1.0, "tidal_channel": 6.0}
_STRIPS = {"barrier": {"hedge": (1.5, "hedge", VEGETATION)},
           "man_made": {"pier": (4.0, "pier", ROAD), "breakwater": (6.0, "breakwater", GROUND),
                        "groyne": (4.0, "breakwater", GROUND)}}
_HEIGHTS_M = {
    "garage": 2.8, "garages": 2.8, "shed": 2.5, "hut": 2.8, "carport": 2.6, "roof": 4.5, "kiosk": 3.0, "cabin": 3.5,
    "greenhouse": 4.0, "farm_auxiliary": 5.0, "stable": 5.0, "service": 3.0, "transformer_tower": 8.0,
    "house": 7.0, "detached": 7.0, "semidetached_house": 7.0, "terrace": 8.0, "bungalow": 4.5, "static_caravan": 2.8,
    "residential": 9.0, "apartments": 14.0, "dormitory": 14.0, "hotel": 16.0, "office": 14.0, "hospital": 14.0,
    "commercial": 9.0, "retail": 6.5, "supermarket": 6.5, "industrial": 9.0, "warehouse": 9.0, "hangar": 12.0,
    "barn": 7.0, "church": 14.0, "cathedral": 25.0, "chapel": 7.0, "school": 10.0, "kindergarten": 5.0,
    "university": 14.0, "civic": 10.0, "public": 10.0, "train_station": 9.0, "stadium": 18.0, "grandstand": 9.0,
    "silo": 15.0, "storage_tank": 10.0, "ruins": 3.0, "construction": 6.0, "tower": 20.0, "parking": 9.0}
_NUMBER = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([a-zA-Z'\"]*)")
_UNITS_M = {**dict.fromkeys(("", "m", "mt", "mts", "meter", "meters", "metre", "metres", "metro", "metros"), 1.0),
            "cm": 0.01, "mm": 0.001,
            "km": 1000.0, "ft": 0.3048, "feet": 0.3048, "'": 0.3048, "in": 0.0254, '"': 0.0254}
_WIDEST_STRIP_M = 50.0  # of hedges and piers
_ABSENT = frozenset({"", "no", "none", "false", "0"})
_NOT_STANDING = frozenset({"proposed", "planned", "demolished", "razed", "destroyed", "removed", "dismantled"})


def metres(text: str | None) -> float | None:
    """A length such as '12', '3.5 m', '3,5', '80 cm', "40'" or '40 ft'; None where there is none above zero, or its
    unit is none of length."""
    match = _NUMBER.match(text or "")
    value = float(match[1].replace(",", ".")) * _UNITS_M.get(match[2].lower(), 0.0) if match else 0.0
    return value if value > 0 else None


def layer_of(tags: Tags) -> int:
    """layer=*, or what a bridge or tunnel without one has."""
    try:
        return max(-9, min(9, int(tags["layer"])))
    except (KeyError, ValueError):
        return 1 if is_set(tags, "bridge") else -1 if is_tunnel(tags) else 0


def is_set(tags: Tags, key: str) -> bool:
    return tags.get(key, "") not in _ABSENT


def is_tunnel(tags: Tags) -> bool:
    """Hidden from above: in a tunnel, a culvert, a passage through a building, or indoors."""
    return is_set(tags, "tunnel") or is_set(tags, "covered") or is_set(tags, "indoor") or is_underground(tags)


def is_underground(tags: Tags) -> bool:
    return tags.get("location") in ("underground", "indoor") or tags.get("parking") == "underground"


def area_kind(tags: Tags, from_relation: bool) -> tuple[str, SemanticClass] | None:
    """The kind and class of a closed shape; None where it covers no ground of its own (administrative, indoors...).

    from_relation: whether it is a multipolygon. A closed way of a road is an area only where it says area=yes.
    """
    if is_tunnel(tags) or tags.get("level", "").startswith("-"):
        return None
    solid = from_relation or tags.get("area") == "yes"
    if is_set(tags, "area:highway"):
        return "square", ROAD
    if solid and (tags.get("highway") in ROADS or tags.get("highway") in ("platform", "rest_area")):
        return "square", ROAD
    for key, values in AREAS.items():
        value = tags.get(key, "")
        if value not in values or (value in _LINES and not solid):
            continue
        kind, semantic = values[value]
        if semantic == ROAD and (tags.get("layer", "").startswith("-") or
                                 tags.get("parking") in ("multi-storey", "rooftop", "sheds", "carports")):
            return None
        if tags.get("wetland") in ("tidalflat", "mud", "saltern"):
            return "bare", GROUND
        if kind in ("pitch", "sports"):
            soft = tags["surface"] in _SOFT if "surface" in tags else \
                semantic == VEGETATION and tags.get("sport") not in _HARD_COURTS
            semantic = VEGETATION if soft else GROUND
        return kind, semantic
    return None


def is_building(tags: Tags) -> bool:
    """A building or a part of one that is seen from above."""
    if not (is_set(tags, "building") or is_set(tags, "building:part")) or is_underground(tags) or \
            tags.get("building") in _NOT_STANDING:
        return False
    try:
        return int(tags.get("layer", 0)) >= 0
    except ValueError:
        return True


def building_heights(tags: Tags, footprint_m2: float) -> tuple[float, float]:
    """(height, min_height) of a building or part of one, its roof included. Simple 3D Buildings, then usual ones."""
    height = metres(tags.get("height")) or metres(tags.get("building:height"))
    levels = metres(tags.get("building:levels"))
    if height is None and levels is not None:
        roof = metres(tags.get("roof:height")) or 2.7 * (metres(tags.get("roof:levels")) or 0.0)
        height = levels * STOREY_M + roof
    bottom = metres(tags.get("min_height")) or STOREY_M * (metres(tags.get("building:min_level")) or 0.0)
    if height is None:
        kind = tags.get("building", "yes") if is_set(tags, "building") else tags.get("building:part", "yes")
        height = bottom + _HEIGHTS_M.get(kind, _usual_height(footprint_m2))
    return max(height, bottom + 1.0), bottom


def _usual_height(footprint_m2: float) -> float:
    for limit_m2, height_m in ((25.0, 2.8), (60.0, 4.0), (400.0, 7.5), (1500.0, 9.5)):
        if footprint_m2 < limit_m2:
            return height_m
    return 11.0


def road_kind(tags: Tags) -> str | None:
    """The kind of road that a line is; None for planned, razed or indoor ones and for anything else."""
    kind = tags.get("highway") or tags.get("aeroway")
    if kind not in ROADS or tags.get("area") == "yes" or is_set(tags, "indoor"):
        return None
    return kind


def road_size(kind: str, tags: Tags) -> tuple[float, int, bool]:
    """(width, lanes, oneway) of a road's carriageway."""
    usual_m, usual_lanes, lane_m = ROADS[kind]
    oneway = tags.get("oneway") in ("yes", "1", "-1", "true") or tags.get("junction") == "roundabout" or \
        kind in ("motorway", "motorway_link")
    if oneway and kind in ("unclassified", "residential", "living_street"):
        usual_m, usual_lanes = 4.0, 1
    if kind == "service" and tags.get("service") in ("driveway", "alley", "parking_aisle"):
        usual_m = {"driveway": 3.0, "alley": 3.0, "parking_aisle": 5.0}[tags["service"]]
    tagged_lanes = metres(tags.get("lanes"))
    lanes = max(1, round(tagged_lanes)) if tagged_lanes else usual_lanes
    width = metres(tags.get("width:carriageway")) or metres(tags.get("width")) or metres(tags.get("est_width"))
    if width is None and tagged_lanes:
        width = lanes * lane_m + _MARGIN_M.get(kind, 0.5)
    return min(max(width or usual_m, 0.8), 80.0), lanes, oneway


def has_sidewalk(tags: Tags) -> bool:
    """A sidewalk that belongs to the road, not one with a way of its own."""
    return any(tags.get(key) in ("both", "left", "right", "yes")
               for key in ("sidewalk", "sidewalk:both", "sidewalk:left", "sidewalk:right"))


def railway_width(tags: Tags) -> float | None:
    """The width of a railway's bed; None where none lies in the open."""
    if tags.get("railway") not in ("rail", "light_rail", "tram", "narrow_gauge", "disused", "preserved", "funicular",
                                   "monorail") or is_tunnel(tags):
        return None
    return 2.5 if tags["railway"] in ("tram", "narrow_gauge", "funicular", "monorail") else 3.5


def waterway_width(tags: Tags) -> float | None:
    """The width of a river or stream that is drawn as a line; None where none flows in the open."""
    if tags.get("waterway") not in _WATERWAYS_M or is_tunnel(tags):
        return None
    return min(metres(tags.get("width")) or metres(tags.get("est_width")) or _WATERWAYS_M[tags["waterway"]], 500.0)


def strip(tags: Tags, closed: bool) -> tuple[float, str, SemanticClass] | None:
    """(width, kind, class) of what is drawn as a line but is an area; None for anything else."""
    if (width := waterway_width(tags)) is not None:
        return width, "water", WATER
    if is_tunnel(tags):
        return None
    for key, values in _STRIPS.items():
        found = values.get(tags.get(key, ""))
        if found is not None and not (closed and key == "man_made"):
            return min(metres(tags.get("width")) or found[0], _WIDEST_STRIP_M), *found[1:]
    return None


def tree_height(tags: Tags) -> float:
    return min(metres(tags.get("height")) or {"needleleaved": 11.0}.get(tags.get("leaf_type", ""), 8.0), 60.0)


def tree_kind(tags: Tags) -> str:
    kind = tags.get("leaf_type", "")
    return kind if kind in ("broadleaved", "needleleaved") else ""
