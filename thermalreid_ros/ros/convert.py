"""ROS messages to and from numpy and the types of the rooms.

Images are (H, W) or (H, W, 3), rows downwards. Arrays read from a message are read-only views of its bytes; only
foreign byte order costs a copy. What cannot be read is refused with a FrameError of one line.
"""

from __future__ import annotations

import array
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from thermalreid_ros.camera.thermal import FrameError, ThermalFrame, ThermalUnits, make_frame
from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA
from thermalreid_ros.msg import Detection as DetectionMessage
from thermalreid_ros.msg import DetectionArray

NS_PER_S = 1_000_000_000
WEBP_ROUNDING = 1  # grey levels by which the channels of a grey picture come to differ


@dataclass(frozen=True)
class _Layout:
    dtype: str  # without byte order
    channels: int = 1

    @property
    def pixel_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.channels


_LAYOUTS = {
    "mono8": _Layout("u1"), "8UC1": _Layout("u1"),
    "mono16": _Layout("u2"), "16UC1": _Layout("u2"),
    "32FC1": _Layout("f4"),
    "bgr8": _Layout("u1", 3), "rgb8": _Layout("u1", 3), "8UC3": _Layout("u1", 3),
}
# A picture cut in transit decodes to one with a grey rest: the end marks tell.
_END_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch of the clock that made the stamp."""
    return stamp.sec * NS_PER_S + stamp.nanosec


def serialized_stamp_ns(data: bytes) -> int:
    """The stamp of a serialized message that begins with a header, by which the rest need not be read."""
    # CDR: 4 bytes of encapsulation, of which the second tells the order of bytes, then header.stamp.
    second, nanosecond = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return second * NS_PER_S + nanosecond


def ns_to_stamp(stamp_ns: int) -> Time:
    """The inverse of stamp_to_ns."""
    return Time(sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)


def image_to_array(message: Image) -> np.ndarray:
    """The pixels, (H, W) uint8, uint16 or float32, or (H, W, 3) uint8 in the order of the encoding; read-only.

    A view of the message where its byte order is this machine's; strided where rows are padded.
    Raises FrameError for unknown encodings, zero sizes, a row step too small, and too little data.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise FrameError(f"image encoding '{message.encoding}' is not known: use one of {', '.join(_LAYOUTS)}")
    height, width, step, size = message.height, message.width, message.step, len(message.data)
    if not height or not width:
        raise FrameError(f"image of {width} x {height} pixels is empty: check the camera driver")
    row_bytes = width * layout.pixel_bytes
    if step < row_bytes:
        raise FrameError(f"image row step is {step} bytes but {width} pixels of {message.encoding} take {row_bytes}: "
                         "the camera driver fills step or encoding wrongly")
    needed = step * (height - 1) + row_bytes  # the last row's padding may be left out
    if size < needed:
        raise FrameError(f"image data is truncated: {size} bytes of {needed} for {width} x {height} "
                         f"{message.encoding}")
    dtype = np.dtype(layout.dtype).newbyteorder(">" if message.is_bigendian else "<")
    buffer = np.frombuffer(message.data, np.uint8)
    if step % dtype.itemsize:  # rows begin between pixels: no view of whole pixels exists
        rows = np.lib.stride_tricks.as_strided(buffer, (height, row_bytes), (step, 1))
        pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, layout.channels)
    else:
        pixels = np.ndarray((height, width, layout.channels), dtype, buffer,
                            strides=(step, layout.pixel_bytes, dtype.itemsize))
    pixels = pixels.astype(dtype.newbyteorder("="), copy=False)
    pixels.flags.writeable = False
    return pixels[..., 0] if layout.channels == 1 else pixels


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of an (H, W) or (H, W, 3) array, whose dtype must be the encoding's; one copy."""
    layout = _LAYOUTS[encoding]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.dtype(layout.dtype) or channels != layout.channels or not pixels.size:
        raise ValueError(f"{pixels.shape} {pixels.dtype} is no {encoding}")
    height, width = pixels.shape[:2]
    data = array.array("B")  # the one container that the message takes over without looking at each byte
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast("B"))
    return Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
                 step=width * layout.pixel_bytes, data=data)


def compressed_to_array(message: CompressedImage) -> tuple[np.ndarray, str]:
    """The decoded picture and its encoding: mono8, mono16 (16-bit PNG) or bgr8; PNG, JPEG and WebP.

    WebP has no grey pictures: one whose channels are equal, but for its rounding, is mono8.

    Raises FrameError for other formats and for data that is empty, cut or corrupt.
    """
    data = message.data.tobytes()
    if "compressedDepth" in message.format:
        raise FrameError(f"compressed image format '{message.format}' is a depth codec: publish PNG, JPEG or WebP")
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    end_mark = next((end for start, end in _END_MARKS.items() if data.startswith(start)), None)
    if end_mark is None and not is_webp:
        raise FrameError(f"compressed image of format '{message.format}' holds neither PNG, JPEG nor WebP data "
                         f"({len(data)} bytes)")
    is_whole = int.from_bytes(data[4:8], "little") + 8 <= len(data) if is_webp else \
        end_mark in data[-64:]  # some encoders pad
    pixels = None
    if is_whole:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pass  # refused below like any other that does not decode
    if pixels is None:
        raise FrameError(f"compressed image of format '{message.format}' is truncated or corrupt ({len(data)} bytes)")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.ascontiguousarray(pixels[..., :3])
    if is_webp:
        blue, green, red = cv2.split(pixels)
        if max(cv2.absdiff(blue, green).max(), cv2.absdiff(red, green).max()) <= WEBP_ROUNDING:
            pixels = green
    encoding = {(2, "uint8"): "mono8", (2, "uint16"): "mono16", (3, "uint8"): "bgr8"}.get(
        (pixels.ndim, pixels.dtype.name))
    if encoding is None:
        raise FrameError(f"compressed image of {pixels.ndim} dimensions and {pixels.dtype} is not usable: "
                         "publish 8 or 16 bit grey, or 8 bit colour")
    pixels.flags.writeable = False
    return pixels, encoding


class SizeGate:
    """Lets frames pass that are of one size; of another one from the fifth in a row on, for cameras can be switched.

    A frame among others of a size of its own is corrupt, however well its own numbers go together.
    """

    ROW = 5

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None  # width, height
        self._other: tuple[int, int] | None = None
        self._others = 0

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the frames that pass; None before the first."""
        return self._size

    def check(self, frame: ThermalFrame) -> ThermalFrame:
        """The frame. Raises FrameError where it does not pass."""
        size = frame.width, frame.height
        if self._size is None or size == self._size:
            self._size, self._other, self._others = size, None, 0
            return frame
        self._others = self._others + 1 if size == self._other else 1
        self._other = size
        if self._others < self.ROW:
            raise FrameError(f"the frame is {size[0]}x{size[1]}, those before were {self._size[0]}x{self._size[1]}: "
                             "check the camera driver")
        self._size, self._other, self._others = size, None, 0
        return frame


def message_to_frame(message: Image | CompressedImage, units: ThermalUnits | str, **options) -> ThermalFrame:
    """The thermal frame in an image message, with its stamp and frame id; units and options go to make_frame.

    Raises FrameError, also where encoding and units do not go together.
    """
    if isinstance(message, CompressedImage):
        pixels, encoding = compressed_to_array(message)
    else:
        pixels, encoding = image_to_array(message), message.encoding
    return make_frame(pixels, encoding, units, stamp_to_ns(message.header.stamp), message.header.frame_id, **options)


def message_to_labels(message: Image) -> np.ndarray:
    """The labels in semantics/mask or semantics/map: uint8 (H, W), SemanticClass or NO_DATA; read-only.

    Raises FrameError for what is no labelling.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise FrameError(f"a labelling of the ground is mono8, not {message.encoding}")
    labels = image_to_array(message)
    unknown = (labels >= CLASS_COUNT) & (labels != NO_DATA)
    if unknown.any():
        raise FrameError(f"{labels[unknown][0]} is no class of the ground; they are 0 to {CLASS_COUNT - 1}, and "
                         f"{NO_DATA} where none is known")
    return labels


def detections_to_message(result: DetectionResult, header: Header, shape: tuple[int, int],
                          model: str) -> DetectionArray:
    """header: the frame's own, copied as it is. shape: (height, width) of the frame."""
    height, width = shape
    return DetectionArray(header=header, width=width, height=height, model=model, semantics=result.semantics,
                          inference_ms=float(result.inference_ms),
                          detections=[detection_to_message(detection) for detection in result.detections])


def detection_to_message(detection: Detection) -> DetectionMessage:
    return DetectionMessage(class_id=int(detection.class_id), class_name=detection.class_name,
                            score=float(detection.score), x_min=float(detection.x_min), y_min=float(detection.y_min),
                            x_max=float(detection.x_max), y_max=float(detection.y_max))


def message_to_detection(message: DetectionMessage) -> Detection:
    return Detection(message.class_id, message.score, message.x_min, message.y_min, message.x_max, message.y_max)


def message_to_detections(message: DetectionArray) -> tuple[Detection, ...]:
    """The detections of a message, in its order."""
    return tuple(map(message_to_detection, message.detections))
