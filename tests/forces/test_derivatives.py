"""Energies and CVs with all first derivatives, as engines that differentiate by themselves take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from exported_forces import bare, example
from torch import Tensor

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.modules.derivatives import NetworkDerivatives, check_derivatives, cv_derivatives, following
from openmm_gnn.forces.modules.exports import eager_module
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.networks.force_model import ForceModel

SKEWED = np.array([[1.1, 0.0, 0.0], [0.1, 1.2, 0.0], [0.2, 0.1, 1.3]])
"""nm: in reach of images of a peptide of 0.6 nm."""


def start_of(name: str) -> SimulationSystem:
    """Water in a box, a molecule without, or a peptide whose atoms are cut by the walls of a small box."""
    start = example(name).start
    if name != "cv-alanine-dipeptide":
        return start
    positions = start.positions.copy()
    positions[5:] += SKEWED[1]
    return bare(start.topology, positions, SKEWED)


@cache
def module_of(name: str) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]:
    """The derivatives in plain PyTorch; what is written out, test_metatomic_model compares with others' forces."""
    network, topology = example(name).network, start_of(name).topology
    if isinstance(network, ForceModel):
        return NetworkDerivatives(network, topology)
    return partial(cv_derivatives, CVModule(network, topology).eval())


def followed(name: str, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Values as an engine sees them: of positions and a cell that depend on a strain; and these positions."""
    start = start_of(name)
    positions = torch.from_numpy(start.positions) @ strain
    cell = None if start.box_vectors is None else torch.from_numpy(start.box_vectors) @ strain
    found = module_of(name)(positions.detach(), None if cell is None else cell.detach())
    values, forces, by_strain = (one.double() for one in found)
    rows = [following(values[k], forces[k], by_strain[k], positions, cell) for k in range(len(values))]
    return torch.stack(rows), positions


@pytest.mark.parametrize("name", ["gamd-tip3p", "energy-torchmd-et"])
def test_an_engine_finds_the_energy_the_forces_and_the_stress(name: str) -> None:
    """Of splines, charges on a grid and a network; and of an encoder.

    The strain is a difference over 2e-3 of energies of float32, rounded to 1e-7 of themselves: 1e-4 of the energy,
    where that of water is 1,400 kJ/mol and the derivatives are up to 130. The third derivative adds h^2 / 6 of itself.
    """
    start = start_of(name)
    eager = eager_module(example(name).network, start.topology)
    box = None if start.box_vectors is None else torch.from_numpy(start.box_vectors)
    energy, forces = eager(torch.from_numpy(start.positions), box)
    strain = torch.eye(3, dtype=torch.float64, requires_grad=True)
    (value,), positions = followed(name, strain)
    by_positions, by_strain = torch.autograd.grad(value, [positions, strain])
    torch.testing.assert_close(value, energy, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(-by_positions, forces, rtol=0.0, atol=1e-5 * float(forces.abs().max()))
    largest = float(by_strain.abs().max())
    assert largest > 0.1
    for row, column in ((0, 0), (1, 2), (2, 1)):
        found = difference(name, 0, row, column)
        assert found == pytest.approx(float(by_strain[row, column]), abs=1e-4 * abs(float(energy)) + 2e-3 * largest)


def difference(name: str, output: int, row: int, column: int, step: float = 1e-3) -> float:
    """The derivative of a value by an entry of the strain."""
    values = []
    for sign in (1.0, -1.0):
        strain = torch.eye(3, dtype=torch.float64)
        strain[row, column] += sign * step
        values.append(float(followed(name, strain)[0][output]))
    return (values[0] - values[1]) / (2 * step)


def test_every_output_of_a_cv_has_its_derivatives_in_a_box() -> None:
    """Values of 1 are float32 in steps of 1e-7, so differences over 2e-3 are good to 1e-4, and to h^2 / 6 by terms of
    the third order: to 2 % of the largest derivative, as angles turn by a radian over a strain of 0.1.
    """
    name = "cv-alanine-dipeptide"
    start = start_of(name)
    strain = torch.eye(3, dtype=torch.float64, requires_grad=True)
    values, positions = followed(name, strain)
    assert start.box_vectors is not None
    for output in (0, 1):
        eager = eager_module(example(name).network, start.topology, output)
        energy, forces = eager(torch.from_numpy(start.positions), torch.from_numpy(start.box_vectors))
        by_positions, by_strain = torch.autograd.grad(values[output], [positions, strain], retain_graph=True)
        torch.testing.assert_close(values[output], energy, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(-by_positions, forces, rtol=0.0, atol=1e-5 * float(forces.abs().max()))
        for row, column in ((0, 0), (1, 0), (1, 2)):
            found = difference(name, output, row, column)
            assert found == pytest.approx(float(by_strain[row, column]), abs=0.02 * float(by_strain.abs().max()))


def test_forces_without_an_energy_have_no_strain() -> None:
    start = start_of("gamd-argon")
    assert start.box_vectors is not None
    given = torch.from_numpy(start.positions), torch.from_numpy(start.box_vectors)
    values, forces, strain = module_of("gamd-argon")(*given)
    right = eager_module(example("gamd-argon").network, start.topology)(*given)[1]
    torch.testing.assert_close(forces[0], right, rtol=0.0, atol=1e-5 * float(right.abs().max()))
    assert values.tolist() == [0.0]
    assert bool(strain.isnan().all())


def test_an_export_with_other_forces_is_refused() -> None:
    name = "cv-alanine-dipeptide"
    start = start_of(name)
    positions = torch.from_numpy(start.positions)
    eager = eager_module(example(name).network, start.topology, 1)
    with pytest.raises(OpenMMGNNError, match="derivatives of output 0: forces differ by"):
        check_derivatives(module_of(name), eager, positions, torch.from_numpy(SKEWED), 0)


def test_what_follows_is_right_for_any_function_of_two_arguments() -> None:
    """By an analytic one, x^2 y, whose forces and strain are known: a box whose volume counts."""
    positions = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    cell = torch.from_numpy(SKEWED)

    def exact(x: Tensor, box: Tensor) -> Tensor:
        return x.square().sum() * torch.linalg.det(box)

    given = [positions.clone().requires_grad_(), cell.clone().requires_grad_()]
    right = torch.autograd.grad(exact(*given), given)
    by_strain = positions.T @ right[0] + cell.T @ right[1]
    value = following(exact(positions, cell), -right[0], by_strain, *given)
    found = torch.autograd.grad(value, given)
    assert value.item() == exact(positions, cell).item()
    torch.testing.assert_close(found[0], right[0], rtol=1e-12, atol=0.0)
    torch.testing.assert_close(found[1], right[1], rtol=1e-12, atol=1e-14)
