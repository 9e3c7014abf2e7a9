"""Kinds of pairs against counting bonds, and radial forces against the derivative of their energy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from openmm_gnn.graph.topology_tables import no_partners, separation_table
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import (
    pair_types,
    pair_types_reference,
    radial_pair_forces,
    radial_pair_forces_reference,
)
from openmm_gnn.md.systems.fluids import water_topology

START, CUTOFF, KNOTS = 0.1, 0.7, 15


def test_kinds_of_water_pairs_count_species_and_bonds() -> None:
    topology = water_topology(2, 2.0)
    species = torch.tensor([1, 0, 0, 1, 0, 0])  # hydrogen 0, oxygen 1
    partners = separation_table(topology)
    pairs = torch.combinations(torch.arange(6)).T.contiguous()
    types = pair_types(pairs, species, partners, 2)
    expected = {(0, 1): 3 + 1, (0, 2): 3 + 1, (1, 2): 6 + 0, (0, 3): 2, (0, 4): 1, (1, 4): 0, (4, 5): 6 + 0}
    found = {(int(i), int(j)): int(kind) for i, j, kind in zip(*pairs, types, strict=True)}
    assert {pair: found[pair] for pair in expected} == expected
    assert torch.equal(types, pair_types_reference(pairs, species, partners, 2))
    assert torch.equal(types, pair_types(pairs.flip(0).contiguous(), species, partners, 2))
    unbonded = pair_types(pairs, species, no_partners(6), 2)
    assert int(unbonded.max()) == 2


def test_padding_has_kind_zero_and_an_unknown_atom_is_refused() -> None:
    species, partners = torch.tensor([1, 1]), no_partners(2)
    assert pair_types(torch.tensor([[-1, 0], [-1, 1]]), species, partners, 2).tolist() == [0, 2]
    with pytest.raises(RuntimeError, match="holds atom 2: there are 2"):
        pair_types(torch.tensor([[0], [2]]), species, partners, 2)


@pytest.mark.parametrize("shortest", [0.02, 0.12])
def test_forces_are_minus_the_gradient_of_the_spline_energy(shortest: float) -> None:
    generator = torch.Generator().manual_seed(2)
    positions = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 1.2).requires_grad_()
    box = 1.5 * torch.eye(3, dtype=torch.float64)
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
    keep = distances.detach() > shortest
    pairs, vectors, distances = pairs[:, keep], vectors[keep], distances[keep]
    types = torch.randint(0, 3, (len(distances),), generator=generator)
    table = torch.randn(3, KNOTS, generator=generator, dtype=torch.float64)
    table[:, -3:] = 0
    forces, energy = radial_pair_forces_reference(pairs, types, vectors, distances, table, START, CUTOFF, 40)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    torch.testing.assert_close(forces, -gradient)
    exact = radial_pair_forces(pairs, types, vectors.detach(), distances.detach(), table, START, CUTOFF, 40)
    assert torch.equal(exact[0], forces.detach()) and torch.equal(exact[1], energy.detach())
    fused, fused_energy = radial_pair_forces(
        pairs, types, vectors.detach().float(), distances.detach().float(), table.float(), START, CUTOFF, 40
    )
    torch.testing.assert_close(fused.double(), forces.detach(), rtol=1e-4, atol=1e-4 * float(forces.abs().max()))
    torch.testing.assert_close(fused_energy.double(), energy.detach(), rtol=1e-4, atol=1e-4)


def test_the_energy_is_scipys_spline_and_vanishes_smoothly_at_the_cutoff() -> None:
    table = torch.randn(1, KNOTS, dtype=torch.float64)
    table[:, -3:] = 0
    spacing = (CUTOFF - START) / (KNOTS - 3)
    truth = BSpline(START + spacing * np.arange(-3, KNOTS + 1), table[0].numpy(), 3)
    for distance in (0.1, 0.237, 0.5, 0.6999):
        vectors = torch.tensor([[distance, 0.0, 0.0]], dtype=torch.float64)
        pairs = torch.tensor([[0], [1]])
        forces, energy = radial_pair_forces_reference(
            pairs, torch.zeros(1, dtype=torch.int64), vectors, vectors.norm(dim=1), table, START, CUTOFF, 2
        )
        assert float(energy) == pytest.approx(float(truth(distance)), abs=1e-12)
        assert float(forces[0, 0]) == pytest.approx(float(truth(distance, 1)), abs=1e-10)
    assert abs(float(truth(CUTOFF - 1e-6, 1))) < 1e-8


def peak_memory() -> float:
    """The largest resident memory of this process since it was last asked, GB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    Path("/proc/self/clear_refs").write_text("5")
    return int(found[1]) / 1e6


def test_more_threads_give_the_same_sums_in_no_more_memory() -> None:
    """64 private copies of the forces would be 0.77 GB; sums of 4 pairs agree to the rounding of their order."""
    atoms, count = 1_000_000, 2_000_000
    generator = torch.Generator().manual_seed(1)
    first = torch.arange(atoms).repeat_interleave(2)
    second = (first + torch.randint(1, 1000, (count,), generator=generator)) % atoms
    vectors = 0.3 * torch.rand((count, 3), generator=generator) + 0.02
    pairs, types = torch.stack([first, second]), torch.zeros(count, dtype=torch.int64)
    table = torch.randn(1, KNOTS, generator=generator)
    before, results = torch.get_num_threads(), []
    peak_memory()
    try:
        for threads in (1, 64):
            torch.set_num_threads(threads)
            forces = radial_pair_forces(pairs, types, vectors, vectors.norm(dim=1), table, START, CUTOFF, atoms)[0]
            results.append((forces, peak_memory()))
    finally:
        torch.set_num_threads(before)
    (one, least), (many, most) = results
    torch.testing.assert_close(many, one, rtol=0, atol=8 * 2**-24 * float(one.abs().max()))
    assert most < least + 0.1
