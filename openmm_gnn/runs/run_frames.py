"""The frames of a run and the rows of its log, on their way to the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

import numpy as np

from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.md.contexts import degrees_of_freedom
from openmm_gnn.md.dcd_frames import DCDWriter
from openmm_gnn.md.element_temperatures import ElementTemperatures
from openmm_gnn.md.multiple_time_steps import LevelledIntegrator
from openmm_gnn.md.simulation_system import is_periodic_system, masses_of
from openmm_gnn.runs.directory import ERROR_COLUMN, LOG_COLUMNS, RunDirectory, element_column, log_columns

if TYPE_CHECKING:
    import openmm
    from openmm import app

    from openmm_gnn.md.run_settings import RunCourse
    from openmm_gnn.runs.forces import RunForces
    from openmm_gnn.runs.network_watch import NetworkWatch


class RunFrames:
    """Frames and log rows of a run, appended to those that are there; a `Listener` of the run.

    A log keeps the columns it was begun with. Kinetic energies and temperatures are those of `half_step_velocities` in
    an accelerated run without constraints, where velocities at a step are too cold; they are left empty in isokinetic
    dynamics, whose velocities are not physical.
    """

    def __init__(
        self,
        run: RunDirectory,
        course: RunCourse,
        context: openmm.Context,
        topology: app.Topology,
        forces: RunForces,
        watch: NetworkWatch | None = None,
    ) -> None:
        system = context.getSystem()
        self._watch = watch
        self.intervals = (course.report_interval,)
        self._run, self._course, self._knows_energy = run, course, forces.knows_energy
        self._masses = masses_of(system)
        self._accelerated: LevelledIntegrator | None = None
        if isinstance(forces.integrator, LevelledIntegrator) and not forces.integrator.constrained:
            self._accelerated = forces.integrator
        self._element_temperatures = ElementTemperatures(system, topology)
        self._freedom, self._num_atoms = degrees_of_freedom(system), system.getNumParticles()
        self._periodic = is_periodic_system(system)
        self._frames: DCDWriter | None = None
        self._log: TextIO | None = None

    def resume(self, step: int) -> None:
        """Cut frames and rows past this step of the production."""
        self._run.rewind(step // self._course.report_interval)
        self._frames = DCDWriter(
            self._run.trajectory,
            self._num_atoms,
            self._periodic,
            self._course.time_step_ps,
            self._course.report_interval,
        )
        path = self._run.log
        new = not path.exists() or path.stat().st_size == 0
        physical = self._course.physical_velocities
        elements = [element_column(element) for element in self._element_temperatures.elements if physical]
        watched = [] if self._watch is None else [ERROR_COLUMN]
        self._columns = [*LOG_COLUMNS, *elements, *watched] if new else log_columns(path)
        self._log = open(path, "a")  # noqa: SIM115 - closed by close()
        if new:
            self._log.write(",".join(self._columns) + "\n")

    def take(self, step: int, state: openmm.State) -> None:
        """Append a frame and its row."""
        assert self._frames is not None and self._log is not None
        box = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None
        positions, velocities = (get(asNumpy=True)._value for get in (state.getPositions, state.getVelocities))
        self._frames.write(positions, box)
        kinetic = state.getKineticEnergy()._value
        if self._accelerated is not None:
            velocities = self._accelerated.half_step_velocities(velocities, self._masses)
            kinetic = 0.5 * float(self._masses @ np.square(velocities).sum(axis=1))
        temperature = kinetic_temperature(kinetic, self._freedom)
        row = {"step": f"{step}", "time_ps": f"{step * self._course.time_step_ps:.6f}"}
        if self._knows_energy:
            row["potential_kj_mol"] = f"{state.getPotentialEnergy()._value:.6f}"
        if self._course.physical_velocities:
            row |= {"kinetic_kj_mol": f"{kinetic:.6f}", "temperature_K": f"{temperature:.4f}"}
            kelvin = self._element_temperatures(positions, velocities)
            of_elements = zip(self._element_temperatures.elements, kelvin, strict=True)
            row |= {element_column(element): f"{value:.4f}" for element, value in of_elements}
        if box is not None:
            row["volume_nm3"] = f"{abs(np.linalg.det(box)):.6f}"
        if self._watch is not None:
            row[ERROR_COLUMN] = f"{self._watch.look(step, state):.4f}"
        self._log.write(",".join(row.get(column, "") for column in self._columns) + "\n")
        self._log.flush()

    def sync(self) -> None:
        """Wait until all frames and rows are on the disk."""
        assert self._frames is not None and self._log is not None
        self._frames.sync()
        self._log.flush()
        os.fsync(self._log.fileno())

    def close(self) -> None:
        """Close both files."""
        for file in (self._frames, self._log):
            if file is not None:
                file.close()
