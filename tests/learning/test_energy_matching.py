"""The gradient without second derivatives against the one with them, in double precision."""

from __future__ import annotations

import copy

import torch

from openmm_gnn.learning.training.force_matching import energy_matching_loss
from openmm_gnn.learning.training.frames import FrameBatch
from openmm_gnn.networks.force_model import PairList
from tests.networks.test_vector_gamd import CUTOFF, PARTNERS, SPECIES, model_of, water_positions


def test_the_stand_in_has_the_gradient_of_the_loss() -> None:
    from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
    from openmm_gnn.kernels.radial_pairs import pair_types

    model, positions = model_of(conservative=True).train(), water_positions()
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, None, full=False)
    frames = FrameBatch(
        species=SPECIES,
        pairs=pairs,
        vectors=vectors.float(),
        distances=distances.float(),
        types=pair_types(pairs, SPECIES, PARTNERS, 2),
        batch=torch.zeros_like(SPECIES),
        forces=30 * torch.randn(len(SPECIES), 3),
        num_frames=1,
    )
    stand_in, loss = energy_matching_loss(model, frames)
    stand_in.backward()
    truth = copy.deepcopy(model).double()
    truth.zero_grad()
    predicted = truth(SPECIES, PairList(pairs, vectors, distances, frames.types))
    exact = (predicted - frames.forces.double()).abs().mean() / model.force_scale
    exact.backward()
    torch.testing.assert_close(loss.double(), exact.detach(), rtol=1e-5, atol=1e-6)
    ours = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]).double()
    theirs = torch.cat([weight.grad.flatten() for weight in truth.parameters() if weight.grad is not None])
    assert float(theirs.norm()) > 1e-3
    assert float((ours - theirs).norm()) < 2e-3 * float(theirs.norm())
