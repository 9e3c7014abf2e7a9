"""A labelled trajectory seen in another way: fewer of its frames, or in a box where it has none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

MARGIN_NM = 10.0
"""Wider than any cutoff."""


class Trajectory(Protocol):
    """What a batch needs of a labelled trajectory: arrays by frame, nm and kJ/mol/nm."""

    @property
    def positions(self) -> np.ndarray: ...
    @property
    def forces(self) -> np.ndarray: ...
    @property
    def box_vectors(self) -> np.ndarray: ...


class OpenTrajectory(Protocol):
    """Frames without periodic boundaries, nm and kJ/mol/nm."""

    @property
    def positions(self) -> np.ndarray: ...
    @property
    def forces(self) -> np.ndarray: ...


@dataclass(frozen=True)
class EveryNth:
    """A trajectory with only every n-th of its frames."""

    trajectory: Trajectory
    stride: int

    @property
    def positions(self) -> np.ndarray:
        return self.trajectory.positions[:: self.stride]

    @property
    def forces(self) -> np.ndarray:
        return self.trajectory.forces[:: self.stride]

    @property
    def box_vectors(self) -> np.ndarray:
        return self.trajectory.box_vectors[:: self.stride]


@dataclass(frozen=True)
class InOpenSpace:
    """A trajectory without periodic boundaries, in a cube so wide that no atom meets an image of another."""

    trajectory: OpenTrajectory

    @property
    def positions(self) -> np.ndarray:
        return self.trajectory.positions

    @property
    def forces(self) -> np.ndarray:
        return self.trajectory.forces

    @cached_property
    def box_vectors(self) -> np.ndarray:
        """(num_frames, 3, 3), the same cube for every frame, nm."""
        positions = self.positions
        extent = max((float(np.ptp(frame, axis=0).max()) for frame in positions), default=0.0)
        return np.broadcast_to(np.eye(3) * (extent + MARGIN_NM), (len(positions), 3, 3))
