"""Molecules of a topology: their atoms, their centres, and the pairs of elements that have a g(r)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError

if TYPE_CHECKING:
    import mdtraj


@dataclass(frozen=True)
class Molecules:
    """The atoms of a topology, by molecule and element."""

    masses: np.ndarray
    """(num_atoms,) dalton; 0 for virtual sites."""
    elements: np.ndarray
    """(num_atoms,) symbols; "" for virtual sites."""
    of_atom: np.ndarray
    """(num_atoms,) number of the molecule, 0 to `count` - 1."""
    atoms: np.ndarray
    """Indices of the atoms that were selected, without virtual sites."""
    selection: str

    @property
    def count(self) -> int:
        return int(self.of_atom.max()) + 1

    @property
    def are_atoms(self) -> bool:
        """Whether every molecule is one atom, as in argon."""
        return self.count == len(self.of_atom)

    def element_pairs(self) -> list[tuple[str, str]]:
        """The pairs of selected elements that have atoms in two molecules, in the order of the topology."""
        names = list(dict.fromkeys(self.elements[self.atoms]))
        pairs = [(first, second) for index, first in enumerate(names) for second in names[index:]]
        return [pair for pair in pairs if self._are_in_two_molecules(*pair)]

    def of_element(self, element: str) -> np.ndarray:
        """Indices of the selected atoms of an element."""
        return self.atoms[self.elements[self.atoms] == element]

    def centers(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres of mass (frames, molecules, 3) of unwrapped positions, and the molecules' masses."""
        masses = np.bincount(self.of_atom, weights=self.masses)
        order = np.argsort(self.of_atom, kind="stable")
        starts = np.searchsorted(self.of_atom[order], np.arange(self.count))
        weighted = positions[:, order] * self.masses[order, None]
        return np.add.reduceat(weighted, starts, axis=1) / masses[:, None], masses

    def _are_in_two_molecules(self, first: str, second: str) -> bool:
        one, other = self.of_atom[self.of_element(first)], self.of_atom[self.of_element(second)]
        return len(one) > 0 and len(other) > 0 and len(np.union1d(one, other)) > 1


def molecules_of(topology: mdtraj.Topology, selection: str) -> Molecules:
    """Molecules of a topology: atoms of one residue, and residues that bonds join.

    Args:
        selection: atoms in mdtraj's language; "all" for all.
    Raises:
        DataError: if the selection cannot be read, or matches fewer than 2 atoms.
    """
    try:
        atoms = np.asarray(topology.select(selection), dtype=np.int64)
    except ValueError as error:
        raise DataError(f"the selection {selection!r} is not mdtraj's language: {error}") from error
    masses = np.array([atom.element.mass for atom in topology.atoms])
    elements = np.array(["" if atom.element.number == 0 else atom.element.symbol for atom in topology.atoms])
    atoms = atoms[elements[atoms] != ""]
    if len(atoms) < 2:
        raise DataError(f"the selection {selection!r} matches {len(atoms)} atoms: g(r) needs at least 2")
    return Molecules(masses, elements, _connected(topology), atoms, selection)


def _connected(topology: mdtraj.Topology) -> np.ndarray:
    """(num_atoms,) the number of the molecule of each atom, from 0."""
    parent = list(range(topology.n_atoms))

    def root(atom: int) -> int:
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    joined = [(residue.atom(0).index, atom.index) for residue in topology.residues for atom in residue.atoms]
    joined += [(first.index, second.index) for first, second in topology.bonds]
    for first, second in joined:
        parent[root(second)] = root(first)
    return np.unique([root(atom) for atom in range(topology.n_atoms)], return_inverse=True)[1]
