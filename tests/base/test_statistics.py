"""Block errors against the analytic error of a correlated series."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.statistics import Estimate, block_means, mean_with_error


def test_error_of_a_correlated_series_is_the_analytic_one() -> None:
    """AR(1): var(mean) = sigma^2 / T * (1 + a) / (1 - a), and sigma^2 = 1 / (1 - a^2) for unit noise."""
    rng = np.random.default_rng(7)
    a, frames, repeats = 0.9, 20_000, 200
    noise = rng.normal(size=(frames, repeats))
    series = np.empty_like(noise)
    series[0] = noise[0] / math.sqrt(1 - a**2)
    for step in range(1, frames):
        series[step] = a * series[step - 1] + noise[step]
    estimates = [mean_with_error(column) for column in series.T]
    analytic = math.sqrt(1 / (1 - a**2) * (1 + a) / (1 - a) / frames)
    estimated = math.sqrt(np.mean([estimate.error**2 for estimate in estimates]))
    assert estimated == pytest.approx(analytic, rel=0.1)
    inside = np.mean([abs(estimate.value) < 2 * estimate.error for estimate in estimates])
    assert inside > 0.88  # 10 blocks: Student's t with 9 degrees of freedom gives 0.923


def test_left_over_frames_at_the_start_are_not_used() -> None:
    assert block_means(np.array([99.0, 1, 1, 2, 2]), num_blocks=2).tolist() == [1.0, 2.0]


def test_too_few_frames_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="run longer"):
        mean_with_error(np.ones(9), num_blocks=10)


def test_ratio_propagates_both_errors() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(10, 0.3, 200_000) / rng.normal(5, 0.2, 200_000)
    ratio = Estimate(10, 0.3).ratio(Estimate(5, 0.2))
    assert ratio.value == pytest.approx(2.0)
    assert ratio.error == pytest.approx(samples.std(), rel=0.02)
