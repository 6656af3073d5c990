"""Detections as messages of vision_msgs, for what understands those and not ours, where that package is installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from std_msgs.msg import Header

from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.lifecycle import ThermalNode


def installed() -> ModuleType | None:
    """vision_msgs.msg, or None."""
    try:
        return import_module("vision_msgs.msg")
    except ImportError:
        return None


class VisionOutput:
    """`detections/vision` (vision_msgs/Detection2DArray), while somebody listens, and, latched, `detections/label_info`
    (LabelInfo) with the names of its classes. Nothing where vision_msgs is not installed.

    For configure; `announce` for activate, and again when the threshold changes.
    """

    def __init__(self, node: ThermalNode):
        self._messages = installed()
        node.diagnostics.note("vision_msgs", "not installed" if self._messages is None else "installed")
        if self._messages is not None:
            self._detections = node.publisher(self._messages.Detection2DArray, "detections/vision", qos.RESULTS)
            self._labels = node.publisher(self._messages.LabelInfo, "detections/label_info", qos.LATCHED)

    def announce(self, score_threshold: float) -> None:
        """Say what the numbers of the classes mean; while the node is active."""
        if self._messages is not None and self._labels.is_activated:
            names = [self._messages.VisionClass(class_id=number, class_name=name)
                     for number, name in enumerate(CLASS_NAMES)]
            self._labels.publish(self._messages.LabelInfo(threshold=float(score_threshold), class_map=names))

    def publish(self, detections: Sequence[Detection], header: Header) -> None:
        """header: the frame's own, copied as it is."""
        if self._messages is not None and self._detections.get_subscription_count():
            self._detections.publish(to_vision(self._messages, detections, header))


def to_vision(messages: ModuleType, detections: Sequence[Detection], header: Header) -> Any:
    """A Detection2DArray. class_id: the number of the class, in digits, as LabelInfo names it. Boxes are in pixels
    from the upper left corner of the frame. Where an object is in space is not known here: poses are left empty."""
    boxes = []
    for found in detections:
        x_min, y_min, x_max, y_max = map(float, found.box)
        centre = messages.Point2D(x=(x_min + x_max) / 2, y=(y_min + y_max) / 2)
        hypothesis = messages.ObjectHypothesis(class_id=str(int(found.class_id)), score=float(found.score))
        boxes.append(messages.Detection2D(
            header=header, results=[messages.ObjectHypothesisWithPose(hypothesis=hypothesis)],
            bbox=messages.BoundingBox2D(center=messages.Pose2D(position=centre), size_x=x_max - x_min,
                                        size_y=y_max - y_min)))
    return messages.Detection2DArray(header=header, detections=boxes)
