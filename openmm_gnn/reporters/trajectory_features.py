"""Features of a trajectory that was written before: a store per file, which a later call completes after a kill."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.featurizer_settings import FeaturizerSettings
from openmm_gnn.features.topologies import read_topology
from openmm_gnn.features.trajectory_frames import TrajectoryFrames, check_atoms, count_frames, frames_of
from openmm_gnn.reporters.embedding_store import SAME_PLACE_NM, EmbeddingStore
from openmm_gnn.reporters.store_meta import Reading, is_store

STEP_MEANING = "index of the frame in the trajectory, from 0"


@dataclass(frozen=True)
class FileJob:
    """One trajectory to featurize, as it is sent to another machine."""

    trajectory: Path
    topology: Path
    store: Path
    encoder: str
    featurizer: dict[str, Any] = field(default_factory=dict)
    """Arguments of `Featurizer`."""
    reading: Reading = field(default_factory=Reading)

    def stored(self) -> tuple[int, bool]:
        """Frames of the store, and whether all have times."""
        times = EmbeddingStore.open(self.store).times_ps
        return len(times), bool(np.isfinite(times).all())


def file_jobs(
    trajectories: Sequence[Path],
    topology: Path,
    encoder: str,
    out: Path,
    featurizer: FeaturizerSettings,
    reading: Reading,
) -> list[FileJob]:
    """A job for each trajectory, with whole paths: on a cluster a worker stands in another folder than this process.

    Raises:
        DataError: if two trajectories would be stored under one name.
    """
    known = str(Path(encoder).resolve()) if Path(encoder).is_file() else encoder
    return [
        FileJob(path.resolve(), topology.resolve(), out.resolve() / name, known, asdict(featurizer), reading)
        for path, name in zip(trajectories, store_names(trajectories), strict=True)
    ]


def run_job(job: FileJob) -> tuple[int, list[str]]:
    """Featurize the file of a job, with an encoder loaded here; the number of new frames, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        count = featurize_trajectory(job.trajectory, job.store, _featurizer(job), job.reading)
    return count, [str(one.message) for one in caught if one.category is UserWarning]


def _featurizer(job: FileJob) -> Featurizer:
    topology = read_topology(job.topology, job.featurizer.get("elements", ()))
    return Featurizer(job.encoder, topology, **job.featurizer)


def featurize_here(jobs: Sequence[FileJob], progress: bool = True) -> list[int]:
    """Featurize one file after another with one encoder; the number of new frames of each."""
    featurizer = _featurizer(jobs[0])
    counts = []
    for job in jobs:
        total = count_frames(job.trajectory)
        total = None if total is None else -(-total // job.reading.stride)
        with ProgressBar(total, progress, title=job.trajectory.name) as bar:
            counts.append(featurize_trajectory(job.trajectory, job.store, featurizer, job.reading, bar.update))
    return counts


def featurize_on_cluster(jobs: Sequence[FileJob], address: str, progress: bool = True) -> list[int]:
    """Featurize each file as a task on the workers of a dask scheduler; the number of new frames of each."""
    from dask.distributed import Client, as_completed

    with Client(address) as client, ProgressBar(len(jobs), progress, title="files") as bar:
        futures = client.map(run_job, jobs, pure=False, retries=1)
        for done, _ in enumerate(as_completed(futures), 1):
            bar.update(done)
        results = client.gather(futures)
    for message in dict.fromkeys(message for _, messages in results for message in messages):
        warnings.warn(message, stacklevel=2)
    return [count for count, _ in results]


def featurize_trajectory(
    trajectory: Path,
    store: Path,
    featurizer: Featurizer,
    reading: Reading | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> int:
    """Append the features of a trajectory's frames to a store, which is made if it is not there.

    A store that has some of the frames already is continued, after the last of them is found to be the same.

    Args:
        trajectory: a file that mdtraj reads, of the featurizer's topology.
        store: directory; its steps are indices of frames.
        progress: called with the number of frames that are stored.
    Returns:
        The number of new frames.
    Raises:
        DataError: if the file does not fit the topology, or the store is of another model, topology, selection,
            trajectory or stride.
    """
    reading = reading or Reading()
    check_atoms(trajectory, featurizer.topology, featurizer.read_atoms, reading.periodic)
    count = 0
    with _opened(trajectory, store, featurizer, reading) as writer:
        last = writer.last_step
        first = 0 if last is None else last
        frames_found = False
        topology, atoms = featurizer.topology, featurizer.read_atoms
        for frames in frames_of(trajectory, topology, atoms, first, reading.stride, reading.chunk, reading.periodic):
            if last is not None and not frames_found:
                _check_same(trajectory, writer, featurizer, frames[:1])
                frames = frames[1:]
            frames_found = True
            for start in range(0, len(frames.indices), featurizer.frames_per_batch):
                batch = frames[start : start + featurizer.frames_per_batch]
                _store(writer, featurizer, batch, reading)
                count += len(batch.indices)
                progress(len(writer))
        if last is not None and not frames_found:
            raise DataError(_not_the_same(trajectory, store, f"it ends before frame {last}, the last of the store"))
        writer.flush(durable=True)
    return count


def store_names(trajectories: Sequence[Path]) -> list[str]:
    """A name for the store of each trajectory: its own without suffixes, with its folder's where two are the same.

    Raises:
        DataError: if two are the same even so.
    """
    own = [Path(path.name.removesuffix(".gz").removesuffix(".bz2")).stem or path.name for path in trajectories]
    names = [
        name if own.count(name) == 1 else f"{path.resolve().parent.name}-{name}"
        for name, path in zip(own, trajectories, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            same = [str(path) for path, other in zip(trajectories, names, strict=True) if other == name]
            raise DataError(f"{' and '.join(same)} would both be stored as {name}: rename one, or use two directories")
    return names


def _opened(trajectory: Path, path: Path, featurizer: Featurizer, reading: Reading) -> EmbeddingStore:
    system = {
        "trajectory": trajectory.name,
        "step": STEP_MEANING,
        "stride": reading.stride,
        "periodic": reading.periodic,
        "frame_time_ps": reading.frame_time_ps,
    }
    description = featurizer.describe()
    if not is_store(path):
        return EmbeddingStore.create(path, description, featurizer.num_tokens, featurizer.width, reading.dtype, system)
    store = EmbeddingStore.append_to(path, description)
    if store.meta["system"].get("frame_time_ps", 0) is None and np.isnan(store.times_ps).all():
        store.describe_system({**store.meta["system"], "frame_time_ps": reading.frame_time_ps})
    stored = {**store.meta["system"], "dtype": store.meta["dtype"]}
    differing = [
        f"{name}: {stored.get(name)!r} stored, {value!r} given"
        for name, value in {**system, "dtype": reading.dtype}.items()
        if stored.get(name) != value
    ]
    if differing:
        store.close()
        raise DataError(f"{path} was made in another way ({'; '.join(differing)}): give the same, or another directory")
    return store


def _check_same(trajectory: Path, store: EmbeddingStore, featurizer: Featurizer, frame: TrajectoryFrames) -> None:
    """Whether the last stored frame is the trajectory's."""
    last = store.last_step
    if int(frame.indices[0]) != last:
        raise DataError(_not_the_same(trajectory, store.path, f"it has no frame {last}, the last of the store"))
    there = featurizer.coordinates(frame.positions, frame.box_vectors, of_read_atoms=True)[0]
    moved = np.abs(there - store.coordinates[-1]).max()
    if not moved < SAME_PLACE_NM:
        raise DataError(_not_the_same(trajectory, store.path, f"in frame {last} a token is {moved:.3f} nm elsewhere"))


def _not_the_same(trajectory: Path, store: Path, why: str) -> str:
    return f"{trajectory} is not the trajectory that {store} was made from ({why}): give that one or another directory"


def _store(store: EmbeddingStore, featurizer: Featurizer, frames: TrajectoryFrames, reading: Reading) -> None:
    box = frames.box_vectors
    embeddings = featurizer.features(frames.positions, box, of_read_atoms=True)
    coordinates = featurizer.coordinates(frames.positions, box, of_read_atoms=True)
    if reading.frame_time_ps is not None:
        times = frames.indices * reading.frame_time_ps
    else:
        times = np.full(len(frames.indices), np.nan) if frames.times_ps is None else frames.times_ps
    for row, index in enumerate(frames.indices):
        own_box = None if box is None else box[row]
        store.append(int(index), float(times[row]), own_box, embeddings[row], coordinates[row])
