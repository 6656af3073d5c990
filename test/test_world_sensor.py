"""The rendered sensors: what is measured in their pictures is what their parameters say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.world.colour_camera import ColourCamera, ColourCameraParameters
from thermalreid_ros.world.radiometry import radiance
from thermalreid_ros.world.sensor import (
    GainControl, SensorError, ThermalSensor, ThermalSensorParameters, gaussian_kernel, smear)

SIZE = (128, 160)
CAMERA = Intrinsics.from_field_of_view(SIZE[1], SIZE[0], np.radians(45))
S = 1_000_000_000
IDEAL = ThermalSensorParameters(netd_k=0, psf_sigma_px=0, vignetting=0, row_pattern_k=0, column_pattern_k=0,
                                pixel_pattern_k=0, dead_share=0)


def scene(temperature_k=300.0) -> np.ndarray:
    return np.broadcast_to(radiance(np.asarray(temperature_k)), SIZE).astype(np.float32)


def measured(frame: np.ndarray) -> np.ndarray:
    """Radiance of a frame's temperatures, float64."""
    return radiance(frame * 0.01).astype(np.float64)


def settled_stamp(sensor: ThermalSensor, share: float, event: int = 5) -> int:
    """A stamp at a share of the time between two shutter events."""
    period = int(sensor.parameters.shutter_period_s * 1e9)
    number, since = sensor.shutter_event(event * period)
    return event * period - round(since * 1e9) + int(share * period)


@pytest.mark.parametrize("netd_k", [0.030, 0.045, 0.060])
def test_netd_of_a_uniform_scene(netd_k):
    sensor = ThermalSensor(ThermalSensorParameters(netd_k=netd_k), CAMERA, 3)
    start = settled_stamp(sensor, 0.3)
    frames = np.stack([sensor.capture(scene(300.0), start + i * S // 10) for i in range(40)]) * 0.01
    assert np.sqrt(frames.var(axis=0, ddof=1).mean()) == pytest.approx(netd_k, rel=0.02)


def test_noise_grows_in_the_cold_as_planck_has_it():
    sensor = ThermalSensor(replace(IDEAL, netd_k=0.05), CAMERA, 3)
    start = settled_stamp(sensor, 0.3)
    frames = np.stack([sensor.capture(scene(250.0), start + i * S // 10) for i in range(30)]) * 0.01
    slope = [(radiance(t + 0.5) - radiance(t - 0.5)).item() for t in (np.float32(300.0), np.float32(250.0))]
    assert np.sqrt(frames.var(axis=0, ddof=1).mean()) == pytest.approx(0.05 * slope[0] / slope[1], rel=0.03)


@given(st.floats(0.1, 2.5))
def test_the_kernel_has_the_variance_asked_for(sigma_px):
    taps = gaussian_kernel(sigma_px).astype(np.float64)
    offsets = np.arange(len(taps)) - len(taps) // 2
    assert taps.sum() == pytest.approx(1, abs=1e-6)
    assert (taps * offsets ** 2).sum() == pytest.approx(sigma_px ** 2, rel=2e-3)


@pytest.mark.parametrize("sigma_px", [0.4, 0.8, 1.3])
def test_psf_of_a_point_and_of_a_slanted_edge(sigma_px):
    sensor = ThermalSensor(replace(IDEAL, psf_sigma_px=sigma_px), CAMERA, 3)
    point = scene(300.0).copy()
    point[64, 80] *= 4
    response = measured(sensor.capture(point, 0)) - measured(np.array([30000]))
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    weight = response / response.sum()
    assert np.sqrt((weight * (x - 80) ** 2).sum()) == pytest.approx(sigma_px, rel=0.05)
    assert np.sqrt((weight * (y - 64) ** 2).sum()) == pytest.approx(sigma_px, rel=0.05)

    edge_x = 80.0 + (np.arange(SIZE[0]) - 64)[:, None] * np.tan(np.radians(5.0))
    cover = np.clip(x + 1.0 - edge_x, 0, 1)  # share of each pixel on the warm side
    sensor.reset()
    response = measured(sensor.capture(np.float32(scene(280.0) + cover * (scene(320.0) - scene(280.0))), 0))
    line = np.diff(response, axis=1)[8:-8]  # the line spread function, between the centres x + 0.5 and x + 1.5
    distance = np.arange(1, SIZE[1]) - edge_x[8:-8]
    variance = (line * distance ** 2).sum() / line.sum()
    # The edge averaged over a pixel and differenced: a triangle of variance 1/6; the blur crosses it aslant.
    blur = np.sqrt((variance - 1 / 6) / (1 + np.tan(np.radians(5.0)) ** 2))
    assert blur == pytest.approx(sigma_px, rel=0.05)


@pytest.mark.parametrize("time_constant_s", [0.008, 0.010, 0.012])
def test_lag_of_a_step(time_constant_s):
    sensor = ThermalSensor(replace(IDEAL, time_constant_s=time_constant_s), CAMERA, 3)
    start = settled_stamp(sensor, 0.3)
    sensor.capture(scene(290.0), start)
    stamps_s = np.arange(1, 9) * 0.004
    levels = np.array([measured(sensor.capture(scene(310.0), start + int(t * 1e9))).mean() for t in stamps_s])
    cold, warm = radiance(np.float32([290.0, 310.0])).astype(np.float64)
    slope = np.polyfit(stamps_s, np.log((warm - levels) / (warm - cold)), 1)[0]
    assert -1 / slope == pytest.approx(time_constant_s, rel=0.02)


def test_at_10_hz_a_frame_owes_nothing_to_the_one_before():
    warm = ThermalSensor(IDEAL, CAMERA, 3)
    start = settled_stamp(warm, 0.3)
    warm.capture(scene(330.0), start)
    fresh = ThermalSensor(IDEAL, CAMERA, 3)
    np.testing.assert_allclose(warm.capture(scene(300.0), start + S // 10).astype(int),
                               fresh.capture(scene(300.0), start + S // 10), atol=1)


@pytest.mark.parametrize("rate_hz", [25, 60, 240])
def test_lag_of_a_moving_target_equals_the_integral_over_its_past(rate_hz):
    tau, velocity = 0.010, np.array([300.0, -120.0])
    sensor = ThermalSensor(replace(IDEAL, time_constant_s=tau), CAMERA, 3)
    y, x = np.mgrid[:SIZE[0], :SIZE[1]] + 0.5
    background, step_s = scene(290.0).astype(np.float64), 2e-4

    def target(t):
        cx, cy = np.array([110.0, 40.0]) + velocity * t
        return background * (1 + 0.5 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 2.0 ** 2)))

    start = settled_stamp(sensor, 0.3)
    for frame in range(-12 * rate_hz // 100 - 1, 1):
        t = frame / rate_hz
        picture = sensor.capture(target(t).astype(np.float32), start + round(t * 1e9), tuple(velocity))
    ages = np.arange(step_s / 2, 0.1, step_s)
    expected = sum(target(-age) * np.exp(-age / tau) for age in ages) / np.exp(-ages / tau).sum()
    contrast = expected.max() - background.max()
    assert np.abs(measured(picture) - expected).max() < 0.02 * contrast
    assert np.abs(target(0.0) - expected).max() > 0.2 * contrast  # there was something to see


@settings(max_examples=20, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_a_smear_trails_by_the_mean_age_and_keeps_the_sum(trail_x, trail_y):
    image = np.zeros((141, 141), np.float32)
    image[70, 70] = 1
    blurred = smear(image, np.array([trail_x, trail_y]), 8.0).astype(np.float64)
    y, x = np.mgrid[:141, :141] - 70
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    age = (1 - 9 * np.exp(-8.0)) / (1 - np.exp(-8.0))
    assert (blurred * x).sum() == pytest.approx(-trail_x * age, abs=0.02)
    assert (blurred * y).sum() == pytest.approx(-trail_y * age, abs=0.02)


def test_pattern_grows_to_its_parameters_and_a_shutter_event_resets_it():
    parameters = replace(IDEAL, row_pattern_k=0.10, column_pattern_k=0.20, pixel_pattern_k=0.15)
    sensor = ThermalSensor(parameters, CAMERA, 7)
    rows, columns, pixels = [], [], []
    for event in range(5, 25):
        frame = sensor.capture(scene(300.0), settled_stamp(sensor, 0.9999, event)) * 0.01 - 300.0
        row, column = frame.mean(axis=1, keepdims=True), frame.mean(axis=0, keepdims=True)
        rows.append(row.var())
        columns.append(column.var())
        pixels.append((frame - row - column).var())
    assert np.sqrt(np.mean(rows)) == pytest.approx(0.10, rel=0.05)
    assert np.sqrt(np.mean(columns)) == pytest.approx(0.20, rel=0.05)
    assert np.sqrt(np.mean(pixels)) == pytest.approx(0.15, rel=0.05)
    after = settled_stamp(sensor, 0.0, 25) + round(parameters.shutter_s * 1e9)
    assert (sensor.capture(scene(300.0), after) * 0.01).std() < 0.02


def test_the_picture_stands_still_while_the_shutter_is_shut():
    sensor = ThermalSensor(ThermalSensorParameters(), CAMERA, 7)
    event = settled_stamp(sensor, 0.0)
    before = sensor.capture(scene(300.0), event - S // 10)
    during = [sensor.capture(scene(305.0), event + i * S // 10) for i in (0, 1, 2, 3)]
    assert all((frame == before).all() for frame in during)
    after = sensor.capture(scene(305.0), event + 4 * S // 10)
    assert after.mean() == pytest.approx(30500, abs=60)


def test_a_frame_follows_from_seed_and_stamp_alone():
    parameters = ThermalSensorParameters()
    video = ThermalSensor(parameters, CAMERA, 11)
    start = settled_stamp(video, 0.4)
    frames = [video.capture(scene(300.0), start + i * S // 5) for i in range(4)]
    alone = ThermalSensor(parameters, CAMERA, 11).capture(scene(300.0), start + 3 * S // 5)
    np.testing.assert_array_equal(alone, frames[3])
    assert (frames[3] != frames[2]).mean() > 0.8
    assert (ThermalSensor(parameters, CAMERA, 12).capture(scene(300.0), start + 3 * S // 5) != alone).mean() > 0.8


def test_dead_pixels_are_as_many_as_asked_and_treated_as_asked():
    parameters = replace(IDEAL, dead_share=5e-3)
    expected = round(5e-3 * SIZE[0] * SIZE[1])
    gradient = scene(np.linspace(290.0, 310.0, SIZE[1]))
    zero = ThermalSensor(replace(parameters, dead_pixels="zero"), CAMERA, 5)
    assert (zero.capture(gradient, 0) == 0).sum() == expected == zero.dead_mask.sum()
    stuck = ThermalSensor(replace(parameters, dead_pixels="stuck"), CAMERA, 5)
    first, second = stuck.capture(gradient, 0), stuck.capture(gradient, S)
    np.testing.assert_array_equal(first[stuck.dead_mask], second[stuck.dead_mask])
    assert np.abs(first[stuck.dead_mask] - 30000.0).mean() > 3000
    perfect = ThermalSensor(replace(parameters, dead_share=0.0), CAMERA, 5).capture(gradient, 0)
    repaired = ThermalSensor(parameters, CAMERA, 5).capture(gradient, 0)
    assert np.abs(repaired.astype(int) - perfect).max() <= 13  # a pixel's step of the gradient, at the border
    assert (repaired[~stuck.dead_mask] == perfect[~stuck.dead_mask]).all()


def test_vignetting_lets_the_warm_barrel_shine_in_the_corners():
    sensor = ThermalSensor(replace(IDEAL, vignetting=0.04, housing_temperature_k=310.0), CAMERA, 5)
    corner = measured(sensor.capture(scene(290.0), 0))[0, 0]
    cold, barrel = radiance(np.float32([290.0, 310.0])).astype(np.float64)
    assert (corner - cold) / (barrel - cold) == pytest.approx(0.04, rel=0.03)


def test_a_frame_is_radiometric():
    sensor = ThermalSensor(replace(IDEAL, offset_k=1.5), CAMERA, 5)
    for i, temperature_k in enumerate((230.0, 273.15, 300.0, 350.0, 500.0)):
        frame = sensor.capture(scene(temperature_k), i * S)
        assert frame.dtype == np.uint16 and frame.mean() == pytest.approx(100 * (temperature_k + 1.5), abs=1.0)


def test_bad_input_is_refused_with_a_line():
    sensor = ThermalSensor(IDEAL, CAMERA, 5)
    with pytest.raises(SensorError, match="64x64.*160x128|shape \\(64, 64\\)"):
        sensor.capture(np.ones((64, 64), np.float32), 0)
    broken = scene().copy()
    broken[3, 4] = np.nan
    with pytest.raises(SensorError, match="NaN"):
        sensor.capture(broken, 0)
    sensor.capture(scene(), S)
    with pytest.raises(SensorError, match="order of their stamps"):
        sensor.capture(scene(), S // 2)
    with pytest.raises(SensorError, match="dead_pixels 'gone'"):
        ThermalSensorParameters(dead_pixels="gone")
    with pytest.raises(SensorError, match="negative"):
        ThermalSensorParameters(netd_k=-0.01)
    with pytest.raises(SensorError, match="gain control 'magic'"):
        GainControl(mode="magic")


def test_varied_cameras_stay_within_their_ranges():
    rng = np.random.default_rng(1)
    cameras = [ThermalSensorParameters().varied(rng) for _ in range(200)]
    for name, low, high in (("netd_k", 0.03, 0.06), ("psf_sigma_px", 0.5, 1.3), ("time_constant_s", 0.008, 0.012)):
        values = np.array([getattr(camera, name) for camera in cameras])
        assert low <= values.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < values.max() <= high
    assert cameras[0] == ThermalSensorParameters().varied(np.random.default_rng(1))


def test_gain_control_limits_its_gain_and_turns_polarity():
    frame = (30000 + np.tile(np.linspace(0, 200, SIZE[1]), (SIZE[0], 1))).astype(np.uint16)  # 2 K
    for mode in ("plateau", "linear"):
        grey = GainControl(mode=mode, max_gain_per_k=20.0).grey(frame)
        assert 36 <= int(grey.max()) - int(grey.min()) <= 41 and 118 < grey.mean() < 138
        wide = GainControl(mode=mode).grey(np.linspace(28000, 32000, frame.size).astype(np.uint16).reshape(SIZE))
        assert wide.min() < 5 and wide.max() > 250
        np.testing.assert_array_equal(GainControl(mode=mode, max_gain_per_k=20.0, black_hot=True).grey(frame),
                                      255 - grey)


def test_sharpening_and_compression():
    frame = np.full(SIZE, 30000, np.uint16)
    frame[:, 83:] += 400
    plain = GainControl(mode="linear", max_gain_per_k=20).grey(frame).astype(int)
    sharp = GainControl(mode="linear", max_gain_per_k=20, sharpening=1.0).grey(frame).astype(int)
    assert np.ptp(sharp[64]) > 1.3 * np.ptp(plain[64])
    assert (sharp[:, :60] == plain[:, :60]).all()
    coded = GainControl(mode="linear", max_gain_per_k=20, jpeg_quality=80).grey(frame).astype(int)
    assert 0 < np.abs(coded - plain).max() < 12


def test_denoising_spares_edges_and_local_contrast_lifts_what_is_small():
    control = GainControl(mode="linear", max_gain_per_k=40)
    noisy = np.full(SIZE, 30000.0)
    noisy[:, 83:] += 200
    frame = (noisy + np.random.default_rng(1).normal(0, 5, SIZE)).astype(np.uint16)
    plain, smooth = control.grey(frame).astype(float), replace(control, denoising=15.0).grey(frame).astype(float)
    assert smooth[:, 10:70].std() < 0.5 * plain[:, 10:70].std()
    assert smooth[:, 84].mean() - smooth[:, 82].mean() > 0.95 * (plain[:, 84].mean() - plain[:, 82].mean())
    spot = np.full(SIZE, 30000, np.uint16)
    spot[60:68, 76:84] += 200
    spot[0, 0], spot[0, 1] = 29600, 30400
    plain = control.grey(spot).astype(int)
    lifted = replace(control, local_contrast=0.5).grey(spot).astype(int)
    assert lifted[64, 80] - lifted[64, 20] > 1.3 * (plain[64, 80] - plain[64, 20])


def test_varied_gain_controls_differ_and_work():
    rng = np.random.default_rng(2)
    sensor = ThermalSensor(ThermalSensorParameters(), CAMERA, 5)
    frame = sensor.capture(scene(np.linspace(280.0, 310.0, SIZE[1])), 0)
    controls = [GainControl().varied(rng) for _ in range(30)]
    pictures = {control.grey(frame).tobytes() for control in controls}
    assert len(pictures) == 30 and {control.mode for control in controls} == {"plateau", "linear"}


# The colour camera.

PLAIN = ColourCameraParameters(psf_sigma_px=0, vignetting=0, balance=0, saturation=1)


def linear(picture: np.ndarray) -> np.ndarray:
    """Linear light of sRGB levels."""
    level = picture / 255.0
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def colours(*rgb) -> np.ndarray:
    """A sheet that sends back so much of irradiance 1."""
    return np.broadcast_to(np.float32(rgb) / np.float32(np.pi), (*SIZE, 3)).copy()


@pytest.mark.parametrize("light", [0.01, 0.2, 3.0])
def test_exposure_brings_any_daylight_to_middle_grey(light):
    picture = ColourCamera(PLAIN, CAMERA, 1).capture(colours(light, light, light), 0)
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    assert linear(picture).mean() == pytest.approx(0.18, rel=0.05)


def test_night_stays_dark_and_noisy_but_lamps_shine():
    night = colours(2e-6, 2e-6, 2e-6)
    night[60:64, 60:64] = 0.05
    picture = ColourCamera(PLAIN, CAMERA, 1).capture(night, 0)
    assert picture[:40].mean() < 40 and picture[61:63, 61:63].min() > 250
    day = ColourCamera(PLAIN, CAMERA, 1).capture(colours(0.2, 0.2, 0.2), 0)
    assert picture[:40].std() > 3 * day[:40].std()
    lit_road = ColourCamera(PLAIN, CAMERA, 1).capture(colours(1.4e-5, 1e-5, 0.5e-5), 0)
    assert 40 < lit_road.mean() < 100


@pytest.mark.parametrize("gain_stops", [0, 3, 5])
def test_noise_is_that_of_the_electrons(gain_stops):
    # Middle grey at the longest exposure and a known amplification.
    light = PLAIN.middle_grey / (PLAIN.max_exposure * 2 ** gain_stops)
    camera = ColourCamera(replace(PLAIN, full_well=6000.0), CAMERA, 1)
    picture = linear(camera.capture(colours(light, light, light), 0))
    electrons = 6000.0 / 2 ** gain_stops
    expected = np.sqrt(PLAIN.middle_grey / electrons + (PLAIN.read_noise / electrons) ** 2)
    assert picture.std() == pytest.approx(expected, rel=0.05)


def test_white_balance_draws_a_cast_halfway_to_grey():
    warm = colours(0.3, 0.2, 0.1)
    ratio = {balance: (lambda p: linear(p)[..., 0].mean() / linear(p)[..., 2].mean())(
        ColourCamera(replace(PLAIN, balance=balance), CAMERA, 1).capture(warm, 0)) for balance in (0.0, 0.5, 1.0)}
    assert ratio[0.0] == pytest.approx(3.0, rel=0.05)
    assert ratio[0.5] == pytest.approx(3.0 ** 0.5, rel=0.05)
    assert ratio[1.0] == pytest.approx(1.0, rel=0.05)


def test_the_colour_camera_repeats_itself_and_refuses_other_sizes():
    picture = ColourCamera(ColourCameraParameters(), CAMERA, 1).capture(colours(0.1, 0.2, 0.1), 5)
    np.testing.assert_array_equal(
        ColourCamera(ColourCameraParameters(), CAMERA, 1).capture(colours(0.1, 0.2, 0.1), 5), picture)
    assert (ColourCamera(ColourCameraParameters(), CAMERA, 1).capture(colours(.1, .2, .1), 6) != picture).any()
    assert picture[..., 1].mean() > picture[..., 0].mean() + 10
    with pytest.raises(SensorError, match="does not fit a colour camera"):
        ColourCamera(PLAIN, CAMERA, 1).capture(np.ones((10, 10, 3), np.float32), 0)
