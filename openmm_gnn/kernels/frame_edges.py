"""Edges of all frames of a batch by one search, on CUDA alone; csrc/neighbors/cuda/frame_edges.h says how."""

# No `from __future__ import annotations` here: these functions are compiled by TorchScript.
import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)

MOST_FRAME_ATOMS = 8192
"""In a larger frame a cell list is faster than to test every pair; kMostFrameAtoms in frame_search.h."""


def frame_edges(positions: Tensor, batch: Tensor | None, cutoff: float, most: int, nearest: bool) -> Tensor:
    """Edges from sources j to targets i with |r_ij| < cutoff within each frame, and every atom's own; open boundary.

    Waits for the device once, whatever the number of frames. Same input, same bits.

    Args:
        positions: (N, 3) float32 or float64 on CUDA, any length unit.
        batch: (N,) the frame of each atom, not falling; None: all are one.
        cutoff: in the same unit.
        most: edges of a target; 0, and not `nearest`: all.
        nearest: of a target its own edge first, then by distance and, where equal, by source. Otherwise by source.
    Returns:
        (2, E) int64, row 0 the sources and row 1 the targets, which do not fall. None at all, (2, 0), where some frame
        has more than MOST_FRAME_ATOMS.
    Raises:
        ValueError: if the frames' numbers fall or are negative.
        RuntimeError: for positions that are not finite, a cutoff that is not above 0, wrong shapes or dtypes.
    """
    frames = torch.empty([0], dtype=torch.int64, device=positions.device)
    if batch is not None:
        frames = batch.to(torch.int64).contiguous()
    return torch.ops.openmm_gnn.frame_edges(positions.detach(), frames, cutoff, most, nearest)


@torch.library.register_fake("openmm_gnn::frame_edges")
def _frame_edges_fake(positions: Tensor, batch: Tensor, cutoff: float, most: int, nearest: bool) -> Tensor:
    num_edges = torch.library.get_ctx().new_dynamic_size()
    return positions.new_empty((2, num_edges), dtype=torch.int64)
