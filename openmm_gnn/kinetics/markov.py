"""Markov models of slow variables or states, estimated with deeptime, every figure with an interval.

Source: Prinz et al., J. Chem. Phys. 134, 174105 (2011), doi:10.1063/1.3565032; samples of the reversible posterior:
Trendelkamp-Schroer et al., J. Chem. Phys. 143, 174101 (2015), doi:10.1063/1.4934536; metastable sets (PCCA+):
Roeblitz and Weber, Adv. Data Anal. Classif. 7, 147 (2013), doi:10.1007/s11634-013-0134-6.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.markov_estimates import (
    Interval,
    Posterior,
    interval_of,
    metastable_states,
    passage_times,
    sample_posterior,
    set_probabilities,
    set_transitions,
    timescales,
)

FIT_FRAMES = 50_000
"""For the cluster centres, evenly spaced over all trajectories."""


@dataclass(frozen=True)
class MarkovSettings:
    """How to discretise and estimate."""

    num_clusters: int = 100
    num_states: int = 2
    """Metastable sets of PCCA."""
    num_timescales: int = 3
    lags: tuple[int, ...] = ()
    """In frames, for the implied timescales; empty: doubling up to four times the model's lag."""
    chapman_kolmogorov_steps: int = 5
    samples: int = 100
    """Of the posterior."""
    confidence: float = 0.95
    """Share of the samples within an interval."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"num_clusters": 2, "num_states": 2, "num_timescales": 1, "chapman_kolmogorov_steps": 1, "samples": 10}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise SpecError(f"MarkovSettings.{name} is {getattr(self, name)}: give at least {value}")
        if not 0 < self.confidence < 1:
            raise SpecError(f"MarkovSettings.confidence is {self.confidence}: give a share above 0 and below 1")
        if any(lag < 1 for lag in self.lags):
            raise SpecError(f"MarkovSettings.lags are {self.lags} frames: give 1 or more")


@dataclass(frozen=True)
class MarkovModel:
    """States, populations, kinetics, and whether the model may be trusted. Times are in ps."""

    lag_ps: float
    confidence: float
    timescales_ps: Interval
    """(timescales,) at the model's lag."""
    implied_lags_ps: np.ndarray
    implied_timescales_ps: Interval
    """(lags, timescales): a model may be trusted where they no longer change with the lag; NaN where too few states
    are connected."""
    populations: Interval
    """(states,) share of the equilibrium."""
    passage_times_ps: Interval
    """(states, states) mean first-passage times from row to column, 0 on the diagonal."""
    chapman_kolmogorov_lags_ps: np.ndarray
    """(steps,) multiples of the lag, from 0."""
    predicted: Interval
    estimated: Interval
    """(steps, states, states) probabilities to be in a column's set after having been in a row's: by powers of the
    model, and by models of those lags. They agree where the dynamics is Markovian."""
    states: tuple[np.ndarray, ...]
    """Of each trajectory (frames,) the metastable set; -1 for frames outside the connected part."""
    memberships: np.ndarray
    """(connected clusters, states)"""
    clusters: np.ndarray
    """(connected clusters,) their numbers."""
    connected_share: float
    """Of the counts that lie in the connected part; what is not was not visited to and fro."""
    transitions: np.ndarray
    """(states, states) times a trajectory was seen to go from one set to the other; few make every figure uncertain."""
    cluster_centers: np.ndarray | None
    """(clusters, K) in the slow variables; None where states were given."""

    def to_json(self) -> str:
        """All of it but the states of the frames; NaN and infinity become null."""
        return json.dumps({name: _plain(value) for name, value in vars(self).items() if name != "states"})


@dataclass(frozen=True)
class Discretisation:
    """Slow variables as numbers of clusters."""

    labels: tuple[np.ndarray, ...]
    """Of each trajectory (frames,)."""
    centers: np.ndarray
    """(clusters, K)"""


def discretise(series: Sequence[np.ndarray], num_clusters: int = 100, seed: int = 0) -> Discretisation:
    """Clusters of slow variables by k-means.

    Args:
        series: of each trajectory (frames, K).
    Raises:
        DataError: if there are fewer frames than clusters, or a number is not finite.
    """
    from deeptime.clustering import KMeans

    together = np.concatenate([np.asarray(values, np.float64) for values in series])
    if len(together) < num_clusters:
        raise DataError(f"{len(together)} frames for {num_clusters} clusters: simulate longer, or ask for fewer")
    if not np.isfinite(together).all():
        raise DataError("the slow variables have NaN or infinity: train again, or look at the features")
    chosen = together[np.linspace(0, len(together) - 1, min(FIT_FRAMES, len(together))).astype(int)]
    kmeans = KMeans(num_clusters, max_iter=200, init_strategy="kmeans++", fixed_seed=seed, n_jobs=1)
    model = kmeans.fit_fetch(chosen)
    labels = tuple(model.transform(np.asarray(values, np.float64)).astype(np.int64) for values in series)
    return Discretisation(labels, np.asarray(model.cluster_centers))


def estimate_markov_model(
    series: Sequence[np.ndarray],
    lag_frames: int,
    interval_ps: float,
    settings: MarkovSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> MarkovModel:
    """A Markov model of slow variables, or of states.

    Args:
        series: of each uninterrupted trajectory (frames, K) slow variables, or (frames,) integer states such as SPIB's.
        lag_frames: lag of the model.
        interval_ps: between two frames.
        progress: told what is being done.
    Raises:
        DataError: if the trajectories are too short for the lag, or nothing is seen to go to and fro.
    """
    settings = settings or MarkovSettings()
    tell = progress or (lambda _: None)
    longest = max((len(values) for values in series), default=0)
    if lag_frames < 1 or longest <= lag_frames:
        raise DataError(
            f"the lag is {lag_frames} frames, the longest trajectory has {longest}: give a lag of at least 1 that the "
            "trajectories are longer than"
        )
    centers = None
    if series[0].ndim == 2:
        tell("clusters")
        clusters = discretise(series, settings.num_clusters, settings.seed)
        labels, centers = list(clusters.labels), clusters.centers
    else:
        labels = [np.asarray(values, np.int64) for values in series]
    tell("Markov model")
    np.random.seed(settings.seed)  # noqa: NPY002  (deeptime samples from the global state)
    posterior = sample_posterior(labels, lag_frames, settings.samples)
    memberships = _memberships(posterior, settings.num_states)
    sets = memberships.argmax(axis=1)
    members = [np.flatnonzero(sets == state) for state in range(memberships.shape[1])]
    states = metastable_states(labels, posterior.clusters, sets)
    tell("passage times")
    populations = [model.stationary_distribution @ memberships for model in posterior.models]
    passages = [passage_times(model, members) * interval_ps for model in posterior.models]
    own = _timescales(posterior, settings, interval_ps)
    tell("implied timescales")
    lags = settings.lags or _doubling(lag_frames, longest)
    implied = [
        own
        if lag == lag_frames
        else _timescales(sample_posterior(labels, lag, settings.samples), settings, interval_ps)
        for lag in lags
    ]
    tell("Chapman-Kolmogorov test")
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
        memberships=memberships,
        clusters=posterior.clusters,
        connected_share=posterior.connected_share,
        transitions=set_transitions(states, memberships.shape[1]),
        cluster_centers=centers,
    )


def _memberships(posterior: Posterior, num_states: int) -> np.ndarray:
    """(clusters, states) of PCCA, the most populated state first; of no more clusters than wanted, each is a state.

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
    labels: Sequence[np.ndarray],
    lag: int,
    posterior: Posterior,
    memberships: np.ndarray,
    settings: MarkovSettings,
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
    """Lags from an eighth of the model's to four times it, doubling, that leave half of the longest trajectory."""
    lags = sorted({max(1, round(lag * 2.0**power)) for power in range(-3, 3)})
    return tuple(one for one in lags if one <= longest // 2 or one == lag)


def _stacked(intervals: Sequence[Interval]) -> Interval:
    return Interval(*(np.array([getattr(one, part) for one in intervals]) for part in ("value", "low", "high")))


def _plain(value: Any) -> Any:
    """For JSON, which knows no NaN."""
    if isinstance(value, Interval):
        return {name: _plain(part) for name, part in vars(value).items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
