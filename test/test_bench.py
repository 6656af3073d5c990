"""What `thermalreid bench` measures: on real processes, against a node of known speed."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import convolution

from thermalreid_ros import cli
from thermalreid_ros.camera import ThermalUnits, make_frame
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation import bench, bench_camera, bench_reid

PROCESSES = Path(__file__).parent / "processes"
FIXED_DETECTOR = [sys.executable, str(PROCESSES / "fixed_detector.py")]


@pytest.mark.parametrize("units", bench_camera.UNITS)
def test_the_camera_films_real_frames_in_any_units(units):
    grey = bench_camera.grey_frames(3)[-1]
    pixels, encoding = bench_camera.in_units(grey, ThermalUnits(units))
    frame = make_frame(pixels, encoding, units, 0, "camera")
    assert (frame.height, frame.width) == (512, 640)
    assert np.corrcoef(frame.gray8().ravel(), grey.ravel())[0, 1] > 0.97
    if frame.is_radiometric:
        assert abs(np.median(frame.temperature_c()) - np.median(grey) * 25 / 255) < 0.1


def test_summary():
    assert bench.summary(range(1, 102)) == {"median": 51.0, "p99": 100.0, "iqr": 50.0}
    assert np.isnan(list(bench.summary([]).values())).all()


def test_a_model_alone(tmp_path):
    pytest.importorskip("onnxruntime")
    ticks = []
    model = convolution(tmp_path / "tiny.onnx")
    result = bench.time_model(model, runs=20, threads=1, tick=lambda: ticks.append(1))
    assert result["provider"] == "cpu" and result["threads"] == 1 and len(ticks) == result["runs"] == 20
    assert 0 < result["median_ms"] <= result["p99_ms"] < 1000 and result["iqr_ms"] >= 0


def test_transport(ros_domain):
    ticks = []
    result = bench.measure_transport(2.0, tick=ticks.append)
    assert result["frames_sent"] == 60 and result["units"] == "centikelvin"
    assert result["frames_received"] + result["frames_lost"] == 60 and result["frames_received"] >= 30
    assert 0.05 < result["latency_ms"]["median"] < 1000
    assert sum(ticks) == pytest.approx(2.0)
    assert os.environ["ROS_DOMAIN_ID"] == str(ros_domain)  # given back after the benchmark's own


def test_topic_to_topic_separates_inference_from_overhead(ros_domain):
    result = bench.measure_topics("none", 2.0, command=FIXED_DETECTOR, parameters={"threads": 1})
    for name, pass_ in (("paced", result["paced"]), ("full rate", result["full_rate"])):
        assert pass_["frames_sent"] == pass_["frames_detected"] + pass_["frames_dropped"], name
        assert pass_["frames_detected"] >= 10 and pass_["detections_per_frame"] == 2.0, name
        assert 20.0 <= pass_["inference_ms"]["median"] < 100.0, name
        assert 0.5 < pass_["overhead_ms"]["median"] < 500.0, name
        assert pass_["latency_ms"]["median"] == pytest.approx(
            pass_["inference_ms"]["median"] + pass_["overhead_ms"]["median"], rel=0.5), name
        assert 0.0 < pass_["age_when_taken_up_ms"]["median"] <= pass_["latency_ms"]["median"], name
    assert result["paced"]["rate_hz"] <= 30.0 and result["full_rate"]["rate_hz"] == 30.0


@pytest.mark.parametrize("script, says", [
    ("import sys; sys.exit('FATAL: x.onnx: no such model')", "detection ended at once: FATAL: x.onnx: no"),
    ("print('a word', flush=True); import time; time.sleep(60)", "did not come up within 1 s; .*: a word"),
])
def test_a_node_that_does_not_come_up_is_one_line(ros_domain, monkeypatch, script, says):
    monkeypatch.setattr(bench, "START_LIMIT_S", 1.0)
    with pytest.raises(ThermalReidError, match=says) as error:
        bench.measure_topics("none", 1.0, command=[sys.executable, "-c", script])
    assert "\n" not in str(error.value)


def test_the_command_writes_table_and_json(ros_domain, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    report = tmp_path / "bench.json"
    model = convolution(tmp_path / "tiny.onnx")
    assert cli.main(["bench", "--parts", "models", "transport", "--model", str(model), "--runs", "5",
                     "--threads", "1", "--transport-seconds", "1", "--json", str(report)]) == 0
    out = capsys.readouterr().out
    assert "tiny" in out and "frames sent" in out
    values = json.loads(report.read_text())
    assert values["models"]["tiny"]["runs"] == 5 and values["transport"]["frames_sent"] == 30
    assert values["machine"]["cores"] >= 1 and "topic_to_topic" not in values


def test_the_command_wants_a_detector_for_topics(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    model = convolution(tmp_path / "tiny.onnx")
    assert cli.main(["bench", "--parts", "topics", "--model", str(model)]) == 2
    assert "no detector among the models" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", "--seconds", "-1"])
    assert exit.value.code == 2 and "argument --seconds: -1 is not positive" in capsys.readouterr().err


def test_re_identification_alone():
    ticks = []
    matching = bench_reid.time_matching(2, tick=lambda: ticks.append(1))
    assert (matching["candidates"], matching["probes"], len(ticks)) == (100, 5, 2)
    assert 0 < min(matching[name]["median"] for name in ("known_ms", "new_ms")) < 2000
    probe = bench_reid.time_probe(1, threads=1)
    assert 0 < probe["boxed_ms"]["median"] < probe["ready_ms"]["median"] < 10000
