"""What is asked of an analysis of slow variables; checked at birth, stored as JSON, compared when it goes on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.tokens import Merging, Mixer

LAG_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Lags at which scores and timescales are taken, in lags of the training."""
SHORTEST_IN_LAGS = 5
"""A run is at least as long as so many of the longest lags."""


QUICK_STEPS = 100


class Method(str, Enum):
    """How slow variables are learned."""

    VAMPNET = "vampnet"
    """A network whose outputs have the highest VAMP-2 score."""
    SPIB = "spib"
    """The state predictive information bottleneck: variables and states together."""
    TICA = "tica"
    """Linear in the invariants of the tokens: fast, and what the networks must beat."""


@dataclass(frozen=True)
class SlowSettings:
    """Everything that decides the result but the runs."""

    lag_ps: float
    method: Method = Method.VAMPNET
    num_outputs: int = 2
    num_states: int = 0
    """0: one more than outputs, or with SPIB what it finds."""
    seeds: int = 3
    lags_ps: tuple[float, ...] = ()
    """At which scores and timescales are taken; empty: LAG_FACTORS."""
    mixer: Mixer = Mixer.SUBMIXER
    merging: Merging = Merging.NONE
    window: int = 1
    width: int = 64
    num_layers: int = 2
    dropout: float = 0.0
    """What a network makes of few residues varies little at first: at 0.1 the noise of dropout outweighs it, and the
    score stays at 1 for dozens of steps."""
    steps: int = 1000
    """Of the training, at most; of every seed."""
    batch_size: int = 4000
    temperature: float | None = None
    """K; None: that of run.json."""
    quick: bool = False
    """One seed, QUICK_STEPS, few samples: to see whether all works."""

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("mixer", Mixer), ("merging", Merging)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError as error:
                allowed = [one.value for one in kind]
                raise SpecError(f"SlowSettings.{name} is {getattr(self, name)!r}: give one of {allowed}") from error
        object.__setattr__(self, "lags_ps", tuple(float(lag) for lag in self.lags_ps))
        for lag in (self.lag_ps, *self.lags_ps):
            if not (math.isfinite(lag) and lag > 0):
                raise SpecError(f"a lag of {lag} ps: give a time above 0")
        for name, least in {"num_outputs": 1, "num_states": 0, "seeds": 1, "steps": 1, "batch_size": 2}.items():
            if getattr(self, name) < least:
                raise SpecError(f"SlowSettings.{name} is {getattr(self, name)}: give at least {least}")
        if self.num_states == 1:
            raise SpecError("SlowSettings.num_states is 1: give 2 or more, or 0 for a number that suits the outputs")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SpecError(f"SlowSettings.temperature is {self.temperature} K: give a temperature above 0")

    @property
    def used_seeds(self) -> int:
        return 1 if self.quick else self.seeds

    @property
    def used_steps(self) -> int:
        return min(self.steps, QUICK_STEPS) if self.quick else self.steps

    @property
    def wanted_states(self) -> int:
        """States of the Markov model."""
        return self.num_states or self.num_outputs + 1

    def to_json(self) -> dict[str, Any]:
        """Plain values; `SlowSettings(**...)` makes the same again."""
        values = dataclasses.asdict(self)
        return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def lag_frames(settings: SlowSettings, interval_ps: float, shortest_frames: int) -> list[int]:
    """The lags in frames at which scores and timescales are taken, ascending, that of the training among them.

    Args:
        shortest_frames: of a run.
    Raises:
        DataError: if a lag that was asked for is longer than the runs allow.
    """
    own = max(1, round(settings.lag_ps / interval_ps))
    longest = shortest_frames // SHORTEST_IN_LAGS
    for lag in (settings.lag_ps, *settings.lags_ps):
        if round(lag / interval_ps) > longest:
            raise DataError(
                f"a lag of {lag:g} ps in a run of {shortest_frames * interval_ps:g} ps: runs must last "
                f"{SHORTEST_IN_LAGS} lags or more; give a shorter lag, or leave the short run out"
            )
    wanted = settings.lags_ps or tuple(factor * settings.lag_ps for factor in LAG_FACTORS)
    frames = {max(1, round(lag / interval_ps)) for lag in wanted}
    return sorted({own, *(count for count in frames if count <= longest)})


def lags_in_ps(frames: list[int], interval_ps: float) -> np.ndarray:
    """(lags,) ps."""
    return np.array(frames) * interval_ps
