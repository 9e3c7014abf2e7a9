"""The teacher: runs a System from several seeds and stores frames labelled with its forces.

Every trajectory runs in a process of its own on one thread, which for a few hundred atoms is faster than threads; it
reports its progress on standard output. Frames are appended in chunks, and after each chunk the checkpoint is replaced
(md/loop.py): a kill costs the chunk in progress and nothing else.
"""

from __future__ import annotations

import copy
import io
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from openmm_gnn.base.errors import OpenMMGNNError, SpecError
from openmm_gnn.base.files import locked, read_checkpoint, write_atomically
from openmm_gnn.base.growing_array import GrowingArray, read_growing_array
from openmm_gnn.base.worker_processes import Work, python_command, run_workers, serve
from openmm_gnn.data.labels.labelled_frames import LabelledFrames, begin_labels
from openmm_gnn.data.labels.settings import LabelCourse, LabelSettings
from openmm_gnn.data.labels.trajectories import (
    LABELLED,
    LabelledTrajectories,
    LabelledTrajectory,
    frame_fields,
    listed_trajectories,
    trajectory_name,
)
from openmm_gnn.forces.network_energies import check_networks
from openmm_gnn.md.contexts import make_context, repartition_hydrogen_mass
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.loop import advance, start_or_resume
from openmm_gnn.md.run_guard import RunGuard
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import NONBONDED_GROUP, LabelledForces, split_groups
from openmm_gnn.md.state_checks import run_checks
from openmm_gnn.md.systems.structure_files import relaxed
from openmm_gnn.md.systems.systems import SimulationSystem, load_system


def steps_done(trajectory: LabelledTrajectory, settings: LabelCourse) -> int:
    """Steps that need not be run again; all of them if every frame is there."""
    checkpoint = read_checkpoint(trajectory.checkpoint_file)
    if checkpoint is None:  # the file of frames may not even have its header
        return 0
    if trajectory.frames_file.exists() and len(read_growing_array(trajectory.frames_file)) >= trajectory.frames:
        return settings.equilibration_steps + trajectory.frames * settings.stride
    return checkpoint.step


def worker_command(directory: Path, name: str, checkpoint_seconds: float) -> list[str]:
    """The command that runs this file on one trajectory."""
    return python_command("openmm_gnn.data.labels.teacher", str(directory), name, str(checkpoint_seconds))


def run_trajectory(directory: Path, name: str, checkpoint_seconds: float, report: Callable[[int], None]) -> None:
    """Run one trajectory to its end, from its checkpoint if it has one.

    Args:
        checkpoint_seconds: wall time between two checkpoints.
        report: called with the steps done, from the start of equilibration.
    Raises:
        DataError: if the files disagree with each other, or another process is writing them.
        NonFiniteError: if positions, forces or the energy become NaN or infinite.
        OpenMMGNNError: if OpenMM refuses to go on for another reason.
    """
    meta = LABELLED.read(directory)
    (trajectory,) = (t for t in listed_trajectories(directory, meta) if t.name == name)
    labels = LabelCourse(**meta["settings"])
    system = load_system(directory)
    trajectory.path.mkdir(parents=True, exist_ok=True)
    fields = frame_fields(system.system.getNumParticles(), system.periodic)
    with GrowingArray.open(trajectory.frames_file, fields) as frames:
        course = labels.run(trajectory.temperature, _random_seed(trajectory), trajectory.frames)
        context = _context(system, labels, course)

        def forces(state: openmm.State) -> np.ndarray:
            if labels.forces is LabelledForces.NONBONDED:
                state = context.getState(forces=True, groups={NONBONDED_GROUP})
            return state.getForces(asNumpy=True)._value

        def start() -> np.ndarray:
            file = trajectory.start_file
            return np.load(file, allow_pickle=False) if file.exists() else system.positions

        remedy = f"go on with the OpenMM and the machine that wrote it, or delete {trajectory.path} to run it again"
        step = start_or_resume(context, trajectory.checkpoint_file, start, course, remedy)
        checks = run_checks(context, system.topology, course, labels.allow_broken_bonds)
        guard = RunGuard(context, system.topology, trajectory.path, checks=checks)
        try:
            advance(
                guard,
                step,
                course,
                [LabelledFrames(frames, course, forces, f"delete {trajectory.path} to run it again")],
                trajectory.checkpoint_file,
                checkpoint_due=lambda steps, seconds: seconds > checkpoint_seconds,
                report=report,
            )
        except openmm.OpenMMException as error:
            raise OpenMMGNNError(f"OpenMM stopped {name} at step {context.getStepCount()}: {error}") from error


def _context(system: SimulationSystem, labels: LabelCourse, course: RunCourse) -> openmm.Context:
    split_groups(system.system)
    for force in system.system.getForces():
        if hasattr(force, "setRandomNumberSeed"):  # barostats
            force.setRandomNumberSeed(course.seed)
    context = make_context(system.system, course, labels.platform, 1, False, make_integrator(course))
    if openmm.MonteCarloBarostat.Temperature() in context.getParameters():
        context.setParameter(openmm.MonteCarloBarostat.Temperature(), course.temperature)
    return context


def _random_seed(trajectory: LabelledTrajectory) -> int:
    """Another random sequence for every seed and temperature, 1 to 2^31 - 1."""
    sequence = np.random.SeedSequence([trajectory.seed, round(1000 * trajectory.temperature)])
    return 1 + int(sequence.generate_state(1)[0]) % (2**31 - 1)


def label(
    system: SimulationSystem,
    out: str | Path,
    settings: LabelSettings | None = None,
    progress: bool = True,
) -> LabelledTrajectories:
    """Run every seed at every temperature and store labelled frames; resumes what was interrupted.

    Called again with the same settings it completes what is missing; seeds, temperatures and frames may be added. A
    start that the system does not prepare itself is minimised, where its forces have an energy. Frames of a run that
    came apart are not stored.

    Args:
        out: directory of the data; made if it does not exist.
        settings: which trajectories; ten of the system as it is if None.
        progress: show a bar with the remaining time.
    Raises:
        SpecError: if a setting makes no sense.
        DataError: if `out` holds data of another system or other settings, or is being written by another process.
        NonFiniteError: if a trajectory blows up.
    """
    out = Path(out)
    settings = settings or LabelSettings()
    _check_can_run(system)
    system = _prepared(system, settings.hydrogen_mass)
    course = settings.course(system)
    with locked(out):
        meta = _prepare(out, system, settings, course)
        _write_starts(out, meta, system)
        wanted = {trajectory_name(*run) for run in settings.runs(system)}
        works = [
            Work(
                name=trajectory.name,
                command=worker_command(out, trajectory.name, settings.checkpoint_seconds),
                steps=course.equilibration_steps + trajectory.frames * course.stride,
                steps_done=steps_done(trajectory, course),
            )
            for trajectory in listed_trajectories(out, meta)
            if trajectory.name in wanted
        ]
        run_workers(works, processes=settings.processes or os.cpu_count() or 1, progress=progress)
    return LabelledTrajectories.open(out)


def _check_can_run(system: SimulationSystem) -> None:
    check_networks(system.system, network_pressure=True)
    if any(isinstance(force, openmm.AndersenThermostat) for force in system.system.getForces()):
        raise SpecError(
            f"{system.name} holds an AndersenThermostat: remove it, the temperature is held by `thermostat`"
        )


def _prepared(system: SimulationSystem, hydrogen_mass: float | None) -> SimulationSystem:
    """The system with the masses of the settings, and with a start that is not strained."""
    if hydrogen_mass is not None:
        heavier = copy.deepcopy(system.system)
        repartition_hydrogen_mass(heavier, system.topology, hydrogen_mass)
        system = replace(system, system=heavier)
    if system.prepare is not None:
        return system
    minimised = relaxed(system.system, system.positions)

    def start(seed: int) -> np.ndarray:
        try:
            return minimised(seed)
        except SpecError:
            warnings.warn("the start is not minimised, as a force of the System has no energy", stacklevel=2)
            return system.positions

    return replace(system, prepare=start)


def _prepare(out: Path, system: SimulationSystem, settings: LabelSettings, course: LabelCourse) -> dict[str, Any]:
    """Write meta.json, system.xml and topology.cif, or check that they are of the same making; the new meta."""
    meta = begin_labels(out, system, course)
    for temperature, seed in settings.runs(system):
        entry = meta["trajectories"].setdefault(
            trajectory_name(temperature, seed), {"temperature": temperature, "seed": seed, "frames": settings.frames}
        )
        entry["frames"] = max(entry["frames"], settings.frames)
    LABELLED.write(out, meta)
    return meta


def _write_starts(out: Path, meta: dict[str, Any], system: SimulationSystem) -> None:
    """Keep the starting positions of every trajectory that is not begun, where the system prepares its own."""
    if system.prepare is None:
        return
    for trajectory in listed_trajectories(out, meta):
        if not trajectory.start_file.exists() and not trajectory.checkpoint_file.exists():
            trajectory.path.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, system.prepare(trajectory.seed))
            write_atomically(trajectory.start_file, content.getvalue())


if __name__ == "__main__":
    serve(lambda report: run_trajectory(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), report))
