"""Fits of scaling: exponents are recovered with honest intervals, and what is no power law is told from one."""

from __future__ import annotations

import numpy as np
import pytest
from scaling_fits import fit_frontier, fit_power_law, frontier

from openmm_gnn.base.errors import DataError

X = np.geomspace(1e3, 1e6, 9)


def test_an_exact_power_law_is_found() -> None:
    fit = fit_power_law(X, 7.0 * X**-0.31)
    assert fit.exponent == pytest.approx(0.31, abs=1e-12)
    assert fit.prefactor == pytest.approx(7.0, rel=1e-10)
    np.testing.assert_allclose(fit(X), 7.0 * X**-0.31, rtol=1e-10)
    assert fit.is_power_law


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits, rejected = 0, 0
    for _ in range(400):
        fit = fit_power_law(X, 7.0 * X**-0.2 * np.exp(0.05 * generator.standard_normal(len(X))))
        hits += fit.low <= 0.2 <= fit.high
        rejected += fit.is_power_law is False
    assert 0.92 < hits / 400 < 0.98  # 95 % and its standard deviation of 1.1 %
    assert 0.02 < rejected / 400 < 0.09


def test_an_error_that_levels_off_is_no_power_law() -> None:
    generator = np.random.default_rng(2)
    error = (0.3 + 20 * X**-0.5) * np.exp(0.01 * generator.standard_normal(len(X)))
    fit = fit_power_law(X, error)
    assert fit.bend is not None and fit.bend > 0  # falls ever more slowly
    assert fit.is_power_law is False
    assert fit.verdict.startswith("no power law")


def test_scatter_alone_shows_no_dependence() -> None:
    generator = np.random.default_rng(3)
    fit = fit_power_law(X, 0.4 * np.exp(0.05 * generator.standard_normal(len(X))))
    assert fit.low < 0 < fit.high
    assert fit.is_power_law is None
    assert fit.verdict.startswith("no dependence")


def test_three_points_have_an_interval_but_no_test() -> None:
    fit = fit_power_law(X[:3], X[:3] ** -0.5 * [1.0, 1.01, 1.0])
    assert fit.bend is None and fit.is_power_law is None
    assert "too few points" in fit.verdict


def test_the_frontier_is_what_no_training_beats() -> None:
    curves = [(np.array([1.0, 2.0, 4.0]), np.array([0.9, 0.6, 0.55])), (np.array([8.0, 16.0]), np.array([0.7, 0.4]))]
    points = frontier([x for x, _ in curves], [y for _, y in curves])
    np.testing.assert_allclose(points, [[4, 0.55], [16, 0.4]])


def test_the_frontier_of_trainings_of_one_law_gives_its_exponent() -> None:
    """Networks whose last points lie on C^-0.25, with curves that come down to it."""
    ends = np.geomspace(1e6, 1e10, 24)
    curves = [(end * np.geomspace(0.1, 1, 8), end**-0.25 * np.geomspace(2.5, 1, 8)) for end in ends]
    fit = fit_frontier([x for x, _ in curves], [y for _, y in curves])
    assert fit.low <= 0.25 <= fit.high
    assert fit.high - fit.low < 0.03


@pytest.mark.parametrize(
    ("x", "error"), [([1.0, 1.0, 2.0], [1.0, 1.0, 0.5]), ([1.0, 2.0, 0.0], [1, 1, 1]), ([1.0, 2, 3], [1, np.nan, 1])]
)
def test_points_that_make_no_line_are_refused(x: list[float], error: list[float]) -> None:
    with pytest.raises(DataError, match=r"different points|finite numbers"):
        fit_power_law(x, error)
