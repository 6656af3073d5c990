"""The benchmark's camera, a process of its own: python -m thermalreid_ros.evaluation.bench_camera.

It films the shipped recording's frames to and fro, in the units asked for: real pictures with real numbers of
objects. It waits for its subscribers, publishes a stated number of frames at a steady rate, prints `sent N`
and ends. Frames are stamped just before they are published, so that ages include all of the way.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from thermalreid_ros.camera import ThermalUnits
from thermalreid_ros.files import shipped

TOPIC = "thermal/image_raw"
FRAME_ID = "thermal_optical_frame"
UNITS = ("centikelvin", "celsius_f32", "agc8")
FRAMES = 30
LINGER_S = 1.0  # for the last frames under way


def grey_frames(count: int = FRAMES) -> list[np.ndarray]:
    """The first frames of the shipped recording, uint8 (512, 640)."""
    from thermalreid_ros.evaluation.recording import FRAME_TOPIC
    from thermalreid_ros.ros.bag import Bag
    from thermalreid_ros.ros.convert import compressed_to_array

    with Bag(_recording()) as bag:
        messages = islice(bag.messages([FRAME_TOPIC]), count)
        return [compressed_to_array(bag.decode(message))[0] for message in messages]


def probe_crop() -> np.ndarray:
    """The shipped recording's probe, uint8 grey."""
    return cv2.imread(str(_recording() / "probe.png"), cv2.IMREAD_UNCHANGED)


def in_units(grey: np.ndarray, units: ThermalUnits) -> tuple[np.ndarray, str]:
    """A grey picture as a camera of these units would deliver it, and the ROS encoding; black is 0 C, white
    25 C.

    Temperatures get noise of 50 mK, the sensors' own, or their histogram would have the 256 bins of the grey
    picture.
    """
    if units is ThermalUnits.AGC8:
        return grey, "mono8"
    noise_c = np.random.default_rng(0).normal(0.0, 0.05, grey.shape)
    celsius = grey * (25.0 / 255.0) + noise_c
    if units is ThermalUnits.CENTIKELVIN:
        return np.rint((celsius + 273.15) * 100.0).astype(np.uint16), "mono16"
    return celsius.astype(np.float32), "32FC1"


def _recording() -> Path:
    return shipped("config") / "recordings" / "hit_uav_night"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Publishes the shipped recording's frames at a steady rate.")
    parser.add_argument("--rate-hz", type=float, default=30.0)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--units", choices=UNITS, default=UNITS[0])
    parser.add_argument("--subscribers", type=int, default=1, help="to wait for")
    args = parser.parse_args(arguments)

    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from thermalreid_ros.ros import qos
    from thermalreid_ros.ros.convert import array_to_image
    from thermalreid_ros.ros.environment import prepare_process

    prepare_process()
    rclpy.init()
    node = Node("bench_camera")
    try:
        publisher = node.create_publisher(Image, TOPIC, qos.CAMERA_OUT)
        images = [array_to_image(*in_units(grey, ThermalUnits(args.units)), Header(frame_id=FRAME_ID))
                  for grey in grey_frames()]
        to_and_fro = images + images[-2:0:-1]
        while publisher.get_subscription_count() < args.subscribers:
            time.sleep(0.05)
        time.sleep(LINGER_S)  # the subscribers' side of discovery
        began_s = time.monotonic()
        for number in range(args.frames):
            time.sleep(max(0.0, began_s + number / args.rate_hz - time.monotonic()))
            image = to_and_fro[number % len(to_and_fro)]
            image.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(image)
        time.sleep(LINGER_S)
        print(f"sent {args.frames}", flush=True)
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
