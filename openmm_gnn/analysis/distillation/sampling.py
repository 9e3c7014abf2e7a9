"""Runs that give the geometries of a distillation: of the teacher itself, of a cheaper System, of a student.

Runs of the teacher are stepped here and not by OpenMM, since each of its forces is to be computed once, ever: the same
start gives the same geometries again, whose forces are known.
Source of the scheme: Zhang, Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019), doi 10.1021/acs.jpca.9b02771.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm

from openmm_gnn.analysis.distillation.settings import RELAX_CALLS
from openmm_gnn.analysis.distillation.teacher import CountedTeacher, Purpose
from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.contexts import make_context
from openmm_gnn.md.run_guard import RunGuard
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.state_checks import BoundedTemperature, WholeBonds

FRICTION_PER_PS = 50.0
"""Friction in runs of the teacher: in their one picosecond a weak one would give each vibration one energy."""
STUDENT_FRICTION_PER_PS = 20.0
"""Friction in runs of students: strong, as a network that predicts forces directly heats where it is still wrong."""
STRETCHED = 1.25
"""Length of a bond, over its atoms' covalent radii, at which a run of a student ends: no peptide has it at 450 K."""
SAMPLE_PS = 0.02
"""Time between two frames of a run."""
RELAXED_KJ_MOL_NM = 500.0
"""Root mean square of a force component below which a start is relaxed: at 300 K it is some 1000."""
LARGEST_MOVE_NM = 0.01
CONSTRAINT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Frames:
    """Geometries: (frames, particles, 3) nm, and their boxes (frames, 3, 3) where there are some."""

    positions: np.ndarray
    box_vectors: np.ndarray | None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: np.ndarray) -> Frames:
        return Frames(self.positions[rows], None if self.box_vectors is None else self.box_vectors[rows])


def joined(parts: list[Frames]) -> Frames:
    """The frames of several runs, one after the other."""
    boxes = [part.box_vectors for part in parts]
    positions = np.concatenate([part.positions for part in parts])
    return Frames(positions, None if boxes[0] is None else np.concatenate([box for box in boxes if box is not None]))


def relaxed_by(teacher: CountedTeacher, system: SimulationSystem, report: Callable[[], None]) -> np.ndarray:
    """(num_particles, 3) nm: the start, moved along the teacher's forces until these are not larger than usual.

    Source: Bitzek, Koskinen, Gaehler, Moseler, Gumbsch, "Structural relaxation made simple", Phys. Rev. Lett. 97,
    170201 (2006), doi 10.1103/PhysRevLett.97.170201.
    """
    masses = system.masses[:, None]
    free = masses > 0
    positions, velocities = _constrained(teacher.context, system.positions), np.zeros_like(system.positions)
    step, mixing, downhill = 0.001, 0.1, 0
    for _ in range(RELAX_CALLS):
        record = teacher.evaluate(positions, Purpose.PASSED)
        report()
        forces = np.where(free, record["forces"] + record["other_forces"], 0.0)
        if np.sqrt(np.mean(forces**2)) < RELAXED_KJ_MOL_NM:
            break
        power = float((forces * velocities).sum())
        if power > 0:
            length = np.linalg.norm(velocities) / max(np.linalg.norm(forces), 1e-12)
            velocities = (1 - mixing) * velocities + mixing * length * forces
            downhill += 1
            if downhill > 5:
                step, mixing = min(1.1 * step, 0.005), 0.99 * mixing
        else:
            velocities, step, mixing, downhill = np.zeros_like(velocities), 0.5 * step, 0.1, 0
        velocities = velocities + step * forces / np.where(free, masses, 1.0)
        moves = step * velocities
        moves *= min(1.0, LARGEST_MOVE_NM / max(float(np.abs(moves).max()), 1e-12))
        positions = _constrained(teacher.context, positions + moves)
    return positions


def teacher_run(
    teacher: CountedTeacher,
    system: SimulationSystem,
    start: np.ndarray,
    temperature: float,
    step_ps: float,
    seed: int,
    purposes: Iterable[Purpose],
) -> Iterator[np.ndarray]:
    """Records of Langevin dynamics under the teacher's forces, one for each step and its purpose.

    Raises:
        OutOfCallsError, NonFiniteError: as `CountedTeacher.evaluate`.
        NonFiniteError: if a bond breaks.
    """
    masses = np.where(system.masses > 0, system.masses, np.inf)[:, None]
    spread = np.sqrt(BOLTZMANN_KJ_MOL_K * temperature / masses)
    keep = np.exp(-FRICTION_PER_PS * step_ps)
    noise = np.sqrt(1 - keep**2) * spread
    generator = np.random.default_rng(seed)
    positions = _constrained(teacher.context, start)
    velocities = spread * generator.normal(size=positions.shape)
    teacher.context.setPositions(positions)
    bonds = WholeBonds(system.system, system.topology, teacher.context.getState(positions=True))
    for purpose in purposes:
        record = teacher.evaluate(positions, purpose)
        teacher.context.setPositions(positions)
        if (fault := bonds.fault(teacher.context.getState(positions=True))) is not None:
            raise NonFiniteError(f"under the teacher's own forces at {temperature:g} K {fault}: lower `hot`")
        yield record
        velocities = velocities + step_ps * (record["forces"] + record["other_forces"]) / masses
        velocities = _constrained_velocities(teacher.context, velocities)
        moved = positions + 0.5 * step_ps * velocities
        velocities = keep * velocities + noise * generator.normal(size=positions.shape)
        moved = moved + 0.5 * step_ps * velocities
        positions = _constrained(teacher.context, moved)
        velocities = velocities + (positions - moved) / step_ps


def _constrained(context: openmm.Context, positions: np.ndarray) -> np.ndarray:
    """Positions with the constraints of the System fulfilled, along the present directions of its bonds."""
    if context.getSystem().getNumConstraints() == 0:
        return positions
    context.setPositions(positions)
    context.applyConstraints(CONSTRAINT_TOLERANCE)
    return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


def _constrained_velocities(context: openmm.Context, velocities: np.ndarray) -> np.ndarray:
    """Velocities without what would change a constraint, at the present positions of a Context."""
    if context.getSystem().getNumConstraints() == 0:
        return velocities
    context.setVelocities(velocities)
    context.applyVelocityConstraints(CONSTRAINT_TOLERANCE)
    return np.array(context.getState(velocities=True).getVelocities(asNumpy=True)._value)


@dataclass(frozen=True)
class SampledRun:
    """What a run of a student or of a cheap System gave."""

    frames: Frames
    reached_ps: float
    fault: str
    """What ended it before its time; empty if nothing did."""


def sampled_run(
    system: SimulationSystem,
    start: np.ndarray,
    temperature: float,
    step_ps: float,
    length_ps: float,
    seed: int,
    platform: str,
    directory: Path,
    report: Callable[[float], None] = lambda _: None,
) -> SampledRun:
    """Frames of a run that is watched: it ends where a bond is stretched or it is hot, and the frames before count.

    Args:
        system: with the forces to run.
        start: (num_particles, 3), nm.
        directory: where the last good frame of a run that breaks is written.
        report: called with the picoseconds done.
    """
    every = max(1, round(SAMPLE_PS / step_ps))
    count = max(1, round(length_ps / step_ps / every))
    course = RunCourse(
        steps=count * every,
        equilibration_steps=0,
        report_interval=every,
        time_step_ps=step_ps,
        temperature=temperature,
        thermostat=Thermostat.LANGEVIN,
        friction_per_ps=STUDENT_FRICTION_PER_PS,
        checkpoint_interval=every,
        seed=seed,
    )
    directory.mkdir(parents=True, exist_ok=True)
    context = make_context(system.system, course, platform, None, with_torch=False)
    context.setPositions(start)
    context.applyConstraints(CONSTRAINT_TOLERANCE)
    context.setVelocitiesToTemperature(temperature, seed)
    checks = (
        WholeBonds(system.system, system.topology, context.getState(positions=True), STRETCHED),
        BoundedTemperature(system.system, temperature, STUDENT_FRICTION_PER_PS, step_ps, hot_ps=0.0),
    )
    guard = RunGuard(context, system.topology, directory, checks=checks)
    positions, boxes, fault = [], [], ""
    for number in range(count):
        try:
            guard.step(every)
        except (NonFiniteError, openmm.OpenMMException) as error:
            fault = str(error)
            break
        positions.append(np.array(guard.state.getPositions(asNumpy=True)._value))
        boxes.append(np.array(guard.state.getPeriodicBoxVectors(asNumpy=True)._value))
        report((number + 1) * every * step_ps)
    found = np.array(positions).reshape(-1, *system.positions.shape)
    box_vectors = np.array(boxes).reshape(-1, 3, 3) if system.periodic else None
    return SampledRun(Frames(found, box_vectors), len(positions) * every * step_ps, fault)
