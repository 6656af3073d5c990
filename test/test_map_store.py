"""Windows of a map against points looked up one by one, in any rotation and scale; files that are no maps."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from osm_files import OsmFile
from rasterio.transform import Affine
from thermalreid_ros.maps.build import build_map
from thermalreid_ros.maps.classes import NO_DATA, SemanticClass
from thermalreid_ros.maps.store import MapError, SemanticMap


@pytest.fixture(scope="module")
def map_path(tmp_path_factory):
    osm = OsmFile(700, 500)
    rng = np.random.default_rng(7)
    for kind in ({"natural": "water"}, {"landuse": "forest"}, {"amenity": "parking"}, {"building": "yes"}):
        for _ in range(12):
            x, y = rng.uniform(0, (650, 450)).round(1)
            osm.box(x, y, x + 45.0, y + 30.0, kind)
    folder = tmp_path_factory.mktemp("map")
    build_map(osm.write(folder / "area.osm"), folder / "map.tif")
    return folder / "map.tif"


@pytest.fixture(scope="module")
def semantic_map(map_path):
    with SemanticMap.open(map_path, cache_blocks=3) as semantic_map:
        yield semantic_map


def ground_points(x, y, yaw_rad, metres_per_pixel, height, width):
    """Where the pixel centres of a window lie, from the definition: the top towards yaw."""
    right = (np.arange(width) + 0.5 - width / 2) * metres_per_pixel
    up = (height / 2 - np.arange(height) - 0.5) * metres_per_pixel
    right, up = np.meshgrid(right, up)
    return (x + up * np.cos(yaw_rad) + right * np.sin(yaw_rad), y + up * np.sin(yaw_rad) - right * np.cos(yaw_rad))


@settings(max_examples=60, deadline=None)
@given(st.floats(-100, 800), st.floats(-100, 600), st.floats(-7, 7), st.floats(0.1, 0.99),
       st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_window_is_what_lies_under_its_pixels(semantic_map, x, y, yaw_rad, metres_per_pixel, size):
    for window, at in ((semantic_map.window, semantic_map.class_at), (semantic_map.heights, semantic_map.height_at)):
        found = window(x, y, yaw_rad, metres_per_pixel, size)
        px, py = ground_points(x, y, yaw_rad, metres_per_pixel, *size)
        # OpenCV rounds to 1/32 px or finer: any of the points around the centre will do.
        around = np.stack([at(px + dx, py + dy) for dx in (-0.03, 0.0, 0.03) for dy in (-0.03, 0.0, 0.03)])
        assert found.shape == size and found.dtype == np.uint8
        assert (found == around).any(axis=0).all()


def test_north_up_window_of_the_maps_own_resolution_is_the_raster(semantic_map, map_path):
    with rasterio.open(map_path) as raster:
        pixels = raster.read(1)
    x, y = 600 * 0.5, semantic_map.bounds[3] - 450 * 0.5
    assert (semantic_map.window(x, y, np.pi / 2, 0.5, (300, 400)) == pixels[300:600, 400:800]).all()


def test_outside_is_no_data(semantic_map):
    assert (semantic_map.window(-5000.0, 1e6, 0.3, 0.5, 64) == NO_DATA).all()
    assert (semantic_map.heights(-5000.0, 1e6, 0.3, 0.5, 64) == 0).all()
    assert semantic_map.class_at(-0.1, 5.0) == NO_DATA
    assert (semantic_map.window(350.0, 250.0, 0.3, 1e4, 64) != NO_DATA).sum() <= 1  # the world, with a map in it
    edge = semantic_map.window(0.0, 250.0, np.pi / 2, 0.5, 100)
    assert (edge[:, :50] == NO_DATA).all() and (edge[:, 70:] != NO_DATA).all()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_coarse_windows_hold_what_most_of_the_ground_is(semantic_map, factor):
    x, y = 350.0, 250.0
    coarse = semantic_map.window(x, y, np.pi / 2, 0.5 * factor, 64)
    fine = semantic_map.window(x, y, np.pi / 2, 0.5, 64 * factor)
    counts = np.stack([(fine == value).reshape(64, factor, 64, factor).sum((1, 3)) for value in SemanticClass])
    clear = counts.max(axis=0) > 0.8 * factor ** 2
    assert (coarse == counts.argmax(axis=0))[clear].mean() > 0.98
    for value in SemanticClass:
        assert (coarse == value).mean() == pytest.approx((fine == value).mean(), abs=0.02)


def test_memory_holds_no_more_blocks_than_allowed(semantic_map):
    for x in np.linspace(0, 700, 20):
        semantic_map.window(x, 250.0, 1.0, 1.0, 256)
    assert len(semantic_map._blocks) <= 3


@pytest.mark.parametrize("metres_per_pixel", [0.25, 0.5, 0.99, 3.0])
def test_window_takes_less_than_a_millisecond(map_path, metres_per_pixel):
    with SemanticMap.open(map_path) as semantic_map:
        times = []
        for step in range(60):
            start = time.thread_time()
            semantic_map.window(300.0 + step, 250.0, 0.1 * step, metres_per_pixel, 256)
            times.append(time.thread_time() - start)
    assert np.median(times) < 1e-3


def saved_again(map_path, path, change=lambda bands: bands):
    """With strips of one row and without overviews, as gdal_translate saves it."""
    with rasterio.open(map_path) as whole:
        bands = change(whole.read())
        with rasterio.open(path, "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1], count=2, nodata=255,
                           dtype="uint8", crs=whole.crs, transform=whole.transform, blockysize=1) as raster:
            raster.write(bands)
            raster.update_tags(**whole.tags())
    return SemanticMap.open(path)


def test_a_map_saved_again_in_strips_is_as_fast(semantic_map, map_path, tmp_path):
    with saved_again(map_path, tmp_path / "strips.tif") as strips:
        x, y = np.random.default_rng(1).uniform(0.0, (700.0, 500.0), (20000, 2)).T
        assert (strips.class_at(x, y) == semantic_map.class_at(x, y)).all()
        assert (strips.window(300, 250, 1.0, 0.5, 700) == semantic_map.window(300, 250, 1.0, 0.5, 700)).all()
        assert len(strips._blocks) <= 6


def test_classes_are_counted_in_what_is_there(map_path, tmp_path):
    with saved_again(map_path, tmp_path / "part.tif", lambda bands: bands[:, :200, :300]) as part:
        counts = np.bincount(part.window(75.0, 50.0, np.pi / 2, 0.5, (200, 300)).ravel())
        assert list(part.pixel_counts.values()) == [*counts[:5]] and counts[2] > 0
        assert sum(part.shares.values()) == pytest.approx(1.0)

    def lava(bands):
        bands[0, 7, 9] = 99
        return bands

    with saved_again(map_path, tmp_path / "lava.tif", lava) as strange, pytest.raises(MapError, match="lava.tif.* 99"):
        strange.window(5.0, 245.0, 0.0, 0.5, 20)


def test_height_and_class_agree(semantic_map):
    x, y = np.meshgrid(np.arange(0.25, 700, 3.0), np.arange(0.25, 500, 3.0))
    heights, classes = semantic_map.height_at(x, y), semantic_map.class_at(x, y)
    assert ((heights > 0) == (classes == SemanticClass.BUILDING)).all() and (heights > 0).any()


def test_place_on_earth(semantic_map):
    latitude, longitude = semantic_map.grid.to_geographic(0.0, 0.0)
    assert (latitude, longitude) == pytest.approx((48.4, 15.6), abs=0.01)


def test_digest_is_of_the_content(map_path, tmp_path):
    shutil.copy(map_path, tmp_path / "copy.tif")
    with SemanticMap.open(map_path) as a, SemanticMap.open(tmp_path / "copy.tif") as b:
        assert a.digest == b.digest and len(a.digest) == 64


def test_other_files_are_refused(map_path, tmp_path):
    (tmp_path / "text.tif").write_text("no picture")
    (tmp_path / "half.tif").write_bytes(map_path.read_bytes()[:200])
    with rasterio.open(tmp_path / "plain.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8",
                       crs="EPSG:32633", transform=Affine(2, 0, 0, 0, -2, 0)) as raster:
        raster.write(np.zeros((1, 4, 4), np.uint8))
    shutil.copy(map_path, tmp_path / "classes.tif")
    with rasterio.open(tmp_path / "classes.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.update_tags(CLASSES='{"0": "lava"}')
    for name, crs, transform in (("degrees.tif", "EPSG:4326", Affine(6e-6, 0, 15.6, 0, -6e-6, 48.4)),
                                 ("web.tif", "EPSG:3857", Affine(0.75, 0, 1.7e6, 0, -0.75, 6.1e6)),
                                 ("south_up.tif", "EPSG:32633", Affine(2, 0, 0, 0, 2, 0)),
                                 ("turned.tif", "EPSG:32633", Affine(2, 0, 0, 0, -2, 0) @ Affine.rotation(20))):
        with rasterio.open(map_path) as whole, rasterio.open(
                tmp_path / name, "w", driver="GTiff", width=4, height=4, count=2, dtype="uint8", crs=crs,
                transform=transform) as raster:
            raster.write(np.zeros((2, 4, 4), np.uint8))
            raster.update_tags(**whole.tags())
    for name, words in (("absent.tif", "no such map"), ("text.tif", "not a whole GeoTIFF"),
                        ("half.tif", "not a whole GeoTIFF"), ("plain.tif", "not a semantic map"),
                        ("classes.tif", "lava"), ("degrees.tif", "UTM"), ("web.tif", "UTM"),
                        ("south_up.tif", "north up"), ("turned.tif", "north up")):
        with pytest.raises(MapError, match=words) as fault:
            SemanticMap.open(tmp_path / name)
        assert name in str(fault.value) and "\n" not in str(fault.value)


def test_broken_pixels_are_named(map_path, tmp_path):
    data = bytearray(map_path.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)
    (tmp_path / "broken.tif").write_bytes(data)
    with pytest.raises(MapError, match="broken.tif"):
        with SemanticMap.open(tmp_path / "broken.tif") as semantic_map:
            semantic_map.window(350.0, 250.0, 0.0, 0.5, 1400)
    with pytest.raises(MapError, match="broken.tif"), SemanticMap.open(tmp_path / "broken.tif") as semantic_map:
        semantic_map.overview(4000)
