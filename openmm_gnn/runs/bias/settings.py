"""What defines a bias along a learned CV; checked at birth, and made into a bias for one CV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import SpecError

if TYPE_CHECKING:
    from openmm_gnn.features.learned_cv import LearnedCV
    from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
    from openmm_gnn.runs.bias.opes import OpesBias
    from openmm_gnn.runs.bias.walls import BiasWalls

LEAST_WIDTH_OF_RANGE = 0.05
"""Slow variables are flat in their basins and steep between: narrower hills heat molecules there. Wider ones leave much
of the barrier: at 0.1 alanine dipeptide crossed it in none of 0.17 ns, at 0.05 seven times in as long."""
DEFAULT_BIAS_FACTOR = 10.0
"""Of metadynamics."""


class BiasMethod(str, Enum):
    """How the bias is built."""

    OPES = "opes"
    """From the probability along the CVs: quick to converge, bounded by a barrier."""
    METAD = "metad"
    """Well-tempered metadynamics: hills on a grid."""


@dataclass(frozen=True)
class BiasSettings:
    """Everything that decides a bias but the CV."""

    method: BiasMethod = BiasMethod.OPES
    outputs: tuple[int, ...] | None = None
    """Of the CV, counted from 0; None: all."""
    stride: int = 500
    """Steps between two hills or kernels."""
    height_kj_mol: float = 1.0
    """Of the first hill of metadynamics."""
    barrier_kj_mol: float = 40.0
    """What OPES is to cross."""
    bias_factor: float | None = None
    """None: 10 for metadynamics, barrier / kT for OPES."""
    widths: tuple[float, ...] | None = None
    """Of a hill, for each output; None: what the CV fluctuates by within a basin, at least 0.05 of its range."""
    margin: float = 0.1
    """Walls begin this part of a CV's range beyond its ends."""
    interval: int = 1
    """Steps between two evaluations of the bias, each of which then gives `interval` times the force.

    More than 1 is for variables that change gently: between the basins of alanine dipeptide, where its learned variable
    is steep, a molecule kicked every 8 fs is 90 K hotter than one pushed every 4 fs. The log shows the temperature."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", BiasMethod(self.method))
        for name in ("outputs", "widths"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("stride", "interval"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SpecError(f"BiasSettings.{name} is {value!r}: give a whole number, 1 or more")
        for name in ("height_kj_mol", "barrier_kj_mol", "margin"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise SpecError(f"BiasSettings.{name} is {getattr(self, name)}: give a finite number above 0")
        if self.bias_factor is not None and not self.bias_factor > 1:
            raise SpecError(f"BiasSettings.bias_factor is {self.bias_factor}: give a number above 1")
        if self.interval > 4:
            raise SpecError(
                f"BiasSettings.interval is {self.interval}: impulses so rare resonate with the bonds; give 1 to 4"
            )

    def chosen_outputs(self, cv: LearnedCV) -> tuple[int, ...]:
        """The outputs that are biased.

        Raises:
            SpecError: if there is no such output, or the widths are not of as many.
        """
        outputs = tuple(range(cv.num_outputs)) if self.outputs is None else self.outputs
        if not outputs or len(set(outputs)) < len(outputs) or not all(0 <= one < cv.num_outputs for one in outputs):
            raise SpecError(f"the bias is to be along the outputs {outputs}: the CV has {cv.num_outputs}, from 0 on")
        if self.widths is not None and len(self.widths) != len(outputs):
            raise SpecError(f"{len(self.widths)} widths came for {len(outputs)} outputs: give one for each")
        return outputs

    def widths_for(self, cv: LearnedCV) -> np.ndarray:
        """(D,) of the chosen outputs."""
        if self.widths is not None:
            return np.array(self.widths, np.float64)
        chosen = list(self.chosen_outputs(cv))
        length = _of(cv.ranges.maximum, chosen) - _of(cv.ranges.minimum, chosen)
        return np.maximum(_of(cv.ranges.fluctuation, chosen), LEAST_WIDTH_OF_RANGE * length)

    def walls_for(self, cv: LearnedCV) -> BiasWalls:
        """Around the range of the chosen outputs."""
        from openmm_gnn.runs.bias.walls import BiasWalls

        chosen = list(self.chosen_outputs(cv))
        return BiasWalls.around(_of(cv.ranges.minimum, chosen), _of(cv.ranges.maximum, chosen), self.margin)

    def potential(self, walls: BiasWalls, widths: np.ndarray, temperature: float) -> MetadynamicsBias | OpesBias:
        """The bias, without a hill or kernel yet.

        Args:
            walls, widths: of the chosen outputs.
            temperature: K.
        Raises:
            SpecError: if settings, walls and widths do not go together.
        """
        from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
        from openmm_gnn.runs.bias.opes import OpesBias

        if self.method is BiasMethod.OPES:
            return OpesBias(widths, self.barrier_kj_mol, temperature, self.bias_factor)
        # As far beyond the walls as the simulation may come, and a hill reaches.
        beyond = walls.reach + 3 * widths
        factor = DEFAULT_BIAS_FACTOR if self.bias_factor is None else self.bias_factor
        lower, upper = walls.lower - beyond, walls.upper + beyond
        return MetadynamicsBias(lower, upper, widths, self.height_kj_mol, factor, temperature)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "method": self.method.value}


def _of(values: Sequence[float], chosen: list[int]) -> np.ndarray:
    return np.array(values, np.float64)[chosen]
