"""What a labelling says of places: fields of log-likelihood over the map, and which ground is new.

The labels of a frame are compared with the map through a table P(predicted | class on the map), which joins what the
segmenter takes for what with how the world differs from its map. The map is blurred, for it lies some metres off.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from thermalreid_ros.camera.geometry import Intrinsics
from thermalreid_ros.localization.ground import footprint_centre, rectify
from thermalreid_ros.localization.types import LocalizationError, SemanticMask
from thermalreid_ros.maps.classes import CLASS_COUNT
from thermalreid_ros.maps.store import SemanticMap

_NORTH_UP = 0.5 * np.pi
_LEAST = 1e-4  # probability of any label
#: P(class of the world in view | class on the map), rows: map; from simulated flights over virtual cities in Krems,
#: Monaco and a Finnish town. What is unmapped ("ground") is often grown over, and buildings hide what is behind them.
WORLD_GIVEN_MAP = np.array([[0.51, 0.12, 0.08, 0.27, 0.02],
                            [0.13, 0.65, 0.06, 0.14, 0.02],
                            [0.09, 0.04, 0.77, 0.08, 0.02],
                            [0.06, 0.06, 0.03, 0.82, 0.03],
                            [0.05, 0.02, 0.02, 0.05, 0.86]])
#: P(predicted | true) of a segmenter that has not been measured: right five times out of six.
DEFAULT_CONFUSION = np.eye(CLASS_COUNT) * 0.8 + 0.04


def evidence_table(confusion: np.ndarray | None, doubt: float) -> np.ndarray:
    """P(predicted | class on the map), float64 (5, 5), rows: map. confusion: the segmenter's P(predicted | true).

    doubt: the share of labels that is taken to mean nothing; tables measured on easy days are too sure on others.
    """
    confusion = DEFAULT_CONFUSION if confusion is None else np.asarray(confusion, np.float64)
    if confusion.shape != (CLASS_COUNT, CLASS_COUNT) or not np.isfinite(confusion).all() or (confusion < 0).any() \
            or not np.allclose(confusion.sum(axis=1), 1.0, atol=1e-3):
        raise LocalizationError(f"the segmenter's confusion must be {CLASS_COUNT} rows of probabilities that sum to 1; "
                                "measure it again")
    joint = WORLD_GIVEN_MAP / WORLD_GIVEN_MAP.sum(axis=1, keepdims=True) @ confusion
    joint = np.maximum(joint, _LEAST)  # of a label that was never seen when it was measured: it may come all the same
    return (1.0 - doubt) * joint + doubt * joint.mean(axis=0)


class LearnedTable:
    """P(predicted | class on the map) of the place at hand: evidence_table's, learned on by what is predicted there.

    Towns differ in what their maps lack: where few buildings stand that are not mapped, a label of one tells much, and
    where the unmapped ground is a wood, one of vegetation tells little. How often each class is predicted says so
    without a place: it is shared out among the map's classes of the whole area as the table would have it, and each
    row is taken for a Dirichlet distribution worth its share of `table_points` (one EM step repeated). Labels that
    mean nothing are as frequent as all others are.

    shares: float64 (5,), of the area's mapped classes, to be set.
    """

    _STEPS = 3  # of EM; more change nothing that matters

    def __init__(self, confusion: np.ndarray | None, doubt: float, table_points: float, most_points: float):
        """table_points: of labels that the table at first is worth. most_points: that are remembered."""
        self._joint, self._doubt = evidence_table(confusion, 0.0), doubt
        self._table_points, self._most_points = table_points, most_points
        self._points, self._since = np.zeros(CLASS_COUNT), 0.0
        self.shares = np.full(CLASS_COUNT, 1.0 / CLASS_COUNT)

    def add(self, labels: np.ndarray, weights: np.ndarray) -> bool:
        """uint8 (K,), labels of new ground, worth weights (K,) points; whether the table is worth asking for again."""
        points = np.bincount(labels, weights, CLASS_COUNT)
        self._points += points
        known = self._points.sum()
        self._points *= min(1.0, self._most_points / max(known, 1e-9))
        self._since += points.sum()
        if self._since < max(10.0, 0.1 * known):
            return False
        self._since = 0.0
        return True

    @property
    def table(self) -> np.ndarray:
        """float64 (5, 5), rows: map."""
        table, prior = self._joint, self._table_points * self.shares[:, None] * self._joint
        for _ in range(self._STEPS):
            table = self.shares[:, None] * table
            counts = prior + self._points * table / np.maximum(table.sum(axis=0), 1e-12)
            total = counts.sum(axis=1, keepdims=True)
            table = np.where(total > 1e-9, counts / np.maximum(total, 1e-9), self._joint)
        return (1.0 - self._doubt) * table + self._doubt * (self.shares @ table)


class EvidenceField:
    """Log-likelihoods of each predicted class on a square of the map, north at the end: row 0 is the south.

    log_likelihood: float32 (5, n, n). gain: the same less `log_marginal` (5,), what a label has on the average place
    of the square. Outside of the map a label has its marginal less off_map_penalty. seen: float32 (n, n), how much
    of each cell is mapped. shares: float64 (5,), of the mapped part.
    """

    def __init__(self, semantic_map: SemanticMap, table: np.ndarray, x: float, y: float, half_m: float,
                 resolution_m: float, blur_m: float, off_map_penalty: float):
        finer = 2 if resolution_m >= 2.0 else 1
        count = int(np.ceil(2.0 * half_m / resolution_m))
        self.resolution_m, self.count = resolution_m, count
        self.x_min, self.y_min = x - 0.5 * count * resolution_m, y - 0.5 * count * resolution_m
        step = resolution_m / finer
        classes = semantic_map.window(x, y, _NORTH_UP, step, count * finer)[::-1]
        # What is outside of the map is a sixth class of it.
        each = np.empty((CLASS_COUNT + 1, count, count), np.float32)
        shares = each[:CLASS_COUNT]
        for c in range(CLASS_COUNT):
            share = cv2.GaussianBlur((classes == c).astype(np.float32), (0, 0), max(blur_m / step, 0.3))
            shares[c] = cv2.resize(share, (count, count), interpolation=cv2.INTER_AREA) if finer > 1 else share
        self.seen = shares.sum(axis=0)
        mapped = float(self.seen.mean())
        self.shares = shares.mean(axis=(1, 2), dtype=np.float64) / mapped if mapped > 1e-3 else \
            np.full(CLASS_COUNT, 1.0 / CLASS_COUNT)
        np.subtract(1.0, self.seen, out=each[CLASS_COUNT])
        self._classes = each.reshape(CLASS_COUNT + 1, -1)
        self._off_map = np.exp(-off_map_penalty)
        self.log_likelihood = np.empty_like(shares)
        self._flat = self.log_likelihood.reshape(-1)
        self.take(table)

    def take(self, table: np.ndarray) -> None:
        """Tell places by another table: float64 (5, 5), rows: map."""
        marginal = self.shares @ table
        self.log_marginal = np.log(marginal)
        rows = np.vstack([table, self._off_map * marginal]).astype(np.float32)
        likelihood = self.log_likelihood.reshape(CLASS_COUNT, -1)
        np.matmul(rows.T, self._classes, out=likelihood)
        np.maximum(likelihood, 1e-6, out=likelihood)
        np.log(likelihood, out=likelihood)

    def covers(self, x: float, y: float, reach_m: float) -> bool:
        """Whether all within reach_m of a place lies in the square."""
        side = self.count * self.resolution_m
        return (self.x_min + reach_m <= x <= self.x_min + side - reach_m
                and self.y_min + reach_m <= y <= self.y_min + side - reach_m)

    def at(self, labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log-likelihoods, float32 of the shape of x, of labels at places; the square's edge goes on outside of it."""
        index = self._cells(y, self.y_min)
        index *= self.count
        index += self._cells(x, self.x_min)
        index += labels.astype(np.int32) * (self.count * self.count)
        return self._flat.take(index)

    def gains_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """float32 (5, K): nats by which places (K,) explain each class better than an average place does."""
        classes = np.repeat(np.arange(CLASS_COUNT), len(x)).reshape(CLASS_COUNT, -1)
        every = np.broadcast_to(x, classes.shape), np.broadcast_to(y, classes.shape)
        return self.at(classes, *every) - self.log_marginal[:, None]

    def _cells(self, values: np.ndarray, first: float) -> np.ndarray:
        """int32, rows or columns of coordinates; few copies, for there are many of them."""
        cells = np.subtract(values, np.float32(first))
        cells *= np.float32(1.0 / self.resolution_m)
        np.clip(cells, np.float32(0.0), np.float32(self.count - 1), out=cells)
        return cells.astype(np.int32)

    def seen_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How much of the cells under places is mapped."""
        column = np.clip((np.asarray(x) - self.x_min) / self.resolution_m, 0, self.count - 1).astype(int)
        row = np.clip((np.asarray(y) - self.y_min) / self.resolution_m, 0, self.count - 1).astype(int)
        return self.seen[row, column]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Points of the ground with labels, float32 (K, 2) and uint8 (K,), each worth `weights` (K,) independent points.

    camera_m: float64 (K, 2), the vehicle's odometry where they were seen, which may count from far away; offsets_m from
    the point below the camera. heights_m: float32 (K,), the camera's above the ground.
    """

    camera_m: np.ndarray
    offsets_m: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    heights_m: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: list[Evidence]) -> Evidence:
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def chosen(self, pick: np.ndarray) -> Evidence:
        """Some of the points, by a mask or by their numbers."""
        return Evidence(*(getattr(self, item.name)[pick] for item in fields(self)))

    def thinned(self, count: int, rng: np.random.Generator) -> Evidence:
        """At most `count` of the points, which then are worth as much as all."""
        if len(self) <= count:
            return self
        pick = rng.choice(len(self), count, replace=False)
        some = self.chosen(pick)
        return replace(some, weights=some.weights * np.float32(self.weights.sum() / some.weights.sum()))


class GroundSeen:
    """Which ground has been counted as evidence: cells of `cell_m` in the frame of the odometry.

    A second look at the same ground is no new evidence: its labels are wrong where they were wrong before. Once the
    vehicle has flown `again_m` since, the ground counts again, for it then tells how the odometry has drifted. The
    store wraps around after `_CELLS` cells; what lies a whole turn away has been left behind for longer than that.
    """

    _CELLS = 1024
    _PATCH = 128  # cells, each way, of a frame

    def __init__(self, cell_m: float, again_m: float):
        self.cell_m, self.again_m = cell_m, again_m
        self._counted_m = np.full((self._CELLS, self._CELLS), -np.inf, np.float32)

    def look(self, mask: SemanticMask, intrinsics: Intrinsics, rotation: np.ndarray, height_m: float,
             camera_m: np.ndarray, travelled_m: float, lean_m: np.ndarray, area_per_point_m2: float,
             max_range_m: float) -> tuple[Evidence, np.ndarray] | None:
        """(the labelling as points, whether each is new (K,) bool), None where the frame shows no labelled ground.

        A point is worth as much as its label is sure. lean_m: float (5,), how high what bears a label is on the
        whole: such points are drawn nearer, for what stands leans away from the camera.
        """
        centre = footprint_centre(intrinsics, rotation, height_m, max_range_m)
        if centre is None:
            return None
        half = self._PATCH // 2
        base = np.round((camera_m + centre) / self.cell_m).astype(np.int64)
        patch = rectify(mask, intrinsics, rotation, height_m, self.cell_m, self._PATCH, max_range_m,
                        base * self.cell_m - camera_m)
        row, column = np.nonzero(patch.seen)
        if not len(row):
            return None
        offsets = np.column_stack([patch.centre_offset_m[0] + (column + 0.5 - half) * self.cell_m,
                                   patch.centre_offset_m[1] + (half - 0.5 - row) * self.cell_m])
        cell_x, cell_y = (base[0] + column - half) % self._CELLS, (base[1] + half - 1 - row) % self._CELLS
        new = travelled_m - self._counted_m[cell_y, cell_x] >= self.again_m
        self._counted_m[cell_y[new], cell_x[new]] = travelled_m
        labels = patch.labels[row, column]
        nearer = 1.0 - np.minimum(lean_m[labels] / height_m, 0.5)
        weight = patch.confidence[row, column] * np.float32(self.cell_m ** 2 / area_per_point_m2 / 255.0)
        return Evidence(np.broadcast_to(camera_m, offsets.shape),
                        (offsets * nearer[:, None]).astype(np.float32), labels, weight,
                        np.full(len(labels), height_m, np.float32)), new
