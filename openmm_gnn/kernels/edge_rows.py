"""The loops over edges of encoders, compiled for CUDA: sums along the row of each receiver.

csrc/encoders/edge_rows.h has the layout; the networks hold the same in PyTorch, and kernels/encoder_messages.py for the
CPU. Sums have no atomics, so the same input gives the same bits; nothing waits for the device and no shape depends on
the data.
`attention_rows` can be differentiated once, by geometry and features; the others not.

Everywhere: rows is what `edge_rows` gives for the edges' receivers; senders (E,) int64; directions (E, 3) unit vectors
from receiver to sender, zero on an atom's own edge; envelope (E,) the cosine cutoff; places (E,) float64 and tables
(knots, 2, channels) of graph/filter_table.py; H the width. All but places are float32.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.encoder_messages import no_second_gradients

MOST_CHANNELS = 256
"""Widest features that the operators take."""


def fits_rows(width: int, head_width: int) -> bool:
    """Whether the operators take features of this width in heads of that width."""
    return width % 16 == 0 and 0 < width <= MOST_CHANNELS and head_width > 0 and width % head_width == 0


def edge_rows(receivers: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Where each atom's edges stand, on CUDA.

    Args:
        receivers: (E,) int64; a negative one is no edge.
    Returns:
        starts (N + 1,) int32: the edges of atom a are order[starts[a]] up to order[starts[a + 1]], that one excluded.
        order (E,) int32, valid up to starts[N], ascending for each atom.
    """
    return torch.ops.openmm_gnn.edge_rows(receivers, num_atoms)


def attention_rows(
    rows: tuple[Tensor, Tensor],
    heard: tuple[Tensor, Tensor],
    edge_index: Tensor,
    directions: Tensor,
    envelope: Tensor,
    places: Tensor,
    node: Tensor,
    vectors: Tensor,
    table: Tensor,
    head_width: int,
) -> tuple[Tensor, Tensor]:
    """Sums of the messages of `AttentionLayer`: (N, H) and (N, 3, H). `table` is taken for constant.

    Args:
        heard: rows of the senders, with the same edges; of gradients alone, without which any tensors will do.
        edge_index: (2, E) int64, row 0 the senders and row 1 the receivers.
        node: (N, 5 H), query, key and three values.
        vectors: (N, 3, H).
        table: of 4 H channels, the key's filters and the values'.
    """
    return torch.ops.openmm_gnn.attention_rows(
        rows[0], rows[1], edge_index[0], directions, envelope, places, node.float(), vectors.float(), table,
        edge_index[1], heard[0], heard[1], head_width,
    )  # fmt: skip


def edge_attention_rows(
    rows: tuple[Tensor, Tensor], senders: Tensor, envelope: Tensor, node: Tensor, filters: Tensor, head_width: int
) -> tuple[Tensor, Tensor]:
    """Messages (E, H) of `EdgeAttentionLayer`, and their sums (N, H).

    Args:
        node: (N, 3 H), query, key, value.
        filters: (E, 3 H) or (E, 2 H) before their activation, of key and value first.
    """
    return torch.ops.openmm_gnn.edge_attention_rows(
        rows[0], rows[1], senders, envelope, node.float(), filters.float(), head_width
    )


def edge_vector_rows(
    rows: tuple[Tensor, Tensor],
    senders: Tensor,
    directions: Tensor,
    vectors: Tensor,
    scales: Tensor,
    mixed: Tensor,
    filters: Tensor,
    edges: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sums (N, 3, H) of the vectors that the edges of `EdgeAttentionLayer` carry, and the new (E, H) edges.

    Args:
        vectors: (N, 3, H).
        scales: (E, 2 H) before their activation, of the sender's vectors and of the direction.
        mixed: (N, 3, 5 H), the target's and the source's parts in the edges' change last; or (N, 3, 3 H).
        filters: (E, 3 H) before their activation, gates of the edges' change last; or (E, 2 H): the edges do not
            change, and none come back.
        edges: (E, H).
    """
    return torch.ops.openmm_gnn.edge_vector_rows(
        rows[0], rows[1], senders, directions, vectors.float(), scales.float(), mixed.float(), filters.float(),
        edges.float(),
    )  # fmt: skip


def tensor_rows(rows: tuple[Tensor, Tensor], senders: Tensor, places: Tensor, parts: Tensor, table: Tensor) -> Tensor:
    """Sums (N, 9, H) of the senders' tensors, times the filters of their three parts, a table of 3 H channels."""
    return torch.ops.openmm_gnn.tensor_rows(rows[0], rows[1], senders, places, parts.float(), table)


def first_tensor_rows(
    rows: tuple[Tensor, Tensor],
    senders: Tensor,
    directions: Tensor,
    places: Tensor,
    receiver: Tensor,
    sender: Tensor,
    table: Tensor,
) -> Tensor:
    """Sums (N, 9, H) of the tensors that directions make, times filters and receiver_i + sender_j, (N, H)."""
    return torch.ops.openmm_gnn.first_tensor_rows(
        rows[0], rows[1], senders, directions, places, receiver.float(), sender.float(), table
    )


# ---- gradients, for torch's autograd ---------------------------------------------------------------------------------


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:12])
    ctx.head_width = inputs[12]


def _attention_gradients(ctx: Any, scalars: Tensor, vectors: Tensor) -> tuple[Any, ...]:
    if ctx.needs_input_grad[8]:
        raise RuntimeError("attention_rows has no gradients of weights: call encoder.network.use_compiled(False)")
    geometry = any(ctx.needs_input_grad[3:6])
    node, carried, directions, envelope, places = torch.ops.openmm_gnn.attention_rows_backward(
        *ctx.saved_tensors, scalars.contiguous(), vectors.contiguous(), ctx.head_width, geometry
    )
    of_geometry = (directions, envelope, places.to(torch.float64)) if geometry else (None, None, None)
    return (None, None, None, *of_geometry, node, carried, *(None,) * 5)


torch.library.register_autograd("openmm_gnn::attention_rows", _attention_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::attention_rows_backward", no_second_gradients)
