"""What the bag player is made of: the time of a recording, and its topics on their way into the graph."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from thermalreid_ros.ros import qos
from thermalreid_ros.ros.bag import Bag, BagError, BagMessage
from thermalreid_ros.ros.convert import NS_PER_S, array_to_image, compressed_to_array

_IMAGE_TYPES = (Image, CompressedImage)


class RecordedTime:
    """The time of a recording: it passes `rate` times as fast as that of `clock` (seconds), and never runs ahead of
    the next message. Of a delay up to CATCH_UP_S is made good; where messages cannot be had as fast, time waits for
    them."""

    CATCH_UP_S = 0.1

    def __init__(self, now_ns: int, clock: Callable[[], float] = time.monotonic):
        self.now_ns = self._ideal_ns = now_ns
        self._clock, self._looked_s = clock, clock()

    def pass_until(self, stamp_ns: int, rate: float, *, paused: bool = False) -> float:
        """Let the time since the last look pass, up to the stamp; the seconds of `clock` that are left until it."""
        looked_s = self._clock()
        if not paused:
            latest_ns = stamp_ns + round(self.CATCH_UP_S * rate * NS_PER_S)
            self._ideal_ns = min(self._ideal_ns + round((looked_s - self._looked_s) * rate * NS_PER_S), latest_ns)
            self.now_ns = max(self.now_ns, min(self._ideal_ns, stamp_ns))
        self._looked_s = looked_s
        return max(stamp_ns - self.now_ns, 0) / NS_PER_S / rate


@dataclass(frozen=True)
class PlayedTopic:
    """A recorded topic, and what is published of it."""

    recorded_type: type
    published_type: type
    publisher: Publisher
    is_image: bool

    @classmethod
    def of(cls, bag: Bag, topic: str, publisher: Callable[[type, str, QoSProfile], Publisher], *,
           decompress: bool) -> PlayedTopic:
        """publisher: makes one of a type, a topic relative to the player's namespace, and a quality of service.
        decompress: compressed pictures become images, on the topic without /compressed, where it is not recorded too.

        Raises BagError where the package of the topic's type is not installed.
        """
        recorded = published = _message_type(bag.topics[topic])
        name = topic.lstrip("/")
        if decompress and recorded is CompressedImage and topic.removesuffix("/compressed") not in bag.topics:
            published, name = Image, name.removesuffix("/compressed")
        is_image = published in _IMAGE_TYPES
        profile = qos.LATCHED if topic in bag.latched else qos.CAMERA_OUT if is_image else qos.RESULTS
        return cls(recorded, published, publisher(published, name, profile), is_image)

    def prepare(self, message: BagMessage) -> Any:
        """What to publish: the recorded bytes where nothing changes, else the decompressed picture.

        Raises FrameError for a picture that cannot be decoded.
        """
        if self.published_type is self.recorded_type:
            return message.data
        picture = deserialize_message(message.data, self.recorded_type)
        return array_to_image(*compressed_to_array(picture), picture.header)

    def restamp(self, outgoing: Any, stamp: Any) -> Any:
        """The same with another stamp in its header, where it has one."""
        if isinstance(outgoing, bytes):
            outgoing = deserialize_message(outgoing, self.published_type)
        if hasattr(outgoing, "header"):
            outgoing.header.stamp = stamp
        return outgoing


def _message_type(type_name: str) -> type:
    """The Python class of e.g. "sensor_msgs/msg/Image". Raises BagError where its package is not installed."""
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise BagError(f"type {type_name} is not installed here") from None
