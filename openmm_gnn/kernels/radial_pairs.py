"""Kinds of pairs, and forces that depend on a pair's kind and distance alone: compiled, with plain forms beside.

On CUDA forces are added up as integers, multiples of 2^-32 of their unit: the same bits at every call.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads
from openmm_gnn.kernels.vector_network import spline_weights


def pair_types(pairs: Tensor, species: Tensor, partners: Tensor, num_species: int) -> Tensor:
    """(P,) int64: the kind of each pair, 0 for padding.

    Kinds count the unordered pairs of species for each separation: 0 for atoms that no or more bonds connect, 1 for
    bonded ones, 2 for those with one atom in between.

    Args:
        pairs: (2, P) int64; -1 is padding.
        species: (N,) int64.
        partners: (2, N, most) int64 of `topology_tables.separation_table`.
    """
    return torch.ops.openmm_gnn.pair_types(pairs, species, partners, num_species)


def pair_types_reference(pairs: Tensor, species: Tensor, partners: Tensor, num_species: int) -> Tensor:
    """`pair_types` in plain torch."""
    i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
    first, second = species.index_select(0, i), species.index_select(0, j)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    separation = torch.zeros_like(i)
    for level in range(partners.size(0)):
        found = (partners[level].index_select(0, i) == j.unsqueeze(1)).any(dim=1)
        separation = torch.where(found, torch.full_like(i, level + 1), separation)
    types = separation * (num_species * (num_species + 1) // 2) + high * (high + 1) // 2 + low
    return torch.where((pairs[0] < 0) | (pairs[1] < 0), torch.zeros_like(types), types)


def radial_pair_forces(
    pairs: Tensor,
    types: Tensor,
    vectors: Tensor,
    distances: Tensor,
    table: Tensor,
    start: float,
    cutoff: float,
    num_atoms: int,
) -> tuple[Tensor, Tensor]:
    """Forces and energy of a sum of splines of the distances; not differentiable.

    E = sum over pairs of U_t(r), U_t a cubic spline; below `start` it goes on along its tangent.

    Args:
        pairs, types: (2, P) and (P,) int64, each pair once; -1 is padding.
        vectors, distances: (P, 3) from i to j and (P,).
        table: (num_types, num_knots), spline coefficients on [start, cutoff]; unless it is float32 the sum is plain
            torch.
    Returns:
        forces (N, 3) and energy (1,), in the table's energy unit and the unit of the vectors. On CUDA NaN if some force
        is not finite, or 2^30 and more, or a distance is NaN: so a list says that it is invalid.
    """
    if table.dtype != torch.float32:
        return radial_pair_forces_reference(pairs, types, vectors, distances, table, start, cutoff, num_atoms)
    return torch.ops.openmm_gnn.radial_pair_forces(
        pairs, types, vectors, distances, table, start, cutoff, available_threads(), num_atoms
    )


def spline_slopes(distances: Tensor, start: float, cutoff: float, num_knots: int) -> Tensor:
    """(P, 4): derivatives of the weights of `spline_weights` by the distance; those at `start` below it."""
    spacing = (cutoff - start) / (num_knots - 3)
    x = ((distances - start) / spacing).clamp(min=0.0)
    knots = x.to(torch.int64).clamp(max=num_knots - 4)
    t = (x - knots).clamp(max=1.0)
    slopes = [-0.5 * (1 - t) ** 2, 1.5 * t**2 - 2 * t, -1.5 * t**2 + t + 0.5, 0.5 * t**2]
    return torch.stack(slopes, dim=1) / spacing


def radial_pair_forces_reference(
    pairs: Tensor,
    types: Tensor,
    vectors: Tensor,
    distances: Tensor,
    table: Tensor,
    start: float,
    cutoff: float,
    num_atoms: int,
) -> tuple[Tensor, Tensor]:
    """`radial_pair_forces` in plain torch, any dtype."""
    num_knots = table.size(1)
    knots, weights = spline_weights(distances, start, cutoff, num_knots)
    columns = (types * num_knots + knots).unsqueeze(1) + torch.arange(4, device=pairs.device)
    coefficients = table.reshape(-1).index_select(0, columns.reshape(-1)).view(-1, 4)
    slope = (coefficients * spline_slopes(distances, start, cutoff, num_knots)).sum(1)
    energy = (coefficients * weights).sum(1) + slope * (distances - start).clamp(max=0.0)
    counts = (pairs[0] >= 0) & (distances < cutoff)
    zero = torch.zeros_like(slope)
    slope, energy = torch.where(counts, slope, zero), torch.where(counts, energy, zero)
    pair_forces = (slope / distances.clamp(min=1e-6)).unsqueeze(-1) * vectors
    return scatter_pair_forces(pair_forces, pairs, num_atoms), energy.sum().reshape(1)


def scatter_pair_forces(pair_forces: Tensor, pairs: Tensor, num_atoms: int) -> Tensor:
    """(N, 3): the sum of forces (P, 3) that push i along r_ij and j against it; padded pairs must be zero.

    Differentiable. Where nothing is differentiated, forces of float32 on CUDA are added as those above.
    """
    differentiated = torch.is_grad_enabled() and pair_forces.requires_grad
    if pair_forces.is_cuda and pair_forces.dtype == torch.float32 and not differentiated:
        return torch.ops.openmm_gnn.pair_force_sums(pair_forces.contiguous(), pairs, num_atoms)
    forces = torch.zeros((num_atoms, 3), dtype=pair_forces.dtype, device=pair_forces.device)
    i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
    return forces.index_add(0, i, pair_forces).index_add(0, j, -pair_forces)


@torch.library.register_fake("openmm_gnn::pair_types")
def _pair_types_fake(pairs: Tensor, species: Tensor, partners: Tensor, num_species: int) -> Tensor:
    return torch.empty_like(pairs[0])


@torch.library.register_fake("openmm_gnn::radial_pair_forces")
def _radial_pair_forces_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    table, num_atoms = arguments[4], arguments[8]
    return table.new_empty((num_atoms, 3)), table.new_empty((1,))


@torch.library.register_fake("openmm_gnn::pair_force_sums")
def _pair_force_sums_fake(pair_forces: Tensor, pairs: Tensor, num_atoms: int) -> Tensor:
    return pair_forces.new_empty((num_atoms, 3))
