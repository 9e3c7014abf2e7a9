"""Compare a network's run with its reference: structure, temperatures, diffusion; a table and one figure.

For molecules, g(r) is given for each pair of elements without the pairs inside a molecule, temperature for each
element, and diffusion for the molecules' centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command, Result


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    directory: tyro.conf.Positional[Path]
    """Directory of a run, or of several runs to be pooled."""
    reference: tyro.conf.Positional[Path]
    """Directory of the reference run, or of several to be pooled."""
    out: Path = Path("compare.png")
    """File of the figure; its ending (.png, .pdf, .svg) is the format."""
    selection: str = "all"
    """Atoms of g(r) and diffusion, in mdtraj's selection language, such as 'element O'."""

    def run(self) -> Result:
        from rich.console import Console

        from openmm_gnn.analysis.compare import compare, comparison_table, save_comparison

        console = Console(stderr=True, quiet=self.quiet)
        with console.status("measuring g(r) and diffusion") as status:
            comparison = compare(self.directory, self.reference, self.selection, status.update)
            save_comparison(comparison, self.out)
        return Result(
            comparison_table(comparison),
            f"Figure: {self.out}",
            next="where they differ, `openmm-gnn validate MODEL` looks for the cause; else run for longer",
            figure=self.out,
            **comparison.to_dict(),
        )
