"""A small Lennard-Jones fluid, labelled in memory by OpenMM's Reference platform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm

EDGE = 1.75
NUM_ATOMS = 64


@dataclass
class MemoryTrajectory:
    positions: np.ndarray
    forces: np.ndarray
    box_vectors: np.ndarray


def lennard_jones_trajectory(seed: int, num_frames: int) -> MemoryTrajectory:
    """Frames 0.1 ps apart at 150 K."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((EDGE, 0, 0), (0, EDGE, 0), (0, 0, EDGE))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    for _ in range(NUM_ATOMS):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 0.996)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(150.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3) * EDGE / 4
    context.setPositions(grid)
    context.setVelocitiesToTemperature(150.0, seed)
    integrator.step(500)
    positions, forces = [], []
    for _ in range(num_frames):
        integrator.step(50)
        state = context.getState(getPositions=True, getForces=True)
        positions.append(state.getPositions(asNumpy=True)._value)
        forces.append(state.getForces(asNumpy=True)._value)
    return MemoryTrajectory(np.array(positions), np.array(forces), np.stack([np.eye(3) * EDGE] * num_frames))
