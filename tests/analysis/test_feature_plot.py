"""The figure of stored features: its numbers by hand, and a figure that is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openmm_gnn.analysis.demo import save_movement, scalar_movement
from openmm_gnn.base.errors import DataError
from openmm_gnn.reporters.embedding_store import EmbeddingStore

TOKENS, WIDTH = 2, 3


def stored(path: Path, num_frames: int) -> EmbeddingStore:
    """Scalars of token 0 stay; those of token 1 go from (2, 0, 0) to (2, f, 0). Vectors turn all the time."""
    description = {"tokens": {"labels": ["A:ALA1", "A:GLY2"]}}
    with EmbeddingStore.create(path, description, TOKENS, WIDTH, dtype="float32") as store:
        for frame in range(num_frames):
            embedding = np.full((TOKENS, 4, WIDTH), float(frame), dtype=np.float32)
            embedding[0, 0] = (1.0, 2.0, 2.0)
            embedding[1, 0] = (2.0, frame, 0.0)
            store.append(10 * frame, 0.5 * frame, None, embedding, np.zeros((TOKENS, 3), dtype=np.float32))
    return EmbeddingStore.open(path)


def test_the_movement_is_that_of_the_scalars(tmp_path: Path) -> None:
    movement = scalar_movement(stored(tmp_path / "store", 4))
    np.testing.assert_allclose(movement, [[0, 0], [0, 0.5], [0, 1.0], [0, 1.5]])


def test_a_panel_per_store_is_drawn(tmp_path: Path) -> None:
    stores = {"first": stored(tmp_path / "first", 3), "second": stored(tmp_path / "second", 5)}
    figure = save_movement(stores, tmp_path / "movement.png")
    assert figure.stat().st_size > 10_000


def test_one_frame_has_no_movement(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 frames: a movement needs two or more"):
        scalar_movement(stored(tmp_path / "store", 1))
