"""Runs that nobody stops, to compare with, and the beginning of scripts that somebody does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_simulations import NUM_ATOMS, DistanceFeaturizer, argon_simulation

from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter
from openmm_gnn.reporters.embedding_store import EmbeddingStore

SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from small_simulations import *
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter
"""


def run_to(path: Path, step: int, worker: str | None = None, interval: int = 10) -> EmbeddingStore:
    """A run that nobody stops."""
    simulation = argon_simulation()
    with EmbeddingReporter(path, interval, DistanceFeaturizer(), worker=worker) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(step)
    return EmbeddingStore.open(path)


def assert_same_frames(store: EmbeddingStore, expected: EmbeddingStore) -> None:
    """Bit for bit, but for the wall clock: on the Reference platform a restored run is the uninterrupted one."""
    assert store.steps.tolist() == expected.steps.tolist()
    assert np.array_equal(store.times_ps, expected.times_ps)
    assert np.array_equal(store.embeddings, expected.embeddings)
    assert np.array_equal(store.coordinates, expected.coordinates)
    assert np.array_equal(store.boxes, expected.boxes)
    assert expected.meta["system"]["num_particles"] == NUM_ATOMS
