"""Pieces of a Markov model: counts, samples of the posterior, and what is computed of each sample, by deeptime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError


@dataclass(frozen=True)
class Interval:
    """An estimate, and where the chosen share of the posterior's samples lies; arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval_of(values: Sequence[np.ndarray], confidence: float) -> Interval:
    """The first value is the estimate, the others are samples; what a sample does not have is NaN in it."""
    samples = np.array(values[1:], np.float64)
    tail = 50 * (1 - confidence)
    known = np.isfinite(samples).all(axis=0)
    low, high = np.percentile(np.where(known, samples, 0.0), [tail, 100 - tail], axis=0)
    value = np.asarray(values[0], np.float64)
    # The estimate may lie outside of few samples; an interval always holds it.
    low, high = np.fmin(low, value), np.fmax(high, value)
    return Interval(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


@dataclass(frozen=True)
class Posterior:
    """The most likely reversible model and samples around it, deeptime's MarkovStateModels."""

    most_likely: Any
    samples: tuple[Any, ...]
    clusters: np.ndarray
    """(n,) numbers of the connected clusters."""
    connected_share: float
    """Of all counts."""

    @property
    def models(self) -> list[Any]:
        """The most likely one first."""
        return [self.most_likely, *self.samples]


def count_matrix(labels: Sequence[np.ndarray], lag: int) -> np.ndarray:
    """(clusters, clusters) transitions seen at every frame, divided by the lag.

    Transitions less than a lag apart are not independent; so many of them as fit side by side are counted, but all are
    used. The most likely model does not depend on the divisor, the width of the intervals does.
    """
    from deeptime.markov import TransitionCountEstimator

    long_enough = [values for values in labels if len(values) > lag]
    if not long_enough:
        raise DataError(f"no trajectory is longer than {lag} frames: give a shorter lag, or simulate longer")
    size = max(int(values.max()) for values in labels) + 1
    counts = TransitionCountEstimator(lag, "sliding", n_states=size).fit_fetch(long_enough).count_matrix
    return np.asarray(counts, np.float64) / lag


def sample_posterior(labels: Sequence[np.ndarray], lag: int, num_samples: int) -> Posterior:
    """Reversible models of the largest part within which every cluster is reached from every other.

    Raises:
        DataError: if that part is a single cluster.
    """
    from deeptime.markov import TransitionCountModel
    from deeptime.markov.msm import BayesianMSM

    # "effective" is what deeptime calls counts that were corrected for correlation, as those divided by the lag are.
    counts = TransitionCountModel(count_matrix(labels, lag), counting_mode="effective", lagtime=lag)
    connected = counts.submodel_largest(connectivity_threshold=0.0, directed=True)
    if connected.n_states < 2:
        raise DataError(
            f"at a lag of {lag} frames no two clusters are seen to go to and fro: simulate longer, give a shorter lag, "
            "or fewer clusters"
        )
    share = float(connected.count_matrix.sum() / counts.count_matrix.sum())
    posterior = BayesianMSM(n_samples=num_samples, reversible=True, lagtime=lag).fit_fetch(connected)
    return Posterior(posterior.prior, tuple(posterior.samples), np.asarray(connected.state_symbols), share)


def timescales(model: Any, count: int) -> np.ndarray:
    """(count,) implied timescales in frames, slowest first; NaN beyond those that the model has."""
    found = np.full(count, np.nan)
    known = min(count, model.n_states - 1)
    # A reversible matrix is symmetric once scaled by its equilibrium: much faster than deeptime's own way.
    root = np.sqrt(model.stationary_distribution)
    symmetric = root[:, None] * model.transition_matrix / root
    values = np.sort(np.abs(np.linalg.eigvalsh((symmetric + symmetric.T) / 2)))[::-1][1 : 1 + known]
    with np.errstate(divide="ignore"):
        found[:known] = -model.lagtime / np.log(np.minimum(values, 1 - 1e-15))
    return found


def passage_times(model: Any, sets: Sequence[np.ndarray]) -> np.ndarray:
    """(sets, sets) mean first-passage times in frames, from row to column."""
    times = np.zeros((len(sets), len(sets)))
    for row, start in enumerate(sets):
        for column, target in enumerate(sets):
            if row != column:
                times[row, column] = model.mfpt(start, target)
    return times


def set_probabilities(transition_matrix: np.ndarray, stationary: np.ndarray, memberships: np.ndarray) -> np.ndarray:
    """(sets, sets) to be in a column's set after having been in a row's, starting in equilibrium within it."""
    starts = (stationary[:, None] * memberships).T
    starts /= starts.sum(axis=1, keepdims=True)
    return starts @ transition_matrix @ memberships


def metastable_states(labels: Sequence[np.ndarray], clusters: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each trajectory (frames,) the set of its clusters, -1 outside the connected ones."""
    table = np.full(max(int(values.max()) for values in labels) + 1, -1)
    table[clusters] = sets
    return tuple(table[values] for values in labels)


def set_transitions(states: Sequence[np.ndarray], num_sets: int) -> np.ndarray:
    """(sets, sets) how often a trajectory was in one set and next in another, frames outside the model left out."""
    transitions = np.zeros((num_sets, num_sets), np.int64)
    for values in states:
        inside = values[values >= 0]
        moved = np.flatnonzero(np.diff(inside))
        np.add.at(transitions, (inside[moved], inside[moved + 1]), 1)
    return transitions
