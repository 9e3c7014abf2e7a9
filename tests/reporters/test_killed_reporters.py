"""Stores of processes that are killed at any moment, again and again, beside a run that nobody stops."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from killed_processes import KilledCalls
from small_simulations import DistanceFeaturizer, argon_simulation, save_checkpoint
from whole_runs import assert_same_frames, run_to

from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter
from openmm_gnn.reporters.embedding_store import EmbeddingStore

ENDLESS = 1_000_000


def simulate(path: Path, worker: str, rounds: int) -> None:
    """The script of somebody who saves a checkpoint after every ten steps."""
    simulation, checkpoint = argon_simulation(), path.with_suffix(".checkpoint")
    if checkpoint.exists():
        simulation.loadCheckpoint(str(checkpoint))
    replace = not checkpoint.exists()  # killed before the first
    featurizer = DistanceFeaturizer(seconds=0.0005)
    reporter = EmbeddingReporter(path, 3, featurizer, append=True, worker=worker, replace=replace)
    simulation.reporters.append(reporter)
    with reporter:
        for _ in range(rounds):
            simulation.step(10)
            save_checkpoint(simulation, checkpoint)


def kill_again_and_again(tmp_path: Path, kills: int, worker: str) -> None:
    """One kill of four falls anywhere after the start of the process, the others after a new checkpoint."""
    path, rng = tmp_path / "run", random.Random(kills)
    checkpoint = path.with_suffix(".checkpoint")
    with KilledCalls(simulate, path, worker, ENDLESS) as calls:
        for kill in range(kills):
            delay = rng.uniform(0, 0.12) if kill % 4 else rng.uniform(0, 0.5)
            calls.kill_one(delay, checkpoint if kill % 4 else None)
            if not (path / "meta.json").exists():
                continue
            store = EmbeddingStore.open(path)
            assert len(store.verify()) == 0
            assert store.steps.tolist() == list(range(3, 3 * len(store) + 1, 3))
            live = np.load(path / "frames.npy", mmap_mode="r") if len(store) else []
            assert len(live) == len(store)
    simulation = argon_simulation()
    simulation.loadCheckpoint(str(checkpoint))
    reached = simulation.currentStep
    assert reached >= 10 * (kills - kills // 4 - 1)
    simulate(path, worker, 3)
    store = EmbeddingStore.open(path)
    assert store.is_closed
    assert len(store.verify()) == 0
    assert_same_frames(store, run_to(tmp_path / "whole", reached + 30, interval=3))


def test_killed_runs_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 4, "thread")


@pytest.mark.slow
def test_runs_killed_often_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    """A fault in a tenth of the moments is met by one of 24 kills in 23 of 25 runs of this."""
    kill_again_and_again(tmp_path, 24, "thread")


@pytest.mark.slow
def test_killed_runs_with_a_process_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 8, "process")
