"""Walls: where the range that a CV was trained in ends, with a margin, a spring turns the simulation back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import SpecError

if TYPE_CHECKING:
    from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
    from openmm_gnn.runs.bias.opes import OpesBias

WALL_KJ_MOL = 20.0
"""One margin beyond a wall, for each CV."""


@dataclass(frozen=True)
class BiasWalls:
    """Walls at both ends of each CV, harmonic for one reach, then straight: there a network never saw anything."""

    lower: np.ndarray
    """(D,) where the lower walls begin."""
    upper: np.ndarray
    """(D,) where the upper walls begin."""
    reach: np.ndarray
    """(D,) how far beyond a wall its energy is WALL_KJ_MOL."""

    def __post_init__(self) -> None:
        if not (np.all(self.upper > self.lower) and np.all(self.reach > 0)):
            raise SpecError(f"walls from {self.lower} to {self.upper}, reach {self.reach}: give lower ones below upper")

    @classmethod
    def around(cls, minimum: np.ndarray, maximum: np.ndarray, margin: float) -> BiasWalls:
        """Walls that begin `margin` times the range beyond its ends."""
        low, high = np.asarray(minimum, np.float64), np.asarray(maximum, np.float64)
        reach = margin * (high - low)
        return cls(low - reach, high + reach, reach)

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) its derivatives."""
        beyond = (np.maximum(values - self.upper, 0.0) + np.minimum(values - self.lower, 0.0)) / self.reach
        # A network may answer with anything out there, and the square of that would tear the molecule apart.
        near = np.clip(beyond, -1.0, 1.0)
        energy = np.square(near) + 2.0 * np.abs(beyond - near)
        return float(WALL_KJ_MOL * energy.sum()), 2.0 * WALL_KJ_MOL * near / self.reach


class WalledBias:
    """A bias and its walls together, as the force sees them."""

    def __init__(self, bias: MetadynamicsBias | OpesBias, walls: BiasWalls) -> None:
        self.bias, self.walls = bias, walls

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) its derivatives."""
        energy, gradient = self.bias.value_and_gradient(values)
        wall, push = self.walls.value_and_gradient(values)
        return energy + wall, gradient + push
