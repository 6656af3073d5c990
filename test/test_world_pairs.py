"""Sets of pairs: the same view in both bands, again at another time, and from a drone."""

import json

import numpy as np
import pytest
from small_town import CENTRE, MAP

from thermalreid_ros.cli import main
from thermalreid_ros.world.pairs import CONDITIONS, PairsPlan

PAIRS = ["world", "pairs", "--map", str(MAP), "--seed", "4", "--identities", "4", "--views", "1", "--drone", "1",
         "--size", "320", "--centre", f"{CENTRE[0]},{CENTRE[1]}", "--workers", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("pairs") / "set"
    assert main([*PAIRS, "--out", str(out), "--json", str(out.parent / "n.json")]) == 0
    return out


def test_groups_share_the_classes_out():
    groups = PairsPlan(MAP, 1, 10, group=8).groups()
    assert [len(group) for group in groups] == [8, 2]
    assert groups[0][:5] == [("car", 0), ("person", 0), ("bicycle", 0), ("dog", 0), ("car", 1)]


def test_both_bands_show_one_object_in_one_place(folder):
    index = json.loads((folder / "index.json").read_text())
    count = json.loads((folder.parent / "n.json").read_text())["pairs"]
    assert index["pairs"] == count >= 3 and "OpenStreetMap" in index["attribution"]
    with np.load(folder / "sessions" / "000_00.npz") as stored:
        pairs = {name: stored[name] for name in stored}
    assert pairs["colour"].shape == (count, 128, 128, 3) and pairs["near_first"].dtype == np.uint16
    conditions = dict(zip(CONDITIONS, pairs["first"]))
    assert 9 <= conditions["solar_hour"] <= 16 and -30 < conditions["air_c"] < 45
    for k in range(count):
        mask = pairs["mask"][k] > 0
        rows, columns = np.nonzero(mask)
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        assert abs(longest - 128 / 1.8) < 8  # its whole box, of which little is hidden
        assert abs(rows.mean() - 64) < 16 and abs(columns.mean() - 64) < 16
        for name, air in (("near_first", pairs["first"][1]), ("near_second", pairs["second"][1])):
            own = pairs[name][k][mask] * 0.01 - 273.15
            assert -30 < own.mean() - air < 50
        # The object ends where it ends, in both bands: its edge stands out from the same pixels.
        grey = pairs["colour"][k].astype(float).mean(axis=2)
        for picture in (grey, pairs["near_first"][k].astype(float)):
            step = np.abs(np.diff(picture, axis=1))
            edge = mask[:, 1:] != mask[:, :-1]
            assert step[edge].mean() > 1.5 * step[~mask[:, 1:] & ~edge].mean()
    seen = pairs["drone_px"][:, 0] > 0
    assert seen.sum() >= 2
    assert (pairs["drone_mask"][seen].reshape(seen.sum(), -1).mean(axis=1) > 0.02).all()
    assert (pairs["drone"][seen] > 20000).all()


def test_a_finished_set_is_not_made_again(folder, capsys):
    assert main([*PAIRS, "--out", str(folder)]) == 2
    assert "finished" in capsys.readouterr().err


def test_photographs_alone_show_whole_objects_and_tell_their_sizes(tmp_path, capsys):
    out = tmp_path / "photographs"
    command = [*PAIRS, "--out", str(out)]
    command[command.index("--drone") + 1] = "0"
    assert main(command) == 0
    with np.load(out / "sessions" / "000_00.npz") as stored:
        assert "drone" not in stored and "near_second" not in stored
        count = len(stored["label"])
        assert count >= 3 and stored["size_m"].shape == (count, 3) and stored["colour"].shape == (count, 128, 128, 3)
        for mask in stored["mask"]:
            rows, columns = np.nonzero(mask)
            assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - 128 / 1.8) < 8
    command[command.index("--drone") + 1] = "-1"
    with pytest.raises(SystemExit):
        main(command)
    assert "--drone: -1 is less than 0" in capsys.readouterr().err
