"""Conformations of random peptides, each with another sequence, with and without caps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.data.conformers.openmm_conformers import OpenMMDynamics, conformers_in_openmm
from openmm_gnn.data.conformers.shard_writing import Conformers
from openmm_gnn.md.implicit_solvent import with_hydrogens
from openmm_gnn.md.systems.peptides import Peptide, build_peptide, random_peptides

if TYPE_CHECKING:
    from openmm import app


@dataclass(frozen=True)
class PeptideSettings(OpenMMDynamics):
    """Peptides of all 20 amino acids; benchmarks are left out."""

    KIND: ClassVar[str] = "peptides"
    shortest: int = 1
    longest: int = 8
    """Residues, caps not counted."""

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> PeptideMaker:
        if inputs:
            raise SpecError(f"peptides are drawn at random: leave out {inputs[0]}")
        return PeptideMaker(self)


class PeptideMaker:
    """Peptide k is the same one however many are made."""

    skipped: Sequence[str] = ()
    remarks: ClassVar[dict[str, Any]] = {}
    usual = 300

    def __init__(self, settings: PeptideSettings) -> None:
        self.settings = settings
        self._more = random_peptides(settings.shortest, settings.longest, settings.seed)
        self._peptides: list[Peptide] = []

    def peptide(self, number: int) -> Peptide:
        """Caps and sequence."""
        while len(self._peptides) <= number:
            self._peptides.append(next(self._more))
        return self._peptides[number]

    def check(self, count: int, skip_bad: bool) -> None:
        self.peptide(count - 1)

    def conformers(self, number: int) -> Conformers:
        peptide = self.peptide(number)

        def build(generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
            return with_hydrogens(*build_peptide(peptide, generator), generator)

        return conformers_in_openmm(peptide.name, peptide.sequence, build, self.settings, number)
