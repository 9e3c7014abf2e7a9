"""The pairs of a graph as the loops over them take them; csrc/vector_gamd/pair_rows.h has the contract.

On CUDA sums run along rows of the ends of pairs, by the atom that receives: no atomics, so the same input gives the
same bits; nothing waits for the device and no shape depends on the data, so a CUDA graph can hold all of it.
"""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
from typing import NamedTuple

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)


class PairGraph(NamedTuple):
    """Pairs with what all layers of a network need of them; `pair_graph` makes it once for a list."""

    pairs: Tensor
    """(2, P) int64, each pair once; -1 is padding."""
    types: Tensor
    """(P,) int64, rows of a radial table."""
    vectors: Tensor
    """(P, 3) from i to j."""
    distances: Tensor
    """(P,), their norms."""
    starts: Tensor
    """Rows of `pair_rows`; empty on the CPU and where nothing is compiled."""
    entries: Tensor
    """Entries of these rows."""
    start: float
    """Where the radial tables begin."""
    cutoff: float
    """Where they end; pairs beyond do not count."""
    compiled: bool
    """Whether the compiled operators are used, or plain PyTorch."""


def fits_operators(vectors: Tensor, width: int) -> bool:
    """Whether the compiled operators take these pairs and features of this width: on CUDA at most 256 channels."""
    return vectors.dtype == torch.float32 and width % 16 == 0 and (not vectors.is_cuda or width <= 256)


def pair_graph(
    pairs: Tensor,
    types: Tensor,
    vectors: Tensor,
    distances: Tensor,
    num_atoms: int,
    start: float,
    cutoff: float,
    compiled: bool = True,
) -> PairGraph:
    """The pairs of `num_atoms` atoms with their rows; see `PairGraph`."""
    starts = torch.empty([0], dtype=torch.int32, device=pairs.device)
    entries = starts
    if compiled:
        starts, entries = pair_rows(pairs, distances.detach(), cutoff, num_atoms)
    return PairGraph(pairs, types, vectors, distances, starts, entries, start, cutoff, compiled)


def pair_rows(pairs: Tensor, distances: Tensor, cutoff: float, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Where each atom's messages stand, on CUDA; on the CPU, whose loops need none, two empty tensors.

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
    """`pair_rows` of CUDA in plain torch on any device; `entries` has no more than the valid ones."""
    wanted = (pairs[0] >= 0) & (distances < cutoff)
    ends = torch.arange(2 * pairs.size(1), device=pairs.device)
    receivers = pairs.t().reshape(-1)
    kept = wanted.repeat_interleave(2)
    receivers, ends = receivers[kept], ends[kept]
    order = receivers.argsort(stable=True)
    starts = torch.zeros(num_atoms + 1, dtype=torch.int64, device=pairs.device)
    starts[1:] = torch.bincount(receivers, minlength=num_atoms).cumsum(0)
    return starts.to(torch.int32), ends[order].to(torch.int32)


@torch.library.register_fake("openmm_gnn::pair_rows")
def _pair_rows_fake(pairs: Tensor, distances: Tensor, cutoff: float, num_atoms: int) -> tuple[Tensor, Tensor]:
    rows, ends = (0, 0) if pairs.device.type == "cpu" else (num_atoms + 1, 2 * pairs.shape[1])
    return pairs.new_empty((rows,), dtype=torch.int32), pairs.new_empty((ends,), dtype=torch.int32)
