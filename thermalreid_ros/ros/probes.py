"""Photographs and the probes made of them: ROS messages to and from what the synthesis knows, and when and where they
are made for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.msg import ThermalProbe
from thermalreid_ros.reid.embedding import Embedder, describe_probe
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.photograph_length import LengthTeller
from thermalreid_ros.ros.convert import NS_PER_S, array_to_image, image_to_array
from thermalreid_ros.synthesis import Conditions
from thermalreid_ros.synthesis.photograph import decode_photograph
from thermalreid_ros.synthesis.searched import Made, Photograph, boxes_of

UNKNOWN_DEG, BY_CLOCK = -1000.0, -1.0  # of the parameters of a place and of an hour


class NotYetError(ThermalReidError):
    """The hour or the place that probes are made for is not known yet."""


def message_to_photograph(message: Image | CompressedImage, name: str, box: Sequence[float]) -> Photograph:
    """box: as the parameter says, which serves here where it is one. Raises SynthesisError or FrameError."""
    if isinstance(message, CompressedImage):
        pixels = decode_photograph(message.data.tobytes(), name)
    else:
        pixels = image_to_array(message)
        if pixels.ndim == 3 and message.encoding != "rgb8":
            pixels = np.ascontiguousarray(pixels[..., ::-1])
    return Photograph(name, pixels, boxes_of(box, 1)[0] if len(box) == 4 else None)


def made_to_message(made: Made, header: Header, probe_id: str, class_name: str,
                    embedder: Embedder | None = None, length: ToldLength | None = None,
                    teller: LengthTeller | None = None) -> ThermalProbe:
    """All probes of all photographs, as temperatures in degrees Celsius, with their descriptors where there is an
    embedding, and the object's length: as it is told, else as the photographs tell it, where there is a teller. Raises
    CropError where a photograph's box is too small for the models."""
    message = ThermalProbe(header=header, probe_id=probe_id, class_name=class_name,
                           units=ThermalUnits.CELSIUS_F32.value,
                           images=[array_to_image(crop, "32FC1", header) for crop in made.crops])
    shown = [(photograph.pixels, probes.box) for photograph, probes in zip(made.served, made.probes, strict=True)]
    if length is None and teller is not None:
        length = teller.tell(shown, class_name)
    if length is not None:
        message.length_m, message.length_error = length.metres, length.error
    if embedder is not None:
        descriptors = describe_probe(embedder, shown, np.concatenate([probes.squares for probes in made.probes]))
        message.descriptors, message.descriptor_size = descriptors.ravel(), descriptors.shape[1]
        message.descriptor_model = embedder.engine.card.name
    return message


def conditions_for(now_ns: int, fix: tuple[float, float] | None, values: Any) -> Conditions:
    """Of the parameters' values where they say, else of the clock and of a position (latitude, longitude).

    Raises NotYetError where nothing says it.
    """
    if now_ns <= 0:
        raise NotYetError("the node's clock does not run, there is nothing on /clock")
    place = fix
    if values.latitude_deg >= -90.0 and values.longitude_deg >= -180.0:
        place = (values.latitude_deg, values.longitude_deg)
    if place is None:
        raise NotYetError("the sun needs a place: set latitude_deg and longitude_deg, or publish prior/fix")
    return Conditions.at(datetime.fromtimestamp(now_ns / NS_PER_S, timezone.utc), *place, values.air_c,
                         values.cloud_cover, None if values.solar_hour < 0.0 else values.solar_hour)


def summary(made: Made, probe_id: str, class_name: str, conditions: Conditions, length_m: float = 0.0) -> str:
    """One line for a person."""
    means = ", ".join(f"{mean:.1f}" for mean in made.mean_c)
    size = f", about {length_m:.1f} m long" if length_m else ""
    return (f"'{probe_id}', {class_name or 'any class'}{size}: {len(made.crops)} of {len(made.probes)} photograph(s), "
            f"at solar hour {conditions.solar_hour:.1f}, sun {conditions.sun_elevation_deg:.0f} deg, air "
            f"{conditions.air_c:.1f} C, cloud cover {conditions.cloud_cover:.1f}; means {means} C")
