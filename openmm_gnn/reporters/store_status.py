"""How an embedding store is doing: how far, how fast, how far behind, how healthy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

import numpy as np

from openmm_gnn.base.growing_array import intact
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.pending_frames import num_waiting

_RATE_FRAMES = 50
_SECONDS_PER_DAY = 86_400.0


class State(str, Enum):
    """What the writer is doing."""

    WRITING = "writing"
    CLOSED = "closed"
    """It has said that it is done."""
    STOPPED = "stopped"
    """It is gone without a word: killed, perhaps; the store is whole and can be gone on with."""


@dataclass(frozen=True)
class StoreStatus:
    """A look at a store."""

    state: State
    num_frames: int
    last_step: int | None
    last_time_ps: float
    frames_per_second: float
    """Of the simulation over its last frames; NaN if there are too few."""
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
