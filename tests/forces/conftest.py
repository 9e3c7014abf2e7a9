from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openmm
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def start() -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities of 27 flexible water molecules at 300 K."""
    from accelerated_water import EDGE, make_context, values, water
    from small_water import water_on_a_lattice

    integrator = openmm.LangevinMiddleIntegrator(300.0, 20.0, 0.0005)
    integrator.setRandomNumberSeed(3)
    context = make_context(water(), integrator)
    context.setPositions(water_on_a_lattice(3, EDGE / 3))
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(300.0, 3)
    integrator.step(1000)
    state = context.getState(positions=True, velocities=True)
    return values(state.getPositions(asNumpy=True)), values(state.getVelocities(asNumpy=True))
