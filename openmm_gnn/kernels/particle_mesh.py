"""Smooth long-range electrostatics on a grid: energy and forces of Gaussian charges in a periodic box.

E = 1/2 sum over k of (4 pi / V k^2) exp(-k^2 w^2 / 2) |S(k)|^2, k not 0, of charges whose pairs interact as
erf(r / (w sqrt 2)) / r. What that is at short range, a pair term can give and take (networks/pair_term.py).
Compiled on the CPU in single precision (csrc/mesh/cpu/particle_mesh.h) but for Fourier transforms; plain elsewhere.

Source: Essmann et al., "A smooth particle mesh Ewald method", J. Chem. Phys. 103, 8577 (1995), 10.1063/1.470117.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
import math
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads

COULOMB = 138.935457644382
"""kJ/mol nm per squared elementary charge; charges in units of its inverse square root need none."""


def spline_columns(offsets: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """M_n(t + k) and its derivative for k = 0 .. n - 1, M_n the cardinal B-spline of this order; eq. (4.1), (4.2).

    Args:
        offsets: (N, 3), t in [0, 1).
    Returns:
        (N, 3, order) each.
    """
    columns = [offsets, 1.0 - offsets]
    slopes = columns
    for n in range(3, order + 1):
        if n == order:
            slopes = [columns[0]]
            for k in range(1, n - 1):
                slopes.append(columns[k] - columns[k - 1])
            slopes.append(-columns[n - 2])
        raised = [offsets * columns[0] / (n - 1)]
        for k in range(1, n - 1):
            raised.append(((offsets + k) * columns[k] + (n - k - offsets) * columns[k - 1]) / (n - 1))
        raised.append((1.0 - offsets) * columns[n - 2] / (n - 1))
        columns = raised
    return torch.stack(columns, dim=2), torch.stack(slopes, dim=2)


def grid_waves(inverse_box: Tensor, sizes: list[int]) -> Tensor:
    """(K1, K2, K3 / 2 + 1, 3): the wave vectors of a transformed grid, 1/nm."""
    device = inverse_box.device
    wave = torch.zeros([1, 1, 1, 3], dtype=inverse_box.dtype, device=device)
    for axis in range(3):
        m = _frequencies(sizes[axis], axis == 2, device).to(inverse_box.dtype)
        shape = [1, 1, 1, 1]
        shape[axis] = m.size(0)
        wave = wave + (2 * math.pi) * m.reshape(shape) * inverse_box[:, axis]
    return wave


def _frequencies(size: int, is_half: bool, device: torch.device) -> Tensor:
    m = torch.arange(size // 2 + 1 if is_half else size, device=device)
    return torch.where(m > size // 2, m - size, m)


def influence(inverse_box: Tensor, volume: Tensor, width: float, sizes: list[int], order: int) -> Tensor:
    """(K1, K2, K3 / 2 + 1): what the transform of the grid is multiplied with; eq. (3.9) and (4.8)."""
    dtype, device = inverse_box.dtype, inverse_box.device
    factor = torch.ones([1, 1, 1], dtype=dtype, device=device)
    knots, _ = spline_columns(torch.zeros([1, 3], dtype=dtype, device=device), order)
    for axis in range(3):
        m = _frequencies(sizes[axis], axis == 2, device)
        shape = [1, 1, 1]
        shape[axis] = m.size(0)
        angle = (2 * math.pi / sizes[axis]) * m.to(dtype)
        real, imaginary = torch.zeros_like(angle), torch.zeros_like(angle)
        for k in range(order - 1):
            real = real + knots[0, 0, k + 1] * torch.cos(angle * k)
            imaginary = imaginary + knots[0, 0, k + 1] * torch.sin(angle * k)
        factor = factor / (real.square() + imaginary.square()).clamp(min=1e-10).reshape(shape)
    squared = grid_waves(inverse_box, sizes).square().sum(3)
    values = (4 * math.pi / volume) * torch.exp(-0.5 * width * width * squared) * factor
    return torch.where(squared > 0, values / squared.clamp(min=1e-10), torch.zeros_like(values))


def particle_mesh(
    positions: Tensor, charges: Tensor, box: Tensor, width: float, sizes: list[int], order: int = 6
) -> tuple[Tensor, Tensor]:
    """Forces (N, 3), kJ/mol/nm, and energy (1,), kJ/mol; self-energies and all pairs included.

    Args:
        positions: (N, 3), nm, wrapped or not.
        charges: (N,), (kJ/mol nm)^(1/2), which is 11.787 elementary charges; their sum does not count.
        box: (3, 3), rows a, b, c, nm.
        width: w, nm.
        sizes: grid points along a, b, c; two per width and box length give forces of random charges to 1e-4.
        order: of the splines, 4, 6 or 8. As exact as 6 with 2 points per width are 4 with 4.5 and 8 with 1.6.
    Raises:
        ValueError: for another order. Transforms of odd splines vanish at the shortest waves of an even grid.
    """
    if order not in [4, 6, 8]:
        raise ValueError(f"order is {order}: give 4, 6 or 8")
    differentiated = positions.requires_grad or charges.requires_grad or box.requires_grad
    if positions.is_cuda or positions.dtype != torch.float32 or (differentiated and torch.is_grad_enabled()):
        return particle_mesh_reference(positions, charges, box, width, sizes, order)
    threads = available_threads()
    positions, charges = positions.contiguous(), charges.contiguous()
    grid = torch.ops.openmm_gnn.mesh_charges(positions, charges, box, sizes[0], sizes[1], sizes[2], order, threads)
    transformed = torch.fft.rfftn(grid).contiguous()
    torch.ops.openmm_gnn.mesh_influence(torch.view_as_real(transformed), box, width, sizes[2], order, threads)
    potential = torch.fft.irfftn(transformed, s=sizes, norm="forward").contiguous()
    return torch.ops.openmm_gnn.mesh_forces(positions, charges, box, potential, order, threads)


def mesh_strain(
    positions: Tensor, charges: Tensor, box: Tensor, width: float, sizes: list[int], order: int = 6
) -> Tensor:
    """(3, 3) kJ/mol: the derivative of `particle_mesh`'s energy by a strain e, which moves r to r (1 + e).

    The grid of charges stays as it is, and so does S(k): what changes is 1 / V, by -1, and k^2, by -2 k_a k_b; eq.
    (2.7). On the CPU in single precision; arguments as for `particle_mesh`.
    """
    threads = available_threads()
    grid = torch.ops.openmm_gnn.mesh_charges(positions, charges, box, sizes[0], sizes[1], sizes[2], order, threads)
    transformed = torch.view_as_real(torch.fft.rfftn(grid)).square().sum(3)
    inverse = torch.linalg.inv(box)
    energies = 0.5 * transformed * influence(inverse, torch.linalg.det(box).abs(), width, sizes, order)
    inner = (sizes[2] + 1) // 2
    energies[:, :, 1:inner] *= 2.0  # waves along -c are not on the grid
    waves = grid_waves(inverse, sizes)
    squared = waves.square().sum(3)
    weighted = (2.0 / squared.clamp(min=1e-10) + width * width) * energies
    along = torch.einsum("xyz,xyza,xyzb->ab", weighted, waves, waves)
    return along - energies.sum() * torch.eye(3, dtype=box.dtype, device=box.device)


def particle_mesh_reference(
    positions: Tensor, charges: Tensor, box: Tensor, width: float, sizes: list[int], order: int = 6
) -> tuple[Tensor, Tensor]:
    """`particle_mesh` in plain torch, any dtype, differentiable."""
    inverse = torch.linalg.inv(box)
    counts = torch.tensor(sizes, dtype=positions.dtype, device=positions.device)
    scaled = (positions @ inverse - torch.floor(positions @ inverse)) * counts
    first = torch.floor(scaled)
    weights, slopes = spline_columns(scaled - first, order)
    back = torch.arange(order, device=positions.device)
    strides = [sizes[1] * sizes[2], sizes[2], 1]
    ends: list[Tensor] = []
    for axis in range(3):
        index = torch.remainder(first[:, axis].to(torch.int64).unsqueeze(1) - back, sizes[axis])
        ends.append(index * strides[axis])
    flat = ends[0][:, :, None, None] + ends[1][:, None, :, None] + ends[2][:, None, None, :]
    wx, wy, wz = weights[:, 0, :, None, None], weights[:, 1, None, :, None], weights[:, 2, None, None, :]
    spread = charges[:, None, None, None] * wx * wy * wz
    grid = torch.zeros(sizes[0] * sizes[1] * sizes[2], dtype=positions.dtype, device=positions.device)
    grid = grid.index_add(0, flat.reshape(-1), spread.reshape(-1)).reshape(sizes)
    transformed = torch.fft.rfftn(grid)
    kernel = influence(inverse, torch.linalg.det(box).abs(), width, sizes, order)
    potential = torch.fft.irfftn(transformed * kernel, s=sizes) * float(sizes[0] * sizes[1] * sizes[2])
    near = potential.reshape(-1).index_select(0, flat.reshape(-1)).reshape(flat.shape)
    energy = 0.5 * (spread * near).sum()
    dx, dy, dz = slopes[:, 0, :, None, None], slopes[:, 1, None, :, None], slopes[:, 2, None, None, :]
    along = [near * dx * wy * wz, near * wx * dy * wz, near * wx * wy * dz]
    gradient = torch.stack([values.sum((1, 2, 3)) for values in along], dim=1)
    forces = -charges.unsqueeze(1) * ((gradient * counts) @ inverse.T)
    return forces, energy.reshape(1)


@torch.library.register_fake("openmm_gnn::mesh_charges")
def _mesh_charges_fake(positions: Tensor, *arguments: Any) -> Tensor:
    return positions.new_empty(arguments[2:5])


@torch.library.register_fake("openmm_gnn::mesh_influence")
def _mesh_influence_fake(*_: Any) -> None:
    return None


@torch.library.register_fake("openmm_gnn::mesh_forces")
def _mesh_forces_fake(positions: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(positions), positions.new_empty((1,))
