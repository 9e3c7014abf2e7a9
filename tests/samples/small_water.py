"""Starting positions of a few molecules of water."""

from __future__ import annotations

import numpy as np

MOLECULE = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.023999, 0.092663, 0.0]])
"""(3, 3) nm: O, H1, H2 with TIP3P's bonds and angle."""


def water_on_a_lattice(per_edge: int, spacing: float) -> np.ndarray:
    """(3 * per_edge**3, 3) nm: oxygens on a simple cubic lattice from the origin on, all molecules turned alike."""
    sites = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return (spacing * sites + MOLECULE).reshape(-1, 3)
