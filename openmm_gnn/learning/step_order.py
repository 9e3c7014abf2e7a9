"""The order of frames in a training, which a restart repeats exactly."""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.errors import SpecError


class StepOrder:
    """The frames of each optimisation step. Step k depends on seed and k alone: a restart takes the same frames.

    Frames come in one random order after another, each frame once in each. An epoch is a number of steps, so that
    epochs are as long as one likes; `len` gives it. Steps are asked for by their number, not by that of the epoch:
    Lightning counts an epoch twice when it continues from a checkpoint.
    """

    def __init__(self, num_frames: int, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self.num_frames, self.batch_size = num_frames, batch_size
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self._held = (-1, np.empty(0, dtype=np.int64))  # the order made last

    def __len__(self) -> int:
        return self.steps_per_epoch

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


class AtomOrder(StepOrder):
    """As many frames in each step as have at most so many atoms together; small and large molecules mix.

    The random orders are those of `StepOrder`; the last step of each takes what is left of it.

    Args:
        sizes: (num_frames,) atoms of each frame.
        most_atoms: of a step.
    Raises:
        SpecError: if a frame has more atoms than that.
    """

    def __init__(self, sizes: np.ndarray, most_atoms: int, steps_per_epoch: int, seed: int) -> None:
        super().__init__(len(sizes), 0, steps_per_epoch, seed)
        if len(sizes) and sizes.max() > most_atoms:
            raise SpecError(
                f"frame {int(sizes.argmax())} has {int(sizes.max())} atoms, a step at most {most_atoms}: allow at "
                f"least {int(sizes.max())} atoms in a step"
            )
        self.sizes, self.most_atoms = sizes, most_atoms
        self._first_steps = [0]  # of each order made so far, and of the next
        self._packed = (-1, np.empty(0, dtype=np.int64))

    def frames_of(self, step: int) -> list[int]:
        """The frames of one step."""
        while self._first_steps[-1] <= step:
            order = len(self._first_steps) - 1
            self._first_steps.append(self._first_steps[-1] + len(self._ends(order)))
        order = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        within, ends = step - self._first_steps[order], self._ends(order)
        first = int(ends[within - 1]) if within > 0 else 0
        return [int(frame) for frame in self._permutation(order)[first : int(ends[within])]]

    def _ends(self, order: int) -> np.ndarray:
        """(steps,) places in this order where a step ends."""
        if self._packed[0] != order:
            self._packed = (order, ends_of_packs(self.sizes[self._permutation(order)], self.most_atoms))
        return self._packed[1]


def ends_of_packs(sizes: np.ndarray, most: int) -> np.ndarray:
    """(packs,) where each pack ends, when as many in a row as sum to at most `most` go into one."""
    totals, ends = np.cumsum(sizes), [0]
    while ends[-1] < len(sizes):
        before = int(totals[ends[-1] - 1]) if ends[-1] else 0
        ends.append(int(np.searchsorted(totals, before + most, side="right")))
    return np.array(ends[1:], dtype=np.int64)
