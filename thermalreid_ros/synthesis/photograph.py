"""Colour photographs: read from a file's bytes, told from grey and thermal pictures, refused where they are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera.pixels import decoded
from thermalreid_ros.synthesis.synthesizer import LEAST_SIDE_PX, MOST_SIDE_PX, SynthesisError

#: Grey levels between the channels of one pixel: less comes of compression, or of white balance on grey.
COLOURED = 12
LEAST_COLOURED = 0.002  # share of the pixels
MOST_BYTES = 64 * 2**20

_REMEDY = "give a JPEG, PNG or WebP in colour"
# JPEG: frame headers hold the size; from the start of scan on, pixels.
_SIZES, _SCAN = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xDA


def is_colour(pixels: np.ndarray) -> bool:
    """Whether an (H, W[, 3 or 4]) picture shows colours; grey ones are saved with three channels, too."""
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
        return False
    step = max(min(pixels.shape[:2]) // 512, 1)
    some = pixels[::step, ::step, :3]
    return float((some.max(axis=2) - some.min(axis=2) > COLOURED).mean()) >= LEAST_COLOURED


def check_photograph(pixels: np.ndarray, name: str) -> np.ndarray:
    """The pixels themselves, uint8 (H, W, 3) of any order of colours. SynthesisError where no probe can come of them:
    grey, of a size that no network is shown."""
    height, width = pixels.shape[:2]
    _check_size(width, height, name)
    if not is_colour(pixels):
        raise SynthesisError(f"{name}: it shows no colours; a probe is made of a colour photograph, and a thermal crop "
                             "goes to the reid node as it is")
    return pixels


def decode_photograph(data: bytes, name: str) -> np.ndarray:
    """The picture in a file's bytes, uint8 (H, W, 3) RGB, upright as its EXIF says.

    Sizes are read before pixels are, so that a small file of a huge picture costs nothing. Raises SynthesisError,
    which begins with the name.
    """
    if len(data) > MOST_BYTES:
        raise SynthesisError(f"{name}: {len(data) / 2**20:.0f} MiB are too much for a photograph; "
                             f"{MOST_BYTES >> 20} MiB can be read")
    whole = True
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        whole = b"IEND" in data[-64:]
        _check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), name)
    elif data.startswith(b"\xff\xd8"):
        whole = _check_jpeg(data, name)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if whole := (size := _webp_size(data)) is not None:
            _check_size(*size, name)
    else:
        raise SynthesisError(f"{name}: this is no photograph; {_REMEDY}")
    pixels = decoded(data, cv2.IMREAD_COLOR) if whole else None
    if pixels is None:
        raise SynthesisError(f"{name}: the photograph is cut or corrupt; {_REMEDY}")
    return check_photograph(np.ascontiguousarray(pixels[..., ::-1]), name)


def load_photograph(path: str | Path) -> np.ndarray:
    """decode_photograph of a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SynthesisError(f"{path}: the photograph cannot be read ({error.strerror})") from None
    return decode_photograph(data, str(path))


def file_is_colour(path: str | Path) -> bool:
    """Whether a file holds a picture in colour, be it of use or not; False where it cannot be read."""
    try:
        pixels = decoded(np.fromfile(path, np.uint8))
    except OSError:
        return False
    if pixels is not None and pixels.dtype == np.uint16:  # as decode_photograph sees it
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels is not None and is_colour(pixels)


def _check_size(width: int, height: int, name: str) -> None:
    if min(height, width) < LEAST_SIDE_PX or max(height, width) > MOST_SIDE_PX:
        raise SynthesisError(f"{name}: {width}x{height} px; sides of {LEAST_SIDE_PX} to {MOST_SIDE_PX} px can be used")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP in any of its three forms (extended, lossless, lossy); None where its head is cut."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return None


def _check_jpeg(data: bytes, name: str) -> bool:
    """Whether a JPEG is whole: its end comes after the start of its pixels (a preview in its head has an end, too)."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _SIZES:
            _check_size(int.from_bytes(data[place + 7:place + 9], "big"),
                        int.from_bytes(data[place + 5:place + 7], "big"), name)
        if marker == _SCAN:
            return b"\xff\xd9" in data[place:]
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2:place + 4], "big")
    return False
