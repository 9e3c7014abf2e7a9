"""Compiled operators, their Python side, and the same in plain torch."""

from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs, pair_vectors, safe_distances
from openmm_gnn.kernels.reference import reference_neighbor_pairs

__all__ = ["neighbor_pairs", "pair_vectors", "reference_neighbor_pairs", "safe_distances"]
