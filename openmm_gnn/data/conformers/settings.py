"""How conformations are made: settings of each kind of molecules, which make the molecules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from openmm_gnn.base.errors import SettingsError, SpecError, one_of, positive, whole
from openmm_gnn.data.conformers.shards import Conformers
from openmm_gnn.md.implicit_solvent import ImplicitForceField
from openmm_gnn.md.run_settings import check_time_step

Stored = TypeVar("Stored", bound="Dynamics")


class Maker(ABC):
    """Makes the molecules of one kind, each from the settings and its number alone."""

    skipped: Sequence[str] = ()
    """Parts of the input that were left out, and why."""
    usual: int
    """Number of molecules that are made when none is given."""

    @property
    def remarks(self) -> dict[str, Any]:
        """Further entries of meta.json."""
        return {}

    def check(self, count: int, skip_bad: bool) -> None:  # noqa: B027 - most kinds have nothing to check
        """Raise SpecError if there are fewer molecules, DataError if one of them cannot be made and is not skipped."""

    @abstractmethod
    def conformers(self, number: int) -> Conformers:
        """Build and run the molecule of this number; DataError or NonFiniteError if that cannot be done."""


class Kind(str, Enum):
    """What the molecules are."""

    PEPTIDES = "peptides"
    PROTEINS = "proteins"
    NUCLEIC_ACIDS = "nucleic-acids"
    MOLECULES = "molecules"


@dataclass(frozen=True)
class Dynamics:
    """Langevin dynamics from hot to cold, the same for each molecule."""

    KIND: ClassVar[Kind]
    MOLECULES_PER_SHARD: ClassVar[int] = 16
    """Molecules that a kill costs at most."""
    temperatures: tuple[float, ...] = (600.0, 450.0, 300.0)
    """Temperatures, K: each is run, in this order."""
    frames: int = 3
    """Number of frames per molecule and temperature."""
    interval_ps: float = 1.0
    """Time between two frames, ps, and before the first one at each temperature."""
    time_step: float = 4.0
    """Time step, fs."""
    friction_per_ps: float = 2.0
    """Friction of the Langevin dynamics, 1/ps."""
    seed: int = 1
    """Random seed of sequences, structures and dynamics."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(kelvin) for kelvin in self.temperatures))
        if not self.temperatures or min(self.temperatures) <= 0:
            raise SettingsError(self, "temperatures", "give one or more above 0 K")
        whole(self, 1, "frames")
        whole(self, 0, "seed")
        check_time_step(self)
        positive(self, "interval_ps", "friction_per_ps")
        if self.steps_per_frame < 1:
            raise SettingsError(self, "interval_ps", f"give at least one time step, {self.time_step} fs")

    @property
    def time_step_ps(self) -> float:
        return self.time_step / 1000

    @property
    def steps_per_frame(self) -> int:
        return round(self.interval_ps / self.time_step_ps)

    @property
    def frame_temperatures(self) -> list[float]:
        """(num_frames,) K."""
        return [kelvin for kelvin in self.temperatures for _ in range(self.frames)]

    @property
    def stored(self) -> dict[str, Any]:
        """The settings as meta.json holds them, which has times in ps."""
        values = {"kind": self.KIND.value, **asdict(self), "time_step_ps": self.time_step_ps}
        del values["time_step"]
        return values

    @classmethod
    def from_stored(cls: type[Stored], stored: dict[str, Any]) -> Stored:
        """The settings that meta.json holds."""
        known = {**stored, "time_step": 1000 * stored["time_step_ps"]}
        return cls(**{field.name: known[field.name] for field in fields(cls)})

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> Maker:
        """The maker of the molecules.

        Args:
            inputs: files that they are made of, for the kinds that need some.
            skip_bad: leave out what cannot be made.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class OpenMMDynamics(Dynamics):
    """Dynamics in OpenMM, with implicit solvent."""

    force_field: ImplicitForceField = ImplicitForceField.AMBER14
    """Family of force fields, with OBC2 implicit solvent."""
    platform: str = "CPU"
    """OpenMM platform; on the CPU each process has one thread."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, ImplicitForceField, "force_field")


@dataclass(frozen=True)
class RandomSettings(OpenMMDynamics):
    """Chains of random length and sequence."""

    shortest: int = 1
    """Number of residues of the shortest molecule, caps not counted."""
    longest: int = 8
    """Number of residues of the longest molecule, caps not counted."""

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> Maker:
        from openmm_gnn.data.conformers.openmm_conformers import RandomMaker

        if inputs:
            raise SpecError(f"{self.KIND.value} are drawn at random: leave out {inputs[0]}")
        return RandomMaker(self)


@dataclass(frozen=True)
class PeptideSettings(RandomSettings):
    """Random peptides of all 20 amino acids, each with another sequence; benchmarks are left out."""

    KIND = Kind.PEPTIDES


@dataclass(frozen=True)
class NucleicAcidSettings(RandomSettings):
    """Random single strands of DNA and RNA, each with another sequence; amber14 is OL15 and OL3 for them."""

    KIND = Kind.NUCLEIC_ACIDS
    MOLECULES_PER_SHARD: ClassVar[int] = 8
    longest: int = 6
    """Number of residues of the longest molecule, a nucleotide each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.force_field is not ImplicitForceField.AMBER14:
            raise SpecError(f"nucleic acids have no force field {self.force_field.value} here: give amber14")


@dataclass(frozen=True)
class ProteinSettings(OpenMMDynamics):
    """Runs of proteins from their structures, at temperatures at which they keep their fold for that long."""

    KIND = Kind.PROTEINS
    MOLECULES_PER_SHARD: ClassVar[int] = 1
    temperatures: tuple[float, ...] = (300.0, 330.0, 360.0)
    """Temperatures, K: each is run, in this order."""
    allow_held_out: bool = False
    """Take benchmarks, too; an encoder trained on them cannot be tested on them."""

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> Maker:
        from openmm_gnn.data.conformers.openmm_conformers import ProteinMaker

        return ProteinMaker(self, inputs, skip_bad)


@dataclass(frozen=True)
class MoleculeSettings(Dynamics):
    """Molecules of a file of SMILES, or approved drugs; in vacuum, all bonds free."""

    KIND = Kind.MOLECULES
    time_step: float = 1.0
    """Time step, fs."""

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> Maker:
        from openmm_gnn.data.conformers.small_molecules import DRUGS, MoleculeMaker, read_smiles

        return MoleculeMaker(self, read_smiles(inputs or [DRUGS]))


KINDS: dict[Kind, type[Dynamics]] = {
    kind.KIND: kind for kind in (PeptideSettings, ProteinSettings, NucleicAcidSettings, MoleculeSettings)
}
"""Settings of each kind of molecules."""
