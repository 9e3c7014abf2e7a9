"""From a simulation into an embedding store: in the simulation's own thread, in a second one, or in another process.

The way of a frame: the positions of the atoms that matter are copied, written to the ring of pending.npy, queued;
a worker makes the features and appends them. So a checkpoint that is written when `submit` has returned can never be
ahead of what a restart finds.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from openmm_gnn.base.errors import DataError, OpenMMGNNError, SpecError
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.feature_workers import FeatureProcess, TokenFeaturizer, frame_features
from openmm_gnn.reporters.pending_frames import PendingFrame, PendingFrames, forget, left_behind
from openmm_gnn.reporters.store_meta import is_store


class Worker(str, Enum):
    """Who makes the features."""

    NONE = "none"
    """The simulation's own thread, which waits."""
    THREAD = "thread"
    PROCESS = "process"


class EmbeddingStream:
    """Takes frames of one simulation in the order of their steps; what was taken is stored when it is closed."""

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
            self._kind = Worker(worker or "none")
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
        self._max_pending = max_pending
        self._process: FeatureProcess | None = None
        if self._kind is Worker.PROCESS:
            try:
                self._process = FeatureProcess(featurizer, worker_threads)
            except BaseException:
                self.store.close()
                raise
        self._features = self._process or functools.partial(frame_features, featurizer)
        torch.get_num_threads()  # settles the number of the calling thread before the worker's own is set
        self._thread = ThreadPoolExecutor(1, "openmm_gnn features", torch.set_num_threads, (worker_threads,))
        self._waiting: deque[Future[None]] = deque()
        """Frames that were handed to the thread, the oldest first; the first may be in work."""
        self._ring: PendingFrames | None = None
        self._error: BaseException | None = None
        """What ended the work; later frames are not stored."""
        self._told = self._begun = self.closed = False
        self.waited = 0.0
        """Seconds that the simulation has waited for the worker, because `max_pending` frames waited already."""
        self.last_step = self.store.last_step
        """Step of the last frame that was taken."""

    def go_on_after(self, step: int) -> int:
        """The simulation stands at this step: frames past it are dropped, those that waited for a killed worker made.

        Call it once before the first frame, and again whenever the simulation went back.

        Returns:
            How many frames were dropped.
        """
        self.flush()
        dropped = self.store.truncate_after(step)
        if not self._begun:
            self._begun = True
            for frame in left_behind(self.store.path, self.store.last_step, step, len(self._atoms)):
                self._make(frame)
            if self._kind is Worker.NONE:
                forget(self.store.path)
            else:
                # One frame more may be in work, and one on its way to the thread.
                self._ring = PendingFrames(self.store.path, len(self._atoms), self._max_pending + 2)
        self.last_step = self.store.last_step
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
        self._check()
        if not self._begun:
            raise SpecError(f"frame of step {step} before go_on_after: say first where the simulation stands")
        if self._ring is None:
            self._work(frame)
            self._check()
        else:
            self._wait_for_all_but(self._max_pending)
            self._ring.put(frame)
            self._waiting.append(self._thread.submit(self._work, frame))
        self.last_step = step

    def flush(self, durable: bool = False) -> None:
        """Wait until all that was taken is stored; `durable` waits for the disk too.

        Raises:
            OpenMMGNNError: what stopped the worker.
        """
        self._wait_for_all_but(0)
        self._check()
        self.store.flush(durable)

    def close(self) -> None:
        """Store what waits, and close the store; closing twice does no harm.

        Raises:
            OpenMMGNNError: what stopped the worker, if it was not raised before.
        """
        if self.closed:
            return
        self.closed = True
        self._thread.shutdown()
        if self._process is not None:
            self._process.close()
        self.store.close()
        if self._ring is not None:
            (self._ring.remove if self._error is None else self._ring.close)()
        if not self._told:
            self._check()

    def _wait_for_all_but(self, most: int) -> None:
        start = time.perf_counter()
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > most):
            self._waiting[0].result()
            self._waiting.popleft()
        self.waited += time.perf_counter() - start

    def _work(self, frame: PendingFrame) -> None:
        """Make and store a frame; after an error frames are taken and dropped, so that nobody waits for ever."""
        try:
            if self._error is None:
                self._make(frame)
        except BaseException as error:
            self._error = error

    def _make(self, frame: PendingFrame) -> None:
        """Store the features of a frame.

        Raises:
            OpenMMGNNError: naming the step, with the original error's text; of the same class where it is one of ours.
        """
        try:
            embedding, coordinates = self._features(frame)
        except OpenMMGNNError as error:
            raise type(error)(f"features of step {frame.step}: {error}") from error
        except Exception as error:
            raise OpenMMGNNError(f"features of step {frame.step}: {type(error).__name__}: {error}") from error
        self.store.append(frame.step, frame.time_ps, frame.box, embedding, coordinates, frame.wall)

    def _check(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error
