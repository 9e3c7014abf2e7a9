"""The loops over pairs of a network with vector features, in plain torch: the truth the compiled operators answer to.

They also run where no compiled operator does: on CUDA, in float64, and where a gradient is differentiated again.
"""

import torch
from torch import Tensor

from openmm_gnn.kernels.pair_rows import PairGraph

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.


def spline_weights(distances: Tensor, start: float, cutoff: float, num_knots: int) -> tuple[Tensor, Tensor]:
    """The four cubic B-splines that do not vanish at each distance.

    The knots divide [start, cutoff] into num_knots - 3 intervals; below `start` the weights stay what they are there.

    Returns:
        knots (P,) int64, index of the first of the four; weights (P, 4), which sum to 1.
    Source: de Boor, "A practical guide to splines" (1978), chapter X.
    """
    spacing = (cutoff - start) / (num_knots - 3)
    x = ((distances - start) / spacing).clamp(min=0.0)
    knots = x.detach().to(torch.int64).clamp(max=num_knots - 4)
    t = (x - knots).clamp(max=1.0)  # padding lies beyond the cutoff
    weights = torch.stack(
        [
            (1 - t) ** 3,
            3 * t**3 - 6 * t**2 + 4,
            -3 * t**3 + 3 * t**2 + 3 * t + 1,
            t**3,
        ],
        dim=1,
    )
    return knots, weights / 6


def radial_spline(distances: Tensor, types: Tensor, table: Tensor, start: float, cutoff: float) -> Tensor:
    """(P, channels): the splines of each pair's type, at its distance.

    Args:
        distances: (P,).
        types: (P,) int64, rows of the table.
        table: (num_types, num_knots, channels), the coefficients.
    """
    num_knots = table.size(1)
    knots, weights = spline_weights(distances, start, cutoff, num_knots)
    rows = types * num_knots + knots
    flat = table.reshape(-1, table.size(2))
    result = weights[:, 0:1] * flat.index_select(0, rows)
    for m in range(1, 4):
        result = result + weights[:, m : m + 1] * flat.index_select(0, rows + m)
    return result


def envelope(distances: Tensor, cutoff: float) -> Tensor:
    """`CutoffEnvelope` with exponent 6, (P,)."""
    x = (distances / cutoff).clamp(max=1.0)
    return 1.0 - x**6 * (28.0 - x * (48.0 - 21.0 * x))


def projections(probe: Tensor, i: Tensor, j: Tensor, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P, width) each: of atom i's vectors on the direction to j, of j's on that to i, of both on each other."""
    of_i, of_j = probe.index_select(0, i), probe.index_select(0, j)
    directions = units.unsqueeze(-1)
    return (of_i * directions).sum(1), -(of_j * directions).sum(1), (of_i * of_j).sum(1)


def vector_messages_reference(
    graph: PairGraph,
    source: Tensor,
    target: Tensor,
    value: Tensor,
    probe: Tensor,
    carried: Tensor,
    table: Tensor,
    mixing: Tensor,
) -> tuple[Tensor, Tensor]:
    """See `kernels.vector_network.vector_messages`."""
    pairs, types, vectors, distances = graph.pairs, graph.types, graph.vectors, graph.distances
    width = value.size(1)
    i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
    units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
    weight = torch.where(pairs[0] >= 0, envelope(distances, graph.cutoff), torch.zeros_like(distances)).unsqueeze(-1)
    both = radial_spline(distances, types, table, graph.start, graph.cutoff)
    to_i = both + source.index_select(0, j) + target.index_select(0, i)
    to_j = both + source.index_select(0, i) + target.index_select(0, j)
    has_vectors = probe.size(0) > 0
    if has_vectors:
        a, b, q = projections(probe, i, j, units)
        a, b, q = a.repeat(1, 3), b.repeat(1, 3), q.repeat(1, 3)
        to_i = to_i + mixing[0] * a + mixing[1] * b + mixing[2] * q
        to_j = to_j + mixing[0] * b + mixing[1] * a + mixing[2] * q
    to_i, to_j = torch.nn.functional.silu(to_i) * weight, torch.nn.functional.silu(to_j) * weight
    scalars = torch.zeros_like(value)
    scalars = scalars.index_add(0, i, to_i[:, :width] * value.index_select(0, j))
    scalars = scalars.index_add(0, j, to_j[:, :width] * value.index_select(0, i))
    directions = units.unsqueeze(-1)
    vectors_i = to_i[:, None, width : 2 * width] * directions
    vectors_j = -to_j[:, None, width : 2 * width] * directions
    if has_vectors:
        vectors_i = vectors_i + to_i[:, None, 2 * width :] * carried.index_select(0, j)
        vectors_j = vectors_j + to_j[:, None, 2 * width :] * carried.index_select(0, i)
    sums = torch.zeros((value.size(0), 3, width), dtype=value.dtype, device=value.device)
    return scalars, sums.index_add(0, i, vectors_i).index_add(0, j, vectors_j)


def pair_strengths_reference(
    graph: PairGraph,
    total: Tensor,
    left: Tensor,
    probe: Tensor,
    table: Tensor,
    mixing: Tensor,
    readout: Tensor,
) -> Tensor:
    """See `kernels.vector_network.pair_strengths`."""
    pairs, types, vectors, distances = graph.pairs, graph.types, graph.vectors, graph.distances
    i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
    units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
    weight = torch.where(pairs[0] >= 0, envelope(distances, graph.cutoff), torch.zeros_like(distances))
    a, b, q = projections(probe, i, j, units)
    hidden = (
        radial_spline(distances, types, table, graph.start, graph.cutoff)
        + total.index_select(0, i)
        + total.index_select(0, j)
        + left.index_select(0, i) * left.index_select(0, j)
        + mixing[0] * (a + b)
        + mixing[1] * (a * b)
        + mixing[2] * q
    )
    return (torch.nn.functional.silu(hidden) * readout).sum(1) * weight
