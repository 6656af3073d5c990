"""The command line: help, faults in one line, exit codes, output files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from tiny_models import convolution

from thermalreid_ros import cli
from thermalreid_ros.cli.arguments import output_file
from thermalreid_ros.cli.output import table, write_json
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import umask, write_atomically

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def thermalreid(*arguments, **options) -> subprocess.CompletedProcess:
    """The command in a process of its own, as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": REPOSITORY, **options.pop("env", {})}
    main = "import sys; from thermalreid_ros.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", main, *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, env=environment, **options)


def test_every_command_of_the_table_is_there(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as exit:
            cli.main([name, "--help"])
        assert exit.value.code == 0
        assert f"thermalreid {name}" in capsys.readouterr().out


def test_help_lists_all_and_imports_nothing_heavy():
    listing = thermalreid("--help")
    assert listing.returncode == 0 and all(name in listing.stdout for name in cli.COMMANDS)
    heavy = "numpy, cv2, onnxruntime, rclpy, torch, tqdm, matplotlib"
    check = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom thermalreid_ros.cli import main\ntry: main(['--help'])\n"
                               f"except SystemExit: pass\nfor name in '{heavy}'.split(', '):\n"
                               f"    assert name not in sys.modules, name"],
        env={**os.environ, "PYTHONPATH": REPOSITORY}, capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("arguments, says", [
    ((), "thermalreid: the following arguments are required: command"),
    (("fly",), "invalid choice: 'fly'"),
    (("engine",), "thermalreid engine: the following arguments are required: action"),
    (("engine", "build", "--threads", "many"), "argument --threads: invalid int value: 'many'"),
    (("engine", "build", "--json", "/nowhere/at/all.json"), "/nowhere/at does not exist; make the folder"),
    (("engine", "build", "--json", "/"), "/ is a folder; name a file"),
    (("engine", "build", "--model", "absent"), "absent.onnx: no such model"),
    (("engine", "build", "--model", "/absent.onnx"), "/absent.onnx: no such model file"),
])
def test_a_users_mistake_is_one_line_and_code_2(arguments, says):
    result = thermalreid(*arguments)
    faults = [line for line in result.stderr.splitlines() if line.startswith("thermalreid")]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert len(faults) == 1 and says in faults[0], result.stderr


@pytest.mark.parametrize("arguments, says", [
    (("bench", "--seconds", "inf"), "argument --seconds: inf is not positive and finite"),
    (("bench", "--seconds", "nan"), "argument --seconds: nan is not positive"),
    (("evaluate", "localization", "--single-frame-every", "-2"), "argument --single-frame-every: -2 is less than 0"),
    (("evaluate", "detection", "--fix-error", "nan"), "argument --fix-error: nan is not finite"),
    (("evaluate", "localization", "--seed", "-1"), "argument --seed: -1 is no whole number from 0"),
    (("train", "detector", "--crop-px", "50"), "argument --crop-px: 50 is no multiple of 32"),
    (("train", "detector", "--scale", "-1", "2"), "argument --scale: -1 is not positive"),
    (("train", "detector", "--steps", "0"), "argument --steps: 0 is not positive"),
    (("train", "detector", "--ema", "1.5"), "argument --ema: 1.5 is not from 0 to 1"),
    (("train", "synthesis", "--minutes", "nan"), "argument --minutes: nan is not positive"),
    (("train", "embedding", "--batch", "0"), "argument --batch: 0 is not positive"),
    (("train", "segmenter", "--outlines", "nan"), "argument --outlines: nan is not finite"),
    (("train", "tile-distance", "--queries", "-1"), "argument --queries: -1 is not positive"),
    (("train", "detector", "--seed", "1.5"), "argument --seed: 1.5 is no whole number from 0"),
    (("evaluate", "reid", "--plots", "/etc/passwd"), "argument --plots: /etc/passwd is a file; name a folder"),
    (("replay", "--report", "/etc/passwd/page"), "argument --report: /etc/passwd is a file; name a folder"),
    (("replay", "--domain", "500"), "argument --domain: '500' is no ROS domain from 0 to 232"),
    (("replay", "--domain", "-1"), "argument --domain: '-1' is no ROS domain from 0 to 232"),
    (("recording", "make", "--rate-hz", "0"), "argument --rate-hz: 0 is not positive"),
    (("recording", "make", "--clip-gap-s", "inf"), "argument --clip-gap-s: inf is not finite"),
    (("reid", "fit-fusion", "--out", "/nowhere/fusion.yaml"), "argument --out: /nowhere does not exist"),
    (("world", "physics", "--out", "/etc/passwd"), "argument --out: /etc/passwd is a file; name a folder"),
    (("world", "dataset", "--altitude", "60:inf"), "argument --altitude: '60:inf' is not within"),
    (("world", "dataset", "--depression", "30:200"), "argument --depression: '30:200' is not within 5 to 90"),
    *((("world", "fly", option, value), f"argument {option}: {value} is more than") for option, value in (
        ("--seconds", "1e12"), ("--rate", "1e9"), ("--speed", "1e6"), ("--probes", "100000"), ("--size", "1e300"),
        ("--altitude", "1e5"), ("--prior-error", "1e9"))),
    *(((*command.split(), option, value), f"argument {option}: {value} is more than") for command, option, value in (
        ("world dataset", "--images", "1000000000000"), ("world pairs", "--views", "1001"),
        ("evaluate localization-simulated", "--seconds", "1e12"), ("train tile-distance", "--dimension", "100000"))),
    (("reid", "calibrate", "--clip", "0:999999999999"), "argument --clip: '0:999999999999' is not FIRST:COUNT"),
    (("train", "detector", "--box-margin", "nan", "0"), "argument --box-margin: nan is not finite"),
    (("world", "fly", "--date", "1969-07-20"), "argument --date: '1969-07-20': stamps of recordings hold the years"),
])
def test_numbers_and_places_are_refused_before_the_work_begins(arguments, says, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2 and says in capsys.readouterr().err


def fake_command(monkeypatch, run):
    module = Namespace(add_parser=lambda subparsers: subparsers.add_parser("bench"), run=run)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    return cli.main(["bench"])


def test_errors_become_exit_codes(monkeypatch, capsys):
    def user_fault(args):
        raise ThermalReidError("flight.mcap: no image topic; name it with --topic")

    def interrupted(args):
        raise KeyboardInterrupt

    def lacks_torch(args):
        import torch_that_is_not_there  # noqa: F401

    def defect(args):
        raise ZeroDivisionError

    assert fake_command(monkeypatch, lambda args: 0) == 0
    assert fake_command(monkeypatch, user_fault) == 2
    assert capsys.readouterr().err == "thermalreid: flight.mcap: no image topic; name it with --topic\n"
    assert fake_command(monkeypatch, interrupted) == 130
    assert capsys.readouterr().err == "thermalreid: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        fake_command(monkeypatch, defect)
    with pytest.raises(ModuleNotFoundError):
        fake_command(monkeypatch, lacks_torch)
    monkeypatch.setitem(cli._PIP_NAMES, "torch_that_is_not_there", "torch-that-is-not-there")
    assert fake_command(monkeypatch, lacks_torch) == 2
    assert "install it with: pip install torch-that-is-not-there\n" in capsys.readouterr().err


def test_every_package_of_an_extra_has_its_remedy():
    """As far as the package imports it, and what ROS machines do not install by themselves."""
    declared = Path(REPOSITORY, "pyproject.toml").read_text()
    wanted = {name.replace("-", "_"): name
              for extra, lines in re.findall(r"^(\w+) = \[\n(.*?)^\]", declared, re.M | re.S) if extra in (
                  "evaluation", "maps", "world", "training")
              for name in re.findall(r'^  "([\w-]+)[>=]', lines, re.M)}
    assert "embreex" in wanted
    assert cli._PIP_NAMES == wanted | {name: name for name in ("onnxruntime", "rosbags", "mcap")}


def test_ctrl_c_ends_without_a_traceback(tmp_path):
    script = ("import sys, time\nimport thermalreid_ros.cli as cli\n"
              "from argparse import Namespace\n"
              "def run(args):\n    print('running', flush=True)\n    time.sleep(30)\n"
              "cli.importlib.import_module = lambda name: Namespace(run=run, "
              "add_parser=lambda subparsers: subparsers.add_parser('bench'))\n"
              "sys.exit(cli.main(['bench']))")
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": REPOSITORY},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130 and errors == "thermalreid: interrupted\n"


def test_version():
    result = thermalreid("--version")
    assert result.returncode == 0 and result.stdout == f"thermalreid {_declared_version()}\n"


def _declared_version():
    with open(os.path.join(REPOSITORY, "pyproject.toml")) as file:
        return re.search(r'^version = "(.+)"$', file.read(), re.MULTILINE)[1]


def test_engine_build_checks_times_and_says_what_it_did_not_build(tmp_path):
    model, cache, report = convolution(tmp_path / "tiny.onnx"), tmp_path / "cache", tmp_path / "report.json"
    result = thermalreid("engine", "build", "--model", model, "--threads", 1, "--cache", cache,
                         "--json", report)
    assert result.returncode == 0, result.stderr
    assert "No TensorRT engine was built: tensorrt asked, not available: " in result.stdout
    (row,) = json.loads(report.read_text())["models"]
    assert (row["model"], row["provider"], row["threads"]) == ("tiny", "cpu", 1)
    assert 0 < row["median_ms"] < 100 and len(row["fallbacks"]) == 2
    assert not cache.exists()


def test_engine_build_reports_every_fault_and_goes_on(tmp_path):
    good, bad = convolution(tmp_path / "good.onnx"), convolution(tmp_path / "bad.onnx")
    bad.write_bytes(bad.read_bytes()[:-1])
    report = tmp_path / "report.json"
    result = thermalreid("engine", "build", "--model", bad, good, "--json", report)
    assert result.returncode == 2 and "bad.onnx: sha256 is" in result.stderr
    assert "Traceback" not in result.stderr
    assert [row["model"] for row in json.loads(report.read_text())["models"]] == ["good"]


def test_engine_list(tmp_path):
    from thermalreid_ros.engine.cache import EngineCache
    from thermalreid_ros.engine.providers import EngineKey

    assert "no TensorRT engines in" in thermalreid("engine", "list", "--cache", tmp_path).stdout
    with EngineCache(tmp_path).building(EngineKey("tiny", "0" * 64, "101401", "Orin sm_87", "fp16",
                                                  "image:1x1x32x40", "1.32.0")) as folder:
        (folder / "tiny.engine").write_bytes(b"x" * 2_000_000)
    report = tmp_path / "report.json"
    listing = thermalreid("engine", "list", "--cache", tmp_path, "--json", report)
    assert listing.returncode == 0 and "Orin sm_87" in listing.stdout
    (row,) = json.loads(report.read_text())["engines"]
    assert row["fits_this_machine"] is False and 2.0 <= row["megabytes"] < 2.01


def test_output_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"median_ms": 1.5, "none": float("nan"), "list": (1, 2)})
    assert json.loads(path.read_text()) == {"median_ms": 1.5, "none": None, "list": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"unwritable": object()})
    assert json.loads(path.read_text())["median_ms"] == 1.5
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    write_json(None, {"unwritable": object()})
    with pytest.raises(ThermalReidError, match="cannot be written"):
        write_atomically(tmp_path / "absent" / "file", "text")
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~umask())


def test_links_stay_and_pipes_are_written_into(tmp_path):
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    for name in ("link", "link", "pipe"):
        write_json(output_file(str(tmp_path / name)), 1)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "1\n"
    assert (tmp_path / "pipe").is_fifo() and os.read(reader, 9) == b"1\n"
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pipe"]


@pytest.mark.parametrize("name", ["a.json", "link", "m.onnx", "m.yaml", "out"])
def test_results_are_not_written_over_what_the_command_works_with(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a.json")
    (tmp_path / "a.json").write_text("{}")
    assert cli.main(["evaluate", "detection", "--images", ".", "--annotations", str(tmp_path / "a.json"), "--model",
                     "m.onnx", "--plots", "out", "--json", name]) == 2
    assert f"--json: {name} is named by another argument" in capsys.readouterr().err
    assert (tmp_path / "a.json").read_text() == "{}"


def test_plots_and_pictures_are_whole_or_told(tmp_path):
    """OpenCV's own imwrite says nothing of a full disk, Matplotlib's savefig leaves a half."""
    import numpy as np
    from matplotlib.figure import Figure
    from thermalreid_ros.evaluation.pictures import save_picture, save_plot

    for save in (lambda path: save_picture(path, np.zeros((4, 4, 3), np.uint8)),
                 lambda path: save_plot(path, Figure(), dpi=20)):
        save(tmp_path / "whole.png")
        assert (tmp_path / "whole.png").read_bytes()[-8:-4] == b"IEND"
        with pytest.raises(ThermalReidError, match="half.png: cannot be written"):
            save(tmp_path / "absent" / "half.png")
    for source in Path(REPOSITORY, "thermalreid_ros").rglob("*.py"):
        assert not re.search(r"imwrite\(|savefig\(\w*(path|folder)", source.read_text()), source


def test_table():
    assert table(("model", "ms"), [("yolo", 41.26), ("x", None), ("long name", 123.4)]).splitlines() == [
        "model        ms", "yolo       41.3", "x             -", "long name   123"]


def test_startup_is_fast():
    thermalreid("--help")
    started = time.perf_counter()
    thermalreid("--help")
    assert time.perf_counter() - started < 2.0  # 0.1 s on an idle machine; the bound catches heavy imports


def test_cards_written_by_hand_load(tmp_path):
    model = convolution(tmp_path / "tiny.onnx")
    card = yaml.safe_load(model.with_suffix(".yaml").read_text())
    model.with_suffix(".yaml").write_text(yaml.safe_dump(card, default_flow_style=False, sort_keys=True))
    assert thermalreid("engine", "build", "--model", model, "--providers", "cpu").returncode == 0
