"""What is installed, by pip or by colcon, is what the source tree holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from thermalreid_ros.ros.environment import PACKAGE, executable, install_prefix, process_environment

SHIPPED = ("config", "launch", "models")
EXECUTABLES = ("geo_localization", "detection", "probe_synthesis", "reid", "bag_player", "thermalreid")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def installed_package() -> Path:
    return next(path for path in install_prefix().glob(f"lib/python*/*-packages/{PACKAGE}") if (path / "msg").is_dir())


@pytest.mark.parametrize("folder", SHIPPED)
def test_shipped_folders_are_installed_as_they_are(folder):
    assert files_below(install_prefix() / "share" / PACKAGE / folder) == files_below(REPOSITORY / folder), \
        "run `make setup`"


def test_the_python_package_is_installed_whole_beside_the_messages():
    installed, source = files_below(installed_package()), files_below(REPOSITORY / PACKAGE)
    assert {name: installed.get(name) for name in source} == source, "run `make setup`"
    extra = {name for name in installed if name not in source}
    assert all(name.startswith("msg/") or name.endswith((".so", ".pyc")) or "__rosidl_" in name or
               name.startswith("_thermalreid_ros_s.") for name in extra), f"left from an older build: {extra}"


@pytest.mark.parametrize("name", EXECUTABLES)
def test_executables_have_their_run_bit_and_start(name):
    path = executable(name)
    assert os.access(path, os.X_OK)
    arguments = ["--help"] if name == "thermalreid" else ["--ros-args", "-p", "no_such_parameter:=1"]
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, env=process_environment())
    assert done.returncode == (0 if name == "thermalreid" else 2)
    assert "Traceback" not in done.stderr
    if name != "thermalreid":
        assert "there is no parameter 'no_such_parameter'" in done.stderr


def test_message_definitions_are_installed():
    installed = install_prefix() / "share" / PACKAGE / "msg"
    for path in (REPOSITORY / "msg").glob("*.msg"):
        assert (installed / path.name).read_bytes() == path.read_bytes(), "run `make setup`"


@pytest.mark.parametrize("first", ("source", "installed"))
def test_source_and_installed_copy_do_not_hide_each_other(first, tmp_path):
    (source := tmp_path / PACKAGE).mkdir()
    (source / "__init__.py").write_bytes((REPOSITORY / PACKAGE / "__init__.py").read_bytes())
    (source / "only_in_source.py").touch()
    places = [str(tmp_path), str(installed_package().parent)]
    code = f"import {PACKAGE}.only_in_source, {PACKAGE}.errors; from {PACKAGE}.msg import DetectionArray; " \
           f"from rclpy.serialization import serialize_message; print(len(serialize_message(DetectionArray())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(places if first == "source" else
                                                                           places[::-1])})
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def test_children_get_the_profile_unless_the_user_has_his_own():
    environment = process_environment({})
    profile = environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    assert profile == environment["FASTRTPS_DEFAULT_PROFILES_FILE"] and "maxMessageSize" in Path(profile).read_text()
    assert environment["AMENT_PREFIX_PATH"].split(os.pathsep)[0] == str(install_prefix())
    own = process_environment({"FASTRTPS_DEFAULT_PROFILES_FILE": "/own.xml", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"})
    assert own["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/own.xml" and "FASTDDS_DEFAULT_PROFILES_FILE" not in own
    assert own["AMENT_PREFIX_PATH"].split(os.pathsep) == [str(install_prefix()), "/opt/ros/jazzy"]


@pytest.mark.parametrize(("choice", "wanted"), [("cpu", {"onnxruntime"}), ("gpu", {"onnxruntime-gpu"})])
def test_exactly_one_onnxruntime_is_required(choice, wanted):
    code = "import setuptools, distutils.core as core; " \
           "print(*core.run_setup('setup.py', stop_after='init').install_requires)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
                          cwd=REPOSITORY, env={**os.environ, "THERMALREID_ONNXRUNTIME": choice}, timeout=60)
    names = {word.partition(">=")[0] for word in done.stdout.split()}
    assert {name for name in names if name.startswith("onnxruntime")} == wanted, done.stderr
