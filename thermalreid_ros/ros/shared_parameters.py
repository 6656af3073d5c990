"""Parameters that several nodes have: what a pixel of the camera means, and what their models run on."""

from __future__ import annotations

import os
from typing import Any

from thermalreid_ros.camera.thermal import Polarity, ThermalUnits
from thermalreid_ros.engine.engine import DEFAULT_PROVIDERS
from thermalreid_ros.reid.length import ERRORS, USUAL_ERROR
from thermalreid_ros.ros.lifecycle import ThermalNode
from thermalreid_ros.ros.parameters import Parameter, Schema

CAMERA_PARAMETERS = Schema(
    Parameter("thermal_units", "agc8", "what a pixel of the camera means", read_only=True,
              choices=tuple(unit.value for unit in ThermalUnits)),
    Parameter("polarity", "white_hot", "how the camera shows heat, for agc8 and counts", read_only=True,
              choices=tuple(polarity.value for polarity in Polarity)),
)
LENGTH_PARAMETERS = Schema(
    Parameter("probe_length_m", 0.0, "longest side of the object, as somebody knows it: how long a car is, how tall a "
              "person; 0: not known", unit="m", minimum=0.0),
    Parameter("probe_length_error", USUAL_ERROR, "by which share of it that may be off, a standard deviation: 0.02 "
              "where it was looked up, 0.1 where it is guessed", minimum=ERRORS[0], maximum=ERRORS[1]),
)


def provider_parameters(what: str) -> Schema:
    """what: of the node's models, for the description."""
    return Schema(
        Parameter("providers", DEFAULT_PROVIDERS, f"what to run {what} on, best first", read_only=True,
                  choices=DEFAULT_PROVIDERS),
        Parameter("threads", 0, "of the CPU providers; 0: half of the cores, for there are other nodes", minimum=0,
                  maximum=256, read_only=True),
    )


def model_options(node: ThermalNode) -> dict[str, Any]:
    """Keyword arguments of load_engine, and of what calls it, for a node with provider_parameters."""
    return {"providers": node.values.providers, "threads": model_threads(node.values), "log": node.get_logger().info}


def model_threads(values: Any) -> int:
    """`threads` of a node's values, where 0 stands for half of the cores that it may run on, rounded up.

    Two models that both want all cores wait for each other's slowest thread: on two cores four nodes detect half as
    many frames that way.
    """
    return values.threads or -(-len(os.sched_getaffinity(0)) // 2)
