"""Plays a recording into the graph: in real time, slower or faster, once or over and over.

Topics are published relative to the node's namespace. `/clock` runs with the recording, so nodes with use_sim_time
see them as old as in flight; it never runs ahead of the next message: a machine too slow for `rate` plays slower. A
recorded `/clock` is left out: there can be one only. With `loop`, stamps and `/clock` jump back together. Deactivating
pauses; the recording's end ends the process (exit 0).
"""

from __future__ import annotations

import threading
import time
from fnmatch import fnmatch

from rclpy.duration import Duration
from rosgraph_msgs.msg import Clock

from thermalreid_ros.camera.thermal import FrameError
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.bag import Bag, BagError
from thermalreid_ros.ros.convert import ns_to_stamp
from thermalreid_ros.ros.lifecycle import ThermalNode, describe, run
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.playback import PlayedTopic, RecordedTime

CLOCK, FRAMES = "/clock", "/thermal/image_raw"
CLOCK_PERIOD_S = 0.025  # as rosbag2; each look at the clock costs every node as much as a small message
POLL_S = 0.01
ACKNOWLEDGED_WITHIN_S = 1.0  # for the messages on their way
REPORT_WAITING_S = 5.0
SETTLE_S = 0.5  # the same subscribers' other topics are discovered a little later


class BagPlayerNode(ThermalNode):
    NAME = "bag_player"
    PARAMETERS = Schema(
        Parameter("bag", "", "the recording: a rosbag2 folder, or one .mcap or .db3 file", read_only=True),
        Parameter("topics", ("*",), "patterns of the recorded topics to play, e.g. /thermal/*", read_only=True),
        Parameter("rate", 1.0, "speed; 2: twice as fast as recorded", minimum=0.01, maximum=1000.0),
        Parameter("loop", False, "at the end start over, instead of ending"),
        Parameter("start_offset_s", 0.0, "beginning left out", unit="s", minimum=0.0, read_only=True),
        Parameter("wait_for_subscribers", 1, "subscribers that thermal/image_raw must have first; without it each "
                  "topic of images, without these all",
                  minimum=0, maximum=100, read_only=True),
        Parameter("decompress", True, "publish compressed pictures as sensor_msgs/Image, on the topic without "
                  "/compressed, where that is not recorded too", read_only=True),
        Parameter("restamp", False, "stamp headers with the present time and leave /clock alone", read_only=True),
    )
    exit_code = 0

    def configure(self) -> None:
        if not self.values.bag:
            raise BagError("no recording given; set it with -p bag:=/path/to/bag")
        self._ending, self._playing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self._bag = Bag(self.values.bag)
        self._start_ns = self._bag.stamp_at(self.values.start_offset_s)
        self._topics = {topic: played for topic in self._bag.topics if (played := self._played(topic)) is not None}
        if not self._topics:
            raise BagError(f"{self._bag.path}: can play none of its topics: {', '.join(sorted(self._bag.topics))}")
        self._clock_due_s = 0.0
        self._clock_out = None if self.values.restamp else self.publisher(Clock, CLOCK, qos.CLOCK)
        self._thread.start()

    def _played(self, topic: str) -> PlayedTopic | None:
        if topic == CLOCK or not any(fnmatch(topic, pattern) for pattern in self.values.topics):
            return None
        try:
            return PlayedTopic.of(self._bag, topic, self.publisher, decompress=self.values.decompress)
        except BagError as error:
            self.get_logger().warning(f"{topic}: {error}, so it is not played")
            return None

    def activate(self) -> None:
        self._playing.set()

    def deactivate(self) -> None:
        self._playing.clear()

    def release(self) -> None:
        if hasattr(self, "_bag"):
            self._ending.set()
            if self._thread.is_alive():
                self._thread.join()
            self._bag.close()

    def _run(self) -> None:
        """On a thread of its own, until the recording or the node ends."""
        try:
            if self._start() and self._play():
                self.context.try_shutdown()
        except Exception as error:  # a defect must not look like the end of the recording
            if self.context.ok():
                self.get_logger().fatal(describe(error))
                type(self).exit_code = 1
                self.context.try_shutdown()

    def _start(self) -> bool:
        """Wait until active and awaited by all subscribers; False where the node ends."""
        images = {name: topic.publisher for name, topic in self._topics.items()  # but for what only a simulator knows
                  if topic.is_image and "truth" not in name.split("/")}
        frames = [images[name] for name in (FRAMES, f"{FRAMES}/compressed") if name in images][:1]
        awaited = frames or list(images.values()) or [topic.publisher for topic in self._topics.values()]
        while not self._ending.wait(POLL_S):
            missing = [publisher.topic_name for publisher in awaited
                       if publisher.get_subscription_count() < self.values.wait_for_subscribers]
            if self._playing.is_set() and not missing:
                return not self._ending.wait(SETTLE_S)
            self.get_logger().info(f"waiting for {self.values.wait_for_subscribers} subscribers of "
                                   f"{', '.join(missing)}" if missing else "waiting to be activated",
                                   throttle_duration_sec=REPORT_WAITING_S)
        return False

    def _play(self) -> bool:
        """Whether the end of the recording was reached."""
        began_s, count = time.monotonic(), 0
        while True:
            recorded_time = RecordedTime(self._start_ns)
            for message in self._bag.messages(self._topics, self._start_ns):
                topic = self._topics[message.topic]
                try:
                    outgoing = topic.prepare(message)
                except FrameError as error:
                    self.get_logger().warning(f"{message.topic}: {error}; left out")
                    continue
                if not self._wait_until(message.stamp_ns, recorded_time):
                    return False
                if self.values.restamp:
                    outgoing = topic.restamp(outgoing, self.get_clock().now().to_msg())
                topic.publisher.publish(outgoing)
                count += 1
            if not self.values.loop:
                break
            self.get_logger().info("the recording starts over")
        self._show_time(recorded_time)
        for topic in self._topics.values():
            topic.publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGED_WITHIN_S))
        if self._bag.damage:
            self.get_logger().warning(self._bag.damage)
        self.get_logger().info(f"played {count} messages in {time.monotonic() - began_s:.1f} s")
        return True

    def _wait_until(self, stamp_ns: int, recorded_time: RecordedTime) -> bool:
        """Let recorded time pass up to the stamp, /clock with it; False where the node ends."""
        while not self._ending.is_set():
            playing = self._playing.is_set()
            left_s = recorded_time.pass_until(stamp_ns, self.values.rate, paused=not playing)
            if (due_s := self._clock_due_s - time.monotonic()) <= 0.0:
                self._show_time(recorded_time)
                due_s = CLOCK_PERIOD_S
            if playing and left_s == 0.0:
                return True
            self._ending.wait(max(min(due_s, left_s if playing else POLL_S), 0.001))
        return False

    def _show_time(self, recorded_time: RecordedTime) -> None:
        self._clock_due_s = time.monotonic() + CLOCK_PERIOD_S
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=ns_to_stamp(recorded_time.now_ns)))


def main() -> int:
    return run(BagPlayerNode) or BagPlayerNode.exit_code
