"""Stores of processes that are killed at any moment, again and again, beside a run that nobody stops."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_simulations import argon_simulation
from whole_runs import SCRIPT, assert_same_frames, run_to

from openmm_gnn.reporters.embedding_store import EmbeddingStore

KILLED = """
path = Path(sys.argv[1])
simulation = argon_simulation()
checkpoint = path.with_suffix(".checkpoint")
if checkpoint.exists():
    simulation.loadCheckpoint(str(checkpoint))
featurizer = DistanceFeaturizer(seconds=0.0005)
replace = not checkpoint.exists()  # killed before the first
reporter = EmbeddingReporter(path, 3, featurizer, append=True, worker=sys.argv[2], replace=replace)
simulation.reporters.append(reporter)
for _ in range(int(sys.argv[3])):
    simulation.step(10)
    save_checkpoint(simulation, checkpoint)
    print("ready", flush=True)
"""


def kill_again_and_again(tmp_path: Path, kills: int, worker: str) -> None:
    """One kill of four falls anywhere after the start of the process, the others after a new checkpoint."""
    script = SCRIPT + KILLED
    path, rng = tmp_path / "run", random.Random(kills)
    command = [sys.executable, "-W", "ignore", "-c", script, str(path), worker]
    reached = 0
    for kill in range(kills):
        process = subprocess.Popen([*command, "1000000"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            if kill % 4:
                assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0, 0.12) if kill % 4 else rng.uniform(0, 2.0))
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if not (path / "meta.json").exists():
            continue
        store = EmbeddingStore.open(path)
        assert len(store.verify()) == 0
        assert store.steps.tolist() == list(range(3, 3 * len(store) + 1, 3))
        live = np.load(path / "frames.npy", mmap_mode="r") if len(store) else []
        assert len(live) == len(store)
    simulation = argon_simulation()
    simulation.loadCheckpoint(str(path.with_suffix(".checkpoint")))
    reached = simulation.currentStep
    assert reached >= 10 * (kills - kills // 4 - 1)
    assert subprocess.run([*command, "3"], check=False).returncode == 0
    store = EmbeddingStore.open(path)
    assert store.is_closed
    assert len(store.verify()) == 0
    assert_same_frames(store, run_to(tmp_path / "whole", reached + 30, interval=3))


def test_killed_runs_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 4, "thread")


@pytest.mark.slow
def test_fifty_killed_runs_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 50, "thread")


@pytest.mark.slow
def test_killed_runs_with_a_process_have_the_frames_of_one_never_killed(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 8, "process")
