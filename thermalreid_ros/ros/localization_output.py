"""What node `geo_localization` publishes of each frame, and the gate that a fix must pass."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from sensor_msgs.msg import Image, NavSatFix
from std_msgs.msg import Header, String

from thermalreid_ros.camera.geometry import GroundView, Intrinsics
from thermalreid_ros.localization.alignment import align
from thermalreid_ros.localization.overlay import draw_result
from thermalreid_ros.localization.types import LocalizationError, LocalizationResult, PositionFix, SemanticMask, Verdict
from thermalreid_ros.maps.classes import CLASS_NAMES
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.msg import LocalizationStatus
from thermalreid_ros.ros import places, qos
from thermalreid_ros.ros.convert import array_to_image, stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode
from thermalreid_ros.ros.transforms import MapToOdom, broadcaster

UNKNOWN_HEIGHT_M = -1000.0  # of the ground above the ellipsoid
WRONG_LIMIT_S = 10.0  # a map or a prior that does not fit for longer is a warning


class LocalizationOutput:
    """For configure: makes the publishers; close() is for release. All else is for the worker thread.

    The node has parameters min_sigma_m, ground_height_m, publish_tf and map_frame. odom_yaw_rad: heading of the
    odometry's frame in the grid of the map.
    """

    def __init__(self, node: ThermalNode, semantic_map: SemanticMap, model: str, odom_yaw_rad: float):
        self._node, self._map, self._model = node, semantic_map, model
        self.gate = places.FixGate(node.values.min_sigma_m)
        self.map_to_odom = MapToOdom(node.values.map_frame, odom_yaw_rad)
        self.height_sigma_m = math.nan
        self._wrong_since_s: float | None = None
        self.rough_place: tuple[float, float] = tuple(0.5 * np.add(semantic_map.bounds[:2], semantic_map.bounds[2:]))
        self._convergence_rad = semantic_map.grid.convergence_rad(*self.rough_place)
        self._broadcaster = broadcaster(node) if node.values.publish_tf else None
        node.diagnostics.note("tf", "map -> odom" if self._broadcaster is not None else "none")
        self._labels = node.publisher(String, "semantics/labels", qos.LATCHED)
        self._grid = node.publisher(String, "localization/map", qos.LATCHED)
        self._mask = node.publisher(Image, "semantics/mask", qos.CAMERA_OUT)
        self._seen_map = node.publisher(Image, "semantics/map", qos.CAMERA_OUT)
        self._fix = node.publisher(NavSatFix, "localization/fix", qos.RESULTS)
        self._pose = node.publisher(PoseWithCovarianceStamped, "localization/pose", qos.RESULTS)
        self._view = node.publisher(PoseStamped, "localization/view", qos.RESULTS)
        self._status = node.publisher(LocalizationStatus, "localization/status", qos.RESULTS)
        self._picture = node.publisher(Image, "localization/image", qos.OVERLAY)

    def close(self) -> None:
        """Free what the node does not: tf2's broadcaster leaves its publisher to the node, for as long as it lives."""
        if self._broadcaster is not None:
            self._node.destroy_publisher(self._broadcaster.pub_tf)

    def tables(self) -> None:
        """Say what the values in semantics/mask and semantics/map mean, and on whose grid poses are; once, for both are
        latched."""
        self._labels.publish(String(data=json.dumps(dict(enumerate(CLASS_NAMES)))))
        self._grid.publish(String(data=places.grid_to_text(self._map.grid, self._map.path.name)))

    def mask(self, mask: SemanticMask, header: Header) -> None:
        self._mask.publish(places.mask_to_image(mask, header))

    def view(self, view: GroundView | None, header: Header) -> None:
        """Say how high and along which line of sight the camera looks, where that is known: it needs no fix."""
        if view is not None:
            self._view.publish(places.view_to_pose(view, header, self._node.values.map_frame))

    def result(self, result: LocalizationResult, mask: SemanticMask, intrinsics: Intrinsics | None,
               header: Header) -> None:
        """Publish the status, and a fix with all that goes with it where there is one that passes the gate.

        intrinsics: None where they are not known, and so no fix is.
        """
        diagnostics, values = self._node.diagnostics, self._node.values
        if result.fix is not None:
            try:
                age_s = self._node.age_ms(result.fix.stamp_ns) / 1e3
                result = replace(result, fix=self.gate.check(result.fix, age_s, values.max_age_s))
            except LocalizationError as error:
                result = replace(result, fix=None, verdict=Verdict.REFUSED, reason=str(error))
        self.status(result, header, mask.inference_ms)
        if result.fix is not None:
            self._publish(result.fix, header)
            diagnostics.processed("fixes")
            if self._seen_map.get_subscription_count():
                self._publish_map(result.fix, mask, intrinsics, header)
        elif result.verdict in (Verdict.NO_INPUT, Verdict.REFUSED):
            diagnostics.refused("fixes", result.reason)
        if self._picture.get_subscription_count():
            self._picture.publish(array_to_image(self._drawn(result), "bgr8", header))

    def refused(self, header: Header, reason: str) -> None:
        """Publish the status of a frame that was dropped before it was looked at."""
        self.status(LocalizationResult(stamp_to_ns(header.stamp), Verdict.REFUSED, reason), header)

    def status(self, result: LocalizationResult, header: Header, inference_ms: float = 0.0) -> None:
        self._node.diagnostics.note("verdict", result.verdict.value)
        self._node.diagnostics.note("reason", result.reason)
        self._warn_of(result)
        self._status.publish(places.result_to_message(result, header, self._map.grid, inference_ms=inference_ms,
                                                      model=self._model, map_name=self._map.path.name))

    def silent(self) -> None:
        """No frame is looked at any more."""
        self._wrong_since_s = None
        for key in ("verdict", "reason"):
            self._node.diagnostics.note(key, "none: not active")

    def _warn_of(self, result: LocalizationResult) -> None:
        """A map that does not fit, or a prior that the ground contradicts, is the user's to mend where it lasts."""
        now_s = time.monotonic()
        if result.verdict not in (Verdict.OFF_MAP, Verdict.INCONSISTENT):
            self._wrong_since_s = None
        elif self._wrong_since_s is None:
            self._wrong_since_s = now_s
        lasts_s = 0.0 if self._wrong_since_s is None else now_s - self._wrong_since_s
        self._node.diagnostics.warning("verdict", f"{result.verdict.value} for {lasts_s:.0f} s: {result.reason}"
                                       if lasts_s > WRONG_LIMIT_S else "")

    def _publish(self, fix: PositionFix, header: Header) -> None:
        ground_m = self._node.values.ground_height_m
        altitude_m = math.nan if ground_m == UNKNOWN_HEIGHT_M else ground_m + fix.height_m
        self._fix.publish(places.fix_to_message(fix, header, altitude_m, self.height_sigma_m))
        self._pose.publish(places.fix_to_pose(fix, header, self._node.values.map_frame, self._convergence_rad,
                                              self.height_sigma_m))
        if self._broadcaster is None:
            return
        if (transform := self.map_to_odom.transform(fix)) is not None:
            self._broadcaster.sendTransform(transform)
        if fault := self.map_to_odom.fault:
            self._node.get_logger().warning(f"tf: {fault}", once=True)
        self._node.diagnostics.note("tf", fault or "map -> odom")

    def _publish_map(self, fix: PositionFix, mask: SemanticMask, intrinsics: Intrinsics, header: Header) -> None:
        """The map as the camera sees it, drawn onto the labelling (the paper's S_G)."""
        aligned = align(self._map, mask, intrinsics, fix.rotation, fix.height_m, fix.x, fix.y)
        self._node.diagnostics.sample("map_agreement", aligned.agreement)
        self._seen_map.publish(places.mask_to_image(aligned.told(mask), header))

    def _drawn(self, result: LocalizationResult) -> np.ndarray:
        best = result.fix or next(iter(result.candidates), None)
        return draw_result(self._map, result, self.rough_place if best is None else (best.x, best.y))
