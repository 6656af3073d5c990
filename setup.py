"""pip build: runs the CMake project and ships its install tree as the prefix of the environment.

CMake configures and compiles only where the messages, the CMake files or the ROS wheels have changed; else
it just lays the tree anew, so that a reinstall after an edit of Python takes seconds.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from distutils.command.install_data import install_data  # setuptools' own copy: setuptools is imported first

ROOT = pathlib.Path(__file__).resolve().parent

# Both wheels own the module onnxruntime, so exactly one may be required: THERMALREID_ONNXRUNTIME=gpu takes the other.
ONNXRUNTIME = {"cpu": "onnxruntime>=1.20", "gpu": "onnxruntime-gpu>=1.20"}
DEPENDENCIES = [
    "numpy>=1.26",                        # frames, boxes, signatures
    "opencv-python-headless>=4.6",        # MSER, resizing, AGC, PNG; 4.6 is Ubuntu 24.04's; headless: no window system
    "pyproj>=3.6",                        # WGS84 and UTM
    "rasterio>=1.4",                      # reads semantic maps (GeoTIFF)
    "pyyaml>=6.0",                        # parameter files, model cards
    "tqdm>=4.66",                         # progress with the time left
    "rosbags>=0.10.6",                    # reads and writes rosbag2 (mcap, sqlite3) without ROS
    "mcap>=1.2",                          # reads recordings that end in the middle, which rosbags refuses
    "ros-rclpy[fastrtps]==7.1.6",         # ROS 2 Jazzy; pinned: messages are compiled against this very release
    "ros-lifecycle-msgs==2.0.3",          # lifecycle states and transitions (7.1.6's own release)
    "ros-rosgraph-msgs==2.0.3",           # Clock, published by the bag player
    "ros-std-msgs==5.3.6", "ros-sensor-msgs==5.3.6", "ros-diagnostic-msgs==5.3.6",  # headers, images, diagnostics
    "ros-geometry-msgs==5.3.6", "ros-nav-msgs==5.3.6",  # poses with covariance, Odometry
]


def onnxruntime_requirement() -> str:
    choice = os.environ.get("THERMALREID_ONNXRUNTIME", "cpu")
    if choice not in ONNXRUNTIME:
        sys.exit(f"THERMALREID_ONNXRUNTIME is '{choice}': use one of {', '.join(ONNXRUNTIME)}")
    return ONNXRUNTIME[choice]


class BinaryDistribution(Distribution):
    """The messages' type supports are compiled, though setuptools knows of no extension module."""

    def has_ext_modules(self):
        return True


class CMakeInstall(install_data):
    """Fills data_files with the install tree of the CMake project."""

    work = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"

    def run(self):
        stage = self.work / "stage"
        self._build(stage)
        shutil.rmtree(stage, ignore_errors=True)  # what the sources no longer hold must not be shipped
        subprocess.check_call(["cmake", "--install", str(self.work)], stdout=subprocess.DEVNULL)
        files = {}
        for path in sorted(stage.rglob("*")):
            relative = path.relative_to(stage)
            if path.is_file() and relative.parts[0] != "include" and path.suffix not in (".c", ".pyc") \
                    and not any(part.endswith(".egg-info") for part in relative.parts):
                files.setdefault(str(relative.parent), []).append(str(path))
        self.data_files = list(files.items())
        super().run()

    def _build(self, stage: pathlib.Path) -> None:
        stamp, digest = self.work / "compiled.sha256", self._digest()
        if stamp.is_file() and stamp.read_text() == digest:
            return
        shutil.rmtree(self.work, ignore_errors=True)  # cached paths may lead into a build environment now gone
        env = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1), **os.environ}
        subprocess.check_call(["cmake", "-S", str(ROOT), "-B", str(self.work), "-DCMAKE_BUILD_TYPE=Release",
                               "-DBUILD_TESTING=OFF", "-DTHERMALREID_PYPI_WHEELS=ON",
                               f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={stage}"], env=env)
        subprocess.check_call(["cmake", "--build", str(self.work)], env=env)
        stamp.write_text(digest)

    def _digest(self) -> str:
        """Of all that the configured and compiled part of the tree depends upon."""
        sources = [ROOT / "CMakeLists.txt", ROOT / "package.xml", ROOT / "setup.py",
                   *sorted((ROOT / "cmake").glob("*")), *sorted((ROOT / "msg").glob("*.msg"))]
        build_system = (ROOT / "pyproject.toml").read_text().partition("[project]")[0]  # pins the ROS wheels
        digest = hashlib.sha256("\n".join([str(ROOT), sys.version, build_system]).encode())
        for source in sources:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        return digest.hexdigest()


setup(distclass=BinaryDistribution, cmdclass={"install_data": CMakeInstall},
      data_files=[("share/thermalreid_ros", ["package.xml"])],
      install_requires=[*DEPENDENCIES, onnxruntime_requirement()])
