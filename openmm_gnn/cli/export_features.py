"""`openmm-gnn export-features`: an embedding store as torch, HDF5, zarr or numpy files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.reporters.store_formats import Format, Observables


def export_features(
    run: Annotated[Path, typer.Argument(help="An embedding store, or the directory of a run with one or several.")],
    out: Annotated[
        Path, typer.Option(help="File, zarr directory or, for torch, stem; a directory for several stores.")
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="torch: geom2vec's STEM.pt and STEM_ca.pt. hdf5, zarr: all arrays, with units. "
            "numpy: scalars and vector lengths, (frames, n), for deeptime.",
        ),
    ] = Format.TORCH,
    observables: Annotated[
        Observables, typer.Option(help="With numpy: of every token, or their mean over the tokens.")
    ] = Observables.TOKENS,
) -> None:
    """Write the features of a run in a format that other programs read. Checksums are compared on the way."""
    from openmm_gnn.base.errors import DataError
    from openmm_gnn.reporters.embedding_store import EmbeddingStore
    from openmm_gnn.reporters.store_exports import export

    stores = EmbeddingStore.replicas(run)
    if not stores:
        raise DataError(f"{run} holds no embedding store: give the directory that EmbeddingReporter writes to")
    for name, store in stores.items():
        to = out / name if name else out
        for path in export(store, to, form, observables):
            typer.echo(f"{len(store)} frames in {path}")
