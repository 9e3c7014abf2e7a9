"""What a bias asks of a learned CV at a step, in compiled operators for the CPU: edges of molecules, and the whole CV.

The edges, and forces from their gradients, are what features/whole_molecules.py and graph/edges.py find in many
operations of PyTorch. The whole CV is one of a TorchMD-ET of fixed weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.array_program import ArrayProgram
from openmm_gnn.kernels.neighbor_pairs import available_threads


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


class CompiledCV:
    """Values of a whole CV at positions, then forces there."""

    def __init__(
        self,
        search: MoleculeSearch,
        embedded: Tensor,
        weights: Tensor,
        tables: Tensor,
        norm: Tensor,
        head_width: int,
        program: ArrayProgram,
    ) -> None:
        """
        Args:
            search: finds the edges.
            embedded, weights, tables, norm, head_width: of the network, as for `attention_network`; of each atom of the
                graphs the scalars it begins with.
            program: of scalars (N, H) and vectors (N, 3, H) of these atoms, and (num_selected, 3) centred positions.
        Raises:
            NotRecordable: if the program's results do not stand in one piece.
        """
        places = torch.tensor(program.places(), dtype=torch.int64)
        lengths = (search.per_nm, search.cutoff, search.max_neighbors)
        self._search = (search.hops, search.molecule, search.copies, search.starts, *lengths)
        self._molecules = (search.molecule, search.copies, *lengths)
        self._network = (embedded, weights, tables, norm, head_width)
        self._program = (program.program, program.memory, places)
        self._open = torch.empty((0, 3), dtype=torch.float64)
        self._given: tuple[Any, ...] = ()
        self._kept: list[Tensor] = []

    def values(self, read: Tensor, box_vectors: Tensor | None) -> Tensor | None:
        """(D,) float64 values; None where an atom may have an image of another one within the cutoff.

        Args:
            read, box_vectors: as for `MoleculeSearch.edges`.
        """
        box = self._open if box_vectors is None else box_vectors
        networks = (*self._network, available_threads(), *self._program)
        self._given = (read, *self._molecules, *networks)
        values, *self._kept = torch.ops.openmm_gnn.learned_cv_values(read, box, *self._search, *networks)
        return values if values.shape[0] > 0 else None

    def forces(self, slopes: Tensor) -> Tensor:
        """(M, num_read, 3) float64, kJ/mol/nm, of M energies whose gradients by the last values are (M, D) float64."""
        return torch.ops.openmm_gnn.learned_cv_forces(*self._given, *self._kept, slopes)


# ---- shapes, for torch's compilers -----------------------------------------------------------------------------------


@torch.library.register_fake("openmm_gnn::molecule_edges")
def _molecule_edges_fake(read: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    selected, context = arguments[2].shape[0], torch.library.get_ctx()
    edges, pairs = context.new_dynamic_size(), context.new_dynamic_size()
    return (
        read.new_empty((selected, 3), dtype=torch.float32),
        read.new_empty((2, edges), dtype=torch.int64),
        read.new_empty((edges, 3), dtype=torch.float32),
        read.new_empty((edges,), dtype=torch.float32),
        read.new_empty((3, pairs), dtype=torch.int64),
        read.new_empty((pairs, 4), dtype=torch.float64),
    )


@torch.library.register_fake("openmm_gnn::molecule_edges_backward")
def _molecule_edges_gradients_fake(read: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(read)


@torch.library.register_fake("openmm_gnn::learned_cv_values")
def _learned_cv_values_fake(read: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    context = torch.library.get_ctx()
    values, kept = context.new_dynamic_size(), context.new_dynamic_size()
    edges = _molecule_edges_fake(read, *arguments[:8])[1:]
    numbers = read.new_empty((values,), dtype=torch.float64), arguments[8].new_empty((kept,))
    return numbers[0], *edges, numbers[1]


@torch.library.register_fake("openmm_gnn::learned_cv_forces")
def _learned_cv_forces_fake(read: Tensor, *arguments: Any) -> Tensor:
    return read.new_empty((arguments[-1].shape[0], *read.shape))
