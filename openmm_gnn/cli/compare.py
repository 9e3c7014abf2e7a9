"""`openmm-gnn compare`: a run beside its reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.analysis.compare import Comparison


def compare(
    run: Annotated[Path, typer.Argument(help="Directory of a run, or of several runs to be pooled.")],
    reference: Annotated[Path, typer.Argument(help="The same of the reference.")],
    out: Annotated[Path, typer.Option(help="The figure; its ending (.png, .pdf, .svg) is the format.")] = Path(
        "compare.png"
    ),
    select: Annotated[
        str, typer.Option(help="Atoms of g(r) and diffusion, in mdtraj's language: 'element O'.")
    ] = "all",
) -> None:
    """Compare a network's run with its reference: structure, temperatures, diffusion; a table and one figure.

    Of molecules, g(r) is given for each pair of elements without the pairs inside a molecule, temperature for each
    element, and diffusion for the molecules' centres.
    """
    from rich.console import Console

    from openmm_gnn.analysis.compare import compare as compare_runs
    from openmm_gnn.analysis.comparison_plot import save_comparison

    console = Console()
    with console.status("measuring g(r) and diffusion") as status:
        comparison = compare_runs(run, reference, select, status.update)
        save_comparison(comparison, out)
    console.print(comparison_table(comparison))
    console.print(f"Figure: {out}")


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal."""
    from rich.table import Table

    table = Table(title=f"{comparison.run.system}, {comparison.run.num_atoms} atoms", title_justify="left")
    table.add_column("quantity")
    table.add_column(comparison.run.label, justify="right")
    table.add_column(comparison.reference.label, justify="right")
    table.add_column("difference", justify="right")
    for row in comparison.rows():
        table.add_row(*row)
    table.caption = "± is one standard error, from blocks of each run"
    return table
