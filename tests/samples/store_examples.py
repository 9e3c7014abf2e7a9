"""Small stores for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.reporters.embedding_store import EmbeddingStore

TOKENS, WIDTH = 5, 8
DESCRIPTION: dict[str, Any] = {
    "encoder": {"name": "small", "hash": "a1", "spec": {"width": WIDTH, "metadata": {"data": "x"}}},
    "topology_hash": "t1",
    "selection": "all",
    "tokens": {"labels": [f"ALA{index + 1}" for index in range(TOKENS)]},
    "reduction": "sum",
    "dtype": "float32",
}


def embedding_of(step: int) -> np.ndarray:
    """Numbers that float16 holds exactly, different at each step."""
    return (np.arange(TOKENS * 4 * WIDTH).reshape(TOKENS, 4, WIDTH) + step % 1024).astype(np.float32)


def coordinates_of(step: int) -> np.ndarray:
    return np.full((TOKENS, 3), step / 4, np.float32)


def fill(store: EmbeddingStore, steps: range) -> None:
    for step in steps:
        store.append(step, step * 0.002, np.eye(3) * 2, embedding_of(step), coordinates_of(step))


def new_store(path: Path, steps: range = range(0), dtype: str = "float16") -> EmbeddingStore:
    """Writable; steps appended."""
    store = EmbeddingStore.create(path, DESCRIPTION, TOKENS, WIDTH, dtype)
    fill(store, steps)
    return store


def assert_whole(records: np.ndarray) -> None:
    """Every number of every record is the one of its step."""
    for record in records:
        step = int(record["step"])
        assert np.array_equal(record["embedding"], embedding_of(step))
        assert np.array_equal(record["coordinates"], coordinates_of(step))
        assert record["time"] == step * 0.002
