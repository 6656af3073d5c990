"""Model cards: what NAME.yaml beside NAME.onnx says, and the sum that binds the two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from thermalreid_ros.errors import ThermalReidError, first_line


class EngineError(ThermalReidError):
    """A model that cannot be loaded or run as asked; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. shape: sizes, or a name where the size is free. layout: letters of the axes, e.g.
    NCHW.

    Networks see (value - mean) / std, per channel. typical_shape: the sizes to prepare for where shape leaves
    some free. meaning: what the numbers of an output say.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    layout: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: tuple[str, ...] = ()
    typical_shape: tuple[int, ...] = ()
    meaning: str = ""

    @property
    def is_dynamic(self) -> bool:
        return any(not isinstance(size, int) for size in self.shape)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape fits: same rank, same size wherever the card fixes one."""
        return len(shape) == len(self.shape) and all(
            not isinstance(fixed, int) or fixed == size
            for fixed, size in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class ModelCard:
    """The facts a model travels with. extra keeps the keys this version does not know."""

    name: str
    task: str
    architecture: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sha256: str
    classes: tuple[str, ...] = ()
    strides: tuple[int, ...] = ()
    opset: int = 0
    precision: str = "fp32"
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "model card") -> ModelCard:
        """Build a card from what its YAML holds; EngineError names the source and the key at fault."""
        if not isinstance(values, Mapping):
            raise EngineError(f"{source}: a model card is a mapping of keys; write the card anew")
        required = ("name", "task", "architecture", "inputs", "outputs", "sha256")
        missing = [key for key in required if not values.get(key)]
        if missing:
            raise EngineError(f"{source}: the model card lacks {', '.join(missing)}")
        known = {key for key in cls.__dataclass_fields__ if key != "extra"}
        try:
            return cls(
                **{key: str(values[key]) for key in ("name", "task", "architecture", "sha256")},
                inputs=tuple(_tensor(spec) for spec in values["inputs"]),
                outputs=tuple(_tensor(spec) for spec in values["outputs"]),
                classes=tuple(str(name) for name in values.get("classes") or ()),
                strides=_strides(values.get("strides") or ()),
                opset=int(values.get("opset") or 0),
                precision=str(values.get("precision") or "fp32"),
                training=dict(values.get("training") or {}),
                metrics=tuple(dict(metric) for metric in values.get("metrics") or ()),
                parity=dict(values.get("parity") or {}),
                extra={key: value for key, value in values.items() if key not in known},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"{source}: the model card has a wrong value ({error})") from None

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read NAME.yaml; EngineError where it is missing, no YAML or incomplete."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise EngineError(f"{path}: no model card; every model needs one beside it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"{path}: the model card cannot be read ({error})") from None
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise EngineError(f"{path}: the model card is no YAML ({first_line(error)})") from None
        return cls.from_mapping(values, str(path))

    def tensor(self, name: str, dimensions: int = 0) -> TensorSpec:
        """The input or output of this name, of which the last so many `dimensions` are fixed. Raises EngineError."""
        specs = (*self.inputs, *self.outputs)
        spec = next((spec for spec in specs if spec.name == name), None)
        if spec is None or len(spec.shape) < dimensions or not all(
                isinstance(size, int) for size in spec.shape[len(spec.shape) - dimensions:]):
            raise EngineError(f"model '{self.name}' has no input or output '{name}' of a fixed size, but "
                              f"{', '.join(f'{own.name} {list(own.shape)}' for own in specs)}; it is another kind of "
                              f"{self.task} model than this version runs")
        return spec

    def to_mapping(self) -> dict[str, Any]:
        """Plain values in the card's order, without empty entries: what from_mapping takes."""
        values = {
            "name": self.name, "task": self.task, "architecture": self.architecture,
            "inputs": [_plain(spec) for spec in self.inputs],
            "outputs": [_plain(spec) for spec in self.outputs],
            "classes": list(self.classes), "strides": list(self.strides), "sha256": self.sha256,
            "opset": self.opset, "precision": self.precision, "training": dict(self.training),
            "metrics": [dict(metric) for metric in self.metrics], "parity": dict(self.parity), **self.extra,
        }
        return {key: value for key, value in values.items() if value not in ([], {}, "", 0)}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensor(values: Mapping[str, Any]) -> TensorSpec:
    if not isinstance(values, Mapping) or "name" not in values or "shape" not in values:
        raise ValueError("every input and output needs a name and a shape")
    return TensorSpec(
        name=str(values["name"]),
        shape=tuple(size if isinstance(size, int) and size > 0 else str(size) for size in values["shape"]),
        dtype=str(values.get("dtype", "float32")),
        layout=str(values.get("layout", "")),
        mean=_floats(values.get("mean")),
        std=_floats(values.get("std")),
        channels=tuple(str(channel) for channel in values.get("channels") or ()),
        typical_shape=tuple(int(size) for size in values.get("typical_shape") or ()),
        meaning=str(values.get("meaning", "")),
    )


def _strides(values: Any) -> tuple[int, ...]:
    strides = tuple(int(stride) for stride in values)
    if min(strides, default=1) < 1:
        raise ValueError(f"strides {list(strides)}")
    return strides


def _floats(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    return tuple(float(item) for item in value) if isinstance(value, (list, tuple)) else (float(value),)


def _plain(spec: TensorSpec) -> dict[str, Any]:
    values = {key: getattr(spec, key) for key in spec.__dataclass_fields__}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
            if value not in ((), "")}
