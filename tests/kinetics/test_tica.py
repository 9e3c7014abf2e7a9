"""TICA as a network, beside deeptime's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from deeptime.decomposition import TICA

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.methods.tica import fit_tica
from openmm_gnn.reporters.store_exports import observables_of


def tokens_with_a_slow_scalar(frames: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    tokens = generator.normal(size=(frames, 2, 4, 2)).astype(np.float32)
    noise = generator.normal(size=frames)
    for frame in range(1, frames):
        tokens[frame, 1, 0, 1] = 0.98 * tokens[frame - 1, 1, 0, 1] + np.sqrt(1 - 0.98**2) * noise[frame]
    return tokens


def test_the_network_is_tica_of_the_invariants() -> None:
    tokens = [tokens_with_a_slow_scalar(3000, seed) for seed in range(2)]
    invariants = [observables_of(part).astype(np.float64) for part in tokens]
    network = fit_tica([observables_of(part) for part in tokens], 5, 2)
    outputs = [network(torch.from_numpy(part), torch.zeros(len(part), 2, 3)).double().numpy() for part in tokens]
    truth = TICA(lagtime=5, dim=2, scaling=None).fit(invariants).fetch_model()
    for mine, part in zip(outputs, invariants, strict=True):
        theirs = truth.transform(part)
        for k in range(2):
            assert abs(np.corrcoef(mine[:, k], theirs[:, k])[0, 1]) > 0.9999
    together = np.concatenate(outputs)
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(together.std(axis=0), 1, rtol=0.02)
    slow = np.concatenate(tokens)[:, 1, 0, 1]
    assert abs(np.corrcoef(together[:, 0], slow)[0, 1]) > 0.98


def test_the_gradient_is_finite_where_a_vector_is_zero() -> None:
    network = fit_tica([observables_of(tokens_with_a_slow_scalar(500, 0))], 5, 1)
    tokens = torch.zeros(1, 2, 4, 2, requires_grad=True)
    network(tokens, torch.zeros(1, 2, 3)).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()


def test_too_short_and_constant_runs_are_refused() -> None:
    with pytest.raises(DataError, match="longer than the lag of 5 frames"):
        fit_tica([np.zeros((5, 4))], 5, 1)
    with pytest.raises(DataError, match="do not vary"):
        fit_tica([np.ones((50, 4))], 5, 1)
    with pytest.raises(DataError, match="have 1 independent directions, 2 outputs"):
        fit_tica([np.random.default_rng(0).normal(size=(50, 1)) * np.ones(4)], 5, 2)
