"""A recording made of data set frames: HIT-UAV pictures, in the order in which they were filmed, as a rosbag2 bag.

Boxes are pixel edges of the full frame (see detection.types). Topics of the bag:

| topic | type | holds |
|---|---|---|
| `/thermal/image_raw/compressed` | sensor_msgs/CompressedImage | the picture file's own bytes (WebP or JPEG), agc8 |
| `/thermal/camera_info` | sensor_msgs/CameraInfo | a pinhole assumed from the camera's data sheet |
| `/truth/detections` | thermalreid_ros/DetectionArray | annotated objects of the classes that the detectors know |
| `/truth/ignored` | thermalreid_ros/DetectionArray | other annotations ("DontCare", ...): neither hit nor false alarm |
| `/truth/target` | thermalreid_ros/DetectionArray | the one object that the probe shows, where it is in the frame |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from thermalreid_ros.camera.pixels import read_picture
from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.detection import category_names, checked_box
from thermalreid_ros.evaluation.pictures import save_picture
from thermalreid_ros.files import write_atomically
from thermalreid_ros.reid.motion import CameraMotionEstimator
from thermalreid_ros.ros.bag import Bag, message_types, write_bag

FRAME_TOPIC = "/thermal/image_raw/compressed"
CAMERA_INFO_TOPIC = "/thermal/camera_info"
TRUTH_TOPIC = "/truth/detections"
IGNORED_TOPIC = "/truth/ignored"
TARGET_TOPIC = "/truth/target"
PLACE_TOPIC = "/truth/fix"  # of rendered flights
OBJECTS_TOPIC = "/truth/objects"  # likewise

NS_PER_S = 1_000_000_000
FRAME_ID = "thermal_optical_frame"
IGNORED_CLASS_ID = 255
# Zenmuse XT2, 25 mm lens on a 17 um detector; upstream publishes no calibration.
ASSUMED_FOCAL_PX = 25e-3 / 17e-6
FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
CITATION = ("J. Suo, T. Wang, X. Zhang, H. Chen, W. Zhou, W. Shi, HIT-UAV: A high-altitude infrared thermal dataset "
            "for Unmanned Aerial Vehicle-based object detection, Scientific Data 10, 227 (2023), "
            "doi:10.1038/s41597-023-02066-6")
LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/"

MAX_MISSED_FRAMES = 4  # a followed object may be hidden, or its frames held back, for this long
MAX_STEP_PX = 20.0  # from the predicted place in the next frame
MAX_STEP_GROWTH_PX = 6.0  # for every further frame missed


@dataclass(frozen=True)
class Clip:
    """A piece of uncut film in the data set.

    first: upstream's running index (last part of a file name) of its first file. count: pictures in it, those that
    upstream's splits keep back included. Upstream numbers the files in the order of their *names as strings*, frames
    being named 0, 1, 2, ... as filmed; so file `first + k` is frame `sorted(range(count), key=str)[k]`.
    """

    first: int
    count: int

    def frames(self) -> dict[int, int]:
        """As filmed: frame number of each running index."""
        return {self.first + k: frame for k, frame in enumerate(sorted(range(self.count), key=str))}


@dataclass(frozen=True)
class RecordedFrame:
    """One annotated picture, with the time at which it was filmed."""

    path: Path
    split: str  # upstream's, e.g. "HIT-UAV train"
    clip: int
    number: int  # in the clip, as filmed
    stamp_ns: int
    size_px: tuple[int, int]  # width, height
    objects: tuple[Detection, ...]
    ignored: tuple[tuple[str, Detection], ...]  # upstream's class name, box
    target: Detection | None = None

    def gray8(self) -> np.ndarray:
        return read_picture(self.path, cv2.IMREAD_GRAYSCALE)


def read_frames(images: Sequence[Path], annotations: Sequence[Path], clips: Sequence[Clip], *, rate_hz: float,
                clip_gap_s: float) -> list[RecordedFrame]:
    """Frames of the clips, in filming order, from one or more COCO files with their picture folders.

    rate_hz: of the film; a picture that the splits lack leaves its gap in the stamps. clip_gap_s: assumed between
    two clips. The first stamp is 12:00 UTC on the day of capture: upstream gives the date alone.
    Raises ThermalReidError, naming the file, where annotations cannot be read or a picture is missing.
    """
    if len(images) != len(annotations):
        raise ThermalReidError(f"{len(images)} folders of images for {len(annotations)} annotation files; "
                               "give as many --images as --annotations")
    by_index = {}
    for folder, file in zip(images, annotations):
        by_index.update(_read_coco(file, folder))
    frames, start_ns = [], None
    for clip_number, clip in enumerate(clips):
        numbered = sorted((number, by_index[index]) for index, number in clip.frames().items() if index in by_index)
        if not numbered:
            raise ThermalReidError(f"clip {clip.first}:{clip.count}: no annotated picture has such an index; "
                                   "the last part of a file name is its index")
        if start_ns is None:
            start_ns = _noon_ns(numbered[0][1]["date"], annotations[0])
        for number, entry in numbered:
            frames.append(RecordedFrame(entry["path"], entry["split"], clip_number, number,
                                        start_ns + round(number / rate_hz * NS_PER_S), entry["size_px"],
                                        entry["objects"], entry["ignored"]))
        start_ns += round(((clip.count - 1) / rate_hz + clip_gap_s) * NS_PER_S)
    return frames


def follow(frames: Sequence[RecordedFrame], file_name: str, point_px: tuple[float, float]) -> list[RecordedFrame]:
    """The frames, with `target` set wherever the annotated object at point_px of the named picture is seen.

    HIT-UAV gives no identities: the object is followed through its clip, both ways, as the annotation of its class
    nearest to where its own motion and the camera's lead. Look at the result before relying on
    it; it was looked at for the recording that is shipped.
    """
    start = next((k for k, frame in enumerate(frames) if frame.path.stem == Path(file_name).stem), None)
    if start is None:
        raise ThermalReidError(f"{file_name}: not among the frames of the clips; name one that is")
    x, y = point_px
    seed = next((o for o in frames[start].objects if o.x_min <= x < o.x_max and o.y_min <= y < o.y_max), None)
    if seed is None:
        raise ThermalReidError(f"{file_name}: no annotated object at pixel {x:g},{y:g}")
    targets = {start: seed}
    same_clip = [k for k, frame in enumerate(frames) if frame.clip == frames[start].clip]
    for indices in ([k for k in same_clip if k >= start], [k for k in reversed(same_clip) if k <= start]):
        targets.update(_follow_one_way(frames, indices, seed))
    return [replace(frame, target=targets.get(k)) for k, frame in enumerate(frames)]


def write_recording(out: Path, frames: Sequence[RecordedFrame], *, probe_file: str, command: str,
                    rate_hz: float, clip_gap_s: float) -> Path:
    """Write the bag, the probe cut from the named frame's target box, and ATTRIBUTION.md into the folder `out`.

    The same frames give the same bytes. Raises ThermalReidError where `out` exists.
    """
    probe = next(frame for frame in frames if frame.path.stem == Path(probe_file).stem)
    splits = {split: sum(frame.split == split for frame in frames) for split in sorted({f.split for f in frames})}
    custom = {
        "source": "HIT-UAV: " + ", ".join(f"{count} frames of {split}" for split, count in splits.items()),
        "licence": LICENCE,
        "citation": CITATION,
        "units": "agc8",
        "stamps": f"assumed: {rate_hz:g} Hz (upstream: 2898 pictures out of 43470 frames, every 15th of a 30 Hz "
                  f"film), {clip_gap_s:g} s between clips, 12:00 UTC at the start; gaps are pictures held back",
        "order": "as filmed, recovered from upstream's file numbers, which sort frame numbers as strings",
        "camera_info": "assumed: 25 mm lens, 17 um pixels, no distortion; upstream publishes no calibration",
        "target": f"the object in the probe, cut from {probe.path.name}; followed through the annotations, "
                  "which carry no identities",
        "command": command,
    }
    write_bag(out, _messages(frames), custom)
    _write_probe(out, probe)
    write_atomically(out / "ATTRIBUTION.md", _attribution(custom))
    return out


@dataclass(frozen=True)
class Truth:
    """What a recording knows of itself, by the stamp of the frame (capture time, ns).

    places: latitude and longitude of the camera, WGS84 degrees. target_places: likewise, of the object that the probe
    shows. tight_in: width and height of the frames where boxes are tight, as evaluation.boxes.comparable has it: those
    of rendered flights.
    """

    objects: dict[int, tuple[Detection, ...]]
    ignored: dict[int, tuple[Detection, ...]]
    target: dict[int, Detection]
    places: dict[int, tuple[float, float]] = field(default_factory=dict)
    target_places: dict[int, tuple[float, float]] = field(default_factory=dict)
    tight_in: tuple[int, int] | None = None


def read_units(bag: Bag) -> str | None:
    """What its recorder said that pixels mean, None where that was nothing. ThermalReidError where they cannot."""
    units = bag.custom.get("units")
    if units not in (None, *(known.value for known in ThermalUnits)):
        raise ThermalReidError(f"{bag.path}: its custom data say units '{units}'; say one of "
                               f"{', '.join(known.value for known in ThermalUnits)}")
    return units


def read_truth(bag: Bag) -> Truth:
    """The truth topics of a recording; empty where it has none."""
    objects, ignored, target, places, target_places, size = {}, {}, {}, {}, {}, None
    wanted = {TRUTH_TOPIC, IGNORED_TOPIC, TARGET_TOPIC, PLACE_TOPIC} | ({OBJECTS_TOPIC} if bag.custom.get(
        "target") else set())
    for message in bag.messages(wanted & set(bag.topics)):
        array = bag.decode(message)
        stamp_ns = array.header.stamp.sec * NS_PER_S + array.header.stamp.nanosec
        if message.topic == PLACE_TOPIC:
            places[stamp_ns] = float(array.latitude), float(array.longitude)
            continue
        if message.topic == OBJECTS_TOPIC:
            for item in array.objects:
                if item.identity == bag.custom["target"]:
                    target_places[stamp_ns] = float(item.latitude), float(item.longitude)
            continue
        boxes = tuple(Detection(int(d.class_id), float(d.score), float(d.x_min), float(d.y_min), float(d.x_max),
                                float(d.y_max)) for d in array.detections)
        if message.topic == TRUTH_TOPIC:
            objects[stamp_ns], size = boxes, (int(array.width), int(array.height))
        elif message.topic == IGNORED_TOPIC:
            ignored[stamp_ns] = boxes
        elif boxes:
            target[stamp_ns] = boxes[0]
    return Truth(objects, ignored, target, places, target_places, size if OBJECTS_TOPIC in bag.topics else None)


def _follow_one_way(frames: Sequence[RecordedFrame], indices: Sequence[int], seed: Detection) -> dict[int, Detection]:
    found, velocity = {}, np.zeros(2)  # pixels a frame, over the ground
    place, last_number = seed.centre, frames[indices[0]].number
    camera = CameraMotionEstimator()
    camera.update(frames[indices[0]].gray8())
    for k in indices[1:]:
        frame, motion = frames[k], camera.update(frames[k].gray8())
        place = motion.matrix @ (*place, 1.0)
        steps = abs(frame.number - last_number)
        if motion.is_cut or steps > MAX_MISSED_FRAMES:
            break
        candidates = [o for o in frame.objects if o.class_id == seed.class_id]
        distances = [np.linalg.norm(o.centre - place - velocity * steps) for o in candidates]
        if not candidates or min(distances) > MAX_STEP_PX + MAX_STEP_GROWTH_PX * (steps - 1):
            continue
        nearest = candidates[int(np.argmin(distances))]
        velocity = 0.5 * velocity + 0.5 * (nearest.centre - place) / steps
        place, last_number, found[k] = nearest.centre, frame.number, nearest
    return found


def _read_coco(file: Path, folder: Path) -> dict[int, dict[str, Any]]:
    try:
        coco = json.loads(file.read_text())
        names = category_names(coco)
        class_ids = {identity: CLASS_NAMES.index(name.lower()) for identity, name in names.items()
                     if name.lower() in CLASS_NAMES}
        entries = {}
        for image in coco["images"]:
            path = folder / image["file_name"]
            entries[image["id"]] = {"path": path, "split": coco["info"]["description"],
                                    "date": str(image["date_captured"]), "objects": (), "ignored": (),
                                    "size_px": (int(image["width"]), int(image["height"]))}
        for item in coco["annotations"]:
            entry, class_id = entries[item["image_id"]], class_ids.get(item["category_id"])
            x, y, width, height = checked_box(item, entry["size_px"])
            box = Detection(IGNORED_CLASS_ID if class_id is None else class_id, 1.0, x, y, x + width, y + height)
            if class_id is None:
                entry["ignored"] += ((names[item["category_id"]], box),)
            else:
                entry["objects"] += (box,)
        return {int(entry["path"].stem.rsplit("_", 1)[1]): entry for entry in entries.values()}
    except OSError as error:
        raise ThermalReidError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ThermalReidError(f"{file}: not HIT-UAV annotations in COCO form ({type(error).__name__}: {error}); "
                               "pictures are named ..._INDEX.webp and dated") from None


def _noon_ns(date: str, file: Path) -> int:
    try:
        day = datetime.strptime(date, "%Y%m%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ThermalReidError(f"{file}: date_captured is '{date}', not YYYYMMDD") from None
    return int(day.timestamp() + 12 * 3600) * NS_PER_S


def _messages(frames: Sequence[RecordedFrame]) -> Iterator[tuple[str, int, Any]]:
    types = message_types().types
    header_type, stamp_type = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    image_type, array_type = types["sensor_msgs/msg/CompressedImage"], types["thermalreid_ros/msg/DetectionArray"]
    detection_type = types["thermalreid_ros/msg/Detection"]

    def boxes(frame: RecordedFrame, named: Sequence[tuple[str, Detection]]) -> Any:
        return array_type(header=header, width=frame.size_px[0], height=frame.size_px[1], model="annotation",
                          semantics="none", inference_ms=0.0, detections=[
                              detection_type(box.class_id, name, box.score, box.x_min, box.y_min, box.x_max, box.y_max)
                              for name, box in named])

    for frame in frames:
        header = header_type(stamp_type(*divmod(frame.stamp_ns, NS_PER_S)), FRAME_ID)
        frame.gray8()  # what is cut or no picture is refused now, not by every replay
        data = np.fromfile(frame.path, np.uint8)
        known = [(box.class_name, box) for box in frame.objects]
        target = [(frame.target.class_name, frame.target)] if frame.target else []
        for topic, message in (
                (CAMERA_INFO_TOPIC, _camera_info(types, header, frame.size_px)),
                (FRAME_TOPIC, image_type(header, FORMATS[frame.path.suffix.lower()], data)),
                (TRUTH_TOPIC, boxes(frame, known)),
                (IGNORED_TOPIC, boxes(frame, frame.ignored)),
                (TARGET_TOPIC, boxes(frame, target))):
            yield topic, frame.stamp_ns, message


def _camera_info(types: dict[str, Any], header: Any, size_px: tuple[int, int]) -> Any:
    width, height = size_px
    f, c_x, c_y = ASSUMED_FOCAL_PX, (width - 1) / 2, (height - 1) / 2  # ROS: pixel centres at whole numbers
    return types["sensor_msgs/msg/CameraInfo"](
        header=header, height=height, width=width, distortion_model="plumb_bob", d=np.zeros(5),
        k=np.array((f, 0, c_x, 0, f, c_y, 0, 0, 1.0)), r=np.eye(3).ravel(),
        p=np.array((f, 0, c_x, 0, 0, f, c_y, 0, 0, 0, 1.0, 0)), binning_x=0, binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False))


def _write_probe(out: Path, frame: RecordedFrame) -> None:
    box = frame.target
    rows, columns = (slice(int(low), int(np.ceil(high))) for low, high in ((box.y_min, box.y_max),
                                                                           (box.x_min, box.x_max)))
    save_picture(out / "probe.png", np.ascontiguousarray(frame.gray8()[rows, columns]))
    card = {"class_name": box.class_name, "units": "agc8", "cut_from": frame.path.name, "stamp_ns": frame.stamp_ns,
            "box_px": [box.x_min, box.y_min, box.x_max, box.y_max], "truth_topic": TARGET_TOPIC}
    write_atomically(out / "probe.yaml", yaml.safe_dump(card, sort_keys=False))


def _attribution(custom: dict[str, str]) -> str:
    return ("# Attribution\n\nThe pictures and annotations in this recording are from HIT-UAV, "
            f"{LICENCE}.\n\n> {CITATION}\n\nChanged: pictures were put into the order of filming and given stamps; the "
            "picture files' bytes are those of the copy at hand (WebP quality 90 where that copy had them "
            "re-encoded, else upstream's JPEG); class names in lower case; one object followed by this project.\n\n"
            + "".join(f"- **{key}**: {value}\n" for key, value in custom.items() if key not in ("licence", "citation")))
