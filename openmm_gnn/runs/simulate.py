"""Runs a system in OpenMM, with its own forces or a network's, into a directory that survives kill -9."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app
from rich.console import Console

import openmm_gnn
from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import Checkpoint, read_checkpoint, write_atomically, write_checkpoint
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.md.contexts import choose_platform, degrees_of_freedom, make_context
from openmm_gnn.md.dcd_frames import DCDWriter
from openmm_gnn.md.element_temperatures import ElementTemperatures
from openmm_gnn.md.nan_guard import NanGuard
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings, text_hash
from openmm_gnn.runs.directory import LOG_COLUMNS, RunDirectory, element_column, log_columns
from openmm_gnn.runs.forces import RunForces, network_device, run_forces
from openmm_gnn.runs.progress import RunProgress

if TYPE_CHECKING:
    from openmm_gnn.md.systems.systems import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel
    from openmm_gnn.runs.bias.run_bias import RunBias
    from openmm_gnn.runs.features import RunFeatures
    from openmm_gnn.runs.settings import BiasSettings, FeatureSettings


@dataclass(frozen=True)
class RunResult:
    """What `simulate` did."""

    directory: RunDirectory
    num_frames: int
    ns_per_day: float
    """Speed of this call; 0 if the run was complete already."""


def simulate(
    simulation_system: SimulationSystem,
    directory: Path | str,
    settings: RunSettings | RunCourse,
    model: ForceModel | None = None,
    forces_name: str = "",
    compute: ComputeSettings | None = None,
    resume: bool = False,
    console: Console | None = None,
    features: FeatureSettings | None = None,
    bias_cv: Path | str | None = None,
    bias: BiasSettings | None = None,
) -> RunResult:
    """Equilibrate and run; frames, log and checkpoints go to `directory` (see run_directory.py).

    Args:
        simulation_system: System, topology and starting positions.
        directory: new, or the directory of the run to resume.
        settings: what is asked of the run; a `RunCourse` is taken as it is.
        model: replaces the forces of the system by its own, but for the bonded ones where it was trained without
            them; with settings that accelerate, stands for the expensive forces between two of their evaluations.
            The system's own forces if None.
        forces_name: how run.json, figures and the progress bar call the forces.
        compute: platform, backend of the network's force and threads.
        resume: go on from the last checkpoint; where nothing is there yet, start.
        console: shows a progress bar.
        features: store live features of the production in DIRECTORY/features; they do not alter the run.
        bias_cv: path of a learned CV to bias the production along, see run_bias.py.
        bias: how; as `BiasSettings` has it if None.
    Raises:
        DataError: if the directory holds a run and `resume` is False, its files are damaged, or it holds features of
            another encoder.
        SpecError: if a resumed run has other settings than the stored one, or the model does not fit the system.
        TopologyError: if the CV of the bias was learned for another topology.
        NonFiniteError: if an atom's position, velocity or force becomes NaN or infinite.
    """
    featurizer = None
    if features is not None:
        from openmm_gnn.runs.features import make_featurizer

        featurizer = make_featurizer(features, simulation_system.topology)
    course = settings if isinstance(settings, RunCourse) else settings.course(simulation_system)
    compute = compute or ComputeSettings()
    run = RunDirectory(directory)
    with run.lock():
        if run.exists and not resume:
            raise DataError(f"{run.path} holds a run already: resume it (--resume), or choose another directory")
        platform = choose_platform(compute.platform)
        identity = run_identity(simulation_system, course, model, forces_name, platform)
        biased = None
        if bias_cv is not None:
            biased = _run_bias(bias_cv, bias, simulation_system, course, compute.backend, compute.threads)
            identity["bias"] = biased.identity()
        if run.exists:
            run.check_same_course(identity)
        forces = run_forces(simulation_system, course, model, compute.backend, network_device(platform))
        if biased is not None:
            forces = biased.added_to(forces, course)
        context = make_context(forces.system, course, platform, compute.threads, model is not None, forces.integrator)
        with open(run.topology, "w") as file:
            app.PDBFile.writeFile(simulation_system.topology, simulation_system.positions, file, keepIds=True)
        step = _start(context, run, course, simulation_system)
        run.write_identity(identity)
        stack = ExitStack()
        with stack, RunProgress(course, console, forces_name or simulation_system.name) as progress:
            live = None
            if biased is not None:
                stack.enter_context(biased).go_on_after(run.path, max(0, step - course.equilibration_steps))
            if features is not None and featurizer is not None:
                from openmm_gnn.runs.features import RunFeatures

                periodic = forces.system.usesPeriodicBoundaryConditions()
                live = RunFeatures(features, featurizer, run.path, periodic, course)
                stack.enter_context(live).go_on_after(max(0, step - course.equilibration_steps))
            _advance(context, run, course, simulation_system.topology, step, progress, forces, live, biased)
        return RunResult(run, course.num_frames, progress.ns_per_day)


def run_identity(
    simulation_system: SimulationSystem,
    settings: RunCourse,
    model: ForceModel | None,
    forces_name: str,
    platform: str,
) -> dict[str, Any]:
    """What run.json says: all that decides the course of the run, and the versions it was made with."""
    versions = {"openmm_gnn": getattr(openmm_gnn, "__version__", ""), "openmm": openmm.__version__}
    forces: dict[str, Any] = {"kind": "own", "name": forces_name}
    if model is not None:
        import torch

        versions["torch"] = torch.__version__
        kind = "accelerated" if settings.accelerated else "network"
        forces = {"kind": kind, "name": forces_name, "hash": _model_hash(model)}
    return {
        "system": {
            "name": simulation_system.name,
            "hash": text_hash(openmm.XmlSerializer.serialize(simulation_system.system)),
            "num_atoms": len(simulation_system.positions),
        },
        "forces": forces,
        "platform": platform,
        "settings": settings.to_dict(),
        "versions": versions,
    }


def _run_bias(
    cv: Path | str,
    bias: BiasSettings | None,
    simulation_system: SimulationSystem,
    settings: RunCourse,
    backend: str,
    threads: int | None,
) -> RunBias:
    import torch

    from openmm_gnn.runs.bias.run_bias import RunBias
    from openmm_gnn.runs.settings import BiasSettings

    if threads is not None:
        torch.set_num_threads(threads)
    return RunBias(cv, bias or BiasSettings(), simulation_system, settings, backend)


def _model_hash(model: ForceModel) -> str:
    from openmm_gnn.base.specs.codec import spec_to_json

    digest = hashlib.sha256(spec_to_json(model.spec).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _start(context: openmm.Context, run: RunDirectory, settings: RunCourse, start: SimulationSystem) -> int:
    """Put the context where the run goes on, cut what lies past it, and return the step reached."""
    checkpoint = read_checkpoint(run.checkpoint)
    if checkpoint is None:
        run.rewind(0)
        context.setPositions(np.asarray(start.start(settings.seed)))
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        context.setVelocitiesToTemperature(settings.temperature, settings.seed)
        return 0
    production = checkpoint.step - settings.equilibration_steps
    if production > settings.steps:
        raise SpecError(f"{run.path} has reached step {production}: steps is {settings.steps}, give at least as many")
    try:
        context.loadCheckpoint(checkpoint.state)
    except openmm.OpenMMException as error:
        stored, present = run.identity()["versions"]["openmm"], openmm.__version__
        raise DataError(
            f"{run.checkpoint} cannot be loaded ({error}): the run was last started with OpenMM {stored}, "
            f"this is {present}; resume with the version that wrote it"
        ) from error
    run.rewind(max(0, production) // settings.report_interval)
    return checkpoint.step


def _advance(
    context: openmm.Context,
    run: RunDirectory,
    settings: RunCourse,
    topology: app.Topology,
    step: int,
    progress: RunProgress,
    forces: RunForces,
    features: RunFeatures | None,
    bias: RunBias | None,
) -> None:
    """From `step` (counted from the start of equilibration) to the end, chunk by chunk."""
    system = context.getSystem()
    periodic = system.usesPeriodicBoundaryConditions()
    freedom = degrees_of_freedom(system)
    guard = NanGuard(context, topology, run.path, forces.groups)
    total = settings.equilibration_steps + settings.steps
    progress.update(step)
    last_checkpoint = step
    with _RunWriter(run, settings, ElementTemperatures(system, topology), system.getNumParticles(), periodic) as writer:
        while step < total:
            phase_end = settings.equilibration_steps if step < settings.equilibration_steps else total
            intervals = [settings.report_interval]
            if features is not None and phase_end == total:
                intervals.append(features.interval)
            if bias is not None and phase_end == total:
                intervals.append(bias.settings.stride)
            done = step - settings.equilibration_steps if phase_end == total else step
            num_steps = min(phase_end - step, *(interval - done % interval for interval in intervals))
            state = guard.step(num_steps)
            if bias is not None:
                bias.force.check()
            step += num_steps
            kinetic = state.getKineticEnergy()._value
            temperature = kinetic_temperature(kinetic, freedom)
            production = step - settings.equilibration_steps
            if production > 0 and features is not None and production % features.interval == 0:
                features.write(production, production * settings.time_step_ps, state)
            if production > 0 and production % settings.report_interval == 0:
                writer.write(production, state, kinetic, temperature, forces.knows_energy)
            if production > 0 and bias is not None:
                bias.write(production, context)
            if step == phase_end or step - last_checkpoint >= settings.checkpoint_interval:
                writer.sync()
                if features is not None:
                    features.sync()
                if bias is not None:
                    bias.sync()
                write_checkpoint(run.checkpoint, Checkpoint(step, guard.snapshot))
                last_checkpoint = step
            progress.update(step, temperature)
    final = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    write_atomically(run.final_state, openmm.XmlSerializer.serialize(final).encode())


class _RunWriter:
    """Frames and log rows of a run, appended to what is there; a log keeps the columns it was begun with."""

    def __init__(
        self,
        run: RunDirectory,
        settings: RunCourse,
        element_temperatures: ElementTemperatures,
        num_atoms: int,
        periodic: bool,
    ) -> None:
        self._element_temperatures = element_temperatures
        self._periodic = periodic
        self._time_step_ps = settings.time_step_ps
        self._frames = DCDWriter(run.trajectory, num_atoms, periodic, settings.time_step_ps, settings.report_interval)
        new = not run.log.exists() or run.log.stat().st_size == 0
        columns = [*LOG_COLUMNS, *map(element_column, element_temperatures.elements)] if new else log_columns(run.log)
        self._logs_elements = len(columns) > len(LOG_COLUMNS)
        self._log = open(run.log, "a")  # noqa: SIM115 - closed by __exit__
        if new:
            self._log.write(",".join(columns) + "\n")

    def __enter__(self) -> _RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.close()
        self._log.close()

    def write(self, step: int, state: openmm.State, kinetic: float, temperature: float, energies: bool) -> None:
        box = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None
        self._frames.write(state.getPositions(asNumpy=True)._value, box)
        potential = f"{state.getPotentialEnergy()._value:.6f}" if energies else ""
        volume = f"{abs(np.linalg.det(box)):.6f}" if box is not None else ""
        time_ps = step * self._time_step_ps
        row = f"{step},{time_ps:.6f},{potential},{kinetic:.6f},{temperature:.4f},{volume}"
        if self._logs_elements:
            row += "".join(f",{value:.4f}" for value in self._element_temperatures.of_state(state))
        self._log.write(row + "\n")
        self._log.flush()

    def sync(self) -> None:
        self._frames.sync()
        self._log.flush()
        os.fsync(self._log.fileno())
