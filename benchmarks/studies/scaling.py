"""How the error of pretraining depends on depth, width, data and radius: is it a power law?

Trains a grid of encoders and tests for power laws of the error in weights, data and operations. Writes scaling.json,
scaling.csv and scaling.png. Killed, it goes on when the same command is given again.

    openmm-gnn conformers --out peptides --molecules 120
    python benchmarks/studies/scaling.py peptides --layers 1,2,4 --width 16,32,64 --molecules 36,72,0 --out scaling
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scaling_fits import PowerLawFit
from scaling_report import AXES, write_report
from scaling_runs import ScalingGrid, ScalingRun, run_scaling

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.learning.settings import DenoisingSettings

GRID = ScalingGrid()


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from text such as "1-3" or "0,36,72"."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(numbers))


def numbers(text: str) -> tuple[float, ...]:
    """Numbers from text such as "5,7.5"."""
    return tuple(float(part) for part in text.split(","))


def options() -> argparse.ArgumentParser:
    """The options; what is not given is that of `ScalingGrid`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    training = GRID.training

    def add(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        shown = ",".join(f"{one:g}" for one in default) if isinstance(default, tuple) else f"{default}"
        parser.add_argument(name, type=kind, default=default, metavar="X", help=f"{text} Default: {shown}.")

    parser.add_argument("data", nargs="+", type=Path, help="directories written by `openmm-gnn conformers`")
    parser.add_argument(
        "--out", type=Path, required=True, help="Directory of the study; given again, it goes on, larger if asked."
    )
    add("--layers", whole_numbers, GRID.layers, "Depths.")
    add("--width", whole_numbers, GRID.widths, "Widths, multiples of --heads.")
    add("--cutoff", numbers, GRID.cutoffs, "Radii, angstrom.")
    add("--molecules", whole_numbers, GRID.molecules, "Sizes of the training set; 0: all of it.")
    add("--seeds", whole_numbers, GRID.seeds, "Seeds such as 0,1,2: their scatter is the error of a point.")
    add("--architecture", str, GRID.architecture.value, "Network: torchmd-et, visnet or tensornet.")
    add("--radial", int, GRID.num_radial, "Radial basis functions.")
    add("--heads", int, GRID.num_heads, "Heads of the attention.")
    add("--max-neighbors", int, GRID.max_neighbors, "Nearest neighbours that an atom receives messages from.")
    add("--noise", float, GRID.noise_scale, "Standard deviation of the noise, angstrom.")
    parser.add_argument("--hydrogens", action="store_true", help="Learn from hydrogens too.")
    add("--hold-out", int, GRID.hold_out, "One molecule in so many is held out of all trainings.")
    add("--steps", int, training.num_steps, "Steps of each training, a multiple of --validate-every.")
    add("--batch-size", int, training.batch_size, "Molecules per step.")
    add("--learning-rate", float, training.learning_rate, "Highest learning rate of the schedule.")
    add("--validate-every", int, training.validate_every, "Steps between the points of a curve.")
    add("--processes", int, 1, "Trainings at once, one thread each; on a GPU 1.")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True, help="Show a progress bar.")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    given = options().parse_args(words)
    grid = ScalingGrid(
        layers=given.layers,
        widths=given.width,
        cutoffs=given.cutoff,
        molecules=given.molecules,
        seeds=given.seeds,
        architecture=given.architecture,
        num_radial=given.radial,
        num_heads=given.heads,
        max_neighbors=given.max_neighbors,
        noise_scale=given.noise,
        hold_out=given.hold_out,
        training=DenoisingSettings(
            num_steps=given.steps,
            batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            hydrogens=given.hydrogens,
            validate_every=given.validate_every,
        ),
    )
    runs = run_scaling(given.data, given.out, grid, given.processes, given.progress)
    show(runs, write_report(runs, given.out))
    print(f"wrote {given.out / 'scaling.json'}, scaling.csv and scaling.png")


def show(runs: Sequence[ScalingRun], fits: dict[str, PowerLawFit]) -> None:
    """Print a row for each training, and what the fits say."""
    table = Table(title="Denoising error on held-out molecules (1.0: nothing learned)")
    for column in ("layers", "width", "cutoff", "frames", "seed", "weights", "operations", "error"):
        table.add_column(column, justify="right")
    for run in runs:
        cell, operations = run.cell, run.operations_per_step * run.steps[-1]
        figures = (f"{run.parameters:,}", f"{operations:.2e}", f"{run.error:.4f}")
        table.add_row(str(cell.layers), str(cell.width), f"{cell.cutoff:g}", str(run.frames), str(cell.seed), *figures)
    Console().print(table)
    for name in AXES:
        if name in fits:
            fit = fits[name]
            print(f"{name}: exponent {fit.exponent:.3f}, 95 % {fit.low:.3f} to {fit.high:.3f}; {fit.verdict}")
        else:
            print(f"{name}: too few trainings of different {name} for an exponent with an uncertainty")


if __name__ == "__main__":
    try:
        main()
    except OpenMMGNNError as error:
        raise SystemExit(f"Error: {error}") from error
