"""Runs a system in OpenMM, with its own forces or a network's, into a directory that survives kill -9."""

from __future__ import annotations

import hashlib
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app

import openmm_gnn
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import locked, read_checkpoint, write_atomically
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.forces.network_energies import check_networks
from openmm_gnn.md.contexts import choose_platform, degrees_of_freedom, make_context
from openmm_gnn.md.loop import Listener, advance, start_or_resume
from openmm_gnn.md.run_guard import RunGuard
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings, text_hash
from openmm_gnn.md.simulation_system import is_periodic_system, stable_xml
from openmm_gnn.md.state_checks import HOT_PS, run_checks
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_meta import FEATURES_FOLDER, is_store
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.forces import network_device, run_forces
from openmm_gnn.runs.network_watch import NetworkWatch, RunLabels, check_relearn
from openmm_gnn.runs.run_frames import RunFrames

if TYPE_CHECKING:
    from openmm_gnn.features.featurizer import Featurizer
    from openmm_gnn.md.systems.systems import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel
    from openmm_gnn.runs.settings import BiasSettings, FeatureSettings

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class RunResult:
    """What `simulate` did."""

    directory: RunDirectory
    num_frames: int
    ns_per_day: float
    """Speed of this call; 0 if the run was complete already."""
    acceptance: float | None = None
    """Fraction of the proposals that was taken since the start, of a hybrid Monte Carlo run."""
    network_error: float | None = None
    """Root mean square error of a force component of the network in an accelerated run, meV/A, over the frames of this
    call."""
    held_out_error: float | None = None
    """The same on frames held out of the network's training, where the network says it."""


def simulate(
    simulation_system: SimulationSystem,
    directory: Path | str,
    settings: RunSettings | RunCourse,
    model: ForceModel | None = None,
    forces_name: str = "",
    compute: ComputeSettings | None = None,
    progress: bool = False,
    features: FeatureSettings | None = None,
    bias_cv: Path | str | None = None,
    bias: BiasSettings | None = None,
    relearn: bool = False,
) -> RunResult:
    """Equilibrate and run; frames, log and checkpoints go to `directory` (see runs/directory.py).

    Args:
        simulation_system: System, topology and starting positions.
        directory: new, or that of the same run, which goes on from its last checkpoint.
        settings: what is asked of the run; a `RunCourse` is taken as it is.
        model: replaces the forces of the system by its own, but for the bonded ones where it was trained without
            them; with settings that accelerate, stands for the expensive forces between two of their evaluations.
            The system's own forces if None.
        forces_name: how run.json, figures and the progress bar call the forces.
        compute: platform, backend of the network's force and threads.
        progress: show a bar with speed and remaining time.
        features: store live features of the production in DIRECTORY/features; they do not alter the run.
        bias_cv: path of a learned CV to bias the production along, see run_bias.py.
        bias: how; as `BiasSettings` has it if None.
        relearn: store the frames of an accelerated run with the forces that its network stands for in
            DIRECTORY/labels, which `train` and `distill` read. They are known, and cost no evaluation.
    Raises:
        DataError: if files of the directory are damaged, or it holds features of another encoder or, unless they are to
            be replaced, of another run.
        SpecError: if a resumed run has other settings than the stored one, the model does not fit the system, or a
            barostat asks for an energy or a pressure that a network does not have.
        TopologyError: if the CV of the bias was learned for another topology.
        NonFiniteError: if an atom's position, velocity or force becomes NaN or infinite, a bond breaks, or the
                temperature goes far above the thermostat's.
    """
    featurizer = None
    if features is not None:
        from openmm_gnn.features.featurizer import Featurizer

        named, selection, context = features.encoder, features.selection, features.context
        featurizer = Featurizer(named, simulation_system.topology, selection, context=context, window=features.window)
    course = settings if isinstance(settings, RunCourse) else settings.course(simulation_system)
    if course.pressure is not None:
        simulation_system = simulation_system.at_pressure(course.pressure, course.temperature, course.seed)
    if relearn:
        check_relearn(course)
    compute = compute or ComputeSettings()
    run = RunDirectory(directory)
    with locked(run.path):
        run.check_files(course)
        if features is not None and not features.replace:
            check_stored_features(run, course)
        platform = choose_platform(compute.platform)
        identity = run_identity(simulation_system, course, model, forces_name, platform)
        biased = None
        if bias_cv is not None:
            import torch

            from openmm_gnn.runs.bias.run_bias import RunBias
            from openmm_gnn.runs.settings import BiasSettings

            if compute.threads is not None:
                torch.set_num_threads(compute.threads)
            biased = RunBias(bias_cv, bias or BiasSettings(), simulation_system, course, compute.backend)
            identity["bias"] = biased.identity()
        if run.exists:
            run.check_same_course(identity)
        forces = run_forces(simulation_system, course, model, compute.backend, network_device(platform))
        check_networks(forces.system, isinstance(settings, RunSettings) and settings.network_pressure)
        if biased is not None:
            forces = biased.added_to(forces, course)
        context = make_context(forces.system, course, platform, compute.threads, model is not None, forces.integrator)
        stored = run.identity()["versions"]["openmm"] if run.exists else ""
        remedy = f"resume with OpenMM {stored}, with which the run was last started; this is {openmm.__version__}"
        start = partial(simulation_system.start, course.seed)
        step = start_or_resume(context, run.checkpoint, start, course, remedy)
        run.write_identity(identity)
        watch = None
        if forces.accelerated is not None and model is not None:
            from openmm_gnn.forces.multiple_time_step import measured_costs, question_costs

            watch = NetworkWatch(forces.accelerated, context, simulation_system.topology, model)
            if step == 0:
                question_costs(measured_costs(context, forces.accelerated.levels), course.inner_steps)
        with open(run.topology, "w") as file:
            app.PDBFile.writeFile(simulation_system.topology, simulation_system.positions, file, keepIds=True)
        suspect = (lambda: "") if biased is None else biased.suspect
        broken = isinstance(settings, RunSettings) and settings.allow_broken_bonds
        checks = run_checks(context, simulation_system.topology, course, broken)
        guard = RunGuard(context, simulation_system.topology, run.path, forces.groups, forces.check, suspect, checks)
        listeners: list[Listener] = [RunFrames(run, course, context, simulation_system.topology, forces, watch)]
        if relearn and watch is not None:
            listeners.append(RunLabels(run.path, simulation_system, course, platform, watch))
        if features is not None and featurizer is not None:
            periodic = is_periodic_system(forces.system)
            listeners.append(RunFeatures(features, featurizer, run.path, periodic, course))
        if biased is not None:
            frames = tuple(interval for listener in listeners for interval in listener.intervals)
            biased.follow(context, run.path, frames)
            listeners.append(biased)
        bar = _SpeedBar(course, progress, forces_name or simulation_system.name, step)
        with bar:
            freedom = degrees_of_freedom(context.getSystem())

            def report(step: int) -> None:
                kinetic = guard.state.getKineticEnergy()._value
                bar.show(step, kinetic_temperature(kinetic, freedom) if course.physical_velocities else None)

            advance(
                guard,
                step,
                course,
                listeners,
                run.checkpoint,
                checkpoint_due=lambda steps, seconds: steps >= course.checkpoint_interval,
                report=report,
            )
        final = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
        write_atomically(run.final_state, openmm.XmlSerializer.serialize(final).encode())
        acceptance = getattr(forces.integrator, "acceptance", None)
        found, usual = (None, None) if watch is None else (watch.error, watch.expected)
        return RunResult(run, course.num_frames, bar.ns_per_day, acceptance, found, usual)


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
    start = {"start": simulation_system.started_from} if simulation_system.started_from else {}
    return {
        "system": {
            "name": simulation_system.name,
            "hash": text_hash(stable_xml(simulation_system.system)),
            "num_atoms": len(simulation_system.positions),
            **start,
        },
        "forces": forces,
        "platform": platform,
        "settings": settings.to_dict(),
        "versions": versions,
    }


def _model_hash(model: ForceModel) -> str:
    from openmm_gnn.base.specs.codec import spec_to_json

    digest = hashlib.sha256(spec_to_json(model.spec).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _SpeedBar(ProgressBar):
    """The progress bar of a run: how far, how fast in ns/day, how hot; speed is measured from its start."""

    def __init__(self, course: RunCourse, shown: bool, name: str, step: int) -> None:
        self._course, self._name, self._first, self._start = course, name, step, time.perf_counter()
        super().__init__(course.total_steps, shown, step, name)
        self._warned = False
        self.ns_per_day = 0.0

    def show(self, step: int, temperature: float | None) -> None:
        """`step` counts from the start of equilibration; temperature in K, None where it means nothing."""
        simulated_ns = (step - self._first) * self._course.time_step_ps / 1000
        self.ns_per_day = simulated_ns / max(time.perf_counter() - self._start, 1e-9) * SECONDS_PER_DAY
        target, equilibrating = self._course.temperature, step < self._course.equilibration_steps
        done_ps = max(0, step - self._course.equilibration_steps) * self._course.time_step_ps
        title = f"{self._name} (equilibration)" if equilibrating else self._name
        words = f"{done_ps:.1f} ps · {self.ns_per_day:.1f} ns/day"
        self.update(step, title, words if temperature is None else f"{words} · {temperature:.0f} K")
        if temperature is None:
            return
        if not self._warned and step * self._course.time_step_ps <= HOT_PS and temperature > 2 * target:
            self._warned = True
            warnings.warn(
                f"{temperature:.0f} K after {step * self._course.time_step_ps:.3g} ps, {target:g} K are asked for: the "
                "start has atoms too close (--minimize), or the time step is too long (--time-step)",
                stacklevel=2,
            )


def check_stored_features(run: RunDirectory, course: RunCourse) -> None:
    """Refuse features that a run would drop though it does not make them again.

    Raises:
        DataError: if a new run's directory holds frames of features, or those of a run that goes on lie past its
            checkpoint by more than the steps between two.
    """
    if not is_store(run.path / FEATURES_FOLDER):
        return
    store, kept, again = EmbeddingStore.open(run.path / FEATURES_FOLDER), -1, 0
    if run.exists:
        checkpoint = read_checkpoint(run.checkpoint)
        kept = 0 if checkpoint is None else max(0, checkpoint.step - course.equilibration_steps)
        again = max(run.settings().checkpoint_interval, course.checkpoint_interval)
    past = len(store) - store.num_frames_until(kept)
    if past and store.steps[-1] > kept + again:
        at = f"goes on from step {kept}" if run.exists else "is new and begins at step 0"
        raise DataError(
            f"{store.path} has frames up to step {store.steps[-1]}, and the run {at}: give another directory, or drop "
            f"the {past} frames past that step with --replace (FeatureSettings.replace)"
        )


class RunFeatures:
    """The features of a run on their way into its directory; a `Listener` of the run."""

    def __init__(
        self, settings: FeatureSettings, featurizer: Featurizer, run: Path, periodic: bool, course: RunCourse
    ) -> None:
        """
        Raises:
            DataError: if RUN/features holds features of another encoder or selection.
        """
        from openmm_gnn.reporters.embedding_stream import EmbeddingStream

        interval = settings.stride or course.report_interval
        self.intervals = (interval,)
        self._periodic, self._time_step_ps = periodic, course.time_step_ps
        self._stream = EmbeddingStream(run / FEATURES_FOLDER, featurizer, append=True, dtype=settings.dtype)
        self._stream.store.describe_system(
            {
                "num_particles": featurizer.num_particles,
                "report_interval": interval,
                "time_step_ps": course.time_step_ps,
                "openmm": openmm.__version__,
            }
        )

    def resume(self, step: int) -> None:
        """Drop frames past this step of the production."""
        self._stream.go_on_after(step or -1)  # no frame of ours is of step 0

    def take(self, step: int, state: openmm.State) -> None:
        """Take a frame; its step and time count from the start of production, as the log does."""
        box = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None
        self._stream.submit(step, step * self._time_step_ps, state.getPositions(asNumpy=True)._value, box)

    def sync(self) -> None:
        """Wait until all that was taken is on the disk."""
        self._stream.flush(durable=True)

    def close(self) -> None:
        """Store what waits, and close the store."""
        self._stream.close()
