"""A node on the package's base that only takes camera frames; prints what arrived when it is stopped.

Its queues are deep: frames that are dropped for newer ones are not lost by the transport, which is what is tested.
"""

import sys

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from thermalreid_ros.ros.convert import image_to_array, stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode, run

QUEUE = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)


class Sink(ThermalNode):
    NAME = "sink"

    def configure(self):
        self.numbers, self.latencies_ms = [], []

    def activate(self):
        self.receive("frames", Image, "thermal/image_raw", QUEUE, self.take, depth=QUEUE.depth)

    def take(self, message):
        self.latencies_ms.append(self.age_ms(stamp_to_ns(message.header.stamp)))
        self.numbers.append(int(image_to_array(message)[0, 0]))

    def release(self):
        median, p99 = np.percentile(self.latencies_ms or [np.nan], (50, 99))
        print(f"arrived {len(set(self.numbers))} median_ms {median:.2f} p99_ms {p99:.2f}", flush=True)


sys.exit(run(Sink))
