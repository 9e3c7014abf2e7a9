"""From a simulation into an embedding store: in the simulation's own thread, in a second one, or in another process.

The way of a frame: the positions of the atoms that matter are copied, written to the ring of pending.npy, queued;
a worker makes the features and appends them. So a checkpoint that is written when `submit` has returned can never be
ahead of what a restart finds.
"""

from __future__ import annotations

import time
import weakref
from enum import Enum
from pathlib import Path

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.feature_workers import (
    FeatureProcess,
    FeaturesOfFrame,
    FeatureWorker,
    FrameFeatures,
    TokenFeaturizer,
    store_frame,
)
from openmm_gnn.reporters.pending_frames import PendingFrame, PendingFrames, forget, left_behind
from openmm_gnn.reporters.store_meta import is_store


class Worker(str, Enum):
    """Who makes the features."""

    NONE = "none"
    """The simulation's own thread, which waits."""
    THREAD = "thread"
    PROCESS = "process"


class EmbeddingStream:
    """Takes frames of one simulation in the order of their steps.

    What was taken is stored when the stream is closed, at the latest at the end of the interpreter.
    """

    def __init__(
        self,
        path: Path | str,
        featurizer: TokenFeaturizer,
        append: bool = False,
        dtype: str = "float16",
        worker: str | None = "thread",
        max_pending: int = 16,
        worker_threads: int = 1,
    ) -> None:
        """
        Args:
            path: directory of the store.
            append: go on with the store that is there; where there is none, one is made.
            dtype: type of the numbers of a new store, "float16" or "float32".
            worker: "thread", "process" or None.
            max_pending: frames that may wait for the worker, 1 or more; then the simulation waits.
            worker_threads: threads of torch in the worker.
        Raises:
            SpecError: for an unknown worker, or a max_pending or worker_threads below 1.
            DataError: if the store holds frames and `append` is False, or frames of other features.
        """
        try:
            self._worker_kind = Worker(worker or "none")
        except ValueError:
            raise SpecError(f"worker is {worker!r}: give 'thread', 'process' or None") from None
        for name, value in (("maxPending", max_pending), ("workerThreads", worker_threads)):
            if value < 1:
                raise SpecError(f"{name} is {value}: give 1 or more")
        path, description = Path(path), featurizer.describe()
        if append and is_store(path):
            self.store = EmbeddingStore.append_to(path, description)
            if self.store.meta["dtype"] != dtype:
                stored = self.store.meta["dtype"]
                self.store.close()
                raise DataError(f"{path} holds {stored}, {dtype} was asked for: go on with dtype={stored!r}")
        else:
            self.store = EmbeddingStore.create(path, description, featurizer.num_tokens, featurizer.width, dtype)
            forget(path)
        self._atoms = np.asarray(featurizer.read_atoms)
        self._work = _Work(self.store, featurizer, self._worker_kind, max_pending, worker_threads, len(self._atoms))
        self._last_step = self.store.last_step
        self._finalizer = weakref.finalize(self, self._work.close)

    @property
    def last_step(self) -> int | None:
        """Step of the last frame that was taken."""
        return self._last_step

    @property
    def waited(self) -> float:
        """Seconds that the simulation has waited for the worker, because `max_pending` frames waited already."""
        return self._work.waited

    def go_on_after(self, step: int) -> int:
        """The simulation stands at this step: frames past it are dropped, those that waited for a killed worker made.

        Call it once before the first frame, and again whenever the simulation went back.

        Returns:
            How many frames were dropped.
        """
        self._work.flush()
        dropped = self.store.truncate_after(step)
        self._work.begin(self.store.last_step, step)
        self._last_step = self.store.last_step
        return dropped

    def submit(self, step: int, time_ps: float, positions: np.ndarray, box: np.ndarray | None) -> None:
        """Take a frame.

        Args:
            positions: (num_particles, 3) nm; only the atoms that matter are copied.
            box: (3, 3) nm, rows a, b, c; None where there is none.
        Raises:
            DataError, NonFiniteError, OpenMMGNNError: what stopped the worker, or the disk, or this frame.
        """
        frame = PendingFrame(step, time_ps, time.time(), np.array(positions[self._atoms], np.float64), box)
        self._work.take(frame)
        self._last_step = step

    def flush(self, durable: bool = False) -> None:
        """Wait until all that was taken is stored; `durable` waits for the disk too.

        Raises:
            OpenMMGNNError: what stopped the worker.
        """
        self._work.flush()
        self.store.flush(durable)

    def close(self) -> None:
        """Store what waits, and close the store; closing twice does no harm.

        Raises:
            OpenMMGNNError: what stopped the worker, if it was not raised before.
        """
        self._finalizer.detach()
        self._work.close()


class _Work:
    """All of a stream but its handle, so that the handle's end can close it."""

    def __init__(
        self,
        store: EmbeddingStore,
        featurizer: TokenFeaturizer,
        kind: Worker,
        max_pending: int,
        threads: int,
        num_read: int,
    ) -> None:
        self._store = store
        self._kind, self._max_pending, self._threads, self._num_read = kind, max_pending, threads, num_read
        self._features: FeaturesOfFrame
        if kind is Worker.PROCESS:
            try:
                self._features = FeatureProcess(featurizer, threads)
            except BaseException:
                store.close()
                raise
        else:
            self._features = FrameFeatures(featurizer)
        self._worker: FeatureWorker | None = None
        self._ring: PendingFrames | None = None
        self._error: BaseException | None = None
        self._told = self._begun = self._closed = False

    @property
    def waited(self) -> float:
        return self._worker.waited if self._worker else 0.0

    def begin(self, last_step: int | None, step: int) -> None:
        """Make the frames that a killed process left up to `step`, and be ready for new ones."""
        if self._begun:
            return
        self._begun = True
        for frame in left_behind(self._store.path, last_step, step, self._num_read):
            store_frame(self._store, self._features, frame)
        if self._kind is Worker.NONE:
            forget(self._store.path)
        else:
            # One frame more may be in work, and one on its way into the queue.
            self._ring = PendingFrames(self._store.path, self._num_read, self._max_pending + 2)
            self._worker = FeatureWorker(self._store, self._features, self._max_pending, self._threads)

    def take(self, frame: PendingFrame) -> None:
        self._check()
        if self._kind is Worker.NONE:
            try:
                store_frame(self._store, self._features, frame)
            except BaseException as error:
                self._error = error
                self._check()
            return
        if self._worker is None or self._ring is None:
            raise SpecError(f"frame of step {frame.step} before go_on_after: say first where the simulation stands")
        self._ring.put(frame)
        self._worker.put(frame)

    def flush(self) -> None:
        if self._worker is not None:
            self._worker.wait()
        self._check()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._worker.close()
        self._features.close()
        self._store.close()
        failed = self._failure() is not None
        if self._ring is not None:
            (self._ring.close if failed else self._ring.remove)()
        if not self._told:
            self._check()

    def _failure(self) -> BaseException | None:
        return self._error or (self._worker.error if self._worker is not None else None)

    def _check(self) -> None:
        error = self._failure()
        if error is not None:
            self._told = True
            raise error
