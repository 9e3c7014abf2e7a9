"""The growing .npy file: numpy itself is the judge of what can be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import GrowingArray, intact, read_growing_array, record_dtype

FIELDS = [("step", "<i8"), ("half", "<f2", (3,)), ("positions", "<f8", (5, 3))]
"""The three float16 leave padding before the float64, which checksums must not stumble over."""


def records_of(writer: GrowingArray, steps: np.ndarray | range) -> np.ndarray:
    records = writer.empty_records(len(steps))
    records["step"] = steps
    records["half"] = np.asarray(steps)[:, None] % 7
    records["positions"] = np.asarray(steps)[:, None, None] * np.pi
    return records


def test_numpy_reads_every_record_after_each_append(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS) as writer:
        assert len(np.load(path)) == 0
        for start in range(0, 30, 3):
            writer.append(records_of(writer, range(start, start + 3)))
            read = np.load(path, mmap_mode="r")
            assert read["step"].tolist() == list(range(start + 3))
            assert np.array_equal(read["positions"][:, 4, 2], np.arange(start + 3) * np.pi)
            assert intact(read).all()
    assert path.read_bytes()[:8] == b"\x93NUMPY\x01\x00"
    assert path.stat().st_size == 512 + 30 * record_dtype(FIELDS).itemsize


def test_an_array_grows_on_where_it_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    for start in (0, 4):
        with GrowingArray.open(path, FIELDS) as writer:
            assert len(writer) == start
            writer.append(records_of(writer, range(start, start + 4)), durable=True)
    assert read_growing_array(path, verify=True)["step"].tolist() == list(range(8))


def test_truncated_records_are_gone_and_overwritten_while_old_maps_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(10)))
        old = np.load(path, mmap_mode="r")
        writer.truncate(4)
        assert read_growing_array(path)["step"].tolist() == [0, 1, 2, 3]
        assert old["step"][9] == 9  # a shrunk file would end this process with SIGBUS
        writer.append(records_of(writer, range(100, 103)))
        assert read_growing_array(path, verify=True)["step"].tolist() == [0, 1, 2, 3, 100, 101, 102]
        with pytest.raises(DataError, match=r"cannot truncate .* to 8 records: it has 7"):
            writer.truncate(8)


@settings(max_examples=40, deadline=None)
@given(commands=st.lists(st.tuples(st.sampled_from(["append", "truncate", "reopen"]), st.integers(0, 12)), max_size=12))
def test_any_order_of_append_truncate_and_reopen_equals_a_list(
    commands: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "frames.npy"
    writer, expected, next_step = GrowingArray.open(path, FIELDS), [], 0
    for command, number in commands:
        if command == "append":
            steps = range(next_step, next_step + number)
            writer.append(records_of(writer, steps))
            expected, next_step = [*expected, *steps], next_step + number
        elif command == "truncate":
            expected = expected[: min(number, len(expected))]
            writer.truncate(len(expected))
        else:
            writer.close()
            writer = GrowingArray.open(path, FIELDS)
        assert np.load(path)["step"].tolist() == expected
    writer.close()
    read_growing_array(path, verify=True)


def test_equal_records_are_equal_bytes(tmp_path: Path) -> None:
    contents = []
    for rubbish in (0x00, 0xFF):
        path = tmp_path / f"{rubbish}.npy"
        with GrowingArray.open(path, FIELDS) as writer:
            records = np.full(6 * writer.dtype.itemsize, rubbish, np.uint8).view(writer.dtype)  # also in the padding
            for name, values in (("step", np.arange(6)), ("half", 1.0), ("positions", 2.0)):
                records[name] = values
            writer.append(records[::2])
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_torn_tail_is_invisible_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(3)))
    with path.open("ab") as file:
        file.write(b"\xff" * 100)  # a record that was being written
    assert np.load(path)["step"].tolist() == [0, 1, 2]
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(3, 6)))
    assert read_growing_array(path, verify=True)["step"].tolist() == list(range(6))


def test_a_file_cut_below_its_count_is_refused_by_readers_and_mended_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(5)))
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(DataError, match="promises 5 records"):
        read_growing_array(path)
    with GrowingArray.open(path, FIELDS) as writer:
        assert len(writer) == 4
    assert read_growing_array(path, verify=True)["step"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("field", ["step", "half", "positions"])
def test_one_flipped_bit_is_found(tmp_path: Path, field: str) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(300)))
        offset = 512 + 270 * writer.dtype.itemsize + writer.dtype.fields[field][1]
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    assert np.flatnonzero(~intact(read_growing_array(path))).tolist() == [270]
    with pytest.raises(DataError, match=r"1 of 300 records .* the first is 270"):
        read_growing_array(path, verify=True)


def test_an_empty_file_of_a_writer_killed_at_once_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    path.touch()
    with pytest.raises(DataError, match="wrong or empty file"):
        read_growing_array(path)
    with GrowingArray.open(path, FIELDS) as writer:
        writer.append(records_of(writer, range(1)))
    assert len(np.load(path)) == 1


def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "frames.npy"
    with GrowingArray.open(path, FIELDS), pytest.raises(DataError, match="another process is writing"):
        GrowingArray.open(path, FIELDS, patience=0.1)
    GrowingArray.open(path, FIELDS, patience=0.1).close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not numpy at all" * 64, "starts with b'not nump'"),
        (b"\x93NUMPY\x01\x00\xf6\x01" + b"{" * 502, "cannot be read"),
    ],
)
def test_foreign_files_are_refused_and_left_alone(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "frames.npy"
    path.write_bytes(content)
    for open_it in (read_growing_array, lambda path: GrowingArray.open(path, FIELDS)):
        with pytest.raises(DataError, match=message):
            open_it(path)
    assert path.read_bytes() == content


def test_plain_npy_files_other_fields_and_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.arange(1000))
    with pytest.raises(DataError, match="without checksums"):
        read_growing_array(tmp_path / "plain.npy")
    with pytest.raises(DataError, match="there is no file"):
        read_growing_array(tmp_path / "absent.npy")
    GrowingArray.open(tmp_path / "frames.npy", FIELDS).close()
    with pytest.raises(DataError, match="expected"):
        GrowingArray.open(tmp_path / "frames.npy", [("step", "<i8")])
    with pytest.raises(DataError, match="Python objects"):
        record_dtype([("anything", object)])
    with pytest.raises(DataError, match="'crc'"):
        record_dtype([("crc", "<u4")])


def test_records_of_another_type_are_not_appended(tmp_path: Path) -> None:
    with GrowingArray.open(tmp_path / "frames.npy", FIELDS) as writer:
        with pytest.raises(DataError, match="cannot be appended"):
            writer.append(np.zeros(3, [("step", "<i8")]))
        with pytest.raises(DataError, match="cannot be appended"):
            writer.append(writer.empty_records(4).reshape(2, 2))
        assert len(writer) == 0


def test_many_fields_get_a_longer_header(tmp_path: Path) -> None:
    fields = [(f"a_rather_long_name_{k}", "<f8") for k in range(40)]
    with GrowingArray.open(tmp_path / "frames.npy", fields) as writer:
        writer.append(writer.empty_records(3))
    assert np.load(tmp_path / "frames.npy").shape == (3,)


WRITER = """
import sys
from openmm_gnn.base.growing_array import GrowingArray
with GrowingArray.open(sys.argv[1], [("step", "<i8"), ("noise", "<f4", (4000,))]) as writer:
    while True:
        records = writer.empty_records(7)
        records["step"] = len(writer) + __import__("numpy").arange(7)
        records["noise"] = records["step"][:, None]
        writer.append(records)
"""


def test_a_file_is_whole_while_it_grows_and_after_kill_9(tmp_path: Path) -> None:
    path, random = tmp_path / "frames.npy", np.random.default_rng(1)
    counts = [0]
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(path)])
        try:
            deadline = time.monotonic() + 30
            while not path.exists() or path.stat().st_size < 512 or len(np.load(path, mmap_mode="r")) <= counts[-1]:
                assert time.monotonic() < deadline, "the writer wrote nothing"
                time.sleep(0.01)
            live = np.load(path, mmap_mode="r")
            assert np.array_equal(live["step"], np.arange(len(live)))
            time.sleep(random.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        after = read_growing_array(path, verify=True)
        assert np.array_equal(after["step"], np.arange(len(after)))
        assert np.array_equal(after["noise"][:, -1], np.arange(len(after)))
        counts.append(len(after))
    assert counts == sorted(set(counts))
