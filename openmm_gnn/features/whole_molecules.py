"""Molecules made whole and brought together in a periodic box, for the selected atoms alone.

The bonds of the selected molecules are a spanning tree, cut down to the paths that join selected atoms. The lattice
translation along each bond is found for all bonds at once, and summed along the paths to the root by pointer doubling:
a chain of d bonds takes log2(d) vectorised steps. Atoms of one residue that no bond joins (a ligand whose file has no
bonds) are joined to the residue's first atom, which is right while the residue is smaller than half the box.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

from openmm_gnn.base.errors import TopologyError

if TYPE_CHECKING:
    import mdtraj

_IMAGES = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float64)


class WholeMolecules:
    """The molecules of a selection. `atoms` says which atoms of the System are read; `__call__` makes them whole."""

    def __init__(self, topology: mdtraj.Topology, selected: np.ndarray, device: torch.device | str = "cpu") -> None:
        """
        Args:
            topology: with bonds.
            selected: (num_selected,) indices of the full System.
        """
        chosen = [int(index) for index in selected]
        parent_of, root_of = _pruned_tree(topology, chosen)
        others = sorted(set(parent_of) - set(chosen))
        self.atoms = np.array(chosen + others, dtype=np.int64)
        """(num_read,) atoms to read: the selected ones, then those on the bonds between them."""
        self.num_selected = len(chosen)
        row = {index: place for place, index in enumerate(self.atoms.tolist())}
        parents = torch.tensor([row[parent_of[index]] for index in self.atoms.tolist()], dtype=torch.int64)
        self.hops = [hop.to(device) for hop in _doubled(parents)]
        """The ancestors of each atom 1, 2, 4, ... bonds up."""
        number: dict[int, int] = {}
        molecules = [number.setdefault(root_of[index], len(number)) for index in chosen]
        self.molecule = torch.tensor(molecules, dtype=torch.int64, device=device)
        """(num_selected,) the molecule of each selected atom, numbered by their first atoms."""
        self.num_molecules = len(number)
        self._molecule_sizes = torch.bincount(self.molecule)[:, None]
        residues = {topology.atom(index).residue.index for index in chosen}
        self._has_no_bonds = topology.n_bonds == 0 and any(topology.residue(one).n_atoms > 1 for one in residues)

    def __call__(self, positions: Tensor, box_vectors: Tensor) -> Tensor:
        """Positions with every molecule whole, and at its image nearest to the first molecule, by their centroids.

        The first atom of the first molecule stays where it is.

        Args:
            positions: (frames, num_read, 3) float64, nm, of `atoms`, wrapped in any way.
            box_vectors: (frames, 3, 3) float64, nm, rows a, b, c in OpenMM's reduced form.
        Returns:
            (frames, num_selected, 3), nm, of the selected atoms.
        Raises:
            TopologyError: if the topology has no bonds.
        """
        if self._has_no_bonds:
            raise TopologyError(
                "the topology has no bonds, so molecules cannot be made whole in a periodic box: give one that has "
                "them (mdtraj: topology.create_standard_bonds(); OpenMM: createStandardBonds()), or positions that "
                "are whole already and no box vectors"
            )
        inverse = torch.linalg.inv(box_vectors)
        fractions = positions @ inverse
        shifts = -torch.round(fractions - fractions[:, self.hops[0]])
        for hop in self.hops:
            shifts = shifts + shifts[:, hop]
        whole = (positions + shifts @ box_vectors)[:, : self.num_selected]
        if self.num_molecules == 1:
            return whole
        return whole + self._to_the_first(whole, box_vectors, inverse)[:, self.molecule]

    def extent(self, whole: Tensor, box_vectors: Tensor) -> float:
        """The largest extent of a molecule's atoms along a box vector, in lengths of that vector.

        Args:
            whole: (num_selected, 3) nm, of a call.
            box_vectors: (3, 3) nm.
        """
        fractions = (whole @ torch.linalg.inv(box_vectors)).cpu().numpy()
        molecule = self.molecule.cpu().numpy()
        low, high = np.full((2, self.num_molecules, 3), [[[np.inf]], [[-np.inf]]])
        np.minimum.at(low, molecule, fractions)
        np.maximum.at(high, molecule, fractions)
        return float((high - low).max())

    def _to_the_first(self, whole: Tensor, box_vectors: Tensor, inverse: Tensor) -> Tensor:
        """(frames, num_molecules, 3) translation of each molecule to its image nearest to the first."""
        sums = whole.new_zeros((whole.size(0), self.num_molecules, 3)).index_add_(1, self.molecule, whole)
        centroids = sums / self._molecule_sizes
        away = centroids - centroids[:, :1]
        shifts = -torch.round(away @ inverse)
        if bool((torch.triu(box_vectors, 1) + torch.tril(box_vectors, -1) != 0).any()):  # else rounding is exact
            candidates = shifts[:, :, None] + _IMAGES.to(whole.device)
            distances = (away[:, :, None] + candidates @ box_vectors[:, None]).square().sum(-1)
            best = distances.argmin(-1)[:, :, None, None].expand(-1, -1, 1, 3)
            shifts = candidates.gather(2, best)[:, :, 0]
        return shifts @ box_vectors


def _pruned_tree(topology: mdtraj.Topology, selected: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Parent of each atom on a path between selected atoms of one molecule (a root is its own), and their roots."""
    # The last node is joined to all roots: one walk from there, breadth first, finds every atom's parent.
    above = topology.n_atoms
    bonds = [(one.index, two.index) for one, two in topology.bonds if one.element.number and two.element.number]
    molecule = connected_components(_graph(above + 1, bonds))[1]
    first_of: dict[int, int] = {}
    links: dict[tuple[int, int], int] = {}
    for index in selected:
        first = first_of.setdefault(topology.atom(index).residue.index, index)
        if molecule[index] != molecule[first]:
            links.setdefault((first, molecule[index]), index)
    bonds += [(first, index) for (first, _), index in links.items()]
    molecule = connected_components(_graph(above + 1, bonds))[1]
    root_of_molecule: dict[int, int] = {}
    root_of = {index: root_of_molecule.setdefault(molecule[index], index) for index in selected}
    bonds += [(above, root) for root in root_of_molecule.values()]
    parents = breadth_first_order(_graph(above + 1, bonds), above, directed=False)[1].tolist()
    kept: dict[int, int] = {}
    for index in selected:
        while index not in kept:
            kept[index] = index if parents[index] == above else parents[index]
            index = kept[index]
    return kept, root_of


def _graph(num_nodes: int, edges: list[tuple[int, int]]) -> coo_array:
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(num_nodes, num_nodes))


def _doubled(parents: Tensor) -> list[Tensor]:
    """Ancestors 1, 2, 4, ... bonds up, until all are roots; at least one level."""
    hops = [parents]
    while not torch.equal(hops[-1], hops[-1][hops[-1]]):
        hops.append(hops[-1][hops[-1]])
    return hops
