"""Token merging against its definition, token by token, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from token_frames import random_tokens

from openmm_gnn.base.specs.tokens import windows_of
from openmm_gnn.networks.tokens.token_mixers import EquivariantMerger, ScalarMerger

WIDTH = 4
CHAINS = (0, 0, 0, 0, 0, 1, 1)
WAYS = {
    "windows": windows_of(CHAINS, 2),
    "chains": windows_of(CHAINS, 0),
    "groups": ((0, 6), (5, 1, 2), (3, 4)),
    "single": windows_of(CHAINS, 1),
}


def side_by_side(tokens: np.ndarray, members: tuple[int, ...], largest: int) -> np.ndarray:
    """(..., largest * WIDTH) the members of one merged token, zeros after them; tokens (T, ..., WIDTH)."""
    empty = [np.zeros_like(tokens[0])] * (largest - len(members))
    return np.concatenate([*[tokens[member] for member in members], *empty], axis=-1)


@pytest.mark.parametrize("way", WAYS)
def test_equivariant_merging_is_a_linear_map_of_the_members_side_by_side(way: str) -> None:
    merged_tokens = WAYS[way]
    merger = EquivariantMerger(merged_tokens, WIDTH).double()
    tokens, _ = random_tokens(2, len(CHAINS), WIDTH)
    scalars, vectors = merger(tokens[:, :, 0], tokens[:, :, 1:])
    assert scalars.shape == (2, len(merged_tokens), WIDTH) and vectors.shape == (2, len(merged_tokens), 3, WIDTH)
    largest = max(map(len, merged_tokens))
    weight, bias = merger.scalars.weight.detach().numpy(), merger.scalars.bias.detach().numpy()
    for frame in range(2):
        for number, members in enumerate(merged_tokens):
            gathered = side_by_side(tokens[frame].numpy(), members, largest)
            np.testing.assert_allclose(scalars[frame, number].detach(), gathered[0] @ weight.T + bias, atol=1e-12)
            expected = gathered[1:] @ merger.vectors.weight.detach().numpy().T
            np.testing.assert_allclose(vectors[frame, number].detach(), expected, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_scalar_merging_hears_the_members_alone(way: str) -> None:
    merger = ScalarMerger(WAYS[way], WIDTH).double()
    tokens, _ = random_tokens(1, len(CHAINS), WIDTH)
    scalars = tokens[:, :, 0].requires_grad_()
    merged, vectors = merger(scalars, tokens[:, :, 1:])
    assert not bool(vectors.any()) and vectors.shape == (1, len(WAYS[way]), 3, WIDTH)
    for number, members in enumerate(WAYS[way]):
        (slopes,) = torch.autograd.grad(
            (merged[0, number] ** 2 * torch.arange(WIDTH)).sum(), scalars, retain_graph=True
        )
        heard = set(torch.nonzero(slopes[0].abs().sum(dim=1)).flatten().tolist())
        assert heard <= set(members)


def test_places_are_the_means_of_the_members() -> None:
    merger = EquivariantMerger(WAYS["groups"], WIDTH)
    _, places = random_tokens(3, len(CHAINS), WIDTH)
    expected = torch.stack([places[:, list(members)].mean(dim=1) for members in WAYS["groups"]], dim=1)
    torch.testing.assert_close(merger.coordinates(places), expected)
