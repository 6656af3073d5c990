"""Surfaces from lines: the sea from coastlines, and areas whose outlines an extract has cut.

All in the plane of whatever coordinates the lines are in, x to the right and y up; sides do not change when the
axes are stretched, so degrees do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import shapely
from shapely import LineString, Polygon, STRtree


def sea(coastlines: Sequence[np.ndarray], extent: Polygon) -> list[Polygon]:
    """The water within an extent: what lies to the right of its coastlines (https://wiki.openstreetmap.org/wiki/
    Tag:natural=coastline).

    coastlines: arrays (N, 2) in the direction of their ways. Where one ends within the extent it is continued
    to the nearest edge: the extract has been cut there. No coastline, no sea.
    """
    faces, tree, _ = _faces(coastlines, extent)
    if not faces:
        return []
    right, left, length = _sides(coastlines, tree)
    votes = np.zeros(len(faces))
    np.add.at(votes, right[right >= 0], length[right >= 0])
    np.add.at(votes, left[left >= 0], -length[left >= 0])
    # A face that meets no coast, only continued lines, is what most of its neighbours are.
    for _ in range(len(faces)):
        silent = np.flatnonzero(votes == 0)
        borders = [(face, [other for other in tree.query(faces[face], predicate="intersects") if votes[other] != 0])
                   for face in silent]
        heard = {face: np.sign(sum(np.sign(votes[other]) * faces[face].boundary.intersection(
            faces[other].boundary).length for other in others)) for face, others in borders if others}
        if not any(heard.values()):
            break
        for face, vote in heard.items():
            votes[face] = vote
    return [face for face, vote in zip(faces, votes) if vote > 0]


def area_of(lines: Sequence[np.ndarray]) -> shapely.Geometry:
    """What closed outlines, in pieces (N, 2), enclose; outlines within outlines are holes, and so on.

    Where two outlines run along each other there is no edge: two holes side by side are one hole.
    """
    return shapely.build_area(shapely.union_all(_edges(lines))) if lines else Polygon()


def _edges(lines: Sequence[np.ndarray]) -> list[LineString]:
    """Lines without the segments that two of them share; lines that are there twice count once."""
    steps = [np.stack([line[:-1], line[1:]], axis=1) for line in lines]
    # The end that comes first by x, then by y, is put first, so that segments compare whichever way they are drawn.
    steps = [np.where(((step[:, 0] > step[:, 1]) @ (2, 1) > (step[:, 1] > step[:, 0]) @ (2, 1))[:, None, None],
                      step[:, ::-1], step) for step in steps]
    unlike = {np.unique(step.reshape(-1, 4), axis=0).tobytes(): number for number, step in enumerate(steps)}
    found, counts = np.unique(np.concatenate([steps[k] for k in unlike.values()]).reshape(-1, 4), axis=0,
                              return_counts=True)
    if counts.max() == 1:
        return [LineString(line) for line in lines]
    return [LineString(step.reshape(2, 2)) for step in found[counts % 2 == 1]]


def is_closed(lines: Sequence[np.ndarray]) -> bool:
    """Whether lines, joined at their ends, are rings without loose ends."""
    ends: dict[tuple[float, float], int] = {}
    for line in lines:
        for end in (tuple(line[0].tolist()), tuple(line[-1].tolist())):
            ends[end] = ends.get(end, 0) + 1
    return all(count % 2 == 0 for count in ends.values())


def area_of_cut(lines: Sequence[np.ndarray], extent: Polygon,
                misfit: Callable[[list[Polygon]], float]) -> list[Polygon]:
    """What outlines enclose within an extent that has cut them.

    Crossing an outline leads in or out, so that there are two answers, each the other's complement: the one of less
    misfit(polygons) is given; of equal misfit, the smaller.
    """
    faces, tree, edges = _faces(lines, extent)
    if len(faces) < 2:
        return []
    right, left, _ = _sides(edges, tree)
    inside = np.full(len(faces), -1)
    links: dict[int, set[int]] = {}
    for a, b in zip(right.tolist(), left.tolist()):
        if a >= 0 and b >= 0 and a != b:
            links.setdefault(a, set()).add(b)
            links.setdefault(b, set()).add(a)
    for start in range(len(faces)):
        if inside[start] < 0 and start in links:
            inside[start], queue = 0, [start]
            while queue:
                face = queue.pop()
                for other in sorted(links[face]):
                    if inside[other] < 0:
                        inside[other] = 1 - inside[face]
                        queue.append(other)
    answers = [[face for face, side in zip(faces, inside) if side == value] for value in (0, 1)]
    return min(answers, key=lambda polygons: (misfit(polygons), sum(polygon.area for polygon in polygons)))


def _faces(lines: Sequence[np.ndarray], extent: Polygon) -> tuple[list[Polygon], STRtree, list[np.ndarray]]:
    """The pieces into which lines, continued where they end within it, cut an extent; their index; the lines, cut
    at each other."""
    shapes = [LineString(line) for line in lines if len(line) > 1]
    shapes = [shape for shape in shapes if shape.intersects(extent)]
    if not shapes:
        return [], STRtree([]), []
    shapes += _continuations(shapes, extent)
    inner = shapely.intersection(shapely.union_all(shapes), extent)
    noded = shapely.union_all([inner, extent.boundary])
    faces = [face for face in shapely.get_parts(shapely.polygonize([noded])) if face.area > 0]
    pieces = [np.asarray(part.coords) for part in shapely.get_parts(inner) if isinstance(part, LineString)]
    return faces, STRtree(faces), pieces


def _continuations(shapes: list[LineString], extent: Polygon) -> list[LineString]:
    """Straight lines from ends within the extent to the nearest place of its edge."""
    merged = shapely.get_parts(shapely.line_merge(shapely.union_all(shapes)))
    ends = [line.coords[i] for line in merged if isinstance(line, LineString) and not line.is_closed for i in (0, -1)]
    loose = [shapely.Point(end) for end in sorted(set(ends)) if ends.count(end) == 1]
    # A degree of longitude is shorter than one of latitude: what is near is judged in equal ones.
    level = np.array([np.cos(np.radians(extent.centroid.y)), 1.0])
    edge = shapely.transform(extent.boundary, lambda points: points * level)
    return [LineString([end, shapely.shortest_line(shapely.Point(end.x * level[0], end.y), edge).coords[1] / level])
            for end in loose if extent.contains(end)]


def _sides(lines: Sequence[np.ndarray], tree: STRtree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(face right of, face left of, length) of each segment of lines; -1 for none."""
    starts = np.concatenate([line[:-1] for line in lines])
    ends = np.concatenate([line[1:] for line in lines])
    step = ends - starts
    length = np.hypot(*step.T)
    solid = length > 0
    starts, ends, step, length = starts[solid], ends[solid], step[solid], length[solid]
    normal = np.stack([step[:, 1], -step[:, 0]], axis=1)  # to the right, as long as the segment
    middle = (starts + ends) / 2
    sides = []
    for sign in (1e-4, -1e-4):
        found = np.full(len(middle), -1)
        point, face = tree.query(shapely.points(middle + sign * normal), predicate="intersects")
        found[point] = face
        sides.append(found)
    return sides[0], sides[1], length
