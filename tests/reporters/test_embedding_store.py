"""The embedding store: plain numpy, its checksums, kill -9 and a full disk are the judges."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_examples import (
    DESCRIPTION,
    TOKENS,
    WIDTH,
    assert_whole,
    coordinates_of,
    embedding_of,
    fill,
    new_store,
)

from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_follower import StoredFrame


def test_plain_numpy_reads_the_store_after_each_frame(tmp_path: Path) -> None:
    with new_store(tmp_path / "store") as store:
        for step in range(10, 60, 10):
            fill(store, range(step, step + 1))
            live = np.load(tmp_path / "store" / "frames.npy", mmap_mode="r")
            assert live["step"].tolist() == list(range(10, step + 1, 10))
            assert_whole(live)
            assert len(store) == len(live)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_appended_is_read_back_exactly(tmp_path: Path, dtype: str) -> None:
    new_store(tmp_path, range(3, 9), dtype).close()
    store = EmbeddingStore.open(tmp_path)
    assert store.steps.tolist() == list(range(3, 9))
    assert store.times_ps == pytest.approx(np.arange(3, 9) * 0.002, abs=0)
    assert store.embeddings.shape == (6, TOKENS, 4, WIDTH)
    assert store.embeddings.dtype == np.dtype(dtype)
    assert np.array_equal(store.embeddings[2], embedding_of(5))
    assert np.array_equal(store.coordinates[2], coordinates_of(5))
    assert np.array_equal(store.boxes[0], np.eye(3) * 2)
    assert isinstance(store.embeddings.base, np.memmap)
    assert len(store.verify()) == 0


def test_rounding_to_float16_is_within_half_a_unit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(scale=30, size=(TOKENS, 4, WIDTH))
    with EmbeddingStore.create(tmp_path, DESCRIPTION, TOKENS, WIDTH) as store:
        store.append(1, 0.0, None, values, np.zeros((TOKENS, 3)))
        assert store.embeddings[0] == pytest.approx(values, rel=2**-11, abs=2**-25)
        assert np.array_equal(store.boxes[0], np.zeros((3, 3)))


def test_meta_names_units_versions_and_source(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["description"] == DESCRIPTION
    assert meta["units"]["coordinates"] == "nm"
    assert meta["versions"]["numpy"] == np.__version__
    assert (meta["num_tokens"], meta["width"], meta["dtype"]) == (TOKENS, WIDTH, "float16")


def test_a_flipped_bit_is_found_in_its_frame(tmp_path: Path) -> None:
    new_store(tmp_path, range(20)).close()
    store = EmbeddingStore.open(tmp_path)
    content = bytearray((tmp_path / "frames.npy").read_bytes())
    record = store.records.dtype
    content[-20 * record.itemsize + 13 * record.itemsize + record.fields["embedding"][1]] ^= 4
    (tmp_path / "frames.npy").write_bytes(content)
    assert store.verify().tolist() == [13]


def test_truncated_frames_are_gone_and_steps_go_on(tmp_path: Path) -> None:
    with new_store(tmp_path, range(10)) as store:
        with pytest.raises(DataError, match="step 9 after that of step 9"):
            fill(store, range(9, 10))
        assert store.truncate_after(6) == 3
        assert store.truncate_after(100) == 0
        assert store.last_step == 6
        fill(store, range(8, 11))
        assert store.steps.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
        assert store.truncate_after(-1) == 10
        assert store.last_step is None


def test_appending_goes_on_only_with_the_same_model_and_topology(tmp_path: Path) -> None:
    new_store(tmp_path, range(3)).close()
    moved = {**DESCRIPTION, "encoder": {**DESCRIPTION["encoder"], "name": "elsewhere/small"}}
    with EmbeddingStore.append_to(tmp_path, moved) as store:
        fill(store, range(3, 5))
    other = {**DESCRIPTION, "encoder": {"name": "large", "hash": "b2", "spec": {}}, "topology_hash": "t2"}
    with pytest.raises(
        DataError, match=r"encoder.hash: 'a1' stored, 'b2' given; encoder.name: 'small' stored, 'large'"
    ):
        EmbeddingStore.append_to(tmp_path, other)
    with pytest.raises(DataError, match=r"topology_hash: 't1' stored, 't2' given"):
        EmbeddingStore.append_to(tmp_path, {**DESCRIPTION, "topology_hash": "t2"})
    with pytest.raises(DataError, match=r"selection: 'all' stored, 'name CA' given"):
        EmbeddingStore.append_to(tmp_path, {**DESCRIPTION, "selection": "name CA"})
    assert EmbeddingStore.open(tmp_path).steps.tolist() == list(range(5))


def test_a_store_with_frames_is_not_overwritten_an_empty_one_is(tmp_path: Path) -> None:
    new_store(tmp_path).close()
    wider = {**DESCRIPTION, "tokens": {}}
    with EmbeddingStore.create(tmp_path, wider, TOKENS + 1, WIDTH) as store:
        store.append(1, 0.0, None, np.zeros((TOKENS + 1, 4, WIDTH)), np.zeros((TOKENS + 1, 3)))
    with pytest.raises(DataError, match="holds 1 frames already: append to it"):
        new_store(tmp_path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with new_store(tmp_path, range(2)), pytest.raises(DataError, match="another process is writing"):
        EmbeddingStore.append_to(tmp_path, DESCRIPTION, patience=0.1)


@pytest.mark.parametrize(
    ("value", "dtype", "error", "message"),
    [
        (70000.0, "float16", DataError, r"step 4: .* token 2 \(ALA3\) reaches 70000, float16 holds 65504: .*float32"),
        (np.nan, "float32", NonFiniteError, r"step 4: the embedding of token 2 \(ALA3\) is NaN or infinite, in 1 of 5"),
        (-np.inf, "float16", NonFiniteError, r"step 4: the embedding of token 2"),
    ],
)
def test_numbers_that_cannot_be_stored_are_an_error_and_leave_the_store_whole(
    tmp_path: Path, value: float, dtype: str, error: type[Exception], message: str
) -> None:
    with new_store(tmp_path, range(4), dtype) as store:
        bad = embedding_of(4)
        bad[2, 1, 3] = value
        with pytest.raises(error, match=message):
            store.append(4, 0.0, None, bad, coordinates_of(4))
        bad[2, 1, 3] = 65504.0
        store.append(4, 0.0, None, bad, coordinates_of(4))
        assert np.isfinite(store.embeddings).all()
        with pytest.raises(DataError, match=r"shape \(5, 4, 7\)"):
            store.append(5, 0.0, None, embedding_of(5)[..., 1:], coordinates_of(5))


def test_opening_what_is_no_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no meta.json"):
        EmbeddingStore.open(tmp_path)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(DataError, match="is of kind None, version None: expected 'embedding-store'"):
        EmbeddingStore.open(tmp_path)
    (tmp_path / "meta.json").write_text('{"kind": "embedding-store", "version": 9}')
    with pytest.raises(DataError, match="version 9"):
        EmbeddingStore.open(tmp_path)
    new_store(tmp_path / "store").close()
    with pytest.raises(DataError, match="open for reading only"):
        fill(EmbeddingStore.open(tmp_path / "store"), range(1))


def test_replicas_of_a_run_are_listed_in_natural_order(tmp_path: Path) -> None:
    for name in ("replica-10", "replica-2", "replica-1"):
        new_store(tmp_path / name, range(int(name.split("-")[1]))).close()
    (tmp_path / "notes").mkdir()
    stores = EmbeddingStore.replicas(tmp_path)
    assert {name: len(store) for name, store in stores.items()} == {"replica-1": 1, "replica-2": 2, "replica-10": 10}
    assert list(stores)[1] == "replica-2"
    assert list(EmbeddingStore.replicas(tmp_path / "replica-2")) == [""]


IMPORTS = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "samples")!r})
from pathlib import Path
from store_examples import DESCRIPTION, EmbeddingStore, fill, new_store
"""
WRITER = """
path = Path(sys.argv[1])
store = EmbeddingStore.append_to(path, DESCRIPTION) if (path / "meta.json").exists() else new_store(path)
store.truncate_after(int(sys.argv[3]))
start = -1 if store.last_step is None else store.last_step
print("ready", flush=True)
for step in range(start + 1, int(sys.argv[2])):
    fill(store, range(step, step + 1))
store.close()
"""


def writer(path: Path, until: int, keep: int = 10**9, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-c", IMPORTS + WRITER, str(path), str(until), str(keep)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_after(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_after_kill_9_every_complete_frame_is_there(tmp_path: Path) -> None:
    random, counts = np.random.default_rng(2), [0]
    for _ in range(3):
        killed_after(writer(tmp_path / "store", 10**9), random.uniform(0.02, 0.15))
        records = np.load(tmp_path / "store" / "frames.npy", mmap_mode="r")
        assert np.array_equal(records["step"], np.arange(len(records)))
        assert len(EmbeddingStore.open(tmp_path / "store").verify()) == 0
        assert_whole(records[counts[-1] :: 7])
        counts.append(len(records))
    assert counts == sorted(set(counts))
    store = EmbeddingStore.open(tmp_path / "store")
    assert not store.is_being_written
    assert not store.is_closed


def test_a_torn_tail_is_never_seen(tmp_path: Path) -> None:
    new_store(tmp_path, range(4)).close()
    with (tmp_path / "frames.npy").open("ab") as file:
        file.write(b"\xff" * 333)
    assert np.load(tmp_path / "frames.npy", mmap_mode="r")["step"].tolist() == [0, 1, 2, 3]
    with EmbeddingStore.append_to(tmp_path, DESCRIPTION) as store:
        fill(store, range(4, 6))
        assert len(store.verify()) == 0
        assert_whole(store.records)


def test_a_follower_sees_whole_frames_only_and_ends_when_the_writer_closes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    process = writer(path, 3000)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    frames = list(EmbeddingStore.open(path).follow(poll=0.001))
    assert process.wait() == 0
    assert [frame.step for frame in frames] == [frame.index for frame in frames] == list(range(3000))
    for frame in frames:
        assert_frame(frame)
    assert not any(frame.rewound for frame in frames)


def test_a_follower_goes_back_when_a_restart_cuts_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    new_store(path, range(20)).close()
    abandoned = EmbeddingStore.append_to(path, DESCRIPTION)  # not closed, as by a kill
    follower = EmbeddingStore.open(path).follow(poll=0.01, timeout=20)
    assert [next(follower).step for _ in range(20)] == list(range(20))
    del abandoned
    process = writer(path, 40, keep=11)
    with pytest.warns(UserWarning, match="was cut to 12 of 20 frames by a restart"):
        frames = list(follower)
    assert process.wait() == 0
    assert [frame.step for frame in frames] == list(range(12, 40))
    assert [frame.step for frame in frames if frame.rewound] == [12]
    for frame in frames:
        assert_frame(frame)


def test_a_follower_ends_at_its_timeout_when_the_writer_was_killed(tmp_path: Path) -> None:
    killed_after(writer(tmp_path / "store", 10**9), 0.05)
    start = time.monotonic()
    frames = [frame.step for frame in EmbeddingStore.open(tmp_path / "store").follow(poll=0.01, timeout=0.3)]
    assert frames == list(range(len(frames)))
    assert time.monotonic() - start < 20


def test_a_follower_names_a_damaged_frame(tmp_path: Path) -> None:
    new_store(tmp_path, range(5)).close()
    content = bytearray((tmp_path / "frames.npy").read_bytes())
    content[-300] ^= 1
    (tmp_path / "frames.npy").write_bytes(content)
    with pytest.raises(DataError, match="frame 4 of .* fails its checksum"):
        list(EmbeddingStore.open(tmp_path).follow(poll=0.01))


def assert_frame(frame: StoredFrame) -> None:
    assert np.array_equal(frame.embedding, embedding_of(frame.step))
    assert np.array_equal(frame.coordinates, coordinates_of(frame.step))


def assert_stopped_by_the_disk(path: Path, stderr: str, reason: str) -> None:
    assert f"DataError: {path / 'frames.npy'} takes no more ({reason}): what was written before is whole" in stderr
    store = EmbeddingStore.open(path)
    assert len(store) > 10
    assert np.array_equal(store.steps, np.arange(len(store)))
    assert len(store.verify()) == 0
    with EmbeddingStore.append_to(path, DESCRIPTION) as more:  # there is room again
        fill(more, range(len(more), len(more) + 3))
        assert len(more.verify()) == 0


def test_a_limit_on_the_size_of_files_is_an_error_in_words(tmp_path: Path) -> None:
    process = writer(tmp_path, 10**6, wrapper=("prlimit", "--fsize=100000"))
    assert process.wait() == 1
    assert_stopped_by_the_disk(tmp_path, process.communicate()[1], "File too large")


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="no user namespaces to mount a small disk in",
)
def test_a_full_disk_is_an_error_in_words(tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=100k none "$0" && "$@"; code=$?; cp -r "$0" "$COPY"; exit $code'
    environment = {**os.environ, "COPY": str(copy)}
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        str(disk),
        sys.executable,
        "-c",
        IMPORTS + WRITER,
        str(disk),
        "1000000",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "disk/frames.npy takes no more (No space left on device): what was written before is whole" in done.stderr
    assert_stopped_by_the_disk(copy, done.stderr.replace(str(disk), str(copy)), "No space left on device")


UNPRIVILEGED = """
if os.getuid() == 0:
    os.setuid(65534)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_place_that_may_not_be_written_is_named(open_folder: Path) -> None:
    store, locked = open_folder / "store", open_folder / "locked"
    new_store(store, range(3)).close()
    (store / "frames.npy").chmod(0o444)
    locked.mkdir(mode=0o555)
    for path, message in (
        (store, f"{store / 'frames.npy'} cannot be opened for writing (Permission denied)"),
        (locked / "new", f"{locked / 'new'} cannot be made (Permission denied)"),
    ):
        command = [sys.executable, "-c", IMPORTS + UNPRIVILEGED + WRITER, str(path), "10", "1000"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=open_folder)
        assert message in done.stderr
        assert done.returncode == 1
    assert EmbeddingStore.open(store).steps.tolist() == [0, 1, 2]
