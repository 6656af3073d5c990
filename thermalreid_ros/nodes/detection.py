"""Node `detection`: thermal frames in, detections out."""

from __future__ import annotations

import sys

from sensor_msgs.msg import Image

from thermalreid_ros.camera.thermal import Polarity, ThermalUnits
from thermalreid_ros.detection.detector import Detector
from thermalreid_ros.detection.overlay import draw_detections
from thermalreid_ros.engine import load_engine
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.ros import convert, qos
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema


class DetectionNode(ThermalNode):
    """`thermal/image_raw` to `detections`; `detections/image`, a picture, only while somebody watches it."""

    NAME = "detection"
    PARAMETERS = Schema(
        Parameter("model", "yolo_compact", "name of a shipped model, or path of an .onnx file with its card beside it",
                  read_only=True),
        Parameter("providers", ("tensorrt", "cuda", "cpu"), "what to run the model on, best first", read_only=True,
                  choices=("tensorrt", "cuda", "cpu")),
        Parameter("threads", 0, "of the CPU provider; 0: all cores", minimum=0, maximum=256, read_only=True),
        Parameter("thermal_units", "agc8", "what a pixel of the camera means", read_only=True,
                  choices=tuple(unit.value for unit in ThermalUnits)),
        Parameter("polarity", "white_hot", "how the camera shows heat, for agc8 and counts", read_only=True,
                  choices=tuple(polarity.value for polarity in Polarity)),
        Parameter("score_threshold", 0.3, "detections below it are not published", minimum=0.01, maximum=1.0),
        Parameter("iou_threshold", 0.6, "of two boxes of one class that overlap by more, the better stays",
                  minimum=0.1, maximum=1.0),
        Parameter("max_detections", 100, "published per frame, best first", minimum=1, maximum=300),
    )

    def configure(self) -> None:
        values = self.values
        self._engine = load_engine(values.model, providers=values.providers, threads=values.threads,
                                   log=self.get_logger().info)
        self._detector = Detector(self._engine)
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

    def activate(self) -> None:
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self._detect)

    def release(self) -> None:
        if (engine := self.__dict__.pop("_engine", None)) is not None:
            engine.close()

    def _detect(self, message: Image) -> None:
        frame = convert.message_to_frame(message, ThermalUnits(self.values.thermal_units),
                                         polarity=Polarity(self.values.polarity))
        result = self._detector.detect(frame.gray8())
        self.diagnostics.sample("inference_ms", result.inference_ms)
        shape = (frame.height, frame.width)
        self._results.publish(convert.detections_to_message(result, message.header, shape, self._engine.card.name))
        if self._overlay.get_subscription_count():
            picture = draw_detections(frame.gray8(), result.detections)
            self._overlay.publish(convert.array_to_image(picture, "bgr8", message.header))


def main() -> int:
    return run(DetectionNode)


if __name__ == "__main__":
    sys.exit(main())
