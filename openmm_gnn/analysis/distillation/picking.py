"""Which geometries are worth a label: those that are least like the ones that have one.

Half of the labels of a round are such, the other half are picked at random: errors count where molecules usually are. A
frame is described by the neighbourhoods of its atoms, which neither rotation nor translation changes; the frame that
is farthest from all that are labelled or picked is picked next.
Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", Theor. Comput. Sci. 38, 293 (1985), doi
10.1016/0304-3975(85)90224-5.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.analysis.distillation.sampling import Frames
from openmm_gnn.learning.training.training_distribution import descriptors


def described(frames: Frames, atoms: np.ndarray, numbers: np.ndarray, cutoff: float) -> np.ndarray:
    """(frames, descriptors): those of all atoms, one behind the other.

    Args:
        atoms: indices of the particles that have an element.
        numbers: (atoms,) atomic numbers.
        cutoff: of the network, nm.
    """
    elements = tuple(sorted(set(numbers.tolist())))
    rows = [
        descriptors((numbers, frame[atoms], None if frames.box_vectors is None else frames.box_vectors[k]), elements,
                    cutoff)
        for k, frame in enumerate(frames.positions)
    ]  # fmt: skip
    return np.array(rows).reshape(len(frames), -1)


def farthest(candidates: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` candidates, each the farthest from the known ones and those picked before.

    Distances are in units of each descriptor's spread over all frames, those that do not vary left out.

    Args:
        candidates: (frames, descriptors).
        known: (frames, descriptors) of what is labelled.
    """
    spread = np.concatenate([known, candidates]).std(axis=0)
    varies = spread > 1e-6
    candidates, known = candidates[:, varies] / spread[varies], known[:, varies] / spread[varies]
    nearest = np.full(len(candidates), np.inf)
    for row in known:
        nearest = np.minimum(nearest, np.square(candidates - row).sum(axis=1))
    picked: list[int] = []
    while len(picked) < min(count, len(candidates)):
        chosen = int(np.argmax(nearest))
        picked.append(chosen)
        nearest = np.minimum(nearest, np.square(candidates - candidates[chosen]).sum(axis=1))
        nearest[chosen] = -1.0
    return np.array(picked, dtype=np.int64)
