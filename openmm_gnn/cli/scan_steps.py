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
from openmm_gnn.cli.options import ShownCommand
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.structure_files import SystemFiles


@dataclass(frozen=True, kw_only=True)
class ScanSteps(ShownCommand):
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

    def run(self) -> None:
        from rich.console import Console

        from openmm_gnn.analysis.scan_report import save_scan_plot, scan_table
        from openmm_gnn.analysis.step_scan import recommended, scan_steps
        from openmm_gnn.networks.weights import load_model

        system, rows = self.files.load(self.system), []
        for row in scan_steps(system, load_model(self.model), self.out, self.settings, self.compute, self.progress):
            rows.append(row)
            if self.progress:
                print(f"{row.name}: {row.verdict.value}")
        Console().print(scan_table(rows))
        title = f"{system.name}, accelerated by {Path(self.model).stem}"
        print(f"Figure: {save_scan_plot(rows, title, self.out / 'scan.png')}")
        best = recommended(rows)
        if best is None:
            print("Next: no step is stable: give shorter ones (--outer), more inner steps, or a better network")
            return
        steps = f"--time-step {best.time_step_fs:g} --inner-steps {best.inner_steps}"
        if self.settings.thermostat is not Thermostat.LANGEVIN:
            steps += f" --thermostat {self.settings.thermostat.value}"
        for name in ("friction", "hydrogen_friction", "hydrogen_mass"):
            if (value := getattr(self.settings, name)) is not None:
                steps += f" --{name.replace('_', '-')} {value:g}"
        print(f"Next: `openmm-gnn simulate {self.system} --model {self.model} --accelerate {steps}`")
