"""Re-identification from frame to ranking: tracks, signatures, gallery and probes in one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thermalreid_ros.camera.thermal import ThermalFrame, ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.reid.gallery import Gallery, Match
from thermalreid_ros.reid.probe import Probe, ProbeError
from thermalreid_ros.reid.signature import SignatureError, compute_signature, crop_box, scale_for
from thermalreid_ros.reid.tracks import TrackedDetection, Tracker

METHOD = "thermal_signature"
MAX_PROBES = 16


@dataclass(frozen=True)
class FrameResult:
    """tracked: detections of this frame with their tracks. ignored: why others were left out, a line each."""

    tracked: tuple[TrackedDetection, ...]
    ignored: tuple[str, ...]


class Reidentifier:
    """Feeds on frames with their detections in order of time; ranks what it saw against its probes.

    units: of the frames; probes must be on the same scale, temperatures or grey levels. visible_only: rank
    the tracks of the newest frame alone, not all that the gallery remembers.
    """

    def __init__(self, units: ThermalUnits | str, gallery: Gallery, tracker: Tracker | None = None, *,
                 visible_only: bool = True):
        self.gallery = gallery
        self.tracker = tracker or Tracker()
        self.visible_only = visible_only
        self._scale = scale_for(units)
        self._probes: dict[str, Probe] = {}
        self._visible: tuple[int, ...] = ()

    @property
    def probe_ids(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._probes)

    def add_probe(self, probe: Probe) -> None:
        """Search for this object from now on; a probe of the same name is replaced, and the oldest of more
        than 16 goes. Raises ProbeError when the probe's scale is not that of the camera."""
        if (scale := probe.signatures[0].scale) != self._scale:
            raise ProbeError(f"probe '{probe.probe_id}' is in {scale.name} but the camera gives "
                             f"{self._scale.name}; take the probe in the camera's units")
        self._probes.pop(probe.probe_id, None)
        self._probes[probe.probe_id] = probe
        if len(self._probes) > MAX_PROBES:
            del self._probes[next(iter(self._probes))]

    def remove_probe(self, probe_id: str) -> None:
        """Search for it no longer; nothing happens where it is not known."""
        self._probes.pop(probe_id, None)

    def process(self, frame: ThermalFrame, detections: Sequence[Detection]) -> FrameResult:
        """Track the detections of a frame and remember how they look.

        Detections whose class is unknown, and boxes that are not finite or hold too little of the frame, are
        left out and named in the result. A stamp not later than the last forgets tracks and gallery: the
        recording starts anew.
        """
        if self.tracker.stamp_ns is not None and frame.stamp_ns <= self.tracker.stamp_ns:
            self.gallery.clear()
        values, usable, ignored = frame.values(), [], []
        for detection in detections:
            try:
                if not 0 <= detection.class_id < len(CLASS_NAMES):
                    raise SignatureError(f"class {detection.class_id} is unknown; the detection is ignored")
                crop_box(values, detection)
                usable.append(detection)
            except SignatureError as error:
                ignored.append(str(error))
        tracked = self.tracker.update(usable, frame.stamp_ns, frame.gray8())
        for item in tracked:
            signature = compute_signature(crop_box(values, item.detection), self._scale)
            self.gallery.add(item, signature, frame.stamp_ns)
        self.gallery.expire(frame.stamp_ns)
        self._visible = tuple(item.track_id for item in tracked)
        return FrameResult(tracked, tuple(ignored))

    def rank(self, probe_id: str) -> tuple[Match, ...]:
        """Tracks by likeness to a known probe, best first."""
        return self.gallery.rank(self._probes[probe_id], self._visible if self.visible_only else None)
