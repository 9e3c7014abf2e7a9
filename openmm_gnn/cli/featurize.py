"""Write the tokens' features of every frame of trajectories; the same command again goes on where it was ended."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Nested, ShownCommand
from openmm_gnn.features.featurizer_settings import FeaturizerSettings
from openmm_gnn.reporters.store_meta import Reading


@dataclass(frozen=True, kw_only=True)
class Featurize(ShownCommand):
    trajectories: tyro.conf.Positional[tuple[Path, ...]]
    """Trajectory files of any format that mdtraj reads."""
    topology: Path
    """File of the atoms: PDB, PDBx/mmCIF, or what else mdtraj reads (prmtop, psf, gro, ...)."""
    encoder: str
    """Encoder: a shipped name, a bundle (.safetensors), or a geom2vec checkpoint (.pth)."""
    out: Path
    """Directory of the features: a store per trajectory, named after the file."""
    featurizer: FeaturizerSettings
    reading: Annotated[Reading, Nested(names={"periodic": "box", "dtype": "stored_dtype"})]
    scheduler: str | None = None
    """Address of a dask.distributed scheduler with the same file system; each file is one task. Default: no cluster,
    one file after another on this machine."""

    def run(self) -> None:
        from openmm_gnn.reporters.trajectory_features import FileJob, featurize_here, featurize_on_cluster, store_names

        # On a cluster a worker stands in another folder than this process.
        known = str(Path(self.encoder).resolve()) if Path(self.encoder).is_file() else self.encoder
        stores = [self.out.resolve() / name for name in store_names(self.trajectories)]
        jobs = [
            FileJob(path.resolve(), self.topology.resolve(), store, known, asdict(self.featurizer), self.reading)
            for path, store in zip(self.trajectories, stores, strict=True)
        ]
        if self.scheduler is None:
            counts = featurize_here(jobs, self.progress)
        else:
            counts = featurize_on_cluster(jobs, self.scheduler, self.progress)
        for job, count in zip(jobs, counts, strict=True):
            frames, in_time = job.stored()
            print(f"{job.trajectory.name}: {frames} frames in {self.out / job.store.name}, {count} of them new")
            if not in_time:
                print("Its format has no times, which are NaN in the store: give --frame-time.", file=sys.stderr)
        print(f"Next: `openmm-gnn analyze {self.out} --lag PS --out slow`")
