"""map -> odom (REP 105): where the odometry's frame lies in the grid of the map."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from std_msgs.msg import Header

from thermalreid_ros.camera.geometry import quaternion_of, rotation_of_rpy
from thermalreid_ros.localization.types import PositionFix
from thermalreid_ros.ros.convert import ns_to_stamp

REMEMBERED = 400  # readings: 8 s of what geo_localization reads
MAX_GAP_NS = 500_000_000  # between a fix and the nearest reading


def broadcaster(node: Node):
    """tf2's broadcaster, or None where tf2_ros is not installed."""
    try:
        from tf2_ros import TransformBroadcaster
    except ImportError:
        return None
    return TransformBroadcaster(node)


class MapToOdom:
    """Puts odometry's frame where it agrees with a fix: its heading is `yaw_rad` in the grid, its height that above
    the ground. The camera is taken to be where the odometry's child frame is: a lever arm of a metre is less than a
    fix's error."""

    def __init__(self, map_frame: str, yaw_rad: float):
        self._map_frame, self._turn = map_frame, rotation_of_rpy(0.0, 0.0, yaw_rad)
        self._readings: deque[tuple[int, np.ndarray]] = deque(maxlen=REMEMBERED)
        self._frame = "odom"

    def add(self, stamp_ns: int, frame_id: str, position_m: np.ndarray) -> None:
        """A reading of the odometry, in its own frame."""
        if self._readings and stamp_ns <= self._readings[-1][0]:
            self._readings.clear()  # time was set back
        self._frame = frame_id or self._frame
        self._readings.append((stamp_ns, position_m))

    @property
    def fault(self) -> str:
        """Why there is no transform at all, or ""."""
        if self._frame.lstrip("/") != self._map_frame.lstrip("/"):
            return ""
        return (f"none: the odometry is in '{self._frame}', which cannot be the map's frame, too; set map_frame to "
                "another name, of reid as well")

    def transform(self, fix: PositionFix) -> TransformStamped | None:
        """At the fix's stamp; None where there is no odometry at that time, or it has the map's frame."""
        position = self._position_at(fix.stamp_ns)
        if position is None or self.fault:
            return None
        origin = np.array((fix.x, fix.y, fix.height_m)) - self._turn @ position
        x, y, z, w = map(float, quaternion_of(self._turn))
        return TransformStamped(
            header=Header(stamp=ns_to_stamp(fix.stamp_ns), frame_id=self._map_frame), child_frame_id=self._frame,
            transform=Transform(translation=Vector3(**dict(zip("xyz", map(float, origin)))),
                                rotation=Quaternion(x=x, y=y, z=z, w=w)))

    def _position_at(self, stamp_ns: int) -> np.ndarray | None:
        stamps = [stamp for stamp, _ in self._readings]
        after = bisect_left(stamps, stamp_ns)
        near = [self._readings[k] for k in (after - 1, after) if 0 <= k < len(stamps)]
        if not near or min(abs(stamp - stamp_ns) for stamp, _ in near) > MAX_GAP_NS:
            return None
        (first_ns, first), (last_ns, last) = near[0], near[-1]
        share = (stamp_ns - first_ns) / (last_ns - first_ns) if last_ns > first_ns else 0.0
        return first + np.clip(share, 0.0, 1.0) * (last - first)
