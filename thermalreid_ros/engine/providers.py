"""What runs a model: the choice among TensorRT, CUDA and CPU, and why one was not taken.

The decisions are functions of plain values, so they are tested on machines without a GPU; only probe_machine
looks at the machine.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from thermalreid_ros.engine.card import EngineError, TensorSpec
from thermalreid_ros.engine.elf import needed_libraries

EXECUTION_PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cpu_int8": "CPUExecutionProvider",  # the model's int8 form (engine/int8.py)
}
PRECISIONS = ("fp16", "fp32")
# What a provider loads by name when it is used; what it is linked against, of CUDA's major version, its file says.
_LIBRARIES = {"tensorrt": ("libcuda.so.1", "libcudnn.so.9", "libnvinfer.so.10"),
              "cuda": ("libcuda.so.1", "libcudnn.so.9")}


_TO = " .. "  # between the bounds of a range of shapes
_LEAST_SIDE = 32  # a free size below is a count, not a picture's side
_MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Machine:
    """What the choice rests on. built_in: names of EXECUTION_PROVIDERS that this ONNX Runtime was built with,
    which says nothing of whether their libraries are here. missing: the first library that does not load, per
    provider."""

    onnxruntime: str
    built_in: tuple[str, ...]
    missing: Mapping[str, str]
    tensorrt: str = ""
    gpu: str = ""


def probe_machine(load=ctypes.CDLL) -> Machine:
    """Look at the machine. load: what opens a shared library, raising OSError (for tests). EngineError where ONNX
    Runtime is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EngineError("ONNX Runtime is not installed: pip install onnxruntime (on a Jetson: NVIDIA's "
                          "onnxruntime-gpu wheel)") from None
    available = onnxruntime.get_available_providers()
    built_in = tuple(name for name, provider in EXECUTION_PROVIDERS.items() if provider in available)
    if "cuda" in built_in and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(None):  # it prints what it does not find
            onnxruntime.preload_dlls()  # CUDA and cuDNN from wheels lie outside the loader's path
    missing = {}
    for name in built_in:
        linked = needed_libraries(Path(onnxruntime.__file__).parent / f"capi/libonnxruntime_providers_{name}.so")
        for library in dict.fromkeys((*_LIBRARIES.get(name, ()), *linked)):
            try:
                load(library)
            except OSError:
                missing[name] = library
                break
    if not has_int8_dot_products():
        missing["cpu_int8"] = "8-bit dot products of the processor"
    tensorrt = gpu = ""
    if "tensorrt" in built_in and "tensorrt" not in missing:
        tensorrt = str(load("libnvinfer.so.10").getInferLibVersion())
        gpu = _gpu_name(load("libcuda.so.1"))
    return Machine(onnxruntime.__version__, built_in, missing, tensorrt, gpu)


@cache
def has_int8_dot_products(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = "") -> bool:
    """Whether this processor adds products of 8-bit integers exactly and fast (VNNI of x86, DotProd of ARM).

    Without, x86 adds pairs of products in 16 bits, which overflow, and gains little. The file is read once a process.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:  # no Linux
        return (machine or platform.machine()) == "arm64"
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_vnni", "avx_vnni", "asimddp"})


def choose_providers(asked: Sequence[str], machine: Machine) -> tuple[tuple[str, ...], dict[str, str]]:
    """(the asked providers worth trying, in the order asked; the reason for each that is not).

    EngineError for an unknown name or where nothing is left to try.
    """
    unknown = [name for name in asked if name not in EXECUTION_PROVIDERS]
    if unknown or not asked:
        raise EngineError(f"providers: {', '.join(unknown) or 'none given'}; "
                          f"choose from {', '.join(EXECUTION_PROVIDERS)}")
    chosen, reasons = [], {}
    for name in dict.fromkeys(asked):
        if name not in machine.built_in:
            reasons[name] = (f"{name} asked, not available: onnxruntime {machine.onnxruntime} is built "
                             f"without it (onnxruntime-gpu has it; on a Jetson NVIDIA's wheel, not PyPI's)")
        elif name in machine.missing:
            reasons[name] = f"{name} asked, not available: {machine.missing[name]} missing"
        else:
            chosen.append(name)
    if not chosen:
        raise EngineError(f"no provider left to run on: {'; '.join(reasons.values())}")
    return tuple(chosen), reasons


@dataclass(frozen=True)
class EngineKey:
    """Everything a built TensorRT engine depends on: another value of any of these asks for another
    engine."""

    model: str
    onnx_sha256: str
    tensorrt: str
    gpu: str
    precision: str
    shapes: str
    onnxruntime: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        return f"{self.model}-{self.digest}"


def prepared_shape(spec: TensorSpec, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    """The sizes to prepare an input for: those given, else the card's; None where some stay free."""
    shape = tuple(shapes.get(spec.name, ())) or spec.typical_shape or spec.shape
    return shape if all(isinstance(size, int) for size in shape) else None


def profile_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> str:
    """TensorRT's notation of the input shapes, "image:1x3x512x640,mask:1x6x512x640", taken from `shapes`,
    then from the card. EngineError where a free size is given nowhere or a given shape does not fit the
    card."""
    unknown = sorted(set(shapes) - {spec.name for spec in inputs})
    if unknown:
        raise EngineError(f"shapes given for unknown inputs {', '.join(unknown)}; "
                          f"the model has {', '.join(spec.name for spec in inputs)}")
    parts = []
    for spec in inputs:
        shape = prepared_shape(spec, shapes)
        if shape is None:
            raise EngineError(f"input '{spec.name}' leaves sizes free {list(spec.shape)}; "
                              f"give typical_shape in the card")
        if not spec.accepts(shape):
            raise EngineError(f"input '{spec.name}' takes {list(spec.shape)}, not {list(shape)}")
        parts.append(f"{spec.name}:{'x'.join(map(str, shape))}")
    return ",".join(parts)


def profile_range(inputs: Sequence[TensorSpec], shapes: str, strides: Sequence[int] = ()) -> str:
    """The range of sizes that an engine is built for, in order of least, usual and most: "LEAST .. SHAPES .. MOST", or
    `shapes`, as profile_shapes gives them, where all sizes are fixed.

    TensorRT runs nothing outside of it. Counts, of crops or of photographs, go from 1 to 64; sides of pictures from a
    quarter, or a half or all where that would not be divisible by the strides, to their double: of a detector for
    640x512 from 160x128 to 1280x1024.
    """
    if not any(spec.is_dynamic for spec in inputs):
        return shapes
    usual = [tuple(map(int, part.rpartition(":")[2].split("x"))) for part in shapes.split(",")]
    sides = [size for spec, sizes in zip(inputs, usual) for size, said in zip(sizes, spec.shape)
             if isinstance(said, str) and size >= _LEAST_SIDE]
    multiple = max(strides, default=1)
    part = next(part for part in (4, 2, 1) if part == 1 or all(
        size % (part * (multiple if size >= max(sides) / 2 else 1)) == 0 for size in sides))
    bounds = []
    for share, count in ((1.0 / part, 1), (1.0, None), (2.0, _MOST_AT_ONCE)):
        parts = []
        for spec, sizes in zip(inputs, usual):
            scaled = [size if not isinstance(said, str) or count is None else
                      round(share * size) if size >= _LEAST_SIDE else count for size, said in zip(sizes, spec.shape)]
            parts.append(f"{spec.name}:{'x'.join(map(str, scaled))}")
        bounds.append(",".join(parts))
    return _TO.join(bounds)


def tensorrt_options(key: EngineKey, folder: Path, timing_cache: Path) -> dict[str, Any]:
    """Options of ONNX Runtime's TensorRT provider for building into, or reading from, one engine folder.

    The context model (the graph with the engine inside) is dumped too: it loads without parsing the network
    again.
    """
    options = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": key.model,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(timing_cache),
        "trt_fp16_enable": key.precision == "fp16",
        "trt_dump_ep_context_model": True,
        "trt_ep_context_file_path": str(folder / context_name(key)),
        "trt_ep_context_embed_mode": 1,
    }
    bounds = key.shapes.split(_TO)
    if len(bounds) == 3:
        options |= {f"trt_profile_{name}_shapes": bound for name, bound in zip(("min", "opt", "max"), bounds)}
    return options


def context_name(key: EngineKey) -> str:
    """File name of the context model inside the engine's folder."""
    return f"{key.model}_ctx.onnx"


def _gpu_name(driver: ctypes.CDLL) -> str:
    """Name and compute capability of device 0, by the CUDA driver interface: Jetsons have no nvidia-smi."""
    name, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
    compute_capability_major, compute_capability_minor = 75, 76  # CUdevice_attribute
    calls = (
        driver.cuInit(0),
        driver.cuDeviceGetName(name, len(name), 0),
        driver.cuDeviceGetAttribute(ctypes.byref(major), compute_capability_major, 0),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), compute_capability_minor, 0),
    )
    return "" if any(calls) else f"{name.value.decode()} sm_{major.value}{minor.value}"
