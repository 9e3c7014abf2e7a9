"""Write the features of a run in a format that other programs read. Checksums are compared on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command
from openmm_gnn.reporters.store_meta import Format, Observables


@dataclass(frozen=True, kw_only=True)
class ExportFeatures(Command):
    store: tyro.conf.Positional[Path]
    """An embedding store, or the directory of a run with one or several."""
    out: Path
    """File to write; for zarr a directory, for torch the beginning of the names of files; a directory for several
    stores."""
    format: Format = Format.TORCH
    """File format. torch: geom2vec's STEM.pt and STEM_ca.pt. hdf5, zarr: all arrays, with units. numpy: scalars and
    vector lengths, (frames, n), for deeptime."""
    observables: Observables = Observables.TOKENS
    """Numbers written with --format numpy: those of every token (tokens), or their mean over the tokens (mean)."""

    def run(self) -> None:
        from openmm_gnn.reporters.embedding_store import EmbeddingStore
        from openmm_gnn.reporters.store_exports import export

        for name, store in EmbeddingStore.replicas(self.store).items():
            for path in export(store, self.out / name if name else self.out, self.format, self.observables):
                print(f"{len(store)} frames in {path}")
        print("Next: read them with torch.load, h5py, zarr or numpy.load; `openmm-gnn analyze` reads the run itself")
