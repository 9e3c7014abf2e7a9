"""Where a CUDA operator can be tested: on a device, or by the grid emulator on any machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from openmm_gnn.kernels import library

HAS_DEVICE = library.HAS_CUDA_LIBRARY and torch.cuda.is_available()
WHY_NOT = "the CUDA library is not built" if torch.cuda.is_available() else "no CUDA device"
CUDA_ALONE = (
    "gamd_edges",
    "gamd_messages",
    "gamd_strengths",
    "frame_edges",
    "pair_force_sums",
)
"""Operators that have no function for the CPU."""
ENCODERS = (
    "edge_rows",
    "attention_messages",
    "attention_messages_backward",
    "edge_layer",
    "tensor_messages",
    "first_tensors",
    "scaled_tensors",
    "tensor_products",
    "tensor_squares",
    "tabulated_filters",
)
"""Operators of encoders, which both devices have."""
PAIRS = (
    "pair_rows",
    "vector_messages",
    "vector_messages_backward",
    "pair_strengths",
    "pair_strengths_backward",
    "vector_gamd_forces",
)
"""Operators of pairs, which both devices have."""
ALL = ("neighbor_pairs", "update_neighbor_list", "pair_types", "radial_pair_forces", *ENCODERS, *PAIRS, *CUDA_ALONE)
"""Every operator that CUDA has."""
gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)]


@dataclass(frozen=True)
class Backend:
    """Where the CUDA operators run."""

    operators: object
    device: torch.device

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)
