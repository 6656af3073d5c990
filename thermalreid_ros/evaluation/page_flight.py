"""The page's part about a flight: truth, odometry alone and what was published, over the map, frame by frame."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.evaluation.flight_input import Flight, OdometryEvent, PriorEvent
from thermalreid_ros.evaluation.localization import CHI2_95, dead_reckoning, error_figures
from thermalreid_ros.evaluation.localization_drawing import (ESTIMATE, ODOMETRY, PRIOR, VERDICT_COLOURS,
                                                             covariance_ellipse, map_picture)
from thermalreid_ros.evaluation.replay import Replay
from thermalreid_ros.evaluation.replay_places import PlaceRecord
from thermalreid_ros.localization.types import Verdict
from thermalreid_ros.maps.store import SemanticMap

PICTURE_SIZE, PICTURE_QUALITY = (400, 320), 45
MARGIN_M, NEAR_M = 90.0, 160.0  # around all that is shown; across the close-up
OVERTAKEN = "overtaken"  # of frames of which the node said nothing
_PLOT_WIDTH, _PLOT_HEIGHT, _LEFT = 1160, 150, 44
_TOP_M = (20.0, 60.0)  # of the plot of errors, at least and at most


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """One frame of a flight, places in metres of the map's grid. fix: None where none was published. covariance_m2:
    (2, 2), axes of the grid."""

    seconds: float
    true_m: np.ndarray
    odometry_m: np.ndarray
    verdict: str
    reason: str
    fix_m: np.ndarray | None = None
    covariance_m2: np.ndarray | None = None

    @property
    def error_m(self) -> float | None:
        return None if self.fix_m is None else float(np.hypot(*(self.fix_m - self.true_m)))

    @property
    def held(self) -> bool:
        """Whether the 95 % ellipse holds the truth."""
        away = self.fix_m - self.true_m
        return float(away @ np.linalg.solve(self.covariance_m2, away)) <= CHI2_95


@dataclass(frozen=True, eq=False)
class ShownFlight:
    name: str
    frames: Sequence[ShownFrame]
    pictures: Sequence[np.ndarray]  # uint8 (H, W), of each frame
    prior_m: np.ndarray
    prior_sigma_m: float
    command: str

    @property
    def blind_m(self) -> np.ndarray:
        """Where odometry, begun at the rough prior, has the camera: float64 (F, 2)."""
        way = np.array([frame.odometry_m for frame in self.frames])
        return self.prior_m + way - way[0]


def shown_flight(flight: Flight, semantic_map: SemanticMap, places: Mapping[int, PlaceRecord]) -> ShownFlight:
    """A flight with what nodes said of its frames, by stamp."""
    odometry, prior = [], None
    for event in flight.events():
        if isinstance(event, OdometryEvent):
            odometry.append((event.stamp_ns, *event.position_m[:2]))
        elif isinstance(event, PriorEvent) and prior is None:
            prior = event
    stamps = [int(stamp_ns) for stamp_ns in flight.stamps_ns]
    way = dead_reckoning(flight, np.array(odometry), stamps)
    pictures = dict(flight.pictures())
    frames = [_shown(flight, semantic_map, stamp_ns, at, places.get(stamp_ns)) for stamp_ns, at in zip(stamps, way)
              if stamp_ns in pictures]
    return ShownFlight(flight.name, frames, [pictures[s] for s in stamps if s in pictures],
                       np.array([prior.x, prior.y]), prior.sigma_m, flight.custom.get("command", ""))


def _shown(flight: Flight, semantic_map: SemanticMap, stamp_ns: int, odometry_m: np.ndarray,
           place: PlaceRecord | None) -> ShownFrame:
    seconds, true_m = (stamp_ns - flight.stamps_ns[0]) / 1e9, flight.place(stamp_ns)
    if place is None or place.fix is None:
        verdict, reason = (place.verdict, place.reason) if place and place.verdict else \
            (OVERTAKEN, "a newer frame came before it was worked on")
        return ShownFrame(seconds, true_m, odometry_m, verdict, reason)
    fix_m = np.array(semantic_map.grid.from_geographic(*place.fix), np.float64)
    c, s = np.cos(flight.convergence_rad), np.sin(flight.convergence_rad)
    turn = np.array([[c, -s], [s, c]])  # true axes to those of the grid
    return ShownFrame(seconds, true_m, odometry_m, Verdict.LOCALIZED.value, "", fix_m,
                      turn @ np.reshape(place.covariance_m2, (2, 2)) @ turn.T)


def flight_section_of(replay: Replay) -> str:
    """The part of the page about the recording of a flight that was replayed with a map."""
    with SemanticMap.open(replay.map) as semantic_map, Flight(replay.bag, semantic_map) as flight:
        return flight_section(shown_flight(flight, semantic_map, replay.places), semantic_map)


def flight_section(shown: ShownFlight, semantic_map: SemanticMap) -> str:
    """The part of the page, HTML with a script of its own."""
    low, high, metres_per_pixel = _extent(shown, semantic_map)
    size = high - low
    width, height = (round(float(side / metres_per_pixel)) for side in size)
    picture = map_picture(semantic_map, 0.5 * (low + high), tuple(size),
                          max(0.6 * metres_per_pixel, semantic_map.resolution_m))  # finer, for the close-up

    def pixel(place: np.ndarray) -> list[float]:
        return [round(float((place[0] - low[0]) / metres_per_pixel), 1),
                round(float((high[1] - place[1]) / metres_per_pixel), 1)]

    places = {number: _LEFT + (number + 0.5) / len(shown.frames) * (_PLOT_WIDTH - _LEFT)
              for number in range(len(shown.frames))}
    data = [_frame(frame, pixel, metres_per_pixel, places[number]) for number, frame in enumerate(shown.frames)]
    for item, grey in zip(data, shown.pictures):
        small = cv2.resize(grey, PICTURE_SIZE, interpolation=cv2.INTER_AREA)
        item["picture"] = data_uri(".webp", small, (cv2.IMWRITE_WEBP_QUALITY, PICTURE_QUALITY))
    fixes = [frame for frame in shown.frames if frame.fix_m is not None]
    fixed = [number for number, frame in enumerate(shown.frames) if frame.fix_m is not None]
    return Template((Path(__file__).parent / "page_flight.html").read_text()).substitute(
        name=escape(shown.name), tiles=_tiles(shown, fixes), map=data_uri(".png", picture[..., ::-1], (
            cv2.IMWRITE_PNG_COMPRESSION, 9)), width=width, height=height, prior=_circle(
                pixel(shown.prior_m), shown.prior_sigma_m / metres_per_pixel),
        truth=_points(map(pixel, (frame.true_m for frame in shown.frames))),
        odometry=_points(map(pixel, (frame.odometry_m for frame in shown.frames))),
        blind=_points(map(pixel, shown.blind_m)),
        fixes="".join(f'<circle cx="{x}" cy="{y}" r="1.6"/>' for x, y in (pixel(frame.fix_m) for frame in fixes)),
        bar=_scale_bar(height, metres_per_pixel), chart=_chart(shown, places), verdicts=_legend(shown),
        command=escape(shown.command), attribution=escape(semantic_map.attribution), data=script_json(data),
        near=f"{NEAR_M:.0f}", reach=f"{0.5 * NEAR_M / metres_per_pixel:.1f}",
        first=fixed[min(10, len(fixed) - 1)] if fixed else 0)


def _extent(shown: ShownFlight, semantic_map: SemanticMap) -> tuple[np.ndarray, np.ndarray, float]:
    """South-west and north-east corner of what is shown, four wide to three high, and its metres a pixel."""
    ways = np.vstack([[frame.true_m, frame.odometry_m] for frame in shown.frames] + [shown.blind_m])
    low, high = ways.min(axis=0) - MARGIN_M, ways.max(axis=0) + MARGIN_M
    size = high - low
    grow = np.maximum(np.array([4 / 3 * size[1], 3 / 4 * size[0]]) - size, 0.0)
    low, high = low - 0.5 * grow, high + 0.5 * grow
    return low, high, max(float((high - low)[0]) / 1000.0, semantic_map.resolution_m)


def _frame(frame: ShownFrame, pixel, metres_per_pixel: float, place: float) -> dict[str, Any]:
    ellipse = None
    if frame.covariance_m2 is not None:
        width, height, angle = covariance_ellipse(frame.covariance_m2)
        ellipse = [round(0.5 * width / metres_per_pixel, 1), round(0.5 * height / metres_per_pixel, 1),
                   round(-angle, 1)]
    return {"time": frame.seconds, "x": round(place, 1), "true": pixel(frame.true_m),
            "odometry": pixel(frame.odometry_m), "fix": None if frame.fix_m is None else pixel(frame.fix_m),
            "ellipse": ellipse, "verdict": frame.verdict, "reason": frame.reason,
            "error": None if frame.error_m is None else round(frame.error_m, 1),
            "drift": round(float(np.hypot(*(frame.odometry_m - frame.true_m))), 1)}


def _tiles(shown: ShownFlight, fixes: Sequence[ShownFrame]) -> str:
    errors = error_figures([frame.error_m for frame in fixes])
    last = shown.frames[-1]
    drift, blind = (np.hypot(*(place - last.true_m)) for place in (last.odometry_m, shown.blind_m[-1]))

    def text(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    tiles = [(f"{len(fixes)} / {len(shown.frames)}", "frames with a fix / flown"),
             (f"{text(fixes[0].seconds if fixes else None, '.0f')} s", "from the start to the first fix"),
             (f"{text(errors['median_m'], '.1f')} m", f"median error; 95 %: {text(errors['p95_m'], '.1f')} m"),
             (text(float(np.mean([frame.held for frame in fixes])) if fixes else None, ".0%"),
              "of the 95 % ellipses hold the truth"),
             (f"{blind:.0f} m", f"odometry alone at the end, begun at the rough prior; {drift:.0f} m, begun at the "
              "true place")]
    return "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
                   for value, name in tiles)


def _chart(shown: ShownFlight, places: Mapping[int, float]) -> str:
    """Errors over time, with the radius that the published covariance claims, and the verdicts."""
    claimed = [3.0 * float(np.sqrt(np.trace(frame.covariance_m2))) for frame in shown.frames if frame.fix_m is not None]
    errors = [frame.error_m for frame in shown.frames if frame.fix_m is not None]
    top_m = float(np.clip(max([*claimed, *errors], default=0.0), *_TOP_M))

    def y_of(metres: float) -> float:
        return round(_PLOT_HEIGHT * (1.0 - min(metres, top_m) / top_m), 1)

    width = (_PLOT_WIDTH - _LEFT) / len(shown.frames)
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_PLOT_WIDTH}" y1="{y_of(step)}" y2="{y_of(step)}"/>'
             f'<text x="{_LEFT - 6}" y="{y_of(step) + 4}" text-anchor="end">{step} m</text>'
             for step in range(0, int(top_m) + 1, 10 if top_m < 40.0 else 20)]
    drift = []
    for number, frame in enumerate(shown.frames):
        x = places[number]
        if frame.fix_m is not None:
            sigma = float(np.sqrt(np.trace(frame.covariance_m2)))
            for factor, opacity in ((3.0, 0.16), (1.0, 0.3)):
                top = y_of(factor * sigma)
                parts.append(f'<rect x="{x - width / 2:.1f}" y="{top}" width="{width + 0.3:.1f}" '
                             f'height="{_PLOT_HEIGHT - top:.1f}" fill="{ESTIMATE}" opacity="{opacity}"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(frame.error_m)}" r="2" fill="{ESTIMATE}"/>')
        drift.append((round(x, 1), y_of(float(np.hypot(*(frame.odometry_m - frame.true_m))))))
        parts.append(f'<rect x="{x - width / 2:.1f}" y="{_PLOT_HEIGHT + 8}" width="{width + 0.3:.1f}" height="12" '
                     f'fill="{_colour(frame.verdict)}"/>')
    return (f'<svg class="plot" id="flight-chart" viewBox="0 -8 {_PLOT_WIDTH} {_PLOT_HEIGHT + 32}">{"".join(parts)}'
            f'<polyline points="{_points(drift)}" fill="none" stroke="{ODOMETRY}" stroke-width="1.6" '
            f'stroke-dasharray="5 3"/><line id="flight-cursor" stroke="currentColor" stroke-width="1.5" y1="-6" '
            f'y2="{_PLOT_HEIGHT + 20}"/></svg>')


def _legend(shown: ShownFlight) -> str:
    present = dict.fromkeys(frame.verdict for frame in shown.frames)
    return "".join(f'<span><i style="background:{_colour(verdict)}"></i>{escape(verdict.replace("_", " "))}</span>'
                   for verdict in present)


def _colour(verdict: str) -> str:
    return "#f1efe9" if verdict == OVERTAKEN else VERDICT_COLOURS[Verdict(verdict)]


def _circle(centre: Sequence[float], radius: float) -> str:
    x, y = centre
    return (f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="none" stroke="{PRIOR}" stroke-dasharray="3 4" '
            f'stroke-width="1.5"/><path d="M{x - 8} {y - 8}l16 16m0-16l-16 16" stroke="{PRIOR}" stroke-width="3"/>')


def _scale_bar(height: int, metres_per_pixel: float) -> str:
    length = 100.0 / metres_per_pixel
    return (f'<path d="M14 {height - 16}h{length:.1f}" stroke="#111" stroke-width="3"/>'
            f'<text x="14" y="{height - 24}" font-size="15" font-family="system-ui, sans-serif">100 m</text>')


def _points(places: Iterator[Sequence[float]] | Sequence[Sequence[float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def data_uri(form: str, picture: np.ndarray, options: tuple[int, ...] = ()) -> str:
    """A picture, uint8 (H, W) or (H, W, 3) BGR, encoded as ".png", ".webp" or ".jpg", for a page's src."""
    data = cv2.imencode(form, picture, options)[1]
    return f"data:image/{form[1:]};base64," + base64.b64encode(data).decode()


def script_json(value: Any) -> str:
    """Safe within a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
