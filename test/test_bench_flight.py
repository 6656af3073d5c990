"""Where the time of a flight's frames goes, over the first frames of the shipped flight."""

import json

import pytest

from thermalreid_ros.cli import main
from thermalreid_ros.engine import load_engine, seconds_in_models
from thermalreid_ros.evaluation.bench_flight import GREY_BY, PARTS, PATH, _Clock, _shares
from thermalreid_ros.evaluation.flight_input import PRIOR
from thermalreid_ros.files import shipped
from thermalreid_ros.ros.bag import Bag, write_bag

FLIGHT = shipped("config") / "recordings" / "krems_day"


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    with Bag(FLIGHT) as bag:
        end_ns = bag.start_ns + 3_000_000_000
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages() if m.stamp_ns < end_ns]
        return write_bag(tmp_path_factory.mktemp("bag") / "piece", messages, dict(bag.custom))


def test_the_parts_of_a_flight_are_measured(piece, tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert main(["bench", "--parts", "flight", "--bag", str(piece), "--flight-frames", "3", "--json", str(out)]) == 0
    measured = json.loads(out.read_text())["flight"]
    assert measured["frames"] == 3 and measured["localized"] == 0 and set(measured["parts"]) == set(PARTS)
    in_models = {name for name, part in measured["parts"].items() if part["in_models_ms"] > 0.0}
    assert {"labelling", "detection"} <= in_models <= {"labelling", "detection", "tracks"}
    assert all(part["overhead_ms"] > -0.1 for part in measured["parts"].values())
    assert 0.0 < measured["overhead_share"] < 1.0
    assert "of that, are not in models" in capsys.readouterr().out


def test_what_is_no_flight_is_refused_in_one_line(piece, tmp_path, capsys):
    with Bag(piece) as bag:
        messages = [(m.topic, m.stamp_ns, bag.decode(m)) for m in bag.messages([PRIOR])]
    assert main(["bench", "--parts", "flight", "--bag", str(write_bag(tmp_path / "bag", messages, {}))]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and len(said.strip().splitlines()) == 1


def test_shares_are_of_the_path_and_of_what_runs_beside_it():
    clock = _Clock()
    for part in PARTS:
        clock.spent_ms[part] = [(9.0, 1.0), (11.0, 3.0)]
    shares = _shares(clock)
    ways = len(PATH) - 1 + GREY_BY
    assert shares["latency_ms"] == pytest.approx(12.0 * ways)
    assert shares["overhead_ms"] == pytest.approx(2.0 * (ways + len(PARTS) - len(PATH)))
    assert shares["overhead_share"] == pytest.approx(2.0 * (ways + len(PARTS) - len(PATH)) / (12.0 * ways))


def test_processor_time_in_models_is_told_from_the_clock_s():
    before, cpu_before = seconds_in_models(), seconds_in_models(cpu=True)
    engine = load_engine("tile_distance", threads=1, providers=("cpu",), log=lambda line: None)
    engine.warm_up()
    engine.close()
    assert 0.0 < seconds_in_models(cpu=True) - cpu_before <= seconds_in_models() - before + 1e-3
