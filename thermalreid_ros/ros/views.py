"""From where the frames of a camera were taken, as `localization/view` and `thermal/camera_info` tell a node."""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo

from thermalreid_ros.camera.geometry import GroundView, Intrinsics
from thermalreid_ros.localization.types import LocalizationError
from thermalreid_ros.ros import places, qos
from thermalreid_ros.ros.convert import stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode


class LatestView:
    """The newest view, for the frames about its time: cameras climb and turn slowly. All but `listen`, which is for
    activate, is for the worker thread."""

    INPUTS = ("camera_infos", "views")

    def __init__(self, node: ThermalNode):
        self._node = node
        self._intrinsics: Intrinsics | None = None
        self._view: tuple[int, GroundView] | None = None

    def listen(self) -> None:
        self._node.receive("camera_infos", CameraInfo, "thermal/camera_info", qos.CAMERA_IN, self._receive_camera_info,
                           silent_limit_s=None, polled=True, spacing_s=1.0)
        self._node.receive("views", PoseStamped, "localization/view", qos.SENSOR_IN, self._receive_view,
                           silent_limit_s=None, polled=True)

    def of(self, stamp_ns: int, size_px: tuple[int, int], max_age_s: float) -> GroundView | None:
        """The view of a frame of this (width, height); None where none of about its time has come."""
        self._node.catch_up(*self.INPUTS)
        if self._view is None:
            return None
        viewed_ns, view = self._view
        fits = (view.intrinsics.width, view.intrinsics.height) == size_px
        return view if fits and abs(stamp_ns - viewed_ns) <= 1e9 * max_age_s else None

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._intrinsics = places.message_to_intrinsics(message)

    def _receive_view(self, message: PoseStamped) -> None:
        if self._intrinsics is None:
            raise LocalizationError("there is a localization/view but no thermal/camera_info yet")
        self._view = stamp_to_ns(message.header.stamp), places.message_to_view(message, self._intrinsics)
