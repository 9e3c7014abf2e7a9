"""Starting sites without overlaps."""

from __future__ import annotations

import numpy as np


def lattice_sites(num_atoms: int, edge: float) -> np.ndarray:
    """(num_atoms, 3) sites of a simple cubic lattice that fills the box, chosen at random but always the same."""
    sites_per_edge = int(np.ceil(num_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(sites_per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.random.default_rng(0).permutation(len(sites))[:num_atoms]
    return (sites[np.sort(chosen)] + 0.5) * (edge / sites_per_edge)
