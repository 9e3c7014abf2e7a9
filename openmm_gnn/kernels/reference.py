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
    """The contract of `neighbor_pairs` by an explicit sum over images, in float64, O(N^2) in time.

    Args:
        positions: (num_atoms, 3), any floating dtype; its values are taken as exact.
        cutoff: pairs with |r_ij| < cutoff, strictly.
        box_vectors: (3, 3), rows a, b, c; None: open boundary.
        full: both directions of every pair, or one.
    Returns:
        pairs (2, num_pairs) int64, shifts (num_pairs, 3) int64 for the positions as given, vectors (num_pairs, 3) and
        distances (num_pairs,) float64; in no particular order.
    """
    positions = positions.detach().double()
    num_atoms = positions.shape[0]
    wraps = torch.zeros((num_atoms, 3), dtype=torch.int64)
    images = torch.zeros((1, 3), dtype=torch.int64)
    box = torch.zeros((3, 3), dtype=torch.float64)
    if box_vectors is not None:
        box = box_vectors.detach().double()
        wraps = torch.floor(positions @ torch.linalg.inv(box)).to(torch.int64)
        images = reference_images(cutoff, box)
    inside = positions - wraps.double() @ box
    pairs, shifts, vectors = [torch.empty((2, 0), dtype=torch.int64)], [wraps[:0]], [inside[:0]]
    block = max(1, 200_000 // max(num_atoms, 1))  # rows of the distance matrix at a time, so that they stay in cache
    for first in range(0, num_atoms, block):
        dx, dy, dz = (inside[None, :, k] - inside[first : first + block, None, k] for k in range(3))
        for image in images:
            x, y, z = image.double() @ box
            close = (dx + x).square_().add_((dy + y).square_()).add_((dz + z).square_()) < cutoff * cutoff
            i, j = torch.nonzero(close, as_tuple=True)
            i += first
            # An atom and its own image: never in the same image; the half list has one of the two translations.
            own_images = bool(image.any()) and (full or tuple(image.tolist()) > (0, 0, 0))
            keep = ((i != j) if full else (i < j)) | ((i == j) & own_images)
            i, j = i[keep], j[keep]
            pairs.append(torch.stack([i, j]))
            shifts.append(image + wraps[i] - wraps[j])
            vectors.append(inside[j] - inside[i] + image.double() @ box)
    vector = torch.cat(vectors)
    return torch.cat(pairs, dim=1), torch.cat(shifts), vector, vector.norm(dim=1)
