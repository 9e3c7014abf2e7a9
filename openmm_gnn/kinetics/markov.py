"""Markov models of slow variables or states, estimated with deeptime; every number has an interval.

Source: Prinz et al., J. Chem. Phys. 134, 174105 (2011), doi:10.1063/1.3565032; samples of the reversible posterior:
Trendelkamp-Schroer et al., J. Chem. Phys. 143, 174101 (2015), doi:10.1063/1.4934536; metastable sets (PCCA+):
Roeblitz and Weber, Adv. Data Anal. Classif. 7, 147 (2013), doi:10.1007/s11634-013-0134-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SettingsError, whole
from openmm_gnn.kinetics.token_trajectories import evenly_spaced

FIT_FRAMES = 50_000
"""Frames for the cluster centres, evenly spaced over all trajectories."""


@dataclass(frozen=True)
class MarkovSettings:
    """Settings of the clusters and of the estimates."""

    num_clusters: int = 100
    num_states: int = 2
    """Metastable sets of PCCA."""
    num_timescales: int = 3
    lags: tuple[int, ...] = ()
    """Lags of the implied timescales, frames; empty: doubling up to four times the model's lag."""
    chapman_kolmogorov_steps: int = 5
    samples: int = 100
    """Samples of the posterior."""
    confidence: float = 0.95
    """Share of the samples within an interval."""
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self, 2, "num_clusters", "num_states")
        whole(self, 1, "num_timescales", "chapman_kolmogorov_steps")
        whole(self, 10, "samples")
        if not 0 < self.confidence < 1:
            raise SettingsError(self, "confidence", "give a share above 0 and below 1")
        if any(lag < 1 for lag in self.lags):
            raise SettingsError(self, "lags", "give 1 frame or more")


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval with the chosen share of the posterior's samples; arrays of one shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class MarkovModel:
    """States, populations, kinetics, and tests of the model. Times are in ps."""

    lag_ps: float
    confidence: float
    timescales_ps: Interval
    """(timescales,) at the model's lag."""
    implied_lags_ps: np.ndarray
    """(lags,)"""
    implied_timescales_ps: Interval
    """(lags, timescales): the model is valid where they no longer change with the lag; NaN where too few states are
    connected."""
    populations: Interval
    """(states,) shares of the equilibrium."""
    passage_times_ps: Interval
    """(states, states) mean first-passage times from row to column, 0 on the diagonal."""
    chapman_kolmogorov_lags_ps: np.ndarray
    """(steps,) multiples of the lag, from 0."""
    predicted: Interval
    estimated: Interval
    """(steps, states, states) probabilities to be in a column's set after having been in a row's: by powers of the
    model, and by models of those lags. They agree where the dynamics is Markovian."""
    states: tuple[np.ndarray, ...]
    """(frames,) the metastable set of each frame of each trajectory; -1 for frames outside the connected part."""
    connected_share: float
    """Share of the counts in the connected part, within which every cluster is reached from every other."""
    transitions: np.ndarray
    """(states, states) transitions seen from one set to another; few of them make every number uncertain."""

    @property
    def num_states(self) -> int:
        return len(self.populations.value)

    @property
    def visits(self) -> list[int]:
        """How often the trajectories came into each state from another one."""
        return self.transitions.sum(axis=0).tolist()


def discretise(series: Sequence[np.ndarray], num_clusters: int = 100, seed: int = 0) -> list[np.ndarray]:
    """(frames,) numbers of the k-means clusters of slow variables, for each trajectory.

    Args:
        series: (frames, K) variables of each trajectory.
    Raises:
        DataError: if there are fewer frames than clusters, or a number is not finite.
    """
    from deeptime.clustering import KMeans

    together = np.concatenate([np.asarray(values, np.float64) for values in series])
    if len(together) < num_clusters:
        raise DataError(f"{len(together)} frames for {num_clusters} clusters: simulate longer, or ask for fewer")
    if not np.isfinite(together).all():
        raise DataError("the slow variables have NaN or infinity: train again, or look at the features")
    kmeans = KMeans(num_clusters, max_iter=200, init_strategy="kmeans++", fixed_seed=seed, n_jobs=1)
    model = kmeans.fit_fetch(together[evenly_spaced(len(together), FIT_FRAMES)])
    return [model.transform(np.asarray(values, np.float64)).astype(np.int64) for values in series]


def estimate_markov_model(
    series: Sequence[np.ndarray], lag_frames: int, interval_ps: float, settings: MarkovSettings | None = None
) -> MarkovModel:
    """Estimate a Markov model of slow variables, or of states.

    Args:
        series: (frames, K) slow variables of each uninterrupted trajectory, or (frames,) integer states such as SPIB's.
        lag_frames: lag of the model.
        interval_ps: time between two frames.
    Raises:
        DataError: if the trajectories are too short for the lag, or no two clusters are connected in both directions.
    """
    settings = settings or MarkovSettings()
    longest = max((len(values) for values in series), default=0)
    if lag_frames < 1 or longest <= lag_frames:
        raise DataError(
            f"the lag is {lag_frames} frames, the longest trajectory has {longest}: give a lag of at least 1 that the "
            "trajectories are longer than"
        )
    if series[0].ndim == 2:
        labels = discretise(series, settings.num_clusters, settings.seed)
    else:
        labels = [np.asarray(values, np.int64) for values in series]
    np.random.seed(settings.seed)  # noqa: NPY002  (deeptime samples from the global state)
    posterior = sample_posterior(labels, lag_frames, settings.samples)
    memberships = _memberships(posterior, settings.num_states)
    sets = memberships.argmax(axis=1)
    members = [np.flatnonzero(sets == state) for state in range(memberships.shape[1])]
    table = np.full(max(int(values.max()) for values in labels) + 1, -1)
    table[posterior.clusters] = sets
    states = tuple(table[values] for values in labels)
    populations = [model.stationary_distribution @ memberships for model in posterior.models]
    passages = [passage_times(model, members) * interval_ps for model in posterior.models]
    own = _timescales(posterior, settings, interval_ps)
    lags = settings.lags or _doubling(lag_frames, longest)
    implied = [
        own
        if lag == lag_frames
        else _timescales(sample_posterior(labels, lag, settings.samples), settings, interval_ps)
        for lag in lags
    ]
    predicted, estimated = _chapman_kolmogorov(labels, lag_frames, posterior, memberships, settings)
    return MarkovModel(
        lag_ps=lag_frames * interval_ps,
        confidence=settings.confidence,
        timescales_ps=own,
        implied_lags_ps=np.array(lags) * interval_ps,
        implied_timescales_ps=_stacked(implied),
        populations=interval_of(populations, settings.confidence),
        passage_times_ps=interval_of(passages, settings.confidence),
        chapman_kolmogorov_lags_ps=np.arange(len(predicted.value)) * lag_frames * interval_ps,
        predicted=predicted,
        estimated=estimated,
        states=states,
        connected_share=posterior.connected_share,
        transitions=set_transitions(states, memberships.shape[1]),
    )


def _memberships(posterior: Posterior, num_states: int) -> np.ndarray:
    """(clusters, states) memberships of PCCA, the most populated state first; few clusters are a state each.

    Raises:
        DataError: if a set holds no cluster.
    """
    model = posterior.most_likely
    if model.n_states <= num_states:
        memberships = np.eye(model.n_states)
    else:
        memberships = np.asarray(model.pcca(num_states).memberships)
    memberships = memberships[:, np.argsort(-(model.stationary_distribution @ memberships), kind="stable")]
    held = np.unique(memberships.argmax(axis=1))
    if len(held) < memberships.shape[1]:
        raise DataError(
            f"{len(held)} of {memberships.shape[1]} metastable sets hold a cluster: ask for fewer states, or for more "
            "clusters"
        )
    return memberships


def _timescales(posterior: Posterior, settings: MarkovSettings, interval_ps: float) -> Interval:
    found = [timescales(model, settings.num_timescales) * interval_ps for model in posterior.models]
    return interval_of(found, settings.confidence)


def _chapman_kolmogorov(
    labels: Sequence[np.ndarray], lag: int, posterior: Posterior, memberships: np.ndarray, settings: MarkovSettings
) -> tuple[Interval, Interval]:
    """Predicted and estimated probabilities at multiples of the lag, from 0, as far as the trajectories reach.

    Source: Prinz et al. (2011), sec. IV F.
    """
    longest = max(map(len, labels))
    steps = range(1, 1 + max(1, min(settings.chapman_kolmogorov_steps, (longest - 1) // lag // 2)))
    nothing = [np.eye(memberships.shape[1])] * 3
    predicted, estimated = [Interval(*nothing)], [Interval(*nothing)]
    start = posterior.most_likely.stationary_distribution
    for step in steps:
        powers = [np.linalg.matrix_power(model.transition_matrix, step) for model in posterior.models]
        found = [set_probabilities(power, start, memberships) for power in powers]
        predicted.append(interval_of(found, settings.confidence))
        longer = posterior if step == 1 else sample_posterior(labels, step * lag, settings.samples)
        # A longer lag may leave clusters out; the sets are those of the clusters that are in both models.
        places = np.searchsorted(posterior.clusters, longer.clusters)
        places = np.minimum(places, len(posterior.clusters) - 1)
        common = posterior.clusters[places] == longer.clusters
        known = np.where(common[:, None], memberships[places], 0.0)
        if not (known.sum(axis=0) > 0).all():
            estimated.append(Interval(*[np.full(memberships.shape[1:] * 2, np.nan)] * 3))
            continue
        found = [
            set_probabilities(model.transition_matrix, longer.most_likely.stationary_distribution, known)
            for model in longer.models
        ]
        estimated.append(interval_of(found, settings.confidence))
    return _stacked(predicted), _stacked(estimated)


def _doubling(lag: int, longest: int) -> tuple[int, ...]:
    """Lags from an eighth of the model's to four times it, doubling, up to half of the longest trajectory."""
    lags = sorted({max(1, round(lag * 2.0**power)) for power in range(-3, 3)})
    return tuple(one for one in lags if one <= longest // 2 or one == lag)


def _stacked(intervals: Sequence[Interval]) -> Interval:
    return Interval(*(np.array([getattr(one, part) for one in intervals]) for part in ("value", "low", "high")))


def interval_of(values: Sequence[np.ndarray], confidence: float) -> Interval:
    """The interval of samples around an estimate, which is the first value; NaN marks what a sample lacks."""
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
    """Share of all counts."""

    @property
    def models(self) -> list[Any]:
        """All models, the most likely one first."""
        return [self.most_likely, *self.samples]


def count_matrix(labels: Sequence[np.ndarray], lag: int) -> np.ndarray:
    """(clusters, clusters) transitions that start at every frame, divided by the lag.

    Transitions less than a lag apart are not independent: all are used, but they count as the number that fits side by
    side. The most likely model does not depend on the divisor, the width of the intervals does.
    """
    from deeptime.markov import TransitionCountEstimator

    long_enough = [values for values in labels if len(values) > lag]
    if not long_enough:
        raise DataError(f"no trajectory is longer than {lag} frames: give a shorter lag, or simulate longer")
    size = max(int(values.max()) for values in labels) + 1
    counts = TransitionCountEstimator(lag, "sliding", n_states=size).fit_fetch(long_enough).count_matrix
    return np.asarray(counts, np.float64) / lag


def sample_posterior(labels: Sequence[np.ndarray], lag: int, num_samples: int) -> Posterior:
    """Sample reversible models of the largest part in which every cluster is reached from every other.

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
            f"at a lag of {lag} frames no two clusters are connected in both directions: simulate longer, give a "
            "shorter lag, or fewer clusters"
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
    """(sets, sets) probabilities to go from a row's set, in equilibrium within it, to a column's."""
    starts = (stationary[:, None] * memberships).T
    starts /= starts.sum(axis=1, keepdims=True)
    return starts @ transition_matrix @ memberships


def set_transitions(states: Sequence[np.ndarray], num_sets: int) -> np.ndarray:
    """(sets, sets) counts of steps from one set to another; frames outside the model are left out."""
    transitions = np.zeros((num_sets, num_sets), np.int64)
    for values in states:
        inside = values[values >= 0]
        moved = np.flatnonzero(np.diff(inside))
        np.add.at(transitions, (inside[moved], inside[moved + 1]), 1)
    return transitions
