"""The edges of the molecules of a bias, and forces from their gradients: two compiled operators for the CPU.

They do what features/whole_molecules.py and graph/edges.py do in many operations of PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)


@dataclass(frozen=True)
class MoleculeEdges:
    """What `MoleculeSearch.edges` finds at some positions."""

    centred: Tensor
    """(num_selected, 3) float32, the molecules whole, about their centroid, in the encoder's unit."""
    index: Tensor
    """(2, E) int64, row 0 the sources and row 1 the targets, as `encoder_edges`."""
    vectors: Tensor
    """(E, 3) float32."""
    distances: Tensor
    """(E,) float32."""
    kept: tuple[Tensor, Tensor, Tensor]
    """For `MoleculeSearch.forces`."""


@dataclass(frozen=True)
class MoleculeSearch:
    """How the edges of an encoder are found among atoms of few molecules."""

    hops: Tensor
    """(levels, num_read) int64 of `WholeMolecules`."""
    molecule: Tensor
    """(num_selected,) int64, the molecule of each selected atom."""
    copies: Tensor
    """(C,) int64, the selected atom of each atom of the encoder's graphs."""
    starts: Tensor
    """(graphs + 1,) int64, where each graph begins among them."""
    per_nm: float
    """The encoder's unit of length in a nanometre."""
    cutoff: float
    """In the encoder's unit."""
    max_neighbors: int
    """Neighbours of an atom that count by the rule fading; 0: all within the cutoff."""

    def arguments(self, read: Tensor, box_vectors: Tensor | None) -> tuple[Tensor | float, ...]:
        """What the operators take of positions and of the search."""
        box = read.new_empty((0, 3)) if box_vectors is None else box_vectors
        atoms = (read, box, self.hops, self.molecule, self.copies, self.starts)
        return (*atoms, self.per_nm, self.cutoff, self.max_neighbors)

    def edges(self, read: Tensor, box_vectors: Tensor | None) -> MoleculeEdges | None:
        """Edges of every pair within the cutoff; None where an atom may have an image of another one within it.

        Args:
            read: (num_read, 3) float64 nm, the selected atoms first, then those on bonds between them.
            box_vectors: (3, 3) float64 nm, rows a, b, c; None: open boundaries.
        Raises:
            RuntimeError: for positions that are not finite.
        """
        centred, index, vectors, distances, pairs, lengths = torch.ops.openmm_gnn.molecule_edges(
            *self.arguments(read, box_vectors)
        )
        if index.shape[1] == 0:
            return None
        return MoleculeEdges(centred, index, vectors, distances, (read, pairs, lengths))

    def forces(self, found: MoleculeEdges, vectors: Tensor, distances: Tensor, centred: Tensor) -> Tensor:
        """(num_read, 3) float64, kJ/mol/nm, from gradients of an energy, float32.

        Args:
            vectors: (E, 3), distances: (E,), centred: (num_selected, 3); the centroid carries no gradient.
        """
        read, pairs, lengths = found.kept
        return torch.ops.openmm_gnn.molecule_edges_backward(
            read, self.copies, pairs, lengths, vectors, distances, centred, self.per_nm, self.cutoff, self.max_neighbors
        )
