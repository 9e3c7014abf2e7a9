"""A directory of labels is begun, and frames of a run with the forces that a network is to learn come into it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.data.labels.trajectories import LABELLED, UNITS
from openmm_gnn.md.run_settings import text_hash
from openmm_gnn.md.simulation_system import stable_xml
from openmm_gnn.md.systems.systems import SYSTEM_FILE, TOPOLOGY_FILE, save_system

if TYPE_CHECKING:
    import openmm

    from openmm_gnn.data.labels.settings import LabelCourse
    from openmm_gnn.md.run_settings import RunCourse
    from openmm_gnn.md.simulation_system import SimulationSystem


def begin_labels(folder: Path, system: SimulationSystem, course: LabelCourse) -> dict[str, Any]:
    """Make a directory of labels, or check that it is of the same making; its lock, or that of the run, must be held.

    Args:
        folder: is there.
        system: whose forces are the labels.
        course: what all trajectories of the directory have in common.
    Returns:
        The content of meta.json, not yet written, in which trajectories are to be entered.
    Raises:
        DataError: if the directory holds labels of another System or other settings, or something else.
    """
    import openmm

    identity = {
        "versions": {"openmm": openmm.__version__},
        "settings": course.to_dict(),
        "system": {"sha256": text_hash(stable_xml(system.system)), "num_atoms": system.system.getNumParticles()},
    }
    further = {"trajectories": {}, "units": UNITS, "written_by": f"openmm_gnn {version('openmm-gnn')}"}
    meta = LABELLED.begin(folder, identity, further)
    meta["system"] |= {"name": system.name, "periodic": system.periodic}
    if not (folder / SYSTEM_FILE).exists() or not (folder / TOPOLOGY_FILE).exists():
        save_system(folder, system)
    return meta


class LabelledFrames:
    """The labelled frames of a run, kept in memory until a checkpoint; a `Listener` of the run.

    Args:
        frames: a growing array of `trajectories.frame_fields`.
        course: of the run.
        forces: of a state that the run has reached, (num_particles, 3) kJ/mol/nm.
        remedy: what to do where frames are missing.
    """

    def __init__(
        self, frames: GrowingArray, course: RunCourse, forces: Callable[[openmm.State], np.ndarray], remedy: str
    ) -> None:
        self.intervals = (course.report_interval,)
        self._frames, self._course, self._forces, self._remedy = frames, course, forces, remedy
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
                f"{num_frames}: {self._remedy}"
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
            raise NonFiniteError(f"the energy of step {step} of {self._frames.path} is not finite: mend the start")
        self._waiting.append(record)

    def sync(self) -> None:
        """Write the frames that wait, and return when the disk has them."""
        if self._waiting:
            self._frames.append(np.concatenate(self._waiting), durable=True)
            self._waiting.clear()

    def close(self) -> None:
        """Forget the frames that wait: without a checkpoint they are made again."""
        self._waiting.clear()
