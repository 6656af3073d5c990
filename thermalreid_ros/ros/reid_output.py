"""What node `reid` publishes: rankings, pictures, and the places of objects that were found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.msg import Match as MatchMessage
from thermalreid_ros.msg import MatchArray, ThermalProbe
from thermalreid_ros.msg import Target as TargetMessage
from thermalreid_ros.reid.fusion import METHODS
from thermalreid_ros.reid.gallery import Match
from thermalreid_ros.reid.length import told_length
from thermalreid_ros.reid.overlay import draw_matches
from thermalreid_ros.reid.probe import Probe, make_probe
from thermalreid_ros.reid.reidentifier import Ranking, Reidentifier
from thermalreid_ros.reid.target import CameraPose, Target, TargetError
from thermalreid_ros.reid.tracks import TrackedDetection
from thermalreid_ros.ros import qos
from thermalreid_ros.ros.convert import NS_PER_S, array_to_image, detection_to_message, image_to_array, ns_to_stamp, \
    stamp_to_ns
from thermalreid_ros.ros.lifecycle import ThermalNode
from thermalreid_ros.ros.parameters import Parameter, Schema
from thermalreid_ros.ros.places import grid_fault, message_to_rotation
from thermalreid_ros.ros.shared_parameters import provider_parameters

METHOD_PARAMETERS = Schema(
    Parameter("method", "", "how tracks are ranked; empty: fused where the embedding is there, else thermal_signature",
              read_only=True, choices=("", *METHODS)),
    Parameter("embedding", "reid_embedding", "name of a shipped model, or path of an .onnx file with its card beside "
              "it; empty: none", read_only=True),
    *provider_parameters("the embedding"),
    Parameter("calibration", "", "file with beta_h, the weight of the histogram; empty: the shipped one",
              read_only=True),
    Parameter("fusion", "", "file with the weights of all terms and the probability to accept from; empty: the shipped "
              "one", read_only=True),
)
PLACE_PARAMETERS = Schema(
    Parameter("accept_probability", 0.0, "from which on a match counts as the object and its place is published; 0: as "
              "the fusion file says", minimum=0.0, maximum=1.0),
    Parameter("map", "", "the semantic map on whose grid localization/pose is; empty: no targets", read_only=True),
    Parameter("map_frame", "map", "frame of localization/pose", read_only=True),
    Parameter("max_pose_age_s", 1.0, "a target that has been seen from no known place for longer is not published",
              unit="s", minimum=0.0),
    Parameter("max_target_error_m", 30.0, "nor one whose 95 % ellipse reaches farther", unit="m", minimum=0.1),
)


class ReidOutput:
    """For configure: makes the publishers. All else is for the worker thread.

    The node has PLACE_PARAMETERS. Raises MapError where there is no such map.
    """

    def __init__(self, node: ThermalNode, reid: Reidentifier):
        self._node, self._reid = node, reid
        self._grid = None
        if node.values.map:
            with SemanticMap.open(node.values.map) as semantic_map:
                self._grid = semantic_map.grid
        self._matches = node.publisher(MatchArray, "reid/matches", qos.RESULTS)
        self._targets = node.publisher(TargetMessage, "reid/target", qos.RESULTS)
        self._overlay = node.publisher(Image, "reid/image", qos.OVERLAY)
        self._rankings: dict[str, Ranking] = {}
        self._published: dict[str, tuple[int, int]] = {}  # track and stamp, by probe
        self._said: dict[str, str] = {}
        self._pose_ns: int | None = None
        self._grid_fault = ""

    def grid(self, text: str) -> None:
        """On which grid the poses are, as localization/map says. Raises LocalizationError where it does not."""
        self._grid_fault = "" if self._grid is None else grid_fault(text, self._grid)
        self._node.diagnostics.warning("map", self._grid_fault)

    def forget(self, kept: Sequence[str] = ()) -> None:
        """Forget what was said of all probes but these."""
        for memory in (self._rankings, self._published, self._said):
            for probe_id in memory.keys() - set(kept):
                del memory[probe_id]
        if not kept:
            self._pose_ns = None
        self._tell()

    def rank_all(self, header: Header) -> None:
        """Rank by all probes and publish the rankings; `place` follows, once the frame is learned. header: of the
        newest frame."""
        rankings = self._reid.rank_all()
        for ranking in rankings:
            self._publish(ranking, header)
        whys = dict.fromkeys(ranking.why for ranking in rankings if ranking.why)
        self._node.diagnostics.note("instead", "; ".join(whys))

    def rank(self, probe_id: str, header: Header) -> None:
        """Rank by one probe, that came after the frame, and publish the ranking and, where it is known, the place."""
        ranking = self._reid.rank(probe_id)
        self._publish(ranking, header)
        self._place(ranking, stamp_to_ns(header.stamp))

    def _publish(self, ranking: Ranking, header: Header) -> None:
        self._rankings[ranking.probe_id] = ranking
        self._matches.publish(MatchArray(
            header=header, probe_id=ranking.probe_id, method=ranking.method, beta_h=self._reid.gallery.beta_h,
            accept_probability=ranking.accept_probability, matches=[_match(match) for match in ranking.matches]))

    def pose(self, pose: CameraPose) -> None:
        """The camera's pose at a frame that has been ranked already: places are known now."""
        self._pose_ns = pose.stamp_ns
        self.place(pose.stamp_ns)

    def place(self, now_ns: int) -> None:
        """Publish what is known by now of the places of what was ranked last."""
        for ranking in self._rankings.values():
            self._place(ranking, now_ns)

    def picture(self, gray8: np.ndarray, tracked: Sequence[TrackedDetection], header: Header) -> None:
        """Draw the newest probe's ranking, if somebody watches."""
        if self._overlay.get_subscription_count():
            probe_id = next(reversed(self._rankings), "")
            matches = self._rankings[probe_id].matches if probe_id else ()
            self._overlay.publish(array_to_image(draw_matches(gray8, tracked, matches, probe_id), "bgr8", header))

    def _place(self, ranking: Ranking, now_ns: int) -> None:
        target = None
        try:
            match, target = self._found(ranking, now_ns)
        except TargetError as error:
            self._said[ranking.probe_id] = f"none: {error}"
        if target is not None:
            self._said[ranking.probe_id] = (f"track {match.track_id}, {match.probability:.0%}, at "
                                            f"{target.latitude_deg:.6f}, {target.longitude_deg:.6f}, within "
                                            f"{target.reach_m:.1f} m")
            if self._published.get(ranking.probe_id) != (now := (match.track_id, target.stamp_ns)):
                self._published[ranking.probe_id] = now
                self._targets.publish(_target(target, match, ranking.probe_id, self._node.values.map_frame))
                self._node.diagnostics.processed("targets")
        self._tell()

    def _tell(self) -> None:
        self._node.diagnostics.note("target", "; ".join(f"'{probe_id}': {said}"
                                                        for probe_id, said in self._said.items()))

    def _found(self, ranking: Ranking, now_ns: int) -> tuple[Match, Target]:
        """The accepted match and its place. Raises TargetError with the reason: there is none, or it is in doubt."""
        if not ranking.matches:
            raise TargetError("nothing in view is of its class")
        match, least = ranking.matches[0], ranking.accept_probability
        if not match.accepted:
            raise TargetError(ranking.why if math.isnan(match.probability) else
                              f"not here: the best match is it with {match.probability:.1%}, {least:.1%} are asked for")
        if self._grid is None:
            raise TargetError("no map is given; set the parameter map")
        if self._grid_fault:
            raise TargetError(self._grid_fault)
        target = self._reid.target(match, self._grid)
        limit_s, limit_m = self._node.values.max_pose_age_s, self._node.values.max_target_error_m
        if target is None or now_ns - target.stamp_ns > limit_s * NS_PER_S:
            raise TargetError(self._reid.unplaced.get(match.track_id) or self._poseless(now_ns))
        if target.reach_m > limit_m:
            raise TargetError(f"its place is known to within {target.reach_m:.0f} m only, max_target_error_m is "
                              f"{limit_m:g}")
        return match, target

    def _poseless(self, now_ns: int) -> str:
        if self._pose_ns is None:
            return "where the camera is is not known: no localization/pose yet"
        if now_ns - self._pose_ns > self._node.values.max_pose_age_s * NS_PER_S:
            return f"where the camera is is not known: localization/pose is {(now_ns - self._pose_ns) / 1e9:.1f} s old"
        return "its track was in no frame with a localization/pose of late"


def message_to_camera_pose(message: PoseWithCovarianceStamped, map_frame: str) -> CameraPose:
    """The camera's optical frame in the grid of the map, z above the ground, as node geo_localization publishes it.

    Raises TargetError or GeometryError.
    """
    if message.header.frame_id != map_frame:
        raise TargetError(f"the pose is in frame '{message.header.frame_id}', not in '{map_frame}', the map's grid")
    position = message.pose.pose.position
    return CameraPose(stamp_to_ns(message.header.stamp), np.array((position.x, position.y)), float(position.z),
                      message_to_rotation(message.pose.pose.orientation),
                      np.reshape(message.pose.covariance, (6, 6)).astype(np.float64))


def message_to_probe(message: ThermalProbe) -> Probe:
    """Raises ProbeError, LengthError or FrameError."""
    size = message.descriptor_size
    values = np.asarray(message.descriptors, np.float32)
    descriptors = values.reshape(-1, size) if size and len(values) % size == 0 else values
    return make_probe([image_to_array(image) for image in message.images], message.units, message.probe_id or "probe",
                      message.class_name, descriptors=descriptors, descriptor_model=message.descriptor_model,
                      length=told_length(message.length_m, message.length_error, message.class_name))


def _match(match: Match) -> MatchMessage:
    return MatchMessage(rank=match.rank, track_id=match.track_id, track_length=match.length,
                        detection=detection_to_message(match.detection), distance=match.score,
                        distance_histogram=match.distance.histogram, distance_mser=match.distance.mser,
                        distance_embedding=match.embedding, size_m=match.size_m, probability=match.probability)


def _target(target: Target, match: Match, probe_id: str, map_frame: str) -> TargetMessage:
    return TargetMessage(
        header=Header(stamp=ns_to_stamp(target.stamp_ns), frame_id=map_frame), probe_id=probe_id,
        class_name=match.detection.class_name, track_id=match.track_id, probability=match.probability,
        sights=target.sights, latitude=target.latitude_deg, longitude=target.longitude_deg,
        covariance=target.covariance_m2.ravel(), x=float(target.position_m[0]), y=float(target.position_m[1]),
        size_m=target.size_m)
