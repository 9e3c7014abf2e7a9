"""The ends of pairs by the atom that receives, and sums along them: compiled for CUDA.

csrc/vector_gamd/pair_rows.h has the layout.

The functions of `kernels.vector_network` take them for tensors on CUDA. Sums have no atomics, so the same input gives
the same bits; nothing waits for the device and no shape depends on the data, so a CUDA graph can hold all of it.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.neighbor_pairs import safe_distances
from openmm_gnn.kernels.vector_network_reference import pair_strengths_reference, vector_messages_reference

MOST_CHANNELS = 256
"""Widest features that the CUDA operators take."""


def pair_rows(pairs: Tensor, distances: Tensor, cutoff: float, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Where each atom's messages stand, on CUDA.

    Args:
        pairs: (2, P) int64, each pair once; -1 is padding.
        distances: (P,) float32; pairs at or beyond the cutoff are left out.
    Returns:
        starts (N + 1,) int32: the entries of atom a are those from starts[a] up to starts[a + 1].
        entries (2 P,) int32, valid up to starts[N]: 2 k for the message of pair k to its first atom, 2 k + 1 for that
        to its second; ascending for each atom.
    """
    return torch.ops.openmm_gnn.pair_rows(pairs, distances, cutoff, num_atoms)


def pair_rows_reference(pairs: Tensor, distances: Tensor, cutoff: float, num_atoms: int) -> tuple[Tensor, Tensor]:
    """`pair_rows` in plain torch on any device; `entries` has no more than the valid ones."""
    wanted = (pairs[0] >= 0) & (distances < cutoff)
    ends = torch.arange(2 * pairs.size(1), device=pairs.device)
    receivers = pairs.t().reshape(-1)
    kept = wanted.repeat_interleave(2)
    receivers, ends = receivers[kept], ends[kept]
    order = receivers.argsort(stable=True)
    starts = torch.zeros(num_atoms + 1, dtype=torch.int64, device=pairs.device)
    starts[1:] = torch.bincount(receivers, minlength=num_atoms).cumsum(0)
    return starts.to(torch.int32), ends[order].to(torch.int32)


# ---- shapes and gradients, for torch's autograd and compilers --------------------------------------------------------


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.numbers = [value for value in inputs if not isinstance(value, Tensor)]


def _plain_gradients(ctx: Any, function: Any, arriving: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """All gradients by the plain form, for training: those of the weights have no kernel of their own."""
    pairs, types, *inputs = ctx.saved_tensors[2:]
    del inputs[1]  # the distances are those of the vectors
    with torch.enable_grad():
        inputs = [value.detach().requires_grad_() for value in inputs]
        results = function(pairs, types, inputs[0], safe_distances(inputs[0]), *inputs[1:], *ctx.numbers)
        results = results if isinstance(results, tuple) else (results,)
        found = list(torch.autograd.grad(results, inputs, arriving, allow_unused=True))
    return (None, None, None, None, found[0], None, *found[1:], None, None)


def _message_gradients(ctx: Any, scalars: Tensor, vectors: Tensor) -> tuple[Any, ...]:
    if any(ctx.needs_input_grad[11:13]):
        return _plain_gradients(ctx, vector_messages_reference, (scalars, vectors))
    geometry = bool(ctx.needs_input_grad[4])
    *gradients, pair_vectors = torch.ops.openmm_gnn.row_messages_backward(
        *ctx.saved_tensors, scalars.contiguous(), vectors.contiguous(), *ctx.numbers, geometry
    )
    return (None, None, None, None, pair_vectors if geometry else None, None, *gradients, None, None, None, None)


def _strength_gradients(ctx: Any, strengths: Tensor) -> tuple[Any, ...]:
    if any(ctx.needs_input_grad[9:12]):
        return _plain_gradients(ctx, pair_strengths_reference, (strengths,))
    geometry = bool(ctx.needs_input_grad[4])
    *gradients, pair_vectors = torch.ops.openmm_gnn.row_strengths_backward(
        *ctx.saved_tensors, strengths.contiguous(), *ctx.numbers, geometry
    )
    return (None, None, None, None, pair_vectors if geometry else None, None, *gradients, None, None, None, None, None)


torch.library.register_autograd("openmm_gnn::row_messages", _message_gradients, setup_context=_save_inputs)
torch.library.register_autograd("openmm_gnn::row_strengths", _strength_gradients, setup_context=_save_inputs)


@torch.library.register_fake("openmm_gnn::pair_rows")
def _pair_rows_fake(pairs: Tensor, distances: Tensor, cutoff: float, num_atoms: int) -> tuple[Tensor, Tensor]:
    starts = pairs.new_empty((num_atoms + 1,), dtype=torch.int32)
    return starts, pairs.new_empty((2 * pairs.shape[1],), dtype=torch.int32)


@torch.library.register_fake("openmm_gnn::row_messages")
def _row_messages_fake(starts: Tensor, entries: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor,
                       distances: Tensor, source: Tensor, target: Tensor, value: Tensor, *rest: Any
                       ) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(value), value.new_empty((value.shape[0], 3, value.shape[1]))


@torch.library.register_fake("openmm_gnn::row_strengths")
def _row_strengths_fake(starts: Tensor, entries: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor,
                        distances: Tensor, *rest: Any) -> Tensor:  # fmt: skip
    return torch.empty_like(distances)
