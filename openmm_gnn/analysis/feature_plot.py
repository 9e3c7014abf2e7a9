"""A figure of stored features: how far the embedding of each residue has moved since the first frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.figures import figure_file
from openmm_gnn.reporters.embedding_store import EmbeddingStore

MOST_LABELS = 24


def scalar_movement(store: EmbeddingStore) -> np.ndarray:
    """(frames, tokens): the distance of each token's scalars from those of the first frame, over their norm there.

    Scalars do not turn with the molecule, so nothing has to be superimposed.

    Raises:
        DataError: if the store has fewer than two frames.
    """
    if len(store) < 2:
        raise DataError(f"{store.path} has {len(store)} frames: a movement needs two or more")
    scalars = np.asarray(store.embeddings[:, :, 0], dtype=np.float32)
    return np.linalg.norm(scalars - scalars[0], axis=-1) / np.linalg.norm(scalars[0], axis=-1)


def save_movement(stores: Mapping[str, EmbeddingStore], path: Path | str) -> Path:
    """Draw the movement of every token over time, one panel per store, into a PNG (or what the path's ending says).

    Args:
        stores: by the name of their system.
    Raises:
        DataError: if a store has fewer than two frames.
    """
    movements = {name: scalar_movement(store) for name, store in stores.items()}
    heights = [1.2 + 0.22 * min(MOST_LABELS, movement.shape[1]) for movement in movements.values()]
    title = "Live features: how far each residue's embedding has moved"
    with figure_file(path, 9.0, sum(heights) + 0.6, title) as figure:
        panels: Any = figure.subplots(len(stores), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, movement) in zip(panels, movements.items(), strict=True):
            times, labels = stores[name].times_ps, stores[name].meta["description"]["tokens"]["labels"]
            image = axes.pcolormesh(times, np.arange(len(labels)), movement.T, shading="nearest", cmap="cividis")
            every = -(-len(labels) // MOST_LABELS)
            axes.set_yticks(range(0, len(labels), every), labels[::every])
            axes.invert_yaxis()
            axes.set(title=f"{name}: {len(times)} frames", xlabel="time (ps)")
            figure.colorbar(image, ax=axes, label="relative change")
    return Path(path)
