"""Frames of a run with the forces that a network is to learn, on their way into a file of labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.growing_array import GrowingArray

if TYPE_CHECKING:
    import openmm

    from openmm_gnn.md.run_settings import RunCourse


class LabelledFrames:
    """The labelled frames of a run, kept in memory until a checkpoint; a `Listener` of the run.

    Args:
        frames: a growing array of `trajectories.frame_fields`.
        place: directory of the run, for errors.
        course: of the run.
        forces: of a state that the run has reached, (num_particles, 3) kJ/mol/nm.
    """

    def __init__(
        self, frames: GrowingArray, place: Path, course: RunCourse, forces: Callable[[openmm.State], np.ndarray]
    ) -> None:
        self.intervals = (course.report_interval,)
        self._frames, self._place, self._course, self._forces = frames, place, course, forces
        self._waiting: list[np.ndarray] = []

    def resume(self, step: int) -> None:
        """Cut frames past this step of the production.

        Raises:
            DataError: if there are fewer frames than the checkpoint says.
        """
        num_frames = step // self._course.report_interval
        if len(self._frames) < num_frames:
            raise DataError(
                f"{self._frames.path} has {len(self._frames)} frames, its checkpoint was written after "
                f"{num_frames}: delete {self._place} to run it again"
            )
        self._frames.truncate(num_frames)

    def take(self, step: int, state: openmm.State) -> None:
        """Keep a record of everything that is known now; its forces belong to exactly its positions.

        Raises:
            NonFiniteError: if the energy is NaN or infinite; a `RunGuard` has seen to positions and forces.
        """
        record = self._frames.empty_records(1)
        record["step"] = step + self._course.equilibration_steps
        record["time"] = state.getTime()._value
        record["potential_energy"] = state.getPotentialEnergy()._value
        record["kinetic_energy"] = state.getKineticEnergy()._value
        record["positions"] = state.getPositions(asNumpy=True)._value
        record["velocities"] = state.getVelocities(asNumpy=True)._value
        record["forces"] = self._forces(state)
        if "box_vectors" in (record.dtype.names or ()):
            record["box_vectors"] = state.getPeriodicBoxVectors(asNumpy=True)._value
        if not np.isfinite(record["potential_energy"][0]):
            raise NonFiniteError(f"{self._place.name}: the energy of step {step} is not finite: mend the start")
        self._waiting.append(record)

    def sync(self) -> None:
        """Write the frames that wait, and return when the disk has them."""
        if self._waiting:
            self._frames.append(np.concatenate(self._waiting), durable=True)
            self._waiting.clear()

    def close(self) -> None:
        """Forget the frames that wait: without a checkpoint they are made again."""
        self._waiting.clear()
