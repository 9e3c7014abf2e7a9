"""Checks that an exported module computes what the network computes, before a long run trusts it."""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_gnn.base.errors import OpenMMGNNError

FORCE_TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest force."""


def frozen_deviation(
    module: torch.jit.ScriptModule, eager: torch.nn.Module, positions: Tensor, box: Tensor | None
) -> float:
    """Largest difference between frozen and eager forces, relative to the largest force.

    OpenMM freezes the module in each Context; freezing is allowed to rewrite the graph and has changed results before.
    """
    frozen = torch.jit.freeze(module.eval())
    return _deviation(frozen(positions, box)[1], eager(positions, box)[1])


def translation_deviation(module: torch.nn.Module, positions: Tensor, box: Tensor | None, seed: int = 0) -> float:
    """Largest change of the forces, relative to the largest, when single atoms move by random box vectors.

    OpenMM hands out wrapped positions on some platforms and unwrapped ones on others; forces must not care.
    Without a box there is nothing to move by, and the deviation is 0.
    """
    if box is None:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(-2, 3, positions.shape, generator=generator).to(positions)
    before = module(positions, box)[1]
    return _deviation(module(positions + shifts @ box, box)[1], before)


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


def check_export(module: torch.jit.ScriptModule, eager: torch.nn.Module, positions: Tensor, box: Tensor | None) -> None:
    """Frozen equals eager, and translating atoms by box vectors changes nothing.

    Raises:
        OpenMMGNNError: naming the check, the deviation and the tolerance.
    """
    for name, deviation in (
        ("frozen against eager", frozen_deviation(module, eager, positions, box)),
        ("atoms translated by box vectors", translation_deviation(module, positions, box)),
    ):
        if not deviation <= FORCE_TOLERANCE:
            raise OpenMMGNNError(
                f"export check failed, {name}: forces differ by {deviation:.2e} of the largest force, allowed "
                f"{FORCE_TOLERANCE:.0e}: report this with the versions that `openmm-gnn doctor` prints"
            )


def _deviation(values: Tensor, reference: Tensor) -> float:
    return float((values - reference).abs().max() / reference.abs().max().clamp(min=1e-12))
