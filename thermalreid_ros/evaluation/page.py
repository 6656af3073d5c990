"""The page that shows what a replay saw: one HTML file that needs nothing else, no network either."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.pixels import picture_of
from thermalreid_ros.camera.thermal import FrameError, ThermalUnits, make_frame
from thermalreid_ros.detection.overlay import CLASS_COLOURS_BGR
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.engine import EngineError, ModelCard
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.bench import machine
from thermalreid_ros.evaluation.page_flight import data_uri, script_json
from thermalreid_ros.evaluation.replay import FrameRecord, Replay, frame_topic
from thermalreid_ros.files import shipped, write_atomically
from thermalreid_ros.reid.fusion import METHODS
from thermalreid_ros.ros.bag import Bag
from thermalreid_ros.synthesis.photograph import file_is_colour

PICTURES_LIMIT_BYTES = 3_067_000  # as base64; with a flight and the city the page stays under 6 MB
QUALITIES = (60, 45, 30, 20)
MAX_PICTURES, PROBE_SIDE_PX = 400, 480
HISTOGRAM_BINS = 24
_UNITS_OF = {"mono8": ThermalUnits.AGC8, "8UC1": ThermalUnits.AGC8, "mono16": ThermalUnits.COUNTS,
             "16UC1": ThermalUnits.COUNTS, "32FC1": ThermalUnits.CELSIUS_F32, **dict.fromkeys(
                 ("bgr8", "rgb8", "8UC3"), ThermalUnits.AGC8)}  # for looking at, not for measuring
_PLOT_WIDTH, _LEFT = 1160, 44


def write_page(path: str | Path, replay: Replay, *, command: str, city: np.ndarray | None = None,
               flight: str = "", search: str = "") -> Path:
    """Write the page of a replay; its folder is made. command: what the page says it was made by. city: a picture of
    the virtual city to show below, uint8 RGB. flight, search: parts, as page_flight and page_search make them."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, page(replay, dict(_pictures(replay.bag)), command=command, city=city,
                                       flight=flight, search=search))


def page(replay: Replay, pictures: dict[int, np.ndarray], *, command: str, city: np.ndarray | None = None,
         flight: str = "", search: str = "") -> str:
    """The page as text. pictures: (H, W) uint8 of each frame, by its capture stamp (ns); all of one size."""
    if not pictures:
        raise ThermalReidError(f"{replay.bag}: holds no picture that a page could show")
    stamps = _thinned(sorted(pictures))
    by_stamp = {frame.stamp_ns: frame for frame in replay.frames}
    records = [by_stamp.get(stamp_ns, FrameRecord(stamp_ns)) for stamp_ns in stamps]
    own_probe = bool(replay.target_frames())
    places = {stamp_ns: _LEFT + (n + 0.5) / len(stamps) * (_PLOT_WIDTH - _LEFT) for n, stamp_ns in enumerate(stamps)}
    data = [_frame_data(replay, record, number, len(stamps), stamps[0], own_probe, places[record.stamp_ns])
            for number, record in enumerate(records, 1)]
    for item, uri in zip(data, _data_uris([pictures[stamp_ns] for stamp_ns in stamps])):
        item["picture"] = uri
    height, width = pictures[stamps[0]].shape
    figures = replay.figures()
    distances = [match.distance for record in records for match in record.matches]
    below = [f'<a href="#{name}">{text}</a>' for name, text, part in (
        ("search", "a photograph’s object and where it is", search), ("flight", "where the camera is", flight)) if part]
    template = Template((Path(__file__).parent / "page.html").read_text())
    return template.substitute(
        title="Thermal detection and re-identification", width=width, height=height,
        subtitle=escape(f"{replay.frames_in} frames of the recording {replay.bag.name}, played at "
                        f"{replay.rate:g} times their rate to ROS 2 nodes that ran as separate processes")
        + (f". Further below: {' and '.join(below)}" if below else ""),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), tiles=_tiles(figures),
        note=_note(replay, figures), probe=_probe(replay), legend=_legend(replay),
        timeline=_timeline(records, places, data), histogram=_histogram(replay.frames),
        counters=_rows(_counters(replay, figures)), facts=_rows(_facts(replay)),
        recording=_rows(sorted((key, value) for key, value in replay.custom.items() if key != "command")),
        command=escape(command), city=_city(city), flight=search + flight, data=script_json(data),
        classes=script_json(CLASS_NAMES), colours=script_json([_hex(colour) for colour in CLASS_COLOURS_BGR]),
        scale=f"{np.percentile(distances or [1.0], 90) or 1.0:.6f}", first=_telling(data))


def _city(picture: np.ndarray | None) -> str:
    if picture is None:
        return ""
    return Template((Path(__file__).parent / "city.html").read_text()).substitute(
        picture=data_uri(".webp", picture[..., ::-1], (cv2.IMWRITE_WEBP_QUALITY, 80)), height=picture.shape[0],
        width=picture.shape[1])


def _pictures(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    with Bag(path) as bag:
        for message in bag.messages([frame_topic(bag)]):
            image = bag.decode(message)
            stamp_ns = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
            try:
                pixels, encoding = picture_of(image)
                yield stamp_ns, make_frame(pixels, encoding, _UNITS_OF[encoding], stamp_ns, "").gray8()
            except FrameError:
                continue  # a broken one, which the nodes refuse


def _thinned(stamps: Sequence[int]) -> list[int]:
    return list(stamps[::-(-len(stamps) // MAX_PICTURES)])


def _data_uris(pictures: Sequence[np.ndarray]) -> list[str]:
    """WebP, in the best quality that keeps the page small, judged by a sample."""
    def encode(picture: np.ndarray, quality: int) -> str:
        return data_uri(".webp", picture, (cv2.IMWRITE_WEBP_QUALITY, quality))

    sample = pictures[::-(-len(pictures) // 10)]
    quality = next((quality for quality in QUALITIES if sum(len(encode(picture, quality)) for picture in sample)
                    / len(sample) * len(pictures) <= PICTURES_LIMIT_BYTES), QUALITIES[-1])
    return [encode(picture, quality) for picture in pictures]


def _frame_data(replay: Replay, frame: FrameRecord, number: int, count: int, start_ns: int, own_probe: bool,
                place: float) -> dict[str, Any]:
    target = replay.truth.target.get(frame.stamp_ns) if own_probe else None
    return {
        "number": number, "of": count, "time": (frame.stamp_ns - start_ns) / 1e9, "x": round(place, 1),
        "seen": frame.detected_s is not None, "latency": frame.latency_ms,
        "detections": [{"class": box.class_id, "box": _box(box)} for box in frame.detections],
        "matches": [{"rank": match.rank, "track": match.track_id, "length": match.track_length,
                     "distance": round(match.distance, 4), "histogram": round(match.distance_histogram, 4),
                     "blobs": round(match.distance_mser, 4), "box": _box(match.detection),
                     "true": own_probe and replay.is_true(match, frame.stamp_ns)}
                    for match in frame.matches],
        "target": None if target is None else _box(target),
        "rank": replay.true_rank(frame) if target is not None else None,
    }


def _telling(data: Sequence[dict[str, Any]]) -> int:
    """The frame to open with: one in which the probe's object comes first among many, and was seen for long."""
    def worth(item: dict[str, Any]) -> tuple[bool, int]:
        return item["rank"] == 1, len(item["matches"]) + min(item["matches"][0]["length"], 8) if item["matches"] else 0

    return max(range(len(data)), key=lambda number: worth(data[number]))


def _box(box: Any) -> list[float]:
    return [round(float(edge), 1) for edge in (box.x_min, box.y_min, box.x_max, box.y_max)]


def _tiles(figures: dict[str, Any]) -> str:
    def text(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    latency = figures["latency_ms"]
    tiles = [(f"{figures['frames_detected']} / {figures['frames_in']}", "frames detected / played"),
             (f"{text(latency['median'], '.0f')} ms", "frame to detections, median"),
             (f"{text(latency['p99'], '.0f')} ms", "frame to detections, 99 %"),
             (text(figures["map50"], ".2f"), "mean AP50 against the annotations"),
             (text(figures["reid_r1"], ".0%"), "of frames rank the probe’s object first")]
    return "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
                   for value, name in tiles)


def _note(replay: Replay, figures: dict[str, Any]) -> str:
    lines = []
    if "train" in replay.custom.get("source", ""):
        lines.append(f"The recording is made of {replay.custom['source'].removeprefix('HIT-UAV: ')}. Where the "
                     "detector was trained on that split, mean AP50 here shows that the system works, not how it does "
                     "on places it has never seen.")
    if figures["reid_frames"]:
        lines.append(f"First ranks are counted over {figures['reid_frames']} frames with the probe’s object in them, "
                     f"the probe’s own frame left out; a random order would reach {figures['reid_guessing']:.0%}. "
                     + ("A photograph tells objects of a class apart only roughly." if file_is_colour(replay.probe) else
                        "One small crop without colour tells people apart only roughly."))
    lines += [f"{key}: {reason}." for key, reason in figures["reasons"].items() if key != "fix_median_m"]
    return " ".join(escape(line) for line in lines) or "All figures were measured in this run."


def _probe(replay: Replay) -> str:
    if replay.probe is None:
        return '<p class="soft">No probe was given.</p>'
    in_colour = file_is_colour(replay.probe)
    picture = cv2.imread(str(replay.probe), cv2.IMREAD_COLOR if in_colour else cv2.IMREAD_UNCHANGED)
    size = f"{picture.shape[1]} × {picture.shape[0]} pixels"
    if picture.dtype != np.uint8:
        picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    if (side := max(picture.shape[:2])) > PROBE_SIDE_PX:
        picture = cv2.resize(picture, None, fx=PROBE_SIDE_PX / side, fy=PROBE_SIDE_PX / side,
                             interpolation=cv2.INTER_AREA)
    uri = data_uri(".png", picture)
    equation = ""
    if replay.beta_h is not None and replay.method == METHODS[0]:  # the others rank by what is not told by these two
        equation = f", d = {replay.beta_h:g}·histogram + {1 - replay.beta_h:g}·blobs"
    what = "A photograph" if in_colour else size
    return (f'<div class="probe"><img src="{uri}" alt="probe"><p>{what} of the object to be found.<br>'
            f'<span class="soft">{escape(replay.method.replace("_", " "))}{escape(equation)}'
            "</span></p></div>")


def _legend(replay: Replay) -> str:
    present = sorted({box.class_id for frame in replay.frames for box in frame.detections})
    return "".join(f'<span><i style="background:{_hex(CLASS_COLOURS_BGR[label])}"></i>{CLASS_NAMES[label]}</span>'
                   for label in present) + "<span>1 · t5: ranked first, track 5</span>"


def _timeline(records: Sequence[FrameRecord], places: dict[int, float], data: Sequence[dict[str, Any]]) -> str:
    latencies = [record.latency_ms for record in records if record.latency_ms is not None]
    top_ms = max(latencies, default=1.0) * 1.05
    height, strip = 150, 172
    width = max((_PLOT_WIDTH - _LEFT) / max(len(records), 1) - 0.8, 0.6)
    parts = []
    for step in _ticks(top_ms):
        y = height - step / top_ms * height
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{step:g} ms</text>')
    for record, item in zip(records, data):
        x = places[record.stamp_ns] - width / 2
        if record.latency_ms is None:
            parts.append(f'<rect class="dropped" x="{x:.1f}" y="{height - 6}" width="{width:.1f}" height="6"/>')
        else:
            whole = record.latency_ms / top_ms * height
            inside = min((record.inference_ms or 0.0) / top_ms * height, whole)
            parts.append(f'<rect class="rest" x="{x:.1f}" y="{height - whole:.1f}" width="{width:.1f}" '
                         f'height="{whole:.1f}"/><rect class="inference" x="{x:.1f}" y="{height - inside:.1f}" '
                         f'width="{width:.1f}" height="{inside:.1f}"/>')
        tone = "none" if item["target"] is None or not item["seen"] else "good" if item["rank"] == 1 else \
            "fair" if item["rank"] in (2, 3) else "poor"
        parts.append(f'<rect x="{x:.1f}" y="{strip - 14}" width="{width:.1f}" height="12" style="fill:var(--{tone})"/>')
    return (f'<svg class="plot timeline" viewBox="0 -8 {_PLOT_WIDTH} {strip + 10}">{"".join(parts)}'
            f'<line class="cursor" x1="{_LEFT}" x2="{_LEFT}" y1="-6" y2="{strip}"/></svg>')


def _histogram(frames: Sequence[FrameRecord]) -> str:
    latencies = [frame.latency_ms for frame in frames if frame.latency_ms is not None]
    if not latencies:
        return '<p class="soft">No frame was detected.</p>'
    width, height = 560, 250
    counts, edges = np.histogram(latencies, HISTOGRAM_BINS)
    median, p99 = np.percentile(latencies, (50, 99))

    def x_of(value: float) -> float:
        return 8 + (value - edges[0]) / max(edges[-1] - edges[0], 1e-9) * (width - 16)

    parts = [f'<rect class="inference" x="{x_of(low) + 0.7:.1f}" y="{height - 20 - count / counts.max() * 185:.1f}" '
             f'width="{max(x_of(high) - x_of(low) - 1.4, 0.5):.1f}" '
             f'height="{count / counts.max() * 185:.1f}" rx="1.5"/>'
             for count, low, high in zip(counts, edges, edges[1:])]
    for value, name, y in ((median, "median", 12), (p99, "99 %", 28)):
        x, end = x_of(value), x_of(value) > width / 2
        parts.append(f'<line class="cursor" style="stroke-width:1" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" '
                     f'y2="{height - 20}" stroke-dasharray="3 3"/><text x="{x + (-6 if end else 6):.1f}" y="{y}" '
                     f'text-anchor="{"end" if end else "start"}">{name} {value:.0f} ms</text>')
    for value, anchor in ((edges[0], "start"), (edges[-1], "end")):
        parts.append(f'<text x="{x_of(value):.1f}" y="{height - 4}" text-anchor="{anchor}">{value:.0f} ms</text>')
    return f'<svg class="plot" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'.replace('class="cursor"',
                                                                                            'stroke="currentColor"')


def _ticks(top: float) -> list[float]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10**9) if top / step <= 5)
    return [float(tick) for tick in np.arange(0, top, step)]


def _counters(replay: Replay, figures: dict[str, Any]) -> list[tuple[str, str]]:
    reid = replay.diagnostics.get("reid", {})
    tracked = {match.track_id for frame in replay.frames for match in frame.matches}
    rows = [("frames played", str(figures["frames_in"])), ("frames detected", str(figures["frames_detected"])),
            *((f"frames dropped, {reason}", str(count)) for reason, count in figures["frames_dropped"].items()),
            ("frames ranked", str(figures["frames_matched"])),
            *((f"not ranked: {what} {kind.replace('_', ' ')}", reid[f"{what}_{kind}"])
              for what in ("frames", "detections") for kind in ("superseded", "too_old", "refused", "failed")
              if int(reid.get(f"{what}_{kind}", 0))),
            ("objects detected", str(sum(len(frame.detections) for frame in replay.frames))),
            ("objects annotated", str(sum(map(len, replay.truth.objects.values())))),
            ("tracks", reid.get("tracker_tracks", str(len(tracked)))),
            ("time inside the network, median", f"{figures['inference_ms']['median'] or 0:.1f} ms"),
            ("replay, wall time", f"{replay.wall_s:.1f} s")]
    if replay.exit_codes:
        rows.append(("exit codes", ", ".join(f"{name} {code}" for name, code in replay.exit_codes.items())))
    return rows


def _facts(replay: Replay) -> list[tuple[str, str]]:
    facts = machine()
    detection = replay.diagnostics.get("detection", {})
    rows = [("processor", f"{facts['processor']}, {facts['cores']} core{'s' * (facts['cores'] != 1)}, load "
             f"{facts['load_1min']:.1f}"), ("system", f"{platform.system()} {platform.machine()}"),
            ("detector", f"{detection.get('model', 'unknown')} on {detection.get('provider', 'unknown')}")]
    if (card := _card(detection.get("model", ""))) is not None:
        rows.append(("trained on", str(card.training.get("data", "not said on its card"))))
        means = [metric for metric in card.metrics if str(metric.get("name", "")).startswith("mean")]
        rows += [(f"{metric.get('name', 'metric')}, {metric.get('data', '')}", _figure(metric.get("value", "")))
                 for metric in means or card.metrics]
    versions = [f"{name} {found}" for name in ("thermalreid-ros", "rclpy", "onnxruntime", "numpy",
                                               "opencv-python-headless") if (found := _version(name))]
    return [*rows, ("versions", f"Python {facts['python']}, {', '.join(versions)}")]


def _card(model: str) -> ModelCard | None:
    try:
        return ModelCard.read(shipped("models") / f"{model}.yaml")
    except (EngineError, OSError):
        return None  # a model of the user's own


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _rows(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in pairs)


def _hex(bgr: tuple[int, int, int]) -> str:
    return "#{2:02x}{1:02x}{0:02x}".format(*bgr)
