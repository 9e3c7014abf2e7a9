"""A learned CV as a Force, on every platform and backend: its energy, its forces, and OpenMM's own users of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from learned_cvs import chain, rounding_of_values, untrained_cv, values_of
from openmm import app

import openmm_gnn
from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.features.learned_cv import save_learned_cv
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.cv_force import cv_force
from openmm_gnn.forces.modules.cv_evaluation import cv_evaluation
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.shared_cv import shared_cv
from openmm_gnn.md.simulation_system import SimulationSystem

BACKENDS = available_backends()
CV = untrained_cv(chain())
ROUNDING = rounding_of_values(CV)
"""5e-4 of values of variance 1; 300 values differ from float64 by at most 1.5e-4, AVX2 or not."""


def context_of(system: openmm.System, platform_name: str, positions: np.ndarray) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName(platform_name)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    return context


def energy_of(context: openmm.Context, positions: np.ndarray) -> float:
    context.setPositions(positions)
    return float(context.getState(energy=True).getPotentialEnergy()._value)


def in_a_box(system: SimulationSystem, box: np.ndarray) -> openmm.System:
    boxed = copy.deepcopy(system.system)
    boxed.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in box])
    return boxed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("periodic", [False, True])
def test_energy_is_the_value_and_forces_its_negative_gradient(backend: Any, periodic: bool, platform_name: str) -> None:
    start = chain()
    box = np.diag([1.9, 2.0, 2.1])
    system = in_a_box(start, box)
    system.removeForce(0)
    system.addForce(cv_force(CV, start.topology, 1, backend, periodic))
    context = context_of(system, platform_name, start.positions)
    truth = values_of(CV, start, start.positions, box if periodic else None)[1]
    cell = torch.from_numpy(box) if periodic else None
    evaluation = cv_evaluation(CVModule(CV, start.topology).eval(), (1,), torch.device("cpu"))
    (value,) = evaluation.values(torch.from_numpy(start.positions), cell)
    assert energy_of(context, start.positions) == pytest.approx(value, abs=2e-6)
    assert value == pytest.approx(truth, abs=ROUNDING)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    for atom, axis in ((0, 0), (2, 1), (5, 2)):
        sides = []
        for sign in (1.0, -1.0):
            moved = start.positions.copy()
            moved[atom, axis] += sign * 1e-3  # wide, as float32 has seven digits
            sides.append(energy_of(context, moved))
        assert -(sides[0] - sides[1]) / 2e-3 == pytest.approx(forces[atom, axis], abs=0.01 * np.abs(forces).max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_metadynamics_of_openmm_along_two_outputs_evaluates_them_once_a_step(backend: Any, tmp_path: Path) -> None:
    start = chain()
    path = save_learned_cv(CV, tmp_path / "cv.safetensors")
    system, variables = copy.deepcopy(start.system), []
    for output in range(2):
        low, high = CV.ranges.minimum[output] - 1, CV.ranges.maximum[output] + 1
        force = openmm_gnn.cv_force(path, start.topology, output, backend=backend)
        variables.append(app.BiasVariable(force, low, high, 0.3, gridWidth=80))
    metadynamics = app.Metadynamics(system, variables, 300, 8, 2.0, 10)
    integrator = openmm.LangevinMiddleIntegrator(300, 2, 0.001)
    integrator.setRandomNumberSeed(1)
    reference = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(start.topology, system, integrator, reference)
    simulation.context.setPositions(start.positions)
    shared = shared_cv(CVModule(CV, start.topology))
    before = shared.evaluations, shared.gradients
    metadynamics.step(simulation, 60)
    # One at each step; the hills are placed where the next step begins. The first one does not know yet of the second.
    assert 60 <= shared.evaluations - before[0] <= 61
    assert shared.gradients - before[1] == 2 * (shared.evaluations - before[0])
    seen = metadynamics.getCollectiveVariables(simulation)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(seen, values_of(CV, start, positions, None), atol=ROUNDING)
    free_energy = metadynamics.getFreeEnergy()._value
    assert np.isfinite(free_energy).all()
    assert free_energy.max() - free_energy.min() > 2.0  # hills were there


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TopologyError, match="learned for another topology"):
        cv_force(CV, chain(8).topology)
    with pytest.raises(SpecError, match="output is 5"):
        cv_force(CV, chain().topology, 5)
