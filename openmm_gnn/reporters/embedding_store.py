"""The embedding store: a directory with meta.json and frames.npy, readable at any moment, also after kill -9.

    meta.json    the encoder, the tokens, the topology's hash, units, versions; replaced as a whole
    frames.npy   one record per frame, see growing_array.py; `np.load("frames.npy", mmap_mode="r")` reads it live
    pending.npy  only while a worker runs: positions that wait for it, see pending_frames.py
    set-aside.npy  frames that a restart between two frames has cut, as in frames.npy

A record has `step`, `time` (ps), `wall` (seconds since 1970), `box` (rows a, b, c in nm; zeros where there is none),
`coordinates` of the tokens (nm), `embedding` (component 0 the scalars, 1 to 3 the vectors' x, y, z) and `crc`.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import openmm_gnn
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import GrowingArray, intact, is_being_written, read_growing_array
from openmm_gnn.reporters.store_follower import StoredFrame, follow, is_closed
from openmm_gnn.reporters.store_meta import (
    check_embedding,
    check_same_source,
    read_meta,
    stores_under,
    write_meta,
)

UNITS = {
    "time": "ps",
    "wall": "s since 1970-01-01 UTC",
    "box": "nm, rows a, b, c; zeros: no box",
    "coordinates": "nm",
    "embedding": "the encoder's; component 0 scalar, 1..3 x, y, z",
}
OPEN, CLOSED = "open", "closed"
SET_ASIDE = "set-aside.npy"
"""Frames, as in frames.npy, that a restart has cut of which nobody knows whether it makes them again."""
SAME_PLACE_NM = 1e-3
"""Where two frames of one step have a token further apart than this, they are not the same frame."""


class EmbeddingStore:
    """Embeddings of a run, frame by frame. Make one with `create`, `open` or `append_to`.

    ```python
    store = EmbeddingStore.open("run/features")  # while the simulation writes to it
    store.steps, store.times_ps  # (frames,)
    store.embeddings  # (frames, tokens, 4, H), a memory map
    ```
    """

    def __init__(self, path: Path, meta: dict[str, Any], writer: GrowingArray | None) -> None:
        """Use `create`, `open` or `append_to`."""
        self.path = path
        self.meta = meta
        self._writer = writer
        self._last_step: int | None = None

    def __repr__(self) -> str:
        steps = self.steps
        until = f", steps {steps[0]} to {steps[-1]}" if len(steps) else ""
        shape = f"{self.num_tokens} x 4 x {self.meta['width']} {self.meta['dtype']}"
        return f"EmbeddingStore({str(self.path)!r}: {len(steps)} frames of {shape}{until})"

    @classmethod
    def create(
        cls,
        path: Path | str,
        description: dict[str, Any],
        num_tokens: int,
        width: int,
        dtype: str = "float16",
        system: dict[str, Any] | None = None,
    ) -> EmbeddingStore:
        """A new, writable store.

        Args:
            path: a directory; it may exist, but not hold frames.
            description: what the features are of and made with, `Featurizer.describe()`.
            num_tokens: tokens of a frame.
            width: channels H of a token.
            dtype: type of the stored embeddings, "float16" or "float32".
            system: what else should be known of the simulation; stored as it is.
        Raises:
            DataError: if the directory holds frames already or cannot be written, or the dtype is another.
        """
        path = Path(path)
        if dtype not in ("float16", "float32"):
            raise DataError(f"embeddings are stored as float16 or float32, {dtype!r} was asked for: choose one of them")
        if num_tokens < 1 or width < 1:
            raise DataError(f"a store needs tokens and channels, {num_tokens} x {width} were given")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be made ({error.strerror}): choose another place for the store") from error
        frames = path / "frames.npy"
        count = len(read_growing_array(frames)) if frames.exists() and frames.stat().st_size else 0
        if count:
            raise DataError(
                f"{path} holds {count} frames already: append to it (append=True), or choose another directory"
            )
        meta = {
            "state": OPEN,
            "num_tokens": num_tokens,
            "width": width,
            "dtype": dtype,
            "description": json.loads(json.dumps(description)),
            "units": UNITS,
            "system": system or {},
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": _versions(),
        }
        writer = GrowingArray.open(frames, _fields(meta), anew=True)
        return cls._opened(path, meta, writer)

    @classmethod
    def open(cls, path: Path | str) -> EmbeddingStore:
        """A store to read, whether it is complete, still growing, or its writer was killed.

        Raises:
            DataError: if there is none, or its meta.json is damaged or of another version.
        """
        path = Path(path)
        return cls(path, read_meta(path), None)

    @classmethod
    def append_to(cls, path: Path | str, description: dict[str, Any], patience: float = 10.0) -> EmbeddingStore:
        """A store to go on with.

        Args:
            description: description of the features to come; must be that of the stored ones.
            patience: seconds to wait for another writer to let go.
        Raises:
            DataError: if the features are of another model, topology or selection (names both), or another process
                writes to the store.
        """
        path = Path(path)
        meta = read_meta(path)
        check_same_source(path, meta["description"], json.loads(json.dumps(description)))
        writer = GrowingArray.open(path / "frames.npy", _fields(meta), patience)
        return cls._opened(path, {**meta, "state": OPEN, "versions": _versions()}, writer)

    @classmethod
    def _opened(cls, path: Path, meta: dict[str, Any], writer: GrowingArray) -> EmbeddingStore:
        try:
            write_meta(path, meta)
        except BaseException:
            writer.close()
            raise
        return cls(path, meta, writer)

    @staticmethod
    def replicas(run: Path | str) -> dict[str, EmbeddingStore]:
        """The stores of a run, or of a folder with several, by their paths in it, to read; one that is it itself is "".

        The names are in natural order: replica-2 comes before replica-10.

        Raises:
            DataError: if there are none.
        """
        run = Path(run)
        found = stores_under(run)
        if not found:
            raise DataError(f"{run} holds no embedding store: give the directory that EmbeddingReporter writes to")
        return {"" if path == run else str(path.relative_to(run)): EmbeddingStore.open(path) for path in found}

    def __len__(self) -> int:
        return len(self.records)

    @property
    def records(self) -> np.ndarray:
        """All frames now in the file as a structured memory map, (frames,)."""
        if not (self.path / "frames.npy").exists():  # killed between the directory and the file
            return np.empty(0, np.dtype(_fields(self.meta)))
        return read_growing_array(self.path / "frames.npy")

    @property
    def steps(self) -> np.ndarray:
        """(frames,) int64, increasing."""
        return np.array(self.records["step"])

    @property
    def times_ps(self) -> np.ndarray:
        """(frames,) time in ps; where frames came without, from the time between two that was given later."""
        times, interval = np.array(self.records["time"]), self.meta["system"].get("frame_time_ps")
        return times if interval is None else np.where(np.isnan(times), self.steps * interval, times)

    @property
    def embeddings(self) -> np.ndarray:
        """(frames, tokens, 4, H), a view of the memory map."""
        return self.records["embedding"]

    @property
    def coordinates(self) -> np.ndarray:
        """(frames, tokens, 3) nm, a view of the memory map."""
        return self.records["coordinates"]

    @property
    def boxes(self) -> np.ndarray:
        """(frames, 3, 3) nm, rows a, b, c; zeros where there is no box."""
        return np.array(self.records["box"])

    @property
    def num_tokens(self) -> int:
        return int(self.meta["num_tokens"])

    @property
    def width(self) -> int:
        return int(self.meta["width"])

    @property
    def is_being_written(self) -> bool:
        """Whether a process has the store open for writing now."""
        frames = self.path / "frames.npy"
        return self._writer is not None or (frames.exists() and is_being_written(frames))

    @property
    def is_closed(self) -> bool:
        """Whether the writer has said that it is done; a killed one has not."""
        return self._writer is None and is_closed(self.path)

    def num_frames_until(self, step: int) -> int:
        """How many frames are of this step or before."""
        return _count_until(self.records, step)

    def append(
        self,
        step: int,
        time_ps: float,
        box: np.ndarray | None,
        embedding: np.ndarray,
        coordinates: np.ndarray,
        wall: float | None = None,
    ) -> None:
        """Add a frame; every reader sees it when this returns.

        Args:
            step: above the last one.
            box: (3, 3) nm, None where there is none.
            embedding: (tokens, 4, H).
            coordinates: (tokens, 3) nm.
            wall: seconds since 1970 at which the simulation was there; now if None.
        Raises:
            NonFiniteError: if a token has a NaN or infinity, naming it and the step.
            DataError: if a shape is wrong, a number is too large for float16, or the disk is full.
        """
        writer = self._writable()
        last = self.last_step
        if last is not None and step <= last:
            raise DataError(f"frame of step {step} after that of step {last} in {self.path}: truncate_after first")
        tokens = self.meta["description"].get("tokens")
        check_embedding(step, embedding, coordinates, (self.num_tokens, self.width), self.meta["dtype"], tokens)
        record = writer.empty_records(1)
        record["step"], record["time"] = step, time_ps
        record["wall"] = time.time() if wall is None else wall
        record["embedding"], record["coordinates"] = embedding, coordinates
        if box is not None:
            record["box"] = box
        writer.append(record)
        self._last_step = step

    @property
    def last_step(self) -> int | None:
        """The step of the last frame; None if there is none."""
        if self._last_step is not None:
            return self._last_step
        records = self.records
        return int(records["step"][-1]) if len(records) else None

    def truncate_after(self, step: int) -> int:
        """Forget the frames past a step; returns how many there were."""
        writer, records = self._writable(), self.records
        keep = _count_until(records, step)
        if keep < len(records):
            writer.truncate(keep)
        self._last_step = None
        return len(records) - keep

    def set_aside_after(self, step: int) -> None:
        """Copy the frames past a step to set-aside.npy, behind those that are there."""
        self._writable()
        past = self.records[self.num_frames_until(step) :]
        with GrowingArray.open(self.path / SET_ASIDE, _fields(self.meta)) as aside:
            for start in range(0, len(past), 256):
                aside.append(np.array(past[start : start + 256]))

    def describe_system(self, system: dict[str, Any]) -> None:
        """Say in meta.json what else should be known of the simulation; replaces what was said before."""
        self._writable()
        if system != self.meta["system"]:
            self.meta = {**self.meta, "system": system}
            write_meta(self.path, self.meta)

    def flush(self, durable: bool = False) -> None:
        """Nothing is buffered: readers have what was appended. `durable` waits for the disk, against power cuts."""
        writer = self._writable()
        if durable:
            writer.sync()

    def verify(self) -> np.ndarray:
        """Read everything; the indices of the frames whose checksum is wrong."""
        return np.flatnonzero(~intact(self.records))

    def follow(self, poll: float = 0.2, timeout: float | None = None) -> Iterator[StoredFrame]:
        """Every frame, those to come too; see `store_follower.follow`."""
        return follow(self.path, poll, timeout)

    def close(self) -> None:
        """Say in meta.json that the writer is done, and give up the lock; closing twice does no harm."""
        if self._writer is None:
            return
        self.meta = {**self.meta, "state": CLOSED}
        with contextlib.suppress(OSError, DataError):  # the disk may be full; readers then see a writer that is gone
            write_meta(self.path, self.meta)
        self._writer.close()
        self._writer = None

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> GrowingArray:
        if self._writer is None:
            raise DataError(f"{self.path} is open for reading only: use EmbeddingStore.append_to to go on with it")
        return self._writer


def _count_until(records: np.ndarray, step: int) -> int:
    """How many frames are of this step or before; touches few of them."""
    return bisect.bisect_right(range(len(records)), step, key=lambda index: records["step"][index])


def _fields(meta: dict[str, Any]) -> list[tuple[Any, ...]]:
    tokens, width = int(meta["num_tokens"]), int(meta["width"])
    return [
        ("step", "<i8"),
        ("time", "<f8"),
        ("wall", "<f8"),
        ("box", "<f4", (3, 3)),
        ("coordinates", "<f4", (tokens, 3)),
        ("embedding", {"float16": "<f2", "float32": "<f4"}[meta["dtype"]], (tokens, 4, width)),
    ]


def _versions() -> dict[str, str]:
    return {
        "openmm_gnn": getattr(openmm_gnn, "__version__", ""),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
