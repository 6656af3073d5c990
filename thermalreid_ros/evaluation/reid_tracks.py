"""Re-identification measured on annotated frames that carry no identities: HIT-UAV's.

Identities are made by following annotations through a clip where nothing else can be meant
(`link_identities`); they were looked at. A probe is the crop of an object in one frame, its gallery all
objects of its class in another frame, several frames away: these are distinct for certain, whatever the links
say, and the links only tell which is the true one. In each draw every identity is a probe once, with frames
chosen at random.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.detection.types import CLASS_NAMES
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.cmc import CmcFigures, cmc_figures, guessing, over_draws, true_rank
from thermalreid_ros.evaluation.recording import RecordedFrame
from thermalreid_ros.reid.motion import CameraMotionEstimator
from thermalreid_ros.reid.signature import (GREY, SignatureError, ThermalSignature, compute_signature,
                                            crop_box, signature_distance)

MAX_MISSED_FRAMES = 1
MAX_STEP_PX = 25.0  # a walking person at 60 m and 2 Hz moves by 12 px
MIN_PROBES = 10
CLEARANCE_PX = 20.0  # any other pairing must be worse by this


@dataclass(frozen=True)
class Seen:
    """An annotated object in one frame of a clip."""

    identity: int
    class_name: str
    signature: ThermalSignature


@dataclass(frozen=True)
class Trial:
    """A probe against a gallery: the terms of Eq. (1), float64 (n,), and where the true match stands."""

    class_name: str
    histogram: np.ndarray
    mser: np.ndarray
    true_index: int

    def rank(self, beta_h: float) -> int:
        return true_rank(beta_h * self.histogram + (1.0 - beta_h) * self.mser, self.true_index)


@dataclass(frozen=True)
class Evaluation:
    """Over all draws; probes: in one draw; guessing: the CMC(1) of a random order."""

    mean: CmcFigures
    std: CmcFigures
    probes: float
    gallery_size: float
    guessing: float


def link_identities(frames: Sequence[RecordedFrame]) -> list[list[int]]:
    """The identity of each object of each frame, in their order; frames in filming order.

    An object continues that of the frame before when, the camera's motion undone, it is the nearest of its
    class both ways, within 25 px, and every other pairing of either is worse by 20 px. Whatever is less
    certain begins anew, so that one object may hold several identities, but no identity several objects.
    """
    identities: list[list[int]] = []
    estimator, previous, count = CameraMotionEstimator(), None, 0
    for frame in frames:
        motion = estimator.update(frame.gray8())
        own = [-1] * len(frame.objects)
        if previous is not None and not motion.is_cut and frame.clip == previous.clip \
                and frame.number - previous.number <= 1 + MAX_MISSED_FRAMES:
            for before, now in _unambiguous(previous, frame, motion.matrix):
                own[now] = identities[-1][before]
        for index, identity in enumerate(own):
            if identity < 0:
                own[index], count = count, count + 1
        identities.append(own)
        previous = frame
    return identities


def see(frames: Sequence[RecordedFrame],
        progress: Callable[[Iterable], Iterable] = iter) -> dict[tuple, list[Seen]]:
    """The objects of each frame by (clip, number), with identities and signatures, less those too small."""
    seen = {}
    for frame, identities in progress(list(zip(frames, link_identities(frames)))):
        values = frame.gray8().astype(np.float32)
        objects = []
        for detection, identity in zip(frame.objects, identities):
            try:
                signature = compute_signature(crop_box(values, detection), GREY)
            except SignatureError:
                continue
            objects.append(Seen(identity, detection.class_name, signature))
        seen[frame.clip, frame.number] = objects
    return seen


def draw_trials(seen: dict[tuple, list[Seen]], *, draws: int, seed: int, min_gap: int,
                min_gallery: int) -> list[list[Trial]]:
    """For each draw, one trial for each identity seen in two frames at least min_gap apart, the second of
    which shows min_gallery objects of its class or more.

    Raises ThermalReidError where no identity qualifies.
    """
    sights = defaultdict(list)  # of each identity: frame, object, whether the frame can be a gallery
    for key, objects in seen.items():
        for item in objects:
            rivals = sum(other.class_name == item.class_name for other in objects)
            sights[item.identity].append((key, item, rivals >= min_gallery))
    pairs = {identity: [(probe, key) for probe_key, probe, _ in places for key, _, fit in places
                        if fit and key[0] == probe_key[0] and abs(key[1] - probe_key[1]) >= min_gap]
             for identity, places in sights.items()}
    pairs = {identity: choices for identity, choices in pairs.items() if choices}
    if not pairs:
        raise ThermalReidError(f"no object is seen twice {min_gap} frames apart among {min_gallery} of its "
                               f"class; give more clips, or a smaller gap or gallery")
    rng = np.random.default_rng(seed)
    return [[_trial(choices[rng.integers(len(choices))], seen) for choices in pairs.values()]
            for _ in range(draws)]


def evaluate(draws: Sequence[Sequence[Trial]], beta_h: float, class_name: str = "") -> Evaluation | None:
    """CMC at one weight, over the probes of a class or of all; None where the class has no probe."""
    chosen = [[trial for trial in draw if class_name in ("", trial.class_name)] for draw in draws]
    if not chosen[0]:
        return None
    sizes = np.array([len(trial.mser) for draw in chosen for trial in draw])
    figures = [cmc_figures([trial.rank(beta_h) for trial in draw], [len(trial.mser) for trial in draw])
               for draw in chosen]
    mean, std = over_draws(figures)
    return Evaluation(mean, std, len(sizes) / len(chosen), float(sizes.mean()), guessing(sizes))


def classes_in(draws: Sequence[Sequence[Trial]]) -> list[str]:
    """Classes that have probes, in the project's order."""
    present = {trial.class_name for trial in draws[0]}
    return [name for name in CLASS_NAMES if name in present]


def best_beta_h(draws: Sequence[Sequence[Trial]], grid: Sequence[float]) -> float:
    """The weight with the highest nAUC, mean over the classes, of which those with fewer than 10 probes
    are left out unless all are so. nAUC weighs the rank of every probe; with some hundred probes the
    differences in CMC(1) between neighbouring weights drown in its spread over the draws."""
    names = [name for name in classes_in(draws) if evaluate(draws, 0.0, name).probes >= MIN_PROBES] or [""]
    return max(grid, key=lambda beta_h: np.mean([evaluate(draws, beta_h, name).mean.nauc for name in names]))


def _trial(pair: tuple[Seen, tuple], seen: dict[tuple, list[Seen]]) -> Trial:
    probe, gallery_key = pair
    gallery = [item for item in seen[gallery_key] if item.class_name == probe.class_name]
    terms = [signature_distance(probe.signature, item.signature, 1.0) for item in gallery]
    return Trial(probe.class_name, np.array([t.histogram for t in terms]), np.array([t.mser for t in terms]),
                 [item.identity for item in gallery].index(probe.identity))


def _unambiguous(previous: RecordedFrame, frame: RecordedFrame, matrix: np.ndarray) -> list[tuple[int, int]]:
    if not previous.objects or not frame.objects:
        return []
    before = np.array([item.centre for item in previous.objects]) @ matrix[:, :2].T + matrix[:, 2]
    distance = np.linalg.norm(before[:, None] - np.array([item.centre for item in frame.objects]), axis=2)
    links = []
    for row, column in zip(*np.nonzero(distance <= MAX_STEP_PX)):
        others = np.concatenate((np.delete(distance[row], column), np.delete(distance[:, column], row)))
        if previous.objects[row].class_id == frame.objects[column].class_id \
                and others.min(initial=np.inf) >= distance[row, column] + CLEARANCE_PX:
            links.append((int(row), int(column)))
    return links
