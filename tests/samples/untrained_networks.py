"""Networks of random weights: as fast as a network can be, and wrong about everything."""

from __future__ import annotations

from typing import Any

import torch

from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec
from openmm_gnn.networks.gamd import GAMD


def untrained(elements: tuple[int, ...] = (18,), cutoff: float = 0.5, **changes: Any) -> GAMD:
    """A small GAMD, the same each time.

    Args:
        cutoff: nm.
        changes: other fields of `GAMDSpec`.
    """
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"num_layers": 1, "width": 8, "num_radial": 8, "force_scale": 10.0}
    return GAMD(GAMDSpec(NeighborSpec(cutoff), elements, **(sizes | changes))).eval()
