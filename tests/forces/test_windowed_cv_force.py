"""Forces and biases of a CV that was learned from windowed tokens, on every platform and backend."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import openmm
import pytest
from learned_cvs import chain, rounding_of_values, untrained_cv, values_of

from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.cv_force import BiasForce, cv_force

BACKENDS = available_backends()
BOX = np.diag([1.9, 2.0, 2.1])
START = chain(12)
CV = untrained_cv(START, context="window", window=1)


class Spring:
    """3 (s0 - 1)^2 + 5 (s1 + 1)^2."""

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        factors, away = np.array([3.0, 5.0]), values - np.array([1.0, -1.0])
        return float((factors * away**2).sum()), 2 * factors * away


def alone(force: Any, platform_name: str, periodic: bool) -> openmm.Context:
    """A Context with this force and no other."""
    system = copy.deepcopy(START.system)
    system.removeForce(0)
    if periodic:
        system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in BOX])
    if isinstance(force, openmm.Force):
        system.addForce(force)
    else:
        force.add_to(system)
    platform = openmm.Platform.getPlatformByName(platform_name)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(START.positions)
    return context


def energy_of(context: openmm.Context, positions: np.ndarray) -> float:
    context.setPositions(positions)
    return float(context.getState(energy=True).getPotentialEnergy()._value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("what", "periodic"), [("cv", True), ("bias", False)])
def test_energy_is_that_of_the_windowed_features_and_forces_its_negative_gradient(
    what: str, backend: Any, periodic: bool, platform_name: str
) -> None:
    values = values_of(CV, START, START.positions, BOX if periodic else None).astype(float)
    if what == "cv":
        force = cv_force(CV, START.topology, 1, backend, periodic)
        truth, slopes = values[1], np.array([0.0, 1.0])
    else:
        force = BiasForce(CV, START.topology, Spring(), (0, 1), backend, periodic)
        truth, slopes = Spring().value_and_gradient(values)
    context = alone(force, platform_name, periodic)
    tolerance = rounding_of_values(CV) * np.abs(slopes).sum()
    assert energy_of(context, START.positions) == pytest.approx(truth, abs=tolerance)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    for atom, axis in ((0, 0), (5, 1), (8, 2)):
        sides = []
        for sign in (1.0, -1.0):
            moved = START.positions.copy()
            moved[atom, axis] += sign * 1e-3  # wide, as float32 has seven digits
            sides.append(energy_of(context, moved))
        assert -(sides[0] - sides[1]) / 2e-3 == pytest.approx(forces[atom, axis], abs=0.01 * np.abs(forces).max())
