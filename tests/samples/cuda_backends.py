"""Where a CUDA operator can be tested: on a device, or by the grid emulator on any machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from openmm_gnn.kernels import library

HAS_DEVICE = library.HAS_CUDA_LIBRARY and torch.cuda.is_available()
WHY_NOT = "the CUDA library is not built" if torch.cuda.is_available() else "no CUDA device"
gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)]


@dataclass(frozen=True)
class Backend:
    """Where the CUDA operators run."""

    operators: object
    device: torch.device

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)
