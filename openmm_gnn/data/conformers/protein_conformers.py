"""Conformations of proteins from structure files: several runs of each, in implicit solvent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.conformers.openmm_conformers import OpenMMDynamics, conformers_in_openmm
from openmm_gnn.data.conformers.shard_writing import Conformers
from openmm_gnn.md.implicit_solvent import with_hydrogens
from openmm_gnn.md.systems.protein_structures import Protein, read_protein

if TYPE_CHECKING:
    from openmm import app


@dataclass(frozen=True)
class ProteinSettings(OpenMMDynamics):
    """Runs of proteins from their structures, at temperatures at which they keep their fold for that long."""

    KIND: ClassVar[str] = "proteins"
    MOLECULES_PER_SHARD: ClassVar[int] = 1
    temperatures: tuple[float, ...] = (300.0, 330.0, 360.0)
    allow_held_out: bool = False
    """Take benchmarks too; an encoder trained on them cannot be tested on them."""

    def maker(self, inputs: Sequence[Path], skip_bad: bool = False) -> ProteinMaker:
        return ProteinMaker(self, inputs, skip_bad)


class ProteinMaker:
    """Run k is one of structure k modulo their number; other velocities each time."""

    def __init__(self, settings: ProteinSettings, structures: Sequence[Path], skip_bad: bool) -> None:
        if not structures:
            raise SpecError("no structures were given: give a PDB or PDBx/mmCIF file with --structure")
        self.settings = settings
        self.skipped: list[str] = []
        self.proteins: list[Protein] = []
        for path in structures:
            try:
                self.proteins.append(self._accepted(path))
            except DataError as error:
                if not skip_bad:
                    raise
                self.skipped.append(str(error))
        if not self.proteins:
            raise DataError(f"all {len(structures)} structures were left out, the first one because {self.skipped[0]}")

    def _accepted(self, path: Path) -> Protein:
        protein = read_protein(path)
        if protein.benchmark is not None and not self.settings.allow_held_out:
            raise DataError(
                f"{path} is {protein.benchmark}, on which encoders are tested: leave it out, or train on it with "
                "--allow-held-out and test on others"
            )
        return protein

    @property
    def remarks(self) -> dict[str, Any]:
        """Residues that were left out, by structure."""
        return {"dropped_residues": {protein.name: protein.dropped for protein in self.proteins if protein.dropped}}

    @property
    def usual(self) -> int:
        return len(self.proteins)

    def check(self, count: int, skip_bad: bool) -> None:
        """There are as many runs as are asked for."""

    def conformers(self, number: int) -> Conformers:
        protein = self.proteins[number % len(self.proteins)]

        def build(generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
            return with_hydrogens(protein.topology, protein.positions, generator)

        return conformers_in_openmm(protein.name, protein.sequence, build, self.settings, number)
