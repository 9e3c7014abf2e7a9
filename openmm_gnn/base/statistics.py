"""Means of correlated series, with errors that know about the correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error (one sigma)."""

    value: float
    error: float
    """NaN where it is not known."""

    def ratio(self, other: Estimate) -> Estimate:
        """self / other, for independent estimates, to first order in the errors."""
        quotient = self.value / other.value
        return Estimate(quotient, abs(quotient) * math.hypot(self.error / self.value, other.error / other.value))

    def format(self, digits: int = 2) -> str:
        """The value with its error, where that is known."""
        error = f" ± {self.error:.{digits}f}" if math.isfinite(self.error) else ""
        return f"{self.value:.{digits}f}{error}"


def block_means(series: np.ndarray, num_blocks: int = 10) -> np.ndarray:
    """Means of `num_blocks` consecutive blocks of equal length; the few frames that are left over at the start go.

    Args:
        series: (frames, ...).
    Returns:
        (num_blocks, ...) float64.
    Raises:
        DataError: if there are fewer frames than blocks.
    """
    series = np.asarray(series, dtype=np.float64)
    length = len(series) // num_blocks
    if length < 1:
        raise DataError(f"{len(series)} frames do not fill {num_blocks} blocks: run longer, or ask for fewer blocks")
    used = series[len(series) - num_blocks * length :]
    return used.reshape(num_blocks, length, *series.shape[1:]).mean(axis=1)


def running_mean(series: np.ndarray, window: int) -> np.ndarray:
    """Centred means; at the ends over what is there."""
    kernel = np.ones(window)
    return np.convolve(series, kernel, "same") / np.convolve(np.ones(len(series)), kernel, "same")


def mean_with_error(*series: np.ndarray, num_blocks: int = 10) -> Estimate:
    """The mean of one or several series, with the standard error from the means of blocks of each.

    The error is right when a block is much longer than the correlation time of the series: the means of
    neighbouring blocks are then independent.
    Source: Flyvbjerg, Petersen, J. Chem. Phys. 91, 461 (1989), doi 10.1063/1.457480.
    """
    means = np.concatenate([block_means(one, num_blocks) for one in series])
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    return Estimate(float(means.mean()), error)
