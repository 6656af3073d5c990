"""Photographs: what is told from them before any network sees them, and an object's several ones."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_synthesis import NOON, RedIsWarm, street

from thermalreid_ros.synthesis import ProbeSynthesizer, SynthesisError
from thermalreid_ros.synthesis.photograph import (
    LEAST_COLOURED, decode_photograph, file_is_colour, is_colour, load_photograph)
from thermalreid_ros.synthesis.searched import MOST_PHOTOGRAPHS, Photograph, SearchedObject, boxes_of

CAR = (120, 60, 180, 90)


def encoded(picture: np.ndarray, kind: str) -> bytes:
    """An RGB or grey picture as a file's bytes."""
    return cv2.imencode(kind, picture if picture.ndim == 2 else picture[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("kind, error", [(".png", 0), (".jpg", 60), (".webp", 60)])
def test_pictures_of_the_common_formats_are_read_in_rgb(kind, error):
    picture = cv2.GaussianBlur(street(), (9, 9), 3)
    read = decode_photograph(encoded(picture, kind), "car")
    assert read.shape == picture.shape and read[75, 150, 0] > 180 and read[75, 150, 2] < 80
    assert np.abs(read.astype(int) - picture).max() <= error


def test_a_photograph_is_turned_upright():
    """EXIF orientation 6: the camera was held turned to the left."""
    jpeg = encoded(street(), ".jpg")
    exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    assert decode_photograph(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:],
                             "turned").shape == (300, 200, 3)


def png_of_size(width: int, height: int) -> bytes:
    """A file whose head speaks of so many pixels."""
    data = bytearray(encoded(street(), ".png"))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(street(), ".jpg"))
    place = data.index(b"\xff\xc0") + 5
    data[place:place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(quality: int, width: int = 0, height: int = 0) -> bytes:
    """Above 100 the lossless form. width, height: that its head speaks of."""
    data = bytearray(cv2.imencode(".webp", street(), (cv2.IMWRITE_WEBP_QUALITY, quality))[1].tobytes())
    if width and quality > 100:
        rest = int.from_bytes(data[21:25], "little") >> 28 << 28
        data[21:25] = struct.pack("<I", rest | height - 1 << 14 | width - 1)
    elif width:
        data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


def extended_webp(width: int, height: int) -> bytes:
    """The form of those with EXIF, transparency or animation: a chunk of its own before the pixels'."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    inner = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + webp(80)[12:]
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


@pytest.mark.parametrize("data", [webp(80), webp(101), extended_webp(300, 200)])
def test_every_form_of_webp_is_read(data):
    assert decode_photograph(data, "car").shape == (200, 300, 3)


GREY = np.random.default_rng(0).integers(0, 255, (80, 90), dtype=np.uint8)


@pytest.mark.parametrize("data, reason", [
    (b"", "this is no photograph"),
    (b"hello, world" * 9, "this is no photograph"),
    (encoded(street(), ".png")[:5000], "cut or corrupt"),
    (encoded(street(), ".jpg")[:5000], "cut or corrupt"),
    (encoded(street(), ".webp")[:2000], "cut or corrupt"),
    (encoded(street(), ".jpg")[:30], "cut or corrupt"),
    (png_of_size(60000, 60000), "60000x60000 px"),
    (jpeg_of_size(20000, 30000), "20000x30000 px"),
    (webp(80, 16383, 12000), "16383x12000 px"),
    (webp(101, 16383, 9000), "16383x9000 px"),
    (extended_webp(70000, 16000), "70000x16000 px"),
    (webp(80)[:24], "cut or corrupt"),
    (encoded(street()[:10], ".png"), "300x10 px"),
    (encoded(GREY, ".png"), "no colours"),
    (encoded(GREY, ".jpg"), "no colours"),
    (encoded(np.repeat(GREY[..., None], 3, 2), ".webp"), "no colours"),
    (encoded(GREY.astype(np.uint16) * 100, ".png"), "no colours"),
])
def test_what_is_no_colour_photograph_is_refused_with_name_and_reason(data, reason):
    with pytest.raises(SynthesisError, match=f"^seen: .*{reason}") as refusal:
        decode_photograph(data, "seen")
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(SynthesisError, match="absent.png: the photograph cannot be read"):
        load_photograph(tmp_path / "absent.png")
    (tmp_path / "long.jpg").touch()
    with open(tmp_path / "long.jpg", "r+b") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(SynthesisError, match="too much"):
        load_photograph(tmp_path / "long.jpg")


def test_colour_files_are_told_from_thermal_crops(tmp_path):
    pictures = {"car.png": street()[..., ::-1], "tiny.png": street()[60:70, 120:130, ::-1], "crop.png": GREY,
                "grey.png": np.repeat(GREY[..., None], 3, 2), "crop16.png": GREY.astype(np.uint16) + 29000,
                "celsius.tiff": GREY.astype(np.float32), "deep.png": street()[..., ::-1].astype(np.uint16) * 257}
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "text.png").write_text("nothing")
    assert {name for name in (*pictures, "text.png", "absent.png") if file_is_colour(tmp_path / name)} == \
        {"car.png", "tiny.png", "deep.png"}


@given(st.integers(0, 255), st.floats(0.0, 0.02))
def test_so_many_coloured_pixels_make_a_colour_picture(grey, share):
    picture = np.full((100, 100, 3), grey, np.uint8)
    coloured = round(share * 1e4)
    picture.reshape(-1, 3)[:coloured] = (200, 20, 20)
    assert is_colour(picture) == (coloured >= LEAST_COLOURED * 1e4)


def test_probes_of_several_photographs_stand_together_and_a_bad_one_is_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / "front.png"), street()[..., ::-1])
    searched = SearchedObject(ProbeSynthesizer(RedIsWarm()))
    searched.read([str(tmp_path / "front.png")], [None])
    searched.show(Photograph("side", street((20, 20, 60, 120)), (20.0, 20.0, 60.0, 120.0)))
    lawn = Photograph("lawn", np.random.default_rng(1).integers((0, 100, 0), (40, 140, 40), (99, 99, 3), np.uint8))
    searched.show(lawn)
    made = searched.make(NOON, "car", 2)
    assert [round(mean) for mean in made.mean_c] == [30, 27, 30, 27] and len(made.crops) == 4
    assert made.faults == {lawn: "lawn: no car, person, bicycle or dog was found in it; give a box"}
    assert [photograph.name[-9:] for photograph in searched.photographs] == ["front.png", "side"]
    with pytest.raises(SynthesisError, match="absent"):
        searched.read([str(tmp_path / "absent.png")], [None])
    searched.forget_shown()
    assert len(searched.photographs) == 1  # that of the file, which the failed reading has left


def test_the_newest_photographs_are_kept(tmp_path):
    searched = SearchedObject(ProbeSynthesizer(RedIsWarm()))
    for number in range(MOST_PHOTOGRAPHS + 2):
        searched.show(Photograph(f"photograph {number}", street()))
    assert [p.name for p in searched.photographs] == [f"photograph {n}" for n in range(2, MOST_PHOTOGRAPHS + 2)]
    with pytest.raises(SynthesisError, match="9 photographs of one object are too many"):
        searched.read(["x.png"] * 9, [None] * 9)


def test_photographs_larger_than_is_of_use_are_kept_reduced():
    """Eight of 48 megapixels would else fill 1.2 GiB for as long as their object is searched."""
    large = cv2.resize(street(), (6001, 4000), interpolation=cv2.INTER_NEAREST)
    assert Photograph("found", large).pixels.shape == (1333, 2000, 3)
    boxed = Photograph("boxed", large, (3000.5, 1000.0, 4501.0, 2000.0))
    assert boxed.pixels.shape == (1875, 2250, 3)  # three sides of it; by 3 it would hold less of the object
    assert boxed.box == pytest.approx((750.25, 500.0, 1500.6, 1000.0), abs=1.0)
    small = Photograph("small", large, (100.0, 100.0, 900.0, 400.0))
    assert small.pixels.shape == (1450, 1700, 3) and small.box == (100.0, 100.0, 900.0, 400.0)
    assert small.pixels.base is None  # a view would keep the whole
    far = Photograph("far", large, (5600.0, 3600.0, 6000.0, 4000.0))
    x, y = round(far.box[0]), round(far.box[1])
    assert max(far.pixels.shape) <= 1000
    np.testing.assert_array_equal(far.pixels[y:y + 399, x:x + 399], large[3600:3999, 5600:5999])
    off = Photograph("off", large, (7000.0, 100.0, 7400.0, 400.0))  # refused where it is used
    assert off.pixels is large and off.box == (7000.0, 100.0, 7400.0, 400.0)
    odd = Photograph("odd", large, (float("nan"), 0.0, 1.0, 1.0))
    assert odd.pixels is large  # what is wrong with it is said where the box is used


def test_boxes_are_given_once_or_for_each_photograph():
    assert boxes_of([0.0] * 4, 3) == [None] * 3 and boxes_of([1.0, 2.0, 3.0, 4.0], 2) == [(1.0, 2.0, 3.0, 4.0)] * 2
    assert boxes_of([0.0] * 4 + [1.0, 2.0, 3.0, 4.0], 2) == [None, (1.0, 2.0, 3.0, 4.0)]
    for numbers, count in (([1.0] * 3, 1), ([], 1), ([1.0] * 8, 3)):
        with pytest.raises(SynthesisError, match=f"box holds {len(numbers)} numbers for {count} photographs"):
            boxes_of(numbers, count)
