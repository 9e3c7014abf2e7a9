"""Following an embedding store from any process while it grows: whole frames only, and no restart goes unnoticed."""

from __future__ import annotations

import time
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import intact, is_being_written, read_growing_array
from openmm_gnn.reporters.store_meta import read_meta

_PATIENCE = 2.0
"""Seconds after which a record that fails its checksum is damaged, and not just being written over."""


@dataclass(frozen=True)
class StoredFrame:
    """One frame, copied out of the file."""

    index: int
    step: int
    time_ps: float
    wall: float
    """Seconds since 1970 at which the simulation was there."""
    box: np.ndarray
    """(3, 3) nm, rows a, b, c; zeros where there is none."""
    coordinates: np.ndarray
    """(tokens, 3) nm."""
    embedding: np.ndarray
    """(tokens, 4, H)."""
    rewound: bool = False
    """The simulation was restarted: this frame takes the place of the one given before under the same index, and
    those after it are void."""


def follow(path: Path | str, poll: float = 0.2, timeout: float | None = None) -> Iterator[StoredFrame]:
    """Every frame of a store in order, those to come too, until the writer has closed it.

    After a restart that cut the store, the iteration goes back to the first frame that changed, warns, and marks it
    `rewound`. A writer that was killed may come back: then only the timeout ends the waiting.

    Args:
        path: directory of the store.
        poll: seconds between two looks.
        timeout: end after so many seconds without a new frame; None: when the store is closed.
    Raises:
        DataError: if there is no store, or a frame is damaged.
    """
    path = Path(path)
    frames = path / "frames.npy"
    read_meta(path)
    given = array("I")  # the checksum of each frame given; wall clock times make it another one after a restart
    news = damaged_since = time.monotonic()
    rewound = False
    while True:
        closed = is_closed(path)  # asked first: frames written before it was closed are then seen below
        try:
            records = read_growing_array(frames)
        except DataError:  # not yet there, or being made anew
            records = np.empty(0, [("crc", "u4")])
        if not _agrees(given, records, len(given)):
            keep = _first_change(given, records)
            warnings.warn(f"{path} was cut to {keep} of {len(given)} frames by a restart: {_GOES_BACK}", stacklevel=2)
            del given[keep:]
            rewound = True
        damaged = False
        while len(given) < len(records) and _agrees(given, records, len(given)):
            record = np.array(records[len(given) : len(given) + 1])
            if not intact(record)[0]:
                damaged = True
                break
            given.append(int(record["crc"][0]))
            yield _frame(len(given) - 1, record[0], rewound)
            rewound, news = False, time.monotonic()
        if not damaged:
            damaged_since = time.monotonic()
        elif closed or time.monotonic() - damaged_since > _PATIENCE:
            raise DataError(f"frame {len(given)} of {path} fails its checksum: the file is damaged, copy it again")
        if not damaged and len(given) == len(records) and closed:
            return
        if timeout is not None and time.monotonic() - news > timeout:
            return
        time.sleep(poll)


def is_closed(path: Path) -> bool:
    """Whether the writer of a store has said that it is done, and none has taken its place."""
    frames = path / "frames.npy"
    return read_meta(path).get("state") == "closed" and frames.exists() and not is_being_written(frames)


_GOES_BACK = "the frames from there on are given again"


def _agrees(given: array[int], records: np.ndarray, count: int) -> bool:
    """Whether the first `count` frames are those that were given."""
    return count == 0 or (len(records) >= count and int(records["crc"][count - 1]) == given[count - 1])


def _first_change(given: array[int], records: np.ndarray) -> int:
    """How many frames at the start are still those that were given; what follows a change is changed too."""
    low, high = 0, min(len(given), len(records))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _agrees(given, records, middle) else (low, middle - 1)
    return low


def _frame(index: int, record: np.void, rewound: bool) -> StoredFrame:
    return StoredFrame(
        index,
        int(record["step"]),
        float(record["time"]),
        float(record["wall"]),
        record["box"],
        record["coordinates"],
        record["embedding"],
        rewound,
    )
