"""The edges of an encoder: the neighbours that send messages to an atom, itself included, frame by frame.

**Fading.** A cap on the number of neighbours makes features jump where two of them change ranks. By the rule fading
each atom has a reach of its own instead: the cutoff where its surroundings are sparse, less where they are crowded,
so that about as many atoms are within it as a cap would allow. What is near keeps its distance; in the outer part of
the reach edges are stretched, up to the cutoff at its end, where every message has faded. So networks, their tables and
operators see distances as ever, and an edge of the reach's length or longer is none. All of it is smooth in the
positions, and costs a sum over edges.
"""

# No `from __future__ import annotations` here: TorchScript compiles these functions.
import torch
from torch import Tensor

from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs, safe_distances

MOST_FRAME_ATOMS = 8192
"""Most atoms of a frame of one search: in a larger frame a cell list is faster than a test of every pair. The same as
kMostFrameAtoms in frame_edges.h."""


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
        rule: "full": every neighbour. "fading": every neighbour in the atom's reach, see above; vectors and distances
            are stretched. "nearest": the `max_neighbors` nearest sources of each target, itself being one; where
            distances are equal, the first by index. "index": the first `max_neighbors` sources of each target by
            index, itself being one of them or left out: what graph libraries do on a GPU; it is there to compare.
        max_neighbors: the largest number of edges of a target, by the rules nearest and index; by fading the number
            of edges, all in all, that count.
        batch: (N,) int64, the frame of each atom, non-decreasing; None: all atoms are one frame.
        box_vectors: (3, 3), or (number of frames, 3, 3), rows a, b, c; None: open boundary.
    Returns:
        edge_index (2, E) int64, row 0 the source j and row 1 the target i; vectors (E, 3) r_j - r_i, zero on an atom's
        own edge; distances (E,). Ordered by target. Vectors and distances can be differentiated.
    Raises:
        ValueError: for an unknown rule, a cap below 1, a batch that decreases, or a number of boxes that is not that
            of the frames.
        RuntimeError: for what `neighbor_pairs` refuses.
    """
    if rule != "fading" and rule != "full" and rule != "nearest" and rule != "index":
        raise ValueError(f"the neighbour rule is {rule}: give one of fading, full, nearest, index")
    if rule != "full" and max_neighbors < 1:
        raise ValueError(f"max_neighbors is {max_neighbors}: give at least 1")
    if rule != "fading":
        return _edges(positions, cutoff, rule, max_neighbors, batch, box_vectors)
    index, vectors, distances = _edges(positions, cutoff, "full", max_neighbors, batch, box_vectors)
    return faded_edges(index, vectors, distances, positions.size(0), cutoff, max_neighbors)


def _edges(
    positions: Tensor, cutoff: float, rule: str, max_neighbors: int, batch: Tensor | None, box_vectors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`encoder_edges` by any other rule than fading."""
    if positions.is_cuda and box_vectors is None:
        edges = edges_in_one_search(positions, cutoff, rule, max_neighbors, batch)
        if edges is not None:
            return edges
    return edges_frame_by_frame(positions, cutoff, rule, max_neighbors, batch, box_vectors)


def faded_edges(
    index: Tensor,
    vectors: Tensor,
    distances: Tensor,
    num_atoms: int,
    cutoff: float,
    max_neighbors: int,
    near: float = 0.8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of every neighbour, as `encoder_edges` gives them by the rule full, stretched and cut by the rule fading.

    Args:
        near: the part of the reach within which distances stay what they are. Error of denoising of the public ViSNet
            and TorchMD-ET on villin at 0.8: 0.337, 0.369; at 0.7: 0.340, 0.375; with the nearest: 0.352, 0.369.
    """
    weights = (1.0 - (distances / cutoff).square()).square()
    # In even surroundings the mean of the weights is 8 / 35.
    seen = torch.zeros([num_atoms], dtype=distances.dtype, device=distances.device).index_add(0, index[1], weights)
    crowding = seen * (35.0 / 8.0 / max_neighbors)
    # The larger of 1 and the crowding, rounded off by a parabola between 0.75 and 1.25.
    rounded = 1.0 + (crowding - 0.75).clamp(min=0.0).square()
    crowding = torch.where(crowding < 1.25, rounded, crowding)
    reach = (cutoff * crowding.pow(-1.0 / 3.0)).index_select(0, index[1])
    outer = ((distances - near * reach) / ((1.0 - near) * reach)).clamp(0.0, 1.0)
    stretched = distances + (cutoff - reach) * outer.square() * (3.0 - 2.0 * outer)
    ratios = stretched / torch.where(distances > 0, distances, torch.ones_like(distances))
    vectors = vectors * ratios.unsqueeze(1)
    if distances.is_cuda:  # where a choice would wait for the device; what is at the cutoff counts nothing
        return index, vectors, stretched
    kept = (stretched.detach() < cutoff).nonzero().squeeze(1)
    return index.index_select(1, kept), vectors.index_select(0, kept), stretched.index_select(0, kept)


def edges_in_one_search(
    positions: Tensor,
    cutoff: float,
    rule: str,
    max_neighbors: int,
    batch: Tensor | None,
    most_atoms: int = MOST_FRAME_ATOMS,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`encoder_edges` on CUDA and without boxes, with one wait for the device; None where a frame is too large for it.

    How large the frames of a batch are only the device knows: the operator says it together with the number of edges.

    Args:
        most_atoms: the most atoms of a frame in one search; an argument because TorchScript sees no constants of a
            module.
    """
    num_atoms = positions.size(0)
    if batch is None and num_atoms > most_atoms:
        return None
    _check_shape(num_atoms, batch)
    index = frame_edges(positions, batch, cutoff, 0 if rule == "full" else max_neighbors, rule == "nearest")
    if num_atoms > most_atoms and index.size(1) == 0:
        return None
    vectors = positions.index_select(0, index[0]) - positions.index_select(0, index[1])
    if not (torch.is_grad_enabled() and positions.requires_grad):
        return index, vectors, torch.linalg.vector_norm(vectors, dim=1)
    # An atom's own edge is zero whatever its position: what arrives there, be it NaN, shall not reach the atom.
    vectors = vectors.masked_fill((index[0] == index[1]).unsqueeze(1), 0.0)
    return index, vectors, safe_distances(vectors)


def frame_edges(positions: Tensor, batch: Tensor | None, cutoff: float, most: int, nearest: bool) -> Tensor:
    """Edges from sources j to targets i with |r_ij| < cutoff within each frame, and every atom's own; open boundary.

    One search for all frames of a batch, on CUDA alone; csrc/neighbors/cuda/frame_edges.h says how. It waits for the
    device once, whatever the number of frames. Same input, same bits.

    Args:
        positions: (N, 3) float32 or float64 on CUDA, any length unit.
        batch: (N,) the frame of each atom, non-decreasing; None: all atoms are one frame.
        cutoff: in the same unit.
        most: the largest number of edges of a target; 0, and not `nearest`: all.
        nearest: order the edges of a target by distance and, where equal, by source, its own first; else by source.
    Returns:
        (2, E) int64, row 0 the sources and row 1 the targets, non-decreasing. No edge at all, (2, 0), where some frame
        has more than MOST_FRAME_ATOMS.
    Raises:
        ValueError: if the frames' numbers decrease or are negative.
        RuntimeError: for positions that are not finite, a cutoff that is not above 0, wrong shapes or dtypes.
    """
    frames = torch.empty([0], dtype=torch.int64, device=positions.device)
    if batch is not None:
        frames = batch.to(torch.int64).contiguous()
    return torch.ops.openmm_gnn.frame_edges(positions.detach(), frames, cutoff, most, nearest)


def edges_frame_by_frame(
    positions: Tensor, cutoff: float, rule: str, max_neighbors: int, batch: Tensor | None, box_vectors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`encoder_edges` by one search for each frame, on any device, in boxes and for frames of any size."""
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
    """The first `most` edges of each target, of an order of edges by target."""
    ordered = targets.index_select(0, order)
    counts = torch.bincount(ordered, minlength=num_atoms)
    first = torch.cumsum(counts, 0) - counts
    rank = torch.arange(ordered.size(0), device=order.device) - first.index_select(0, ordered)
    return order.masked_select(rank < most)


def frame_sizes(num_atoms: int, batch: Tensor | None) -> list[int]:
    """Number of atoms of each frame, in order.

    Raises:
        ValueError: if the frames' numbers decrease, are negative, or are not as many as the atoms.
    """
    if batch is None:
        return [num_atoms]
    _check_shape(num_atoms, batch)
    if num_atoms == 0:
        return [0]
    frames = batch.cpu()  # one wait for a device, instead of one for each question below
    if int(frames[0]) < 0 or bool((frames[1:] < frames[:-1]).any()):
        raise ValueError("the frames in batch must be numbered from 0 and not fall: sort the atoms by frame")
    sizes: list[int] = torch.bincount(frames).tolist()
    return sizes


def _check_shape(num_atoms: int, batch: Tensor | None) -> None:
    if batch is not None and (batch.dim() != 1 or batch.size(0) != num_atoms):
        raise ValueError(f"batch has shape {list(batch.shape)}: give the frame of each of the {num_atoms} atoms")


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
