"""GAMD's networks over edges, compiled for CUDA: float32, forward only; networks/gamd.py holds the same in PyTorch.

Widths 16, 32, 64 and 128; csrc/gamd/gamd_tiles.h says what each operator computes.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openmm_gnn.kernels.pair_rows import pair_rows


class TileGraph(NamedTuple):
    """Pairs with what all layers of a network need of them; `tile_graph` makes it once for a list."""

    pairs: Tensor
    """(2, P) int64, each pair once; -1 is padding."""
    distances: Tensor
    """(P,)."""
    envelope: Tensor
    """(P,)."""
    starts: Tensor
    """Rows of `kernels.pair_rows`."""
    entries: Tensor
    """Entries of these rows."""
    cutoff: float
    """Where pairs cease to count."""


def tile_graph(pairs: Tensor, distances: Tensor, envelope: Tensor, num_atoms: int, cutoff: float) -> TileGraph:
    """The pairs of `num_atoms` atoms with their rows; see `TileGraph`."""
    starts, entries = pair_rows(pairs, distances, cutoff, num_atoms)
    return TileGraph(pairs, distances, envelope, starts, entries, cutoff)


def fits_tiles(vectors: Tensor, width: int, num_radial: int) -> bool:
    """Whether the operators can be used: on CUDA, in float32 and without gradients, for networks of these sizes."""
    has_kernels = width in [16, 32, 64, 128] and num_radial <= max(64, width)
    return has_kernels and vectors.is_cuda and vectors.dtype == torch.float32 and not torch.is_grad_enabled()


def gamd_edges(
    graph: TileGraph,
    vectors: Tensor,
    types: Tensor,
    basis: tuple[Tensor, float],
    radial: tuple[Tensor, Tensor],
    bonded: Tensor,
    direction: Tensor,
    out: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Features (P, width) of the edges i -> j and j -> i; undefined beyond the cutoff, empty if both are alike.

    Args:
        vectors: (P, 3), as `GAMD.forward`.
        types: (P,) rows of `bonded`; not read if that is empty.
        basis: centers and scale of `GaussianBasis`.
        radial: (width, num_radial) and (width,), weight and bias.
        bonded: (rows, width), or empty.
        direction: (width, 3), or empty.
        out: (width, width) and (width,), weight and bias after the SiLU.
    """
    return torch.ops.openmm_gnn.gamd_edges(
        graph.pairs, graph.distances, vectors, types, basis[0], radial[0], radial[1], bonded, direction, out[0], out[1],
        graph.cutoff, basis[1],
    )  # fmt: skip


def gamd_messages(
    graph: TileGraph,
    edges: tuple[Tensor, Tensor],
    source: Tensor,
    target: Tensor,
    hidden: Tensor,
    edge: tuple[Tensor, Tensor],
    gate: tuple[Tensor, Tensor],
) -> Tensor:
    """(N, width): the sum of the messages to each atom, equations (3) and (4) of `networks.gamd`.

    Args:
        edges: (P, width) each, of `gamd_edges`.
        source, target, hidden: (N, width).
        edge, gate: (width, width) and (width,), weight and bias.
    """
    return torch.ops.openmm_gnn.gamd_messages(
        graph.starts, graph.entries, graph.pairs, edges[0], edges[1], graph.envelope, source, target, hidden, edge[0],
        edge[1], gate[0], gate[1],
    )  # fmt: skip


def gamd_strengths(
    graph: TileGraph,
    edges: Tensor,
    total: Tensor,
    left: Tensor,
    edge: tuple[Tensor, Tensor],
    hidden: tuple[Tensor, Tensor],
    readout: tuple[Tensor, Tensor],
) -> Tensor:
    """(P,): the pair decoder's number for each pair, times the envelope.

    Args:
        edges: (P, width) of `gamd_edges`.
        total, left: (N, width).
        edge, hidden: (width, width) and (width,), weight and bias.
        readout: (1, width) and (1,).
    Returns:
        Zero on padding and beyond the cutoff, NaN where the distance is: so a list says that it is invalid.
    """
    return torch.ops.openmm_gnn.gamd_strengths(
        graph.pairs, graph.distances, edges, graph.envelope, total, left, edge[0], edge[1], hidden[0], hidden[1],
        readout[0], readout[1], graph.cutoff,
    )  # fmt: skip


@torch.library.register_fake("openmm_gnn::gamd_edges")
def _gamd_edges_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    pairs, direction, out = arguments[0], arguments[8], arguments[9]
    count, width = pairs.shape[1], out.shape[0]
    return out.new_empty((count, width)), out.new_empty((count if direction.numel() else 0, width))


@torch.library.register_fake("openmm_gnn::gamd_messages")
def _gamd_messages_fake(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[8])


@torch.library.register_fake("openmm_gnn::gamd_strengths")
def _gamd_strengths_fake(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[1])
