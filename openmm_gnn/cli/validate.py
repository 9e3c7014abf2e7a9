"""Validate a network: balance of forces, energy drift, temperatures, stability, extrapolation, box sizes.

Prints a table with a verdict in words beside each figure, draws one figure, and writes both figures as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.analysis.verdicts import ValidationSettings
from openmm_gnn.cli.options import ShownCommand, TorchCommand


@dataclass(frozen=True, kw_only=True)
class Validate(TorchCommand, ShownCommand):
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

    def run(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, TaskID

        from openmm_gnn.analysis.validation import validate, validation_table

        self.use_threads()
        console, tasks = Console(), dict[str, TaskID]()
        with Progress(console=console, disable=not self.progress, transient=True) as bars:

            def report(what: str, done: float) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=1.0)
                bars.update(tasks[what], completed=done)

            found = validate(self.model, self.out, self.settings, self.data, self.system, self.topology, report)
        console.print(validation_table(found))
        console.print(f"Figure: {self.out / 'validation.png'}")
        print(f"Next: `openmm-gnn simulate SYSTEM --model {self.model} --out run`, and compare it with its reference")
