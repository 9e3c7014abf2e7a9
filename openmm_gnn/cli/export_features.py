"""Write the features of a run in a format that other programs read. Checksums are compared on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command, Result
from openmm_gnn.reporters.store_meta import Format, Observables


@dataclass(frozen=True, kw_only=True)
class ExportFeatures(Command):
    store: tyro.conf.Positional[Path]
    """Directory that `simulate --features` or `featurize` wrote, or one that holds several of them."""
    out: Path
    """File to write, such as x.h5; of several stores a directory."""
    format: Format | None = None
    """File format. torch: geom2vec's X.pt and X_ca.pt. hdf5, zarr, npz: all arrays, with units. numpy: scalars and
    vector lengths, (frames, n), for deeptime, .npy. Default: that of the ending of --out, torch without one."""
    observables: Observables = Observables.TOKENS
    """Numbers written with --format numpy: those of every token (tokens), or their mean over the tokens (mean)."""

    def run(self) -> Result:
        from openmm_gnn.reporters.embedding_store import EmbeddingStore
        from openmm_gnn.reporters.store_exports import export_all

        stores = EmbeddingStore.replicas(self.store)
        made = export_all(stores, self.out, self.format, self.observables)
        files = {str(path): len(stores[name]) for name, paths in made.items() for path in paths}
        after = "read them with torch.load, h5py, zarr or numpy.load; `openmm-gnn analyze` reads the run itself"
        return Result(*(f"{frames} frames in {path}" for path, frames in files.items()), next=after, frames=files)
