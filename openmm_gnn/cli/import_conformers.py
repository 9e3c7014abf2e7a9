"""Read OrbNet Denali or PCQM4Mv2 as they are downloaded, without unpacking them, into data for `pretrain`.

The file is read once from its beginning to its end, molecule after molecule. Killed, the command passes over what
it has when it is given again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Result, RunCommand
from openmm_gnn.data.conformers.published_sets import PublishedSet


@dataclass(frozen=True, kw_only=True)
class ImportConformers(RunCommand):
    published: tyro.conf.Positional[PublishedSet]
    """Data set that the file belongs to: orbnet-denali or pcqm4mv2."""
    source: tyro.conf.Positional[Path]
    """File or folder to read: orbnet_denali.tar.gz or the folder with its xyz_files; pcqm4m-v2-train.sdf.tar.gz or the
    .sdf in it."""
    out: Path
    """Directory of the data, for `pretrain`; given again, the import is resumed."""
    molecules: int | None = None
    """Number of molecules that are read at most. Default: all."""
    skip_bad: bool = False
    """Leave out, and count, molecules that cannot be read."""

    def run(self) -> Result:
        from openmm_gnn.data.conformers.published_sets import import_conformers

        data = import_conformers(self.published, self.source, self.out, self.molecules, self.skip_bad, self.progress)
        return Result(data.summary(), next=f"`openmm-gnn pretrain {self.out} --out encoder`", **data.numbers)
