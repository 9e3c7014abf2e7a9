"""The Markov model of learned slow variables, in the form that figures and reports take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from openmm_gnn.kinetics.markov import MarkovModel, MarkovSettings, estimate_markov_model
from openmm_gnn.kinetics.report.data import SlowData, stretches
from openmm_gnn.kinetics.report.learn import Learned
from openmm_gnn.kinetics.report.map_figures import StateNumbers
from openmm_gnn.kinetics.report.score_figures import MarkovPrediction, TimescaleCurves
from openmm_gnn.kinetics.settings import AnalysisSettings

MOST_CLUSTERS, FRAMES_PER_CLUSTER = 100, 20
SAMPLES, QUICK_SAMPLES = 100, 20
MOST_TIMESCALES = 5


@dataclass(frozen=True)
class Kinetics:
    """States and their kinetics."""

    timescales: TimescaleCurves
    prediction: MarkovPrediction
    numbers: StateNumbers
    states: list[np.ndarray]
    """Of each run (frames,) integers, -1 for none."""
    visits: list[int]
    """How often the runs came into each state, from another one."""
    connected_share: float


def estimate_kinetics(
    learned: Learned,
    variables: Sequence[np.ndarray],
    data: SlowData,
    settings: AnalysisSettings,
    lags: Sequence[int],
    progress: Callable[[str], None] | None = None,
) -> Kinetics:
    """Estimate a Markov model of all runs, at the lag of the training.

    Args:
        variables: of each run (frames, K); states that were learned with them take their place.
        lags: in frames, for the implied timescales.
    Raises:
        DataError: if the runs are too short, or nothing goes to and fro between states.
    """
    series: list[np.ndarray] = list(variables)
    num_states = settings.wanted_states
    if learned.states is not None:
        series = list(learned.states)
        num_states = 1 + max(int(own.max()) for own in series)
    pieces = [piece_of for trajectory in data.trajectories for piece_of in stretches(trajectory.segments)]
    owners = [run for run, one in enumerate(data.trajectories) for _ in stretches(one.segments)]
    frames = sum(map(len, series))
    processes = min(MOST_TIMESCALES, max(num_states - 1, settings.outputs + 1))
    model = estimate_markov_model(
        [series[run][rows] for run, rows in zip(owners, pieces, strict=True)],
        max(1, round(settings.lag / data.interval_ps)),
        data.interval_ps,
        MarkovSettings(
            num_clusters=max(2 * settings.wanted_states, min(MOST_CLUSTERS, frames // FRAMES_PER_CLUSTER)),
            num_states=num_states,
            num_timescales=processes,
            lags=tuple(lags),
            samples=QUICK_SAMPLES if settings.quick else SAMPLES,
        ),
        progress,
    )
    states = [np.full(len(values), -1) for values in series]
    for run, rows, own in zip(owners, pieces, model.states, strict=True):
        states[run][rows] = own
    crossings = np.array(model.transitions)
    np.fill_diagonal(crossings, 0)
    return Kinetics(
        _timescales(model),
        _prediction(model),
        _numbers(model),
        states,
        crossings.sum(axis=0).astype(int).tolist(),
        model.connected_share,
    )


def _timescales(model: MarkovModel) -> TimescaleCurves:
    times = model.implied_timescales_ps
    return TimescaleCurves(model.implied_lags_ps, times.value, times.low, times.high, model.lag_ps, model.confidence)


def _prediction(model: MarkovModel) -> MarkovPrediction:
    predicted, estimated = model.predicted, model.estimated
    return MarkovPrediction(
        model.chapman_kolmogorov_lags_ps,
        predicted.value,
        predicted.low,
        predicted.high,
        estimated.value,
        estimated.low,
        estimated.high,
    )


def _numbers(model: MarkovModel) -> StateNumbers:
    populations, passages = model.populations, model.passage_times_ps
    return StateNumbers(
        populations.value,
        populations.low,
        populations.high,
        passages.value,
        passages.low,
        passages.high,
        model.confidence,
    )
