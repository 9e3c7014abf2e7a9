"""Make conformations of molecules, for `openmm-gnn pretrain`: dynamics at several temperatures, with hydrogens.

Peptides, proteins and nucleic acids run in OpenMM, with amber14 or CHARMM36 and OBC2 implicit solvent; molecules
from SMILES under MMFF94 of RDKit in vacuum. Alanine dipeptide, chignolin, trp-cage, villin and other benchmarks are
left out. Killed, it resumes when the same command is given again, with the same frames.

Some options depend on --kind: see `openmm-gnn conformers --kind proteins --help`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from openmm_gnn.cli.options import Command, Nested, Result, RunCommand, value_of, with_settings
from openmm_gnn.data.conformers.settings import KINDS, Kind, PeptideSettings


@dataclass(frozen=True, kw_only=True)
class Conformers(RunCommand):
    out: Path
    """Directory of the data; given again, the run is resumed or extended."""
    kind: Kind = Kind.PEPTIDES
    """Molecules: peptides or nucleic-acids of random sequences, proteins of --structure, molecules of --smiles."""
    molecules: int | None = None
    """Number of molecules; of proteins, runs over the structures in turn. Default: 300; all of --smiles; one run of
    each structure."""
    structure: tuple[Path, ...] = ()
    """PDB or PDBx/mmCIF file of a protein; may be given again."""
    smiles: tuple[Path, ...] = ()
    """File of SMILES, one in a line, a name may follow; may be given again. Default: approved drugs."""
    dynamics: Annotated[
        PeptideSettings,
        Nested(names={"interval_ps": "frame-time", "force_field": "force-field-family"}, without=("friction_per_ps",)),
    ]
    skip_bad: bool = False
    """Leave out, and count, what cannot be read or run."""
    processes: int | None = None
    """Number of processes, each with one thread. Default: one per core."""

    @classmethod
    def variant(cls, arguments: Sequence[str]) -> type[Command]:
        return with_settings(cls, "dynamics", KINDS[value_of("--kind", Kind, Kind.PEPTIDES, arguments)])

    def run(self) -> Result:
        from openmm_gnn.data.conformers.conformers import make_conformations

        data = make_conformations(
            self.out,
            self.molecules,
            self.dynamics,
            self.processes,
            self.progress,
            inputs=[*self.structure, *self.smiles],
            skip_bad=self.skip_bad,
        )
        return Result(
            data.summary(self.kind.value.replace("-", " ")),
            next=f"`openmm-gnn pretrain {self.out} --out encoder`, with other directories of conformers",
            **data.numbers,
        )
