"""Tokens from windows go into every kind of network as those of whole graphs do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learned_cvs import chain, small_encoder

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, check_together
from openmm_gnn.networks.tokens.cv_network import CVNetwork

FRAMES, TRAINED = 240, 180


@pytest.fixture(scope="module")
def examples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windowed tokens, coordinates, and the length of the chain in units of its standard deviation."""
    system = chain(12)
    generator = np.random.default_rng(0)
    stretch = 1 + 0.05 * generator.normal(size=(FRAMES, 1, 1))
    frames = stretch * system.positions + 0.002 * generator.normal(size=(FRAMES, 12, 3))
    featurizer = Featurizer(small_encoder(), system.topology, context="window", window=1)
    length = np.linalg.norm(frames[:, -1] - frames[:, 0], axis=1)
    target = torch.from_numpy((length - length.mean()) / length.std()).float()
    return torch.from_numpy(featurizer.features(frames)), torch.from_numpy(featurizer.coordinates(frames)), target


@pytest.mark.parametrize("mixer", ["mlp", "equivariant-attention", "subformer", "subgvp"])
def test_every_kind_of_network_learns_from_windowed_tokens(
    mixer: str, examples: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    tokens, places, target = examples
    spec = CVNetworkSpec(6, 16, num_outputs=1, mixer=mixer, width=16, num_layers=1, num_heads=2, dropout=0.0)
    network = CVNetwork(spec)
    seen = tokens[:TRAINED]
    network.set_input_statistics(
        seen[:, :, 0].mean(0), seen[:, :, 0].std(0), seen[:, :, 1:].square().mean((0, 2)).sqrt()
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        (network(seen, places[:TRAINED])[:, 0] - target[:TRAINED]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        held_out = network.eval()(tokens[TRAINED:], places[TRAINED:])[:, 0]
    error = (held_out - target[TRAINED:]).square().mean() / target[TRAINED:].var()
    assert float(error) < 0.1


def test_tokens_of_two_contexts_are_not_analysed_together() -> None:
    system = chain(12)
    frames = system.positions + 0.01 * np.random.default_rng(1).normal(size=(9, 12, 3))
    made = []
    for context in ("whole", "window"):
        featurizer = Featurizer(small_encoder(), system.topology, context=context)
        description = featurizer.describe()
        made.append(
            TokenTrajectory(
                context,
                featurizer.features(frames),
                featurizer.coordinates(frames),
                np.arange(9.0),
                description=description,
            )
        )
    with pytest.raises(DataError, match=r"window and whole have features of different origin \(context, segments, win"):
        check_together(made)
    older = {
        name: value for name, value in made[0].description.items() if name not in ("context", "window", "segments")
    }
    check_together(
        [made[0], TokenTrajectory("older", made[0].tokens, made[0].coordinates, np.arange(9.0), None, older)]
    )
