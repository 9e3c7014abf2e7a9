"""Validate a network: balance of forces, energy drift, temperatures, stability, extrapolation, box sizes.

Prints a table with a verdict in words beside each figure, draws one figure, and writes both figures as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.analysis.verdicts import ValidationSettings, of_all
from openmm_gnn.cli.options import Command, Result, RunCommand, TorchCommand


@dataclass(frozen=True, kw_only=True)
class Validate(TorchCommand, RunCommand):
    after_stop = Command.after_stop

    model: tyro.conf.Positional[str]
    """Network: a shipped name, a bundle (.safetensors) or an exported module (.pt)."""
    data: Path | None = None
    """Directory written by `openmm-gnn label`, with frames and teacher. Default: the teacher is run."""
    system: str | None = None
    """Teacher: a named system, a serialised System (.xml), or the directory of one. Default: that of the data, or of
    the network's name."""
    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a System given as .xml."""
    out: Path = Path("validation")
    """Directory of validation.png and validation.json."""
    settings: ValidationSettings

    def run(self) -> Result:
        from openmm_gnn.analysis.validation import validate, validation_table
        from openmm_gnn.base.worker_processes import ProgressBar

        with ProgressBar(1.0, self.progress) as bar:
            report = lambda what, done: bar.update(done, what)  # noqa: E731
            found = validate(self.model, self.out, self.settings, self.data, self.system, self.topology, report)
        return Result(
            validation_table(found),
            f"The whole: {of_all(found.checks)}",
            f"Figure: {self.out / 'validation.png'}",
            next=f"`openmm-gnn simulate SYSTEM --model {self.model} --out run`, and compare it with its reference",
            **found.to_dict(),
        )
