"""Where the frames of a validation come from: labelled data, or a short run of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.analysis.network_dynamics import ReferenceFrame, Teacher
from openmm_gnn.analysis.size_transfer import blown_up, prepared
from openmm_gnn.base.errors import DataError
from openmm_gnn.md.contexts import choose_platform, make_context
from openmm_gnn.md.force_parts import LabelledForces
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.simulation_system import Thermostat

if TYPE_CHECKING:
    from openmm_gnn.data.labels.trajectories import LabelledTrajectories
    from openmm_gnn.md.simulation_system import SimulationSystem

APART_PS = 0.2
"""Between two frames of the teacher's run."""


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
