"""From the positions that were read to a stored frame, in this process; and what a featurizer must offer for it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.pending_frames import PendingFrame


class TokenFeaturizer(Protocol):
    """What is needed of a `Featurizer`."""

    @property
    def num_particles(self) -> int:
        """Of the System."""

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
