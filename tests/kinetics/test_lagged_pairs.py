"""Pairs a lag apart: which there are, what they hold, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from slow_tokens import slow_trajectory, store_of

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics import token_trajectories
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs, split_by_time
from openmm_gnn.kinetics.token_trajectories import (
    TokenTrajectory,
    check_together,
    input_statistics,
    trajectory_of_arrays,
    trajectory_of_store,
)
from openmm_gnn.reporters.embedding_store import EmbeddingStore


def numbered(name: str, frames: int, first: int = 0) -> TokenTrajectory:
    """Tokens that tell which frame they are of, 1 ps apart."""
    tokens = np.zeros((frames, 1, 4, 1), np.float32)
    tokens[:, 0, 0, 0] = first + np.arange(frames)
    return trajectory_of_arrays(name, tokens, 1.0)


def pair_numbers(pairs: LaggedPairs) -> list[tuple[int, int]]:
    batch = pairs.batch(np.arange(len(pairs)))
    first, later = batch.ends(batch.tokens[:, 0, 0, 0].int())
    assert len(batch.tokens) == len(torch.unique(torch.cat([first, later])))
    return list(zip(first.tolist(), later.tolist(), strict=True))


def test_no_pair_goes_from_one_trajectory_to_another() -> None:
    pairs = LaggedPairs([numbered("a", 5), numbered("b", 4, first=100)], lag_ps=2.2)
    assert (pairs.lag_frames, pairs.lag_ps, len(pairs)) == (2, 2.0, 5)
    assert pair_numbers(pairs) == [(0, 2), (1, 3), (2, 4), (100, 102), (101, 103)]


def test_no_pair_goes_over_a_gap_in_time() -> None:
    whole = numbered("a", 8)
    times = whole.times_ps + np.where(np.arange(8) >= 5, 3.0, 0.0)
    pairs = LaggedPairs([replace(whole, times_ps=times)], lag_ps=2.0)
    assert pair_numbers(pairs) == [(0, 2), (1, 3), (2, 4), (5, 7)]


@pytest.mark.parametrize("preload", [0, 2**31])
def test_batches_are_the_frames_of_the_store_in_any_order(
    preload: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_trajectories, "PRELOAD_BYTES", preload)
    tokens = np.random.default_rng(0).normal(size=(40, 2, 4, 3))
    trajectories = [trajectory_of_store(store_of(tmp_path / name, tokens + shift, range(40))) for name, shift in
                    (("a", 0.0), ("b", 5.0))]  # fmt: skip
    pairs = LaggedPairs(trajectories, lag_ps=6.0)
    chosen = np.array([70, 3, 36, 37, 0])
    batch = pairs.batch(chosen)
    both = np.concatenate([tokens[:37], tokens[:37] + 5]), np.concatenate([tokens[3:], tokens[3:] + 5])
    for found, expected in zip(batch.ends(batch.tokens), both, strict=True):
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), expected[chosen].astype(np.float16).astype(np.float32))
    assert batch.ends(batch.coordinates)[1][1, 0, 0] == pytest.approx(0.6)
    assert batch.weights is None
    np.testing.assert_array_equal(pairs.first_frames(chosen)[0], batch.ends(batch.tokens)[0])


def test_a_restarted_store_keeps_its_gap(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).normal(size=(20, 2, 4, 3))
    store_of(tmp_path, tokens[:12], range(12))
    trajectory = trajectory_of_store(store_of(tmp_path, tokens[12:], range(15, 23)))
    assert LaggedPairs([trajectory], 4.0).starts.tolist() == [*range(10), *range(12, 18)]


def test_weights_are_those_of_the_published_code(geom2vec_data: Path) -> None:
    stored = np.load(geom2vec_data / "vamp_example.npz")
    log_weights = stored["bias_log_weights"]
    pairs = LaggedPairs([replace(numbered("a", len(log_weights)), log_weights=log_weights)], lag_ps=5.0)
    batch = pairs.batch(np.arange(len(pairs)))
    np.testing.assert_allclose(batch.weights, stored["bias_w_t_expected"][:-5], rtol=1e-6)


def test_the_heaviest_frame_of_all_trajectories_has_the_weight_1() -> None:
    first, second = numbered("a", 6), numbered("b", 6)
    shifted = [replace(first, log_weights=np.full(6, 800.0)), replace(second, log_weights=np.full(6, 801.0))]
    weights = LaggedPairs(shifted, 1.0).batch(np.arange(10)).weights
    np.testing.assert_allclose(weights, [np.exp(-1)] * 5 + [1.0] * 5, rtol=1e-6)
    with pytest.raises(DataError, match="b has no log weights, others have: give zeros"):
        LaggedPairs([shifted[0], second], 1.0)


def test_parts_of_a_split_in_time_are_a_lag_apart() -> None:
    training, validation = split_by_time([numbered("a", 100)], lag_ps=3.0, validation_share=0.3, num_blocks=2)
    spans = [(one.tokens[0, 0, 0, 0], one.tokens[-1, 0, 0, 0]) for one in (*training, *validation)]
    assert spans == [(0, 34), (53, 84), (38, 49), (88, 99)]
    assert training[1].times_ps[0] == 53.0
    with pytest.raises(DataError, match=r"a: a part from frame .* is too short for a lag of 20"):
        split_by_time([numbered("a", 100)], lag_ps=20.0, validation_share=0.3)
    with pytest.raises(SpecError, match="share of 1.5"):
        split_by_time([numbered("a", 100)], 1.0, validation_share=1.5)


def test_a_trajectory_shorter_than_the_lag_is_named() -> None:
    with pytest.raises(DataError, match="short has 4 frames without a gap, the lag is 4 frames: give a shorter lag"):
        LaggedPairs([numbered("long", 30), numbered("short", 4)], lag_ps=4.0)
    with pytest.raises(SpecError, match="the lag is 0 ps"):
        LaggedPairs([numbered("long", 30)], lag_ps=0)
    with pytest.raises(DataError, match="single has fewer than two frames"):
        LaggedPairs([numbered("single", 1)], lag_ps=1.0)


def test_a_frame_that_is_not_finite_is_named() -> None:
    tokens = slow_trajectory(50, 0).tokens.copy()
    tokens[31, 1, 2, 0] = np.nan
    with pytest.raises(DataError, match="bad: frame 31 at 62 ps has NaN or infinity: cut the trajectory before it"):
        trajectory_of_arrays("bad", tokens, 2.0)


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.random.default_rng(0).normal(size=(9, 2, 4, 3)), range(9))
    records = store.records
    place = records.offset + 4 * records.dtype.itemsize + records.dtype.fields["embedding"][1]
    del records
    with open(tmp_path / "frames.npy", "r+b") as file:
        file.seek(place)
        file.write(b"\x01\x02")
    with pytest.raises(DataError, match=r"1 of 9 frames fail their checksum, the first is frame 4 of step 4"):
        trajectory_of_store(EmbeddingStore.open(tmp_path))


def test_features_that_never_change_are_named() -> None:
    with pytest.raises(DataError, match="still: the features are the same in all 30 frames"):
        trajectory_of_arrays("still", np.ones((30, 1, 4, 2), np.float32), 1.0)


def test_stores_of_another_encoder_or_interval_are_named(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).normal(size=(9, 2, 4, 3))
    first = trajectory_of_store(store_of(tmp_path / "first", tokens, range(9)))
    same = trajectory_of_store(store_of(tmp_path / "same", tokens, range(9), dtype="float32"))
    check_together([first, same])
    other = trajectory_of_store(store_of(tmp_path / "other", tokens, range(9), encoder="y"))
    with pytest.raises(DataError, match=r"other and .*first have features of different origin \(encoder.hash\)"):
        check_together([first, other])
    rare = trajectory_of_store(store_of(tmp_path / "rare", tokens, range(0, 27, 3)))
    with pytest.raises(DataError, match=r"rare has a frame every 6 ps, .*first every 2 ps: featurize both"):
        check_together([first, rare])
    wide = trajectory_of_store(store_of(tmp_path / "wide", np.ones((2, 3, 4, 3)) * [[[[1]]], [[[2]]]], range(2)))
    with pytest.raises(DataError, match=r"tokens of shape \(3, 4, 3\)"):
        check_together([first, wide])
    with pytest.raises(DataError, match="there are no trajectories"):
        check_together([])


def test_statistics_are_those_of_all_frames_and_rounding_is_no_motion() -> None:
    random = np.random.default_rng(0)
    tokens = random.normal(3.0, 2.0, size=(5000, 2, 4, 3)).astype(np.float16)
    tokens[:, 1, 0, 2] = np.float16(1000.0) + np.float16(0.5) * random.integers(0, 2, 5000)  # the last digit
    parts = [trajectory_of_arrays("a", tokens[:1700], 1.0), trajectory_of_arrays("b", tokens[1700:], 1.0)]
    found = input_statistics(parts)
    exact = tokens.astype(np.float64)
    np.testing.assert_allclose(found.scalar_mean, exact[:, :, 0].mean(axis=0), rtol=1e-12)
    expected = exact[:, :, 0].std(axis=0)
    expected[1, 2] = 0.0
    np.testing.assert_allclose(found.scalar_std, expected, rtol=1e-9)
    lengths = np.linalg.norm(exact[:, :, 1:], axis=2)
    np.testing.assert_allclose(found.vector_scale, np.sqrt((lengths**2).mean(axis=0)), rtol=1e-12)
