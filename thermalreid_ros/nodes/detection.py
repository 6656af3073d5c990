"""Node `detection`: thermal frames and, where asked for, labellings of the ground in, detections out."""

from __future__ import annotations

import sys
import time

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from thermalreid_ros.camera.thermal import ThermalFrame
from thermalreid_ros.detection.awaiting import AwaitedLabels
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.overlay import draw_detections
from thermalreid_ros.engine import EngineError, load_engine
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.ros import convert, qos
from thermalreid_ros.ros.lifecycle import HELD, ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.shared_parameters import CAMERA_PARAMETERS, model_options, provider_parameters
from thermalreid_ros.ros.views import LatestViews
from thermalreid_ros.ros.vision import VisionOutput

LABEL_TOPICS = {"predicted": "semantics/mask", "map": "semantics/map"}


class DetectionNode(ThermalNode):
    """`thermal/image_raw` to `detections`; `detections/image`, a picture, only while somebody watches it.
    `localization/view` tells how large things look.

    With `semantics` each frame waits for the labelling of its stamp, as docs/detection.md says.
    """

    NAME = "detection"
    PARAMETERS = Schema(
        Parameter("model", "yolo_compact", "name of a shipped model, or path of an .onnx file with its card beside it",
                  read_only=True),
        *provider_parameters("the model"),
        *CAMERA_PARAMETERS,
        Parameter("score_threshold", 0.3, "detections below it are not published", minimum=0.01, maximum=1.0),
        Parameter("iou_threshold", 0.6, "of two boxes of one class that overlap by more, the better stays",
                  minimum=0.1, maximum=1.0),
        Parameter("max_detections", 100, "published per frame, best first", minimum=1, maximum=300),
        Parameter("semantics", "none", "what tells of the ground: predicted, semantics/mask of geo_localization; map, "
                  "its semantics/map, which there is only with a fix", choices=("none", *LABEL_TOPICS), read_only=True),
        Parameter("perspective", True, "scores are weighed by how large things look from where the camera is, while "
                  "localization/view tells and the model's card knows"),
        Parameter("view_max_age_s", 1.0, "a localization/view from so long before or after a frame still holds for it",
                  unit="s", minimum=0.0, maximum=60.0),
        Parameter("semantics_wait_s", 0.3, "a frame whose labelling has not come by then is detected without",
                  unit="s", minimum=0.0, maximum=2.0),
    )

    def configure(self) -> None:
        values = self.values
        self._engine = load_engine(values.model, **model_options(self))
        self._detector, self._sizes = Detector(self._engine), convert.SizeGate()
        self._views = LatestViews(self)
        if values.semantics != "none" and not self._detector.takes_semantics:
            raise EngineError(f"model '{self._engine.card.name}' takes no labelling; set semantics to none")
        self._counts = {"frames_with_semantics": 0, "frames_without_semantics": 0}
        self._start_waiting()
        self._vision = VisionOutput(self)
        self.parameters_changed()
        self.diagnostics.note("model", self._engine.card.name)
        self.diagnostics.note("provider", self._engine.provider)
        self._results = self.publisher(DetectionArray, "detections", qos.RESULTS)
        self._overlay = self.publisher(Image, "detections/image", qos.OVERLAY)

    def parameters_changed(self) -> None:
        values = self.values
        self._detector.score_threshold = values.score_threshold
        self._detector.iou_threshold = values.iou_threshold
        self._detector.max_detections = values.max_detections
        self._awaited.wait_s = values.semantics_wait_s
        self._vision.announce(values.score_threshold)

    def activate(self) -> None:
        self._vision.announce(self.values.score_threshold)
        if self._detector.perspective is not None:
            self._views.listen()
        if (topic := LABEL_TOPICS.get(self.values.semantics)) is None:
            self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self._receive_frame)
            return
        self._start_waiting()
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_PAIRED, self._hold_frame, depth=8)
        self.receive("masks", Image, topic, qos.CAMERA_PAIRED, self._receive_mask, depth=8)

    def release(self) -> None:
        if (engine := self.__dict__.pop("_engine", None)) is not None:
            engine.close()

    def _start_waiting(self) -> None:
        self._awaited: AwaitedLabels[tuple[ThermalFrame, Header], np.ndarray] = \
            AwaitedLabels(self.values.semantics_wait_s)
        self._told = 0, 0  # of its strays and superseded, what the diagnostics know of

    def _frame(self, message: Image) -> ThermalFrame:
        return self._sizes.check(convert.message_to_frame(message, self.values.thermal_units,
                                                          polarity=self.values.polarity))

    def _receive_frame(self, message: Image) -> None:
        self._detect(self._frame(message), message.header, None)

    def _hold_frame(self, message: Image) -> object:
        frame = self._frame(message)
        self._awaited.add_frame(frame.stamp_ns, (frame, message.header), time.monotonic())
        self.later("frames", 0.0, self._detect_next)
        return HELD

    def _receive_mask(self, message: Image) -> None:
        labels = convert.message_to_labels(message)
        self.later("frames", 0.0, self._detect_next)
        self._awaited.add_labels(convert.stamp_to_ns(message.header.stamp), labels, time.monotonic())

    def _detect_next(self) -> None:
        """Detect in the newest frame that is ready, then see to the others once no message waits."""
        awaited, (strays, superseded) = self._awaited, self._told
        job = awaited.next(time.monotonic())
        self._told = awaited.strays, awaited.superseded
        for _ in range(awaited.strays - strays):
            self.diagnostics.refused("masks", "came without the frame of its stamp; let both come from one "
                                     "camera topic")
        for _ in range(awaited.superseded - superseded):
            self.diagnostics.superseded("frames")
        if awaited.due_s is not None:
            self.later("frames", awaited.due_s, self._detect_next)
        if job is None:
            return
        (frame, header), labels = job.frame, job.labels
        if labels is not None and labels.shape != (frame.height, frame.width):
            self.diagnostics.refused("masks", f"{labels.shape[1]}x{labels.shape[0]} came for a frame of {frame.width}x"
                                     f"{frame.height}; let both come from one camera topic")
            labels = None
        self._counts["frames_without_semantics" if labels is None else "frames_with_semantics"] += 1
        for key, count in self._counts.items():
            self.diagnostics.note(key, count)
        self.diagnostics.sample("semantics_wait_ms", 1e3 * job.waited_s)
        self._detect(frame, header, labels)
        self.finish("frames", frame.stamp_ns)

    def _detect(self, frame: ThermalFrame, header: Header, labels: np.ndarray | None) -> None:
        shape, values, view = (frame.height, frame.width), self.values, None
        if use_view := values.perspective and self._detector.perspective is not None:
            view = self._views.of(frame.stamp_ns, shape[::-1], values.view_max_age_s)
        result = self._detector.detect(frame.gray8(), labels, values.semantics, view)
        self.diagnostics.sample("inference_ms", result.inference_ms)
        self.diagnostics.note("perspective", "used" if result.perspective else "no view" if use_view else "off")
        self._results.publish(convert.detections_to_message(result, header, shape, self._engine.card.name))
        self._vision.publish(result.detections, header)
        if self._overlay.get_subscription_count():
            picture = draw_detections(frame.gray8(), result.detections)
            self._overlay.publish(convert.array_to_image(picture, "bgr8", header))


def main() -> int:
    return run(DetectionNode)


if __name__ == "__main__":
    sys.exit(main())
