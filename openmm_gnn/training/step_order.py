"""The order of frames in a training, which a restart repeats exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class StepOrder(Sampler[list[int]]):
    """The frames of each optimisation step. Step k depends on seed and k alone: a restart goes on with the same frames.

    Frames come in one random order after another, each frame once in each. An epoch is a number of steps, so that
    epochs are as long as one likes. Lightning calls `set_epoch` of a loader's `batch_sampler.sampler`.
    """

    def __init__(self, num_frames: int, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.num_frames, self.batch_size, self.steps_per_epoch, self.seed = (
            num_frames,
            batch_size,
            steps_per_epoch,
            seed,
        )
        self.epoch = 0
        self._held = (-1, np.empty(0, dtype=np.int64))  # the order made last

    def set_epoch(self, epoch: int) -> None:
        """Go to this epoch, counted from 0."""
        self.epoch = epoch

    @property
    def sampler(self) -> StepOrder:
        """Itself: the epoch is told to a batch sampler's sampler alone."""
        return self

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.epoch * self.steps_per_epoch, (self.epoch + 1) * self.steps_per_epoch):
            yield self.frames_of(step)

    def frames_of(self, step: int) -> list[int]:
        """The frames of one step."""
        first = step * self.batch_size
        return [self._frame(place) for place in range(first, first + self.batch_size)]

    def _frame(self, place: int) -> int:
        order, within = divmod(place, self.num_frames)
        return int(self._permutation(order)[within])

    def _permutation(self, order: int) -> np.ndarray:
        if self._held[0] != order:
            self._held = (order, np.random.default_rng([self.seed, order]).permutation(self.num_frames))
        return self._held[1]
