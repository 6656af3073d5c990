"""Messages to numpy and back."""

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from thermalreid_ros.camera.pixels import picture_of, read_picture
from thermalreid_ros.camera.thermal import FrameError, ThermalUnits
from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.ros import convert

HEADER = Header(frame_id="thermal_optical")
HEADER.stamp.sec, HEADER.stamp.nanosec = 12, 345
SHAPES = {"mono8": (np.uint8, ()), "mono16": (np.uint16, ()), "32FC1": (np.float32, ()), "bgr8": (np.uint8, (3,)),
          "rgb8": (np.uint8, (3,))}


def pixels_of(encoding: str, height: int = 6, width: int = 5) -> np.ndarray:
    dtype, channels = SHAPES[encoding]
    generator = np.random.default_rng(len(encoding))
    return generator.integers(0, 250 if dtype is np.uint8 else 60000, (height, width, *channels)).astype(dtype)


@pytest.mark.parametrize("encoding", SHAPES)
def test_round_trip_views_the_message(encoding):
    pixels = pixels_of(encoding)
    message = convert.array_to_image(pixels, encoding, HEADER)
    read = convert.image_to_array(message)
    assert read.dtype == pixels.dtype and np.array_equal(read, pixels)
    assert read.flags.c_contiguous and not read.flags.writeable
    assert np.shares_memory(read, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", SHAPES)
@pytest.mark.parametrize("big_endian", (False, True))
@pytest.mark.parametrize("padding", (0, 3, 8))
def test_padding_and_byte_order(encoding, big_endian, padding):
    pixels = pixels_of(encoding)
    order = ">" if big_endian else "<"
    rows = pixels.astype(pixels.dtype.newbyteorder(order)).view(np.uint8).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=6, width=5, encoding=encoding, is_bigendian=int(big_endian), step=padded.shape[1],
                    data=padded.tobytes())
    read = convert.image_to_array(message)
    assert read.dtype == pixels.dtype and read.dtype.isnative and np.array_equal(read, pixels)
    message.data = padded.tobytes()[:padded.size - padding]  # the last row's padding may be left out
    assert np.array_equal(convert.image_to_array(message), pixels)


@pytest.mark.parametrize(("change", "words"), [
    ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8' is not known"),
    ({"height": 0}, "5 x 0 pixels is empty"),
    ({"width": 0}, "0 x 6 pixels is empty"),
    ({"step": 9}, "row step is 9 bytes but 5 pixels of mono16 take 10"),
    ({"step": 0}, "row step is 0 bytes"),
    ({"data": bytes(59)}, "truncated: 59 bytes of 60"),
    ({"data": b""}, "truncated: 0 bytes of 60"),
    ({"height": 2**31}, "truncated"),
])
def test_faulty_images_are_refused_in_one_line(change, words):
    message = convert.array_to_image(pixels_of("mono16"), "mono16", HEADER)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FrameError, match=words) as refusal:
        convert.image_to_array(message)
    assert "\n" not in str(refusal.value)


@settings(max_examples=200, deadline=None)
@given(height=st.integers(0, 9), width=st.integers(0, 9), step=st.integers(0, 40), size=st.integers(0, 400),
       encoding=st.sampled_from([*SHAPES, "", "mono12"]), big=st.integers(0, 1))
def test_any_header_gives_an_image_or_a_refusal(height, width, step, size, encoding, big):
    message = Image(height=height, width=width, step=step, encoding=encoding, is_bigendian=big, data=bytes(size))
    try:
        pixels = convert.image_to_array(message)
    except FrameError:
        return
    assert pixels.shape[:2] == (height, width) and not pixels.any()


def test_writing_checks_the_dtype():
    with pytest.raises(ValueError, match="float64 is no 32FC1"):
        convert.array_to_image(np.zeros((2, 2)), "32FC1", HEADER)
    with pytest.raises(ValueError, match="is no mono8"):
        convert.array_to_image(np.zeros((2, 2, 3), np.uint8), "mono8", HEADER)


def test_writing_a_strided_array():
    pixels = pixels_of("mono16", 8, 8)
    assert np.array_equal(convert.image_to_array(convert.array_to_image(pixels[::2, 1::3], "mono16", HEADER)),
                          pixels[::2, 1::3])


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_keep_every_nanosecond(stamp_ns):
    assert convert.stamp_to_ns(convert.ns_to_stamp(stamp_ns)) == stamp_ns
    serialized = serialize_message(Header(stamp=convert.ns_to_stamp(stamp_ns), frame_id="camera"))
    assert convert.serialized_stamp_ns(serialized) == stamp_ns
    other_order = bytes((0, 0, 0, 0)) + struct.pack(">iI", *divmod(stamp_ns, 10**9))
    assert convert.serialized_stamp_ns(other_order) == stamp_ns


def compressed(pixels: np.ndarray, extension: str, label: str) -> CompressedImage:
    return CompressedImage(header=HEADER, format=label, data=cv2.imencode(extension, pixels)[1].tobytes())


@pytest.mark.parametrize(("encoding", "label"), [("mono8", "png"), ("mono16", "mono16; png compressed "),
                                                 ("bgr8", "bgr8; png compressed bgr8")])
def test_png_is_exact(encoding, label):
    pixels = pixels_of(encoding, 40, 50)
    read, found = convert.compressed_to_array(compressed(pixels, ".png", label))
    assert found == encoding and np.array_equal(read, pixels)


def test_jpeg():
    pixels = np.full((40, 50), 117, np.uint8)
    read, encoding = convert.compressed_to_array(compressed(pixels, ".jpg", "mono8; jpeg compressed mono8"))
    assert encoding == "mono8" and np.abs(read.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("extension", (".png", ".jpg"))
@pytest.mark.parametrize("kept", (0.0, 0.1, 0.5, 0.99))
def test_cut_pictures_are_refused(extension, kept):
    message = compressed(pixels_of("mono8", 64, 64), extension, extension[1:])
    message.data = message.data[:int(len(message.data) * kept)]
    with pytest.raises(FrameError, match="truncated or corrupt|holds neither PNG"):
        convert.compressed_to_array(message)


@pytest.mark.parametrize("extension", (".png", ".jpg", ".webp"))
def test_cut_files_are_refused_and_longer_ones_read(extension, tmp_path):
    path, data = tmp_path / f"a{extension}", cv2.imencode(extension, pixels_of("mono8", 64, 64))[1].tobytes()
    path.write_bytes(data + b"what a camera appends" * 200)
    assert np.array_equal(read_picture(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    for change, says in ((lambda: path.write_bytes(data[:-20]), "not a readable image, or"), (path.unlink, "No such")):
        change()
        with pytest.raises(ThermalReidError, match=f"a{extension}: .*{says}"):
            read_picture(path)


def test_corrupt_and_foreign_pictures_are_refused():
    message = compressed(pixels_of("mono8", 64, 64), ".png", "png")
    message.data[12:40] = message.data[40:68]
    with pytest.raises(FrameError, match="corrupt"):
        convert.compressed_to_array(message)
    with pytest.raises(FrameError, match="holds neither PNG"):
        convert.compressed_to_array(CompressedImage(format="png", data=b"GIF89a"))
    with pytest.raises(FrameError, match="depth codec"):
        convert.compressed_to_array(CompressedImage(format="16UC1; compressedDepth png", data=bytes(20)))


def test_frames_keep_stamp_and_temperatures():
    celsius = np.linspace(-20.0, 60.0, 64 * 48, dtype=np.float32).reshape(48, 64)
    kelvin = np.rint((celsius + 273.15) * 100).astype(np.uint16)
    frame = convert.message_to_frame(convert.array_to_image(kelvin, "mono16", HEADER), ThermalUnits.CENTIKELVIN)
    assert (frame.stamp_ns, frame.frame_id) == (12_000_000_345, "thermal_optical")
    assert np.abs(frame.temperature_c() - celsius).max() < 0.006
    packed = convert.message_to_frame(compressed(kelvin, ".png", "png"), ThermalUnits.CENTIKELVIN)
    assert np.array_equal(packed.raw, frame.raw)


@pytest.mark.parametrize(("encoding", "units"), [("mono16", "agc8"), ("32FC1", "centikelvin"), ("mono8", "optris")])
def test_units_that_do_not_fit_are_refused(encoding, units):
    with pytest.raises(FrameError, match="cannot hold units"):
        convert.message_to_frame(convert.array_to_image(pixels_of(encoding, 40, 40), encoding, HEADER), units)


def test_detections_round_trip():
    found = (Detection(1, 0.75, 1.5, 2.25, 10.5, 20.0), Detection(3, 0.5, 0.0, 0.0, 640.0, 512.0))
    message = convert.detections_to_message(DetectionResult(found, np.float32(4.5)), HEADER, (512, 640), "yolo")
    assert (message.height, message.width, message.inference_ms, message.semantics) == (512, 640, 4.5, "none")
    assert message.detections[0].class_name == "person" and message.header == HEADER
    assert convert.message_to_detections(message) == found


def test_filling_image_data_is_quick(benchmark_s=0.02):
    """A list or an ndarray given to Image.data takes 29 to 90 ms for this frame, see the module's comment."""
    import time

    frame = np.zeros((512, 640), np.uint16)
    began_s = time.perf_counter()
    for _ in range(20):
        convert.image_to_array(convert.array_to_image(frame, "mono16", HEADER))
    assert (time.perf_counter() - began_s) / 20 < benchmark_s


def frame_of(width: int, height: int):
    message = convert.array_to_image(np.zeros((height, width), np.uint8), "mono8", HEADER)
    return convert.message_to_frame(message, ThermalUnits.AGC8)


def test_a_frame_of_another_size_is_refused_and_a_camera_that_was_switched_is_not():
    gate = convert.SizeGate()
    for _ in range(20):  # every other one is corrupt
        gate.check(frame_of(64, 48))
        with pytest.raises(FrameError, match="40x36, those before were 64x48"):
            gate.check(frame_of(40, 36))
    for size in ((40, 36), (48, 40), (40, 36), (40, 36), (40, 36), (40, 36)):
        with pytest.raises(FrameError):
            gate.check(frame_of(*size))
    assert gate.check(frame_of(40, 36)).width == 40
    with pytest.raises(FrameError):
        gate.check(frame_of(64, 48))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pictures_of_recordings_are_read_as_nodes_read_them(encoding, order):
    """Decoded by rosbags: the same fields, and data as an array."""
    pixels = np.arange(40, dtype=np.uint16).reshape(5, 8) + 28000
    rows = np.zeros((5, 20), np.uint8)  # padded
    rows[:, :16] = pixels.astype(f"{order}u2").view(np.uint8)
    message = SimpleNamespace(height=5, width=8, step=20, encoding=encoding, is_bigendian=order == ">",
                              data=rows.ravel()[:-4])  # the last row's padding left out
    read, said = picture_of(message)
    np.testing.assert_array_equal(read, pixels)
    png = cv2.imencode(".png", pixels)[1].ravel()
    read, said = picture_of(SimpleNamespace(format="16UC1; png compressed ", data=png))
    np.testing.assert_array_equal(read, pixels)
    assert said == "mono16"
    with pytest.raises(FrameError, match="truncated"):
        picture_of(SimpleNamespace(**{**vars(message), "data": message.data[:-9]}))
