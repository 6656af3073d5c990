"""The results page: its plan, what is left out, and what the page says."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from small_town import MAP
from thermalreid_ros.cli import main
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.results import PARTS, ResultsPlan, Step, run_steps, write_results


@pytest.fixture
def plan(tmp_path: Path) -> ResultsPlan:
    maps = tmp_path / "one.tif", tmp_path / "two.tif"
    for path in maps:
        path.symlink_to(MAP)
    return ResultsPlan(maps, tmp_path / "out", images=20, flights=5, simulated=4, identities=16, seed=3)


def test_every_command_is_one_that_the_command_line_takes(plan: ResultsPlan):
    steps = plan.steps()
    assert {step.part for step in steps} == set(PARTS)
    plan.out.mkdir()
    parser = argparse.ArgumentParser(exit_on_error=False)
    commands = parser.add_subparsers()
    for name in {step.arguments[0] for step in steps}:
        importlib.import_module(f"thermalreid_ros.cli.{name}").add_parser(commands)
    for step in steps:
        parser.parse_args(step.arguments)


def test_a_command_s_own_folder_is_left_to_it(plan: ResultsPlan):
    """Data sets refuse a folder that is there already."""
    for step in plan.steps():
        step.prepare()
        if "--out" in step.arguments:
            out = Path(step.arguments[step.arguments.index("--out") + 1])
            assert not out.exists() and out.parent.is_dir()
        assert not step.done


def test_flights_alternate_between_day_and_night_and_between_towns(plan: ResultsPlan):
    flights = [step for step in plan.steps(["localization"]) if step.arguments[:2] == ("world", "fly")]
    assert len(flights) == 5
    assert ["--night" in step.arguments for step in flights] == [False, True, False, True, False]
    assert [Path(step.arguments[3]).stem for step in flights] == ["one", "one", "two", "two", "one"]
    assert len({step.arguments[step.arguments.index("--seed") + 1] for step in flights}) == 5


def test_what_is_done_is_not_done_again_and_failures_do_not_end_the_rest(tmp_path: Path):
    def step(name: str) -> Step:
        return Step("reid", name, (name, "--set" if name == "on it" else "--out", str(tmp_path / "set")),
                    tmp_path / name)

    (tmp_path / "done").touch()
    started, said = [], []

    def start(one: Step) -> int:
        started.append(one.title)
        return 2 if one.title == "broken" else 0

    failed = run_steps([step("done"), step("fresh"), step("broken"), step("on it"), step("fresh")], start, said.append)
    assert started == ["fresh", "broken"]  # what two parts need is made once
    assert failed == ["reid, broken: ended with exit code 2", "reid, on it: what it needs could not be made"]
    assert said == ["[2/5] reid: fresh", "[3/5] reid: broken", failed[0], "[4/5] reid: on it", failed[1]]


def test_the_page_holds_the_figures_above_their_commands_and_dashes_for_the_rest(plan: ResultsPlan):
    plan.out.mkdir()
    (plan.out / "segmentation_geogan.json").write_text(json.dumps(
        {"iou": {"ground": 0.4321, "road": 0.6}, "miou": 0.51, "day": {"miou": 0.52}, "night": None}))
    (plan.out / "reid.json").write_text(json.dumps({
        "methods": {"fused": dict.fromkeys(("r1", "r5", "r10", "r15", "r20", "nauc20", "nauc"), 0.25), "vrai": None},
        "guessing": dict.fromkeys(("r1", "r5", "r10", "r15", "r20", "nauc20", "nauc"), 0.01)}))
    (plan.out / "simulated.json").write_text(json.dumps({"uniform": None, "varied": {
        "flights": 4, "success": 0.75, "false_locks": 1, "median_m": 2.5, "p95_m": 8.0, "seconds_50": 40.0,
        "seconds_90": None, "inside_95": 0.96, "nees": 1.5}}))
    page = write_results(plan, "two cores").read_text()
    simulated = next(line for line in page.splitlines() if line.startswith("| 4 simulated over varied ground"))
    assert simulated.endswith("| 2.5 | 8 | – | – | – | 40 | – | 0.75 | 0.25 | 0.96 | 1.5 |")
    assert "| no simulated over uniform ground" in page
    assert "| geogan, grey frames | 0.432 | 0.6 | – | – | – | 0.51 | 0.52 | – |" in page
    assert "| segmenter_compact, radiometric frames | – |" in page
    assert "| fused | 25 |" in page and "| vrai | – |" in page and "| guessing | 1 |" in page
    assert "| ThermalReID (LAERT, as printed) | 18.2 |" in page
    assert "| RT-DETR, test split, as published | 93.2 | 98.5 | 89.2 | 93.6 |" in page
    assert str(plan.out) not in page and "thermalreid evaluate segmentation --images frames/images/thermal" in page
    assert "hit_uav" not in page  # no data, no command


def test_results_of_other_options_are_not_told_as_these(plan: ResultsPlan):
    plan.out.mkdir()
    plan.claim()
    replace(plan, workers=7).claim()  # which changes no figure
    with pytest.raises(ThermalReidError, match="out: holds results of other options .simulated 4, seed 3.; repeat"):
        replace(plan, seed=4, simulated=500).claim()
    plan.claim()


def test_a_gain_of_few_frames_has_no_error(plan: ResultsPlan):
    """As evaluate fusion gives it where all frames are of one session."""
    plan.out.mkdir()
    row = {"agreement": 1.0, "ap50": {"car": 0.5}, "map50": 0.5, "mean_iou": 0.6, "gain": 0.02}
    (plan.out / "fusion_yolo_compact.json").write_text(json.dumps(
        {"labellings": {"map": {**row, "gain_error": None}, "true": {**row, "gain_error": 0.01}}}))
    page = write_results(plan, "two cores").read_text()
    assert "| map | 1 | 0.5 | – | – | – | 0.5 | +2.00 | 0.6 |" in page and "| +2.00 ± 1.00 | 0.6 |" in page


def test_faults_are_a_line(plan: ResultsPlan, tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(ThermalReidError, match="absent.tif: no such map"):
        ResultsPlan((tmp_path / "absent.tif",), tmp_path)
    with pytest.raises(ThermalReidError, match="holds no annotations/val.json"):
        ResultsPlan(plan.maps, tmp_path, hit_uav=tmp_path)
    with pytest.raises(ThermalReidError, match="part 'all' is unknown"):
        plan.steps(["all"])
    plan.out.mkdir()
    (plan.out / "reid.json").write_text("{")
    with pytest.raises(ThermalReidError, match="reid.json: damaged"):
        write_results(plan, "two cores")
    (tmp_path / "text.tif").write_text("no map")
    for maps, words in ((["absent.tif"], "absent.tif: no such map"), (["one.tif", "text.tif"], "text.tif: not a whole"),
                        (["one.tif", "one.tif"], "two of the maps have the same name")):
        assert main(["evaluate", "all", "--map", *(str(tmp_path / name) for name in maps), "--out",
                     str(tmp_path / "o")]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_part_that_fails_leaves_a_page_and_is_named(plan: ResultsPlan, capfd: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setattr("thermalreid_ros.cli.evaluate_all.run_command", lambda command: 2)
    assert main(["evaluate", "all", "--map", *map(str, plan.maps), "--out", str(plan.out), "--only", "simulation",
                 "--simulated", "1"]) == 1
    assert "not measured: simulation, simulated flights: ended with exit code 2" in capfd.readouterr().out
    assert (plan.out / "results.md").is_file()


def test_ctrl_c_lets_a_step_end_what_it_began(tmp_path):
    """As at a terminal: it reaches the command and the step alike."""
    step = ("import sys, time\ntry:\n    time.sleep(1.0)\n    print('begun', flush=True)\n    time.sleep(60)\n"
            "except KeyboardInterrupt:\n    time.sleep(1.0)\n    open(sys.argv[1], 'w').write('ended well')")
    command = ("import sys\nfrom thermalreid_ros.cli.evaluate_all import run_command\n"
               "try: run_command([sys.executable, '-c', sys.argv[1], sys.argv[2]])\n"
               "except KeyboardInterrupt: sys.exit(130)")
    process = subprocess.Popen([sys.executable, "-c", command, step, str(tmp_path / "said")], start_new_session=True,
                               stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and (tmp_path / "said").read_text() == "ended well"


def test_a_step_ends_with_the_command_that_is_terminated():
    step = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
    command = ("import sys\nfrom thermalreid_ros.cli.evaluate_all import run_command\n"
               "run_command([sys.executable, '-c', sys.argv[1]])")
    process = subprocess.Popen([sys.executable, "-c", command, step], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    process.communicate(timeout=20)  # until nobody is left who could write to the pipe
    assert process.returncode == -signal.SIGTERM
