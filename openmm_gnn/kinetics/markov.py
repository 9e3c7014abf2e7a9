"""Markov models of slow variables or states, estimated with deeptime; every number has an interval.

Source: Prinz et al., J. Chem. Phys. 134, 174105 (2011), doi:10.1063/1.3565032; samples of the reversible posterior:
Trendelkamp-Schroer et al., J. Chem. Phys. 143, 174101 (2015), doi:10.1063/1.4934536; metastable sets (PCCA+):
Roeblitz and Weber, Adv. Data Anal. Classif. 7, 147 (2013), doi:10.1007/s11634-013-0134-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SettingsError, whole
from openmm_gnn.kinetics.token_trajectories import evenly_spaced

FIT_FRAMES = 50_000
"""Frames for the cluster centres, evenly spaced over all trajectories."""
LONGEST_IN_DATA = 1000
"""Timescale or passage time, in lengths of all trajectories together, above which a sample of the posterior is not
connected: what was seen once takes that long with a probability of 0.1 %, a fraction of a transition without bound."""
FEWEST_SAMPLES = 10
"""Connected samples below which there is no interval."""


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
    parts: tuple[np.ndarray, ...]
    """(frames,) the part of each frame, within which every cluster is reached from every other: 0 is the connected part
    that the model is of, 1 and more are those that are not connected with it in both directions, the largest first."""
    lost_samples: int
    """Samples of the posterior that are not connected, and are in no interval."""
    transitions: np.ndarray
    """(states, states) transitions seen from one set to another; few of them make every number uncertain."""

    @property
    def num_states(self) -> int:
        return len(self.populations.value)

    @property
    def visits(self) -> list[int]:
        """How often the trajectories came into each state from another one."""
        return self.transitions.sum(axis=0).tolist()

    @property
    def connected_share(self) -> float:
        """Share of the frames in the connected part."""
        return float(np.mean(np.concatenate(self.parts) == 0))


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
        DataError: if the trajectories are too short for the lag.
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
    lags = settings.lags or _doubling(lag_frames, longest)
    posterior = sample_posterior(labels, lag_frames, settings.samples, settings.seed)
    memberships = _memberships(posterior, settings.num_states)
    sets = memberships.argmax(axis=1)
    members = [np.flatnonzero(sets == state) for state in range(memberships.shape[1])]
    passages = [passage_times(model, members) for model in posterior.models]
    posterior, passages = _with_finite_passages(posterior, passages, LONGEST_IN_DATA * sum(map(len, labels)))
    own = _timescales(posterior, settings, interval_ps)
    implied = [
        own
        if lag == lag_frames
        else _timescales(sample_posterior(labels, lag, settings.samples, settings.seed), settings, interval_ps)
        for lag in lags
    ]
    predicted, estimated = _chapman_kolmogorov(labels, lag_frames, posterior, memberships, settings)
    table = np.full(max(int(values.max()) for values in labels) + 1, -1)
    table[posterior.clusters] = sets
    states = tuple(table[values] for values in labels)
    populations = [model.stationary_distribution @ memberships for model in posterior.models]
    return MarkovModel(
        lag_ps=lag_frames * interval_ps,
        confidence=settings.confidence,
        timescales_ps=own,
        implied_lags_ps=np.array(lags) * interval_ps,
        implied_timescales_ps=_stacked(implied),
        populations=interval_of(populations, settings.confidence),
        passage_times_ps=interval_of([one * interval_ps for one in passages], settings.confidence),
        chapman_kolmogorov_lags_ps=np.arange(len(predicted.value)) * lag_frames * interval_ps,
        predicted=predicted,
        estimated=estimated,
        states=states,
        parts=tuple(connected_parts(labels, lag_frames)[values] for values in labels),
        lost_samples=posterior.lost_samples,
        transitions=set_transitions(states, memberships.shape[1]),
    )


def _memberships(posterior: Posterior, num_states: int) -> np.ndarray:
    """(clusters, states) memberships of PCCA, the most populated state first; few clusters are a state each.

    There are fewer states than were asked for where a set of so many would hold no cluster.
    """
    model = posterior.most_likely
    for count in range(min(num_states, model.n_states), 0, -1):
        if count in (1, model.n_states):
            memberships = np.ones((model.n_states, 1)) if count == 1 else np.eye(count)
            break
        try:
            memberships = np.asarray(model.pcca(count).memberships)
        except (ValueError, np.linalg.LinAlgError):  # no so many sets
            continue
        if len(np.unique(memberships.argmax(axis=1))) == count:
            break
    return memberships[:, np.argsort(-(model.stationary_distribution @ memberships), kind="stable")]


def _with_finite_passages(
    posterior: Posterior, passages: list[np.ndarray], longest: float
) -> tuple[Posterior, list[np.ndarray]]:
    """The posterior without the samples that take longer than this from one set to another, and its passage times."""
    kept = [number for number, times in enumerate(passages) if number == 0 or times.max() < longest]
    samples = tuple(posterior.samples[number - 1] for number in kept[1:])
    lost = posterior.lost_samples + len(posterior.samples) - len(samples)
    return replace(posterior, samples=samples, lost_samples=lost), [passages[number] for number in kept]


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
        longer = posterior if step == 1 else sample_posterior(labels, step * lag, settings.samples, settings.seed)
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
    value, samples = np.asarray(values[0], np.float64), np.array(values[1:], np.float64)
    if len(samples) < FEWEST_SAMPLES:
        return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    tail = 50 * (1 - confidence)
    known = np.isfinite(samples).all(axis=0)
    low, high = np.percentile(np.where(known, samples, 0.0), [tail, 100 - tail], axis=0)
    # The estimate may lie outside of few samples; an interval always holds it.
    low, high = np.fmin(low, value), np.fmax(high, value)
    return Interval(value, np.where(known, low, np.nan), np.where(known, high, np.nan))


@dataclass(frozen=True)
class Posterior:
    """The most likely reversible model and samples around it, deeptime's MarkovStateModels."""

    most_likely: Any
    samples: tuple[Any, ...]
    """Those that are connected, see LONGEST_IN_DATA."""
    clusters: np.ndarray
    """(n,) numbers of the connected clusters."""
    lost_samples: int

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


def connected_parts(labels: Sequence[np.ndarray], lag: int) -> np.ndarray:
    """(clusters,) the part of each, within which every cluster is reached from every other; 0 has the most frames."""
    from scipy.sparse.csgraph import connected_components

    counts = count_matrix(labels, lag)
    _, parts = connected_components(counts > 0, directed=True, connection="strong")
    frames = np.bincount(parts, weights=np.bincount(np.concatenate(labels), minlength=len(counts)))
    return np.argsort(np.argsort(-frames, kind="stable"))[parts]


def sample_posterior(labels: Sequence[np.ndarray], lag: int, num_samples: int, seed: int = 0) -> Posterior:
    """Sample reversible models of the part with most frames in which every cluster is reached from every other."""
    from deeptime.markov import TransitionCountModel
    from deeptime.markov.msm import MarkovStateModel, MaximumLikelihoodMSM
    from deeptime.markov.tools.estimation.dense.tmat_sampling.tmatrix_sampler import TransitionMatrixSampler

    connected = np.flatnonzero(connected_parts(labels, lag) == 0)
    if len(connected) < 2:
        return Posterior(MarkovStateModel(np.ones((1, 1)), lagtime=lag), (), connected, 0)
    counts = count_matrix(labels, lag)[np.ix_(connected, connected)]
    likely = MaximumLikelihoodMSM(reversible=True).fit_fetch(TransitionCountModel(counts, lagtime=lag))
    # deeptime's BayesianMSM does the same from a seed of its own.
    steps = int(np.sqrt(len(counts)))
    sampler = TransitionMatrixSampler(counts, reversible=True, P0=likely.transition_matrix, n_steps=steps, seed=seed)
    drawn = zip(*sampler.sample(num_samples, return_statdist=True), strict=True)
    samples = [MarkovStateModel(matrix, stationary, reversible=True, lagtime=lag) for matrix, stationary in drawn]
    longest = LONGEST_IN_DATA * sum(map(len, labels))
    kept = tuple(model for model in samples if timescales(model, 1)[0] < longest)
    return Posterior(likely, kept, connected, num_samples - len(kept))


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
    """(sets, sets) mean first-passage times in frames, from row to column; infinite where a rate is 0 to rounding.

    One linear system for each target, where deeptime's own way solves one for each pair, and fails on such rates.
    """
    times, share = np.zeros((len(sets), len(sets))), model.stationary_distribution
    for column, target in enumerate(sets):
        others, hits = np.setdiff1d(np.arange(model.n_states), target), np.zeros(model.n_states)
        inside = np.eye(len(others)) - model.transition_matrix[np.ix_(others, others)]
        try:
            hits[others] = np.linalg.solve(inside, np.ones(len(others)))
        except np.linalg.LinAlgError:
            hits[others] = np.inf
        for row, start in enumerate(sets):
            if row != column:
                times[row, column] = np.average(hits[start], weights=share[start])
    return np.where(times < 0, np.inf, model.lagtime * times)


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
