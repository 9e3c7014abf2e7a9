"""Files replaced as a whole, locks, and file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import NO_LOCK_VARIABLE, locked, write_atomically, write_json
from openmm_gnn.base.growing_array import GrowingArray, is_being_written


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "numbers.npz"
    write_atomically(path, lambda file: np.savez(file, one=np.arange(3)))
    assert np.load(path)["one"].tolist() == [0, 1, 2]

    def broken(file: Any) -> None:
        file.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_atomically(path, broken)
    assert np.load(path)["one"].tolist() == [0, 1, 2]
    write_json(tmp_path / "settings.json", {"b": 1, "a": [2]}, sort_keys=True)
    assert (tmp_path / "settings.json").read_text() == '{"a": [2], "b": 1}\n'


def test_a_second_writer_is_refused_and_the_lock_ends_with_the_first(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DataError, match="another process is writing into"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_can_be_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    words = f"does not lock files .*{os.strerror(number)}.*{NO_LOCK_VARIABLE}=1"
    with pytest.raises(DataError, match=words), locked(tmp_path):
        pass
    with pytest.raises(DataError, match=words):
        GrowingArray.open(tmp_path / "array.npy", [("step", "<i8")])
    monkeypatch.setenv(NO_LOCK_VARIABLE, "1")
    with locked(tmp_path), GrowingArray.open(tmp_path / "array.npy", [("step", "<i8")]) as array:
        array.append(array.empty_records(2))
    monkeypatch.delenv(NO_LOCK_VARIABLE)
    assert not is_being_written(tmp_path / "array.npy")
