"""A learned CV of a TorchMD-ET of fixed weights, in two compiled operators for the CPU: what a bias asks at a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.array_program import ArrayProgram
from openmm_gnn.kernels.molecule_edges import MoleculeSearch
from openmm_gnn.kernels.neighbor_pairs import available_threads


class CompiledCV:
    """Values at positions, then forces there."""

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
        self._search = search
        places = torch.tensor(program.places(), dtype=torch.int64)
        self._network = (embedded, weights, tables, norm, head_width)
        self._program = (program.program, program.memory, places)
        self._given: tuple[Any, ...] = ()
        self._kept: list[Tensor] = []

    def values(self, read: Tensor, box_vectors: Tensor | None) -> Tensor | None:
        """(D,) float64 values; None where an atom may have an image of another one within the cutoff.

        Args:
            read, box_vectors: as for `MoleculeSearch.edges`.
        """
        found, networks = self._search, (*self._network, available_threads(), *self._program)
        self._given = (read, found.molecule, found.copies, found.per_nm, found.cutoff, found.max_neighbors, *networks)
        values, *self._kept = torch.ops.openmm_gnn.learned_cv_values(*found.arguments(read, box_vectors), *networks)
        return values if values.shape[0] > 0 else None

    def forces(self, slopes: Tensor) -> Tensor:
        """(M, num_read, 3) float64, kJ/mol/nm, of M energies whose gradients by the last values are (M, D) float64."""
        return torch.ops.openmm_gnn.learned_cv_forces(*self._given, *self._kept, slopes)
