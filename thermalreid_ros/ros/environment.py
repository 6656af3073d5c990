"""The package's executables, and the environment in which its processes must start."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import shipped
from thermalreid_ros.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, tune_malloc
from thermalreid_ros.ros.shared_memory import lack_of_room, remove_abandoned

PACKAGE = "thermalreid_ros"
FASTDDS_PROFILE = "fastdds_large_frames.xml"
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_KEPT_BYTES = 32 * 2**20  # the largest mmap threshold that glibc takes
_SOURCE_TREE = Path(__file__).absolute().parents[2]  # where this module was loaded from one; not resolved, as
_FROM_SOURCE = (_SOURCE_TREE / "package.xml").is_file()  # colcon's --symlink-install links into the source tree


def install_prefix() -> Path:
    """The prefix into which the package is installed, with its compiled messages and executables.

    Raises ThermalReidError where only a source tree is there.
    """
    import thermalreid_ros

    for folder in thermalreid_ros.__path__:  # of a source tree and an installed copy, only the latter has a prefix
        try:
            return _prefix_of(Path(folder).absolute())
        except ThermalReidError:
            continue
    raise ThermalReidError(f"{PACKAGE} is not installed, only its source tree was found: run `make setup`, or build "
                           "it with colcon and source install/setup.bash")


def executable(name: str) -> Path:
    """The executable that `ros2 run thermalreid_ros NAME` starts. Raises ThermalReidError where there is none."""
    path = install_prefix() / "lib" / PACKAGE / name
    if not path.is_file():
        raise ThermalReidError(f"{path}: no such executable; install {PACKAGE} again (`make setup` or colcon build)")
    return path


def process_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """base, completed by what every process of the graph needs.

    - The Fast DDS profile: without it frames larger than the default shared-memory segment are lost between
      processes. A profile that the user has set is kept.
    - AMENT_PREFIX_PATH with the package's prefix, for package-share look-ups in a virtual environment.
    - PYTHONPATH with the source tree, where this process runs from one: its children run the same code.
    """
    environment = dict(base)
    if not any(variable in environment for variable in _PROFILE_VARIABLES):
        profile = shipped("config") / FASTDDS_PROFILE
        environment.update(dict.fromkeys(_PROFILE_VARIABLES, str(profile)))
    with suppress(ThermalReidError):  # a bare source tree has no prefix to look into
        _prepend(environment, "AMENT_PREFIX_PATH", str(install_prefix()))
    if _FROM_SOURCE:
        _prepend(environment, "PYTHONPATH", str(_SOURCE_TREE))
    return environment


def prepare_process() -> None:
    """Give this process that environment; to be called before rclpy.init, which starts Fast DDS.

    Also removes what killed processes left of shared memory: a node that dies and is started again, time after time,
    would fill the machine's; and warns where there is too little of it. And lets the C library keep the memory of
    frames: by default each buffer of a frame is mapped, faulted in page by page and unmapped again, which costs more
    than all copies of it together.
    """
    from rclpy.logging import get_logger  # not where a process only starts others

    os.environ.update(process_environment())
    remove_abandoned()
    if fault := lack_of_room():
        get_logger(PACKAGE).warning(fault)
    tune_malloc({M_MMAP_THRESHOLD: _KEPT_BYTES, M_TRIM_THRESHOLD: _KEPT_BYTES})


def node_command(name: str) -> list[str]:
    """The command line that starts an executable with this very interpreter."""
    return [sys.executable, str(executable(name))]


def _prefix_of(path: Path) -> Path:
    for parent in path.parents:
        if (parent / "share" / PACKAGE / "package.xml").is_file():
            return parent
    raise ThermalReidError(f"{path}: no prefix with share/{PACKAGE} above it; install {PACKAGE} again")


def _prepend(environment: dict[str, str], variable: str, entry: str) -> None:
    entries = [other for other in environment.get(variable, "").split(os.pathsep) if other]
    if entry not in entries:
        environment[variable] = os.pathsep.join([entry, *entries])
