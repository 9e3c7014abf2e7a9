"""Is it a power law? Exponents with their uncertainty, and what speaks against them.

A power law E = a x^-b is a straight line of log E over log x. Its exponent has an interval from the scatter about the
line; a second fit with a bend, a term in (log x)^2, tells whether the line is one: where the bend is significant, the
exponent is a slope over the range that was seen and no law. What scaling studies find in language: Kaplan et al., arXiv
2001.08361; for denoising geometric networks no power law was found: OpenReview 4S2L519nIX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError

CONFIDENCE = 0.95
_LEAST_POINTS = 3
"""Least number of different x for a line with an uncertainty."""


@dataclass(frozen=True)
class PowerLawFit:
    """error = prefactor * x^-exponent."""

    exponent: float
    low: float
    high: float
    """95 % interval of the exponent."""
    prefactor: float
    num_points: int
    bend: float | None
    """Coefficient of (log x - mean)^2; above 0: the error falls ever more slowly. None: too few points."""
    bend_p: float | None
    """Chance of a bend as large where there is none; below 0.05 it is no power law."""

    @property
    def is_power_law(self) -> bool | None:
        """None where the points cannot tell: too few, or the exponent's interval holds 0."""
        if self.bend_p is None or self.low <= 0 <= self.high:
            return None
        return self.bend_p >= 1 - CONFIDENCE

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.prefactor * np.asarray(x, float) ** -self.exponent)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.low <= 0 <= self.high:
            return "no dependence that these points could show"
        if self.bend_p is None:
            return "too few points to test whether it is a power law"
        if self.is_power_law:
            return f"a power law is not excluded (bend: p = {self.bend_p:.2g})"
        return f"no power law: it bends (p = {self.bend_p:.2g})"


def fit_power_law(x: Sequence[float] | np.ndarray, error: Sequence[float] | np.ndarray) -> PowerLawFit:
    """Least squares in the logarithms; intervals by Student's t, so the points must be independent.

    Args:
        x: (n,) parameters, frames or operations, above 0.
        error: (n,) above 0.
    Raises:
        DataError: for fewer than 3 different x, or numbers that have no logarithm.
    """
    from scipy import stats

    x, error = np.asarray(x, float), np.asarray(error, float)
    if len(np.unique(x)) < _LEAST_POINTS or x.shape != error.shape:
        raise DataError(f"{len(np.unique(x))} different points: a line with an uncertainty needs {_LEAST_POINTS}")
    if not (np.isfinite(x).all() and np.isfinite(error).all() and x.min() > 0 and error.min() > 0):
        raise DataError("a power law is fitted to finite numbers above 0")
    log_x, log_error = np.log(x), np.log(error)
    line = stats.linregress(log_x, log_error)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 2)) * float(line.stderr)
    bend, bend_p = _bend(log_x, log_error)
    slope = float(line.slope)
    return PowerLawFit(-slope, -slope - reach, -slope + reach, float(np.exp(line.intercept)), len(x), bend, bend_p)


def _bend(log_x: np.ndarray, log_error: np.ndarray) -> tuple[float | None, float | None]:
    """Coefficient of the square and its two-sided p."""
    from scipy import stats

    freedom = len(log_x) - 3
    if freedom < 1 or len(np.unique(log_x)) < _LEAST_POINTS + 1:
        return None, None
    centred = log_x - log_x.mean()
    design = np.stack([np.ones_like(centred), centred, centred**2], axis=1)
    found, *_ = np.linalg.lstsq(design, log_error, rcond=None)
    left = log_error - design @ found
    variance = float(left @ left) / freedom * np.linalg.inv(design.T @ design)[2, 2]
    if variance <= 0:  # the points lie on the curve exactly
        return float(found[2]), float(abs(found[2]) < 1e-9)
    return float(found[2]), float(2 * stats.t.sf(abs(found[2]) / np.sqrt(variance), freedom))


def frontier(operations: Sequence[np.ndarray], errors: Sequence[np.ndarray], num_bins: int = 12) -> np.ndarray:
    """(points, 2) operations and the lowest error that any training reached with at most those, where it falls.

    It begins where the shortest training ends: before that it is the course of one training, whose learning rate is
    still high.

    Args:
        operations, errors: a curve per training.
        num_bins: bins of the logarithm of operations, one point in each at most: a curve's points are not independent.
    """
    x, y = np.concatenate(operations), np.concatenate(errors)
    order = np.argsort(x)
    x, y = x[order], y[order]
    best = np.minimum.accumulate(y)
    falls = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    falls = falls[x[falls] >= min(curve.max() for curve in operations)]
    if not len(falls):
        return np.empty((0, 2))
    x, best = x[falls], best[falls]
    bins = np.floor(num_bins * (np.log(x) - np.log(x[0])) / max(np.log(x[-1] / x[0]), 1e-12))
    last = np.append(np.flatnonzero(np.diff(bins) > 0), len(x) - 1)
    return np.stack([x[last], best[last]], axis=1)


def fit_frontier(
    operations: Sequence[np.ndarray], errors: Sequence[np.ndarray], draws: int = 500, seed: int = 0
) -> PowerLawFit:
    """`fit_power_law` of the frontier, its interval from drawing whole trainings anew with replacement.

    Raises:
        DataError: if the frontier has fewer than 3 points.
    """
    points = frontier(operations, errors)
    fit = fit_power_law(points[:, 0], points[:, 1])
    generator, exponents = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = generator.integers(0, len(operations), len(operations))
        some = frontier([operations[k] for k in drawn], [errors[k] for k in drawn])
        if len(np.unique(some[:, 0])) >= _LEAST_POINTS:
            exponents.append(fit_power_law(some[:, 0], some[:, 1]).exponent)
    if len(exponents) < draws // 2:
        raise DataError("too few trainings for the uncertainty of a frontier: give a larger grid")
    low, high = np.quantile(exponents, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return PowerLawFit(fit.exponent, float(low), float(high), fit.prefactor, fit.num_points, fit.bend, fit.bend_p)
