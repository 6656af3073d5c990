"""Models on ONNX Runtime: found by name, checked against their card, run on the best provider there is."""

from __future__ import annotations

import logging
import lzma
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from thermalreid_ros.engine.cache import EngineCache
from thermalreid_ros.engine.card import EngineError, ModelCard, TensorSpec, sha256_of
from thermalreid_ros.engine.providers import (
    EXECUTION_PROVIDERS,
    PRECISIONS,
    EngineKey,
    Machine,
    choose_providers,
    context_name,
    prepared_shape,
    probe_machine,
    profile_range,
    profile_shapes,
    tensorrt_options,
)
from thermalreid_ros.errors import first_line
from thermalreid_ros.files import shipped

Log = Callable[[str], None]
_in_models_s = _in_models_cpu_s = 0.0  # of this process
DEFAULT_PROVIDERS = ("tensorrt", "cuda", "cpu_int8", "cpu")
MOST_THREADS = 256  # of a session: it makes as many as it is asked for, and dies of them
INT8_SUFFIX = ".int8"  # of the form of a model that engine/int8.py makes
_ORT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
               "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(int32)": "int32",
               "tensor(int64)": "int64", "tensor(bool)": "bool"}


class Engine(Protocol):
    """A model ready to run. provider: 'tensorrt', 'cuda', 'cpu_int8' or 'cpu', as the session reports it."""

    card: ModelCard
    provider: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference: arrays by the card's input names to arrays by its output names.

        Raises EngineError when an input is missing, unknown, or of another dtype or shape than the card's.
        """

    def close(self) -> None:
        """Give the memory back; run raises EngineError afterwards."""


class OrtEngine:
    """Engine over one onnxruntime.InferenceSession; one caller at a time.

    threads: of the CPU provider. fallbacks: why providers asked for earlier were not taken. warm_up_ms: the
    first inference, None where the card leaves sizes free.
    """

    def __init__(self, session, card: ModelCard, provider: str, threads: int):
        self.card = card
        self.provider = provider
        self.threads = threads
        self.fallbacks: tuple[str, ...] = ()
        self.warm_up_ms: float | None = None
        self._session = session
        self._inputs = {spec.name: spec for spec in card.inputs}
        self._outputs = [spec.name for spec in card.outputs]

    @property
    def on_cpu(self) -> bool:
        """Whether processor cores compute it, in floating point or in integers: only then does `threads` matter."""
        return EXECUTION_PROVIDERS.get(self.provider) == EXECUTION_PROVIDERS["cpu"]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        global _in_models_s, _in_models_cpu_s
        if self._session is None:
            raise EngineError(f"model '{self.card.name}' is closed; load it again")
        if inputs.keys() != self._inputs.keys():
            raise EngineError(f"model '{self.card.name}' takes inputs {', '.join(self._inputs)}, "
                              f"not {', '.join(inputs) or 'none'}")
        for name, array in inputs.items():
            spec = self._inputs[name]
            if array.dtype != spec.dtype or not spec.accepts(array.shape):
                raise EngineError(f"model '{self.card.name}': input '{name}' takes {spec.dtype} "
                                  f"{list(spec.shape)}, not {array.dtype} {list(array.shape)}")
        feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        started, cpu_s = time.perf_counter(), time.thread_time()
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise EngineError(f"model '{self.card.name}' failed on {self.provider}: "
                              f"{_reason(error)}") from None
        finally:
            _in_models_s += time.perf_counter() - started
            _in_models_cpu_s += time.thread_time() - cpu_s

    def close(self) -> None:
        self._session = None

    def warm_up(self, shapes: Mapping[str, Sequence[int]] | None = None) -> float | None:
        """Run once on zeros, which makes the provider allocate and choose its kernels; milliseconds taken.

        None, and nothing run, where the card leaves sizes free and neither it nor `shapes` gives typical
        ones.
        """
        feed = {}
        for spec in self.card.inputs:
            shape = prepared_shape(spec, shapes or {})
            if shape is None:
                return None
            feed[spec.name] = np.zeros(shape, spec.dtype)
        started = time.perf_counter()
        self.run(feed)
        return 1e3 * (time.perf_counter() - started)


def seconds_in_models(*, cpu: bool = False) -> float:
    """Seconds that this process has spent in its models so far, whatever their number; only differences tell.

    cpu: of processor time, on the threads that called them.
    """
    return _in_models_cpu_s if cpu else _in_models_s


def load_engine(model: str | Path, *, providers: Sequence[str] = DEFAULT_PROVIDERS, threads: int = 0,
                precision: str = "fp16", cache_dir: str | Path | None = None, log: Log | None = None,
                shapes: Mapping[str, Sequence[int]] | None = None, supersede: bool = False,
                machine: Machine | None = None) -> OrtEngine:
    """Load a model, warmed up, on the first of the asked providers that works; one log line says which.

    model: a name ("yolo_compact": models/NAME.onnx of the package) or the path of an .onnx file; its card is
    the .yaml beside it. threads: of the CPU provider, 0 = all cores. precision: 'fp16' or 'fp32', of
    TensorRT. cache_dir: of built TensorRT engines, by default $XDG_CACHE_HOME/thermalreid/engines. shapes:
    sizes to prepare for where inputs leave some free. supersede: a TensorRT engine that is built takes the place of
    those of the same name by another file or other versions, which else stay. machine: what to choose by, by default
    this machine. log: by default Python's own, which shows what failed alone.
    Raises EngineError (one line) for a model or card that is missing, corrupt or does not match, and where
    no asked provider works.
    """
    logger, unheard = logging.getLogger(__name__), log is None
    log = log or logger.info
    if precision not in PRECISIONS:
        raise EngineError(f"precision '{precision}' is unknown; choose from {', '.join(PRECISIONS)}")
    if not 0 <= threads <= MOST_THREADS:
        raise EngineError(f"threads: {threads}; give 1 to {MOST_THREADS}, or 0 for one for each core")
    path, card = open_model(model)
    machine = machine or probe_machine()
    chosen, reasons = choose_providers(providers, machine)
    threads = threads or len(os.sched_getaffinity(0))  # onnxruntime's own default would pin them to cores
    load = _Loading(path, card, machine, precision, threads, shapes or {}, EngineCache(cache_dir), supersede, log)
    for name in chosen:
        if name == "cpu_int8" and "int8" not in card.extra:
            continue  # most models have no such form, which is no news
        try:
            engine = load.on(name)
        except Exception as error:
            if name == "cpu":  # every build of onnxruntime runs there, so the model is at fault
                raise error if isinstance(error, EngineError) else EngineError(
                    f"{path}: onnxruntime cannot load it ({_reason(error)}); "
                    f"fetch or export the model again") from None
            reasons[name] = f"{name} asked, failed: {_reason(error)}"
            continue
        if engine.provider != name:
            reasons[name] = f"{name} asked, not taken by the session"
            continue
        engine.fallbacks = tuple(reasons[other] for other in providers[:providers.index(name)] if other in reasons)
        on = f"{name} ({threads} thread{'s' * (threads > 1)})" if engine.on_cpu else name
        log("; ".join([f"model {card.name} runs on {on}", *engine.fallbacks]))
        for reason in engine.fallbacks:
            if unheard and ", failed: " in reason:
                logger.warning(f"model {card.name}: {reason}")
        return engine
    raise EngineError(f"{path}: no provider left to run on: "
                      f"{'; '.join(reasons.values()) or 'the model has no int8 form'}")


def open_model(model: str | Path) -> tuple[Path, ModelCard]:
    """Find a model by name or path, read its card and check its sum; EngineError as load_engine."""
    path = _find(model)
    card = ModelCard.read(path.with_suffix(".yaml"))
    if (found := sha256_of(path)) != card.sha256:
        raise EngineError(f"{path}: sha256 is {found[:12]}..., its card says {card.sha256[:12]}...; "
                          f"the file is corrupt or the card is another model's: fetch both again")
    return path, card


def shipped_models() -> tuple[str, ...]:
    """Names of the models the package ships."""
    return tuple(sorted(file.stem for file in shipped("models").glob("*.onnx")))


def _find(model: str | Path) -> Path:
    path = Path(model)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise EngineError(f"{path}: no such model file")
        return path
    path = shipped("models") / f"{model}.onnx"
    if not path.is_file():
        names = ", ".join(shipped_models()) or "none"
        raise EngineError(f"{path}: no such model; the package ships: {names}")
    return path


@dataclass(frozen=True)
class _Loading:
    """What one load_engine works with; its methods make warmed-up engines or raise what onnxruntime
    raises."""

    path: Path
    card: ModelCard
    machine: Machine
    precision: str
    threads: int
    shapes: Mapping[str, Sequence[int]]
    cache: EngineCache
    supersede: bool
    log: Log

    def on(self, name: str) -> OrtEngine:
        if name == "tensorrt":
            return self.tensorrt()
        return self.int8() if name == "cpu_int8" else self._engine(self.path, [EXECUTION_PROVIDERS[name]])

    def int8(self) -> OrtEngine:
        """On the CPU, in integers."""
        form = self.path.with_suffix(INT8_SUFFIX)
        if not form.is_file():
            raise RuntimeError(f"{form} is missing")
        if sha256_of(form) != dict(self.card.extra["int8"]).get("sha256"):
            raise RuntimeError(f"{form} is not the one that its card names")
        # Its large weights lie in the .onnx file beside it.
        engine = self._engine(lzma.decompress(form.read_bytes()), [EXECUTION_PROVIDERS["cpu_int8"]],
                              **{"session.model_external_initializers_file_folder_path": str(form.absolute().parent)})
        engine.provider = "cpu_int8"
        return engine

    def tensorrt(self) -> OrtEngine:
        """On a cached engine, or on one built now; an engine that does not load any more is built again."""
        key = engine_key(self.card, self.machine, self.precision, self.shapes)
        if folder := self.cache.find(key):
            context = folder / context_name(key)
            try:
                return self._on_tensorrt(context if context.is_file() else self.path, key, folder)
            except Exception as error:
                self.log(f"{folder}: the engine does not load ({_reason(error)}); it is built again")
                self.cache.discard(folder)
        self.log(f"building the TensorRT engine of {self.card.name} ({self.precision}, {key.shapes}): "
                 f"minutes, once; 'thermalreid engine build' does it ahead of flight")
        with self.cache.building(key) as folder:
            engine = self._on_tensorrt(self.path, key, folder)
            if engine.provider != "tensorrt":
                raise RuntimeError("the session did not take it")
        if self.supersede:
            self.cache.discard_superseded(key)
        return engine

    def _on_tensorrt(self, model: Path, key: EngineKey, folder: Path) -> OrtEngine:
        options = tensorrt_options(key, folder, self.cache.timing_cache)
        rest = [EXECUTION_PROVIDERS[name] for name in ("cuda", "cpu") if name in self.machine.built_in]
        return self._engine(model, [(EXECUTION_PROVIDERS["tensorrt"], options), *rest])

    def _engine(self, model: Path | bytes, providers: list, **settings: str) -> OrtEngine:
        """model: a file, or what is in one. settings: of the session."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # fatal only: faults come back as exceptions, in one line
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        # Threads that wait by spinning nearly double the processor time and starve the transport beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in settings.items():
            options.add_session_config_entry(key, value)
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options,
                                               providers=providers, enable_fallback=0)
        _check_against_card(session, self.card, self.path)
        first = session.get_providers()[0]
        provider = next((name for name, known in EXECUTION_PROVIDERS.items() if known == first), first)
        engine = OrtEngine(session, self.card, provider, self.threads)
        engine.warm_up_ms = engine.warm_up(self.shapes)
        return engine


def engine_key(card: ModelCard, machine: Machine, precision: str,
               shapes: Mapping[str, Sequence[int]] | None = None) -> EngineKey:
    """The conditions that an engine built for this model here and now depends on."""
    return EngineKey(model=card.name, onnx_sha256=card.sha256, tensorrt=machine.tensorrt, gpu=machine.gpu,
                     precision=precision,
                     shapes=profile_range(card.inputs, profile_shapes(card.inputs, shapes or {}), card.strides),
                     onnxruntime=machine.onnxruntime)


def _check_against_card(session, card: ModelCard, path: Path) -> None:
    mismatch = "model and card do not belong together"
    for kind, specs, nodes in (("input", card.inputs, session.get_inputs()),
                               ("output", card.outputs, session.get_outputs())):
        found = {node.name: node for node in nodes}
        if set(found) != {spec.name for spec in specs}:
            raise EngineError(f"{path}: the model's {kind}s are {', '.join(found)}, its card says "
                              f"{', '.join(spec.name for spec in specs)}; {mismatch}")
        for spec in specs:
            node = found[spec.name]
            dtype = _ORT_DTYPES.get(node.type, node.type)
            if dtype != spec.dtype or not _compatible(spec, node.shape):
                raise EngineError(f"{path}: {kind} '{spec.name}' is {dtype} {node.shape}, "
                                  f"its card says {spec.dtype} {list(spec.shape)}; {mismatch}")


def _compatible(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """Sizes that the model fixes must be the card's; sizes it leaves free may be fixed or free in the
    card."""
    return len(shape) == len(spec.shape) and all(
        not isinstance(size, int) or size == said for size, said in zip(shape, spec.shape, strict=True))


def _reason(error: Exception) -> str:
    """The first line of what onnxruntime raised, without its error code and its place in the C++ sources."""
    return re.sub(r"^(\[ONNXRuntimeError\] : \d+ : |/onnxruntime_src/\S+ .*?\) )", "", first_line(error))
