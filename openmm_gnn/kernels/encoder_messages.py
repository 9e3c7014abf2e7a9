"""The loops over edges of encoders, compiled in float32: operators that take an `EdgePlan`, made once for a graph.

Each operator is one function for the CPU and for CUDA (csrc/encoders/messages.h); networks/encoders has the same in
plain PyTorch. On the CPU each edge is read once; edges ordered by the atom that receives are fastest. On CUDA sums go
along the rows of a plan, without atomics: the same input gives the same bits, and nothing waits for the device.

`attention_messages`, `tensor_messages`, `first_tensors` and `activated_table` can be differentiated once, by everything
but an index; `attention_network` by vectors and distances. On CUDA `attention_messages` alone, and not by its table.

Everywhere: N atoms, E edges, H the width, tables (knots, 2, channels) of graph/radial_basis.py. Features that autocast
has made bfloat16 are taken as float32.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any, NamedTuple

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import available_threads


class EdgePlan(NamedTuple):
    """The edges of one graph as every layer of an encoder takes them; `EdgeNetwork.plan` makes it."""

    edges: Tensor
    """(2, E) int64, row 0 the source and row 1 the target. Row 1 receives, but in TensorNet row 0."""
    rows: Tensor
    """Edges in the order of the atoms that receive them, by `edge_rows`; empty on the CPU and in plain PyTorch."""
    directions: Tensor
    """(E, 3) unit vectors from row 1 to row 0, zero on an atom's own edge."""
    envelope: Tensor
    """(E,) the cosine cutoff."""
    in_knots: Tensor
    """(E,) float64, where the distances lie in a table (`distances_in_knots`); empty in plain PyTorch."""
    radial: Tensor
    """(E, num_radial) the distances as features, for plain PyTorch; else empty."""
    knots: Tensor
    """(K, 2, num_radial + 1) the rows of `ExponentialBasis.knots` from which layers make their tables while their
    weights are trained; else empty, and layers keep a table."""
    compiled: bool
    """Whether the operators take the edges; else plain PyTorch does."""


# ---- what the operators take -----------------------------------------------------------------------------------------


def on_cuda(tensor: Tensor) -> bool:
    """Whether CUDA's functions of the operators take a tensor."""
    return tensor.is_cuda


def fits_operators(features: Tensor, width: int, head_width: int) -> bool:
    """Whether the operators take float32 features of this width in heads of that width on the device of `features`."""
    if head_width < 1 or width < 16 or width % 16 != 0 or width % head_width != 0:
        return False
    if on_cuda(features):
        return width <= 256
    return width <= 1024 and (head_width % 16 == 0 or 16 % head_width == 0)


def has_cpu_operators(tensor: Tensor) -> bool:
    """Whether what the CPU alone has takes a tensor: `attention_network`, `activated_table`, gradients by tables."""
    return not on_cuda(tensor)


# ---- the operators ---------------------------------------------------------------------------------------------------


def edge_rows(index: Tensor, distances: Tensor, cutoff: float, receiving: int, num_atoms: int, senders: bool) -> Tensor:
    """`EdgePlan.rows` of the edges shorter than the cutoff.

    Args:
        index: (2, E) int64; an edge with a negative atom is none.
        distances: (E,) float32.
        receiving: the row of `index` that holds the atoms which receive.
        senders: whether the rows of the senders follow, which gradients need.
    """
    return torch.ops.openmm_gnn.edge_rows(index, distances.detach(), cutoff, receiving, num_atoms, senders)


def attention_messages(
    plan: EdgePlan, node: Tensor, vectors: Tensor, table: Tensor, head_width: int
) -> tuple[Tensor, Tensor]:
    """Sums of the messages of `AttentionLayer`: (N, H) and (N, 3, H).

    Args:
        node: (N, 5 H), query, key and three values.
        vectors: (N, 3, H).
        table: filters of the key and the values, 4 H channels.
    """
    return torch.ops.openmm_gnn.attention_messages(
        plan.edges, plan.rows, plan.directions, plan.envelope, plan.in_knots, node.float(), vectors.float(), table,
        head_width, available_threads(),
    )  # fmt: skip


def edge_layer(
    plan: EdgePlan,
    node: Tensor,
    vectors: Tensor,
    mixed: Tensor,
    edges: Tensor,
    filter_weight: Tensor,
    filter_bias: Tensor,
    spread_weight: Tensor,
    spread_bias: Tensor,
    head_width: int,
    smooth: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (N, H) and (N, 3, H) of the messages of `EdgeAttentionLayer`, and the new (E, H) features of edges.

    Args:
        node: (N, 3 H), query, key, value.
        vectors: (N, 3, H).
        mixed: (N, 3, 5 H), the target's and the source's parts in the edges' change last; or (N, 3, 3 H).
        edges: (E, H).
        filter_weight, filter_bias: (3 H, H) and (3 H,), filters of key and value and gates of the edges' change; or
            (2 H, H) and (2 H,): the edges do not change, and none come back.
        spread_weight, spread_bias: (2 H, H) and (2 H,), scales of the sender's vectors and of the direction.
        smooth: whether the vectors' messages vanish at the cutoff.
    """
    return torch.ops.openmm_gnn.edge_layer(
        plan.edges, plan.rows, plan.directions, plan.envelope, plan.in_knots, node.float(), vectors.float(),
        mixed.float(), edges.float(), filter_weight, filter_bias, spread_weight, spread_bias, head_width,
        smooth, available_threads(),
    )  # fmt: skip


def tensor_messages(plan: EdgePlan, parts: Tensor, table: Tensor) -> Tensor:
    """Sums (N, 9, H) of the senders' tensors, times the filters of their three parts, a table of 3 H channels."""
    return torch.ops.openmm_gnn.tensor_messages(
        plan.edges, plan.rows, plan.directions, plan.envelope, plan.in_knots, parts.float(), table, available_threads()
    )


def first_tensors(plan: EdgePlan, receiver: Tensor, sender: Tensor, table: Tensor) -> Tensor:
    """Sums (N, 9, H) of the tensors that directions make, times filters and receiver_i + sender_j, (N, H)."""
    return torch.ops.openmm_gnn.first_tensors(
        plan.edges, plan.rows, plan.directions, plan.envelope, plan.in_knots, receiver.float(), sender.float(), table,
        available_threads(),
    )  # fmt: skip


def scaled_tensors(parts: Tensor) -> Tensor:
    """Tensors (N, 9, H) of TensorNet divided by one and the square of their Frobenius norm."""
    return torch.ops.openmm_gnn.scaled_tensors(parts.float(), available_threads())


def tensor_products(first: Tensor, second: Tensor) -> Tensor:
    """`scaled_tensors` of the matrix products A B + B A, (N, 9, H)."""
    return torch.ops.openmm_gnn.tensor_products(first.float(), second.float(), available_threads())


def tensor_squares(parts: Tensor, change: Tensor) -> Tensor:
    """X + C + C C of tensors X and C, (N, 9, H)."""
    return torch.ops.openmm_gnn.tensor_squares(parts.float(), change.float(), available_threads())


def tabulated_filters(in_knots: Tensor, table: Tensor) -> Tensor:
    """The functions of a table at distances (E,) of `distances_in_knots`: (E, channels)."""
    return torch.ops.openmm_gnn.tabulated_filters(in_knots, table, available_threads())


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
    """Scalars (N, H) and vectors (N, 3, H) of a whole `TorchMDET`, on the CPU.

    Args:
        edge_vectors: (E, 3), and edge_distances (E,), their lengths.
        scalars: (N, H), the embeddings of the elements.
        weights: (layers, 22 H^2 + 10 H), one row of `AttentionLayer.packed_weights` for each layer.
        tables: (layers, knots, 2, 4 H).
        norm: (2, H), gain and bias of the last normalisation.
    """
    result = torch.ops.openmm_gnn.attention_network(
        edge_index, edge_vectors, edge_distances, scalars, weights, tables, norm, cutoff, head_width,
        available_threads(),
    )  # fmt: skip
    return result[0], result[1]


def attention_network_and_kept(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`attention_network`, and what `attention_network_gradients` needs; nothing is recorded for autograd."""
    return torch.ops.openmm_gnn.attention_network(*arguments, available_threads())


def attention_network_gradients(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Gradients (E, 3) and (E,) by vectors and distances.

    Args:
        arguments: those of `attention_network`, what it kept, and gradients (N, H) and (N, 3, H) by its results.
    """
    *given, kept, scalars, vectors = arguments
    return torch.ops.openmm_gnn.attention_network_backward(*given, available_threads(), kept, scalars, vectors)


def activated_table(rows: Tensor, bias: Tensor) -> Tensor:
    """A table (K, 2, C) of SiLU(z + bias), where rows (K, 2, C) is a table of z: values, and slopes per knot."""
    return torch.ops.openmm_gnn.activated_table(rows, bias)


# ---- gradients, for torch's autograd ---------------------------------------------------------------------------------


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.numbers = [value for value in inputs if not isinstance(value, Tensor)]


def _attention_gradients(ctx: Any, scalars: Tensor, vectors: Tensor) -> tuple[Any, ...]:
    geometry, filters = any(ctx.needs_input_grad[2:5]), bool(ctx.needs_input_grad[7])
    node, carried, table, directions, envelope, in_knots = torch.ops.openmm_gnn.attention_messages_backward(
        *ctx.saved_tensors, *ctx.numbers, scalars.contiguous(), vectors.contiguous(), geometry, filters
    )
    of_geometry = (directions, envelope, in_knots.to(torch.float64)) if geometry else (None, None, None)
    return None, None, *of_geometry, node, carried, table if filters else None, None, None


def _tensor_gradients(ctx: Any, sums: Tensor) -> tuple[Any, ...]:
    geometry, filters = bool(ctx.needs_input_grad[4]), bool(ctx.needs_input_grad[6])
    parts, table, in_knots = torch.ops.openmm_gnn.tensor_messages_backward(
        *ctx.saved_tensors, *ctx.numbers, sums.contiguous(), geometry, filters
    )
    return *(None,) * 4, in_knots.to(torch.float64) if geometry else None, parts, table if filters else None, None


def _first_gradients(ctx: Any, sums: Tensor) -> tuple[Any, ...]:
    geometry, filters = any(ctx.needs_input_grad[2:5]), bool(ctx.needs_input_grad[7])
    receiver, sender, table, directions, in_knots = torch.ops.openmm_gnn.first_tensors_backward(
        *ctx.saved_tensors, *ctx.numbers, sums.contiguous(), geometry, filters
    )
    of_geometry = (directions, None, in_knots.to(torch.float64)) if geometry else (None, None, None)
    return None, None, *of_geometry, receiver, sender, table if filters else None, None


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
        *ctx.saved_tensors[:7], *ctx.numbers, ctx.saved_tensors[7], scalars, vectors
    )
    return (None, of_vectors, of_distances, *(None,) * 7)


def _no_second_gradients(*_: Any) -> None:
    raise RuntimeError(
        "the compiled messages of an encoder have first derivatives only: for second ones call "
        "encoder.network.use_compiled(False), after which they are plain PyTorch"
    )


for _name, _gradients in (
    ("attention_messages", _attention_gradients),
    ("tensor_messages", _tensor_gradients),
    ("first_tensors", _first_gradients),
    ("activated_table", _activated_gradients),
    ("attention_network", _network_gradients),
):
    _setup = _save_network if _name == "attention_network" else _save_inputs
    torch.library.register_autograd(f"openmm_gnn::{_name}", _gradients, setup_context=_setup)
    torch.library.register_autograd(f"openmm_gnn::{_name}_backward", _no_second_gradients)


# ---- shapes, for torch's compilers -----------------------------------------------------------------------------------


def _floats(like: Tensor, *sizes: Any) -> Tensor:
    return like.new_empty(sizes, dtype=torch.float32)


@torch.library.register_fake("openmm_gnn::edge_rows")
def _edge_rows_fake(index: Tensor, distances: Tensor, cutoff: float, receiving: int, atoms: int, senders: bool) -> Any:
    length = (2 if senders else 1) * (atoms + 1 + index.shape[1])
    return index.new_empty((0 if index.device.type == "cpu" else length,), dtype=torch.int32)


@torch.library.register_fake("openmm_gnn::attention_messages")
def _attention_messages_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    vectors = arguments[6]
    return _floats(vectors, vectors.shape[0], vectors.shape[2]), _floats(vectors, *vectors.shape)


@torch.library.register_fake("openmm_gnn::attention_messages_backward")
def _attention_gradients_fake(*arguments: Any) -> tuple[Tensor, ...]:
    index, (node, vectors, table), (geometry, filters) = arguments[0], arguments[5:8], arguments[12:]
    count = index.shape[1] if geometry else 0
    of_table = _floats(table, table.shape[0] if filters else 0, 2, table.shape[2])
    of_edges = _floats(node, count, 3), _floats(node, count), _floats(node, count)
    return _floats(node, *node.shape), _floats(vectors, *vectors.shape), of_table, *of_edges


@torch.library.register_fake("openmm_gnn::edge_layer")
def _edge_layer_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    vectors, mixed, edges = arguments[6:9]
    atoms, width = vectors.shape[0], vectors.shape[2]
    changed = edges.shape[0] if mixed.shape[2] == 5 * width else 0
    return _floats(vectors, atoms, width), _floats(vectors, atoms, 3, width), _floats(edges, changed, width)


@torch.library.register_fake("openmm_gnn::tensor_messages")
def _tensor_messages_fake(*arguments: Any) -> Tensor:
    return _floats(arguments[5], *arguments[5].shape)


@torch.library.register_fake("openmm_gnn::tensor_messages_backward")
def _tensor_gradients_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    index, (parts, table), (geometry, filters) = arguments[0], arguments[5:7], arguments[9:]
    of_table = _floats(table, table.shape[0] if filters else 0, 2, table.shape[2])
    return _floats(parts, *parts.shape), of_table, _floats(parts, index.shape[1] if geometry else 0)


@torch.library.register_fake("openmm_gnn::first_tensors")
def _first_tensors_fake(*arguments: Any) -> Tensor:
    receiver = arguments[5]
    return _floats(receiver, receiver.shape[0], 9, receiver.shape[1])


@torch.library.register_fake("openmm_gnn::first_tensors_backward")
def _first_gradients_fake(*arguments: Any) -> tuple[Tensor, ...]:
    index, (receiver, _, table), (geometry, filters) = arguments[0], arguments[5:8], arguments[10:]
    count = index.shape[1] if geometry else 0
    of_table = _floats(table, table.shape[0] if filters else 0, 2, table.shape[2])
    of_atoms = _floats(receiver, *receiver.shape), _floats(receiver, *receiver.shape)
    return *of_atoms, of_table, _floats(receiver, count, 3), _floats(receiver, count)


def _tensors_of_atoms_fake(parts: Tensor, *_: Any) -> Tensor:
    return _floats(parts, *parts.shape)


for _name in ("scaled_tensors", "tensor_products", "tensor_squares"):
    torch.library.register_fake(f"openmm_gnn::{_name}", _tensors_of_atoms_fake)


@torch.library.register_fake("openmm_gnn::tabulated_filters")
def _tabulated_filters_fake(places: Tensor, table: Tensor, num_threads: int) -> Tensor:
    return _floats(table, places.shape[0], table.shape[2])


@torch.library.register_fake("openmm_gnn::activated_table")
def _activated_table_fake(rows: Tensor, bias: Tensor) -> Tensor:
    return _floats(rows, *rows.shape)


@torch.library.register_fake("openmm_gnn::activated_table_backward")
def _activated_gradients_fake(rows: Tensor, bias: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return _floats(rows, *rows.shape), _floats(bias, *bias.shape)


@torch.library.register_fake("openmm_gnn::attention_network")
def _attention_network_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    scalars, layers = arguments[3], arguments[4].shape[0]
    atoms, width = scalars.shape
    kept = _floats(scalars, (21 * layers + 1) * atoms * width)
    return _floats(scalars, atoms, width), _floats(scalars, atoms, 3, width), kept


@torch.library.register_fake("openmm_gnn::attention_network_backward")
def _network_gradients_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _floats(arguments[1], *arguments[1].shape), _floats(arguments[2], *arguments[2].shape)
