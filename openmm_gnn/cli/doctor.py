"""Compute a small force on every backend and platform, and say what to install where one fails.

Exit code 0 if the compiled kernels and at least one backend work, else 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from openmm_gnn.cli.options import Command


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        from json import dumps

        from rich.console import Console

        from openmm_gnn.forces.doctor import examine, print_diagnosis

        with Console(stderr=True).status("Looking ...") as status:
            diagnosis = examine(lambda step: status.update(f"Looking at {step} ..."))
        if self.json:
            print(dumps(diagnosis.to_dict(), indent=2))
        else:
            print_diagnosis(diagnosis, Console())
            print(
                "Next: `openmm-gnn demo`"
                if diagnosis.healthy
                else "Next: install what is named above, then run this command again"
            )
        return 0 if diagnosis.healthy else 1
