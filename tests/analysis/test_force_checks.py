"""Balances and Jacobians of force fields whose answers are known by hand, or column by column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from small_water import water_on_a_lattice

from openmm_gnn.analysis.force_checks import (
    NetworkForces,
    check_teacher,
    droplet,
    jacobian_asymmetry,
    relative_net_force,
    relative_net_torque,
)
from openmm_gnn.analysis.verdicts import SYMMETRIC
from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.gamd import GAMD

POSITIONS = np.random.default_rng(0).normal(size=(12, 3))


def pair_forces(positions: np.ndarray) -> np.ndarray:
    """The gradient of a sum of exp(-r^2 / 2) over pairs: conservative, balanced, without torque."""
    delta = positions[None] - positions[:, None]
    return -(np.exp(-0.5 * np.square(delta).sum(-1, keepdims=True)) * delta).sum(axis=1)


def rotation(positions: np.ndarray) -> np.ndarray:
    """A whirl about z: its Jacobian is antisymmetric."""
    return np.cross([0.0, 0.0, 1.0], positions)


def shear(positions: np.ndarray) -> np.ndarray:
    """F_x = y, 0 otherwise: J - J^T has two entries where J has one."""
    return positions[:, [1, 0, 0]] * np.array([1.0, 0.0, 0.0])


def directed(positions: np.ndarray) -> np.ndarray:
    """Forces along pairs, but not equal and opposite, each of another strength: no gradient."""
    strengths = np.linspace(0.5, 2.0, len(positions))[:, None]
    return strengths * pair_forces(positions)


def exact_asymmetry(forces: Callable[[np.ndarray], np.ndarray], positions: np.ndarray) -> float:
    """From the whole Jacobian, column by column."""
    size, columns = positions.size, []
    for index in range(size):
        step = np.zeros(size)
        step[index] = 1e-5
        step = step.reshape(positions.shape)
        columns.append((forces(positions + step) - forces(positions - step)).ravel() / 2e-5)
    jacobian = np.array(columns).T
    return float(np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian))


@pytest.mark.parametrize(("forces", "expected"), [(rotation, 2.0), (shear, 2**0.5), (pair_forces, 0.0)])
def test_asymmetry_of_known_fields(forces: Callable, expected: float) -> None:
    assert exact_asymmetry(forces, POSITIONS) == pytest.approx(expected, abs=1e-6)
    found = jacobian_asymmetry(forces, POSITIONS, num_probes=40)
    assert found.value == pytest.approx(expected, abs=max(4 * found.error, 1e-6))
    assert found.error < 0.2 if expected else found.error < 1e-6


@pytest.mark.parametrize(("num_layers", "is_gradient"), [(0, True), (1, False)])
def test_asymmetry_of_networks_is_that_of_their_whole_jacobian(num_layers: int, is_gradient: bool) -> None:
    """Without layers a pair decoder knows two atoms and their distance: its forces are a gradient."""
    torch.manual_seed(0)
    spec = GAMDSpec(NeighborSpec(0.5), (18,), num_layers=num_layers, width=16, num_radial=8, force_scale=10.0)
    model = GAMD(spec)
    topology, positions = droplet(*argon_frame(), num_molecules=20)
    forces = NetworkForces(model, topology, None)
    found = jacobian_asymmetry(forces, positions, num_probes=40)
    assert (found.value < SYMMETRIC) is is_gradient
    exact = exact_asymmetry(NetworkForces(model.double(), topology, None), positions)
    assert found.value == pytest.approx(exact, abs=4 * found.error + SYMMETRIC / 2)


def argon_frame() -> tuple[app.Topology, np.ndarray, np.ndarray | None]:
    argon = load_system("argon")
    jitter = np.random.default_rng(0).normal(scale=0.02, size=argon.positions.shape)
    return argon.topology, argon.positions + jitter, argon.box_vectors


def test_error_of_the_estimate_is_its_scatter_and_the_estimate_is_unbiased() -> None:
    exact = exact_asymmetry(directed, POSITIONS)
    assert 0.2 < exact < 1.9
    found = [jacobian_asymmetry(directed, POSITIONS, num_probes=12, seed=seed) for seed in range(60)]
    values = np.array([estimate.value for estimate in found])
    scatter = values.std(ddof=1)
    assert values.mean() == pytest.approx(exact, abs=3.5 * scatter / 60**0.5 + 0.02 * exact)
    assert np.mean([estimate.error for estimate in found]) == pytest.approx(scatter, rel=0.35)


def test_more_probes_make_the_error_smaller_and_are_reported() -> None:
    seen: list[int] = []
    few = jacobian_asymmetry(directed, POSITIONS, num_probes=8, report=seen.append)
    assert seen == list(range(1, 9))
    assert jacobian_asymmetry(directed, POSITIONS, num_probes=64).error < 0.5 * few.error


def test_balanced_forces_have_no_net_force_or_torque_and_others_do() -> None:
    forces = pair_forces(POSITIONS)
    assert relative_net_force(forces) < 1e-14
    assert relative_net_torque(POSITIONS, forces) < 1e-14
    assert relative_net_force(np.ones((5, 3))) == pytest.approx(1.0)
    ring = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    assert relative_net_torque(ring, rotation(ring)) == pytest.approx(1.0)
    assert relative_net_torque(ring + np.array([3.0, 2.0, 1.0]), rotation(ring)) == pytest.approx(1.0)


def test_droplet_is_the_nearest_molecules_across_the_faces_of_the_box_and_whole() -> None:
    topology, edge = water_topology(27, 3.0), 3.0
    positions = water_on_a_lattice(3, 1.0) + 0.01
    cut, where = droplet(topology, positions, np.eye(3) * edge, num_molecules=7)
    assert cut.getNumAtoms() == len(where) == 21
    assert cut.getPeriodicBoxVectors() is None
    assert len(list(cut.bonds())) == 14
    oxygens = where[::3] - where[0]
    assert sorted(np.linalg.norm(oxygens, axis=1).round(6)) == [0, 1, 1, 1, 1, 1, 1]  # three of them through a face
    assert (where[1::3] - where[::3]).round(6).tolist() == [[0.09572, 0, 0]] * 7
    everything, _ = droplet(topology, positions, None, num_molecules=100)
    assert everything.getNumAtoms() == 81


def test_a_teacher_with_a_barostat_is_refused() -> None:
    fluid, model = load_system("argon"), GAMD(GAMDSpec(NeighborSpec(0.5), (18,), width=8, num_layers=1, num_radial=8))
    check_teacher(fluid, model)
    fluid.system.addForce(openmm.MonteCarloAnisotropicBarostat((1.0, 1.0, 1.0), 100.0))
    with pytest.raises(SpecError, match="argon has a MonteCarloAnisotropicBarostat, .* constant volume: give a System"):
        check_teacher(fluid, model)
