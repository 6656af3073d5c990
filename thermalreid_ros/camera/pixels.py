"""Pixels of pictures: of coded bytes, and of messages, of ROS on the wire or of a recording: whatever has the fields of
sensor_msgs/Image or CompressedImage. Free of ROS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from thermalreid_ros.camera.thermal import FrameError
from thermalreid_ros.errors import ThermalReidError

WEBP_ROUNDING = 1  # grey levels by which the channels of a grey picture come to differ


@dataclass(frozen=True)
class Layout:
    dtype: str  # without byte order
    channels: int = 1

    @property
    def pixel_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.channels


LAYOUTS = {
    "mono8": Layout("u1"), "8UC1": Layout("u1"),
    "mono16": Layout("u2"), "16UC1": Layout("u2"),
    "32FC1": Layout("f4"),
    "bgr8": Layout("u1", 3), "rgb8": Layout("u1", 3), "8UC3": Layout("u1", 3),
}
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"


def decoded(data: bytes | np.ndarray, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray | None:
    """The picture that a file's bytes hold, as cv2.imdecode gives it; None where they hold none."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except cv2.error:
        return None


def read_picture(path: str | Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """The picture in a file, as cv2.imread gives it. ThermalReidError where it is not there, cut or none."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ThermalReidError(f"{path}: cannot be read ({error.strerror})") from None
    pixels = decoded(data, flags) if _is_whole(data) else None
    if pixels is None:
        raise ThermalReidError(f"{path}: not a readable image, or one that is cut; fetch or make it again")
    return pixels


def image_to_array(message: Any) -> np.ndarray:
    """The pixels of an Image, (H, W) uint8, uint16 or float32, or (H, W, 3) uint8 in the encoding's order; read-only.

    A view of the message where its byte order is this machine's; strided where rows are padded.
    Raises FrameError for unknown encodings, zero sizes, a row step too small, and too little data.
    """
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        raise FrameError(f"image encoding '{message.encoding}' is not known: use one of {', '.join(LAYOUTS)}")
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


def compressed_to_array(message: Any) -> tuple[np.ndarray, str]:
    """The decoded picture of a CompressedImage and its encoding: mono8, mono16 (16-bit PNG), bgr8; PNG, JPEG and WebP.

    WebP has no grey pictures: one whose channels are equal, but for its rounding, is mono8.

    Raises FrameError for other formats and for data that is empty, cut or corrupt.
    """
    data = message.data.tobytes()
    if "compressedDepth" in message.format:
        raise FrameError(f"compressed image format '{message.format}' is a depth codec: publish PNG, JPEG or WebP")
    is_webp = _is_webp(data)
    if not is_webp and not data.startswith((_JPEG, _PNG)):
        raise FrameError(f"compressed image of format '{message.format}' holds neither PNG, JPEG nor WebP data "
                         f"({len(data)} bytes)")
    pixels = decoded(data) if _is_whole(data) else None
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


def picture_of(message: Any) -> tuple[np.ndarray, str]:
    """(pixels, encoding) of either. Raises FrameError."""
    return compressed_to_array(message) if hasattr(message, "format") else (image_to_array(message), message.encoding)


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _is_whole(data: bytes) -> bool:
    """Whether a PNG, JPEG or WebP is not cut, which decodes to one with a grey rest; so are files of other kinds."""
    if _is_webp(data):
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    if data.startswith(_JPEG):  # its end comes after its last scan, a thumbnail's before; cameras append more
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    return not data.startswith(_PNG) or b"IEND\xaeB`\x82" in data
