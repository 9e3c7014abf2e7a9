"""258 argon atoms in OpenMM, moved by a network instead of the Lennard-Jones force it learned.

You learn: how to load a network, add it to a System as a Force, run it, and ask the force it replaces for the truth.

Takes 20 seconds on 2 CPU cores. Run: python examples/02_argon_under_a_network.py
"""

from __future__ import annotations

import argparse

import numpy as np
import openmm
from openmm import unit

from openmm_gnn import choose_platform, gamd_force, load_model, load_system

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--short", action="store_true", help="fewer steps")
num_steps = 2_000 if not parser.parse_args().short else 50

fluid = load_system("argon")  # a System, its topology and where its atoms start
model = load_model("gamd-argon")
print(f"{model.spec.decoder.value} decoder, cutoff {model.spec.neighbors.cutoff} nm")

# The same particles and box, with one force: the network's.
system = openmm.System()
system.setDefaultPeriodicBoxVectors(*fluid.system.getDefaultPeriodicBoxVectors())
for mass in fluid.masses:
    system.addParticle(mass)
system.addForce(gamd_force(model, fluid.topology, periodic=True))

integrator = openmm.LangevinMiddleIntegrator(100 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
platform = openmm.Platform.getPlatformByName(choose_platform("auto"))  # CUDA where it works, else CPU
context = openmm.Context(system, integrator, platform)
context.setPositions(fluid.positions)
context.setVelocitiesToTemperature(100 * unit.kelvin, 1)
integrator.step(num_steps)

state = context.getState(getPositions=True, getForces=True)
predicted = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)

# The Lennard-Jones force at the same positions.
reference = openmm.Context(fluid.system, openmm.VerletIntegrator(0.001))
reference.setPositions(state.getPositions())
true = reference.getState(getForces=True).getForces(asNumpy=True)
true = true.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)

error = np.abs(predicted - true).mean() / np.linalg.norm(true, axis=1).mean()
print(f"after {num_steps * 0.002:.1f} ps on {context.getPlatform().getName()}:")
print(f"relative error of the forces: {100 * error:.3f} % (below 0.5 %; published for the original GAMD: 0.61 %)")
