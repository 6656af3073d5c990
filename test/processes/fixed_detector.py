"""A detection node whose network takes 20 ms and sees two objects: the rest of the latency is overhead."""

import sys
import time

from sensor_msgs.msg import Image

from thermalreid_ros.camera import ThermalUnits
from thermalreid_ros.detection.types import Detection, DetectionResult
from thermalreid_ros.msg import DetectionArray
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import detections_to_message, message_to_frame
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema

INFERENCE_S = 0.020
SEEN = (Detection(1, 0.9, 10.0, 10.0, 20.0, 30.0), Detection(0, 0.8, 100.0, 90.0, 148.0, 114.0))


class FixedDetector(ThermalNode):
    NAME = "detection"
    PARAMETERS = Schema(Parameter("model", "none", "not used", read_only=True),
                        Parameter("thermal_units", "agc8", "of the frames", read_only=True),
                        Parameter("threads", 0, "not used", read_only=True))

    def configure(self):
        self.results = self.publisher(DetectionArray, "detections", qos.RESULTS)

    def activate(self):
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self.detect)

    def detect(self, message):
        frame = message_to_frame(message, ThermalUnits(self.values.thermal_units))
        assert frame.gray8().shape == (512, 640)
        began_s = time.perf_counter()
        time.sleep(INFERENCE_S)
        result = DetectionResult(SEEN, 1e3 * (time.perf_counter() - began_s))
        shape = (frame.height, frame.width)
        self.results.publish(detections_to_message(result, message.header, shape, "none"))


sys.exit(run(FixedDetector))
