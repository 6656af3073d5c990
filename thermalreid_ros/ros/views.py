"""From where the frames of a camera were taken, as `localization/view` and `thermal/camera_info` tell a node."""

from __future__ import annotations

from collections import deque

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo

from thermalreid_ros.camera.geometry import GroundView, Intrinsics
from thermalreid_ros.ros import places, qos
from thermalreid_ros.ros.convert import stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode


class LatestViews:
    """The last views, of which frames about their times are given the nearest: cameras climb and turn slowly. All but
    `listen`, which is for activate, is for the worker thread."""

    INPUTS = ("camera_infos", "views")
    KEPT = 16

    def __init__(self, node: ThermalNode):
        self._node = node
        self._forget()

    def listen(self) -> None:
        self._forget()
        often = {"silent_limit_s": None, "polled": True}
        self._node.receive("camera_infos", CameraInfo, "thermal/camera_info", qos.CAMERA_IN, self._receive_camera_info,
                           **often)
        self._node.receive("views", PoseStamped, "localization/view", qos.SENSOR_IN, self._receive_view,
                           depth=self.KEPT, **often)

    def of(self, stamp_ns: int, size_px: tuple[int, int], max_age_s: float) -> GroundView | None:
        """The view of a frame of this (width, height); None where none of about its time has come."""
        self._node.catch_up(*self.INPUTS)
        camera = self._intrinsics
        if camera is None or (camera.width, camera.height) != size_px or not self._views:
            return None
        viewed_ns, rotation, height_m = min(self._views, key=lambda item: abs(item[0] - stamp_ns))
        near = abs(stamp_ns - viewed_ns) <= 1e9 * max_age_s
        return GroundView(camera, rotation, height_m) if near else None

    def _forget(self) -> None:
        self._intrinsics: Intrinsics | None = None
        self._views: deque = deque(maxlen=self.KEPT)  # (stamp_ns, rotation, height_m)

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._intrinsics = places.message_to_intrinsics(message)
        self._node.diagnostics.warning("lens", places.lens_fault(message))

    def _receive_view(self, message: PoseStamped) -> None:
        self._views.append((stamp_to_ns(message.header.stamp), *places.message_to_view(message)))
