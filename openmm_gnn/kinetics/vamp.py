"""The variational approach to Markov processes: scores of slow variables, and the slow functions themselves.

Everything is in float64 and differentiable, so that a score can be the loss of a network.

Source: Wu and Noe, J. Nonlinear Sci. 30, 23 (2020), doi:10.1007/s00332-019-09567-y; Mardt, Pasquali, Wu and Noe,
Nat. Commun. 9, 5 (2018), doi:10.1038/s41467-017-02388-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.features.learned_cv import Slowness
from openmm_gnn.kinetics.data import AnalysisData, Part
from openmm_gnn.kinetics.lagged_pairs import lagged_starts
from openmm_gnn.kinetics.token_trajectories import relative_weights

BLOCKS = 20
"""Contiguous blocks of the held-out frames, which are resampled for the spread."""


class VampScore(str, Enum):
    """The sum of singular values that is the score; each counts the constant function, so 1 means nothing slow."""

    VAMP1 = "vamp-1"
    """Sum of the singular values."""
    VAMP2 = "vamp-2"
    """Sum of their squares."""
    VAMPE = "vamp-e"
    """Closeness to the true propagator; on the data it is fitted to it is VAMP-2."""


@dataclass(frozen=True)
class LaggedCovariances:
    """Covariances of functions at t (0) and t + lag (t), about their means."""

    mean_0: Tensor
    mean_t: Tensor
    """(n,)"""
    c00: Tensor
    c0t: Tensor
    ctt: Tensor
    """(n, n), float64."""


def lagged_covariances(
    x: Tensor, y: Tensor, weights: Tensor | None = None, reversible: bool = False
) -> LaggedCovariances:
    """Covariances of pairs.

    Args:
        x, y: (pairs, n) at t and t + lag.
        weights: (pairs,), 0 or more; the sums are divided by their sum, without weights by pairs - 1.
        reversible: symmetrise, as if every pair had also occurred in reverse. Each end keeps its own mean, as in the
            published code; over long data both means are the same.
    Raises:
        DataError: if there are fewer than 2 pairs, a number is not finite, or the weights are all 0.
    """
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        raise DataError(f"pairs of shapes {tuple(x.shape)} and {tuple(y.shape)}: give at least 2 pairs of one shape")
    x, y = x.double(), y.double()
    shares = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
    scale = len(x) / (len(x) - 1)
    if weights is not None:
        shares, scale = weights.double() / weights.double().sum(), 1.0
    mean_0, mean_t = shares @ x, shares @ y
    x, y = x - mean_0, y - mean_t
    weighted_x, weighted_y = scale * shares[:, None] * x, scale * shares[:, None] * y
    c00, c0t, ctt = x.T @ weighted_x, x.T @ weighted_y, y.T @ weighted_y
    if reversible:
        c00 = ctt = (c00 + ctt) / 2
        c0t = (c0t + c0t.T) / 2
    if not bool(torch.isfinite(c00).all() and torch.isfinite(c0t).all() and torch.isfinite(ctt).all()):
        raise DataError("covariances are not finite: look for NaN in the features, or lower the learning rate")
    return LaggedCovariances(mean_0, mean_t, c00, c0t, ctt)


def whitening(matrix: Tensor, epsilon: float = 1e-6, truncate: bool = False) -> Tensor:
    """(n, m) columns W with W' C W = 1 for a covariance C.

    Args:
        epsilon: added to the diagonal; or, with `truncate`, directions of less variance are left out and m < n.
    Raises:
        DataError: if the covariance is singular, or nothing is left of it.
    """
    if truncate:
        values, vectors = torch.linalg.eigh(matrix)
        kept = values > epsilon
        if not bool(kept.any()):
            raise DataError(
                f"no variance is above {epsilon:g}: the variables are constant; look at the features, or train again"
            )
        return vectors[:, kept] * values[kept].rsqrt()
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    # Not the symmetric root, whose gradient fails where two eigenvalues meet.
    root, failed = torch.linalg.cholesky_ex(matrix + epsilon * identity)
    if int(failed) != 0:
        raise DataError(
            f"a covariance of {len(matrix)} variables is singular: some are constant or follow from the others; raise "
            f"epsilon, now {epsilon:g}, or ask for fewer outputs"
        )
    return torch.linalg.solve_triangular(root, identity, upper=False).T


def vamp_score(
    covariances: LaggedCovariances,
    score: VampScore = VampScore.VAMP2,
    epsilon: float = 1e-6,
    truncate: bool = False,
    dim: int | None = None,
) -> Tensor:
    """The score of the span of the variables, or of its `dim` slowest directions, on the data of the covariances.

    Departure from the published code of geom2vec: its VAMP-1 leaves out the constant function, and its VAMP-E is taken
    on the transposed matrix, as is that of deeptime's networks.
    """
    left = whitening(covariances.c00, epsilon, truncate)
    right = whitening(covariances.ctt, epsilon, truncate)
    koopman = left.T @ covariances.c0t @ right
    if dim is None and score is not VampScore.VAMP1:  # without singular vectors, whose gradient fails as well
        if score is VampScore.VAMP2:
            return koopman.square().sum() + 1
        return _vampe(left @ koopman @ right.T, covariances)
    if score is VampScore.VAMPE:
        return vampe_of(fit_vamp(covariances, epsilon, truncate, dim), covariances)
    values = torch.linalg.svdvals(koopman)[:dim]
    return (values if score is VampScore.VAMP1 else values.square()).sum() + 1


@dataclass(frozen=True)
class VampModel:
    """The slow functions within the span of some variables, slowest first."""

    mean_0: Tensor
    mean_t: Tensor
    """(n,) means of the variables at t and t + lag."""
    left: Tensor
    right: Tensor
    """(n, k): (x - mean) @ left are the left singular functions, of mean 0 and variance 1."""
    singular_values: Tensor
    """(k,) 1 or less, descending."""

    def transform(self, values: Tensor) -> Tensor:
        """(frames, k) left singular functions of (frames, n) variables."""
        return (values.double() - self.mean_0) @ self.left

    def timescales_ps(self, lag_ps: float) -> Tensor:
        """(k,) -lag / ln(singular value), ps; a value of 1 or more is infinitely slow."""
        return -lag_ps / self.singular_values.clamp(max=1.0).log()


def fit_vamp(
    covariances: LaggedCovariances, epsilon: float = 1e-6, truncate: bool = False, dim: int | None = None
) -> VampModel:
    """The best linear functions of the variables; all of them, or the `dim` slowest.

    Raises:
        DataError: if a covariance is singular.
        SpecError: if `dim` is below 1.
    """
    if dim is not None and dim < 1:
        raise SpecError(f"{dim} slow functions: give at least 1")
    whiten_0 = whitening(covariances.c00, epsilon, truncate)
    whiten_t = whitening(covariances.ctt, epsilon, truncate)
    left, values, right = torch.linalg.svd(whiten_0.T @ covariances.c0t @ whiten_t, full_matrices=False)
    return VampModel(
        covariances.mean_0, covariances.mean_t, whiten_0 @ left[:, :dim], whiten_t @ right.T[:, :dim], values[:dim]
    )


def held_out_score(
    model: VampModel,
    test: LaggedCovariances,
    score: VampScore = VampScore.VAMP2,
    epsilon: float = 1e-6,
    truncate: bool = False,
) -> float:
    """The score of a model's functions on data it was not fitted to.

    VAMP-1 and VAMP-2 whiten the functions anew on those data; VAMP-E takes model and singular values as they are, so it
    falls with every mistake. Chance raises the first two by about k^2 / pairs.

    Source: McGibbon and Pande, J. Chem. Phys. 142, 124105 (2015), doi:10.1063/1.4916292; Wu and Noe (2020).
    """
    if score is VampScore.VAMPE:
        return float(vampe_of(model, test))
    projected = LaggedCovariances(
        test.mean_0,
        test.mean_t,
        model.left.T @ test.c00 @ model.left,
        model.left.T @ test.c0t @ model.right,
        model.right.T @ test.ctt @ model.right,
    )
    return float(vamp_score(projected, score, epsilon, truncate))


def vampe_of(model: VampModel, covariances: LaggedCovariances) -> Tensor:
    """VAMP-E of a model on some data."""
    return _vampe((model.left * model.singular_values) @ model.right.T, covariances)


def _vampe(product: Tensor, covariances: LaggedCovariances) -> Tensor:
    """2 tr(S U' C0t V) - tr(S U' C00 U S V' Ctt V) + 1, of the product U S V' alone."""
    gain = (product * covariances.c0t).sum()
    cost = (product * (covariances.c00 @ product @ covariances.ctt)).sum()
    return 2 * gain - cost + 1


@dataclass(frozen=True)
class LagScores:
    """VAMP-2 of the scored frames at several lags."""

    name: str
    lags_ps: np.ndarray
    scores: np.ndarray
    """(lags,) scores; NaN where there are too few pairs."""
    spread: np.ndarray
    """(lags,) standard deviations over bootstrap samples of the held-out blocks."""


def score_lags(
    name: str, variables: Sequence[np.ndarray], data: AnalysisData, lags: Sequence[int], draws: int = 100, seed: int = 0
) -> LagScores:
    """Score slow variables at several lags; NaN at lags that are too long for the parts.

    The variables are not changed; at each lag the best linear map of them is fitted to the training parts and scored on
    the scored ones: McGibbon, Pande, J. Chem. Phys. 142, 124105 (2015), doi 10.1063/1.4916292.

    Args:
        variables: (frames, K) for each run.
        lags: lags in frames.
        draws: bootstrap samples of the held-out blocks.
    """
    generator = np.random.default_rng(seed)
    scores, spreads = [], []
    for lag in lags:
        try:
            fitted = sum(_moments(variables, data, data.training, lag), start=np.zeros(()))
            blocks = np.array(_moments(variables, data, data.scored, lag))
            model = fit_vamp(covariances_of(fitted))
            scores.append(held_out_score(model, covariances_of(blocks.sum(axis=0))))
        except DataError:  # a lag too long, or variables that do not vary there
            scores.append(np.nan)
            spreads.append(np.nan)
            continue
        samples = []
        for _ in range(draws):
            drawn = blocks[generator.integers(len(blocks), size=len(blocks))].sum(axis=0)
            try:
                samples.append(held_out_score(model, covariances_of(drawn)))
            except DataError:  # blocks in which a variable stands still
                continue
        few = np.sqrt(len(blocks) / max(1, len(blocks) - 1))  # as in `free_energy_line`
        spreads.append(float(few * np.std(samples, ddof=1)) if len(samples) > 2 and len(blocks) > 1 else np.nan)
    return LagScores(name, np.array(lags) * data.interval_ps, np.array(scores), np.array(spreads))


def held_out_slowness(variables: Sequence[np.ndarray], data: AnalysisData, lag: int) -> Slowness:
    """How slow each variable is in the frames that are scored.

    Args:
        variables: (frames, K) for each run.
        lag: lag in frames.
    """
    moments = sum(_moments(variables, data, data.scored, lag), start=np.zeros(()))
    both = covariances_of(moments)
    spread = torch.sqrt(both.c00.diagonal() * both.ctt.diagonal())
    correlations = torch.where(spread > 0, both.c0t.diagonal() / spread, torch.zeros_like(spread))
    pairs = sum(len(lagged_starts(trajectory, lag)) for trajectory in data.cut(data.scored))
    return Slowness(lag * data.interval_ps, pairs, tuple(correlations.tolist()))


def fit_and_score(variables: Sequence[np.ndarray], data: AnalysisData, lag: int) -> tuple[VampModel, float, float]:
    """Fit the slow directions within the span of some variables.

    Args:
        variables: (frames, K) for each run.
        lag: lag in frames.
    Returns:
        The directions, fitted to the training parts, and their VAMP-2 on the training and on the held-out parts.
    Raises:
        DataError: if a part is too short for the lag, or a variable does not vary.
    """
    fitted = covariances_of(sum(_moments(variables, data, data.training, lag), start=np.zeros(())))
    tested = covariances_of(sum(_moments(variables, data, data.validation, lag), start=np.zeros(())))
    model = fit_vamp(fitted)
    return model, float(vamp_score(fitted)), held_out_score(model, tested)


def _moments(variables: Sequence[np.ndarray], data: AnalysisData, parts: Sequence[Part], lag: int) -> list[np.ndarray]:
    """`pair_moments` of blocks of the pairs of these parts."""
    weights = None if data.log_weights is None else relative_weights(data.log_weights)
    sums = []
    per_part = max(1, -(-BLOCKS // len(parts)))
    for part, trajectory in zip(parts, data.cut(parts), strict=True):
        values = np.asarray(variables[part.run][part.start : part.stop], np.float64)
        for starts in np.array_split(lagged_starts(trajectory, lag), per_part):
            own = None if weights is None else weights[part.run][part.start + starts]
            sums.append(pair_moments(values[starts], values[starts + lag], own))
    return sums


def pair_moments(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum over pairs of the outer products of (1, x, y), (1 + 2 n, 1 + 2 n); sums of parts can be added.

    Args:
        x, y: (pairs, n) float64 at t and t + lag.
        weights: (pairs,) weights of the pairs.
    """
    pairs = np.concatenate([np.ones((len(x), 1)), x, y], axis=1)
    return pairs.T @ (pairs if weights is None else weights[:, None] * pairs)


def covariances_of(moments: np.ndarray) -> LaggedCovariances:
    """The covariances of pairs from their `pair_moments`."""
    count = (len(moments) - 1) // 2
    means = torch.from_numpy(moments / moments[0, 0])
    mean = means[0, 1:]
    both = means[1:, 1:] - mean[:, None] * mean
    return LaggedCovariances(
        mean[:count], mean[count:], both[:count, :count], both[:count, count:], both[count:, count:]
    )
