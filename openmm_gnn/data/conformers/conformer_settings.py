"""How conformations are made: what all kinds of molecules have in common, and the parts that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from openmm_gnn.base.errors import SpecError
from openmm_gnn.data.conformers.shard_writing import Conformers


class Maker(Protocol):
    """Makes the molecules of one kind, each from the settings and its number alone."""

    @property
    def skipped(self) -> Sequence[str]:
        """What of the input was left out, and why."""

    @property
    def remarks(self) -> dict[str, Any]:
        """What else is to be remembered in meta.json."""

    @property
    def usual(self) -> int:
        """How many are made when no number is given."""

    def check(self, count: int, skip_bad: bool) -> None:
        """SpecError if there are not so many molecules, DataError if one of them cannot be made, unless skipped."""

    def conformers(self, number: int) -> Conformers:
        """Build and run the molecule of this number; DataError or NonFiniteError if that cannot be done."""


@dataclass(frozen=True)
class Dynamics:
    """Langevin dynamics from hot to cold, the same for each molecule."""

    KIND: ClassVar[str]
    MOLECULES_PER_SHARD: ClassVar[int] = 16
    """What a kill may lose, at most."""
    temperatures: tuple[float, ...] = (600.0, 450.0, 300.0)
    """K, in the order in which they are run."""
    frames: int = 3
    """Per molecule and temperature."""
    interval_ps: float = 1.0
    """Between two frames; as long runs before the first at each temperature."""
    time_step_ps: float = 0.004
    friction_per_ps: float = 2.0
    seed: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(kelvin) for kelvin in self.temperatures))
        if not self.temperatures or min(self.temperatures) <= 0:
            raise SpecError(f"the temperatures are {self.temperatures} K: give one or more above 0")
        if self.frames < 1 or self.time_step_ps <= 0 or self.steps_per_frame < 1:
            raise SpecError(
                f"{self.frames} frames every {self.interval_ps} ps in steps of {self.time_step_ps} ps: give at least "
                "one frame, and an interval of at least one step"
            )

    @property
    def steps_per_frame(self) -> int:
        return round(self.interval_ps / self.time_step_ps)

    @property
    def frame_temperatures(self) -> list[float]:
        """(num_frames,) K."""
        return [kelvin for kelvin in self.temperatures for _ in range(self.frames)]

    def maker(self, inputs: Sequence[Path], skip_bad: bool = False) -> Maker:
        """What makes the molecules.

        Args:
            inputs: files that they are made of, for the kinds that need some.
            skip_bad: leave out what cannot be made.
        """
        raise NotImplementedError
