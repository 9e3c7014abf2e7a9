"""Multiple time steps: a network between two evaluations of the forces that count.

You learn: `accelerate` returns a System and an integrator; the network moves the atoms in steps of 4 fs, the System's
own forces correct it every 12 fs, and the energy that is kept is the System's own, although a force network has none.
Argon's forces cost nothing, so nothing is gained here but insight: against AMOEBA, the same lines save hours.

Takes 20 seconds on 2 CPU cores; with --short 10. Run: python examples/04_accelerate.py
"""

from __future__ import annotations

import argparse

import numpy as np
import openmm
from openmm import unit

from openmm_gnn import accelerate, load_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="1 ps in place of 4")
    picoseconds = 1.0 if parser.parse_args().short else 4.0

    argon = load_system("argon")
    platform = openmm.Platform.getPlatformByName("CPU")
    warm_up = openmm.Context(argon.system, openmm.LangevinMiddleIntegrator(100, 5, 0.002), platform)
    warm_up.setPositions(argon.positions)
    warm_up.getIntegrator().step(2000)
    state = warm_up.getState(positions=True, velocities=True)

    accelerated = accelerate(
        argon.system,
        argon.topology,
        "gamd-argon",
        inner_steps=3,
        time_step=12 * unit.femtoseconds,
        temperature=None,  # constant energy, to see what is kept; for sampling give temperature and friction
        friction=None,
    )
    system, integrator = accelerated
    context = openmm.Context(system, integrator, platform)
    context.setPositions(state.getPositions())
    context.setVelocities(state.getVelocities())
    kinetic, total = [], []
    for _ in range(round(picoseconds / 0.012)):
        integrator.step(1)
        energies = context.getState(energy=True, groups=set(accelerated.own_groups))
        kinetic.append(energies.getKineticEnergy()._value)
        total.append((energies.getPotentialEnergy() + energies.getKineticEnergy())._value)

    print(
        f"{len(total)} evaluations of the System's own forces moved it by {picoseconds:g} ps; 2 fs steps need", end=" "
    )
    print(f"{round(picoseconds / 0.002)}")
    print(f"kinetic energy {np.mean(kinetic):.1f} kJ/mol, it fluctuates by {np.std(kinetic):.1f} kJ/mol")
    wobble = 100 * np.std(total) / np.std(kinetic)
    print(f"total energy fluctuates by {wobble:.2f} % of that (0 would be exact)")


if __name__ == "__main__":
    main()
