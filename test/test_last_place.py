"""What a localization leaves for the one that comes next."""

import json
import os

import pytest
from thermalreid_ros.localization.localizer import Handover
from thermalreid_ros.ros import last_place as module
from thermalreid_ros.ros.last_place import LastPlace

PLACE = Handover(1_700_000_000_000_000_000, 450.5, 380.25, 3.5, 0.01, 120.0, -40.0, 9.5)


@pytest.fixture
def clock(monkeypatch, tmp_path):
    class Clock:
        now_s = 1000.0

        def monotonic(self):
            return self.now_s

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setattr(module, "time", clock := Clock())
    return clock


def keeper(node="/uav1/geo_localization", map_name="town.tif", max_age_s=30.0):
    return LastPlace(node, map_name, max_age_s, pytest.fail)


def test_what_was_kept_is_found_by_the_next_of_the_same_name(clock, tmp_path):
    assert keeper().load() is None
    keeper().keep(None)
    assert not list(tmp_path.iterdir())
    keeper().keep(PLACE)
    assert [file.name for file in tmp_path.iterdir()] == [f"thermalreid-{os.getuid()}-7-uav1-geo_localization.json"]
    assert keeper().load() == PLACE
    assert keeper(map_name="other.tif").load() is None and keeper(node="/uav2/geo_localization").load() is None
    clock.now_s += 29.0
    assert keeper().load() == PLACE
    clock.now_s += 2.0
    assert keeper().load() is None


def test_it_is_written_once_a_second_and_never_where_it_is_not_wanted(clock, tmp_path):
    kept = keeper()
    for step in range(5):
        clock.now_s = 1000.0 + 0.5 * step
        kept.keep(Handover(step, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
        assert kept.load().stamp_ns == step - step % 2
    kept.path.unlink()
    keeper(max_age_s=0.0).keep(PLACE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_text("{"), lambda path: path.write_text("[]"), lambda path: path.write_text("{}"),
    lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"})),
    lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"place": {"x": 1.0}})),
    lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"monotonic_s": 2000.0})),
    lambda path: path.write_bytes(b"\xff\xfe")])
def test_what_cannot_be_trusted_is_left(clock, spoil):
    kept = keeper()
    kept.keep(PLACE)
    spoil(kept.path)
    assert kept.load() is None


def test_a_place_that_can_no_longer_be_removed_is_left(clock, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder := tmp_path / "run"))
    folder.mkdir()
    kept = keeper()
    kept.keep(PLACE)
    folder.rename(tmp_path / "away")
    folder.touch()  # root may enter any directory, but no file
    kept.keep(None)


def test_nothing_is_written_where_another_user_s_link_leads(clock, tmp_path):
    kept = keeper()
    (tmp_path / "other").write_text("own")
    for lay in (lambda: kept.path.symlink_to(tmp_path / "other"), lambda: os.mkfifo(kept.path)):
        kept.path.unlink(missing_ok=True)
        lay()
        clock.now_s += 2.0
        kept.keep(PLACE)
        assert kept.load() == PLACE and not kept.path.is_symlink()
    assert (tmp_path / "other").read_text() == "own"


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_a_place_that_cannot_be_written_is_one_warning(clock, monkeypatch, tmp_path, folder):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / folder))
    said = []
    kept = LastPlace("/geo_localization", "town.tif", 30.0, said.append)
    for _ in range(3):
        clock.now_s += 2.0
        kept.keep(PLACE)
        kept.keep(None)
    assert len(said) == 1 and "cannot be written" in said[0] and "\n" not in said[0]
