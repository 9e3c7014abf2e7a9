"""Conformations of random strands of DNA and RNA, each with another sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.data.conformers.openmm_conformers import OpenMMDynamics, conformers_in_openmm
from openmm_gnn.data.conformers.shard_writing import Conformers
from openmm_gnn.md.implicit_solvent import ImplicitForceField, with_hydrogens
from openmm_gnn.md.systems.nucleic_acids import Strand, build_strand, random_strands

if TYPE_CHECKING:
    from openmm import app


@dataclass(frozen=True)
class NucleicAcidSettings(OpenMMDynamics):
    """Single strands, DNA and RNA in turns of chance; amber14 is OL15 and OL3 for them."""

    KIND: ClassVar[str] = "nucleic-acids"
    MOLECULES_PER_SHARD: ClassVar[int] = 8
    shortest: int = 1
    longest: int = 6
    """Nucleotides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.force_field is not ImplicitForceField.AMBER14:
            raise SpecError(f"nucleic acids have no force field {self.force_field.value} here: give amber14")

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> NucleicAcidMaker:
        if inputs:
            raise SpecError(f"nucleic acids are drawn at random: leave out {inputs[0]}")
        return NucleicAcidMaker(self)


class NucleicAcidMaker:
    """Strand k is the same one however many are made."""

    skipped: Sequence[str] = ()
    remarks: ClassVar[dict[str, Any]] = {}
    usual = 300

    def __init__(self, settings: NucleicAcidSettings) -> None:
        self.settings = settings
        self._more = random_strands(settings.shortest, settings.longest, settings.seed)
        self._strands: list[Strand] = []

    def strand(self, number: int) -> Strand:
        """Acid and sequence."""
        while len(self._strands) <= number:
            self._strands.append(next(self._more))
        return self._strands[number]

    def check(self, count: int, skip_bad: bool) -> None:
        self.strand(count - 1)

    def conformers(self, number: int) -> Conformers:
        strand = self.strand(number)

        def build(generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
            return with_hydrogens(*build_strand(strand, generator), generator)

        return conformers_in_openmm(strand.name, strand.name, build, self.settings, number)
