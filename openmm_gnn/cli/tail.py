"""`openmm-gnn tail`: the live features of a run, how far, how fast, how healthy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Command, Nested
from openmm_gnn.kinetics.live_vamp import WatchSettings, watch


@dataclass(frozen=True, kw_only=True)
class Tail(Command):
    """Show frames, rate, lag, last step and health of the live features of a run.

    Exits with 1 if a frame is damaged or has a NaN.
    """

    directory: tyro.conf.Positional[Path]
    """An embedding store, or the directory of a run with one or several."""
    settings: Annotated[WatchSettings, Nested(aliases={"follow": "-f"})]

    def run(self) -> int:
        healthy = watch(self.directory, self.settings)
        analyze = f"`openmm-gnn analyze {self.directory} --lag PS --out slow`"
        print(
            f"Next: {analyze if healthy else 'compute the features anew from the trajectory: `openmm-gnn featurize`'}"
        )
        return 0 if healthy else 1
