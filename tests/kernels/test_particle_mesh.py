"""Charges on a grid against the sum over wave vectors written out, and against OpenMM's Ewald sum."""

from __future__ import annotations

import math
import os

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor
from torch._subclasses import FakeTensorMode
from warm_python import run_python

from openmm_gnn.kernels.particle_mesh import COULOMB, particle_mesh, particle_mesh_reference
from openmm_gnn.networks.pair_term import grid_sizes

WIDTH = 0.2
TRICLINIC = torch.tensor([[2.0, 0, 0], [0.3, 2.1, 0], [-0.2, 0.4, 1.9]], dtype=torch.float64)


def system(num_atoms: int, box: Tensor) -> tuple[Tensor, Tensor]:
    """Positions, some outside the box, and neutral charges."""
    generator = torch.Generator().manual_seed(1)
    positions = (1.7 * torch.rand(num_atoms, 3, generator=generator, dtype=torch.float64) - 0.3) @ box
    charges = torch.randn(num_atoms, generator=generator, dtype=torch.float64)
    return positions, charges - charges.mean()


def direct_sum(positions: Tensor, charges: Tensor, box: Tensor, width: float = WIDTH) -> tuple[Tensor, Tensor]:
    """Forces and energy, every wave vector of any weight written out."""
    inverse, volume = torch.linalg.inv(box), torch.linalg.det(box)
    n = torch.cartesian_prod(*[torch.arange(-14, 15, dtype=torch.float64)] * 3)
    k = 2 * math.pi * n[n.abs().sum(1) > 0] @ inverse.T
    squared = k.square().sum(1)
    weights = 4 * math.pi / volume * torch.exp(-0.5 * width**2 * squared) / squared
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


# ---- the compiled operators -----------------------------------------------------------------------------------------


def check_compiled(positions: Tensor, charges: Tensor, box: Tensor, sizes: list[int], order: int) -> None:
    """Compares single precision, which is compiled, with the plain reference in double precision."""
    single = [tensor.float() for tensor in (positions, charges, box)]
    expected_forces, expected_energy = particle_mesh_reference(
        *[tensor.double() for tensor in single], WIDTH, sizes, order
    )
    forces, energy = particle_mesh(*single, WIDTH, sizes, order)
    assert forces.dtype == energy.dtype == torch.float32
    assert forces.shape == positions.shape and energy.shape == (1,)
    largest = float(expected_forces.abs().max())
    # A position of up to 5 boxes, as a float32 number of grid points, is off by half an ulp of 5 * size; over a grid
    # point a force changes by about its own size.
    rounding = 3e-6 + 2.0**-24 * 5 * max(sizes)
    torch.testing.assert_close(forces.double(), expected_forces, rtol=0, atol=rounding * largest)
    torch.testing.assert_close(energy.double(), expected_energy, rtol=3e-6, atol=0)


@pytest.mark.parametrize("order", [4, 6, 8])
@pytest.mark.parametrize("sizes", [[16, 16, 16], [20, 15, 27], [5, 9, 6], [24, 10, 7], [1, 2, 3]])
def test_compiled_is_the_plain_reference_in_random_boxes(order: int, sizes: list[int]) -> None:
    """Even, odd and unlike sizes, also ones that splines reach around more than once; atoms far outside the box."""
    generator = torch.Generator().manual_seed(order)
    for triclinic in (False, True):
        box = torch.diag(1.0 + torch.rand(3, generator=generator, dtype=torch.float64))
        if triclinic:
            box = box + 0.6 * (torch.rand(3, 3, generator=generator, dtype=torch.float64) - 0.5)
        positions, charges = system(40, box)
        shifts = torch.randint(-4, 5, (40, 3), generator=generator).double()
        check_compiled(positions + shifts @ box, charges, box, sizes, order)


def test_every_number_of_threads_gives_the_same_bits() -> None:
    positions, charges = system(9000, TRICLINIC)
    single = [tensor.float() for tensor in (positions, charges, TRICLINIC)]
    sizes, order, results = [30, 36, 45], 6, []
    for threads in (1, 2, 4):
        grid = torch.ops.openmm_gnn.mesh_charges(*single, *sizes, order, threads)
        transformed = torch.view_as_real(torch.fft.rfftn(grid))
        torch.ops.openmm_gnn.mesh_influence(transformed, single[2], WIDTH, sizes[2], order, threads)
        potential = grid.square()  # anything: the transforms between are torch's
        results.append((grid, transformed, *torch.ops.openmm_gnn.mesh_forces(*single, potential, order, threads)))
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            assert torch.equal(value, expected)
    check_compiled(positions, charges, TRICLINIC, sizes, order)


def test_a_processor_without_wide_instructions_gives_the_same() -> None:
    """Compiled twice from one source; the other tests run what this processor has."""
    program = (
        "import torch\n"
        "from openmm_gnn.kernels.particle_mesh import particle_mesh, particle_mesh_reference\n"
        "positions, charges = 3 * torch.rand(300, 3), torch.randn(300)\n"
        "box = 2 * torch.eye(3) + 0.2 * torch.rand(3, 3)\n"
        "for order in (4, 6, 8):\n"
        "    forces, energy = particle_mesh(positions, charges, box, 0.2, [20, 18, 15], order)\n"
        "    doubles = [tensor.double() for tensor in (positions, charges, box)]\n"
        "    truth, true_energy = particle_mesh_reference(*doubles, 0.2, [20, 18, 15], order)\n"
        "    assert (forces - truth).abs().max() < 3e-6 * truth.abs().max(), order\n"
        "    assert (energy - true_energy).abs() < 3e-6 * true_energy, order\n"
    )
    done = run_python("-c", program, env={**os.environ, "OPENMM_GNN_CPU": "portable"})
    assert done.returncode == 0, done.stderr[-2000:]


def test_charges_on_the_grid_add_up_wherever_the_atoms_are() -> None:
    """Also at the very ends of the box, where fractions of its length round to one."""
    ends = [0.0, -0.0, 1.0, -1.0, 1e-9, -1e-9, 1 - 1e-7, 1 + 1e-7, 0.5, 3.0, 1e4]
    charges = torch.ones(len(ends))
    for axis in range(3):
        positions = 2 * torch.rand(len(ends), 3)
        positions[:, axis] = 2.0 * torch.tensor(ends)
        grid = torch.ops.openmm_gnn.mesh_charges(positions, charges, 2 * torch.eye(3), 8, 10, 9, 6, 1)
        assert float(grid.double().sum()) == pytest.approx(len(ends), rel=1e-6)
        check_compiled(positions, torch.linspace(-1, 1, len(ends)), 2 * torch.eye(3), [8, 10, 9], 6)


def test_one_atom_feels_next_to_nothing_and_no_atoms_have_no_energy() -> None:
    box = 2 * torch.eye(3)
    forces, energy = particle_mesh(torch.tensor([[0.3, 1.1, 1.7]]), torch.ones(1), box, WIDTH, [24] * 3)
    self_energy = 1 / (WIDTH * math.sqrt(2 * math.pi))
    assert float(forces.abs().max()) < 1e-5 / WIDTH**2
    assert 0.2 * self_energy < float(energy) < self_energy  # the images and the background take from it
    forces, energy = particle_mesh(torch.zeros(0, 3), torch.zeros(0), box, WIDTH, [24] * 3)
    assert forces.shape == (0, 3) and energy.tolist() == [0.0]


def test_compiled_forces_are_minus_the_slope_of_the_compiled_energy() -> None:
    positions, charges = system(8, TRICLINIC)
    single = [tensor.float() for tensor in (charges, TRICLINIC)]
    forces, _ = particle_mesh(positions.float(), *single, WIDTH, [16] * 3)
    for atom, axis in ((0, 0), (3, 1), (7, 2)):
        ends, energies = [], []
        for step in (-2e-3, 2e-3):
            moved = positions.float()
            moved[atom, axis] += step
            ends.append(float(moved[atom, axis]))
            energies.append(float(particle_mesh(moved, *single, WIDTH, [16] * 3)[1]))
        slope = (energies[1] - energies[0]) / (ends[1] - ends[0])
        assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-3 * float(forces.abs().max()))


def test_where_a_gradient_is_wanted_the_plain_form_gives_it() -> None:
    positions, charges = system(20, TRICLINIC)
    single = positions.float().requires_grad_()
    forces, energy = particle_mesh(single, charges.float(), TRICLINIC.float(), WIDTH, [16] * 3)
    (gradient,) = torch.autograd.grad(energy.sum(), single)
    torch.testing.assert_close(forces.detach(), -gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))
    with torch.no_grad():
        compiled, _ = particle_mesh(single, charges.float(), TRICLINIC.float(), WIDTH, [16] * 3)
    torch.testing.assert_close(compiled, forces.detach(), rtol=0, atol=1e-5 * float(gradient.abs().max()))


def test_torchscript_and_fake_tensors_know_the_operators() -> None:
    positions, charges = system(50, TRICLINIC)
    single = [tensor.float() for tensor in (positions, charges, TRICLINIC)]
    expected = particle_mesh(*single, WIDTH, [16, 15, 14])
    scripted = torch.jit.script(particle_mesh)(*single, WIDTH, [16, 15, 14])
    with FakeTensorMode() as mode:
        fake = particle_mesh(*[mode.from_tensor(tensor) for tensor in single], WIDTH, [16, 15, 14])
    for k in range(2):
        torch.testing.assert_close(scripted[k], expected[k])
        assert fake[k].shape == expected[k].shape and fake[k].dtype == expected[k].dtype


def test_a_position_that_is_no_number_shows_in_the_forces() -> None:
    positions, charges = system(30, TRICLINIC)
    for value in (float("nan"), float("inf"), -float("inf")):
        broken = positions.float()
        broken[4, 1] = value
        forces, energy = particle_mesh(broken, charges.float(), TRICLINIC.float(), WIDTH, [16] * 3)
        assert bool(forces.isnan().any()) and bool(energy.isnan())


def test_wrong_shapes_types_and_orders_are_refused_in_words() -> None:
    positions, charges, box = torch.rand(5, 3), torch.rand(5), 2 * torch.eye(3)
    sizes = [12, 12, 12]
    for arguments, message in (
        ((torch.rand(5, 2), charges, box), r"positions has shape \(5, 2\): expected \(any, 3\)"),
        ((positions, torch.rand(4), box), r"charges has shape \(4\): expected \(5\)"),
        ((positions, charges.double(), box), "charges .* float32"),
        ((positions, charges, box.double()), r"box .* float32"),
        ((positions, charges, torch.eye(2)), r"box has shape \(2, 2\)"),
        ((positions, charges, torch.zeros(3, 3)), "the box has volume 0"),
    ):
        with pytest.raises(RuntimeError, match=message):
            particle_mesh(*arguments, WIDTH, sizes)
    with pytest.raises(RuntimeError, match="12 x 0 x 12 points: give 1 to 4096"):
        particle_mesh(positions, charges, box, WIDTH, [12, 0, 12])
    with pytest.raises(RuntimeError, match="width is 0"):
        particle_mesh(positions, charges, box, 0.0, sizes)
    with pytest.raises(ValueError, match="order is 5: give 4, 6 or 8"):
        particle_mesh(positions, charges, box, WIDTH, sizes, 5)
    operators = torch.ops.openmm_gnn
    with pytest.raises(RuntimeError, match="order is 7: give 4, 6 or 8"):
        operators.mesh_charges(positions, charges, box, 12, 12, 12, 7, 1)
    with pytest.raises(RuntimeError, match=r"transform has shape \(12, 12, 7, 2\): expected \(any, any, 8, 2\)"):
        operators.mesh_influence(torch.zeros(12, 12, 7, 2), box, WIDTH, 14, 6, 1)
    with pytest.raises(RuntimeError, match=r"potential has shape \(12, 12\): expected \(any, any, any\)"):
        operators.mesh_forces(positions, charges, box, torch.zeros(12, 12), 6, 1)


@pytest.mark.parametrize("width", [0.15, 0.18, 0.2])
def test_grids_of_the_charge_term_are_exact_to_2e_4_of_the_largest_force(width: float) -> None:
    for box in (2 * torch.eye(3, dtype=torch.float64), TRICLINIC):
        positions, charges = system(80, box)
        expected, _ = direct_sum(positions, charges, box, width)
        sizes = grid_sizes(box.norm(dim=1).tolist(), width)
        forces, _ = particle_mesh(positions.float(), charges.float(), box.float(), width, sizes)
        assert float((forces - expected).abs().max()) < 2e-4 * float(expected.abs().max())
