"""Runs under a network's forces: drift of the energy, temperature of each element, and stability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openmm

from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.statistics import Estimate, block_means, mean_with_error
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.md.contexts import choose_platform, degrees_of_freedom, make_context
from openmm_gnn.md.element_temperatures import ElementTemperatures
from openmm_gnn.md.run_guard import RunGuard
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, split_groups
from openmm_gnn.md.state_checks import run_checks

if TYPE_CHECKING:
    from openmm import app

Report = Callable[[float], None]
"""Called with the part that is done, 0 to 1."""
HOTTEST = 5.0
"""Temperature, relative to the wanted one, above which a run has blown up, even if every number is finite."""
EQUILIBRATION_PART = 0.2
"""Share of a run with a thermostat that is left out of mean temperatures."""


@dataclass(frozen=True)
class EnergyTrace:
    """A run at constant energy. None marks what is not known."""

    times_ps: np.ndarray
    kinetic: np.ndarray
    """(times,) kJ/mol, as all energies here."""
    work: np.ndarray
    """Work of the forces along the path, by the trapezoidal rule: kinetic - work is the error of the integrator."""
    potential: np.ndarray | None
    """The energy that should be conserved together with the kinetic one: the network's own, or the teacher's."""
    freedom: int
    """Degrees of freedom."""

    def drift(self) -> Estimate:
        """Drift of kinetic plus potential energy, K/ns, see `drift_rate`; of the kinetic one if no other is known."""
        return drift_rate(self.times_ps, self.kinetic + (0 if self.potential is None else self.potential), self.freedom)

    def integrator_drift(self) -> Estimate:
        """Drift of kinetic energy less work, K/ns, which a shorter time step would remove."""
        return drift_rate(self.times_ps, self.kinetic - self.work, self.freedom)


def drift_rate(times_ps: np.ndarray, energies: np.ndarray, freedom: int, num_blocks: int = 10) -> Estimate:
    """Slope of an energy, as the rise of 2 E / (f k_B) in K per ns: the heating, if all of it were kinetic energy.

    A straight line is fitted to block means; its error is from their scatter about it.

    Args:
        energies: kJ/mol, one per time.
        freedom: degrees of freedom f.
    """
    from scipy.stats import linregress

    times, means = block_means(times_ps, num_blocks), block_means(energies, num_blocks)
    line, to_kelvin_per_ns = linregress(times, means), kinetic_temperature(1000.0, freedom)
    return Estimate(float(line.slope * to_kelvin_per_ns), float(line.stderr * to_kelvin_per_ns))


def constant_energy_run(
    system: openmm.System,
    positions: np.ndarray,
    settings: RunCourse,
    energy: Callable[[np.ndarray], float] | None = None,
    own_energy: bool = False,
    num_samples: int = 100,
    platform: str = "auto",
    report: Report = lambda _: None,
) -> EnergyTrace:
    """Run velocity Verlet without thermostat, with bonded forces in substeps if the settings say so.

    Args:
        settings: steps, time step, temperature of the first velocities, seed.
        energy: potential energy (kJ/mol) of positions, computed at each sample.
        own_energy: the potential energy is that of `system`'s forces.
        num_samples: number of samples of the energies; the work is summed at every step.
    Raises:
        NonFiniteError: if the run blows up.
        DataError: if it is shorter than ten samples.
    """
    if settings.steps < 10:
        raise DataError(f"{settings.steps} steps are too few to see a drift: run at least 10")
    context = _constant_energy_context(system, settings, platform)
    context.setPositions(positions)
    context.applyConstraints(1e-7)
    context.computeVirtualSites()
    context.setVelocitiesToTemperature(settings.temperature, settings.seed)
    interval, freedom = max(1, settings.steps // num_samples), degrees_of_freedom(system)
    times, kinetic, works, potential = [], [], [], []
    work, before = 0.0, context.getState(positions=True, forces=True)
    for step in range(1, settings.steps + 1):
        try:
            context.getIntegrator().step(1)
            state = context.getState(positions=True, forces=True, energy=True)
        except openmm.OpenMMException as error:
            raise _blown_up(step, settings, str(error)) from error
        mean_force = 0.5 * (_array(state.getForces(asNumpy=True)) + _array(before.getForces(asNumpy=True)))
        moved = _array(state.getPositions(asNumpy=True)) - _array(before.getPositions(asNumpy=True))
        work += float((mean_force * moved).sum())
        before = state
        if step % interval == 0:
            kinetic.append(state.getKineticEnergy()._value)
            temperature = kinetic_temperature(kinetic[-1], freedom)
            if not temperature < HOTTEST * settings.temperature:
                raise _blown_up(step, settings, f"heated to {temperature:.0f} K")
            times.append(step * settings.time_step_ps)
            works.append(work)
            if energy is not None:
                potential.append(energy(_array(state.getPositions(asNumpy=True))))
            elif own_energy:
                potential.append(state.getPotentialEnergy()._value)
            report(step / settings.steps)
    return EnergyTrace(
        np.array(times), np.array(kinetic), np.array(works), np.array(potential) if potential else None, freedom
    )


@dataclass(frozen=True)
class StabilityRun:
    """A run with a thermostat, to its end or until it blew up."""

    wanted_ps: float
    reached_ps: float
    failure: str
    """Reason and place of a blow-up; empty if there was none."""
    times_ps: np.ndarray
    elements: tuple[str, ...]
    element_temperatures: np.ndarray
    """(samples, elements) K."""
    frames: list[np.ndarray]
    """(num_particles, 3) positions, nm, evenly spaced in time."""

    def temperatures(self) -> dict[str, Estimate]:
        """Temperatures by element, K, without the first part of the run; empty if it was too short for blocks."""
        series = self.element_temperatures[round(EQUILIBRATION_PART * len(self.times_ps)) :]
        if len(series) < 10:
            return {}
        return {name: mean_with_error(column) for name, column in zip(self.elements, series.T, strict=True)}


def stability_run(
    system: openmm.System,
    topology: app.Topology,
    positions: np.ndarray,
    settings: RunCourse,
    directory: Path,
    num_frames: int = 20,
    platform: str = "auto",
    report: Report = lambda _: None,
) -> StabilityRun:
    """Run with the settings' thermostat; a blow-up ends the run and is described, not raised.

    Args:
        directory: folder of the last good frame, which is written if the run blows up.
    """
    context = make_context(system, settings, choose_platform(platform), None, with_torch=True)
    context.setPositions(positions)
    context.applyConstraints(1e-6)
    context.computeVirtualSites()
    context.setVelocitiesToTemperature(settings.temperature, settings.seed)
    measure = ElementTemperatures(system, topology)
    guard = RunGuard(context, topology, directory, checks=run_checks(context, topology, settings))
    times, temperatures, frames, failure = [], [], [], ""
    for sample in range(1, settings.num_frames + 1):
        try:
            guard.step(settings.report_interval)
        except (NonFiniteError, openmm.OpenMMException) as error:
            failure = str(error).splitlines()[0]
            break
        times.append(sample * settings.frame_interval_ps)
        temperatures.append(measure.of_state(guard.state))
        if sample % max(1, settings.num_frames // num_frames) == 0:
            frames.append(_array(guard.state.getPositions(asNumpy=True)))
        hottest = int(np.nanargmax(temperatures[-1]))
        if temperatures[-1][hottest] > HOTTEST * settings.temperature:
            failure = f"{measure.elements[hottest]} heated to {temperatures.pop()[hottest]:.0f} K at {times.pop():g} ps"
            break
        report(sample / settings.num_frames)
    return StabilityRun(
        wanted_ps=settings.num_frames * settings.frame_interval_ps,
        reached_ps=len(times) * settings.frame_interval_ps,
        failure=failure,
        times_ps=np.array(times),
        elements=measure.elements,
        element_temperatures=np.array(temperatures).reshape(len(times), len(measure.elements)),
        frames=frames,
    )


def _constant_energy_context(system: openmm.System, settings: RunCourse, platform: str) -> openmm.Context:
    chosen = openmm.Platform.getPlatformByName(choose_platform(platform))
    if settings.bonded_substeps == 1:
        return openmm.Context(system, openmm.VerletIntegrator(settings.time_step_ps), chosen)
    import copy

    from openmm import unit

    grouped = copy.deepcopy(system)
    split_groups(grouped)
    levels = [(NONBONDED_GROUP, 1), (BONDED_GROUP, settings.bonded_substeps)]
    return openmm.Context(grouped, openmm.MTSIntegrator(settings.time_step_ps * unit.picoseconds, levels), chosen)


def _blown_up(step: int, settings: RunCourse, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"the run at constant energy blew up after {step * settings.time_step_ps:g} ps, {step} steps of "
        f"{settings.time_step_ps:g} ps ({what.splitlines()[0]}): a shorter time step, or a model trained on such "
        "frames, helps"
    )


def _array(quantity: object) -> np.ndarray:
    return np.array(quantity._value)  # type: ignore[attr-defined]
