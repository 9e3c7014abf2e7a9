"""Many independent particles in wells whose distributions are known, as a System for integrators of several levels."""

from __future__ import annotations

import numpy as np
import openmm

from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.multiple_time_steps import LevelledIntegrator, TimeLevels

COUNT, TEMPERATURE = 500, 300.0
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE
STIFF, SOFT = 2 * np.pi / 0.0112, 30.0
"""1/ps; the stiff one is the bond of a hydrogen, with a period of 11.2 fs, for particles of 1 dalton."""
BONDED, NEGATED, NETWORK = 1, 30, 31


def wells(*terms: tuple[str, int]) -> openmm.System:
    """Independent particles of 1 dalton; each term is the energy along one coordinate q, and its force group."""
    system = openmm.System()
    for energy, group in terms:
        force = openmm.CustomExternalForce("+".join(f"({energy.replace('q', axis)})" for axis in "xyz"))
        for particle in range(COUNT):
            force.addParticle(particle, [])
        force.setForceGroup(group)
        system.addForce(force)
    for _ in range(COUNT):
        system.addParticle(1.0)
    return system


def spring(frequency: float) -> str:
    return f"{0.5 * frequency**2!r}*q^2"


def levels(outer_ps: float, inner: int, bonded: int = 1) -> TimeLevels:
    return TimeLevels(outer_ps, inner, bonded, (BONDED,), NETWORK, NEGATED)


def context_of(system: openmm.System, integrator: LevelledIntegrator, width: float) -> openmm.Context:
    integrator.setRandomNumberSeed(3)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.random.default_rng(1).normal(size=(COUNT, 3)) * width)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    return context


def sampled(context: openmm.Context, burn_in: int, samples: int, stride: int) -> np.ndarray:
    """(samples, 3 COUNT) coordinates, nm."""
    context.getIntegrator().step(burn_in)
    found = []
    for _ in range(samples):
        context.getIntegrator().step(stride)
        found.append(np.ravel(context.getState(positions=True).getPositions(asNumpy=True)._value))
    return np.array(found)
