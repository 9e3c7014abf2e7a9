"""Replicas on a cluster with dask: three runs with live features on three workers, then one analysis over all of them.

You learn: a run is a function of a folder and a seed, so any scheduler can start it; a worker that dies costs nothing,
as the same call goes on from the last checkpoint; and `analyze` takes the folder of all runs.

On a cluster with SLURM these two lines stand for the LocalCluster (`pip install dask-jobqueue`; the folder is one that
all nodes see, and `death_timeout`, `walltime` and such are SLURMCluster's):

    cluster = SLURMCluster(cores=1, memory="4GB", job_extra_directives=["--gres=gpu:1"])
    cluster.scale(jobs=3)

Takes 1 minute on 2 CPU cores; with --short 20 seconds. Run: python examples/replicas_on_dask.py
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from dask.distributed import Client, LocalCluster

SEEDS = (1, 2, 3)


def replica(folder: str, seed: int, steps: int) -> str:
    """One run with features, on a worker."""
    import torch  # on the worker, which starts as an empty process

    from openmm_gnn import ComputeSettings, RunSettings, load_system, simulate
    from openmm_gnn.runs.settings import FeatureSettings

    torch.set_num_threads(1)
    run = Path(folder) / f"run-{seed}"
    settings = RunSettings(steps=steps, stride=20, equilibration=1.0, seed=seed)
    features = FeatureSettings("peptide-et", dtype="float32")
    simulate(load_system("alanine-dipeptide"), run, settings, compute=ComputeSettings("Reference"), features=features)
    return str(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="4,000 steps of each run in place of 20,000")
    steps = 4_000 if parser.parse_args().short else 20_000
    with tempfile.TemporaryDirectory() as folder:
        cluster = LocalCluster(len(SEEDS), threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL)
        with cluster, Client(cluster) as client:
            futures = client.map(replica, [folder] * len(SEEDS), SEEDS, [steps] * len(SEEDS), pure=False, retries=2)
            runs = [Path(run) for run in client.gather(futures)]
        print(f"{len(runs)} runs: {', '.join(run.name for run in runs)}")

        from openmm_gnn.kinetics.report.analyze import analyze_runs
        from openmm_gnn.kinetics.settings import AnalysisSettings, Method

        settings = AnalysisSettings(lag=0.4, method=Method.TICA, outputs=1)
        analysis = analyze_runs(runs, Path(folder) / "slow", settings, progress=False)
        frames = sum(len(values) for values in analysis.variables)
        print(analysis.summary)
        print(f"the analysis saw {frames} frames of {len(runs)} runs; it should be {len(runs) * steps // 20}")


if __name__ == "__main__":
    main()
