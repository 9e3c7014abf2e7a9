"""Energy drift of accelerated AMOEBA water at constant energy, against outer step and hydrogen mass.

Without a thermostat the System's own energy shows what a step size does: resonances of the outer step with bonds heat.

    python benchmarks/step_sizes.py [--quick]
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import openmm
from harness import save_results
from rich.console import Console
from rich.progress import track
from rich.table import Table

from openmm_gnn import accelerate, load_model
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.simulation_system import SimulationSystem, split_groups
from openmm_gnn.md.systems.systems import load_system

SYSTEM, MODEL = "amoeba-water", "gamd-amoeba-water"
LIGHT = [(4.0, 2), (6.0, 3), (7.0, 3), (8.0, 4), (10.0, 5), (12.0, 6)]
HEAVY = [(8.0, 3), (10.0, 3), (12.0, 4), (14.0, 5)]
"""Outer step in fs, and network steps in it; hydrogens of 1 and of `HYDROGEN_MASS` dalton."""
HYDROGEN_MASS = 4.0
BONDED_STEP_FS = 0.5


def relaxed(start: SimulationSystem, length_ps: float) -> np.ndarray:
    """(num_atoms, 3) positions in nm after this much dynamics of the system's own."""
    settings = RunSettings(steps=1, stride=1).course(start)
    split_groups(start.system)
    context = openmm.Context(
        start.system, make_integrator(settings), openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
    )
    context.setPositions(start.start(1))
    context.setVelocitiesToTemperature(settings.temperature, 1)
    context.getIntegrator().step(round(length_ps / settings.time_step_ps))
    return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


def drift(
    start: SimulationSystem, positions: np.ndarray, step_fs: float, inner: int, mass: float | None, ps: float
) -> float:
    """Slope of the total energy in K per ps and degree of freedom."""
    system, integrator = accelerate(
        start.system,
        start.topology,
        load_model(MODEL),
        inner_steps=inner,
        time_step=step_fs / 1000,
        bonded_substeps=math.ceil(step_fs / inner / BONDED_STEP_FS - 1e-9),
        temperature=None,
        friction=None,
        hydrogen_mass=mass,
    )
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(positions)
    context.setVelocitiesToTemperature(start.temperature, 7)
    times, energies = [], []
    for _ in range(max(8, round(1000 * ps / step_fs / 4))):
        integrator.step(4)
        state = context.getState(energy=True)
        times.append(state.getTime()._value)
        energies.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
    return float(np.polyfit(times, energies, 1)[0]) / (3 * len(positions)) / BOLTZMANN_KJ_MOL_K


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    console, start = Console(), load_system(SYSTEM)
    positions = relaxed(start, 0.1 if quick else 1.0)
    cases = [(step, inner, None) for step, inner in LIGHT] + [(step, inner, HYDROGEN_MASS) for step, inner in HEAVY]
    rows = []
    for step, inner, mass in track(cases[:2] if quick else cases, "step sizes", console=console):
        slope = drift(start, positions, step, inner, mass, 0.4)
        rows.append({"outer_fs": step, "inner_steps": inner, "hydrogen_mass": mass, "drift": slope})
    table = Table(title=f"{SYSTEM} with {MODEL}, constant energy, 0.4 ps")
    for heading in ("outer step, fs", "network steps", "hydrogens, Da", "K per ps and degree of freedom"):
        table.add_column(heading, justify="right")
    for row in rows:
        mass = row["hydrogen_mass"] or 1.0
        table.add_row(f"{row['outer_fs']:g}", str(row["inner_steps"]), f"{mass:g}", f"{row['drift']:.2f}")
    console.print(table)
    save_results("step_sizes", {"model": MODEL, "rows": rows}, quick)


if __name__ == "__main__":
    main()
