"""Drift of the energy under an umbrella on a learned CV, without a thermostat, beside the run without an umbrella.

    python benchmarks/studies/umbrella_drift.py [--system alanine-dipeptide] [--cv alanine-dipeptide] [--output 0]
                                                [--ps 5] [--seeds 4]
    python benchmarks/studies/umbrella_drift.py --thermostat --ps 1000

A continuous CV changes a leapfrog's energy no more than the molecule's own forces do; one that jumps heats it with
every jump. Each seed begins from an equilibrated frame; the umbrella's centre is the CV's value there plus its
fluctuation, so that it pulls from the start. Total energies are fitted by a line; drifts are in kJ/mol/ps.

With --thermostat the runs are those of `simulate`: Langevin dynamics in the system's own time step, with its
constraints. What an umbrella heats them by is the mean temperature less the thermostat's.
"""

from __future__ import annotations

import argparse
import copy

import numpy as np
import openmm
from rich.console import Console
from rich.table import Table

from openmm_gnn import load_learned_cv, load_system
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.forces.cv_force import BiasForce
from openmm_gnn.md.contexts import degrees_of_freedom

STRENGTHS = (35.0, 140.0)
"""kJ/mol per unit squared of the CV."""
TIME_STEPS_PS = (0.0005, 0.001)
SAMPLES = 200
SAMPLE_STEPS = 25
"""Steps between two kinetic energies of a thermostatted run."""
EQUILIBRATION_STEPS = 5000


class Umbrella:
    """k (s - centre)^2 / 2."""

    def __init__(self, strength: float, centre: float) -> None:
        self.strength, self.centre = strength, centre

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (1,) its derivative."""
        away = values - self.centre
        return float(0.5 * self.strength * np.square(away).sum()), self.strength * away


def context_of(system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
    """In double precision, with constraints that cost no energy."""
    integrator.setConstraintTolerance(1e-10)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def drift(energies: np.ndarray, ps: float) -> float:
    """Slope of a line through total energies at equal intervals over so many ps."""
    return float(np.polyfit(np.linspace(0, ps, len(energies)), energies, 1)[0])


def mean_temperature(
    system: openmm.System, start: np.ndarray, step_ps: float, ps: float, seed: int
) -> tuple[float, float]:
    """Mean kinetic temperature of a Langevin run at 300 K, K, and its standard error from 20 blocks."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, step_ps)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(start)
    context.setVelocitiesToTemperature(300, seed)
    integrator.step(EQUILIBRATION_STEPS)
    kinetic = []
    for _ in range(round(ps / step_ps / SAMPLE_STEPS)):
        integrator.step(SAMPLE_STEPS)
        kinetic.append(context.getState(energy=True).getKineticEnergy()._value)
    blocks = [float(block.mean()) for block in np.array_split(kinetic, 20)]
    to_kelvin = kinetic_temperature(1.0, degrees_of_freedom(system))
    return to_kelvin * np.mean(blocks), to_kelvin * np.std(blocks, ddof=1) / np.sqrt(len(blocks))


def thermostatted(options: argparse.Namespace) -> None:
    """Print the mean temperatures of all umbrellas and seeds."""
    cv, made = load_learned_cv(options.cv), load_system(options.system)
    for seed in range(1, options.seeds + 1):
        for strength in (0.0, *STRENGTHS):
            umbrella, biased = Umbrella(strength, cv.ranges.mean[options.output]), copy.deepcopy(made.system)
            force = BiasForce(cv, made.topology, umbrella, (options.output,))
            force.add_to(biased)
            mean, error = mean_temperature(biased, made.start(seed), made.time_step_ps, options.ps, seed)
            step = f"{1000 * made.time_step_ps:g} fs, {options.ps:g} ps"
            force.check()
            print(f"umbrella {strength:g} kJ/mol, {step}, seed {seed}: {mean:.2f} +- {error:.2f} K", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--system", default="alanine-dipeptide")
    parser.add_argument("--cv", default="alanine-dipeptide")
    parser.add_argument("--output", type=int, default=0)
    parser.add_argument("--ps", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--thermostat", action="store_true")
    options = parser.parse_args()
    if options.thermostat:
        thermostatted(options)
        return
    cv = load_learned_cv(options.cv)
    made = load_system(options.system)
    system, topology, start = made.system, made.topology, made.start(1)
    table = Table(title=f"{options.system}, drift of the total energy, kJ/mol/ps")
    for heading in ("time step, fs", "umbrella", *(f"seed {seed}" for seed in range(1, options.seeds + 1)), "largest"):
        table.add_column(heading, justify="right")
    for time_step in TIME_STEPS_PS:
        for strength in (0.0, *STRENGTHS):
            found = []
            for seed in range(1, options.seeds + 1):
                umbrella = Umbrella(strength, 0.0)
                biased = copy.deepcopy(system)
                force = BiasForce(cv, topology, umbrella, (options.output,))
                force.add_to(biased)
                warm = openmm.LangevinMiddleIntegrator(300, 5.0, 0.001)
                warm.setRandomNumberSeed(seed)
                first = context_of(system, warm)
                first.setPositions(start)
                first.setVelocitiesToTemperature(300, seed)
                warm.step(EQUILIBRATION_STEPS)
                state = first.getState(positions=True, velocities=True)
                integrator = openmm.VerletIntegrator(time_step)
                context = context_of(biased, integrator)
                context.setPositions(state.getPositions())
                context.setVelocities(state.getVelocities())
                fluctuation = cv.ranges.fluctuation[options.output]
                umbrella.centre = float(force.values(context).values[0]) + fluctuation
                force.changed(context)
                steps, energies = round(options.ps / time_step), []
                for _ in range(SAMPLES):
                    integrator.step(steps // SAMPLES)
                    now = context.getState(energy=True)
                    energies.append(now.getPotentialEnergy()._value + now.getKineticEnergy()._value)
                force.check()
                found.append(drift(np.array(energies), options.ps))
            cells = (f"{value:.3f}" for value in found)
            table.add_row(f"{1000 * time_step:g}", f"{strength:g}", *cells, f"{max(map(abs, found)):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
