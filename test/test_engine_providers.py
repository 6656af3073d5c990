"""The decisions of the TensorRT path, tested without a GPU: choice, options, key, cache, fallback."""

import ctypes
import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import convolution

import thermalreid_ros.engine.cache as cache_module
import thermalreid_ros.engine.engine as engine_module
import thermalreid_ros.engine.providers as providers
from thermalreid_ros.engine import EngineError, ModelCard, TensorSpec, load_engine
from thermalreid_ros.engine.cache import EngineCache
from thermalreid_ros.engine.elf import needed_libraries
from thermalreid_ros.engine.providers import (
    EngineKey,
    Machine,
    choose_providers,
    probe_machine,
    profile_range,
    profile_shapes,
    tensorrt_options,
)

onnxruntime = pytest.importorskip("onnxruntime")
CPU_ONLY = Machine("1.32.0", ("cpu",), {})
GPU = Machine("1.32.0", ("tensorrt", "cuda", "cpu"), {}, tensorrt="101401", gpu="Orin sm_87")
KEY = EngineKey("tiny", "ab" * 32, "101401", "Orin sm_87", "fp16", "image:1x1x32x40", "1.32.0")
REPOSITORY = Path(__file__).resolve().parent.parent
REAL_SESSION = onnxruntime.InferenceSession
IMAGE = np.ones((1, 1, 32, 40), np.float32)


@pytest.mark.parametrize("machine, asked, chosen, reasons", [
    (CPU_ONLY, ("tensorrt", "cuda", "cpu"), ("cpu",),
     ["tensorrt asked, not available: onnxruntime 1.32.0 is built without it",
      "cuda asked, not available: onnxruntime 1.32.0 is built without it"]),
    (replace(GPU, missing={"tensorrt": "libnvinfer.so.10"}), ("tensorrt", "cuda", "cpu"), ("cuda", "cpu"),
     ["tensorrt asked, not available: libnvinfer.so.10 missing"]),
    (replace(GPU, missing={"tensorrt": "libcuda.so.1", "cuda": "libcuda.so.1"}), ("tensorrt", "cuda", "cpu"),
     ("cpu",),
     ["tensorrt asked, not available: libcuda.so.1 missing",
      "cuda asked, not available: libcuda.so.1 missing"]),
    (GPU, ("tensorrt", "cuda", "cpu"), ("tensorrt", "cuda", "cpu"), []),
    (GPU, ("cpu", "cuda", "cpu"), ("cpu", "cuda"), []),
])
def test_choice(machine, asked, chosen, reasons):
    found, why = choose_providers(asked, machine)
    assert found == chosen and len(why) == len(reasons)
    assert all(line.startswith(start) for line, start in zip(why.values(), reasons, strict=True))


@pytest.mark.parametrize("asked", [(), ("tensorrt",), ("cpu", "npu")])
def test_choice_refuses(asked):
    with pytest.raises(EngineError):
        choose_providers(asked, CPU_ONLY)


class Driver:
    """What ctypes sees of libcuda and libnvinfer on a Jetson."""

    def getInferLibVersion(self):
        return 101401

    def cuInit(self, flags):
        return 0

    def cuDeviceGetName(self, buffer, length, device):
        buffer.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, pointer, attribute, device):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = {75: 8, 76: 7}[attribute]
        return 0


def test_probe_trusts_libraries_not_lists(monkeypatch):
    monkeypatch.setattr(providers, "has_int8_dot_products", lambda: True)
    listed = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)

    def none_there(name):
        raise OSError(name)

    machine = probe_machine(load=none_there)
    assert machine.built_in == ("tensorrt", "cuda", "cpu", "cpu_int8")
    assert machine.missing == {"tensorrt": "libcuda.so.1", "cuda": "libcuda.so.1"} and machine.gpu == ""

    machine = probe_machine(load=lambda name: Driver())
    assert (machine.missing, machine.tensorrt, machine.gpu) == ({}, "101401", "Orin sm_87")

    def no_tensorrt(name):
        return none_there(name) if "nvinfer" in name else Driver()

    assert probe_machine(load=no_tensorrt).missing == {"tensorrt": "libnvinfer.so.10"}

    monkeypatch.setattr(providers, "needed_libraries", lambda path: {  # as of wheels for CUDA 13
        "libonnxruntime_providers_cuda.so": ("libcublasLt.so.13", "libcuda.so.1", "libc.so.6")}.get(path.name, ()))

    def no_cublas(name):
        return none_there(name) if "cublas" in name else Driver()

    assert probe_machine(load=no_cublas).missing == {"cuda": "libcublasLt.so.13"}

    monkeypatch.setattr(providers, "has_int8_dot_products", lambda: False)
    assert probe_machine(load=lambda name: Driver()).missing == {"cpu_int8": "8-bit dot products of the processor"}


def test_libraries_say_what_they_need(tmp_path):
    built = Path(onnxruntime.__file__).parent / "capi"
    library = next(built.glob("onnxruntime_pybind11_state*.so"))
    listed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout.splitlines()
    told = [line.split("[")[1].split("]")[0] for line in listed if "(NEEDED)" in line]
    assert list(needed_libraries(library)) == told and "libc.so.6" in told
    for content in (b"", b"text", b"\x7fELF\x02\x01", library.read_bytes()[:3000]):
        (tmp_path / "other.so").write_bytes(content)
        assert needed_libraries(tmp_path / "other.so") == ()
    assert needed_libraries(tmp_path / "absent.so") == ()


@pytest.mark.parametrize("text, machine, has", [
    ("flags\t\t: fpu avx2 avx_vnni\n", "x86_64", True),
    ("flags\t\t: fpu avx512f avx512_vnni avx512_bf16\n", "x86_64", True),
    ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: avx_vnni\n", "x86_64", False),
    ("Features\t: fp asimd asimddp\n", "aarch64", True),
    ("Features\t: fp asimd\n", "aarch64", False),
    (None, "arm64", True),
    (None, "AMD64", False),
])
def test_processors_with_8_bit_dot_products(tmp_path, text, machine, has):
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    assert providers.has_int8_dot_products(cpuinfo, machine) is has


def test_the_processor_is_looked_at_once(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("Features\t: fp asimd asimddp\n")
    assert providers.has_int8_dot_products(cpuinfo)
    cpuinfo.unlink()
    assert providers.has_int8_dot_products(cpuinfo)


def test_probe_of_this_machine_runs():
    assert "cpu" in probe_machine().built_in


def test_options_of_a_fixed_shape(tmp_path):
    options = tensorrt_options(KEY, tmp_path / "engine", tmp_path / "timing")
    assert options == {
        "trt_engine_cache_enable": True, "trt_engine_cache_path": str(tmp_path / "engine"),
        "trt_engine_cache_prefix": "tiny",
        "trt_timing_cache_enable": True, "trt_timing_cache_path": str(tmp_path / "timing"),
        "trt_fp16_enable": True,
        "trt_dump_ep_context_model": True, "trt_ep_context_embed_mode": 1,
        "trt_ep_context_file_path": str(tmp_path / "engine" / "tiny_ctx.onnx"),
    }


def test_options_of_free_shapes_and_full_precision(tmp_path):
    spec = TensorSpec("image", (1, 1, "height", "width"), typical_shape=(1, 1, 512, 640))
    shapes = profile_range([spec], profile_shapes([spec], {}), (32,))
    options = tensorrt_options(replace(KEY, precision="fp32", shapes=shapes), tmp_path, tmp_path)
    assert options["trt_fp16_enable"] is False
    assert [options[f"trt_profile_{bound}_shapes"] for bound in ("min", "opt", "max")] == [
        "image:1x1x128x160", "image:1x1x512x640", "image:1x1x1024x1280"]


@pytest.mark.parametrize("size", [(120, 160), (256, 320), (480, 640), (512, 640), (1024, 1280)])
@pytest.mark.parametrize("name", ["yolo_compact", "yolo_semantic", "segmenter_compact", "geogan"])
def test_engines_of_shipped_models_are_built_for_cameras_of_other_sizes(name, size):
    card = ModelCard.read(REPOSITORY / "models" / f"{name}.yaml")
    least, usual, most = (dict(part.split(":") for part in bound.split(",")) for bound in profile_range(
        card.inputs, profile_shapes(card.inputs, {}), card.strides).split(" .. "))
    spec = card.inputs[0]
    low, high = ([int(side) for side in bound[spec.name].split("x")] for bound in (least, most))
    assert usual[spec.name] == "x".join(map(str, spec.typical_shape))
    sides = [-(-side // 32) * 32 for side in size]
    if card.task == "segmentation":  # which reduces frames to about its usual size
        sides = [min(side, usual_side) for side, usual_side in zip(sides, spec.typical_shape[2:])]
    assert all(a <= side <= b for a, side, b in zip(low[2:], sides, high[2:]))
    assert all(side % 32 == 0 for side in (*low[2:], *high[2:]))


def test_no_bound_is_a_size_that_the_network_cannot_run():
    card = ModelCard.read(REPOSITORY / "models" / "yolo_compact.yaml")
    shapes = {"thermal": (1, 1, 480, 640), "semantics": (1, 1, 120, 160)}
    assert profile_range(card.inputs, profile_shapes(card.inputs, shapes), card.strides).split(" .. ")[0] == \
        "thermal:1x1x480x640,semantics:1x1x120x160"  # a half of 480 is no multiple of 32


def test_engines_take_as_many_crops_as_come():
    inputs = [TensorSpec("pictures", ("count", 3, 96, 96), typical_shape=(8, 3, 96, 96)),
              TensorSpec("thermal", ("count",), typical_shape=(8,))]
    assert profile_range(inputs, profile_shapes(inputs, {})) == \
        "pictures:1x3x96x96,thermal:1 .. pictures:8x3x96x96,thermal:8 .. pictures:64x3x96x96,thermal:64"
    fixed = [TensorSpec("image", (1, 1, 32, 40))]
    assert profile_range(fixed, profile_shapes(fixed, {})) == "image:1x1x32x40"


def test_profile_shapes():
    fixed = TensorSpec("image", (1, 1, 512, 640))
    free = TensorSpec("mask", (1, 6, "height", "width"), typical_shape=(1, 6, 512, 640))
    assert profile_shapes([fixed, free], {}) == "image:1x1x512x640,mask:1x6x512x640"
    assert profile_shapes([fixed, free], {"mask": (1, 6, 256, 320)}) == "image:1x1x512x640,mask:1x6x256x320"
    for inputs, shapes, says in (
            ([TensorSpec("mask", (1, 6, "height", 640))], {}, "leaves sizes free"),
            ([fixed], {"image": (1, 3, 512, 640)}, "takes [1, 1, 512, 640], not [1, 3, 512, 640]"),
            ([fixed], {"picture": (1, 1, 512, 640)}, "unknown inputs picture")):
        with pytest.raises(EngineError) as refused:
            profile_shapes(inputs, shapes)
        assert says in str(refused.value)


@pytest.mark.parametrize("field", [name for name in asdict(KEY)])
def test_every_condition_changes_the_key(field):
    other = replace(KEY, **{field: "other"})
    assert other.digest != KEY.digest and other.folder != KEY.folder
    assert replace(KEY).digest == KEY.digest


def test_cache_is_whole_or_absent(tmp_path):
    cache = EngineCache(tmp_path / "engines")
    assert cache.find(KEY) is None and cache.engines() == ()
    with pytest.raises(RuntimeError), cache.building(KEY) as folder:
        (folder / "half.engine").write_bytes(b"x" * 10)
        raise RuntimeError("killed while building")
    assert cache.find(KEY) is None and not [p for p in cache.root.iterdir() if "building" in p.name]

    with cache.building(KEY) as folder:
        (folder / "tiny.engine").write_bytes(b"x" * 10)
        assert cache.find(KEY) is None
    found = cache.find(KEY)
    assert found.name == KEY.folder and (found / "tiny.engine").read_bytes() == b"x" * 10
    assert [engine.key for engine in cache.engines()] == [KEY]

    with cache.building(KEY) as folder:
        (folder / "tiny.engine").write_bytes(b"newer")
    assert (cache.find(KEY) / "tiny.engine").read_bytes() == b"newer"


def test_cache_drops_an_entry_whose_key_does_not_match(tmp_path):
    cache = EngineCache(tmp_path)
    with cache.building(KEY) as folder:
        (folder / "tiny.engine").write_bytes(b"x")
    (cache.find(KEY) / "key.json").write_text(json.dumps(asdict(replace(KEY, tensorrt="90000"))))
    assert cache.find(KEY) is None and not (tmp_path / KEY.folder).exists()


def test_an_engine_is_as_readable_as_the_umask_lets_it_be(tmp_path):
    cache, before = EngineCache(tmp_path), os.umask(0o022)
    try:
        with cache.building(KEY):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / KEY.folder).stat().st_mode & 0o777 == 0o755


def test_cache_drops_only_what_is_superseded(tmp_path):
    cache = EngineCache(tmp_path)
    old, other_shape = replace(KEY, tensorrt="100000"), replace(KEY, shapes="image:1x1x64x64")
    for key in (old, other_shape, KEY):
        with cache.building(key):
            pass
    assert [folder.name for folder in cache.discard_superseded(KEY)] == [old.folder]
    assert {engine.key for engine in cache.engines()} == {KEY, other_shape}


def test_engines_that_another_process_removes_meanwhile_are_gone(monkeypatch, tmp_path):
    """Two nodes that start together build the engine of one model both, and clear up after the last one both."""
    cache, old = EngineCache(tmp_path), replace(KEY, tensorrt="90000")

    def vanishing(function):
        def then(*args, **kwargs):
            result = function(*args, **kwargs)
            shutil.rmtree(tmp_path / old.folder, ignore_errors=True)
            return result
        return then

    for module, name in ((cache_module.tempfile, "mkdtemp"), (cache_module, "_read_key")):
        with cache.building(old):
            pass
        with monkeypatch.context() as patched:
            patched.setattr(module, name, vanishing(getattr(module, name)))
            cache.discard(tmp_path / old.folder) if name == "mkdtemp" else cache.discard_superseded(KEY)
        assert {path.name for path in tmp_path.iterdir()} == {"timing"}


def test_what_killed_processes_left_is_cleared_after_a_day(tmp_path):
    cache = EngineCache(tmp_path)
    for name, age_s in ((".building-tiny-1", 2 * 86400), (".removed-2", 2 * 86400), (".building-tiny-3", 3600)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.engine").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with cache.building(KEY):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"timing", KEY.folder, ".building-tiny-3"}


def test_an_engine_that_is_finished_while_it_is_looked_for_is_found(monkeypatch, tmp_path):
    """Between two looks at the folder another process puts the whole one in place of the damaged one."""
    cache, real = EngineCache(tmp_path), cache_module._read_key
    with cache.building(KEY) as folder:
        (folder / "tiny.engine").write_bytes(b"whole")
    looks = iter((None,))
    monkeypatch.setattr(cache_module, "_read_key", lambda folder: next(looks, real(folder)))
    assert (cache.find(KEY) / "tiny.engine").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir() if path.name != "timing"] == [KEY.folder]


def test_cache_in_the_xdg_place(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineCache().root == tmp_path / "thermalreid" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache().root == tmp_path / "home" / ".cache" / "thermalreid" / "engines"


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written.*XDG_CACHE_HOME"):
        with EngineCache(tmp_path / "file").building(KEY):
            pass


class Sessions:
    """Stands for a GPU build of onnxruntime: real CPU sessions that report the providers a script says.

    script: one entry for each session made; a list of providers to report, or an exception to raise.
    """

    def __init__(self, script):
        self.script, self.made = list(script), []

    def __call__(self, model, options, providers, **kwargs):
        self.made.append((model, providers))
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        for name, provider_options in (p for p in providers if isinstance(p, tuple)):
            assert name == "TensorrtExecutionProvider"
            context = provider_options["trt_ep_context_file_path"]
            if not model.endswith("_ctx.onnx"):
                with open(context, "wb") as file, open(model, "rb") as source:
                    file.write(source.read())
        session = REAL_SESSION(model, options, providers=["CPUExecutionProvider"])
        session.get_providers = lambda: step
        return session


TENSORRT = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
CUDA, CPU = TENSORRT[1:], TENSORRT[2:]


def load(monkeypatch, tmp_path, script, **options):
    sessions, lines = Sessions(script), []
    monkeypatch.setattr(onnxruntime, "InferenceSession", sessions)
    model = tmp_path / "tiny.onnx"
    if not model.exists():
        convolution(model)
    engine = load_engine(model, machine=GPU, cache_dir=tmp_path / "engines", log=lines.append, **options)
    assert engine.run({"image": IMAGE})["features"].shape == (1, 16, 32, 40)
    return engine, sessions, lines


def test_tensorrt_builds_once_then_loads_the_context(monkeypatch, tmp_path):
    engine, sessions, lines = load(monkeypatch, tmp_path, [TENSORRT])
    assert engine.provider == "tensorrt" and lines[-1] == "model tiny runs on tensorrt" and not engine.on_cpu
    assert lines[0].startswith("building the TensorRT engine of tiny (fp16, image:1x1x32x40)")

    engine, sessions, lines = load(monkeypatch, tmp_path, [TENSORRT])
    assert lines == ["model tiny runs on tensorrt"]
    (cached,) = EngineCache(tmp_path / "engines").engines()
    assert sessions.made[0][0] == str(cached.folder / "tiny_ctx.onnx")


def test_an_engine_that_does_not_load_is_built_again(monkeypatch, tmp_path):
    load(monkeypatch, tmp_path, [TENSORRT])
    engine, sessions, lines = load(monkeypatch, tmp_path, [RuntimeError("bad magic\nmore"), TENSORRT])
    assert engine.provider == "tensorrt" and "the engine does not load (bad magic)" in lines[0]
    assert lines[1].startswith("building the TensorRT engine")
    assert [made[0].endswith("_ctx.onnx") for made in sessions.made] == [True, False]
    assert len(EngineCache(tmp_path / "engines").engines()) == 1


def test_a_failed_build_falls_back_to_cuda_and_leaves_nothing(monkeypatch, tmp_path):
    engine, sessions, lines = load(monkeypatch, tmp_path, [RuntimeError("out of memory"), CUDA])
    assert engine.provider == "cuda"
    assert lines[-1] == "model tiny runs on cuda; tensorrt asked, failed: out of memory"
    assert EngineCache(tmp_path / "engines").engines() == ()


def test_what_the_session_says_counts(monkeypatch, tmp_path):
    engine, sessions, lines = load(monkeypatch, tmp_path, [CPU, CPU, CPU])
    assert engine.provider == "cpu"
    assert "tensorrt asked, failed: the session did not take it" in lines[-1]
    assert "cuda asked, not taken by the session" in lines[-1]
    assert EngineCache(tmp_path / "engines").engines() == ()


def test_an_unwritable_cache_costs_tensorrt_only(monkeypatch, tmp_path):
    (tmp_path / "engines").write_text("in the way")
    engine, sessions, lines = load(monkeypatch, tmp_path, [CUDA])
    assert engine.provider == "cuda" and "the engine cache cannot be written" in lines[-1]


def test_a_new_model_file_supersedes_the_old_engine_where_it_is_asked_to(monkeypatch, tmp_path):
    load(monkeypatch, tmp_path, [TENSORRT])
    (first,) = EngineCache(tmp_path / "engines").engines()
    convolution(tmp_path / "tiny.onnx", seed=5)
    load(monkeypatch, tmp_path, [TENSORRT])  # in flight: the other may be another vehicle's
    assert len(EngineCache(tmp_path / "engines").engines()) == 2
    convolution(tmp_path / "tiny.onnx", seed=9)
    load(monkeypatch, tmp_path, [TENSORRT], supersede=True)
    (second,) = EngineCache(tmp_path / "engines").engines()
    assert first.key.onnx_sha256 != second.key.onnx_sha256 and not first.folder.exists()
    assert engine_module.sha256_of(tmp_path / "tiny.onnx") == second.key.onnx_sha256
