"""Small OpenStreetMap files, written in metres around a place in UTM zone 33, and towns made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

pytest.importorskip("osmium", reason="maps are built by osmium")
pytest.importorskip("shapely", reason="maps are built by shapely")

from thermalreid_ros.camera.geometry import LocalGrid  # noqa: E402
from thermalreid_ros.maps.build import build_map  # noqa: E402
from thermalreid_ros.maps.store import SemanticMap  # noqa: E402

GRID = LocalGrid("EPSG:32633", 544400.0, 5361000.0)


class OsmFile:
    """Nodes, ways and multipolygons; x east, y north from GRID's origin, within [0, width] x [0, height]."""

    def __init__(self, width_m: float = 400.0, height_m: float = 300.0, header: bool = True):
        self._nodes: dict[int, str] = {}
        self._ways: list[str] = []
        self._relations: list[str] = []
        self._points: dict[tuple[float, float], int] = {}
        (south, north), (west, east) = GRID.to_geographic([0.0, width_m], [0.0, height_m])
        self.bbox = (west, south, east, north)
        self._bounds = f'<bounds minlat="{south:.7f}" minlon="{west:.7f}" maxlat="{north:.7f}" maxlon="{east:.7f}"/>' \
            if header else ""

    def node(self, x: float, y: float, *, missing: bool = False, **tags: str) -> int:
        """The number of a node; a missing one is only spoken of."""
        number = self._points.setdefault((x, y), len(self._points) + 1) if not tags else 100000 + len(self._nodes)
        latitude, longitude = GRID.to_geographic(x, y)
        if not missing:
            self._nodes[number] = (f'<node id="{number}" lat="{latitude:.7f}" lon="{longitude:.7f}" version="1" '
                                   f'timestamp="2020-02-03T04:05:06Z">{_tags(tags)}</node>')
        return number

    def way(self, points, tags: dict[str, str] | None = None, missing: tuple[int, ...] = (),
            written: bool = True) -> int:
        """The number of a way through points; missing: which of its nodes the extract has left out."""
        number = 1000 + len(self._ways)
        refs = "".join(f'<nd ref="{self.node(*point, missing=i in missing)}"/>' for i, point in enumerate(points))
        self._ways.append(f'<way id="{number}" version="1" timestamp="2020-02-03T04:05:06Z">{refs}'
                          f'{_tags(tags or {})}</way>' if written else "")
        return number

    def box(self, x0: float, y0: float, x1: float, y1: float, tags: dict[str, str] | None = None) -> int:
        return self.way([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], tags)

    def scatter(self, count: int, within: tuple[float, float], wide: tuple[float, float], deep: tuple[float, float],
                seed: int = 3, **building: str) -> None:
        """So many woods, then car parks, then buildings with these tags, nowhere alike: their south-western corners
        in [0, within], with sides in these ranges."""
        rng = np.random.default_rng(seed)
        for kind in ({"landuse": "forest"}, {"amenity": "parking"}, {"building": "yes", **building}):
            for _ in range(count):
                x, y = rng.uniform((0, 0), within).round(1)
                self.box(x, y, x + rng.uniform(*wide), y + rng.uniform(*deep), kind)

    def multipolygon(self, members: list[tuple[int, str]], tags: dict[str, str]) -> None:
        refs = "".join(f'<member type="way" ref="{number}" role="{role}"/>' for number, role in members)
        self._relations.append(f'<relation id="{5000 + len(self._relations)}" version="1" '
                               f'timestamp="2020-02-03T04:05:06Z">{refs}{_tags({"type": "multipolygon", **tags})}'
                               '</relation>')

    def write(self, path: Path, reverse: bool = False, drafts: bool = False) -> Path:
        """Write it; in reverse order on request, or with the negative numbers of objects that were never uploaded."""
        if not self._nodes:
            self.node(0.0, 0.0)  # a file without any is refused
        nodes = [self._nodes[number] for number in sorted(self._nodes)]
        objects = [*nodes, *self._ways, *self._relations]
        text = "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', '<osm version="0.6">', self._bounds,
                          *(objects[::-1] if reverse else objects), "</osm>"])
        path.write_text(re.sub(r' (id|ref)="', r' \1="-', text) if drafts else text, encoding="utf-8")
        return path


@contextmanager
def opened_map(osm: OsmFile, folder: Path) -> Iterator[SemanticMap]:
    """The semantic map made of a file, as folder/map.tif."""
    build_map(osm.write(folder / "area.osm"), folder / "map.tif")
    with SemanticMap.open(folder / "map.tif") as semantic_map:
        yield semantic_map


def _tags(tags: dict[str, str]) -> str:
    return "".join(f"<tag k={quoteattr(key)} v={quoteattr(value)}/>" for key, value in tags.items())
