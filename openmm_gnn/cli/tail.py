"""Show frames, rate, lag, last step and health of the live features of a run.

Exits with 1 if a frame is damaged or has a NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Command
from openmm_gnn.kinetics.live_vamp import WatchSettings, watch


@dataclass(frozen=True, kw_only=True)
class Tail(Command):
    after_stop = "The run goes on: the same command looks again."

    directory: tyro.conf.Positional[Path]
    """An embedding store, or the directory of a run with one or several."""
    settings: WatchSettings
    follow: Annotated[bool, tyro.conf.arg(aliases=["-f"])] = False
    """Keep looking until the run has ended."""

    def run(self) -> int:
        healthy = watch(self.directory, self.settings, self.follow)
        analyze = f"`openmm-gnn analyze {self.directory} --lag PS --out slow`"
        again = "compute the features anew from the trajectory, `openmm-gnn featurize`"
        print(f"Next: {analyze if healthy else again}")
        return 0 if healthy else 1
