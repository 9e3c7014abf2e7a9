"""`openmm-gnn predict`: a learned property of structures that were never seen before, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[Path, typer.Argument(help="Bundle written by `openmm-gnn regress`.")],
    files: Annotated[
        list[Path], typer.Argument(help="Extended XYZ, PDB or PDBx/mmCIF files, or directories of `conformers`.")
    ],
    out: Annotated[Path, typer.Option(help="The table to write (.csv).")],
    batch_size: Annotated[int, typer.Option(help="Frames at once.")] = 16,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all.")] = 0,
) -> None:
    """Write a row for each frame, or for each atom that the model sees if it predicts of atoms."""
    import torch

    from openmm_gnn.learning.properties.property_predictions import read_structures, write_predictions
    from openmm_gnn.networks.weights import load_property_model

    if threads:
        torch.set_num_threads(threads)
    loaded = load_property_model(model)
    frames = [frame for file in files for frame in read_structures(file)]
    rows = write_predictions(loaded, frames, out, batch_size)
    unit = f", {loaded.spec.unit}" if loaded.spec.unit else ""
    typer.echo(f"wrote {out}: {rows} rows of {loaded.spec.name}{unit}, for {len(frames)} frames")
