"""replay.launch.py as ROS runs it; needs launch_testing, which a ROS installation brings (its pytest is below 8)."""

import atexit
import contextlib
import os
import time
import unittest

import pytest

pytest.importorskip("launch_testing", reason="launch_testing comes with a ROS installation")
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros comes with a ROS installation")

import launch_testing
import rclpy
from conftest import reserved_domain
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing.actions import ReadyToTest
from rclpy.node import Node

from thermalreid_ros.files import shipped
from thermalreid_ros.msg import DetectionArray, LocalizationStatus, MatchArray
from thermalreid_ros.ros import qos

RECORDING = shipped("config") / "recordings" / "hit_uav_night"
ARGUMENTS = {  # one of each kind; a name that is no parameter, or a wrong type, would end its node
    "namespace": "uav1", "bag": str(RECORDING), "rate": "2", "loop": "true", "start_offset_s": "1.0",
    "thermal_units": "agc8", "polarity": "white_hot", "model": "yolo_compact", "autostart": "true",
    "map": str(shipped("config") / "maps" / "krems.tif"), "segmenter": "segmenter_compact", "camera_pitch_deg": "90.0",
    "probe_file": str(RECORDING / "probe.png"), "probe_class": "person", "probe_units": "agc8", "log_level": "info",
}
FLOW_WITHIN_S = 180.0  # seconds on a machine that has nothing else to do


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    domain = contextlib.ExitStack()
    os.environ.update(domain.enter_context(reserved_domain()))
    atexit.register(domain.close)
    replay = PythonLaunchDescriptionSource(str(shipped("launch") / "replay.launch.py"))
    return LaunchDescription([IncludeLaunchDescription(replay, launch_arguments=ARGUMENTS.items()), ReadyToTest()])


class TestFlow(unittest.TestCase):
    def test_results_flow_from_all_nodes(self):
        rclpy.init()
        node, detections, matches, places = Node("test"), [], [], []
        node.create_subscription(LocalizationStatus, "/uav1/localization/status", places.append, qos.RESULTS)
        node.create_subscription(DetectionArray, "/uav1/detections", detections.append, qos.RESULTS)
        node.create_subscription(MatchArray, "/uav1/reid/matches", matches.append, qos.RESULTS)
        end_s = time.monotonic() + FLOW_WITHIN_S
        while time.monotonic() < end_s and not (len(detections) >= 10 and len(matches) >= 10 and len(places) >= 3):
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
        rclpy.shutdown()
        self.assertGreaterEqual(len(detections), 10)
        self.assertGreaterEqual(len(matches), 10)
        self.assertTrue(any(message.detections for message in detections))
        self.assertEqual({message.probe_id for message in matches}, {"probe_file"})
        self.assertTrue(any(message.matches for message in matches))
        self.assertGreaterEqual(len(places), 3)
        self.assertEqual({message.verdict for message in places}, {"no_input"})  # the recording knows no place


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_node_ended_cleanly(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
        self.assertEqual(len(proc_info.process_names()), 5)

    def test_no_node_showed_a_traceback(self, proc_output):
        for output in proc_output:
            self.assertNotIn(b"Traceback", output.text)
