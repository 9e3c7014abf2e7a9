"""Settings of an analysis of slow variables: checked when made, stored as JSON, compared when it is resumed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from openmm_gnn.base.errors import SettingsError, one_of, positive, whole
from openmm_gnn.base.specs.tokens import Merging, Mixer

QUICK_STEPS = 100

_STORED_NAMES = {
    "lag": "lag_ps",
    "lags": "lags_ps",
    "outputs": "num_outputs",
    "states": "num_states",
    "layers": "num_layers",
    "networks": "seeds",
    "merged_residues": "window",
}
"""Names in analysis.json, where a number carries its unit and a count says that it is one."""


class Method(str, Enum):
    """The registry of methods: `vampnet` is learned by `kinetics/methods/vampnet.py`, and so on."""

    VAMPNET = "vampnet"
    SPIB = "spib"
    TICA = "tica"


@dataclass(frozen=True)
class AnalysisSettings:
    """Everything that decides the result of an analysis, apart from the runs."""

    lag: float
    """Lag time, ps: the time between the two frames of a pair; longer than the processes to ignore."""
    method: Method = Method.VAMPNET
    """Method that learns the slow variables: a network with the highest VAMP-2 score (vampnet), a network that learns
    variables and states together (spib), or linear combinations of the features (tica)."""
    outputs: int = 2
    """Number of slow variables."""
    states: int = 0
    """Number of states of the Markov model; 0: one more than outputs, or with spib as many as it finds."""
    lags: tuple[float, ...] = ()
    """Lag times of the scores and implied timescales, ps. Default: 0.1 to 8 times the lag."""
    networks: int = 3
    """Number of networks that are trained, each from another random seed; the one with the best validation score
    is used."""
    mixer: Mixer = Mixer.SUBMIXER
    """Layers of the network that mix the tokens of the residues."""
    chiral: bool = False
    """Tell a shape from its mirror image, such as the left and right helices of glycine, which are the same to all
    other networks, by a triple product of each token's vectors."""
    merged_residues: int = 1
    """Number of consecutive residues that are merged into one token; 1: none are merged; 0: all residues of a chain."""
    merging: Merging | None = None
    """Features that a merged token keeps: scalars alone (scalar), or scalars and vectors (equivariant). Default: none
    where no residues are merged, else equivariant."""
    width: int = 64
    """Number of channels of the network."""
    layers: int = 2
    """Number of layers of the mixer."""
    dropout: float = 0.0
    """Dropout probability of the network in training. At 0.1 its noise can hide, for dozens of steps, the small
    variations that a network of few residues starts with."""
    steps: int = 1000
    """Largest number of training steps of each network; with spib, of those between two updates of the states."""
    batch_size: int | None = None
    """Number of pairs of frames per training step. Default: 4000, whose covariances vampnet can trust, or 500 with
    spib."""
    temperature: float | None = None
    """Temperature of the runs, K. Default: that of run.json."""
    quick: bool = False
    """Train one network, in few steps, to see whether everything works."""

    def __post_init__(self) -> None:
        if self.merging is None:
            object.__setattr__(self, "merging", Merging.NONE if self.merged_residues == 1 else Merging.EQUIVARIANT)
        one_of(self, Method, "method")
        one_of(self, Mixer, "mixer")
        one_of(self, Merging, "merging")
        object.__setattr__(self, "lags", tuple(float(lag) for lag in self.lags))
        positive(self, "lag", "temperature")
        if not all(math.isfinite(lag) and lag > 0 for lag in self.lags):
            raise SettingsError(self, "lags", "give times above 0")
        whole(self, 0, "states", "merged_residues")
        whole(self, 1, "outputs", "networks", "layers", "steps")
        whole(self, 2, "width", "batch_size")
        if self.states == 1:
            raise SettingsError(self, "states", "give 2 or more, or 0 for a number that suits the outputs")
        if not 0 <= self.dropout <= 0.9:
            raise SettingsError(self, "dropout", "give a probability from 0 to 0.9")
        if self.merged_residues != 1 and self.merging is Merging.NONE:
            raise SettingsError(self, "merged_residues", "give merging scalar or equivariant, or 1")

    @property
    def used_networks(self) -> int:
        return 1 if self.quick else self.networks

    @property
    def used_steps(self) -> int:
        return min(self.steps, QUICK_STEPS) if self.quick else self.steps

    @property
    def wanted_states(self) -> int:
        """States of the Markov model."""
        return self.states or self.outputs + 1

    def to_json(self) -> dict[str, Any]:
        """Plain values by their names in analysis.json."""
        values = dataclasses.asdict(self)
        return {
            _STORED_NAMES.get(name, name): value.value if isinstance(value, Enum) else value
            for name, value in values.items()
        }
