"""Charges on a grid against the sum over wave vectors written out, and against OpenMM's Ewald sum."""

from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor

from openmm_gnn.kernels.particle_mesh import COULOMB, particle_mesh

WIDTH = 0.2
TRICLINIC = torch.tensor([[2.0, 0, 0], [0.3, 2.1, 0], [-0.2, 0.4, 1.9]], dtype=torch.float64)


def system(num_atoms: int, box: Tensor) -> tuple[Tensor, Tensor]:
    """Positions, some outside the box, and neutral charges."""
    generator = torch.Generator().manual_seed(1)
    positions = (1.7 * torch.rand(num_atoms, 3, generator=generator, dtype=torch.float64) - 0.3) @ box
    charges = torch.randn(num_atoms, generator=generator, dtype=torch.float64)
    return positions, charges - charges.mean()


def direct_sum(positions: Tensor, charges: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Forces and energy, every wave vector of any weight written out."""
    inverse, volume = torch.linalg.inv(box), torch.linalg.det(box)
    n = torch.cartesian_prod(*[torch.arange(-14, 15, dtype=torch.float64)] * 3)
    k = 2 * math.pi * n[n.abs().sum(1) > 0] @ inverse.T
    squared = k.square().sum(1)
    weights = 4 * math.pi / volume * torch.exp(-0.5 * WIDTH**2 * squared) / squared
    phases = positions @ k.T
    structure = (charges[:, None] * torch.exp(1j * phases)).sum(0)
    energy = 0.5 * (weights * structure.abs() ** 2).sum()
    pull = weights * (torch.sin(phases) * structure.real - torch.cos(phases) * structure.imag)
    return charges[:, None] * (pull @ k), energy


@pytest.mark.parametrize(("points", "tolerance"), [(20, 2e-4), (30, 2e-5)])
def test_forces_and_energy_are_those_of_the_sum_over_wave_vectors(points: int, tolerance: float) -> None:
    positions, charges = system(100, TRICLINIC)
    expected_forces, expected_energy = direct_sum(positions, charges, TRICLINIC)
    forces, energy = particle_mesh(positions, charges, TRICLINIC, WIDTH, [points] * 3)
    assert float((forces - expected_forces).abs().max()) < tolerance * float(expected_forces.abs().max())
    assert float(energy) == pytest.approx(float(expected_energy), rel=tolerance)
    single, _ = particle_mesh(positions.float(), charges.float(), TRICLINIC.float(), WIDTH, [points] * 3)
    assert float((single - expected_forces).abs().max()) < 2e-4 * float(expected_forces.abs().max())


def test_with_the_short_range_part_it_is_openmms_ewald_sum() -> None:
    box = 2.0 * torch.eye(3, dtype=torch.float64)
    positions, charges = system(60, box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
    force.setEwaldErrorTolerance(1e-6)
    force.setCutoffDistance(0.99)
    truth = openmm.System()
    truth.setDefaultPeriodicBoxVectors(*box.numpy())
    for charge in charges.tolist():
        truth.addParticle(1.0)
        force.addParticle(charge, 1.0, 0.0)
    truth.addForce(force)
    context = openmm.Context(truth, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions.numpy())
    expected = context.getState(forces=True).getForces(asNumpy=True)
    expected = expected.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    smooth, _ = particle_mesh(positions, COULOMB**0.5 * charges, box, WIDTH, [24, 24, 24])
    vectors = positions[None] - positions[:, None]
    images = torch.cartesian_prod(*[torch.arange(-1, 2, dtype=torch.float64)] * 3) @ box
    shifted = vectors[None] + images[:, None, None]
    distances = shifted.norm(dim=-1)
    alpha = 1 / (WIDTH * math.sqrt(2))
    slope = (
        torch.erfc(alpha * distances) / distances**2
        + 2 * alpha / math.sqrt(math.pi) * torch.exp(-((alpha * distances) ** 2)) / distances
    )
    strength = torch.where(distances > 1e-9, slope / distances, torch.zeros_like(slope))
    near = -COULOMB * (charges[None, :, None] * charges[None, None, :] * strength).unsqueeze(-1) * shifted
    np.testing.assert_allclose((smooth + near.sum(dim=(0, 2))).numpy(), expected, atol=2e-4 * np.abs(expected).max())


def test_atoms_moved_by_box_vectors_feel_the_same_and_the_net_force_vanishes() -> None:
    positions, charges = system(50, TRICLINIC)
    forces, _ = particle_mesh(positions, charges, TRICLINIC, WIDTH, [24] * 3)
    shifts = torch.randint(-3, 4, (50, 3), generator=torch.Generator().manual_seed(2)).double() @ TRICLINIC
    moved, _ = particle_mesh(positions + shifts, charges, TRICLINIC, WIDTH, [24] * 3)
    torch.testing.assert_close(moved, forces)
    assert float(forces.sum(dim=0).abs().max()) < 1e-3 * float(forces.abs().max())


def test_forces_are_minus_the_gradient_of_the_energy() -> None:
    positions, charges = system(20, TRICLINIC)
    forces, _ = particle_mesh(positions, charges, TRICLINIC, WIDTH, [16] * 3)
    step = 1e-5
    for atom, axis in ((0, 0), (7, 2)):
        energies = []
        for sign in (-1, 1):
            moved = positions.clone()
            moved[atom, axis] += sign * step
            energies.append(float(particle_mesh(moved, charges, TRICLINIC, WIDTH, [16] * 3)[1]))
        assert float(forces[atom, axis]) == pytest.approx(-(energies[1] - energies[0]) / (2 * step), rel=1e-6)
