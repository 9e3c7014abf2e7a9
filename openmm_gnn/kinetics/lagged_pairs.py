"""Pairs of frames a lag apart in several trajectories, from which slow variables are learned.

No pair goes from one trajectory to another, nor over a gap in time, such as a restart leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.token_trajectories import (
    TokenTrajectory,
    check_together,
    evenly_spaced,
    frames_at,
    frames_in,
    relative_weights,
)


class PairBatch(NamedTuple):
    """Pairs of frames, float32; a frame that ends one pair and begins another is here once."""

    tokens: Tensor
    """(F, T, 4, H) of the distinct frames, in the order of time."""
    coordinates: Tensor
    """(F, T, 3) nm."""
    first: Tensor
    """(B,) the frame at time t of each pair."""
    later: Tensor
    """(B,) the frame at time t + lag of each pair."""
    weights: Tensor | None
    """(B,) weights of the pairs; None: all equal."""

    def ends(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(F, ...) values of the distinct frames -> (B, ...) values at t, and at t + lag."""
        return frames.index_select(0, self.first), frames.index_select(0, self.later)


class LaggedPairs:
    """All pairs (t, t + lag) of some trajectories. `batch` reads the requested ones from memory or from disk."""

    def __init__(self, trajectories: Sequence[TokenTrajectory], lag_ps: float) -> None:
        """
        Args:
            lag_ps: rounded to whole frames, at least one.
        Raises:
            DataError: if the trajectories do not belong together, or naming the one that is too short for the lag.
            SpecError: if the lag is not above 0.
        """
        check_together(trajectories)
        self.trajectories = tuple(trajectories)
        self.interval_ps = next((one.interval_ps for one in trajectories if len(one) > 1), 0.0)
        self.lag_frames = lag_in_frames(lag_ps, self.interval_ps, trajectories[0].name)
        borders = np.cumsum([0, *map(len, trajectories)])
        starts = [lagged_starts(trajectory, self.lag_frames) for trajectory in trajectories]
        self.starts = np.concatenate([own + border for own, border in zip(starts, borders, strict=False)])
        """(pairs,) the frames t of the pairs, counted through all trajectories."""
        weights = _frame_weights(self.trajectories)
        self.weights = None if weights is None else np.concatenate(weights)[self.starts]
        """(pairs,) weights of the pairs, at most 1; None: all equal."""

    @property
    def lag_ps(self) -> float:
        """The lag after rounding to whole frames."""
        return self.lag_frames * self.interval_ps

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: np.ndarray | slice) -> PairBatch:
        """The pairs of these numbers, 0 to len - 1, as float32."""
        starts = self.starts[indices]
        frames, ends = np.unique([starts, starts + self.lag_frames], return_inverse=True)
        first, later = torch.from_numpy(ends.reshape(2, -1))
        return PairBatch(*frames_at(self.trajectories, frames), first, later, self._weights_of(indices))

    def first_frames(self, indices: np.ndarray | slice) -> tuple[Tensor, Tensor, Tensor | None]:
        """Tokens (B, T, 4, H) and coordinates (B, T, 3) of the pairs' first frames, and the pairs' weights (B,)."""
        return *frames_at(self.trajectories, self.starts[indices]), self._weights_of(indices)

    def _weights_of(self, indices: np.ndarray | slice) -> Tensor | None:
        return None if self.weights is None else torch.from_numpy(self.weights[indices].astype(np.float32))

    def evenly_spaced(self, most: int, memory: int | None = None) -> np.ndarray:
        """Numbers of at most `most` pairs, spread over all of them, of which each end takes so many bytes at most."""
        if memory is not None:
            most = frames_in(memory, self.trajectories[0].tokens, most)
        return evenly_spaced(len(self), most)

    def pairs_of(self, series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The same pairs in another series, one array (frames, ...) per trajectory: x, y, weights."""
        together = np.concatenate(series)
        return together[self.starts], together[self.starts + self.lag_frames], self.weights


def lag_in_frames(lag_ps: float, interval_ps: float, name: str) -> int:
    """A lag rounded to whole frames, at least 1.

    Raises:
        SpecError: if the lag is not above 0.
        DataError: naming the trajectory, if its frames have no interval.
    """
    if not (np.isfinite(lag_ps) and lag_ps > 0):
        raise SpecError(f"the lag is {lag_ps} ps: give a time above 0")
    if not interval_ps > 0:
        raise DataError(f"{name} has fewer than two frames: simulate longer, or leave it out")
    return max(1, round(lag_ps / interval_ps))


def lagged_starts(trajectory: TokenTrajectory, lag_frames: int) -> np.ndarray:
    """The frames t for which t + lag is in the same uninterrupted piece.

    Raises:
        DataError: naming the trajectory, if there is none.
    """
    segments = trajectory.segments
    starts = np.flatnonzero(segments[lag_frames:] == segments[: max(0, len(segments) - lag_frames)])
    if len(starts) == 0:
        longest = int(np.bincount(segments).max()) if len(segments) else 0
        raise DataError(
            f"{trajectory.name} has {longest} frames without a gap, the lag is {lag_frames} frames: give a shorter "
            "lag, simulate longer, or leave it out"
        )
    return starts


def split_by_time(
    trajectories: Sequence[TokenTrajectory], lag_ps: float, validation_share: float = 0.5, num_blocks: int = 1
) -> tuple[list[TokenTrajectory], list[TokenTrajectory]]:
    """Training and validation parts of each trajectory, contiguous in time, with a gap of a lag between them.

    Args:
        validation_share: share of the frames, above 0 and below 1.
        num_blocks: how many times training and validation take turns along a trajectory.
    Raises:
        DataError: naming the trajectory whose parts are too short for the lag.
        SpecError: if the share or the number of blocks cannot be.
    """
    if not 0 < validation_share < 1 or num_blocks < 1:
        raise SpecError(
            f"a validation share of {validation_share} in {num_blocks} blocks: give a share above 0 and below 1, and "
            "at least 1 block"
        )
    check_together(trajectories)
    training: list[TokenTrajectory] = []
    validation: list[TokenTrajectory] = []
    for trajectory in trajectories:
        lag = lag_in_frames(lag_ps, trajectory.interval_ps, trajectory.name)
        edges = np.linspace(0, len(trajectory), num_blocks + 1).round().astype(int)
        for block, (start, stop) in enumerate(itertools.pairwise(edges)):
            border = stop - round(validation_share * (stop - start))
            parts = (start + (lag if block else 0), border), (border + lag, stop)
            for (first, last), into in zip(parts, (training, validation), strict=True):
                if last - first <= lag:
                    raise DataError(
                        f"{trajectory.name}: a part from frame {first} to {last} is too short for a lag of {lag} "
                        "frames: give a shorter lag, fewer blocks or whole trajectories for validation"
                    )
                into.append(trajectory.part(int(first), int(last)))
    return training, validation


def _frame_weights(trajectories: Sequence[TokenTrajectory]) -> list[np.ndarray] | None:
    """(frames,) exp(log w - max) for each trajectory, with the maximum over all; all or none must have log weights.

    Raises:
        DataError: naming a trajectory without log weights, if others have them.
    """
    given = [one.log_weights for one in trajectories if one.log_weights is not None]
    without = [one for one in trajectories if one.log_weights is None]
    if given and without:
        raise DataError(f"{without[0].name} has no log weights, others have: give zeros for a run without a bias")
    return relative_weights(given) if given else None
