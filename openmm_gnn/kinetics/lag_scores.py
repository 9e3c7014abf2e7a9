"""Cross-validated VAMP-2 of slow variables at several lags.

The variables are not changed; at each lag the best linear map of them is fitted to the training parts and scored on
the held-out ones: McGibbon, Pande, J. Chem. Phys. 142, 124105 (2015), doi 10.1063/1.4916292.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.data import AnalysisData, Part
from openmm_gnn.kinetics.lagged_pairs import lagged_starts
from openmm_gnn.kinetics.vamp import LaggedCovariances, VampModel, fit_vamp, held_out_score, vamp_score

BLOCKS = 20
"""Contiguous blocks of the held-out frames, which are resampled for the spread."""


@dataclass(frozen=True)
class LagScores:
    """Cross-validated VAMP-2 at several lags."""

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
            blocks = np.array(_moments(variables, data, data.validation, lag))
            model = fit_vamp(_covariances(fitted))
            scores.append(held_out_score(model, _covariances(blocks.sum(axis=0))))
        except DataError:  # a lag too long, or variables that do not vary there
            scores.append(np.nan)
            spreads.append(np.nan)
            continue
        samples = []
        for _ in range(draws):
            drawn = blocks[generator.integers(len(blocks), size=len(blocks))].sum(axis=0)
            try:
                samples.append(held_out_score(model, _covariances(drawn)))
            except DataError:  # blocks in which a variable stands still
                continue
        spreads.append(float(np.std(samples, ddof=1)) if len(samples) > 2 else np.nan)
    return LagScores(name, np.array(lags) * data.interval_ps, np.array(scores), np.array(spreads))


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
    fitted = _covariances(sum(_moments(variables, data, data.training, lag), start=np.zeros(())))
    tested = _covariances(sum(_moments(variables, data, data.validation, lag), start=np.zeros(())))
    model = fit_vamp(fitted)
    return model, float(vamp_score(fitted)), held_out_score(model, tested)


def _moments(variables: Sequence[np.ndarray], data: AnalysisData, parts: Sequence[Part], lag: int) -> list[np.ndarray]:
    """Sums over blocks of pairs of the outer products of (1, x, y), each (1 + 2 K, 1 + 2 K)."""
    weights = None
    if data.log_weights is not None:
        highest = max(float(own.max()) for own in data.log_weights)
        weights = [np.exp(own - highest) for own in data.log_weights]
    sums = []
    per_part = max(1, -(-BLOCKS // len(parts)))
    for part, trajectory in zip(parts, data.cut(parts), strict=True):
        values = np.asarray(variables[part.run][part.start : part.stop], np.float64)
        for starts in np.array_split(lagged_starts(trajectory, lag), per_part):
            pairs = np.concatenate([np.ones((len(starts), 1)), values[starts], values[starts + lag]], axis=1)
            own = 1.0 if weights is None else weights[part.run][part.start + starts, None]
            sums.append(pairs.T @ (own * pairs))
    return sums


def _covariances(moments: np.ndarray) -> LaggedCovariances:
    count = (len(moments) - 1) // 2
    means = torch.from_numpy(moments / moments[0, 0])
    mean = means[0, 1:]
    both = means[1:, 1:] - mean[:, None] * mean
    return LaggedCovariances(
        mean[:count], mean[count:], both[:count, :count], both[:count, count:], both[count:, count:]
    )
