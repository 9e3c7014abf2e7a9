"""The settings of what accompanies a run: live features, a bias along a learned CV, and its walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import SettingsError, SpecError, one_of, positive, whole
from openmm_gnn.features.featurizer_settings import Context, GraphContext

if TYPE_CHECKING:
    from openmm_gnn.features.learned_cv import LearnedCV
    from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
    from openmm_gnn.runs.bias.opes import OpesBias

LEAST_WIDTH_OF_RANGE = 0.05
"""Slow variables are flat in their basins and steep between: narrower hills push hard there, which long time steps do
not bear. Wider ones leave much of the barrier: at 0.1 alanine dipeptide crossed it in none of 0.17 ns, at 0.05 seven
times in as long."""
DEFAULT_BIAS_FACTOR = 10.0
"""The bias factor of metadynamics where none is given."""


@dataclass(frozen=True)
class FeatureSettings:
    """Which features of a run are stored, in RUN/features."""

    encoder: str
    """Name or path of an encoder."""
    stride: int | None = None
    """Number of time steps between two stored frames of features. Default: the stride of the run's own frames."""
    selection: str | None = None
    """Atoms that the encoder sees, in mdtraj's selection language. Default: heavy atoms, without water and ions."""
    dtype: str = "float16"
    """Type of the stored numbers: float16 or float32."""
    context: Context = Context.WHOLE
    """Atoms in one graph: all selected ones (whole), or each residue with its neighbours in sequence (window)."""
    window: int | None = None
    """Number of residues on either side of each residue that its graph contains, with context window. Default: 2."""
    replace: bool = False
    """Drop frames of features in OUT/features that are not of this run, past the step from which it goes on. Default:
    they stay, and the run is refused."""

    def __post_init__(self) -> None:
        whole(self, 1, "stride")
        one_of(self, Context, "context")
        GraphContext.from_description({"context": self.context.value, "window": self.window})


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

    def reaching(self, least: np.ndarray) -> BiasWalls:
        """The same walls, at least as soft as reaches of (D,) `least` make them."""
        return BiasWalls(self.lower, self.upper, np.maximum(self.reach, least))

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) its derivatives."""
        beyond = (np.maximum(values - self.upper, 0.0) + np.minimum(values - self.lower, 0.0)) / self.reach
        # A network may answer with anything out there, and the square of that would tear the molecule apart.
        near = np.clip(beyond, -1.0, 1.0)
        energy = np.square(near) + 2.0 * np.abs(beyond - near)
        return float(WALL_KJ_MOL * energy.sum()), 2.0 * WALL_KJ_MOL * near / self.reach


class BiasMethod(str, Enum):
    """How the bias is built."""

    OPES = "opes"
    """From the probability along the CVs: quick to converge, bounded by a barrier."""
    OPES_EXPLORE = "opes-explore"
    """From the probability that the biased run itself shows: leaves known places sooner, converges later."""
    METAD = "metad"
    """Well-tempered metadynamics: hills on a grid."""


@dataclass(frozen=True)
class BiasSettings:
    """Everything that decides a bias but the CV; made into a bias for one CV."""

    method: BiasMethod = BiasMethod.OPES
    """Method that builds the bias: opes, from the probability along the CVs; opes-explore, from that of the biased run,
    which explores faster and converges later; or metad, well-tempered metadynamics."""
    outputs: tuple[int, ...] | None = None
    """Outputs of the CV that are biased, counted from 0, such as 0,1. Default: all that were slow in frames which they
    were not learned from."""
    barrier: float = 40.0
    """Highest barrier that opes is to cross, in kJ/mol; differences of the bias are limited to it."""
    height: float = 1.0
    """Height of the first hill of metad in kJ/mol."""
    factor: float | None = None
    """Bias factor, above 1. Default: 10 for metad, the barrier in units of kT for opes."""
    width: tuple[float, ...] | None = None
    """Width of a hill, one number per output, in the CV's unit. Default: the CV's fluctuation within a basin, at least
    0.05 of its range."""
    shrink: bool = False
    """Narrow new kernels of opes as frames are gathered, which shows finer free energies, and pushes harder."""
    stride: int = 500
    """Number of time steps between two hills or kernels."""
    interval: int = 1
    """Number of time steps between two evaluations of the bias, 1 to 4; each gives `interval` times the force. Above
    1, a variable that changes steeply may heat the molecule: the log shows its temperature."""
    stiffness: float = 1.0
    """Largest frequency that the bias alone may have, times the time step; integration fails at 2. Where a variable is
    so steep that kernels, hills or walls would be stiffer, they are wider. A large number leaves them as they are."""
    margin: float = 0.1
    """Distance of the walls from the ends of a CV's range, as a fraction of the range."""
    allow_jumps: bool = False
    """Bias a CV whose encoder is not continuous, too: each neighbour that crosses the cutoff heats the molecule."""
    allow_few_data: bool = False
    """Bias outputs that were not slow in frames which they were not learned from, too."""
    walkers: Path | None = None
    """Directory that several runs of one system share to build one bias (multiple walkers): each adds the hills or
    kernels of all. Runs may begin, end and be killed at any time. Default: the run has a bias of its own."""

    def __post_init__(self) -> None:
        one_of(self, BiasMethod, "method")
        for name in ("outputs", "width"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        whole(self, 1, "stride", "interval")
        positive(self, "height", "barrier", "stiffness", "margin")
        if self.factor is not None and not self.factor > 1:
            raise SettingsError(self, "factor", "give a number above 1")
        if self.shrink and self.method is BiasMethod.METAD:
            raise SettingsError(self, "shrink", "hills of metad keep their width; give --bias-method opes")
        if self.interval > 4:
            raise SettingsError(self, "interval", "impulses so rare resonate with the bonds; give 1 to 4")

    def chosen_outputs(self, cv: LearnedCV) -> tuple[int, ...]:
        """The outputs that are biased.

        Raises:
            SpecError: if there is no such output, one is not slow, or the widths are not of as many.
        """
        from openmm_gnn.forces.cv_force import chosen_outputs

        wanted = self.outputs
        if wanted is None and cv.slowness is not None and not self.allow_few_data:
            wanted = cv.slowness.slow or None
        outputs = chosen_outputs(cv, wanted)
        if not self.allow_few_data:
            cv.check_slow(outputs)
        if self.width is not None and len(self.width) != len(outputs):
            raise SpecError(f"{len(self.width)} widths came for {len(outputs)} outputs: give one for each")
        return outputs

    def widths_for(self, cv: LearnedCV) -> np.ndarray:
        """The widths of hills along the chosen outputs, (D,)."""
        if self.width is not None:
            return np.array(self.width, np.float64)
        chosen = list(self.chosen_outputs(cv))
        length = _picked(cv.ranges.maximum, chosen) - _picked(cv.ranges.minimum, chosen)
        return np.maximum(_picked(cv.ranges.fluctuation, chosen), LEAST_WIDTH_OF_RANGE * length)

    def walls_for(self, cv: LearnedCV) -> BiasWalls:
        """Walls around the range of the chosen outputs."""
        chosen = list(self.chosen_outputs(cv))
        return BiasWalls.around(_picked(cv.ranges.minimum, chosen), _picked(cv.ranges.maximum, chosen), self.margin)

    def potential(self, walls: BiasWalls, widths: np.ndarray, temperature: float) -> MetadynamicsBias | OpesBias:
        """The bias, without a hill or kernel yet.

        Args:
            walls, widths: those of the chosen outputs.
            temperature: K.
        Raises:
            SpecError: if settings, walls and widths do not go together.
        """
        from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
        from openmm_gnn.runs.bias.opes import OpesBias

        if self.method is not BiasMethod.METAD:
            explore = self.method is BiasMethod.OPES_EXPLORE
            return OpesBias(widths, self.barrier, temperature, self.factor, explore, self.shrink)
        # As far beyond the walls as the simulation may come, and a hill reaches.
        beyond = walls.reach + 3 * widths
        factor = DEFAULT_BIAS_FACTOR if self.factor is None else self.factor
        lower, upper = walls.lower - beyond, walls.upper + beyond
        return MetadynamicsBias(lower, upper, widths, self.height, factor, temperature)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON, under the keys of run.json and bias/meta.json."""
        record = {key: getattr(self, name) for key, name in _RECORD_KEYS.items()}
        shrink = {"shrink": True} if self.shrink else {}  # records of before there was a choice have no such key
        return {**record, "method": self.method.value, **shrink}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BiasSettings:
        """The settings that `to_record` has written.

        Raises:
            SpecError: if a number is out of range.
        """
        return cls(**{_RECORD_KEYS.get(key, key): value for key, value in record.items()})


_RECORD_KEYS = {
    "method": "method",
    "outputs": "outputs",
    "stride": "stride",
    "height_kj_mol": "height",
    "barrier_kj_mol": "barrier",
    "bias_factor": "factor",
    "widths": "width",
    "stiffness": "stiffness",
    "margin": "margin",
    "interval": "interval",
}
"""Key in a run's record and field of `BiasSettings`."""


def _picked(values: Sequence[float], chosen: list[int]) -> np.ndarray:
    return np.array(values, np.float64)[chosen]
