"""Energy and forces of a whole VectorGAMD of fixed weights as one operator: how it takes the weights.

`torch.ops.openmm_gnn.vector_gamd_forces` does what `networks.vector_gamd` does with neighbour lists, pair term and
charges, forth and back, without autograd and in one call; csrc/vector_gamd/network_forces.h has its contract.
"""

# No `from __future__ import annotations` here: torch.library reads the types of functions.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)


def in_panels(matrix: Tensor) -> Tensor:
    """The numbers of a matrix in panels of 16 columns, in the order in which products read them."""
    return matrix.unflatten(1, (-1, 16)).transpose(0, 1).flatten()


def packed_linear(weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> list[Tensor]:
    """A linear map as the operator takes it: by input, the bias, and by output for the way back.

    Args:
        weight: (outputs, inputs), multiples of 16.
        bias: (outputs,); None: zeros.
        scale: factor of the weight.
    """
    matrix = scale * weight
    return [in_panels(matrix.T), weight.new_zeros(len(weight)) if bias is None else bias, in_panels(matrix)]


def spline_polynomials(table: Tensor) -> Tensor:
    """(types, intervals, 4) float64: cubic B-splines as polynomials of the place in each interval, from 0 to 1.

    Args:
        table: (types, knots), the coefficients on equally spaced knots; there are three intervals less.
    """
    a, b, c, d = (table[:, m : table.size(1) - 3 + m].double() for m in range(4))
    terms = [(a + 4 * b + c) / 6, (c - a) / 2, (a - 2 * b + c) / 2, (d - a + 3 * (b - c)) / 6]
    return torch.stack(terms, dim=2)


def keeps_grid(positions: Tensor) -> bool:
    """Whether the charges' grid is chosen once for all steps: on CUDA, where reading the box would mean to wait."""
    return positions.is_cuda


@torch.library.register_fake("openmm_gnn::vector_gamd_forces")
def _vector_gamd_forces_fake(positions: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return positions.new_empty(()), positions.new_empty(positions.shape)
