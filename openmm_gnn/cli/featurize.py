"""Write the tokens' features of every frame of trajectories; the same command again goes on where it was ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Nested, Result, RunCommand
from openmm_gnn.features.featurizer_settings import FeaturizerSettings
from openmm_gnn.reporters.store_meta import Reading


@dataclass(frozen=True, kw_only=True)
class Featurize(RunCommand):
    trajectories: tyro.conf.Positional[tuple[Path, ...]]
    """Trajectory files of any format that mdtraj reads."""
    topology: Path
    """File of the atoms: PDB, PDBx/mmCIF, or what else mdtraj reads (prmtop, psf, gro, ...)."""
    encoder: str
    """Encoder: a shipped name, a bundle (.safetensors), or a geom2vec checkpoint (.pth)."""
    out: Path
    """Directory of the features: a store per trajectory, named after the file."""
    featurizer: FeaturizerSettings
    reading: Annotated[Reading, Nested(names={"periodic": "box", "dtype": "stored_dtype", "stride": "frame_stride"})]
    scheduler: str | None = None
    """Address of a dask.distributed scheduler with the same file system; each file is one task. Default: no cluster,
    one file after another on this machine."""

    def run(self) -> Result:
        from openmm_gnn.reporters.trajectory_features import featurize_here, featurize_on_cluster, file_jobs

        jobs = file_jobs(self.trajectories, self.topology, self.encoder, self.out, self.featurizer, self.reading)
        if self.scheduler is None:
            counts = featurize_here(jobs, self.progress)
        else:
            counts = featurize_on_cluster(jobs, self.scheduler, self.progress)
        said, stores = [], []
        for job, count in zip(jobs, counts, strict=True):
            (frames, in_time), path = job.stored(), self.out / job.store.name
            said.append(f"{job.trajectory.name}: {frames} frames in {path}, {count} of them new")
            stores.append({"trajectory": job.trajectory, "store": path, "frames": frames, "new": count})
            if not in_time:
                said.append(
                    "Its frames have no times: `analyze` needs them, give the same command with --frame-time PS."
                )
        return Result(*said, next=f"`openmm-gnn analyze {self.out} --lag PS --out slow`", stores=stores)
