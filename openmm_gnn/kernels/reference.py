"""The truth: neighbour pairs in plain torch, by trying every image of every pair."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def reference_images(cutoff: float, box_vectors: Tensor) -> Tensor:
    """All lattice translations that can bring an atom of the box within the cutoff of another.

    Args:
        cutoff: in the unit of the box.
        box_vectors: (3, 3), rows a, b, c.
    Returns:
        (num_images, 3) int64. Two atoms inside the cell are less than one cell apart along each vector, so image S is
        needed only if |S_k| < cutoff / height_k + 1.
    """
    heights = 1.0 / torch.linalg.inv(box_vectors.double()).norm(dim=0)
    reach = [int(cutoff / float(height)) + 1 for height in heights]
    return torch.tensor(list(itertools.product(*(range(-k, k + 1) for k in reach))), dtype=torch.int64)


def reference_neighbor_pairs(
    positions: Tensor, cutoff: float, box_vectors: Tensor | None = None, full: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The contract of `neighbor_pairs` by an explicit sum over images, O(N^2) in time. In the positions' precision.

    Args:
        positions: (num_atoms, 3).
        cutoff: pairs with |r_ij| < cutoff, strictly.
        box_vectors: (3, 3), rows a, b, c; None: open boundary.
        full: both directions of every pair, or one.
    Returns:
        pairs (2, num_pairs) int64, shifts (num_pairs, 3) int64 for the raw positions, vectors (num_pairs, 3),
        distances (num_pairs,); ordered by i, j, shift.
    """
    num_atoms = positions.shape[0]
    if box_vectors is None:
        box = torch.zeros((3, 3), dtype=positions.dtype)
        wraps = torch.zeros((num_atoms, 3), dtype=torch.int64)
        images = torch.zeros((1, 3), dtype=torch.int64)
    else:
        box = box_vectors
        wraps = torch.floor(positions.double() @ torch.linalg.inv(box.double())).to(torch.int64)
        images = reference_images(cutoff, box)
    inside = (positions.double() - wraps.double() @ box.double()).to(positions.dtype)
    differences = inside[None, :, :] - inside[:, None, :]
    found: list[Tensor] = []
    for image in images:
        vectors = differences + (image.double() @ box.double()).to(positions.dtype)
        close = (vectors * vectors).sum(dim=2) < positions.new_tensor(cutoff) ** 2
        if not image.any():
            close.fill_diagonal_(False)
        i, j = torch.nonzero(close, as_tuple=True)
        found.append(torch.cat([i[:, None], j[:, None], image.expand(len(i), 3) + wraps[i] - wraps[j]], dim=1))
    rows = torch.unique(torch.cat(found), dim=0)  # sorted by i, j, shift; every row is there once
    if not full:
        i, j, shift = rows[:, 0], rows[:, 1], rows[:, 2:]
        weight = torch.sign(shift) @ torch.tensor([9, 3, 1])  # its sign is that of the first component not zero
        rows = rows[(i < j) | ((i == j) & (weight > 0))]
    pairs, shifts = rows[:, :2].T.contiguous(), rows[:, 2:]
    i, j = pairs[0], pairs[1]
    image = shifts - wraps[i] + wraps[j]
    vectors = inside[j] - inside[i] + (image.double() @ box.double()).to(positions.dtype)
    return pairs, shifts, vectors, (vectors * vectors).sum(dim=1).sqrt()
