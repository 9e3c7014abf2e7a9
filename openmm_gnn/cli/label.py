"""Run an OpenMM System and store frames labelled with its forces, for training.

Stores positions, velocities, forces, energies and box of every frame. Forces are those of the potential alone:
what holds constrained bonds and rigid water together is not among them. Killed, it resumes when the same command is
given again. Hold out whole trajectories by their seeds when you train. With --geometries the frames of trajectories
that are there are labelled, one evaluation each: of an expensive System, those of a cheaper one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Nested, Result, RunCommand
from openmm_gnn.data.labels.settings import GeometrySettings, LabelSettings
from openmm_gnn.md.systems.structure_files import SystemFiles


@dataclass(frozen=True, kw_only=True)
class Label(RunCommand):
    system: tyro.conf.Positional[str]
    """Name of a system (argon, tip3p, tip4pew, amoeba-water, chignolin), a serialised System (.xml), or a structure
    (.pdb, .cif) with --force-field."""
    out: Path
    """Directory of the data; given again, the run is resumed or extended."""
    files: SystemFiles
    settings: LabelSettings
    geometries: tuple[Path, ...] = ()
    """Trajectory whose frames are labelled, and nothing is run; may be given again. Default: run and label."""
    geometry: Annotated[GeometrySettings, Nested(names={"stride": "frame_stride"})]

    def run(self) -> Result:
        from openmm_gnn.data.labels.given_frames import label_geometries
        from openmm_gnn.data.labels.teacher import label

        system, asked = self.files.load(self.system), self.settings
        if self.geometries:
            how = (*asked.without_run(), self.progress)
            labelled = label_geometries(system, self.geometries, self.out, self.geometry, *how)
            said, frames, seeds = labelled.summary, len(labelled.frames), labelled.seeds
        else:
            data = label(system, self.out, asked, self.progress)
            frames, seeds = sum(map(len, data.trajectories)), data.seeds
            said = f"{frames} frames of {len(data)} trajectories in {self.out}"
        after = f"`openmm-gnn train {self.out} --out network`, with --train-seeds and --validation-seeds"
        return Result(said, next=after, directory=self.out, frames=frames, seeds=seeds)
