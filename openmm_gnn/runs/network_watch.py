"""How far the network of an accelerated run is off, frame by frame, and frames with labels for the next training.

The System's own forces are there at every frame of a run. So the error of the network costs one evaluation of the
network, and a label nothing: an accelerated run tells when its network leaves the arrangements that it was trained
on, and brings home what is missing.
"""

from __future__ import annotations

import warnings
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM
from openmm_gnn.data.labels.labelled_frames import LabelledFrames, begin_labels
from openmm_gnn.data.labels.settings import LabelCourse
from openmm_gnn.data.labels.trajectories import LABELLED, LabelledTrajectory, frame_fields, trajectory_name
from openmm_gnn.forces.gamd_force import trained_on_nonbonded
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem

if TYPE_CHECKING:
    from openmm import app

    from openmm_gnn.forces.multiple_time_step import Accelerated
    from openmm_gnn.networks.force_model import ForceModel

LABELS_FOLDER = "labels"
WATCHED_FRAMES = 10
"""Frames whose errors are averaged before anything is said."""
USUAL = 2.0
"""Error of a run, over that on held-out frames, from which on the network is said to have left its data."""


class NetworkWatch:
    """The error of the network at each frame of a run; warns once where it is far above that on held-out frames.

    Args:
        accelerated: what runs.
        context: of its System.
        topology: names the atoms.
        model: the network, whose metadata say how far it was off on held-out frames.
    """

    def __init__(
        self, accelerated: Accelerated, context: openmm.Context, topology: app.Topology, model: ForceModel
    ) -> None:
        self._accelerated, self._context, self._warned = accelerated, context, False
        self._names = [f"{atom.name} of {atom.residue.name} {atom.residue.id}" for atom in topology.atoms()]
        held_out = model.spec.metadata.get("held_out")
        known = held_out.get("rmse") if isinstance(held_out, dict) else None
        self.expected = float(known) if isinstance(known, (int, float)) and known > 0 else None
        """The error on held-out frames, root mean square of a component, meV/A; None where the network does not say."""
        beside_bonded = accelerated.levels["bonded"] or trained_on_nonbonded(model)
        self.learned = LabelledForces.NONBONDED if beside_bonded else LabelledForces.ALL
        """The forces of the System that the network stands for."""
        self._recent: deque[np.ndarray] = deque(maxlen=WATCHED_FRAMES)
        self._sum, self._count = 0.0, 0
        self.expensive: np.ndarray | None = None
        """(num_particles, 3) kJ/mol/nm at the last frame, of the forces that the network stands for."""

    def look(self, step: int, state: openmm.State) -> float:
        """The root mean square error of a force component at a frame, meV/A."""
        self.expensive, errors = self._accelerated.network_errors(self._context, state)
        squares = np.square(MEV_PER_ANGSTROM_PER_KJ_MOL_NM * errors).mean(axis=1)
        self._recent.append(squares)
        self._sum, self._count = self._sum + float(squares.mean()), self._count + 1
        if not self._warned and self.expected is not None and len(self._recent) == WATCHED_FRAMES:
            mean = np.mean(self._recent, axis=0)
            if (recent := float(mean.mean()) ** 0.5) > USUAL * self.expected:
                self._warned = True
                self._warn(step, recent, mean)
        return float(squares.mean()) ** 0.5

    def _warn(self, step: int, recent: float, by_atom: np.ndarray) -> None:
        worst = int(by_atom.argmax())
        name = self._names[self._accelerated.atoms[worst]]
        warnings.warn(
            f"step {step}: the network's forces were off by {recent:.3g} meV/A in the last {WATCHED_FRAMES} frames, by "
            f"{self.expected:.3g} on the frames held out of its training, most at {name} "
            f"({float(by_atom[worst]) ** 0.5:.3g} meV/A): averages stay right, but long outer steps heat; train it on "
            "frames of this run too (--relearn stores them with their labels), or take shorter steps",
            stacklevel=2,
        )

    @property
    def error(self) -> float | None:
        """The root mean square error over all frames of this call, meV/A; None before the first."""
        return (self._sum / self._count) ** 0.5 if self._count else None


def check_relearn(course: RunCourse) -> None:
    """Refuse labels of a run that does not know them.

    Raises:
        SpecError: if it is not accelerated, or its network stands for a part of the forces or sees a part of the atoms.
    """
    if not course.accelerated:
        raise SpecError("relearn is asked for in a run that is not accelerated: give inner_steps and a network")
    if course.expensive or course.network_atoms is not None:
        raise SpecError(
            "relearn is asked for with expensive forces or network atoms: its labels are of all atoms of a System and "
            "of all its forces but the bonded; label the geometries of the run for that part (label --geometries)"
        )


class RunLabels(LabelledFrames):
    """The frames of an accelerated run in RUN/labels, as `label` writes them; a `Listener` of the run.

    Args:
        run: its directory.
        system: the System whose forces they are.
        course: of the run.
        platform: name of the OpenMM platform.
        watch: looks at each frame before this listener takes it.
    Raises:
        DataError: if the directory holds labels of another System or other settings.
    """

    def __init__(
        self,
        run: Path,
        system: SimulationSystem,
        course: RunCourse,
        platform: str,
        watch: NetworkWatch,
    ) -> None:
        self._path = run / LABELS_FOLDER
        self._path.mkdir(parents=True, exist_ok=True)
        self._name = trajectory_name(course.temperature, course.seed)
        labels = LabelCourse(
            stride=course.report_interval,
            equilibration_steps=course.equilibration_steps,
            time_step_ps=course.time_step_ps,
            thermostat=course.thermostat,
            friction_per_ps=course.friction_per_ps,
            platform=platform,
            bonded_substeps=course.bonded_substeps,
            forces=watch.learned,
        )
        self._meta = begin_labels(self._path, system, labels)
        trajectory = LabelledTrajectory(
            self._path / "trajectories" / self._name, course.temperature, course.seed, course.num_frames
        )
        trajectory.path.mkdir(parents=True, exist_ok=True)
        self._stored = GrowingArray.open(
            trajectory.frames_file, frame_fields(system.system.getNumParticles(), system.periodic)
        )
        self._entry = {"temperature": course.temperature, "seed": course.seed}

        def expensive(_: openmm.State) -> np.ndarray:
            assert watch.expensive is not None
            return watch.expensive

        remedy = "a run keeps labels from its start on, so begin it anew with --relearn in another directory"
        super().__init__(self._stored, course, expensive, remedy)

    def sync(self) -> None:
        """Write the frames that wait, and say how many there are: what is there is complete whenever a run ends."""
        super().sync()
        self._meta["trajectories"][self._name] = {**self._entry, "frames": len(self._stored)}
        LABELLED.write(self._path, self._meta)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._stored.close()
