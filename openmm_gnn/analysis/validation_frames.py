"""Where the frames of a validation come from: labelled data, or a short run of the teacher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from openmm_gnn.analysis.force_checks import ReferenceFrame, Teacher, check_teacher, learned_forces
from openmm_gnn.analysis.size_transfer import blown_up, prepared
from openmm_gnn.analysis.verdicts import ValidationSettings
from openmm_gnn.base.errors import DataError
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.learning.settings import seeds_in
from openmm_gnn.learning.training.data_sets import forces_of
from openmm_gnn.md.contexts import choose_platform, make_context
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem, Thermostat
from openmm_gnn.md.systems.systems import NAMED_SYSTEMS, load_system
from openmm_gnn.networks.force_model import ForceModel

SHIPPED_PREFIX = "gamd-"
"""Beginning of shipped names: gamd-argon is validated on argon."""
APART_PS = 0.2
"""Time between two frames of the teacher's run."""


def frames_of_teacher(
    system: SimulationSystem,
    part: LabelledForces,
    count: int,
    equilibration_ps: float,
    seed: int = 1,
    platform: str = "auto",
    report: Callable[[float], None] = lambda _: None,
) -> list[ReferenceFrame]:
    """Frames of a run with the system's own forces and thermostat.

    Args:
        equilibration_ps: before the first frame; the system's own if that is shorter.
    Raises:
        NonFiniteError: if the run blows up.
    """
    import openmm

    first = max(1, round(min(equilibration_ps, system.equilibration_ps) / system.time_step_ps))
    apart = max(1, round(APART_PS / system.time_step_ps))
    settings = RunSettings(steps=first + count * apart, stride=1, seed=seed).course(system)
    context = make_context(system.system, settings, choose_platform(platform), None, with_torch=False)
    context.setPositions(prepared(system, min(0.5, equilibration_ps), platform, seed))
    context.computeVirtualSites()
    context.setVelocitiesToTemperature(system.temperature, seed)
    teacher, done = Teacher(system, part, platform), 0
    frames: list[ReferenceFrame] = []
    while len(frames) < count:
        wanted = first + len(frames) * apart
        steps = min(100, wanted - done)
        try:
            context.getIntegrator().step(steps)
        except openmm.OpenMMException as error:
            raise blown_up(system, context, str(error)) from error
        done += steps
        report(done / (first + (count - 1) * apart))
        if done == wanted:
            state = context.getState(positions=True)
            positions = np.array(state.getPositions(asNumpy=True)._value)
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) if system.periodic else None
            frames.append(ReferenceFrame(positions, box, teacher.forces(positions, box)))
    return frames


def system_of(data: LabelledTrajectories) -> SimulationSystem:
    """The labelled System, run as it was when it was labelled, at the lowest temperature of the data.

    Raises:
        DataError: if there are no frames.
    """
    settings = data.meta["settings"]
    temperatures = sorted({trajectory.temperature for trajectory in data.trajectories})
    if not temperatures:
        raise DataError(f"{data.path} holds no frames yet: run `openmm-gnn label` on")
    return replace(
        data.system,
        name=str(data.meta["system"].get("name", data.path.name)),
        temperature=temperatures[0],
        time_step_ps=settings["time_step_ps"],
        thermostat=Thermostat(settings["thermostat"]),
        friction_per_ps=settings["friction_per_ps"],
        bonded_substeps=settings.get("bonded_substeps", 1),
    )


def frames_of_data(data: LabelledTrajectories, seeds: Sequence[int], count: int) -> list[ReferenceFrame]:
    """Labelled frames of these seeds at the lowest temperature, evenly spread.

    Raises:
        DataError: if a seed has no frames.
    """
    temperature = min(trajectory.temperature for trajectory in data.trajectories)
    frames = [(trajectory, k) for trajectory in data.select(seeds, temperature) for k in range(len(trajectory))]
    chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    periodic = data.system.periodic
    return [
        ReferenceFrame(
            np.array(trajectory.positions[index]),
            np.array(trajectory.box_vectors[index]) if periodic else None,
            np.array(trajectory.forces[index], dtype=np.float64),
        )
        for trajectory, index in chosen
    ]


class Source(NamedTuple):
    """The teacher of a network, and frames labelled by it."""

    system: SimulationSystem
    frames: list[ReferenceFrame]
    part: LabelledForces
    """Which of the teacher's forces the network has learned."""
    named: str | None
    """Name in `NAMED_SYSTEMS`, for boxes of other sizes."""


def source_of(
    path: Path,
    network: ForceModel,
    settings: ValidationSettings,
    data: str | os.PathLike[str] | None,
    system: str | None,
    topology: str | os.PathLike[str] | None,
    report: Callable[[str, float], None],
) -> Source:
    """Teacher and frames of a validation: those of the data, or a short run of a system.

    Args:
        path: name or file of the network.
    Raises:
        DataError: if neither data nor a system is known, or the data is not of the network's forces.
        TopologyError: if the teacher has elements that the network does not know.
    """
    part = learned_forces(network)
    if data is not None:
        labelled = LabelledTrajectories.open(Path(data))
        if forces_of(labelled) is not part and network.spec.metadata.get("data"):
            raise DataError(
                f"{path} has learned {part.value} forces, {data} is labelled with {forces_of(labelled).value}: "
                f"give data labelled with --forces {part.value}"
            )
        teacher = system_of(labelled)
        check_teacher(teacher, network)
        seeds = settings.seeds or seeds_not_trained_on(network, labelled)
        named = next((name for name in (system, teacher.name) if name in NAMED_SYSTEMS), None)
        return Source(teacher, frames_of_data(labelled, seeds, settings.frames), forces_of(labelled), named)
    own = path.stem.removeprefix(SHIPPED_PREFIX)
    system = own if system is None and own in NAMED_SYSTEMS else system
    if system is None:
        raise DataError(f"the system that {path} was made for is not known: give --system (such as tip3p), or --data")
    teacher = load_system(system, None if topology is None else Path(topology))
    check_teacher(teacher, network)
    frames = frames_of_teacher(
        teacher,
        part,
        settings.frames,
        settings.equilibration_ps,
        settings.seed,
        settings.platform,
        lambda done: report("teacher", done),
    )
    return Source(teacher, frames, part, system if system in NAMED_SYSTEMS else None)


def seeds_not_trained_on(network: ForceModel, data: LabelledTrajectories) -> list[int]:
    """Seeds of the data that the bundle's metadata does not name as trained on; all of them if it names them all."""
    named = [network.spec.metadata.get(name) for name in ("train_seeds", "validation_seeds")]
    used = {seed for ranges in named if ranges is not None for seed in seeds_in(ranges)}
    return [seed for seed in data.seeds if seed not in used] or data.seeds
