"""Force matching for an energy model without second derivatives.

The loss L depends on the weights w through the forces F = -dE/dx. With v = dL/dF held fixed,

    dL/dw = d/dw (v . F) = -d/dw (dE/dx . v) = -d/dw [E(x + h v) - E(x - h v)] / 2h + O(h^2),

so two more energies, each differentiated once by the weights, do what a second backward pass would: the compiled
operators need no second derivative, and a step takes three evaluations in place of about ten.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_gnn.kernels.radial_pairs import scatter_pair_forces
from openmm_gnn.learning.training.frames import FrameBatch
from openmm_gnn.networks.force_model import ForceModel

LARGEST_MOVE_NM = 1e-3
"""How far the atom with the largest gradient moves: small beside the network's features, large beside rounding."""


def energy_matching_loss(
    model: ForceModel, frames: FrameBatch, largest_move: float = LARGEST_MOVE_NM
) -> tuple[Tensor, Tensor]:
    """A stand-in whose gradient by the weights is that of the loss, and the loss.

    Args:
        model: one that matches energies, see `ForceModel.matches_energies`.
        frames: N atoms and P pairs.
        largest_move: nm.
    Returns:
        0-d each: the stand-in, whose value means nothing, and mean |F - F_ref| in units of the force scale.
    """
    assert frames.types is not None
    types, (i, j) = frames.types, frames.pairs
    vectors = frames.vectors.detach().requires_grad_()
    with torch.enable_grad():
        energy = model.compiled_energy(frames.species, frames.pairs, types, vectors)
        (gradient,) = torch.autograd.grad(energy, vectors)
    forces = scatter_pair_forces(gradient, frames.pairs, len(frames.species))
    if frames.pair_forces is not None:
        forces = forces + frames.pair_forces
    forces.requires_grad_()
    loss = (forces - frames.forces).abs().mean() / model.force_scale
    (direction,) = torch.autograd.grad(loss, forces)
    step = largest_move / direction.norm(dim=1).max().clamp(min=1e-30)
    moves = step * (direction.index_select(0, j) - direction.index_select(0, i))
    ahead = model.compiled_energy(frames.species, frames.pairs, types, frames.vectors + moves)
    behind = model.compiled_energy(frames.species, frames.pairs, types, frames.vectors - moves)
    return (behind - ahead) / (2 * step), loss.detach()
