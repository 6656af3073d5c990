"""Node `reid`: frames, their detections and probes in, ranked matches out."""

from __future__ import annotations

import sys

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from thermalreid_ros.camera.thermal import FrameError, Polarity, ThermalFrame, ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.msg import DetectionArray, MatchArray, ThermalProbe
from thermalreid_ros.msg import Match as MatchMessage
from thermalreid_ros.reid.calibration import load_beta_h
from thermalreid_ros.reid.gallery import Gallery, Match
from thermalreid_ros.reid.overlay import draw_matches
from thermalreid_ros.reid.pairing import StampPairing
from thermalreid_ros.reid.probe import load_probe, make_probe
from thermalreid_ros.reid.reidentifier import MAX_PROBES, METHOD, Reidentifier
from thermalreid_ros.ros import convert, qos
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema

_UNITS = tuple(unit.value for unit in ThermalUnits)


class ReidNode(ThermalNode):
    """`thermal/image_raw`, `detections` and `probe/thermal` to `reid/matches`, one message a frame and probe;
    `reid/image`, a picture, only while somebody watches it."""

    NAME = "reid"
    PARAMETERS = Schema(
        Parameter("thermal_units", "agc8", "what a pixel of the camera means", read_only=True,
                  choices=_UNITS),
        Parameter("polarity", "white_hot", "how the camera shows heat, for agc8 and counts", read_only=True,
                  choices=tuple(polarity.value for polarity in Polarity)),
        Parameter("probe_file", "", "thermal crop of the object to be found, a PNG or TIFF; empty: none"),
        Parameter("probe_class", "", "class of the object in probe_file; empty: any",
                  choices=("", *CLASS_NAMES)),
        Parameter("probe_units", "", "what a pixel of probe_file means; empty: as thermal_units",
                  choices=("", *_UNITS)),
        Parameter("calibration", "", "file with beta_h, the weight of the histogram; empty: the shipped one",
                  read_only=True),
        Parameter("visible_only", True, "rank the tracks of the newest frame; false: all remembered ones"),
        Parameter("max_tracks", 256, "remembered at most; the one unseen for longest goes first", minimum=1,
                  maximum=4096),
        Parameter("max_track_age_s", 60.0, "a track unseen for longer is forgotten", unit="s", minimum=0.1),
    )

    def configure(self) -> None:
        values = self.values
        self._gallery = Gallery(load_beta_h(values.calibration))
        self._reid = Reidentifier(values.thermal_units, self._gallery)
        self._pairs: StampPairing[ThermalFrame, DetectionArray] = StampPairing()
        self._header: Header | None = None  # of the newest frame ranked
        self._file_probe = ("", "", "")
        self._matches = self.publisher(MatchArray, "reid/matches", qos.RESULTS)
        self._overlay = self.publisher(Image, "reid/image", qos.OVERLAY)
        self.diagnostics.note("beta_h", self._gallery.beta_h)
        self.parameters_changed()

    def parameters_changed(self) -> None:
        values = self.values
        self._gallery.max_tracks, self._gallery.max_age_s = values.max_tracks, values.max_track_age_s
        self._reid.visible_only = values.visible_only
        wanted = (values.probe_file, values.probe_units or values.thermal_units, values.probe_class)
        if wanted != self._file_probe:
            probe = load_probe(*wanted, probe_id="probe_file") if wanted[0] else None
            self._reid.remove_probe("probe_file")
            self._file_probe = wanted
            if probe is not None:
                self._add_probe(probe)

    def activate(self) -> None:
        self.receive("probes", ThermalProbe, "probe/thermal", qos.PROBES_IN, self._receive_probe,
                     depth=MAX_PROBES, silent_limit_s=None, ordered=False)
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_PAIRED, self._receive_frame, depth=8)
        self.receive("detections", DetectionArray, "detections", qos.RESULTS, self._receive_detections,
                     depth=8)

    def _receive_probe(self, message: ThermalProbe) -> None:
        crops = [convert.image_to_array(image) for image in message.images]
        self._add_probe(make_probe(crops, message.units, message.probe_id or "probe", message.class_name))

    def _add_probe(self, probe) -> None:
        self._reid.add_probe(probe)
        self.get_logger().info(f"searching for '{probe.probe_id}', {probe.class_name or 'any class'}, "
                               f"{len(probe.signatures)} image(s)")
        self.diagnostics.note("probes", ", ".join(self._reid.probe_ids))
        if self._header is not None:
            self._publish(probe.probe_id, self._header)

    def _receive_frame(self, message: Image) -> None:
        frame = convert.message_to_frame(message, ThermalUnits(self.values.thermal_units),
                                         polarity=Polarity(self.values.polarity))
        detections = self._pairs.add_frame(frame.stamp_ns, frame)
        if detections is not None:
            self._work(frame, detections)

    def _receive_detections(self, message: DetectionArray) -> None:
        misses = self._pairs.misses
        frame = self._pairs.add_detections(convert.stamp_to_ns(message.header.stamp), message)
        if frame is not None:
            self._work(frame, message)
        for _ in range(self._pairs.misses - misses):
            self.diagnostics.refused("detections", "detections came without the frame of their stamp; "
                                     "let both come from one camera topic")

    def _work(self, frame: ThermalFrame, message: DetectionArray) -> None:
        if (message.width, message.height) != (frame.width, frame.height):
            raise FrameError(f"detections of a {message.width}x{message.height} frame came with a frame of "
                             f"{frame.width}x{frame.height}; let both come from one camera topic")
        resets = self._reid.tracker.statistics.resets
        result = self._reid.process(frame, convert.message_to_detections(message))
        statistics = self._reid.tracker.statistics
        if statistics.resets > resets:
            self.get_logger().info(f"all tracks end: {statistics.last_reset}")
        for reason in result.ignored:
            self.diagnostics.refused("detections", reason)
        for key in ("tracks", "cuts", "resets"):
            self.diagnostics.note(f"tracker_{key}", getattr(statistics, key))
        self.diagnostics.note("gallery_tracks", len(self._gallery))
        self._header = message.header
        ranked = {probe_id: self._publish(probe_id, message.header) for probe_id in self._reid.probe_ids}
        if self._overlay.get_subscription_count():
            probe_id = next(reversed(ranked), "")  # the newest
            picture = draw_matches(frame.gray8(), result.tracked, ranked.get(probe_id, ()), probe_id)
            self._overlay.publish(convert.array_to_image(picture, "bgr8", message.header))

    def _publish(self, probe_id: str, header: Header) -> tuple[Match, ...]:
        matches = self._reid.rank(probe_id)
        self._matches.publish(MatchArray(header=header, probe_id=probe_id, method=METHOD,
                                         beta_h=self._gallery.beta_h,
                                         matches=[_to_message(match) for match in matches]))
        return matches


def _to_message(match: Match) -> MatchMessage:
    return MatchMessage(rank=match.rank, track_id=match.track_id, track_length=match.length,
                        detection=convert.detection_to_message(match.detection),
                        distance=match.distance.total, distance_histogram=match.distance.histogram,
                        distance_mser=match.distance.mser)


def main() -> int:
    return run(ReidNode)


if __name__ == "__main__":
    sys.exit(main())
