"""Print force errors in meV/A on every frame of held-out trajectories."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command, Result


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    model: tyro.conf.Positional[str]
    """Network: a shipped name, a bundle (.safetensors) or an exported module (.pt)."""
    data: tyro.conf.Positional[tuple[Path, ...]]
    """Directories written by `openmm-gnn label` or `import-labels`."""
    seeds: tuple[int, ...] = (10,)
    """Seeds of the trajectories to evaluate on, such as 10 or 9-10."""
    record: bool = False
    """Write the errors into the bundle's metadata, too."""

    def run(self) -> Result:
        from openmm_gnn.base.worker_processes import ProgressBar
        from openmm_gnn.learning.settings import seed_ranges
        from openmm_gnn.learning.training.data_sets import evaluate

        with ProgressBar(1.0, self.progress, title=f"evaluating {self.model}") as bar:
            errors = evaluate(self.model, self.data, self.seeds, self.record, bar.update)
        data = " ".join(map(str, self.data))
        return Result(
            errors.table(f"{self.model} on {data}, seeds {seed_ranges(self.seeds)}"),
            next=f"`openmm-gnn validate {self.model} --data {self.data[0]}`, then `openmm-gnn simulate`",
            **asdict(errors),
        )
