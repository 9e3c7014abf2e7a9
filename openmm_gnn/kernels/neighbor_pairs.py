"""Neighbour pairs with vectors and distances, differentiable twice in positions and box; and the reference: plain
torch that tries every image of every pair."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from openmm_gnn.kernels import library as library


def available_threads() -> int:
    """Threads for an operator: PyTorch's number, or 0, by which a compiled graph lets the operator ask the system."""
    if torch.jit.is_scripting():
        return 0
    else:
        return 0 if torch.compiler.is_compiling() else torch.get_num_threads()


def wants_gradient(positions: Tensor, box_vectors: Tensor) -> bool:
    """Whether vectors must be tensor operations of these inputs."""
    return torch.is_grad_enabled() and (positions.requires_grad or box_vectors.requires_grad)


def safe_distances(vectors: Tensor, dim: int = 1) -> Tensor:
    """Lengths of vectors, with gradient zero (not NaN) where a length is zero: coincident atoms.

    Args:
        vectors: (num_pairs, 3), or of any shape with the components x, y, z along `dim`.
    Returns:
        (num_pairs,), or the shape without that dimension; differentiable twice.
    """
    squared = vectors.square().sum(dim=dim)
    coincident = squared == 0
    return torch.where(coincident, 1.0, squared).sqrt().masked_fill(coincident, 0.0)


def pair_vectors(positions: Tensor, pairs: Tensor, shifts: Tensor, box_vectors: Tensor) -> Tensor:
    """Vectors from atom i to atom j, r_ij = r_j - r_i + S @ box, as differentiable tensor operations.

    Args:
        positions: (num_atoms, 3), any length unit, used consistently.
        pairs: (2, num_pairs) int64, rows i and j, no padding.
        shifts: (num_pairs, 3) integers S for these positions.
        box_vectors: (3, 3), rows a, b, c; or (0, 3): open boundary.
    Returns:
        (num_pairs, 3).
    """
    vectors = positions.index_select(0, pairs[1]) - positions.index_select(0, pairs[0])
    if box_vectors.shape[0] == 3:
        vectors = vectors + shifts.to(positions.dtype) @ box_vectors
    return vectors


@torch.jit.unused
def require_tensors(positions: Tensor, box_vectors: Tensor | None) -> None:
    """Refuse arguments that are no tensors.

    Raises:
        TypeError: naming what is no tensor, and how to make one.
    """
    for name, value in (("positions", positions), ("box_vectors", box_vectors)):
        if value is not None and not isinstance(value, Tensor):
            kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
            raise TypeError(f"{name} is a {kind}: give a tensor, torch.tensor({name}), of plain numbers in one unit")


def neighbor_pairs(
    positions: Tensor, cutoff: float, box_vectors: Tensor | None = None, full: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of atoms, or of an atom and a periodic image, closer than the cutoff.

    A cutoff beyond half the box is right too: several images of one neighbour, and of the atom itself, are pairs.
    Coincident atoms are a pair (with zero gradient of the distance); an atom with itself in the same image is not.

    Args:
        positions: (num_atoms, 3) float32 or float64, any length unit, used consistently; inside or outside the box.
        cutoff: pairs with `|r_ij| < cutoff`, strictly.
        box_vectors: (3, 3) of the same dtype, rows a, b, c of any cell with volume; None: open boundary.
        full: both (i, j) and (j, i); otherwise each pair once, with i < j or, for an image of i itself, the
            lexicographically positive lattice translation.
    Returns:
        pairs (2, num_pairs) int64, ordered by i; vectors (num_pairs, 3) r_ij from i to j; distances (num_pairs,).
        Vectors and distances can be differentiated twice, in positions and box_vectors.
    Raises:
        RuntimeError: for positions that are not finite, a box without volume, a cutoff that is not above 0, wrong
            shapes or dtypes; the message says which.
        TypeError: for numpy arrays and other things that are no tensors.
    """
    if not torch.jit.is_scripting():
        require_tensors(positions, box_vectors)
    box = torch.empty((0, 3), dtype=positions.dtype, device=positions.device) if box_vectors is None else box_vectors
    if not wants_gradient(positions, box):
        pairs, _, vectors, distances = torch.ops.openmm_gnn.neighbor_pairs(
            positions, box, cutoff, full, True, available_threads()
        )
        return pairs, vectors, distances
    pairs, shifts, _, _ = torch.ops.openmm_gnn.neighbor_pairs(
        positions.detach(), box.detach(), cutoff, full, False, available_threads()
    )
    vectors = pair_vectors(positions, pairs, shifts, box)
    return pairs, vectors, safe_distances(vectors)


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
        cutoff: pairs with `|r_ij| < cutoff`, strictly.
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


# ---- shapes, for torch's compilers -----------------------------------------------------------------------------------

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]


def _fake_pairs(positions: Tensor, num_pairs: int | torch.SymInt, geometry: bool) -> Pairs:
    none = 0
    return (
        positions.new_empty((2, num_pairs), dtype=torch.int64),
        positions.new_empty((none if geometry else num_pairs, 3), dtype=torch.int32),
        positions.new_empty((num_pairs if geometry else none, 3)),
        positions.new_empty((num_pairs if geometry else none,)),
    )


@torch.library.register_fake("openmm_gnn::neighbor_pairs")
def _neighbor_pairs_fake(
    positions: Tensor, box_vectors: Tensor, cutoff: float, full: bool, geometry: bool, num_threads: int
) -> Pairs:
    return _fake_pairs(positions, torch.library.get_ctx().new_dynamic_size(), geometry)


@torch.library.register_fake("openmm_gnn::update_neighbor_list")
def _update_neighbor_list_fake(positions: Tensor, *arguments: Any) -> Pairs:
    geometry, trim, stored_pairs = arguments[4], arguments[5], arguments[9]
    num_pairs = torch.library.get_ctx().new_dynamic_size() if trim else stored_pairs.shape[1]
    return _fake_pairs(positions, num_pairs, geometry)


@torch.library.register_fake("openmm_gnn::frame_edges")
def _frame_edges_fake(positions: Tensor, batch: Tensor, cutoff: float, most: int, nearest: bool) -> Tensor:
    num_edges = torch.library.get_ctx().new_dynamic_size()
    return positions.new_empty((2, num_edges), dtype=torch.int64)


@torch.library.register_fake("openmm_gnn::nearest_edges")
def _nearest_edges_fake(pairs: Tensor, distances: Tensor, num_atoms: int, max_neighbors: int) -> Tensor:
    return pairs.new_empty((torch.library.get_ctx().new_dynamic_size(),))
