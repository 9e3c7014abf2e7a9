"""Positions that wait for a worker, on disk too: a kill between a checkpoint and the worker loses no frame.

A ring of records in pending.npy, each with its checksum. The simulation writes a frame's positions there before it
goes on, 0.1 ms; the slot is used again when the frame is stored. After a kill, what is in the ring up to the step of
the checkpoint is made into features first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import GrowingArray, intact, read_growing_array

FILE = "pending.npy"
_EMPTY = -(2**62)


@dataclass(frozen=True)
class PendingFrame:
    """What the features of a frame are made from."""

    step: int
    time_ps: float
    wall: float
    """Seconds since 1970."""
    positions: np.ndarray
    """(num_read, 3) float64 nm, of the atoms that the featurizer reads."""
    box: np.ndarray | None
    """(3, 3) nm, rows a, b, c; None where there is none."""


class PendingFrames:
    """The ring; anew for each process."""

    def __init__(self, folder: Path, num_read: int, slots: int) -> None:
        """
        Args:
            folder: directory of the store.
            num_read: atoms of a frame.
            slots: how many frames may wait.
        """
        self._path = folder / FILE
        self._slots = slots
        self._next = 0
        fields = [
            ("step", "<i8"),
            ("time", "<f8"),
            ("wall", "<f8"),
            ("box", "<f8", (3, 3)),
            ("positions", "<f8", (num_read, 3)),
        ]
        self._ring = GrowingArray.open(self._path, fields, anew=True)
        blank = self._ring.empty_records(slots)
        blank["step"] = _EMPTY
        self._ring.append(blank)

    def put(self, frame: PendingFrame) -> None:
        """Write a frame over the oldest one."""
        record = self._ring.empty_records(1)
        record["step"], record["time"], record["wall"] = frame.step, frame.time_ps, frame.wall
        record["positions"] = frame.positions
        if frame.box is not None:
            record["box"] = frame.box
        self._ring.replace(self._next % self._slots, record)
        self._next += 1

    def remove(self) -> None:
        """All frames are stored: give the file up."""
        self._ring.close()
        forget(self._path.parent)

    def close(self) -> None:
        """Leave the file for another process."""
        self._ring.close()


def forget(folder: Path) -> None:
    """Delete the frames that wait."""
    (folder / FILE).unlink(missing_ok=True)


def left_behind(folder: Path, after: int | None, until: int, num_read: int) -> list[PendingFrame]:
    """The frames that a killed process left, of steps after `after` (if any) and up to `until`, in order.

    One that was being written when the process died fails its checksum and is left out: no checkpoint is that far.
    """
    try:
        records = read_growing_array(folder / FILE)
    except DataError:
        return []
    if "positions" not in (records.dtype.names or ()) or records.dtype["positions"].shape != (num_read, 3):
        return []
    after = _EMPTY if after is None else after
    chosen = np.array(records[intact(records) & (records["step"] > after) & (records["step"] <= until)])
    return [
        PendingFrame(
            int(record["step"]),
            float(record["time"]),
            float(record["wall"]),
            record["positions"],
            record["box"] if record["box"].any() else None,
        )
        for record in chosen[np.argsort(chosen["step"])]
    ]


def num_waiting(folder: Path, after: int | None) -> int:
    """How many frames of steps after `after` (if any) are in the ring."""
    try:
        steps = read_growing_array(folder / FILE)["step"]
    except DataError:
        return 0
    return int((steps > (_EMPTY if after is None else after)).sum())
