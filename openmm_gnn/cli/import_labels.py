"""Read labelled frames from other programs: any box, number and kinds of atoms, frame by frame.

Every file is taken for one trajectory. Each block of it counts as a seed, numbered from 1 through all files in
their order: `train --train-seeds 1-8 --validation-seeds 9` trains on the first eight and holds out the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command, Result, RunCommand
from openmm_gnn.data.labels.settings import ImportSettings


@dataclass(frozen=True, kw_only=True)
class ImportLabels(RunCommand):
    after_stop = Command.after_stop

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files to read: extended XYZ (.xyz, .extxyz; eV, angstrom) or processed RPBE water (.npz)."""
    out: Path
    """New directory, for `train` and `evaluate`."""
    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the bonds. Default: no bonds."""
    settings: ImportSettings
    force_key: str | None = None
    """Name of the forces in extended XYZ. Default: the name that ASE gives them."""
    energy_key: str | None = None
    """Name of the energy in extended XYZ. Default: the name that ASE gives it."""

    def run(self) -> Result:
        from openmm_gnn.data.labels.external_labels import read_external
        from openmm_gnn.data.labels.imported_labels import import_labels
        from openmm_gnn.md.systems.structure_files import read_structure

        data = import_labels(
            [read_external(path, self.force_key, self.energy_key) for path in self.files],
            self.out,
            self.settings,
            topology=None if self.topology is None else read_structure(self.topology)[0],
            topology_name=None if self.topology is None else self.topology.name,
        )
        after = f"`openmm-gnn train {self.out} --out network`, with --train-seeds and --validation-seeds"
        return Result(data.summary, next=after, directory=self.out, frames=len(data.frames), seeds=data.seeds)
