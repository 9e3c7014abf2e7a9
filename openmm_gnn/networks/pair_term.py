"""A sum over pairs that reaches farther than the network: what is pairwise and long-ranged needs no network.

Electrostatics between molecules reaches over nanometres, where a network would need hundreds of neighbours. Most of it
is a function of two atoms' species and distance; that part is a table of splines, fitted to the labels by least squares
before the network learns the rest (learning/training/pair_fit.py).
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.

import torch
from torch import Tensor, nn

from openmm_gnn.kernels.radial_pairs import radial_pair_forces
from openmm_gnn.networks.charge_term import ChargeTerm


class PairTerm(nn.Module):
    """E = sum over pairs of U_t(r) with cubic splines U_t, which vanish with two derivatives at the cutoff.

    Args:
        num_types: kinds of pairs, see `pair_types`.
        num_knots: coefficients of a spline; the last three are zero.
        start, cutoff: nm.
        charge_width: of charges that act beyond the cutoff, nm; 0: none.
        num_species: of the network.
    """

    table: Tensor

    def __init__(
        self,
        num_types: int,
        num_knots: int,
        start: float,
        cutoff: float,
        charge_width: float = 0.0,
        num_species: int = 1,
    ) -> None:
        super().__init__()
        self.charge_term = ChargeTerm(num_species, charge_width) if charge_width > 0 else None
        self.start, self.cutoff = float(start), float(cutoff)
        self.register_buffer("table", torch.zeros((num_types, num_knots)))

    def forward(
        self, pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor, num_atoms: int
    ) -> tuple[Tensor, Tensor]:
        """Forces (N, 3), kJ/mol/nm, and energy (1,), kJ/mol, of pairs within the cutoff, each given once.

        Those of the charges are the charge term's.
        """
        return radial_pair_forces(pairs, types, vectors, distances, self.table, self.start, self.cutoff, num_atoms)
