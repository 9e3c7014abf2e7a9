"""`openmm-gnn featurize`: features of trajectories that were written before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from openmm_gnn.reporters.trajectory_features import FileJob


def featurize(
    trajectories: Annotated[list[Path], typer.Argument(help="Files of any format that mdtraj reads.")],
    topology: Annotated[Path, typer.Option(help="PDB, PDBx/mmCIF, or what mdtraj reads: prmtop, psf, gro, ...")],
    encoder: Annotated[str, typer.Option(help="Shipped name, geom2vec checkpoint (.pth) or bundle (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Directory: a store per trajectory, named after the file.")],
    selection: Annotated[
        str | None, typer.Option(help="In mdtraj's language. Default: heavy atoms, no water, no monatomic ions.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="residue or atom.")] = "residue",
    reduction: Annotated[str, typer.Option(help="sum or mean over the atoms of a token.")] = "sum",
    neighbor_rule: Annotated[
        str | None, typer.Option(help="nearest, full or index. Default: the encoder's own.")
    ] = None,
    coordinates: Annotated[str, typer.Option(help="anchor (CA, C1', P, else centroid), CA or centroid.")] = "anchor",
    context: Annotated[
        str,
        typer.Option(
            help="whole: one graph of these atoms. window: a graph of each residue and its neighbours in sequence."
        ),
    ] = "whole",
    window: Annotated[
        int | None, typer.Option(min=0, help="With --context window: residues on either side. Default: 2.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the arithmetic: float32, bfloat16 or float64.")] = "float32",
    stored_dtype: Annotated[str, typer.Option(help="Of the stored features: float16 or float32.")] = "float16",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    stride: Annotated[int, typer.Option(min=1, help="Every so many frames of a file.")] = 1,
    chunk: Annotated[int, typer.Option(min=1, help="Frames that are read at once.")] = 100,
    frame_time: Annotated[
        float | None, typer.Option(help="ps between two frames of a file, where its format has no times (DCD, PDB).")
    ] = None,
    box: Annotated[bool, typer.Option("--box/--no-box", help="Whether the box of a file is used.")] = True,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a dask.distributed scheduler that shares this file system: a task a file."),
    ] = None,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show a progress bar.")] = True,
) -> None:
    """Write the tokens' features of every frame of trajectories; the same command again goes on where it was ended."""
    from openmm_gnn.reporters.trajectory_features import FileJob, Reading, store_names

    settings = {
        "selection": selection,
        "tokens": tokens,
        "reduction": reduction,
        "neighbor_rule": neighbor_rule,
        "coordinates": coordinates,
        "context": context,
        "window": window,
        "dtype": dtype,
        "device": device,
    }
    reading = Reading(stride, box, frame_time, stored_dtype, chunk)
    # On a cluster a worker stands in another folder than this process.
    known = str(Path(encoder).resolve()) if Path(encoder).is_file() else encoder
    jobs = [
        FileJob(path.resolve(), topology.resolve(), out.resolve() / name, known, settings, reading)
        for path, name in zip(trajectories, store_names(trajectories), strict=True)
    ]
    counts = _here(jobs, progress) if scheduler is None else _on_cluster(jobs, scheduler, progress)
    timeless = False
    for job, count in zip(jobs, counts, strict=True):
        frames, in_time = _stored(job)
        timeless |= not in_time
        typer.echo(f"{job.trajectory.name}: {frames} frames in {out / job.store.name}, {count} of them new")
    if timeless:
        typer.echo("Their format has no times, which are NaN in the store: give --frame-time for others.", err=True)


def _here(jobs: list[FileJob], progress: bool) -> list[int]:
    """Featurize one file after another with one encoder; the number of new frames of each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from openmm_gnn.features.featurizer import Featurizer
    from openmm_gnn.features.trajectory_frames import count_frames, read_topology
    from openmm_gnn.reporters.trajectory_features import featurize_trajectory

    featurizer = Featurizer(jobs[0].encoder, read_topology(jobs[0].topology), **jobs[0].featurizer)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    counts = []
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bars:
        for job in jobs:
            total = count_frames(job.trajectory)
            bar = bars.add_task(job.trajectory.name, total=None if total is None else -(-total // job.reading.stride))
            advance = functools.partial(bars.advance, bar)
            counts.append(featurize_trajectory(job.trajectory, job.store, featurizer, job.reading, advance))
    return counts


def _on_cluster(jobs: list[FileJob], address: str, progress: bool) -> list[int]:
    """One task per file on the workers of a scheduler; the number of new frames of each."""
    from dask.distributed import Client, as_completed
    from rich.console import Console
    from rich.progress import Progress

    from openmm_gnn.reporters.trajectory_features import run_job

    with (
        Client(address) as client,
        Progress(console=Console(stderr=True), disable=not progress) as bars,
    ):
        bar = bars.add_task("files", total=len(jobs))
        futures = client.map(run_job, jobs, pure=False, retries=1)
        for _ in as_completed(futures):
            bars.advance(bar)
        return list(client.gather(futures))


def _stored(job: FileJob) -> tuple[int, bool]:
    """Frames of a store, and whether they have times."""
    import numpy as np

    from openmm_gnn.reporters.embedding_store import EmbeddingStore

    times = EmbeddingStore.open(job.store).times_ps
    return len(times), bool(np.isfinite(times).all())
