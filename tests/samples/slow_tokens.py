"""Token trajectories of processes whose slow variables are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, trajectory_of_arrays
from openmm_gnn.reporters.embedding_store import EmbeddingStore

RATES = np.array([0.98, 0.8])
"""Of the hidden coordinates: at a lag of n frames their singular values are rate ** n."""


def hidden_series(frames: int, seed: int, rates: np.ndarray = RATES) -> np.ndarray:
    """(frames, 2) independent Ornstein-Uhlenbeck coordinates of unit variance."""
    random = np.random.default_rng(seed)
    series = np.empty((frames, 2))
    series[0] = random.normal(size=2)
    for frame in range(1, frames):
        series[frame] = rates * series[frame - 1] + np.sqrt(1 - rates**2) * random.normal(size=2)
    return series


def switching_series(frames: int, seed: int, rate: float = 0.01) -> np.ndarray:
    """(frames,) 0 or 1: a Markov chain that leaves either state with this probability per frame."""
    leaves = np.random.default_rng(seed).random(frames) < rate
    return np.cumsum(leaves) % 2


def tokens_of(series: np.ndarray, seed: int = 7, width: int = 4) -> np.ndarray:
    """(frames, 2, 4, width): scalars are a fixed mixture of the series and noise, vectors turn at random."""
    mixture = np.random.default_rng(seed)
    frames, count = len(series), series.shape[1]
    tokens = np.empty((frames, 2, 4, width), np.float32)
    noise = np.random.default_rng(seed + frames).normal(size=(frames, 2, 4, width))
    tokens[:, :, 0] = np.einsum("fc,ctw->ftw", series, mixture.normal(size=(count, 2, width))) + 0.1 * noise[:, :, 0]
    tokens[:, :, 1:] = noise[:, :, 1:]
    return tokens


def slow_trajectory(frames: int, seed: int, interval_ps: float = 2.0, rates: np.ndarray = RATES) -> TokenTrajectory:
    """Tokens of `hidden_series`."""
    return trajectory_of_arrays(f"trajectory {seed}", tokens_of(hidden_series(frames, seed, rates)), interval_ps)


def store_of(
    path: Path, tokens: np.ndarray, steps: range, encoder: str = "x", dtype: str = "float16"
) -> EmbeddingStore:
    """A store with these tokens, 2 ps per step; steps may go on after a gap."""
    description = {"encoder": {"hash": encoder, "name": path.name}, "selection": None}
    if (path / "meta.json").exists():
        store = EmbeddingStore.append_to(path, description)
    else:
        store = EmbeddingStore.create(path, description, tokens.shape[1], tokens.shape[3], dtype)
    with store:
        for step, frame in zip(steps, tokens, strict=True):
            store.append(step, 2.0 * step, None, frame, np.full((tokens.shape[1], 3), 0.1 * step))
    return EmbeddingStore.open(path)
