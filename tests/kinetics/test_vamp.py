"""VAMP scores and functions against deeptime, the published code's figures, and each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deeptime.decomposition import VAMP
from slow_tokens import RATES, hidden_series

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.vamp import (
    VampScore,
    fit_vamp,
    held_out_score,
    lagged_covariances,
    vamp_score,
    whitening,
)

CONSTANT_FUNCTION = 1.0
"""That the published VAMP-1 leaves out."""


@pytest.fixture(scope="module")
def published(geom2vec_data: Path) -> dict[str, np.ndarray]:
    return dict(np.load(geom2vec_data / "vamp_example.npz"))


def pairs(published: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(published["x"]), torch.from_numpy(published["y"])


def symmetric_root(covariance: torch.Tensor) -> torch.Tensor:
    """C to the power -1/2."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T


@pytest.mark.parametrize("weighted", ["unweighted", "weighted"])
@pytest.mark.parametrize("symmetric", ["nosym", "sym"])
@pytest.mark.parametrize("mode", ["regularize", "trunc"])
def test_scores_are_those_of_the_published_code_with_its_slips_mended(
    published: dict[str, np.ndarray], mode: str, symmetric: str, weighted: str
) -> None:
    weights = torch.from_numpy(published["weights"]) if weighted == "weighted" else None
    covariances = lagged_covariances(*pairs(published), weights, reversible=symmetric == "sym")
    scores = {kind: float(vamp_score(covariances, kind, 1e-6, mode == "trunc")) for kind in VampScore}
    ending = f"{mode}_{symmetric}_{weighted}"
    vamp_1, vamp_2 = (float(published[f"g2v_vamp-{number}_{ending}"]) for number in (1, 2))
    assert scores[VampScore.VAMP1] == pytest.approx(vamp_1 + CONSTANT_FUNCTION, abs=1e-5)
    assert scores[VampScore.VAMP2] == pytest.approx(vamp_2, abs=1e-5)
    # On the data of the fit VAMP-E is VAMP-2; the published figure is from the transposed matrix, 0.01 lower.
    assert scores[VampScore.VAMPE] == pytest.approx(vamp_2, abs=2e-5)
    assert scores[VampScore.VAMPE] - float(published[f"g2v_vamp-e_{ending}"]) > 0.01


def test_vamp_e_is_2_58796_and_2_57134_for_the_transposed_matrix(published: dict[str, np.ndarray]) -> None:
    covariances = lagged_covariances(*pairs(published))
    assert float(vamp_score(covariances, VampScore.VAMPE, truncate=True)) == pytest.approx(2.58796, abs=1e-5)
    left, right = (symmetric_root(one) for one in (covariances.c00, covariances.ctt))
    u, values, v = torch.linalg.svd((left @ covariances.c0t @ right).T)  # the slip: transposed
    u, v = left @ u, right @ v.T
    gain = 2 * (values * torch.diagonal(u.T @ covariances.c0t @ v)).sum()
    cost = torch.trace(torch.diag(values) @ u.T @ covariances.c00 @ u @ torch.diag(values) @ v.T @ covariances.ctt @ v)
    assert float(gain - cost + 1) == pytest.approx(2.57134, abs=1e-5)
    assert float(published["deeptime_VAMPE_trunc"]) == pytest.approx(2.57134, abs=1e-5)


def test_covariances_and_functions_are_the_stored_ones(published: dict[str, np.ndarray]) -> None:
    covariances = lagged_covariances(*pairs(published))
    for name, found in (("00", covariances.c00), ("01", covariances.c0t), ("11", covariances.ctt)):
        np.testing.assert_allclose(found, published[f"g2v_cov_{name}"], atol=1e-12)
    model = fit_vamp(covariances, truncate=True)
    np.testing.assert_allclose(model.singular_values, published["g2v_cv_singularvalues"], atol=1e-9)
    timescales = model.timescales_ps(float(published["lag"]))
    np.testing.assert_allclose(timescales, published["g2v_cv_timescales"], rtol=1e-6)
    functions = model.transform(torch.from_numpy(published["traj"])).numpy()
    expected = published["g2v_cv_instantaneous"].astype(np.float64)
    signs = np.sign((functions * expected).sum(axis=0))
    np.testing.assert_allclose(functions * signs, expected, atol=1e-2)  # deeptime divides by pairs, not pairs - 1
    np.testing.assert_allclose(functions.std(axis=0) / functions.std(axis=0).mean(), 1, atol=2e-2)


@pytest.mark.parametrize("score", VampScore)
def test_held_out_scores_are_those_of_deeptime(score: VampScore) -> None:
    mixture = np.random.default_rng(3).normal(size=(2, 5))
    noise = np.random.default_rng(4).normal(size=(2, 4000, 5))
    series = [hidden_series(4000, seed) @ mixture + 0.3 * noise[seed] for seed in (0, 1)]
    lag = 4
    ours = [lagged_covariances(*(torch.from_numpy(part) for part in (one[:-lag], one[lag:]))) for one in series]
    theirs = [VAMP(lagtime=lag, epsilon=1e-9).fit_from_timeseries(one).fetch_model() for one in series]
    number = {VampScore.VAMP1: 1, VampScore.VAMP2: 2, VampScore.VAMPE: "E"}[score]
    for dim in (1, 2, 5):
        found = held_out_score(fit_vamp(ours[0], 1e-9, truncate=True, dim=dim), ours[1], score, 1e-12)
        assert found == pytest.approx(theirs[0].score(number, test_model=theirs[1], dim=dim), abs=2e-4)
        inside = float(vamp_score(ours[0], score, 1e-9, truncate=True, dim=dim))
        assert inside == pytest.approx(theirs[0].score(number, dim=dim), abs=2e-4)


def test_singular_values_of_a_known_process() -> None:
    series = torch.from_numpy(hidden_series(60_000, 5) @ np.array([[1.0, 2.0], [0.5, -1.0]]))
    model = fit_vamp(lagged_covariances(series[:-5], series[5:]))
    np.testing.assert_allclose(model.singular_values, RATES**5, atol=0.03)
    functions = model.transform(series)
    np.testing.assert_allclose(functions.mean(dim=0), 0, atol=1e-2)
    np.testing.assert_allclose(functions.T.cov(), np.eye(2), atol=1e-2)


@pytest.mark.parametrize("score", VampScore)
@pytest.mark.parametrize("reversible", [False, True])
def test_gradients_agree_with_finite_differences(score: VampScore, reversible: bool) -> None:
    values = torch.from_numpy(hidden_series(40, 2))
    weights = torch.rand(37, dtype=torch.float64)

    def loss(series: torch.Tensor) -> torch.Tensor:
        return vamp_score(lagged_covariances(series[:-3], series[3:], weights, reversible), score)

    assert torch.autograd.gradcheck(loss, (values.requires_grad_(),))


def test_equal_weights_change_nothing_but_the_divisor() -> None:
    x, y = (torch.from_numpy(hidden_series(200, seed)) for seed in (0, 1))
    plain, weighted = lagged_covariances(x, y), lagged_covariances(x, y, torch.full((200,), 0.3))
    torch.testing.assert_close(weighted.c0t, plain.c0t * 199 / 200)
    doubled = lagged_covariances(torch.cat([x, x[:50]]), torch.cat([y, y[:50]]))
    twice = lagged_covariances(x, y, torch.cat([torch.full((50,), 2.0), torch.ones(150)]))
    torch.testing.assert_close(twice.c00, doubled.c00 * 249 / 250)


def test_whitened_variables_have_the_unit_covariance() -> None:
    covariance = torch.cov(torch.from_numpy(hidden_series(300, 1) @ np.array([[1.0, 2.0, 0.3], [0.5, -1.0, 1.0]])).T)
    for truncate, epsilon, rank in ((True, 1e-9, 2), (False, 1e-3, 3)):
        columns = whitening(covariance, epsilon, truncate)
        assert columns.shape == (3, rank)
        regular = covariance + (0.0 if truncate else epsilon) * torch.eye(3, dtype=torch.float64)
        torch.testing.assert_close(columns.T @ regular @ columns, torch.eye(rank, dtype=torch.float64))


def test_singular_and_constant_variables_are_refused() -> None:
    x = torch.from_numpy(hidden_series(200, 0))
    twice = torch.cat([x, x], dim=1)
    covariances = lagged_covariances(twice[:-1], twice[1:])
    with pytest.raises(DataError, match="a covariance of 4 variables is singular"):
        vamp_score(covariances, epsilon=-1e-12)
    once = lagged_covariances(x[:-1], x[1:])
    kept = fit_vamp(covariances, truncate=True).singular_values
    torch.testing.assert_close(kept, fit_vamp(once, truncate=True).singular_values, atol=1e-6, rtol=0)
    still = torch.ones(50, 2)
    with pytest.raises(DataError, match="no variance is above 1e-06: the variables are constant"):
        fit_vamp(lagged_covariances(still, still), truncate=True)
    with pytest.raises(DataError, match="covariances are not finite"):
        lagged_covariances(still / 0, still)
    with pytest.raises(DataError, match="at least 2 pairs"):
        lagged_covariances(still[:1], still[:1])
    with pytest.raises(SpecError, match="0 slow functions"):
        fit_vamp(once, dim=0)
