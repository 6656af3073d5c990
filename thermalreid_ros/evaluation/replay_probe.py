"""The probe of a replay: a thermal crop, or a colour photograph that thermal probes are made of; and what a recording
tells of it.

A photograph is told by its channels. It is searched as its class, and its probes are made for the weather that the
recording speaks of, as an operator would give it; hour and place come to the nodes by /clock and prior/fix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from thermalreid_ros.errors import ThermalReidError, first_line
from thermalreid_ros.evaluation.recording import Truth
from thermalreid_ros.reid.length import USUAL_ERROR, told_length
from thermalreid_ros.reid.probe import ProbeError, load_probe
from thermalreid_ros.reid.signature import CELSIUS, scale_for
from thermalreid_ros.synthesis import Conditions, load_photograph
from thermalreid_ros.synthesis.photograph import file_is_colour
from thermalreid_ros.world.weather import Weather


class ReplayProbeError(ThermalReidError):
    """A probe that does not fit the recording."""


def probe_parameters(probe: Path, class_name: str, units: str, weather: Mapping[str, float],
                     length_m: float = 0.0, length_error: float = USUAL_ERROR) -> dict[str, dict]:
    """Parameters of the nodes that a probe concerns, by node; what is wrong with it is raised now, not by a node.

    units: of the recording's frames. weather: parameters of the synthesis. length_m, length_error: of the object, as
    reid.length.told_length takes them. Class and box of a photograph are those that a probe.json beside it tells, as
    `thermalreid world fly` writes it, unless a class is given.
    """
    if not file_is_colour(probe):
        try:
            load_probe(probe, units, class_name)
        except ProbeError as error:
            raise ReplayProbeError(f"{error} (a probe is a thermal crop in the camera's units, or a photograph in "
                                   "colour)") from None
        return {"reid": {"probe_file": str(probe.absolute()), "probe_class": class_name,
                         **_length_parameters(length_m, length_error, class_name)}}
    if scale_for(units) is not CELSIUS:
        raise ReplayProbeError(f"{probe}: of a colour photograph probes in degrees Celsius are made, but the camera of "
                               f"this recording gives '{units}'; give a thermal crop, or a recording of a camera that "
                               "measures")
    load_photograph(probe)
    told_class, box = told_beside(probe)
    class_name = class_name or told_class
    return {"reid": {}, "probe_synthesis": {"probe_files": [str(probe.absolute())], "probe_class": class_name or "any",
                                            "probe_id": probe.stem, **({"box": box} if box else {}), **weather,
                                            **_length_parameters(length_m, length_error, class_name)}}


def _length_parameters(length_m: float, length_error: float, class_name: str) -> dict[str, float]:
    """Raises LengthError."""
    length = told_length(length_m, length_error, class_name)
    return {} if length is None else {"probe_length_m": length.metres, "probe_length_error": length.error}


def told_beside(probe: Path) -> tuple[str, list[float]]:
    """(class, box) of a photograph, as the probe.json beside it says; ("", []) where none speaks of it."""
    try:
        card = json.loads((probe.parent / "probe.json").read_text())
        box = next(picture["box"] for picture in card["pictures"] if picture["file"] == probe.name)
        return str(card["class_name"]), [float(edge) for edge in box]
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return "", []


def recorded_weather(bag: Path, custom: Mapping[str, str], truth: Truth) -> dict[str, float]:
    """Parameters of the synthesis that a rendered flight tells; empty where it does not. Raises ReplayProbeError."""
    if not {"weather", "time"} <= custom.keys() or not truth.places:
        return {}
    try:
        weather = Weather(**json.loads(custom["weather"]))
        at = Conditions.at(datetime.fromisoformat(custom["time"]), *truth.places[min(truth.places)], 0.0)
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayProbeError(f"{bag}: its custom data tell no weather and time ({error}); mend them, or give "
                               "--params") from None
    return {"air_c": round(float(weather.air_temperature_k(at.solar_hour)) - 273.15, 2),
            "cloud_cover": round(weather.cloud_cover, 3)}


def camera_units(params_file: Path, given: Mapping[str, Any]) -> str:
    """What the reid node will take the camera's pixels for."""
    if "thermal_units" in given:
        return given["thermal_units"]
    from thermalreid_ros.ros.parameters import in_file

    return in_file(params_file, "reid", "thermal_units") or "agc8"


def own_card(bag: Path, probe: Path | None, custom: Mapping[str, str]) -> dict[str, Any] | None:
    """What a recording knows of a probe that belongs to it, None where it is another's: a crop in it (probe.yaml, with
    the stamp of its frame), or one of the photographs beside it (probes/probe.json) of the identity that its truth
    follows. Raises ReplayProbeError, naming a card that is damaged."""
    if probe is None or not probe.is_file():
        return None
    own, told = bag / "probe.png", bag / "probe.yaml"
    try:
        if own.is_file() and told.is_file() and own.read_bytes() == probe.read_bytes():
            card = yaml.safe_load(told.read_text())
            return {**card, "stamp_ns": int(card["stamp_ns"])}
        for told in (bag / "probes" / "probe.json", bag.parent / "probes" / "probe.json"):
            if told.is_file():
                card = json.loads(told.read_text())
                pictures = [told.parent / picture["file"] for picture in card["pictures"]]
                if card["identity"] == custom.get("target") and any(
                        path.is_file() and path.read_bytes() == probe.read_bytes() for path in pictures):
                    return card
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ReplayProbeError(f"{told}: no card of probes ({type(error).__name__}: {first_line(error)}); mend it, or "
                               "take it away") from None
    return None
