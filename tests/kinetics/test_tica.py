"""TICA as a network, beside deeptime's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from deeptime.decomposition import TICA
from sklearn.decomposition import PCA

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs
from openmm_gnn.kinetics.methods import tica
from openmm_gnn.kinetics.methods.tica import fit_tica
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, trajectory_of_arrays
from openmm_gnn.reporters.store_exports import observables_of


def tokens_with_a_slow_scalar(frames: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    tokens = generator.normal(size=(frames, 2, 4, 2)).astype(np.float32)
    noise = generator.normal(size=frames)
    for frame in range(1, frames):
        tokens[frame, 1, 0, 1] = 0.98 * tokens[frame - 1, 1, 0, 1] + np.sqrt(1 - 0.98**2) * noise[frame]
    return tokens


def pairs_of(tokens: list[np.ndarray], lag: int) -> LaggedPairs:
    return LaggedPairs([trajectory_of_arrays(str(number), part, 1.0) for number, part in enumerate(tokens)], lag)


def test_the_network_is_tica_of_the_invariants() -> None:
    tokens = [tokens_with_a_slow_scalar(3000, seed) for seed in range(2)]
    invariants = [observables_of(part).astype(np.float64) for part in tokens]
    network = fit_tica(pairs_of(tokens, 5), 2)
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


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_deeptimes_to_rounding_in_any_portions(monkeypatch: pytest.MonkeyPatch, weighted: bool) -> None:
    monkeypatch.setattr(tica, "BLOCK_BYTES", 20_000)  # a few dozen frames
    tokens = [tokens_with_a_slow_scalar(frames, frames) for frames in (300, 200)]
    pairs, estimator = pairs_of(tokens, 3), TICA.covariance_estimator(3)
    log_weights = [np.random.default_rng(0).normal(size=len(part)) for part in tokens]
    if weighted:
        runs = [replace(run, log_weights=own) for run, own in zip(pairs.trajectories, log_weights, strict=True)]
        pairs = LaggedPairs(runs, 3.0)
    for part, own in zip(tokens, log_weights, strict=True):
        values = observables_of(part).astype(np.float64)
        estimator.partial_fit((values[:-3], values[3:]), weights=np.exp(own[:-3]) if weighted else None)
    theirs = TICA(lagtime=3, epsilon=1e-6, scaling=None).fit_from_covariances(estimator).fetch_model()
    network = fit_tica(pairs, 2)
    directions = theirs.singular_vectors_left[:, :2]
    signs = np.sign((directions * network.matrix.numpy()).sum(axis=0))
    np.testing.assert_allclose(network.matrix, signs * directions, atol=1e-6)  # kept in float32
    np.testing.assert_allclose(network.mean, theirs.mean_0, atol=1e-6)


def test_more_invariants_than_half_the_pairs_are_reduced_to_principal_components() -> None:
    """100 frames of 160 invariants; deeptime's TICA of all of them finds correlations of 1 and -1 in any noise."""
    generator = np.random.default_rng(1)
    tokens = [generator.normal(size=(frames, 10, 4, 8)).astype(np.float32) for frames in (60, 40)]
    for part in tokens:
        walk = np.cumsum(generator.normal(size=len(part)))
        part[:, :, 0] += walk[:, None, None] * np.linspace(0, 1, 80).reshape(10, 8)
    network = fit_tica(pairs_of(tokens, 3), 2)
    invariants = [observables_of(part).astype(np.float64) for part in tokens]
    ends = np.concatenate([part[:-3] for part in invariants] + [part[3:] for part in invariants])
    components = PCA(94 // 10).fit(ends)
    theirs = TICA(lagtime=3, dim=2, scaling=None).fit([components.transform(part) for part in invariants]).fetch_model()
    for part, values in zip(tokens, invariants, strict=True):
        mine = network(torch.from_numpy(part), torch.zeros(len(part), 10, 3)).double().numpy()
        expected = theirs.transform(components.transform(values))
        np.testing.assert_allclose(mine, np.sign((mine * expected).sum(axis=0)) * expected, atol=1e-5)


def test_many_frames_of_many_invariants_use_the_components_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [tokens_with_a_slow_scalar(2000, 3)]
    exact = fit_tica(pairs_of(tokens, 5), 1)
    monkeypatch.setattr(tica, "MOST_INVARIANTS", 7)  # there are 8
    monkeypatch.setattr(tica, "MOST_FRAMES", 7)  # they span 6 directions
    network = fit_tica(pairs_of(tokens, 5), 1)
    frames = torch.from_numpy(tokens[0])
    mine, expected = (one(frames, frames[:, :, 0]).numpy()[:, 0] for one in (network, exact))
    assert mine.mean() == pytest.approx(0, abs=0.02) and mine.std() == pytest.approx(1, rel=0.02)
    assert abs(np.corrcoef(mine, expected)[0, 1]) > 0.6


def test_the_gradient_is_finite_where_a_vector_is_zero() -> None:
    network = fit_tica(pairs_of([tokens_with_a_slow_scalar(500, 0)], 5), 1)
    tokens = torch.zeros(1, 2, 4, 2, requires_grad=True)
    network(tokens, torch.zeros(1, 2, 3)).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()


def test_constant_and_dependent_features_are_refused() -> None:
    still = TokenTrajectory("still", np.ones((50, 1, 4, 1)), np.zeros((50, 1, 3)), np.arange(50.0))
    with pytest.raises(DataError, match="do not vary"):
        fit_tica(LaggedPairs([still], 5.0), 1)
    moving = replace(still, tokens=np.random.default_rng(0).normal(size=(50, 1, 1, 1)) * [[1.0], [0], [0], [0]])
    with pytest.raises(DataError, match="have 1 independent directions, 2 outputs"):
        fit_tica(LaggedPairs([moving], 5.0), 2)
