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
        from rich.progress import Progress
        from rich.table import Table

        from openmm_gnn.learning.settings import seed_ranges
        from openmm_gnn.learning.training.data_sets import evaluate

        with Progress(console=Console(stderr=self.json), disable=self.json) as progress:
            bar = progress.add_task(f"evaluating {self.model}", total=1.0)
            show = lambda done: progress.update(bar, completed=done)  # noqa: E731
            errors = evaluate(self.model, self.data, self.seeds, self.record, show)
        if self.json:
            print(dumps(asdict(errors)))
            return
        table = Table("figure", title=f"{self.model} on {self.data}, seeds {seed_ranges(self.seeds)}")
        table.add_column("value", justify="right")
        table.add_row("frames", f"{errors.num_frames}")
        table.add_row("MAE, meV/A", f"{errors.mae:.4f}")
        table.add_row("RMSE, meV/A", f"{errors.rmse:.4f}")
        table.add_row("relative error, %", f"{100 * errors.relative_error:.4f}")
        table.add_row("mean cosine", f"{errors.mean_cosine:.7f}")
        table.add_row("cosine, 5 % quantile", f"{errors.cosine_5_percent:.7f}")
        table.add_row("mean |F|, meV/A", f"{errors.mean_force:.3f}")
        table.add_row("net force / mean |F|", f"{errors.relative_net_force:.1e}")
        Console().print(table)
        print(f"Next: `openmm-gnn validate {self.model} --data {self.data}`, then `openmm-gnn simulate`")
