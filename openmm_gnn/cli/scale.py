"""`openmm-gnn scale`: how the error of pretraining depends on depth, width, data and radius."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.cli.options import parse_numbers, parse_seeds


def scale(
    data: Annotated[list[Path], typer.Argument(help="Directories written by `openmm-gnn conformers`.")],
    out: Annotated[Path, typer.Option(help="Directory of the study; given again, it goes on, larger if asked.")],
    layers: Annotated[str, typer.Option(help="Depths, such as 1,2,3.")] = "1,2,3",
    width: Annotated[str, typer.Option(help="Widths, multiples of --heads.")] = "16,32,64",
    cutoff: Annotated[str, typer.Option(help="Radii, angstrom.")] = "5",
    molecules: Annotated[str, typer.Option(help="Sizes of the training set; 0: all of it.")] = "0",
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2: their scatter is the error of a point.")] = "0",
    architecture: Annotated[str, typer.Option(help="torchmd-et, visnet or tensornet.")] = "torchmd-et",
    radial: Annotated[int, typer.Option(help="Radial basis functions.")] = 32,
    heads: Annotated[int, typer.Option(help="Of the attention.")] = 8,
    max_neighbors: Annotated[int, typer.Option(help="Nearest ones that an atom listens to, itself included.")] = 32,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise, angstrom.")] = 0.2,
    hydrogens: Annotated[bool, typer.Option("--hydrogens", help="Learn from hydrogens too.")] = False,
    hold_out: Annotated[int, typer.Option(help="Every so-manieth molecule is held out of all trainings.")] = 10,
    steps: Annotated[int, typer.Option(help="Of each training, a multiple of --validate-every.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Molecules per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Highest of the schedule.")] = 5e-3,
    validate_every: Annotated[int, typer.Option(help="Steps between the points of a curve.")] = 200,
    processes: Annotated[int, typer.Option(help="Trainings at once, one thread each; on a GPU 1.")] = 1,
    progress: Annotated[bool, typer.Option(help="Show a bar with the remaining time.")] = True,
) -> None:
    """Train a grid of encoders and test for power laws of the error in weights, data and operations.

    Writes scaling.json, scaling.csv and scaling.png. Killed, it goes on when the same command is given again.
    """
    from rich.console import Console
    from rich.table import Table

    from openmm_gnn.base.specs.force import Architecture
    from openmm_gnn.learning.pretraining.denoising import DenoisingSettings
    from openmm_gnn.learning.pretraining.scaling import ScalingGrid, run_scaling
    from openmm_gnn.learning.pretraining.scaling_report import AXES, write_report

    grid = ScalingGrid(
        layers=tuple(parse_seeds(layers)),
        widths=tuple(parse_seeds(width)),
        cutoffs=tuple(parse_numbers(cutoff, "--cutoff")),
        molecules=tuple(parse_seeds(molecules)),
        seeds=tuple(parse_seeds(seeds)),
        architecture=Architecture(architecture),
        num_radial=radial,
        num_heads=heads,
        max_neighbors=max_neighbors,
        noise_scale=noise,
        hold_out=hold_out,
        training=DenoisingSettings(
            num_steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            hydrogens=hydrogens,
            validate_every=validate_every,
        ),
    )
    runs = run_scaling(data, out, grid, processes, progress)
    fits = write_report(runs, out)
    table = Table(title="Denoising error on held-out molecules (1.0: nothing learned)")
    for column in ("layers", "width", "cutoff", "frames", "seed", "weights", "operations", "error"):
        table.add_column(column, justify="right")
    for run in runs:
        cell, operations = run.cell, run.operations_per_step * run.steps[-1]
        figures = (f"{run.parameters:,}", f"{operations:.2e}", f"{run.error:.4f}")
        table.add_row(str(cell.layers), str(cell.width), f"{cell.cutoff:g}", str(run.frames), str(cell.seed), *figures)
    console = Console()
    console.print(table)
    for name, fit in fits.items():
        console.print(f"{name}: exponent {fit.exponent:.3f}, 95 % {fit.low:.3f} to {fit.high:.3f}; {fit.verdict}")
    for name in (axis for axis in AXES if axis not in fits):
        console.print(f"{name}: too few trainings of different {name} for an exponent with an uncertainty")
    typer.echo(f"wrote {out / 'scaling.json'}, scaling.csv and scaling.png")
