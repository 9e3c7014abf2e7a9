"""Show frames, rate, lag, last step and health of the live features of a run.

Exits with 1 if a frame is damaged or has a NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Command, Result
from openmm_gnn.kinetics.live_vamp import WatchSettings, watch


@dataclass(frozen=True, kw_only=True)
class Tail(Command):
    after_stop = "The run goes on: the same command looks again."

    directory: tyro.conf.Positional[Path]
    """Directory that `simulate --features` or `featurize` wrote, or one that holds several of them."""
    settings: WatchSettings
    follow: Annotated[bool, tyro.conf.arg(aliases=["-f"])] = False
    """Keep looking until the run has ended."""

    def run(self) -> Result:
        seen = watch(self.directory, self.settings, self.follow, self.progress)
        analyze = f"`openmm-gnn analyze {self.directory} --lag PS --out slow`"
        again = "compute the features anew from the trajectory, `openmm-gnn featurize`"
        code, after = (0, analyze) if seen.healthy else (1, again)
        return Result(*seen.words, next=after, code=code, stores=seen.statuses, scores=seen.scores)
