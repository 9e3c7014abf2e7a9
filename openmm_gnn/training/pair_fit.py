"""The pair term, fitted to labelled forces by linear least squares before a network learns what is left.

Source: Izvekov and Voth, J. Phys. Chem. B 109, 2469 (2005), 10.1021/jp044629q: force matching of pair splines.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import pair_types, spline_slopes
from openmm_gnn.kernels.vector_network_reference import spline_weights
from openmm_gnn.models.pair_term import PairTerm

SMOOTHNESS = 1e-6
"""Weight of the coefficients' third differences beside the mean of the normal matrix's diagonal."""
RIDGE = 1e-9
"""The same for the coefficients themselves: decides about kinds of pairs that never come."""
END_KNOTS = 3
"""Coefficients at the cutoff that stay zero, so that energy, force and its slope vanish there."""


class PairFit:
    """Normal equations of a pair term, frame by frame.

    Args:
        term: whose table `solve` fills.
        num_species: of the network.
    """

    def __init__(self, term: PairTerm, num_species: int) -> None:
        self.term = term
        self.num_species = num_species
        self.num_types, self.num_knots = term.table.shape
        size = self.num_types * self.num_knots
        self.matrix = torch.zeros((size, size), dtype=torch.float64)
        self.target = torch.zeros(size, dtype=torch.float64)

    def add(self, positions: Tensor, box: Tensor | None, forces: Tensor, species: Tensor, partners: Tensor) -> None:
        """One frame: (N, 3) float64 in nm and kJ/mol/nm, box vectors or None, and the tables of its topology."""
        term = self.term
        pairs, vectors, distances = neighbor_pairs(positions, term.cutoff, box, full=False)
        types = pair_types(pairs, species, partners, self.num_species)
        knots, _ = spline_weights(distances, term.start, term.cutoff, self.num_knots)
        slopes = spline_slopes(distances, term.start, term.cutoff, self.num_knots)
        columns = (types * self.num_knots + knots).unsqueeze(1) + torch.arange(4)
        used, columns = torch.unique(columns, return_inverse=True)
        units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
        features = torch.zeros(positions.size(0) * 3 * len(used), dtype=torch.float64)
        for axis in range(3):
            values = (slopes * units[:, axis : axis + 1]).reshape(-1)
            for sign, atoms in ((1.0, pairs[0]), (-1.0, pairs[1])):
                places = ((atoms * 3 + axis) * len(used)).unsqueeze(1) + columns
                features.index_add_(0, places.reshape(-1), sign * values)
        matrix = features.view(-1, len(used))
        self.matrix[used.unsqueeze(1), used] += matrix.T @ matrix
        self.target[used] += matrix.T @ forces.reshape(-1)

    def solve(self) -> None:
        """Write the best coefficients into the pair term."""
        scale = float(self.matrix.diagonal().mean())
        differences = torch.zeros((self.num_knots - 3, self.num_knots), dtype=torch.float64)
        for offset, weight in enumerate((-1.0, 3.0, -3.0, 1.0)):
            differences.diagonal(offset).fill_(weight)
        penalty = scale * (SMOOTHNESS * differences.T @ differences + RIDGE * torch.eye(self.num_knots))
        matrix = self.matrix + torch.block_diag(*[penalty] * self.num_types)
        free = torch.arange(self.num_knots) < self.num_knots - END_KNOTS
        free = free.repeat(self.num_types).nonzero().flatten()
        coefficients = torch.zeros_like(self.target)
        coefficients[free] = torch.linalg.solve(matrix[free][:, free], self.target[free])
        self.term.table.copy_(coefficients.view(self.num_types, self.num_knots))


def evenly(count: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of `count` indices, evenly spread."""
    return range(0, count, max(1, -(-count // wanted)))
