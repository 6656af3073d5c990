"""ROS messages to and from numpy and the types of the rooms.

Images are (H, W) or (H, W, 3), rows downwards. Arrays read from a message are read-only views of its bytes; only
foreign byte order costs a copy. What cannot be read is refused with a FrameError of one line.
"""

from __future__ import annotations

import array
import struct

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from thermalreid_ros.camera.pixels import LAYOUTS, compressed_to_array, image_to_array
from thermalreid_ros.camera.thermal import FrameError, ThermalFrame, ThermalUnits, make_frame
from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA
from thermalreid_ros.msg import Detection as DetectionMessage
from thermalreid_ros.msg import DetectionArray

NS_PER_S = 1_000_000_000


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


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """An Image message of an (H, W) or (H, W, 3) array, whose dtype must be the encoding's; one copy."""
    layout = LAYOUTS[encoding]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.dtype(layout.dtype) or channels != layout.channels or not pixels.size:
        raise ValueError(f"{pixels.shape} {pixels.dtype} is no {encoding}")
    height, width = pixels.shape[:2]
    data = array.array("B")  # the one container that the message takes over without looking at each byte
    data.frombytes(memoryview(np.ascontiguousarray(pixels)).cast("B"))
    return Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
                 step=width * layout.pixel_bytes, data=data)


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
