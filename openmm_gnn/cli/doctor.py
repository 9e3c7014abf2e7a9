"""Compute a small force on every backend and platform, and say what to install where one fails.

Exit code 0 if the compiled kernels and at least one backend work, else 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from openmm_gnn.cli.options import Command, Result


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    def run(self) -> Result:
        from rich.console import Console

        from openmm_gnn.forces.doctor import diagnosis_words, examine

        with Console(stderr=True, quiet=self.quiet).status("Looking ...") as status:
            diagnosis = examine(lambda step: status.update(f"Looking at {step} ..."))
        return Result(
            *diagnosis_words(diagnosis),
            next="`openmm-gnn demo`"
            if diagnosis.healthy
            else "install what is named above, then run this command again",
            code=0 if diagnosis.healthy else 1,
            **diagnosis.to_dict(),
        )
