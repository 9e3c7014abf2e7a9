"""From the positions that were read to stored features: in this process, in a thread, or in a process of its own.

The thread works while the simulation goes on: bounded memory, nothing lost, no error swallowed. The process does not
even share Python's lock. It is started as a plain command, not forked: no state of OpenMM, CUDA or of the user's script
is in it. The featurizer travels to it once, pickled, through a private socket; nothing else is ever unpickled there.
When the parent dies, the socket closes and the child leaves.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch

from openmm_gnn.base import errors
from openmm_gnn.base.errors import OpenMMGNNError, SpecError
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.pending_frames import PendingFrame


class TokenFeaturizer(Protocol):
    """What is needed of a `Featurizer`."""

    @property
    def num_particles(self) -> int:
        """Number of particles of the System."""

    @property
    def read_atoms(self) -> np.ndarray:
        """(num_read,) indices of the particles whose positions matter."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def width(self) -> int: ...

    def features(self, positions: Any, box_vectors: Any = None) -> np.ndarray:
        """(tokens, 4, H) from (num_particles, 3) nm."""

    def coordinates(self, positions: Any, box_vectors: Any = None) -> np.ndarray:
        """(tokens, 3) nm."""

    def describe(self) -> dict[str, Any]:
        """What the features are, ready for JSON."""


class FrameFeatures:
    """Features of a frame of which only the atoms that matter are known."""

    def __init__(self, featurizer: TokenFeaturizer) -> None:
        self._featurizer = featurizer
        self._atoms = np.asarray(featurizer.read_atoms)
        self._positions = np.full((featurizer.num_particles, 3), np.nan)  # one that should not matter, but does, shows

    def __call__(self, frame: PendingFrame) -> tuple[np.ndarray, np.ndarray]:
        """Embedding (tokens, 4, H) and coordinates (tokens, 3) nm of a frame."""
        self._positions[self._atoms] = frame.positions
        embedding = self._featurizer.features(self._positions, frame.box)
        return embedding, self._featurizer.coordinates(self._positions, frame.box)

    def close(self) -> None:
        """Nothing to give back."""


class FeaturesOfFrame(Protocol):
    """Features made here, or by another process."""

    def __call__(self, frame: PendingFrame) -> tuple[np.ndarray, np.ndarray]: ...

    def close(self) -> None: ...


def store_frame(store: EmbeddingStore, features: FeaturesOfFrame, frame: PendingFrame) -> None:
    """Make the features of a frame and store them.

    Raises:
        OpenMMGNNError: naming the step, with the original error's text; of the same class where it is one of ours.
    """
    try:
        embedding, coordinates = features(frame)
    except OpenMMGNNError as error:
        raise type(error)(f"features of step {frame.step}: {error}") from error
    except Exception as error:
        raise OpenMMGNNError(f"features of step {frame.step}: {type(error).__name__}: {error}") from error
    store.append(frame.step, frame.time_ps, frame.box, embedding, coordinates, frame.wall)


class FeatureWorker:
    """Frames go in by `put`; features come out into the store, in order."""

    def __init__(self, store: EmbeddingStore, features: FeaturesOfFrame, max_pending: int, threads: int) -> None:
        """
        Args:
            max_pending: frames that may wait; with so many, `put` waits too.
            threads: threads of torch, in this worker alone.
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


_CHILD = "from openmm_gnn.reporters.feature_workers import serve; serve({descriptor})"


class FeatureProcess:
    """Called with a frame, it waits for the child's answer; Python's lock is free meanwhile."""

    def __init__(self, featurizer: TokenFeaturizer, threads: int) -> None:
        """
        Args:
            featurizer: must survive pickling; its class must live in a module, not in the script itself.
            threads: threads of torch in the child.
        Raises:
            SpecError: if the featurizer cannot be pickled, or cannot be made again in the child.
        """
        try:
            payload = pickle.dumps(featurizer)
        except Exception as error:
            raise SpecError(
                f"the featurizer cannot be sent to another process ({error}): use worker='thread'"
            ) from error
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD.format(descriptor=theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        self._connection = Connection(ours.detach())
        self._connection.send(sys.path)
        self._connection.send_bytes(payload)
        self._answer()

    def __call__(self, frame: PendingFrame) -> tuple[np.ndarray, np.ndarray]:
        """Embedding (tokens, 4, H) and coordinates (tokens, 3) nm of a frame."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(frame)
        return self._answer()

    def close(self) -> None:
        """End the child."""
        self._connection.close()
        self._process.wait()

    def _answer(self) -> Any:
        try:
            kind, content = self._connection.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait()
            raise OpenMMGNNError(
                f"the process that makes the features ended with {code} (-9: killed, perhaps for want of memory): "
                "go on from the last checkpoint, or use worker='thread'"
            ) from None
        if kind is None:
            return content
        raise getattr(errors, kind, OpenMMGNNError)(content)


def serve(descriptor: int) -> None:
    """The child's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stores what waits
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        sys.path[:] = connection.recv()
        payload = connection.recv_bytes()
        try:
            features = FrameFeatures(pickle.loads(payload))
        except Exception as error:
            text = f"the featurizer cannot be made in another process ({error})"
            remedy = "define its class in a module of its own, or use worker='thread'"
            connection.send((SpecError.__name__, f"{text}: {remedy}"))
            return
        connection.send((None, None))
        while True:
            frame = connection.recv()
            try:
                connection.send((None, features(frame)))
            except OpenMMGNNError as error:
                connection.send((type(error).__name__, str(error)))
            except Exception as error:
                connection.send((OpenMMGNNError.__name__, f"{type(error).__name__}: {error}"))
