"""Forces of a module against finite differences of its energy."""

from __future__ import annotations

import torch
from torch import Tensor


def finite_difference_deviation(
    module: torch.nn.Module, positions: Tensor, box: Tensor | None, step: float = 1e-4, num_components: int = 12
) -> float:
    """Largest difference between forces and -dE/dx by central differences, relative to the largest force.

    Args:
        module: (positions, box) -> (energy, forces), conservative.
        positions: (N, 3) float64, nm.
        step: displacement, nm.
        num_components: components tried, evenly spread over all.
    """
    forces = module(positions, box)[1].reshape(-1)
    tried = torch.linspace(0, forces.numel() - 1, num_components).round().to(torch.int64).unique()
    worst = 0.0
    for component in tried.tolist():
        energies = []
        for sign in (1.0, -1.0):
            moved = positions.clone().reshape(-1)
            moved[component] += sign * step
            energies.append(float(module(moved.reshape(positions.shape), box)[0]))
        worst = max(worst, abs(float(forces[component]) + (energies[0] - energies[1]) / (2 * step)))
    return worst / float(forces.abs().max())
