"""The narrowest kernels and walls that a time step bears, from how steep the variables are along the run.

An atom of mass m that a bias V(s) pushes by its slope feels a spring of V''(s) |ds/dx|^2; in mass-weighted coordinates
the bias has the frequency sqrt(V'') g, with g the steepness of `BiasForce.steepness`. A leapfrog scheme fails where a
frequency times its time step reaches 2; the molecule's own bonds, at most 1.4 with the usual steps, leave room for 1.

Largest V'' of a single OPES kernel of width w and barrier B: V = c log(exp(-x^2 / 2 w^2) + epsilon) with
epsilon = exp(-B / c) bends most where both terms are equal, by (B - c) / (2 w^2), below B / (2 w^2); and the other way
at its centre, by less than c / w^2, which is more where OPES explores. That of hills stacked to a height of B:
2 exp(-3/2) B / w^2, below B / (2 w^2) as well. That of a wall: 2 WALL_KJ_MOL / reach^2.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.runs.settings import WALL_KJ_MOL

SAMPLES_PER_STRIDE = 10
"""Samples of the steepness between two hills or kernels."""
START_FACTOR = 2.0
"""Steepness of the first picoseconds over that of the first frame: variables vary in it by about as much."""
MARGIN = 1.1
"""Steepness that is prepared for over the steepest sample, so that few samples make everything wider."""


class LeastWidths:
    """Least widths of kernels, and least reaches of the walls, for the steepest place so far.

    A kernel acts far from where it was added: at the edge of the region that was explored the bias of all kernels bends
    most, and there a variable may be much steeper than within it.
    """

    def __init__(self, energy_kj_mol: float, time_step_ps: float, stiffness: float, first: np.ndarray) -> None:
        """
        Args:
            energy_kj_mol: `depth` of the bias.
            time_step_ps: between two evaluations of the bias.
            stiffness: largest frequency of the bias times that time step.
            first: (D,) steepness of the start.
        """
        self._per_steepness = time_step_ps * np.sqrt(energy_kj_mol / 2) / stiffness
        self._reach_per_steepness = time_step_ps * np.sqrt(2 * WALL_KJ_MOL) / stiffness
        self._steepest = START_FACTOR * np.asarray(first)

    def observe(self, steepness: np.ndarray) -> bool:
        """Take in one more sample, (D,); whether it is the steepest, and the widths have grown."""
        steeper = np.asarray(steepness) > self._steepest
        self._steepest = np.where(steeper, MARGIN * np.asarray(steepness), self._steepest)
        return bool(steeper.any())

    @property
    def widths(self) -> np.ndarray:
        """(D,) least widths of kernels or hills, which only grow."""
        return np.asarray(self._per_steepness * self._steepest)

    @property
    def reach(self) -> np.ndarray:
        """(D,) least reaches of the walls, which only grow."""
        return np.asarray(self._reach_per_steepness * self._steepest)
