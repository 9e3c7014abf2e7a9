"""The least-squares pair term recovers a potential that is pairwise, and leaves the network what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmm_gnn.base.errors import DataError
from openmm_gnn.graph.topology_tables import no_partners
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.particle_mesh import particle_mesh
from openmm_gnn.learning.training.pair_fit import PairFit, evenly
from openmm_gnn.networks.pair_term import PairTerm

NUM_ATOMS, BOX, START, CUTOFF = 60, 1.6, 0.15, 0.75
SPECIES = torch.arange(NUM_ATOMS) % 2
PARTNERS = no_partners(NUM_ATOMS)


def true_slope(distances: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """dU/dr of three smooth potentials that vanish at the cutoff."""
    rest = 1 - (distances / CUTOFF) ** 2
    return -(1.0 + kinds) * 40 * rest**3 * torch.cos(6 * distances + kinds)


def frame(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions, box and pairwise forces; no two atoms nearer than 0.15 nm."""
    generator = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[:NUM_ATOMS] * (BOX / 4)
    positions = torch.from_numpy(sites + generator.uniform(-0.12, 0.12, (NUM_ATOMS, 3)))
    box = BOX * torch.eye(3, dtype=torch.float64)
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
    kinds = SPECIES[pairs[0]] + SPECIES[pairs[1]]
    pair_forces = (true_slope(distances, kinds) / distances).unsqueeze(1) * vectors
    forces = torch.zeros_like(positions).index_add(0, pairs[0], pair_forces).index_add(0, pairs[1], -pair_forces)
    return positions, box, forces


def fitted(num_frames: int) -> PairTerm:
    term = PairTerm(3 * 3, 40, START, CUTOFF)
    fit = PairFit(term, 2)
    for seed in range(num_frames):
        fit.add(*frame(seed), SPECIES, PARTNERS)
    fit.solve()
    return term


def test_pairwise_forces_of_new_frames_are_recovered() -> None:
    term = fitted(20)
    positions, box, forces = frame(99)
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
    kinds = SPECIES[pairs[0]] + SPECIES[pairs[1]]
    predicted, _ = term(pairs, kinds, vectors.float(), distances.float(), NUM_ATOMS)
    assert float((predicted - forces).abs().max()) < 2e-3 * float(forces.abs().max())


def test_energy_and_force_vanish_at_the_cutoff_and_unseen_kinds_stay_zero() -> None:
    table = fitted(5).table
    assert not table[:, -3:].any()
    assert not table[3:].any()
    assert table[:3].any(dim=1).all()


@pytest.mark.parametrize(("count", "wanted", "expected"), [(10, 3, [0, 4, 8]), (3, 10, [0, 1, 2]), (1, 1, [0])])
def test_frames_are_taken_evenly(count: int, wanted: int, expected: list[int]) -> None:
    assert list(evenly(count, wanted)) == expected


def test_charges_are_recovered_beside_the_pair_potential() -> None:
    species = (torch.arange(NUM_ATOMS) % 3 == 0).to(torch.int64)  # twice as many of the first: charges 1 and -2
    charges = torch.tensor([3.0, -6.0], dtype=torch.float64)
    term = PairTerm(9, 40, START, CUTOFF, charge_width=0.2, num_species=2)
    fit = PairFit(term, 2)
    for seed in range(12):
        positions, box, _ = frame(seed)
        pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
        kinds = species[pairs[0]] + species[pairs[1]]
        pair_forces = (true_slope(distances, kinds) / distances).unsqueeze(1) * vectors
        forces = torch.zeros_like(positions).index_add(0, pairs[0], pair_forces).index_add(0, pairs[1], -pair_forces)
        forces = forces + particle_mesh(positions, charges[species], box, 0.2, [24, 24, 24])[0]
        fit.add(positions, box, forces, species, PARTNERS)
    fit.solve()
    assert term.charge_term is not None
    np.testing.assert_allclose(term.charge_term.charges.numpy(), charges.numpy(), rtol=1e-2)


def test_forces_that_no_charges_have_are_refused() -> None:
    """Equal charges that attract: the square of a charge would be negative."""
    species = (torch.arange(NUM_ATOMS) % 3 == 0).to(torch.int64)
    charges = torch.tensor([3.0, -6.0], dtype=torch.float64)
    fit = PairFit(PairTerm(9, 40, START, CUTOFF, charge_width=0.2, num_species=2), 2)
    for seed in range(4):
        positions, box, _ = frame(seed)
        repelled = -particle_mesh(positions, charges[species], box, 0.2, [24, 24, 24])[0]
        fit.add(positions, box, repelled, species, PARTNERS)
    with pytest.raises(DataError, match="no charges explain these forces"):
        fit.solve()
