"""Markov models of chains whose populations, timescales and passage times are known exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from deeptime.markov.msm import MarkovStateModel

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.markov import (
    LONGEST_IN_DATA,
    MarkovModel,
    MarkovSettings,
    discretise,
    estimate_markov_model,
    passage_times,
    sample_posterior,
    timescales,
)

INTERVAL_PS = 0.5
TRANSITIONS = np.array([[0.98, 0.02, 0.0], [0.03, 0.94, 0.03], [0.0, 0.08, 0.92]])
"""A chain of three states in a row, so it is reversible."""
POPULATIONS = np.array([12.0, 8.0, 3.0]) / 23
TIMESCALES_PS = -INTERVAL_PS / np.log(np.sort(np.linalg.eigvals(TRANSITIONS).real)[::-1][1:])


def chain(frames: int, seed: int) -> np.ndarray:
    """(frames,) states."""
    random = np.random.default_rng(seed)
    steps, cumulative = random.random(frames), TRANSITIONS.cumsum(axis=1)
    states = np.empty(frames, np.int64)
    states[0] = random.choice(3, p=POPULATIONS)
    for frame in range(1, frames):
        states[frame] = min(2, np.searchsorted(cumulative[states[frame - 1]], steps[frame], side="right"))
    return states


CHAINS = [chain(15_000, seed) for seed in (1, 2)]
SETTINGS = MarkovSettings(num_states=3, num_timescales=2, samples=60, num_clusters=20)


@pytest.fixture(scope="module")
def of_states() -> MarkovModel:
    return estimate_markov_model(CHAINS, 2, INTERVAL_PS, SETTINGS)


def exact_passages() -> np.ndarray:
    """(3, 3) mean first-passage times of the chain in ps, by solving for each target."""
    times = np.zeros((3, 3))
    for target in range(3):
        others = [state for state in range(3) if state != target]
        rest = np.eye(2) - TRANSITIONS[np.ix_(others, others)]
        times[others, target] = np.linalg.solve(rest, np.ones(2)) * INTERVAL_PS
    return times


def test_intervals_hold_the_exact_figures(of_states: MarkovModel) -> None:
    for found, exact in (
        (of_states.populations, POPULATIONS),
        (of_states.timescales_ps, TIMESCALES_PS),
    ):
        np.testing.assert_allclose(found.value, exact, rtol=0.3)  # 20 pairs of chains: by at most 0.20 and 0.15
        assert (found.low <= found.value).all() and (found.value <= found.high).all()
        width = found.high - found.low
        assert (found.low - 0.5 * width <= exact).all() and (exact <= found.high + 0.5 * width).all()
        assert (width < 0.5 * exact).all()
    off = ~np.eye(3, dtype=bool)
    # At a lag of two frames a visit in between is not seen: times are about a frame longer. 20 pairs: by at most 0.28.
    np.testing.assert_allclose(of_states.passage_times_ps.value[off], exact_passages()[off], rtol=0.4)
    assert (np.diag(of_states.passage_times_ps.value) == 0).all()


def test_implied_timescales_do_not_change_with_the_lag_of_a_markov_chain(of_states: MarkovModel) -> None:
    implied = of_states.implied_timescales_ps
    assert implied.value.shape == (len(of_states.implied_lags_ps), 2)
    np.testing.assert_allclose(implied.value[:, 0], TIMESCALES_PS[0], rtol=0.24)  # 20 pairs: 0.16
    assert of_states.implied_lags_ps.tolist() == [0.5, 1.0, 2.0, 4.0]


def test_the_chapman_kolmogorov_test_agrees_for_a_markov_chain(of_states: MarkovModel) -> None:
    assert of_states.chapman_kolmogorov_lags_ps.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    predicted, estimated = of_states.predicted, of_states.estimated
    np.testing.assert_array_equal(predicted.value[0], np.eye(3))
    np.testing.assert_allclose(predicted.value, estimated.value, atol=0.04)  # 20 pairs of chains: by at most 0.025
    for step, power in enumerate((0, 2, 4, 6, 8, 10)):
        exact = np.linalg.matrix_power(TRANSITIONS, power)
        np.testing.assert_allclose(estimated.value[step], exact, atol=0.1)  # 20 pairs of chains: by at most 0.063
    np.testing.assert_allclose(predicted.value.sum(axis=2), 1, atol=1e-9)


def test_states_keep_their_frames_and_transitions_are_counted(of_states: MarkovModel) -> None:
    for states, given in zip(of_states.states, CHAINS, strict=True):
        np.testing.assert_array_equal(states, given)  # already in the order of their populations
    expected = np.zeros((3, 3), int)
    for given in CHAINS:
        for before, now in itertools.pairwise(given):
            expected[before, now] += before != now
    np.testing.assert_array_equal(of_states.transitions, expected)
    assert of_states.connected_share == 1.0


def test_a_model_of_variables_finds_the_chain_behind_them(of_states: MarkovModel) -> None:
    random = np.random.default_rng(0)
    series = [np.stack([3.0 * one, one % 2], axis=1) + 0.3 * random.normal(size=(len(one), 2)) for one in CHAINS]
    model = estimate_markov_model(series, 2, INTERVAL_PS, SETTINGS)
    np.testing.assert_allclose(model.populations.value, of_states.populations.value, atol=0.02)
    np.testing.assert_allclose(model.timescales_ps.value, of_states.timescales_ps.value, rtol=0.1)
    for states, given in zip(model.states, CHAINS, strict=True):
        assert np.mean(states == given) > 0.97


def test_what_is_never_left_again_is_no_part_of_the_model() -> None:
    trapped = np.concatenate([CHAINS[0], np.full(200, 3)])
    model = estimate_markov_model([trapped, CHAINS[1]], 2, INTERVAL_PS, SETTINGS)
    assert set(model.states[0][:-200]) == {0, 1, 2}
    assert model.connected_share < 1
    assert set(model.states[0][-200:]) == {-1}


def test_parts_that_no_run_goes_to_and_back_are_counted_apart() -> None:
    """CHAINS in two sets of clusters, and a third set that is entered once: three parts."""
    apart = [CHAINS[0], np.concatenate([CHAINS[1] + 3, np.full(100, 6)])]
    model = estimate_markov_model(apart, 2, INTERVAL_PS, SETTINGS)
    total = len(apart[0]) + len(apart[1])
    counted = np.bincount(np.concatenate(model.parts))
    largest = max(len(CHAINS[0]), len(CHAINS[1]))
    assert counted.tolist() == [largest, total - largest - 100, 100]
    assert model.connected_share == pytest.approx(largest / total)
    for states, parts in zip(model.states, model.parts, strict=True):
        np.testing.assert_array_equal(states == -1, parts > 0)
    np.testing.assert_allclose(model.populations.value.sum(), 1)


def test_without_a_way_back_there_is_one_state_and_no_timescale() -> None:
    model = estimate_markov_model([np.repeat([0, 1], [60, 50])], 5, INTERVAL_PS, SETTINGS)
    assert model.num_states == 1 and model.populations.value == 1
    assert model.connected_share == pytest.approx(60 / 110)
    assert np.isnan(model.timescales_ps.value).all() and np.isnan(model.populations.low).all()
    assert model.visits == [0]


def test_intervals_are_of_samples_that_are_connected() -> None:
    """A state left a single step before the end: a twentieth of a count, of which many samples are nearly none."""
    chain = np.concatenate([np.random.default_rng(0).integers(0, 3, 500), np.full(200, 3), [0]])
    model = estimate_markov_model([chain], 20, INTERVAL_PS, replace(SETTINGS, num_states=2, samples=100))
    assert 20 < model.lost_samples < 80
    longest = LONGEST_IN_DATA * len(chain) * INTERVAL_PS
    assert np.nanmax(model.timescales_ps.high) < longest and model.passage_times_ps.high.max() < longest
    assert np.isfinite(model.passage_times_ps.high).all()


def test_passage_times_are_those_of_deeptime() -> None:
    flux = np.random.default_rng(0).random((6, 6))
    matrix = (flux + flux.T) / (flux + flux.T).sum(axis=1, keepdims=True)
    model, sets = MarkovStateModel(matrix, lagtime=3), [np.array([0, 1]), np.array([2, 3, 4]), np.array([5])]
    theirs = [[0.0 if one is other else model.mfpt(one, other) for other in sets] for one in sets]
    np.testing.assert_allclose(passage_times(model, sets), theirs, rtol=1e-12)
    closed = MarkovStateModel(np.eye(2), np.array([0.5, 0.5]))
    assert np.isinf(passage_times(closed, [np.array([0]), np.array([1])])[0, 1])


def test_a_model_is_repeated_by_its_seed_and_leaves_numpys_state() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (estimate_markov_model(CHAINS, 2, INTERVAL_PS, SETTINGS) for _ in range(2))
    np.testing.assert_array_equal(first.timescales_ps.high, second.timescales_ps.high)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_timescales_are_those_of_deeptime() -> None:
    posterior = sample_posterior(CHAINS, 3, 10)
    np.testing.assert_allclose(timescales(posterior.most_likely, 2), posterior.most_likely.timescales(), rtol=1e-7)
    assert np.isnan(timescales(posterior.most_likely, 4)[2:]).all()


def test_more_data_give_narrower_intervals() -> None:
    widths = []
    for frames in (1500, 15_000):
        found = estimate_markov_model([CHAINS[0][:frames]], 2, INTERVAL_PS, SETTINGS).populations
        widths.append(float((found.high - found.low).mean()))
    assert 2 < widths[0] / widths[1] < 5  # the square root of ten, about


def test_clusters_are_repeated_by_their_seed() -> None:
    series = np.random.default_rng(0).normal(size=(500, 2))
    (first,), (second,) = (discretise([series], 5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    centers = np.array([series[first == cluster].mean(axis=0) for cluster in range(5)])
    nearest = np.linalg.norm(series[:, None] - centers, axis=2).argmin(axis=1)
    assert np.mean(first == nearest) > 0.98  # deeptime stops when the centres move by less than 1e-5


def test_input_without_kinetics_is_refused() -> None:
    with pytest.raises(DataError, match="the lag is 500 frames, the longest trajectory has 500"):
        estimate_markov_model([CHAINS[0][:500]], 500, INTERVAL_PS, SETTINGS)
    with pytest.raises(DataError, match="10 frames for 20 clusters"):
        discretise([np.zeros((10, 2))], 20)
    with pytest.raises(DataError, match="NaN or infinity"):
        discretise([np.full((50, 2), np.nan)], 20)
    with pytest.raises(SpecError, match="confidence is 95"):
        MarkovSettings(confidence=95)
