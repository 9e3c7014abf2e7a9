"""GAMD's networks over edges, compiled for CUDA: float32, forward only; networks/gamd.py holds the same in PyTorch.

Widths 16, 32, 64 and 128; csrc/gamd/gamd_tiles.h says what each operator computes. `products` says what the operands of
their matrix products are rounded to, sums being float32: 0 float32, 1 TF32 (10 bits of mantissa, a relative error of a
product of about 3e-4), 2 bfloat16 (7 bits, 3e-3). The latter two run on tensor cores and need compute capability 8.0;
on older devices nothing is rounded.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)


def fits_tiles(width: int, num_radial: int) -> bool:
    """Whether there are kernels for a network of this width and number of radial functions."""
    return width in (16, 32, 64, 128) and num_radial <= max(64, width)


def products_of(precision: str) -> int:
    """The number of a precision: float32, tf32 or bfloat16.

    Raises:
        ValueError: for another one.
    """
    names = ["float32", "tf32", "bfloat16"]
    if precision not in names:
        raise ValueError(f"the precision is {precision}: give one of {names}")
    return names.index(precision)


def gamd_edges(
    pairs: Tensor,
    distances: Tensor,
    vectors: Tensor,
    types: Tensor,
    centers: Tensor,
    radial: Tensor,
    radial_bias: Tensor,
    bonded: Tensor,
    direction: Tensor,
    out: Tensor,
    out_bias: Tensor,
    cutoff: float,
    scale: float,
    products: int,
) -> tuple[Tensor, Tensor]:
    """Features (P, width) of the edges i -> j and j -> i; undefined beyond the cutoff, empty if both are alike.

    Args:
        pairs, vectors, distances: (2, P), (P, 3) and (P,), as `GAMD.forward`.
        types: (P,) rows of `bonded`; not read if that is empty.
        centers, scale: of `GaussianBasis`.
        radial, radial_bias: (width, num_radial) and (width,).
        bonded: (rows, width), or empty.
        direction: (width, 3), or empty.
        out, out_bias: (width, width) and (width,), after the SiLU.
    """
    return torch.ops.openmm_gnn.gamd_edges(
        pairs, distances, vectors, types, centers, radial, radial_bias, bonded, direction, out, out_bias, cutoff, scale,
        products,
    )  # fmt: skip


def gamd_messages(
    rows: tuple[Tensor, Tensor],
    pairs: Tensor,
    forward_edges: Tensor,
    backward_edges: Tensor,
    envelope: Tensor,
    source: Tensor,
    target: Tensor,
    hidden: Tensor,
    edge: Tensor,
    edge_bias: Tensor,
    gate: Tensor,
    gate_bias: Tensor,
    products: int,
) -> Tensor:
    """(N, width): the sum of the messages to each atom, equations (3) and (4) of `models.gamd`.

    Args:
        rows: of `kernels.pair_rows`.
        forward_edges, backward_edges: (P, width) of `gamd_edges`.
        envelope: (P,).
        source, target, hidden: (N, width).
        edge, gate: (width, width), their biases (width,).
    """
    return torch.ops.openmm_gnn.gamd_messages(
        rows[0], rows[1], pairs, forward_edges, backward_edges, envelope, source, target, hidden, edge, edge_bias, gate,
        gate_bias, products,
    )  # fmt: skip


def gamd_strengths(
    pairs: Tensor,
    distances: Tensor,
    edges: Tensor,
    envelope: Tensor,
    total: Tensor,
    left: Tensor,
    edge: Tensor,
    edge_bias: Tensor,
    hidden: Tensor,
    hidden_bias: Tensor,
    readout: Tensor,
    readout_bias: Tensor,
    cutoff: float,
    products: int,
) -> Tensor:
    """(P,): the pair decoder's number for each pair, times the envelope.

    Args:
        edges: (P, width) of `gamd_edges`.
        total, left: (N, width).
        edge, hidden: (width, width), their biases (width,).
        readout, readout_bias: (1, width) and (1,).
    Returns:
        Zero on padding and beyond the cutoff, NaN where the distance is: so a list says that it is invalid.
    """
    return torch.ops.openmm_gnn.gamd_strengths(
        pairs, distances, edges, envelope, total, left, edge, edge_bias, hidden, hidden_bias, readout, readout_bias,
        cutoff, products,
    )  # fmt: skip


@torch.library.register_fake("openmm_gnn::gamd_edges")
def _gamd_edges_fake(pairs: Tensor, distances: Tensor, vectors: Tensor, types: Tensor, centers: Tensor, radial: Tensor,
                     radial_bias: Tensor, bonded: Tensor, direction: Tensor, out: Tensor, out_bias: Tensor,
                     cutoff: float, scale: float, products: int) -> tuple[Tensor, Tensor]:  # fmt: skip
    count, width = pairs.shape[1], out.shape[0]
    return out.new_empty((count, width)), out.new_empty((count if direction.numel() else 0, width))


@torch.library.register_fake("openmm_gnn::gamd_messages")
def _gamd_messages_fake(starts: Tensor, entries: Tensor, pairs: Tensor, forward: Tensor, backward: Tensor,
                        envelope: Tensor, source: Tensor, target: Tensor, hidden: Tensor, edge: Tensor,
                        edge_bias: Tensor, gate: Tensor, gate_bias: Tensor, products: int
                        ) -> Tensor:  # fmt: skip
    return torch.empty_like(hidden)


@torch.library.register_fake("openmm_gnn::gamd_strengths")
def _gamd_strengths_fake(pairs: Tensor, distances: Tensor, edges: Tensor, envelope: Tensor, total: Tensor, left: Tensor,
                         edge: Tensor, edge_bias: Tensor, hidden: Tensor, hidden_bias: Tensor, readout: Tensor,
                         readout_bias: Tensor, cutoff: float, products: int) -> Tensor:  # fmt: skip
    return torch.empty_like(distances)
