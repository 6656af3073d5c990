"""Quality of service by intent: what a topic is for decides how it travels.

A best-effort subscription hears reliable and best-effort publishers alike, so inputs from cameras we do not own ask
for little and outputs offer much.
"""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, depth: int,
             durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


#: Subscribing to camera frames: the newest only, a lost one is not worth waiting for.
CAMERA_IN = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
#: Subscribing to camera frames that await what others make of them: a few are kept until it comes.
CAMERA_PAIRED = _profile(ReliabilityPolicy.BEST_EFFORT, 8)
#: Subscribing to what other sensors measure, many times a second: attitude, odometry, height, rough positions.
SENSOR_IN = _profile(ReliabilityPolicy.BEST_EFFORT, 10)
#: Publishing frames (bag player, overlays are OVERLAY): reliable, so that recorders may ask for it.
CAMERA_OUT = _profile(ReliabilityPolicy.RELIABLE, 5)
#: Detections, matches: each counts, in both directions.
RESULTS = _profile(ReliabilityPolicy.RELIABLE, 10)
#: The probe, tables: latecomers get the last one.
LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, DurabilityPolicy.TRANSIENT_LOCAL)
#: Subscribing to probes: several senders may each have a latched one for a latecomer.
PROBES_IN = _profile(ReliabilityPolicy.RELIABLE, 16, DurabilityPolicy.TRANSIENT_LOCAL)
#: Pictures for a person: never hold up the node for a slow viewer.
OVERLAY = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
#: /diagnostics, as its other publishers offer it.
DIAGNOSTICS = _profile(ReliabilityPolicy.RELIABLE, 10)
#: Publishing /clock: rclpy subscribes best effort, rclcpp likewise.
CLOCK = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
