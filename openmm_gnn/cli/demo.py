"""See it work: 258 argon atoms under a network's forces beside Lennard-Jones, then peptides with live features.

The reference run equilibrates the fluid; the network's run starts from its first frame, with velocities of its
own. Then alanine dipeptide and chignolin run in implicit solvent, and an encoder turns every frame into embeddings
of their residues. Interrupted, the demo goes on where it was; finished, it starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openmm_gnn.base.errors import at_least
from openmm_gnn.cli.options import Result, RunCommand


@dataclass(frozen=True, kw_only=True)
class Demo(RunCommand):
    out: Path = Path("demo-output")
    """Directory of the figures and the runs."""
    minutes: float = 3.5
    """Approximate duration of the demo, min; the network's run is cut to fit."""
    model: str = "gamd-argon"
    """Network for argon: a shipped name, a bundle (.safetensors) or an exported module (.pt)."""
    threads: int = 1
    """Number of CPU threads of each process; 258 atoms are too few to share among many."""

    def __post_init__(self) -> None:
        at_least(self, 0, "minutes")

    def run(self) -> Result:
        from openmm_gnn.analysis.demo import show

        comparison, figures = show(self.out, self.minutes, self.model, self.threads, self.progress)
        return Result(
            f"Figures: {', '.join(map(str, figures))}",
            next="`openmm-gnn simulate argon --model gamd-argon --out run`, and the tutorials in docs/",
            figures=figures,
            **comparison.to_dict(),
        )
