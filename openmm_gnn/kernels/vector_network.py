"""The loops over pairs of a network with vector features, `networks.vector_gamd`: compiled, or in plain PyTorch.

A message goes from atom j to atom i along the unit vector u from i to j, at distance r, for a pair of type t. All
products are by channel; `width` channels each of three groups g = (scalar, along, carried):

    a = p_i . u,   b = -p_j . u,   q = p_i . p_j                          projections of the probes p
    z_g = source_j + target_i + T_tg(r) + A_g a + B_g b + C_g q            T: cubic B-splines; A, B, C: mixing
    m_g = SiLU(z_g) * envelope(r)
    scalars_i += m_scalar * value_j
    vectors_i += m_along * u + m_carried * carried_j

The compiled operators take float32 and widths that are a multiple of 16 (on CUDA at most 256), can be differentiated
once, and keep no edge features in memory: the CPU's read each pair once, CUDA's from both its ends, which
`kernels.pair_rows` sorts by the atom that receives. Their gradient by the geometry goes to the vectors as a whole, and
none to the distances.
The plain form is the truth they answer to; it also runs where they do not: on CUDA, in float64, and where a gradient
is differentiated again.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads, safe_distances
from openmm_gnn.kernels.pair_rows import PairGraph


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
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], dim=1)
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
    graph: PairGraph, total: Tensor, left: Tensor, probe: Tensor, table: Tensor, mixing: Tensor, readout: Tensor
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


def vector_messages(
    graph: PairGraph,
    source: Tensor,
    target: Tensor,
    value: Tensor,
    probe: Tensor,
    carried: Tensor,
    table: Tensor,
    mixing: Tensor,
) -> tuple[Tensor, Tensor]:
    """The sums of all messages to each atom, by the equations above.

    Args:
        source, target: (N, 3 width).
        value: (N, width).
        probe, carried: (N, 3, width); (0, 3, width) before there are vectors.
        table: (num_types, num_knots, 3 width), spline coefficients on [start, cutoff].
        mixing: (3, 3 width).
    Returns:
        (N, width) and (N, 3, width).
    """
    if not graph.compiled:
        return vector_messages_reference(graph, source, target, value, probe, carried, table, mixing)
    return torch.ops.openmm_gnn.vector_messages(
        graph.starts, graph.entries, graph.pairs, graph.types, graph.vectors, graph.distances, source, target, value,
        probe, carried, table, mixing, graph.start, graph.cutoff, available_threads(),
    )  # fmt: skip


def pair_strengths(
    graph: PairGraph, total: Tensor, left: Tensor, probe: Tensor, table: Tensor, mixing: Tensor, readout: Tensor
) -> Tensor:
    """A number for each pair that rotation and exchange of its atoms leave alone.

    s = envelope(r) sum_k readout_k SiLU(total_i + total_j + left_i left_j + T_t(r) + A (a + b) + B a b + C q)

    Args:
        total, left: (N, width).
        probe: (N, 3, width).
        table: (num_types, num_knots, width).
        mixing: (3, width).
        readout: (width,).
    Returns:
        (P,), zero on padding.
    """
    if not graph.compiled:
        return pair_strengths_reference(graph, total, left, probe, table, mixing, readout)
    return torch.ops.openmm_gnn.pair_strengths(
        graph.starts, graph.entries, graph.pairs, graph.types, graph.vectors, graph.distances, total, left, probe,
        table, mixing, readout, graph.start, graph.cutoff, available_threads(),
    )  # fmt: skip


# ---- shapes and gradients, for torch's autograd and compilers --------------------------------------------------------

GEOMETRY, FEATURES, NUMBERS = 4, 6, 3
"""Place of the pairs' vectors among the arguments and of the first feature; start, cutoff and threads come last."""


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-NUMBERS])
    ctx.numbers = inputs[-NUMBERS:]


def _gradients(
    ctx: Any, operator: Any, reference: Any, num_weights: int, arriving: tuple[Tensor, ...]
) -> tuple[Any, ...]:
    """Gradients by vectors and features; the last `num_weights` of these are weights."""
    last = len(ctx.saved_tensors)
    geometry = bool(ctx.needs_input_grad[GEOMETRY])
    weights = any(ctx.needs_input_grad[last - num_weights : last])
    if weights and ctx.saved_tensors[0].numel() > 0:  # rows, which only CUDA has, and no kernel for weights
        pair_vectors, gradients = _plain_gradients(ctx, reference, arriving)
    else:
        arriving = tuple(gradient.contiguous() for gradient in arriving)
        *gradients, pair_vectors = operator(*ctx.saved_tensors, *ctx.numbers, *arriving, geometry, weights)
        if not weights:
            gradients[-num_weights:] = [None] * num_weights
    return (*(None,) * GEOMETRY, pair_vectors if geometry else None, None, *gradients, *(None,) * NUMBERS)


def _plain_gradients(ctx: Any, reference: Any, arriving: tuple[Tensor, ...]) -> tuple[Tensor, list[Any]]:
    """All gradients by the plain form, for training."""
    starts, entries, pairs, types, vectors, _, *features = ctx.saved_tensors
    with torch.enable_grad():
        vectors, *features = [value.detach().requires_grad_() for value in (vectors, *features)]
        distances = safe_distances(vectors)
        start, cutoff = ctx.numbers[:2]
        graph = PairGraph(pairs, types, vectors, distances, starts, entries, start, cutoff, compiled=False)
        results = reference(graph, *features)
        results = results if isinstance(results, tuple) else (results,)
        found = torch.autograd.grad(results, [vectors, *features], arriving, allow_unused=True)
    return found[0], list(found[1:])


def _message_gradients(ctx: Any, *arriving: Tensor) -> tuple[Any, ...]:
    return _gradients(ctx, torch.ops.openmm_gnn.vector_messages_backward, vector_messages_reference, 2, arriving)


def _strength_gradients(ctx: Any, *arriving: Tensor) -> tuple[Any, ...]:
    return _gradients(ctx, torch.ops.openmm_gnn.pair_strengths_backward, pair_strengths_reference, 3, arriving)


torch.library.register_autograd("openmm_gnn::vector_messages", _message_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::pair_strengths", _strength_gradients, setup_context=_save_inputs)


@torch.library.register_fake("openmm_gnn::vector_messages")
def _vector_messages_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    value = arguments[FEATURES + 2]
    return torch.empty_like(value), value.new_empty((value.shape[0], 3, value.shape[1]))


@torch.library.register_fake("openmm_gnn::pair_strengths")
def _pair_strengths_fake(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[GEOMETRY + 1])


@torch.library.register_fake("openmm_gnn::vector_messages_backward")
def _message_gradients_fake(*arguments: Any) -> tuple[Tensor, ...]:
    vectors, features, geometry, weights = arguments[GEOMETRY], arguments[FEATURES:13], *arguments[18:]
    return _gradients_fake(vectors, features, 2, geometry, weights)


@torch.library.register_fake("openmm_gnn::pair_strengths_backward")
def _strength_gradients_fake(*arguments: Any) -> tuple[Tensor, ...]:
    vectors, features, geometry, weights = arguments[GEOMETRY], arguments[FEATURES:12], *arguments[16:]
    return _gradients_fake(vectors, features, 3, geometry, weights)


def _gradients_fake(
    vectors: Tensor, features: tuple[Tensor, ...], num_weights: int, geometry: bool, weights: bool
) -> tuple[Tensor, ...]:
    """What a backward operator returns: the last `num_weights` features are weights."""
    found = [one.new_empty(one.shape) for one in features[:-num_weights]]
    found += [one.new_empty((one.shape[0] if weights else 0, *one.shape[1:])) for one in features[-num_weights:]]
    return *found, vectors.new_empty((vectors.shape[0] if geometry else 0, 3))
