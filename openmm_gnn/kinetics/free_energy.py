"""Free energies along slow variables: weighted histograms, with errors from blocks of the runs.

F(s) = -kT ln p(s), with p the weighted density of the frames, and zero at its lowest bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K

BLOCKS_PER_RUN = 5
"""Blocks of each run that are resampled for the error: frames next to each other are not independent."""


@dataclass(frozen=True)
class FreeEnergyLine:
    """A free energy along one variable."""

    centers: np.ndarray
    """(bins,)"""
    values: np.ndarray
    """(bins,) kJ/mol; NaN in bins without frames."""
    errors: np.ndarray
    """(bins,) kJ/mol, one sigma; NaN where too few bootstrap samples had a frame."""


@dataclass(frozen=True)
class FreeEnergyMap:
    """A free energy over two variables."""

    edges: tuple[np.ndarray, np.ndarray]
    """Edges of the bins along each variable."""
    values: np.ndarray
    """(bins of the first, bins of the second) kJ/mol; NaN in bins without frames."""


def free_energy_line(
    variables: Sequence[np.ndarray],
    temperature: float,
    log_weights: Sequence[np.ndarray] | None = None,
    bins: int = 60,
    draws: int = 100,
    seed: int = 0,
) -> FreeEnergyLine:
    """The free energy along one variable.

    Args:
        variables: (frames,) for each run.
        temperature: K.
        log_weights: (frames,) for each run, of biased frames; any constant may be added to all of them.
        draws: bootstrap samples of the blocks; Efron, Ann. Stat. 7, 1 (1979), doi 10.1214/aos/1176344552.
    Raises:
        DataError: if there are no frames, or one is not finite.
    """
    weights = frame_weights(variables, log_weights)
    edges = _edges(np.concatenate(variables), bins)
    blocks = []
    for values, own in zip(variables, weights, strict=True):
        for rows in np.array_split(np.arange(len(values)), min(BLOCKS_PER_RUN, len(values))):
            blocks.append(np.histogram(values[rows], edges, weights=own[rows])[0])
    counts = np.array(blocks)
    generator = np.random.default_rng(seed)
    drawn = counts[generator.integers(len(counts), size=(draws, len(counts)))].sum(axis=1)
    kt = BOLTZMANN_KJ_MOL_K * temperature
    values = _free_energy(counts.sum(axis=0), kt)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Not shifted to the lowest bin of each sample, whose noise would enter every other bin.
        samples = -kt * np.log(drawn / drawn.sum(axis=1, keepdims=True))
    samples[~np.isfinite(samples)] = np.nan
    enough = np.isfinite(samples).sum(axis=0) > draws / 2
    errors = np.full(bins, np.nan)
    errors[enough] = np.nanstd(samples[:, enough], axis=0, ddof=1)
    return FreeEnergyLine((edges[1:] + edges[:-1]) / 2, values, errors)


def free_energy_map(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    temperature: float,
    log_weights: Sequence[np.ndarray] | None = None,
    bins: int = 60,
) -> FreeEnergyMap:
    """The free energy over two variables; arguments and errors as of `free_energy_line`."""
    weights = frame_weights(first, log_weights)
    x, y = np.concatenate(first), np.concatenate(second)
    edges = (_edges(x, bins), _edges(y, bins))
    counts, _, _ = np.histogram2d(x, y, edges, weights=np.concatenate(weights))
    return FreeEnergyMap(edges, _free_energy(counts, BOLTZMANN_KJ_MOL_K * temperature))


def frame_weights(variables: Sequence[np.ndarray], log_weights: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Weights (frames,) of each run, the largest of all 1.

    Raises:
        DataError: if there are no frames, other numbers of weights than frames, or values that are not finite.
    """
    count = sum(map(len, variables))
    if not count:
        raise DataError("no frames are left for a free energy: give longer runs")
    bad = [number for number, values in enumerate(variables) if not np.isfinite(values).all()]
    if bad:
        raise DataError(f"the slow variable of run {bad[0]} is NaN in some frames: look at its features")
    if log_weights is None:
        return [np.ones(len(values)) for values in variables]
    for number, (values, own) in enumerate(zip(variables, log_weights, strict=True)):
        if len(values) != len(own) or not np.isfinite(own).all():
            raise DataError(
                f"run {number} has {len(values)} frames and {int(np.isfinite(own).sum())} finite weights: weights must "
                "be those of the same frames"
            )
    highest = max(float(own.max()) for own in log_weights if len(own))
    return [np.exp(own - highest) for own in log_weights]


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = 1e-6 * max(high - low, 1e-6)
    return np.linspace(low - margin, high + margin, bins + 1)


def _free_energy(counts: np.ndarray, kt: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        values = -kt * np.log(counts / counts.max())
    return np.where(np.isfinite(values), values, np.nan)
