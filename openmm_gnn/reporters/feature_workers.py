"""From the positions that were read to features, in this process or in one of its own.

The process does not share Python's lock. It is started as a plain command, not forked: no state of OpenMM, CUDA or of
the user's script is in it. The featurizer travels to it once, pickled, through a private socket; nothing else is ever
unpickled there. When the parent dies, the socket closes and the child leaves.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from openmm_gnn.base import errors
from openmm_gnn.base.errors import OpenMMGNNError, SpecError
from openmm_gnn.base.worker_processes import python_command
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

    def features(self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False) -> np.ndarray:
        """(tokens, 4, H) from (num_particles, 3) nm, or (num_read, 3)."""

    def coordinates(self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False) -> np.ndarray:
        """(tokens, 3) nm."""

    def describe(self) -> dict[str, Any]:
        """What the features are, ready for JSON."""


def frame_features(featurizer: TokenFeaturizer, frame: PendingFrame) -> tuple[np.ndarray, np.ndarray]:
    """Embedding (tokens, 4, H) and coordinates (tokens, 3) nm of a frame."""
    embedding = featurizer.features(frame.positions, frame.box, of_read_atoms=True)
    return embedding, featurizer.coordinates(frame.positions, frame.box, of_read_atoms=True)


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
                python_command(_CHILD.format(descriptor=theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        self._connection = Connection(ours.detach())
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
        payload = connection.recv_bytes()
        try:
            featurizer = pickle.loads(payload)
        except Exception as error:
            text = f"the featurizer cannot be made in another process ({error})"
            remedy = "define its class in a module of its own, or use worker='thread'"
            connection.send((SpecError.__name__, f"{text}: {remedy}"))
            return
        connection.send((None, None))
        while True:
            frame = connection.recv()
            try:
                connection.send((None, frame_features(featurizer, frame)))
            except OpenMMGNNError as error:
                connection.send((type(error).__name__, str(error)))
            except Exception as error:
                connection.send((OpenMMGNNError.__name__, f"{type(error).__name__}: {error}"))
