"""From labelled frames, a rough prior and dead reckoning to where the camera is: the core object of localization.

Inputs may come in any order and late: attitude, odometry and altitude are kept for some seconds and read at the
capture time of each frame. All axes are those of the map's grid: whoever has true east and north turns them by
`SemanticMap.grid.convergence_rad` first. Not for use by several threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from thermalreid_ros.camera.geometry import GroundView, Intrinsics, check_attitude, check_height
from thermalreid_ros.localization.evidence import Evidence, EvidenceField, GroundSeen, LearnedTable
from thermalreid_ros.localization.filter import GridSearch, Particles, ParticleSettings, SearchSettings
from thermalreid_ros.localization.history import Attitude, HeightGate, History, Odometry, allowed_speed_m_s
from thermalreid_ros.localization.proof import Proof
from thermalreid_ros.localization.types import (Candidate, LocalizationError, LocalizationResult, PositionFix,
                                                SemanticMask, Verdict)
from thermalreid_ros.maps.classes import CLASS_COUNT, SemanticClass
from thermalreid_ros.maps.store import SemanticMap

_NORTH_UP = 0.5 * np.pi
_SECOND = 1_000_000_000
_STANDING_M_S = 1.0  # readings of a vehicle on the ground wander
_GOES_ON_M = 50.0  # between two readings of an odometry that goes on while the clock is set back


@dataclass(frozen=True)
class LocalizerConfig:
    """seed: of all random numbers.

    Evidence. cell_m: of the ground that is counted once. again_m: the way after which ground counts again.
    area_per_point_m2: ground that is worth one independent label. doubt: share of labels taken to mean nothing.
    table_points, learned_points: what the table of labels is worth at first against those that are seen, and how many
    of these are remembered. blur_m: how far the map may lie off. off_map_penalty: nats a point outside of the map.
    max_range_m: of ground that is looked at. vegetation_m: how high vegetation is on the whole. points: most that are
    looked up in a frame.

    Search. search_sigmas, search_limit_m: half the side of the area that is searched. block_points, check_points:
    effective points that are gathered for a step of it, before a place is proven and after. yaws_a_frame: how much of
    a step is done with each frame.

    Gates. lock_share, lock_points, lock_blocks: probability near the best place, evidence, and steps in a row that
    agree, for a place to be taken up. proof_points, proof_nats, proof_window_points: of new ground that must then fit
    it so much better than an average place, within so many points, before there is a fix: the place was chosen to fit
    what was seen, but not what comes. sure_share, sure_gain: where the search gives it so much probability, as often,
    so much a point is enough. uniform_share: of one class, from which on a frame shows too little. spread_limit_m,
    share_limit: of the particles, beyond which there is no fix. agree_m: how far search and particles may lie apart.
    fit_limit, fit_points: the least gain over an average place, nats a point, over so many effective points of new
    ground; view_limit, view_s: the same of all that is in view, over some seconds. still_s, still_gain: the least of
    it where hardly new ground has come for so long: with an odometry that stands still while the vehicle flies, nothing
    else would tell. lost_s: after so long without either, the place is given up. prior_chi2: beyond which a fix
    contradicts its prior. prior_heard_s: how long a prior is compared with the place. prior_doubt_s: how long a place
    is kept, without fixes, where it was the prior that jumped: such a jump is more often the prior's fault than the
    place's; likewise, before there is a place, a search is begun anew for a prior that contradicts it, but not again so
    soon. prior_drift: share of the way since a prior by which it is less sure. stood_s: a prior from longer before the
    odometry's first reading waits for a second of that, which tells whether the vehicle had stood until then. resume_s:
    how old a place of before a restart may be. resume_points, resume_gain: the proof that such a place needs, of which
    all that is in view must fit it as well: less new ground, for it was not chosen to fit what is seen, but a better
    fit, for the odometry may have begun anew.

    Accuracy. floor_m: standard deviation that nothing brings below. relief_m: of the ground in view against that
    below.

    Inputs. attitude_age_s, odometry_age_s, altitude_age_s: how far from a frame they may lie. history_s: how long they
    are kept. attitude_held_s, attitude_held_m: one that stays the same for longer than that, while the vehicle moves
    on, is no attitude. jump_sigma_m: how far from where it was the vehicle may be once the odometry has jumped.
    backwards_s: stamps that go back by more, behind the last frame too, mean that the clock was set back.
    speed_limit_m_s, jump_m: faster odometry has jumped, if so far. height_hold_s, height_step_m, height_step_share: see
    history.HeightGate. gap_s: odometry that was silent for longer may have begun anew, and a place is proven again.
    """

    seed: int = 0
    cell_m: float = 2.0
    again_m: float = 300.0
    area_per_point_m2: float = 300.0
    doubt: float = 0.2
    table_points: float = 100.0
    learned_points: float = 500.0
    blur_m: float = 3.0
    off_map_penalty: float = 0.1
    max_range_m: float = 200.0
    vegetation_m: float = 2.0
    points: int = 400
    search_sigmas: float = 3.0
    search_limit_m: float = 1200.0
    block_points: float = 6.0
    check_points: float = 20.0
    yaws_a_frame: int = 2
    lock_share: float = 0.9
    lock_points: float = 20.0
    lock_blocks: int = 2
    proof_points: float = 12.0
    proof_nats: float = 6.0
    proof_window_points: float = 60.0
    sure_share: float = 0.99
    sure_gain: float = 0.05
    uniform_share: float = 0.96
    spread_limit_m: float = 20.0
    share_limit: float = 0.9
    agree_m: float = 40.0
    fit_limit: float = 0.0
    fit_points: float = 20.0
    view_limit: float = -0.05
    view_s: float = 2.0
    still_s: float = 3.0
    still_gain: float = 0.1
    lost_s: float = 60.0
    prior_chi2: float = 13.8
    prior_heard_s: float = 10.0
    prior_doubt_s: float = 30.0
    prior_drift: float = 0.03
    stood_s: float = 2.0
    resume_s: float = 30.0
    resume_points: float = 4.0
    resume_gain: float = 0.1
    floor_m: float = 1.5
    relief_m: float = 1.2
    attitude_age_s: float = 0.1
    attitude_held_s: float = 3.0
    attitude_held_m: float = 20.0
    odometry_age_s: float = 0.3
    altitude_age_s: float = 1.0
    history_s: float = 20.0
    jump_sigma_m: float = 150.0
    backwards_s: float = 5.0
    speed_limit_m_s: float = 80.0
    jump_m: float = 8.0
    height_hold_s: float = 10.0
    height_step_m: float = 5.0
    height_step_share: float = 0.08
    gap_s: float = 1.0
    search: SearchSettings = field(default_factory=SearchSettings)
    particles: ParticleSettings = field(default_factory=ParticleSettings)


@dataclass(frozen=True, eq=False)
class _Frame:
    """What is known when a frame comes. camera_m: (2,), by the odometry."""

    stamp_ns: int
    rotation: np.ndarray
    camera_m: np.ndarray
    height_m: float


@dataclass
class _Prior:
    """A rough position. early: the odometry began later. origin_m: (2,), where it has the odometry's origin, by what
    that said at its stamp, or off_ns later where it began later. stray_m: how far the vehicle may have gone until then
    by its speed in the first second after it, 0 of one that stood; None until that is known. way_m: of the vehicle when
    it was given."""

    stamp_ns: int
    place: np.ndarray
    sigma_m: float
    early: bool
    origin_m: np.ndarray | None = None
    off_ns: int | None = None
    stray_m: float | None = None
    way_m: float = 0.0

    def anchor(self, odometry: Odometry) -> None:
        """Find the origin before what the odometry said then is forgotten. To be called after each reading."""
        if self.off_ns == 0 or odometry.newest_ns is None or odometry.newest_ns < self.stamp_ns:
            return
        if (then := odometry.about(self.stamp_ns)) is not None:
            self.origin_m, self.off_ns, self.stray_m = self.place - then[:2], 0, 0.0
        elif self.early:
            first_ns, first = odometry.first
            if self.off_ns is None or first_ns - self.stamp_ns < self.off_ns:
                self.origin_m, self.off_ns = self.place - first[:2], first_ns - self.stamp_ns
            if self.stray_m is None and (later := odometry.about(first_ns + _SECOND)) is not None:
                speed_m_s = float(np.hypot(*(later - first)[:2]))
                self.stray_m = speed_m_s * self.off_ns / _SECOND if speed_m_s > _STANDING_M_S else 0.0

    def now(self, camera_m: np.ndarray) -> np.ndarray:
        """The place, moved on by the odometry; as it was given where that has not come to its time yet."""
        return self.place if self.origin_m is None else self.origin_m + camera_m


@dataclass(frozen=True)
class Handover:
    """The place at stamp_ns, for a localizer that takes over from one that has ended.

    x, y: on the grid, spread_m: their standard deviation. camera_x, camera_y: the same place by the odometry;
    speed_m_s: likewise.
    """

    stamp_ns: int
    x: float
    y: float
    spread_m: float
    yaw_error_rad: float
    camera_x: float
    camera_y: float
    speed_m_s: float


@dataclass(frozen=True, eq=False)
class Belief:
    """What a Localizer thinks after a frame, for pictures and diagnostics.

    probability: float32 (n, n), of the wide search's cells, row 0 in the south; bounds: (x_min, y_min, x_max, y_max)
    of them, moved to where the vehicle is now. particles: float64 (up to 500, 3) of x, y and yaw error, drawn by
    their weights; none before a place is found.
    """

    probability: np.ndarray
    bounds: tuple[float, float, float, float]
    particles: np.ndarray


class Localizer:
    """semantic_map: on whose grid everything is. confusion: the segmenter's P(predicted | true), float (5, 5), rows:
    true; None for a segmenter that has not been measured."""

    def __init__(self, semantic_map: SemanticMap, config: LocalizerConfig | None = None,
                 confusion: np.ndarray | None = None):
        self.map, self.config = semantic_map, config or LocalizerConfig()
        self._confusion = confusion
        self.reset()

    def reset(self) -> None:
        """Forget everything but the map."""
        c = self.config
        self._rng = np.random.default_rng(c.seed)
        self._table = LearnedTable(self._confusion, c.doubt, c.table_points, c.learned_points)
        self._attitude = Attitude(c.attitude_age_s, c.history_s)
        self._odometry = Odometry(c.odometry_age_s, c.history_s, c.speed_limit_m_s, c.jump_m, c.gap_s)
        self._altitude = History("altitude", c.altitude_age_s, c.history_s)
        self._heights = HeightGate(c.height_hold_s, c.height_step_m, c.height_step_share, 5.0)
        self._way_m = 0.0  # of the vehicle, by the odometry between frames
        self._prior: _Prior | None = None
        # Where the clock was set back: the prior of before, and where the odometry was.
        self._before: tuple[_Prior, np.ndarray | None] | None = None
        self._stamp_ns: int | None = None
        self._handed: Handover | None = None
        self._forget_place()

    def _forget_place(self) -> None:
        c = self.config
        self._search: GridSearch | None = None
        self._particles: Particles | None = None
        self._coarse: EvidenceField | None = None
        self._fine: EvidenceField | None = None
        self._ground = GroundSeen(c.cell_m, c.again_m)
        self._pool: list[Evidence] = []
        self._recent: list[tuple[float, Evidence]] = []
        self._camera_m: np.ndarray | None = None
        self._speed_m_s = 0.0
        self._travelled_m = self._block_travelled_m = 0.0
        self._places: list[tuple[float, float, float, float, float]] = []
        self._agreed = self._certain = self._contradicted = 0
        self._proof = Proof(c.proof_window_points)
        self._fit = self._fit_weight = 0.0
        self._view_fit, self._view_seen = 0.0, 1.0
        self._since_lock = 0.0
        self._unfit_ns: int | None = None  # since when the map at the place does not fit
        self._proven = self._resumed = self._sure = False
        self._agreed_prior_m: np.ndarray | None = None  # the last prior that agreed, less the odometry
        self._doubt_ns: int | None = None  # since when the prior contradicts
        self._sought_ns: int | None = None  # when one last began the search anew
        self._still_s = self._still_points = 0.0  # since a point's worth of new ground came, and what has come

    # Inputs

    def set_prior(self, stamp_ns: int, x: float, y: float, sigma_m: float) -> None:
        """A rough position on the grid, right to sigma_m on each axis at stamp_ns. The first one starts the search,
        later ones check its outcome. One that comes again, or late, behind a newer one, is passed over."""
        if not (np.isfinite([x, y, sigma_m]).all() and sigma_m > 0):
            raise LocalizationError(f"a prior of ({x:g}, {y:g}) within {sigma_m:g} m is no rough position")
        held, begun_ns = self._prior, self._odometry.begun_ns
        if held is not None and stamp_ns <= held.stamp_ns:
            now_ns = self._odometry.newest_ns if self._stamp_ns is None else self._stamp_ns
            of_no_time = now_ns is not None and self._went_back(now_ns, held.stamp_ns)
            if not of_no_time:
                return
        prior = _Prior(int(stamp_ns), np.array([x, y], np.float64), float(sigma_m),
                       early=begun_ns is None or stamp_ns < begun_ns, way_m=self._way_m)
        if not prior.early and self._odometry.newest_ns is not None and stamp_ns < self._odometry.first[0]:
            raise LocalizationError(f"a prior of {(self._odometry.newest_ns - stamp_ns) / _SECOND:.0f} s ago is older "
                                    "than the odometry that is kept; nobody knows where the vehicle went since")
        self._prior, self._before = prior, None
        prior.anchor(self._odometry)

    def resume(self, handed: Handover | None) -> None:
        """Begin at a place that a localizer before this one had found, if any, where the odometry goes on from there:
        it is checked against new ground, as any place that is taken up, but need not be searched for."""
        self._handed = handed

    def handover(self) -> Handover | None:
        """The place as of the last frame; None while it is not known well."""
        known = self._particles is not None and self._proven and self._fits and self._shown
        if not known or self._doubt_ns is not None:
            return None
        mean, covariance = self._particles.mean, self._particles.covariance
        camera = self._camera_m + self._odometry.offset_m[:2]  # as the odometry itself says
        return Handover(self._stamp_ns, float(mean[Particles.X]), float(mean[Particles.Y]),
                        float(np.sqrt(0.5 * np.trace(covariance[:2, :2]))), float(mean[Particles.YAW]),
                        float(camera[0]), float(camera[1]), self._speed_m_s)

    def add_attitude(self, stamp_ns: int, rotation: np.ndarray) -> None:
        """rotation: (3, 3), optical axes to grid axes."""
        rotation = np.array(rotation, np.float64)  # a copy: it is kept
        check_attitude(rotation)
        self._add(self._attitude, stamp_ns, rotation)

    def add_odometry(self, stamp_ns: int, position_m: np.ndarray) -> None:
        """position_m: (3,), dead reckoning from anywhere, along the axes of the grid."""
        position_m = np.asarray(position_m, np.float64)
        if position_m.shape != (3,) or not np.isfinite(position_m).all():
            raise LocalizationError("odometry is three finite numbers, metres")
        self._add(self._odometry, stamp_ns, position_m)
        if self._before is not None:
            self._prior = self._prior_again(stamp_ns, position_m)
        if self._prior is not None:
            if self._prior.off_ns is None and self._went_back(stamp_ns, self._prior.stamp_ns):
                self._prior = replace(self._prior, stamp_ns=int(stamp_ns))  # it was given while the clock was ahead
            self._prior.anchor(self._odometry)

    def add_altitude(self, stamp_ns: int, height_m: float) -> None:
        """height_m: above the ground right below; altitude_fault says where it is not believed."""
        check_height(height_m)
        moved = self._odometry.at(int(stamp_ns))
        believed_m = self._heights.height_m(int(stamp_ns), float(height_m), None if moved is None else float(moved[2]))
        self._add(self._altitude, stamp_ns, np.array([believed_m], np.float64))

    @property
    def altitude_fault(self) -> str:
        """Why the last altitude was not believed, or ""."""
        return self._heights.fault

    def _add(self, history: History, stamp_ns: int, value: np.ndarray) -> None:
        if history.newest_ns is not None and self._went_back(stamp_ns, history.newest_ns):
            if self._set_back(stamp_ns, history.newest_ns):
                self._begin_again()
                history = {"attitude": self._attitude, "odometry": self._odometry,
                           "altitude": self._altitude}[history.name]
            else:
                history.forget_after(int(stamp_ns))
        history.add(int(stamp_ns), value)

    def _set_back(self, stamp_ns: int, newest_ns: int) -> bool:
        """Whether the clock was: a stamp that goes back, but not behind the last frame, says that the one before it was
        of no time."""
        return self._went_back(stamp_ns, newest_ns) and self._stamp_ns is not None and \
            self._went_back(stamp_ns, self._stamp_ns)

    def _begin_again(self) -> None:
        """The clock was set back: forget all but the rough position, of which the odometry will tell whether
        time goes on by another name or a recording starts over."""
        prior, last_m, offset_m = self._prior, self._odometry.last, self._odometry.offset_m[:2]
        way_m = self._way_m  # which begins at 0 again
        self.reset()
        if prior is not None:
            origin_m = None if prior.origin_m is None else prior.origin_m - offset_m  # of what it itself says
            self._before = replace(prior, origin_m=origin_m, way_m=prior.way_m - way_m), last_m

    def _prior_again(self, stamp_ns: int, position_m: np.ndarray) -> _Prior | None:
        """The rough position from before the clock was set back, once the odometry speaks again: where that goes on, so
        does the way since; else all begins anew, and one that was given later than this is of no use."""
        (prior, last_m), self._before = self._before, None
        if prior.origin_m is not None and last_m is not None and np.hypot(*(position_m - last_m)[:2]) < _GOES_ON_M:
            return replace(prior, stamp_ns=int(stamp_ns), early=True, off_ns=0)
        return None if prior.stamp_ns > stamp_ns + _SECOND else \
            replace(prior, early=True, origin_m=None, off_ns=None, stray_m=None, way_m=0.0)

    def _went_back(self, stamp_ns: int, newest_ns: int) -> bool:
        return stamp_ns < newest_ns - self.config.backwards_s * _SECOND

    # Frames

    def process(self, mask: SemanticMask, intrinsics: Intrinsics) -> LocalizationResult:
        """What a frame's labelling says of where the camera was. One result a frame; never raises for its inputs'
        times or absence."""
        stamp_ns = int(mask.stamp_ns)
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            if not self._went_back(stamp_ns, self._stamp_ns):
                late = (self._stamp_ns - stamp_ns) / _SECOND
                return LocalizationResult(stamp_ns, Verdict.REFUSED, "the frame was seen already" if late == 0.0 else
                                          f"the frame is {late:.2f} s older than the one before")
            self._begin_again()
        frame = self._frame(stamp_ns)
        if isinstance(frame, str):
            return LocalizationResult(stamp_ns, Verdict.NO_INPUT, frame)
        moved, seconds = self._moved(frame)
        if self._particles is not None:
            self._particles.move(moved, seconds)
        self._check_prior(frame)
        if self._search is None and not self._start(frame):
            return LocalizationResult(stamp_ns, Verdict.OFF_MAP, "nothing around the prior is mapped")
        seen = self._ground.look(mask, intrinsics, frame.rotation, frame.height_m, frame.camera_m, self._travelled_m,
                                 self._lean_m, self.config.area_per_point_m2, self.config.max_range_m)
        evidence, new = seen if seen is not None else (None, None)
        fresh = self._gather(evidence, new)
        if self._handed is not None and fresh is not None:
            self._take_over(frame)
            fresh = None  # taken in, and no proof of a place that was fitted to it
        tracked = self._particles
        self._search_on(frame)
        if self._search is None:
            return LocalizationResult(stamp_ns, Verdict.OFF_MAP, "nothing around the place is mapped")
        if self._particles is not None:  # a place just taken up was fitted to this frame, too
            self._track(frame, evidence, fresh if self._particles is tracked else None, seconds)
        return self._judge(frame, evidence, fresh)

    def awaits(self, stamp_ns: int, wait_s: float) -> bool:
        """Whether attitude or odometry of a time are on their way: what is farther behind does not even come near it
        within wait_s. An altitude holds for longer than that."""
        newest = [history.newest_ns for history in (self._attitude, self._odometry, self._altitude)]
        if None in newest or self._prior is None and self._handed is None:
            return False
        return 0 < stamp_ns - min(newest[:2]) <= (wait_s + self.config.attitude_age_s) * _SECOND

    def view(self, stamp_ns: int, intrinsics: Intrinsics) -> GroundView | None:
        """From where a frame was taken, but for the place: by attitude and altitude, which need no fix; None where
        either is not known then."""
        attitude, altitude = self._attitude.at(stamp_ns), self._altitude.at(stamp_ns)
        if attitude is None or altitude is None:
            return None
        return GroundView(intrinsics, _nearest_rotation(attitude), float(altitude[0]))

    def belief(self) -> Belief | None:
        """Where it thinks that the camera may be; None before the search has begun."""
        if self._search is None:
            return None
        search, cloud = self._search, self._particles
        west, south = np.array([search.x_min, search.y_min]) + self._camera_m
        side = search.count * search.settings.cell_m
        particles = np.zeros((0, 3)) if cloud is None else cloud.state[np.random.default_rng(0).choice(
            len(cloud.weights), 500, p=cloud.weights)][:, [Particles.X, Particles.Y, Particles.YAW]]
        return Belief(np.exp(search.logp).sum(axis=0), (float(west), float(south), float(west + side),
                                                        float(south + side)), particles)

    def _frame(self, stamp_ns: int) -> _Frame | str:
        """What is known at a stamp, or what is missing."""
        if self._prior is None and self._handed is None:
            return "no prior position yet"
        values = []
        for history in (self._attitude, self._odometry, self._altitude):
            value = history.at(stamp_ns)
            if value is None:
                if history.newest_ns is None:
                    return f"no {history.name} yet"
                older_s = (stamp_ns - history.newest_ns) / _SECOND
                return f"no {history.name} near the frame: " + (
                    f"the newest is {older_s:.2f} s older" if older_s > 0.0 else "there is a gap in it")
            values.append(value)
        if (frozen_s := self._odometry.frozen_s(stamp_ns)) > 0.0:
            return f"the odometry has said one position for {frozen_s:.1f} s of a vehicle that was moving; it is lost"
        held_ns = self._attitude.held_since_ns(stamp_ns)
        if (held_s := (stamp_ns - held_ns) / _SECOND) > self.config.attitude_held_s and np.hypot(
                *(values[1] - self._odometry.at_or_after(held_ns))[:2]) > self.config.attitude_held_m:
            return f"the attitude has been the same to the last digit for {held_s:.1f} s of flight; its sensor is lost"
        if self._handed is None and self._particles is None and (fault := self._strayed()):
            return fault
        frame = _Frame(stamp_ns, _nearest_rotation(values[0]), values[1][:2], float(values[2][0]))
        if self._prior is None:
            self._prior = self._prior_of(self._handed, frame)
        return "no prior position yet" if self._prior is None else frame

    def _strayed(self) -> str:
        """Why a prior from before the odometry says nothing of now, or ""."""
        c, prior = self.config, self._prior
        if not prior.off_ns or prior.off_ns < c.stood_s * _SECOND:
            return ""
        age = f"the prior is from {prior.off_ns / _SECOND:.0f} s before the odometry began"
        if prior.stray_m is None:
            return f"{age}; a second of that will tell whether the vehicle had stood until then"
        return f"{age}, and the vehicle was moving then; give one of now" if prior.stray_m > c.search_limit_m else ""

    def _prior_of(self, handed: Handover, frame: _Frame) -> _Prior | None:
        """A rough position of the place that was handed over; None where that is too old."""
        seconds = (frame.stamp_ns - handed.stamp_ns) / _SECOND
        if not 0.0 < seconds <= self.config.resume_s:
            return None
        moved, goes_on = self._way_since(handed, frame)
        place = np.array([handed.x, handed.y]) + (moved if goes_on else 0.0)
        sigma_m = float(np.hypot(self.config.jump_sigma_m, 0.0 if goes_on else handed.speed_m_s * seconds))
        return _Prior(frame.stamp_ns, place, sigma_m, False, place - frame.camera_m, 0, 0.0, self._way_m)

    def _way_since(self, handed: Handover, frame: _Frame) -> tuple[np.ndarray, bool]:
        """(metres by the odometry since a place was handed over, whether the vehicle can have flown them: else the
        odometry has begun anew)."""
        moved = frame.camera_m + self._odometry.offset_m[:2] - (handed.camera_x, handed.camera_y)
        seconds = (frame.stamp_ns - handed.stamp_ns) / _SECOND
        return moved, float(np.hypot(*moved)) <= allowed_speed_m_s(handed.speed_m_s) * seconds

    def _moved(self, frame: _Frame) -> tuple[np.ndarray, float]:
        """(metres by the odometry, seconds) since the frame before; starts anew where the odometry has not gone on."""
        handed = self.handover()
        seconds = 0.0 if self._stamp_ns is None else (frame.stamp_ns - self._stamp_ns) / _SECOND
        self._stamp_ns = frame.stamp_ns
        moved = np.zeros(2) if self._camera_m is None else frame.camera_m - self._camera_m
        jumped, paused = self._odometry.broken(frame.stamp_ns)
        if jumped or paused and self._particles is not None and self._proven:
            self._handed = None if jumped else handed
            self._start_anew(frame, moved)
        self._camera_m = frame.camera_m
        self._travelled_m += float(np.hypot(*moved))
        self._way_m += float(np.hypot(*moved))
        then_m = self._odometry.about(frame.stamp_ns - _SECOND)  # fast cameras' frames may have one reading
        self._speed_m_s = 0.0 if then_m is None else float(np.hypot(*(frame.camera_m - then_m[:2])))
        return moved, seconds

    def _start_anew(self, frame: _Frame, moved: np.ndarray) -> None:
        """Search around the last place, or else where the search was begun if the prior knows no better."""
        c, around = self.config, None
        if self._particles is not None:
            around = self._particles.mean[:2] + moved, c.jump_sigma_m
        elif self._search is not None:
            sigma_m = float(np.hypot(self._search.sigma_m, c.jump_sigma_m))
            around = (self._search.centre + frame.camera_m, sigma_m) if sigma_m < self._prior_sigma_m(frame) else None
        self._forget_place()
        self._camera_m = frame.camera_m
        if around is not None:
            self._start(frame, *around)

    def _start(self, frame: _Frame, centre: np.ndarray | None = None, sigma_m: float | None = None) -> bool:
        """Begin a search around the prior, or a place; False where nothing there is mapped."""
        c = self.config
        if centre is None:
            centre, sigma_m = self._prior.now(frame.camera_m), self._prior_sigma_m(frame)
            self._agreed_prior_m = centre - frame.camera_m
        half = float(np.clip(c.search_sigmas * sigma_m, 200.0, c.search_limit_m))
        self._half_m = half
        self._look_around(centre)
        n, cell = self._coarse.count, self._coarse.resolution_m
        inner = int(half / cell)
        if self._coarse.seen[n // 2 - inner:n // 2 + inner, n // 2 - inner:n // 2 + inner].mean() < 0.02:
            self._search = self._particles = None
            return False
        anchored = centre - frame.camera_m
        self._search = GridSearch(*anchored, half, sigma_m, c.search)
        self._places, self._agreed, self._certain, self._contradicted = [], 0, 0, 0
        heights = self.map.heights(*centre, _NORTH_UP, 4.0, int(half / 2.0))
        tall = heights[heights > 0]
        self._lean_m = np.zeros(CLASS_COUNT)
        self._lean_m[SemanticClass.BUILDING] = 0.7 * float(tall.mean()) if len(tall) else 5.0
        self._lean_m[SemanticClass.VEGETATION] = c.vegetation_m
        return True

    def _look_around(self, centre: np.ndarray) -> None:
        """Read the map for the search, some way on around a place."""
        c = self.config
        self._coarse = EvidenceField(self.map, self._table.table, *centre, self._half_m + 300.0 + c.max_range_m,
                                     c.search.cell_m, c.blur_m, c.off_map_penalty)
        self._table.shares = self._coarse.shares
        self._coarse.take(self._table.table)
        self._coarse_camera_m = self._camera_m

    def _prior_sigma_m(self, frame: _Frame) -> float:
        """Of the prior now: by what the odometry errs since, and after a jump nobody knows how far the vehicle went
        meanwhile."""
        c, prior = self.config, self._prior
        way_m = max(float(np.hypot(*(prior.now(frame.camera_m) - prior.place))), self._way_m - prior.way_m)
        jumped = self._odometry.jumped_since(prior.stamp_ns)
        return float(np.linalg.norm((prior.sigma_m, c.prior_drift * way_m, prior.stray_m or 0.0,
                                     c.jump_sigma_m if jumped else 0.0)))

    def _check_prior(self, frame: _Frame) -> None:
        """Start anew where the particles, or a search that has not found any, have left what the prior allows; where
        rather the prior has left them, only when it stays away."""
        c = self.config
        if abs(frame.stamp_ns - self._prior.stamp_ns) > c.prior_heard_s * _SECOND:
            self._doubt_ns = None
            return
        place = self._prior.now(frame.camera_m)
        anchored = place - frame.camera_m
        if self._particles is None:
            self._doubt_ns = None
            if self._search is not None:
                self._check_search(frame, anchored)
            return
        away = self._particles.mean[:2] - place
        spread = self._prior_sigma_m(frame) ** 2 + c.floor_m ** 2 + 0.5 * np.trace(self._particles.covariance[:2, :2])
        if away @ away / spread <= c.prior_chi2:
            self._doubt_ns, self._agreed_prior_m = None, anchored
            return
        jumped = self._agreed_prior_m is not None and \
            np.hypot(*(anchored - self._agreed_prior_m)) > 0.5 * np.sqrt(c.prior_chi2 * spread)
        if self._doubt_ns is None and jumped:
            self._doubt_ns = frame.stamp_ns
        if self._doubt_ns is None or frame.stamp_ns - self._doubt_ns > c.prior_doubt_s * _SECOND:
            self._particles = self._doubt_ns = None
            self._start(frame)

    def _check_search(self, frame: _Frame, anchored: np.ndarray) -> None:
        """Begin the search anew around a prior, anchored by the odometry, that contradicts it or is twice as sure."""
        c, sigma_m = self.config, self._prior_sigma_m(frame)
        away = anchored - self._search.centre
        contradicts = away @ away > c.prior_chi2 * (sigma_m ** 2 + self._search.sigma_m ** 2)
        lately = self._sought_ns is not None and frame.stamp_ns - self._sought_ns < c.prior_doubt_s * _SECOND
        if contradicts and not lately or sigma_m < 0.5 * self._search.sigma_m and self._half_m > 200.0:
            if contradicts:
                self._sought_ns = frame.stamp_ns
            self._start(frame)

    def _take_over(self, frame: _Frame) -> None:
        """Lock on the place that was handed over, moved by the odometry, where it is not too old for that and the
        odometry has not begun anew meanwhile: seconds of ground would not tell a place from one 50 m away."""
        handed, self._handed = self._handed, None
        seconds = (frame.stamp_ns - handed.stamp_ns) / _SECOND
        moved, goes_on = self._way_since(handed, frame)
        way = float(np.hypot(*moved))
        if self._particles is not None or not 0.0 < seconds <= self.config.resume_s or not goes_on:
            return
        place = np.array([handed.x, handed.y]) + moved
        self._lock(frame, place, handed.yaw_error_rad, float(np.hypot(handed.spread_m, 5.0 + 0.05 * way)))
        self._resumed = True

    def _gather(self, evidence: Evidence | None, new: np.ndarray | None) -> Evidence | None:
        """What is new in a frame, put where the search and the particles take it from."""
        if evidence is None or not new.any():
            return None
        fresh = evidence.chosen(new)
        if self._table.add(fresh.labels, fresh.weights):
            table = self._table.table
            for known in filter(None, (self._coarse, self._fine)):
                known.take(table)
        self._pool.append(fresh)
        self._recent.append((self._travelled_m, fresh))
        while self._recent[0][0] < self._travelled_m - 150.0:
            self._recent.pop(0)
        return fresh

    def _search_on(self, frame: _Frame) -> None:
        c, search = self.config, self._search
        enough = c.check_points if self._particles is not None and self._proven else c.block_points
        if not search.busy and sum(float(part.weights.sum()) for part in self._pool) >= enough:
            if np.hypot(*(frame.camera_m - self._coarse_camera_m)) > 300.0:
                self._look_around(search.centre + frame.camera_m)
            search.begin(Evidence.joined(self._pool), self._coarse, self._travelled_m - self._block_travelled_m)
            self._pool, self._block_travelled_m = [], self._travelled_m
        for _ in range(c.yaws_a_frame):
            if search.busy and search.step():
                self._after_block(frame)

    def _after_block(self, frame: _Frame) -> None:
        """The search knows more: lock on its best place, or see whether it contradicts the particles."""
        c = self.config
        before, self._places = self._places, self._search.places()
        x, y, yaw, share, _ = self._places[0]
        same = bool(before) and np.hypot(x - before[0][0], y - before[0][1]) < c.search.nearby_m
        self._agreed = self._agreed + 1 if same and share >= c.lock_share else int(share >= c.lock_share)
        self._certain = self._certain + 1 if same and share >= c.sure_share else int(share >= c.sure_share)
        if self._particles is None:
            if self._agreed >= c.lock_blocks and self._search.points >= c.lock_points:
                self._lock(frame, np.array([x, y]) + frame.camera_m, yaw)
                self._sure = self._certain >= c.lock_blocks
            return
        anchored = self._particles.mean[:2] - frame.camera_m
        near_edge = np.abs(anchored - self._search.centre).max() > self._half_m - 2 * c.agree_m
        if near_edge and self._proven:  # the odometry has drifted so far, or the rough position was bad
            self._start(frame, self._particles.mean[:2], c.agree_m)
            return
        away = np.hypot(*(anchored - (x, y)))
        self._contradicted = self._contradicted + 1 if away > c.agree_m and share > 0.5 else 0
        if self._contradicted >= 2:
            self._particles = None
        elif not (self._sure or self._proven or self._resumed) and self._certain >= c.lock_blocks:
            if away > c.search.nearby_m:
                self._lock(frame, np.array([x, y]) + frame.camera_m, yaw)
            self._sure, self._since_lock = True, 0.0

    def _lock(self, frame: _Frame, place: np.ndarray, yaw: float, spread_m: float = 8.0) -> None:
        self._particles = Particles(*place, spread_m, yaw, self.config.particles, self._rng)
        self._fit = self._fit_weight = self._view_fit = self._since_lock = 0.0
        self._unfit_ns = None
        self._still_s = self._still_points = 0.0
        self._proven = self._resumed = self._sure = False
        self._proof = Proof(self.config.proof_window_points)
        recent = Evidence.joined([part for _, part in self._recent]).thinned(1000, self._rng)
        self._weigh(frame, recent)

    def _weigh(self, frame: _Frame, evidence: Evidence) -> None:
        x, y = self._particles.mean[:2]
        if self._fine is None or not self._fine.covers(x, y, self.config.max_range_m + 60.0):
            c = self.config
            self._fine = EvidenceField(self.map, self._table.table, x, y, c.max_range_m + 220.0, 1.0, c.blur_m,
                                       c.off_map_penalty)
        self._particles.weigh(evidence, frame.camera_m, self._fine)

    def _track(self, frame: _Frame, evidence: Evidence | None, fresh: Evidence | None, seconds: float) -> None:
        c = self.config
        if fresh is not None:
            if not self._proven:
                (x,), (y,) = self._particles.places(fresh, frame.camera_m, self._particles.mean[None])
                self._proof.add(fresh.labels, fresh.weights, self._fine.gains_at(x, y))  # before it is fitted to it
            self._weigh(frame, fresh.thinned(c.points, self._rng))
        if evidence is None or self._fine is None:
            return
        self._still_s, self._still_points = self._still_s + seconds, self._still_points + (
            0.0 if fresh is None else float(fresh.weights.sum()))
        if self._still_points >= 1.0:
            self._still_s = self._still_points = 0.0
        gain, self._view_seen = self._gain(evidence, frame)
        keep = np.exp(-seconds / c.view_s)
        self._view_fit = keep * self._view_fit + (1.0 - keep) * gain
        if fresh is not None:
            keep = np.exp(-float(fresh.weights.sum()) / c.fit_points)
            self._fit = keep * self._fit + (1.0 - keep) * self._gain(fresh, frame)[0]
            self._fit_weight = keep * self._fit_weight + (1.0 - keep)
            self._since_lock += float(fresh.weights.sum())
        self._proven = self._proven or self._is_proven()
        # From its first frame on: a while without any says nothing against the place.
        self._unfit_ns = None if self._fits else frame.stamp_ns if self._unfit_ns is None else self._unfit_ns
        lost = self._unfit_ns is not None and frame.stamp_ns - self._unfit_ns > c.lost_s * _SECOND
        if lost or not self._proven and (self._sure or self._resumed) and self._since_lock > 4.0 * c.proof_points:
            self._particles, self._unfit_ns, self._agreed, self._certain = None, None, 0, 0

    def _is_proven(self) -> bool:
        c = self.config
        if self._proof.points >= c.proof_points and self._proof.nats >= c.proof_nats:
            return True
        if self._resumed:
            return self._since_lock >= c.resume_points and \
                min(self._fit / self._fit_weight, self._view_fit) >= c.resume_gain
        return self._sure and self._since_lock >= c.proof_points and self._fit >= c.sure_gain * self._fit_weight

    @property
    def _fits(self) -> bool:
        c = self.config
        return self._view_fit >= c.view_limit and self._fit >= c.fit_limit * self._fit_weight

    @property
    def _shown(self) -> bool:
        """Whether what is in view shows that this is still the place: new ground, or that it fits well."""
        return self._still_s <= self.config.still_s or self._view_fit >= self.config.still_gain

    def _gain(self, evidence: Evidence, frame: _Frame) -> tuple[float, float]:
        """(nats a point by which the map at the estimated place explains labels better than an average place does,
        how much of the ground in view is mapped)."""
        (x,), (y,) = self._particles.places(evidence, frame.camera_m, self._particles.mean[None])
        gain = self._fine.at(evidence.labels, x, y) - self._fine.log_marginal[evidence.labels]
        return float(gain.mean()), float(self._fine.seen_at(x, y).mean())

    # Outcomes

    def _judge(self, frame: _Frame, evidence: Evidence | None, fresh: Evidence | None) -> LocalizationResult:
        c = self.config
        points = 0.0 if fresh is None else float(fresh.weights.sum())
        places = [Candidate(float(x + frame.camera_m[0]), float(y + frame.camera_m[1]), yaw, share)
                  for x, y, yaw, share, _ in self._places]
        margin = float("nan")
        if self._places:
            rest = self._places[1][4] if len(self._places) > 1 else np.log(c.search.floor)
            margin = self._places[0][4] - rest

        spread = score = float("nan")

        def result(verdict: Verdict, reason: str, fix: PositionFix | None = None) -> LocalizationResult:
            return LocalizationResult(frame.stamp_ns, verdict, reason, fix, score, margin, spread, points,
                                      tuple(places))

        if evidence is None:
            return result(Verdict.UNIFORM, "no labelled ground within range is in view")
        largest = float(np.bincount(evidence.labels, minlength=CLASS_COUNT).max() / len(evidence))
        particles = self._particles
        if particles is None:
            if largest > c.uniform_share:
                return result(Verdict.UNIFORM, f"{100 * largest:.0f} % of the view is of one class")
            if places and places[0].share > 0.5 and self._coarse.seen_at(places[0].x, places[0].y) < 0.5:
                return result(Verdict.OFF_MAP, "what is seen is likeliest outside of the map")
            if places and places[0].share < 0.5 and self._search.points >= c.lock_points:
                return result(Verdict.AMBIGUOUS, f"the best place has {100 * places[0].share:.0f} % of the probability")
            return result(Verdict.SEARCHING, f"{self._search.points:.0f} points of evidence so far")
        state, covariance = particles.mean, particles.covariance
        spread = float(np.sqrt(0.5 * np.trace(covariance[:2, :2])))
        score = self._view_fit
        if self._view_seen < 0.5:
            return result(Verdict.OFF_MAP, f"{100 * (1 - self._view_seen):.0f} % of the view is outside of the map")
        if largest > c.uniform_share:
            return result(Verdict.UNIFORM, f"{100 * largest:.0f} % of the view is of one class")
        near = float(particles.weights[np.hypot(*(particles.state[:, :2] - state[:2]).T) < c.search.nearby_m].sum())
        if spread > c.spread_limit_m or near < c.share_limit:
            return result(Verdict.AMBIGUOUS, f"positions spread over {spread:.0f} m")
        if not self._fits:
            return result(Verdict.INCONSISTENT, "the map fits what is seen no better than an average place would")
        if not self._shown:
            return result(Verdict.INCONSISTENT, f"hardly any new ground for {self._still_s:.0f} s, and what is in view "
                          "fits too little to show that this is still the place")
        if not self._proven:
            return result(Verdict.SEARCHING, "a place is found, and checked against new ground")
        if self._contradicted:
            return result(Verdict.AMBIGUOUS, "the wide search finds another place")
        if self._doubt_ns is not None:
            away_m = np.hypot(*(state[:2] - self._prior.now(frame.camera_m)))
            return result(Verdict.INCONSISTENT, f"the prior has jumped to {away_m:.0f} m from here; the search begins "
                          f"anew if it stays there for {c.prior_doubt_s:.0f} s")
        return result(Verdict.LOCALIZED, "", self._fix(frame, state, covariance, evidence))

    def _fix(self, frame: _Frame, state: np.ndarray, covariance: np.ndarray, evidence: Evidence) -> PositionFix:
        c = self.config
        aim = evidence.offsets_m.mean(axis=0)
        far = float(np.hypot(*aim))
        along = aim / far if far > 1e-6 else np.array([1.0, 0.0])
        # Hills between what is below and what is in view move it along the line of sight.
        total = covariance[:2, :2] + c.floor_m ** 2 * np.eye(2) + \
            (c.relief_m * far / frame.height_m) ** 2 * np.outer(along, along)
        x, y = float(state[0]), float(state[1])
        latitude, longitude = map(float, self.map.grid.to_geographic(x, y))
        turn = self.map.grid.to_true(x, y)
        return PositionFix(frame.stamp_ns, latitude, longitude, x, y, turn @ total @ turn.T,
                           self._particles.correction() @ frame.rotation,
                           frame.height_m * float(np.exp(state[Particles.SCALE])),
                           float(np.sqrt(covariance[Particles.YAW, Particles.YAW])))


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """To what lies in a straight line between two rotations."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt
