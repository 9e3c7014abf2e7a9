"""Below the distances that the labels showed, pairs repel: with the charges' own attraction taken off."""

from __future__ import annotations

import pytest
import torch

from openmm_gnn.kernels.particle_mesh import particle_mesh
from openmm_gnn.learning.training.pair_fit import WALL_GROWTH, put_up_walls
from openmm_gnn.networks.pair_term import PairTerm

BOX = 6.0 * torch.eye(3, dtype=torch.float64)
START, CUTOFF, KNOTS, WIDTH = 0.08, 0.7, 65, 0.18
SPACING = (CUTOFF - START) / (KNOTS - 3)
SHORTEST = torch.tensor([0.1653, 0.2347, torch.inf])
"""nm, for the pairs (0, 0), (1, 0) and (1, 1): the last were never seen."""


def some_term(charge_width: float) -> PairTerm:
    term = PairTerm(9, KNOTS, START, CUTOFF, charge_width, num_species=2)
    strengths = 100 * torch.randn((9, 1), generator=torch.Generator().manual_seed(4))
    term.table.copy_(strengths * torch.linspace(1, 0, KNOTS) ** 4)
    if term.charge_term is not None:
        term.charge_term.charges.copy_(torch.tensor([4.0, -8.0]))
    return term


def repulsion(term: PairTerm, kind: int, distance: float) -> float:
    """kJ/mol/nm that pushes two atoms apart, by the term's own code; of charges on a fine grid."""
    pairs = torch.tensor([[0], [1]])
    vectors = torch.tensor([[distance, 0.0, 0.0]])
    forces, _ = term(pairs, torch.tensor([kind]), vectors, torch.tensor([distance]), 2)
    total = float(forces[1, 0])
    if term.charge_term is not None:
        species = {0: [0, 0], 1: [0, 1], 2: [1, 1]}[kind]
        positions = torch.tensor([[3.0, 3.0, 3.0], [3.0 + distance, 3.0, 3.0]], dtype=torch.float64)
        charges = term.charge_term.charges[species].to(torch.float64)
        total += float(particle_mesh(positions, charges, BOX, WIDTH, [180, 180, 180], 6)[0][1, 0])
    return total


@pytest.mark.parametrize("charge_width", [0.0, WIDTH])
@pytest.mark.parametrize("kind", [0, 1])
def test_the_force_goes_on_inwards_and_grows(kind: int, charge_width: float) -> None:
    term = some_term(charge_width)
    put_up_walls(term, SHORTEST)
    count = int((float(SHORTEST[kind]) - START) / SPACING)
    wall = START + count * SPACING
    at_wall, outside = repulsion(term, kind, wall), repulsion(term, kind, wall + 2 * SPACING)
    for fraction in (0.9, 0.5, 0.1):
        depth = (1 - fraction) * (wall - START)
        expected = at_wall + (at_wall - outside) / (2 * SPACING) * depth + WALL_GROWTH * depth**2
        assert repulsion(term, kind, wall - depth) == pytest.approx(expected, rel=5e-3, abs=3.0)


def test_what_the_labels_showed_stays_as_it_was() -> None:
    term, before = some_term(WIDTH), some_term(WIDTH)
    put_up_walls(term, SHORTEST)
    for kind, shortest in enumerate(SHORTEST.tolist()):
        changed = (term.table[kind] != before.table[kind]).nonzero().flatten()
        seen = 0 if shortest == float("inf") else int((shortest - START) / SPACING)
        assert len(changed) == seen and (seen == 0 or int(changed.max()) == seen - 1)
    assert torch.equal(term.table[3:], before.table[3:])  # bonded kinds


def test_pairs_that_came_as_near_as_the_first_knot_need_no_wall() -> None:
    term, before = some_term(0.0), some_term(0.0)
    put_up_walls(term, torch.tensor([0.05, START, START + 0.5 * SPACING]))
    assert torch.equal(term.table, before.table)
