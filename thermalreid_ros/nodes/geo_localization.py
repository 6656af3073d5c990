"""Node `geo_localization`: thermal frames, a rough prior and dead reckoning in, positions with covariances out."""

from __future__ import annotations

import math
import sys
import time
from collections import deque

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, Imu, NavSatFix, Range
from std_msgs.msg import Header

from thermalreid_ros.camera.geometry import rotation_of_rpy
from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.engine import load_engine
from thermalreid_ros.localization.localizer import Localizer, LocalizerConfig
from thermalreid_ros.localization.segmenter import Segmenter
from thermalreid_ros.localization.types import LocalizationError, LocalizationResult, SemanticMask, Verdict
from thermalreid_ros.maps.store import MapError, SemanticMap
from thermalreid_ros.ros import convert, places, qos
from thermalreid_ros.ros.last_place import LastPlace
from thermalreid_ros.ros.lifecycle import HELD, ThermalNode, describe, kind_of, run
from thermalreid_ros.ros.localization_output import UNKNOWN_HEIGHT_M, LocalizationOutput
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.shared_parameters import CAMERA_PARAMETERS, model_options, provider_parameters

RETRY_S = 0.01  # until what has come for a frame that waits is looked at again
_TURN = {"unit": "deg", "minimum": -360.0, "maximum": 360.0, "read_only": True}


class GeoLocalizationNode(ThermalNode):
    """docs/autopilots.md says what comes in, what goes out, and in which frames."""

    NAME = "geo_localization"
    PARAMETERS = Schema(
        Parameter("map", "", "the semantic map, a GeoTIFF made by `thermalreid map build`", read_only=True),
        Parameter("model", "segmenter_compact", "segmenter: name of a shipped model, or path of an .onnx file with its "
                  "card beside it", read_only=True),
        *provider_parameters("the model"),
        *CAMERA_PARAMETERS,
        Parameter("prior_sigma_m", 300.0, "error on each axis of a prior/fix that does not say how rough it is",
                  unit="m", minimum=1.0, maximum=10000.0),
        Parameter("camera_roll_deg", 0.0, "how the camera (x along the line of sight, y left, z up) is turned in the "
                  "axes of imu/data, as in URDF", **_TURN),
        Parameter("camera_pitch_deg", 0.0, "likewise; 90: straight down from an IMU that lies level", **_TURN),
        Parameter("camera_yaw_deg", 0.0, "likewise", **_TURN),
        Parameter("odom_yaw_deg", 0.0, "heading of the x axis of odom, counter-clockwise from true east", **_TURN),
        Parameter("sensor_wait_s", 0.3, "a frame waits for so long at most until imu/data and odom of its time have "
                  "come; 0: it never waits", unit="s", minimum=0.0, maximum=1.0),
        Parameter("min_sigma_m", 1.5, "no fix is said to be better than this, along any axis", unit="m", minimum=0.1,
                  maximum=100.0),
        Parameter("ground_height_m", UNKNOWN_HEIGHT_M, "of the ground above the WGS84 ellipsoid, for the altitude of "
                  "localization/fix; -1000: not known, the altitude is NaN", unit="m", minimum=UNKNOWN_HEIGHT_M,
                  maximum=9000.0),
        Parameter("map_frame", "map", "frame of localization/pose: the grid of the map", read_only=True),
        Parameter("resume_s", 30.0, "a place that was known when the node ended is taken up again for so long, and "
                  "checked; 0: it is searched for anew", unit="s", minimum=0.0, maximum=600.0, read_only=True),
        Parameter("publish_tf", True, "broadcast map -> odom, where tf2_ros is installed", read_only=True),
    )

    def configure(self) -> None:
        values = self.values
        if not values.map:
            raise MapError("no map given; set it with -p map:=/path/to/map.tif (thermalreid map build makes one)")
        self._map, self._intrinsics = SemanticMap.open(values.map), None
        self._engine = load_engine(values.model, **model_options(self))
        self._segmenter = Segmenter(self._engine)
        confusion = self._segmenter.confusion(ThermalUnits(values.thermal_units).radiometric)
        self._localizer = Localizer(self._map, LocalizerConfig(resume_s=values.resume_s), confusion)
        grid = self._map.grid
        self._last_place = LastPlace(self.get_fully_qualified_name(),
                                     f"{grid.crs} {grid.easting_m} {grid.northing_m} {self._map.bounds}",
                                     values.resume_s, self.get_logger().warning)
        self._localizer.resume(self._last_place.load())
        west, south, east, north = self._map.bounds
        # One angle for the whole map: over 50 km it errs by a fifth of a compass's error, and odometry stays whole.
        convergence_rad = self._map.grid.convergence_rad(0.5 * (west + east), 0.5 * (south + north))
        odom_yaw_rad = convergence_rad + math.radians(values.odom_yaw_deg)
        self._odom_turn = rotation_of_rpy(0.0, 0.0, odom_yaw_rad)
        camera_rpy_rad = map(math.radians, (values.camera_roll_deg, values.camera_pitch_deg, values.camera_yaw_deg))
        self._mount = places.CameraMount(tuple(camera_rpy_rad), convergence_rad)
        self._out = LocalizationOutput(self, self._map, self._engine.card.name, odom_yaw_rad)
        self.diagnostics.note("model", self._engine.card.name)
        self.diagnostics.note("provider", self._engine.provider)
        self.diagnostics.note("map", self._map.path.name)

    def parameters_changed(self) -> None:
        self._out.gate.min_sigma_m = self.values.min_sigma_m

    def activate(self) -> None:
        # Labellings that wait for readings from after the capture, for the localizer looks between two; and until when.
        self._held: deque[tuple[SemanticMask, Header, float]] = deque()
        self._out.tables()
        self._out.gate.reset()  # time may have been set back meanwhile
        self.receive("camera_infos", CameraInfo, "thermal/camera_info", qos.CAMERA_IN, self._receive_camera_info)
        fast = {"polled": True, "spacing_s": 0.02}  # the localizer interpolates, and an IMU may say hundreds a second
        self.receive("attitudes", Imu, "imu/data", qos.SENSOR_IN, self._receive_attitude, depth=400, **fast)
        self.receive("odometry", Odometry, "odom", qos.SENSOR_IN, self._receive_odometry, depth=100, **fast)
        self.receive("heights", Range, "altitude", qos.SENSOR_IN, self._receive_height, depth=100, **fast)
        self.receive("priors", NavSatFix, "prior/fix", qos.SENSOR_IN, self._receive_prior, silent_limit_s=None,
                     ordered=False)
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self._receive_frame,
                     refused=lambda message, reason: self._out.refused(message.header, reason))

    def time_set_back(self) -> None:
        self._out.gate.reset()  # the localizer sees for itself

    def deactivate(self) -> None:
        self._out.silent()

    def release(self) -> None:
        for name in ("_out", "_engine", "_map"):
            if (held := self.__dict__.pop(name, None)) is not None:
                held.close()

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._intrinsics = places.message_to_intrinsics(message)
        fault = places.lens_fault(message)
        self.diagnostics.note("lens", fault or "pinhole")
        self.diagnostics.warning("lens", fault)

    def _receive_attitude(self, message: Imu) -> None:
        rotation = self._mount.rotation(places.message_to_attitude(message))
        self._localizer.add_attitude(convert.stamp_to_ns(message.header.stamp), rotation)

    def _receive_odometry(self, message: Odometry) -> None:
        stamp_ns, position_m = convert.stamp_to_ns(message.header.stamp), places.message_to_position(message)
        self._localizer.add_odometry(stamp_ns, self._odom_turn @ position_m)
        self._out.map_to_odom.add(stamp_ns, message.header.frame_id, position_m)

    def _receive_height(self, message: Range) -> None:
        height_m, self._out.height_sigma_m = places.message_to_height(message)
        self._localizer.add_altitude(convert.stamp_to_ns(message.header.stamp), height_m)
        self.diagnostics.warning("altitude", self._localizer.altitude_fault)

    def _receive_prior(self, message: NavSatFix) -> None:
        latitude, longitude, sigma_m = places.message_to_prior(message)
        x, y = map(float, self._map.grid.from_geographic(latitude, longitude))
        stamp_ns = convert.stamp_to_ns(message.header.stamp) or self.get_clock().now().nanoseconds  # 0: given by hand
        if (fault := self.ahead(stamp_ns)) is not None:
            raise LocalizationError(f"a prior that is of the future says nothing of now: {fault}")
        self._localizer.set_prior(stamp_ns, x, y, sigma_m or self.values.prior_sigma_m)
        self._out.rough_place = (x, y)

    def _receive_frame(self, message: Image) -> object:
        frame = convert.message_to_frame(message, self.values.thermal_units, polarity=self.values.polarity)
        mask = self._segmenter.segment(frame)
        self.diagnostics.sample("inference_ms", mask.inference_ms)
        self._out.mask(mask, message.header)
        self._held.append((mask, message.header, time.monotonic() + self.values.sensor_wait_s))
        self._localize_held()
        return HELD

    def _localize_held(self) -> None:
        """Localize by the frames whose readings have come, or are waited for no longer; see to the others soon."""
        self.catch_up("camera_infos", "attitudes", "odometry", "heights", "priors")
        while self._held:
            mask, header, until_s = self._held[0]
            if self._intrinsics is not None and (now_s := time.monotonic()) < until_s and \
                    self._localizer.awaits(mask.stamp_ns, self.values.sensor_wait_s):
                return self.later("frames", now_s + RETRY_S, self._localize_held)
            self._held.popleft()
            try:
                self._localize(mask, header)
                self.finish("frames", mask.stamp_ns)
            except Exception as error:  # of this frame, which need not be the one that came last
                self._out.refused(header, describe(error))
                self.diagnostics.refused("frames", describe(error), kind_of(error))

    def _localize(self, mask: SemanticMask, header: Header) -> None:
        if self._intrinsics is None:
            result = LocalizationResult(mask.stamp_ns, Verdict.NO_INPUT, "no thermal/camera_info yet")
        else:
            self._out.view(self._localizer.view(mask.stamp_ns, self._intrinsics), header)
            result = self._localizer.process(mask, self._intrinsics)
        self._out.result(result, mask, self._intrinsics, header)
        self._last_place.keep(self._localizer.handover())


def main() -> int:
    return run(GeoLocalizationNode)


if __name__ == "__main__":
    sys.exit(main())
