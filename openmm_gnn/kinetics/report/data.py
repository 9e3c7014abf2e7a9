"""The frames that slow variables are learned from and tested on, checked before long work begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.lagged_pairs import lag_in_frames
from openmm_gnn.kinetics.report.runs import SlowRun
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, check_together, trajectory_of_store
from openmm_gnn.runs.bias.records import FOLDER, META

LAG_FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Lags at which scores and timescales are taken unless the settings list some, in units of the lag of the training."""
SHORTEST_IN_LAGS = 5
"""Shortest run that is accepted, in units of the longest lag."""
HELD_OUT = 1 / 3
"""Share of the runs, or of the time where there are few runs, that is held out if nobody says which."""
LEAST_RUNS = 3
"""With fewer, each run is divided in time."""


@dataclass(frozen=True)
class Part:
    """Frames `start` up to `stop` of a run."""

    run: int
    start: int
    stop: int


@dataclass(frozen=True)
class SlowData:
    """Runs, their frames, and which of them are held out."""

    runs: tuple[SlowRun, ...]
    trajectories: tuple[TokenTrajectory, ...]
    """One per run."""
    training: tuple[Part, ...]
    validation: tuple[Part, ...]
    log_weights: tuple[np.ndarray, ...] | None
    """(frames,) of each run; None where no run was biased."""

    @property
    def interval_ps(self) -> float:
        return self.trajectories[0].interval_ps

    @property
    def shortest(self) -> int:
        """Frames of the shortest part."""
        return min(part.stop - part.start for part in (*self.training, *self.validation))

    @property
    def roles(self) -> list[str]:
        """Of each run: training, validation, or both."""
        roles = []
        for index in range(len(self.runs)):
            names = [("training", self.training), ("validation", self.validation)]
            roles.append(" and ".join(name for name, parts in names if any(part.run == index for part in parts)))
        return roles

    def cut(self, parts: Sequence[Part]) -> list[TokenTrajectory]:
        """The frames of parts."""
        return [
            self.trajectories[part.run]
            if part.stop - part.start == len(self.trajectories[part.run])
            else self.trajectories[part.run].part(part.start, part.stop)
            for part in parts
        ]


def read_data(training: Sequence[SlowRun], validation: Sequence[SlowRun], lag_ps: float) -> SlowData:
    """Read runs, compare checksums, look for NaN, and hold some out if none are given.

    Args:
        validation: held-out runs; if there are none, the last third of three runs or more, else the last third of the
            time of each.
    Raises:
        DataError: naming the run and the remedy, for NaN, damage, frames that do not change, features of different
            origin, a run too short for the lag, or biased runs whose weights are not known.
    """
    runs = (*training, *validation)
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
    whole = [Part(index, 0, length) for index, length in enumerate(lengths)]
    if validation:
        learned, tested = whole[: len(training)], whole[len(training) :]
    elif len(runs) >= LEAST_RUNS:
        count = max(1, round(HELD_OUT * len(runs)))
        learned, tested = whole[:-count], whole[-count:]
    else:
        lag = lag_in_frames(lag_ps, trajectories[0].interval_ps, trajectories[0].name)
        borders = [round((1 - HELD_OUT) * length) for length in lengths]
        learned = [Part(index, 0, border) for index, border in enumerate(borders)]
        # A lag is left out between the parts, so that no validation pair shares a frame with a training pair.
        tested = [Part(index, min(borders[index] + lag, length - 2), length) for index, length in enumerate(lengths)]
    return SlowData(runs, trajectories, tuple(learned), tuple(tested), weights)


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
                f"a lag of {lag:g} ps in a run of {shortest_frames * interval_ps:g} ps: runs must last "
                f"{SHORTEST_IN_LAGS} lags or more; give a shorter lag, or leave the short run out"
            )
    wanted = settings.lags or tuple(factor * settings.lag for factor in LAG_FACTORS)
    frames = {max(1, round(lag / interval_ps)) for lag in wanted}
    return sorted({own, *(count for count in frames if count <= longest)})


def stretches(segments: np.ndarray) -> list[slice]:
    """The frames of each piece without a gap, from the number of the piece of each frame."""
    borders = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(segments)]
    return [slice(start, stop) for start, stop in itertools.pairwise(borders)]


def _log_weights(runs: Sequence[SlowRun]) -> tuple[np.ndarray, ...] | None:
    """Of biased runs (frames,) each; None where no run was biased.

    Raises:
        DataError: if only some of them were, or a frame has no record of its bias.
    """
    biased = [run.directory is not None and (run.directory.path / FOLDER / META).is_file() for run in runs]
    if not any(biased):
        return None
    from openmm_gnn.kinetics.reweighting import frame_log_weights

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
