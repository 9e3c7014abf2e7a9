"""Running VAMP-2 scores against deeptime on the whole trajectory at once, and on a process whose score is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deeptime.covariance import Covariance
from deeptime.decomposition import VAMP

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.live_vamp import LiveVamp, StoreScores, save_scores
from openmm_gnn.reporters.embedding_store import EmbeddingStore

TOKENS, WIDTH = 2, 3


def slow_process(frames: int, decay: tuple[float, ...] = (0.99, 0.9), seed: int = 1) -> np.ndarray:
    """Independent Ornstein-Uhlenbeck coordinates of unit variance: their singular values at lag n are decay ** n."""
    random, rate = np.random.default_rng(seed), np.array(decay)
    series = np.empty((frames, len(decay)))
    series[0] = random.normal(size=len(decay))
    for frame in range(1, frames):
        series[frame] = rate * series[frame - 1] + np.sqrt(1 - rate**2) * random.normal(size=len(decay))
    return series


@pytest.mark.parametrize("chunks", [[1] * 60, [7, 1, 300, 2, 90], [100] * 4])
def test_any_portions_give_the_score_of_the_whole(chunks: list[int]) -> None:
    series = slow_process(sum(chunks), (0.99, 0.9, 0.5)) @ np.random.default_rng(3).normal(size=(3, 5))
    vamp, start = LiveVamp(lag_frames=6), 0
    for length in chunks:
        vamp.update(series[start : start + length])
        start += length
    whole = VAMP(lagtime=6).fit_from_timeseries(series).fetch_model()
    assert vamp.score() == pytest.approx(whole.score(2), rel=1e-9)


def test_the_validated_score_is_that_of_deeptime_on_the_two_halves() -> None:
    series, lag = slow_process(1000), 3
    vamp = LiveVamp(lag)
    for start in range(0, 1000, 77):
        vamp.update(series[start : start + 77])
    x, y = series[:-lag], series[lag:]
    half = np.arange(len(x)) // (10 * lag) % 2 == 1
    models = []
    for chosen in (half, ~half):
        covariance = Covariance(
            lag, compute_c0t=True, compute_ctt=True, remove_data_mean=True, bessels_correction=False
        )
        models.append(VAMP(lag).fit_from_covariances(covariance.partial_fit((x[chosen], y[chosen]))).fetch_model())
    expected = (models[0].score(2, models[1]) + models[1].score(2, models[0])) / 2
    assert vamp.validated_score() == pytest.approx(expected, rel=1e-9)


def test_scores_come_near_the_exact_one_and_validation_ignores_noise() -> None:
    noise = np.random.default_rng(4).normal(size=(20_000, 30))
    vamp = LiveVamp(lag_frames=5, dim=2)
    vamp.update(np.hstack([slow_process(20_000), noise]))
    exact = 1 + 0.99**10 + 0.9**10
    assert vamp.score() == pytest.approx(exact, abs=0.08)
    assert vamp.validated_score() == pytest.approx(exact, abs=0.08)
    short = LiveVamp(lag_frames=1, dim=2)
    short.update(noise[:200])
    assert short.score() > 1.5 > 1.1 > short.validated_score()  # nothing is slow: 1 is right


def test_too_few_frames_have_no_score() -> None:
    vamp = LiveVamp(lag_frames=5)
    vamp.update(slow_process(5))
    assert np.isnan(vamp.score()) and np.isnan(vamp.validated_score())
    with pytest.raises(DataError, match=r"shape \(4, 3\) after 2"):
        vamp.update(np.zeros((4, 3)))
    with pytest.raises(SpecError, match="lag of 0 frames"):
        LiveVamp(0)
    still = LiveVamp(lag_frames=1)
    still.update(np.zeros((50, 3)))
    assert np.isnan(still.score())


def fill(path: Path, series: np.ndarray, steps: range) -> EmbeddingStore:
    """A store whose scalars are the series; 2 ps between frames."""
    description = {"encoder": {"hash": "x"}}
    new = not (path / "meta.json").exists()
    args = (path, description, TOKENS, WIDTH, "float32")
    store = EmbeddingStore.create(*args) if new else EmbeddingStore.append_to(path, description)
    with store:
        store.truncate_after(steps.start - 1)
        for step in steps:
            embedding = np.zeros((TOKENS, 4, WIDTH))
            embedding[:, 0, : series.shape[1]] = series[step]
            store.append(step, 2.0 * step, None, embedding, np.zeros((TOKENS, 3)))
    return EmbeddingStore.open(path)


def test_scores_along_a_growing_store_are_those_of_its_frames(tmp_path: Path) -> None:
    series = slow_process(400)
    store = fill(tmp_path, series, range(100))
    scores = StoreScores(store, lag_ps=8.0, every=40)
    assert [row.num_frames for row in scores.advance()] == [40, 80, 100]
    fill(tmp_path, series, range(100, 230))
    rows = scores.advance()
    assert [row.num_frames for row in rows] == [40, 80, 100, 140, 180, 220, 230]
    assert rows[-1].time_ps == 2.0 * 229
    whole = VAMP(lagtime=4).fit_from_timeseries(series[:230]).fetch_model().score(2)
    assert rows[-1].score == pytest.approx(whole, rel=1e-5)
    other = slow_process(400, seed=9)
    fill(tmp_path, other, range(150, 260))  # a restart: the frames from 150 on are others
    mixed = np.concatenate([series[:150], other[150:260]])
    rows = scores.advance()
    assert [row.num_frames for row in rows] == [40, 80, 120, 160, 200, 240, 260]
    whole = VAMP(lagtime=4).fit_from_timeseries(mixed).fetch_model().score(2)
    assert rows[-1].score == pytest.approx(whole, rel=1e-5)
    assert save_scores({"": rows}, tmp_path / "score.png").stat().st_size > 10_000
    with pytest.raises(SpecError, match="lag is 0 ps"):
        StoreScores(store, 0)


def test_a_store_without_times_has_no_score(tmp_path: Path) -> None:
    with EmbeddingStore.create(tmp_path, {"encoder": {"hash": "x"}}, TOKENS, WIDTH) as store:
        for step in range(3):
            store.append(step, np.nan, None, np.zeros((TOKENS, 4, WIDTH)), np.zeros((TOKENS, 3)))
    with pytest.raises(DataError, match="has no times"):
        StoreScores(store, lag_ps=1.0).advance()


def test_no_pair_goes_across_missing_frames(tmp_path: Path) -> None:
    series = slow_process(300)
    fill(tmp_path, series, range(120))
    store = fill(tmp_path, series, range(200, 300))
    (row, *_) = reversed(StoreScores(store, lag_ps=6.0, every=50).advance())
    separate = [series[:120], series[200:300]]
    expected = VAMP(lagtime=3).fit_from_timeseries(separate).fetch_model().score(2)
    assert row.score == pytest.approx(expected, rel=1e-5)
