"""A thermal camera for benchmarks, as a process of its own: python -m
thermalreid_ros.evaluation.synthetic_camera.

It waits for its subscribers, publishes a stated number of frames at a steady rate, prints `sent N` and ends.
Frames are stamped just before they are published, so that ages include all of the way.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from thermalreid_ros.camera import ThermalUnits, make_frame

TOPIC = "thermal/image_raw"
UNITS = ("centikelvin", "celsius_f32", "agc8")
FRAME_ID = "thermal_optical_frame"
LINGER_S = 1.0  # for the last frames under way


def scene_c(seed: int = 0, height: int = 512, width: int = 640) -> np.ndarray:
    """A night scene in degrees Celsius, float32: uneven ground, a warm road, cars and people, sensor
    noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    scene = 8.0 + 1.5 * np.sin(columns / 97.0 + seed) * np.cos(rows / 61.0)
    scene[:, int(0.4 * width):int(0.55 * width)] += 5.0
    for size_px, temperature_c, count in (((20, 10), 27.0, 8), ((24, 48), 18.0, 5)):
        for _ in range(count):
            row, column = rng.integers(0, (height - size_px[0], width - size_px[1]))
            scene[row:row + size_px[0], column:column + size_px[1]] = temperature_c
    return (scene + rng.normal(0.0, 0.05, scene.shape)).astype(np.float32)


def pixels(units: ThermalUnits, seed: int = 0) -> tuple[np.ndarray, str]:
    """The scene as a camera of these units (centikelvin, celsius_f32 or agc8) delivers it, and the ROS
    encoding."""
    celsius = scene_c(seed)
    if units is ThermalUnits.CENTIKELVIN:
        return np.rint((celsius + 273.15) * 100.0).astype(np.uint16), "mono16"
    if units is ThermalUnits.CELSIUS_F32:
        return celsius, "32FC1"
    return make_frame(celsius, "32FC1", ThermalUnits.CELSIUS_F32, 0, FRAME_ID).gray8(), "mono8"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Publishes synthetic thermal frames.")
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
    try:
        node = Node("synthetic_camera")
        publisher = node.create_publisher(Image, TOPIC, qos.CAMERA_OUT)
        images = [array_to_image(*pixels(ThermalUnits(args.units), seed), Header(frame_id=FRAME_ID))
                  for seed in range(4)]
        while publisher.get_subscription_count() < args.subscribers:
            time.sleep(0.05)
        time.sleep(LINGER_S)  # the subscribers' side of discovery
        began_s = time.monotonic()
        for number in range(args.frames):
            time.sleep(max(0.0, began_s + number / args.rate_hz - time.monotonic()))
            image = images[number % len(images)]
            image.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(image)
        time.sleep(LINGER_S)
        print(f"sent {args.frames}", flush=True)
        node.destroy_node()
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
