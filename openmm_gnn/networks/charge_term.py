"""Electrostatics beyond every cutoff: a charge for each element, smeared, on a grid.

Together with a pair term the charges make an Ewald sum whose short-range part is learned: the splines of the pair term
take up what Gaussian charges do at short range, exclusions included. So a pair term of 0.7 nm leaves less than one of
1.3 nm does alone, and as little in large boxes as in small ones.

Source: the split is Ewald's, Ann. Phys. 369, 253 (1921); charges learned from forces as in Cheng, "Latent Ewald
summation for machine learning of long-range interactions", npj Comput. Mater. 11, 80 (2025), arXiv 2408.15165.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import math

import torch
from torch import Tensor, nn

from openmm_gnn.kernels.particle_mesh import particle_mesh


class ChargeTerm(nn.Module):
    """Energy and forces of Gaussian charges, one value per element.

    Args:
        num_species: of the network.
        width: of the Gaussians that interact as erf(r / (width sqrt 2)) / r, nm.
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
            sizes: of `grid_sizes`.
        """
        inverse = torch.linalg.inv(box)
        wrapped = positions - torch.floor(positions @ inverse) @ box  # in double precision, if that is what came
        dtype = self.charges.dtype
        charges = self.charges.index_select(0, species)
        return particle_mesh(wrapped.to(dtype), charges, box.to(dtype), self.width, sizes)


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
