"""Follows an embedding store while it grows, from any process, and says how far, how fast and how healthy it is."""

from __future__ import annotations

import time
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import intact, is_being_written, read_growing_array
from openmm_gnn.reporters.pending_frames import num_waiting
from openmm_gnn.reporters.store_meta import read_meta

if TYPE_CHECKING:
    from openmm_gnn.reporters.embedding_store import EmbeddingStore

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
            cut = f"{path} was cut to {keep} of {len(given)} frames by a restart"
            warnings.warn(f"{cut}: the frames from there on are given again", stacklevel=2)
            del given[keep:]
            rewound = True
        damaged = False
        while len(given) < len(records) and _agrees(given, records, len(given)):
            record = np.array(records[len(given) : len(given) + 1])
            if not intact(record)[0]:
                damaged = True
                break
            given.append(int(record["crc"][0]))
            step, time_ps, wall, box, coordinates, embedding, _ = record[0]
            index, step, time_ps, wall = len(given) - 1, int(step), float(time_ps), float(wall)
            yield StoredFrame(index, step, time_ps, wall, box, coordinates, embedding, rewound)
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


_RATE_FRAMES = 50
_SECONDS_PER_DAY = 86_400.0


class State(str, Enum):
    """What the writer is doing."""

    WRITING = "writing"
    CLOSED = "closed"
    """It has said that it is done."""
    STOPPED = "stopped"
    """It is gone without a word: killed, perhaps; the store is whole, and a writer can go on with it."""


@dataclass(frozen=True)
class StoreStatus:
    """A look at a store."""

    state: State
    num_frames: int
    last_step: int | None
    last_time_ps: float
    frames_per_second: float
    """Speed of the simulation over its last frames; NaN if there are too few."""
    ns_per_day: float
    age_seconds: float
    """Since the simulation was at the last stored frame."""
    num_waiting: int
    """Frames that wait for the worker."""
    num_checked: int
    """Newest frames that were read and checked."""
    damaged: tuple[int, ...]
    """Frames among them whose checksum is wrong."""
    not_finite: tuple[int, ...]
    """Frames among them with a NaN or infinity."""

    @property
    def healthy(self) -> bool:
        return not self.damaged and not self.not_finite


def status_of(store: EmbeddingStore, check: int = 100) -> StoreStatus:
    """Look at a store, which may be growing.

    Args:
        check: how many of the newest frames are read and compared with their checksum.
    """
    # The end of the writer is seen before the frames are counted, so that a closed store has all of its frames.
    state = State.CLOSED if store.is_closed else State.WRITING if store.is_being_written else State.STOPPED
    records = store.records
    count = len(records)
    newest = np.array(records[max(0, count - check) :])
    first = count - len(newest)
    good = intact(newest) if count else np.empty(0, bool)
    finite = np.isfinite(newest["embedding"]).reshape(len(newest), -1).all(axis=1)
    recent = np.array(records[["time", "wall"]][max(0, count - _RATE_FRAMES) :])
    seconds = recent["wall"][-1] - recent["wall"][0] if len(recent) > 1 else 0.0
    rate = (len(recent) - 1) / seconds if seconds > 0 else float("nan")
    speed = (recent["time"][-1] - recent["time"][0]) / 1000 / seconds * _SECONDS_PER_DAY if seconds > 0 else rate
    last_step = int(records["step"][-1]) if count else None
    return StoreStatus(
        state,
        count,
        last_step,
        float(records["time"][-1]) if count else 0.0,
        float(rate),
        float(speed),
        time.time() - float(records["wall"][-1]) if count else float("nan"),
        num_waiting(store.path, last_step),
        len(newest),
        tuple((first + np.flatnonzero(~good)).tolist()),
        tuple((first + np.flatnonzero(good & ~finite)).tolist()),
    )
