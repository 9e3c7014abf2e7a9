"""`openmm-gnn evaluate`: the errors of a network on trajectories it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.cli.typer_options import parse_seeds


def evaluate(
    model: Annotated[str, typer.Argument(help="Shipped name, bundle (.safetensors) or exported module (.pt).")],
    data: Annotated[Path, typer.Argument(help="Directory written by `openmm-gnn label` or `import-labels`.")],
    seeds: Annotated[str, typer.Option(help="Trajectories to evaluate on, such as 10 or 9-10.")] = "10",
    record: Annotated[bool, typer.Option(help="Write the figures into the bundle's metadata too.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print force errors in meV/A on every frame of held-out trajectories."""
    import dataclasses
    import json

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from openmm_gnn.learning.training.data_sets import evaluate as run
    from openmm_gnn.networks.weights import load_model

    network = load_model(model)
    console = Console(stderr=json_output)
    with Progress(console=console, disable=json_output) as progress:
        bar = progress.add_task(f"evaluating {model}", total=1.0)
        errors = run(model, data, parse_seeds(seeds), record, lambda done: progress.update(bar, completed=done))
    if json_output:
        typer.echo(json.dumps(dataclasses.asdict(errors)))
        return
    table = Table(title=f"{model} ({type(network).__name__}) on {data}, seeds {seeds}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, text in (
        ("frames", f"{errors.num_frames}"),
        ("MAE, meV/A", f"{errors.mae:.4f}"),
        ("RMSE, meV/A", f"{errors.rmse:.4f}"),
        ("relative error, %", f"{100 * errors.relative_error:.4f}"),
        ("mean cosine", f"{errors.mean_cosine:.7f}"),
        ("cosine, 5 % quantile", f"{errors.cosine_5_percent:.7f}"),
        ("mean |F|, meV/A", f"{errors.mean_force:.3f}"),
        ("net force / mean |F|", f"{errors.relative_net_force:.1e}"),
    ):
        table.add_row(name, text)
    console.print(table)
