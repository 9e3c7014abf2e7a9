"""A thread that makes features while the simulation goes on: bounded memory, nothing lost, no error swallowed."""

from __future__ import annotations

import queue
import threading
import time

import torch

from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.frame_features import FeaturesOfFrame, store_frame
from openmm_gnn.reporters.pending_frames import PendingFrame


class FeatureWorker:
    """Frames go in by `put`; features come out into the store, in order."""

    def __init__(self, store: EmbeddingStore, features: FeaturesOfFrame, max_pending: int, threads: int) -> None:
        """
        Args:
            max_pending: frames that may wait; with so many, `put` waits too.
            threads: of torch, in this worker alone.
        """
        self.error: BaseException | None = None
        """What ended the work; later frames are not stored."""
        self.waited = 0.0
        """Seconds that `put` has waited in all."""
        self._store = store
        self._features = features
        self._threads = threads
        self._frames: queue.Queue[PendingFrame | None] = queue.Queue(max_pending)
        torch.get_num_threads()  # settles the number of the calling thread before the worker's own is set
        self._thread = threading.Thread(target=self._work, name="openmm_gnn features", daemon=True)
        self._thread.start()

    def put(self, frame: PendingFrame) -> None:
        """Hand over a frame; waits while `max_pending` of them wait already."""
        start = time.perf_counter()
        self._frames.put(frame)
        self.waited += time.perf_counter() - start

    def wait(self) -> None:
        """Until every frame that was handed over is stored, or the work has failed."""
        self._frames.join()

    def close(self) -> None:
        """Store what waits, and end the thread."""
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            frame = self._frames.get()
            try:
                if frame is None:
                    return
                if self.error is None:  # after an error frames are taken and dropped, so that nobody waits for ever
                    store_frame(self._store, self._features, frame)
            except BaseException as error:
                self.error = error
            finally:
                self._frames.task_done()
