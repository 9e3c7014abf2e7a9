"""The runs to analyse: their features, frames and temperature, and which frames are held out.

Everything is checked here, before long work begins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.lagged_pairs import lag_in_frames
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, check_together, trajectory_of_store
from openmm_gnn.md.dcd_frames import dcd_layout
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_meta import FEATURES_FOLDER, stores_under
from openmm_gnn.runs.bias import records as bias
from openmm_gnn.runs.directory import RunDirectory

LAG_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Lags at which scores and timescales are taken unless the settings list some, in units of the lag of the training."""
SHORTEST_IN_LAGS = 5
"""Shortest run that is accepted, in units of the longest lag."""
HELD_OUT = 1 / 3
"""Share of the runs, or of the time where there are few runs, that is held out unless held-out runs are given."""
LEAST_RUNS = 3
"""Number of runs below which each run is divided in time."""


@dataclass(frozen=True)
class AnalysedRun:
    """One trajectory: its features, and the simulation that made them, if that is known."""

    name: str
    """Short name; no other run has it."""
    store: EmbeddingStore
    num_frames: int
    """Frames of the store that are used: it may grow meanwhile."""
    directory: RunDirectory | None
    """Directory of `openmm-gnn simulate` with trajectory.dcd and topology.pdb; None for a store on its own."""

    @property
    def steps(self) -> np.ndarray:
        """(frames,) int64."""
        return self.store.steps[: self.num_frames]

    @property
    def times_ps(self) -> np.ndarray:
        """(frames,)"""
        return self.store.times_ps[: self.num_frames]

    @property
    def interval_ps(self) -> float:
        """The time between two frames; 0 if there are fewer than two."""
        times = self.times_ps
        return float(np.median(np.diff(times))) if len(times) > 1 else 0.0

    @property
    def labels(self) -> list[str]:
        """Names of the tokens."""
        tokens = self.store.meta["description"].get("tokens")
        tokens = json.loads(tokens) if isinstance(tokens, str) else tokens or {}
        return list(tokens.get("labels") or map(str, range(self.store.num_tokens)))

    @property
    def temperature(self) -> float | None:
        """Temperature in run.json, K; None where there is no such file."""
        if self.directory is None or not self.directory.exists:
            return None
        return float(self.directory.identity()["settings"]["temperature"])

    @property
    def trajectory_frames(self) -> np.ndarray:
        """(frames,) index in trajectory.dcd of each frame of the features; -1 where it has no frame of that step."""
        if self.directory is None or not self.directory.trajectory.is_file():
            return np.full(self.num_frames, -1)
        layout = dcd_layout(self.directory.trajectory)
        present = layout.whole_frames(self.directory.trajectory.stat().st_size)
        frames, rest = np.divmod(self.steps - layout.first_step, max(1, layout.interval))
        return np.where((rest == 0) & (frames >= 0) & (frames < present), frames, -1)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies this input: a hash of the frames' checksums, the encoder, the topology."""
        records, description = self.store.records[: self.num_frames], self.store.meta["description"]
        sums = hashlib.sha256(np.ascontiguousarray(records["crc"]).tobytes()).hexdigest()
        return {
            "name": self.name,
            "frames": self.num_frames,
            "interval_ps": self.interval_ps,
            "frames_hash": sums,
            "encoder": description.get("encoder", {}).get("name", ""),
            "encoder_hash": description.get("encoder", {}).get("hash", ""),
            "topology_hash": description.get("topology_hash", ""),
            "temperature": self.temperature,
        }


@dataclass(frozen=True)
class Part:
    """Frames `start` up to `stop` of a run."""

    run: int
    start: int
    stop: int


@dataclass(frozen=True)
class AnalysisData:
    """Runs, their frames, and which of them are held out."""

    runs: tuple[AnalysedRun, ...]
    trajectories: tuple[TokenTrajectory, ...]
    """One per run."""
    training: tuple[Part, ...]
    validation: tuple[Part, ...]
    """The frames that end a training and choose the seed."""
    log_weights: tuple[np.ndarray, ...] | None
    """(frames,) logarithms of the weights of each run; None where no run was biased."""
    test: tuple[Part, ...] = ()
    """Frames that choose nothing."""

    @property
    def interval_ps(self) -> float:
        return self.trajectories[0].interval_ps

    def in_frames(self, lag_ps: float) -> int:
        """A lag rounded to whole frames, at least 1."""
        return max(1, round(lag_ps / self.interval_ps))

    @property
    def shortest(self) -> int:
        """Frames of the shortest training or validation part."""
        return min(part.stop - part.start for part in (*self.training, *self.validation, *self.test))

    @property
    def scored(self) -> tuple[Part, ...]:
        """The frames whose scores are shown: the test frames, or else the validation frames."""
        return self.test or self.validation

    @property
    def roles(self) -> list[str]:
        """The role of each run: training, validation, both, or test."""
        roles = []
        for index in range(len(self.runs)):
            names = [("training", self.training), ("validation", self.validation), ("test", self.test)]
            roles.append(" and ".join(name for name, parts in names if any(part.run == index for part in parts)))
        return roles

    def cut(self, parts: Sequence[Part]) -> list[TokenTrajectory]:
        """The trajectory of each part."""
        return [
            self.trajectories[part.run]
            if part.stop - part.start == len(self.trajectories[part.run])
            else self.trajectories[part.run].part(part.start, part.stop)
            for part in parts
        ]


def find_runs(paths: Sequence[Path], counts: dict[str, int] | None = None) -> list[AnalysedRun]:
    """Find the runs under some paths.

    Args:
        paths: directories that `openmm-gnn simulate --features` wrote, embedding stores, or directories with several of
            either.
        counts: numbers of frames to use, by name of the run; runs that are not named are used whole.
    Raises:
        DataError: naming the path under which there are no features, a path given twice, or a run that has become
            shorter than `counts`.
    """
    found: list[Path] = []
    for path in paths:
        stores = stores_under(path)
        if not stores:
            raise DataError(
                f"{path} holds no features: give a directory that `openmm-gnn simulate --features` or "
                "`openmm-gnn featurize` wrote"
            )
        found += stores
    if twice := [path for path in found if [p.resolve() for p in found].count(path.resolve()) > 1]:
        raise DataError(f"{twice[0]} is given twice: give each run once")
    runs = []
    for path, name in zip(found, _names(found), strict=True):
        store = EmbeddingStore.open(path)
        length = len(store)
        wanted = (counts or {}).get(name, length)
        if wanted > length:
            raise DataError(f"{path} has {length} frames, {wanted} were analysed before: give another --out")
        runs.append(AnalysedRun(name, store, wanted, _simulation_of(path)))
    return runs


def _simulation_of(store: Path) -> RunDirectory | None:
    """The run whose features a store has, if its frames are there: the store is RUN/features, or RUN itself."""
    for place in (store.resolve().parent, store):
        run = RunDirectory(place)
        if run.trajectory.is_file() and run.topology.is_file():
            return run
    return None


def _names(stores: Sequence[Path]) -> list[str]:
    """The shortest names that differ: the ends of the paths, without the folder "features"."""
    parts = [path.resolve().parts[: -1 if path.name == FEATURES_FOLDER else None] for path in stores]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["-".join(part[-depth:]) for part in parts]


def read_data(
    training: Sequence[AnalysedRun], validation: Sequence[AnalysedRun], lag_ps: float, test: Sequence[AnalysedRun] = ()
) -> AnalysisData:
    """Read and check the frames of runs, and hold some out if no held-out runs are given.

    Args:
        validation: held-out runs; if there are none, the last third of three runs or more, else the last third of the
            time of each.
        test: runs apart from both.
    Raises:
        DataError: naming the run and the remedy, for NaN, damage, frames that do not change, features of different
            origin, a run too short for the lag, or biased runs whose weights are not known.
    """
    runs = (*training, *validation, *test)
    weights = _log_weights(runs)
    trajectories = tuple(
        trajectory_of_store(run.store, run.num_frames, None if weights is None else weights[index])
        for index, run in enumerate(runs)
    )
    check_together(trajectories)
    for run, trajectory in zip(runs, trajectories, strict=True):
        lag = lag_in_frames(lag_ps, trajectory.interval_ps, trajectory.name)
        longest = int(np.bincount(trajectory.segments).max())
        if longest < SHORTEST_IN_LAGS * lag:
            raise DataError(
                f"{run.store.path} has {longest} frames without a gap, {longest * trajectory.interval_ps:g} ps: a lag "
                f"of {lag_ps:g} ps needs {SHORTEST_IN_LAGS} times that; give a shorter lag, or leave the run out"
            )
    lengths = [len(trajectory) for trajectory in trajectories]
    first = len(training) + len(validation)
    whole, apart = (
        [Part(index, 0, lengths[index]) for index in range(*ends)] for ends in ((0, first), (first, len(runs)))
    )
    if validation:
        learned, chosen = whole[: len(training)], whole[len(training) :]
    elif len(whole) >= LEAST_RUNS:
        count = max(1, round(HELD_OUT * len(whole)))
        learned, chosen = whole[:-count], whole[-count:]
    else:
        lag = lag_in_frames(lag_ps, trajectories[0].interval_ps, trajectories[0].name)
        borders = [round((1 - HELD_OUT) * part.stop) for part in whole]
        learned = [Part(index, 0, border) for index, border in enumerate(borders)]
        # A lag is left out between the parts, so that no validation pair shares a frame with a training pair.
        chosen = [Part(part.run, min(borders[part.run] + lag, part.stop - 2), part.stop) for part in whole]
    return AnalysisData(runs, trajectories, tuple(learned), tuple(chosen), weights, tuple(apart))


def lag_frames(settings: AnalysisSettings, interval_ps: float, shortest_frames: int) -> list[int]:
    """The lags in frames at which scores and timescales are taken, ascending, that of the training among them.

    Args:
        shortest_frames: length of the shortest run.
    Raises:
        DataError: if a lag that was asked for is longer than the runs allow.
    """
    own = max(1, round(settings.lag / interval_ps))
    longest = shortest_frames // SHORTEST_IN_LAGS
    for lag in (settings.lag, *settings.lags):
        if round(lag / interval_ps) > longest:
            raise DataError(
                f"a lag of {lag:g} ps in a run of {shortest_frames * interval_ps:g} ps (held-out parts count as runs): "
                f"runs must last {SHORTEST_IN_LAGS} lags or more; give a shorter lag, or leave the short run out"
            )
    wanted = settings.lags or tuple(factor * settings.lag for factor in LAG_FACTORS)
    frames = {max(1, round(lag / interval_ps)) for lag in wanted}
    return sorted({own, *(count for count in frames if count <= longest)})


def _log_weights(runs: Sequence[AnalysedRun]) -> tuple[np.ndarray, ...] | None:
    """(frames,) logarithms of the weights of each run; None where no run was biased.

    Raises:
        DataError: if only some of them were, or a frame has no record of its bias.
    """
    folders = [None if run.directory is None else run.directory.path / bias.FOLDER for run in runs]
    biased = [folder is not None and (folder / bias.META).is_file() for folder in folders]
    if not any(biased):
        return None
    from openmm_gnn.kinetics.free_energy import frame_log_weights

    weights = []
    for run, has_bias in zip(runs, biased, strict=True):
        if not has_bias:
            other = runs[biased.index(True)].name
            raise DataError(
                f"{run.name} was not biased, {other} was: their weights have no common zero; analyse them apart"
            )
        assert run.directory is not None
        weights.append(np.asarray(frame_log_weights(run.directory.path, run.steps), np.float64))
    return tuple(weights)
