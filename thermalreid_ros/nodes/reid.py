"""Node `reid`: frames, their detections, probes and the camera's poses in; ranked matches and targets out."""

from __future__ import annotations

import sys

from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from thermalreid_ros.camera.thermal import FrameError, Polarity, ThermalFrame
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.msg import DetectionArray, ThermalProbe, Verdict
from thermalreid_ros.reid.length import told_length
from thermalreid_ros.reid.loading import load_reidentifier
from thermalreid_ros.reid.pairing import StampPairing
from thermalreid_ros.reid.probe import Probe, load_probe
from thermalreid_ros.reid.reidentifier import MAX_PROBES, VerdictError
from thermalreid_ros.reid.target import TargetError
from thermalreid_ros.ros import convert, places, qos
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.shared_parameters import CAMERA_PARAMETERS, LENGTH_PARAMETERS, model_options
from thermalreid_ros.ros.reid_output import METHOD_PARAMETERS, PLACE_PARAMETERS, ReidOutput, message_to_camera_pose, \
    message_to_probe

WORDS = {Verdict.UNSURE: None, Verdict.SAME: True, Verdict.OTHER: False}
HOLD_NS = 1_000_000_000  # that frames await their detections at least


class ReidNode(ThermalNode):
    """docs/reid.md says what comes in, what goes out, and what it means."""

    NAME = "reid"
    PARAMETERS = Schema(
        *CAMERA_PARAMETERS,
        Parameter("probe_file", "", "thermal crop of the object to be found, a PNG or TIFF; empty: none"),
        Parameter("probe_class", "", "class of the object in probe_file; empty: any", choices=("", *CLASS_NAMES)),
        Parameter("probe_units", "", "what a pixel of probe_file means; empty: as thermal_units",
                  choices=("", *CAMERA_PARAMETERS["thermal_units"].choices)),
        *LENGTH_PARAMETERS,
        Parameter("visible_only", True, "rank the tracks of the newest frame; false: all remembered ones"),
        Parameter("max_tracks", 256, "remembered at most; the one unseen for longest goes first", minimum=1,
                  maximum=4096),
        Parameter("max_track_age_s", 60.0, "a track unseen for longer is forgotten", unit="s", minimum=0.1),
    ) + METHOD_PARAMETERS + PLACE_PARAMETERS

    def configure(self) -> None:
        values, self._intrinsics, self._sizes = self.values, None, convert.SizeGate()
        self._reid, notes = load_reidentifier(
            values.thermal_units, method=values.method, embedding=values.embedding, calibration=values.calibration,
            fusion=values.fusion, **model_options(self))
        self._pairs: StampPairing[ThermalFrame, DetectionArray] = StampPairing(hold_ns=HOLD_NS)
        self._misses = 0  # of these, that the diagnostics know of
        self._header: Header | None = None  # of the newest frame ranked
        self._file_probe = ("",)  # what it was asked for by, the file first
        self._out = ReidOutput(self, self._reid)
        for key, value in notes.items():
            self.diagnostics.note(key, value)
        self.parameters_changed()

    def parameters_changed(self) -> None:
        values = self.values
        self._reid.gallery.max_tracks, self._reid.gallery.max_age_s = values.max_tracks, values.max_track_age_s
        self._reid.visible_only, self._reid.accept_probability = values.visible_only, values.accept_probability
        wanted = (values.probe_file, values.probe_units or values.thermal_units, values.probe_class,
                  values.probe_length_m, values.probe_length_error)
        if wanted != self._file_probe:
            # Another object, whatever comes of its file; else a person's word of it holds on.
            if wanted[0] != self._file_probe[0]:
                self._remove_file_probe()
            try:
                length = told_length(*wanted[3:], values.probe_class)
                own = values.probe_units in ("", values.thermal_units)  # a crop of this camera, as it shows heat
                if values.probe_file:
                    self._add_probe(load_probe(*wanted[:3], "probe_file", length=length, polarity=values.polarity if own
                                               else Polarity.WHITE_HOT))
            except ThermalReidError:
                self._remove_file_probe()  # nobody asks for what it was before
                raise
            self._file_probe = wanted

    def activate(self) -> None:
        self.receive("probes", ThermalProbe, "probe/thermal", qos.PROBES_IN,
                     lambda message: self._add_probe(message_to_probe(message)), depth=MAX_PROBES, silent_limit_s=None,
                     ordered=False)
        self.receive("camera_infos", CameraInfo, "thermal/camera_info", qos.CAMERA_IN, self._receive_camera_info,
                     silent_limit_s=None)
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_PAIRED, self._receive_frame, depth=8)
        self.receive("detections", DetectionArray, "detections", qos.RESULTS, self._receive_detections, depth=8)
        self.receive("poses", PoseWithCovarianceStamped, "localization/pose", qos.SENSOR_IN, self._receive_pose,
                     depth=8, silent_limit_s=None)
        self.receive("maps", String, "localization/map", qos.PROBES_IN, lambda message: self._out.grid(message.data),
                     silent_limit_s=None, ordered=False)
        self.receive("verdicts", Verdict, "reid/verdict", qos.RESULTS, self._receive_verdict, depth=8,
                     silent_limit_s=None, ordered=False)

    def release(self) -> None:
        if (reid := self.__dict__.pop("_reid", None)) is not None:
            reid.close()

    def time_set_back(self) -> None:
        self._out.forget()

    def _add_probe(self, probe: Probe) -> None:
        self._reid.add_probe(probe)
        self._tell_probes()
        length = "" if probe.length is None else f"{probe.length.metres:g} m long (within {probe.length.error:.1%}), "
        self.get_logger().info(f"searching for '{probe.probe_id}', {probe.class_name or 'any class'}, {length}"
                               f"{len(probe.signatures)} image(s), {len(probe.descriptors)} descriptor(s)")
        if self._header is not None:
            self._out.rank(probe.probe_id, self._header)

    def _remove_file_probe(self) -> None:
        self._reid.remove_probe("probe_file")
        self._tell_probes()
        self._file_probe = ("",)

    def _tell_probes(self) -> None:
        self._out.forget(self._reid.probe_ids)
        self.diagnostics.note("probes", ", ".join(self._reid.probe_ids))

    def _receive_verdict(self, message: Verdict) -> None:
        if message.verdict not in WORDS:
            raise VerdictError(f"verdict {message.verdict} is none of {', '.join(map(str, WORDS))} "
                               "(thermalreid_ros/msg/Verdict)")
        self._reid.judge(message.probe_id, message.track_id, WORDS[message.verdict])
        if self._header is not None:
            self._out.rank(message.probe_id, self._header)

    def _receive_camera_info(self, message: CameraInfo) -> None:
        self._intrinsics = places.message_to_intrinsics(message)
        self.diagnostics.warning("lens", places.lens_fault(message))

    def _receive_pose(self, message: PoseWithCovarianceStamped) -> None:
        pose = message_to_camera_pose(message, self.values.map_frame)
        if self._intrinsics is None:
            raise TargetError("there is a localization/pose but no thermal/camera_info yet")
        told = self._intrinsics.width, self._intrinsics.height
        if (size := self._sizes.size) not in (None, told):
            raise TargetError(f"thermal/camera_info is of a {told[0]}x{told[1]} frame, thermal/image_raw gives "
                              f"{size[0]}x{size[1]}; let both come from one camera")
        self._reid.add_pose(self._intrinsics, pose)
        self._out.pose(pose)

    def _receive_frame(self, message: Image) -> None:
        frame = self._sizes.check(convert.message_to_frame(message, self.values.thermal_units,
                                                           polarity=self.values.polarity))
        self._work(frame, self._pairs.add_frame(frame.stamp_ns, frame))

    def _receive_detections(self, message: DetectionArray) -> None:
        self._work(self._pairs.add_detections(convert.stamp_to_ns(message.header.stamp), message), message)

    def _work(self, frame: ThermalFrame | None, message: DetectionArray | None) -> None:
        """What came, with what belongs to it where that was here already."""
        for _ in range(self._pairs.misses - self._misses):
            self.diagnostics.refused("detections", "detections came without the frame of their stamp, or too late for "
                                     "it; let both come from one camera topic, or fewer frames a second")
        self._misses = self._pairs.misses
        if frame is None or message is None:
            return
        if (message.width, message.height) != (frame.width, frame.height):
            raise FrameError(f"detections of a {message.width}x{message.height} frame came with a frame of "
                             f"{frame.width}x{frame.height}; let both come from one camera topic")
        resets = self._reid.tracker.statistics.resets
        result = self._reid.process(frame, convert.message_to_detections(message), learn=False)
        statistics = self._reid.tracker.statistics
        if statistics.resets > resets:
            self.get_logger().info(f"all tracks end: {statistics.last_reset}")
        for reason in result.ignored:
            self.diagnostics.refused("detections", reason)
        for key in ("tracks", "cuts", "resets"):
            self.diagnostics.note(f"tracker_{key}", getattr(statistics, key))
        self.diagnostics.note("gallery_tracks", len(self._reid.gallery))
        self._header = message.header
        self._out.rank_all(message.header)
        self._out.picture(frame.gray8(), result.tracked, message.header)
        self._reid.learn()
        self._out.place(frame.stamp_ns)


def main() -> int:
    return run(ReidNode)


if __name__ == "__main__":
    sys.exit(main())
