"""Writes what the schemas of the nodes tell: docs/parameters.md and config/thermalreid.yaml (`make docs`)."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from thermalreid_ros.files import write_atomically
from thermalreid_ros.nodes.bag_player import BagPlayerNode
from thermalreid_ros.nodes.detection import DetectionNode
from thermalreid_ros.nodes.geo_localization import GeoLocalizationNode
from thermalreid_ros.nodes.probe_synthesis import ProbeSynthesisNode
from thermalreid_ros.nodes.reid import ReidNode
from thermalreid_ros.ros import diagnostics
from thermalreid_ros.ros.lifecycle import COMMON_PARAMETERS, ThermalNode

NODES: tuple[type[ThermalNode], ...] = (GeoLocalizationNode, DetectionNode, ProbeSynthesisNode, ReidNode,
                                        BagPlayerNode)


def parameter_table() -> str:
    """docs/parameters.md."""
    sections = ["# Parameters and diagnostics\n\n"
                "Written by `make docs` from the schemas in `thermalreid_ros/nodes/`. *start*: given at start only, "
                "in a parameter\nfile or with `-p name:=value`; *any time*: also with `ros2 param set`. Unknown names, "
                "wrong types and values out\nof range are refused; what another node of this package "
                "knows, as under `/**` of a file, is passed over\nwith a warning. `config/thermalreid.yaml` holds all "
                "of them with their defaults.\n"]
    sections += [f"## {node.NAME}\n\n{node.PARAMETERS.markdown()}" for node in NODES]
    sections += [f"## All nodes\n\n{COMMON_PARAMETERS.markdown()}",
                 f"## Diagnostics\n\n{diagnostics.__doc__}"]
    return "\n".join(sections)


def parameter_file() -> str:
    """config/thermalreid.yaml."""
    sections = ["# All parameters of all nodes with their defaults, in any namespace; written by `make docs`.\n"]
    for node in NODES:
        parameters = textwrap.indent((node.PARAMETERS + COMMON_PARAMETERS).yaml(), 4 * " ")
        sections.append(f"/**/{node.NAME}:\n  ros__parameters:\n{parameters}")
    return "\n".join(sections)


GENERATED = {"docs/parameters.md": parameter_table, "config/thermalreid.yaml": parameter_file}

if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name, write in GENERATED.items():
        write_atomically(root / name, write())
