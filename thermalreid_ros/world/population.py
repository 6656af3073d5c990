"""Who is in the city: cars, persons, bicycles and dogs, each in its place at any instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thermalreid_ros.world.actors import HeatState, Identity


@dataclass(frozen=True)
class Placed:
    """One identity in its place. World metres (x east, y north, z up) of the point on the ground below its middle.

    yaw_rad: where its front points, 0 = east, counter-clockwise. phase: 0..1, the instant of its gait or of its
    pedals; 0 for what stands. moving: travels now. ridden: a bicycle that carries its rider.
    """

    identity: Identity
    x: float
    y: float
    z: float
    yaw_rad: float
    phase: float
    state: HeatState
    moving: bool
    ridden: bool = False
