"""Re-identification from frames to rankings and places: tracks, gallery, probes and targets in one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.camera.crops import CropError
from thermalreid_ros.camera.geometry import Intrinsics, LocalGrid
from thermalreid_ros.camera.thermal import ThermalFrame, ThermalUnits
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.reid.embedding import Embedder
from thermalreid_ros.reid.fusion import METHODS, FusedModel, PairTerms, probability_of
from thermalreid_ros.reid.gallery import NAN, Compared, Gallery, Match
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.pairing import StampPairing
from thermalreid_ros.reid.probe import Probe, ProbeError
from thermalreid_ros.reid.signature import CELSIUS, SignatureDistance, SignatureError, ThermalSignature, \
    compute_signature, crop_box, scale_for
from thermalreid_ros.reid.target import CameraPose, Target, TargetError, Targets, TargetTrack, freed
from thermalreid_ros.reid.tracks import TrackedDetection, Tracker

SIGNATURE, EMBEDDING, FUSED = METHODS
MAX_PROBES = 16
FRAMES_KEPT = 64  # for poses to come
#: Tracks whose looks are learned for each second between frames, and the least and most for one frame: signatures and
#: descriptors take 6 ms a track, which few frames a second leave time for.
LEARNED_A_SECOND, LEARNED_LEAST, LEARNED_MOST = 30, 3, 24


class VerdictError(ThermalReidError):
    """A person's word on what is not there; the message says what."""


class MethodError(ThermalReidError):
    """A method that cannot be used as asked for; the message says why."""


@dataclass(frozen=True)
class FrameResult:
    """tracked: detections of this frame with their tracks. ignored: why others were left out, a line each."""

    tracked: tuple[TrackedDetection, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """Tracks by likeness to a probe, best first. method: how they were ranked; why: where that is another than was
    asked for, or no probability is known, the reason, else "". accept_probability: from which on a match is accepted,
    NaN where none is."""

    probe_id: str
    method: str
    matches: tuple[Match, ...]
    why: str = ""
    accept_probability: float = NAN

    @property
    def accepted(self) -> Match | None:
        """The best match, where it is the probe's object."""
        return self.matches[0] if self.matches and self.matches[0].accepted else None


class Reidentifier:
    """Feeds on frames with their detections in order of time, and on poses of the camera; ranks what it saw against its
    probes and says where it is.

    units: of the frames; probes must be on the same scale, temperatures or grey levels. visible_only: rank the tracks
    of the newest frame alone, not all that the gallery remembers. method: one of fusion.METHODS. fusion: what gives
    probabilities; None: none are given and nothing is accepted. embedder: None where there is no embedding.

    Cameras that do not measure temperatures are ranked by thermal_signature, without probabilities: embedding and
    calibration are of degrees Celsius.
    """

    def __init__(self, units: ThermalUnits | str, gallery: Gallery, tracker: Tracker | None = None, *,
                 visible_only: bool = True, method: str = SIGNATURE, fusion: FusedModel | None = None,
                 embedder: Embedder | None = None):
        if method not in METHODS:
            raise MethodError(f"method '{method}' is unknown; use one of {', '.join(METHODS)}")
        if fusion is not None and embedder is not None and fusion.descriptor_model not in (
                "", name := embedder.engine.card.name):
            raise MethodError(f"the fusion was fitted with the embedding '{fusion.descriptor_model}', not with "
                              f"'{name}'; fit it anew with `thermalreid reid fit-fusion`")
        if fusion is not None and embedder is not None and fusion.descriptor_model and \
                fusion.descriptor_size not in (0, embedder.dimensions):
            raise MethodError(f"the fusion was fitted with descriptors of {fusion.descriptor_size} numbers, "
                              f"'{fusion.descriptor_model}' gives {embedder.dimensions}; fit it anew with "
                              "`thermalreid reid fit-fusion`")
        if method == EMBEDDING and embedder is None and scale_for(units) is CELSIUS or \
                method == FUSED and fusion is None:
            raise MethodError(f"method '{method}' needs {'an embedding' if method == EMBEDDING else 'a fusion'} model")
        self.gallery = gallery
        self.tracker = tracker or Tracker()
        self.visible_only = visible_only
        self.targets = Targets()
        self.unplaced: dict[int, str] = {}  # why tracks of the last frame with a pose have no place in it
        self.method, self._fusion, self._embedder = method, fusion, embedder
        self._synthetic_share = 0.5 if fusion is None else fusion.synthetic_share
        self._scale = scale_for(units)
        if self._scale is not CELSIUS:
            self._embedder = None
        self._accept_probability = 0.0
        self._probes: dict[str, Probe] = {}
        # A person's word, by probe: tracks that are not it; the one that is, or was, its looks and what the detector
        # called it; these as a probe.
        self._rejected: dict[str, set[int]] = {}
        self._chosen: dict[str, tuple[int, Sequence[ThermalSignature], str]] = {}
        self._seen_as: dict[str, Probe] = {}
        self._visible: tuple[int, ...] = ()
        self._learned = LEARNED_MOST
        self._unlearned: tuple[np.ndarray, tuple[TrackedDetection, ...], tuple[Intrinsics, CameraPose] | None] | None \
            = None
        self._places: StampPairing[tuple[TrackedDetection, ...], tuple[Intrinsics, CameraPose]] = \
            StampPairing(FRAMES_KEPT)

    def close(self) -> None:
        """Give the embedding's memory back."""
        if self._embedder is not None:
            self._embedder.close()

    @property
    def probe_ids(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._probes)

    @property
    def accept_probability(self) -> float:
        """From which on a match is accepted, of a probe whose length nobody told; NaN where none is. Set it to 0 for
        the fusion's own, which is another where it was told: see Ranking."""
        return self._least_probability(None)

    @accept_probability.setter
    def accept_probability(self, probability: float) -> None:
        self._accept_probability = probability

    def _least_probability(self, length: ToldLength | None) -> float:
        if self._fusion is None or self._scale is not CELSIUS:
            return NAN
        return self._accept_probability or self._fusion.least_probability(length)

    def add_probe(self, probe: Probe) -> None:
        """Search for this object from now on; a probe of the same name is replaced, of which a person's word holds on
        unless the class is another, and the oldest of more than 16 goes. Raises ProbeError when the probe's scale is
        not that of the camera, or its descriptors are of another embedding, or another version of it."""
        if (scale := probe.signatures[0].scale) != self._scale:
            raise ProbeError(f"probe '{probe.probe_id}' is in {scale.name} but the camera gives "
                             f"{self._scale.name}; take the probe in the camera's units")
        if self._embedder is not None and len(probe.descriptors) and \
                probe.descriptor_model != (name := self._embedder.engine.card.name):
            raise ProbeError(f"probe '{probe.probe_id}' was described by '{probe.descriptor_model}' but tracks are by "
                             f"'{name}'; give both nodes one model")
        if len(probe.descriptors) and (size := self._descriptor_size(probe)) not in (0, probe.descriptors.shape[1]):
            raise ProbeError(f"probe '{probe.probe_id}': its descriptors are of {probe.descriptors.shape[1]} numbers, "
                             f"those of '{probe.descriptor_model}' here of {size}; give both nodes one version of the "
                             "model")
        before = self._probes.pop(probe.probe_id, None)
        if before is not None and probe.class_name and before.class_name not in ("", probe.class_name):
            self.remove_probe(probe.probe_id)  # another object
        self._probes[probe.probe_id] = probe
        if len(self._probes) > MAX_PROBES:
            self.remove_probe(next(iter(self._probes)))

    def _descriptor_size(self, probe: Probe) -> int:
        """What a probe's descriptors are to have; 0 where nothing is compared with them."""
        if self._embedder is not None:
            return self._embedder.dimensions
        fitted = self._fusion is not None and probe.descriptor_model == self._fusion.descriptor_model
        return self._fusion.descriptor_size if fitted else 0

    def remove_probe(self, probe_id: str) -> None:
        """Search for it no longer; nothing happens where it is not known."""
        for known in (self._probes, self._rejected, self._chosen, self._seen_as):
            known.pop(probe_id, None)

    def judge(self, probe_id: str, track_id: int, same: bool | None) -> None:
        """A person's word on a track, for as long as it lives: that it is the probe's object, which no other is then,
        whatever class the detector gave it; that it is not; or None, that it is not known. While an object that was
        chosen is out of sight, and when its track has gone, tracks are ranked by how it looked, until the word is taken
        back. Raises VerdictError for a probe or a track that is not there."""
        if probe_id not in self._probes:
            raise VerdictError(f"no probe '{probe_id}' is searched, but {', '.join(self._probes) or 'none'}")
        chosen = self._chosen.get(probe_id, (None,))[0] == track_id
        if track_id not in self.gallery and (same or not chosen):
            raise VerdictError(f"there is no track {track_id}, or no more; judge one of the newest reid/matches")
        rejected = self._rejected.setdefault(probe_id, set())
        rejected.discard(track_id)
        if chosen:
            del self._chosen[probe_id]
        if same:
            called = self.gallery.last_seen(track_id)[0].class_name
            self._chosen[probe_id] = track_id, self.gallery.looks(track_id), called
        elif same is False:
            rejected.add(track_id)

    def _as_seen(self, probe: Probe) -> tuple[Probe, str]:
        """(the object as it looked in the track that a person chose, that this is so)."""
        track_id, looks, called = self._chosen[probe.probe_id]
        class_name = probe.class_name if called == probe.class_name else ""
        known = self._seen_as.get(probe.probe_id)
        if known is None or known.signatures != tuple(looks) or known.class_name != class_name:
            known = self._seen_as[probe.probe_id] = Probe(probe.probe_id, class_name, tuple(looks))
        return known, f"by how track {track_id} looked, which a person chose; say which one it is now"

    def process(self, frame: ThermalFrame, detections: Sequence[Detection], *, learn: bool = True) -> FrameResult:
        """Track the detections of a frame and remember how they look.

        learn: False leaves for a call of `learn`, after the ranking that somebody waits for, what more the frame tells
        of tracks that are known already.

        Detections whose class is unknown, and boxes that are not finite or hold too little of the frame, are
        left out and named in the result. A stamp not later than the last forgets tracks, gallery and places: the
        recording starts anew.
        """
        before_ns = self.tracker.stamp_ns
        if before_ns is not None and frame.stamp_ns <= before_ns:
            self.gallery.clear()
            for known in (self._rejected, self._chosen, self._seen_as):
                known.clear()
            self._places = StampPairing(FRAMES_KEPT)
        since_s = 1.0 if before_ns is None else (frame.stamp_ns - before_ns) / 1e9
        self._learned = min(max(round(LEARNED_A_SECOND * since_s), LEARNED_LEAST), LEARNED_MOST)
        values, usable, ignored = frame.values(), [], []
        for detection in detections:
            try:
                if not 0 <= detection.class_id < len(CLASS_NAMES):
                    raise SignatureError(f"class {detection.class_id} is unknown; the detection is ignored")
                crop_box(values, self._cut(values, detection))
                usable.append(detection)
            except SignatureError as error:
                ignored.append(str(error))
        tracked = self.tracker.update(usable, frame.stamp_ns, frame.gray8())
        new = []
        for item in tracked:
            signature = None
            if item.track_id not in self.gallery:
                new.append(item)
                signature = self._sign(values, item)
            self.gallery.add(item, signature, frame.stamp_ns)
        self.gallery.expire(frame.stamp_ns)
        self.targets.keep(self.gallery.track_ids)
        for rejected in self._rejected.values():
            rejected.intersection_update(self.gallery.track_ids)
        if self._embedder is not None:
            self._describe(values, new)
        self._unlearned = values, tracked, self._places.add_frame(frame.stamp_ns, tracked)
        if learn:
            self.learn()
        self._visible = tuple(item.track_id for item in tracked)
        return FrameResult(tracked, tuple(ignored))

    def learn(self) -> None:
        """Add to what is known of the newest frame's tracks where they are and, of a few, those least known first, how
        they look there."""
        if self._unlearned is None:
            return
        (values, tracked, place), self._unlearned = self._unlearned, None
        if place is not None:
            self._locate(*place, tracked)
        items = {item.track_id: item for item in tracked if item.track_id in self.gallery}
        for track_id in self.gallery.to_sign(items, most=self._learned):
            self.gallery.sign(track_id, self._sign(values, items[track_id]))
        if self._embedder is not None:
            self._describe(values, tuple(items.values()))

    def _sign(self, values: np.ndarray, item: TrackedDetection) -> ThermalSignature:
        return compute_signature(crop_box(values, self._cut(values, item.detection)), self._scale)

    def _cut(self, values: np.ndarray, detection: Detection) -> Detection:
        """What crops are cut to. Grey ones are compared with those of the same detector, or of annotations like it."""
        return detection.tight(values.shape[::-1]) if self._scale is CELSIUS else detection

    def _describe(self, values: np.ndarray, tracked: Sequence[TrackedDetection]) -> None:
        """Embed, all at once, what of a frame is news."""
        boxes = {item.track_id: self._cut(values, item.detection).box for item in tracked}
        squares = {}
        for track_id in self.gallery.to_describe(boxes, most=self._learned):
            try:
                squares[track_id] = self._embedder.thermal_squares(values, [boxes[track_id]])[0]
            except CropError:  # too thin for a square: it is known by its signature alone
                continue
        if squares:
            for track_id, *described in zip(squares, *self._embedder.describe(np.stack(list(squares.values())))):
                self.gallery.describe(track_id, *described)

    def add_pose(self, intrinsics: Intrinsics, pose: CameraPose) -> bool:
        """Where the camera was at the capture of a frame, that has come or will; whether its frame was here."""
        tracked = self._places.add_detections(pose.stamp_ns, (intrinsics, pose))
        if tracked is not None:
            self._locate(intrinsics, pose, tracked)
        return tracked is not None

    def _locate(self, intrinsics: Intrinsics, pose: CameraPose, tracked: Sequence[TrackedDetection]) -> None:
        self.unplaced = {}
        for item in tracked:
            if item.track_id in self.gallery:
                try:
                    self.targets.add(intrinsics, pose, item.track_id, item.detection)
                except TargetError as error:
                    self.unplaced[item.track_id] = str(error)

    def rank_all(self) -> tuple[Ranking, ...]:
        """By each probe, in the order in which they came; faster than one by one."""
        self.gallery.measure(self._probes.values(), self._visible if self.visible_only else None)
        return tuple(self.rank(probe_id) for probe_id in self._probes)

    def rank(self, probe_id: str) -> Ranking:
        """Tracks by likeness to a known probe.

        thermal_signature: by Eq. (1), among those of the probe's class. cross_modal_embedding: by descriptors,
        likewise. fused: by the log-odds of all that is known; where the embedding judges classes, among all tracks.
        Before that, by what a person says of them, see judge.
        """
        probe = self._probes[probe_id]
        method, why = self._method(probe)
        rejected, chosen = self._rejected.get(probe_id, ()), self._chosen.get(probe_id, (None,))[0]
        found = chosen if chosen in self.gallery else None
        by_looks = chosen is not None and (found is None or self.visible_only and found not in self._visible)
        if by_looks:
            (probe, why), method = self._as_seen(probe), SIGNATURE
        class_id = CLASS_NAMES.index(probe.class_name) if probe.class_name else None
        judged = method == FUSED and self._embedder is not None  # the class is then one more thing to be judged
        compared = self.gallery.compare(probe, self._visible if self.visible_only else None, class_id=class_id,
                                        of_class=not judged, always=found, synthetic_share=self._synthetic_share)
        places = [self.targets.get(track_id) for track_id in compared.track_ids]
        odds = np.full(len(places), np.nan) if by_looks else self._log_odds(probe, compared, places)
        if method == FUSED:
            order = -odds
        else:
            order = np.where(np.isnan(compared.embedding), np.inf, compared.embedding) if method == EMBEDDING else \
                compared.total
        probability = probability_of(odds)
        is_found = np.array([track_id == found for track_id in compared.track_ids], bool)
        probability = np.where(is_found, 1.0, probability)
        score = 1.0 - probability if method == FUSED else order
        order = np.where(is_found, -np.inf, order)
        least = self._least_probability(probe.length)
        columns = np.stack([compared.total, compared.histogram, compared.mser, score, compared.embedding, probability])
        ordered = [n for n in np.lexsort((compared.track_ids, compared.total, order)).tolist()
                   if compared.track_ids[n] not in rejected]
        matches = []
        for rank, n in enumerate(ordered, 1):
            detection, stamp_ns, length = self.gallery.last_seen(compared.track_ids[n])
            total, histogram, mser, own_score, embedding, chance = columns[:, n].tolist()
            matches.append(Match(
                rank, compared.track_ids[n], length, detection, stamp_ns, SignatureDistance(total, histogram, mser),
                own_score, embedding, NAN if places[n] is None else places[n].size_m, chance,
                chance >= least if found is None else bool(is_found[n])))
        return Ranking(probe_id, method, tuple(matches), why, least)

    def _method(self, probe: Probe) -> tuple[str, str]:
        """(what to rank a probe by, why that is not what was asked for)."""
        if self._scale is not CELSIUS:
            return SIGNATURE, "the camera does not measure temperatures: no embedding, no probabilities"
        if self.method != SIGNATURE and not len(probe.descriptors) and (
                self.method == EMBEDDING or self._embedder is not None and probe.length is None):
            # A thermal crop: within one band Eq. (1) tells objects apart, and what is fitted for photographs drowns it.
            return SIGNATURE, f"probe '{probe.probe_id}' has no descriptors"
        return self.method, ""

    def _log_odds(self, probe: Probe, compared: Compared, places: Sequence[TargetTrack | None]) -> np.ndarray:
        if self._fusion is None or self._scale is not CELSIUS:
            return np.full(len(places), np.nan)
        photograph = probe.photograph if probe.descriptor_model == self._fusion.descriptor_model else None
        expected = self._fusion.expected_size(photograph, probe.class_name)
        views, mean = _views_of(places)
        seen = mean(self._fusion.seen_size(views, probe.class_name))
        ratio = None
        if probe.length is not None:
            tight_views, sigma = freed(views)
            ratio = self._fusion.length_ratio(mean(self._fusion.seen_size(tight_views, probe.class_name)), probe.length,
                                              probe.class_name, mean(sigma))
        terms = PairTerms(compared.histogram, compared.mser, compared.embedding, compared.class_probability,
                          seen - expected, ratio)
        return self._fusion.score(terms, probe.class_name)

    def target(self, match: Match, grid: LocalGrid) -> Target | None:
        """Where a match's object was when it was last seen from a known place; None where it never was."""
        track = self.targets.get(match.track_id)
        return None if track is None else self.targets.target(match.track_id, track.stamp_ns, grid)


def _views_of(places: Sequence[TargetTrack | None]) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(views (n, 4) of all N tracks, what makes of numbers (n,) their means in each track (N,), NaN where it has none).
    """
    counts = np.array([0 if place is None else len(place.views) for place in places], int)
    views = np.concatenate([np.zeros((0, 4)), *(place.views for place in places if place is not None)])
    of = np.repeat(np.arange(len(places)), counts)
    return views, lambda values: np.bincount(of, values, len(places)) / np.where(counts, counts, NAN)
