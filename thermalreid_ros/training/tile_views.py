"""Tiles and frames' labellings of them, made from maps alone on the device that trains: no rendering, no copies.

A view is what `localization.ground.rectify` makes of a frame's labelling: ground seen through a camera's footprint,
with the errors of attitude, altitude, segmenter and map in it. Pictures are uint8, row 0 = north, NO_DATA where
nothing is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.maps.classes import CLASS_COUNT, NO_DATA, SemanticClass
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.maps.tiles import LOCALIZATION_TILING, Tiles

SIZE_PX = LOCALIZATION_TILING.size_px  # of tiles and views, at 1 m/px
PLACE_STEP_M = 16.0  # between places that may be drawn
MAX_RANGE_M = 250.0  # as localization.ground.MAX_RANGE_M
# A tile turned by 45 degrees and enlarged by 1.25 reaches 113 m from its centre, its view some more.
_SPLIT_GAP_M = 150.0
_IDS = 32749  # numbers of buildings, a prime that fits the 15 bits that an entry of the atlas has for them
_NORTH_UP = math.pi / 2
_LEAN_M = (3.0, 7.0, 12.0, 20.0)  # heights at which a line of sight may pass through a house


@dataclass(frozen=True)
class ViewRecipe:
    """How much views differ from their maps. Shares are of the area, drawn evenly from 0 to twice the given value for
    each view; metres and radians are standard deviations."""

    offset_m: float = 20.0  # of the view's middle from the tile's, evenly drawn from -offset_m to offset_m
    yaw_rad: float = math.radians(2.0)
    scale: float = 0.03
    altitude_m: tuple[float, float] = (60.0, 130.0)
    field_of_view_rad: tuple[float, float] = (math.radians(25.0), math.radians(57.0))
    depression_rad: tuple[float, float] = (math.radians(45.0), math.radians(90.0))
    lawns: float = 0.28  # of ground that is vegetation
    paving: float = 0.06  # of ground that is road
    mown: float = 0.10  # of vegetation that is ground
    crowns: float = 0.06  # of everything low that is hidden by trees
    blobs: float = 0.06  # of everything, that is anything
    holes: float = 0.06  # of what is seen that is not labelled
    displaced_m: float = 1.5  # map out of place, waves of about 40 m
    jitter_m: float = 1.0  # borders out of place, waves of about 8 m
    removed: float = 0.05  # of the buildings
    added: float = 0.35  # chance of each of two more buildings


class MapAtlas:
    """Whole maps at 1 m/px on a device: classes, heights and numbers of buildings in one int32 a pixel.

    `places`: (P, 2) float32 centres worth learning, `place_maps`: (P,) the maps they are in. `held_out`: bool (P,),
    the eastern quarter of each map's places; `usable`: bool (P,), those far enough west of it. `tile_centres`: (T, 2)
    of each map as it is searched in flight.
    """

    def __init__(self, paths: Sequence[Path], device: str):
        if not paths:
            raise ThermalReidError("no maps to learn from; name one or more")
        flat, sizes, places, maps, held_out, usable, self.tile_centres = [], [], [], [], [], [], []
        for number, path in enumerate(paths):
            classes, packed, tile_centres = _read(path)
            flat.append(packed.ravel())
            sizes.append((classes.shape[1], classes.shape[0]))
            self.tile_centres.append(torch.from_numpy(tile_centres.astype(np.float32)).to(device))
            centres = _places(classes)
            if len(centres) < 100:
                raise ThermalReidError(f"{path}: too small or too uniform to learn from; take a map of a town")
            border = np.quantile(centres[:, 0], 0.75)
            places.append(centres)
            maps.append(np.full(len(centres), number))
            held_out.append(centres[:, 0] >= border)
            usable.append(centres[:, 0] < border - _SPLIT_GAP_M)
        starts = np.concatenate([[0], np.cumsum([len(pixels) for pixels in flat])[:-1]])
        self.names = tuple(Path(path).stem for path in paths)
        self.device = device
        self._flat = torch.from_numpy(np.concatenate(flat)).to(device)
        self._start = torch.from_numpy(starts).to(device)
        self._size = torch.tensor(sizes, device=device)
        self.places = torch.from_numpy(np.concatenate(places).astype(np.float32)).to(device)
        self.place_maps = torch.from_numpy(np.concatenate(maps)).to(device)
        self.held_out = torch.from_numpy(np.concatenate(held_out)).to(device)
        self.usable = torch.from_numpy(np.concatenate(usable)).to(device)

    def at(self, maps: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The packed pixels int32 (B, h, w) under x and y (B, h, w), metres on the grid of each one's map (B,)."""
        width, height = (self._size[maps, axis, None, None] for axis in (0, 1))
        column, row = x.floor().long(), (height - y).floor().long()
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = row.mul_(width).add_(column).add_(self._start[maps, None, None])
        return torch.where(inside, self._flat.take(index.clamp_(0, len(self._flat) - 1)), NO_DATA)


class ViewSampler:
    """Batches of tiles and views; batch number i is the same in every run (seed, i) on the same kind of device.

    Places come in groups that lie on one map, near each other, and are turned, mirrored and scaled alike: to tell
    them apart is the task in flight.
    """

    def __init__(self, atlas: MapAtlas, recipe: ViewRecipe, seed: int, group: int = 64):
        self.atlas, self.recipe, self.group, self._seed = atlas, recipe, group, seed
        self._generator = torch.Generator(atlas.device)
        places = torch.nonzero(atlas.usable).squeeze(1)
        counts = torch.bincount(atlas.place_maps[places], minlength=len(atlas.names))
        if not int(counts.min()):
            name = atlas.names[int(counts.argmin())]
            raise ThermalReidError(f"map {name}: too narrow to hold a quarter out; take a larger one")
        self._places, self._counts, self._first = places, counts, counts.cumsum(0) - counts
        half = torch.arange(SIZE_PX, device=atlas.device) + 0.5 - SIZE_PX / 2
        self._window = torch.meshgrid(half, -half, indexing="xy")  # east, north

    def seed(self, number: int) -> random.Random:
        """Begin batch `number`; returns a source of numbers that are the same for the whole batch."""
        self._generator.manual_seed(self._seed * 1_000_003 + number)
        return random.Random(self._seed * 1_000_003 + number)

    def batch(self, number: int, groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(tiles, views), uint8 (B, SIZE_PX, SIZE_PX) each, of B = groups * group places, and bool (B, B): pairs of
        different places that are too close to be told apart."""
        chance = self.seed(number)
        maps, points = self._draw_places(groups)
        turn = self._uniform(groups, low=0.0, high=2 * math.pi)
        mirror = 1.0 - 2.0 * (self._uniform(groups) < 0.5)
        scale = self._uniform(groups, low=0.8, high=1.25)
        alike = _rotation(turn, scale)
        alike[:, :, 0] *= mirror[:, None]
        alike = alike.repeat_interleave(self.group, 0)
        near = _distances(points, points) < 48.0 * scale.repeat_interleave(self.group)[:, None]
        near = (near | near.T) & (maps[:, None] == maps[None])
        near.fill_diagonal_(False)
        return self.tiles(maps, points, alike), self.views(maps, points, alike, self.recipe.offset_m, chance), near

    def tiles(self, maps: torch.Tensor, points: torch.Tensor, alike: torch.Tensor | None = None) -> torch.Tensor:
        """The map around points (B, 2), `alike` (B, 2, 2) from pictures' metres to the map's, north up by default."""
        alike = self._north_up(len(points)) if alike is None else alike
        x, y = (points[:, axis, None, None] + self._along(alike, axis) for axis in (0, 1))
        return _class_of(self.atlas.at(maps, x, y)).to(torch.uint8)

    def views(self, maps: torch.Tensor, points: torch.Tensor, alike: torch.Tensor | None, offset_m: float,
              chance: random.Random) -> torch.Tensor:
        """What cameras that look near points see of them, with all errors of the recipe."""
        recipe, count = self.recipe, len(points)
        alike = self._north_up(count) if alike is None else alike
        nadir, seen, camera_m = self._cameras(count)
        turn, scale = recipe.yaw_rad * self._normal(count), 1 + recipe.scale * self._normal(count)
        to_map = alike @ _rotation(turn, scale)
        middle = points + _times(alike, self._uniform(count, 2, low=-offset_m, high=offset_m))
        moved = recipe.displaced_m * self._fields(count, 2, chance.uniform(32, 64)) \
            + recipe.jitter_m * self._fields(count, 2, chance.uniform(5, 12))
        window = [self._along(to_map, axis) for axis in (0, 1)]
        below = _times(to_map, nadir)

        def look(height_m: float) -> torch.Tensor:
            """The map where lines of sight to the ground are so high above it: nearer to the point below."""
            share = height_m / camera_m
            x, y = (window[axis] * (1 - share[:, None, None]) + moved[:, axis]
                    + (middle[:, axis] + share * below[:, axis])[:, None, None] for axis in (0, 1))
            return self.atlas.at(maps, x, y)

        packed = look(0.0)
        labels = _class_of(packed)
        keys = torch.randint(1, 997, (count, 2), device=labels.device, generator=self._generator, dtype=torch.int32)
        gone = self._gone(packed, keys)
        taller = (1 + 0.1 * self._normal(count))[:, None, None]
        built = (labels == SemanticClass.BUILDING) & ~gone
        for height_m in _LEAN_M:
            packed = look(height_m)
            built |= ((packed >> 8 & 255) * taller >= height_m) & ~self._gone(packed, keys)
        labels = torch.where(gone, int(SemanticClass.GROUND), labels)
        labels = torch.where(built | self._new_buildings(count), int(SemanticClass.BUILDING), labels)
        return torch.where(seen(), self._confused(labels, chance), NO_DATA).to(torch.uint8)

    def _draw_places(self, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(maps (B,), points (B, 2)); groups lie within 200 to 1000 m."""
        atlas, device = self.atlas, self.atlas.device
        chosen = torch.randint(len(atlas.names), (groups,), device=device, generator=self._generator)
        anchor = self._first[chosen] + (self._uniform(groups) * self._counts[chosen]).long()
        reach = 200.0 * 5.0 ** self._uniform(groups)
        points, maps = atlas.places[self._places], atlas.place_maps[self._places]
        near = (_distances(points[anchor], points) < reach[:, None]) & (maps[None] == chosen[:, None])
        order = torch.rand(near.shape, device=device, generator=self._generator)
        score, members = torch.where(near, order, -1.0).topk(min(self.group, len(points)), 1)
        members = torch.where(score >= 0, members, anchor[:, None])
        if members.shape[1] < self.group:
            members = F.pad(members, (0, self.group - members.shape[1]), value=0)
        members = members.flatten()
        jitter = self._uniform(len(members), 2, low=-PLACE_STEP_M / 2, high=PLACE_STEP_M / 2)
        return maps[members], points[members] + jitter

    def _cameras(self, count: int):
        """(points below (B, 2) from the middle of the view, seen() -> bool (B, h, w), heights (B,)).

        The middle is the centroid of the ground that is seen, as in localization.ground.footprint_centre.
        """
        recipe = self.recipe
        height = self._uniform(count, low=recipe.altitude_m[0], high=recipe.altitude_m[1])
        depression = self._uniform(count, low=recipe.depression_rad[0], high=recipe.depression_rad[1])
        half = torch.tan(self._uniform(count, low=recipe.field_of_view_rad[0], high=recipe.field_of_view_rad[1]) / 2)
        yaw = self._uniform(count, low=0.0, high=2 * math.pi)
        cy, sy, cd, sd = torch.cos(yaw), torch.sin(yaw), torch.cos(depression), torch.sin(depression)
        zero = torch.zeros_like(cy)
        forward = torch.stack([cy * cd, sy * cd, -sd], -1)
        right = torch.stack([sy, -cy, zero], -1)
        down = torch.cross(forward, right, dim=-1)
        steps = torch.linspace(-1, 1, 13, device=self.atlas.device)
        v, u = torch.meshgrid(0.8 * steps, steps, indexing="ij")
        plane = torch.stack([u.flatten(), v.flatten()], -1) * half[:, None, None]  # (B, K, 2)
        rays = plane[..., :1] * right[:, None] + plane[..., 1:] * down[:, None] + forward[:, None]
        below = -rays[..., 2]
        met = rays[..., :2] * (height[:, None] / below.clamp(min=1e-3))[..., None]
        area = torch.where((below > 1e-3) & (met.norm(dim=-1) <= MAX_RANGE_M), below.clamp(min=1e-3) ** -3, 0.0)
        centre = (area[..., None] * met).sum(1) / area.sum(1, keepdim=True)

        def seen() -> torch.Tensor:
            east, north = (self._window[axis] + centre[:, axis, None, None] for axis in (0, 1))
            x, y, z = (east * axis[:, 0, None, None] + north * axis[:, 1, None, None]
                       - (height * axis[:, 2])[:, None, None] for axis in (right, down, forward))
            limit = half[:, None, None] * z
            return (x.abs() <= limit) & (y.abs() <= 0.8 * limit) & (east.square() + north.square() <= MAX_RANGE_M**2)

        return -centre, seen, height

    def _confused(self, labels: torch.Tensor, chance: random.Random) -> torch.Tensor:
        """Labels as a segmenter and a map out of date make them, wrong in patches."""
        recipe, count = self.recipe, len(labels)
        ground, vegetation = labels == SemanticClass.GROUND, labels == SemanticClass.VEGETATION
        low = ground | vegetation | (labels == SemanticClass.ROAD)
        lawns, paving = self._fields(count, 2, chance.uniform(12, 36)).unbind(1)
        crowns, = self._fields(count, 1, chance.uniform(4, 7)).unbind(1)
        blobs = self._fields(count, 3, chance.uniform(6, 24))
        known = labels < CLASS_COUNT
        out = torch.where(ground & self._in_share(paving, recipe.paving), int(SemanticClass.ROAD), labels)
        out = torch.where(ground & self._in_share(lawns, recipe.lawns), int(SemanticClass.VEGETATION), out)
        out = torch.where(vegetation & self._in_share(lawns, recipe.mown), int(SemanticClass.GROUND), out)
        out = torch.where(low & self._in_share(crowns, recipe.crowns), int(SemanticClass.VEGETATION), out)
        for field in blobs[:, :2].unbind(1):
            other = torch.randint(CLASS_COUNT, (count, 1, 1), device=labels.device, generator=self._generator)
            out = torch.where(self._in_share(field, recipe.blobs / 2), other, out)
        return torch.where(known & ~self._in_share(blobs[:, 2], recipe.holes), out, NO_DATA)

    def _new_buildings(self, count: int) -> torch.Tensor:
        """Bool (B, h, w): two rectangles here and there."""
        out = torch.zeros(count, SIZE_PX, SIZE_PX, dtype=torch.bool, device=self.atlas.device)
        for _ in range(2):
            turn, there = self._uniform(count, high=math.pi), self._uniform(count) < self.recipe.added
            sides = self._uniform(count, 2, low=4.0, high=10.0) * there[:, None]  # half of them
            middle = self._uniform(count, 2, low=-SIZE_PX / 2, high=SIZE_PX / 2)
            axes = _rotation(turn)
            along, across = (self._along(axes, axis) - middle[:, axis, None, None] for axis in (0, 1))
            out |= (along.abs() < sides[:, 0, None, None]) & (across.abs() < sides[:, 1, None, None])
        return out

    def _gone(self, packed: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Bool (B, h, w): buildings that do not exist any more, each whole. keys: int32 (B, 2), random."""
        number = packed >> 16
        chosen = (number * keys[:, 0, None, None] + keys[:, 1, None, None]) % 997 < 997 * self.recipe.removed
        return chosen & (number > 0)

    def _along(self, matrix: torch.Tensor, axis: int) -> torch.Tensor:
        """One coordinate of matrix (B, 2, 2) times all pixels' places: (B, h, w)."""
        return matrix[:, axis, 0, None, None] * self._window[0] + matrix[:, axis, 1, None, None] * self._window[1]

    def _north_up(self, count: int) -> torch.Tensor:
        return torch.eye(2, device=self.atlas.device).expand(count, 2, 2)

    def _in_share(self, field: torch.Tensor, share: float) -> torch.Tensor:
        """Where a field is highest, on 0 to twice `share` of the area."""
        shares = self._uniform(len(field), high=2 * share).clamp(min=1e-4)
        return field > math.sqrt(2) * torch.erfinv(1 - 2 * shares)[:, None, None]

    def _fields(self, count: int, channels: int, cell_px: float) -> torch.Tensor:
        """Smooth random fields of zero mean and unit variance, (B, channels, h, w)."""
        cells = int(math.ceil(SIZE_PX / cell_px)) + 1
        grid = torch.randn(count, channels, cells, cells, device=self.atlas.device, generator=self._generator)
        # Between its knots linear interpolation leaves 4/9 of the variance.
        return 1.5 * F.interpolate(grid, size=(SIZE_PX, SIZE_PX), mode="bilinear", align_corners=True)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, device=self.atlas.device, generator=self._generator)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self.atlas.device, generator=self._generator)


def _rotation(turn: torch.Tensor, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Matrices (B, 2, 2) that turn counter-clockwise and scale."""
    c, s = torch.cos(turn) * scale, torch.sin(turn) * scale
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 2, 2) times vectors (B, 2)."""
    return (matrix @ vector[..., None])[..., 0]


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Between points (A, 2) and (B, 2): (A, B). By matrix products they would be metres wrong."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _class_of(packed: torch.Tensor) -> torch.Tensor:
    return packed & 255


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes uint8, packed int32) of a whole map at 1 m/px, what the windows of its tiles show, and their centres."""
    with SemanticMap.open(path) as semantic_map:
        width, height = (int(math.ceil(length)) for length in semantic_map.bounds[2:])
        place = (width / 2, height / 2, _NORTH_UP, 1.0, (height, width))
        classes, heights = semantic_map.window(*place), semantic_map.heights(*place)
        centres = Tiles(semantic_map, LOCALIZATION_TILING).centres
    _, numbers = cv2.connectedComponents((classes == SemanticClass.BUILDING).astype(np.uint8))
    numbers = np.where(numbers > 0, numbers % _IDS + 1, 0)
    packed = classes.astype(np.int32) | heights.astype(np.int32) << 8 | numbers.astype(np.int32) << 16
    return classes, packed, centres


def _places(classes: np.ndarray) -> np.ndarray:
    """Centres (P, 2) around which 70 % of a tile are mapped and no class covers more than 97 % of that."""
    step = int(PLACE_STEP_M)
    rows, columns = (size // step for size in classes.shape)
    cells = classes[:rows * step, :columns * step].reshape(rows, step, columns, step)
    around = SIZE_PX // step
    shares = np.stack([cv2.boxFilter((cells == value).mean(axis=(1, 3), dtype=np.float32), -1, (around + 1, around + 1),
                                     borderType=cv2.BORDER_CONSTANT) for value in range(CLASS_COUNT)])
    known = shares.sum(axis=0)
    row, column = np.nonzero((known >= 0.7) & (shares.max(axis=0) <= 0.97 * known))
    return np.column_stack([(column + 0.5) * step, classes.shape[0] - (row + 0.5) * step])
