"""Where the vehicle may be: a search over all places of an area, and a cloud of particles around the place found.

Both weigh places by the same evidence, each piece of ground counted once. The search holds a probability for every
cell of a grid and a few yaw errors; it needs no luck to find a place, finds several where several fit, and goes on
beside the particles to contradict them. Particles are finer: they estimate the errors of yaw, height and odometry too.

Anchored places: where the origin of the odometry lies on the map. While the odometry is right, they stand still.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from thermalreid_ros.localization.evidence import Evidence, EvidenceField

_STAGES = 8  # of one piece of evidence at most


@dataclass(frozen=True)
class SearchSettings:
    """cell_m: of the grid. yaw_steps_rad: errors of yaw that are tried. yaw_sigma_rad: what errors to expect.
    drift_m2_per_m: how fast places blur with the way flown. floor: probability that is always spread over the area.
    nearby_m: what counts as the same place."""

    cell_m: float = 6.0
    yaw_steps_rad: tuple[float, ...] = tuple(np.radians([-4.0, -2.0, 0.0, 2.0, 4.0]))
    yaw_sigma_rad: float = np.radians(2.0)
    drift_m2_per_m: float = 0.1
    floor: float = 1e-5
    nearby_m: float = 25.0


class GridSearch:
    """Probabilities of anchored places on a square. logp: float32 (yaws, n, n), row 0 in the south.

    Evidence is added in blocks, one yaw at a time (`step`), so that no frame waits for all of them.
    """

    def __init__(self, x: float, y: float, half_m: float, sigma_m: float, settings: SearchSettings):
        """x, y: the anchored place that is most likely at first, sigma_m: on each axis. half_m: of the square."""
        self.settings, self.sigma_m = settings, float(sigma_m)
        self.count = int(np.ceil(2.0 * half_m / settings.cell_m))
        half = 0.5 * self.count * settings.cell_m
        self.centre = np.array([x, y], np.float64)
        self.x_min, self.y_min = x - half, y - half
        centres = (np.arange(self.count) + 0.5) * settings.cell_m - half
        radial = -0.5 * (centres / sigma_m) ** 2
        yaw = -0.5 * (np.array(settings.yaw_steps_rad) / settings.yaw_sigma_rad) ** 2
        self._prior = (radial[:, None] + radial[None]).astype(np.float32)
        self._prior -= np.log(np.exp(self._prior).sum())
        self._yaw_prior = (yaw - np.log(np.exp(yaw).sum())).astype(np.float32)
        self.logp = self._prior[None] + self._yaw_prior[:, None, None]
        self.points = 0.0  # effective ones, all blocks
        self._pending: _Block | None = None
        self._blur_m2 = 0.0

    @property
    def busy(self) -> bool:
        return self._pending is not None

    def begin(self, evidence: Evidence, coarse: EvidenceField, travelled_m: float) -> None:
        """Take a block of evidence in hand. coarse: with cells as large as the search's, around where the vehicle may
        be now. travelled_m: since the block before."""
        assert self._pending is None
        self._blur_m2 += self.settings.drift_m2_per_m * travelled_m
        self._pending = _Block(evidence, coarse, self)

    def step(self) -> bool:
        """Work on one yaw; True once a block is done and `logp` is new."""
        block = self._pending
        if block is None:
            return False
        block.work()
        if not block.done:
            return False
        self._pending = None
        if self._blur_m2 >= (0.7 * self.settings.cell_m) ** 2:
            sigma = np.sqrt(self._blur_m2) / self.settings.cell_m
            p = np.exp(self.logp)
            for plane in p:
                cv2.GaussianBlur(plane, (0, 0), sigma, plane)
            self.logp = np.log(np.maximum(p, 1e-30))
            self._blur_m2 = 0.0
        self.logp += block.scores
        self.logp -= _log_sum(self.logp)
        floor = np.log(self.settings.floor) + self._prior
        for plane, yaw in zip(self.logp, self._yaw_prior):
            np.maximum(plane, floor + yaw, out=plane)
        self.points += float(block.evidence.weights.sum())
        return True

    def places(self, count: int = 5) -> list[tuple[float, float, float, float, float]]:
        """The likeliest anchored places, best first: (x, y, yaw error, share of the probability nearby, log of the
        probability of the best cell). Places lie more than nearby_m apart."""
        s = self.settings
        p = np.exp(self.logp).sum(axis=0)
        radius = int(round(s.nearby_m / s.cell_m))
        around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        mass = cv2.filter2D(p, cv2.CV_32F, around.astype(np.float32), borderType=cv2.BORDER_CONSTANT)
        left, found = p.copy(), []
        for _ in range(count):
            row, column = np.unravel_index(int(left.argmax()), left.shape)
            if left[row, column] <= 1e-12:
                break
            yaw = np.exp(self.logp[:, row, column] - self.logp[:, row, column].max())
            yaw = float(yaw @ np.array(s.yaw_steps_rad) / yaw.sum())
            found.append((self.x_min + (column + 0.5) * s.cell_m, self.y_min + (row + 0.5) * s.cell_m, yaw,
                          float(min(mass[row, column], 1.0)), float(np.log(p[row, column]))))
            cv2.circle(left, (int(column), int(row)), radius, 0.0, -1)
        return found


class _Block:
    """One block of evidence, correlated with the map yaw by yaw."""

    def __init__(self, evidence: Evidence, coarse: EvidenceField, search: GridSearch):
        cell = search.settings.cell_m
        self.evidence, self._cell, self._count = evidence, cell, search.count
        self._yaws = search.settings.yaw_steps_rad
        camera = evidence.camera_m.mean(axis=0)
        reach = np.abs(evidence.camera_m - camera).max() + np.hypot(*evidence.offsets_m.T).max()
        self._margin = int(np.ceil(reach / cell)) + 1
        # The map as seen from a search whose cells are moved by the odometry.
        self._shift = np.round(camera / cell).astype(int)
        self._base = self._shift * cell
        size = search.count + 2 * self._margin
        column = int(round((search.x_min - coarse.x_min) / cell)) + self._shift[0] - self._margin
        row = int(round((search.y_min - coarse.y_min) / cell)) + self._shift[1] - self._margin
        self._size = cv2.getOptimalDFTSize(size)
        rows = np.clip(np.arange(row, row + size), 0, coarse.count - 1)
        columns = np.clip(np.arange(column, column + size), 0, coarse.count - 1)
        used = np.unique(evidence.labels)
        maps = coarse.log_likelihood[used][:, rows[:, None], columns[None]]
        self._maps = {label: cv2.dft(self._padded(plane)) for label, plane in zip(used, maps)}
        self.scores = np.empty((len(self._yaws), search.count, search.count), np.float32)
        self._next = 0

    def _padded(self, plane: np.ndarray) -> np.ndarray:
        padded = np.zeros((self._size, self._size), np.float32)
        padded[:plane.shape[0], :plane.shape[1]] = plane
        return padded

    @property
    def done(self) -> bool:
        return self._next == len(self._yaws)

    def work(self) -> None:
        yaw, evidence = self._yaws[self._next], self.evidence
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, s], [-s, c]], np.float32)  # by -yaw: the attitude's error taken out
        at = evidence.camera_m - self._base + evidence.offsets_m @ turn.T
        index = np.round(at / self._cell).astype(int) + self._margin
        total = None
        for label, spectrum in self._maps.items():
            here = evidence.labels == label
            splat = np.bincount(index[here, 1] * self._size + index[here, 0], evidence.weights[here],
                                self._size ** 2).astype(np.float32).reshape(self._size, self._size)
            splat = cv2.dft(splat, nonzeroRows=int(index[here, 1].max()) + 1)
            product = cv2.mulSpectrums(spectrum, splat, 0, conjB=True)
            total = product if total is None else total + product
        scores = cv2.idft(total, flags=cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE, nonzeroRows=self._size)
        # Index 0 of the correlation puts the vehicle `margin` cells before the first cell of the search.
        self.scores[self._next] = scores[:self._count, :self._count]
        self._next += 1


def _bearing(weights: np.ndarray) -> float:
    """How many particles bear the weight."""
    return 1.0 / float((weights ** 2).sum())


def _log_sum(logp: np.ndarray) -> float:
    top = float(logp.max())
    return top + float(np.log(np.exp(logp - top).sum(dtype=np.float64)))


@dataclass(frozen=True)
class ParticleSettings:
    """Standard deviations of the errors at first (sigma), and of their walk by the root of a second (walk).

    sharpness: how much more a point of evidence is worth near the right place than in the search, where it would have
    to tell right places from wrong ones. yaw, tilt: of the attitude, tilt about each horizontal axis. scale: of the
    height, a share. way: of the odometry's scale and heading; its heading walks. walk_m: of the position. roughening:
    by which share of the cloud's own spread copies part.
    """

    count: int = 1500
    sharpness: float = 2.0
    yaw_sigma_rad: float = np.radians(2.0)
    yaw_walk_rad: float = np.radians(0.1)
    tilt_sigma_rad: float = float(np.radians(0.7))
    tilt_walk_rad: float = float(np.radians(0.05))
    scale_sigma: float = 0.025
    scale_walk: float = 0.0005
    way_sigma: float = 0.015
    way_walk: float = 0.0015
    walk_m: float = 0.25
    roughening: float = 0.15


class Particles:
    """Hypotheses of state, float64 (N, 8), weights sum to 1.

    x, y; how far the attitude is turned counter-clockwise; the log of what the height is to be multiplied by; the
    turn of the odometry that puts it right and the log of its scale; rotations about x and y that put tilts right.
    """

    X, Y, YAW, SCALE, TURN, WAY, TILT_X, TILT_Y = range(8)

    def __init__(self, x: float, y: float, spread_m: float, yaw: float, settings: ParticleSettings,
                 rng: np.random.Generator):
        s, n = settings, settings.count
        self.settings, self._rng = settings, rng
        sigma = np.array([spread_m, spread_m, 0.7 * s.yaw_sigma_rad, s.scale_sigma, s.way_sigma, s.way_sigma,
                          s.tilt_sigma_rad, s.tilt_sigma_rad])
        self.state = np.array([x, y, yaw, 0.0, 0.0, 0.0, 0.0, 0.0]) + rng.normal(size=(n, 8)) * sigma
        self.weights = np.full(n, 1.0 / n)

    def move(self, step_m: np.ndarray, seconds: float) -> None:
        """Follow the odometry by step_m (2,) within a time."""
        s, state = self.settings, self.state
        turn, way = state[:, self.TURN], np.exp(state[:, self.WAY])
        c, si = np.cos(turn) * way, np.sin(turn) * way
        state[:, self.X] += c * step_m[0] - si * step_m[1]
        state[:, self.Y] += si * step_m[0] + c * step_m[1]
        walk = np.array([s.walk_m, s.walk_m, s.yaw_walk_rad, s.scale_walk, s.way_walk, 0.0, s.tilt_walk_rad,
                         s.tilt_walk_rad])
        state += self._rng.normal(size=state.shape) * walk * np.sqrt(seconds)
        # Errors do not walk away for good: they are drawn back to what is likely.
        likely = np.array([s.yaw_sigma_rad, s.scale_sigma, s.way_sigma, s.way_sigma, s.tilt_sigma_rad,
                           s.tilt_sigma_rad])
        state[:, self.YAW:] *= np.exp(-0.5 * seconds * (walk[self.YAW:] / likely) ** 2)

    def places(self, evidence: Evidence, camera_m: np.ndarray, state: np.ndarray | None = None
               ) -> tuple[np.ndarray, np.ndarray]:
        """(x, y), float32 (N, K), where the points of evidence lie on the map in each of the states. camera_m: (2,),
        the odometry now; earlier points are seen from where the odometry says that the vehicle was then."""
        state = self.state if state is None else state
        (dx, dy), height = evidence.offsets_m.T, evidence.heights_m
        tilt_x, tilt_y, grown = state[:, self.TILT_X], state[:, self.TILT_Y], np.exp(state[:, self.SCALE])
        c, s = np.cos(state[:, self.YAW]) * grown, np.sin(state[:, self.YAW]) * grown
        # Each line of sight is turned by small rotations: sums of products of the state and the point, two matrices.
        points = [np.ones_like(dx), dx, dy, dx * dy / height, dx * dx / height + height, dy * dy / height + height]
        to_x = [state[:, self.X], c, s, c * tilt_x - s * tilt_y, -c * tilt_y, s * tilt_x]
        to_y = [state[:, self.Y], -s, c, -s * tilt_x - c * tilt_y, s * tilt_y, c * tilt_x]
        back = (evidence.camera_m - camera_m).astype(np.float32)
        if np.abs(back).max() > 0.01:
            way = np.exp(state[:, self.WAY])
            c, s = np.cos(state[:, self.TURN]) * way, np.sin(state[:, self.TURN]) * way
            points, to_x, to_y = [*points, *back.T], [*to_x, c, -s], [*to_y, s, c]
        terms = np.stack(points).astype(np.float32)
        x, y = (np.stack(to, axis=1).astype(np.float32) @ terms for to in (to_x, to_y))
        return x, y

    def weigh(self, evidence: Evidence, camera_m: np.ndarray, field: EvidenceField) -> None:
        """Take evidence in: a little at a time where it would leave weight on few particles only, resampling in
        between (annealing), so that the cloud can move to where the evidence wants it."""
        left, count = 1.0, len(self.weights)
        for stage in range(_STAGES):
            log_likelihood = self.settings.sharpness * (field.at(
                evidence.labels[None], *self.places(evidence, camera_m)) @ evidence.weights)
            part = left
            if stage < _STAGES - 1:
                while part > 0.02 and _bearing(self._weighed(part * log_likelihood)) < 0.3 * count:
                    part *= 0.7
            self.weights = self._weighed(part * log_likelihood)
            left -= part
            if _bearing(self.weights) < 0.5 * count:
                self.resample()
            if left <= 0.0:
                break

    def _weighed(self, log_likelihood: np.ndarray) -> np.ndarray:
        logw = np.log(np.maximum(self.weights, 1e-300)) + log_likelihood
        weights = np.exp(logw - logw.max())
        return weights / weights.sum()

    def correction(self) -> np.ndarray:
        """The rotation, float64 (3, 3), that puts the attitude right: to be multiplied from the left."""
        mean = self.mean
        c, s = np.cos(mean[self.YAW]), np.sin(mean[self.YAW])
        u, _, vt = np.linalg.svd(np.eye(3) + np.array([[0, 0, mean[self.TILT_Y]], [0, 0, -mean[self.TILT_X]],
                                                       [-mean[self.TILT_Y], mean[self.TILT_X], 0]]))
        return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) @ u @ vt

    def resample(self) -> None:
        """Systematic resampling, then a little noise of the cloud's own shape, so that copies part."""
        n = len(self.weights)
        pick = np.searchsorted(np.cumsum(self.weights), (self._rng.random() + np.arange(n)) / n)
        self.state = self.state[np.minimum(pick, n - 1)]
        self.weights = np.full(n, 1.0 / n)
        centred = self.state - self.state.mean(axis=0)
        h = self.settings.roughening  # kernel smoothing that keeps mean and covariance (Liu and West, 2001)
        noise = self._rng.normal(size=centred.shape) @ np.linalg.cholesky(
            centred.T @ centred / n + 1e-12 * np.eye(centred.shape[1])).T
        self.state = self.state.mean(axis=0) + np.sqrt(1.0 - h * h) * centred + h * noise

    @property
    def mean(self) -> np.ndarray:
        return self.weights @ self.state

    @property
    def covariance(self) -> np.ndarray:
        """Of the state, float64 (8, 8)."""
        centred = self.state - self.mean
        return (centred * self.weights[:, None]).T @ centred
