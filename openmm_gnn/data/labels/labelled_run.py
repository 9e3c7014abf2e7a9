"""One labelled trajectory, in a process of its own (`worker_command`).

Frames are appended in chunks; after each chunk the checkpoint is replaced. A kill at any moment costs the chunk
in progress and nothing else: a restart cuts the frames past the checkpoint and goes on with the same dynamics.
The directory holds everything the process needs; it tells its progress on standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, OpenMMGNNError
from openmm_gnn.base.files import Checkpoint, read_checkpoint, write_checkpoint
from openmm_gnn.base.growing_array import GrowingArray, read_growing_array
from openmm_gnn.base.worker_processes import serve
from openmm_gnn.data.labels.settings import LabelCourse
from openmm_gnn.data.labels.trajectories import LabelledTrajectory, frame_fields, listed_trajectories, read_meta
from openmm_gnn.md.force_parts import NONBONDED_GROUP, LabelledForces, split_groups
from openmm_gnn.md.run_settings import make_integrator
from openmm_gnn.md.systems.systems import SimulationSystem, load_system

if TYPE_CHECKING:
    import openmm


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
    return [sys.executable, "-m", "openmm_gnn.data.labels.labelled_run", str(directory), name, str(checkpoint_seconds)]


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
    meta = read_meta(directory)
    (trajectory,) = (t for t in listed_trajectories(directory, meta) if t.name == name)
    settings = LabelCourse(**meta["settings"])
    system = load_system(directory)
    trajectory.path.mkdir(parents=True, exist_ok=True)
    fields = frame_fields(system.system.getNumParticles(), system.periodic)
    with GrowingArray.open(trajectory.frames_file, fields) as frames:
        context = _context(system, settings, trajectory)
        step = _start_or_resume(context, system, settings, trajectory, frames)
        buffer: list[np.ndarray] = []
        last_step = settings.equilibration_steps + trajectory.frames * settings.stride
        written_at = time.monotonic()
        while step < last_step:
            phase_end = settings.equilibration_steps if step < settings.equilibration_steps else last_step
            num_steps = min(settings.stride, phase_end - step)
            with _openmm_errors_in_words(trajectory, step + num_steps):
                context.getIntegrator().step(num_steps)
                step += num_steps
                if step > settings.equilibration_steps:
                    buffer.append(_frame(context, frames, trajectory, settings, step))
            report(step)
            if step == last_step or time.monotonic() - written_at > checkpoint_seconds:
                if buffer:
                    frames.append(np.concatenate(buffer), durable=True)
                    buffer.clear()
                write_checkpoint(trajectory.checkpoint_file, Checkpoint(step, context.createCheckpoint()))
                written_at = time.monotonic()


def _context(system: SimulationSystem, settings: LabelCourse, trajectory: LabelledTrajectory) -> openmm.Context:
    import openmm

    seed = _random_seed(trajectory)
    split_groups(system.system)
    for force in system.system.getForces():
        if hasattr(force, "setRandomNumberSeed"):  # barostats
            force.setRandomNumberSeed(seed)
    integrator = make_integrator(settings.run(trajectory.temperature, seed, trajectory.frames))
    platform = openmm.Platform.getPlatformByName(settings.platform)
    properties = {"Threads": "1"} if settings.platform == "CPU" else {}
    context = openmm.Context(system.system, integrator, platform, properties)
    if openmm.MonteCarloBarostat.Temperature() in context.getParameters():
        context.setParameter(openmm.MonteCarloBarostat.Temperature(), trajectory.temperature)
    return context


def _random_seed(trajectory: LabelledTrajectory) -> int:
    """Another random sequence for every seed and temperature, 1 to 2^31 - 1."""
    sequence = np.random.SeedSequence([trajectory.seed, round(1000 * trajectory.temperature)])
    return 1 + int(sequence.generate_state(1)[0]) % (2**31 - 1)


def _start_or_resume(
    context: openmm.Context,
    system: SimulationSystem,
    settings: LabelCourse,
    trajectory: LabelledTrajectory,
    frames: GrowingArray,
) -> int:
    """Bring context and frames to the same step; that step."""
    import openmm

    checkpoint = read_checkpoint(trajectory.checkpoint_file)
    if checkpoint is None:
        frames.truncate(0)
        start = trajectory.start_file
        context.setPositions(np.load(start, allow_pickle=False) if start.exists() else system.positions)
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        context.setVelocitiesToTemperature(trajectory.temperature, _random_seed(trajectory))
        return 0
    num_frames = max(0, checkpoint.step - settings.equilibration_steps) // settings.stride
    if len(frames) < num_frames:
        raise DataError(
            f"{trajectory.frames_file} has {len(frames)} frames, its checkpoint was written after {num_frames}: "
            f"delete {trajectory.path} to run it again"
        )
    frames.truncate(num_frames)
    try:
        context.loadCheckpoint(checkpoint.state)
    except openmm.OpenMMException as error:
        raise DataError(
            f"OpenMM cannot read {trajectory.checkpoint_file} ({error}): go on with the OpenMM and the machine that "
            f"wrote it, or delete {trajectory.path} to run it again"
        ) from error
    return checkpoint.step


def _frame(
    context: openmm.Context, frames: GrowingArray, trajectory: LabelledTrajectory, settings: LabelCourse, step: int
) -> np.ndarray:
    """One record with everything the context knows now; its forces belong to exactly its positions."""
    from openmm import unit

    state = context.getState(getPositions=True, getVelocities=True, getForces=True, getEnergy=True)
    labelled = state
    if settings.forces is LabelledForces.NONBONDED:
        labelled = context.getState(getForces=True, groups={NONBONDED_GROUP})
    record = frames.empty_records(1)
    force_unit = unit.kilojoule_per_mole / unit.nanometer
    record["step"] = step
    record["time"] = state.getTime().value_in_unit(unit.picosecond)
    record["potential_energy"] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    record["kinetic_energy"] = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    record["positions"] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    record["velocities"] = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
    record["forces"] = labelled.getForces(asNumpy=True).value_in_unit(force_unit)
    if "box_vectors" in (record.dtype.names or ()):
        record["box_vectors"] = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    for what in ("positions", "forces", "potential_energy"):
        bad = np.argwhere(~np.isfinite(record[what][0]))
        if len(bad):
            where = "" if what == "potential_energy" else f" of atom {bad[0][0]}"
            raise _blown_up(trajectory, step, f"{what}{where}: not finite")
    return record


@contextmanager
def _openmm_errors_in_words(trajectory: LabelledTrajectory, step: int) -> Iterator[None]:
    """What OpenMM raises, with the trajectory and the step."""
    import openmm

    try:
        yield
    except openmm.OpenMMException as error:
        if "NaN" in str(error):
            raise _blown_up(trajectory, step, str(error).partition(".")[0]) from error
        raise OpenMMGNNError(f"OpenMM stopped {trajectory.name} at step {step}: {error}") from error


def _blown_up(trajectory: LabelledTrajectory, step: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"{trajectory.name} blew up at step {step} ({what}): minimise the starting positions or shorten the time step"
    )


if __name__ == "__main__":
    serve(lambda report: run_trajectory(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), report))
