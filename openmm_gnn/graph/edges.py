"""The edges of an encoder: which neighbours an atom listens to, itself included, frame by frame."""

# No `from __future__ import annotations` here: TorchScript compiles these functions.
import torch
from torch import Tensor

from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs


def encoder_edges(
    positions: Tensor,
    cutoff: float,
    rule: str,
    max_neighbors: int,
    batch: Tensor | None = None,
    box_vectors: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from sources j to targets i with |r_ij| < cutoff, in each frame by itself, and every atom's own edge.

    Args:
        positions: (N, 3) float32 or float64, any length unit, used consistently; a molecule need not be whole.
        cutoff: in the same unit.
        rule: "full": every neighbour. "nearest": of each target the `max_neighbors` nearest sources, itself being one;
            of equally distant ones the first by index. "index": of each target the first `max_neighbors` sources by
            index, itself being one of them or left out: what graph libraries do on a GPU, and nobody should want.
        max_neighbors: of a target, see there.
        batch: (N,) int64, the frame of each atom, not falling; None: all are one frame.
        box_vectors: (3, 3), or (number of frames, 3, 3), rows a, b, c; None: open boundary.
    Returns:
        edge_index (2, E) int64, row 0 the source j and row 1 the target i; vectors (E, 3) r_j - r_i, zero on an atom's
        own edge; distances (E,). Ordered by target. Vectors and distances can be differentiated.
    Raises:
        ValueError: for an unknown rule, a batch that falls, or a number of boxes that is not that of the frames.
        RuntimeError: for what `neighbor_pairs` refuses.
    """
    if rule != "full" and rule != "nearest" and rule != "index":
        raise ValueError(f"the neighbour rule is {rule}: give one of full, nearest, index")
    num_atoms = positions.size(0)
    sizes = frame_sizes(num_atoms, batch)
    pairs, vectors, distances = _pairs_of_frames(positions, cutoff, sizes, box_vectors)
    own = torch.arange(num_atoms, device=positions.device)
    targets = torch.cat([own, pairs[0]])
    sources = torch.cat([own, pairs[1]])
    vectors = torch.cat([torch.zeros_like(positions), vectors])
    found = distances.detach()
    distances = torch.cat([torch.zeros_like(positions[:, 0]), distances])
    if rule == "nearest" and not positions.is_cuda:
        order = torch.ops.openmm_gnn.nearest_edges(pairs, found, num_atoms, max_neighbors)
    elif rule == "nearest":
        # An atom's own edge is the first of those at distance zero, should two atoms coincide.
        order = torch.argsort(distances.detach(), stable=True)
        order = order.index_select(0, torch.argsort(targets.index_select(0, order), stable=True))
        order = _first_of_each(order, targets, num_atoms, max_neighbors)
    else:
        order = torch.argsort(targets * num_atoms + sources, stable=True)
        if rule == "index":
            order = _first_of_each(order, targets, num_atoms, max_neighbors)
    edge_index = torch.stack([sources.index_select(0, order), targets.index_select(0, order)])
    return edge_index, vectors.index_select(0, order), distances.index_select(0, order)


def _first_of_each(order: Tensor, targets: Tensor, num_atoms: int, most: int) -> Tensor:
    """Of an order of edges by target, the first `most` of each target."""
    ordered = targets.index_select(0, order)
    counts = torch.bincount(ordered, minlength=num_atoms)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.arange(ordered.size(0), device=order.device) - first.index_select(0, ordered)
    return order.masked_select(rank < most)


def frame_sizes(num_atoms: int, batch: Tensor | None) -> list[int]:
    """Number of atoms of each frame, in order.

    Raises:
        ValueError: if the frames' numbers fall, are negative, or are not as many as the atoms.
    """
    if batch is None:
        return [num_atoms]
    if batch.dim() != 1 or batch.size(0) != num_atoms:
        raise ValueError(f"batch has shape {list(batch.shape)}: give the frame of each of the {num_atoms} atoms")
    if num_atoms == 0:
        return [0]
    if int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any()):
        raise ValueError("the frames in batch must be numbered from 0 and not fall: sort the atoms by frame")
    counts = torch.bincount(batch)
    sizes: list[int] = []
    for k in range(counts.size(0)):
        sizes.append(int(counts[k]))
    return sizes


def _pairs_of_frames(
    positions: Tensor, cutoff: float, sizes: list[int], box_vectors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """All ordered pairs within the frames: (2, P) targets and sources, (P, 3), (P,)."""
    pairs: list[Tensor] = []
    vectors: list[Tensor] = []
    distances: list[Tensor] = []
    start = 0
    for frame in range(len(sizes)):
        box: Tensor | None = None
        if box_vectors is not None:
            if box_vectors.dim() == 3 and box_vectors.size(0) != len(sizes):
                raise ValueError(
                    f"there are {box_vectors.size(0)} boxes for {len(sizes)} frames: give one, or one each"
                )
            box = box_vectors[frame] if box_vectors.dim() == 3 else box_vectors
        end = start + sizes[frame]
        found, vector, distance = neighbor_pairs(positions[start:end], cutoff, box, True)
        pairs.append(found + start)
        vectors.append(vector)
        distances.append(distance)
        start = end
    if len(sizes) == 1:
        return pairs[0], vectors[0], distances[0]
    return torch.cat(pairs, 1), torch.cat(vectors), torch.cat(distances)
