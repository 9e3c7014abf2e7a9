"""Write a row for each frame, or for each atom that the model sees if it predicts a property of atoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Result, TorchCommand


@dataclass(frozen=True, kw_only=True)
class Predict(TorchCommand):
    model: tyro.conf.Positional[Path]
    """Bundle written by `openmm-gnn regress`."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Structures to predict for: extended XYZ, PDB or PDBx/mmCIF files, or directories of `conformers`."""
    out: Path
    """Table to write (.csv)."""
    batch_size: int = 16
    """Number of frames that are computed at once."""

    def run(self) -> Result:
        from openmm_gnn.learning.properties.property_sets import read_structures, write_predictions
        from openmm_gnn.networks.weights import load_property_model

        loaded = load_property_model(self.model)
        frames = [frame for file in self.files for frame in read_structures(file)]
        rows = write_predictions(loaded, frames, self.out, self.batch_size)
        named, unit = loaded.spec.name, loaded.spec.unit
        return Result(
            f"wrote {self.out}: {rows} rows of {named}{unit and f', {unit}'}, for {len(frames)} frames",
            next=f"open {self.out} as a spreadsheet, or with pandas.read_csv",
            file=self.out,
            property=named,
            unit=unit,
            rows=rows,
            frames=len(frames),
        )
