"""What a force model has beyond its network's cutoff: a sum over far pairs, and charges on a grid.

Electrostatics between molecules reaches over nanometres, where a network would need hundreds of neighbours. Most of it
is a function of two atoms' species and distance; that part is a table of splines, fitted to the labels by least squares
before the network learns the rest (learning/training/pair_fit.py).

Beyond every cutoff act Gaussian charges, one per element. Together with the splines they make an Ewald sum whose
short-range part is learned: the splines take up what the charges do at short range, exclusions included. So a pair term
of 0.7 nm leaves less than one of 1.3 nm does alone, and as little in large boxes as in small ones.

Source: the split is Ewald's, Ann. Phys. 369, 253 (1921); charges learned from forces as in Cheng, "Latent Ewald
summation for machine learning of long-range interactions", npj Comput. Mater. 11, 80 (2025), arXiv 2408.15165.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import math

import torch
from torch import Tensor, nn

from openmm_gnn.kernels.particle_mesh import mesh_strain, particle_mesh
from openmm_gnn.kernels.radial_pairs import radial_pair_forces, scatter_pair_forces
from openmm_gnn.networks.force_model import PairList


class ChargeTerm(nn.Module):
    """Energy and forces of Gaussian charges, one value per element.

    Args:
        num_species: number of species the network knows.
        width: width of the Gaussians, which interact as erf(r / (width sqrt 2)) / r, nm.
    """

    charges: Tensor

    def __init__(self, num_species: int, width: float) -> None:
        super().__init__()
        self.width = float(width)
        self.register_buffer("charges", torch.zeros(num_species))

    def forward(self, positions: Tensor, species: Tensor, box: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """Forces (N, 3), kJ/mol/nm, and energy (1,), kJ/mol.

        Args:
            positions: (N, 3), nm, wrapped or not.
            species: (N,) int64.
            box: (3, 3), rows a, b, c, nm.
            sizes: points of the grid along each box vector, from `grid_sizes`.
        """
        charges = self.charges.index_select(0, species)
        return particle_mesh(self.wrapped(positions, box), charges, box.to(charges.dtype), self.width, sizes)

    def strain(self, positions: Tensor, species: Tensor, box: Tensor, sizes: list[int]) -> Tensor:
        """(3, 3) as `mesh_strain`; arguments as for `forward`."""
        charges = self.charges.index_select(0, species)
        return mesh_strain(self.wrapped(positions, box), charges, box.to(charges.dtype), self.width, sizes)

    def wrapped(self, positions: Tensor, box: Tensor) -> Tensor:
        """(N, 3) in the box, of the charges' dtype; double precision is used, if that is what came."""
        return (positions - torch.floor(positions @ torch.linalg.inv(box)) @ box).to(self.charges.dtype)


def grid_sizes(lengths: list[float], width: float, points_per_width: float = 2.0) -> list[int]:
    """Points along box vectors of these lengths in nm: products of 2, 3 and 5, which transform fast.

    With two points in the width of a charge, splines of order 6 leave errors below 2e-4 of the largest force of random
    charges, and below 5e-4 in water, where charges cancel and forces are a fiftieth of that; 2.25 leave 2e-4 there.
    """
    sizes: list[int] = []
    for length in lengths:
        size = max(8, math.ceil(points_per_width * length / width))
        while not is_fast(size):
            size += 1
        sizes.append(size)
    return sizes


def is_fast(number: int) -> bool:
    """Whether a number is a product of 2, 3 and 5."""
    for factor in [2, 3, 5]:
        while number % factor == 0:
            number = number // factor
    return number == 1


def box_lengths(box: Tensor | None) -> list[float]:
    """Lengths of the box vectors.

    Raises:
        ValueError: if there is no box: charges on a grid repeat in every direction.
    """
    if box is None:
        raise ValueError("this model has a charge term, which needs a periodic box: simulate in one")
    return [float(box[0].norm()), float(box[1].norm()), float(box[2].norm())]


class PairTerm(nn.Module):
    """E = sum over pairs of U_t(r) with cubic splines U_t, which vanish with two derivatives at the cutoff.

    Args:
        num_types: number of types of pairs, see `pair_types`.
        num_knots: coefficients of a spline; the last three are zero.
        start, cutoff: nm.
        charge_width: width of Gaussian charges that act beyond the cutoff, nm; 0: none.
        num_species: number of species the network knows.
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

        Energy and forces of the charges are not among them.
        """
        return radial_pair_forces(pairs, types, vectors, distances, self.table, self.start, self.cutoff, num_atoms)

    def energy_and_forces(
        self, species: Tensor, far: PairList, positions: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Energy (1,), kJ/mol, and forces (N, 3), kJ/mol/nm, of the pairs and the charges.

        Args:
            species: (N,) int64.
            far: pairs within the cutoff, with their types.
            positions: (N, 3), nm, wrapped or not.
            box: (3, 3), rows a, b, c, nm.
        Raises:
            ValueError: if there are charges and no box.
        """
        types = far.types
        assert types is not None
        forces, energy = self.forward(far.pairs, types, far.vectors, far.distances, species.size(0))
        if self.charge_term is not None:
            sizes = self.sizes_of(box)
            assert box is not None
            charge_forces, charge_energy = self.charge_term(positions, species, box, sizes)
            forces, energy = forces + charge_forces, energy + charge_energy
        return energy, forces

    def strained(
        self, species: Tensor, far: PairList, positions: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `ForceModel.strained`, of the pairs and the charges; arguments as for `energy_and_forces`."""
        types = far.types
        assert types is not None
        count = types.size(0)
        apart = torch.arange(2 * count, device=types.device).reshape(-1, 2).T  # atoms of their own for each pair
        pushes, energy = self.forward(apart.contiguous(), types, far.vectors, far.distances, 2 * count)
        gradient = pushes.reshape(-1, 2, 3)[:, 0]
        forces, strain = scatter_pair_forces(gradient, far.pairs, species.size(0)), far.vectors.T @ gradient
        if self.charge_term is not None:
            sizes = self.sizes_of(box)
            assert box is not None
            charge_forces, charge_energy = self.charge_term(positions, species, box, sizes)
            forces, energy = forces + charge_forces, energy + charge_energy
            strain = strain + self.charge_term.strain(positions, species, box, sizes)
        return energy, forces, strain

    def sizes_of(self, box: Tensor | None) -> list[int]:
        """Points of the charges' grid along each box vector.

        Raises:
            ValueError: if there is no box.
        """
        assert self.charge_term is not None
        return grid_sizes(box_lengths(box), self.charge_term.width)
