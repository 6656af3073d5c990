"""The page's part about a search: photograph, thermal probes, ranked candidates, and the place that was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import cv2
import numpy as np

from thermalreid_ros.camera.crops import square_crop
from thermalreid_ros.camera.geometry import LocalGrid
from thermalreid_ros.detection.types import Detection
from thermalreid_ros.evaluation.localization_drawing import ESTIMATE, TRUTH, covariance_ellipse, map_picture
from thermalreid_ros.evaluation.page_flight import data_uri
from thermalreid_ros.evaluation.search import Search, SearchFrame
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.reid.gallery import Match

ROWS, CROP_PX = 6, 64
PROBE_PX = (148, 148)  # at most, wide and high
MAP_M, MAP_PX = (150.0, 75.0), 1200
FIRST, OTHERS = "#c8431b", "#d0a000"
_WEBP = (cv2.IMWRITE_WEBP_QUALITY, 80)


def search_section(found: Search, grid: LocalGrid, semantic_map: SemanticMap, *, photographed: str,
                   flown: str) -> str:
    """The part of the page, HTML. grid: of the city that was searched. photographed, flown: when, in words."""
    frame = found.frames[found.shown]
    height, width = frame.gray8.shape
    photo_height, photo_width = found.photograph.shape[:2]
    low, high = (float(np.percentile(np.concatenate([probe.ravel() for probe in found.probes]), share))
                 for share in (1, 99))
    box = found.box
    pictures = "".join(_probe(probe, low, high, number) for number, probe in enumerate(found.probes, 1))
    place, marks = _marks(found, grid, semantic_map)
    map_px = (MAP_PX, round(MAP_PX * MAP_M[1] / MAP_M[0]))
    picture = map_picture(semantic_map, place, MAP_M, max(MAP_M[0] / MAP_PX, semantic_map.resolution_m))
    return Template((Path(__file__).parent / "page_search.html").read_text()).substitute(
        description=escape(found.description), photographed=escape(photographed), flown=escape(flown),
        tiles=_tiles(found), photo=data_uri(".webp", found.photograph[..., ::-1], _WEBP),
        photo_width=photo_width, photo_height=photo_height, box_x=f"{box[0]:.1f}", box_y=f"{box[1]:.1f}",
        box_width=f"{box[2] - box[0]:.1f}", box_height=f"{box[3] - box[1]:.1f}", probes=pictures,
        coldest=f"{low:.0f}", hottest=f"{high:.0f}", frame=found.shown + 1, frames=len(found.frames),
        picture=data_uri(".webp", frame.gray8, _WEBP), width=width, height=height, boxes=_boxes(frame),
        rows=_rows(frame, found.accept_probability), verdict=escape(_verdict(frame, found.accept_probability)),
        map=data_uri(".png", picture[..., ::-1]), map_width=map_px[0], map_height=map_px[1], marks=marks,
        across=f"{MAP_M[0]:.0f}", attribution=escape(semantic_map.attribution))


def _probe(probe: np.ndarray, low: float, high: float, number: int) -> str:
    grey = np.clip((probe - low) / max(high - low, 0.1) * 255.0, 0, 255).astype(np.uint8)
    uri = data_uri(".png", cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO))
    scale = min(PROBE_PX[0] / probe.shape[1], PROBE_PX[1] / probe.shape[0])
    return (f'<figure><img src="{uri}" alt="thermal probe {number}" width="{scale * probe.shape[1]:.0f}" '
            f'height="{scale * probe.shape[0]:.0f}"><figcaption>probe {number}, mean {probe.mean():.0f} °C</figcaption>'
            "</figure>")


def _tiles(found: Search) -> str:
    seen = [frame for frame in found.frames if frame.true_box is not None]
    first = [frame for frame in seen if frame.ranking.matches and frame.is_true(1)]
    accepted = [frame for frame in found.frames if frame.ranking.accepted is not None]
    wrong = [frame for frame in accepted if not frame.is_true(1)]
    errors = [float(np.hypot(*(frame.target.position_m - frame.true_m))) for frame in accepted
              if frame.target is not None and frame.true_m is not None]
    reach = [frame.target.reach_m for frame in accepted if frame.target is not None]
    tiles = [(f"{len(first)} / {len(seen)}", "frames that show the object rank it first"),
             (f"{len(accepted) - len(wrong)} / {len(accepted)}", "accepted matches are it"),
             ("–" if not errors else f"{np.median(errors):.1f} m", "median error of reid/target"),
             ("–" if not reach else f"{np.median(reach):.1f} m", "half the long axis of its 95 % ellipse"),
             (f"{found.accept_probability:.0%}", "probability from which a match is accepted")]
    return "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
                   for value, name in tiles)


def _boxes(frame: SearchFrame) -> str:
    def rectangle(box: Detection, colour: str, more: str, grow: float = 0.0) -> str:
        return (f'<rect x="{box.x_min - grow:.1f}" y="{box.y_min - grow:.1f}" width="{box.width + 2 * grow:.1f}" '
                f'height="{box.height + 2 * grow:.1f}" fill="none" stroke="{colour}" {more}/>')

    parts = [] if frame.true_box is None else [rectangle(frame.true_box, "#fff",
                                                         'stroke-width="1.5" stroke-dasharray="4 3"', 4.0)]
    for match in reversed(frame.ranking.matches):
        best = match.rank == 1
        box, colour = match.detection, FIRST if best else OTHERS
        parts.append(rectangle(box, colour, f'stroke-width="{2.4 if best else 1.3}"'))
        if match.rank <= ROWS:
            parts.append(f'<text x="{box.x_min:.1f}" y="{max(box.y_min - 6, 12):.1f}" fill="{colour}" font-size="13" '
                         f'font-weight="700" font-family="system-ui, sans-serif">{match.rank}</text>')
    return "".join(parts)


def _rows(frame: SearchFrame, least: float) -> str:
    return "".join(_row(frame, match, least) for match in frame.ranking.matches[:ROWS])


def _row(frame: SearchFrame, match: Match, least: float) -> str:
    box = match.detection
    crop = square_crop(frame.gray8, (box.x_min, box.y_min, box.x_max, box.y_max), 2 * CROP_PX)
    known = [("histogram", match.distance.histogram, ".2f"), ("blobs", match.distance.mser, ".2f"),
             ("embedding", match.embedding, ".2f"), ("size", match.size_m, ".1f")]
    why = ", ".join(f"{name} {value:{form}}{' m' if name == 'size' else ''}" for name, value, form in known
                    if not math.isnan(value))
    chance = "–" if math.isnan(match.probability) else f"{match.probability:.0%}"
    bar = 0.0 if math.isnan(match.probability) else 90.0 * match.probability
    classes = " ".join(name for name, holds in (("true", frame.is_true(match.rank)),
                                                ("below", not match.probability >= least)) if holds)
    return (f'<tr class="{classes}"><td>{match.rank}</td><td><img alt="" src="{data_uri(".webp", crop, _WEBP)}"></td>'
            f'<td><span class="bar" style="width:{bar:.0f}px"></span>{chance}</td><td>{escape(box.class_name)}, track '
            f'{match.track_id}, {match.length} frames<br><small>{escape(why)}</small></td></tr>')


def _verdict(frame: SearchFrame, least: float) -> str:
    rank = next((match.rank for match in frame.ranking.matches if frame.is_true(match.rank)), None)
    truth = "The object is not in this frame." if frame.true_box is None else \
        "The object is in this frame, and was not detected." if rank is None else f"The object is ranked {rank}."
    accepted = frame.ranking.accepted
    said = f"No match reaches {least:.0%}: it is said not to be here." if accepted is None else \
        f"The first match is accepted with {accepted.probability:.0%}."
    return f"{said} {truth}"


def _marks(found: Search, grid: LocalGrid, semantic_map: SemanticMap) -> tuple[np.ndarray, str]:
    """(middle of the map's picture on its grid, what is drawn onto it)."""
    def on_map(place: Sequence[float]) -> np.ndarray:
        return np.array([float(v) for v in semantic_map.grid.from_geographic(*grid.to_geographic(*place))])

    frame = found.frames[found.shown]
    truth = [on_map(one.true_m) for one in found.frames if one.true_m is not None]
    targets = [on_map(one.target.position_m) for one in found.frames if one.target is not None]
    middle = on_map(frame.place.position_m) if frame.place is not None else (truth or targets or [np.zeros(2)])[-1]
    scale = MAP_PX / MAP_M[0]

    def pixel(place: np.ndarray) -> tuple[float, float]:
        x, y = (place - middle) * scale
        return 0.5 * MAP_PX + float(x), 0.5 * MAP_PX * MAP_M[1] / MAP_M[0] - float(y)

    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ESTIMATE}"/>' for x, y in map(pixel, targets)]
    if frame.place is not None:
        x, y = pixel(middle)
        width, height, angle = covariance_ellipse(frame.place.covariance_m2)
        dashes = "" if frame.target is not None else 'stroke-dasharray="7 5" '
        parts.append(f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{0.5 * width * scale:.1f}" '
                     f'ry="{0.5 * height * scale:.1f}" transform="rotate({-angle:.1f} {x:.1f} {y:.1f})" '
                     f'{dashes}fill="{ESTIMATE}2b" stroke="{ESTIMATE}" stroke-width="2.5"/>'
                     f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{ESTIMATE}"/>')
    if frame.true_m is not None:
        x, y = pixel(on_map(frame.true_m))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="none" stroke="{colour}" stroke-width="{stroke}"/>'
                  for colour, stroke in (("#fff", 6), (TRUTH, 3))]
    return middle, "".join(parts)
