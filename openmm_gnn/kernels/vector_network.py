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
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads, safe_distances
from openmm_gnn.kernels.pair_rows import PairGraph
from openmm_gnn.kernels.vector_network_reference import pair_strengths_reference, vector_messages_reference


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
        graph = PairGraph(pairs, types, vectors, distances, starts, entries, *ctx.numbers[:2], compiled=False)
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
