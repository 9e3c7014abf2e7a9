"""`openmm-gnn tail` on stores that grow, end, are abandoned and are damaged."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_lines import Result, invoke

from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.pending_frames import PendingFrame, PendingFrames
from openmm_gnn.reporters.store_follower import State, status_of

TOKENS, WIDTH = 3, 4


def new_store(path: Path) -> EmbeddingStore:
    return EmbeddingStore.create(path, {"encoder": {"hash": "x"}}, TOKENS, WIDTH, "float32")


def fill(store: EmbeddingStore, steps: range, seconds: float = 0.5) -> None:
    """A frame of 2 ps every `seconds`, the last one now."""
    now, random = time.time(), np.random.default_rng(1)
    for step in steps:
        wall = now - seconds * (steps[-1] - step)
        embedding = random.normal(size=(TOKENS, 4, WIDTH))
        store.append(step, 2.0 * step, None, embedding, np.zeros((TOKENS, 3)), wall)


def tail(*arguments: str) -> Result:
    return invoke(["tail", *arguments], env={"COLUMNS": "160"})


def test_a_running_store_shows_frames_rate_and_lag(tmp_path: Path) -> None:
    with new_store(tmp_path) as store:
        fill(store, range(1, 2501))
        ring = PendingFrames(tmp_path, 2, 5)
        for step in (2500, 2501, 2502):
            ring.put(PendingFrame(step, 0.0, 0.0, np.zeros((2, 3)), None))
        status = status_of(EmbeddingStore.open(tmp_path), check=30)
        assert (status.state, status.num_frames, status.last_step) == (State.WRITING, 2500, 2500)
        assert status.num_waiting == 2
        assert status.frames_per_second == pytest.approx(2.0)
        assert status.ns_per_day == pytest.approx(2 * 2e-3 * 86400)
        assert status.age_seconds < 20
        assert (status.num_checked, status.healthy) == (30, True)
        result = tail(str(tmp_path))
    assert result.exit_code == 0, result.output
    for words in ("writing", "2,500", "5.000 ns", "346", "100 frames checked"):
        assert words in result.output


def test_closed_and_abandoned_stores_are_told_apart(tmp_path: Path) -> None:
    for name in ("done", "killed"):
        store = new_store(tmp_path / name)
        fill(store, range(1, 4))
        store.close() if name == "done" else None
        del store  # as by a kill: the lock is gone, nothing was said
    result = tail(str(tmp_path))
    assert result.exit_code == 0
    lines = {line.split()[1]: line for line in result.output.splitlines() if line.count("│") > 3}
    assert "closed" in lines["done"] and "stopped" in lines["killed"]


@pytest.mark.parametrize(("what", "words"), [("bit", "frames 7 fail their checksum"), ("nan", "frames 7 have a NaN")])
def test_damage_is_named_and_an_exit_code(tmp_path: Path, what: str, words: str) -> None:
    from openmm_gnn.base.growing_array import GrowingArray

    with new_store(tmp_path) as store:
        fill(store, range(10))
        descr = store.records.dtype
    if what == "bit":
        content = bytearray((tmp_path / "frames.npy").read_bytes())
        content[-3 * descr.itemsize + descr.fields["embedding"][1]] ^= 1
        (tmp_path / "frames.npy").write_bytes(content)
    else:
        fields = [(name, descr[name]) for name in descr.names[:-1]]
        with GrowingArray.open(tmp_path / "frames.npy", fields) as frames:
            bad = np.array(store.records[7:8])
            bad["embedding"][0, 1, 2, 3] = np.nan
            frames.replace(7, bad)
    result = tail(str(tmp_path))
    assert result.exit_code == 1
    assert words in result.output
    assert tail(str(tmp_path), "--check", "2").exit_code == 0


def test_following_ends_with_the_writer_and_scores_on_the_way(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run" / "features")
    fill(store, range(1, 100))

    def write() -> None:
        for start in range(100, 400, 60):
            time.sleep(0.1)
            fill(store, range(start, start + 60))
        store.close()

    writer = threading.Thread(target=write)
    writer.start()
    options = ["--follow", "--refresh", "0.05", "--lag", "4", "--plot", str(tmp_path / "score.png")]
    result = tail(str(tmp_path / "run"), *options)
    writer.join()
    assert result.exit_code == 0, result.output
    assert "closed" in result.output and "399" in result.output and "VAMP-2" in result.output
    assert (tmp_path / "score.png").stat().st_size > 10_000


def test_following_a_killed_writer_ends_at_the_timeout(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    fill(store, range(1, 4))
    del store
    result = tail(str(tmp_path), "--follow", "--refresh", "0.05", "--timeout", "0.2")
    assert result.exit_code == 0
    assert "stopped" in result.output


def test_a_folder_of_runs_is_seen_as_a_whole(tmp_path: Path) -> None:
    for number in (10, 2):
        with new_store(tmp_path / f"seed-{number}" / "features") as store:
            fill(store, range(number))
        (tmp_path / f"seed-{number}" / "bias").mkdir()
    seen = tail(str(tmp_path), "--json")
    stores = json.loads(seen.stdout)["stores"]
    assert [(name, status["num_frames"]) for name, status in stores.items()] == [
        ("seed-2/features", 2),
        ("seed-10/features", 10),
    ]


def test_a_directory_without_a_store_is_an_error(tmp_path: Path) -> None:
    result = tail(str(tmp_path))
    assert "holds no embedding store" in str(result.exception)
    assert tail(str(tmp_path), "--plot", "x.png").exit_code == 2
