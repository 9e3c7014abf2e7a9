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
    "pair_rows",
    "row_messages",
    "row_messages_backward",
    "row_strengths",
    "row_strengths_backward",
    "gamd_edges",
    "gamd_messages",
    "gamd_strengths",
    "edge_rows",
    "attention_rows",
    "edge_attention_rows",
    "edge_vector_rows",
    "tensor_rows",
    "first_tensor_rows",
    "frame_edges",
    "pair_force_sums",
    "attention_rows_backward",
)
"""Operators that have no function for the CPU."""
gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)]


@dataclass(frozen=True)
class Backend:
    """Where the CUDA operators run."""

    operators: object
    device: torch.device

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)
