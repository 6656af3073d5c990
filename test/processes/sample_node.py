"""A node with every kind of input and fault, for the tests of the base."""

import sys
import time

from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import message_to_frame, stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode, run
from thermalreid_ros.ros.parameters import Parameter, Schema


class Sample(ThermalNode):
    NAME = "sample"
    PARAMETERS = Schema(
        Parameter("units", "agc8", "what a pixel means", choices=("agc8", "centikelvin")),
        Parameter("work_ms", 0.0, "time that a frame takes", unit="ms", minimum=0.0, maximum=9000.0),
        Parameter("polled", False, "whether the words are", read_only=True),
        Parameter("configure_fault", "", "how configure fails", read_only=True),
        Parameter("activate_fault", "", "how activate fails", read_only=True),
        Parameter("change_fault", "", "how taking over a change fails"),
    )

    def configure(self):
        self.loaded = True
        self.results = self.publisher(Header, "results", qos.RESULTS)
        self.changes = self.publisher(String, "changes", qos.LATCHED)
        self.said = self.publisher(String, "said", qos.LATCHED)
        self._fail(self.values.configure_fault)

    def activate(self):
        self._fail(self.values.activate_fault)
        self.words = []
        self.receive("words", String, "words", qos.RESULTS, lambda message: self.words.append(message.data), depth=8,
                     ordered=False, silent_limit_s=None, polled=self.values.polled)
        self.receive("frames", Image, "thermal/image_raw", qos.CAMERA_IN, self._work, refused=self._refused)

    def release(self):
        self.loaded = False
        self.get_logger().info("released")

    def parameters_changed(self):
        self._fail(self.values.change_fault)
        self.changes.publish(String(data=f"work_ms={self.values.work_ms}"))

    def time_set_back(self):
        self.changes.publish(String(data="time set back"))

    def _work(self, message):
        began_ns = self.get_clock().now().nanoseconds
        frame = message_to_frame(message, self.values.units)
        if frame.width == 99:
            raise IndexError("a defect\nof two lines")
        time.sleep(self.values.work_ms / 1000.0)
        self.catch_up("words")
        if self.words:
            self.said.publish(String(data=f"heard {' '.join(self.words)}"))
        header = message.header
        header.frame_id = f"{(began_ns - stamp_to_ns(message.header.stamp)) / 1e6:.3f}"
        self.results.publish(header)

    def _refused(self, message, reason):
        self.said.publish(String(data=f"refused {message.width}x{message.height}: {reason}"))

    @staticmethod
    def _fail(how: str):
        if how == "user":
            raise ThermalReidError("model.onnx: its sha256 is not that of its card; fetch both again")
        if how == "defect":
            raise KeyError("layer")


sys.exit(run(Sample))
