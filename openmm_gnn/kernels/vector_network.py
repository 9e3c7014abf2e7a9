"""The loops over pairs of a network with vector features, `models.vector_gamd`: compiled, or in plain PyTorch.

A message goes from atom j to atom i along the unit vector u from i to j, at distance r, for a pair of type t. All
products are by channel; `width` channels each of three groups g = (scalar, along, carried):

    a = p_i . u,   b = -p_j . u,   q = p_i . p_j                          projections of the probes p
    z_g = source_j + target_i + T_tg(r) + A_g a + B_g b + C_g q            T: cubic B-splines; A, B, C: mixing
    m_g = SiLU(z_g) * envelope(r)
    scalars_i += m_scalar * value_j
    vectors_i += m_along * u + m_carried * carried_j

The compiled forms keep no edge features in memory: the CPU's reads each pair once, CUDA's from both its ends, which
`kernels.pair_rows` sorts by the atom that receives.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads
from openmm_gnn.kernels.pair_rows import pair_rows
from openmm_gnn.kernels.vector_network_reference import pair_strengths_reference, vector_messages_reference


def vector_messages(
    pairs: Tensor,
    types: Tensor,
    vectors: Tensor,
    distances: Tensor,
    source: Tensor,
    target: Tensor,
    value: Tensor,
    probe: Tensor,
    carried: Tensor,
    table: Tensor,
    mixing: Tensor,
    start: float,
    cutoff: float,
    fused: bool = True,
    rows: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The sums of all messages to each atom, by the equations above.

    Args:
        pairs: (2, P) int64, each pair once; -1 is padding.
        types: (P,) int64, rows of the table.
        vectors, distances: (P, 3) from i to j, and (P,) their norms.
        source, target: (N, 3 width).
        value: (N, width).
        probe, carried: (N, 3, width); (0, 3, width) before there are vectors.
        table: (num_types, num_knots, 3 width), spline coefficients on [start, cutoff].
        mixing: (3, 3 width).
        fused: use the compiled operator: float32, width a multiple of 16 (on CUDA at most 256), differentiable once.
            Its gradient by the geometry goes to `vectors` as a whole and none to `distances`.
        rows: on CUDA, `pair_rows` of these pairs within the cutoff, if they are at hand.
    Returns:
        (N, width) and (N, 3, width).
    """
    if fused and value.is_cuda:
        if rows is None:
            rows = pair_rows(pairs, distances, cutoff, value.size(0))
        return torch.ops.openmm_gnn.row_messages(
            rows[0], rows[1], pairs, types, vectors, distances, source, target, value, probe, carried, table, mixing,
            start, cutoff,
        )  # fmt: skip
    if fused:
        threads = 0
        if not torch.jit.is_scripting():
            threads = available_threads()
        return torch.ops.openmm_gnn.vector_messages(
            pairs, types, vectors, distances, source, target, value, probe, carried, table, mixing, start, cutoff,
            threads,
        )  # fmt: skip
    return vector_messages_reference(
        pairs, types, vectors, distances, source, target, value, probe, carried, table, mixing, start, cutoff
    )


def pair_strengths(
    pairs: Tensor,
    types: Tensor,
    vectors: Tensor,
    distances: Tensor,
    total: Tensor,
    left: Tensor,
    probe: Tensor,
    table: Tensor,
    mixing: Tensor,
    readout: Tensor,
    start: float,
    cutoff: float,
    fused: bool = True,
    rows: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A number for each pair that rotation and exchange of its atoms leave alone.

    s = envelope(r) sum_k readout_k SiLU(total_i + total_j + left_i left_j + T_t(r) + A (a + b) + B a b + C q)

    Args:
        total, left: (N, width).
        probe: (N, 3, width).
        table: (num_types, num_knots, width).
        mixing: (3, width).
        readout: (width,).
        Others as for `vector_messages`.
    Returns:
        (P,), zero on padding.
    """
    if fused and total.is_cuda:
        if rows is None:
            rows = pair_rows(pairs, distances, cutoff, total.size(0))
        return torch.ops.openmm_gnn.row_strengths(
            rows[0], rows[1], pairs, types, vectors, distances, total, left, probe, table, mixing, readout, start,
            cutoff,
        )  # fmt: skip
    if fused:
        threads = 0
        if not torch.jit.is_scripting():
            threads = available_threads()
        return torch.ops.openmm_gnn.pair_strengths(
            pairs, types, vectors, distances, total, left, probe, table, mixing, readout, start, cutoff, threads
        )
    return pair_strengths_reference(
        pairs, types, vectors, distances, total, left, probe, table, mixing, readout, start, cutoff
    )


# ---- shapes and gradients, for torch's autograd and compilers --------------------------------------------------------


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.numbers = [value for value in inputs if not isinstance(value, Tensor)]


def _message_gradients(ctx: Any, scalars: Tensor, vectors: Tensor) -> tuple[Any, ...]:
    geometry, weights = bool(ctx.needs_input_grad[2]), any(ctx.needs_input_grad[9:11])
    *gradients, pair_vectors = torch.ops.openmm_gnn.vector_messages_backward(
        *ctx.saved_tensors, scalars.contiguous(), vectors.contiguous(), *ctx.numbers, geometry, weights
    )
    if not weights:
        gradients[5:] = [None, None]
    return (None, None, pair_vectors if geometry else None, None, *gradients, None, None, None)


def _strength_gradients(ctx: Any, strengths: Tensor) -> tuple[Any, ...]:
    geometry, weights = bool(ctx.needs_input_grad[2]), any(ctx.needs_input_grad[7:10])
    *gradients, pair_vectors = torch.ops.openmm_gnn.pair_strengths_backward(
        *ctx.saved_tensors, strengths.contiguous(), *ctx.numbers, geometry, weights
    )
    if not weights:
        gradients[3:] = [None, None, None]
    return (None, None, pair_vectors if geometry else None, None, *gradients, None, None, None)


torch.library.register_autograd("openmm_gnn::vector_messages", _message_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::pair_strengths", _strength_gradients, setup_context=_save_inputs)


@torch.library.register_fake("openmm_gnn::vector_messages")
def _vector_messages_fake(pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor, source: Tensor,
                          target: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(value), value.new_empty((value.shape[0], 3, value.shape[1]))


@torch.library.register_fake("openmm_gnn::pair_strengths")
def _pair_strengths_fake(pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(distances)
