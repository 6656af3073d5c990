"""A camera: 640 x 512 mono16 at 30 Hz, each frame telling its number in the first pixels.

python camera.py FRAMES: waits for a subscriber of `thermal/image_raw`, publishes, prints how many, ends.
"""

import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import array_to_image
from thermalreid_ros.ros.environment import prepare_process

RATE_HZ = 30.0

prepare_process()
rclpy.init()
node = Node("camera")
publisher = node.create_publisher(Image, "thermal/image_raw", qos.CAMERA_OUT)
while publisher.get_subscription_count() == 0:
    time.sleep(0.05)
time.sleep(0.5)  # the subscriber's side of discovery

frame = np.full((512, 640), 30000, np.uint16)
begin_s = time.monotonic()
for number in range(frames := int(sys.argv[1])):
    time.sleep(max(0.0, begin_s + number / RATE_HZ - time.monotonic()))
    frame[0, 0] = number
    header = Header(stamp=node.get_clock().now().to_msg(), frame_id="thermal_optical")
    publisher.publish(array_to_image(frame, "mono16", header))
time.sleep(1.0)  # the last frame is under way
print(f"published {frames}", flush=True)
node.destroy_node()
rclpy.shutdown()
