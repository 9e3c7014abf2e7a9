"""Print force errors in meV/A on every frame of held-out trajectories."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    model: tyro.conf.Positional[str]
    """Network: a shipped name, a bundle (.safetensors) or an exported module (.pt)."""
    data: tyro.conf.Positional[Path]
    """Directory written by `openmm-gnn label` or `import-labels`."""
    seeds: tuple[int, ...] = (10,)
    """Seeds of the trajectories to evaluate on, such as 10 or 9-10."""
    record: bool = False
    """Write the errors into the bundle's metadata, too."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> None:
        from json import dumps

        from rich.console import Console

        from openmm_gnn.base.worker_processes import ProgressBar
        from openmm_gnn.learning.settings import seed_ranges
        from openmm_gnn.learning.training.data_sets import evaluate

        with ProgressBar(1.0, not self.json, title=f"evaluating {self.model}") as bar:
            errors = evaluate(self.model, self.data, self.seeds, self.record, bar.update)
        if self.json:
            print(dumps(asdict(errors)))
            return
        Console().print(errors.table(f"{self.model} on {self.data}, seeds {seed_ranges(self.seeds)}"))
        print(f"Next: `openmm-gnn validate {self.model} --data {self.data}`, then `openmm-gnn simulate`")
