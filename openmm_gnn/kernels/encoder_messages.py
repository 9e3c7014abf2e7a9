"""The loops over edges of encoders, compiled for the CPU: float32. The models hold the same in PyTorch.

`attention_messages`, `tensor_messages`, `first_tensors` and `activated_table` can be differentiated once, by everything
but an index; `attention_network` by vectors and distances.

Everywhere: edge_index (2, E) int64; directions (E, 3) unit vectors from row 1 to row 0, zero on an atom's own edge;
envelope (E,) the cosine cutoff; places (E,) float64 and tables (knots, 2, channels) of graph/filter_table.py; H the
width, a multiple of 16. Features that autocast has made bfloat16 are taken as float32. Edges ordered by the row that
receives are fastest.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)


def available_threads() -> int:
    """Threads for an operator: PyTorch's number, or 0, by which TorchScript lets the operator ask the system."""
    if torch.jit.is_scripting():
        return 0
    else:
        return torch.get_num_threads()


def fits_operators(width: int, head_width: int) -> bool:
    """Whether the operators take features of this width in heads of that width."""
    whole = width % 16 == 0 and width <= 1024 and width % head_width == 0
    return whole and (head_width % 16 == 0 or 16 % head_width == 0)


def attention_messages(
    edge_index: Tensor,
    directions: Tensor,
    envelope: Tensor,
    places: Tensor,
    node: Tensor,
    vectors: Tensor,
    table: Tensor,
    head_width: int,
) -> tuple[Tensor, Tensor]:
    """Sums at row 1 of the messages of `AttentionLayer`: (N, H) and (N, 3, H).

    Args:
        node: (N, 5 H), query, key and three values.
        vectors: (N, 3, H).
        table: of 4 H channels, the key's filters and the values'.
    """
    return torch.ops.openmm_gnn.attention_messages(
        edge_index, directions, envelope, places, node.float(), vectors.float(), table, head_width, available_threads()
    )


def edge_layer(
    edge_index: Tensor,
    directions: Tensor,
    envelope: Tensor,
    node: Tensor,
    vectors: Tensor,
    mixed: Tensor,
    edges: Tensor,
    filter_weight: Tensor,
    filter_bias: Tensor,
    spread_weight: Tensor,
    spread_bias: Tensor,
    head_width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (N, H) and (N, 3, H) at row 1 of the messages of `EdgeAttentionLayer`, and the new (E, H) edges.

    Args:
        node: (N, 3 H), query, key, value.
        vectors: (N, 3, H).
        mixed: (N, 3, 5 H), the target's and the source's parts in the edges' change last; or (N, 3, 3 H).
        edges: (E, H).
        filter_weight, filter_bias: (H, 3 H) and (3 H,), filters of key and value and gates of the edges' change; or
            (H, 2 H) and (2 H,): the edges do not change, and none come back.
        spread_weight, spread_bias: (H, 2 H) and (2 H,), scales of the sender's vectors and of the direction.
    """
    return torch.ops.openmm_gnn.edge_layer(
        edge_index, directions, envelope, node.float(), vectors.float(), mixed.float(), edges.float(), filter_weight,
        filter_bias, spread_weight, spread_bias, head_width, available_threads(),
    )  # fmt: skip


def tensor_messages(edge_index: Tensor, places: Tensor, parts: Tensor, table: Tensor) -> Tensor:
    """Sums (N, 9, H) at row 0 of row 1's tensors, times the filters of their three parts, a table of 3 H channels."""
    return torch.ops.openmm_gnn.tensor_messages(edge_index, places, parts.float(), table, available_threads())


def first_tensors(
    edge_index: Tensor, directions: Tensor, places: Tensor, receiver: Tensor, sender: Tensor, table: Tensor
) -> Tensor:
    """Sums (N, 9, H) at row 0 of the tensors that directions make, times filters and receiver_i + sender_j, (N, H)."""
    return torch.ops.openmm_gnn.first_tensors(
        edge_index, directions, places, receiver.float(), sender.float(), table, available_threads()
    )


def scaled_tensors(parts: Tensor) -> Tensor:
    """Tensors (N, 9, H) of TensorNet divided by one and the square of their Frobenius norm."""
    return torch.ops.openmm_gnn.scaled_tensors(parts.float(), available_threads())


def tensor_products(first: Tensor, second: Tensor) -> Tensor:
    """`scaled_tensors` of the matrix products A B + B A, (N, 9, H)."""
    return torch.ops.openmm_gnn.tensor_products(first.float(), second.float(), available_threads())


def tensor_squares(parts: Tensor, change: Tensor) -> Tensor:
    """X + C + C C of tensors X and C, (N, 9, H)."""
    return torch.ops.openmm_gnn.tensor_squares(parts.float(), change.float(), available_threads())


def tabulated_filters(places: Tensor, table: Tensor) -> Tensor:
    """(E, channels) the functions of a table."""
    return torch.ops.openmm_gnn.tabulated_filters(places, table, available_threads())


def attention_network(
    edge_index: Tensor,
    edge_vectors: Tensor,
    edge_distances: Tensor,
    scalars: Tensor,
    weights: Tensor,
    tables: Tensor,
    norm: Tensor,
    cutoff: float,
    head_width: int,
) -> tuple[Tensor, Tensor]:
    """Scalars (N, H) and vectors (N, 3, H) of a whole `TorchMDET`.

    Args:
        edge_vectors: (E, 3), and edge_distances (E,), their lengths.
        scalars: (N, H), of the elements.
        weights: (layers, 22 H^2 + 10 H), each layer's as `AttentionLayer.packed_weights` orders them.
        tables: (layers, knots, 2, 4 H).
        norm: (2, H), gain and bias of the last normalisation.
    """
    result = torch.ops.openmm_gnn.attention_network(
        edge_index, edge_vectors, edge_distances, scalars, weights, tables, norm, cutoff, head_width,
        available_threads(),
    )  # fmt: skip
    return result[0], result[1]


def activated_table(rows: Tensor, bias: Tensor) -> Tensor:
    """A table (K, 2, C) of SiLU(z + bias), where rows (K, 2, C) is one of z: values, and slopes per knot."""
    return torch.ops.openmm_gnn.activated_table(rows, bias)


# ---- gradients, for torch's autograd ---------------------------------------------------------------------------------


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.numbers = [value for value in inputs if not isinstance(value, Tensor)]


def _attention_gradients(ctx: Any, scalars: Tensor, vectors: Tensor) -> tuple[Any, ...]:
    geometry, filters = any(ctx.needs_input_grad[1:4]), bool(ctx.needs_input_grad[6])
    node, carried, table, directions, envelope, places = torch.ops.openmm_gnn.attention_messages_backward(
        *ctx.saved_tensors, scalars.contiguous(), vectors.contiguous(), *ctx.numbers, geometry, filters
    )
    of_geometry = (directions, envelope, places.to(torch.float64)) if geometry else (None, None, None)
    return None, *of_geometry, node, carried, table if filters else None, None, None


def _tensor_gradients(ctx: Any, sums: Tensor) -> tuple[Any, ...]:
    geometry, filters = bool(ctx.needs_input_grad[1]), bool(ctx.needs_input_grad[3])
    places, parts, table = torch.ops.openmm_gnn.tensor_messages_backward(
        *ctx.saved_tensors, sums.contiguous(), *ctx.numbers, geometry, filters
    )
    return None, places.to(torch.float64) if geometry else None, parts, table if filters else None, None


def _first_gradients(ctx: Any, sums: Tensor) -> tuple[Any, ...]:
    geometry, filters = any(ctx.needs_input_grad[1:3]), bool(ctx.needs_input_grad[5])
    directions, places, receiver, sender, table = torch.ops.openmm_gnn.first_tensors_backward(
        *ctx.saved_tensors, sums.contiguous(), *ctx.numbers, geometry, filters
    )
    of_geometry = (directions, places.to(torch.float64)) if geometry else (None, None)
    return None, *of_geometry, receiver, sender, table if filters else None, None


def _activated_gradients(ctx: Any, table: Tensor) -> tuple[Tensor, Tensor]:
    rows, bias = torch.ops.openmm_gnn.activated_table_backward(*ctx.saved_tensors, table.contiguous())
    return rows, bias


def _save_network(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:7], output[2])
    ctx.numbers = inputs[7:]


def _network_gradients(ctx: Any, scalars: Tensor | None, vectors: Tensor | None, _: None) -> tuple[Any, ...]:
    if any(ctx.needs_input_grad[3:7]):
        raise RuntimeError("attention_network has no gradients of weights: call encoder.network.use_compiled(False)")
    embedded = ctx.saved_tensors[3]
    atoms, width = embedded.shape
    scalars = embedded.new_zeros((atoms, width)) if scalars is None else scalars.contiguous()
    vectors = embedded.new_zeros((atoms, 3, width)) if vectors is None else vectors.contiguous()
    of_vectors, of_distances = torch.ops.openmm_gnn.attention_network_backward(
        *ctx.saved_tensors, scalars, vectors, *ctx.numbers
    )
    return (None, of_vectors, of_distances, *(None,) * 7)


def no_second_gradients(*_: Any) -> None:
    """What a compiled gradient says that is asked for its own."""
    raise RuntimeError(
        "the compiled messages of an encoder have first derivatives only: for second ones call "
        "encoder.network.use_compiled(False), after which they are plain PyTorch"
    )


torch.library.register_autograd("openmm_gnn::attention_messages", _attention_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::attention_messages_backward", no_second_gradients)
torch.library.register_autograd("openmm_gnn::activated_table", _activated_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::activated_table_backward", no_second_gradients)
torch.library.register_autograd("openmm_gnn::attention_network", _network_gradients, setup_context=_save_network)
torch.library.register_autograd("openmm_gnn::attention_network_backward", no_second_gradients)
torch.library.register_autograd("openmm_gnn::tensor_messages", _tensor_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::tensor_messages_backward", no_second_gradients)
torch.library.register_autograd("openmm_gnn::first_tensors", _first_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::first_tensors_backward", no_second_gradients)
