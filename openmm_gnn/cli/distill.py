"""Make a network that accelerates an expensive System, from the System alone: one command, a few thousand evaluations.

The teacher runs itself for a moment, or frames that are there are labelled; then, in rounds, the student samples, the
teacher labels what is new, and the next student learns from all of it. In the end time steps are tried, the network is
validated, and the lines that use it are printed. Killed, it goes on when the same command is given again; the teacher
is never evaluated twice at one geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.base.errors import SettingsError
from openmm_gnn.cli.options import Result, RunCommand
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.systems.structure_files import SystemFiles


@dataclass(frozen=True, kw_only=True)
class Distill(RunCommand):
    system: tyro.conf.Positional[str]
    """Teacher: a serialised System (.xml) with --topology, the directory of one, a named system, or a structure (.pdb,
    .cif) with --force-field."""
    out: Path
    """Directory of the network (model.safetensors), all labels, report.json and report.png; given again, it goes on."""
    files: SystemFiles
    geometries: tuple[Path, ...] = ()
    """Trajectory of the same atoms whose frames are labelled in the first round; may be given again. Default: the
    teacher runs itself."""
    cheap: Path | None = None
    """Serialised System (.xml) of a cheaper force field of the same atoms, whose runs give the geometries of the first
    round. Default: the teacher runs itself."""
    runs: tuple[Path, ...] = ()
    """Directory of an accelerated run of this system with --relearn, whose labels the last training learns too; may be
    given again. Default: none."""
    student: StudentSettings
    settings: DistillSettings
    compute: ComputeSettings

    def __post_init__(self) -> None:
        if self.geometries and self.cheap is not None:
            raise SettingsError(self, "cheap", "geometries are given too: give one source of geometries")

    def run(self) -> Result:
        from dataclasses import replace

        from openmm_gnn.analysis.distillation.distill import distill
        from openmm_gnn.analysis.distillation.report import report_document, report_table
        from openmm_gnn.md.systems.systems import read_system

        system = self.files.load(self.system)
        cheap = None if self.cheap is None else replace(system, system=read_system(self.cheap), prepare=None)
        found = distill(
            system,
            self.out,
            self.settings,
            self.student,
            self.compute,
            self.geometries,
            cheap,
            self.progress,
            print,
            self.runs,
        )
        return Result(
            report_table(found),
            f"Teacher calls: {', '.join(f'{count} {what}' for what, count in found.calls.items())}",
            f"Figure: {self.out / 'report.png'}",
            f"\n{found.python}\n",
            next=f"`{found.command}`",
            **report_document(found),
        )
