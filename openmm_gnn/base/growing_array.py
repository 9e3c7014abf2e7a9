"""A structured .npy file that grows: readable by `np.load(mmap_mode="r")` at any moment, also after kill -9.

The file is an ordinary .npy file of one-dimensional structured records with a reserved header. New records are
written behind the last one first, and only then is the header's record count raised by one small write. A process
that dies in between leaves bytes that no reader looks at, and that the next writer overwrites. The last field of
every record, `crc`, is a CRC-32 over the rest of the record.

One writer at a time: the file is locked (`flock`) for as long as it is open for writing, and the lock goes with
the process, however it ends. Nothing is pickled.
"""

from __future__ import annotations

import ast
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import take_lock

_MAGIC = b"\x93NUMPY\x01\x00"
_MIN_HEADER_BYTES = 512
_MAX_HEADER_BYTES = 8192
"""numpy refuses longer headers."""
_COUNT_DIGITS = 20
_CRC = "crc"


def record_dtype(fields: Sequence[tuple[Any, ...]]) -> np.dtype:
    """The dtype of a growing array with these fields and a checksum, aligned as a C struct.

    Args:
        fields: (name, type) or (name, type, shape) each, as for `np.dtype`; without `crc`.
    Raises:
        DataError: if a field holds Python objects or is called `crc`.
    """
    if any(field[0] == _CRC for field in fields):
        raise DataError("a field is called 'crc': the name is taken by the checksum, choose another")
    dtype = np.dtype([*fields, (_CRC, np.uint32)], align=True)
    if dtype.hasobject:
        raise DataError(f"the fields {[field[0] for field in fields]} hold Python objects: give numbers only")
    return dtype


def checksums(records: np.ndarray) -> np.ndarray:
    """CRC-32 of each record, its own `crc` and the padding between its fields taken as zero, (num_records,) uint32."""
    blank = _zero_padded(records)
    blank[_CRC] = 0
    return np.fromiter((zlib.crc32(row) for row in _rows(blank)), np.uint32, count=len(blank))


def intact(records: np.ndarray, chunk: int = 256) -> np.ndarray:
    """Which records agree with their checksum, (num_records,) bool. Reads `chunk` records at a time."""
    good = np.empty(len(records), bool)
    for start in range(0, len(records), chunk):
        part = records[start : start + chunk]
        good[start : start + chunk] = checksums(part) == part[_CRC]
    return good


def read_growing_array(path: str | Path, verify: bool = False) -> np.ndarray:
    """The records now in the file as a read-only memory map; the file may still be growing.

    Args:
        verify: read everything once and compare the checksums.
    Raises:
        DataError: if the file is no growing array, is shorter than its header says, or fails the checksums.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            dtype, header_bytes, count = _read_header(file.read(_MAX_HEADER_BYTES), path)
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"there is no file {path}: check the path") from None
    if size < header_bytes + count * dtype.itemsize:
        raise DataError(
            f"{path} has {size} bytes, its header promises {count} records of {dtype.itemsize} bytes: "
            "the file was cut short, copy it again"
        )
    if count == 0:
        return np.empty(0, dtype)
    records = np.memmap(path, dtype=dtype, mode="r", offset=header_bytes, shape=(count,))
    if verify and not (good := intact(records)).all():
        bad = np.flatnonzero(~good)
        raise DataError(f"{len(bad)} of {count} records of {path} are damaged, the first is {bad[0]}: copy it again")
    return records


class GrowingArray:
    """The one writer of a growing array.

    ```python
    with GrowingArray.open("frames.npy", [("step", "i8"), ("positions", "f8", (258, 3))]) as frames:
        frames.append(records)  # on disk for every reader when this returns
    ```
    """

    def __init__(self, path: Path, descriptor: int, dtype: np.dtype, header_bytes: int, count: int) -> None:
        """Use `GrowingArray.open`."""
        self.path = path
        self.dtype = dtype
        self._descriptor = descriptor
        self._header_bytes = header_bytes
        self._count = count
        # The count of the shape: numpy writes and reads the keys in this order.
        self._count_offset = _header(dtype, count).rindex(b"(") + 1

    @classmethod
    def open(
        cls, path: str | Path, fields: Sequence[tuple[Any, ...]], patience: float = 10.0, anew: bool = False
    ) -> GrowingArray:
        """Open a file for appending; it is made if it does not exist.

        Args:
            fields: the record's fields without `crc`, as for `record_dtype`.
            patience: seconds to wait for another writer to let go of the file.
            anew: forget what the file holds, and take these fields.
        Raises:
            DataError: if the file holds other fields, is damaged or may not be written, or another process keeps
                writing to it.
        """
        path = Path(path)
        dtype = record_dtype(fields)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataError(
                f"{path} cannot be opened for writing ({error.strerror}): mend its permissions, or choose another place"
            ) from error
        try:
            _lock(descriptor, path, patience)
            start = b"" if anew else os.pread(descriptor, _MAX_HEADER_BYTES, 0)
            if len(start) < _MIN_HEADER_BYTES:  # new, or its writer died before the first byte was safe
                header = _header(dtype, 0)
                _write(descriptor, header, 0, path)
                return cls(path, descriptor, dtype, len(header), 0)
            found, header_bytes, count = _read_header(start, path)
            if found != dtype:
                raise DataError(
                    f"{path} holds records of {found}, expected {dtype}: append with the fields it was made with, "
                    "or choose another file"
                )
            held = max(0, os.fstat(descriptor).st_size - header_bytes) // dtype.itemsize
            writer = cls(path, descriptor, dtype, header_bytes, count)
            if held < count:  # only after a crash of the whole machine
                writer.truncate(held)
            return writer
        except BaseException:
            os.close(descriptor)
            raise

    def __len__(self) -> int:
        return self._count

    def empty_records(self, count: int) -> np.ndarray:
        """Zeroed records to fill and append, (count,) of `dtype`."""
        return np.zeros(count, self.dtype)

    def append(self, records: np.ndarray, durable: bool = False) -> None:
        """Write records behind the last one, each with its checksum.

        Args:
            records: (num_records,) of `dtype`; their `crc` is not read.
            durable: wait until the disk has them, so that they survive a power cut too (a few ms).
        Raises:
            DataError: if they are of another type, or the disk does not take them; the file is then as it was.
        """
        self._put(self._count, records)
        if durable:
            self.sync()
        self._set_count(self._count + len(records))
        if durable:
            self.sync()

    def replace(self, index: int, records: np.ndarray) -> None:
        """Write over the records from number `index` on. A kill meanwhile leaves one that fails its checksum.

        Raises:
            DataError: if there are not that many, and as for `append`.
        """
        if not 0 <= index <= self._count - len(records):
            raise DataError(f"cannot replace records {index} to {index + len(records)} of {self.path}: {self._count}")
        self._put(index, records)

    def sync(self) -> None:
        """Wait until the disk has all that was appended, so that it survives a power cut."""
        os.fdatasync(self._descriptor)

    def truncate(self, count: int) -> None:
        """Forget all records from number `count` on.

        The bytes stay in the file until they are overwritten: shrinking it would kill every process that has them
        mapped (SIGBUS).
        """
        if not 0 <= count <= self._count:
            raise DataError(f"cannot truncate {self.path} to {count} records: it has {self._count}")
        self._set_count(count)

    def close(self) -> None:
        """Give up the file and its lock; closing twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()  # a forgotten writer must not keep the lock

    def __enter__(self) -> GrowingArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, index: int, records: np.ndarray) -> None:
        if records.dtype != self.dtype or records.ndim != 1:
            raise DataError(
                f"records of shape {records.shape} and type {records.dtype} cannot be appended to {self.path}: "
                f"give one-dimensional records of {self.dtype}"
            )
        written = _zero_padded(records)
        written[_CRC] = checksums(written)
        offset = self._header_bytes + index * self.dtype.itemsize
        _write(self._descriptor, _rows(written).tobytes(), offset, self.path)

    def _set_count(self, count: int) -> None:
        _write(self._descriptor, f"{count:>{_COUNT_DIGITS}}".encode(), self._count_offset, self.path)
        self._count = count


def _zero_padded(records: np.ndarray) -> np.ndarray:
    """A copy with zeros between the fields; numpy's own copies leave what was in memory there."""
    copy = np.zeros(len(records), records.dtype)
    for name in records.dtype.names or ():
        copy[name] = records[name]
    return copy


def _rows(records: np.ndarray) -> np.ndarray:
    """The bytes of contiguous records, (num_records, record size) uint8."""
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)


def _header(dtype: np.dtype, count: int) -> bytes:
    """The .npy header, format 1.0, with room for the count to grow."""
    text = (
        f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, "
        f"'shape': ({count:>{_COUNT_DIGITS}},), }}"
    ).encode("latin1")
    length = max(_MIN_HEADER_BYTES, -(-(len(_MAGIC) + 2 + len(text) + 1) // 64) * 64)
    if length > _MAX_HEADER_BYTES:
        raise DataError(
            f"the fields need a header of {length} bytes, numpy reads {_MAX_HEADER_BYTES}: use fewer fields"
        )
    body = text.ljust(length - len(_MAGIC) - 2 - 1) + b"\n"
    return _MAGIC + len(body).to_bytes(2, "little") + body


def _read_header(start: bytes, path: Path) -> tuple[np.dtype, int, int]:
    """dtype, header length in bytes and record count from the first bytes of a file."""
    if len(start) < _MIN_HEADER_BYTES or not start.startswith(_MAGIC):
        raise DataError(
            f"{path} starts with {start[:8]!r}, not with the header of a growing array: wrong or empty file"
        )
    header_bytes = len(_MAGIC) + 2 + int.from_bytes(start[8:10], "little")
    try:
        fields = ast.literal_eval(start[10:header_bytes].decode("latin1").strip())
        dtype = np.lib.format.descr_to_dtype(fields["descr"])
        (count,) = fields["shape"]
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the header of {path} cannot be read ({error}): the file is damaged, copy it again") from error
    if dtype.names is None or dtype.names[-1] != _CRC:
        raise DataError(f"{path} is a .npy file without checksums: not written by this package")
    return dtype, header_bytes, int(count)


def is_being_written(path: str | Path) -> bool:
    """Whether a process has the file open as a GrowingArray now; False where the file system has no locks to tell."""
    with open(path, "rb") as file:
        try:
            return not take_lock(file.fileno(), Path(path), shared=True)  # given back when the file is closed
        except DataError:
            return False


def _write(descriptor: int, data: bytes, offset: int, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        raise DataError(
            f"{path} takes no more ({error.strerror}): what was written before is whole and stays readable; "
            "make room and go on from there"
        ) from error


def _lock(descriptor: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not take_lock(descriptor, path):
        if time.monotonic() >= deadline:
            raise DataError(f"another process is writing to {path}: wait until it is done, or stop it")
        time.sleep(0.05)
