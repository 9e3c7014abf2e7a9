"""Try step sizes of `simulate --accelerate`: a short run for each, and a table that says which are stable.

A step is too long where an element is hotter or colder than the thermostat, or the mean potential energy of the
system's own forces differs from the reference. Longer runs see smaller faults. As resonances are narrow, the longest
stable step is tried a few per cent shorter and longer too (--neighbors) before it is recommended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.analysis.step_scan import ScanSettings
from openmm_gnn.cli.options import Result, RunCommand
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.systems.structure_files import SystemFiles


@dataclass(frozen=True, kw_only=True)
class ScanSteps(RunCommand):
    after_stop = "The same command goes on where it was; rows that are done are in OUT/scan.json."

    system: tyro.conf.Positional[str]
    """Name of a system (amoeba-water), a serialised System (.xml), the directory of one, or a structure (.pdb, .cif)
    with --force-field."""
    model: str
    """Network: a shipped name, a bundle (.safetensors) or an exported module (.pt)."""
    out: Path
    """Directory of the runs, scan.json and scan.png; given again, it goes on."""
    settings: ScanSettings
    files: SystemFiles
    compute: ComputeSettings

    def run(self) -> Result:
        from openmm_gnn.analysis.scan_report import save_scan_plot, scan_table
        from openmm_gnn.analysis.step_scan import options_of_step, recommended, scan_steps
        from openmm_gnn.networks.weights import load_model

        system, rows = self.files.load(self.system), []
        for row in scan_steps(system, load_model(self.model), self.out, self.settings, self.compute, self.progress):
            rows.append(row)
            if self.progress:
                print(f"{row.name}: {row.verdict.value}")
        figure = save_scan_plot(rows, f"{system.name}, accelerated by {Path(self.model).stem}", self.out / "scan.png")
        best = recommended(rows)
        after = "no step is stable: give shorter ones (--outer), more inner steps, or a better network"
        if best is not None:
            steps = options_of_step(best, self.settings)
            after = f"`openmm-gnn simulate {self.system} --model {self.model} --accelerate {steps}`"
        return Result(scan_table(rows), f"Figure: {figure}", next=after, figure=figure, rows=rows, recommended=best)
