"""Compiled operators, their Python side, and the same in plain torch."""

from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs, pair_vectors, reference_neighbor_pairs, safe_distances

__all__ = ["neighbor_pairs", "pair_vectors", "reference_neighbor_pairs", "safe_distances"]
