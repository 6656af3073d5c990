"""Parameters from one schema: it declares them, validates values, and writes the table in docs/parameters.md.

A node lists its parameters once::

    PARAMETERS = Schema(
        Parameter("score_threshold", 0.3, "detections below it are not published", minimum=0.0, maximum=1.0),
        Parameter("model", "yolo_compact", "name of a shipped model, or path of an .onnx file", read_only=True),
    )

and reads them as attributes of an immutable snapshot (`node.values.score_threshold`). The default gives the type.
"""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, make_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType, \
    SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.files import shipped


class ParameterError(ThermalReidError):
    """A parameter that does not exist or has an impossible value."""


@dataclass(frozen=True)
class _Type:
    name: str
    ros: int
    example: str


_TYPES = {
    bool: _Type("bool", ParameterType.PARAMETER_BOOL, "true"),
    int: _Type("integer", ParameterType.PARAMETER_INTEGER, "2"),
    float: _Type("double", ParameterType.PARAMETER_DOUBLE, "2.0"),
    str: _Type("string", ParameterType.PARAMETER_STRING, "'text'"),
}
_LIST_TYPES = {
    str: _Type("list of strings", ParameterType.PARAMETER_STRING_ARRAY, "['one', 'two']"),
    float: _Type("list of doubles", ParameterType.PARAMETER_DOUBLE_ARRAY, "[1.0, 2.0]"),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter: bool, integer, double, string, or a non-empty tuple of strings or doubles by default.

    minimum, maximum: inclusive, of a number or of each number in a list. choices: the only values allowed.
    read_only: may be set at start alone. unit: empty where the value has none.
    """

    name: str
    default: Any
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"parameter name '{self.name}' is no identifier")
        if (reason := self.fault(self.default)) is not None:
            raise ValueError(f"default of {reason}")

    @property
    def type(self) -> _Type:
        if isinstance(self.default, tuple):
            return _LIST_TYPES[type(self.default[0])]
        return _TYPES[type(self.default)]

    def fault(self, value: Any) -> str | None:
        """What is wrong with the value, in one line that says what to do; None where nothing is."""
        is_list = isinstance(self.default, tuple)
        items = value if is_list and not isinstance(value, str) and isinstance(value, Iterable) else [value]
        wanted = type(self.default[0] if is_list else self.default)
        if (is_list and items is not value) or any(type(item) is not wanted for item in items):
            return f"parameter '{self.name}' is {value!r}: it must be a {self.type.name}, e.g. {self.type.example}"
        for item in items:
            if self.choices and item not in self.choices:
                return f"parameter '{self.name}' is {item!r}: it must be one of {self.range_text}"
            if wanted is float and not math.isfinite(item):
                return f"parameter '{self.name}' is {item}: it must be finite"
            if (self.minimum is not None and item < self.minimum) or \
                    (self.maximum is not None and item > self.maximum):
                return f"parameter '{self.name}' is {item}: it must be {self.range_text}"
        return None

    @property
    def range_text(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.choices:
            return ", ".join(str(choice) or '""' for choice in self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum} to {self.maximum}{unit}"
        if self.minimum is not None:
            return f"at least {self.minimum}{unit}"
        return f"at most {self.maximum}{unit}" if self.maximum is not None else ""

    def descriptor(self) -> ParameterDescriptor:
        unit = f" [{self.unit}]" if self.unit else ""
        descriptor = ParameterDescriptor(
            name=self.name, type=self.type.ros, description=self.description + unit, read_only=self.read_only,
            additional_constraints=f"one of {self.range_text}" if self.choices else "")
        if not self.choices and (self.minimum is not None or self.maximum is not None):
            if self.type is _TYPES[int]:
                descriptor.integer_range = [IntegerRange(
                    from_value=-2**63 if self.minimum is None else int(self.minimum),
                    to_value=2**63 - 1 if self.maximum is None else int(self.maximum))]
            else:
                descriptor.floating_point_range = [FloatingPointRange(
                    from_value=-math.inf if self.minimum is None else float(self.minimum),
                    to_value=math.inf if self.maximum is None else float(self.maximum))]
        return descriptor


class Schema:
    """The parameters of a node, in the order in which they are documented."""

    def __init__(self, *parameters: Parameter):
        self._parameters = {parameter.name: parameter for parameter in parameters}
        if len(self._parameters) != len(parameters):
            raise ValueError("a parameter stands twice in the schema")

    def __add__(self, other: Schema) -> Schema:
        return Schema(*self, *other)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters.values())

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def declare(self, node: Node) -> None:
        """Declare all on the node, with the values given at its start (parameter files, command line).

        Names that other nodes of this package know are passed over with a warning: a parameter file speaks to all nodes
        under /**. Raises ParameterError, one line with all faults: unknown names (with the nearest valid one), wrong
        types, values out of range.
        """
        overrides = {name: parameter.value for name, parameter in node._parameter_overrides.items()
                     if not node.has_parameter(name) and not name.startswith("qos_overrides.")}
        for name in [name for name in overrides if name not in self]:
            if others := owners(name):
                node.get_logger().warning(f"parameter '{name}' is of {', '.join(others)}; it does nothing here")
                del overrides[name]
        faults = [self._parameters[name].fault(value) if name in self else self.unknown(name)
                  for name, value in overrides.items()]
        if faults := [fault for fault in faults if fault]:
            raise ParameterError("; ".join(faults))
        for parameter in self:
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            node.declare_parameter(parameter.name, default, parameter.descriptor())

    def unknown(self, name: str) -> str:
        """The line that refuses an unknown name."""
        nearest = difflib.get_close_matches(name, self._parameters, n=1, cutoff=0.5)
        return f"there is no parameter '{name}'" + (f": did you mean '{nearest[0]}'?" if nearest else
                                                    "; docs/parameters.md lists all")

    def values(self, node: Node) -> Any:
        """An immutable snapshot of the node's values, one attribute a parameter."""
        values = {name: node.get_parameter(name).value for name in self._parameters}
        return self._snapshot(**{name: tuple(value) if isinstance(self[name].default, tuple) else value
                                 for name, value in values.items()})

    @cached_property
    def _snapshot(self) -> type:
        return make_dataclass("Values", list(self._parameters), frozen=True)

    def validate(self, parameters: list[RosParameter]) -> SetParametersResult:
        """For add_on_set_parameters_callback: judges, changes nothing."""
        faults = [self[parameter.name].fault(parameter.value) for parameter in parameters if parameter.name in self]
        reason = "; ".join(fault for fault in faults if fault)
        return SetParametersResult(successful=not reason, reason=reason)

    def markdown(self) -> str:
        """The parameters as a Markdown table."""
        rows = ["| parameter | type | default | range | unit | when | meaning |", "|---|---|---|---|---|---|---|"]
        for parameter in self:
            cells = (f"`{parameter.name}`", parameter.type.name, f"`{_yaml(parameter.default)}`",
                     parameter.range_text.removesuffix(f" {parameter.unit}") if parameter.unit
                     else parameter.range_text,
                     parameter.unit, "start" if parameter.read_only else "any time", parameter.description)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(rows) + "\n"

    def yaml(self) -> str:
        """The parameters with their defaults as the lines of a parameter file, each under what it means."""
        lines = []
        for parameter in self:
            notes = [f"one of {parameter.range_text}" if parameter.choices else parameter.range_text,
                     "at start only" if parameter.read_only else ""]
            if parameter.unit and not parameter.range_text.endswith(parameter.unit):
                notes.insert(0, parameter.unit)
            note = "; ".join(note for note in notes if note)
            lines += [*textwrap.wrap(parameter.description + (f" ({note})" if note else ""), 100,
                                     initial_indent="# ", subsequent_indent="# "),
                      f"{parameter.name}: {_yaml(parameter.default)}"]
        return "\n".join(lines) + "\n"


@cache
def owners(name: str) -> tuple[str, ...]:
    """Nodes of this package that have a parameter of this name, as the shipped parameter file tells."""
    try:
        content = yaml.safe_load((shipped("config") / "thermalreid.yaml").read_text())
        return tuple(key.rpartition("/")[2] for key, value in content.items() if name in value["ros__parameters"])
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return ()  # then every unknown name is refused


def in_file(path: str | Path, node: str, name: str) -> Any:
    """What a parameter file says of a parameter of the node of that name, in whichever namespace; None where it says
    nothing, or cannot be read: the node itself tells that."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return next((value for value in _found(content, node, name) if value is not None), None)


def _found(content: Any, node: str, name: str, of_node: bool = False) -> Iterator[Any]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == "ros__parameters":
            yield value.get(name) if of_node and isinstance(value, dict) else None
        else:  # a name may stand as a whole, or namespace by namespace
            yield from _found(value, node, name, str(key).rpartition("/")[2] in (node, "*", "**"))


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
